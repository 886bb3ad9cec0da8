"""Brokers that are killed, stopped, or too few."""

from __future__ import annotations

import time

import pytest

from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Fault
from tests.faults.stream import MakeProducer, Stream, figures, meanwhile
from tests.kafka.cluster import wait_until

PREFERRED = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]


def _all_in_sync(brokers: FaultyCluster, topic: str, partitions: int) -> None:
    wait_until(
        lambda: all(len(brokers.in_sync(topic, number)) == 3 for number in range(partitions)),
        "replicas in sync",
        60,
    )


def _another_leader(brokers: FaultyCluster, topic: str, node: int) -> None:
    """Wait until what ``node`` led, by PREFERRED, has another leader."""
    wait_until(lambda: brokers.leader(topic, node - 1) not in (node, -1), f"another leader than {node}", 60)


def test_leader_killed_and_restarted(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    stream = Stream(make_producer(), topic(assignment=PREFERRED, config={"min.insync.replicas": 2}), 3)
    stream.send(3000)

    def disturb() -> None:
        brokers.kill(1)
        _another_leader(brokers, stream.topic, 1)
        brokers.start(1)
        _all_in_sync(brokers, stream.topic, 3)
        brokers.elect_preferred_leaders(stream.topic)

    with meanwhile(disturb) as done:
        stream.send_until(done, rate=5000)
    stream.check(brokers)


@pytest.mark.timeout(600)
def test_leader_killed_while_responses_are_dropped(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    stream = Stream(
        make_producer(linger_ms=0, batch_size=2000),
        topic(assignment=PREFERRED, config={"min.insync.replicas": 2}),
        3,
    )
    stream.send(3000)
    brokers.network.inject(Fault.DROP_RESPONSE, times=1_000_000, probability=0.05)

    def disturb() -> None:
        for node in (1, 2):
            brokers.kill(node)
            _another_leader(brokers, stream.topic, node)
            brokers.start(node)
            _all_in_sync(brokers, stream.topic, 3)

    with meanwhile(disturb) as done:
        stream.send_until(done, rate=3000)
    brokers.network.heal()
    stream.check(brokers)


@pytest.mark.slow
def test_all_brokers_down_and_up(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    stream = Stream(
        make_producer(max_block_ms=90_000), topic(assignment=PREFERRED, config={"min.insync.replicas": 2}), 3
    )
    stream.send(3000)

    def disturb() -> None:
        for node in brokers.nodes:
            brokers.kill(node)
        for node in brokers.nodes:
            brokers.start(node, wait=False)
        brokers.wait_ready()

    with meanwhile(disturb) as done:
        stream.send_until(done, rate=3000)
    stream.check(brokers)


@pytest.mark.parametrize("node", [1, 2])
def test_leader_stopped_past_the_request_timeout(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, node: int
) -> None:
    """Another broker takes over. The stopped one wakes up as the leader it was, with requests to answer."""
    stream = Stream(
        make_producer(request_timeout_ms=2000),
        topic(assignment=PREFERRED, config={"min.insync.replicas": 2}),
        3,
    )
    stream.send(3000)
    assert stream.settle() == []

    def disturb() -> None:
        brokers.pause(node)
        _another_leader(brokers, stream.topic, node)
        decided = len(stream.sent)
        wait_until(lambda: len(stream.sent) > decided and stream.sent[decided].future.is_done, "a record", 60)
        brokers.resume(node)
        brokers.wait_ready()
        _all_in_sync(brokers, stream.topic, 3)

    with meanwhile(disturb) as done:
        stream.send_until(done, rate=3000)
    stream.check(brokers)


def test_leader_stopped_for_less_than_the_request_timeout(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """A garbage collection: nothing is repeated, all is a bit late."""
    producer = make_producer(request_timeout_ms=20_000)
    stream = Stream(producer, topic(assignment=PREFERRED), 3)
    stream.send(300)
    assert stream.settle() == []
    brokers.pause(1)
    began = time.monotonic()
    stream.send(3000)
    wait_until(lambda: time.monotonic() - began > 1.5, "1.5 s", 10)
    brokers.resume(1)
    stream.check(brokers)
    # On a machine that is busy enough the others may have taken over from it all the same.
    if brokers.leader(stream.topic, 0) == 1:
        assert figures(producer)["record-retry-total"] == 0


def test_too_few_replicas_then_enough(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    # The leader may learn of it later than whom in_sync() asks. Then it writes the first records, and waits
    # for node 3 until the request's timeout: they are sent again after that.
    stream = Stream(
        make_producer(request_timeout_ms=2000),
        topic(assignment=[[1, 2, 3]], config={"min.insync.replicas": 3}),
        1,
    )
    stream.send(100)
    assert stream.settle() == []
    brokers.kill(3)
    wait_until(lambda: brokers.in_sync(stream.topic) == {1, 2}, "node 3 to leave the in-sync replicas", 60)
    waiting = len(stream.sent)
    stream.send(5000)
    wait_until(lambda: figures(stream.producer)["record-retry-total"] > 0, "records sent again", 60)
    assert not any(sent.future.is_done for sent in stream.sent[waiting:])
    brokers.start(3)
    stream.send(100)
    stream.check(brokers)


def test_too_few_replicas_until_records_expire(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """Errors are honest: 'no' only where nothing was written. Later records are not held up."""
    stream = Stream(
        make_producer(request_timeout_ms=1000, delivery_timeout_ms=3000),
        topic(assignment=[[1, 2, 3]], config={"min.insync.replicas": 3}),
        1,
    )
    stream.send_until_acknowledged()
    brokers.kill(3)
    wait_until(lambda: brokers.in_sync(stream.topic) == {1, 2}, "node 3 to leave the in-sync replicas", 60)
    first = len(stream.sent)
    stream.send(1000)
    stream.settle(timeout=30)
    failed = [sent for sent in stream.sent[first:] if sent.future.failed()]
    assert len(failed) == 1000
    # NOT_ENOUGH_REPLICAS says that nothing was written; a batch that is under way when it expires may be.
    # check_acknowledged() looks whether 'no' was true.
    assert {sent.future.exception.persisted for sent in failed} <= {"no", "possibly"}
    brokers.start(3)
    wait_until(lambda: len(brokers.in_sync(stream.topic)) == 3, "node 3 in sync", 60)
    stream.send_until_acknowledged()
    stream.send(1000)
    stream.check_acknowledged(brokers)
