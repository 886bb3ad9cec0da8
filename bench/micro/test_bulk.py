"""What many records in one call cost the calling thread, network left out; see ``test_send``."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.workload import Workload
from kprod import KafkaProducer
from kprod.testing import MockCluster

TOPIC = "bench"
RECORDS = 4096
ROUNDS = 100
PAIRS = Workload(records=1, warmup=1, keys=10_000, block_size=RECORDS).pairs[0]
VALUES = [value for value, _ in PAIRS]
KEYS = [key for _, key in PAIRS]


def _column(values: Sequence[bytes]) -> tuple[bytes, array[int]]:
    return b"".join(values), array("i", [0, *accumulate(map(len, values))])


VALUE_COLUMN, KEY_COLUMN = _column(VALUES), _column(KEYS)

CALLS: dict[str, Callable[[KafkaProducer], Any]] = {
    "many": lambda producer: producer.send_many(TOPIC, VALUES),
    "many_keyed": lambda producer: producer.send_many(TOPIC, VALUES, KEYS),
    "columns": lambda producer: producer.send_columns(TOPIC, VALUE_COLUMN),
    "columns_keyed": lambda producer: producer.send_columns(TOPIC, VALUE_COLUMN, KEY_COLUMN),
}


@pytest.fixture(scope="module")
def producer() -> Iterator[KafkaProducer]:
    """A producer that holds a call's records back until they are flushed."""
    with MockCluster(process=True, strict=False) as cluster:
        cluster.create_topic(TOPIC, partitions=6)
        with KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, linger_ms=60_000, batch_size=1 << 20
        ) as producer:
            producer.send(TOPIC, b"connect")
            producer.flush(30)
            yield producer


@pytest.mark.parametrize("call", CALLS)
def test_bulk(benchmark: BenchmarkFixture, producer: KafkaProducer, call: str) -> None:
    def flush() -> tuple[tuple[object, ...], dict[str, object]]:
        producer.flush()
        return (producer,), {}

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        CALLS[call], setup=flush, rounds=ROUNDS, warmup_rounds=5
    )
    producer.flush()
    if benchmark.stats is not None:  # None with --benchmark-disable
        benchmark.extra_info["ns_per_record"] = round(benchmark.stats.stats.median / RECORDS * 1e9, 1)
