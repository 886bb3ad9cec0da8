"""Variable-length integers against the reference and kafka-python."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from kafka.record import util as kafka_python

from kprod._core.varint import (
    decode_uvarint,
    decode_varint,
    decode_varlong,
    encode_uvarint,
    encode_varint,
    size_of_uvarint,
    size_of_varint,
)
from tests.reference.record_batch import encode_varint as reference_encode

RNG = random.Random(5)
# Both sides of every power of two, where sizes change, and some in between.
SIGNED = sorted(
    {s * (2**bit + d) for bit in range(63) for d in (-1, 0, 1) for s in (1, -1)}
    | {2**63 - 1, -(2**63)}
    | {RNG.randrange(-(2**63), 2**63) for _ in range(2000)}
)
UNSIGNED = sorted({2**bit + d for bit in range(64) for d in (-1, 0, 1)} | {2**64 - 1})


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_signed_encoding() -> None:
    for value in SIGNED:
        assert encode_varint(value) == reference_encode(value), value


def test_same_bytes_as_kafka_python() -> None:
    for value in SIGNED:
        out = bytearray()
        kafka_python.encode_varint(value, out.append)
        assert encode_varint(value) == out


def test_unsigned_encoding() -> None:
    for value in UNSIGNED:
        assert encode_uvarint(value) == _uvarint(value), value


def test_sizes() -> None:
    for value in SIGNED:
        assert size_of_varint(value) == len(encode_varint(value)), value
    for value in UNSIGNED:
        assert size_of_uvarint(value) == len(encode_uvarint(value)), value


def test_decoding_gives_the_value_and_the_next_offset() -> None:
    for value in SIGNED:
        data = b"\xff" + encode_varint(value) + b"\xff"
        assert decode_varlong(data, 1) == (value, len(data) - 1)
        if -(2**31) <= value < 2**31:
            assert decode_varint(data, 1) == (value, len(data) - 1)
    for value in UNSIGNED:
        if value < 2**32:
            data = b"\xff" + encode_uvarint(value) + b"\xff"
            assert decode_uvarint(data, 1) == (value, len(data) - 1)


@pytest.mark.parametrize("decode", [decode_varint, decode_varlong, decode_uvarint])
def test_cut_off(decode: Callable[[bytes], tuple[int, int]]) -> None:
    whole = encode_varint(2**30)
    for end in range(len(whole)):
        with pytest.raises(ValueError, match="cut off or too wide"):
            decode(whole[:end])
    assert decode(whole)[1] == len(whole)


def test_too_wide() -> None:
    for value in (2**31, -(2**31) - 1, 2**62):
        with pytest.raises(ValueError, match="too wide"):
            decode_varint(encode_varint(value))
    with pytest.raises(ValueError, match="too wide"):
        decode_uvarint(encode_uvarint(2**32))
    for decode, most in ((decode_varint, 5), (decode_uvarint, 5), (decode_varlong, 10)):
        with pytest.raises(ValueError, match="too wide"):
            decode(b"\x80" * most + b"\x00")  # more groups than the width needs
    with pytest.raises(ValueError, match="too wide"):
        decode_varlong(b"\xff" * 9 + b"\x02")  # bit 64


def test_values_that_do_not_fit() -> None:
    for value in (2**63, -(2**63) - 1):
        with pytest.raises(OverflowError):
            encode_varint(value)
        with pytest.raises(OverflowError):
            size_of_varint(value)
    for value in (2**64, -1):
        with pytest.raises(OverflowError):
            encode_uvarint(value)


@pytest.mark.parametrize("offset", [-1, 3])
def test_offset_outside(offset: int) -> None:
    with pytest.raises(ValueError, match=rf"offset is {offset}: must be in 0\.\.2"):
        decode_varint(b"\x00\x00", offset)
