"""What goes wrong is said: which task, which step, what to do; and what goes well is left alone."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from genreplay_core import GenerativeReplay, load, mlp_solver, mlp_vae, split
from genreplay_core.data import identity
from genreplay_core.faults import (
    Collapsed,
    Diverged,
    check_losses,
    check_met,
    check_weights,
    enough_memory,
    load_optimiser,
    variety,
    warn_of_collapse,
)
from genreplay_core.learner import LOOK, TRIED

# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_loss_that_is_not_finite_is_named(bad):
    with pytest.raises(Diverged, match=f"became {bad} in task 3 at step 18: lower"):
        check_losses(torch.tensor([1.0, bad, math.nan]), 3, 16)
    check_losses(torch.tensor([1.0, -1e30]), 3, 16)


def test_weights_that_are_not_finite_are_named_with_the_task():
    sound, sick = nn.Linear(2, 2), nn.Linear(2, 2)
    sick.bias.data[1] = math.nan
    check_weights([sound], 1, 40)
    with pytest.raises(Diverged, match="weights became nan or infinite in task 1 at step 40"):
        check_weights([sound, sick], 1, 40)


def test_a_last_step_that_spoils_the_weights_is_noticed_when_its_loss_was_finite():
    """The loss is that of the weights before the step: nothing but the weights can tell."""
    x, y = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)
    scholar = GenerativeReplay(mlp_solver((1, 4, 4), 2, 8), device="cpu", lr=math.inf)
    with pytest.raises(Diverged, match="weights became nan or infinite in task 0 at step 1"):
        scholar.train_task((x, y), 0, steps=1)


# ---------------------------------------------------------------- memory


def full() -> RuntimeError:
    """What torch says of a CPU without memory."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    return error.value


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate"), torch.OutOfMemoryError("CUDA out of memory"), full()],
    ids=["numpy", "CUDA", "CPU"],
)
def test_a_lack_of_memory_is_one_line_that_says_when_and_what_to_do(error):
    with (
        pytest.raises(MemoryError, match="enough memory in task 2: take a smaller batch") as told,
        enough_memory("in task 2"),
    ):
        raise error
    assert "\n" not in str(told.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="sizes don't match"), enough_memory("in task 2"):
        raise RuntimeError("sizes don't match")


# ---------------------------------------------------------------- collapse


class Wheel(nn.Module):
    """Dreams `kinds` images in turn, image k of class k, with `noise` beside."""

    def __init__(self, kinds: int, noise: float = 0.0):
        super().__init__()
        self.kinds, self.noise, self.latent_dim = kinds, noise, 6

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        images = torch.eye(6)[torch.arange(len(z)) % self.kinds]
        return (images + self.noise * z).clamp(0, 1)


SOLVER = nn.Identity()  # pixel k says class k
REAL = torch.eye(6).repeat(50, 1)
MET = torch.arange(6)


def found(generator: nn.Module, met: Tensor = MET):
    return variety(generator, SOLVER, identity(6), met, REAL)


def test_a_faithful_generator_is_as_varied_as_its_data():
    varied = found(Wheel(6))
    assert varied == pytest.approx((1, 1), abs=0.01)


def test_half_of_the_classes_have_the_entropy_of_half_of_them():
    # ln 3 / ln 6; each of three pixels has the variance 2/9, each of six 5/36
    assert found(Wheel(3)) == pytest.approx((3 * 2 / 9 / (6 * 5 / 36), 0.613), abs=0.02)


def test_a_constant_has_neither_variance_nor_entropy():
    assert found(Wheel(1)) == (0, 0)


def test_one_class_leaves_no_entropy_to_lose():
    varied = found(Wheel(1, noise=0.3), MET[:1])
    assert not varied.entropy < 1
    assert varied.variance > 0.1


def test_looking_leaves_randomness_and_modes_alone():
    solver = nn.Sequential(nn.Identity(), nn.Dropout(0.9)).train()
    state = torch.get_rng_state()
    variety(Wheel(6, noise=0.1), solver, identity(6), MET, REAL)
    assert torch.equal(torch.get_rng_state(), state)
    assert solver[1].training


@pytest.mark.parametrize("generator", [Wheel(1), Wheel(1, noise=0.3)], ids=["constant", "a class"])
def test_a_collapse_is_warned_of_with_task_step_and_what_to_do(generator):
    with pytest.warns(Collapsed, match="collapsed in task 4 at step 77: .* learning rate"):
        assert warn_of_collapse(found(generator), 4, 77)


@pytest.mark.parametrize("varied", [found(Wheel(3)), (0.02, 0.21), (math.nan, math.nan)])
def test_less_than_a_collapse_is_none(varied):
    with warnings.catch_warnings(action="error"):
        assert not warn_of_collapse(type(found(Wheel(2)))(*varied), 4, 77)


