"""The graders' tests of the third assignment: other shapes, seeds and edges."""

from pathlib import Path

import numpy as np
import torch

from genreplay_core.course import close, expect, module

public = module(Path(__file__).parents[1] / "tests" / "test_3_replay.py")


def random(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def test_3a_a_wider_network(adapters):
    found = adapters.freeze(random(1, 9, 5), random(2, 12, 9))
    close(found["found"], found["wanted"], "the frozen network changes when the original learns")
    expect(found["live"] and not found["training"], "eval mode for the copy, and for it alone")


def test_3b_of_all_outputs(adapters):
    for seed in range(3):
        solver = random(seed, 6, 10)
        found = adapters.replay_batch(random(seed + 9, 3, 6), solver, 64, seed)
        close(found["y"], (found["x"] @ solver).argmax(1), "the largest of all logits")
        expect(found["y"].dtype == torch.int64, "labels are whole numbers, not logits")
        idea = "gradients are off for all that comes after: `with torch.no_grad():` puts them back"
        expect(found["off"] is False, idea)
        expect(found["x"].min() >= 0 and found["x"].max() <= 1, "images as decode gives them")


def test_3c_random_answers(adapters):
    for temperature in (0.5, 1.0, 2.0, 7.0):
        public.distilled(adapters, random(1, 9, 6), 3 * random(2, 9, 6), temperature)


def test_3d_many_mixtures(adapters):
    for new, old, t in ((1, 1, 2), (128, 128, 10), (7, 64, 3), (64, 3, 8)):
        weight = adapters.mixture_weights(new, old, t)
        wanted = [1 / t / new] * new + [(1 - 1 / t) / old] * old
        close(weight, wanted, "1/t for the new rows together, the rest for the old ones", 1e-5)


def test_3d_asked_twice_it_says_the_same(adapters):
    once, twice = (adapters.mixture_weights(5, 5, 3) for _ in range(2))
    close(twice, once, "the weights depend on nothing but their arguments: don't multiply them up")


def test_3e_dreams_are_as_old_as_the_task(adapters):
    third = public.taught(adapters, seed=5, steps=4)[2]
    ages = {round(float(age)) for x in third["x"] for age in 1000 * public.dreams(x)[:, 0]}
    expect(ages == {8}, "freeze when each task begins, not only once, and not while it is learned")


def test_3e_another_batch_is_learned_as_it_should(adapters):
    for t, task in enumerate(public.taught(adapters, seed=7, steps=5, batch=5), 1):
        wanted = [1 / t / 5] * 5 + [(1 - 1 / t) / 5] * (5 if t > 1 else 0)
        for x, weight in zip(task["x"], task["weight"], strict=True):
            close(weight, wanted, "`batch` new rows, as many dreams, and the weights of this task")
            expect(len(public.dreams(x[:5])) == 0, "new rows first, dreams behind them")
        idea = "weighted cross-entropy, labels of the frozen solver"
        close(task["after"], public.rehearsed(task, 0.5), idea)


def test_3e_every_row_is_drawn_sooner_or_later(adapters):
    xs, ys = public.tasks(11, sizes=(4,))
    (task,) = adapters.train_tasks(random(3, 6, 4), xs, ys, 40, 2, 0.1, 11)
    drawn = torch.cat(task["x"]).unique(dim=0)
    expect(len(drawn) == 4, "some rows are never drawn: all of the task counts, the last one too")


def test_3e_dreams_are_fresh_in_each_step(adapters):
    second = public.taught(adapters, seed=9)[1]
    dreamt = torch.cat([public.dreams(x) for x in second["x"]])
    expect(len(dreamt.unique(dim=0)) == len(dreamt), "dream anew in each step")
