"""What clients are measured against: real Apache Kafka, or the sink."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Protocol

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.sink import Sink, SinkCounts
from tests.kafka.cluster import KafkaCluster


class Target(Protocol):
    """Something that acknowledges records.

    Attributes:
        name: ``kafka`` or ``sink``.
        description: for people, with the version.
        bootstrap: ``host:port``, comma-separated.
        client_cpus: the CPUs that clients are kept on; None: any.
    """

    name: str
    description: str
    bootstrap: str
    client_cpus: set[int] | None

    def topic(self, client: str) -> contextlib.AbstractContextManager[str]:
        """A new topic for one measurement; counts begin here."""

    def records_in(self, topic: str) -> int:
        """How many records have arrived in it."""

    def counts(self) -> SinkCounts | None:
        """What went over the wire since :meth:`topic`, where the target can tell."""


class KafkaTarget:
    """A cluster of real brokers.

    Args:
        bootstrap: a cluster that is there; None starts one broker, ended by the context manager.
        partitions: of each topic.
        keep_topics: leave the records in the cluster.
    """

    name = "kafka"
    client_cpus = None  # the brokers need the CPUs as well

    def __init__(self, bootstrap: str | None, partitions: int, keep_topics: bool = False) -> None:
        self._cluster = None
        if bootstrap is None:
            self._cluster = KafkaCluster(heap_mb=512, long_running=True)
            bootstrap = self._cluster.bootstrap_servers
            self.description = f"Apache Kafka {self._cluster.distribution.version}, one node"
        else:
            self.description = f"the cluster at {bootstrap}"
        self.bootstrap = bootstrap
        self._partitions = partitions
        self._keep_topics = keep_topics
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})

    @contextlib.contextmanager
    def topic(self, client: str) -> Iterator[str]:
        topic = f"bench-{client}-{secrets.token_hex(4)}"
        self._admin.create_topics([NewTopic(topic, self._partitions, 1)])[topic].result(30)
        try:
            yield topic
        finally:
            if not self._keep_topics:
                self._admin.delete_topics([topic])[topic].result(30)

    def records_in(self, topic: str) -> int:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bench"})
        try:
            marks = [
                consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30, cached=False)
                for p in range(self._partitions)
            ]
        finally:
            consumer.close()
        return sum(high - low for low, high in marks)

    def counts(self) -> SinkCounts | None:
        return None

    def __enter__(self) -> KafkaTarget:
        return self

    def __exit__(self, *_: object) -> None:
        if self._cluster is not None:
            self._cluster.stop()


class SinkTarget:
    """The sink, on a CPU of its own where there are two: the last one; clients get the others.

    Args:
        brokers: of the pretended cluster.
        partitions: of each topic.
    """

    name = "sink"

    def __init__(self, partitions: int, brokers: int = 1) -> None:
        sink_cpus, self.client_cpus = split_cpus()
        self.sink = Sink(brokers, partitions, cpus=sink_cpus)
        self.bootstrap = self.sink.bootstrap_servers
        nodes = "one node" if brokers == 1 else f"{brokers} nodes"
        self.description = f"the sink ({nodes})"

    @contextlib.contextmanager
    def topic(self, client: str) -> Iterator[str]:
        self.sink.reset()
        yield f"bench-{client}-{secrets.token_hex(4)}"

    def records_in(self, topic: str) -> int:
        return self.sink.stats().records

    def counts(self) -> SinkCounts | None:
        return self.sink.stats()

    def __enter__(self) -> SinkTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.sink.close()


def split_cpus() -> tuple[set[int] | None, set[int] | None]:
    """The CPU of the sink and those of the clients; two times None where they cannot be kept apart."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cpus = sorted(os.sched_getaffinity(0))
    return ({cpus[-1]}, set(cpus[:-1])) if len(cpus) > 1 else (None, None)
