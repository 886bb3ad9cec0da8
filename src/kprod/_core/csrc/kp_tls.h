/* TLS records for the network loop, without the GIL, by the OpenSSL that Python's _ssl module has loaded.
 *
 * The handshake is done by Python's ssl module. What comes after it, encrypting and decrypting, is done here, on the
 * SSL object of the established connection. There are no OpenSSL headers and nothing is linked: the functions are
 * looked up at run time, and all of them have been there, with these signatures, since OpenSSL 1.1.0.
 *
 * OpenSSL writes into a buffer of ours, through a BIO of ours, so that many TLS records leave with one system call and
 * SSL_write() never has to wait for the socket. It reads from the socket by itself.
 *
 * Return values are those of kp_sock.h; -EPROTO: TLS failed, and `error` says why. */
#ifndef KP_TLS_H
#define KP_TLS_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kp_sock.h"

#ifdef _WIN32
#include <windows.h>
typedef HMODULE kp_library;
#else
#include <dlfcn.h>
typedef void *kp_library;
#endif

#define KP_TLS_RECORD 16384        /* plain bytes in one record, RFC 8446 section 5.1 */
#define KP_TLS_CHUNK 262144        /* plain bytes that are encrypted before they are sent */
#define KP_TLS_OUT_KEEP 1048576    /* a larger buffer is given back once it is empty */

/* From openssl/ssl.h and openssl/bio.h; part of their binary interface. */
#define KP_SSL_ERROR_SSL 1
#define KP_SSL_ERROR_WANT_READ 2
#define KP_SSL_ERROR_WANT_WRITE 3
#define KP_SSL_ERROR_SYSCALL 5
#define KP_SSL_ERROR_ZERO_RETURN 6
#define KP_SSL_CTRL_MODE 33
#define KP_SSL_MODE_PARTIAL_AND_MOVING 3L
#define KP_BIO_CTRL_PUSH 6
#define KP_BIO_CTRL_POP 7
#define KP_BIO_CTRL_FLUSH 11
#define KP_BIO_TYPE_SOURCE_SINK 0x0400

typedef struct {
    int (*SSL_read)(void *ssl, void *buf, int num);
    int (*SSL_write)(void *ssl, const void *buf, int num);
    int (*SSL_get_error)(const void *ssl, int ret);
    int (*SSL_has_pending)(const void *ssl);
    int (*SSL_shutdown)(void *ssl);
    int (*SSL_get_fd)(const void *ssl);
    const char *(*SSL_get_version)(const void *ssl);
    long (*SSL_ctrl)(void *ssl, int cmd, long larg, void *parg);
    void (*SSL_set_read_ahead)(void *ssl, int yes);
    void (*SSL_set0_wbio)(void *ssl, void *bio);
    void *(*BIO_meth_new)(int type, const char *name);
    int (*BIO_meth_set_write)(void *method, int (*write)(void *bio, const char *data, int length));
    int (*BIO_meth_set_ctrl)(void *method, long (*ctrl)(void *bio, int cmd, long num, void *ptr));
    void *(*BIO_new)(const void *method);
    void (*BIO_set_data)(void *bio, void *ptr);
    void *(*BIO_get_data)(void *bio);
    void (*BIO_set_init)(void *bio, int init);
    unsigned long (*ERR_peek_error)(void);
    const char *(*ERR_reason_error_string)(unsigned long error);
    void (*ERR_clear_error)(void);
    const char *(*OpenSSL_version)(int type);
    void *out_method;              /* BIO_METHOD of our BIO */
} kp_tls_api;

typedef struct {
    const kp_tls_api *api;
    void *ssl;
    void *bio;                     /* owned by ssl */
    intptr_t fd;
    int starved;                   /* the last read found no whole record */
    int broken;                    /* a fatal error: nothing may be written any more */
    unsigned char *out;            /* encrypted, [out_start, out_end) not yet sent */
    size_t out_start, out_end, out_capacity;
    unsigned char *gather;         /* small pieces are put together to whole records */
    char error[200];
} kp_tls;

static kp_tls_api kp_tls_the_api;

/* ---------------------------------------------------------------------------------------- our BIO */

