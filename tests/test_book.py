"""What the notebooks share, and the notebooks themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genreplay_core import book, study
from genreplay_core.metrics import interval


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A package with no book beside it."""
    monkeypatch.setattr(book, "HERE", tmp_path / "site-packages" / "genreplay_core")
    (book.HERE / "results").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("chosen", book.PROFILES)
def test_the_environment_chooses_the_profile(monkeypatch, capsys, chosen):
    monkeypatch.setenv("GENREPLAY_PROFILE", chosen)
    assert book.profile() == chosen
    assert book.start() == chosen
    said = capsys.readouterr().out
    assert f"profile: {chosen}" in said
    assert torch.__version__ in said


@pytest.mark.parametrize(("kind", "usual"), [("cpu", "laptop"), ("cuda", "gpu")])
def test_the_usual_profile_follows_from_the_device(monkeypatch, kind, usual):
    monkeypatch.delenv("GENREPLAY_PROFILE", raising=False)
    monkeypatch.setattr(book, "pick_device", lambda: torch.device(kind))
    assert book.profile() == usual


def test_a_gpu_is_called_by_its_name(monkeypatch, capsys):
    monkeypatch.setattr(book, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A fast one")
    assert book.start() == "gpu"
    assert capsys.readouterr().out.startswith("device: A fast one; profile: gpu")


def test_another_profile_is_refused(monkeypatch):
    monkeypatch.setenv("GENREPLAY_PROFILE", "phone")
    with pytest.raises(ValueError, match="GENREPLAY_PROFILE is 'phone': choose one of ci, laptop"):
        book.profile()


def test_a_result_is_found_in_the_checkout_before_the_installed_one(elsewhere):
    installed = book.HERE / "results" / "labels.json"
    installed.write_text(json.dumps({"from": "installed"}))
    assert book.stored("labels") == {"from": "installed"}
    checkout = book.HERE.parent / "book" / "results"
    checkout.mkdir(parents=True)
    (checkout / "labels.json").write_text(json.dumps({"from": "checkout"}))
    assert book.stored("labels") == {"from": "checkout"}


def test_a_result_that_is_not_there_is_one_line(elsewhere):
    with pytest.raises(ValueError, match="there is no stored result 'labels'"):
        book.stored("labels")


def test_a_sentence_holds_its_numbers(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    book.say("It is **{x:.1f} %**, not {y}.", x=97.25, y="less")
    assert [part.data for part in shown] == ["It is **97.2 %**, not less."]


# ---------------------------------------------------------------- experiments and their results

BOOK = Path(__file__).resolve().parents[1] / "book"
STUDIES = sorted((BOOK / "experiments").glob("*.toml"))
RESULTS = [
    path
    for path in sorted((BOOK / "results").glob("*.json"))
    if path.stem in {s.stem for s in STUDIES}
]


def named(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", STUDIES, ids=named)
def test_every_study_can_be_run_and_its_seeds_keep_the_rules(path):
    declared = study.read(path)
    assert declared.question
    for row in declared.rows:
        chosen = row.config(0).validation > 0
        assert all((seed >= 100) == chosen for seed in row.seeds), row.name
        assert chosen or len(row.seeds) >= 3, row.name


@pytest.mark.parametrize("path", RESULTS, ids=named)
def test_every_stored_run_is_one_that_its_study_declares(path):
    declared, found = study.read(BOOK / "experiments" / f"{path.stem}.toml"), study.loaded(path)
    kept = study.stored(declared, path)
    runs = [(row["name"], run["seed"]) for row in found["rows"] for run in row["runs"]]
    assert sorted(kept) == sorted(runs)
    assert (
        found["command"] == f"genreplay sweep book/experiments/{path.stem}.toml --out book/results"
    )


@pytest.mark.parametrize("path", RESULTS, ids=named)
def test_the_summaries_of_a_result_follow_from_its_runs(path):
    written = json.loads(path.read_text())
    assert written["finished"] == sum(len(row["runs"]) for row in written["rows"]) > 0
    for row in written["rows"]:
        ended = [run for run in row["runs"] if "failed" not in run]
        assert row["seeds"] == len(ended)
        for measure in study.MEASURES if ended else ():
            found = interval([run[measure] for run in ended])
            assert row[measure]["mean"] == pytest.approx(found.mean, abs=1e-6)
            if len(ended) > 1:
                reach = (row[measure]["low"], row[measure]["high"])
                assert reach == pytest.approx((found.low, found.high), abs=1e-6)
        for run in ended:
            matrix = np.array(run["accuracy_matrix"])
            assert run["average_accuracy"] == pytest.approx(matrix[-1].mean(), abs=1e-5)
            assert {"commit", "torch", "device"} <= written["environments"][
                run["environment"]
            ].keys()
