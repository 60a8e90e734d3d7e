"""Seeds learned together must be what they are one by one: the same weights after the same draws.

Most tests fix the draws: row i of any noise that a cohort of S draws is then row i // S of what
scholar i mod S draws alone. In double precision the two must agree, whatever they learn.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genreplay_core import batched, data, learner, replay
from genreplay_core.batched import (
    Cohort,
    Several,
    Stacked,
    hand_out,
    obstacle,
    run_together,
    stacked_generator,
)
from genreplay_core.config import Config, build_stream
from genreplay_core.data import Examples, identity, legend_for
from genreplay_core.experiment import run
from genreplay_core.faults import Diverged
from genreplay_core.generators import conv_vae, conv_wgan, dream, mlp_flow, mlp_vae, mlp_wgan
from genreplay_core.learner import GenerativeReplay
from genreplay_core.metrics import summary
from genreplay_core.nets import adam, conv_encoder, conv_solver, mlp_decoder, mlp_solver
from genreplay_core.regularisers import SI
from genreplay_core.replay import Hard, Strategy
from genreplay_core.seeds import seeded

SHAPE, CODES, COUNT = (1, 8, 8), 4, 3
BUILDS: dict[str, Callable[..., nn.Module]] = {
    "vae": partial(mlp_vae, latent_dim=4, hidden=8),
    "conv-vae": partial(conv_vae, latent_dim=4),
    "wgan": partial(mlp_wgan, latent_dim=4, hidden=8, critic_steps=2),
    "conv-wgan": partial(conv_wgan, latent_dim=4),
    "flow": partial(mlp_flow, hidden=8, ode_steps=2),
}
generators = pytest.mark.parametrize("name", BUILDS)
perceptrons = pytest.mark.parametrize("name", ["vae", "wgan", "flow"])
conditions = pytest.mark.parametrize("classes", [None, CODES], ids=["plain", "conditional"])


@pytest.fixture
def double(monkeypatch) -> Iterator[None]:
    """Inside, all that would be single precision is double."""
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(data, "as_float", lambda x: x.double())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def several(build: Callable[[], Any], count: int = COUNT) -> list[Any]:
    """Networks alike, but for their weights; none of them zero, as the priors would be."""
    made = []
    for seed in range(count):
        with seeded(seed):
            network = build()
            for parameter in network.parameters():
                parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
        made.append(network)
    return made


# ---------------------------------------------------------------- draws that are fixed


@contextmanager
def fixed_draws(among: int = 1, number: int = 0) -> Iterator[None]:
    """Inside, the k-th draw of n rows is every `among`-th row, from `number` on, of the k-th draw
    of `among * n` rows. Draws of one row, with which networks are checked, don't count."""
    calls, real_randn, real_rand = itertools.count(), torch.randn, torch.rand

    def rows(real: Callable[..., Tensor], *shape: Any) -> Tensor:
        if isinstance(shape[0], tuple):  # torch takes both
            (shape,) = shape
        if shape[0] == 1:
            return torch.zeros(shape)
        fixed = torch.Generator().manual_seed(next(calls))
        return real(shape[0] * among, *shape[1:], generator=fixed)[number::among].clone()

    def codes(weight: Tensor, n: int, replacement: bool) -> Tensor:
        met = weight.nonzero().squeeze(1)
        return met[(rows(real_rand, n) * len(met)).long()]

    def told(real: Callable[..., Tensor], *shape: Any, **how: Any) -> Tensor:
        return real(*shape, **how) if "generator" in how else rows(real, *shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", partial(told, torch.randn))
        patch.setattr(torch, "rand", partial(told, torch.rand))
        patch.setattr(torch, "randn_like", lambda x: rows(real_randn, *x.shape))
        patch.setattr(torch, "multinomial", codes)
        for module in (batched, learner):
            patch.setattr(module, "shuffled", in_order)
        yield


def in_order(n: int, device: torch.device) -> Callable[[int], Tensor]:
    """Instead of `shuffled`: 0, 1, 2, ... n - 1, 0, 1, ..."""
    start = itertools.count()
    return lambda k: torch.tensor([next(start) % n for _ in range(k)], device=device)


def test_fixed_draws_are_parts_of_each_other():
    def draw() -> list[Tensor]:
        return [torch.randn(2, 3), torch.rand(2, 1), torch.randn_like(torch.zeros(2, 5))]

    with fixed_draws():
        torch.randn(1, 3)
        whole = [torch.randn(6, 3), torch.rand(6, 1), torch.randn_like(torch.zeros(6, 5))]
    for number in range(3):
        with fixed_draws(3, number):
            for part, all_rows in zip(draw(), whole, strict=True):
                assert torch.equal(part, all_rows[number::3])


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (lambda: mlp_solver(SHAPE, CODES, 8), SHAPE),
        (lambda: conv_solver(SHAPE, CODES, 4), SHAPE),
        (lambda: conv_encoder(SHAPE, 6, 4), SHAPE),
        (lambda: mlp_decoder(5, SHAPE, 8), (5,)),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False)), SHAPE),
    ],
    ids=["mlp", "conv", "encoder", "decoder", "no bias"],
)
def test_each_network_sees_its_own_rows(double, build, inputs):
    networks = several(build)
    x = torch.rand(4 * COUNT, *inputs)
    together = Stacked(networks)(x)
    for s, network in enumerate(networks):
        torch.testing.assert_close(together[s::COUNT], network(x[s::COUNT]))


