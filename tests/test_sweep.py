"""Sweeps give what each run alone gives, whoever works, and whatever stops or dies on the way."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from genreplay_core import batched, experiment, study, sweep
from genreplay_core.faults import Diverged
from genreplay_core.files import unsealed, write_json

TINY = """
title = "Tiny"
question = "Is anything lost?"
seeds = [0, 1]

[base]
tasks = 2
steps = 8
batch = 16
hidden = 8
lr = 0.03

[rows.none]
replay = "none"

[rows.exact]
replay = "exact"
"""
JOBS = {("none", 0), ("exact", 0), ("none", 1), ("exact", 1)}

work = sweep._work  # as it is, for jobs that stand in for it
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def tiny(folder: Path, text: str = TINY) -> study.Study:
    (folder / "tiny.toml").write_text(text)
    return study.read(folder / "tiny.toml")


def sweeping(folder: Path, text: str = TINY, workers: int | None = 1, **options):
    """The result of a sweep, and the runs that ended in it, in their order."""
    ended = []

    def finished(job, record, done, wanted):
        ended.append((job[0].name, job[1]))

    options = {"device": "cpu", "finished": finished, **options}
    if "scheduler" not in options:
        options["workers"] = workers
    return sweep.sweep(tiny(folder, text), folder / "out", folder / "work", **options), ended


def matrices(result):
    """(row, seed) -> accuracy matrix of every run that came to its end."""
    runs = [(row["name"], run) for row in result["rows"] for run in row["runs"]]
    return {(n, run["seed"]): run["accuracy_matrix"] for n, run in runs if "failed" not in run}


def result_in(folder: Path):
    return unsealed(json.loads((folder / "out" / "tiny.json").read_text()))


def hidden(folder: Path) -> list[Path]:
    """Temporary files, which have hidden names."""
    return list(folder.rglob(".*"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """(row, seed) -> accuracy matrix of the run alone, with the decimals that a result keeps."""
    wanted = tiny(tmp_path_factory.mktemp("alone"))
    found = {
        (row.name, seed): experiment.run(row.config(seed), device="cpu")["accuracy_matrix"]
        for row, seed in wanted.jobs
    }
    return {job: [[round(a, 6) for a in row] for row in R] for job, R in found.items()}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep that is finished: its folder, its result, and the runs in the order they ended."""
    folder = tmp_path_factory.mktemp("swept")
    result, ended = sweeping(folder)
    return SimpleNamespace(folder=folder, result=result, ended=ended)


# ---------------------------------------------------------------- one process


def test_a_sweep_finds_what_each_run_alone_finds(swept, alone):
    assert matrices(swept.result) == alone
    assert len({str(R) for R in alone.values()}) == 4  # so that none stands for another
    assert swept.ended == [("none", 0), ("exact", 0), ("none", 1), ("exact", 1)]


def test_what_a_sweep_returns_is_what_its_file_holds(swept):
    assert result_in(swept.folder) == swept.result
    assert (swept.result["finished"], swept.result["wanted"]) == (4, 4)
    file, out = swept.folder / "tiny.toml", swept.folder / "out"
    assert swept.result["command"] == f"genreplay sweep {file} --out {out}"
    assert [path.name for path in (swept.folder / "out").iterdir()] == ["tiny.json"]


def test_each_run_is_kept_as_soon_as_it_has_ended(tmp_path):
    seen = []

    def look(job, record, done, wanted):
        seen.append((done, wanted, set(matrices(result_in(tmp_path)))))

    sweeping(tmp_path, finished=look)
    assert [(done, wanted) for done, wanted, _ in seen] == [(i, 4) for i in (1, 2, 3, 4)]
    assert [len(kept) for _, _, kept in seen] == [1, 2, 3, 4]


