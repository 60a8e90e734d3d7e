"""Public tests of the third assignment. A part is done when all tests of it pass."""

import torch
from torch.nn import functional as F

from genreplay_core.course import close, expect, normal, uniform

W = torch.tensor([[1.0, 0.0, -1.0], [0.5, -0.5, 0.0], [0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])


def tasks(seed, sizes=(20, 24, 22), noise=2):
    """Toy tasks whose images hold their label: pixel 1 is a 1 for class 0, pixel 2 for class 1."""
    rng = torch.Generator().manual_seed(seed)
    xs, ys = [], []
    for n in sizes:
        y = torch.arange(n) % 2
        marks = torch.stack([torch.zeros(n), 1.0 - y, 1.0 * y], 1)
        xs.append(torch.cat([marks, torch.rand(n, noise + 1, generator=rng)], 1))
        ys.append(y)
    return xs, ys


def taught(adapters, seed=0, steps=6, batch=8):
    """What the scholar's trainer was seen to do, and the settings."""
    xs, ys = tasks(seed)
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed + 1))
    return adapters.train_tasks(weight, xs, ys, steps, batch, 0.5, seed)


def dreams(x):
    """The rows of a batch that are dreams."""
    return x[x[:, 1:3].sum(1) == 0]


def rehearsed(task, lr, frozen):
    """The solver's weight after the steps that were seen, dreams labelled by `frozen`; with None by
    the solver as it is at each step."""
    weight = task["before"]
    for x, row_weight in zip(task["x"], task["weight"], strict=True):
        teacher = weight if frozen is None else frozen
        real = x[:, 1:3].sum(1) > 0
        y = torch.where(real, x[:, 2].long(), (x @ teacher).argmax(1))
        gap = (x @ weight).softmax(1) - F.one_hot(y, weight.shape[1])
        weight = weight - lr * x.T @ (row_weight[:, None] * gap)
    return weight


def test_3a_the_copy_stays_as_it_was(adapters):
    found = adapters.freeze(W, uniform(1, 5, 4))
    idea = "the frozen network changes when the original learns: copy it deeply, buffers too"
    close(found["found"], found["wanted"], idea)


def test_3a_it_is_in_eval_mode(adapters):
    found = adapters.freeze(W, uniform(2, 5, 4))
    expect(not found["training"], "dropout and batch norm are live in it: freeze in eval mode")
    expect(found["live"], "the original was put into eval mode, but it is still learning")


def test_3a_it_asks_for_no_gradient(adapters):
    found = adapters.freeze(W, uniform(3, 5, 4))
    expect(not found["learns"], "frozen weights need no gradient: requires_grad_(False)")


def test_3b_labels_belong_to_these_dreams(adapters):
    found = adapters.replay_batch(normal(4, 2, 4), W, 200, 0)
    expect(tuple(found["x"].shape) == (200, 4), "n dreams are wanted")
    wanted = (found["x"] @ W).argmax(1)
    close(found["y"], wanted, "ask the solver about the very images that you return")


def test_3b_they_carry_no_gradient(adapters):
    found = adapters.replay_batch(normal(5, 2, 4), W, 10, 1)
    expect(not found["graph"], "replay carries a gradient into the generator: use torch.no_grad()")


def test_3b_each_dream_has_noise_of_its_own(adapters):
    found = adapters.replay_batch(torch.eye(4), W, 2000, 2)["x"].logit()
    expect(len(found.unique(dim=0)) == 2000, "dreams are repeated: draw noise for each of them")
    expect((found.std() - 1).abs() < 0.05, "noise is standard normal: torch.randn")


def test_3c_at_temperature_one_it_is_the_cross_entropy(adapters):
    logits, teacher = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    wanted = F.cross_entropy(logits, teacher.softmax(1))
    idea = "the teacher's softmax against the pupil's log softmax, summed over classes"
    close(adapters.distillation(logits, teacher, 1.0), wanted, idea)


def test_3c_both_are_softened_and_the_size_is_kept(adapters):
    logits, teacher = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    wanted = 9 * F.cross_entropy(logits / 3, (teacher / 3).softmax(1))
    idea = (
        "divide both by T, and multiply the loss by T squared, so that the gradient keeps its size"
    )
    close(adapters.distillation(logits, teacher, 3.0), wanted, idea)


def test_3c_it_is_averaged_over_the_images(adapters):
    logits, teacher = normal(6, 4, 3), normal(7, 4, 3)
    once = adapters.distillation(logits, teacher, 2.0)
    twice = adapters.distillation(logits.repeat(2, 1), teacher.repeat(2, 1), 2.0)
    close(twice, once, "your loss grows with the batch: average over images, sum over classes")


def test_3d_the_new_task_counts_one_over_t(adapters):
    for new, old, t in ((4, 4, 2), (4, 8, 5), (8, 2, 3)):
        weight = adapters.mixture_weights(new, old, t)
        expect(tuple(weight.shape) == (new + old,), "one weight for each row, new rows first")
        idea = "new rows share 1/t, however many they are: weight by task, not by head count"
        close(weight[:new].sum(), 1 / t, idea)
        close(weight.sum(), 1.0, "the weights of all rows sum to 1")


def test_3d_rows_of_a_kind_count_alike(adapters):
    weight = adapters.mixture_weights(3, 5, 4)
    close(weight[:3], [1 / 12] * 3, "each new row weighs 1 / (t * new)")
    close(weight[3:], [0.75 / 5] * 5, "each old row weighs (1 - 1/t) / old")


def test_3d_without_old_rows_the_new_ones_have_it_all(adapters):
    close(adapters.mixture_weights(4, 0, 1), [0.25] * 4, "in the first task there is no past")


def test_3e_the_first_task_is_learned_from_itself(adapters):
    first = taught(adapters)[0]
    expect(len(first["x"]) == 6, "one step of the generator for each step of the solver")
    idea = "in the first task there is nothing to dream of yet"
    expect(all(len(dreams(x)) == 0 for x in first["x"]), idea)
    expect(not torch.equal(first["before"], first["after"]), "the solver learned nothing")


def test_3e_the_generator_rehearses_too(adapters):
    for task in taught(adapters)[1:]:
        idea = "your generator learns the new task only, and will forget how to dream the old ones"
        expect(all(len(dreams(x)) == 8 for x in task["x"]), idea)
        idea = "new rows are missing in the generator's batch"
        expect(all(len(x) == 16 for x in task["x"]), idea)


def test_3e_dreams_come_from_the_frozen_generator(adapters):
    second = taught(adapters)[1]
    ages = [round(float(age)) for x in second["x"] for age in 1000 * dreams(x)[:, 0]]
    idea = "dreams come from the generator that is being trained: let the frozen copy dream"
    expect(set(ages) <= {6}, idea)


def test_3e_labels_come_from_the_frozen_solver(adapters):
    second = taught(adapters)[1]
    wanted = rehearsed(second, 0.5, second["before"])
    live = rehearsed(second, 0.5, None)
    idea = "the solver's steps aren't those of weighted cross-entropy on these rows"
    if torch.allclose(second["after"], live, atol=1e-4) and not torch.allclose(wanted, live):
        idea = "dreams are labelled by the solver that is being trained: ask the frozen copy"
    close(second["after"], wanted, idea)
