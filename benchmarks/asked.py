"""What every measurement here may be asked, and what it measures on."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genreplay_core import bench, records


def parser(about: str | None, out: str) -> argparse.ArgumentParser:
    """The options of all scripts; the first line of its docstring says what a script is for."""
    options = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    options.add_argument("--out", type=Path, default=Path(out), metavar="DIR")
    options.add_argument("--threads", type=int, help="default: torch's own choice")
    options.add_argument("--device", default="auto")
    options.add_argument("--quick", action="store_true", help="tiny; the figures mean nothing")
    return options


@contextlib.contextmanager
def recipe(options: argparse.Namespace, **sizes: Any) -> Iterator[tuple[bench.Recipe, str]]:
    """The recipe to measure and where its images come from. DIR is claimed before all else."""
    records.claim(options.out)
    small = {"batch": 8, "hidden": 16} if options.quick else {}
    with bench.thread_count(options.threads), bench.data_set(options.quick) as (folder, source):
        yield bench.Recipe(folder, options.device, **{**sizes, **small}), source
