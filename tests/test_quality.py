"""The scores against closed forms and constructed sets, the judge on real digits."""

from __future__ import annotations

import json

import pytest
import torch
from sklearn.datasets import load_digits

from genreplay_core.data import Examples
from genreplay_core.quality import Judge, assess, frechet, histogram, judge, precision_recall

MET = torch.arange(5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, dtype=torch.float64, generator=seeded(seed))


@pytest.fixture(scope="module")
def digits() -> tuple[Examples, Examples]:
    """1,000 and 400 of scikit-learn's digits, shuffled because the file is sorted by writer."""
    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    everything = Examples(images, torch.tensor(y))[torch.randperm(len(y), generator=seeded())]
    return everything[:1000], everything[1000:1400]


@pytest.fixture(scope="module")
def jury(digits) -> Judge:
    return judge(digits[0], codes=10, seed=1, steps=300)


# ---------------------------------------------------------------- frechet


def test_frechet_of_a_shift_is_the_square_of_its_length():
    a = gaussian(50, 3)
    assert frechet(a, a + torch.tensor([1.0, -2.0, 2.0])) == pytest.approx(9.0)


def test_frechet_of_a_stretch_is_the_squared_change_of_each_deviation():
    a = gaussian(50, 3)
    a = torch.linalg.qr(a - a.mean(0))[0] * torch.tensor([7.0, 14.0, 21.0])  # uncorrelated columns
    stretch = torch.tensor([1.0, 3.0, 0.5])
    expected = float(((1 - stretch) ** 2 * a.var(0)).sum())
    assert frechet(a, a * stretch) == pytest.approx(expected)


def test_frechet_in_the_plane_matches_the_root_of_a_two_by_two_matrix():
    a, b = gaussian(40, 2), gaussian(60, 2, 1) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]).double()
    product = a.T.cov() @ b.T.cov()
    root_trace = (product.trace() + 2 * product.det().sqrt()).sqrt()  # Cayley and Hamilton
    expected = (a.mean(0) - b.mean(0)).square().sum()
    expected = expected + a.T.cov().trace() + b.T.cov().trace() - 2 * root_trace
    assert frechet(a, b) == pytest.approx(float(expected))


def test_frechet_is_symmetric_and_ignores_the_order_of_rows():
    a, b = gaussian(40, 6), 2 * gaussian(30, 6, 1) + 1
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-12)
    assert frechet(a.flip(0), b) == pytest.approx(frechet(a, b), rel=1e-12)


@pytest.mark.parametrize("rank", [1, 20, 64])
def test_frechet_of_equal_sets_is_zero_even_when_features_are_idle(rank):
    a = 10 * gaussian(200, rank) @ gaussian(rank, 64, 1)
    assert frechet(a, a.clone()) == pytest.approx(0.0, abs=1e-12 * float(a.var(0).sum()))


def test_frechet_feels_a_small_shift_of_large_features_that_are_partly_idle():
    a = 10 * gaussian(200, 20) @ gaussian(20, 64, 1)
    assert frechet(a, a + 0.01) == pytest.approx(64 * 0.01**2, rel=1e-5)


def test_frechet_works_on_a_single_feature():
    assert frechet(torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [7.0]])) == 25.0


# ---------------------------------------------------------------- precision and recall


def test_identical_sets_have_full_precision_and_recall():
    a = gaussian(30, 4).float()
    assert precision_recall(a, a.clone()) == (1.0, 1.0)


def test_a_dropped_mode_costs_recall_only():
    near, far = gaussian(20, 2), gaussian(20, 2, 1) + 100
    assert precision_recall(torch.cat([near, far]), near) == (1.0, 0.5)


def test_an_invented_mode_costs_precision_only():
    near, far = gaussian(20, 2), gaussian(60, 2, 1) + 100
    assert precision_recall(near, torch.cat([near, far])) == (0.25, 1.0)


def test_dreams_far_from_anything_real_have_neither():
    assert precision_recall(gaussian(20, 2), gaussian(20, 2, 1) + 100) == (0.0, 0.0)


def test_rows_that_occur_many_times_still_cover_themselves():
    a = gaussian(20, 4).repeat(5, 1)  # every ball has radius 0
    assert precision_recall(a, a.flip(0)) == (1.0, 1.0)


def test_precision_and_recall_do_not_depend_on_where_the_features_lie():
    grid = 2.0**20  # multiples of 1 / grid stay exact so far out
    real, fake = ((x * grid).round() / grid for x in (gaussian(50, 3), gaussian(40, 3, 1) + 1))
    here = precision_recall(real, fake)
    assert precision_recall(real + 2.0**24, fake + 2.0**24) == here


