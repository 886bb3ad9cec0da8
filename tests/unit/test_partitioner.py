"""kprod.partitioner: placement, the forms that are recognised, and named partitioners."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any, NamedTuple

import kafka.partitioner
import pytest

from kprod.partitioner import (
    PARTITIONER_NAMES,
    DefaultPartitioner,
    Partitioner,
    PartitionRequest,
    RoundRobinPartitioner,
    StickyPartitioner,
    crc32_partition,
    fnv1a,
    is_partitioner,
    murmur2,
    partition_for_key,
    partitioner_by_name,
    partitions_in_rack,
    resolve_partitioner,
)
from kprod.records import TopicPartition

RANDOM = random.Random(20)
KEYS = [RANDOM.randbytes(length) for length in range(1, 70) for _ in range(30)]
PARTITION_COUNTS = (1, 2, 3, 6, 7, 12, 100, 1000)


class Node(NamedTuple):
    nodeId: int
    rack: str | None


class SomeCluster:
    """Topic ``t``: partitions without a leader are not available; node n leads partition p if p % 3 == n."""

    def __init__(self, partitions: int = 6, leaderless: tuple[int, ...] = ()) -> None:
        self.partitions = set(range(partitions))
        self.leaderless = set(leaderless)
        self.nodes = {0: Node(0, "a"), 1: Node(1, "b"), 2: Node(2, None)}

    def topics(self) -> set[str]:
        return {"t"}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.partitions if topic == "t" else None

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.partitions - self.leaderless if topic == "t" else None

    def leader_for_partition(self, partition: TopicPartition) -> int | None:
        return -1 if partition.partition in self.leaderless else partition.partition % 3

    def brokers(self) -> set[Node]:
        return set(self.nodes.values())

    def broker_metadata(self, broker_id: int) -> Node | None:
        return self.nodes.get(broker_id)


def choose(partitioner: Any, key_bytes: bytes | None, cluster: Any = None, **other: Any) -> int | None:
    """The partition that a partitioner, in whatever form, chooses in topic ``t``."""
    resolved = resolve_partitioner(partitioner)
    return resolved.choose(
        "t",
        other.get("key", key_bytes),
        other.get("value"),
        key_bytes,
        other.get("serialized_value"),
        cluster if cluster is not None else SomeCluster(),
    )


# --- Placement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", PARTITION_COUNTS)
def test_placement_of_keys_is_kafka_pythons(partitions: int) -> None:
    peer = kafka.partitioner.DefaultPartitioner()
    cluster = SomeCluster(partitions)
    for key in [b"", *KEYS]:
        expected = peer.partition("t", key, key, None, None, cluster)
        assert choose(None, key, cluster) == expected
        assert choose(peer, key, cluster) == expected
        assert partition_for_key(key, partitions) == expected
        assert murmur2(key) == kafka.partitioner.murmur2(key)


def test_empty_keys_are_keys_but_for_consistent_random() -> None:
    assert choose("consistent_random", b"") is None
    for name in ("murmur2_random", "murmur2", "consistent", "fnv1a", "fnv1a_random"):
        assert choose(name, b"") is not None


@pytest.mark.parametrize(
    ("name", "as_empty"),
    [("murmur2", True), ("consistent", True), ("fnv1a", True)]
    + [
        (name, False) for name in ("default", "sticky", "murmur2_random", "consistent_random", "fnv1a_random")
    ],
)
def test_null_keys(name: str, as_empty: bool) -> None:
    expected = choose(name, b"") if as_empty else None
    assert choose(name, None) == expected
    assert as_empty == (expected is not None)


def test_hashes_of_bytearray_and_memoryview_are_those_of_bytes() -> None:
    for name in PARTITIONER_NAMES:
        if name in ("random", "round_robin"):
            continue
        for key in KEYS[:50]:
            expected = choose(name, key)
            assert choose(name, bytearray(key)) == expected  # type: ignore[arg-type]
            assert choose(name, memoryview(key)) == expected  # type: ignore[arg-type]


def test_fnv1a_is_the_absolute_value_of_the_signed_hash() -> None:
    # Offset basis of FNV-1a, 0x811C9DC5, is negative as a signed number.
    assert fnv1a(b"") == 0x1_0000_0000 - 0x811C9DC5
    assert all(0 <= fnv1a(key) <= 0x80000000 for key in KEYS)
    assert crc32_partition(b"123456789", 2**32) == 0xCBF43926


# --- Random, round robin ------------------------------------------------------------------------------------


def test_random_uses_available_partitions_evenly() -> None:
    cluster = SomeCluster(6, leaderless=(1, 4))
    seen = Counter(choose("random", b"same key", cluster) for _ in range(4000))
    assert set(seen) == {0, 2, 3, 5}
    # Each is drawn 1000 times on average with a standard deviation below 28: a bound of eight of them.
    assert all(780 < count < 1220 for count in seen.values())


def test_random_uses_any_partition_when_none_has_a_leader() -> None:
    cluster = SomeCluster(3, leaderless=(0, 1, 2))
    assert {choose("random", None, cluster) for _ in range(200)} == {0, 1, 2}


def test_round_robin_takes_available_partitions_in_turn() -> None:
    cluster = SomeCluster(4, leaderless=(2,))
    resolved = resolve_partitioner("round_robin")
    assert [resolved.choose("t", None, None, b"k", None, cluster) for _ in range(7)] == [0, 1, 3, 0, 1, 3, 0]


def test_round_robin_has_a_turn_per_topic_and_is_fair_across_threads() -> None:
    partitioner = RoundRobinPartitioner()
    cluster = SomeCluster(4)
    barrier = threading.Barrier(4)
    chosen: list[int | None] = []

    def ask() -> None:
        barrier.wait()
        for _ in range(1000):
            chosen.append(partitioner.partition(PartitionRequest("t", None, None, None, None, cluster)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(chosen) == {0: 1000, 1: 1000, 2: 1000, 3: 1000}


# --- Names --------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert partitioner_by_name("Round-Robin") == "round_robin"
    assert partitioner_by_name("org.apache.kafka.clients.producer.RoundRobinPartitioner") == "round_robin"
    assert partitioner_by_name("DefaultPartitioner") == "default"
    with pytest.raises(
        ValueError, match="'crc32' is none of default, sticky, round_robin, random, consistent"
    ):
        partitioner_by_name("crc32")
    with pytest.raises(ValueError, match="use partitioner_ignore_keys=True"):
        partitioner_by_name("UniformStickyPartitioner")
    with pytest.raises(ValueError, match="is none of"):
        resolve_partitioner("crc32")


@pytest.mark.parametrize(
    ("partitioner", "native"),
    [
        (None, "default"),
        ("default", "default"),
        ("sticky", "default"),
        ("murmur2_random", "default"),
        ("round_robin", "round_robin"),
        (DefaultPartitioner(), "default"),
        (StickyPartitioner(), "default"),
        (RoundRobinPartitioner(), "round_robin"),
        *((name, None) for name in ("random", "consistent", "consistent_random", "murmur2", "fnv1a_random")),
        (lambda key, all_partitions, available: 0, None),
    ],
)
def test_what_the_core_does_itself(partitioner: Any, native: str | None) -> None:
    assert resolve_partitioner(partitioner).native == native


def test_a_subclass_that_chooses_itself_is_not_passed_over() -> None:
    class Mine(DefaultPartitioner):
        def partition(self, record: PartitionRequest) -> int | None:
            return 5

    class Renamed(DefaultPartitioner):
        pass

    assert resolve_partitioner(Mine()).native is None
    assert choose(Mine(), b"k") == 5
    assert resolve_partitioner(Renamed()).native == "default"


# --- Forms --------------------------------------------------------------------------------------------------

SEEN: dict[str, Any] = {}


def seen(**values: Any) -> int:
    SEEN.clear()
    SEEN.update(values)
    return 1


class Rich(Partitioner):
    def partition(self, record: PartitionRequest) -> int | None:
        return seen(**record._asdict())


class Unrelated:
    def partition(self, request: Any) -> int:
        return seen(**request._asdict())


class KafkaPython3:
    def partition(
        self, topic: Any, key: Any, serialized_key: Any, value: Any, serialized_value: Any, cluster: Any
    ) -> int:
        return seen(
            topic=topic,
            key=key,
            value=value,
            serialized_key=serialized_key,
            serialized_value=serialized_value,
            cluster=cluster,
        )


class OwnNames:
    def partition(self, t: Any, k: Any, kb: Any, v: Any, vb: Any, c: Any) -> int:
        return seen(topic=t, key=k, value=v, serialized_key=kb, serialized_value=vb, cluster=c)


class AnyArguments:
    def partition(self, *args: Any) -> int:
        topic, key, serialized_key, value, serialized_value, cluster = args
        return seen(
            topic=topic,
            key=key,
            value=value,
            serialized_key=serialized_key,
            serialized_value=serialized_value,
            cluster=cluster,
        )


@pytest.mark.parametrize(
    "partitioner",
    [
        Rich(),
        Unrelated(),
        KafkaPython3(),
        OwnNames(),
        AnyArguments(),
        lambda record: seen(**record._asdict()),
        lambda request: seen(**request._asdict()),
        lambda value, key, topic, cluster, serialized_value, serialized_key: seen(
            topic=topic,
            key=key,
            value=value,
            serialized_key=serialized_key,
            serialized_value=serialized_value,
            cluster=cluster,
        ),
    ],
)
def test_forms_that_see_everything(partitioner: Any) -> None:
    cluster = SomeCluster()
    assert choose(partitioner, b"k", cluster, key="k", value=[1], serialized_value=b"[1]") == 1
    expected = {"topic": "t", "key": "k", "value": [1], "serialized_key": b"k", "serialized_value": b"[1]"}
    assert expected | {"cluster": cluster} == SEEN


def test_the_older_object_of_kafka_python() -> None:
    class Older:
        def partition(self, topic: str, serialized_key: Any, cluster: Any) -> int:
            return seen(topic=topic, serialized_key=serialized_key, cluster=cluster)

    class OlderOwnNames:
        def partition(self, a: Any, b: Any, c: Any) -> int:
            return seen(topic=a, serialized_key=b, cluster=c)

    cluster = SomeCluster()
    for partitioner in (Older(), OlderOwnNames()):
        assert choose(partitioner, b"k", cluster, key="not this") == 1
        assert {"topic": "t", "serialized_key": b"k", "cluster": cluster} == SEEN


def kafka_python_2(key: Any, all_partitions: Any, available: Any) -> int:
    return seen(key=key, all=all_partitions, available=available)


class KafkaPython2Class:
    """kafka-python 2's DefaultPartitioner was a class whose instances were called like this."""

    def __call__(self, key_bytes: Any, all_partitions: Any, available_partitions: Any) -> int:
        return seen(key=key_bytes, all=all_partitions, available=available_partitions)


