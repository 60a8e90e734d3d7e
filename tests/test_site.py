"""The built site in a real browser: every page, and what answers on them.

    jupyter-book build book && GENREPLAY_SITE=_build/html pytest tests/test_site.py

All hosts but a local server are blocked. Needs playwright (in the extra `dev`) and a Chromium,
whose place CHROMIUM tells if it isn't the usual one.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from test_dreamer import dreamt, read

from genreplay_core.course import module

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"

if "GENREPLAY_SITE" not in os.environ:
    pytest.skip("GENREPLAY_SITE names no built site", allow_module_level=True)

SITE = Path(os.environ["GENREPLAY_SITE"]).resolve()
PAGES = sorted(path.name for path in SITE.glob("*.html"))
CHAPTERS = sorted(path.stem for path in BOOK.glob("*.ipynb"))
STILL = "* { transition: none !important; animation: none !important }"  # colours as they end up
# Pieces of code of one kind have one colour: all but the first lose their own element.
THINNED = """
    const seen = new Set();
    for (const piece of document.querySelectorAll(".highlight span, dt.sig span")) {
        const kind = [piece, piece.closest(".highlight, dt").parentElement].map(e => e.className);
        if (seen.has(kind.join())) piece.replaceWith(...piece.childNodes);
        seen.add(kind.join());
    }
    document.body.normalize();
