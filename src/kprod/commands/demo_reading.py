"""Reading topics back, with a consumer that has nothing to do with kprod where there is one."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kprod.testing import MockCluster

# Without a record for so long, reading has failed.
_SILENCE_S = 20.0


class ReadRecord(NamedTuple):
    """A record as a consumer got it; the records of a partition come in the order of their offsets."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int


class Reader(NamedTuple):
    """A way to read a topic.

    Attributes:
        name: of the client.
        read: takes the topic and the number of its partitions; gives all that is in them now. Raises
            TimeoutError when it cannot get to their ends.
    """

    name: str
    read: Callable[[str, int], Iterator[ReadRecord]]


def find_reader(codecs: set[str]) -> str | None:
    """The module of an installed consumer that can read these codecs; None: there is none."""
    for module in ("confluent_kafka", "kafka"):
        try:
            importlib.import_module(module)
            if module == "kafka" and not _kafka_python_reads(codecs):
                continue
        except ImportError:
            continue
        return module
    return None


def _kafka_python_reads(codecs: set[str]) -> bool:
    """Whether the packages are there that kafka-python needs for these codecs."""
    known = importlib.import_module("kafka.codec")
    return all(getattr(known, f"has_{codec}")() for codec in codecs - {"none"})


def make_reader(module: str | None, bootstrap_servers: str, cluster: MockCluster | None) -> Reader:
    """The reader for what :func:`find_reader` found.

    Args:
        module: its result.
        bootstrap_servers: where to read.
        cluster: the embedded cluster, which is asked itself where there is no consumer.
    """
    if module == "confluent_kafka":
        return Reader("confluent-kafka", lambda topic, n: _read_confluent(bootstrap_servers, topic, n))
    if module == "kafka":
        return Reader("kafka-python", lambda topic, n: _read_kafka_python(bootstrap_servers, topic, n))
    if cluster is None:
        raise ValueError("without a consumer only the embedded cluster can be read")
    return Reader("the embedded cluster itself", lambda topic, n: _read_cluster(cluster, topic, n))


def _read_confluent(bootstrap_servers: str, topic: str, partitions: int) -> Iterator[ReadRecord]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

    consumer: Any = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "kprod-demo",
            "enable.auto.commit": False,
            "check.crcs": True,
            "fetch.wait.max.ms": 50,
            "log_level": 2,
        }
    )
    try:
        ends = {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_SILENCE_S)[1]
            for number in range(partitions)
        }
        ends = {number: end for number, end in ends.items() if end > 0}
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in ends])
        silent_since = time.monotonic()
        while ends:
            messages = consumer.consume(10_000, timeout=0.2)
            for message in messages:
                if message.error() is not None:
                    raise KafkaException(message.error())
                yield ReadRecord(
                    message.partition(),
                    message.key(),
                    message.value(),
                    message.headers() or [],
                    message.timestamp()[1],
                )
                if message.offset() + 1 >= ends.get(message.partition(), 0):
                    ends.pop(message.partition(), None)
            silent_since = _check_silence(bool(messages), silent_since, topic, ends)
    finally:
        consumer.close()


def _read_kafka_python(bootstrap_servers: str, topic: str, partitions: int) -> Iterator[ReadRecord]:
    import kafka

    consumer: Any = kafka.KafkaConsumer(
        bootstrap_servers=bootstrap_servers.split(","),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        check_crcs=True,
        fetch_max_wait_ms=50,
    )
    try:
        numbers = [kafka.TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(numbers)
        consumer.seek_to_beginning(*numbers)
        ends = {at.partition: end for at, end in consumer.end_offsets(numbers).items() if end > 0}
        silent_since = time.monotonic()
        while ends:
            found = consumer.poll(timeout_ms=200, max_records=10_000)
            for at, records in found.items():
                for record in records:
                    yield ReadRecord(
                        at.partition, record.key, record.value, list(record.headers), record.timestamp
                    )
                if records and records[-1].offset + 1 >= ends.get(at.partition, 0):
                    ends.pop(at.partition, None)
            silent_since = _check_silence(bool(found), silent_since, topic, ends)
    finally:
        consumer.close()


def _read_cluster(cluster: MockCluster, topic: str, partitions: int) -> Iterator[ReadRecord]:
    for number in range(partitions):
        for record in cluster.records(topic, number):
            yield ReadRecord(record.partition, record.key, record.value, record.headers, record.timestamp)


def _check_silence(heard: bool, since: float, topic: str, ends: dict[int, int]) -> float:
    now = time.monotonic()
    if heard:
        return now
    if now - since > _SILENCE_S:
        raise TimeoutError(
            f"{topic}: the ends of partitions {sorted(ends)} were not reached in {_SILENCE_S:g} s"
        )
    return since
