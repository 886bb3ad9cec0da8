"""Group metadata and offsets in the forms in which consumers of other packages hand them out."""

from __future__ import annotations

import struct
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprod.engine.offsets import plain_offsets
from kprod.transactions.manager import group_metadata_fields

kafka_structs = pytest.importorskip("kafka.structs")

Older = namedtuple("Older", ["group_id", "generation_id", "member_id", "group_instance_id"])


def as_librdkafka(group: str, generation: int, member: str, instance: str | None) -> bytes:
    """What rd_kafka_consumer_group_metadata_write() makes; other tests take it from a real consumer."""
    end = b"\x01" if instance is None else b"\x00" + instance.encode() + b"\x00"
    return (
        b"CGMDv2:"
        + struct.pack("=i", generation)
        + group.encode()
        + b"\x00"
        + member.encode()
        + b"\x00"
        + end
    )


@pytest.mark.parametrize("instance", [None, "instance"])
@pytest.mark.parametrize(
    "form",
    [
        lambda *fields: kafka_structs.ConsumerGroupMetadata(*fields),
        lambda *fields: Older(*fields),
        lambda *fields: tuple(fields),
        lambda *fields: list(fields),
        lambda *fields: SimpleNamespace(**dict(zip(Older._fields, fields, strict=True))),
        as_librdkafka,
    ],
    ids=["kafka-python", "namedtuple", "tuple", "list", "object", "confluent-kafka"],
)
def test_forms_of_group_metadata(form: Any, instance: str | None) -> None:
    assert group_metadata_fields(form("g", 3, "member-1", instance)) == ("g", 3, "member-1", instance)
    assert group_metadata_fields(form("g", -1, "", None)) == ("g", -1, "", None)


def test_a_group_id_alone() -> None:
    assert group_metadata_fields("grüppe") == ("grüppe", -1, "", None)


def test_missing_fields_mean_a_consumer_that_is_no_member() -> None:
    assert group_metadata_fields(SimpleNamespace(group_id="g")) == ("g", -1, "", None)
    assert group_metadata_fields(SimpleNamespace(group_id="g", member_id=None)) == ("g", -1, "", None)
    assert group_metadata_fields(kafka_structs.ConsumerGroupMetadata("g")) == ("g", -1, "", None)


names = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(names, st.integers(-(2**31), 2**31 - 1), names | st.just(""), st.none() | names | st.just(""))
def test_all_that_librdkafka_can_write(
    group: str, generation: int, member: str, instance: str | None
) -> None:
    fields = (group, generation, member, instance)
    assert group_metadata_fields(as_librdkafka(*fields)) == fields


@given(st.binary(max_size=40).map(lambda raw: b"CGMDv2:" + raw))
def test_damaged_metadata_of_librdkafka_is_refused_or_read(raw: bytes) -> None:
    try:
        group, generation, member, instance = group_metadata_fields(raw)
    except (TypeError, ValueError):
        return
    assert group and raw.startswith(as_librdkafka(group, generation, member, instance))


@pytest.mark.parametrize(
    "metadata",
    [b"", b"g", b"CGMDv1:g", b"CGMDv2:", b"CGMDv2:\0\0\0\0g\0m", b"CGMDv2:\0\0\0\0\xff\0m\0\x01"],
)
def test_bytes_of_another_kind_are_refused(metadata: bytes) -> None:
    with pytest.raises(TypeError, match="confluent-kafka is not known to write"):
        group_metadata_fields(metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        7,
        object(),
        ("g",),
        ("g", 1, "m", None, "more"),
        {"group_id": "g"},
        ("g", "1", "m", None),
        (7, 1, "m", None),
    ],
)
def test_other_types_are_refused_by_name(metadata: Any) -> None:
    with pytest.raises(TypeError, match=type(metadata).__name__):
        group_metadata_fields(metadata)


@pytest.mark.parametrize(
    "metadata",
    ["", ("", 1, "m", None), kafka_structs.ConsumerGroupMetadata(None), as_librdkafka("", 1, "m", None)],
)
def test_a_consumer_without_a_group_is_refused(metadata: Any) -> None:
    with pytest.raises(ValueError, match="group id"):
        group_metadata_fields(metadata)


# ---------------------------------------------------------------------------------------- offsets

Place = kafka_structs.TopicPartition
Value = kafka_structs.OffsetAndMetadata


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ({Place("t", 0): Value(5, "note", 3)}, {("t", 0): (5, 3, "note")}),
        ({Place("t", 0): Value(5, "", -1)}, {("t", 0): (5, -1, "")}),
        ({Place("t", 0): 5, Place("t", 1): 0}, {("t", 0): (5, -1, None), ("t", 1): (0, -1, None)}),
        ({("t", 0): 5}, {("t", 0): (5, -1, None)}),
        ({("t", 0): (5, "note")}, {("t", 0): (5, -1, "note")}),
        ({("t", 0): (5,)}, {("t", 0): (5, -1, None)}),
        ({}, {}),
        ([], {}),
        (
            [SimpleNamespace(topic="t", partition=1, offset=9, leader_epoch=2, metadata="m")],
            {("t", 1): (9, 2, "m")},
        ),
        (
            [SimpleNamespace(topic="t", partition=1, offset=9, leader_epoch=None, metadata=None)],
            {("t", 1): (9, -1, None)},
        ),
    ],
)
def test_forms_of_offsets(offsets: Any, expected: Any) -> None:
    assert plain_offsets(offsets) == expected


@pytest.mark.parametrize("offset", [-1, -1001])
def test_an_offset_that_is_none_is_refused(offset: int) -> None:
    # confluent-kafka's OFFSET_INVALID is -1001: a position() before anything was consumed.
    with pytest.raises(ValueError, match=r"t-0 must be >= 0"):
        plain_offsets({("t", 0): offset})
    with pytest.raises(ValueError, match=r"t-0 must be >= 0"):
        as_list: Any = [SimpleNamespace(topic="t", partition=0, offset=offset)]
        plain_offsets(as_list)


@pytest.mark.parametrize("offsets", [{(7, 0): 1}, {("t", "0"): 1}, {("t", 0): Value("5", "", -1)}])
def test_offsets_of_other_types_are_refused(offsets: Any) -> None:
    with pytest.raises(TypeError, match="offsets must map"):
        plain_offsets(offsets)
