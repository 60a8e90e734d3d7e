"""Deep generative replay with Avalanche, timed: one arm of `genreplay bench`.

Avalanche (https://avalanche.continualai.org, PyPI `avalanche-lib`) is run in an environment of its
own, so that its dependencies touch nothing of ours. This script is all that runs there; it needs
nothing but Avalanche (0.6.0 was used), and PyTorch and torchvision, which Avalanche brings along.

    python -m venv avalanche && avalanche/bin/pip install avalanche-lib==0.6.0
    genreplay bench --out DIR --avalanche avalanche/bin/python

Both environments should hold the same version of PyTorch; the benchmark's JSON names the two.

It says one line of JSON when it is ready, then answers each line that it is sent with one more,
{"steps": ..., "seconds": ...}, until its input ends. A step is one step of the solver and one of
the generator. For each measurement solver and VAE begin anew, learn a batch of the first task and
are then timed on the second.

What is the same as in our recipe: the layers of solver and VAE, 128 new and as many replayed rows
in each step of both (`replay_size=128`; the data is cut to whole batches, for a shorter batch
would be met by 128 replayed rows as well), Adam at 1e-3, hard labels from the old solver, frozen
copies made when the task begins, and equal weights, since the mean over 256 rows is 1/2 of the
mean over new rows and 1/2 of that over replayed ones.

What differs, because it is Avalanche's way:

* Images are read one by one through torchvision's data set, as its benchmarks do.
* The solver's epoch ends before the generator's begins, and each dreams for itself: 2.44 GFLOP of
  matrix products a step, where ours has 2.31.
* The VAE is its `MlpVAE` with other layers. Its loss is `VAE_loss`: squared error instead of
  cross-entropy. (Batch norm and normalised pixels, which `MlpVAE` has too, are left out, and so
  is its classifier, which nothing uses.)

In its favour: no metric and no logger is attached; only the time from the first iteration's start
to the last one's end is counted, without the copies and the data loaders made at a task's start;
and dreams are made under `no_grad`, while its own `MlpVAE.generate` lets the gradient of each
loss flow back through the frozen decoder (`--gradient` restores that).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time

import avalanche
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.models.generator import MlpVAE, VAE_loss
from avalanche.training import GenerativeReplay, VAETraining
from avalanche.training.plugins import GenerativeReplayPlugin
from torch import nn
from torch.utils.data import Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

PIXELS, OUTPUTS, LATENT = 28 * 28, 10, 100


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for i, o in zip(sizes, sizes[1:]):  # noqa: B905, RUF007 (this runs on old Pythons too)
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class VAE(MlpVAE):
    """Avalanche's `MlpVAE` with the layers 784-400-400-z100-400-400-784."""

    def __init__(self, hidden: int, device: torch.device, gradient: bool):
        super().__init__((1, 28, 28), nhid=LATENT, device=device)
        del self.classification  # a head that generative replay has no use for
        self.encoder = nn.Sequential(nn.Flatten(), mlp(PIXELS, hidden, hidden), nn.ReLU())
        self.calc_mean, self.calc_logvar = nn.Linear(hidden, LATENT), nn.Linear(hidden, LATENT)
        self.decoder = nn.Sequential(
            mlp(LATENT, hidden, hidden, PIXELS), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28))
        )
        self.gradient = gradient

    def generate(self, batch_size: int | None = None) -> torch.Tensor:
        with contextlib.nullcontext() if self.gradient else torch.no_grad():
            return super().generate(batch_size)


class Stopwatch(SupervisedPlugin):
    """Seconds and iterations from the first iteration's start to the last one's end."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device, self.iterations, self.begun, self.ended = device, 0, 0.0, 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def before_training_epoch(self, strategy, **kwargs):
        if self.iterations == 0:
            self.begun = self.now()

    def after_training_iteration(self, strategy, **kwargs):
        self.iterations += 1

    def after_training_epoch(self, strategy, **kwargs):
        self.ended = self.now()


def experiences(folder: str, batch: int, steps: int) -> tuple[list, int]:
    """A batch of the first task and whole batches of the second, classes 0 1 and 2 3; and the
    epochs that make at least so many steps."""
    data = MNIST(folder, train=True, transform=ToTensor())
    labels = data.targets.tolist()
    first, second = ([i for i, y in enumerate(labels) if y in two] for two in ((0, 1), (2, 3)))
    batches = min(steps, len(second) // batch)
    rows = first[:batch] + second[: batches * batch]
    part = Subset(data, rows)
    part.targets = [labels[i] for i in rows]
    stream = nc_benchmark(part, part, 2, task_labels=False, fixed_class_order=range(4))
    return list(stream.train_stream), -(-steps // batches)


def measure(options: argparse.Namespace, tasks: list, epochs: int) -> dict[str, float]:
    """Learn a batch of the first task, then the second, timed."""
    device = torch.device(options.device)
    solver = nn.Sequential(nn.Flatten(), mlp(PIXELS, options.hidden, options.hidden, OUTPUTS))
    vae = VAE(options.hidden, device, options.gradient)
    watches = [Stopwatch(device), Stopwatch(device)]
    common = {"train_mb_size": options.batch, "device": device, "evaluator": None}
    generator = VAETraining(
        model=vae,
        optimizer=torch.optim.Adam(vae.parameters()),
        criterion=VAE_loss,
        plugins=[GenerativeReplayPlugin(replay_size=options.batch)],
        **common,
    )
    strategy = GenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        generator_strategy=generator,
        replay_size=options.batch,
        **common,
    )
    strategy.train(tasks[0])
    strategy.train_epochs = generator.train_epochs = epochs
    strategy.plugins.insert(0, watches[0])
    generator.plugins.insert(0, watches[1])
    strategy.train(tasks[1])
    assert watches[0].iterations == watches[1].iterations
    return {"steps": watches[0].iterations, "seconds": sum(w.ended - w.begun for w in watches)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder that holds torchvision's MNIST/raw")
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gradient", action="store_true", help="dream as MlpVAE does")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    tasks, epochs = experiences(options.data, options.batch, options.steps)
    versions = {"avalanche": avalanche.__version__, "torch": torch.__version__}
    print(json.dumps(versions), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(options, tasks, epochs)), file=answers, flush=True)


if __name__ == "__main__":
    main()
