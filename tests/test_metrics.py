"""The measures against matrices worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from genreplay_core import metrics

# Three tasks. Task 0 is forgotten bit by bit, task 1 is forgotten once, task 2 is the last.
R = np.array(
    [
        [0.10, 0.20, 0.30],
        [0.90, 0.25, 0.30],
        [0.70, 0.80, 0.50],
        [0.40, 0.60, 1.00],
    ]
)
PERFECT = np.vstack([np.zeros(3), np.ones((3, 3))])
MATRIX_MEASURES = [
    metrics.average_accuracy,
    metrics.forgetting,
    metrics.backward_transfer,
    metrics.forward_transfer,
    metrics.summary,
]


def test_average_accuracy_is_the_mean_of_the_last_row():
    assert metrics.average_accuracy(R) == pytest.approx((0.4 + 0.6 + 1.0) / 3)


def test_forgetting_is_the_fall_from_the_best():
    assert metrics.forgetting(R) == pytest.approx(((0.9 - 0.4) + (0.8 - 0.6)) / 2)


def test_forgetting_is_zero_when_nothing_is_lost():
    assert metrics.forgetting(PERFECT) == 0.0


def test_forgetting_falls_from_a_best_reached_after_learning():
    late = R.copy()
    late[2, 0] = 0.95  # learning task 1 improved task 0 beyond the 0.9 it had at first
    assert metrics.forgetting(late) == pytest.approx(((0.95 - 0.4) + (0.8 - 0.6)) / 2)


def test_forgetting_ignores_accuracy_before_a_task_was_learned():
    early = R.copy()
    early[:2, 1] = 1.0
    assert metrics.forgetting(early) == metrics.forgetting(R)


def test_forgetting_keeps_improvement_as_a_negative_number():
    better = [[0.0, 0.0], [0.5, 0.0], [0.8, 1.0]]
    assert metrics.forgetting(better) == pytest.approx(-0.3)


def test_backward_transfer_compares_the_end_with_right_after_learning():
    assert metrics.backward_transfer(R) == pytest.approx(((0.4 - 0.9) + (0.6 - 0.8)) / 2)


def test_with_two_tasks_forgetting_is_minus_backward_transfer():
    two = [[0.1, 0.2], [0.9, 0.3], [0.4, 0.8]]
    assert metrics.forgetting(two) == -metrics.backward_transfer(two)


def test_forward_transfer_compares_just_before_learning_with_untrained():
    assert metrics.forward_transfer(R) == pytest.approx(((0.25 - 0.20) + (0.50 - 0.30)) / 2)


@pytest.mark.parametrize("untrained", [0.0, 0.4])
def test_a_single_task_has_no_transfer_and_nothing_to_forget(untrained):
    assert metrics.summary([[untrained], [0.9]]) == {
        "average_accuracy": 0.9,
        "forgetting": 0.0,
        "backward_transfer": 0.0,
        "forward_transfer": 0.0,
    }


def test_summary_holds_each_measure_as_a_plain_float():
    found = metrics.summary(R)
    assert found == {f.__name__: f(R) for f in MATRIX_MEASURES if f is not metrics.summary}
    assert {type(v) for v in found.values()} == {float}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("measure", MATRIX_MEASURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_matrix_is_left_as_it_was(measure, dtype):
    given = R.astype(dtype)
    kept = given.copy()
    given.flags.writeable = False
    measure(given)
    np.testing.assert_array_equal(given, kept)


@pytest.mark.parametrize("measure", MATRIX_MEASURES)
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (R[1:], "shape"),
        (R[:, :2], "shape"),
        (R[0], "shape"),
        (np.zeros((1, 0)), "shape"),
        (np.where(R == 0.4, np.nan, R), "nan"),
        (R * 100, "divide percentages by 100"),
        (R - 0.5, "expected \\[0, 1\\]"),
    ],
)
def test_a_bad_matrix_is_refused_in_one_line(measure, bad, why):
    with pytest.raises(ValueError, match=why) as caught:
        measure(bad)
    assert "\n" not in str(caught.value)


# Two points a task. Task 0 dips to 0.3 and heals; task 1 dips to 0.5 and stays there.
CURVE = np.array(
    [
        [0.2, 0.0, 0.0],
        [0.9, 0.1, 0.0],
        [0.3, 0.6, 0.0],
        [0.8, 0.9, 0.1],
        [0.7, 0.6, 0.7],
        [0.8, 0.5, 0.9],
    ]
)
TASKS = np.array([0, 0, 1, 1, 2, 2])


def test_min_accuracy_sees_a_dip_that_has_healed():
    assert metrics.min_accuracy(CURVE, TASKS) == pytest.approx((0.3 + 0.5) / 2)


def test_min_accuracy_ignores_points_up_to_the_end_of_a_task():
    assert metrics.min_accuracy(CURVE[:4], TASKS[:4]) == pytest.approx(0.3)


def test_min_accuracy_leaves_out_the_task_being_learned():
    low = CURVE.copy()
    low[:, 2] = 0.0
    assert metrics.min_accuracy(low, TASKS) == metrics.min_accuracy(CURVE, TASKS)


def test_min_accuracy_of_the_first_task_alone_is_unknown():
    assert math.isnan(metrics.min_accuracy(CURVE[:2], TASKS[:2]))


def test_min_accuracy_leaves_its_arguments_as_they_were():
    curve, tasks = CURVE.copy(), TASKS.copy()
    curve.flags.writeable = tasks.flags.writeable = False
    metrics.min_accuracy(curve, tasks)
    np.testing.assert_array_equal(curve, CURVE)
    np.testing.assert_array_equal(tasks, TASKS)


@pytest.mark.parametrize(
    ("curve", "tasks", "why"),
    [
        (CURVE, TASKS[:-1], r"expected \(6,\) integers"),
        (CURVE, TASKS + 0.5, "integers"),
        (CURVE, TASKS + 1, r"expected 0\.\.2"),
        (CURVE, TASKS - 1, r"expected 0\.\.2"),
        (CURVE, TASKS[::-1], "sort the points by time"),
        (CURVE[:, 0], TASKS, r"expected \(S, T\)"),
        (CURVE[:0], TASKS[:0], r"expected \(S, T\)"),
        (CURVE * 100, TASKS, "divide percentages by 100"),
        (CURVE * np.nan, TASKS, "nan"),
    ],
)
def test_a_bad_curve_is_refused_in_one_line(curve, tasks, why):
    with pytest.raises(ValueError, match=why) as caught:
        metrics.min_accuracy(curve, tasks)
    assert "\n" not in str(caught.value)


def test_interval_of_two_seeds_matches_the_printed_t_table():
    found = metrics.interval([0.0, 2.0])  # mean 1, deviation sqrt(2), error 1, t = 12.706
    assert found == pytest.approx((1.0, 1.0, 1 - 12.706, 1 + 12.706), abs=1e-3)


def test_an_interval_is_written_with_its_mean_and_one_seed_as_its_mean_alone():
    assert f"{metrics.Interval(84.5, 0.5, 83.04, 85.96):.1f}" == "84.5 (83.0 to 86.0)"
    assert f"{metrics.Interval(2.5, 1.0, -0.5, 5.5):+.2f}" == "+2.50 (-0.50 to +5.50)"
    assert f"{metrics.interval([84.52]):.1f}" == "84.5"


def test_interval_of_five_seeds_matches_the_printed_t_table():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    values.flags.writeable = False
    error = math.sqrt(2.5 / 5)
    expected = (3.0, error, 3 - 2.7764 * error, 3 + 2.7764 * error)
    assert metrics.interval(values) == pytest.approx(expected, abs=1e-3)


def test_interval_covers_the_truth_nineteen_times_in_twenty():
    draws = np.random.default_rng(0).normal(0.7, 0.1, size=(1000, 4))
    covered = [found.low < 0.7 < found.high for found in map(metrics.interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_one_seed_says_nothing_of_its_spread():
    mean, *rest = metrics.interval([0.9])
    assert mean == 0.9
    assert np.isnan(rest).all()


@pytest.mark.parametrize("bad", [[], [0.5, math.nan], [math.inf], [[0.1, 0.2]]])
def test_interval_refuses_what_it_cannot_average(bad):
    with pytest.raises(ValueError, match="one a seed"):
        metrics.interval(bad)
