/* Loads and stores of fixed-width integers at any alignment.
 *
 * Kafka's protocol is big-endian throughout; murmur2 and CRC32C read their
 * input little-endian.  Going through memcpy keeps unaligned access defined
 * behaviour; compilers turn each function into one mov and one bswap.
 */
#ifndef KP_ENDIAN_H
#define KP_ENDIAN_H

#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__)
#  include <stdlib.h>
#  define KP_BSWAP16(v) _byteswap_ushort(v)
#  define KP_BSWAP32(v) ((uint32_t)_byteswap_ulong(v))
#  define KP_BSWAP64(v) _byteswap_uint64(v)
#else
#  define KP_BSWAP16(v) __builtin_bswap16(v)
#  define KP_BSWAP32(v) __builtin_bswap32(v)
#  define KP_BSWAP64(v) __builtin_bswap64(v)
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#  define KP_BE16(v) (v)
#  define KP_BE32(v) (v)
#  define KP_BE64(v) (v)
#  define KP_LE32(v) KP_BSWAP32(v)
#  define KP_LE64(v) KP_BSWAP64(v)
#else /* every Windows target is little-endian, MSVC does not say so */
#  define KP_BE16(v) KP_BSWAP16(v)
#  define KP_BE32(v) KP_BSWAP32(v)
#  define KP_BE64(v) KP_BSWAP64(v)
#  define KP_LE32(v) (v)
#  define KP_LE64(v) (v)
#endif

static inline int16_t kp_load_be16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return (int16_t)KP_BE16(v);
}

static inline int32_t kp_load_be32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return (int32_t)KP_BE32(v);
}

static inline int64_t kp_load_be64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return (int64_t)KP_BE64(v);
}

static inline void kp_store_be16(uint8_t *p, int16_t value) {
    uint16_t v = KP_BE16((uint16_t)value);
    memcpy(p, &v, sizeof v);
}

static inline void kp_store_be32(uint8_t *p, int32_t value) {
    uint32_t v = KP_BE32((uint32_t)value);
    memcpy(p, &v, sizeof v);
}

static inline void kp_store_be64(uint8_t *p, int64_t value) {
    uint64_t v = KP_BE64((uint64_t)value);
    memcpy(p, &v, sizeof v);
}

static inline uint32_t kp_load_le32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return KP_LE32(v);
}

static inline uint64_t kp_load_le64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return KP_LE64(v);
}

#endif /* KP_ENDIAN_H */
