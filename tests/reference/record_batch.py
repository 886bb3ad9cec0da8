"""Record batch v2 (KIP-98), encoder and decoder from the format's description.

    >>> data = encode_batch([ReferenceRecord(value=b"hello", timestamp=1000)], codec="lz4")
    >>> [batch] = decode_batches(data)
    >>> batch.records[0].value
    b'hello'

The decoder is strict: whatever a broker or a consumer could stumble over is a :class:`BadBatch`.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cramjam

from tests.reference.crc32c import crc32c

Header = tuple[str, bytes | None]

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
HEADER_SIZE = 61
CRC_STARTS_AT = 21
LENGTH_COUNTS_FROM = 12

_CODEC_BITS = 0x07
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL = 0x10
_CONTROL = 0x20
_DELETE_HORIZON = 0x40

_FIXED = struct.Struct(">qiibIhiqqqhii")
_XERIAL_HEADER = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK = 32 * 1024


class BadBatch(Exception):
    """The bytes are not a correct record batch; the text says where and why."""


@dataclass
class ReferenceRecord:
    """One record; ``timestamp`` in ms since the epoch, ``offset`` as a consumer would see it."""

    value: bytes | None = None
    key: bytes | None = None
    headers: list[Header] = field(default_factory=list)
    timestamp: int = 0
    offset: int = 0


@dataclass
class ReferenceBatch:
    """One record batch with every header field; ``size`` is its length in bytes, header included."""

    base_offset: int
    partition_leader_epoch: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: list[ReferenceRecord]
    size: int

    @property
    def codec(self) -> str:
        return CODECS[self.attributes & _CODEC_BITS]

    @property
    def is_log_append_time(self) -> bool:
        return bool(self.attributes & _LOG_APPEND_TIME)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & _CONTROL)


# ---- variable-length integers ------------------------------------------------------------------------------


def encode_varint(value: int) -> bytes:
    """Zigzag, then groups of seven bits, the lowest first."""
    rest = value * 2 if value >= 0 else -value * 2 - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out)


def decode_varint(data: bytes, position: int, bits: int = 64) -> tuple[int, int]:
    """The value at ``position``, and the position after it."""
    raw = 0
    for i in range((bits + 6) // 7):
        if position >= len(data):
            raise BadBatch(f"varint cut off at {position}")
        byte = data[position]
        position += 1
        raw += (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if raw >= 1 << bits:
                raise BadBatch(f"varint before {position} is wider than {bits} bits")
            return (raw // 2 if raw % 2 == 0 else -(raw + 1) // 2), position
    raise BadBatch(f"varint before {position} is longer than {bits} bits need")


# ---- compression -------------------------------------------------------------------------------------------


def compress(codec: str, data: bytes) -> bytes:
    """The records section as the Java producer would compress it."""
    if codec == "gzip":
        return gzip.compress(data, mtime=0)
    if codec == "snappy":
        out = bytearray(_XERIAL_HEADER)
        for start in range(0, len(data), _XERIAL_BLOCK):
            block = bytes(cramjam.snappy.compress_raw(data[start : start + _XERIAL_BLOCK]))
            out += struct.pack(">i", len(block)) + block
        return bytes(out)
    if codec == "lz4":
        stream = cramjam.lz4.Compressor(level=1, content_checksum=False, block_linked=False)
        stream.compress(data)
        return bytes(stream.finish())
    if codec == "zstd":
        return bytes(cramjam.zstd.compress(data, level=3))
    if codec == "none":
        return data
    raise ValueError(f"codec is {codec!r}: must be one of {CODECS}")


def decompress(codec: str, data: bytes) -> bytes:
    """What a consumer finds in a compressed records section; refuses what Java's readers refuse."""
    if codec == "gzip":
        return gzip.decompress(data)
    if codec == "snappy":
        return _decompress_snappy(data)
    if codec == "lz4":
        if not data[4] & 0x20:
            raise BadBatch("lz4: dependent blocks, which Java's reader refuses")
        return bytes(cramjam.lz4.decompress(data))
    if codec == "zstd":
        return bytes(cramjam.zstd.decompress(data))
    return data


def _decompress_snappy(data: bytes) -> bytes:
    if not data.startswith(_XERIAL_HEADER[:8]):
        return bytes(cramjam.snappy.decompress_raw(data))
    position = len(_XERIAL_HEADER)
    out = bytearray()
    while position < len(data):
        (length,) = struct.unpack_from(">i", data, position)
        position += 4
        if length <= 0 or position + length > len(data):
            raise BadBatch(f"snappy: block of {length} bytes at {position} of {len(data)}")
        out += bytes(cramjam.snappy.decompress_raw(data[position : position + length]))
        position += length
    return bytes(out)


# ---- encode ------------------------------------------------------------------------------------------------


def _encode_bytes(data: bytes | None) -> bytes:
    return encode_varint(-1) if data is None else encode_varint(len(data)) + data


def encode_record(record: ReferenceRecord, index: int, base_timestamp: int) -> bytes:
    """One record as it lies in the (uncompressed) records section."""
    body = bytes([0])  # attributes, unused
    body += encode_varint(record.timestamp - base_timestamp)
    body += encode_varint(index)
    body += _encode_bytes(record.key)
    body += _encode_bytes(record.value)
    body += encode_varint(len(record.headers))
    for key, value in record.headers:
        body += _encode_bytes(key.encode("utf-8")) + _encode_bytes(value)
    return encode_varint(len(body)) + body