@pytest.mark.parametrize(("k", "expected"), [(1, (0.5, 0.25)), (2, (0.5, 1.0))])
def test_precision_and_recall_on_a_line_worked_out_by_hand(k, expected):
    # k = 1: reals reach 1; fakes reach 0.4, 0.4, 0.5, 0.5, so only the real 1 is covered.
    # k = 2: the fakes' second neighbours are 9 and more away, so all reals are covered.
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    fake = torch.tensor([[0.5], [0.9], [10.0], [10.5]])
    assert precision_recall(real, fake, k) == expected


def test_precision_and_recall_do_not_depend_on_chunks(monkeypatch):
    real, fake = gaussian(50, 3), gaussian(40, 3, 1) + 1
    whole = precision_recall(real, fake)
    monkeypatch.setattr("genreplay_core.quality.CHUNK", 7)
    assert precision_recall(real, fake) == whole
    assert 0 < min(whole) < 1


# ---------------------------------------------------------------- bad features


@pytest.mark.parametrize("score", [frechet, precision_recall])
@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (torch.zeros(1, 3), torch.zeros(9, 3), "expected at least"),
        (torch.zeros(9, 3), torch.zeros(0, 3), "expected at least"),
        (torch.zeros(9, 3), torch.zeros(9, 4), r"expected \(N, F\) and \(M, F\)"),
        (torch.zeros(9), torch.zeros(9), r"expected \(N, F\) and \(M, F\)"),
        (torch.zeros(9, 3), torch.full((9, 3), torch.nan), "nan"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(score, a, b, why):
    with pytest.raises(ValueError, match=why):
        score(a, b)


def test_k_neighbours_need_k_plus_one_rows():
    a = gaussian(4, 2)
    precision_recall(a, a, k=3)
    with pytest.raises(ValueError, match="at least 5 of each"):
        precision_recall(a, a, k=4)
    with pytest.raises(ValueError, match="1 or more"):
        precision_recall(a, a, k=0)


# ---------------------------------------------------------------- histogram


def test_histogram_counts_each_class_and_those_never_seen():
    assert histogram(torch.tensor([0, 2, 2, 2]), 4) == [0.25, 0.0, 0.75, 0.0]


@pytest.mark.parametrize("code", [[], [0, 4], [-1]])
def test_histogram_refuses_codes_out_of_range(code):
    with pytest.raises(ValueError, match=r"0\.\.3"):
        histogram(torch.tensor(code, dtype=torch.int64), 4)


# ---------------------------------------------------------------- judge


def test_the_judge_knows_digits_it_was_not_trained_on(jury, digits):
    test = digits[1]
    answers = jury.classify(test.x)
    assert answers.dtype == torch.int64
    assert (answers == test.y).double().mean() > 0.9


def test_flat_data_get_a_judge_too(digits):
    train, test = (Examples(part.x.flatten(1), part.y) for part in digits)
    flat = judge(train, codes=10, steps=300)
    assert (flat.classify(test.x) == test.y).double().mean() > 0.9


def test_the_same_seed_gives_the_same_bits_whatever_the_callers_state(digits):
    torch.manual_seed(5)
    one = judge(digits[0], codes=10, seed=3, steps=5)
    torch.manual_seed(6)
    two = judge(digits[0], codes=10, seed=3, steps=5)
    other = judge(digits[0], codes=10, seed=4, steps=5)
    assert torch.equal(one.reference, two.reference)
    assert torch.equal(one.head.weight, two.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.reference_code, other.reference_code)


def test_the_callers_random_numbers_are_left_alone(digits):
    before = torch.get_rng_state()
    judge(digits[0], codes=10, seed=3, steps=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_bytes_and_fractions_are_judged_alike(digits):
    pixels = (digits[0].x * 255).byte()
    as_bytes = judge(Examples(pixels, digits[0].y), codes=10, steps=5)
    as_fractions = judge(Examples(pixels / 255, digits[0].y), codes=10, steps=5)
    assert torch.equal(as_bytes.reference, as_fractions.reference)
    assert torch.equal(as_bytes.features(pixels), as_bytes.features(pixels / 255))


def test_the_reference_is_each_real_row_with_its_own_code(jury, digits):
    train = digits[0]
    assert jury.reference.shape == (1000, 64)
    features = jury.features(train.x)
    nearest = torch.cdist(jury.reference, features).argmin(1)
    torch.testing.assert_close(features[nearest], jury.reference)
    assert torch.equal(train.y[nearest], jury.reference_code)


def test_the_reference_stops_at_two_thousand_rows(digits):
    train = digits[0]
    thrice = Examples(train.x.repeat(3, 1, 1, 1), train.y.repeat(3))
    small = judge(thrice, codes=10, steps=0)
    assert small.reference.shape[0] == small.reference_code.shape[0] == 2000


def test_features_do_not_depend_on_chunks_and_carry_no_gradient(jury, digits, monkeypatch):
    x = digits[1].x.clone().requires_grad_()
    whole = jury.features(x)
    monkeypatch.setattr("genreplay_core.quality.CHUNK", 100)
    torch.testing.assert_close(jury.features(x), whole)
    assert not whole.requires_grad
    assert not any(p.requires_grad for p in [*jury.body.parameters(), *jury.head.parameters()])
    assert not jury.body.training


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 9, 13), (1, 28, 28), (1, 7, 7), (2,)])
def test_a_judge_takes_images_of_any_shape(shape):
    x = torch.rand(10, *shape, generator=seeded())
    assert judge(Examples(x, torch.arange(10)), codes=12, steps=1).features(x).shape == (10, 64)


