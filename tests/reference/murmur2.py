"""Kafka's key hash, line by line as MurmurHash2 is described."""

from __future__ import annotations

SEED = 0x9747B28C
M = 0x5BD1E995
MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The hash of ``data``, unsigned 32 bits."""
    h = SEED ^ len(data)
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = k * M & MASK
        k ^= k >> 24
        k = k * M & MASK
        h = h * M & MASK
        h ^= k
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = h * M & MASK
    h ^= h >> 13
    h = h * M & MASK
    return h ^ (h >> 15)


def partition_for_key(key: bytes, num_partitions: int) -> int:
    """Where the Java producer puts a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % num_partitions
