"""What is right, for the adapters of a part that needs another part's answer.

Students don't get this file: it would show them what they are asked to write.
"""

import copy

import torch


def accuracy(solver, x, y):
    """1b, of a solver without modes."""
    return float((solver(x).argmax(1) == y).float().mean())


def freeze(network):
    """3a."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def dream(generator, solver, n):
    """3b."""
    if not hasattr(generator, "decode"):
        raise TypeError("it is dream(generator, solver, n), and what came first can't decode")
    x = generator.decode(torch.randn(n, generator.latent_dim))
    return x, solver(x).argmax(1)


def weights(new, old, t):
    """3d."""
    r = 1.0 if old == 0 else 1 / t
    return torch.tensor([r / new] * new + [(1 - r) / max(old, 1)] * old)
