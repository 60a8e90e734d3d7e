# %% [markdown]
# # 1. Measure forgetting
#
# *About 3 hours. No GPU needed, and no network: the data come with scikit-learn. You need to know
# what a gradient step is, and a little PyTorch. Chapter to read before: "Watch a network
# forget".*
#
# A network learns two kinds of digits, then two others, and so on. In the end it knows the last
# two. To say *how much* it forgot, you need a measure; to trust the measure, you need to have
# written it once. You will write five small functions, each of one idea, and then watch a network
# forget.
#
# **How to work.** Replace each `raise NotImplementedError` by your code, run the cell, and run
# the `check` below it: it runs the public tests on what the notebook holds at that moment, and
# says which idea is missing. In a terminal, `pytest -k 1a` does the same with the notebook as it
# was saved. You may use all of PyTorch; of `genreplay_core`, only what a notebook imports for
# you.

# %%
import torch
from torch.nn import functional as F

from genreplay_core import book, load, mlp_solver, plots, split
from genreplay_core.course import check

# %% [markdown]
# ## 1a. One step of training
#
# A solver takes images `x`, shape `(N, ...)`, and gives one number (*logit*) for each class, `(N,
# K)`. The labels `y` are whole numbers, `(N,)`. The loss is the cross-entropy, **averaged** over
# the images; `F.cross_entropy` takes logits as they are and does the softmax itself.
#
# Take one step with the optimiser, and return the loss as it was *before* the step.


# %%
def train_step(solver, optimiser, x, y):
    """One step of `optimiser` down the cross-entropy of `solver(x)` and `y`; returns the loss.

    Whatever gradients were left from before must not count.
    """
    ### BEGIN SOLUTION
    loss = F.cross_entropy(solver(x), y)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.detach()
    ### END SOLUTION


# %%
check("1a", globals())

# %% [markdown]
# ## 1b. Accuracy, in eval mode
#
# Layers such as dropout behave differently in training. Whoever measures wants them in *eval
# mode*, and must leave the network in the mode in which it was found, or the training that goes
# on afterwards is another one. And no gradient is needed: `torch.no_grad()`.


# %%
def accuracy(solver, x, y):
    """The fraction (0..1) of images whose largest logit is that of their label.

    Measured in eval mode and without gradients; the solver's mode (`solver.training`) is put back.
    """
    ### BEGIN SOLUTION
    mode = solver.training
    solver.eval()
    with torch.no_grad():
        right = solver(x).argmax(1) == y
    solver.train(mode)
    return float(right.float().mean())
    ### END SOLUTION


# %%
check("1b", globals())

# %% [markdown]
# ## 1c. The accuracy matrix
#
# All measures of forgetting are read off one table. Test the solver on *every* task: once
# untrained, and once after each task. With $T$ tasks that is a matrix $R$ of $T + 1$ rows and $T$
# columns, counted from 0: row $i$ holds the accuracies after $i$ tasks, so row 0 is the untrained
# solver.
#
# | | task 0 | task 1 |
# | --- | ---: | ---: |
# | untrained | 0.10 | 0.12 |
# | after task 0 | 0.98 | 0.12 |
# | after task 1 | 0.70 | 0.96 |
#
# Tasks that are yet to come are tested too. The *average accuracy* of a learner is what it
# reaches on all tasks at the very end: here (0.70 + 0.96) / 2.


# %%
def accuracy_matrix(stages, tests, measure):
    """R as a tensor (T + 1, T).

    stages: T + 1 solvers: the untrained one, then as it was after each task.
    tests: T pairs (x, y), the test images of each task.
    measure: a function (solver, x, y) -> accuracy, such as yours above.
    """
    ### BEGIN SOLUTION
    return torch.tensor([[measure(solver, x, y) for x, y in tests] for solver in stages])
    ### END SOLUTION


