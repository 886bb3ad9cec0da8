"""The memory of all record batches, bounded by buffer.memory.

A batch is charged for the bytes it holds, not for batch.size: memory is taken as records come. Buffers that come
back are kept for reuse: in power-of-two classes below batch.size, one class of exactly batch.size, and eight classes
to a power of two above it, for records that are larger (the C library would return such buffers to the system, which
clears every page anew). Idle ones count towards the limit and are given back to the C library when a charge needs the
room, except for the one that the charge is made for. Threads that wait for memory are served in the order in which
they came, whatever they ask for, so that a large record cannot starve.
"""
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc

from kprod._core.platform cimport (
    kp_cond_destroy, kp_cond_init, kp_cond_signal, kp_cond_wait_us, kp_monotonic_us, kp_mutex_destroy, kp_mutex_init,
    kp_mutex_lock, kp_mutex_unlock, kp_prefetch, kp_store32,
)

cdef enum:
    NEXT_BYTES = 192           # so much of the buffer that is taken next is read ahead


cdef kp_pool* pool_new(int64_t limit, int64_t standard) noexcept nogil:
    cdef kp_pool* pool = <kp_pool*>calloc(1, sizeof(kp_pool))
    if pool != NULL:
        kp_mutex_init(&pool.lock)
        pool.limit = limit
        pool.standard = standard
    return pool


cdef void locked_trim(kp_pool* pool, int64_t excess) noexcept nogil:
    """Give idle buffers back to the C library, the largest first, until at least `excess` bytes are gone."""
    cdef kp_free_buffer** head
    cdef kp_free_buffer* buffer
    cdef int64_t capacity
    cdef int i = POOL_LARGE_CLASSES + POOL_CLASSES
    while excess > 0 and i >= 0:
        if i > POOL_CLASSES:
            head = &pool.large[i - POOL_CLASSES - 1]
            capacity = large_capacity(i - POOL_CLASSES - 1)
        elif i == POOL_CLASSES:
            head = &pool.standard_free
            capacity = pool.standard
        else:
            head = &pool.free[i]
            capacity = <int64_t>POOL_SMALLEST << i
        while head[0] != NULL and excess > 0:
            buffer = head[0]
            head[0] = buffer.next
            free(buffer)
            pool.pooled -= capacity
            excess -= capacity
        i -= 1


cdef void pool_delete(kp_pool* pool) noexcept nogil:
    locked_trim(pool, pool.pooled)
    kp_mutex_destroy(&pool.lock)
    free(pool)


