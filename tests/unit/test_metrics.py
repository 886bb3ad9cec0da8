"""From the core's counters to metrics."""

from __future__ import annotations

from typing import Any

import pytest

from kprod.config import ProducerConfig
from kprod.metric_names import GROUPS
from kprod.metrics import BlockedTime, Metrics

ZERO: dict[str, Any] = {
    "loop": {"records_sent": 0},
    "brokers": {},
    "memory": {"total": 1000, "used": 0, "idle": 0, "waiting": 0, "wait_us": 0, "exhausted": 0},
    "topics": {},
    "metadata_age_s": None,
}


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("kprod.metrics.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(
        ProducerConfig.from_options(None, {"metrics_num_samples": 2, "metrics_sample_window_ms": 30_000})
    )


def counters(**loop: int) -> dict[str, Any]:
    return {**ZERO, "loop": {**ZERO["loop"], **loop}}


def test_nothing_sent_divides_by_nothing(metrics: Metrics) -> None:
    produced = metrics.snapshot(ZERO)["producer-metrics"]
    assert produced["record-send-rate"] == 0
    assert produced["batch-size-avg"] == 0
    assert produced["compression-rate-avg"] == 1.0
    assert produced["request-latency-max"] == 0
    assert metrics.snapshot(ZERO)["app-info"]["version"]


def test_every_metric_of_the_table_is_there_and_counted(metrics: Metrics) -> None:
    found = metrics.snapshot({**ZERO, "brokers": {3: {}}, "topics": {"t": {}}})
    for group, suffix in (
        ("producer-metrics", ""),
        ("producer-topic-metrics", ".t"),
        ("producer-node-metrics", ".node-3"),
    ):
        assert list(found[group + suffix]) == [metric.name for metric in GROUPS[group]]
    assert found["kafka-metrics-count"]["count"] == sum(map(len, found.values()))


def test_rates_are_over_the_time_since_the_start_at_first(metrics: Metrics, clock: Clock) -> None:
    clock.now += 10
    produced = metrics.snapshot(counters(records_sent=500, records_failed=20))["producer-metrics"]
    assert produced["record-send-rate"] == pytest.approx(50)
    assert produced["record-send-total"] == 500
    assert produced["record-error-rate"] == pytest.approx(2)


def test_rates_are_over_the_last_windows_later(metrics: Metrics, clock: Clock) -> None:
    sent = 0
    for _ in range(10):
        clock.now += 30
        sent += 3000
        assert clock.now >= metrics.next_sample_at
        metrics.sample(counters(records_sent=sent), clock.now)
    assert metrics.next_sample_at == clock.now + 30
    produced = metrics.snapshot(counters(records_sent=sent))["producer-metrics"]
    assert produced["record-send-rate"] == pytest.approx(100)
    # A pause is seen in whole after two windows of 30 s.
    for _ in range(3):
        clock.now += 30
        metrics.sample(counters(records_sent=sent), clock.now)
    produced = metrics.snapshot(counters(records_sent=sent))["producer-metrics"]
    assert produced["record-send-rate"] == 0
    assert produced["record-send-total"] == 30_000


def test_who_asks_often_changes_nothing(metrics: Metrics, clock: Clock) -> None:
    for second in range(1, 101):
        clock.now += 1
        if clock.now >= metrics.next_sample_at:
            metrics.sample(counters(records_sent=second * 10), clock.now)
        rate = metrics.snapshot(counters(records_sent=second * 10))["producer-metrics"]["record-send-rate"]
        assert rate == pytest.approx(10)


def test_short_windows_are_not_sampled_all_the_time(clock: Clock) -> None:
    config = ProducerConfig.from_options(None, {"metrics_sample_window_ms": 1})
    assert Metrics(config).next_sample_at == clock.now + 1


