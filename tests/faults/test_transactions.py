"""Transactions while their coordinator dies, connections break, clients are killed and fenced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as ConfluentTopicPartition
from kafka import TopicPartition

from kprod import KafkaProducer
from kprod.errors import KafkaError, KafkaTimeoutError, ProducerFencedError, TransactionAbortableError
from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Api, Fault
from tests.faults.stream import MakeProducer, meanwhile
from tests.kafka.cluster import wait_until
from tests.kafka.readers import read_confluent

PARTITIONS = 3
RESETS = (Fault.RESET_BEFORE, Fault.RESET_MID_REQUEST, Fault.RESET_MID_RESPONSE, Fault.DROP_RESPONSE)
HOLDS = (Fault.HOLD_REQUEST, Fault.HOLD_RESPONSE)


class Pipeline:
    """Transactions of a producer on a topic, each with the offset of an input; and what must be visible."""

    def __init__(self, brokers: FaultyCluster, producer: KafkaProducer, topic: str) -> None:
        self.brokers = brokers
        self.producer = producer
        self.topic = topic
        self.group = f"{topic}-group"
        self.visible: list[bytes] = []
        self.offset = 0
        self._count = 0

    def send(self, count: int = 100) -> list[bytes]:
        """Send records inside a transaction that somebody has begun."""
        values = []
        for _ in range(count):
            values.append(b"%06d" % self._count)
            self.producer.send(self.topic, values[-1], partition=self._count % PARTITIONS)
            self._count += 1
        return values

    def commit(self, count: int = 100) -> None:
        """A whole transaction that is committed."""
        self.producer.begin_transaction()
        values = self.send(count)
        self.producer.send_offsets_to_transaction(
            {TopicPartition(self.topic, 0): self.offset + count}, self.group, timeout=60
        )
        self.producer.commit_transaction(timeout=60)
        self.visible += values
        self.offset += count

    def abort(self, count: int = 100) -> None:
        """A whole transaction that is aborted, after its records were written."""
        self.producer.begin_transaction()
        self.send(count)
        self.producer.send_offsets_to_transaction(
            {TopicPartition(self.topic, 0): 1_000_000}, self.group, timeout=60
        )
        self.producer.flush(timeout=60)
        self.producer.abort_transaction(timeout=60)

    def check(self) -> None:
        """What was committed is visible, in order; nothing else is; the offset goes with it."""
        check_visible(self.brokers, self.topic, self.visible)
        assert committed_offset(self.brokers, self.group, self.topic) == self.offset


def check_visible(brokers: FaultyCluster, topic: str, values: list[bytes]) -> None:
    records = read_confluent(brokers.bootstrap_servers, topic, isolation="read_committed")
    for partition in range(PARTITIONS):
        found = [record.value for record in records if record.partition == partition]
        assert found == [value for value in values if int(value) % PARTITIONS == partition]


def visible_values(brokers: FaultyCluster, topic: str) -> list[bytes]:
    records = read_confluent(brokers.bootstrap_servers, topic, isolation="read_committed")
    return [record.value or b"" for record in records]


def committed_offset(brokers: FaultyCluster, group: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": brokers.bootstrap_servers, "group.id": group, "log_level": 2})
    try:
        (found,) = consumer.committed([ConfluentTopicPartition(topic, 0)], timeout=60)
        return max(0, int(found.offset))
    finally:
        consumer.close()


@pytest.fixture(params=[2, 1], ids=["KIP-890", "before KIP-890"])
def protocol(brokers: FaultyCluster, request: pytest.FixtureRequest) -> Iterator[int]:
    """The version of the transaction protocol that brokers and producers agree on."""
    if request.param == 2:
        yield 2
        return
    brokers.set_transaction_version(1)
    yield 1
    brokers.heal()
    brokers.set_transaction_version(2)


def _transactional(brokers: FaultyCluster, make: MakeProducer, topic: str, **options: Any) -> Pipeline:
    return Pipeline(brokers, make(transactional_id=topic, **options), topic)


def test_committed_and_aborted(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, protocol: int
) -> None:
    pipeline = _transactional(brokers, make_producer, topic(PARTITIONS))
    pipeline.producer.init_transactions(timeout=60)
    for _ in range(3):
        pipeline.commit()
        pipeline.abort()
    pipeline.check()


@pytest.mark.parametrize("fault", RESETS, ids=lambda fault: fault.name)
@pytest.mark.parametrize(
    "api", [Api.FIND_COORDINATOR, Api.INIT_PRODUCER_ID, Api.PRODUCE, Api.TXN_OFFSET_COMMIT, Api.END_TXN],
    ids=lambda api: api.name,
)  # fmt: skip
def test_connections_reset(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, api: Api, fault: Fault
) -> None:
    """Each request is broken three times in a row, in the first transaction and then in the aborted one."""
    pipeline = _transactional(brokers, make_producer, topic(PARTITIONS))
    resets = brokers.network.inject(fault, api, times=3)
    pipeline.producer.init_transactions(timeout=60)
    pipeline.commit()
    resets.wait_spent()
    if api not in (Api.FIND_COORDINATOR, Api.INIT_PRODUCER_ID):
        resets = brokers.network.inject(fault, api, times=3)
    pipeline.abort()
    resets.wait_spent()
    pipeline.commit()
    pipeline.check()


@pytest.mark.parametrize("fault", RESETS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("api", [Api.ADD_PARTITIONS_TO_TXN, Api.ADD_OFFSETS_TO_TXN], ids=lambda api: api.name)
@pytest.mark.parametrize("protocol", [1], ids=["before KIP-890"], indirect=True)
def test_connections_reset_in_the_older_protocol(
    brokers: FaultyCluster,
    topic: TopicFactory,
    make_producer: MakeProducer,
    protocol: int,
    api: Api,
    fault: Fault,
) -> None:
    pipeline = _transactional(brokers, make_producer, topic(PARTITIONS))
    pipeline.producer.init_transactions(timeout=60)
    resets = brokers.network.inject(fault, api, times=3)
    pipeline.commit()
    resets.wait_spent()
    pipeline.abort()
    pipeline.commit()
    pipeline.check()


# Which request of a producer's life the coordinator's death meets: its API, and how many of them come before.
PHASES = {
    "init": (Api.INIT_PRODUCER_ID, 0),
    "records": (Api.PRODUCE, 0),
    "offsets": (Api.TXN_OFFSET_COMMIT, 0),
    "commit": (Api.END_TXN, 0),
    "abort": (Api.END_TXN, 1),
}
OLDER_PHASES = {
    "add partitions": (Api.ADD_PARTITIONS_TO_TXN, 0),
    "add offsets": (Api.ADD_OFFSETS_TO_TXN, 0),
    "older commit": (Api.END_TXN, 0),
    "older abort": (Api.END_TXN, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("hold", HOLDS, ids=["before it is handled", "after it is handled"])
@pytest.mark.parametrize("phase", [*PHASES, *OLDER_PHASES])
def test_coordinator_killed(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, phase: str, hold: Fault
) -> None:
    """SIGKILL while a request of the phase is on its way; the producer goes on with the next coordinator."""
    older = phase in OLDER_PHASES
    if older:
        brokers.set_transaction_version(1)
    try:
        pipeline = _transactional(brokers, make_producer, topic(PARTITIONS))
        # The topics of transactions and offsets are made on first use.
        with make_producer(transactional_id=f"{pipeline.topic}-warm") as warm:
            warm.init_transactions(timeout=60)
        api, skip = (OLDER_PHASES if older else PHASES)[phase]
        held = brokers.network.inject(hold, api, skip=skip)

        def kill() -> None:
            held.wait(60)
            node = brokers.transaction_coordinator(pipeline.topic)
            brokers.kill(node)
            brokers.network.release(held)
            wait_until(
                lambda: brokers.transaction_coordinator(pipeline.topic) not in (node, -1),
                "another coordinator",
            )
            brokers.start(node)

        with meanwhile(kill):
            pipeline.producer.init_transactions(timeout=60)
            pipeline.commit()
            pipeline.abort()
        pipeline.commit()
        pipeline.check()
    finally:
        if older:
            brokers.heal()
            brokers.set_transaction_version(2)


def test_commit_that_times_out_is_resumed(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    pipeline = _transactional(brokers, make_producer, topic(PARTITIONS), request_timeout_ms=1000)
    pipeline.producer.init_transactions(timeout=60)
    pipeline.commit()
    pipeline.producer.begin_transaction()
    values = pipeline.send()
    pipeline.producer.flush(timeout=60)
    brokers.network.black_hole()
    for _ in range(3):
        with pytest.raises(KafkaTimeoutError):
            pipeline.producer.commit_transaction(timeout=0.7)
    brokers.network.heal()
    pipeline.producer.commit_transaction(timeout=60)
    pipeline.visible += values
    pipeline.commit()
    pipeline.check()


def test_transaction_that_its_coordinator_gave_up(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, protocol: int
) -> None:
    """The producer was away for longer than transaction_timeout_ms: abort, and go on; that is not fencing."""
    pipeline = _transactional(brokers, make_producer, topic(PARTITIONS), transaction_timeout_ms=2000)
    pipeline.producer.init_transactions(timeout=60)
    pipeline.commit()
    other = make_producer()
    pipeline.producer.begin_transaction()
    pipeline.send()
    pipeline.producer.flush(timeout=60)
    # A record without a transaction becomes visible when the open one before it is over.
    other.send(pipeline.topic, b"end", partition=0).get(timeout=30)
    wait_until(
        lambda: b"end" in visible_values(brokers, pipeline.topic), "the coordinator to abort it", 30, 0.2
    )
    with pytest.raises(KafkaError) as raised:
        pipeline.producer.commit_transaction(timeout=60)
    assert not isinstance(raised.value, ProducerFencedError | KafkaTimeoutError), repr(raised.value)
    pipeline.producer.abort_transaction(timeout=60)
    pipeline.commit()
    assert sorted(visible_values(brokers, pipeline.topic)) == sorted([*pipeline.visible, b"end"])
    assert committed_offset(brokers, pipeline.group, pipeline.topic) == pipeline.offset


def test_records_that_expire_fail_the_transaction(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    pipeline = _transactional(
        brokers, make_producer, topic(PARTITIONS), request_timeout_ms=500, delivery_timeout_ms=1500
    )
    pipeline.producer.init_transactions(timeout=60)
    pipeline.commit()
    brokers.network.black_hole()
    pipeline.producer.begin_transaction()
    pipeline.send()
    pipeline.producer.flush(timeout=20)
    brokers.network.heal()
    with pytest.raises(KafkaError) as raised:
        pipeline.producer.commit_transaction(timeout=60)
    assert not isinstance(raised.value, ProducerFencedError | KafkaTimeoutError), repr(raised.value)
    pipeline.producer.abort_transaction(timeout=60)
    pipeline.commit()
    pipeline.check()


def test_second_producer_with_the_same_id_fences_the_first(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, protocol: int
) -> None:
    """None of the first one's later records is visible, nor those of the transaction it had open."""
    old = _transactional(brokers, make_producer, topic(PARTITIONS))
    old.producer.init_transactions(timeout=60)
    old.commit()
    old.producer.begin_transaction()
    old.send()
    old.producer.flush(timeout=60)

    new = _transactional(brokers, make_producer, old.topic)
    new.group = old.group
    new.offset = old.offset
    new.producer.init_transactions(timeout=60)
    # The first does not know yet.
    late = [old.producer.send(old.topic, b"%d" % n, partition=n % PARTITIONS) for n in range(50)]
    # A partition's leader only knows that the epoch is an old one; the coordinator tells who is fenced.
    with pytest.raises(ProducerFencedError):
        try:
            old.producer.commit_transaction(timeout=60)
        except TransactionAbortableError:
            old.producer.abort_transaction(timeout=60)
    for future in late:
        with pytest.raises(KafkaError):
            future.get(timeout=30)
    with pytest.raises(ProducerFencedError):
        old.producer.begin_transaction()
    with pytest.raises(KafkaError):
        old.producer.send(old.topic, b"never", partition=0).get(timeout=30)
    new.commit()
    new.visible = old.visible + new.visible
    new.check()


