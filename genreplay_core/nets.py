"""Networks and the few lines that every training step needs.

A network here is a plain `nn.Module` from images to numbers. Shapes are given without the batch
dimension: `(1, 28, 28)` for MNIST. Anything with the same inputs and outputs can take its place.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, ...]


def mlp(sizes: Iterable[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of the given sizes with an activation between them, none at the end.

    `mlp([784, 400, 400, 10])` is the solver of the published split-MNIST recipe.
    """
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o), activation()]
    return nn.Sequential(*layers[:-1])


def mlp_solver(shape: Shape, outputs: int, hidden: int = 400) -> nn.Module:
    """Two hidden layers: (N, *shape) -> (N, outputs)."""
    return nn.Sequential(nn.Flatten(), mlp([math.prod(shape), hidden, hidden, outputs]))


def conv_solver(shape: Shape, outputs: int, width: int = 32) -> nn.Module:
    """Three convolutions, the last two halving the image, and a linear layer. shape: (c, h, w)."""
    return _laid_out(
        nn.Conv2d(shape[0], width, 3, padding=1),
        nn.ReLU(),
        *_halve(width, 2 * width, nn.ReLU()),
        *_halve(2 * width, 4 * width, nn.ReLU()),
        nn.Flatten(),
        nn.Linear(4 * width * math.prod(halved(shape, 2)), outputs),
    )


def conv_encoder(shape: Shape, outputs: int, width: int = 32) -> nn.Module:
    """Images (N, c, h, w) -> (N, outputs), without normalisation layers, so that it may serve as
    the critic of a GAN with a gradient penalty."""
    return _laid_out(
        *_halve(shape[0], width, nn.LeakyReLU(0.2)),
        *_halve(width, 2 * width, nn.LeakyReLU(0.2)),
        nn.Flatten(),
        nn.Linear(2 * width * math.prod(halved(shape, 2)), 256),
        nn.LeakyReLU(0.2),
        nn.Linear(256, outputs),
    )


def conv_decoder(inputs: int, shape: Shape, width: int = 32) -> nn.Module:
    """Vectors (N, inputs) -> images (N, c, h, w) before the sigmoid: the encoder backwards."""
    h, w = halved(shape, 2)
    return _laid_out(
        nn.Linear(inputs, 256),
        nn.ReLU(),
        nn.Linear(256, 2 * width * h * w),
        nn.ReLU(),
        nn.Unflatten(1, (2 * width, h, w)),
        *_double(2 * width, width, halved(shape, 1)),
        nn.ReLU(),
        *_double(width, shape[0], halved(shape, 0)),
    )


def _laid_out(*layers: nn.Module) -> nn.Module:
    """Layers in sequence, whose convolutions are faster with the channels side by side."""
    network: nn.Module = nn.Sequential(*layers)
    return network.to(memory_format=torch.channels_last)


def mlp_decoder(inputs: int, shape: Shape, hidden: int = 400) -> nn.Module:
    """Vectors (N, inputs) -> images (N, *shape) before the sigmoid, two hidden layers."""
    return nn.Sequential(
        mlp([inputs, hidden, hidden, math.prod(shape)]), nn.Unflatten(1, tuple(shape))
    )


def halved(shape: Shape, times: int) -> Shape:
    """Height and width after `times` convolutions of stride 2: 28 -> 14 -> 7, 7 -> 4."""
    return tuple(-(-side // 2**times) for side in shape[1:])


def _halve(i: int, o: int, activation: nn.Module) -> tuple[nn.Module, ...]:
    return nn.Conv2d(i, o, 3, stride=2, padding=1), activation


def _double(i: int, o: int, size: Shape) -> tuple[nn.Module, ...]:
    return nn.Upsample(size=size), nn.Conv2d(i, o, 3, padding=1)


# ---------------------------------------------------------------- one step


def adam(
    parameters: Iterable[nn.Parameter], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Adam:
    """Adam in as few kernels as the device allows: fused, or foreach where fused is missing."""
    held = [p for p in parameters if p.requires_grad]
    fused = {p.device.type for p in held} <= {"cpu", "cuda"}
    return torch.optim.Adam(held, lr=lr, betas=betas, fused=fused, foreach=not fused)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """One step down the gradient of `loss`; returns the loss without its graph.

    Only the optimiser's own parameters get a gradient: a GAN's generator step computes none for
    the critic.
    """
    optimiser.zero_grad()
    loss.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()
    return loss.detach()


def cross_entropy(
    logits: Tensor, target: Tensor, mask: Tensor, temperature: Tensor | None = None
) -> Tensor:
    """The one solver loss: sum over rows of `-target . log softmax((logits + mask) / T)`.

    Rows are weighted by what their target sums to, so a weighted mean of rows is this sum over
    targets that were multiplied by the weights once, outside the step.

    Args:
        logits, target, mask: (N, K); mask is 0 or -1e9.
        temperature: (N, 1), 1 everywhere if not given (Hinton, Vinyals and Dean 2015).
    """
    # mask / T is as good as the mask: what is forbidden stays forbidden
    scaled = logits + mask if temperature is None else torch.addcdiv(mask, logits, temperature)
    return F.cross_entropy(scaled, target, reduction="sum")


# ---------------------------------------------------------------- device, randomness, modes


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is the first accelerator there is, else the CPU.

    Raises:
        ValueError: the device isn't on this machine.
    """
    if name == "auto":
        there = torch.accelerator.is_available() and torch.accelerator.current_accelerator()
        return there or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]  # torch may go on for a page
        raise ValueError(
            f"device '{name}' can't be used here ({reason}): try --device auto"
        ) from None
    return device


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Inside, the modules are in eval mode and no gradient is kept; then as they were."""
    modes = [(part, part.training) for m in modules for part in m.modules()]
    for m in modules:
        m.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:  # each part its own: a frozen batch norm stays frozen
            part.training = mode


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Inside, a step is as quick late as early, and the same each time: results below 1e-38 become
    0 on this thread, and cuDNN is told to be deterministic. Then all is as before.

    The mean gradient that Adam keeps of a unit that died shrinks by a tenth a step, and stays for
    good among the denormal numbers below 1e-38, with which a CPU is many times slower. Threads
    that are born inside flush too; those of torch's pool that were there before don't.
    """
    tiny = torch.tensor(1e-39, device="cpu")  # wherever torch makes its tensors by default
    before = float(tiny * 1) == 0
    torch.set_flush_denormal(True)
    exact, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
        torch.backends.cudnn.deterministic = exact
