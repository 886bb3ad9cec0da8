"""Variable-length integers (header-only, inlined).

``varint`` is zigzag (inside records), ``uvarint`` is unsigned (flexible
protocol versions). Sizes are in bytes. Writers return the byte after what they
wrote and need that size, or ``VARINT_MAX`` bytes, of room. Readers return the
byte after what they read, or NULL when the value is cut off by ``end`` or too
wide; a NULL ``p`` gives NULL, so a row of reads needs one check at its end.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "kp_varint.h" nogil:
    enum:
        VARINT_MAX "KP_VARINT_MAX"

    Py_ssize_t varint_size "kp_varint_size"(int64_t value)
    Py_ssize_t uvarint_size "kp_uvarint_size"(uint64_t value)
    uint8_t* write_varint "kp_write_varint"(uint8_t* p, int64_t value)
    uint8_t* write_uvarint "kp_write_uvarint"(uint8_t* p, uint64_t value)

    const uint8_t* read_varint "kp_read_varint"(const uint8_t* p, const uint8_t* end, int32_t* out)
    const uint8_t* read_varlong "kp_read_varlong"(const uint8_t* p, const uint8_t* end, int64_t* out)
    const uint8_t* read_uvarint "kp_read_uvarint"(const uint8_t* p, const uint8_t* end, uint32_t* out)
    # The 64-bit unsigned form; `bits` is 32 or 64.
    const uint8_t* read_uvarint_bits "kp_read_uvarint_bits"(
        const uint8_t* p, const uint8_t* end, uint64_t* out, unsigned int bits)
