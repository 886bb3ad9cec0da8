/* The monotonic clock for what runs once per record: the processor's counter, held to the system's clock.
 *
 * Reading the system's clock takes twice as long as reading the counter it is made of. A kp_clock notes both together,
 * and for the millisecond after that works out the time from the counter alone. A counter that jumps or runs at another
 * speed (a virtual machine that moved to another host) is therefore wrong by a millisecond at most, or is seen to be
 * wrong and not used; one that stops, as in the sleep of old processors, or is set back to where it was at the last
 * look, is believed until kp_clock_read() is called, which is done for every batch. Any number of threads may use one
 * kp_clock. */
#ifndef KP_CLOCK_H
#define KP_CLOCK_H

#include <stdint.h>

#include "kp_atomic.h"
#include "kp_thread.h"

#ifdef KP_CLOCK_COUNTS
/* A test has its own kp_clock_ticks(). */
#elif (defined(__x86_64__) || defined(_M_X64)) && !defined(__APPLE__)
#ifdef _MSC_VER
#include <intrin.h>
#else
#include <x86intrin.h>
#endif
#define KP_CLOCK_COUNTS 1
static inline int64_t kp_clock_ticks(void) { return (int64_t)__rdtsc(); }
#elif defined(__aarch64__) && !defined(__APPLE__)
#define KP_CLOCK_COUNTS 1
static inline int64_t kp_clock_ticks(void) {
    int64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
}
#else
#define KP_CLOCK_COUNTS 0
static inline int64_t kp_clock_ticks(void) { return 0; }
#endif

#if defined(__linux__) && defined(__x86_64__)
#include <sys/prctl.h>
/* A process can be forbidden to read it, and is then ended when it does. */
static inline int kp_clock_allowed(void) {
    int allowed = 0;
    return prctl(PR_GET_TSC, &allowed, 0, 0, 0) != 0 || allowed == PR_TSC_ENABLE;
}
#else
static inline int kp_clock_allowed(void) { return 1; }
#endif

/* How long the counter alone is believed, and the shortest time that its speed is measured over. */
#define KP_CLOCK_AGE_US 1000
#define KP_CLOCK_MEASURED_US 500
/* The longest: in more, the system may have slept. */
#define KP_CLOCK_MEASURED_MOST_US 1000000
/* Products of this many ticks and a rate stay below 2^63. */
#define KP_CLOCK_MOST_TICKS ((int64_t)1 << 31)

typedef struct {
    int64_t version;    /* [a] odd while a thread writes the others */
    int64_t ticks;      /* [a] the counter, when */
    int64_t us;         /* [a] this was the time */
    int64_t rate;       /* [a] us per tick, times 2^32; 0: not known */
    int64_t measured;   /* the same as measured last, believed or not; belongs to who has `writing` */
    int32_t writing;    /* [a] some thread brings it up to date */
    int32_t unusable;   /* [const] this process may not read the counter */
} kp_clock;

static inline void kp_clock_init(kp_clock *c) {
    c->version = c->ticks = c->us = c->rate = c->measured = 0;
    c->writing = 0;
    c->unusable = !KP_CLOCK_COUNTS || !kp_clock_allowed();
}

static inline int kp_clock_alike(int64_t rate, int64_t other) {
    return (double)rate < (double)other * 1.05 && (double)rate > (double)other * 0.95;
}

/* Whether to believe that `us` passed in `ticks`: if it is the speed that the counter had, or was measured before. */
static inline int64_t kp_clock_rate(kp_clock *c, int64_t ticks, int64_t us) {
    int64_t known = c->rate, last = c->measured;
    double rate;
    if (us > KP_CLOCK_MEASURED_MOST_US) return known;
    rate = ticks > 0 ? (double)us * 4294967296.0 / (double)ticks : 0.0;
    /* Between 1 MHz and 100 GHz. */
    c->measured = rate >= 42949.0 && rate <= 4294967296.0 ? (int64_t)rate : 0;
    return kp_clock_alike(c->measured, known) || kp_clock_alike(c->measured, last) ? c->measured : 0;
}

/* The system's clock, in us; brings `c` up to date. Once a millisecond: not worth inlining. */
#if defined(__GNUC__) || defined(__clang__)
__attribute__((noinline, cold, unused))
#endif
static int64_t kp_clock_read(kp_clock *c) {
    int64_t before, now_us, ticks, us, version;
    if (c->unusable) return kp_monotonic_us();
    before = kp_clock_ticks();
    now_us = kp_monotonic_us();
    ticks = kp_clock_ticks();
    if (kp_exchange32(&c->writing, 1)) return now_us;
    us = now_us - c->us;
    /* A thread that lost the processor between the two has not read them together (a tick is 10 ns at most). */
    if (ticks - before < 50000 && us >= KP_CLOCK_MEASURED_US) {
        version = c->version;
        kp_store64(&c->version, version + 1);
        kp_store64(&c->rate, kp_clock_rate(c, ticks - c->ticks, us));
        kp_store64(&c->ticks, ticks);
        kp_store64(&c->us, now_us);
        kp_store64(&c->version, version + 2);
    }
    kp_store32(&c->writing, 0);
    return now_us;
}

/* Microseconds of the monotonic clock; of two calls the later one may be behind by less than KP_CLOCK_AGE_US. */
static inline int64_t kp_clock_us(kp_clock *c) {
    int64_t version = kp_load64(&c->version);
    int64_t since = kp_clock_ticks() - kp_load64(&c->ticks);
    int64_t us = kp_load64(&c->us);
    int64_t rate = kp_load64(&c->rate);
    if (rate != 0 && since >= 0 && since < KP_CLOCK_MOST_TICKS && (version & 1) == 0) {
        since = (since * rate) >> 32;
        if (since < KP_CLOCK_AGE_US && kp_load64(&c->version) == version) return us + since;
    }
    return kp_clock_read(c);
}

#endif
