"""What each lever of speed is worth: `python benchmarks/levers.py --out DIR`.

A lever is measured like everything in `genreplay bench`: without it, with it, without it, ...,
each measurement against its two neighbours. `DIR/levers.json` holds for each lever what is
compared and `gain`, the time of a step without it over the time with it (above 1: it pays), as a
spread over the rounds; and for `torch.compile` the seconds until the first step is done, in a
process that finds nothing compiled yet and in one that finds the first one's cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import asked
import torch

from genreplay_core import bench, generators, learner, records
from genreplay_core.adapt import optimisers
from genreplay_core.bench import Arm, Recipe, training
from genreplay_core.files import write_json
from genreplay_core.learner import GenerativeReplay
from genreplay_core.nets import adam, pick_device
from genreplay_core.replay import Generative, Hard, Soft

DEAD = 1e-39  # a moment that no longer is a normal number


@dataclass(frozen=True)
class Lever:
    """Two ways to do the same; each makes an arm of a recipe."""

    name: str
    compares: str
    without: Callable[[Recipe], Arm]
    pulled: Callable[[Recipe], Arm]


# ---------------------------------------------------------------- what the levers change


@contextlib.contextmanager
def setting(place: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, an attribute has another value."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def blocks(steps: int) -> Callable[[Recipe], Arm]:
    """Draw and dream the rows of so many steps at once."""
    return partial(training, around=partial(setting, learner, "BLOCK", steps))


def dreaming_apart(scholar: GenerativeReplay) -> None:
    """Give the generator dreams of its own: as many, from the same networks."""
    dreams = scholar.strategy.solver
    assert isinstance(dreams, Generative)
    # the generator looks at no label, but another one makes it another replay
    label = Soft() if dreams.label == Hard() else Hard()
    scholar.strategy = replace(scholar.strategy, generator=replace(dreams, label=label))


def stepping(fused: bool, foreach: bool) -> Callable[[GenerativeReplay], None]:
    """Let every Adam step in this way; neither is a loop over the parameters."""

    def prepare(scholar: GenerativeReplay) -> None:
        assert scholar.generator is not None
        for optimiser in (scholar.optimiser, *(o for _, o in optimisers(scholar.generator))):
            for group in optimiser.param_groups:
                group.update(fused=fused, foreach=foreach)

    return prepare


def descend_everywhere(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> torch.Tensor:
    """`nets.descend` without its restraint: every parameter in reach gets a gradient."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()


def compiled(scholar: GenerativeReplay, backend: str = "inductor") -> None:
    """Compile the solver and the generator's loss."""
    generator: Any = scholar.generator
    scholar.solver.compile(backend=backend)
    generator.loss = torch.compile(generator.loss, backend=backend)


def channels_first(scholar: GenerativeReplay) -> None:
    """Lay out the generator's weights as PyTorch does if nothing is said."""
    assert scholar.generator is not None
    scholar.generator.to(memory_format=torch.contiguous_format)


@contextlib.contextmanager
def denormals(kept: bool) -> Iterator[None]:
    """Inside, numbers below 1e-38 are kept on this thread, or flushed to 0."""
    before = float(torch.tensor(DEAD) * 1) != 0
    torch.set_flush_denormal(not kept)
    try:
        yield
    finally:
        torch.set_flush_denormal(not before)


