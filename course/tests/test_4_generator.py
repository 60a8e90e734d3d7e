"""Public tests of the fourth assignment. A part is done when all tests of it pass.

In 4a and 4b only the version that your notebook's TRACK names is looked at.
"""

import torch

from genreplay_core.course import close, digits, expect, mistake, normal, uniform


def chosen(adapters):
    track = adapters.track()
    expect(track in ("flow", "wgan"), 'TRACK is "flow" or "wgan"')
    return track


def flow_path(adapters, noise, image, t):
    there, velocity = adapters.path(noise, image, t)
    close(there, (1 - t) * noise + t * image, "at t = 0 it is the noise, at t = 1 the image")
    close(velocity, image - noise, "the velocity leads from the noise to the image: x - z")


def penalised(adapters, weight, real, fake, mix, squared=False):
    """Checks a penalty whose slope is known: weight, or 2 * score * weight for the square."""
    found = adapters.gradient_penalty(weight, real, fake, mix, squared)
    w = weight.clone().requires_grad_()

    def length(mix):
        between = (real + mix * (fake - real)).flatten(1)
        factor = 2 * (between @ w) if squared else torch.ones(len(real), 1)
        return (factor * w.T).norm(dim=1)

    wanted = (length(mix) - 1).square()
    expect(tuple(found["penalty"].shape) == (len(real),), "one penalty for each image")
    made = {
        "a length is the root of the sum of squares": (length(mix).square() - 1).square(),
        "slopes that are too flat are punished too": (length(mix) - 1).clamp(min=0).square(),
        "mix is 0 at the real image, and 1 at the fake one": (length(1 - mix) - 1).square(),
    }
    idea = "(|slope| - 1)^2 at the point between, the length over all pixels of an image"
    close(found["penalty"], wanted, mistake(found["penalty"], made, idea))
    (slope,) = torch.autograd.grad(wanted.sum(), w)
    idea = "the penalty doesn't teach the critic: take the slope with create_graph=True"
    close(found["slope"], slope, idea, within=1e-3)


def test_4a_the_heart_of_it(adapters):
    if chosen(adapters) == "flow":
        t = torch.tensor([[0.0], [0.25], [1.0]])
        flow_path(adapters, normal(1, 3, 4), uniform(2, 3, 4), t)
    else:
        real, fake = uniform(3, 3, 1, 2, 2), uniform(4, 3, 1, 2, 2)
        mix = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1)
        penalised(adapters, torch.tensor([[1.0], [2.0], [0.0], [-2.0]]), real, fake, mix)
        penalised(adapters, torch.tensor([[1.0], [0.5], [0.0], [-2.0]]), real, fake, mix, True)


def walked(adapters, z, steps, slope, at):
    found, x = adapters.integrate(z, steps, slope, at), z
    for step in range(steps):
        x = x + (slope * x + at * step / steps) / steps
    expect(all(tuple(t.shape) == (len(z), 1) for t in found["times"]), "t is (N, 1), one a row")
    times = [step / steps for step in range(steps)]
    idea = f"{steps} steps ask for the velocity at t = 0, 1/{steps}, ..., and not at t = 1"
    close([float(t[0]) for t in found["times"]], times, idea)
    close(found["x"], x, "move by the velocity times the length of a step, 1 / steps")


def judged(adapters, weight, real, fake, rows, penalty):
    found = adapters.wgan_losses(weight, real, fake, rows, penalty)
    critic, generator = found["losses"]
    scores = [(x.flatten(1) @ weight).squeeze(1) for x in (real, fake)]
    idea = "the critic minimises score(fake) - score(real) + penalty, weighted by row"
    close(critic, rows @ (scores[1] - scores[0] + penalty), idea)
    close(generator, -rows @ scores[1], "the generator minimises minus its score, weighted by row")
    expect(found["teach"], "a loss without gradient teaches nothing: give back tensors")
    wanted = (-rows.unsqueeze(1) * weight.T).reshape(fake.shape)
    close(found["slope"], wanted, "no gradient, or a wrong one, reaches the fake images")


def test_4b_the_rest_of_it(adapters):
    if chosen(adapters) == "flow":
        walked(adapters, torch.tensor([[1.0, -2.0]]), 4, 0.5, 1.0)
        walked(adapters, torch.tensor([[1.0, -2.0]]), 1, 0.0, 1.0)
    else:
        rows, penalty = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 4.0])
        real, fake = uniform(5, 3, 4), uniform(6, 3, 4)
        judged(adapters, torch.tensor([[1.0], [2.0], [0.0], [-2.0]]), real, fake, rows, penalty)


def test_4c_decode_makes_images_of_noise(adapters):
    found = adapters.protocol((1, 8, 8), 0)
    expect(found["module"], "a generator is an nn.Module: its weights are copied and saved as such")
    once, again, other = found["images"]
    expect(tuple(once.shape) == (5, 1, 8, 8), "decode gives images (N, *shape)")
    expect(once.min() >= 0 and once.max() <= 1, "pixels lie in [0, 1]")
    expect(torch.equal(once, again), "the same noise gives the same image: decode draws none")
    expect(not torch.equal(once, other), "other noise gives another image")


def test_4c_a_row_of_weight_0_has_no_influence(adapters):
    x = digits()[:16]
    weight = torch.tensor([1 / 8] * 8 + [0.0] * 8)
    other = torch.cat([x[:8], 1 - x[8:]])
    found = [adapters.weighted(images, weight, 3) for images in (x, other)]
    idea = "a row of weight 0 changes what is learned: multiply each row's loss by its weight"
    close(*(each["after"] for each in found), idea, within=1e-5)


