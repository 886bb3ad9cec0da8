"""Brokers die and come back while records stream: nothing is lost, doubled or moved out of order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod.errors import KafkaError, KafkaTimeoutError, NotEnoughReplicasError
from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import assert_sequences, failure, outcomes
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import read_confluent

PARTITIONS = 3
VALUE = b"%08d" + b"." * 92


@contextmanager
def meanwhile(disturb: Callable[[], None]) -> Iterator[threading.Thread]:
    """Run ``disturb`` in a thread of its own; what it raises is raised when the block ends."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            disturb()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="disturb")
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
    if errors:
        raise errors[0]


class Stream:
    """Numbered records, round the partitions of a topic, and what must be in the log for them."""

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        self.producer = producer
        self.topic = topic
        self.futures: list[Any] = []
        self.expected: dict[int, list[bytes]] = {partition: [] for partition in range(PARTITIONS)}

    def send(self, count: int) -> None:
        for _ in range(count):
            number = len(self.futures)
            value = VALUE % number
            self.futures.append(self.producer.send(self.topic, value, partition=number % PARTITIONS))
            self.expected[number % PARTITIONS].append(value)

    def send_while(self, thread: threading.Thread, at_most: int) -> None:
        """Keep on sending until ``thread`` has ended, at most 20,000 records ahead of the answers."""
        while thread.is_alive() and len(self.futures) < at_most:
            self.send(200)
            wait_until(lambda: self._behind_is_done() or not thread.is_alive(), "an answer", 90, 0.001)

    def _behind_is_done(self) -> bool:
        return bool(self.futures[max(0, len(self.futures) - 20_000)].is_done)

    def check(self, cluster: KafkaCluster) -> None:
        """Every record was acknowledged with the offset at which the consumer finds it."""
        metadata = outcomes(self.futures, timeout=120)
        found = read_confluent(cluster.bootstrap_servers, self.topic)
        assert_sequences(found, self.expected)
        acknowledged = {(m.partition, m.offset) for m in metadata}
        assert acknowledged == {(r.partition, r.offset) for r in found}


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_single_broker_killed_and_restarted_in_mid_stream(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, codec: str
) -> None:
    stream = Stream(make_producer(kafka, compression_type=codec), topic(partitions=PARTITIONS))
    for _ in range(2):
        stream.send(20_000)
        # No flush: requests are on their way when the broker goes.
        with meanwhile(kafka.restart) as restarting:
            stream.send_while(restarting, at_most=400_000)
    stream.send(5_000)
    stream.producer.flush(timeout=60)
    stream.check(kafka)


