"""Fixtures of the tests against real Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kprod import KafkaProducer
from tests.kafka.cluster import KafkaCluster

MakeProducer = Callable[..., KafkaProducer]


@pytest.fixture
def make_producer() -> Iterator[MakeProducer]:
    """``make_producer(cluster, **options)``: a producer that is closed after the test, whatever happened."""
    made: list[KafkaProducer] = []

    def make(cluster: KafkaCluster, **options: Any) -> KafkaProducer:
        options.setdefault("bootstrap_servers", cluster.bootstrap_servers)
        made.append(KafkaProducer(**options))
        return made[-1]

    yield make
    for producer in made:
        producer.close(timeout=5)
