"""Fisher information and path integrals against formulas, then what they are good for."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from genreplay_core import (
    EWC,
    SI,
    GenerativeReplay,
    accuracy,
    conv_solver,
    load,
    mlp_solver,
    permuted,
)
from genreplay_core.data import Data, Examples, Legend, labelled, legend_for
from genreplay_core.nets import descend
from genreplay_core.replay import none

REGULARISERS = [EWC, SI]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(module: nn.Module) -> torch.Tensor:
    return parameters_to_vector(module.parameters()).detach()


@pytest.mark.parametrize("kind", REGULARISERS)
@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_a_strength_is_a_number_from_0_on(kind, strength):
    with pytest.raises(ValueError, match="strength must be a finite number, 0 or more"):
        kind(nn.Linear(2, 2), strength)


def softmax_regression(features: int, outputs: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(features, outputs)


def drawer(examples: Examples, legend: Legend):
    """What the learner hands to `end_task`: n rows, the examples over and over."""
    return lambda n: labelled(examples[torch.arange(n) % len(examples)], legend)


def no_rows(n: int) -> Data:
    raise AssertionError("SI looks at no data when a task ends")


# ---------------------------------------------------------------- EWC


@pytest.mark.parametrize("outputs", [2, 4])
def test_fisher_of_softmax_regression_is_p_times_one_minus_p_times_x_squared(outputs):
    """E over y of (1[y=k] - p_k)^2 x_j^2 = p_k (1 - p_k) x_j^2; for the bias, x_j is 1."""
    solver = softmax_regression(3, outputs)
    x = torch.rand(50, 3, generator=seeded())
    ewc = EWC(solver, samples=20_000)
    ewc.end_task(
        solver, drawer(Examples(x, torch.zeros(50).long()), legend_for("class", 1, outputs))
    )
    p = solver(x).detach().softmax(1)
    spread = p * (1 - p)  # (50, K)
    expected = torch.cat([(spread.T @ x.square()).flatten(), spread.sum(0)]) / 50
    torch.testing.assert_close(ewc.slope, expected, rtol=0.05, atol=1e-3)
    torch.testing.assert_close(ewc.pull, ewc.slope * flat(solver))


def test_outputs_that_do_not_compete_have_no_fisher_information():
    """In task-incremental learning, task 0 says nothing about the weights of task 1's outputs."""
    solver = softmax_regression(3, 4)
    x = torch.rand(50, 3, generator=seeded())
    ewc = EWC(solver, samples=5_000)
    ewc.end_task(solver, drawer(Examples(x, torch.zeros(50).long()), legend_for("task", 2, 2)))
    p = solver(x)[:, :2].detach().softmax(1)
    weight, bias = ewc.slope[:12].view(4, 3), ewc.slope[12:]
    torch.testing.assert_close(bias[:2], (p * (1 - p)).mean(0), rtol=0.1, atol=0)
    assert (weight[2:] == 0).all()
    assert (bias[2:] == 0).all()


def test_fisher_is_measured_in_eval_mode_and_leaves_the_solver_as_it_was():
    torch.manual_seed(0)
    solver = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    before = {name: value.clone() for name, value in solver.state_dict().items()}
    examples = Examples(torch.rand(10, 3), torch.zeros(10).long())
    ewc = EWC(solver, samples=250)
    ewc.end_task(solver, drawer(examples, legend_for("class", 1, 2)))
    assert ewc.slope.isfinite().all()
    assert ewc.slope.sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in solver.state_dict().items())
    assert all(part.training for part in solver.modules())
    assert all(p.grad is None for p in solver.parameters())


