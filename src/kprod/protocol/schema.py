"""Declarative message schemas and their compilation to encoders and decoders.

A message is a list of :class:`Field`; each says in which versions it is on the wire, in which it may be
null, and whether it travels in the tagged-field section (KIP-482). :class:`Api` pairs the request and the
response of one API key. For each version a schema is compiled once into two functions, which are cached.

Bodies are plain dicts of snake_case names. When decoding, a field that is not on the wire in that version
has its default, so code need not ask for the version. When encoding, a field may be left out when it has a
default, and fields of other versions are ignored; an unknown name is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from kprod.protocol.cursor import Cursor, ProtocolError
from kprod.values import Value

Body: TypeAlias = dict[str, Any]
Direction: TypeAlias = Literal["request", "response"]
Encoder: TypeAlias = Callable[[bytearray, Any], None]
Decoder: TypeAlias = Callable[[Cursor], Any]


class _Required:
    """Marks a field that has no default: leaving it out of a body is an error."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()

ZERO_UUID: Final = bytes(16)
"""The UUID that means "none" in Kafka messages."""


class Struct:
    """A nested struct of the given fields."""

    __slots__ = ("fields",)

    def __init__(self, *fields: Field) -> None:
        self.fields = fields


class Array:
    """An array: ``Array('int32')`` of a primitive type, ``Array(Field(...), Field(...))`` of structs."""

    __slots__ = ("of",)

    def __init__(self, *of: str | Field) -> None:
        fields = [item for item in of if isinstance(item, Field)]
        if fields and len(fields) == len(of):
            self.of: str | Struct = Struct(*fields)
        elif len(of) == 1 and isinstance(of[0], str):
            self.of = of[0]
        else:
            raise TypeError(f"Array needs the name of one primitive type or Fields, not {of!r}")


FieldType: TypeAlias = "str | Array | Struct"


class Field(Value):
    """One field of a message.

    Args:
        name: key in the body.
        type: ``'int8'``, ``'int16'``, ``'uint16'``, ``'int32'``, ``'int64'``, ``'float64'``, ``'bool'``,
            ``'string'``, ``'bytes'``, ``'records'``, ``'uuid'``, an :class:`Array` or a :class:`Struct`.
        versions: versions that have the field: ``'3+'``, ``'0-3'`` or ``'4'``.
        nullable: versions in which it may be ``None``.
        tag: number in the tagged-field section; ``None`` for an ordinary field.
        default: value when it is missing from a body to encode, or from the wire when decoding. Without one
            it is
            required for encoding, and reads as zero, empty, or null where that is allowed.
    """

    name: str
    type: FieldType
    versions: str = "0+"
    nullable: str | None = None
    tag: int | None = None
    default: Any = REQUIRED


class Codec(Value):
    """Encoder and decoder of one message in one version."""

    encode: Callable[[bytearray, Mapping[str, Any]], None]
    decode: Callable[[Cursor], Body]


class Api:
    """One API key: a request and its response.

    Args:
        key: number on the wire.
        name: Kafka's name.
        versions: lowest and highest version described here.
        flexible: first version with compact types and tagged fields, ``None`` when no version has them.
        request: fields of the request.
        response: fields of the response.
    """

    def __init__(
        self,
        key: int,
        name: str,
        versions: tuple[int, int],
        flexible: int | None,
        request: Sequence[Field],
        response: Sequence[Field],
    ) -> None:
        self.key = key
        self.name = name
        self.versions = versions
        self.flexible = flexible
        self.request = request
        self.response = response
        self._codecs: dict[tuple[Direction, int], Codec] = {}

    def __repr__(self) -> str:
        return f"Api({self.key}, {self.name!r}, versions={self.versions})"

    def is_flexible(self, version: int) -> bool:
        """Whether `version` uses compact types and tagged fields (KIP-482)."""
        return self.flexible is not None and version >= self.flexible

    def codec(self, direction: Direction, version: int) -> Codec:
        """The encoder and decoder of the request or the response in `version`.

        Raises:
            ValueError: `version` is outside `versions`.
        """
        codec = self._codecs.get((direction, version))
        if codec is None:
            low, high = self.versions
            if not low <= version <= high:
                raise ValueError(f"{self.name} version {version} is unknown; known are {low} to {high}")
            codec = _compile(self, direction, version)
            self._codecs[direction, version] = codec
        return codec