static int kp_tls_bio_write(void *bio, const char *data, int length) {
    kp_tls *t = (kp_tls *)kp_tls_the_api.BIO_get_data(bio);
    if (t == NULL || length <= 0) return -1;
    if (t->out_end + (size_t)length > t->out_capacity) {
        size_t capacity = t->out_capacity ? t->out_capacity : 65536;
        unsigned char *grown;
        if (t->out_start > 0) {
            memmove(t->out, t->out + t->out_start, t->out_end - t->out_start);
            t->out_end -= t->out_start;
            t->out_start = 0;
        }
        while (t->out_end + (size_t)length > capacity) capacity *= 2;
        if (capacity > t->out_capacity) {
            grown = (unsigned char *)realloc(t->out, capacity);
            if (grown == NULL) return -1;
            t->out = grown;
            t->out_capacity = capacity;
        }
    }
    memcpy(t->out + t->out_end, data, (size_t)length);
    t->out_end += (size_t)length;
    return length;
}

static long kp_tls_bio_ctrl(void *bio, int cmd, long num, void *ptr) {
    (void)bio;
    (void)num;
    (void)ptr;
    return cmd == KP_BIO_CTRL_FLUSH || cmd == KP_BIO_CTRL_PUSH || cmd == KP_BIO_CTRL_POP ? 1 : 0;
}

/* ---------------------------------------------------------------------------------------- finding the library */

static inline void *kp_tls_symbol(kp_library library, const char *name) {
#ifdef _WIN32
    return (void *)GetProcAddress(library, name);
#else
    return dlsym(library, name);
#endif
}

