"""Data sets by name: `load("mnist")` gives training and test examples, ready for a stream.

Files are looked for in a folder laid out as torchvision does it, and downloaded only if one is
missing. A download goes into a temporary folder first, its checksums are verified by torchvision,
and then each finished file is renamed into place. A broken download therefore leaves nothing
behind, two processes may load the same data set at once, and a folder that can't be written to
works as long as it holds the files.

    train, test = load("fashion")
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np
import torch
from torch.nn.functional import one_hot
from torchvision import datasets as vision

from .data import Examples, Pair, checked

VARIABLE = "GENREPLAY_DATA"
UNREACHABLE = (OSError, RuntimeError, HTTPException)
# What a parser meets in a damaged file: torchvision's readers assert, index and look up freely.
UNREADABLE = (AssertionError, LookupError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Source:
    """Where a data set lies and how it is read.

    read: (folder, train=..., download=...) -> examples of one part.
    files: all files that both parts need; none if a package brings the data along.
    place: the folder of these files, relative to the data folder.
    sums: their md5 as published, where it is known and the reader doesn't look.
    """

    read: Callable[..., Examples]
    files: tuple[str, ...] = ()
    place: str = ""
    sums: tuple[str, ...] = ()


# ---------------------------------------------------------------- one reader for each format


def _digits(folder: Path, train: bool, download: bool) -> Examples:
    """Handwriting of 8 x 8 pixels with 17 grey levels, which scikit-learn ships.

    Every fifth image of each class, in the file's order, is a test image: the classes stay
    balanced and no random number decides. A writer's images are on both sides.
    """
    from sklearn.datasets import load_digits  # takes a second to import: only who asks pays

    pixels, labels = load_digits(return_X_y=True)
    y = torch.from_numpy(labels).long()
    nth = one_hot(y).cumsum(0).gather(1, y[:, None]).squeeze(1)  # (N,) from 1, within the class
    x = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    return Examples(x, y)[(nth % 5 == 0) != train]


def _grey(kind: Callable[..., Any], folder: Path, train: bool, download: bool) -> Examples:
    part = kind(folder, train=train, download=download)
    return Examples(part.data.unsqueeze(1), part.targets)


def _letters(folder: Path, train: bool, download: bool) -> Examples:
    """EMNIST stores images with rows and columns exchanged, and counts letters from 1."""
    stored = _grey(partial(vision.EMNIST, split="letters"), folder, train, download)
    return Examples(stored.x.mT.contiguous(), stored.y - 1)


def _svhn(folder: Path, train: bool, download: bool) -> Examples:
    part = vision.SVHN(folder, split="train" if train else "test", download=download)
    x = np.ascontiguousarray(part.data)  # (N, 3, 32, 32)
    return Examples(torch.from_numpy(x), torch.from_numpy(part.labels))


def _colour(kind: Callable[..., Any], folder: Path, train: bool, download: bool) -> Examples:
    # CIFAR comes as pickles, which may run code: torchvision opens a file only after its md5 is
    # found to be the published one.
    part = kind(folder, train=train, download=download)
    x = torch.from_numpy(part.data).permute(0, 3, 1, 2)  # (N, 32, 32, 3) -> (N, 3, 32, 32)
    return Examples(x, torch.tensor(part.targets))


def _idx(train: str, test: str) -> tuple[str, ...]:
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    return tuple(f"{part}-{kind}" for part in (train, test) for kind in kinds)


_MNIST = _idx("train", "t10k")
_MNIST_SUMS = (
    *("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
    *("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
)
_FASHION_SUMS = (
    *("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9"),
    *("8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
)
_LETTERS = _idx("emnist-letters-train", "emnist-letters-test")
_CIFAR10 = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")

SOURCES = {
    "digits": Source(_digits),
    "mnist": Source(partial(_grey, vision.MNIST), _MNIST, "MNIST/raw", _MNIST_SUMS),
    "fashion": Source(
        partial(_grey, vision.FashionMNIST), _MNIST, "FashionMNIST/raw", _FASHION_SUMS
    ),
    "kmnist": Source(partial(_grey, vision.KMNIST), _MNIST, "KMNIST/raw"),
    "emnist-letters": Source(_letters, _LETTERS, "EMNIST/raw"),
    "svhn": Source(_svhn, ("train_32x32.mat", "test_32x32.mat")),
    "cifar10": Source(partial(_colour, vision.CIFAR10), _CIFAR10, "cifar-10-batches-py"),
    "cifar100": Source(
        partial(_colour, vision.CIFAR100), ("train", "test", "meta"), "cifar-100-python"
    ),
}


# ---------------------------------------------------------------- loading


def load(name: str, root: str | Path | None = None, download: bool = True) -> Pair:
    """Training and test examples of a data set.

    | name | x | classes | training + test |
    | --- | --- | --- | --- |
    | digits | (N, 1, 8, 8) float in [0, 1] | 10 | 1,442 + 355 |
    | mnist, fashion, kmnist | (N, 1, 28, 28) uint8 | 10 | 60,000 + 10,000 |
    | emnist-letters | (N, 1, 28, 28) uint8 | 26 | 124,800 + 20,800 |
    | svhn | (N, 3, 32, 32) uint8 | 10 | 73,257 + 26,032 |
    | cifar10 | (N, 3, 32, 32) uint8 | 10 | 50,000 + 10,000 |
    | cifar100 | (N, 3, 32, 32) uint8 | 100 | 50,000 + 10,000 |

    y is (N,) int64 and starts at 0.

    Args:
        name: one of the names above.
        root: the data folder; see `data_folder` for what None means.
        download: whether missing files may be downloaded into it.

    Raises:
        ValueError: an unknown name; files that are missing and can't be downloaded, or that
            are damaged. The line says what to put where.
    """
    if name not in SOURCES:
        raise ValueError(f"unknown data set '{name}': choose one of {', '.join(SOURCES)}")
    source, folder = SOURCES[name], data_folder(root)
    place = folder / source.place
    missing = [file for file in source.files if not (place / file).is_file()]
    lacking = f"{name} isn't in {folder}"
    advice = f"put {', '.join(missing)} into {place}, or set {VARIABLE} to a folder that has them"
    if missing and not download:
        raise ValueError(f"{lacking}: {advice}")
    if missing:
        with _explained(UNREACHABLE, f"{lacking} and couldn't be downloaded", advice):
            return _download(source, folder)
    again = f"replace {', '.join(source.files)} in {place}, or delete them and load again"
    with _explained(UNREADABLE, f"{name} in {folder} can't be read", again):
        _verify(source, place)
        return _pair(source, folder, download=False)


def data_folder(root: str | Path | None = None) -> Path:
    """The folder that holds data sets.

    It is `root` if given, else the environment variable GENREPLAY_DATA, else `genreplay` in the
    user's cache (XDG_CACHE_HOME, or ~/.cache; who has no home has one among the temporary files).
    It need not exist yet.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "genreplay")
    try:
        return Path(root or os.environ.get(VARIABLE) or cache).expanduser()
    except RuntimeError:
        return Path(gettempdir(), "genreplay")


