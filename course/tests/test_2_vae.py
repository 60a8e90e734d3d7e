"""Public tests of the second assignment. A part is done when all tests of it pass."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from genreplay_core.course import close, digits, expect, normal, uniform

MEAN = torch.tensor([[0.0, 1.0, -2.0], [0.5, 0.0, 0.0]])
LOGVAR = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 2.0, 0.0]])
NOISE = torch.tensor([[1.0, -1.0, 2.0], [0.5, 0.0, -3.0]])


def kl_of(mean, logvar):
    ours, prior = Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)
    return kl_divergence(ours, prior).sum(1)


def test_2a_there_is_one_number_for_each_image(adapters):
    found = adapters.gaussian_kl(MEAN, LOGVAR)
    idea = "your KL mixes the images: sum over the latents of each image, not over the batch"
    expect(tuple(found.shape) == (2,), idea)


def test_2a_it_is_the_closed_form(adapters):
    found = adapters.gaussian_kl(MEAN, LOGVAR)
    close(found, kl_of(MEAN, LOGVAR), "exp(logvar) is the variance; each latent adds its share")


def test_2a_it_is_zero_for_the_standard_normal_alone(adapters):
    found = adapters.gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3))
    close(found, [0.0], "the divergence of a distribution from itself is 0")


def test_2b_noise_is_scaled_by_the_standard_deviation_and_shifted_by_the_mean(adapters):
    found = adapters.reparameterise(MEAN, LOGVAR, NOISE)["z"]
    wanted = MEAN + LOGVAR.exp().sqrt() * NOISE
    close(found, wanted, "the standard deviation is the square root of exp(logvar), the variance")


def test_2b_the_gradient_reaches_the_mean(adapters):
    found = adapters.reparameterise(MEAN, LOGVAR, NOISE)["mean"]
    close(found, torch.ones(2, 3), "no gradient reaches the mean: the encoder can't learn")


def test_2b_the_gradient_reaches_the_log_variance(adapters):
    found = adapters.reparameterise(MEAN, LOGVAR, NOISE)["logvar"]
    wanted = 0.5 * (0.5 * LOGVAR).exp() * NOISE
    close(found, wanted, "no gradient, or a wrong one, reaches the log variance")


def test_2c_it_is_the_summed_cross_entropy_and_the_divergence_for_a_pixel(adapters):
    x, logits, kl = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.tensor([4.0, 0.0])
    found = adapters.negative_elbo(logits, x, kl)
    idea = "(cross-entropy summed over pixels + KL) / pixels: mind how much the KL weighs"
    close(found, math.log(2) + 0.5, idea)


def test_2c_it_doesn_t_grow_with_the_batch(adapters):
    x, logits, kl = uniform(1, 3, 1, 2, 2), normal(2, 3, 1, 2, 2), uniform(3, 3)
    once = adapters.negative_elbo(logits, x, kl)
    twice = adapters.negative_elbo(torch.cat([logits] * 2), torch.cat([x] * 2), kl.repeat(2))
    close(twice, once, "your loss grows with the batch: average over images, sum over pixels")


def test_2c_a_certain_and_right_answer_costs_nothing(adapters):
    x = torch.tensor([[1.0, 0.0, 1.0]])
    found = adapters.negative_elbo(100 * (2 * x - 1), x, torch.zeros(1))
    close(found, 0.0, "the decoder gives logits: no sigmoid before the cross-entropy with logits")


def test_2d_latents_are_standard_normal(adapters):
    images = adapters.sample(torch.eye(3), 4000, 0)["images"]
    expect(images.min() > 0 and images.max() < 1, "make pixels of the logits: a sigmoid is missing")
    z = images.logit()
    spread = "draw latents with torch.randn: mean 0, deviation 1"
    expect(z.mean().abs() < 0.05 and (z.std() - 1).abs() < 0.05, spread)


def test_2d_each_image_has_a_latent_of_its_own(adapters):
    images = adapters.sample(torch.eye(3), 50, 1)["images"]
    expect(len(images.unique(dim=0)) == 50, "all images come from the same latent")


def test_2d_a_dream_is_not_a_step_of_training(adapters):
    found = adapters.sample(torch.eye(3), 400, 2)
    off = "dropout was on while you dreamt: decoder.eval() first"
    expect(float(found["images"].eq(0.5).float().mean()) < 0.01, off)
    expect(found["training"] is True, "the decoder is left in another mode than it was found in")
    expect(found["graph"] is False, "the dreams carry a gradient: use torch.no_grad()")


def test_2e_the_loss_is_the_negative_elbo(adapters):
    x, ones, zeros = uniform(4, 5, 1, 2, 2), torch.ones(3), torch.zeros(3)
    found = adapters.vae_loss(x, zeros, zeros, 0.0)
    close(found, math.log(2), "with a grey image the cross-entropy of a pixel is log 2")
    found = adapters.vae_loss(x, ones, zeros, 0.0)
    close(found, math.log(2) + 1.5 / 4, "the KL is missing in your loss, or weighs too much")


def test_2e_all_of_it_learns(adapters):
    found = adapters.vae_learns(digits()[:500], 60, 0)
    still = ", ".join(found["still"])
    expect(not still, f"{still} never moved: give the optimiser all parameters")
    fall = found["losses"][0] - sum(found["losses"][-10:]) / 10
    expect(fall > 0.1, "the loss hardly falls: zero_grad, backward, step, in this order")


def test_2e_it_dreams_images(adapters):
    dreams = adapters.vae_learns(digits()[:500], 5, 1)["dreams"]
    expect(tuple(dreams.shape) == (64, 1, 8, 8), "decode gives images (N, *shape)")
    expect(dreams.min() >= 0 and dreams.max() <= 1, "pixels lie in [0, 1]: a sigmoid is missing")
