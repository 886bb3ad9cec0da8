"""aiokafka's result types: its own where it is installed, else the same named tuples."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    _installed = False
else:
    try:
        from aiokafka.structs import OffsetAndMetadata, RecordMetadata, TopicPartition

        _installed = True
    except ImportError:
        _installed = False

if not _installed:

    class TopicPartition(NamedTuple):
        """A topic and the number of a partition."""

        topic: str
        partition: int

    class OffsetAndMetadata(NamedTuple):
        """The offset to commit and a text that goes with it."""

        offset: int
        metadata: str

    class RecordMetadata(NamedTuple):
        """Where a record is. ``log_start_offset`` is None: kprod does not keep it."""

        topic: str
        partition: int
        topic_partition: TopicPartition
        offset: int
        timestamp: int | None
        timestamp_type: int
        log_start_offset: int | None


__all__ = ["OffsetAndMetadata", "RecordMetadata", "TopicPartition"]
