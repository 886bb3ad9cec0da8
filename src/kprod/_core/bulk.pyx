"""Many records in one call: send_many(), send_columns() and send_table() of KafkaProducer.

A call reads its arguments into columns, checks every record, and only then appends the first one: what is wrong with
an argument leaves nothing half-sent. Records are then appended in blocks. Those of a block are sorted by partition, in
their order, and each run of them goes into the partition's open batch under one hold of its lock, without the GIL and
without a Python object per record.

The GIL is needed once per a few dozen batches, for the Batch objects, and whenever buffer.memory or a codec must be
waited for. append_block() returns then, and is called again to go on.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport INT32_MAX, INT32_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memset

from kprod._core.accumulator cimport (
    MEETINGS, Topic, choose_round_robin, choose_sticky, compress_batch, free_batch_data, is_available, kp_accumulator,
    leave_sticky, locked_close_open, locked_grow, locked_object_slots, locked_open_batch, mark_dirty, met_at_sticky,
    opened_sticky, try_batch_memory,
    unpin_batch, wake_loop,
)
from kprod._core.arrow cimport column_of_arrow, integers_of_arrow, is_arrow
from kprod._core.bulk_future cimport BulkDeliveryFuture, Segment
from kprod._core.column cimport (
    CHUNK_NULL, SIZE_BAD, Column, Integers, chunk_get, column_of_buffers, column_of_nulls, column_of_objects,
    column_of_one, integers_of, kp_chunk,
)
from kprod._core.future cimport Batch
from kprod._core.headers cimport encode_headers, free_headers, kp_headers
from kprod._core.murmur2 cimport murmur2_partition
from kprod._core.platform cimport (
    kp_add32, kp_latch_met, kp_latch_unlock, kp_load32, kp_load32_relaxed, kp_load64, kp_load64_relaxed, kp_load_ptr,
    kp_monotonic_us, kp_prefetch,
)
from kprod._core.producer cimport ProducerCore
from kprod._core.record_batch cimport RECORD_OVERHEAD_BOUND, kp_record, kp_record_fixed_size, write_record
from kprod._core.structs cimport BATCH_OVERHEAD, FIRST_INFO, kp_batch, kp_partition, kp_record_info, kp_topic
from kprod._core.varint cimport varint_size

cdef extern from *:
    """
    #define kp_tuple_items(t) (((PyTupleObject *)(t))->ob_item)
    """
    PyObject** tuple_items "kp_tuple_items"(PyObject* t)

from collections.abc import Mapping

from kprod._core.arrow import ArrowTable
from kprod._core.column import check_length, raise_bad_offset

cdef enum:
    BLOCK = 16384              # records that are sorted by partition together
    SPARE_BATCHES = 64         # Batch objects that are made in one go
    GIL_KEPT_BELOW = 256       # records: for fewer it does not pay to release the GIL
    # What prefetch_runs() asks for: runs further on, and how many bytes.
    RUNS_AHEAD = 8
    RUNS_SOON = 4
    PARTITION_AHEAD = 128
    BATCH_AHEAD = 256

# Where a record goes when no number is given (Integers.items of `partitions`).
cdef enum:
    TO_PARTITIONER = -1
    TO_STICKY = -2             # a custom partitioner left it open

# Why append_block() returned.
cdef enum:
    BLOCK_DONE = 0
    WANTS_BATCHES = 1          # no spare Batch object is left
    WANTS_MEMORY = 2           # buffer.memory is used up, or the partition's leader is away
    WANTS_COMPRESSION = 3      # `closed` must be compressed
    GATE_IS_SHUT = 4
    COLUMN_IS_BAD = 5          # a buffer changed after it was checked
    NO_C_MEMORY = 6


cdef struct kp_run:
    # Records of a block that go to the same partition.
    int32_t target             # -1: the sticky choice; not in a block that was sorted
    int64_t end                # position after its last record


cdef struct kp_empty:
    # A batch without memory.
    kp_batch* b
    PyObject* owner            # the Batch object; a reference of ours


cdef struct kp_segment:
    PyObject* owner            # the Batch, pinned
    int64_t position
    int64_t count
    int32_t first


cdef struct kp_bulk:
    kp_accumulator* a
    kp_topic* t
    int64_t length
    int64_t at                 # position of the next record
    # -- the records, by index
    kp_chunk values
    kp_chunk keys
    kp_chunk headers           # encoded
    const int32_t* header_sizes    # what reports say, NULL: `header_size` for all
    int32_t header_size
    const int64_t* timestamps  # NULL: `timestamp` for all; -1: the present
    int64_t timestamp
    const int64_t* partitions  # NULL: `partition` for all
    int64_t partition
    int32_t by_key
    int32_t round_robin
    int64_t max_request_size
    PyObject* on_delivery      # references to it are there already, as are those to `kept_headers`
    int64_t callbacks_given    # of those to `on_delivery`: what batches hold
    PyObject** kept_headers    # by index, NULL: `kept_header` for all
    PyObject* kept_header
    # -- the order
    int32_t* order             # index by position, NULL: the same
    kp_run* runs               # of the block
    int32_t* targets
    int32_t* counts
    int32_t n_runs
    int32_t run
    int32_t n_partitions
    # -- batches
    kp_empty spare             # has memory, for the next partition that has no batch open; b is NULL: there is none
    kp_empty empty[SPARE_BATCHES + 1]
    int32_t n_empty
    int32_t bad                # a record could not be read
    kp_batch* closed
    int32_t blocked_on         # the partition that WANTS_MEMORY is about
    kp_segment* segments
    int64_t n_segments
    int64_t segments_capacity


cdef inline int load_record(const kp_bulk* c, int64_t i, kp_record* r) noexcept nogil:
    """Read record `i`. 0: a column is bad there."""
    r.value = chunk_get(&c.values, i, &r.value_size)
    r.key = chunk_get(&c.keys, i, &r.key_size)
    if c.headers.kind == CHUNK_NULL:
        r.headers = NULL
        r.headers_size = 0
        r.header_size = -1
    else:
        r.headers = chunk_get(&c.headers, i, &r.headers_size)
        r.header_size = c.header_size if c.header_sizes == NULL else c.header_sizes[i]
    r.fixed_size = kp_record_fixed_size(r)
    return r.value_size != SIZE_BAD and r.key_size != SIZE_BAD


cdef inline int64_t timestamp_of(const kp_bulk* c, int64_t i, int64_t now_us) noexcept nogil:
    cdef int64_t timestamp = c.timestamp if c.timestamps == NULL else c.timestamps[i]
    return timestamp if timestamp >= 0 else now_us // 1000 + kp_load64_relaxed(&c.a.wall_offset_ms)


cdef inline int64_t index_at(const kp_bulk* c, int64_t position) noexcept nogil:
    return position if c.order == NULL else c.order[position]


# ------------------------------------------------------------------------------------------------ checking

cdef int64_t check_records(const kp_bulk* c, int64_t first, int64_t end, int64_t* bytes, int64_t* size) noexcept nogil:
    """The first record of a stretch that cannot be sent, -1: all can. `size` is its size, SIZE_BAD: not readable."""
    cdef kp_record r
    cdef int64_t i
    for i in range(first, end):
        if not load_record(c, i, &r):
            size[0] = SIZE_BAD
            return i
        if r.fixed_size + RECORD_OVERHEAD_BOUND + BATCH_OVERHEAD > c.max_request_size:
            size[0] = r.fixed_size + RECORD_OVERHEAD_BOUND + BATCH_OVERHEAD
            return i
        bytes[0] += r.fixed_size + 8
    return -1


# ------------------------------------------------------------------------------------------------ order

cdef inline int32_t target_of(const kp_bulk* c, int64_t i) noexcept nogil:
    """The partition of a record, -1: the sticky choice."""
    cdef int64_t given = c.partition if c.partitions == NULL else c.partitions[i]
    cdef const uint8_t* key
    cdef int64_t key_size
    if given >= 0:
        return <int32_t>given
    if given == TO_STICKY:
        return -1
    if c.by_key:
        key = chunk_get(&c.keys, i, &key_size)
        if key_size >= 0:
            return murmur2_partition(key, key_size, c.n_partitions)
    return choose_round_robin(c.t) if c.round_robin else -1


cdef int by_number(const void* a, const void* b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t*>a)[0]
    cdef uint64_t y = (<const uint64_t*>b)[0]
    return (x > y) - (x < y)


cdef void add_run(kp_bulk* c, int32_t target, int64_t end) noexcept nogil:
    c.runs[c.n_runs].target = target
    c.runs[c.n_runs].end = end
    c.n_runs += 1


cdef int sort_few(kp_bulk* c, int64_t first, int64_t n) noexcept nogil:
    """Order a block by partition when it has far fewer records than there are partitions."""
    cdef uint64_t* entries = <uint64_t*>malloc(n * sizeof(uint64_t))
    cdef int64_t k
    cdef int32_t target
    if entries == NULL:
        return 0
    for k in range(n):
        entries[k] = (<uint64_t>c.targets[k] << 32) | <uint64_t>k
    qsort(entries, n, sizeof(uint64_t), by_number)
    for k in range(n):
        c.order[first + k] = <int32_t>(first + <int64_t>(entries[k] & 0xffffffffu))
        target = <int32_t>(entries[k] >> 32)
        if k == n - 1 or <int32_t>(entries[k + 1] >> 32) != target:
            add_run(c, target, first + k + 1)
    free(entries)
    return 1


cdef void sort_many(kp_bulk* c, int64_t first, int64_t n) noexcept nogil:
    """Order a block by partition, by counting."""
    cdef int64_t k
    cdef int32_t i, count, start = 0
    memset(c.counts, 0, c.n_partitions * sizeof(int32_t))
    for k in range(n):
        c.counts[c.targets[k]] += 1
    for i in range(c.n_partitions):
        count = c.counts[i]
        c.counts[i] = start
        start += count
        if count:
            add_run(c, i, first + start)
    for k in range(n):
        i = c.targets[k]
        c.order[first + c.counts[i]] = <int32_t>(first + k)
        c.counts[i] += 1


cdef int order_block(kp_bulk* c, int64_t first, int64_t end) noexcept nogil:
    """Find the partitions of a block's records and put those of each together. 0: the C library has no memory."""
    cdef int64_t n = end - first
    cdef int64_t k
    cdef int64_t sticky_bytes = kp_load64(&c.t.sticky_bytes)
    cdef kp_record r
    c.n_runs = c.run = 0
    if c.order == NULL:
        add_run(c, target_of(c, first), end)
        return 1
    for k in range(n):
        c.targets[k] = target_of(c, first + k)
        if c.targets[k] < 0:
            # Records with and without a key may meet in a partition, in their order: so the choice is made here, and
            # not when a batch is full. It moves on after as many bytes all the same.
            c.targets[k] = choose_sticky(c.t)
            if c.targets[k] >= c.n_partitions:
                # The topic has more partitions than this call knows of.
                c.targets[k] %= c.n_partitions
            load_record(c, first + k, &r)
            sticky_bytes += r.fixed_size + 8
            if sticky_bytes >= c.t.batch_size:
                leave_sticky(c.t, c.targets[k])
                sticky_bytes = 0
    if n * 4 < c.n_partitions:
        return sort_few(c, first, n)
    sort_many(c, first, n)
    return 1


