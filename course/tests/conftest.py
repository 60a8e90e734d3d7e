"""Gives the tests your adapters, and says what a failure teaches instead of where it happened."""

import pytest


@pytest.fixture
def adapters():
    import adapters

    return adapters


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and call.excinfo is not None:
        if call.excinfo.errisinstance(NotImplementedError):
            report.longrepr = "not done yet"
        elif call.excinfo.errisinstance(AssertionError):
            report.longrepr = str(call.excinfo.value)
    return report
