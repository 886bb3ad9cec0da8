"""TLS connections that Python's ssl module has set up, for the network loop."""
from libc.stdint cimport int64_t, intptr_t

from kprod._core.platform cimport kp_iov

cdef extern from "kp_tls.h" nogil:
    ctypedef struct kp_tls:
        void* ssl
        int broken
        char* error
    int kp_tls_find(const char* path, const char* version)
    int kp_tls_init(kp_tls* t, void* connection, intptr_t fd)
    void kp_tls_free(kp_tls* t)
    int kp_tls_unsent(const kp_tls* t)
    int64_t kp_tls_flush(kp_tls* t)
    int64_t kp_tls_send(kp_tls* t, kp_iov* iov, int n)
    int64_t kp_tls_recv(kp_tls* t, void* buf, size_t n)
    int kp_tls_pending(const kp_tls* t)
    void kp_tls_close(kp_tls* t)


cdef class TlsStream:
    cdef kp_tls tls
    cdef object connection      # Python's object that owns the SSL object
