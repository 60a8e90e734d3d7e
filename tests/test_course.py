"""The coursework: what students get, and that each of its tests can fail for the right reason.

Wrong solutions are planted one at a time. Each must lose the points of its part, and no others.
So must each part that is done alone have its points, and no others.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from genreplay_core import course
from genreplay_core.cli import main
from genreplay_core.metrics import interval

ASSIGNMENTS = {a.name[0]: a for a in course.assignments()}
PARTS = [part for a in ASSIGNMENTS.values() for part in a.parts]
TESTED = [part.name for part in PARTS if not part.by_hand]

# They train for a while. A fault in another part than theirs isn't held against them: that they need
# no other part is known from where theirs alone is done.
SLOW = {
    "test_2e_all_of_it_learns",
    "test_2e_it_learns_to_dream_about_as_much_ink_as_there_is",
    "test_4c_it_learns_what_images_look_like",
    "test_4d_the_matrix_is_whole",
    "test_4d_dreams_help_it_remember",
    "test_4d_in_the_domain_scenario",
}


# ---------------------------------------------------------------- judging without processes


@cache
def source(number: str) -> str:
    return (course.material() / f"{ASSIGNMENTS[number].name}.py").read_text()


@cache
def questions(number: str):
    """Part -> its tests, each with its kind; the public ones come first."""
    found = {part.name: [] for part in ASSIGNMENTS[number].parts if not part.by_hand}
    for kind in ("tests", "held_out"):
        for part, tests in course.questions(ASSIGNMENTS[number], [kind]).items():
            found[part] += [(kind, test) for test in tests]
    return found


@pytest.fixture
def lost(tmp_path):
    """A function from an assignment's source to what is lost: part -> (kind, what is said first).
    The kind is "held_out" if the public tests say nothing. at: the part that was changed, if one
    was; then other parts' slow tests are left out."""

    def judged(
        number: str, text: str, study: dict | None = None, at: str | None = None
    ) -> dict[str, tuple[str, str]]:
        notebook = tmp_path / "answers.ipynb"
        notebook.write_text(json.dumps(course.as_notebook(text)))
        adapters = course.module(course.material() / "adapters.py")
        short = ASSIGNMENTS[number].name[2:].replace("-", "_")
        setattr(adapters, short, course.Answers(notebook))
        if study is not None:
            adapters.HERE = tmp_path
            (tmp_path / "study.json").write_text(json.dumps(study))
        found = {}
        for part, tests in questions(number).items():
            asked = [t for t in tests if at in (None, part) or t[1].__name__ not in SLOW]
            said = [(kind, s) for kind, test in asked if (s := course.lesson(test, adapters))]
            if said:
                found[part] = said[0]
        return found

    return judged


def changed(number: str, changes: tuple) -> str:
    """The solution with some changes (old, new, old, new, ...): `old` stands there once."""
    text = source(number)
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("number", ASSIGNMENTS)
def test_the_solution_loses_nothing(lost, number):
    assert lost(number, source(number)) == {}


def test_the_solution_loses_nothing_on_the_other_track_either(lost):
    assert lost("4", changed("4", WGAN)) == {}


@pytest.mark.parametrize("number", ASSIGNMENTS)
def test_the_starter_has_nothing(lost, number):
    """Every part is lost, for it isn't done yet."""
    found = lost(number, course.without_solutions(source(number)))
    assert list(found) == [part for part in TESTED if part[0] == number]
    assert set(found.values()) == {("tests", "not done yet")}


@pytest.mark.parametrize("part", TESTED)
def test_a_part_that_is_done_alone_has_its_points(lost, part):
    """So no mistake in another one can cost them."""
    sections = re.split(r"^(?=# ## )", source(part[0]), flags=re.M)
    kept = [s if s.startswith(f"# ## {part}") else course.without_solutions(s) for s in sections]
    found = lost(part[0], "".join(kept))
    assert list(found) == [other for other in TESTED if other[0] == part[0] and other != part]


# ---------------------------------------------------------------- wrong solutions

CE = "loss = F.cross_entropy(solver(x), y)\n    optimiser.zero_grad()"
KL = "return 0.5 * (logvar.exp() + mean.square() - 1 - logvar).sum(1)"
REBUILT = (
    'rebuilt = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)'
)
FROZEN = "return copy.deepcopy(network).eval().requires_grad_(False)"
FREEZING = "frozen = self.freeze(self.generator), self.freeze(self.solver)"
FALLS = "falls = [float(R[j + 1 : tasks, j].max() - R[tasks, j]) for j in range(tasks - 1)]"
SCHOLAR = "scholar.train_task(task.train, task.id, steps=steps, replay_ratio=1.0)"
DEVIATION = "deviation = math.sqrt(sum((x - mean) ** 2 for x in d) / (n - 1))"
WGAN = ('TRACK = "flow"', 'TRACK = "wgan"')
LATENTS = "mean + (0.5 * logvar).exp() * torch.randn_like(mean)"
CORE = '    scholar = GenerativeReplay(\n        solver, generator, device="cpu", legend=stream.legend, batch=64, seed=seed\n    )\n'
UNWEIGHTED = "        self.optimiser.step()\n        return loss.detach()\n        ### END SOLUTION\n\n\nclass Wgan"
EPOCH = "        train_epoch(solver, train)\n        reached = accuracy(validation)\n"
OWN_DREAMS = "        with torch.no_grad():\n            dreams = dreamer.decode(torch.randn(len(x), dreamer.latent_dim))\n            labels = teacher(dreams).argmax(1)\n"

