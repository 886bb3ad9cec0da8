/* liblz4's own functions, out of a library that has them: the extension module of the package lz4 exports them on Linux
 * and macOS. Called without Python, they need neither the GIL nor an object, and nobody has to wait for it afterwards. */
#ifndef KP_LZ4_H
#define KP_LZ4_H

#include <stddef.h>

/* int LZ4_compress_fast(const char* src, char* dst, int srcSize, int dstCapacity, int acceleration), since 1.7;
 * int LZ4_compress_HC(const char* src, char* dst, int srcSize, int dstCapacity, int compressionLevel), since 1.7.
 * Both return the bytes written, 0: they do not fit. */
typedef int (*kp_lz4_function)(const char *source, char *target, int size, int capacity, int level);

static kp_lz4_function kp_lz4_fast = NULL, kp_lz4_slow = NULL;

#ifdef _WIN32
static int kp_lz4_find(const char *path) { (void)path; return 0; }
#else
#include <dlfcn.h>

/* 1: the functions are found, and stay. */
static int kp_lz4_find(const char *path) {
    union { void *symbol; kp_lz4_function call; } fast, slow;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) return 0;
    fast.symbol = dlsym(library, "LZ4_compress_fast");
    slow.symbol = dlsym(library, "LZ4_compress_HC");
    if (fast.symbol == NULL || slow.symbol == NULL) {
        dlclose(library);
        return 0;
    }
    kp_lz4_fast = fast.call;
    kp_lz4_slow = slow.call;
    return 1;
}
#endif

#endif
