"""The graders' tests of the first assignment: other shapes, seeds and edges."""

import numpy as np
import torch

from genreplay_core import metrics
from genreplay_core.course import close, expect


def random(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def matrix(seed, tasks):
    drawn = np.random.default_rng(seed).uniform(size=(tasks + 1, tasks))
    return torch.from_numpy(drawn)


def test_1a_steps_on_random_images(adapters):
    weight, x = random(1, 6, 4), random(2, 10, 6)
    y = torch.arange(10) % 4
    wanted = weight.clone().requires_grad_()
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(x @ wanted, y)
        (slope,) = torch.autograd.grad(loss, wanted)
        wanted = (wanted - 0.5 * slope).detach().requires_grad_()
    found = adapters.train_steps(weight, x, y, 0.5, 4)
    close(found["weight"], wanted.detach(), "four steps on random images end elsewhere")
    close(found["losses"][-1], loss.detach(), "return the loss as it was before the step")


def test_1b_on_random_images(adapters):
    weight, x = random(3, 5, 7), random(4, 101, 5)
    y = torch.arange(101) % 7
    wanted = (x @ weight).argmax(1).eq(y).double().mean()
    found = adapters.accuracy(weight, x, y, True)
    close(found["accuracy"], wanted, "accuracy is a fraction of all images, the last one included")


def test_1b_no_graph_is_kept(adapters):
    found = adapters.accuracy(random(3, 5, 7), random(4, 9, 5), torch.arange(9) % 7, False)
    expect(found["graph"] is False, "gradients were on while you measured: use torch.no_grad()")
    expect(found["training"] is False, "a solver found in eval mode is left in training mode")
    idea = "gradients are off for all that comes after: `with torch.no_grad():` puts them back"
    expect(found["off"] is False, idea)


def test_1c_tasks_of_different_size(adapters):
    weights = torch.stack([random(seed, 3, 4) for seed in range(4)])
    xs = [random(10 + n, n, 3) for n in (1, 5, 8)]
    ys = [torch.arange(len(x)) % 4 for x in xs]
    wanted = [
        [float((x @ w).argmax(1).eq(y).double().mean()) for x, y in zip(xs, ys, strict=True)]
        for w in weights
    ]
    close(adapters.accuracy_matrix(weights, xs, ys), wanted, "tasks may differ in size")
    found = adapters.accuracy_matrix(weights, xs, ys, True)
    idea = "R holds what the `measure` that is passed in says, whatever it measures"
    close(found, 1 - torch.tensor(wanted), idea)


def test_1c_the_average_of_random_matrices(adapters):
    for tasks in (1, 2, 7):
        R = matrix(tasks, tasks)
        close(adapters.average_accuracy(R), R[-1].mean(), "average the last row only")


def test_1d_random_matrices(adapters):
    for tasks in (2, 3, 8):
        R = matrix(20 + tasks, tasks)
        wanted = metrics.forgetting(R)
        close(adapters.forgetting_of(R)["forgetting"], wanted, "rows j + 1 up to the last but one")


def test_1d_the_matrix_is_left_as_it_was(adapters):
    R = matrix(5, 4)
    close(adapters.forgetting_of(R)["R"], R, "your function changes the matrix that it is given")


def test_1d_one_task_has_nothing_to_forget(adapters):
    found = adapters.forgetting_of(torch.tensor([[0.1], [0.9]]))["forgetting"]
    close(found, 0.0, "with a single task forgetting is 0")


def test_1d_what_came_before_a_task_was_learned_doesn_t_count(adapters):
    R = torch.tensor([[0.1, 0.9, 0.0], [0.5, 0.9, 0.0], [0.5, 0.6, 0.0], [0.5, 0.6, 0.9]])
    found = adapters.forgetting_of(R)["forgetting"]
    close(found, 0.0, "the best is taken from the row in which the task was learned, not before")


def test_1e_random_matrices(adapters):
    for tasks in (2, 3, 8):
        R = matrix(30 + tasks, tasks)
        found = adapters.transfer(R)
        backward, forward = found["transfer"]
        close(backward, metrics.backward_transfer(R), "backward: row j + 1, and the last row")
        close(forward, metrics.forward_transfer(R), "forward: row j, and row 0")
        for left in found["R"]:
            close(left, R, "your functions change the matrix that they are given")


def test_1e_one_task_has_nothing_to_transfer(adapters):
    found = adapters.transfer(torch.tensor([[0.1], [0.9]]))["transfer"]
    close(found, [0, 0], "with a single task both are 0")