def test_stacked_networks_are_copied_like_any_other():
    networks = several(lambda: mlp_solver(SHAPE, CODES, 8))
    live, x = Stacked(networks), torch.rand(2 * COUNT, *SHAPE)
    frozen, before = copy.deepcopy(live).eval().requires_grad_(False), live(x).detach()
    optimiser = adam(live.parameters())
    live(x).sum().backward()
    optimiser.step()
    assert torch.equal(frozen(x), before)
    assert not torch.equal(live(x), before)
    addresses = [p.data_ptr() for p in frozen.parameters()]
    frozen.load_state_dict(live.state_dict())
    assert torch.equal(frozen(x), live(x))
    assert [p.data_ptr() for p in frozen.parameters()] == addresses


def test_stacking_leaves_the_networks_alone_and_handing_out_gives_them_back():
    networks = several(lambda: mlp_solver(SHAPE, CODES, 8))
    kept = copy.deepcopy(networks)
    stacked = Stacked(networks)
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter.mul_(2)
    for network, before in zip(networks, kept, strict=True):
        pairs = zip(network.parameters(), before.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    hand_out(stacked, networks)
    for network, before in zip(networks, kept, strict=True):
        pairs = zip(network.parameters(), before.parameters(), strict=True)
        assert all(torch.equal(a, 2 * b) for a, b in pairs)


def test_dropout_differs_between_networks():
    torch.manual_seed(0)
    out = Stacked([nn.Dropout(0.5), nn.Dropout(0.5)])(torch.ones(400, 1)).view(200, 2)
    assert not torch.equal(out[:, 0], out[:, 1])
    assert out.mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("networks", "complaint"),
    [
        ([], "expected one network or more"),
        ([nn.Linear(2, 2), nn.Linear(2, 3)], "parameters of the same shapes"),
        ([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)], "parameters of the same shapes"),
        ([nn.BatchNorm1d(2), nn.BatchNorm1d(2)], "batch norm"),
    ],
    ids=["none", "widths", "biases", "buffers"],
)
def test_networks_that_differ_or_remember_are_refused(networks, complaint):
    with pytest.raises(ValueError, match=complaint):
        Stacked(networks)


def test_rows_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="rows for 3 networks alike, got 4 rows"):
        Stacked([nn.Linear(2, 2)] * 3)(torch.zeros(4, 2))


# ---------------------------------------------------------------- generators


def close(networks: list[nn.Module], others: list[nn.Module]) -> None:
    for network, other in zip(networks, others, strict=True):
        for (name, a), b in zip(network.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, msg=lambda m, name=name: f"{name}: {m}")


