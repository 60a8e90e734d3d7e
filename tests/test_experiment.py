"""Experiments: everything a name can mean runs, the record tells the truth, and a run that was
stopped goes on as if nothing had happened."""

from __future__ import annotations

import io
import json
import pickle
import platform
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from genreplay_core import __version__, experiment
from genreplay_core.config import Config, build_stream
from genreplay_core.experiment import run
from genreplay_core.faults import Diverged
from genreplay_core.files import sealed
from genreplay_core.metrics import summary
from genreplay_core.seeds import seeded


def config(**changes) -> Config:
    """Two tasks of five digits each, learned in no time (and hardly learned at all)."""
    return Config(**{"tasks": 2, "steps": 3, "batch": 16, "hidden": 16, "lr": 0.01, **changes})


def learn(chosen, out=None, **options):
    return run(chosen, out, device="cpu", **options)


@pytest.fixture
def quick_judge(monkeypatch):
    """A judge that hasn't learned much, because these tests don't ask how well it judges."""
    monkeypatch.setattr(experiment, "judge", partial(experiment.judge, steps=10))


def plain(value):
    """The value as JSON would give it back."""
    return json.loads(json.dumps(value))


# ---------------------------------------------------------------- the record


def test_a_record_says_what_was_run_where_and_how_it_went():
    record = learn(config(replay="none"))
    assert {"accuracy_matrix", "tasks", "seconds", "steps_per_second", "curve"} <= set(record)
    assert record["seconds"] > 0
    assert record["steps_per_second"] > 0
    environment = record["environment"]
    assert environment["genreplay_core"] == __version__
    assert environment["torch"] == torch.__version__
    assert environment["python"] == platform.python_version()
    assert environment["device"].startswith("cpu: ")
    assert environment["threads"] == torch.get_num_threads()
    assert environment["commit"] is None or environment["commit"].strip()
    json.dumps(record, allow_nan=False)


def test_the_measures_in_a_record_are_those_of_its_matrix():
    record = learn(config(replay="none", steps=40))
    measures = summary(record["accuracy_matrix"])
    assert set(measures) == {
        *("average_accuracy", "forgetting", "backward_transfer", "forward_transfer"),
    }
    assert {name: record[name] for name in measures} == measures
    assert record["forgetting"] > 0.2  # nothing was rehearsed


def test_the_curve_has_its_points_at_the_chosen_steps():
    record = learn(config(steps=48, replay="none", curve_every=16))
    steps = [(point["task"], point["step"]) for point in record["curve"]]
    assert steps == [(task, step) for task in range(2) for step in (16, 32, 48)]
    for point in record["curve"]:
        assert len(point["accuracy"]) == point["task"] + 1  # of the tasks met so far
    ends = [record["curve"][2]["accuracy"], record["curve"][5]["accuracy"]]
    assert ends == [record["accuracy_matrix"][1][:1], record["accuracy_matrix"][2]]


def test_a_point_between_two_blocks_of_steps_is_not_lost():
    record = learn(config(steps=64, replay="none", curve_every=20))
    first = [point["step"] for point in record["curve"] if point["task"] == 0]
    assert len(first) == 3  # for 20, 40 and 60
    assert all(step >= wanted for step, wanted in zip(first, (20, 40, 60), strict=True))


@pytest.mark.usefixtures("quick_judge")
def test_looking_does_not_change_what_is_looked_at():
    blind = learn(config(steps=32))
    seen = learn(config(steps=32, curve_every=16, quality=True), progress=lambda *_: torch.rand(1))
    assert seen["accuracy_matrix"] == blind["accuracy_matrix"]


@pytest.mark.parametrize("scenario", ["class", "domain"])
@pytest.mark.usefixtures("quick_judge")
def test_dreams_are_judged_after_each_task_if_asked(scenario):
    record = learn(config(quality=True, scenario=scenario))
    assert len(record["quality"]) == 2
    for quality in record["quality"]:
        assert set(quality) == {
            *("frechet", "precision", "recall", "class_histogram", "label_agreement"),
        }
        assert len(quality["class_histogram"]) == 10  # class codes, in whatever scenario
        assert sum(quality["class_histogram"]) == pytest.approx(1)
        assert 0 <= quality["label_agreement"] <= 1
        assert quality["frechet"] > 0


