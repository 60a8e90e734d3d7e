"""What the notebooks share, and the notebooks themselves."""

from __future__ import annotations

import base64
import json
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from genreplay_core import book, claims, exercises, plots, study
from genreplay_core.course import module
from genreplay_core.metrics import interval

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"


execute = module(BOOK / "execute.py")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A package with no book beside it."""
    monkeypatch.setattr(claims, "HERE", tmp_path / "site-packages" / "genreplay_core")
    (claims.HERE / "results").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("chosen", book.PROFILES)
def test_the_environment_chooses_the_profile(monkeypatch, capsys, chosen):
    monkeypatch.setenv("GENREPLAY_PROFILE", chosen)
    assert book.profile() == chosen
    assert book.start("a chapter") == book.Chapter("a chapter", chosen)
    said = capsys.readouterr().out
    assert f"profile: {chosen}" in said
    assert torch.__version__ in said
    assert "how long this takes with this profile hasn't been measured yet" in said


@pytest.mark.parametrize(("kind", "usual"), [("cpu", "laptop"), ("cuda", "gpu")])
def test_the_usual_profile_follows_from_the_device(monkeypatch, kind, usual):
    monkeypatch.delenv("GENREPLAY_PROFILE", raising=False)
    monkeypatch.setattr(book, "pick_device", lambda: torch.device(kind))
    assert book.profile() == usual


def test_a_gpu_is_called_by_its_name(monkeypatch, capsys):
    monkeypatch.delenv("GENREPLAY_PROFILE", raising=False)
    monkeypatch.setattr(book, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A fast one")
    assert book.start("a chapter").profile == "gpu"
    assert capsys.readouterr().out.startswith("device: A fast one; profile: gpu")


def test_another_profile_is_refused(monkeypatch):
    monkeypatch.setenv("GENREPLAY_PROFILE", "phone")
    with pytest.raises(ValueError, match="GENREPLAY_PROFILE is 'phone': choose one of ci, laptop"):
        book.profile()


def test_a_chapter_says_how_long_it_took_where_the_book_was_made(monkeypatch, capsys):
    times = {"machine": "two cores", "seconds": {"laptop": {"slow": 130, "quick": 4}}}
    monkeypatch.setattr(book, "stored", lambda name: times)
    monkeypatch.setenv("GENREPLAY_PROFILE", "laptop")
    for name, minutes in {"slow": "about 2 minutes", "quick": "about 1 minute"}.items():
        book.start(name)
        assert f"{minutes} on the book's machine (two cores)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("chosen", "values"), [("ci", (1, 1)), ("laptop", (2, 2)), ("gpu", (2, 3))]
)
def test_a_chapter_computes_as_much_as_its_profile_allows(chosen, values):
    here = book.Chapter("a chapter", chosen)
    assert (here.pick(ci=1, laptop=2), here.pick(ci=1, laptop=2, gpu=3)) == values
    assert here.dataset == ("digits" if chosen == "ci" else "mnist")


def test_a_result_is_found_in_the_checkout_before_the_installed_one(elsewhere):
    installed = claims.HERE / "results" / "labels.json"
    installed.write_text(json.dumps({"from": "installed"}))
    assert book.stored("labels") == {"from": "installed"}
    checkout = claims.HERE.parent / "book" / "results"
    checkout.mkdir(parents=True)
    (checkout / "labels.json").write_text(json.dumps({"from": "checkout"}))
    assert book.stored("labels") == {"from": "checkout"}


def test_a_result_that_is_not_there_is_one_line(elsewhere):
    with pytest.raises(ValueError, match="there is no stored result 'labels'"):
        book.stored("labels")


def test_a_sentence_holds_its_numbers(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    book.say("It is **{x:.1f} %**, not {y}.", x=97.25, y="less")
    assert [part.data for part in shown] == ["It is **97.2 %**, not less."]


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: Markdown as text, else the pair of data and metadata."""
    found: list = []

    def display(thing, raw=False, metadata=None):
        found.append((thing, metadata) if raw else thing.data)

    monkeypatch.setattr("IPython.display.display", display)
    return found