cdef inline int64_t large_capacity(int index) noexcept nogil:
    cdef int64_t step = <int64_t>1 << (POOL_LARGE_FIRST + index // POOL_LARGE_STEPS - 3)
    return step * (POOL_LARGE_STEPS + index % POOL_LARGE_STEPS)


cdef inline int large_class(int64_t size) noexcept nogil:
    """The class of the smallest buffers that hold `size` bytes, at most an eighth more; -1: there is none."""
    cdef int shift = POOL_LARGE_FIRST
    cdef int64_t step
    cdef int index
    if size < (<int64_t>1 << POOL_LARGE_FIRST):
        return -1
    while size >= <int64_t>2 << shift:
        shift += 1
    step = <int64_t>1 << (shift - 3)
    index = (shift - POOL_LARGE_FIRST) * POOL_LARGE_STEPS + <int>((size + step - 1) // step - POOL_LARGE_STEPS)
    return index if index < POOL_LARGE_CLASSES else -1


cdef kp_free_buffer** list_of(kp_pool* pool, int64_t capacity) noexcept nogil:
    """The list of idle buffers of exactly this capacity; NULL: such buffers are not kept."""
    cdef int i
    cdef int64_t size = POOL_SMALLEST
    if capacity == pool.standard:
        return &pool.standard_free
    if capacity < pool.standard:
        for i in range(POOL_CLASSES):
            if size == capacity:
                return &pool.free[i]
            size <<= 1
        return NULL
    i = large_class(capacity)
    return &pool.large[i] if i >= 0 and large_capacity(i) == capacity else NULL


cdef int64_t pool_capacity_for(kp_pool* pool, int64_t size) noexcept nogil:
    """The capacity to allocate for `size` bytes: a power of two below batch.size, batch.size, or up to an eighth more.
    """
    cdef int64_t capacity = POOL_SMALLEST
    cdef int i
    if size > pool.standard:
        i = large_class(size)
        # No more than there is: the largest record that buffer.memory allows has to fit.
        return large_capacity(i) if i >= 0 and large_capacity(i) <= pool.limit // 2 else size
    while capacity < size and capacity < pool.standard:
        capacity <<= 1
    return capacity if capacity < pool.standard else pool.standard


cdef inline uint8_t* locked_pop(kp_pool* pool, int64_t capacity) noexcept nogil:
    cdef kp_free_buffer** head = list_of(pool, capacity)
    cdef kp_free_buffer* buffer = head[0] if head != NULL else NULL
    if buffer != NULL:
        head[0] = buffer.next
        # For the next batch. How to go on from there is written in it as well.
        kp_prefetch(buffer.next, NEXT_BYTES)
        pool.pooled -= capacity
    return <uint8_t*>buffer


cdef inline int locked_keep(kp_pool* pool, uint8_t* data, int64_t capacity) noexcept nogil:
    """Keep a buffer for reuse. 0: there is no room for it, or none are kept of its size."""
    cdef kp_free_buffer** head
    if pool.closed or pool.used + pool.pooled + capacity > pool.limit:
        return 0
    head = list_of(pool, capacity)
    if head == NULL:
        return 0
    (<kp_free_buffer*>data).next = head[0]
    head[0] = <kp_free_buffer*>data
    pool.pooled += capacity
    return 1


cdef uint8_t* pool_alloc(kp_pool* pool, int64_t capacity) noexcept nogil:
    """Memory for `capacity` bytes, which the caller has charged. NULL: the system has none."""
    cdef uint8_t* data
    kp_mutex_lock(&pool.lock)
    data = locked_pop(pool, capacity)
    kp_mutex_unlock(&pool.lock)
    return data if data != NULL else <uint8_t*>malloc(capacity if capacity > 0 else 1)


cdef void pool_free(kp_pool* pool, uint8_t* data, int64_t capacity) noexcept nogil:
    """Give a buffer back. Its charge is given back apart, by pool_uncharge()."""
    cdef int kept
    if data == NULL:
        return
    kp_mutex_lock(&pool.lock)
    kept = locked_keep(pool, data, capacity)
    kp_mutex_unlock(&pool.lock)
    if not kept:
        free(data)


cdef void pool_open(kp_pool* pool) noexcept nogil:
    """Take the pool's lock, to give many buffers back. Ends with pool_settle()."""
    kp_mutex_lock(&pool.lock)


cdef void locked_give(kp_pool* pool, uint8_t* data, int64_t capacity, int64_t charge,
                      kp_free_buffer** left) noexcept nogil:
    """Give a buffer (or NULL) and a charge back, after pool_open(). `left` gathers what there is no room for."""
    pool.used -= charge
    if data != NULL and not locked_keep(pool, data, capacity):
        (<kp_free_buffer*>data).next = left[0]
        left[0] = <kp_free_buffer*>data


cdef void pool_settle(kp_pool* pool, kp_free_buffer* left) noexcept nogil:
    """Serve those who wait, give the lock back, and to the C library what is left."""
    cdef kp_free_buffer* buffer
    if pool.waiters != NULL:
        locked_grant(pool)
    kp_mutex_unlock(&pool.lock)
    while left != NULL:
        buffer = left
        left = left.next
        free(buffer)


cdef void pool_give(kp_pool* pool, uint8_t* data, int64_t capacity, int64_t charge) noexcept nogil:
    """Give a buffer (or NULL) and a charge back at once, and serve those who wait."""
    cdef kp_free_buffer* left = NULL
    pool_open(pool)
    locked_give(pool, data, capacity, charge, &left)
    pool_settle(pool, left)


cdef inline int locked_charge(kp_pool* pool, int64_t size, int64_t capacity, uint8_t** data) noexcept nogil:
    """Charge `size` bytes and take an idle buffer of `capacity` bytes, if there is one. 0: they are not free."""
    if pool.used + size > pool.limit:
        return 0
    # First, so that what is about to be used makes no room for itself.
    data[0] = locked_pop(pool, capacity) if capacity > 0 else NULL
    if pool.used + pool.pooled + size > pool.limit:
        locked_trim(pool, pool.used + pool.pooled + size - pool.limit)
    pool.used += size
    return 1


cdef int pool_try_take(kp_pool* pool, int64_t charge, int64_t capacity, uint8_t** data) noexcept nogil:
    """Charge bytes if they are free now and nobody waits for memory, and get a buffer. 1: charged.

    `data` is NULL if nothing was charged, or if the system has no memory.
    """
    cdef int ok
    data[0] = NULL
    kp_mutex_lock(&pool.lock)
    ok = pool.waiters == NULL and not pool.closed and locked_charge(pool, charge, capacity, data)
    kp_mutex_unlock(&pool.lock)
    if ok and data[0] == NULL:
        data[0] = <uint8_t*>malloc(capacity if capacity > 0 else 1)
    return ok


cdef int pool_try_charge(kp_pool* pool, int64_t size) noexcept nogil:
    """Charge `size` bytes if they are free now and nobody waits for memory. 1: charged."""
    cdef int ok
    cdef uint8_t* none
    kp_mutex_lock(&pool.lock)
    ok = pool.waiters == NULL and not pool.closed and locked_charge(pool, size, 0, &none)
    kp_mutex_unlock(&pool.lock)
    return ok


cdef void pool_force_charge(kp_pool* pool, int64_t size) noexcept nogil:
    """Charge `size` bytes whatever the limit: for the pieces of a split batch, whose whole is freed right after."""
    kp_mutex_lock(&pool.lock)
    pool.used += size
    kp_mutex_unlock(&pool.lock)


cdef void locked_grant(kp_pool* pool) noexcept nogil:
    cdef kp_pool_waiter* waiter
    while pool.waiters != NULL and locked_charge(
            pool, pool.waiters.need, pool.waiters.capacity, &pool.waiters.data):
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


cdef void pool_waiter_enter(kp_pool* pool, kp_pool_waiter* waiter, int64_t size,
                            int64_t capacity) noexcept nogil:
    """Queue up for `size` bytes, with an idle buffer of `capacity` bytes unless that is 0.

    Every enter needs one pool_waiter_leave(); after it a granted buffer, `waiter.data`, is the caller's.
    """
    kp_cond_init(&waiter.cond)
    waiter.next = NULL
    waiter.need = size
    waiter.capacity = capacity
    waiter.data = NULL
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
    locked_trim(pool, pool.pooled)
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
            pool_waiter_enter(self.pool, &waiter, size, 0)
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
