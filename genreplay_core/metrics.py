"""Measures of continual learning, as pure functions of arrays of accuracies.

The accuracy matrix R has shape (T+1, T) and holds fractions in [0, 1]. Row i is the accuracy on
every task after learning i of them, so row 0 is the untrained solver; column j is task j, counted
from 0. The accuracy on task j right after it was learned is therefore R[j+1, j].

             task 0  task 1
    R = [[     0.10,   0.10],    untrained
         [     0.98,   0.12],    after task 0
         [     0.70,   0.96]]    after task 1

Every function takes anything that numpy reads as an array and leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A mean over seeds with its uncertainty, in the units of the values.

    f"{found:.1f}" reads "84.5 (83.0 to 86.0)"; the mean alone where one seed has no interval.
    """

    mean: float
    standard_error: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        reach = "" if np.isnan(self.low) else f" ({self.low:{spec}} to {self.high:{spec}})"
        return f"{self.mean:{spec}}{reach}"


def average_accuracy(R: ArrayLike) -> float:
    """Mean accuracy on all tasks after learning all of them: the mean of the last row, in [0, 1].

    ACC of Lopez-Paz and Ranzato (2017), Gradient episodic memory for continual learning.

    Raises:
        ValueError: R is not (T+1, T), or holds nan or a value outside [0, 1].
    """
    return float(_checked(R)[-1].mean())


def forgetting(R: ArrayLike) -> float:
    """How far each task but the last fell below its best, averaged over those tasks, in [-1, 1].

    Chaudhry, Dokania, Ajanthan and Torr (2018), Riemannian walk for incremental learning. The
    best is taken from the time the task was learned up to the end of the last task but one. A
    task that ends above it counts as negative forgetting; it isn't clipped to 0. With one task
    there is nothing to forget and the answer is 0.

    Raises:
        ValueError: R is not (T+1, T), or holds nan or a value outside [0, 1].
    """
    R = _checked(R)
    tasks = R.shape[1]
    return _mean([R[j + 1 : tasks, j].max() - R[tasks, j] for j in range(tasks - 1)])


def backward_transfer(R: ArrayLike) -> float:
    """What later tasks did to each task but the last, averaged over those tasks, in [-1, 1].

    BWT of Lopez-Paz and Ranzato (2017): accuracy at the end less accuracy right after learning.
    Negative when tasks are forgotten; 0 with one task.

    Raises:
        ValueError: R is not (T+1, T), or holds nan or a value outside [0, 1].
    """
    R = _checked(R)
    return _mean([R[-1, j] - R[j + 1, j] for j in range(R.shape[1] - 1)])


def forward_transfer(R: ArrayLike) -> float:
    """What earlier tasks did for each task but the first, averaged over those, in [-1, 1].

    FWT of Lopez-Paz and Ranzato (2017): accuracy just before learning a task less accuracy of the
    untrained solver, which is row 0. 0 with one task.

    Raises:
        ValueError: R is not (T+1, T), or holds nan or a value outside [0, 1].
    """
    R = _checked(R)
    return _mean([R[j, j] - R[0, j] for j in range(1, R.shape[1])])


def summary(R: ArrayLike) -> dict[str, float]:
    """The four measures above by name, ready for JSON."""
    measures = (average_accuracy, forgetting, backward_transfer, forward_transfer)
    return {measure.__name__: measure(R) for measure in measures}


