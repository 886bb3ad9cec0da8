"""kprod.serializers: the forms that are recognised, the built-in serializers, and that nothing is hidden."""

from __future__ import annotations

import functools
import json
import struct
import uuid
from collections.abc import Callable
from typing import Any

import kafka.serializer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kprod import serializers
from kprod.serializers import (
    BytesSerializer,
    DefaultSerializer,
    DoubleSerializer,
    FloatSerializer,
    IntegerSerializer,
    JsonSerializer,
    LongSerializer,
    SerializationContext,
    Serializer,
    ShortSerializer,
    StringSerializer,
    UUIDSerializer,
    as_callable,
    as_unary,
    is_serializer,
    serializer_by_name,
)


def call(serializer: Any, data: Any, topic: str = "t", headers: Any = None) -> Any:
    function = as_callable(serializer, "value")
    assert function is not None
    return function(topic, headers, data)


class ThreeArguments:
    def serialize(self, topic: str, headers: Any, data: Any) -> bytes:
        return repr((topic, headers, data)).encode()


class TwoArguments:
    def serialize(self, topic: str, data: Any) -> bytes:
        return repr((topic, data)).encode()


class AnyArguments:
    def serialize(self, *args: Any) -> bytes:
        return repr(args).encode()


class ConfluentKind:
    """As confluent-kafka's serializers are: called with the object and a context."""

    def __init__(self) -> None:
        self.contexts: list[SerializationContext] = []

    def __call__(self, obj: Any, ctx: Any = None) -> bytes:
        self.contexts.append(ctx)
        return str(obj).encode()


def three_arguments(topic: str, headers: Any, data: Any) -> bytes:
    return repr((topic, headers, data)).encode()


# --- Forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("serializer", "expected"),
    [
        (lambda v: json.dumps(v).encode("utf-8"), b"[1, 2]"),
        (lambda v, indent=None: json.dumps(v).encode(), b"[1, 2]"),
        (functools.partial(lambda sep, v: json.dumps(v, separators=sep).encode(), (",", ":")), b"[1,2]"),
        (bytes, b"\x01\x02"),
        (ThreeArguments(), b"('t', [('h', b'x')], [1, 2])"),
        (TwoArguments(), b"('t', [1, 2])"),
        (AnyArguments(), b"('t', [('h', b'x')], [1, 2])"),
        (three_arguments, b"('t', [('h', b'x')], [1, 2])"),
        (ConfluentKind(), b"[1, 2]"),
        (JsonSerializer(), b"[1,2]"),
        (kafka.serializer.JsonSerializer(), b"[1, 2]"),
        (kafka.serializer.SerializeWrapper(lambda v: json.dumps(v).encode()), b"[1, 2]"),
    ],
)
def test_forms(serializer: Any, expected: bytes) -> None:
    assert is_serializer(serializer)
    assert call(serializer, [1, 2], headers=[("h", b"x")]) == expected


@pytest.mark.parametrize("function", [str.encode, str.casefold])
def test_methods_of_builtin_types_are_plain_functions(function: Callable[..., Any]) -> None:
    assert call(function, "ABC") in (b"ABC", "abc")


def test_no_serializer() -> None:
    assert as_callable(None, "key") is None
    assert as_unary(None, "key") is None


@pytest.mark.parametrize(
    "serializer",
    [
        lambda v: pytest.fail("called for None"),
        ThreeArguments(),
        TwoArguments(),
        three_arguments,
        ConfluentKind(),
        JsonSerializer(),
        StringSerializer(),
        IntegerSerializer(),
    ],
)
def test_none_stays_none_without_a_call(serializer: Any) -> None:
    assert call(serializer, None) is None


def test_falsy_data_are_data() -> None:
    assert call(str.encode, "") == b""
    assert call(JsonSerializer(), 0) == b"0"
    assert call(JsonSerializer(), []) == b"[]"


@pytest.mark.parametrize("which", ["key", "value"])
def test_confluents_kind_is_told_where_the_data_belong(which: Any) -> None:
    serializer = ConfluentKind()
    function = as_callable(serializer, which)
    assert function is not None
    function("orders", [("h", b"x")], 1)
    assert serializer.contexts == [SerializationContext("orders", which, [("h", b"x")])]


