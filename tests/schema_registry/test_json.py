"""JsonSerializer with orjson and msgspec: the same JSON, and the same refusals, as without them."""

from __future__ import annotations

import datetime
import json
import sys
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprod.serializers import JsonSerializer

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def written(data: Any, **options: Any) -> bytes:
    made = JsonSerializer(**options).serialize("t", None, data)
    assert isinstance(made, bytes)
    return made


@settings(max_examples=40, deadline=None)
@given(_VALUES)
def test_all_say_the_same(data: Any) -> None:
    try:
        expected = json.loads(written(data, library="json"))
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            written(data)
        return
    assert json.loads(written(data)) == json.loads(written(data, library="orjson")) == expected
    assert written(data, sort_keys=True) == written(data, sort_keys=True, library="json")


@pytest.mark.parametrize("library", [None, "orjson", "json"])
@pytest.mark.parametrize("data", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_nan_and_infinity_are_refused(library: Any, data: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        written(data, library=library)


@pytest.mark.parametrize("library", [None, "orjson", "json"])
@pytest.mark.parametrize("data", [b"bytes", {1, 2}, datetime.date(2026, 1, 2), object()])
def test_what_json_has_no_form_for(library: Any, data: Any) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        written([data], library=library)
    assert written([data], library=library, default=lambda value: "D") == b'["D"]'


@pytest.mark.parametrize("library", [None, "orjson", "json"])
def test_keys_that_are_no_strings_and_large_numbers(library: Any) -> None:
    assert written({1: 2**70, "ä": None}, library=library) == '{"1":1180591620717411303424,"ä":null}'.encode()


def test_orjson_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    number = uuid.UUID(int=1)
    assert written(number) == f'"{number}"'.encode()
    monkeypatch.setitem(sys.modules, "orjson", None)
    with pytest.raises(TypeError, match="UUID is not JSON serializable"):
        written(number)
    with pytest.raises(ImportError):
        JsonSerializer(library="orjson")


def test_msgspec() -> None:
    class Point(msgspec.Struct):
        y: int
        x: int

    assert written(Point(1, 2), library="msgspec") == b'{"y":1,"x":2}'
    assert written({"b": 1, "a": object()}, library="msgspec", sort_keys=True, default=lambda v: "D") == (
        b'{"a":"D","b":1}'
    )


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="leave out ensure_ascii"):
        JsonSerializer(library="orjson", ensure_ascii=True)
    with pytest.raises(ValueError, match="library='ujson'"):
        JsonSerializer(library="ujson")  # type: ignore[arg-type]
