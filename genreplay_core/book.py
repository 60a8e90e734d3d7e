"""What the book's notebooks share: where they run, what was found before, how to say and show it.

    from genreplay_core import book
    here = book.start("labels")                 # device, profile, expected minutes
    steps = here.pick(ci=40, laptop=500)        # how much this machine computes
    found = book.stored("labels")               # a result in book/results
    book.say("{n} runs are finished.", n=found["finished"])
    book.compare(record, "labels", "plain, hard")
    book.claim("soft-labels-help")              # what was found, and the test that holds it
    book.check("labels-1", answer)              # an exercise

No number is typed into the book's text: a sentence with a number in it is said by a cell.
"""

from __future__ import annotations

import base64
import inspect
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from matplotlib.figure import Figure

from . import claims, exercises
from .metrics import interval, next_value
from .nets import pick_device
from .plots import DPI

T = TypeVar("T")

PROFILES = ("ci", "laptop", "gpu")


# ---------------------------------------------------------------- where it runs


@dataclass(frozen=True)
class Chapter:
    """A notebook, and how much it computes here."""

    name: str
    profile: str

    def pick(self, ci: T, laptop: T, gpu: T | None = None) -> T:
        """The value for this profile; a GPU takes the laptop's where it has none of its own."""
        return {"ci": ci, "laptop": laptop, "gpu": laptop if gpu is None else gpu}[self.profile]

    @property
    def dataset(self) -> str:
        """MNIST; in CI, which has no network, scikit-learn's digits."""
        return self.pick(ci="digits", laptop="mnist")


def profile() -> str:
    """How much a notebook computes: "ci" (seconds), "laptop" (minutes) or "gpu" (the full recipe).

    The environment variable GENREPLAY_PROFILE says it; else it is "gpu" where there is one.

    Raises:
        ValueError: the variable names no profile.
    """
    usual = "gpu" if pick_device().type == "cuda" else "laptop"
    chosen = os.environ.get("GENREPLAY_PROFILE") or usual
    if chosen not in PROFILES:
        raise ValueError(f"GENREPLAY_PROFILE is '{chosen}': choose one of {', '.join(PROFILES)}")
    return chosen


def start(name: str) -> Chapter:
    """Say where the notebook `name` runs and how long it will take; return the chapter."""
    device, chapter = pick_device(), Chapter(name, profile())
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    count = torch.get_num_threads()
    threads = f", {count} thread{'s' * (count > 1)}" if device.type == "cpu" else ""
    print(f"device: {what}{threads}; profile: {chapter.profile}; torch {torch.__version__}")
    print(_expected(chapter))
    return chapter


def _expected(chapter: Chapter) -> str:
    """How long it took where the book was made."""
    times = stored("times")["seconds"].get(chapter.profile, {})
    if chapter.name not in times:
        return "how long this takes with this profile hasn't been measured yet"
    minutes = max(1, round(times[chapter.name] / 60))
    unit = "minute" if minutes == 1 else "minutes"
    return f"about {minutes} {unit} on the book's machine ({stored('times')['machine']})"


# ---------------------------------------------------------------- what was found before


def stored(name: str) -> dict[str, Any]:
    """The result called `name`: in the book's folder of a checkout, else as it was installed.

    Raises:
        ValueError: there is no such result.
    """
    path = claims.place(f"results/{name}.json")
    if path is None:
        raise ValueError(f"there is no stored result '{name}': see book/results for what there is")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def row(study: str, name: str) -> dict[str, Any]:
    """A row of a stored result.

    Raises:
        ValueError: there is no such result, or no such row in it.
    """
    return claims.row(stored(study), name)


def compare(record: Mapping[str, Any], study: str, name: str) -> None:
    """Hold a run's average accuracy against the book's runs of the same kind.

    With 95 % probability a further run of the same recipe lies in the interval that is said. It is
    wider than the interval of the mean, since a single run has luck of its own.

    Args:
        record: what `run` returned.
        study, name: a stored result and one of its rows.
    """
    found = row(study, name)
    values = [run["average_accuracy"] for run in found["runs"] if "failed" not in run]
    mine = json.loads(json.dumps(record["config"]))
    other = sorted(key for key, value in found["config"].items() if mine[key] != value)
    ours, mean = record["average_accuracy"], sum(values) / len(values)
    said = f"Yours: **{100 * ours:.1f} %**. The book's mean: {100 * mean:.1f} %, {len(values)} runs"
    say(f"{said}; {_verdict(ours, values, other)}")


def _verdict(ours: float, values: Sequence[float], other: Sequence[str]) -> str:
    """Whether a run lies where the book's runs say; other: in which options it differs."""
    if other:
        return f"your recipe isn't the book's (it differs in {', '.join(other)}), so no verdict."
    if len(values) == 1:
        return "one run doesn't say how far a further one may lie, so no verdict."
    low, high = next_value(values)
    lies = "inside" if low <= ours <= high else "**outside**"
    where = f"between {100 * low:.1f} and {100 * high:.1f} % (95 %)"
    return f"a further run should lie {where}: yours lies {lies}."


def claim(name: str) -> None:
    """Show one of the book's claims, what was found, and how to find it again.

    Raises:
        ValueError: there is no such claim.
    """
    found = claims.shipped()
    if name not in found:
        raise ValueError(f"there is no claim '{name}': see book/claims.toml")
    say("{told}", told=found[name].told(stored))


def check(name: str, answer: Any) -> None:
    """Say whether an exercise is solved, or give a hint.

    Args:
        name: of the exercise. answer: a number, a word or a function; `...` before you have one.
    """
    print(exercises.verdict(name, answer))


# ---------------------------------------------------------------- saying and showing


def say(text: str, **values: object) -> None:
    """Show Markdown with values in it, as `str.format` puts them there."""
    from IPython.display import Markdown, display  # a notebook has it, the library needs none

    display(Markdown(text.format(**values)))


def told(values: Iterable[float], spec: str = ".1f") -> str:
    """What a table's cell says of a row: mean, 95 % interval, and of how many seeds.

    Args:
        values: one a seed; there may be none yet. spec: how a number is written.
    """
    known = list(values)
    return f"{interval(known):{spec}}, {len(known)}" if known else "not yet run"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> None:
    """Show a table. left: how many of its columns stand at the left; the others hold numbers."""
    rule = ["---"] * left + ["---:"] * (len(heads) - left)
    lines = ["| " + " | ".join(map(str, line)) + " |" for line in (heads, rule, *rows)]
    say("{table}", table="\n".join(lines))


def show(*things: Any) -> None:
    """Show the source of functions or classes of the core."""
    for thing in things:
        place = f"{thing.__module__.replace('.', '/')}.py"
        say("```python\n# {place}\n{source}```", place=place, source=inspect.getsource(thing))


def picture(figure: Figure, alt: str) -> None:
    """Show a figure. alt: what it shows, for those who can't see it."""
    from IPython.display import display

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    data = {"image/png": base64.b64encode(drawn.getvalue()).decode(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})


def diagram(name: str, alt: str) -> None:
    """Show a drawing of the book. alt: what it shows, for those who can't see it.

    Raises:
        ValueError: there is no such drawing.
    """
    from IPython.display import display

    path = claims.place(f"diagrams/{name}.svg")
    if path is None:
        raise ValueError(f"there is no drawing '{name}': see book/diagrams for what there is")
    data = {"image/svg+xml": path.read_text(encoding="utf-8"), "text/plain": alt}
    display(data, raw=True, metadata={"image/svg+xml": {"alt": alt}})