def test_a_run_takes_one_thread_and_leaves_the_others_to_the_caller(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.joblib, "cpu_count", lambda only_physical_cores: 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        # one worker for one core, which is this process; nobody is told
        result, _ = sweeping(tmp_path, workers=None, finished=None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert [where["threads"] for where in result["environments"]] == [1]


def test_a_process_does_one_run_at_a_time_however_many_threads_ask(tmp_path, monkeypatch):
    both, met = threading.Barrier(2, timeout=0.2), []

    def meet(*args, **options):
        try:
            both.wait()
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)  # nobody else came

    monkeypatch.setattr(sweep, "run", meet)
    jobs = tiny(tmp_path).jobs[:2]
    threads = [threading.Thread(target=work, args=(job, tmp_path, "cpu")) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == [False, False]


def test_workers_are_told_where_the_folder_of_runs_is_whatever_their_own(tmp_path, monkeypatch):
    told = set()

    def look(job, folder, device):
        told.add(folder)
        return work(job, folder, device)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "_work", look)
    sweep.sweep(tiny(tmp_path), "out", "work", workers=1, device="cpu")
    assert told == {tmp_path / "work" / "tiny"}
    assert (tmp_path / "out" / "tiny.json").exists()


# ---------------------------------------------------------------- nothing is repeated


def test_some_rows_may_be_run_and_the_others_later(tmp_path):
    result, ended = sweeping(tmp_path, only=["exact"])
    assert ended == [("exact", 0), ("exact", 1)]
    assert (result["finished"], result["wanted"]) == (2, 4)
    assert sweeping(tmp_path)[1] == [("none", 0), ("none", 1)]
    with pytest.raises(ValueError, match="'tiny' has no row 'excat': choose from 'none', 'exact'"):
        sweeping(tmp_path, only=["none", "excat"])


def test_two_sweeps_of_one_study_at_a_time_lose_nothing(tmp_path):
    others = []

    def meanwhile(job, record, done, wanted):
        if not others:
            others.append(sweeping(tmp_path, only=["exact"])[1])

    sweeping(tmp_path, only=["none"], finished=meanwhile)
    assert others == [[("exact", 0), ("exact", 1)]]
    assert len(matrices(result_in(tmp_path))) == 4


def test_a_finished_sweep_does_nothing_again(tmp_path, swept):
    shutil.copytree(swept.folder / "out", tmp_path / "out")
    result, ended = sweeping(tmp_path)
    assert ended == []
    assert not (tmp_path / "work").exists()
    assert {**result, "command": swept.result["command"]} == swept.result
    before = (tmp_path / "out" / "tiny.json").read_bytes()
    sweeping(tmp_path)
    assert (tmp_path / "out" / "tiny.json").read_bytes() == before


CHANGES = {
    "a row more": (lambda text: text + '[rows.noise]\nreplay = "noise"\n', {"noise"}),
    "another option": (lambda text: text + "strength = 3.0\n", {"exact"}),
    "another option of all": (
        lambda text: text.replace("lr = 0.03", "lr = 0.02"),
        {"none", "exact"},
    ),
    "another title": (lambda text: text.replace('"Tiny"', '"Small"'), set()),
    "a row less": (lambda text: text.split("[rows.exact]")[0], set()),
}


@pytest.mark.parametrize(("change", "rows"), CHANGES.values(), ids=CHANGES)
def test_only_rows_that_changed_are_run(tmp_path, swept, change, rows):
    shutil.copytree(swept.folder / "out", tmp_path / "out")
    before = matrices(result_in(tmp_path))
    result, ended = sweeping(tmp_path, change(TINY))
    assert sorted(ended) == sorted((row, seed) for row in rows for seed in (0, 1))
    after = matrices(result)
    assert {job: R for job, R in after.items() if job[0] not in rows} == {
        job: R for job, R in before.items() if job in after and job[0] not in rows
    }


@pytest.mark.parametrize("seeds", ["[1, 0, 2]", "[2, 0]"])
def test_only_seeds_that_are_new_are_run(tmp_path, swept, seeds):
    shutil.copytree(swept.folder / "out", tmp_path / "out")
    counts = []
    result, _ = sweeping(
        tmp_path,
        TINY.replace("[0, 1]", seeds),
        finished=lambda job, record, done, wanted: counts.append((job[1], done, wanted)),
    )
    total = 2 * len(json.loads(seeds))
    assert counts == [(2, total - 1, total), (2, total, total)]
    assert (result["finished"], result["wanted"]) == (total, total)


def test_a_run_that_is_missing_from_the_result_is_run_again_and_no_other(tmp_path, swept):
    shutil.copytree(swept.folder / "out", tmp_path / "out")
    before = result_in(tmp_path)
    damaged = result_in(tmp_path)
    damaged["rows"][1]["runs"].pop(0)
    write_json(tmp_path / "out" / "tiny.json", damaged)
    result, ended = sweeping(tmp_path)
    assert ended == [("exact", 0)]
    assert matrices(result) == matrices(before)


def test_a_run_whose_folder_is_left_is_read_and_not_run_again(tmp_path, swept, monkeypatch):
    shutil.copytree(swept.folder / "work", tmp_path / "work")
    monkeypatch.setattr(experiment, "Run", None)
    result, ended = sweeping(tmp_path)
    assert set(ended) == JOBS
    assert matrices(result) == matrices(swept.result)


# ---------------------------------------------------------------- runs that fail


def test_a_run_that_diverges_is_a_finding_and_harms_no_other(tmp_path, alone):
    text = TINY + '[rows.wild]\nreplay = "none"\nlr = 1e30\nsteps = 40\n'
    result, ended = sweeping(tmp_path, text)
    assert matrices(result) == alone
    wild = result["rows"][2]
    assert wild["seeds"] == 0
    assert all("the loss became" in run["failed"] for run in wild["runs"])
    assert (result["finished"], result["wanted"], len(ended)) == (6, 6, 6)
    shutil.rmtree(tmp_path / "work")
    again, ended = sweeping(tmp_path, text)
    assert ended == []
    assert again == result


def test_a_run_that_cannot_be_stops_the_sweep_and_what_is_finished_is_kept(tmp_path):
    text = TINY + '[rows.wrong]\ndataset = "digit"\n'
    with pytest.raises(ValueError, match="unknown data set 'digit'"):
        sweeping(tmp_path, text)
    assert set(matrices(result_in(tmp_path))) == {("none", 0), ("exact", 0)}
    _, ended = sweeping(tmp_path)
    assert set(ended) == {("none", 1), ("exact", 1)}


def test_the_result_of_another_study_is_left_alone(tmp_path, swept):
    other = {**swept.result, "study": "other"}
    (tmp_path / "out").mkdir()
    write_json(tmp_path / "out" / "tiny.json", other)
    with pytest.raises(ValueError, match="holds 'other', expected 'tiny'"):
        sweeping(tmp_path)
    assert result_in(tmp_path) == other


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"workers": -1}, "workers must be at least 1, got -1"),
        ({"device": "abacus"}, "device 'abacus'"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(tmp_path, options, said):
    with pytest.raises(ValueError, match=said) as error:
        sweeping(tmp_path, **options)
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.toml"}


# ---------------------------------------------------------------- two processes


def note(folder: Path, *words: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "journal").open("a") as journal:
        journal.write(json.dumps(words) + "\n")


def dying_once(job, folder, device):
    """As `_work`, but one worker dies in the second task of a run. A journal tells which runs
    were learned to their end, and with how many tasks from a checkpoint."""
    row, seed = job
    place, marker = folder / study.folder_of(row, seed), folder / "died"
    begun = [(place / name).exists() for name in ("result.json", "checkpoint.pt")]

    def die(task, tasks, fraction):
        if task == 1 and fraction >= 0.5 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    if (row.name, seed) == ("exact", 0) and not marker.exists():
        experiment.run(row.config(seed), place, resume=True, device=device, progress=die)
    found = work(job, folder, device)
    note(folder, row.name, seed, *begun)
    return found


def check_survived(folder, result, ended, alone):
    """Nothing was lost, nothing was learned twice, and the run that died was resumed."""
    assert (folder / "work" / "tiny" / "died").exists()
    assert matrices(result) == alone
    assert sorted(ended) == sorted(JOBS)
    lines = (folder / "work" / "tiny" / "journal").read_text().splitlines()
    notes = [json.loads(line) for line in lines]
    learned = [(name, seed) for name, seed, was_finished, _ in notes if not was_finished]
    assert sorted(learned) == sorted(JOBS)
    assert ["exact", 0, False, True] in notes  # begun from its checkpoint
    assert hidden(folder) == []


def test_two_workers_find_what_each_run_alone_finds(tmp_path, alone):
    result, ended = sweeping(tmp_path, workers=2)
    assert matrices(result) == alone
    assert sorted(ended) == sorted(JOBS)
    assert [where["threads"] for where in result["environments"]] == [1]


@posix
def test_what_a_dead_worker_left_is_given_to_another(tmp_path, alone, monkeypatch):
    monkeypatch.setattr(sweep, "_work", dying_once)
    result, ended = sweeping(tmp_path, workers=2)
    check_survived(tmp_path, result, ended, alone)


def test_a_sweep_that_was_interrupted_goes_on(tmp_path, alone):
    def stop(job, record, done, wanted):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweeping(tmp_path, workers=2, finished=stop)
    (first,) = kept = matrices(result_in(tmp_path))
    assert kept[first] == alone[first]
    result, ended = sweeping(tmp_path)
    assert set(ended) == JOBS - {first}
    assert matrices(result) == alone
    assert hidden(tmp_path) == []


KILLED_IN_THE_LAST_RUN = """\
import os, signal, sys
from genreplay_core import cli, sweep

learn = sweep.run

def doomed(config, *args, **options):
    def die(task, tasks, fraction):
        if (config.replay, config.seed) == ("exact", 1) and task == 1 and fraction >= 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
    return learn(config, *args, **{**options, "progress": die})

sweep.run = doomed
cli.main(["sweep", *sys.argv[1:], "--workers", "1", "--device", "cpu"])
"""


@posix
def test_a_sweep_that_was_killed_goes_on_where_it_was(tmp_path, alone):
    tiny(tmp_path)
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    ask = [sys.executable, "-c", KILLED_IN_THE_LAST_RUN, str(tmp_path / "tiny.toml"), *folders]
    done = subprocess.run(ask, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    before = result_in(tmp_path)
    assert set(matrices(before)) == JOBS - {("exact", 1)}
    assert (before["finished"], before["wanted"]) == (3, 4)

    result, ended = sweeping(tmp_path)
    assert ended == [("exact", 1)]
    assert matrices(result) == alone
    assert result["rows"][0] == before["rows"][0]
    assert hidden(tmp_path) == []


def test_what_a_writer_that_was_killed_has_left_is_removed(tmp_path, swept):
    shutil.copytree(swept.folder / "out", tmp_path / "out")
    shutil.copytree(swept.folder / "work", tmp_path / "work")
    row = tiny(tmp_path).rows[0]
    place = tmp_path / "work" / "tiny" / study.folder_of(row, 0)
    left = [tmp_path / "out" / ".tiny.json.77", place / ".checkpoint.pt.77"]
    for path in left:
        path.write_text("half of it")
        os.utime(path, (0, 0))
    other = tmp_path / "out" / ".other.json.77"  # somebody may be writing this right now
    other.touch()
    (tmp_path / "out" / "tiny.json").unlink()
    sweeping(tmp_path)
    assert hidden(tmp_path) == [other]


@posix
def test_workers_that_always_die_are_one_clear_error(monkeypatch):
    def die(job, folder, device):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(sweep, "_work", die)
    jobs = [(SimpleNamespace(name="greedy"), seed) for seed in range(4)]
    said = r"workers died 3 times .*; not finished: greedy \(seed 0\), greedy \(seed 1\), greedy"
    with sweep._backend(2, None, "cpu"), pytest.raises(RuntimeError, match=said) as error:
        list(sweep._surviving(jobs, Path(), "cpu"))
    assert "\n" not in str(error.value)


def test_deaths_are_forgiven_as_long_as_runs_are_finished(monkeypatch):
    begun = []

    def parallel(**options):
        def runs(calls):
            begun.append([job for _, (job, *_), _ in calls])
            yield begun[-1][0], {"nth": len(begun)}
            raise sweep.BrokenProcessPool

        return runs

    monkeypatch.setattr(sweep.joblib, "Parallel", parallel)
    jobs = [(SimpleNamespace(name="greedy"), seed) for seed in range(3 * sweep.DEATHS)]
    ended = list(sweep._surviving(jobs, Path(), "cpu"))
    assert [job for job, _ in ended] == jobs
    assert [record["nth"] for _, record in ended] == list(range(1, len(jobs) + 1))
    assert begun == [jobs[i:] for i in range(len(jobs))]  # what is finished isn't given out again


def test_seeds_may_be_learned_together_where_that_can_be_done(tmp_path, monkeypatch):
    asked = []

    def together(configs, device):
        asked.append([(config.replay, config.seed) for config in configs])
        return batched.run_together(configs, device=device)

    monkeypatch.setattr(sweep, "run_together", together)
    result, ended = sweeping(tmp_path, together=True)
    assert asked == [[("none", 0), ("none", 1)]]  # exact replay stores, and so runs apart
    assert {job: job in JOBS for job in ended} == dict.fromkeys(JOBS, True)
    shared = [run.get("together") for row in result["rows"] for run in row["runs"]]
    assert shared == [2, 2, None, None]
    assert result["command"].endswith(" --together")


def test_a_row_that_diverges_together_is_run_one_by_one(tmp_path, monkeypatch):
    def diverging(configs, device):
        raise Diverged("somewhere")

    monkeypatch.setattr(sweep, "run_together", diverging)
    _, ended = sweeping(tmp_path, together=True)
    assert set(ended) == JOBS


def test_a_single_seed_has_none_to_be_learned_with(tmp_path):
    result, _ = sweeping(tmp_path, TINY.replace("[0, 1]", "[0]"), together=True)
    assert all("together" not in run for row in result["rows"] for run in row["runs"])


def test_a_worker_stops_when_its_pool_is_gone(tmp_path, monkeypatch):
    def leave(status):
        raise SystemExit(status)

    parents = iter(range(1, 1000))
    monkeypatch.setattr(os, "getppid", lambda: next(parents))  # another one at every look
    monkeypatch.setattr(os, "_exit", leave)
    job = tiny(tmp_path).jobs[0]
    assert "accuracy_matrix" in work(job, tmp_path / "own", "cpu")[1]  # a process of its own stays
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "the pool")
    with pytest.raises(SystemExit):
        work(job, tmp_path / "pool", "cpu")
    assert hidden(tmp_path) == []


# ---------------------------------------------------------------- a cluster


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
    ) as running:
        yield running


