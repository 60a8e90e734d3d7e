"""The scholars that dream on the site: how they are rounded, and the ones that are stored."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from genreplay_core import mlp_solver, mlp_vae
from genreplay_core.course import module
from genreplay_core.generators import dream
from genreplay_core.nets import mlp

FOLDER = Path(__file__).resolve().parents[1] / "book" / "dreamer"


train = module(FOLDER / "train.py")


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads((FOLDER / "scholars.json").read_text())


def dreamt(scholar: dict, digit: int, z: list[float]) -> torch.Tensor:
    """A dream (pixels,) of a stored scholar, as the page makes it."""
    mean, deviation = (
        train.numbers(scholar[part], "float32").view(10, -1)[digit]
        for part in ("mean", "deviation")
    )
    code = torch.eye(10)[digit]
    with torch.no_grad():
        latents = mean + deviation * torch.tensor(z)
        return train.restored(scholar["decoder"])(torch.cat([latents, code])).sigmoid()


def read(scholar: dict, pixels: torch.Tensor) -> torch.Tensor:
    """The stored solver's probabilities (10,)."""
    with torch.no_grad():
        return train.restored(scholar["solver"])(pixels).softmax(0)


# ---------------------------------------------------------------- rounding


@pytest.mark.parametrize("kind", ["float32", "int8", "uint8"])
def test_numbers_come_back_from_their_text(kind):
    given = torch.tensor([-100, 0, 1, 127]).abs().to(getattr(torch, kind))
    assert torch.equal(train.numbers(train.text(given), kind), given)


def test_the_text_is_the_bytes_with_the_least_significant_first():
    assert train.text(torch.tensor([1.0])) == "AACAPw=="  # 00 00 80 3f


def test_a_weight_is_off_by_half_a_step_of_its_row_at_most():
    torch.manual_seed(0)
    weight = torch.randn(5, 7) * torch.tensor([1e-3, 1.0, 50.0, 0.0, 1.0]).unsqueeze(1)
    layer, bias = torch.nn.Linear(7, 5), torch.randn(5)
    layer.weight.data, layer.bias.data = weight, bias
    (found,) = train.restored(train.quantised(layer))
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((found.weight - weight).abs() <= 0.5001 * step).all()
    assert torch.equal(found.bias, bias)
    assert torch.equal(found.weight[3], torch.zeros(7))


def test_weights_that_are_on_the_steps_make_the_same_network():
    network = mlp([3, 4, 2])
    for part in (network[0], network[2]):
        part.weight.data = torch.randint(-127, 128, part.weight.shape) / 64
        part.weight.data[:, 0] = 127 / 64
    x = torch.randn(6, 3)
    assert torch.allclose(train.restored(train.quantised(network))(x), network(x), atol=1e-6)


def test_a_frozen_scholar_dreams_and_answers_as_the_networks_do():
    torch.manual_seed(0)
    vae, solver = mlp_vae((1, 4, 4), 10, latent_dim=3, hidden=8), mlp_solver((1, 4, 4), 10, 8)
    vae.prior.data = torch.randn_like(vae.prior)  # each class its own
    kept = train.frozen(vae, solver)
    for digit in range(10):
        z = torch.randn(3)
        x = dream(vae, z.unsqueeze(0), torch.tensor([digit]))
        found = dreamt(kept, digit, z.tolist())
        assert torch.allclose(found, x.flatten(), atol=0.01)
        assert torch.allclose(read(kept, x.flatten()), solver(x).softmax(1)[0], atol=0.01)


# ---------------------------------------------------------------- drawing


def test_random_numbers_are_those_of_mulberry32():
    known = [0.6270739405881613, 0.002735721180215478, 0.5274470399599522]  # of seed 1
    assert train.uniform(1, 3) == known


