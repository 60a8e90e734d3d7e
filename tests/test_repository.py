"""What the repository promises about itself: sizes, the direction of imports, no strangers."""

from __future__ import annotations

import ast
import inspect
import io
import re
import subprocess
import tokenize
import tomllib
from pathlib import Path

import pytest

import genreplay_core

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "genreplay_core"
MODULES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Each module may import only from those before it.
ORDER = (
    *("seeds", "files", "data", "nets", "datasets", "metrics", "plots", "records", "quality"),
    *(
        "adapt",
        "generators",
        "replay",
        "regularisers",
        "capture",
        "faults",
        "learner",
        "privacy",
        "config",
    ),
    *(
        "experiment",
        "batched",
        "study",
        "report",
        "sweep",
        "bench",
        "claims",
        "exercises",
        "book",
        "course",
        "grading",
        "cli",
    ),
)
ALONE = ("metrics", "plots")  # these take arrays, and may import only `files`
LEARNING_PATH = ("data", "nets", "generators", "replay", "learner", "metrics", "experiment")

by_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)


# ---------------------------------------------------------------- budgets


def functions(source: str) -> list[tuple[str, int]]:
    """(name, lines from `def` to the end) of every function, methods and inner ones included."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in found]


def docstring_lines(source: str) -> set[int]:
    """The numbers of all lines that a docstring takes."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, owners)]
    texts = [node.body[0] for node in nodes if ast.get_docstring(node, clean=False) is not None]
    return {n for text in texts for n in range(text.lineno, (text.end_lineno or 0) + 1)}


