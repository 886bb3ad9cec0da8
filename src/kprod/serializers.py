"""From keys and values to bytes: the :class:`Serializer` protocol and the usual serializers.

``key_serializer`` and ``value_serializer`` take

* a function of one argument: ``value_serializer=lambda v: json.dumps(v).encode()``;
* an object with ``serialize(topic, headers, data)``, as in kafka-python 3, or ``serialize(topic, data)``, as
  in kafka-python 2;
* a callable of two, the second named ``ctx``, as confluent-kafka's serializers are: it gets a
  :class:`SerializationContext`. An object that has this form and ``serialize`` is called in this form.

Which of these it is, is read off the signature once, when the producer is made. An exception of a serializer
reaches the caller of ``send()`` as it is, also a ``TypeError``.

A serializer is **never called for None**. A null key or value is part of Kafka's data model: it says "no
key", or "delete this key" (a tombstone). kafka-python calls functions with None too, so that
``json.dumps(None)`` writes the four bytes ``null`` where a tombstone was meant.
"""

from __future__ import annotations

import importlib
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

from kprod.records import Bytes
from kprod.signatures import is_required, positional_parameters
from kprod.values import Value

Which = Literal["key", "value"]

SerializeFunction = Callable[[str, Any, Any], "Bytes | None"]
"""What a producer calls: ``f(topic, headers, data)``."""


class Serializer(ABC):
    """Makes bytes of keys or values. It is a contract: any object with a ``serialize`` method will do."""

    @abstractmethod
    def serialize(self, topic: str, headers: Any, data: Any) -> Bytes | None:
        """Make bytes of a key or value.

        Args:
            topic: the topic of the record.
            headers: the record's headers as the caller gave them; a list may be appended to.
            data: the key or value; never None.

        Returns:
            Bytes, or None for a null key or value.
        """

    def close(self) -> None:
        """Called once, when the producer is closed."""


class SerializationContext(Value):
    """What a callable of confluent-kafka's kind gets as its second argument."""

    topic: str
    """The topic of the record."""
    field: str
    """``'key'`` or ``'value'``."""
    headers: Any = None
    """The record's headers."""


class BytesSerializer(Serializer):
    """Takes bytes, bytearray and memoryview as they are.

    Raises:
        TypeError: for anything else.
    """

    def serialize(self, topic: str, headers: Any, data: Any) -> Bytes | None:
        if isinstance(data, (bytes, bytearray, memoryview)):
            return data
        raise TypeError(f"BytesSerializer takes bytes, bytearray or memoryview, not {type(data).__name__}")


class StringSerializer(Serializer):
    """Encodes str; bytes-like objects pass as they are, as in kafka-python.

    Args:
        encoding: how str is encoded.

    Raises:
        LookupError: there is no such encoding.
        TypeError: on use, for anything but str and bytes-like objects.
        UnicodeEncodeError: on use, for text the encoding does not have.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        "".encode(encoding)
        self.encoding = encoding

    def serialize(self, topic: str, headers: Any, data: Any) -> Bytes | None:
        if isinstance(data, str):
            return data.encode(self.encoding)
        if isinstance(data, (bytes, bytearray, memoryview)):
            return data
        raise TypeError(f"{type(self).__name__} takes str or bytes, not {type(data).__name__}")


class DefaultSerializer(StringSerializer):
    """kafka-python's name of :class:`StringSerializer`."""


JsonLibrary = Literal["json", "orjson", "msgspec"]


class JsonSerializer(Serializer):
    """Writes JSON as UTF-8, without spaces.

    orjson does it where it is installed, several times as fast; what it refuses, and what contains a null
    (which it also writes for NaN), goes to the standard library. With orjson UUIDs and members of enums are
    written as strings and as their values; the standard library refuses them.

    Args:
        default: called for objects that JSON has no form for, as in :func:`json.dumps`.
        ensure_ascii: escape everything that is not ASCII.
        sort_keys: write the keys of objects in order, so that equal objects give equal bytes. The standard
            library does it then, so that they do not depend on what is installed.
        library: ``'json'``, ``'orjson'`` or ``'msgspec'``; None: orjson if it is installed and the other
            options allow it, or else json. msgspec is never chosen by itself: it takes more types than the
            others (bytes, sets, Decimal, Struct), and writes NaN as null.

    Raises:
        ImportError: the library that was named is not installed.
        ValueError: ``library`` is none of these, or an option is set that it does not have.
        TypeError: on use, for objects that JSON has no form for.
        ValueError: on use, for NaN and infinity, which are not JSON.
    """

    def __init__(
        self,
        *,
        default: Callable[[Any], Any] | None = None,
        ensure_ascii: bool = False,
        sort_keys: bool = False,
        library: JsonLibrary | None = None,
    ) -> None:
        if library not in (None, "json", "orjson", "msgspec"):
            raise ValueError(f"library={library!r}: must be 'json', 'orjson', 'msgspec' or None")
        if library in ("orjson", "msgspec") and ensure_ascii:
            raise ValueError(f"library={library!r} cannot escape what is not ASCII: leave out ensure_ascii")
        from json import JSONEncoder  # here: few programs that send need it

        encode = JSONEncoder(
            default=default,
            ensure_ascii=ensure_ascii,
            sort_keys=sort_keys,
            allow_nan=False,
            separators=(",", ":"),
        ).encode
        self._encode: Callable[[Any], bytes] = lambda data: encode(data).encode("utf-8")
        if library == "msgspec":
            self._encode = _msgspec_encode(default, sort_keys)
        elif library == "orjson":
            self._encode = _orjson_encode(default, sort_keys, self._encode)
        elif library is None and not ensure_ascii and not sort_keys:
            try:
                self._encode = _orjson_encode(default, sort_keys, self._encode)
            except ImportError:
                pass

    def serialize(self, topic: str, headers: Any, data: Any) -> Bytes | None:
        return self._encode(data)


