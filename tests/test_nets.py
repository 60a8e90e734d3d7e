"""The solver loss against formulas worked out by hand, networks of odd sizes, steps and modes."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from genreplay_core.nets import (
    adam,
    conv_decoder,
    conv_encoder,
    conv_solver,
    cross_entropy,
    descend,
    evaluating,
    halved,
    mlp,
    mlp_decoder,
    mlp_solver,
    pick_device,
    steady,
)

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 32, 32), (1, 7, 9), (3, 5, 6)]
ABSENT = ["", "gpu", "cuda:-1", "cuda:999", "xla", "hpu"]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# ---------------------------------------------------------------- networks


def test_the_published_solver_has_478410_parameters():
    assert parameters(mlp_solver((1, 28, 28), 10)) == 478_410


def test_an_mlp_ends_in_a_linear_layer():
    net = mlp([3, 5, 7, 2], nn.Tanh)
    assert [type(layer) for layer in net] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    assert [p.shape for p in net.parameters() if p.dim() == 2] == [(5, 3), (7, 5), (2, 7)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("build", [mlp_solver, conv_solver, conv_encoder])
def test_networks_take_images_of_any_size(build, shape):
    with torch.device("meta"):
        assert build(shape, 5)(torch.empty(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("build", [mlp_decoder, conv_decoder])
def test_decoders_make_images_of_any_size(build, shape):
    with torch.device("meta"):
        assert build(6, shape)(torch.empty(2, 6)).shape == (2, *shape)


@pytest.mark.parametrize(
    ("side", "sides"), [(28, (28, 14, 7, 4)), (32, (32, 16, 8, 4)), (5, (5, 3, 2, 1))]
)
def test_halving_rounds_up(side, sides):
    assert [halved((1, side, side), times) for times in range(4)] == [(s, s) for s in sides]


def test_halving_leaves_the_sides_that_convolutions_leave():
    with torch.device("meta"):
        halve = nn.Conv2d(1, 1, 3, stride=2, padding=1)
        for side in range(1, 40):
            assert halve(halve(torch.empty(1, 1, side, 3))).shape[2:] == halved((1, side, 3), 2)


def test_every_pixel_of_an_odd_image_counts():
    x = draw(1, 1, 7, 9).requires_grad_()
    conv_solver((1, 7, 9), 2, width=4)(x).sum().backward()
    assert (x.grad != 0).all()


# ---------------------------------------------------------------- the solver loss


def test_weights_in_the_targets_make_the_mean_over_rows():
    logits, label = draw(6, 4), torch.tensor([0, 3, 1, 1, 2, 0])
    loss = cross_entropy(logits, F.one_hot(label, 4) / 6, torch.zeros(6, 4))
    assert loss == pytest.approx(float(F.cross_entropy(logits, label)))


@pytest.mark.parametrize("r", [0.5, 0.2, 1.0])
def test_new_rows_weigh_r_together_and_old_rows_the_rest(r):
    new, old = (draw(4, 3), torch.tensor([0, 1, 2, 0])), (draw(2, 3, seed=1), torch.tensor([2, 1]))
    weight = torch.tensor([r / 4] * 4 + [(1 - r) / 2] * 2)
    target = F.one_hot(torch.cat([new[1], old[1]]), 3) * weight.unsqueeze(1)
    loss = cross_entropy(torch.cat([new[0], old[0]]), target, torch.zeros(6, 3))
    expected = r * F.cross_entropy(*new) + (1 - r) * F.cross_entropy(*old)
    assert loss == pytest.approx(float(expected))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_soft_targets_give_the_gradient_of_distillation(temperature):
    """T^2 KL(teacher || student), both softened (Hinton, Vinyals and Dean 2015), by the formula."""
    teacher, student = draw(5, 4), draw(5, 4, seed=1).requires_grad_()
    p = (teacher / temperature).exp() / (teacher / temperature).exp().sum(1, keepdim=True)
    q = (student / temperature).exp() / (student / temperature).exp().sum(1, keepdim=True)
    naive = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    (expected,) = torch.autograd.grad(naive, student)

    warmth = torch.full((5, 1), temperature)
    loss = cross_entropy(student, p * temperature**2 / 5, torch.zeros(5, 4), warmth)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, expected)


def test_each_row_has_its_own_temperature():
    logits, target = draw(2, 3), draw(2, 3, seed=1).softmax(1)
    both = cross_entropy(logits, target, torch.zeros(2, 3), torch.tensor([[1.0], [3.0]]))
    scaled = torch.stack([logits[0], logits[1] / 3])
    assert both == pytest.approx(float(-(target * scaled.log_softmax(1)).sum()))


def test_temperature_one_is_the_loss_without_a_temperature():
    logits, target = draw(3, 4), draw(3, 4, seed=1).softmax(1)
    mask = torch.tensor([0.0, -1e9, 0.0, 0.0]).expand(3, 4)
    warm = cross_entropy(logits, target, mask, torch.ones(3, 1))
    assert torch.equal(warm, cross_entropy(logits, target, mask))


@pytest.mark.parametrize("temperature", [None, torch.full((3, 1), 2.0)])
def test_a_masked_output_might_as_well_not_be_there(temperature):
    logits, target = draw(3, 2), draw(3, 2, seed=1).softmax(1)
    alone = cross_entropy(logits, target, torch.zeros(3, 2), temperature)
    wide = [torch.cat([part, torch.zeros(3, 1)], 1) for part in (logits, target)]
    mask = torch.tensor([0.0, 0.0, -1e9]).expand(3, 3)
    torch.testing.assert_close(cross_entropy(*wide, mask, temperature), alone)


# ---------------------------------------------------------------- steps


def test_descend_is_one_step_down_the_gradient():
    w = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimiser = torch.optim.SGD([w], lr=0.1)
    for factor in (0.8, 0.64):  # the gradient of |w|^2 is 2 w, and the last one is forgotten
        loss = descend(optimiser, w.square().sum())
        torch.testing.assert_close(w.detach(), factor * torch.tensor([3.0, -2.0]))
    assert loss == pytest.approx(0.8**2 * 13)
    assert not loss.requires_grad


def test_descend_touches_only_its_own_parameters():
    mine, other = nn.Linear(2, 2), nn.Linear(2, 2)
    before = [p.clone() for p in other.parameters()]
    descend(adam(mine.parameters()), other(mine(torch.ones(1, 2))).square().sum())
    assert all(p.grad is None for p in other.parameters())
    assert all(torch.equal(p, b) for p, b in zip(other.parameters(), before, strict=True))
    assert all(p.grad is not None for p in mine.parameters())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_adam_steps_what_wants_a_gradient_and_holds_nothing_else(device):
    net = mlp([2, 3, 2]).to(device)
    net[0].requires_grad_(False)
    optimiser = adam(net.parameters(), lr=0.5)
    descend(optimiser, net(torch.ones(1, 2, device=device)).sum())
    assert [id(p) for p in optimiser.param_groups[0]["params"]] == [
        id(p) for p in net[2].parameters()
    ]


def test_the_first_step_of_adam_is_as_long_as_the_learning_rate():
    w = nn.Parameter(torch.tensor([5.0, -0.1]))
    descend(adam([w], lr=0.01), (w * torch.tensor([100.0, -2.0])).sum())
    torch.testing.assert_close(w.detach(), torch.tensor([4.99, -0.09]))


# ---------------------------------------------------------------- devices and modes


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_a_picked_device_can_be_used(name):
    device = pick_device(name)
    assert float(torch.ones(2, device=device).sum()) == 2


@pytest.mark.parametrize("name", ABSENT)
def test_a_device_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(
        ValueError, match=rf"^device '{name}' can't be used here \(.+auto$"
    ) as error:
        pick_device(name)
    assert len(str(error.value)) < 320  # torch's own message may be a page


class Moody(nn.Module):
    """Trains, but for a batch norm that it keeps frozen."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2).eval()

    def modes(self):
        return [m.training for m in self.modules()]


