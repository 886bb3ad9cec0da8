"""Where a record says which schema it was written with.

``prefix``
    in front of the payload: a zero byte, and the schema id in four bytes, big-endian. All deserializers read
    it.
``header``
    in the record's header ``__key_schema_id`` or ``__value_schema_id``: a byte 1, and the schema's GUID in 16
    bytes; the payload is left as it is. Confluent Platform 8.1, Java's ``HeaderSchemaIdSerializer``.

Protobuf adds which message of the file it is: how many indexes there are and the indexes, as zigzag varints;
for the first message, which most are, a single zero byte.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kprod.errors import KafkaConfigurationError
from kprod.schema_registry.errors import SerializationError

KEY_SCHEMA_ID_HEADER = "__key_schema_id"
VALUE_SCHEMA_ID_HEADER = "__value_schema_id"


@dataclass(frozen=True)
class SchemaId:
    """What a framing writes."""

    schema_type: str
    """``AVRO``, ``PROTOBUF`` or ``JSON``."""
    id: int
    """Number of the schema in the registry."""
    guid: str | None = None
    """Id of the schema's content."""
    message_indexes: tuple[int, ...] | None = None
    """Path to the Protobuf message in its file; None: not Protobuf."""

    def id_to_bytes(self) -> bytes:
        """The prefix of a payload."""
        return struct.pack(">bI", 0, self.id) + self._indexes()

    def guid_to_bytes(self) -> bytes:
        """The value of a header.

        Raises:
            SerializationError: the registry gave no GUID.
        """
        if self.guid is None:
            raise SerializationError(
                f"framing='header' writes the schema's GUID, and the registry gave none for schema id "
                f"{self.id}: "
                f"it must be Confluent Schema Registry 7.9 or newer; with others use framing='prefix'"
            )
        return b"\x01" + uuid.UUID(self.guid).bytes + self._indexes()

    def _indexes(self) -> bytes:
        return b"" if self.message_indexes is None else encode_message_indexes(self.message_indexes)


Framing = Callable[[bytes, Any, SchemaId], bytes]
"""``f(payload, context, schema_id)`` gives the payload to send; confluent-kafka's fit."""


def encode_message_indexes(indexes: Sequence[int]) -> bytes:
    """The path to a Protobuf message, as deserializers of all languages read it."""
    if tuple(indexes) == (0,):
        return b"\x00"
    encoded = bytearray()
    for number in (len(indexes), *indexes):
        rest = number << 1  # zigzag of what is never negative
        while rest > 0x7F:
            encoded.append(rest & 0x7F | 0x80)
            rest >>= 7
        encoded.append(rest)
    return bytes(encoded)


def prefix_framing(payload: bytes, ctx: Any, schema_id: SchemaId) -> bytes:
    """Write the schema id in front of the payload."""
    return schema_id.id_to_bytes() + payload


def header_framing(payload: bytes, ctx: Any, schema_id: SchemaId) -> bytes:
    """Write the schema's GUID into the record's headers.

    Raises:
        SerializationError: the record has no list of headers to append to, or there is no GUID.
    """
    name = KEY_SCHEMA_ID_HEADER if str(ctx.field) == "key" else VALUE_SCHEMA_ID_HEADER
    if isinstance(ctx.headers, list):
        # A caller may use one list for many records.
        ctx.headers[:] = [header for header in ctx.headers if header[0] != name]
        ctx.headers.append((name, schema_id.guid_to_bytes()))
    elif isinstance(ctx.headers, dict):
        ctx.headers[name] = schema_id.guid_to_bytes()
    else:
        raise SerializationError(
            f"framing='header' adds {name} to the record's headers, and topic {ctx.topic}'s record came with "
            f"headers={ctx.headers!r}: give send() a list, headers=[] if there are none"
        )
    return payload


_BY_NAME: Mapping[str, Framing] = {
    "prefix": prefix_framing,
    "header": header_framing,
    "PrefixSchemaIdSerializer": prefix_framing,
    "HeaderSchemaIdSerializer": header_framing,
}


def framing(given: str | Framing) -> Framing:
    """A framing by name (``prefix``, ``header``, or the Java class's), or as it is.

    Raises:
        KafkaConfigurationError: it is neither a known name nor callable.
    """
    if isinstance(given, str):
        found = _BY_NAME.get(given.rpartition(".")[2])
        if found is not None:
            return found
    elif callable(given):
        return given
    raise KafkaConfigurationError(
        f"framing={given!r}: must be 'prefix', 'header', or a function of (payload, context, schema id)"
    )