/* 0: something is missing, or it is another OpenSSL than the one that calls itself `version`. */
static inline int kp_tls_bind(kp_library ssl, kp_library crypto, const char *version) {
    kp_tls_api *api = &kp_tls_the_api;
    int missing = 0;
    void *symbol;
    /* Through memcpy: ISO C knows no conversion of an object pointer to a function pointer. */
#define KP_TLS_FIND(library, name) \
    symbol = kp_tls_symbol(library, #name); \
    if (symbol == NULL) missing++; \
    memcpy(&api->name, &symbol, sizeof symbol)
    KP_TLS_FIND(ssl, SSL_read);
    KP_TLS_FIND(ssl, SSL_write);
    KP_TLS_FIND(ssl, SSL_get_error);
    KP_TLS_FIND(ssl, SSL_has_pending);
    KP_TLS_FIND(ssl, SSL_shutdown);
    KP_TLS_FIND(ssl, SSL_get_fd);
    KP_TLS_FIND(ssl, SSL_get_version);
    KP_TLS_FIND(ssl, SSL_ctrl);
    KP_TLS_FIND(ssl, SSL_set_read_ahead);
    KP_TLS_FIND(ssl, SSL_set0_wbio);
    KP_TLS_FIND(crypto, BIO_meth_new);
    KP_TLS_FIND(crypto, BIO_meth_set_write);
    KP_TLS_FIND(crypto, BIO_meth_set_ctrl);
    KP_TLS_FIND(crypto, BIO_new);
    KP_TLS_FIND(crypto, BIO_set_data);
    KP_TLS_FIND(crypto, BIO_get_data);
    KP_TLS_FIND(crypto, BIO_set_init);
    KP_TLS_FIND(crypto, ERR_peek_error);
    KP_TLS_FIND(crypto, ERR_reason_error_string);
    KP_TLS_FIND(crypto, ERR_clear_error);
    KP_TLS_FIND(crypto, OpenSSL_version);
#undef KP_TLS_FIND
    if (missing || strcmp(api->OpenSSL_version(0), version) != 0) return 0;
    if (api->out_method == NULL) {
        api->out_method = api->BIO_meth_new(KP_BIO_TYPE_SOURCE_SINK, "kprod");
        if (api->out_method == NULL) return 0;
        api->BIO_meth_set_write(api->out_method, kp_tls_bio_write);
        api->BIO_meth_set_ctrl(api->out_method, kp_tls_bio_ctrl);
    }
    return 1;
}

/* Find the functions in the library that the module `path` (of _ssl) was linked to, and that calls itself `version`.
 * 0: they are not to be had. */
static inline int kp_tls_find(const char *path, const char *version) {
#ifdef _WIN32
    static const char *const names[][2] = {
        {"libssl-3.dll", "libcrypto-3.dll"},         {"libssl-3-x64.dll", "libcrypto-3-x64.dll"},
        {"libssl-3-arm64.dll", "libcrypto-3-arm64.dll"}, {"libssl-1_1.dll", "libcrypto-1_1.dll"},
        {"libssl-1_1-x64.dll", "libcrypto-1_1-x64.dll"},
    };
    size_t i;
    (void)path;
    for (i = 0; i < sizeof names / sizeof *names; i++) {
        HMODULE ssl = GetModuleHandleA(names[i][0]);
        HMODULE crypto = GetModuleHandleA(names[i][1]);
        if (ssl != NULL && crypto != NULL && kp_tls_bind(ssl, crypto, version)) return 1;
    }
    return 0;
#else
    /* A handle finds symbols in the library and in what it depends on, and nowhere else: not in another OpenSSL that
     * something else in this process has brought along. It is never closed. */
    kp_library library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    return library != NULL && kp_tls_bind(library, library, version);
#endif
}

/* ---------------------------------------------------------------------------------------- one connection */

static inline int kp_tls_init(kp_tls *t, void *ssl, intptr_t fd) {
    const kp_tls_api *api = &kp_tls_the_api;
    t->api = api;
    t->ssl = ssl;
    t->fd = fd;
    t->gather = (unsigned char *)malloc(KP_TLS_RECORD);
    t->bio = api->BIO_new(api->out_method);
    if (t->gather == NULL || t->bio == NULL) return 0;
    api->BIO_set_data(t->bio, t);
    api->BIO_set_init(t->bio, 1);
    api->SSL_ctrl(ssl, KP_SSL_CTRL_MODE, KP_SSL_MODE_PARTIAL_AND_MOVING, NULL);
    api->SSL_set_read_ahead(ssl, 1);
    api->SSL_set0_wbio(ssl, t->bio);
    return 1;
}

/* Before the owner gives the SSL object back: what it may still want to write goes nowhere. */
static inline void kp_tls_free(kp_tls *t) {
    if (t->bio != NULL) t->api->BIO_set_data(t->bio, NULL);
    free(t->gather);
    free(t->out);
    t->gather = t->out = NULL;
}

static inline int64_t kp_tls_failed(kp_tls *t, int result) {
    int saved = errno;
    unsigned long code;
    const char *text;
    switch (t->api->SSL_get_error(t->ssl, result)) {
    case KP_SSL_ERROR_WANT_READ:
    case KP_SSL_ERROR_WANT_WRITE:
        return KP_SOCK_AGAIN;
    case KP_SSL_ERROR_ZERO_RETURN:
        return 0;
    case KP_SSL_ERROR_SYSCALL:
        t->broken = 1;
#ifdef _WIN32
        saved = WSAGetLastError();
#endif
        code = t->api->ERR_peek_error();
        if (code == 0) return saved ? -(int64_t)saved : 0;
        break;
    default:
        t->broken = 1;
        code = t->api->ERR_peek_error();
    }
    text = code ? t->api->ERR_reason_error_string(code) : NULL;
    t->api->ERR_clear_error();
    /* OpenSSL 3 counts the end of the connection without close_notify as an error; Kafka's frames have lengths, so that
     * nothing can be cut off unnoticed. */
    if (text != NULL && strcmp(text, "unexpected eof while reading") == 0) return 0;
    snprintf(t->error, sizeof t->error, "%s", text != NULL ? text : "TLS failed");
    return -(int64_t)EPROTO;
}

static inline int kp_tls_unsent(const kp_tls *t) { return t->out_end > t->out_start; }

/* Send what is encrypted: 0 when all is gone, KP_SOCK_AGAIN, or an error. */
static inline int64_t kp_tls_flush(kp_tls *t) {
    kp_iov v;
    int64_t sent;
    while (t->out_end > t->out_start) {
        kp_iov_set(&v, t->out + t->out_start, t->out_end - t->out_start);
        sent = kp_sock_send(t->fd, &v, 1);
        if (sent < 0) return sent;
        t->out_start += (size_t)sent;
    }
    t->out_start = t->out_end = 0;
    if (t->out_capacity > KP_TLS_OUT_KEEP) {
        free(t->out);
        t->out = NULL;
        t->out_capacity = 0;
    }
    return 0;
}

static inline int64_t kp_tls_encrypt(kp_tls *t, const void *data, size_t n) {
    size_t done = 0;
    while (done < n) {
        int r = t->api->SSL_write(t->ssl, (const char *)data + done, (int)(n - done));
        if (r <= 0) {
            int64_t failed = kp_tls_failed(t, r);
            if (done > 0 && failed == KP_SOCK_AGAIN) return (int64_t)done;
            return failed != 0 ? failed : -(int64_t)EPIPE;
        }
        done += (size_t)r;
    }
    return (int64_t)done;
}

/* Encrypt up to KP_TLS_CHUNK bytes of `iov` and send as much as the socket takes; the rest stays in `out`. Returns the
 * plain bytes that were taken. */
static inline int64_t kp_tls_send(kp_tls *t, kp_iov *iov, int n) {
    int64_t taken = 0, r;
    size_t offset = 0, length;
    int i = 0;
    r = kp_tls_flush(t);
    if (r != 0) return r;
    t->api->ERR_clear_error();
    while (i < n && taken < KP_TLS_CHUNK) {
#ifdef _WIN32
        const unsigned char *base = (const unsigned char *)iov[i].base;
#else
        const unsigned char *base = (const unsigned char *)iov[i].iov_base;
#endif
        length = kp_iov_len(&iov[i]) - offset;
        if (length >= KP_TLS_RECORD) {
            /* Whole records straight from the batch. */
            length -= length % KP_TLS_RECORD;
            if (length > KP_TLS_CHUNK) length = KP_TLS_CHUNK;
            r = kp_tls_encrypt(t, base + offset, length);
            if (r < 0) return taken > 0 && r == KP_SOCK_AGAIN ? taken : r;
            taken += r;
            if ((size_t)r < length) break;
            offset += (size_t)r;
            if (offset == kp_iov_len(&iov[i])) { i++; offset = 0; }
            continue;
        }
        /* Small pieces: put together until a record is full, or nothing is left. */
        size_t filled = 0;
        int piece = i;
        size_t from = offset;
        while (piece < n && filled < KP_TLS_RECORD) {
#ifdef _WIN32
            base = (const unsigned char *)iov[piece].base;
#else
            base = (const unsigned char *)iov[piece].iov_base;
#endif
            length = kp_iov_len(&iov[piece]) - from;
            if (length > KP_TLS_RECORD - filled) length = KP_TLS_RECORD - filled;
            memcpy(t->gather + filled, base + from, length);
            filled += length;
            from += length;
            if (from == kp_iov_len(&iov[piece])) { piece++; from = 0; }
        }
        if (filled == 0) break;
        r = kp_tls_encrypt(t, t->gather, filled);
        if (r < 0) return taken > 0 && r == KP_SOCK_AGAIN ? taken : r;
        taken += r;
        if ((size_t)r < filled) break;
        i = piece;
        offset = from;
    }
    r = kp_tls_flush(t);
    return r < 0 && r != KP_SOCK_AGAIN ? r : taken;
}

static inline int64_t kp_tls_recv(kp_tls *t, void *buf, size_t n) {
    int64_t result, flushed;
    int r;
    t->api->ERR_clear_error();
    errno = 0;
    r = t->api->SSL_read(t->ssl, buf, n > 0x40000000 ? 0x40000000 : (int)n);
    result = r > 0 ? r : kp_tls_failed(t, r);
    t->starved = result == KP_SOCK_AGAIN;
    /* What reading made it say: the answer to a key update, an alert. */
    if (kp_tls_unsent(t)) {
        flushed = kp_tls_flush(t);
        if (flushed < 0 && flushed != KP_SOCK_AGAIN && result == KP_SOCK_AGAIN) return flushed;
    }
    return result;
}

/* Whether kp_tls_recv() may find more without the socket becoming readable. */
static inline int kp_tls_pending(const kp_tls *t) { return !t->starved && t->api->SSL_has_pending(t->ssl); }

/* Say goodbye, if that can be done without waiting. */
static inline void kp_tls_close(kp_tls *t) {
    if (!t->broken) {
        t->api->ERR_clear_error();
        t->api->SSL_shutdown(t->ssl);
        t->api->ERR_clear_error();
    }
    kp_tls_flush(t);
}

#endif
