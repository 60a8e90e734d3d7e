"""What a GPU can be given to do at once: `python benchmarks/gpu.py --out DIR`.

A step of these networks is some two hundred kernels, each over before the next is launched. Two
things help: to launch a step's kernels as one CUDA graph, and to learn several seeds with the same
kernels. `DIR/gpu.json` holds for each way `seeds`, the `milliseconds` of a step of all of them, as
a spread over the rounds, and `gain`: the steps that all seeds make together in a second, over those
of one seed launched kernel by kernel in the measurements just before and just after. The textbook's
loop (`reference_replay.py`) is among them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import asked

from genreplay_core import bench, records
from genreplay_core.batched import Cohort
from genreplay_core.bench import Arm, Recipe
from genreplay_core.config import build_scholar
from genreplay_core.files import write_json
from genreplay_core.learner import GenerativeReplay
from genreplay_core.nets import pick_device

SEEDS = (5, 20)


def one(recipe: Recipe, capture: bool) -> Arm:
    """A scholar on its own, whose steps are CUDA graphs or not."""

    def prepare(scholar: GenerativeReplay) -> None:
        scholar.capture = capture

    return bench.training(recipe, prepare=prepare)


def together(recipe: Recipe, seeds: int, capture: bool) -> Arm:
    """So many scholars, which learn the second task side by side."""
    stream = bench.stream_in(recipe.folder)
    configs = [recipe.config(seed=seed) for seed in range(seeds)]
    cohort = Cohort([build_scholar(config, stream, recipe.device) for config in configs])
    tasks: list[Any] = [SimpleNamespace(train=[stream[t].train] * seeds) for t in range(2)]
    cohort.train_task([part[: recipe.batch] for part in tasks[0].train], 0, steps=1)
    cohort.capture = capture
    saved = copy.deepcopy(cohort.state_dict())

    def measure() -> float:
        cohort.load_state_dict(saved)
        return bench.timed(cohort, tasks, recipe.steps)  # type: ignore[arg-type]

    return measure


def measured(recipe: Recipe, rounds: int, seeds: Sequence[int], textbook: Arm) -> dict[str, Any]:
    """Every way, held against one seed whose kernels are launched one by one."""
    capture = pick_device(recipe.device).type == "cuda"
    ways = {"1 seed": (1, one(recipe, False))}
    ways["the textbook's loop"] = (1, textbook)
    if capture:
        ways["1 seed, CUDA graph"] = (1, one(recipe, True))
    for count in seeds:
        ways[f"{count} seeds"] = (count, together(recipe, count, False))
        if capture:
            ways[f"{count} seeds, CUDA graph"] = (count, together(recipe, count, True))
    arms = {name: arm for name, (_, arm) in ways.items()}
    rows = bench.compare(arms["1 seed"], arms, rounds, partial(print, flush=True))
    found = {}
    for name, (count, _) in ways.items():
        gain = [count / slow for slow in bench.slowness(rows, name)]
        milliseconds = bench.spread([1000 * row[name][1] for row in rows])
        found[name] = {"seeds": count, "milliseconds": milliseconds, "gain": bench.spread(gain)}
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = asked.parser(__doc__, "runs/gpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    options = parser.parse_args(words)
    with asked.recipe(options, steps=options.steps) as (recipe, source):
        command = bench.competitors(recipe, None)["reference"]
        with bench.asking("the textbook's loop", command) as (_, textbook):
            ways = measured(recipe, options.rounds, options.seeds, textbook)
        where = records.environment(pick_device(options.device))
        write_json(options.out / "gpu.json", {"ways": ways, "data": source, "environment": where})
    for name, way in ways.items():
        median = way["gain"]["median"]
        print(f"{name:<24}{way['milliseconds']['median']:>9.3f} ms{median:>9.2f} times the steps")


if __name__ == "__main__":
    main()
