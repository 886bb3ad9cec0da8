"""Plain value types: partitions, offsets, headers, and Kafka's rule for topic names.

``RecordMetadata``, the result of a delivery, is part of the C core.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, SupportsIndex, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from kprod._core.future import RecordMetadata
    from kprod.errors import KafkaError

Bytes: TypeAlias = bytes | bytearray | memoryview
"""Bytes-like objects, taken as they are. ``send()`` copies them, so that they may be changed afterwards."""

HeaderValue: TypeAlias = bytes | bytearray | memoryview | None
"""Value of a header; ``None`` is a null value, which is not the same as an empty one."""

Header: TypeAlias = tuple[str, HeaderValue]
"""A header: its key and its value. Keys may repeat."""

Headers: TypeAlias = Iterable[Header] | Mapping[str, HeaderValue]
"""What ``send()`` accepts as headers: pairs in any iterable, or a mapping."""


class SupportsArrowArray(Protocol):
    """Arrow data in one piece (Arrow PyCapsule interface)."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """Capsules of an ArrowSchema and an ArrowArray."""


class SupportsArrowStream(Protocol):
    """Arrow data in pieces (Arrow PyCapsule interface)."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Capsule of an ArrowArrayStream."""


ArrowArray: TypeAlias = SupportsArrowArray | SupportsArrowStream
"""Arrays, chunked arrays, series, and tables of pyarrow, polars, pandas, DuckDB and others."""

Column: TypeAlias = "ArrowArray | tuple[Any, Any]"
"""A column of bytes: Arrow data, or a buffer of data and one of offsets."""

Integers: TypeAlias = "SupportsIndex | Iterable[SupportsIndex | None] | ArrowArray | Buffer"
"""One integer for all records, or one, or None, for each."""

BulkHeaders: TypeAlias = "Headers | Sequence[Headers | None]"
"""Headers for all records, or for each."""

OnDelivery: TypeAlias = "Callable[[KafkaError | None, RecordMetadata], Any]"
"""A delivery callback."""

MAX_TOPIC_NAME = 249
"""Longest topic name (``org.apache.kafka.common.internals.Topic``)."""

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]+")


class TopicPartition(NamedTuple):
    """A partition of a topic. Equal to any tuple of the same two values."""

    topic: str
    """Name of the topic."""
    partition: int
    """Number of the partition, from 0."""


class OffsetAndMetadata(NamedTuple):
    """A consumer's position, as committed with a transaction."""

    offset: int
    """Offset of the next record to read."""
    metadata: str = ""
    """Text of the consumer's own."""
    leader_epoch: int = -1
    """Epoch of the leader the last record was read from; -1: not known (KIP-320)."""


def check_topic_name(topic: object) -> str:
    """Check a topic name by the rule the brokers apply (``org.apache.kafka.common.internals.Topic``).

    Returns:
        The name.

    Raises:
        TypeError: it is not a str.
        ValueError: it is empty, longer than 249 characters, '.' or '..', or has characters other than ASCII
            letters, digits, '.', '_' and '-'.
    """
    if not isinstance(topic, str):
        raise TypeError(f"topic must be a str, not {type(topic).__name__}: {topic!r}")
    if not topic:
        raise ValueError("topic must not be empty")
    if topic in (".", ".."):
        raise ValueError(f"topic must not be {topic!r}")
    if len(topic) > MAX_TOPIC_NAME:
        raise ValueError(
            f"topic has {len(topic)} characters, at most {MAX_TOPIC_NAME} are allowed: {topic!r}"
        )
    if _TOPIC_NAME.fullmatch(topic) is None:
        raise ValueError(f"topic may only have ASCII letters, digits, '.', '_' and '-', not {topic!r}")
    # A plain str, also of a member of a str enumeration.
    return str.__str__(topic)
