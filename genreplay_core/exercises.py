"""What `book.check` knows of the book's exercises: of each answer, whether it is right, or a hint.

An exercise is a function from an answer to the hint that this answer calls for, or to None if it
is right; `EXERCISES` has them by name. To add one, add a line there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Exercise = Callable[[Any], str | None]


# ---------------------------------------------------------------- kinds of exercises


def number(
    right: float, hint: str, within: float = 1e-3, traps: Mapping[float, str] | None = None
) -> Exercise:
    """A number, right to within a part of itself. traps: wrong numbers -> hints of their own."""

    def wrong(answer: Any) -> str | None:
        try:
            given = float(answer)
        except (TypeError, ValueError):
            return "a number is wanted"
        for value, own in {right: None, **(traps or {})}.items():
            if abs(given - value) <= within * max(abs(value), 1e-9):
                return own
        return hint

    return wrong


def choice(right: str, others: Mapping[str, str]) -> Exercise:
    """One of some words. others: the wrong ones -> hints."""

    def wrong(answer: Any) -> str | None:
        if answer == right:
            return None
        words = ", ".join(repr(word) for word in sorted({right, *others}))
        return others.get(answer, f"choose one of {words}")

    return wrong


def function(like: Callable[..., Any], cases: Sequence[tuple], hint: str) -> Exercise:
    """A function that returns what `like` returns, to within rounding."""

    def wrong(answer: Any) -> str | None:
        if not callable(answer):
            return "a function is wanted: give its name, without calling it"
        for case in cases:
            wanted, found = (np.asarray(f(*case), dtype=np.float64) for f in (like, answer))
            if wanted.shape != found.shape:
                return f"it returns something of shape {found.shape}, expected {wanted.shape}"
            if not np.allclose(wanted, found, rtol=1e-4, atol=1e-6):
                return hint
        return None

    return wrong


# ---------------------------------------------------------------- the exercises

ONES, TWOS = np.ones((2, 2)), np.array([[2.0, 2.0], [2.0, 2.0 + 1e-6]])

EXERCISES: dict[str, Exercise] = {
    "forgetting-1": number(
        1 / 10,
        "one task of ten is known, and nothing of the others",
        traps={1 / 5: "that is the stream of five tasks; ten of one class were asked for"},
    ),
    "forgetting-2": function(
        lambda curve: max(curve) - curve[-1],
        [([0.0, 0.9, 0.4],), ([0.2, 0.3, 0.8],), ([0.9, 0.7, 0.8, 0.1],)],
        "take the best that was ever reached, and the last",
    ),
    "forgetting-3": choice(
        "most",
        {
            "none": "try it: random features are better than one thinks",
            "more": "training on all five tasks in turn did leave something",
        },
    ),
    "generative-replay-1": number(
        3.0,
        "the dreams share 1 - r, the new images r, and both are as many",
        traps={0.75: "that is the part of all dreams together", 1 / 3: "the other way round"},
    ),
    "generative-replay-2": choice(
        "they follow the new network",
        {
            "nothing": "who labels the dreams, if the copy is renewed after each step?",
            "they get better": "better at what? They agree with the network that is forgetting",
        },
    ),
    "generative-replay-3": function(
        lambda t, new, dreams: [1 / t / new] * new + [(1 - 1 / t) / dreams] * dreams,
        [(1, 2, 3), (2, 4, 4), (5, 1, 3)],
        "the new rows share 1/t evenly, the dreams the rest",
    ),
    "four-mistakes-1": number(
        2 / 3,
        "count rows: for each new one there is half a dream",
        traps={0.1: "that is 1/t, which head count doesn't know", 0.5: "that is as many dreams"},
    ),
    "four-mistakes-2": choice(
        "drift",
        {
            "stay as they are": "what holds them, if they are only held against a step ago?",
            "get sharper": "nobody shows them a sharper image of the old tasks",
        },
    ),
    "four-mistakes-3": function(
        lambda before, after: int(all((a == b).all() for a, b in zip(before, after, strict=True))),
        [([ONES], [ONES]), ([ONES, TWOS], [ONES, 2 * ONES]), ([TWOS, ONES], [TWOS, ONES])],
        "every number of every array must be the very same",
    ),
}


def verdict(name: str, answer: Any) -> str:
    """Right, or a hint.

    Raises:
        ValueError: there is no such exercise.
    """
    if name not in EXERCISES:
        raise ValueError(f"there is no exercise '{name}'")
    if answer is ...:
        return "No answer yet: put yours in place of the three dots, and run the cell again."
    try:
        hint = EXERCISES[name](answer)
    except Exception as error:  # the reader's own code may do anything
        hint = f"your code stops with {type(error).__name__}: {error}"
    return "Right." if hint is None else f"Not yet: {hint}."
