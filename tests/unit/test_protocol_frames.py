"""Frames and primitives: known bytes, limits, and messages that say what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from kprod.protocol import (
    API_VERSIONS,
    APIS,
    END_TXN,
    FIND_COORDINATOR,
    METADATA,
    PRODUCE,
    SASL_AUTHENTICATE,
    ZERO_UUID,
    Cursor,
    ProtocolError,
    RequestHeader,
    decode_request,
    decode_request_header,
    decode_response,
    encode_request,
    encode_response,
)
from kprod.protocol.cursor import MAX_ARRAY_ELEMENTS, MAX_TAGGED_FIELDS
from kprod.protocol.schema import Array, write_unsigned_varint


def varint(value: int) -> bytes:
    out = bytearray()
    write_unsigned_varint(out, value)
    return bytes(out)


def test_old_request_frame_byte_by_byte() -> None:
    frame = encode_request(METADATA, 1, 7, "me", {"topics": [{"name": "ab"}]})
    assert frame == bytes.fromhex(
        "00000014"  # size
        "0003 0001 00000007"  # key, version, correlation id
        "0002 6d65"  # client id
        "00000001 0002 6162"
    )


def test_flexible_request_frame_byte_by_byte() -> None:
    frame = encode_request(
        METADATA, 9, 7, "me", {"topics": [{"name": "ab"}], "allow_auto_topic_creation": False}
    )
    assert frame == bytes.fromhex(
        "00000016"
        "0003 0009 00000007"
        "0002 6d65"  # the client id keeps its 16-bit length in header v2
        "00"  # tagged fields of the header
        "02 03 6162 00"  # one topic: compact name, no tagged fields
        "00 00 00"  # three booleans
        "00"
    )


def test_null_client_id() -> None:
    frame = encode_request(END_TXN, 0, -1, None, transaction())
    assert decode_request_header(frame[4:]) == RequestHeader(26, 0, -1, None)


def transaction(**changes: Any) -> dict[str, Any]:
    return {"transactional_id": "t", "producer_id": 1, "producer_epoch": 2, "committed": True, **changes}


def test_api_versions_answers_have_header_v0() -> None:
    body = {"error_code": 0, "api_keys": []}
    flexible = encode_response(API_VERSIONS, 3, 9, body)
    assert flexible == bytes.fromhex("0000000c 00000009 0000 01 00000000 00")
    assert decode_response(API_VERSIONS, 3, flexible[4:])[1]["finalized_features_epoch"] == -1
    other = encode_response(END_TXN, 3, 9, {"error_code": 0})
    assert other == bytes.fromhex("0000000c 00000009 00 00000000 0000 00")


def test_null_and_empty_arrays_differ() -> None:
    for version in (1, 12):
        empty: list[Any] = []
        for topics in (None, empty):
            frame = encode_request(METADATA, version, 1, "c", {"topics": topics})
            assert decode_request(frame[4:])[1]["topics"] == topics


def test_absent_fields_read_as_their_defaults() -> None:
    broker = {"node_id": 1, "host": "h", "port": 2}
    partition = {"error_code": 0, "partition_index": 0, "leader_id": 1, "replica_nodes": [], "isr_nodes": []}
    topic = {"error_code": 0, "name": "t", "partitions": [partition]}
    frame = encode_response(METADATA, 0, 1, {"brokers": [broker], "topics": [topic]})
    body = decode_response(METADATA, 0, frame[4:])[1]
    assert body["controller_id"] == -1
    assert body["cluster_id"] is None
    assert body["topics"][0]["topic_id"] == ZERO_UUID
    assert body["topics"][0]["partitions"][0]["leader_epoch"] == -1
    assert body["topics"][0]["partitions"][0]["offline_replicas"] == []


def test_default_lists_and_structs_are_not_shared() -> None:
    frame = encode_response(PRODUCE, 3, 1, produce_response())
    first = decode_response(PRODUCE, 3, frame[4:])[1]["responses"][0]["partition_responses"][0]
    second = decode_response(PRODUCE, 3, frame[4:])[1]["responses"][0]["partition_responses"][0]
    assert first == second
    first["record_errors"].append(1)
    first["current_leader"]["leader_id"] = 5
    assert second["record_errors"] == []
    assert second["current_leader"] == {"leader_id": -1, "leader_epoch": -1}


def produce_response(**changes: Any) -> dict[str, Any]:
    partition = {"index": 0, "error_code": 0, "base_offset": 3, "record_errors": [], **changes}
    return {"responses": [{"name": "t", "topic_id": ZERO_UUID, "partition_responses": [partition]}]}


def test_tagged_fields_with_their_default_stay_off_the_wire() -> None:
    leader = {"leader_id": -1, "leader_epoch": -1}
    plain = encode_response(PRODUCE, 10, 1, produce_response())
    assert encode_response(PRODUCE, 10, 1, produce_response(current_leader=leader)) == plain
    moved = encode_response(PRODUCE, 10, 1, produce_response(current_leader={"leader_id": 4}))
    partition = decode_response(PRODUCE, 10, moved[4:])[1]["responses"][0]["partition_responses"][0]
    assert partition["current_leader"] == {"leader_id": 4, "leader_epoch": -1}


def end_txn_response(tags: bytes) -> bytes:
    return bytes(4) + b"\0" + bytes(4) + b"\0\0" + tags


def test_unknown_tagged_fields_are_skipped() -> None:
    tags = varint(2) + varint(3) + varint(2) + b"ab" + varint(900) + varint(0)
    assert decode_response(END_TXN, 3, end_txn_response(tags))[1]["error_code"] == 0


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        (varint(2) + b"\x05\x00" + b"\x05\x00", "tags must ascend"),
        (varint(2) + b"\x05\x00" + b"\x04\x00", "tags must ascend"),
        (varint(1) + b"\x05\x09", "truncated"),
        (varint(MAX_TAGGED_FIELDS + 1), "at most 10000"),
        (b"\xff" * 5, "does not fit in 32 bits"),
        (b"\x80" * 5 + b"\x01", "does not fit in 32 bits"),
        (b"\xff\xff", "ends inside the varint"),
        (b"\x00\x00", "left over"),
    ],
)
def test_bad_tagged_fields(tags: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        decode_response(END_TXN, 3, end_txn_response(tags))


@pytest.mark.parametrize("size", [5, 7])
def test_known_tagged_field_must_fill_its_size(size: int) -> None:
    """`finalized_features_epoch` (tag 1) is an int64, so it cannot have any other size."""
    frame = bytes(4) + b"\0\0" + b"\x01" + bytes(4) + b"\x01\x01" + varint(size) + bytes(size)
    with pytest.raises(ProtocolError, match="truncated"):
        decode_response(API_VERSIONS, 3, frame)
    long = bytes(4) + b"\0\0" + b"\x01" + bytes(4) + b"\x01\x01" + varint(9) + bytes(9)
    with pytest.raises(ProtocolError, match="too many"):
        decode_response(API_VERSIONS, 3, long)


@pytest.mark.parametrize("count", [-2, -(1 << 31), 1 << 20, (1 << 31) - 1])
def test_impossible_array_lengths(count: int) -> None:
    frame = bytes(4) + b"\0\0" + count.to_bytes(4, "big", signed=True) + bytes(40)
    with pytest.raises(ProtocolError, match="array"):
        decode_response(API_VERSIONS, 0, frame)


def test_array_count_is_checked_against_the_size_of_its_elements() -> None:
    """30 bytes cannot hold 20 entries of 6 bytes: refused before the first is read."""
    with pytest.raises(ProtocolError, match="20 elements announced"):
        decode_response(API_VERSIONS, 0, bytes(4) + b"\0\0" + (20).to_bytes(4, "big") + bytes(30))


def test_array_element_limit() -> None:
    count = MAX_ARRAY_ELEMENTS + 1
    frame = bytes(4) + b"\0\0" + count.to_bytes(4, "big") + bytes(6 * count)
    with pytest.raises(ProtocolError, match="at most 1000000"):
        decode_response(API_VERSIONS, 0, frame)


def test_null_where_none_is_allowed() -> None:
    with pytest.raises(ProtocolError, match="null array"):
        decode_response(API_VERSIONS, 0, bytes(4) + b"\0\0" + b"\xff" * 4)
    with pytest.raises(ProtocolError, match="null string"):
        decode_request(b"\0\x0a\0\0" + bytes(4) + b"\xff\xff" + b"\xff\xff")
    with pytest.raises(ProtocolError, match="null bytes"):
        decode_request(b"\0\x24\0\0" + bytes(4) + b"\xff\xff" + b"\xff" * 4)


def test_strings_must_be_utf8_and_sizes_not_negative() -> None:
    with pytest.raises(ProtocolError, match="UTF-8"):
        decode_request(b"\0\x0a\0\0" + bytes(4) + b"\xff\xff" + b"\0\x01\xff")
    with pytest.raises(ProtocolError, match="negative string length -2"):
        decode_request(b"\0\x0a\0\0" + bytes(4) + b"\xff\xff" + b"\xff\xfe")
    with pytest.raises(ProtocolError, match="negative length -2"):
        decode_request(b"\0\x24\0\0" + bytes(4) + b"\xff\xff" + b"\xff\xff\xff\xfe")


def test_unknown_api_and_version() -> None:
    with pytest.raises(ProtocolError, match="API key 999"):
        decode_request(b"\x03\xe7\0\0" + bytes(4) + b"\xff\xff")
    with pytest.raises(ProtocolError, match="EndTxn version 99 is unknown; known are 0 to 5"):
        decode_request(b"\0\x1a\0\x63" + bytes(4) + b"\xff\xff")
    frame = encode_request(END_TXN, 0, 1, "c", transaction())
    with pytest.raises(ProtocolError, match="API key 26"):
        decode_request(frame[4:], METADATA)
    with pytest.raises(ValueError, match="version 6 is unknown"):
        encode_request(END_TXN, 6, 1, "c", transaction())
    with pytest.raises(ValueError, match="version -1 is unknown"):
        decode_response(END_TXN, -1, b"")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"producer_id": 1 << 63}, r"producer_id: 9223372036854775808 is not an int64"),
        ({"producer_epoch": "x"}, r"producer_epoch: 'x' is not an int16"),
        ({"committed": 1}, r"committed: a bool is needed, not int"),
        ({"transactional_id": None}, r"transactional_id: must not be None"),
        ({"transactional_id": b"t"}, r"transactional_id: a str is needed, not bytes"),
        ({"transactional_id": "ä" * 16384}, r"32768 bytes in UTF-8, at most 32767"),
        ({"comitted": True}, r"comitted: unknown field; known are committed, producer_epoch"),
    ],
)
def test_bad_values_name_the_field(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="EndTxn request version 1: .*" + problem):
        encode_request(END_TXN, 1, 1, "c", transaction(**changes))


def test_bad_values_name_the_path() -> None:
    body = produce_response(current_leader={"leader_id": "x"})
    with pytest.raises(
        ValueError, match=r"responses\.\[0\]\.partition_responses\.\[0\]\.current_leader\.leader_id: 'x'"
    ):
        encode_response(PRODUCE, 10, 1, body)
    with pytest.raises(ValueError, match="committed: missing"):
        encode_request(END_TXN, 0, 1, "c", {k: v for k, v in transaction().items() if k != "committed"})
    with pytest.raises(ValueError, match="coordinator_keys: a sequence is needed, not int"):
        encode_request(FIND_COORDINATOR, 4, 1, "c", {"coordinator_keys": 4})
    with pytest.raises(ValueError, match="a mapping is needed, not int"):
        encode_request(METADATA, 4, 1, "c", {"topics": [4]})
    with pytest.raises(ValueError, match="topic_id: a UUID of 16 bytes"):
        encode_request(METADATA, 12, 1, "c", {"topics": [{"topic_id": b"short"}]})
    with pytest.raises(ValueError, match="client_id"):
        encode_request(METADATA, 12, 1, "c" * 40_000, {"topics": None})


def test_errors_do_not_show_credentials() -> None:
    with pytest.raises(ValueError, match="bytes-like") as caught:
        encode_request(SASL_AUTHENTICATE, 2, 1, "c", {"auth_bytes": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_bytes_like_values() -> None:
    for value in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        frame = encode_request(SASL_AUTHENTICATE, 2, 1, "c", {"auth_bytes": value})
        assert decode_request(memoryview(frame)[4:])[1]["auth_bytes"] == b"abc"


def test_version_ranges_reach_from_kafka_2_1_to_4() -> None:
    ranges = {api.name: api.versions for api in APIS.values()}
    assert ranges["Produce"] == (3, 13)
    assert ranges["Metadata"] == (0, 13)
    assert ranges["ApiVersions"] == (0, 4)
    assert ranges["AddPartitionsToTxn"] == (0, 3)


def test_cursor_reads_every_primitive() -> None:
    cursor = Cursor(b"\xff" + b"\xff\xfe" + b"\xff\xfe" + b"\x3f\xf8" + bytes(6))
    assert (cursor.int8(), cursor.int16(), cursor.uint16(), cursor.float64()) == (-1, -2, 65534, 1.5)
    assert cursor.remaining == 0
    with pytest.raises(ProtocolError, match="1 bytes wanted at byte 13, 0 are left"):
        cursor.int8()
    with pytest.raises(ProtocolError):
        cursor.raw(-1)


def test_array_schema_rejects_mixed_elements() -> None:
    with pytest.raises(TypeError, match="Array needs"):
        Array("int32", "int32")
