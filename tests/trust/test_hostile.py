"""Files from a stranger: cut off, flipped, of another kind, from the future, or armed. None is
executed, none ends in a traceback, and none is taken whose contents have changed."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from harness import one_line, same

from genreplay_core import cli, datasets, records, study
from genreplay_core.config import Config
from genreplay_core.experiment import USUAL, run
from genreplay_core.faults import Diverged
from genreplay_core.files import sealed, write_json
from genreplay_core.sweep import sweep

CHOSEN = Config(tasks=2, steps=2, batch=8, hidden=8, latent_dim=4, replay="conditional")
STUDY = """
title = "From a stranger"
question = "Does it get in?"
seeds = [0, 1]
[base]
tasks = 2
steps = 2
hidden = 8
[rows.none]
replay = "none"
"""


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    run(CHOSEN, folder / "run", device="cpu")
    (folder / "strange.toml").write_text(STUDY)
    sweep(study.read(folder / "strange.toml"), folder, folder / "work", workers=1, device="cpu")
    raw, rng = folder / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for part, n in (("train", 6), ("t10k", 4)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (n, 28, 28))))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) % 3))
    return folder


@pytest.fixture
def published(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small files above are taken for the published ones."""
    known = datasets.SOURCES["mnist"]
    bodies = [(made / known.place / file).read_bytes() for file in known.files]
    sums = [hashlib.md5(body, usedforsecurity=False).hexdigest() for body in bodies]
    monkeypatch.setitem(datasets.SOURCES, "mnist", replace(known, sums=tuple(sums)))


# What is read of a file, given the folder that it lies in; and where it lies.
READ: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "checkpoint": (
        "run/checkpoint.pt",
        lambda folder: records.load_checkpoint(folder / "run", asdict(CHOSEN), USUAL),
    ),
    "record": (
        "run/result.json",
        lambda folder: records.finished(folder / "run", asdict(CHOSEN), True, USUAL),
    ),
    "result": ("strange.json", lambda folder: study.loaded(folder / "strange.json")),
    "experiment": ("strange.toml", lambda folder: declared(folder / "strange.toml")),
    "images": (
        "MNIST/raw/train-images-idx3-ubyte",
        lambda folder: [vars(part) for part in datasets.load("mnist", folder, download=False)],
    ),
    "labels": (
        "MNIST/raw/t10k-labels-idx1-ubyte",
        lambda folder: [vars(part) for part in datasets.load("mnist", folder, download=False)],
    ),
}
each = pytest.mark.parametrize("kind", READ)


def declared(path: Path) -> Any:
    """Every run that an experiment's file asks for."""
    read = study.read(path)
    return [asdict(row.config(seed)) for row, seed in read.jobs]


def attempt(kind: str, folder: Path, body: bytes) -> tuple[str, Any]:
    """What comes of reading another content: "refused" with the line, or "read" with what it is.
    Nothing but `ValueError` (and an `OSError`) may come out."""
    path, read = folder / READ[kind][0], READ[kind][1]
    sound = path.read_bytes()
    try:
        path.write_bytes(body)
        return "read", read(folder)
    except (ValueError, OSError) as error:
        return "refused", one_line(error)
    finally:
        path.write_bytes(sound)


