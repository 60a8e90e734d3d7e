# %% [markdown]
# # 4. A generator of your own
#
# *About 5 hours. No GPU needed, and no network. Chapters to read before: "When is a dream good
# enough?" and "Your own data, network and generator".*
#
# A VAE's dreams are soft. Two other families dream sharper ones. **Choose one** and build it:
#
# - **flow matching**: a network learns which way to move noise so that it becomes an image
#   (Lipman, Chen, Ben-Hamu, Nickel and Le 2023; Liu, Gong and Liu 2023). Steady to train; slow to
#   sample.
# - **WGAN-GP**: a generator against a critic (Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville
#   2017); what Shin and others used. Fast to sample; moody.
#
# Say below which you chose, and solve 4a and 4b in *its* version; leave the stubs of the other as
# they are. Then 4c wraps it in the core's protocol, and 4d sets it to work. Every part is judged
# alone.

# %%
import math

import torch
from torch import nn

from genreplay_core import GenerativeReplay, accuracy, book, load, mlp_solver, mlp_vae, plots, split
from genreplay_core.course import check
from genreplay_core.nets import mlp

TRACK = "flow"  # or "wgan"

# %% [markdown]
# ## 4a, flow: the path
#
# Join each noise $z$ to an image $x$ by a straight line, walked from $t = 0$ to $t = 1$: at time
# $t$ you are at $(1 - t)\, z + t\, x$, and your velocity is constant, $x - z$. Each row of a
# batch has a time of its own.


# %%
def path(noise, image, t):
    """Where the line is at time t, and its velocity: two tensors (N, D).

    noise, image: (N, D). t: (N, 1), in [0, 1].
    """
    ### BEGIN SOLUTION
    return (1 - t) * noise + t * image, image - noise
    ### END SOLUTION


# %% [markdown]
# ## 4a, WGAN-GP: the gradient penalty
#
# The critic's score should change by at most 1 when the image moves by 1. Gulrajani and others
# ask that at a random point between a real and a fake image, $\hat x = x + m (\tilde x - x)$ with
# $m$ in [0, 1], the slope $g = \nabla_{\hat x}\, \text{critic}(\hat x)$ has length 1, and punish
# $(\lVert g \rVert - 1)^2$, for **each image alone**: the length is taken over all of its pixels.
# The penalty has to teach the critic, so the slope must itself be differentiable:
# `torch.autograd.grad(..., create_graph=True)`.


