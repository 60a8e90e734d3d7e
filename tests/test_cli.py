"""The command line: what it prints is what it found, and what is wrong it says in one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, fields
from importlib.metadata import entry_points

import pytest
import torch
from PIL import Image

from genreplay_core import __version__, cli, experiment, report
from genreplay_core import config as configs
from genreplay_core.cli import MEASURES, main
from genreplay_core.config import Config
from genreplay_core.files import unsealed, write_json

TINY = [
    *("--device", "cpu", "--tasks", "2", "--steps", "3"),
    *("--batch", "16", "--hidden", "16", "--lr", "0.01"),
]


def options() -> dict[str, object]:
    """What `genreplay run` makes of no options at all."""
    return vars(cli._parser().parse_args(["run"]))


def tables(text: str) -> dict[str, list[list[float]]]:
    """Name -> the rows of numbers, in percent, of each accuracy matrix that was printed."""
    found: dict[str, list[list[float]]] = {}
    for line in text.splitlines():
        if heading := re.match(r"(\S+): accuracy on each task \(percent\)", line):
            found[heading[1]] = rows = []
        elif line.startswith(("untrained ", "task ")):
            rows.append([float(number) for number in re.findall(r"\d+\.\d", line)])
    return found


def image_size(path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


# ---------------------------------------------------------------- options


def test_the_installed_command_is_this_one():
    assert entry_points(group="console_scripts")["genreplay"].load() is main


def test_every_field_of_a_config_is_an_option_and_the_other_way_round():
    assert set(options()) - {"command", "again", "out", "resume", "device"} == {
        field.name for field in fields(Config)
    }


def test_without_options_a_config_is_the_library_s_default():
    given = {**options(), "replay": Config.replay}
    assert Config(**{field.name: given[field.name] for field in fields(Config)}) == Config()


def test_help_lists_every_option_and_ends_well(capsys):
    with pytest.raises(SystemExit) as end:
        main(["run", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for name in set(options()) - {"command", "again"}:
        assert f"--{name.replace('_', '-')}" in text
    unbroken = re.sub(r"-\n\s+", "-", text)  # argparse breaks lines at hyphens
    for names in (configs.REPLAYS, configs.GENERATORS, configs.SOLVERS):
        assert all(name in unbroken for name in names)


@pytest.mark.parametrize(("argument", "said"), [("--help", "run"), ("--version", __version__)])
def test_what_is_asked_about_the_command_is_answered(capsys, argument, said):
    with pytest.raises(SystemExit) as end:
        main([argument])
    assert end.value.code == 0
    assert said in capsys.readouterr().out


def test_options_reach_the_config(tmp_path):
    asked = {
        **{"scenario": "task", "class_order": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], "align": False},
        **{"generator": "conv-vae", "latent_dim": 7, "generator_steps": 2, "temperature": 3.0},
        **{"importance": 0.25, "replay_ratio": 0.5, "regulariser": "si", "strength": 0.1},
        **{"solver": "conv", "precision": "bfloat16", "seed": 4, "jitter": 1},
        **{"reset_optimisers": True},
    }
    argv = []
    for name, value in asked.items():
        said = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        option = f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
        argv += [option] if isinstance(value, bool) else [option, said]
    assert main(["run", *TINY, "--replay", "conditional", *argv, "--out", str(tmp_path)]) == 0
    config = json.loads((tmp_path / "result.json").read_text())["config"]
    assert {name: config[name] for name in asked} == asked
    # and nothing else was changed
    same = {**asked, "replay": "conditional", "tasks": 2, "steps": 3, "batch": 16, "hidden": 16}
    expected = json.loads(json.dumps(asdict(Config(**{**same, "lr": 0.01}))))
    assert config == expected


# ---------------------------------------------------------------- what a run leaves and prints


def test_three_learners_are_compared_and_the_tables_say_what_the_file_holds(tmp_path, capsys):
    out = tmp_path / "compared"
    assert main(["run", *TINY, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    runs = json.loads((out / "result.json").read_text())["runs"]
    assert list(runs) == ["none", "generative", "conditional"]
    found = tables(printed.out)
    assert list(found) == list(runs)
    for name, record in runs.items():
        assert unsealed(json.loads((out / name / "result.json").read_text())) == record
        exact = [[100 * value for value in row] for row in record["accuracy_matrix"]]
        for said, row in zip(found[name], exact, strict=True):
            assert said == pytest.approx(row, abs=0.0501)  # rounded to 0.1 percent
        (line,) = re.findall(rf"^{name} +([-\d. ]+)$", printed.out, re.MULTILINE)
        measures = [100 * record[measure] for measure in MEASURES]
        assert [float(n) for n in line.split()] == pytest.approx(measures, abs=0.0501)
        assert (out / name / "dreams.png").exists() == (name != "none")
    assert min(image_size(out / "matrices.png")) > 50
    assert str(out) in printed.out.splitlines()[-1]


def test_a_single_learner_s_result_is_the_record_itself(tmp_path, capsys):
    assert main(["run", *TINY, "--replay", "conditional", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["config"]["replay"] == "conditional"
    (rows,) = tables(capsys.readouterr().out).values()
    assert rows[-1] == pytest.approx([100 * a for a in record["accuracy_matrix"][-1]], abs=0.0501)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("result.json", "checkpoint.pt", "matrices.png", "dreams.png"),
    }
    for picture in ("matrices.png", "dreams.png"):
        assert min(image_size(tmp_path / picture)) > 50


def test_without_a_folder_a_new_one_is_made_in_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *TINY, "--replay", "none"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-class-")
    assert str(folder.relative_to(tmp_path)) in capsys.readouterr().out
    assert (folder / "result.json").exists()


def test_resuming_a_finished_run_prints_the_same_again_and_learns_nothing(
    tmp_path, monkeypatch, capsys
):
    argv = ["run", *TINY, "--replay", "none", "generative", "--out", str(tmp_path)]
    assert main(argv) == 0
    first, result = capsys.readouterr().out, (tmp_path / "result.json").read_text()
    monkeypatch.setattr(experiment, "Run", None)
    assert main([*argv, "--resume"]) == 0
    assert capsys.readouterr().out == first
    assert (tmp_path / "result.json").read_text() == result


def test_a_bar_is_drawn_only_where_somebody_watches(tmp_path, monkeypatch, capsys):
    argv = ["run", *TINY, "--replay", "none"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main([*argv, "--out", str(tmp_path / "watched")]) == 0
    assert "none: task 1 of 2  50%" in capsys.readouterr().err
    monkeypatch.undo()
    assert main([*argv, "--out", str(tmp_path / "piped")]) == 0
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- one line on bad input


def complaint(argv: list[str], capsys, command: str = "run", before: str = "") -> str:
    """The one line on stderr with which the command line refuses; `before` stands on stdout."""
    try:
        status = main([command, *argv])
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == before
    assert printed.err.startswith("genreplay: ")
    assert printed.err.endswith("\n")
    assert len(printed.err.splitlines()) == 1
    return printed.err


BAD = [
    ("--dataset digit", "unknown data set 'digit'"),
    ("--dataset digits+digits", "a stream of domains only"),
    ("--scenario klass", "--scenario"),
    ("--stream spilt", "--stream"),
    ("--replay dream", "--replay"),
    ("--generator gan", "--generator"),
    ("--solver tree", "--solver"),
    ("--regulariser l2", "--regulariser"),
    ("--precision int8", "--precision"),
    ("--labels firm", "--labels"),
    ("--labels code", "doesn't know its rows' classes"),
    ("--tasks 3", "10 classes can't be cut into 3 equal tasks"),
    ("--tasks 0", "tasks must be above 0"),
    ("--steps 0", "steps must be above 0"),
    ("--steps many", "--steps"),
    ("--epochs 1", "steps or in epochs, not both"),
    ("--batch 0", "batch must be above 0"),
    ("--hidden -1", "hidden must be above 0"),
    ("--latent-dim 0", "latent_dim must be above 0"),
    ("--temperature 0", "temperature must be above 0"),
    ("--lr nan", "lr must be above 0"),
    ("--seed -1", "seed must be 0 or more"),
    ("--importance -1", "importance must lie in [0, 1]"),
    ("--importance 1.5", "importance must lie in [0, 1]"),
    ("--replay-ratio -1", "replay_ratio must be 0 or more"),
    ("--curve-every -1", "curve_every must be 0 or more"),
    ("--class-order 0,1,2", "class order must name each of 0..9 once"),
    ("--class-order zero,one", "'zero,one' isn't numbers joined by commas"),
    ("--generator flow --latent-dim 5", "generator 'flow' has no latent_dim"),
    ("--generator vae --critic-steps 5", "generator 'vae' has no critic_steps"),
    ("--device abacus", "device 'abacus'"),
    ("--colour red", "--colour"),
]


@pytest.mark.parametrize(("asked", "said"), BAD, ids=[asked for asked, _ in BAD])
def test_bad_input_is_one_line_and_leaves_no_folder(tmp_path, capsys, asked, said):
    out = tmp_path / "run"
    assert said in complaint([*TINY, *asked.split(), "--out", str(out)], capsys)
    assert not out.exists()


def test_no_command_is_one_line_too(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("genreplay: ")


def test_to_resume_one_must_say_what(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "--out" in complaint([*TINY, "--resume"], capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_refused(tmp_path, capsys):
    argv = [*TINY, "--replay", "none", "--out", str(tmp_path)]
    assert main(["run", *argv]) == 0
    capsys.readouterr()
    before = (tmp_path / "result.json").read_text()
    assert "--resume" in complaint(argv, capsys)
    assert "another seed" in complaint([*argv, "--resume", "--seed", "1"], capsys)
    assert "a single run" in complaint([*argv, "--replay", "none", "generative"], capsys)
    assert (tmp_path / "result.json").read_text() == before


def test_a_file_where_the_folder_should_be_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert "file" in complaint([*TINY, "--out", str(tmp_path / "file")], capsys)


def test_a_loss_that_is_no_longer_finite_is_one_line(tmp_path, capsys):
    argv = [*TINY, "--lr", "1e30", "--steps", "40", "--replay", "none", "--out", str(tmp_path)]
    assert "the loss became" in complaint(argv, capsys)


def test_an_error_of_several_lines_is_said_in_one(tmp_path, monkeypatch, capsys):
    def failing(*args, **options):
        raise OSError("the disk\n  is full")

    monkeypatch.setattr(cli, "run", failing)
    line = complaint([*TINY, "--out", str(tmp_path)], capsys)
    assert line == "genreplay: the disk is full\n"


def test_whoever_stops_a_run_is_told_how_to_go_on(tmp_path, monkeypatch, capsys):
    learn, argv = cli.run, ["run", *TINY, "--replay", "none", "--out", str(tmp_path)]

    def stopped(*args, after_task, **options):
        def stop(work):
            raise KeyboardInterrupt

        return learn(*args, after_task=stop, **options)

    monkeypatch.setattr(cli, "run", stopped)
    assert main(argv) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("genreplay: stopped")
    assert f"--resume --out {tmp_path}" in line
    monkeypatch.undo()
    assert main([*argv, "--resume"]) == 0


# ---------------------------------------------------------------- sweep and report

STUDY = """
title = "Does rehearsal help?"
question = "Two learners."
seeds = [0, 1]
[base]
tasks = 2
steps = 3
batch = 16
hidden = 8
[rows.none]
replay = "none"
[rows.wild]
replay = "none"
lr = 1e30
steps = 40
"""


def sweep_argv(folder, text: str = STUDY, name: str = "help") -> list[str]:
    (folder / f"{name}.toml").write_text(text)
    folders = ["--out", str(folder / "results"), "--work", str(folder / "work")]
    return [str(folder / f"{name}.toml"), *folders, "--workers", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The result of a sweep."""
    folder = tmp_path_factory.mktemp("swept")
    assert main(["sweep", *sweep_argv(folder)]) == 0
    return unsealed(json.loads((folder / "results" / "help.json").read_text()))