def test_a_cluster_finds_what_each_run_alone_finds(tmp_path, alone, cluster):
    result, ended = sweeping(tmp_path, scheduler=cluster.scheduler_address)
    assert matrices(result) == alone
    assert sorted(ended) == sorted(JOBS)


@posix
def test_a_cluster_survives_the_death_of_a_worker(tmp_path, alone, cluster, monkeypatch):
    monkeypatch.setattr(sweep, "_work", dying_once)
    result, ended = sweeping(tmp_path, scheduler=cluster.scheduler_address)
    check_survived(tmp_path, result, ended, alone)


def test_a_cluster_of_one_core_works_there_and_not_here(cluster, monkeypatch):
    from distributed import Client

    def where(job, folder, device):
        return job, {"process": os.getpid()}

    monkeypatch.setattr(sweep, "_work", where)
    monkeypatch.setattr(Client, "ncores", lambda self: {"the only worker": 1})
    with sweep._backend(None, cluster.scheduler_address, "cpu"):
        ((job, record),) = sweep._surviving([("row", 3)], Path(), "cpu")
    assert job == ("row", 3)
    assert record["process"] != os.getpid()


@posix
def test_a_run_that_dask_gives_up_is_one_clear_error_at_last(cluster, monkeypatch):
    def die(job, folder, device):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(sweep, "_work", die)
    monkeypatch.setattr(sweep, "DEATHS", 2)
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    jobs = [(SimpleNamespace(name="greedy"), seed) for seed in range(2)]
    said = "workers died 2 times"
    with (
        sweep._backend(None, cluster.scheduler_address, "cpu"),
        pytest.raises(RuntimeError, match=said),
    ):
        list(sweep._surviving(jobs, Path(), "cpu"))


