"""The core's record batch encoder against the reference and the Java client."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprod._core.compression import CODECS, Codec, check_level
from kprod._core.record_batch import RecordBatchBuilder
from tests.reference.java_client import JavaClient
from tests.reference.record_batch import ReferenceRecord, decode_batches, encode_batch, encode_record
from tests.reference.test_record_batch import make_records

nullable = (
    st.none()
    | st.binary(max_size=40)
    | st.builds(lambda b, n: b * n, st.binary(max_size=9), st.integers(0, 99))
)
headers = st.lists(st.tuples(st.text(max_size=12), nullable), max_size=4)
timestamps = st.integers(0, 2**48)
records = st.lists(
    st.builds(ReferenceRecord, nullable, nullable, headers, timestamps), min_size=1, max_size=150
)


def build(batch: list[ReferenceRecord], **options: Any) -> bytes:
    """The batch as the core encodes it."""
    builder = RecordBatchBuilder(**options)
    for record in batch:
        builder.append(record.key, record.value, record.headers, record.timestamp)
    return bytes(builder.build())


@given(records)
def test_append_tells_the_size_of_the_record(batch: list[ReferenceRecord]) -> None:
    builder = RecordBatchBuilder()
    sizes = [builder.append(r.key, r.value, r.headers, r.timestamp) for r in batch]
    assert sizes == [len(encode_record(r, i, batch[0].timestamp)) for i, r in enumerate(batch)]


@given(records)
def test_uncompressed_batches_are_byte_for_byte_the_reference(batch: list[ReferenceRecord]) -> None:
    assert build(batch) == encode_batch(batch)


@given(
    records, st.integers(0, 2**63 - 1), st.integers(0, 2**15 - 1), st.integers(0, 2**31 - 1), st.booleans()
)
def test_header_fields(batch: list[ReferenceRecord], pid: int, epoch: int, sequence: int, txn: bool) -> None:
    data = build(batch, producer_id=pid, producer_epoch=epoch, base_sequence=sequence, transactional=txn)
    assert data == encode_batch(
        batch, producer_id=pid, producer_epoch=epoch, base_sequence=sequence, transactional=txn
    )


@given(records, st.sampled_from(CODECS))
def test_any_codec_holds_the_same_records(batch: list[ReferenceRecord], codec: Codec) -> None:
    data = build(batch, codec=codec.id, level=check_level(codec.id, None))
    [found] = decode_batches(data)
    plain = encode_batch(batch)
    [expected] = decode_batches(plain)
    assert found.records == expected.records
    assert found.codec in (codec.name, "none")
    assert len(data) <= len(plain), "a batch goes uncompressed when that is smaller"


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_compressible_batches_are_compressed(codec: Codec) -> None:
    batch = [ReferenceRecord(value=b"the same again " * 10, timestamp=1, offset=i) for i in range(500)]
    [found] = decode_batches(build(batch, codec=codec.id, level=check_level(codec.id, None)))
    assert found.codec == codec.name
    assert found.records == batch


def test_java_reads_batches_of_the_core(java_client: JavaClient) -> None:
    batch = make_records(1500, seed=40)
    buffers = [build(batch, codec=codec.id, level=check_level(codec.id, None)) for codec in CODECS]
    for codec, found in zip(CODECS, java_client.read_batches(buffers), strict=True):
        assert found == batch, codec.name


def test_java_writes_the_same_bytes(java_client: JavaClient) -> None:
    batch = make_records(1500, seed=41)
    assert java_client.write_batches(batch, ["none"])["none"] == build(batch)
