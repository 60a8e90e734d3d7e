"""The built book as one PDF, for paper and for trains: `python book/pdf.py OUT.pdf`.

Needs what the extra `dev` installs, and a Chromium, whose place CHROMIUM tells if it isn't the
usual one. No other host is asked for anything.
"""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path

import yaml
from playwright.sync_api import Browser, Page, Route, sync_playwright
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


def parts() -> dict[str, list[str]]:
    """The pages of each part of the book, in their order; the first page stands for itself."""
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    rest = {part["caption"]: [each["file"] for each in part["chapters"]] for part in toc["parts"]}
    return {"": [toc["root"]], **rest}


def printed(page: Page, name: str) -> io.BytesIO:
    """A page of the book on sheets of A4, with all that is folded opened."""
    page.goto(f"{HOME}{name}.html", wait_until="load")
    page.evaluate(READY)
    margin = dict.fromkeys(("top", "bottom", "left", "right"), "18mm")
    look = {"format": "A4", "scale": 0.85, "print_background": True, "tagged": True}
    return io.BytesIO(page.pdf(margin=margin, **look))


def make(browser: Browser, site: Path, out: Path) -> None:
    """Print every page and bind them, with an outline. Their links lead to the book online."""

    def answer(route: Route) -> None:
        path = site / route.request.url.removeprefix(HOME).partition("?")[0]
        route.fulfill(path=path) if path.is_file() else route.abort()

    context = browser.new_context(color_scheme="light")
    context.route("**/*", answer)
    page = context.new_page()
    page.emulate_media(media="print")
    bound = PdfWriter()
    for part, names in parts().items():
        begun, above = len(bound.pages), None
        for name in names:
            start = len(bound.pages)
            bound.append(printed(page, name), import_outline=False)
            if part and start == begun:  # only now there is a sheet to point to
                above = bound.add_outline_item(title=part, page_number=start)
            title = page.evaluate(TITLE)
            bound.add_outline_item(title=title, page_number=start, parent=above)
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