# ------------------------------------------------------------------------------------------------ appending

cdef int64_t locked_append_run(kp_bulk* c, kp_partition* p, int64_t end, int64_t now_us) noexcept nogil:
    """Write records from `c.at` up to `end` into the partition's open batch until it is full; close it then.

    Returns how many.
    """
    cdef kp_accumulator* a = c.a
    cdef kp_batch* b = p.open
    cdef kp_record r
    cdef kp_record_info* info
    cdef int64_t limit = p.topic.batch_size
    cdef int64_t position = c.at
    cdef int64_t age = now_us - b.created_us
    cdef int64_t i, delta, body, total = 0
    cdef int full = 0
    if age < 0:
        age = 0
    while position < end:
        i = index_at(c, position)
        if not load_record(c, i, &r) or (b.count == 0 and b.length + r.fixed_size + 20 > b.capacity):
            # Somebody writes to the buffer. The call ends here; but a batch must never be closed empty.
            c.bad = 1
            if b.count > 0:
                break
            r.key = r.value = NULL
            r.key_size = r.value_size = -1
            r.fixed_size = kp_record_fixed_size(&r)
            end = position + 1
        r.timestamp = timestamp_of(c, i, now_us)
        delta = r.timestamp - b.base_timestamp
        body = r.fixed_size + varint_size(delta) + varint_size(b.count)
        total = varint_size(body) + body
        if (delta > INT32_MAX or delta < INT32_MIN or (b.count > 0 and b.length + total > limit)
                or ((b.length + total > b.capacity or b.count == b.info_capacity)
                    and not locked_grow(a, b, total, limit))
                or (c.on_delivery != NULL and not locked_object_slots(a, b, &b.callbacks, &b.callbacks_capacity))
                or (a.keep_headers and r.headers != NULL
                    and not locked_object_slots(a, b, &b.headers, &b.headers_capacity))):
            full = 1
            break
        write_record(b.data + b.length, &r, body, delta, b.count)
        b.length += total
        info = &b.info[b.count]
        info.key_size = <int32_t>r.key_size
        info.value_size = <int32_t>r.value_size
        info.header_size = r.header_size
        info.timestamp_delta = <int32_t>delta
        info.append_delta = <uint32_t>age
        if c.on_delivery != NULL:
            c.callbacks_given += b.count == 0 or b.callbacks[b.count - 1] != c.on_delivery
            b.callbacks[b.count] = c.on_delivery
        if a.keep_headers and r.headers != NULL:
            b.headers[b.count] = c.kept_header if c.kept_headers == NULL else c.kept_headers[i]
        if total > b.largest:
            b.largest = <int32_t>total
        if r.timestamp > b.max_timestamp:
            b.max_timestamp = r.timestamp
        b.count += 1
        position += 1
    # As after a single append: another record like the last one would not fit.
    if full or b.length + total > limit:
        locked_close_open(p)
    return position - c.at


