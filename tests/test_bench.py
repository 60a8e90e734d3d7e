"""The benchmark's arithmetic, its order of measurements and its other processes. No time is
asserted: clocks are made up where a figure is known beforehand."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from genreplay_core import bench, learner
from genreplay_core.bench import Recipe
from genreplay_core.config import build_scholar
from genreplay_core.data import Examples


@pytest.fixture(scope="module")
def recipe():
    with bench.data_set(quick=True) as (folder, _):
        yield Recipe(folder, "cpu", batch=8, hidden=16, steps=2)


def silent(what: str) -> None:
    pass


# ---------------------------------------------------------------- the bound


def test_the_published_step_is_2_3_gflop():
    # the sizes of the paper's networks, worked by hand
    solver = 784 * 400 + 400 * 400 + 400 * 10
    encoder, decoder = 784 * 400 + 400 * 400 + 400 * 200, 100 * 400 + 400 * 400 + 400 * 784
    learned = [(solver, 784 * 400), (encoder + decoder, 784 * 400)]
    wanted = sum(2 * 256 * (3 * weights - first) for weights, first in learned)
    wanted += 2 * 128 * (solver + decoder)
    factors = bench.step_products(*Recipe("", "cpu").networks(), 128, 128)
    assert bench.flop(factors) == wanted == 2_305_433_600


def test_a_real_step_multiplies_as_much_as_the_bound_and_no_more(recipe):
    counts = []
    for steps in (16, 48):  # what is done once a task cancels
        scholar = build_scholar(recipe.config(), bench.stream_in(recipe.folder), "cpu")
        scholar.train_task(bench.stream_in(recipe.folder)[0].train, 0, steps=1)
        with FlopCounterMode(display=False) as counter:
            task = bench.stream_in(recipe.folder)[1].train
            scholar.train_task(task, 1, replay_ratio=1.0, steps=steps)
        counts.append(counter.get_total_flops())
    factors = bench.step_products(*recipe.networks(), recipe.batch, recipe.batch)
    assert (counts[1] - counts[0]) / 32 == bench.flop(factors)


def test_only_products_that_are_needed_are_counted():
    layers = bench.linears(bench.mlp_solver((1, 2, 3), 5, hidden=4))  # 6-4-4-5
    shapes = [(*a.shape, b.shape[1]) for a, b in bench.products(layers, 7, trained=True)]
    first = [(7, 6, 4), (4, 7, 6)]  # no gradient of the data
    second = [(7, 4, 4), (4, 7, 4), (7, 4, 4)]
    third = [(7, 4, 5), (5, 7, 4), (7, 5, 4)]
    assert shapes == first + second + third
    forward = [(*a.shape, b.shape[1]) for a, b in bench.products(layers, 7, trained=False)]
    assert forward == [(7, 6, 4), (7, 4, 4), (7, 4, 5)]


class Calls(TorchDispatchMode):
    """Counts how often each operator is called."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_bound_is_measured_with_matrix_products_alone(recipe):
    measure = bench.bound(recipe)
    with Calls() as calls:
        measure()
    products = len(bench.step_products(*recipe.networks(), 8, 8))
    assert calls.names == ["aten.mm.out"] * products * (2 + recipe.steps)


# ---------------------------------------------------------------- comparing


def test_each_arm_is_measured_between_two_runs_of_home():
    asked, told = [], []
    times = iter(range(100))

    def arm(name):
        return lambda: asked.append(name) or next(times)

    rows = bench.compare(arm("home"), {"a": arm("a"), "b": arm("b")}, 2, told.append)
    warm = ["home", "a", "b"]
    assert asked == [*warm, "home", *["a", "home", "b", "home"] * 2]
    assert rows == [{"a": (3, 4, 5), "b": (5, 6, 7)}, {"a": (7, 8, 9), "b": (9, 10, 11)}]
    assert told == [
        *(f"warming up: {name}" for name in warm),
        *(f"round {i} of 2: {name}" for i in (1, 2) for name in "ab"),
    ]