@pytest.fixture
def result(swept, tmp_path):
    """The file of that result, in a folder of its own."""
    (tmp_path / "results").mkdir()
    write_json(tmp_path / "results" / "help.json", swept)
    return tmp_path / "results" / "help.json"


def test_a_sweep_prints_each_run_as_it_ends_and_then_the_table(tmp_path, capsys):
    more = STUDY.replace("Does rehearsal help?", "And more?").replace("[0, 1]", "[5]")
    first, *options = sweep_argv(tmp_path)
    argv = [first, sweep_argv(tmp_path, more, "more")[0], *options]
    assert main(["sweep", *argv]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0] == "help: Does rehearsal help?"
    result = json.loads((tmp_path / "results" / "help.json").read_text())
    for count, run in zip((1, 3), result["rows"][0]["runs"], strict=True):
        said = f"{count}/4  none, seed {run['seed']}: {100 * run['average_accuracy']:.2f} %, 0 s"
        assert re.sub(r"\d+ s$", "0 s", lines[count]) == said
    assert re.match(r"2/4  wild, seed 0: .*the loss became", lines[2])
    table = report.table(result).splitlines()
    assert lines[5 : 5 + len(table)] == table
    assert "more: And more?" in lines
    assert (tmp_path / "results" / "more.json").exists()

    assert main(["sweep", *argv]) == 0  # now that all is there
    again = capsys.readouterr().out.splitlines()
    assert again == [line for line in lines if not re.match(r"\d/\d  ", line)]


