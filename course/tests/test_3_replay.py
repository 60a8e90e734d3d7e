"""Public tests of the third assignment. A part is done when all tests of it pass."""

import torch
from torch.nn import functional as F

from genreplay_core.course import close, expect, mistake, normal, uniform

W = torch.tensor([[1.0, 0.0, -1.0], [0.5, -0.5, 0.0], [0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])


def tasks(seed, sizes=(20, 24, 22), noise=2):
    """Toy tasks of two classes each. An image holds a 1 in pixel 1, and its label in pixel 2."""
    rng = torch.Generator().manual_seed(seed)
    xs, ys = [], []
    for task, n in enumerate(sizes):
        y = torch.arange(n) % 2 + task
        marks = torch.stack([torch.zeros(n), torch.ones(n), y.float()], 1)
        xs.append(torch.cat([marks, torch.rand(n, noise + 1, generator=rng)], 1))
        ys.append(y)
    return xs, ys


def taught(adapters, seed=0, steps=6, batch=8, training=True):
    """What the scholar's trainer was seen to do, task by task.

    The first solver reads dreams by their noise, so it calls them this and that, and calls them
    otherwise as it learns: a label tells whether it was the frozen solver's or the live one's.
    """
    xs, ys = tasks(seed)
    weight = 0.1 * normal(seed + 1, 6, 4)
    weight[3:] += torch.eye(3, 4)
    return adapters.train_tasks(weight, xs, ys, steps, batch, 0.5, seed, training)


def dreams(x):
    """The rows of a batch that are dreams."""
    return x[x[:, 1] == 0]


def rehearsed(task, lr, live=False, gathered=False, even=False, said=False):
    """The solver's weight after the steps that were seen; or after a mistake: dreams labelled by
    the live solver, gradients that add up, rows that all count alike, new rows labelled by the
    frozen solver too."""
    frozen = weight = task["before"]
    slope = torch.zeros_like(weight)
    for x, row_weight in zip(task["x"], task["weight"], strict=True):
        real = (x[:, 1] > 0) & (not said)
        y = torch.where(real, x[:, 2].long(), (x @ (weight if live else frozen)).argmax(1))
        gap = (x @ weight).softmax(1) - F.one_hot(y, weight.shape[1])
        rows = torch.full((len(x),), 1 / len(x)) if even else row_weight
        slope = x.T @ (rows[:, None] * gap) + (slope if gathered else 0)
        weight = weight - lr * slope
    return weight


def test_3a_the_copy_stays_as_it_was(adapters):
    found = adapters.freeze(W, uniform(1, 5, 4))
    idea = "the frozen network changes when the original learns: copy it deeply, buffers too"
    close(found["found"], found["wanted"], idea)


def test_3a_it_is_in_eval_mode(adapters):
    found = adapters.freeze(W, uniform(2, 5, 4))
    expect(not found["training"], "dropout and batch norm are live in it: freeze in eval mode")
    idea = "the original was put into eval mode, or lost its gradients, but it is still learning"
    expect(found["live"], idea)


def test_3a_it_asks_for_no_gradient(adapters):
    found = adapters.freeze(W, uniform(3, 5, 4))
    expect(not found["learns"], "frozen weights need no gradient: requires_grad_(False)")


def test_3b_labels_belong_to_these_dreams(adapters):
    solver = normal(13, 4, 3)
    found = adapters.replay_batch(normal(4, 2, 4), solver, 200, 0)
    expect(tuple(found["x"].shape) == (200, 4), "n dreams are wanted")
    idea = "the largest of all logits that the solver gives to the very images that you return"
    close(found["y"], (found["x"] @ solver).argmax(1), idea)


def test_3b_they_carry_no_gradient(adapters):
    found = adapters.replay_batch(normal(5, 2, 4), W, 10, 1)
    expect(not found["graph"], "replay carries a gradient into the generator: use torch.no_grad()")


def test_3b_each_dream_has_noise_of_its_own(adapters):
    found = adapters.replay_batch(torch.eye(4), W, 2000, 2)["x"].logit()
    expect(len(found.unique(dim=0)) == 2000, "dreams are repeated: draw noise for each of them")
    other = adapters.replay_batch(torch.eye(4), W, 2000, 3)["x"].logit()
    expect(not torch.equal(found, other), "each call gives the same dreams: fix no seed")
    expect((found.std() - 1).abs() < 0.05, "noise is standard normal: torch.randn")


def distilled(adapters, logits, teacher, temperature):
    """Checks a loss, and says which of the usual mistakes it is."""
    soft, hard = (teacher / temperature).softmax(1), teacher.softmax(1)
    plain = F.cross_entropy(logits / temperature, soft)
    exchanged = F.cross_entropy(teacher / temperature, (logits / temperature).softmax(1))
    square = temperature**2
    made = {
        "this is the divergence: leave p log p out, and keep - p log q": square
        * F.kl_div((logits / temperature).log_softmax(1), soft, reduction="batchmean"),
        "teacher and pupil are exchanged: p is the teacher's": square * exchanged,
        "multiply the loss by T squared, so that its gradient keeps its size": plain,
        "the teacher isn't softened: divide its answer by T too": square
        * F.cross_entropy(logits / temperature, hard),
        "the pupil isn't softened: divide its logits by T too": square
        * F.cross_entropy(logits, soft),
    }
    found = adapters.distillation(logits, teacher, temperature)["loss"]
    idea = "-(p * log q).sum(1), p of the teacher and q of the pupil, both at temperature T"
    close(found, square * plain, mistake(found, made, idea))


def test_3c_at_temperature_one_it_is_the_cross_entropy(adapters):
    distilled(adapters, torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]]), 1.0)


