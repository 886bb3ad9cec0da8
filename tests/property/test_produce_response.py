"""The core's parser of produce responses: agrees with kprod.protocol, and no bytes can do harm."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprod._core.produce import parse_response
from kprod.protocol import PRODUCE, ProtocolError, decode_response, encode_response

VERSIONS = st.integers(*PRODUCE.versions)
int16, int32, int64 = (st.integers(-(1 << bits), (1 << bits) - 1) for bits in (15, 31, 63))
text = st.text(max_size=30)

partitions = st.fixed_dictionaries(
    {
        "index": int32,
        "error_code": int16,
        "base_offset": int64,
        "log_append_time_ms": int64,
        "record_errors": st.lists(
            st.fixed_dictionaries({"batch_index": int32, "batch_index_error_message": text | st.none()}),
            max_size=4,
        ),
        "error_message": text | st.none(),
        "current_leader": st.fixed_dictionaries({"leader_id": int32, "leader_epoch": int32}),
    }
)
topics = st.fixed_dictionaries(
    {
        "name": text,
        "topic_id": st.binary(min_size=16, max_size=16),
        "partition_responses": st.lists(partitions, max_size=4),
    }
)
bodies = st.fixed_dictionaries(
    {
        "responses": st.lists(topics, max_size=4),
        "throttle_time_ms": int32,
        "node_endpoints": st.lists(
            st.fixed_dictionaries({"node_id": int32, "host": text, "port": int32, "rack": text | st.none()}),
            max_size=3,
        ),
    }
)


def expected(version: int, body: dict[str, Any]) -> list[Any]:
    """What the parser has to make of a decoded body."""
    rows = []
    for topic in body["responses"] or ():
        for row in topic["partition_responses"] or ():
            errors = [
                (e["batch_index"], None if (t := e["batch_index_error_message"]) is None else t.encode())
                for e in (row["record_errors"] or () if version >= 8 else ())
            ]
            message = row["error_message"] if version >= 8 else None
            leader = row["current_leader"] if version >= 10 else {"leader_id": -1, "leader_epoch": -1}
            rows.append(
                (
                    topic["topic_id"] if version >= 13 else topic["name"].encode(),
                    row["index"],
                    row["error_code"],
                    row["base_offset"],
                    row["log_append_time_ms"],
                    errors,
                    None if message is None else message.encode(),
                    leader["leader_id"],
                    leader["leader_epoch"],
                )
            )
    return rows


@given(VERSIONS, bodies, st.integers(0, 2**31 - 1))
def test_every_response_is_read_as_kprod_protocol_reads_it(
    version: int, body: dict[str, Any], correlation_id: int
) -> None:
    frame = encode_response(PRODUCE, version, correlation_id, body)[4:]
    _, decoded = decode_response(PRODUCE, version, frame)
    found, rows, throttle, endpoints = parse_response(frame, version)
    assert (found, throttle) == (correlation_id, body["throttle_time_ms"])
    assert rows == expected(version, decoded)
    assert (endpoints is not None) is (version >= 10 and bool(body["node_endpoints"]))


@given(VERSIONS, bodies, st.data())
def test_a_truncated_response_is_malformed(version: int, body: dict[str, Any], data: st.DataObject) -> None:
    frame = encode_response(PRODUCE, version, 1, body)[4:]
    end = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(ValueError, match="malformed"):
        parse_response(frame[:end], version)


@settings(max_examples=400)
@given(
    VERSIONS, bodies, st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6)
)
def test_a_mutated_response_is_read_like_kprod_protocol_or_malformed(
    version: int, body: dict[str, Any], changes: list[tuple[int, int]]
) -> None:
    frame = bytearray(encode_response(PRODUCE, version, 1, body)[4:])
    for place, byte in changes:
        frame[place % len(frame)] = byte
    try:
        rows: list[Any] | None = list(parse_response(bytes(frame), version)[1])
    except ValueError:
        rows = None
    try:
        _, decoded = decode_response(PRODUCE, version, bytes(frame))
    except ProtocolError:
        return  # it checks more, for instance that texts are UTF-8 and that nothing follows
    assert rows == expected(version, decoded)


@settings(max_examples=400)
@given(VERSIONS, st.binary(max_size=400))
def test_random_bytes_are_read_or_malformed(version: int, frame: bytes) -> None:
    try:
        parse_response(frame, version)
    except ValueError:
        pass


@given(VERSIONS, st.integers(0, 5), st.binary(min_size=5, max_size=5), st.binary(max_size=50))
def test_huge_counts_allocate_nothing(version: int, place: int, count: bytes, rest: bytes) -> None:
    frame = b"\0\0\0\1" + b"\x00" * place + bytes(byte | 0x80 for byte in count) + rest
    try:
        parse_response(frame, version)
    except ValueError:
        pass
