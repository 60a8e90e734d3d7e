"""Randomness that follows from whole numbers, and leaves no trace."""

from __future__ import annotations

import pytest
import torch

from genreplay_core.seeds import mixed, seeded, unmoved


def test_a_seed_is_the_same_in_every_run_and_on_every_machine():
    assert mixed(3, 1) == 5712964121383671236


def test_near_seeds_are_all_different():
    pairs = {mixed(a, b) for a in range(1, 20) for b in range(1, 20)}
    assert len(pairs) == 19 * 19


def test_near_seeds_share_no_more_bits_than_chance_has_it():
    differing = [(mixed(7, i) ^ mixed(7, i + 1)).bit_count() for i in range(1, 201)]
    assert sum(differing) / len(differing) == pytest.approx(63 / 2, abs=1)


def test_torch_takes_every_seed():
    for i in range(200):
        assert 0 <= mixed(i, 1) < 2**63
        torch.Generator().manual_seed(mixed(i, 1))


def test_numbers_inside_seeded_follow_from_the_seed_alone():
    with seeded(1, 2):
        first = torch.rand(5)
    torch.rand(3)
    with seeded(1, 2):
        assert torch.equal(torch.rand(5), first)
    with seeded(2, 1):
        assert not torch.equal(torch.rand(5), first)


class Mps:
    """What torch tells of a Mac, of which it has one random state."""

    state = torch.tensor([1])

    def get_rng_state(self):
        return self.state.clone()

    def set_rng_state(self, state):
        self.state = state


def test_the_state_on_a_mac_is_as_before_too(monkeypatch):
    mps, before = Mps(), torch.get_rng_state()
    monkeypatch.setattr(torch, "mps", mps)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ZeroDivisionError), unmoved():  # noqa: PT012
        torch.rand(1)
        mps.state = torch.tensor([2])
        raise ZeroDivisionError
    assert mps.state.item() == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_mac_whose_mps_cannot_be_used_is_left_alone(monkeypatch):
    monkeypatch.delattr(torch.mps, "get_rng_state")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    before = torch.get_rng_state()
    with unmoved():
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seeded_block_in_another_changes_nothing_after_it():
    with seeded(1):
        torch.rand(1)
        expected = torch.rand(5)
    with seeded(1):
        torch.rand(1)
        with seeded(2):
            torch.rand(7)
        assert torch.equal(torch.rand(5), expected)


@pytest.mark.parametrize("block", [lambda: seeded(5), unmoved])
def test_the_state_outside_is_as_before(block):
    before = torch.get_rng_state()
    with block():
        torch.rand(100)
        assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("block", [lambda: seeded(5), unmoved])
def test_the_state_outside_is_as_before_even_after_an_error(block):
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), block():  # noqa: PT012
        torch.rand(100)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)
