"""Writing files whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NUMBERS = re.compile(r"\[\n[-+.,\deE\s]+\]")  # no string holds a bare line break


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what was written there becomes `path` at the end.

    A process that dies in between leaves the old file as it was.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, indented, a list of numbers on a line; without nan (which JSON doesn't have)."""
    text = json.dumps(value, indent=1, allow_nan=False)
    text = NUMBERS.sub(lambda found: " ".join(found[0].split()), text)
    with replacing(path) as partial:
        partial.write_text(text + "\n")
