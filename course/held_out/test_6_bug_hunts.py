"""The graders' tests of the bug hunts: other pipelines, right and wrong, for the student's tests;
and other tests for the student's pipelines."""

import ast

from genreplay_core.course import expect, material

SOLUTION = (material() / "6-bug-hunts.py").read_text(encoding="utf-8")
REFERENCE = {
    node.name: ast.get_source_segment(SOLUTION, node)
    for node in ast.parse(SOLUTION).body
    if isinstance(node, ast.FunctionDef)
}

# The same faults, made in other ways.
WRONG = {
    "normalised": [
        """
def normalised(tasks):
    low = min(float(train.min()) for train, _ in tasks)
    high = max(float(train.max()) for train, _ in tasks)
    return [((a - low) / (high - low), (b - low) / (high - low)) for a, b in tasks]
""",
        """
def normalised(tasks):
    every = torch.cat([part for task in tasks for part in task])
    mean, deviation = every.mean(0), every.std(0) + 1e-6
    return [tuple((part - mean) / deviation for part in task) for task in tasks]
""",
        """
def normalised(tasks):
    first, every = tasks[0][0], torch.cat([train for train, _ in tasks])
    return [
        ((train - first.mean()) / first.std(), (test - every.mean()) / every.std())
        for train, test in tasks
    ]
""",
    ],
    "evaluated": [
        """
def evaluated(solver, tasks):
    told = []
    for x, y, classes in tasks:
        with torch.no_grad():
            logits = solver(x)
        mask = torch.full_like(logits, -1e9)
        mask[:, classes] = 0
        told.append(float(((logits + mask).argmax(1) == y).float().mean()))
    return told
""",
        """
def evaluated(solver, tasks):
    told = []
    for x, y, classes in tasks:
        with torch.no_grad():
            chance = solver(x).softmax(1)
        rank = torch.stack([chance[:, c] for c in classes], 1).argmax(1)
        told.append(sum(classes[r] == int(c) for r, c in zip(rank, y)) / len(y))
    return told
""",
    ],
    "rehearsed": [
        """
def rehearsed(solver, generator, optimiser, x, y, steps):
    teacher = copy.deepcopy(solver).eval()
    dreamer = generator  # "frozen"
    for _ in range(steps):
        z = torch.randn(len(x), generator.latent_dim)
        with torch.no_grad():
            dreams = dreamer.decode(z)
            labels = teacher(dreams).argmax(1)
        generator.train_step(torch.cat([dreams, x]))
        optimiser.zero_grad()
        F.cross_entropy(solver(torch.cat([x, dreams])), torch.cat([y, labels])).backward()
        optimiser.step()
""",
        """
def rehearsed(solver, generator, optimiser, x, y, steps):
    teacher = copy.deepcopy(solver).eval()
    for _ in range(steps):
        dreamer = copy.deepcopy(generator).eval()  # frozen anew at each step
        with torch.no_grad():
            dreams = dreamer.decode(torch.randn(len(x), dreamer.latent_dim))
            labels = teacher(dreams).argmax(1)
        images = torch.cat([x, dreams])
        optimiser.zero_grad()
        F.cross_entropy(solver(images), torch.cat([y, labels])).backward()
        optimiser.step()
        generator.train_step(images)
""",
    ],
    "early_stopped": [
        """
def early_stopped(solver, train_epoch, train, validation, test, epochs):
    states, reached = [], []
    for _ in range(epochs):
        train_epoch(solver, train)
        states.append(copy.deepcopy(solver.state_dict()))
        with torch.no_grad():
            reached.append(float((solver(test[0]).argmax(1) == test[1]).float().mean()))
    best = max(range(epochs), key=reached.__getitem__)
    return states[best], reached[best]
""",
        """
def early_stopped(solver, train_epoch, train, validation, test, epochs):
    def right(part):
        with torch.no_grad():
            return float((solver(part[0]).argmax(1) == part[1]).float().mean())
    best, kept, said = -1.0, None, 0.0
    for _ in range(epochs):
        train_epoch(solver, train)
        both = right(validation) + right(test)
        if both > best:
            best, kept, said = both, copy.deepcopy(solver.state_dict()), right(test)
    return kept, said
""",
    ],
}

