"""A captured step is the same step. Without a GPU, a recording is played by doing it again."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from genreplay_core import Config, GenerativeReplay, capture, load, mlp_solver, nets, replay, split
from genreplay_core.capture import WARM_UP, captured
from genreplay_core.config import GENERATORS, build_scholar, build_stream
from genreplay_core.data import Data
from genreplay_core.experiment import Run, run
from genreplay_core.learner import BLOCK


@pytest.fixture
def pretended(monkeypatch):
    """Recordings without a GPU; the list tells how often each was played."""
    played = []

    def recorded(work):
        played.append(0)
        at = len(played) - 1

        def play():
            played[at] += 1
            return work().clone()

        return play

    monkeypatch.setattr(capture, "_aside", lambda work: work())
    monkeypatch.setattr(capture, "_recorded", recorded)
    return played


def scholar(device: str, kind: str = "vae", steps_captured: bool = False) -> GenerativeReplay:
    stream = split(load("digits"), tasks=5, scenario="class", seed=0)
    torch.manual_seed(0)
    solver = mlp_solver(stream.shape, 10, hidden=16)
    generator = GENERATORS[kind](stream.shape, 10)
    learner = GenerativeReplay(
        solver, generator, device, strategy=replay.generative(align=True), batch=16, seed=0
    )
    learner.capture = steps_captured
    for task in list(stream)[:2]:
        learner.train_task(task.train, task.id, steps=BLOCK + 5)
    return learner


def weights(learner: GenerativeReplay) -> list[torch.Tensor]:
    return [p.detach().cpu() for m in (learner.solver, learner.generator) for p in m.parameters()]


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_learner_with_captured_steps_learns_the_same(pretended, kind):
    plain, fast = scholar("cpu", kind), scholar("cpu", kind, steps_captured=True)
    assert pretended == [BLOCK + 5 - WARM_UP] * 4  # two networks, two tasks
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(fast), strict=True))


@pytest.mark.parametrize("noise", [None, torch.zeros(1, 2)])
def test_each_batch_is_copied_to_where_the_recording_reads(pretended, noise):
    places = []

    def step(batch: Data, weight: torch.Tensor) -> torch.Tensor:
        places.append([part.data_ptr() for part in (batch.x, weight)])
        assert (batch.z is None) is (noise is None)
        return (batch.x.flatten(1).sum(1) * weight).sum()

    run = captured(step, [])
    ones = torch.ones(2, 1)
    for value in range(1, 8):
        batch = Data(torch.full((2, 1, 1, 1), float(value)), ones, ones, ones[:, 0], ones, noise)
        assert float(run(batch, torch.tensor([0.5, 0.5]) * value)) == value**2
    assert len({tuple(place) for place in places[WARM_UP:]}) == 1
    assert pretended == [7 - WARM_UP]


def test_optimisers_are_told_and_so_step_on_the_device(pretended):
    optimiser = torch.optim.Adam(nn.Linear(2, 2).parameters())
    captured(lambda batch, weight: weight, [optimiser])
    assert all(group["capturable"] for group in optimiser.param_groups)


def test_an_optimiser_that_knows_of_no_capturing_is_left_as_it_is(pretended):
    optimiser = torch.optim.SGD(nn.Linear(2, 2).parameters())
    captured(lambda batch, weight: weight, [optimiser])
    assert all("capturable" not in group for group in optimiser.param_groups)


def test_capturing_needs_a_gpu_and_a_constant_learning_rate():
    parts = mlp_solver((1, 8, 8), 10, hidden=8), None
    with pytest.raises(ValueError, match="capture needs a CUDA device, got cpu"):
        GenerativeReplay(*parts, "cpu", capture=True)
    with pytest.raises(ValueError, match="lr_end"):
        GenerativeReplay(*parts, "cpu", capture=True, lr_end=0.5)


@pytest.mark.parametrize(
    ("device", "lr_end", "wanted"), [("cuda", 1.0, True), ("cuda", 0.5, False), ("cpu", 1.0, False)]
)
def test_an_experiment_captures_its_steps_where_it_can(monkeypatch, device, lr_end, wanted):
    config, asked = Config(dataset="digits", lr_end=lr_end), {}
    monkeypatch.setattr(
        "genreplay_core.config.GenerativeReplay", lambda *_, **options: asked.update(options)
    )
    monkeypatch.setattr(nets, "pick_device", lambda _: torch.device(device))
    build_scholar(config, build_stream(config), device)
    assert asked["capture"] is wanted


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@on_gpu
@pytest.mark.parametrize("kind", GENERATORS)
def test_on_a_gpu_a_captured_learner_learns_the_same(kind):
    plain, fast = scholar("cuda", kind), scholar("cuda", kind, steps_captured=True)
    for a, b in zip(weights(plain), weights(fast), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


WAITING = """
import torch
from genreplay_core.capture import WARM_UP, captured
from genreplay_core.data import Data

one = torch.ones(1, 1, device="cuda")
run = captured(lambda batch, weight: weight * float(weight.sum()), [])
try:
    [run(Data(one, one, one, one, one), one) for _ in range(WARM_UP + 1)]
except RuntimeError as error:
    print(error)
"""


@on_gpu
def test_on_a_gpu_a_step_that_waits_is_refused_in_one_line():
    """In a process of its own: what fails so takes CUDA's random numbers along."""
    found = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True)
    assert re.fullmatch(
        r"this step can't be captured \(.*: leave out capture, in a .*\n", found.stdout
    )


class Killed(Exception):
    pass


def launched(config, after_task):
    """One task of a run whose kernels are launched one by one."""
    work = Run(config, "cuda")
    assert work.scholar.capture
    work.scholar.capture = False
    work.step_task()
    after_task(work)


@on_gpu
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"replay": "generative", "labels": "hard"},
        {"jitter": 1},
        {"precision": "bfloat16"},
        {"solver": "conv", "generator": "conv-vae"},
        {"generator": "wgan"},
        {"generator": "flow", "latent_dim": None},
        {"replay": "stored"},
        {"replay": "none", "regulariser": "ewc"},
        {"replay": "none", "regulariser": "si"},
        {"curve_every": 20},
    ],
    ids=str,
)
def test_on_a_gpu_a_run_gives_the_same_bits_twice_and_after_a_kill(tmp_path, changes):
    usual = {"dataset": "digits", "hidden": 32, "latent_dim": 8, "steps": BLOCK + 5}
    config, found = Config(**{**usual, **changes}), []

    def keep(work):
        found.append([p.detach().cpu() for n in work.scholar.networks() for p in n.parameters()])

    def kill(work):
        if len(work.state.matrix) == 3:
            raise Killed

    first, second = (run(config, device="cuda", after_task=keep) for _ in range(2))
    launched(config, keep)
    with pytest.raises(Killed):
        run(config, tmp_path, device="cuda", after_task=kill)
    resumed = run(config, tmp_path, resume=True, device="cuda", after_task=keep)
    assert first["environment"]["device"].startswith("cuda: ")
    for other in (found[9], found[-1]):
        assert all(torch.equal(a, b) for a, b in zip(found[4], other, strict=True))
    off = [(a - b).abs().mean() for a, b in zip(found[0], found[10], strict=True)]
    assert max(off) < 0.01, "one task as graphs and kernel by kernel"
    assert first["accuracy_matrix"] == second["accuracy_matrix"] == resumed["accuracy_matrix"]