@pytest.mark.parametrize("strength", [1.0, 7.0])
def test_penalty_over_two_tasks_is_the_sum_of_both(strength):
    solver = softmax_regression(3, 2)
    ewc = EWC(solver, strength)
    importance, anchor = (
        torch.rand(2, 8, generator=seeded(1)),
        torch.randn(2, 8, generator=seeded(2)),
    )
    for f, a in zip(importance, anchor, strict=True):
        ewc.remember(f, a)

    def penalty() -> torch.Tensor:
        return strength / 2 * (importance * (flat(solver) - anchor).square()).sum()

    descend(torch.optim.SGD(solver.parameters(), lr=0.0), ewc.loss(solver))
    gradient = torch.cat([p.grad.flatten() for p in solver.parameters()])
    expected = strength * (importance * (flat(solver) - anchor)).sum(0)
    torch.testing.assert_close(gradient, expected)

    here = ewc.loss(solver) - penalty()
    vector_to_parameters(torch.randn(8, generator=seeded(3)), solver.parameters())
    torch.testing.assert_close(ewc.loss(solver) - penalty(), here)  # they differ by a constant


def test_a_weight_at_its_anchor_is_not_pulled_under_autocast_either():
    torch.manual_seed(0)
    solver = softmax_regression(30, 10)
    ewc = EWC(solver, strength=1.0)
    ewc.remember(torch.rand(310), flat(solver))
    with torch.autocast("cpu", torch.bfloat16):
        descend(torch.optim.SGD(solver.parameters(), lr=0.0), ewc.loss(solver))
    assert max(p.grad.abs().max() for p in solver.parameters()) < 1e-6


# ---------------------------------------------------------------- SI


def follow(si: SI, w: nn.Module, curve: torch.Tensor, target: torch.Tensor, steps: int) -> None:
    """Small steps down `sum curve / 2 (w - target)^2` plus the penalty, as in the learner."""
    optimiser = torch.optim.SGD(w.parameters(), lr=1e-3)
    for _ in range(steps):
        error = next(w.parameters()).view(-1) - target
        descend(optimiser, (curve / 2 * error.square()).sum() + si.loss(w))
        si.after_step(w)


CURVE, FIRST, SECOND = torch.tensor([[1.0, 3.0, 0.0], [2.0, -1.0, 5.0], [-1.0, 2.0, 0.0]])


def test_the_path_integral_is_each_weights_share_of_the_losss_fall():
    w = nn.Linear(3, 1, bias=False)
    si, start = SI(w), flat(w)
    follow(si, w, CURVE, FIRST, steps=500)
    fall = CURVE / 2 * ((start - FIRST).square() - (flat(w) - FIRST).square())
    torch.testing.assert_close(si.path, fall, rtol=0.01, atol=1e-6)
    moved, path = flat(w) - start, si.path.clone()
    si.end_task(w, no_rows)
    torch.testing.assert_close(si.slope, path / (moved.square() + si.damping))
    torch.testing.assert_close(si.pull, si.slope * flat(w))


def test_the_penalty_does_not_count_as_the_new_tasks_loss():
    """Zenke et al. integrate the task's own loss: what the penalty holds back is no credit."""
    w = nn.Linear(3, 1, bias=False)
    si = SI(w, strength=5.0)
    follow(si, w, CURVE, FIRST, steps=500)
    si.end_task(w, no_rows)
    assert (si.path == 0).all()
    middle = flat(w)
    follow(si, w, CURVE, SECOND, steps=500)
    fall = CURVE / 2 * ((middle - SECOND).square() - (flat(w) - SECOND).square())
    assert (flat(w) - SECOND).abs()[:2].min() > 0.1  # the penalty did hold it back
    torch.testing.assert_close(si.path, fall, rtol=0.02, atol=1e-5)


def test_si_pulls_to_where_the_latest_task_ended():
    """Zenke et al. (2017): importances add up, the anchor is the latest."""
    w = softmax_regression(3, 2)
    si = SI(w)
    for seed in (1, 2):
        vector_to_parameters(torch.randn(8, generator=seeded(seed)), w.parameters())
        si.path.fill_(1.0)
        si.last.copy_(flat(w))
        si.end_task(w, None)
    descend(torch.optim.SGD(w.parameters(), lr=0.0), si.loss(w))
    gradient = torch.cat([p.grad.flatten() for p in w.parameters()])
    torch.testing.assert_close(gradient, torch.zeros(8))