def test_a_table_has_its_numbers_at_the_right(shown):
    book.table(["what", "how", "much"], [["a", "b", 1], ["c", "d", "2.5 %"]], left=2)
    assert shown == [
        "| what | how | much |\n| --- | --- | ---: |\n| a | b | 1 |\n| c | d | 2.5 % |"
    ]


def test_the_source_of_the_core_is_shown_as_it_stands(shown):
    book.show(interval)
    assert shown[0].startswith("```python\n# genreplay_core/metrics.py\ndef interval(")
    assert shown[0].endswith("mean + reach)\n```")


def test_a_picture_says_what_it_shows(shown):
    book.picture(plots.bars({"one": (1.0, 2.0, 3.0)}, "steps"), "One bar")
    (data, metadata) = shown[0]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"] == "One bar"
    assert metadata == {"image/png": {"alt": "One bar"}}


def test_a_diagram_says_what_it_shows_and_one_that_is_not_there_is_one_line(shown):
    book.diagram("scholar-chain", "Three scholars")
    (data, metadata) = shown[0]
    assert data["image/svg+xml"].startswith("<svg")
    assert metadata == {"image/svg+xml": {"alt": "Three scholars"}}
    with pytest.raises(ValueError, match="there is no drawing 'nothing': see book/diagrams"):
        book.diagram("nothing", "Nothing")


CONFIG = {"dataset": "mnist", "steps": 500}
FOUND = {
    "study": "s",
    "rows": [
        {
            "name": "r",
            "config": CONFIG,
            "runs": [{"seed": s, "average_accuracy": 0.8 + 0.01 * s} for s in (2, 3, 4)],
        }
    ],
}


@pytest.mark.parametrize(
    ("accuracy", "changes", "said"),
    [
        (0.84, {}, "between 78.0 and 88.0 % (95 %): yours lies inside."),
        (0.70, {}, "between 78.0 and 88.0 % (95 %): yours lies **outside**."),
        (0.84, {"steps": 100}, "(it differs in steps), so no verdict."),
    ],
)
def test_a_run_is_held_against_the_books(monkeypatch, shown, accuracy, changes, said):
    monkeypatch.setattr(book, "stored", lambda name: FOUND)
    record = {"average_accuracy": accuracy, "config": {**CONFIG, "seed": 9, **changes}}
    book.compare(record, "s", "r")
    # t = 4.303 with two degrees of freedom; s = 0.01; n = 3
    ours = f"Yours: **{100 * accuracy:.1f} %**. The book's mean: 83.0 %, 3 runs;"
    assert shown[0].startswith(ours)
    assert shown[0].endswith(said)


def test_one_run_of_the_book_gives_no_verdict(monkeypatch, shown):
    runs = [{"seed": 2, "average_accuracy": 0.8}]
    alone = {"study": "s", "rows": [{"name": "r", "config": CONFIG, "runs": runs}]}
    monkeypatch.setattr(book, "stored", lambda name: alone)
    book.compare({"average_accuracy": 0.84, "config": CONFIG}, "s", "r")
    assert shown[0].endswith("one run doesn't say how far a further one may lie, so no verdict.")


def test_a_cell_says_mean_interval_and_how_many_seeds():
    assert book.told([0.0, 2.0]) == "1.0 (-11.7 to 13.7), 2"
    assert book.told([0.0, 2.0], "+.0f") == "+1 (-12 to +14), 2"
    assert book.told([84.52]) == "84.5, 1"
    assert book.told([]) == "not yet run"


def test_a_claim_is_shown_and_one_that_is_not_there_is_one_line(shown):
    names = list(claims.read(BOOK / "claims.toml"))
    book.claim(names[0])
    assert shown[0].startswith("> **Claim.** ")
    with pytest.raises(ValueError, match="there is no claim 'nothing': see"):
        book.claim("nothing")