def _pair(source: Source, folder: Path, download: bool) -> Pair:
    with _quiet():
        train = source.read(folder, train=True, download=download)
        test = source.read(folder, train=False, download=download)
    return checked(train), checked(test)


def _verify(source: Source, place: Path) -> None:
    """A flipped bit in an image would be learned without a word, if the format has no checksum."""
    for file, wanted in zip(source.files, source.sums, strict=False):
        if hashlib.md5((place / file).read_bytes(), usedforsecurity=False).hexdigest() != wanted:
            raise ValueError(f"{file} isn't as it was published, by its md5")


def _download(source: Source, folder: Path) -> Pair:
    """Fetch and read the data set in a temporary folder, then rename its files into place.

    The temporary folder lies inside `folder`, because a rename is atomic only within one file
    system. If another process finishes first, its files are replaced by identical ones.
    """
    place = folder / source.place
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".download-", dir=folder) as name:
        pair = _pair(source, Path(name), download=True)
        place.mkdir(parents=True, exist_ok=True)
        for file in source.files:
            os.replace(Path(name, source.place, file), place / file)
    return pair


@contextmanager
def _quiet() -> Iterator[None]:
    """Two warnings are about how others wrote or read CIFAR, and no user can act on them."""
    with warnings.catch_warnings():
        # CIFAR was pickled by Python 2; numpy 2.4.0 to 2.4.4 deprecate how it spelled a dtype.
        old = np.exceptions.VisibleDeprecationWarning
        warnings.filterwarnings("ignore", r"dtype\(\): align should be passed", old)
        # torchvision unpacks CIFAR's archive, its checksum verified, without naming a filter.
        warnings.filterwarnings("ignore", r"Python 3\.14 will, by default", DeprecationWarning)
        yield


@contextmanager
def _explained(errors: tuple[type[Exception], ...], problem: str, advice: str) -> Iterator[None]:
    """Turn any of `errors` into one line: problem (reason): advice."""
    try:
        yield
    except errors as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{problem} ({reason}): {advice}") from error
