"""The C structs that the application threads and the network loop share.

Who owns and who guards what:

* ``kp_batch`` lives inside a Python ``Batch`` object. The engine holds one strong reference (``owner``) from the
  moment the batch is opened until it is both decided and no longer part of a request, so C code may use the
  pointer without the GIL all that time. ``data`` belongs to the batch and comes from the buffer pool.
* ``kp_partition`` and ``kp_topic`` are owned by their ``Topic`` object, live as long as it, and are never moved.
* Fields say the lock that guards them: [p] the partition's latch, [io] the network loop's mutex,
  [b] the batch's mutex, [acc] the accumulator's mutex; [a] is atomic, [const] is set before it is shared.

Lock order: io > p > acc > b > pool; never the other way, and never the GIL inside any of them.
"""
from cpython.object cimport PyObject
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from kprod._core.platform cimport kp_cond, kp_latch, kp_mutex


cdef enum:
    BATCH_OVERHEAD = 61        # bytes of a v2 record batch in front of its first record
    FIRST_INFO = 4             # records that a batch describes without allocating memory for it

# Where a batch is on its way (kp_batch.stage).
cdef enum:
    STAGE_OPEN = 0             # takes records
    STAGE_COMPRESSING = 1      # closed; some thread compresses it
    STAGE_CLOSED = 2           # closed, may be drained
    STAGE_IN_FLIGHT = 3        # in a produce request
    STAGE_RETRY = 4            # waits to be sent again
    STAGE_SPLIT = 5            # handed to the control thread, which cuts it in two
    STAGE_DONE = 6             # decided

# What became of a batch (kp_batch.outcome).
cdef enum:
    OUTCOME_PENDING = 0
    OUTCOME_ACKED = 1
    OUTCOME_FAILED = 2
    OUTCOME_SPLIT = 3          # its records live on in kp_batch.children

# Did the broker write it (kp_batch.persisted)?
cdef enum:
    PERSISTED_NO = 0
    PERSISTED_POSSIBLY = 1
    PERSISTED_YES = 2

# Errors that no broker sends. kprod.engine turns them into exceptions.
cdef enum:
    ERROR_EXPIRED = -1001              # delivery.timeout.ms is over
    ERROR_CLOSED = -1002               # the producer was closed before an answer came
    ERROR_PURGED_QUEUE = -1003
    ERROR_PURGED_IN_FLIGHT = -1004
    ERROR_SIBLING_RECORD = -1005       # another record of the batch was refused (KIP-467)
    ERROR_TOO_MANY_RETRIES = -1006
    ERROR_DISCONNECTED = -1007
    ERROR_BAD_RESPONSE = -1008
    ERROR_FATAL = -1010                # the producer can send nothing more
    ERROR_REQUEST_TIMED_OUT = -1012    # no answer within request.timeout.ms
    ERROR_WAIT_TIMED_OUT = -1013       # DeliveryFuture.get(timeout): the record is still on its way
    ERROR_BUFFER_EXHAUSTED = -1014     # no memory within max.block.ms
    ERROR_TRANSACTION_ABORTED = -1015  # dropped because its transaction is aborted
    ERROR_LEADERS_AWAY = -1017         # half of the buffer waits for leaders that are away
    ERROR_GAP = -1016                  # the option gapless: a record is lost, so the producer ends
    ERROR_REFUSED = -1018              # its leader refuses this client: credentials, certificates, protocol
    # What a broker sent that no Kafka broker sends; ERROR_BAD_RESPONSE is the rest of these.
    ERROR_FRAME_SIZE = -1030           # a frame of an impossible length
    ERROR_NOT_ASKED = -1031            # an answer to a request that was not made
    ERROR_NOT_ANSWERED = -1032         # a produce response leaves a partition out
    ERROR_BAD_OFFSET = -1033           # an offset that cannot be

# Bits of an error's classification, as in kprod.errors.error_flags().
cdef enum:
    FLAG_RETRIABLE = 1
    FLAG_REFRESH = 2
    FLAG_FATAL = 4
    FLAG_ABORTABLE = 8


cdef enum:
    PEAK_SLOTS = 8
    LANES = 8                  # sticky choices of a topic that are used side by side, at most


cdef struct kp_peak:
    # The largest of the values noted in the last windows of metrics; guarded like what it is in.
    int64_t slot               # the part of the windows that was noted in last
    int64_t largest[PEAK_SLOTS]


cdef struct kp_record_info:
    # What a RecordMetadata needs of a record after its bytes are gone.
    int32_t key_size           # -1: null
    int32_t value_size         # -1: null
    int32_t header_size        # -1: no headers
    int32_t timestamp_delta    # ms, against kp_batch.base_timestamp
    uint32_t append_delta      # us between the batch's creation and this append, saturated


cdef struct kp_record_error:
    int32_t index
    char* message              # owned, may be NULL


cdef struct kp_late_callback:
    # A callback added to a future after send().
    int32_t index
    int32_t kind               # CALLBACK_*
    PyObject* callback         # owned


