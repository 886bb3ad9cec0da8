"""The key hash against kafka-python and the reference."""

from __future__ import annotations

import random

import pytest
from kafka.partitioner.default import murmur2 as kafka_python_murmur2

from kprod._core.murmur2 import murmur2, partition_for_key
from tests.reference import murmur2 as reference

RNG = random.Random(1)
KEYS = [RNG.randbytes(n) for n in range(70)] + [RNG.randbytes(RNG.randrange(120)) for _ in range(5000)]


def test_same_as_kafka_python() -> None:
    for key in KEYS:
        assert murmur2(key) == kafka_python_murmur2(key)


def test_same_as_the_reference() -> None:
    for key in KEYS:
        assert murmur2(key) == reference.murmur2(key)


@pytest.mark.parametrize("partitions", [1, 2, 3, 6, 12, 97, 1000, 2**31 - 1])
def test_placement(partitions: int) -> None:
    for key in KEYS:
        assert partition_for_key(key, partitions) == reference.partition_for_key(key, partitions)


@pytest.mark.parametrize(
    ("key", "signed"),
    [  # Kafka's UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_published_vectors(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


def test_empty_key_is_hashed() -> None:
    assert murmur2(b"") == reference.murmur2(b"")
    assert partition_for_key(b"", 6) == reference.partition_for_key(b"", 6)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_at_any_alignment(kind: type) -> None:
    data = bytes(range(256))
    for start in range(9):
        for length in range(20):
            part = kind(data)[start : start + length]
            assert murmur2(part) == reference.murmur2(data[start : start + length])


@pytest.mark.parametrize("key", [None, "text", 7, [1, 2]])
def test_other_types_are_refused(key: object) -> None:
    with pytest.raises(TypeError):
        murmur2(key)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        partition_for_key(key, 6)  # type: ignore[arg-type]


def test_non_contiguous_buffer_is_refused() -> None:
    with pytest.raises(BufferError):
        murmur2(memoryview(b"abcdef")[::2])


@pytest.mark.parametrize("partitions", [0, -1, 2**31, 2**70])
def test_number_of_partitions(partitions: int) -> None:
    with pytest.raises(ValueError, match=rf"num_partitions is {partitions}: must be in 1\.\.2147483647"):
        partition_for_key(b"key", partitions)
