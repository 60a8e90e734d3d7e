"""Processes to kill, and what is to be the same afterwards."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

import torch


def forks() -> Any:
    """A server that has imported everything and forks itself: a new process takes no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["genreplay_core.cli", "sklearn.datasets", "sklearn.utils"])
    return context


def in_a_process(
    work: Callable[..., None], *arguments: Any, seconds: float | None = None
) -> tuple[int, str]:
    """The exit status of a process that does some work, and the last line that it said; killed
    after so many seconds, if they are given."""
    ours, theirs = (context := forks()).Pipe(duplex=False)
    process = context.Process(target=_worker, args=(work, theirs, *arguments))
    process.start()
    theirs.close()
    process.join(seconds)
    process.kill()
    process.join()
    said = ""
    with contextlib.suppress(EOFError):
        said = ours.recv() if ours.poll() else ""
    assert process.exitcode is not None
    return process.exitcode, said


def _worker(work: Callable[..., None], pipe: Any, *arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        work(*arguments)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        os._exit(2)


def die() -> None:
    """As if somebody pulled the plug."""
    os.kill(os.getpid(), signal.SIGKILL)


def one_line(error: BaseException) -> str:
    """What an error says, which is one line."""
    assert "\n" not in str(error)
    return str(error)


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, tensors included."""
    if torch.is_tensor(one):
        return torch.is_tensor(other) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
