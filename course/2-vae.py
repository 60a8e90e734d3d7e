# %% [markdown]
# # 2. A variational autoencoder
#
# *About 4 hours. No GPU needed, and no network. You need to know what a normal distribution and
# an expectation are. Chapter to read before: "A VAE, from its equation to the core's class".*
#
# To replay the past you need something that dreams it. A VAE is two networks: an *encoder* gives,
# for each image, a normal distribution of latents, by its mean and the logarithm of its variance;
# a *decoder* turns a latent into an image. You will write the four lines on which everything
# hangs, and then put them together.
#
# Work as in the first assignment: replace each `raise NotImplementedError`, run the cell, run the
# `check` below it. Every part is judged alone: an error in one doesn't follow you into the next.

# %%
import math

import torch
from torch import nn
from torch.nn import functional as F

from genreplay_core import book, generators, load, plots
from genreplay_core.course import check

# %% [markdown]
# ## 2a. The Kullback-Leibler divergence
#
# For each image, how far is the encoder's distribution from the standard normal? With mean
# $\mu_d$ and variance $\sigma_d^2$ in each of $D$ latent dimensions,
#
# $$ \mathrm{KL} = \tfrac12 \sum_{d=1}^{D} ( \sigma_d^2 + \mu_d^2 - 1 - \log \sigma_d^2 ) . $$
#
# The encoder gives $\log \sigma_d^2$, the log *variance*: any number will do for it, and the
# variance is positive all the same. **Sum over latent dimensions, one number for each image.**


# %%
def gaussian_kl(mean, logvar):
    """KL of N(mean, exp(logvar)) and N(0, 1): mean, logvar (N, D) -> (N,)."""
    ### BEGIN SOLUTION
    return 0.5 * (logvar.exp() + mean.square() - 1 - logvar).sum(1)
    ### END SOLUTION


# %%
check("2a", globals())

# %% [markdown]
# ## 2b. Reparameterisation
#
# The decoder wants a latent drawn from $N(\mu, \sigma^2)$. A random draw has no gradient; but a
# draw can be written as a function of the mean, the standard deviation, and *noise that depends
# on nothing*: standard normal numbers, scaled and shifted. Through that function the gradient
# reaches the encoder. Mind that a standard deviation is the square root of a variance, and you
# have the variance's logarithm.


# %%
def reparameterise(mean, logvar, noise):
    """Latents of N(mean, exp(logvar)), made of standard normal noise; all are (N, D)."""
    ### BEGIN SOLUTION
    return mean + (0.5 * logvar).exp() * noise
    ### END SOLUTION


# %%
check("2b", globals())

# %% [markdown]
# ## 2c. The evidence lower bound
#
# Pixels lie between 0 and 1. The decoder gives a logit for each of them, and the image's
# likelihood is measured by the binary cross-entropy of pixel and logit
# (`F.binary_cross_entropy_with_logits`), which does the sigmoid itself. The negative evidence
# lower bound of one image is
#
# $$ \underbrace{\sum_{\text{pixels}} \mathrm{BCE}(\text{logit}, x)}_{\text{rebuilt how badly?}}
#    + \mathrm{KL} . $$
#
# Both terms belong to *one image*, so the pixels are summed, not averaged: else the KL would
# weigh as many times too much as there are pixels. Then, to get a number of handy size that
# doesn't depend on the batch: **divide by the number of pixels, and average over the images.**


# %%
def negative_elbo(logits, x, kl):
    """The loss, one number: mean over images of (summed cross-entropy + kl) / pixels.

    logits: of each pixel, (N, *shape). x: images in [0, 1], (N, *shape). kl: (N,).
    """
    ### BEGIN SOLUTION
    rebuilt = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    return ((rebuilt + kl) / x[0].numel()).mean()
    ### END SOLUTION


# %%
check("2c", globals())