# part -> what was planted -> (old, new) or a few of those. "(field)" marks faults of published code.
WRONG: dict[str, dict[str, tuple]] = {
    "1a": {
        "gradients add up": (CE, CE.split("\n")[0]),
        "softmax before cross-entropy": ("F.cross_entropy(solver(x), y)", "F.cross_entropy(solver(x).softmax(1), y)"),
        "summed over the batch": ("F.cross_entropy(solver(x), y)", 'F.cross_entropy(solver(x), y, reduction="sum")'),
        "the loss after the step": ("    return loss.detach()\n", "    return F.cross_entropy(solver(x), y).detach()\n"),
        "squared error": ("F.cross_entropy(solver(x), y)", "F.mse_loss(solver(x), F.one_hot(y, solver(x).shape[1]).float())"),
        "no step": ("    optimiser.step()\n    return loss.detach()", "    return loss.detach()"),
        "gradients cleared after the step": (CE, CE.split("\n")[0], "    optimiser.step()\n    return loss.detach()", "    optimiser.step()\n    optimiser.zero_grad()\n    return loss.detach()"),
    },
    "1b": {
        "in training mode": ("    solver.eval()\n", ""),
        "mode not put back": ("    solver.train(mode)\n", ""),
        "right answers counted": ("return float(right.float().mean())", "return int(right.sum())"),
        "always left in training mode": ("    solver.train(mode)\n", "    solver.train()\n"),
        "in percent": ("return float(right.float().mean())", "return 100 * float(right.float().mean())"),
        "with gradients": ("    with torch.no_grad():\n        right = solver", "    if True:\n        right = solver"),
        "gradients left off": ("    with torch.no_grad():\n        right = solver", "    torch.set_grad_enabled(False)\n    if True:\n        right = solver"),
    },
    "1c": {
        "rows and columns exchanged": ("for x, y in tests] for solver in stages]", "for solver in stages] for x, y in tests]"),
        "without the untrained solver": ("for x, y in tests] for solver in stages]", "for x, y in tests] for solver in stages[1:]]"),
        "a list": ("return torch.tensor([[measure(solver, x, y) for x, y in tests] for solver in stages])", "return [[measure(solver, x, y) for x, y in tests] for solver in stages]"),
        "mean of the whole matrix": ("return float(R[-1].mean())", "return float(R.mean())"),
        "another measure than the one that is given": ("torch.tensor([[measure(", "torch.tensor([[accuracy("),
        "tasks to come left out": ("return torch.tensor([[measure", "return torch.tril(torch.tensor([[measure", "for solver in stages])", "for solver in stages]), -1)"),
    },
    "1d": {
        "improvement counted as 0 (field)": (FALLS, FALLS.replace("[float(", "[max(0.0, float(").replace("j]) for", "j])) for")),
        "changes its argument (field)": (FALLS, "R[0] = 0\n    " + FALLS),
        "best includes the time before": (FALLS, FALLS.replace("R[j + 1 : tasks, j]", "R[:tasks, j]")),
        "best includes the row before the task": (FALLS, FALLS.replace("R[j + 1 : tasks, j]", "R[j:tasks, j]")),
        "what was reached first, not best": (FALLS, FALLS.replace("R[j + 1 : tasks, j].max()", "R[j + 1, j]")),
        "best includes the end": (FALLS, FALLS.replace("R[j + 1 : tasks, j]", "R[j + 1 :, j]")),
        "the last task counts": (FALLS, FALLS.replace("range(tasks - 1)", "range(tasks)").replace("R[j + 1 : tasks, j]", "R[j + 1 :, j]")),
    },
    "1e": {
        "untrained solver left out": ("R[j, j] - R[0, j]", "R[j, j]"),
        "row after the task": ("R[j, j] - R[0, j]", "R[j + 1, j] - R[0, j]"),
        "backward from the best": ("R[-1, j] - R[j + 1, j]", "R[-1, j] - R[:, j].max()"),
        "backward is minus forgetting": ("    changes = [float(R[-1, j] - R[j + 1, j])", "    return -forgetting(R)\n    changes = [float(R[-1, j] - R[j + 1, j])"),
        "changes its argument": ("    changes = [float(R[-1, j]", "    R[0] = 0\n    changes = [float(R[-1, j]"),
        "sign of backward": ("R[-1, j] - R[j + 1, j]", "R[j + 1, j] - R[-1, j]"),
    },
    "2a": {
        "summed over the batch": (KL, KL.replace(".sum(1)", ".sum()")),
        "without the half": (KL, KL.replace("0.5 * ", "")),
        "mean over latents": (KL, KL.replace(".sum(1)", ".mean(1)")),
        "log variance taken for a deviation's": (KL, KL.replace("logvar.exp()", "(2 * logvar).exp()").replace("- logvar", "- 2 * logvar")),
        "sign": (KL, KL.replace("return 0.5", "return -0.5")),
        "no gradient": (KL, KL + ".detach()"),
        "no gradient for the variance": (KL, KL.replace("logvar.exp()", "logvar.exp().detach()")),
    },
    "2b": {
        "exp(logvar) as deviation (field)": ("(0.5 * logvar).exp() * noise", "logvar.exp() * noise"),
        "half of exp(logvar) as deviation (field)": ("(0.5 * logvar).exp() * noise", "0.5 * logvar.exp() * noise"),
        "noise of its own": ("(0.5 * logvar).exp() * noise", "(0.5 * logvar).exp() * torch.randn_like(mean)"),
        "no gradient": ("return mean + (0.5 * logvar).exp() * noise", "return (mean + (0.5 * logvar).exp() * noise).detach()"),
        "no gradient for the variance": ("(0.5 * logvar).exp() * noise", "(0.5 * logvar).exp().detach() * noise"),
    },
    "2c": {
        "mean over pixels": (REBUILT, REBUILT.replace(".sum(1)", ".mean(1)")),
        "grows with the batch": ("return ((rebuilt + kl) / x[0].numel()).mean()", "return ((rebuilt + kl) / x[0].numel()).sum()"),
        "sigmoid twice": (REBUILT, REBUILT.replace("logits(logits,", "logits(logits.sigmoid(),")),
        "a number without gradient": ("return ((rebuilt + kl) / x[0].numel()).mean()", "return ((rebuilt + kl) / x[0].numel()).mean().item()"),
        "squared error": (REBUILT, "rebuilt = (logits.sigmoid() - x).square().flatten(1).sum(1)"),
        "KL not divided": ("return ((rebuilt + kl) / x[0].numel()).mean()", "return (rebuilt / x[0].numel() + kl).mean()"),
        "KL subtracted": ("return ((rebuilt + kl)", "return ((rebuilt - kl)"),
    },
    "2d": {
        "uniform noise": ("torch.randn(n, latent_dim)", "torch.rand(n, latent_dim)"),
        "logits for pixels": ("decoder(torch.randn(n, latent_dim)).sigmoid()", "decoder(torch.randn(n, latent_dim))"),
        "dropout on": ("    decoder.eval()\n", ""),
        "always left in training mode": ("    decoder.train(mode)\n", "    decoder.train()\n"),
        "the same dreams at each call": ("    decoder.eval()\n", "    decoder.eval()\n    torch.manual_seed(0)\n"),
        "gradients left off": ("    with torch.no_grad():\n        images = decoder", "    torch.set_grad_enabled(False)\n    if True:\n        images = decoder"),
        "one latent for all": ("torch.randn(n, latent_dim)", "torch.randn(latent_dim).expand(n, -1)"),
        "with gradient": ("    with torch.no_grad():\n        images = decoder", "    if True:\n        images = decoder"),
    },
    "2e": {
        "optimiser holds half of it (field)": ("torch.optim.Adam(self.parameters(), lr=1e-3)", "torch.optim.Adam(self.decoder.parameters(), lr=1e-3)"),
        "without KL": ("loss = ((rebuilt + kl) / x[0].numel()).mean()", "loss = (rebuilt / x[0].numel()).mean()"),
        "gradients add up": ("        self.optimiser.zero_grad()\n", ""),
        "no noise": (LATENTS, "mean"),
        "exp(logvar) as deviation (field)": (LATENTS, LATENTS.replace("(0.5 * logvar)", "logvar")),
        "the same noise in each step": ("        mean, logvar = self.encoder", "        torch.manual_seed(0)\n        mean, logvar = self.encoder"),
        "latents detached": (f"self.decoder({LATENTS})", f"self.decoder(({LATENTS}).detach())"),
        "KL detached": ("loss = ((rebuilt + kl)", "loss = ((rebuilt + kl.detach())"),
        "decode draws noise": ("self.decoder(z)", "self.decoder(torch.randn_like(z))"),
        "the encoder ignored": (LATENTS, "torch.randn_like(mean)"),
        "another learning rate": ("lr=1e-3", "lr=0.1"),
        "a new optimiser in each step (field)": ("        self.optimiser.zero_grad()\n", "        self.optimiser = torch.optim.Adam(self.parameters(), lr=1e-3)\n        self.optimiser.zero_grad()\n"),
        "images of 8 x 8 only": ("view(-1, *self.shape)", "view(-1, 1, 8, 8)"),
        "logits for pixels": ("self.decoder(z).sigmoid().view", "self.decoder(z).view"),
        "reconstruction averaged": ('reduction="none").sum(1)\n        loss', 'reduction="none").mean(1)\n        loss'),
    },
    "3a": {
        "the same object (field)": (FROZEN, "return network"),
        "shallow copy": (FROZEN, "return copy.copy(network).eval().requires_grad_(False)"),
        "left in training mode (field)": (FROZEN, FROZEN.replace(".eval()", "")),
        "original put into eval mode": (FROZEN, "return copy.deepcopy(network.eval()).requires_grad_(False)"),
        "original loses its gradients": (FROZEN, "network.requires_grad_(False)\n    return copy.deepcopy(network).eval()"),
        "asks for gradients": (FROZEN, FROZEN.replace(".requires_grad_(False)", "")),
    },
    "3b": {
        "replay carries a gradient (field)": ("    with torch.no_grad():\n        x = generator.decode", "    if True:\n        x = generator.decode"),
        "labels of other dreams": ("return x, solver(x).argmax(1)", "return x, solver(generator.decode(torch.randn(n, generator.latent_dim))).argmax(1)"),
        "uniform noise": ("torch.randn(n, generator.latent_dim)", "torch.rand(n, generator.latent_dim)"),
        "the same dreams at each call": ("    with torch.no_grad():\n        x = generator.decode", "    torch.manual_seed(0)\n    with torch.no_grad():\n        x = generator.decode"),
        "gradients left off": ("    with torch.no_grad():\n        x = generator.decode", "    torch.set_grad_enabled(False)\n    if True:\n        x = generator.decode"),
        "logits for labels": ("return x, solver(x).argmax(1)", "return x, solver(x)"),
        "two of the outputs only": ("return x, solver(x).argmax(1)", "return x, solver(x)[:, :2].argmax(1)"),
    },
    "3c": {
        "without T squared": ("temperature**2 * -(p", "-(p"),
        "teacher and pupil exchanged (field)": ("p = (teacher / temperature)", "teacher, logits = logits, teacher\n    p = (teacher / temperature)"),
        "a gradient goes to the teacher": (".softmax(1).detach()", ".softmax(1)"),
        "no gradient goes to the pupil": ("    return temperature**2 * -(p * q).sum(1).mean()", "    return (temperature**2 * -(p * q).sum(1).mean()).item()"),
        "the divergence": ("-(p * q).sum(1)", "(p * (p.log() - q)).sum(1)"),
        "teacher not softened": ("p = (teacher / temperature)", "p = teacher"),
        "pupil not softened": ("(logits / temperature).log_softmax(1)", "logits.log_softmax(1)"),
        "summed over the batch": ("(p * q).sum(1).mean()", "(p * q).sum()"),
    },
    "3d": {
        "head count (field)": ("parts = torch.full((new,), 1 / t / new)", "return torch.full((new + old,), 1 / (new + old))\n    parts = torch.full((new,), 1 / t / new)"),
        "always half": ("parts = torch.full((new,), 1 / t / new)", "t = 2\n    parts = torch.full((new,), 1 / t / new)"),
        "exchanged": ("1 / t / new), torch.full((old,), (1 - 1 / t) / old)", "(1 - 1 / t) / new), torch.full((old,), 1 / t / old)"),
        "multiplied up (field)": ("parts = torch.full((new,), 1 / t / new)", "GROWN.append(1)\n    t = t ** len(GROWN)\n    parts = torch.full((new,), 1 / t / new)", "def mixture_weights(", "GROWN = []\n\n\ndef mixture_weights("),
        "no case without a past": ("    if old == 0:\n        return torch.full((new,), 1 / new)\n", ""),
        "no past in the first task only": ("    if old == 0:", "    if t == 1:"),
        "for each row": ("torch.full((new,), 1 / t / new), torch.full((old,), (1 - 1 / t) / old)", "torch.full((new,), 1 / t), torch.full((old,), 1 - 1 / t)"),
    },
    "3e": {
        "the live generator dreams (field)": (FREEZING, "frozen = self.generator, self.freeze(self.solver)"),
        "the live solver labels (field)": (FREEZING, "frozen = self.freeze(self.generator), self.solver"),
        "the generator learns the new task only (field)": ("self.generator.train_step(images, weight)", "self.generator.train_step(images[: self.batch], weight[: self.batch])"),
        "frozen once for all": (FREEZING, "if self.tasks <= 2:\n            self.frozen = self.freeze(self.generator), self.freeze(self.solver)\n        frozen = self.frozen"),
        "weighed by head count (field)": ("(weight @ losses).backward()", "losses.mean().backward()"),
        "another task's weights": ("old, self.tasks)", "old, max(self.tasks - 1, 1))"),
        "dreams in front of the new rows": ("torch.cat([images, dreams]), torch.cat([labels, said])", "torch.cat([dreams, images]), torch.cat([said, labels])"),
        "frozen anew in each step": ("self.dream(*frozen, self.batch)", "self.dream(self.freeze(self.generator), self.freeze(self.solver), self.batch)"),
        "the same new rows in each step": ("rows = torch.randint(len(x), (self.batch,))", "rows = torch.arange(self.batch)"),
        "a counter of its own": ("self.tasks += 1", "self.mine = getattr(self, 'mine', 0) + 1", "if self.tasks > 1", "if self.mine > 1", "old, self.tasks)", "old, self.mine)"),
        "solver and generator exchanged": (FREEZING, "frozen = self.freeze(self.solver), self.freeze(self.generator)"),
        "gradients add up": ("            self.optimiser.zero_grad()\n", ""),
        "the solver in eval mode": ("self.tasks += 1", "self.tasks += 1\n        self.solver.eval()"),
        "the solver in training mode": ("self.tasks += 1", "self.tasks += 1\n        self.solver.train()"),
        "new rows labelled by the frozen solver": ("torch.cat([labels, said])", "frozen[1](torch.cat([images[: self.batch], dreams])).argmax(1)"),
        "the last row is never drawn": ("torch.randint(len(x), (self.batch,))", "torch.randint(len(x) - 1, (self.batch,))"),
        "one dream for all steps": ("dreams, said = self.dream(*frozen, self.batch)", "if not hasattr(self, 'kept') or self.kept[0] != self.tasks:\n                    self.kept = self.tasks, self.dream(*frozen, self.batch)\n                dreams, said = self.kept[1]"),
    },
    "4a": {
        "flow: from image to noise": ("return (1 - t) * noise + t * image, image - noise", "return (1 - t) * image + t * noise, image - noise"),
        "flow: velocity backwards": ("return (1 - t) * noise + t * image, image - noise", "return (1 - t) * noise + t * image, noise - image"),
        "flow: one time for all": ("return (1 - t) * noise + t * image, image - noise", "t = t[:1]\n    return (1 - t) * noise + t * image, image - noise"),
        "wgan: norm over channels only (field)": ("(slope.flatten(1).norm(dim=1) - 1).square()\n    ###", "(slope.norm(dim=1).flatten(1) - 1).square().mean(1)\n    ###", *WGAN),
        "wgan: features of different images mixed (field)": ("(slope.flatten(1).norm(dim=1) - 1).square()\n    ###", "(slope.norm() - 1).square().expand(len(slope))\n    ###", *WGAN),
        "wgan: mix the wrong way": ("between = (real + mix * (fake - real)).detach()", "between = (fake + mix * (real - fake)).detach()", *WGAN),
        "wgan: doesn't teach": ("critic(between).sum(), between, create_graph=True)\n    return", "critic(between).sum(), between)\n    return", *WGAN),
        "wgan: at the real images": ("between = (real + mix * (fake - real)).detach()", "between = real.clone().detach()", *WGAN),
    },
    "4b": {
        "flow: one step too many": ("for step in range(steps):\n        t = torch", "for step in range(steps + 1):\n        t = torch"),
        "flow: time one step ahead": ("step / steps)\n", "(step + 1) / steps)\n"),
        "flow: steps of length 1": ("x = x + velocity(x, t) / steps", "x = x + velocity(x, t)"),
        "flow: one number for the time": ("t = torch.full((len(z), 1), step / steps)", "t = torch.tensor(step / steps)"),
        "wgan: a number without gradient": ("critic(real).squeeze(1) + penalty)", "critic(real).squeeze(1) + penalty).item()", *WGAN),
        "wgan: fake images detached": ("return -(weight @ critic(fake).squeeze(1))", "return -(weight @ critic(fake.detach()).squeeze(1))", *WGAN),
        "wgan: signs exchanged": ("critic(fake).squeeze(1) - critic(real).squeeze(1) + penalty", "critic(real).squeeze(1) - critic(fake).squeeze(1) + penalty", *WGAN),
        "wgan: penalty subtracted": ("critic(real).squeeze(1) + penalty", "critic(real).squeeze(1) - penalty", *WGAN),
        "wgan: weights ignored": ("return -(weight @ critic(fake).squeeze(1))", "return -critic(fake).mean()", *WGAN),
    },
    "4c": {
        "flow: not clamped": ("((x + 1) / 2).clamp(0, 1).view", "((x + 1) / 2).view"),
        "flow: weights ignored": ("loss = weight @ (found - wanted).square().mean(1)", "loss = (found - wanted).square().mean()"),
        "flow: weights squared": ("weight @ (found", "weight.square() @ (found"),
        "flow: not shifted back": ("((x + 1) / 2).clamp", "x.clamp"),
        "flow: gradients add up": ("weight @ (found - wanted).square().mean(1)\n        self.optimiser.zero_grad()\n", "weight @ (found - wanted).square().mean(1)\n"),
        "flow: one noise for all": ("torch.randn_like(image)", "torch.randn_like(image[:1])"),
        "flow: one time for all": ("torch.rand(len(x), 1)", "torch.rand(1, 1).expand(len(x), 1)"),
        "flow: the same noise in each step": ("        image = 2 * x.flatten(1) - 1\n", "        image = 2 * x.flatten(1) - 1\n        torch.manual_seed(0)\n"),
        "flow: changes the images that it is given": ("image = 2 * x.flatten(1) - 1", "image = x.mul_(2).sub_(1).flatten(1)"),
        "wgan: one noise for all": ("torch.randn(len(x), self.latent_dim)", "torch.randn(1, self.latent_dim).expand(len(x), -1)", *WGAN),
        "flow: time not told": ("torch.cat([there, t], 1)", "torch.cat([there, 0 * t], 1)"),
        "flow: summed over pixels": ("loss = weight @ (found - wanted).square().mean(1)", "loss = weight @ (found - wanted).square().sum(1)"),
        "flow: backwards in time": ("t = x.new_full((len(x), 1), step / 20)", "t = x.new_full((len(x), 1), 1 - step / 20)"),
        "flow: a single step": ("range(20)", "range(1)", "torch.cat([x, t], 1)) / 20", "torch.cat([x, t], 1))"),
        "flow: gives back another loss": (UNWEIGHTED, UNWEIGHTED.replace("loss.detach()", "(found - wanted).square().mean().detach()")),
        "wgan: the penalty counts once": ("penalty = 10 * (slope", "penalty = (slope", *WGAN),
        "wgan: uniform noise": ("torch.randn(len(x), self.latent_dim)", "torch.rand(len(x), self.latent_dim)", *WGAN),
        "flow: decode draws noise": ("        x = z\n        for step in range(20)", "        x = torch.randn_like(z)\n        for step in range(20)"),
        "flow: never learns": ("        loss.backward()\n        self.optimiser.step()\n", ""),
        "wgan: the critic's gradients add up": ("        self.critic_optimiser.zero_grad()\n", "", *WGAN),
        "wgan: images in [-1, 1]": ("self.network(z).sigmoid().view", "self.network(z).tanh().view", *WGAN),
        "wgan: weights ignored": ("loss = weight @ (gap + penalty)", "loss = (gap + penalty).mean()", *WGAN),
        "wgan: the generator isn't stepped": ("squeeze(1))).backward()\n        self.optimiser.step()\n", "squeeze(1))).backward()\n", *WGAN),
    },
    "4d": {
        "nothing replayed": (SCHOLAR, SCHOLAR.replace("replay_ratio=1.0", "replay_ratio=0.0")),
        "a tenth of the dreams": (SCHOLAR, SCHOLAR.replace("replay_ratio=1.0", "replay_ratio=0.1")),
        "as many dreams as by default": (SCHOLAR, SCHOLAR.replace(", replay_ratio=1.0", "")),
        "seed ignored": (CORE, CORE.replace(", seed=seed", "")),
        "always the same seed": (CORE, CORE.replace("seed=seed", "seed=0")),
        "measured on training images": ("task.test, stream", "task.train, stream"),
        "epochs for steps": (SCHOLAR, SCHOLAR.replace("steps=steps", "epochs=steps")),
        "without the legend": ("legend=stream.legend, batch=64", "batch=64"),
        "without the untrained row": ("    matrix = [measured()]\n", "    matrix = []\n"),
        "each task as if it went on with the first": (SCHOLAR, SCHOLAR.replace("task.id", "0")),
        "all data at once": (SCHOLAR, "met = [t.train for t in stream]\n        both = [torch.cat([m.x for m in met]), torch.cat([m.y for m in met])]\n        scholar.train_task(tuple(both), task.id, steps=steps, replay_ratio=1.0)"),
    },
    "5a": {
        "1.96 for t": ("float(stats.t.ppf(0.975, n - 1))", "1.96"),
        "90 % of it": ("float(stats.t.ppf(0.975, n - 1))", "float(stats.t.ppf(0.95, n - 1))"),
        "deviation with n": (DEVIATION, DEVIATION.replace("/ (n - 1)", "/ n")),
        "no root of n": ("* deviation / math.sqrt(n)", "* deviation"),
        "unpaired": (DEVIATION, "deviation = math.sqrt(stats.tvar(a) + stats.tvar(b))"),
    },
    "5b": {
        "paired by place": ("interval([first[s] for s in first], [second[s] for s in first])", "interval([*first.values()], [*second.values()])"),
        "holds if the mean does": ('"holds": low > above}', '"holds": mean > above}'),
        "second minus first": ("interval([first[s] for s in first], [second[s] for s in first])", "interval([second[s] for s in first], [first[s] for s in first])"),
        "holds above 0": ('"holds": low > above}', '"holds": low > 0}'),
        "another interval than the one that is given": ("interval([first[s] for s in first]", "paired_interval([first[s] for s in first]"),
        "holds on either side": ('"holds": low > above}', '"holds": low > above or high < above}'),
        "as many seeds are enough": ("if first.keys() != second.keys():", "if len(first) != len(second):"),
        "different seeds accepted": ("if first.keys() != second.keys():", "if False:"),
    },
    "6a": {
        "its test passes everything": ('    """Raises AssertionError if the pipeline looks into the future."""\n', '    return\n'),
        "its test fails everything": ('    """Raises AssertionError if the pipeline looks into the future."""\n', '    raise AssertionError("no")\n'),
        "its test knows one way only": ("    here, there = pipeline([first, second])[0], pipeline([first, other])[0]\n", "    here = pipeline([first, second])[0]\n    there = here if abs(float(here[0].std()) - 1) > 0.6 and float(here[0].min()) >= 0 else pipeline([first, other])[0]\n"),
        "its test looks at training images only": ("    for part in (0, 1):\n", "    for part in (0,):\n"),
        "its test wants one right way": ("    for part in (0, 1):\n", "    later = pipeline([first, second])[1][0]\n    assert torch.allclose(later, (second[0] - first[0].mean()) / first[0].std(), atol=1e-3)\n    for part in (0, 1):\n"),
        "its version leaves test images as they are": ("(test - mean) / deviation) for train", "test) for train"),
        "its version changes what it is given": ("(train - mean) / deviation, (test - mean) / deviation", "train.sub_(mean).div_(deviation), test.sub_(mean).div_(deviation)"),
        "its version looks at test images": ("images = tasks[0][0]", "images = torch.cat(tasks[0])"),
        "its version normalises nothing": ("return [((train - mean) / deviation, (test - mean) / deviation) for train, test in tasks]", "return tasks"),
    },
    "6b": {
        "its test passes everything": ('    """Raises AssertionError if the pipeline uses the task\'s label."""\n', "    return\n"),
        "its test fails everything": ('    """Raises AssertionError if the pipeline uses the task\'s label."""\n', '    raise AssertionError("no")\n'),
        "its version isn't mended (field)": ("for x, y, _ in tasks:\n        with torch.no_grad():\n            answers = solver(x).argmax(1)", "for x, y, c in tasks:\n        with torch.no_grad():\n            answers = torch.tensor(c)[solver(x)[:, c].argmax(1)]"),
    },
    "6c": {
        "its test passes everything": ('    """Raises AssertionError if dreams come from the generator that is being trained."""\n', "    return\n"),
        "its test fails everything": ('    """Raises AssertionError if dreams come from the generator that is being trained."""\n', '    raise AssertionError("no")\n'),
        "its version isn't mended (field)": ("dreamer = copy.deepcopy(generator).eval()", "dreamer = generator"),
        "its version asks the live solver": ("teacher = copy.deepcopy(solver).eval()\n    dreamer", "teacher = solver\n    dreamer"),
        "its version's solver learns the new task only": ("F.cross_entropy(solver(images), torch.cat([y, labels]))", "F.cross_entropy(solver(x), y)"),
        "its version dreams once": ("    for _ in range(steps):\n" + OWN_DREAMS, OWN_DREAMS.replace("\n    ", "\n").removeprefix("    ") + "    for _ in range(steps):\n"),
        "its version's gradients add up": ("        optimiser.zero_grad()\n        loss.backward()\n", "        loss.backward()\n"),
        "its version asks a solver in training mode": ("teacher = copy.deepcopy(solver).eval()\n    dreamer", "teacher = copy.deepcopy(solver)\n    dreamer"),
        "its version's generator learns from dreams alone": ("        generator.train_step(images)\n", "        generator.train_step(dreams)\n"),
        "its version leaves the solver in eval mode": ("teacher = copy.deepcopy(solver).eval()\n    dreamer", "teacher = copy.deepcopy(solver.eval())\n    dreamer"),
        "its version's generator learns nothing": ("        generator.train_step(images)\n", ""),
        "its version doesn't rehearse": ("        generator.train_step(images)\n", "        generator.train_step(x)\n"),
    },
    "6d": {
        "its test passes everything": ('    """Raises AssertionError if the epoch is chosen by the test images."""\n', "    return\n"),
        "its test fails everything": ('    """Raises AssertionError if the epoch is chosen by the test images."""\n', '    raise AssertionError("no")\n'),
        "its version isn't mended": ("reached = accuracy(validation)", "reached = accuracy(test)"),
        "its version trains on the test images": (EPOCH, EPOCH.replace("train)", "test)")),
        "its version trains on the validation images too": (EPOCH, EPOCH.replace("train)", "tuple(map(torch.cat, zip(train, validation))))")),
        "its version leaves out an epoch": ("range(epochs):\n" + EPOCH, "range(epochs - 1):\n" + EPOCH),
        "its version stops at the first epoch that is worse": ("            best, kept = reached, copy.deepcopy(solver.state_dict())\n    solver", "            best, kept = reached, copy.deepcopy(solver.state_dict())\n        else:\n            break\n    solver"),
        "its version keeps nothing where nothing is right": ("best, kept = -1.0, None", "best, kept = 0.0, None"),
        "its version reports the last epoch": ("    solver.load_state_dict(kept)\n", ""),
    },
}  # fmt: skip

