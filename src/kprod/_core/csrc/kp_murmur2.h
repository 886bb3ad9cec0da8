/* The 32-bit MurmurHash2 that places keyed records on partitions.
 *
 * Seed and byte order are those of the Java producer (BuiltInPartitioner,
 * Utils.murmur2), which every client that wants the same placement follows.
 * MurmurHash2 itself was put in the public domain by Austin Appleby.
 */
#ifndef KP_MURMUR2_H
#define KP_MURMUR2_H

#include <stddef.h>
#include <stdint.h>

#include "kp_endian.h"

#define KP_MURMUR2_SEED 0x9747b28cu
#define KP_MURMUR2_M 0x5bd1e995u

static inline uint32_t kp_murmur2(const uint8_t *p, ptrdiff_t n) {
    uint32_t h = KP_MURMUR2_SEED ^ (uint32_t)n;
    const uint8_t *tail = p + (n & ~(ptrdiff_t)3);
    for (; p != tail; p += 4) {
        uint32_t k = kp_load_le32(p) * KP_MURMUR2_M;
        k ^= k >> 24;
        h = (h * KP_MURMUR2_M) ^ (k * KP_MURMUR2_M);
    }
    n &= 3;
    if (n > 0) {
        if (n == 3)
            h ^= (uint32_t)p[2] << 16;
        if (n >= 2)
            h ^= (uint32_t)p[1] << 8;
        h = (h ^ p[0]) * KP_MURMUR2_M;
    }
    h = (h ^ (h >> 13)) * KP_MURMUR2_M;
    return h ^ (h >> 15);
}

#endif /* KP_MURMUR2_H */
