"""What the notebooks share, and the notebooks themselves."""

from __future__ import annotations

import json

import pytest
import torch

from genreplay_core import book


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
