"""An experiment from its description: run, record, checkpoint, resume.

    config = Config(dataset="mnist", replay="conditional", steps=2000, seed=3)
    record = run(config, out="runs/conditional-3")
    record["average_accuracy"]

A run follows from its `Config` alone: the same one on the same machine with the same number of
threads gives the same bits, also when it was killed and resumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import nets, records
from .config import REPLAYS, Config, build_scholar, build_stream
from .data import Examples, Stream, Task, joined
from .faults import check_losses, check_weights, enough_memory
from .files import sealed, write_json
from .generators import sample
from .learner import BLOCK, Watch, accuracy
from .metrics import summary
from .privacy import leaks
from .quality import Judge, assess, judge
from .records import Record
from .seeds import mixed, seeded

USUAL = {f.name: f.default for f in fields(Config)}

Progress = Callable[[int, int, float], None]  # (task, tasks, fraction of the task done)


@dataclass
class State:
    """What a run has found so far: everything in the record that grows."""

    matrix: list[list[float]] = field(default_factory=list)  # rows of the accuracy matrix
    curve: list[dict[str, Any]] = field(default_factory=list)
    quality: list[dict[str, Any]] = field(default_factory=list)
    privacy: dict[str, Any] = field(default_factory=dict)
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
        self.test = lru_cache(maxsize=20)(lambda t: self.stream[t].test.to(self.scholar.device))

    def accuracies(self, tasks: int) -> list[float]:
        """The solver's accuracy on the first `tasks` tasks."""
        return [accuracy(self.scholar.solver, self.test(t), self.legend) for t in range(tasks)]

    def step_task(self, progress: Progress | None = None) -> None:
        """Learn the next task and measure; the first call measures the untrained solver too."""
        begun, state, config = time.perf_counter(), self.state, self.config
        if not state.matrix:
            state.matrix.append(self.accuracies(len(self.stream)))
        task, last = len(state.matrix) - 1, 0

        def watch(done: int, total: int) -> None:
            nonlocal last
            if config.curve_every and done > last and done % config.curve_every == 0:
                point = {"task": task, "step": done, "accuracy": self.accuracies(task + 1)}
                state.curve.append(point)
            last = done
            if progress is not None:
                progress(task, len(self.stream), done / total)

        learn = self._without_boundaries if config.task_free else self._with_boundaries
        learn(task, watch)
        state.matrix.append(self.accuracies(len(self.stream)))
        if self.scholar.generator is not None:
            state.dreams.append(self._dreams(20))
            if config.quality:
                state.quality.append(self._quality())
        if config.privacy and task + 1 == len(self.stream):
            state.privacy = self._privacy()
        state.seconds += time.perf_counter() - begun

    def _with_boundaries(self, task: int, watch: Watch) -> None:
        """Learn a task that is told to be one."""
        config = self.config
        share = task + 1 if REPLAYS[config.replay].cumulative else 1
        trained = self.scholar.train_task(
            self.stream[task].train,
            task,
            epochs=(config.epochs or 1) * share,
            replay_ratio=config.replay_ratio,
            steps=None if config.steps is None else config.steps * share,
            generator_steps=config.generator_steps,
            watch=watch,
            watch_every=math.gcd(config.curve_every, BLOCK),  # so that the solver meets every point
        )
        self.state.steps += len(trained.solver_loss)
        self.state.training_seconds += trained.seconds

    def _without_boundaries(self, task: int, watch: Watch) -> None:
        """Learn the batches that come while this is the task, in a stream that says nothing."""
        config, scholar, steps = self.config, self.scholar, self.config.steps or 0
        first, last = max(task - 1, 0), min(task + 1, len(self.stream) - 1)
        near = {t: self.stream[t].train.to(scholar.device) for t in range(first, last + 1)}
        begun, losses = time.perf_counter(), list[Tensor]()
        for step in range(steps):
            with seeded(config.seed, 4, scholar.observed):
                x, y = self._drifting(near, task + step / steps)
            every, ratio = config.snapshot_every, config.replay_ratio
            losses.append(scholar.observe(x, y, snapshot_every=every, replay_ratio=ratio))
            watch(step + 1, steps)
            if len(losses) == BLOCK or step + 1 == steps:
                check_losses(torch.stack(losses), task, step + 1 - len(losses))
                losses.clear()
        check_weights(scholar.networks(), task, steps)
        self.state.steps += steps
        self.state.training_seconds += time.perf_counter() - begun

    def _drifting(self, near: dict[int, Examples], at: float) -> tuple[Tensor, Tensor]:
        """A batch at the time `at`, in tasks. Within `blur / 2` of a boundary, rows of the task
        that begins come in place of those of the one that ends, more and more of them."""
        config, n, device = self.config, self.config.batch, self.scholar.device
        boundary = min(max(round(at), 1), len(self.stream) - 1)
        gone = (at - boundary) / config.blur + 0.5 if config.blur else float(at >= boundary)
        parts = []
        for examples in (near[boundary - 1], near[boundary]):
            parts.append(examples[torch.randint(len(examples), (n,), device=device)])
        later = torch.rand(n, device=device) < gone
        over_pixels = later.view(-1, *[1] * (parts[0].x.dim() - 1))
        x = torch.where(over_pixels, parts[1].x, parts[0].x)
        return x, torch.where(later, parts[1].y, parts[0].y)

    def _dreams(self, n: int) -> Tensor:
        """n dreams (n, *shape) as bytes, of all classes met in turn if that can be asked for."""
        met = self.scholar.seen.nonzero().squeeze(1)
        code = met[torch.arange(n, device=met.device) * len(met) // n]
        with seeded(self.config.seed, 2, len(self.state.matrix)):
            return (sample(self.scholar.generator, n, code) * 255).round().byte().cpu()

    def _quality(self) -> dict[str, Any]:
        """Judge 2,000 dreams of the scholar as it is now."""
        with seeded(self.config.seed, 1, len(self.state.matrix)), torch.no_grad():
            code = torch.multinomial((self.scholar.seen > 0).float(), 2000, replacement=True)
            dreams = sample(self.scholar.generator, 2000, code)
            with nets.evaluating(self.scholar.solver):
                answer = (self.scholar.solver(dreams) + self.legend.mask[code]).argmax(1)
        met = self.scholar.seen.nonzero().squeeze(1)
        wanted = self.legend.target.argmax(1)  # (C,) several codes may want one output
        return dict(assess(self.judge, dreams, answer, met, wanted))

    def _privacy(self) -> dict[str, Any]:
        """What the scholar gives away at the end: of the last task, which it met as real data,
        and of the earlier ones, which it has met as dreams or in the store since."""
        tasks = list(self.stream)
        parts = {"earlier tasks": tasks[:-1], "last task": tasks[-1:]}
        return {name: self._leaks(some) for name, some in parts.items() if some}

    def _leaks(self, tasks: list[Task]) -> dict[str, Any]:
        """The leaks of some tasks, by 10,000 dreams or by the examples that are stored."""
        scholar, device = self.scholar, self.scholar.device
        members, others = (joined([getattr(t, part) for t in tasks]) for part in ("train", "test"))
        codes = members.y.unique().to(device)
        if scholar.generator is not None:
            with seeded(self.config.seed, 3):
                drawn = [codes[torch.randint(len(codes), (500,))] for _ in range(20)]
                dreams = torch.cat([sample(scholar.generator, len(y), y) for y in drawn])
        else:
            assert scholar.kept is not None
            members = scholar.kept[torch.isin(scholar.kept.y, codes)]
            dreams = members.x
        parts = members.to(device), others.to(device), dreams
        seed, solver, generator = self.config.seed, scholar.solver, scholar.generator
        return leaks(*parts, solver=solver, legend=self.legend, generator=generator, seed=seed)

    @cached_property
    def judge(self) -> Judge:
        """A classifier of all codes, taught with real examples, at most 60,000 of them."""
        share = 60_000 // len(self.stream)
        parts = []
        for task in self.stream:
            train = task.train
            rows = torch.Generator().manual_seed(mixed(self.config.seed, task.id))
            parts.append(train[torch.randperm(len(train), generator=rows)[:share]])
        return judge(
            joined(parts), self.legend.codes, seed=self.config.seed, device=self.scholar.device
        )

    def saved(self) -> dict[str, Any]:
        """All that the run needs to go on, as tensors and plain values."""
        return {"scholar": self.scholar.state_dict(), "state": asdict(self.state)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where `saved` left off."""
        self.scholar.load_state_dict(saved["scholar"])
        try:
            self.state = State(**saved["state"])
        except TypeError as error:
            raise ValueError(f"the checkpoint is of a later version: {error}") from None

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
            "privacy": state.privacy,
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
        stream: your own, instead of the one that config names. The record doesn't describe it, and
            `resume` can't tell one from another: give each a folder of its own.
        progress: called often, with the task, how many there are, and how much of it is done.
        after_task: called with the run when a task has been learned.

    Raises:
        ValueError: bad options; a folder that holds another run, or a damaged checkpoint.
        Diverged: a loss became nan.
        OSError: the folder can't be written. MemoryError: the run doesn't fit.
    """
    described, folder = asdict(config), None if out is None else Path(out)
    if folder is not None and (done := records.finished(folder, described, resume, USUAL)):
        return done
    with enough_memory("for the networks"):
        work = Run(config, device, stream)
    if folder is not None:
        records.claim(folder)
        if resume and (saved := records.load_checkpoint(folder, described, USUAL)):
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
        with enough_memory(f"in task {len(work.state.matrix[1:])}"):
            work.step_task(progress)
        if folder is not None:
            records.save_checkpoint(folder, asdict(work.config), work.saved())
        if after_task is not None:
            after_task(work)
    record = work.record()
    if folder is not None:
        write_json(folder / "result.json", sealed(record))
    return record