def lines_of_code(source: str) -> int:
    """Lines that hold anything but docstrings, comments and blanks."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    spoken = [t for t in tokens if t.type not in silent | {tokenize.ENDMARKER}]
    lines = {n for t in spoken for n in range(t.start[0], t.end[0] + 1)}
    return len(lines - docstring_lines(source))


def test_lines_of_code_leave_out_docstrings_comments_and_blanks():
    source = (
        '"""Manual,\nin two lines."""\n\n# why\nx = [  # here\n    1,\n]\ntext = """a\n\nb"""\n'
    )
    assert lines_of_code(source) == 3 + 3
    assert lines_of_code("def f():\n    '''What.'''\n\n    return 1\n") == 2


def test_the_length_of_a_function_counts_from_def_to_its_end():
    source = "@decorated\ndef f(\n    x,\n):\n    def g():\n        return x\n\n    return g\n"
    assert functions(source) == [("f", 7), ("g", 2)]


@by_module
def test_no_function_is_longer_than_40_lines(path):
    assert [(name, lines) for name, lines in functions(path.read_text()) if lines > 40] == []


def test_the_learning_path_is_at_most_1500_lines_of_code():
    counts = {name: lines_of_code((PACKAGE / f"{name}.py").read_text()) for name in LEARNING_PATH}
    assert sum(counts.values()) <= 1500, counts


def test_the_package_is_at_most_5000_lines_of_code():
    counts = {path.stem: lines_of_code(path.read_text()) for path in PACKAGE.rglob("*.py")}
    counts.pop("exercises")  # the book's content, which grows with its chapters
    assert sum(counts.values()) <= 5000, counts


# ---------------------------------------------------------------- imports, documentation, tests


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "genreplay_core" if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    known = {other.stem for other in MODULES}
    within = [name.split(".") for name in names if name.startswith("genreplay_core.")]
    return {parts[1] for parts in within if parts[1] in known}


def test_imports_are_found_in_all_their_spellings(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "import torch, genreplay_core.nets\nfrom . import __version__, plots\n"
        "from .data import Task\n\ndef f():\n    from genreplay_core.files import replacing\n"
    )
    assert imported(file) == {"nets", "plots", "data", "files"}


@by_module
def test_imports_go_one_way(path):
    assert path.stem in ORDER, f"give {path.name} its place in ORDER"
    allowed = {"files"} if path.stem in ALONE else set(ORDER[: ORDER.index(path.stem)])
    assert imported(path) - allowed == set()


def test_what_is_public_is_there_and_documented():
    public = {name: getattr(genreplay_core, name) for name in genreplay_core.__all__}
    called = {name: thing for name, thing in public.items() if callable(thing)}
    # a dataclass without a docstring would be given its signature for one
    plain = [name for name, thing in called.items() if (thing.__doc__ or "").startswith(name + "(")]
    assert [name for name, thing in called.items() if not inspect.getdoc(thing)] + plain == []
    assert len(set(public)) == len(genreplay_core.__all__)


@by_module
def test_each_module_says_what_it_is_for_and_has_its_tests(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert (ROOT / "tests" / f"test_{path.name}").is_file()


# ---------------------------------------------------------------- packaging and strangers


def repository_files() -> list[Path]:
    """All files under version control, or all files if this is no checkout."""
    ask = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, check=True)
        names = done.stdout.split("\0")
    except (OSError, subprocess.SubprocessError):
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
        made = re.compile(
            r"(^|/)(\.git|\.venv|_build|build|dist|runs|\.\w+_cache|__pycache__)(/|$)"
        )
        names = [name for name in names if not made.search(name)]
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    """Path -> content of each file that is text."""
    contents = {}
    for path in repository_files():
        body = path.read_bytes()
        if b"\0" not in body:
            contents[path.relative_to(ROOT).as_posix()] = body.decode("utf-8")
    return contents


def test_the_files_of_the_repository_are_found():
    assert {"pyproject.toml", "genreplay_core/data.py", "tests/test_repository.py"} <= set(texts())


def test_the_address_of_the_repository_stands_in_two_places():
    addresses = [url.split("://")[1].rstrip("/") for url in PROJECT["urls"].values()]
    found = [name for name, text in texts().items() if any(a in text for a in addresses)]
    holders = [name for name in found if not name.endswith(".ipynb")]  # see test_book.py
    assert holders == ["_config.yml", "pyproject.toml"]  # the book's links need it too
    assert all(texts()[name].count(address) == 1 for address in addresses for name in holders)


def test_no_file_names_a_folder_of_somebodys_machine():
    # spelled in pieces, so that this file holds none of them
    homes = ("work", "root", "home", "Users", "tmp")
    stranger = re.compile(r"(?<![\w.~/-])/(" + "|".join(homes) + ")/")
    assert all(stranger.search(f'"/{home}/me"') for home in homes)
    assert {name: m[0] for name, text in texts().items() if (m := stranger.search(text))} == {}


def test_dependencies_have_a_lower_bound_and_nothing_else():
    bound = re.compile(r"[a-z-]+>=\d+(\.\d+)*")
    assert [d for d in PROJECT["dependencies"] if not bound.fullmatch(d)] == []


def test_the_version_stands_the_same_everywhere():
    assert genreplay_core.__version__ == PROJECT["version"]
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()


def pinned(name: str) -> dict[str, str]:
    """Package -> version of a file of constraints."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_lowest_versions_that_are_tested_are_the_lowest_allowed():
    lowest = dict(d.split(">=") for d in PROJECT["dependencies"])
    tested = pinned("constraints-lowest.txt")
    assert tested.pop("pyparsing")  # matplotlib's, as old as it
    assert tested.keys() == lowest.keys()
    assert all(tested[name].removesuffix(".0") == lowest[name] for name in lowest)


def test_the_locked_environment_holds_every_dependency_and_satisfies_it():
    locked = pinned("constraints-dev.txt")
    extras = PROJECT["optional-dependencies"].values()
    wanted = PROJECT["dependencies"] + [one for extra in extras for one in extra]
    for name, bound in (re.split(">=", one.split(",")[0]) for one in wanted):
        least = tuple(int(n) for n in re.findall(r"\d+", bound))
        assert tuple(int(n) for n in re.findall(r"\d+", locked[name])) >= least, name


def test_the_audit_and_the_two_kinds_of_environment_are_in_the_workflow():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    for word in ("constraints-dev.txt", "constraints-lowest.txt", "pip-audit", ".ci/run"):
        assert word in workflow
