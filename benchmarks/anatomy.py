"""Where the milliseconds of a step go: `python benchmarks/anatomy.py --out DIR`.

The step of `genreplay bench` with the VAE is watched by PyTorch's profiler, whose operators are
sorted by what they are for. `DIR/anatomy.json` holds the milliseconds of a step by kind, and
their sum; what no operator accounts for is dispatch and Python. The profiler itself takes time,
mostly from the last kind: compare the sum with the step's time in `bench.json`.
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import Any

import asked
import torch

from genreplay_core import bench, records
from genreplay_core.config import build_scholar
from genreplay_core.files import write_json
from genreplay_core.nets import pick_device

KINDS = (  # the first pattern that an operator's name matches says what it is
    ("matrix products", r"aten::(\w*mm|\w*conv\w*)$"),
    ("Adam", r"aten::_(fused_adam|foreach)"),
    ("random numbers", r"aten::(normal_|uniform_|exponential_|randperm|multinomial|bernoulli_)$"),
    ("copies", r"aten::(copy_|cat|index|index_select|gather|scatter|embedding|stack|clone)$"),
    (
        "dispatch and Python",
        r"(?!aten::)|aten::(linear|t|transpose|view|reshape|as_strided|detach_?|unbind|select"
        r"|slice|expand|unsqueeze|squeeze|empty\w*|flatten|unflatten|chunk|split|to|_to_copy"
        r"|result_type|randn\w*|randint\w*|ones\w*|zeros\w*|full\w*|item|_local_scalar_dense)$",
    ),
    ("elementwise and sums", r""),
)


def kind_of(operator: str) -> str:
    """What an operator of the profiler's list does."""
    return next(kind for kind, pattern in KINDS if re.match(pattern, operator))


def anatomy(recipe: bench.Recipe, **changes: Any) -> dict[str, float]:
    """Milliseconds of a step by kind of operator, and "whole", their sum."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else the profiler talks about itself
    stream = bench.stream_in(recipe.folder)
    scholar = build_scholar(recipe.config(**changes), stream, recipe.device)
    scholar.capture = False  # a graph's kernels belong to no operator
    scholar.train_task(stream[0].train[: recipe.batch], 0, steps=1)
    few = stream[1].train[: bench.WARM * recipe.batch]  # checking them must not show
    learn = partial(scholar.train_task, few, 1, replay_ratio=1.0, steps=recipe.steps)
    learn()
    device, host = scholar.device, scholar.device.type == "cpu"
    watching = torch.autograd.profiler.profile
    with watching(use_device=None if host else device.type, use_kineto=not host) as watched:
        begun = bench.now(device)
        learn()
        whole = bench.now(device) - begun
    spent = dict.fromkeys((kind for kind, _ in KINDS), 0.0)
    for event in watched.key_averages():
        if event.device_type == torch.autograd.DeviceType.CPU:  # what was called, not its kernels
            own = event.self_cpu_time_total if host else event.self_device_time_total
            spent[kind_of(event.key)] += 1e-6 * own
    spent["dispatch and Python"] += whole - sum(spent.values())
    return {kind: 1e3 * s / recipe.steps for kind, s in {**spent, "whole": whole}.items()}


def table(found: dict[str, float]) -> str:
    """The same as text."""
    return "\n".join(f"{kind:<24}{ms:>8.2f} ms a step" for kind, ms in found.items())


def main() -> None:
    parser = asked.parser(__doc__, "runs/anatomy")
    parser.add_argument("--steps", type=int, default=320, help="how many are watched")
    options = parser.parse_args()
    with asked.recipe(options, steps=options.steps) as (recipe, source):
        found = anatomy(recipe)
        where = records.environment(pick_device(options.device))
    result = {"milliseconds": found, "data": source, "steps": options.steps, "environment": where}
    write_json(options.out / "anatomy.json", result)
    print(table(found))


if __name__ == "__main__":
    main()
