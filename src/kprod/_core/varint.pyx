"""Variable-length integers of the Kafka protocol, for Python callers.

The encodings themselves are in ``csrc/kp_varint.h``; other extension modules
use them through ``varint.pxd``.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef enum Encoding:
    VARINT
    VARLONG
    UVARINT


cdef tuple decode(object data, Py_ssize_t offset, Encoding encoding):
    cdef Py_buffer view
    cdef const uint8_t* start
    cdef const uint8_t* end
    cdef const uint8_t* after = NULL
    cdef int32_t narrow = 0
    cdef int64_t wide = 0
    cdef uint32_t plain = 0
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if not 0 <= offset <= view.len:
            raise ValueError(f"offset is {offset}: must be in 0..{view.len}, the length of the data")
        start = <const uint8_t*>view.buf
        end = start + view.len
        if encoding == VARINT:
            after = read_varint(start + offset, end, &narrow)
            wide = narrow
        elif encoding == VARLONG:
            after = read_varlong(start + offset, end, &wide)
        else:
            after = read_uvarint(start + offset, end, &plain)
            wide = plain
        if after is NULL:
            raise ValueError(f"no valid variable-length integer at offset {offset}: cut off or too wide")
        return wide, after - start
    finally:
        PyBuffer_Release(&view)


def encode_varint(value, /):
    """*value* as a zigzag varint (or varlong: the bytes are the same).

    Args:
        value: -2**63..2**63-1.

    Raises:
        OverflowError: *value* does not fit.
    """
    cdef uint8_t room[VARINT_MAX]
    cdef int64_t v = value
    cdef uint8_t* after = write_varint(room, v)
    return (<char*>room)[:after - room]


def encode_uvarint(value, /):
    """*value* as an unsigned varint.

    Args:
        value: 0..2**64-1.

    Raises:
        OverflowError: *value* does not fit or is negative.
    """
    cdef uint8_t room[VARINT_MAX]
    cdef uint64_t v = value
    cdef uint8_t* after = write_uvarint(room, v)
    return (<char*>room)[:after - room]


def decode_varint(data, offset=0, /):
    """The zigzag varint (32-bit) at *offset* bytes into *data*: ``(value, offset after it)``.

    Raises:
        ValueError: the value is cut off or wider than 32 bits, or *offset* is outside of *data*.
    """
    return decode(data, offset, VARINT)


def decode_varlong(data, offset=0, /):
    """The zigzag varlong (64-bit) at *offset* bytes into *data*: ``(value, offset after it)``.

    Raises:
        ValueError: the value is cut off or wider than 64 bits, or *offset* is outside of *data*.
    """
    return decode(data, offset, VARLONG)


def decode_uvarint(data, offset=0, /):
    """The unsigned varint (32-bit) at *offset* bytes into *data*: ``(value, offset after it)``.

    Raises:
        ValueError: the value is cut off or wider than 32 bits, or *offset* is outside of *data*.
    """
    return decode(data, offset, UVARINT)


def size_of_varint(value, /):
    """How many bytes :func:`encode_varint` makes of *value*."""
    return varint_size(value)


def size_of_uvarint(value, /):
    """How many bytes :func:`encode_uvarint` makes of *value*."""
    return uvarint_size(value)
