"""Columns of values in memory that others own: what send_many() and send_columns() read their records from.

A chunk is one stretch of such memory. Reading a value makes no Python object, needs no GIL, and checks every offset it
uses, each time: other threads may write to a buffer while it is read.
"""
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t
from libc.string cimport memcpy

cdef extern from "Python.h" nogil:
    PyObject* NONE "Py_None"
    char* bytes_data "PyBytes_AS_STRING"(PyObject* o)
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject* o)

# How a chunk holds its values.
cdef enum:
    CHUNK_NULL = 0             # all are null
    CHUNK_SAME = 1             # `data`, `width` for all
    CHUNK_OBJECTS = 2          # bytes objects and None
    CHUNK_OFFSETS32 = 3        # value i is data[offsets[i]:offsets[i + 1]]
    CHUNK_OFFSETS64 = 4
    CHUNK_FIXED = 5            # value i is data[i * width:(i + 1) * width]
    CHUNK_VIEWS = 6            # Arrow's 16-byte views

# Sizes that are none.
cdef enum:
    SIZE_NULL = -1
    SIZE_BAD = -2              # offsets that decrease, or lead out of the data

cdef enum:
    VIEW_SIZE = 16
    VIEW_INLINE = 12           # a view holds values up to this size itself


cdef struct kp_chunk:
    int32_t kind
    int64_t offset             # added to the index of a value
    const uint8_t* validity    # bit set: not null. NULL: no value is
    const uint8_t* offsets     # or views; at any alignment
    const uint8_t* data
    int64_t data_size          # INT64_MAX: not known, as in Arrow arrays
    int64_t width
    PyObject** objects
    const uint8_t** buffers    # what views point into
    const uint8_t* buffer_sizes    # int64 each
    int64_t n_buffers


cdef inline int32_t load_i32(const uint8_t* p) noexcept nogil:
    cdef int32_t value
    memcpy(&value, p, 4)
    return value


cdef inline int64_t load_i64(const uint8_t* p) noexcept nogil:
    cdef int64_t value
    memcpy(&value, p, 8)
    return value


cdef inline const uint8_t* chunk_view(const kp_chunk* c, int64_t i, int64_t* size) noexcept nogil:
    cdef const uint8_t* view = c.offsets + i * VIEW_SIZE
    cdef int64_t length = load_i32(view)
    cdef int64_t buffer, start
    size[0] = length
    if 0 <= length <= VIEW_INLINE:
        return view + 4
    buffer = load_i32(view + 8)
    start = load_i32(view + 12)
    if (length < 0 or buffer < 0 or buffer >= c.n_buffers or start < 0
            or start + length > load_i64(c.buffer_sizes + buffer * 8)):
        size[0] = SIZE_BAD
        return NULL
    return c.buffers[buffer] + start


cdef inline const uint8_t* chunk_get(const kp_chunk* c, int64_t i, int64_t* size) noexcept nogil:
    """The value at index `i`; SIZE_NULL and SIZE_BAD are sizes, too."""
    cdef int64_t start, end
    cdef PyObject* item
    if c.kind == CHUNK_NULL:
        size[0] = SIZE_NULL
        return NULL
    if c.kind == CHUNK_SAME:
        size[0] = c.width
        return c.data
    i += c.offset
    if c.kind == CHUNK_OBJECTS:
        item = c.objects[i]
        if item == NONE:
            size[0] = SIZE_NULL
            return NULL
        size[0] = bytes_size(item)
        return <const uint8_t*>bytes_data(item)
    if c.validity != NULL and not (c.validity[i >> 3] >> (i & 7)) & 1:
        size[0] = SIZE_NULL
        return NULL
    if c.kind == CHUNK_OFFSETS32:
        start = load_i32(c.offsets + i * 4)
        end = load_i32(c.offsets + i * 4 + 4)
    elif c.kind == CHUNK_OFFSETS64:
        start = load_i64(c.offsets + i * 8)
        end = load_i64(c.offsets + i * 8 + 8)
    elif c.kind == CHUNK_FIXED:
        size[0] = c.width
        return c.data + i * c.width
    else:
        return chunk_view(c, i, size)
    if start < 0 or end < start or end > c.data_size:
        size[0] = SIZE_BAD
        return NULL
    size[0] = end - start
    return c.data + start


cdef class Column:
    cdef readonly str name
    cdef readonly int64_t length
    cdef kp_chunk* chunks
    cdef int64_t* starts       # index of each chunk's first value; one more at the end: `length`
    cdef int32_t n_chunks
    cdef int32_t capacity
    cdef list owners           # what keeps the memory alive

    cdef int add(self, const kp_chunk* chunk, int64_t length) except -1
    cdef kp_chunk* at(self, int64_t index) noexcept nogil


cdef class Integers:
    cdef readonly str name
    cdef int64_t value         # all of them, if there are no items; -1: none is given
    cdef int64_t* items        # -1: null
    cdef int64_t length

    cdef int reserve(self, int64_t length) except -1
    cdef int put(self, int64_t index, object item) except -1


cdef Column column_of_nulls(str name, int64_t length)
cdef Column column_of_one(str name, bytes value, int64_t length)
cdef Column column_of_objects(str name, object items)
cdef Column column_of_buffers(str name, object data, object offsets)
cdef Integers integers_of(str name, object source, int64_t length)