# %%
def gradient_penalty(critic, real, fake, mix):
    """(|slope| - 1)^2 at the points between, (N,).

    critic: images (N, *shape) -> scores (N, 1). real, fake: (N, *shape). mix: (N, 1, ...) in
    [0, 1], ready to be multiplied: 0 stands for the real image, 1 for the fake one.
    """
    ### BEGIN SOLUTION
    between = (real + mix * (fake - real)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square()
    ### END SOLUTION


# %%
check("4a", globals())

# %% [markdown]
# ## 4b, flow: from noise to an image
#
# Someone tells you the velocity at every place and time. Walk: start in the noise at $t = 0$, and
# take `steps` equal steps of $1 / \text{steps}$ until $t = 1$; in each, move by the step times
# the velocity *where you are at its beginning* (Euler's method). The first step asks for $t = 0$,
# and the last one doesn't ask for $t = 1$ any more.


# %%
def integrate(velocity, z, steps):
    """Where the walk from z (N, D) ends.

    velocity: a function (x, t) -> (N, D), with x (N, D) and t (N, 1).
    """
    ### BEGIN SOLUTION
    x = z
    for step in range(steps):
        t = torch.full((len(z), 1), step / steps)
        x = x + velocity(x, t) / steps
    return x
    ### END SOLUTION


# %% [markdown]
# ## 4b, WGAN-GP: two losses
#
# The critic gives real images high scores and fakes low ones; what it *minimises* is the mean of
# score(fake) - score(real), plus the penalty. The generator wants its fakes scored high. Means
# are weighted by row: `weight` sums to 1, so that replayed rows count as they should. `penalty`
# is 10 times the gradient penalty of each row, or whatever you are given.


# %%
def critic_loss(critic, real, fake, weight, penalty):
    """What the critic minimises, one number. weight, penalty: (N,); weight sums to 1."""
    ### BEGIN SOLUTION
    return weight @ (critic(fake).squeeze(1) - critic(real).squeeze(1) + penalty)
    ### END SOLUTION


def generator_loss(critic, fake, weight):
    """What the generator minimises, one number."""
    ### BEGIN SOLUTION
    return -(weight @ critic(fake).squeeze(1))
    ### END SOLUTION


# %%
check("4b", globals())

# %% [markdown]
# ## 4c. The protocol
#
# Write the generator as an `nn.Module` that the core can use:
#
# - `latent_dim`: how many noise numbers make an image;
# - `decode(z)`: noise `(N, latent_dim)` to images `(N, *shape)` in [0, 1]. The same noise gives
#   the same image, for a walk or a network adds no chance of its own;
# - `train_step(x, weight)`: one step on images `(N, *shape)`, and the loss. `weight` `(N,)` sums
#   to 1; a row of weight 0 must have no influence at all.
#
# Networks and optimisers are given (the tests look at what `self.network` is asked); write `decode`
# and `train_step` of the one that you chose, and leave the other's stubs. You may write the pieces
# of 4a and 4b again, or call yours.
#
# Hints. *Flow*: images lie in [0, 1] and noise around 0, so shift the images to [-1, 1] for the
# walk, walk in 10 to 20 steps, shift back what comes out of it and clamp it to [0, 1]; the loss
# of a row is the squared difference of the network's velocity and the line's, averaged over its
# pixels. *WGAN-GP*: 10 times the gradient penalty; the critic's step must not reach the generator
# (`fake.detach()`), and a step of the one takes the gradients of that one only (`zero_grad`
# before each `backward`).


# %%
class Flow(nn.Module):
    """Flow matching. network: place, then time (N, latent_dim + 1) -> velocity (N, latent_dim)."""

    def __init__(self, shape, hidden=200):
        super().__init__()
        self.shape, self.latent_dim = shape, math.prod(shape)
        self.network = mlp([self.latent_dim + 1, hidden, hidden, self.latent_dim])
        self.optimiser = torch.optim.Adam(self.parameters(), lr=1e-3)

    def decode(self, z):
        """Noise (N, latent_dim) -> images (N, *shape) in [0, 1]."""
        ### BEGIN SOLUTION
        x = z
        for step in range(20):
            t = x.new_full((len(x), 1), step / 20)
            x = x + self.network(torch.cat([x, t], 1)) / 20
        return ((x + 1) / 2).clamp(0, 1).view(-1, *self.shape)
        ### END SOLUTION

    def train_step(self, x, weight):
        """One step on images x (N, *shape) with row weights (N,); returns the loss."""
        ### BEGIN SOLUTION
        image = 2 * x.flatten(1) - 1
        noise, t = torch.randn_like(image), torch.rand(len(x), 1)
        there, wanted = (1 - t) * noise + t * image, image - noise
        found = self.network(torch.cat([there, t], 1))
        loss = weight @ (found - wanted).square().mean(1)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.detach()
        ### END SOLUTION


class Wgan(nn.Module):
    """WGAN-GP. network: noise (N, latent_dim) -> logits of pixels. critic: images -> (N, 1)."""

    def __init__(self, shape, latent_dim=16, hidden=200):
        super().__init__()
        self.shape, self.latent_dim = shape, latent_dim
        pixels = math.prod(shape)
        self.network = mlp([latent_dim, hidden, hidden, pixels])
        self.critic = nn.Sequential(nn.Flatten(), mlp([pixels, hidden, hidden, 1], nn.LeakyReLU))
        betas = (0.5, 0.9)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-3, betas=betas)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=1e-3, betas=betas)

    def decode(self, z):
        """Noise (N, latent_dim) -> images (N, *shape) in [0, 1]."""
        ### BEGIN SOLUTION
        return self.network(z).sigmoid().view(-1, *self.shape)
        ### END SOLUTION

    def train_step(self, x, weight):
        """A step of the critic, then one of the generator, on images x (N, *shape) with row
        weights (N,); returns the critic's loss."""
        ### BEGIN SOLUTION
        fake = self.decode(torch.randn(len(x), self.latent_dim))
        mix = torch.rand(len(x), *[1] * len(self.shape))
        between = (x + mix * (fake.detach() - x)).requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        penalty = 10 * (slope.flatten(1).norm(dim=1) - 1).square()
        gap = self.critic(fake.detach()).squeeze(1) - self.critic(x).squeeze(1)
        loss = weight @ (gap + penalty)
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        self.optimiser.zero_grad()
        (-(weight @ self.critic(fake).squeeze(1))).backward()
        self.optimiser.step()
        return loss.detach()
        ### END SOLUTION


