"""What an experiment is: a `Config`, and what its names stand for.

    config = Config(dataset="mnist", replay="conditional", steps=2000, seed=3)
    stream = build_stream(config)
    scholar = build_scholar(config, stream)

Everything that a name can mean stands in the tables below; to add a strategy or a generator, add a
line.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from . import data, generators, nets, replay
from .adapt import optimisers
from .data import Pair, Stream, domains, few, held_out, jitter, permuted, repeated, rotated, split
from .datasets import load
from .learner import GenerativeReplay
from .regularisers import EWC, SI, Regulariser
from .replay import ByCode, Hard, Label, Soft, Strategy
from .seeds import seeded

STREAMS = ("split", "permuted", "rotated", "repeated", "domains")

SOLVERS: dict[str, Callable[..., nn.Module]] = {
    "mlp": nets.mlp_solver,
    "conv": nets.conv_solver,
}

GENERATORS: dict[str, Callable[..., nn.Module]] = {
    "vae": generators.mlp_vae,
    "conv-vae": generators.conv_vae,
    "wgan": generators.mlp_wgan,
    "conv-wgan": generators.conv_wgan,
    "flow": generators.mlp_flow,
}

REGULARISERS: dict[str, Callable[..., Regulariser]] = {"ewc": EWC, "si": SI}

ABOVE_ZERO = (
    *("tasks", "steps", "epochs", "generator_steps", "batch", "per_class", "lr", "temperature"),
    "train_examples",
    "snapshot_every",
    *("generator_lr", "spread", "sharpen"),
    *("hidden", "generator_hidden", "latent_dim", "critic_steps", "best_of"),
)
NOT_BELOW_ZERO = ("jitter", "replay_ratio", "strength", "curve_every", "seed")
AT_MOST_ONE = ("importance", "generator_importance", "blur")
PARTS = ("average", "generator_average", "validation")
DREAMT = ("spread", "sharpen", "best_of")  # what `Generative` is told of its dreams, usually 1

SIZES = {  # of a generator: option -> what its constructor calls it
    "latent_dim": "latent_dim",
    "critic_steps": "critic_steps",
    "generator_hidden": "hidden",
}

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Arm:
    """What a `--replay` name stands for.

    about: one line for the help. strategy: (labels, config) -> Strategy. labels: its own default.
    dreams: does it need a generator; conditional: one that is told the class. coded: do its rows'
    codes tell the class, so that they may serve as labels? cumulative: is task t given the budget
    of t tasks?
    """

    about: str
    strategy: Callable[[Label, Config], Strategy]
    labels: str = "soft"
    dreams: bool = False
    conditional: bool = False
    coded: bool = False
    cumulative: bool = False


def _dreaming(label: Label, config: Config) -> Strategy:
    chosen = {name: getattr(config, name) for name in DREAMT}
    return replay.generative(label, bool(config.align), **chosen)


def _stored(label: Label, config: Config) -> Strategy:
    return replay.stored(config.per_class, label)


def _plain(make: Callable[[Label], Strategy]) -> Callable[[Label, Config], Strategy]:
    return lambda label, config: make(label)


REPLAYS: dict[str, Arm] = {
    "none": Arm("rehearse nothing", lambda label, config: replay.none()),
    "generative": Arm("dreams of a generator (Shin et al. 2017)", _dreaming, dreams=True),
    "conditional": Arm(
        "dreams of a generator that is told the class, all classes alike",
        _dreaming,
        dreams=True,
        conditional=True,
        coded=True,
    ),
    "stored": Arm("--per-class stored examples of each class", _stored, "code", coded=True),
    "exact": Arm(
        "all past examples, labelled by the old solver", _plain(replay.exact), "hard", coded=True
    ),
    "noise": Arm("Gaussian noise, labelled by the old solver", _plain(replay.noise)),
    "current": Arm("the new examples, labelled by the old solver (LwF)", _plain(replay.current)),
    "joint": Arm(
        "all past examples, the solver anew at each task with the budget of all: the upper bound",
        _plain(replay.joint),
        "code",
        coded=True,
        cumulative=True,
    ),
    "generative+current": Arm(
        "half dreams, half the new examples, labelled by the old solver",
        _plain(replay.generative_and_current),
        dreams=True,
    ),
    "sketch": Arm(
        "mistakes together: nothing is frozen, the generator rehearses nothing",
        _plain(replay.sketch),
        "hard",
        dreams=True,
    ),
    "live": Arm(
        "mistake: dreams and labels of the networks being trained",
        _plain(replay.live),
        "hard",
        dreams=True,
    ),
    "forgetful-generator": Arm(
        "mistake: only the solver rehearses", _plain(replay.forgetful_generator), dreams=True
    ),
}


@dataclass(frozen=True)
class Config:
    """All that a run depends on. `None` stands for a default that follows from the rest and is
    filled in at once, so that a config always says what is used.

    dataset: a name of `datasets.load`, or several joined by "+" for a stream of domains, where
        each makes a task.
    stream: "split", "permuted", "rotated", "repeated" or "domains"; tasks: how many;
        scenario: "task", "domain" or "class".
    replay, generator, solver: names from the tables above.
    labels: "hard", "soft" (at `temperature`) or "code"; by default what the strategy uses.
    steps, generator_steps: budgets for each task; epochs: instead of steps.
    importance: r, or None for 1/t; generator_importance: the generator's, if it is to differ.
    replay_ratio: replayed rows per new row.
    align, spread, sharpen, best_of: see `replay.Generative`; conditional replay aligns by default.
    anew: does each task begin with untrained networks?
    per_class: stored examples a class, for `replay="stored"`.
    class_order: instead of a random order by `seed`.
    hidden: width of the hidden layers of perceptrons; generator_hidden: of the generator's, if it
        is to differ. latent_dim, critic_steps: of the generator;
        None keeps its own default. lr, generator_lr: learning rates of Adam.
    regulariser: "ewc", "si" or None, with its strength.
    task_free: tell the learner nothing of tasks; it freezes itself every `snapshot_every` batches.
    blur: the part of a task's time in which it passes into the next, if task_free.
    average, generator_average, lr_end: see `GenerativeReplay`.
    validation: the part of the training examples that is held out and judged by, instead of the
        test set: for choosing settings.
    curve_every: steps between the points of the curve within a task; 0 for none. Where
        the generator learns on alone, the curve goes on too, flat and with fewer points.
    quality: judge the dreams after each task. privacy: attack the scholar at the end.
    jitter: pixels by which the solver's images are shifted, at most, see `data.jitter`.
    train_examples: training examples of each class, a random choice; None for all.
    """

    dataset: str = "digits"
    stream: str = "split"
    tasks: int = 5
    scenario: str = "class"
    replay: str = "conditional"
    generator: str = "vae"
    solver: str = "mlp"
    labels: str | None = None
    temperature: float = 4.0
    steps: int | None = None
    epochs: float | None = None
    generator_steps: int | None = None
    batch: int = 128
    importance: float | None = None
    generator_importance: float | None = None
    replay_ratio: float = 1.0
    align: bool | None = None
    spread: float = 1.0
    sharpen: float = 1.0
    best_of: int = 1
    anew: bool = False
    per_class: int = 100
    class_order: tuple[int, ...] | None = None
    hidden: int | None = None
    generator_hidden: int | None = None
    latent_dim: int | None = None
    critic_steps: int | None = None
    lr: float = 1e-3
    generator_lr: float | None = None
    regulariser: str | None = None
    strength: float | None = None
    reset_optimisers: bool = False
    average: float = 0.0
    generator_average: float = 0.0
    lr_end: float = 1.0
    task_free: bool = False
    blur: float = 0.0
    snapshot_every: int = 500
    precision: str = "float32"
    validation: float = 0.0
    curve_every: int = 0
    quality: bool = False
    privacy: bool = False
    train_examples: int | None = None
    jitter: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_kinds(self)
        _known("stream", self.stream, STREAMS)
        _known("scenario", self.scenario, data.SCENARIOS)
        _known("replay", self.replay, REPLAYS)
        _known("generator", self.generator, GENERATORS)
        _known("solver", self.solver, SOLVERS)
        _known("precision", self.precision, PRECISIONS)
        if self.regulariser is not None:
            _known("regulariser", self.regulariser, REGULARISERS)
        small = self.dataset == "digits"
        usual: dict[str, Any] = {
            "labels": REPLAYS[self.replay].labels,
            "align": REPLAYS[self.replay].conditional,
            "hidden": 200 if small else 400,
        }
        if self.epochs is None:
            usual["steps"] = 300 if small else 2000
        for name, value in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.stream == "domains":
            object.__setattr__(self, "tasks", len(self.dataset.split("+")))
        self._check()

    def _check(self) -> None:
        _known("labels", self.labels or "", ("hard", "soft", "code"))
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give a budget in steps or in epochs, not both")
        _check_replay(self)
        if self.regulariser is not None and build_strategy(self).anew:
            raise ValueError("a regulariser holds weights, which here begin anew: leave out one")
        if self.task_free:
            _check_task_free(self)
        _check_numbers(self)


def _check_kinds(config: Config) -> None:
    """See that each option is a text, a number, ..., as its annotation has it."""
    kinds = {"float": (int, float), "int": (int,), "str": (str,), "bool": (bool,)}
    for f in fields(config):
        kind, value = str(f.type), getattr(config, f.name)
        fitting = kinds.get(kind.removesuffix(" | None"), (tuple, list))
        if type(value) not in fitting and not (value is None and kind.endswith("None")):
            raise ValueError(f"{f.name} is {value!r}, expected {fitting[-1].__name__}")


def _check_replay(config: Config) -> None:
    arm = REPLAYS[config.replay]
    if config.labels == "code" and not arm.coded:
        raise ValueError(
            f"replay '{config.replay}' doesn't know its rows' classes: leave out labels 'code'"
        )
    if config.labels == "code" and config.best_of > 1:
        raise ValueError("best_of asks the old solver, and labels 'code' doesn't: leave out one")
    if config.align and not arm.conditional:
        raise ValueError("align needs a conditional generator: use replay 'conditional'")
    if config.privacy and not arm.dreams and build_strategy(config).stored == 0:
        raise ValueError("privacy is measured of dreams or of stored examples: there are none")
    if arm.dreams:
        _check_dreams(config)


def _check_dreams(config: Config) -> None:
    """What is asked of a generator or of its dreams must be heard."""
    takes = inspect.signature(GENERATORS[config.generator]).parameters
    for name, own in SIZES.items():
        if getattr(config, name) is not None and own not in takes:
            raise ValueError(f"generator '{config.generator}' has no {name}: leave it out")
    rehearsed = build_strategy(config).solver
    for name in DREAMT:
        value = getattr(config, name)
        if value != 1 and getattr(rehearsed, name, 1) != value:
            raise ValueError(f"replay '{config.replay}' dreams without {name}: leave it out")


def _check_task_free(config: Config) -> None:
    if config.tasks < 2 or config.steps is None:
        raise ValueError("task_free needs two tasks or more, and a budget in steps")
    ends = ("generator_steps", "regulariser", "average", "generator_average", "lr_end")
    for name in ends:
        if getattr(config, name) != getattr(Config, name):
            raise ValueError(f"{name} needs the ends of tasks: leave it out, or task_free")
    if build_strategy(config).stored != 0:
        raise ValueError(
            f"replay '{config.replay}' stores at the ends of tasks: leave out task_free"
        )


def _check_numbers(config: Config) -> None:
    wanted: list[tuple[tuple[str, ...], Callable[[float], bool], str]] = [
        (ABOVE_ZERO, lambda v: 0 < v < math.inf, "be above 0"),
        (NOT_BELOW_ZERO, lambda v: 0 <= v < math.inf, "be 0 or more"),
        (PARTS, lambda v: 0 <= v < 1, "lie in [0, 1)"),
        (AT_MOST_ONE, lambda v: 0 <= v <= 1, "lie in [0, 1]"),
        (("lr_end",), lambda v: 0 < v <= 1, "lie in (0, 1]"),
    ]
    for names, fits, what in wanted:
        for name in names:
            if (value := getattr(config, name)) is not None and not fits(value):
                raise ValueError(f"{name} must {what}, got {value}")


def _known(what: str, name: str, names: Any) -> None:
    if name not in names:
        raise ValueError(f"unknown {what} '{name}': choose one of {', '.join(names)}")


# ---------------------------------------------------------------- building


def build_stream(config: Config) -> Stream:
    """The stream that a config describes.

    Raises:
        ValueError: unknown data set, tasks that don't divide the classes, and so on.
    """
    names = config.dataset.split("+")
    if len(names) > 1 and config.stream != "domains":
        raise ValueError(f"several data sets ({config.dataset}) make a stream of domains only")
    if len(set(names)) < len(names):
        raise ValueError(f"'{config.dataset}' repeats itself: name each data set once")
    pairs: dict[str, Pair] = {name: load(name) for name in names}
    if (n := config.train_examples) is not None:
        pairs = {name: (few(pair[0], n, config.seed), pair[1]) for name, pair in pairs.items()}
    if config.validation:
        pairs = {name: held_out(pair[0], config.validation) for name, pair in pairs.items()}
    if config.stream == "domains":
        return domains(pairs, config.scenario)
    kinds: dict[str, Callable[..., Stream]] = {
        "split": partial(split, seed=config.seed, order=config.class_order),
        "permuted": partial(permuted, seed=config.seed),
        "rotated": rotated,
        "repeated": repeated,
    }
    return kinds[config.stream](pairs[names[0]], config.tasks, config.scenario)


def build_label(config: Config) -> Label:
    """How replayed rows are labelled."""
    labels: dict[str | None, Label]
    labels = {"hard": Hard(), "soft": Soft(config.temperature), "code": ByCode()}
    return labels[config.labels]


def build_strategy(config: Config) -> Strategy:
    """What is rehearsed, and how much it counts."""
    strategy = REPLAYS[config.replay].strategy(build_label(config), config)
    if config.importance is not None:
        strategy = replace(strategy, importance=config.importance)
    own, anew = config.generator_importance, strategy.anew or config.anew
    return replace(strategy, generator_importance=own, anew=anew)


def build_scholar(config: Config, stream: Stream, device: str = "auto") -> GenerativeReplay:
    """An untrained scholar for the stream; its weights follow from the seed.

    On a CUDA device `train_task` captures its steps, unless the learning rate changes; a part of
    your own mustn't wait for the device there.
    """
    arm, legend = REPLAYS[config.replay], stream.legend
    with seeded(config.seed, 0):
        build = SOLVERS[config.solver]
        solver = build(stream.shape, legend.outputs, **_taken(build, {"hidden": config.hidden}))
        classes = legend.codes if arm.conditional else None
        generator = _generator(config, stream.shape, classes) if arm.dreams else None
    regulariser = None
    if config.regulariser is not None:
        strength = {} if config.strength is None else {"strength": config.strength}
        regulariser = REGULARISERS[config.regulariser](solver, **strength)
    return GenerativeReplay(
        solver,
        generator,
        device,
        strategy=build_strategy(config),
        legend=stream.legend,
        regulariser=regulariser,
        batch=config.batch,
        lr=config.lr,
        seed=config.seed,
        reset_optimisers=config.reset_optimisers,
        average=config.average,
        generator_average=config.generator_average,
        lr_end=config.lr_end,
        augment=partial(jitter, pixels=config.jitter) if config.jitter else None,
        precision=PRECISIONS[config.precision],
        capture=nets.pick_device(device).type == "cuda" and config.lr_end == 1,
    )


def _generator(config: Config, shape: nets.Shape, classes: int | None) -> nn.Module:
    build = GENERATORS[config.generator]
    sizes = {own: getattr(config, name) for name, own in SIZES.items()}
    sizes["hidden"] = sizes["hidden"] or config.hidden
    generator = build(shape, classes, **_taken(build, sizes))
    if config.generator_lr is not None:
        for _, optimiser in optimisers(generator):
            for group in optimiser.param_groups:
                group["lr"] = config.generator_lr
    return generator


def _taken(build: Callable[..., nn.Module], sizes: dict[str, int | None]) -> dict[str, Any]:
    """Those of the sizes that are given and that such a network has."""
    has = inspect.signature(build).parameters
    return {name: size for name, size in sizes.items() if size is not None and name in has}
