"""How fast a training step is, and how fast it could be: `genreplay bench --out DIR`.

    result = bench("runs/bench", avalanche="avalanche/bin/python")
    print(table(result))

What is measured is the published recipe on the second task of split MNIST: solver 784-400-400-10,
VAE 784-400-400-z100-400-400-784, 128 new and 128 replayed rows in each step of both. A *step* is
one step of the solver and one of the generator, with its share of drawing, dreaming and labelling.

* `vae` and the other generators: ours, through `GenerativeReplay.train_task`.
* `bound`: the matrix products that a step with the VAE cannot avoid, and nothing else.
* `reference` and `avalanche`: the scripts in `benchmarks/`, each in a process of its own.

A machine's speed wanders, so nothing is measured only once and nothing far from what it is held
against: `vae, bound, vae, reference, vae, ...`, round after round. Each time is divided by the mean
of the `vae` just before it and the one just after; of these ratios the median and the quartiles
are kept. Every measurement begins from the same state and is warmed up, and the clock is read when
the device has done what it was asked to.

`DIR/bench.json` holds `fraction_of_bound`, `speedup_over_reference`, `speedup_over_avalanche` and
`throughput_two_over_one`, each {median, q1, q3, rounds}, or null for what wasn't measured;
`steps_per_second`, such a spread for each arm; `rounds`, for each round and arm the seconds per
step (vae before it, the arm, vae after it), and `rounds_of_seeds` (one seed on two threads, two
seeds side by side on one each, one seed).
"""

from __future__ import annotations

import contextlib
import copy
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from . import learner, plots, records
from .config import Config, build_scholar
from .data import Pair, Stream, checked, split
from .datasets import SOURCES, data_folder
from .files import write_json
from .generators import VAE, mlp_vae
from .learner import GenerativeReplay
from .nets import mlp_solver, pick_device

Arm = Callable[[], float]  # measures once: seconds per step
Row = dict[str, tuple[float, float, float]]  # arm -> seconds per step: home before, arm, home after
Clock = Callable[[GenerativeReplay, Stream, int], float]  # (scholar, stream, steps) -> per step

OTHERS: dict[str, dict[str, Any]] = {
    "vae in bfloat16": {"precision": "bfloat16"},
    "conditional vae": {"replay": "conditional"},
    "wgan": {"generator": "wgan"},
    "flow": {"generator": "flow"},
    "conv-vae": {"generator": "conv-vae"},
}

FIGURES = {  # each is the arm's time per step over that of `vae`
    "fraction_of_bound": "bound",
    "speedup_over_reference": "reference",
    "speedup_over_avalanche": "avalanche",
}

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
WORKER = "from genreplay_core.bench import serve; serve()"

WARM = 16  # steps before the clock is started


@dataclass(frozen=True)
class Recipe:
    """What is measured, as plain values, so that another process can be told.

    folder: holds MNIST, or what passes for it, as torchvision lays it out.
    steps: of one measurement, after those that warm up.
    """

    folder: str
    device: str = "auto"
    batch: int = 128
    hidden: int = 400
    steps: int = 96

    def config(self, **changes: Any) -> Config:
        """The published recipe, with changes; classes come in their order."""
        usual = {"dataset": "mnist", "replay": "generative", "labels": "hard"}
        sizes = {"batch": self.batch, "hidden": self.hidden, "class_order": tuple(range(10))}
        return Config(**{**usual, **sizes, **changes})

    def networks(self) -> tuple[nn.Module, VAE]:
        """Solver and VAE, untrained, on the device."""
        device, shape = pick_device(self.device), (1, 28, 28)
        solver, vae = mlp_solver(shape, 10, self.hidden), mlp_vae(shape, hidden=self.hidden)
        return solver.to(device), vae.to(device)


def images_in(folder: str) -> Pair:
    """MNIST, or random images that pass for it, which are not as MNIST was published."""
    read = partial(SOURCES["mnist"].read, Path(folder), download=False)
    return checked(read(train=True)), checked(read(train=False))


@lru_cache(maxsize=1)
def stream_in(folder: str) -> Stream:
    """Split MNIST in the order of its classes; its first two tasks are built once."""
    stream = split(images_in(folder), 5, "class", order=range(10))
    return Stream(stream.names, stream.shape, stream.legend, lru_cache(maxsize=2)(stream.build))


def now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


# ---------------------------------------------------------------- comparing


