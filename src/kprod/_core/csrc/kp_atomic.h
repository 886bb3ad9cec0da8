/* Atomic access to plain fields of the core's structs. All orderings are sequentially consistent
 * unless the name says relaxed or release: these run per batch, or are plain loads on x86-64 and ARMv8. */
#ifndef KP_ATOMIC_H
#define KP_ATOMIC_H

#include <stdint.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
static inline int32_t kp_load32(const int32_t *p) { return _InterlockedOr((volatile long *)p, 0); }
static inline void kp_store32(int32_t *p, int32_t v) { _InterlockedExchange((volatile long *)p, v); }
static inline int32_t kp_exchange32(int32_t *p, int32_t v) { return _InterlockedExchange((volatile long *)p, v); }
static inline int32_t kp_add32(int32_t *p, int32_t v) { return _InterlockedExchangeAdd((volatile long *)p, v) + v; }
static inline int64_t kp_load64(const int64_t *p) { return _InterlockedOr64((volatile int64_t *)p, 0); }
static inline void kp_store64(int64_t *p, int64_t v) { _InterlockedExchange64((volatile int64_t *)p, v); }
static inline int64_t kp_exchange64(int64_t *p, int64_t v) { return _InterlockedExchange64((volatile int64_t *)p, v); }
static inline int64_t kp_add64(int64_t *p, int64_t v) { return _InterlockedExchangeAdd64((volatile int64_t *)p, v) + v; }
static inline int32_t kp_load32_relaxed(const int32_t *p) { return *(volatile const int32_t *)p; }
static inline int64_t kp_load64_relaxed(const int64_t *p) { return *(volatile const int64_t *)p; }
static inline void kp_store32_relaxed(int32_t *p, int32_t v) { *(volatile int32_t *)p = v; }
static inline void kp_store64_relaxed(int64_t *p, int64_t v) { *(volatile int64_t *)p = v; }
static inline void kp_store32_release(int32_t *p, int32_t v) { kp_store32(p, v); }
static inline void kp_store_ptr_relaxed(void **p, void *v) { *(void *volatile *)p = v; }
static inline void *kp_load_ptr(void *const *p) { return (void *)_InterlockedOr64((volatile int64_t *)p, 0); }
static inline void kp_store_ptr(void **p, void *v) { _InterlockedExchangePointer(p, v); }
static inline void *kp_exchange_ptr(void **p, void *v) { return _InterlockedExchangePointer(p, v); }
static inline int kp_cas_ptr(void **p, void *expected, void *desired) {
    return _InterlockedCompareExchangePointer(p, desired, expected) == expected;
}
#else
static inline int32_t kp_load32(const int32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void kp_store32(int32_t *p, int32_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
static inline int32_t kp_exchange32(int32_t *p, int32_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline int32_t kp_add32(int32_t *p, int32_t v) { return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }
static inline int64_t kp_load64(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void kp_store64(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
static inline int64_t kp_exchange64(int64_t *p, int64_t v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline int64_t kp_add64(int64_t *p, int64_t v) { return __atomic_add_fetch(p, v, __ATOMIC_SEQ_CST); }
static inline int32_t kp_load32_relaxed(const int32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline int64_t kp_load64_relaxed(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void kp_store32_relaxed(int32_t *p, int32_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void kp_store64_relaxed(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void kp_store32_release(int32_t *p, int32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void kp_store_ptr_relaxed(void **p, void *v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void *kp_load_ptr(void *const *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void kp_store_ptr(void **p, void *v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
static inline void *kp_exchange_ptr(void **p, void *v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline int kp_cas_ptr(void **p, void *expected, void *desired) {
    return __atomic_compare_exchange_n(p, &expected, desired, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}
#endif

/* Adds to a counter that is written under one lock and read without it: no other thread adds at the same time. */
static inline void kp_count64(int64_t *p, int64_t n) { kp_store64_relaxed(p, kp_load64_relaxed(p) + n); }

#endif
