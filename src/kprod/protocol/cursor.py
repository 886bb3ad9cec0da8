"""Bounds-checked reading of Kafka's primitive types from untrusted bytes.

Every byte that comes from the network and is not record data passes through :class:`Cursor`. Whatever the
bytes are, a read either returns a value or raises :class:`ProtocolError`; it never reads outside the frame
and never allocates more than a small multiple of the frame.

Types as in the protocol guide (https://kafka.apache.org/protocol#protocol_types); compact types and tagged
fields are KIP-482.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

MAX_ARRAY_ELEMENTS = 1_000_000
"""Longest array accepted; the Java client of Kafka 4.4 has the same limit."""

MAX_ROWS = 250_000
"""Most elements accepted of all arrays of structs in a message together.

An element takes some hundred bytes of memory for ten bytes in a frame. A producer asks for its own topics
only: this is enough for more partitions than Apache Kafka recommends for a whole cluster.
"""

MAX_TAGGED_FIELDS = 10_000
"""Most tagged fields accepted in one struct; the Java client of Kafka 4.4 has the same limit."""

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")
_UINT16 = struct.Struct(">H")
_FLOAT64 = struct.Struct(">d")


class ProtocolError(Exception):
    """The peer sent bytes that are not a valid Kafka message.

    Raised by everything in :mod:`kprod.protocol` that decodes, for truncated, oversized or contradictory
    input. The connection it came from is out of step and has to be closed.
    """


class Cursor:
    """A read position in one frame.

    Args:
        data: the frame. A ``bytes`` object is used as is, anything else is copied once.
        pos: where to start, in bytes.

    Every reading method raises :class:`ProtocolError` when the frame ends too early or holds an impossible
    value.
    """

    __slots__ = ("_rows_left", "data", "end", "pos")

    def __init__(self, data: bytes | bytearray | memoryview, pos: int = 0) -> None:
        self.data = bytes(data)
        self.pos = pos
        self.end = len(self.data)
        self._rows_left = MAX_ROWS

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self.end - self.pos

    def _advance(self, size: int) -> int:
        """Move over `size` bytes and return the position before them."""
        pos = self.pos
        after = pos + size
        if size < 0 or after > self.end:
            raise ProtocolError(
                f"truncated message: {size} bytes wanted at byte {pos}, {self.end - pos} are left"
            )
        self.pos = after
        return pos

    def int8(self) -> int:
        """Read a signed byte."""
        value = self.data[self._advance(1)]
        return value - 256 if value > 127 else value

    def int16(self) -> int:
        """Read a signed 16-bit integer."""
        pos = self._advance(2)
        return int(_INT16.unpack_from(self.data, pos)[0])

    def uint16(self) -> int:
        """Read an unsigned 16-bit integer."""
        pos = self._advance(2)
        return int(_UINT16.unpack_from(self.data, pos)[0])

    def int32(self) -> int:
        """Read a signed 32-bit integer."""
        pos = self._advance(4)
        return int(_INT32.unpack_from(self.data, pos)[0])

    def int64(self) -> int:
        """Read a signed 64-bit integer."""
        pos = self._advance(8)
        return int(_INT64.unpack_from(self.data, pos)[0])

    def float64(self) -> float:
        """Read an IEEE 754 double."""
        pos = self._advance(8)
        return float(_FLOAT64.unpack_from(self.data, pos)[0])

    def boolean(self) -> bool:
        """Read a boolean; like Java, every byte but 0 is true."""
        return self.data[self._advance(1)] != 0

    def uuid(self) -> bytes:
        """Read a UUID as its 16 bytes."""
        pos = self._advance(16)
        return self.data[pos : pos + 16]

    def raw(self, size: int) -> bytes:
        """Read `size` bytes."""
        pos = self._advance(size)
        return self.data[pos : pos + size]

    def unsigned_varint(self) -> int:
        """Read an unsigned varint of at most 32 bits (5 bytes)."""
        data = self.data
        pos = self.pos
        end = self.end
        value = 0
        for shift in (0, 7, 14, 21, 28):
            if pos >= end:
                raise ProtocolError(f"truncated message: it ends inside the varint at byte {self.pos}")
            byte = data[pos]
            pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > 0xFFFFFFFF:
                    break
                self.pos = pos
                return value
        raise ProtocolError(f"varint at byte {self.pos} does not fit in 32 bits")

    def _text(self, size: int) -> str:
        pos = self._advance(size)
        try:
            return self.data[pos : pos + size].decode()
        except UnicodeDecodeError as exc:
            raise ProtocolError(f"string at byte {pos} is not UTF-8: {exc.reason}") from None

    def nullable_string(self) -> str | None:
        """Read a string with a 16-bit length; length -1 is null."""
        size = self.int16()
        if size < 0:
            if size == -1:
                return None
            raise ProtocolError(f"negative string length {size} before byte {self.pos}")
        return self._text(size)

    def nullable_compact_string(self) -> str | None:
        """Read a string whose length + 1 is an unsigned varint; 0 is null."""
        size = self.unsigned_varint()
        return self._text(size - 1) if size else None

    def nullable_bytes(self) -> bytes | None:
        """Read bytes with a 32-bit length; length -1 is null."""
        size = self.int32()
        if size < 0:
            if size == -1:
                return None
            raise ProtocolError(f"negative length {size} of bytes before byte {self.pos}")
        return self.raw(size)

    def nullable_compact_bytes(self) -> bytes | None:
        """Read bytes whose length + 1 is an unsigned varint; 0 is null."""
        size = self.unsigned_varint()
        return self.raw(size - 1) if size else None

    def array_length(self, element_size: int) -> int:
        """Read a 32-bit number of elements of at least `element_size` bytes each; -1 is a null array."""
        count = self.int32()
        if count < -1:
            raise ProtocolError(f"negative array length {count} before byte {self.pos}")
        return self._checked_length(count, element_size)

    def compact_array_length(self, element_size: int) -> int:
        """Read a number of elements written as unsigned varint + 1; -1 is a null array."""
        return self._checked_length(self.unsigned_varint() - 1, element_size)

    def take_rows(self, count: int) -> None:
        """Note that an array of `count` structs is about to be read; raises when these are too many."""
        self._rows_left -= count
        if self._rows_left < 0:
            raise ProtocolError(f"more than {MAX_ROWS} elements of arrays in one message")

    def _checked_length(self, count: int, element_size: int) -> int:
        # A count that the rest of the frame cannot hold is refused before anything is allocated for it.
        if count * element_size > self.end - self.pos:
            raise ProtocolError(
                f"array of {count} elements announced before byte {self.pos}, "
                f"but only {self.remaining} bytes are left"
            )
        if count > MAX_ARRAY_ELEMENTS:
            raise ProtocolError(f"array of {count} elements, at most {MAX_ARRAY_ELEMENTS} are accepted")
        return count

    def tagged_fields(
        self, known: Mapping[int, tuple[str, Callable[[Cursor], Any]]], into: dict[str, Any]
    ) -> None:
        """Read one tagged-field section (KIP-482).

        Args:
            known: for each understood tag its name and the function that reads its value; other tags are
                skipped.
            into: receives the values by name.

        Raises:
            ProtocolError: also when tags are not in ascending order, or a value is not exactly as long as
                announced.
        """
        count = self.unsigned_varint()
        if not count:
            return
        if count > MAX_TAGGED_FIELDS:
            raise ProtocolError(f"{count} tagged fields, at most {MAX_TAGGED_FIELDS} are accepted")
        previous = -1
        for _ in range(count):
            tag = self.unsigned_varint()
            if tag <= previous:
                raise ProtocolError(f"tagged field {tag} after {previous}: tags must ascend")
            previous = tag
            size = self.unsigned_varint()
            start = self._advance(size)
            if tag not in known:
                continue
            name, read = known[tag]
            outer_end = self.end
            # The value must not read past its own announced size into the next field.
            self.pos, self.end = start, start + size
            into[name] = read(self)
            if self.pos != self.end:
                raise ProtocolError(f"tagged field {tag} has {self.end - self.pos} bytes too many")
            self.end = outer_end
