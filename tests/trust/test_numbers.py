"""Bad numbers and strange sizes: each works, or it is said what is wrong, in which task and at
which step; and the checkpoint before it stays good."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import one_line, same
from torch import Tensor, nn

from genreplay_core import GenerativeReplay, conv_solver, conv_vae, mlp_solver, mlp_vae, split
from genreplay_core.config import Config, build_scholar, build_stream
from genreplay_core.data import Examples, Stream
from genreplay_core.experiment import Run, run
from genreplay_core.faults import Collapsed, Diverged
from genreplay_core.nets import adam

CHOSEN = Config(tasks=5, steps=30, batch=16, hidden=16, replay="generative")


def stream(spoil: Callable[[Tensor], Tensor] | None = None) -> Stream:
    """The digits, the third task's images changed."""
    whole = build_stream(CHOSEN)

    def build(task: int, part: int) -> Examples:
        examples = whole.build(task, part)
        if spoil is None or task != 2:
            return examples
        return Examples(spoil(examples.x), examples.y)

    return replace(whole, build=build)


def put(value: float) -> Callable[[Tensor], Tensor]:
    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[5, 0, 3, 3] = value
        return x

    return spoil


@pytest.fixture(scope="module")
def after_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint after two good tasks."""
    out = tmp_path_factory.mktemp("good")

    def stop(work: Run) -> None:
        if len(work.state.matrix) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(CHOSEN, out, device="cpu", stream=stream(), after_task=stop)
    return dict(torch.load(out / "checkpoint.pt")["scholar"])


def check_goes_on(out: Path, after_two: dict[str, Any]) -> None:
    """The checkpoint is that of the second task, and the run ends well with good data."""
    assert same(torch.load(out / "checkpoint.pt")["scholar"], after_two)
    record = run(CHOSEN, out, device="cpu", stream=stream(), resume=True)
    assert record["accuracy_matrix"] == run(CHOSEN, device="cpu")["accuracy_matrix"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, -0.1])
def test_a_bad_pixel_in_a_later_task_is_named_with_its_task(value, after_two, tmp_path):
    with pytest.raises(ValueError, match=r"task 2: (images contain nan|pixels lie in)") as error:
        run(CHOSEN, tmp_path, device="cpu", stream=stream(put(value)))
    one_line(error.value)
    check_goes_on(tmp_path, after_two)


@pytest.mark.parametrize("step", [1, 16, 23])
@pytest.mark.parametrize("part", ["solver", "encoder"])
def test_a_network_that_answers_nan_is_named_with_task_and_step(
    part, step, after_two, tmp_path, monkeypatch
):
    """From some training step of the third task on."""
    steps = 0

    def sick(*args: Any) -> GenerativeReplay:
        scholar = build_scholar(*args)
        network = scholar.solver if part == "solver" else scholar.generator.encoder

        def spoil(module: nn.Module, x: Any, out: Tensor) -> Tensor:
            nonlocal steps
            steps += module.training and len(scholar.tasks) == 3
            return out * (math.nan if steps >= step else 1)

        network.register_forward_hook(spoil)
        return scholar

    monkeypatch.setattr("genreplay_core.experiment.build_scholar", sick)
    with pytest.raises(Diverged, match=f"became nan in task 2 at step {step}:") as error:
        run(CHOSEN, tmp_path, device="cpu", stream=stream())
    one_line(error.value)
    monkeypatch.undo()
    check_goes_on(tmp_path, after_two)


def test_a_loss_that_explodes_is_named_with_task_and_step(tmp_path):
    wild = replace(CHOSEN, lr=1e30)
    with pytest.raises(Diverged, match=r"became (nan|inf) in task 0 at step \d+: lower") as error:
        run(wild, tmp_path, device="cpu")
    one_line(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_explodes_without_boundaries_is_named_too():
    wild = replace(CHOSEN, lr=1e30, task_free=True, replay="none")
    with pytest.raises(Diverged, match=r"became (nan|inf) in task 0 at step \d+: lower"):
        run(wild, device="cpu")


class Constant(nn.Module):
    """A generator that has come to dream one image only."""

    latent_dim = 4

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.image = nn.Parameter(torch.zeros(shape))

    def decode(self, z: Tensor) -> Tensor:
        return self.image.sigmoid().expand(len(z), *self.image.shape)

    def train_step(self, x: Tensor) -> Tensor:
        return (self.image.sigmoid() - x.mean(0)).square().sum()


def test_a_generator_that_dreams_one_image_is_warned_of_in_every_task():
    whole = stream()
    solver, generator = mlp_solver(whole.shape, 10, 16), Constant(whole.shape)
    scholar = GenerativeReplay(solver, generator, "cpu", legend=whole.legend, seed=0, batch=16)
    for task in (0, 1):
        with pytest.warns(Collapsed, match=f"collapsed in task {task} at step 200: "):
            scholar.train_task(whole[task].train, task, steps=200)


# ---------------------------------------------------------------- strange sizes


def learned(
    pair: tuple[Examples, Examples], tasks: int, seed: int = 0, rate: float = 1e-3, **options: Any
) -> list:
    """The losses of two tasks with a conditional VAE, whose learning rate is `rate`."""
    torch.manual_seed(seed)
    whole = split(pair, tasks, "class", order=range(int(pair[0].y.max()) + 1))
    solver = mlp_solver(whole.shape, whole.legend.outputs, 8)
    generator = mlp_vae(whole.shape, whole.legend.codes, 4, 8)
    generator.optimiser = adam(generator.parameters(), rate)
    scholar = GenerativeReplay(solver, generator, "cpu", legend=whole.legend, **options)
    with warnings.catch_warnings(action="error"):
        done = [scholar.train_task(whole[t].train, t, steps=3, replay_ratio=1) for t in (0, 1)]
    return [trained.solver_loss for trained in done]


def examples(n: int, shape: tuple[int, ...], classes: int) -> Examples:
    torch.manual_seed(0)
    return Examples(torch.rand(n, *shape), torch.arange(n) % classes)


SIZES: dict[str, tuple[Examples, int, dict[str, Any]]] = {
    "one example in a task": (examples(2, (1, 8, 8), 2), 2, {}),
    "1,000 classes": (examples(2000, (1, 4, 4), 1000), 10, {}),
    "1,000 tasks": (examples(1000, (1, 4, 4), 1000), 1000, {}),
    "images of 1 pixel": (examples(40, (1, 1, 1), 4), 2, {}),
    "images without channels": (examples(40, (5,), 4), 2, {}),
    "a batch larger than the task": (examples(6, (1, 4, 4), 2), 2, {"batch": 500}),
    "a batch of one": (examples(40, (1, 4, 4), 4), 2, {"batch": 1}),
}


@pytest.mark.parametrize("name", SIZES)
def test_strange_sizes_are_learned(name):
    whole, tasks, options = SIZES[name]
    for losses in learned((whole, whole), tasks, **options):
        assert len(losses) == 3
        assert losses.isfinite().all()


def test_a_million_pixels_are_learned_or_it_is_said_what_to_do():
    """With the VAE's usual learning rate some draws of the networks diverge at once. Each is told
    of, and what is advised helps."""
    whole, said = examples(4, (1, 1024, 1024), 2), []
    for seed in (0, 7):  # on x86 the second diverges
        try:
            learned((whole, whole), 2, seed, batch=2)
        except Diverged as error:
            said.append(str(error))
        for losses in learned((whole, whole), 2, seed, 1e-4, batch=2):
            assert losses.isfinite().all()
    advice = re.compile(r"the loss became (inf|nan) in task \d at step \d: lower the learning rate")
    assert [each for each in said if not advice.match(each)] == []


@pytest.mark.parametrize("side", [1, 2, 3])
def test_small_images_are_learned_by_convolutions_too(side):
    x, y = torch.rand(20, 1, side, side), torch.arange(20) % 2
    parts = conv_solver((1, side, side), 2, 4), conv_vae((1, side, side), 2, 4)
    trained = GenerativeReplay(*parts, "cpu", batch=4).train_task((x, y), 0, steps=2)
    assert trained.generator_loss.isfinite().all()


def test_a_class_without_examples_is_no_harm_if_its_task_has_others():
    whole = examples(40, (1, 4, 4), 4)
    there = whole[whole.y != 1]
    for losses in learned((there, there), 2):
        assert losses.isfinite().all()


@pytest.mark.parametrize("part", [0, 1])
def test_a_task_without_examples_is_named_before_anything_is_learned(part):
    pair = [examples(40, (1, 4, 4), 4)] * 2
    pair[part] = pair[part][pair[part].y > 1]
    with pytest.raises(ValueError, match=r"task 0 \(classes 0 1\) has no (training|test) example"):
        split(tuple(pair), 2, "class", order=range(4))
