"""Many runs side by side: the rows and seeds of a study.

    study = read("book/experiments/table.toml")
    found = sweep(study, out="book/results", work="runs/sweep", workers=2)

These networks are small: two runs side by side on one thread each get more done than one run on
two threads, so a run gets a process and a thread of its own. With a scheduler's address the runs
go to the workers of a Dask cluster instead (through joblib).

Each run has its folder in `work`, with a checkpoint after every task; when it ends, its record
goes to `out/<study>.json` at once. A sweep that was interrupted goes on where it was: finished
runs are read, begun runs are resumed. If a worker dies, its run is resumed by another.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import joblib
import torch

from . import records, study
from .experiment import run
from .files import write_json
from .learner import Diverged
from .nets import pick_device
from .records import Record
from .study import Row, Study

Job = tuple[Row, int]
Finished = Callable[[Job, Record, int, int], None]  # (row and seed, record, runs done, runs in all)
DEATHS = 3  # of workers, with no run finished in between, before a sweep gives up


def sweep(
    wanted: Study,
    out: str | Path,
    work: str | Path = "runs/sweep",
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
    finished: Finished | None = None,
) -> dict[str, Any]:
    """Run what is missing of a study, and return its result, as `out/<study>.json` holds it.

    Args:
        out: folder of results. work: folder of the runs, which a cluster's workers must see.
        workers: runs side by side; None for one on each core, or one on an accelerator.
        scheduler: address of a Dask scheduler, such as "tcp://10.0.0.1:8786".
        device: see `nets.pick_device`.
        finished: called whenever a run has ended.

    Raises:
        ValueError: bad options; damaged files; a scheduler that can't be reached.
        RuntimeError: workers die again and again.
        OSError: a folder can't be written.
    """
    out, work = Path(out), Path(work)
    path = out / f"{wanted.name}.json"
    records.claim(out)
    done = study.stored(wanted, path)
    command = shlex.join(["genreplay", "sweep", f"{wanted.name}.toml", "--out", str(out)])

    def keep(job: Job, record: Record) -> None:
        done[job[0].name, job[1]] = record
        write_json(path, study.result(wanted, done, command))
        if finished is not None:
            finished(job, record, len(done), len(wanted.jobs))

    missing = [job for job in wanted.jobs if (job[0].name, job[1]) not in done]
    with _backend(workers, scheduler, device):
        for job, record in _surviving(missing, work / wanted.name, device, scheduler is None):
            keep(job, record)
    write_json(path, study.result(wanted, done, command))
    return study.result(wanted, done, command)


def _backend(workers: int | None, scheduler: str | None, device: str) -> Any:
    """Where the runs are to happen, as a context for joblib."""
    if scheduler is not None:
        return _cluster(scheduler)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    cores = joblib.cpu_count(only_physical_cores=True)
    usual = cores if pick_device(device).type == "cpu" else 1
    return joblib.parallel_config("loky", n_jobs=workers or usual, inner_max_num_threads=1)


@contextlib.contextmanager
def _cluster(scheduler: str) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("a cluster needs Dask: pip install 'genreplay-core[cluster]'") from None
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise ValueError(f"no Dask scheduler answers at {scheduler} ({error})") from None
    with client, joblib.parallel_config("dask"):
        yield


def _surviving(
    jobs: Sequence[Job], folder: Path, device: str, streaming: bool
) -> Iterator[tuple[Job, Record]]:
    """The record of every job as it ends; what a dead worker left is given to another."""
    left, deaths = list(jobs), 0
    while left:
        try:
            for job, record in _parallel(left, folder, device, streaming):
                left.remove(job)
                deaths = 0
                yield job, record
        except BrokenProcessPool:
            deaths += 1
            if deaths == DEATHS:
                names = ", ".join(f"{row.name} (seed {seed})" for row, seed in left[:3])
                raise RuntimeError(
                    f"workers died {DEATHS} times while nothing was finished, perhaps for want of "
                    f"memory; not finished: {names}: try fewer workers"
                ) from None


def _parallel(
    jobs: Sequence[Job], folder: Path, device: str, streaming: bool
) -> Iterator[tuple[Job, Record]]:
    """Run jobs on joblib's backend. One that can't hand over results one by one, as Dask's, gets
    a seed of every row at a time."""
    calls = [joblib.delayed(_work)(job, folder, device) for job in jobs]
    if streaming:
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(calls)
        return
    rows = len({row.name for row, _ in jobs})
    for start in range(0, len(calls), rows):
        yield from joblib.Parallel(batch_size=1)(calls[start : start + rows])


def _work(job: Job, folder: Path, device: str) -> tuple[Job, Record]:
    """One run, in a worker, on one thread."""
    torch.set_num_threads(1)
    row, seed = job
    place = folder / study.folder_of(row, seed)
    try:
        record = run(row.config(seed), place, resume=True, device=device)
    except Diverged as error:  # a finding too
        where = records.environment(pick_device(device))
        record = {"failed": str(error), "environment": where, "seconds": 0.0}
    return job, record