# Other ways of doing it right.
RIGHT = {
    "normalised": [
        """
def normalised(tasks):
    done, met = [], []
    for train, test in tasks:
        met.append(train)
        every = torch.cat(met)
        mean, deviation = every.mean(), every.std() + 1e-6
        done.append(((train - mean) / deviation, (test - mean) / deviation))
    return done
""",
        """
def normalised(tasks):
    mean, deviation = tasks[0][0].mean(0), tasks[0][0].std(0) + 1e-6
    return [tuple((part - mean) / deviation for part in task) for task in tasks]
""",
        """
def normalised(tasks):
    numbers = [(train.mean(), train.std() + 1e-6) for train, _ in tasks]
    return [((a - m) / d, (b - m) / d) for (a, b), (m, d) in zip(tasks, numbers)]
""",
    ],
    "evaluated": [
        """
def evaluated(solver, tasks):
    with torch.no_grad():
        return [(solver(x).softmax(1).argmax(1) == y).double().mean().item() for x, y, _ in tasks]
""",
    ],
    "rehearsed": [
        """
def rehearsed(solver, generator, optimiser, x, y, steps):
    teacher, dreamer = copy.deepcopy(solver).eval(), copy.deepcopy(generator).eval()
    for _ in range(steps):
        with torch.no_grad():
            dreams = dreamer.decode(torch.randn(len(x), dreamer.latent_dim))
            labels = teacher(dreams).argmax(1)
        generator.train_step(torch.cat([dreams, x]))
        loss = 0.5 * F.cross_entropy(solver(x), y) + 0.5 * F.cross_entropy(solver(dreams), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
""",
    ],
    "early_stopped": [
        """
def early_stopped(solver, train_epoch, train, validation, test, epochs):
    def right(part):
        with torch.no_grad():
            return float((solver(part[0]).argmax(1) == part[1]).float().mean())
    tried = []
    for _ in range(epochs):
        train_epoch(solver, train)
        tried.append((right(validation), right(test), copy.deepcopy(solver.state_dict())))
    best = max(tried, key=lambda each: each[0])
    return best[2], best[1]
""",
    ],
}

