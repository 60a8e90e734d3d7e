"""A study: an experiment declared in a small file, and what its runs found.

    title = "How much should the new task count?"
    question = "Does 1/t serve better than a fixed weight?"
    seeds = [2, 3, 4]

    [base]                          # options of `Config` that all rows share
    dataset = "mnist"
    steps = 500

    [rows."one over t"]             # a row of the table: what differs from the base
    replay = "conditional"

    [rows.none]
    replay = "none"
    seeds = [2, 3, 4, 5, 6]         # a row may have seeds of its own

    [grid]                          # every row in every combination of these, if there are any
    importance = [0.1, 0.5]

A row and a seed make a `Config`, so a run. `result` puts the records of finished runs together:
one JSON for each study, with every run in it, and the mean, standard error and 95 % interval over
the seeds of each row. It is the store of finished runs too.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .config import Config
from .files import unsealed
from .metrics import interval
from .records import Record

MEASURES = ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer")
FOUND = (
    *("accuracy_matrix", "tasks", "curve", "quality", "privacy"),
    *("together", "seconds", "steps_per_second"),
)
OPTIONS = {f.name for f in fields(Config)} - {"seed"}
PARTS = {"title", "question", "seeds", "base", "rows", "grid"}


@dataclass(frozen=True)
class Row:
    """A row of a study's table: its name, its options without the seed, its seeds."""

    name: str
    options: dict[str, Any]
    seeds: tuple[int, ...]

    def config(self, seed: int) -> Config:
        return Config(**self.options, seed=seed)

    @property
    def described(self) -> dict[str, Any]:
        """The whole config but for the seed, as JSON would give it back."""
        whole = json.loads(json.dumps(asdict(self.config(0))))
        del whole["seed"]
        return dict(whole)


@dataclass(frozen=True)
class Study:
    """An experiment as it was declared. source: the file, as it was named."""

    name: str
    source: str
    title: str
    question: str
    rows: tuple[Row, ...]

    @property
    def jobs(self) -> list[tuple[Row, int]]:
        """Every run; the first seed of all rows comes before the second of any."""
        ordered = itertools.zip_longest(*(row.seeds for row in self.rows))
        return [
            (row, seed)
            for seeds in ordered
            for row, seed in zip(self.rows, seeds, strict=True)
            if seed is not None
        ]


# ---------------------------------------------------------------- reading


def read(path: str | Path) -> Study:
    """The study that a file declares.

    Raises:
        ValueError: no TOML; parts or options that don't exist; options that don't go together.
        OSError: the file can't be read.
    """
    path = Path(path)
    try:
        if path.stem.startswith("."):  # no folder above is to be written to
            raise ValueError("a study's file is named like its result: begin with a letter")
        declared = tomllib.loads(path.read_text(encoding="utf-8"))
        return _study(path, declared)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def _study(path: Path, declared: dict[str, Any]) -> Study:
    if unknown := declared.keys() - PARTS:
        raise ValueError(f"unknown part '{min(unknown)}': a study has {', '.join(sorted(PARTS))}")
    texts = {part: declared.get(part) for part in ("title", "question")}
    if not all(isinstance(text, str) and text.strip() for text in texts.values()):
        raise ValueError("a study needs a title and a question, each a text")
    shared, rows = _table(declared, "base"), _table(declared, "rows") or {"run": {}}
    usual, grid = declared.get("seeds"), _table(declared, "grid")
    if not all(isinstance(values, list) and values for values in grid.values()):
        raise ValueError("each option of the grid needs a list of values")
    found = [
        _row(" · ".join([title, *label]), {**shared, **_table(rows, title), **cell}, usual)
        for title in rows
        for label, cell in _cells(grid)
    ]
    if len({row.name for row in found}) < len(found):
        raise ValueError("the grid names a value twice")
    words = {part: " ".join(str(text).split()) for part, text in texts.items()}
    return Study(path.stem, path.as_posix(), **words, rows=tuple(found))


def _table(parts: dict[str, Any], name: str) -> dict[str, Any]:
    table = parts.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"'{name}' is {table!r}, expected a table of options")
    return table


def _cells(grid: dict[str, list[Any]]) -> list[tuple[list[str], dict[str, Any]]]:
    """Every combination of the grid's values, with its label."""
    combinations = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    return [([f"{k} {v}" for k, v in cell.items()], cell) for cell in combinations]


def _row(name: str, options: dict[str, Any], usual: Any) -> Row:
    seeds = options.pop("seeds", usual)
    whole = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"row '{name}' needs seeds, different whole numbers of 0 or more")
    try:
        for option in options:
            if option not in OPTIONS:
                raise ValueError(f"unknown option '{option}'")
        if isinstance(options.get("class_order"), list):
            options["class_order"] = tuple(options["class_order"])
        Config(**options)
    except ValueError as error:
        raise ValueError(f"row '{name}': {error}") from None
    return Row(name, options, tuple(seeds))


