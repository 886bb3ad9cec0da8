"""The pytest plug-in in the process that runs another client's tests.

That process has the client's checkout as its root, and no ``tests`` package of kprod: the modules of this
folder are top-level modules there.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.compat.suite import OUTCOMES_VARIABLE, SUITE_VARIABLE, Suite, listed
else:
    from suite import OUTCOMES_VARIABLE, SUITE_VARIABLE, listed

_suite: Suite
_outcomes: dict[str, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Put kprod in before any conftest or test module is imported."""
    global _suite
    _suite = importlib.import_module(os.environ[SUITE_VARIABLE]).SUITE
    _suite.swap()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what uses the client's own parts; it is listed with its reason."""
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        name = _name(item.nodeid)
        if listed(_suite.elsewhere, name):
            left_out.append(item)
        elif listed(_suite.private, name):
            _outcomes[name] = "private"
            left_out.append(item)
        else:
            kept.append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Let a signal that a test has sent, and that came late, end the test and not all of them."""
    try:
        return (yield)
    except KeyboardInterrupt as error:
        raise AssertionError("the signal came when nothing waited for it any more") from error


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember how it ended: a test passes if all of its phases do."""
    name = _name(report.nodeid)
    if report.failed:
        _outcomes[name] = "failed"
    elif report.skipped:
        _outcomes[name] = "skipped"
    elif report.when == "call":
        _outcomes.setdefault(name, "passed")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that started this one."""
    with open(os.environ[OUTCOMES_VARIABLE], "w", encoding="utf-8") as file:
        json.dump(_outcomes, file)


def _name(node_id: str) -> str:
    path, _, rest = node_id.partition("::")
    test, bracket, parameters = rest.partition("[")
    return f"{path.rpartition('/')[2]}::{test.rpartition('::')[2]}{bracket}{parameters}"
