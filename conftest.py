"""How pytest runs the book's notebooks: in seconds, and without a network."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("GENREPLAY_PROFILE", "ci")

# The kernels find `sitecustomize.py` there, which refuses every host but their own.
OFFLINE = str(Path(__file__).parent / "tests" / "offline")
inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join([OFFLINE, *filter(None, inherited)])
