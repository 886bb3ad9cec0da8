"""The table of metrics: the Java producer's names, and how each is made of the core's counters.

``docs/metrics.md`` is made from it. The names are those of Java's
``org.apache.kafka.clients.producer.KafkaProducer`` 4.x, ``SenderMetricsRegistry`` and ``SelectorMetrics``
above all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

PRODUCER: Final = "producer-metrics"
TOPIC: Final = "producer-topic-metrics"
NODE: Final = "producer-node-metrics"

Figures = Mapping[str, float]
"""Counters by name; one that is missing is 0."""


class View(NamedTuple):
    """The counters of a group at two moments."""

    now: Figures
    before: Figures
    span: float
    """Seconds between them."""

    def at(self, counter: str) -> float:
        """A counter now."""
        return self.now.get(counter, 0)

    def since(self, counter: str) -> float:
        """How far a counter has come between the two moments."""
        return self.now.get(counter, 0) - self.before.get(counter, 0)

    def rate(self, counter: str) -> float:
        """That per second."""
        return self.since(counter) / self.span

    def average(self, total: str, count: str) -> float:
        """How far `total` has come for each that `count` has."""
        return _ratio(self.since(total), self.since(count))


def _ratio(total: float, count: float) -> float:
    return total / count if count else 0.0


class Metric(NamedTuple):
    """One metric of a group."""

    name: str
    """Java's."""
    doc: str
    """What it says, with its unit."""
    value: Callable[[View], float]
    counts: bool = False
    """It only ever grows; others go up and down."""


def _counted(stem: str, counter: str, what: str, scale: float = 1) -> Iterator[Metric]:
    yield Metric(f"{stem}-rate", f"{what}, per second", lambda view: view.rate(counter) * scale)
    yield _total(f"{stem}-total", counter, what, scale)


def _total(name: str, counter: str, what: str, scale: float = 1) -> Metric:
    return Metric(name, f"{what}, since the start", lambda view: view.at(counter) * scale, counts=True)


def _average(name: str, total: str, count: str, what: str, scale: float = 1) -> Metric:
    return Metric(name, f"{what}, average", lambda view: view.average(total, count) * scale)


def _largest(name: str, peak: str, what: str, scale: float = 1) -> Metric:
    return Metric(name, f"{what}, the largest", lambda view: view.at(peak) * scale)


def _gauge(name: str, counter: str, what: str) -> Metric:
    return Metric(name, what, lambda view: view.at(counter))


def _compression(total: str, raw: str) -> Callable[[View], float]:
    # Nothing sent is nothing saved.
    return lambda view: view.average(total, raw) or 1.0


_US_IN_MS: Final = 1e-3
_BATCH_OVERHEAD: Final = 61
"""Bytes of a batch in front of its records (record batch v2)."""
_US_IN_NS: Final = 1000


def _traffic() -> Iterator[Metric]:
    """What the whole client and each broker have in common."""
    yield from _counted("request", "requests_sent", "requests sent")
    yield from _counted("response", "responses_received", "responses received")
    yield from _counted("outgoing-byte", "bytes_out", "bytes sent")
    yield from _counted("incoming-byte", "bytes_in", "bytes received")
    yield _average("request-size-avg", "request_bytes", "requests_sent", "bytes of a request")
    yield _largest("request-size-max", "request_size_max", "bytes of a request")
    yield _average(
        "request-latency-avg",
        "latency_sum_us",
        "latency_count",
        "ms from a produce request to its answer",
        _US_IN_MS,
    )
    yield _largest(
        "request-latency-max", "latency_max_us", "ms from a produce request to its answer", _US_IN_MS
    )


