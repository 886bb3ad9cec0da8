/* Telling the processor what will be needed soon. Any address may be given; nothing is read or written. */
#ifndef KP_PREFETCH_H
#define KP_PREFETCH_H

#include <stddef.h>

#if defined(_MSC_VER) && !defined(__clang__)
#if defined(_M_X64) || defined(_M_IX86)
#include <intrin.h>
static inline void kp_prefetch_line(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
#else
static inline void kp_prefetch_line(const void *p) { (void)p; }
#endif
#else
static inline void kp_prefetch_line(const void *p) { __builtin_prefetch(p, 1, 3); }
#endif

/* All cache lines of an object. */
static inline void kp_prefetch(const void *p, size_t size) {
    const char *at = (const char *)p;
    const char *end = at + size;
    for (; at < end; at += 64)
        kp_prefetch_line(at);
    if (size)
        kp_prefetch_line(end - 1);
}

#endif
