"""A collector of producers' metrics for Prometheus: ``pip install kprod[prometheus]``.

>>> from kprod.prometheus import ProducerCollector          # doctest: +SKIP
>>> collector = ProducerCollector(producer)                 # doctest: +SKIP

Nothing is counted for it: at each scrape the producer's own counters are read. docs/metrics.md has the names.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from kprod.metrics import whole

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
except ImportError as _error:
    raise ImportError(
        "kprod.prometheus needs the package prometheus_client: pip install kprod[prometheus]"
    ) from _error

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from typing_extensions import Self

    from kprod.health import Health


class MeasuredProducer(Protocol):
    """What is read: a KafkaProducer, or an AsyncKafkaProducer."""

    @property
    def config(self) -> dict[str, Any]:
        """The options."""

    def metrics(self, raw: bool = False) -> dict[str, dict[str, Any]] | None:
        """The counters."""

    def healthy(self) -> Health:
        """Whether records leave."""


class Exported(NamedTuple):
    """A metric as Prometheus has it."""

    name: str
    """Without the ending ``_total`` of counters."""
    kind: str
    """``counter``, ``gauge``, or ``summary``: a sum and a count."""
    doc: str
    counter: str
    """Which of the core's counters it is; of a summary the sum."""
    scale: float = 1
    events: str = ""
    """Of a summary, the counter of its events."""


_US: Final = 1e-6
_NS: Final = 1e-9
_MS: Final = 1e-3

PRODUCER: Final = (
    Exported("kprod_records_sent", "counter", "Records put into requests, each once.", "records_sent"),
    Exported("kprod_records_acked", "counter", "Records acknowledged.", "records_acked"),
    Exported("kprod_records_failed", "counter", "Records that failed.", "records_failed"),
    Exported("kprod_records_retried", "counter", "Records sent again.", "records_retried"),
    Exported("kprod_batches_sent", "counter", "Batches sent, each once.", "batches_sent"),
    Exported("kprod_batches_split", "counter", "Batches cut in two, being too large.", "batches_split"),
    Exported("kprod_batch_bytes", "counter", "Bytes of batches, compressed.", "batch_bytes"),
    Exported("kprod_uncompressed_bytes", "counter", "Bytes of batches before compression.", "raw_bytes"),
    Exported(
        "kprod_batch_queue_seconds",
        "summary",
        "Opening of a batch to its first sending.",
        "queue_time_us",
        _US,
        "batches_sent",
    ),
    Exported("kprod_batch_queue_seconds_max", "gauge", "The longest of late.", "queue_time_max_us", _US),
    Exported("kprod_throttle_seconds", "counter", "Time that brokers throttled by.", "throttle_ms", _MS),
    Exported("kprod_connections_made", "counter", "Connections made.", "connections_made"),
    Exported("kprod_connections_closed", "counter", "Connections ended.", "connections_lost"),
    Exported("kprod_authentications", "counter", "SASL authentications.", "authentications"),
    Exported(
        "kprod_authentications_failed",
        "counter",
        "SASL authentications that failed.",
        "failed_authentications",
    ),
    Exported("kprod_buffer_bytes", "gauge", "buffer_memory.", "buffer_total"),
    Exported(
        "kprod_buffer_available_bytes", "gauge", "Bytes of buffer_memory that are free.", "buffer_available"
    ),
    Exported(
        "kprod_buffer_wait_seconds", "counter", "Time that threads waited for memory.", "buffer_wait_us", _US
    ),
    Exported(
        "kprod_buffer_exhausted", "counter", "Waits for memory that ended without any.", "buffer_exhausted"
    ),
    Exported("kprod_buffer_waiting_threads", "gauge", "Threads that wait for memory.", "buffer_waiting"),
    Exported("kprod_flush_seconds", "counter", "Time spent in flush().", "flush_ns", _NS),
    Exported("kprod_metadata_age_seconds", "gauge", "Age of the metadata.", "metadata_age_s"),
    Exported("kprod_network_work_seconds", "counter", "Work of the network thread.", "work_us", _US),
    Exported("kprod_network_wait_seconds", "counter", "Waits of the network thread.", "wait_us", _US),
)
"""With the label ``client_id``."""

HEALTH: Final = (
    Exported("kprod_healthy", "gauge", "1: nothing is wrong, see healthy().", "healthy"),
    Exported(
        "kprod_oldest_record_age_seconds",
        "gauge",
        "Age of the oldest record not acknowledged.",
        "oldest_record_age",
    ),
    Exported("kprod_unacknowledged_batches", "gauge", "Batches not acknowledged.", "unacknowledged_batches"),
)
"""With the label ``client_id``; from ``healthy()``."""

TOPIC: Final = (
    Exported("kprod_topic_records_sent", "counter", "Records put into requests, each once.", "records_sent"),
    Exported("kprod_topic_records_acked", "counter", "Records acknowledged.", "records_acked"),
    Exported("kprod_topic_records_failed", "counter", "Records that failed.", "records_failed"),
    Exported("kprod_topic_records_retried", "counter", "Records sent again.", "records_retried"),
    Exported("kprod_topic_batch_bytes", "counter", "Bytes of batches, compressed.", "bytes_sent"),
    Exported(
        "kprod_topic_uncompressed_bytes", "counter", "Bytes of batches before compression.", "raw_bytes_sent"
    ),
)
"""With the labels ``client_id`` and ``topic``."""