def test_an_exercise_is_checked_aloud(monkeypatch, capsys):
    monkeypatch.setitem(exercises.EXERCISES, "e", exercises.number(1, "count"))
    book.check("e", 1)
    book.check("e", 2)
    assert capsys.readouterr().out == "Right.\nNot yet: count.\n"


# ---------------------------------------------------------------- experiments and their results

STUDIES = sorted((BOOK / "experiments").glob("*.toml"))
RESULTS = [
    path
    for path in sorted((BOOK / "results").glob("*.json"))
    if path.stem in {s.stem for s in STUDIES}
]


def named(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", STUDIES, ids=named)
def test_every_study_can_be_run_and_its_seeds_keep_the_rules(path):
    declared = study.read(path)
    assert declared.question
    for row in declared.rows:
        chosen = row.config(0).validation > 0
        assert all((seed >= 100) == chosen for seed in row.seeds), row.name
        assert chosen or len(row.seeds) >= 3, row.name


@pytest.mark.parametrize("path", RESULTS, ids=named)
def test_every_stored_run_is_one_that_its_study_declares(path):
    declared, found = study.read(BOOK / "experiments" / f"{path.stem}.toml"), study.loaded(path)
    kept = study.stored(declared, path)
    runs = [(row["name"], run["seed"]) for row in found["rows"] for run in row["runs"]]
    assert sorted(kept) == sorted(runs)
    assert (
        found["command"] == f"genreplay sweep book/experiments/{path.stem}.toml --out book/results"
    )


@pytest.mark.parametrize("path", RESULTS, ids=named)
def test_the_summaries_of_a_result_follow_from_its_runs(path):
    written = json.loads(path.read_text())
    assert written["finished"] == sum(len(row["runs"]) for row in written["rows"]) > 0
    for row in written["rows"]:
        ended = [run for run in row["runs"] if "failed" not in run]
        assert row["seeds"] == len(ended)
        for measure in study.MEASURES if ended else ():
            found = interval([run[measure] for run in ended])
            assert row[measure]["mean"] == pytest.approx(found.mean, abs=1e-6)
            if len(ended) > 1:
                reach = (row[measure]["low"], row[measure]["high"])
                assert reach == pytest.approx((found.low, found.high), abs=1e-6)
        for run in ended:
            matrix = np.array(run["accuracy_matrix"])
            assert run["average_accuracy"] == pytest.approx(matrix[-1].mean(), abs=1e-5)
            assert {"commit", "torch", "device"} <= written["environments"][
                run["environment"]
            ].keys()


def test_families_have_the_time_of_the_vae():
    measured = json.loads((BOOK / "results" / "families.json").read_text())["slowness"]
    rows = study.read(BOOK / "experiments" / "generator-family.toml").rows
    given = {row.config(2).generator: row.config(2).generator_steps for row in rows}
    wanted = {name: 2000 / one["median"] for name, one in measured.items()}
    assert given == pytest.approx(wanted, abs=5)


def test_plain_dreams_fade_and_those_that_are_asked_for_do_not():
    """As *Promise: it lasts* says, with each seed."""
    measured = json.loads((BOOK / "results" / "fading.json").read_text())
    for stream in ("many-tasks", "hundred-tasks"):
        plain, asked = (
            np.array([run["whole"] for run in measured[stream][f"{kind} replay"]])
            for kind in ("plain", "conditional")
        )
        assert plain.shape == asked.shape == (5, 20)
        assert (plain[:, 19] < 0.05).all()
        assert (plain[:, 9] < 0.15).all()
        assert (asked[:, 19] > 0.9 * asked[:, 9]).all()
    within = [run["within"] for run in measured["hundred-tasks"]["conditional replay"]]
    assert max(run[19] for run in within) < 0.03  # nearly one picture for each class
    for run in measured["single-class"]["conditional"]:
        first, *others = run["of_class"]
        assert first == pytest.approx(run["within"][0], abs=0.06)  # as after its own task
        assert first < np.mean(others) - 0.02


# ---------------------------------------------------------------- notebooks

NOTEBOOKS = execute.notebooks()
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
FIRST = """# Installs the book's core where it is missing, as on Colab; elsewhere it does nothing.
import importlib.util

if importlib.util.find_spec("genreplay_core") is None:
    %pip install -q --no-deps git+{address}
from genreplay_core import book

here = book.start("{name}")"""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=named)