@pytest.mark.parametrize(
    "partitioner",
    [
        kafka_python_2,
        KafkaPython2Class(),
        lambda k, p, a: kafka_python_2(k, p, a),
        lambda *args: kafka_python_2(*args),
    ],
)
def test_kafka_python_2_and_aiokafka(partitioner: Any) -> None:
    cluster = SomeCluster(4, leaderless=(2,))
    assert choose(partitioner, b"k", cluster, key="not this") == 1
    assert SEEN == {"key": b"k", "all": [0, 1, 2, 3], "available": [0, 1, 3]}
    choose(partitioner, None, cluster)
    assert SEEN["key"] is None


def test_functions_that_name_what_they_want() -> None:
    assert choose(lambda key, num_partitions: key % num_partitions, b"9", key=9) == 3
    assert choose(lambda num_partitions: num_partitions - 1, None) == 5
    assert choose(lambda topic, value: len(topic) + value, None, value=2) == 3
    assert choose(lambda key, seed=7: key + seed, b"", key=-3) == 4


def test_a_plain_function_of_one_argument_with_a_known_name() -> None:
    assert choose(lambda key: key, b"x", key=3) == 3


def test_none_is_the_sticky_choice() -> None:
    assert choose(lambda key: None, b"x") is None


class Index:
    def __index__(self) -> int:
        return 4