@each
def test_a_file_cut_off_anywhere_is_noticed(kind, made, published):
    path, read = made / READ[kind][0], READ[kind][1]
    body, whole = path.read_bytes(), read(made)
    told = [attempt(kind, made, body[: len(body) * percent // 100]) for percent in range(100)]
    changed = [found for found in told if found[0] == "read" and not same(found[1], whole)]
    if kind == "experiment":  # a text that somebody writes: half of it may be a study too
        assert len(told) - len(changed) >= 50
    else:
        assert changed == []
    assert [found for found in told if found[0] == "refused"] != []


@each
def test_a_flipped_bit_is_noticed_or_changes_nothing(kind, full, made, published, figures):
    path, read = made / READ[kind][0], READ[kind][1]
    body, whole, rng = path.read_bytes(), read(made), random.Random(kind)
    outcomes = {"refused": 0, "harmless": 0, "changed": 0}
    for _ in range(1000 if full else 20):
        flipped = bytearray(body)
        flipped[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        how, found = attempt(kind, made, bytes(flipped))
        if isinstance(found, dict):  # the name of the checksum itself may have been hit
            found = {name: part for name, part in found.items() if name in whole}
        outcome = "harmless" if how == "read" and same(found, whole) else "changed"
        outcomes["refused" if how == "refused" else outcome] += 1
    assert outcomes["changed"] == 0 or kind == "experiment"  # a text has no checksum
    figures |= {kind: outcomes}


# ---------------------------------------------------------------- of another kind, or armed


class Bomb:
    """Leaves a mark if it is unpickled by somebody who runs what a pickle says."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return type(self.mark).touch, (self.mark,)


def armed(mark: Path, made: Path) -> dict[str, bytes]:
    """Contents that run code if somebody lets them."""
    torch.save({"config": Bomb(mark)}, mark.with_name("armed.pt"))
    whole = torch.load(made / "run" / "checkpoint.pt")
    torch.save({**whole, "state": Bomb(mark)}, mark.with_name("part.pt"))
    with zipfile.ZipFile(mark.with_name("climbing.pt"), "w") as archive:
        archive.writestr("../../climbed", "x")
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(mark)))
    names = ("armed", "part", "climbing")
    saved = {name: mark.with_name(f"{name}.pt").read_bytes() for name in names}
    return {"a pickle": pickle.dumps(Bomb(mark)), **saved}


@each
def test_code_in_a_file_is_never_run(kind, made, published, tmp_path):
    mark = tmp_path / "deep" / "er" / "mark"
    mark.parent.mkdir(parents=True)
    for name, body in armed(mark, made).items():
        assert attempt(kind, made, body)[0] == "refused", name
        assert not mark.exists(), name
        assert not list(tmp_path.rglob("climbed")) + list(made.parent.rglob("climbed"))
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # it is live


@each
def test_a_file_of_another_kind_is_refused(kind, made, published):
    others = [made / path for other, (path, _) in READ.items() if other != kind]
    deep = [b"[" * 100_000, b'{"rows": ' * 5000]
    bodies = [b"", b"\0" * 100, b"null", b"\xff\xfe", b"PK\x03\x04", *deep]
    for body in [*(path.read_bytes() for path in others), *bodies]:
        assert attempt(kind, made, body)[0] == "refused", body[:40]


# ---------------------------------------------------------------- from the future, and elsewhere


def test_a_checkpoint_of_a_later_version_is_refused_by_what_it_has(made):
    saved = torch.load(made / "run" / "checkpoint.pt")
    saved["config"]["telepathy"] = 3
    torch.save(saved, made / "run" / "later.pt")
    body = (made / "run" / "later.pt").read_bytes()
    (made / "run" / "later.pt").unlink()
    how, said = attempt("checkpoint", made, body)
    assert (how, "a later version, which has telepathy: update" in said) == ("refused", True)


def test_a_record_of_a_later_version_is_refused_by_what_it_has(made):
    record = json.loads((made / "run" / "result.json").read_text())
    record["config"]["telepathy"] = 3
    del record["checksum"]
    how, said = attempt("record", made, json.dumps(sealed(record)).encode())
    assert (how, "a later version, which has telepathy: update" in said) == ("refused", True)


def test_a_state_of_a_later_version_is_refused(made, tmp_path):
    saved = torch.load(made / "run" / "checkpoint.pt")
    saved["state"]["premonitions"] = []
    torch.save(saved, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"later version: .*premonitions"):
        run(CHOSEN, tmp_path, device="cpu", resume=True)


NAMES = ["../../out", "..", "/etc/passwd", "a/../../b", "~", "con\0trol", "a\\..\\b", "." * 300]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_the_folder_of_runs(name, tmp_path):
    row = study.Row(name, {}, (0,))
    folder = (tmp_path / study.folder_of(row, 0)).resolve()
    assert folder.is_relative_to(tmp_path)
    assert len(folder.relative_to(tmp_path).parts) == 2


@pytest.mark.parametrize("name", ["...toml", "..toml", ".hidden.toml"])
def test_a_study_s_own_name_leads_nowhere_else(name, tmp_path, capsys):
    (tmp_path / name).write_text(STUDY)
    assert cli.main(["sweep", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    assert "named like its result" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


# ---------------------------------------------------------------- well-formed and false

JUNK: list[Any] = [
    *(None, 0, -1, 1e300, float("nan"), "x", [], {}, [1, 2], {"a": 1}, True, 2**70, b"x"),
    *(torch.zeros(3), torch.zeros(2, 3), torch.zeros(0), torch.zeros(()), torch.zeros(3).long()),
    torch.zeros(1).expand(10_000),
]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every part of nested dicts and lists."""
    if isinstance(value, dict):
        return [at, *(p for k, v in value.items() for p in places(v, (*at, k)))]
    if isinstance(value, list | tuple):
        return [at, *(p for i, v in enumerate(value) for p in places(v, (*at, i)))]
    return [at]


def with_part(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """The value with another part at a place; without it, if that is the place itself."""
    if not at:
        return new
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k != at[0] or new is not places}
        return kept if at[0] not in kept else {**kept, at[0]: with_part(value[at[0]], at[1:], new)}
    parts = list(value)
    parts[at[0]] = with_part(parts[at[0]], at[1:], new)
    return type(value)(parts)


@pytest.mark.parametrize("replay", ["conditional", "stored"])
def test_a_forged_checkpoint_with_sound_checksums_is_refused_or_runs(
    replay, full, figures, tmp_path
):
    """Whoever forges a checkpoint whole, checksums included, can make a scholar of bad weights.
    But neither a traceback nor memory beyond its own comes of it."""
    chosen, rng = Config(tasks=5, steps=2, batch=8, hidden=8, replay=replay), random.Random(replay)
    stop = SimpleNamespace(after=2)

    def pull(work):
        if len(work.state.matrix) == 1 + stop.after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(chosen, tmp_path, device="cpu", after_task=pull)
    path, told = tmp_path / "checkpoint.pt", {"refused": 0, "diverged": 0, "ran": 0}
    whole = torch.load(path)
    ways = [at for at in places(whole) if at]
    for _ in range(150 if full else 20):
        torch.save(with_part(whole, rng.choice(ways), rng.choice([*JUNK, places])), path)
        told[outcome(chosen, tmp_path)] += 1
        (tmp_path / "result.json").unlink(missing_ok=True)
    assert told["refused"] > told["ran"]
    figures |= {replay: told}


def outcome(chosen: Config, out: Path) -> str:
    try:
        run(chosen, out, device="cpu", resume=True)
    except (ValueError, OSError, Diverged) as error:  # what `run` says that it raises
        told = one_line(error)
        return "diverged" if isinstance(error, Diverged) and told else "refused"
    return "ran"


def test_a_forged_result_is_taken_no_further_than_it_is_whole(made, tmp_path, capsys):
    result = json.loads((made / "strange.json").read_text())
    del result["checksum"]
    for at in places(result):
        for new in ([], None, "x"):
            write_json(tmp_path / "strange.json", with_part(result, at, new))
            status = cli.main(["report", str(tmp_path / "strange.json")])
            said = capsys.readouterr().err
            assert (status, len(said.splitlines())) in ((0, 0), (2, 1)), (at, new)
