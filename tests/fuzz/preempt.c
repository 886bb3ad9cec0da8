/* Makes threads give way where it matters: after they have let go of a lock, and before they take one.
 *
 * Preloaded (LD_PRELOAD), it stands before pthread_mutex_lock() and pthread_mutex_unlock(), and lets the calling thread
 * sleep at about every KPROD_PREEMPT_EVERY-th call (64) for KPROD_PREEMPT_US microseconds (30). What a thread had better
 * done before the unlock, others then see undone: a window of two instructions becomes one of a system call. The choice
 * is a thread's own and pseudo-random; KPROD_PREEMPT_SEED (1) and the number of the thread are where it begins. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

typedef int (*operation)(pthread_mutex_t *);

static operation real_lock, real_unlock;
static uint32_t every = 64, first_seed = 1, threads;
static struct timespec pause_for = {0, 30000};
static __thread uint32_t state;

static uint32_t number_of(const char *name, uint32_t otherwise) {
    const char *text = getenv(name);
    return text != NULL && *text ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

/* Also called by the first lock of all, which may come before any constructor. Idempotent. */
__attribute__((constructor)) static void prepare(void) {
    real_unlock = (operation)dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    every = number_of("KPROD_PREEMPT_EVERY", every);
    first_seed = number_of("KPROD_PREEMPT_SEED", first_seed);
    pause_for.tv_nsec = (long)(number_of("KPROD_PREEMPT_US", 30) % 1000000) * 1000;
    if (every == 0) every = 1;
    real_lock = (operation)dlsym(RTLD_NEXT, "pthread_mutex_lock");
}

static void give_way(void) {
    int saved = errno;
    if (state == 0) state = (first_seed + __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED)) * 2654435761u | 1u;
    /* xorshift32: never 0 again. */
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    if (state % every == 0) nanosleep(&pause_for, NULL);
    errno = saved;
}

int pthread_mutex_lock(pthread_mutex_t *mutex) {
    if (real_lock == NULL) prepare();
    give_way();
    return real_lock(mutex);
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    int result;
    if (real_lock == NULL) prepare();
    result = real_unlock(mutex);
    give_way();
    return result;
}
