"""One contract that every replay keeps, then what sets each of them apart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from genreplay_core import GenerativeReplay, mlp_solver, mlp_vae, replay
from genreplay_core.data import Data, Examples, labelled, legend_for
from genreplay_core.replay import ByCode, Hard, Past, Soft, Strategy

SHAPE = (1, 3, 3)
CODES = 6  # three tasks of two classes
MET = [0, 2, 3]  # code 1 belongs to an old task, yet nobody saw it
FROZEN, LIVE = 0.25, 0.75


def mine(past: Past, now: Data, n: int) -> Data:
    """A replay of one's own: blends of two images of the new task, answered by the old solver."""
    left, right = (torch.randint(len(now.x), (n,), device=now.x.device) for _ in "ab")
    return Soft()(past, (now.x[left] + now.x[right]) / 2, past.draw_codes(n))


STRATEGIES = {
    "none": replay.none(),
    "generative, soft": replay.generative(Soft(4.0)),
    "generative, hard": replay.generative(Hard()),
    "generative, by code": replay.generative(ByCode()),
    "generative, aligned": replay.generative(align=True),
    "generative, sharpened": replay.generative(align=True, sharpen=1.5),
    "generative, best of 3": replay.generative(align=True, best_of=3),
    "stored": replay.stored(3),
    "stored, soft": replay.stored(3, Soft()),
    "exact": replay.exact(),
    "joint": replay.joint(),
    "noise": replay.noise(),
    "current": replay.current(),
    "generative and current": replay.generative_and_current(),
    "sketch": replay.sketch(),
    "live": replay.live(),
    "forgetful generator": replay.forgetful_generator(),
    "mine": Strategy(mine),  # your own replay needs no more than such a line
}
REHEARSING = [name for name in STRATEGIES if name != "none"]


class Painter(nn.Module):
    """A generator whose images tell which one made them and what it was asked for."""

    latent_dim = 2

    def __init__(self, shade: float):
        super().__init__()
        self.register_buffer("shade", torch.tensor(shade))

    def decode(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.shade + y / 100).view(-1, 1, 1, 1).expand(-1, *SHAPE)


def draw(n: int, codes: list[int], seed: int = 0) -> Examples:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *SHAPE, generator=rng)
    return Examples(x, torch.tensor(codes)[torch.arange(n) % len(codes)])


def past_of(
    scenario: str = "class",
    classes: int | None = None,
    device: str = "cpu",
    generators: tuple[nn.Module, nn.Module] | None = None,
) -> Past:
    """Three classes of two tasks were met; frozen and live networks differ."""
    torch.manual_seed(0)
    legend = legend_for(scenario, 3, 2).to(device)
    solver, live = (mlp_solver(SHAPE, legend.outputs, hidden=8).to(device) for _ in "ab")
    old, new = generators or (mlp_vae(SHAPE, classes, 2, 8).to(device) for _ in "ab")
    seen = torch.zeros(CODES, device=device)
    seen[MET] = torch.tensor([5.0, 1000.0, 7.0], device=device)
    return Past(solver, old, (live, new), legend, seen, draw(12, MET).to(device))


def new_rows(past: Past, n: int = 8) -> Data:
    device = past.seen.device
    return labelled(draw(n, [4, 5], seed=1).to(device), past.legend)


