"""Many seeds at once: S scholars that learn side by side, each step of all S one batched product.

    records = run_together([replace(config, seed=seed) for seed in range(20)], device="cuda")

These networks are small: most of a GPU lies idle while one of them takes a step. So S networks
are stacked, weight beside weight, and one product does the work of S. Rows are interleaved:

    row i of a batch belongs to network i mod S

wherever rows meet, so steps' slices, new rows before old ones, noise, labels and weights go through
the ordinary learner as they are. The loss is the sum of the S losses, the gradient of each network
its own, and Adam, which works number by number, doesn't notice that there are several.

The same seeds give the same untrained networks and the same streams as runs one by one, but not
the same random draws: batches, noise and dreams follow from all the seeds together. A seed's
figures are then those of another run of its kind, not the very ones that `run` finds. The same
seeds together give the same bits. All of it takes the memory of S runs.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .config import Config, build_strategy
from .data import Examples, joined
from .experiment import Progress, Run
from .faults import enough_memory
from .generators import VAE, WGANGP, FlowMatching
from .learner import GenerativeReplay, Mixture, Trainee, shuffled
from .records import Record
from .replay import Both, Replay
from .seeds import mixed

# ---------------------------------------------------------------- networks


class Stacked(nn.Module):
    """S networks alike as one: row i of what comes in is seen by network i mod S alone.

    Parameters are those of one network with a first dimension more, (S, ...), beginning with the
    values that the networks have. forward: (N * S, ...) -> (N * S, ...).

    Raises:
        ValueError: no networks, or of different shapes; they have buffers, which a batch norm
            would move. When called: rows that S doesn't divide.
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        if any(True for network in networks for _ in network.buffers()):
            raise ValueError("networks with buffers, as a batch norm has, can't be stacked")
        if len({tuple(p.shape for p in network.parameters()) for network in networks}) != 1:
            raise ValueError("expected one network or more, with parameters of the same shapes")
        self.count = len(networks)
        self.network = copy.deepcopy(networks[0])  # to be called with slices of its parameters
        for own, *theirs in zip(*(n.parameters() for n in (self.network, *networks)), strict=True):
            own.data = torch.stack([parameter.detach() for parameter in theirs])

    def forward(self, x: Tensor) -> Tensor:
        if len(x) % self.count:
            raise ValueError(f"expected rows for {self.count} networks alike, got {len(x)} rows")

        def one(parameters: dict[str, Tensor], rows: Tensor) -> Any:
            return functional_call(self.network, parameters, (rows,))

        each = torch.vmap(one, in_dims=(0, 1), out_dims=1, randomness="different")
        rows = x.unflatten(0, (-1, self.count))  # (N, S, ...)
        return each(dict(self.network.named_parameters()), rows).flatten(0, 1)


