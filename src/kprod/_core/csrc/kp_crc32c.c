/* CRC-32C in three tiers, chosen once at import by what the processor has:
 *
 *   sw     slicing-by-8, any processor
 *   lanes  the CRC instruction (x86-64 SSE4.2, ARMv8) on three interleaved lanes:
 *          its latency is 3 cycles, its throughput 1, so one chain of it would
 *          use a third of what is there
 *   fused  x86-64: the same three lanes and, in the same loop, a fourth stretch of
 *          the input folded by carry-less multiplication (PCLMULQDQ), which runs
 *          on another execution port
 *
 * Polynomials are over GF(2) modulo P = x^32 + ... (0x1EDC6F41), bit-reflected:
 * bit i of a 32-bit word is the coefficient of x^(31-i).
 */
#include "kp_crc32c.h"

#include "kp_endian.h"

#if defined(__x86_64__) || (defined(_M_X64) && !defined(_M_ARM64EC))
#  define KP_CRC_X86 1
#  include <nmmintrin.h>
#  include <wmmintrin.h>
#  if defined(_MSC_VER) && !defined(__clang__)
#    include <intrin.h>
#  else
#    include <cpuid.h>
#  endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#  define KP_CRC_ARM 1
#  if defined(_WIN32)
#    include <windows.h>
#    if !defined(__clang__)
#      include <intrin.h>
#    endif
#  elif defined(__linux__)
#    include <sys/auxv.h>
#  endif
#endif

/* MSVC compiles any intrinsic without being told; the others want the function
 * marked.  For clang the CRC instruction is a feature besides SSE4.2; GCC before
 * 11 does not know it by that name. */
#if defined(__clang__)
#  define KP_TARGET(isa) __attribute__((target("crc32," isa)))
#elif defined(__GNUC__)
#  define KP_TARGET(isa) __attribute__((target(isa)))
#else
#  define KP_TARGET(isa)
#endif

#define POLYNOMIAL 0x82F63B78u /* 0x1EDC6F41, reflected */
#define ONE 0x80000000u        /* x^0 */

kp_crc32c_tier kp_crc32c_tiers[KP_CRC32C_MAX_TIERS];
int kp_crc32c_tier_count;
kp_crc32c_fn kp_crc32c;

/* slices[k][b]: the CRC register after byte b and k zero bytes. */
static uint32_t slices[8][256];

/* ---- tables -------------------------------------------------------------- */

#if defined(KP_CRC_X86) || defined(KP_CRC_ARM)

/* a * b mod P */
static uint32_t multiply_mod_p(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = ONE; bit != 0; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = (b >> 1) ^ ((0 - (b & 1)) & POLYNOMIAL);
    }
    return product;
}

/* x^n mod P */
static uint32_t power_of_x(uint64_t n) {
    uint32_t result = ONE;
    for (uint32_t square = ONE >> 1; n != 0; n >>= 1) {
        if (n & 1)
            result = multiply_mod_p(result, square);
        square = multiply_mod_p(square, square);
    }
    return result;
}

#endif

static void build_slices(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int i = 0; i < 8; i++)
            crc = (crc >> 1) ^ ((0 - (crc & 1)) & POLYNOMIAL);
        slices[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++)
            slices[k][b] = (slices[k - 1][b] >> 8) ^ slices[0][slices[k - 1][b] & 0xff];
}

/* ---- sw ------------------------------------------------------------------ */

static uint32_t crc_sw(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t w = kp_load_le64(p) ^ crc;
        crc = slices[7][w & 0xff] ^ slices[6][(w >> 8) & 0xff] ^ slices[5][(w >> 16) & 0xff] ^
              slices[4][(w >> 24) & 0xff] ^ slices[3][(w >> 32) & 0xff] ^ slices[2][(w >> 40) & 0xff] ^
              slices[1][(w >> 48) & 0xff] ^ slices[0][w >> 56];
    }
    for (; n > 0; p++, n--)
        crc = (crc >> 8) ^ slices[0][(crc ^ *p) & 0xff];
    return ~crc;
}

