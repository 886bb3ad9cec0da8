"""The accumulator: where application threads put records and the network loop finds batches.

An append (append.pxd) takes the partition's own lock, writes the record in wire format into its open batch, and is
done: no other lock, no wake-up. Everything else happens once per batch: opening one (memory, a Batch object, the list
of incomplete batches), closing one (compression, the dirty list, waking the loop when it sleeps).

The loop is told of a partition through the dirty list, a lock-free stack: when its first batch is opened (so that
linger.ms can run) and when a batch closes. It is woken only if it sleeps beyond the moment at which it is needed.
"""

from cpython.buffer cimport PyBUF_READ
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from kprod._core.append cimport NO_OPEN_BATCH, locked_append
from kprod._core.buffer_pool cimport (
    kp_free_buffer, kp_pool, kp_pool_waiter, locked_give, pool_alloc, pool_capacity_for, pool_close, pool_delete,
    pool_free, pool_give, pool_new, pool_open, pool_settle, pool_try_charge, pool_try_take, pool_uncharge,
    pool_waiter_enter, pool_waiter_leave, pool_waiter_wait,
)
from kprod._core.compression cimport compress, compress_into, compressed_bound
from kprod._core.future cimport Batch, kp_only_reference, publish_outcome, running_hub, waiting_functions
from kprod._core.platform cimport (
    kp_add32, kp_add64, kp_cas_ptr, kp_clock_init, kp_clock_read, kp_cond_broadcast, kp_cond_destroy, kp_cond_init,
    kp_cond_signal, kp_cond_wait, kp_cond_wait_us, kp_exchange32, kp_exchange64, kp_exchange_ptr, kp_latch_destroy,
    kp_latch_init, kp_latch_lock, kp_latch_unlock, kp_load32, kp_load32_relaxed, kp_load64, kp_load64_relaxed,
    kp_load_ptr, kp_monotonic_us, kp_mutex_destroy, kp_mutex_init, kp_mutex_lock, kp_mutex_unlock, kp_prefetch,
    kp_realtime_ms, kp_store32, kp_store32_relaxed, kp_store64, kp_store64_relaxed, kp_store_ptr,
    kp_store_ptr_relaxed, kp_wake_write,
)
from kprod._core.record_batch cimport kp_record
from kprod._core.structs cimport (
    BATCH_OVERHEAD, ERROR_BUFFER_EXHAUSTED, ERROR_LEADERS_AWAY, FIRST_INFO, OUTCOME_FAILED, STAGE_CLOSED,
    LANES, STAGE_COMPRESSING, STAGE_OPEN, kp_batch, kp_broker, kp_partition, kp_record_info, kp_topic, release_info,
)

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil


cdef extern from *:
    """
    #ifdef _MSC_VER
    #define KP_OF_THREAD static __declspec(thread)
    #else
    #define KP_OF_THREAD static _Thread_local
    #endif
    /* Of this thread: its lane, the partition that it last opened a batch in from there, how often it met others. */
    KP_OF_THREAD int kp_lane, kp_lane_partition = -1, kp_meetings;
    """
    int kp_lane, kp_lane_partition, kp_meetings