def test_4c_a_row_of_twice_the_weight_counts_twice(adapters):
    x, even = digits()[:16], torch.full((16,), 1 / 16)
    uneven = torch.tensor([2 / 16] * 7 + [0.0] * 7 + [1 / 16] * 2)
    one, other, both = (
        adapters.weighted(x, weight, 3) for weight in (even, uneven, (even + uneven) / 2)
    )
    idea = "the weights have no influence on what is learned"
    expect(not torch.allclose(one["after"], other["after"]), idea)
    idea = "the loss is the sum over rows of weight times the row's loss; give it back"
    expect(abs(one["loss"] - other["loss"]) > 1e-5, idea)
    close(both["loss"], (one["loss"] + other["loss"]) / 2, idea)


def test_4c_each_row_has_noise_of_its_own(adapters):
    x, even = digits()[:8], torch.full((8,), 1 / 8)
    z, other = (adapters.blank(x, even, seed)["learning"] for seed in (3, 4))
    expect(not torch.equal(z, other), "each step has the same noise: draw it anew, fix no seed")
    idea = "all rows have the same noise: draw it for each of them"
    expect(len(z.unique(dim=0)) == 8, idea)
    if chosen(adapters) == "flow":  # whose network sees noise and image mixed
        twins = x[:1].repeat(2, 1, 1, 1)
        one, other = (adapters.blank(twins, row, 3)["loss"] for row in torch.eye(2))
        expect(abs(one - other) > 1e-5, idea)


def test_4c_its_network_is_given_what_it_needs(adapters):
    found = adapters.blank(digits()[:200], torch.full((200,), 1 / 200), 0)
    if chosen(adapters) == "flow":
        idea = "a row's loss is averaged over its pixels: squared difference of the velocities"
        expect(1 < found["loss"] < 2.5, idea)
        times = found["learning"][:, -1]
        idea = "each row learns at a time of its own, from all of [0, 1]: tell it to the network"
        expect(times.min() > -0.01 and times.max() < 1.01 and times.std() > 0.2, idea)
        walk = torch.stack([given[0, -1] for given in found["walk"]])
        expect(len(walk) >= 10, "decode walks in 10 to 20 steps: fewer are too coarse")
        idea = "decode walks from t = 0 to t = 1, and tells the network how far it has come"
        expect(walk[0] < 0.06 and walk[-1] > 0.8 and (walk.diff() >= 0).all(), idea)
    else:
        close(found["loss"], 10, "10 times the gradient penalty is in a row's loss")
        z = found["learning"]
        idea = "noise is standard normal, in learning as in dreaming: torch.randn"
        expect(z.mean().abs() < 0.15 and (z.std() - 1).abs() < 0.15, idea)


def test_4c_each_step_forgets_the_last_one_s_gradient(adapters):
    x, weight = digits()[:16], torch.full((16,), 1 / 16)
    found, cleared = (adapters.weighted(x, weight, 3, each) for each in (False, True))
    idea = "old gradients are added to new ones: zero_grad() before each backward()"
    close(found["after"], cleared["after"], idea, within=1e-5)
    idea = "train_step changes the images that it is given, and the solver learns from them too"
    expect(torch.equal(found["x"], x), idea)


def test_4c_it_learns_what_images_look_like(adapters):
    x = digits()
    found = adapters.generates(x, 200, 0)
    idea = "after 200 steps its images are too bright or too dark (flow: images shifted to [-1, 1] "
    idea += "and back, noise standard normal, times from all of [0, 1])"
    expect((found.mean() - x.mean()).abs() < 0.07, idea)
    gap = (found.mean(0) - x.flatten(1).mean(0)).abs().mean()
    expect(gap < 0.15, "after 200 steps its images have ink in the wrong places")
    expect(found.std(0).mean() > 0.08, "after 200 steps all of its images are the same")


def test_4d_the_matrix_is_whole(adapters):
    found = adapters.remembers("class", False, 60, 0)
    R = found["R"]
    expect(tuple(R.shape) == (3, 2), "T + 1 rows: the untrained solver, then after each task")
    expect(R[1, 0] > 0.9 and R[2, 1] > 0.9, "a task isn't learned when it is met")
    idea = "row 0 is the solver before it has learned anything, on the test images"
    close(R[0], found["first"], idea)
    expect(len(found["rows"]) == 120, "the solver takes `steps` steps in each task")
    idea = "without a generator nothing is left to remember by: who reminds it?"
    expect(R[2, 0] < 0.4, idea)


def test_4d_dreams_help_it_remember(adapters):
    found = adapters.remembers("class", True, 60, 1)
    R = found["R"]
    close(R[-1], found["last"], "the last row is measured at the end, on the test images")
    expect(R[2, 0] > 0.5, "the first task is forgotten: one scholar for all tasks, dreams for each")
    idea = "it rehearses as many dreams as there are new rows, no fewer and no more: replay_ratio"
    expect(found["rows"][-1] == 2 * found["rows"][0], idea)


def test_4d_the_seed_is_passed_on(adapters):
    drawn = ((5, 0), (5, 1), (6, 0))
    one, again, other = (adapters.remembers("class", False, 2, *d)["weights"] for d in drawn)
    idea = "the same seed gives another network each time: pass `seed` on"
    expect(torch.equal(one, again), idea)
    idea = "another seed gives the same network: pass on the `seed` that you are given"
    expect(not torch.equal(one, other), idea)
