"""The oracle itself: the pure-Python record batches against the Java client's and kafka-python's."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from tests.reference.crc32c import crc32c
from tests.reference.java_client import JavaClient
from tests.reference.record_batch import (
    CODECS,
    HEADER_SIZE,
    BadBatch,
    ReferenceRecord,
    decode_batches,
    encode_batch,
)


def make_records(count: int, seed: int = 1) -> list[ReferenceRecord]:
    """Records of every shape: null and empty parts, headers, timestamps that go back and forth."""
    rng = random.Random(seed)

    def part(longest: int) -> bytes | None:
        kind = rng.randrange(6)
        return None if kind == 0 else b"" if kind == 1 else rng.randbytes(rng.randrange(longest)) * 3

    return [
        ReferenceRecord(
            value=part(300),
            key=part(30),
            headers=[(rng.choice(["", "trace", "größe"]), part(20)) for _ in range(rng.randrange(4))],
            timestamp=1_700_000_000_000 + rng.randrange(-(10**10), 10**10),
            offset=i,
        )
        for i in range(count)
    ]


def test_java_reads_our_batches(java_client: JavaClient) -> None:
    records = make_records(1500)
    for codec, found in zip(
        CODECS, java_client.read_batches([encode_batch(records, codec=c) for c in CODECS]), strict=True
    ):
        assert found == records, codec


def test_we_read_the_batches_of_java(java_client: JavaClient) -> None:
    records = make_records(1500, seed=2)
    written = java_client.write_batches(records, CODECS)
    assert written["none"] == encode_batch(records)
    for codec, data in written.items():
        [batch] = decode_batches(data)
        assert batch.codec == codec
        assert batch.records == records


@pytest.mark.parametrize("codec", CODECS)
def test_kafka_python_reads_our_batches(codec: str) -> None:
    records = make_records(200, seed=3)
    batch = DefaultRecordBatch(
        encode_batch(records, codec=codec, base_offset=40, producer_id=7, base_sequence=9)
    )
    assert batch.validate_crc()
    found = list(batch)
    assert [(r.key, r.value, r.headers, r.timestamp, r.offset) for r in found] == [
        (r.key, r.value, r.headers, r.timestamp, r.offset + 40) for r in records
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_we_read_the_batches_of_kafka_python(codec: str) -> None:
    records = make_records(200, seed=4)
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=CODECS.index(codec),
        is_transactional=True,
        producer_id=12,
        producer_epoch=3,
        base_sequence=5,
        batch_size=1 << 22,
    )
    for record in records:
        builder.append(record.offset, record.timestamp, record.key, record.value, record.headers)
    [batch] = decode_batches(bytes(builder.build()))
    assert batch.records == records
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (12, 3, 5)
    assert batch.is_transactional and not batch.is_control
    assert batch.codec == codec


def test_several_batches() -> None:
    records = make_records(10)
    data = encode_batch(records) + encode_batch(records, codec="zstd", base_offset=10)
    first, second = decode_batches(memoryview(data))
    assert [r.offset for r in first.records + second.records] == list(range(20))
    assert first.size + second.size == len(data)


def _with_crc(data: bytes) -> bytes:
    return data[:17] + struct.pack(">I", crc32c(data[21:])) + data[21:]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda d: d[:-1], "batch of"),
        (lambda d: d[:60], "60 bytes"),
        (lambda d: d[:16] + b"\x01" + d[17:], "magic 1"),
        (lambda d: d[:-1] + bytes([d[-1] ^ 1]), "CRC"),
        (lambda d: _with_crc(d[:21] + b"\x00\x05" + d[23:]), "codec 5"),
        (lambda d: _with_crc(d[:23] + struct.pack(">i", 5) + d[27:]), "last offset delta 5"),
        (lambda d: _with_crc(d[:35] + struct.pack(">q", 5) + d[43:]), "max timestamp 5"),
        (lambda d: _with_crc(d[:57] + struct.pack(">i", 1) + d[61:]), "after the last record"),
        (lambda d: _with_crc(d[:57] + struct.pack(">i", 3) + d[61:]), "cut off"),
        (lambda d: _with_crc(d[:61] + b"\x7f" + d[62:]), "bytes wanted"),
    ],
)
def test_damage_is_told(damage: Callable[[bytes], bytes], told: str) -> None:
    data = encode_batch([ReferenceRecord(value=b"a", timestamp=1), ReferenceRecord(value=b"b", timestamp=2)])
    assert len(data) > HEADER_SIZE
    with pytest.raises(BadBatch, match=told):
        decode_batches(damage(data))
