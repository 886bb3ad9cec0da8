"""The record-batch encoder against the reference implementation, for random records."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kprod._core.record_batch import RecordBatchBuilder
from tests.reference.record_batch import CODECS, ReferenceRecord, decode_batches, encode_batch

data = (
    st.none()
    | st.binary(max_size=300)
    | st.builds(lambda b, n: b * n, st.binary(max_size=20), st.integers(0, 200))
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
stamps = st.integers(0, 2**63 - 1) | st.integers(1_700_000_000_000, 1_700_000_001_000)
records = st.lists(
    st.builds(ReferenceRecord, data, data, st.lists(st.tuples(text, data), max_size=5), stamps),
    min_size=1,
    max_size=40,
)


def build(given_records: list[ReferenceRecord], codec: str = "none", **options: Any) -> bytes:
    builder = RecordBatchBuilder(codec=CODECS.index(codec), **options)
    for record in given_records:
        builder.append(record.key, record.value, record.headers, record.timestamp)
    return builder.build()


@given(
    records, st.integers(-1, 2**63 - 1), st.integers(-1, 2**15 - 1), st.integers(-1, 2**31 - 1), st.booleans()
)
def test_uncompressed_batches_are_equal_byte_for_byte(
    given_records: list[ReferenceRecord], producer_id: int, epoch: int, sequence: int, transactional: bool
) -> None:
    made = build(
        given_records, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence,
        transactional=transactional,
    )  # fmt: skip
    assert made == encode_batch(
        given_records, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence,
        transactional=transactional,
    )  # fmt: skip


@settings(max_examples=60)
@given(records, st.sampled_from(CODECS))
def test_every_codec_gives_back_what_went_in(given_records: list[ReferenceRecord], codec: str) -> None:
    [batch] = decode_batches(build(given_records, codec))
    assert batch.codec in (codec, "none")
    for index, record in enumerate(given_records):
        record.offset = index
    assert batch.records == given_records
