"""Spans of records, as an exporter of the OpenTelemetry SDK gets them."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kprod import errors
from kprod.opentelemetry import TracingInterceptor
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