cdef inline int slots_of(const kp_bulk* c, const kp_record* r) noexcept nogil:
    """How many references a batch keeps per record."""
    cdef int slots = 0
    if c.on_delivery != NULL:
        slots += 1
    if c.a.keep_headers and r.headers != NULL:
        slots += 1
    return slots


cdef int get_spare(kp_bulk* c, kp_partition* p, const kp_record* r, int64_t end) noexcept nogil:
    """Memory for a batch that begins with `r` and has room for what may follow it. 0, or why there is none."""
    cdef int64_t rest = (end - c.at) * (r.fixed_size + 8)
    cdef int64_t limit = c.t.batch_size - BATCH_OVERHEAD
    cdef int64_t need = r.fixed_size + 20
    cdef int64_t records
    if c.n_empty == 0:
        return WANTS_BATCHES
    if rest > limit:
        rest = limit
    if rest > need:
        need = rest
    records = need // (r.fixed_size + 8) + 1
    if records > end - c.at:
        records = end - c.at
    if records < FIRST_INFO:
        records = FIRST_INFO
    if not try_batch_memory(c.a, p, c.empty[c.n_empty - 1].b, BATCH_OVERHEAD + need, <int32_t>records,
                            slots_of(c, r)):
        c.blocked_on = p.index
        return WANTS_MEMORY
    c.n_empty -= 1
    c.spare = c.empty[c.n_empty]
    return 0


