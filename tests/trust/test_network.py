"""Nobody is called who wasn't asked for: no socket is opened to import, learn, sweep and report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SILENT = """\
import socket

def refuse(*args, **options):
    raise SystemExit("somebody calls: " + repr(args))

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
"""
LEARN = """\
import pkgutil, importlib, sys
import genreplay_core
for module in pkgutil.iter_modules(genreplay_core.__path__):
    importlib.import_module("genreplay_core." + module.name)
from genreplay_core import cli
tiny = "run --tasks 2 --steps 2 --hidden 8 --device cpu --quality --replay conditional --out run"
many = "sweep a.toml --out out --work work --workers 1 --device cpu"
sys.exit(sum(cli.main(line.split()) for line in (tiny, many, "report out/a.json")))
"""
STUDY = """
title = "Silent"
question = "Who is called?"
seeds = [0]
[base]
tasks = 2
steps = 2
hidden = 8
"""


def python(code: str, folder: Path, *, silent: bool = True) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(SILENT if silent else "")
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *inherited])}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_to_import_learn_sweep_and_report_nobody_is_called(tmp_path):
    (tmp_path / "a.toml").write_text(STUDY)
    done = python(LEARN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
    assert (tmp_path / "out" / "a.png").exists()


@pytest.mark.parametrize(
    "call",
    [
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "from genreplay_core import load; load('mnist', 'nowhere')",
    ],
)
def test_a_call_would_be_noticed(call, tmp_path):
    assert "somebody calls" in python(call, tmp_path).stderr
