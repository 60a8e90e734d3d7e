"""Baselines that protect the solver's weights instead of rehearsing: EWC and SI.

Both add `strength / 2 * sum importance * (theta - anchor)^2` to the solver's loss; they differ in
how the importance of a weight is found. (LwF, the third classic, is a replay: `current()`.)
Parameters are handled as one flat vector (P,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from .data import Data
from .nets import evaluating

Batches = Callable[[int], Data]  # how many rows -> rows of the task that has just ended


class Regulariser(nn.Module):
    """What both share. `slope` and `pull` sum over the tasks, so memory doesn't grow with them:
    `sum_t F_t (theta - anchor_t)^2 = slope theta^2 - 2 pull theta + constant`."""

    slope: Tensor
    pull: Tensor

    def __init__(self, solver: nn.Module, strength: float):
        super().__init__()
        if not 0 <= strength < math.inf:
            raise ValueError("strength must be a finite number, 0 or more")
        self.strength = strength
        zero = torch.zeros_like(_vector(solver.parameters()).detach())
        self.register_buffer("slope", zero)
        self.register_buffer("pull", zero.clone())

    def loss(self, solver: nn.Module) -> Tensor:
        """The penalty up to a constant, which has the penalty's gradient."""
        theta = _vector(solver.parameters())
        # no matrix product, which autocast would round: near the anchor its terms cancel
        return self.strength * ((0.5 * self.slope * theta - self.pull) * theta).sum()

    def remember(self, importance: Tensor, anchor: Tensor) -> None:
        self.slope += importance
        self.pull += importance * anchor

    def after_step(self, solver: nn.Module) -> None:
        """Called after each solver step."""

    def end_task(self, solver: nn.Module, rows: Batches) -> None:
        """Called when a task has been learned; `rows(n)` draws n of its rows."""
        raise NotImplementedError


class EWC(Regulariser):
    """Elastic weight consolidation (Kirkpatrick et al. 2017).

    A weight's importance is the diagonal of the Fisher information, estimated on `samples` rows
    with labels drawn from the solver's own answers.
    """

    def __init__(self, solver: nn.Module, strength: float = 5000.0, samples: int = 1000):
        super().__init__(solver, strength)
        self.samples = samples

    def end_task(self, solver: nn.Module, rows: Batches) -> None:
        data, parameters = rows(self.samples), dict(solver.named_parameters())

        def log_likelihood(values: dict[str, Tensor], x: Tensor, mask: Tensor) -> Tensor:
            out = torch.func.functional_call(solver, values, (x.unsqueeze(0),))
            logp = (out.squeeze(0) + mask).log_softmax(0)  # (K,)
            return logp.gather(0, torch.multinomial(logp.exp().detach(), 1)).squeeze(0)

        each = torch.func.vmap(
            torch.func.grad(log_likelihood), in_dims=(None, 0, 0), randomness="different"
        )
        values = {name: p.detach() for name, p in parameters.items()}
        fisher = torch.zeros_like(self.slope)
        with evaluating(solver):
            for x, mask in zip(data.x.split(100), data.mask.split(100), strict=True):
                squared = [g.square().sum(0).flatten() for g in each(values, x, mask).values()]
                fisher += torch.cat(squared)
        anchor = _vector(values.values())
        self.remember(fisher / self.samples, anchor)


class SI(Regulariser):
    """Synaptic intelligence (Zenke, Poole and Ganguli 2017).

    A weight's importance is what its path through the task contributed to the fall of the loss,
    divided by how far it went, squared, plus `damping`.
    """

    path: Tensor
    start: Tensor
    last: Tensor

    def __init__(self, solver: nn.Module, strength: float = 10.0, damping: float = 0.1):
        super().__init__(solver, 2 * strength)  # the paper's penalty has no factor 1/2
        self.damping = damping
        theta = _vector(solver.parameters()).detach()
        self.register_buffer("path", torch.zeros_like(theta))
        self.register_buffer("start", theta.clone())
        self.register_buffer("last", theta.clone())

    def after_step(self, solver: nn.Module) -> None:
        theta = _vector(solver.parameters()).detach()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in solver.parameters()]
        gradient = _vector(parts)
        gradient -= self.strength * (self.slope * self.last - self.pull)  # of the task's loss alone
        self.path -= gradient * (theta - self.last)
        self.last.copy_(theta)

    def end_task(self, solver: nn.Module, rows: Batches) -> None:
        self.last.copy_(_vector(solver.parameters()).detach())  # they may have been averaged
        importance = self.path.relu() / ((self.last - self.start).square() + self.damping)
        self.slope += importance
        self.pull.copy_(self.slope * self.last)  # one anchor for all tasks, the latest
        self.path.zero_()
        self.start.copy_(self.last)


def _vector(parts: Iterable[Tensor]) -> Tensor:
    """All numbers in one row (P,), wherever a convolution's weights lie in memory."""
    return torch.cat([part.reshape(-1) for part in parts])