/* ---- the CRC instruction -------------------------------------------------- */

#if defined(KP_CRC_X86)
#  define CRC_TARGET KP_TARGET("sse4.2")
typedef uint64_t crc_register; /* what the instruction takes and gives: no widening in between */
#  define CRC_U64(crc, word) _mm_crc32_u64((crc), (word))
#  define CRC_U8(crc, byte) _mm_crc32_u8((uint32_t)(crc), (byte))
#elif defined(KP_CRC_ARM)
#  define CRC_TARGET
typedef uint32_t crc_register;
#  if defined(_MSC_VER) && !defined(__clang__)
#    define CRC_U64(crc, word) __crc32cd((crc), (word))
#    define CRC_U8(crc, byte) __crc32cb((crc), (byte))
#  else
/* Not <arm_acle.h>: whether it declares these inside a function with a target
 * attribute depends on the compiler and its version. */
static inline uint32_t CRC_U64(uint32_t crc, uint64_t word) {
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
}
static inline uint32_t CRC_U8(uint32_t crc, uint8_t byte) {
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"((uint32_t)byte));
    return crc;
}
#  endif
#endif

#if defined(KP_CRC_X86) || defined(KP_CRC_ARM)

/* Lengths of a lane in bytes.  Long lanes for few combines, short ones for what is left. */
#define LONG_LANE 4096
#define SHORT_LANE 256

/* by_byte[i][b]: byte i of a CRC register, moved past one lane of zero bytes. */
typedef struct {
    uint32_t by_byte[4][256];
} lane_shift;

static lane_shift long_shift;
static lane_shift short_shift;

static void build_lane_shift(lane_shift *shift, uint64_t lane) {
    uint32_t factor = power_of_x(8 * lane);
    for (int i = 0; i < 4; i++) {
        uint32_t *table = shift->by_byte[i];
        table[0] = 0;
        for (uint32_t bit = 1; bit < 256; bit <<= 1) {
            table[bit] = multiply_mod_p(factor, bit << (8 * i));
            for (uint32_t below = 1; below < bit; below++) /* linear: the rest are sums */
                table[bit + below] = table[bit] ^ table[below];
        }
    }
}

static inline uint32_t shift_lane(const lane_shift *shift, uint32_t crc) {
    return shift->by_byte[0][crc & 0xff] ^ shift->by_byte[1][(crc >> 8) & 0xff] ^
           shift->by_byte[2][(crc >> 16) & 0xff] ^ shift->by_byte[3][crc >> 24];
}

CRC_TARGET static inline crc_register crc_short_run(crc_register crc, const uint8_t *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8)
        crc = CRC_U64(crc, kp_load_le64(p));
    for (; n > 0; p++, n--)
        crc = CRC_U8(crc, *p);
    return crc;
}

/* Three neighbouring lanes of `lane` bytes each. */
CRC_TARGET static inline crc_register crc_three_lanes(crc_register crc, const uint8_t *p, size_t lane,
                                                      const lane_shift *shift) {
    crc_register middle = 0;
    crc_register last = 0;
    for (const uint8_t *end = p + lane; p < end; p += 8) {
        crc = CRC_U64(crc, kp_load_le64(p));
        middle = CRC_U64(middle, kp_load_le64(p + lane));
        last = CRC_U64(last, kp_load_le64(p + 2 * lane));
    }
    crc = shift_lane(shift, (uint32_t)crc) ^ middle;
    return shift_lane(shift, (uint32_t)crc) ^ last;
}

CRC_TARGET static uint32_t crc_lanes(uint32_t seed, const uint8_t *p, size_t n) {
    crc_register crc = (uint32_t)~seed;
    for (; n >= 3 * LONG_LANE; p += 3 * LONG_LANE, n -= 3 * LONG_LANE)
        crc = crc_three_lanes(crc, p, LONG_LANE, &long_shift);
    for (; n >= 3 * SHORT_LANE; p += 3 * SHORT_LANE, n -= 3 * SHORT_LANE)
        crc = crc_three_lanes(crc, p, SHORT_LANE, &short_shift);
    return ~(uint32_t)crc_short_run(crc, p, n);
}