def test_averages(metrics: Metrics, clock: Clock) -> None:
    clock.now += 1
    produced = metrics.snapshot(
        counters(
            batches_sent=4, records_sent=100, batch_bytes=5000, raw_bytes=20_000, queue_time_us=8000,
            queue_time_max_us=5000, largest_batch=2000, largest_record=300, throttle_max_ms=7, polls=10,
            work_us=200_000, wait_us=800_000,
        )
    )["producer-metrics"]  # fmt: skip
    assert produced["batch-size-avg"] == 1250
    assert produced["batch-size-max"] == 2000
    assert produced["record-size-avg"] == (20_000 - 4 * 61) / 100
    assert produced["record-size-max"] == 300
    assert produced["compression-rate-avg"] == 0.25
    assert produced["record-queue-time-avg"] == 2.0
    assert produced["record-queue-time-max"] == 5.0
    assert produced["produce-throttle-time-max"] == 7
    assert produced["io-ratio"] == pytest.approx(0.2)
    assert produced["io-wait-ratio"] == pytest.approx(0.8)
    assert produced["io-wait-time-ns-avg"] == pytest.approx(80_000_000)
    assert produced["io-time-ns-total"] == 200_000_000


def test_brokers_and_topics_have_groups_of_their_own(metrics: Metrics, clock: Clock) -> None:
    clock.now += 2
    given = {
        **ZERO,
        "brokers": {
            1: {
                "connected": True,
                "requests_sent": 10,
                "request_bytes": 5000,
                "request_size_max": 900,
                "latency_sum_us": 20_000,
                "latency_count": 10,
            },
            2: {"bytes_out": 400, "latency_max_us": 3000, "in_flight": 3, "request_size_max": 700},
        },
        "topics": {
            "t": {"records_sent": 9, "records_acked": 8, "bytes_sent": 50, "raw_bytes_sent": 100},
        },
    }
    found = metrics.snapshot(given)
    assert found["producer-node-metrics.node-1"]["request-rate"] == 5
    assert found["producer-node-metrics.node-1"]["request-size-avg"] == 500
    assert found["producer-node-metrics.node-1"]["request-latency-avg"] == 2.0
    assert found["producer-node-metrics.node-2"]["outgoing-byte-total"] == 400
    assert found["producer-topic-metrics.t"]["record-send-rate"] == 4.5
    assert found["producer-topic-metrics.t"]["compression-rate"] == 0.5
    produced = found["producer-metrics"]
    assert produced["connection-count"] == 1
    assert produced["request-total"] == 10
    assert produced["requests-in-flight"] == 3
    assert produced["request-latency-max"] == 3.0
    assert produced["request-size-max"] == 900


def test_a_broker_or_topic_that_is_new_counts_from_zero(metrics: Metrics, clock: Clock) -> None:
    for _ in range(3):
        clock.now += 30
        metrics.sample(ZERO, clock.now)
    found = metrics.snapshot({**ZERO, "topics": {"t": {"records_sent": 60}}, "brokers": {1: {}}})
    assert found["producer-topic-metrics.t"]["record-send-rate"] == 1


def test_memory(metrics: Metrics, clock: Clock) -> None:
    clock.now += 10
    memory = {"total": 1000, "used": 300, "idle": 50, "waiting": 2, "wait_us": 5_000_000, "exhausted": 4}
    produced = metrics.snapshot({**ZERO, "memory": memory})["producer-metrics"]
    assert produced["buffer-total-bytes"] == 1000
    assert produced["buffer-available-bytes"] == 700
    assert produced["buffer-exhausted-total"] == 4
    assert produced["waiting-threads"] == 2
    assert produced["bufferpool-wait-ratio"] == pytest.approx(0.5)
    assert produced["bufferpool-wait-time-ns-total"] == 5_000_000_000


def test_blocked_time_is_counted_also_when_the_call_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100, 350, 1000, 1001])
    monkeypatch.setattr("kprod.metrics.time.monotonic_ns", lambda: next(times))
    blocked = BlockedTime()
    with blocked.spent("flush_ns"):
        pass
    with pytest.raises(KeyError), blocked.spent("flush_ns"):
        raise KeyError
    assert blocked.counters() == {"flush_ns": 251}
