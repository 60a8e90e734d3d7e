"""No room on the disk, no right to write, no folder, no memory: one clear line, what there was
stays, and the run goes on when the trouble is over."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from harness import in_a_process, one_line, same

from genreplay_core import cli, study
from genreplay_core.config import Config
from genreplay_core.experiment import run
from genreplay_core.sweep import sweep

resource = pytest.importorskip("resource")  # not there on Windows

CHOSEN = Config(tasks=5, steps=4, batch=16, hidden=64, replay="conditional")


class Mounted:
    """A file system in memory, so small that it is soon full."""

    def __init__(self, folder: Path, size: str):
        self.folder = folder
        folder.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")

    def remount(self, how: str) -> None:
        """E.g. "ro", or "size=2m"."""
        self._mount("-o", f"remount,{how}")

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self.folder)], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=False)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Mounted]]:
    """Makes a mount of a size."""
    made: list[Mounted] = []

    def make(size: str) -> Mounted:
        try:
            made.append(Mounted(tmp_path / "small", size))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only root may mount")
        return made[-1]

    yield make
    for one in made:
        one.unmount()


def fill_up(path: Path) -> None:
    """Write until there is no room."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as big:
        while True:
            big.write(bytes(4096))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@functools.cache
def whole() -> list[list[float]]:
    """What the run finds where nothing goes wrong."""
    return run(CHOSEN, device="cpu")["accuracy_matrix"]


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_when_there_is_room(mounted, at):
    """The disk is full from the end of task `at` on."""
    small = mounted("8m")
    before: dict[str, bytes] = {}

    def fill(work):
        if len(work.state.matrix) == at + 1:
            before.update(files_of(small.folder))
            fill_up(small.folder / "big")

    out = small.folder / "run"
    if at == 0:
        out.mkdir()
        fill_up(small.folder / "big")
    with pytest.raises(OSError, match=r"No space left on device: '.*checkpoint.pt'") as error:
        run(CHOSEN, out, device="cpu", after_task=fill)
    assert "checkpoint.pt." not in one_line(error.value)  # not the temporary name
    assert {n: b for n, b in files_of(small.folder).items() if n != "big"} == before
    (small.folder / "big").unlink()
    assert run(CHOSEN, out, device="cpu", resume=True)["accuracy_matrix"] == whole()


def test_the_command_line_says_it_in_one_line_and_exits_with_2(mounted, capsys):
    small = mounted("64k")
    options = [*("--tasks", "2", "--steps", "2", "--hidden", "64"), "--replay", "generative"]
    assert cli.main(["run", *options, "--out", str(small.folder / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line
    assert files_of(small.folder) == {}


def test_a_folder_that_may_only_be_read_is_one_line_before_anything_is_learned(
    mounted, monkeypatch
):
    small = mounted("8m")
    small.remount("ro")
    monkeypatch.setattr("genreplay_core.experiment.Run.step_task", None)
    with pytest.raises(OSError, match="Read-only file system") as error:
        run(CHOSEN, small.folder, device="cpu")
    one_line(error.value)


def test_a_finished_run_is_read_from_a_folder_that_may_only_be_read(mounted):
    small = mounted("8m")
    record = run(CHOSEN, small.folder / "run", device="cpu")
    small.remount("ro")
    again = run(CHOSEN, small.folder / "run", device="cpu", resume=True)
    assert again["accuracy_matrix"] == record["accuracy_matrix"]


def test_a_folder_that_becomes_read_only_keeps_its_checkpoint(mounted):
    small = mounted("8m")

    def lock(work):
        if len(work.state.matrix) == 3:
            small.remount("ro")

    with pytest.raises(OSError, match=r"Read-only file system: '.*checkpoint.pt'") as error:
        run(CHOSEN, small.folder / "run", device="cpu", after_task=lock)
    one_line(error.value)
    small.remount("rw")
    assert torch.load(small.folder / "run" / "checkpoint.pt")["scholar"]["tasks"] == [0, 1]
    again = run(CHOSEN, small.folder / "run", device="cpu", resume=True)
    assert again["accuracy_matrix"] == whole()


@pytest.mark.parametrize("at", [2, 6])
def test_a_folder_that_is_removed_while_the_run_goes_is_one_line(tmp_path, at):
    out = tmp_path / "run"

    def remove(work):
        if len(work.state.matrix) == at:
            shutil.rmtree(out)

    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*(\.pt|\.json)'"):
        run(CHOSEN, out, device="cpu", after_task=remove)
    assert not out.exists()
    assert run(CHOSEN, out, device="cpu", resume=True)["accuracy_matrix"] == whole()


STUDY = """
title = "Full"
question = "Is what there is kept?"
seeds = [0, 1, 2, 3, 4, 5]
[base]
tasks = 2
steps = 2
hidden = 64
replay = "conditional"
"""


def test_a_sweep_on_a_full_disk_keeps_what_is_finished_and_goes_on(mounted, tmp_path):
    small = mounted("4m")
    (tmp_path / "full.toml").write_text(STUDY)
    wanted, out = study.read(tmp_path / "full.toml"), small.folder / "out"
    with pytest.raises(OSError, match="No space left on device") as error:
        sweep(wanted, out, small.folder / "work", workers=1, device="cpu")
    one_line(error.value)
    first = study.loaded(out / "full.json")
    assert 0 < first["finished"] < 6
    small.remount("size=64m")
    ended = []
    result = sweep(
        wanted,
        out,
        small.folder / "work",
        workers=1,
        device="cpu",
        finished=lambda job, *_: ended.append(job[1]),
    )
    assert result["finished"] == 6
    assert len(ended) == 6 - first["finished"]
    assert result["rows"][0]["runs"][: first["finished"]] == first["rows"][0]["runs"]


# ---------------------------------------------------------------- memory

HUNGRY = Config(tasks=2, steps=16, batch=64, hidden=8, replay="conditional", best_of=64)


def starved(out: Path) -> None:
    """A run that has no memory left when the second task begins to dream."""

    def starve(work):
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + (16 << 20), resource.RLIM_INFINITY))

    run(HUNGRY, out, device="cpu", after_task=starve)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_no_memory_for_the_pool_of_dreams_is_one_line_and_the_run_goes_on_with_more(tmp_path):
    status, said = in_a_process(starved, tmp_path)
    assert (status, said.startswith("MemoryError: there isn't enough memory in task 1: ")) == (
        2,
        True,
    ), said
    one_line(MemoryError(said))
    assert torch.load(tmp_path / "checkpoint.pt")["scholar"]["tasks"] == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    again = run(HUNGRY, tmp_path, device="cpu", resume=True)
    assert same(again["accuracy_matrix"], run(HUNGRY, device="cpu")["accuracy_matrix"])
