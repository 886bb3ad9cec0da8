"""Reading record batches (magic 2), as a broker and a consumer do.

The format is that of KIP-98, with zstd from KIP-110:
https://kafka.apache.org/documentation/#recordbatch. This reader is independent of the code that writes
batches in this package, so that a mistake there shows here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import cramjam

from kprod._core.compression import decompress as decompress_with_library
from kprod._core.crc32c import crc32c

HEADER_SIZE: Final = 61
"""Bytes before the records."""

LOG_OVERHEAD: Final = 12
"""Bytes before the part that the length field counts."""

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
"""Names of the codecs, by their number in the attributes."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_XERIAL_MAGIC = b"\x82SNAPPY\0"
_LARGEST = 1 << 30  # bytes of lz4 or zstd data, decompressed
_CODEC_MASK = 0x07
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL = 0x10
_CONTROL = 0x20

RecordHeaders = Sequence[tuple[str, "bytes | None"]]


class InvalidBatch(Exception):
    """A batch, or a record in it, breaks the format; `index` is that of the record, -1 for the batch."""

    def __init__(self, message: str, index: int = -1) -> None:
        super().__init__(message)
        self.index = index


class BatchHeader(NamedTuple):
    """The fixed part of a record batch, field by field."""

    base_offset: int
    batch_length: int
    partition_leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def codec(self) -> int:
        """Number of the compression codec (index in :data:`CODECS`; higher ones are unknown)."""
        return self.attributes & _CODEC_MASK

    @property
    def has_log_append_time(self) -> bool:
        """Whether the broker set the time stamps."""
        return bool(self.attributes & _LOG_APPEND_TIME)

    @property
    def is_transactional(self) -> bool:
        """Whether the batch is part of a transaction."""
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        """Whether it holds a transaction marker instead of records."""
        return bool(self.attributes & _CONTROL)

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record; sequences wrap from 2**31 - 1 to 0. -1 without a producer id."""
        if self.base_sequence < 0:
            return -1
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return LOG_OVERHEAD + self.batch_length


class Record(NamedTuple):
    """One record as it stands in its batch: the time stamp is still relative to the batch."""

    timestamp_delta: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def read_header(batch: bytes) -> BatchHeader:
    """Decode the header of a batch, and check that the batch is whole.

    Raises:
        InvalidBatch: it is shorter than its header or than its length field says.
    """
    if len(batch) < HEADER_SIZE:
        raise InvalidBatch(f"a record batch has at least {HEADER_SIZE} bytes, this one has {len(batch)}")
    header = BatchHeader(*_HEADER.unpack_from(batch))
    if header.batch_length < HEADER_SIZE - LOG_OVERHEAD:
        raise InvalidBatch(f"batch length {header.batch_length} is less than a header")
    if header.size > len(batch):
        raise InvalidBatch(f"the batch says it has {header.size} bytes, but {len(batch)} are there")
    return header


def checksum(batch: bytes) -> int:
    """The CRC-32C that the batch should have: over everything from the attributes on."""
    return crc32c(memoryview(batch)[21:])


def with_offset(batch: bytes, base_offset: int, leader_epoch: int) -> bytes:
    """The batch as it is stored; neither the offset nor the leader epoch is covered by the checksum."""
    return b"".join(
        (
            base_offset.to_bytes(8, "big"),
            memoryview(batch)[8:12],
            leader_epoch.to_bytes(4, "big", signed=True),
            memoryview(batch)[16:],
        )
    )


def with_log_append_time(batch: bytes, timestamp: int) -> bytes:
    """The batch with the broker's time (ms since 1970), as for ``message.timestamp.type=LogAppendTime``."""
    out = bytearray(batch)
    attributes = int.from_bytes(out[21:23], "big") | _LOG_APPEND_TIME
    out[21:23] = attributes.to_bytes(2, "big")
    out[35:43] = timestamp.to_bytes(8, "big")
    out[17:21] = crc32c(memoryview(out)[21:]).to_bytes(4, "big")
    return bytes(out)


