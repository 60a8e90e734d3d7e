"""Grading: processes of their own, walls, limits, and that nobody's misdeeds cost anybody else."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from genreplay_core import course, grading
from genreplay_core.grading import Limits, Remote, Walls, grade, walls

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a submission can't be held back here")

LIMITS = Limits(part=12, whole=120, memory=512, output=1, processes=16)
WALLS = walls(0) if os.name == "posix" else Walls("none")
SHUT_IN = "nothing to write" in WALLS.said
INTRUDER = course.material() / "held_out" / "intruder.txt"


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """The students' folder with the solutions."""
    folder = tmp_path_factory.mktemp("course") / "solved"
    course.make(folder, solutions=True)
    return folder


def handed_in(solved: Path, folder: Path, misdeed: str) -> Path:
    """A submission that is right, but does this when 1a is called."""
    shutil.copytree(solved, folder)
    notebook = folder / "1-forgetting.ipynb"
    told = json.loads(notebook.read_text())
    body = "    loss = F.cross_entropy(solver(x), y)\n"
    for cell in told["cells"]:
        lines = misdeed.strip().splitlines()
        cell["source"] = cell["source"].replace(body, "".join(f"    {x}\n" for x in lines) + body)
    notebook.write_text(json.dumps(told))
    return folder


# ---------------------------------------------------------------- a class with some bad company

HOSTILE = {
    "endless": ("while True:\n    pass", "longer than 12 seconds: a loop without end"),
    "hungry": (
        "held = []\nwhile True:\n    held.append(torch.ones(10**7))",
        "asks for more memory than the 512 MB",
    ),
    "loud": ("print('x' * 10**8)", "prints or writes more than the 1 MB"),
    "gone": ("import os\nos._exit(0)", "ended its process in train_steps (status 0)"),
    "online": (
        "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
        "there is no network while you are graded",
    ),
    "forger": (
        "import os\nfor fd in range(3, 99):\n    try:\n"
        "        os.write(fd, b'\\0\\0\\0\\x02[]')\n    except OSError:\n        pass",
        "answered can't be read",
    ),
    "patcher": (
        "import atexit, builtins, sys, genreplay_core.course as c\n"
        "c.lesson = c.close = c.expect = lambda *a, **k: None\n"
        "builtins.AssertionError = ValueError\n"
        "sys.exit = atexit.register = print\n"
        "torch.allclose = torch.equal = lambda *a, **k: True\n"
        "return torch.zeros(())",
        "nothing was learned",
    ),
}
if SHUT_IN:  # where nothing holds them back, these would hurt us
    HOSTILE |= {
        "intruder": (
            f"from pathlib import Path\nPath({str(INTRUDER)!r}).write_text('hello')",
            "writes where it may not",
        ),
        "killer": ("import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)\nos._exit(1)", "ended its"),
    }
if SHUT_IN and (WALLS.account or os.geteuid() != 0):  # nobody limits root's processes
    HOSTILE["forking"] = (
        "import os, time\nfor _ in range(40):\n    if os.fork() == 0:\n"
        "        time.sleep(60)\n        os._exit(0)",
        "starts more processes than the 16",
    )


@pytest.fixture(scope="module")
def graded(solved, tmp_path_factory):
    """Student -> report, of a class of them; two are as they should be."""
    folder = tmp_path_factory.mktemp("class")
    names = ["ada", *HOSTILE, "zoe"]
    for name in names:
        handed_in(solved, folder / name, HOSTILE.get(name, [""])[0])
    out = folder / "graded"
    submissions = [folder / name for name in names]
    before = {path: path.read_bytes() for path in course.material().rglob("*") if path.is_file()}
    try:
        reports = grade(submissions, out, only=["1-forgetting"], workers=3, limits=LIMITS)
    finally:
        INTRUDER.unlink(missing_ok=True)
    after = {path: path.read_bytes() for path in course.material().rglob("*") if path.is_file()}
    assert after == before
    assert [report["student"] for report in reports] == names
    return {report["student"]: report for report in reports} | {"out": out}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_misdeed_costs_its_own_part_and_says_why(graded, name):
    first, *others = graded[name]["parts"]
    assert first["score"] == 0
    assert HOSTILE[name][1] in " ".join(first["said"])
    assert [part["said"] for part in others] == [[]] * 4
    assert graded[name]["score"] == 17


