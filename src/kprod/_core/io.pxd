"""The network loop's own state."""
from cpython.object cimport PyObject
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, intptr_t, uint8_t, uint64_t

from kprod._core.accumulator cimport Accumulator, Topic, kp_accumulator
from kprod._core.platform cimport kp_cond, kp_mutex, kp_pollfd
from kprod._core.produce cimport kp_produce_settings
from kprod._core.structs cimport kp_batch, kp_broker, kp_partition, kp_peak

cdef enum:
    CONNECTION_NONE = 0
    CONNECTION_CONNECTING = 1
    CONNECTION_UP = 2

cdef enum:
    EVENT_CONNECTED = 1        # a TCP connection stands
    # One ended: value1 is our reason, value2 the system's error number; value3: a TLS alert came where Kafka's answer
    # should be; data: what TLS says.
    EVENT_CLOSED = 2
    EVENT_FRAME = 3            # the response to a control request
    EVENT_REFRESH = 4          # metadata is stale: value1 is the error that showed it
    EVENT_LEADER = 5           # KIP-951: the new leader of (value1 topic number, value2 partition, value3 epoch)
    EVENT_ENDPOINTS = 6        # KIP-951: node_endpoints as bytes, value1 the API version
    EVENT_SPLIT = 7            # a batch is too large for the broker
    EVENT_PRODUCER_ID = 8      # a new producer id is needed
    EVENT_FATAL = 9            # value1 is the error that ends the producer
    EVENT_WANTED = 10          # there is data for a broker that is not connected
    EVENT_ADD_PARTITION = 11   # (value1 topic number, value2 partition) must be added to the transaction
    EVENT_BATCH_FAILED = 12    # a batch of a transaction failed with error value1

cdef struct kp_event:
    kp_event* next
    int32_t kind
    int32_t node_id
    int64_t generation
    int64_t token
    int32_t value1
    int32_t value2
    int32_t value3
    uint8_t* data              # owned
    int64_t length
    kp_batch* batch
    PyObject* owner            # a reference to give back, or NULL


cdef struct kp_loop_totals:
    # [io] Since the start, and the largest of late. Who shows them copies them, and nothing that another lock guards.
    int64_t batches_sent
    int64_t records_sent
    int64_t records_acked
    int64_t records_failed
    int64_t records_retried
    int64_t batch_bytes
    int64_t raw_bytes
    int64_t batches_split
    int64_t queue_time_us
    int64_t throttle_ms
    int64_t polls
    int64_t shared_turns       # that other threads took
    int64_t work_us            # not in poll()
    int64_t wait_us            # in poll()
    kp_peak queue_time
    kp_peak batch_size
    kp_peak record_size
    kp_peak throttle
    int64_t connections_made
    int64_t connections_lost


cdef struct kp_loop:
    kp_mutex lock              # [io]: everything below but the events; also what structs.pxd marks [io]
    kp_accumulator* a
    kp_broker* brokers
    int32_t n_brokers
    kp_partition** line        # timers that came in the order of their time; NULL: it was cleared
    int32_t line_head          # the first that may not be cleared
    int32_t line_end
    int32_t line_timers        # those that are not cleared
    int32_t line_capacity
    int64_t line_last_us       # the end of the last one that was added
    int64_t early_us           # by so much lingering ends early, while timers run
    kp_partition** heap        # the other timers, the earliest first
    int32_t heap_size
    int32_t heap_capacity
    kp_partition** dirty       # what look_at_dirty() looks at
    int32_t dirty_capacity
    kp_batch** collected       # batches of the request that is being built
    # settings
    kp_produce_settings settings
    int32_t max_in_flight
    int64_t max_request_size
    int64_t request_timeout_us
    int64_t delivery_timeout_us
    int64_t retry_backoff_us
    int64_t retry_backoff_max_us
    int64_t availability_timeout_us  # 0: off
    int64_t retries
    int32_t max_frame
    int32_t idempotent
    int32_t transactional
    int32_t gapless            # a lost record ends the producer
    int32_t transaction_v2     # KIP-890: brokers add partitions by themselves
    int64_t transaction_number  # counts transactions
    int32_t first_sequence  # what a partition's first sequence begins with; 0, except in tests of the wrap
    int32_t transaction_used   # a batch of this transaction was sent
    int32_t transaction_lost   # it can only be aborted: nothing of it is sent again
    int32_t transaction_failed  # the first error that a batch of this transaction failed with, 0: none
    uint8_t error_flags[256]   # by code + 1
    int64_t producer_id        # -1: none yet
    int16_t producer_epoch
    int32_t producer_id_wanted
    int32_t refresh_wanted     # an EVENT_REFRESH is on its way
    int32_t stopping
    int32_t draining           # close() waits: nothing lingers
    int32_t flush_calls_seen
    int64_t expects_us         # after a full batch: when a batch that is opened right after it will have lingered
    int64_t shared_until_us    # another thread took a turn of late: the loop does not sleep long until then
    int32_t shared_reader      # [a] some thread waits for an answer in the loop's place
    kp_broker* shared_broker   # of this broker
    int64_t left_since_us      # since then something is left to that thread to read; 0: nothing is
    int64_t alone_until_us     # [a] that thread came late: until then nobody but the loop reads
    uint64_t random
    # polling
    intptr_t wake_fd
    kp_pollfd* pollfds
    kp_broker** polled
    int32_t poll_capacity
    # events to the control thread
    kp_mutex event_lock        # guards the rest of these
    kp_cond event_cond
    kp_event* event_head
    kp_event* event_tail
    int32_t control_woken
    # figures
    int64_t peak_slot_us       # [const] a part of the windows over which the largest is reported
    kp_loop_totals totals


cdef class NetworkLoop:
    cdef kp_loop loop
    cdef readonly Accumulator accumulator
    cdef list topics            # Topic by number
    cdef bytes client_id
    cdef bytes transactional_id
