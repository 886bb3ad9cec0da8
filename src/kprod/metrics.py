"""``KafkaProducer.metrics()``: from the core's counters to the Java producer's metric names."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Mapping
from typing import Any

from kprod._version import __version__
from kprod.config import ProducerConfig

Counters = dict[str, Any]


class Metrics:
    """Rates and averages over the last ``metrics_num_samples`` windows of ``metrics_sample_window_ms``.

    Counting is the core's; here counters are only compared with those of earlier calls, so that metrics that
    nobody asks for cost nothing.
    """

    def __init__(self, config: ProducerConfig) -> None:
        self._window_s = config.metrics_num_samples * config.metrics_sample_window_ms / 1000
        self._max_request_size = config.max_request_size
        self._client_id = config.client_id
        self._started = time.monotonic()
        self._started_at_ms = int(time.time() * 1000)
        self._lock = threading.Lock()
        self._samples: collections.deque[tuple[float, Counters]] = collections.deque()

    def snapshot(self, counters: Counters) -> dict[str, dict[str, Any]]:
        """Metrics by group and name."""
        now = time.monotonic()
        with self._lock:
            while len(self._samples) > 1 and self._samples[1][0] <= now - self._window_s:
                self._samples.popleft()
            then, before = self._samples[0] if self._samples else (self._started, {})
            if not self._samples or now - self._samples[-1][0] >= self._window_s / 10:
                self._samples.append((now, counters))
        span = max(now - then, 1e-3)
        return {
            "app-info": {"version": __version__, "start-time-ms": self._started_at_ms},
            "producer-metrics": self._producer(counters, before, span),
            **{
                f"producer-topic-metrics.{name}": _topic(now_, _part(before, "topics", name), span)
                for name, now_ in counters.get("topics", {}).items()
            },
            **{
                f"producer-node-metrics.node-{node_id}": _node(now_, _part(before, "brokers", node_id), span)
                for node_id, now_ in counters.get("brokers", {}).items()
            },
        }

    def _producer(self, counters: Counters, before: Counters, span: float) -> dict[str, Any]:
        loop, then = counters.get("loop", {}), before.get("loop", {})
        memory = counters.get("memory", {})
        brokers = counters.get("brokers", {}).values()
        brokers_then = before.get("brokers", {}).values()

        def since(name: str) -> float:
            return float(loop.get(name, 0) - then.get(name, 0))

        def over_brokers(name: str) -> float:
            return float(sum(b[name] for b in brokers))

        def since_over_brokers(name: str) -> float:
            return over_brokers(name) - float(sum(b[name] for b in brokers_then))

        sasl = counters.get("authentication", {})
        waited = memory.get("wait_us", 0) - before.get("memory", {}).get("wait_us", 0)
        return {
            "record-send-rate": since("records_sent") / span,
            "record-send-total": loop.get("records_sent", 0),
            "record-retry-rate": since("records_retried") / span,
            "record-retry-total": loop.get("records_retried", 0),
            "record-error-rate": since("records_failed") / span,
            "record-error-total": loop.get("records_failed", 0),
            "record-size-avg": _ratio(since("raw_bytes"), since("records_sent")),
            "record-queue-time-avg": _ratio(since("queue_time_us"), since("batches_sent")) / 1000,
            "record-queue-time-max": loop.get("queue_time_max_us", 0) / 1000,
            "records-per-request-avg": _ratio(since("records_sent"), since_over_brokers("requests_sent")),
            "batch-size-avg": _ratio(since("batch_bytes"), since("batches_sent")),
            "batch-size-max": loop.get("largest_batch", 0),
            "batch-split-rate": since("batches_split") / span,
            "batch-split-total": loop.get("batches_split", 0),
            "byte-rate": since("batch_bytes") / span,
            "byte-total": loop.get("batch_bytes", 0),
            "compression-rate-avg": _ratio(since("batch_bytes"), since("raw_bytes")) or 1.0,
            "metadata-age": counters.get("metadata_age_s"),
            "produce-throttle-time-max": loop.get("throttle_max_ms", 0),
            "request-rate": since_over_brokers("requests_sent") / span,
            "request-total": over_brokers("requests_sent"),
            "response-rate": since_over_brokers("responses_received") / span,
            "response-total": over_brokers("responses_received"),
            "request-latency-avg": _ratio(
                since_over_brokers("latency_sum_us"), since_over_brokers("latency_count")
            )
            / 1000,
            "request-latency-max": max((b["latency_max_us"] for b in brokers), default=0) / 1000,
            "requests-in-flight": over_brokers("in_flight"),
            "outgoing-byte-rate": since_over_brokers("bytes_out") / span,
            "outgoing-byte-total": over_brokers("bytes_out"),
            "incoming-byte-rate": since_over_brokers("bytes_in") / span,
            "incoming-byte-total": over_brokers("bytes_in"),
            "connection-count": sum(b["connected"] for b in brokers),
            "connection-creation-total": loop.get("connections_made", 0),
            "connection-close-total": loop.get("connections_lost", 0),
            "successful-authentication-total": sasl.get("authentications", 0),
            "failed-authentication-total": sasl.get("failed_authentications", 0),
            "successful-reauthentication-total": sasl.get("reauthentications", 0),
            "failed-reauthentication-total": sasl.get("failed_reauthentications", 0),
            "reauthentication-latency-avg": _ratio(
                sasl.get("reauthentication_latency_sum_ms", 0), sasl.get("reauthentications", 0)
            ),
            "reauthentication-latency-max": sasl.get("reauthentication_latency_max_ms", 0),
            "select-total": loop.get("polls", 0),
            "buffer-total-bytes": memory.get("total", 0),
            "buffer-available-bytes": memory.get("total", 0) - memory.get("used", 0),
            "buffer-exhausted-total": memory.get("exhausted", 0),
            "bufferpool-wait-time-ns-total": memory.get("wait_us", 0) * 1000,
            "bufferpool-wait-ratio": waited / 1e6 / span,
            "waiting-threads": memory.get("waiting", 0),
        }


def _topic(now: Mapping[str, int], then: Mapping[str, int], span: float) -> dict[str, Any]:
    def rate(name: str) -> float:
        return (now[name] - then.get(name, 0)) / span

    return {
        "record-send-rate": rate("records_acked"),
        "record-send-total": now["records_acked"],
        "record-retry-rate": rate("records_retried"),
        "record-retry-total": now["records_retried"],
        "record-error-rate": rate("records_failed"),
        "record-error-total": now["records_failed"],
        "byte-rate": rate("bytes_sent"),
        "byte-total": now["bytes_sent"],
        "compression-rate": _ratio(now["bytes_sent"], now["raw_bytes_sent"]) or 1.0,
    }


def _node(now: Mapping[str, int], then: Mapping[str, int], span: float) -> dict[str, Any]:
    def since(name: str) -> float:
        return float(now[name] - then.get(name, 0))

    return {
        "request-rate": since("requests_sent") / span,
        "request-total": now["requests_sent"],
        "response-rate": since("responses_received") / span,
        "response-total": now["responses_received"],
        "request-latency-avg": _ratio(since("latency_sum_us"), since("latency_count")) / 1000,
        "request-latency-max": now["latency_max_us"] / 1000,
        "outgoing-byte-rate": since("bytes_out") / span,
        "outgoing-byte-total": now["bytes_out"],
        "incoming-byte-rate": since("bytes_in") / span,
        "incoming-byte-total": now["bytes_in"],
    }


def _part(counters: Counters, group: str, key: Any) -> Mapping[str, int]:
    found: Mapping[str, int] = counters.get(group, {}).get(key, {})
    return found


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0
