"""A reader's own generator, made to follow the whole protocol of `generators`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .nets import adam, descend


def optimisers(module: nn.Module) -> Iterator[tuple[str, Optimizer]]:
    """(name, optimiser) for each optimiser that the module or a part of it holds, as an attribute
    or in a list or dict."""
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            for key, held in _items(value):
                if isinstance(held, Optimizer):
                    yield ".".join(word for word in (prefix, name, key) if word), held


def _items(value: Any) -> list[tuple[str, Any]]:
    """A container's items by name; anything else is the one item of itself."""
    if isinstance(value, dict):
        return [(str(key), held) for key, held in value.items()]
    if isinstance(value, list | tuple):
        return [(str(i), held) for i, held in enumerate(value)]
    return [("", value)]


def adapted(generator: nn.Module) -> nn.Module:
    """The generator as it is if it follows the whole protocol, else a `Plain` one around it.

    Raises:
        TypeError: it isn't an `nn.Module`, or lacks `latent_dim`, `decode` or `train_step`.
    """
    if not isinstance(generator, nn.Module):
        raise TypeError(f"a generator must be an nn.Module, got {type(generator).__name__}")
    lacking = [n for n in ("latent_dim", "decode", "train_step") if not hasattr(generator, n)]
    if lacking:
        raise TypeError(
            f"{type(generator).__name__} lacks {', '.join(lacking)}: "
            "a generator needs latent_dim, decode(z) and train_step(x)"
        )
    step, decode = _takes(generator.train_step), _takes(generator.decode)
    whole = step >= {"y", "weight", "z"} and "y" in decode and any(optimisers(generator))
    return generator if whole else Plain(generator)


def _takes(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


class Plain(nn.Module):
    """A generator of the simple form `decode(z)`, `train_step(x) -> loss`, made whole.

    * `decode` and `train_step` are given of y, weight and z what they have a parameter for.
    * A `train_step` that can't weight rows is given each row as often as its weight says
      (`resampled`).
    * If it owns no optimiser and its loss has a graph, it is stepped here, with Adam at 1e-3.
    """

    def __init__(self, generator: nn.Module):
        super().__init__()
        inner: Any = generator
        self.inner, self.latent_dim = generator, int(inner.latent_dim)
        self.decode_takes, self.step_takes = _takes(inner.decode), _takes(inner.train_step)
        alone = any(optimisers(generator)) or not any(True for _ in generator.parameters())
        self.optimiser = None if alone else adam(generator.parameters())

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        decode: Any = self.inner.decode
        return decode(z, y) if "y" in self.decode_takes else decode(z)

    def train_step(
        self,
        x: Tensor,
        y: Tensor | None = None,
        weight: Tensor | None = None,
        z: Tensor | None = None,
    ) -> Tensor:
        train_step: Any = self.inner.train_step
        given = {"y": y, "weight": weight, "z": z}
        if "weight" not in self.step_takes and weight is not None:
            rows = resampled(weight)
            x, given = x[rows], {"y": None if y is None else y[rows]}
        extra = {name: t for name, t in given.items() if name in self.step_takes}
        loss = torch.as_tensor(train_step(x, **extra))
        if self.optimiser is not None and loss.requires_grad:
            descend(self.optimiser, loss)
        return loss.detach()


def resampled(weight: Tensor) -> Tensor:
    """As many row numbers as there are weights (N,), row i about `N * weight[i]` times.

    Systematic resampling, from a random start, so that on average a row comes as often as it
    weighs, however little: even weights give back every row once. No row count depends on the
    values, so the device is not waited for.
    """
    n = len(weight)
    marks = (torch.arange(n, device=weight.device) + torch.rand((), device=weight.device)) / n
    rows = torch.searchsorted(weight.cumsum(0), marks, right=True)
    return rows.clamp(max=n - 1)  # the sum of the weights may round to just below 1