def average_accuracy(R):
    """The mean accuracy on all tasks at the very end, a number in 0..1."""
    ### BEGIN SOLUTION
    return float(R[-1].mean())
    ### END SOLUTION


# %%
check("1c", globals())

# %% [markdown]
# ## 1d. Forgetting
#
# How far did each task fall below the best that was ever reached on it? Chaudhry, Dokania,
# Ajanthan and Torr (2018) define, for each task $j$ but the last,
#
# $$ f_j = \max_{j < i < T} R_{i,j} - R_{T,j} , $$
#
# and forgetting is the mean of the $f_j$. Mind the range of $i$: from the row in which task $j$
# has just been learned (with our counting, row $j + 1$) to the row before the last. A task may
# also end *above* its best so far; then $f_j$ is negative, and it stays negative. With a single
# task there is nothing to forget: the answer is 0.


# %%
def forgetting(R):
    """Forgetting of an accuracy matrix (T + 1, T), a number in -1..1. R is left as it was."""
    ### BEGIN SOLUTION
    tasks = R.shape[1]
    falls = [float(R[j + 1 : tasks, j].max() - R[tasks, j]) for j in range(tasks - 1)]
    return sum(falls) / len(falls) if falls else 0.0
    ### END SOLUTION


# %%
check("1d", globals())

# %% [markdown]
# ## 1e. Transfer, backward and forward
#
# Two measures of Lopez-Paz and Ranzato (2017). *Backward transfer*: what did later tasks do to an
# earlier one? Accuracy at the end less accuracy right after learning it, averaged over all tasks
# but the last. *Forward transfer*: what did earlier tasks do for a later one? Accuracy just
# *before* learning it less accuracy of the untrained solver, averaged over all tasks but the
# first. With a single task both are 0. Here, too, `R` is left as it was.


# %%
def backward_transfer(R):
    """Mean over tasks but the last of R at the end less R right after the task, in -1..1."""
    ### BEGIN SOLUTION
    changes = [float(R[-1, j] - R[j + 1, j]) for j in range(R.shape[1] - 1)]
    return sum(changes) / len(changes) if changes else 0.0
    ### END SOLUTION


def forward_transfer(R):
    """Mean over tasks but the first of R just before the task less R untrained, in -1..1."""
    ### BEGIN SOLUTION
    changes = [float(R[j, j] - R[0, j]) for j in range(1, R.shape[1])]
    return sum(changes) / len(changes) if changes else 0.0
    ### END SOLUTION


# %%
check("1e", globals())

# %% [markdown]
# ## See it
#
# All five together. Nothing is to be written here: if your functions are right, it runs, in
# seconds.

# %%
import copy

stream = split(load("digits"), tasks=5, scenario="class", seed=2)
torch.manual_seed(0)
solver = mlp_solver(stream.shape, stream.legend.outputs, hidden=100)
optimiser = torch.optim.Adam(solver.parameters())
stages = [copy.deepcopy(solver)]
for task in stream:
    train = task.train
    for _ in range(200):
        rows = torch.randint(len(train), (64,))
        train_step(solver, optimiser, train.x[rows], train.y[rows])
    stages.append(copy.deepcopy(solver))

# %%
tests = [(task.test.x, task.test.y) for task in stream]
R = accuracy_matrix(stages, tests, accuracy)
print("average accuracy", round(average_accuracy(R), 2), "forgetting", round(forgetting(R), 2))
print("backward", round(backward_transfer(R), 2), "forward", round(forward_transfer(R), 2))
drawn = plots.matrices({"plain training": R.numpy()})
book.picture(drawn, "The accuracy matrix: each task is known right after it was learned, and lost")

# %% [markdown]
# **Think about it** (not marked; bring your answers to class):
#
# 1. The average accuracy is about what a network would reach that knows the last task and nothing
#    else. Which number is that, and why?
# 2. When would forgetting and backward transfer differ, but for the sign?
# 3. A learner that never learns anything forgets nothing. Which other number must stand beside
#    forgetting, then?
