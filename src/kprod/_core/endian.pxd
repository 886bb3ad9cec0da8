"""Big-endian loads and stores at any alignment (header-only, inlined)."""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t

cdef extern from "kp_endian.h" nogil:
    int16_t load_be16 "kp_load_be16"(const uint8_t* p)
    int32_t load_be32 "kp_load_be32"(const uint8_t* p)
    int64_t load_be64 "kp_load_be64"(const uint8_t* p)
    void store_be16 "kp_store_be16"(uint8_t* p, int16_t value)
    void store_be32 "kp_store_be32"(uint8_t* p, int32_t value)
    void store_be64 "kp_store_be64"(uint8_t* p, int64_t value)