# What only the graders' tests see: edges that the text speaks of, and what can't be shown.
HELD_OUT = {
    "1b": {"with gradients", "gradients left off"},
    "1c": {"another measure than the one that is given"},
    "1d": {"changes its argument (field)"},
    "1e": {"changes its argument"},
    "2d": {"gradients left off"},
    "2e": {"images of 8 x 8 only"},
    "3b": {"gradients left off"},
    "3e": {"the last row is never drawn"},
    "4d": {"without the legend"},
    "5b": {
        "paired by place",
        "different seeds accepted",
        "as many seeds are enough",
        "another interval than the one that is given",
    },
    "6a": {
        "its test knows one way only",
        "its test looks at training images only",
        "its test wants one right way",
        "its version leaves test images as they are",
        "its version changes what it is given",
        "its version looks at test images",
        "its version normalises nothing",
    },
    "6c": {
        "its version asks the live solver",
        "its version's solver learns the new task only",
        "its version leaves the solver in eval mode",
        "its version dreams once",
        "its version's gradients add up",
        "its version asks a solver in training mode",
        "its version's generator learns from dreams alone",
    },
    "6d": {
        "its version trains on the test images",
        "its version trains on the validation images too",
        "its version leaves out an epoch",
        "its version stops at the first epoch that is worse",
        "its version keeps nothing where nothing is right",
    },
}

