"""Every message in every version survives a round trip, and no bytes make a decoder fail in another way."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kprod.protocol import (
    APIS,
    Api,
    ProtocolError,
    decode_request,
    decode_request_header,
    decode_response,
    encode_request,
    encode_response,
)
from kprod.protocol.schema import Array, Field, Struct, _contains

_LIMITS = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}
ALL = [
    (api, direction, version)
    for api in APIS.values()
    for version in range(api.versions[0], api.versions[1] + 1)
    for direction in ("request", "response")
]


def _name(case: tuple[Api, str, int]) -> str:
    return f"{case[0].name}-{case[1]}-v{case[2]}"


def _values(kind: Any, nullable: bool, version: int) -> st.SearchStrategy[Any]:
    if isinstance(kind, Array):
        values: st.SearchStrategy[Any] = st.lists(_values(kind.of, False, version), max_size=3)
    elif isinstance(kind, Struct):
        return _bodies(kind.fields, version)
    elif kind in _LIMITS:
        bound = 1 << _LIMITS[kind]
        return st.integers(-bound, bound - 1)
    elif kind == "uint16":
        return st.integers(0, 65535)
    elif kind == "float64":
        return st.floats(allow_nan=False)
    elif kind == "bool":
        return st.booleans()
    elif kind == "uuid":
        return st.binary(min_size=16, max_size=16)
    elif kind == "string":
        values = st.text(max_size=200)
    else:
        values = st.binary(max_size=200)
    return values | st.none() if nullable else values


def _bodies(fields: Any, version: int) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            f.name: _values(f.type, _contains(f.nullable, version), version)
            for f in fields
            if _contains(f.versions, version)
        }
    )


def _fields(api: Api, direction: str) -> Any:
    return api.request if direction == "request" else api.response


def _encode(case: tuple[Api, str, int], body: dict[str, Any]) -> bytes:
    api, direction, version = case
    if direction == "request":
        return encode_request(api, version, 77, "client", body)
    return encode_response(api, version, 77, body)


def _decode(case: tuple[Api, str, int], frame: bytes) -> dict[str, Any]:
    api, direction, version = case
    if direction == "request":
        header, body = decode_request(frame)
        assert header == (api.key, version, 77, "client")
        return body
    correlation_id, body = decode_response(api, version, frame)
    assert correlation_id == 77
    return body


def _on_the_wire(fields: Any, version: int, body: Any) -> Any:
    """`body` without the fields that `version` does not have, which decoding fills with defaults."""
    return {f.name: _strip(f.type, version, body[f.name]) for f in fields if _contains(f.versions, version)}


def _strip(kind: Any, version: int, value: Any) -> Any:
    if isinstance(kind, Struct):
        return _on_the_wire(kind.fields, version, value)
    if isinstance(kind, Array) and isinstance(kind.of, Struct) and value is not None:
        return [_on_the_wire(kind.of.fields, version, item) for item in value]
    return value


@pytest.mark.parametrize("case", ALL, ids=_name)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_round_trip(case: tuple[Api, str, int], data: st.DataObject) -> None:
    api, direction, version = case
    fields = _fields(api, direction)
    body = data.draw(_bodies(fields, version))
    frame = _encode(case, body)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    decoded = _decode(case, frame[4:])
    assert set(decoded) == {f.name for f in fields}
    assert _on_the_wire(fields, version, decoded) == body


@pytest.mark.parametrize("case", ALL, ids=_name)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_truncation_is_decode_it(case: tuple[Api, str, int], data: st.DataObject) -> None:
    api, direction, version = case
    frame = _encode(case, data.draw(_bodies(_fields(api, direction), version)))[4:]
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(ProtocolError):
        _decode(case, frame[:cut])
    with pytest.raises(ProtocolError):
        _decode(case, frame + b"\0")


@settings(max_examples=1000, deadline=None)
@given(case=st.sampled_from(ALL), garbage=st.binary(max_size=300))
def test_random_bytes_are_a_value_or_a_protocol_error(case: tuple[Api, str, int], garbage: bytes) -> None:
    api, direction, version = case
    if direction == "request":
        frame = encode_request_header(api, version) + garbage
        decode_it: Any = decode_request
        arguments: tuple[Any, ...] = (frame,)
    else:
        decode_it = decode_response
        arguments = (api, version, garbage)
    with contextlib.suppress(ProtocolError):
        decode_it(*arguments)


@settings(max_examples=1000, deadline=None)
@given(case=st.sampled_from(ALL), data=st.data())
def test_damaged_messages_are_a_value_or_a_protocol_error(
    case: tuple[Api, str, int], data: st.DataObject
) -> None:
    api, direction, version = case
    frame = bytearray(_encode(case, data.draw(_bodies(_fields(api, direction), version)))[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        if direction == "request":
            decode_request(frame)
        else:
            decode_response(api, version, frame)
    except ProtocolError:
        pass


@given(garbage=st.binary(max_size=100))
def test_random_request_headers_are_a_value_or_a_protocol_error(garbage: bytes) -> None:
    for decode in (decode_request_header, decode_request):
        with contextlib.suppress(ProtocolError):
            decode(garbage)


def encode_request_header(api: Api, version: int) -> bytes:
    return api.key.to_bytes(2, "big") + version.to_bytes(2, "big") + bytes(4) + b"\xff\xff"


def test_cases_cover_every_field_kind() -> None:
    """Guards this file: a new primitive type must be generated too."""
    kinds: set[str] = set()

    def visit(fields: list[Field]) -> None:
        for f in fields:
            of = f.type.of if isinstance(f.type, Array) else f.type
            if isinstance(of, Struct):
                visit(list(of.fields))
            else:
                assert isinstance(of, str)
                kinds.add(of)

    for api in APIS.values():
        visit(list(api.request))
        visit(list(api.response))
    assert kinds <= {*_LIMITS, "uint16", "float64", "bool", "uuid", "string", "bytes", "records"}
