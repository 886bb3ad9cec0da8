/* The lock for sections of some tens of nanoseconds that run once per record.
 *
 * Taking it is one exchange, giving it back a plain store: the record that was written under it need not have left the
 * processor's store buffer, which is what a pthread mutex waits for. The price is paid by whoever finds it taken: nobody
 * wakes that thread, it looks again, lets others run, and then sleeps a little in between.
 *
 * A kp_latch is a real lock, like kp_mutex, and the same rule holds: no Python object is created or released, and the
 * GIL is never taken, while one is held. With KP_LATCH_IS_MUTEX it is a kp_mutex, for tests that intercept those. */
#ifndef KP_LATCH_H
#define KP_LATCH_H

#include <stdint.h>

#include "kp_atomic.h"
#include "kp_thread.h"

#ifdef KP_LATCH_IS_MUTEX

typedef kp_mutex kp_latch;
static inline void kp_latch_init(kp_latch *l) { kp_mutex_init(l); }
static inline void kp_latch_destroy(kp_latch *l) { kp_mutex_destroy(l); }
static inline void kp_latch_lock(kp_latch *l) { kp_mutex_lock(l); }
static inline int kp_latch_met(kp_latch *l) {
    if (kp_mutex_trylock(l)) return 0;
    kp_mutex_lock(l);
    return 1;
}
static inline void kp_latch_unlock(kp_latch *l) { kp_mutex_unlock(l); }

#else

#define KP_LATCH_LOOKS 64      /* before other threads are let run: about a microsecond */
#define KP_LATCH_YIELDS 8      /* before it sleeps: whoever holds it may have lost the processor */
#define KP_LATCH_SLEEP_US 50

typedef struct {
    int32_t held;              /* [a] */
} kp_latch;

static inline void kp_latch_init(kp_latch *l) { l->held = 0; }
static inline void kp_latch_destroy(kp_latch *l) { (void)l; }

#if defined(__GNUC__) || defined(__clang__)
__attribute__((noinline, cold, unused))
#endif
static void kp_latch_wait(kp_latch *l) {
    int rounds = 0, looks;
    for (;;) {
        for (looks = 0; looks < KP_LATCH_LOOKS; looks++) {
            if (kp_load32_relaxed(&l->held) == 0 && kp_exchange32(&l->held, 1) == 0) return;
            kp_relax();
        }
        if (rounds++ < KP_LATCH_YIELDS)
            kp_yield();
        else
            kp_sleep_us(KP_LATCH_SLEEP_US);
    }
}

/* Take it, and tell whether another thread had it. */
static inline int kp_latch_met(kp_latch *l) {
    if (kp_exchange32(&l->held, 1) == 0) return 0;
    kp_latch_wait(l);
    return 1;
}
static inline void kp_latch_lock(kp_latch *l) { (void)kp_latch_met(l); }
static inline void kp_latch_unlock(kp_latch *l) { kp_store32_release(&l->held, 0); }

#endif

#endif
