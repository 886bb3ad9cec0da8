"""The core's parser of produce responses, against messages made by kprod.protocol."""

from __future__ import annotations

from typing import Any

import pytest

from kprod._core.produce import parse_response
from kprod.protocol import PRODUCE, encode_response

VERSIONS = range(PRODUCE.versions[0], PRODUCE.versions[1] + 1)


def partition(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"index": index, "error_code": 0, "base_offset": 7, "record_errors": [], **fields}


def response(version: int, *topics: dict[str, Any], **fields: Any) -> bytes:
    """A response from its correlation id on, as the network loop gets it."""
    return encode_response(PRODUCE, version, 42, {"responses": list(topics), **fields})[4:]


def topic(name: str, *partitions: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "topic_id": name.encode().ljust(16, b"."), "partition_responses": list(partitions)}


def key_of(version: int, name: str) -> bytes:
    return name.encode().ljust(16, b".") if version >= 13 else name.encode()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_understood(version: int) -> None:
    frame = response(
        version,
        topic("one", partition(0), partition(3, error_code=6, base_offset=-1)),
        topic("two", partition(1, log_append_time_ms=1234)),
        throttle_time_ms=99,
    )
    assert parse_response(frame, version) == (
        42,
        [
            (key_of(version, "one"), 0, 0, 7, -1, [], None, -1, -1),
            (key_of(version, "one"), 3, 6, -1, -1, [], None, -1, -1),
            (key_of(version, "two"), 1, 0, 7, 1234, [], None, -1, -1),
        ],
        99,
        None,
    )


@pytest.mark.parametrize("version", [v for v in VERSIONS if v >= 8])
def test_record_errors_and_messages(version: int) -> None:
    named = [
        {"batch_index": 3, "batch_index_error_message": "bad"},
        {"batch_index": 5, "batch_index_error_message": None},
        {"batch_index": 6, "batch_index_error_message": ""},
    ]
    frame = response(version, topic("t", partition(error_code=87, record_errors=named, error_message="ä")))
    [row] = parse_response(frame, version)[1]
    assert row[5:7] == ([(3, b"bad"), (5, None), (6, b"")], "ä".encode())


@pytest.mark.parametrize("version", [v for v in VERSIONS if v >= 10])
def test_leader_hints(version: int) -> None:
    leader = {"leader_id": 2, "leader_epoch": 17}
    endpoints = [{"node_id": 2, "host": "h", "port": 9, "rack": None}]
    frame = response(
        version,
        topic("t", partition(error_code=6, current_leader=leader), partition(1)),
        node_endpoints=endpoints,
    )
    _, (first, second), _, raw = parse_response(frame, version)
    assert first[7:] == (2, 17)
    assert second[7:] == (-1, -1)
    assert raw is not None
    assert raw.startswith(b"\x02\0\0\0\x02\x02h")


def test_no_topics_is_a_response() -> None:
    for version in VERSIONS:
        assert parse_response(response(version), version)[1] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_response_cut_off_anywhere_is_malformed(version: int) -> None:
    named = [{"batch_index": 3, "batch_index_error_message": "bad"}]
    frame = response(version, topic("t", partition(record_errors=named, error_message="text"), partition(1)))
    for end in range(len(frame)):
        with pytest.raises(ValueError, match="malformed"):
            parse_response(frame[:end], version)


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0\0\1" + b"\x7f\xff\xff\xff",  # 2^31 - 1 topics
        b"\0\0\0\1" + b"\0\0\0\1" + b"\x7f\xff",  # a name of 32767 bytes
        b"\0\0\0\1" + b"\0\0\0\1" + b"\0\1t" + b"\x7f\xff\xff\xff",  # 2^31 - 1 partitions
        b"\0\0\0\1" + b"\xff\xff\xff\xfe",  # -2 topics
        b"\0\0\0\1" + b"\0\0\0\1" + b"\xff\xfe",  # a name of -2 bytes
        b"\0\0\0\1" + b"\0\0\0\1" + b"\xff\xff" + b"\0\0\0\0" + b"\0\0\0\0",  # a null name
    ],
)
def test_lengths_that_the_frame_cannot_hold_are_malformed(frame: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        parse_response(frame, 3)


@pytest.mark.parametrize(
    "count",
    [b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"],
)
def test_compact_lengths_that_the_frame_cannot_hold_are_malformed(count: bytes) -> None:
    for frame in (
        b"\0\0\0\1\0" + count,
        b"\0\0\0\1\0\x02" + count,
        b"\0\0\0\1\0\x02\x02t" + count,
        b"\0\0\0\1" + count,
    ):
        with pytest.raises(ValueError, match="malformed"):
            parse_response(frame + b"\0" * 10, 9)


def test_unknown_tagged_fields_are_skipped() -> None:
    frame = response(9, topic("t", partition()))
    # The last two bytes are those of throttle time's end and the number of tagged fields.
    assert frame.endswith(b"\0")
    assert parse_response(frame[:-1] + b"\x02\x00\x03abc\x63\x01x", 9) == parse_response(frame, 9)
