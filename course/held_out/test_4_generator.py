"""The graders' tests of the fourth assignment: other shapes, seeds and edges."""

from pathlib import Path

import numpy as np
import torch

from genreplay_core.course import close, digits, expect, module

public = module(Path(__file__).parents[1] / "tests" / "test_4_generator.py")


def random(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def test_4a_other_shapes(adapters):
    if public.chosen(adapters) == "flow":
        t = random(1, 9, 1).sigmoid()
        public.flow_path(adapters, random(2, 9, 13), random(3, 9, 13), t)
    else:
        for shape in ((5, 3, 4, 4), (1, 1, 8, 8), (4, 7)):
            real, fake = random(1, *shape), random(2, *shape)
            mix = random(3, shape[0]).sigmoid().view(-1, *[1] * (len(shape) - 1))
            weight = 0.3 * random(4, real[0].numel(), 1)
            public.penalised(adapters, weight, real, fake, mix)
            public.penalised(adapters, weight, real, fake, mix, squared=True)


def test_4b_other_numbers(adapters):
    if public.chosen(adapters) == "flow":
        for steps in (1, 3, 10):
            public.walked(adapters, random(steps, 6, 5), steps, -0.7, 2.0)
    else:
        rows, penalty = random(1, 9).softmax(0), random(2, 9).square()
        real, fake = random(3, 9, 1, 3, 3), random(4, 9, 1, 3, 3)
        public.judged(adapters, random(5, 9, 1), real, fake, rows, penalty)


def test_4c_another_shape(adapters):
    once, again, _ = adapters.protocol((2, 5, 4), 7)["images"]
    expect(tuple(once.shape) == (5, 2, 5, 4), "decode gives images (N, *shape), of any shape")
    expect(torch.equal(once, again), "the same noise gives the same image")
    expect(once.min() >= 0 and once.max() <= 1, "pixels lie in [0, 1]")


def test_4c_all_the_weight_on_one_row(adapters):
    x = digits()[20:36]
    weight = torch.zeros(16)
    weight[3] = 1.0
    other = torch.cat([x[:3] * 0, x[3:4], 1 - x[4:]])
    found = [adapters.weighted(images, weight, 5)["after"] for images in (x, other)]
    close(*found, "a row of weight 0 changes what is learned", within=1e-5)


def test_4d_in_the_domain_scenario(adapters):
    R = adapters.remembers("domain", False, 60, 2)["R"]
    expect(tuple(R.shape) == (3, 2), "T + 1 rows and T columns")
    expect(R[2, 0] > 0.6, "with the stream's legend it works in every scenario, not in one alone")
