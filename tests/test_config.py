"""Every name a config knows runs; defaults are filled in; bad options are one line."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from genreplay_core import config as configs
from genreplay_core import experiment, replay
from genreplay_core.adapt import optimisers
from genreplay_core.config import (
    GENERATORS,
    PRECISIONS,
    REGULARISERS,
    REPLAYS,
    SOLVERS,
    STREAMS,
    Arm,
    Config,
    build_strategy,
    build_stream,
)
from genreplay_core.datasets import load
from genreplay_core.replay import ByCode, Generative, Soft, Stored


def config(**changes) -> Config:
    """Two tasks of five digits each, learned in no time (and hardly learned at all)."""
    return Config(**{"tasks": 2, "steps": 3, "batch": 16, "hidden": 16, "lr": 0.01, **changes})


def learn(chosen, out=None, **options):
    return experiment.run(chosen, out, device="cpu", **options)


# ---------------------------------------------------------------- every name


def options(kind: str, names) -> list:
    return [pytest.param({kind: name}, id=f"{kind}-{name}") for name in names]


@pytest.mark.parametrize(
    "chosen",
    [
        *options("replay", REPLAYS),
        *options("generator", GENERATORS),
        *options("solver", SOLVERS),
        *options("regulariser", REGULARISERS),
        *options("precision", PRECISIONS),
        *options("scenario", ("task", "domain", "class")),
        *options("labels", ("hard", "soft", "code")),
        *options("stream", [name for name in STREAMS if name != "domains"]),
        *options("anew", (True,)),
        *options("generator_hidden", (8,)),
        *options("importance", (0,)),
        *options("generator_importance", (0.7,)),
        *options("spread", (1.3,)),
        *options("sharpen", (1.5,)),
        *options("task_free", (True,)),
        *[pytest.param({"align": value}, id=f"align-{value}") for value in (True, False)],
        pytest.param({"generator": "wgan", "critic_steps": 2, "latent_dim": 5}, id="sizes"),
        pytest.param({"steps": None, "epochs": 0.05}, id="epochs"),
    ],
)
def test_every_name_runs(chosen):
    record = learn(config(**chosen))
    matrix = np.array(record["accuracy_matrix"])
    assert matrix.shape == (3, 2)
    assert ((matrix >= 0) & (matrix <= 1)).all()
    assert not (matrix[1] == matrix[0]).all()  # something was learned
    assert {name: record["config"][name] for name in chosen} == chosen


def test_joint_training_gets_the_budget_of_all_tasks_so_far():
    work = experiment.Run(config(replay="joint"), device="cpu")
    counts = []
    for _ in work.stream:
        work.step_task()
        counts.append(work.state.steps)
    assert counts == [3, 3 + 6]


def test_a_generator_may_have_a_width_of_its_own():
    chosen = config(replay="generative", generator_hidden=7)
    scholar = configs.build_scholar(chosen, build_stream(chosen), "cpu")
    widths = [network(scholar).weight.shape[0] for network in (first_of_solver, first_of_decoder)]
    assert widths == [16, 7]


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_may_have_a_learning_rate_of_its_own(kind):
    for rate in (None, 0.125):
        chosen = config(replay="generative", generator=kind, generator_lr=rate)
        scholar = configs.build_scholar(chosen, build_stream(chosen), "cpu")
        groups = [g for _, o in optimisers(scholar.generator) for g in o.param_groups]
        assert {group["lr"] for group in groups} == {rate or 1e-3}
        assert scholar.optimiser.param_groups[0]["lr"] == 0.01


def first_of_solver(scholar):
    return next(m for m in scholar.solver.modules() if hasattr(m, "weight"))


def first_of_decoder(scholar):
    return next(m for m in scholar.generator.decoder.modules() if hasattr(m, "weight"))


def test_anew_begins_each_task_with_untrained_networks():
    assert configs.build_strategy(config(anew=True)).anew
    assert not configs.build_strategy(config()).anew
    assert configs.build_strategy(config(replay="joint")).anew


def test_one_domain_after_another_is_a_task_for_each_data_set(monkeypatch):
    digits = load("digits")
    monkeypatch.setattr(configs, "load", lambda name: digits)
    chosen = config(dataset="here+there", stream="domains", scenario="domain", tasks=5)
    record = learn(chosen)
    assert record["tasks"] == ["here", "there"]
    assert record["config"]["tasks"] == 2


# ---------------------------------------------------------------- defaults


def test_a_config_in_a_record_is_whole_and_its_defaults_are_filled_in():
    chosen = config(replay="stored", steps=None)
    record = learn(chosen)
    assert record["config"] == asdict(chosen)
    assert record["config"]["labels"] == "code"  # what stored examples are labelled with
    assert record["config"]["steps"] == 300
    assert Config(**record["config"]) == chosen


@pytest.mark.parametrize(
    ("chosen", "steps"),
    [
        ({}, 300),
        ({"dataset": "mnist"}, 2000),
        ({"steps": 7}, 7),
        ({"epochs": 2.0}, None),
    ],
)
def test_the_budget_follows_from_the_data_unless_it_is_given(chosen, steps):
    assert Config(**chosen).steps == steps


def test_few_training_examples_are_the_same_number_of_each_class():
    stream = build_stream(config(train_examples=7))
    counts = torch.cat([task.train.y for task in stream]).bincount()
    assert counts.tolist() == [7] * 10
    assert sum(len(task.test) for task in stream) == len(load("digits")[1])


def test_validation_judges_by_held_out_training_examples():
    train, _ = load("digits")
    stream = build_stream(config(validation=0.25))
    taught, judged = ([part(t) for t in stream] for part in (lambda t: t.train, lambda t: t.test))
    assert sum(map(len, judged)) == round(len(train) / 4)
    assert sum(map(len, taught)) + sum(map(len, judged)) == len(train)
    images = torch.cat([e.x for e in (*taught, *judged)]).flatten(1).sum(1).sort().values
    torch.testing.assert_close(
        images,
        (train.x / 255 if train.x.dtype == torch.uint8 else train.x)
        .flatten(1)
        .sum(1)
        .sort()
        .values,
    )
    again = build_stream(config(validation=0.25, seed=5))  # other classes, the same examples
    sums = [float(sum(t.test.x.sum() for t in s)) for s in (stream, again)]
    assert sums[0] == pytest.approx(sums[1])


def test_an_arm_of_ones_own_is_heard(monkeypatch):
    arm = Arm("mine", lambda label, c: replay.generative(label, best_of=c.best_of), dreams=True)
    monkeypatch.setitem(REPLAYS, "mine", arm)
    assert build_strategy(Config(replay="mine", best_of=4)).solver == Generative(best_of=4)


def test_labels_are_those_that_the_config_names():
    assert build_strategy(Config(replay="joint")).solver == Stored(ByCode())
    assert build_strategy(Config(replay="joint", labels="soft")).solver == Stored(Soft(4.0))


# ---------------------------------------------------------------- bad configs

NAN, INFINITY = float("nan"), float("inf")
BAD = [
    ({"dataset": "digit"}, "unknown data set 'digit'"),
    ({"best_of": 2, "replay": "sketch"}, "replay 'sketch' dreams without best_of"),
    ({"spread": 1.5, "replay": "generative+current"}, "dreams without spread: leave it out"),
    ({"sharpen": 2.0, "replay": "forgetful-generator"}, "dreams without sharpen: leave it out"),
    ({"generator": "conv-vae", "generator_hidden": 9}, "generator 'conv-vae' has no generator_h"),
    ({"generator_importance": 2.0}, "generator_importance must lie in"),
    ({"generator_lr": 0.0}, "generator_lr must be above 0"),
    ({"privacy": True, "replay": "none"}, "privacy is measured of dreams or of stored examples"),
    ({"train_examples": 0}, "train_examples must be above 0"),
    ({"task_free": True, "tasks": 1}, "task_free needs two tasks or more"),
    ({"task_free": True, "steps": None, "epochs": 1.0}, "and a budget in steps"),
    ({"task_free": True, "replay": "stored"}, "replay 'stored' stores at the ends of tasks"),
    ({"task_free": True, "average": 0.5}, "average needs the ends of tasks"),
    ({"task_free": True, "generator_steps": 5}, "generator_steps needs the ends of tasks"),
    ({"blur": 1.5}, r"blur must lie in \[0, 1\]"),
    ({"snapshot_every": 0}, "snapshot_every must be above 0"),
    ({"best_of": 0}, "best_of must be above 0"),
    ({"average": 1.0}, r"average must lie in \[0, 1\), got 1.0"),
    ({"validation": -0.1}, r"validation must lie in \[0, 1\), got -0.1"),
    ({"lr_end": 0.0}, r"lr_end must lie in \(0, 1\], got 0.0"),
    ({"stream": "spilt"}, "unknown stream 'spilt'"),
    ({"tasks": "5"}, "tasks is '5', expected int"),
    ({"steps": 1.5}, "steps is 1.5, expected int"),
    ({"seed": True}, "seed is True, expected int"),
    ({"lr": "1e-3"}, "lr is '1e-3', expected float"),
    ({"lr": None}, "lr is None, expected float"),
    ({"dataset": 5}, "dataset is 5, expected str"),
    ({"class_order": 3}, "class_order is 3, expected list"),
    ({"scenario": "klass"}, "unknown scenario 'klass'"),
    ({"replay": "dream"}, "unknown replay 'dream'"),
    ({"generator": "gan"}, "unknown generator 'gan'"),
    ({"solver": "tree"}, "unknown solver 'tree'"),
    ({"regulariser": "l2"}, "unknown regulariser 'l2'"),
    ({"precision": "int8"}, "unknown precision 'int8'"),
    ({"labels": "firm"}, "unknown labels 'firm'"),
    *[
        ({name: value}, f"{name} must be above 0")
        for name in ("tasks", "steps", "batch", "per_class", "hidden", "latent_dim")
        for value in (0, -1)
    ],
    ({"generator_steps": 0}, "generator_steps must be above 0"),
    ({"generator": "wgan", "critic_steps": 0}, "critic_steps must be above 0"),
    *[({"steps": None, "epochs": value}, "epochs must be above 0") for value in (0, NAN, INFINITY)],
    *[({"lr": value}, "lr must be above 0") for value in (0, -0.1, NAN, INFINITY)],
    *[({"temperature": value}, "temperature must be above 0") for value in (0, -1, NAN, INFINITY)],
    ({"replay_ratio": -0.5}, "replay_ratio must be 0 or more"),
    ({"replay_ratio": NAN}, "replay_ratio must be 0 or more"),
    ({"regulariser": "ewc", "strength": -1}, "strength must be 0 or more"),
    ({"curve_every": -1}, "curve_every must be 0 or more"),
    ({"seed": -1}, "seed must be 0 or more"),
    *[({"importance": value}, r"importance must lie in \[0, 1\]") for value in (-0.1, 1.5, NAN)],
    ({"epochs": 1.0}, "steps or in epochs, not both"),
    ({"replay": "generative", "labels": "code"}, "doesn't know its rows' classes"),
    ({"replay": "joint", "regulariser": "si"}, "which here begin anew: leave out one"),
    ({"labels": "code", "best_of": 2}, "best_of asks the old solver"),
    ({"replay": "generative", "align": True}, "align needs a conditional generator"),
    ({"generator": "flow", "latent_dim": 5}, "generator 'flow' has no latent_dim"),
    ({"generator": "vae", "critic_steps": 5}, "generator 'vae' has no critic_steps"),
    ({"tasks": 3}, "10 classes can't be cut into 3 equal tasks"),
    ({"class_order": (0, 1, 2)}, "class order must name each of 0..9 once"),
    ({"class_order": (0, 0, 1, 2, 3, 4, 5, 6, 7, 8)}, "class order must name each of 0..9 once"),
    ({"dataset": "digits+digits"}, "a stream of domains only"),
    ({"dataset": "digits+digits", "stream": "domains"}, "each data set once"),
]


@pytest.mark.parametrize(("chosen", "message"), BAD, ids=[str(chosen) for chosen, _ in BAD])
def test_bad_options_are_one_line_and_leave_no_folder(tmp_path, chosen, message):
    with pytest.raises(ValueError, match=message) as error:
        learn(config(**chosen), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
