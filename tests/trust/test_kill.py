"""Killed anywhere, resumed, and not a bit is different: runs and sweeps under SIGKILL."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import die, in_a_process, same

from genreplay_core import files, study
from genreplay_core.config import REPLAYS, Config
from genreplay_core.experiment import run
from genreplay_core.sweep import sweep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")

SMALL = {"tasks": 5, "steps": 20, "batch": 16, "hidden": 16, "per_class": 5}
KINDS: dict[str, dict[str, Any]] = {
    **{name: {"replay": name} for name in REPLAYS},
    "permuted": {"stream": "permuted", "scenario": "domain", "curve_every": 5},
    "rotated": {"stream": "rotated", "scenario": "task"},
    "repeated": {"stream": "repeated", "scenario": "domain", "importance": 0.0, "anew": True},
    "domains": {"stream": "domains", "scenario": "domain"},
    "wgan": {"generator": "wgan", "average": 0.5},
    "flow": {"generator": "flow", "replay": "generative"},
    "conv": {"solver": "conv", "generator": "conv-vae", "steps": 4},
    "ewc": {"replay": "none", "regulariser": "ewc"},
    "si": {"replay": "none", "regulariser": "si"},
    "task-free": {"task_free": True, "blur": 0.5, "snapshot_every": 7},
}
MOMENTS = ("clock", "half a file", "before the name", "after the name")


def config(kind: str) -> Config:
    return Config(**{**SMALL, **KINDS[kind]})


# ---------------------------------------------------------------- what the killed process does


def doomed(moment: str, nth: int) -> None:
    """Let this process die inside its n-th write of a file from now on."""
    fsync, replace, left = os.fsync, os.replace, nth

    def syncing(file: int) -> None:
        nonlocal left
        left -= 1
        if left == 0 and moment == "half a file":
            os.ftruncate(file, os.fstat(file).st_size // 2)
            die()
        fsync(file)

    def replacing(source: str, target: str) -> None:
        if left == 0 and moment == "before the name":
            die()
        replace(source, target)
        if left == 0 and moment == "after the name":
            die()

    files.os = type("os", (), {**vars(os), "fsync": syncing, "replace": replacing})


def one_run(kind: str, out: Path, moment: str, nth: int) -> None:
    if moment != "clock":
        doomed(moment, nth)
    run(config(kind), out, resume=True, device="cpu")


def one_sweep(file: Path, out: Path, moment: str, nth: int) -> None:
    if moment != "clock":
        doomed(moment, nth)
    sweep(study.read(file), out / "results", out / "work", workers=1, device="cpu")


# ---------------------------------------------------------------- what must be left


def bits(out: Path) -> dict[str, Any]:
    """All that a run found and is, by name; without its times and its place."""
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    record = json.loads((out / "result.json").read_text())
    for part in (saved["state"], record):
        for name in ("seconds", "training_seconds", "steps_per_second", "checksum", "environment"):
            part.pop(name, None)
    return {"saved": saved, "record": record}


def sound(folder: Path) -> list[Path]:
    """What isn't whole in a folder that somebody may read at any time: half a JSON, half a
    checkpoint. (Temporary names may be left until the run goes on.)"""
    broken = []
    for path in folder.rglob("[!.]*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            broken.append(path)
    for path in folder.rglob("[!.]*.pt"):
        try:
            torch.load(path, weights_only=True)
        except Exception:
            broken.append(path)
    return broken


def kills(work: Any, subject: Any, out: Path, seconds: float, wanted: int, rng: random.Random):
    """Kill so many processes that do the work, the folder being resumed by the next; then let one
    come to its end. Returns how many died at which kind of moment."""
    died: dict[str, int] = dict.fromkeys(MOMENTS, 0)
    for turn in range(20 * wanted):
        if sum(died.values()) == wanted:
            break
        moment = MOMENTS[turn % len(MOMENTS)]
        limit = rng.uniform(0, seconds) if moment == "clock" else None
        status, said = in_a_process(work, subject, out, moment, rng.randint(1, 3), seconds=limit)
        assert status in (0, -signal.SIGKILL), said
        died[moment] += status == -signal.SIGKILL
        assert sound(out) == []
        if status == 0:  # it came to its end: from now on, others die from the beginning
            yield None
    status, said = in_a_process(work, subject, out, "clock", 0)
    assert status == 0, said
    yield died


def test_a_run_killed_anywhere_goes_on_bit_for_bit(full, figures, tmp_path):
    rng, died, resumed = random.Random(2017), dict.fromkeys(MOMENTS, 0), 0
    kinds = list(KINDS) if full else ["conditional", "task-free"]
    for kind in kinds:
        begun = time.perf_counter()
        assert in_a_process(one_run, kind, tmp_path / kind / "whole", "clock", 0) == (0, "")
        seconds = time.perf_counter() - begun
        whole = bits(tmp_path / kind / "whole")
        place, ends = tmp_path / kind / "0", 0
        for found in kills(one_run, kind, place, seconds, 8 if full else 4, rng):
            assert same(bits(place), whole), kind
            assert [path.name for path in place.rglob(".*")] == []
            assert {path.name for path in place.iterdir()} == {"checkpoint.pt", "result.json"}
            resumed += 1
            if found is None:  # begin anew
                ends += 1
                place.rename(tmp_path / kind / f"ended {ends}")
            else:
                died = {moment: died[moment] + found[moment] for moment in MOMENTS}
    assert sum(died.values()) == len(kinds) * (8 if full else 4)
    figures |= {"kills": sum(died.values()), "moments": died, "runs": resumed, "kinds": kinds}


STUDY = """
title = "Killed"
question = "Is anything lost?"
seeds = [0, 1]
[base]
tasks = 2
steps = 12
batch = 16
hidden = 8
[rows.none]
replay = "none"
[rows.conditional]
replay = "conditional"
"""


def test_a_sweep_killed_anywhere_goes_on_bit_for_bit(full, figures, tmp_path):
    file, rng = tmp_path / "killed.toml", random.Random(1972)
    file.write_text(STUDY)
    begun = time.perf_counter()
    assert in_a_process(one_sweep, file, tmp_path / "whole", "clock", 0) == (0, "")
    seconds, wanted = time.perf_counter() - begun, 32 if full else 2
    whole, place, ends = swept(tmp_path / "whole"), tmp_path / "0", 0
    assert len(whole) == 8
    for found in kills(one_sweep, file, place, seconds, wanted, rng):
        assert same(swept(place), whole)
        assert [path for path in place.rglob(".*")] == []
        if found is None:
            ends += 1
            place.rename(tmp_path / f"ended {ends}")
        else:
            figures |= {"kills": sum(found.values()), "moments": found, "sweeps": ends + 1}
    assert figures["kills"] == wanted


def swept(out: Path) -> list[Any]:
    """The accuracy matrix and the last checkpoint of every run of a sweep."""
    result = study.loaded(out / "results" / "killed.json")
    runs = [
        (row["name"], run["seed"], run["accuracy_matrix"])
        for row in result["rows"]
        for run in row["runs"]
    ]
    saved = sorted((out / "work").rglob("checkpoint.pt"))
    return [*runs, *(torch.load(path, weights_only=True)["scholar"] for path in saved)]
