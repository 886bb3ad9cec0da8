"""Brokers and networks that are slow, and brokers that ask for it (quotas)."""

from __future__ import annotations

import time

from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Api
from tests.faults.stream import MakeProducer, Stream, figures
from tests.kafka.cluster import wait_until

PREFERRED = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]


def test_one_slow_broker_does_not_slow_the_others(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    stream = Stream(make_producer(), topic(assignment=PREFERRED), 3)
    stream.send(300)
    assert stream.settle() == []
    first = len(stream.sent)
    brokers.network.slow(1, delay=4.0, api=Api.PRODUCE)
    stream.send(1500)
    others = [sent for sent in stream.sent[first:] if sent.partition != 0]
    wait_until(lambda: all(sent.future.is_done for sent in others), "the records of the other brokers", 20)
    # Not one of the slow broker's first answers was waited for.
    assert not any(sent.future.is_done for sent in stream.sent[first:] if sent.partition == 0)
    brokers.network.heal()
    stream.check(brokers)


def test_slower_than_the_request_timeout(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """Each answer comes after the producer gave up: it repeats what is written, until answers are faster."""
    producer = make_producer(request_timeout_ms=600)
    stream = Stream(producer, topic(assignment=PREFERRED), 3)
    stream.send(30)
    assert stream.settle() == []
    brokers.network.slow(1, delay=1.0, api=Api.PRODUCE)
    stream.send(3000)
    wait_until(lambda: figures(producer)["record-retry-total"] >= 1000, "records sent again", 20)
    brokers.network.heal()
    stream.check(brokers)


def test_limited_bandwidth(brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    """Fewer bytes a second than are sent: send() is held up by the full buffer, and nothing is lost."""
    producer = make_producer(buffer_memory=300_000, max_request_size=100_000)
    stream = Stream(producer, topic(partitions=3), 3)
    brokers.network.slow(bytes_per_second=200_000)
    began = time.monotonic()
    stream.send(12_000)
    assert time.monotonic() - began > 0.5
    stream.check(brokers)


def test_quota(brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    """The broker answers, and asks for a pause (KIP-219): it is kept, on this broker only."""
    brokers.set_producer_quota("throttled", 50_000)
    try:
        producer = make_producer(client_id="throttled", request_timeout_ms=5000)
        stream = Stream(producer, topic(), 1)
        began = time.monotonic()
        while time.monotonic() - began < 4:
            stream.send(500)
            stream.settle()
        sent = sum(each.future.get(timeout=0).serialized_value_size for each in stream.sent)
        assert figures(producer)["produce-throttle-time-max"] > 0
        assert figures(producer)["record-retry-total"] == 0
        stream.check(brokers)
        # The quota is enforced over a window of eleven seconds, which may begin with a burst.
        assert sent < 50_000 * 16, f"{sent} bytes in {time.monotonic() - began:.1f} s"
    finally:
        brokers.set_producer_quota("throttled", None)
