"""BatchBuilder: records that an application of aiokafka collects before it sends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from kprod._core.varint import size_of_varint
from kprod.records import Bytes, Header

BATCH_OVERHEAD: Final = 61
"""Bytes in front of the first record of a batch (record batch v2)."""


class Appended(NamedTuple):
    """What :meth:`BatchBuilder.append` says of a record."""

    offset: int
    """Its place in the batch."""
    size: int
    """Bytes that it takes, before compression."""
    timestamp: int
    """ms since 1970."""

    @property
    def crc(self) -> None:
        """None: records have no checksum of their own since Kafka 0.11."""
        return None


class Pending(NamedTuple):
    """A record of a batch, serialized."""

    key: Bytes | None
    value: Bytes | None
    timestamp: int
    headers: Sequence[Header]


class BatchBuilder:
    """Collects records up to ``max_batch_size`` bytes; made by ``AIOKafkaProducer.create_batch()``.

    Args:
        batch_size: bytes; the first record may be larger.
        key_serializer, value_serializer: the producer's.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        key_serializer: Callable[[Any], Any] | None = None,
        value_serializer: Callable[[Any], Any] | None = None,
    ) -> None:
        self._limit = batch_size
        self._key_serializer = key_serializer
        self._value_serializer = value_serializer
        self._size = BATCH_OVERHEAD
        self._closed = False
        self.records: list[Pending] = []
        """What was collected."""

    def append(
        self, *, timestamp: int | None, key: Any, value: Any, headers: Sequence[Header] | None = ()
    ) -> Appended | None:
        """Add a record.

        Args:
            timestamp: ms since 1970; None takes the present.
            key, value: bytes or None, or what the producer's serializers take.
            headers: pairs of str and bytes or None.

        Returns:
            Its place, size and timestamp; None: the batch is full, and closed now, or was closed before.

        Raises:
            TypeError: key or value is not bytes after serialization.
        """
        if self._closed:
            return None
        key = self._key_serializer(key) if self._key_serializer is not None else key
        value = self._value_serializer(value) if self._value_serializer is not None else value
        stamp = int(time.time() * 1000) if timestamp is None else int(timestamp)
        record = Pending(_checked(key, "key"), _checked(value, "value"), stamp, list(headers or ()))
        base = self.records[0].timestamp if self.records else stamp
        size = _record_size(record, stamp - base, len(self.records))
        if self.records and self._size + size > self._limit:
            self.close()
            return None
        self.records.append(record)
        self._size += size
        return Appended(len(self.records) - 1, size, stamp)

    def close(self) -> None:
        """Take no more records. Sending closes the batch as well."""
        self._closed = True

    def closed(self) -> bool:
        """Whether it takes no more records."""
        return self._closed

    def size(self) -> int:
        """Bytes of the batch, before compression."""
        return self._size

    def record_count(self) -> int:
        """How many records it has."""
        return len(self.records)


def _checked(data: Any, which: str) -> Bytes | None:
    if data is None or isinstance(data, (bytes, bytearray, memoryview)):
        return data
    raise TypeError(f"{which}: a bytes-like object is required, not {type(data).__name__!r}")


def _record_size(record: Pending, delta: int, index: int) -> int:
    body = 1 + size_of_varint(delta) + size_of_varint(index)
    for data in (record.key, record.value):
        length = -1 if data is None else len(data)
        body += size_of_varint(length) + max(length, 0)
    body += size_of_varint(len(record.headers))
    for key, value in record.headers:
        name = len(key.encode("utf-8"))
        length = -1 if value is None else len(value)
        body += size_of_varint(name) + name + size_of_varint(length) + max(length, 0)
    return size_of_varint(body) + body