@generators
@conditions
def test_stacked_generators_dream_as_each_does(double, name, classes):
    apart = several(lambda: BUILDS[name](SHAPE, classes))
    z, y = torch.randn(4 * COUNT, apart[0].latent_dim), torch.arange(4 * COUNT) % CODES
    dreams = dream(stacked_generator(apart), z, y)
    for s, generator in enumerate(apart):
        torch.testing.assert_close(dreams[s::COUNT], dream(generator, z[s::COUNT], y[s::COUNT]))


@generators
@conditions
@pytest.mark.parametrize("known", [0, 2], ids=["fresh", "aligned"])
def test_steps_of_stacked_generators_are_those_of_each(double, name, classes, known):
    """Two steps, so that Adam's memory is compared too; the last dreams' noise may be known."""
    apart = several(lambda: BUILDS[name](SHAPE, classes))
    together, rows = stacked_generator(apart), 5 * COUNT
    x, y, weight = torch.rand(rows, *SHAPE), torch.arange(rows) % CODES, torch.rand(rows)
    z = torch.randn(known * COUNT, apart[0].latent_dim) if known else None
    with fixed_draws():
        sums = [together.train_step(x, y, weight, z) for _ in range(2)]
    losses = torch.zeros(2)
    for s, generator in enumerate(apart):
        mine = [None if part is None else part[s::COUNT] for part in (x, y, weight, z)]
        with fixed_draws(COUNT, s):
            losses += torch.stack([generator.train_step(*mine) for _ in range(2)])
    torch.testing.assert_close(torch.stack(sums), losses)
    handed = copy.deepcopy(apart)
    hand_out(together, handed)
    close(handed, apart)


def test_settings_are_kept():
    wgan = mlp_wgan(SHAPE, None, 4, 8, critic_steps=3)
    wgan.lowest, wgan.penalty = 0.0, 5.0
    for optimiser, lr in ((wgan.optimiser, 0.1), (wgan.critic_optimiser, 0.2)):
        optimiser.param_groups[0]["lr"] = lr  # as `build_scholar` does
    stacked = stacked_generator([wgan, wgan])
    assert (stacked.lowest, stacked.penalty, stacked.critic_steps) == (0.0, 5.0, 3)
    rates = [o.param_groups[0]["lr"] for o in (stacked.optimiser, stacked.critic_optimiser)]
    assert rates == [0.1, 0.2]


def test_other_generators_are_refused():
    with pytest.raises(ValueError, match="Linear can't be stacked: use VAE"):
        stacked_generator([nn.Linear(2, 2)])


# ---------------------------------------------------------------- learning


def scholars_of(
    generator: Callable[[], nn.Module] | None, strategy: Strategy, **changes: Any
) -> list[GenerativeReplay]:
    def build() -> nn.Module:
        parts = {"solver": mlp_solver(SHAPE, CODES, 8)}
        return nn.ModuleDict(parts if generator is None else {**parts, "generator": generator()})

    return [
        GenerativeReplay(
            pair["solver"],
            pair["generator"] if generator else None,
            "cpu",
            **{"strategy": strategy, "legend": identity(CODES), "batch": 4, "seed": 0, **changes},
        )
        for pair in several(build)
    ]


def tasks_of(number: int) -> list[Examples]:
    """A task of another size for each of the scholars, of the classes 2 * number and the next."""
    fixed = torch.Generator().manual_seed(number)
    return [
        Examples(torch.rand(n, *SHAPE, generator=fixed), 2 * number + torch.arange(n) % 2)
        for n in (5, 8, 11)
    ]


