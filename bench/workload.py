"""What is sent in a comparison: the same records, in the same order, for every client."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from functools import cached_property

# Records per block. Of each block the first record is timed, so that the clock costs the others nothing.
BLOCK = 256
# The records are made before the clock starts and used in turn; few enough to leave the memory figures alone.
_POOL_BYTES = 4 << 20
_FEWEST_BLOCKS = 4

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class Workload:
    """One way to load a producer; all clients get the same settings.

    Attributes:
        records: how many records are measured; a multiple of ``BLOCK``.
        warmup: how many are sent before, not measured; a multiple of ``BLOCK``.
        size: bytes of each value.
        keys: number of distinct keys, 0 for records without a key.
        codec: compression type.
        linger_ms: how long a batch waits for more records, in ms.
        batch_size: largest batch in bytes.
    """

    records: int
    warmup: int
    size: int = 100
    keys: int = 0
    codec: str = "none"
    linger_ms: int = 5
    batch_size: int = 65536

    @cached_property
    def values(self) -> list[list[bytes]]:
        """Values in blocks: JSON events, as compressible as such things are."""
        rng = random.Random(self.size)
        blocks = max(_FEWEST_BLOCKS, _POOL_BYTES // (self.size * BLOCK))
        return [[_event(rng, self.size) for _ in range(BLOCK)] for _ in range(blocks)]

    @cached_property
    def pairs(self) -> list[list[tuple[bytes, bytes]]]:
        """The values with a random one of the keys each, in blocks."""
        rng = random.Random(self.keys)
        return [[(v, b"user-%08d" % rng.randrange(self.keys)) for v in block] for block in self.values]

    def to_json(self) -> str:
        """The settings, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Workload:
        """The settings that :meth:`to_json` gave."""
        return cls(**json.loads(text))


def whole_blocks(records: int) -> int:
    """The number of records rounded up to whole blocks, at least one."""
    return max(1, -(-records // BLOCK)) * BLOCK


def _event(rng: random.Random, size: int) -> bytes:
    event = (
        f'{{"id":{rng.randrange(10**9)},"type":"{rng.choice(["view", "click", "cart", "buy"])}",'
        f'"user":"u{rng.randrange(10**5)}","at":{1_700_000_000 + rng.randrange(10**6)},"page":"/p/'
    )
    while len(event) < size:
        event += rng.choice(["shop/", "item/", "search?q=", f"{rng.randrange(10**6)}/", "img/", "en/"])
    return event.encode()[:size]
