"""send_many(), send_columns() and send_table() on real Kafka, read back by confluent-kafka."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest

from kprod import errors
from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import CODECS, assert_records, expected_record
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent


@pytest.mark.parametrize("codec", CODECS)
def test_every_record_is_where_its_report_says(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, codec: str
) -> None:
    name = topic(partitions=5)
    producer = make_producer(kafka, compression_type=codec)
    rng = random.Random(codec)
    count = 5000
    values = [
        None if i % 50 == 7 else b"%d " % i + rng.randbytes(rng.choice([0, 10, 300])) for i in range(count)
    ]
    keys = [None if i % 9 == 3 else b"key-%d" % rng.randrange(200) for i in range(count)]
    headers: list[Any] = [[("n", b"%d" % i), ("null", None)] if i % 4 == 0 else None for i in range(count)]
    times = [1_700_000_000_000 + rng.randrange(10**6) for _ in range(count)]
    many = producer.send_many(name, values, keys, headers, times)
    columns = producer.send_columns(
        name,
        pa.chunked_array([values[:1234], values[1234:]], pa.binary()),
        pa.array(keys, pa.large_binary()),
        timestamps=pa.array(times, pa.timestamp("ms")),
        partitions=pa.array([i % 5 for i in range(count)], pa.int32()),
    )
    table = producer.send_table(
        name,
        pa.table({"v": values, "k": keys, "t": times}),
        "v",
        keys="k",
        timestamps="t",
        headers={"h": b"x"},
    )
    expected = []
    for future, pairs in ((many, headers), (columns, [None] * count), (table, [[("h", b"x")]] * count)):
        for i, report in enumerate(future.get(60)):
            expected.append(expected_record(report, keys[i], values[i], tuple(pairs[i] or ())))
            assert report.timestamp == times[i]
    assert list(columns.partitions()) == [i % 5 for i in range(count)]
    found = read_confluent(kafka.bootstrap_servers, name)
    assert_records(found, expected)
    # In each partition the records of a call are in their order.
    for future in (many, columns, table):
        last: dict[int, int] = defaultdict(lambda: -1)
        for partition, offset in zip(future.partitions(), future.offsets(), strict=True):
            assert offset > last[partition]
            last[partition] = offset


def test_hundreds_of_thousands_of_records_from_a_table_are_written_once_and_in_order(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=6)
    producer = make_producer(kafka, compression_type="lz4")
    count = 300_000
    values = pa.array(range(count)).cast(pa.string())
    keys = pa.array([i % 1000 for i in range(count)]).cast(pa.string())
    future = producer.send_columns(name, values, keys)
    assert future.get(120) and future.acked_count == count
    seen: dict[bytes | None, int] = {}
    for record in read_confluent(kafka.bootstrap_servers, name, timeout=120):
        number = int(record.value or b"")
        assert number % 1000 == int(record.key or b"")
        assert number - seen.get(record.key, number - 1000) == 1000
        seen[record.key] = number
    assert sorted(seen.values()) == list(range(count - 1000, count))


def test_records_are_part_of_the_transaction(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=3)
    producer = make_producer(kafka, transactional_id=name)
    producer.init_transactions()
    with pytest.raises(errors.IllegalStateError):
        producer.send_many(name, [b"outside"])
    with producer.transaction():
        kept = producer.send_many(
            name, [b"kept %d" % i for i in range(1000)], [b"%d" % i for i in range(1000)]
        )
    assert kept.succeeded()
    producer.begin_transaction()
    producer.send_columns(name, pa.array([b"dropped"] * 1000)).get(30)
    producer.abort_transaction()
    with producer.transaction():
        producer.send_columns(name, pa.array([b"kept as well"] * 10))
    found = read_confluent(kafka.bootstrap_servers, name, isolation="read_committed")
    values = sorted(record.value or b"" for record in found)
    assert values == sorted([b"kept %d" % i for i in range(1000)] + [b"kept as well"] * 10)


def test_batches_that_are_too_large_for_the_topic_are_split(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(config={"max.message.bytes": 5000})
    producer = make_producer(kafka, batch_size=100_000, linger_ms=100)
    values = [b"%06d" % i + b"x" * 200 for i in range(2000)]
    values[1000] = b"y" * 6000
    future = producer.send_many(name, values)
    producer.flush(60)
    assert {index: type(error) for index, error in future.failures()} == {
        1000: errors.MessageSizeTooLargeError
    }
    assert [record.value for record in read_confluent(kafka.bootstrap_servers, name)] == (
        values[:1000] + values[1001:]
    )
    assert list(future.offsets()) == [*range(1000), -1, *range(1000, 1999)]
