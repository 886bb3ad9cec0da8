"""CRC-32C for other extension modules."""

from libc.stdint cimport uint8_t, uint32_t

# The CRC of some bytes given the CRC of what came before them (0 for nothing).
cdef uint32_t crc32c_update(uint32_t crc, const uint8_t* p, size_t n) noexcept nogil
