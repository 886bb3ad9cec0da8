"""Named partitioners against librdkafka, whose names most of them are."""

from __future__ import annotations

import random
from collections.abc import Callable

import confluent_kafka
import pytest

from kprod.partitioner import resolve_partitioner

RNG = random.Random(40)
KEYS = [RNG.randbytes(length) for length in range(1, 70) for _ in range(30)]
PARTITION_COUNTS = (1, 2, 3, 6, 7, 12, 100, 1000)

PEERS: dict[str, Callable[[bytes, int], int]] = {
    "default": confluent_kafka.murmur2,
    "sticky": confluent_kafka.murmur2,
    "murmur2": confluent_kafka.murmur2,
    "murmur2_random": confluent_kafka.murmur2,
    "consistent": confluent_kafka.consistent,
    "consistent_random": confluent_kafka.consistent,
    "fnv1a": confluent_kafka.fnv1a,
    "fnv1a_random": confluent_kafka.fnv1a,
}


class Topic:
    """A cluster with one topic, whose partition 0 has no leader."""

    def __init__(self, partitions: int) -> None:
        self.partitions = set(range(partitions))

    def partitions_for_topic(self, topic: str) -> set[int]:
        return self.partitions

    def available_partitions_for_topic(self, topic: str) -> set[int]:
        return self.partitions - {0}


@pytest.mark.parametrize("partitions", PARTITION_COUNTS)
@pytest.mark.parametrize("name", PEERS)
def test_placement_of_keys_is_librdkafkas(name: str, partitions: int) -> None:
    # The hash takes all partitions into account, available or not.
    cluster = Topic(partitions)
    choose = resolve_partitioner(name).choose
    for key in KEYS:
        assert choose("t", key, None, key, None, cluster) == PEERS[name](key, partitions)


@pytest.mark.parametrize("partitions", PARTITION_COUNTS)
@pytest.mark.parametrize("name", sorted(PEERS.keys() - {"consistent_random"}))
def test_empty_keys_are_hashed_as_librdkafka_does(name: str, partitions: int) -> None:
    chosen = resolve_partitioner(name).choose("t", b"", None, b"", None, Topic(partitions))
    assert chosen == PEERS[name](b"", partitions)
