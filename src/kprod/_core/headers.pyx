"""Record headers: from Python objects to their section of a record.

A section is the number of headers and, for each, the length and bytes of its key (UTF-8) and of its value
(length -1: null), all lengths zigzag varints.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_Check
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from collections.abc import Mapping

from kprod._core.varint cimport VARINT_MAX, write_varint


cdef int make_room(kp_headers* h, int64_t need, int64_t* capacity) except -1:
    cdef uint8_t* grown
    cdef int64_t size
    if h.size + need <= capacity[0]:
        return 0
    size = (h.size + need) * 2
    if h.data == h.inline_data:
        grown = <uint8_t*>malloc(size)
        if grown != NULL:
            memcpy(grown, h.inline_data, h.size)
    else:
        grown = <uint8_t*>realloc(h.data, size)
    if grown == NULL:
        raise MemoryError
    h.data = grown
    capacity[0] = size
    return 0


cdef int append_header(object key, object value, kp_headers* h, int64_t* capacity) except -1:
    cdef Py_ssize_t key_size = 0
    cdef const char* key_data
    cdef Py_buffer view
    cdef const void* data = NULL
    cdef Py_ssize_t size = -1
    cdef int release = 0
    cdef uint8_t* p
    if not PyUnicode_Check(key):
        raise TypeError(f"header key must be str, got {type(key).__name__}: {key!r}")
    key_data = PyUnicode_AsUTF8AndSize(key, &key_size)
    if value is None:
        pass
    elif PyBytes_CheckExact(value):
        data = PyBytes_AS_STRING(value)
        size = PyBytes_GET_SIZE(value)
    elif PyUnicode_Check(value):
        raise TypeError(f"value of header {key!r} must be bytes or None, got str; "
                        "encode it, e.g. value.encode('utf-8')")
    else:
        try:
            PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
        except (TypeError, BufferError):
            raise TypeError(
                f"value of header {key!r} must be bytes, a contiguous bytes-like object or None, "
                f"got {type(value).__name__}") from None
        release = 1
        data = view.buf
        size = view.len
    try:
        make_room(h, key_size + (size if size > 0 else 0) + 2 * VARINT_MAX, capacity)
        p = h.data + h.size
        p = write_varint(p, key_size)
        memcpy(p, key_data, key_size)
        p = write_varint(p + key_size, size)
        if size > 0:
            memcpy(p, data, size)
            p += size
        h.size = p - h.data
        h.header_size += <int32_t>(key_size + (size if size > 0 else 0))
    finally:
        if release:
            PyBuffer_Release(&view)
    return 0


cdef int encode_headers(object headers, kp_headers* out) except -1:
    """Encode a list (or other iterable) of (str, bytes | None) pairs, or a mapping. None and empty: no headers.

    On an error nothing is left to free.
    """
    cdef int64_t capacity = HEADERS_INLINE
    cdef Py_ssize_t count
    cdef object items
    out.data = NULL
    out.size = 0
    out.header_size = -1
    if headers is None:
        return 0
    if type(headers) is list or type(headers) is tuple:
        items = headers
    elif isinstance(headers, Mapping):
        items = list(headers.items())
    elif isinstance(headers, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"headers must be a list of (str, bytes) pairs or a mapping, got {type(headers).__name__}")
    else:
        try:
            items = list(headers)
        except TypeError:
            raise TypeError(
                f"headers must be a list of (str, bytes) pairs or a mapping, got {type(headers).__name__}") from None
    count = len(items)
    if count == 0:
        return 0
    out.data = out.inline_data
    out.size = write_varint(out.data, count) - out.data
    out.header_size = 0
    try:
        for item in items:
            if type(item) is not tuple:
                if isinstance(item, (str, bytes, bytearray)):
                    raise TypeError(f"a header must be a (str, bytes) pair, got {item!r}")
                try:
                    item = tuple(item)
                except TypeError:
                    raise TypeError(f"a header must be a (str, bytes) pair, got {item!r}") from None
            if len(<tuple>item) != 2:
                raise TypeError(f"a header must be a (str, bytes) pair, got {item!r}")
            append_header((<tuple>item)[0], (<tuple>item)[1], out, &capacity)
    except BaseException:
        free_headers(out)
        raise
    return 0


cdef void free_headers(kp_headers* h) noexcept nogil:
    if h.data != NULL and h.data != h.inline_data:
        free(h.data)
    h.data = NULL


def encode(headers):
    """The header section of `headers` as bytes; b"\\0" for none. For tests."""
    cdef kp_headers h
    encode_headers(headers, &h)
    if h.data == NULL:
        return b"\0"
    try:
        return bytes((<const char*>h.data)[:h.size])
    finally:
        free_headers(&h)
