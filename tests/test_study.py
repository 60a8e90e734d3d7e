"""Studies: what a declaration means, how each mistake in it is refused, and results that say what
their runs found and give every run back."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats

from genreplay_core import study
from genreplay_core.config import Config
from genreplay_core.files import write_json

TWO_ROWS = """
title = "Does rehearsal  help?"
question = \"\"\"Two learners,
one answer.\"\"\"
seeds = [1, 0]

[base]
tasks = 2
steps = 3

[rows.none]
replay = "none"

[rows."all of it"]
replay = "exact"
steps = 5
seeds = [4, 5, 6]
"""


def declared(folder, text: str = TWO_ROWS, name: str = "help"):
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return study.read(path)


def record(accuracy: float = 0.5, device: str = "cpu", **changes):
    """A record as `experiment.run` gives it, of a solver that always has the same accuracy."""
    return {
        "accuracy_matrix": [[accuracy] * 2] * 3,
        **{"average_accuracy": accuracy, "forgetting": 0.25, "backward_transfer": -0.25},
        **{"forward_transfer": 0.0, "tasks": ["0 1", "2 3"], "config": {"seed": 7}},
        **{"seconds": 2.0, "steps_per_second": 100.0, "environment": {"device": device}},
        **{"curve": [], "quality": [], **changes},
    }


def failure():
    return {"failed": "the loss became nan", "environment": {"device": "cpu"}, "seconds": 0.0}


def stored(wanted, found, path):
    """What comes back from a result file."""
    write_json(path, study.result(wanted, found, "again"))
    return study.stored(wanted, path)


# ---------------------------------------------------------------- declarations


def test_a_declaration_means_what_it_says(tmp_path):
    found = declared(tmp_path)
    assert found.name == "help"
    assert found.title == "Does rehearsal help?"
    assert found.question == "Two learners, one answer."
    none, everything = found.rows
    assert (none.name, none.seeds) == ("none", (1, 0))
    assert (everything.name, everything.seeds) == ("all of it", (4, 5, 6))
    assert none.config(1) == Config(tasks=2, steps=3, replay="none", seed=1)
    assert everything.config(4) == Config(tasks=2, steps=5, replay="exact", seed=4)


def test_the_first_seed_of_all_rows_comes_before_the_second_of_any(tmp_path):
    jobs = [(row.name, seed) for row, seed in declared(tmp_path).jobs]
    assert jobs == [
        *(("none", 1), ("all of it", 4), ("none", 0), ("all of it", 5), ("all of it", 6)),
    ]


def test_a_grid_is_every_row_in_every_combination(tmp_path):
    rows = declared(tmp_path, TWO_ROWS + "[grid]\nlr = [0.1, 1]\nhidden = [8, 16]\n").rows
    assert [row.name for row in rows[:4]] == [
        *("none · lr 0.1 · hidden 8", "none · lr 0.1 · hidden 16"),
        *("none · lr 1 · hidden 8", "none · lr 1 · hidden 16"),
    ]
    assert len(rows) == 8
    assert rows[6].config(4) == Config(tasks=2, steps=5, replay="exact", lr=1, hidden=8, seed=4)
    assert {row.seeds for row in rows[4:]} == {(4, 5, 6)}


@pytest.mark.parametrize("rows", ["", "[rows]\n"])
def test_a_study_without_rows_is_one_run_a_seed(tmp_path, rows):
    found = declared(tmp_path, f'title = "a"\nquestion = "b"\nseeds = [3]\n{rows}')
    assert found.jobs == [(study.Row("run", {}, (3,)), 3)]
    assert found.rows[0].config(3) == Config(seed=3)


def test_a_class_order_is_as_in_a_config(tmp_path):
    text = 'title = "a"\nquestion = "b"\nseeds = [3]\n[base]\nclass_order = [1, 0]\n'
    (row,) = declared(tmp_path, text).rows
    assert row.config(0).class_order == (1, 0)
    assert row.described["class_order"] == [1, 0]  # as JSON has it


def test_a_row_is_described_by_its_whole_config_but_the_seed(tmp_path):
    row = declared(tmp_path).rows[0]
    whole = asdict(row.config(9))
    del whole["seed"]
    assert row.described == whole


HEAD = 'title = "a"\nquestion = "b"\nseeds = [0]\n'
MISTAKES = {
    "no TOML": ("title = \n", "at line 1"),
    "unknown part": (HEAD + "sedes = [1]\n", "unknown part 'sedes': a study has base, grid"),
    "no title": ('question = "b"\nseeds = [0]\n', "needs a title and a question"),
    "empty question": ('title = "a"\nquestion = " "\nseeds = [0]\n', "a title and a question"),
    "title is a number": ('title = 1\nquestion = "b"\nseeds = [0]\n', "each a text"),
    "no seeds": ('title = "a"\nquestion = "b"\n', "row 'run' needs seeds"),
    "empty seeds": (HEAD + "[rows.x]\nseeds = []\n", "row 'x' needs seeds"),
    "one seed twice": (HEAD + "[rows.x]\nseeds = [1, 1]\n", "different whole numbers"),
    "seed below 0": (HEAD + "[rows.x]\nseeds = [-1]\n", "of 0 or more"),
    "seed true": (HEAD + "[rows.x]\nseeds = [true]\n", "row 'x' needs seeds"),
    "a seed for seeds": (HEAD + "[rows.x]\nseeds = 3\n", "row 'x' needs seeds"),
    "base is no table": (HEAD + "base = 3\n", "'base' is 3, expected a table"),
    "rows are no table": (HEAD + "rows = []\n", "'rows' is \\[\\], expected a table"),
    "row is no table": (HEAD + '[rows]\nx = "none"\n', "'x' is 'none', expected a table"),
    "grid is no table": (HEAD + "grid = 1\n", "'grid' is 1, expected a table"),
    "grid of no list": (HEAD + "[grid]\nlr = 0.1\n", "needs a list of values"),
    "grid of an empty list": (HEAD + "[grid]\nlr = []\n", "needs a list of values"),
    "a value twice": (HEAD + "[grid]\nlr = [0.1, 0.1]\n", "the grid names a value twice"),
    "unknown option": (HEAD + "[rows.x]\nstpes = 3\n", "row 'x': unknown option 'stpes'"),
    "seed as option": (HEAD + "[base]\nseed = 3\n", "row 'run': unknown option 'seed'"),
    "text for a number": (HEAD + '[base]\nlr = "big"\n', "lr is 'big', expected float"),
    "half a step": (HEAD + "[base]\nsteps = 2.5\n", "steps is 2.5, expected int"),
    "number for yes or no": (HEAD + "[base]\nalign = 1\n", "align is 1, expected bool"),
    "yes for a number": (HEAD + "[base]\naverage = true\n", "average is True, expected float"),
    "order is a number": (HEAD + "[base]\nclass_order = 3\n", "class_order is 3, expected list"),
    "unknown replay": (HEAD + '[rows.x]\nreplay = "dream"\n', "row 'x': unknown replay 'dream'"),
    "steps and epochs": (HEAD + "[base]\nsteps = 1\nepochs = 1\n", "in steps or in epochs"),
    "bad grid": (HEAD + "[grid]\nbatch = [1, 0]\n", "row 'run · batch 0': batch must be above 0"),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_names_the_file(tmp_path, text, said):
    with pytest.raises(ValueError, match=said) as error:
        declared(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "help.toml"))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_an_error_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        study.read(tmp_path / "absent.toml")


# ---------------------------------------------------------------- folders


def test_every_run_works_in_a_folder_of_its_own_which_follows_from_its_options(tmp_path):
    found = declared(tmp_path, TWO_ROWS + '[rows."a/b .. c"]\nreplay = "noise"\n')
    folders = [study.folder_of(row, seed) for row, seed in found.jobs]
    assert len(set(folders)) == len(found.jobs)
    assert all(len(folder.parts) == 2 and ".." not in folder.parts for folder in folders)
    row = found.rows[0]
    assert study.folder_of(row, 1) == study.folder_of(replace(row, seeds=(1, 2)), 1)
    changed = replace(row, options={**row.options, "steps": 4})
    assert study.folder_of(row, 1) != study.folder_of(changed, 1)


# ---------------------------------------------------------------- results


def test_a_row_is_summed_up_by_student_s_interval_over_its_seeds(tmp_path):
    wanted = declared(tmp_path)
    accuracies = [0.5, 0.6, 0.85]
    found = {("all of it", 4 + i): record(value) for i, value in enumerate(accuracies)}
    result = study.result(wanted, found, "genreplay sweep help.toml")
    (none, row) = result["rows"]
    error = np.std(accuracies, ddof=1) / np.sqrt(3)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(accuracies), scale=error)
    expected = {"mean": 0.65, "standard_error": error, "low": low, "high": high}
    assert row["average_accuracy"] == pytest.approx(expected, abs=1e-6)
    assert row["forgetting"] == {"mean": 0.25, "standard_error": 0.0, "low": 0.25, "high": 0.25}
    assert (row["seeds"], none["seeds"], none["runs"]) == (3, 0, [])
    assert "average_accuracy" not in none
    assert (result["finished"], result["wanted"], result["seconds"]) == (3, 5, 6.0)
    assert result["study"] == "help"
    assert result["command"] == "genreplay sweep help.toml"
    assert row["config"]["steps"] == 5
    json.dumps(result, allow_nan=False)


def test_one_seed_has_a_mean_and_no_interval(tmp_path):
    result = study.result(declared(tmp_path), {("none", 0): record(0.5)}, "again")
    spread = result["rows"][0]["average_accuracy"]
    assert spread == {"mean": 0.5, "standard_error": None, "low": None, "high": None}


def test_a_run_that_diverged_is_told_and_not_counted(tmp_path):
    found = {("none", 1): failure(), ("none", 0): record(0.75)}
    row = study.result(declared(tmp_path), found, "again")["rows"][0]
    assert row["seeds"] == 1
    assert row["average_accuracy"]["mean"] == 0.75
    assert row["runs"][0]["failed"] == "the loss became nan"


def test_each_environment_stands_once(tmp_path):
    found = {
        ("none", 1): record(device="cpu"),
        ("none", 0): record(device="cuda"),
        ("all of it", 4): record(device="cpu"),
    }
    result = study.result(declared(tmp_path), found, "again")
    assert sorted(where["device"] for where in result["environments"]) == ["cpu", "cuda"]
    runs = {(row["name"], run["seed"]): run for row in result["rows"] for run in row["runs"]}
    for key, run in runs.items():
        assert result["environments"][run["environment"]] == found[key]["environment"]


def test_numbers_are_kept_to_six_decimals(tmp_path):
    found = {("none", 0): record(1 / 3, curve=[{"task": 0, "step": 9, "accuracy": [2 / 3]}])}
    (run,) = study.result(declared(tmp_path), found, "again")["rows"][0]["runs"]
    assert run["accuracy_matrix"] == [[0.333333] * 2] * 3
    assert run["curve"] == [{"task": 0, "step": 9, "accuracy": [0.666667]}]


# ---------------------------------------------------------------- stored results


def test_every_run_comes_back_from_the_file_and_the_same_result_from_them(tmp_path):
    wanted = declared(tmp_path)
    found = {("none", 0): record(0.123456), ("none", 1): failure(), ("all of it", 6): record(0.75)}
    again = stored(wanted, found, tmp_path / "help.json")
    assert again.keys() == found.keys()
    assert study.result(wanted, again, "again") == study.result(wanted, found, "again")
    assert study.stored(wanted, tmp_path / "absent.json") == {}


def test_only_runs_that_are_still_wanted_come_back(tmp_path):
    found = {("none", 0): record(), ("none", 1): record(), ("all of it", 4): record()}
    assert len(stored(declared(tmp_path), found, tmp_path / "help.json")) == 3
    changes = {
        "steps = 5": ("steps = 6", {("none", 0), ("none", 1)}),  # another option in a row
        "seeds = [1, 0]": ("seeds = [1, 9]", {("none", 1), ("all of it", 4)}),  # a seed went
        "[rows.none]": ("[rows.nothing]", {("all of it", 4)}),  # another name
        "tasks = 2": ("tasks = 5", set()),
        "title = ": ("# \ntitle = ", set(found)),
    }
    for old, (new, kept) in changes.items():
        changed = declared(tmp_path, TWO_ROWS.replace(old, new))
        assert set(study.stored(changed, tmp_path / "help.json")) == kept


def test_a_result_from_before_an_option_existed_is_read_with_its_default(tmp_path):
    wanted, path = declared(tmp_path), tmp_path / "help.json"
    result = study.result(wanted, {("none", 0): record()}, "again")
    for row in result["rows"]:
        del row["config"]["best_of"]
    write_json(path, result)
    assert set(study.stored(wanted, path)) == {("none", 0)}


def test_the_result_of_another_study_is_refused(tmp_path):
    write_json(tmp_path / "help.json", study.result(declared(tmp_path, name="b"), {}, "again"))
    with pytest.raises(ValueError, match=r"help\.json holds 'b', expected 'help'"):
        study.stored(declared(tmp_path), tmp_path / "help.json")


def test_a_summary_is_made_of_the_runs_whatever_the_file_says(tmp_path):
    path = tmp_path / "help.json"
    result = study.result(declared(tmp_path), {("none", 0): record(0.5)}, "again")
    result["rows"][0]["average_accuracy"]["mean"] = 0.99
    write_json(path, result)
    assert study.loaded(path)["rows"][0]["average_accuracy"]["mean"] == 0.5


DAMAGES = {
    "no study": lambda result: result.pop("study"),
    "no title": lambda result: result.update(title=None),
    "no count": lambda result: result.pop("finished"),
    "no rows": lambda result: result.update(rows=[]),
    "rows are a number": lambda result: result.update(rows=3),
    "a row is a text": lambda result: result["rows"].append("none"),
    "a row without a name": lambda result: result["rows"][0].pop("name"),
    "a row without its config": lambda result: result["rows"][0].pop("config"),
    "a config without an option": lambda result: result["rows"][1]["config"].pop("replay"),
    "a config that is a list": lambda result: result["rows"][1].update(config=[]),
    "a run without its seed": lambda result: result["rows"][0]["runs"][0].pop("seed"),
    "a run without its time": lambda result: result["rows"][0]["runs"][0].pop("seconds"),
    "a run without a measure": lambda result: result["rows"][0]["runs"][0].pop("forgetting"),
    "a measure that is none": lambda result: result["rows"][0]["runs"][0].update(forgetting="x"),
    "a place that isn't there": lambda result: result["rows"][0]["runs"][0].update(environment=9),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_result_is_one_line(tmp_path, damage):
    path = tmp_path / "help.json"
    result = study.result(declared(tmp_path), {("none", 0): record()}, "again")
    write_json(path, result)
    assert study.loaded(path) == result
    damage(result)
    write_json(path, result)
    with pytest.raises(ValueError, match=r"help\.json is damaged, or no result of a study"):
        study.loaded(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"null"])
def test_a_file_that_holds_no_result_is_one_line(tmp_path, content):
    (tmp_path / "help.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"help\.json is damaged, or no result of a study"):
        study.loaded(tmp_path / "help.json")
