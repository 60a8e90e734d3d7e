"""Many runs side by side: the rows and seeds of a study.

    study = read("book/experiments/table.toml")
    found = sweep(study, out="book/results", work="runs/sweep", workers=2)

These networks are small: two runs side by side on one thread each get more done than one run on
two threads, so a run gets a process and a thread of its own. With a scheduler's address the runs
go to the workers of a Dask cluster instead (through joblib); give each one thread (`dask worker
ADDRESS --nworkers N --nthreads 1`), for a process does one run at a time.

With `together`, the seeds of a row are learned as one batched run where that can be done (see
`batched.py`): on an accelerator, which such small networks leave idle, that is several times
faster.

Each run has its folder in `work`, with a checkpoint after every task; when it ends, its record
goes to `out/<study>.json` at once. A sweep that was interrupted goes on where it was: finished
runs are read, begun runs are resumed. If a worker dies, its run is resumed by another.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import shlex
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import joblib
import torch

from . import records, study
from .batched import obstacle, run_together
from .experiment import run
from .faults import Diverged
from .files import sealed, tidy, write_json
from .nets import pick_device
from .records import Record
from .study import Row, Study

Job = tuple[Row, int]
Finished = Callable[[Job, Record, int, int], None]  # (row and seed, record, runs done, runs in all)
DEATHS = 3  # of workers, with no run finished in between, before a sweep gives up
PATIENCE = "10s"  # for a scheduler to answer
ALONE = threading.Lock()


def sweep(
    wanted: Study,
    out: str | Path,
    work: str | Path = "runs/sweep",
    *,
    only: Sequence[str] = (),
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "auto",
    together: bool = False,
    finished: Finished | None = None,
) -> dict[str, Any]:
    """Run what is missing of a study, and return its result, as `out/<study>.json` holds it.

    Args:
        out: folder of results. work: folder of the runs, which a cluster's workers must see.
        only: names of the rows to be run; all if none is named.
        workers: runs side by side; None for one on each core, or one on an accelerator.
        scheduler: address of a Dask scheduler, such as `tcp://10.0.0.1:8786`.
        device: see `nets.pick_device`.
        together: learn the seeds of a row as one batched run, in this process.
        finished: called whenever a run has ended.

    Raises:
        ValueError: bad options; damaged files; a scheduler that can't be reached.
        RuntimeError: workers die again and again. OSError: a folder can't be written.
    """
    out, work = Path(out), Path(work).absolute()  # workers may have another current folder
    done = study.stored(wanted, out / f"{wanted.name}.json")
    missing = [job for job in _chosen(wanted, only) if (job[0].name, job[1]) not in done]
    with _backend(workers, scheduler, device):
        records.claim(out)
        tidy(out / f"{wanted.name}.json")
        with _closing(_ending(missing, work / wanted.name, device, together)) as ended:
            for job, record in ended:
                done[job[0].name, job[1]] = record
                _kept(wanted, done, out, together)
                if finished is not None:
                    finished(job, record, len(done), len(wanted.jobs))
    return _kept(wanted, done, out, together)


def _chosen(wanted: Study, only: Sequence[str]) -> list[Job]:
    """The jobs of the rows with these names, or all."""
    known = [row.name for row in wanted.rows]
    if unknown := [name for name in only if name not in known]:
        offered = ", ".join(f"'{name}'" for name in known)
        raise ValueError(f"'{wanted.name}' has no row '{unknown[0]}': choose from {offered}")
    return [job for job in wanted.jobs if job[0].name in (only or known)]


def _kept(
    wanted: Study, done: dict[tuple[str, int], Record], out: Path, together: bool
) -> dict[str, Any]:
    """The result so far, which is written down, with what another sweep has added meanwhile."""
    done = {**study.stored(wanted, out / f"{wanted.name}.json"), **done}
    asked = [wanted.source, "--out", out.as_posix(), *["--together"] * together]
    found = study.result(wanted, done, shlex.join(["genreplay", "sweep", *asked]))
    write_json(out / f"{wanted.name}.json", sealed(found))
    return found


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
    client, problem = None, ""
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        problem = str(error)
    if client is None:
        gc.collect()  # a half-made client that dies while another is made waits for itself
        raise ValueError(f"no Dask scheduler answers at {scheduler} ({problem})")
    with client, joblib.parallel_config(_dask(client)):
        try:
            yield
        except CancelledError:
            raise ConnectionError(f"the Dask scheduler at {scheduler} is lost") from None


def _dask(client: Any) -> Any:
    """joblib's Dask backend, which as it is (joblib 1.6) waits for ever once Dask has given up a
    run whose workers died, and stays in this process if the cluster has a single core."""
    from distributed import KilledWorker
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs: int) -> int:
            return max(2, super().effective_n_jobs(n_jobs))  # 1 would mean: right here

        def submit(self, func: Any, callback: Any = None) -> Future[Any]:
            future: Future[Any] = super().submit(func, callback)
            future.add_done_callback(lambda ended: ended.exception() and callback(ended))
            return future

        def retrieve_result_callback(self, out: Any) -> Any:
            if not isinstance(out, Future):
                return super().retrieve_result_callback(out)
            if isinstance(out.exception(), KilledWorker):
                raise BrokenProcessPool
            return out.result()

    return Backend(client=client)


def _ending(
    jobs: Sequence[Job], folder: Path, device: str, together: bool
) -> Generator[tuple[Job, Record], None, None]:
    """The record of every job as it ends."""
    left = list(jobs)
    for job, record in _together(jobs, device) if together else ():
        left.remove(job)
        yield job, record
    yield from _surviving(left, folder, device)


def _together(jobs: Sequence[Job], device: str) -> Iterator[tuple[Job, Record]]:
    """The records of what can be learned together, a row at a time."""
    for row in {row.name: row for row, _ in jobs}.values():
        seeds = [seed for other, seed in jobs if other.name == row.name]
        if len(seeds) < 2 or obstacle(row.config(0)) is not None:
            continue
        try:
            found = run_together([row.config(seed) for seed in seeds], device=device)
        except Diverged:  # whose loss it was shows when they run one by one
            continue
        yield from (((row, s), record) for s, record in zip(seeds, found, strict=True))


def _surviving(
    jobs: Sequence[Job], folder: Path, device: str
) -> Generator[tuple[Job, Record], None, None]:
    """The record of every job as it ends; what a dead worker left is given to another."""
    parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
    left, deaths = list(jobs), 0
    while left:
        calls = [joblib.delayed(_work)(job, folder, device) for job in left]
        try:
            for job, record in parallel(calls):
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


@contextlib.contextmanager
def _closing(ended: Generator[Any, None, None]) -> Iterator[Iterator[Any]]:
    """After it, the runs that haven't ended are stopped."""
    try:
        yield ended
    finally:
        with warnings.catch_warnings(action="ignore"):  # joblib's, of runs that are stopped
            ended.close()


def _work(job: Job, folder: Path, device: str) -> tuple[Job, Record]:
    """One run, on one thread; others in this process wait, as they share torch's random state."""
    (row, seed), parent = job, os.getppid()
    in_a_pool = multiprocessing.parent_process() is not None

    def progress(task: int, tasks: int, part: float) -> None:
        if in_a_pool and os.getppid() != parent:  # who asked for this run is gone
            os._exit(1)

    with ALONE, _one_thread():
        place = folder / study.folder_of(row, seed)
        gc.collect()  # the last run's networks and data lie in cycles: few objects, many megabytes
        try:
            record = run(row.config(seed), place, resume=True, device=device, progress=progress)
        except Diverged as error:  # a finding too
            where = records.environment(pick_device(device))
            record = {"failed": str(error), "environment": where, "seconds": 0.0}
    return job, record


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
