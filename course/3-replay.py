# %% [markdown]
# # 3. The replay trainer
#
# *About 5 hours. No GPU needed, and no network. Chapter to read before: "Generative replay".*
#
# A *scholar* is a pair: a **solver** that answers, and a **generator** that dreams (Shin, Lee,
# Kim and Kim 2017). When a new task begins, both are copied and the copies frozen. From then on,
# every batch holds new images and dreams of the frozen generator, labelled by the frozen solver;
# solver *and* generator learn from both. That is all. The literature and the web are full of
# trainers that get one of these words wrong and forget nearly everything, without an error
# message. Yours won't be one.
#
# Work as before: replace each `raise NotImplementedError`, run the cell, run the `check` below
# it. Every part is judged alone.

# %%
import copy

import torch
from torch.nn import functional as F

from genreplay_core import accuracy, book, load, mlp_solver, mlp_vae, plots, split
from genreplay_core.course import check

# %% [markdown]
# ## 3a. Freezing a scholar
#
# The frozen copy must stay as it is while the original learns on. So it must share no weight with
# it, nor a *buffer* such as the running mean of a batch norm; it must be in eval mode, or its
# dropout rolls dice and its batch norm goes on counting; and it asks for no gradients. The
# original stays as it was, in its mode too.


# %%
def freeze(network):
    """A frozen copy of a network: of its own, in eval mode, without gradients."""
    ### BEGIN SOLUTION
    return copy.deepcopy(network).eval().requires_grad_(False)
    ### END SOLUTION


# %%
check("3a", globals())

# %% [markdown]
# ## 3b. Dreams and their labels
#
# A frozen generator has `latent_dim` and `decode(z)`, from noise `(n, latent_dim)` to images. Let
# it dream `n` images of standard normal noise, and let the frozen solver say what they show: the
# class of its largest logit, of *all* its outputs, as a whole number. `decode` gives pixels in
# [0, 1], so there is nothing to clamp. Data of the past carry no gradient.


