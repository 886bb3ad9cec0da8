"""The accumulator: where application threads put records and the network loop finds batches."""
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, intptr_t, uint64_t

from kprod._core.buffer_pool cimport kp_free_buffer, kp_pool
from kprod._core.future cimport Batch
from kprod._core.platform cimport kp_clock, kp_cond, kp_latch, kp_mutex
from kprod._core.record_batch cimport kp_record
from kprod._core.structs cimport kp_batch, kp_broker, kp_partition, kp_topic

# Why nothing can be appended (kp_accumulator.gate).
cdef enum:
    GATE_OPEN = 0
    GATE_NO_TRANSACTION = 1    # a transactional producer outside a transaction, or in one that must be aborted
    GATE_CLOSED = 2
    GATE_FATAL = 3
    GATE_FORKED = 4

cdef enum:
    MEETINGS = 8               # waits for the sticky partition's lock, in a batch, until a thread goes elsewhere

cdef struct kp_accumulator:
    kp_pool* pool
    int32_t gate               # [a] GATE_*
    int32_t flushing           # [a] flush() calls under way: nothing lingers
    int32_t flush_calls        # [a] counts them, so that the loop sees a new one
    int32_t keep_headers       # [const] delivery_report_headers
    kp_clock clock             # the monotonic clock, for what runs per record
    int64_t wall_offset_ms     # [a] wall clock minus monotonic clock, ms
    int64_t wall_read_us       # [a] when it was read
    # -- every batch that is not decided, oldest first
    kp_mutex lock
    kp_batch* oldest
    kp_batch* newest
    int64_t last_id
    int64_t incomplete
    kp_cond progress           # an undecided batch was decided, or a delivery group is done
    int32_t progress_waiters
    # -- partitions that the loop should look at
    void* dirty                # [a] kp_partition list
    int64_t sleeps_until_us    # [a] 0: the loop is awake
    int32_t wakers             # [a] threads that may be writing to wake_fd
    intptr_t wake_fd           # written to wake the loop
    void* loop                 # [const] its kp_loop, for the next
    int (*send_by_caller)(void*) noexcept nogil  # [const] do the loop's turn while it sleeps; 0: it must be woken
    int32_t waited             # [a] somebody waited for a record since the last one was sent like that
    kp_broker** brokers        # [const] the loop's list, which only grows at its head
    kp_broker nobody           # stands for the leader of partitions that have none; never usable
    # -- decided batches
    kp_mutex done_lock
    kp_cond done_cond
    kp_batch* done_head        # for the delivery thread, in order of their decision
    kp_batch* done_tail
    void* reap_head            # [a] kp_batch list: nobody waits for these, only their reference is to be dropped
    int32_t gathering          # [io] between gather_decided() and settle_gathered()
    kp_batch* gathered         # [io] decided meanwhile
    kp_batch* gathered_first   # [io] for the delivery thread, in order of their decision
    kp_batch* gathered_last    # [io]
    int64_t gathered_deliveries  # [io] how many those are
    int64_t gathered_us        # [io] the time of all these decisions
    int64_t enqueued           # batches given to the delivery thread
    int64_t delivered          # batches it has finished
    int32_t delivery_stopping
    # -- batches that linger.ms closed and that a thread other than the network's must compress
    kp_mutex compress_lock
    kp_cond compress_cond
    kp_batch* compress_head
    kp_batch* compress_tail
    int32_t compress_stopping


cdef class Topic:
    cdef kp_topic t
    cdef readonly str name
    cdef bytes name_bytes
    cdef object reporter
    cdef list allocated         # addresses of partitions and of outgrown arrays of them, freed with the topic
    cdef kp_partition* partition(self, int32_t index) noexcept nogil


cdef class Accumulator:
    cdef kp_accumulator a
    cdef object reporter
    cdef unsigned long delivery_thread
    cdef kp_latch spares_lock
    cdef PyObject** spares      # Batch objects for reuse, a reference each; the memory of the last one is warm
    cdef int32_t n_spares

    cdef int append_further(self, Topic topic, int32_t partition, kp_record* r, PyObject* on_delivery,
                            PyObject* headers, double max_block_s, PyObject** owner, int32_t* index, int64_t now_us,
                            int auto_timestamp, int32_t chosen, kp_batch* closed, int result) except -1
    cdef int check_gate(self) except -1
    cdef int await_leader(self, Topic topic, int32_t partition, int64_t size, int64_t deadline) except -1
    cdef Batch new_batch(self, Topic topic, int32_t partition, kp_record* r, int64_t deadline, int slots)
    cdef int wait_in_hub(self, int64_t charge, int64_t deadline) except -1
    cdef Batch empty_batch(self, Topic topic)
    cdef Batch take_spare(self)
    cdef void let_go(self, PyObject* owner)
    cdef int reap(self) except -1


cdef int32_t choose_sticky(kp_topic* t) noexcept nogil
cdef void met_at_sticky(kp_topic* t, int times) noexcept nogil
cdef void opened_sticky(kp_topic* t, int32_t partition) noexcept nogil
cdef int32_t choose_round_robin(kp_topic* t) noexcept nogil
cdef int is_available(kp_partition* p) noexcept nogil
cdef void leave_sticky(kp_topic* t, int32_t partition) noexcept nogil
cdef void mark_dirty(kp_accumulator* a, kp_partition* p) noexcept nogil
cdef void wake_loop(kp_accumulator* a, int64_t needed_at_us) noexcept nogil
cdef kp_partition* take_dirty(kp_accumulator* a) noexcept nogil
cdef int try_batch_memory(kp_accumulator* a, kp_partition* p, kp_batch* b, int64_t need, int32_t records,
                          int slots) noexcept nogil
cdef int locked_open_batch(kp_accumulator* a, kp_partition* p, kp_batch* b, PyObject* owner, int64_t now_us,
                           int64_t timestamp) noexcept nogil
cdef int locked_grow(kp_accumulator* a, kp_batch* b, int64_t need, int64_t limit) noexcept nogil
cdef int locked_object_slots(kp_accumulator* a, kp_batch* b, PyObject*** slots, int32_t* capacity) noexcept nogil
cdef int compress_batch(kp_accumulator* a, Batch batch, int wake) except -1
cdef void shut_gate(kp_accumulator* a, int32_t reason) noexcept nogil
cdef void locked_close_open(kp_partition* p) noexcept nogil
cdef void queue_compression(kp_accumulator* a, kp_batch* b) noexcept nogil
cdef void gather_decided(kp_accumulator* a) noexcept nogil
cdef void settle_gathered(kp_accumulator* a) noexcept nogil
cdef void decide_batch(kp_accumulator* a, kp_batch* b, int32_t outcome) noexcept nogil
cdef void unpin_batch(kp_accumulator* a, kp_batch* b) noexcept nogil
cdef void free_batch_data(kp_accumulator* a, kp_batch* b) noexcept nogil
cdef void locked_free_batch_data(kp_accumulator* a, kp_batch* b, kp_free_buffer** left) noexcept nogil


cdef inline uint64_t next_random(uint64_t* state) noexcept nogil:
    """xorshift64*: the next number of a sequence that starts with any odd `state`. Not for secrets."""
    state[0] ^= state[0] >> 12
    state[0] ^= state[0] << 25
    state[0] ^= state[0] >> 27
    return state[0] * <uint64_t>2685821657736338717
