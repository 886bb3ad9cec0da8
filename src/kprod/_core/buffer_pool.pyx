"""The memory of all record batches, bounded by buffer.memory.

A batch is charged for the bytes it holds, not for batch.size: memory is taken as records come. Buffers that come
back are kept for reuse in power-of-two classes (and one class of exactly batch.size); idle ones count towards the
limit and are given back to the C library when a charge needs the room. Threads that wait for memory are served in
the order in which they came, whatever they ask for, so that a large record cannot starve.
"""
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc

from kprod._core.platform cimport (
    kp_cond_destroy, kp_cond_init, kp_cond_signal, kp_cond_wait_us, kp_monotonic_us, kp_mutex_destroy, kp_mutex_init,
    kp_mutex_lock, kp_mutex_unlock, kp_store32,
)


cdef kp_pool* pool_new(int64_t limit, int64_t standard) noexcept nogil:
    cdef kp_pool* pool = <kp_pool*>calloc(1, sizeof(kp_pool))
    if pool != NULL:
        kp_mutex_init(&pool.lock)
        pool.limit = limit
        pool.standard = standard
    return pool


cdef void locked_drop_idle(kp_pool* pool) noexcept nogil:
    cdef kp_free_buffer* buffer
    cdef int i
    while pool.standard_free != NULL:
        buffer = pool.standard_free
        pool.standard_free = buffer.next
        free(buffer)
    for i in range(POOL_CLASSES):
        while pool.free[i] != NULL:
            buffer = pool.free[i]
            pool.free[i] = buffer.next
            free(buffer)
    pool.pooled = 0


cdef void pool_delete(kp_pool* pool) noexcept nogil:
    locked_drop_idle(pool)
    kp_mutex_destroy(&pool.lock)
    free(pool)


cdef inline int size_class(int64_t capacity) noexcept nogil:
    """The class of exactly this capacity, or -1."""
    cdef int i
    cdef int64_t size = POOL_SMALLEST
    for i in range(POOL_CLASSES):
        if size == capacity:
            return i
        size <<= 1
    return -1


cdef int64_t pool_capacity_for(kp_pool* pool, int64_t size) noexcept nogil:
    """The capacity to allocate for `size` bytes: a power of two below batch.size, batch.size, or exactly `size`."""
    cdef int64_t capacity = POOL_SMALLEST
    while capacity < size and capacity < pool.standard:
        capacity <<= 1
    if capacity >= pool.standard:
        capacity = pool.standard
    return capacity if capacity >= size else size


cdef uint8_t* pool_alloc(kp_pool* pool, int64_t capacity) noexcept nogil:
    """Memory for `capacity` bytes, which the caller has charged. NULL: the system has none."""
    cdef kp_free_buffer* buffer = NULL
    cdef int cls
    kp_mutex_lock(&pool.lock)
    if capacity == pool.standard:
        buffer = pool.standard_free
        if buffer != NULL:
            pool.standard_free = buffer.next
    else:
        cls = size_class(capacity)
        if cls >= 0 and pool.free[cls] != NULL:
            buffer = pool.free[cls]
            pool.free[cls] = buffer.next
    if buffer != NULL:
        pool.pooled -= capacity
    kp_mutex_unlock(&pool.lock)
    if buffer != NULL:
        return <uint8_t*>buffer
    return <uint8_t*>malloc(capacity if capacity > 0 else 1)


cdef void pool_free(kp_pool* pool, uint8_t* data, int64_t capacity) noexcept nogil:
    """Give a buffer back. Its charge is given back apart, by pool_uncharge()."""
    cdef kp_free_buffer* buffer = <kp_free_buffer*>data
    cdef int cls
    if data == NULL:
        return
    kp_mutex_lock(&pool.lock)
    # The charge may still be counted, so this keeps a little less than it could, never more.
    if not pool.closed and pool.used + pool.pooled <= pool.limit:
        if capacity == pool.standard:
            buffer.next = pool.standard_free
            pool.standard_free = buffer
            pool.pooled += capacity
            buffer = NULL
        else:
            cls = size_class(capacity)
            if cls >= 0:
                buffer.next = pool.free[cls]
                pool.free[cls] = buffer
                pool.pooled += capacity
                buffer = NULL
    kp_mutex_unlock(&pool.lock)
    free(buffer)


cdef inline int locked_charge(kp_pool* pool, int64_t size) noexcept nogil:
    if pool.used + size > pool.limit:
        return 0
    if pool.used + pool.pooled + size > pool.limit:
        locked_drop_idle(pool)
    pool.used += size
    return 1


cdef int pool_try_charge(kp_pool* pool, int64_t size) noexcept nogil:
    """Charge `size` bytes if they are free now and nobody waits for memory. 1: charged."""
    cdef int ok
    kp_mutex_lock(&pool.lock)
    ok = pool.waiters == NULL and not pool.closed and locked_charge(pool, size)
    kp_mutex_unlock(&pool.lock)
    return ok


cdef void pool_force_charge(kp_pool* pool, int64_t size) noexcept nogil:
    """Charge `size` bytes whatever the limit: for the pieces of a split batch, whose whole is freed right after."""
    kp_mutex_lock(&pool.lock)
    pool.used += size
    kp_mutex_unlock(&pool.lock)