def test_evaluating_gives_each_part_its_mode_back():
    first, second = Moody(), nn.Linear(2, 2).eval()
    with evaluating(first, second):
        assert not any(first.modes())
        assert not second.training
    assert first.modes() == [True, True, False]
    assert not second.training


def test_evaluating_gives_modes_and_gradient_back_after_an_error():
    net = Moody()
    with pytest.raises(ZeroDivisionError), evaluating(net):
        raise ZeroDivisionError
    assert net.modes() == [True, True, False]
    assert torch.is_grad_enabled()


def test_evaluating_keeps_no_gradient_and_moves_no_statistic():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.9))
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with evaluating(net):
        outputs = [net(torch.ones(4, 2)) for _ in range(2)]
    assert not outputs[0].requires_grad
    assert torch.equal(*outputs)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def kept():
    """Does this thread keep a number below 1e-38?"""
    return float(torch.tensor(1e-39) * 1) != 0


@pytest.mark.parametrize("before", [False, True])
def test_steady_drops_denormal_numbers_inside_and_leaves_the_thread_as_it_was(before):
    torch.set_flush_denormal(before)
    try:
        with contextlib.suppress(ZeroDivisionError), steady():
            assert not kept()
            raise ZeroDivisionError
        assert kept() is not before
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("before", [False, True])
def test_inside_steady_cudnn_gives_the_same_bits_each_time(monkeypatch, before):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)
    with contextlib.suppress(ZeroDivisionError), steady():
        assert torch.backends.cudnn.deterministic
        raise ZeroDivisionError
    assert torch.backends.cudnn.deterministic is before
