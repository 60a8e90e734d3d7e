"""Public tests of the second assignment. A part is done when all tests of it pass."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from genreplay_core.course import close, digits, expect, mistake, normal, uniform

MEAN = torch.tensor([[0.0, 1.0, -2.0], [0.5, 0.0, 0.0]])
LOGVAR = torch.tensor([[0.0, 0.0, 1.0], [-1.0, 2.0, 0.0]])
NOISE = torch.tensor([[1.0, -1.0, 2.0], [0.5, 0.0, -3.0]])


def kl_of(mean, logvar):
    ours, prior = Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)
    return kl_divergence(ours, prior).sum(1)


def test_2a_there_is_one_number_for_each_image(adapters):
    found = adapters.gaussian_kl(MEAN, LOGVAR)["kl"]
    idea = "your KL mixes the images: sum over the latents of each image, not over the batch"
    expect(tuple(found.shape) == (2,), idea)


def test_2a_it_is_the_closed_form(adapters):
    found, wanted = adapters.gaussian_kl(MEAN, LOGVAR)["kl"], kl_of(MEAN, LOGVAR)
    made = {
        "the half before the sum is missing": 2 * wanted,
        "sum over latents: each adds its share, and isn't averaged away": wanted / 3,
        "logvar is the logarithm of the variance: exp(logvar), no square, no root": kl_of(
            MEAN, 2 * LOGVAR
        ),
    }
    idea = "half the sum of variance + squared mean - 1 - log variance; exp(logvar) is the variance"
    close(found, wanted, mistake(found, made, idea))


def test_2a_it_is_zero_for_the_standard_normal_alone(adapters):
    found = adapters.gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3))["kl"]
    close(found, [0.0], "the divergence of a distribution from itself is 0")


def test_2a_it_teaches_the_encoder(adapters):
    found = adapters.gaussian_kl(MEAN, LOGVAR)
    close(found["mean"], MEAN, "no gradient, or a wrong one, reaches the mean: detach nothing")
    wanted = 0.5 * (LOGVAR.exp() - 1)
    close(found["logvar"], wanted, "no gradient, or a wrong one, reaches the log variance")


def test_2b_noise_is_scaled_by_the_standard_deviation_and_shifted_by_the_mean(adapters):
    found = adapters.reparameterise(MEAN, LOGVAR, NOISE)["z"]
    made = {
        "exp(logvar) is the variance: its square root is the standard deviation": MEAN
        + LOGVAR.exp() * NOISE
    }
    idea = "mean + standard deviation * noise, of the noise that is given"
    close(found, MEAN + LOGVAR.exp().sqrt() * NOISE, mistake(found, made, idea))


def test_2b_the_gradient_reaches_the_mean(adapters):
    found = adapters.reparameterise(MEAN, LOGVAR, NOISE)["mean"]
    close(found, torch.ones(2, 3), "no gradient reaches the mean: the encoder can't learn")


def test_2b_the_gradient_reaches_the_log_variance(adapters):
    found = adapters.reparameterise(MEAN, LOGVAR, NOISE)["logvar"]
    wanted = 0.5 * (0.5 * LOGVAR).exp() * NOISE
    close(found, wanted, "no gradient, or a wrong one, reaches the log variance")


def test_2c_it_is_the_summed_cross_entropy_and_the_divergence_for_a_pixel(adapters):
    x, logits, kl = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.tensor([4.0, 0.0])
    found = adapters.negative_elbo(logits, x, kl)["loss"]
    pixel = math.log(2)
    made = {
        "the KL weighs too much: divide it by the number of pixels too": pixel + 2,
        "the cross-entropy is averaged over pixels already, and divided again": pixel / 4 + 0.5,
        "the KL is missing": pixel,
        "divide by the number of pixels": 4 * pixel + 2,
        "the KL is subtracted: both terms are to be small": pixel - 0.5,
    }
    idea = "(cross-entropy summed over pixels + KL) / pixels, averaged over images"
    close(found, pixel + 0.5, mistake(found, made, idea))


def test_2c_it_doesn_t_grow_with_the_batch(adapters):
    x, logits, kl = uniform(1, 3, 1, 2, 2), normal(2, 3, 1, 2, 2), uniform(3, 3)
    once = adapters.negative_elbo(logits, x, kl)
    twice = adapters.negative_elbo(torch.cat([logits] * 2), torch.cat([x] * 2), kl.repeat(2))
    idea = "your loss changes with the batch: average over images, sum over pixels"
    close(twice["loss"], once["loss"], idea)


def test_2c_a_certain_and_right_answer_costs_nothing(adapters):
    x = torch.tensor([[1.0, 0.0, 1.0]])
    found = adapters.negative_elbo(100 * (2 * x - 1), x, torch.zeros(1))["loss"]
    close(found, 0.0, "the decoder gives logits: no sigmoid before the cross-entropy with logits")


def test_2c_both_terms_teach(adapters):
    x, logits, kl = uniform(1, 3, 1, 2, 2), normal(2, 3, 1, 2, 2), uniform(3, 3)
    found = adapters.negative_elbo(logits, x, kl)
    expect(found["logits"].abs().max() > 0, "no gradient reaches the logits: give back a tensor")
    expect(found["kl"].abs().max() > 0, "no gradient reaches the KL: the encoder needs it")


def test_2d_latents_are_standard_normal(adapters):
    images = adapters.sample(torch.eye(3), 4000, 0)["images"]
    expect(images.min() > 0 and images.max() < 1, "make pixels of the logits: a sigmoid is missing")
    z = images.logit()
    spread = "draw latents with torch.randn, standard deviation 1; pixels are sigmoids of logits"
    expect(z.mean().abs() < 0.05 and (z.std() - 1).abs() < 0.05, spread)


def test_2d_each_image_has_a_latent_of_its_own(adapters):
    images, others = (adapters.sample(torch.eye(3), 50, seed)["images"] for seed in (1, 2))
    expect(len(images.unique(dim=0)) > 1, "all images come from the same latent")
    expect(not torch.equal(images, others), "each call gives the same images: fix no seed")


def test_2d_a_dream_is_not_a_step_of_training(adapters):
    for mode in (True, False):
        found = adapters.sample(torch.eye(3), 400, 2, mode)
        off = "dropout was on while you dreamt: decoder.eval() first"
        expect(float(found["images"].eq(0.5).float().mean()) < 0.01, off)
        left = "the decoder is left in another mode than it was found in"
        expect(found["training"] is mode, left)
        expect(found["graph"] is False, "the dreams carry a gradient: use torch.no_grad()")


def test_2e_the_loss_is_the_negative_elbo(adapters):
    x, ones, zeros, grey = uniform(4, 5, 1, 2, 2), torch.ones(3), torch.zeros(3), torch.zeros(3, 4)
    found = adapters.vae_step(x, zeros, zeros, grey)["loss"]
    close(found, math.log(2), "with a grey image the cross-entropy of a pixel is log 2")
    found = adapters.vae_step(x, ones, zeros, grey)["loss"]
    made = {"the KL is missing in your loss": math.log(2)}
    idea = "the KL weighs too much or too little: it is divided by the pixels too"
    close(found, math.log(2) + 1.5 / 4, mistake(found, made, idea))


def test_2e_latents_are_drawn_around_the_encoder_s_mean(adapters):
    mean, logvar = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 1.5])
    x, grey = uniform(6, 4000, 1, 2, 2), torch.zeros(2, 4)
    z, other = (adapters.vae_step(x, mean, logvar, grey)["z"] for _ in range(2))
    idea = "latents are mean + standard deviation * noise, of standard normal noise"
    expect((z.mean(0) - mean).abs().max() < 0.2, idea)
    idea = "latents are spread by exp(logvar / 2), with noise of each image's own"
    close(z.std(0), (0.5 * logvar).exp(), idea, within=0.1)
    expect(not torch.equal(z, other), "each step has the same noise: draw it anew, fix no seed")


def test_2e_both_terms_teach_the_encoder(adapters):
    x, weight = uniform(7, 50, 1, 2, 2), normal(8, 2, 4)
    mean, logvar = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 1.5])
    found = adapters.vae_step(x, mean, logvar, weight)
    gap = ((found["z"] @ weight).sigmoid() - x.flatten(1)) @ weight.T / 4
    spread = 0.5 * (found["z"] - mean)
    of_kl = torch.stack([mean, 0.5 * (logvar.exp() - 1)]) / 4
    rebuilt = torch.stack([gap.mean(0), (gap * spread).mean(0)])
    told = torch.stack([found["mean"], found["logvar"]])
    made = {
        "how badly it rebuilds doesn't reach the encoder: detach no latents": of_kl,
        "the KL doesn't reach the encoder: detach nothing": rebuilt,
    }
    idea = "the encoder learns from something else than the negative evidence lower bound"
    close(told, of_kl + rebuilt, mistake(told, made, idea))


def test_2e_each_step_forgets_the_last_one_s_gradient(adapters):
    found, cleared = (adapters.vae_learns(digits()[:500], 9, 0, each) for each in (False, True))
    idea = "old gradients are added to new ones: zero_grad() before backward()"
    close(found["moves"], cleared["moves"], idea, within=1e-5)


def test_2e_one_adam_takes_all_steps(adapters):
    moves = adapters.vae_learns(digits()[:500], 9, 0, True)["moves"]
    close(1000 * moves[0], 1.0, "Adam with learning rate 0.001 begins with moves of 0.001", 0.1)
    idea = "make the optimiser once, in __init__: a new one has forgotten the steps before"
    expect(moves[-1] < 0.0009, idea)


def test_2e_all_of_it_learns(adapters):
    found = adapters.vae_learns(digits()[:500], 60, 0)
    still = ", ".join(found["still"])
    expect(not still, f"{still} never moved: give the optimiser all parameters")
    fall = found["losses"][0] - sum(found["losses"][-10:]) / 10
    expect(fall > 0.1, "the loss hardly falls: zero_grad, backward, step, in this order, each time")


def test_2e_it_dreams_images(adapters):
    found = adapters.vae_learns(digits()[:500], 5, 1)
    dreams = found["dreams"]
    expect(tuple(dreams.shape) == (64, 1, 8, 8), "decode gives images (N, *shape)")
    expect(dreams.min() >= 0 and dreams.max() <= 1, "pixels lie in [0, 1]: a sigmoid is missing")
    idea = "the same noise gives the same image: decode what is passed in, and draw nothing"
    expect(torch.equal(dreams, found["again"]), idea)
