"""Record batch v2 (KIP-98): writing records and headers in place."""
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t
from libc.string cimport memcpy

from kprod._core.structs cimport BATCH_OVERHEAD, kp_batch
from kprod._core.varint cimport varint_size, write_varint

cdef enum:
    # What max.request.size and buffer.memory are checked against, beside the key, value and headers
    # (Java: DefaultRecord.MAX_RECORD_OVERHEAD).
    RECORD_OVERHEAD_BOUND = 21


cdef struct kp_record:
    # One record on its way in; every pointer belongs to the caller. NULL: null.
    const uint8_t* key
    int64_t key_size           # -1: null
    const uint8_t* value
    int64_t value_size         # -1: null
    const uint8_t* headers     # the encoded header section with its count, NULL: no headers
    int64_t headers_size       # bytes of that section
    int32_t header_size        # serialized_header_size of the report, -1: no headers
    int64_t timestamp          # ms since 1970
    int64_t fixed_size         # bytes that do not depend on the batch: kp_record_fixed_size()


cdef inline int64_t kp_record_fixed_size(const kp_record* r) noexcept nogil:
    cdef int64_t size = 1 + varint_size(r.key_size) + varint_size(r.value_size)
    if r.key_size > 0:
        size += r.key_size
    if r.value_size > 0:
        size += r.value_size
    return size + (r.headers_size if r.headers != NULL else 1)


cdef inline uint8_t* write_record(uint8_t* p, const kp_record* r, int64_t body_size, int64_t timestamp_delta,
                                  int32_t offset_delta) noexcept nogil:
    """Write one record; `p` has room for varint_size(body_size) + body_size bytes. Returns the byte after it."""
    p = write_varint(p, body_size)
    p[0] = 0                   # attributes: none defined
    p = write_varint(p + 1, timestamp_delta)
    p = write_varint(p, offset_delta)
    p = write_varint(p, r.key_size)
    if r.key_size > 0:
        memcpy(p, r.key, r.key_size)
        p += r.key_size
    p = write_varint(p, r.value_size)
    if r.value_size > 0:
        memcpy(p, r.value, r.value_size)
        p += r.value_size
    if r.headers == NULL:
        p[0] = 0
        return p + 1
    memcpy(p, r.headers, r.headers_size)
    return p + r.headers_size


cdef void seal_batch(kp_batch* b, int transactional) noexcept nogil
cdef list split_records(const uint8_t* data, int64_t length, int32_t count)
