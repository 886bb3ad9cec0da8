"""The broker has written a batch, and its answer never arrives: the one fault that makes duplicates."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Api, Fault
from tests.faults.stream import MakeProducer, Stream
from tests.kafka.readers import read_confluent


def test_idempotent_producer_writes_once(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    stream = Stream(make_producer(), topic(), 1)
    drop = brokers.network.inject(Fault.DROP_RESPONSE)
    stream.send(100)
    drop.wait()
    stream.check(brokers)
    assert {sent.future.get(timeout=0).attempts for sent in stream.sent} >= {2}


def test_without_idempotence_the_same_fault_writes_twice(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """The control: it shows that the fault is one, and that the checks of this folder can fail."""
    stream = Stream(make_producer(enable_idempotence=False), topic(), 1)
    drop = brokers.network.inject(Fault.DROP_RESPONSE)
    stream.send(100)
    drop.wait()
    assert stream.settle() == []
    found = Counter(record.value for record in read_confluent(brokers.bootstrap_servers, stream.topic))
    assert len(found) == 100
    assert max(found.values()) == 2
    with pytest.raises(pytest.fail.Exception, match=r" 0 lost, 100 doubled, 0 out of order"):
        stream.check(brokers)


def test_same_response_dropped_again_and_again(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    stream = Stream(make_producer(), topic(), 1)
    drops = brokers.network.inject(Fault.DROP_RESPONSE, times=6)
    stream.send(10)
    drops.wait_spent()
    stream.check(brokers)


@pytest.mark.parametrize("in_flight", [1, 5])
def test_every_tenth_response_of_a_stream_dropped(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, in_flight: int
) -> None:
    """With five requests in flight the batches behind the one in doubt are written, or in doubt, too."""
    producer = make_producer(linger_ms=0, batch_size=2000, max_in_flight_requests_per_connection=in_flight)
    stream = Stream(producer, topic(partitions=3), 3)
    drops = brokers.network.inject(Fault.DROP_RESPONSE, times=40, probability=0.1)
    stream.send_until(lambda: drops.hits >= 40)
    stream.check(brokers)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_dropped_responses_of_compressed_batches(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, codec: str
) -> None:
    stream = Stream(make_producer(compression_type=codec), topic(partitions=3), 3)
    drops = brokers.network.inject(Fault.DROP_RESPONSE, times=10, probability=0.2)
    stream.send_until(lambda: drops.hits >= 10)
    stream.check(brokers)


def test_dropped_while_the_leader_moves(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """The old leader wrote it, the new one must know it: producer state is replicated with the records."""
    name = topic(assignment=[[1, 2, 3]], config={"min.insync.replicas": 2})
    stream = Stream(make_producer(), name, 1)
    stream.send(1000)
    assert stream.settle() == []
    hold = brokers.network.inject(Fault.HOLD_RESPONSE)
    stream.send(1000)
    hold.wait()
    brokers.kill(1)
    stream.check(brokers)
    brokers.start(1)
    stream.send(1000)
    stream.check(brokers)


def test_dropped_response_to_a_producer_id(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    drops = brokers.network.inject(Fault.DROP_RESPONSE, Api.INIT_PRODUCER_ID, times=2)
    stream = Stream(make_producer(), topic(), 1)
    stream.send(100)
    drops.wait_spent()
    stream.check(brokers)
