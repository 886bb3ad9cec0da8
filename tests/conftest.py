"""Fixtures of all tests: real Apache Kafka, started when the first test asks for it.

``kafka``     one node, ``kafka3`` three nodes; a :class:`tests.kafka.cluster.KafkaCluster` for the whole
              session. After each test whatever it killed or paused is up again.
``kafka_secure``  one node that also listens with TLS and SASL.
``topic``     makes topics with names of their own, on the one-node cluster; ``topic3`` on the three nodes,
              ``secure_topic`` on the secure one.

Without Java or Maven the tests that need Kafka are skipped and say why; with ``KPROD_REQUIRE_KAFKA=1`` they
fail.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.kafka.cluster import KafkaCluster

_CLUSTER_FIXTURES = {
    "kafka": "kafka",
    "topic": "kafka",
    "kafka3": "kafka3",
    "topic3": "kafka3",
    "kafka_secure": "kafka",
    "secure_topic": "kafka",
}
_running: dict[str, KafkaCluster] = {}


class TopicFactory:
    """Creates topics whose names no other test has; takes what :meth:`KafkaCluster.create_topic` takes."""

    def __init__(self, cluster: KafkaCluster, test: str, replication: int) -> None:
        self._cluster = cluster
        self._prefix = re.sub(r"[^A-Za-z0-9._-]+", "-", test)[:150].strip("-")
        self._replication = replication
        self.names: list[str] = []

    def name(self) -> str:
        """A new name, of a topic that does not exist."""
        name = f"{self._prefix}-{secrets.token_hex(4)}"
        self.names.append(name)
        return name

    def __call__(
        self,
        partitions: int = 1,
        replication: int | None = None,
        config: Mapping[str, object] | None = None,
        assignment: list[list[int]] | None = None,
    ) -> str:
        replicas = self._replication if replication is None else replication
        return self._cluster.create_topic(self.name(), partitions, replicas, config, assignment)


def start_cluster(name: str, nodes: int, **options: Any) -> Iterator[KafkaCluster]:
    """For fixtures: a cluster made with these options of :class:`KafkaCluster`, until the next step.

    The test is skipped, or fails, where Kafka cannot be run.
    """
    # Not at the top: the tests of wheels have no confluent-kafka, and need none.
    from tests.kafka.cluster import KafkaCluster
    from tests.kafka.distribution import KafkaUnavailable, ensure_distribution

    try:
        distribution = ensure_distribution()
    except KafkaUnavailable as error:
        if os.environ.get("KPROD_REQUIRE_KAFKA") == "1":
            pytest.fail(f"KPROD_REQUIRE_KAFKA=1, but {error}", pytrace=False)
        pytest.skip(f"real Kafka: {error}")
    with KafkaCluster(nodes, distribution=distribution, **options) as cluster:
        _running[name] = cluster
        yield cluster
        del _running[name]
    if cluster.keep_logs:
        print(f"\nbroker logs kept in {cluster.folder}")


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """One real Kafka node, for the whole session."""
    yield from start_cluster("kafka", 1)


@pytest.fixture(scope="session")
def kafka3() -> Iterator[KafkaCluster]:
    """Three real Kafka nodes, for the whole session."""
    yield from start_cluster("kafka3", 3)


@pytest.fixture(scope="session")
def kafka_secure() -> Iterator[KafkaCluster]:
    """One real Kafka node with the listeners of ``tests.kafka.cluster.SECURE_LISTENERS``, for the session."""
    yield from start_cluster("kafka_secure", 1, secure=True)


@pytest.fixture
def topic(kafka: KafkaCluster, request: pytest.FixtureRequest) -> Iterator[TopicFactory]:
    """Makes topics on the one-node cluster; they are deleted after the test."""
    factory = TopicFactory(kafka, request.node.name, replication=1)
    yield factory
    kafka.heal()
    for name in factory.names:
        kafka.delete_topic(name)


@pytest.fixture
def topic3(kafka3: KafkaCluster, request: pytest.FixtureRequest) -> Iterator[TopicFactory]:
    """Makes topics with three replicas on the three-node cluster; they are deleted after the test."""
    factory = TopicFactory(kafka3, request.node.name, replication=3)
    yield factory
    kafka3.heal()
    for name in factory.names:
        kafka3.delete_topic(name)


@pytest.fixture
def secure_topic(kafka_secure: KafkaCluster, request: pytest.FixtureRequest) -> Iterator[TopicFactory]:
    """Makes topics on the secure cluster; they are deleted after the test."""
    factory = TopicFactory(kafka_secure, request.node.name, replication=1)
    yield factory
    kafka_secure.heal()
    for name in factory.names:
        kafka_secure.delete_topic(name)


@pytest.fixture(autouse=True)
def _whole_clusters() -> Iterator[None]:
    """The next test finds its cluster whole, however this one ended."""
    yield
    for cluster in _running.values():
        cluster.heal()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, marker in _CLUSTER_FIXTURES.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """A failed test that used real Kafka shows what the brokers logged, and their logs are kept."""
    report = yield
    if report.failed:
        used = {_CLUSTER_FIXTURES[f] for f in getattr(item, "fixturenames", ()) if f in _CLUSTER_FIXTURES}
        for name in used & _running.keys():
            _running[name].keep_logs = True
            report.sections.append((f"log of {_running[name]}", _running[name].log_tail()))
    return report
