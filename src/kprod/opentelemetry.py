"""Traces for OpenTelemetry: ``pip install kprod[opentelemetry]``.

>>> from kprod.opentelemetry import TracingInterceptor                          # doctest: +SKIP
>>> producer = KafkaProducer(interceptors=[TracingInterceptor()])               # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kprod.interceptors import ProducerInterceptor, ProducerRecord

try:
    from opentelemetry import propagate, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError as _error:
    raise ImportError(
        "kprod.opentelemetry needs the package opentelemetry-api: pip install kprod[opentelemetry]"
    ) from _error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, TracerProvider


class TracingInterceptor(ProducerInterceptor):
    """A span for each record, from ``send()`` to its acknowledgement, and its context in the record's
    headers.

    Spans are named ``send TOPIC``, are of kind PRODUCER and children of the span that is current in
    ``send()``;
    attributes follow OpenTelemetry's semantic conventions for messaging with Kafka. Give it as the last
    interceptor: one behind it that makes new headers loses the span, which then ends without a status.

    Args:
        tracer_provider: where tracers come from; None: the global one.
        propagator: writes the context into headers; None: the global one.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, propagator: TextMapPropagator | None = None
    ) -> None:
        self._tracer = trace.get_tracer("kprod", tracer_provider=tracer_provider)
        self._inject = propagate.inject if propagator is None else propagator.inject
        self._client_id = ""

    def configure(self, options: Mapping[str, Any]) -> None:
        """See :class:`ProducerInterceptor`."""
        self._client_id = options["client_id"]

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        """Start the span."""
        attributes: dict[str, Any] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": record.topic,
            "messaging.client.id": self._client_id,
        }
        if isinstance(record.key, (str, bytes)):
            key = record.key
            attributes["messaging.kafka.message.key"] = (
                key if isinstance(key, str) else key.decode("utf-8", "backslashreplace")
            )
        if record.value is None:
            attributes["messaging.kafka.message.tombstone"] = True
        span = self._tracer.start_span(f"send {record.topic}", kind=SpanKind.PRODUCER, attributes=attributes)
        carrier: dict[str, str] = {}
        self._inject(carrier, context=trace.set_span_in_context(span))
        # A context that came with the record is its sender's parent, not its reader's.
        names = {name.lower() for name in carrier}
        headers = _TracedHeaders(pair for pair in record.headers if str(pair[0]).lower() not in names)
        headers.span = span
        headers.extend((name, value.encode()) for name, value in carrier.items())
        return record._replace(headers=headers)

    def on_acknowledgement(self, metadata: Any, exception: Any, headers: Any = None) -> None:
        """End the span."""
        span = headers.span if isinstance(headers, _TracedHeaders) else None
        if span is None:
            return
        if metadata.partition >= 0:
            span.set_attribute("messaging.destination.partition.id", str(metadata.partition))
        if exception is None:
            if metadata.offset >= 0:
                span.set_attribute("messaging.kafka.offset", metadata.offset)
        else:
            span.set_attribute("error.type", type(exception).__name__)
            span.set_status(Status(StatusCode.ERROR, str(exception)))
        headers.span = None
        span.end()


class _TracedHeaders(list[Any]):
    """Headers that know the span of their record."""

    span: Span | None = None

    def __del__(self) -> None:
        if self.span is not None:
            self.span.end()