# What is said of mistakes that look alike from outside.
SAID = {
    "1a": {
        "gradients add up": "zero_grad()",
        "softmax before cross-entropy": "without a softmax before",
        "the loss after the step": "as it was before the step",
        "squared error": "F.cross_entropy of the logits",
        "gradients cleared after the step": "not after step()",
    },
    "1b": {"gradients left off": "puts them back", "with gradients": "use torch.no_grad()"},
    "1d": {
        "best includes the row before the task": "the row before doesn't count",
        "what was reached first, not best": "not what was reached first",
        "best includes the end": "the end isn't one of them",
    },
    "2a": {"without the half": "half", "mean over latents": "isn't averaged away"},
    "2b": {"noise of its own": "the noise that is given"},
    "2c": {
        "a number without gradient": "give back a tensor",
        "KL not divided": "the KL weighs too much",
        "KL subtracted": "the KL is subtracted",
    },
    "2e": {
        "gradients add up": "zero_grad()",
        "no noise": "with noise of each image's own",
        "the same noise in each step": "fix no seed",
        "latents detached": "detach no latents",
        "KL detached": "the KL doesn't reach the encoder",
        "a new optimiser in each step (field)": "make the optimiser once",
    },
    "3c": {
        "without T squared": "multiply the loss by T squared",
        "the divergence": "this is the divergence",
        "teacher not softened": "the teacher isn't softened",
        "pupil not softened": "the pupil isn't softened",
        "a gradient goes to the teacher": "detach()",
    },
    "3e": {
        "the live solver labels (field)": "ask the frozen copy",
        "weighed by head count (field)": "sum weight times loss",
        "gradients add up": "zero_grad()",
        "new rows labelled by the frozen solver": "new rows have labels of their own",
        "frozen anew in each step": "freeze it when the task begins, once",
        "frozen once for all": "freeze anew when each task begins",
        "another task's weights": "with this task's t",
        "dreams in front of the new rows": "put them behind",
        "one dream for all steps": "dream anew in each step",
        "solver and generator exchanged": "it is dream(generator, solver, n)",
    },
    "4c": {
        "flow: gradients add up": "zero_grad()",
        "wgan: the critic's gradients add up": "zero_grad()",
        "flow: not shifted back": "too bright or too dark",
        "flow: one noise for all": "all rows have the same noise",
        "wgan: one noise for all": "all rows have the same noise",
        "flow: the same noise in each step": "fix no seed",
        "flow: changes the images that it is given": "the solver learns from them too",
        "flow: one time for all": "a time of its own",
        "flow: a single step": "10 to 20 steps",
        "flow: time not told": "tell it to the network",
        "flow: summed over pixels": "averaged over its pixels",
        "wgan: the penalty counts once": "10 times",
    },
    "4d": {
        "a tenth of the dreams": "replay_ratio",
        "as many dreams as by default": "replay_ratio",
        "seed ignored": "pass `seed` on",
        "always the same seed": "that you are given",
        "all data at once": "who reminds it?",
    },
    "5a": {
        "1.96 for t": "Student's t, not 1.96",
        "deviation with n": "n - 1 in the denominator",
        "no root of n": "square root of n",
        "90 % of it": "t at 0.975",
    },
    "6c": {
        "its version dreams once": "dream anew in each step",
        "its version's gradients add up": "zero_grad()",
    },
    "6d": {"its version trains on the test images": "other images than the training images"},
}

