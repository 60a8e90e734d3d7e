"""The folder of a run, `result.json` and `checkpoint.pt`, and what figures depend on.

A config is a plain dict here. Nothing is read without being held against the config that asks;
`usual` says what an option was before there was such an option.
"""

from __future__ import annotations

import json
import platform
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from .files import replacing, tidy, unsealed
from .metrics import summary

Record = dict[str, Any]
FILES = ("result.json", "checkpoint.pt", "dreams.png", "matrices.png", ".probe")  # of a run


def finished(
    folder: Path, config: dict[str, Any], resume: bool, usual: dict[str, Any]
) -> Record | None:
    """The record in the folder, if it holds this very run and it may be read.

    Raises:
        ValueError: the folder holds another run, an unfinished one or a damaged record, or this
            run and `resume` wasn't said.
    """
    result, checkpoint = folder / "result.json", folder / "checkpoint.pt"
    if not result.exists():
        if checkpoint.exists() and not resume:
            raise ValueError(f"{folder} holds an unfinished run: add --resume, or choose another")
        return None
    try:
        record = unsealed(json.loads(result.read_text()))
        stored, _ = dict(record["config"]), summary(record["accuracy_matrix"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{result} is damaged, or not the record of one run ({_reason(error)}): "
            "choose another folder"
        ) from None
    _same(config, {**usual, **stored}, folder)
    if not resume:
        raise ValueError(
            f"{folder} holds this run already: add --resume to read it, or choose another"
        )
    tidy_run(folder)
    return record


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _same(config: dict[str, Any], stored: dict[str, Any], folder: Path) -> None:
    mine, other = json.loads(json.dumps(config)), json.loads(json.dumps(stored))
    if unknown := other.keys() - mine.keys():
        raise ValueError(
            f"{folder} holds a run of a later version, which has {', '.join(sorted(unknown))}: "
            "update genreplay-core, or choose another folder"
        )
    differing = [name for name, value in mine.items() if value != other.get(name)]
    if differing:
        raise ValueError(
            f"{folder} holds a run with another {', '.join(differing)}: choose another folder"
        )


def tidy_run(folder: Path) -> None:
    """Remove what a process that died while it wrote has left of a run's files."""
    for name in FILES:
        tidy(folder / name)


def claim(folder: Path) -> None:
    """Make sure that the folder is there, can be written to and is tidy, before anything is
    computed."""
    folder.mkdir(parents=True, exist_ok=True)
    tidy_run(folder)
    with replacing(folder / ".probe") as probe:
        probe.touch()
    (folder / ".probe").unlink(missing_ok=True)  # others may be doing this too


def save_checkpoint(folder: Path, config: dict[str, Any], saved: dict[str, Any]) -> None:
    """Write the checkpoint, whole or not at all.

    Raises:
        OSError: it can't be written.
    """
    with replacing(folder / "checkpoint.pt") as partial, open(partial, "wb") as file:
        try:
            torch.save({"config": config, **saved}, file)
        except RuntimeError as error:  # torch hides what kept it from writing
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def load_checkpoint(
    folder: Path, config: dict[str, Any], usual: dict[str, Any]
) -> dict[str, Any] | None:
    """The "scholar" and "state" of the checkpoint, tensors on the host, or None if there is none.
    Loading runs no code from the file.

    Raises:
        ValueError: the file is damaged, or of another config.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch doesn't look at the checksums
                raise ValueError
        saved = torch.load(path, map_location="cpu", weights_only=True)
        stored, parts = dict(saved["config"]), {part: saved[part] for part in ("scholar", "state")}
        _check_state(parts["state"])
        json.dumps(stored)
    except Exception:  # a damaged file may raise anything
        raise ValueError(
            f"{path} is damaged or no checkpoint of ours: remove it to start anew"
        ) from None
    _same(config, {**usual, **stored}, folder)
    return parts


def _check_state(state: dict[str, Any]) -> None:
    """Raise something if no run can go on from there."""
    matrix, numbers = state["matrix"], [state[n] for n in ("steps", "training_seconds", "seconds")]
    accuracies = torch.tensor(matrix)  # (tasks learned + 1, T)
    rest = {name: part for name, part in state.items() if name != "dreams"}
    json.dumps(rest, allow_nan=False)
    if not (
        2 <= len(accuracies) <= accuracies.shape[1] + 1
        and ((accuracies >= 0) & (accuracies <= 1)).all()
        and all(type(number) in (int, float) and number > 0 for number in numbers)
        and all(dream.dtype == torch.uint8 for dream in state["dreams"])
    ):
        raise ValueError


def environment(device: torch.device) -> dict[str, Any]:
    """What a run's figures depend on besides its config."""
    from . import __version__

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "genreplay_core": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that the package runs from, if git knows this very file."""
    here = Path(__file__)
    known = ["git", "ls-files", "--error-unmatch", here.name]
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        for ask in (known, describe):
            done = subprocess.run(
                ask, cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
