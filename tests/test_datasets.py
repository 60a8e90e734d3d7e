"""Data sets by name. Real files where GENREPLAY_DATA has them; otherwise small ones, written here
in each data set's own format, behind a pretended network."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import tempfile
import urllib.request
import zipfile
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.io import savemat
from sklearn.datasets import load_digits
from torchvision import datasets as vision

from genreplay_core import datasets
from genreplay_core.datasets import SOURCES, data_folder, load

SMALL = ("mnist", "fashion", "kmnist", "emnist-letters", "svhn", "cifar10", "cifar100")
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

# ---------------------------------------------------------------- the formats, written by hand


def md5(body):
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def idx(array):
    """The format of MNIST: two zeros, 8 for bytes, the number of axes, their lengths, the bytes."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def mat(x, y):
    """The format of SVHN: X (h, w, 3, N), y (N, 1) with 10 for the digit 0."""
    body = io.BytesIO()
    savemat(body, {"X": x.transpose(2, 3, 1, 0), "y": np.where(y == 0, 10, y)[:, None]})
    return body.getvalue()


def batch(x, labels, key):
    """The format of CIFAR: a pickle of rows with 3072 bytes, spelled as Python 2 spelled it."""
    body = pickle.dumps({"data": x.reshape(len(x), -1), key: labels.tolist()}, protocol=2)
    body = body.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    return body.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")  # dtype(.., False, True) -> (.., 0, 1)