def control_batch(
    base_offset: int, leader_epoch: int, timestamp: int, producer_id: int, producer_epoch: int, commit: bool
) -> bytes:
    """A transaction marker, as a transaction coordinator has it written (KIP-98).

    Args:
        base_offset: offset of the marker.
        leader_epoch: epoch of the partition's leader.
        timestamp: ms since 1970.
        producer_id: of the transaction.
        producer_epoch: of the transaction.
        commit: ``False`` for an abort marker.
    """
    key = struct.pack(">hh", 0, 1 if commit else 0)
    value = struct.pack(">hi", 0, 0)
    # length, attributes, two deltas, key, value, no headers; all varints of this record take one byte
    body = b"\0\0\0" + bytes([len(key) * 2]) + key + bytes([len(value) * 2]) + value + b"\0"
    record = bytes([len(body) * 2]) + body
    tail = (
        struct.pack(
            ">hiqqqhii",
            _TRANSACTIONAL | _CONTROL,
            0,
            timestamp,
            timestamp,
            producer_id,
            producer_epoch,
            -1,
            1,
        )
        + record
    )
    head = struct.pack(">qiibI", base_offset, len(tail) + 9, leader_epoch, 2, crc32c(tail))
    return head + tail


def read_records(batch: bytes, header: BatchHeader | None = None) -> list[Record]:
    """Decompress and decode all records of a batch, checking everything that can be checked.

    Raises:
        InvalidBatch: the records cannot be decompressed, do not fill the batch exactly, have offset deltas
            other
            than 0, 1, 2, ..., or lengths that do not fit.
    """
    if header is None:
        header = read_header(batch)
    payload = decompress(header.codec, batch[HEADER_SIZE : header.size])
    return _decode_records(payload, header.record_count)


def decompress(codec: int, payload: bytes) -> bytes:
    """Decompress the records of a batch.

    Raises:
        InvalidBatch: the codec is unknown, or the data is not what Kafka's Java reader takes for it.
    """
    try:
        if codec == 0:
            return payload
        if codec == 1:
            return zlib.decompress(payload, 31)
        if codec == 2:
            return _decompress_snappy(payload)
        if codec == 3:
            _check_lz4_frame(payload)
        if codec in (3, 4):
            return decompress_with_library(codec, payload, _LARGEST)
    except InvalidBatch:
        raise
    except (zlib.error, ValueError, cramjam.DecompressionError) as exc:
        raise InvalidBatch(f"{CODECS[codec]} data cannot be decompressed: {exc}") from None
    raise InvalidBatch(f"unknown compression codec {codec}")


def _decompress_snappy(payload: bytes) -> bytes:
    """Both forms that Java reads: xerial's blocks, and one raw block."""
    if not payload.startswith(_XERIAL_MAGIC):
        return bytes(cramjam.snappy.decompress_raw(payload))
    if len(payload) < 16:
        raise InvalidBatch("snappy data ends inside the xerial header")
    blocks = []
    pos = 16
    while pos < len(payload):
        size = int.from_bytes(payload[pos : pos + 4], "big")
        pos += 4
        block = payload[pos : pos + size]
        if not size or len(block) != size:
            raise InvalidBatch(f"snappy block of {size} bytes, {len(block)} are there")
        blocks.append(bytes(cramjam.snappy.decompress_raw(block)))
        pos += size
    return b"".join(blocks)


def _check_lz4_frame(payload: bytes) -> None:
    # Java's KafkaLZ4BlockInputStream reads independent blocks only and fails on anything else.
    if len(payload) < 7 or payload[:4] != b"\x04\x22\x4d\x18":
        raise InvalidBatch("lz4 data does not begin with an LZ4 frame")
    flags = payload[4]
    if flags >> 6 != 1:
        raise InvalidBatch(f"lz4 frame version {flags >> 6}, Kafka reads version 1")
    if not flags & 0x20:
        raise InvalidBatch("lz4 frame with dependent blocks, Kafka reads independent ones only")


def _varint(data: bytes, pos: int, index: int) -> tuple[int, int]:
    """Decode a zigzag varint of at most 10 bytes; returns the value and the position after it."""
    number = data[pos]
    pos += 1
    if number > 0x7F:
        number, pos = _long_varint(data, pos, number, index)
    return _signed(number), pos


