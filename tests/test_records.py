"""What a record says about where it was made. Folders and checkpoints: see test_experiment.py."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genreplay_core import records

git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")


def checkout(folder: Path, monkeypatch) -> Path:
    """A git repository with one committed file, in which `records` pretends to lie."""
    file = folder / "records.py"
    file.write_text("x = 1\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "records.py"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    monkeypatch.setattr(records, "__file__", str(file))
    return file


@git
def test_the_commit_is_named_and_changes_are_told(tmp_path, monkeypatch):
    file = checkout(tmp_path, monkeypatch)
    clean = records.environment(torch.device("cpu"))["commit"]
    file.write_text("x = 2\n")
    assert len(clean) == 12
    assert records.environment(torch.device("cpu"))["commit"] == f"{clean}-dirty"


@git
def test_a_package_installed_within_somebody_elses_checkout_has_no_commit(tmp_path, monkeypatch):
    checkout(tmp_path, monkeypatch)
    installed = tmp_path / "venv" / "records.py"
    installed.parent.mkdir()
    installed.write_text("x = 1\n")
    monkeypatch.setattr(records, "__file__", str(installed))
    assert records.environment(torch.device("cpu"))["commit"] is None


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert records.environment(torch.device("cpu"))["commit"] is None


def test_the_environment_is_this_one():
    found = records.environment(torch.device("cpu"))
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == torch.get_num_threads()
    assert found["device"].startswith("cpu: ")
