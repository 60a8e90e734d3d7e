"""Train the scholars that dream on the book's site: `python book/dreamer/train.py`.

One scholar learns split MNIST, two digits at a time in their own order. Its decoder and its solver
at each task's end are kept with 8 bits a weight in `scholars.json`, beside what they were made by
and a few dreams that they had at full precision, for tests; `dreams.png` is what the page shows to
those who have no JavaScript. It takes minutes on one core.
"""

from __future__ import annotations

import base64
import copy
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genreplay_core import Config, accuracy, plots, run
from genreplay_core.experiment import Run
from genreplay_core.files import write_json
from genreplay_core.generators import dream
from genreplay_core.nets import evaluating, mlp

HERE = Path(__file__).resolve().parent
CONFIG = Config(
    dataset="mnist",
    replay="conditional",
    class_order=tuple(range(10)),
    hidden=100,
    generator_hidden=192,  # so that all of it is less than 2 MB, base64 and all
    latent_dim=16,
    jitter=1,
    seed=2,
)
SLIDERS = 4  # latents that the page lets one move

Layer = dict[str, str]


# ---------------------------------------------------------------- 8 bits a weight


def text(numbers: Tensor) -> str:
    """The bytes of a tensor, the least significant first, as base64."""
    array = numbers.detach().contiguous().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def numbers(told: str, kind: str) -> Tensor:
    """What `text` made of a flat tensor of that kind of numbers, such as "int8"."""
    array = np.frombuffer(base64.b64decode(told), np.dtype(kind).newbyteorder("<"))
    return torch.from_numpy(array.astype(kind))


def quantised(network: nn.Module) -> list[Layer]:
    """The linear layers of a perceptron, weights as whole numbers in -127..127 and a scale for each
    row, that is, for each unit. Biases are kept as they are."""
    layers = [part for part in network.modules() if isinstance(part, nn.Linear)]
    return [quantised_layer(layer.weight, layer.bias) for layer in layers]


def quantised_layer(weight: Tensor, bias: Tensor) -> Layer:
    """weight (o, i), bias (o,)."""
    scale = weight.abs().amax(1).clamp(min=1e-12) / 127  # (o,)
    whole = (weight / scale.unsqueeze(1)).round().to(torch.int8)
    return {"weight": text(whole), "scale": text(scale), "bias": text(bias)}


def restored(layers: Iterable[Layer]) -> nn.Sequential:
    """The perceptron of quantised layers: (N, inputs) -> (N, outputs)."""
    found = []
    for layer in layers:
        scale = numbers(layer["scale"], "float32")
        weight = numbers(layer["weight"], "int8").view(len(scale), -1)
        found.append((weight * scale.unsqueeze(1), numbers(layer["bias"], "float32")))
    network = mlp([found[0][0].shape[1], *(len(bias) for _, bias in found)])
    linear = [part for part in network if isinstance(part, nn.Linear)]
    with torch.no_grad():
        for part, (weight, bias) in zip(linear, found, strict=True):
            part.weight.copy_(weight)
            part.bias.copy_(bias)
    return network


def frozen(generator: Any, solver: nn.Module) -> dict[str, Any]:
    """All that the page needs to dream and to label."""
    mean, logvar = generator.prior.chunk(2, 1)  # (classes, latent_dim)
    return {
        "mean": text(mean),
        "deviation": text((0.5 * logvar).exp()),
        "decoder": quantised(generator.decoder),
        "solver": quantised(solver),
    }


# ---------------------------------------------------------------- dreams that can be dreamt again


def uniform(seed: int, n: int) -> list[float]:
    """n numbers in [0, 1) of the generator mulberry32, which takes a browser a few lines."""
    found, state = [], seed
    for _ in range(n):
        state = (state + 0x6D2B79F5) % 2**32
        t = (state ^ state >> 15) * (state | 1) % 2**32
        t ^= (t + (t ^ t >> 7) * (t | 61)) % 2**32
        found.append((t ^ t >> 14) / 2**32)
    return found


def latents(number: int, n: int) -> list[float]:
    """The n latents of the page's dream of that number: normal (Box and Muller 1958), in tenths as
    its sliders go, within -3..3. Number 0 is the most typical dream: its latents are 0."""
    if number == 0:
        return [0.0] * n
    u = uniform(number, 2 * n)
    pairs = zip(u[::2], u[1::2], strict=True)
    normal = [math.sqrt(-2 * math.log(1 - a)) * math.cos(2 * math.pi * b) for a, b in pairs]
    return [max(-30, min(30, math.floor(10 * z + 0.5))) / 10 for z in normal]