def _orjson_encode(
    default: Callable[[Any], Any] | None, sort_keys: bool, otherwise: Callable[[Any], bytes]
) -> Callable[[Any], bytes]:
    orjson: Any = importlib.import_module("orjson")
    dumps, refuses = orjson.dumps, orjson.JSONEncodeError
    # What the standard library gives to `default` goes there.
    option = (
        orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    )
    if sort_keys:
        option |= orjson.OPT_SORT_KEYS

    def encode(data: Any) -> bytes:
        try:
            made: bytes = dumps(data, default, option)
        except refuses:  # numbers beyond 64 bits, keys that are no strings, or a mistake that json explains
            return otherwise(data)
        return otherwise(data) if b"null" in made else made

    return encode


def _msgspec_encode(default: Callable[[Any], Any] | None, sort_keys: bool) -> Callable[[Any], bytes]:
    msgspec_json: Any = importlib.import_module("msgspec.json")
    encode: Callable[[Any], bytes] = msgspec_json.Encoder(
        enc_hook=default, order="deterministic" if sort_keys else None
    ).encode
    return encode


class _StructSerializer(Serializer):
    """A number in the Java client's form: big-endian, of fixed size."""

    _format: struct.Struct
    _takes: tuple[type, ...]

    def serialize(self, topic: str, headers: Any, data: Any) -> Bytes | None:
        if not isinstance(data, self._takes) or isinstance(data, bool):
            raise TypeError(
                f"{type(self).__name__} takes {self._takes[-1].__name__}, not {type(data).__name__}"
            )
        try:
            return self._format.pack(data)
        except (struct.error, OverflowError):
            raise ValueError(f"{data!r} does not fit into {self._format.size} bytes") from None


class ShortSerializer(_StructSerializer):
    """An int in 2 bytes, as Java's ``ShortSerializer``.

    Raises:
        TypeError: on use, for anything but int.
        ValueError: on use, for numbers that do not fit.
    """

    _format = struct.Struct(">h")
    _takes = (int,)


class IntegerSerializer(_StructSerializer):
    """An int in 4 bytes, as Java's ``IntegerSerializer``.

    Raises:
        TypeError: on use, for anything but int.
        ValueError: on use, for numbers that do not fit.
    """

    _format = struct.Struct(">i")
    _takes = (int,)


class LongSerializer(_StructSerializer):
    """An int in 8 bytes, as Java's ``LongSerializer``.

    Raises:
        TypeError: on use, for anything but int.
        ValueError: on use, for numbers that do not fit.
    """

    _format = struct.Struct(">q")
    _takes = (int,)


class FloatSerializer(_StructSerializer):
    """A float in 4 bytes, as Java's ``FloatSerializer``.

    Raises:
        TypeError: on use, for anything but float and int.
        ValueError: on use, for numbers that do not fit.
    """

    _format = struct.Struct(">f")
    _takes = (int, float)


class DoubleSerializer(_StructSerializer):
    """A float in 8 bytes, as Java's ``DoubleSerializer``.

    Raises:
        TypeError: on use, for anything but float and int.
        ValueError: on use, for ints beyond the range of floats.
    """

    _format = struct.Struct(">d")
    _takes = (int, float)


class UUIDSerializer(Serializer):
    """A :class:`uuid.UUID` as its 36 characters, as Java's ``UUIDSerializer``.

    Raises:
        TypeError: on use, for anything but a UUID.
    """

    def serialize(self, topic: str, headers: Any, data: Any) -> Bytes | None:
        import uuid  # here: it looks at the platform when it is imported

        if not isinstance(data, uuid.UUID):
            raise TypeError(f"UUIDSerializer takes uuid.UUID, not {type(data).__name__}")
        return str(data).encode("ascii")