MISTAKEN_STUDIES = [
    (STUDY + "stpes = 3\n", "row 'wild': unknown option 'stpes'"),
    (STUDY.replace("seeds", "sedes"), "unknown part 'sedes'"),
    (STUDY.replace("seeds = [0, 1]", ""), "row 'none' needs seeds"),
    (STUDY + 'replay = "exact"\n', "at line"),  # the second replay in a row
    ("title", "at"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKEN_STUDIES)
def test_a_mistaken_study_is_one_line_before_anything_is_run(tmp_path, capsys, text, said):
    good = sweep_argv(tmp_path, name="good")
    line = complaint([good[0], *sweep_argv(tmp_path, text)], capsys, "sweep")
    assert said in line
    assert "help.toml" in line
    assert {path.name for path in tmp_path.iterdir()} == {"good.toml", "help.toml"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--workers 0", "workers must be at least 1, got 0"),
        ("--device abacus", "device 'abacus'"),
    ],
)
def test_bad_options_of_a_sweep_are_one_line_and_leave_nothing(tmp_path, capsys, asked, said):
    argv = [*sweep_argv(tmp_path), *asked.split()]
    assert said in complaint(argv, capsys, "sweep", before="help: Does rehearsal help?\n")
    assert {path.name for path in tmp_path.iterdir()} == {"help.toml"}


