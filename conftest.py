"""How pytest runs the book's notebooks: in seconds, and without a network."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("GENREPLAY_PROFILE", "ci")

# As many workers as cores, and a kernel for each: with two threads each, they wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What the tests start, kernels above all, is not measured: the workers are the last that are.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

# The kernels find `sitecustomize.py` there, which refuses every host but their own.
OFFLINE = str(Path(__file__).parent / "tests" / "offline")
inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join([OFFLINE, *filter(None, inherited)])
