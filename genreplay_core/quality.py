"""Judging a generator in the domain of its own data.

The usual scores of generated images look at them through a network trained on ImageNet, which
knows little of digits or shirts. Here a small classifier, the judge, is trained on the real data
of the whole stream; its last hidden layer gives the features and its answers say which class a
dream shows. The judge is told everything, past and future: it measures and is never trained on.

    jury = judge(examples, codes=10)
    assess(jury, dreams, answers, met=torch.arange(4), wanted=torch.arange(10))

All scores depend on the number of rows: compare generators on equally many dreams.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .data import Examples, as_float, checked
from .seeds import seeded

FEATURES = 64
REFERENCE = 2000  # rows of real data that dreams are compared with
BATCH = 128
CHUNK = 1000  # rows looked at together, which bounds the memory


class Quality(TypedDict):
    """How good a set of dreams is, ready for JSON.

    frechet: distance to the real features, 0 or more; less is better.
    precision: fraction of dreams that look real.
    recall: fraction of the real rows that the dreams cover.
    class_histogram: C fractions, how often the judge sees each class code.
    label_agreement: fraction of dreams that the old solver and the judge call the same.
    """

    frechet: float
    precision: float
    recall: float
    class_histogram: list[float]
    label_agreement: float


@dataclass(frozen=True)
class Judge:
    """A classifier trained on real data, and real features to compare with.

    body: images -> features.
    head: features -> one score for each class code.
    shape: of one image.
    reference: (M, F) float, features of real rows drawn at random, M at most 2,000.
    reference_code: (M,) int64, their class codes.
    """

    body: nn.Module
    head: nn.Linear
    shape: tuple[int, ...]
    reference: Tensor
    reference_code: Tensor

    def features(self, x: Tensor) -> Tensor:
        """Last hidden layer, (N, F) float without gradient, on the judge's device.

        Args:
            x: (N, *shape), uint8 in 0..255 or float in [0, 1], on any device.

        Raises:
            ValueError: the images have another shape than those the judge was trained on.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"images have shape {tuple(x.shape)}, expected (N, *{self.shape}): "
                "the judge was trained on those"
            )
        return _features(self.body, x, self.reference.device)

    def classify(self, x: Tensor) -> Tensor:
        """Class codes, (N,) int64; see `features` for x and errors."""
        return self.head(self.features(x)).argmax(1)


def judge(
    examples: Examples,
    codes: int,
    seed: int = 0,
    steps: int = 500,
    device: torch.device | str = "cpu",
) -> Judge:
    """Train a judge on the real examples of all tasks together.

    Images (c, h, w) of at least 8x8 pixels get a small convolutional network, all else a
    multilayer perceptron; both are trained with Adam on batches of 128.

    Args:
        examples: N real images with their class codes.
        codes: C, the number of class codes in the stream.
        seed: draws weights, batches and reference. Equal seeds give equal bits on a CPU. The
            caller's random number generators are left alone.
        steps: of training.
        device: where the judge is trained and then works.

    Raises:
        ValueError: examples that `data.checked` refuses; a class code that isn't below `codes`.
    """
    examples = checked(examples)
    if int(examples.y.max()) >= codes:
        raise ValueError(f"class code {int(examples.y.max())} is out of range 0..{codes - 1}")
    shape = tuple(examples.x.shape[1:])
    with seeded(seed):
        body, head = _body(shape).to(device), nn.Linear(FEATURES, codes).to(device)
        batches = torch.randint(len(examples), (steps, BATCH))
        kept = examples[torch.randperm(len(examples))[:REFERENCE]].to(device)
    _train(nn.Sequential(body, head), examples, batches, device)
    return Judge(body, head, shape, _features(body, kept.x, device), kept.y)


