"""The crosswalk from the paper to the code names only what is there."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES = (ROOT / "book" / "crosswalk.md").read_text(encoding="utf-8").splitlines()
ROWS = [line for line in LINES if line.startswith("| ") and "`" in line]
CODE = sorted({name for row in ROWS for name in re.findall(r"[`<](genreplay_core[\w.]*)[`>]", row)})
TESTS = sorted({name for row in ROWS for name in re.findall(r"`(tests/[^`]*)`", row)})


def found(path: str) -> object:
    """The module, class, function or method that a dotted path names."""
    package, module, *names = path.split(".")
    thing: object = importlib.import_module(f"{package}.{module}")
    for name in names:
        thing = getattr(thing, name)
    return thing


def names_of_tests(file: Path) -> set[str]:
    """The test functions at the top of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_names_code_and_a_test():
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in ROWS]
    assert len(cells) > 40
    for _, code, test in cells:
        assert re.search(r"[`<]genreplay_core\.[\w.]+[`>]", code), code
        assert re.fullmatch(r"`tests/test_\w+\.py::test_\w+`", test), test


@pytest.mark.parametrize("path", CODE)
def test_every_place_in_the_core_is_there(path):
    assert callable(found(path))


@pytest.mark.parametrize("name", TESTS)
def test_every_test_is_there(name):
    file, test = name.split("::")
    assert test in names_of_tests(ROOT / file)


def test_every_field_is_one_of_its_class():
    fields = [
        pair
        for row in ROWS
        for pair in re.findall(r"field `(\w+)` of {py:obj}`[\w.]+ <([\w.]+)>`", row)
    ]
    assert fields
    for field, path in fields:
        assert field in {each.name for each in dataclasses.fields(found(path))}


def test_a_name_that_is_not_there_would_be_noticed():
    with pytest.raises(AttributeError):
        found("genreplay_core.learner.GenerativeReplay.solver_steps")
    with pytest.raises(ModuleNotFoundError):
        found("genreplay_core.learners")
