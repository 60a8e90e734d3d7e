"""Figures that answer, on the site: a page asks for one, and gets its script and its data.

A page asks by a cell with the tag `interactive-NAME`, whose picture is what print and readers
without JavaScript see, or by an element with `data-interactive="NAME"`. The script is
`_extra/interactive/NAME.js`, after what all share in `common.js`. Its data are what the function
NAME below makes of the stored results, as a script that sets `window.genreplay.NAME`, since a page
opened from a folder may read no file.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOOK = Path(__file__).resolve().parents[1]
ASKED = re.compile(r'tag_interactive-(\w+)|data-interactive="(\w+)"')

Result = dict[str, Any]


def results() -> list[Result]:
    """The stored results of studies, by name."""
    paths = [BOOK / "results" / path.with_suffix(".json").name for path in studies()]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def studies() -> list[Path]:
    return sorted((BOOK / "experiments").glob("*.toml"))


def front() -> Result:
    """What two networks know of each task at each look: fractions, with 0 for what is to come."""
    found = json.loads((BOOK / "results" / "front.json").read_text())
    runs = {row["name"]: row["runs"][0] for row in found["rows"]}
    curve = next(iter(runs.values()))["curve"]
    each = found["rows"][0]["config"]["steps"]
    return {
        "tasks": next(iter(runs.values()))["tasks"],
        "steps": [each * point["task"] + point["step"] for point in curve],
        "now": [point["task"] for point in curve],
        "known": {
            name: [point["accuracy"] + [0] * (4 - point["task"]) for point in run["curve"]]
            for name, run in runs.items()
        },
    }


def explore() -> list[Result]:
    """Every study with its rows: mean, interval, runs with their matrices, and what differs."""
    return [
        {
            "study": found["study"],
            "title": found["title"],
            "question": " ".join(found["question"].split()),
            "command": found["command"],
            "rows": [explored(row) for row in found["rows"] if row["seeds"]],
        }
        for found in results()
    ]


def explored(row: Result) -> Result:
    ended = [run for run in row["runs"] if "failed" not in run]
    measures = ("mean", "low", "high")
    return {
        "name": row["name"],
        **{measure: row["average_accuracy"][measure] for measure in measures},
        "runs": [thinned(run) for run in ended],
    }


def thinned(run: Result) -> Result:
    """A run's matrix, of a long stream only every so many tasks, from the first: twenty at most."""
    tasks, matrix = run["tasks"], run["accuracy_matrix"]
    every = -(-len(tasks) // 20)
    return {
        "seed": run["seed"],
        "average_accuracy": run["average_accuracy"],
        "accuracy_matrix": [row[::every] for row in matrix[::every]],
        "tasks": tasks[::every],
        "every": every,
        "of": len(tasks),
    }


def dreamer() -> Result:
    """The scholars of each task's end, with what they know of the tasks met: fractions."""
    found = json.loads((BOOK / "dreamer" / "scholars.json").read_text())
    order, tasks = found["config"]["class_order"], found["tasks"]
    matrix = found["quantised_accuracy_matrix"]
    return {
        "tasks": [name.replace(" ", ", ") for name in tasks],
        "first": [order.index(digit) * len(tasks) // len(order) for digit in sorted(order)],
        "known": [sum(row[: t + 1]) / (t + 1) for t, row in enumerate(matrix)],
        "sliders": found["sliders"],
        "scholars": found["scholars"],
    }


DATA: dict[str, Callable[[], Any]] = {"front": front, "explore": explore, "dreamer": dreamer}


def write(app: Any) -> None:
    """The data of all figures, beside their scripts."""
    folder = Path(app.outdir) / "interactive"
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in DATA.items():
        value = json.dumps(make(), separators=(",", ":"))
        text = f"window.genreplay.{name} = {value};\n"
        (folder / f"{name}.data.js").write_text(text)


def add(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page the scripts of the figures that it asks for."""
    asked = [found[1] or found[2] for found in ASKED.finditer(context.get("body", ""))]
    for name in dict.fromkeys(asked):
        for script in ("common.js", f"{name}.data.js", f"{name}.js"):
            app.add_js_file(f"../interactive/{script}", loading_method="defer")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("html-page-context", add)
    return {"parallel_read_safe": True}
