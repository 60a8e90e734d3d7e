"""The graders' tests of the second assignment: other shapes, seeds and edges."""

import math

import numpy as np
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from genreplay_core.course import close, digits, expect


def random(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def test_2a_random_distributions(adapters):
    for n, latents in ((1, 1), (1, 9), (17, 4)):
        mean, logvar = random(n, n, latents), random(n + 1, n, latents)
        wanted = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
        close(adapters.gaussian_kl(mean, logvar)["kl"], wanted, "the closed form, for any shape")


def test_2b_random_noise(adapters):
    mean, logvar, noise = (random(seed, 11, 6) for seed in (1, 2, 3))
    found = adapters.reparameterise(mean, logvar, noise)
    close(found["z"], mean + (0.5 * logvar).exp() * noise, "mean + deviation * noise")
    close(found["logvar"], 0.5 * (0.5 * logvar).exp() * noise, "the log variance's gradient")


def test_2b_a_small_variance_leaves_the_mean(adapters):
    mean = random(4, 3, 2)
    found = adapters.reparameterise(mean, torch.full((3, 2), -60.0), torch.ones(3, 2))["z"]
    close(found, mean, "without variance, a draw is the mean itself")


def test_2c_random_images_of_several_shapes(adapters):
    for shape in ((4, 6), (2, 3, 5, 5), (1, 1, 8, 8)):
        logits, x, kl = random(1, *shape), random(2, *shape).sigmoid(), random(3, shape[0]).abs()
        rebuilt = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        wanted = (rebuilt + kl.sum()) / x.numel()
        found = adapters.negative_elbo(logits, x, kl)["loss"]
        close(found, wanted, "sum over all pixels of an image")


def test_2d_another_decoder(adapters):
    weight = 0.5 * random(7, 2, 5)
    found = adapters.sample(weight, 3000, 5)
    idea = "gradients are off for all that comes after: `with torch.no_grad():` puts them back"
    expect(found["off"] is False, idea)
    images = found["images"]
    expect(tuple(images.shape) == (3000, 5), "one image for each latent")
    found = torch.cov(images.logit().T)
    close(found, weight.T @ weight, "draw latents with torch.randn: deviation 1", within=0.1)


def test_2e_means_and_variances_both_count(adapters):
    x, mean, logvar = random(1, 7, 1, 3, 3).sigmoid(), random(2, 2), random(3, 2)
    kl = 0.5 * (logvar.exp() + mean.square() - 1 - logvar).sum()
    found = adapters.vae_step(x, mean, logvar, torch.zeros(2, 9))["loss"]
    close(found, math.log(2) + kl / 9, "cross-entropy and KL")


def test_2e_images_of_another_shape(adapters):
    dreams = adapters.vae_learns(random(4, 20, 2, 5, 3).sigmoid(), 2, 0)["dreams"]
    expect(tuple(dreams.shape) == (64, 2, 5, 3), "decode gives images (N, *shape), of any shape")


def test_2e_it_learns_to_dream_about_as_much_ink_as_there_is(adapters):
    x = digits()[500:1200]
    found = adapters.vae_learns(x, 200, 3)
    ink = found["dreams"].mean(0) - x.mean(0)
    expect(ink.abs().mean() < 0.12, "your dreams don't look like the data, not even on average")
