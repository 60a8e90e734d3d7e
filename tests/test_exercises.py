"""The exercises: hints for wrong answers, and nothing but "Right." for right ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genreplay_core import exercises
from genreplay_core.exercises import choice, function, number, verdict


@pytest.fixture
def one(monkeypatch):
    """Puts an exercise by the name of "e" among the others, and asks for the verdict."""

    def ask(exercise, answer):
        monkeypatch.setitem(exercises.EXERCISES, "e", exercise)
        return verdict("e", answer)

    return ask


HALF = number(0.5, "halve it", traps={2.0: "the other way round"})


@pytest.mark.parametrize("answer", [0.5, np.float32(0.5), torch.tensor(0.5), "0.5", 0.5004])
def test_a_number_is_right_to_within_its_tolerance(one, answer):
    assert one(HALF, answer) == "Right."


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (0.6, "Not yet: halve it."),
        (2, "Not yet: the other way round."),
        ("half", "Not yet: a number is wanted."),
        (None, "Not yet: a number is wanted."),
        (float("nan"), "Not yet: halve it."),
        (..., "No answer yet: put yours in place of the three dots, and run the cell again."),
    ],
)
def test_another_answer_gets_its_hint(one, answer, said):
    assert one(HALF, answer) == said


def test_zero_can_be_right(one):
    assert one(number(0, "none"), 0) == "Right."
    assert one(number(0, "none"), 0.1) == "Not yet: none."


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("up", "Right."),
        ("down", "Not yet: look again."),
        ("left", "Not yet: choose one of 'down', 'up'."),
        (3, "Not yet: choose one of 'down', 'up'."),
    ],
)
def test_a_word_is_chosen(one, answer, said):
    assert one(choice("up", {"down": "look again"}), answer) == said


DOUBLE = function(lambda x: 2 * np.asarray(x), [([1.0, 2.0],), ([0.5],)], "twice as much")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: [v + v for v in x], "Right."),
        (lambda x: 2 * torch.tensor(x), "Right."),
        (lambda x: x, "Not yet: twice as much."),
        (lambda x: 1.0, "Not yet: it returns something of shape (), expected (2,)."),
        (lambda: 0, "Not yet: your code stops with TypeError: "),
        (2.0, "Not yet: a function is wanted: give its name, without calling it."),
    ],
)
def test_a_function_must_do_what_the_reference_does(one, answer, said):
    assert one(DOUBLE, answer).startswith(said)


def test_an_exercise_that_is_not_there_is_one_line():
    with pytest.raises(ValueError, match="there is no exercise 'nothing'"):
        verdict("nothing", 1)


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_no_answer_is_never_right(name):
    assert verdict(name, ...).startswith("No answer yet")
    assert verdict(name, "no such answer").startswith("Not yet")
