"""What is sent in a comparison: the same records, in the same order, for every client."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

# Records per block when there is no rate. Of each block the first record is timed, so that the clock costs
# the others nothing.
BLOCK = 256
# With a rate, records come in this many short bursts per second; each record is a block, so all are timed.
_BURSTS_PER_SECOND = 1000
# The records are made before the clock starts and used in turn; few enough to leave the memory figures alone.
_POOL_BYTES = 4 << 20
_POOL_RECORDS = 1 << 16
_FEWEST_BLOCKS = 4
_BLOCK_BYTES = 2 << 20

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class Workload:
    """One way to load a producer; all clients get the same settings.

    Attributes:
        records: how many records are measured; rounded up to whole blocks.
        warmup: how many are sent before at full speed, not measured; rounded up to whole blocks.
        size: bytes of each value.
        keys: number of distinct keys, 0 for records without a key.
        codec: compression type.
        linger_ms: how long a batch waits for more records, in ms.
        batch_size: largest batch in bytes.
        rate: records per second, 0 for as fast as the client takes them.
        busy: another Python thread of the client's process spins all the time.
        block_size: records per block when there is no rate.
        threads: how many send, each its part of the records, with one producer.
        buffer_memory: bytes that wait in kprod and in librdkafka at most, 0: their defaults.
    """

    records: int
    warmup: int
    size: int = 100
    keys: int = 0
    codec: str = "none"
    linger_ms: int = 5
    batch_size: int = 65536
    rate: int = 0
    busy: bool = False
    block_size: int = BLOCK
    threads: int = 1
    buffer_memory: int = 0

    @cached_property
    def block(self) -> int:
        """Records per block: fewer of large ones, so that a block is not more than a few requests."""
        if self.rate:
            return 1
        return max(1, min(self.block_size, _BLOCK_BYTES // self.size))

    @cached_property
    def burst(self) -> int:
        """Records that are sent without a pause when there is a rate."""
        return max(1, self.rate // _BURSTS_PER_SECOND)

    def whole_blocks(self, records: int) -> int:
        """The number of blocks that hold so many records, at least one."""
        return max(1, -(-records // self.block))

    def for_client(self, share: float, block_size: int) -> Workload:
        """The same with a share of the records, in blocks of this size."""
        return replace(
            self,
            records=max(1, int(self.records * share)),
            warmup=max(1, int(self.warmup * share)),
            block_size=block_size,
        )

    def blocks(self, first: int, count: int) -> Iterator[Any]:
        """``count`` blocks from the ``first`` one on: lists of values, or of (value, key) pairs with keys."""
        pool: Sequence[Any] = self.pairs if self.keys else self.values
        for i in range(first, first + count):
            yield pool[i % len(pool)]

    @cached_property
    def values(self) -> list[list[bytes]]:
        """Values in blocks: JSON events, as compressible as such things are."""
        rng = random.Random(self.size)
        records = min(_POOL_RECORDS, _POOL_BYTES // self.size)
        blocks = max(_FEWEST_BLOCKS, records // self.block)
        return [[_event(rng, self.size) for _ in range(self.block)] for _ in range(blocks)]

    @cached_property
    def pairs(self) -> list[list[tuple[bytes, bytes]]]:
        """The values with a random one of the keys each, in blocks."""
        rng = random.Random(self.keys)
        return [[(v, b"user-%08d" % rng.randrange(self.keys)) for v in block] for block in self.values]


def _event(rng: random.Random, size: int) -> bytes:
    event = (
        f'{{"id":{rng.randrange(10**9)},"type":"{rng.choice(["view", "click", "cart", "buy"])}",'
        f'"user":"u{rng.randrange(10**5)}","at":{1_700_000_000 + rng.randrange(10**6)},"page":"/p/'
    )
    parts, length = [event], len(event)
    while length < size:
        # A list: with `+=` a megabyte takes minutes where the C library moves the string each time.
        parts.append(rng.choice(["shop/", "item/", "search?q=", f"{rng.randrange(10**6)}/", "img/", "en/"]))
        length += len(parts[-1])
    return "".join(parts).encode()[:size]
