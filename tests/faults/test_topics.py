"""Topics that change while records are sent to them."""

from __future__ import annotations

import time

import pytest

from kprod.errors import KafkaError
from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Api, Fault
from tests.faults.stream import MakeProducer, Stream, meanwhile
from tests.kafka.cluster import wait_until
from tests.kafka.readers import read_confluent


@pytest.mark.parametrize("gap_s", [0.0, 3.0], ids=["at once", "after 3 s"])
def test_deleted_and_created_anew_under_load(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, gap_s: float
) -> None:
    """A topic of the same name is another topic: it has another id, no records, and knows no producer.

    Nothing that was acknowledged after it was created is lost; all that is in it is in order and there once.
    """
    stream = Stream(make_producer(allow_auto_create_topics=False), topic(partitions=3), 3)
    stream.send(3000)
    assert stream.settle() == []
    created: list[int] = []

    def disturb() -> None:
        brokers.delete_topic(stream.topic)
        gone = time.monotonic()
        wait_until(
            lambda: stream.topic not in brokers.topics() and time.monotonic() - gone >= gap_s, "deletion"
        )
        brokers.create_topic(stream.topic, 3, 3)
        created.append(len(stream.sent))
        # Records that were sent to the new one are decided.
        wait_until(
            lambda: len(stream.sent) > created[0] and stream.sent[created[0]].future.is_done, "a record", 60
        )

    with meanwhile(disturb) as done:
        stream.send_until(done, rate=2000)
    stream.send(300)
    # What was under way when the topic vanished may fail, but must be decided.
    failed = stream.settle()
    assert all(isinstance(sent.future.exception, KafkaError) for sent in failed)
    survivors = {
        (sent.partition, sent.number) for sent in stream.sent[created[0] :] if sent.future.succeeded()
    }
    records = read_confluent(brokers.bootstrap_servers, stream.topic)
    found = [(record.partition, int((record.value or b"").split()[0])) for record in records]
    assert survivors <= set(found)
    assert len(found) == len(set(found))
    for partition in range(3):
        numbers = [number for where, number in found if where == partition]
        assert numbers == sorted(numbers)
    # Deletion costs at most what was under way, not everything after it.
    assert all(sent.future.succeeded() for sent in stream.sent[-300:])


def test_partitions_added_under_load(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """The new partitions get records when the metadata was refreshed; the old ones go on in order."""
    producer = make_producer(metadata_max_age_ms=500)
    stream = Stream(producer, topic(partitions=2), 2)
    stream.send(200)
    assert stream.settle() == []

    def disturb() -> None:
        brokers.add_partitions(stream.topic, 5)
        wait_until(lambda: producer.partitions_for(stream.topic) == set(range(5)), "five partitions")

    with meanwhile(disturb) as done:
        stream.send_until(done, rate=5000)
    stream.partitions = 5
    stream.send(1000)
    stream.check(brokers)


def test_stale_metadata_after_a_pause(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """While the producer said nothing, the leader went to another broker and the old one is dead."""
    stream = Stream(make_producer(), topic(assignment=[[1, 2, 3]], config={"min.insync.replicas": 2}), 1)
    stream.send(100)
    assert stream.settle() == []
    brokers.kill(1)
    wait_until(lambda: brokers.leader(stream.topic) not in (1, -1), "another leader")
    stream.send(100)
    stream.check(brokers)


def test_stale_metadata_from_a_broker_that_lags(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """An answer about leaders that is older than what was learnt since does not take the producer back.

    The first refresh is held on its way back while leadership moves, and arrives afterwards.
    """
    name = topic(assignment=[[1, 2, 3]], config={"min.insync.replicas": 2})
    producer = make_producer(metadata_max_age_ms=400, request_timeout_ms=20_000)
    stream = Stream(producer, name, 1)
    stream.send(100)
    assert stream.settle() == []
    held = brokers.network.inject(Fault.HOLD_RESPONSE, Api.METADATA, times=1)
    held.wait()
    brokers.kill(1)
    wait_until(lambda: brokers.leader(name) not in (1, -1), "another leader")
    stream.send(1000)
    brokers.network.release(held)
    stream.check(brokers)
