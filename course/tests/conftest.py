"""Gives the tests your adapters, and says what a failure teaches instead of where it happened."""

import pytest
import torch


@pytest.fixture
def adapters():
    import adapters

    with torch.enable_grad():  # also if an earlier test's code has left them off
        yield adapters


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and call.excinfo is not None:
        if call.excinfo.errisinstance(NotImplementedError):
            report.longrepr = "not done yet"
        elif call.excinfo.errisinstance(AssertionError):
            report.longrepr = str(call.excinfo.value)
    return report
