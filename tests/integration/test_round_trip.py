"""What goes in comes out, for every codec, as three independent consumers see it."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import CODECS, assert_records, expected_record, outcomes
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import ConsumedRecord, read_confluent, read_java, read_kafka_python


class Sent(NamedTuple):
    """A record as it is given to send()."""

    key: Any = None
    value: Any = None
    headers: Sequence[tuple[str, bytes | None]] | Mapping[str, bytes | None] | None = None
    timestamp_ms: int | None = None


def _as_bytes(thing: Any) -> bytes | None:
    return None if thing is None else bytes(thing)


ALL_BYTES = bytes(range(256))
RECORDS = [
    Sent(b"key", b"value"),
    Sent(None, b"no key"),
    Sent(b"", b"an empty key is a key"),
    Sent(b"empty value", b""),
    Sent(b"", b""),
    Sent(b"tombstone", None),
    Sent(None, None),
    Sent(bytearray(b"bytearray key"), bytearray(b"bytearray value")),
    Sent(memoryview(b"memoryview key"), memoryview(b"memoryview value")),
    Sent(memoryview(b"x-part of it-x")[2:-2], memoryview(bytearray(b"0123456789"))[3:7]),
    Sent(ALL_BYTES, ALL_BYTES * 3),
    Sent(b"long, compressible", b"0123456789" * 10_000),
    Sent(b"long, random", os.urandom(50_000)),
    # Lengths where the varint of a length grows by a byte.
    *(Sent(b"k" * n, b"v" * n) for n in (63, 64, 65, 127, 128, 8191, 8192)),
    Sent(b"h", b"one header", [("trace", b"abc")]),
    Sent(b"h", b"headers of all kinds", [("n", None), ("e", b""), ("b", ALL_BYTES), ("größe", b"\xff")]),
    Sent(b"h", b"header without a name", [("", b"v")]),
    Sent(b"h", b"headers twice, in order", [("same", b"1"), ("same", b"2"), ("same", b"1")]),
    Sent(b"h", b"no headers after all", []),
    Sent(b"h", b"headers as a mapping", {"one": b"1", "two": b"2"}),
    Sent(b"t", b"explicit time", None, 1_700_000_000_123),
    Sent(b"t", b"earlier than its batch", None, 1_600_000_000_000),
    Sent(b"t", b"the epoch", None, 0),
]  # fmt: skip

Reader = Callable[[KafkaCluster, str, int], list[ConsumedRecord]]
READERS: dict[str, Reader] = {
    "confluent-kafka": lambda kafka, topic, count: read_confluent(kafka.bootstrap_servers, topic),
    "kafka-python": lambda kafka, topic, count: read_kafka_python(kafka.bootstrap_servers, topic),
    "java": lambda kafka, topic, count: read_java(kafka.distribution, kafka.bootstrap_servers, topic, count),
}


@pytest.mark.parametrize("codec", CODECS)
def test_every_kind_of_record_comes_back_as_it_was(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, codec: str
) -> None:
    name = topic(partitions=3)
    producer = make_producer(kafka, compression_type=codec, linger_ms=100)
    futures = [
        producer.send(name, value=r.value, key=r.key, headers=r.headers, timestamp_ms=r.timestamp_ms)
        for r in RECORDS
    ]
    expected = []
    for record, metadata in zip(RECORDS, outcomes(futures), strict=True):
        pairs = record.headers.items() if isinstance(record.headers, Mapping) else record.headers or ()
        if record.timestamp_ms is not None:
            assert metadata.timestamp == record.timestamp_ms
        expected.append(
            expected_record(metadata, _as_bytes(record.key), _as_bytes(record.value), tuple(pairs))
        )
    for reader, read in READERS.items():
        print(f"read by {reader}")
        assert_records(read(kafka, name, len(expected)), expected)


@pytest.mark.parametrize("codec", CODECS)
def test_the_codec_is_the_one_in_the_log(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, codec: str
) -> None:
    name = topic()
    producer = make_producer(kafka, compression_type=codec, linger_ms=100)
    outcomes([producer.send(name, b"compressible " * 50) for _ in range(500)])
    batches = kafka.log_batches(name)
    assert {(batch.compression, batch.magic, batch.is_valid) for batch in batches} == {(codec, 2, True)}
    assert sum(batch.records for batch in batches) == 500


@pytest.mark.parametrize(("codec", "levels"), [("gzip", (1, 9)), ("lz4", (1, 9)), ("zstd", (1, 19))])
def test_compression_levels_are_readable_and_differ(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, codec: str, levels: tuple[int, int]
) -> None:
    source = random.Random(5)
    words = [bytes(source.choices(b"abcdefghijklmnop", k=source.randrange(2, 9))) for _ in range(2000)]
    values = [b" ".join(source.choices(words, k=60)) for _ in range(400)]
    sizes = []
    for level in levels:
        name = topic()
        options = {f"compression_{codec}_level": level}
        producer = make_producer(
            kafka, compression_type=codec, linger_ms=500, batch_size=1_000_000, **options
        )
        metadata = outcomes([producer.send(name, value) for value in values])
        expected = [expected_record(m, None, value) for m, value in zip(metadata, values, strict=True)]
        assert_records(read_kafka_python(kafka.bootstrap_servers, name), expected)
        sizes.append(sum(batch.size for batch in kafka.log_batches(name)))
    # Of such text each of the three makes at least 7 % less at the higher level.
    assert sizes[1] < sizes[0] * 0.97, f"bytes in the log at {codec} levels {levels}: {sizes}"


def test_metadata_of_a_record(kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic(partitions=4)
    producer = make_producer(kafka)
    before = int(time.time() * 1000)
    future = producer.send(name, b"value", key=b"key", headers=[("h", b"12345")], partition=2)
    metadata = future.get(timeout=30)
    after = int(time.time() * 1000)
    assert future.is_done and future.succeeded() and not future.failed() and future.exception is None
    assert (metadata.topic, metadata.partition, metadata.offset) == (name, 2, 0)
    assert tuple(metadata.topic_partition) == (name, 2)
    assert (metadata.serialized_key_size, metadata.serialized_value_size) == (3, 5)
    assert metadata.serialized_header_size >= len("h") + len(b"12345")
    assert before <= metadata.timestamp <= after
    assert [r.timestamp for r in read_confluent(kafka.bootstrap_servers, name)] == [metadata.timestamp]
    assert producer.send(name, b"next", partition=2).get(timeout=30).offset == 1


def test_serializers(kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic()
    producer = make_producer(
        kafka, key_serializer=str.encode, value_serializer=lambda value: repr(value).encode()
    )
    metadata = producer.send(name, {"a": [1, None]}, key="schlüssel").get(timeout=30)
    expected = [expected_record(metadata, "schlüssel".encode(), b"{'a': [1, None]}")]
    assert_records(read_confluent(kafka.bootstrap_servers, name), expected)


def test_callbacks_come_once_each_and_in_order(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka, linger_ms=1)
    reports: list[tuple[int, Any, int]] = []
    added: list[tuple[str, int, int]] = []

    def report_of(i: int) -> Callable[[Any, Any], None]:
        return lambda error, metadata: reports.append((i, error, metadata.offset))

    for i in range(2000):
        future = producer.send(name, b"%d" % i, on_delivery=report_of(i))
        future.add_callback(
            lambda tag, number, metadata: added.append((tag, number, metadata.offset)), "extra", i
        )
    producer.flush(timeout=30)
    assert reports == [(i, None, i) for i in range(2000)]
    assert added == [("extra", i, i) for i in range(2000)]


def test_futures_can_be_awaited(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka)

    async def send_all() -> list[Any]:
        return [await future for future in [producer.send(name, b"%d" % i) for i in range(100)]]

    assert [metadata.offset for metadata in asyncio.run(send_all())] == list(range(100))


def test_java_option_names(kafka: KafkaCluster, topic: TopicFactory) -> None:
    from kprod import KafkaProducer

    name = topic()
    options = {"bootstrap.servers": kafka.bootstrap_servers, "compression.type": "gzip", "linger.ms": 20}
    with KafkaProducer(options) as producer:
        futures = [producer.send(name, b"compressible " * 10) for _ in range(100)]
    # Leaving the context delivers what is open.
    assert [future.get(timeout=0).offset for future in futures] == list(range(100))
    assert {batch.compression for batch in kafka.log_batches(name)} == {"gzip"}
