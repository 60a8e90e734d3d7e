"""The claims: that each is tested as it says, and that each of the book's holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from genreplay_core import Config, claims, run
from genreplay_core.claims import Claim
from genreplay_core.metrics import Interval, interval

BOOK = Path(__file__).resolve().parents[1] / "book"
BOOKS = claims.read(BOOK / "claims.toml")


def stored(name: str) -> dict:
    return json.loads((BOOK / "results" / f"{name}.json").read_text())


# ---------------------------------------------------------------- the book's own


@pytest.mark.parametrize("claim", BOOKS.values(), ids=BOOKS.keys())
def test_the_stored_results_bear_each_claim_out(claim):
    values = claim.values(stored)
    assert len(values) >= 5  # as the front of the README says
    assert claim.holds(interval(values)), claim.told(stored)


LIVE = [claim for claim in BOOKS.values() if claim.live is not None]


def test_ten_claims_are_tried_here_and_now():
    assert len(LIVE) == 10


# what rehearses nothing collapses in one of them, and is to
COLLAPSES = pytest.mark.filterwarnings("ignore::genreplay_core.faults.Collapsed")
MARKS = {"rehearsing-generators-remember": COLLAPSES}


@pytest.mark.parametrize(
    "claim", [pytest.param(c, id=c.name, marks=MARKS.get(c.name, ())) for c in LIVE]
)
def test_the_main_claims_hold_on_digits_here_and_now(claim):
    """Both rows are learned again, in small, with the seeds 0, 1 and 2."""
    means = []
    for study, name in claim.places:
        options = claims.row(stored(study), name)["config"]
        small = {**options, "dataset": "digits", "hidden": 100, "quality": False, **claim.live}
        small = {k: tuple(v) if isinstance(v, list) else v for k, v in small.items()}
        runs = [run(Config(**{**small, "seed": seed})) for seed in range(3)]
        means.append(100 * sum(record[claim.measure] for record in runs) / len(runs))
    assert means[0] - sum(means[1:]) > claim.live_above


# ---------------------------------------------------------------- how a claim is tested


def result(**rows: dict[int, float]) -> dict:
    """A study's result with these accuracies by row and seed."""
    runs = {
        name: [{"seed": seed, "average_accuracy": value} for seed, value in values.items()]
        for name, values in rows.items()
    }
    return {"study": "made up", "rows": [{"name": name, "runs": runs[name]} for name in runs]}


MADE_UP = result(good={2: 0.9, 3: 0.8, 4: 0.7}, bad={3: 0.5, 2: 0.7})
CLAIM = Claim("c", "Good is better.", ("s", "good"), ("s", "bad"), above=1.0)


def test_seeds_are_subtracted_one_by_one_and_only_those_that_both_rows_have():
    assert CLAIM.values(lambda study: MADE_UP) == pytest.approx([20.0, 30.0])


def test_what_a_row_gains_is_counted_seed_by_seed():
    good, bad = MADE_UP["rows"]
    assert claims.gained(bad, good) == pytest.approx([20.0, 30.0])
    assert claims.gained(good, bad) == pytest.approx([-20.0, -30.0])


def test_a_claim_about_one_row_is_about_all_its_seeds():
    assert replace(CLAIM, less=None).values(lambda s: MADE_UP) == pytest.approx([90, 80, 70])


def test_a_run_that_diverged_counts_nowhere():
    broken = result(good={2: 0.9, 3: 0.8}, bad={2: 0.5, 3: 0.5})
    broken["rows"][1]["runs"][0] = {"seed": 2, "failed": "at step 3"}
    assert CLAIM.values(lambda study: broken) == pytest.approx([30.0])


def test_a_measure_may_lie_inside_others():
    row = {"name": "r", "runs": [{"seed": 2, "quality": [{"f": 0.1}, {"f": 0.25}]}]}
    assert claims.by_seed(row, "quality.-1.f") == {2: 25.0}


def test_rows_without_a_common_seed_bear_nothing_out():
    with pytest.raises(ValueError, match="claim 'c': no seed is finished in all of its rows"):
        CLAIM.values(lambda study: result(good={2: 0.9}, bad={3: 0.5}))


def test_a_row_that_is_not_there_is_one_line():
    with pytest.raises(ValueError, match="'made up' has no row 'ugly'"):
        claims.row(MADE_UP, "ugly")


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "held"),
    [
        (1.1, 2.0, 1.0, 9.0, True),
        (0.9, 2.0, 1.0, 9.0, False),  # the interval reaches below
        (1.1, 9.1, 1.0, 9.0, False),  # and above
        (float("nan"), float("nan"), 1.0, 9.0, False),  # one seed
    ],
)
def test_the_whole_interval_must_lie_where_it_is_claimed_to(low, high, above, below, held):
    found = Interval(1.5, 0.1, low, high)
    assert replace(CLAIM, above=above, below=below).holds(found) is held


def test_a_claim_is_told_with_its_interval_its_test_and_its_command():
    made = {**MADE_UP, "command": "genreplay sweep elsewhere/s.toml"}
    told = replace(CLAIM, below=60.0).told(lambda study: made)
    assert "**25.0 points**, 95 % interval -38.5 to 88.5, 2 seeds" in told
    assert "the whole interval above 1.0 points and below 60.0 points" in told
    assert "`genreplay sweep elsewhere/s.toml`" in told
    assert told.startswith("> **Claim.** Good is better.\n>\n> *good* minus *bad*")


# ---------------------------------------------------------------- how it is declared

GOOD = """[c]
says = "Good is better."
more = ["s", "good"]
less = ["s", "bad"]
above = 1.0
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "claims.toml"
    path.write_text(text)
    return path


def test_a_claim_is_read_as_it_was_declared(tmp_path):
    assert claims.read(written(tmp_path, GOOD)) == {"c": CLAIM}


def test_the_books_claims_are_those_of_the_checkout_or_as_they_were_installed(
    tmp_path, monkeypatch
):
    assert claims.shipped() == BOOKS
    monkeypatch.setattr(claims, "HERE", tmp_path / "genreplay_core")
    claims.HERE.mkdir()
    written(claims.HERE, GOOD)
    assert claims.shipped() == {"c": CLAIM}


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("says", "sagt", "claim 'c' needs says and more, and may have above, below"),
        ('more = ["s", "good"]\n', "", "claim 'c' needs says and more"),
        ("above = 1.0\n", "", "claim 'c' claims nothing: give above or below"),
        ('["s", "bad"]', '"bad"', r"claim 'c': less is 'bad', expected \[study, row\]"),
        ('["s", "bad"]', '["bad"]', "claim 'c': less is"),
        ("[c]\n", "c = 1\nx =", "claims.toml: "),
    ],
)
def test_a_bad_declaration_is_one_line(tmp_path, old, new, why):
    with pytest.raises(ValueError, match=why) as caught:
        claims.read(written(tmp_path, GOOD.replace(old, new)))
    assert "\n" not in str(caught.value)