def _decode_records(data: bytes, count: int) -> list[Record]:
    # This runs for every record that a test produces, so varints of one and two bytes, nearly all of them,
    # are decoded in line. They are zigzag: an odd one is negative.
    records: list[Record] = []
    append = records.append
    new = tuple.__new__
    total = len(data)
    pos = index = 0
    try:
        for index in range(count):
            number = data[pos]
            pos += 1
            if number > 0x7F:
                byte = data[pos]
                if byte > 0x7F:
                    number, pos = _long_varint(data, pos, number, index)
                else:
                    number += (byte << 7) - 0x80
                    pos += 1
            end = pos + (number >> 1)
            if number & 1 or end > total:
                raise InvalidBatch(f"a record of {_signed(number)} bytes, {total - pos} are left", index)
            pos += 1  # attributes: unused
            number = data[pos]
            pos += 1
            if number > 0x7F:
                byte = data[pos]
                if byte > 0x7F:
                    number, pos = _long_varint(data, pos, number, index)
                else:
                    number += (byte << 7) - 0x80
                    pos += 1
            timestamp_delta = (number >> 1) ^ -(number & 1)
            number = data[pos]
            pos += 1
            if number > 0x7F:
                byte = data[pos]
                if byte > 0x7F:
                    number, pos = _long_varint(data, pos, number, index)
                else:
                    number += (byte << 7) - 0x80
                    pos += 1
            if number != index << 1:
                raise InvalidBatch(f"offset delta {_signed(number)} in the record at index {index}", index)
            number = data[pos]
            if number == 1:
                key = None
                pos += 1
            elif number > 0x7F or number & 1:
                key, pos = _nullable(data, pos, end, index, "key")
            else:
                start = pos + 1
                pos = start + (number >> 1)
                key = data[start:pos]
            number = data[pos]
            pos += 1
            if number > 0x7F:
                byte = data[pos]
                if byte > 0x7F:
                    number, pos = _long_varint(data, pos, number, index)
                else:
                    number += (byte << 7) - 0x80
                    pos += 1
            if number & 1:
                if number != 1:
                    raise InvalidBatch(f"value of {_signed(number)} bytes", index)
                value = None
            else:
                start = pos
                pos += number >> 1
                value = data[start:pos]
            headers: list[tuple[str, bytes | None]] = []
            if data[pos]:
                pos = _decode_headers(data, pos, end, index, headers)
            else:
                pos += 1
            # Also finds a key or value that reached beyond its record.
            if pos != end:
                raise InvalidBatch(f"the record's length differs from its content by {pos - end}", index)
            append(new(Record, (timestamp_delta, key, value, headers)))
    except IndexError:
        raise InvalidBatch(f"the records end inside the record at index {index}", index) from None
    if pos != total:
        raise InvalidBatch(f"{total - pos} bytes after the last of {count} records")
    return records


def _signed(number: int) -> int:
    """Undo the zigzag encoding."""
    return (number >> 1) ^ -(number & 1)


def _long_varint(data: bytes, pos: int, first: int, index: int) -> tuple[int, int]:
    """Read on from the second byte of a varint of three bytes or more; the result is still zigzag."""
    number = first & 0x7F
    for shift in range(7, 70, 7):
        byte = data[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, pos
    raise InvalidBatch("varint of more than 10 bytes", index)


def _decode_headers(
    data: bytes, pos: int, end: int, index: int, headers: list[tuple[str, bytes | None]]
) -> int:
    count, pos = _varint(data, pos, index)
    if not 0 <= count <= end - pos:
        raise InvalidBatch(f"{count} headers", index)
    for _ in range(count):
        name, pos = _nullable(data, pos, end, index, "header key")
        if name is None:
            raise InvalidBatch("null header key", index)
        value, pos = _nullable(data, pos, end, index, "header value")
        try:
            headers.append((name.decode(), value))
        except UnicodeDecodeError:
            raise InvalidBatch(f"header key {name!r} is not UTF-8", index) from None
    return pos


def _nullable(data: bytes, pos: int, end: int, index: int, what: str) -> tuple[bytes | None, int]:
    size, pos = _varint(data, pos, index)
    if size < 0:
        if size == -1:
            return None, pos
        raise InvalidBatch(f"{what} of {size} bytes", index)
    after = pos + size
    if after > end:
        raise InvalidBatch(f"{what} of {size} bytes, the record has {end - pos} left", index)
    return data[pos:after], after