def opened(path: Path) -> tuple[nbformat.NotebookNode, list[nbformat.NotebookNode]]:
    """A notebook and its code cells."""
    notebook = nbformat.read(path, as_version=4)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(notebook: nbformat.NotebookNode) -> str:
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def solutions(notebook: nbformat.NotebookNode) -> list[str]:
    """The code in each part that is folded away."""
    folded = re.findall(r"<details><summary>.*?</details>", words(notebook), re.S)
    return ["\n".join(re.findall(r"```python\n(.*?)```", part, re.S)) for part in folded]


def test_every_page_is_in_the_table_of_contents_once():
    toc = (BOOK / "_toc.yml").read_text()
    listed = re.findall(r"^\s*(?:- file|root): (\S+)$", toc, re.M)
    pages = [path.stem for path in BOOK.iterdir() if path.suffix in (".md", ".ipynb")]
    assert sorted(listed) == sorted(pages)


@each_notebook
def test_a_notebook_begins_like_all_others(path):
    notebook, code = opened(path)
    assert code[0].source == FIRST.format(address=ADDRESS, name=path.stem)
    assert notebook.metadata["accelerator"] == "GPU"
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert notebook.metadata["genreplay"]["profile"] == "laptop"
    assert words(notebook).startswith("# ")


@each_notebook
def test_a_notebook_was_run_from_top_to_bottom_without_an_error(path):
    _, code = opened(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"] == []


@each_notebook
def test_what_a_notebook_shows_was_made_by_what_is_here_now(path):
    notebook, _ = opened(path)
    fresh = notebook.metadata["genreplay"]["digest"] == execute.digest(notebook)
    assert fresh, f"run: python book/execute.py {path.stem}"


@each_notebook
def test_a_notebook_is_short_and_its_cells_are_too(path):
    _, code = opened(path)
    assert len(code) <= 25
    assert [cell.source for cell in code if len(cell.source.splitlines()) > 25] == []
    assert path.stat().st_size < 1.5e6


@each_notebook
def test_every_picture_says_what_it_shows(path):
    _, code = opened(path)
    for cell in code:
        told = execute.alts(cell)
        assert all(len(alt) >= 20 for alt in told)
        assert len(told) <= 1
        if told:
            assert cell.metadata["mystnb"]["image"]["alt"] == told[0]


@each_notebook
def test_no_result_is_typed_into_prose(path):
    text = re.sub(r"<details>.*?</details>", "", words(opened(path)[0]), flags=re.S)
    found = re.findall(r"[\d.,]+ ?%", text)
    assert set(found) <= {"95 %", "100 %"}, "let book.say or book.claim say it"


@each_notebook
def test_what_a_notebook_names_is_there(path):
    code = "\n".join(execute.code_of(opened(path)[0]))
    assert set(re.findall(r"book\.claim\(\"([^\"]+)", code)) <= CLAIMS.keys()
    checked = set(re.findall(r"book\.check\(\"([^\"]+)", code))
    assert checked == {name for name in exercises.EXERCISES if name.rsplit("-", 1)[0] == path.stem}


@each_notebook
def test_every_exercise_has_a_solution_and_the_solution_is_right(path, capsys):
    notebook, _ = opened(path)
    asked = [name for name in exercises.EXERCISES if name.rsplit("-", 1)[0] == path.stem]
    solved = [code for code in solutions(notebook) if "book.check(" in code]
    for code in solved:
        exec(code, {"book": book})
    assert capsys.readouterr().out == "Right.\n" * len(asked)


CLAIMS = claims.read(BOOK / "claims.toml")


def test_every_exercise_and_every_claim_is_in_some_notebook():
    code = "\n".join("\n".join(execute.code_of(opened(path)[0])) for path in NOTEBOOKS)
    assert [name for name in exercises.EXERCISES if f'book.check("{name}"' not in code] == []
    assert [name for name in CLAIMS if f'book.claim("{name}"' not in code] == []


# ---------------------------------------------------------------- when outputs are stale


def small(*cells: str) -> nbformat.NotebookNode:
    made = nbformat.v4
    return made.new_notebook(cells=[made.new_code_cell(cell) for cell in cells])


@pytest.fixture
def core(tmp_path, monkeypatch):
    """A copy of the core, to change."""
    copied = tmp_path / "genreplay_core"
    shutil.copytree(execute.CORE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(execute, "CORE", copied)
    return copied


@pytest.mark.parametrize(
    ("module", "old", "new", "stale"),
    [
        ("data.py", "FORBIDDEN = -1e9", "FORBIDDEN = -1e8", True),
        ("seeds.py", "def mixed(", "def mixed_(", True),  # which data.py imports
        ("data.py", "FORBIDDEN = -1e9", "# why\n\nFORBIDDEN = -1e9", False),
        ("privacy.py", "GREY", "GRAY", False),  # which nothing here imports
    ],
)
def test_outputs_are_stale_when_the_core_beneath_them_changes(core, module, old, new, stale):
    notebook = small("%pip list", "from genreplay_core import split, book\nsplit")
    before = execute.digest(notebook)
    text = (core / module).read_text()
    assert old in text
    (core / module).write_text(text.replace(old, new))
    assert (execute.digest(notebook) != before) is stale


def test_outputs_are_stale_when_their_own_code_or_a_result_changes(tmp_path, monkeypatch):
    cells = ["from genreplay_core import book", 'book.stored("labels")']
    monkeypatch.setattr(execute, "BOOK", tmp_path)
    (tmp_path / "results").mkdir()
    before = execute.digest(small(*cells))
    assert execute.digest(small(cells[0], cells[1] + "  # why not")) != before
    assert execute.digest(small(cells[0], cells[1] + "\n# why")) == before
    (tmp_path / "results" / "labels.json").write_text("{}")
    assert execute.digest(small(*cells)) != before


def test_outputs_are_stale_when_a_claim_that_they_show_changes_or_what_it_rests_on(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(execute, "BOOK", tmp_path)
    (tmp_path / "results").mkdir()
    result = tmp_path / "results" / "labels.json"
    result.write_text("{}")
    declared = tmp_path / "claims.toml"
    one, other = (
        f'[{name}]\nsays = "{name}"\nmore = ["labels", "plain"]\nabove = 0.0\n' for name in "ab"
    )
    declared.write_text(one)
    named = small("from genreplay_core import book", 'book.claim("a")')
    every = small("from genreplay_core import claims", "claims.shipped()")
    before = [execute.digest(notebook) for notebook in (named, every)]
    declared.write_text(one + other)
    assert execute.digest(named) == before[0]
    assert execute.digest(every) != before[1]
    declared.write_text(one.replace('says = "a"', 'says = "no"'))
    assert execute.digest(named) != before[0]
    declared.write_text(one)
    result.write_text("{ }")
    assert execute.digest(named) != before[0]


def test_one_page_shows_how_long_the_others_took():
    assert [path.stem for path in NOTEBOOKS if execute.shows_times(path)] == ["index"]


MARKED = """What.

x, y: (N, *shape), the `images`
    and more.
other: 2 * 3.

* a: is *no mistake*, it
  goes on
* b

| name | `x` |
| --- | --- |
| a | 2 * 3 |

    x -> *y

Args:
    n: how many.
"""


def test_docstrings_may_be_plain_text():
    marked = module(BOOK / "_ext" / "plain.py").marked(MARKED.splitlines())
    assert [line for line in marked if line] == [
        "What.",
        r"* **x, y**: (N, \*shape), the ``images``",
        "  and more.",
        r"* **other**: 2 \* 3.",
        "* a: is *no mistake*, it",
        "  goes on",
        "* b",
        ".. list-table::",
        "   :header-rows: 1",
        "   * - name",
        "     - ``x``",
        "   * - a",
        r"     - 2 \* 3",
        "::",
        "    x -> *y",
        "Args:",
        "    n: how many.",
    ]


typeset = module(BOOK / "_ext" / "typeset.py")


@pytest.mark.parametrize(
    ("written", "set_"),
    [
        ("from -9.4 to +0.7 %", "from \N{MINUS SIGN}9.4 to +0.7\N{NO-BREAK SPACE}%"),
        ("(-1, 2) and 1e-3", "(\N{MINUS SIGN}1, 2) and 1e-3"),
        ("on 2026-11-25, 784-400-10, x-1", "on 2026-11-25, 784-400-10, x-1"),
    ],
)
def test_numbers_are_set_with_a_minus_and_keep_their_per_cent_sign(written, set_):
    assert typeset.numbers(written) == set_


def test_what_is_printed_is_broken_into_lines_unless_it_is_a_table_that_fits():
    assert typeset.is_prose("No answer yet: put yours in place of the three dots.")
    assert not typeset.is_prose("plain        83.0\nconditional  88.8")
    assert typeset.is_prose("plain        83.0, " + 90 * "x")


def test_every_chapter_that_a_page_names_is_there():
    titles = {path.stem: execute.title(path) for path in NOTEBOOKS}
    known = typeset.named(titles)
    assert known["ask for a class"] == "conditional-replay"
    texts = {path.stem: "\n".join(c.source for c in opened(path)[0].cells) for path in NOTEBOOKS}
    texts |= {path.stem: path.read_text(encoding="utf-8") for path in BOOK.glob("*.md")}
    told = {
        (page, " ".join(name.casefold().split()))
        for page, text in texts.items()
        for name in re.findall(r"[Cc]hapters?\s\*([^*]+)\*", text)
    }
    assert told
    assert [(page, name) for page, name in sorted(told) if name not in known] == []


def test_a_notebook_says_how_long_it_took_this_time(tmp_path, monkeypatch):
    path = tmp_path / "tiny.ipynb"
    nbformat.write(
        small("from genreplay_core import book", "here = book.start('tiny')", "print(1)"), path
    )
    monkeypatch.setenv("GENREPLAY_PROFILE", "ci")
    execute.execute(path, "ci")
    assert "hasn't been measured yet" in opened(path)[1][1].outputs[0].text
    times = {"seconds": {"ci": {"tiny": 240}}, "machine": "two cores"}
    monkeypatch.setattr(execute.book, "stored", lambda name: times)
    execute.tell_time(path, "ci")
    texts = [output.text for cell in opened(path)[1] for output in cell.outputs]
    assert texts[0].startswith("device: ")
    assert texts[0].endswith("\nabout 4 minutes on the book's machine (two cores)\n")
    assert texts[1:] == ["1\n"]


def test_a_notebook_is_run_kept_and_timed(tmp_path, monkeypatch):
    path, times = tmp_path / "tiny.ipynb", tmp_path / "times.json"
    picture = "book.picture(plots.bars({'a': (1, 2, 3)}, 'steps'), 'A bar of two steps')"
    cells = ["from genreplay_core import book, plots", "print('a')\nprint('b')", picture]
    nbformat.write(small(*cells), path)
    times.write_text('{"machine": "this one", "seconds": {}}')
    monkeypatch.setattr(execute, "TIMES", times)
    monkeypatch.setenv("GENREPLAY_PROFILE", "ci")
    assert execute.is_stale(path)
    execute.remember("tiny", execute.execute(path, "ci"), "ci")
    assert not execute.is_stale(path)
    _, code = opened(path)
    assert [cell.execution_count for cell in code] == [1, 2, 3]
    assert code[1].outputs[0].text == "a\nb\n"
    assert code[2].metadata["mystnb"] == {"image": {"alt": "A bar of two steps"}}
    kept = json.loads(times.read_text())
    assert list(kept["seconds"]["ci"]) == ["tiny"]
    assert next(iter(kept["titles"].items())) == ("forgetting", "Watch a network forget")