# %%
def replay_batch(generator, solver, n):
    """n dreams and their labels: (n, *shape) in [0, 1] and (n,) int64."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        x = generator.decode(torch.randn(n, generator.latent_dim))
        return x, solver(x).argmax(1)
    ### END SOLUTION


# %%
check("3b", globals())

# %% [markdown]
# ## 3c. Soft labels
#
# The largest logit says "a 4". The others say "a little like a 9". Hinton, Vinyals and Dean
# (2015) keep that: the teacher's answer becomes a distribution $p$, and the pupil's answer $q$ is
# held against it *at the same temperature* $T$,
#
# $$ p = \mathrm{softmax}(\text{teacher} / T), \quad
#    q = \mathrm{softmax}(\text{logits} / T), \quad
#    \text{loss} = - T^2 \sum_k p_k \log q_k , $$
#
# averaged over the images. Dividing by $T$ twice makes the gradient about $T^2$ times smaller, and
# the factor $T^2$ makes up for it. No gradient goes to the teacher.


# %%
def distillation_loss(logits, teacher, temperature):
    """One number, T^2 times the mean cross-entropy of teacher and pupil at temperature T.

    logits, teacher: (N, K). temperature: above 0.
    """
    ### BEGIN SOLUTION
    p = (teacher / temperature).softmax(1).detach()
    q = (logits / temperature).log_softmax(1)
    return temperature**2 * -(p * q).sum(1).mean()
    ### END SOLUTION


# %%
check("3c", globals())

# %% [markdown]
# ## 3d. What counts how much
#
# In task $t = 1, 2, 3, \dots$ a batch holds `new` real images and `old` dreams. The loss is
#
# $$ \tfrac1t \cdot \text{(mean over new)} + (1 - \tfrac1t) \cdot \text{(mean over old)} , $$
#
# so that every task met so far counts alike, *however many rows stand for it*. As one weight for
# each row: the new rows share $1/t$ evenly, the old ones share the rest; together they sum to 1.
# Where there are no old rows, the new ones have it all.


# %%
def mixture_weights(new, old, t):
    """Row weights (new + old,) for a batch of first new, then old rows, in task t (from 1).

    new: at least 1. old: 0 or more.
    """
    ### BEGIN SOLUTION
    if old == 0:
        return torch.full((new,), 1 / new)
    parts = torch.full((new,), 1 / t / new), torch.full((old,), (1 - 1 / t) / old)
    return torch.cat(parts)
    ### END SOLUTION


# %%
check("3d", globals())

# %% [markdown]
# ## 3e. The trainer
#
# Put it together. The pieces are passed in, functions like yours of 3a, 3b and 3d, and called as
# `freeze(network)`, `dream(generator, solver, n)` and `weights(new, old, t)`. (The tests pass right
# ones, whatever yours are.) `self.tasks` counts the tasks begun so far; count in it and nowhere
# else, for "See it" sets it back to 0 to train without replay. What `train_task` does:
#
# 1. Count the task. From the second one on, freeze generator and solver **as they are when the
#    task begins**.
# 2. In each step draw `batch` random rows of the new task (with or without repetition; no task
#    has fewer rows). From the second task on, add as many dreams of the **frozen** pair behind
#    them, fresh ones in each step. New rows first: `weights` counts on it.
# 3. One step of `optimiser` down the weighted cross-entropy: the sum over rows of weight times
#    loss. Leave the solver in the mode in which you find it.
# 4. One step of the generator **on the same rows**: `generator.train_step(x, weight)`. It must
#    dream the old tasks in the future too, so it rehearses them as well.


# %%
class Scholar:
    """A solver and a generator that learn one task after the other.

    solver: images (N, ...) -> logits (N, K). generator: `latent_dim`, `decode(z)` and
    `train_step(x, weight)`. optimiser: of the solver. batch: new rows in a step.
    """

    def __init__(self, solver, generator, optimiser, freeze, dream, weights, batch=64):
        self.solver, self.generator, self.optimiser = solver, generator, optimiser
        self.freeze, self.dream, self.weights = freeze, dream, weights
        self.batch, self.tasks = batch, 0

    def train_task(self, x, y, steps):
        """Learn a new task, images x (N, ...) with labels y (N,), in so many steps."""
        ### BEGIN SOLUTION
        self.tasks += 1
        frozen = self.freeze(self.generator), self.freeze(self.solver)
        for _ in range(steps):
            rows = torch.randint(len(x), (self.batch,))
            images, labels, old = x[rows], y[rows], 0
            if self.tasks > 1:
                dreams, said = self.dream(*frozen, self.batch)
                images, labels = torch.cat([images, dreams]), torch.cat([labels, said])
                old = self.batch
            weight = self.weights(self.batch, old, self.tasks)
            losses = F.cross_entropy(self.solver(images), labels, reduction="none")
            self.optimiser.zero_grad()
            (weight @ losses).backward()
            self.optimiser.step()
            self.generator.train_step(images, weight)
        ### END SOLUTION


# %%
check("3e", globals())

# %% [markdown]
# ## See it
#
# Nothing to be written here. Your trainer, with your pieces, on digits, beside one that never
# replays. The generator is the core's VAE.


# %%
class OneCall(torch.nn.Module):
    """The core's VAE, whose `train_step` has the class between x and weight."""

    def __init__(self, shape):
        super().__init__()
        self.vae = mlp_vae(shape, latent_dim=10, hidden=100)
        self.latent_dim = self.vae.latent_dim

    def decode(self, z):
        return self.vae.decode(z)

    def train_step(self, x, weight):
        return self.vae.train_step(x, weight=weight)


def learned(replays):
    """The accuracy matrix of a scholar on five tasks of two digits."""
    steps = 10 if book.profile() == "ci" else 400  # "ci": a machine tries whether it runs
    stream = split(load("digits"), tasks=5, scenario="class", seed=2)
    torch.manual_seed(0)
    solver = mlp_solver(stream.shape, stream.legend.outputs, hidden=100)
    optimiser = torch.optim.Adam(solver.parameters())
    parts = freeze, replay_batch, mixture_weights
    scholar = Scholar(solver, OneCall(stream.shape), optimiser, *parts)
    matrix = []
    for task in [None, *stream]:
        if task is not None:
            scholar.tasks = scholar.tasks if replays else 0  # each task as if it were the first
            scholar.train_task(task.train.x, task.train.y, steps)
        matrix.append([accuracy(solver, other.test, stream.legend) for other in stream])
    return torch.tensor(matrix).numpy()


matrices = {"no replay": learned(False), "generative replay": learned(True)}
for name, R in matrices.items():
    print(f"{name}: {R[-1].mean():.0%} of all digits in the end")
book.picture(plots.matrices(matrices), "Two accuracy matrices: without replay, and with it")

# %% [markdown]
# **Think about it** (not marked; bring your answers to class):
#
# 1. What happens if you freeze anew after *each step*? Guess, then try it: two lines.
# 2. In task 10, how much does a single dream weigh if a batch holds 64 new images and 64 dreams?
#    And how much if it holds 64 and 16?
# 3. The generator learns from its own dreams. What do you expect the first task's dreams to look
#    like after five tasks, and after fifty?