"""
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


HOME = "/genreplay"  # where the book stands on its host


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def translate_path(self, path):
        return super().translate_path(path.removeprefix(HOME))


@pytest.fixture(scope="module")
def address():
    """Of the site, served on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{HOME}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright  # who tests no site needs none

    with sync_playwright() as playwright:
        place = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        started = playwright.chromium.launch(executable_path=place, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture
def opened(browser, address):
    """Opens a page; what goes wrong on it is kept, and must be nothing in the end."""
    wrong: list[str] = []
    contexts = []

    def outside(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            wrong.append(f"asks {route.request.url}")
            route.abort()

    def failed(request):
        if request.failure != "net::ERR_ABORTED":  # as when one leaves before all is there
            wrong.append(f"{request.failure}: {request.url}")

    def open_page(name, width=1280, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        context.route("**/*", outside)
        page = context.new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        if options.get("java_script_enabled", True):  # else nobody takes what was preloaded
            page.on("requestfailed", failed)
        page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status > 399 else 0)
        page.goto(f"{address}/{name}", wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def result(name: str) -> dict:
    return json.loads((BOOK / "results" / f"{name}.json").read_text())


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


# ---------------------------------------------------------------- every page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_whole_and_fits_the_screen(opened, name):
    page = opened(name, width=390)
    page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    page.wait_for_function("[...document.images].every(i => i.complete)")
    broken = "[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
    assert page.evaluate(broken) == []
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_opens_in_colab_and_says_what_its_pictures_show(opened, name):
    page = opened(f"{name}.html")
    links = page.eval_on_selector_all("a[href*='colab.research']", "all => all.map(a => a.href)")
    assert links
    assert all(link.endswith(f"/blob/main/book/{name}.ipynb") for link in links)
    silent = "[...document.images].filter(i => i.closest('.bd-article') && i.alt.length < 20)"
    assert page.evaluate(f"{silent}.map(i => i.src)") == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_by_everybody(opened, name):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(name)
    page.add_style_tag(content=STILL)
    page.evaluate(f"() => {{ {THINNED} }}")
    asked = {"resultTypes": ["violations"], "preload": False}  # it would look for wrong files
    for mode in ("light", "dark"):
        page.emulate_media(color_scheme=mode)
        page.wait_for_function(f"document.documentElement.dataset.theme === '{mode}'")
        found = Axe().run(page, options=asked).response["violations"]
        grave = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(each["help"], each["nodes"][0]["html"]) for each in grave] == []


def test_the_first_page_is_light(opened, address):
    page = opened("index.html")
    page.wait_for_load_state("networkidle")
    asked = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    paths = {SITE / url.removeprefix(address).partition("?")[0][1:] for url in [page.url, *asked]}
    sizes = [len(gzip.compress(path.read_bytes())) for path in paths]  # as servers send them
    assert len(sizes) > 10
    assert sum(sizes) < 1e6


def test_formulas_are_typeset_without_a_network(opened):
    page = opened("a-vae.html")
    page.wait_for_selector("mjx-container", timeout=20_000)
    assert page.locator("mjx-merror").count() == 0


def test_pages_follow_one_another(opened):
    page = opened("index.html")
    page.click("a.right-next")
    assert page.url.endswith("/forgetting.html")
    page.click("a.left-prev")
    assert page.url.endswith("/index.html")


def test_the_search_finds_a_word(opened):
    page = opened("search.html?q=scholar")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert page.locator("#search-results li a[href*='generative-replay']").count()


def test_the_book_is_bound_as_one_pdf(browser, tmp_path):
    from pypdf import PdfReader

    pdf = module(BOOK / "pdf.py")
    pdf.make(browser, SITE, tmp_path / "book.pdf")
    assert (tmp_path / "book.pdf").stat().st_size < 30e6
    bound = PdfReader(tmp_path / "book.pdf")
    parts = list(pdf.parts().values())
    named = [each for each in bound.outline if not isinstance(each, list)]
    nested = [each for each in bound.outline if isinstance(each, list)]
    assert len(named) == len(parts)
    assert [len(each) for each in nested] == [len(pages) for pages in parts[1:]]
    first = bound.get_destination_page_number(nested[0][0])
    said = bound.pages[first].extract_text()
    assert nested[0][0].title in said


def test_the_library_names_types_and_defaults_as_the_code_does():
    said = (SITE / "api.html").read_text()
    assert "ArrayLike" in said
    assert not re.search(r"_SupportsArray|&lt;function", said)


def test_a_map_for_search_engines_names_every_page():
    addresses = re.findall(r"<loc>(.*?)</loc>", (SITE / "sitemap.xml").read_text())
    names = [address.rpartition("/")[2] for address in addresses]
    assert {f"{name}.html" for name in CHAPTERS} <= set(names) <= {*PAGES} - {"404.html"}
    assert len({address.rpartition("/")[0] for address in addresses}) == 1


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_that_is_sent_to_somebody_has_a_card(name):
    said = (SITE / f"{name}.html").read_text()
    card = dict(re.findall(r'property="og:(\w+)" content="([^"]*)"', said))
    assert card["url"].endswith(f"/{name}.html")
    assert (SITE / card["image"].partition(f"{HOME}/")[2]).stat().st_size > 1000


def test_the_site_is_small():
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < 60e6


# ---------------------------------------------------------------- the front page's figure


def shown(page) -> list[list[str]]:
    """What the bars of each network say."""
    read = "all => all.map(p => [...p.querySelectorAll('.gr-value')].map(v => v.textContent))"
    return page.eval_on_selector_all("#front-figure .gr-panel", read)


def known(at: int) -> list[list[str]]:
    """What they should say at a look, by the stored result."""
    points = [row["runs"][0]["curve"][at] for row in result("front")["rows"]]
    return [
        [percent(a) for a in point["accuracy"]] + ["not met"] * (4 - point["task"])
        for point in points
    ]


def test_the_front_figure_is_scrubbed_by_the_keyboard(opened):
    page = opened("index.html")
    last = len(result("front")["rows"][0]["runs"][0]["curve"]) - 1
    assert shown(page) == known(last)
    slider = page.locator("#front-figure input")
    slider.focus()
    page.keyboard.press("Home")
    assert shown(page) == known(0)
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    assert shown(page) == known(12)
    assert slider.get_attribute("aria-valuetext").startswith("step 650: learning digits")


def test_the_front_figure_plays_and_is_stopped_by_the_mouse(opened):
    page = opened("index.html", 390)
    button = page.locator("#front-figure button")
    button.click()
    page.wait_for_function("document.querySelector('#front-figure input').value >= 2")
    assert button.text_content() == "Pause"
    button.click()
    at = int(page.locator("#front-figure input").input_value())
    assert button.text_content() == "Play"
    assert shown(page) == known(at)


def test_without_javascript_the_front_page_has_a_picture(opened):
    page = opened("index.html", java_script_enabled=False)
    assert page.locator(".tag_interactive-front img").is_visible()


# ---------------------------------------------------------------- all results


def test_every_study_is_there_with_its_means(opened):
    page = opened("explore.html")
    select = page.locator("[data-interactive=explore] select").first
    titles = select.locator("option").all_text_contents()
    stored = {found["title"]: found for found in map(result, studies_with_results())}
    assert sorted(titles) == sorted(stored)
    for at, title in enumerate(titles):
        select.select_option(str(at))
        rows = [row for row in stored[title]["rows"] if row["seeds"]]
        said = page.locator(".gr-rows tbody tr td:nth-child(3)").all_text_contents()
        means = [row["average_accuracy"]["mean"] for row in rows]
        assert [float(s.rstrip(" %")) for s in said] == pytest.approx(
            [100 * mean for mean in means], abs=0.0501
        )


def studies_with_results() -> list[str]:
    names = [path.stem for path in (BOOK / "experiments").glob("*.toml")]
    return [name for name in names if (BOOK / "results" / f"{name}.json").is_file()]


def test_an_accuracy_matrix_is_read_with_the_arrow_keys(opened):
    page = opened("explore.html", 390)
    select = page.locator("[data-interactive=explore] select").first
    found = result("front")
    select.select_option(label=found["title"])
    page.get_by_role("button", name="rehearses its dreams").click()
    page.locator(".gr-matrix td[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    value = found["rows"][1]["runs"][0]["accuracy_matrix"][2][1]
    said = page.locator("[data-interactive=explore] output").text_content()
    percents = re.findall(r"[\d.]+(?= %)", said)
    assert [float(p) for p in percents] == pytest.approx([100 * value], abs=0.0501)
    assert "After learning 2 of 5 tasks" in said
    assert "task 2 " in said


def test_of_a_hundred_tasks_every_fifth_is_shown(opened):
    page = opened("explore.html")
    found = result("hundred-tasks")
    page.locator("[data-interactive=explore] select").first.select_option(label=found["title"])
    page.locator(".gr-matrix td[tabindex='0']").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    value = found["rows"][0]["runs"][0]["accuracy_matrix"][10][5]
    said = page.locator("[data-interactive=explore] output").text_content()
    assert said.startswith(f"After learning 10 of 100 tasks, {100 * value:.1f}")
    assert "of task 6 (permutation 5) is read rightly" in said


# ---------------------------------------------------------------- the live dreamer

DREAMER = BOOK / "dreamer" / "scholars.json"


def scholars() -> dict:
    return json.loads(DREAMER.read_text())


def painted(page, selector: str = ".gr-dream") -> np.ndarray:
    """The pixels (h * w, 3) of a canvas, 0..255."""
    read = """place => {
        const { width, height } = place;
        return [...place.getContext("2d").getImageData(0, 0, width, height).data];
    }"""
    return np.array(page.locator(selector).first.evaluate(read)).reshape(-1, 4)[:, :3]


def probabilities(page) -> list[float]:
    said = page.locator(".gr-short .gr-value").all_text_contents()
    return [float(each.rstrip(" %")) / 100 for each in said]


def assert_dreams(page, told: dict) -> None:
    """The page shows the picture and the probabilities that PyTorch found at full precision."""
    wanted = np.frombuffer(base64.b64decode(told["pixels"]), np.uint8)
    off = np.abs(painted(page) - wanted[:, None].astype(int))
    assert off.max() < 16
    assert off.mean() < 1
    assert probabilities(page) == pytest.approx(told["probabilities"], abs=0.002)


def choose(page, group: str, value: int) -> None:
    """Choose one of a row of options by the mouse."""
    page.locator(f"input[name=gr-{group}][value='{value}']").click()


def test_the_dreamer_dreams_and_reads_as_pytorch_does(opened):
    page = opened("dreamer.html")
    found = scholars()
    drawn = [told for told in found["references"] if told["dream"]]
    assert len(drawn) == 10
    for told in drawn:
        choose(page, "frozen", told["task"])
        choose(page, "asked", told["digit"])
        page.get_by_role("button", name="The most typical").click()
        for _ in range(told["dream"]):
            page.get_by_role("button", name="Another dream").click()
        assert_dreams(page, told)
        best = int(np.argmax(told["probabilities"]))
        said = page.locator("[data-part=ask] output").text_content()
        assert f"Asked for a {told['digit']}." in said
        assert f"Its solver sees a {best}" in said
        assert (", too" in said) == (best == told["digit"])
        row = found["quantised_accuracy_matrix"][told["task"]][: told["task"] + 1]
        assert f"{100 * np.mean(row):.1f} %" in page.locator("[data-part=ask]").text_content()


def test_where_the_dreamer_doubts_it_doubts_as_pytorch_does(opened):
    page = opened("dreamer.html")
    found = scholars()
    most = []
    for digit, slider in ((5, 0), (9, 1), (9, 2), (8, 1)):
        choose(page, "asked", digit)
        page.get_by_role("button", name="The most typical").click()
        page.locator(".gr-slider input").nth(slider).press("Home")
        z = [0.0] * 16
        z[found["sliders"][slider]] = -3.0
        wanted = dreamt(found["scholars"][4], digit, z)
        assert np.abs(painted(page)[:, 0] - 255 * wanted.numpy()).max() < 1
        answers = read(found["scholars"][4], wanted).tolist()
        assert probabilities(page) == pytest.approx(answers, abs=0.001)
        most.append(max(answers))
    assert min(most) < 0.6  # it does doubt


def test_the_dreamer_is_led_by_the_keyboard(opened):
    page = opened("dreamer.html", 390)
    found = scholars()
    typical, moved = (told for told in found["references"] if told["dream"] == 0)
    page.locator("input[name=gr-frozen]:checked").focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")  # from after 5 tasks to after 3
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # from 3 to 4
    page.get_by_role("button", name="The most typical").press("Enter")
    assert_dreams(page, typical)
    sliders = page.locator(".gr-slider input")
    for at, (key, times) in enumerate([("ArrowRight", 10), ("ArrowLeft", 20)]):
        sliders.nth(at).focus()
        for _ in range(times):
            page.keyboard.press(key)
    assert_dreams(page, moved)
    assert page.locator(".gr-slider .gr-value").all_text_contents()[:2] == ["1.0", "\u22122.0"]


def test_the_dreamer_says_which_digits_it_has_met(opened):
    page = opened("dreamer.html")
    options = page.locator("input[name=gr-asked]")
    for task in range(5):
        choose(page, "frozen", task)
        names = options.evaluate_all("all => all.map(each => each.ariaLabel)")
        met = 2 * (task + 1)
        assert names == [f"{d}" if d < met else f"{d}, not met yet" for d in range(10)]
    choose(page, "frozen", 0)
    choose(page, "asked", 9)
    said = page.locator("[data-part=ask] output").text_content()
    assert "which it hasn't met yet" in said
    assert sum(probabilities(page)[:2]) > 0.9  # its solver knows two answers


def drifted(page, found: dict, task: int) -> None:
    """The gallery shows the scholar of that task's end."""
    said = page.locator("[data-part=drift] output").text_content()
    assert said.startswith(f"After task {task + 1} (digits {2 * task}, {2 * task + 1})")
    told = found["drift"][task]
    right, dreams, changed = re.search(r"reads (\d+) of (\d+) .* by ([\d.]+) on", said).groups()
    assert int(dreams) == told["dreams"]
    assert int(right) == pytest.approx(told["right"], abs=1)
    assert float(changed) == pytest.approx(told["changed"], abs=0.002)
    met = page.locator(".gr-cell").evaluate_all("all => all.map(each => each.dataset.met)")
    assert met == 3 * (["true"] * 2 * (task + 1) + ["false"] * (8 - 2 * task))
    first = next(t for t in found["references"] if (t["task"], t["digit"]) == (task, 0))
    wanted = np.frombuffer(base64.b64decode(first["pixels"]), np.uint8)  # dream 1 of a 0
    assert np.abs(painted(page, ".gr-cell canvas")[:, 1] - wanted.astype(int)).max() < 16


def test_dreams_drift_by_slider_buttons_and_arrow_keys(opened):
    page = opened("dreamer.html", 390)
    found = scholars()
    drifted(page, found, 4)
    page.get_by_role("button", name="Earlier").click()
    drifted(page, found, 3)
    page.keyboard.press("ArrowLeft")  # the button has the focus
    drifted(page, found, 2)
    page.locator("[data-part=drift] input[type=range]").press("Home")
    drifted(page, found, 0)
    assert page.locator("[data-part=drift] output").text_content().endswith(" 0.000 on average.")
    page.keyboard.press("ArrowRight")
    drifted(page, found, 1)
    page.get_by_role("button", name="Later").click()
    drifted(page, found, 2)


def test_dreams_that_are_taken_for_another_digit_are_framed(opened):
    page = opened("dreamer.html")
    cells = page.locator(".gr-cell")
    for _ in range(30):
        said = page.locator("[data-part=drift] output").text_content()
        right, dreams = map(int, re.search(r"reads (\d+) of (\d+)", said).groups())
        taken = cells.evaluate_all("all => all.map(each => each.dataset.read)")
        assert sum(map(bool, taken)) == dreams - right
        if any(taken):
            break
        page.get_by_role("button", name="Other dreams").click()
    assert any(taken)
    assert all(read != str(i % 10) for i, read in enumerate(taken))
    frames = cells.evaluate_all("all => all.map(each => getComputedStyle(each).borderTopColor)")
    assert len({frames[i] for i, read in enumerate(taken) if not read}) == 1
    assert len(set(frames)) == 2


def test_what_has_changed_is_coloured(opened):
    page = opened("dreamer.html")
    now = painted(page, ".gr-cell canvas")
    assert (now == now[:, :1]).all()  # grey
    page.get_by_label("colour what has changed").check()
    coloured = painted(page, ".gr-cell canvas")
    assert (coloured[:, 1:] == now[:, 1:]).all()
    page.locator("[data-part=drift] input[type=range]").press("Home")
    before = painted(page, ".gr-cell canvas")
    assert (coloured[:, 0] == before[:, 0]).all()
    assert (coloured[:, 0] != now[:, 0]).any()


def test_the_dreamer_works_from_a_folder_without_a_server(browser):
    page = browser.new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((SITE / "dreamer.html").as_uri())
    page.get_by_role("button", name="Another dream").click()
    assert painted(page).max() > 200
    assert wrong == []
    page.close()


def test_without_javascript_and_in_print_the_dreams_are_a_picture(opened):
    page = opened("dreamer.html", java_script_enabled=False)
    assert page.locator("#dreams img").is_visible()
    page = opened("dreamer.html")
    assert page.locator(".gr-dream").is_visible()
    assert not page.locator("#dreams").is_visible()
    page.emulate_media(media="print")
    assert page.locator("#dreams img").is_visible()
    assert not page.locator(".gr-dream").is_visible()