@torch.no_grad()
def hand_out(stacked: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Copy the parameters of S stacked networks, or of a generator made of such, in place into S
    plain ones."""
    for own, *theirs in zip(*(n.parameters() for n in (stacked, *networks)), strict=True):
        for plain, mine in zip(theirs, own.view(len(theirs), *theirs[0].shape), strict=True):
            plain.copy_(mine)


# ---------------------------------------------------------------- generators


class StackedVAE(VAE):
    """S VAEs as one. The S tables of priors stand one below the other: (S * classes, 2 * D)."""

    def __init__(self, vaes: Sequence[VAE]):
        first = vaes[0]
        encoder, decoder = Stacked([v.encoder for v in vaes]), Stacked([v.decoder for v in vaes])
        classes, lr = first.code.classes, _rate(first.optimiser)
        super().__init__(encoder, decoder, first.latent_dim, classes, lr)
        self.count = len(vaes)
        self.prior.data = torch.cat([vae.prior.detach() for vae in vaes])

    def prior_of(self, y: Tensor | None) -> tuple[Tensor, Tensor]:
        if y is None:
            return super().prior_of(None)
        network = torch.arange(len(y), device=y.device) % self.count
        return super().prior_of(y + network * (len(self.prior) // self.count))


def _stacked_wgan(wgans: Sequence[WGANGP]) -> WGANGP:
    first = wgans[0]
    network, critic = Stacked([w.network for w in wgans]), Stacked([w.critic for w in wgans])
    settings = first.latent_dim, first.code.classes, first.critic_steps, first.penalty
    rates = _rate(first.optimiser), _rate(first.critic_optimiser)
    return WGANGP(network, critic, *settings, one_sided=first.lowest == 0, lr=rates)


def _stacked_flow(flows: Sequence[FlowMatching]) -> FlowMatching:
    first, network = flows[0], Stacked([flow.network for flow in flows])
    settings = first.shape, first.code.classes, first.ode_steps, _rate(first.optimiser)
    return FlowMatching(network, *settings)


def stacked_generator(generators: Sequence[Any]) -> nn.Module:
    """S generators alike as one whose rows are interleaved, with new optimisers.

    Raises:
        ValueError: they are of another kind than VAE, WGANGP and FlowMatching; they differ in
            shape.
    """
    kinds: dict[type, Any] = {VAE: StackedVAE, WGANGP: _stacked_wgan, FlowMatching: _stacked_flow}
    kind = type(generators[0])
    if kind not in kinds:
        raise ValueError(f"{kind.__name__} can't be stacked: use VAE, WGANGP or FlowMatching")
    stacked: nn.Module = kinds[kind](generators)
    return stacked


def _rate(optimiser: torch.optim.Optimizer) -> float:
    """The learning rate, the same for all parameters."""
    return float(optimiser.param_groups[0]["lr"])


# ---------------------------------------------------------------- learning


@dataclass(frozen=True)
class Several(Examples):
    """Examples of S tasks, one after the other; the length is that of one task, on average."""

    sizes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return round(len(self.x) / len(self.sizes))


class Cohort(GenerativeReplay):
    """S scholars that learn side by side, each its own tasks.

        cohort = Cohort(scholars)
        cohort.train_task([stream[0].train for stream in streams], 0, steps=300)
        cohort.hand_out()

    A batch has `batch` new rows for each scholar, and so on: all numbers are those of one of
    them. An epoch is a pass over the average task. Losses are sums over the scholars.

    Args:
        scholars: untrained, on one device, and alike but for their weights and seeds. They keep
            their weights until `hand_out`.

    Raises:
        ValueError: no scholars; their networks can't be stacked; they have a regulariser or store
            examples, which would be mixed; or autocast, which overlooks stacked networks.
    """

    def __init__(self, scholars: Sequence[GenerativeReplay]):
        if not scholars:
            raise ValueError("a cohort needs at least one scholar")
        first, seeds = scholars[0], [s.seed for s in scholars if s.seed is not None]
        if first.strategy.stored != 0 or first.regulariser or first.precision:
            raise ValueError("a cohort can't have stored examples, a regulariser or autocast")
        generators = [s.generator for s in scholars if s.generator is not None]
        super().__init__(
            Stacked([scholar.solver for scholar in scholars]),
            stacked_generator(generators) if generators else None,
            first.device,
            strategy=first.strategy,
            batch=first.batch,
            lr=_rate(first.optimiser),
            seed=mixed(*seeds) if seeds else None,
            reset_optimisers=first.reset_optimisers,
            average=first.average,
            generator_average=first.generator_average,
            lr_end=first.lr_end,
            augment=first.augment,
            capture=first.capture,
        )
        self.scholars = list(scholars)

    def hand_out(self) -> None:
        """Give every scholar the weights that it has by now."""
        hand_out(self.solver, [scholar.solver for scholar in self.scholars])
        for scholar in self.scholars:
            scholar.seen = self.seen.clone()
        if self.generator is not None:
            hand_out(self.generator, [s.generator for s in self.scholars if s.generator])

    def _look(self, examples: Examples, trained: Trainee) -> None:
        """Not at dreams of several at once, in which one that has collapsed doesn't show."""

    def _read(self, source: Sequence[Any], task_id: int) -> Examples:
        """The examples of each scholar, who checks its own."""
        parts = [s._read(own, task_id) for s, own in zip(self.scholars, source, strict=True)]
        self.legend = self.scholars[0].legend
        if not len(self.seen):
            self.seen = self.scholars[0].seen
        all_of = joined(parts)
        return Several(all_of.x, all_of.y, tuple(len(part) for part in parts))

    def _drawing(self, examples: Examples) -> Callable[[int], Tensor]:
        """Of k rows, as many of each task, interleaved."""
        assert isinstance(examples, Several)
        sizes, count = examples.sizes, len(examples.sizes)
        draws = [shuffled(size, self.device) for size in sizes]
        starts = torch.tensor([0, *itertools.accumulate(sizes[:-1])], device=self.device)  # (S,)
        return lambda k: (torch.stack([draw(k // count) for draw in draws], 1) + starts).flatten()

    def _mixture(self, replay: Replay | None, new: int, old: int) -> Mixture:
        """The mixture of one scholar, each row as often as there are scholars."""
        one, count = super()._mixture(replay, new, old), len(self.scholars)
        weights = [w.repeat_interleave(count) for w in (one.weight, one.generator_weight)]
        return Mixture(one.replay, count * one.new, count * one.old, *weights)


# ---------------------------------------------------------------- experiments


def obstacle(config: Config) -> str | None:
    """What keeps several seeds of this config from being learned together, or None."""
    for name in ("regulariser", "precision", "curve_every", "quality", "privacy", "task_free"):
        if getattr(config, name) != getattr(Config, name):
            return f"seeds learned together can't have {name} {getattr(config, name)}"
    strategy = build_strategy(config)
    if strategy.stored != 0 or isinstance(strategy.solver, Both):  # whose rows come out of turn
        return f"seeds learned together can't rehearse by replay '{config.replay}'"
    return None


def run_together(
    configs: Sequence[Config], *, device: str = "auto", progress: Progress | None = None
) -> list[Record]:
    """Run experiments that differ in their seeds alone as one, and record each.

    The records have the form of `experiment.run`'s and one entry more, `together`: how many
    runs shared the time. `seconds` is a run's share, so that they add up to the whole.

    Args:
        configs: the same but for their seeds, which differ.
        device: see `nets.pick_device`.
        progress: called often, with the task, how many there are, and how much of it is done.

    Raises:
        ValueError: bad options; configs that differ in more than the seed, or can't be learned
            together (see `obstacle`).
        Diverged: a loss became nan; it isn't known whose. MemoryError: the runs don't fit.
    """
    _check(configs)
    with enough_memory("for so many seeds together"):
        runs = [Run(config, device) for config in configs]
        cohort = Cohort([run.scholar for run in runs])
        for task in range(len(runs[0].stream)):
            _step_task(cohort, runs, task, progress)
    return [{**run.record(), "together": len(runs)} for run in runs]


def _check(configs: Sequence[Config]) -> None:
    seeds = {config.seed for config in configs}
    if not seeds or len(seeds) < len(configs):
        raise ValueError("runs that are learned together need different seeds, at least one")
    if any(replace(config, seed=configs[0].seed) != configs[0] for config in configs):
        raise ValueError("only runs that differ in nothing but their seeds can be learned together")
    if (found := obstacle(configs[0])) is not None:
        raise ValueError(f"{found}: run them one by one")


def _step_task(cohort: Cohort, runs: list[Run], task: int, progress: Progress | None) -> None:
    """Learn the next task of every run and measure."""
    begun, config = time.perf_counter(), runs[0].config
    if task == 0:
        _measure(runs)

    def watch(done: int, total: int) -> None:
        if progress is not None:
            progress(task, len(runs[0].stream), done / total)

    trained = cohort.train_task(
        [run.stream[task].train for run in runs],
        task,
        epochs=config.epochs or 1,
        replay_ratio=config.replay_ratio,
        steps=config.steps,
        generator_steps=config.generator_steps,
        watch=watch,
    )
    cohort.hand_out()
    _measure(runs)
    seconds = time.perf_counter() - begun
    for run in runs:
        run.state.steps += len(trained.solver_loss)
        run.state.training_seconds += trained.seconds / len(runs)
        run.state.seconds += seconds / len(runs)


def _measure(runs: list[Run]) -> None:
    """A row more for every accuracy matrix."""
    for run in runs:
        run.state.matrix.append(run.accuracies(len(run.stream)))
