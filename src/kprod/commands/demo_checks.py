"""Whether what is in the topics is what was sent: computed apart from the producer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from kprod.commands import figures
from kprod.commands.demo_events import Event
from kprod.commands.demo_reading import ReadRecord

_MASK_32 = 0xFFFFFFFF
_MASK_64 = 0xFFFFFFFFFFFFFFFF
_MOST_EXAMPLES = 3


class Check(NamedTuple):
    """A thing that was looked at.

    Attributes:
        name: what should be true.
        passed: whether it is.
        detail: what was found.
    """

    name: str
    passed: bool
    detail: str


def murmur2(data: bytes) -> int:
    """The 32-bit murmur2 hash that Kafka's clients place keys by, written from its definition.

    https://sites.google.com/site/murmurhash/ (MurmurHash2), seed 0x9747b28c as in
    ``org.apache.kafka.common.utils.Utils``. Not the producer's own, which is what it checks.
    """
    m = 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & _MASK_32
        k = (k ^ (k >> 24)) * m & _MASK_32
        h = (h * m & _MASK_32) ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & _MASK_32
    h = (h ^ (h >> 13)) * m & _MASK_32
    return h ^ (h >> 15)


def fingerprint(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]], timestamp_ms: int
) -> int:
    """64 bits of a record's contents."""
    text = repr((key, value, list(headers), timestamp_ms))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass
class Tally:
    """Number and contents of the records of a topic.

    Attributes:
        records: how many.
        checksum: sum of their fingerprints modulo 2^64, which does not depend on their order.
    """

    records: int = 0
    checksum: int = 0

    def add(self, print_of_record: int) -> None:
        """Count a record."""
        self.records += 1
        self.checksum = (self.checksum + print_of_record) & _MASK_64

    def add_event(self, event: Event) -> None:
        """Count an event that is sent."""
        self.add(fingerprint(event.key, event.value, event.headers, event.timestamp_ms))


@dataclass
class TopicAudit:
    """Goes through a topic as a consumer reads it, in the order of offsets in each partition.

    Attributes:
        topic: its name.
        partitions: how many it has.
    """

    topic: str
    partitions: int
    tally: Tally = field(default_factory=Tally)
    misplaced: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    misplaced_count: int = 0
    disordered_count: int = 0
    _partition_of: dict[bytes, int] = field(default_factory=dict)
    _last_seq: dict[bytes, int] = field(default_factory=dict)

    def add(self, record: ReadRecord) -> None:
        """Look at the next record."""
        key = record.key or b""
        self.tally.add(fingerprint(record.key, record.value, record.headers, record.timestamp_ms))
        belongs = self._partition_of.get(key)
        if belongs is None:
            belongs = self._partition_of[key] = (murmur2(key) & 0x7FFFFFFF) % self.partitions
        if record.partition != belongs:
            self.misplaced_count += 1
            if len(self.misplaced) < _MOST_EXAMPLES:
                self.misplaced.append(f"{key!r} is in partition {record.partition}, not {belongs}")
        try:
            seq = int(json.loads(record.value or b"")["seq"])
        except (ValueError, KeyError, TypeError):
            seq = -1
        expected = self._last_seq.get(key, 0) + 1
        self._last_seq[key] = seq
        if seq != expected:
            self.disordered_count += 1
            if len(self.disordered) < _MOST_EXAMPLES:
                self.disordered.append(f"{key!r}: {seq} where {expected} should be")

    @property
    def keys(self) -> int:
        """How many different keys there are."""
        return len(self._last_seq)


def compare(sent: dict[str, Tally], audits: list[TopicAudit]) -> list[Check]:
    """Hold what was read against what was sent.

    Args:
        sent: by topic.
        audits: one for each of these topics.
    """
    read = sum(audit.tally.records for audit in audits)
    counts = [
        f"{audit.topic} {figures.count(audit.tally.records)} of {figures.count(sent[audit.topic].records)}"
        for audit in audits
    ]
    same_count = all(audit.tally.records == sent[audit.topic].records for audit in audits)
    misplaced = sum(audit.misplaced_count for audit in audits)
    disordered = sum(audit.disordered_count for audit in audits)
    different = [a.topic for a in audits if a.tally.checksum != sent[a.topic].checksum]
    keys = sum(audit.keys for audit in audits)
    checksum = sum(audit.tally.checksum for audit in audits) & _MASK_64
    return [
        Check(
            "every record is there once",
            same_count,
            f"{figures.count(read)} records" if same_count else "; ".join(counts),
        ),
        Check(
            "on the partition of its key's murmur2 hash",
            misplaced == 0,
            f"{figures.count(keys)} keys on {sum(audit.partitions for audit in audits)} partitions"
            if misplaced == 0
            else f"{figures.count(misplaced)} are not: {'; '.join(_examples(a.misplaced for a in audits))}",
        ),
        Check(
            "in order for every key",
            disordered == 0,
            "each key counts from 1 without a gap"
            if disordered == 0
            else f"{figures.count(disordered)} are not: {'; '.join(_examples(a.disordered for a in audits))}",
        ),
        Check(
            "with the same key, value, headers and timestamp",
            not different,
            f"checksum {checksum:016x}" if not different else f"not the same in {', '.join(different)}",
        ),
    ]


def _examples(lists: Iterable[list[str]]) -> list[str]:
    return [example for found in lists for example in found][:_MOST_EXAMPLES]
