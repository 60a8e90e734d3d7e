"""Cost against work: `python benchmarks/cost.py --out DIR`.

Seconds of a task against its steps, of a step against the batch and against the hidden width, and
time and peak memory of a stream against its number of tasks (permuted MNIST, training alone: the
accuracy matrix that a run fills in grows with the square of the tasks by its nature). Each series
gets the exponent b of the line `log seconds = a + b log size`: 1 means that time is proportional to
size, 0 that it doesn't depend on it. `DIR/cost.json` holds the series, `DIR/cost.png` draws them.

Each stream is learned in a fresh process, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import asked
import numpy as np

from genreplay_core import bench, plots, records
from genreplay_core.bench import Arm, Recipe
from genreplay_core.config import build_scholar
from genreplay_core.data import permuted
from genreplay_core.files import write_json
from genreplay_core.nets import pick_device

Sizes = Mapping[str, Sequence[int]]

SIZES: Sizes = {
    "steps": (50, 100, 200, 400),
    "batch": (32, 64, 128, 256, 512),
    "hidden": (100, 200, 400, 800, 1600),
    "tasks": (10, 50, 100),
}
QUICK: Sizes = {"steps": (2, 4), "batch": (4, 8), "hidden": (8, 16), "tasks": (2, 4)}

STATUS = Path("/proc/self/status")


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log value against log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def series(arms: Mapping[int, Arm], rounds: int) -> dict[str, Any]:
    """Measure arm after arm, round after round: size -> median seconds, with the exponent."""
    for arm in arms.values():
        arm()
    found = [[arm() for arm in arms.values()] for _ in range(rounds)]
    seconds = np.median(found, axis=0).tolist()
    sizes = list(arms)
    return {"sizes": sizes, "seconds": seconds, "exponent": exponent(sizes, seconds)}


def whole_task(recipe: Recipe) -> Arm:
    """Seconds of a task, all that `train_task` does."""
    measure = bench.training(recipe, clock=bench.whole)
    return lambda: recipe.steps * measure()


# ---------------------------------------------------------------- long streams


def peak_memory(status: Path = STATUS) -> int:
    """The most bytes of memory that this process has held."""
    if status.exists():  # Linux, whose ru_maxrss begins at what the parent held when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    import resource  # not there on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def long_stream(recipe: Recipe, tasks: int) -> dict[str, float]:
    """Learn so many permutations: seconds of training, and the peak memory of it all."""
    stream = permuted(bench.images_in(recipe.folder), tasks, "domain")
    config = recipe.config(stream="permuted", scenario="domain", tasks=tasks)
    scholar = build_scholar(config, stream, recipe.device)
    begun = time.perf_counter()
    for task in stream:
        scholar.train_task(task.train, task.id, replay_ratio=1.0, steps=recipe.steps)
    return {"seconds": time.perf_counter() - begun, "bytes": peak_memory()}


def streams(recipe: Recipe, sizes: Sequence[int], threads: int) -> dict[str, Any]:
    """`long_stream` for each number of tasks, in processes of their own, one after the other."""
    found = []
    for tasks in sizes:
        words = ["--stream", str(tasks), "--threads", str(threads)]
        command = [sys.executable, __file__, *words, "--recipe", json.dumps(asdict(recipe))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found.append(json.loads(done.stdout))
    seconds, peaks = ([one[key] for one in found] for key in ("seconds", "bytes"))
    return {
        "sizes": list(sizes),
        "seconds": seconds,
        "exponent": exponent(sizes, seconds),
        "peak_bytes": peaks,
        "memory_growth": peaks[-1] / peaks[0],
    }


# ---------------------------------------------------------------- all of it


def cost(recipe: Recipe, sizes: Sizes, rounds: int, threads: int) -> dict[str, dict[str, Any]]:
    """All series, by what grows."""
    arms = {
        "steps": {n: whole_task(replace(recipe, steps=n)) for n in sizes["steps"]},
        "batch": {n: bench.training(replace(recipe, batch=n)) for n in sizes["batch"]},
        "hidden": {n: bench.training(replace(recipe, hidden=n)) for n in sizes["hidden"]},
    }
    found = {name: series(some, rounds) for name, some in arms.items()}
    return {**found, "tasks": streams(replace(recipe, steps=50), sizes["tasks"], threads)}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The series as text."""
    lines = []
    for name, one in found.items():
        lines.append(f"{name}: exponent {one['exponent']:.2f}")
        peaks = one.get("peak_bytes", [None] * len(one["sizes"]))
        for size, seconds, peak in zip(one["sizes"], one["seconds"], peaks, strict=True):
            memory = "" if peak is None else f"{peak / 2**20:>8.0f} MiB at most"
            lines.append(f"{size:>8}{seconds:>12.4f} s{memory}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = asked.parser(__doc__, "runs/cost")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stream", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--recipe", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.stream is None:
        keep(options)
        return
    with bench.thread_count(options.threads):
        print(json.dumps(long_stream(Recipe(**options.recipe), options.stream)))


def keep(options: argparse.Namespace) -> None:
    """Measure, write and print."""
    sizes, steps = (QUICK, 2) if options.quick else (SIZES, Recipe.steps)
    with asked.recipe(options, steps=steps) as (recipe, source):
        environment = records.environment(pick_device(options.device))
        found = cost(recipe, sizes, options.rounds, environment["threads"])
    result = {"series": found, "data": source, "environment": environment}
    write_json(options.out / "cost.json", result)
    plots.save(plots.scaling(found), options.out / "cost.png")
    print(table(found))


if __name__ == "__main__":
    main()
