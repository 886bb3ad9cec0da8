"""Callbacks run in send order within a partition, also when a later batch is decided first."""

from __future__ import annotations

from functools import partial

from kprod import KafkaError, RecordMetadata
from kprod.testing import MockCluster
from tests.mock.conftest import MakeProducer


def test_callbacks_wait_for_those_of_an_older_batch_whose_fate_is_unknown(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=0, batch_size=1)
    producer.send("t", b"first").get(10)
    cluster.set_latency(5)
    fault = cluster.inject("Produce", "REQUEST_TIMED_OUT", applied=True)
    seen: list[bytes] = []

    def delivered(value: bytes, error: KafkaError | None, metadata: RecordMetadata) -> None:
        seen.append(value)

    for number in range(5):
        value = b"%d" % number
        producer.send("t", value, on_delivery=partial(delivered, value))
    producer.flush(20)
    assert fault.hits == 1
    assert seen == [b"0", b"1", b"2", b"3", b"4"]
    assert [record.value for record in cluster.records("t")] == [b"first", *seen]


def test_callbacks_keep_their_order_around_a_split(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=200, batch_size=1000)
    producer.send("t", b"first").get(10)
    cluster.set_latency(5)
    cluster.inject("Produce", "MESSAGE_TOO_LARGE")
    seen: list[int] = []
    for _ in range(60):
        producer.send("t", b"x" * 100, on_delivery=lambda error, metadata: seen.append(metadata.offset))
    producer.flush(20)
    figures = producer.metrics(raw=True)
    assert figures is not None and figures["loop"]["batches_split"] == 1
    assert seen == list(range(1, 61))