def test_latents_are_normal_tenths_by_number():
    z = torch.tensor([train.latents(number, 16) for number in range(1, 2001)])
    assert z.mean().abs() < 0.03
    assert z.std().sub(1).abs() < 0.03
    assert z.abs().max() == 3
    assert torch.allclose(z * 10, (z * 10).round())
    assert train.latents(0, 3) == [0, 0, 0]
    assert train.latents(7, 16) == train.latents(7, 20)[:16]


def test_the_sliders_move_what_changes_the_image_most():
    vae = mlp_vae((1, 4, 4), 2, latent_dim=4, hidden=8)
    weight = vae.decoder[0][0].weight.data
    weight[:, :4] *= torch.tensor([0.01, 2.0, 0.0, 0.3])
    assert train.strongest(vae, 2) == [1, 3]


# ---------------------------------------------------------------- a small run, and the stored one


def test_a_run_is_kept_whole(tmp_path):
    small = {"dataset": "digits", "steps": 5, "hidden": 8, "generator_hidden": 8, "latent_dim": 4}
    train.make(replace(train.CONFIG, **small), tmp_path)
    made = json.loads((tmp_path / "scholars.json").read_text())
    assert len(made["scholars"]) == len(made["quantised_accuracy_matrix"]) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dreams.png", "scholars.json"]
    for told in made["references"]:
        pixels = dreamt(made["scholars"][told["task"]], told["digit"], told["latents"])
        wanted = train.numbers(told["pixels"], "uint8")
        assert (255 * pixels - wanted).abs().max() < 3


def test_the_stored_scholars_are_the_scripts(stored):
    config = json.loads(json.dumps(asdict(train.CONFIG)))
    assert stored["config"] == config
    assert stored["environment"]["threads"] == 1
    assert len(stored["scholars"]) == len(stored["tasks"]) == 5
    assert (FOLDER / "scholars.json").stat().st_size < 2e6


def test_rounding_costs_the_stored_solvers_next_to_nothing(stored):
    for t, row in enumerate(stored["quantised_accuracy_matrix"]):
        assert row == pytest.approx(stored["accuracy_matrix"][t + 1], abs=0.005)
        assert min(row[: t + 1]) > 0.8  # of the tasks met
        assert max(row[t + 1 :], default=0) < 0.01  # of those to come


def test_the_stored_dreams_and_answers_are_those_of_full_precision(stored):
    assert len(stored["references"]) == 12
    for told in stored["references"]:
        scholar = stored["scholars"][told["task"]]
        pixels = dreamt(scholar, told["digit"], told["latents"])
        off = (255 * pixels - train.numbers(told["pixels"], "uint8")).abs()
        assert off.max() < 16, told
        assert off.mean() < 1, told
        assert read(scholar, pixels).tolist() == pytest.approx(told["probabilities"], abs=0.002)


def test_the_stored_drift_is_that_of_the_stored_scholars(stored):
    first: dict[tuple[int, int], torch.Tensor] = {}
    for t, (scholar, told) in enumerate(
        zip(stored["scholars"], stored["drift"], strict=True),
    ):
        asked = [(digit, number) for digit in range(2 * (t + 1)) for number in (1, 2, 3)]
        now = {pair: dreamt(scholar, pair[0], train.latents(pair[1], 16)) for pair in asked}
        first = now | first
        right = [int(read(scholar, now[pair]).argmax()) == pair[0] for pair in asked]
        changed = [float((now[pair] - first[pair]).abs().mean()) for pair in asked]
        assert told["dreams"] == len(asked)
        assert told["right"] == pytest.approx(sum(right), abs=1)
        assert told["changed"] == pytest.approx(sum(changed) / len(asked), abs=0.002)


def test_the_stored_numbers_are_finite(stored):
    for scholar in stored["scholars"]:
        layers = scholar["decoder"] + scholar["solver"]
        texts = [layer[part] for layer in layers for part in ("scale", "bias")]
        for text in [*texts, scholar["mean"], scholar["deviation"]]:
            assert all(map(math.isfinite, train.numbers(text, "float32").tolist()))