def rehearsed(name: str, past: Past, n: int) -> list[Data]:
    """What solver and generator rehearse by the strategy of this name."""
    strategy = STRATEGIES[name]
    parts = [part for part in (strategy.solver, strategy.generator) if part is not None]
    return [part(past, new_rows(past), n) for part in parts]


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("classes", [None, CODES], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("name", REHEARSING)
def test_replay_gives_n_rows_on_the_device_and_without_gradient(name, classes, device):
    for data in rehearsed(name, past_of(classes=classes, device=device), 17):
        x, y, mask, code, temperature = data[:5]
        assert (x.shape, code.shape, temperature.shape) == ((17, *SHAPE), (17,), (17, 1))
        assert y.shape == mask.shape == (17, CODES)
        assert code.dtype == torch.int64
        assert data.z is None or data.z.shape == (17, 2)
        for part in data:
            assert part is None or (part.device.type == device and not part.requires_grad)


@pytest.mark.parametrize("scenario", ["class", "domain", "task"])
@pytest.mark.parametrize("classes", [None, CODES], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("name", REHEARSING)
def test_replayed_rows_are_images_of_met_classes_with_possible_answers(name, classes, scenario):
    past = past_of(scenario, classes)
    for data in rehearsed(name, past, 100):
        assert data.x.min() >= 0
        assert data.x.max() <= 1
        assert set(data.code.tolist()) == set(MET)
        assert torch.equal(data.mask, past.legend.mask[data.code])
        assert (data.y >= 0).all()
        assert (data.y[data.mask < 0] == 0).all()
        torch.testing.assert_close(data.y.sum(1), torch.ones(100))
        assert (data.temperature > 0).all()


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_learns_three_tasks_in_the_learner(name):
    torch.manual_seed(0)
    legend = legend_for("task", 3, 2)
    scholar = GenerativeReplay(
        mlp_solver(SHAPE, CODES, hidden=8),
        mlp_vae(SHAPE, CODES, 2, 8),
        device="cpu",
        strategy=STRATEGIES[name],
        legend=legend,
        batch=4,
    )
    for task in range(3):
        codes = [2 * task, 2 * task + 1]
        trained = scholar.train_task(draw(10, codes), task, steps=3, replay_ratio=1.5)
        assert trained.solver_loss.isfinite().all()
        assert len(trained.solver_loss) == len(trained.generator_loss) == 3
    assert (scholar.past_seen > 0).tolist() == [True] * 4 + [False] * 2


def test_rehearsing_nothing_is_a_value_too():
    assert replay.none() == Strategy(solver=None, generator=None, stored=0)


# ---------------------------------------------------------------- classes


def test_codes_are_drawn_evenly_from_those_met_however_often_they_were():
    torch.manual_seed(0)
    share = past_of().draw_codes(30_000).bincount(minlength=CODES) / 30_000
    torch.testing.assert_close(share[MET], torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    assert share.sum() == share[MET].sum()


def test_a_conditional_generator_dreams_the_classes_that_were_drawn():
    past = past_of(generators=(Painter(FROZEN), Painter(LIVE)))
    data = replay.generative().solver(past, new_rows(past), 50)
    torch.testing.assert_close(data.x[:, 0, 0, 0], FROZEN + data.code / 100)


def test_the_noise_told_for_alignment_makes_the_dream_again():
    past = past_of(classes=CODES)
    data = replay.generative(align=True).solver(past, new_rows(past), 9)
    assert torch.equal(past.generator.decode(data.z, data.code), data.x)


# ---------------------------------------------------------------- labels


def test_of_several_dreams_the_one_that_is_most_surely_of_its_class_is_used():
    past, n = past_of(classes=CODES), 5
    torch.manual_seed(1)
    chosen = replay.Generative(Soft(1.0), align=True, best_of=4)(past, new_rows(past), n)
    torch.manual_seed(1)
    code = past.draw_codes(n).repeat(4)
    z = torch.randn(4 * n, 2)
    with torch.no_grad():
        sure = past.solver(past.generator.decode(z, code)).softmax(1).gather(1, code[:, None])
    best = [max(range(i, 4 * n, n), key=lambda row: float(sure[row])) for i in range(n)]
    assert torch.equal(chosen.z, z[best])
    assert torch.equal(chosen.code, code[:n])
    torch.testing.assert_close(chosen.y.gather(1, chosen.code[:, None]), sure[best])


class Uneven(nn.Module):
    """A plain generator that dreams the first of the three classes eight times in ten."""

    latent_dim = 1

    def decode(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        which = (z > 0.84).long() + (z > 1.28).long()  # a tenth of a normal lies between them
        return (torch.tensor(MET)[which] / CODES).view(-1, 1, 1, 1).expand(-1, *SHAPE)


class Reader(nn.Module):
    """A solver that reads what Uneven has drawn."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(CODES)[(x[:, 0, 0, 0] * CODES).round().long()]


def test_the_classes_of_plain_dreams_are_evened_out_if_the_best_of_many_is_used():
    past = replace(past_of(generators=(Uneven(), Uneven())), solver=Reader())
    one, best = (
        replay.Generative(Hard(), best_of=many)(past, new_rows(past), 3000).y.mean(0)[MET]
        for many in (1, 64)
    )
    torch.testing.assert_close(one, torch.tensor([0.8, 0.1, 0.1]), atol=0.05, rtol=0)
    torch.testing.assert_close(best, torch.full((3,), 1 / 3), atol=0.05, rtol=0)


def test_hard_labels_are_the_old_solvers_argmax_among_outputs_that_compete():
    past = past_of("task")
    for name in ("generative, hard", "exact"):
        data = rehearsed(name, past, 200)[0]
        best = (past.solver(data.x) + data.mask).argmax(1)
        assert torch.equal(data.y, torch.eye(CODES)[best])
        assert (data.temperature == 1).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_soft_labels_are_the_old_solvers_softmax_at_the_temperature(temperature):
    past = past_of()
    data = replay.generative(Soft(temperature)).solver(past, new_rows(past), 20)
    scores = (past.solver(data.x) / temperature).exp()
    torch.testing.assert_close(data.y, scores / scores.sum(1, keepdim=True))
    assert (data.temperature == temperature).all()


@pytest.mark.parametrize("temperature", [0.0, -2.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature must be above 0, got"):
        Soft(temperature)


def test_a_label_by_code_is_the_legends_answer():
    past = past_of("domain")
    for name in ("generative, by code", "stored", "joint"):
        data = rehearsed(name, past, 20)[0]
        assert torch.equal(data.y, torch.eye(2)[data.code % 2])


def test_labels_are_given_in_eval_mode_which_is_then_left():
    """Dropout would answer the same image in many ways."""
    past = past_of()
    noisy = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(9, CODES))
    past = Past(noisy, None, past.live, past.legend, past.seen)
    image, code = torch.rand(1, *SHAPE).expand(30, *SHAPE), torch.zeros(30, dtype=torch.int64)
    answers = Soft()(past, image, code).y
    torch.testing.assert_close(answers, answers[:1].expand(30, -1))
    assert all(part.training for part in noisy.modules())


# ---------------------------------------------------------------- what each one replays


def test_dreams_are_the_frozen_scholars_and_only_live_asks_those_in_training():
    past = past_of(generators=(Painter(FROZEN), Painter(LIVE)))
    dreamers = {"generative, hard": (FROZEN, past.solver), "live": (LIVE, past.live[0])}
    for name, (shade, solver) in dreamers.items():
        data = rehearsed(name, past, 50)[0]
        torch.testing.assert_close(data.x[:, 0, 0, 0], shade + data.code / 100)
        assert torch.equal(data.y, torch.eye(CODES)[solver(data.x).argmax(1)])


def test_stored_rows_are_drawn_evenly_with_their_own_code():
    torch.manual_seed(0)
    past = past_of()
    data = rehearsed("stored", past, 12_000)[0]
    same = (data.x[:, None] == past.kept.x).flatten(2).all(2)  # (12000, 12)
    assert (same.sum(1) == 1).all()  # each is a kept row
    assert torch.equal(past.kept.y[same.long().argmax(1)], data.code)
    torch.testing.assert_close(same.float().mean(0), torch.full((12,), 1 / 12), atol=0.01, rtol=0)


def test_noise_is_gaussian_around_grey_and_cut_at_two_deviations():
    torch.manual_seed(0)
    x = rehearsed("noise", past_of(), 5_000)[0].x
    tail = 0.5 * math.erfc(2 / math.sqrt(2))  # of a normal, beyond two deviations
    assert float((x == 0).float().mean()) == pytest.approx(tail, abs=0.003)
    assert float((x == 1).float().mean()) == pytest.approx(tail, abs=0.003)
    inside = torch.special.ndtr((torch.tensor([0.25, 0.4, 0.5, 0.75]) - 0.5) / 0.25)
    share = torch.stack([(x < at).float().mean() for at in (0.25, 0.4, 0.5, 0.75)])
    torch.testing.assert_close(share, inside, atol=0.01, rtol=0)


def test_current_replays_the_new_images_again_and_again():
    past = past_of()
    now = new_rows(past, 5)
    data = replay.current().solver(past, now, 12)
    assert torch.equal(data.x, torch.cat([now.x, now.x, now.x[:2]]))


# ---------------------------------------------------------------- strategies


@pytest.mark.parametrize("n", [6, 7])
def test_both_takes_rows_from_each_in_turn(n):
    past = past_of(generators=(Painter(FROZEN), Painter(LIVE)))
    now = new_rows(past)
    data = replay.generative_and_current().solver(past, now, n)
    torch.testing.assert_close(data.x[::2, 0, 0, 0], FROZEN + data.code[::2] / 100)
    assert torch.equal(data.x[1::2], now.x[: n // 2])
    assert data.z is None


def test_solver_and_generator_rehearse_the_same_value_unless_a_strategy_says_otherwise():
    for strategy in (replay.generative(), replay.live()):
        assert strategy.solver == strategy.generator
    forgetful = replay.forgetful_generator()
    assert (forgetful.solver, forgetful.generator) == (replay.generative().solver, None)


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        (None, [1, 1 / 2, 1 / 3, 1 / 4]),
        (0.3, [1, 0.3, 0.3, 0.3]),
        (1, [1, 1, 1, 1]),
        (0, [1, 0, 0, 0]),
        (lambda tasks: 1 / tasks**2, [1, 1 / 4, 1 / 9, 1 / 16]),
    ],
    ids=["default", "number", "one", "zero", "function"],
)
def test_importance_is_one_over_tasks_or_what_is_asked_for(importance, expected):
    changes = {} if importance is None else {"importance": importance}
    strategy = replay.generative(**changes)
    assert [strategy.weights_of_new(t)[0] for t in range(1, 5)] == expected


def test_the_generator_may_weigh_the_new_task_in_its_own_way():
    strategy = replay.generative(generator_importance=0.5)
    assert [strategy.weights_of_new(t) for t in (1, 2, 4)] == [(1, 1), (1 / 2, 0.5), (1 / 4, 0.5)]
    with pytest.raises(ValueError, match="importance must lie in"):
        replay.generative(generator_importance=2.0).weights_of_new(2)


def test_a_wider_spread_scales_the_noise():
    past = past_of(classes=CODES)
    noises = []
    for spread in (1.0, 1.5):
        torch.manual_seed(0)
        noises.append(
            replay.generative(align=True, spread=spread).solver(past, new_rows(past), 9).z
        )
    torch.testing.assert_close(noises[1], 1.5 * noises[0])


def test_sharpened_dreams_have_their_logits_multiplied_and_are_for_the_solver_alone():
    past = past_of(generators=(Painter(FROZEN), Painter(LIVE)))
    strategy = replay.generative(sharpen=2.0)
    odds = []
    for rehearse in (strategy.solver, strategy.generator):
        torch.manual_seed(0)
        x = rehearse(past, new_rows(past), 20).x
        odds.append(x / (1 - x))
    torch.testing.assert_close(odds[0], odds[1].square(), rtol=1e-4, atol=0)
    assert replay.generative().solver == replay.generative().generator


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("bad", [-0.5, 1.5, math.nan, math.inf])
def test_importance_outside_zero_to_one_is_refused_from_the_first_task_on(bad, tasks):
    for importance in (bad, lambda _: bad):
        strategy = replay.generative(importance=importance)
        with pytest.raises(ValueError, match=r"importance must lie in \[0, 1\], got"):
            strategy.weights_of_new(tasks)


# ---------------------------------------------------------------- what is stored


def storing(strategy: Strategy, tasks: list[Examples]) -> GenerativeReplay:
    """A scholar that was in these tasks."""
    torch.manual_seed(0)
    scholar = GenerativeReplay(
        mlp_solver(SHAPE, CODES, hidden=8), device="cpu", strategy=strategy, batch=4, seed=1
    )
    for task, examples in enumerate(tasks):
        scholar.train_task(examples, task, steps=1)
    return scholar


def rows(examples: Examples) -> set[tuple[float, ...]]:
    """Each example as numbers: its code and its pixels."""
    return {(float(y), *x.flatten().tolist()) for x, y in zip(examples.x, examples.y, strict=True)}


TASKS = [draw(20, [0, 0, 0, 1], seed=2), draw(9, [2, 3], seed=3), draw(4, [4, 5], seed=4)]


@pytest.mark.parametrize("per_class", [1, 3])
def test_stored_keeps_so_many_of_every_class_of_every_task(per_class):
    kept = storing(replay.stored(per_class), TASKS).kept
    expected = [min(per_class, n) for n in (15, 5, 5, 4, 2, 2)]
    assert kept.y.bincount().tolist() == expected
    assert len(rows(kept)) == sum(expected)  # no row twice
    assert rows(kept) < set().union(*(rows(task) for task in TASKS))


def test_what_was_kept_of_a_task_stays_and_is_chosen_at_random():
    kept = [rows(storing(replay.stored(3), TASKS[:n]).kept) for n in (1, 2, 3)]
    assert kept[0] < kept[1] < kept[2]
    first = {(0.0, *x.flatten().tolist()) for x in TASKS[0].x[TASKS[0].y == 0][:3]}
    assert not first <= kept[0]


@pytest.mark.parametrize("strategy", [replay.joint(), replay.exact()], ids=["joint", "exact"])
def test_joint_and_exact_keep_everything(strategy):
    kept = storing(strategy, TASKS).kept
    assert len(kept) == sum(map(len, TASKS))
    assert rows(kept) == set().union(*(rows(task) for task in TASKS))


def test_the_present_task_is_not_replayed_from_the_store():
    scholar = storing(replay.stored(3), TASKS)
    assert rows(scholar.past.kept) == rows(storing(replay.stored(3), TASKS[:2]).kept)


@pytest.mark.parametrize("strategy", [replay.none(), replay.generative(), replay.noise()])
def test_other_strategies_keep_no_example(strategy):
    assert storing(strategy, TASKS[:1]).kept is None
