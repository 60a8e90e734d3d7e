"""What may go wrong while a scholar learns, and how it is said: in which task, at which step, and
what to do about it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from .data import Data, Examples, Legend
from .generators import sample
from .nets import evaluating
from .seeds import unmoved

DREAMS = 256  # that are looked at
NEAR = 1e-3  # by what rounding may put a pixel outside [0, 1]
LEAST_VARIANCE, LEAST_ENTROPY = 0.01, 0.2  # of what was asked for; below, dreams have collapsed


class Diverged(RuntimeError):
    """A loss or a weight is no longer finite."""


class Collapsed(RuntimeWarning):
    """A generator's dreams have lost their variety."""


# ---------------------------------------------------------------- numbers and memory


def check_losses(losses: Tensor, task: int, done: int) -> None:
    """See that the losses (n,) of the steps after the first `done` are finite. Waits for the
    device.

    Raises:
        Diverged: with the task and the step.
    """
    if losses.device.type != "meta" and not losses.isfinite().all():
        first = int((~losses.isfinite()).nonzero()[0])
        raise Diverged(
            f"the loss became {float(losses[first])} in task {task} at step {done + first + 1}: "
            "lower the learning rate, or look for extreme images"
        )


def check_weights(networks: Iterable[nn.Module], task: int, steps: int) -> None:
    """See that the last step, whose loss was finite, has left finite weights. Waits for the device.

    Raises:
        Diverged: with the task and the number of its steps.
    """
    weights = [p for network in networks for p in network.parameters() if p.device.type != "meta"]
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise Diverged(
            f"the weights became nan or infinite in task {task} at step {steps}, its last: "
            "lower the learning rate, or look for extreme images"
        )


