"""What aiokafka's conftest gives its tests, with a broker that is there instead of one in Docker."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.compat.suite import CERTIFICATES_VARIABLE, TLS_VARIABLE, broker_address
else:
    from suite import CERTIFICATES_VARIABLE, TLS_VARIABLE, broker_address


@pytest.fixture(scope="class")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop of a test class."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield made
    made.close()
    gc.collect()
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def collect_garbage() -> Iterator[None]:
    """Warnings about what is not closed come with the test that they belong to."""
    yield
    gc.collect()


@pytest.fixture(scope="class")
def setup_test_class(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> None:
    """The attributes that ``KafkaIntegrationTestCase`` expects."""
    cls: Any = request.cls
    cls.loop = loop
    cls.kafka_host, cls.kafka_port = broker_address()
    cls.hosts = [f"{cls.kafka_host}:{cls.kafka_port}"]
    cls.kafka_ssl_port = broker_address(TLS_VARIABLE)[1]
    cls.ssl_folder = pathlib.Path(os.environ[CERTIFICATES_VARIABLE])
    cls.kafka_version = "4.1.1"
