"""Topics of all kinds: created on the way, growing, compacted, with limits and clocks of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kprod.errors import (
    InvalidDifferentRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
)
from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import (
    assert_records,
    assert_sequences,
    expected_record,
    failure,
    outcomes,
)
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import LOG_APPEND_TIME, read_confluent, read_kafka_python


@pytest.fixture(scope="module")
def kafka_without_auto_creation() -> Iterator[KafkaCluster]:
    with KafkaCluster(1, auto_create_topics_enable=False) as cluster:
        yield cluster


def test_topic_is_created_on_the_way(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic.name()
    producer = make_producer(kafka)
    outcomes([producer.send(name, b"%d" % i) for i in range(100)])
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: [b"%d" % i for i in range(100)]})


def test_sequence_numbers_wrap_at_2_to_the_31(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """After 2**31 records of one producer in a partition; brokers take any number as the first."""
    name = topic(2)
    producer = make_producer(kafka, batch_size=512, linger_ms=0)
    producer.partitions_for(name)
    producer._engine_started._loop.begin_sequences_at(2**31 - 1000)  # type: ignore[union-attr]
    values: list[bytes] = [b"%d" % i for i in range(2000)]
    for partition in range(2):
        producer.send(name, values[0], partition=partition).get(30)
    outcomes([producer.send(name, value, partition=p) for value in values[1:] for p in range(2)])
    assert producer._engine_started._loop.producer_id[1] == 0, "a new epoch"  # type: ignore[union-attr]
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: values, 1: values})


@pytest.mark.usefixtures("kafka")
def test_topic_that_nobody_creates(
    kafka_without_auto_creation: KafkaCluster, make_producer: MakeProducer
) -> None:
    kafka = kafka_without_auto_creation
    producer = make_producer(kafka, max_block_ms=1500)
    started = time.monotonic()
    error = failure(lambda: producer.send("not-there", b"x"))
    assert isinstance(error, KafkaTimeoutError | UnknownTopicOrPartitionError), repr(error)
    assert "not-there" in str(error)
    assert time.monotonic() - started < 10
    assert "not-there" not in kafka.topics()
    # The producer itself is as good as ever, for this topic too once it is there.
    kafka.create_topic("not-there")
    wait_until(lambda: _delivers(producer, "not-there"), "the new topic to be found", 20)
    assert len(read_confluent(kafka.bootstrap_servers, "not-there")) == 1


def _delivers(producer: object, name: str) -> bool:
    try:
        producer.send(name, b"x").get(timeout=20)  # type: ignore[attr-defined]
    except KafkaError:
        return False
    return True


@pytest.mark.parametrize("name", ["", ".", "..", "with space", "sl/ash", "ü", "x" * 250])
def test_invalid_topic_name(kafka: KafkaCluster, make_producer: MakeProducer, name: str) -> None:
    producer = make_producer(kafka)
    with pytest.raises((InvalidTopicError, ValueError)) as caught:
        producer.send(name, b"x")
    assert name[:20] in str(caught.value)


def test_partitions_that_are_added_are_used(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=1)
    producer = make_producer(kafka, metadata_max_age_ms=300)
    assert producer.partitions_for(name) == {0}
    producer.send(name, b"before", key=b"k").get(timeout=30)
    with pytest.raises((KafkaError, ValueError)):
        producer.send(name, b"too early", partition=2)
    kafka.add_partitions(name, 3)
    wait_until(lambda: producer.partitions_for(name) == {0, 1, 2}, "the producer to see three partitions", 20)
    assert producer.send(name, b"after", partition=2).get(timeout=30).partition == 2
    used = {producer.send(name, b"after", key=b"%d" % i).get(timeout=30).partition for i in range(50)}
    assert used == {0, 1, 2}


def test_topic_deleted_and_created_again(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """The same name is another topic then, with an id of its own (KIP-516) and other partitions."""
    name = topic(partitions=3)
    producer = make_producer(kafka, metadata_max_age_ms=300)
    outcomes([producer.send(name, b"old", partition=p) for p in range(3)])
    kafka.delete_topic(name)
    wait_until(lambda: name not in kafka.topics(), "the topic to be gone", 30)
    kafka.create_topic(name, 2)
    wait_until(lambda: producer.partitions_for(name) == {0, 1}, "the producer to see two partitions", 20)
    outcomes([producer.send(name, b"%d" % i, partition=i % 2) for i in range(100)])
    expected = {p: [b"%d" % i for i in range(100) if i % 2 == p] for p in range(2)}
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), expected)


def test_record_too_large_for_the_topic(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(config={"max.message.bytes": 5000})
    producer = make_producer(kafka)
    error = failure(lambda: producer.send(name, b"x" * 6000))
    assert isinstance(error, MessageSizeTooLargeError), repr(error)
    assert error.persisted == "no"
    outcomes([producer.send(name, b"%d" % i) for i in range(10)])
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: [b"%d" % i for i in range(10)]})


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_batch_too_large_for_the_topic_is_split(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, codec: str
) -> None:
    name = topic(config={"max.message.bytes": 5000})
    producer = make_producer(kafka, compression_type=codec, batch_size=200_000, linger_ms=500)
    # Random digits: zstd gets them to half their size, which is still far too much for one batch.
    values = [b"%04d " % i + (b"%d" % pow(7, 1000 + i))[:300] for i in range(600)]
    metadata = outcomes([producer.send(name, value, key=b"k") for value in values])
    found = read_kafka_python(kafka.bootstrap_servers, name)
    assert_records(
        found, [expected_record(m, b"k", value) for m, value in zip(metadata, values, strict=True)]
    )
    assert [r.value for r in found] == values
    batches = kafka.log_batches(name)
    assert max(batch.size for batch in batches) <= 5000
    assert len(batches) < 300, "splitting went on long after the batches had become small enough"


def test_one_record_too_large_among_others(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(config={"max.message.bytes": 5000})
    producer = make_producer(kafka, batch_size=100_000, linger_ms=500)
    values = [b"%d" % i for i in range(20)]
    values[7] = b"7" * 8000
    futures = [producer.send(name, value) for value in values]
    producer.flush(timeout=30)
    assert [i for i, future in enumerate(futures) if future.failed()] == [7]
    assert isinstance(futures[7].exception, MessageSizeTooLargeError)
    fitting = [value for value in values if len(value) < 8000]
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: fitting})


def test_compacted_topic_refuses_records_without_key(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """KIP-467: the broker names the wrong records; the others of their batch were not written either."""
    name = topic(config={"cleanup.policy": "compact"})
    producer = make_producer(kafka, linger_ms=500)
    futures = [producer.send(name, b"%d" % i, key=None if i in (3, 5) else b"k%d" % i) for i in range(8)]
    producer.flush(timeout=30)
    assert all(future.failed() for future in futures)
    for i, future in enumerate(futures):
        wanted = InvalidRecordError if i in (3, 5) else InvalidDifferentRecordError
        assert type(future.exception) is wanted, f"record {i}: {future.exception!r}"
    # The sequence numbers of the refused batch are taken again: the next batches are accepted, in order.
    outcomes([producer.send(name, b"again %d" % i, key=b"k%d" % i) for i in range(100)])
    expected = [b"again %d" % i for i in range(100)]
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: expected})


def test_log_append_time(kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic(config={"message.timestamp.type": "LogAppendTime"})
    producer = make_producer(kafka, linger_ms=100)
    before = int(time.time() * 1000)
    metadata = outcomes(
        [producer.send(name, b"%d" % i, timestamp_ms=1_500_000_000_000 + i) for i in range(10)]
    )
    after = int(time.time() * 1000)
    assert all(before <= m.timestamp <= after for m in metadata)
    expected = [
        expected_record(m, None, b"%d" % i, timestamp_type=LOG_APPEND_TIME) for i, m in enumerate(metadata)
    ]
    assert_records(read_confluent(kafka.bootstrap_servers, name), expected)
    assert_records(read_kafka_python(kafka.bootstrap_servers, name), expected)


def test_timestamp_that_the_broker_refuses(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(config={"message.timestamp.before.max.ms": 3_600_000})
    producer = make_producer(kafka, linger_ms=500)
    day_ago = int(time.time() * 1000) - 86_400_000
    futures = [producer.send(name, b"%d" % i, timestamp_ms=day_ago if i == 1 else None) for i in range(3)]
    producer.flush(timeout=30)
    assert isinstance(futures[1].exception, InvalidTimestampError), repr(futures[1].exception)
    assert all(isinstance(futures[i].exception, InvalidDifferentRecordError) for i in (0, 2))
    producer.send(name, b"good").get(timeout=30)
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: [b"good"]})
