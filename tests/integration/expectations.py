"""What was sent, what came of it, and how it differs from what consumers found."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from tests.kafka.readers import CREATE_TIME, ConsumedRecord

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def outcomes(futures: Iterable[Any], timeout: float = 60.0) -> list[Any]:
    """The RecordMetadata of all futures; fails the test when one failed or took longer than ``timeout`` s."""
    deadline = time.monotonic() + timeout
    results, failures = [], []
    for index, future in enumerate(futures):
        try:
            results.append(future.get(timeout=max(0.001, deadline - time.monotonic())))
        except Exception as error:
            failures.append(f"record {index}: {error!r}")
    if failures:
        pytest.fail(
            f"{len(failures)} of {len(failures) + len(results)} not delivered; first:\n"
            + "\n".join(failures[:5])
        )
    return results


def failure(send: Callable[[], Any], timeout: float = 60.0) -> Exception:
    """The error of a send, whether raised at once or set on the future; fails the test when there is none."""
    try:
        metadata = send().get(timeout=timeout)
    except Exception as error:
        return error
    pytest.fail(f"the record was delivered, as {metadata!r}")


def expected_record(
    metadata: Any,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]] = (),
    timestamp_type: int = CREATE_TIME,
) -> ConsumedRecord:
    """What a consumer must find, given what was sent and where the producer says it is."""
    return ConsumedRecord(
        metadata.partition, metadata.offset, key, value, tuple(headers), metadata.timestamp, timestamp_type
    )


def assert_records(found: Sequence[ConsumedRecord], expected: Iterable[ConsumedRecord]) -> None:
    """The same records at the same places; the message lists what is missing, extra and different."""
    at = {(record.partition, record.offset): record for record in found}
    wanted = {(record.partition, record.offset): record for record in expected}
    if len(at) == len(found) and at == wanted:
        return
    lines = [f"{len(found)} records found, {len(wanted)} expected"]
    lines += [f"missing: {_short(wanted[place])}" for place in sorted(wanted.keys() - at.keys())[:5]]
    lines += [f"extra:   {_short(at[place])}" for place in sorted(at.keys() - wanted.keys())[:5]]
    for place in sorted(wanted.keys() & at.keys()):
        if at[place] != wanted[place] and len(lines) < 20:
            lines.append(f"partition {place[0]} offset {place[1]}:")
            lines += [
                f"    {field}: found {_cut(one)}, expected {_cut(other)}"
                for field, one, other in zip(ConsumedRecord._fields, at[place], wanted[place], strict=True)
                if one != other
            ]
    pytest.fail("\n".join(lines))


def assert_sequences(found: Iterable[ConsumedRecord], expected: Mapping[int, Sequence[bytes]]) -> None:
    """Each partition has exactly the expected values in that order: nothing is lost, doubled or moved."""
    values: dict[int, list[bytes]] = {partition: [] for partition in expected}
    for record in found:
        values.setdefault(record.partition, []).append(record.value or b"")
    problems = []
    for partition, got in sorted(values.items()):
        wanted = list(expected.get(partition, ()))
        if got == wanted:
            continue
        got_counts, wanted_counts = Counter(got), Counter(wanted)
        lost, twice = wanted_counts - got_counts, got_counts - wanted_counts
        problems.append(
            f"partition {partition}: {len(got)} records found, {len(wanted)} expected; "
            f"lost {lost.total()} {_some(lost)}, too many {twice.total()} {_some(twice)}"
        )
        first = next((i for i, pair in enumerate(zip(got, wanted, strict=False)) if pair[0] != pair[1]), None)
        if first is not None:
            problems.append(
                f"    first difference at record {first}: found {got[first : first + 3]}, "
                f"expected {wanted[first : first + 3]}"
            )
    if problems:
        pytest.fail("\n".join(problems))


def _short(record: ConsumedRecord) -> str:
    place = f"partition {record.partition} offset {record.offset}"
    return f"{place} key {_cut(record.key)} value {_cut(record.value)}"


def _cut(thing: object) -> str:
    text = repr(thing)
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"


def _some(values: Counter[bytes]) -> list[bytes]:
    return list(values)[:3]