def compare(
    generator: Callable[[], nn.Module] | None,
    strategy: Strategy,
    how: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """Two tasks learned together and one by one, with the same draws: the weights agree."""
    apart, pupils = (scholars_of(generator, strategy, **changes) for _ in range(2))
    cohort, sums = Cohort(pupils), torch.zeros(3)
    for number in range(2):
        settings = {"steps": 3, "replay_ratio": 0.5, **(how or {})}
        with fixed_draws():
            trained = cohort.train_task(tasks_of(number), number, **settings)
        sums = torch.zeros(3)
        for s, scholar in enumerate(apart):
            with fixed_draws(COUNT, s):
                task = tasks_of(number)[s]
                sums += scholar.train_task(task, number, **settings).solver_loss
        torch.testing.assert_close(trained.solver_loss, sums)
    cohort.hand_out()
    close([s.solver for s in pupils], [s.solver for s in apart])
    if generator is not None:
        close([s.generator for s in pupils], [s.generator for s in apart])


STRATEGIES = {
    "noise": replay.noise(),
    "soft": replay.generative(),
    "aligned, best of 3": replay.generative(Hard(), align=True, best_of=3),
    "anew, r 0.3 and 0.6": replay.generative(importance=0.3, generator_importance=0.6, anew=True),
    "sketch": replay.sketch(),
    "forgetful": replay.forgetful_generator(),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_teach_a_cohort_what_they_teach_each(double, name):
    compare(lambda: BUILDS["vae"](SHAPE, CODES), STRATEGIES[name])


@perceptrons
@conditions
def test_generators_learn_in_a_cohort_what_each_learns(double, name, classes):
    compare(lambda: BUILDS[name](SHAPE, classes), replay.generative())


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.01, "reset_optimisers": True, "legend": legend_for("task", 2, 2)},
        {"average": 0.5, "generator_average": 0.9, "lr_end": 0.1, "seed": None},
        {"augment": lambda x: x.flip(-1)},
    ],
    ids=["rates", "averages", "augment"],
)
def test_options_mean_for_a_cohort_what_they_mean_for_each(double, changes, monkeypatch):
    monkeypatch.setattr(learner, "BLOCK", 1)  # weights are averaged over blocks
    compare(lambda: BUILDS["vae"](SHAPE, CODES), replay.generative(), **changes)


@pytest.mark.parametrize("how", [{"generator_steps": 5}, {"replay_ratio": 0.0}], ids=str)
def test_budgets_mean_for_a_cohort_what_they_mean_for_each(double, how, monkeypatch):
    monkeypatch.setattr(learner, "BLOCK", 2)  # several blocks, of which the last is shorter
    compare(lambda: BUILDS["vae"](SHAPE, CODES), replay.generative(), how)


@pytest.mark.parametrize("ratio", [0.1, 0.6, 1.0])
def test_replayed_rows_are_as_many_for_each_as_alone(double, ratio):
    compare(None, replay.current(), {"replay_ratio": ratio})


def test_an_epoch_is_a_pass_over_the_average_task():
    cohort = Cohort(scholars_of(None, replay.none()))
    trained = cohort.train_task(tasks_of(0), 0, epochs=2)  # of 5, 8 and 11 images, 4 in a batch
    assert len(trained.solver_loss) == 2 * 8 / 4


def test_rows_are_drawn_from_the_task_of_their_seed_each_epoch_anew():
    cohort, tasks = Cohort(scholars_of(None, replay.none())), tasks_of(0)
    sizes = tuple(len(task) for task in tasks)
    whole = Several(torch.cat([t.x for t in tasks]), torch.cat([t.y for t in tasks]), sizes)
    draw = cohort._drawing(whole)
    rows = torch.cat([draw(4 * COUNT) for _ in range(12)])
    first = 0
    for s, size in enumerate(sizes):
        mine = rows[s::COUNT]
        assert len(mine) == 48
        epochs = [epoch.tolist() for epoch in mine.split(size) if len(epoch) == size]
        assert all(sorted(epoch) == [*range(first, first + size)] for epoch in epochs)
        assert epochs[0] != epochs[1]
        first += size


def test_the_weights_of_every_seed_sum_to_one():
    strategy = replay.generative(importance=0.3, generator_importance=0.6)
    cohort = Cohort(scholars_of(lambda: BUILDS["vae"](SHAPE), strategy))
    cohort.tasks = [0, 1]
    mixture = cohort._mixture(cohort.strategy.solver, 4, 2)
    assert (mixture.new, mixture.old) == (12, 6)
    for weight, r in ((mixture.weight, 0.3), (mixture.generator_weight, 0.6)):
        for s in range(COUNT):
            wanted = torch.tensor([r / 4] * 4 + [(1 - r) / 2] * 2)
            torch.testing.assert_close(weight[s::COUNT], wanted)