cdef void put_back_spare(kp_bulk* c) noexcept nogil:
    """The spare batch has no memory any more."""
    free_batch_data(c.a, c.spare.b)
    c.empty[c.n_empty] = c.spare
    c.n_empty += 1
    c.spare.b = NULL


cdef int add_segment(kp_bulk* c) noexcept nogil:
    """Room for one more segment. 0: the C library has no memory."""
    cdef void* grown
    cdef int64_t capacity
    if c.n_segments < c.segments_capacity:
        return 1
    capacity = c.segments_capacity * 2 if c.segments_capacity else 16
    grown = realloc(c.segments, capacity * sizeof(kp_segment))
    if grown == NULL:
        return 0
    c.segments = <kp_segment*>grown
    c.segments_capacity = capacity
    return 1


cdef inline void prefetch_runs(const kp_bulk* c) noexcept nogil:
    """Read ahead what the runs that come next are appended to: with many partitions nothing of it is in a cache."""
    cdef kp_partition** partitions = <kp_partition**>kp_load_ptr(<void**>&c.t.partitions)
    if c.run + RUNS_AHEAD < c.n_runs and c.runs[c.run + RUNS_AHEAD].target >= 0:
        kp_prefetch(partitions[c.runs[c.run + RUNS_AHEAD].target], PARTITION_AHEAD)
    if c.run + RUNS_SOON < c.n_runs and c.runs[c.run + RUNS_SOON].target >= 0:
        # The batch itself may be gone by now: its address is all that is read.
        kp_prefetch(kp_load_ptr(<void**>&partitions[c.runs[c.run + RUNS_SOON].target].head), BATCH_AHEAD)


cdef int append_block(kp_bulk* c) noexcept nogil:
    """Append what is left of the block's runs. Returns one of the reasons above; call it again to go on."""
    cdef kp_accumulator* a = c.a
    cdef kp_topic* t = c.t
    cdef kp_partition* p
    cdef kp_batch* b
    cdef kp_segment* segment
    cdef kp_record r
    cdef int64_t end, taken, now_us
    cdef int32_t target, chosen, first = 0
    cdef int opened, closed, met, reason
    while c.run < c.n_runs:
        end = c.runs[c.run].end
        if c.at == end:
            c.run += 1
            continue
        prefetch_runs(c)
        target = c.runs[c.run].target
        chosen = target if target >= 0 else choose_sticky(t)
        p = (<kp_partition**>kp_load_ptr(<void**>&t.partitions))[chosen]
        if not add_segment(c):
            return NO_C_MEMORY
        if c.spare.b != NULL:
            if not load_record(c, index_at(c, c.at), &r):
                return COLUMN_IS_BAD
            if c.spare.b.capacity < BATCH_OVERHEAD + r.fixed_size + 20:
                # It was made for a record that found room elsewhere. A batch must never be closed empty.
                put_back_spare(c)
        now_us = kp_monotonic_us()
        opened = closed = 0
        taken = 0
        met = kp_latch_met(&p.lock)
        if p.open == NULL and c.spare.b != NULL:
            if not locked_open_batch(a, p, c.spare.b, c.spare.owner, now_us,
                                     timestamp_of(c, index_at(c, c.at), now_us)):
                kp_latch_unlock(&p.lock)
                return GATE_IS_SHUT
            c.spare.b = NULL
            opened = 1
        b = p.open
        if b != NULL:
            first = b.count
            taken = locked_append_run(c, p, end, now_us)
            closed = p.open == NULL
            if taken > 0:
                # Until this thread has the GIL and can take a reference.
                kp_add32(&b.pins, 1)
        kp_latch_unlock(&p.lock)
        if taken > 0:
            segment = &c.segments[c.n_segments]
            segment.owner = b.owner
            segment.position = c.at
            segment.count = taken
            segment.first = first
            c.n_segments += 1
            c.at += taken
        if closed and not t.codec:
            mark_dirty(a, p)
            wake_loop(a, 0)
        elif opened and not closed:
            mark_dirty(a, p)
            wake_loop(a, now_us + t.linger_us)
        if target < 0 and opened:
            opened_sticky(t, chosen)
        if target < 0 and met:
            # The other thread had a run of records to write, as this one: one meeting costs as much as many.
            met_at_sticky(t, MEETINGS)
        if target < 0 and (closed or (b == NULL and (kp_load64(&t.sticky_bytes) >= t.batch_size
                                                     or not is_available(p)))):
            # batch.size bytes went here, or its leader is away: time to turn to another partition (KIP-794).
            leave_sticky(t, chosen)
        if closed and t.codec:
            c.closed = b
            return WANTS_COMPRESSION
        if c.bad:
            return COLUMN_IS_BAD
        if b == NULL:
            if kp_load32_relaxed(&a.gate):
                return GATE_IS_SHUT
            if not load_record(c, index_at(c, c.at), &r):
                return COLUMN_IS_BAD
            reason = get_spare(c, p, &r, end)
            if reason:
                return reason
    return BLOCK_DONE


# ------------------------------------------------------------------------------------------------ one call

