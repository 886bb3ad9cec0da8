"""Where records go: the same place as with every other client."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import pytest
from kafka.partitioner.default import murmur2

from kprod.errors import KafkaError
from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import outcomes
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent


def test_keys_are_placed_as_kafka_python_does(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=7)
    producer = make_producer(kafka)
    source = random.Random(3)
    keys = [source.randbytes(length) for length in range(64) for _ in range(20)]
    metadata = outcomes([producer.send(name, b"v", key=key) for key in keys])
    wrong = [
        f"key {key.hex()!r}: {m.partition}, kafka-python says {(murmur2(key) & 0x7FFFFFFF) % 7}"
        for key, m in zip(keys, metadata, strict=True)
        if m.partition != (murmur2(key) & 0x7FFFFFFF) % 7
    ]
    assert not wrong, f"{len(wrong)} of {len(keys)} keys; {wrong[:5]}"
    found = Counter((r.partition, r.key) for r in read_confluent(kafka.bootstrap_servers, name))
    assert found == Counter((m.partition, key) for key, m in zip(keys, metadata, strict=True))


def test_keys_are_placed_as_the_java_client_does(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=11)
    source = random.Random(4)
    keys = ["".join(source.choice("abcxyz0189-_äß漢🙂 ") for _ in range(n % 40 + 1)) for n in range(500)]
    lines = "".join(f"{key}\tjava\n" for key in keys)
    command = kafka.distribution.tool(
        "org.apache.kafka.tools.ConsoleProducer",
        "--bootstrap-server", kafka.bootstrap_servers, "--topic", name, "--property", "parse.key=true",
    )  # fmt: skip
    # The file encoding, not the locale's: keys are not ASCII.
    command.insert(1, "-Dfile.encoding=UTF-8")
    subprocess.run(command, input=lines.encode(), capture_output=True, check=True, timeout=120)
    java = {r.key: r.partition for r in read_confluent(kafka.bootstrap_servers, name)}
    assert len(java) == len(set(keys)), "the console producer did not send what it was given"

    producer = make_producer(kafka, key_serializer=str.encode)
    metadata = outcomes([producer.send(name, b"kprod", key=key) for key in keys])
    ours = {key.encode(): m.partition for key, m in zip(keys, metadata, strict=True)}
    assert ours == java


def test_empty_key_is_hashed_like_any_other(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=5)
    producer = make_producer(kafka)
    placed = {producer.send(name, b"v", key=b"").get(timeout=30).partition for _ in range(20)}
    assert placed == {(murmur2(b"") & 0x7FFFFFFF) % 5}


def test_records_without_key_stick_and_spread(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    """KIP-794: about batch.size bytes go to one partition, then another is chosen; all get their share."""
    name = topic(partitions=6)
    producer = make_producer(kafka, batch_size=16384)
    partitions = [m.partition for m in outcomes([producer.send(name, b"x" * 100) for _ in range(60_000)])]
    share = Counter(partitions)
    assert set(share) == set(range(6))
    # About 400 choices of one in six: a tenth of the records for one partition would be far off.
    assert min(share.values()) > 60_000 * 0.05, share
    runs = [sum(1 for _ in run) for _, run in groupby(partitions)]
    # A batch of 16 KiB holds about 150 such records.
    assert sum(runs) / len(runs) > 50, f"{len(runs)} runs, the first: {runs[:20]}"
    batches = [batch for p in range(6) for batch in kafka.log_batches(name, p)]
    assert 60_000 / len(batches) > 50, f"{len(batches)} batches"


def test_round_robin(kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic(partitions=4)
    producer = make_producer(kafka, partitioner="round_robin")
    partitions = [m.partition for m in outcomes([producer.send(name, b"v") for _ in range(400)])]
    assert Counter(partitions) == dict.fromkeys(range(4), 100)


def test_explicit_partition(kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic(partitions=5)
    producer = make_producer(kafka)
    outcomes([producer.send(name, b"%d" % i, key=b"same", partition=i % 5) for i in range(100)])
    found = read_confluent(kafka.bootstrap_servers, name)
    assert len(found) == 100
    assert all(int(r.value or b"-1") % 5 == r.partition for r in found)


@pytest.mark.parametrize("partition", [-1, 3, 2**31])
def test_partition_that_is_not_there(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, partition: int
) -> None:
    name = topic(partitions=3)
    producer = make_producer(kafka)
    producer.partitions_for(name)
    with pytest.raises((KafkaError, ValueError)) as caught:
        producer.send(name, b"x", partition=partition)
    assert str(partition) in str(caught.value)
    assert read_confluent(kafka.bootstrap_servers, name) == []


def test_partitioner_function(kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    """A function as kafka-python 2 takes it: key bytes, all partitions, those that have a leader."""
    name = topic(partitions=4)
    asked: list[tuple[bytes | None, list[int], list[int]]] = []

    def by_first_byte(key: bytes | None, all_partitions: Sequence[int], available: Sequence[int]) -> int:
        asked.append((key, sorted(all_partitions), sorted(available)))
        return all_partitions[(key or b"\0")[0] % len(all_partitions)]

    producer = make_producer(kafka, partitioner=by_first_byte)
    metadata = outcomes([producer.send(name, b"v", key=bytes([i])) for i in range(40)])
    assert [m.partition for m in metadata] == [i % 4 for i in range(40)]
    assert asked == [(bytes([i]), [0, 1, 2, 3], [0, 1, 2, 3]) for i in range(40)]


def test_partitioner_that_fails_leaves_the_producer_usable(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=2)

    def moody(key: bytes | None, all_partitions: Sequence[int], available: Sequence[int]) -> int:
        if key == b"raise":
            raise LookupError("no idea")
        return 99 if key == b"nowhere" else 1

    producer = make_producer(kafka, partitioner=moody)
    with pytest.raises(LookupError, match="no idea"):
        producer.send(name, b"v", key=b"raise")
    with pytest.raises((KafkaError, ValueError), match="99"):
        producer.send(name, b"v", key=b"nowhere")
    assert producer.send(name, b"v", key=b"fine").get(timeout=30).partition == 1
    assert len(read_confluent(kafka.bootstrap_servers, name)) == 1
