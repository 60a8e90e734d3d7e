"""`GenerativeReplay`: a scholar that learns one task after the other.

    scholar = GenerativeReplay(solver, mlp_vae((1, 28, 28)), device="auto")
    for task_id, loader in enumerate(loaders):
        scholar.train_task(loader, task_id, epochs=10, replay_ratio=0.5)

A scholar is a solver with a generator (Shin et al. 2017). When a task begins, both are copied
into a frozen scholar, in eval mode, which stays as it is until the task ends: it dreams the past
and labels its dreams. Solver and generator then minimise the same mixture,

    r * loss(new rows) + (1 - r) * loss(replayed rows)                       (the training loss)

with r in the row weights. Data is read onto the device once and drawn there; a block of steps is
drawn and dreamt together; a step waits for nothing. Each dream is used once.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import operator
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from . import faults
from .adapt import adapted, optimisers
from .capture import Step, captured
from .data import Data, Examples, Legend, as_float, checked, gather, identity, joined, labelled
from .nets import adam, cross_entropy, descend, evaluating, pick_device, steady
from .regularisers import Regulariser
from .replay import Past, Replay, Strategy, generative, none
from .seeds import seeded, unmoved

BLOCK = 16  # steps whose rows are drawn and dreamt at once: bounds memory, saves dispatches
LOOK, TRIED = 512, 200  # generator steps between two looks at its dreams, and before the first

Watch = Callable[[int, int], None]  # (steps done, steps in all)


@dataclass
class Trainee:
    """What is trained: one step of it, how many steps, and the losses so far.

    average: over which part of its steps, at their end, the network's weights are averaged; the
    mean of the weights at the ends of blocks is kept (Izmailov et al. 2018).
    lr_end: what part of the learning rates is left at the end, after half a cosine.
    losses: (budget,), of which the first `done` are known.
    looked: how many steps were done when the dreams were looked at last.
    """

    step: Step
    budget: int
    network: nn.Module | None = None
    optimisers: Sequence[torch.optim.Optimizer] = ()
    average: float = 0.0
    lr_end: float = 1.0
    losses: Tensor = field(default_factory=lambda: torch.empty(0))
    done: int = 0
    looked: int = 0

    def __post_init__(self) -> None:
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        self.rates = [(group, group["lr"]) for group in groups if self.lr_end != 1]
        network = self.network
        self.weights: list[Tensor] = [] if network is None else [*network.parameters()]
        self.mean: list[Tensor] = []
        self.averaged = 0  # blocks

    def anneal(self, done: int) -> None:
        """Set the learning rates for the block after `done` steps."""
        left = (1 + math.cos(math.pi * done / self.budget)) / 2
        for group, rate in self.rates:
            group["lr"] = rate * (self.lr_end + (1 - self.lr_end) * left)

    @torch.no_grad()
    def note(self, done: int) -> None:
        """Take the weights after `done` steps into their average."""
        if done <= (1 - self.average) * self.budget:
            return
        self.averaged += 1
        self.mean = self.mean or [w.detach().clone() for w in self.weights]
        torch._foreach_lerp_(self.mean, self.weights, 1 / self.averaged)

    @torch.no_grad()
    def settle(self) -> None:
        """Keep the averaged weights, if there are any, and put the learning rates back."""
        for group, rate in self.rates:
            group["lr"] = rate
        for weight, mean in zip(self.weights, self.mean, strict=False):
            weight.copy_(mean)


@dataclass(frozen=True)
class Trained:
    """What a task's training leaves behind.

    solver_loss: (steps,); generator_loss: (generator steps,); seconds: wall clock.
    """

    solver_loss: Tensor
    generator_loss: Tensor
    seconds: float


@dataclass(frozen=True)
class Mixture:
    """What a batch is made of: `new` rows that weigh r together, `old` that weigh 1 - r.

    weight, generator_weight: (new + old,), sum to 1; in the solver's loss and the generator's.
    """

    replay: Replay | None
    new: int
    old: int
    weight: Tensor
    generator_weight: Tensor

    @staticmethod
    def of(
        replay: Replay | None, new: int, old: int, r: tuple[float, float], device: torch.device
    ) -> Mixture:
        if replay is None or old == 0 or r == (1, 1):
            even = torch.full((new,), 1 / new, device=device)
            return Mixture(None, new, 0, even, even)
        weights = []
        for each in r:
            parts = ((new, each / new), (old, (1 - each) / old))
            weights.append(torch.cat([torch.full((n,), w, device=device) for n, w in parts]))
        return Mixture(replay, new, old, *weights)


class GenerativeReplay:
    """A solver and a generator that learn a stream of tasks without its past data.

    Args:
        solver: any `nn.Module` from images (N, *shape) to outputs (N, K).
        generator: any `nn.Module` with `latent_dim`, `decode(z)` and `train_step(x)`, or None
            for a strategy that needs no dreams.
        device: "auto", "cpu", "cuda", "mps", "xpu" or a `torch.device`.
        strategy: what is rehearsed and how much it counts; see `genreplay_core.replay`. Default:
            generative replay with soft labels, or none without a generator.
        legend: what class codes mean, from a `Stream`. Without it labels are outputs
            (class-incremental learning).
        regulariser: `EWC(solver)` or `SI(solver)`, or None.
        batch: new rows in a step.
        lr: learning rate of the solver's Adam. (A generator has its own.)
        seed: makes training follow from this number alone; None leaves torch's global state in
            charge.
        reset_optimisers: forget the optimisers' state when a task begins, instead of keeping it.
        average, generator_average: the part of a call's steps, at its end, whose weights are
            averaged and kept: 0 for the last weights, 0.5 for the second half's mean.
        lr_end: what is left of the learning rates at a call's end, after half a cosine.
        augment: changes the images (N, *shape) that the solver learns from, new and replayed ones,
            anew in each step; their labels and the generator's images stay. See `data.jitter`.
        capture: replay each step as a CUDA graph, see `capture.py`; needs a CUDA device.
        precision: e.g. `torch.bfloat16` for autocast, or None for float32.

    Raises:
        TypeError: the generator lacks a part of the protocol.
        ValueError: the device isn't there; the batch isn't positive; a part isn't in [0, 1].
    """

    kept: Examples | None  # what the strategy stores: of all tasks met,
    past_kept: Examples | None  # and of those before the present one

    def __init__(
        self,
        solver: nn.Module,
        generator: nn.Module | None = None,
        device: str | torch.device = "auto",
        *,
        strategy: Strategy | None = None,
        legend: Legend | None = None,
        regulariser: Regulariser | None = None,
        batch: int = 128,
        lr: float = 1e-3,
        seed: int | None = None,
        reset_optimisers: bool = False,
        average: float = 0.0,
        generator_average: float = 0.0,
        lr_end: float = 1.0,
        augment: Callable[[Tensor], Tensor] | None = None,
        precision: torch.dtype | None = None,
        capture: bool = False,
    ):
        parts = {"average": average, "generator_average": generator_average, "lr_end": lr_end}
        faults.check_given(batch, **parts)
        self.device = pick_device(str(device))
        self.strategy = strategy or (none() if generator is None else generative())
        self.solver = solver.to(self.device)
        self.generator = None if generator is None else adapted(generator).to(self.device)
        self.regulariser = None if regulariser is None else regulariser.to(self.device)
        self.optimiser = adam(solver.parameters(), lr)
        self.frozen_solver = _frozen(self.solver)
        self.frozen_generator = None if self.generator is None else _frozen(self.generator)
        self.untrained = [_frozen(n) for n in self.networks()] if self.strategy.anew else []
        self.legend = None if legend is None else legend.to(self.device)
        self.batch, self.seed, self.precision = batch, seed, precision
        self.reset_optimisers = reset_optimisers
        self.average, self.generator_average, self.lr_end = average, generator_average, lr_end
        self.augment, self.capture = augment, capture and _capturable(self.device, lr_end)
        self.tasks: list[int] = []  # in the order met
        self.calls = self.observed = 0  # of `train_task`, so that a task goes on; of `observe`
        self.seen = self.past_seen = torch.zeros(0)  # (C,) 1 for each code that was met
        self.kept = self.past_kept = None

    @property
    def past(self) -> Past:
        """What is left of the tasks before the present one."""
        assert self.legend is not None
        live = (self.solver, self.generator)
        frozen = (self.frozen_solver, self.frozen_generator)
        return Past(*frozen, live, self.legend, self.past_seen, self.past_kept)

    # ------------------------------------------------------------ learning

    def train_task(
        self,
        dataloader: Any,
        task_id: int,
        epochs: float = 10,
        replay_ratio: float = 0.5,
        *,
        steps: int | None = None,
        generator_steps: int | None = None,
        watch: Watch | None = None,
        watch_every: int = BLOCK,
    ) -> Trained:
        """Learn one task.

        Args:
            dataloader: whatever `data.gather` reads; pixels in [0, 1] or bytes. It is read once:
                its batches don't matter, and what should change each time goes into `augment`.
            task_id: a new number freezes the scholar as it is; the last call's goes on with it,
                with the same examples or new classes. Regularisers take each call for a task.
            epochs: passes over the data in batches of `batch`, unless `steps` is given.
            replay_ratio: replayed rows for each new row in a batch; 0.5 means half as many.
            steps, generator_steps: budgets; the generator's is the solver's if not given.
            watch: called every so many steps (at the ends of blocks, once the solver is done), or
                fewer, with the steps done and those in all.

        Raises:
            ValueError: what doesn't go together, budgets below 1, a task that was left already.
            Diverged: a loss became nan or infinite; says in which task and at which step.
        """
        begun, examples = time.perf_counter(), self._read(dataloader, task_id)
        budget = _budget(steps, epochs, len(examples), self.batch)
        own = _at_least_one(budget if generator_steps is None else generator_steps)
        old, look = _old_rows(replay_ratio, self.batch), _at_least_one(watch_every)
        self._enter(operator.index(task_id))
        solver, generator = trainees = self._trainees(budget, own)
        with self._randomness(self.calls + 1), self._autocast(), steady():
            self._learn(examples, old, trainees, look, watch)
            self._leave(examples, trainees[0].done)
        seconds = time.perf_counter() - begun
        return Trained(solver.losses, generator.losses[: generator.done], seconds)

    def observe(
        self, x: Tensor, y: Tensor, *, snapshot_every: int = 500, replay_ratio: float = 1.0
    ) -> Tensor:
        """Learn one batch of a stream without task boundaries; returns the solver's loss.

        The scholar is frozen anew every `snapshot_every` batches: what lies between two
        snapshots plays the part of a task. x (N, *shape), y (N,) class codes. Batches that come
        from the host are checked; those already on the device are trusted, so that nothing waits.

        Raises:
            ValueError: as `train_task`; what needs the ends of tasks, such as a regulariser.
        """
        if self.strategy.stored != 0:
            raise ValueError("observe() stores nothing: use a strategy that dreams, or train_task")
        ends: Any = self.regulariser, self.average, self.generator_average, self.lr_end
        if ends != (None, 0, 0, 1):
            raise ValueError("observe() knows no ends: leave out regulariser, averages, lr_end")
        if snapshot_every < 1:
            raise ValueError(f"snapshot_every must be at least 1, got {snapshot_every}")
        examples, old = self._read_batch(x, y), _old_rows(replay_ratio, len(x))
        if self.observed % snapshot_every == 0:
            self._look(examples, Trainee(self.generator_step, self.observed, done=self.observed))
            self._enter(max(self.tasks, default=-1) + 1)
        self.observed += 1
        solver, generator = Trainee(self.solver_step, 1), Trainee(self.generator_step, 1)
        losses = []
        with self._randomness(0, self.observed), self._autocast(), steady():
            for replay, trainees in self._passes(solver, generator):
                mixture = self._mixture(replay, len(examples), old)
                (batch,) = self._batches(examples, mixture, 1)
                losses += [trainee.step(batch, mixture.generator_weight) for trainee in trainees]
        self.seen = self.seen.index_fill(0, examples.y, 1.0)
        return losses[0]

    def solver_step(self, batch: Data, weight: Tensor) -> Tensor:
        """One step of the solver. The row weights are in the targets already."""
        x = batch.x if self.augment is None else self.augment(batch.x)
        loss = cross_entropy(self.solver(x), batch.y, batch.mask, batch.temperature)
        if self.regulariser is None:
            return descend(self.optimiser, loss)
        descend(self.optimiser, loss + self.regulariser.loss(self.solver))
        self.regulariser.after_step(self.solver)
        return loss.detach()

    def generator_step(self, batch: Data, weight: Tensor) -> Tensor:
        """One step of the generator."""
        assert self.generator is not None
        train_step: Any = self.generator.train_step
        return train_step(batch.x, batch.code, weight, batch.z)

    # ------------------------------------------------------------ the loop

    def _trainees(self, budget: int, own: int) -> list[Trainee]:
        """The solver and the generator with their budgets."""
        theirs = [optimiser for _, optimiser in self._optimisers()[1:]]
        first: Step = self.solver_step
        second: Step = self.generator_step
        if self.capture:
            first, second = captured(first, [self.optimiser]), captured(second, theirs)
        trainees = [
            Trainee(first, budget, self.solver, [self.optimiser], self.average, self.lr_end),
            Trainee(second, own, self.generator, theirs, self.generator_average, self.lr_end),
        ]
        for trainee in trainees:
            trainee.losses = torch.empty(trainee.budget, device=self.device)
        return trainees

    def _passes(
        self, solver: Trainee, generator: Trainee
    ) -> list[tuple[Replay | None, list[Trainee]]]:
        """Who rehearses the same thing shares its dreams; else one is trained after the other."""
        strategy = self.strategy
        if self.generator is None:
            return [(strategy.solver, [solver])]
        if strategy.solver == strategy.generator:
            return [(strategy.solver, [solver, generator])]
        return [(strategy.solver, [solver]), (strategy.generator, [generator])]

    def _mixture(self, replay: Replay | None, new: int, old: int) -> Mixture:
        r = self.strategy.weights_of_new(len(self.tasks))
        return Mixture.of(replay, new, old, r, self.device)

    def _learn(
        self, examples: Examples, old: int, both: list[Trainee], look: int, watch: Watch | None
    ) -> None:
        """Train solver and generator. If they rehearse different things, both's steps count."""
        self.seen = self.seen.index_fill(0, examples.y, 1.0)  # first, for it may be interrupted
        passes = self._passes(*both)
        before, total = 0, sum(_longest(trainees) for _, trainees in passes)
        try:
            for replay, trainees in passes:
                mixture = self._mixture(replay, self.batch, old)
                for done in self._train(examples, mixture, trainees, look):
                    if watch is not None:
                        with unmoved():  # looking must not change what is looked at
                            watch(before + done, total)
                    self._look(examples, both[1])
                before += _longest(trainees)
        finally:  # who interrupts it finds the learning rates as they were, and the average so far
            for trainee in both:
                trainee.settle()

    def _train(
        self, examples: Examples, mixture: Mixture, trainees: list[Trainee], look: int
    ) -> Iterator[int]:
        """Train in blocks; yields the steps done, at least after every `look` of the first
        trainee and at the end of each block."""
        rows, total = self._drawing(examples), _longest(trainees)
        for start in range(0, total, BLOCK):
            steps = min(BLOCK, total - start)
            batches = self._batches(examples[rows(steps * mixture.new)], mixture, steps)
            for trainee in trainees:
                mine = batches[: max(trainee.budget - start, 0)]
                stride = look if trainee is trainees[0] else BLOCK
                trainee.anneal(start)
                for at in range(0, len(mine), stride):
                    some = mine[at : at + stride]
                    losses = [trainee.step(batch, mixture.generator_weight) for batch in some]
                    self._record(trainee, losses, start + at)
                    if trainee is trainees[0]:
                        yield start + at + len(some)
                if mine:
                    trainee.note(start + len(mine))
            yield start + steps

    def _drawing(self, examples: Examples) -> Callable[[int], Tensor]:
        """A function that draws the next `k` row numbers of the task."""
        return shuffled(len(examples), self.device)

    @torch.no_grad()
    def _batches(self, new: Examples, mixture: Mixture, steps: int) -> list[Data]:
        """`steps` batches: new rows, then old ones, dreamt and labelled at once."""
        assert self.legend is not None
        for network in self.networks():
            network.train()  # whoever has looked at it meanwhile
        rows = labelled(new, self.legend)
        block = _folded(rows, steps)
        if mixture.replay is not None:
            old = mixture.replay(self.past, rows, steps * mixture.old)
            old = _folded(faults.as_many(old, steps * mixture.old), steps)
            rows_of = zip(block[:5], old[:5], strict=True)
            block = Data._make([*(torch.cat(pair, 1) for pair in rows_of), old.z])
        # weighting the targets weights the loss; T^2 keeps the gradient's size (Hinton et al.)
        weight = mixture.weight.unsqueeze(1) * block.temperature.square()
        block = block._replace(y=block.y * weight)
        columns = ([None] * steps if part is None else part.unbind() for part in block)
        return [Data(*batch) for batch in zip(*columns, strict=True)]

    def _record(self, trainee: Trainee, losses: list[Tensor], start: int) -> None:
        """Keep a block's losses; the one look at them that waits for the device."""
        trainee.done, block = start + len(losses), torch.stack(losses)
        trainee.losses[start : trainee.done] = block
        faults.check_losses(block, self.tasks[-1], start)

    def _look(self, examples: Examples, trained: Trainee) -> None:
        """Now and then, and when the generator has done its steps, see whether it has collapsed;
        it is said once."""
        due, done = min(trained.looked + LOOK, trained.budget), trained.done
        if self.generator is None or done < max(due, TRIED) or done == trained.looked:
            return
        met = self.seen.nonzero().squeeze(1)
        varied = faults.variety(self.generator, self.solver, self.past.legend, met, examples.x)
        said = faults.warn_of_collapse(varied, self.tasks[-1], done)
        trained.looked = trained.budget if said else done

    # ------------------------------------------------------------ before and after a task

    def _read(self, source: Any, task_id: int) -> Examples:
        """Examples on the device, known to fit the solver, the generator and the legend."""
        try:
            with self._randomness(self.calls, 1):  # a loader may shuffle
                examples = gather(source)
            self._fit(examples)
        except ValueError as error:
            raise ValueError(f"task {task_id}: {error}") from None
        return examples.to(self.device)

    def _read_batch(self, x: Tensor, y: Tensor) -> Examples:
        """A batch of a stream on the device, known to fit if it comes from the host."""
        examples = Examples(torch.as_tensor(x), torch.as_tensor(y))
        from_host = examples.x.device.type == "cpu"
        examples = checked(examples) if from_host else examples
        if not self.observed or self.legend is None:
            self._fit(examples)
        elif from_host:
            self._check_labels(examples)
        return examples.to(self.device)

    def _fit(self, examples: Examples) -> None:
        """See that the labels are known, and with one image that the networks can take it."""
        row = examples[:1].to(self.device)
        outputs = faults.outputs_of(self.solver, row.x)
        if self.legend is None:
            self.legend = identity(outputs).to(self.device)
        if self.legend.outputs != outputs:
            raise ValueError(f"the solver has {outputs} outputs, expected {self.legend.outputs}")
        self._check_labels(examples)
        if self.generator is not None:
            highest = examples.y.max().view(1).to(self.device)
            faults.check_generator(self.generator, Examples(row.x, highest))
        if not len(self.seen):
            self.seen = torch.zeros(self.legend.codes, device=self.device)
            self.past_seen = self.seen.clone()

    def _check_labels(self, examples: Examples) -> None:
        codes = self.legend.codes if self.legend is not None else math.inf
        if examples.y.device.type != "meta" and (highest := int(examples.y.max())) >= codes:
            raise ValueError(
                f"label {highest} is out of range: expected 0..{codes - 1}, "
                "one for each class the solver can name"
            )

    def _enter(self, task_id: int) -> None:
        """Freeze the scholar if the task is a new one."""
        if self.tasks and task_id == self.tasks[-1]:
            return
        if task_id in self.tasks:
            raise ValueError(f"task {task_id} was left already: give a new task a new number")
        self.tasks.append(task_id)
        _copy_state(self.solver, self.frozen_solver)
        if self.generator is not None and self.frozen_generator is not None:
            _copy_state(self.generator, self.frozen_generator)
        self.past_seen, self.past_kept = self.seen.clone(), self.kept
        self._ready()

    def _ready(self) -> None:
        """Networks and optimisers as a new task wants them."""
        if self.strategy.anew:
            for untrained, network in zip(self.untrained, self.networks(), strict=True):
                _copy_state(untrained, network)
        if self.reset_optimisers or self.strategy.anew:
            for _, optimiser in self._optimisers():
                optimiser.state.clear()

    def _leave(self, examples: Examples, steps: int) -> None:
        """Note which codes were met, store what is stored, consolidate."""
        self.calls += 1
        faults.check_weights(self.networks(), self.tasks[-1], steps)
        if self.strategy.stored != 0:
            chosen = examples[_some_of_each(examples.y, self.strategy.stored)]
            self.kept = joined([*self._kept_before(examples.y), chosen])
        if self.regulariser is not None:
            draw, legend = shuffled(len(examples), self.device), self.legend
            assert legend is not None
            self.regulariser.end_task(self.solver, lambda n: labelled(examples[draw(n)], legend))

    def _kept_before(self, y: Tensor) -> list[Examples]:
        """What stays in store: of past tasks, and of this one's classes that aren't in y."""
        if self.kept is None:
            return []
        past = 0 if self.past_kept is None else len(self.past_kept)
        rows = torch.arange(len(self.kept), device=self.device)
        return [self.kept[((rows < past) | ~torch.isin(self.kept.y, y)).nonzero().squeeze(1)]]

    def _randomness(self, *where: int) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.seed is None else seeded(self.seed, *where)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision is None:
            return contextlib.nullcontext()
        # without the cache, which would keep the weights as the first step found them
        return torch.autocast(self.device.type, self.precision, cache_enabled=False)

    # ------------------------------------------------------------ saving

    def _modules(self) -> dict[str, nn.Module]:
        names = ("solver", "generator", "frozen_solver", "frozen_generator", "regulariser")
        modules = {name: getattr(self, name) for name in names}
        modules |= {f"untrained_{i}": m for i, m in enumerate(self.untrained)}
        return {name: m for name, m in modules.items() if m is not None}

    def networks(self) -> list[nn.Module]:
        """The solver, and the generator if there is one."""
        return [network for network in (self.solver, self.generator) if network is not None]

    def _optimisers(self) -> list[tuple[str, torch.optim.Optimizer]]:
        inner = optimisers(self.generator) if self.generator is not None else ()
        return [("solver", self.optimiser), *((f"generator.{name}", o) for name, o in inner)]

    def state_dict(self) -> dict[str, Any]:
        """All that a scholar needs to go on, as tensors and plain values."""
        kept = {"kept": self.kept, "past_kept": self.past_kept}
        return {
            "modules": {name: m.state_dict() for name, m in self._modules().items()},
            "optimisers": {name: o.state_dict() for name, o in self._optimisers()},
            "tasks": list(self.tasks),
            "calls": self.calls,
            "observed": self.observed,
            "seen": self.seen,
            "past_seen": self.past_seen,
            "kept": {name: (e.x, e.y) for name, e in kept.items() if e is not None},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` left off, with networks of the same kind.

        Raises:
            ValueError: the state is another scholar's, or damaged.
        """
        try:
            state = copy.deepcopy(state)  # torch's optimisers would go on writing into it
            for name, module in self._modules().items():
                module.load_state_dict(state["modules"][name])
            for name, optimiser in self._optimisers():
                faults.load_optimiser(optimiser, state["optimisers"].pop(name))
            if state["optimisers"]:
                raise ValueError(f"it has an optimiser more, {next(iter(state['optimisers']))}")
            parts = {name: checked(Examples(*pair)) for name, pair in state["kept"].items()}
            kept = {name: examples.to(self.device) for name, examples in parts.items()}
            self.kept, self.past_kept = kept.get("kept"), kept.get("past_kept")
            self.tasks = [int(task) for task in state["tasks"]]
            self.calls, self.observed = int(state["calls"]), int(state["observed"])
            self.seen = state["seen"].float().to(self.device)
            self.past_seen = state["past_seen"].float().to(self.device)
            faults.check_met(self.seen, self.past_seen, self.legend)
        except Exception as error:  # a damaged state may raise anything
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise ValueError(f"this state doesn't fit the scholar: {reason}") from None


def shuffled(n: int, device: torch.device) -> Callable[[int], Tensor]:
    """A function that draws the next `k` of n row numbers: each epoch a new permutation."""
    order = torch.randperm(n, device=device)

    def draw(k: int) -> Tensor:
        nonlocal order
        while len(order) < k:
            order = torch.cat([order, torch.randperm(n, device=device)])
        taken, order = order[:k], order[k:]
        return taken

    return draw


def accuracy(solver: nn.Module, examples: Examples, legend: Legend, chunk: int = 2000) -> float:
    """The fraction (0..1) of examples that the solver answers as the legend wants.

    Examples and legend are on the solver's device; the solver's mode is left as it was.
    """
    right = torch.zeros((), device=examples.x.device)
    with evaluating(solver):
        for x, code in zip(examples.x.split(chunk), examples.y.split(chunk), strict=True):
            answer = (solver(as_float(x)) + legend.mask[code]).argmax(1)
            right += (answer == legend.target[code].argmax(1)).sum()
    return float(right) / len(examples)


# ---------------------------------------------------------------- small helpers


def _folded(data: Data, steps: int) -> Data:
    """Rows (steps * n, ...) as (steps, n, ...)."""
    return Data(*(part.unflatten(0, (steps, -1)) for part in data if part is not None))


def _frozen(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval().requires_grad_(False)


@torch.no_grad()
def _copy_state(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers in place, so that their addresses stay."""
    pairs = zip(_tensors(source), _tensors(target), strict=True)
    for new, old in pairs:
        old.copy_(new)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())


def _longest(trainees: list[Trainee]) -> int:
    return max(trainee.budget for trainee in trainees)


def _at_least_one(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")
    return steps


def _budget(steps: int | None, epochs: float, n: int, batch: int) -> int:
    return _at_least_one(math.ceil(epochs * n / batch) if steps is None else steps)


def _old_rows(replay_ratio: float, batch: int) -> int:
    if not (math.isfinite(replay_ratio) and replay_ratio >= 0):
        raise ValueError(f"replay_ratio must be 0 or more, got {replay_ratio}")
    return max(round(batch * replay_ratio), 1 if replay_ratio else 0)


def _capturable(device: torch.device, lr_end: float) -> bool:
    if lr_end != 1:
        raise ValueError("a captured step has one learning rate: leave out lr_end, or capture")
    if device.type != "cuda":
        raise ValueError(f"capture needs a CUDA device, got {device.type}: leave it out")
    return True


def _some_of_each(code: Tensor, count: int | None) -> Tensor:
    """Row numbers of `count` random rows of each code, all rows if None."""
    if count is None:
        return torch.arange(len(code), device=code.device)
    order = torch.randperm(len(code), device=code.device)
    chosen = [order[code[order] == c][:count] for c in code.unique()]
    return torch.cat(chosen)
