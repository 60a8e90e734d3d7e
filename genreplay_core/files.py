"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUMBERS = re.compile(r"\[\n[-+.,\deE\s]+\]")  # no string holds a bare line break


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; what was written there becomes `path` at the end.

    A process that dies in between leaves the old file as it was.

    Raises:
        OSError: it can't be written; says which file, and why.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield partial
        with open(partial, "rb+") as written:
            os.fsync(written.fileno())  # on the disk before it bears the name
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def tidy(path: Path) -> None:
    """Remove what writers of `path` that died while they wrote have left beside it."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*"):
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, indented, a list of numbers on a line; without nan (which JSON doesn't have)."""
    text = json.dumps(value, indent=1, allow_nan=False)
    text = NUMBERS.sub(lambda found: " ".join(found[0].split()), text)
    with replacing(path) as partial:
        partial.write_text(text + "\n")


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """What JSON is to hold, with a checksum of it, by which `unsealed` sees that it has changed.
    It guards against accidents, not against somebody who makes a new checksum."""
    text = json.dumps(content, sort_keys=True)
    return {**content, "checksum": hashlib.sha256(text.encode()).hexdigest()[:16]}


def unsealed(found: dict[str, Any]) -> dict[str, Any]:
    """The content without its checksum, if it has one (older files have none).

    Raises:
        ValueError: the content isn't what was sealed.
    """
    content = {name: value for name, value in found.items() if name != "checksum"}
    if "checksum" in found and sealed(content) != found:
        raise ValueError("its checksum is another: if you changed it, remove the line 'checksum'")
    return content