def test_a_machine_that_slows_down_steadily_changes_no_ratio():
    clock = iter(1 + 0.1 * i for i in range(100))
    home, other = (lambda: next(clock)), (lambda: 3 * next(clock))
    rows = bench.compare(home, {"other": other}, 5, silent)
    assert bench.slowness(rows, "other") == pytest.approx([3.0] * 5)


def test_a_spread_is_median_and_quartiles():
    assert bench.spread([5, 1, 2, 4, 3]) == {"median": 3, "q1": 2, "q3": 4, "rounds": 5}


def test_speeds_are_the_inverse_of_times():
    rows = [{"a": (9.0, 0.5, 0.1), "b": (0.1, 4.0, 0.1)}] * 3
    medians = {name: s["median"] for name, s in bench.speeds(rows).items()}
    assert medians == {"vae": 10, "a": 2, "b": 0.25}


# ---------------------------------------------------------------- ours


class Slow:
    """A scholar whose steps take so many seconds of a made-up clock, those of its first block ten
    times as long; with two costs, one pass after the other."""

    device = torch.device("cpu")

    def __init__(self, *costs: float):
        self.costs, self.time = costs, 5.0

    def train_task(self, data, task, *, replay_ratio, steps, watch):
        for number, cost in enumerate(self.costs):
            before, total = number * steps, steps * len(self.costs)
            for start in range(0, steps, learner.BLOCK):
                block = min(learner.BLOCK, steps - start)
                for done in range(0, block, 16):  # looks at the solver
                    watch(before + start + min(done + 16, block), total)
                self.time += cost * block * (1 if start else 10)
                watch(before + start + block, total)


@pytest.mark.parametrize("block", [1, 16, 64])
@pytest.mark.parametrize("steps", [16, 40])
@pytest.mark.parametrize("costs", [(0.25,), (0.25, 0.5)])
def test_the_first_block_of_each_pass_is_not_timed(costs, steps, block, monkeypatch):
    scholar = Slow(*costs)
    monkeypatch.setattr(bench, "now", lambda device: scholar.time)
    monkeypatch.setattr(learner, "BLOCK", block)
    stream = [None, SimpleNamespace(train=None)]
    assert bench.timed(scholar, stream, steps) == pytest.approx(sum(costs))


def test_every_measurement_begins_from_the_same_state(recipe):
    found = []

    def clock(scholar, stream, steps):
        seconds = bench.whole(scholar, stream, steps)
        found.append([p.clone() for p in scholar.solver.parameters()])
        assert scholar.tasks == [0, 1]
        return seconds

    measure = bench.training(recipe, clock=clock)
    assert measure() > 0
    measure()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_arm_can_be_prepared_surrounded_and_configured(recipe):
    order = []

    @contextlib.contextmanager
    def around():
        order.append("in")
        yield
        order.append("out")

    def clock(scholar, stream, steps):
        order.append((scholar.generator.code.classes, scholar.mark))
        return 0.0

    def prepare(scholar):
        scholar.mark = "prepared"

    bench.training(recipe, prepare, around, clock, replay="conditional")()
    assert order == ["in", (10, "prepared"), "out"]


@pytest.mark.parametrize("changes", bench.OTHERS.values(), ids=bench.OTHERS)
def test_every_generator_can_be_measured(changes, recipe):
    assert bench.training(recipe, clock=lambda s, stream, n: 1.0, **changes)() == 1.0


def test_what_is_measured_is_the_published_recipe():
    config = Recipe("").config()
    assert (config.hidden, config.batch, config.replay_ratio) == (400, 128, 1.0)
    assert (config.replay, config.labels, config.scenario) == ("generative", "hard", "class")


def test_a_device_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    bench.now(torch.device("cpu"))
    assert waited == []
    bench.now(torch.device("cuda"))
    assert waited == [torch.device("cuda")]


# ---------------------------------------------------------------- other processes

