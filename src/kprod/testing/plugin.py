"""pytest fixtures for testing code that produces to Kafka. Installed with kprod; nothing to import.

By default everything runs against a :class:`~kprod.testing.MockCluster`. With ``--kafka-bootstrap`` or the
environment variable ``KAFKA_BOOTSTRAP_SERVERS`` the tests that do not ask for the mock cluster itself run
against real brokers.

To change the mock cluster, override the fixture ``kafka_mock_options``::

    @pytest.fixture(scope="session")
    def kafka_mock_options():
        return {"brokers": 3, "default_partitions": 6}
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kprod import KafkaProducer
    from kprod.testing.mock_cluster import MockCluster

CLOSE_TIMEOUT = 10.0
"""Seconds that a producer of the fixture ``kafka_producer`` gets to send the rest when its test ends."""

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for real brokers."""
    parser.getgroup("kafka").addoption(
        "--kafka-bootstrap",
        metavar="HOST:PORT,...",
        default=os.environ.get("KAFKA_BOOTSTRAP_SERVERS"),
        help="run tests against these Kafka brokers instead of the mock cluster "
        "(default: the environment variable KAFKA_BOOTSTRAP_SERVERS)",
    )


@pytest.fixture(scope="session")
def kafka_mock_options() -> dict[str, Any]:
    """Arguments of the mock clusters; override it to change them."""
    return {}


@pytest.fixture(scope="session")
def kafka_mock_session(kafka_mock_options: dict[str, Any]) -> Iterator[MockCluster]:
    """One mock cluster for the whole test run. Use :meth:`MockCluster.clear` where a test needs it empty."""
    # Imported here, so that test runs without Kafka do not pay for it.
    from kprod.testing.mock_cluster import MockCluster

    with MockCluster(**kafka_mock_options) as cluster:
        yield cluster


@pytest.fixture
def kafka_mock(kafka_mock_options: dict[str, Any]) -> Iterator[MockCluster]:
    """A mock cluster of its own for the test; it starts within milliseconds."""
    from kprod.testing.mock_cluster import MockCluster

    with MockCluster(**kafka_mock_options) as cluster:
        yield cluster


def _cluster_of(request: pytest.FixtureRequest) -> MockCluster | None:
    """The mock cluster the test runs on: the one it asks for, else a new one, ``None`` with real brokers."""
    for name in ("kafka_mock", "kafka_mock_session"):
        if name in request.fixturenames:
            cluster: MockCluster = request.getfixturevalue(name)
            return cluster
    if request.config.getoption("--kafka-bootstrap"):
        return None
    new: MockCluster = request.getfixturevalue("kafka_mock")
    return new


@pytest.fixture
def kafka_bootstrap_servers(request: pytest.FixtureRequest) -> str:
    """Where the test's Kafka is: ``host:port,host:port``."""
    cluster = _cluster_of(request)
    if cluster is not None:
        return cluster.bootstrap_servers
    return str(request.config.getoption("--kafka-bootstrap"))


@pytest.fixture
def kafka_producer(
    request: pytest.FixtureRequest, kafka_bootstrap_servers: str
) -> Iterator[Callable[..., KafkaProducer]]:
    """A function that makes producers: ``kafka_producer(acks=1)``; they are closed when the test ends.

    It takes the options of :class:`kprod.KafkaProducer`; ``bootstrap_servers`` is set unless it is given.
    """
    from kprod import KafkaProducer

    producers: list[KafkaProducer] = []

    def make(**options: Any) -> KafkaProducer:
        options.setdefault("bootstrap_servers", kafka_bootstrap_servers)
        producer = KafkaProducer(**options)
        producers.append(producer)
        return producer

    yield make
    for producer in reversed(producers):
        producer.close(timeout=CLOSE_TIMEOUT)


@pytest.fixture
def kafka_topic(request: pytest.FixtureRequest) -> str:
    """The name of a topic that no other test uses.

    In a mock cluster it exists already; real brokers have to create it when it is first used
    (``auto.create.topics.enable``).
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", request.node.name)[:180]
    cluster = _cluster_of(request)
    if cluster is None:
        # Test runs share real brokers, and names must not collide there.
        return f"{stem}-{os.getpid()}-{os.urandom(4).hex()}"
    name = f"{stem}-{next(_numbers)}"
    cluster.create_topic(name, request.getfixturevalue("kafka_mock_options").get("default_partitions", 1))
    return name
