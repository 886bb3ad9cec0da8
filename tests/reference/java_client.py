"""The Java client's own record, compression and hash classes, asked over a pipe."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.kafka.distribution import KafkaDistribution
from tests.reference.record_batch import ReferenceRecord

_PROGRAM = Path(__file__).with_name("java") / "KafkaReference.java"


class JavaClient:
    """What Apache Kafka's Java classes make of keys, records and batches.

    Every call starts a JVM (about two seconds): ask for many things at once.
    """

    def __init__(self, distribution: KafkaDistribution) -> None:
        self._distribution = distribution

    def _ask(self, mode: str, *arguments: str, lines: Iterable[str]) -> list[str]:
        said = subprocess.run(
            self._distribution.tool(str(_PROGRAM), mode, *arguments),
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if said.returncode:
            raise AssertionError(f"Java refused ({mode}): {said.stderr[-3000:]}")
        return said.stdout.splitlines()

    def murmur2(self, keys: Sequence[bytes]) -> list[int]:
        """``Utils.murmur2`` of every key, signed."""
        return [int(line) for line in self._ask("murmur2", lines=map(_text, keys))]

    def read_batches(self, buffers: Sequence[bytes]) -> list[list[ReferenceRecord]]:
        """The records that ``MemoryRecords`` finds in each buffer of batches."""
        records: list[list[ReferenceRecord]] = [[]]
        for line in self._ask("read", lines=map(_text, buffers)):
            if line:
                records[-1].append(_parse_record(line))
            else:
                records.append([])
        assert records.pop() == [] and len(records) == len(buffers)
        return records

    def write_batches(self, records: Iterable[ReferenceRecord], codecs: Sequence[str]) -> dict[str, bytes]:
        """For each codec one batch of all records, as the Java producer would send it."""
        lines = self._ask("write", *codecs, lines=map(_format_record, records))
        return {codec: _require_bytes(line) for codec, line in zip(codecs, lines, strict=True)}


def _text(data: bytes | None) -> str:
    return "-" if data is None else "x" + data.hex()


def _bytes(text: str) -> bytes | None:
    return None if text == "-" else bytes.fromhex(text[1:])


def _require_bytes(text: str) -> bytes:
    data = _bytes(text)
    assert data is not None
    return data


def _format_record(record: ReferenceRecord) -> str:
    parts = [str(record.timestamp), _text(record.key), _text(record.value)]
    for key, value in record.headers:
        parts += [_text(key.encode()), _text(value)]
    return " ".join(parts)


def _parse_record(line: str) -> ReferenceRecord:
    offset, timestamp, key, value, *headers = line.split(" ")
    return ReferenceRecord(
        value=_bytes(value),
        key=_bytes(key),
        headers=[
            (_require_bytes(name).decode(), _bytes(content))
            for name, content in zip(headers[::2], headers[1::2], strict=True)
        ],
        timestamp=int(timestamp),
        offset=int(offset),
    )