def test_3c_both_are_softened_and_the_size_is_kept(adapters):
    distilled(adapters, torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]]), 3.0)


def test_3c_the_pupil_learns_and_the_teacher_doesn_t(adapters):
    found = adapters.distillation(normal(8, 4, 3), normal(9, 4, 3), 2.0)
    expect(found["pupil"].abs().max() > 0, "no gradient reaches the pupil's logits")
    idea = "a gradient goes to the teacher: detach() its answer"
    close(found["teacher"], torch.zeros(4, 3), idea)


def test_3c_it_is_averaged_over_the_images(adapters):
    logits, teacher = normal(6, 4, 3), normal(7, 4, 3)
    once = adapters.distillation(logits, teacher, 2.0)["loss"]
    twice = adapters.distillation(logits.repeat(2, 1), teacher.repeat(2, 1), 2.0)["loss"]
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
    idea = "whatever t is: where there are no old rows, the new ones have it all"
    close(adapters.mixture_weights(4, 0, 3), [0.25] * 4, idea)


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


def test_3e_new_rows_come_first(adapters):
    for task in taught(adapters)[1:]:
        idea = "dreams stand before the new rows: put them behind, for `weights` counts on it"
        expect(all(len(dreams(x[:8])) == 0 for x in task["x"]), idea)


def test_3e_each_step_draws_rows_anew(adapters):
    for task in taught(adapters)[1:]:
        new = torch.cat([x[:8] for x in task["x"]])
        idea = "the same new rows come again and again: draw at random, from all of the task"
        expect(len(new.unique(dim=0)) > 12, idea)
        dreamt = torch.cat([dreams(x) for x in task["x"]])
        idea = "the same dreams come again and again: dream anew in each step"
        expect(len(dreamt.unique(dim=0)) == len(dreamt), idea)


def test_3e_dreams_come_from_the_generator_frozen_when_the_task_began(adapters):
    for begun, task in enumerate(taught(adapters)):
        ages = [round(float(age)) for x in task["x"] for age in 1000 * dreams(x)[:, 0]]
        idea = "the dreaming generator has learned from this task: freeze it when the task begins"
        expect(all(age <= 6 * begun for age in ages), idea + ", once, and let the copy dream")
        idea = "the generator that dreams is too old: freeze anew when each task begins"
        expect(all(age >= 6 * begun for age in ages), idea)


def test_3e_tasks_are_counted_in_self_tasks(adapters):
    idea = "add 1 to `self.tasks` when a task begins: 'See it' sets it back to 0"
    expect([task["tasks"] for task in taught(adapters)] == [1, 2, 3], idea)


def test_3e_the_solver_s_mode_is_left_alone(adapters):
    for mode in (True, False):
        left = [task["training"] for task in taught(adapters, steps=1, training=mode)]
        idea = "the solver is left in another mode than you found it in: only copies are for eval"
        expect(left == [mode] * 3, idea)


def test_3e_the_rows_have_the_weights_of_this_task(adapters):
    for t, task in enumerate(taught(adapters), 1):
        wanted = [1 / t / 8] * 8 + [(1 - 1 / t) / 8] * (8 if t > 1 else 0)
        for weight in task["weight"]:
            close(weight, wanted, "call weights(new, old, t) with this task's t, 1 for the first")


def test_3e_the_solver_learns_from_the_same_rows(adapters):
    for task in taught(adapters):
        made = {
            "dreams are labelled by the solver that is being trained: ask the frozen copy": "live",
            "old gradients are added to new ones: zero_grad() before backward()": "gathered",
            "all rows count alike: sum weight times loss, instead of averaging losses": "even",
            "new rows have labels of their own: the frozen solver labels dreams alone": "said",
        }
        made = {idea: rehearsed(task, 0.5, **{what: True}) for idea, what in made.items()}
        idea = "these aren't steps down the weighted cross-entropy of the generator's rows"
        close(task["after"], rehearsed(task, 0.5), mistake(task["after"], made, idea))
