"""How fields become keys, values, headers and timestamps."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from kprod.commands.produce_input import InputRecord, JsonNumber
from kprod.commands.produce_mapping import FieldError, FieldPath, RecordMapping, timestamp_ms, to_bytes

DOCUMENT = {"id": 7, "user": {"id": "u1", "tags": ["a", {"b": None}]}, "a.b": "dotted"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", 7),
        ("user.id", "u1"),
        ("user.tags.0", "a"),
        ("user.tags.1.b", None),
        (r"a\.b", "dotted"),
        ("user", DOCUMENT["user"]),
    ],
)
def test_paths(path: str, value: object) -> None:
    assert FieldPath(path, nested=True).get(DOCUMENT) == value


def test_csv_columns_are_not_paths() -> None:
    assert FieldPath("a.b", nested=False).get(DOCUMENT) == "dotted"


@pytest.mark.parametrize("path", ["name", "user.name", "id.x", "user.tags.2", "user.tags.x", "a.b", ""])
def test_missing_fields(path: str) -> None:
    with pytest.raises(FieldError, match=re.escape(f"no field {path!r}; it has id, user, a.b")):
        FieldPath(path, nested=True).get(DOCUMENT)


def test_fields_of_what_has_none() -> None:
    with pytest.raises(FieldError, match="it is list"):
        FieldPath("a", nested=True).get([1])
    with pytest.raises(FieldError, match=r"it has f0, .*, f7, \.\.\.$"):
        FieldPath("a", nested=True).get({f"f{n}": n for n in range(9)})


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (None, None),
        (b"\xff", b"\xff"),
        ("", b""),
        ("größe", "größe".encode()),
        (7, b"7"),
        (10**40, b"1" + b"0" * 40),
        (True, b"true"),
        (JsonNumber("1.10"), b"1.10"),
        (JsonNumber("1e400"), b"1e400"),
        ([1, JsonNumber("0.12345678901234567890"), None], b"[1,0.12345678901234567890,null]"),
        ({"ü": {"x": [True, '"']}}, '{"ü":{"x":[true,"\\""]}}'.encode()),
    ],
)
def test_bytes_of_fields(value: Any, data: bytes | None) -> None:
    assert to_bytes(value) == data


def test_lone_surrogates_are_an_error() -> None:
    for value in ("\udcfc", {"a": "\ud800"}):
        with pytest.raises(FieldError, match="UTF-8"):
            to_bytes(value)


@pytest.mark.parametrize(
    ("value", "format", "ms"),
    [
        (1_700_000_000, "auto", 1_700_000_000_000),
        ("1700000000", "auto", 1_700_000_000_000),
        (b"1700000000", "auto", 1_700_000_000_000),
        (JsonNumber("1700000000.123"), "auto", 1_700_000_000_123),
        (1_700_000_000_123, "auto", 1_700_000_000_123),
        (0, "auto", 0),
        (1_700_000_000_123, "ms", 1_700_000_000_123),
        (5, "ms", 5),
        (5, "s", 5000),
        ("5.0005", "s", 5000),
        (1_700_000_000_123_999, "us", 1_700_000_000_123),
        (1_700_000_000_123_999_999, "ns", 1_700_000_000_123),
        ("2024-05-17", "auto", 1_715_904_000_000),
        ("2024-05-17T10:00:00Z", "auto", 1_715_940_000_000),
        ("2024-05-17 10:00", "iso", 1_715_940_000_000),
        ("2024-05-17T12:00:00.5+02:00", "iso", 1_715_940_000_500),
        ("2024-05-17T05:30:00,1239999-0430", "iso", 1_715_940_000_123),
        ("2024-05-17T12:00:00.001+02", "iso", 1_715_940_000_001),
        ("1970-01-01T00:00:00.001z", "iso", 1),
    ],
)
def test_timestamps(value: Any, format: str, ms: int) -> None:
    assert timestamp_ms(value, format) == ms


@pytest.mark.parametrize(
    ("value", "format", "problem"),
    [
        (1_700_000_000_123_000, "auto", "--timestamp-format us or ns"),
        ("yesterday", "auto", "'yesterday' is not a timestamp"),
        ("2024-13-01", "auto", "not a timestamp"),
        ("2024-05-17T25:00:00", "auto", "not a timestamp"),
        ("0001-01-01T00:00:00+02:00", "auto", "not a timestamp"),
        ("2024-05-17", "ms", "ms since 1970"),
        (5, "iso", "ISO 8601"),
        ("5", "iso", "ISO 8601"),
        (None, "auto", "None is not a timestamp"),
        (True, "auto", "True is not a timestamp"),
        ([], "auto", r"\[\] is not a timestamp"),
        (-5, "auto", "before 1970"),
        ("1969-12-31T23:59:59Z", "auto", "before 1970"),
        (float("nan"), "auto", "not a timestamp"),
        ("inf", "s", "not a timestamp"),
    ],
)
def test_what_is_no_timestamp(value: Any, format: str, problem: str) -> None:
    with pytest.raises(FieldError, match=problem):
        timestamp_ms(value, format)


def test_a_record_of_all_parts() -> None:
    def path(text: str) -> FieldPath:
        return FieldPath(text, nested=True)

    mapping = RecordMapping(
        key=path("user.id"),
        value=path("body"),
        headers=[("trace", path("t")), ("source", b"web"), ("none", path("user.none"))],
        timestamp=path("at"),
    )
    fields = {"user": {"id": 5, "none": None}, "body": {"x": 1}, "t": "abc", "at": "2024-05-17"}
    raw = json.dumps(fields).encode()
    assert mapping(InputRecord(1, raw, fields)) == (
        b'{"x":1}',
        b"5",
        [("trace", b"abc"), ("source", b"web"), ("none", None)],
        1_715_904_000_000,
    )


def test_the_whole_record_is_the_value() -> None:
    assert RecordMapping()(InputRecord(1, b" raw ", None)) == (b" raw ", None, None, None)
    row = InputRecord(1, None, {"a": "1", "b": None})
    assert RecordMapping()(row).value == b'{"a":"1","b":null}'


@pytest.mark.parametrize(
    ("regex", "key"),
    [(rb"\d+", b"42"), (rb"id=(\d+) (\w+)", b"42"), (rb"id=(\d+) (?P<key>\w+)", b"x"), (rb"(z)?id", None)],
)
def test_key_by_regex(regex: bytes, key: bytes | None) -> None:
    mapping = RecordMapping(key_regex=re.compile(regex))
    record = InputRecord(1, b"id=42 x", None)
    assert mapping(record) == (b"id=42 x", key, None, None)
    with pytest.raises(FieldError, match="does not match"):
        mapping(InputRecord(1, b"other", None))