def dying(recipe: Recipe, kept: bool) -> Arm:
    """Adam's step alone, on one thread, when a third of the units of solver and VAE have died:
    their gradients are 0 and their first moments have shrunk to denormal numbers."""
    parameters = [p for network in recipe.networks() for p in network.parameters()]
    optimiser = adam(parameters)
    for p in parameters:
        p.grad = torch.full_like(p, 1e-3)
        p.grad[: len(p) // 3] = 0
    optimiser.step()

    def measure() -> float:
        with bench.thread_count(1), denormals(True):
            for p in parameters:
                optimiser.state[p]["exp_avg"][: len(p) // 3] = DEAD
            with denormals(kept):
                begun = bench.now(parameters[0].device)
                for _ in range(recipe.steps):
                    optimiser.step()
                return (bench.now(parameters[0].device) - begun) / recipe.steps

    return measure


LEVERS = (
    Lever("blocks of 16", "16 steps drawn and dreamt at once, or 1", blocks(1), blocks(16)),
    Lever("blocks of 64", "64 steps drawn and dreamt at once, or 16", blocks(16), blocks(64)),
    Lever(
        "one dream",
        "solver and generator rehearse the same dreams, or each its own",
        partial(training, prepare=dreaming_apart),
        training,
    ),
    Lever(
        "foreach Adam",
        "or a loop over the parameters",
        partial(training, prepare=stepping(fused=False, foreach=False)),
        partial(training, prepare=stepping(fused=False, foreach=True)),
    ),
    Lever(
        "fused Adam",
        "or foreach",
        partial(training, prepare=stepping(fused=False, foreach=True)),
        partial(training, prepare=stepping(fused=True, foreach=False)),
    ),
    Lever(
        "flushed denormals",
        "Adam's step alone when a third of the units have died, on one thread",
        partial(dying, kept=True),
        partial(dying, kept=False),
    ),
    Lever(
        "needed gradients only",
        "WGAN: the generator's step computes none for the critic, or all",
        partial(
            training,
            generator="wgan",
            around=partial(setting, generators, "descend", descend_everywhere),
        ),
        partial(training, generator="wgan"),
    ),
    Lever(
        "two threads",
        "or one",
        partial(training, around=partial(bench.thread_count, 1)),
        partial(training, around=partial(bench.thread_count, 2)),
    ),
    Lever("bfloat16", "autocast, or float32", training, partial(training, precision="bfloat16")),
    Lever(
        "channels last",
        "convolutional VAE: weights laid out so, or as usual",
        partial(training, generator="conv-vae", prepare=channels_first),
        partial(training, generator="conv-vae"),
    ),
    Lever(
        "torch.compile",
        "of the solver and the VAE's loss, when all is compiled",
        training,
        partial(training, prepare=compiled),
    ),
)


# ---------------------------------------------------------------- measuring


def measured(lever: Lever, recipe: Recipe, rounds: int) -> dict[str, Any]:
    """The lever's gain, or the reason why it can't be pulled here."""
    try:
        arms = {"pulled": lever.pulled(recipe)}
        rows = bench.compare(lever.without(recipe), arms, rounds, lambda what: None)
    except RuntimeError as error:  # torch.compile without a compiler, a kernel that isn't there
        return {"compares": lever.compares, "failed": str(error).splitlines()[0]}
    gain = bench.spread([1 / slow for slow in bench.slowness(rows, "pulled")])
    return {"compares": lever.compares, "gain": gain, "rounds": [row["pulled"] for row in rows]}


def first_step(recipe: Recipe) -> float:
    """Seconds that the first task of a compiled scholar takes longer than the second: what
    compiling costs."""
    measure = training(recipe, prepare=compiled, clock=bench.whole)
    begun = time.perf_counter()
    measure()
    middle = time.perf_counter()
    measure()
    return (middle - begun) - (time.perf_counter() - middle)


def compile_seconds(recipe: Recipe) -> list[float]:
    """What compiling costs in a process that finds an empty cache, and in the next one."""
    described = json.dumps(asdict(recipe))
    command = [sys.executable, __file__, "--first-step", described]
    with TemporaryDirectory() as cache:
        known = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
        run = partial(subprocess.run, command, env=known, check=True, stdout=subprocess.PIPE)
        return [float(run().stdout) for _ in range(2)]


def table(found: dict[str, dict[str, Any]]) -> str:
    """The gains as text."""
    lines = [f"{'lever':<24}{'gain':>6}   quartiles"]
    for name, one in found.items():
        gain = one.get("gain")
        said = gain and f"{gain['median']:>6.2f}   {gain['q1']:.2f} to {gain['q3']:.2f}"
        lines.append(f"{name:<24}{said or '     -   ' + one['failed']}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = asked.parser(__doc__, "runs/levers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[each.name for each in LEVERS])
    parser.add_argument("--first-step", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.first_step is not None:
        print(first_step(Recipe(**options.first_step)))
        return
    chosen = [each for each in LEVERS if options.only is None or each.name in options.only]
    with asked.recipe(options, steps=options.steps) as (recipe, source):
        found = {}
        for lever in chosen:
            print(f"{lever.name} ...", flush=True)
            found[lever.name] = measured(lever, recipe, options.rounds)
        compiling = "torch.compile" in found and "gain" in found["torch.compile"]
        result = {
            "levers": found,
            "compile_seconds": compile_seconds(recipe) if compiling else None,
            "data": source,
            "environment": records.environment(pick_device(options.device)),
        }
    write_json(options.out / "levers.json", result)
    print(table(found))


if __name__ == "__main__":
    main()
