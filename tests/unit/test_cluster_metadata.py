"""The picture of the cluster: what metadata responses change, and what they must not."""

from __future__ import annotations

from typing import Any

import pytest

from kprod.cluster.metadata import Broker, ClusterSnapshot, Leader
from kprod.protocol import ZERO_UUID
from kprod.records import TopicPartition

ID_1, ID_2 = b"1" * 16, b"2" * 16


def partition(index: int, leader: int, epoch: int = 0) -> dict[str, Any]:
    return {"partition_index": index, "leader_id": leader, "leader_epoch": epoch}


def topic(
    name: str | None, *partitions: dict[str, Any], error: int = 0, topic_id: bytes | None = ID_1
) -> dict[str, Any]:
    return {
        "name": name,
        "topic_id": topic_id,
        "error_code": error,
        "is_internal": False,
        "partitions": list(partitions),
    }


def body(*topics: dict[str, Any], brokers: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    rows = [
        {"node_id": node, "host": f"h{node}", "port": 9000 + node, "rack": f"r{node}"} for node in brokers
    ]
    return {"cluster_id": "c", "controller_id": 1, "brokers": rows, "topics": list(topics)}


def leaders(snapshot: ClusterSnapshot, name: str = "t") -> list[tuple[int, int]]:
    return [(leader.node_id, leader.epoch) for leader in snapshot.topic_by_name[name].leaders]


@pytest.fixture
def known() -> ClusterSnapshot:
    return ClusterSnapshot().updated(body(topic("t", partition(0, 1, 5), partition(1, 2, 7))))


def test_an_empty_picture_knows_nothing() -> None:
    nothing = ClusterSnapshot()
    assert nothing.topics() == set()
    assert nothing.partitions_for_topic("t") is None
    assert nothing.available_partitions_for_topic("t") is None
    assert nothing.leader_for_partition(TopicPartition("t", 0)) is None
    assert nothing.brokers() == set()
    assert nothing.broker_metadata(1) is None


def test_what_partitioners_ask(known: ClusterSnapshot) -> None:
    assert known.topics() == {"t"}
    assert known.partitions_for_topic("t") == {0, 1}
    assert known.available_partitions_for_topic("t") == {0, 1}
    assert known.leader_for_partition(TopicPartition("t", 1)) == 2
    assert known.leader_for_partition(TopicPartition("t", 2)) is None
    assert known.leader_for_partition(TopicPartition("t", -1)) is None
    assert known.brokers() == {Broker(n, f"h{n}", 9000 + n, f"r{n}") for n in (1, 2, 3)}
    broker = known.broker_metadata(2)
    assert broker is not None
    assert (broker.nodeId, broker.node_id, broker.host, broker.port, broker.rack) == (2, 2, "h2", 9002, "r2")


def test_partitions_may_come_in_any_order_and_with_gaps() -> None:
    snapshot = ClusterSnapshot().updated(body(topic("t", partition(3, 1), partition(0, 2))))
    assert leaders(snapshot) == [(2, 0), (-1, -1), (-1, -1), (1, 0)]
    assert snapshot.partitions_for_topic("t") == {0, 1, 2, 3}
    assert snapshot.available_partitions_for_topic("t") == {0, 3}


def test_pictures_do_not_change(known: ClusterSnapshot) -> None:
    known.updated(body(topic("t", partition(0, 3, 9), partition(1, 3, 9))))
    known.with_leader("t", 0, Leader(3, 9))
    assert leaders(known) == [(1, 5), (2, 7)]


def test_a_newer_epoch_replaces_the_leader(known: ClusterSnapshot) -> None:
    assert leaders(known.updated(body(topic("t", partition(0, 3, 6), partition(1, 2, 7))))) == [
        (3, 6),
        (2, 7),
    ]


def test_a_stale_epoch_keeps_the_leader(known: ClusterSnapshot) -> None:
    assert leaders(known.updated(body(topic("t", partition(0, 3, 4), partition(1, 3, 8))))) == [
        (1, 5),
        (3, 8),
    ]


def test_a_leader_that_is_gone_within_the_same_epoch_is_taken_over(known: ClusterSnapshot) -> None:
    assert leaders(known.updated(body(topic("t", partition(0, -1, 5), partition(1, 2, 7))))) == [
        (-1, 5),
        (2, 7),
    ]


def test_brokers_that_give_no_epochs_are_believed(known: ClusterSnapshot) -> None:
    assert leaders(known.updated(body(topic("t", partition(0, 3, -1), partition(1, 2, 7))))) == [
        (3, -1),
        (2, 7),
    ]


def test_a_topic_created_anew_starts_over_with_lower_epochs(known: ClusterSnapshot) -> None:
    snapshot = known.updated(body(topic("t", partition(0, 3, 0), topic_id=ID_2)))
    assert leaders(snapshot) == [(3, 0)]
    assert snapshot.topic_by_name["t"].topic_id == ID_2


@pytest.mark.parametrize("no_id", [None, ZERO_UUID])
def test_without_topic_ids_a_lower_epoch_is_stale(known: ClusterSnapshot, no_id: bytes | None) -> None:
    assert leaders(known.updated(body(topic("t", partition(0, 3, 0), topic_id=no_id))))[0] == (1, 5)


def test_an_error_without_partitions_keeps_those_that_were_known(known: ClusterSnapshot) -> None:
    snapshot = known.updated(body(topic("t", error=5)))
    assert leaders(snapshot) == leaders(known)
    assert snapshot.topic_by_name["t"].error == 5
    assert snapshot.topic_by_name["t"].topic_id == ID_1
    assert snapshot.updated(body(topic("t", partition(0, 1, 5)))).topic_by_name["t"].error == 0


def test_an_error_for_an_unknown_topic_makes_no_partitions() -> None:
    snapshot = ClusterSnapshot().updated(body(topic("t", error=3, topic_id=None)))
    assert snapshot.topic_by_name["t"].error == 3
    assert snapshot.topics() == set()
    assert snapshot.partitions_for_topic("t") is None


def test_topics_that_are_not_in_the_answer_stay(known: ClusterSnapshot) -> None:
    snapshot = known.updated(body(topic("u", partition(0, 1))))
    assert snapshot.topics() == {"t", "u"}
    assert leaders(snapshot) == leaders(known)


def test_brokers_are_replaced(known: ClusterSnapshot) -> None:
    assert set(known.updated(body(brokers=(2, 4))).broker_by_id) == {2, 4}


def test_a_row_without_a_name_is_passed_over(known: ClusterSnapshot) -> None:
    assert known.updated(body(topic(None, error=100))).topics() == {"t"}


# --- KIP-951


def test_a_hint_with_a_newer_epoch_is_taken(known: ClusterSnapshot) -> None:
    snapshot = known.with_leader("t", 1, Leader(3, 8))
    assert leaders(snapshot) == [(1, 5), (3, 8)]
    # And metadata that are older than the hint do not undo it.
    assert leaders(snapshot.updated(body(topic("t", partition(1, 2, 7))))) == [(1, 5), (3, 8)]


@pytest.mark.parametrize(
    ("name", "index", "leader"),
    [
        ("t", 0, Leader(3, 5)),
        ("t", 0, Leader(3, 4)),
        ("t", 2, Leader(3, 9)),
        ("t", -1, Leader(3, 9)),
        ("u", 0, Leader(3, 9)),
        ("t", 0, Leader(9, 9)),
    ],
    ids=["same epoch", "older", "no such partition", "negative", "no such topic", "no such broker"],
)
def test_other_hints_are_not(known: ClusterSnapshot, name: str, index: int, leader: Leader) -> None:
    assert known.with_leader(name, index, leader) is known


def test_brokers_named_by_a_hint_are_added_or_moved(known: ClusterSnapshot) -> None:
    snapshot = known.with_brokers({3: Broker(3, "moved", 1), 9: Broker(9, "new", 2)})
    assert snapshot.broker_by_id[3] == Broker(3, "moved", 1)
    assert set(snapshot.broker_by_id) == {1, 2, 3, 9}
    assert leaders(snapshot.with_leader("t", 0, Leader(9, 6))) == [(9, 6), (2, 7)]


def test_topics_can_be_forgotten(known: ClusterSnapshot) -> None:
    assert known.without_topics({"t", "other"}).topics() == set()
