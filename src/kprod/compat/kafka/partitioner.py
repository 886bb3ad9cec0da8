"""kafka-python's partitioners: a drop-in for ``kafka.partitioner``.

For code that calls a partitioner, or derives from one. The producer's own choice for records without a key,
``partitioner="default"``, needs none of these.
"""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from typing import Any

from kprod._core.murmur2 import murmur2, partition_for_key

__all__ = ["DefaultPartitioner", "Partitioner", "StickyPartitioner", "murmur2"]


class Partitioner(ABC):
    """A partitioner in the form of kafka-python 3."""

    @abstractmethod
    def partition(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
        cluster: Any,
    ) -> int:
        """The partition of a record.

        Args:
            topic: the topic.
            key, value: as given to ``send()``.
            serialized_key, serialized_value: what the serializers made of them.
            cluster: the metadata: ``partitions_for_topic()``, ``available_partitions_for_topic()``, ...

        Raises:
            ValueError: the cluster does not know the topic.
        """


def _partitions(topic: str, cluster: Any) -> list[int]:
    if topic not in cluster.topics():
        raise ValueError(f"Topic {topic} not found in the metadata of the cluster")
    return sorted(cluster.partitions_for_topic(topic))


class DefaultPartitioner(Partitioner):
    """Java's murmur2 of the key; without a key any partition that has a leader, drawn for each record."""

    def partition(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
        cluster: Any,
    ) -> int:
        """See :class:`Partitioner`."""
        partitions = _partitions(topic, cluster)
        if serialized_key is not None:
            return partitions[partition_for_key(serialized_key, len(partitions))]
        available: list[int] = list(cluster.available_partitions_for_topic(topic))
        return random.choice(available or partitions)


class StickyPartitioner(DefaultPartitioner):
    """As the default, but records without a key stay on one partition until ``on_new_batch()`` (KIP-480)."""

    def __init__(self) -> None:
        self._sticky: dict[str, int] = {}
        self._lock = threading.Lock()

    def partition(
        self,
        topic: str,
        key: Any,
        serialized_key: bytes | None,
        value: Any,
        serialized_value: bytes | None,
        cluster: Any,
    ) -> int:
        """See :class:`Partitioner`."""
        if serialized_key is not None:
            return super().partition(topic, key, serialized_key, value, serialized_value, cluster)
        partitions = _partitions(topic, cluster)
        available: list[int] = list(cluster.available_partitions_for_topic(topic))
        with self._lock:
            stuck = self._sticky.get(topic)
            if stuck is None or stuck not in (available or partitions):
                stuck = self._sticky[topic] = random.choice(available or partitions)
            return stuck

    def on_new_batch(self, topic: str, cluster: Any, prev_partition: int) -> None:
        """Go on to another partition; nothing, if the topic has left ``prev_partition`` already."""
        partitions = cluster.partitions_for_topic(topic)
        if not partitions:
            return
        available = list(cluster.available_partitions_for_topic(topic) or ())
        others = [number for number in available if number != prev_partition]
        with self._lock:
            if self._sticky.get(topic) == prev_partition:
                self._sticky[topic] = random.choice(others or available or sorted(partitions))