@contextlib.contextmanager
def enough_memory(when: str) -> Iterator[None]:
    """Whatever runs out of memory inside is said in one line.

    Raises:
        MemoryError: there isn't enough. It says `when`, and what to do.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = isinstance(error, MemoryError) or "out of memory" in str(error)
        if not told and "DefaultCPUAllocator" not in str(error):  # as torch says it of a CPU
            raise
        raise MemoryError(
            f"there isn't enough memory {when}: take a smaller batch, replay_ratio, hidden or "
            "best_of, or fewer workers"
        ) from None


# ---------------------------------------------------------------- networks that don't fit


def outputs_of(solver: nn.Module, x: Tensor) -> int:
    """The solver's number of outputs, from one image x (1, *shape).

    Raises:
        ValueError: it can't take the image, or gives no row of outputs for it.
    """
    try:
        with evaluating(solver):
            out = solver(x)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the solver can't take images {tuple(x.shape[1:])}: {reason}") from None
    if out.dim() != 2:
        raise ValueError(f"the solver gives shape {tuple(out.shape)}, expected (N, outputs)")
    return out.shape[1]


def check_generator(generator: nn.Module, row: Examples) -> None:
    """See that the generator makes images like the one example `row`, of its class.

    Raises:
        ValueError: it doesn't.
    """
    try:
        with unmoved():
            dream = sample(generator, 1, row.y)
    except (IndexError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the generator can't dream class {int(row.y)}: {reason}") from None
    if dream.shape != row.x.shape:
        raise ValueError(
            f"the generator makes images {tuple(dream.shape[1:])}, "
            f"expected {tuple(row.x.shape[1:])}, the shape of the data"
        )
    if not (dream.is_meta or ((dream >= -NEAR) & (dream <= 1 + NEAR)).all()):
        raise ValueError("the generator dreams pixels outside [0, 1]: let decode end in a sigmoid")


def check_given(batch: int, **parts: float) -> None:
    """See that the batch has a row and each part lies in [0, 1], or raise ValueError."""
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    for name, part in parts.items():
        if not 0 <= part <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {part}")


def as_many(old: Data, n: int) -> Data:
    """The rows that a replay has given, if there are n, or ValueError."""
    if len(old.x) != n:
        raise ValueError(f"the replay was asked for {n} rows and gave {len(old.x)}")
    return old


def load_optimiser(optimiser: Optimizer, state: dict[str, Any]) -> None:
    """`optimiser.load_state_dict`, which itself doesn't look at shapes and kinds. A fused kernel
    takes them on trust: with others it would write beyond its memory.

    Raises:
        ValueError: the state is no state of this optimiser.
    """
    kinds = [_kind(group) for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    if [_kind(group) for group in optimiser.param_groups] != kinds:
        raise ValueError("an optimiser has settings of another kind")
    trusting = isinstance(optimiser, Adam | AdamW)  # before torch 2.7 two families
    for parameter, held in optimiser.state.items() if trusting else ():
        if not held.keys() >= {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError("an optimiser's state lacks a part")
        for name, value in held.items():
            if name == "step":
                held[name] = value.float().reshape(())
            elif value.shape != parameter.shape:
                raise ValueError("an optimiser's state has other shapes than its parameters")
            else:  # laid out in memory as the parameter is
                held[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _kind(value: Any) -> Any:
    """What sort of thing a setting is, and those in it; of parameters, how many."""
    if isinstance(value, dict):
        return {n: len(v) if n == "params" else _kind(v) for n, v in value.items()}
    return [_kind(v) for v in value] if isinstance(value, list | tuple) else type(value)


def check_met(seen: Tensor, past_seen: Tensor, legend: Legend | None) -> None:
    """See that it is known of each code that there is whether it was met.

    Raises:
        ValueError: it isn't.
    """
    codes = len(seen) if legend is None else legend.codes
    if not seen.shape == past_seen.shape or seen.shape not in ((0,), (codes,)):
        raise ValueError(f"it knows of {tuple(seen.shape)} class codes, expected {codes}")


# ---------------------------------------------------------------- a generator's collapse


class Variety(NamedTuple):
    """How varied dreams are, each 1 if they are as varied as they should be.

    variance: of their pixels, over that of real images.
    entropy: of the classes that the solver sees in them, over that of the classes asked for.
    """

    variance: float
    entropy: float


def variety(generator: Any, solver: nn.Module, legend: Legend, met: Tensor, x: Tensor) -> Variety:
    """The variety of dreams, shared evenly among the class codes `met` (n,), beside real images
    x (N, *shape). Random numbers and modes stay as they were. Waits for the device."""
    code = met[torch.arange(DREAMS, device=met.device) * len(met) // DREAMS]
    with unmoved(), evaluating(solver):
        dreams = sample(generator, DREAMS, code)
        seen = (solver(dreams) + legend.mask[code]).argmax(1)
    wanted = legend.target[code].argmax(1)
    spreads = [images.var(0, correction=0).mean() for images in (dreams, x[-DREAMS:])]
    found = (spreads[0] / spreads[1], _entropy(seen) / _entropy(wanted))
    return Variety(*torch.stack(found).tolist())


def _entropy(classes: Tensor) -> Tensor:
    """In nats, of how often each class is there."""
    return torch.special.entr(classes.bincount() / len(classes)).sum()


def warn_of_collapse(found: Variety, task: int, step: int) -> bool:
    """Say that dreams have collapsed, if they have. With one class, or images all alike, there is
    no variety to lose (nan or infinity, which are never below anything)."""
    collapsed = found.variance < LEAST_VARIANCE or found.entropy < LEAST_ENTROPY
    if collapsed:
        warnings.warn(
            f"the generator has collapsed in task {task} at step {step}: its dreams have "
            f"{found.variance:.2g} of the images' variance and {found.entropy:.2g} of the entropy "
            "of the classes asked for (1 is all of it). What it doesn't dream will be forgotten: "
            "go back to the checkpoint, lower its learning rate, or take another generator",
            Collapsed,
            stacklevel=2,
        )
    return collapsed