cdef void locked_grant(kp_pool* pool) noexcept nogil:
    cdef kp_pool_waiter* waiter
    while pool.waiters != NULL and locked_charge(pool, pool.waiters.need):
        waiter = pool.waiters
        pool.waiters = waiter.next
        if pool.waiters == NULL:
            pool.last_waiter = NULL
        waiter.queued = 0
        waiter.granted = 1
        kp_store32(&pool.n_waiters, pool.n_waiters - 1)
        kp_cond_signal(&waiter.cond)


cdef void pool_uncharge(kp_pool* pool, int64_t size) noexcept nogil:
    """Give a charge back and serve those who wait."""
    if size == 0:
        return
    kp_mutex_lock(&pool.lock)
    pool.used -= size
    locked_grant(pool)
    kp_mutex_unlock(&pool.lock)


cdef void pool_waiter_enter(kp_pool* pool, kp_pool_waiter* waiter, int64_t size) noexcept nogil:
    """Queue up for `size` bytes. Every enter needs one pool_waiter_leave()."""
    kp_cond_init(&waiter.cond)
    waiter.next = NULL
    waiter.need = size
    waiter.granted = 0
    waiter.queued = 1
    kp_mutex_lock(&pool.lock)
    if pool.last_waiter == NULL:
        pool.waiters = waiter
    else:
        pool.last_waiter.next = waiter
    pool.last_waiter = waiter
    kp_store32(&pool.n_waiters, pool.n_waiters + 1)
    locked_grant(pool)
    kp_mutex_unlock(&pool.lock)


cdef int pool_waiter_wait(kp_pool* pool, kp_pool_waiter* waiter, int64_t us) noexcept nogil:
    """Wait up to `us` microseconds. 1: the bytes are charged; 0: not yet; -1: the pool was closed."""
    cdef int result
    cdef int64_t start = kp_monotonic_us()
    kp_mutex_lock(&pool.lock)
    if not waiter.granted and not pool.closed:
        kp_cond_wait_us(&waiter.cond, &pool.lock, us)
    pool.wait_us += kp_monotonic_us() - start
    result = 1 if waiter.granted else (-1 if pool.closed else 0)
    kp_mutex_unlock(&pool.lock)
    return result


cdef int pool_waiter_leave(kp_pool* pool, kp_pool_waiter* waiter) noexcept nogil:
    """Leave the queue. 1: the bytes are charged to the caller; 0: it has nothing."""
    cdef kp_pool_waiter* before
    kp_mutex_lock(&pool.lock)
    if waiter.queued:
        if pool.waiters == waiter:
            pool.waiters = waiter.next
            if pool.waiters == NULL:
                pool.last_waiter = NULL
        else:
            before = pool.waiters
            while before.next != waiter:
                before = before.next
            before.next = waiter.next
            if pool.last_waiter == waiter:
                pool.last_waiter = before
        kp_store32(&pool.n_waiters, pool.n_waiters - 1)
        # Those behind may ask for less than this one did.
        locked_grant(pool)
        pool.exhausted += 1
    kp_mutex_unlock(&pool.lock)
    kp_cond_destroy(&waiter.cond)
    return waiter.granted


cdef void pool_close(kp_pool* pool) noexcept nogil:
    """Wake everybody who waits and keep no more idle buffers."""
    cdef kp_pool_waiter* waiter
    kp_mutex_lock(&pool.lock)
    pool.closed = 1
    waiter = pool.waiters
    while waiter != NULL:
        kp_cond_signal(&waiter.cond)
        waiter = waiter.next
    locked_drop_idle(pool)
    kp_mutex_unlock(&pool.lock)


cdef class BufferPool:
    """A pool by itself, for tests and measurements.

    Arguments:
        limit: bytes that may be charged at once.
        standard: the batch size in bytes that is pooled exactly.
    """
    cdef kp_pool* pool

    def __cinit__(self, int64_t limit, int64_t standard=16384):
        self.pool = pool_new(limit, standard)
        if self.pool == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.pool != NULL:
            pool_delete(self.pool)

    def capacity_for(self, int64_t size):
        """Bytes that a buffer for `size` bytes takes."""
        return pool_capacity_for(self.pool, size)

    def try_charge(self, int64_t size):
        """Charge `size` bytes; False when they are not free or others wait already."""
        return bool(pool_try_charge(self.pool, size))

    def uncharge(self, int64_t size):
        """Give `size` charged bytes back."""
        with nogil:
            pool_uncharge(self.pool, size)

    def charge(self, int64_t size, double timeout):
        """Wait up to `timeout` seconds for `size` bytes. False: they did not come free."""
        cdef kp_pool_waiter waiter
        cdef int64_t deadline = kp_monotonic_us() + <int64_t>(timeout * 1e6)
        cdef int64_t now
        with nogil:
            pool_waiter_enter(self.pool, &waiter, size)
            now = kp_monotonic_us()
            while now < deadline and pool_waiter_wait(self.pool, &waiter, deadline - now) == 0:
                now = kp_monotonic_us()
            size = pool_waiter_leave(self.pool, &waiter)
        return bool(size)

    def cycle(self, int64_t capacity, int times=1):
        """Allocate and free a buffer of `capacity` bytes, `times` times."""
        cdef uint8_t* data
        cdef int _
        with nogil:
            for _ in range(times):
                data = pool_alloc(self.pool, capacity)
                pool_free(self.pool, data, capacity)

    @property
    def used(self):
        """Bytes charged."""
        return self.pool.used

    @property
    def pooled(self):
        """Bytes of idle buffers."""
        return self.pool.pooled

    @property
    def waiting(self):
        """Threads that wait for memory."""
        return self.pool.n_waiters
