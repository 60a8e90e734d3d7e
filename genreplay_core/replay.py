"""What is rehearsed, how it is labelled, and how much it counts: small frozen values.

A replay is a function from what is left of the past to rows to learn from:

    replay(past, now, n) -> Data        n rows; `now` are rows of the new task

The n rows are cut, in their order, into the batches of up to 16 steps: where they are of several
kinds, mix them (`Both` takes them in turn).

An ablation is another value of that kind, never a flag inside the training loop. A `Strategy`
puts together what the solver rehearses, what the generator rehearses, how much the new task
counts and what is stored. The functions at the end (`generative()`, `stored(100)`, ...) name the
strategies of the literature and the broken ones that the book takes apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .data import Data, Examples, Legend
from .generators import dream, noise_for
from .nets import evaluating


@dataclass(frozen=True)
class Past:
    """What is left of the tasks met before this one.

    solver, generator: the frozen scholar, as it was when the previous task ended.
    live: the (solver, generator) being trained; only a broken strategy asks for them.
    legend: what class codes mean.
    seen: (C,) float, above 0 for each code that the frozen scholar has met.
    kept: stored examples, or None.
    """

    solver: nn.Module
    generator: nn.Module | None
    live: tuple[nn.Module, nn.Module | None]
    legend: Legend
    seen: Tensor
    kept: Examples | None = None

    def draw_codes(self, n: int) -> Tensor:
        """n codes (n,), drawn evenly from those that were met."""
        return torch.multinomial((self.seen > 0).float(), n, replacement=True)


Replay = Callable[[Past, Data, int], Data]
Label = Callable[[Past, Tensor, Tensor], Data]  # (past, x, code) -> rows


# ---------------------------------------------------------------- labels


def _answers(past: Past, x: Tensor, mask: Tensor) -> Tensor:
    with evaluating(past.solver):
        return past.solver(x) + mask  # (n, K)


@dataclass(frozen=True)
class Hard:
    """The old solver's most likely answer, as if it were true (van de Ven et al. 2022)."""

    def __call__(self, past: Past, x: Tensor, code: Tensor) -> Data:
        mask = past.legend.mask[code]
        best = _answers(past, x, mask).argmax(1, keepdim=True)  # (n, 1)
        y = torch.zeros_like(mask).scatter(1, best, 1.0)
        return Data(x, y, mask, code, mask.new_ones(len(code), 1))


@dataclass(frozen=True)
class Soft:
    """The old solver's whole answer at a temperature (Hinton et al. 2015, distillation).

    The loss divides the new solver's outputs by the same temperature and is multiplied by its
    square, so that the gradient's size doesn't depend on it. The literature's usual value is 2.
    """

    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"the temperature must be above 0, got {self.temperature}")

    def __call__(self, past: Past, x: Tensor, code: Tensor) -> Data:
        mask = past.legend.mask[code]
        y = (_answers(past, x, mask) / self.temperature).softmax(1)
        return Data(x, y, mask, code, mask.new_full((len(code), 1), self.temperature))


@dataclass(frozen=True)
class ByCode:
    """The answer that belongs to the row's code: a stored example's true label, or the class
    that a conditional generator was asked for."""

    def __call__(self, past: Past, x: Tensor, code: Tensor) -> Data:
        y, mask = past.legend.target[code], past.legend.mask[code]
        return Data(x, y, mask, code, mask.new_ones(len(code), 1))


# ---------------------------------------------------------------- replays


