"""Reports: the table and the figure say what the runs found, in percent."""

from __future__ import annotations

import re

import pytest

from genreplay_core import report, study

MEASURES = {"forgetting": 0.25, "backward_transfer": -0.25, "forward_transfer": 0.125}


def run(accuracy: float, **changes):
    return {"average_accuracy": accuracy, **MEASURES, "seconds": 4.0, "environment": {}, **changes}


def failure():
    return {"failed": "the loss became nan", "seconds": 0.0, "environment": {}}


def result(**rows):
    """A result with a row for each name, of (options, {seed: record})."""
    declared = [
        study.Row(name, options, tuple(runs) or (0,)) for name, (options, runs) in rows.items()
    ]
    wanted = study.Study("s", "s.toml", "Which is best?", "Is it?", tuple(declared))
    found = {(name, seed): r for name, (_, runs) in rows.items() for seed, r in runs.items()}
    return study.result(wanted, found, "again")


def line(text: str, name: str) -> list[str]:
    """The words behind the name of a row."""
    (found,) = re.findall(rf"^{re.escape(name)} (.*)$", text, re.MULTILINE)
    return found.split()


def grid(skip: int = 0, options=("steps", "hidden"), values=((10, 20), (8, 16, 24))):
    """A row for each pair of values but the last `skip`; the accuracies are 0.1, 0.2, ..."""
    pairs = [(a, b) for a in values[0] for b in values[1]]
    pairs = pairs[: len(pairs) - skip]
    return {
        f"{a} {b}": (dict(zip(options, (a, b), strict=True)), {0: run(0.1 * (i + 1))})
        for i, (a, b) in enumerate(pairs)
    }


# ---------------------------------------------------------------- the table


def test_a_line_says_in_percent_what_a_row_found():
    text = report.table(result(none=({}, {0: run(0.5), 1: run(0.75, seconds=8.0)})))
    title, heads, _ = text.splitlines()
    assert title == "Which is best?"
    assert heads.split()[:3] == ["percent", "seeds", "accuracy"]
    # Student's t with one degree of freedom is 12.706, the standard error 12.5 %
    assert line(text, "none") == [
        *("2", "62.50", "-96.33", "to", "221.33", "25.00", "-25.00", "12.50", "6"),
    ]


def test_numbers_stand_below_their_heads():
    lines = report.table(result(a=({}, {0: run(0.5)}), longer=({"steps": 3}, {0: run(1.0)})))
    _, heads, *rows = lines.splitlines()
    ends = [match.end() for match in re.finditer(r"accuracy|forgetting|\w+ transfer|s$", heads)]
    for row, accuracy in zip(rows, ("50.00", "100.00"), strict=True):
        found = {match.end(): match[0] for match in re.finditer(r"\S+", row)}
        assert [found[end] for end in ends] == [accuracy, "25.00", "-25.00", "12.50", "4"]


def test_one_seed_has_no_interval_and_a_row_to_come_no_numbers():
    text = report.table(result(one=({}, {3: run(0.5)}), later=({"steps": 7}, {})))
    assert line(text, "one") == ["1", "50.00", "25.00", "-25.00", "12.50", "4"]
    assert line(text, "later") == ["0", "not", "run", "yet"]
    assert text.splitlines()[-1] == "1 of 2 runs are finished"


def test_runs_that_diverged_are_told_and_not_counted():
    text = report.table(
        result(some=({}, {0: failure(), 1: run(0.5)}), all=({"lr": 9.0}, {0: failure()}))
    )
    assert line(text, "some") == ["1", "50.00", "25.00", "-25.00", "12.50", "4", "1", "diverged"]
    assert line(text, "all") == ["0", "1", "diverged"]
    assert "finished" not in text


# ---------------------------------------------------------------- the figure


def test_two_factors_make_a_heat_map_of_means():
    (ax,) = report.figure(result(**grid())).axes
    said = {text.get_position(): text.get_text() for text in ax.texts}  # at (column, row)
    assert said == {
        **{(0, 0): "10.0", (1, 0): "20.0", (2, 0): "30.0"},
        **{(0, 1): "40.0", (1, 1): "50.0", (2, 1): "60.0"},
    }
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("steps", "hidden")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["10", "20"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["8", "16", "24"]


def test_a_heat_map_can_show_a_measure_below_zero():
    (ax,) = report.figure(result(**grid()), "backward_transfer").axes
    assert {text.get_text() for text in ax.texts} == {"-25.0"}


INTERVALS = {
    "one row": {"a": ({}, {0: run(0.1)})},
    "one factor": grid(values=((10,), (8, 16, 24, 32))),
    "three factors": {**grid(), "c": ({"batch": 9}, {0: run(0.5)})},
    "a pair that is missing": grid(skip=1),
    "too few for a map": grid(values=((10, 20), (8,))),
    "one pair twice and one missing": {
        **grid(values=((10, 20), (8, 16)), skip=1),
        "again": ({"steps": 10, "hidden": 8}, {0: run(0.2)}),
    },
    "a pair that isn't run yet": {**grid(skip=1), "last": ({"steps": 20, "hidden": 24}, {})},
}


@pytest.mark.parametrize("rows", INTERVALS.values(), ids=INTERVALS)
def test_all_other_studies_make_intervals_a_line_for_each_row_that_was_run(rows):
    found = result(**rows)
    (ax,) = report.figure(found).axes
    names = [row["name"] for row in found["rows"] if row["seeds"]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == names
    assert ax.get_xlabel() == "average accuracy (%)"


def test_intervals_show_the_seeds_that_ended_and_their_interval():
    found = result(a=({}, {0: run(0.5), 1: failure(), 2: run(0.75)}), b=({"lr": 1.0}, {0: run(1)}))
    (ax,) = report.figure(found).axes
    seeds, reach, mean, alone, _ = (line.get_xdata() for line in ax.lines)
    assert list(seeds) == [50, 75]
    spread = found["rows"][0]["average_accuracy"]
    assert list(reach) == pytest.approx([100 * spread["low"], 100 * spread["high"]])
    assert list(mean) == pytest.approx([62.5])
    assert list(alone) == [100]  # one seed has no interval
    (ax,) = report.figure(found, "forgetting").axes
    assert list(ax.lines[2].get_xdata()) == [25]
    assert ax.get_xlabel() == "forgetting (%)"


def test_without_a_finished_run_there_is_no_figure():
    with pytest.raises(ValueError, match="nothing to draw"):
        report.figure(result(a=({}, {}), b=({"lr": 1.0}, {0: failure()})))
