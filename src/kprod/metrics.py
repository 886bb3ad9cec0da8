"""``KafkaProducer.metrics()``: from the core's counters to the Java producer's metric names."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from kprod import threads
from kprod._version import __version__
from kprod.config import ProducerConfig
from kprod.metric_names import NODE, NODE_METRICS, PRODUCER, PRODUCER_METRICS, TOPIC, TOPIC_METRICS, View

Counters = dict[str, Any]

_LEAST_SAMPLE_INTERVAL_S: Final = 1.0
"""Shorter windows are not sampled more often than this."""


class Figure(NamedTuple):
    """One metric and its value at a moment."""

    group: str
    """``producer-metrics``, ``producer-topic-metrics`` or ``producer-node-metrics``."""
    name: str
    value: float
    counts: bool
    """It only ever grows."""
    labels: tuple[tuple[str, str], ...]
    """The topic or the node id, with Java's names of tags: ``topic``, ``node-id``."""


class Metrics:
    """Rates and averages over the last ``metrics_num_samples`` windows of ``metrics_sample_window_ms``.

    Counting is the core's; here its counters are compared with those of a window ago, which the
    control thread
    leaves here a few times a minute. So metrics cost nothing per record, whether somebody asks for
    them or not.

    Args:
        config: the checked options.
    """

    def __init__(self, config: ProducerConfig) -> None:
        self._window_s = config.metrics_num_samples * config.metrics_sample_window_ms / 1000
        self._interval_s = max(config.metrics_sample_window_ms / 1000, _LEAST_SAMPLE_INTERVAL_S)
        self._started = time.monotonic()
        self.started_at_ms = int(time.time() * 1000)
        """When counting began, ms since 1970."""
        self._lock = threads.lock()
        self._samples: collections.deque[tuple[float, Counters]] = collections.deque()
        self._next_sample_at = self._started + self._interval_s

    @property
    def next_sample_at(self) -> float:
        """When :meth:`sample` should be called next, on the monotonic clock."""
        return self._next_sample_at

    def sample(self, counters: Counters, now: float) -> None:
        """Keep counters for later comparisons.

        Args:
            counters: those of now.
            now: the monotonic clock.
        """
        with self._lock:
            self._samples.append((now, counters))
            self._next_sample_at = now + self._interval_s
            # The newest one that is older than the windows stays: rates are over them, and up to one more.
            while len(self._samples) > 1 and self._samples[1][0] <= now - self._window_s:
                self._samples.popleft()

    def _earlier(self, now: float) -> tuple[float, Counters]:
        with self._lock:
            earlier: tuple[float, Counters] = (self._started, {})
            for sample in self._samples:
                if sample[0] > now - self._window_s:
                    break
                earlier = sample
            return earlier

    def figures(self, counters: Counters) -> Iterator[Figure]:
        """Every metric of every group.

        Args:
            counters: those of now.
        """
        now = time.monotonic()
        then, before = self._earlier(now)
        span = max(now - then, 1e-3)
        view = View(whole(counters), whole(before), span)
        for metric in PRODUCER_METRICS:
            yield Figure(PRODUCER, metric.name, metric.value(view), metric.counts, ())
        for name, topic in counters.get("topics", {}).items():
            view = View(topic, before.get("topics", {}).get(name, {}), span)
            for metric in TOPIC_METRICS:
                yield Figure(TOPIC, metric.name, metric.value(view), metric.counts, (("topic", name),))
        for node_id, node in counters.get("brokers", {}).items():
            view = View(node, before.get("brokers", {}).get(node_id, {}), span)
            label = (("node-id", f"node-{node_id}"),)
            for metric in NODE_METRICS:
                yield Figure(NODE, metric.name, metric.value(view), metric.counts, label)

    def snapshot(self, counters: Counters) -> dict[str, dict[str, Any]]:
        """Metrics by group and name, in the shape that kafka-python has them in.

        Args:
            counters: those of now.
        """
        groups: dict[str, dict[str, Any]] = {
            "app-info": {
                "version": __version__,
                "commit-id": __version__,
                "start-time-ms": self.started_at_ms,
            },
            "kafka-metrics-count": {"count": 0},
            PRODUCER: {},
        }
        for figure in self.figures(counters):
            group = ".".join([figure.group, *(value for _, value in figure.labels)])
            groups.setdefault(group, {})[figure.name] = figure.value
        groups["kafka-metrics-count"]["count"] = sum(len(group) for group in groups.values())
        return groups


def whole(counters: Counters) -> Mapping[str, float]:
    """The counters of the whole producer in one mapping: those of brokers summed up, the largest of
    theirs.
    """
    brokers = counters.get("brokers", {}).values()
    memory = counters.get("memory", {})
    figures: dict[str, float] = dict(counters.get("loop", {}))
    for broker in brokers:
        for name, value in broker.items():
            if name.endswith(("_max", "_max_us")):
                figures[name] = max(figures.get(name, 0), value)
            else:
                figures[name] = figures.get(name, 0) + value
    figures.update(counters.get("authentication", {}))
    figures.update(counters.get("blocked", {}))
    figures["metadata_age_s"] = counters.get("metadata_age_s") or 0.0
    figures["buffer_total"] = memory.get("total", 0)
    figures["buffer_available"] = memory.get("total", 0) - memory.get("used", 0)
    figures["buffer_exhausted"] = memory.get("exhausted", 0)
    figures["buffer_wait_us"] = memory.get("wait_us", 0)
    figures["buffer_waiting"] = memory.get("waiting", 0)
    return figures


class BlockedTime:
    """How long application threads spent in calls that wait (KIP-761)."""

    def __init__(self) -> None:
        self._lock = threads.lock()
        self._ns: dict[str, int] = {}

    @contextmanager
    def spent(self, counter: str) -> Iterator[None]:
        """Add the time that the block takes to a counter."""
        began = time.monotonic_ns()
        try:
            yield
        finally:
            took = time.monotonic_ns() - began
            with self._lock:
                self._ns[counter] = self._ns.get(counter, 0) + took

    def counters(self) -> dict[str, int]:
        """Totals since the start, in ns."""
        with self._lock:
            return dict(self._ns)