@pytest.mark.usefixtures("quick_judge")
def test_a_judge_agrees_with_a_solver_that_answers_as_the_legend_wants():
    """In the domain scenario codes 0 and 5 share an answer, which must count as agreement."""
    work = experiment.Run(config(quality=True, scenario="domain"), device="cpu")
    work.step_task()
    judge, answers = work.judge, work.legend.target.argmax(1)
    work.scholar.solver.forward = lambda x: torch.eye(5)[answers[judge.classify(x)]]
    assert work._quality()["label_agreement"] == 1.0


@pytest.mark.parametrize("replay", ["generative", "stored"])
def test_what_is_given_away_is_measured_at_the_end_if_asked(replay):
    chosen = config(replay=replay, privacy=True, train_examples=12, per_class=5)
    plain, asked = learn(replace(chosen, privacy=False)), learn(chosen)
    assert plain["privacy"] == {}
    assert asked["accuracy_matrix"] == plain["accuracy_matrix"]
    assert list(asked["privacy"]) == ["earlier tasks", "last task"]
    for found in asked["privacy"].values():
        assert found["dreams"] == (10_000 if replay == "generative" else 5 * 5)
        assert found["copied"] == (replay == "stored")
        assert 0 <= found["attacks"]["solver"]["auc"] <= 1
    assert learn(chosen)["privacy"] == asked["privacy"]


def test_the_only_task_has_none_before_it():
    assert list(learn(config(tasks=1, privacy=True))["privacy"]) == ["last task"]


def test_without_a_generator_there_is_nothing_to_judge():
    assert learn(config(replay="stored", quality=True))["quality"] == []


# ---------------------------------------------------------------- the same again


@pytest.mark.parametrize("replay", ["generative", "conditional", "stored"])
def test_a_run_follows_from_its_config_alone(replay):
    torch.manual_seed(1)
    first = learn(config(replay=replay))
    torch.manual_seed(2)
    assert learn(config(replay=replay))["accuracy_matrix"] == first["accuracy_matrix"]


def test_another_seed_meets_the_classes_in_another_order():
    orders = {build_stream(config(seed=seed)).names for seed in range(4)}
    assert len(orders) == 4


def test_a_class_order_is_kept_whatever_the_seed():
    order = (3, 1, 4, 5, 9, 2, 6, 8, 7, 0)
    stream = build_stream(config(seed=8, class_order=order))
    assert stream.names == ("3 1 4 5 9", "2 6 8 7 0")


# ---------------------------------------------------------------- without task boundaries


def shares(blur: float, times: list[float]) -> list[float]:
    """The share of rows of the second of three tasks in a batch at each time, in tasks."""
    chosen = Config(tasks=2, task_free=True, blur=blur, batch=2000, hidden=8)
    work = experiment.Run(chosen, device="cpu")
    near = {t: work.stream[t].train for t in range(2)}
    found = []
    for at in times:
        with seeded(0):
            x, y = work._drifting(near, at)
        assert x.shape == (2000, 1, 8, 8)
        found.append(float((y >= 5).float().mean()))
    return found


def test_a_sharp_boundary_changes_all_rows_at_once():
    assert shares(0.0, [0.0, 0.4, 0.999, 1.0, 1.5, 1.999]) == [0, 0, 0, 1, 1, 1]


def test_a_blurred_boundary_mixes_the_tasks_around_it():
    found = shares(0.8, [0.0, 0.55, 0.8, 1.0, 1.2, 1.45])
    assert [found[0], found[1], found[5]] == [0, 0, 1]
    assert found[2:5] == pytest.approx([0.25, 0.5, 0.75], abs=0.05)


