"""How long things may take, and what is known when they took longer: acks, flush, close, absent brokers."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod.errors import BufferExhaustedError, KafkaError, KafkaTimeoutError, NoBrokersAvailable
from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import assert_sequences, failure, outcomes
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import read_confluent


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_acks(kafka3: KafkaCluster, topic3: TopicFactory, make_producer: MakeProducer, acks: Any) -> None:
    name = topic3(partitions=3)
    producer = make_producer(
        kafka3, acks=acks, enable_idempotence=False, max_in_flight_requests_per_connection=1
    )
    metadata = outcomes([producer.send(name, b"%d" % i, partition=i % 3) for i in range(3000)])
    # acks=0 has no answer to learn the offset from.
    offsets = [-1] * 3000 if acks == 0 else [i // 3 for i in range(3000)]
    assert [m.offset for m in metadata] == offsets
    expected = {p: [b"%d" % i for i in range(p, 3000, 3)] for p in range(3)}
    assert_sequences(read_confluent(kafka3.bootstrap_servers, name, expect=3000), expected)


def test_flush_gives_up_in_time_and_loses_nothing(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka)
    producer.send(name, b"0").get(timeout=30)
    kafka.pause()
    future = producer.send(name, b"1")
    started = time.monotonic()
    with pytest.raises(KafkaTimeoutError):
        producer.flush(timeout=0.5)
    assert 0.4 < time.monotonic() - started < 3
    with pytest.raises(KafkaTimeoutError):
        future.get(timeout=0.1)
    assert not future.is_done
    kafka.resume()
    producer.flush(timeout=30)
    assert future.succeeded()
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: [b"0", b"1"]})


def test_close_gives_up_in_time_and_decides_every_record(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka, linger_ms=0, batch_size=1000)
    producer.send(name, b"0").get(timeout=30)
    kafka.pause()
    reports: list[Any] = []
    futures = [
        producer.send(name, b"x" * 500, on_delivery=lambda error, _: reports.append(error))
        for _ in range(200)
    ]
    started = time.monotonic()
    producer.close(timeout=1)
    assert time.monotonic() - started < 5
    assert all(future.is_done and future.failed() for future in futures)
    assert len(reports) == 200 and all(isinstance(error, KafkaError) for error in reports)
    kafka.resume()
    # Those that were on their way when the producer gave up may have been written; no other was.
    possibly = sum(error.persisted == "possibly" for error in reports)
    assert 0 < possibly < 200
    assert {error.persisted for error in reports} == {"no", "possibly"}
    found = read_confluent(kafka.bootstrap_servers, name)
    assert 1 <= len(found) <= 1 + possibly


def test_a_broker_handles_what_a_closed_connection_left_it(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """So an attempt that has timed out may be written later, and nothing must take its place at once."""
    name = topic()
    producer = make_producer(kafka, linger_ms=0, request_timeout_ms=500, delivery_timeout_ms=1000)
    producer.send(name, b"0").get(timeout=30)
    kafka.pause()
    late = producer.send(name, b"late")
    with pytest.raises(KafkaTimeoutError) as caught:
        late.get(timeout=30)
    assert caught.value.persisted == "possibly"
    producer.close(timeout=0)
    kafka.resume()
    wait_until(lambda: len(read_confluent(kafka.bootstrap_servers, name)) == 2, "the record that came late")
    assert [r.value for r in read_confluent(kafka.bootstrap_servers, name)] == [b"0", b"late"]


def test_delivery_timeout(kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic()
    producer = make_producer(kafka, request_timeout_ms=500, delivery_timeout_ms=1500, linger_ms=0)
    producer.send(name, b"0").get(timeout=30)
    kafka.pause()
    started = time.monotonic()
    future = producer.send(name, b"1")
    with pytest.raises(KafkaTimeoutError) as caught:
        future.get(timeout=30)
    assert 1.0 < time.monotonic() - started < 6
    assert caught.value.persisted == "possibly"
    assert name in str(caught.value)
    kafka.resume()
    producer.send(name, b"2").get(timeout=60)
    values = [r.value for r in read_confluent(kafka.bootstrap_servers, name)]
    assert values in ([b"0", b"2"], [b"0", b"1", b"2"])


def test_full_buffer_blocks_for_max_block_and_then_says_so(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka, buffer_memory=1_000_000, max_block_ms=500)
    producer.send(name, b"0").get(timeout=30)
    kafka.pause()
    accepted = []
    started = time.monotonic()
    with pytest.raises(BufferExhaustedError):
        for _ in range(10_000):
            started = time.monotonic()
            accepted.append(producer.send(name, b"x" * 1000))
    assert 0.4 < time.monotonic() - started < 3
    assert 500 < len(accepted) < 1100
    kafka.resume()
    outcomes(accepted)
    assert len(read_confluent(kafka.bootstrap_servers, name)) == 1 + len(accepted)


def test_unreachable_bootstrap_says_who_and_why() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    producer: KafkaProducer | None = None

    def send() -> Any:
        # Where it shows (constructor or first send) is the producer's choice.
        nonlocal producer
        producer = KafkaProducer(bootstrap_servers=f"127.0.0.1:{port}", max_block_ms=2000)
        return producer.send("topic", b"x")

    started = time.monotonic()
    error = failure(send)
    assert time.monotonic() - started < 10
    assert isinstance(error, NoBrokersAvailable), repr(error)
    assert f"127.0.0.1:{port}" in str(error) and "refused" in str(error)
    if producer is not None:
        assert not producer.bootstrap_connected()
        producer.close(timeout=5)


def test_one_of_the_bootstrap_servers_is_enough(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        servers = [f"127.0.0.1:{closed.getsockname()[1]}", kafka.address()]
        producer = make_producer(kafka, bootstrap_servers=servers)
        producer.send(topic(), b"x").get(timeout=30)
    assert producer.bootstrap_connected()


def test_broker_that_is_started_after_the_producer(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka, max_block_ms=60_000)
    producer.send(name, b"0").get(timeout=30)
    kafka.kill()
    # The topic is known, so these are accepted while there is no broker at all.
    waiting = [producer.send(name, b"%d" % i) for i in range(1, 101)]
    kafka.start()
    outcomes(waiting)
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: [b"%d" % i for i in range(101)]})