def test_a_study_that_is_not_there_is_one_line(tmp_path, capsys):
    assert "absent.toml" in complaint([str(tmp_path / "absent.toml")], capsys, "sweep")
    assert "FILE.toml" in complaint([], capsys, "sweep")
    assert "--workers" in complaint(["absent.toml", "--workers", "many"], capsys, "sweep")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda result: {**result, "study": "other"}, "holds 'other', expected 'help'"),
        (lambda result: {**result, "rows": None}, "is damaged, or no result of a study"),
    ],
)
def test_a_result_that_does_not_fit_is_one_line_and_stays(tmp_path, capsys, result, change, said):
    write_json(result, change(json.loads(result.read_text())))
    held = result.read_bytes()
    argv = sweep_argv(tmp_path)
    assert said in complaint(argv, capsys, "sweep", before="help: Does rehearsal help?\n")
    assert result.read_bytes() == held
    assert not (tmp_path / "work").exists()


def test_whoever_stops_a_sweep_is_told_that_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "sweep", stopped)
    assert main(["sweep", *sweep_argv(tmp_path)]) == 130
    assert capsys.readouterr().err == "genreplay: stopped; the same command goes on\n"


def test_a_report_prints_the_table_and_draws_the_figure_beside_the_result(result, capsys):
    assert main(["report", str(result)]) == 0
    assert capsys.readouterr().out.rstrip() == report.table(json.loads(result.read_text()))
    assert {path.name for path in result.parent.iterdir()} == {"help.json", "help.png"}
    assert min(image_size(result.with_suffix(".png"))) > 50


def test_the_figures_of_a_report_go_where_they_are_asked_to(tmp_path, result):
    assert main(["report", str(result), "--out", str(tmp_path / "some" / "figures")]) == 0
    assert [path.name for path in (tmp_path / "some" / "figures").iterdir()] == ["help.png"]
    assert [path.name for path in result.parent.iterdir()] == ["help.json"]


