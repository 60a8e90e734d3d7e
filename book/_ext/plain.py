"""Lets docstrings be plain text on the site: they are written for readers of the code.

Stars, bars and backslashes mean themselves but in *this*, `this` is code, an indented paragraph is
a block of code, lines that begin with a star are a list, lines that begin with a bar a table of
Markdown, and a paragraph such as

    name, other: what they are, perhaps
        over several lines

is an entry of a list.
"""

import itertools
import re
from typing import Any

SECTION = re.compile(r"(Args|Returns|Raises|Yields):$")
# at the begin of a line or after a stop, but not where a sentence goes on in the next line
ENTRY = re.compile(r"(^|[.;] |[.;]\n  )(\w+(?:, \w+)*): ", re.MULTILINE)
ITEM = re.compile(r"(\* )?(.*)$")
CODE = re.compile(r"(`+)([^`]+)\1")
MARK = re.compile(r"(\*\w[\w ]*\*)|([*|\\])")  # words between stars, or a mark by itself
FUNCTION = re.compile(r"<function (\w+)[^>]*>")


def literal(text: str) -> str:
    """A line with code and stressed words marked as reStructuredText wants it, and nothing else."""
    parts = CODE.split(text)  # text, backticks, code, text, ...
    escaped = [MARK.sub(lambda m: m[1] or f"\\{m[2]}", part) for part in parts[::3]]
    codes = [f"``{part}``" for part in parts[2::3]] + [""]
    return "".join(a + b for a, b in zip(escaped, codes, strict=True))


def table(lines: list[str]) -> list[str]:
    """A table of Markdown: a line of heads, one of strokes, and the rest."""
    rows = [[literal(cell.strip()) for cell in line.strip("|").split("|")] for line in lines]
    made = [".. list-table::", "   :header-rows: 1", ""]
    for first, *others in [rows[0], *rows[2:]]:
        made += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    return made


def paragraph(lines: list[str]) -> list[str]:
    """Lines without a blank one between them, as reStructuredText."""
    if SECTION.match(lines[0]):
        return [literal(line) for line in lines]
    if lines[0].startswith("    "):
        return ["::", "", *lines]
    if lines[0].startswith("|"):
        return table(lines)
    if lines[0].startswith("* "):
        return [ITEM.sub(lambda m: (m[1] or "") + literal(m[2]), line, count=1) for line in lines]
    if not ENTRY.match(lines[0]):
        return [literal(line) for line in lines]
    told = "\n".join(literal(line.replace("    ", "  ", 1)) for line in lines)
    return [ENTRY.sub(r"\1\n* **\2**: ", told)]


def marked(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText."""
    parts = [[*part] for _, part in itertools.groupby(lines, key=bool)]
    made, in_code = [literal(line) for line in itertools.chain(*parts[:1])], False
    for part in parts[1:]:
        told = paragraph(part) if part[0] else part
        is_code = told[0] == "::"
        made += told[2:] if is_code and in_code else told  # a block goes on over blank lines
        in_code = is_code or (in_code and not part[0])
    return "\n".join(made).split("\n")


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What Sphinx calls for each docstring, before its own extensions read it."""
    lines[:] = marked(lines)


def named(
    app: Any, what: str, name: str, obj: Any, options: Any, told: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A function that is a default stands there by its name, as it does in the code."""
    return told and FUNCTION.sub(r"\1", told), returned


def alias(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """A named tuple's fields are told by its docstring."""
    return (getattr(obj, "__doc__", None) or "").startswith("Alias for field") or None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-skip-member", alias)
    app.connect("autodoc-process-docstring", plain, priority=400)
    app.connect("autodoc-process-signature", named)
    return {"parallel_read_safe": True}
