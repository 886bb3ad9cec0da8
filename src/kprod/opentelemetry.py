"""Traces and metrics for OpenTelemetry: ``pip install kprod[opentelemetry]``.

>>> from kprod.opentelemetry import ProducerInstruments, TracingInterceptor     # doctest: +SKIP
>>> producer = KafkaProducer(interceptors=[TracingInterceptor()])               # doctest: +SKIP
>>> instruments = ProducerInstruments(producer)                                 # doctest: +SKIP
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from kprod import metric_names
from kprod.interceptors import ProducerInterceptor, ProducerRecord

try:
    from opentelemetry import metrics as metrics_api
    from opentelemetry import propagate, trace
    from opentelemetry.metrics import Observation
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError as _error:
    raise ImportError(
        "kprod.opentelemetry needs the package opentelemetry-api: pip install kprod[opentelemetry]"
    ) from _error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from opentelemetry.metrics import CallbackOptions, MeterProvider
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, TracerProvider
    from typing_extensions import Self


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


class MeasuredProducer(Protocol):
    """What is read: a KafkaProducer, or an AsyncKafkaProducer."""

    @property
    def config(self) -> dict[str, Any]:
        """The options."""

    def metrics(self, raw: bool = False) -> dict[str, dict[str, Any]] | None:
        """The metrics."""


class Instrument(NamedTuple):
    """A metric as OpenTelemetry has it."""

    name: str
    """KIP-714's: ``org.apache.kafka.producer.record.send.total``."""
    kind: str
    """``counter`` or ``gauge``."""
    unit: str
    """In UCUM: ``By``, ``ms``, ``1/s`` ..."""
    doc: str
    group: str
    """Of ``metrics()``."""
    metric: str
    """Java's name."""
    label: str
    """``topic``, ``node_id``, or none."""


_LABELS: Final = {metric_names.PRODUCER: "", metric_names.TOPIC: "topic", metric_names.NODE: "node_id"}
_UNITS: Final = {"ns": "ns", "ms": "ms", "seconds": "s", "bytes": "By"}


def _unit(metric: metric_names.Metric) -> str:
    if "ratio" in metric.name or metric.name.startswith("compression-rate"):
        return "1"
    what = "By" if metric.name.endswith("-bytes") else _UNITS.get(metric.doc.split()[0], "1")
    return f"{what}/s" if metric.name.endswith("-rate") else what


INSTRUMENTS: Final = tuple(
    Instrument(
        metric_names.telemetry_name(group, metric.name),
        "counter" if metric.counts else "gauge",
        _unit(metric),
        metric.doc,
        group,
        metric.name,
        _LABELS[group],
    )
    for group, metrics in metric_names.GROUPS.items()
    for metric in metrics
)
"""All have the attribute ``client_id``, those of a topic ``topic``, and those of a broker ``node_id``."""


class ProducerInstruments:
    """Exports a producer's metrics until :meth:`unregister`, or until the producer is garbage.

    The instruments are observable: nothing is counted for them, and ``producer.metrics()`` is read when a
    reader collects. Any number of producers can be exported by one provider; give each a ``client_id`` of
    its own.

    Args:
        producer: whose. It is not kept alive by this.
        meter_provider: where meters come from; None: the global one, which may be set later.

    Raises:
        ValueError: the provider exports another producer of the same ``client_id``: the two could not be told
            apart.
    """

    def __init__(self, producer: MeasuredProducer, meter_provider: MeterProvider | None = None) -> None:
        self.client_id: str = producer.config["client_id"]
        self._producer = weakref.ref(producer)
        with _lock:
            exporter = _global if meter_provider is None else _exporters.get(meter_provider)
            if exporter is None:
                exporter = _exporters[meter_provider] = _Exporter()
            self._exporter = exporter
            exporter.add(self)
            if not exporter.announced:
                exporter.announced = True
                exporter.announce(meter_provider)

    def unregister(self) -> None:
        """Export the producer no more. May be called again."""
        with _lock:
            self._exporter.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unregister()

    @property
    def alive(self) -> bool:
        """Whether the producer is still there."""
        return self._producer() is not None

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Those of now; none if the producer is gone, not started, or has ``metrics_enabled=False``."""
        producer = self._producer()
        if producer is None:
            return {}
        try:
            return producer.metrics() or {}
        except Exception:
            return {}  # an AsyncKafkaProducer that was not started


class _Exporter:
    """The instruments of a provider, for all producers: a provider takes each name once only."""

    def __init__(self) -> None:
        self.announced = False
        self._producers: list[ProducerInstruments] = []
        self._lock = threading.Lock()
        self._observations: dict[Instrument, list[Observation]] = {}
        self._seen: set[Instrument] = set(INSTRUMENTS)

    def add(self, producer: ProducerInstruments) -> None:
        others = [other for other in self._producers if other.alive]
        if any(other.client_id == producer.client_id for other in others):
            raise ValueError(
                f"the meter provider exports a producer with client_id {producer.client_id!r} already: give "
                "each its own client_id"
            )
        self._producers = [*others, producer]

    def remove(self, producer: ProducerInstruments) -> None:
        self._producers = [other for other in self._producers if other is not producer]

    def announce(self, provider: MeterProvider | None) -> None:
        meter = metrics_api.get_meter("kprod", meter_provider=provider)
        for instrument in INSTRUMENTS:
            create: Any = (
                meter.create_observable_counter
                if instrument.kind == "counter"
                else meter.create_observable_gauge
            )
            create(
                instrument.name,
                callbacks=[self._callback(instrument)],
                unit=instrument.unit,
                description=instrument.doc,
            )

    def _callback(self, instrument: Instrument) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            with self._lock:
                # A reader asks each instrument once: one that is asked again begins a new collection, and
                # only then are the producers read.
                if instrument in self._seen:
                    self._observations = self._read()
                    self._seen = set()
                self._seen.add(instrument)
                return self._observations.get(instrument, [])

        return observe

    def _read(self) -> dict[Instrument, list[Observation]]:
        found: dict[Instrument, list[Observation]] = {}
        for producer in self._producers:
            for name, figures in producer.metrics().items():
                group, _, value = name.partition(".")
                for instrument in _BY_GROUP.get(group, ()):
                    attributes = {"client_id": producer.client_id}
                    if instrument.label:
                        attributes[instrument.label] = value
                    observation = Observation(figures[instrument.metric], attributes)
                    found.setdefault(instrument, []).append(observation)
        return found


_BY_GROUP: Final = {
    group: tuple(instrument for instrument in INSTRUMENTS if instrument.group == group) for group in _LABELS
}
_lock = threading.Lock()
_global = _Exporter()
_exporters: weakref.WeakKeyDictionary[Any, _Exporter] = weakref.WeakKeyDictionary()
