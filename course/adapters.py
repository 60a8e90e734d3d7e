"""What binds your code to the tests. They call the functions below, and nothing else of yours.

As it stands, your answers are read from the notebooks: imports, functions, classes and CAPITAL
constants of a saved notebook count, the rest of it isn't run. If you keep your code elsewhere, say
so in the six lines that begin with `forgetting = Answers(...)`, for example

    import my_forgetting as forgetting

Leave the functions as they are: they build small networks, call your code, and give back what it
answered as tensors, numbers and text.
"""

import copy
import json
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from genreplay_core import accuracy as right_accuracy
from genreplay_core import load, mlp_solver, mlp_vae, split
from genreplay_core.course import Answers, material, module
from genreplay_core.data import few
from genreplay_core.metrics import interval

HERE = Path(__file__).parent
right = module(material() / "right.py")  # stands in for what a part takes from another

forgetting = Answers(HERE / "1-forgetting.ipynb")
vae = Answers(HERE / "2-vae.ipynb")
replay = Answers(HERE / "3-replay.ipynb")
generator = Answers(HERE / "4-generator.ipynb")
study = Answers(HERE / "5-study.ipynb")
bug_hunts = Answers(HERE / "6-bug-hunts.ipynb")


class Linear(nn.Module):
    """x (N, D) -> x @ weight (N, K). Notes what it was last asked, and whether with gradients."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.graph = self.asked = None

    def forward(self, x):
        self.graph, self.asked = torch.is_grad_enabled(), x.detach()
        return x.flatten(1) @ self.weight


def tensor(value):
    """A number or a tensor as a tensor."""
    if value is None:
        raise TypeError("numbers are wanted, and nothing came: is there a return?")
    return torch.as_tensor(value)


def number(value):
    """A number, or a tensor that holds one, as a float."""
    return float(tensor(value).detach())


def slopes(value, *of):
    """How the sum of a value changes with each of these tensors; 0 where it doesn't."""
    if not tensor(value).requires_grad:
        return [torch.zeros_like(each) for each in of]
    return list(torch.autograd.grad(value.sum(), of, materialize_grads=True))


# ---------------------------------------------------------------- 1: measure forgetting


def train_steps(weight, x, y, lr, steps, left=0.0):
    """Weight after some steps, and the losses (steps,). left: a gradient from before the first."""
    solver = Linear(weight)
    solver.weight.grad = torch.full_like(weight, left)
    optimiser = torch.optim.SGD(solver.parameters(), lr)
    losses = [number(forgetting.train_step(solver, optimiser, x, y)) for _ in range(steps)]
    return {"weight": solver.weight.detach(), "losses": losses}


def accuracy(weight, x, y, training):
    """The accuracy of a network with dropout, and the mode in which it is left."""
    solver = nn.Sequential(Linear(weight), nn.Dropout(0.9)).train(training)
    value, off = number(forgetting.accuracy(solver, x, y)), not torch.is_grad_enabled()
    left = {"training": solver[1].training, "graph": solver[0].graph, "off": off}
    return {"accuracy": value, **left}


def accuracy_matrix(weights, xs, ys, wrong=False):
    """R (T+1, T) of linear solvers; the measure is right, whatever yours is. wrong: it is the
    fraction of wrong answers."""
    stages = [Linear(weight) for weight in weights]

    def measure(solver, x, y):
        return abs(wrong - right.accuracy(solver, x, y))

    with torch.no_grad():
        return forgetting.accuracy_matrix(stages, list(zip(xs, ys, strict=True)), measure)


def average_accuracy(R):
    return forgetting.average_accuracy(R)


def forgetting_of(R):
    """Your forgetting of R, and R as it is left."""
    R = R.clone()
    return {"forgetting": number(forgetting.forgetting(R)), "R": R}


def transfer(R):
    """[backward, forward], and R as either leaves it."""
    one, other = R.clone(), R.clone()
    both = [number(forgetting.backward_transfer(one)), number(forgetting.forward_transfer(other))]
    return {"transfer": both, "R": [one, other]}


# ---------------------------------------------------------------- 2: a VAE


def gaussian_kl(mean, logvar):
    """The divergences, and how their sum changes with the mean and the log variance."""
    mean, logvar = mean.clone().requires_grad_(), logvar.clone().requires_grad_()
    kl = vae.gaussian_kl(mean, logvar)
    of_mean, of_logvar = slopes(kl, mean, logvar)
    return {"kl": tensor(kl).detach(), "mean": of_mean, "logvar": of_logvar}