class Collapses(nn.Module):
    """A VAE until it has done so many steps; then one image for ever."""

    def __init__(self, shape: tuple[int, ...], step: int):
        super().__init__()
        self.inner, self.step, self.steps = mlp_vae(shape, hidden=32), step, 0
        self.latent_dim = self.inner.latent_dim

    def decode(self, z: Tensor) -> Tensor:
        return self.inner.decode(z if self.steps < self.step else 0 * z)

    def train_step(self, x: Tensor) -> Tensor:
        self.steps += 1
        return self.inner.train_step(x)


@pytest.mark.parametrize(
    ("after", "budget", "told"),
    [
        (LOOK + 1, 2 * LOOK + 32, 2 * LOOK),  # while the task goes on, and not again at its end
        (TRIED, TRIED, TRIED),
        (TRIED, TRIED - 1, None),  # it had hardly begun to learn
        (10_000, 2 * TRIED, None),
    ],
)
def test_a_learner_looks_now_and_then_and_at_the_end_and_says_it_once(after, budget, told):
    stream = split(load("digits"), 5, "class", order=range(10))
    solver, generator = mlp_solver(stream.shape, 10, 32), Collapses(stream.shape, after)
    scholar = GenerativeReplay(solver, generator, "cpu", legend=stream.legend, seed=0, batch=32)
    with warnings.catch_warnings(record=True, action="always") as said:
        scholar.train_task(stream[0].train, 0, steps=budget)
    said = [str(one.message) for one in said if one.category is Collapsed]
    assert len(said) == (told is not None)
    assert all(f"in task 0 at step {told}: " in one for one in said)


def test_a_learner_without_tasks_looks_when_it_freezes_itself():
    stream = split(load("digits"), 5, "class", order=range(10))
    solver, generator = mlp_solver(stream.shape, 10, 32), Collapses(stream.shape, TRIED)
    scholar = GenerativeReplay(solver, generator, "cpu", legend=stream.legend, seed=0)
    train = stream[0].train
    batches = [train[torch.arange(step, step + 16) % len(train)] for step in range(TRIED + 1)]
    for batch in batches[:-1]:
        scholar.observe(batch.x, batch.y, snapshot_every=TRIED // 2)
    last = batches[-1]
    with pytest.warns(Collapsed, match=f"in task 1 at step {TRIED}: "):
        scholar.observe(last.x, last.y, snapshot_every=TRIED // 2)


# ---------------------------------------------------------------- states that don't fit


def adam_state(**changes) -> dict:
    """The state of an Adam that has taken a step with two parameters, changed."""
    optimiser = stepped()
    state = optimiser.state_dict()
    state["param_groups"][0] |= {n: v for n, v in changes.items() if n != "exp_avg"}
    if "exp_avg" in changes:
        state["state"][0]["exp_avg"] = changes["exp_avg"]
    return state


def stepped() -> torch.optim.Optimizer:
    layer = nn.Linear(3, 2)
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return optimiser


def test_an_optimiser_takes_its_own_state():
    held, optimiser = adam_state(lr=0.5), stepped()
    load_optimiser(optimiser, held)
    taken = optimiser.state_dict()
    assert taken["param_groups"] == held["param_groups"]
    for number, parts in held["state"].items():
        assert all(torch.equal(value, taken["state"][number][n]) for n, value in parts.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"exp_avg": torch.zeros(3, 3)},
        {"exp_avg": torch.zeros(())},
        {"lr": "fast"},
        {"betas": (0.9, [])},
        {"unknown": 1},
        {"params": [0]},
    ],
)
def test_an_optimiser_refuses_another_s_state(changes):
    with pytest.raises(ValueError, match=r"an optimiser|parameter group"):
        load_optimiser(stepped(), adam_state(**changes))


def test_an_optimiser_s_state_takes_the_layout_of_its_parameters():
    """A fused kernel goes through both as they lie in memory."""
    spread, optimiser = torch.ones(2, 1).expand(2, 3), stepped()
    load_optimiser(optimiser, adam_state(exp_avg=spread))
    for parameter, held in optimiser.state.items():
        assert held["exp_avg"].stride() == parameter.stride()
        assert held["exp_avg"].shape == parameter.shape
    assert next(iter(optimiser.state.values()))["exp_avg"].tolist() == spread.tolist()


def test_an_optimiser_s_state_must_be_whole():
    state = adam_state()
    for held in state["state"].values():
        del held["exp_avg_sq"]
    with pytest.raises(ValueError, match="lacks a part"):
        load_optimiser(stepped(), state)


def test_codes_that_were_met_are_those_that_there_are():
    check_met(torch.zeros(6), torch.zeros(6), identity(6))
    check_met(torch.zeros(0), torch.zeros(0), identity(6))  # nothing yet
    check_met(torch.zeros(6), torch.zeros(6), None)
    for seen, past in [(torch.zeros(5), torch.zeros(5)), (torch.zeros(6), torch.zeros(5))]:
        with pytest.raises(ValueError, match=r"it knows of \(\d,\) class codes, expected 6"):
            check_met(seen, past, identity(6))