def min_accuracy(curve: ArrayLike, tasks: ArrayLike) -> float:
    """The lowest accuracy each earlier task fell to once it was learned, averaged, in [0, 1].

    min-ACC of De Lange, van de Ven and Tuytelaars (2023), Continual evaluation for lifelong
    learning: identifying the stability gap. An accuracy matrix sees a task only after each task
    is over; this sees the dip in between, which may have healed by then.

    Args:
        curve: (S, T) accuracies on every task at S points along the stream, in [0, 1].
        tasks: (S,) the task being learned at each point, never decreasing. A point measured at
            the very end of a task belongs to that task.

    Returns:
        The mean over the tasks before the last one in `tasks`; nan if there is none.

    Raises:
        ValueError: a wrong shape; accuracies that are nan or outside [0, 1]; `tasks` that aren't
            whole numbers in 0..T-1 or go back to an earlier task.
    """
    curve, tasks = _fractions(curve, "curve"), np.asarray(tasks)
    if curve.ndim != 2 or curve.size == 0:
        raise ValueError(f"curve has shape {curve.shape}, expected (S, T): a row for each point")
    _check_tasks(tasks, *curve.shape)
    earlier = np.unique(tasks)[:-1]
    lowest = [curve[tasks > j, j].min() for j in earlier]
    return _mean(lowest) if lowest else float("nan")


def interval(values: Sequence[float] | Array) -> Interval:
    """Mean and 95 % confidence interval of one number measured with n seeds.

    Student's t interval: mean +- t * s / sqrt(n), with the sample deviation s (divided by n - 1)
    and t the 97.5 % point of the t distribution with n - 1 degrees of freedom.

    Args:
        values: (n,) finite numbers, one a seed.

    Returns:
        (mean, standard_error, low, high). One seed says nothing of its own spread, so with n = 1
        all but the mean are nan.

    Raises:
        ValueError: no value, more than one dimension, nan or infinity.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"values have shape {x.shape}, expected (n,) finite numbers, one a seed")
    mean, nan = float(x.mean()), float("nan")
    if len(x) == 1:
        return Interval(mean, nan, nan, nan)
    error = float(x.std(ddof=1) / np.sqrt(len(x)))
    reach = float(stats.t.ppf(0.975, len(x) - 1)) * error
    return Interval(mean, error, mean - reach, mean + reach)


def next_value(values: Sequence[float] | Array) -> tuple[float, float]:
    """The 95 % prediction interval: where one more value, measured with another seed, should lie.

    mean +- t * s * sqrt(1 + 1 / n), wider than `interval`, which is about the mean: a single value
    has its own luck beside the uncertainty of the mean.

    Args:
        values: (n,) finite numbers, one a seed.

    Returns:
        (low, high); both nan with one value.

    Raises:
        ValueError: no value, more than one dimension, nan or infinity.
    """
    mean, _, low, _ = interval(values)
    reach = (mean - low) * float(np.sqrt(len(values) + 1))
    return mean - reach, mean + reach


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _fractions(values: ArrayLike, name: str) -> Array:
    """The values as float64, or one line that says which of them is no fraction."""
    array = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any():
        raise ValueError(f"{name} contains nan: measure every task at every point")
    if array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(
            f"{name} lies in [{array.min():.3g}, {array.max():.3g}], expected [0, 1]: "
            "divide percentages by 100"
        )
    return array


def _checked(R: ArrayLike) -> Array:
    matrix = _fractions(R, "accuracy matrix")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] + 1 or matrix.shape[1] == 0:
        raise ValueError(
            f"accuracy matrix has shape {matrix.shape}, expected (T+1, T): "
            "the untrained solver's row, then one after each task"
        )
    return matrix


def _check_tasks(tasks: NDArray[np.generic], points: int, count: int) -> None:
    if tasks.shape != (points,) or not np.issubdtype(tasks.dtype, np.integer):
        raise ValueError(
            f"tasks are {tasks.dtype} of shape {tasks.shape}, expected ({points},) integers: "
            "the task being learned at each point of the curve"
        )
    if tasks.min() < 0 or tasks.max() >= count:
        raise ValueError(
            f"tasks lie in {tasks.min()}..{tasks.max()}, expected 0..{count - 1}: "
            "one number for each column of the curve"
        )
    if (np.diff(tasks) < 0).any():
        raise ValueError("tasks go back to an earlier one: sort the points by time")
