"""The Prometheus collector, as a scrape sees it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kprod import errors
from kprod.aio import AsyncKafkaProducer
from kprod.prometheus import ProducerCollector
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeProducer

LABELS = ("client_id", "topic", "broker")


def scrape(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value, read by prometheus_client's own parser."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, *(sample.labels[name] for name in LABELS if name in sample.labels)): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_a_scrape_has_what_was_sent(
    make_producer: MakeProducer, cluster: MockCluster, registry: CollectorRegistry
) -> None:
    producer = make_producer(client_id="one", buffer_memory=1 << 20)
    with ProducerCollector(producer, registry):
        for _ in range(5):
            producer.send("t", b"v" * 100)
        producer.flush()
        cluster.inject("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=1)
        with pytest.raises(errors.TopicAuthorizationFailedError):
            producer.send("t", b"refused").get(10)
        found = scrape(registry)
        assert found["kprod_records_acked_total", "one"] == 5
        assert found["kprod_records_failed_total", "one"] == 1
        assert found["kprod_topic_records_acked_total", "one", "t"] == 5
        assert found["kprod_topic_records_sent_total", "one", "t"] == 6
        assert found["kprod_buffer_bytes", "one"] == 1 << 20
        assert found["kprod_healthy", "one"] == 1
        assert found["kprod_broker_connected", "one", "1"] == 1
        count = found["kprod_broker_request_seconds_count", "one", "1"]
        total = found["kprod_broker_request_seconds_sum", "one", "1"]
        assert count >= 2 and 0 < total < 60, "seconds"
        assert total / count <= found["kprod_broker_request_seconds_max", "one", "1"] < 60
        producer.close()
        assert scrape(registry)["kprod_healthy", "one"] == 0
    assert scrape(registry) == {}


def test_several_producers_in_one_registry(make_producer: MakeProducer, registry: CollectorRegistry) -> None:
    first, second = make_producer(client_id="one"), make_producer(client_id="two")
    one = ProducerCollector(first, registry)
    two = ProducerCollector(second, registry, topics=False, brokers=False)
    with pytest.raises(ValueError, match="client_id 'one' already"):
        ProducerCollector(first, registry)
    second.send("t", b"v").get(10)
    found = scrape(registry)
    assert found["kprod_records_acked_total", "one"] == 0
    assert found["kprod_records_acked_total", "two"] == 1
    assert not any("two" in key[1:] and key[0].startswith("kprod_topic") for key in found)
    one.unregister()
    one.unregister()
    assert {key[1] for key in scrape(registry)} == {"two"}
    two.unregister()
    # The names are free again.
    Counter("kprod_records_sent", "somebody else's", registry=registry)


def test_a_producer_is_not_kept_alive(make_producer: MakeProducer, registry: CollectorRegistry) -> None:
    class Stand:
        """Has what is read, and can go."""

        def __init__(self, real: Any) -> None:
            self.config: dict[str, Any] = {"client_id": "stand-in"}
            self.metrics, self.healthy = real.metrics, real.healthy

    stand = Stand(make_producer())
    collector = ProducerCollector(stand, registry)
    assert ("kprod_healthy", "stand-in") in scrape(registry)
    del stand
    gc.collect()
    assert scrape(registry) == {}
    assert not collector.alive
    ProducerCollector(again := Stand(make_producer()), registry)
    assert ("kprod_healthy", "stand-in") in scrape(registry), "its client_id can be used again"
    assert again


def test_metrics_that_are_off_are_not_exported(
    make_producer: MakeProducer, registry: CollectorRegistry
) -> None:
    ProducerCollector(make_producer(metrics_enabled=False), registry)
    assert scrape(registry) == {}


def test_asyncio(cluster: MockCluster, registry: CollectorRegistry) -> None:
    async def run() -> None:
        producer = AsyncKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, client_id="aio")
        ProducerCollector(producer, registry)
        assert scrape(registry) == {}, "not started"
        async with producer:
            await producer.send_and_wait("t", b"v")
            assert scrape(registry)["kprod_records_acked_total", "aio"] == 1
            assert producer.healthy()

    asyncio.run(run())


def test_health_of_a_producer(
    make_producer: MakeProducer, cluster: MockCluster, eventually: Eventually
) -> None:
    producer = make_producer(
        delivery_timeout_ms=120_000, reconnect_backoff_ms=10, reconnect_backoff_max_ms=20
    )
    producer.send("t", b"v").get(10)
    # The future is done a moment before the record's memory is given back.
    eventually(lambda: producer.healthy().buffer_share == 0)
    health = producer.healthy()
    assert health and health.connected
    cluster.stop_broker(1)
    future = producer.send("t", b"waits")
    eventually(lambda: not producer.healthy())
    eventually(lambda: "no broker is connected" in producer.healthy().reasons[0])
    health = producer.healthy()
    assert health.unacknowledged_batches == 1 and health.oldest_record_age > 0 and health.brokers_away == (1,)
    assert any("under way" in reason for reason in producer.healthy(max_record_age=0).reasons)
    cluster.start_broker(1)
    future.get(15)
    eventually(lambda: producer.healthy())
    producer.close()
    assert producer.healthy().reasons == ("the producer is closed",)


def test_health_after_a_fatal_error(make_producer: MakeProducer, eventually: Eventually) -> None:
    first = make_producer(transactional_id="tx")
    first.init_transactions()
    first.begin_transaction()
    second = make_producer(transactional_id="tx")
    second.init_transactions()
    first.send("t", b"fenced")
    eventually(lambda: not first.healthy())
    assert isinstance(first.healthy().fatal_error, errors.KafkaError)
    assert second.healthy()
    with pytest.raises(errors.KafkaError):
        first.commit_transaction()
