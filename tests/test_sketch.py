"""The trainer that tutorials like to show, line by line, beside ours: same networks, data, budget.

The sketch looks right and remembers nothing. Its dreams come from the generator that is being
trained and their labels from the solver that is being trained, so both forget in step, and the
generator never rehearses. Freezing the scholar and letting the generator rehearse is all it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from genreplay_core import GenerativeReplay, accuracy, load, mlp_solver, mlp_vae, split
from genreplay_core.replay import none

SEED = 0
SHAPE, BATCH, EPOCHS, RATIO = (1, 8, 8), 24, 10, 0.5
CHANCE = 0.2  # one task of five is all that a solver knows that forgets


class Sketch:
    """The common tutorial's `GenerativeReplay`, mistakes included."""

    def __init__(self, solver: nn.Module, generator: Any):
        self.solver, self.generator = solver, generator

    def train_task(
        self, dataloader: DataLoader, task_id: int, epochs: int = 10, replay_ratio: float = 0.5
    ) -> None:
        optimiser = torch.optim.Adam(self.solver.parameters(), lr=1e-3)  # a new one each task
        for _ in range(epochs):
            for x, y in dataloader:
                replayed = int(len(x) * replay_ratio) if task_id > 0 else 0
                x_all, y_all = self.with_replay(x, y, replayed)
                optimiser.zero_grad()
                F.cross_entropy(self.solver(x_all), y_all).backward()  # rows count alike
                optimiser.step()
                self.generator.train_step(x)  # the new task only

    @torch.no_grad()
    def with_replay(self, x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        x_replay = self.generator.decode(torch.randn(n, self.generator.latent_dim))  # live
        y_replay = self.solver(x_replay).argmax(1)  # live
        return torch.cat([x, x_replay]), torch.cat([y, y_replay])


def ours(solver: nn.Module, generator: nn.Module) -> GenerativeReplay:
    return GenerativeReplay(solver, generator, device="cpu", batch=BATCH)


def without_replay(solver: nn.Module, generator: nn.Module) -> GenerativeReplay:
    return GenerativeReplay(solver, device="cpu", batch=BATCH, strategy=none())


def learn(trainer_of: Callable[..., Any], classes: int | None = None) -> list[float]:
    """Accuracy on each of five tasks of two digits, all ten outputs competing, at the end."""
    stream = split(load("digits"), tasks=5, scenario="class", seed=SEED)
    torch.manual_seed(SEED)
    solver = mlp_solver(SHAPE, 10, hidden=100)
    trainer = trainer_of(solver, mlp_vae(SHAPE, classes, latent_dim=20, hidden=100))
    for task in stream:
        data = TensorDataset(task.train.x, task.train.y)
        loader = DataLoader(data, batch_size=BATCH, shuffle=True)
        trainer.train_task(loader, task.id, epochs=EPOCHS, replay_ratio=RATIO)
    return [accuracy(solver, task.test, stream.legend) for task in stream]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_sketch_forgets_like_no_replay_and_ours_remembers():
    nothing, sketch = learn(without_replay), learn(Sketch)
    plain, conditional = learn(ours), learn(ours, classes=10)

    # The sketch, and training without any replay, know the last task and nothing else.
    assert abs(mean(nothing) - CHANCE) < 0.03
    assert abs(mean(sketch) - mean(nothing)) < 0.03
    assert max(sketch[:-1]) < 0.1
    assert sketch[-1] > 0.9

    # The same plain VAE, the same number of steps; then the same VAE told the class.
    assert mean(plain) > mean(sketch) + 0.15
    assert mean(conditional) > mean(sketch) + 0.5
    assert min(conditional) > 0.3