def test_a_cohort_freezes_in_place():
    cohort = Cohort(scholars_of(lambda: BUILDS["vae"](SHAPE), replay.generative()))
    frozen = [cohort.frozen_solver, cohort.frozen_generator]
    addresses = [p.data_ptr() for network in frozen for p in network.parameters()]
    cohort.train_task(tasks_of(0), 0, steps=2)
    before = copy.deepcopy(cohort.solver)
    cohort.train_task(tasks_of(1), 1, steps=2)
    close([cohort.frozen_solver], [before])
    assert [p.data_ptr() for network in frozen for p in network.parameters()] == addresses
    assert not any(part.training for network in frozen for part in network.modules())


def test_a_scholar_that_was_taught_in_a_cohort_knows_what_it_met():
    scholars = scholars_of(lambda: BUILDS["vae"](SHAPE), replay.generative())
    cohort = Cohort(scholars)
    cohort.train_task(tasks_of(1), 1, steps=1)
    cohort.hand_out()
    for scholar in scholars:
        assert (scholar.seen > 0).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("scholars", "complaint"),
    [
        (list, "at least one scholar"),
        (lambda: scholars_of(None, replay.stored()), "stored examples"),
        (lambda: scholars_of(None, replay.none(), precision=torch.bfloat16), "autocast"),
        (
            lambda: scholars_of(None, replay.none(), regulariser=SI(mlp_solver(SHAPE, CODES, 8))),
            "a regulariser",
        ),
    ],
    ids=["none", "stored", "autocast", "regulariser"],
)
def test_scholars_who_would_mix_things_up_are_refused(scholars, complaint):
    with pytest.raises(ValueError, match=complaint):
        Cohort(scholars())


def test_bad_examples_of_one_seed_are_refused():
    tasks = tasks_of(0)
    tasks[1] = Examples(tasks[1].x * 2, tasks[1].y)
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        Cohort(scholars_of(None, replay.none())).train_task(tasks, 0, steps=1)


# ---------------------------------------------------------------- devices


def learned_on(device: str, name: str, classes: int | None) -> list[Tensor]:
    """The losses of two tasks, with noise that is told."""
    strategy = replay.generative(align=classes is not None)
    with torch.device(device):
        pairs = [(mlp_solver(SHAPE, CODES, 8), BUILDS[name](SHAPE, classes)) for _ in range(COUNT)]
        cohort = Cohort(
            [GenerativeReplay(*pair, device, strategy=strategy, batch=4) for pair in pairs]
        )
    losses = []
    for number in range(2):
        tasks = [Examples(t.x.to(device), t.y.to(device)) for t in tasks_of(number)]
        trained = cohort.train_task(tasks, number, steps=1)
        losses += [trained.solver_loss, trained.generator_loss]
    return losses


@perceptrons
@conditions
def test_two_tasks_run_on_a_device_without_values(name, classes):
    """The meta device knows shapes only: a wait, a mask or a tensor left on the CPU fails there."""
    assert all(loss.shape == (1,) for loss in learned_on("meta", name, classes))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@generators
@conditions
def test_two_tasks_run_on_a_gpu(name, classes):
    losses = learned_on("cuda", name, classes)
    assert all(loss.is_cuda and loss.isfinite().all() for loss in losses)


# ---------------------------------------------------------------- experiments

SMALL = Config(tasks=2, hidden=24, steps=50, batch=32, latent_dim=8, lr=5e-3, temperature=1.0)
SEEDS = (3, 5, 8)


def configs(**changes: Any) -> list[Config]:
    return [replace(SMALL, seed=seed, **changes) for seed in SEEDS]


@pytest.fixture(scope="module")
def together() -> list[dict[str, Any]]:
    return run_together(configs(), device="cpu")


@pytest.fixture(scope="module")
def apart() -> list[dict[str, Any]]:
    return [run(config, device="cpu") for config in configs()]


