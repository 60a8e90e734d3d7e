"""The book's claims: each a sentence, the stored results that it rests on, and its test.

    [soft-labels-help]
    says = "Soft labels keep more than hard ones."
    more = ["labels", "plain, soft, T = 2"]     # a study and one of its rows
    less = ["labels", "plain, hard"]            # the same seeds, subtracted seed by seed
    measure = "average_accuracy"                # what is compared; this one, if nothing is said
    above = 1.0                                 # the whole 95 % interval must lie above this
    below = 20.0                                # and below this, if it is said

Accuracies and what is made of them are counted in percent, their differences in percentage points.
Without `less`, the claim is about `more` alone. `live = {steps = 100}` has the tests learn both
rows once more, in small, on scikit-learn's digits, with these changes; there the mean must lie
above `live_above`.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import reduce
from pathlib import Path
from typing import Any

from .metrics import Interval, interval

Result = dict[str, Any]  # of a study, as its file holds it
Place = tuple[str, str]  # a study and one of its rows

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Claim:
    """A claim as it was declared; see the module."""

    name: str
    says: str
    more: Place
    less: Place | None = None
    measure: str = "average_accuracy"
    above: float = -math.inf
    below: float = math.inf
    live: dict[str, Any] | None = field(default=None, hash=False)
    live_above: float = 0.0

    @property
    def places(self) -> list[Place]:
        """The rows that it rests on."""
        return [self.more] if self.less is None else [self.more, self.less]

    def values(self, stored: Callable[[str], Result]) -> list[float]:
        """What is claimed to lie in an interval, for each seed.

        Args:
            stored: gives the result of a study.

        Raises:
            ValueError: no such row, or no seed with which all rows were run.
        """
        more, *less = (row(stored(study), name) for study, name in self.places)
        alone = sorted(by_seed(more, self.measure).items())
        found = gained(less[0], more, self.measure) if less else [value for _, value in alone]
        if not found:
            raise ValueError(f"claim '{self.name}': no seed is finished in all of its rows")
        return found

    def holds(self, found: Interval) -> bool:
        """Does the whole interval lie where it should? One seed is never enough."""
        return self.above < found.low and found.high < self.below

    def told(self, stored: Callable[[str], Result]) -> str:
        """The claim with what was found, as Markdown.

        Raises:
            ValueError: as `values`.
        """
        values = self.values(stored)
        found = interval(values)
        rows = " minus ".join(f"*{name}*" for _, name in self.places)
        studies = dict.fromkeys(study for study, _ in self.places)
        again = ", ".join(f"`{stored(study)['command']}`" for study in studies)
        return (
            f"> **Claim.** {self.says}\n>\n"
            f"> {rows}: **{found.mean:.1f} {self.unit}**, 95 % interval {found.low:.1f} to "
            f"{found.high:.1f}, {len(values)} seeds. The tests want the whole interval "
            f"{self.wanted}. To see for yourself: {again}."
        )

    @property
    def unit(self) -> str:
        """Of what is claimed."""
        return "%" if self.less is None else "points"

    @property
    def wanted(self) -> str:
        """Where the interval has to lie, in words."""
        limits = {"above": self.above, "below": self.below}
        told = [f"{side} {at} {self.unit}" for side, at in limits.items() if math.isfinite(at)]
        return " and ".join(told)


def shipped() -> dict[str, Claim]:
    """The book's own claims, by name.

    Raises:
        ValueError, OSError: as `read`.
    """
    return read(place("claims.toml") or HERE / "claims.toml")


def place(name: str) -> Path | None:
    """A file of the book: of a checkout, else as it was installed; None if it is in neither."""
    there = (root / name for root in (HERE.parent / "book", HERE))
    return next((path for path in there if path.is_file()), None)


def read(path: str | Path) -> dict[str, Claim]:
    """The claims that a file declares, by name.

    Raises:
        ValueError: no TOML; a claim lacks something, or has what no claim has.
        OSError: the file can't be read.
    """
    try:
        declared = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return {name: _claim(name, parts) for name, parts in declared.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _claim(name: str, parts: Any) -> Claim:
    known = {f.name for f in fields(Claim)} - {"name"}
    if not isinstance(parts, dict) or not {"says", "more"} <= parts.keys() <= known:
        raise ValueError(
            f"claim '{name}' needs says and more, and may have {', '.join(sorted(known))}"
        )
    if not {"above", "below"} & parts.keys():
        raise ValueError(f"claim '{name}' claims nothing: give above or below")
    for side in ("more", "less"):
        if side in parts and not _is_place(parts[side]):
            raise ValueError(f"claim '{name}': {side} is {parts[side]!r}, expected [study, row]")
    places = {side: tuple(parts[side]) for side in ("more", "less") if side in parts}
    return Claim(name, **{**parts, **places})


def _is_place(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)


def row(result: Result, name: str) -> dict[str, Any]:
    """A row of a study's result.

    Raises:
        ValueError: there is none of that name.
    """
    for each in result["rows"]:
        if each["name"] == name:
            return dict(each)
    raise ValueError(f"'{result['study']}' has no row '{name}'")


def by_seed(row: dict[str, Any], measure: str) -> dict[int, float]:
    """Seed -> percent, of the runs that came to their end. A measure inside others is named by
    the way to it: "privacy.last task.attacks.solver.auc"."""
    ended = [run for run in row["runs"] if "failed" not in run]
    return {run["seed"]: 100 * reduce(_inside, measure.split("."), run) for run in ended}


def gained(
    before: dict[str, Any], after: dict[str, Any], measure: str = "average_accuracy"
) -> list[float]:
    """What one row has more than another, in points: seed by seed, of the seeds that both have."""
    a, b = by_seed(before, measure), by_seed(after, measure)
    return [b[seed] - a[seed] for seed in sorted(a.keys() & b.keys())]


def _inside(value: Any, name: str) -> Any:
    return value[int(name)] if isinstance(value, list) else value[name]
