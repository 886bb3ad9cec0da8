"""Metrics, health, and interceptors on real Kafka."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry

from kprod.interceptors import ProducerInterceptor, ProducerRecord
from kprod.opentelemetry import ProducerInstruments
from kprod.prometheus import ProducerCollector
from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent


class Stamp(ProducerInterceptor):
    """Adds a header, and counts acknowledgements."""

    def __init__(self) -> None:
        self.acknowledged: list[Any] = []

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        return record._replace(headers=[*record.headers, ("stamp", b"1")])

    def on_acknowledgement(self, metadata: Any, exception: Any) -> None:
        self.acknowledged.append((metadata.partition, metadata.offset, exception))


def test_metrics_and_interceptors(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=2)
    stamp = Stamp()
    producer = make_producer(kafka, interceptors=[stamp], client_id="observed")
    for number in range(100):
        producer.send(name, b"v%d" % number, partition=number % 2)
    producer.send_many(name, [b"m"] * 100, partitions=[0, 1] * 50).get(30)
    producer.flush()
    found = read_confluent(kafka.bootstrap_servers, name, expect=200)
    assert {tuple(record.headers) for record in found} == {(("stamp", b"1"),)}
    places = {(partition, offset) for partition, offset, error in stamp.acknowledged if error is None}
    assert places == {(record.partition, record.offset) for record in found}
    assert len(stamp.acknowledged) == 200
    metrics = producer.metrics()
    assert metrics is not None
    assert metrics["producer-metrics"]["record-send-total"] == 200
    assert metrics[f"producer-topic-metrics.{name}"]["record-send-total"] == 200
    assert metrics["producer-metrics"]["request-latency-max"] > 0
    assert producer.healthy()
    registry = CollectorRegistry()
    with ProducerCollector(producer, registry):
        assert registry.get_sample_value("kprod_records_acked_total", {"client_id": "observed"}) == 200
    reader = InMemoryMetricReader()
    with ProducerInstruments(producer, MeterProvider([reader])):
        data = reader.get_metrics_data()
    assert data is not None
    measured: dict[str, Any] = {
        metric.name: metric.data for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    [point] = measured["org.apache.kafka.producer.topic.record.send.total"].data_points
    assert (point.value, point.attributes) == (200, {"client_id": "observed", "topic": name})