@dataclass(frozen=True)
class Generative:
    """Dreams of the frozen generator. Codes are drawn evenly from those met; a conditional
    generator dreams those classes, for another they only say which task's outputs compete.

    align: tell the noise that each dream came from as well. A conditional generator then learns
        to make the old generator's image of the same noise and class, instead of learning the
        image anew: replay alignment (Wu et al. 2018, MeRGAN, for GANs). Useless without classes,
        for then the same noise would have to make new images too.
    spread: the noise's standard deviation. Above 1, dreams are less typical of their class.
    sharpen: contrast of the dreams, by which the logits of their pixels are multiplied. A VAE
        dreams the mean of what it has in mind, greyer than any image it has seen.
    best_of: how many images are dreamt for each that is used, the one whose label agrees best
        with the code that was drawn. So a plain generator's classes are evened out as well.
    """

    label: Label = Soft()
    align: bool = False
    spread: float = 1.0
    sharpen: float = 1.0
    best_of: int = 1

    def __call__(self, past: Past, now: Data, n: int) -> Data:
        if past.generator is None:
            raise ValueError("this strategy dreams: give GenerativeReplay a generator")
        code = past.draw_codes(n).repeat(self.best_of)
        z = self.spread * noise_for(past.generator, len(code))
        x = dream(past.generator, z, code)
        if self.sharpen != 1:
            x = (self.sharpen * x.logit(1e-6)).sigmoid()
        dreams = self.label(past, x, code)
        if self.best_of > 1:
            rows = _best(past, dreams, n)
            dreams, z = Data(*(part[rows] for part in dreams[:5])), z[rows]
        return dreams._replace(z=z) if self.align else dreams


def _best(past: Past, dreams: Data, n: int) -> Tensor:
    """Of the rows i, i + n, i + 2n, ... the one whose label agrees best with its code; (n,)."""
    agreement = (dreams.y * past.legend.target[dreams.code]).sum(1)
    best = agreement.view(-1, n).argmax(0)
    return best * n + torch.arange(n, device=best.device)


@dataclass(frozen=True)
class Stored:
    """Rows drawn evenly from the stored examples."""

    label: Label = ByCode()

    def __call__(self, past: Past, now: Data, n: int) -> Data:
        if past.kept is None:
            raise ValueError("nothing is stored: give the strategy `stored`, examples a class")
        rows = torch.randint(len(past.kept), (n,), device=now.x.device)
        x, code = past.kept.x[rows], past.kept.y[rows]
        return self.label(past, x, code)


@dataclass(frozen=True)
class Noise:
    """Gaussian pixels of mean 0.5 and deviation 0.25, cut to [0, 1], with the old solver's
    answers: the paper's control for what the generator adds."""

    label: Label = Soft()

    def __call__(self, past: Past, now: Data, n: int) -> Data:
        shape = (n, *now.x.shape[1:])
        x = torch.randn(shape, device=now.x.device).mul(0.25).add(0.5).clamp(0, 1)
        return self.label(past, x, past.draw_codes(n))


@dataclass(frozen=True)
class Current:
    """The new task's own images with the old solver's answers: learning without forgetting
    (Li and Hoiem 2016)."""

    label: Label = Soft()

    def __call__(self, past: Past, now: Data, n: int) -> Data:
        rows = torch.arange(n, device=now.x.device) % len(now.x)
        return self.label(past, now.x[rows], past.draw_codes(n))


