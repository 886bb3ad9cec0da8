"""What the core needs of the platform: locks, condition variables, clocks, atomics, sockets."""
from libc.stdint cimport int32_t, int64_t, intptr_t

cdef extern from "kp_thread.h" nogil:
    ctypedef struct kp_mutex:
        pass
    ctypedef struct kp_cond:
        pass
    void kp_mutex_init(kp_mutex* m)
    void kp_mutex_destroy(kp_mutex* m)
    void kp_mutex_lock(kp_mutex* m)
    int kp_mutex_trylock(kp_mutex* m)
    void kp_mutex_unlock(kp_mutex* m)
    void kp_cond_init(kp_cond* c)
    void kp_cond_destroy(kp_cond* c)
    void kp_cond_signal(kp_cond* c)
    void kp_cond_broadcast(kp_cond* c)
    void kp_cond_wait(kp_cond* c, kp_mutex* m)
    void kp_cond_wait_us(kp_cond* c, kp_mutex* m, int64_t us)
    int64_t kp_monotonic_us()
    int64_t kp_realtime_ms()

cdef extern from "kp_latch.h" nogil:
    ctypedef struct kp_latch:
        pass
    void kp_latch_init(kp_latch* l)
    void kp_latch_destroy(kp_latch* l)
    void kp_latch_lock(kp_latch* l)
    int kp_latch_met(kp_latch* l)
    void kp_latch_unlock(kp_latch* l)

cdef extern from "kp_clock.h" nogil:
    ctypedef struct kp_clock:
        pass
    void kp_clock_init(kp_clock* c)
    int64_t kp_clock_read(kp_clock* c)
    int64_t kp_clock_us(kp_clock* c)

cdef extern from "kp_prefetch.h" nogil:
    void kp_prefetch(const void* p, size_t size)
    void kp_prefetch_line(const void* p)

cdef extern from "kp_atomic.h" nogil:
    int32_t kp_load32(const int32_t* p)
    void kp_store32(int32_t* p, int32_t v)
    int32_t kp_exchange32(int32_t* p, int32_t v)
    int32_t kp_add32(int32_t* p, int32_t v)
    int64_t kp_load64(const int64_t* p)
    void kp_store64(int64_t* p, int64_t v)
    int64_t kp_exchange64(int64_t* p, int64_t v)
    int64_t kp_add64(int64_t* p, int64_t v)
    int32_t kp_load32_relaxed(const int32_t* p)
    int64_t kp_load64_relaxed(const int64_t* p)
    void kp_store32_relaxed(int32_t* p, int32_t v)
    void kp_store64_relaxed(int64_t* p, int64_t v)
    void kp_store_ptr_relaxed(void** p, void* v)
    void kp_count64(int64_t* p, int64_t n)
    void* kp_load_ptr(void** p)
    void kp_store_ptr(void** p, void* v)
    void* kp_exchange_ptr(void** p, void* v)
    int kp_cas_ptr(void** p, void* expected, void* desired)

cdef extern from "kp_sock.h" nogil:
    ctypedef struct kp_iov:
        pass
    ctypedef struct kp_pollfd:
        pass
    enum:
        KP_SOCK_AGAIN
        KP_IOV_MAX
    void kp_iov_set(kp_iov* v, const void* p, size_t n)
    size_t kp_iov_len(const kp_iov* v)
    void kp_iov_advance(kp_iov* v, size_t n)
    int64_t kp_sock_send(intptr_t fd, kp_iov* iov, int n)
    int64_t kp_sock_recv(intptr_t fd, void* buf, size_t n)
    int kp_poll(kp_pollfd* fds, unsigned n, int timeout_ms)
    void kp_sock_close(intptr_t fd)
    int kp_sock_connect_error(intptr_t fd)
    void kp_wake_write(intptr_t fd)
    void kp_wake_drain(intptr_t fd)
    void kp_pollfd_set(kp_pollfd* p, intptr_t fd, int want_write)
    void kp_pollfd_ignore_input(kp_pollfd* p)
    int kp_pollfd_readable(const kp_pollfd* p)
    int kp_pollfd_writable(const kp_pollfd* p)
    int kp_pollfd_invalid(const kp_pollfd* p)
