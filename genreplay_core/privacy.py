"""What a scholar, or a store of examples, gives away of its training data.

Generative replay is often said to be private because it keeps no data. That is a claim to measure,
and three questions measure it. Each compares training images ("members") with images from the same
source that were never trained on ("non-members"), because a good dream is close to both:

    copied(dreams, train)               Are dreams training images, pixel for pixel?
    proximity(dreams, train, heldout)   Are dreams nearer to training than to held-out images?
    attack(losses, losses)              Can one tell of a given image whether it was trained on?

An attack guesses "member" where a loss is low. Three losses are here: the distance to the nearest
dream, which needs dreams only; the solver's loss; and a VAE's, which need the network itself.

    leaks(train, test, dreams, solver=scholar.solver, generator=scholar.generator)

answers all three, ready for JSON. A store of examples is measured with itself as the dreams. To
find nothing is no proof of privacy: other attacks may find more, and these look at single images.
Distances are Euclidean, over pixels in [0, 1], so that a shifted copy counts as another image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Examples, Legend, as_float, checked, identity
from .generators import VAE, gaussian_kl
from .nets import evaluating
from .quality import CHUNK
from .seeds import seeded

GREY = 1 / 255  # one step between grey levels of a stored image
CANDIDATES = 4  # of each block of references that are measured exactly
Z = 1.959964  # 97.5 % point of the standard normal distribution


# ---------------------------------------------------------------- distances


class Nearest(NamedTuple):
    """The reference nearest to each query: distance (N,) float and row (N,) int64."""

    distance: Tensor
    row: Tensor


@torch.no_grad()
def nearest(queries: Tensor, references: Tensor, chunk: int = CHUNK) -> Nearest:
    """The nearest reference of each query, and how far it is.

    The matrix product |r|^2 - 2 q.r finds a few candidates fast but loses digits; the differences
    of these alone are then squared and summed, so that the distance of a copy is exactly 0.

    Args:
        queries: (N, *shape), uint8 in 0..255 or finite float in [0, 1], at least one.
        references: (M, *shape), likewise. The search runs on their device.
        chunk: queries looked at together, with four times as many references; bounds the memory.

    Raises:
        ValueError: images of different shapes, no image, nan or infinity.
    """
    _check(queries, references)
    parts = [
        _nearest(part.to(references.device), references, chunk) for part in queries.split(chunk)
    ]
    return Nearest(torch.cat([p.distance for p in parts]), torch.cat([p.row for p in parts]))


def _nearest(queries: Tensor, references: Tensor, chunk: int) -> Nearest:
    q, start = as_float(queries).flatten(1), 0
    found = []  # (distance, row) of the best of each block, (N,) each
    for block in references.split(4 * chunk):
        r = as_float(block).flatten(1)
        gap = torch.addmm(r.square().sum(1), q, r.T, alpha=-2)  # |q - r|^2 - |q|^2, (N, M)
        some = gap.topk(min(CANDIDATES, len(r)), largest=False).indices.T
        exact = torch.stack([torch.linalg.vector_norm(q - r[rows], dim=1) for rows in some])
        distance, best = exact.min(0)
        found.append((distance, some.gather(0, best.unsqueeze(0)).squeeze(0) + start))
        start += len(r)
    distances, indices = (torch.stack(part) for part in zip(*found, strict=True))
    distance, block_of = distances.min(0)
    return Nearest(distance, indices.gather(0, block_of.unsqueeze(0)).squeeze(0))


def _check(queries: Tensor, references: Tensor) -> None:
    if queries.ndim < 2 or queries.shape[1:] != references.shape[1:]:
        raise ValueError(
            f"images have shapes {tuple(queries.shape)} and {tuple(references.shape)}, "
            "expected (N, *shape) and (M, *shape)"
        )
    if min(len(queries), len(references)) == 0:
        raise ValueError("there is nothing to compare: give at least one image of each kind")
    if not (queries.isfinite().all() and references.isfinite().all()):
        raise ValueError("images contain nan or infinity: measure pixels in [0, 1]")


# ---------------------------------------------------------------- dreams beside training images


def copied(dreams: Tensor, train: Tensor, tolerance: float = GREY) -> float:
    """Fraction (0..1) of dreams that are a training image: no pixel of the nearest one differs by
    more than `tolerance`, by default one grey level. See `nearest` for images and errors."""
    twin = as_float(train[nearest(dreams, train).row]).cpu()
    gap = (as_float(dreams).cpu() - twin).abs().flatten(1).amax(1)
    return float((gap <= tolerance + 1e-6).double().mean())  # 1/255 isn't exact in float


@dataclass(frozen=True)
class Proximity:
    """Where dreams lie between the training images and as many held-out ones.

    ratio: median of (distance to training) / (distance to held-out); 1 if nothing leaks, 0 for
        copies. Held-out distances below one grey level count as one.
    nearer: fraction of dreams nearer to a training image than to any held-out one; ties count
        half. 0.5 if nothing leaks.
    low, high: 95 % interval of `nearer`.
    near: fraction of dreams suspiciously near to a training image, and near_heldout to a held-out
        one, which tells how many are that near by chance: blurred dreams are near to everything.
    """

    ratio: float
    nearer: float
    low: float
    high: float
    near: float
    near_heldout: float


def proximity(dreams: Tensor, train: Tensor, heldout: Tensor, quantile: float = 0.01) -> Proximity:
    """Are dreams nearer to training than to held-out images of the same source?

    The share follows Platzer and Reutterer (2021), Holdout-based empirical assessment of
    mixed-type synthetic data, Frontiers in Big Data; held-out images as the yardstick Meehan,
    Chaudhuri and Dasgupta (2020), A non-parametric test to detect data-copying, AISTATS.

    The interval is Wilson's (1927), JASA, with the effective number of dreams of Kish (1965),
    Survey Sampling: dreams that share their nearest image share its side and count as fewer.

    Args:
        dreams: (N, *shape), see `nearest`.
        train, heldout: (M, *shape) each, random images of one source, as many of one as of the
            other: the larger set would be nearer for its size alone.
        quantile: "suspiciously near" is nearer than this quantile (0..1) of the held-out images'
            distances to their nearest training image.

    Raises:
        ValueError: numbers that differ, a quantile outside 0..1, images that `nearest` refuses.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"quantile is {quantile}, expected a fraction in [0, 1]")
    if len(train) != len(heldout):
        raise ValueError(
            f"got {len(train)} training and {len(heldout)} held-out images, "
            "expected equally many: draw them with balanced()"
        )
    to_train, to_heldout = nearest(dreams, train), nearest(dreams, heldout)
    a, b = to_train.distance.cpu().double(), to_heldout.distance.cpu().double()
    owner = torch.where(a < b, to_train.row.cpu(), to_heldout.row.cpu() + len(train))
    effective = len(dreams) ** 2 / float(owner.bincount().double().square().sum())
    nearer = float(((a < b).double() + 0.5 * (a == b)).mean())
    limit = nearest(heldout, train).distance.cpu().double().quantile(quantile)
    return Proximity(
        float(torch.where(a == b, 1.0, a / b.clamp(min=GREY)).quantile(0.5)),
        nearer,
        *_wilson(nearer, effective),
        near=float((a < limit).double().mean()),
        near_heldout=float((b < limit).double().mean()),
    )