def _body(shape: tuple[int, ...]) -> nn.Sequential:
    """Images (N, *shape) -> features (N, F)."""
    if len(shape) == 3 and min(shape[1:]) >= 8:
        c, h, w = shape
        return nn.Sequential(
            *(nn.Conv2d(c, 16, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(32 * (h // 4) * (w // 4), FEATURES), nn.ReLU()),
        )
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(math.prod(shape), 256), nn.ReLU()),
        *(nn.Linear(256, FEATURES), nn.ReLU()),
    )


def _train(
    network: nn.Module, examples: Examples, batches: Tensor, device: torch.device | str
) -> None:
    """One step of Adam for each row of `batches`, then no more training, ever."""
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for rows in batches.to(examples.x.device):
        batch = examples[rows].to(device)
        optimiser.zero_grad()
        cross_entropy(network(batch.x), batch.y).backward()
        optimiser.step()
    network.eval().requires_grad_(False)


@torch.no_grad()
def _features(body: nn.Module, x: Tensor, device: torch.device | str) -> Tensor:
    return torch.cat([body(as_float(part.to(device))) for part in x.split(CHUNK)])


# ---------------------------------------------------------------- scores


def assess(judge: Judge, dreams: Tensor, answers: Tensor, met: Tensor, wanted: Tensor) -> Quality:
    """Score dreams against the real data of the classes met so far.

    Args:
        judge: trained on the whole stream.
        dreams: (N, *shape) float in [0, 1], N at least 4.
        answers: (N,) integers, the output that the old solver chooses for each dream.
        met: (m,) integers, the class codes met so far.
        wanted: (C,) integers, the output that is right for each class code of the stream.

    Raises:
        ValueError: shapes that don't fit; too few dreams, or too few reference rows of the
            classes met; dreams with nan or infinity.
    """
    if answers.shape != (len(dreams),):
        raise ValueError(
            f"answers have shape {tuple(answers.shape)}, expected ({len(dreams)},): one a dream"
        )
    fake = judge.features(dreams)
    seen = judge.head(fake).argmax(1)
    real = judge.reference[torch.isin(judge.reference_code, met.to(seen.device))]
    precision, recall = precision_recall(real, fake)
    return Quality(
        frechet=frechet(real, fake),
        precision=precision,
        recall=recall,
        class_histogram=histogram(seen, len(wanted)),
        label_agreement=float(
            (answers.to(seen.device) == wanted.to(seen.device)[seen]).cpu().double().mean()
        ),
    )


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance between Gaussians fitted to the rows of a and b; symmetric, 0 if equal.

        |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2)

    Heusel et al. (2017), GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium (there with features of Inception), computed in float64. The number of rows
    biases it: fewer rows, larger distance.

    Args:
        a, b: (N, F) and (M, F) finite features, at least 2 rows each, on any device.

    Raises:
        ValueError: too few rows, different widths, nan or infinity.
    """
    a, b = _rows(a, b, least=2)
    s1, s2 = a.T.cov().view(a.shape[1], -1), b.T.cov().view(b.shape[1], -1)
    # The singular values of S1^1/2 S2^1/2 are the roots of the eigenvalues of S1^1/2 S2 S1^1/2.
    # Taking them directly keeps all digits where features are idle and eigenvalues are 0.
    overlap = torch.linalg.svdvals(_root(s1) @ _root(s2)).sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + s1.trace() + s2.trace() - 2 * overlap
    return max(0.0, float(distance))


def _root(s: Tensor) -> Tensor:
    """Symmetric square root of a covariance matrix (F, F)."""
    values, vectors = torch.linalg.eigh(s)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Fraction of fakes among the real rows, and fraction of real rows among the fakes.

    Kynkäänniemi et al. (2019), Improved precision and recall metric for assessing generative
    models. A row is among others if it lies in the ball around one of them that reaches to that
    one's k-th nearest neighbour, itself not counted. Low precision: dreams that look like no
    real image. Low recall: kinds of real images that are never dreamt.

    Args:
        real, fake: (N, F) and (M, F) finite features, at least k + 1 rows each, on any device.
        k: neighbours, 1 or more; 3 in the paper.

    Raises:
        ValueError: too few rows, different widths, nan or infinity, k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected 1 or more neighbours")
    real, fake = _rows(real, fake, least=k + 1)
    return _covered(fake, real, k), _covered(real, fake, k)


def _covered(rows: Tensor, by: Tensor, k: int) -> float:
    """Fraction of `rows` inside the balls around the rows of `by`."""
    reach = torch.cat([_distance(part, by).kthvalue(k + 1).values for part in by.split(CHUNK)])
    inside = [(_distance(part, by) <= reach).any(1) for part in rows.split(CHUNK)]
    return float(torch.cat(inside).double().mean())


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Exact distances (N, M). The faster matrix product loses digits far from the origin."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def histogram(code: Tensor, codes: int) -> list[float]:
    """How often each class code occurs, as `codes` fractions that sum to 1.

    Args:
        code: (N,) integers in 0..codes-1, at least one.

    Raises:
        ValueError: no code, or one out of range.
    """
    if len(code) == 0 or int(code.min()) < 0 or int(code.max()) >= codes:
        raise ValueError(f"expected at least one class code, all in 0..{codes - 1}")
    return (torch.bincount(code.cpu(), minlength=codes) / len(code)).tolist()


def _rows(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both sets of features in float64 on the CPU, or one line that says what is wrong."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"features have shapes {tuple(a.shape)} and {tuple(b.shape)}, "
            "expected (N, F) and (M, F)"
        )
    if min(len(a), len(b)) < least:
        raise ValueError(f"got {len(a)} and {len(b)} rows, expected at least {least} of each")
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("features contain nan or infinity: look for them in the images")
    return a, b
