"""Streams against matrices and orders written by hand, all ways to give examples, all refusals."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import replace
from itertools import product

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from genreplay_core.data import (
    FORBIDDEN,
    SCENARIOS,
    Examples,
    as_float,
    domains,
    gather,
    held_out,
    identity,
    jitter,
    labelled,
    legend_for,
    permuted,
    repeated,
    rotated,
    split,
)
from genreplay_core.nets import cross_entropy

CLASSES = 6


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def examples(rows=18, shape=(1, 4, 4), classes=CLASSES, seed=0):
    """Random bytes as images, the classes in turn as labels."""
    x = (255 * draw(rows, *shape, seed=seed)).round().byte()
    return Examples(x, torch.arange(rows) % classes)


def pair(**changes):
    return examples(**changes), examples(rows=12, **{"seed": 1, **changes})


def same(a, b):
    return torch.equal(a.x, b.x) and torch.equal(a.y, b.y)


@contextlib.contextmanager
def refusal(match):
    """Inside, a ValueError of one line that matches is raised."""
    with pytest.raises(ValueError, match=match) as error:
        yield
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- legends

F = FORBIDDEN
EYE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
LEGENDS = [
    ("class", 2, 2, EYE, [[0, 0, 0, 0]] * 4),
    ("task", 2, 2, EYE, [[0, 0, F, F], [0, 0, F, F], [F, F, 0, 0], [F, F, 0, 0]]),
    ("domain", 2, 2, [[1, 0], [0, 1], [1, 0], [0, 1]], [[0, 0]] * 4),
    ("class", 2, 1, [[1, 0], [0, 1]], [[0, 0], [0, 0]]),
    ("task", 2, 1, [[1, 0], [0, 1]], [[0, F], [F, 0]]),
    ("domain", 2, 1, [[1], [1]], [[0], [0]]),
]


@pytest.mark.parametrize(("scenario", "tasks", "classes", "target", "mask"), LEGENDS)
def test_legend_is_the_one_written_by_hand(scenario, tasks, classes, target, mask):
    legend = legend_for(scenario, tasks, classes)
    assert legend.target.tolist() == target
    assert legend.mask.tolist() == mask
    assert (legend.codes, legend.outputs) == (len(target), len(target[0]))


def test_one_task_is_the_same_in_every_scenario():
    for scenario in SCENARIOS:
        legend = legend_for(scenario, 1, 4)
        assert torch.equal(legend.target, identity(4).target)
        assert torch.equal(legend.mask, identity(4).mask)


def test_an_unknown_scenario_is_refused():
    with refusal("unknown scenario 'lifelong': choose one of task, domain, class"):
        legend_for("lifelong", 2, 2)


def test_labelled_rows_hold_what_the_legend_says_of_their_codes():
    rows = labelled(Examples(draw(2, 3), torch.tensor([3, 0])), legend_for("task", 2, 2))
    assert rows.y.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]
    assert rows.mask.tolist() == [[F, F, 0, 0], [0, 0, F, F]]
    assert rows.code.tolist() == [3, 0]
    assert rows.temperature.tolist() == [[1], [1]]


@pytest.mark.parametrize("temperature", [None, torch.full((2, 1), 3.0)])
def test_masked_outputs_get_exactly_no_gradient(temperature):
    rows = labelled(Examples(draw(2, 3), torch.tensor([3, 0])), legend_for("task", 2, 2))
    outputs = (10 * draw(2, 4)).requires_grad_()
    loss = cross_entropy(outputs, rows.y, rows.mask, temperature)
    loss.backward()
    assert loss.isfinite()
    assert torch.equal(outputs.grad != 0, rows.mask == 0)


# ---------------------------------------------------------------- split


def numbered(rows=18):
    """Images that tell their own row, so that none can get lost or be met twice unnoticed."""
    x = (torch.arange(rows) / rows).view(rows, 1, 1, 1).expand(rows, 1, 2, 2)
    return Examples(x, torch.arange(rows) * 5 % CLASSES)


@pytest.mark.parametrize("part", ["train", "test"])
def test_split_gives_every_class_once_in_the_order_asked_for(part):
    order, source = [2, 0, 5, 1, 4, 3], numbered()
    met = []
    for task in split((source, source), 3, "class", order=order):
        mine = getattr(task, part)
        rows = (mine.x[:, 0, 0, 0] * 18).round().long()
        label = source.y[rows]
        assert set(label.tolist()) == set(order[2 * task.id : 2 * task.id + 2])
        assert [order[code] for code in mine.y] == label.tolist()  # code = position in the order
        met += rows.tolist()
    assert sorted(met) == list(range(18))  # tasks are disjoint and complete


def test_jittered_images_are_shifted_by_so_many_pixels_at_most_each_way():
    torch.manual_seed(0)
    dot = torch.zeros(400, 2, 5, 7)
    dot[:, :, 2, 3] = torch.tensor([1.0, 0.5])
    shifted = jitter(dot, 2)
    assert shifted.shape == dot.shape
    assert torch.equal(shifted.sum((2, 3)), dot.sum((2, 3)))  # no dot falls off
    assert torch.equal(shifted[:, 1], shifted[:, 0] / 2)  # channels move together
    places, often = shifted[:, 0].nonzero()[:, 1:].unique(dim=0, return_counts=True)
    assert [tuple(p) for p in places.tolist()] == list(product(range(5), range(1, 6)))
    assert often.min() > 4  # of 16 on average


def test_jittered_images_lose_what_leaves_and_get_black_for_it():
    torch.manual_seed(0)
    sums = jitter(torch.ones(100, 1, 3, 3), 1).sum((1, 2, 3))
    assert set(sums.tolist()) == {4.0, 6.0, 9.0}


def test_jittering_by_no_pixels_changes_nothing():
    assert torch.equal(jitter(numbered().x, 0), numbered().x)


def test_split_names_a_task_by_its_classes():
    stream = split(pair(), 3, "class", order=[2, 0, 5, 1, 4, 3])
    assert stream.names == ("2 0", "5 1", "4 3")
    assert [task.name for task in stream] == list(stream.names)


def test_the_seed_alone_draws_the_order():
    def order(seed):
        return split(pair(), 6, "class", seed).names

    assert sorted(order(1)) == ["0", "1", "2", "3", "4", "5"]
    assert len({order(seed) for seed in range(8)}) > 4
    torch.manual_seed(0)
    first = order(1)
    torch.manual_seed(1)
    assert order(1) == first


@pytest.mark.parametrize(("scenario", "outputs"), [("class", 6), ("task", 6), ("domain", 2)])
def test_a_split_asks_for_the_outputs_of_its_scenario(scenario, outputs):
    assert split(pair(), 3, scenario).legend.outputs == outputs


@pytest.mark.parametrize("tasks", [4, 12, 0, -2])
def test_tasks_that_do_not_divide_the_classes_are_refused(tasks):
    with refusal(f"6 classes can't be cut into {tasks} equal tasks: choose a divisor"):
        split(pair(), tasks, "class")


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6], []])
def test_an_order_that_does_not_name_each_class_once_is_refused(order):
    with refusal(r"must name each of 0\.\.5 once, got \["):
        split(pair(), 2, "class", order=order)


# ---------------------------------------------------------------- held out


@pytest.mark.parametrize(("fraction", "kept"), [(0.2, 40), (1 / 3, 33), (0.01, 50), (0.5, 25)])
def test_what_is_held_out_and_what_is_left_are_all_examples_once(fraction, kept):
    whole = numbered(50)
    left, held = held_out(whole, fraction)
    assert (len(left), len(held)) == (kept, 50 - kept)
    rows = (50 * torch.cat([left.x, held.x])[:, 0, 0, 0]).round().long()
    assert rows.sort().values.tolist() == list(range(50))
    assert torch.equal(torch.cat([left.y, held.y]), whole.y[rows])  # images keep their labels


def test_what_is_held_out_is_drawn_at_random_and_always_the_same():
    whole = numbered(300)
    before = torch.random.get_rng_state()
    left, held = held_out(whole, 0.5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    assert all(same(*pair) for pair in zip(held_out(whole, 0.5), (left, held), strict=True))
    # a random half takes about as many from the first rows as from the last
    assert 40 < int((held.x[:, 0, 0, 0] < 0.5).sum()) < 110


# ---------------------------------------------------------------- permuted, rotated


def test_a_permutation_keeps_the_pixels_of_each_image_and_moves_them():
    source, stream = pair(), permuted(pair(), 4, "domain", seed=3)
    for task in list(stream)[1:]:
        new, old = task.train.x.flatten(1), as_float(source[0].x).flatten(1)
        assert torch.equal(new.sort(1).values, old.sort(1).values)
        assert (new != old).any(1).all()


def test_the_first_permutation_leaves_everything_in_place():
    source, first = pair(), permuted(pair(), 4, "domain", seed=3)[0]
    assert torch.equal(first.train.x, as_float(source[0].x))
    assert torch.equal(first.test.x, as_float(source[1].x))


def moves(stream, task, part):
    """Where each pixel of a task came from, read from an image whose pixels are numbered."""
    image = getattr(stream[task], part).x[0]
    return (image.flatten() * 16).round().int().tolist()


@pytest.fixture
def ramps():
    ramp = torch.arange(16).view(1, 1, 4, 4) / 16
    return Examples(ramp, torch.tensor([0])), Examples(ramp.clone(), torch.tensor([1]))


def test_a_permutation_is_one_for_training_and_test_and_for_equal_seeds(ramps):
    stream, again = permuted(ramps, 3, "domain", 5), permuted(ramps, 3, "domain", 5)
    assert moves(stream, 1, "train") == moves(stream, 1, "test") == moves(again, 1, "train")
    assert sorted(moves(stream, 1, "train")) == list(range(16))


def test_each_task_and_each_seed_has_a_permutation_of_its_own(ramps):
    found = {
        tuple(moves(permuted(ramps, 4, "domain", s), t, "train")) for s in (5, 6) for t in (1, 2, 3)
    }
    assert len(found) == 6


def test_the_second_of_two_half_turns_is_a_quarter_turn_anticlockwise():
    source, stream = pair(), rotated(pair(), 2, "domain", degrees=180)
    assert stream.names == ("0 degrees", "90 degrees")
    assert torch.equal(stream[0].test.x, as_float(source[1].x))
    quarter = as_float(source[1].x).rot90(1, (2, 3))
    torch.testing.assert_close(stream[1].test.x, quarter, atol=1e-5, rtol=0)


def test_rotated_pixels_stay_in_range_so_that_a_learner_takes_them():
    white = Examples(torch.ones(1, 1, 9, 9), torch.tensor([0]))
    for task in rotated((white, white), 40, "domain", degrees=360):
        gather(task.train)
        assert task.train.x[0, 0, 4, 4] == pytest.approx(1)  # the middle stays where it is


@pytest.mark.parametrize("transformed", [permuted, rotated])
def test_transformed_tasks_number_their_classes_one_task_after_the_other(transformed):
    source, stream = pair(), transformed(pair(), 3, "domain")
    for task in stream:
        assert torch.equal(task.train.y, source[0].y + task.id * CLASSES)
    assert stream.legend.outputs == CLASSES


@pytest.mark.parametrize("make", [permuted, rotated, lambda *_: domains({}, "domain")])
def test_a_stream_without_tasks_is_refused(make):
    with refusal("a stream needs at least one task"):
        make(pair(), 0, "domain")


# ---------------------------------------------------------------- domains


@pytest.mark.parametrize("first", [(1, 8, 8), (3, 6, 10)])
def test_domains_take_the_shape_of_the_first_and_stay_in_range(first):
    shapes = [first, (3, 16, 16), (1, 4, 4), (1, 8, 7), (3, 8, 8)]
    stream = domains({str(s): pair(shape=s) for s in shapes}, "domain")
    assert stream.shape == first
    for task in stream:
        assert task.name == str(shapes[task.id])
        for part in (task.train, task.test):
            assert part.x.shape[1:] == first
            gather(part)
        assert torch.equal(task.train.y, examples().y + task.id * CLASSES)


def plain(colour, side):
    """One image in one colour, all over."""
    x = torch.tensor(colour).view(1, -1, 1, 1).expand(1, -1, side, side)
    return Examples(x, torch.tensor([0]))


@pytest.mark.parametrize("side", [4, 7])
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([0.5], [0.1, 0.2, 0.6], [0.3]),
        ([0.5, 0.5, 0.5], [0.7], [0.7, 0.7, 0.7]),
        ([0.5, 0.5, 0.5], [0.1, 0.2, 0.6], [0.1, 0.2, 0.6]),
    ],
)
def test_colours_are_averaged_and_grey_is_repeated(first, second, expected, side):
    parts = {"a": plain(first, 4), "b": plain(second, side)}
    stream = domains({name: (part, part) for name, part in parts.items()}, "domain")
    torch.testing.assert_close(stream[1].train.x, plain(expected, 4).x.contiguous())


def test_domains_are_made_of_whatever_gather_reads():
    train, test = pair()
    arrays = (train.x.numpy(), train.y.numpy()), (test.x, test.y)
    found, wanted = (domains({"a": first, "b": pair()}, "domain") for first in (arrays, pair()))
    assert same(found[0].train, wanted[0].train)
    assert same(found[0].test, wanted[0].test)


def test_domains_with_different_numbers_of_classes_are_refused():
    with refusal(r"have \[6, 4\] classes, expected the same"):
        domains({"a": pair(), "b": pair(classes=4)}, "domain")


# ---------------------------------------------------------------- laziness

STREAMS = {
    "split": lambda source: split(source, 3, "domain"),
    "permuted": lambda source: permuted(source, 100, "domain"),
    "rotated": lambda source: rotated(source, 5, "domain"),
    "domains": lambda source: domains({"a": source, "b": pair(shape=(3, 5, 5))}, "domain"),
}


@pytest.fixture(params=STREAMS)
def make(request):
    return STREAMS[request.param]


def test_a_task_is_built_when_asked_for_and_not_before(make):
    source = pair()
    stream = make(source)
    tasks = list(stream)
    source[0].x.zero_()  # a copy made before now would still hold the images
    assert tasks[0].train.x.count_nonzero() == 0


def test_walking_a_stream_builds_nothing(make):
    calls = []
    stream = replace(make(pair()), build=lambda *what: calls.append(what))
    tasks = list(stream)
    assert calls == []
    _ = tasks[-1].test, tasks[0].train
    assert calls == [(len(stream) - 1, 1), (0, 0)]


def test_a_stream_needs_the_memory_of_one_task(make):
    met = []
    for task in make(pair()):
        assert not any(x() is not None for x in met)
        met.append(weakref.ref(task.train.x))


def test_building_a_task_again_gives_the_same_bits(make):
    task = make(pair())[1]
    assert same(task.train, task.train)
    assert same(task.test, make(pair())[1].test)


def test_a_stream_can_be_walked_indexed_and_counted(make):
    stream = make(pair())
    assert [task.id for task in stream] == list(range(len(stream)))
    assert stream[-1].id == len(stream) - 1
    with pytest.raises(IndexError):
        stream[len(stream)]


def test_a_stream_leaves_its_source_alone(make):
    source = pair()
    for task in make(source):
        _ = task.train, task.test
    assert all(same(a, b) for a, b in zip(source, pair(), strict=True))


# ---------------------------------------------------------------- what a learner is given


class Photos(Dataset):
    """A data set in the manner of torchvision: PIL images and whole numbers."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, row):
        image = self.source.x[row].permute(1, 2, 0).squeeze(2).numpy()
        return Image.fromarray(image), int(self.source.y[row])


