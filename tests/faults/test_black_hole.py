"""The network swallows everything: connections stay open, and nothing gets through."""

from __future__ import annotations

import multiprocessing
import resource
import time
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod.errors import BufferExhaustedError, KafkaError, KafkaTimeoutError
from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Api, Fault
from tests.faults.stream import MakeProducer, Stream
from tests.kafka.cluster import wait_until

PREFERRED = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]


def test_longer_than_the_request_timeout(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """The broker is alive to the others, so it stays the leader: its records wait, and are written once.

    The requests that the producer gave up reach the broker when the hole is gone, after their repetitions or
    before them.
    """
    stream = Stream(make_producer(request_timeout_ms=1000), topic(assignment=PREFERRED), 3)
    stream.send(300)
    assert stream.settle() == []
    brokers.network.black_hole(1)
    first = len(stream.sent)
    stream.send(3000)
    began = time.monotonic()
    others = [sent for sent in stream.sent[first:] if sent.partition != 0]
    wait_until(lambda: all(sent.future.is_done for sent in others), "the records of the other brokers", 20)
    # Two request timeouts long: at least one connection was given up for another that is as dead.
    wait_until(lambda: time.monotonic() - began > 3.0, "the request timeouts", 10)
    assert not any(sent.future.is_done for sent in stream.sent[first:] if sent.partition == 0)
    brokers.network.heal()
    stream.send(300)
    stream.check(brokers)


def test_late_request_after_its_repetition(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """A request that was stuck on the way arrives when its repetition, and more, has long been written."""
    stream = Stream(make_producer(request_timeout_ms=1000), topic(), 1)
    late = brokers.network.inject(Fault.HOLD_REQUEST)
    stream.send(100)
    late.wait()
    assert stream.settle() == []
    stream.send(100)
    assert stream.settle() == []
    brokers.network.release(late)
    stream.send(1000)
    stream.check(brokers)


@pytest.mark.parametrize(
    "api", [Api.METADATA, Api.INIT_PRODUCER_ID, Api.API_VERSIONS], ids=lambda api: api.name
)
def test_start_with_requests_that_are_never_answered(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, api: Api
) -> None:
    name = topic()
    holds = brokers.network.inject(Fault.HOLD_RESPONSE, api, times=2)
    stream = Stream(make_producer(request_timeout_ms=1000), name, 1)
    stream.send(100)
    holds.wait()
    stream.check(brokers)


def test_all_brokers_in_it_until_records_expire(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """Each future is decided in delivery_timeout_ms, send() raises after max_block_ms, close() is in time."""
    producer = make_producer(
        request_timeout_ms=1000,
        delivery_timeout_ms=4000,
        max_block_ms=500,
        buffer_memory=1 << 20,
        linger_ms=5,
    )
    stream = Stream(producer, topic(partitions=3), 3)
    stream.send_until_acknowledged()
    first = len(stream.sent)
    brokers.network.black_hole()
    began = time.monotonic()
    with pytest.raises(BufferExhaustedError):
        stream.send(100_000)
    blocked = time.monotonic()
    # Bounded from the last send() on, which waited max_block_ms for memory that did not come.
    stream.settle(timeout=30)
    settled = time.monotonic()
    failed = [sent for sent in stream.sent[first:] if sent.future.failed()]
    assert blocked - began >= 0.5
    # Between the timeout and twice that: how late a busy machine may be.
    assert settled - blocked < 4.0 * 2
    assert failed and all(isinstance(sent.future.exception, KafkaTimeoutError) for sent in failed)
    # What was sent may arrive later; what never left the producer cannot.
    assert {sent.future.exception.persisted for sent in failed} == {"no", "possibly"}

    stream.send(30)
    closing = time.monotonic()
    producer.close(timeout=1.0)
    assert time.monotonic() - closing < 4.0, "it would wait for its records 4 s and longer"
    assert all(sent.future.is_done for sent in stream.sent)
    brokers.network.heal()
    stream.check_acknowledged(brokers)


def test_goes_on_after_records_expired(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """Expired batches leave a gap in the sequence numbers: what comes after must be accepted all the same."""
    producer = make_producer(request_timeout_ms=500, delivery_timeout_ms=1500, linger_ms=0, batch_size=2000)
    stream = Stream(producer, topic(partitions=3), 3)
    stream.send_until_acknowledged()
    for _ in range(3):
        brokers.network.black_hole()
        lost = len(stream.sent)
        stream.send(600)
        stream.settle(timeout=30)
        assert all(sent.future.failed() for sent in stream.sent[lost:])
        brokers.network.heal()
        stream.send_until_acknowledged()
        stream.send(600)
    stream.check_acknowledged(brokers)


def _fill(servers: str, topic: str, report: Any, go: Any) -> None:
    producer = KafkaProducer(
        bootstrap_servers=servers, max_block_ms=200, delivery_timeout_ms=4000, request_timeout_ms=1000
    )
    value = bytes(1000)
    # Everything that is allocated once is, before it is measured.
    for _ in range(5000):
        producer.send(topic, value)
    producer.flush(60)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report.send("warm")
    go.recv()
    accepted = refused = 0
    until = time.monotonic() + 8
    while time.monotonic() < until:
        try:
            producer.send(topic, value)
            accepted += 1
        except KafkaError:
            refused += 1
    report.send((accepted, refused, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024))
    producer.close(timeout=1)


def test_memory_is_bounded_while_nothing_gets_through(brokers: FaultyCluster, topic: TopicFactory) -> None:
    """Eight seconds of an application that keeps on sending: two delivery timeouts, a full buffer each."""
    context = multiprocessing.get_context("spawn")
    report, their_report = context.Pipe(duplex=False)
    their_go, go = context.Pipe(duplex=False)
    process = context.Process(target=_fill, args=(brokers.faulty_servers, topic(3), their_report, their_go))
    process.start()
    try:
        assert report.poll(60) and report.recv() == "warm"
        brokers.network.black_hole()
        go.send(None)
        assert report.poll(30), "the producer does not come back"
        accepted, refused, grown = report.recv()
    finally:
        brokers.network.heal()
        process.join(20)
        process.kill()
    print(f"{accepted} accepted, {refused} refused, {grown / 2**20:.1f} MiB more")
    assert accepted * 1000 > 32 << 20
    assert refused > 5
    # buffer_memory, 32 MiB, and as much again for everything else.
    assert grown < 64 << 20
