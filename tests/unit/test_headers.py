"""The encoder of record headers."""

from __future__ import annotations

import sys
from collections import OrderedDict
from types import MappingProxyType
from typing import Any

import pytest

from kprod._core.headers import encode


def test_no_headers_are_one_zero() -> None:
    empty: list[Any] = [None, [], (), {}, iter(())]
    for nothing in empty:
        assert encode(nothing) == b"\0"


def test_the_bytes_of_a_section() -> None:
    assert encode([("ab", b"xyz"), ("", None), ("c", b"")]) == b"\x06\x04ab\x06xyz\x00\x01\x02c\x00"


@pytest.mark.parametrize(
    "given",
    [
        [("a", b"1"), ("b", b"2")],
        (("a", b"1"), ("b", b"2")),
        [["a", b"1"], ["b", b"2"]],
        {"a": b"1", "b": b"2"},
        OrderedDict(a=b"1", b=b"2"),
        MappingProxyType({"a": b"1", "b": b"2"}),
        {"a": b"1", "b": b"2"}.items(),
        (pair for pair in (("a", b"1"), ("b", b"2"))),
        [("a", bytearray(b"1")), ("b", memoryview(b"2"))],
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_forms_give_the_same_bytes(given: Any) -> None:
    assert encode(given) == encode([("a", b"1"), ("b", b"2")])


def test_keys_are_utf8() -> None:
    assert encode([("ä€😀", b"")]) == b"\x02\x12" + "ä€😀".encode() + b"\x00"


def test_a_str_subclass_is_a_key() -> None:
    class Key(str):
        pass

    assert encode([(Key("a"), b"1")]) == encode([("a", b"1")])


@pytest.mark.parametrize("count", [1, 63, 64, 1000])
@pytest.mark.parametrize("size", [0, 1, 500, 600, 70_000])
def test_sections_longer_than_the_inline_buffer(count: int, size: int) -> None:
    from tests.reference.record_batch import ReferenceRecord, encode_record

    if count * size > 10_000_000:
        size = 10_000
    headers: list[tuple[str, bytes | None]] = [(f"k{i}", b"v" * size) for i in range(count)]
    section = encode(headers)
    assert encode_record(ReferenceRecord(headers=headers), 0, 0).endswith(section)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([(b"a", b"1")], "header key must be str, got bytes: b'a'"),
        ([(None, b"1")], "header key must be str, got NoneType"),
        (
            [("a", "1")],
            r"value of header 'a' must be bytes or None, got str; encode it, e\.g\. value\.encode",
        ),
        ([("a", 1)], "value of header 'a' must be bytes, a contiguous bytes-like object or None, got int"),
        ([("a", memoryview(b"abcd")[::2])], "value of header 'a' must be bytes, a contiguous"),
        ([("a",)], r"a header must be a \(str, bytes\) pair, got \('a',\)"),
        ([("a", b"", 1)], r"a header must be a \(str, bytes\) pair"),
        (["ab"], "a header must be a .* got 'ab'"),
        ([b"ab"], "a header must be a .* got b'ab'"),
        ([None], "a header must be a .* got None"),
        ("ab", "headers must be a list of .* or a mapping, got str"),
        (b"ab", "headers must be a list .* got bytes"),
        (3, "headers must be a list .* got int"),
        ({1: b"a"}, "header key must be str, got int"),
    ],
)
def test_what_is_wrong_is_named(given: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        encode(given)


def test_a_key_that_has_no_utf8_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode([("\ud800", b"")])


def test_errors_leak_nothing() -> None:
    value = bytearray(100_000)
    before = sys.getrefcount(value)
    for _ in range(100):
        with pytest.raises(TypeError):
            encode([("a", value), ("b", value), ("c", "wrong")])  # type: ignore[list-item]
    assert sys.getrefcount(value) == before
    value.append(1)  # and no buffer of it is held