# ---------------------------------------------------------------- results


def folder_of(row: Row, seed: int) -> Path:
    """Where a run works: a folder for each row and seed, and a new one if options change."""
    options = json.dumps(row.options, sort_keys=True)
    digest = hashlib.sha256(options.encode()).hexdigest()[:8]
    return Path(re.sub(r"[^\w.-]+", "-", f"{row.name} {digest}")) / f"seed-{seed}"


def result(study: Study, records: dict[tuple[str, int], Record], command: str) -> dict[str, Any]:
    """What a study has found so far, ready for JSON.

    Args:
        records: (name of the row, seed) -> the record of that run.
        command: what makes this result again.
    """
    environments: list[dict[str, Any]] = []
    rows = []
    for row in study.rows:
        runs = [
            _run(seed, records[row.name, seed], environments)
            for seed in row.seeds
            if (row.name, seed) in records
        ]
        rows.append({"name": row.name, "config": row.described, **_summary(runs), "runs": runs})
    return {
        "study": study.name,
        "title": study.title,
        "question": study.question,
        "command": command,
        "finished": sum(len(row["runs"]) for row in rows),
        "wanted": len(study.jobs),
        "seconds": sum(run["seconds"] for row in rows for run in row["runs"]),
        "environments": environments,
        "rows": rows,
    }


def _run(seed: int, record: Record, environments: list[dict[str, Any]]) -> dict[str, Any]:
    """A record without what its row says already. A run that diverged has only `failed`."""
    where = record["environment"]
    if where not in environments:
        environments.append(where)
    kept = {name: record[name] for name in (*MEASURES, *FOUND, "failed") if name in record}
    return {"seed": seed, **_rounded(kept), "environment": environments.index(where)}


def _rounded(value: Any) -> Any:
    """Numbers with six decimals: 60,000 examples tell no more."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each measure over the seeds whose runs came to their end."""
    ended = [run for run in runs if "failed" not in run]
    return {"seeds": len(ended), **{name: _spread(ended, name) for name in MEASURES if ended}}


def _spread(runs: Sequence[dict[str, Any]], measure: str) -> dict[str, float | None]:
    """Mean, standard error and 95 % interval; None where one seed can't tell."""
    found = interval([run[measure] for run in runs])._asdict()
    return {name: None if np.isnan(value) else _rounded(value) for name, value in found.items()}


def loaded(path: str | Path) -> dict[str, Any]:
    """A result as its file holds it.

    Raises:
        ValueError: the file is damaged, or no result of a study.
        OSError: the file can't be read.
    """
    try:
        found = unsealed(json.loads(Path(path).read_text(encoding="utf-8")))
        for row in found["rows"]:
            row.update(_summary(row["runs"]))  # not taken on trust
        if not _whole(found):
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f" ({' '.join(str(error).split())[:200]})" if str(error) else ""
        raise ValueError(f"{path} is damaged, or no result of a study{reason}") from None
    return dict(found)


def _whole(found: dict[str, Any]) -> bool:
    """Is everything there that is read of a result?"""
    rows = found["rows"]
    options = rows[0]["config"].keys()
    return (
        isinstance(found["study"], str)
        and isinstance(found["title"], str)
        and 0 <= found["finished"] <= found["wanted"]
        and all(isinstance(row["name"], str) and row["config"].keys() == options for row in rows)
        and all(
            run["seed"] >= 0 and run["seconds"] >= 0 and found["environments"][run["environment"]]
            for row in rows
            for run in row["runs"]
        )
    )


def stored(study: Study, path: Path) -> dict[tuple[str, int], Record]:
    """The runs of this study that a result file holds. Runs of rows that are declared otherwise
    by now, and of seeds that are no longer wanted, are left out.

    Raises:
        ValueError: the file is damaged, or the result of another study.
    """
    if not path.exists():
        return {}
    found = loaded(path)
    if found["study"] != study.name:
        raise ValueError(f"{path} holds '{found['study']}', expected '{study.name}'")
    held = {row["name"]: row for row in found["rows"] if row["runs"]}
    where = found["environments"]
    usual = {f.name: f.default for f in fields(Config) if f.name != "seed"}
    return {
        (row.name, run["seed"]): {**run, "environment": where[run["environment"]]}
        for row in study.rows
        if row.name in held and {**usual, **held[row.name]["config"]} == row.described
        for run in held[row.name]["runs"]
        if run["seed"] in row.seeds
    }