def test_si_pulls_to_the_weights_that_were_kept_where_they_were_averaged():
    w = softmax_regression(3, 2)
    si = SI(w)
    si.after_step(w)
    vector_to_parameters(torch.randn(8, generator=seeded(1)), w.parameters())
    si.end_task(w, None)
    assert torch.equal(si.last, flat(w))
    assert torch.equal(si.start, flat(w))


def test_a_weight_that_made_the_loss_rise_is_not_protected():
    w = nn.Linear(3, 1, bias=False)
    si = SI(w)
    si.path.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    si.end_task(w, no_rows)
    torch.testing.assert_close(si.slope, torch.tensor([0.0, 0.0, 1 / si.damping]))


# ---------------------------------------------------------------- both


@pytest.mark.parametrize("kind", REGULARISERS)
def test_nothing_is_protected_before_the_first_task_ends(kind):
    solver = softmax_regression(3, 2)
    assert kind(solver).loss(solver) == 0


@pytest.mark.parametrize("kind", REGULARISERS)
def test_a_solver_with_a_frozen_layer_can_be_protected(kind):
    torch.manual_seed(0)
    frozen = nn.Linear(3, 4).requires_grad_(False)
    solver = nn.Sequential(frozen, nn.Linear(4, 2))
    before = flat(frozen)
    legend = legend_for("class", 1, 2)
    scholar = GenerativeReplay(
        solver, device="cpu", legend=legend, regulariser=kind(solver), batch=4, seed=0
    )
    x = torch.rand(20, 3, generator=seeded())
    for task in range(2):
        trained = scholar.train_task(Examples(x, torch.arange(20) % 2), task, steps=3)
        assert trained.solver_loss.isfinite().all()
    assert torch.equal(flat(frozen), before)


@pytest.mark.parametrize("kind", REGULARISERS)
def test_convolutions_lie_otherwise_in_memory_and_can_be_protected(kind):
    solver = conv_solver((3, 4, 4), 2, width=2)
    scholar = GenerativeReplay(solver, device="cpu", regulariser=kind(solver), batch=4, seed=0)
    x = torch.rand(20, 3, 4, 4, generator=seeded())
    for task in range(2):
        trained = scholar.train_task(Examples(x, torch.arange(20) % 2), task, steps=3)
        assert trained.solver_loss.isfinite().all()
    assert (scholar.regulariser.slope > 0).any()


@pytest.mark.parametrize("kind", REGULARISERS)
def test_memory_does_not_grow_with_the_number_of_tasks(kind):
    solver = softmax_regression(3, 2)
    examples = Examples(torch.rand(10, 3, generator=seeded()), torch.arange(10) % 2)
    regulariser, sizes = kind(solver), []
    for _ in range(5):
        regulariser.end_task(solver, drawer(examples, legend_for("class", 1, 2)))
        sizes.append({name: value.shape for name, value in regulariser.state_dict().items()})
    assert sizes == sizes[:1] * 5
    assert set(sizes[0].values()) == {torch.Size([8])}


@pytest.fixture(scope="module")
def digits() -> tuple[Examples, Examples]:
    return load("digits")


def remembered(pair, protect=None) -> float:
    """Accuracy on the first two of three tasks, whose outputs don't compete, after all three."""
    stream = permuted(pair, tasks=3, scenario="task", seed=1)
    torch.manual_seed(1)
    solver = mlp_solver(stream.shape, stream.legend.outputs, hidden=50)
    scholar = GenerativeReplay(
        solver,
        device="cpu",
        strategy=none(),
        legend=stream.legend,
        regulariser=protect(solver) if protect else None,
        batch=32,
        lr=1e-2,
        seed=1,
    )
    for task in stream:
        scholar.train_task(task.train, task.id, steps=60)
    return sum(accuracy(solver, stream[t].test, stream.legend) for t in (0, 1)) / 2


def test_ewc_and_si_keep_earlier_tasks_better_than_nothing(digits):
    nothing = remembered(digits)
    assert remembered(digits, lambda solver: EWC(solver, 1000.0, samples=100)) > nothing + 0.1
    assert remembered(digits, SI) > nothing + 0.1
