"""Leaf modules of the core, and the reference, against what other packages compute."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import aiokafka.codec
import confluent_kafka.cimpl
import crc32c as crc32c_package
import kafka.codec
import pytest

import tests.reference.compression_zstd  # noqa: F401 (makes compression.zstd available)
from kprod._core.compression import (
    Codec,
    check_level,
    choose_implementation,
    compress,
    decompress,
    get_codec,
)
from kprod._core.crc32c import crc32c, implementations
from kprod._core.murmur2 import partition_for_key
from tests.reference.crc32c import crc32c as reference_crc32c

RNG = random.Random(30)
SAMPLES = {
    "one byte": b"x",
    "text": b"".join(b'{"user": %d, "event": "view"}' % RNG.randrange(10**6) for _ in range(8000)),
    "incompressible": RNG.randbytes(150_000),
    "zeros": bytes(500_000),
}

READERS: dict[str, list[Callable[[bytes], bytes]]] = {
    "gzip": [kafka.codec.gzip_decode, aiokafka.codec.gzip_decode],
    "snappy": [kafka.codec.snappy_decode, aiokafka.codec.snappy_decode],
    "lz4": [kafka.codec.lz4_decode, aiokafka.codec.lz4_decode],
    "zstd": [kafka.codec.zstd_decode, aiokafka.codec.zstd_decode],
}
WRITERS: dict[str, list[Callable[[bytes], bytes]]] = {
    "gzip": [kafka.codec.gzip_encode, aiokafka.codec.gzip_encode],
    "snappy": [kafka.codec.snappy_encode, aiokafka.codec.snappy_encode],
    "lz4": [kafka.codec.lz4_encode, aiokafka.codec.lz4_encode],
    "zstd": [kafka.codec.zstd_encode, aiokafka.codec.zstd_encode],
}

# Every library of every codec, whatever a platform has wheels for: here all of them must be there.
WAYS = [
    ("gzip", "zlib"),
    ("snappy", "cramjam"),
    ("lz4", "lz4"),
    ("lz4", "cramjam"),
    ("zstd", "zstandard"),
    ("zstd", "compression.zstd"),
    ("zstd", "cramjam"),
]
every_sample = pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES.keys())


@pytest.fixture(params=WAYS, ids="-".join)
def codec(request: pytest.FixtureRequest) -> Iterator[Codec]:
    name, library = request.param
    choose_implementation(name, library)
    yield get_codec(name)
    choose_implementation(name, None)


@pytest.mark.parametrize("partitions", [1, 2, 3, 6, 12, 97, 1000, 2**31 - 1])
def test_same_placement_as_confluent_kafka(partitions: int) -> None:
    for length in [*range(70), *(RNG.randrange(200) for _ in range(5000))]:
        key = RNG.randbytes(length)
        assert partition_for_key(key, partitions) == confluent_kafka.cimpl.murmur2(key, partitions)


@pytest.mark.parametrize("tier", implementations())
def test_same_crc_as_the_package(tier: str) -> None:
    data = RNG.randbytes(400_000)
    for _ in range(2000):
        start = RNG.randrange(64)
        end = start + RNG.randrange(RNG.choice([300, 20_000, 399_000]))
        value = RNG.randrange(2**32)
        expected = crc32c_package.crc32c(data[start:end], value)
        assert crc32c(memoryview(data)[start:end], value, implementation=tier) == expected


def test_reference_has_the_same_crc_as_the_package() -> None:
    for length in range(600):
        data, value = RNG.randbytes(length), RNG.randrange(2**32)
        assert reference_crc32c(data, value) == crc32c_package.crc32c(data, value)


@every_sample
def test_other_clients_read_ours(codec: Codec, data: bytes) -> None:
    for level in {check_level(codec.id, level) for level in (None, codec.min_level, codec.max_level)}:
        for read in READERS[codec.name]:
            assert bytes(read(compress(codec.id, level, data))) == data


@every_sample
def test_we_read_other_clients(codec: Codec, data: bytes) -> None:
    for write in WRITERS[codec.name]:
        assert decompress(codec.id, write(data), len(data)) == data
