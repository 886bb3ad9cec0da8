/* Locks, condition variables and clocks that work without the GIL, on POSIX and Windows.
 *
 * A kp_mutex is a real lock: it never relies on the GIL, so it also holds on free-threaded Python.
 * Rule of use: no Python object is created or released, and the GIL is never taken, while one is held. */
#ifndef KP_THREAD_H
#define KP_THREAD_H

#include <stdint.h>

#ifdef _WIN32
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <winsock2.h>
#include <windows.h>

typedef SRWLOCK kp_mutex;
typedef CONDITION_VARIABLE kp_cond;

static inline void kp_mutex_init(kp_mutex *m) { InitializeSRWLock(m); }
static inline void kp_mutex_destroy(kp_mutex *m) { (void)m; }
static inline void kp_mutex_lock(kp_mutex *m) { AcquireSRWLockExclusive(m); }
static inline int kp_mutex_trylock(kp_mutex *m) { return TryAcquireSRWLockExclusive(m) != 0; }
static inline void kp_mutex_unlock(kp_mutex *m) { ReleaseSRWLockExclusive(m); }
static inline void kp_cond_init(kp_cond *c) { InitializeConditionVariable(c); }
static inline void kp_cond_destroy(kp_cond *c) { (void)c; }
static inline void kp_cond_signal(kp_cond *c) { WakeConditionVariable(c); }
static inline void kp_cond_broadcast(kp_cond *c) { WakeAllConditionVariable(c); }
static inline void kp_cond_wait(kp_cond *c, kp_mutex *m) { SleepConditionVariableSRW(c, m, INFINITE, 0); }
/* Waits at most `us` microseconds; spurious returns are allowed. */
static inline void kp_cond_wait_us(kp_cond *c, kp_mutex *m, int64_t us) {
    SleepConditionVariableSRW(c, m, (DWORD)((us + 999) / 1000), 0);
}
static inline int64_t kp_monotonic_us(void) {
    static LARGE_INTEGER freq;
    LARGE_INTEGER now;
    if (!freq.QuadPart) QueryPerformanceFrequency(&freq);
    QueryPerformanceCounter(&now);
    return (int64_t)((now.QuadPart / freq.QuadPart) * 1000000 +
                     (now.QuadPart % freq.QuadPart) * 1000000 / freq.QuadPart);
}
static inline int64_t kp_realtime_ms(void) {
    FILETIME ft;
    ULARGE_INTEGER t;
    GetSystemTimePreciseAsFileTime(&ft);
    t.LowPart = ft.dwLowDateTime;
    t.HighPart = ft.dwHighDateTime;
    return (int64_t)(t.QuadPart / 10000u) - 11644473600000LL;
}
static inline void kp_relax(void) { YieldProcessor(); }
static inline void kp_yield(void) { SwitchToThread(); }
static inline void kp_sleep_us(int64_t us) { Sleep((DWORD)((us + 999) / 1000)); }

#else
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

typedef pthread_mutex_t kp_mutex;
typedef pthread_cond_t kp_cond;

static inline void kp_mutex_init(kp_mutex *m) { pthread_mutex_init(m, NULL); }
static inline void kp_mutex_destroy(kp_mutex *m) { pthread_mutex_destroy(m); }
static inline void kp_mutex_lock(kp_mutex *m) { pthread_mutex_lock(m); }
static inline int kp_mutex_trylock(kp_mutex *m) { return pthread_mutex_trylock(m) == 0; }
static inline void kp_mutex_unlock(kp_mutex *m) { pthread_mutex_unlock(m); }
static inline void kp_cond_init(kp_cond *c) {
#ifdef __APPLE__
    pthread_cond_init(c, NULL);
#else
    /* The wall clock may jump; waits must not. */
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
#endif
}
static inline void kp_cond_destroy(kp_cond *c) { pthread_cond_destroy(c); }
static inline void kp_cond_signal(kp_cond *c) { pthread_cond_signal(c); }
static inline void kp_cond_broadcast(kp_cond *c) { pthread_cond_broadcast(c); }
static inline void kp_cond_wait(kp_cond *c, kp_mutex *m) { pthread_cond_wait(c, m); }
/* Waits at most `us` microseconds; spurious returns are allowed. */
static inline void kp_cond_wait_us(kp_cond *c, kp_mutex *m, int64_t us) {
    struct timespec ts;
    if (us < 0) us = 0;
#ifdef __APPLE__
    ts.tv_sec = (time_t)(us / 1000000);
    ts.tv_nsec = (long)(us % 1000000) * 1000;
    pthread_cond_timedwait_relative_np(c, m, &ts);
#else
    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += (time_t)(us / 1000000);
    ts.tv_nsec += (long)(us % 1000000) * 1000;
    if (ts.tv_nsec >= 1000000000L) {
        ts.tv_sec += 1;
        ts.tv_nsec -= 1000000000L;
    }
    pthread_cond_timedwait(c, m, &ts);
#endif
}
static inline int64_t kp_monotonic_us(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
static inline int64_t kp_realtime_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}
/* Between two looks at something that is about to change. */
static inline void kp_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
static inline void kp_yield(void) { sched_yield(); }
static inline void kp_sleep_us(int64_t us) {
    struct timespec ts = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    nanosleep(&ts, NULL);
}
#endif

#endif
