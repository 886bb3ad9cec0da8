/* Variable-length integers of the Kafka protocol.
 *
 * Two encodings, both base-128, least significant group first:
 *   varint/varlong   zigzag, used inside records (record batch v2, KIP-98);
 *                    the 32-bit and the 64-bit form of a value are the same bytes
 *   unsigned varint  plain, used by flexible protocol versions (KIP-482)
 *
 * Writers need KP_VARINT_MAX bytes of room, or exactly the size that the
 * matching *_size function gives.  Readers never touch a byte at or past `end`.
 */
#ifndef KP_VARINT_H
#define KP_VARINT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_MSC_VER) && !defined(__clang__)
#  include <intrin.h>
#endif

#define KP_VARINT_MAX 10

/* Position of the highest set bit; v must not be 0. */
static inline unsigned kp_highest_bit(uint64_t v) {
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long bit;
    _BitScanReverse64(&bit, v);
    return (unsigned)bit;
#else
    return 63u - (unsigned)__builtin_clzll(v);
#endif
}

static inline uint64_t kp_zigzag(int64_t v) {
    return ((uint64_t)v << 1) ^ (0 - (uint64_t)(v < 0));
}

static inline int64_t kp_unzigzag(uint64_t v) {
    return (int64_t)((v >> 1) ^ (0 - (v & 1)));
}

static inline ptrdiff_t kp_uvarint_size(uint64_t v) {
    if (v < 0x80) /* the same cases as in kp_write_uvarint(): branches that are nearly always foreseen */
        return 1;
    if (v < 0x4000)
        return 2;
    /* ceil(bits / 7) without a division: exact for 1 <= bits <= 64. */
    return (ptrdiff_t)((kp_highest_bit(v | 1) * 9 + 73) >> 6);
}

static inline ptrdiff_t kp_varint_size(int64_t v) {
    return kp_uvarint_size(kp_zigzag(v));
}

static inline uint8_t *kp_write_uvarint(uint8_t *p, uint64_t v) {
    if (v < 0x80) { /* lengths and deltas of small records: nearly always */
        *p = (uint8_t)v;
        return p + 1;
    }
    *p = (uint8_t)(v | 0x80);
    v >>= 7;
    if (v < 0x80) { /* those of records up to 8 KiB */
        p[1] = (uint8_t)v;
        return p + 2;
    }
    do {
        *++p = (uint8_t)(v | 0x80);
        v >>= 7;
    } while (v >= 0x80);
    p[1] = (uint8_t)v;
    return p + 2;
}

static inline uint8_t *kp_write_varint(uint8_t *p, int64_t v) {
    return kp_write_uvarint(p, kp_zigzag(v));
}

/* Reads one unsigned varint that fits `bits` (32 or 64).  Returns the byte
 * after it, or NULL when it is cut off by `end`, does not fit, or when p is
 * NULL already, so that a row of reads needs one check at its end. */
static inline const uint8_t *kp_read_uvarint_bits(const uint8_t *p, const uint8_t *end, uint64_t *out,
                                                  unsigned bits) {
    uint64_t v = 0;
    if (p == NULL)
        return NULL;
    for (unsigned shift = 0; p < end && shift < bits; shift += 7) {
        uint64_t group = *p & 0x7fu;
        if (bits - shift < 7 && (group >> (bits - shift)) != 0)
            return NULL;
        v |= group << shift;
        if ((*p++ & 0x80) == 0) {
            *out = v;
            return p;
        }
    }
    return NULL;
}

static inline const uint8_t *kp_read_uvarint(const uint8_t *p, const uint8_t *end, uint32_t *out) {
    uint64_t v = 0;
    p = kp_read_uvarint_bits(p, end, &v, 32);
    if (p != NULL)
        *out = (uint32_t)v;
    return p;
}

static inline const uint8_t *kp_read_varint(const uint8_t *p, const uint8_t *end, int32_t *out) {
    uint64_t v = 0;
    p = kp_read_uvarint_bits(p, end, &v, 32);
    if (p != NULL)
        *out = (int32_t)kp_unzigzag(v);
    return p;
}

static inline const uint8_t *kp_read_varlong(const uint8_t *p, const uint8_t *end, int64_t *out) {
    uint64_t v = 0;
    p = kp_read_uvarint_bits(p, end, &v, 64);
    if (p != NULL)
        *out = kp_unzigzag(v);
    return p;
}

#endif /* KP_VARINT_H */