SOURCES = {
    "Examples": lambda e: e,
    "pair of tensors": lambda e: (e.x, e.y),
    "pair of arrays": lambda e: (e.x.numpy(), e.y.numpy()),
    "float pixels": lambda e: (as_float(e.x), e.y),
    "long float pixels": lambda e: (e.x.numpy() / 255.0, e.y.numpy()),
    "short labels": lambda e: (e.x, e.y.to(torch.int16)),
    "PIL images": Photos,
    "TensorDataset": lambda e: TensorDataset(e.x, e.y),
    "DataLoader": lambda e: DataLoader(TensorDataset(e.x, e.y), batch_size=5),
    "list of batches": lambda e: [(e.x[:7], e.y[:7]), (e.x[7:], e.y[7:])],
    "generator of batches": lambda e: ((e[i : i + 4].x, e[i : i + 4].y) for i in range(0, 18, 4)),
    "arrays": lambda e: [(e.x.numpy(), e.y.numpy())],
}


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 6)])
@pytest.mark.parametrize("source", SOURCES)
def test_examples_are_the_same_whichever_way_they_are_given(source, shape):
    wanted = examples(shape=shape)
    found = gather(SOURCES[source](wanted))
    assert found.y.dtype == torch.int64
    assert found.x.dtype in (torch.uint8, torch.float32)
    assert same(found.to("cpu"), wanted.to("cpu"))


