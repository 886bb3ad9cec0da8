"""Record headers: from Python objects to their section of a record."""
from libc.stdint cimport int32_t, int64_t, uint8_t

cdef enum:
    HEADERS_INLINE = 512

cdef struct kp_headers:
    uint8_t* data              # NULL: no headers; else `inline_data` or owned memory
    int64_t size               # bytes of the section, its count included
    int32_t header_size        # sum of key and value bytes, -1: no headers
    uint8_t inline_data[HEADERS_INLINE]

cdef int encode_headers(object headers, kp_headers* out) except -1
cdef void free_headers(kp_headers* h) noexcept nogil