def test_what_a_judge_cannot_use_is_refused(jury, digits):
    with pytest.raises(ValueError, match=r"class code 9 is out of range 0\.\.8"):
        judge(digits[0], codes=9)
    with pytest.raises(ValueError, match="trained on those"):
        jury.features(torch.zeros(2, 64))


# ---------------------------------------------------------------- assess


def of_classes(examples: Examples, codes: torch.Tensor) -> Examples:
    return examples[torch.isin(examples.y, codes)]


def test_real_images_of_the_classes_met_make_excellent_dreams(jury, digits):
    real = of_classes(digits[1], MET)
    found = assess(jury, real.x, jury.classify(real.x), MET, wanted=torch.arange(10))
    assert found["precision"] > 0.85
    assert found["recall"] > 0.7
    assert found["label_agreement"] == 1.0
    assert found["class_histogram"] == histogram(jury.classify(real.x), 10)


def test_real_rows_come_only_from_the_classes_met(jury, digits):
    dreams, codes = of_classes(digits[1], MET), 10
    known = jury.reference[jury.reference_code < 5]
    found = assess(jury, dreams.x, dreams.y, MET, torch.arange(codes))
    assert found["frechet"] == frechet(known, jury.features(dreams.x))
    later = assess(jury, dreams.x, dreams.y, torch.arange(5, 10), torch.arange(codes))
    assert later["frechet"] > 3 * found["frechet"]
    assert later["precision"] < 0.5 < found["precision"]


def test_noise_makes_bad_dreams(jury, digits):
    real = of_classes(digits[1], MET)
    noise = torch.rand(real.x.shape, generator=seeded())
    good, bad = (assess(jury, x, real.y, MET, wanted=torch.arange(10)) for x in (real.x, noise))
    assert bad["frechet"] > 3 * good["frechet"]
    assert bad["precision"] < good["precision"]
    assert bad["recall"] < good["recall"]
    assert bad["label_agreement"] < 0.5 < good["label_agreement"]


def test_a_generator_that_forgot_a_class_loses_recall_but_not_precision(jury, digits):
    two = of_classes(digits[1], torch.tensor([0, 1]))
    found = assess(jury, two.x, two.y, MET, wanted=torch.arange(10))
    assert found["precision"] > 0.8
    assert found["recall"] < 0.5
    assert sum(found["class_histogram"][2:]) < 0.2


def test_label_agreement_counts_the_dreams_called_the_same(jury, digits):
    x = digits[1].x[:8]
    labels = jury.classify(x)
    labels[:2] = (labels[:2] + 1) % 10
    assert (
        assess(jury, x, labels, torch.arange(10), wanted=torch.arange(10))["label_agreement"]
        == 0.75
    )


def test_an_assessment_is_ready_for_json(jury, digits):
    found = assess(jury, digits[1].x, digits[1].y, torch.arange(10), wanted=torch.arange(10))
    assert json.loads(json.dumps(found)) == found
    assert list(found) == ["frechet", "precision", "recall", "class_histogram", "label_agreement"]


@pytest.mark.parametrize(
    ("rows", "labels", "met", "why"),
    [
        (3, 3, MET, "at least 4 of each"),
        (0, 0, MET, "at least 4 of each"),
        (9, 9, torch.tensor([17]), "at least 4 of each"),
        (9, 8, MET, "one a dream"),
    ],
)
def test_dreams_that_cannot_be_assessed_are_refused(jury, rows, labels, met, why):
    with pytest.raises(ValueError, match=why):
        assess(
            jury,
            torch.zeros(rows, 1, 8, 8),
            torch.zeros(labels, dtype=int),
            met,
            wanted=torch.arange(10),
        )


def test_dreams_of_a_generator_that_diverged_are_refused(jury):
    dreams = torch.full((9, 1, 8, 8), torch.nan)
    with pytest.raises(ValueError, match="nan"):
        assess(jury, dreams, torch.zeros(9, dtype=torch.int64), MET, wanted=torch.arange(10))


def test_codes_that_share_an_output_agree_on_it(jury, digits):
    x = digits[1].x[:50]
    parity = torch.arange(10) % 2  # as in a domain-incremental stream
    found = assess(jury, x, jury.classify(x) % 2, torch.arange(10), parity)
    assert found["label_agreement"] == 1
