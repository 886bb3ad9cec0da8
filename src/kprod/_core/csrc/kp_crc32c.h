/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), the checksum of record batch v2.
 *
 * Ours, C11, no Python: usable from any thread without the GIL once
 * kp_crc32c_init() has run.
 */
#ifndef KP_CRC32C_H
#define KP_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of some bytes, given the CRC of what came before them (0 for nothing):
 * f(f(0, a), b) is the CRC of a followed by b. */
typedef uint32_t (*kp_crc32c_fn)(uint32_t crc, const uint8_t *p, size_t n);

typedef struct {
    const char *name;
    kp_crc32c_fn update;
} kp_crc32c_tier;

#define KP_CRC32C_MAX_TIERS 3

/* What this processor can run, slowest first; the first is always "sw".
 * Written by kp_crc32c_init(), read-only after it. */
extern kp_crc32c_tier kp_crc32c_tiers[KP_CRC32C_MAX_TIERS];
extern int kp_crc32c_tier_count;

/* The chosen one. */
extern kp_crc32c_fn kp_crc32c;

/* Builds the tables, asks the processor, and chooses the fastest tier.  Called
 * once, at import, under the import lock. */
void kp_crc32c_init(void);

#endif /* KP_CRC32C_H */
