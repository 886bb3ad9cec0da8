"""Fixtures of the searches for secrets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.secrets.disclosure import Output


@pytest.fixture
def output(capfd: pytest.CaptureFixture[str]) -> Iterator[Output]:
    """Everything that is logged (by all loggers, from DEBUG on), warned of and written."""
    with Output(capfd) as everything:
        yield everything
