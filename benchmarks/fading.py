"""How varied dreams stay, task after task: `python benchmarks/fading.py --out DIR`.

Runs of two studies are made anew, the hundred tasks only as far as `TASKS` says, and looked at
after each task. `DIR/fading.json` holds for each row and seed the variance of a pixel over 2,000
dreams, mean over pixels, as a share of what it is over the real test images of all tasks so far:
`whole`, and with a conditional generator also `within` one class. At 1 dreams are as varied as
they should be. What is there is written after each run.
"""

from __future__ import annotations

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

TASKS = {"many-tasks": 20, "hundred-tasks": 30}
ROWS = ("plain replay", "conditional replay")
SEEDS = (2, 3, 4, 5, 6)
DREAMS = 200  # of each class
QUICK: dict[str, Any] = {"dataset": "digits", "tasks": 2, "steps": 4, "hidden": 16}


def moments(examples: Examples) -> Tensor:
    """Mean and mean square of each pixel in each class, (2, classes, pixels)."""
    each = [examples.x[examples.y == c].flatten(1).double() for c in examples.y.unique()]
    return torch.stack([torch.stack([x.mean(0), x.square().mean(0)]) for x in each], 1)


def spread(found: Tensor) -> dict[str, float]:
    """The variance of a pixel from its moments, classes counting alike, and within a class."""
    mean, square = found
    whole = (square.mean(0) - mean.mean(0).square()).mean()
    return {"whole": whole.item(), "within": (square - mean.square()).mean().item()}


def dreamt(work: Run) -> Examples:
    """Dreams of all classes alike, if they can be asked for."""
    codes = work.scholar.seen.nonzero().squeeze(1).repeat_interleave(DREAMS)
    with seeded(work.config.seed, 5, len(work.state.matrix)), torch.no_grad():
        return Examples(sample(work.scholar.generator, len(codes), codes).cpu(), codes.cpu())


def fading(config: Config, device: str = "auto") -> dict[str, Any]:
    """A run, and after each of its tasks how varied its dreams are beside real images."""
    real, shares = list[Tensor](), list[dict[str, float]]()

    def look(work: Run) -> None:
        real.append(moments(work.stream[len(real)].test))
        should, does = spread(torch.stack(real).mean(0)), spread(moments(dreamt(work)))
        shares.append({kind: does[kind] / should[kind] for kind in should})

    record = run(config, device=device, after_task=look)
    kinds = ("whole", "within") if config.replay == "conditional" else ("whole",)
    found = {kind: [share[kind] for share in shares] for kind in kinds}
    return {"seed": config.seed, "average_accuracy": record["average_accuracy"], **found}


def jobs(quick: bool) -> Iterator[tuple[str, str, Config]]:
    """Study, row and what to run."""
    for study, tasks in TASKS.items():
        for row in ROWS:
            options = {**book.row(study, row)["config"], "tasks": tasks, "curve_every": 0}
            for seed in SEEDS[:1] if quick else SEEDS:
                config = replace(Config(**options), seed=seed)
                yield study, row, replace(config, **QUICK) if quick else config


def one_thread() -> None:
    torch.set_num_threads(1)


def main() -> None:
    parser = asked.parser(__doc__, "runs/fading")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, a thread each")
    options = parser.parse_args()
    records.claim(options.out)
    todo, rows = list(jobs(options.quick)), dict[tuple[str, str], list[dict[str, Any]]]()
    where = records.environment(pick_device(options.device))
    with ProcessPoolExecutor(options.workers, get_context("spawn"), one_thread) as pool:
        runs = pool.map(fading, (config for *_, config in todo), repeat(options.device))
        for (study, row, _), found in zip(todo, runs, strict=True):
            rows.setdefault((study, row), []).append(found)
            told = [{"study": s, "row": r, "runs": each} for (s, r), each in rows.items()]
            write_json(options.out / "fading.json", {"rows": told, "environment": where})
            print(f"{study}, {row}, seed {found['seed']}: {found['whole'][-1]:.3g}", flush=True)


if __name__ == "__main__":
    main()
