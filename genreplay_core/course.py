"""The coursework: a folder for students, made from one source, and tests that teach.

    make("unit")                              # what students get
    make("solved", solutions=True)            # the same with the solutions in it
    check("2a", globals())                    # in a notebook: the public tests of a part

`course/` holds the source. An assignment is a Python file in cells (`# %%`); what lies between
`### BEGIN SOLUTION` and `### END SOLUTION` (nbgrader's words) becomes `raise NotImplementedError`.
`course.toml` lists the parts with their points. A test of part 2a is a function
`test_2a_...(adapters)`; the public ones are in `tests/`, those that graders keep in `held_out/`.

`adapters.py` is all that binds a student's code to the tests: they call its functions with
tensors, numbers and text, and get the same back. So it makes no difference to a test whether the
adapters are a module, as here, or answer from another process, as in `grading`.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .datasets import load
from .files import write_json

HERE = Path(__file__).parent
SOLUTION = re.compile(r"^( *|# )### BEGIN SOLUTION\n.*?### END SOLUTION$", re.M | re.S)
OURS = (
    *("course.toml", "[1-6]-*.py", "held_out", "right.py", "worker.py", "shut.sh", "__pycache__"),
)

INSTALL = """\
# Installs the course's core where it is missing, as on Colab; elsewhere it does nothing.
import importlib.util

if importlib.util.find_spec("genreplay_core") is None:
    %pip install -q --no-deps git+{address}
"""


# ---------------------------------------------------------------- what there is to do


@dataclass(frozen=True)
class Part:
    """One idea, with its points. by_hand: marked by a person with the rubric, not by tests."""

    name: str
    points: int
    about: str
    by_hand: bool = False


@dataclass(frozen=True)
class Assignment:
    """The notebook `name`, its parts, the hours that it takes a student, the week it is due."""

    name: str
    title: str
    hours: int
    week: int
    parts: tuple[Part, ...]


def material() -> Path:
    """The folder of the source: in a checkout, else as it was installed.

    Raises:
        ValueError: neither is there.
    """
    for folder in (HERE.parent / "course", HERE / "course_material"):
        if (folder / "course.toml").is_file():
            return folder
    raise ValueError("the coursework isn't here: install genreplay-core anew")


def assignments() -> list[Assignment]:
    """All assignments, in order."""
    declared = tomllib.loads((material() / "course.toml").read_text(encoding="utf-8"))
    return [
        Assignment(
            **{"name": name, **found, "parts": tuple(Part(*part) for part in found["parts"])}
        )
        for name, found in declared.items()
    ]


# ---------------------------------------------------------------- the folder for students


def make(folder: str | Path, solutions: bool = False) -> None:
    """Write the folder for students, whole or not at all.

    Args:
        folder: a new or an empty one.
        solutions: leave the solutions in.

    Raises:
        ValueError: there is something in the folder.
        OSError: it can't be written.
    """
    folder, source = Path(folder), material()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} is there already: name a new or an empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".course-", dir=folder.absolute().parent) as name:
        ours = OURS if solutions else (*OURS, "study.json")
        whole = shutil.copytree(source, Path(name, "whole"), ignore=shutil.ignore_patterns(*ours))
        for assignment in assignments():
            text = (source / f"{assignment.name}.py").read_text(encoding="utf-8")
            notebook = as_notebook(text if solutions else without_solutions(text))
            write_json(whole / f"{assignment.name}.ipynb", notebook)
        readme = (whole / "README.md").read_text(encoding="utf-8")
        readme = readme.replace("{table}", table()).replace("{address}", address())
        (whole / "README.md").write_text(readme, encoding="utf-8")
        whole.replace(folder)


def table() -> str:
    """The assignments and their parts, in the order in which they are due, as Markdown."""
    lines, total = ["| due | part | what | points |", "| --- | --- | --- | ---: |"], 0
    for each in sorted(assignments(), key=lambda each: each.week):
        points = sum(part.points for part in each.parts)
        total += points
        what = f"**{each.title}**, `{each.name}.ipynb`, about {each.hours} hours"
        lines.append(f"| week {each.week} | | {what} | **{points}** |")
        for part in each.parts:
            how = " (by rubric)" if part.by_hand else ""
            lines.append(f"| | {part.name} | {part.about}{how} | {part.points} |")
    return "\n".join([*lines, f"| | | **in all** | **{total}** |"])


def without_solutions(source: str) -> str:
    """A source with a stub for each solution; in text, with room for words."""

    def stub(found: re.Match[str]) -> str:
        return found[1] + ("*Write here.*" if found[1] == "# " else "raise NotImplementedError")

    return SOLUTION.sub(stub, source)


def cells(source: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of the cells of a source; kind is "markdown" or "code"."""
    for block in re.split(r"^# %%", source, flags=re.M)[1:]:
        head, _, body = block.partition("\n")
        if "[markdown]" in head:
            yield "markdown", re.sub(r"^# ?", "", body.strip("\n"), flags=re.M)
        else:
            yield "code", body.strip("\n")


def address() -> str:
    """Of the repository, where pip finds what is installed."""
    urls = metadata("genreplay-core").get_all("Project-URL") or []
    return next(url.split(", ")[1] for url in urls if url.startswith("Repository"))


def as_notebook(source: str) -> dict[str, Any]:
    """A notebook (nbformat 4.5) of a source; its first code cell installs what is missing."""
    made: list[dict[str, Any]] = []
    install = INSTALL.format(address=address())
    marks = r"^(# | *)### (BEGIN|END) SOLUTION\n"
    for i, (kind, text) in enumerate(cells(re.sub(marks, "", source, flags=re.M))):
        made.append({"cell_type": kind, "id": f"cell-{i:02}", "metadata": {}, "source": text})
        if kind == "code":
            made[-1] |= {"source": install + text, "outputs": [], "execution_count": None}
            install = ""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