def my_generator(shape):
    """The generator that you chose, for images of this shape."""
    return {"flow": Flow, "wgan": Wgan}[TRACK](shape)


# %%
check("4c", globals())

# %% [markdown]
# ## 4d. Joined to the core
#
# `GenerativeReplay(solver, generator, ...)` is the core's trainer: it freezes, dreams, labels and
# weighs as yours of assignment 3 does, and its `train_task(examples, task_id, ...)` learns one
# task. Read its docstring (`help(GenerativeReplay)`). Give it the *legend* of the stream, which
# says what the classes of each task mean to the solver; keep **one** scholar for all tasks; let
# it rehearse as many dreams as there are new rows (`replay_ratio=1.0`); pass `seed` and
# `device="cpu"` on. Without a generator (`None`) the same function has to learn without replay.
# Fill the accuracy matrix of assignment 1 on the way, with the core's `accuracy(solver, examples,
# legend)`.


# %%
def learn(stream, solver, generator, steps, seed):
    """The accuracy matrix (T + 1, T) of learning `stream`, with `steps` steps a task."""
    ### BEGIN SOLUTION
    scholar = GenerativeReplay(
        solver, generator, device="cpu", legend=stream.legend, batch=64, seed=seed
    )

    def measured():
        return [accuracy(scholar.solver, task.test, stream.legend) for task in stream]

    matrix = [measured()]
    for task in stream:
        scholar.train_task(task.train, task.id, steps=steps, replay_ratio=1.0)
        matrix.append(measured())
    return torch.tensor(matrix)
    ### END SOLUTION


# %%
check("4d", globals())

# %% [markdown]
# ## See it
#
# Nothing to be written here. Your generator beside the core's VAE and beside none, on digits.

# %%
stream = split(load("digits"), tasks=5, scenario="class", seed=2)
trial = book.profile() == "ci"  # a machine tries whether the notebook runs
steps, matrices = 10 if trial else 300, {}
for name in ("none", "my generator", "the core's VAE"):
    torch.manual_seed(0)
    mine, vae = my_generator(stream.shape), mlp_vae(stream.shape, hidden=100)
    chosen = {"none": None, "my generator": mine}.get(name, vae)
    solver = mlp_solver(stream.shape, stream.legend.outputs, hidden=100)
    matrices[name] = learn(stream, solver, chosen, steps, seed=0).numpy()
    print(f"{name}: {matrices[name][-1].mean():.0%} of all digits in the end")
book.picture(plots.matrices(matrices), "Three accuracy matrices: no replay, mine, the core's VAE")

# %%
torch.manual_seed(1)
mine, train = my_generator(stream.shape), load("digits")[0]
for _ in range(50 if trial else 1500):
    mine.train_step(train.x[torch.randint(len(train), (64,))], torch.full((64,), 1 / 64))
with torch.no_grad():
    dreams = mine.decode(torch.randn(24, mine.latent_dim))
drawn = plots.dreams([("real", train.x[:12]), ("mine", dreams[:12]), ("mine", dreams[12:])])
book.picture(drawn, "A row of real digits, and two rows of dreams")

# %% [markdown]
# **Think about it** (not marked; bring your answers to class):
#
# 1. Sharper dreams, better memory? Hold the pictures against the numbers.
# 2. What does a generator owe to replay that it doesn't owe to a gallery?
# 3. Your numbers are of one seed. What would you need before you say that one generator is
#    better?
