"""An experiment from its description: build, run, record, checkpoint, resume.

    config = Config(dataset="mnist", replay="conditional", steps=2000, seed=3)
    record = run(config, out="runs/conditional-3")
    record["average_accuracy"]

A run follows from its `Config` alone: the same one on the same machine with the same number of
threads gives the same bits, also when it was killed and resumed. Everything that a name can mean
stands in the tables below; to add a strategy or a generator, add a line.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import generators, nets, records, replay
from .data import Examples, Pair, Stream, domains, permuted, rotated, split
from .datasets import load
from .files import write_json
from .generators import sample
from .learner import BLOCK, GenerativeReplay, accuracy
from .metrics import summary
from .quality import Judge, assess, judge
from .records import Record
from .regularisers import EWC, SI
from .replay import ByCode, Hard, Label, Soft, Strategy
from .seeds import mixed, seeded

Progress = Callable[[int, int, float], None]  # (task, tasks, fraction of the task done)

STREAMS = ("split", "permuted", "rotated", "domains")

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

REGULARISERS: dict[str, Callable[..., nn.Module]] = {"ewc": EWC, "si": SI}

ABOVE_ZERO = (
    *("tasks", "steps", "epochs", "generator_steps", "batch", "per_class", "lr", "temperature"),
    *("hidden", "latent_dim", "critic_steps"),
)
NOT_BELOW_ZERO = ("replay_ratio", "strength", "curve_every", "seed")

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
    return replay.generative(label, align=bool(config.align))


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
        _plain(lambda label: replay.joint()),
        "code",
        coded=True,
        cumulative=True,
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
    stream: "split", "permuted", "rotated" or "domains"; tasks: how many; scenario: "task",
        "domain" or "class".
    replay, generator, solver: names from the tables above.
    labels: "hard", "soft" (at `temperature`) or "code"; by default what the strategy uses.
    steps, generator_steps: budgets for each task; epochs: instead of steps.
    importance: r, or None for 1/t. replay_ratio: replayed rows per new row. align: replay
        alignment (see `replay.Generative`), by default for conditional replay.
    per_class: stored examples a class, for `replay="stored"`.
    class_order: instead of a random order by `seed`.
    hidden: width of the hidden layers of perceptrons. latent_dim, critic_steps: of the generator;
        None keeps its own default.
    regulariser: "ewc", "si" or None, with its strength.
    curve_every: steps between the points of the curve within a task; 0 for none.
    quality: judge the dreams after each task.
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
    replay_ratio: float = 1.0
    align: bool | None = None
    per_class: int = 100
    class_order: tuple[int, ...] | None = None
    hidden: int | None = None
    latent_dim: int | None = None
    critic_steps: int | None = None
    lr: float = 1e-3
    regulariser: str | None = None
    strength: float | None = None
    reset_optimisers: bool = False
    precision: str = "float32"
    curve_every: int = 0
    quality: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _known("stream", self.stream, STREAMS)
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
        arm = REPLAYS[self.replay]
        if self.labels == "code" and not arm.coded:
            raise ValueError(
                f"replay '{self.replay}' doesn't know its rows' classes: leave out labels 'code'"
            )
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give a budget in steps or in epochs, not both")
        if self.align and not arm.conditional:
            raise ValueError("align needs a conditional generator: use replay 'conditional'")
        takes = inspect.signature(GENERATORS[self.generator]).parameters
        for name in ("latent_dim", "critic_steps"):
            if arm.dreams and getattr(self, name) is not None and name not in takes:
                raise ValueError(f"generator '{self.generator}' has no {name}: leave it out")
        _check_numbers(self)


def _check_numbers(config: Config) -> None:
    for name in ABOVE_ZERO:
        if not 0 < _given(config, name, 1) < math.inf:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")
    for name in NOT_BELOW_ZERO:
        if not 0 <= _given(config, name, 0) < math.inf:
            raise ValueError(f"{name} must be 0 or more, got {getattr(config, name)}")
    if not 0 < _given(config, "importance", 1) <= 1:
        raise ValueError(f"importance must lie in (0, 1], got {config.importance}")


def _given(config: Config, name: str, default: float) -> float:
    value = getattr(config, name)
    return default if value is None else value


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
    if config.stream == "domains":
        return domains(pairs, config.scenario)
    kinds: dict[str, Callable[..., Stream]] = {
        "split": partial(split, seed=config.seed, order=config.class_order),
        "permuted": partial(permuted, seed=config.seed),
        "rotated": rotated,
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
    return (
        strategy if config.importance is None else replace(strategy, importance=config.importance)
    )


def build_scholar(config: Config, stream: Stream, device: str = "auto") -> GenerativeReplay:
    """An untrained scholar for the stream; its weights follow from the seed."""
    arm, legend = REPLAYS[config.replay], stream.legend
    with seeded(config.seed, 0):
        build = SOLVERS[config.solver]
        solver = build(stream.shape, legend.outputs, **_hidden(build, config))
        generator = None
        if arm.dreams:
            generator = _generator(config, stream.shape, legend.codes if arm.conditional else None)
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
        regulariser=regulariser,  # type: ignore[arg-type]
        batch=config.batch,
        lr=config.lr,
        seed=config.seed,
        reset_optimisers=config.reset_optimisers,
        precision=PRECISIONS[config.precision],
    )


def _generator(config: Config, shape: nets.Shape, classes: int | None) -> nn.Module:
    build = GENERATORS[config.generator]
    asked = {"latent_dim": config.latent_dim, "critic_steps": config.critic_steps}
    given = {name: size for name, size in asked.items() if size is not None}
    return build(shape, classes, **given, **_hidden(build, config))


def _hidden(build: Callable[..., nn.Module], config: Config) -> dict[str, Any]:
    """The width of the hidden layers, for networks that have such a thing."""
    return {"hidden": config.hidden} if "hidden" in inspect.signature(build).parameters else {}


# ---------------------------------------------------------------- running


@dataclass
class State:
    """What a run has found so far: everything in the record that grows."""

    matrix: list[list[float]] = field(default_factory=list)  # rows of the accuracy matrix
    curve: list[dict[str, Any]] = field(default_factory=list)
    quality: list[dict[str, Any]] = field(default_factory=list)
    dreams: list[Tensor] = field(default_factory=list)  # 20 after each task, bytes
    steps: int = 0
    training_seconds: float = 0.0
    seconds: float = 0.0


class Run:
    """A stream, a scholar and what was measured; `step_task` learns the next task."""

    def __init__(self, config: Config, device: str = "auto", stream: Stream | None = None):
        self.config = config
        self.stream = stream or build_stream(config)
        self.scholar = build_scholar(config, self.stream, device)
        self.legend = self.stream.legend.to(self.scholar.device)
        self.state = State()
        # all tests of a short stream stay on the device, a long stream's are built anew
        self.test = lru_cache(maxsize=20)(self._test)
        self.judge: Judge | None = None

    def _test(self, task: int) -> Examples:
        return self.stream[task].test.to(self.scholar.device)

    def accuracies(self, tasks: int) -> list[float]:
        """The solver's accuracy on the first `tasks` tasks."""
        return [accuracy(self.scholar.solver, self.test(t), self.legend) for t in range(tasks)]

    def step_task(self, progress: Progress | None = None) -> None:
        """Learn the next task and measure; the first call measures the untrained solver too."""
        begun, state, config = time.perf_counter(), self.state, self.config
        if not state.matrix:
            state.matrix.append(self.accuracies(len(self.stream)))
        task, last = len(state.matrix) - 1, 0
        share = task + 1 if REPLAYS[config.replay].cumulative else 1

        def watch(done: int, total: int) -> None:
            nonlocal last
            if config.curve_every and done > last and done % config.curve_every == 0:
                point = {"task": task, "step": done, "accuracy": self.accuracies(task + 1)}
                state.curve.append(point)
            last = done
            if progress is not None:
                progress(task, len(self.stream), done / total)

        trained = self.scholar.train_task(
            self.stream[task].train,
            task,
            epochs=(config.epochs or 1) * share,
            replay_ratio=config.replay_ratio,
            steps=None if config.steps is None else config.steps * share,
            generator_steps=config.generator_steps,
            watch=watch,
            watch_every=math.gcd(config.curve_every, BLOCK),  # so that no point is jumped over
        )
        state.matrix.append(self.accuracies(len(self.stream)))
        if self.scholar.generator is not None:
            state.dreams.append(self._dreams(20))
            if config.quality:
                state.quality.append(self._quality())
        state.steps += len(trained.solver_loss)
        state.training_seconds += trained.seconds
        state.seconds += time.perf_counter() - begun

    def _dreams(self, n: int) -> Tensor:
        """n dreams (n, *shape) as bytes, of all classes met in turn if that can be asked for."""
        met = self.scholar.seen.nonzero().squeeze(1)
        code = met[torch.arange(n, device=met.device) * len(met) // n]
        with seeded(self.config.seed, 2, len(self.state.matrix)):
            return (sample(self.scholar.generator, n, code) * 255).round().byte().cpu()

    def _quality(self) -> dict[str, Any]:
        """Judge 2,000 dreams of the scholar as it is now."""
        if self.judge is None:
            self.judge = self._train_judge()
        with seeded(self.config.seed, 1, len(self.state.matrix)), torch.no_grad():
            code = torch.multinomial((self.scholar.seen > 0).float(), 2000, replacement=True)
            dreams = sample(self.scholar.generator, 2000, code)
            with nets.evaluating(self.scholar.solver):
                answer = (self.scholar.solver(dreams) + self.legend.mask[code]).argmax(1)
        met = self.scholar.seen.nonzero().squeeze(1)
        wanted = self.legend.target.argmax(1)  # (C,) several codes may want one output
        return dict(assess(self.judge, dreams, answer, met, wanted))

    def _train_judge(self) -> Judge:
        """A classifier of all codes, taught with real examples, at most 60,000 of them."""
        share = 60_000 // len(self.stream)
        parts = []
        for task in self.stream:
            train = task.train
            rows = torch.Generator().manual_seed(mixed(self.config.seed, task.id))
            parts.append(train[torch.randperm(len(train), generator=rows)[:share]])
        real = Examples(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))
        return judge(real, self.legend.codes, seed=self.config.seed, device=self.scholar.device)

    def saved(self) -> dict[str, Any]:
        """All that the run needs to go on, as tensors and plain values."""
        return {"scholar": self.scholar.state_dict(), "state": asdict(self.state)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where `saved` left off."""
        self.scholar.load_state_dict(saved["scholar"])
        self.state = State(**saved["state"])

    def record(self) -> Record:
        """The record of a finished run, ready for JSON."""
        state = self.state
        return {
            "accuracy_matrix": state.matrix,
            **summary(np.array(state.matrix)),
            "tasks": list(self.stream.names),
            "config": asdict(self.config),
            "seconds": state.seconds,
            "steps_per_second": state.steps / state.training_seconds,
            "environment": records.environment(self.scholar.device),
            "curve": state.curve,
            "quality": state.quality,
        }


def run(
    config: Config,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    device: str = "auto",
    stream: Stream | None = None,
    progress: Progress | None = None,
    after_task: Callable[[Run], None] | None = None,
) -> Record:
    """Run an experiment and record it.

    Args:
        config: what to run.
        out: folder for `result.json` and `checkpoint.pt`, written at each task's end; None keeps
            nothing.
        resume: go on from the checkpoint in `out`, if there is one; a finished run is only read.
        device: see `nets.pick_device`.
        stream: your own, instead of the one that config names.
        progress: called often, with the task, how many there are, and how much of it is done.
        after_task: called with the run when a task has been learned.

    Raises:
        ValueError: bad options; a folder that holds another run, or a damaged checkpoint.
        Diverged: a loss became nan.
        OSError: the folder can't be written.
    """
    described, folder = asdict(config), None if out is None else Path(out)
    if folder is not None and (done := records.finished(folder, described, resume)) is not None:
        return done
    work = Run(config, device, stream)
    if folder is not None:
        records.claim(folder)
        if resume and (saved := records.load_checkpoint(folder, described)) is not None:
            work.restore(saved)
    return _learn(work, folder, progress, after_task)


def _learn(
    work: Run,
    folder: Path | None,
    progress: Progress | None,
    after_task: Callable[[Run], None] | None,
) -> Record:
    """Learn the tasks that are left, and keep what was found after each."""
    while len(work.state.matrix) <= len(work.stream):
        work.step_task(progress)
        if folder is not None:
            records.save_checkpoint(folder, asdict(work.config), work.saved())
        if after_task is not None:
            after_task(work)
    record = work.record()
    if folder is not None:
        write_json(folder / "result.json", record)
    return record