cdef enum:
    CACHE_LINE = 64
    # A kp_partition and what is left of its last cache line.
    PARTITION_BYTES = (sizeof(kp_partition) + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE
    SPARES = 4096              # Batch objects that are kept for reuse, at most
    BATCH_OBJECT_BYTES = sizeof(kp_batch) + 64
    WAIT_SLICE_US = 100000
    LEADER_SLICE_US = 20000    # how often it is looked whether a leader came back
    SECOND_INFO = 16           # records a batch has room to describe when FIRST_INFO was not enough
    WALL_AGE_US = 1000         # how long the wall clock, as it was read, may be used
    WEIGHTS_AGE_US = 5000      # how long the adaptive partitioner's view of the queues may be used
    WAKE_BYTES = 65536         # records that the compressor compresses before it wakes the loop for them
    SENT_WITH_GIL = 65536      # bytes of a record that its sender hands to the socket without giving the GIL away


# ------------------------------------------------------------------------------------------------ topics

cdef class Topic:
    """A topic's partitions and options. One per topic name and producer; lives as long as any batch of it.

    Arguments:
        name: the topic's name, already validated.
        number: grows with each topic of the producer.
        batch_size: bytes; linger_us: microseconds; codec, level: see _core.compression; acks: -1, 0 or 1.
    """

    def __cinit__(self, str name, int number, reporter, int64_t batch_size, int64_t linger_us, int codec, int level,
                  int acks, bint adaptive, bint rack_aware, uint64_t seed):
        cdef int i
        memset(&self.t, 0, sizeof(kp_topic))
        kp_mutex_init(&self.t.lock)
        self.name = name
        self.name_bytes = name.encode("utf-8")
        self.reporter = reporter
        self.allocated = []
        self.t.name = self.name_bytes
        self.t.name_length = len(self.name_bytes)
        self.t.number = number
        self.t.owner = <PyObject*>self
        self.t.batch_size = batch_size if batch_size > BATCH_OVERHEAD else BATCH_OVERHEAD
        self.t.linger_us = linger_us
        self.t.codec = codec
        self.t.level = level
        self.t.acks = acks
        for i in range(LANES):
            self.t.sticky[i] = -1
        self.t.adaptive = adaptive
        self.t.rack_aware = rack_aware
        self.t.random = seed | 1

    def __dealloc__(self):
        cdef int32_t i
        for i in range(self.t.n_known):
            kp_latch_destroy(&self.t.partitions[i].lock)
        free(self.t.partitions)
        for address in self.allocated or ():
            free(<void*><uintptr_t>address)
        free(self.t.weights)
        free(self.t.candidates)
        kp_mutex_destroy(&self.t.lock)

    cdef kp_partition* partition(self, int32_t index) noexcept nogil:
        return (<kp_partition**>kp_load_ptr(<void**>&self.t.partitions))[index]

    @property
    def partition_count(self):
        """Partitions that the topic is known to have."""
        return kp_load32(&self.t.n_partitions)

    def set_partition_count(self, int32_t count):
        """Learn how many partitions the topic has. Fewer than before: it was deleted and created again.

        Only the control thread calls this.
        """
        cdef int32_t old = self.t.n_known
        cdef int32_t i
        cdef kp_partition** grown
        cdef kp_partition* p
        cdef char* made
        if count > old:
            grown = <kp_partition**>malloc(count * sizeof(void*))
            made = <char*>calloc((count - old) + 1, PARTITION_BYTES)
            if grown == NULL or made == NULL:
                free(grown)
                free(made)
                raise MemoryError
            self.allocated.append(<uintptr_t>made)
            made += CACHE_LINE - <uintptr_t>made % CACHE_LINE
            for i in range(count):
                if i < old:
                    grown[i] = self.t.partitions[i]
                    continue
                p = <kp_partition*>(made + (i - old) * PARTITION_BYTES)
                kp_latch_init(&p.lock)
                p.topic = &self.t
                p.index = i
                p.leader_id = -1
                p.leader_epoch = -1
                p.timer_slot = -1
                p.producer_id = -1
                p.producer_epoch = -1
                grown[i] = p
            # Other threads may still read the old array.
            if self.t.partitions != NULL:
                self.allocated.append(<uintptr_t>self.t.partitions)
            kp_store_ptr(<void**>&self.t.partitions, grown)
            self.t.n_known = count
        with nogil:
            kp_mutex_lock(&self.t.lock)
            kp_store32(&self.t.n_partitions, count)
            self.t.n_candidates = 0
            for i in range(LANES):
                if self.t.sticky[i] >= count:
                    kp_store32(&self.t.sticky[i], -1)
            kp_mutex_unlock(&self.t.lock)

    def available_partitions(self):
        """Numbers of the partitions whose leader is known and not known to be away."""
        cdef int32_t i
        return [i for i in range(kp_load32(&self.t.n_partitions)) if is_available(self.partition(i))]

    def sticky_choice(self, *, int32_t met=0, int32_t opened=-1, int32_t left=-1):
        """Where this thread's records without a key go to. For tests: nothing is appended.

        Arguments:
            met: before that, it had to wait so often for another thread to append there.
            opened: before that, it opened a batch in this partition.
            left: before that, it turned away from this partition.
        """
        if met:
            met_at_sticky(&self.t, met)
        if opened >= 0:
            opened_sticky(&self.t, opened)
        if left >= 0:
            leave_sticky(&self.t, left)
        return choose_sticky(&self.t)

    def counters(self):
        """Totals since the start: a dict of ints."""
        return {
            "records_sent": kp_load64_relaxed(&self.t.records_sent),
            "records_acked": kp_load64_relaxed(&self.t.records_acked),
            "records_failed": kp_load64_relaxed(&self.t.records_failed),
            "records_retried": kp_load64_relaxed(&self.t.records_retried),
            "bytes_sent": kp_load64_relaxed(&self.t.bytes_sent),
            "raw_bytes_sent": kp_load64_relaxed(&self.t.raw_bytes_sent),
            "batches_sent": kp_load64_relaxed(&self.t.batches_sent),
        }


# ------------------------------------------------------------------------------------------------ partitioning

cdef kp_broker* available_leader(kp_partition* p) noexcept nogil:
    """The leader, unless it is not known or away. To be read once: the control thread may set another, or none."""
    # Brokers live as long as the loop, which outlives every send().
    cdef kp_broker* broker = <kp_broker*>kp_load_ptr(<void**>&p.broker)
    return broker if broker != NULL and kp_load32_relaxed(&broker.usable) else NULL


cdef int is_available(kp_partition* p) noexcept nogil:
    return available_leader(p) != NULL


cdef int candidates_are(kp_topic* t, kp_partition** partitions, int32_t n) noexcept nogil:
    """Which partitions the sticky choice is among: 2 available ones in client.rack, 1 available ones, 0 all."""
    cdef kp_broker* leader
    cdef int32_t i
    cdef int best = 0
    for i in range(n):
        leader = available_leader(partitions[i])
        if leader != NULL:
            if not t.rack_aware:
                return 1
            best = 1
            if kp_load32_relaxed(&leader.in_rack):
                return 2
    return best


cdef void locked_weigh_partitions(kp_topic* t, int64_t now_us) noexcept nogil:
    """Cumulative weights of the partitions with a leader: the shorter the queue, the heavier (KIP-794)."""
    cdef int32_t n = kp_load32(&t.n_partitions)
    cdef kp_partition** partitions = <kp_partition**>kp_load_ptr(<void**>&t.partitions)
    cdef kp_broker* leader
    cdef int32_t i, queued, longest = 0
    cdef int among
    cdef int64_t total = 0
    cdef int32_t* grown
    if n > t.weights_capacity:
        grown = <int32_t*>realloc(t.weights, n * sizeof(int32_t))
        if grown == NULL:
            return
        t.weights = grown
        grown = <int32_t*>realloc(t.candidates, n * sizeof(int32_t))
        if grown == NULL:
            return
        t.candidates = grown
        t.weights_capacity = n
    # Nothing available: spread over all, so that records wait where they may end up anyway.
    among = candidates_are(t, partitions, n)
    t.n_candidates = 0
    for i in range(n):
        leader = available_leader(partitions[i])
        if among > 0 and leader == NULL:
            continue
        if among == 2 and not kp_load32_relaxed(&leader.in_rack):
            continue
        t.candidates[t.n_candidates] = i
        t.weights[t.n_candidates] = kp_load32_relaxed(&partitions[i].queued) if t.adaptive else 0
        if t.weights[t.n_candidates] > longest:
            longest = t.weights[t.n_candidates]
        t.n_candidates += 1
    for i in range(t.n_candidates):
        queued = t.weights[i]
        total += longest + 1 - queued
        t.weights[i] = <int32_t>(total if total < INT32_MAX else INT32_MAX)
    t.weights_at_us = now_us


cdef int32_t locked_next_sticky(kp_topic* t) noexcept nogil:
    cdef int64_t now_us = kp_monotonic_us()
    cdef int32_t low, high, middle, pick
    if t.n_candidates == 0 or now_us - t.weights_at_us > WEIGHTS_AGE_US:
        locked_weigh_partitions(t, now_us)
    if t.n_candidates == 0:
        return 0
    pick = <int32_t>(next_random(&t.random) % <uint64_t>t.weights[t.n_candidates - 1])
    low = 0
    high = t.n_candidates - 1
    while low < high:
        middle = (low + high) // 2
        if t.weights[middle] > pick:
            high = middle
        else:
            low = middle + 1
    return t.candidates[low]


cdef int32_t locked_apart(kp_topic* t) noexcept nogil:
    """The next sticky choice, if it can be none that another lane has."""
    cdef int32_t pick = locked_next_sticky(t)
    cdef int lane, taken
    for _ in range(LANES if t.lanes_used else 0):
        taken = 0
        for lane in range(LANES):
            taken |= t.sticky[lane] == pick
        if not taken:
            break
        pick = locked_next_sticky(t)
    return pick


cdef inline int lane_of(kp_topic* t) noexcept nogil:
    return kp_lane if kp_load32_relaxed(&t.lanes_used) else 0


cdef int32_t choose_sticky(kp_topic* t) noexcept nogil:
    """The partition that this thread's records without a key go to now."""
    cdef int lane = lane_of(t)
    cdef int32_t sticky = kp_load32_relaxed(&t.sticky[lane])
    # Not relaxed: the array that is read after this must have as many.
    if 0 <= sticky < kp_load32(&t.n_partitions):
        return sticky
    kp_mutex_lock(&t.lock)
    if not 0 <= t.sticky[lane] < t.n_partitions:
        kp_store32(&t.sticky[lane], locked_apart(t))
    sticky = t.sticky[lane]
    kp_mutex_unlock(&t.lock)
    return sticky


cdef void leave_sticky(kp_topic* t, int32_t partition) noexcept nogil:
    """Turn to another partition, unless somebody did already."""
    cdef int lane = lane_of(t)
    kp_mutex_lock(&t.lock)
    if t.sticky[lane] == partition:
        kp_store64(&t.sticky_bytes, 0)
        kp_store32(&t.sticky[lane], locked_apart(t))
    kp_mutex_unlock(&t.lock)


cdef void met_at_sticky(kp_topic* t, int times) noexcept nogil:
    """This thread had to wait for another one that appended to the sticky partition.

    Threads that meet often while a batch is filled part: this one turns to a lane, with a sticky choice of its own.
    """
    global kp_lane, kp_lane_partition, kp_meetings
    kp_meetings += times
    if kp_meetings < MEETINGS:
        return
    kp_meetings = 0
    if kp_load32(&t.n_partitions) < 2:
        return
    kp_lane_partition = -1
    kp_mutex_lock(&t.lock)
    t.lanes_given += 1
    kp_lane = t.lanes_given % LANES
    kp_store32_relaxed(&t.lanes_used, 1)
    kp_mutex_unlock(&t.lock)


cdef void opened_sticky(kp_topic* t, int32_t partition) noexcept nogil:
    """This thread opened a batch in the sticky partition.

    Twice in the same one: the batch before did not get full, so there are not too many records for one lane.
    """
    global kp_lane, kp_lane_partition, kp_meetings
    kp_meetings = 0
    if lane_of(t):
        if kp_lane_partition == partition:
            kp_lane = 0
        kp_lane_partition = partition


cdef int32_t choose_round_robin(kp_topic* t) noexcept nogil:
    """The next partition whose leader is available, or simply the next one."""
    cdef int32_t n = kp_load32(&t.n_partitions)
    cdef kp_partition** partitions = <kp_partition**>kp_load_ptr(<void**>&t.partitions)
    cdef int32_t candidate = 0
    for _ in range(n):
        candidate = <int32_t>((<uint32_t>kp_add32(&t.counter, 1) - 1) % <uint32_t>n)
        if is_available(partitions[candidate]):
            return candidate
    return candidate


# ------------------------------------------------------------------------------------------------ signals to the loop

cdef void mark_dirty(kp_accumulator* a, kp_partition* p) noexcept nogil:
    cdef void* head
    if kp_exchange32(&p.dirty, 1):
        return
    while True:
        head = kp_load_ptr(&a.dirty)
        p.dirty_next = <kp_partition*>head
        if kp_cas_ptr(&a.dirty, head, p):
            return


cdef kp_partition* take_dirty(kp_accumulator* a) noexcept nogil:
    """All dirty partitions as a list through dirty_next. The caller clears `dirty` of each before it looks at it."""
    if kp_load_ptr(&a.dirty) == NULL:
        return NULL
    return <kp_partition*>kp_exchange_ptr(&a.dirty, NULL)


cdef void wake_loop(kp_accumulator* a, int64_t needed_at_us) noexcept nogil:
    """Wake the loop if it sleeps past `needed_at_us`."""
    cdef int64_t until = kp_load64(&a.sleeps_until_us)
    if until > needed_at_us:
        kp_add32(&a.wakers, 1)
        # One writer of the wake-up is enough: who exchanges the mark away writes it.
        if kp_exchange64(&a.sleeps_until_us, 0) != 0:
            kp_wake_write(a.wake_fd)
        kp_add32(&a.wakers, -1)


cdef inline int sent_by_caller(kp_accumulator* a, int64_t size):
    """Send in this thread what it will most likely wait for, as for the record before. 0: the loop has to be woken.

    `size`: bytes of the record. Unless it is large, with the GIL: whoever is given that may take this CPU as well, for
    a slice of milliseconds, while a batch is open that nobody else knows of.
    """
    cdef int sent
    if a.loop == NULL or not kp_load32_relaxed(&a.waited):
        return 0
    kp_store32_relaxed(&a.waited, 0)
    if size <= SENT_WITH_GIL:
        return a.send_by_caller(a.loop)
    with nogil:
        sent = a.send_by_caller(a.loop)
    return sent


cdef void queue_compression(kp_accumulator* a, kp_batch* b) noexcept nogil:
    """Hand a batch in STAGE_COMPRESSING to the compressor thread."""
    b.compress_next = NULL
    kp_mutex_lock(&a.compress_lock)
    if a.compress_tail == NULL:
        a.compress_head = b
    else:
        a.compress_tail.compress_next = b
    a.compress_tail = b
    kp_mutex_unlock(&a.compress_lock)
    kp_cond_signal(&a.compress_cond)


# ------------------------------------------------------------------------------------------------ batches

cdef void locked_close_open(kp_partition* p) noexcept nogil:
    """Close the open batch to records. It needs compressing if its stage says so."""
    cdef kp_batch* b = p.open
    p.open = NULL
    kp_store64_relaxed(&p.last_capacity, b.capacity)
    kp_store32_relaxed(&p.last_count, b.count)
    b.raw_length = b.length
    kp_store32_relaxed(&b.stage, STAGE_COMPRESSING if p.topic.codec else STAGE_CLOSED)
    kp_add64(&p.topic.sticky_bytes, b.length)


cdef void locked_free_batch_data(kp_accumulator* a, kp_batch* b, kp_free_buffer** left) noexcept nogil:
    """free_batch_data() between pool_open() and pool_settle()."""
    if b.data == NULL and b.charged == 0:
        return
    if b.held_by != NULL:
        kp_add64(&b.held_by.held, -b.charged)
    locked_give(a.pool, b.data, b.capacity, b.charged, left)
    b.data = NULL
    b.charged = 0


cdef void free_batch_data(kp_accumulator* a, kp_batch* b) noexcept nogil:
    """Give the record bytes back to the pool. Nobody may read them any more."""
    cdef kp_free_buffer* left = NULL
    pool_open(a.pool)
    locked_free_batch_data(a, b, &left)
    pool_settle(a.pool, left)


cdef inline void add_charge(kp_batch* b, int64_t size) noexcept nogil:
    b.charged += size
    if b.held_by != NULL:
        kp_add64(&b.held_by.held, size)


cdef inline int is_away(kp_broker* broker) noexcept nogil:
    return not kp_load32(&broker.usable) or kp_load32(&broker.stalled)


cdef int crowds_out(kp_accumulator* a, kp_partition* p, int64_t size) noexcept nogil:
    """Whether `size` more bytes for a leader that is away, or for no leader, would leave too little for the others.

    Leaders that are away (not connected, or taking nothing) may hold half of buffer.memory together, as long as any
    other is there.
    """
    cdef kp_broker* broker = <kp_broker*>kp_load_ptr(<void**>&p.broker)
    cdef int64_t held = size + kp_load64(&a.nobody.held)
    cdef int others = 0
    if a.brokers == NULL or (broker != NULL and not is_away(broker)):
        return 0
    broker = <kp_broker*>kp_load_ptr(<void**>a.brokers)
    while broker != NULL:
        if is_away(broker):
            held += kp_load64(&broker.held)
        elif kp_load32(&broker.can_produce):
            others = 1
        broker = broker.next
    return others and held > a.pool.limit // 2


cdef void unpin_batch(kp_accumulator* a, kp_batch* b) noexcept nogil:
    """Drop one reason to keep the Batch object; the last one sends it to be released by a thread with the GIL."""
    cdef void* head
    if kp_add32(&b.pins, -1) == 0:
        while True:
            head = kp_load_ptr(&a.reap_head)
            b.next = <kp_batch*>head
            if kp_cas_ptr(&a.reap_head, head, b):
                return


cdef int waits_for_older(kp_batch* b) noexcept nogil:
    """Whether an older batch of the partition that was sent is not decided: then callbacks wait for its own."""
    cdef kp_partition* p = b.partition
    return (p.splitting > 0 or (p.flight_head != NULL and p.flight_head.id < b.id)
            or (p.retry_head != NULL and p.retry_head.id < b.id))


cdef void hold_delivery(kp_batch* b) noexcept nogil:
    cdef kp_batch** at = &b.partition.held
    while at[0] != NULL and at[0].id <= b.id:
        at = &at[0].next
    b.next = at[0]
    at[0] = b


cdef inline void queue_delivery(kp_accumulator* a, kp_batch* b) noexcept nogil:
    """Gather a batch for the delivery thread."""
    b.next = NULL
    if a.gathered_last == NULL:
        a.gathered_first = b
    else:
        a.gathered_last.next = b
    a.gathered_last = b
    a.gathered_deliveries += 1


cdef inline void locked_forget(kp_accumulator* a, kp_batch* b) noexcept nogil:
    """Take a batch off the list of incomplete batches. Called with the accumulator's lock."""
    if b.older != NULL:
        b.older.newer = b.newer
    else:
        a.oldest = b.newer
    if b.newer != NULL:
        b.newer.older = b.older
    else:
        a.newest = b.older
    b.older = b.newer = NULL
    a.incomplete -= 1


cdef void gather_decided(kp_accumulator* a) noexcept nogil:
    """From here to settle_gathered(), what decide_batch() does under locks is put off, to be done once for all.

    A response may decide a thousand batches. The caller holds the loop's lock until then.
    """
    a.gathering = 1
    a.gathered_us = kp_monotonic_us()


cdef void settle_gathered(kp_accumulator* a) noexcept nogil:
    cdef kp_batch* b = a.gathered
    cdef kp_batch* following
    a.gathering = 0
    a.gathered = NULL
    # Before the batches leave the list of incomplete ones: flush() waits for one and then for the other. What an older
    # batch holds back is queued when that is decided, so also before it leaves the list.
    if a.gathered_first != NULL:
        kp_mutex_lock(&a.done_lock)
        if a.done_tail == NULL:
            a.done_head = a.gathered_first
        else:
            a.done_tail.next = a.gathered_first
        a.done_tail = a.gathered_last
        kp_store64_relaxed(&a.enqueued, a.enqueued + a.gathered_deliveries)
        kp_mutex_unlock(&a.done_lock)
        kp_cond_signal(&a.done_cond)
        a.gathered_first = a.gathered_last = NULL
        a.gathered_deliveries = 0
    kp_mutex_lock(&a.lock)
    following = b
    while following != NULL:
        locked_forget(a, following)
        following = following.decided_next
    if a.progress_waiters:
        kp_cond_broadcast(&a.progress)
    kp_mutex_unlock(&a.lock)
    while b != NULL:
        following = b.decided_next
        unpin_batch(a, b)
        b = following


cdef void decide_batch(kp_accumulator* a, kp_batch* b, int32_t outcome) noexcept nogil:
    """A batch has its outcome: tell futures, queue callbacks, take it off the list of incomplete batches.

    Result fields are set before. The caller holds the loop's lock and has taken the batch off its partition's lists.
    """
    cdef kp_partition* p = b.partition
    cdef kp_batch* held
    cdef int deliver
    cdef int alone = not a.gathering
    if alone:
        gather_decided(a)
    b.completed_us = a.gathered_us
    if b.requests == 0:
        free_batch_data(a, b)
    kp_mutex_lock(&b.lock)
    deliver = b.callbacks != NULL or b.n_late > 0 or (b.unattended and outcome == OUTCOME_FAILED)
    b.queued = deliver
    publish_outcome(b, outcome)
    kp_mutex_unlock(&b.lock)
    if deliver:
        # One more reason to keep it: the delivery thread may be through with it before this function is.
        kp_add32(&b.pins, 1)
        if waits_for_older(b):
            hold_delivery(b)
        else:
            queue_delivery(a, b)
    while p.held != NULL and not waits_for_older(p.held):
        held = p.held
        p.held = held.next
        queue_delivery(a, held)
    b.decided_next = a.gathered
    a.gathered = b
    if alone:
        settle_gathered(a)


cdef inline int64_t first_capacity(kp_accumulator* a, kp_partition* p, int64_t need) noexcept nogil:
    """The size that a new batch starts with: that of the partition's last one."""
    cdef int64_t capacity = kp_load64_relaxed(&p.last_capacity)
    if capacity > p.topic.batch_size:
        capacity = p.topic.batch_size
    return pool_capacity_for(a.pool, capacity if capacity > need else need)


cdef inline int32_t first_records(kp_partition* p) noexcept nogil:
    """How many records a new batch has room to describe at first: a few more than the partition's last one had."""
    cdef int32_t records = kp_load32_relaxed(&p.last_count)
    return records + records // 8 if records > FIRST_INFO else <int32_t>FIRST_INFO


cdef int give_buffers(kp_accumulator* a, kp_batch* b, uint8_t* data, int64_t capacity, int64_t charge,
                      int32_t records) noexcept nogil:
    """Hand a batch what is charged already, and allocate the rest of it.

    0: the C library has no memory (`data` may be NULL for that reason); nothing is charged any more.
    """
    cdef int64_t now_us = kp_clock_read(&a.clock)
    release_info(b)            # left from an earlier try with the same batch
    b.data = data
    if records > FIRST_INFO:
        b.info = <kp_record_info*>malloc(records * sizeof(kp_record_info))
    else:
        records = FIRST_INFO
        b.info = &b.first_info[0]
    b.capacity = capacity
    b.charged = charge
    b.created_us = now_us
    if b.data == NULL or b.info == NULL:
        free_batch_data(a, b)
        return 0
    b.info_capacity = records
    if now_us - kp_load64_relaxed(&a.wall_read_us) > WALL_AGE_US:
        kp_store64(&a.wall_read_us, now_us)
        kp_store64(&a.wall_offset_ms, kp_realtime_ms() - now_us // 1000)
    return 1


cdef int try_batch_memory(kp_accumulator* a, kp_partition* p, kp_batch* b, int64_t need, int32_t records,
                          int slots) noexcept nogil:
    """Memory for a new batch of at least `need` bytes that has room to describe `records`. 0: there is none now.

    `slots` is how many references (callback, headers) are kept per record.
    """
    cdef int64_t capacity = first_capacity(a, p, need)
    cdef int64_t charge = capacity + records * <int64_t>(sizeof(kp_record_info) + slots * sizeof(void*))
    cdef uint8_t* data
    return (not crowds_out(a, p, need) and pool_try_take(a.pool, charge, capacity, &data)
            and give_buffers(a, b, data, capacity, charge, records))


cdef int locked_grow(kp_accumulator* a, kp_batch* b, int64_t need, int64_t limit) noexcept nogil:
    """Room for `need` more bytes and one more record description. 0: no memory is free for it now."""
    cdef int64_t capacity, extra
    cdef uint8_t* data
    cdef void* grown
    cdef int32_t records
    if b.length + need > b.capacity:
        capacity = b.capacity * 2
        if capacity < b.length + need:
            capacity = b.length + need
        if capacity > limit and limit >= b.length + need:
            capacity = limit
        capacity = pool_capacity_for(a.pool, capacity)
        extra = capacity - b.capacity
        if not pool_try_take(a.pool, extra, capacity, &data):
            return 0
        if data == NULL:
            pool_uncharge(a.pool, extra)
            return 0
        memcpy(data, b.data, b.length)
        pool_free(a.pool, b.data, b.capacity)
        kp_store_ptr_relaxed(<void**>&b.data, data)
        b.capacity = capacity
        add_charge(b, extra)
    if b.count == b.info_capacity:
        records = b.info_capacity * 2 if b.info_capacity > FIRST_INFO else SECOND_INFO
        extra = (records - b.info_capacity) * <int64_t>sizeof(kp_record_info)
        if not pool_try_charge(a.pool, extra):
            return 0
        grown = realloc(NULL if b.info == &b.first_info[0] else b.info, records * sizeof(kp_record_info))
        if grown == NULL:
            pool_uncharge(a.pool, extra)
            return 0
        if b.info == &b.first_info[0]:
            memcpy(grown, b.info, b.count * sizeof(kp_record_info))
        b.info = <kp_record_info*>grown
        b.info_capacity = records
        add_charge(b, extra)
    return 1


cdef int locked_object_slots(kp_accumulator* a, kp_batch* b, PyObject*** slots, int32_t* capacity) noexcept nogil:
    """Make an array of references as long as `info`; new places are NULL. 0: no memory is free for it now."""
    cdef int64_t extra
    cdef int first
    cdef PyObject** grown
    if capacity[0] >= b.info_capacity:
        return 1
    # For its first record a batch was charged when it was made: it must never be closed empty.
    extra = (b.info_capacity - capacity[0]) * <int64_t>sizeof(void*) if b.count > 0 else 0
    if extra and not pool_try_charge(a.pool, extra):
        return 0
    if slots == &b.callbacks and b.info_capacity == FIRST_INFO:
        grown = &b.first_callbacks[0]
    else:
        first = slots[0] == &b.first_callbacks[0]
        grown = <PyObject**>realloc(NULL if first else slots[0], b.info_capacity * sizeof(void*))
        if grown == NULL:
            pool_uncharge(a.pool, extra)
            return 0
        if first:
            memcpy(grown, slots[0], capacity[0] * sizeof(void*))
    memset(grown + capacity[0], 0, (b.info_capacity - capacity[0]) * sizeof(void*))
    slots[0] = grown
    capacity[0] = b.info_capacity
    add_charge(b, extra)
    return 1


cdef int compress_batch(kp_accumulator* a, Batch batch, int wake) except -1:
    """Compress a batch in STAGE_COMPRESSING and let the loop have it. Needs the GIL; the codec releases it.

    `wake`: wake the loop for it, and for those before it that it was not woken for.
    """
    cdef kp_batch* b = &batch.b
    cdef kp_partition* p = b.partition
    cdef bytes packed = None
    cdef const uint8_t* result = NULL
    cdef int64_t size = 0, capacity, spare_capacity = 0
    cdef uint8_t* smaller
    cdef uint8_t* spare = NULL
    cdef Py_ssize_t bound
    try:
        bound = compressed_bound(p.topic.codec, p.topic.level, b.length - BATCH_OVERHEAD)
        if bound:
            # For a moment, so it is not charged: nor is the bytes object that compress() makes.
            spare_capacity = pool_capacity_for(a.pool, bound)
            spare = pool_alloc(a.pool, spare_capacity)
            if spare == NULL:
                raise MemoryError(f"no memory for the {bound} bytes that compressed records may take")
            size = compress_into(
                p.topic.codec, p.topic.level, b.data + BATCH_OVERHEAD, b.length - BATCH_OVERHEAD, spare)
            result = spare
        else:
            packed = compress(p.topic.codec, p.topic.level,
                              PyMemoryView_FromMemory(<char*>b.data + BATCH_OVERHEAD, b.length - BATCH_OVERHEAD,
                                                      PyBUF_READ))
            size = len(packed)
            result = <const uint8_t*><const char*>packed
    except Exception:
        import logging      # by now the engine has it; `import kprod` does without

        # Records are not lost for this: the batch goes as it is.
        logging.getLogger("kprod.accumulator").exception(
            "could not compress a batch of %s-%d, it is sent uncompressed", batch.topic_name, p.index)
    if result != NULL and size < b.length - BATCH_OVERHEAD:
        size += BATCH_OVERHEAD
        capacity = pool_capacity_for(a.pool, size)
        smaller = NULL
        if capacity <= b.capacity // 2:
            smaller = pool_alloc(a.pool, capacity)
        if smaller != NULL:
            # The rest of the charge comes back at once: a compressed batch takes little of buffer.memory.
            pool_give(a.pool, b.data, b.capacity, b.capacity - capacity)
            add_charge(b, capacity - b.capacity)
            kp_store_ptr_relaxed(<void**>&b.data, smaller)
            b.capacity = capacity
        memcpy(b.data + BATCH_OVERHEAD, result, size - BATCH_OVERHEAD)
        b.length = size
        b.codec = p.topic.codec
    pool_free(a.pool, spare, spare_capacity)
    kp_latch_lock(&p.lock)
    kp_store32_relaxed(&b.stage, STAGE_CLOSED)
    kp_latch_unlock(&p.lock)
    mark_dirty(a, p)
    if wake:
        wake_loop(a, 0)
    return 0


# ------------------------------------------------------------------------------------------------ the accumulator

cdef class Accumulator:
    """Buffers records of all topics. `reporter` makes its exceptions (see kprod.engine).

    Arguments:
        buffer_memory: bytes, all batches together.
        batch_size: bytes, the size of buffers that is pooled.
        wake_fd: written to when the network loop has to wake up.
        keep_headers: whether delivery reports bring the headers.
    """

    def __cinit__(self, reporter, int64_t buffer_memory, int64_t batch_size, intptr_t wake_fd, bint keep_headers):
        memset(&self.a, 0, sizeof(kp_accumulator))
        self.reporter = reporter
        self.a.wake_fd = wake_fd
        self.a.keep_headers = keep_headers
        kp_mutex_init(&self.a.lock)
        kp_mutex_init(&self.a.done_lock)
        kp_mutex_init(&self.a.compress_lock)
        kp_cond_init(&self.a.progress)
        kp_cond_init(&self.a.done_cond)
        kp_cond_init(&self.a.compress_cond)
        kp_clock_init(&self.a.clock)
        kp_latch_init(&self.spares_lock)
        self.spares = <PyObject**>malloc(SPARES * sizeof(void*))
        self.a.pool = pool_new(buffer_memory, batch_size)
        if self.a.pool == NULL or self.spares == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int32_t i
        # What a thread in send_many() unpinned after the delivery thread had ended.
        self.reap()
        for i in range(self.n_spares):
            Py_DECREF(<object>self.spares[i])
        free(self.spares)
        kp_latch_destroy(&self.spares_lock)
        if self.a.pool != NULL:
            pool_delete(self.a.pool)
        kp_cond_destroy(&self.a.progress)
        kp_cond_destroy(&self.a.done_cond)
        kp_cond_destroy(&self.a.compress_cond)
        kp_mutex_destroy(&self.a.lock)
        kp_mutex_destroy(&self.a.done_lock)
        kp_mutex_destroy(&self.a.compress_lock)

    # -- appending

    cdef int append_further(self, Topic topic, int32_t partition, kp_record* r, PyObject* on_delivery,
                            PyObject* headers, double max_block_s, PyObject** owner, int32_t* index, int64_t now_us,
                            int auto_timestamp, int32_t chosen, kp_batch* closed, int result) except -1:
        """What append() does once per batch: see to the batch that was closed, open another, wait for memory.

        `closed` is the batch that its first try closed, or NULL; `result` what that try came to.
        """
        cdef kp_accumulator* a = &self.a
        cdef kp_partition* p = topic.partition(chosen)
        cdef kp_batch* before
        cdef int64_t deadline = -1
        cdef int opened = 0
        cdef int32_t gate
        cdef Batch spare = None
        while True:
            if closed != NULL:
                # Without a codec the loop may have taken the batch already: only a batch that still needs
                # compressing is ours to touch.
                if p.topic.codec:
                    compress_batch(a, <Batch>closed.owner, 1)
                else:
                    mark_dirty(a, p)
                    wake_loop(a, 0)
            elif opened:
                if partition < 0:
                    opened_sticky(&topic.t, chosen)
                mark_dirty(a, p)
                if topic.t.linger_us > 0 or not sent_by_caller(a, r.fixed_size):
                    wake_loop(a, now_us + topic.t.linger_us)
            if partition < 0 and (closed != NULL or result == NO_OPEN_BATCH) and (
                    closed != NULL or kp_load64(&topic.t.sticky_bytes) >= topic.t.batch_size
                    or not is_available(p)):
                # batch.size bytes went here, or its leader is away: time to turn to another partition (KIP-794).
                leave_sticky(&topic.t, chosen)
            if result != NO_OPEN_BATCH:
                break
            gate = kp_load32(&a.gate)
            if gate != GATE_OPEN:
                if spare is not None:
                    free_batch_data(a, &spare.b)
                raise self.reporter.gate_error(gate)
            if spare is None:
                if deadline < 0:
                    deadline = now_us + <int64_t>(max_block_s * 1e6)
                spare = self.new_batch(topic, chosen, r, deadline, (on_delivery != NULL) + (headers != NULL))
                now_us = spare.b.created_us
            chosen = partition if partition >= 0 else choose_sticky(&topic.t)
            p = topic.partition(chosen)
            if auto_timestamp:
                r.timestamp = now_us // 1000 + kp_load64_relaxed(&a.wall_offset_ms)
            opened = 0
            kp_latch_lock(&p.lock)
            before = p.open
            result = locked_append(a, p, r, now_us, on_delivery, headers, owner, index)
            if result == NO_OPEN_BATCH and before == NULL:
                Py_INCREF(spare)
                if not locked_open_batch(a, p, &spare.b, <PyObject*>spare, now_us, r.timestamp):
                    Py_DECREF(spare)
                else:
                    opened = 1
                    before = p.open
                    result = locked_append(a, p, r, now_us, on_delivery, headers, owner, index)
            closed = before if p.open != before else NULL
            kp_latch_unlock(&p.lock)
            if opened:
                spare = None
        if spare is not None:
            # The record found room in a batch that another thread opened meanwhile.
            free_batch_data(a, &spare.b)
        return 0

    cdef int check_gate(self) except -1:
        if kp_load32(&self.a.gate) != GATE_OPEN:
            raise self.reporter.gate_error(kp_load32(&self.a.gate))
        return 0

    cdef int await_leader(self, Topic topic, int32_t partition, int64_t size, int64_t deadline) except -1:
        """Wait while records for a leader that is away would take the memory of those for the others."""
        cdef kp_accumulator* a = &self.a
        cdef kp_partition* p = topic.partition(partition)
        cdef int64_t started, left
        if not crowds_out(a, p, size):
            return 0
        started = kp_monotonic_us()
        while crowds_out(a, p, size):
            self.check_gate()
            left = deadline - kp_monotonic_us()
            if left <= 0:
                raise self.reporter.delivery_error(
                    ERROR_LEADERS_AWAY, None, topic.name, partition, kp_load32(&p.leader_id), "no", 0,
                    (kp_monotonic_us() - started) / 1000.0, 0, 1)
            if running_hub() is not None:
                waiting_functions().pause(min(left, LEADER_SLICE_US) / 1e6)
                continue
            with nogil:
                kp_mutex_lock(&a.lock)
                a.progress_waiters += 1
                kp_cond_wait_us(&a.progress, &a.lock, left if left < LEADER_SLICE_US else LEADER_SLICE_US)
                a.progress_waiters -= 1
                kp_mutex_unlock(&a.lock)
            PyErr_CheckSignals()
        return 0

    cdef Batch new_batch(self, Topic topic, int32_t partition, kp_record* r, int64_t deadline, int slots):
        """A batch with memory for `r` and, by the partition's last batch, for those that may follow it.

        `slots` is how many references (callback, headers) are kept per record.
        """
        cdef kp_accumulator* a = &self.a
        cdef kp_partition* p = topic.partition(partition)
        cdef int64_t need = BATCH_OVERHEAD + r.fixed_size + 20
        cdef int64_t capacity, charge, left, waited_from
        cdef int64_t describes = <int64_t>(sizeof(kp_record_info) + slots * sizeof(void*))
        cdef int32_t records = first_records(p)
        cdef int charged, state
        cdef int32_t gate
        cdef kp_pool_waiter waiter
        cdef uint8_t* data
        cdef Batch batch
        self.reap()
        self.await_leader(topic, partition, need, deadline)
        batch = self.empty_batch(topic)
        capacity = first_capacity(a, p, need)
        charge = capacity + records * describes
        charged = pool_try_take(a.pool, charge, capacity, &data)
        while not charged and self.wait_in_hub(charge, deadline):
            charged = pool_try_take(a.pool, charge, capacity, &data)
        if not charged:
            # Under pressure take no more than this record needs.
            records = FIRST_INFO
            capacity = pool_capacity_for(a.pool, need)
            if capacity + records * describes > a.pool.limit:
                capacity = need
            charge = capacity + records * describes
            if charge > a.pool.limit:
                charge = a.pool.limit
            waited_from = kp_monotonic_us()
            with nogil:
                pool_waiter_enter(a.pool, &waiter, charge, capacity)
                wake_loop(a, 0)
            try:
                while True:
                    left = deadline - kp_monotonic_us()
                    if left <= 0:
                        break
                    with nogil:
                        state = pool_waiter_wait(a.pool, &waiter, left if left < WAIT_SLICE_US else WAIT_SLICE_US)
                    if state:
                        break
                    self.check_gate()
                    # Decided batches may be waiting for a thread with the GIL before they give back what they hold.
                    self.reap()
                    PyErr_CheckSignals()
            except BaseException:
                if pool_waiter_leave(a.pool, &waiter):
                    pool_give(a.pool, waiter.data, capacity, charge)
                raise
            charged = pool_waiter_leave(a.pool, &waiter)
            data = waiter.data
            gate = kp_load32(&a.gate)
            if gate != GATE_OPEN:
                if charged:
                    pool_give(a.pool, data, capacity, charge)
                raise self.reporter.gate_error(gate)
            if charged and data == NULL:
                data = pool_alloc(a.pool, capacity)
            if not charged:
                raise self.reporter.delivery_error(
                    ERROR_BUFFER_EXHAUSTED, None, topic.name, partition, kp_load32(&p.leader_id), "no", 0,
                    (kp_monotonic_us() - waited_from) / 1000.0, 0, 1)
        if not give_buffers(a, &batch.b, data, capacity, charge, records):
            raise MemoryError(f"no memory for a record batch of {capacity} bytes")
        return batch

    cdef int wait_in_hub(self, int64_t charge, int64_t deadline) except -1:
        """Under gevent, let other greenlets run until there may be memory. 1: try again; 0: no hub, or no time left.

        What is on a greenlet's stack may not stand in the pool's queue: it is moved away while another one runs.
        """
        cdef int64_t left = deadline - kp_monotonic_us()
        hub = running_hub()
        if hub is None or left <= 0 or charge > self.a.pool.limit:
            return 0
        waiting_functions().call_in_thread(hub, self.wait_for_memory, charge, left / 1e6)
        self.check_gate()
        return 1

    cdef Batch empty_batch(self, Topic topic):
        """A batch that has no memory yet."""
        cdef Batch batch = self.take_spare()
        if batch is None:
            batch = Batch.__new__(Batch)
        batch.topic = topic
        batch.topic_name = topic.name
        batch.reporter = self.reporter
        return batch

    cdef Batch take_spare(self):
        """A batch that was let go; None: there is none."""
        cdef PyObject* owner = NULL
        cdef Batch batch
        kp_latch_lock(&self.spares_lock)
        if self.n_spares > 0:
            self.n_spares -= 1
            owner = self.spares[self.n_spares]
            if self.n_spares > 0:
                # The next batch will be wanted soon, and it is a long way to memory that was left alone for a while.
                kp_prefetch(self.spares[self.n_spares - 1], BATCH_OBJECT_BYTES)
        kp_latch_unlock(&self.spares_lock)
        if owner == NULL:
            return None
        batch = <Batch>owner
        Py_DECREF(batch)
        return batch

    cdef void let_go(self, PyObject* owner):
        """Give up a reference to a batch. If it was the last, the object is kept for reuse."""
        cdef int kept = 0
        if kp_only_reference(owner):
            (<Batch>owner).clear()
            kp_latch_lock(&self.spares_lock)
            if self.n_spares < SPARES:
                self.spares[self.n_spares] = owner
                self.n_spares += 1
                kept = 1
            kp_latch_unlock(&self.spares_lock)
        if not kept:
            Py_DECREF(<object>owner)

    # -- decided batches

    cdef int reap(self) except -1:
        """Release batches that nobody waits for. Any thread with the GIL may do it."""
        cdef kp_batch* b
        cdef kp_batch* following
        if kp_load_ptr(&self.a.reap_head) == NULL:
            return 0
        b = <kp_batch*>kp_exchange_ptr(&self.a.reap_head, NULL)
        while b != NULL:
            following = b.next
            if following != NULL:
                kp_prefetch(following, sizeof(kp_batch))
            self.let_go(b.owner)
            b = following
        return 0

    def run_delivery(self):
        """The delivery thread: run callbacks of decided batches until stop_delivery(). Returns when none is left."""
        cdef kp_accumulator* a = &self.a
        cdef kp_batch* b
        cdef kp_batch* following
        cdef int64_t group
        self.delivery_thread = PyThread_get_thread_ident()
        while True:
            with nogil:
                kp_mutex_lock(&a.done_lock)
                while a.done_head == NULL and not a.delivery_stopping:
                    kp_cond_wait(&a.done_cond, &a.done_lock)
                b = a.done_head
                a.done_head = a.done_tail = NULL
                kp_mutex_unlock(&a.done_lock)
            if b == NULL:
                break
            group = 0
            while b != NULL:
                following = b.next
                if following != NULL:
                    kp_prefetch(following, sizeof(kp_batch))
                (<Batch>b.owner).deliver()
                (<Batch>b.owner).drop_callbacks()
                unpin_batch(a, b)
                group += 1
                b = following
            with nogil:
                kp_mutex_lock(&a.lock)
                a.delivered += group
                if a.progress_waiters:
                    kp_cond_broadcast(&a.progress)
                kp_mutex_unlock(&a.lock)
            self.reap()
        self.reap()
        self.reporter.delivery_ended()

    def stop_delivery(self):
        """Let run_delivery() return once everything decided so far is delivered."""
        with nogil:
            kp_mutex_lock(&self.a.done_lock)
            self.a.delivery_stopping = 1
            kp_cond_broadcast(&self.a.done_cond)
            kp_mutex_unlock(&self.a.done_lock)

    # -- compression of batches that linger.ms closed

    def run_compressor(self):
        """The compressor thread: compress what the network loop closed, until stop_compressor()."""
        cdef kp_accumulator* a = &self.a
        cdef kp_batch* b
        cdef kp_batch* following
        cdef int64_t waiting
        cdef int wake
        while True:
            with nogil:
                kp_mutex_lock(&a.compress_lock)
                while a.compress_head == NULL and not a.compress_stopping:
                    kp_cond_wait(&a.compress_cond, &a.compress_lock)
                b = a.compress_head
                a.compress_head = a.compress_tail = NULL
                kp_mutex_unlock(&a.compress_lock)
            if b == NULL:
                return
            waiting = 0
            while b != NULL:
                following = b.compress_next
                waiting += b.length
                # Many small batches are to go in one request.
                wake = following == NULL or waiting >= WAKE_BYTES
                compress_batch(a, <Batch>b.owner, wake)
                if wake:
                    waiting = 0
                b = following

    def stop_compressor(self):
        """Let run_compressor() return once its queue is empty."""
        with nogil:
            kp_mutex_lock(&self.a.compress_lock)
            self.a.compress_stopping = 1
            kp_cond_broadcast(&self.a.compress_cond)
            kp_mutex_unlock(&self.a.compress_lock)

    # -- flush and close

    def in_delivery_thread(self):
        """Whether the caller runs on the delivery thread, that is inside a callback."""
        return self.delivery_thread == PyThread_get_thread_ident()

    def flush(self, timeout):
        """Send everything that was appended so far and wait until it is decided and its callbacks have run.

        Arguments:
            timeout: seconds, None: as long as it takes (delivery.timeout.ms bounds it).

        Returns:
            int: records that are not decided yet; 0 unless the time ran out.
        """
        cdef kp_accumulator* a = &self.a
        cdef int64_t target, delivery_target = -1, deadline, left, remaining
        cdef int done
        deadline = -1 if timeout is None else kp_monotonic_us() + <int64_t>(min(<double>timeout, 1e9) * 1e6)
        with nogil:
            kp_mutex_lock(&a.lock)
            target = a.last_id
            a.progress_waiters += 1
            kp_mutex_unlock(&a.lock)
            kp_add32(&a.flushing, 1)
            kp_add32(&a.flush_calls, 1)
            wake_loop(a, 0)
        try:
            while True:
                with nogil:
                    left = WAIT_SLICE_US
                    if deadline >= 0:
                        left = deadline - kp_monotonic_us()
                        if left > WAIT_SLICE_US:
                            left = WAIT_SLICE_US
                    kp_mutex_lock(&a.lock)
                    if not flushed(a, target, &delivery_target) and left > 0:
                        kp_cond_wait_us(&a.progress, &a.lock, left)
                    done = flushed(a, target, &delivery_target)
                    kp_mutex_unlock(&a.lock)
                if done or (deadline >= 0 and kp_monotonic_us() >= deadline):
                    break
                PyErr_CheckSignals()
        finally:
            kp_add32(&a.flushing, -1)
            with nogil:
                kp_mutex_lock(&a.lock)
                a.progress_waiters -= 1
                remaining = 0 if done else locked_undecided(a, target)
                kp_mutex_unlock(&a.lock)
        self.reap()
        return remaining if done or remaining else 1

    def set_gate(self, int reason):
        """Refuse appends from now on, for one of the reasons GATE_*. A higher reason stays."""
        cdef kp_accumulator* a = &self.a
        if reason == GATE_FORKED:
            # In a forked child: another thread may have held any lock at the fork, so none is touched.
            kp_store32(&a.gate, reason)
            return
        with nogil:
            shut_gate(a, reason)
            if reason == GATE_CLOSED:
                pool_close(a.pool)

    def open_gate(self):
        """A transaction has begun: appends are accepted, unless they are refused for another reason."""
        with nogil:
            kp_mutex_lock(&self.a.lock)
            if self.a.gate == GATE_NO_TRANSACTION:
                kp_store32(&self.a.gate, GATE_OPEN)
            kp_mutex_unlock(&self.a.lock)

    @property
    def gate(self):
        """Why appends are refused; 0: they are not."""
        return kp_load32(&self.a.gate)

    @property
    def incomplete_batches(self):
        """Batches that are not decided."""
        cdef int64_t count
        with nogil:
            kp_mutex_lock(&self.a.lock)
            count = self.a.incomplete
            kp_mutex_unlock(&self.a.lock)
        return count

    def oldest_age(self):
        """Seconds since the oldest batch that is not decided was opened; 0.0: there is none."""
        cdef int64_t opened_us = 0
        with nogil:
            kp_mutex_lock(&self.a.lock)
            if self.a.oldest != NULL:
                opened_us = self.a.oldest.created_us
            kp_mutex_unlock(&self.a.lock)
        return max(0.0, (kp_monotonic_us() - opened_us) / 1e6) if opened_us else 0.0

    def undecided_records(self):
        """Records that are not decided."""
        cdef int64_t count
        with nogil:
            kp_mutex_lock(&self.a.lock)
            count = locked_undecided(&self.a, self.a.last_id)
            kp_mutex_unlock(&self.a.lock)
        return count

    def wait_for_memory(self, int64_t size, double timeout):
        """Wait until `size` bytes of buffer.memory are free, behind those who wait already. Takes nothing.

        Arguments:
            size: bytes; more than the whole of buffer.memory counts as that.
            timeout: seconds.

        Returns:
            bool: False if the time ran out. True when the producer takes no records any more: a try says why.
        """
        cdef kp_accumulator* a = &self.a
        cdef kp_pool_waiter waiter
        cdef int64_t deadline = kp_monotonic_us() + <int64_t>(min(timeout, 1e9) * 1e6)
        cdef int64_t left
        cdef int state = 0
        if size > a.pool.limit:
            size = a.pool.limit
        with nogil:
            pool_waiter_enter(a.pool, &waiter, size, 0)
            wake_loop(a, 0)
        while state == 0 and kp_load32(&a.gate) == GATE_OPEN:
            left = deadline - kp_monotonic_us()
            if left <= 0:
                break
            with nogil:
                state = pool_waiter_wait(a.pool, &waiter, left if left < WAIT_SLICE_US else WAIT_SLICE_US)
            self.reap()
        with nogil:
            if pool_waiter_leave(a.pool, &waiter):
                state = 1
                pool_uncharge(a.pool, size)
        return state != 0 or kp_load32(&a.gate) != GATE_OPEN

    def memory(self):
        """buffer.memory as a dict: total, used and idle bytes, waiting threads, wait time (us), exhausted waits."""
        cdef kp_pool seen
        with nogil:
            kp_mutex_lock(&self.a.pool.lock)
            seen = self.a.pool[0]
            kp_mutex_unlock(&self.a.pool.lock)
        return {"total": seen.limit, "used": seen.used, "idle": seen.pooled, "waiting": seen.n_waiters,
                "wait_us": seen.wait_us, "exhausted": seen.exhausted}


cdef void shut_gate(kp_accumulator* a, int32_t reason) noexcept nogil:
    """Refuse appends from now on, unless a higher reason does."""
    # Batches are opened under this lock, so none is opened after this returns; and a reason that is higher than the one
    # that another thread gives, or takes away, at this moment is not lost.
    kp_mutex_lock(&a.lock)
    if a.gate < reason:
        kp_store32(&a.gate, reason)
    kp_mutex_unlock(&a.lock)


cdef int locked_open_batch(kp_accumulator* a, kp_partition* p, kp_batch* b, PyObject* owner, int64_t now_us,
                           int64_t timestamp) noexcept nogil:
    """Make `b` the open batch of its partition. 0: the gate closed.

    The engine's reference to `owner`, the Batch object, is the caller's, who gives it away unless this returns 0.
    """
    # All of it before the batch is among the incomplete ones: the loop looks at those without the partition's lock.
    b.owner = owner
    b.pins = 1
    b.partition = p
    b.created_us = now_us
    b.length = BATCH_OVERHEAD
    b.base_timestamp = timestamp
    b.max_timestamp = timestamp
    b.producer_id = -1
    b.producer_epoch = -1
    b.base_sequence = -1
    b.base_offset = -1
    b.log_append_time = -1
    b.node_id = -1
    b.stage = STAGE_OPEN
    b.in_queue = 1
    kp_mutex_lock(&a.lock)
    if a.gate != GATE_OPEN:
        kp_mutex_unlock(&a.lock)
        return 0
    b.held_by = <kp_broker*>kp_load_ptr(<void**>&p.broker)
    if b.held_by == NULL:
        b.held_by = &a.nobody
    kp_add64(&b.held_by.held, b.charged)
    a.last_id += 1
    b.id = a.last_id
    b.older = a.newest
    b.newer = NULL
    if a.newest != NULL:
        a.newest.newer = b
    else:
        a.oldest = b
    a.newest = b
    a.incomplete += 1
    kp_mutex_unlock(&a.lock)
    b.next = NULL
    if p.tail != NULL:
        p.tail.next = b
    else:
        kp_store_ptr_relaxed(<void**>&p.head, b)
    p.tail = b
    p.open = b
    kp_store32(&p.queued, p.queued + 1)
    return 1


cdef int64_t locked_undecided(kp_accumulator* a, int64_t last_id) noexcept nogil:
    cdef kp_batch* b = a.oldest
    cdef int64_t count = 0
    while b != NULL and b.id <= last_id:
        count += kp_load32_relaxed(&b.count)
        b = b.newer
    return count


cdef int flushed(kp_accumulator* a, int64_t target, int64_t* delivery_target) noexcept nogil:
    """Whether all batches up to `target` are decided and delivered. Called with the accumulator's lock."""
    if delivery_target[0] < 0:
        if a.oldest != NULL and a.oldest.id <= target:
            return 0
        # All decided: what was queued for delivery up to now must have run.
        delivery_target[0] = kp_load64(&a.enqueued)
    return a.delivered >= delivery_target[0]
