"""Optimisers are found wherever they are held; rows come as often as their weights say.

What becomes of a whole plain generator stands with the contract, in test_generators.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genreplay_core.adapt import adapted, optimisers, resampled
from genreplay_core.nets import adam


class Held(nn.Module):
    """A generator that holds its optimiser in whatever `hold` makes of it."""

    latent_dim = 2

    def __init__(self, hold):
        super().__init__()
        self.part = nn.Linear(2, 4)
        self.held = hold(adam(self.part.parameters(), lr=0.1))

    def decode(self, z):
        return self.part(z).sigmoid()

    def train_step(self, x):
        loss = (self.decode(torch.zeros(len(x), 2)) - x).square().mean()
        loss.backward()
        for _, optimiser in optimisers(self):
            optimiser.step()
            optimiser.zero_grad()
        return loss  # its graph is used up: whoever steps it again fails


HOLDS = {
    "held": lambda optimiser: optimiser,
    "held.0": lambda optimiser: [optimiser],
    "held.1": lambda optimiser: ("other", optimiser),
    "held.main": lambda optimiser: {"main": optimiser},
}


@pytest.mark.parametrize("name", HOLDS)
def test_an_optimiser_is_found_and_its_owner_left_to_step_itself(name):
    generator = Held(HOLDS[name])
    assert [found for found, _ in optimisers(generator)] == [name]
    assert [found for found, _ in optimisers(adapted(generator))] == [f"inner.{name}"]
    before = generator.part.bias.detach().clone()
    assert not adapted(generator).train_step(torch.zeros(3, 4)).requires_grad
    assert not torch.equal(generator.part.bias, before)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 128, 192, 1000])
def test_even_weights_give_each_row_once(n):
    torch.manual_seed(0)
    assert torch.equal(resampled(torch.full((n,), 1 / n)), torch.arange(n))


@pytest.mark.parametrize("r", [0.5, 0.2, 0.03, 1.0])
@pytest.mark.parametrize(("new", "old"), [(128, 64), (100, 100), (10, 90)])
def test_resampled_rows_keep_the_proportion_of_new_and_old_and_their_number(r, new, old):
    weight = torch.cat([torch.full((new,), r / new), torch.full((old,), (1 - r) / old)])
    rows = resampled(weight)
    assert len(rows) == new + old
    assert (rows < new).sum().item() == pytest.approx(r * (new + old), abs=1)


def test_a_row_comes_as_often_as_its_weight_says():
    weight = torch.rand(50, generator=torch.Generator().manual_seed(0))
    weight = weight / weight.sum()
    count = torch.bincount(resampled(weight), minlength=50)
    assert (count - 50 * weight).abs().max() < 1 + 1e-3


def test_a_row_of_little_weight_comes_now_and_then():
    torch.manual_seed(0)
    weight = torch.tensor([0.01, 0.33, 0.33, 0.33])
    counts = torch.stack([torch.bincount(resampled(weight), minlength=4) for _ in range(5000)])
    torch.testing.assert_close(counts.double().mean(0), 4 * weight.double(), atol=0.01, rtol=0)


def test_rows_of_weight_zero_never_come():
    assert resampled(torch.tensor([0.0, 0.5, 0.0, 0.25, 0.25, 0.0])).unique().tolist() == [1, 3, 4]
