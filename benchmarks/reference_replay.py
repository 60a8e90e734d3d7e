"""Deep generative replay as a careful textbook would write it, timed: an arm of `genreplay bench`.

Correct and plain: a `DataLoader` over torchvision's data set, Adam as it comes, dreams made and
labelled afresh in each step under `no_grad`, a forward pass for each of the two terms of the loss,
and `.item()` for the running loss. It needs PyTorch and torchvision, and imports nothing of ours.

It says one line of JSON when it is ready, then answers each line that it is sent with one more,
{"steps": ..., "seconds": ...}, until its input ends. For each measurement solver and VAE begin
anew, take a few steps on the second task of split MNIST, and are then timed.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

PIXELS, OUTPUTS, LATENT = 28 * 28, 10, 100
WARM = 3  # steps before the clock is started

Batch = tuple[Tensor, Tensor]


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class VAE(nn.Module):
    """Variational autoencoder (Kingma and Welling 2014) of two-layer perceptrons."""

    def __init__(self, hidden: int):
        super().__init__()
        self.encoder = mlp(PIXELS, hidden, hidden, 2 * LATENT)
        self.decoder = mlp(LATENT, hidden, hidden, PIXELS)

    def loss(self, x: Tensor) -> Tensor:
        """The negative evidence lower bound of images (N, PIXELS), averaged over rows and divided
        by the pixels."""
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        rebuilt = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum()
        return (rebuilt + kl) / x.numel()

    def sample(self, n: int, device: torch.device) -> Tensor:
        """n images (n, PIXELS) in [0, 1]."""
        return self.decoder(torch.randn(n, LATENT, device=device)).sigmoid()


def batches(folder: str, size: int) -> Iterator[Batch]:
    """Shuffled batches of the second task, classes 2 and 3, without end: x (size, 1, 28, 28) in
    [0, 1], y (size,)."""
    data = MNIST(folder, train=True, transform=ToTensor())
    rows = [i for i, label in enumerate(data.targets.tolist()) if label in (2, 3)]
    loader = DataLoader(Subset(data, rows), batch_size=size, shuffle=True, drop_last=True)
    while True:
        yield from loader


def train(
    solver: nn.Module, vae: VAE, data: Iterable[Batch], device: torch.device, r: float = 0.5
) -> Iterator[tuple[float, float]]:
    """Train both on `r * new + (1 - r) * replayed` (Shin et al. 2017, equation 1).

    The old solver and VAE are as the given ones are at the first step. Yields after each step the
    mean loss so far, (solver, VAE).
    """
    old_solver, old_vae = copy.deepcopy(solver).eval(), copy.deepcopy(vae).eval()
    solver_adam = torch.optim.Adam(solver.parameters())
    vae_adam = torch.optim.Adam(vae.parameters())
    solver_total, vae_total = 0.0, 0.0
    for step, (x, y) in enumerate(data, 1):
        x, y = x.flatten(1).to(device), y.to(device)
        with torch.no_grad():
            x_old = old_vae.sample(len(x), device)
            y_old = old_solver(x_old).argmax(1)

        new, old = F.cross_entropy(solver(x), y), F.cross_entropy(solver(x_old), y_old)
        loss = r * new + (1 - r) * old
        solver_adam.zero_grad()
        loss.backward()
        solver_adam.step()
        solver_total += loss.item()

        loss = r * vae.loss(x) + (1 - r) * vae.loss(x_old)
        vae_adam.zero_grad()
        loss.backward()
        vae_adam.step()
        vae_total += loss.item()
        yield solver_total / step, vae_total / step


def measure(data: Iterable[Batch], hidden: int, device: torch.device, steps: int) -> float:
    """Seconds that so many steps take; `.item()` has waited for the device at each step's end."""
    solver, vae = mlp(PIXELS, hidden, hidden, OUTPUTS).to(device), VAE(hidden).to(device)
    loop = train(solver, vae, data, device)
    for _ in islice(loop, WARM):
        pass
    begun = time.perf_counter()
    for _ in islice(loop, steps):
        pass
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", required=True, help="folder that holds torchvision's MNIST/raw")
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, device = batches(options.data, options.batch), torch.device(options.device)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for _ in sys.stdin:
        seconds = measure(data, options.hidden, device, options.steps)
        print(json.dumps({"steps": options.steps, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
