"""Test a service that produces to Kafka, without Kafka: ``pytest examples/testing_with_mock.py``.

Installing kprod installs the fixtures. ``kafka_mock`` is a cluster in the test process that speaks Kafka's
protocol; ``kafka_producer`` makes producers that are connected to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kprod import KafkaError, KafkaProducer
from kprod.testing import MockCluster

# --- the service, which would be in a module of its own -----------------------------------------------------


class OrderPublisher:
    """Publishes orders, and keeps those that could not be."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self.unpublished: list[dict[str, Any]] = []

    def publish(self, order: dict[str, Any]) -> None:
        """Publish an order; it is keyed by its customer."""

        def delivered(error: KafkaError | None, metadata: object) -> None:
            if error is not None:
                self.unpublished.append(order)

        self._producer.send(
            "orders",
            json.dumps(order).encode(),
            key=order["customer"].encode(),
            headers=[("content-type", b"application/json")],
            on_delivery=delivered,
        )

    def finish(self) -> None:
        """Wait until every order is published or kept."""
        self._producer.flush()


# --- its tests ----------------------------------------------------------------------------------------------

MakeProducer = Callable[..., KafkaProducer]


@pytest.fixture
def orders_topic(kafka_mock: MockCluster) -> MockCluster:
    """The topic of the service."""
    kafka_mock.create_topic("orders", partitions=3)
    return kafka_mock


def test_orders_are_published_with_their_key(orders_topic: MockCluster, kafka_producer: MakeProducer) -> None:
    """What is in the topic is what was published."""
    publisher = OrderPublisher(kafka_producer())
    publisher.publish({"id": 17, "customer": "ada"})
    publisher.finish()

    (record,) = orders_topic.records("orders")
    assert record.key == b"ada"
    assert json.loads(record.value or b"") == {"id": 17, "customer": "ada"}
    assert record.headers == [("content-type", b"application/json")]


def test_orders_of_a_customer_stay_in_order(orders_topic: MockCluster, kafka_producer: MakeProducer) -> None:
    """One partition per key, in the order of sending."""
    publisher = OrderPublisher(kafka_producer())
    for number in range(100):
        publisher.publish({"id": number, "customer": f"customer-{number % 5}"})
    publisher.finish()

    ids: dict[bytes | None, list[int]] = {}
    for record in orders_topic.records("orders"):
        ids.setdefault(record.key, []).append(json.loads(record.value or b"")["id"])
    assert len(ids) == 5
    assert all(found == sorted(found) for found in ids.values())


def test_a_lost_answer_does_not_publish_twice(
    orders_topic: MockCluster, kafka_producer: MakeProducer
) -> None:
    """The broker writes, and the connection breaks before it answers."""
    lost = orders_topic.inject("Produce", close_connection="after")
    publisher = OrderPublisher(kafka_producer())
    publisher.publish({"id": 1, "customer": "ada"})
    publisher.finish()

    assert lost.hits == 1
    assert orders_topic.count("orders") == 1
    assert publisher.unpublished == []


def test_refused_orders_are_kept(orders_topic: MockCluster, kafka_producer: MakeProducer) -> None:
    """The service may not write to the topic."""
    orders_topic.inject("Produce", "TOPIC_AUTHORIZATION_FAILED", times=None)
    publisher = OrderPublisher(kafka_producer())
    publisher.publish({"id": 1, "customer": "ada"})
    publisher.finish()

    assert publisher.unpublished == [{"id": 1, "customer": "ada"}]
    assert orders_topic.count("orders") == 0
