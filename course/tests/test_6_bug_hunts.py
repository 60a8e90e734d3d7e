"""Public tests of the bug hunts. A part is done when all tests of it pass."""

from genreplay_core.course import expect, material

FAULTY = (material() / "pipelines.py").read_text(encoding="utf-8")


def catches(adapters, name):
    idea = "your test passes the faulty pipeline: find an input for which a right one must differ"
    expect(adapters.hunt(name, FAULTY), idea)


def passes(adapters, name):
    said = adapters.hunt(name, "")
    expect(not said, f"your test fails your own mended version: {said}")


def test_6a_your_test_catches_the_fault(adapters):
    catches(adapters, "normalised")


def test_6a_your_version_passes_it(adapters):
    passes(adapters, "normalised")


def test_6b_your_test_catches_the_fault(adapters):
    catches(adapters, "evaluated")


def test_6b_your_version_passes_it(adapters):
    passes(adapters, "evaluated")


def test_6c_your_test_catches_the_fault(adapters):
    catches(adapters, "rehearsed")


def test_6c_your_version_passes_it(adapters):
    passes(adapters, "rehearsed")


def test_6d_your_test_catches_the_fault(adapters):
    catches(adapters, "early_stopped")


def test_6d_your_version_passes_it(adapters):
    passes(adapters, "early_stopped")