def test_the_rows_of_a_blurred_batch_keep_their_own_labels():
    work = experiment.Run(Config(tasks=2, task_free=True, blur=1.0, hidden=8), device="cpu")
    near = {t: work.stream[t].train for t in range(2)}
    x, y = work._drifting(near, 1.0)
    for image, code in zip(x, y, strict=True):
        same = near[int(code) // 5]
        at = (same.x == image).flatten(1).all(1).nonzero()[:, 0]
        assert int(code) in same.y[at]


def test_a_learner_that_is_told_nothing_freezes_itself_and_remembers():
    chosen = config(task_free=True, blur=0.5, steps=60, snapshot_every=20, importance=0.5)
    work = experiment.Run(chosen, device="cpu")
    for _ in work.stream:
        work.step_task()
    assert work.scholar.tasks == list(range(6))
    assert (work.state.steps, len(work.state.matrix)) == (120, 3)
    assert work.state.matrix[1][0] > 0.5


def test_a_loss_that_is_lost_without_boundaries_is_said_with_its_task():
    with pytest.raises(Diverged, match="in task 0"):
        learn(config(task_free=True, replay="none", lr=1e30))


# ---------------------------------------------------------------- stopped and resumed


class Stopped(Exception):
    """Somebody pulled the plug."""


def interrupted(chosen, out, after: int) -> None:
    """Run into `out` and stop when `after` tasks have been learned."""

    def pull(work):
        if len(work.state.matrix) == after + 1:
            raise Stopped

    with pytest.raises(Stopped):
        learn(chosen, out, after_task=pull)


RESUMED = {
    "generative": {"replay": "generative"},
    "conditional": {"replay": "conditional", "curve_every": 1},
    "judged": {"replay": "conditional", "tasks": 2, "quality": True},
    "wgan": {"replay": "generative", "generator": "wgan"},
    "stored": {"replay": "stored", "per_class": 5},
    "si": {"replay": "none", "regulariser": "si"},
    "ewc": {"replay": "none", "regulariser": "ewc", "scenario": "task"},
    "reset optimisers": {"replay": "generative", "reset_optimisers": True},
    "task-free": {"replay": "conditional", "task_free": True, "blur": 0.5, "snapshot_every": 2},
}


@pytest.mark.parametrize("chosen", RESUMED.values(), ids=RESUMED)
@pytest.mark.usefixtures("quick_judge")
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(tmp_path, chosen):
    chosen = config(**{"tasks": 5, **chosen})
    whole_ends, resumed_ends = [], []
    whole = learn(chosen, after_task=whole_ends.append)
    interrupted(chosen, tmp_path, after=1)
    resumed = learn(chosen, tmp_path, resume=True, after_task=resumed_ends.append)
    assert len(resumed_ends) == len(whole_ends) - 1  # it didn't begin anew
    for name in ("accuracy_matrix", "curve", "quality", "tasks", "config"):
        assert resumed[name] == whole[name]
    first, second = whole_ends[-1], resumed_ends[-1]
    weights = second.scholar.solver.state_dict()
    for name, weight in first.scholar.solver.state_dict().items():
        assert torch.equal(weight, weights[name])
    assert all(map(torch.equal, first.state.dreams, second.state.dreams))


def test_a_record_is_what_its_file_holds(tmp_path):
    record = learn(config(class_order=tuple(range(10))), tmp_path)
    held = json.loads((tmp_path / "result.json").read_text())
    assert held == sealed(plain(record))


def test_a_run_stopped_before_its_record_was_written_learns_nothing_twice(tmp_path, monkeypatch):
    interrupted(config(), tmp_path, after=2)
    assert not (tmp_path / "result.json").exists()
    monkeypatch.setattr(experiment.Run, "step_task", None)
    record = learn(config(), tmp_path, resume=True)
    assert len(record["accuracy_matrix"]) == 3
    assert (tmp_path / "result.json").exists()


def test_a_finished_run_is_only_read(tmp_path, monkeypatch):
    record = learn(config(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    monkeypatch.setattr(experiment, "Run", None)
    assert learn(config(), tmp_path, resume=True) == plain(record)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_to_resume_where_nothing_is_begins(tmp_path):
    record = learn(config(), tmp_path / "new", resume=True)
    assert record["accuracy_matrix"] == learn(config())["accuracy_matrix"]


def test_what_a_killed_writer_left_behind_disturbs_nobody(tmp_path):
    interrupted(config(), tmp_path, after=1)
    (tmp_path / ".checkpoint.pt.4711").write_bytes(b"half a checkpoint")
    (tmp_path / ".result.json.4711").write_text('{"accuracy_ma')
    record = learn(config(), tmp_path, resume=True)
    assert record["accuracy_matrix"] == learn(config())["accuracy_matrix"]


# ---------------------------------------------------------------- folders that won't do


def refused(chosen, out, **options) -> str:
    """The one line with which a run into `out` is refused; the folder stays as it is."""
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises((ValueError, OSError)) as error:
        learn(chosen, out, **options)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    line = str(error.value)
    assert "\n" not in line
    assert str(out) in line  # says where
    return line


@pytest.mark.parametrize("after", [1, 2])
def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, after):
    if after == 2:
        learn(config(), tmp_path)
    else:
        interrupted(config(), tmp_path, after=1)
    assert "--resume" in refused(config(), tmp_path)


@pytest.mark.parametrize("after", [1, 2])
def test_a_folder_of_another_config_is_refused_and_the_difference_named(tmp_path, after):
    if after == 2:
        learn(config(), tmp_path)
    else:
        interrupted(config(), tmp_path, after=1)
    line = refused(config(seed=1, lr=0.1), tmp_path, resume=True)
    assert "another lr, seed" in line


class Bomb:
    """Leaves a mark if it is unpickled by somebody who runs what a pickle says."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return type(self.mark).touch, (self.mark,)


@pytest.mark.parametrize("ended", [False, True])
def test_a_run_from_before_an_option_was_there_goes_on_with_its_usual_value(tmp_path, ended):
    learn(config(), tmp_path) if ended else interrupted(config(), tmp_path, 1)
    file = tmp_path / ("result.json" if ended else "checkpoint.pt")
    saved = json.loads(file.read_text()) if ended else torch.load(file)
    saved.pop("checksum", None)  # which wasn't there either
    del saved["config"]["spread"]
    file.write_text(json.dumps(saved)) if ended else torch.save(saved, file)
    with pytest.raises(ValueError, match="holds a run with another spread"):
        learn(config(spread=1.5), tmp_path, resume=True)
    resumed = learn(config(), tmp_path, resume=True)
    assert resumed["accuracy_matrix"] == learn(config())["accuracy_matrix"]


def damaged(body: bytes, mark) -> dict[str, bytes]:
    """Checkpoints that are none; `body` is a sound one."""
    torch.save({"config": Bomb(mark)}, mark.with_name("armed.pt"))
    torch.save([1.0, 2.0], mark.with_name("list.pt"))
    torch.save(torch.zeros(3), mark.with_name("tensor.pt"))
    weight = torch.load(io.BytesIO(body))["scholar"]["modules"]["solver"]["1.0.weight"]
    flipped = bytearray(body)
    flipped[body.index(weight.numpy().tobytes())] ^= 1
    return {
        "empty": b"",
        "truncated": body[: len(body) // 2],
        "one bit flipped": bytes(flipped),
        "random": np.random.default_rng(0).bytes(1000),
        "text": b"accuracy 0.9",
        "pickled code": pickle.dumps(Bomb(mark)),
        "saved code": mark.with_name("armed.pt").read_bytes(),
        "list": mark.with_name("list.pt").read_bytes(),
        "tensor": mark.with_name("tensor.pt").read_bytes(),
    }


def test_a_damaged_checkpoint_is_refused_and_runs_no_code(tmp_path):
    out, mark = tmp_path / "run", tmp_path / "mark"
    interrupted(config(replay="none"), out, after=1)
    body = (out / "checkpoint.pt").read_bytes()
    for kind, content in damaged(body, mark).items():
        (out / "checkpoint.pt").write_bytes(content)
        line = refused(config(replay="none"), out, resume=True)
        assert "damaged" in line, kind
        assert not mark.exists(), kind
    (out / "checkpoint.pt").write_bytes(body)
    learn(config(replay="none"), out, resume=True)  # the sound one still does


def test_the_bomb_of_the_test_above_is_live(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_a_damaged_result_is_refused(tmp_path):
    learn(config(replay="none"), tmp_path)
    body = (tmp_path / "result.json").read_text()
    whole = json.loads(body)
    for content in (
        *("", "[]", "{}", "7", "null", body[: len(body) // 2], '{"runs": {"none": {}}}'),
        json.dumps({**whole, "config": 3}),
        json.dumps({**whole, "accuracy_matrix": [[0.1], [2.0]]}),
    ):
        (tmp_path / "result.json").write_text(content)
        assert "damaged" in refused(config(replay="none"), tmp_path, resume=True), content
    (tmp_path / "result.json").write_bytes(b"\xff\xfe")
    assert "damaged" in refused(config(replay="none"), tmp_path, resume=True)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_where_the_folder_should_be_is_refused_before_anything_is_learned(
    tmp_path, monkeypatch, place
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(experiment.Run, "step_task", None)
    refused(config(), tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------- bad devices


def test_a_device_that_is_not_there_is_one_line_and_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="device 'abacus'") as error:
        run(config(), tmp_path / "run", device="abacus")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
