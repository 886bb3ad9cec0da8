"""What delivery reports carry: messages, and the other small values of confluent-kafka's API."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from kprod.compat.confluent_kafka.error import KafkaError

TIMESTAMP_NOT_AVAILABLE = 0
TIMESTAMP_CREATE_TIME = 1
TIMESTAMP_LOG_APPEND_TIME = 2

OFFSET_BEGINNING = -2
OFFSET_END = -1
OFFSET_STORED = -1000
OFFSET_INVALID = -1001


class Message:
    """A record with what became of it; everything is behind methods, as in confluent-kafka.

    Args:
        topic, partition, offset, key, value, headers: of the record.
        error: why it was not delivered.
        timestamp: (one of TIMESTAMP_*, ms since 1970).
        latency: seconds from ``produce()`` to the acknowledgement.
        leader_epoch: not known to producers.
    """

    __slots__ = (
        "_error",
        "_headers",
        "_key",
        "_latency",
        "_leader_epoch",
        "_offset",
        "_partition",
        "_timestamp",
        "_topic",
        "_value",
    )

    def __init__(
        self,
        topic: str | None = None,
        value: Any = None,
        key: Any = None,
        headers: Any = None,
        error: KafkaError | None = None,
        offset: int | None = None,
        partition: int | None = None,
        timestamp: tuple[int, int] = (TIMESTAMP_NOT_AVAILABLE, -1),
        latency: float | None = None,
        leader_epoch: int | None = None,
    ) -> None:
        self._topic = topic
        self._value = value
        self._key = key
        self._headers = headers
        self._error = error
        self._offset = offset
        self._partition = partition
        self._timestamp = timestamp
        self._latency = latency
        self._leader_epoch = leader_epoch

    def error(self) -> KafkaError | None:
        """Why it was not delivered; None: it was."""
        return self._error

    def topic(self) -> str | None:
        """The topic."""
        return self._topic

    def partition(self) -> int | None:
        """The partition; None: none was chosen."""
        return self._partition

    def offset(self) -> int | None:
        """The offset in the partition; None: not known."""
        return self._offset

    def key(self) -> Any:
        """The key, as bytes."""
        return self._key

    def value(self) -> Any:
        """The value, as bytes."""
        return self._value

    def headers(self) -> Any:
        """The headers as a list of pairs, or None. (confluent-kafka has None in every report.)"""
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        """(kind, ms since 1970); the kind is one of TIMESTAMP_*."""
        return self._timestamp

    def latency(self) -> float | None:
        """Seconds from ``produce()`` to the acknowledgement; None: it was not delivered."""
        return self._latency

    def leader_epoch(self) -> int | None:
        """None for producers."""
        return self._leader_epoch

    def set_topic(self, topic: str) -> None:
        """Replace the topic."""
        self._topic = topic

    def set_value(self, value: Any) -> None:
        """Replace the value."""
        self._value = value

    def set_key(self, key: Any) -> None:
        """Replace the key."""
        self._key = key

    def set_headers(self, headers: Any) -> None:
        """Replace the headers."""
        self._headers = headers

    def set_error(self, error: KafkaError | None) -> None:
        """Replace the error."""
        self._error = error

    def __len__(self) -> int:
        return 0 if self._value is None else len(self._value)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return (
            f"<Message topic={self._topic} partition={self._partition} offset={self._offset} "
            f"error={self._error}>"
        )


@functools.total_ordering
class TopicPartition:
    """A partition, with an offset where one is meant.

    Args:
        topic: the topic.
        partition: its number; -1: none.
        offset: an offset or one of OFFSET_*.
        metadata: what a consumer commits beside its offset.
        leader_epoch: the epoch that goes with the offset.
    """

    __slots__ = ("error", "leader_epoch", "metadata", "offset", "partition", "topic")

    def __init__(
        self,
        topic: str,
        partition: int = -1,
        offset: int = OFFSET_INVALID,
        metadata: str | None = None,
        leader_epoch: int | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.metadata = metadata
        self.leader_epoch = leader_epoch
        self.error: KafkaError | None = None

    def _order(self) -> tuple[str, int]:
        return self.topic, self.partition

    def __eq__(self, other: object) -> bool:
        return self._order() == other._order() if isinstance(other, TopicPartition) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return self._order() < other._order() if isinstance(other, TopicPartition) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._order())

    def __repr__(self) -> str:
        return (
            f"TopicPartition{{topic={self.topic},partition={self.partition},offset={self.offset},"
            f"leader_epoch={self.leader_epoch},error={self.error}}}"
        )


class ThrottleEvent(NamedTuple):
    """A broker has held an answer back because of a quota."""

    broker_name: str
    """host:port."""
    broker_id: int
    """Its number."""
    throttle_time: float
    """For how long, in seconds."""

    def __str__(self) -> str:
        return f"{self.broker_name}/{self.broker_id} throttled for {self.throttle_time * 1000:.0f} ms"


class BrokerMetadata(NamedTuple):
    """A broker of a cluster."""

    id: int
    host: str
    port: int


class PartitionMetadata(NamedTuple):
    """A partition of a topic."""

    id: int
    leader: int
    """-1: none."""
    replicas: list[int]
    isrs: list[int]
    """The replicas in sync."""
    error: KafkaError | None


class TopicMetadata(NamedTuple):
    """A topic of a cluster."""

    topic: str
    partitions: dict[int, PartitionMetadata]
    error: KafkaError | None


class ClusterMetadata(NamedTuple):
    """What ``list_topics()`` returns."""

    cluster_id: str | None
    controller_id: int
    brokers: dict[int, BrokerMetadata]
    topics: dict[str, TopicMetadata]
    orig_broker_id: int
    """The broker that answered."""
    orig_broker_name: str | None
