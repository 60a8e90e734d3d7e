"""Public tests of the fifth assignment. A part is done when all tests of it pass."""

import math

from genreplay_core.course import close, expect, mistake
from genreplay_core.metrics import interval

A, B = [0.71, 0.64, 0.80, 0.69], [0.65, 0.60, 0.77, 0.70]


def test_5a_pairs_are_subtracted_seed_by_seed(adapters):
    wanted = interval([a - b for a, b in zip(A, B, strict=True)])
    found = adapters.paired_interval(A, B)
    expect(len(found) == 3, "three numbers: the mean, the low end and the high end")
    close(found[0], wanted.mean, "first comes the mean of the differences, a - b")
    reach = wanted.high - wanted.mean
    factors = {
        "few seeds need Student's t, not 1.96": 1.96 / 3.182446,
        "t at 0.975, so that 2.5 % are left out on each side": 2.353363 / 3.182446,
        "the standard deviation has n - 1 in the denominator": math.sqrt(3 / 4),
        "divide the standard deviation by the square root of n": 2.0,
    }
    made = {idea: [wanted.mean - f * reach, wanted.mean + f * reach] for idea, f in factors.items()}
    idea = "mean -+ t * s / sqrt(n) of the *differences*, s with n - 1, t with n - 1 too"
    close(found[1:], [wanted.low, wanted.high], mistake(found[1:], made, idea))


def test_5a_what_a_seed_does_to_both_drops_out(adapters):
    luck = [0.0, 0.2, -0.3, 0.1]
    moved = [[x + more for x, more in zip(arm, luck, strict=True)] for arm in (A, B)]
    idea = "a seed's luck, which both arms share, widens your interval: subtract before you average"
    close(adapters.paired_interval(*moved), adapters.paired_interval(A, B), idea)


def arms(first, second):
    return {
        "one": {"config": {"labels": "soft"}, "accuracy": first},
        "other": {"config": {"labels": "hard"}, "accuracy": second},
    }


def test_5b_the_record_holds_all_that_the_claim_rests_on(adapters):
    given = arms({"0": 0.7, "1": 0.8, "2": 0.75}, {"0": 0.6, "1": 0.75, "2": 0.7})
    found = adapters.study_record("Which?", given, "The one.", 0.01)
    expect(found["question"] == "Which?" and found["arms"] == given, "question and arms, as given")
    wanted = interval([0.1, 0.05, 0.05])
    told = [found["difference"][key] for key in ("mean", "low", "high")]
    close(told, [wanted.mean, wanted.low, wanted.high], "the first arm minus the second")
    claim = found["claim"]
    expect(claim["says"] == "The one." and claim["above"] == 0.01, "the claim, as given")


def test_5b_a_claim_holds_if_the_whole_interval_lies_above(adapters):
    given = arms({"0": 0.7, "1": 0.8, "2": 0.75}, {"0": 0.6, "1": 0.75, "2": 0.7})
    told = interval([0.1, 0.05, 0.05])
    low, high = told.low, told.high
    for above in (low - 0.01, low + 0.01, high + 0.01):
        claim = adapters.study_record("Which?", given, "The one.", above)["claim"]
        expect(claim["holds"] is (low > above), "True if `low` is more than `above`, else False")


def test_5b_your_study_is_there(adapters):
    found = adapters.record()
    expect(len(found["arms"]) == 2, "study.json: an ablation compares two arms")
    first, second = found["arms"].values()
    seeds = list(first["accuracy"])
    expect(len(seeds) >= 5, "study.json: at least five seeds; one or two are an anecdote")
    idea = "study.json: the arms have different seeds, so they can't be paired"
    expect(set(seeds) == set(second["accuracy"]), idea)
    one, other = first["config"], second["config"]
    changed = [k for k in {**one, **other} if one.get(k) != other.get(k)]
    expect(len(changed) == 1, f"study.json: arms differ in one thing, yours in {changed}")


def test_5b_your_study_s_numbers_follow_from_its_runs(adapters):
    found = adapters.record()
    first, second = (arm["accuracy"] for arm in found["arms"].values())
    idea = "study.json: accuracies are fractions"
    expect(all(0 <= v <= 1 for arm in (first, second) for v in arm.values()), idea)
    wanted = interval([first[seed] - second[seed] for seed in first])
    told = [found["difference"][key] for key in ("mean", "low", "high")]
    idea = "study.json: the interval doesn't follow from the accuracies: run its cell again"
    close(told, [wanted.mean, wanted.low, wanted.high], idea)
    claim = found["claim"]
    expect(claim["holds"] is (wanted.low > claim["above"]), "study.json: does the claim hold?")
    idea = "study.json: what you claim doesn't hold by your own numbers: claim what does"
    expect(claim["holds"] and math.isfinite(claim["above"]), idea)
