"""Many runs with workers that die, and a run that lasts: nothing is lost, and nothing grows."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import torch
from joblib.externals.loky import reusable_executor

from genreplay_core import GenerativeReplay, mlp_solver, mlp_vae, study
from genreplay_core.sweep import sweep

STUDY = """
title = "Many"
question = "Are all of them there?"
seeds = {seeds}
[base]
tasks = 2
steps = 16
batch = 16
hidden = 8
[grid]
replay = ["none", "generative", "conditional", "stored"]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_sweep_whose_workers_die_has_every_result_once(full, figures, tmp_path):
    seeds, deaths = list(range(50 if full else 2)), 10 if full else 1
    (tmp_path / "many.toml").write_text(STUDY.format(seeds=seeds))
    wanted, rng, ended = study.read(tmp_path / "many.toml"), random.Random(6), []
    fatal = set(rng.sample(range(len(wanted.jobs) - 2), deaths))

    def finished(job, record, done, of):
        if len(ended) in fatal:
            os.kill(rng.choice(list(reusable_executor._executor._processes)), signal.SIGKILL)
        ended.append((job[0].name, job[1]))

    result = sweep(wanted, tmp_path, tmp_path / "work", workers=2, device="cpu", finished=finished)
    jobs = [(row.name, seed) for row, seed in wanted.jobs]
    held = [(row["name"], run["seed"]) for row in result["rows"] for run in row["runs"]]
    assert len(jobs) == (200 if full else 8)
    assert sorted(ended) == sorted(held) == sorted(jobs)
    assert not [run for row in result["rows"] for run in row["runs"] if "failed" in run]
    assert len(list((tmp_path / "work").rglob("result.json"))) == len(jobs)
    assert list(tmp_path.rglob(".*")) == []
    assert json.loads((tmp_path / "many.json").read_text())["finished"] == len(jobs)
    figures |= {"runs": len(jobs), "deaths": deaths, "workers": 2}


# ---------------------------------------------------------------- memory


def megabytes() -> float:
    """What this process holds in memory by now."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.filterwarnings("ignore::genreplay_core.faults.Collapsed")  # its images are noise
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_the_memory_of_a_long_run_is_flat(full, figures):
    """Tasks of 5,000 steps each; a look at every second block makes it worse, if anything."""
    steps = 5000 if full else 320
    torch.manual_seed(0)
    x, y = torch.rand(200, 1, 4, 4), torch.arange(200) % 20
    solver, generator = mlp_solver(x.shape[1:], 20, 8), mlp_vae(x.shape[1:], 20, 4, 8)
    scholar, held = GenerativeReplay(solver, generator, "cpu", batch=8, seed=0), []

    def watch(done, total):
        if done % (steps // 5) == 0:
            held.append(megabytes())

    for task in range(20):
        mine = y == task
        scholar.train_task((x[mine], y[mine]), task, steps=steps, watch=watch, watch_every=32)
    tenth = len(held) // 10
    first, last = min(held[tenth : 2 * tenth]), max(held[-tenth:])  # when it had warmed up
    assert tenth >= 10
    assert last < first + 16
    figures |= {
        "steps": 20 * steps,
        "megabytes_first": round(first, 1),
        "megabytes_last": round(last, 1),
        "growth": round(last - first, 1),
    }
