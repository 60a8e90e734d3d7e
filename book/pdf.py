"""The built book as one PDF, for paper and for trains: `python book/pdf.py OUT.pdf`.

Needs what the extra `dev` installs, and a Chromium, whose place CHROMIUM tells if it isn't the usual
one. No other host is asked for anything.
"""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path

import yaml
from playwright.sync_api import Browser, Route, sync_playwright
from pypdf import PdfWriter

from genreplay_core.files import replacing

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
HOME = yaml.safe_load((ROOT / "_config.yml").read_text())["html"]["baseurl"]
TITLE = "document.querySelector('h1').firstChild.textContent.trim()"
READY = """async () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  document.querySelectorAll("img").forEach((each) => { each.loading = "eager"; });
  await window.MathJax?.startup?.promise;
  await Promise.all([...document.images].map((each) => each.decode()));
}"""


def chapters() -> list[str]:
    """The pages of the book in their order."""
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    return [toc["root"]] + [each["file"] for part in toc["parts"] for each in part["chapters"]]


def make(browser: Browser, site: Path, out: Path) -> None:
    """Print every page and bind them, with an outline; their links lead to the book online."""

    def answer(route: Route) -> None:
        # asked as the book online, so that links from one page to another hold on paper's successor
        path = site / route.request.url.removeprefix(HOME).partition("?")[0].lstrip("/")
        route.fulfill(path=path) if path.is_file() else route.abort()

    context = browser.new_context(color_scheme="light")
    context.route("**/*", answer)
    page = context.new_page()
    page.emulate_media(media="print")
    bound = PdfWriter()
    for name in chapters():
        page.goto(f"{HOME}/{name}.html", wait_until="load")
        page.evaluate(READY)
        sides = {side: "18mm" for side in ("top", "bottom", "left", "right")}
        printed = page.pdf(format="A4", print_background=True, outline=True, margin=sides)
        bound.append(io.BytesIO(printed), outline_item=page.evaluate(TITLE))
    bound.compress_identical_objects()
    with replacing(out) as partial:
        bound.write(partial)
    context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT.pdf")
    parser.add_argument("--site", type=Path, default=SITE, help="the built book")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        place = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        make(browser, options.site, options.out)


if __name__ == "__main__":
    main()
