"""The scripts in `benchmarks/`: the arms that `genreplay bench` is held against, and the
measurements beside it. No time is asserted."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import anatomy
import cost
import fading
import families
import gpu
import levers
import numpy as np
import pytest
import reference_replay as reference
import torch
from torch.utils.flop_counter import FlopCounterMode

from genreplay_core import Config, bench, generators, run
from genreplay_core.bench import Recipe
from genreplay_core.config import build_scholar, build_stream
from genreplay_core.data import Examples, joined
from genreplay_core.generators import even, mlp_vae

SCRIPTS = bench.SCRIPTS


@pytest.fixture(scope="module")
def recipe():
    with bench.data_set(quick=True) as (folder, _):
        yield Recipe(folder, "cpu", batch=8, hidden=16, steps=2)


def scholar_of(recipe, **changes):
    scholar = build_scholar(recipe.config(**changes), bench.stream_in(recipe.folder), "cpu")
    scholar.train_task(bench.stream_in(recipe.folder)[0].train, 0, steps=1)
    return scholar


def weights_after(scholar, recipe, steps=3):
    task = bench.stream_in(recipe.folder)[1].train
    scholar.train_task(task, 1, replay_ratio=1.0, steps=steps)
    networks = (scholar.solver, scholar.generator)
    return [p.detach().clone() for network in networks for p in network.parameters()]


# ---------------------------------------------------------------- what we are held against


@pytest.mark.parametrize("name", ["reference_replay", "avalanche_replay"])
def test_the_other_loops_import_nothing_of_ours(name):
    tree = ast.parse((SCRIPTS / f"{name}.py").read_text())
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    plain = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert [module for module in froms | plain if "genreplay" in module] == []


def test_the_textbook_has_the_loss_of_our_vae():
    ours, theirs = mlp_vae((1, 28, 28), hidden=16), reference.VAE(16)
    parts = zip(ours.parameters(), theirs.parameters(), strict=True)
    for mine, other in parts:
        other.data.copy_(mine.data)
    x = torch.rand(5, 1, 28, 28)
    torch.manual_seed(3)
    wanted = ours.loss(x, None, even(x))
    torch.manual_seed(3)
    torch.testing.assert_close(theirs.loss(x.flatten(1)), wanted)


def test_a_step_of_the_textbook_is_as_much_work_as_ours(recipe):
    data = reference.batches(recipe.folder, recipe.batch)
    solver, vae = reference.mlp(784, 16, 16, 10), reference.VAE(16)
    loop = reference.train(solver, vae, data, torch.device("cpu"))
    next(loop)
    with FlopCounterMode(display=False) as counter:
        next(loop)
    factors = bench.step_products(*recipe.networks(), recipe.batch, recipe.batch)
    assert counter.get_total_flops() == bench.flop(factors)


def test_the_textbook_learns_the_second_task(recipe):
    data = reference.batches(recipe.folder, recipe.batch)
    x, y = next(data)
    assert x.shape == (8, 1, 28, 28)
    assert set(y.tolist()) <= {2, 3}
    torch.manual_seed(0)
    solver, vae = reference.mlp(784, 16, 16, 10), reference.VAE(16)
    loop = reference.train(solver, vae, iter([(x, y)] * 60), torch.device("cpu"), r=0.9)
    (first, first_vae), *_, (last, last_vae) = loop
    assert last < 0.5 * first  # means over all steps so far
    assert last_vae < first_vae
    assert (solver(x.flatten(1)).argmax(1) == y).all()


def test_the_textbook_answers_as_it_is_asked(recipe, monkeypatch, capsys):
    words = ["--data", recipe.folder, "--steps", "2", "--batch", "8", "--hidden", "16"]
    monkeypatch.setattr(sys, "argv", ["reference_replay.py", *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\n"))
    reference.main()
    about, answer = map(json.loads, capsys.readouterr().out.splitlines())
    assert about == {"torch": torch.__version__}
    assert answer["steps"] == 2
    assert answer["seconds"] > 0


PYTHON = os.environ.get("GENREPLAY_AVALANCHE")


@pytest.mark.skipif(PYTHON is None, reason="GENREPLAY_AVALANCHE names no Python with Avalanche")
def test_avalanche_answers_as_it_is_asked(recipe):
    command = bench.competitors(recipe, PYTHON)["avalanche"]
    with bench.asking("avalanche", command) as (about, measure):
        assert set(about) == {"avalanche", "torch"}
        assert measure() > 0


# ---------------------------------------------------------------- levers


def test_an_attribute_is_set_for_a_while():
    place = SimpleNamespace(size=1)
    with levers.setting(place, "size", 2):
        assert place.size == 2
    assert place.size == 1


def test_dreams_of_one_s_own_take_a_pass_of_their_own(recipe):
    scholar = scholar_of(recipe)
    levers.dreaming_apart(scholar)
    totals = set()
    task = bench.stream_in(recipe.folder)[1].train
    scholar.train_task(task, 1, steps=4, watch=lambda done, total: totals.add(total))
    assert totals == {8}
    replays = (scholar.strategy.solver, scholar.strategy.generator)
    assert {type(one) for one in replays} == {type(replays[0])}


@pytest.mark.parametrize("kind", [(False, False), (False, True), (True, False)])
def test_every_kind_of_adam_makes_the_same_step(kind, recipe):
    plain, other = scholar_of(recipe), scholar_of(recipe)
    levers.stepping(*kind)(other)
    groups = [other.optimiser.param_groups[0], other.generator.optimiser.param_groups[0]]
    assert [(group["fused"], group["foreach"]) for group in groups] == [kind] * 2
    weights = zip(weights_after(plain, recipe), weights_after(other, recipe), strict=True)
    for mine, others in weights:
        torch.testing.assert_close(mine, others, rtol=1e-4, atol=1e-6)


def test_gradients_that_nobody_needs_change_nothing(recipe, monkeypatch):
    wanted = weights_after(scholar_of(recipe, generator="wgan"), recipe)
    monkeypatch.setattr(generators, "descend", levers.descend_everywhere)
    scholar = scholar_of(recipe, generator="wgan")
    found = weights_after(scholar, recipe)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert all(p.grad is not None for p in scholar.generator.critic.parameters())


def test_compiled_networks_learn_the_same(recipe):
    plain, other = scholar_of(recipe), scholar_of(recipe)
    levers.compiled(other, backend="eager")
    weights = zip(weights_after(plain, recipe), weights_after(other, recipe), strict=True)
    for mine, others in weights:
        torch.testing.assert_close(mine, others)


def test_the_layout_of_weights_changes_no_dream(recipe):
    scholar = scholar_of(recipe, generator="conv-vae")
    z = torch.randn(3, scholar.generator.latent_dim)
    wanted = scholar.generator.decode(z)
    assert laid_out(scholar, torch.channels_last)
    levers.channels_first(scholar)
    assert laid_out(scholar, torch.contiguous_format)
    torch.testing.assert_close(scholar.generator.decode(z), wanted)


def laid_out(scholar, layout):
    weights = [p for p in scholar.generator.parameters() if p.dim() == 4]
    return weights != [] and all(p.is_contiguous(memory_format=layout) for p in weights)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kept", [True, False])
def test_denormal_numbers_are_kept_or_flushed_for_a_while(before, kept):
    tiny = torch.tensor(levers.DEAD)
    with levers.denormals(before):
        with levers.denormals(kept):
            assert (float(tiny * 1) != 0) == kept
        assert (float(tiny * 1) != 0) == before


@pytest.mark.parametrize("kept", [True, False])
def test_the_dying_units_moments_really_are_denormal(kept, recipe, monkeypatch):
    made = []
    build = levers.adam
    monkeypatch.setattr(levers, "adam", lambda p: made.append(build(p)) or made[0])
    measure = levers.dying(recipe, kept)
    assert measure() > 0
    with levers.denormals(True):
        moments = torch.cat([state["exp_avg"].flatten() for state in made[0].state.values()])
        tiny = (moments != 0) & (moments.abs() < torch.finfo(torch.float).tiny)
        part = float(tiny.float().mean())
    assert 0.3 < part < 0.34 if kept else part == 0


def test_a_lever_is_worth_the_time_that_it_saves(recipe):
    lever = levers.Lever("half", "or whole", lambda r: lambda: 2.0, lambda r: lambda: 1.0)
    found = levers.measured(lever, recipe, rounds=3)
    assert found["gain"] == {"median": 2.0, "q1": 2.0, "q3": 2.0, "rounds": 3}
    assert found["rounds"] == [(2.0, 1.0, 2.0)] * 3


def test_a_lever_that_breaks_says_why_and_stops_nothing(recipe):
    def broken(recipe):
        raise RuntimeError("no compiler\nat all")

    found = levers.measured(levers.Lever("a", "b", broken, broken), recipe, rounds=3)
    assert found == {"compares": "b", "failed": "no compiler"}
    assert "-   no compiler" in levers.table({"a": found})


def test_every_lever_has_a_name_of_its_own():
    assert len({lever.name for lever in levers.LEVERS}) == len(levers.LEVERS) >= 10


QUICK_LEVERS = ("blocks of 16", "flushed denormals")


def test_levers_are_measured_and_written(tmp_path, capsys):
    words = ["--out", str(tmp_path), "--rounds", "1", "--steps", "1", "--device", "cpu", "--quick"]
    levers.main([*words, "--only", *QUICK_LEVERS])
    written = json.loads((tmp_path / "levers.json").read_text())
    assert set(written["levers"]) == set(QUICK_LEVERS)
    assert all(one["gain"]["median"] > 0 for one in written["levers"].values())
    assert written["compile_seconds"] is None
    assert written["environment"]["device"].startswith("cpu")
    assert "blocks of 16" in capsys.readouterr().out


def test_compiling_is_timed_in_two_processes_with_one_cache(recipe, monkeypatch):
    caches, answers = [], iter([b"30.5\n", b"4.5\n"])

    def run(command, env, **_):
        caches.append(env["TORCHINDUCTOR_CACHE_DIR"])
        assert Path(caches[-1]).is_dir()
        assert json.loads(command[-1]) == asdict(recipe)
        return SimpleNamespace(stdout=next(answers))

    monkeypatch.setattr(subprocess, "run", run)
    assert levers.compile_seconds(recipe) == [30.5, 4.5]
    assert caches[0] == caches[1]
    assert not Path(caches[0]).exists()


def test_what_compiling_costs_is_the_first_task_less_the_second(recipe, monkeypatch, capsys):
    ticks = iter([0.0, 9.0, 11.0])
    monkeypatch.setattr(levers, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(levers, "training", lambda recipe, prepare, clock: lambda: 0.0)
    levers.main(["--first-step", json.dumps(asdict(recipe))])
    assert float(capsys.readouterr().out) == 7.0


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("power", [0.0, 1.0, 1.7])
def test_the_exponent_of_a_power_law_is_its_power(power):
    sizes = [10, 50, 100]
    assert cost.exponent(sizes, [3 * n**power for n in sizes]) == pytest.approx(power)


def test_a_series_takes_medians_over_rounds():
    asked = []
    disturbance = {(2, 2): 100.0}  # in the second round the machine was busy

    def arm(size):
        def measure():
            asked.append(size)
            return size**2 + disturbance.get((size, asked.count(size) - 1), 0.0)

        return measure

    found = cost.series({1: arm(1), 2: arm(2), 4: arm(4)}, rounds=3)
    assert asked == [1, 2, 4] * 4  # once to warm up
    assert found == {"sizes": [1, 2, 4], "seconds": [1, 4, 16], "exponent": pytest.approx(2)}


def test_a_whole_task_is_all_of_its_steps(recipe, monkeypatch):
    monkeypatch.setattr(bench, "training", lambda recipe, clock: lambda: 0.5)
    assert cost.whole_task(replace(recipe, steps=30))() == 15


def test_the_peak_is_the_process_s_own(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 900 kB\nVmHWM:\t 300 kB\nVmRSS:\t 200 kB\n")
    assert cost.peak_memory(status) == 300 * 1024


def test_a_peak_that_was_reached_stays():
    before = cost.peak_memory()
    np.ones(2**23).sum()  # 64 MiB, given back at once
    assert cost.peak_memory() >= before > 2**26


def test_without_proc_the_peak_is_what_the_system_tells(tmp_path):
    resource = pytest.importorskip("resource")
    unit = 1 if sys.platform == "darwin" else 1024
    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert cost.peak_memory(tmp_path / "missing") == pytest.approx(told, rel=0.05)


def test_streams_are_learned_in_processes_of_their_own(recipe, monkeypatch):
    def run(command, **_):
        tasks = int(command[command.index("--stream") + 1])
        assert json.loads(command[-1]) == asdict(recipe)
        return SimpleNamespace(stdout=json.dumps({"seconds": 2 * tasks, "bytes": 100 + tasks}))

    monkeypatch.setattr(subprocess, "run", run)
    found = cost.streams(recipe, [10, 100], threads=1)
    assert found == {
        **{"sizes": [10, 100], "seconds": [20, 200], "exponent": pytest.approx(1)},
        **{"peak_bytes": [110, 200], "memory_growth": 200 / 110},
    }


def test_a_long_stream_is_learned_to_its_end(recipe, monkeypatch, capsys):
    met = []
    build = cost.build_scholar
    monkeypatch.setattr(cost, "build_scholar", lambda *a: met.append(build(*a)) or met[0])
    cost.main(["--stream", "3", "--recipe", json.dumps(asdict(recipe))])
    found = json.loads(capsys.readouterr().out)
    assert met[0].tasks == [0, 1, 2]
    assert found["seconds"] > 0
    assert found["bytes"] > 2**26


def test_cost_is_measured_written_and_drawn(tmp_path, monkeypatch, capsys):
    def streams(recipe, sizes, threads):
        seconds = [recipe.steps * size for size in sizes]
        one = {"sizes": list(sizes), "seconds": seconds, "exponent": 1.0}
        return {**one, "peak_bytes": [2**20] * len(sizes), "memory_growth": 1.0}

    monkeypatch.setattr(cost, "streams", streams)
    cost.main(["--out", str(tmp_path), "--quick", "--rounds", "1", "--device", "cpu"])
    written = json.loads((tmp_path / "cost.json").read_text())
    sizes = {name: one["sizes"] for name, one in written["series"].items()}
    assert sizes == {name: list(some) for name, some in cost.QUICK.items()}
    assert written["series"]["tasks"]["seconds"] == [50 * n for n in cost.QUICK["tasks"]]
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "tasks: exponent 1.00" in said
    assert "1 MiB at most" in said


# ---------------------------------------------------------------- anatomy


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::mm", "matrix products"),
        ("aten::convolution_backward", "matrix products"),
        ("aten::_fused_adam_", "Adam"),
        ("aten::_foreach_addcdiv_", "Adam"),
        ("aten::normal_", "random numbers"),
        ("aten::copy_", "copies"),
        ("aten::t", "dispatch and Python"),
        ("autograd::engine::evaluate_function: AddmmBackward0", "dispatch and Python"),
        ("Optimizer.step#Adam.step", "dispatch and Python"),
        ("aten::threshold_backward", "elementwise and sums"),
        ("aten::sum", "elementwise and sums"),
    ],
)
def test_operators_are_sorted_by_what_they_are_for(operator, kind):
    assert anatomy.kind_of(operator) == kind


def test_the_parts_of_a_step_make_the_whole(tmp_path, monkeypatch, capsys):
    words = ["--out", str(tmp_path), "--steps", "4", "--device", "cpu", "--quick"]
    monkeypatch.setattr(sys, "argv", ["anatomy.py", *words])
    anatomy.main()
    found = json.loads((tmp_path / "anatomy.json").read_text())["milliseconds"]
    whole = found.pop("whole")
    assert set(found) == {kind for kind, _ in anatomy.KINDS}
    assert sum(found.values()) == pytest.approx(whole)
    assert min(found.values()) > 0
    assert "matrix products" in capsys.readouterr().out


# ---------------------------------------------------------------- families


def test_the_generator_is_timed_alone(recipe, monkeypatch):
    scholar, taken = scholar_of(recipe, replay="conditional"), {"solver": 0, "generator": 0}
    for name in taken:
        step = getattr(scholar, f"{name}_step")

        def counted(batch, weight, name=name, step=step):
            taken[name] += 1
            return step(batch, weight)

        monkeypatch.setattr(scholar, f"{name}_step", counted)
    ticks = iter(range(0, 100, 10))  # a look at the solver's step, one at the block's end, the rest
    monkeypatch.setattr(families.bench, "now", lambda device: next(ticks))
    seconds = families.alone(scholar, bench.stream_in(recipe.folder), steps=4)
    assert taken == {"solver": 1, "generator": families.BLOCK + 4}
    assert seconds == 10 / 4


def test_families_are_held_against_the_vae(tmp_path, monkeypatch, capsys):
    costs = {"vae": 0.01, "flow": 0.02, "wgan": 0.03, "conv-vae": 0.1}

    def training(recipe, clock, generator, **changes):
        assert clock is families.alone
        return lambda: costs[generator]

    monkeypatch.setattr(families.bench, "training", training)
    words = ["--out", str(tmp_path), "--rounds", "2", "--device", "cpu", "--quick"]
    monkeypatch.setattr(sys, "argv", ["families.py", *words])
    families.main()
    found = json.loads((tmp_path / "families.json").read_text())
    assert found["milliseconds"] == pytest.approx({n: 1e3 * s for n, s in costs.items()})
    slower = {name: one["median"] for name, one in found["slowness"].items()}
    assert slower == pytest.approx({"flow": 2, "wgan": 3, "conv-vae": 10})
    assert "conv-vae       100.0 ms a step   10.00 times the VAE" in capsys.readouterr().out


# ---------------------------------------------------------------- fading

KNOWN = {"x": torch.tensor([0.0, 1.0, 0.5, 0.5]).view(4, 1, 1, 1), "y": torch.tensor([3, 3, 8, 8])}


def test_variance_is_counted_over_all_and_within_each_class():
    whole, within = fading.variances(fading.moments(Examples(**KNOWN)))
    assert whole.item() == pytest.approx(KNOWN["x"].var(correction=0).item())
    assert within.tolist() == [0.25, 0]  # of class 3, of class 8


def test_classes_count_alike_however_many_rows_they_have():
    rows = torch.tensor([0, 1, 2, 2, 2, 3])
    again = Examples(KNOWN["x"][rows], KNOWN["y"][rows])
    whole, _ = fading.variances(fading.moments(again))
    assert whole.item() == pytest.approx(KNOWN["x"].var(correction=0).item())


def test_tasks_count_alike_for_the_classes_that_they_have():
    found = fading.together(
        [{3: torch.ones(2, 1)}, {8: torch.zeros(2, 1), 3: torch.ones(2, 1) * 2}]
    )
    assert found[3].tolist() == [[1.5], [1.5]]
    assert found[8].tolist() == [[0], [0]]
    assert list(found) == [3, 8]


def test_a_generator_that_draws_what_was_real_is_as_varied_as_that(monkeypatch):
    """Its dreams are rows of the test images of all tasks so far, of the class asked for."""
    config = Config(**fading.QUICK, replay="conditional", seed=2)
    tests = [task.test for task in build_stream(config)]

    def real(generator, n, codes):
        met = joined(tests[: 1 + len(codes.unique()) // 6])  # five classes in a task
        rows = [torch.nonzero(met.y == c).squeeze(1) for c in codes.unique()]
        return torch.cat([met.x[r.repeat(fading.DREAMS)[: fading.DREAMS]] for r in rows])

    monkeypatch.setattr(fading, "sample", real)
    found = fading.fading(config, "cpu")
    assert len(found["whole"]) == len(found["within"]) == 2
    assert len(found["of_class"]) == 10
    for shares in (found["whole"], found["within"], found["of_class"]):
        assert shares == pytest.approx([1.0] * len(shares), abs=0.1)


def test_looking_at_dreams_changes_nothing_of_a_run():
    config = Config(**fading.QUICK, replay="generative", seed=2)
    found, alone = fading.fading(config, "cpu"), run(config, device="cpu")
    assert found["average_accuracy"] == alone["average_accuracy"]
    assert found.keys() == {"seed", "average_accuracy", "whole"}  # no class can be asked for
    assert found == fading.fading(config, "cpu")


def test_runs_that_are_missing_are_made_and_no_others(tmp_path, monkeypatch, capsys):
    asked = []

    def made(config, device):
        asked.append((config.replay, config.seed))
        return {"seed": config.seed, "whole": [0.5]}

    pool = contextlib.nullcontext(SimpleNamespace(map=map))
    monkeypatch.setattr(fading, "ProcessPoolExecutor", lambda *_: pool)
    monkeypatch.setattr(fading, "fading", made)
    monkeypatch.setattr(sys, "argv", ["fading.py", "--quick", "--out", str(tmp_path)])
    fading.main()
    path = tmp_path / "fading.json"
    found = json.loads(path.read_text())
    assert {study: len(rows) for study, rows in found.items()} == dict.fromkeys(fading.TASKS, 2)
    assert sorted(asked) == sorted([("conditional", 2), ("generative", 2)] * len(fading.TASKS))
    assert "many-tasks, plain replay, seed 2: 0.5" in capsys.readouterr().out

    whole = path.read_text()
    del found["single-class"]["plain"]
    path.write_text(json.dumps(found))
    asked.clear()
    fading.main()
    assert asked == [("generative", 2)]
    assert json.loads(path.read_text()) == json.loads(whole)


# ---------------------------------------------------------------- a GPU


@pytest.mark.parametrize("capture", [False, True])
def test_one_seed_is_captured_or_not_whatever_the_device_would_choose(recipe, monkeypatch, capture):
    prepared = scholar_of(recipe)
    monkeypatch.setattr(gpu.bench, "training", lambda recipe, prepare: prepare(prepared))
    prepared.capture = not capture
    gpu.one(recipe, capture)
    assert prepared.capture is capture


def test_seeds_together_begin_each_measurement_from_the_same_weights(recipe, monkeypatch):
    begun = []

    def timed(cohort, tasks, steps):
        begun.append([p.clone() for p in cohort.solver.parameters()])
        cohort.train_task(tasks[1].train, 1, steps=steps)
        return 1.0

    monkeypatch.setattr(gpu.bench, "timed", timed)
    measure = gpu.together(replace(recipe, steps=3), 2, capture=False)
    assert measure() == measure() == 1.0
    assert all(torch.equal(a, b) for a, b in zip(*begun, strict=True))
    assert begun[0][0].shape[0] == 2  # networks side by side


def test_a_gain_counts_the_steps_of_all_seeds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "one", lambda recipe, capture: lambda: 0.004)
    monkeypatch.setattr(gpu, "together", lambda recipe, seeds, capture: lambda: 0.008)
    monkeypatch.setattr(
        gpu.bench, "asking", lambda *_: contextlib.nullcontext((None, lambda: 0.02))
    )
    gpu.main(
        ["--out", str(tmp_path), "--rounds", "2", "--device", "cpu", "--quick", "--seeds", "6"]
    )
    ways = json.loads((tmp_path / "gpu.json").read_text())["ways"]
    gains = {name: way["gain"]["median"] for name, way in ways.items()}
    assert gains == pytest.approx({"1 seed": 1, "the textbook's loop": 0.2, "6 seeds": 3})
    assert ways["6 seeds"]["milliseconds"]["median"] == pytest.approx(8)
    assert (
        "6 seeds                     8.000 ms     3.00 times the steps" in capsys.readouterr().out
    )
