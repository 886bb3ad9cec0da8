"""What a call of ``send()`` costs its thread, network left out.

A round is a block of records that fits one batch, against a mock cluster in a process of its own, with a
linger time that outlasts the round: nothing is sent before the flush between two rounds. The time of a round
divided by its records is in ``ns_per_record`` of the JSON output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.workload import BLOCK, Workload
from kprod import KafkaProducer
from kprod.testing import MockCluster

TOPIC = "bench"
ROUNDS = 400
PAIRS = Workload(records=1, warmup=1, keys=10_000).pairs[0]


@pytest.fixture(scope="module")
def producer() -> Iterator[KafkaProducer]:
    """A producer that holds a block back until it is flushed."""
    with MockCluster(process=True, strict=False) as cluster:
        cluster.create_topic(TOPIC, partitions=1)
        with KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, linger_ms=60_000, batch_size=1 << 20
        ) as producer:
            producer.send(TOPIC, b"connect")
            producer.flush(30)
            yield producer


def _plain(producer: KafkaProducer, count: Callable[..., Any]) -> None:
    send = producer.send
    for value, _ in PAIRS:
        send(TOPIC, value)


def _nowait(producer: KafkaProducer, count: Callable[..., Any]) -> None:
    send = producer.send_nowait
    for value, _ in PAIRS:
        send(TOPIC, value)


def _keyed(producer: KafkaProducer, count: Callable[..., Any]) -> None:
    send = producer.send
    for value, key in PAIRS:
        send(TOPIC, value, key)


def _headers(producer: KafkaProducer, count: Callable[..., Any]) -> None:
    send = producer.send
    headers = [("trace", b"0af7651916cd43dd8448eb211c80319c"), ("source", b"bench")]
    for value, key in PAIRS:
        send(TOPIC, value, key, headers)


def _on_delivery(producer: KafkaProducer, count: Callable[..., Any]) -> None:
    send = producer.send
    for value, _ in PAIRS:
        send(TOPIC, value, on_delivery=count)


def _add_callback(producer: KafkaProducer, count: Callable[..., Any]) -> None:
    send = producer.send
    for value, _ in PAIRS:
        send(TOPIC, value).add_callback(count)


def _futures_kept(producer: KafkaProducer, count: Callable[..., Any]) -> None:
    send = producer.send
    _ = [send(TOPIC, value) for value, _ in PAIRS]


@pytest.mark.parametrize(
    "loop",
    [_plain, _nowait, _keyed, _headers, _on_delivery, _add_callback, _futures_kept],
    ids=lambda loop: loop.__name__.strip("_"),
)
def test_send(
    benchmark: BenchmarkFixture,
    producer: KafkaProducer,
    loop: Callable[[KafkaProducer, Callable[..., Any]], None],
) -> None:
    reports: list[object] = []
    rounds = 0

    def flush() -> tuple[tuple[object, ...], dict[str, object]]:
        nonlocal rounds
        rounds += 1
        producer.flush()
        return (producer, lambda *report: reports.append(report)), {}

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        loop, setup=flush, rounds=ROUNDS, warmup_rounds=20
    )
    producer.flush()
    if loop in (_on_delivery, _add_callback):
        assert len(reports) == rounds * BLOCK
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["ns_per_record"] = round(benchmark.stats.stats.median / BLOCK * 1e9, 1)