cdef struct kp_batch:
    kp_batch* next             # [p] in the partition's deque, [io] in flight / retry, [acc] in the done queue
    kp_batch* older            # [acc] the list of incomplete batches, oldest first
    kp_batch* newer            # [acc]
    kp_batch* compress_next    # in the compressor's queue
    kp_batch* decided_next     # [io] decided by the same response
    kp_partition* partition    # [const]
    PyObject* owner            # [const] the Batch object
    int64_t id                 # [const] grows with creation; children of a split carry their parent's
    int64_t created_us         # [const] monotonic
    # -- the record bytes
    uint8_t* data              # [p] while open, then whoever has the batch; BATCH_OVERHEAD bytes, then the records
    int64_t capacity
    int64_t length             # bytes used, header included
    int64_t raw_length         # bytes before compression, header included
    int64_t charged            # bytes of buffer.memory this batch holds
    kp_broker* held_by         # the leader at its opening, whose `held` counts `charged`; may be NULL
    int32_t count
    int32_t unattended         # [p] has records without a future or callback: a failure is logged
    int32_t largest            # [p] bytes of its largest record
    int32_t stage              # [p]
    int64_t base_timestamp     # ms since 1970
    int64_t max_timestamp
    int8_t codec               # codec that the bytes are in now
    # -- per record, for futures and callbacks
    kp_record_info* info       # owned, unless it is first_info
    int32_t info_capacity
    int32_t callbacks_capacity
    int32_t headers_capacity
    # Of records with the same callback in a row the first has a reference, the others none.
    PyObject** callbacks       # on_delivery callables by record index, first_callbacks, or NULL
    PyObject** headers         # the callers' header objects when they are wanted in the report, or NULL
    # -- the idempotent producer
    int64_t producer_id        # -1: no sequence assigned
    int16_t producer_epoch
    int32_t base_sequence
    int64_t ordinal            # [io] the partition's `sequenced` when it got its sequence; 0 for pieces of a split
    # -- network
    int32_t attempts           # [io] how often it was put in a request
    int32_t requests           # [io] how many requests still reference `data`
    int32_t pins               # [a] reasons to keep `owner`: not yet delivered, part of a request
    int32_t sealed             # header and CRC are written and right
    int32_t uncertain          # [io] an attempt ended, or is under way, whose result is not known
    int32_t was_uncertain      # [io] the same before the attempt that is under way
    int64_t retry_at_us        # [io]
    int64_t drained_us         # [io] first time it was put in a request
    int32_t in_queue           # [io] 1 while in the partition's deque
    int32_t last_error
    # -- the result; fixed before `outcome` is stored
    int32_t outcome            # [a]
    int32_t waiters            # [a] threads in DeliveryFuture.get
    int32_t error
    int32_t persisted
    int32_t node_id
    char* error_message        # owned, may be NULL
    kp_record_error* record_errors
    int32_t n_record_errors
    int64_t base_offset        # -1: not known
    int64_t log_append_time    # -1: the records' own timestamps hold
    int64_t completed_us
    # -- for batches of few records, of which there are many
    kp_record_info first_info[FIRST_INFO]
    PyObject* first_callbacks[FIRST_INFO]
    # -- callbacks added after send()
    kp_mutex lock              # [b] guards late, n_late, late_capacity, queued, delivered
    kp_late_callback* late
    int32_t n_late
    int32_t late_capacity
    int32_t queued             # the delivery thread has it or will get it
    int32_t delivered          # its callbacks have run


cdef struct kp_partition:
    # Allocated at the start of a cache line of 64 bytes: with thousands of them each line touched is a wait for memory.
    kp_latch lock              # [p]
    int32_t index              # [const] partition number
    kp_topic* topic            # [const]
    kp_batch* open             # [p] takes records; also the deque's tail
    kp_batch* head             # [p] deque of batches that were never sent
    kp_batch* tail             # [p]
    int64_t last_capacity      # [a] written under [p]: size of the last batch, a good first guess for the next
    int32_t last_count         # [a] the same: its records
    int32_t queued             # [a] batches in the deque (the adaptive partitioner's load figure)
    int32_t leader_id          # [a] node id, -1: unknown
    int32_t dirty              # [a] in the dirty list
    # -- second line, towards the network loop and its view
    kp_partition* dirty_next
    kp_broker* broker          # [a] the leader, NULL: unknown; written under [io]
    kp_partition* ready_next   # [io]
    kp_partition* ready_prev   # [io]
    int32_t in_ready           # [io]
    int32_t timer_slot         # [io] place of its timer in the heap, -1: it has none, below: see timer_place()
    int64_t timer_at_us        # [io]
    kp_batch* flight_head      # [io] in flight, in sequence order
    kp_batch* flight_tail      # [io]
    # -- third line
    kp_batch* retry_head       # [io] to be sent again, in sequence order
    kp_batch* held             # [io] decided before an older batch was: their callbacks wait for it, oldest first
    int64_t producer_id        # [io]
    int64_t sequenced          # [io] batches that got a sequence so far
    int32_t next_sequence      # [io]
    int16_t producer_epoch     # [io]
    int32_t in_flight          # [io]
    int32_t splitting          # [io] batches that the control thread is cutting: nothing may pass them
    int32_t unresolved         # [io] a sent batch was given up: its sequence numbers may be a gap
    int32_t lost               # [io] a connection ended before its answer: the broker may still come to that attempt
    int32_t leader_epoch       # [io]
    # -- fourth line, for what is not on the way of every batch
    int64_t heard_us           # [io] since when the broker has answered again about the sequence, 0: not yet
    int64_t added_in           # [io] number of the last transaction that the coordinator knows it is part of
    int64_t add_asked          # [io] number of the last transaction that the control thread was asked to add it to


