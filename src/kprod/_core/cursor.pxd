"""The one way in which network bytes are read in the core: a cursor that cannot leave its frame.

Every read checks its bounds. A read past the end (or a malformed varint or count) sets `bad` and yields zeros from
then on, so that a parser may read on and look at `bad` where it matters.
"""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stddef cimport size_t

from kprod._core.endian cimport load_be16, load_be32, load_be64
from kprod._core.varint cimport read_uvarint

cdef struct kp_cursor:
    const uint8_t* p           # borrowed: the frame outlives the cursor
    const uint8_t* end
    int32_t bad


cdef inline const uint8_t* cursor_take(kp_cursor* c, int64_t n) noexcept nogil:
    """The next `n` bytes, or NULL."""
    cdef const uint8_t* p = c.p
    if c.bad or n < 0 or c.end - p < n:
        c.bad = 1
        return NULL
    c.p = p + n
    return p


cdef inline int8_t cursor_i8(kp_cursor* c) noexcept nogil:
    cdef const uint8_t* p = cursor_take(c, 1)
    return <int8_t>p[0] if p != NULL else 0


cdef inline int16_t cursor_i16(kp_cursor* c) noexcept nogil:
    cdef const uint8_t* p = cursor_take(c, 2)
    return load_be16(p) if p != NULL else 0


cdef inline int32_t cursor_i32(kp_cursor* c) noexcept nogil:
    cdef const uint8_t* p = cursor_take(c, 4)
    return load_be32(p) if p != NULL else 0


cdef inline int64_t cursor_i64(kp_cursor* c) noexcept nogil:
    cdef const uint8_t* p = cursor_take(c, 8)
    return load_be64(p) if p != NULL else 0


cdef inline uint32_t cursor_uvarint(kp_cursor* c) noexcept nogil:
    cdef uint32_t value = 0
    cdef const uint8_t* p
    if c.bad:
        return 0
    p = read_uvarint(c.p, c.end, &value)
    if p == NULL:
        c.bad = 1
        return 0
    c.p = p
    return value


cdef inline int32_t cursor_count(kp_cursor* c, int flexible) noexcept nogil:
    """The length of an array, -1: null. A count that the rest of the frame cannot hold (one byte each) is bad."""
    cdef int64_t n
    if flexible:
        n = <int64_t>cursor_uvarint(c) - 1
    else:
        n = cursor_i32(c)
    if c.bad:
        return 0
    if n < -1 or n > c.end - c.p:
        c.bad = 1
        return 0
    return <int32_t>n


cdef inline const uint8_t* cursor_string(kp_cursor* c, int flexible, int32_t* length) noexcept nogil:
    """A nullable string; NULL with length -1: null."""
    cdef int64_t n
    if flexible:
        n = <int64_t>cursor_uvarint(c) - 1
    else:
        n = cursor_i16(c)
    if c.bad or n < -1:
        c.bad = 1
        length[0] = -1
        return NULL
    length[0] = <int32_t>n
    if n < 0:
        return NULL
    return cursor_take(c, n)


cdef inline void cursor_skip_tags(kp_cursor* c) noexcept nogil:
    """Skip a tagged-field section."""
    cdef uint32_t n = cursor_uvarint(c)
    while n > 0 and not c.bad:
        cursor_uvarint(c)
        cursor_take(c, <int64_t>cursor_uvarint(c))
        n -= 1