# ---------------------------------------------------------------- what a notebook defines


class Answers:
    """The functions and classes that a notebook defines, as attributes.

    Read when the first is asked for. Imports, functions, classes and CAPITAL constants count, the
    rest of the notebook isn't run. What fails is left out, and told when it is missed.
    """

    def __init__(self, notebook: str | Path):
        self._path = Path(notebook)
        self._found: tuple[ModuleType, list[str]] | None = None

    def __getattr__(self, name: str) -> Any:
        self._found = self._found or defined(self._path)
        if not hasattr(self._found[0], name):
            why = "".join(f"; {problem}" for problem in self._found[1])
            raise AttributeError(f"{self._path.name} doesn't define {name}{why}")
        return getattr(self._found[0], name)


def defined(path: Path) -> tuple[ModuleType, list[str]]:
    """What a notebook defines, as a module, and what couldn't be read of it.

    Raises:
        ValueError: it isn't there, or no notebook.
    """
    found, problems = ModuleType("answers_" + re.sub(r"\W", "_", path.stem)), []
    sys.modules[found.__name__] = found  # dataclasses look their module up
    for number, source in enumerate(_code_of(path), 1):
        python = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)  # lines for IPython
        try:
            for node in filter(_defines, ast.parse(python).body):
                code = compile(ast.Module([node], []), f"<{path.stem}, cell {number}>", "exec")
                exec(code, found.__dict__)
        except Exception as error:  # the student's own code may do anything
            problems.append(f"code cell {number}: {type(error).__name__}: {error}")
    return found, problems


def _code_of(path: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path.name} is missing, or no notebook ({error})") from None


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return all(isinstance(t, ast.Name) and t.id.isupper() for t in node.targets)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


# ---------------------------------------------------------------- tests that teach

Test = Callable[[Any], None]


def module(path: Path) -> ModuleType:
    """A Python file as a module."""
    made = ModuleType(path.stem)
    made.__file__ = str(path.absolute())
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), made.__dict__)
    return made


def questions(assignment: Assignment, kinds: Sequence[str]) -> dict[str, list[Test]]:
    """The tests of each part that has some. kinds: "tests" are public, "held_out" aren't."""
    found: dict[str, list[Test]] = {part.name: [] for part in assignment.parts if not part.by_hand}
    for kind in kinds:
        path = material() / kind / f"test_{assignment.name.replace('-', '_')}.py"
        for name, value in vars(module(path)).items():
            if name.startswith("test_"):
                found[name.split("_")[1]].append(value)
    return found


def about(test: Test) -> str:
    """The idea of a test, which is its name: what follows `test_2a_`."""
    return test.__name__[8:].replace("_", " ")


def lesson(test: Test, adapters: Any) -> str | None:
    """What a test teaches about these adapters, or None if it passes."""
    try:
        with torch.enable_grad():  # also if an earlier test's code has left them off
            test(adapters)
    except AssertionError as error:
        return str(error) or "an assertion of yours doesn't hold"
    except NotImplementedError:
        return "not done yet"
    except (Exception, SystemExit) as error:  # the student's own code may do anything
        return f"your code stops with {type(error).__name__}: {error}"
    return None


def check(part: str, names: Mapping[str, Any] | None = None) -> None:
    """Say what the public tests of a part make of it.

    Args:
        part: such as "2a".
        names: what to test, `globals()` of a notebook; without it what `adapters.py` binds, which
            reads the notebooks as they were saved.

    Raises:
        ValueError: there is no such part.
    """
    tests = {a.name: questions(a, ["tests"]) for a in assignments() if a.name[0] == part[:1]}
    for name, parts in tests.items():
        if part in parts:
            there = Path("adapters.py")
            adapters = module(there if there.is_file() else material() / there)
            if names is not None:  # "1-forgetting" is called `forgetting` there
                short = name.split("-", 1)[1].replace("-", "_")
                setattr(adapters, short, SimpleNamespace(**names))
            for test in parts[part]:
                said, idea = lesson(test, adapters), about(test)
                print(f"passed: {idea}" if said is None else f"not yet: {idea}: {said}")
            return
    raise ValueError(f"there is no part '{part}' with tests: see the table in README.md")


def expect(condition: Any, idea: str) -> None:
    """Fail with the idea unless the condition holds."""
    if not bool(condition):
        raise AssertionError(idea)


def close(found: Any, wanted: Any, idea: str, within: float = 1e-4) -> None:
    """Fail unless numbers are those wanted, of the same shape, to within a part or as much."""
    try:
        bare = (v.detach() if hasattr(v, "detach") else v for v in (wanted, found))
        ours, theirs = (np.asarray(value, dtype=np.float64) for value in bare)
    except (TypeError, ValueError):
        raise AssertionError(f"numbers are wanted, got {type(found).__name__}: {idea}") from None
    expect(ours.shape == theirs.shape, f"got shape {theirs.shape}, expected {ours.shape}: {idea}")
    expect(np.allclose(theirs, ours, rtol=within, atol=within), idea)


def mistake(found: Any, made: Mapping[str, Any], idea: str) -> str:
    """The idea whose mistake gives just what was found, of {idea: what it gives}; else `idea`."""
    for told, wrong in made.items():
        with contextlib.suppress(AssertionError):
            close(found, wrong, told)
            return told
    return idea


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers, the same whenever they are asked for."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(seed: int, *shape: int) -> Tensor:
    """Numbers from [0, 1), the same whenever they are asked for."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@cache
def digits() -> Tensor:
    """The training images of scikit-learn's digits, (1442, 1, 8, 8) in [0, 1]."""
    return load("digits")[0].x