def reparameterise(mean, logvar, noise):
    """The latents, and how their sum changes with the mean and the log variance."""
    mean, logvar = mean.clone().requires_grad_(), logvar.clone().requires_grad_()
    z = vae.reparameterise(mean, logvar, noise)
    of_mean, of_logvar = slopes(z, mean, logvar)
    return {"z": z.detach(), "mean": of_mean, "logvar": of_logvar}


def negative_elbo(logits, x, kl):
    """The loss, and how it changes with the logits and the KL."""
    logits, kl = logits.clone().requires_grad_(), kl.clone().requires_grad_()
    loss = vae.negative_elbo(logits, x, kl)
    of_logits, of_kl = slopes(loss, logits, kl)
    return {"loss": tensor(loss).detach(), "logits": of_logits, "kl": of_kl}


def sample(weight, n, seed, training=True):
    """n samples of a decoder with dropout, and how the decoder is left."""
    torch.manual_seed(seed)
    decoder = nn.Sequential(Linear(weight), nn.Dropout(0.5)).train(training)
    images = vae.sample(decoder, n, len(weight))
    left = {"training": decoder[1].training, "graph": images.requires_grad}
    return {"images": images.detach(), "off": not torch.is_grad_enabled(), **left}


class Constant(nn.Module):
    """The same row for each image. Keeps the row's gradient."""

    def __init__(self, row):
        super().__init__()
        self.row, self.slope = nn.Parameter(row), torch.zeros_like(row)
        self.row.register_hook(self.keep)

    def keep(self, slope):
        self.slope = slope

    def forward(self, x):
        return self.row.expand(len(x), -1)


def vae_step(x, mean, logvar, weight):
    """The loss of your VAE if its encoder says the same of each image, and its decoder z @ weight;
    the latents that it decoded; and how the loss changes with mean and log variance."""
    model = vae.VAE(tuple(x.shape[1:]), latent_dim=len(mean), hidden=8)
    model.encoder, model.decoder = Constant(torch.cat([mean, logvar])), Linear(weight)
    loss = number(model.train_step(x))
    of_mean, of_logvar = model.encoder.slope.chunk(2)
    return {"loss": loss, "z": model.decoder.asked, "mean": of_mean, "logvar": of_logvar}


def vae_learns(x, steps, seed, cleared=False):
    """Losses (steps,), how far parameters that moved did so in each step (steps,), the names of
    those that never moved, and 64 dreams, twice of the same noise. cleared: gradients are, between
    steps."""
    torch.manual_seed(seed)
    model = vae.VAE(tuple(x.shape[1:]), latent_dim=4, hidden=32)
    before, losses, moves = copy.deepcopy(model.state_dict()), [], []
    for _ in range(steps):
        old = nn.utils.parameters_to_vector(model.parameters()).detach()
        losses.append(number(model.train_step(x[torch.randint(len(x), (64,))])))
        moved = (nn.utils.parameters_to_vector(model.parameters()).detach() - old).abs()
        moves.append(float(moved[moved > 0].mean()))
        if cleared:
            model.zero_grad()
    still = [n for n, p in model.named_parameters() if torch.equal(p.detach(), before[n])]
    z = torch.randn(64, model.latent_dim)
    dreams, again = (model.decode(z).detach() for _ in range(2))
    told = {"losses": losses, "moves": moves, "still": still}
    return {**told, "dreams": dreams, "again": again}


# ---------------------------------------------------------------- 3: the replay trainer


def freeze(weight, x):
    """What is frozen, and what is left of the network, when the network then learns on."""
    network = nn.Sequential(Linear(weight), nn.BatchNorm1d(weight.shape[1]), nn.Dropout(0.5))
    network.train()
    frozen = replay.freeze(network)
    modes = [part.training for part in frozen.modules()]
    live = [part.training for part in network.modules()]
    live += [weight.requires_grad for weight in network.parameters()]
    wanted = copy.deepcopy(network).eval()(x).detach()
    with torch.no_grad():
        network[0].weight.add_(1.0)
        network.train()(3 * x + 1)  # moves the statistics of the batch norm
    return {
        "training": any(modes),
        "live": all(live),
        "learns": any(p.requires_grad for p in frozen.parameters()),
        "wanted": wanted,
        "found": frozen.eval()(x).detach(),
    }


class Decoder(nn.Module):
    """A generator whose images are squashed noise: sigmoid(z @ weight)."""

    def __init__(self, weight):
        super().__init__()
        self.latent_dim, self.net = len(weight), Linear(weight)

    def decode(self, z):
        return self.net(z).sigmoid()