#endif /* KP_CRC_X86 || KP_CRC_ARM */

/* ---- the CRC instruction and carry-less multiplication, fused -------------- */

#if defined(KP_CRC_X86)

/* One step of the fused loop takes 64 bytes by folding and 3 * 24 by lanes: as
 * much of each as the two execution ports do in the same time. */
#define FOLDED_STEP 64
#define LANE_STEP 24
#define FUSED_STEP (FOLDED_STEP + 3 * LANE_STEP)
#define MAX_STEPS 512
#define FUSED_TARGET KP_TARGET("sse4.2,pclmul")

/* past_steps[k] = x^(8 * LANE_STEP * k - 33) mod P moves a CRC past k steps of a lane.
 *
 * -33: the product of two reflected 32-bit words, read as a reflected 64-bit
 * word, has an x too many, and the CRC instruction that reduces it multiplies
 * by x^32. */
static uint32_t past_steps[3 * MAX_STEPS + 1];

/* Fold constants for distances in bits: the first word of a 128-bit accumulator
 * has x^64 on top; the reasons for 31 = 64 - 33 and -33 are those above. */
#define FOLD_HIGH(bits) power_of_x((bits) + 31)
#define FOLD_LOW(bits) power_of_x((bits) - 33)
static uint64_t fold_by_512[2];
static uint64_t fold_by_128[2];

static void build_fused_tables(void) {
    uint32_t step = power_of_x(8 * LANE_STEP);
    past_steps[1] = power_of_x(8 * LANE_STEP - 33);
    for (int k = 2; k <= 3 * MAX_STEPS; k++)
        past_steps[k] = multiply_mod_p(step, past_steps[k - 1]);
    fold_by_512[0] = FOLD_HIGH(512);
    fold_by_512[1] = FOLD_LOW(512);
    fold_by_128[0] = FOLD_HIGH(128);
    fold_by_128[1] = FOLD_LOW(128);
}

FUSED_TARGET static inline __m128i load_128(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* accumulator * x^distance + next, not reduced */
FUSED_TARGET static inline __m128i fold(__m128i accumulator, __m128i constants, __m128i next) {
    __m128i high = _mm_clmulepi64_si128(accumulator, constants, 0x00);
    __m128i low = _mm_clmulepi64_si128(accumulator, constants, 0x11);
    return _mm_xor_si128(_mm_xor_si128(high, low), next);
}

/* crc moved past k steps of a lane, before the reduction that CRC_U64(0, ...) does */
FUSED_TARGET static inline uint64_t move_past(uint64_t crc, size_t k) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
                                           _mm_cvtsi32_si128((int)past_steps[k]), 0x00);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

