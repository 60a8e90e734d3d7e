# %% [markdown]
# # 6. Four bug hunts
#
# *About 3 hours. No GPU needed, and no network. Chapter to read before: "Four mistakes that
# everyone makes", if your book has it.*
#
# In `pipelines.py` are four functions. All of them run, none prints a warning, and the numbers
# that come out look fine: rather too fine, or a little low, so that one would blame the method.
# Each has **one** fault, of a kind that has been published.
#
# For each of them:
#
# 1. read its docstring, which says what it promises, and find where it breaks the promise;
# 2. write the mended version here, under the same name, and leave all else as it was;
# 3. write the test that would have caught it: a function of the pipeline that raises
#    `AssertionError` if the fault is there, and does nothing if it isn't.
#
# A test is worth having if it fails for *every* way to make this mistake and passes for *every*
# right version. So don't look at source code; call the pipeline with inputs for which a right
# version and a wrong one must differ. Small tensors will do; nothing needs to be trained. The
# graders hold your test against other faulty and other right versions, and your version against
# tests of theirs.

# %%
from genreplay_core import book, course

source = (course.material() / "pipelines.py").read_text()
book.say("```python\n{source}\n```", source=source)

# %%
import copy

import torch
from torch import nn
from torch.nn import functional as F

from genreplay_core.course import check

# %% [markdown]
# ## 6a. Normalisation
#
# A hint: on the first day of a stream, what is known of its last day?
#
# Right versions may differ in what becomes of later tasks: your test has to pass them all.


# %%
def normalised(tasks):
    """As in pipelines.py, mended."""
    ### BEGIN SOLUTION
    images = tasks[0][0]
    mean, deviation = images.mean(), images.std() + 1e-6
    return [((train - mean) / deviation, (test - mean) / deviation) for train, test in tasks]
    ### END SOLUTION


def test_normalised(pipeline):
    """Raises AssertionError if the pipeline looks into the future."""
    ### BEGIN SOLUTION
    rng = torch.Generator().manual_seed(0)
    first, second, other = (
        (torch.rand(9, 4, generator=rng) * size, torch.rand(5, 4, generator=rng) * size)
        for size in (1, 10, 100)
    )
    here, there = pipeline([first, second])[0], pipeline([first, other])[0]
    for part in (0, 1):
        same = torch.allclose(here[part], there[part])
        assert same, "the first task looks different if another task comes after it"
    ### END SOLUTION


# %%
check("6a", globals())

# %% [markdown]
# ## 6b. Evaluation
#
# A hint: "nobody tells the solver which task an image is from". Who does?


# %%
def evaluated(solver, tasks):
    """As in pipelines.py, mended."""
    ### BEGIN SOLUTION
    accuracies = []
    for x, y, _ in tasks:
        with torch.no_grad():
            answers = solver(x).argmax(1)
        accuracies.append(float((answers == y).float().mean()))
    return accuracies
    ### END SOLUTION


def test_evaluated(pipeline):
    """Raises AssertionError if the pipeline uses the task's label."""
    ### BEGIN SOLUTION

    def last_class(x):  # of four, whatever it sees; and then its own task's first
        return torch.tensor([[1.0, 0.0, 0.0, 2.0]]).repeat(len(x), 1)

    tasks = [
        (torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]), [0, 1]),
        (torch.zeros(4, 2), torch.tensor([2, 3, 3, 3]), [2, 3]),
    ]
    found = pipeline(last_class, tasks)
    assert abs(found[0]) < 1e-6, (
        "an image of the first task was called class 3 and counted as right"
    )
    assert abs(found[1] - 0.75) < 1e-6, "right answers aren't counted as right"
    ### END SOLUTION


# %%
check("6b", globals())

# %% [markdown]
# ## 6c. Rehearsal
#
# A hint: of which generator is the thousandth step's dream?