BROKER: Final = (
    Exported("kprod_broker_connected", "gauge", "1: there is a connection.", "connected"),
    Exported("kprod_broker_requests_sent", "counter", "Requests sent.", "requests_sent"),
    Exported("kprod_broker_responses_received", "counter", "Responses received.", "responses_received"),
    Exported("kprod_broker_requests_in_flight", "gauge", "Produce requests without an answer.", "in_flight"),
    Exported("kprod_broker_sent_bytes", "counter", "Bytes sent.", "bytes_out"),
    Exported("kprod_broker_received_bytes", "counter", "Bytes received.", "bytes_in"),
    Exported(
        "kprod_broker_request_seconds",
        "summary",
        "Produce request to its answer.",
        "latency_sum_us",
        _US,
        "latency_count",
    ),
    Exported("kprod_broker_request_seconds_max", "gauge", "The longest of late.", "latency_max_us", _US),
)
"""With the labels ``client_id`` and ``broker``, the node id; those of bootstrap servers are negative."""


class ProducerCollector:
    """Exports a producer's metrics until :meth:`unregister`, or until the producer is garbage.

    Any number of producers can be exported by one registry; give each a ``client_id`` of its own.

    Args:
        producer: whose. It is not kept alive by this.
        registry: where; ``prometheus_client``'s own by default.
        topics: whether to export metrics of each topic.
        brokers: whether to export metrics of each broker.

    Raises:
        ValueError: the registry exports another producer of the same ``client_id``: the two could not be told
            apart.
    """

    def __init__(
        self,
        producer: MeasuredProducer,
        registry: CollectorRegistry = REGISTRY,
        *,
        topics: bool = True,
        brokers: bool = True,
    ) -> None:
        self.client_id: str = producer.config["client_id"]
        self._producer = weakref.ref(producer)
        self._registry = registry
        self._parts = (topics, brokers)
        with _lock:
            exporter = _exporters.get(registry)
            new = exporter is None
            if exporter is None:
                exporter = _exporters[registry] = _Exporter()
            exporter.add(self)
        if new:
            registry.register(exporter)

    def unregister(self) -> None:
        """Export the producer no more. May be called again."""
        with _lock:
            exporter = _exporters.get(self._registry)
            if exporter is None or not exporter.remove(self):
                return
            del _exporters[self._registry]
        self._registry.unregister(exporter)

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

    def samples(self) -> Iterator[tuple[Exported, tuple[str, ...], float, float]]:
        """Each metric, the values of its labels, its value, and of a summary its count."""
        producer = self._producer()
        if producer is None:
            return
        try:
            counters = producer.metrics(raw=True)
            health = producer.healthy()
        except Exception:
            return  # an AsyncKafkaProducer that was not started
        if counters is None:
            return  # metrics_enabled=False
        topics, brokers = self._parts
        parts: list[tuple[tuple[Exported, ...], tuple[str, ...], Any]] = [
            (PRODUCER, (), whole(counters)),
            (HEALTH, (), health.as_dict()),
        ]
        if topics:
            parts += [(TOPIC, (name,), figures) for name, figures in counters["topics"].items()]
        if brokers:
            parts += [(BROKER, (str(node_id),), figures) for node_id, figures in counters["brokers"].items()]
        for metrics, labels, figures in parts:
            for metric in metrics:
                yield (
                    metric,
                    (self.client_id, *labels),
                    float(figures.get(metric.counter, 0)) * metric.scale,
                    float(figures.get(metric.events, 0)),
                )


class _Exporter:
    """What a registry has: the families of all its producers, since it takes each name once only."""

    def __init__(self) -> None:
        self._collectors: list[ProducerCollector] = []

    def add(self, collector: ProducerCollector) -> None:
        self._collectors = [other for other in self._collectors if other.alive]
        if any(other.client_id == collector.client_id for other in self._collectors):
            raise ValueError(
                f"the registry exports a producer with client_id {collector.client_id!r} already: give each "
                "its own client_id"
            )
        self._collectors.append(collector)

    def remove(self, collector: ProducerCollector) -> bool:
        """Whether there is none left."""
        if collector in self._collectors:
            self._collectors.remove(collector)
            return not self._collectors
        return False

    def describe(self) -> Iterable[Metric]:
        """The names, for the registry's search for clashes."""
        return [_family(metric, labels) for metrics, labels in _LABELS for metric in metrics]

    def collect(self) -> Iterable[Metric]:
        """The metrics of now."""
        families: dict[str, Any] = {
            metric.name: _family(metric, labels) for metrics, labels in _LABELS for metric in metrics
        }
        for collector in list(self._collectors):
            for metric, labels, value, count in collector.samples():
                if metric.kind == "summary":
                    families[metric.name].add_metric(labels, count, value)
                else:
                    families[metric.name].add_metric(labels, value)
        return families.values()


_LABELS: Final = (
    (PRODUCER, ("client_id",)),
    (HEALTH, ("client_id",)),
    (TOPIC, ("client_id", "topic")),
    (BROKER, ("client_id", "broker")),
)


def _family(metric: Exported, labels: tuple[str, ...]) -> Any:
    kinds: dict[str, Any] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "summary": SummaryMetricFamily,
    }
    return kinds[metric.kind](metric.name, metric.doc, labels=labels)


_lock = threading.Lock()
_exporters: weakref.WeakKeyDictionary[CollectorRegistry, _Exporter] = weakref.WeakKeyDictionary()
