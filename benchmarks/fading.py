"""How varied dreams stay, task after task: `python benchmarks/fading.py --out DIR`.

Runs of three studies are made anew, the hundred tasks only as far as `TASKS` says, and looked at
after each task. `DIR/fading.json` holds for each row and seed the variance of a pixel over dreams,
mean over pixels, as a share of what it is over the real test images of all tasks so far: `whole`
and, if classes can be asked for, `within` one class, and `of_class`, the latter class by class in
the end. At 1 dreams are as varied as they should be. Each run is written when it is done; the same
command makes those that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import asked
import torch
from torch import Tensor

from genreplay_core import Config, book, records, run
from genreplay_core.data import Examples
from genreplay_core.experiment import Run
from genreplay_core.files import write_json
from genreplay_core.generators import sample
from genreplay_core.nets import pick_device
from genreplay_core.seeds import seeded

TASKS = {"many-tasks": 20, "hundred-tasks": 20, "single-class": 10}
SEEDS = (2, 3, 4, 5, 6)
DREAMS = 200  # of each class
QUICK: dict[str, Any] = {"dataset": "digits", "tasks": 2, "steps": 4, "hidden": 16}

Moments = dict[int, Tensor]  # of each class, mean and mean square of each pixel: (2, pixels)


def moments(examples: Examples) -> Moments:
    """Of each class that is there."""
    rows = {
        c: examples.x[examples.y == c].flatten(1).double() for c in examples.y.unique().tolist()
    }
    return {c: torch.stack([x.mean(0), x.square().mean(0)]) for c, x in rows.items()}


def together(tasks: list[Moments]) -> Moments:
    """Of several tasks, which count alike for the classes that they have."""
    classes = sorted(set().union(*tasks))
    return {c: torch.stack([task[c] for task in tasks if c in task]).mean(0) for c in classes}


def variances(found: Moments) -> tuple[Tensor, Tensor]:
    """Of a pixel: over all, classes counting alike, (), and within each class, (classes,)."""
    mean, square = torch.stack([*found.values()], 1)
    within = (square - mean.square()).mean(1)
    return (square.mean(0) - mean.mean(0).square()).mean(), within


def dreamt(work: Run) -> Examples:
    """Dreams of all classes alike, if they can be asked for."""
    codes = work.scholar.seen.nonzero().squeeze(1).repeat_interleave(DREAMS)
    with seeded(work.config.seed, 5, len(work.state.matrix)), torch.no_grad():
        return Examples(sample(work.scholar.generator, len(codes), codes).cpu(), codes.cpu())


def fading(config: Config, device: str = "auto") -> dict[str, Any]:
    """A run, and after each of its tasks how varied its dreams are beside real images."""
    real, whole, within = list[Moments](), list[float](), list[float]()
    of_class: dict[int, float] = {}

    def look(work: Run) -> None:
        real.append(moments(work.stream[len(real)].test))
        should, does = together(real), moments(dreamt(work))
        (all_should, each_should), (all_does, each_does) = variances(should), variances(does)
        whole.append((all_does / all_should).item())
        within.append((each_does.mean() / each_should.mean()).item())
        of_class.update(zip(should, (each_does / each_should).tolist(), strict=True))

    record = run(config, device=device, after_task=look)
    order = list(dict.fromkeys(c for task in real for c in task))  # as they were met
    found = {"seed": config.seed, "average_accuracy": record["average_accuracy"], "whole": whole}
    if config.replay == "conditional":
        found |= {"within": within, "of_class": [of_class[c] for c in order]}
    return found


def jobs(quick: bool) -> Iterator[tuple[str, str, Config]]:
    """Study, row and what to run."""
    for study, tasks in TASKS.items():
        for row in book.stored(study)["rows"]:
            options = {**row["config"], "tasks": tasks, "curve_every": 0, "quality": False}
            if options["replay"] in ("generative", "conditional"):
                for seed in SEEDS[:1] if quick else SEEDS:
                    config = replace(Config(**options), seed=seed)
                    yield study, row["name"], replace(config, **QUICK) if quick else config


def one_thread() -> None:
    torch.set_num_threads(1)


def main() -> None:
    parser = asked.parser(__doc__, "runs/fading")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, a thread each")
    options = parser.parse_args()
    records.claim(options.out)
    path, where = options.out / "fading.json", records.environment(pick_device(options.device))
    rows: dict[str, dict[str, list[Any]]] = json.loads(path.read_text()) if path.exists() else {}
    done = {(s, r, one["seed"]) for s in rows for r in rows[s] for one in rows[s][r]}
    todo = [job for job in jobs(options.quick) if (*job[:2], job[2].seed) not in done]
    with ProcessPoolExecutor(options.workers, get_context("spawn"), one_thread) as pool:
        runs = pool.map(fading, (config for *_, config in todo), repeat(options.device))
        for (study, row, _), found in zip(todo, runs, strict=True):
            runs_of_row = rows.setdefault(study, {}).setdefault(row, [])
            runs_of_row.append({**found, "environment": where})
            write_json(path, rows)
            print(f"{study}, {row}, seed {found['seed']}: {found['whole'][-1]:.3g}", flush=True)


if __name__ == "__main__":
    main()