/* steps * FUSED_STEP bytes: the folded stretch first, then the three lanes. */
FUSED_TARGET static uint64_t crc_fused_block(uint64_t crc, const uint8_t *p, size_t steps) {
    const size_t lane = steps * LANE_STEP;
    const uint8_t *q = p + steps * FOLDED_STEP;
    const uint8_t *end = q;
    const __m128i by_512 = load_128((const uint8_t *)fold_by_512);
    const __m128i by_128 = load_128((const uint8_t *)fold_by_128);
    uint64_t crc0 = 0, crc1 = 0, crc2 = 0;

    __m128i a0 = _mm_xor_si128(load_128(p), _mm_cvtsi32_si128((int)crc));
    __m128i a1 = load_128(p + 16);
    __m128i a2 = load_128(p + 32);
    __m128i a3 = load_128(p + 48);
    for (;;) {
        for (int i = 0; i < LANE_STEP; i += 8) {
            crc0 = CRC_U64(crc0, kp_load_le64(q + i));
            crc1 = CRC_U64(crc1, kp_load_le64(q + lane + i));
            crc2 = CRC_U64(crc2, kp_load_le64(q + 2 * lane + i));
        }
        q += LANE_STEP;
        p += FOLDED_STEP;
        if (p >= end)
            break;
        a0 = fold(a0, by_512, load_128(p));
        a1 = fold(a1, by_512, load_128(p + 16));
        a2 = fold(a2, by_512, load_128(p + 32));
        a3 = fold(a3, by_512, load_128(p + 48));
    }
    a0 = fold(fold(fold(a0, by_128, a1), by_128, a2), by_128, a3);
    uint64_t folded = CRC_U64(0, (uint64_t)_mm_cvtsi128_si64(a0));
    folded = CRC_U64(folded, (uint64_t)_mm_extract_epi64(a0, 1));

    uint64_t moved = move_past(folded, 3 * steps) ^ move_past(crc0, 2 * steps) ^ move_past(crc1, steps);
    return CRC_U64(0, moved) ^ crc2;
}

FUSED_TARGET static uint32_t crc_fused(uint32_t seed, const uint8_t *p, size_t n) {
    uint64_t crc = (uint32_t)~seed;
    while (n >= FUSED_STEP) {
        size_t steps = n / FUSED_STEP < MAX_STEPS ? n / FUSED_STEP : MAX_STEPS;
        crc = crc_fused_block(crc, p, steps);
        p += steps * FUSED_STEP;
        n -= steps * FUSED_STEP;
    }
    return ~(uint32_t)crc_short_run(crc, p, n);
}

#endif /* KP_CRC_X86 */

/* ---- dispatch -------------------------------------------------------------- */

#if defined(KP_CRC_X86)

static void probe(int *has_crc, int *has_clmul) {
#if defined(_MSC_VER) && !defined(__clang__)
    int info[4];
    __cpuid(info, 1);
    unsigned ecx = (unsigned)info[2];
#else
    unsigned eax, ebx, ecx = 0, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        ecx = 0;
#endif
    *has_crc = (ecx >> 20) & 1;
    *has_clmul = (ecx >> 1) & 1;
}

#elif defined(KP_CRC_ARM)

static int probe_crc(void) {
#if defined(__ARM_FEATURE_CRC32) || defined(__APPLE__) /* every 64-bit Mac has it */
    return 1;
#elif defined(_WIN32)
    return IsProcessorFeaturePresent(31); /* PF_ARM_V8_CRC32_INSTRUCTIONS_AVAILABLE */
#elif defined(__linux__)
    return (int)((getauxval(AT_HWCAP) >> 7) & 1); /* HWCAP_CRC32 */
#else
    return 0;
#endif
}

#endif

static void add_tier(const char *name, kp_crc32c_fn update) {
    kp_crc32c_tiers[kp_crc32c_tier_count].name = name;
    kp_crc32c_tiers[kp_crc32c_tier_count].update = update;
    kp_crc32c_tier_count++;
    kp_crc32c = update;
}

void kp_crc32c_init(void) {
    kp_crc32c_tier_count = 0;
    build_slices();
    add_tier("sw", crc_sw);
#if defined(KP_CRC_X86)
    int has_crc, has_clmul;
    probe(&has_crc, &has_clmul);
    if (has_crc) {
        build_lane_shift(&long_shift, LONG_LANE);
        build_lane_shift(&short_shift, SHORT_LANE);
        add_tier("sse4.2", crc_lanes);
        if (has_clmul) {
            build_fused_tables();
            add_tier("sse4.2+pclmul", crc_fused);
        }
    }
#elif defined(KP_CRC_ARM)
    if (probe_crc()) {
        build_lane_shift(&long_shift, LONG_LANE);
        build_lane_shift(&short_shift, SHORT_LANE);
        add_tier("armv8-crc", crc_lanes);
    }
#endif
}
