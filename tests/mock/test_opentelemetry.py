"""Spans of records, as an exporter of the OpenTelemetry SDK gets them."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kprod import errors
from kprod.aio import AsyncKafkaProducer
from kprod.opentelemetry import INSTRUMENTS, ProducerInstruments, TracingInterceptor
from kprod.testing import MockCluster
from tests.mock.conftest import MakeProducer


def test_a_span_from_send_to_the_acknowledgement(make_producer: MakeProducer, cluster: MockCluster) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = TracingInterceptor(provider, TraceContextTextMapPropagator())
    producer = make_producer(interceptors=[tracing], client_id="traced")
    with provider.get_tracer("test").start_as_current_span("request") as parent:
        producer.send("t", b"v", key=b"k", headers=[("mine", b"1"), ("traceparent", b"stale")])
        producer.flush()
    sent = next(span for span in exporter.get_finished_spans() if span.name == "send t")
    assert sent.kind is SpanKind.PRODUCER
    assert sent.parent is not None and sent.parent.span_id == parent.get_span_context().span_id
    attributes = dict(sent.attributes or {})
    assert attributes["messaging.system"] == "kafka"
    assert attributes["messaging.destination.name"] == "t"
    assert attributes["messaging.client.id"] == "traced"
    assert attributes["messaging.kafka.message.key"] == "k"
    assert attributes["messaging.destination.partition.id"] == "0"
    assert attributes["messaging.kafka.offset"] == 0
    assert sent.status.status_code is StatusCode.UNSET
    [record] = cluster.records("t")
    headers = dict(record.headers)
    assert len(record.headers) == 2 and headers["mine"] == b"1"
    context = sent.context
    assert context is not None
    # The flags differ between versions of the SDK.
    assert (headers["traceparent"] or b"")[
        :52
    ] == f"00-{context.trace_id:032x}-{context.span_id:016x}".encode()


def test_failures_and_send_many(make_producer: MakeProducer, cluster: MockCluster) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    producer = make_producer(interceptors=[TracingInterceptor(provider)])
    with pytest.raises(TypeError):
        producer.send("t", 3)
    producer.send_many("t", [b"a", b"b", None]).get(10)
    cluster.inject("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=1)
    with pytest.raises(errors.TopicAuthorizationFailedError):
        producer.send("t", b"refused").get(10)
    producer.flush()
    spans = exporter.get_finished_spans()
    failed = [span for span in spans if span.status.status_code is StatusCode.ERROR]
    assert [(span.attributes or {})["error.type"] for span in failed] == [
        "TypeError",
        "TopicAuthorizationFailedError",
    ]
    assert len(spans) == 5
    assert (
        sum((span.attributes or {}).get("messaging.kafka.message.tombstone") is True for span in spans) == 1
    )


def collected(reader: InMemoryMetricReader) -> dict[tuple[str, ...], tuple[float, str, bool]]:
    """(name without its prefix, values of attributes...) -> value, unit, whether it is a growing sum."""
    found: dict[tuple[str, ...], tuple[float, str, bool]] = {}
    data = reader.get_metrics_data()
    for metric in [
        metric
        for resource in (data.resource_metrics if data is not None else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]:
        measured: Any = metric.data
        for point in measured.data_points:
            attributes = (str((point.attributes or {})[name]) for name in sorted(point.attributes or {}))
            key = (metric.name.removeprefix("org.apache.kafka."), *attributes)
            assert key not in found
            found[key] = (point.value, metric.unit or "", getattr(measured, "is_monotonic", False))
    return found


def test_metrics_are_what_metrics_says(make_producer: MakeProducer, cluster: MockCluster) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    producer = make_producer(client_id="one", buffer_memory=1 << 20)
    with ProducerInstruments(producer, provider):
        for _ in range(5):
            producer.send("t", b"v" * 100)
        producer.flush()
        found = collected(reader)
        assert found["producer.record.send.total", "one"] == (5, "1", True)
        assert found["producer.topic.record.send.total", "one", "t"] == (5, "1", True)
        assert found["producer.buffer.total.bytes", "one"] == (1 << 20, "By", False)
        assert found["producer.byte.rate", "one"][1:] == ("By/s", False)
        assert found["producer.request.latency.max", "one"][1:] == ("ms", False)
        assert found["producer.compression.rate.avg", "one"][1:] == ("1", False)
        assert found["producer.node.request.total", "one", "node-1"][0] >= 1
        assert {name for name, *_ in found} == {
            instrument.name.removeprefix("org.apache.kafka.") for instrument in INSTRUMENTS
        }
        producer.send("t", b"v").get(10)
        # Each collection reads the producer again.
        assert collected(reader)["producer.record.send.total", "one"][0] == 6
    assert collected(reader) == {}


def test_metrics_of_several_producers(
    make_producer: MakeProducer, cluster: MockCluster, caplog: pytest.LogCaptureFixture
) -> None:
    reader, other_reader = InMemoryMetricReader(), InMemoryMetricReader()
    provider = MeterProvider([reader, other_reader])
    first, second = make_producer(client_id="one"), make_producer(client_id="two")
    one = ProducerInstruments(first, provider)
    with pytest.raises(ValueError, match="client_id 'one' already"):
        ProducerInstruments(first, provider)
    ProducerInstruments(second, provider)
    not_started = AsyncKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, client_id="three")
    ProducerInstruments(not_started, provider)
    second.send("t", b"v").get(10)
    for each in (reader, other_reader):
        found = collected(each)
        assert found["producer.record.send.total", "one"][0] == 0
        assert found["producer.record.send.total", "two"][0] == 1
        assert {client_id for _, client_id, *_ in found} == {"one", "two"}
    one.unregister()
    one.unregister()
    assert {client_id for _, client_id, *_ in collected(reader)} == {"two"}
    gc.collect()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")]
    assert said == [], "the SDK warns of names that are made twice"