ANSWERS = """
import json, sys
print(json.dumps({"version": 3}), flush=True)
for i, line in enumerate(sys.stdin, 1):
    print(json.dumps({"steps": 10, "seconds": i}), flush=True)
"""


def test_a_program_is_asked_again_and_again():
    with bench.asking("it", [sys.executable, "-c", ANSWERS]) as (about, measure):
        assert about == {"version": 3}
        assert [measure(), measure()] == [0.1, 0.2]


@pytest.mark.parametrize("code", ["", "print('hello')", "print('[1, 2]')", "import nothing_there"])
def test_a_program_that_is_no_arm_is_refused(code, capfd):
    ask = bench.asking("it", [sys.executable, "-c", code])
    with pytest.raises(ValueError, match=r"can't run 'it': it says why above"), ask:
        pass
    assert ("nothing_there" in capfd.readouterr().err) == ("nothing_there" in code)


def test_a_program_that_ends_is_noticed():
    command = [sys.executable, "-c", "print('{}')"]
    with (
        pytest.raises(ValueError, match="can't run 'it'"),
        bench.asking("it", command) as (_, measure),
    ):
        measure()


def test_the_competitors_get_the_same_sizes_and_threads(recipe):
    commands = bench.competitors(recipe, "elsewhere/python")
    assert list(commands) == ["reference", "avalanche"]
    for name, command in commands.items():
        script, *words = command[3:]
        assert Path(script).is_file()
        assert Path(script).stem == f"{name}_replay"
        options = dict(zip(words[::2], words[1::2], strict=True))
        assert options == {
            **{"--data": recipe.folder, "--device": "cpu"},
            **{"--steps": "2", "--batch": "8", "--hidden": "16"},
            "--threads": str(torch.get_num_threads()),
        }
    assert [command[0] for command in commands.values()] == [sys.executable, "elsewhere/python"]
    assert list(bench.competitors(recipe, None)) == ["reference"]


def test_without_a_checkout_there_are_no_competitors(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "SCRIPTS", tmp_path)
    assert bench.competitors(recipe, "python") == {}


