"""Run the book's notebooks and keep their outputs: `python book/execute.py [NAME ...]`.

Without names, those are run whose outputs may be stale. A notebook remembers what its outputs were
made from, as a digest of its own code, of the core's modules that it uses and of the stored results
and claims that it shows; `tests/test_book.py` holds it against what they are now.

The profile is "laptop", so that the outputs are what a reader with a laptop gets; the minutes that
it took go to `book/results/times.json`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from genreplay_core import book, claims
from genreplay_core.files import replacing, write_json

BOOK = Path(__file__).resolve().parent
CORE = BOOK.parent / "genreplay_core"
TIMES = BOOK / "results" / "times.json"

# What the notebooks share leads to every module, but doesn't change what these compute.
LEAVES = ("book", "claims", "exercises")


def notebooks() -> list[Path]:
    """All notebooks of the book."""
    return sorted(BOOK.glob("*.ipynb"))


# ---------------------------------------------------------------- what outputs are made from


def code_of(notebook: NotebookNode) -> list[str]:
    """The sources of its code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def digest(notebook: NotebookNode) -> str:
    """Of all that its outputs are made from. Lines of comment and empty ones don't count."""
    code = code_of(notebook)
    modules = [CORE / f"{name}.py" for name in needed("\n".join(code))]
    texts = [*code, *(path.read_text() for path in modules)]
    claimed = claims_of("\n".join(code))
    studies = {study for claim in claimed for study, _ in claim.places}
    shown = shown_by(code) | {BOOK / "results" / f"{study}.json" for study in studies}
    parts = [telling(text) for text in texts] + [path.read_text() for path in sorted(shown)]
    # how a claim is tried in small, here and now, is shown nowhere
    parts += [repr(replace(claim, live=None, live_above=0.0)) for claim in claimed]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def telling(source: str) -> str:
    """The lines that do or say something."""
    lines = [line.rstrip() for line in source.splitlines()]
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def shown_by(code: Iterable[str]) -> set[Path]:
    """The stored results and drawings that cells name in a string."""
    words = {word for cell in code for word in re.findall(r"[\"']([\w-]+)[\"']", cell)}
    places = ("results/{}.json", "diagrams/{}.svg")
    named = {BOOK / place.format(word) for place in places for word in words}
    return {path for path in named if path.is_file()}


def claims_of(code: str) -> list[claims.Claim]:
    """The book's claims that code shows: those that it names, or all if it asks for all."""
    named = re.findall(r"book\.claim\(\s*[\"']([\w-]+)", code)
    every = "claims.shipped(" in code
    declared = claims.read(BOOK / "claims.toml") if every or named else {}
    return [claim for name, claim in declared.items() if every or name in named]


def needed(source: str) -> list[str]:
    """The core's modules that a source uses, and those that these use, and so on."""
    known = {path.stem: path for path in CORE.glob("*.py") if path.stem != "__init__"}
    offered = imports((CORE / "__init__.py").read_text())
    found: set[str] = set()
    waiting = {offered.get(name, name) for name in imports(source)}
    while waiting:
        module = waiting.pop()
        if module in known and module not in found:
            found.add(module)
            inner = {} if module in LEAVES else imports(known[module].read_text())
            waiting |= {*inner, *inner.values()}
    return sorted(found)


def imports(source: str) -> dict[str, str]:
    """Name -> module of the core, for what a source imports from it; a module's is its own."""
    found = {}
    python = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)  # lines for IPython
    for node in ast.walk(ast.parse(python)):
        if isinstance(node, ast.ImportFrom) and (node.level or "genreplay_core" in node.module):
            module = (node.module or "").removeprefix("genreplay_core").lstrip(".")
            found |= {alias.name: module or alias.name for alias in node.names}
    return found


# ---------------------------------------------------------------- running


def execute(path: Path, profile: str) -> float:
    """Run a notebook and write it back with its outputs: seconds."""
    notebook = nbformat.read(path, as_version=4)
    os.environ["GENREPLAY_PROFILE"] = profile
    begun = time.perf_counter()
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": BOOK}}).execute()
    seconds = time.perf_counter() - begun
    for cell in notebook.cells:
        tidy(cell)
    notebook.metadata = metadata(notebook, profile)
    with replacing(path) as partial:
        nbformat.write(notebook, partial)
    return seconds


def metadata(notebook: NotebookNode, profile: str) -> dict[str, Any]:
    """What a notebook of the book says about itself: it asks Colab for a GPU."""
    return {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "accelerator": "GPU",
        "colab": {"gpuType": "T4", "provenance": []},
        "genreplay": {"digest": digest(notebook), "profile": profile},
    }


def tidy(cell: NotebookNode) -> None:
    """Leave out when a cell ran, join what it printed, and let pictures tell the site what they
    show."""
    cell.metadata.pop("execution", None)
    if cell.cell_type != "code":
        return
    joined: list[NotebookNode] = []
    for output in cell.outputs:
        before = joined[-1] if joined else {}
        if output.output_type == "stream" and before.get("name") == output.name:
            before["text"] += output.text
        else:
            joined.append(output)
    cell.outputs = joined
    if told := alts(cell):
        cell.metadata["mystnb"] = {"image": {"alt": told[0]}}


def alts(cell: NotebookNode) -> list[str]:
    """What each of a cell's pictures says that it shows.

    Raises:
        KeyError: one says nothing.
    """
    return [
        output.metadata[kind]["alt"]
        for output in cell.outputs
        for kind in output.get("data", {})
        if kind.startswith("image/")
    ]


def remember(name: str, seconds: float, profile: str) -> None:
    """Keep how long a notebook took, and what the notebooks of the book are called, in order."""
    times = json.loads(TIMES.read_text())
    times["seconds"].setdefault(profile, {})[name] = round(seconds)
    listed = re.findall(r"- file: (\S+)$", (BOOK / "_toc.yml").read_text(), re.M)
    paths = [path for path in (BOOK / f"{name}.ipynb" for name in listed) if path.is_file()]
    times["titles"] = {path.stem: title(path) for path in paths}
    write_json(TIMES, times)


def tell_time(path: Path, profile: str) -> None:
    """Let a notebook that began before its time was known say what it is."""
    notebook = nbformat.read(path, as_version=4)
    told = book._expected(book.Chapter(path.stem, profile))
    for output in (one for cell in notebook.cells for one in cell.get("outputs", [])):
        if output.get("text", "").startswith("device: "):
            output.text = output.text.split("\n")[0] + f"\n{told}\n"
    with replacing(path) as partial:
        nbformat.write(notebook, partial)


def title(path: Path) -> str:
    """What a notebook is called: its first line."""
    return str(nbformat.read(path, as_version=4).cells[0].source).split("\n")[0].lstrip("# ")


def shows_times(path: Path) -> bool:
    """Is it the page that says how long all others took? It is run last, and isn't timed."""
    return TIMES in shown_by(code_of(nbformat.read(path, as_version=4)))


def is_stale(path: Path) -> bool:
    """Could its outputs be other than what it would say now?"""
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("genreplay", {}).get("digest") != digest(notebook)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: those that are stale")
    parser.add_argument("--profile", default="laptop", choices=("ci", "laptop", "gpu"))
    options = parser.parse_args()
    chosen = [BOOK / f"{name}.ipynb" for name in options.names]
    for path in chosen or filter(is_stale, sorted(notebooks(), key=shows_times)):
        print(f"{path.stem} ...", flush=True)
        seconds = execute(path, options.profile)
        if not shows_times(path):
            remember(path.stem, seconds, options.profile)
            tell_time(path, options.profile)
        print(f"{path.stem}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