def _wilson(fraction: float, n: float) -> tuple[float, float]:
    """95 % score interval of a fraction of n trials."""
    centre, share = fraction + Z**2 / (2 * n), 1 + Z**2 / n
    reach = Z * math.sqrt(fraction * (1 - fraction) / n + (Z / (2 * n)) ** 2)
    return max(0.0, (centre - reach) / share), min(1.0, (centre + reach) / share)


# ---------------------------------------------------------------- membership inference


@dataclass(frozen=True)
class Attack:
    """How well an attack tells members from non-members.

    auc: chance that a random member looks more like one than a random non-member, in [0, 1]; 0.5
        is guessing.
    low, high: 95 % interval of `auc`.
    tpr: fraction of members that are found when at most 1 % of non-members are accused. It shows
        a leak of few images, which an average hides (Carlini et al. 2022, Membership inference
        attacks from first principles, IEEE S&P). Guessing finds 0.01, with fewer than 100
        non-members less.
    """

    auc: float
    low: float
    high: float
    tpr: float


def attack(members: Tensor, nonmembers: Tensor) -> Attack:
    """Guess that images with a low loss were trained on, and see how often that is right.

    The threshold attack of Yeom, Giacomelli, Fredrikson and Jha (2018), Privacy risk in machine
    learning: analyzing the connection to overfitting, IEEE CSF, at all thresholds at once. The
    interval is that of DeLong, DeLong and Clarke-Pearson (1988), Biometrics. Where one group lies
    wholly below the other it has no width, whatever the numbers: 1 from ten images isn't certain.

    Args:
        members, nonmembers: (m,) and (n,) finite losses, at least two each.

    Raises:
        ValueError: another shape, fewer than two, nan or infinity.
    """
    scores = [-part.detach().cpu().double().numpy() for part in (members, nonmembers)]
    if any(s.ndim != 1 or len(s) < 2 or not np.isfinite(s).all() for s in scores):
        raise ValueError(
            f"losses have shapes {tuple(members.shape)} and {tuple(nonmembers.shape)}, "
            "expected two finite numbers or more of each"
        )
    m, n = len(scores[0]), len(scores[1])
    rank, inner = rankdata(np.concatenate(scores)), [rankdata(s) for s in scores]
    beaten = (rank[:m] - inner[0]) / n  # of each member, the share of non-members below it
    beating = 1 - (rank[m:] - inner[1]) / m  # of each non-member, the share of members above it
    auc = float(beaten.mean())
    reach = Z * math.sqrt(beaten.var(ddof=1) / m + beating.var(ddof=1) / n)
    threshold = np.sort(scores[1])[-1 - n // 100]  # n // 100 non-members may lie above
    tpr = float((scores[0] > threshold).mean())
    return Attack(auc, max(0.0, auc - reach), min(1.0, auc + reach), tpr)


def balanced(members: Examples, nonmembers: Examples, seed: int = 0) -> tuple[Examples, Examples]:
    """As many random non-members as members of each class; a class that one side lacks is left
    out, or an attack could tell the classes apart instead of who was trained on.

    Raises:
        ValueError: examples that `data.checked` refuses; no class in common.
    """
    pair = (checked(members), checked(nonmembers))
    counts = [
        part.y.cpu().bincount(minlength=int(max(p.y.max() for p in pair)) + 1) for part in pair
    ]
    room = torch.minimum(*counts).tolist()
    if not any(room):
        raise ValueError("members and non-members share no class: draw both from the same classes")
    with seeded(seed, 0):
        orders = [torch.randperm(len(part)).to(part.y.device) for part in pair]
    chosen = [
        torch.cat([order[part.y[order] == code][:count] for code, count in enumerate(room)])
        for part, order in zip(pair, orders, strict=True)
    ]
    return pair[0][chosen[0]], pair[1][chosen[1]]


def distance_loss(dreams: Tensor, examples: Examples) -> Tensor:
    """Distance of each image to its nearest dream, (N,).

    The attack on any generator of Chen, Yu, Zhang and Fritz (2020), GAN-Leaks: a taxonomy of
    membership inference attacks against generative models, ACM CCS (there "full black-box"); a
    kin of Hilprecht, Härterich and Bernau (2019), Monte Carlo and reconstruction membership
    inference attacks against generative models, PoPETs. More dreams find more.
    """
    return nearest(examples.x, dreams).distance


def solver_loss(
    solver: nn.Module, examples: Examples, legend: Legend | None = None, chunk: int = CHUNK
) -> Tensor:
    """Cross-entropy of the solver's answer to each example, (N,) float64, in nats.

    Args:
        examples: on the solver's device.
        legend: what their class codes mean; without it they are outputs.
    """
    with evaluating(solver):
        # in float64: confident answers would all have loss 0 in float32
        parts = [solver(as_float(x)).cpu().double() for x in examples.x.split(chunk)]
    logits, code = torch.cat(parts), examples.y.cpu()
    legend = (legend or identity(logits.shape[1])).to("cpu")
    target = legend.target[code].double()
    return F.cross_entropy(logits + legend.mask[code], target, reduction="none")


def negative_elbo(
    vae: VAE, examples: Examples, draws: int = 10, seed: int = 0, chunk: int = CHUNK
) -> Tensor:
    """Negative evidence lower bound of each example, (N,), in nats: cross-entropy summed over
    pixels, averaged over `draws` latents, plus KL. The same noise serves every image, so that
    the loss of an image doesn't depend on its neighbours. Hilprecht et al. (2019) attack VAEs by
    the first of the two terms.

    Args:
        examples: on the VAE's device; y holds the class codes that a conditional one is told.
        draws: latents drawn for each image, 1 or more.

    Raises:
        ValueError: draws below 1.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}, expected 1 or more latents for each image")
    with seeded(seed, 1):
        noise = torch.randn(draws, vae.latent_dim).to(examples.x.device)
    pairs = zip(examples.x.split(chunk), examples.y.split(chunk), strict=True)
    with evaluating(vae):
        return torch.cat([_negative_elbo(vae, as_float(x), y, noise) for x, y in pairs])


def _negative_elbo(vae: VAE, x: Tensor, code: Tensor, noise: Tensor) -> Tensor:
    y = code if vae.code.classes else None
    mean, logvar = vae.encoder(x).chunk(2, 1)
    loss = gaussian_kl(mean, logvar, *vae.prior_of(y))
    for z in noise:
        logits = vae.decoder(vae.code(mean + (0.5 * logvar).exp() * z, y))
        rebuilt = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        loss = loss + rebuilt.flatten(1).sum(1) / len(noise)
    return loss


# ---------------------------------------------------------------- all together


def leaks(
    members: Examples,
    nonmembers: Examples,
    dreams: Tensor,
    *,
    solver: nn.Module | None = None,
    legend: Legend | None = None,
    generator: nn.Module | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Every measure of this module, ready for JSON.

    Args:
        members: examples trained on; `copied` looks at all of them.
        nonmembers: examples of the same classes that were not. All other measures draw as many
            of one as of the other (see `balanced`).
        dreams: (n, *shape) images of the generator, or the stored images themselves.
        solver, legend: attacked by its loss, if given; see `solver_loss`.
        generator: attacked by its loss if it is a `VAE`; others have no loss of an image.
        seed: draws examples and noise. The caller's random state is left alone.

    Returns:
        `dreams` and `examples` (of each side), the numbers compared; `copied`; `proximity`, see
        `Proximity`; `attacks`, an `Attack` for each of "distance", "solver" and "generator" that
        could be made.

    Raises:
        ValueError: examples that `balanced` or images that `nearest` refuses; a single member.
    """
    known, fresh = balanced(members, nonmembers, seed)
    losses = _losses(dreams, solver, legend, generator, seed)
    return {
        "dreams": len(dreams),
        "examples": len(known),
        "copied": copied(dreams, members.x),
        "proximity": asdict(proximity(dreams, known.x, fresh.x)),
        "attacks": {
            name: asdict(attack(loss(known), loss(fresh))) for name, loss in losses.items()
        },
    }


def _losses(
    dreams: Tensor,
    solver: nn.Module | None,
    legend: Legend | None,
    generator: nn.Module | None,
    seed: int,
) -> dict[str, Callable[[Examples], Tensor]]:
    """The losses that can be measured with what is there, by name."""
    losses: dict[str, Callable[[Examples], Tensor]] = {"distance": partial(distance_loss, dreams)}
    if solver is not None:
        losses["solver"] = partial(solver_loss, solver, legend=legend)
    if isinstance(generator, VAE):
        losses["generator"] = partial(negative_elbo, generator, seed=seed)
    return losses
