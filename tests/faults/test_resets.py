"""Connections that are reset at any byte of any request."""

from __future__ import annotations

import functools

import pytest

from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Api, Fault
from tests.faults.stream import MakeProducer, Stream, meanwhile
from tests.kafka.cluster import wait_until

RESETS = (Fault.RESET_BEFORE, Fault.RESET_MID_REQUEST, Fault.RESET_MID_RESPONSE, Fault.DROP_RESPONSE)


@pytest.mark.parametrize("fault", RESETS, ids=lambda fault: fault.name.lower())
def test_produce_requests_of_a_stream(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, fault: Fault
) -> None:
    producer = make_producer(linger_ms=0, batch_size=2000, reconnect_backoff_ms=10)
    stream = Stream(producer, topic(partitions=3), 3)
    resets = brokers.network.inject(fault, times=30, probability=0.2)
    stream.send_until(lambda: resets.hits >= 30)
    stream.check(brokers)


@pytest.mark.parametrize("fault", RESETS, ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize(
    "api", [Api.API_VERSIONS, Api.METADATA, Api.INIT_PRODUCER_ID], ids=lambda api: api.name.lower()
)
def test_requests_before_the_first_record(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, api: Api, fault: Fault
) -> None:
    name = topic()
    resets = brokers.network.inject(fault, api, times=3)
    stream = Stream(make_producer(), name, 1)
    stream.send(100)
    resets.wait_spent()
    stream.check(brokers)


def test_all_connections_at_once_again_and_again(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    stream = Stream(make_producer(), topic(partitions=6), 6)
    stream.send(6)
    assert stream.settle() == []

    def decided() -> int:
        return sum(sent.future.is_done for sent in stream.sent)

    def has_decided(count: int) -> bool:
        return decided() >= count

    def disturb() -> None:
        for _ in range(10):
            wait_until(lambda: all(map(brokers.network.connections, brokers.nodes)), "connections to all")
            target = decided() + 1
            brokers.network.reset()
            wait_until(functools.partial(has_decided, target), "progress")

    with meanwhile(disturb) as done:
        stream.send_until(done, rate=5000)
    stream.check(brokers)