def test_a_seed_in_a_process_of_its_own_answers_like_any_program(recipe, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\ngo\n"))
    described = json.dumps(bench.asdict(recipe))
    monkeypatch.setattr(sys, "argv", ["-c", "1", described])
    bench.serve()
    about, *answers = map(json.loads, capsys.readouterr().out.splitlines())
    assert about == {"threads": 1}
    assert [one["steps"] for one in answers] == [recipe.steps] * 2
    assert min(one["seconds"] for one in answers) > 0


# Each worker answers only when both were asked, or gives up.
TOGETHER = """
import json, sys, time
threads, recipe = int(sys.argv[1]), json.loads(sys.argv[2])
print("{}", flush=True)
for line in sys.stdin:
    with open(recipe["folder"], "a") as file:
        file.write(str(threads))
    for _ in range(1000):
        if len(open(recipe["folder"]).read()) == 2:
            print(json.dumps({"steps": 1, "seconds": 1}), flush=True)
            break
        time.sleep(0.01)
    else:
        sys.exit("I was asked alone")
"""


def test_seeds_side_by_side_learn_at_the_same_time(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "WORKER", TOGETHER)
    asked, ticks = tmp_path / "asked", iter([10.0, 16.0])
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    with bench.side_by_side(Recipe(str(asked), steps=3), processes=2, threads=7) as measure:
        assert measure() == 1.0  # 6 s for 2 times 3 steps
    assert asked.read_text() == "77"


# ---------------------------------------------------------------- all of it


@pytest.fixture
def few_arms(monkeypatch):
    """Nothing that takes long: no other generator, and programs that answer without working."""
    monkeypatch.setattr(bench, "OTHERS", {"wgan": {"generator": "wgan"}})
    command = [sys.executable, "-c", ANSWERS]
    monkeypatch.setattr(bench, "competitors", lambda recipe, python: {"reference": command})
    monkeypatch.setattr(bench, "WORKER", ANSWERS)


def test_the_benchmark_writes_what_it_found(few_arms, tmp_path):
    told = []
    out = tmp_path / "new"
    found = bench.bench(
        out, rounds=2, steps=1, device="cpu", threads=1, quick=True, tell=told.append
    )
    written = json.loads((out / "bench.json").read_text())
    assert written == json.loads(json.dumps(found))
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "warming up: wgan" in told

    for key in ("fraction_of_bound", "speedup_over_reference", "throughput_two_over_one"):
        assert written[key]["q1"] <= written[key]["median"] <= written[key]["q3"]
        assert written[key]["rounds"] == 2
    assert written["speedup_over_avalanche"] is None
    assert list(written["steps_per_second"]) == ["vae", "bound", "reference", "wgan"]
    assert written["others"] == {"reference": {"version": 3}}
    assert written["data"] == "synthetic"
    assert (
        written["command"]
        == "genreplay bench --rounds 2 --steps 1 --device cpu --threads 1 --quick"
    )
    assert written["environment"]["threads"] == 1
    assert str(tmp_path) not in json.dumps(written)
    assert written["recipe"] == {"device": "cpu", "batch": 8, "hidden": 16, "steps": 1}

    home, arm, after = written["rounds"][0]["reference"]
    assert arm == pytest.approx(0.2)  # its second answer: the first was to warm up
    low, high = sorted(bench.slowness(written["rounds"], "reference"))
    assert written["speedup_over_reference"]["median"] == pytest.approx((low + high) / 2)
    assert min(home, after) > 0

    seeds = [row["two seeds"] for row in written["rounds_of_seeds"]]
    gains = [(one + again) / 2 / two for one, two, again in seeds]
    assert written["throughput_two_over_one"]["median"] == pytest.approx(sum(gains) / 2)


def test_the_table_says_what_was_measured_and_what_not():
    some = {"median": 0.8123, "q1": 0.79, "q3": 1234.5, "rounds": 3}
    result = dict.fromkeys([*bench.FIGURES, "throughput_two_over_one"], some)
    result |= {"speedup_over_avalanche": None, "steps_per_second": {"vae": some}}
    lines = bench.table(result).splitlines()
    assert "vae                         0.8123   0.79 to 1234" in lines
    assert "speedup over avalanche         not measured" in lines
    assert len([line for line in lines if line.endswith("0.79 to 1234")]) == 4


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"steps": 0}, {"threads": -1}])
def test_numbers_below_one_are_refused_before_anything_is_written(wrong, tmp_path):
    with pytest.raises(ValueError, match="expected 1 or more"):
        bench.bench(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- data and threads


def test_mnist_is_used_where_it_is(tmp_path, monkeypatch):
    bench.write_images(tmp_path, 20)
    monkeypatch.setenv("GENREPLAY_DATA", str(tmp_path))
    with bench.data_set(quick=False) as found:
        assert found == (str(tmp_path), "mnist")


@pytest.mark.parametrize("quick", [True, False])
def test_random_images_take_its_place_and_are_removed(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("GENREPLAY_DATA", str(tmp_path))
    asked = []
    write = bench.write_images
    monkeypatch.setattr(bench, "write_images", lambda f, n: asked.append(n) or write(f, 30))
    with bench.data_set(quick) as (folder, source):
        train, test = bench.images_in(folder)
        assert source == "synthetic"
        assert asked == [400 if quick else 60_000]
    assert not Path(folder).exists()
    for part in (train, test):
        assert isinstance(part, Examples)
        assert part.x.shape == (30, 1, 28, 28)
        assert part.x.unique().numel() == 256
        assert part.y.bincount().tolist() == [3] * 10


@pytest.mark.parametrize(("asked", "inside"), [(3, 3), (None, 1)])
def test_the_number_of_threads_is_what_it_was(asked, inside):
    torch.set_num_threads(1)
    with bench.thread_count(asked):
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 1
