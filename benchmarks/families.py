"""What a step of each family of generators costs: `python benchmarks/families.py --out DIR`.

In a stream, on its second task, the generator goes on alone when the solver has done its step: 128
new rows and 128 that it dreams itself, as in `genreplay bench`, conditional. Families are measured
in turn, `vae, flow, vae, wgan, vae, ...`, and each is held against the VAE just before and after
it. `DIR/families.json` holds `milliseconds`, the median of a step, and `slowness`, over the VAE's:
median, quartiles and rounds.
"""

from __future__ import annotations

from typing import Any

import asked
import numpy as np

from genreplay_core import bench, records
from genreplay_core.data import Stream
from genreplay_core.files import write_json
from genreplay_core.learner import BLOCK, GenerativeReplay
from genreplay_core.nets import pick_device

FAMILIES = ("flow", "wgan", "conv-vae")


def alone(scholar: GenerativeReplay, stream: Stream, steps: int) -> float:
    """Seconds of a step of the generator without the solver, dreams included. The first block,
    which has the solver's step, doesn't count."""
    stamps: dict[int, float] = {}

    def look(done: int, total: int) -> None:
        stamps[done] = bench.now(scholar.device)

    length = BLOCK + steps
    task = stream[1].train
    scholar.train_task(task, 1, replay_ratio=1.0, steps=1, generator_steps=length, watch=look)
    return (stamps[length] - stamps[BLOCK]) / steps


def families(recipe: bench.Recipe, rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of a step of each family, and their ratio to the VAE's."""

    def arm(name: str) -> bench.Arm:
        asked = {"replay": "conditional", "labels": "soft"}
        return bench.training(recipe, clock=alone, generator=name, **asked)

    rows = bench.compare(arm("vae"), {name: arm(name) for name in FAMILIES}, rounds, print)
    seconds = {name: [row[name][1] for row in rows] for name in FAMILIES}
    seconds["vae"] = [row["flow"][0] for row in rows]
    return {
        "milliseconds": {name: 1e3 * float(np.median(each)) for name, each in seconds.items()},
        "slowness": {name: bench.spread(bench.slowness(rows, name)) for name in FAMILIES},
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """The same as text."""
    slowness = {"vae": {"median": 1.0}, **found["slowness"]}
    times = found["milliseconds"]
    return "\n".join(
        f"{name:<12}{times[name]:>8.1f} ms a step{one['median']:>8.2f} times the VAE"
        for name, one in slowness.items()
    )


def main() -> None:
    parser = asked.parser(__doc__, "runs/families")
    parser.add_argument("--steps", type=int, default=32, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with asked.recipe(options, steps=options.steps) as (recipe, source):
        found = families(recipe, options.rounds)
        where = records.environment(pick_device(options.device))
    write_json(options.out / "families.json", {**found, "data": source, "environment": where})
    print(table(found))


if __name__ == "__main__":
    main()
