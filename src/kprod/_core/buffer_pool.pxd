"""The memory of all record batches, bounded by buffer.memory."""
from libc.stdint cimport int32_t, int64_t, uint8_t

from kprod._core.platform cimport kp_cond, kp_mutex

cdef enum:
    POOL_CLASSES = 16          # 512 B << 0 .. 15
    POOL_SMALLEST = 512
    # Above batch.size: eight sizes from each power of two to the next, from 4 KiB to 64 MiB.
    POOL_LARGE_FIRST = 12      # log2 of the smallest
    POOL_LARGE_STEPS = 8
    POOL_LARGE_CLASSES = 112

cdef struct kp_free_buffer:
    kp_free_buffer* next

cdef struct kp_pool_waiter:
    kp_pool_waiter* next
    int64_t need
    int64_t capacity           # of a buffer that it would like with it, 0: none
    uint8_t* data              # an idle buffer of that capacity, once granted; NULL: there was none
    int32_t granted            # the bytes are charged, the waiter owns them
    int32_t queued
    kp_cond cond

cdef struct kp_pool:
    kp_mutex lock              # guards every field below
    int64_t limit              # buffer.memory
    int64_t used               # charged to batches
    int64_t pooled             # idle buffers kept for reuse
    int64_t standard           # batch.size: the one size outside the power-of-two classes
    kp_free_buffer* standard_free
    kp_free_buffer* free[POOL_CLASSES]
    kp_free_buffer* large[POOL_LARGE_CLASSES]
    kp_pool_waiter* waiters    # first come, first served
    kp_pool_waiter* last_waiter
    int32_t n_waiters          # [a] read without the lock by the network loop
    int32_t closed
    int64_t wait_us            # time spent waiting, all threads
    int64_t exhausted          # waits that timed out

cdef kp_pool* pool_new(int64_t limit, int64_t standard) noexcept nogil
cdef void pool_delete(kp_pool* pool) noexcept nogil
cdef int64_t pool_capacity_for(kp_pool* pool, int64_t size) noexcept nogil
cdef uint8_t* pool_alloc(kp_pool* pool, int64_t capacity) noexcept nogil
cdef void pool_free(kp_pool* pool, uint8_t* data, int64_t capacity) noexcept nogil
cdef void pool_give(kp_pool* pool, uint8_t* data, int64_t capacity, int64_t charge) noexcept nogil
cdef void pool_open(kp_pool* pool) noexcept nogil
cdef void locked_give(kp_pool* pool, uint8_t* data, int64_t capacity, int64_t charge,
                      kp_free_buffer** left) noexcept nogil
cdef void pool_settle(kp_pool* pool, kp_free_buffer* left) noexcept nogil
cdef int pool_try_charge(kp_pool* pool, int64_t size) noexcept nogil
cdef int pool_try_take(kp_pool* pool, int64_t charge, int64_t capacity, uint8_t** data) noexcept nogil
cdef void pool_force_charge(kp_pool* pool, int64_t size) noexcept nogil
cdef void pool_uncharge(kp_pool* pool, int64_t size) noexcept nogil
cdef void pool_waiter_enter(kp_pool* pool, kp_pool_waiter* waiter, int64_t size,
                            int64_t capacity) noexcept nogil
cdef int pool_waiter_wait(kp_pool* pool, kp_pool_waiter* waiter, int64_t us) noexcept nogil
cdef int pool_waiter_leave(kp_pool* pool, kp_pool_waiter* waiter) noexcept nogil
cdef void pool_close(kp_pool* pool) noexcept nogil