def compare(home: Arm, others: Mapping[str, Arm], rounds: int, tell: Callable[[str], None]) -> list:
    """Measure home, other, home, other, ..., home, after a run of each that doesn't count.

    Args:
        tell: is told what comes next.

    Returns:
        A `Row` for each round.
    """
    for name, arm in {"home": home, **others}.items():
        tell(f"warming up: {name}")
        arm()
    rows, before = [], home()
    for number in range(1, rounds + 1):
        row: Row = {}
        for name, arm in others.items():
            tell(f"round {number} of {rounds}: {name}")
            seconds, after = arm(), home()
            row[name], before = (before, seconds, after), after
        rows.append(row)
    return rows


def slowness(rows: Sequence[Row], name: str) -> list[float]:
    """In each round, the arm's time over the mean of its two neighbours'. A speed that changes
    steadily from the one to the other cancels."""
    return [2 * arm / (before + after) for before, arm, after in (row[name] for row in rows)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of what was measured in so many rounds."""
    q1, median, q3 = np.percentile(values, [25, 50, 75]).tolist()
    return {"median": median, "q1": q1, "q3": q3, "rounds": len(values)}


# ---------------------------------------------------------------- ours


def timed(scholar: GenerativeReplay, stream: Stream, steps: int) -> float:
    """Seconds per step of the second task, without what `train_task` does once: the first steps
    warm up, and the clock is read at the ends of blocks.

    If solver and generator don't share their dreams, they are trained in two passes; the time of
    a step is then the sum of both.
    """
    stamps: dict[int, float] = {}  # the last look at a step is at its block's end
    warm = max(WARM, learner.BLOCK)
    length = warm + steps

    def look(done: int, total: int) -> None:
        stamps[done] = now(scholar.device)

    scholar.train_task(stream[1].train, 1, replay_ratio=1.0, steps=length, watch=look)
    starts = range(0, max(stamps), length)
    return sum(stamps[start + length] - stamps[start + warm] for start in starts) / steps


def whole(scholar: GenerativeReplay, stream: Stream, steps: int) -> float:
    """Seconds per step of the second task, with all that `train_task` does."""
    task = stream[1].train
    return scholar.train_task(task, 1, replay_ratio=1.0, steps=steps).seconds / steps


def training(
    recipe: Recipe,
    prepare: Callable[[GenerativeReplay], object] = lambda scholar: None,
    around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    clock: Clock = timed,
    **changes: Any,
) -> Arm:
    """The second task, learned by our learner.

    Args:
        prepare: changes the scholar before it is measured.
        around: what each measurement runs in.
        changes: of the recipe's config.
    """
    stream = stream_in(recipe.folder)
    scholar = build_scholar(recipe.config(**changes), stream, recipe.device)
    scholar.train_task(stream[0].train[: recipe.batch], 0, steps=1)
    prepare(scholar)
    saved = copy.deepcopy(scholar.state_dict())

    def measure() -> float:
        scholar.load_state_dict(saved)
        with around():
            return clock(scholar, stream, recipe.steps)

    return measure


# ---------------------------------------------------------------- the bound


def linears(network: nn.Module) -> list[nn.Linear]:
    """The linear layers in the order in which they were made."""
    return [part for part in network.modules() if isinstance(part, nn.Linear)]


def products(layers: Sequence[nn.Linear], rows: int, trained: bool) -> list[tuple[Tensor, Tensor]]:
    """The matrix products of a chain of linear layers, as pairs of factors, laid out as they are
    when autograd multiplies them.

    Forward `x @ W.T`; if trained, the gradients of the weights `g.T @ x` and of the inputs
    `g @ W`, the latter not in the first layer, whose input is data.
    """
    factors = []
    for depth, layer in enumerate(layers):
        weight = torch.randn_like(layer.weight)  # (out, in)
        x = weight.new_empty(rows, layer.in_features).normal_()
        factors.append((x, weight.T))
        if trained:
            g = weight.new_empty(rows, layer.out_features).normal_()
            factors.append((g.T, x))
            if depth:
                factors.append((g, weight))
    return factors


def step_products(solver: nn.Module, vae: VAE, new: int, old: int) -> list[tuple[Tensor, Tensor]]:
    """The matrix products that a step cannot avoid: solver and VAE learn from all rows, the frozen
    decoder makes the old ones and the frozen solver labels them."""
    learned = [products(linears(network), new + old, True) for network in (solver, vae)]
    frozen = [products(linears(network), old, False) for network in (solver, vae.decoder)]
    return [pair for part in learned + frozen for pair in part]


def flop(factors: Sequence[tuple[Tensor, Tensor]]) -> int:
    """Floating-point operations, a multiplication and an addition counting as two."""
    return sum(2 * left.numel() * right.shape[1] for left, right in factors)


def bound(recipe: Recipe) -> Arm:
    """The matrix products of a step, one after the other, into memory that is there already."""
    factors = step_products(*recipe.networks(), recipe.batch, recipe.batch)
    work = [(a, b, a.new_empty(a.shape[0], b.shape[1])) for a, b in factors]
    device = factors[0][0].device

    def multiply(times: int) -> float:
        begun = now(device)
        for _ in range(times):
            for left, right, result in work:
                torch.mm(left, right, out=result)
        return (now(device) - begun) / times

    def measure() -> float:
        multiply(2)
        return multiply(recipe.steps)

    return measure


# ---------------------------------------------------------------- other processes


@contextlib.contextmanager
def asking(name: str, command: Sequence[str]) -> Iterator[tuple[dict[str, Any], Arm]]:
    """A program that says a line of JSON about itself, and then, for each line that it is sent,
    {"steps": ..., "seconds": ...}. Yields what it said about itself, and the arm of that name.

    Raises:
        ValueError: it ends, or says something else.
        OSError: it can't be started.
    """

    def answer() -> dict[str, Any]:
        assert process.stdout is not None
        try:
            return dict(json.loads(process.stdout.readline()))
        except (ValueError, TypeError):
            raise ValueError(f"{command[0]} can't run '{name}': it says why above") from None

    def measure() -> float:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: there will be no answer
            process.stdin.write(b"go\n")
        found = answer()
        return float(found["seconds"]) / int(found["steps"])

    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0) as process:
        try:
            yield answer(), measure
        finally:
            process.kill()


def competitors(recipe: Recipe, avalanche: str | None) -> dict[str, list[str]]:
    """The commands of the scripts in `benchmarks/`, if this is a checkout that has them."""
    options = {
        **{"data": recipe.folder, "device": pick_device(recipe.device)},
        **{"steps": recipe.steps, "batch": recipe.batch, "hidden": recipe.hidden},
        "threads": torch.get_num_threads(),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    pythons = {"reference": sys.executable, "avalanche": avalanche}
    scripts = {name: SCRIPTS / f"{name}_replay.py" for name in pythons}
    return {
        name: [python, "-W", "ignore", str(scripts[name]), *words]
        for name, python in pythons.items()
        if python is not None and scripts[name].is_file()
    }


def serve(words: Sequence[str] | None = None) -> None:
    """Our recipe as such a program; its arguments are the number of threads and the recipe as
    JSON. It times whole tasks, and answers with the steps of all of it."""
    threads, described = sys.argv[1:] if words is None else words
    torch.set_num_threads(int(threads))
    recipe = Recipe(**json.loads(described))
    measure = training(recipe, clock=whole)
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        seconds = recipe.steps * measure()
        print(json.dumps({"steps": recipe.steps, "seconds": seconds}), flush=True)


@contextlib.contextmanager
def side_by_side(recipe: Recipe, processes: int, threads: int) -> Iterator[Arm]:
    """So many processes of so many threads, each of which learns the task with a scholar of its
    own; the time is that until the last has ended, divided by the steps of all."""
    command = [sys.executable, "-c", WORKER, str(threads), json.dumps(asdict(recipe))]
    with contextlib.ExitStack() as stack:
        arms = [stack.enter_context(asking("a seed", command))[1] for _ in range(processes)]
        pool = stack.enter_context(ThreadPoolExecutor(processes))  # its threads only wait

        def measure() -> float:
            begun = time.perf_counter()
            for waiting in [pool.submit(arm) for arm in arms]:
                waiting.result()
            return (time.perf_counter() - begun) / (processes * recipe.steps)

        yield measure


# ---------------------------------------------------------------- all of it


def bench(
    out: str | Path,
    *,
    rounds: int = 9,
    steps: int = 96,
    device: str = "auto",
    threads: int | None = None,
    avalanche: str | None = None,
    quick: bool = False,
    tell: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Measure everything in one run, and write `bench.json` and `bench.png`.

    Args:
        rounds: measurements of each arm; steps: of each measurement; threads: of each arm.
        avalanche: the Python of an environment that holds avalanche-lib; None leaves it out.
        quick: tiny networks, batches and data; the figures mean nothing.
        tell: is told what is measured next.

    Raises:
        ValueError: numbers below 1, no such device, Avalanche can't be run.
        OSError: the folder can't be written, Avalanche's Python can't be started.
    """
    out = Path(out)
    if min(rounds, steps, threads or 1) < 1:
        raise ValueError(f"expected 1 or more, got {rounds=}, {steps=}, {threads=}")
    records.claim(out)
    sizes = {"batch": 8, "hidden": 16} if quick else {}
    with thread_count(threads), data_set(quick) as (folder, source):
        recipe = Recipe(folder, device, steps=steps, **sizes)
        result = {
            "command": _command(rounds, steps, device, threads, avalanche, quick),
            "data": source,
            "recipe": {k: v for k, v in asdict(recipe).items() if k != "folder"},
            **measured(recipe, rounds, avalanche, tell),
            "environment": records.environment(pick_device(device)),
        }
    write_json(out / "bench.json", result)
    plots.save(figure(result), out / "bench.png")
    return result


def _command(
    rounds: int, steps: int, device: str, threads: int | None, avalanche: str | None, quick: bool
) -> str:
    """What measures this again. Where Avalanche lies is this machine's own affair."""
    given = f"genreplay bench --rounds {rounds} --steps {steps} --device {device}"
    given += f" --threads {threads}" if threads else ""
    given += " --avalanche PYTHON" if avalanche else ""
    return given + (" --quick" if quick else "")


def measured(
    recipe: Recipe, rounds: int, avalanche: str | None, tell: Callable[[str], None]
) -> dict[str, Any]:
    """All that is measured, ready for JSON."""
    factors = step_products(*recipe.networks(), recipe.batch, recipe.batch)
    others, about = {"bound": bound(recipe)}, {}
    with contextlib.ExitStack() as stack:
        for name, command in competitors(recipe, avalanche).items():
            about[name], others[name] = stack.enter_context(asking(name, command))
        others |= {name: training(recipe, **changes) for name, changes in OTHERS.items()}
        rows = compare(training(recipe), others, rounds, tell)
    longer = replace(recipe, steps=4 * recipe.steps)  # whole tasks are timed, and begin slowly
    with side_by_side(longer, 1, 2) as one, side_by_side(longer, 2, 1) as two:
        pairs = compare(one, {"two seeds": two}, rounds, tell)
    ratios = {key: spread(slowness(rows, a)) if a in others else None for key, a in FIGURES.items()}
    return {
        **ratios,
        "throughput_two_over_one": spread([1 / slow for slow in slowness(pairs, "two seeds")]),
        "steps_per_second": speeds(rows),
        "gflop_per_step": flop(factors) / 1e9,
        "others": about,
        "rounds": rows,
        "rounds_of_seeds": pairs,
    }


def speeds(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The spread of each arm's steps per second; `vae` is home."""
    homes = [1 / after for row in rows for _, _, after in row.values()]
    arms = {name: [1 / row[name][1] for row in rows] for name in rows[0]}
    return {name: spread(values) for name, values in {"vae": homes, **arms}.items()}


def figure(result: Mapping[str, Any]) -> Figure:
    """The steps per second as bars."""
    found = result["steps_per_second"].items()
    bars = {name: (s["q1"], s["median"], s["q3"]) for name, s in found}
    return plots.bars(bars, "steps per second")


def table(result: Mapping[str, Any]) -> str:
    """What `bench` found, as text."""
    figures = {name: result[name] for name in (*FIGURES, "throughput_two_over_one")}
    lines = []
    for head, part in {"steps per second": result["steps_per_second"], "ratio": figures}.items():
        lines.append(f"\n{head:<26}{'median':>8}   quartiles")
        for name, s in part.items():
            there = s and f"{s['median']:>8.4g}   {s['q1']:.4g} to {s['q3']:.4g}"
            lines.append(f"{name.replace('_', ' '):<26}{there or '     not measured'}")
    return "\n".join(lines)


# ---------------------------------------------------------------- small helpers


@contextlib.contextmanager
def thread_count(threads: int | None) -> Iterator[None]:
    """Inside, torch computes with so many threads, or with as many as before if None."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def data_set(quick: bool) -> Iterator[tuple[str, str]]:
    """A folder that holds MNIST, and "mnist"; or one with random images, and "synthetic", if it
    isn't there or quickness is all that counts. Speed doesn't depend on what the images show."""
    real, place = data_folder(), data_folder() / SOURCES["mnist"].place
    if not quick and all((place / file).is_file() for file in SOURCES["mnist"].files):
        yield str(real), "mnist"
        return
    with TemporaryDirectory() as folder:
        write_images(Path(folder), 400 if quick else 60_000)
        yield folder, "synthetic"


def write_images(folder: Path, count: int) -> None:
    """Random images in files like those of MNIST, the ten classes in turn."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        images = struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        numbers = struct.pack(">2i", 2049, count) + labels.tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(numbers)
