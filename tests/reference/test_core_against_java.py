"""Leaf modules of the core against the Java client's own classes."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

import tests.reference.compression_zstd  # noqa: F401 (makes compression.zstd available)
from kprod._core.compression import CODECS, check_level, choose_implementation, compress, decompress
from kprod._core.crc32c import crc32c
from kprod._core.murmur2 import murmur2, partition_for_key
from tests.reference.java_client import JavaClient
from tests.reference.record_batch import ReferenceRecord, decode_batches, encode_batch

# Every library of every codec, whatever a platform has wheels for: here all of them must be there.
WAYS = [
    (codec, library)
    for codec in CODECS
    for library in {
        "none": (None,),
        "gzip": ("zlib",),
        "snappy": ("cramjam",),
        "lz4": ("lz4", "cramjam"),
        "zstd": ("zstandard", "compression.zstd", "cramjam"),
    }[codec.name]
]


@pytest.fixture(autouse=True)
def best_libraries_again() -> Iterator[None]:
    yield
    for codec in CODECS:
        choose_implementation(codec.name, None)


def test_murmur2(java_client: JavaClient) -> None:
    rng = random.Random(20)
    keys = [rng.randbytes(n) for n in range(70)] + [rng.randbytes(rng.randrange(200)) for _ in range(5000)]
    for key, signed in zip(keys, java_client.murmur2(keys), strict=True):
        assert murmur2(key) == signed & 0xFFFFFFFF
        assert partition_for_key(key, 97) == (signed & 0x7FFFFFFF) % 97


# lz4: where the fast compressor ends, and cramjam writes another kind of frame.
_INNER = {"lz4": {2, 3, 9}, "zstd": {1, 9}}


def test_java_reads_what_compress_writes(java_client: JavaClient) -> None:
    rng = random.Random(21)
    records = [
        ReferenceRecord(value=rng.randbytes(rng.randrange(200)) * 2, timestamp=1000 + i, offset=i)
        for i in range(1000)
    ]
    plain = encode_batch(records)
    buffers = []
    for codec, library in WAYS:
        choose_implementation(codec.name, library)
        levels = {check_level(codec.id, None), codec.min_level or 0, codec.max_level or 0}
        buffers += [
            _recompress(plain, codec.id, level) for level in sorted(levels | _INNER.get(codec.name, set()))
        ]
    assert len(plain) > 3 * 65536, "several blocks of every codec"
    for found in java_client.read_batches(buffers):
        assert found == records


def _recompress(plain: bytes, codec: int, level: int) -> bytes:
    section = compress(codec, level, plain[61:])
    covered = struct.pack(">h", codec) + plain[23:61] + section
    return (
        plain[:8]
        + struct.pack(">i", 9 + len(covered))
        + plain[12:17]
        + struct.pack(">I", crc32c(covered))
        + covered
    )


def test_decompress_reads_what_java_writes(java_client: JavaClient) -> None:
    rng = random.Random(22)
    records = [ReferenceRecord(value=rng.randbytes(50) * 4, timestamp=1000) for _ in range(1000)]
    written = java_client.write_batches(records, [codec.name for codec in CODECS])
    plain = written["none"][61:]
    for codec, library in WAYS:
        choose_implementation(codec.name, library)
        section = written[codec.name][61:]
        assert decompress(codec.id, section, len(plain)) == plain
        assert crc32c(written[codec.name][21:]) == decode_batches(written[codec.name])[0].crc
