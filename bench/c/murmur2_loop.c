/* The key hash alone: `murmur2_loop SIZE TIMES` prints its value for the bytes 0, 1, ... 250, 0, ... and the least time
 * that it took, in ns. Each hash is of the same bytes, and none begins before the one before it has ended. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kp_murmur2.h"

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    long size = argc > 2 ? atol(argv[1]) : 0, times = argc > 2 ? atol(argv[2]) : 0;
    uint8_t *data = size > 0 ? malloc((size_t)size) : NULL;
    double best = 1e18;
    volatile uint32_t hash = 0;
    if (data == NULL || times <= 0) {
        fprintf(stderr, "usage: murmur2_loop SIZE TIMES, both positive\n");
        return 2;
    }
    for (long i = 0; i < size; i++) data[i] = (uint8_t)(i % 251);
    for (long i = 0; i < times; i++) {
        double start = now_ns();
        hash = kp_murmur2(data, size);
        double took = now_ns() - start;
        if (took < best) best = took;
    }
    printf("%lu %.1f\n", (unsigned long)hash, best);
    free(data);
    return 0;
}
