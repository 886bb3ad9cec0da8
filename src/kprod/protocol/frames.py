"""Frames: a size, a header and a body (https://kafka.apache.org/protocol#protocol_messages).

Both directions are here: the client encodes requests and decodes responses, a broker the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kprod.protocol.api_versions import API_VERSIONS
from kprod.protocol.cursor import Cursor, ProtocolError
from kprod.protocol.schema import Api, Body, write_unsigned_varint

SIZE_PREFIX = 4
"""Bytes of the big-endian frame size in front of every frame; it does not count itself."""


class BytesLeftOver(ProtocolError):
    """A whole request with bytes behind it. Apache Kafka does not look at those.

    Attributes:
        header: of the request.
        body: of the request.
    """

    def __init__(self, message: str, header: RequestHeader, body: Body) -> None:
        super().__init__(message)
        self.header = header
        self.body = body


class RequestHeader(NamedTuple):
    """What precedes the body of a request.

    `client_id` is ``None`` when the client sent null.
    """

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None


def encode_request(
    api: Api, version: int, correlation_id: int, client_id: str | None, body: Mapping[str, Any]
) -> bytes:
    """Encode a whole request frame, size prefix included.

    Args:
        api: the API, for instance :data:`kprod.protocol.METADATA`.
        version: version of the request; also decides the version of its header (v2 when flexible, else v1).
        correlation_id: int32 that the response repeats.
        client_id: name of the client, at most 32767 bytes, or ``None``.
        body: the fields by name.

    Raises:
        ValueError: the version is unknown, or a field is missing, unknown or not encodable; the message has
            its path.
    """
    codec = api.codec("request", version)
    out = bytearray(SIZE_PREFIX)
    out += api.key.to_bytes(2, "big")
    out += version.to_bytes(2, "big")
    out += correlation_id.to_bytes(4, "big", signed=True)
    if client_id is None:
        out += b"\xff\xff"
    else:
        # The length is 16 bits in every header version (KIP-482 left client_id as it was).
        encoded = client_id.encode()
        if len(encoded) > 0x7FFF:
            raise ValueError(f"client_id has {len(encoded)} bytes in UTF-8, at most 32767 are possible")
        out += len(encoded).to_bytes(2, "big") + encoded
    if api.is_flexible(version):
        write_unsigned_varint(out, 0)
    codec.encode(out, body)
    return _with_size(out)


def decode_request_header(frame: bytes | bytearray | memoryview) -> RequestHeader:
    """Decode the header of a request only, also for APIs and versions that are not known.

    Args:
        frame: the request without its size prefix.

    Raises:
        ProtocolError: the frame is malformed.
    """
    return _request_header(Cursor(frame))


def _request_header(cursor: Cursor) -> RequestHeader:
    return RequestHeader(cursor.int16(), cursor.int16(), cursor.int32(), cursor.nullable_string())


def decode_request(
    frame: bytes | bytearray | memoryview, api: Api | None = None
) -> tuple[RequestHeader, Body]:
    """Decode a request, as a broker does.

    Args:
        frame: the request without its size prefix.
        api: the API it has to be; ``None`` looks it up by its key.

    Raises:
        BytesLeftOver: everything is there, and more; it has what was decoded.
        ProtocolError: the frame is malformed, or its API or version is not known.
    """
    cursor = Cursor(frame)
    header = _request_header(cursor)
    if api is None:
        from kprod.protocol.registry import APIS  # here: clients know what they decode, and need few APIs

    found = APIS.get(header.api_key) if api is None else api
    if found is None or found.key != header.api_key:
        raise ProtocolError(f"unexpected API key {header.api_key}")
    try:
        codec = found.codec("request", header.api_version)
    except ValueError as exc:
        raise ProtocolError(str(exc)) from None
    if found.is_flexible(header.api_version):
        cursor.tagged_fields({}, {})
    body = codec.decode(cursor)
    if cursor.remaining:
        raise BytesLeftOver(_left_over(cursor, found, "request", header.api_version), header, body)
    return header, body


def encode_response(api: Api, version: int, correlation_id: int, body: Mapping[str, Any]) -> bytes:
    """Encode a whole response frame, size prefix included, as a broker does.

    Args:
        api: the API of the request.
        version: version of the request.
        correlation_id: that of the request.
        body: the fields by name.

    Raises:
        ValueError: the version is unknown, or a field is missing, unknown or not encodable; the message has
            its path.
    """
    codec = api.codec("response", version)
    out = bytearray(SIZE_PREFIX)
    out += correlation_id.to_bytes(4, "big", signed=True)
    if _has_tagged_response_header(api, version):
        write_unsigned_varint(out, 0)
    codec.encode(out, body)
    return _with_size(out)


def decode_response(api: Api, version: int, frame: bytes | bytearray | memoryview) -> tuple[int, Body]:
    """Decode a response.

    Args:
        api: the API of the request it answers.
        version: the version of that request.
        frame: the response without its size prefix.

    Returns:
        The correlation id and the body.

    Raises:
        ProtocolError: the frame is malformed or has bytes left over.
        ValueError: the version is unknown.
    """
    codec = api.codec("response", version)
    cursor = Cursor(frame)
    correlation_id = cursor.int32()
    if _has_tagged_response_header(api, version):
        cursor.tagged_fields({}, {})
    body = codec.decode(cursor)
    if cursor.remaining:
        raise ProtocolError(_left_over(cursor, api, "response", version))
    return correlation_id, body


def _has_tagged_response_header(api: Api, version: int) -> bool:
    # ApiVersions answers keep header v0: the client may not know yet which versions the broker speaks
    # (KIP-511).
    return api is not API_VERSIONS and api.is_flexible(version)


def _left_over(cursor: Cursor, api: Api, direction: str, version: int) -> str:
    return (
        f"{api.name} {direction} version {version}: "
        f"{cursor.remaining} bytes left over after byte {cursor.pos}"
    )


def _with_size(out: bytearray) -> bytes:
    out[:SIZE_PREFIX] = (len(out) - SIZE_PREFIX).to_bytes(SIZE_PREFIX, "big")
    return bytes(out)
