# The timer heap: each partition has at most one timer, the moment at which it should be looked at again.

cdef inline void heap_put(kp_loop* loop, int32_t slot, kp_partition* p) noexcept nogil:
    loop.heap[slot] = p
    p.timer_slot = slot


cdef void heap_up(kp_loop* loop, int32_t slot, kp_partition* p) noexcept nogil:
    cdef int32_t parent
    while slot > 0:
        parent = (slot - 1) // 2
        if loop.heap[parent].timer_at_us <= p.timer_at_us:
            break
        heap_put(loop, slot, loop.heap[parent])
        slot = parent
    heap_put(loop, slot, p)


cdef void heap_down(kp_loop* loop, int32_t slot, kp_partition* p) noexcept nogil:
    cdef int32_t child
    while True:
        child = 2 * slot + 1
        if child >= loop.heap_size:
            break
        if child + 1 < loop.heap_size and loop.heap[child + 1].timer_at_us < loop.heap[child].timer_at_us:
            child += 1
        if loop.heap[child].timer_at_us >= p.timer_at_us:
            break
        heap_put(loop, slot, loop.heap[child])
        slot = child
    heap_put(loop, slot, p)


cdef void clear_timer(kp_loop* loop, kp_partition* p) noexcept nogil:
    cdef int32_t slot = p.timer_slot
    cdef kp_partition* last
    if slot < 0:
        return
    p.timer_slot = -1
    loop.heap_size -= 1
    if slot == loop.heap_size:
        return
    last = loop.heap[loop.heap_size]
    if slot > 0 and loop.heap[(slot - 1) // 2].timer_at_us > last.timer_at_us:
        heap_up(loop, slot, last)
    else:
        heap_down(loop, slot, last)


cdef void set_timer(kp_loop* loop, kp_partition* p, int64_t at_us) noexcept nogil:
    cdef kp_partition** grown
    cdef int64_t before = p.timer_at_us
    p.timer_at_us = at_us
    if p.timer_slot >= 0:
        if at_us < before:
            heap_up(loop, p.timer_slot, p)
        elif at_us > before:
            heap_down(loop, p.timer_slot, p)
        return
    if loop.heap_size == loop.heap_capacity:
        grown = <kp_partition**>realloc(loop.heap, (loop.heap_capacity * 2 + 64) * sizeof(void*))
        if grown == NULL:
            # Without a timer the partition is looked at when its next batch closes or a response comes.
            return
        loop.heap = grown
        loop.heap_capacity = loop.heap_capacity * 2 + 64
    loop.heap_size += 1
    heap_up(loop, loop.heap_size - 1, p)
