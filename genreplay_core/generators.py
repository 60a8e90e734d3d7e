"""Generators: three families, one protocol.

A generator turns standard normal noise into images and learns from batches of them:

    latent_dim                        how many noise numbers make an image
    decode(z, y=None) -> x            z (N, latent_dim) -> images (N, *shape) in [0, 1]
    train_step(x, y=None, weight=None, z=None) -> loss

`y` (N,) are class codes, `weight` (N,) row weights that sum to one (even if not given), `z` the
noise from which the last rows of x were dreamt, if that is told (see `Generative.align`). Each
generator here owns its optimisers and takes one step of each in `train_step`; one that was told
the number of `classes` is conditional and needs `y`, the others ignore it. The loss comes back
as a tensor on the device, without a graph: nothing in a step waits for the device.

Your own generator needs no more than `latent_dim`, `decode(z)` and `train_step(x)`; `adapt.py`
says what happens to the rest.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .nets import Shape, adam, conv_decoder, conv_encoder, descend, evaluating, mlp, mlp_decoder


@runtime_checkable
class Generator(Protocol):
    """What replay asks of a generator (which is an `nn.Module` too)."""

    latent_dim: int

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor: ...

    def train_step(
        self,
        x: Tensor,
        y: Tensor | None = None,
        weight: Tensor | None = None,
        z: Tensor | None = None,
    ) -> Tensor: ...


def even(x: Tensor) -> Tensor:
    """Row weights (N,) that count every row of x alike."""
    return x.new_full((len(x),), 1 / len(x))


def fresh_rows(x: Tensor, z: Tensor | None) -> int:
    """How many rows of x come before the dreams whose noise z is known."""
    return len(x) if z is None else len(x) - len(z)


class ClassCode(nn.Module):
    """Appends the one-hot class code to a vector; with no classes, appends nothing."""

    one_hot: Tensor

    def __init__(self, classes: int | None):
        super().__init__()
        self.classes = classes
        self.register_buffer("one_hot", torch.eye(classes or 0), persistent=False)

    def forward(self, h: Tensor, y: Tensor | None) -> Tensor:
        if self.classes is None:
            return h
        if y is None:
            raise ValueError(
                f"this generator is conditional on {self.classes} classes: give their codes as y"
            )
        return torch.cat([h, F.embedding(y, self.one_hot)], 1)  # (N, h + classes)


# ---------------------------------------------------------------- variational autoencoder


class VAE(nn.Module):
    """Variational autoencoder (Kingma and Welling 2014), conditional if told the classes.

    The loss of a row is `(binary cross-entropy summed over pixels + KL) / pixels`. Unconditional,
    the prior is a standard normal. Conditional, the class code goes to the decoder and each class
    has a Gaussian prior of its own, whose mean and variance are learnt; `decode` still takes
    standard normal noise and shifts it to the class's prior.

    Args:
        encoder: images (N, *shape) -> (N, 2 * latent_dim), mean and log variance.
        decoder: (N, latent_dim + classes) -> images before the sigmoid.
        latent_dim: size of the latent.
        classes: number of class codes, or None for an unconditional VAE.
        lr: learning rate of Adam.
    """

    prior: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        classes: int | None = None,
        lr: float = 1e-3,
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder, self.decoder = encoder, decoder
        self.code = ClassCode(classes)
        table = torch.zeros(classes or 1, 2 * latent_dim)  # mean and log variance of each prior
        if classes is None:
            self.register_buffer("prior", table, persistent=False)
        else:
            self.prior = nn.Parameter(table)
        self.optimiser = adam(self.parameters(), lr)

    def prior_of(self, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the prior, (N, latent_dim) each, or (1, latent_dim)."""
        rows = self.prior[:1] if y is None else F.embedding(y, self.prior)
        mean, logvar = rows.chunk(2, 1)
        return mean, logvar

    def from_prior(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Standard normal noise as latents of the prior, (N, latent_dim)."""
        mean, logvar = self.prior_of(y)
        return mean + (0.5 * logvar).exp() * z

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        y = y if self.code.classes else None
        return self.decoder(self.code(self.from_prior(z, y), y)).to(z.dtype).sigmoid()

    def train_step(
        self,
        x: Tensor,
        y: Tensor | None = None,
        weight: Tensor | None = None,
        z: Tensor | None = None,
    ) -> Tensor:
        y = y if self.code.classes else None
        weight = even(x) if weight is None else weight
        return descend(self.optimiser, self.loss(x, y, weight, z))

    def loss(self, x: Tensor, y: Tensor | None, weight: Tensor, z: Tensor | None = None) -> Tensor:
        """Weighted sum over rows of the negative evidence lower bound, divided by the pixels.

        Rows whose noise is known (the last `len(z)`) need no encoder: their loss is the
        cross-entropy between the image that the prior and decoder now make of that noise and
        the one that the old generator made.
        """
        fresh = fresh_rows(x, z)
        y_fresh, y_dreamt = (None, None) if y is None else (y[:fresh], y[fresh:])
        mean, logvar = self.encoder(x[:fresh]).chunk(2, 1)  # (fresh, latent_dim)
        latent = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        if z is not None:
            latent = torch.cat([latent, self.from_prior(z, y_dreamt)])
        logits = self.decoder(self.code(latent, y))
        per_row = weight.view(-1, *[1] * (x.dim() - 1))
        rebuilt = F.binary_cross_entropy_with_logits(logits, x, per_row, reduction="sum")
        kl = gaussian_kl(mean, logvar, *self.prior_of(y_fresh))
        return (rebuilt + weight[:fresh] @ kl) / x[0].numel()


def gaussian_kl(mean: Tensor, logvar: Tensor, mean_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(N(mean, e^logvar) || N(mean_p, e^logvar_p)) of diagonal Gaussians, (N, D) -> (N,)."""
    gap = logvar - logvar_p
    squared = (mean - mean_p).square() * (-logvar_p).exp()
    return 0.5 * (gap.exp() + squared - 1 - gap).sum(1)


def mlp_vae(
    shape: Shape, classes: int | None = None, latent_dim: int = 100, hidden: int = 400
) -> VAE:
    """The published VAE: pixels-400-400-z100-400-400-pixels on MNIST."""
    encoder = nn.Sequential(nn.Flatten(), mlp([math.prod(shape), hidden, hidden, 2 * latent_dim]))
    decoder = mlp_decoder(latent_dim + (classes or 0), shape, hidden)
    return VAE(encoder, decoder, latent_dim, classes)


def conv_vae(shape: Shape, classes: int | None = None, latent_dim: int = 64) -> VAE:
    """A convolutional VAE for images (c, h, w)."""
    encoder = conv_encoder(shape, 2 * latent_dim)
    return VAE(encoder, conv_decoder(latent_dim + (classes or 0), shape), latent_dim, classes)


# ---------------------------------------------------------------- Wasserstein GAN


class WGANGP(nn.Module):
    """Wasserstein GAN with gradient penalty (Gulrajani et al. 2017), the paper's generator.

    A `train_step` is `critic_steps` steps of the critic and one of the generator, on one batch.
    Row weights enter every term, so that a batch of real and replayed rows is judged in the
    mixture that the generator is to learn. Use no batch norm in the critic: the penalty holds
    for each image alone.

    Args:
        network: (N, latent_dim + classes) -> images before the sigmoid.
        critic: images -> (N, classes), one score for each class, or (N, 1) without classes: as a
            projection discriminator (Miyato and Koyama 2018), it can't overlook the class.
        critic_steps: critic steps in a `train_step`.
        penalty: weight of the gradient penalty.
        one_sided: punish only slopes above 1.
        lr: learning rates of the generator and of the critic.
    """

    def __init__(
        self,
        network: nn.Module,
        critic: nn.Module,
        latent_dim: int,
        classes: int | None = None,
        critic_steps: int = 1,
        penalty: float = 10.0,
        one_sided: bool = False,
        lr: tuple[float, float] = (1e-3, 1e-3),
    ):
        super().__init__()
        self.latent_dim = latent_dim
        self.network, self.critic = network, critic
        self.code = ClassCode(classes)
        self.critic_steps, self.penalty = critic_steps, penalty
        self.lowest = 0.0 if one_sided else -math.inf
        self.optimiser = adam(network.parameters(), lr[0], betas=(0.5, 0.9))
        self.critic_optimiser = adam(critic.parameters(), lr[1], betas=(0.5, 0.9))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return self.network(self.code(z, y)).to(z.dtype).sigmoid()  # autocast's are shorter

    def score(self, x: Tensor, y: Tensor | None) -> Tensor:
        """The critic's score of each image, (N,): higher is more real."""
        scores = self.critic(x)
        if self.code.classes is None or y is None:
            return scores.squeeze(1)
        return scores.gather(1, y.unsqueeze(1)).squeeze(1)

    def train_step(
        self,
        x: Tensor,
        y: Tensor | None = None,
        weight: Tensor | None = None,
        z: Tensor | None = None,
    ) -> Tensor:
        weight = even(x) if weight is None else weight
        fresh = fresh_rows(x, z)
        y_fresh = None if y is None else y[:fresh]
        for _ in range(self.critic_steps):
            critic_loss = self.critic_loss(x[:fresh], y_fresh, weight[:fresh])
            loss = descend(self.critic_optimiser, critic_loss)
        descend(self.optimiser, self.generator_loss(x, y, weight, z))
        return loss

    def generator_loss(
        self, x: Tensor, y: Tensor | None, weight: Tensor, z: Tensor | None = None
    ) -> Tensor:
        """-E[score(fake)], and for dreams whose noise is known the squared distance, summed over
        pixels, between the image that this noise makes now and the one that it made."""
        fresh = fresh_rows(x, z)
        noise = noise_for(self, fresh)
        fake = self.decode(noise if z is None else torch.cat([noise, z]), y)
        y_fresh = None if y is None else y[:fresh]
        loss = -(weight[:fresh] @ self.score(fake[:fresh], y_fresh))
        if z is None:
            return loss
        return loss + weight[fresh:] @ (fake[fresh:] - x[fresh:]).flatten(1).square().sum(1)

    def critic_loss(self, x: Tensor, y: Tensor | None, weight: Tensor) -> Tensor:
        """E[score(fake)] - E[score(real)] + penalty, expectations weighted by row."""
        with torch.no_grad():
            fake = self.decode(noise_for(self, len(x)), y)
        gap = self.score(fake, y) - self.score(x, y)
        return weight @ (gap + self.penalty * self.gradient_penalty(x, fake, y))

    def gradient_penalty(self, x: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        """`(|slope| - 1)^2` of the score at a random point between x and fake, (N,)."""
        mix = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device)
        between = torch.lerp(x, fake, mix).requires_grad_()
        (slope,) = torch.autograd.grad(self.score(between, y).sum(), between, create_graph=True)
        norm = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()  # the root's slope at 0 is inf
        return (norm - 1).clamp(min=self.lowest).square()


def mlp_wgan(
    shape: Shape,
    classes: int | None = None,
    latent_dim: int = 100,
    hidden: int = 400,
    critic_steps: int = 1,
) -> WGANGP:
    """A WGAN-GP of two-layer perceptrons."""
    sizes = [math.prod(shape), hidden, hidden, classes or 1]
    critic = nn.Sequential(nn.Flatten(), mlp(sizes, lambda: nn.LeakyReLU(0.2)))
    network = mlp_decoder(latent_dim + (classes or 0), shape, hidden)
    return WGANGP(network, critic, latent_dim, classes, critic_steps)


def conv_wgan(
    shape: Shape, classes: int | None = None, latent_dim: int = 64, critic_steps: int = 1
) -> WGANGP:
    """A convolutional WGAN-GP for images (c, h, w)."""
    critic = conv_encoder(shape, classes or 1)
    network = conv_decoder(latent_dim + (classes or 0), shape)
    return WGANGP(network, critic, latent_dim, classes, critic_steps)


# ---------------------------------------------------------------- flow matching


class FlowMatching(nn.Module):
    """Flow matching on straight paths (Lipman et al. 2023; Liu et al. 2023).

    The path `x_t = (1 - t) z + t x` leads from noise z to an image x. The network sees x_t, t and
    the class code and predicts the image x itself; the velocity of the path is then
    `(x - x_t) / (1 - t)`. Predicting x rather than the velocity lets a narrow network do: images
    fill few of the pixel space's directions, noise fills all. Sampling follows the velocity from
    t = 0 to 1 in `ode_steps` Euler steps; the last one lands on the prediction.

    Args:
        network: (N, pixels + 1 + classes) -> images before the sigmoid.
        shape: of one image; latent_dim is its number of pixels.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Shape,
        classes: int | None = None,
        ode_steps: int = 10,
        lr: float = 1e-3,
    ):
        super().__init__()
        self.shape, self.latent_dim, self.ode_steps = tuple(shape), math.prod(shape), ode_steps
        self.network, self.code = network, ClassCode(classes)
        self.optimiser = adam(self.parameters(), lr)

    def image_logits(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """The predicted image before the sigmoid. x_t (N, pixels) in about [-1, 1], t (N, 1)."""
        logits = self.network(self.code(torch.cat([x_t, t], 1), y))
        return logits.to(x_t.dtype)  # autocast's are shorter

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x_t = z
        for left in range(self.ode_steps, 0, -1):  # t = 1 - left / ode_steps
            t = z.new_full((len(z), 1), 1 - left / self.ode_steps)
            x = 2 * self.image_logits(x_t, t, y).sigmoid().flatten(1) - 1
            x_t = torch.lerp(x_t, x, 1 / left)  # x_t + (x - x_t) / (1 - t) / ode_steps
        return (x_t.view(-1, *self.shape) + 1) / 2

    def train_step(
        self,
        x: Tensor,
        y: Tensor | None = None,
        weight: Tensor | None = None,
        z: Tensor | None = None,
    ) -> Tensor:
        weight = even(x) if weight is None else weight
        return descend(self.optimiser, self.loss(x, y, weight, z))

    def loss(self, x: Tensor, y: Tensor | None, weight: Tensor, z: Tensor | None = None) -> Tensor:
        """Weighted squared error of the predicted image, averaged over pixels, in [-1, 1] units.

        The velocity's error is this divided by (1 - t)^2, which would let the last moments
        outweigh all else; dividing by (1 - t), bounded, keeps both ends of the path in view.
        A dream whose noise is known is put at the end of its own path (reflow, Liu et al. 2023).
        """
        data, fresh = 2 * x.flatten(1) - 1, fresh_rows(x, z)
        noise = torch.randn_like(data[:fresh])
        noise = noise if z is None else torch.cat([noise, z])
        t = torch.rand(len(x), 1, device=x.device)
        x_t = torch.lerp(noise, data, t)
        guess = 2 * self.image_logits(x_t, t, y).sigmoid().flatten(1) - 1
        error = (guess - data).square().mean(1)
        return (weight / (1 - t.squeeze(1)).clamp(min=0.1)) @ error


def mlp_flow(
    shape: Shape, classes: int | None = None, hidden: int = 400, ode_steps: int = 10
) -> FlowMatching:
    """Flow matching with a two-layer perceptron."""
    network = mlp_decoder(math.prod(shape) + 1 + (classes or 0), shape, hidden)
    return FlowMatching(network, shape, classes, ode_steps)


# ---------------------------------------------------------------- sampling


def noise_for(generator: Any, n: int) -> Tensor:
    """Standard normal noise for n images, (n, latent_dim), on the generator's device."""
    tensors = itertools.chain(generator.parameters(), generator.buffers())
    device = next(tensors, torch.empty(0)).device
    return torch.randn(n, generator.latent_dim, device=device)


def dream(generator: Any, z: Tensor, y: Tensor | None = None) -> Tensor:
    """The images (n, *shape) in [0, 1] of noise z (n, latent_dim), of the classes y (n,) if the
    generator is conditional. In eval mode, without gradient; the generator's mode is restored."""
    with evaluating(generator):
        return generator.decode(z) if y is None else generator.decode(z, y)


def sample(generator: Any, n: int, y: Tensor | None = None) -> Tensor:
    """n images of fresh noise; see `dream`."""
    return dream(generator, noise_for(generator, n), y)