def test_fenced_in_full_flow(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """The second comes while the first commits one transaction after the other.

    The coordinator aborts what the first has open, and the second asks once more for its epoch. The first
    must not take that epoch for itself meanwhile, and with the next transaction keep the second waiting. It
    hears that it is fenced from commit or abort. Afterwards nothing of it is visible any more.
    """
    old = _transactional(brokers, make_producer, topic(PARTITIONS))
    old.producer.init_transactions(timeout=60)
    first = threading.Event()
    came_back: list[TransactionAbortableError] = []

    def go_on_until_fenced() -> None:
        while True:
            try:
                old.commit(50)
            except TransactionAbortableError as error:
                # From send(): the coordinator was not asked yet.
                try:
                    old.producer.abort_transaction(timeout=60)
                except ProducerFencedError:
                    return
                came_back.append(error)
            except ProducerFencedError:
                return
            first.set()

    with meanwhile(go_on_until_fenced):
        assert first.wait(60)
        new = _transactional(brokers, make_producer, old.topic)
        new.producer.init_transactions(timeout=30)
        # What the first had committed by now is all that ever will be.
        before = visible_values(brokers, old.topic)
    # A machine that is busy may hold the second up for longer than the first waits.
    assert len(came_back) <= 1, came_back
    for call in (old.producer.begin_transaction, lambda: old.producer.send(old.topic, b"late")):
        with pytest.raises(ProducerFencedError):
            call()
    new.producer.begin_transaction()
    new.producer.send(old.topic, b"new", partition=0)
    new.producer.commit_transaction(timeout=60)
    after = visible_values(brokers, old.topic)
    assert sorted(after) == sorted([*before, b"new"])
    # Whole transactions, those that were acknowledged among them.
    assert set(old.visible) <= set(before)
    assert len(before) == len(set(before))
    assert len(before) % 50 == 0


def _die_inside(servers: str, topic: str, timeout_ms: int, pipe: Any) -> None:
    producer = KafkaProducer(
        bootstrap_servers=servers, transactional_id=topic, transaction_timeout_ms=timeout_ms
    )
    producer.init_transactions(timeout=60)
    producer.begin_transaction()
    for number in range(300):
        producer.send(topic, b"%d" % number, partition=number % PARTITIONS)
    producer.flush(timeout=60)
    producer.send_offsets_to_transaction({TopicPartition(topic, 0): 300}, f"{topic}-group", timeout=60)
    pipe.send("inside")
    pipe.recv()


@pytest.mark.parametrize("end", ["a successor", "the transaction's timeout"])
def test_client_killed_inside_a_transaction(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer, end: str
) -> None:
    """Its records are in the log, and never visible to who reads committed ones."""
    name = topic(PARTITIONS)
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    timeout_ms = 60_000 if end == "a successor" else 2000
    process = context.Process(target=_die_inside, args=(brokers.faulty_servers, name, timeout_ms, theirs))
    process.start()
    try:
        assert pipe.poll(60) and pipe.recv() == "inside"
    finally:
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    assert len(read_confluent(brokers.bootstrap_servers, name, isolation="read_uncommitted")) == 300
    assert read_confluent(brokers.bootstrap_servers, name, isolation="read_committed") == []

    # It becomes visible when the transaction before it is over, however that ends.
    if end == "a successor":
        successor = _transactional(brokers, make_producer, name)
        successor.producer.init_transactions(timeout=60)
        successor.commit(PARTITIONS)
        successor.check()
        return
    with make_producer() as other:
        for partition in range(PARTITIONS):
            other.send(name, b"end", partition=partition).get(timeout=30)

    wait_until(
        lambda: len(visible_values(brokers, name)) >= PARTITIONS, "the end of the transaction", 30, 0.2
    )
    assert visible_values(brokers, name) == [b"end"] * PARTITIONS
    assert committed_offset(brokers, f"{name}-group", name) == 0