def replay_batch(decoder, solver, n, seed):
    torch.manual_seed(seed)
    x, y = replay.replay_batch(Decoder(decoder), Linear(solver), n)
    off = not torch.is_grad_enabled()
    return {"x": x.detach(), "y": y, "graph": x.requires_grad, "off": off}


def distillation(logits, teacher, temperature):
    """The loss, and how it changes with the pupil's logits and with the teacher's."""
    logits, teacher = logits.clone().requires_grad_(), teacher.clone().requires_grad_()
    loss = replay.distillation_loss(logits, teacher, temperature)
    of_pupil, of_teacher = slopes(loss, logits, teacher)
    return {"loss": number(loss), "pupil": of_pupil, "teacher": of_teacher}


def mixture_weights(new, old, t):
    return replay.mixture_weights(new, old, t)


class Toy(nn.Module):
    """A generator whose dreams bear its age: pixel 0 tells how often it was trained.

    Pixels 1 and 2 are 0 in a dream, whereas a real image has a 1 and its label there; the others
    come from the noise.
    """

    latent_dim = 3

    def __init__(self):
        super().__init__()
        self.register_buffer("age", torch.zeros(()))
        self.log = []

    def decode(self, z):
        marks = torch.stack([self.age / 1000, 0 * self.age, 0 * self.age])
        return torch.cat([marks.expand(len(z), -1), z.sigmoid()], 1)

    def train_step(self, x, weight):
        self.age += 1
        self.log.append((x.detach().clone(), weight.detach().clone()))
        return x.new_zeros(())


def train_tasks(weight, xs, ys, steps, batch, lr, seed, training=True):
    """Your scholar on a few tasks, with a linear solver, in this mode, and the toy generator.

    For each task a dict: `before` and `after`, the solver's weight; `x` and `weight`, what the
    generator was given in each step; `tasks`, how many your scholar has counted; `training`, the
    solver's mode. What it is built of (freezing, dreams, weights) is right, whatever yours is.
    """
    torch.manual_seed(seed)
    solver, toy = Linear(weight).train(training), Toy()
    optimiser = torch.optim.SGD(solver.parameters(), lr)
    parts = right.freeze, right.dream, right.weights
    scholar = replay.Scholar(solver, toy, optimiser, *parts, batch)
    told = []
    for x, y in zip(xs, ys, strict=True):
        toy.log, before = [], solver.weight.detach().clone()
        scholar.train_task(x, y, steps)
        seen = {"x": [x for x, _ in toy.log], "weight": [w for _, w in toy.log]}
        seen |= {"tasks": scholar.tasks, "training": solver.training}
        told.append({"before": before, "after": solver.weight.detach().clone(), **seen})
    return told


# ---------------------------------------------------------------- 4: a generator of your own


def track():
    """Which of the two you chose."""
    return generator.TRACK


def gradient_penalty(weight, real, fake, mix, squared):
    """The penalty (N,) of the critic (N, 1) = x @ weight, or of its square, and how the sum of the
    penalty changes with the weight."""
    linear = Linear(weight)

    def critic(x):
        return linear(x).square() if squared else linear(x)

    penalty = generator.gradient_penalty(critic, real, fake, mix)
    return {"penalty": penalty.detach(), "slope": slopes(penalty, linear.weight)[0]}


def wgan_losses(weight, real, fake, row_weight, penalty):
    """[critic's loss, generator's loss], whether they can teach, and how the latter changes with
    the fake images."""
    critic, fake = Linear(weight), fake.clone().requires_grad_()
    losses = [
        generator.critic_loss(critic, real, fake.detach(), row_weight, penalty),
        generator.generator_loss(critic, fake, row_weight),
    ]
    teach = all(tensor(loss).requires_grad for loss in losses)
    slope = slopes(losses[1], fake)[0]
    return {"losses": [*map(number, losses)], "teach": teach, "slope": slope}


def path(noise, image, t):
    """[where the path is at t, its velocity]"""
    return list(generator.path(noise, image, t))


def integrate(z, steps, slope, at):
    """Where the velocity `slope * x + at * t` leads from z, and the times it was asked about."""
    times = []

    def velocity(x, t):
        times.append(tensor(t).clone())
        return slope * x + at * t

    return {"x": generator.integrate(velocity, z.clone(), steps), "times": times}


def protocol(shape, seed):
    """What your generator makes of noise: twice of the same, once of other noise."""
    torch.manual_seed(seed)
    model = generator.my_generator(tuple(shape))
    z = torch.randn(5, model.latent_dim)
    with torch.no_grad():
        images = [model.decode(z), model.decode(z), model.decode(torch.randn_like(z))]
    return {"images": images, "module": isinstance(model, nn.Module)}


