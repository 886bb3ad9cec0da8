"""Properties of the core's leaf modules over whatever hypothesis thinks of."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from kprod._core.compression import CODECS, Codec, check_level, compress, decompress
from kprod._core.crc32c import crc32c, implementations
from kprod._core.murmur2 import murmur2, partition_for_key
from kprod._core.varint import (
    decode_uvarint,
    decode_varint,
    decode_varlong,
    encode_uvarint,
    encode_varint,
    size_of_uvarint,
    size_of_varint,
)
from tests.reference import crc32c as reference_crc32c
from tests.reference import murmur2 as reference
from tests.reference.record_batch import BadBatch
from tests.reference.record_batch import compress as reference_compress
from tests.reference.record_batch import decode_varint as reference_decode_varint
from tests.reference.record_batch import decompress as reference_decompress

codecs = st.sampled_from(CODECS)
tiers = st.sampled_from(implementations())
# Repetition, so that compressors find something.
payloads = st.one_of(
    st.binary(max_size=3000), st.builds(lambda b, n: b * n, st.binary(max_size=50), st.integers(0, 3000))
)


@given(st.binary(max_size=300), st.integers(1, 2**31 - 1))
def test_murmur2_is_the_reference(key: bytes, partitions: int) -> None:
    assert murmur2(key) == reference.murmur2(key)
    assert partition_for_key(key, partitions) == reference.partition_for_key(key, partitions)


@given(st.binary(max_size=3000), st.integers(0, 2**32 - 1), tiers, st.integers(0, 15))
def test_crc32c_is_the_reference(data: bytes, value: int, tier: str, start: int) -> None:
    assert crc32c(memoryview(data)[start:], value, implementation=tier) == reference_crc32c.crc32c(
        data[start:], value
    )


@given(st.lists(st.binary(max_size=500), max_size=5), tiers)
def test_crc32c_of_pieces(pieces: list[bytes], tier: str) -> None:
    crc = 0
    for piece in pieces:
        crc = crc32c(piece, crc, implementation=tier)
    assert crc == crc32c(b"".join(pieces))


@given(st.integers(-(2**63), 2**63 - 1))
def test_varlong_round_trip(value: int) -> None:
    data = encode_varint(value)
    assert len(data) == size_of_varint(value)
    assert decode_varlong(data) == (value, len(data)) == reference_decode_varint(data, 0)


@given(st.integers(0, 2**32 - 1))
def test_uvarint_round_trip(value: int) -> None:
    data = encode_uvarint(value)
    assert len(data) == size_of_uvarint(value)
    assert decode_uvarint(data) == (value, len(data))


@given(st.binary(max_size=12), st.integers(0, 12))
def test_any_bytes_decode_as_the_reference_says(data: bytes, offset: int) -> None:
    for decode, bits in ((decode_varint, 32), (decode_varlong, 64)):
        try:
            expected = reference_decode_varint(data, offset, bits)
        except BadBatch:
            expected = None
        try:
            found = decode(data, offset)
        except ValueError:
            found = None
        assert found == expected


@given(codecs, payloads)
def test_compression_both_ways_with_the_reference(codec: Codec, data: bytes) -> None:
    ours = compress(codec.id, check_level(codec.id, None), data)
    assert decompress(codec.id, ours, len(data)) == data
    if data:
        assert reference_decompress(codec.name, ours) == data
        assert decompress(codec.id, reference_compress(codec.name, data), len(data)) == data


@given(codecs, st.binary(max_size=200), st.integers(0, 1000))
def test_any_bytes_decompress_or_raise_value_error(codec: Codec, data: bytes, bound: int) -> None:
    with contextlib.suppress(ValueError):
        assert len(decompress(codec.id, data, bound)) <= bound
