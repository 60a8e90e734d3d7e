"""Writing files whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    """Write JSON, indented, without nan (which JSON doesn't have)."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n")
