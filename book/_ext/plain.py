"""Lets docstrings be plain text on the site: they are written for readers of the code.

Stars, bars and backslashes mean themselves, `this` is code, an indented paragraph is a block of
code, and a paragraph such as

    name, other: what they are, perhaps
        over several lines

is an entry of a list.
"""

import itertools
import re
from typing import Any

SECTION = re.compile(r"(Args|Returns|Raises|Yields):$")
ENTRY = re.compile(r"(\w+(?:, \w+)*): (.*)$")
CODE = re.compile(r"(`+)([^`]+)\1")


def literal(text: str) -> str:
    """A line with its code marked as reStructuredText wants it, and nothing else marked."""
    parts = CODE.split(text)  # text, backticks, code, text, ...
    escaped = [re.sub(r"([*|\\])", r"\\\1", part) for part in parts[::3]]
    codes = [f"``{part}``" for part in parts[2::3]] + [""]
    return "".join(a + b for a, b in zip(escaped, codes, strict=True))


def paragraph(lines: list[str]) -> list[str]:
    """Lines without a blank one between them, as reStructuredText."""
    if SECTION.match(lines[0]):
        return [literal(line) for line in lines]
    if lines[0].startswith("    "):
        return ["::", "", *lines]
    if not ENTRY.match(lines[0]):
        return [literal(line) for line in lines]
    told = [literal(line.replace("    ", "  ", 1)) for line in lines]
    return [ENTRY.sub(r"\n* **\1**: \2", line) for line in told]


def marked(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText."""
    groups = itertools.groupby(lines, key=bool)
    parts = [paragraph([*part]) if full else [""] for full, part in groups]
    return "\n".join(itertools.chain(*parts)).split("\n")


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What Sphinx calls for each docstring, before its own extensions read it."""
    lines[:] = marked(lines)


def alias(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """A named tuple's fields are told by its docstring."""
    return (getattr(obj, "__doc__", None) or "").startswith("Alias for field") or None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-skip-member", alias)
    app.connect("autodoc-process-docstring", plain, priority=400)
    return {"parallel_read_safe": True}
