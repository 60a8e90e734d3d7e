"""What the book's notebooks share: where they run, what was found before, how to say it.

    from genreplay_core import book
    book.start()                                # device and profile
    found = book.stored("labels")               # a result in book/results
    book.say("{n} runs are finished.", n=found["finished"])

No number is typed into the book's text: a sentence with a number in it is said by a cell.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from .nets import pick_device

PROFILES = ("ci", "laptop", "gpu")
HERE = Path(__file__).parent


def profile() -> str:
    """How much a notebook computes: "ci" (seconds), "laptop" (minutes) or "gpu" (the full recipe).

    The environment variable GENREPLAY_PROFILE says it; else it is "gpu" where there is one.

    Raises:
        ValueError: the variable names no profile.
    """
    usual = "gpu" if pick_device().type == "cuda" else "laptop"
    chosen = os.environ.get("GENREPLAY_PROFILE") or usual
    if chosen not in PROFILES:
        raise ValueError(f"GENREPLAY_PROFILE is '{chosen}': choose one of {', '.join(PROFILES)}")
    return chosen


def start() -> str:
    """Say where the notebook runs, and return its profile."""
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(f"device: {name}{threads}; profile: {profile()}; torch {torch.__version__}")
    return profile()


def stored(name: str) -> dict[str, Any]:
    """The result called `name`: in the book's folder of a checkout, else as it was installed.

    Raises:
        ValueError: there is no such result.
    """
    for folder in (HERE.parent / "book" / "results", HERE / "results"):
        if (path := folder / f"{name}.json").is_file():
            return dict(json.loads(path.read_text(encoding="utf-8")))
    raise ValueError(f"there is no stored result '{name}': see book/results for what there is")


def say(text: str, **values: object) -> None:
    """Show Markdown with values in it, as `str.format` puts them there."""
    from IPython.display import Markdown, display  # a notebook has it, the library needs none

    display(Markdown(text.format(**values)))