def test_what_counts_as_a_whole_number_is_one() -> None:
    assert choose(lambda key: Index(), b"x") == 4
    assert choose(lambda key: True, b"x") == 1
    assert choose(lambda key: -3, b"x") == -3  # whether there is such a partition is for the producer to say


@pytest.mark.parametrize("wrong", ["1", 1.0, [1], object()])
def test_other_results_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"must return an int or None, not {type(wrong).__name__}"):
        choose(lambda key: wrong, b"x")


def test_the_users_own_error_reaches_the_caller() -> None:
    def fail(key: Any, all_partitions: Any, available: Any) -> int:
        raise TypeError("of the user")

    with pytest.raises(TypeError, match=r"^of the user$"):
        choose(fail, b"x")


@pytest.mark.parametrize(
    "wrong", [5, b"default", object(), DefaultPartitioner, kafka.partitioner.DefaultPartitioner]
)
def test_what_is_no_partitioner(wrong: Any) -> None:
    assert not is_partitioner(wrong)
    with pytest.raises(TypeError, match="partitioner must be a callable, an object with a partition"):
        resolve_partitioner(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b: 0,
        lambda a, b, c, d: 0,
        lambda: 0,
        type("P", (), {"partition": lambda self, a, b: 0})(),
        type("P", (), {"partition": lambda self: 0})(),
    ],
)
def test_signatures_that_fit_no_form_are_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"none of the known forms: \(record\); \(key_bytes, all_partitions"):
        resolve_partitioner(wrong)


def test_source_is_what_was_given() -> None:
    partitioner = KafkaPython3()
    assert resolve_partitioner(partitioner).source is partitioner
    assert resolve_partitioner("random").source == "random"


def test_the_contract_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Partitioner()  # type: ignore[abstract]


# --- Racks --------------------------------------------------------------------------------------------------


def test_partitions_whose_leader_is_near() -> None:
    cluster = SomeCluster(6, leaderless=(3,))
    assert partitions_in_rack(cluster, "t", "a") == {0}
    assert partitions_in_rack(cluster, "t", "b") == {1, 4}
    # None near: all that have a leader.
    assert partitions_in_rack(cluster, "t", "c") == {0, 1, 2, 4, 5}
    assert partitions_in_rack(cluster, "unknown", "a") == set()
    del cluster.nodes[1]
    assert partitions_in_rack(cluster, "t", "b") == {0, 1, 2, 4, 5}