def test_single_broker_shut_down_cleanly_and_restarted(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    def restart() -> None:
        kafka.shut_down()
        kafka.start()

    stream = Stream(make_producer(kafka), topic(partitions=PARTITIONS))
    stream.send(10_000)
    with meanwhile(restart) as restarting:
        stream.send_while(restarting, at_most=200_000)
    stream.check(kafka)


def test_leader_killed(kafka3: KafkaCluster, topic3: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic3(PARTITIONS, config={"min.insync.replicas": 2})
    stream = Stream(make_producer(kafka3), name)
    stream.send(10_000)
    leader = kafka3.leader(name, 0)

    def kill() -> None:
        kafka3.kill(leader)
        wait_until(lambda: kafka3.leader(name, 0) not in (leader, -1), "another leader", 30)

    with meanwhile(kill) as killing:
        stream.send_while(killing, at_most=200_000)
    stream.send(5_000)
    outcomes(stream.futures, timeout=120)
    with meanwhile(lambda: kafka3.start(leader)) as starting:
        stream.send_while(starting, at_most=400_000)
    stream.check(kafka3)


@pytest.mark.slow
def test_every_broker_restarted_in_turn(
    kafka3: KafkaCluster, topic3: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic3(PARTITIONS, config={"min.insync.replicas": 2})
    stream = Stream(make_producer(kafka3), name)
    stream.send(5_000)

    def roll() -> None:
        for node in kafka3.nodes:
            kafka3.shut_down(node)
            kafka3.start(node)
            wait_until(
                lambda: all(len(kafka3.in_sync(name, p)) == 3 for p in range(PARTITIONS)),
                "replicas in sync",
                60,
            )

    with meanwhile(roll) as rolling:
        stream.send_while(rolling, at_most=400_000)
    stream.check(kafka3)


@pytest.mark.slow
def test_leader_that_hangs_is_replaced(
    kafka3: KafkaCluster, topic3: TopicFactory, make_producer: MakeProducer
) -> None:
    """A stopped process keeps its connections open: only the request's time limit gets records elsewhere.

    When it wakes up it may append what it had received, as a leader that was deposed; that must not show.
    """
    name = topic3(PARTITIONS, config={"min.insync.replicas": 2})
    stream = Stream(make_producer(kafka3, request_timeout_ms=3000), name)
    stream.send(5_000)
    outcomes(stream.futures)
    leader = kafka3.leader(name, 0)
    kafka3.pause(leader)
    stream.send(5_000)
    wait_until(lambda: kafka3.leader(name, 0) not in (leader, -1), "another leader", 30)
    outcomes(stream.futures, timeout=120)
    kafka3.resume(leader)
    kafka3.wait_ready()
    stream.send(5_000)
    stream.check(kafka3)


def test_too_few_replicas(kafka3: KafkaCluster, topic3: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic3(assignment=[[1, 2, 3]], config={"min.insync.replicas": 3})
    producer = make_producer(kafka3)
    producer.send(name, b"0").get(timeout=30)
    kafka3.kill(3)
    wait_until(lambda: kafka3.in_sync(name) == {1, 2}, "node 3 to leave the in-sync replicas", 30)

    impatient = make_producer(kafka3, linger_ms=0, request_timeout_ms=1000, delivery_timeout_ms=3000)
    error = failure(lambda: impatient.send(name, b"never"), timeout=20)
    assert isinstance(error, KafkaTimeoutError | NotEnoughReplicasError), repr(error)
    assert isinstance(error, KafkaError) and error.persisted == "no", repr(error)

    waiting = [producer.send(name, b"%d" % number) for number in (1, 2, 3)]
    kafka3.start(3)
    outcomes(waiting)
    assert_sequences(read_confluent(kafka3.bootstrap_servers, name), {0: [b"0", b"1", b"2", b"3"]})


def test_a_dead_leader_does_not_hold_up_the_others(
    kafka3: KafkaCluster, topic3: TopicFactory, make_producer: MakeProducer
) -> None:
    # One replica each: the partition on node 3 has no leader while that is down.
    name = topic3(assignment=[[1], [2], [3]])
    producer = make_producer(kafka3, max_block_ms=20_000)
    outcomes([producer.send(name, b"first", partition=p) for p in range(3)])
    kafka3.kill(3)
    stuck = [producer.send(name, b"stuck %d" % i, partition=2) for i in range(1000)]
    outcomes([producer.send(name, b"%d" % i, partition=i % 2) for i in range(10_000)], timeout=20)
    assert not any(future.is_done for future in stuck)
    kafka3.start(3)
    outcomes(stuck)
    found = [r for r in read_confluent(kafka3.bootstrap_servers, name) if r.partition == 2]
    assert_sequences(found, {2: [b"first", *(b"stuck %d" % i for i in range(1000))]})


def test_preferred_leaders_move_without_any_broker_loss(
    kafka3: KafkaCluster, topic3: TopicFactory, make_producer: MakeProducer
) -> None:
    """Leadership returns to the preferred replicas: the old leader answers NOT_LEADER_OR_FOLLOWER."""
    name = topic3(assignment=[[1, 2, 3], [2, 3, 1], [3, 1, 2]])
    kafka3.restart(1)
    wait_until(lambda: kafka3.in_sync(name) == {1, 2, 3}, "node 1 to be in sync", 60)
    assert kafka3.leader(name, 0) != 1
    stream = Stream(make_producer(kafka3), name)
    stream.send(5_000)
    with meanwhile(lambda: kafka3.elect_preferred_leaders(name)) as electing:
        stream.send_while(electing, at_most=200_000)
    assert kafka3.leader(name, 0) == 1
    stream.send(5_000)
    stream.check(kafka3)


def test_many_topics_on_many_brokers(
    kafka3: KafkaCluster, topic3: TopicFactory, make_producer: MakeProducer
) -> None:
    names = [topic3(partitions=3) for _ in range(15)]
    producer = make_producer(kafka3)
    expected: dict[str, dict[int, list[bytes]]] = {name: {p: [] for p in range(3)} for name in names}
    futures = []
    for number in range(30_000):
        name, partition = names[number % 15], number % 7 % 3
        value = b"%s %d" % (name.encode(), number)
        futures.append(producer.send(name, value, partition=partition))
        expected[name][partition].append(value)
    outcomes(futures)
    for name in names:
        assert_sequences(read_confluent(kafka3.bootstrap_servers, name), expected[name])