PLANTED = [(part, what) for part, faults in WRONG.items() for what in faults]


@pytest.mark.parametrize(("part", "what"), PLANTED, ids=[f"{p}: {w}" for p, w in PLANTED])
def test_a_wrong_solution_loses_its_part_and_no_other(lost, part, what):
    found = lost(part[0], changed(part[0], WRONG[part][what]), at=part)
    assert list(found) == [part]
    kind, said = found[part]
    assert (kind == "held_out") == (what in HELD_OUT.get(part, ()))
    assert SAID.get(part, {}).get(what, "") in said
    assert len(said) > 15  # a sentence, not "False"


# Other ways to be right, some of which look wrong at first.
RIGHT = {
    "1b: without gradients, otherwise": ("torch.no_grad():\n        right", "torch.inference_mode():\n        right"),
    "2c: averaged at once": (REBUILT, "return F.binary_cross_entropy_with_logits(logits, x) + kl.mean() / x[0].numel()\n    " + REBUILT),
    "2e: gradients cleared after the step": ("        self.optimiser.zero_grad()\n        loss.backward()\n        self.optimiser.step()\n", "        loss.backward()\n        self.optimiser.step()\n        self.optimiser.zero_grad()\n"),
    "3a: the mode put back": (FROZEN, "mode = network.training\n    frozen = copy.deepcopy(network.eval()).requires_grad_(False)\n    network.train(mode)\n    return frozen"),
    "3e: rows without repetition": ("torch.randint(len(x), (self.batch,))", "torch.randperm(len(x))[: self.batch]"),
    "4c: wgan: the generator's rows count alike": ("(-(weight @ self.critic(fake).squeeze(1)))", "(-self.critic(fake).mean())", *WGAN),
    "6a: each task by its own training images": ("    return [((train - mean) / deviation, (test - mean) / deviation) for train, test in tasks]", "    numbers = [(train.mean(), train.std() + 1e-6) for train, _ in tasks]\n    return [((a - m) / d, (b - m) / d) for (a, b), (m, d) in zip(tasks, numbers)]"),
    "6b: among all classes of the stream": ("answers = solver(x).argmax(1)", "met = torch.tensor([k for task in tasks for k in task[2]])\n            answers = met[solver(x)[:, met].argmax(1)]"),
    "6c: the dreamer's mode as it was": ("dreamer = copy.deepcopy(generator).eval()", "dreamer = copy.deepcopy(generator)"),
    "6d: the last of equally good epochs": ("if reached > best:", "if reached >= best:"),
}  # fmt: skip


