# Timers: each partition has at most one, the moment at which it should be looked at again.
#
# Most are for linger.ms and come in the order of their time: they stand in a line, to which they are added and from
# which they are cleared without a look at another partition. Retry back-offs, and what comes out of order because
# topics linger for different times, are in a heap.

cdef enum:
    LINE_TIDIED = 256          # places from which on a line is closed up
    EARLY_PART = 8             # the part of its linger time by which a batch may leave early, along with others

cdef inline int32_t timer_place(int32_t place) noexcept nogil:
    """`timer_slot` for a place in the line, and the other way around."""
    return -2 - place


cdef int has_room(kp_partition*** list, int32_t* capacity, int32_t n) noexcept nogil:
    """Make room for one more than `n` partitions in a list. 0: no memory."""
    cdef kp_partition** grown
    if n < capacity[0]:
        return 1
    grown = <kp_partition**>realloc(list[0], (capacity[0] * 2 + 64) * sizeof(void*))
    if grown == NULL:
        return 0
    list[0] = grown
    capacity[0] = capacity[0] * 2 + 64
    return 1


# ---------------------------------------------------------------------------------------- the heap

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


cdef void heap_add(kp_loop* loop, kp_partition* p) noexcept nogil:
    if not has_room(&loop.heap, &loop.heap_capacity, loop.heap_size):
        # Without a timer the partition is looked at when its next batch closes or a response comes.
        return
    loop.heap_size += 1
    heap_up(loop, loop.heap_size - 1, p)