def test_records_are_those_of_runs_one_by_one(together, apart):
    for joint, alone, config in zip(together, apart, configs(), strict=True):
        assert joint.keys() == {*alone, "together"}
        assert joint["together"] == len(SEEDS)
        for name in ("tasks", "config"):
            assert joint[name] == alone[name]
        assert joint["tasks"] == list(build_stream(config).names)
        assert joint["accuracy_matrix"][0] == alone["accuracy_matrix"][0]  # the untrained solver's
        assert len(joint["accuracy_matrix"]) == 3
        measures = summary(torch.tensor(joint["accuracy_matrix"]).double().numpy())
        for name, value in measures.items():
            assert joint[name] == pytest.approx(value)
        assert joint["seconds"] == together[0]["seconds"] > 0
        assert joint["steps_per_second"] > 0


def test_every_seed_learns_its_own_classes(together):
    for record in together:
        matrix = record["accuracy_matrix"]
        assert matrix[1][0] > 0.8  # of five classes
        assert matrix[2][1] > 0.4  # of ten, the first five dreamt


def test_seeds_learn_together_about_what_they_learn_alone(together, apart):
    for name in ("average_accuracy", "forgetting"):
        means = [sum(r[name] for r in records) / len(SEEDS) for records in (together, apart)]
        assert means[0] == pytest.approx(means[1], abs=0.2)


def test_the_same_seeds_give_the_same_bits_and_leave_the_random_state_alone():
    state = torch.get_rng_state()
    found = [run_together(configs(steps=5), device="cpu") for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    matrices = [[record["accuracy_matrix"] for record in records] for records in found]
    assert matrices[0] == matrices[1]


def test_progress_is_told_for_every_task():
    told = []
    run_together(configs(steps=3), device="cpu", progress=lambda *where: told.append(where))
    assert told[-1] == (1, 2, 1.0)
    assert {where[0] for where in told} == {0, 1}
    assert all(0 < part <= 1 for _, _, part in told)


@pytest.mark.parametrize(
    ("name", "generator"),
    [("none", "vae"), ("current", "vae"), ("generative", "wgan"), ("conditional", "flow")],
)
def test_other_kinds_run_too(name, generator):
    latent = None if generator == "flow" else 8
    changes = {"replay": name, "labels": None, "align": None, "latent_dim": latent}
    found = run_together(configs(**changes, generator=generator, steps=2), device="cpu")
    assert [len(record["accuracy_matrix"]) for record in found] == [3, 3, 3]


def test_a_loss_that_is_lost_stops_all():
    with pytest.raises(Diverged, match="in task 0"):
        run_together(configs(lr=1e30, replay="none", align=False), device="cpu")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"regulariser": "si"}, "can't have regulariser si"),
        ({"curve_every": 10}, "can't have curve_every 10"),
        ({"quality": True}, "can't have quality True"),
        ({"privacy": True}, "can't have privacy True"),
        ({"replay": "generative+current"}, "can't rehearse by replay 'generative.current'"),
        ({"precision": "bfloat16"}, "can't have precision bfloat16"),
        ({"replay": "stored"}, "can't rehearse by replay 'stored'"),
        ({"replay": "exact"}, "can't rehearse by replay 'exact'"),
        ({"replay": "joint"}, "can't rehearse by replay 'joint'"),
    ],
    ids=str,
)
def test_what_cannot_be_learned_together_is_refused(changes, complaint):
    wanted = [Config(seed=seed, **changes) for seed in SEEDS]
    with pytest.raises(ValueError, match=f"{complaint}: run them one by one"):
        run_together(wanted)
    assert obstacle(wanted[0]) is not None


@pytest.mark.parametrize("name", ["none", "generative", "conditional", "noise", "current"])
def test_the_usual_kinds_meet_no_obstacle(name):
    assert obstacle(Config(replay=name)) is None


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ([], "different seeds, at least one"),
        ([SMALL, SMALL], "different seeds"),
        ([SMALL, replace(SMALL, seed=1, steps=61)], "nothing but their seeds"),
    ],
    ids=["none", "twice", "another budget"],
)
def test_configs_that_make_no_cohort_are_refused(wanted, complaint):
    with pytest.raises(ValueError, match=complaint):
        run_together(wanted)