@pytest.mark.parametrize(
    "make",
    [
        lambda error: lambda v: _raise(error),
        lambda error: type("S", (), {"serialize": lambda self, topic, headers, data: _raise(error)})(),
        lambda error: type("S", (), {"serialize": lambda self, topic, data: _raise(error)})(),
        lambda error: type("S", (), {"serialize": lambda self, *args: _raise(error)})(),
    ],
)
@pytest.mark.parametrize(
    "error", [TypeError("of the user"), ValueError("of the user"), KeyError("of the user")]
)
def test_the_users_own_error_reaches_the_caller(make: Callable[[Exception], Any], error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        call(make(error), "x")
    assert caught.value is error


def _raise(error: Exception) -> Any:
    raise error


def test_a_type_error_of_json_is_not_masked() -> None:
    # kafka-python reports a missing argument here, because it finds out the signature by trying.
    with pytest.raises(TypeError, match="object is not JSON serializable"):
        call(lambda v: json.dumps(v).encode(), object())


@pytest.mark.parametrize(
    "serializer", [5, "json", b"", object(), JsonSerializer, kafka.serializer.DefaultSerializer, [str.encode]]
)
def test_what_is_no_serializer(serializer: Any) -> None:
    assert not is_serializer(serializer)
    with pytest.raises(TypeError, match="value_serializer must be a callable"):
        as_callable(serializer, "value")


@pytest.mark.parametrize(
    ("serializer", "text"),
    [
        (lambda: b"", "key_serializer must be callable with"),
        (lambda a, b: b"", "but takes 2 arguments"),
        (lambda a, b, c, d: b"", "but takes 4 arguments"),
        (type("S", (), {"serialize": lambda self, data: b""})(), "must take .topic, headers, data. or"),
        (type("S", (), {"serialize": lambda self, a, b, c, d: b""})(), "not 4 arguments"),
    ],
)
def test_signatures_that_fit_no_form_are_refused_at_once(serializer: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        as_callable(serializer, "key")


# --- The short cut ------------------------------------------------------------------------------------------


def test_plain_functions_can_be_called_directly() -> None:
    def plain(value: Any) -> bytes:
        return b"x"

    assert as_unary(plain, "value") is plain
    assert as_unary(bytes, "value") is bytes


@pytest.mark.parametrize("serializer", [ThreeArguments(), TwoArguments(), ConfluentKind(), three_arguments])
def test_what_looks_at_more_than_the_data_cannot(serializer: Any) -> None:
    assert as_unary(serializer, "value") is None


# --- Built-in serializers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x"), b""])
@pytest.mark.parametrize("serializer", [BytesSerializer(), StringSerializer(), DefaultSerializer()])
def test_bytes_pass_as_they_are(serializer: Serializer, data: Any) -> None:
    assert call(serializer, data) is data


def test_strings() -> None:
    assert call(StringSerializer(), "Grüße €") == "Grüße €".encode()
    assert call(StringSerializer("latin-1"), "Grüße") == "Grüße".encode("latin-1")
    with pytest.raises(UnicodeEncodeError):
        call(StringSerializer("latin-1"), "€")
    with pytest.raises(LookupError):
        StringSerializer("no-such-encoding")
    with pytest.raises(TypeError, match="StringSerializer takes str or bytes, not int"):
        call(StringSerializer(), 5)
    with pytest.raises(TypeError, match="BytesSerializer takes bytes, bytearray or memoryview, not str"):
        call(BytesSerializer(), "x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
).filter(lambda value: value is not None)


@given(json_values)
def test_json_can_be_read_back(value: Any) -> None:
    written = call(JsonSerializer(), value)
    assert json.loads(written) == value
    assert call(JsonSerializer(ensure_ascii=True), value).isascii()


def test_json_options() -> None:
    assert call(JsonSerializer(), {"b": 1, "a": "ü"}) == '{"b":1,"a":"ü"}'.encode()
    assert call(JsonSerializer(sort_keys=True), {"b": 1, "a": 2}) == b'{"a":2,"b":1}'
    some_id = uuid.uuid4()
    assert call(JsonSerializer(default=str), {"id": some_id}) == f'{{"id":"{some_id}"}}'.encode()
    with pytest.raises(TypeError, match="UUID is not JSON serializable"):
        call(JsonSerializer(library="json"), some_id)  # orjson has a form for it
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        call(JsonSerializer(), float("nan"))


@pytest.mark.parametrize(
    ("serializer", "bits"), [(ShortSerializer(), 16), (IntegerSerializer(), 32), (LongSerializer(), 64)]
)
def test_whole_numbers_are_big_endian(serializer: Serializer, bits: int) -> None:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for number in (low, -1, 0, 1, 258, high):
        assert call(serializer, number) == number.to_bytes(bits // 8, "big", signed=True)
    for number in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"{number} does not fit into {bits // 8} bytes"):
            call(serializer, number)
    for wrong in (1.0, "1", True):
        with pytest.raises(TypeError, match=f"{type(serializer).__name__} takes int, not"):
            call(serializer, wrong)


def test_floats() -> None:
    assert struct.unpack(">d", call(DoubleSerializer(), 0.1)) == (0.1,)
    assert struct.unpack(">f", call(FloatSerializer(), 0.5)) == (0.5,)
    assert call(DoubleSerializer(), 1) == call(DoubleSerializer(), 1.0)
    with pytest.raises(ValueError, match="does not fit into 4 bytes"):
        call(FloatSerializer(), 1e300)
    with pytest.raises(ValueError, match="does not fit into 8 bytes"):
        call(DoubleSerializer(), 10**400)
    with pytest.raises(TypeError, match="DoubleSerializer takes float, not str"):
        call(DoubleSerializer(), "1")


def test_uuids() -> None:
    some_id = uuid.UUID("12345678-1234-5678-1234-567812345678")
    assert call(UUIDSerializer(), some_id) == b"12345678-1234-5678-1234-567812345678"
    with pytest.raises(TypeError, match=r"takes uuid\.UUID, not str"):
        call(UUIDSerializer(), str(some_id))


def test_names_of_java() -> None:
    package = "org.apache.kafka.common.serialization."
    assert isinstance(serializer_by_name(f"{package}LongSerializer"), LongSerializer)
    assert isinstance(serializer_by_name("ByteArraySerializer"), BytesSerializer)
    with pytest.raises(ValueError, match="'VoidSerializer' is none of ByteArraySerializer, "):
        serializer_by_name("VoidSerializer")


def test_every_serializer_can_be_closed_and_subclasses_the_contract() -> None:
    for name in serializers._BY_NAME:
        made = serializer_by_name(name)
        assert isinstance(made, Serializer)
        made.close()


def test_the_contract_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Serializer()  # type: ignore[abstract]
