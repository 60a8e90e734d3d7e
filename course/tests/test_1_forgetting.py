"""Public tests of the first assignment. A part is done when all tests of it pass."""

import torch

from genreplay_core.course import close, expect

W = torch.tensor([[1.0, 0.0, -1.0], [0.5, -0.5, 0.0]])
X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 2.0]])
Y = torch.tensor([0, 1, 2, 2])
R = torch.tensor([[0.1, 0.2, 0.0], [0.9, 0.3, 0.1], [0.7, 0.8, 0.2], [0.4, 0.9, 1.0]])


def slope(weight, x, y):
    """The mean cross-entropy of x @ weight, and its gradient, worked out by hand."""
    chance = (x @ weight).softmax(1)
    one_hot = torch.eye(weight.shape[1])[y]
    return -(chance[range(len(y)), y]).log().mean(), x.T @ (chance - one_hot) / len(x)


def test_1a_the_loss_is_the_mean_cross_entropy_of_the_logits(adapters):
    loss, _ = slope(W, X, Y)
    found = adapters.train_steps(W, X, Y, 0.1, 1)["losses"]
    twice = adapters.train_steps(W, torch.cat([X, X]), torch.cat([Y, Y]), 0.1, 1)["losses"]
    close(twice, found, "your loss grows with the batch: average over the images")
    close(found, [loss], "give F.cross_entropy the logits as they are, without a softmax before")


def test_1a_a_step_goes_down_the_gradient(adapters):
    found = adapters.train_steps(W, X, Y, 0.1, 1)["weight"]
    expect(not torch.equal(found, W), "nothing was learned: backward() first, then step()")
    close(found, W - 0.1 * slope(W, X, Y)[1], "the step doesn't follow the loss's gradient")


def test_1a_each_step_forgets_the_last_one_s_gradient(adapters):
    wanted = W
    for _ in range(3):
        wanted = wanted - 0.1 * slope(wanted, X, Y)[1]
    found = adapters.train_steps(W, X, Y, 0.1, 3)["weight"]
    close(found, wanted, "old gradients are added to new ones: zero_grad() before backward()")


def test_1b_it_is_the_fraction_of_right_answers(adapters):
    found = adapters.accuracy(W, X, Y, False)["accuracy"]
    close(found, 0.5, "two of these four images are read rightly: that is 0.5")


def test_1b_it_is_measured_in_eval_mode(adapters):
    x, y = torch.eye(2).repeat(100, 1), torch.tensor([0, 1]).repeat(100)
    found = adapters.accuracy(torch.eye(2), x, y, True)["accuracy"]
    close(found, 1.0, "dropout was on while you measured: solver.eval() first")


def test_1b_the_mode_is_put_back(adapters):
    for mode in (True, False):
        left = adapters.accuracy(W, X, Y, mode)["training"]
        expect(left == mode, "the solver was left in another mode than it was found in")


def test_1c_rows_are_stages_and_columns_are_tasks(adapters):
    weights = torch.stack([0 * W, W, -W])
    xs, ys = [X[:2], X[2:]], [torch.tensor([0, 0]), Y[2:]]
    found = adapters.accuracy_matrix(weights, xs, ys)
    wanted = [[1.0, 0.0], [1.0, 0.5], [0.0, 0.5]]
    expect(len(found) == 3, "a row for each stage: T + 1 rows, the untrained solver's first")
    close(found, wanted, "row i, column j is stage i tested on task j, on all tasks each time")


def test_1c_the_average_accuracy_is_taken_at_the_end(adapters):
    close(adapters.average_accuracy(R), 2.3 / 3, "average the last row, and nothing else")


def test_1d_the_best_so_far_less_the_end(adapters):
    found = adapters.forgetting_of(R)["forgetting"]
    close(found, (0.9 - 0.4 + 0.8 - 0.9) / 2, "the best since it was learned, less the last row")


def test_1d_a_task_that_improves_counts_as_negative(adapters):
    better = torch.tensor([[0.1, 0.1], [0.6, 0.1], [0.8, 0.9]])
    found = adapters.forgetting_of(better)["forgetting"]
    close(found, -0.2, "a task that ends above its best has negative forgetting: don't clip it")


def test_1e_backward_transfer_is_the_end_less_the_diagonal(adapters):
    idea = "R at the end less R right after the task (row j + 1), over all tasks but the last"
    close(adapters.transfer(R)[0], (0.4 - 0.9 + 0.9 - 0.8) / 2, idea)


def test_1e_forward_transfer_is_before_the_task_less_untrained(adapters):
    idea = "R just before the task (row j) less R untrained (row 0), over all tasks but the first"
    close(adapters.transfer(R)[1], (0.3 - 0.2 + 0.2 - 0.0) / 2, idea)
