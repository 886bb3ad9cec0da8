"""Fixtures: three real brokers behind proxies, and a seed that is printed.

``KPROD_FAULT_SEED`` gives the seed; without it a failed test names the one to repeat it with.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from kprod import KafkaProducer
from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.stream import MakeProducer
from tests.kafka.distribution import KafkaUnavailable, ensure_distribution

_SEED = int(os.environ.get("KPROD_FAULT_SEED") or secrets.randbelow(1 << 31))

# Transactions whose time is over are looked for every ten seconds by default.
_SERVER_PROPERTIES: dict[str, Any] = {"transaction_abort_timed_out_transaction_cleanup_interval_ms": 500}


def pytest_report_header() -> str:
    return f"faults: KPROD_FAULT_SEED={_SEED}"


@pytest.fixture(scope="session")
def fault_seed() -> int:
    """The seed of the session's faults. Only where there is Kafka to make them for."""
    try:
        ensure_distribution()
    except KafkaUnavailable as error:
        if os.environ.get("KPROD_REQUIRE_KAFKA") == "1":
            pytest.fail(f"KPROD_REQUIRE_KAFKA=1, but {error}", pytrace=False)
        pytest.skip(f"real Kafka: {error}")
    return _SEED


@pytest.fixture(scope="session")
def _three_brokers(fault_seed: int) -> Iterator[FaultyCluster]:
    with FaultyCluster(3, seed=fault_seed, **_SERVER_PROPERTIES) as cluster:
        yield cluster
    if cluster.keep_logs:
        print(f"\nbroker logs kept in {cluster.folder}")


@pytest.fixture
def brokers(_three_brokers: FaultyCluster, request: pytest.FixtureRequest) -> Iterator[FaultyCluster]:
    """The cluster, whole and with nothing wrong; faults have a seed of the session's and the test's name."""
    seed = _SEED ^ zlib.crc32(request.node.name.encode())
    _three_brokers.network.reseed(seed)
    print(f"KPROD_FAULT_SEED={_SEED}: this test's seed is {seed}")
    yield _three_brokers
    _three_brokers.heal()


@pytest.fixture
def topic(brokers: FaultyCluster, request: pytest.FixtureRequest) -> Iterator[TopicFactory]:
    """Makes topics with three replicas; they are deleted after the test."""
    factory = TopicFactory(brokers, request.node.name, replication=3)
    yield factory
    brokers.heal()
    for name in factory.names:
        brokers.delete_topic(name)


@pytest.fixture
def make_producer(brokers: FaultyCluster) -> Iterator[MakeProducer]:
    """``make_producer(**options)``: a producer that reaches the brokers through the proxies."""
    made: list[KafkaProducer] = []

    def make(**options: Any) -> KafkaProducer:
        options.setdefault("bootstrap_servers", brokers.faulty_servers)
        made.append(KafkaProducer(**options))
        return made[-1]

    yield make
    brokers.network.heal()
    for producer in made:
        producer.close(timeout=5)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "brokers" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka3")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """A failed test shows what the brokers logged; their logs are kept."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("brokers")
    if report.failed and cluster is not None:
        cluster.keep_logs = True
        report.sections.append((f"log of {cluster}", cluster.log_tail()))
    return report