@pytest.mark.parametrize("what", RIGHT)
def test_another_right_solution_loses_nothing(lost, what):
    assert lost(what[0], changed(what[0], RIGHT[what])) == {}


def test_three_wrong_solutions_are_planted_for_each_part_that_is_tested():
    assert list(WRONG) == TESTED
    assert [part for part, faults in WRONG.items() if len(faults) < 3] == []


# ---------------------------------------------------------------- a study that doesn't hold


@pytest.fixture(scope="module")
def study():
    return json.loads((course.material() / "study.json").read_text())


def test_the_solution_s_study_says_what_its_runs_say(study):
    """And its claim is one that holds, with every seed in the record."""
    first, second = (arm["accuracy"] for arm in study["arms"].values())
    found = interval([first[seed] - second[seed] for seed in first])
    assert len(first) == 8
    assert study["difference"] == pytest.approx(
        {"mean": found.mean, "low": found.low, "high": found.high}
    )
    assert study["claim"]["holds"] is True
    assert found.low > study["claim"]["above"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["arms"].popitem(), "two arms"),
        (lambda s: [a["accuracy"].pop("3") for a in s["arms"].values()] and None, "the interval"),
        (lambda s: [s["arms"]["soft labels"]["accuracy"].pop(k) for k in "0123"], "five seeds"),
        (lambda s: s["arms"]["hard labels"]["accuracy"].update({"9": 0.5}), "different seeds"),
        (lambda s: s["arms"]["hard labels"]["config"].update(steps=900), "differ in one thing"),
        (lambda s: s["difference"].update(low=0.5), "the interval doesn't follow"),
        (lambda s: s["claim"].update(above=0.5), "does the claim hold"),
        (lambda s: s["claim"].update(above=0.5, holds=False), "claim what does"),
    ],
)
def test_a_study_that_does_not_hold_together_loses_its_part(lost, study, change, said):
    broken = json.loads(json.dumps(study))
    change(broken)
    found = lost("5", source("5"), broken)
    assert list(found) == ["5b"]
    assert said in found["5b"][1]