@cython.final
cdef class Bulk:
    """One call of send_many() and the like, from its arguments to its future."""
    cdef kp_bulk c
    cdef ProducerCore core
    cdef Topic topic
    cdef Column values
    cdef Column keys
    cdef Column headers
    cdef Integers partitions
    cdef Integers timestamps
    cdef object on_delivery
    cdef object given_headers  # for reports: the one object for all records, or a tuple by index
    cdef bint headers_by_record
    cdef int32_t* header_sizes
    cdef int64_t bytes         # what all records take, about
    cdef int64_t ordered       # positions that have their place in `order`
    cdef int64_t referenced    # records for which references to callback and headers were taken
    cdef bint ended

    def __dealloc__(self):
        cdef int32_t i
        if self.c.spare.b != NULL:
            put_back_spare(&self.c)
        for i in range(self.c.n_empty):
            Py_DECREF(<object>self.c.empty[i].owner)
        free(self.c.order)
        free(self.c.runs)
        free(self.c.targets)
        free(self.c.counts)
        free(self.c.segments)
        free(self.header_sizes)

    cdef int begin(self, ProducerCore core, object topic, object on_delivery) except -1:
        """Find the topic; refuse the call when nothing can be sent."""
        if core.appends_to is None:
            raise RuntimeError("KafkaProducer.__init__() has not been called")
        core.appends_to.check_gate()
        self.core = core
        if on_delivery is None:
            on_delivery = core._on_delivery
        elif not callable(on_delivery):
            raise TypeError(f"on_delivery must be callable as f(error, metadata), got {type(on_delivery).__name__}")
        self.on_delivery = on_delivery
        found = core._topics.get(topic) if PyUnicode_CheckExact(topic) else None
        self.topic = <Topic>found if found is not None else core.find_topic(topic)
        return 0

    cdef int take_headers(self, object headers) except -1:
        """Encode headers: one list for all records, or one for each."""
        cdef int64_t n = self.values.length
        cdef Py_ssize_t i = 0
        self.given_headers, self.headers_by_record = split_headers(headers, n)
        if not self.headers_by_record:
            encoded = encode(self.given_headers, &self.c.header_size)
            self.headers = column_of_nulls("headers", n) if encoded is None else column_of_one("headers", encoded, n)
            return 0
        self.header_sizes = <int32_t*>malloc((n if n else 1) * sizeof(int32_t))
        if self.header_sizes == NULL:
            raise MemoryError
        items = []
        for one in self.given_headers:
            items.append(encode(one, &self.header_sizes[i]))
            i += 1
        self.headers = column_of_objects("headers", items)
        self.c.header_sizes = self.header_sizes
        return 0

    cdef int check_partitions(self) except -1:
        """Partitions that are given must exist."""
        cdef int64_t i
        cdef Integers given = self.partitions
        if given.items == NULL:
            if given.value >= 0:
                self.core.check_partition(self.topic, given.value)
            return 0
        for i in range(given.length):
            if given.items[i] >= self.c.n_partitions:
                self.core._engine.request_refresh()
                raise ValueError(
                    f"partitions[{i}] is {given.items[i]}, which topic {self.topic.name!r} does not have: it has "
                    f"{self.c.n_partitions} partitions (0 to {self.c.n_partitions - 1})")
        return 0

    cdef int choose_partitions(self, object keys, object values, object key_data, object value_data) except -1:
        """Ask the custom partitioner for each record that has no partition."""
        cdef Integers chosen = Integers.__new__(Integers)
        cdef int64_t n = self.values.length
        cdef int64_t i
        cdef int partition
        if self.partitions.items == NULL and self.partitions.value >= 0:
            return 0
        chosen.name = "partitions"
        chosen.reserve(n)
        for i in range(n):
            if self.partitions.items != NULL and self.partitions.items[i] >= 0:
                chosen.items[i] = self.partitions.items[i]
                continue
            partition = self.core.choose_custom(
                self.topic, None if keys is None else keys[i], values[i],
                None if key_data is None else key_data[i], value_data[i])
            chosen.items[i] = partition if partition >= 0 else TO_STICKY
        self.partitions = chosen
        return 0

    cdef int prepare(self) except -1:
        """Set up and check what is appended. Nothing is appended if this raises."""
        cdef kp_bulk* c = &self.c
        cdef int64_t n = self.values.length
        cdef int64_t first = 0, end, size = 0, bad
        cdef int64_t block
        if n > INT32_MAX:
            raise ValueError(f"values has {n} items, a call takes at most {INT32_MAX}: make several")
        check_length("keys", self.keys.length, n)
        c.a = &self.core.appends_to.a
        c.t = &self.topic.t
        c.length = n
        c.n_partitions = kp_load32(&c.t.n_partitions)
        c.max_request_size = self.core._max_request_size
        c.round_robin = self.core._round_robin
        c.by_key = (not self.core._ignore_keys and not self.core._round_robin
                    and not (self.keys.n_chunks == 1 and self.keys.chunks[0].kind == CHUNK_NULL))
        self.check_partitions()
        c.partitions = self.partitions.items
        c.partition = self.partitions.value
        c.timestamps = self.timestamps.items
        c.timestamp = self.timestamps.value
        while first < n:
            end = self.load_chunks(first)
            with nogil:
                bad = check_records(c, first, end, &self.bytes, &size)
            if bad >= 0:
                self.raise_bad(bad, size)
            first = end
        block = n
        if c.partitions != NULL or (c.partition < 0 and (c.by_key or c.round_robin)):
            block = min(n, BLOCK)
            c.order = <int32_t*>malloc((n if n else 1) * sizeof(int32_t))
            c.targets = <int32_t*>malloc((block if block else 1) * sizeof(int32_t))
            c.counts = <int32_t*>malloc(c.n_partitions * sizeof(int32_t))
            if c.order == NULL or c.targets == NULL or c.counts == NULL:
                raise MemoryError
            c.runs = <kp_run*>malloc((min(block, <int64_t>c.n_partitions) + 1) * sizeof(kp_run))
        else:
            c.runs = <kp_run*>malloc(sizeof(kp_run))
        if c.runs == NULL:
            raise MemoryError
        return 0

    cdef int raise_bad(self, int64_t index, int64_t size) except -1:
        cdef int64_t found
        if size != SIZE_BAD:
            error = self.core._engine.too_large(self.topic.name, size, self.core._max_request_size)
            error.args = (f"record {index} of {self.values.length}: {error.args[0]}; none of them was sent",)
            raise error
        chunk_get(&self.c.values, index, &found)
        raise_bad_offset("values" if found == SIZE_BAD else "keys", index)

    cdef int64_t load_chunks(self, int64_t first) noexcept:
        """Point the columns at the chunks that have record `first`; returns the index after the last one they share."""
        cdef int64_t end = self.values.length
        cdef Column column
        for column in (self.values, self.keys, self.headers):
            end = min(end, chunk_end(column, first))
        self.c.values = self.values.at(first)[0]
        self.c.keys = self.keys.at(first)[0]
        self.c.headers = self.headers.at(first)[0]
        return end

    cdef int take_references(self) except -1:
        """References that batches will hold, so that appending needs no GIL for them."""
        cdef int64_t i
        cdef int64_t n = self.values.length
        if self.on_delivery is not None:
            self.c.on_delivery = <PyObject*>self.on_delivery
            i = 0
            while i < n:
                Py_INCREF(self.on_delivery)
                i += 1
        if self.c.a.keep_headers:
            if self.headers_by_record:
                self.c.kept_headers = tuple_items(<PyObject*>self.given_headers)
            else:
                self.c.kept_header = <PyObject*>self.given_headers
            for i in range(n):
                if self.has_headers(i):
                    Py_INCREF(self.given_headers[i] if self.headers_by_record else self.given_headers)
        self.referenced = n
        return 0

    cdef bint has_headers(self, int64_t index) noexcept:
        return self.c.header_size >= 0 if self.header_sizes == NULL else self.header_sizes[index] >= 0

    cdef int drop_references(self) except -1:
        """Those that batches do not need."""
        cdef int64_t position, index
        for _ in range(self.referenced - self.c.callbacks_given if self.on_delivery is not None else 0):
            Py_DECREF(self.on_delivery)
        for position in range(self.c.at, self.referenced):
            # Records of blocks that were not reached have no place in the order yet.
            index = position if position >= self.ordered else index_at(&self.c, position)
            if self.c.a.keep_headers and self.has_headers(index):
                Py_DECREF(self.given_headers[index] if self.headers_by_record else self.given_headers)
        return 0

    cdef BulkDeliveryFuture send(self):
        """Append everything. An error on the way has the future of what was appended."""
        error = None
        self.prepare()
        self.take_references()
        try:
            self.append_until(self.c.length)
        except BaseException as raised:
            error = raised
            raise
        finally:
            future = self.end(error)
        return future

    @property
    def appended(self):
        """How many records were appended."""
        return self.c.at

    def append(self, Py_ssize_t most):
        """Append the next records, as many as are given at most. May be called again after an error.

        Returns:
            bool: whether none is left.
        """
        if self.ended:
            raise RuntimeError("append() after end()")
        self.append_until(min(self.c.length, self.c.at + most))
        return self.c.at == self.c.length

    def end(self, error=None):
        """The future of all records, of which those that were not appended have failed with `error`."""
        cdef BulkDeliveryFuture future
        if self.ended:
            raise RuntimeError("end() was called before")
        self.ended = True
        self.drop_references()
        future = self.make_future(error)
        if error is not None:
            note_partial(error, future)
        return future

    cdef int append_until(self, int64_t stop) except -1:
        """Append the records up to position `stop`. After an error it goes on where that was."""
        cdef kp_bulk* c = &self.c
        cdef int64_t n = self.values.length
        cdef int64_t end, block = n
        cdef int reason
        if c.order != NULL:
            # A block should not be more than buffer.memory can hold: its partitions are filled one after the other.
            block = max(1, min(BLOCK, c.a.pool.limit // 4 // max(1, self.bytes // max(1, n))))
        while c.at < stop:
            if c.at < self.ordered:
                # An error came within this block: its records have their places.
                end = self.ordered
            else:
                end = min(self.load_chunks(c.at), c.at + block, stop)
                if end - c.at < GIL_KEPT_BELOW:
                    reason = order_block(c, c.at, end)
                else:
                    with nogil:
                        reason = order_block(c, c.at, end)
                if not reason:
                    raise MemoryError
                self.ordered = end
            while True:
                if end - c.at < GIL_KEPT_BELOW:
                    reason = append_block(c)
                else:
                    with nogil:
                        reason = append_block(c)
                if reason == BLOCK_DONE:
                    break
                self.serve(reason, end)
        return 0

    cdef int serve(self, int reason, int64_t end) except -1:
        """Do what append_block() needs the GIL for."""
        cdef kp_bulk* c = &self.c
        cdef Batch batch
        cdef kp_record r
        cdef int64_t wanted
        if reason == WANTS_COMPRESSION:
            compress_batch(c.a, <Batch>c.closed.owner, 1)
        elif reason == WANTS_BATCHES:
            self.core.appends_to.reap()
            PyErr_CheckSignals()
            wanted = (self.bytes - self.bytes * c.at // self.values.length) // c.t.batch_size + c.n_runs - c.run
            for _ in range(max(1, min(wanted, SPARE_BATCHES))):
                batch = self.core.appends_to.empty_batch(self.topic)
                Py_INCREF(batch)
                c.empty[c.n_empty].b = &batch.b
                c.empty[c.n_empty].owner = <PyObject*>batch
                c.n_empty += 1
        elif reason == WANTS_MEMORY:
            if not load_record(c, index_at(c, c.at), &r):
                self.raise_bad(index_at(c, c.at), SIZE_BAD)
            if c.n_empty == SPARE_BATCHES:
                # Room to put this one back.
                c.n_empty -= 1
                Py_DECREF(<object>c.empty[c.n_empty].owner)
            batch = self.core.appends_to.new_batch(
                self.topic, c.blocked_on, &r, kp_monotonic_us() + <int64_t>(self.core._max_block_s * 1e6),
                slots_of(c, &r))
            Py_INCREF(batch)
            c.spare.b = &batch.b
            c.spare.owner = <PyObject*>batch
        elif reason == GATE_IS_SHUT:
            self.core.appends_to.check_gate()
        elif reason == COLUMN_IS_BAD:
            raise ValueError(f"the columns were written to while they were sent, near record {index_at(c, c.at - 1)}")
        else:
            raise MemoryError
        return 0

    cdef BulkDeliveryFuture make_future(self, object error):
        cdef BulkDeliveryFuture future = BulkDeliveryFuture.__new__(BulkDeliveryFuture)
        cdef Segment segment
        cdef int64_t i
        cdef kp_bulk* c = &self.c
        if c.order != NULL:
            for i in range(self.ordered, c.length):
                c.order[i] = <int32_t>i
        future.topic = self.topic.name
        future.length = c.length
        future.n_appended = c.at
        future.order = c.order
        c.order = NULL
        future.refused = error
        future.segments = []
        for i in range(c.n_segments):
            segment = Segment.__new__(Segment)
            segment.batch = <Batch>c.segments[i].owner
            segment.position = c.segments[i].position
            segment.first = c.segments[i].first
            segment.count = c.segments[i].count
            future.segments.append(segment)
            unpin_batch(c.a, &segment.batch.b)
        c.n_segments = 0
        return future


cdef inline int64_t chunk_end(Column column, int64_t index) noexcept:
    cdef kp_chunk* chunk = column.at(index)
    return column.starts[chunk - column.chunks + 1]


cdef object encode(object headers, int32_t* header_size):
    """The header section as bytes, None: there are no headers."""
    cdef kp_headers h
    encode_headers(headers, &h)
    header_size[0] = h.header_size
    if h.data == NULL:
        return None
    try:
        return (<const char*>h.data)[:h.size]
    finally:
        free_headers(&h)


cdef int note_partial(object error, BulkDeliveryFuture future) except -1:
    """Say in a KafkaError how far the call came."""
    if hasattr(error, "appended") and error.args:
        error.appended = future.n_appended
        error.future = future
        error.args = (f"{error.args[0]}; {future.n_appended} of {future.length} records were appended"
                      f"{', see the attribute future' if future.n_appended else ''}",)
    return 0


def split_headers(headers, count):
    """Whether `headers` are for all records or one list for each.

    Returns:
        tuple: (headers, False), or (tuple of `count` headers, True).

    Raises:
        ValueError: there is one list for each, but not `count`.
    """
    if headers is None or isinstance(headers, (Mapping, str, bytes, bytearray, memoryview)):
        return headers, False
    try:
        items = tuple(headers)
    except TypeError:
        return headers, False  # refused as send() does it
    for item in items:
        if item is None or isinstance(item, Mapping) or isinstance(item, (tuple, list)) and (
                not item or not isinstance(item[0], str)):
            check_length("headers", len(items), count)
            return items, True
    return headers if isinstance(headers, (list, tuple)) else items, False


def as_sequence(str name, values):
    """A tuple of what an argument has.

    Raises:
        TypeError: it is a single value, or nothing to iterate over.
    """
    if isinstance(values, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"{name} must be a sequence with one item for each record, got {type(values).__name__}; "
                        f"send() takes single records")
    if isinstance(values, Mapping):
        raise TypeError(f"{name} must be a sequence with one item for each record, got {type(values).__name__}")
    try:
        return tuple(values)
    except TypeError:
        if hasattr(values, "__iter__"):
            raise
        raise TypeError(
            f"{name} must be a sequence with one item for each record, got {type(values).__name__}") from None


cdef object serialized(object unary, object full, str topic, object headers, bint by_record, object values,
                       bint serialize):
    if not serialize:
        return values
    if unary is not None:
        return tuple([None if value is None else unary(value) for value in values])
    if full is not None:
        return tuple([
            None if value is None else full(topic, headers[i] if by_record else headers, value)
            for i, value in enumerate(values)])
    return values


cdef Integers integers(str name, object source, int64_t length):
    return integers_of_arrow(name, source, length) if is_arrow(source) else integers_of(name, source, length)


cdef Bulk read_many(
        ProducerCore core, object topic, object values, object keys, object headers, object timestamps,
        object partitions, object on_delivery, bint serialize):
    """The arguments of send_many(), read."""
    cdef Bulk bulk = Bulk.__new__(Bulk)
    cdef int64_t n
    bulk.begin(core, topic, on_delivery)
    values = as_sequence("values", values)
    n = len(values)
    if keys is not None:
        keys = as_sequence("keys", keys)
        check_length("keys", len(keys), n)
    given, by_record = split_headers(headers, n)
    value_data = serialized(core._value_unary, core._value_full, bulk.topic.name, given, by_record, values, serialize)
    bulk.values = column_of_objects("values", value_data)
    key_data = None
    if keys is None:
        bulk.keys = column_of_nulls("keys", n)
    else:
        key_data = serialized(core._key_unary, core._key_full, bulk.topic.name, given, by_record, keys, serialize)
        bulk.keys = column_of_objects("keys", key_data)
    bulk.take_headers(given)
    bulk.timestamps = integers("timestamps", timestamps, n)
    bulk.partitions = integers("partitions", partitions, n)
    if core._choose is not None:
        bulk.choose_partitions(keys, values, key_data, value_data)
    return bulk


def send_many(ProducerCore core not None, topic, values, keys, headers, timestamps, partitions, on_delivery,
              bint serialize=True):
    """KafkaProducer.send_many(); `serialize`: values and keys are not bytes yet."""
    return read_many(core, topic, values, keys, headers, timestamps, partitions, on_delivery, serialize).send()


def prepare_many(ProducerCore core not None, topic, values, keys, headers, timestamps, partitions, on_delivery):
    """KafkaProducer.send_many() for who cannot wait: everything is checked, and nothing appended yet.

    Returns:
        Bulk: append() until nothing is left, then end(), whatever happened.
    """
    cdef Bulk bulk = read_many(core, topic, values, keys, headers, timestamps, partitions, on_delivery, True)
    bulk.prepare()
    bulk.take_references()
    return bulk


cdef Column column_of(str name, object source):
    """A column of an Arrow array, or of a pair of buffers."""
    if is_arrow(source):
        return column_of_arrow(name, source)
    if isinstance(source, tuple) and len(source) == 2:
        return column_of_buffers(name, source[0], source[1])
    raise TypeError(
        f"{name} must be an Arrow array (with __arrow_c_array__() or __arrow_c_stream__(), as those of pyarrow, "
        f"polars, pandas and DuckDB have) or a pair of buffers (data, offsets), got {type(source).__name__}; "
        "send_many() takes sequences of bytes")


cdef BulkDeliveryFuture send_prepared(Bulk bulk, object headers):
    bulk.take_headers(headers)
    if bulk.core._choose is not None:
        # A partitioner in Python wants Python objects.
        values = bulk.values.to_list()
        keys = bulk.keys.to_list()
        check_length("keys", len(keys), len(values))
        bulk.choose_partitions(keys, values, keys, values)
    return bulk.send()


def send_columns(ProducerCore core not None, topic, values, keys, headers, timestamps, partitions, on_delivery):
    """KafkaProducer.send_columns()."""
    cdef Bulk bulk = Bulk.__new__(Bulk)
    bulk.begin(core, topic, on_delivery)
    bulk.values = column_of("values", values)
    bulk.keys = column_of_nulls("keys", bulk.values.length) if keys is None else column_of("keys", keys)
    check_length("keys", bulk.keys.length, bulk.values.length)
    bulk.timestamps = integers("timestamps", timestamps, bulk.values.length)
    bulk.partitions = integers("partitions", partitions, bulk.values.length)
    return send_prepared(bulk, headers)


def send_table(ProducerCore core not None, topic, table, values, keys, headers, timestamps, partitions, on_delivery):
    """KafkaProducer.send_table()."""
    cdef Bulk bulk = Bulk.__new__(Bulk)
    bulk.begin(core, topic, on_delivery)
    source = ArrowTable(table)
    bulk.values = source.column("values", values)
    cdef int64_t n = bulk.values.length
    bulk.keys = column_of_nulls("keys", n) if keys is None else source.column("keys", keys)
    bulk.timestamps = (source.integers("timestamps", timestamps, n) if isinstance(timestamps, str)
                       else integers("timestamps", timestamps, n))
    bulk.partitions = (source.integers("partitions", partitions, n) if isinstance(partitions, str)
                       else integers("partitions", partitions, n))
    return send_prepared(bulk, headers)


# ------------------------------------------------------------------------------------------------ for MockProducer

def read_integers(str name, source, int64_t length):
    """Partitions or timestamps as a list of ints and None; the same checks as those of the producer."""
    return integers(name, source, length).to_list(length)


def read_column(str name, source):
    """A column as a list of bytes and None; the same checks as those of the producer."""
    return column_of(name, source).to_list()
