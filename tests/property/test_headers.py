"""The encoder of record headers against the reference implementation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kprod._core.headers import encode
from tests.reference.record_batch import ReferenceRecord, encode_record

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
value = st.none() | st.binary(max_size=2000)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(object),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(st.tuples(text, value), max_size=30))
def test_sections_are_equal_byte_for_byte(headers: list[tuple[str, bytes | None]]) -> None:
    assert encode_record(ReferenceRecord(headers=headers), 0, 0).endswith(encode(headers))


@given(st.dictionaries(text, value, max_size=10))
def test_a_mapping_is_its_items(headers: dict[str, bytes | None]) -> None:
    assert encode(headers) == encode(list(headers.items()))


@given(anything)
def test_any_object_is_encoded_or_refused(headers: object) -> None:
    try:
        assert encode(headers)  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError):
        pass