# ---------------------------------------------------------------- the folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The students' folder and the solved one."""
    folder = tmp_path_factory.mktemp("made")
    assert main(["course", "make", str(folder / "unit")]) == 0
    assert main(["course", "make", str(folder / "solved"), "--with-solutions"]) == 0
    return folder


def test_students_get_notebooks_tests_and_words_and_nothing_of_ours(made):
    names = {path.name for path in (made / "unit").iterdir()}
    notebooks = {f"{a.name}.ipynb" for a in ASSIGNMENTS.values()}
    assert names == notebooks | {
        *("README.md", "adapters.py", "pipelines.py", "pytest.ini", "rubric.md", "tests"),
    }
    assert {path.name for path in (made / "solved").iterdir()} == names | {"study.json"}
    texts = [p.read_text() for p in (made / "unit").rglob("*") if p.is_file()]
    marks = ("SOLUTION", "{table}", "{address}")
    assert not any(mark in text for text in texts for mark in marks)


def test_notebooks_are_valid_and_install_what_is_missing(made):
    for folder in ("unit", "solved"):
        for path in (made / folder).glob("*.ipynb"):
            notebook = nbformat.read(path, as_version=4)
            nbformat.validate(notebook)
            code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
            assert "%pip install -q --no-deps git+https://" in code[0]
            assert not any("pip install" in cell for cell in code[1:])
            assert all(cell.source.strip() for cell in notebook.cells)
            assert ("raise NotImplementedError" in "".join(code)) is (folder == "unit")


def test_every_part_is_announced_and_has_a_stub_and_a_check(made):
    readme = (made / "unit" / "README.md").read_text()
    for number, assignment in ASSIGNMENTS.items():
        text = (made / "unit" / f"{assignment.name}.ipynb").read_text()
        assert f"about {assignment.hours} hours" in readme
        assert f"About {assignment.hours} hours" in text
        assert 2 <= assignment.hours <= 6
        for part in assignment.parts:
            assert f"| {part.name} | {part.about}" in readme
            assert part.by_hand or f'check(\\"{part.name}\\", globals())' in text
            assert part.name[0] == number
    total = sum(part.points for part in PARTS)
    assert f"**{total}**" in readme
    weeks = [int(week) for week in re.findall(r"^\| week (\d)", readme, re.M)]
    assert weeks == sorted(weeks) == [1, 2, 3, 4, 5, 6]


