"""Examples, tasks and streams of tasks, in the three scenarios of continual learning.

A stream is a sequence of tasks that a learner meets one after the other. Whether it is task-,
domain- or class-incremental is not a mode of the learner: it is written in the stream's `Legend`,
which says, for every class of every task, what the solver should answer and which of its outputs
compete. Every solver loss in this library is therefore the same line,
`cross_entropy(solver(x) + mask, target)`, and no other module asks which scenario it is in.

    stream = split(load("digits"), tasks=5, scenario="class", seed=3)
    for task in stream:
        learner.train_task(task.train, task.id)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as images

from .seeds import mixed

FORBIDDEN = -1e9  # finite, because 0 * -inf is nan and a target of 0 must stay 0
SCENARIOS = ("task", "domain", "class")


@dataclass(frozen=True)
class Examples:
    """Images with one integer each.

    x: (N, *shape), uint8 in 0..255 or float in [0, 1].
    y: (N,) int64. The class label in a data set; the class code (see `Legend`) in a task.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> Examples:
        return Examples(self.x[rows], self.y[rows])

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on `device`, pixels as float in [0, 1]."""
        return Examples(as_float(self.x.to(device)), self.y.to(device))


def joined(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts, one part after the other."""
    return Examples(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


Pair = tuple[Examples, Examples]  # training and test examples of one data set


@dataclass(frozen=True)
class Legend:
    """What each class code means to the solver.

    A code numbers one class of one task: `code = task * classes_per_task + class_within_task`.

    target: (C, K) float, row c is the answer wanted for code c (a one-hot row).
    mask: (C, K) float, 0 where an output competes and -1e9 where it doesn't.
    """

    target: Tensor
    mask: Tensor

    @property
    def codes(self) -> int:
        """C, the number of class codes in the whole stream."""
        return self.target.shape[0]

    @property
    def outputs(self) -> int:
        """K, the number of outputs that the solver needs."""
        return self.target.shape[1]

    def to(self, device: torch.device | str) -> Legend:
        return Legend(self.target.to(device), self.mask.to(device))


class Data(NamedTuple):
    """Rows that a solver and a generator learn from: real, replayed, or both.

    x: (N, *shape) float in [0, 1].
    y: (N, K) float, the wanted distribution over the outputs (one-hot, or soft).
    mask: (N, K) float, added to the outputs: 0 or -1e9.
    code: (N,) int64, the class code, which a conditional generator is told.
    temperature: (N, 1) float, what the outputs are divided by in the loss (1 for hard labels).
    z: (n, latent_dim) float, the noise from which the last n rows were dreamt, if it is told.
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    code: Tensor
    temperature: Tensor
    z: Tensor | None = None


def labelled(examples: Examples, legend: Legend) -> Data:
    """Examples with the answers that the legend wants for their codes."""
    code = examples.y
    ones = torch.ones(len(code), 1, device=examples.x.device)
    return Data(examples.x, legend.target[code], legend.mask[code], code, ones)


@dataclass(frozen=True)
class Task:
    """One task of a stream. Its examples are built each time they are asked for, so that a
    hundred permutations of MNIST need the memory of one."""

    id: int
    name: str
    build: Callable[[int, int], Examples]  # (task, 0 for training or 1 for test) -> examples

    @property
    def train(self) -> Examples:
        """Training examples, y holding class codes."""
        return self.build(self.id, 0)

    @property
    def test(self) -> Examples:
        """Test examples, y holding class codes."""
        return self.build(self.id, 1)


@dataclass(frozen=True)
class Stream:
    """A sequence of tasks: `len(stream)`, `stream[2].train`, `for task in stream`."""

    names: tuple[str, ...]
    shape: tuple[int, ...]  # of one image
    legend: Legend
    build: Callable[[int, int], Examples]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, task: int) -> Task:
        return Task(range(len(self))[task], self.names[task], self.build)

    def __iter__(self) -> Iterator[Task]:
        return (self[i] for i in range(len(self)))


# ---------------------------------------------------------------- what a learner is given


def as_float(x: Tensor) -> Tensor:
    """Pixels as float in [0, 1]: bytes are divided by 255, floats are left as they are."""
    return x / 255 if x.dtype == torch.uint8 else x.float()


def gather(source: Examples | tuple | Dataset | Iterable) -> Examples:
    """Read any source of labelled images into memory, checked.

    Args:
        source: `Examples`; a pair of tensors or arrays `(x, y)`; a torchvision-style data set
            whose items are `(image, label)`; a DataLoader or any other iterable of batches
            `(x, y)`.

    Raises:
        ValueError: if there is no example, or pixels or labels are not what `checked` wants.
    """
    if isinstance(source, Examples):
        return checked(source)
    if isinstance(source, tuple) and len(source) == 2 and hasattr(source[0], "shape"):
        return checked(Examples(*(torch.as_tensor(part) for part in source)))
    if isinstance(source, Dataset) and not isinstance(source, torch.utils.data.IterableDataset):
        source = DataLoader(source, batch_size=1024, collate_fn=_collate)
    try:
        batches = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in source]
        parts = [torch.cat(part) for part in zip(*batches, strict=True)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"give (x, y), or batches of such pairs: {error}") from error
    if not parts:
        raise ValueError("the task is empty: give at least one batch of (x, y)")
    return checked(Examples(*parts))


def _collate(items: list[tuple[Any, Any]]) -> tuple[Tensor, Tensor]:
    x = [i if torch.is_tensor(i) else images.pil_to_tensor(i) for i, _ in items]
    return torch.stack(x), torch.stack([torch.as_tensor(y) for _, y in items])


def checked(examples: Examples) -> Examples:
    """The examples, x as uint8 or float32 and y as int64, or one line that says what is wrong.

    Raises:
        ValueError: no example, or no pixel; as many labels as images are wanted; labels not integer
            or below 0; pixels that are nan or outside [0, 1] (uint8 needs no check).
    """
    x, y = examples.x, examples.y
    if x.numel() == 0 or x.dim() == 0:
        raise ValueError("the task is empty: give at least one example, of at least one pixel")
    if y.shape != (len(x),):
        raise ValueError(
            f"labels have shape {tuple(y.shape)}, expected ({len(x)},): one integer an image"
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"labels are {y.dtype}, expected integers: use y.long()")
    examples = Examples(x if x.dtype == torch.uint8 else x.float(), y.long())
    if x.device.type != "meta":
        _check_values(examples.x, examples.y)
    return examples


def _check_values(x: Tensor, y: Tensor) -> None:
    if int(y.min()) < 0:
        raise ValueError(f"label {int(y.min())} is out of range: labels start at 0")
    if x.dtype == torch.uint8:
        return
    if not torch.isfinite(x).all():
        raise ValueError("images contain nan or infinity: clean them before training")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"pixels lie in [{low:.3g}, {high:.3g}], expected [0, 1]: "
            "divide bytes by 255 and leave out normalisation"
        )


# ---------------------------------------------------------------- scenarios and streams


def identity(outputs: int) -> Legend:
    """The legend of plain class labels: code = label = output, all outputs compete."""
    return Legend(torch.eye(outputs), torch.zeros(outputs, outputs))


def legend_for(scenario: str, tasks: int, classes: int) -> Legend:
    """The legend of a stream of `tasks` tasks with `classes` classes each.

    The three scenarios of van de Ven, Tuytelaars and Tolias (2022), Nature Machine Intelligence:

    * class: K = tasks * classes; every output competes. Which task it is must be found out too.
    * task: K = tasks * classes; only the outputs of the image's own task compete.
    * domain: K = classes; the same outputs mean the same thing in every task.
    """
    total = tasks * classes
    if scenario == "class":
        return identity(total)
    if scenario == "domain":
        return Legend(torch.eye(classes).repeat(tasks, 1), torch.zeros(total, classes))
    if scenario == "task":
        own = torch.block_diag(*[torch.ones(classes, classes)] * tasks)
        return Legend(torch.eye(total), (1 - own) * FORBIDDEN)
    raise ValueError(f"unknown scenario '{scenario}': choose one of {', '.join(SCENARIOS)}")


def _rng(*seed: int) -> torch.Generator:
    """A random number generator of its own for each tuple of whole numbers."""
    return torch.Generator().manual_seed(mixed(*seed))


def _classes(pair: Pair) -> int:
    return int(max(part.y.max() for part in pair)) + 1


def few(examples: Examples, per_class: int, seed: int = 0) -> Examples:
    """At most `per_class` random examples of each class."""
    order = torch.randperm(len(examples), generator=_rng(seed))
    y = examples.y[order]
    return examples[torch.cat([order[y == c][:per_class] for c in y.unique()])]


def jitter(x: Tensor, pixels: int) -> Tensor:
    """Shift each image by up to so many pixels up or down and left or right, all shifts alike
    likely; what comes in at an edge is 0. x: (N, c, h, w)."""
    n, _, height, width = x.shape
    down, right = torch.randint(2 * pixels + 1, (2, n, 1), device=x.device)
    rows = (down + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (right + torch.arange(width, device=x.device))[:, None, None, :]
    image = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[:, None, None]
    return functional.pad(x, [pixels] * 4)[image, channel, rows, columns]


def held_out(train: Examples, fraction: float) -> Pair:
    """Training examples as (training, validation) examples, the same ones at every call.

    Args:
        fraction: how many of all are for validation, in (0, 1), drawn at random.
    """
    order = torch.randperm(len(train), generator=_rng(0))
    cut = round(len(train) * fraction)
    return train[order[cut:]], train[order[:cut]]


def split(
    pair: Pair, tasks: int, scenario: str, seed: int = 0, order: Iterable[int] | None = None
) -> Stream:
    """Cut the classes of a data set into tasks of equal size.

    Args:
        pair: training and test examples, each whatever `gather` reads.
        tasks: how many; must divide the number of classes.
        scenario: "task", "domain" or "class".
        seed: draws the order in which the classes come.
        order: the order itself, each class once, instead of a random one.

    Raises:
        ValueError: the tasks don't divide the classes; `order` is not a permutation of them; a
            task has no example to learn from or to be tested with.
    """
    pair = (gather(pair[0]), gather(pair[1]))
    classes = _classes(pair)
    if tasks < 1 or classes % tasks:
        raise ValueError(
            f"{classes} classes can't be cut into {tasks} equal tasks: choose a divisor"
        )
    turn = torch.randperm(classes, generator=_rng(seed)).tolist() if order is None else list(order)
    if sorted(turn) != list(range(classes)):
        raise ValueError(f"the class order must name each of 0..{classes - 1} once, got {turn}")
    each = classes // tasks
    code_of = torch.tensor(turn).argsort()  # (classes,) label -> code

    def build(task: int, part: int) -> Examples:
        code = code_of[pair[part].y]
        mine = code // each == task
        return Examples(as_float(pair[part].x[mine]), code[mine])

    names = tuple(" ".join(str(c) for c in turn[i : i + each]) for i in range(0, classes, each))
    _check_there(pair, code_of // each, names)
    return Stream(names, _shape(pair), legend_for(scenario, tasks, each), build)


def _check_there(pair: Pair, task_of: Tensor, names: tuple[str, ...]) -> None:
    """See that every task has examples. task_of: (classes,) the task of each label."""
    for examples, part in zip(pair, ("training", "test"), strict=True):
        there = task_of[examples.y].bincount(minlength=len(names))
        if not there.all():
            task = int(there.argmin())
            raise ValueError(f"task {task} (classes {names[task]}) has no {part} example")


def _shape(pair: Pair) -> tuple[int, ...]:
    return tuple(pair[0].x.shape[1:])


def _transformed(
    pair: Pair, names: Iterable[str], scenario: str, change: Callable[[int, Tensor], Tensor]
) -> Stream:
    """The same classes in every task, the images changed by `change(task, x)`."""
    pair = (gather(pair[0]), gather(pair[1]))
    names, classes = tuple(names), _classes(pair)
    if not names:
        raise ValueError("a stream needs at least one task")

    def build(task: int, part: int) -> Examples:
        examples = pair[part]
        return Examples(change(task, as_float(examples.x)), examples.y + task * classes)

    return Stream(names, _shape(pair), legend_for(scenario, len(names), classes), build)


def permuted(pair: Pair, tasks: int, scenario: str, seed: int = 0) -> Stream:
    """Task 0 as it is; in each later task all pixels change places, in one fixed random way."""

    def change(task: int, x: Tensor) -> Tensor:
        pixels = math.prod(x.shape[1:])
        order = torch.randperm(pixels, generator=_rng(seed, task))
        return x if task == 0 else x.flatten(1)[:, order].view(x.shape)

    return _transformed(pair, [f"permutation {i}" for i in range(tasks)], scenario, change)


def rotated(pair: Pair, tasks: int, scenario: str, degrees: float = 180.0) -> Stream:
    """Task t turns every image by `t / tasks * degrees` degrees, anticlockwise."""
    angles = [degrees * i / tasks for i in range(tasks)]

    def change(task: int, x: Tensor) -> Tensor:
        bilinear = images.InterpolationMode.BILINEAR
        return images.rotate(x, angles[task], interpolation=bilinear).clamp(0, 1)  # it rounds

    return _transformed(pair, [f"{a:g} degrees" for a in angles], scenario, change)


def repeated(pair: Pair, tasks: int, scenario: str) -> Stream:
    """The same examples in every task: for a chain of scholars, each taught by the last."""
    names = [f"generation {i + 1}" for i in range(tasks)]
    return _transformed(pair, names, scenario, lambda task, x: x)


def domains(pairs: dict[str, Pair], scenario: str) -> Stream:
    """One data set after the other, resized to the first one's shape.

    Args:
        pairs: name -> (training, test), in the order in which they are met. All have as many
            classes as the first; grey images are repeated over colours, colours are averaged
            into grey, sizes change bilinearly.
    """
    if not pairs:
        raise ValueError("a stream needs at least one task")
    parts = [(gather(train), gather(test)) for train, test in pairs.values()]
    shape, counts = _shape(parts[0]), [_classes(p) for p in parts]
    if len(set(counts)) > 1:
        raise ValueError(f"the data sets have {counts} classes, expected the same in each")

    def build(task: int, part: int) -> Examples:
        examples = parts[task][part]
        return Examples(_fitted(as_float(examples.x), shape), examples.y + task * counts[0])

    return Stream(tuple(pairs), shape, legend_for(scenario, len(pairs), counts[0]), build)


def _fitted(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images (N, c, h, w) as (N, *shape), still in [0, 1]."""
    if x.shape[1:] == shape:
        return x
    if shape[0] == 1:
        x = x.mean(1, keepdim=True)
    x = x.expand(-1, shape[0], -1, -1)
    return images.resize(x, list(shape[1:]), antialias=True).clamp(0, 1)
