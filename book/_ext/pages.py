"""What is mended on every page of the site, after the theme and its friends have made it."""

from typing import Any


def header(app: Any, config: Any) -> None:
    """Have none above the pages: the sidebar has the search already."""
    config.html_theme_options["navbar_persistent"] = []


def roles(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Let a list of references hold items: the role that docutils gives them is no item's, and
    has been withdrawn from the standard."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def scripts(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out scripts that Jupyter Book adds a second time, which would be an error, and MathJax,
    a megabyte, where there is no formula."""
    files = context.get("script_files", [])
    each = {(file.filename or "", file.attributes.get("body")): file for file in files}
    formulas = 'class="math' in context.get("body", "")
    context["script_files"] = [
        file for (name, _), file in each.items() if formulas or "mathjax" not in name
    ]


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", header)
    app.connect("html-page-context", roles)
    app.connect("html-page-context", scripts, priority=900)
    return {"parallel_read_safe": True}
