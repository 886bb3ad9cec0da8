"""Serializers of confluent-kafka's form: callables of (object, SerializationContext)."""

from __future__ import annotations

import struct
from enum import Enum
from typing import Any

from kprod.compat.confluent_kafka.error import KafkaError, KafkaException, code_named


class MessageField(str, Enum):
    """The part of a message that is being serialized."""

    NONE = "none"
    KEY = "key"
    VALUE = "value"

    def __str__(self) -> str:
        return str(self.value)


class SerializationContext:
    """What a serializer is told beside the object.

    Args:
        topic: where the message goes.
        field: which part it is.
        headers: of the message; a serializer may add to a list.
    """

    def __init__(self, topic: str, field: MessageField, headers: Any = None) -> None:
        self.topic = topic
        self.field = field
        self.headers = headers


class SerializationError(KafkaException):
    """An object could not be serialized."""

    def __init__(self, message: Any = "") -> None:
        error = message
        if not isinstance(message, KafkaError):
            error = KafkaError(code_named("_VALUE_SERIALIZATION"), str(message))
        super().__init__(error)


class Serializer:
    """Base of serializers: ``serializer(obj, ctx)`` gives bytes, or None for null."""

    def __call__(self, obj: Any, ctx: SerializationContext | None = None) -> bytes | None:
        """The object as bytes."""
        raise NotImplementedError


class StringSerializer(Serializer):
    """str to bytes.

    Args:
        codec: the name of the encoding.
    """

    def __init__(self, codec: str = "utf_8") -> None:
        self.codec = codec

    def __call__(self, obj: str | None, ctx: SerializationContext | None = None) -> bytes | None:
        """The encoded text; SerializationError: it cannot be encoded."""
        if obj is None:
            return None
        try:
            return obj.encode(self.codec)
        except (AttributeError, UnicodeError) as error:
            raise SerializationError(str(error)) from error


class _Packed(Serializer):
    _format = ""

    def __call__(self, obj: Any, ctx: SerializationContext | None = None) -> bytes | None:
        if obj is None:
            return None
        try:
            return struct.pack(self._format, obj)
        except struct.error as error:
            raise SerializationError(str(error)) from error


class IntegerSerializer(_Packed):
    """int to four bytes, as Java's IntegerSerializer."""

    _format = ">i"


class DoubleSerializer(_Packed):
    """float to eight bytes, as Java's DoubleSerializer."""

    _format = ">d"