def weighted(x, weight, seed, cleared=False):
    """The parameters of your generator after two steps on x with these row weights, the first
    step's loss, and x as it is left. cleared: gradients are, between the steps."""
    x = x.clone()
    torch.manual_seed(seed)
    model = generator.my_generator(tuple(x.shape[1:]))
    torch.manual_seed(seed + 1)
    loss = number(model.train_step(x, weight=weight))
    if cleared:
        model.zero_grad()
    model.train_step(x, weight=weight)
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    return {"loss": loss, "after": after, "x": x}


def generates(x, steps, seed):
    """200 images of your generator after learning from x, as rows."""
    torch.manual_seed(seed)
    model = generator.my_generator(tuple(x.shape[1:]))
    even = torch.full((64,), 1 / 64)
    for _ in range(steps):
        model.train_step(x[torch.randint(len(x), (64,))], weight=even)
    with torch.no_grad():
        return model.decode(torch.randn(200, model.latent_dim)).flatten(1)


def blank(x, weight, seed):
    """Of your generator with all parameters 0: its loss on x with these row weights, and what its
    `network` is given in that step, and then for five images."""
    torch.manual_seed(seed)
    model, given = generator.my_generator(tuple(x.shape[1:])), []
    model.network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    loss, steps = number(model.train_step(x.clone(), weight=weight)), len(given)
    model.decode(torch.randn(5, model.latent_dim))
    return {"loss": loss, "learning": given[0], "walk": given[steps:]}


@cache
def four_digits():
    return [few(part[part.y < 4], 60) for part in load("digits")]


def remembers(scenario, dreams, steps, seed, luck=0):
    """Your accuracy matrix on four digits in two tasks, with the core's own generator or none; its
    first and last row as they should be; the solver's weights in the end; and how many rows it saw
    in each step. luck: of what is drawn without a seed, after the first weights."""
    stream = split(four_digits(), tasks=2, scenario=scenario, order=range(4))
    torch.manual_seed(0)
    solver = mlp_solver(stream.shape, stream.legend.outputs, hidden=64)
    dreamer = mlp_vae(stream.shape, latent_dim=8, hidden=64) if dreams else None

    def measured():
        return [right_accuracy(solver, task.test, stream.legend) for task in stream]

    def note(_, given):
        if torch.is_grad_enabled():
            rows.append(len(given[0]))

    rows, first = [], measured()
    solver.register_forward_pre_hook(note)
    torch.manual_seed(luck)
    R = tensor(generator.learn(stream, solver, dreamer, steps, seed))
    weights = nn.utils.parameters_to_vector(solver.parameters()).detach()
    return {"R": R, "first": first, "last": measured(), "weights": weights, "rows": rows}


# ---------------------------------------------------------------- 5: a small study


def paired_interval(a, b):
    """[mean, low, high]"""
    return [number(value) for value in study.paired_interval(a, b)]


def right_interval(a, b):
    found = interval([x - y for x, y in zip(a, b, strict=True)])
    return found.mean, found.low, found.high


def study_record(question, arms, says, above, wider=1.0):
    """Your record; the interval is right, whatever yours is, or so many times as wide."""

    def passed_in(a, b):
        mean, low, high = right_interval(a, b)
        return mean, mean - wider * (mean - low), mean + wider * (high - mean)

    return study.study_record(question, arms, says, above, passed_in)


def refuses(arms):
    """Does your record refuse these arms with a ValueError?"""
    try:
        study.study_record("Which?", arms, "This one.", 0.0, right_interval)
    except NotImplementedError:
        raise
    except Exception as error:
        return isinstance(error, ValueError)
    return False


def record():
    """The record of your study."""
    file = HERE / "study.json"
    if not file.is_file():
        raise NotImplementedError
    return json.loads(file.read_text(encoding="utf-8"))


# ---------------------------------------------------------------- 6: bug hunts


def named(source, name):
    """The function `name` that a source defines."""
    names = {"copy": copy, "torch": torch, "nn": nn, "F": F}
    exec(source, names)
    return names[name]


def caught(test, pipeline):
    """What a test says against a pipeline: nothing if it passes."""
    try:
        test(pipeline)
    except AssertionError as error:
        return str(error) or "it doesn't hold"
    return ""


def hunt(name, source):
    """What your test says against the pipeline in the source; without one, against your own."""
    pipeline = named(source, name) if source else getattr(bug_hunts, name)
    return caught(getattr(bug_hunts, f"test_{name}"), pipeline)


def mended(name, source):
    """What the test in the source says against your pipeline."""
    return caught(named(source, f"test_{name}"), getattr(bug_hunts, name))