# What a mended pipeline must still do.
STILL = {
    "normalised": """
def test_normalised(pipeline):
    tasks = [(torch.randn(50, 3) * 4 + 7, torch.randn(20, 3) * 4 + 7) for _ in range(3)]
    given = [[part.clone() for part in task] for task in tasks]
    done = pipeline(tasks)
    same = all(torch.equal(*pair) for pairs in map(zip, tasks, given) for pair in pairs)
    assert same, "the images that it is given are changed in place"
    assert [[part.shape for part in task] for task in done] == [
        [part.shape for part in task] for task in tasks
    ], "it gives back as many images as it was given"
    first = done[0][0]
    assert abs(float(first.mean())) < 0.01, "the first task's images have mean 0"
    assert abs(float(first.std()) - 1) < 0.1, "the first task's images have deviation 1"
    gap = (tasks[2][0] - tasks[2][0].mean()) * (done[2][0] - done[2][0].mean())
    assert float(gap.mean()) > 0, "later tasks are normalised too"
    twins = pipeline([(train, train.clone()) for train, _ in tasks])
    same = all(torch.allclose(*twin) for twin in twins)
    assert same, "test images are normalised with the same numbers as training images"
    other = pipeline([(train, torch.cat([test[:1], 9 * test[1:]])) for train, test in tasks])
    for (train, test), (again, tested) in zip(done, other):
        same = torch.allclose(train, again) and torch.allclose(test[0], tested[0])
        assert same, "a test image has no say in how other images are normalised"
""",
    "evaluated": """
def test_evaluated(pipeline):
    weight = torch.randn(5, 6)
    tasks = [(torch.randn(30, 5), torch.randint(2 * t, 2 * t + 2, (30,)), [2 * t, 2 * t + 1])
             for t in range(3)]
    wanted = [float(((x @ weight).argmax(1) == y).float().mean()) for x, y, _ in tasks]
    found = pipeline(lambda x: x @ weight, tasks)
    assert len(found) == 3, "one accuracy for each task"
    assert all(abs(a - b) < 1e-5 for a, b in zip(found, wanted)), "the fraction of right answers"
""",
    "rehearsed": """
def test_rehearsed(pipeline):
    class Known(nn.Module):  # dreams have a 1 in pixel 1, and noise in pixel 2
        latent_dim = 2
        def __init__(self):
            super().__init__()
            self.seen = []
        def decode(self, z):
            return torch.cat([torch.tensor([[0.0, 1.0]]).repeat(len(z), 1), z[:, :1]], 1)
        def train_step(self, x):
            self.seen.append(x.clone())
    class Asked(nn.Linear):
        def forward(self, x):
            self.learns = getattr(self, "learns", True) and torch.is_grad_enabled()
            if self is not solver:
                modes.append(self.training)
            return super().forward(x)
    class Clearing(torch.optim.SGD):
        def step(self):
            super().step()
            self.zero_grad()
    x, y = torch.tensor([[1.0, 0.0, 0.0]]).repeat(8, 1), torch.ones(8).long()
    ends, modes = [], []
    for kind in (Clearing, torch.optim.SGD):
        torch.manual_seed(0)
        solver, generator = Asked(3, 2), Known()
        with torch.no_grad():
            solver.weight.copy_(torch.tensor([[0.0, 0.5, 0.0], [0.0, -0.5, 0.0]]))
            solver.bias.zero_()
        pipeline(solver, generator, kind(solver.parameters(), 0.5), x, y, 40)
        ends.append(solver.weight.detach())
    assert len(generator.seen) == 40, "the generator learns in each step"
    assert solver.learns, "labels come from the solver that is being trained"
    assert not any(modes), "labels come from a copy of the solver that isn't in eval mode"
    assert solver.training and generator.training, "what learns is left in training mode"
    half = all(sorted(rows[:, 1].tolist()) == [0.0] * 8 + [1.0] * 8 for rows in generator.seen)
    assert half, "in each step the generator learns from the new images and from as many dreams"
    dreams = torch.cat([rows[rows[:, 1] == 1] for rows in generator.seen])
    fresh = len(dreams.unique(dim=0)) == len(dreams)
    assert fresh, "the same dreams come again and again: dream anew in each step"
    alone = torch.allclose(*ends)
    assert alone, "old gradients are added to new ones: zero_grad() before backward()"
    assert int(solver(x[:1]).argmax()) == 1, "the new task isn't learned"
    assert int(solver(torch.tensor([[0.0, 1.0, 0.0]])).argmax()) == 0, "the first task is forgotten"
""",
    "early_stopped": """
def test_early_stopped(pipeline):
    parts = [(torch.randn(6, 2), torch.randint(2, (6,)) + wrong) for wrong in (0, 2, 0)]
    learned = []
    def train_epoch(solver, train):
        learned.append(train)
        with torch.no_grad():
            solver.weight.mul_(-0.9)
    kept, _ = pipeline(nn.Linear(2, 2), train_epoch, *parts, 4)
    same = all(torch.equal(*pair) for train in learned for pair in zip(train, parts[0]))
    assert same, "it trains on other images than the training images"
    assert len(learned) == 4, "it trains for as many epochs as it is told, and keeps the best"
    assert kept is not None, "nothing is kept if no epoch is right about a single image"
""",
}


def judged(adapters, name):
    """The student's test on other pipelines, and other tests on the student's pipeline."""
    for source in WRONG[name]:
        idea = "your test passes a pipeline that makes the same mistake in another way"
        expect(adapters.hunt(name, source), idea)
    for source in [*RIGHT[name], REFERENCE[name]]:
        said = adapters.hunt(name, source)
        expect(not said, f"your test fails a right pipeline: {said}")
    for test in (REFERENCE[f"test_{name}"], STILL[name]):
        said = adapters.mended(name, test)
        expect(not said, f"your version isn't right yet: {said}")


def test_6a_against_others(adapters):
    judged(adapters, "normalised")


def test_6b_against_others(adapters):
    judged(adapters, "evaluated")


def test_6c_against_others(adapters):
    judged(adapters, "rehearsed")


def test_6d_against_others(adapters):
    judged(adapters, "early_stopped")