# %% [markdown]
# ## 2d. Sampling
#
# To dream, forget the encoder: draw latents from the standard normal, a fresh one for each image,
# decode them, and make pixels of the logits. A dream is data, not a step of training: eval mode,
# no gradient, and the decoder's mode is put back.


# %%
def sample(decoder, n, latent_dim):
    """n images in [0, 1] from a decoder (N, latent_dim) -> logits (N, pixels)."""
    ### BEGIN SOLUTION
    mode = decoder.training
    decoder.eval()
    with torch.no_grad():
        images = decoder(torch.randn(n, latent_dim)).sigmoid()
    decoder.train(mode)
    return images
    ### END SOLUTION


# %%
check("2d", globals())

# %% [markdown]
# ## 2e. The whole of it, as a generator
#
# A generator, to the core, is an `nn.Module` with three things: `latent_dim`; `decode(z)`, noise
# to images in [0, 1]; and `train_step(x)`, which takes one step on a batch and returns the loss.
# Write such a one. So that no slip above follows you, take the divergence from the core:
# `generators.gaussian_kl(mean, logvar, zero, zero)` with `zero = torch.zeros_like(mean)`; the
# rest is short enough to write again.
#
# The networks are given. What is left: the optimiser (Adam with learning rate 0.001, over **all**
# that is to be learned), one step of it, and the images. `self.encoder` gives means and log
# variances side by side, `(N, 2 * latent_dim)`: cut them apart with `.chunk(2, 1)`.


# %%
class VAE(nn.Module):
    """encoder: (N, *shape) -> (N, 2 * latent_dim). decoder: (N, latent_dim) -> logits."""

    def __init__(self, shape, latent_dim=8, hidden=100):
        super().__init__()
        self.shape, self.latent_dim = shape, latent_dim
        pixels = math.prod(shape)
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden), nn.ReLU(), nn.Linear(hidden, pixels)
        )
        ### BEGIN SOLUTION
        self.optimiser = torch.optim.Adam(self.parameters(), lr=1e-3)
        ### END SOLUTION

    def decode(self, z):
        """Noise (N, latent_dim) -> images (N, *shape) in [0, 1]."""
        ### BEGIN SOLUTION
        return self.decoder(z).sigmoid().view(-1, *self.shape)
        ### END SOLUTION

    def train_step(self, x):
        """One step on images x (N, *shape): returns the loss of 2c as it was before the step."""
        ### BEGIN SOLUTION
        mean, logvar = self.encoder(x).chunk(2, 1)
        logits = self.decoder(mean + (0.5 * logvar).exp() * torch.randn_like(mean))
        zero = torch.zeros_like(mean)
        kl = generators.gaussian_kl(mean, logvar, zero, zero)
        rebuilt = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)
        loss = ((rebuilt + kl) / x[0].numel()).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()
        ### END SOLUTION


# %%
check("2e", globals())

# %% [markdown]
# ## See it
#
# Nothing to be written here. Does it dream digits?

# %%
torch.manual_seed(0)
train = load("digits")[0]
model = VAE((1, 8, 8))
steps = 50 if book.profile() == "ci" else 2000  # "ci": a machine tries whether the notebook runs
losses = [model.train_step(train.x[torch.randint(len(train), (64,))]) for _ in range(steps)]
print("loss at first", round(float(losses[0]), 3), "and at last", round(float(losses[-1]), 3))

# %%
dreams = model.decode(torch.randn(24, model.latent_dim)).detach()
drawn = plots.dreams([("real", train.x[:12]), ("mine", dreams[:12]), ("mine", dreams[12:])])
book.picture(drawn, "A row of real digits, and two rows of dreams")

# %% [markdown]
# **Think about it** (not marked; bring your answers to class):
#
# 1. Double the KL in the loss, or halve it. What changes in the dreams, and which of the two do
#    you *not* see in the rebuilt images?
# 2. Dreams look paler and softer than real digits. Which term of the loss asks for that?
# 3. What would a generator that stores all images and shows a random one reach in this notebook,
#    and why isn't it what we want?