def test_a_report_of_nothing_finished_has_no_figure(result, swept, capsys):
    rows = [{**row, "runs": []} for row in swept["rows"]]
    write_json(result, {**swept, "rows": rows, "finished": 0})
    assert main(["report", str(result)]) == 0
    assert "0 of 4 runs are finished" in capsys.readouterr().out
    assert [path.name for path in result.parent.iterdir()] == ["help.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"runs": {}}'])
def test_a_result_that_cannot_be_read_is_one_line_before_any_is_shown(
    tmp_path, result, capsys, content
):
    (tmp_path / "bad.json").write_text(content)
    line = complaint([str(result), str(tmp_path / "bad.json")], capsys, "report")
    assert "bad.json is damaged, or no result of a study" in line
    assert "absent.json" in complaint([str(tmp_path / "absent.json")], capsys, "report")
    assert "FILE.json" in complaint([], capsys, "report")
    assert [path.name for path in result.parent.iterdir()] == ["help.json"]


@pytest.mark.parametrize("command", ["sweep", "report"])
def test_help_on_studies_lists_every_option(capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    names = set(vars(cli._parser().parse_args([command, "file"])))
    for name in names - {"command", "again", "studies", "results"}:
        assert f"--{name}" in text


# ---------------------------------------------------------------- course


def test_a_folder_for_students_is_made_and_graded(tmp_path, capsys):
    assert main(["course", "make", str(tmp_path / "unit")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'unit'} is ready: begin with its README.md\n"
    argv = [str(tmp_path / "unit"), "--only", "1-forgetting", "--out", str(tmp_path / "graded")]
    assert main(["course", "grade", *argv, "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unit: 0 of 20 points"
    assert str(tmp_path / "graded") in lines[-1]
    names = {path.name for path in (tmp_path / "graded").iterdir()}
    assert names == {"unit", "gradebook.csv"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("make", "DIR"),
        ("mark", "mark"),
        ("grade", "SUBMISSION"),
        ("grade absent", "absent is no folder"),
        ("grade . --only 9", "no assignment is called '9'"),
        ("grade . --workers 0", "workers must be at least 1"),
        ("grade . --marks absent.csv", "absent.csv"),
        ("grade . --seconds soon", "--seconds"),
    ],
)
def test_bad_input_of_a_course_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, asked, said
):
    monkeypatch.chdir(tmp_path)
    assert said in complaint(asked.split(), capsys, "course")
    assert list(tmp_path.iterdir()) == []


def test_help_on_grading_lists_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        main(["course", "grade", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    names = set(vars(cli._parser().parse_args(["course", "grade", "folder"])))
    for name in names - {"command", "again", "submissions"}:
        assert f"--{name}" in text


# ---------------------------------------------------------------- killed

KILLED_IN_THE_SECOND_TASK = """\
import os, signal, sys
from genreplay_core import cli

learn = cli.run

def doomed(config, *args, progress, **options):
    def die(task, tasks, fraction):
        if config.replay == "generative" and task == 1 and fraction >= 0.5:
            os.kill(os.getpid(), signal.SIGKILL)
    return learn(config, *args, progress=die, **options)

cli.run = doomed
cli.main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_killed_in_the_middle_of_a_task_is_resumed_bit_for_bit(tmp_path):
    argv = ["run", *TINY, "--steps", "64", "--curve-every", "16", "--replay", "none", "generative"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    ask = [sys.executable, "-c", KILLED_IN_THE_SECOND_TASK, *argv, "--out", str(killed)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(ask, env=os.environ | threads, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    none = (killed / "none" / "result.json").read_text()
    assert (killed / "generative" / "checkpoint.pt").exists()
    assert not (killed / "generative" / "result.json").exists()
    assert not (killed / "result.json").exists()

    assert main([*argv, "--out", str(killed), "--resume"]) == 0
    assert main([*argv, "--out", str(whole)]) == 0
    assert (killed / "none" / "result.json").read_text() == none
    results = [json.loads((out / "result.json").read_text())["runs"] for out in (killed, whole)]
    for name in ("none", "generative"):
        for part in ("accuracy_matrix", "curve", "config"):
            assert results[0][name][part] == results[1][name][part]
    left = {path.relative_to(killed) for path in killed.rglob("*")}
    assert left == {path.relative_to(whole) for path in whole.rglob("*")}