def test_an_error_on_a_cluster_is_the_run_s_own(cluster, monkeypatch):
    def fail(job, folder, device):
        raise ValueError("unknown data set 'digit'")

    monkeypatch.setattr(sweep, "_work", fail)
    with (
        sweep._backend(None, cluster.scheduler_address, "cpu"),
        pytest.raises(ValueError, match="unknown data set 'digit'"),
    ):
        list(sweep._surviving([("row", 3)], Path(), "cpu"))


def test_a_scheduler_that_is_lost_is_one_line(cluster):
    address = cluster.scheduler_address
    with (
        pytest.raises(ConnectionError, match=f"the Dask scheduler at {address} is lost"),
        sweep._backend(None, address, "cpu"),
    ):
        raise CancelledError


def test_a_job_that_does_not_reach_the_workers_is_an_error(cluster):
    class Unreadable:
        def __reduce__(self):
            return int, ("unreadable",)

    with (
        sweep._backend(None, cluster.scheduler_address, "cpu"),
        pytest.raises((ValueError, RuntimeError)),
    ):
        list(sweep._surviving([(Unreadable(), 3)], Path(), "cpu"))


@pytest.fixture
def deaf():
    """An address that is taken, but where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def clients(distributed) -> set[int]:
    return {id(thing) for thing in gc.get_objects() if type(thing) is distributed.Client}


@pytest.mark.parametrize("address", ["deaf", "nowhere", "abacus://here:1"])
def test_an_address_where_nobody_listens_is_one_line(tmp_path, monkeypatch, address, deaf):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(sweep, "PATIENCE", "0.2s")
    address = deaf if address == "deaf" else address
    before = clients(distributed)
    with pytest.raises(ValueError, match=f"no Dask scheduler answers at {address}") as error:
        sweeping(tmp_path, scheduler=address)
    assert clients(distributed) <= before  # none is left to die at a bad moment
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.toml"}


def test_without_dask_one_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'genreplay-core\[cluster\]'"):
        sweeping(tmp_path, scheduler="tcp://127.0.0.1:8786")
