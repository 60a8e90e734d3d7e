"""Public tests of the first assignment. A part is done when all tests of it pass."""

import torch
from torch.nn import functional as F

from genreplay_core.course import close, expect, mistake

W = torch.tensor([[1.0, 0.0, -1.0], [0.5, -0.5, 0.0]])
X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 2.0]])
Y = torch.tensor([0, 1, 2, 2])
R = torch.tensor(
    [
        [0.10, 0.20, 0.00, 0.30],
        [0.60, 0.85, 0.10, 0.20],
        [0.70, 0.80, 0.20, 0.10],
        [0.50, 0.60, 0.90, 0.30],
        [0.40, 0.90, 0.70, 1.00],
    ]
)


def slope(weight, x, y):
    """The mean cross-entropy of x @ weight, and its gradient, worked out by hand."""
    chance = (x @ weight).softmax(1)
    one_hot = torch.eye(weight.shape[1])[y]
    return -(chance[range(len(y)), y]).log().mean(), x.T @ (chance - one_hot) / len(x)


def test_1a_the_loss_is_the_mean_cross_entropy_of_the_logits(adapters):
    loss, down = slope(W, X, Y)
    made = {
        "give F.cross_entropy the logits as they are, without a softmax before": [
            F.cross_entropy((X @ W).softmax(1), Y)
        ],
        "return the loss as it was before the step": [slope(W - 0.1 * down, X, Y)[0]],
    }
    found = adapters.train_steps(W, X, Y, 0.1, 1)["losses"]
    twice = adapters.train_steps(W, torch.cat([X, X]), torch.cat([Y, Y]), 0.1, 1)["losses"]
    close(twice, found, "your loss grows with the batch: average over the images")
    close(found, [loss], mistake(found, made, "return F.cross_entropy of the logits and labels"))


def test_1a_a_step_goes_down_the_gradient(adapters):
    found = adapters.train_steps(W, X, Y, 0.1, 1)["weight"]
    expect(not torch.equal(found, W), "nothing was learned: backward() first, then step()")
    close(found, W - 0.1 * slope(W, X, Y)[1], "the step doesn't follow the loss's gradient")


def test_1a_each_step_forgets_the_last_one_s_gradient(adapters):
    wanted = added = W
    past = 0
    for _ in range(3):
        wanted = wanted - 0.1 * slope(wanted, X, Y)[1]
        past = past + slope(added, X, Y)[1]
        added = added - 0.1 * past
    found = adapters.train_steps(W, X, Y, 0.1, 3)["weight"]
    made = {"old gradients are added to new ones: zero_grad() before backward()": added}
    close(found, wanted, mistake(found, made, "three steps down the gradient end elsewhere"))


def test_1a_a_gradient_left_from_before_doesn_t_count(adapters):
    found = adapters.train_steps(W, X, Y, 0.1, 1, 1.0)["weight"]
    idea = "a gradient from before is in your step: zero_grad() before backward(), not after step()"
    close(found, W - 0.1 * slope(W, X, Y)[1], idea)


def test_1b_it_is_the_fraction_of_right_answers(adapters):
    found = adapters.accuracy(W, X, torch.tensor([0, 0, 2, 2]), False)["accuracy"]
    close(found, 0.75, "three of these four images are read rightly: that is 0.75")


def test_1b_it_is_measured_in_eval_mode(adapters):
    x, y = torch.eye(2).repeat(100, 1), torch.tensor([0, 1]).repeat(100)
    found = [adapters.accuracy(torch.eye(2), x, y, mode)["accuracy"] for mode in (True, False)]
    close(*found, "dropout was on while you measured: solver.eval() first")


def test_1b_the_mode_is_put_back(adapters):
    for mode in (True, False):
        left = adapters.accuracy(W, X, Y, mode)["training"]
        expect(left == mode, "the solver was left in another mode than it was found in")


def test_1c_rows_are_stages_and_columns_are_tasks(adapters):
    weights = torch.stack([0 * W, W, -W])
    xs, ys = [X[:2], X[2:]], [torch.tensor([0, 0]), Y[2:]]
    found = adapters.accuracy_matrix(weights, xs, ys)
    wanted = [[1.0, 0.0], [1.0, 0.5], [0.0, 0.5]]
    expect(torch.is_tensor(found), "R is wanted as a tensor, (T + 1, T)")
    expect(len(found) == 3, "a row for each stage: T + 1 rows, the untrained solver's first")
    close(found, wanted, "row i, column j is stage i tested on task j, on all tasks each time")


def test_1c_the_average_accuracy_is_taken_at_the_end(adapters):
    close(adapters.average_accuracy(R), 0.75, "average the last row, and nothing else")


def forgotten(R, best):
    """Forgetting, if best(column, j) is the best that was reached on task j."""
    tasks = R.shape[1]
    return sum(float(best(R[:, j], j) - R[-1, j]) for j in range(tasks - 1)) / (tasks - 1)


def test_1d_the_best_so_far_less_the_end(adapters):
    made = {
        "task j has been learned in row j + 1; the row before doesn't count": lambda r, j: r[j:-1],
        "what comes before a task was learned doesn't count": lambda r, j: r[:-1],
        "the best of the rows before the last: the end isn't one of them": lambda r, j: r[j + 1 :],
        "the best that was ever reached, not what was reached first": lambda r, j: r[j + 1],
    }
    made = {
        idea: forgotten(R, lambda r, j, rows=rows: rows(r, j).max()) for idea, rows in made.items()
    }
    found = adapters.forgetting_of(R)["forgetting"]
    wanted = (0.7 - 0.4 + 0.8 - 0.9 + 0.9 - 0.7) / 3
    close(found, wanted, mistake(found, made, "the best since it was learned, less the last row"))


def test_1d_a_task_that_improves_counts_as_negative(adapters):
    better = torch.tensor([[0.1, 0.1], [0.6, 0.1], [0.8, 0.9]])
    found = adapters.forgetting_of(better)["forgetting"]
    idea = "the best since it was learned, less the last row"
    made = {"a task that ends above its best has negative forgetting: don't clip it": 0.0}
    close(found, -0.2, mistake(found, made, idea))


def test_1e_backward_transfer_is_the_end_less_the_diagonal(adapters):
    idea = "R at the end less R right after the task (row j + 1), over all tasks but the last"
    close(adapters.transfer(R)["transfer"][0], (0.4 - 0.6 + 0.9 - 0.8 + 0.7 - 0.9) / 3, idea)


def test_1e_forward_transfer_is_before_the_task_less_untrained(adapters):
    idea = "R just before the task (row j) less R untrained (row 0), over all tasks but the first"
    close(adapters.transfer(R)["transfer"][1], (0.85 - 0.2 + 0.2 - 0.0 + 0.3 - 0.3) / 3, idea)
