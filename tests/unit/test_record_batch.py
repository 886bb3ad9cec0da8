"""The record-batch encoder, field by field."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from kprod._core.record_batch import RecordBatchBuilder
from tests.reference.crc32c import crc32c
from tests.reference.record_batch import ReferenceRecord, decode_batches, encode_batch

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def build(*records: ReferenceRecord, **options: Any) -> bytes:
    builder = RecordBatchBuilder(**options)
    for record in records:
        builder.append(record.key, record.value, record.headers, record.timestamp)
    return builder.build()


def test_one_record_byte_for_byte() -> None:
    record = ReferenceRecord(b"value", b"key", [("h", b"1"), ("n", None)], 1_700_000_000_000)
    assert build(record) == encode_batch([record])


def test_header_fields_are_where_kip_98_puts_them() -> None:
    data = build(
        *(ReferenceRecord(b"v", timestamp=stamp) for stamp in (1000, 3000, 500)),
        producer_id=77, producer_epoch=5, base_sequence=9, transactional=True,
    )  # fmt: skip
    assert struct.unpack_from(">qiib", data) == (0, len(data) - 12, -1, 2)
    assert struct.unpack_from(">I", data, 17) == (crc32c(data[21:]),)
    assert struct.unpack_from(">hiqqqhii", data, 21) == (0x10, 2, 1000, 3000, 77, 5, 9, 3)


def test_a_batch_that_is_not_idempotent_has_minus_one_in_the_producers_fields() -> None:
    [batch] = decode_batches(build(ReferenceRecord(b"a")))
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (-1, -1, -1)
    assert not batch.is_transactional


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_marked_and_readable(codec: str) -> None:
    records = [ReferenceRecord(b"the same value", b"%d" % i, [("h", b"1")], 10 + i, i) for i in range(500)]
    data = build(*records, codec=CODECS[codec])
    [batch] = decode_batches(data)
    assert batch.codec == codec
    assert batch.records == records
    assert (len(data) < len(build(*records)) / 2) is (codec != "none")


@pytest.mark.parametrize("codec", CODECS)
def test_what_does_not_get_smaller_stays_uncompressed(codec: str) -> None:
    [batch] = decode_batches(build(ReferenceRecord(b"x"), codec=CODECS[codec]))
    assert batch.codec == "none"


def test_null_and_empty_are_not_the_same() -> None:
    records = [
        ReferenceRecord(None, None, offset=0),
        ReferenceRecord(b"", None, offset=1),
        ReferenceRecord(None, b"", offset=2),
        ReferenceRecord(b"", b"", [("", b""), ("", None)], offset=3),
    ]
    [batch] = decode_batches(build(*records))
    assert batch.records == records


@pytest.mark.parametrize("stamps", [[0, 2**63 - 1], [2**63 - 1, 0], [5, 4, 3], [0], [2**62, -(2**61)]])
def test_timestamps_before_and_long_after_the_first(stamps: list[int]) -> None:
    [batch] = decode_batches(build(*(ReferenceRecord(b"v", timestamp=stamp) for stamp in stamps)))
    assert [record.timestamp for record in batch.records] == stamps
    assert (batch.base_timestamp, batch.max_timestamp) == (stamps[0], max(stamps))


@pytest.mark.parametrize("size", [0, 1, 62, 63, 64, 8190, 8191, 8192, 1_048_575, 1_048_576])
def test_sizes_around_the_steps_of_varints(size: int) -> None:
    record = ReferenceRecord(bytes(size), bytes(size), [("h" * size, bytes(size))])
    [batch] = decode_batches(build(record))
    assert batch.records == [record]


def test_append_returns_the_records_size() -> None:
    builder = RecordBatchBuilder()
    sizes = [builder.append(b"k" * i, b"v", [("h", b"")] * i, 1000 - i) for i in range(200)]
    assert len(builder.build()) == 61 + sum(sizes)


def test_build_can_be_called_again_and_goes_on() -> None:
    builder = RecordBatchBuilder()
    builder.append(b"1", None)
    assert builder.build() == builder.build()
    builder.append(b"2", None)
    [batch] = decode_batches(builder.build())
    assert [record.key for record in batch.records] == [b"1", b"2"]


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        RecordBatchBuilder().build()


def test_a_refused_record_leaves_the_batch_as_it_was() -> None:
    builder = RecordBatchBuilder()
    builder.append(b"1", b"1")
    before = builder.build()
    with pytest.raises(TypeError):
        builder.append(b"2", b"2", [("h", "text")])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        builder.append("2", b"2")  # type: ignore[arg-type]
    assert builder.build() == before
