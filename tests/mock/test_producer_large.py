"""Records and batches that are too large, and records that brokers refuse one by one."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from kprod import KafkaProducer, errors
from kprod.testing import MockCluster
from tests.mock.conftest import MakeProducer

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def noise(index: int, size: int) -> bytes:
    """Bytes that no codec makes smaller, starting with the index."""
    return b"%06d" % index + random.Random(index).randbytes(size - 6)


def numbers(cluster: MockCluster, topic: str) -> list[int]:
    return [int((record.value or b"")[:6]) for record in cluster.records(topic)]


# --- MESSAGE_TOO_LARGE


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_that_is_too_large_for_the_broker_is_split(
    cluster: MockCluster, make_producer: MakeProducer, codec: str
) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 3000})
    producer = make_producer(batch_size=30_000, linger_ms=60_000, compression_type=codec)
    reports: list[Any] = []
    futures = [
        producer.send(
            "small", noise(i, 200), key=b"%d" % i, headers=[("h", b"%d" % i)], timestamp_ms=1000 + i,
            on_delivery=partial(lambda i, *args: reports.append((i, *args)), i),
        )
        for i in range(100)
    ]  # fmt: skip
    late: list[Any] = []
    for i, future in enumerate(futures):
        future.add_callback(lambda i, metadata: late.append((i, metadata.offset)), i)
    producer.flush(20)
    assert numbers(cluster, "small") == list(range(100))
    records = cluster.records("small")
    assert [record.key for record in records] == [b"%d" % i for i in range(100)]
    assert [record.headers for record in records] == [[("h", b"%d" % i)] for i in range(100)]
    assert [record.timestamp for record in records] == [1000 + i for i in range(100)]
    assert [future.get().offset for future in futures] == list(range(100))
    assert [future.get().timestamp for future in futures] == [1000 + i for i in range(100)]
    assert [future.get().serialized_key_size for future in futures] == [len(str(i)) for i in range(100)]
    assert [i for i, error, metadata in reports] == list(range(100))
    assert [error for i, error, metadata in reports] == [None] * 100
    assert [metadata.offset for i, error, metadata in reports] == list(range(100))
    assert sorted(late) == [(i, i) for i in range(100)]
    assert all(len(batch.data) <= 3000 for batch in cluster.batches("small"))
    assert producer.metrics()["producer-metrics"]["batch-split-total"] >= 7  # type: ignore[index]


def test_splitting_keeps_the_order_while_other_batches_are_in_flight(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 1500})
    producer = make_producer(batch_size=4000, linger_ms=0)
    producer.partitions_for("small")
    cluster.set_latency(2)
    futures = [producer.send("small", noise(i, 100 + i % 400)) for i in range(600)]
    producer.flush(30)
    assert numbers(cluster, "small") == list(range(600))
    assert [future.get().offset for future in futures] == list(range(600))


def test_splitting_keeps_the_order_with_one_in_flight_and_no_idempotence(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 1500})
    producer = make_producer(
        batch_size=4000, linger_ms=0, enable_idempotence=False, max_in_flight_requests_per_connection=1
    )
    futures = [producer.send("small", noise(i, 100 + i % 400)) for i in range(600)]
    producer.flush(30)
    assert numbers(cluster, "small") == list(range(600))
    assert [future.get().offset for future in futures] == list(range(600))


def test_split_batches_survive_lost_responses_and_refusals(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 1500})
    producer = make_producer(batch_size=4000, linger_ms=0, request_timeout_ms=250)
    producer.partitions_for("small")
    cluster.set_latency(1)
    for skip in (2, 9, 17, 30):
        cluster.inject("Produce", close_connection="after", skip=skip)
        cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", skip=skip + 3)
    futures = [producer.send("small", noise(i, 100 + i % 400)) for i in range(400)]
    producer.flush(30)
    assert numbers(cluster, "small") == list(range(400))
    assert all(future.succeeded() for future in futures)


def test_a_single_record_that_is_too_large_for_the_broker_fails_alone(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 2000})
    producer = make_producer(batch_size=50_000, linger_ms=60_000)
    reports: list[Any] = []
    sizes = [5000 if i == 13 else 100 for i in range(40)]
    futures = [
        producer.send(
            "small",
            noise(i, size),
            on_delivery=partial(lambda i, error, metadata: reports.append((i, error)), i),
        )
        for i, size in enumerate(sizes)
    ]
    producer.flush(20)
    assert [future.failed() for future in futures] == [i == 13 for i in range(40)]
    with pytest.raises(errors.MessageSizeTooLargeError) as caught:
        futures[13].get()
    assert caught.value.persisted == "no"
    assert numbers(cluster, "small") == [i for i in range(40) if i != 13]
    assert sorted(i for i, error in reports) == list(range(40))
    assert [i for i, error in reports if error is not None] == [13]
    last = producer.send("small", noise(40, 100))
    producer.flush(10)
    assert last.get().offset == 39


def test_a_batch_is_split_when_the_broker_says_record_list_too_large(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=60_000)
    cluster.inject("Produce", "RECORD_LIST_TOO_LARGE")
    futures = [producer.send("t", b"%06d" % i) for i in range(10)]
    producer.flush(10)
    assert [future.get().offset for future in futures] == list(range(10))
    assert len(cluster.batches("t")) == 2


def test_max_request_size_is_checked_before_anything_is_sent(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(max_request_size=1000)
    with pytest.raises(
        errors.MessageSizeTooLargeError, match=r"takes \d+ bytes .* max_request_size is 1000"
    ) as caught:
        producer.send("t", bytes(1000))
    assert caught.value.persisted == "no"
    for options in ({"key": bytes(1000)}, {"headers": [("h", bytes(1000))]}):
        with pytest.raises(errors.MessageSizeTooLargeError):
            producer.send("t", b"", **options)
    assert producer.send("t", bytes(800)).get(10).offset == 0


def test_a_record_larger_than_batch_size_goes_alone(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(batch_size=500, linger_ms=60_000)
    futures = [producer.send("t", bytes(size)) for size in (100, 100_000, 100)]
    producer.flush(10)
    assert [future.get().offset for future in futures] == [0, 1, 2]
    assert [batch.header.record_count for batch in cluster.batches("t")] == [1, 1, 1]


# --- record errors (KIP-467)


def test_only_the_records_that_a_broker_names_are_to_blame(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=60_000)
    cluster.inject(
        "Produce", "INVALID_RECORD", error_message="the batch is bad",
        record_errors=[(1, "record one is bad"), (3, None)],
    )  # fmt: skip
    reports: list[Any] = []
    futures = [
        producer.send("t", b"%d" % i, on_delivery=lambda error, metadata: reports.append(error))
        for i in range(5)
    ]
    producer.flush(10)
    for i in (0, 2, 4):
        error = futures[i].exception
        assert isinstance(error, errors.InvalidDifferentRecordError)
        assert error.retriable
        assert error.persisted == "no"
        assert "another record" in str(error)
    assert isinstance(futures[1].exception, errors.InvalidRecordError)
    assert "record one is bad" in str(futures[1].exception)
    assert isinstance(futures[3].exception, errors.InvalidRecordError)
    assert "the batch is bad" in str(futures[3].exception)
    assert [type(error) for error in reports] == [type(future.exception) for future in futures]


def test_records_without_a_key_are_refused_by_a_compacted_topic(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("compacted", config={"cleanup.policy": "compact"})
    producer = make_producer(linger_ms=60_000)
    futures = [producer.send("compacted", b"v", key=None if i == 2 else b"k") for i in range(4)]
    producer.flush(10)
    assert [type(future.exception) for future in futures] == [
        errors.InvalidRecordError if i == 2 else errors.InvalidDifferentRecordError for i in range(4)
    ]
    assert cluster.count("compacted") == 0


def test_an_error_without_named_records_is_that_of_all(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=60_000)
    cluster.inject("Produce", "INVALID_TIMESTAMP", error_message="too old")
    futures = [producer.send("t", b"v") for _ in range(3)]
    producer.flush(10)
    for future in futures:
        assert isinstance(future.exception, errors.InvalidTimestampError)
        assert "too old" in str(future.exception)


def test_a_refused_topic_fails_with_the_brokers_error(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.inject("Produce", "TOPIC_AUTHORIZATION_FAILED")
    with pytest.raises(errors.TopicAuthorizationFailedError) as caught:
        producer.send("t", b"v").get(10)
    assert (caught.value.topic, caught.value.partition) == ("t", 0)
    assert producer.send("t", b"v").get(10).offset == 0
