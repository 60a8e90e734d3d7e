"""What the trust tests share: a small size for every CI, a full one whose figures are kept.

Each test runs small, and full with `pytest -m trust`, which writes what it found, with date,
machine, versions and commit, to `book/results/trust.json`; a run of some tests changes their
figures and leaves the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from genreplay_core import records
from genreplay_core.files import write_json

FIGURES = Path(__file__).resolve().parents[2] / "book" / "results" / "trust.json"


@pytest.fixture(params=["small", pytest.param("full", marks=pytest.mark.trust)])
def full(request: pytest.FixtureRequest) -> bool:
    """Is this the full size?"""
    return bool(request.param == "full")


@pytest.fixture
def figures(full: bool, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What the test finds, which is kept if it passes at full size."""
    found: dict[str, Any] = {}
    failed = request.session.testsfailed
    yield found
    if full and found and request.session.testsfailed == failed:
        keep(request.node.originalname.removeprefix("test_"), found)


@cache
def environment() -> dict[str, Any]:
    """Of what is tested: asked for once, since the figures themselves change the working tree."""
    return records.environment(torch.device("cpu"))


def keep(name: str, found: dict[str, Any]) -> None:
    """Put a test's figures beside those that are kept already."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"found": {}}
    kept["command"] = "pytest -m trust tests/trust"
    kept["found"][name] = {
        **kept["found"].get(name, {}),  # of its other parameters
        **found,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "environment": environment(),
    }
    kept["found"] = dict(sorted(kept["found"].items()))
    write_json(FIGURES, kept)
