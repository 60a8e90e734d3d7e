"""What `book.check` knows of the book's exercises: of each answer, whether it is right, or a hint.

An exercise is a function from an answer to the hint that this answer calls for, or to None if it
is right; `EXERCISES` has them by name. To add one, add a line there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

Exercise = Callable[[Any], str | None]


# ---------------------------------------------------------------- kinds of exercises


def number(
    right: float, hint: str, within: float = 1e-3, traps: Mapping[float, str] | None = None
) -> Exercise:
    """A number, right to within a part of itself. traps: wrong numbers -> hints of their own."""

    def wrong(answer: Any) -> str | None:
        try:
            given = float(answer)
        except (TypeError, ValueError):
            return "a number is wanted"
        for value, own in {right: None, **(traps or {})}.items():
            if abs(given - value) <= within * max(abs(value), 1e-9):
                return own
        return hint

    return wrong


def choice(right: str, others: Mapping[str, str]) -> Exercise:
    """One of some words. others: the wrong ones -> hints."""

    def wrong(answer: Any) -> str | None:
        if answer == right:
            return None
        words = ", ".join(repr(word) for word in sorted({right, *others}))
        return others.get(answer, f"choose one of {words}")

    return wrong


def function(like: Callable[..., Any], cases: Sequence[tuple], hint: str) -> Exercise:
    """A function that returns what `like` returns, to within rounding."""

    def wrong(answer: Any) -> str | None:
        if not callable(answer):
            return "a function is wanted: give its name, without calling it"
        for case in cases:
            wanted, found = (np.asarray(f(*case), dtype=np.float64) for f in (like, answer))
            if wanted.shape != found.shape:
                return f"it returns something of shape {found.shape}, expected {wanted.shape}"
            if not np.allclose(wanted, found, rtol=1e-4, atol=1e-6):
                return hint
        return None

    return wrong


# ---------------------------------------------------------------- the exercises

ONES, TWOS = np.ones((2, 2)), np.array([[2.0, 2.0], [2.0, 2.0 + 1e-6]])
LOW = np.array([[0.0, 1.0, -1.0], [0.5, 0.0, 0.0]])
HIGH = np.array([[4.0, 2.0, 0.0], [-3.0, 1.0, 5.0]])


def euler(x: Any, velocity: Callable[..., Any], steps: int) -> Any:
    """Where x is carried from t = 0 to 1."""
    for k in range(steps):
        x = x + velocity(x, k / steps) / steps
    return x


EXERCISES: dict[str, Exercise] = {
    "forgetting-1": number(
        1 / 10,
        "one task of ten is known, and nothing of the others",
        traps={1 / 5: "that is the stream of five tasks; ten of one class were asked for"},
    ),
    "forgetting-2": function(
        lambda curve: max(curve) - curve[-1],
        [([0.0, 0.9, 0.4],), ([0.2, 0.3, 0.8],), ([0.9, 0.7, 0.8, 0.1],)],
        "take the best that was ever reached, and the last",
    ),
    "forgetting-3": choice(
        "more",
        {
            "fewer": "try it: random features are better than one thinks",
            "about as many": "run the cell of the probe on both, and compare",
        },
    ),
    "scenarios-1": number(
        0.98 - 4 / 5 * 0.9,
        "average accuracy is learning accuracy plus the part that backward transfer has in it",
        traps={
            0.98 - 0.9: "the last task counts in one average and not in the other",
            0.98 + 4 / 5 * 0.9: "backward transfer is negative: something was lost",
        },
    ),
    "scenarios-2": choice(
        "it never learned",
        {
            "it forgot": "then forgetting would be near 1",
            "it works": "one fifth of all images, of five tasks: what is missing?",
        },
    ),
    "scenarios-3": function(
        lambda R: np.diag(np.asarray(R)[1:]).mean(),
        [
            ([[0.5], [0.9]],),
            ([[0.1, 0.2], [0.9, 0.3], [0.4, 0.8]],),
            (np.arange(12).reshape(4, 3),),
        ],
        "task j right after it was learned: leave out the untrained row, then take the diagonal",
    ),
    "rehearsal-1": number(
        20 * 100 * 64 * 64 * 3 / 1e6,
        "images times pixels times colours, then bytes as millions",
        traps={
            20 * 100 * 64 * 64 / 1e6: "a pixel has three colours, each a byte",
            20 * 64 * 64 * 3 / 1e6: "that is one class",
        },
    ),
    "rehearsal-2": choice(
        "from the buffer only",
        {"everywhere": "what was the network trained with?"},
    ),
    "rehearsal-3": function(
        lambda seen, size, draw: seen if seen < size else (draw if draw < size else -1),
        [(0, 3, 0), (2, 3, 0), (3, 3, 3), (3, 3, 2), (10, 4, 0), (10, 4, 4), (10, 4, 9)],
        "the first `size` images fill the places in turn; then only a draw below `size` is a place",
    ),
    "a-vae-1": number(
        0.5 * (0.25 + 4 - 1 - np.log(0.25)),
        "the formula wants the variance, 0.5 squared, and its logarithm",
        traps={
            0.5 * (0.5 + 4 - 1 - np.log(0.5)): "0.5 is the standard deviation, not the variance",
            0.5 * (4 + 16 - 1 + np.log(0.25)): "that is the divergence the other way round",
        },
    ),
    "a-vae-2": function(
        lambda mean, logvar, noise: mean + np.exp(0.5 * logvar) * noise,
        [(ONES, 0 * ONES, ONES), (ONES, TWOS, -ONES), (TWOS, -ONES, TWOS)],
        "the standard deviation is the square root of the variance",
    ),
    "a-vae-3": choice(
        "more alike",
        {
            "more varied": "compare the variance over dreams: less noise went in",
            "as varied": "look at a few dozen: which kinds of digit have become rare?",
        },
    ),
    "good-dreams-1": number(
        10.0,
        "the squared difference of the means, and then the three terms with variances",
        traps={
            14.0: "the last term is missing: twice the product of the standard deviations",
            18.0: "the variances are 1 and 4, but what is compared are standard deviations",
            6.0: "the difference of the means is squared",
        },
    ),
    "good-dreams-2": choice(
        "none",
        {
            "frechet": "the two clouds are of the same kind of image: where would they differ?",
            "precision": "each of these dreams is a real image",
            "recall": "all kinds of real images are among these dreams",
        },
    ),
    "good-dreams-3": function(
        lambda distance, reach: (np.asarray(distance) <= np.asarray(reach)).any(1).mean(),
        [
            ([[0.5, 3.0], [2.0, 2.0]], [1.0, 1.0]),
            ([[0.5, 2.0], [3.0, 3.0]], [0.1, 2.5]),
            ([[1.0, 9.0], [9.0, 1.0], [2.0, 2.0]], [1.0, 1.0]),
        ],
        "a row counts once, if it lies in any ball; each column has its own radius",
    ),
    "a-gan-1": number(
        1.2,
        "set the derivative of the penalty less the gap to 0",
        traps={
            1.0: "that is what the penalty asks for, but a little more slope widens the gap",
            1.4: "the derivative of a square has a factor of 2",
            0.8: "the critic wants the gap large, so it goes above 1",
        },
    ),
    "a-gan-2": function(
        lambda slopes: (np.linalg.norm(np.reshape(slopes, (len(slopes), -1)), axis=1) - 1) ** 2,
        [([[3.0, 4.0], [0.0, 1.0]],), (np.stack([ONES, TWOS]),), (TWOS.reshape(2, 1, 2, 1),)],
        "one length for each image: the root of the sum of all its squares, then less 1, squared",
    ),
    "a-gan-3": choice(
        "the batch",
        {"the point": "try it in training mode: what does batch norm subtract?"},
    ),
    "flow-matching-1": number(
        2.8,
        "first where the pixel is, then the way to the guess, divided by the time that is left",
        traps={
            3.0: "that is the velocity of this one path; the network knows neither noise nor image",
            2.85: "the network doesn't know where the path began, only where the pixel is",
            2.1: "the way is right; divide it by the time that is left",
            8.4: "three quarters of the time are left, not one quarter",
        },
    ),
    "flow-matching-2": function(
        euler,
        [
            (ONES, lambda x, t: 2 * x, 1),
            (ONES, lambda x, t: 2 * t + 0 * x, 4),
            (TWOS, lambda x, t: (1 - x) / (1 - t), 5),
        ],
        "each step asks for the velocity where it begins, in place and in time",
    ),
    "flow-matching-3": choice(
        "straighter",
        {
            "as bent": "compare the dreams of a single step with those of ten, before and after",
            "more bent": "each noise now belongs to one image: what is left to average?",
        },
    ),
    "generative-replay-1": number(
        3.0,
        "the dreams share 1 - r, the new images r, and both are as many",
        traps={0.75: "that is the part of all dreams together", 1 / 3: "the other way round"},
    ),
    "generative-replay-2": choice(
        "they follow the new network",
        {
            "nothing": "who labels the dreams, if the copy is renewed after each step?",
            "they get better": "better at what? They agree with the network that is forgetting",
        },
    ),
    "generative-replay-3": function(
        lambda t, new, dreams: [1 / t / new] * new + [(1 - 1 / t) / dreams] * dreams,
        [(1, 2, 3), (2, 4, 4), (5, 1, 3)],
        "the new rows share 1/t evenly, the dreams the rest",
    ),
    "four-mistakes-1": number(
        2 / 3,
        "count rows: for each new one there is half a dream",
        traps={0.1: "that is 1/t, which head count doesn't know", 0.5: "that is as many dreams"},
    ),
    "four-mistakes-2": choice(
        "drift",
        {
            "stay as they are": "what holds them, if they are only held against a step ago?",
            "get sharper": "nobody shows them a sharper image of the old tasks",
        },
    ),
    "four-mistakes-3": function(
        lambda before, after: int(all((a == b).all() for a, b in zip(before, after, strict=True))),
        [([ONES], [ONES]), ([ONES, TWOS], [ONES, 2 * ONES]), ([TWOS, ONES], [TWOS, ONES])],
        "every number of every array must be the very same",
    ),
    "the-paper-1": choice(
        "the inputs",
        {
            "the labels": "who labels the real past inputs in the paper?",
            "both": "who labels the real past inputs in the paper?",
        },
    ),
    "the-paper-2": number(
        1 / 16,
        "the first task's share is halved with every task that comes after it",
        traps={
            1 / 5: "that is what r = 1/t would give",
            1 / 8: "the dreams of four old tasks aren't alike: the generator halved them too",
            1 / 32: "in the first task there is nothing to share with",
        },
    ),
    "the-paper-3": function(
        lambda new_y, old_y, answers: np.concatenate([new_y, np.argmax(answers, 1)]),
        [
            (np.array([4, 7]), np.array([1, 0]), HIGH),
            (np.array([2]), np.array([2, 2]), LOW),
            (np.array([0, 1, 2]), np.array([0, 2]), -HIGH),
        ],
        "the old labels are bait: the past is what the old solver says of it",
    ),
    "labels-1": number(
        1 / (1 + np.exp(0.5)),
        "divide both outputs by 4, then take the softmax of the two",
        traps={
            1 / (1 + np.exp(2)): "that is at a temperature of 1",
            1 / (1 + np.exp(8)): "divide by the temperature: it makes the label flatter",
            1 / (1 + np.exp(-0.5)): "that is the probability of the 4",
            0.25 / (1 + np.exp(2)): "divide the outputs, not the probability",
        },
    ),
    "labels-2": choice(
        "less weight",
        {
            "more weight": "how long is the gradient of a dream's row without the factor?",
            "the same weight": "Adam rescales the sum of both parts, not each part by itself",
        },
    ),
    "labels-3": function(
        lambda new, old, temperature: (
            -(temperature**2)
            * (softmax(old / temperature, 1) * log_softmax(new / temperature, 1)).sum(1).mean()
        ),
        [(LOW, HIGH, 1.0), (HIGH, LOW, 2.0), (LOW, 3 * HIGH, 4.0)],
        "both are divided by T before the softmax, and the loss is multiplied by its square",
    ),
    "importance-1": number(
        1 - max(np.roots([1, 0, 0, 1, -1]).real),
        "the newest task weighs r, and the first keeps the part 1 - r in each task after it",
        traps={
            1 / 5: "with this the first has four fifths to the fourth, which is more than a fifth",
            1 - max(np.roots([1, 0, 0, 0, 1, -1]).real): "four tasks come after the first",
        },
    ),
    "importance-2": choice(
        "as large, but noisier",
        {
            "half as large": "the dreams weigh 1 - r together, however many they are",
            "the same": "how well do half as many dreams know the mean?",
        },
    ),
    "importance-3": function(
        lambda rows, r, new, old: rows * (1 - r) * old / (r * new + (1 - r) * old),
        [(256, 0.5, 1.0, 1.0), (300, 0.2, 2.0, 1.0), (128, 0.9, 1.0, 3.0)],
        "as r times the one spread is to 1 - r times the other, so are the new rows to the dreams",
    ),
    "the-generator-1": number(
        1000 * 12 / 42,
        "of each step take the solver's part off, then divide the one by the other",
        within=5e-3,
        traps={
            400: "the solver's part is in both: take it off first",
            1000 * 42 / 12: "the other one is slower, so it gets fewer steps",
        },
    ),
    "the-generator-2": choice(
        "the last",
        {
            "the first": "the second task rehearses them",
            "none": "which task would rehearse what is dreamt when the stream is over?",
        },
    ),
    "the-generator-3": function(
        lambda sizes: sum((i + 1) * o for i, o in pairwise(sizes)),
        [([3, 5],), ([784, 400, 400, 10],), ([110, 50, 50, 784],)],
        "for each layer, what goes in times what comes out, and a bias for each that comes out",
    ),
    "conditional-replay-1": number(
        0.2 * 0.9**4,
        "the share is multiplied anew in each generation",
        traps={
            0.2 * (1 - 4 * 0.1): "that takes off the same amount each time, not the same part",
            0.2 * 0.9**5: "count the generations that come after the first",
        },
    ),
    "conditional-replay-2": choice(
        "too high",
        {
            "right": "which of the thirty did you pick, and why was it ahead?",
            "too low": "you picked the luckiest of thirty, not the unluckiest",
        },
    ),
    "conditional-replay-3": function(
        lambda met, n: [c for i, c in enumerate(met) for _ in range((n - 1 - i) // len(met) + 1)],
        [([0, 1], 4), ([0, 1, 5], 7), ([3, 2, 8, 9], 3), ([4], 2)],
        "n divided by the number of classes for each, and one more for the first few",
    ),
    "privacy-1": number(
        8 / 9,
        "of the nine pairs, count those in which the patient's loss is lower",
        traps={
            1 / 9: "a low loss says patient, not stranger",
            2 / 3: "count pairs, not patients",
        },
    ),
    "privacy-2": choice(
        "held-out images",
        {
            "more dreams": "would a blurred copy ever be found, however many there are?",
            "a smaller tolerance": "then still fewer dreams count as copies",
        },
    ),
    "privacy-3": function(
        lambda members, strangers: (members < strangers.min()).mean(),
        [(LOW[0], HIGH[0]), (LOW[1], HIGH[1]), (HIGH[0], LOW[0]), (LOW[0] - 5, LOW[1])],
        "the strangers' lowest loss is the threshold; which share of the members lies below it?",
    ),
    "many-tasks-1": number(
        4 * (400 + 2 * 100) / 784,
        "count the weights of one input to 400 units, and the numbers of one prior of 100",
        traps={
            4 * 400 / 784: "the class has a prior of its own too",
            4 * 500 / 784: "a Gaussian has a mean and a variance in each direction",
            600 / 784: "a number takes four bytes, a pixel one",
        },
    ),
    "many-tasks-2": choice(
        "not at all",
        {
            "a little": "the copy makes the very image that it's asked for: what is the gradient?",
            "as in any task": "which image does a copy of the teacher make of the same noise?",
        },
    ),
    "many-tasks-3": function(
        lambda start, flow, generations: start @ np.linalg.matrix_power(flow, generations),
        [
            (np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.0, 1.0]]), 3),
            (np.array([1.0, 0.0, 0.0]), np.array([[0.8, 0.2, 0], [0, 0.7, 0.3], [0.5, 0, 0.5]]), 2),
            (np.array([0.3, 0.7]), np.array([[0.9, 0.1], [0.2, 0.8]]), 0),
        ],
        "the shares, as a row, are multiplied by the table once for each generation",
    ),
    "memory-1": number(
        2e6 / 3072,
        "count bytes on both sides",
        traps={
            4e6 / 3072: "half precision is two bytes a weight",
            2e6 / 1024: "three colours, a byte each",
            1e6 / 3072: "a weight in half precision takes two bytes",
        },
    ),
    "memory-2": choice(
        "the frozen solver",
        {
            "the frozen generator": "who dreams, then?",
            "both": "who dreams, then?",
            "neither": "who labels the dreams, and does it take a network?",
        },
    ),
    "memory-3": function(
        lambda weights, bits, image, classes: int(weights * bits / 8 // image // classes),
        [(1_000_000, 32, 784, 10), (1_075_784, 8, 191, 10), (500, 16, 100, 3), (999, 4, 50, 1)],
        "the weights' bytes, then how many whole images they are for each class",
    ),
    "beyond-mnist-1": number(
        2 / 3,
        "the last swap is that of real images for dreams; what does it cost, of all that was lost?",
        traps={
            10 / 12: "the order of the tasks costs something too",
            10.0: "that's in points; a part of the gap is wanted",
            1 / 3: "that is the part that comes with the order and the labels",
        },
    ),
    "beyond-mnist-2": choice(
        "variety",
        {
            "labels": "who labels on either side of the swap?",
            "solver": "is it another one on the other side of the swap?",
        },
    ),
    "beyond-mnist-3": function(
        lambda shares: np.triu(shares, 1).sum() / len(shares),
        [
            (np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.0, 0.1, 0.9]]),),
            (np.array([[0.0, 1.0], [0.0, 1.0]]),),
            (np.eye(3),),
        ],
        "add up what stands to the right of the diagonal; each row sums to one",
    ),
    "no-boundaries-1": number(
        0.8**3,
        "each freezing leaves the old a part of what it had",
        traps={
            0.2**3: "that is the weight of the new: the old keeps the rest",
            1 - 3 * 0.2: "that takes off the same amount each time, not the same part",
            0.2 * 0.8**3: "all the dreams were of that task, not a fifth of them",
        },
    ),
    "no-boundaries-2": choice(
        "the first",
        {
            "the second": "what does it know when its clock strikes in the midst of the second?",
            "the last": "does anything come after the last?",
            "none": "at each stroke, how long has it learned something else without a dream?",
        },
    ),
    "no-boundaries-3": function(
        lambda losses, jump: [
            i for i in range(10, len(losses)) if losses[i] > jump * np.mean(losses[i - 10 : i])
        ],
        [
            ([2.0] * 5 + [0.5] * 10 + [2.0, 1.5] + [0.4] * 12, 2.0),
            ([9.0] + [1.0] * 12 + [1.6] * 3, 1.5),
            ([1 + 0.01 * i for i in range(40)], 1.2),
            ([1.0] * 4, 2.0),
        ],
        "compare each loss, from the eleventh on, with the mean of the ten just before it",
    ),
    "your-own-1": number(
        7,
        "count the classes of all tasks before it, then go on from there",
        traps={
            11: "that counts tasks and classes from 1",
            4: "that is class 1 of task 1",
            9: "multiply by the classes of a task, not by the tasks of the stream",
        },
    ),
    "your-own-2": choice(
        "normalise inside the solver",
        {
            "rescale to [0, 1] and hope": "the pretrained layers expect what they were trained on",
            "normalise the dreams too": "the generator's images must stay in [0, 1], as the data",
        },
    ),
    "your-own-3": function(
        lambda sizes, t: sizes[t - 1] / sum(sizes[:t]),
        [([3], 1), ([2, 2, 2], 3), ([5, 1, 4], 2), ([1, 2, 7], 2)],
        "divide the classes that are new by all that were met, the new ones included",
    ),
}


def verdict(name: str, answer: Any) -> str:
    """Right, or a hint.

    Raises:
        ValueError: there is no such exercise.
    """
    if name not in EXERCISES:
        raise ValueError(f"there is no exercise '{name}'")
    if answer is ...:
        return "No answer yet: put yours in place of the three dots, and run the cell again."
    try:
        hint = EXERCISES[name](answer)
    except Exception as error:  # the reader's own code may do anything
        hint = f"your code stops with {type(error).__name__}: {error}"
    return "Right." if hint is None else f"Not yet: {hint}."
