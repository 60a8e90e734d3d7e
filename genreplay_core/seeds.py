"""Randomness that follows from whole numbers alone: a seed, a task, an epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


def mixed(*seed: int) -> int:
    """One 63-bit seed for a tuple of whole numbers >= 0; near tuples give unrelated seeds.

    Zeros at the end don't count, as in numpy's `SeedSequence`, which does the mixing.
    """
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(1))


def unmoved() -> contextlib.AbstractContextManager[None]:
    """After it, torch's random state is what it was before, that of an accelerator too."""
    if torch.backends.mps.is_available():
        return _unmoved_mps()
    # of a Mac whose MPS can't be used torch says that it has an accelerator, and no device of it
    there = torch.accelerator.current_accelerator()
    devices, kind = range(torch.accelerator.device_count()), "cuda" if there is None else there.type
    return torch.random.fork_rng(devices, device_type=kind)


@contextlib.contextmanager
def _unmoved_mps() -> Iterator[None]:
    """On MPS, which has one state where `fork_rng` asks for one of each device."""
    before = torch.mps.get_rng_state()
    try:
        with torch.random.fork_rng(devices=()):
            yield
    finally:
        torch.mps.set_rng_state(before)


@contextlib.contextmanager
def seeded(*seed: int) -> Iterator[None]:
    """Inside, torch's random numbers follow from `seed` alone; outside, nothing has changed."""
    with unmoved():
        torch.manual_seed(mixed(*seed))
        yield
