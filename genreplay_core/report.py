"""The result of a study as a table and as a figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import plots
from .study import MEASURES

Result = dict[str, Any]
Factor = tuple[str, list[str]]  # an option, and the values that it has


def table(result: Result) -> str:
    """A line for each row: seeds, mean and 95 % interval of the average accuracy, the other
    measures' means, seconds a run. In percent."""
    others = [measure.replace("_", " ") for measure in MEASURES[1:]]
    width = max(len(row["name"]) for row in result["rows"]) + 2
    heads = f"{'percent':<{width}}{'seeds':>6}{'accuracy':>10}{'95 % interval':>18}"
    lines = [result["title"], heads + "".join(f"{head:>19}" for head in others) + f"{'s':>7}"]
    lines += [_line(row, width) for row in result["rows"]]
    if result["finished"] < result["wanted"]:
        lines.append(f"{result['finished']} of {result['wanted']} runs are finished")
    return "\n".join(lines)


def _line(row: dict[str, Any], width: int) -> str:
    start = f"{row['name']:<{width}}{row['seeds']:>6}"
    failed = sum("failed" in run for run in row["runs"])
    told = f"  {failed} diverged" if failed else ""
    if not row["seeds"]:
        return start + (told or "  not run yet")
    found = row["average_accuracy"]
    reach = "" if found["low"] is None else f"{100 * found['low']:.2f} to {100 * found['high']:.2f}"
    others = "".join(f"{100 * row[measure]['mean']:>19.2f}" for measure in MEASURES[1:])
    seconds = np.mean([run["seconds"] for run in row["runs"] if "failed" not in run])
    return f"{start}{100 * found['mean']:>10.2f}{reach:>18}{others}{seconds:>7.0f}{told}"


def figure(result: Result, measure: str = "average_accuracy") -> Figure:
    """A heat map for a grid of two factors and nothing else, else means with their intervals.

    Raises:
        ValueError: no run is finished.
    """
    rows = [row for row in result["rows"] if row["seeds"]]
    factors = _factors(rows)
    if len(factors) == 2:
        (down, downs), (across, acrosses) = factors
        cells = [(str(row["config"][down]), str(row["config"][across])) for row in rows]
        if len(rows) == len(set(cells)) == len(downs) * len(acrosses) > 3:
            mean = {cell: row[measure]["mean"] for cell, row in zip(cells, rows, strict=True)}
            return plots.surface([[mean[a, b] for b in acrosses] for a in downs], *factors)
    ended = [[run[measure] for run in row["runs"] if "failed" not in run] for row in rows]
    found = [(r["name"], e, _reach(r[measure])) for r, e in zip(rows, ended, strict=True)]
    return plots.intervals(found, f"{measure.replace('_', ' ')} (%)")


def _reach(found: dict[str, float | None]) -> tuple[float, float] | None:
    low, high = found["low"], found["high"]
    return None if low is None or high is None else (low, high)


def _factors(rows: list[dict[str, Any]]) -> list[Factor]:
    """The options in which rows differ, each with its values in the order of the rows."""
    names = rows[0]["config"] if rows else {}
    values = {name: list(dict.fromkeys(str(row["config"][name]) for row in rows)) for name in names}
    return [(name, found) for name, found in values.items() if len(found) > 1]