@torch.no_grad()
def strongest(generator: Any, n: int) -> list[int]:
    """The n latents that change most in the images when they go from -1 to 1."""
    classes, size = generator.code.classes, generator.latent_dim
    y = torch.arange(classes).repeat(20)  # (N,)
    z = torch.tensor([latents(1 + i, size) for i in range(len(y))])
    ends = torch.eye(size)
    moved = [
        dream(generator, z * (1 - end) + end, y) - dream(generator, z * (1 - end) - end, y)
        for end in ends
    ]
    effect = torch.stack([change.abs().mean() for change in moved])
    return effect.topk(n).indices.tolist()


# ---------------------------------------------------------------- one run, and what is kept of it


class Keeper:
    """Keeps what a run's networks were when each task ended."""

    def __init__(self) -> None:
        self.networks: list[tuple[Any, nn.Module]] = []
        self.kept: list[dict[str, Any]] = []
        self.matrix: list[list[float]] = []

    def __call__(self, work: Run) -> None:
        pair = work.scholar.generator, work.scholar.solver
        self.networks.append(copy.deepcopy(pair))
        self.kept.append(frozen(*pair))
        solver = nn.Sequential(nn.Flatten(), restored(self.kept[-1]["solver"]))
        tasks = range(len(work.stream))
        self.matrix.append([accuracy(solver, work.test(t), work.legend) for t in tasks])


def reference(
    networks: tuple[Any, nn.Module], task: int, digit: int, z: list[float]
) -> dict[str, Any]:
    """What networks of full precision dream and answer: pixels as bytes, and probabilities."""
    generator, solver = networks
    x = dream(generator, torch.tensor([z]), torch.tensor([digit]))
    with evaluating(solver):
        answer = solver(x).softmax(1)[0]
    return {
        "task": task,
        "digit": digit,
        "latents": z,
        "pixels": text((255 * x).round().byte()),
        "probabilities": [round(p, 6) for p in answer.tolist()],
    }


def references(networks: list[tuple[Any, nn.Module]], sliders: list[int]) -> list[dict[str, Any]]:
    """Of each task's end the digits 0 and the last one met, as dreams 1 and 2; then the typical 4
    of the third, and the same with the first slider up by 1 and the second down by 2."""
    size = networks[0][0].latent_dim
    asked = [(t, digit, n) for t in range(len(networks)) for digit, n in ((0, 1), (2 * t + 1, 2))]
    found = [
        {"dream": n, **reference(networks[t], t, digit, latents(n, size))} for t, digit, n in asked
    ]
    moved = [0.0] * size
    moved[sliders[0]], moved[sliders[1]] = 1.0, -2.0
    ends = ([0.0] * size, moved)
    return found + [{"dream": 0, **reference(networks[2], 2, 4, z)} for z in ends]


def drift(networks: list[tuple[Any, nn.Module]]) -> list[dict[str, Any]]:
    """Of dreams 1 to 3 of each digit met, after each task: how many there are, how many the solver
    reads as the digit asked for, and how much a pixel has changed since they were first dreamt."""
    size, first, found = networks[0][0].latent_dim, torch.empty(0), []
    for t, (generator, solver) in enumerate(networks):
        y = torch.arange(2 * (t + 1)).repeat_interleave(3)  # (met,)
        z = torch.tensor([latents(1 + i % 3, size) for i in range(len(y))])
        now = dream(generator, z, y)
        first = torch.cat([first, now[len(first) :]])
        with evaluating(solver):
            right = int((solver(now).argmax(1) == y).sum())
        changed = float((now - first).abs().mean())
        found.append({"dreams": len(y), "right": right, "changed": changed})
    return found


def picture(networks: list[tuple[Any, nn.Module]], names: list[str]) -> Any:
    """The same two dreams of each digit met, after each task."""
    size, strips = networks[0][0].latent_dim, []
    z = torch.tensor([latents(1 + i % 2, size) for i in range(20)])
    for t, (generator, _) in enumerate(networks):
        met = 4 * (t + 1)  # dreams, two of each digit
        y = torch.arange(20)[:met] // 2
        strips.append((f"after {names[t]}", dream(generator, z[:met], y)))
    return plots.dreams(strips)


def make(config: Config, folder: Path) -> None:
    """Run, and write `scholars.json` and `dreams.png`."""
    keeper = Keeper()
    record = run(config, device="cpu", after_task=keeper)
    sliders = strongest(keeper.networks[-1][0], SLIDERS)
    told = ("config", "environment", "seconds", "tasks", "accuracy_matrix", "average_accuracy")
    write_json(
        folder / "scholars.json",
        {
            "command": "python book/dreamer/train.py",
            **{name: record[name] for name in told},
            "quantised_accuracy_matrix": keeper.matrix,
            "sliders": sliders,
            "references": references(keeper.networks, sliders),
            "drift": drift(keeper.networks),
            "scholars": keeper.kept,
        },
    )
    plots.save(picture(keeper.networks, record["tasks"]), folder / "dreams.png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(CONFIG, HERE)
