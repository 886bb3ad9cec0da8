"""Offsets of consumer groups in transactions, with the metadata that real consumers give out (KIP-447)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import kafka as kafka_python
import pytest

from kprod import KafkaProducer, errors
from kprod.testing import MockCluster
from kprod.transactions.manager import group_metadata_fields
from tests.mock.conftest import PATIENCE, MakeCluster, MakeProducer

RELEASES = {"v1": "3.9", "v2": "4.1"}
INSTANCES = pytest.mark.parametrize("instance", [None, "instance-1"], ids=["dynamic member", "static member"])


@pytest.fixture(params=RELEASES)
def cluster(make_cluster: MakeCluster, request: pytest.FixtureRequest) -> MockCluster:
    """A mock cluster with the topics ``in`` of two partitions and ``out``."""
    made = make_cluster(as_version=RELEASES[request.param])
    made.create_topic("in", 2)
    made.create_topic("out")
    return made


@pytest.fixture
def tx(cluster: MockCluster, make_producer: MakeProducer) -> KafkaProducer:
    producer = make_producer(cluster, transactional_id="tx")
    producer.init_transactions()
    return producer


class ConfluentMember:
    """A consumer of confluent-kafka that is in the group."""

    def __init__(self, cluster: MockCluster, instance: str | None) -> None:
        options = {} if instance is None else {"group.instance.id": instance}
        self.consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": cluster.bootstrap_servers, "group.id": "readers", "log_level": 2, **options}
        )
        self.consumer.subscribe(["in"])

    def poll(self) -> None:
        self.consumer.poll(0.05)

    def metadata(self) -> Any:
        return self.consumer.consumer_group_metadata()

    def offsets(self, offset: int) -> Any:
        return [confluent_kafka.TopicPartition("in", p, offset) for p in range(2)]

    def close(self) -> None:
        self.consumer.close()


class KafkaPythonMember:
    """A consumer of kafka-python that is in the group."""

    def __init__(self, cluster: MockCluster, instance: str | None) -> None:
        self.consumer: Any = kafka_python.KafkaConsumer(
            "in",
            bootstrap_servers=cluster.bootstrap_servers,
            group_id="readers",
            group_instance_id=instance,
            enable_auto_commit=False,
        )

    def poll(self) -> None:
        self.consumer.poll(timeout_ms=50)

    def metadata(self) -> Any:
        return self.consumer.group_metadata()

    def offsets(self, offset: int) -> Any:
        value = kafka_python.OffsetAndMetadata(offset, "note", -1)
        return {kafka_python.TopicPartition("in", p): value for p in range(2)}

    def close(self) -> None:
        self.consumer.close()


Member = ConfluentMember | KafkaPythonMember
Join = Callable[..., Member]


@pytest.fixture(params=[ConfluentMember, KafkaPythonMember], ids=["confluent-kafka", "kafka-python"])
def join(cluster: MockCluster, request: pytest.FixtureRequest) -> Iterator[Join]:
    """Has a consumer join the group ``readers``; returns when it is a member."""
    members: list[Member] = []

    def make(instance: str | None = None) -> Member:
        members.append(request.param(cluster, instance))
        deadline = time.monotonic() + PATIENCE
        while group_metadata_fields(members[-1].metadata())[1] < 1:
            assert time.monotonic() < deadline, "the consumer did not get into the group"
            members[-1].poll()
        return members[-1]

    yield make
    for member in members:
        member.close()


@INSTANCES
def test_offsets_of_a_member_are_committed_with_the_transaction(
    cluster: MockCluster, tx: KafkaProducer, join: Join, instance: str | None
) -> None:
    member = join(instance)
    for offset, commits in ((5, True), (7, False), (9, True)):
        tx.begin_transaction()
        tx.send("out", b"%d" % offset)
        tx.send_offsets_to_transaction(member.offsets(offset), member.metadata())
        before = cluster.committed_offsets("readers")
        if commits:
            tx.commit_transaction()
            assert cluster.committed_offsets("readers") == {("in", 0): offset, ("in", 1): offset}
        else:
            tx.abort_transaction()
            assert cluster.committed_offsets("readers") == before
    sent = cluster.requests_of("TxnOffsetCommit")[-1].body
    assert sent["generation_id"] >= 1
    assert sent["member_id"]
    assert sent["group_instance_id"] == instance


def test_a_member_that_has_left_the_group_is_fenced(
    cluster: MockCluster, tx: KafkaProducer, join: Join
) -> None:
    member = join()
    metadata = member.metadata()
    member.close()
    tx.begin_transaction()
    tx.send("out", b"zombie")
    with pytest.raises(errors.CommitFailedError, match="readers"):
        tx.send_offsets_to_transaction(member.offsets(5), metadata)
    with pytest.raises(errors.CommitFailedError):
        tx.commit_transaction()
    tx.abort_transaction()
    assert cluster.committed_offsets("readers") == {}
    # With the group id alone nobody is fenced.
    with tx.transaction():
        tx.send_offsets_to_transaction(member.offsets(6), "readers")
    assert cluster.committed_offsets("readers") == {("in", 0): 6, ("in", 1): 6}


def test_a_rebalance_fences_the_generation_before(
    cluster: MockCluster, tx: KafkaProducer, join: Join
) -> None:
    member = join()
    group, generation, member_id, instance = group_metadata_fields(member.metadata())
    tx.begin_transaction()
    with pytest.raises(errors.CommitFailedError, match="ILLEGAL_GENERATION"):
        tx.send_offsets_to_transaction(member.offsets(1), (group, generation - 1, member_id, instance))
    tx.abort_transaction()
    with tx.transaction():
        tx.send_offsets_to_transaction(member.offsets(2), member.metadata())
    assert cluster.committed_offsets("readers") == {("in", 0): 2, ("in", 1): 2}


def test_offsets_alone_are_a_transaction(cluster: MockCluster, tx: KafkaProducer) -> None:
    with tx.transaction():
        tx.send_offsets_to_transaction({("in", 0): 3}, "g1")
        tx.send_offsets_to_transaction({("in", 1): 4}, "g1")
        tx.send_offsets_to_transaction({("in", 0): 5}, "g2")
    assert cluster.committed_offsets("g1") == {("in", 0): 3, ("in", 1): 4}
    assert cluster.committed_offsets("g2") == {("in", 0): 5}


def test_no_offsets_are_no_transaction(cluster: MockCluster, tx: KafkaProducer) -> None:
    with tx.transaction():
        tx.send_offsets_to_transaction({}, "g1")
    assert cluster.requests_of("TxnOffsetCommit") == cluster.requests_of("EndTxn") == []


@pytest.mark.parametrize("metadata", [None, 7, b"opaque", ""])
def test_metadata_that_is_none_is_refused_before_anything_is_sent(
    cluster: MockCluster, tx: KafkaProducer, metadata: Any
) -> None:
    with tx.transaction():
        with pytest.raises((TypeError, ValueError), match="group"):
            tx.send_offsets_to_transaction({("in", 0): 3}, metadata)
    assert cluster.requests_of("TxnOffsetCommit") == []


def test_a_member_cannot_be_fenced_by_a_broker_before_2_5(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(as_version="2.4")
    cluster.create_topic("in")
    tx = make_producer(cluster, transactional_id="tx")
    tx.init_transactions()
    with tx.transaction():
        tx.send_offsets_to_transaction({("in", 0): 3}, "g1")
    assert cluster.committed_offsets("g1") == {("in", 0): 3}
    tx.begin_transaction()
    with pytest.raises(errors.UnsupportedVersionError, match="TxnOffsetCommit"):
        tx.send_offsets_to_transaction({("in", 0): 4}, ("g1", 1, "member", None))