class _BadValue(Exception):
    """A value that cannot be encoded, with the path to it; becomes a ValueError at the top."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem


class _Compiled(NamedTuple):
    """Encoder and decoder of one value, and the fewest bytes it takes on the wire."""

    encode: Encoder
    decode: Decoder
    min_size: int


def _version_range(versions: str) -> tuple[int, int]:
    low, plus, _ = versions.partition("+")
    if plus:
        return int(low), 1 << 15
    first, _, last = versions.partition("-")
    return int(first), int(last or first)


def _contains(versions: str | None, version: int) -> bool:
    if versions is None:
        return False
    low, high = _version_range(versions)
    return low <= version <= high


def _compile(api: Api, direction: Direction, version: int) -> Codec:
    fields = api.request if direction == "request" else api.response
    compiled = _struct(fields, version, api.is_flexible(version))
    encode_struct = compiled.encode

    def encode(out: bytearray, body: Mapping[str, Any]) -> None:
        start = len(out)
        try:
            encode_struct(out, body)
        except _BadValue as exc:
            del out[start:]
            message = f"{api.name} {direction} version {version}: {exc.path}: {exc.problem}"
            raise ValueError(message) from None

    return Codec(encode, compiled.decode)


def _struct(fields: Sequence[Field], version: int, flexible: bool) -> _Compiled:
    """Compile the encoder and decoder of one struct in one version."""
    known_names = frozenset(f.name for f in fields)
    writers: list[tuple[str, Encoder, Any]] = []
    readers: list[tuple[str, Decoder]] = []
    tagged_writers: list[tuple[int, str, Encoder, Any]] = []
    tagged_readers: dict[int, tuple[str, Decoder]] = {}
    constants: list[tuple[str, Any]] = []
    fresh_lists: list[str] = []
    fresh_structs: list[tuple[str, Callable[[], Body]]] = []
    min_size = 1 if flexible else 0

    for f in fields:
        present = _contains(f.versions, version)
        nullable = _contains(f.nullable, version)
        if not present or f.tag is not None:
            default = _decode_default(f)
            if isinstance(f.type, Struct):
                fresh_structs.append((f.name, partial(_struct_default, f.type)))
            elif isinstance(default, list):
                fresh_lists.append(f.name)
            else:
                constants.append((f.name, default))
        if not present:
            continue
        compiled = _value(f.type, nullable, version, flexible)
        if f.tag is None:
            writers.append((f.name, compiled.encode, f.default))
            readers.append((f.name, compiled.decode))
            min_size += compiled.min_size
        else:
            tagged_writers.append((f.tag, f.name, compiled.encode, _decode_default(f)))
            tagged_readers[f.tag] = (f.name, compiled.decode)
    tagged_writers.sort()

    def encode(out: bytearray, body: Any) -> None:
        try:
            if not known_names.issuperset(body):
                unknown = sorted(set(body) - known_names)
                raise _BadValue(unknown[0], f"unknown field; known are {', '.join(sorted(known_names))}")
        except TypeError:
            raise _BadValue("", f"a mapping is needed, not {type(body).__name__}") from None
        for name, encoder, default in writers:
            value = body.get(name, default)
            if value is REQUIRED:
                raise _BadValue(name, "missing")
            try:
                encoder(out, value)
            except _BadValue as exc:
                raise _BadValue(f"{name}{exc.path and '.'}{exc.path}", exc.problem) from None
        if flexible:
            present_tags = [
                (tag, name, encoder, body[name])
                for tag, name, encoder, default in tagged_writers
                if name in body and body[name] != default
            ]
            write_unsigned_varint(out, len(present_tags))
            for tag, name, encoder, value in present_tags:
                content = bytearray()
                try:
                    encoder(content, value)
                except _BadValue as exc:
                    raise _BadValue(f"{name}{exc.path and '.'}{exc.path}", exc.problem) from None
                write_unsigned_varint(out, tag)
                write_unsigned_varint(out, len(content))
                out += content

    def decode(cursor: Cursor) -> Body:
        body: Body = {name: decoder(cursor) for name, decoder in readers}
        for name, value in constants:
            body[name] = value
        for name in fresh_lists:
            body[name] = []
        for name, make in fresh_structs:
            body[name] = make()
        if flexible:
            cursor.tagged_fields(tagged_readers, body)
        return body

    return _Compiled(encode, decode, min_size)


def _struct_default(struct_type: Struct) -> Body:
    """A new struct in which every field has its default."""
    return {f.name: _decode_default(f) for f in struct_type.fields}


def _decode_default(f: Field) -> Any:
    """The value a field reads as when it is not on the wire; the one for which a tagged field is left off
    it.
    """
    if f.default is not REQUIRED:
        return f.default
    if isinstance(f.type, Struct):
        return _struct_default(f.type)
    if f.nullable is not None:
        return None
    if isinstance(f.type, Array):
        return []
    return _ZERO[f.type]


_ZERO: Final[dict[str, Any]] = {
    "int8": 0,
    "int16": 0,
    "uint16": 0,
    "int32": 0,
    "int64": 0,
    "float64": 0.0,
    "bool": False,
    "string": "",
    "bytes": b"",
    "records": None,
    "uuid": ZERO_UUID,
}


def _value(kind: FieldType, nullable: bool, version: int, flexible: bool) -> _Compiled:
    """Compile the encoder and decoder of one value."""
    if isinstance(kind, Array):
        return _array(kind, nullable, version, flexible)
    if isinstance(kind, Struct):
        return _struct(kind.fields, version, flexible)
    if kind == "string":
        return _string_codec(nullable, flexible)
    if kind in ("bytes", "records"):
        return _bytes_codec(nullable, flexible)
    return _PRIMITIVES[kind]


def _array(kind: Array, nullable: bool, version: int, flexible: bool) -> _Compiled:
    encode_item, decode_item, item_size = _value(kind.of, False, version, flexible)
    structs = isinstance(kind.of, Struct)

    def encode(out: bytearray, value: Any) -> None:
        if value is None:
            if not nullable:
                raise _BadValue("", "must not be None in this version")
            out += b"\0" if flexible else b"\xff\xff\xff\xff"
            return
        try:
            count = len(value)
        except TypeError:
            raise _BadValue("", f"a sequence is needed, not {type(value).__name__}") from None
        if flexible:
            write_unsigned_varint(out, count + 1)
        else:
            out += count.to_bytes(4, "big")
        for index, item in enumerate(value):
            try:
                encode_item(out, item)
            except _BadValue as exc:
                raise _BadValue(f"[{index}]{exc.path and '.'}{exc.path}", exc.problem) from None

    def decode(cursor: Cursor) -> list[Any] | None:
        count = cursor.compact_array_length(item_size) if flexible else cursor.array_length(item_size)
        if count < 0:
            if not nullable:
                raise ProtocolError(f"null array before byte {cursor.pos}, but this one must not be null")
            return None
        if structs:
            cursor.take_rows(count)
        return [decode_item(cursor) for _ in range(count)]

    return _Compiled(encode, decode, 1 if flexible else 4)


def _string_codec(nullable: bool, flexible: bool) -> _Compiled:
    read = Cursor.nullable_compact_string if flexible else Cursor.nullable_string

    def encode(out: bytearray, value: Any) -> None:
        if value is None:
            if not nullable:
                raise _BadValue("", "must not be None in this version")
            out += b"\0" if flexible else b"\xff\xff"
            return
        if not isinstance(value, str):
            raise _BadValue("", f"a str is needed, not {type(value).__name__}")
        data = value.encode()
        # The limit is that of the 16-bit length; Java keeps it for compact strings too.
        if len(data) > 0x7FFF:
            raise _BadValue("", f"a string of {len(data)} bytes in UTF-8, at most 32767 are possible")
        if flexible:
            write_unsigned_varint(out, len(data) + 1)
        else:
            out += len(data).to_bytes(2, "big")
        out += data

    def decode(cursor: Cursor) -> str | None:
        value = read(cursor)
        if value is None and not nullable:
            raise ProtocolError(f"null string before byte {cursor.pos}, but this one must not be null")
        return value

    return _Compiled(encode, decode, 1 if flexible else 2)


def _bytes_codec(nullable: bool, flexible: bool) -> _Compiled:
    read = Cursor.nullable_compact_bytes if flexible else Cursor.nullable_bytes

    def encode(out: bytearray, value: Any) -> None:
        if value is None:
            if not nullable:
                raise _BadValue("", "must not be None in this version")
            out += b"\0" if flexible else b"\xff\xff\xff\xff"
            return
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise _BadValue("", f"a bytes-like object is needed, not {type(value).__name__}")
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        if flexible:
            write_unsigned_varint(out, size + 1)
        else:
            out += size.to_bytes(4, "big")
        out += value

    def decode(cursor: Cursor) -> bytes | None:
        value = read(cursor)
        if value is None and not nullable:
            raise ProtocolError(f"null bytes before byte {cursor.pos}, but these must not be null")
        return value

    return _Compiled(encode, decode, 1 if flexible else 4)


def write_unsigned_varint(out: bytearray, value: int) -> None:
    """Append `value`, 0 to 2**32 - 1, as an unsigned varint."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _number(kind: str, pack_format: str, read: Decoder) -> _Compiled:
    packer = struct.Struct(pack_format)
    pack = packer.pack

    def encode(out: bytearray, value: Any) -> None:
        try:
            out += pack(value)
        except struct.error:
            raise _BadValue("", f"{value!r} is not an {kind}") from None

    return _Compiled(encode, read, packer.size)


def _encode_bool(out: bytearray, value: Any) -> None:
    if not isinstance(value, bool):
        raise _BadValue("", f"a bool is needed, not {type(value).__name__}")
    out.append(value)


def _encode_uuid(out: bytearray, value: Any) -> None:
    if not isinstance(value, bytes) or len(value) != 16:
        raise _BadValue("", f"a UUID of 16 bytes is needed, not {value!r}")
    out += value


_PRIMITIVES: Final[dict[str, _Compiled]] = {
    "int8": _number("int8", ">b", Cursor.int8),
    "int16": _number("int16", ">h", Cursor.int16),
    "uint16": _number("uint16", ">H", Cursor.uint16),
    "int32": _number("int32", ">i", Cursor.int32),
    "int64": _number("int64", ">q", Cursor.int64),
    "float64": _number("float64", ">d", Cursor.float64),
    "bool": _Compiled(_encode_bool, Cursor.boolean, 1),
    "uuid": _Compiled(_encode_uuid, Cursor.uuid, 16),
}