PRODUCER_METRICS: Final[tuple[Metric, ...]] = (
    *_counted("record-send", "records_sent", "records put into requests, each once"),
    *_counted("record-retry", "records_retried", "records that were sent again"),
    *_counted("record-error", "records_failed", "records that failed"),
    Metric(
        "record-size-avg",
        "bytes of a record, before compression, average",
        lambda view: _ratio(
            view.since("raw_bytes") - _BATCH_OVERHEAD * view.since("batches_sent"), view.since("records_sent")
        ),
    ),
    _largest("record-size-max", "largest_record", "bytes of a record, before compression"),
    _average(
        "record-queue-time-avg",
        "queue_time_us",
        "batches_sent",
        "ms from the opening of a batch to its first sending",
        _US_IN_MS,
    ),
    _largest(
        "record-queue-time-max",
        "queue_time_max_us",
        "ms from the opening of a batch to its first sending",
        _US_IN_MS,
    ),
    _average("records-per-request-avg", "records_sent", "latency_count", "records in a produce request"),
    _average("batch-size-avg", "batch_bytes", "batches_sent", "bytes of a batch, compressed"),
    _largest("batch-size-max", "largest_batch", "bytes of a batch, compressed"),
    *_counted("batch-split", "batches_split", "batches cut in two, being too large for the broker"),
    *_counted("byte", "batch_bytes", "bytes of batches, compressed"),
    Metric(
        "compression-rate-avg",
        "bytes of batches after compression, for each byte before, average",
        _compression("batch_bytes", "raw_bytes"),
    ),
    _gauge("metadata-age", "metadata_age_s", "seconds since metadata came; 0 before they first did"),
    _average(
        "produce-throttle-time-avg", "throttle_ms", "latency_count", "ms that a broker throttled a request by"
    ),
    _largest("produce-throttle-time-max", "throttle_max_ms", "ms that a broker throttled a request by"),
    *_traffic(),
    _gauge("requests-in-flight", "in_flight", "produce requests without an answer yet"),
    *_counted("network-io", "network_calls", "reads and writes of connections"),
    _gauge("connection-count", "connected", "connections there are"),
    *_counted("connection-creation", "connections_made", "connections made"),
    *_counted("connection-close", "connections_lost", "connections ended"),
    *_counted("successful-authentication", "authentications", "SASL authentications that succeeded"),
    *_counted("failed-authentication", "failed_authentications", "SASL authentications that failed"),
    *_counted("successful-reauthentication", "reauthentications", "SASL re-authentications that succeeded"),
    *_counted("failed-reauthentication", "failed_reauthentications", "SASL re-authentications that failed"),
    _total(
        "successful-authentication-no-reauth-total",
        "authentications_without_reauthentication",
        "authentications with brokers older than 2.2, which know no re-authentication",
    ),
    _average(
        "reauthentication-latency-avg",
        "reauthentication_latency_sum_ms",
        "reauthentications",
        "ms that a re-authentication took",
    ),
    _largest(
        "reauthentication-latency-max", "reauthentication_latency_max_ms", "ms that a re-authentication took"
    ),
    *_counted("select", "polls", "waits of the network thread"),
    Metric("io-ratio", "share of its time that the network thread works", lambda v: v.rate("work_us") / 1e6),
    _average(
        "io-time-ns-avg", "work_us", "polls", "ns of work of the network thread between two waits", _US_IN_NS
    ),
    _total("io-time-ns-total", "work_us", "ns of work of the network thread", _US_IN_NS),
    Metric(
        "io-wait-ratio", "share of its time that the network thread waits", lambda v: v.rate("wait_us") / 1e6
    ),
    _average("io-wait-time-ns-avg", "wait_us", "polls", "ns of one wait of the network thread", _US_IN_NS),
    _total("io-wait-time-ns-total", "wait_us", "ns that the network thread waited", _US_IN_NS),
    _gauge("buffer-total-bytes", "buffer_total", "buffer_memory"),
    _gauge("buffer-available-bytes", "buffer_available", "bytes of buffer_memory that are free"),
    *_counted("buffer-exhausted", "buffer_exhausted", "waits for memory that ended without any"),
    _total("bufferpool-wait-time-ns-total", "buffer_wait_us", "ns that threads waited for memory", _US_IN_NS),
    Metric(
        "bufferpool-wait-ratio",
        "time that threads waited for memory, for each second",
        lambda view: view.rate("buffer_wait_us") / 1e6,
    ),
    _gauge("waiting-threads", "buffer_waiting", "threads that wait for memory"),
    _total("flush-time-ns-total", "flush_ns", "ns spent in flush()"),
    _total("metadata-wait-time-ns-total", "metadata_wait_ns", "ns spent waiting for metadata of topics"),
    _total("txn-init-time-ns-total", "txn_init_ns", "ns spent in init_transactions()"),
    _total("txn-begin-time-ns-total", "txn_begin_ns", "ns spent in begin_transaction()"),
    _total(
        "txn-send-offsets-time-ns-total", "txn_send_offsets_ns", "ns spent in send_offsets_to_transaction()"
    ),
    _total("txn-prepare-time-ns-total", "txn_prepare_ns", "ns spent in prepare_transaction()"),
    _total("txn-commit-time-ns-total", "txn_commit_ns", "ns spent in commit_transaction()"),
    _total("txn-abort-time-ns-total", "txn_abort_ns", "ns spent in abort_transaction()"),
)
"""Of the whole producer."""

TOPIC_METRICS: Final[tuple[Metric, ...]] = (
    *_counted("record-send", "records_sent", "records put into requests, each once"),
    *_counted("record-retry", "records_retried", "records that were sent again"),
    *_counted("record-error", "records_failed", "records that failed"),
    *_counted("byte", "bytes_sent", "bytes of batches, compressed"),
    Metric(
        "compression-rate",
        "bytes of batches after compression, for each byte before, average",
        _compression("bytes_sent", "raw_bytes_sent"),
    ),
)
"""Of each topic."""

NODE_METRICS: Final[tuple[Metric, ...]] = tuple(_traffic())
"""Of each broker, and each bootstrap server."""

GROUPS: Final[Mapping[str, tuple[Metric, ...]]] = {
    PRODUCER: PRODUCER_METRICS,
    TOPIC: TOPIC_METRICS,
    NODE: NODE_METRICS,
}
"""The metrics of each group."""


def telemetry_name(group: str, metric: str) -> str:
    """The name that a metric has in OpenTelemetry (KIP-714, "Metrics naming and format").

    >>> telemetry_name("producer-topic-metrics", "record-send-total")
    'org.apache.kafka.producer.topic.record.send.total'
    """
    return f"org.apache.kafka.{group.removesuffix('-metrics')}.{metric}".replace("-", ".")