def test_bytes_become_numbers_from_0_to_1():
    assert as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx(
        [0, 0.2, 1]
    )


def pixels(value):
    x = torch.full((3, 1, 2, 2), 0.5)
    x[1, 0, 1, 0] = value
    return x


GREY, LABELS = pixels(0.5), torch.tensor([0, 2, 1])
BAD = {
    "no row": (GREY[:0], LABELS[:0], "the task is empty"),
    "no pixel": (GREY[:, :0], LABELS, "the task is empty"),
    "nan": (pixels(float("nan")), LABELS, "images contain nan or infinity"),
    "infinity": (pixels(float("inf")), LABELS, "images contain nan or infinity"),
    "above 1": (pixels(1.5), LABELS, r"pixels lie in \[0.5, 1.5\], expected \[0, 1\]"),
    "below 0": (pixels(-0.1), LABELS, r"pixels lie in \[-0.1, 0.5\], expected \[0, 1\]"),
    "bytes as floats": (255 * GREY, LABELS, "divide bytes by 255"),
    "float labels": (GREY, LABELS.float(), r"labels are torch.float32, expected integers"),
    "truth values": (GREY, LABELS > 0, "labels are torch.bool, expected integers"),
    "negative label": (GREY, LABELS - 1, "label -1 is out of range: labels start at 0"),
    "too few labels": (GREY, LABELS[:2], r"labels have shape \(2,\), expected \(3,\)"),
    "one-hot labels": (GREY, torch.eye(3).long(), r"labels have shape \(3, 3\), expected \(3,\)"),
}
WAYS = {
    "Examples": Examples,
    "pair": lambda x, y: (x, y),
    "batches": lambda x, y: [(x, y)],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", BAD)
def test_bad_examples_are_refused_in_one_line(bad, way):
    x, y, match = BAD[bad]
    with refusal(match):
        gather(WAYS[way](x, y))


def test_float_labels_of_a_data_set_are_refused_not_rounded():
    with refusal("labels are torch.float32, expected integers"):
        gather(TensorDataset(GREY, LABELS + 0.5))


UNREADABLE = {
    "a pair as a list": lambda: [GREY, LABELS],
    "a list of two": lambda: [GREY[:2], LABELS[:2]],
    "batches of three": lambda: [(GREY, LABELS, LABELS)],
    "batches with names": lambda: [{"x": GREY, "y": LABELS}],
    "nothing": lambda: None,
    "images alone": lambda: GREY,
    "a name": lambda: "mnist",
    "two sizes": lambda: [(GREY, LABELS), (GREY[..., :1], LABELS)],
}


@pytest.mark.parametrize("source", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_source_is_refused_in_one_line(source):
    with refusal(r"give \(x, y\), or batches of such pairs: "):
        gather(source())


@pytest.mark.parametrize("kind", [torch.uint16, torch.int32])
def test_whole_numbers_that_are_no_bytes_are_read_as_pixels_in_0_to_1(kind):
    with refusal(r"pixels lie in \[0, 255\]"):
        gather((torch.tensor([[0], [255]]).to(kind), torch.tensor([0, 1]).to(kind)))


def test_a_stream_is_made_of_whatever_gather_reads():
    (x, y), (u, v) = ((part.x, part.y) for part in (examples(), examples()))
    wanted = split((Examples(x, y), Examples(u, v)), 2, "class")
    found = split(((x.numpy(), y.numpy()), [(u, v)]), 2, "class")
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.equal(mine.train.x, theirs.train.x)
        assert torch.equal(mine.test.y, theirs.test.y)


@pytest.mark.parametrize("nothing", [[], iter([]), DataLoader([])])
def test_a_source_without_batches_is_refused(nothing):
    with refusal("the task is empty: give at least one batch"):
        gather(nothing)


@pytest.mark.parametrize("make", [STREAMS[name] for name in ("split", "permuted", "rotated")])
@pytest.mark.parametrize("part", [0, 1])
def test_a_stream_refuses_a_bad_source_when_it_is_made(make, part):
    source = [examples(), examples()]
    source[part] = Examples(source[part].x.float(), source[part].y)
    with refusal("divide bytes by 255"):
        make(tuple(source))


def test_a_repeated_stream_is_the_same_task_again_and_again():
    x, y = torch.rand(12, 1, 4, 4), torch.arange(12) % 3
    stream = repeated((Examples(x, y), Examples(x[:3], y[:3])), 4, "domain")
    assert stream.names[-1] == "generation 4"
    assert all(torch.equal(task.train.x, x) for task in stream)
    assert [int(task.test.y.min()) for task in stream] == [0, 3, 6, 9]