def pixels(n, seed, shape=(3, 32, 32)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def grey(seed):
    """Five images, not square so that no axis can be mistaken for another, and their labels."""
    return pixels(5, seed, (1, 4, 6)), np.array([3, 0, 9, 1, 0])


def colour(seed, top):
    return pixels(5, seed), np.array([top, 0, 1, 2, 0])


def idx_files(train, test, names):
    arrays = (train[0][:, 0], train[1], test[0][:, 0], test[1])
    return {name: idx(array) for name, array in zip(names, arrays, strict=True)}


def small_set(name):
    """What `load` should give, as ((x, y), (x, y)), and the files that say so."""
    place = SOURCES[name].files
    if name == "svhn":
        pair = colour(0, 9), colour(1, 9)
        return pair, {file: mat(*part) for file, part in zip(place, pair, strict=True)}
    if name == "cifar10":
        (x, y), test = pair = colour(0, 9), colour(1, 9)
        rows = {f: batch(x[i : i + 1], y[i : i + 1], "labels") for i, f in enumerate(place[:5])}
        meta = pickle.dumps({"label_names": []}, protocol=2)
        return pair, {**rows, "test_batch": batch(*test, "labels"), "batches.meta": meta}
    if name == "cifar100":
        pair = colour(0, 99), colour(1, 99)
        rows = {f: batch(*p, "fine_labels") for f, p in zip(place[:2], pair, strict=True)}
        return pair, {**rows, "meta": pickle.dumps({"fine_label_names": []}, protocol=2)}
    pair = grey(0), grey(1)
    if name == "emnist-letters":
        train, test = [(x.swapaxes(2, 3), y + 1) for x, y in pair]
        return pair, idx_files(train, test, place)
    return pair, idx_files(*pair, place)


def tar(files, folder):
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return body.getvalue()


def emnist_zip(files):
    """The letters, and a split that nobody asked for."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in {**files, "emnist-mnist-train-labels-idx1-ubyte": b"x"}.items():
            archive.writestr(f"gzip/{name}.gz", gzip.compress(content))
    return body.getvalue()


def publish(name, files, monkeypatch):
    """What is found on the network for a data set; torchvision is told the new checksums."""
    sums = {file: md5(body) for file, body in files.items()}
    if name == "svhn":
        for part, file in zip(("train", "test"), files, strict=True):
            row = [f"http://example.invalid/{file}", file, sums[file]]
            monkeypatch.setitem(vision.SVHN.split_list, part, row)
        return files
    if name == "emnist-letters":
        page = {"gzip.zip": emnist_zip(files)}
        monkeypatch.setattr(vision.EMNIST, "md5", md5(page["gzip.zip"]))
        return page
    if name.startswith("cifar"):
        kind = {"cifar10": vision.CIFAR10, "cifar100": vision.CIFAR100}[name]
        *train, test, meta = sums.items()
        monkeypatch.setattr(kind, "train_list", train)
        monkeypatch.setattr(kind, "test_list", [test])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": meta[1]})
        page = {kind.filename: tar(files, kind.base_folder)}
        monkeypatch.setattr(kind, "tgz_md5", md5(page[kind.filename]))
        return page
    kind = {"mnist": vision.MNIST, "fashion": vision.FashionMNIST, "kmnist": vision.KMNIST}[name]
    page = {f"{file}.gz": gzip.compress(body) for file, body in files.items()}
    told = replace(SOURCES[name], sums=tuple(sums.values()) if SOURCES[name].sums else ())
    monkeypatch.setitem(SOURCES, name, told)
    monkeypatch.setattr(kind, "resources", [(file, md5(body)) for file, body in page.items()])
    return page


class Response(io.BytesIO):
    def __init__(self, url, body):
        super().__init__(body)
        self.url, self.length = url, len(body)


@pytest.fixture
def network(monkeypatch):
    """Pages by file name. What isn't there can't be reached, and an empty page breaks off."""
    pages: dict[str, bytes] = {}

    def urlopen(request):
        name = request.full_url.rsplit("/", 1)[-1]
        if name not in pages:
            raise URLError("the network is down")
        if not pages[name]:
            raise IncompleteRead(b"")
        return Response(request.full_url, pages[name])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return pages


def store(name, files, root):
    place = root / SOURCES[name].place
    place.mkdir(parents=True, exist_ok=True)
    for file, body in files.items():
        (place / file).write_bytes(body)
    return place


def tree(root):
    """Every file and folder below root, with the files' contents."""
    return {p.relative_to(root): p.is_file() and p.read_bytes() for p in root.rglob("*")}


def assert_equal(pair, expected):
    for part, (x, y) in zip(pair, expected, strict=True):
        assert part.x.dtype == torch.uint8
        assert part.y.dtype == torch.int64
        assert part.x.is_contiguous()
        np.testing.assert_array_equal(part.x.numpy(), x)
        np.testing.assert_array_equal(part.y.numpy(), y)


def one_line(error):
    line = str(error.value)
    assert "\n" not in line
    return line


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("name", SMALL)
def test_stored_files_give_upright_channel_first_images_and_labels_from_0(
    name, tmp_path, monkeypatch, network
):
    expected, files = small_set(name)
    publish(name, files, monkeypatch)
    store(name, files, tmp_path)
    assert_equal(load(name, tmp_path), expected)


@pytest.mark.parametrize("name", SMALL)
def test_a_folder_that_holds_the_data_is_only_read(name, tmp_path, monkeypatch, network):
    expected, files = small_set(name)
    publish(name, files, monkeypatch)
    place = store(name, files, tmp_path)
    before = tree(tmp_path)
    for path in (*place.iterdir(), place, tmp_path):
        path.chmod(0o555)
    monkeypatch.setattr(datasets, "_download", None)  # for a user whom no permission stops
    assert_equal(load(name, tmp_path), expected)
    assert tree(tmp_path) == before


def test_digits_holds_out_every_fifth_image_of_each_class():
    train, test = load("digits")
    assert train.x.shape == (1442, 1, 8, 8)
    assert test.x.shape == (355, 1, 8, 8)
    assert train.x.dtype == torch.float32
    total = np.bincount(load_digits().target)
    np.testing.assert_array_equal(test.y.bincount(), total // 5)
    np.testing.assert_array_equal(train.y.bincount(), total - total // 5)


def test_digits_keeps_every_pixel_and_the_order_of_the_file():
    images, labels = load_digits(return_X_y=True)
    train, test = load("digits")
    for digit in range(10):
        original = torch.from_numpy(images[labels == digit]).float() / 16
        held_out = torch.arange(len(original)) % 5 == 4
        assert torch.equal(test.x[test.y == digit].flatten(1), original[held_out])
        assert torch.equal(train.x[train.y == digit].flatten(1), original[~held_out])


def real(name):
    """A data set that this machine has, else the test is skipped."""
    root = os.environ.get("GENREPLAY_DATA")
    if not root:
        pytest.skip("GENREPLAY_DATA is not set")
    folder = Path(root, SOURCES[name].place)
    if not all((folder / file).is_file() for file in SOURCES[name].files):
        pytest.skip(f"{name} is not in GENREPLAY_DATA")
    return folder, load(name, download=False)


def test_real_mnist_is_the_published_one():
    folder, (train, test) = real("mnist")
    assert {file: md5((folder / file).read_bytes()) for file in MNIST_MD5} == MNIST_MD5
    assert train.x.shape == (60000, 1, 28, 28)
    assert test.x.shape == (10000, 1, 28, 28)
    assert test.y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.y[:5].tolist() == [5, 0, 4, 1, 9]


def test_real_fashion_mnist_has_equal_classes():
    _, (train, test) = real("fashion")
    assert train.x.shape == (60000, 1, 28, 28)
    assert test.x.shape == (10000, 1, 28, 28)
    assert train.y.bincount().tolist() == [6000] * 10
    assert test.y.bincount().tolist() == [1000] * 10


# ---------------------------------------------------------------- downloading


@pytest.mark.parametrize("name", SMALL)
def test_a_download_stores_exactly_the_needed_files(name, tmp_path, monkeypatch, network, capsys):
    expected, files = small_set(name)
    network.update(publish(name, files, monkeypatch))
    root = tmp_path / "not" / "yet"
    assert_equal(load(name, root), expected)
    place = root / SOURCES[name].place
    assert {p: body for p, body in tree(root).items() if body} == {
        (place / file).relative_to(root): body for file, body in files.items()
    }
    assert capsys.readouterr().out == ""
    network.clear()
    assert_equal(load(name, root), expected)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("damage", ["unreachable", "truncated", "broken off"])
def test_a_broken_download_leaves_nothing_behind(name, damage, tmp_path, monkeypatch, network):
    _, files = small_set(name)
    network.update(publish(name, files, monkeypatch))
    last = list(network)[-1]
    body = network.pop(last)
    if damage != "unreachable":
        network[last] = body[: len(body) // 2] if damage == "truncated" else b""
    with pytest.raises(ValueError, match=f"{name} isn't in .* and couldn't be downloaded") as error:
        load(name, tmp_path)
    one_line(error)
    assert tree(tmp_path) == {}


def test_two_loads_at_once_both_succeed(tmp_path, monkeypatch, network):
    expected, files = small_set("kmnist")
    network.update(publish("kmnist", files, monkeypatch))
    alone, others = urllib.request.urlopen, []

    def urlopen(request):
        if not others:  # another process comes and finishes while this one has hardly begun
            others.append(None)
            others.append(load("kmnist", tmp_path))
        return alone(request)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert_equal(load("kmnist", tmp_path), expected)
    assert_equal(others[1], expected)
    assert {p.name for p, body in tree(tmp_path).items() if body} == set(files)


def test_a_half_present_data_set_is_completed(tmp_path, monkeypatch, network):
    expected, files = small_set("svhn")
    network.update(publish("svhn", files, monkeypatch))
    store("svhn", {"test_32x32.mat": files["test_32x32.mat"]}, tmp_path)
    assert_equal(load("svhn", tmp_path), expected)


# ---------------------------------------------------------------- failures, one line each


def test_without_network_the_line_says_what_to_put_where(tmp_path, network):
    with pytest.raises(ValueError, match="the network is down") as error:
        load("mnist", tmp_path)
    line = one_line(error)
    assert line.startswith(f"mnist isn't in {tmp_path} and couldn't be downloaded (")
    assert f"put {', '.join(MNIST_MD5)} into {tmp_path / 'MNIST' / 'raw'}" in line
    assert "GENREPLAY_DATA" in line


def test_without_permission_to_download_nothing_is_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_download", None)
    root = tmp_path / "absent"
    with pytest.raises(ValueError, match=r"svhn isn't in .*: put train_32x32.mat, ") as error:
        load("svhn", root, download=False)
    one_line(error)
    assert not root.exists()


def test_a_root_that_cannot_be_made_is_one_line(tmp_path, network):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cifar10 isn't in .*Not a directory.*data_batch_1") as e:
        load("cifar10", tmp_path / "file" / "data")
    one_line(e)


@pytest.mark.parametrize(
    ("name", "file", "damage"),
    [
        ("mnist", "train-images-idx3-ubyte", lambda body: body[:-1]),
        ("mnist", "train-images-idx3-ubyte", lambda body: body[:7]),
        ("mnist", "train-images-idx3-ubyte", lambda body: b""),
        ("mnist", "t10k-labels-idx1-ubyte", lambda body: b"\xff" * len(body)),
        ("kmnist", "t10k-labels-idx1-ubyte", lambda body: b"\0\0\x0a" + body[3:]),  # no such type
        ("kmnist", "t10k-labels-idx1-ubyte", lambda body: b"\0\0\x09" + body[3:]),  # signed bytes
        ("fashion", "train-labels-idx1-ubyte", lambda body: idx(np.zeros(4))),
        ("emnist-letters", "emnist-letters-test-labels-idx1-ubyte", lambda body: idx(np.zeros(5))),
        ("svhn", "test_32x32.mat", lambda body: body[:-1]),
        ("cifar10", "data_batch_3", lambda body: body[:-1]),
        ("cifar100", "meta", lambda body: body + b"x"),
    ],
)
def test_a_damaged_file_is_one_line_and_stays_as_it_is(
    name, file, damage, tmp_path, monkeypatch, network
):
    _, files = small_set(name)
    publish(name, files, monkeypatch)
    place = store(name, {**files, file: damage(files[file])}, tmp_path)
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=f"{name} in .* can't be read \\(.+\\): replace") as error:
        load(name, tmp_path)
    line = one_line(error)
    assert file in line
    assert str(place) in line
    assert tree(tmp_path) == before


def test_a_file_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    store("kmnist", small_set("kmnist")[1], tmp_path)
    monkeypatch.setattr(vision.mnist, "read_image_file", forbidden)
    with pytest.raises(ValueError, match=r"mnist in .* can't be read .*Permission denied") as error:
        load("kmnist", tmp_path)
    one_line(error)


def test_a_forged_pickle_is_never_opened(tmp_path, monkeypatch, network):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    _, files = small_set("cifar100")
    publish("cifar100", files, monkeypatch)
    store("cifar100", {**files, "train": pickle.dumps(Bomb())}, tmp_path)
    with pytest.raises(ValueError, match=r"cifar100 in .* can't be read"):
        load("cifar100", tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown data set 'minst'") as error:
        load("minst")
    assert one_line(error).endswith(", ".join(SOURCES))
    assert set(SOURCES) == {"digits", *SMALL}


# ---------------------------------------------------------------- the data folder


def test_the_data_folder_is_root_then_variable_then_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("GENREPLAY_DATA", str(tmp_path / "chosen"))
    assert data_folder("~/mine") == tmp_path / "mine"
    assert data_folder() == tmp_path / "chosen"
    monkeypatch.delenv("GENREPLAY_DATA")
    assert data_folder() == tmp_path / "xdg" / "genreplay"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder() == tmp_path / ".cache" / "genreplay"


def test_who_has_no_home_has_a_folder_among_the_temporary_files(monkeypatch):
    monkeypatch.delenv("GENREPLAY_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert data_folder() == Path(tempfile.gettempdir(), "genreplay")


def test_the_variable_is_what_load_reads(tmp_path, monkeypatch, network):
    expected, files = small_set("fashion")
    publish("fashion", files, monkeypatch)
    store("fashion", files, tmp_path)
    monkeypatch.setenv("GENREPLAY_DATA", str(tmp_path))
    assert_equal(load("fashion"), expected)


@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_a_single_flipped_bit_in_an_image_is_noticed(name, tmp_path, monkeypatch, network):
    _, files = small_set(name)
    publish(name, files, monkeypatch)
    images = SOURCES[name].files[0]
    body = bytearray(files[images])
    body[-1] ^= 1
    store(name, {**files, images: bytes(body)}, tmp_path)
    with pytest.raises(ValueError, match=f"{images} isn't as it was published, by its md5"):
        load(name, tmp_path)
