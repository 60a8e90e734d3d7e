"""Leaks of known size: copies are found out, fresh draws acquitted, intervals cover the truth."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn

from genreplay_core.data import Examples, Legend, identity, legend_for
from genreplay_core.generators import mlp_flow, mlp_vae, sample
from genreplay_core.nets import adam, cross_entropy, descend, mlp_solver
from genreplay_core.privacy import (
    GREY,
    Attack,
    attack,
    balanced,
    copied,
    distance_loss,
    leaks,
    nearest,
    negative_elbo,
    proximity,
    solver_loss,
)
from genreplay_core.seeds import seeded


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(rows: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, *shape, generator=rng(seed))


def noise(rows: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, *shape, generator=rng(seed))


@pytest.fixture(scope="module")
def digits() -> tuple[Examples, Examples]:
    """50 digits to train on and 1,000 never to be trained on, as bytes."""
    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x / 16 * 255).round().byte().view(-1, 1, 8, 8)
    everything = Examples(images, torch.tensor(y))[torch.randperm(len(y), generator=rng())]
    return everything[:50], everything[50:1050]


@pytest.fixture(scope="module")
def overfitted(digits) -> tuple[nn.Module, nn.Module]:
    """A solver and a conditional VAE that have seen 50 digits, and seen them often."""
    members = digits[0].to("cpu")
    with seeded(1):
        solver = mlp_solver((1, 8, 8), 10, hidden=64)
        vae = mlp_vae((1, 8, 8), classes=10, latent_dim=8, hidden=64)
        optimiser, plain = adam(solver.parameters()), torch.zeros(50, 10)
        target = torch.eye(10)[members.y] / 50
        for _ in range(400):
            descend(optimiser, cross_entropy(solver(members.x), target, plain))
            vae.train_step(members.x, members.y)
    return solver, vae


# ---------------------------------------------------------------- nearest


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_the_nearest_is_what_all_distances_say_whatever_the_chunk(chunk):
    queries, references = uniform(23, 2, 3), uniform(41, 2, 3, seed=1)
    table = (queries.double()[:, None] - references.double()).square().flatten(2).sum(2).sqrt()
    found = nearest(queries, references, chunk)
    assert torch.equal(found.row, table.argmin(1))
    assert found.distance.double() == pytest.approx(table.amin(1), rel=1e-6)


def test_a_copy_among_its_neighbours_has_distance_zero():
    original = uniform(1, 784)
    dot = torch.eye(784)[:3] * GREY / 8  # too small for a difference of squares of this size
    references = torch.cat([original + dot, original, uniform(50, 784, seed=1)])
    found = nearest(original, references)
    assert (float(found.distance), int(found.row)) == (0.0, 3)


def test_bytes_are_measured_in_units_of_their_full_range():
    black, white = torch.zeros(1, 4, dtype=torch.uint8), torch.full((1, 4), 255).byte()
    assert float(nearest(black, white).distance) == 2.0
    assert float(nearest(white, torch.ones(1, 4)).distance) == 0.0


# ---------------------------------------------------------------- copies and proximity


def test_copied_are_dreams_no_more_than_a_grey_level_away_in_any_pixel():
    train = torch.tensor([[0, 100], [200, 50]]).byte()
    dreams = torch.tensor([[0, 100], [1, 99], [200, 52], [100, 100]]).byte()
    assert copied(dreams, train) == 0.5
    assert copied(dreams / 255, train) == 0.5
    assert copied(dreams, train, tolerance=2 * GREY) == 0.75


def test_neighbouring_grey_levels_are_one_level_apart_wherever_they_lie():
    grey = torch.arange(256).byte().view(-1, 1)
    assert [k for k in range(255) if copied(grey[k : k + 1], grey[k + 1 : k + 2]) < 1] == []


def test_a_generator_that_returns_training_images_is_found_out():
    train, heldout = uniform(200, 9), uniform(200, 9, seed=1)
    found = proximity(train, train, heldout)
    assert (found.ratio, found.nearer, found.near) == (0.0, 1.0, 1.0)
    # each dream has an image of its own: 200 trials, none of which failed
    assert found.low == pytest.approx(200 / (200 + 1.959964**2))
    assert found.high == pytest.approx(1.0)
    assert copied(train, train) == 1.0


def test_one_that_returns_heldout_images_is_on_the_other_side():
    train, heldout = uniform(200, 9), uniform(200, 9, seed=1)
    found = proximity(heldout, train, heldout)
    assert (found.nearer, found.near_heldout, found.near) == (0.0, 1.0, 0.01)
    assert found.high == pytest.approx(1.959964**2 / (200 + 1.959964**2))


def test_fresh_draws_of_the_same_source_give_nothing_away():
    train, heldout, dreams = (uniform(1000, 5, seed=seed) for seed in range(3))
    found = proximity(dreams, train, heldout)
    assert found.ratio == pytest.approx(1.0, abs=0.06)
    assert found.low < 0.5 < found.high
    assert found.near == pytest.approx(found.near_heldout, abs=0.02)
    assert found.near == pytest.approx(0.01, abs=0.01)
    assert copied(dreams, train) == 0.0


def test_proximity_on_a_line_worked_out_by_hand():
    train, heldout = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.25], [0.375]])
    dreams = torch.tensor([[0.0], [0.0625], [0.125], [0.4375], [0.625], [1.0]])
    found = proximity(dreams, train, heldout, quantile=0.5)
    # distances to training 0 1 2 7 6 0 sixteenths, to held-out 4 3 2 1 4 10
    assert found.ratio == pytest.approx((1 / 3 + 1) / 2)
    assert found.nearer == 3.5 / 6
    # held-out images are 4 and 6 sixteenths from training, so "near" is below 5
    assert (found.near, found.near_heldout) == (4 / 6, 5 / 6)
    lowest = proximity(dreams, train, heldout, quantile=0.0)  # below 4
    assert (lowest.near, lowest.near_heldout) == (4 / 6, 3 / 6)
    # 2 dreams share an image, so do 2 others: 6^2 / (2^2 + 1 + 2^2 + 1) dreams that count
    n, z, p = 3.6, 1.959964, 3.5 / 6
    for bound in (found.low, found.high):  # where the score test is just at its limit
        assert (p - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / n)
    assert found.low < p < found.high


def test_dreams_equally_far_from_both_sides_are_nearer_to_neither():
    images = uniform(20, 4)
    found = proximity(images, images, images.clone())
    assert (found.ratio, found.nearer) == (1.0, 0.5)


def test_a_heldout_copy_leaves_the_ratio_finite():
    found = proximity(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1))
    assert found.ratio == pytest.approx(255)


def test_many_dreams_around_few_images_are_no_evidence():
    """Whether 1,000 dreams are nearer to 10 training images or to 10 others is mostly chance."""

    def covers(seed: int) -> bool:
        train, heldout = noise(10, 3, seed=2 * seed), noise(10, 3, seed=2 * seed + 1)
        found = proximity(noise(1000, 3, seed=1000 + seed), train, heldout)
        return found.low <= 0.5 <= found.high

    assert sum(covers(seed) for seed in range(100)) >= 93


def test_half_a_leak_is_seen():
    train, heldout, fresh = (uniform(300, 5, seed=seed) for seed in range(3))
    found = proximity(torch.cat([train[:150], fresh[:150]]), train, heldout)
    assert found.nearer == pytest.approx(0.75, abs=0.06)
    assert found.low > 0.6
    assert found.near > 0.5 > found.near_heldout


# ---------------------------------------------------------------- attack


def test_the_auc_is_that_of_scikit_learn_with_ties_counted_half():
    members, nonmembers = noise(30).mul(3).round(), noise(50, seed=1).mul(3).round() + 1
    truth = [1] * 30 + [0] * 50
    expected = roc_auc_score(truth, -torch.cat([members, nonmembers]).numpy())
    assert attack(members, nonmembers).auc == pytest.approx(expected)


def test_the_interval_of_a_small_attack_worked_out_by_hand():
    found = attack(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0, 3.0, 3.0]))
    # members beat 1 and 1/2 of the others, of variance 1/8; others are beaten by 1/2 1/2 1 1, 1/12
    assert found.auc == 0.75
    reach = 1.959964 * math.sqrt(1 / 8 / 2 + 1 / 12 / 4)
    assert found == Attack(0.75, pytest.approx(0.75 - reach), 1.0, 0.5)


def test_who_changes_sides_turns_the_attack_around():
    members, nonmembers = noise(40), noise(60, seed=1) + 1
    there, back = attack(members, nonmembers), attack(nonmembers, members)
    assert there.auc + back.auc == pytest.approx(1.0)
    assert there.low == pytest.approx(1 - back.high)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_covers_the_true_auc_about_as_often_as_it_says(shift):
    truth = norm.cdf(shift / math.sqrt(2))
    losses = noise(400, 2, 60)
    found = [attack(member - shift, other) for member, other in losses]
    assert 0.92 <= sum(a.low <= truth <= a.high for a in found) / 400 <= 0.98


@pytest.mark.parametrize(("others", "expected"), [(99, 0.0), (100, 0.5), (199, 0.5), (200, 1.0)])
def test_one_in_a_hundred_nonmembers_may_be_accused(others, expected):
    # two non-members have a lower loss than half, or than all, of the members
    nonmembers = torch.full((others,), 9.0)
    nonmembers[0], nonmembers[1] = 0.0, 2.0
    assert attack(torch.tensor([1.0, 3.0]), nonmembers).tpr == expected


def test_a_member_like_the_accused_is_not_told_from_them():
    assert attack(torch.tensor([1.0, 2.0]), torch.full((100,), 2.0)).tpr == 0.5


# ---------------------------------------------------------------- losses


def test_balanced_draws_as_many_of_each_class_from_both():
    members = Examples(
        torch.arange(12.0).view(12, 1) / 12, torch.tensor([0] * 6 + [1] * 4 + [3] * 2)
    )
    others = Examples(torch.arange(9.0).view(9, 1) / 9, torch.tensor([1] * 6 + [0] * 2 + [2]))
    kept, fresh = balanced(members, others, seed=3)
    assert kept.y.tolist() == fresh.y.tolist() == [0] * 2 + [1] * 4
    assert (kept.x < 0.5).flatten().tolist() == [True] * 2 + [False] * 4  # its own images
    assert len(kept.x.unique()) == 6  # each once
    again, other = balanced(members, others, seed=3), balanced(members, others, seed=4)
    assert torch.equal(again[1].x, fresh.x)
    assert not torch.equal(other[1].x, fresh.x)


def test_the_solver_loss_is_the_cross_entropy_among_the_outputs_that_compete():
    legend = legend_for("task", tasks=2, classes=2)
    solver = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        solver.weight.copy_(torch.eye(4) * 2)
    found = solver_loss(solver, Examples(torch.eye(4), torch.tensor([0, 1, 3, 2])), legend)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert found.tolist() == pytest.approx([right, right, wrong, wrong])


def test_without_a_legend_labels_are_outputs_and_confidence_is_not_rounded_away():
    solver = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        solver.weight.copy_(torch.eye(2) * 30)
    found = solver_loss(solver, Examples(torch.eye(2), torch.tensor([0, 1])))
    assert found.tolist() == pytest.approx([math.exp(-30)] * 2, rel=1e-2)


def test_losses_are_measured_in_eval_mode_and_do_not_depend_on_the_chunk(digits, overfitted):
    solver, vae = copy.deepcopy(overfitted)
    some = digits[1][:20].to("cpu")
    expected = (solver_loss(solver, some), negative_elbo(vae, some))
    solver, vae.encoder = (nn.Sequential(nn.Dropout(0.9), part) for part in (solver, vae.encoder))
    found = (solver_loss(solver.train(), some, chunk=7), negative_elbo(vae.train(), some, chunk=7))
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    assert all(part.training for network in (solver, vae) for part in network.modules())


@pytest.mark.parametrize("classes", [None, 3])
def test_the_elbo_is_the_loss_that_the_vae_is_trained_with(classes):
    with seeded(1):
        vae = mlp_vae((1, 4, 4), classes=classes, latent_dim=3, hidden=16)
    with torch.no_grad():  # an encoder that is sure of itself, so that the noise doesn't matter
        last = vae.encoder[-1][-1]
        last.weight[3:], last.bias[3:] = 0.0, -40.0
        if classes:
            vae.prior.copy_(noise(3, 6))
    examples = Examples(uniform(5, 1, 4, 4), torch.tensor([0, 1, 2, 2, 1]))
    weight = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])
    y = examples.y if classes else None
    expected = float(vae.loss(examples.x, y, weight).detach()) * 16
    assert float(weight @ negative_elbo(vae, examples)) == pytest.approx(expected, rel=1e-5)


def test_the_elbo_averages_over_its_draws():
    with seeded(1):
        vae = mlp_vae((1, 4, 4), latent_dim=3, hidden=16)
        vae.decoder[0][-1].weight.data.mul_(30)  # so that the latents matter
    one = Examples(uniform(1, 1, 4, 4), torch.zeros(1).long())
    with seeded(2), torch.no_grad():
        expected = float(vae.loss(one.x.expand(20_000, -1, -1, -1), None, torch.ones(20_000)))
    few, many = (
        torch.cat([negative_elbo(vae, one, draws, seed) for seed in range(100)])
        for draws in (1, 25)
    )
    assert float(many.mean()) == pytest.approx(expected * 16 / 20_000, rel=0.005)
    assert float(few.std() / many.std()) == pytest.approx(5, rel=0.2)


def test_the_distance_loss_finds_those_who_were_copied():
    members, others = uniform(40, 6), uniform(40, 6, seed=1)
    pair = [Examples(x, torch.zeros(40).long()) for x in (members, others)]
    assert distance_loss(members, pair[0]).tolist() == [0.0] * 40
    found = attack(*(distance_loss(members, part) for part in pair))
    assert (found.auc, found.tpr) == (1.0, 1.0)


def test_half_of_the_members_copied_is_an_auc_of_three_quarters():
    members, others = uniform(400, 8), uniform(400, 8, seed=1)
    losses = [nearest(x, members[:200]).distance for x in (members, others)]
    found = attack(*losses)
    assert found.auc == pytest.approx(0.75, abs=0.03)
    assert found.low < 0.75 < found.high
    assert found.tpr >= 0.5


# ---------------------------------------------------------------- all together


def test_a_store_of_examples_gives_all_of_them_away(digits):
    found = leaks(*digits, digits[0].x)
    assert found["dreams"] == found["examples"] == 50
    assert found["copied"] == 1.0
    assert found["proximity"]["ratio"] == 0.0
    assert found["attacks"]["distance"] == {"auc": 1.0, "low": 1.0, "high": 1.0, "tpr": 1.0}


def test_dreams_of_someone_who_never_saw_them_give_nothing_away(digits):
    members, rest = digits
    found = leaks(rest[:400], rest[400:], members.x)
    assert found["proximity"]["low"] < 0.5 < found["proximity"]["high"]
    assert found["attacks"]["distance"]["low"] < 0.5 < found["attacks"]["distance"]["high"]
    assert found["proximity"]["ratio"] == pytest.approx(1.0, abs=0.1)
    assert found["attacks"]["distance"]["auc"] == pytest.approx(0.5, abs=0.05)


def test_networks_that_learned_fifty_digits_by_heart_are_found_out(digits, overfitted):
    solver, vae = overfitted
    with seeded(3):
        dreams = sample(vae, 500, torch.arange(500) % 10)
    found = leaks(*digits, dreams, solver=solver, generator=vae)
    assert set(found["attacks"]) == {"distance", "solver", "generator"}
    assert all(one["low"] > 0.6 for one in found["attacks"].values())
    assert found["proximity"]["low"] > 0.5
    print(found)


def test_what_was_never_trained_has_nothing_to_tell(digits):
    with seeded(1):
        solver, vae = mlp_solver((1, 8, 8), 10, hidden=32), mlp_vae((1, 8, 8), hidden=32)
        dreams = sample(vae, 100)
    found = leaks(digits[1][:500], digits[1][500:], dreams, solver=solver, generator=vae)
    assert all(one["low"] < 0.5 < one["high"] for one in found["attacks"].values())
    assert found["copied"] == 0.0


def test_a_generator_without_a_known_loss_is_attacked_by_distance_only(digits):
    found = leaks(*digits, digits[1].x[:20], generator=mlp_flow((1, 8, 8), hidden=8))
    assert list(found["attacks"]) == ["distance"]


def test_all_members_are_searched_for_copies(digits):
    members, rest = digits
    found = leaks(rest, members, rest.x)  # a thousand members, of whom 50 are drawn
    assert found["examples"] == 50
    assert found["copied"] == 1.0
    assert found["proximity"]["near"] < 0.5


def test_the_same_seed_gives_the_same_bits_and_moves_nobody_elses(digits, overfitted):
    solver, vae = overfitted
    before = torch.random.get_rng_state()
    first, second, other = (
        leaks(*digits, digits[1].x[:99], solver=solver, generator=vae, seed=seed)
        for seed in (5, 5, 6)
    )
    assert json.dumps(first, allow_nan=False) == json.dumps(second)
    assert first != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_seed_draws_the_noise_of_the_elbo_too(digits, overfitted):
    pair = balanced(*digits)  # nothing is left to draw but the order and the noise
    here, there = (
        leaks(*pair, pair[0].x, generator=overfitted[1], seed=seed)["attacks"] for seed in (5, 6)
    )
    assert here["distance"] == there["distance"]
    assert here["generator"]["auc"] != pytest.approx(there["generator"]["auc"])


def test_the_legend_reaches_the_solver(digits, overfitted):
    turned = torch.arange(9, -1, -1)
    legend = Legend(identity(10).target[turned], identity(10).mask)
    mine, wrong = (
        leaks(*digits, digits[1].x[:9], solver=overfitted[0], legend=its)["attacks"]["solver"][
            "auc"
        ]
        for its in (identity(10), legend)
    )
    assert mine > 0.6 > wrong


# ---------------------------------------------------------------- bad input

ONES = torch.ones(3, 2)
PAIR = Examples(ONES, torch.zeros(3).long())


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: nearest(ONES, torch.ones(3, 4)), r"shapes \(3, 2\) and \(3, 4\)"),
        (lambda: nearest(torch.ones(3), torch.ones(3)), r"expected \(N, \*shape\)"),
        (lambda: nearest(ONES[:0], ONES), "give at least one image"),
        (lambda: nearest(ONES, ONES[:0]), "give at least one image"),
        (lambda: nearest(ONES, ONES / 0), "nan or infinity"),
        (lambda: nearest(ONES * torch.nan, ONES), "nan or infinity"),
        (lambda: proximity(ONES, ONES, ONES[:2]), "3 training and 2 held-out.*equally many"),
        (lambda: proximity(ONES, ONES, ONES, quantile=1.5), r"quantile is 1.5, .* \[0, 1\]"),
        (lambda: attack(ONES, ONES), r"shapes \(3, 2\) and \(3, 2\)"),
        (lambda: attack(torch.ones(1), torch.ones(2)), "two finite numbers or more"),
        (lambda: attack(torch.ones(2), torch.tensor([1, torch.nan])), "two finite numbers"),
        (lambda: balanced(PAIR, Examples(ONES, torch.ones(3).long())), "share no class"),
        (lambda: balanced(PAIR, Examples(ONES * 2, PAIR.y)), r"pixels lie in \[2, 2\]"),
        (lambda: negative_elbo(mlp_vae((2,)), PAIR, draws=0), "draws is 0, expected 1 or more"),
    ],
)
def test_bad_input_is_answered_in_one_line(call, line):
    with pytest.raises(ValueError, match=line) as error:
        call()
    assert "\n" not in str(error.value)
