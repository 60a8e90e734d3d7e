"""What is set better on the site than a notebook can say it.

A number keeps its per cent sign on its line, and has a minus instead of a hyphen. A formula keeps
the comma behind it. A chapter's name in italics, all of it or a part, leads there. And what a cell
prints is broken into lines, unless it is a table that fits.
"""

import re
from collections.abc import Mapping
from typing import Any

from docutils import nodes

PROSE = (nodes.paragraph, nodes.strong, nodes.emphasis, nodes.title, nodes.term)
MINUS = re.compile(r"(?<![\w.\])-])-(?=\d)")
CLOSING = re.compile(r"[,.;:!?)]+")
ALIGNED = re.compile(r"\S {2,}\S")
PART = re.compile(r"(?<=[?:.,]) ")  # between parts of a title
FITS = 100  # characters, as in code


def typeset(app: Any, doctree: nodes.document, page: str) -> None:
    """What Sphinx calls for each page before it is written."""
    for text in [t for t in doctree.findall(nodes.Text) if type(t.parent) in PROSE]:
        keep_together(text, numbers(text))
    chapters = named({name: node.astext() for name, node in app.env.titles.items()})
    for emphasis in [*doctree.findall(nodes.emphasis)]:
        chapter = chapters.get(" ".join(emphasis.astext().casefold().split()), page)
        if chapter != page:
            link(emphasis, app.builder.get_relative_uri(page, chapter))
    for block in doctree.findall(nodes.literal_block):
        if "stream" in block["classes"] and is_prose(block.astext()):
            block["classes"].append("gr-prose")


def numbers(text: str) -> str:
    """A text whose numbers have a minus, and their per cent sign on the same line."""
    return MINUS.sub("\N{MINUS SIGN}", re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text))


def keep_together(text: nodes.Text, better: str) -> None:
    """Put `better` in the place of a text; punctuation that it begins with joins a formula."""
    at = text.parent.index(text)
    before, closing = text.parent[at - 1] if at else None, CLOSING.match(better)
    if isinstance(before, nodes.math) and closing:
        joined = nodes.inline("", "", before.deepcopy(), nodes.Text(closing[0]))
        joined["classes"].append("gr-together")
        before.replace_self(joined)
        better = better[closing.end() :]
    text.parent.replace(text, nodes.Text(better))


def named(titles: Mapping[str, str]) -> dict[str, str]:
    """What a page may be called -> the page: its title, a part of it, or its first parts, in small
    letters."""
    found: dict[str, str] = {}
    for page, title in titles.items():
        begun = (title[: part.start()] for part in PART.finditer(title))
        for name in (title, *PART.split(title), *begun):
            found.setdefault(name.casefold().rstrip(":.,"), page)
    return found


def link(node: nodes.Element, where: str) -> None:
    """Let a node lead somewhere."""
    reference = nodes.reference("", "", node.deepcopy(), internal=True, refuri=where)
    node.replace_self(reference)


def is_prose(text: str) -> bool:
    """May these lines be broken? A table's may not, unless they don't fit as they are."""
    return not ALIGNED.search(text) or max(map(len, text.splitlines())) > FITS


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-resolved", typeset)
    return {"parallel_read_safe": True}
