"""Whatever is put into the readers, nothing comes out but what they say that they raise."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_hostile import STUDY, idx

from genreplay_core import cli, datasets, records, study
from genreplay_core.config import GENERATORS, REPLAYS, SOLVERS, STREAMS, Config
from genreplay_core.data import SCENARIOS, gather
from genreplay_core.files import write_json
from genreplay_core.metrics import summary
from genreplay_core.report import table

NAMES = [f.name for f in fields(Config)]
WORDS = [*REPLAYS, *GENERATORS, *SOLVERS, *STREAMS, *SCENARIOS, "hard", "soft", "code", "ewc"]
numbers = st.integers() | st.floats() | st.integers(-3, 12)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(WORDS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)

KEYS = [
    *("study", "title", "rows", "name", "config", "runs", "seed", "seconds", "environment"),
    *("environments", "finished", "wanted", "average_accuracy", "accuracy_matrix", "checksum"),
]

# ---------------------------------------------------------------- what is read, and with what


def options(given: dict[str, Any]) -> None:
    """As a study's file makes a config."""
    study._row("any", dict(given), [0])


chosen = st.dictionaries(st.sampled_from([*NAMES, "stpes"]), scalars, max_size=5)

words = st.sampled_from([f"--{name.replace('_', '-')}" for name in NAMES]) | st.text(max_size=6)
argv = st.lists(words | st.sampled_from(WORDS) | numbers.map(str), max_size=7)


def command(given: list[str]) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            cli._parser().parse_args(["run", *given])
        except SystemExit as end:
            if (end.code, said.getvalue()[:11]) == (2, "genreplay: "):
                raise ValueError("refused") from None
            if end.code != 0:  # 0 is for --help
                raise


def written(place: Path, text: str | bytes) -> Path:
    place.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return place


def experiment(place: Path, text: str | bytes) -> None:
    for row, seed in study.read(written(place / "a.toml", text)).jobs:
        row.config(seed)


LINES = STUDY.splitlines() + [f"{name} = " for name in NAMES] + ["[grid]", "[rows.b]", "[base"]
toml = st.lists(st.sampled_from(LINES) | st.text(max_size=12) | values.map(str), max_size=14)


def result(place: Path, content: Any) -> None:
    write_json(place / "b.json", content)
    table(study.loaded(place / "b.json"))


def record(place: Path, content: Any) -> None:
    write_json(place / "result.json", content)
    records.finished(place, {"seed": 0}, True, {})


def checkpoint(place: Path, content: Any) -> None:
    torch.save(content, place / "checkpoint.pt")
    records.load_checkpoint(place, {"seed": 0}, {})


finite = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | finite | st.text(st.characters(codec="utf-8"), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)
RUN = {"seed": 0, "seconds": 1.0, "environment": 0, "average_accuracy": 0.5}
results = st.fixed_dictionaries(
    {
        "study": plain | st.just("b"),
        "title": st.just("t") | plain,
        "finished": st.integers(-1, 3) | plain,
        "wanted": st.integers(0, 3) | plain,
        "environments": st.just([{"torch": "2"}]) | plain,
        "rows": plain
        | st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.text(st.characters(codec="utf-8"), max_size=4) | plain,
                    "config": st.just({"a": 1}) | plain,
                    "runs": st.lists(st.just(RUN) | plain, max_size=2) | plain,
                }
            ),
            max_size=2,
        ),
    }
)
matrices = st.fixed_dictionaries(
    {
        "config": st.just({"seed": 0}) | plain,
        "accuracy_matrix": st.lists(st.lists(st.floats(0, 1), max_size=3), max_size=4) | plain,
    }
)
saved = st.fixed_dictionaries(
    {"config": st.just({"seed": 0}) | plain, "scholar": plain, "state": matrices | plain}
)


def images(place: Path, body: bytes) -> None:
    raw = place / "KMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for file in datasets.SOURCES["kmnist"].files:
        sound = idx(np.zeros((2, 28, 28)) if "images" in file else np.zeros(2))
        (raw / file).write_bytes(body if file.startswith("t10k-im") else sound)
    datasets.load("kmnist", place, download=False)


bodies = st.binary(max_size=60) | st.builds(
    lambda magic, sizes, rest: magic + b"".join(n.to_bytes(4, "big") for n in sizes) + rest,
    st.sampled_from([b"\0\0\x08\x03", b"\0\0\x08\x01", b"\0\0\x0d\x03", b"\0\0\x08\xff"]),
    st.lists(st.sampled_from([0, 1, 2, 28, 2**31, 2**32 - 1]), max_size=4),
    st.binary(max_size=30),
)
shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
kinds = arrays.floating_dtypes(sizes=(32, 64)) | arrays.integer_dtypes() | st.just(np.dtype("u1"))
batch = kinds.flatmap(lambda kind: arrays.arrays(kind.newbyteorder("="), shapes))


def matrix(content: Any) -> None:
    summary(content)


# name: (what is read, of what, does it need a folder, share of the cases)
TARGETS: dict[str, tuple[Callable[..., None], Any, bool, float]] = {
    "options": (options, chosen, False, 0.30),
    "command line": (command, argv, False, 0.15),
    "experiments": (experiment, toml.map("\n".join) | st.binary(max_size=40), True, 0.15),
    "results": (result, results, True, 0.13),
    "records": (record, matrices | plain, True, 0.09),
    "checkpoints": (checkpoint, saved | plain, True, 0.04),
    "IDX": (images, bodies, True, 0.04),
    "examples": (lambda pair: void(gather(pair)), st.tuples(batch, batch), False, 0.06),
    "matrices": (matrix, plain | arrays.arrays(float, shapes), False, 0.04),
}


def void(anything: Any) -> None:
    """It's enough that it came."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_takes_what_it_is_given_or_says_what_is_wrong(name, full, figures, tmp_path):
    read, given_to, in_folder, share = TARGETS[name]
    told = {"cases": 0, "refused": 0}

    @settings(
        max_examples=round(110_000 * share) if full else 60,
        derandomize=not full,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(given_to)
    def one(content: Any) -> None:
        told["cases"] += 1
        try:
            read(tmp_path, content) if in_folder else read(content)
        except (ValueError, OSError, TypeError) as error:
            if isinstance(error, TypeError) and name not in ("matrices",):
                raise  # numpy's own word for what is no number; nobody else's
            told["refused"] += 1

    one()
    assert 0 < told["refused"] <= told["cases"]
    figures |= {name: told}


def test_the_shares_are_a_whole():
    assert sum(share for *_, share in TARGETS.values()) == pytest.approx(1)