def test_every_test_says_what_it_is_about():
    """Its name is a sentence, and so is each of its lessons."""
    names = set()
    for number in ASSIGNMENTS:
        for part, tests in questions(number).items():
            assert len(tests) >= 2, part
            assert all(len(test.__name__.split("_")) >= 4 for _, test in tests)
            names |= {test.__name__ for _, test in tests}
    assert names >= SLOW


def test_a_part_s_name_chooses_its_tests_and_no_others():
    """As in `pytest -k 2c`, which finds the name anywhere in a test's."""
    for number in ASSIGNMENTS:
        tests = [test.__name__ for told in questions(number).values() for _, test in told]
        for part in questions(number):
            chosen = [name for name in tests if part in name]
            assert chosen == [name for name in tests if name.startswith(f"test_{part}_")]


def test_a_folder_that_is_there_is_left_alone(tmp_path, capsys):
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "mine.txt").write_text("mine")
    (tmp_path / "file").touch()
    for name in ("unit", "file"):
        assert main(["course", "make", str(tmp_path / name)]) == 2
        assert "is there already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine.txt", "unit"]


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "table", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        course.make(tmp_path / "unit")
    assert list(tmp_path.iterdir()) == []


def test_the_material_is_found_in_a_checkout_and_where_it_was_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "HERE", tmp_path / "genreplay_core")
    with pytest.raises(ValueError, match="isn't here"):
        course.material()
    installed = tmp_path / "genreplay_core" / "course_material"
    installed.mkdir(parents=True)
    (installed / "course.toml").touch()
    assert course.material() == installed


# ---------------------------------------------------------------- what a student sees


def test_pytest_in_the_folder_names_the_idea_and_not_the_line(made, tmp_path):
    shutil.copytree(made / "solved", tmp_path / "mine")
    notebook = tmp_path / "mine" / "1-forgetting.ipynb"
    code = notebook.read_text().replace("R[-1].mean()", "R.mean()")
    notebook.write_text(code.replace("falls = [", "raise NotImplementedError\\n    falls = ["))
    ask = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "1c or 1d"]
    ask.append("tests/test_1_forgetting.py")
    done = subprocess.run(ask, cwd=tmp_path / "mine", capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "average the last row, and nothing else" in done.stdout
    assert "not done yet" in done.stdout
    assert "Error" not in done.stdout.split("short test summary")[0]
    assert not re.search(r"\.py:\d+", done.stdout.split("short test summary")[0])


def test_a_check_speaks_of_what_the_notebook_holds(made, monkeypatch, capsys):
    monkeypatch.chdir(made / "solved")
    course.check("2a")
    assert capsys.readouterr().out.count("passed: ") == 4
    course.check("2a", {"gaussian_kl": lambda mean, logvar: mean.sum(1)})
    said = capsys.readouterr().out
    assert "passed: there is one number for each image\n" in said
    assert "not yet: it is the closed form: half the sum of variance" in said
    monkeypatch.chdir(made)  # as on Colab, where a notebook is alone
    course.check("6a", {})
    assert "your code stops with AttributeError" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no part '9z'"):
        course.check("9z")
    with pytest.raises(ValueError, match="there is no part '5c' with tests"):
        course.check("5c")


def write_notebook(path, *sources: str):
    cells = [{"cell_type": "code", "source": text.splitlines(True)} for text in sources]
    path.write_text(json.dumps({"cells": cells}))
    return path


def test_definitions_count_and_nothing_else_is_run(tmp_path):
    found = course.Answers(
        write_notebook(
            tmp_path / "n.ipynb",
            "%matplotlib inline\nimport math\nHALF = 0.5\nlower = 1 / 0\nprint('run')",
            "from dataclasses import dataclass\n\n@dataclass\nclass Point:\n    x: int = 3",
            "def f():\n    return HALF * math.pi",
        )
    )
    assert found.f() == pytest.approx(1.5708, abs=1e-4)
    assert found.Point().x == 3
    with pytest.raises(AttributeError, match=r"n.ipynb doesn't define lower$"):
        found.lower  # noqa: B018


def test_what_could_not_be_read_is_told_when_it_is_missed(tmp_path):
    sources = ("def f(:\n    pass", "import no_such_module", "def g():\n    return 1")
    found = course.Answers(write_notebook(tmp_path / "n.ipynb", *sources))
    assert found.g() == 1
    with pytest.raises(AttributeError, match=r"define f; code cell 1: SyntaxError.*cell 2: Module"):
        found.f  # noqa: B018


@pytest.mark.parametrize("content", [None, "", "[]", '{"cells": 3}', '{"cells": [{}]}'])
def test_a_notebook_that_is_none_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "n.ipynb").write_text(content)
    with pytest.raises(ValueError, match=r"n.ipynb is missing, or no notebook"):
        course.Answers(tmp_path / "n.ipynb").f  # noqa: B018


def test_numbers_are_compared_with_their_shape():
    course.close([1.0, 2.0], [1.0, 2.00001], "idea")
    for found, said in (
        ([1.0], r"got shape \(1,\), expected \(2,\): idea"),
        ([1.0, 9.0], "^idea$"),
    ):
        with pytest.raises(AssertionError, match=said):
            course.close(found, [1.0, 2.0], "idea")
    with pytest.raises(AssertionError, match="numbers are wanted, got str: idea"):
        course.close("text", [1.0], "idea")
    with pytest.raises(AssertionError, match="idea"):
        course.close(float("nan"), 1.0, "idea")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (AssertionError("idea"), "idea"),
        (AssertionError(), "an assertion of yours doesn't hold"),
        (NotImplementedError(), "not done yet"),
        (KeyError("x"), "your code stops with KeyError: 'x'"),
        (SystemExit(3), "your code stops with SystemExit: 3"),
    ],
)
def test_whatever_happens_a_lesson_is_drawn(raised, said):
    def test(adapters):
        raise raised

    assert course.lesson(test, None) == said
    assert course.lesson(lambda adapters: None, None) is None


# ---------------------------------------------------------------- the solutions as notebooks


@pytest.mark.parametrize("number", ASSIGNMENTS)
def test_the_solved_notebook_runs(made, number, tmp_path, monkeypatch, capsys):
    """Every cell, as Jupyter runs it, and what its checks say is nothing but `passed`."""
    monkeypatch.chdir(made / "solved")
    monkeypatch.setenv("GENREPLAY_PROFILE", "ci")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(f"{ASSIGNMENTS[number].name}.ipynb", as_version=4)
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
    said = capsys.readouterr().out
    public = [kind for tests in questions(number).values() for kind, _ in tests if kind == "tests"]
    assert said.count("passed: ") == len(public)
    assert "not yet: " not in said
