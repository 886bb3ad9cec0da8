"""Fixtures for the tests of KafkaProducer on the mock cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod.testing import MockCluster

MakeCluster = Callable[..., MockCluster]
MakeProducer = Callable[..., KafkaProducer]
Eventually = Callable[[Callable[[], object]], None]

needs_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no signal for one process, only keys of a console"
)

PATIENCE = 15.0
"""Seconds after which something that should happen counts as not happening."""


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Makes mock clusters; at the end of the test each must have understood everything it was sent."""
    clusters: list[MockCluster] = []

    def make(*args: Any, **kwargs: Any) -> MockCluster:
        clusters.append(MockCluster(*args, **kwargs))
        return clusters[-1]

    yield make
    problems = [problem for cluster in clusters for problem in cluster.problems]
    for cluster in clusters:
        cluster.close()
    assert problems == []


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> MockCluster:
    """A mock cluster of one broker with the topic ``t``, which has one partition."""
    made = make_cluster()
    made.create_topic("t")
    return made


@pytest.fixture
def make_producer(request: pytest.FixtureRequest, make_cluster: MakeCluster) -> Iterator[MakeProducer]:
    """Makes producers for the fixture ``cluster``, or for one given first; they are closed at the end.

    Pauses are short by default, so that retries take no time. Clusters outlive producers: hence make_cluster.
    """
    producers: list[KafkaProducer] = []

    def make(
        on: MockCluster | None = None, /, kind: type[KafkaProducer] = KafkaProducer, **options: Any
    ) -> KafkaProducer:
        if "bootstrap_servers" not in options:
            options["bootstrap_servers"] = (on or request.getfixturevalue("cluster")).bootstrap_servers
        for name, value in {
            "retry_backoff_ms": 5,
            "retry_backoff_max_ms": 20,
            "reconnect_backoff_ms": 5,
            "reconnect_backoff_max_ms": 20,
        }.items():
            options.setdefault(name, value)
        producers.append(kind(**options))
        return producers[-1]

    yield make
    for producer in producers:
        producer.close(timeout=0.5)


@pytest.fixture
def producer(make_producer: MakeProducer) -> KafkaProducer:
    """A producer for the fixture ``cluster`` with the default options."""
    return make_producer()


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition holds; fails when it does not for long."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "what was waited for did not happen"
            time.sleep(0.002)

    return wait