cdef struct kp_topic:
    kp_mutex lock              # guards the sticky partitioner's fields
    const char* name           # [const] UTF-8, owned by the Topic object
    int32_t name_length        # [const]
    int32_t number             # [const] order of creation, for grouping in requests
    uint8_t id[16]             # [io] topic id, zero: unknown
    kp_partition** partitions  # [a] array that only grows; old arrays live as long as the topic
    int32_t n_partitions       # [a] partitions that the topic has
    int32_t n_known            # structs in the array: as many as the topic ever had
    PyObject* owner            # [const] the Topic object (borrowed)
    # -- options, possibly per topic
    int64_t batch_size         # [const]
    int64_t linger_us          # [const]
    int8_t codec               # [const]
    int32_t level              # [const]
    int16_t acks               # [const]
    # -- sticky partitioner (KIP-794)
    int32_t adaptive           # [const] weigh by load
    int32_t rack_aware         # [const] prefer leaders in client.rack
    int32_t sticky[LANES]      # [a] by the lane of the sending thread; -1: none chosen yet
    int32_t lanes_given        # lanes that threads turned to so far
    int32_t lanes_used         # [a] some thread is in another lane than 0
    int32_t counter            # [a] round robin
    int64_t sticky_bytes       # [a]
    int32_t* weights           # cumulative weights, beside `candidates`
    int32_t* candidates
    int32_t n_candidates
    int32_t weights_capacity
    int64_t weights_at_us
    uint64_t random
    # -- counters [io]
    int64_t records_sent
    int64_t records_acked
    int64_t records_failed
    int64_t records_retried
    int64_t bytes_sent
    int64_t raw_bytes_sent
    int64_t batches_sent


cdef struct kp_request:
    kp_request* next
    uint8_t* frame             # owned: everything of the request but record batches
    int64_t frame_length
    kp_batch** batches         # produce only; each holds one count in kp_batch.requests
    int32_t n_batches
    void* iov                  # owned kp_iov array
    int32_t n_iov
    int32_t iov_done
    int64_t size
    int32_t correlation_id
    int16_t version
    int16_t acks
    int8_t is_produce
    int8_t expects_response
    int64_t token              # control requests: who asked
    int64_t queued_us
    int64_t sent_us            # last byte handed to the kernel
    int64_t deadline_us


cdef struct kp_broker_totals:
    # [io] Since the start, over all connections, and the largest of late.
    int64_t requests_sent
    int64_t responses_received
    int64_t bytes_out
    int64_t bytes_in
    int64_t network_calls      # reads and writes
    int64_t request_bytes      # of requests_sent
    kp_peak request_size
    int64_t latency_sum_us
    int64_t latency_count
    kp_peak latency_us


cdef struct kp_broker:
    int32_t node_id
    void* loop                 # [const] the kp_loop that it belongs to
    intptr_t fd
    void* tls                  # kp_tls of an encrypted connection, NULL: plaintext
    PyObject* tls_owner        # the TlsStream that it is in: a reference, given back with EVENT_CLOSED
    int32_t state              # CONNECTION_*
    int64_t generation         # counts connections
    int32_t can_produce        # the control thread has finished the set-up
    int16_t produce_version
    kp_request* out_head       # to be written
    kp_request* out_tail
    kp_request* wait_head      # written, awaiting their response, in order
    kp_request* wait_tail
    int32_t in_flight          # produce requests in out and wait
    int32_t pending            # all requests in out and wait that expect a response
    kp_partition* ready_head
    kp_partition* ready_tail
    int32_t n_ready
    int64_t throttled_until_us
    int64_t ready_since_us     # partitions are ready but nothing could be drained since, 0: not so (KIP-794)
    int32_t wanted             # data is ready for it but there is no connection; told the control thread
    int32_t in_rack            # [a] in client.rack (KIP-1123); `near` is a macro on Windows
    int64_t held               # [a] bytes of buffer.memory in batches of its partitions
    int32_t stalled            # [a] data was ready for it for long, and it took none
    int32_t usable             # [a] records without a key may go to its partitions
    int64_t last_used_us
    int32_t next_correlation_id
    int32_t poll_slot
    uint8_t* in_buffer         # received, not yet parsed
    int64_t in_capacity
    int64_t in_start
    int64_t in_end
    kp_broker_totals totals
    kp_broker* next            # [const]


cdef inline void release_info(kp_batch* b) noexcept nogil:
    if b.info != &b.first_info[0]:
        free(b.info)
    b.info = NULL


cdef inline void release_callbacks(kp_batch* b, PyObject** callbacks) noexcept nogil:
    if callbacks != &b.first_callbacks[0]:
        free(callbacks)