_BY_NAME: dict[str, Callable[[], Serializer]] = {
    "ByteArraySerializer": BytesSerializer,
    "ByteBufferSerializer": BytesSerializer,
    "BytesSerializer": BytesSerializer,
    "StringSerializer": StringSerializer,
    "ShortSerializer": ShortSerializer,
    "IntegerSerializer": IntegerSerializer,
    "LongSerializer": LongSerializer,
    "FloatSerializer": FloatSerializer,
    "DoubleSerializer": DoubleSerializer,
    "UUIDSerializer": UUIDSerializer,
    "JsonSerializer": JsonSerializer,
}


def serializer_by_name(name: str) -> Serializer:
    """The serializer that does what the Java client's of that class name does.

    Args:
        name: a class name with or without package, as in ``key.serializer=`` of a properties file.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        return _BY_NAME[name.rpartition(".")[2]]()
    except KeyError:
        raise ValueError(f"{name!r} is none of {', '.join(_BY_NAME)}") from None


def is_serializer(value: object) -> bool:
    """Whether a value can be given as a serializer: None, a callable, or an object with ``serialize()``."""
    if isinstance(value, type) and callable(getattr(value, "serialize", None)):
        return False  # the class where an instance is needed
    return value is None or callable(value) or callable(getattr(value, "serialize", None))


def as_callable(serializer: Any, which: Which) -> SerializeFunction | None:
    """Bring a serializer into the one form that a producer calls.

    Args:
        serializer: what the user gave as ``key_serializer`` or ``value_serializer``.
        which: which of the two it is, for error messages and :attr:`SerializationContext.field`.

    Returns:
        ``f(topic, headers, data)``, which returns None for None without calling the serializer; or None if
        there is no serializer.

    Raises:
        TypeError: it is not a serializer, or its signature fits none of the forms.
    """
    if serializer is None:
        return None
    if not is_serializer(serializer):
        raise TypeError(
            f"{which}_serializer must be a callable, an object with a serialize() method or None, not "
            f"{serializer!r}"
        )
    if callable(serializer) and _context_parameter(serializer):
        # Before serialize(), where an object has both: only this form is told whether it is a key or a value.
        return _from_callable(serializer, which)
    method = getattr(serializer, "serialize", None)
    if callable(method):
        return _from_method(method, which)
    return _from_callable(serializer, which)


def as_unary(serializer: Any, which: Which) -> Callable[[Any], Bytes | None] | None:
    """A serializer as a function of the data alone, where that is all it looks at.

    It spares a call per record. It must not be called for None.

    Args:
        serializer: what the user gave as ``key_serializer`` or ``value_serializer``.
        which: which of the two it is.

    Returns:
        ``f(data)``; or None if there is no serializer, or it wants to know topic, headers or field.
    """
    if serializer is None or callable(getattr(serializer, "serialize", None)) or not callable(serializer):
        return None
    if _context_parameter(serializer) or _required(serializer) not in (1, None):
        return None
    unary: Callable[[Any], Bytes | None] = serializer
    return unary


def _from_method(method: Callable[..., Any], which: Which) -> SerializeFunction:
    count = _required(method)
    if count == 3 or count is None:

        def with_headers(topic: str, headers: Any, data: Any) -> Any:
            return None if data is None else method(topic, headers, data)

        return with_headers
    if count == 2:

        def with_topic(topic: str, headers: Any, data: Any) -> Any:
            return None if data is None else method(topic, data)

        return with_topic
    raise TypeError(
        f"serialize() of {which}_serializer must take (topic, headers, data) or (topic, data), not "
        f"{count} arguments"
    )


def _from_callable(function: Callable[..., Any], which: Which) -> SerializeFunction:
    if _context_parameter(function):

        def with_context(topic: str, headers: Any, data: Any) -> Any:
            return None if data is None else function(data, SerializationContext(topic, which, headers))

        return with_context
    count = _required(function)
    if count == 1 or count is None:

        def plain(topic: str, headers: Any, data: Any) -> Any:
            return None if data is None else function(data)

        return plain
    if count == 3:

        def full(topic: str, headers: Any, data: Any) -> Any:
            return None if data is None else function(topic, headers, data)

        return full
    raise TypeError(
        f"{which}_serializer must be callable with (data), (data, ctx) or (topic, headers, data), "
        f"but takes {count} arguments"
    )


def _required(function: Callable[..., Any]) -> int | None:
    """How many positional arguments must be given; all that there are, if every one has a default."""
    positional = positional_parameters(function)
    if positional is None:
        return None
    required = sum(map(is_required, positional))
    return required or min(len(positional), 1)


def _context_parameter(function: Callable[..., Any]) -> bool:
    """Whether the second parameter is confluent-kafka's ``ctx``."""
    positional = positional_parameters(function)
    return positional is not None and len(positional) == 2 and positional[1].name == "ctx"