cdef void heap_remove(kp_loop* loop, int32_t slot) noexcept nogil:
    cdef kp_partition* last
    loop.heap_size -= 1
    if slot == loop.heap_size:
        return
    last = loop.heap[loop.heap_size]
    if slot > 0 and loop.heap[(slot - 1) // 2].timer_at_us > last.timer_at_us:
        heap_up(loop, slot, last)
    else:
        heap_down(loop, slot, last)


# ---------------------------------------------------------------------------------------- the line

cdef kp_partition* first_in_line(kp_loop* loop) noexcept nogil:
    """The partition whose timer is the first in the line; NULL: there is none."""
    while loop.line_head < loop.line_end:
        if loop.line[loop.line_head] != NULL:
            return loop.line[loop.line_head]
        loop.line_head += 1
    loop.line_head = loop.line_end = 0
    return NULL


cdef int line_add(kp_loop* loop, kp_partition* p) noexcept nogil:
    """Put a timer at the end of the line. 0: another there is later, or there is no memory."""
    if loop.line_timers == 0:
        loop.line_head = loop.line_end = 0
    elif loop.line_last_us > p.timer_at_us:
        return 0
    if not has_room(&loop.line, &loop.line_capacity, loop.line_end):
        return 0
    loop.line[loop.line_end] = p
    p.timer_slot = timer_place(loop.line_end)
    loop.line_end += 1
    loop.line_timers += 1
    loop.line_last_us = p.timer_at_us
    return 1


cdef void tidy_line(kp_loop* loop) noexcept nogil:
    """Close up the line where most of its places are of cleared timers. Not while somebody goes through it."""
    cdef int32_t place, kept = 0
    if loop.line_end < LINE_TIDIED or loop.line_end < 2 * loop.line_timers:
        return
    for place in range(loop.line_head, loop.line_end):
        if loop.line[place] != NULL:
            loop.line[kept] = loop.line[place]
            loop.line[kept].timer_slot = timer_place(kept)
            kept += 1
    loop.line_head = 0
    loop.line_end = kept


# ---------------------------------------------------------------------------------------- both

cdef void clear_timer(kp_loop* loop, kp_partition* p) noexcept nogil:
    cdef int32_t slot = p.timer_slot
    if slot == -1:
        return
    p.timer_slot = -1
    if slot >= 0:
        heap_remove(loop, slot)
    else:
        loop.line[timer_place(slot)] = NULL
        loop.line_timers -= 1


cdef void set_timer(kp_loop* loop, kp_partition* p, int64_t at_us) noexcept nogil:
    if p.timer_slot != -1:
        if p.timer_at_us == at_us:
            return
        clear_timer(loop, p)
    p.timer_at_us = at_us
    # A back-off that is longer than others linger would only keep those out of the line.
    if p.retry_head != NULL or not line_add(loop, p):
        heap_add(loop, p)


cdef kp_partition* next_timer(kp_loop* loop) noexcept nogil:
    """The partition whose timer ends first; NULL: there is none."""
    cdef kp_partition* p = first_in_line(loop)
    if loop.heap_size > 0 and (p == NULL or loop.heap[0].timer_at_us < p.timer_at_us):
        return loop.heap[0]
    return p


cdef void run_timers(kp_loop* loop, int64_t now_us) noexcept nogil:
    """Look at each partition whose timer has ended.

    Where one has, batches that would linger for little longer leave with it: requests are larger, and the loop need not
    wake up for each of them.
    """
    cdef kp_partition* p
    tidy_line(loop)
    while True:
        p = next_timer(loop)
        if p == NULL or p.timer_at_us > now_us + loop.early_us:
            break
        if p.timer_slot < -1:
            prefetch_partitions(loop.line, loop.line_head, loop.line_end)
            loop.early_us = p.topic.linger_us // EARLY_PART
        elif p.timer_at_us > now_us:
            break               # the end of a back-off
        clear_timer(loop, p)
        evaluate(loop, p, now_us)
    loop.early_us = 0


cdef void look_at_lingering(kp_loop* loop, int64_t now_us) noexcept nogil:
    """Lingering ended for all: a flush, a close, or threads that wait for memory."""
    cdef int32_t place = loop.line_head
    cdef int32_t i = loop.heap_size - 1
    cdef kp_partition* p
    while place < loop.line_end:
        # A timer that is set anew meanwhile comes behind all the others.
        if loop.line[place] != NULL:
            evaluate(loop, loop.line[place], now_us)
        place += 1
    # From the end: what takes the place of one that is removed was looked at, or comes from between here and the root.
    while i >= 0:
        p = loop.heap[i]
        evaluate(loop, p, now_us)
        if i >= loop.heap_size or loop.heap[i] == p:
            i -= 1              # it was the last, or keeps its timer: a retry's back-off


# ---------------------------------------------------------------------------------------- for tests

def run_timer_operations(int partitions, operations):
    """Do to the timers of `partitions` partitions what `operations` say; for tests.

    Arguments:
        operations: ``("set", i, t)``: partition i's timer ends at t; ``("retry", i, t)``: the same, of a partition that
            waits to send something again; ``("clear", i)``; ``("run", t)``: as many timers as have ended at t run;
            ``("tidy",)``.

    Returns:
        (list, int): for each ``run`` the list of the partitions whose timers ended, in their order; how many places the
        line has had at most.
    """
    cdef kp_loop loop
    cdef kp_batch retried
    cdef kp_partition* p
    cdef kp_partition* made = <kp_partition*>calloc(partitions, sizeof(kp_partition))
    cdef list found = []
    cdef list ended
    cdef int i
    if made == NULL:
        raise MemoryError
    memset(&loop, 0, sizeof(kp_loop))
    for i in range(partitions):
        made[i].index = i
        made[i].timer_slot = -1
    try:
        for operation in operations:
            if operation[0] == "run":
                ended = []
                while True:
                    p = next_timer(&loop)
                    if p == NULL or p.timer_at_us > operation[1]:
                        break
                    clear_timer(&loop, p)
                    ended.append(p.index)
                found.append(ended)
            elif operation[0] == "tidy":
                tidy_line(&loop)
            else:
                p = &made[operation[1]]
                if operation[0] == "clear":
                    clear_timer(&loop, p)
                else:
                    p.retry_head = &retried if operation[0] == "retry" else NULL
                    set_timer(&loop, p, operation[2])
    finally:
        free(made)
        free(loop.line)
        free(loop.heap)
    return found, loop.line_capacity