def encode_batch(
    records: Sequence[ReferenceRecord],
    *,
    codec: str = "none",
    base_offset: int = 0,
    partition_leader_epoch: int = -1,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
) -> bytes:
    """One batch of at least one record, as a producer sends it. Records' own offsets are not used."""
    if not records:
        raise ValueError("a batch has at least one record")
    base_timestamp = records[0].timestamp
    section = b"".join(encode_record(r, i, base_timestamp) for i, r in enumerate(records))
    section = compress(codec, section)
    attributes = CODECS.index(codec) | (_TRANSACTIONAL if transactional else 0)
    fields = (
        attributes,
        len(records) - 1,
        base_timestamp,
        max(r.timestamp for r in records),
        producer_id,
        producer_epoch,
        base_sequence,
        len(records),
    )
    covered = struct.pack(">hiqqqhii", *fields) + section
    size = CRC_STARTS_AT + len(covered)
    return (
        struct.pack(">qiib", base_offset, size - LENGTH_COUNTS_FROM, partition_leader_epoch, 2)
        + struct.pack(">I", crc32c(covered))
        + covered
    )


# ---- decode ------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, n: int) -> bytes:
        if n < 0 or self.position + n > len(self.data):
            raise BadBatch(f"{n} bytes wanted at {self.position} of {len(self.data)}")
        self.position += n
        return self.data[self.position - n : self.position]

    def varint(self, bits: int = 32) -> int:
        value, self.position = decode_varint(self.data, self.position, bits)
        return value

    def nullable_bytes(self) -> bytes | None:
        length = self.varint()
        if length < -1:
            raise BadBatch(f"length {length} at {self.position}")
        return None if length == -1 else self.take(length)


def _decode_record(reader: _Reader, index: int, base_offset: int, base_timestamp: int) -> ReferenceRecord:
    length = reader.varint()
    body = _Reader(reader.take(length))
    attributes = body.take(1)[0]
    if attributes != 0:
        raise BadBatch(f"record {index} has attributes {attributes}")
    timestamp = base_timestamp + body.varint(64)
    offset_delta = body.varint()
    if offset_delta != index:
        raise BadBatch(f"record {index} has offset delta {offset_delta}")
    key = body.nullable_bytes()
    value = body.nullable_bytes()
    headers: list[Header] = []
    for _ in range(_header_count(body)):
        name = body.nullable_bytes()
        if name is None:
            raise BadBatch(f"record {index} has a header without a name")
        headers.append((name.decode("utf-8"), body.nullable_bytes()))
    if body.position != len(body.data):
        raise BadBatch(f"record {index} says {length} bytes and has {body.position}")
    return ReferenceRecord(value, key, headers, timestamp, base_offset + offset_delta)


def _header_count(body: _Reader) -> int:
    count = body.varint()
    if not 0 <= count <= len(body.data):
        raise BadBatch(f"header count {count}")
    return count


def decode_batch(data: bytes) -> tuple[ReferenceBatch, int]:
    """The batch at the start of ``data``, and its size in bytes."""
    if len(data) < HEADER_SIZE:
        raise BadBatch(f"{len(data)} bytes, a batch header has {HEADER_SIZE}")
    base_offset, length, leader_epoch, magic, crc, *rest = _FIXED.unpack_from(data)
    attributes, last_delta, base_timestamp, max_timestamp, pid, epoch, sequence, count = rest
    size = length + LENGTH_COUNTS_FROM
    if magic != 2:
        raise BadBatch(f"magic {magic}")
    if not HEADER_SIZE <= size <= len(data):
        raise BadBatch(f"batch of {size} bytes in {len(data)} bytes")
    found = crc32c(data[CRC_STARTS_AT:size])
    if found != crc:
        raise BadBatch(f"CRC is {found:08x}, the header says {crc:08x}")
    if attributes & ~(_CODEC_BITS | _LOG_APPEND_TIME | _TRANSACTIONAL | _CONTROL | _DELETE_HORIZON):
        raise BadBatch(f"attributes {attributes:#x}")
    if attributes & _CODEC_BITS >= len(CODECS):
        raise BadBatch(f"codec {attributes & _CODEC_BITS}")
    section = _Reader(decompress(CODECS[attributes & _CODEC_BITS], data[HEADER_SIZE:size]))
    records = [_decode_record(section, i, base_offset, base_timestamp) for i in range(count)]
    if section.position != len(section.data):
        raise BadBatch(f"{len(section.data) - section.position} bytes after the last record")
    if records and not attributes & _LOG_APPEND_TIME and max(r.timestamp for r in records) != max_timestamp:
        raise BadBatch(f"max timestamp {max_timestamp}")
    if count != last_delta + 1:
        raise BadBatch(f"{count} records, last offset delta {last_delta}")
    batch = ReferenceBatch(
        base_offset=base_offset,
        partition_leader_epoch=leader_epoch,
        crc=crc,
        attributes=attributes,
        last_offset_delta=last_delta,
        base_timestamp=base_timestamp,
        max_timestamp=max_timestamp,
        producer_id=pid,
        producer_epoch=epoch,
        base_sequence=sequence,
        records=records,
        size=size,
    )
    return batch, size


def decode_batches(data: bytes | bytearray | memoryview) -> list[ReferenceBatch]:
    """All batches in ``data``, which they must fill exactly.

    Raises:
        BadBatch: something in there is wrong.
    """
    rest = bytes(data)
    batches = []
    while rest:
        batch, size = decode_batch(rest)
        batches.append(batch)
        rest = rest[size:]
    return batches


def all_records(batches: Iterable[ReferenceBatch]) -> list[ReferenceRecord]:
    """The records of all batches, in order."""
    return [record for batch in batches for record in batch.records]