# %%
def rehearsed(solver, generator, optimiser, x, y, steps):
    """As in pipelines.py, mended."""
    ### BEGIN SOLUTION
    teacher = copy.deepcopy(solver).eval()
    dreamer = copy.deepcopy(generator).eval()
    for _ in range(steps):
        with torch.no_grad():
            dreams = dreamer.decode(torch.randn(len(x), dreamer.latent_dim))
            labels = teacher(dreams).argmax(1)
        images = torch.cat([x, dreams])
        loss = F.cross_entropy(solver(images), torch.cat([y, labels]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        generator.train_step(images)
    ### END SOLUTION


def test_rehearsed(pipeline):
    """Raises AssertionError if dreams come from the generator that is being trained."""
    ### BEGIN SOLUTION

    class Ageing(nn.Module):
        """Dreams are full of its age; keeps what it learned from."""

        latent_dim = 2

        def __init__(self):
            super().__init__()
            self.register_buffer("age", torch.zeros(()))
            self.seen = []

        def decode(self, z):
            return self.age.expand(len(z), 3).clone()

        def train_step(self, x):
            self.age += 1
            self.seen.append(x.clone())

    solver, generator = nn.Linear(3, 2), Ageing()
    optimiser = torch.optim.SGD(solver.parameters(), 0.1)
    pipeline(solver, generator, optimiser, torch.full((4, 3), -1.0), torch.tensor([0, 1, 0, 1]), 5)
    assert generator.seen, "the generator learns nothing"
    dreams = torch.cat([x[x[:, 0] >= 0] for x in generator.seen])
    assert len(dreams) > 0, "the generator doesn't rehearse"
    assert (dreams == 0).all(), "later dreams come from the generator as it has become"
    ### END SOLUTION


# %%
check("6c", globals())

# %% [markdown]
# ## 6d. Early stopping
#
# A hint: "on images never used". Count the uses.


# %%
def early_stopped(solver, train_epoch, train, validation, test, epochs):
    """As in pipelines.py, mended."""
    ### BEGIN SOLUTION

    def accuracy(part):
        with torch.no_grad():
            return float((solver(part[0]).argmax(1) == part[1]).float().mean())

    best, kept = -1.0, None
    for _ in range(epochs):
        train_epoch(solver, train)
        reached = accuracy(validation)
        if reached > best:
            best, kept = reached, copy.deepcopy(solver.state_dict())
    solver.load_state_dict(kept)
    return kept, accuracy(test)
    ### END SOLUTION


def test_early_stopped(pipeline):
    """Raises AssertionError if the epoch is chosen by the test images."""
    ### BEGIN SOLUTION
    x = torch.eye(2).repeat(4, 1)

    def next_epoch(solver, train):  # epoch 1 is right on class 0 only, 2 on both, 3 on class 1
        solver.epoch += 1
        logits = {1: [[1.0, 1.0], [0.0, 0.0]], 2: [[1.0, 0.0], [0.0, 1.0]]}
        with torch.no_grad():
            row = logits.get(solver.epoch, [[0.0, 0.0], [1.0, 1.0]])
            solver.weight.copy_(torch.tensor(row))

    def chosen(validation, test):
        solver = nn.Linear(2, 2, bias=False)
        solver.epoch = 0
        return pipeline(solver, next_epoch, (x, x.argmax(1)), validation, test, 3)

    right, zeros, ones = x.argmax(1), torch.zeros(8).long(), torch.ones(8).long()
    states = [chosen((x, right), (x, y))[0]["weight"] for y in (right, zeros, ones)]
    for state in states:
        assert torch.equal(state, states[0]), "other test labels, another epoch: the test set chose"
    state, reached = chosen((x, zeros), (x, ones))
    assert state["weight"][0].sum() == 2, "the epoch that is best on the validation set isn't kept"
    assert reached == 0.0, "what is reported isn't the accuracy of the kept epoch on the test set"
    ### END SOLUTION


# %%
check("6d", globals())

# %% [markdown]
# **Think about it** (not marked; bring your answers to class):
#
# 1. Order the four by how much they flatter the result. Which of them makes a *bad* method look
#    good, and which a good one look bad?
# 2. Which would a reviewer find in a paper, and which only in its code?
# 3. Your pipeline of the last assignment: which of the four tests does it pass? Have you run
#    them?
# 4. Each task, its test images too, can be normalised by its own training images. That looks at no
#    other day, and 6a lets it pass. What must be known of a test image, then, and which of the
#    other hunts forbids it?
