"""Columns from the Arrow C data interface: what is taken, what is refused, and that memory is released once.

Arrays are made by hand here, through ctypes, so that they can also be wrong;
tests/mock/test_producer_arrow.py has those of real libraries.
"""

from __future__ import annotations

import array
import ctypes
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kprod._core.arrow import ArrowTable
from kprod._core.bulk import read_column, read_integers

_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Schema(ctypes.Structure):
    """struct ArrowSchema."""


Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.POINTER(Schema)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]


class Array(ctypes.Structure):
    """struct ArrowArray."""


Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))),
    ("dictionary", ctypes.POINTER(Array)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_GET_SCHEMA = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Schema))
_GET_NEXT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Array))
_GET_LAST_ERROR = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


class Stream(ctypes.Structure):
    """struct ArrowArrayStream."""

    _fields_ = [
        ("get_schema", _GET_SCHEMA),
        ("get_next", _GET_NEXT),
        ("get_last_error", _GET_LAST_ERROR),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


_capsule_new = ctypes.pythonapi.PyCapsule_New
_capsule_new.restype = ctypes.py_object
_capsule_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Made:
    """An Arrow source. ``released`` counts calls of release callbacks by what they were for.

    Capsules have no destructor here: what the consumer does not move and release shows as a missing count.
    """

    def __init__(
        self,
        format: bytes,
        length: int,
        buffers: Sequence[bytes | None],
        *,
        offset: int = 0,
        null_count: int = -1,
        n_buffers: int | None = None,
        children: Sequence[Made] = (),
        name: bytes = b"",
        dictionary: bool = False,
        null_buffers: bool = False,
    ) -> None:
        self.released: list[str] = []
        self.children = children
        self._keep: list[Any] = [list(buffers)]
        self._release_schema = self._releaser("schema", Schema)
        self._release_array = self._releaser("array", Array)
        self.schema = Schema(format, name, None, 2, len(children))
        self.schema.release = ctypes.cast(self._release_schema, ctypes.c_void_p)
        pointers = (ctypes.c_void_p * max(1, len(buffers)))()
        for i, data in enumerate(buffers):
            if data is not None:
                held = ctypes.create_string_buffer(data, max(1, len(data)))
                self._keep.append(held)
                pointers[i] = ctypes.addressof(held)
        self._keep.append(pointers)
        self.array = Array(length, null_count, offset, len(buffers) if n_buffers is None else n_buffers)
        if not null_buffers:
            self.array.buffers = pointers
        self.array.release = ctypes.cast(self._release_array, ctypes.c_void_p)
        if dictionary:
            self._keep.append(Schema(b"u"))
            self.schema.dictionary = ctypes.pointer(self._keep[-1])
        if children:
            schemas = (ctypes.POINTER(Schema) * len(children))(*[ctypes.pointer(c.schema) for c in children])
            arrays = (ctypes.POINTER(Array) * len(children))(*[ctypes.pointer(c.array) for c in children])
            self._keep += [schemas, arrays]
            self.schema.children = schemas
            self.array.n_children = len(children)
            self.array.children = arrays

    def _releaser(self, what: str, kind: type[Any]) -> Any:
        def release(address: int) -> None:
            self.released.append(what)
            kind.from_address(address).release = None

        return _RELEASE(release)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return (
            _capsule_new(ctypes.addressof(self.schema), b"arrow_schema", None),
            _capsule_new(ctypes.addressof(self.array), b"arrow_array", None),
        )


class MadeStream:
    """An Arrow stream of arrays with the schema of the first; may fail after some."""

    def __init__(
        self, *arrays: Made, error: int = 0, schema_error: int = 0, words: bytes | None = None
    ) -> None:
        self.arrays = arrays
        self._next = 0
        self._words = None if words is None else ctypes.create_string_buffer(words)
        address = None if self._words is None else ctypes.addressof(self._words)

        def get_schema(_: int, out: Any) -> int:
            if schema_error:
                return schema_error
            ctypes.memmove(out, ctypes.byref(arrays[0].schema), ctypes.sizeof(Schema))
            return 0

        def get_next(_: int, out: Any) -> int:
            if self._next == len(arrays):
                if error:
                    return error
                out.contents.release = None
                return 0
            ctypes.memmove(out, ctypes.byref(arrays[self._next].array), ctypes.sizeof(Array))
            self._next += 1
            return 0

        self._stream = Stream(
            _GET_SCHEMA(get_schema), _GET_NEXT(get_next), _GET_LAST_ERROR(lambda _: address)
        )
        self._release = _RELEASE(lambda _: None)
        self._stream.release = ctypes.cast(self._release, ctypes.c_void_p)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return _capsule_new(ctypes.addressof(self._stream), b"arrow_array_stream", None)


def offsets(*numbers: int, code: str = "i") -> bytes:
    return struct.pack(f"={len(numbers)}{code}", *numbers)


def binary(*values: bytes, format: bytes = b"z", **more: Any) -> Made:
    places = [0]
    for value in values:
        places.append(places[-1] + len(value))
    code = "q" if format in (b"Z", b"U") else "i"
    return Made(format, len(values), [None, offsets(*places, code=code), b"".join(values)], **more)


def view(value: bytes, buffer: int = 0, start: int = 0, size: int | None = None) -> bytes:
    size = len(value) if size is None else size
    if size <= 12:
        return struct.pack("=i12s", size, value)
    return struct.pack("=i4sii", size, value[:4], buffer, start)


LONG = b"longer than twelve bytes"
KINDS: dict[str, tuple[Callable[[], Made], list[bytes | None]]] = {
    "binary": (lambda: binary(b"a", b"", b"ccc"), [b"a", b"", b"ccc"]),
    "large binary": (lambda: binary(b"a", b"", b"ccc", format=b"Z"), [b"a", b"", b"ccc"]),
    "string": (lambda: binary("größe".encode(), b"x", format=b"u"), ["größe".encode(), b"x"]),
    "large string": (lambda: binary(b"x", format=b"U"), [b"x"]),
    "nulls": (
        lambda: Made(b"z", 3, [b"\x05", offsets(0, 1, 3, 3), b"abb"]),
        [b"a", None, b""],
    ),
    "a validity buffer without nulls is not looked at": (
        lambda: Made(b"z", 2, [b"\x00", offsets(0, 1, 2), b"ab"], null_count=0),
        [b"a", b"b"],
    ),
    "a slice": (
        lambda: Made(b"z", 2, [b"\x0b", offsets(0, 1, 2, 3, 4), b"abcd"], offset=1),
        [b"b", None],
    ),
    "offsets that do not begin at 0": (lambda: Made(b"z", 1, [None, offsets(2, 4), b"xxyy"]), [b"yy"]),
    "no data at all": (lambda: Made(b"z", 2, [None, offsets(0, 0, 0), None]), [b"", b""]),
    "nothing": (lambda: Made(b"z", 0, [None, None, None]), []),
    "fixed size": (lambda: Made(b"w:3", 2, [None, b"abcdef"]), [b"abc", b"def"]),
    "fixed size with nulls, a slice": (
        lambda: Made(b"w:2", 2, [b"\x02", b"aabbcc"], offset=1),
        [b"bb", None],
    ),
    "fixed size 0": (lambda: Made(b"w:0", 2, [None, None]), [b"", b""]),
    "null": (lambda: Made(b"n", 2, []), [None, None]),
    "views": (
        lambda: Made(
            b"vz",
            4,
            [
                b"\x0b",
                view(b"short") + view(LONG, 1, 3) + view(b"") + view(b"exactly 12 b"),
                b"",
                b"xxx" + LONG,
                offsets(0, 3 + len(LONG), code="q"),
            ],
        ),
        [b"short", LONG, None, b"exactly 12 b"],
    ),
    "string views, all inline": (
        lambda: Made(b"vu", 1, [None, view(b"abc"), None]),
        [b"abc"],
    ),
    "a struct of one column": (
        lambda: Made(b"+s", 2, [None], children=[binary(b"a", b"b")]),
        [b"a", b"b"],
    ),
    "a slice of a struct": (
        lambda: Made(b"+s", 1, [None], offset=1, children=[binary(b"a", b"b", b"c")]),
        [b"b"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_read_and_memory_is_released_once(kind: str) -> None:
    make, expected = KINDS[kind]
    made = make()
    assert read_column("values", made) == expected
    assert sorted(made.released) == ["array", "schema"]


@pytest.mark.parametrize("kind", KINDS)
def test_streams_are_read_to_their_end_and_released(kind: str) -> None:
    make, expected = KINDS[kind]
    arrays = [make(), make(), make()]
    assert read_column("values", MadeStream(*arrays)) == expected * 3
    assert [sorted(made.released) for made in arrays] == [["array", "schema"], ["array"], ["array"]]


WRONG: dict[str, tuple[Callable[[], Made], type[Exception], str]] = {
    "integers": (
        lambda: Made(b"l", 1, [None, bytes(8)]),
        TypeError,
        "values must be an Arrow array of binary.*'l'",
    ),
    "lists": (lambda: Made(b"+l", 0, [None, None]), TypeError, r"got format '\+l'"),
    "list views": (lambda: Made(b"+vl", 0, [None, None]), TypeError, r"got format '\+vl'"),
    "dictionary": (
        lambda: Made(b"i", 1, [None, bytes(4)], dictionary=True),
        TypeError,
        "dictionary-encoded, with indices 'i': cast it",
    ),
    "a format that only begins right": (lambda: Made(b"zz", 0, [None, None, None]), TypeError, "'zz'"),
    "fixed size without a number": (lambda: Made(b"w:x", 1, [None, b"a"]), TypeError, "'w:x'"),
    "fixed size below 0": (lambda: Made(b"w:-1", 1, [None, b"a"]), TypeError, "'w:-1'"),
    "fixed size without end": (lambda: Made(b"w:9999999999", 1, [None, b"a"]), TypeError, "'w:9999999999'"),
    "empty format": (lambda: Made(b"", 0, []), TypeError, "''"),
    "two columns": (
        lambda: Made(b"+s", 1, [None], children=[binary(b"a"), binary(b"b")]),
        TypeError,
        "with 2 columns: take one of them, or use send_table",
    ),
    "offsets that decrease": (
        lambda: Made(b"z", 2, [None, offsets(0, 2, 1), b"ab"]),
        ValueError,
        r"values\[1\] has offsets that decrease",
    ),
    "offsets below 0": (
        lambda: Made(b"Z", 1, [None, offsets(-1, 1, code="q"), b"a"]),
        ValueError,
        r"values\[0\]",
    ),
    "offsets without data": (lambda: Made(b"z", 1, [None, offsets(0, 5), None]), ValueError, r"values\[0\]"),
    "too few buffers": (lambda: Made(b"z", 1, [None, None]), ValueError, "2 buffers; at least 3"),
    "fewer buffers than it says": (
        lambda: Made(b"z", 1, [None, None, None], null_buffers=True),
        ValueError,
        "at least 3 are expected",
    ),
    "no offsets": (lambda: Made(b"z", 1, [None, None, b"a"]), ValueError, "buffer 1.*is missing"),
    "no values": (lambda: Made(b"w:4", 1, [None, None]), ValueError, "buffer 1.*is missing"),
    "a negative length": (lambda: Made(b"z", -1, [None, None, None]), ValueError, "length -1"),
    "a negative offset": (lambda: Made(b"z", 1, [None, None, None], offset=-1), ValueError, "offset -1"),
    "a length without end": (
        lambda: Made(b"z", (1 << 63) - 1, [None, b"", b""], offset=1),
        ValueError,
        "length 9223372036854775807",
    ),
    "a view out of its buffer": (
        lambda: Made(b"vz", 1, [None, view(LONG, 0, 1), LONG, offsets(len(LONG), code="q")]),
        ValueError,
        r"values\[0\] has offsets",
    ),
    "a view into no buffer": (
        lambda: Made(b"vz", 1, [None, view(LONG, 1, 0), LONG, offsets(len(LONG), code="q")]),
        ValueError,
        r"values\[0\]",
    ),
    "a view into a negative buffer": (
        lambda: Made(b"vz", 1, [None, view(LONG, -1, 0), LONG, offsets(len(LONG), code="q")]),
        ValueError,
        r"values\[0\]",
    ),
    "a view of negative size": (
        lambda: Made(b"vz", 1, [None, view(b"x", size=-5), offsets(code="q")]),
        ValueError,
        r"values\[0\]",
    ),
    "a view from before its buffer": (
        lambda: Made(b"vz", 1, [None, view(LONG, 0, -1), LONG, offsets(len(LONG), code="q")]),
        ValueError,
        r"values\[0\]",
    ),
    "a null struct": (
        lambda: Made(b"+s", 2, [b"\x01"], children=[binary(b"a", b"b")]),
        ValueError,
        "has nulls at its top level",
    ),
    "a child that is too short": (
        lambda: Made(b"+s", 2, [None], offset=1, children=[binary(b"a", b"b")]),
        ValueError,
        "2 values where 3 are expected",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_read_is_refused_and_released_once(kind: str) -> None:
    make, error, text = WRONG[kind]
    for stream in (False, True):
        made = make()
        with pytest.raises(error, match=text):
            read_column("values", MadeStream(made) if stream else made)
        assert sorted(made.released) == ["array", "schema"]


def test_an_empty_stream_of_the_wrong_type_is_refused() -> None:
    made = MadeStream(Made(b"l", 0, [None, None]))
    made._next = 1
    with pytest.raises(TypeError, match="got format 'l'"):
        read_column("values", made)
    good = MadeStream(binary())
    good._next = 1
    assert read_column("values", good) == []


@pytest.mark.parametrize(("words", "text"), [(b"the disk is gone", "the disk is gone"), (None, "rror")])
def test_a_stream_that_fails_says_why_and_releases_what_came(words: bytes | None, text: str) -> None:
    first = binary(b"a")
    with pytest.raises(ValueError, match=f"the Arrow stream of MadeStream failed: .*{text}"):
        read_column("values", MadeStream(first, error=5, words=words))
    assert sorted(first.released) == ["array", "schema"]
    with pytest.raises(ValueError, match="the Arrow stream of MadeStream failed"):
        read_column("values", MadeStream(binary(b"a"), schema_error=5, words=words))


def test_what_was_released_is_not_read() -> None:
    made = binary(b"a")
    assert read_column("values", made) == [b"a"]
    with pytest.raises(ValueError, match="an array that was released"):
        read_column("values", made)
    stream = MadeStream(binary(b"a"))
    stream._stream.release = None
    with pytest.raises(ValueError, match="a stream that was released"):
        read_column("values", stream)


class _Lies:
    def __init__(self, what: Any) -> None:
        self.__what = what

    def __arrow_c_array__(self, requested_schema: object = None) -> Any:
        return self.__what


class _LiesInStreams:
    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return 5


def test_only_the_capsules_of_the_protocol_are_taken() -> None:
    schema, made = binary(b"a").__arrow_c_array__()
    for what in (None, (), (schema,), (made, schema), (schema, 1), [schema, made]):
        with pytest.raises(TypeError, match="must return two capsules"):
            read_column("values", _Lies(what))
    with pytest.raises(TypeError, match="must return a capsule 'arrow_array_stream', got 5"):
        read_column("values", _LiesInStreams())
    for other in (None, 5, [b"a"], (b"a",), b"abc"):
        with pytest.raises(TypeError, match=r"an Arrow array .* or a pair of buffers .*send_many"):
            read_column("values", other)  # type: ignore[arg-type]


# --- integers


def integers(format: bytes, code: str, *numbers: int, validity: bytes | None = None, offset: int = 0) -> Made:
    return Made(format, len(numbers) - offset, [validity, offsets(*numbers, code=code)], offset=offset)


@pytest.mark.parametrize(
    ("format", "code"),
    [(b"c", "b"), (b"C", "B"), (b"s", "h"), (b"S", "H"), (b"i", "i"), (b"I", "I"), (b"l", "q"), (b"L", "Q")],
)
def test_integers_of_every_width(format: bytes, code: str) -> None:
    made = integers(format, code, 9, 100, 3, 127, validity=b"\x0d", offset=1)
    assert read_integers("partitions", made, 3) == [None, 3, 127]
    assert sorted(made.released) == ["array", "schema"]
    top = (1 << 8 * struct.calcsize("=" + code)) - 1 if code.isupper() else 7
    if code != "Q":
        assert read_integers("timestamps", integers(format, code, top), 1) == [top]
    else:
        with pytest.raises(ValueError, match=f"got {top}"):
            read_integers("timestamps", integers(format, code, top), 1)


@pytest.mark.parametrize(
    ("format", "number", "expected"),
    [
        (b"tss:", 1_700_000_000, 1_700_000_000_000),
        (b"tsm:UTC", 1_700_000_000_123, 1_700_000_000_123),
        (b"tsu:Europe/Berlin", 1_700_000_000_123_999, 1_700_000_000_123),
        (b"tsn:", 1_700_000_000_123_999_999, 1_700_000_000_123),
    ],
)
def test_timestamps_of_every_unit(format: bytes, number: int, expected: int) -> None:
    assert read_integers("timestamps", integers(format, "q", number), 1) == [expected]
    with pytest.raises(TypeError, match="partitions must be an Arrow array of integers, got format"):
        read_integers("partitions", integers(format, "q", number), 1)


def test_integers_that_are_refused() -> None:
    for made, error, text in [
        (integers(b"i", "i", 0, -3), ValueError, r"partitions\[1\] must be .*got -3"),
        (Made(b"g", 1, [None, bytes(8)]), TypeError, "got format 'g'"),
        (Made(b"tdm", 1, [None, bytes(8)]), TypeError, "got format 'tdm'"),
        (binary(b"a"), TypeError, "got format 'z'"),
        (Made(b"l", 1, [None, None]), ValueError, "buffer 1.*missing"),
        (
            integers(b"l", "q", 1, 2),
            ValueError,
            "partitions must have one item for each of the 1 values, and has 2",
        ),
    ]:
        with pytest.raises(error, match=text):
            read_integers("partitions", made, 2 if text.startswith("partitions\\[1") else 1)
        assert sorted(made.released) == ["array", "schema"]
    with pytest.raises(
        ValueError, match=r"timestamps\[0\] must be in .* ms since 1970, got 9223372036854775807 of"
    ):
        read_integers("timestamps", integers(b"tss:", "q", (1 << 63) - 1), 1)


# --- tables


def table(**columns: Made) -> Made:
    for name, made in columns.items():
        made.schema.name = name.encode()
    length = min(made.array.length for made in columns.values())
    return Made(b"+s", length, [None], children=list(columns.values()))


def test_columns_of_a_table_by_name() -> None:
    made = table(v=binary(b"a", b"b"), when=integers(b"l", "q", 5, 6))
    taken = ArrowTable(made)
    assert taken.names == ["v", "when"]
    assert taken.column("values", "v").to_list() == [b"a", b"b"]
    assert taken.integers("timestamps", "when", 2).to_list(2) == [5, 6]
    with pytest.raises(
        ValueError, match="keys='k': that column of the table does not exist; it has 'v', 'when'"
    ):
        taken.column("keys", "k")
    with pytest.raises(TypeError, match="keys must be the name of a column, got int"):
        taken.column("keys", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="keys must be an Arrow array of binary"):
        taken.column("keys", "when")
    del taken
    assert sorted(made.released) == ["array", "schema"]


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(TypeError, match="table must have __arrow_c_stream__"):
        ArrowTable({"v": [b"a"]})
    with pytest.raises(TypeError, match=r"table must have columns.*'z': use send_columns"):
        ArrowTable(binary(b"a"))
    twice = Made(b"+s", 1, [None], children=[binary(b"a", name=b"v"), binary(b"b", name=b"v")])
    with pytest.raises(ValueError, match="values='v': that column of the table is there several times"):
        ArrowTable(twice).column("values", "v")


# --- plain buffers


@pytest.mark.parametrize("code", ["i", "q", "l"])
def test_a_pair_of_buffers(code: str) -> None:
    assert read_column("values", (b"aabbb", array.array(code, [0, 2, 2, 5]))) == [b"aa", b"", b"bbb"]
    assert read_column("values", (bytearray(), array.array(code, [0]))) == []
    unaligned = memoryview(b"x" + offsets(0, 1, 2))[1:].cast("i") if code == "i" else None
    if unaligned is not None:
        assert read_column("values", (b"ab", unaligned)) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("pair", "error", "text"),
    [
        ((b"ab", [0, 2]), TypeError, r"values\[1\], the offsets, must be a contiguous buffer of integers"),
        ((b"ab", b"\0\0"), TypeError, "integers of 32 or 64 bits, signed"),
        ((b"ab", array.array("I", [0, 1])), TypeError, "integers of 32 or 64 bits, signed"),
        ((b"ab", array.array("d", [0, 1])), TypeError, "must be a buffer of integers with one dimension"),
        ((b"ab", memoryview(array.array("i", [0, 1, 2, 3])).cast("B").cast("i", [2, 2])), TypeError, "2 dim"),
        ((b"ab", memoryview(array.array("i", [0, 1, 2, 3]))[::2]), TypeError, "must be a contiguous buffer"),
        ((b"ab", array.array("i")), ValueError, "must have one more item than there are values"),
        (
            ("ab", array.array("i", [0, 1])),
            TypeError,
            r"values\[0\], the data, must be a contiguous bytes-like",
        ),
        ((b"ab", array.array("i", [0, 3])), ValueError, r"values\[0\] has offsets"),
        ((b"ab", array.array("q", [0, 1 << 62])), ValueError, r"values\[0\] has offsets"),
        ((b"ab", array.array("i", [-1, 1])), ValueError, r"values\[0\] has offsets"),
        ((b"ab", array.array("i", [0, 2, 1])), ValueError, r"values\[1\] has offsets"),
    ],
)
def test_a_pair_of_buffers_that_is_refused(pair: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read_column("values", pair)
