"""The graders' tests of the fifth assignment: other numbers and edges."""

import numpy as np

from genreplay_core.course import close, expect
from genreplay_core.metrics import interval


def test_5a_random_pairs(adapters):
    for n in (2, 3, 9, 40):
        a, b = np.random.default_rng(n).uniform(size=(2, n)).tolist()
        wanted = interval(np.subtract(a, b))
        idea = f"with {n} seeds: mean -+ t * s / sqrt(n) of the differences, t and s with n - 1"
        close(adapters.paired_interval(a, b), [wanted.mean, wanted.low, wanted.high], idea)


def test_5b_seeds_are_paired_by_name(adapters):
    first = {"3": 0.9, "1": 0.5, "2": 0.6}
    second = {"1": 0.4, "2": 0.6, "3": 0.7}
    arms = {
        "one": {"config": {"steps": 1}, "accuracy": first},
        "other": {"config": {"steps": 2}, "accuracy": second},
    }
    found = adapters.study_record("Which?", arms, "The one.", -1.0)
    wanted = interval([0.2, 0.1, 0.0])
    close(found["difference"]["low"], wanted.low, "pair the arms by seed, not by place")
    expect(found["claim"]["holds"] is True, "it holds if the whole interval lies above")


def test_5b_the_interval_is_that_of_the_function_that_is_passed_in(adapters):
    arms = {
        "one": {"config": {"steps": 1}, "accuracy": {"0": 0.7, "1": 0.8}},
        "other": {"config": {"steps": 2}, "accuracy": {"0": 0.6, "1": 0.75}},
    }
    found = adapters.study_record("Which?", arms, "The one.", 0.0, 3.0)
    told = interval([0.1, 0.05])
    idea = "the interval comes from the function that is passed in, whichever that is"
    close(found["difference"]["low"], told.mean - 3 * (told.mean - told.low), idea)


def test_5b_what_can_t_be_paired_is_refused(adapters):
    def arm(*seeds):
        return {"config": {}, "accuracy": {str(seed): 0.5 for seed in seeds}}

    idea = "arms with different seeds, or more than two: raise ValueError"
    expect(adapters.refuses({"a": arm(0, 1), "b": arm(0, 2)}), idea)
    expect(adapters.refuses({"a": arm(0, 1), "b": arm(0, 1, 2)}), idea)
    expect(adapters.refuses({"a": arm(0), "b": arm(0), "c": arm(0)}), idea)