@dataclass(frozen=True)
class Both:
    """Rows from one replay and from another in turn, so that each batch holds half and half."""

    first: Replay
    second: Replay

    def __call__(self, past: Past, now: Data, n: int) -> Data:
        halves = self.first(past, now, n - n // 2), self.second(past, now, n // 2)
        at = torch.arange(n, device=now.x.device)
        turns = at // 2 + at % 2 * len(halves[0].x)
        pairs = list(zip(*(half[:5] for half in halves), strict=True))
        return Data(*(torch.cat(pair)[turns] for pair in pairs))


@dataclass(frozen=True)
class Live:
    """A mistake to learn from: dreams and labels of the networks *being trained*."""

    replay: Replay = Generative()

    def __call__(self, past: Past, now: Data, n: int) -> Data:
        solver, generator = past.live
        return self.replay(replace(past, solver=solver, generator=generator), now, n)


# ---------------------------------------------------------------- strategies


Importance = float | Callable[[int], float]


def one_over_tasks(tasks: int) -> float:
    """1 / t: every task met so far, the new one included, counts alike."""
    return 1 / tasks


@dataclass(frozen=True)
class Strategy:
    """How a learner treats its past.

    solver: what the solver rehearses, or None.
    generator: what the generator rehearses, or None. The very value that the solver has means
        that both learn from the same dreams.
    importance: the weight r of the new task in both losses, in [0, 1] (Shin et al. 2017, the
        training loss): a number, or a function of the number of tasks met, this one included.
        With 0 a scholar is taught by the last one alone.
    generator_importance: the generator's own r, or None if it is the solver's.
    stored: how many real examples a class are kept after each task; None keeps all.
    anew: does each task begin with untrained networks, which the frozen scholar teaches?
    """

    solver: Replay | None
    generator: Replay | None = None
    importance: Importance = one_over_tasks
    generator_importance: Importance | None = None
    stored: int | None = 0
    anew: bool = False

    def weights_of_new(self, tasks: int) -> tuple[float, float]:
        """r in the solver's loss and in the generator's, for a learner whose present task is
        number `tasks` (from 1); both 1 in the first task.

        Raises:
            ValueError: r is not in [0, 1].
        """
        own = self.importance if self.generator_importance is None else self.generator_importance
        weights = [r(tasks) if callable(r) else r for r in (self.importance, own)]
        for r in weights:
            if not 0 <= r <= 1:
                raise ValueError(f"importance must lie in [0, 1], got {r}")
        return (float(weights[0]), float(weights[1])) if tasks > 1 else (1.0, 1.0)


def none() -> Strategy:
    """No rehearsal: plain training on one task after the other."""
    return Strategy(None)


def generative(
    label: Label = Soft(),
    align: bool = False,
    spread: float = 1.0,
    sharpen: float = 1.0,
    best_of: int = 1,
    **changes: Any,
) -> Strategy:
    """Deep generative replay (Shin et al. 2017): solver and generator rehearse the same dreams.
    Sharpened dreams are for the solver alone, or each generation would sharpen the last.

    With a conditional generator this is conditional, class-balanced replay.
    """
    replay = Generative(label, align, spread, sharpen, best_of)
    return replace(Strategy(replay, replace(replay, sharpen=1.0)), **changes)


def stored(per_class: int = 100, label: Label = ByCode()) -> Strategy:
    """Experience replay: of every class `per_class` random real examples are kept, for each task
    that it is met in."""
    return Strategy(Stored(label), stored=per_class)


def exact(label: Label = Hard()) -> Strategy:
    """The paper's ER: all past inputs are kept and labelled by the old solver."""
    return Strategy(Stored(label), stored=None)


def joint(label: Label = ByCode()) -> Strategy:
    """The upper bound: all past examples are kept, with their true labels, and each task begins
    with an untrained solver. Give task t the steps of t tasks to make it a fair one."""
    return Strategy(Stored(label), stored=None, anew=True)


def noise(label: Label = Soft()) -> Strategy:
    """The paper's control: Gaussian noise with the old solver's answers."""
    return Strategy(Noise(label))


def current(label: Label = Soft()) -> Strategy:
    """Learning without forgetting: the new inputs with the old solver's answers."""
    return Strategy(Current(label))


def generative_and_current(label: Label = Soft()) -> Strategy:
    """Replay mixed with learning without forgetting: half dreams, half new inputs, with the old
    solver's answers. The generator rehearses dreams."""
    return Strategy(Both(Generative(label), Current(label)), Generative(label))


def sketch(label: Label = Hard()) -> Strategy:
    """Mistakes together, as in the common tutorial: nothing is frozen, and the generator learns
    the new task only."""
    return Strategy(Live(Generative(label)))


def live(label: Label = Hard()) -> Strategy:
    """Mistake: the scholar is never frozen, so its errors feed on themselves."""
    replay = Live(Generative(label))
    return Strategy(replay, replay)


def forgetful_generator(label: Label = Soft()) -> Strategy:
    """Mistake: the solver rehearses, the generator learns the new task only."""
    return Strategy(Generative(label))
