"""Four pipelines as they are found in the wild. Each runs, each looks plausible, each is wrong.

Leave this file as it is: your mended versions and your tests go into `6-bug-hunts.ipynb`.
"""

import copy

import torch
from torch.nn import functional as F


def normalised(tasks):
    """The images of a stream with mean 0 and deviation 1, as a learner would meet them:
    task by task, and test images only when it is tested.

    tasks: a list of (train, test), images (N, D), in the order in which the tasks come.
    Returns a list of the same form.
    """
    images = torch.cat([train for train, _ in tasks])
    mean, deviation = images.mean(), images.std() + 1e-6
    return [((train - mean) / deviation, (test - mean) / deviation) for train, test in tasks]


def evaluated(solver, tasks):
    """The accuracy on each task of a stream, class-incremental: nobody tells the solver which task
    an image is from.

    solver: images (N, D) -> logits (N, K). tasks: a list of (x, y, classes), with `classes` a list
    of the classes that occur in the task. Returns a list of fractions.
    """
    accuracies = []
    for x, y, classes in tasks:
        with torch.no_grad():
            logits = solver(x)
        best = logits[:, classes].argmax(1)
        answers = torch.tensor(classes)[best]
        accuracies.append(float((answers == y).float().mean()))
    return accuracies


def rehearsed(solver, generator, optimiser, x, y, steps):
    """Learn a second task, images x (N, D) with labels y (N,), without forgetting the first, which
    solver and generator know. Both learn, in each step, from all new images and from as many
    dreams, dreamt anew. Both are changed in place; `optimiser` is the solver's.

    generator: `latent_dim`, `decode(z)` and `train_step(x)`.
    """
    teacher = copy.deepcopy(solver).eval()
    for _ in range(steps):
        with torch.no_grad():
            dreams = generator.decode(torch.randn(len(x), generator.latent_dim))
            labels = teacher(dreams).argmax(1)
        images = torch.cat([x, dreams])
        loss = F.cross_entropy(solver(images), torch.cat([y, labels]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        generator.train_step(images)


def early_stopped(solver, train_epoch, train, validation, test, epochs):
    """Train for so many epochs, keep the best, and say how good it is on images never used.

    train_epoch: a function (solver, train) that trains the solver for one epoch, in place.
    train, validation, test: pairs (x, y). Returns (the best epoch's `state_dict`, its accuracy).
    """

    def accuracy(part):
        with torch.no_grad():
            return float((solver(part[0]).argmax(1) == part[1]).float().mean())

    best, kept = -1.0, None
    for _ in range(epochs):
        train_epoch(solver, train)
        reached = accuracy(test)
        if reached > best:
            best, kept = reached, copy.deepcopy(solver.state_dict())
    return kept, best