def test_the_others_are_unharmed(graded):
    for name in ("ada", "zoe"):
        assert graded[name]["score"] == graded[name]["points"] == 20
        assert all(part["said"] == [] for part in graded[name]["parts"])


def test_every_report_is_written_in_the_formats_of_the_platforms(graded):
    out = graded["out"]
    for name in ("ada", "endless"):
        report = graded[name]
        assert json.loads((out / name / "report.json").read_text()) == report
        text = (out / name / "report.txt").read_text()
        assert text.startswith(f"{name}: {report['score']:g} of 20 points\n")
        results = json.loads((out / name / "results.json").read_text())
        assert results["score"] == report["score"] == sum(t["score"] for t in results["tests"])
        assert [t["max_score"] for t in results["tests"]] == [3, 3, 4, 5, 5]
    with (out / "gradebook.csv").open(newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert list(rows["ada"]) == [
        *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
        *("raw_score", "late_submission_penalty", "score", "max_score"),
    ]
    assert (rows["ada"]["assignment"], rows["ada"]["score"], rows["ada"]["max_score"]) == (
        *("1-forgetting", "20", "20"),
    )
    assert rows["endless"]["score"] == "17"


# ---------------------------------------------------------------- whole submissions


def test_the_solution_has_all_points_and_the_starter_none(solved, tmp_path):
    course.make(tmp_path / "starter")
    marks = tmp_path / "marks.csv"
    marks.write_text("student,5c,5d,5e\nsolved,4,4,4\nstarter,0,,\n")
    told: list[str] = []
    found = grade(
        [solved, tmp_path / "starter"], tmp_path / "out", marks=marks, workers=2, tell=told.append
    )
    assert {r["student"]: (r["score"], r["points"]) for r in found} == {
        "solved": (120, 120),
        "starter": (0, 120),
    }
    assert sorted(told) == ["solved: 120 of 120 points", "starter: 0 of 120 points"]
    by_hand = {p["name"]: p["said"] for p in found[1]["parts"] if p["by_hand"]}
    assert by_hand == {
        "5c": [],
        "5d": ["to be marked with the rubric"],
        "5e": ["to be marked with the rubric"],
    }


def test_an_error_stands_behind_the_idea_of_the_test_that_met_it(solved, tmp_path):
    """And is told once, however many tests meet it."""
    folder = handed_in(solved, tmp_path / "ada", "raise KeyError('x')")
    (report,) = grade([folder], tmp_path / "out", only=["1-forgetting"])
    idea = "the loss is the mean cross entropy of the logits"
    assert report["parts"][0]["said"] == [f"{idea}: your code stops with KeyError: 'x'"]


def test_deleting_its_own_files_hurts_the_copy_only(solved, tmp_path):
    misdeed = "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)"
    folder = handed_in(solved, tmp_path / "eve", misdeed)
    before = sorted(path.name for path in folder.rglob("*"))
    (report,) = grade([folder], tmp_path / "out", only=["1-forgetting", "6-bug-hunts"])
    assert sorted(path.name for path in folder.rglob("*")) == before
    lost = [part for part in report["parts"] if part["said"]]
    assert [part["name"] for part in lost] == ["6a", "6b", "6c", "6d"]
    assert all("6-bug-hunts.ipynb is missing" in part["said"][0] for part in lost)


def test_adapters_that_are_missing_are_ours_and_broken_ones_are_told(solved, tmp_path):
    for name in ("without", "broken"):
        shutil.copytree(solved, tmp_path / name)
    (tmp_path / "without" / "adapters.py").unlink()
    (tmp_path / "broken" / "adapters.py").write_text("def :\n")
    folders = [tmp_path / "without", tmp_path / "broken"]
    without, broken = grade(folders, tmp_path / "out", only=["1-forgetting"], workers=2)
    assert without["score"] == 20
    assert broken["score"] == 0
    assert all("SyntaxError" in part["said"][0] for part in broken["parts"])


def test_all_time_together_is_limited(solved, tmp_path):
    folder = handed_in(solved, tmp_path / "slow", "import time\ntime.sleep(60)")
    limits = Limits(part=2, whole=1)
    (report,) = grade([folder], tmp_path / "out", only=["1-forgetting"], limits=limits)
    assert report["score"] == 0
    assert "all of it took longer than 1 seconds" in report["parts"][-1]["said"][0]


# ---------------------------------------------------------------- what is copied


def test_links_and_pipes_are_left_behind(tmp_path):
    folder, copy = tmp_path / "mine", tmp_path / "copy"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file.txt").write_text("mine")
    (folder / "link").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    assert grading._copied(folder, copy, 10**6) == ""
    found = {path.relative_to(copy).as_posix() for path in copy.rglob("*")}
    assert found == {"deep", "deep/file.txt", "adapters.py", "pipelines.py"}


def test_a_folder_that_is_too_large_is_not_copied(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "data.bin").write_bytes(bytes(3 * 10**6))
    assert "more than 2 MB" in grading._copied(folder, tmp_path / "copy", 2 * 2**20)
    for i in range(600):
        (folder / f"{i}.txt").touch()
    (folder / "data.bin").unlink()
    assert "more than 2 MB" in grading._copied(folder, tmp_path / "again", 2 * 2**20)


def test_a_name_where_a_file_should_be_is_told(tmp_path):
    (tmp_path / "mine" / "pipelines.py").mkdir(parents=True)
    (tmp_path / "mine" / "pipelines.py" / "x").touch()
    assert "can't be read" in grading._copied(tmp_path / "mine", tmp_path / "copy", 10**6)


# ---------------------------------------------------------------- what passes between processes


@pytest.fixture
def line():
    """Both ends of a line."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours.makefile("rwb"), theirs.makefile("rwb"), ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_tensors_pass_as_they_are(line, dtype):
    for shape in ((), (3,), (2, 0), (2, 3, 4)):
        value = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        grading.worker.send(line[0], {"x": [value, 1.5, "text", None, math.inf]})
        found = grading.worker.receive(line[1])
        assert found["x"][1:] == [1.5, "text", None, math.inf]
        assert found["x"][0].dtype == dtype
        assert torch.equal(found["x"][0], value)


def test_numpy_passes_as_lists_and_numbers(line):
    grading.worker.send(line[0], [np.arange(3), np.float64(2.5)])
    assert grading.worker.receive(line[1]) == [[0, 1, 2], 2.5]


def test_what_is_no_answer_does_not_pass(line):
    with pytest.raises(TypeError, match="function is no answer"):
        grading.worker.send(line[0], [lambda: None])


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"\xff\xff\xff\xff", "it has 4095 MB"),
        (b"\0\0\0\x02{{", "Expecting property name"),
        (b'\0\0\0\x21{"tensor": [1], "of": ["object"]}', "object"),
    ],
)
def test_what_is_forged_is_refused_and_runs_nothing(line, sent, error):
    line[0].write(sent)
    line[0].flush()
    with pytest.raises((ValueError, KeyError), match=error):
        grading.worker.receive(line[1])


def test_a_line_that_is_cut_is_noticed(line):
    line[0].write(b"\0\0\0\x09half")
    line[0].flush()
    line[0].close()
    line[2].shutdown(socket.SHUT_RDWR)
    with pytest.raises(EOFError):
        grading.worker.receive(line[1])


def test_what_is_said_is_made_fit_to_print():
    assert grading._plain("one\n two\x1b[31m \ud800 three") == "one two [31m three"
    assert len(grading._plain("x" * 9999)) == 600


# ---------------------------------------------------------------- the worker's own parts


def test_the_worker_answers_until_nobody_asks(tmp_path, monkeypatch):
    (tmp_path / "adapters.py").write_text(
        "import torch\n"
        "def twice(x): return 2 * x\n"
        "def off(): torch.set_grad_enabled(False)\n"
        "def on(): return torch.is_grad_enabled()\n"
        "def undone(): raise NotImplementedError\n"
        "def wrong(): raise KeyError('key')\n"
        "def odd(): return object()\n"
        "def leave(): raise SystemExit(3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "adapters", raising=False)
    answer = grading.worker.answer
    assert answer("twice", [2]) == ["", 4]
    assert answer("off", []) == ["", None]
    assert answer("on", []) == ["", True]
    assert answer("undone", []) == ["undone", ""]
    assert answer("wrong", []) == ["KeyError", "'key'"]
    assert answer("odd", [])[0] == "TypeError"
    assert answer("leave", []) == ["SystemExit", "3"]
    assert answer("absent", [])[0] == "AttributeError"


# ---------------------------------------------------------------- walls


def test_walls_that_do_not_stand_are_not_put_up(monkeypatch):
    monkeypatch.setattr(grading, "_stands", lambda tried: False)
    assert walls(3) == Walls("limits only: grade what you don't trust on Linux, or in a container")


def test_each_submission_has_an_account_of_its_own_where_we_are_root(monkeypatch):
    monkeypatch.setattr(grading.os, "geteuid", lambda: 0)
    monkeypatch.setattr(grading, "_open_to_all", lambda path: True)
    monkeypatch.setattr(grading, "_stands", lambda tried: tried.before[0] == "setpriv")
    found = [walls(number) for number in range(3)]
    assert [w.account for w in found] == [60600, 60601, 60602]
    assert all(f"--reuid={w.account}" in w.before for w in found)
    monkeypatch.setattr(grading, "_stands", lambda tried: True)
    monkeypatch.setattr(grading, "_open_to_all", lambda path: False)
    assert walls(0).account is None
    assert "any number of processes" in walls(0).said


def test_others_than_root_bring_a_name_space_of_users(monkeypatch):
    monkeypatch.setattr(grading.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(grading, "_stands", lambda tried: True)
    assert "--map-root-user" in walls(0).before
    assert walls(0).account is None


@pytest.mark.skipif(not SHUT_IN, reason="this machine has no such walls")
def test_within_the_walls_nothing_else_can_be_written_and_nobody_seen(tmp_path):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "copy"
        folder.mkdir()
        Path(place).chmod(0o711)
        grading._give(folder, WALLS.account)
        command = (
            "touch inside && echo written; touch /x 2>/dev/null && echo escaped; "
            f"touch {course.material()}/x 2>/dev/null && echo escaped; "
            "ls /proc | grep -c '^[0-9]'; "
            "mount -o remount,bind,rw / 2>/dev/null && echo lifted; true"
        )
        run = WALLS.command(folder, "sh", "-c", f"cd {folder}; {command}")
        done = grading.subprocess.run(run, capture_output=True, text=True, check=False)
    words = done.stdout.split()
    assert words[0] == "written"
    assert int(words[1]) < 10  # processes that it sees
    assert len(words) == 2, done.stdout


def test_a_process_that_cannot_be_started_is_told(tmp_path):
    shut = Walls("none", ("false",))
    with tempfile.TemporaryFile("a+b") as printed:
        remote = Remote(tmp_path, Limits(), shut, printed)
        assert "couldn't be started (status 1)" in grading._lessons([lambda a: None], remote)[0]


# ---------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"only": ["7-sleep"]}, "no assignment is called '7-sleep': choose of 1-forgetting, "),
        ({"submissions": ["absent"]}, "absent is no folder"),
        ({"submissions": ["a/ada", "b/ada"]}, "two submissions are called ada"),
        ({"marks": "name,5c\nada,3\n"}, "expected the columns student, 5c, 5d, 5e"),
        ({"marks": "student,5c,5d,5e\nada,many,,\n"}, "expected the columns"),
        ({"marks": "student,5c,5d,5e\nada,9,,\n"}, "marks beyond the points"),
        ({"marks": "student,5c,5d,5e\nada,nan,,\n"}, "marks beyond the points"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(tmp_path, changes, said):
    for name in ("a/ada", "b/ada"):
        (tmp_path / name).mkdir(parents=True)
    chosen = {"submissions": ["a/ada"], **changes}
    submissions = [tmp_path / name for name in chosen.pop("submissions")]
    if "marks" in chosen:
        (tmp_path / "marks.csv").write_text(chosen["marks"])
        chosen["marks"] = tmp_path / "marks.csv"
    with pytest.raises(ValueError, match=re.escape(said)):
        grade(submissions, tmp_path / "out", **chosen)
    assert not (tmp_path / "out").exists()
