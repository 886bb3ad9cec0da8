"""The key hash of the Java producer (header-only, inlined)."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef extern from "kp_murmur2.h" nogil:
    uint32_t murmur2_hash "kp_murmur2"(const uint8_t* data, Py_ssize_t n)


cdef inline int32_t murmur2_partition(
        const uint8_t* key, Py_ssize_t n, int32_t num_partitions) noexcept nogil:
    """The partition of a key; `num_partitions` must be positive."""
    return <int32_t>((murmur2_hash(key, n) & 0x7fffffffu) % <uint32_t>num_partitions)
