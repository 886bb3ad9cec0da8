"""Fixtures: a registry in the test process, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kprod.schema_registry import SchemaRegistryClient
from tests.schema_registry.server import RegistryServer


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    """A registry of the test's own."""
    made = RegistryServer()
    yield made
    made.close()


@pytest.fixture
def registry(server: RegistryServer) -> Iterator[SchemaRegistryClient]:
    """A client of it, whose retries take no time."""
    with SchemaRegistryClient(server.url, retry_backoff_ms=1) as made:
        yield made
