"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from genreplay_core import files
from genreplay_core.files import replacing, sealed, tidy, unsealed, write_json


def test_what_was_written_replaces_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("old")
    with replacing(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_writer_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("old")

    def interrupted():
        with replacing(target) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


KILLED_WHILE_WRITING = """\
import os, runpy, signal, sys
replacing = runpy.run_path(sys.argv[1])["replacing"]
with replacing(sys.argv[2]) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_writer_leaves_the_old_file_and_the_next_one_is_not_disturbed(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("old")
    # files.py runs alone, because nothing of it needs torch, which takes seconds to import
    ask = [sys.executable, "-c", KILLED_WHILE_WRITING, files.__file__, str(target)]
    assert subprocess.run(ask, check=False).returncode == -9
    assert target.read_text() == "old"
    write_json(target, "new")
    assert json.loads(target.read_text()) == "new"


def test_a_temporary_name_lies_in_the_same_folder_and_is_hidden(tmp_path):
    with replacing(tmp_path / "notes.txt") as partial:
        partial.touch()
        assert partial.parent == tmp_path  # a rename is atomic only within one file system
        assert partial.name.startswith(".")


def test_json_comes_back_as_it_was(tmp_path):
    value = {"matrix": [[0.1, 1 / 3], [1e-17, 1.0]], "name": "naïve", "none": None, "on": True}
    write_json(tmp_path / "result.json", value)
    assert json.loads((tmp_path / "result.json").read_text()) == value


def test_a_list_of_numbers_stands_on_a_line_and_everything_else_on_its_own(tmp_path):
    value = {
        "matrix": [[0.1, -2], [1e-17, 3]],
        "empty": [],
        "names": ["a", "b"],
        "mixed": [1, None],
    }
    write_json(tmp_path / "result.json", value)
    assert (
        (tmp_path / "result.json").read_text()
        == """{
 "matrix": [
  [ 0.1, -2 ],
  [ 1e-17, 3 ]
 ],
 "empty": [],
 "names": [
  "a",
  "b"
 ],
 "mixed": [
  1,
  null
 ]
}
"""
    )
    assert json.loads((tmp_path / "result.json").read_text()) == value


@pytest.mark.parametrize(
    "text",
    [
        "[ 1,  2 ]",
        "[\n 1,\n 2\n]",
        "  two  spaces ",
        "[",
        "]",
        '[\n"',
        "\\[\n1]",
        "\u2028[\u20281]",
    ],
)
def test_texts_with_brackets_and_spaces_are_left_as_they_are(tmp_path, text):
    value = {text: [text, [1, 2], text], "list": [[text], [3], text]}
    write_json(tmp_path / "result.json", value)
    assert json.loads((tmp_path / "result.json").read_text()) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_refused_and_the_old_file_kept(tmp_path, value):
    target = tmp_path / "result.json"
    write_json(target, [1])
    with pytest.raises((ValueError, TypeError)):
        write_json(target, {"loss": value})
    assert json.loads(target.read_text()) == [1]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_not_there_is_an_error_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write_json(tmp_path / "absent" / "result.json", [1])


# ---------------------------------------------------------------- what is left, and what changed


def test_what_dead_writers_left_is_removed_and_nothing_else(tmp_path):
    left = [tmp_path / ".a[1].json.4711", tmp_path / ".a[1].json.12"]
    others = [tmp_path / name for name in ("a[1].json", ".a1.json.12", ".b.json.12", ".a[1].jso")]
    for path in (*left, *others):
        path.touch()
    tidy(tmp_path / "a[1].json")
    assert sorted(tmp_path.iterdir()) == sorted(others)
    tidy(tmp_path / "absent" / "a.json")


def test_a_file_that_cannot_be_written_is_named_without_its_temporary_name(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError, match=r"Is a directory: '.*/taken'"):
        write_json(tmp_path / "taken", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_error_of_the_writer_s_own_is_left_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="source"), replacing(tmp_path / "copy") as partial:
        partial.write_bytes((tmp_path / "source").read_bytes())


CONTENT = {"matrix": [[0.1, 1 / 3], [1e-17, 1.0]], "name": "naïve", "none": None, "n": 3}


def test_what_was_sealed_comes_back_through_a_file(tmp_path):
    write_json(tmp_path / "a.json", sealed(CONTENT))
    assert unsealed(json.loads((tmp_path / "a.json").read_text())) == CONTENT


@pytest.mark.parametrize(
    "change",
    [{"n": 4}, {"matrix": [[0.1, 1 / 3], [1e-17, 0.9]]}, {"more": 1}, {"checksum": "0" * 16}],
)
def test_a_change_to_what_was_sealed_is_noticed(change):
    with pytest.raises(ValueError, match="its checksum is another"):
        unsealed({**sealed(CONTENT), **change})


def test_a_file_from_before_there_were_checksums_is_taken():
    assert unsealed(CONTENT) == CONTENT
