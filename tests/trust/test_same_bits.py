"""Same seed, same machine, same bits: again in this process, in another, in a sweep; with one
thread or with two. And how far one thread lies from two, which isn't promised to be the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from genreplay_core import study
from genreplay_core.config import Config
from genreplay_core.experiment import Run, run
from genreplay_core.sweep import sweep

CHOSEN = Config(tasks=2, steps=12, hidden=64, replay="conditional", seed=5)


def weights(work: Run) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": tensor
        for part in ("solver", "generator")
        for name, tensor in getattr(work.scholar, part).state_dict().items()
    }


def learned(chosen: Config) -> tuple[dict[str, torch.Tensor], list[list[float]]]:
    """The weights and the accuracy matrix that a run ends with."""
    last: list[Run] = []
    record = run(chosen, device="cpu", after_task=last.append)
    return weights(last[-1]), record["accuracy_matrix"]


def digest(found: tuple[dict[str, torch.Tensor], list[list[float]]]) -> str:
    """Of every bit of the weights and of the matrix."""
    parts = [tensor.numpy().tobytes() for _, tensor in sorted(found[0].items())]
    return hashlib.sha256(b"".join([*parts, json.dumps(found[1]).encode()])).hexdigest()


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


ELSEWHERE = """\
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
sys.path.insert(0, sys.argv[2])
from test_same_bits import CHOSEN, digest, learned
print(digest(learned(CHOSEN)))
"""


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_seed_gives_the_same_bits_again_and_in_another_process(count):
    with threads(count):
        here = [digest(learned(CHOSEN)) for _ in range(2)]
    ask = [sys.executable, "-c", ELSEWHERE, str(count), str(Path(__file__).parent)]
    environment = os.environ | {"OMP_NUM_THREADS": str(count)}
    done = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [done.stdout.strip()] * 2 == here


def test_another_seed_gives_other_bits():
    assert digest(learned(CHOSEN)) != digest(learned(Config(**{**vars(CHOSEN), "seed": 6})))


STUDY = """
title = "Same bits"
question = "Does a sweep change anything?"
seeds = [4, 5]
[base]
tasks = 2
steps = 12
hidden = 64
replay = "conditional"
"""


def test_a_run_in_a_sweep_and_alone_end_with_the_same_bits(tmp_path):
    (tmp_path / "same.toml").write_text(STUDY)
    wanted = study.read(tmp_path / "same.toml")
    sweep(wanted, tmp_path / "out", tmp_path / "work", workers=2, device="cpu")
    place = tmp_path / "work" / "same" / study.folder_of(wanted.rows[0], 5)
    modules = torch.load(place / "checkpoint.pt")["scholar"]["modules"]
    held = {f"{p}.{n}": t for p in ("solver", "generator") for n, t in modules[p].items()}
    matrix = json.loads((place / "result.json").read_text())["accuracy_matrix"]
    with threads(1):
        assert digest((held, matrix)) == digest(learned(CHOSEN))


def test_how_far_one_thread_lies_from_two(full, figures):
    """Sums in another order differ in the last bit, and training makes more of it. No promise is
    tested here: it's measured."""
    wide: dict[str, Any] = {"hidden": 400, "replay": "conditional", "batch": 128}
    steps = 300 if full else 4
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(learned(Config(tasks=5, steps=steps, **wide)))
    (one, matrix), (two, other) = found
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    size = max(float(tensor.abs().max()) for tensor in one.values())
    gap = [abs(a - b) for a, b in zip(matrix[-1], other[-1], strict=True)]
    assert apart < size  # nobody learned something else
    figures |= {
        "steps": steps,
        "largest_weight": round(size, 3),
        "largest_difference": float(f"{apart:.3g}"),
        "same_bits": apart == 0,
        "largest_accuracy_difference": round(max(gap), 5),
        "average_accuracy": [round(sum(row[-1]) / len(row[-1]), 4) for row in (matrix, other)],
    }
