"""The network loop: sockets, produce requests and their answers, without the GIL.

``NetworkLoop.run()`` is the body of the kprod-io thread. It releases the GIL once and takes it again when it ends.
All its state is guarded by one lock, which it holds while it works and not while it sleeps in poll(); the control
thread calls in with that lock to add connections, requests and leaders. What the control thread has to know comes
out as events.

The parts: io_timers (when to look at a partition again), io_peaks (the largest values of late), io_events,
io_partitions (readiness, order, retries, giving up), io_connections (writing, reading, ending), io_responses.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.limits cimport INT_MAX
from libc.stdint cimport INT16_MAX, INT64_MAX, int16_t, int32_t, int64_t, intptr_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy, memmove, memset, strlen

from kprod._core.compression import decompress

from kprod._core.accumulator cimport (
    Accumulator, GATE_CLOSED, GATE_FATAL, GATE_FORKED, Topic, decide_batch, free_batch_data, gather_decided,
    kp_accumulator, locked_close_open, locked_free_batch_data, next_random, queue_compression, settle_gathered,
    shut_gate, take_dirty, unpin_batch, wake_loop,
)
from kprod._core.buffer_pool cimport (
    kp_free_buffer, pool_alloc, pool_capacity_for, pool_force_charge, pool_open, pool_settle,
)
from kprod._core.compression cimport compress
from kprod._core.cursor cimport cursor_i32, kp_cursor
from kprod._core.endian cimport load_be32, store_be32
from kprod._core.future cimport Batch, publish_outcome, set_network_wait
from kprod._core.platform cimport (
    KP_IOV_MAX, KP_SOCK_AGAIN, kp_add32, kp_add64, kp_cond_destroy, kp_cond_init, kp_cond_signal, kp_cond_wait_us,
    kp_count64, kp_exchange32, kp_iov, kp_iov_advance, kp_iov_len, kp_iov_set, kp_latch_lock, kp_latch_unlock,
    kp_load32, kp_load32_relaxed, kp_load64, kp_load_ptr, kp_monotonic_us, kp_mutex_destroy, kp_mutex_init,
    kp_mutex_lock, kp_mutex_trylock, kp_mutex_unlock, kp_poll, kp_pollfd, kp_pollfd_ignore_input, kp_pollfd_invalid,
    kp_pollfd_readable, kp_pollfd_set, kp_pollfd_writable, kp_prefetch, kp_sock_close, kp_sock_connect_error,
    kp_sock_recv, kp_sock_send, kp_store32, kp_store32_relaxed, kp_store64, kp_store64_relaxed, kp_store_ptr,
    kp_store_ptr_relaxed, kp_wake_drain,
)
from kprod._core.produce cimport (
    build_produce_request, close_produce_response, close_topic, free_request, kp_partition_response, next_partition,
    next_record_error, next_topic, open_produce_response,
)
from kprod._core.record_batch cimport seal_batch, split_records
from kprod._core.structs cimport (
    BATCH_OVERHEAD, ERROR_BAD_OFFSET, ERROR_BAD_RESPONSE, ERROR_CLOSED, ERROR_DISCONNECTED, ERROR_EXPIRED,
    ERROR_FRAME_SIZE, ERROR_GAP, ERROR_NOT_ANSWERED, ERROR_NOT_ASKED, ERROR_REQUEST_TIMED_OUT,
    ERROR_TOO_MANY_RETRIES, ERROR_TRANSACTION_ABORTED, FLAG_FATAL, FLAG_REFRESH, FLAG_RETRIABLE, OUTCOME_ACKED,
    OUTCOME_FAILED, OUTCOME_PENDING, OUTCOME_SPLIT, PEAK_SLOTS, PERSISTED_NO, PERSISTED_POSSIBLY, PERSISTED_YES,
    STAGE_CLOSED, STAGE_COMPRESSING, STAGE_DONE, STAGE_IN_FLIGHT, STAGE_OPEN, STAGE_RETRY, STAGE_SPLIT, kp_batch,
    kp_broker, kp_broker_totals, kp_late_callback, kp_partition, kp_peak, kp_record_error, kp_record_info, kp_request,
    kp_topic, release_callbacks,
)
from kprod._core.tls cimport (
    TlsStream, kp_tls, kp_tls_close, kp_tls_flush, kp_tls_pending, kp_tls_recv, kp_tls_send, kp_tls_unsent,
)

cdef enum:
    COLLECT_MAX = 8192         # partitions in one request
    REMEMBERED_BATCHES = 5     # of a producer in a partition, by the broker, to recognise repetitions
    READ_FIRST = 65536         # bytes of a connection's first receive buffer
    READ_MIN = 4096            # free bytes a receive is worth trying with
    READ_KEEP = 1048576        # a larger buffer is given back once it is empty
    STALLED_US = 1000000       # a broker that took or answered nothing for so long may hold half of buffer.memory

# Kafka's error codes that are treated apart.
cdef enum:
    CODE_UNKNOWN = -1
    ERROR_LEADER_UNKNOWN = 5
    CODE_REQUEST_TIMED_OUT = 7
    CODE_MESSAGE_TOO_LARGE = 10
    CODE_RECORD_LIST_TOO_LARGE = 18
    CODE_NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
    CODE_OUT_OF_ORDER_SEQUENCE = 45
    CODE_DUPLICATE_SEQUENCE = 46
    CODE_INVALID_PRODUCER_EPOCH = 47
    CODE_UNKNOWN_PRODUCER_ID = 59

include "io_prefetch.pxi"
include "io_timers.pxi"
include "io_peaks.pxi"
include "io_events.pxi"
include "io_partitions.pxi"
include "io_connections.pxi"
include "io_responses.pxi"
include "io_sharing.pxi"


# ------------------------------------------------------------------------------------------------ one turn

cdef void look_at_dirty(kp_loop* loop, int64_t now_us) noexcept nogil:
    """Look at each partition that application threads marked, those first that were marked first."""
    cdef kp_partition* p = take_dirty(loop.a)
    cdef kp_partition* following
    cdef int32_t n = 0
    cdef int32_t i
    while p != NULL:
        following = p.dirty_next
        if has_room(&loop.dirty, &loop.dirty_capacity, n):
            loop.dirty[n] = p
            n += 1
        else:
            look_at_marked(loop, p, now_us)
        p = following
    for i in range(n // 2):
        p = loop.dirty[i]
        loop.dirty[i] = loop.dirty[n - 1 - i]
        loop.dirty[n - 1 - i] = p
    for i in range(n):
        prefetch_partitions(loop.dirty, i, n)
        look_at_marked(loop, loop.dirty[i], now_us)


cdef inline void look_at_marked(kp_loop* loop, kp_partition* p, int64_t now_us) noexcept nogil:
    # Cleared before looking: what is appended from now on marks the partition again.
    kp_store32(&p.dirty, 0)
    evaluate(loop, p, now_us)


cdef int64_t check_availability(kp_loop* loop, kp_broker* broker, int64_t now_us) noexcept nogil:
    """Note whether a broker takes what is there for it. Returns when to look again."""
    cdef int64_t since_us = INT64_MAX
    cdef int64_t next_us = INT64_MAX
    if broker.n_ready > 0 and broker.ready_since_us > 0:
        since_us = broker.ready_since_us
    if loop.availability_timeout_us > 0 and broker.state == CONNECTION_UP:
        # KIP-794: records without a key stay away from a broker that takes nothing.
        kp_store32(&broker.usable, since_us == INT64_MAX or now_us - since_us <= loop.availability_timeout_us)
        if since_us != INT64_MAX and broker.usable:
            next_us = since_us + loop.availability_timeout_us + 1
    if broker.wait_head != NULL and broker.wait_head.queued_us < since_us:
        since_us = broker.wait_head.queued_us
    if since_us == INT64_MAX:
        kp_store32(&broker.stalled, 0)
        return next_us
    kp_store32(&broker.stalled, now_us - since_us >= STALLED_US)
    if not broker.stalled and since_us + STALLED_US < next_us:
        next_us = since_us + STALLED_US
    return next_us


cdef int64_t take_turn(kp_loop* loop) noexcept nogil:
    """All the work there is now. Returns when there will be more, in monotonic microseconds."""
    cdef int64_t now_us = kp_monotonic_us()
    cdef int64_t next_us, at_us
    cdef int32_t flush_calls
    cdef kp_broker* broker
    cdef kp_partition* p
    look_at_dirty(loop, now_us)
    run_timers(loop, now_us)
    flush_calls = kp_load32(&loop.a.flush_calls)
    if flush_calls != loop.flush_calls_seen or kp_load32(&loop.a.pool.n_waiters) or loop.draining:
        loop.flush_calls_seen = flush_calls
        look_at_lingering(loop, now_us)
    next_us = expire(loop, now_us)
    broker = loop.brokers
    while broker != NULL:
        pump(loop, broker, now_us)
        if broker.state == CONNECTION_NONE and broker.n_ready and not broker.wanted:
            broker.wanted = 1
            post_values(loop, EVENT_WANTED, broker.node_id, 0, 0, 0)
        if broker.out_head != NULL:
            write_out(loop, broker, now_us)
        at_us = check_deadlines(loop, broker, now_us)
        if at_us < next_us:
            next_us = at_us
        if broker.throttled_until_us > now_us and broker.throttled_until_us < next_us:
            next_us = broker.throttled_until_us
        at_us = check_availability(loop, broker, now_us)
        if at_us < next_us:
            next_us = at_us
        broker = broker.next
    p = next_timer(loop)
    return p.timer_at_us if p != NULL and p.timer_at_us < next_us else next_us


cdef int prepare_poll(kp_loop* loop, int leaving) noexcept nogil:
    """Fill the poll set; returns how many descriptors it has. `leaving`: the shared broker's input is another's now."""
    cdef kp_broker* broker = loop.brokers
    cdef int n = 1
    cdef void* grown
    if loop.n_brokers + 1 > loop.poll_capacity:
        grown = realloc(loop.pollfds, (loop.n_brokers + 16) * sizeof(kp_pollfd))
        if grown != NULL:
            loop.pollfds = <kp_pollfd*>grown
            grown = realloc(loop.polled, (loop.n_brokers + 16) * sizeof(void*))
            if grown != NULL:
                loop.polled = <kp_broker**>grown
                loop.poll_capacity = loop.n_brokers + 16
    kp_pollfd_set(&loop.pollfds[0], loop.wake_fd, 0)
    while broker != NULL:
        broker.poll_slot = -1
        if broker.state != CONNECTION_NONE and n < loop.poll_capacity:
            kp_pollfd_set(&loop.pollfds[n], broker.fd,
                          broker.state == CONNECTION_CONNECTING or has_output(broker))
            if leaving and broker == loop.shared_broker:
                kp_pollfd_ignore_input(&loop.pollfds[n])
            loop.polled[n] = broker
            broker.poll_slot = n
            n += 1
        broker = broker.next
    return n


cdef void handle_poll(kp_loop* loop, int n, int64_t now_us) noexcept nogil:
    cdef int i, error
    cdef kp_broker* broker
    cdef kp_pollfd* pollfd
    cdef kp_event* event
    for i in range(1, n):
        pollfd = &loop.pollfds[i]
        broker = loop.polled[i]
        if broker.state == CONNECTION_NONE or broker.poll_slot != i:
            continue
        if kp_pollfd_invalid(pollfd):
            close_connection(loop, broker, ERROR_DISCONNECTED, 0, now_us)
            continue
        if broker.state == CONNECTION_CONNECTING:
            if not kp_pollfd_writable(pollfd):
                continue
            error = kp_sock_connect_error(broker.fd)
            if error:
                close_connection(loop, broker, ERROR_DISCONNECTED, error, now_us)
                continue
            broker.state = CONNECTION_UP
            loop.totals.connections_made += 1
            event = new_event(EVENT_CONNECTED, broker.node_id)
            if event != NULL:
                event.generation = broker.generation
                post_event(loop, event)
            continue
        if kp_pollfd_readable(pollfd) and not is_left_to_reader(loop, broker, now_us):
            read_all(loop, broker, now_us)
        if broker.state == CONNECTION_UP and has_output(broker) and kp_pollfd_writable(pollfd):
            write_out(loop, broker, now_us)


cdef void run_loop(kp_loop* loop) noexcept nogil:
    cdef int64_t next_us, now_us, wait_us
    cdef int64_t woken_us = kp_monotonic_us()
    cdef int n, timeout_ms, leaving
    kp_mutex_lock(&loop.lock)
    while not loop.stopping:
        next_us = take_turn(loop)
        now_us = kp_monotonic_us()
        if now_us < loop.shared_until_us and next_us > now_us + SHARED_SLEEP_US:
            next_us = now_us + SHARED_SLEEP_US
        if now_us < loop.expects_us < next_us:
            # The batch after a full one is opened in a moment: who opens it need not wake this thread for its timer.
            next_us = loop.expects_us
        leaving = is_leaving(loop, now_us)
        n = prepare_poll(loop, leaving)
        # From here on application threads write to wake_fd; what they did before is seen by the check that follows.
        kp_store64(&loop.a.sleeps_until_us, next_us)
        if kp_load_ptr(&loop.a.dirty) != NULL or kp_load32(&loop.a.flush_calls) != loop.flush_calls_seen:
            kp_store64(&loop.a.sleeps_until_us, 0)
            timeout_ms = 0
        else:
            wait_us = next_us - now_us if next_us > now_us else 0
            # Rounded up: waking early would only spin.
            timeout_ms = <int>((wait_us + 999) // 1000) if wait_us < 60000000 else 60000
            if leaving:
                timeout_ms = 1
        loop.totals.polls += 1
        loop.totals.work_us += now_us - woken_us
        kp_mutex_unlock(&loop.lock)
        kp_poll(loop.pollfds, n, timeout_ms)
        woken_us = kp_monotonic_us()
        kp_mutex_lock(&loop.lock)
        loop.totals.wait_us += woken_us - now_us
        kp_store64(&loop.a.sleeps_until_us, 0)
        if kp_pollfd_readable(&loop.pollfds[0]):
            kp_wake_drain(loop.wake_fd)
        handle_poll(loop, n, woken_us)
    kp_mutex_unlock(&loop.lock)


cdef class NetworkLoop:
    """The loop and what the control thread may ask of it. Every method may be called from any thread with the GIL."""

    def __cinit__(self, Accumulator accumulator, intptr_t wake_fd, *, client_id, transactional_id, int max_in_flight,
                  int64_t max_request_size, int request_timeout_ms, int delivery_timeout_ms, double retry_backoff_ms,
                  double retry_backoff_max_ms, double availability_timeout_ms, retries, int max_frame,
                  bint idempotent, bint gapless, bytes error_flags, uint64_t seed,
                  double metrics_span_ms=60000):
        memset(&self.loop, 0, sizeof(kp_loop))
        kp_mutex_init(&self.loop.lock)
        kp_mutex_init(&self.loop.event_lock)
        kp_cond_init(&self.loop.event_cond)
        self.accumulator = accumulator
        self.topics = []
        self.client_id = client_id.encode("utf-8") if client_id is not None else None
        self.transactional_id = transactional_id.encode("utf-8") if transactional_id is not None else None
        self.loop.a = &accumulator.a
        accumulator.a.brokers = &self.loop.brokers
        accumulator.a.loop = &self.loop
        accumulator.a.send_by_caller = send_by_caller
        self.loop.wake_fd = wake_fd
        self.loop.settings.client_id_length = -1
        self.loop.settings.transactional_id_length = -1
        if self.client_id is not None:
            self.loop.settings.client_id = self.client_id
            self.loop.settings.client_id_length = len(self.client_id)
        if self.transactional_id is not None:
            self.loop.settings.transactional_id = self.transactional_id
            self.loop.settings.transactional_id_length = len(self.transactional_id)
        self.loop.settings.timeout_ms = request_timeout_ms
        self.loop.max_in_flight = max_in_flight
        self.loop.max_request_size = max_request_size
        self.loop.request_timeout_us = <int64_t>request_timeout_ms * 1000
        self.loop.delivery_timeout_us = <int64_t>delivery_timeout_ms * 1000
        self.loop.retry_backoff_us = <int64_t>(retry_backoff_ms * 1000)
        self.loop.retry_backoff_max_us = <int64_t>(retry_backoff_max_ms * 1000)
        self.loop.availability_timeout_us = <int64_t>(availability_timeout_ms * 1000)
        self.loop.retries = min(retries, INT_MAX)
        self.loop.max_frame = max_frame
        self.loop.idempotent = idempotent
        self.loop.gapless = gapless
        self.loop.transactional = transactional_id is not None
        self.loop.producer_id = -1
        self.loop.random = seed | 1
        memcpy(self.loop.error_flags, <const char*>error_flags, min(len(error_flags), 256))
        # One slot is filled while the others hold the rest of the time.
        self.loop.peak_slot_us = max(<int64_t>(metrics_span_ms * 1000 / (PEAK_SLOTS - 1)), 1)
        self.loop.poll_capacity = 16
        self.loop.pollfds = <kp_pollfd*>malloc(16 * sizeof(kp_pollfd))
        self.loop.polled = <kp_broker**>malloc(16 * sizeof(void*))
        self.loop.collected = <kp_batch**>malloc(COLLECT_MAX * sizeof(void*))
        if self.loop.pollfds == NULL or self.loop.polled == NULL or self.loop.collected == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef kp_broker* broker = self.loop.brokers
        cdef kp_broker* following
        cdef kp_event* event = self.loop.event_head
        cdef kp_event* after
        while broker != NULL:
            following = broker.next
            if broker.tls_owner != NULL:
                Py_DECREF(<object>broker.tls_owner)
            free(broker.in_buffer)
            free(broker)
            broker = following
        while event != NULL:
            after = event.next
            if event.owner != NULL:
                Py_DECREF(<object>event.owner)
            free(event.data)
            free(event)
            event = after
        free(self.loop.line)
        free(self.loop.heap)
        free(self.loop.dirty)
        free(self.loop.pollfds)
        free(self.loop.polled)
        free(self.loop.collected)
        kp_mutex_destroy(&self.loop.lock)
        kp_mutex_destroy(&self.loop.event_lock)
        kp_cond_destroy(&self.loop.event_cond)

    # -- the io thread

    def run(self):
        """The body of the io thread: runs until stop(), then ends all connections."""
        cdef kp_broker* broker
        with nogil:
            run_loop(&self.loop)
            kp_mutex_lock(&self.loop.lock)
            broker = self.loop.brokers
            while broker != NULL:
                close_connection(&self.loop, broker, ERROR_CLOSED, 0, kp_monotonic_us())
                broker = broker.next
            kp_mutex_unlock(&self.loop.lock)

    def wakers(self):
        """Threads that may be writing to the wake fd. Once the loop has ended and this is 0, none ever will again."""
        return kp_load32(&self.loop.a.wakers)

    def wake(self):
        """Make the loop take a turn."""
        with nogil:
            wake_loop(self.loop.a, 0)

    def stop(self):
        """Let run() return."""
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            self.loop.stopping = 1
            kp_mutex_unlock(&self.loop.lock)
            wake_loop(self.loop.a, 0)

    def drain(self):
        """Let nothing linger any more: the producer is closing."""
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            self.loop.draining = 1
            kp_mutex_unlock(&self.loop.lock)
            wake_loop(self.loop.a, 0)

    # -- events

    def wait_events(self, double timeout):
        """Wait up to `timeout` seconds for events; returns them as a list of tuples, see EVENT_* in io.pxd.

        Each is (kind, node id, generation, token, value1, value2, value3, bytes or None, Batch or None).
        """
        cdef kp_loop* loop = &self.loop
        cdef kp_event* event
        cdef kp_event* following
        cdef int64_t left = <int64_t>(timeout * 1e6)
        cdef list events = []
        with nogil:
            kp_mutex_lock(&loop.event_lock)
            if loop.event_head == NULL and not loop.control_woken and left > 0:
                kp_cond_wait_us(&loop.event_cond, &loop.event_lock, left)
            loop.control_woken = 0
            event = loop.event_head
            loop.event_head = loop.event_tail = NULL
            kp_mutex_unlock(&loop.event_lock)
        while event != NULL:
            following = event.next
            events.append((
                event.kind, event.node_id, event.generation, event.token, event.value1, event.value2, event.value3,
                PyBytes_FromStringAndSize(<const char*>event.data, event.length) if event.data != NULL else None,
                <object>event.batch.owner if event.batch != NULL else None))
            if event.owner != NULL:
                Py_DECREF(<object>event.owner)
            free(event.data)
            free(event)
            event = following
        return events

    def wake_control(self):
        """Make wait_events() return."""
        with nogil:
            kp_mutex_lock(&self.loop.event_lock)
            self.loop.control_woken = 1
            kp_cond_signal(&self.loop.event_cond)
            kp_mutex_unlock(&self.loop.event_lock)

    # -- connections

    def connect(self, int node_id, intptr_t fd, TlsStream tls=None):
        """Take over a non-blocking socket that is connecting to a broker. Returns the connection's generation.

        With `tls` it is connected already, and what is sent over it is encrypted.
        """
        cdef kp_broker* broker
        cdef int64_t generation = -1
        cdef kp_tls* encryption = NULL
        cdef PyObject* owner = NULL
        if tls is not None:
            encryption = &tls.tls
            owner = <PyObject*>tls
            Py_INCREF(tls)
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            broker = make_broker(&self.loop, node_id)
            if broker != NULL:
                if broker.state != CONNECTION_NONE:
                    close_connection(&self.loop, broker, ERROR_DISCONNECTED, 0, kp_monotonic_us())
                broker.fd = fd
                broker.tls = encryption
                broker.tls_owner = owner
                # The poll that is going on is about the socket before this one.
                broker.poll_slot = -1
                broker.state = CONNECTION_CONNECTING
                kp_store32_relaxed(&broker.can_produce, 0)
                broker.wanted = 0
                broker.next_correlation_id = 0
                broker.throttled_until_us = 0
                broker.last_used_us = kp_monotonic_us()
                generation = broker.generation
            kp_mutex_unlock(&self.loop.lock)
            wake_loop(self.loop.a, 0)
        if generation < 0:
            if owner != NULL:
                Py_DECREF(<object>owner)
            raise MemoryError
        return generation

    def set_in_rack(self, int node_id, bint in_rack):
        """Whether a broker is in client.rack (KIP-1123)."""
        cdef kp_broker* broker
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            broker = make_broker(&self.loop, node_id)
            if broker != NULL:
                kp_store32(&broker.in_rack, in_rack)
            kp_mutex_unlock(&self.loop.lock)

    def disconnect(self, int node_id, int64_t generation, bint usable=False):
        """End a connection, unless it ended already. `usable`: the broker is fine, records may go there."""
        cdef kp_broker* broker
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            broker = find_broker(&self.loop, node_id)
            if broker != NULL and broker.generation == generation:
                close_connection(&self.loop, broker, ERROR_DISCONNECTED, 0, kp_monotonic_us())
                kp_store32(&broker.usable, usable)
            kp_mutex_unlock(&self.loop.lock)
            wake_loop(self.loop.a, 0)

    def enable(self, int node_id, int64_t generation, int produce_version):
        """The connection is set up: produce requests may go out, in this version. False: it ended already."""
        cdef kp_broker* broker
        cdef int ok = 0
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            broker = find_broker(&self.loop, node_id)
            if broker != NULL and broker.generation == generation and broker.state == CONNECTION_UP:
                broker.produce_version = produce_version
                kp_store32_relaxed(&broker.can_produce, 1)
                kp_store32(&broker.usable, 1)
                ok = 1
            kp_mutex_unlock(&self.loop.lock)
            wake_loop(self.loop.a, 0)
        return bool(ok)

    def hold(self, int node_id, int64_t generation):
        """No produce request goes out until enable(): the connection authenticates again (KIP-368).

        Those that were queued before it are written first; their answers come as usual.
        """
        cdef kp_broker* broker
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            broker = find_broker(&self.loop, node_id)
            if broker != NULL and broker.generation == generation:
                kp_store32_relaxed(&broker.can_produce, 0)
            kp_mutex_unlock(&self.loop.lock)

    def send(self, int node_id, int64_t generation, bytes frame, int64_t token, int version, double timeout):
        """Send a control request (a whole frame; its correlation id is filled in). False: the connection ended.

        The answer comes as EVENT_FRAME with `token` and `version`; `timeout` seconds without one end the connection.
        """
        cdef kp_broker* broker
        cdef kp_request* request
        cdef kp_iov* iov
        cdef int ok = 0
        if len(frame) < 12:
            raise ValueError("a request has at least 12 bytes")
        request = <kp_request*>calloc(1, sizeof(kp_request))
        if request == NULL:
            raise MemoryError
        request.frame = <uint8_t*>malloc(len(frame))
        request.iov = malloc(sizeof(kp_iov))
        if request.frame == NULL or request.iov == NULL:
            free_request(request)
            raise MemoryError
        memcpy(request.frame, <const char*>frame, len(frame))
        request.frame_length = request.size = len(frame)
        iov = <kp_iov*>request.iov
        kp_iov_set(iov, request.frame, request.frame_length)
        request.n_iov = 1
        request.expects_response = 1
        request.token = token
        request.version = version
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            broker = find_broker(&self.loop, node_id)
            if broker != NULL and broker.generation == generation and broker.state == CONNECTION_UP:
                enqueue_request(broker, request, kp_monotonic_us(), <int64_t>(timeout * 1e6))
                ok = 1
            kp_mutex_unlock(&self.loop.lock)
            if ok:
                wake_loop(self.loop.a, 0)
            else:
                free_request(request)
        return bool(ok)

    def load(self, int node_id):
        """Requests that a connection has to answer; -1: there is no connection."""
        cdef kp_broker* broker
        cdef int pending = -1
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            broker = find_broker(&self.loop, node_id)
            if broker != NULL and broker.state == CONNECTION_UP:
                pending = broker.pending
            kp_mutex_unlock(&self.loop.lock)
        return pending

    def idle_since(self, int node_id):
        """Seconds since a connection was last used and owes nothing; None: it is in use or does not exist."""
        cdef kp_broker* broker
        cdef int64_t idle_us = -1
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            broker = find_broker(&self.loop, node_id)
            if (broker != NULL and broker.state == CONNECTION_UP and broker.pending == 0 and broker.out_head == NULL
                    and broker.n_ready == 0):
                idle_us = kp_monotonic_us() - broker.last_used_us
            kp_mutex_unlock(&self.loop.lock)
        return idle_us / 1e6 if idle_us >= 0 else None

    # -- what the control thread knows

    def add_topic(self, Topic topic):
        """Make a topic known; Topic number i must be the i-th one added."""
        if topic.t.number != len(self.topics):
            raise ValueError(f"topic number {topic.t.number} added as {len(self.topics)}")
        self.topics.append(topic)

    def set_leaders(self, Topic topic, list leaders, bytes topic_id):
        """Take over leaders from metadata: a list of (partition, node id or -1, leader epoch), and the topic's id.

        A retry that waits for its back-off goes to a new leader at once (KIP-951).
        """
        cdef kp_loop* loop = &self.loop
        cdef kp_partition* p
        cdef kp_broker* broker
        cdef kp_batch* b
        cdef int32_t index, node_id, epoch
        cdef int64_t now_us = kp_monotonic_us()
        with nogil:
            kp_mutex_lock(&loop.lock)
        try:
            if topic_id is not None:
                memcpy(topic.t.id, <const char*>topic_id, 16)
            for index, node_id, epoch in leaders:
                if not 0 <= index < kp_load32(&topic.t.n_partitions):
                    continue
                p = topic.partition(index)
                broker = make_broker(loop, node_id) if node_id >= 0 else NULL
                if broker == p.broker and epoch == p.leader_epoch:
                    if p.broker != NULL and not p.in_ready:
                        evaluate(loop, p, now_us)
                    continue
                if p.in_ready:
                    ready_remove(p.broker, p)
                kp_store_ptr(<void**>&p.broker, broker)
                kp_store32(&p.leader_id, node_id)
                p.leader_epoch = epoch
                b = p.retry_head if broker != NULL else NULL
                while b != NULL:
                    b.retry_at_us = now_us
                    b = b.next
                evaluate(loop, p, now_us)
        finally:
            kp_mutex_unlock(&loop.lock)
            wake_loop(loop.a, 0)

    def refreshed(self):
        """New metadata was taken over: the next sign of stale metadata is reported again."""
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            self.loop.refresh_wanted = 0
            kp_mutex_unlock(&self.loop.lock)

    def set_producer_id(self, int64_t producer_id, int epoch):
        """Batches without a sequence number get theirs under this id from now on."""
        cdef kp_loop* loop = &self.loop
        cdef Topic topic
        cdef int32_t i
        cdef int64_t now_us = kp_monotonic_us()
        with nogil:
            kp_mutex_lock(&loop.lock)
        try:
            loop.producer_id = producer_id
            loop.producer_epoch = epoch
            loop.producer_id_wanted = 0
            for topic in self.topics:
                for i in range(topic.t.n_known):
                    if loop.transactional:
                        # A new epoch: the gap that a lost batch left belongs to the old one.
                        topic.partition(i).unresolved = 0
                    evaluate(loop, topic.partition(i), now_us)
        finally:
            kp_mutex_unlock(&loop.lock)
            wake_loop(loop.a, 0)

    @property
    def producer_id(self):
        """(producer id, epoch) that new sequences start with; id -1: none yet."""
        cdef int64_t producer_id
        cdef int16_t epoch
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            producer_id = self.loop.producer_id
            epoch = self.loop.producer_epoch
            kp_mutex_unlock(&self.loop.lock)
        return producer_id, epoch

    def begin_sequences_at(self, int32_t sequence):
        """Let partitions that nothing was sent to yet begin with this number: so a test gets to the wrap at 2**31.

        Brokers since 2.5 take any number as the first of a producer that they do not know.
        """
        self.loop.first_sequence = sequence

    # -- transactions

    def begin_transaction(self, bint v2):
        """A transaction begins: partitions have to be added to it, or not (KIP-890, `v2`)."""
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            self.loop.transaction_number += 1
            self.loop.transaction_used = 0
            self.loop.transaction_lost = 0
            self.loop.transaction_failed = 0
            self.loop.transaction_v2 = v2
            kp_mutex_unlock(&self.loop.lock)

    def partition_added(self, Topic topic, int partition):
        """The coordinator knows that a partition is part of the transaction."""
        cdef kp_partition* p
        if not 0 <= partition < topic.t.n_known:
            raise ValueError(f"partition is {partition}: topic {topic.name!r} has {topic.t.n_known}")
        p = topic.partition(partition)
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            p.added_in = self.loop.transaction_number
            evaluate(&self.loop, p, kp_monotonic_us())
            kp_mutex_unlock(&self.loop.lock)
            wake_loop(self.loop.a, 0)

    def transaction_state(self):
        """(a batch of this transaction was sent, a batch with a sequence number was given up, the first error)."""
        cdef Topic topic
        cdef int32_t i
        cdef int unresolved = 0
        with nogil:
            kp_mutex_lock(&self.loop.lock)
        for topic in self.topics:
            for i in range(topic.t.n_known):
                unresolved |= topic.partition(i).unresolved
        used = self.loop.transaction_used
        failed = self.loop.transaction_failed
        kp_mutex_unlock(&self.loop.lock)
        return bool(used), bool(unresolved), failed

    # -- giving up

    def fail_all(self, int error, bint queued=True, bint in_flight=True):
        """Fail every undecided batch: those that are in the deque or wait for a retry, and those in flight.

        Returns how many are left because another thread works on their bytes; they can be failed a moment later.
        """
        cdef kp_loop* loop = &self.loop
        cdef kp_batch* b
        cdef kp_batch* newer
        cdef kp_partition* p
        cdef int64_t now_us = kp_monotonic_us()
        cdef int64_t left = 0
        cdef int is_in_flight
        with nogil:
            kp_mutex_lock(&loop.lock)
            b = oldest_incomplete(loop)
            while b != NULL:
                newer = newer_incomplete(loop, b)
                # Once it is given up, another thread may let go of it.
                p = b.partition
                is_in_flight = stage_of(b) == STAGE_IN_FLIGHT
                if in_flight if is_in_flight else queued:
                    if give_up(loop, b, error):
                        evaluate(loop, p, now_us)
                    else:
                        left += 1
                b = newer
            kp_mutex_unlock(&loop.lock)
            wake_loop(loop.a, 0)
        return left

    def give_up_transaction(self):
        """The transaction can only be aborted: fail what waits to be sent, and what is in flight if it is refused.

        Returns how many are left because another thread works on their bytes; they can be failed a moment later.
        """
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            self.loop.transaction_lost = 1
            kp_mutex_unlock(&self.loop.lock)
        return self.fail_all(ERROR_TRANSACTION_ABORTED, queued=True, in_flight=False)

    def fail_topic(self, Topic topic, int error):
        """Fail every batch of one topic that is not under way, for instance because the broker refuses access to it."""
        with nogil:
            fail_waiting(&self.loop, &topic.t, -1, error)

    def fail_broker(self, int node_id, int error):
        """Fail every batch for one leader that is not under way: the broker there refuses this client."""
        with nogil:
            fail_waiting(&self.loop, NULL, node_id, error)

    # -- splitting

    def split(self, Batch parent):
        """Replace a batch that was too large for the broker by two halves.

        They take the parent's place in the list of incomplete batches and in the order of its partition, its creation
        time, its sequence numbers, and its records' futures and callbacks.
        """
        cdef kp_loop* loop = &self.loop
        cdef kp_batch* b = &parent.b
        cdef list children = []
        cdef Batch child
        cdef bytes records
        cdef int32_t count, first = 0
        records = PyBytes_FromStringAndSize(<const char*>b.data + BATCH_OVERHEAD, b.length - BATCH_OVERHEAD)
        if b.codec:
            records = decompress(b.codec, records, b.raw_length)
        for records, count in split_records(<const uint8_t*><const char*>records, len(records), b.count):
            child = make_piece(loop, parent, records, count, first)
            children.append((first, child))
            first += count
        parent.children = children
        with nogil:
            kp_mutex_lock(&loop.lock)
        for _, child in children:
            Py_INCREF(child)
            child.b.owner = <PyObject*>child
            child.b.pins = 1
        take_place(loop, parent, children)
        kp_mutex_unlock(&loop.lock)
        wake_loop(loop.a, 0)

    def fail_split(self, Batch parent, int error):
        """Fail a batch that could not be split."""
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            parent.b.partition.splitting -= 1
            batch_failed(&self.loop, &parent.b, error)
            evaluate(&self.loop, parent.b.partition, kp_monotonic_us())
            kp_mutex_unlock(&self.loop.lock)
            wake_loop(self.loop.a, 0)

    # -- figures

    def sleeps_for(self):
        """Seconds until the network thread, which sleeps, wakes up if nothing comes before; 0.0: it is awake."""
        cdef int64_t until = kp_load64(&self.accumulator.a.sleeps_until_us)
        return max(0.0, (until - kp_monotonic_us()) / 1e6) if until else 0.0

    def counters(self):
        """Totals since the start, and the largest of the last windows, as a dict of ints."""
        cdef kp_loop_totals seen
        cdef int64_t now_us = kp_monotonic_us()
        # Copied: where dicts are made the garbage collector may run anybody's code, which must not meet the lock.
        with nogil:
            kp_mutex_lock(&self.loop.lock)
            seen = self.loop.totals
            kp_mutex_unlock(&self.loop.lock)
        return {
            "batches_sent": seen.batches_sent, "records_sent": seen.records_sent,
            "records_acked": seen.records_acked, "records_failed": seen.records_failed,
            "records_retried": seen.records_retried, "batch_bytes": seen.batch_bytes, "raw_bytes": seen.raw_bytes,
            "batches_split": seen.batches_split, "queue_time_us": seen.queue_time_us,
            "queue_time_max_us": peak_of(&self.loop, &seen.queue_time, now_us),
            "largest_batch": peak_of(&self.loop, &seen.batch_size, now_us),
            "largest_record": peak_of(&self.loop, &seen.record_size, now_us),
            "throttle_ms": seen.throttle_ms, "throttle_max_ms": peak_of(&self.loop, &seen.throttle, now_us),
            "polls": seen.polls, "shared_turns": seen.shared_turns,
            "work_us": seen.work_us, "wait_us": seen.wait_us,
            "connections_made": seen.connections_made, "connections_lost": seen.connections_lost,
        }

    def broker_counters(self):
        """Totals and the largest of the last windows per node id, as dicts."""
        cdef kp_broker* broker = <kp_broker*>kp_load_ptr(<void**>&self.loop.brokers)
        cdef kp_broker_totals seen
        cdef int32_t state, can_produce, in_flight, n_ready, wanted, stalled
        cdef dict result = {}
        cdef int64_t now_us = kp_monotonic_us()
        while broker != NULL:
            # Not all of the broker: application threads add to `held` without this lock.
            with nogil:
                kp_mutex_lock(&self.loop.lock)
                seen = broker.totals
                state = broker.state
                can_produce = broker.can_produce
                in_flight = broker.in_flight
                n_ready = broker.n_ready
                wanted = broker.wanted
                stalled = broker.stalled
                kp_mutex_unlock(&self.loop.lock)
            result[broker.node_id] = {
                "connected": state == CONNECTION_UP, "can_produce": bool(can_produce),
                "in_flight": in_flight, "ready_partitions": n_ready,
                "wanted": bool(wanted), "stalled": bool(stalled), "held": kp_load64(&broker.held),
                "requests_sent": seen.requests_sent, "responses_received": seen.responses_received,
                "bytes_out": seen.bytes_out, "bytes_in": seen.bytes_in,
                "network_calls": seen.network_calls, "request_bytes": seen.request_bytes,
                "request_size_max": peak_of(&self.loop, &seen.request_size, now_us),
                "latency_sum_us": seen.latency_sum_us, "latency_count": seen.latency_count,
                "latency_max_us": peak_of(&self.loop, &seen.latency_us, now_us),
            }
            broker = broker.next
        return result


# ------------------------------------------------------------------------------------------------ splitting

cdef Batch make_piece(kp_loop* loop, Batch parent, bytes records, int32_t count, int32_t first):
    """A child batch with its own copy of the record bytes; its callbacks stay with the parent for now."""
    cdef kp_batch* b = &parent.b
    cdef kp_partition* p = b.partition
    cdef Batch child = Batch.__new__(Batch)
    cdef kp_batch* c = &child.b
    cdef bytes payload = records
    cdef int64_t need
    cdef int32_t i
    if p.topic.codec:
        packed = compress(p.topic.codec, p.topic.level, records)
        if len(packed) < len(records):
            payload = packed
            c.codec = p.topic.codec
    need = BATCH_OVERHEAD + len(payload)
    c.capacity = pool_capacity_for(loop.a.pool, need)
    c.data = pool_alloc(loop.a.pool, c.capacity)
    c.info = <kp_record_info*>malloc(count * sizeof(kp_record_info))
    if c.data == NULL or c.info == NULL:
        free_batch_data(loop.a, c)
        raise MemoryError
    c.charged = c.capacity + count * <int64_t>sizeof(kp_record_info)
    pool_force_charge(loop.a.pool, c.charged)
    c.held_by = b.held_by
    if c.held_by != NULL:
        kp_add64(&c.held_by.held, c.charged)
    memcpy(c.data + BATCH_OVERHEAD, <const char*>payload, len(payload))
    memcpy(c.info, b.info + first, count * sizeof(kp_record_info))
    child.topic = parent.topic
    child.topic_name = parent.topic_name
    child.reporter = parent.reporter
    c.length = need
    c.raw_length = BATCH_OVERHEAD + len(records)
    c.count = count
    c.unattended = b.unattended
    c.info_capacity = count
    c.id = b.id
    c.created_us = b.created_us
    c.drained_us = b.drained_us
    c.partition = p
    c.attempts = b.attempts
    c.last_error = b.last_error
    c.base_timestamp = b.base_timestamp
    # The records keep their deltas, so the base stays; the maximum is that of the records that are here.
    c.max_timestamp = b.base_timestamp + c.info[0].timestamp_delta
    for i in range(count):
        if b.base_timestamp + c.info[i].timestamp_delta > c.max_timestamp:
            c.max_timestamp = b.base_timestamp + c.info[i].timestamp_delta
    c.producer_id = b.producer_id
    c.producer_epoch = b.producer_epoch
    c.base_sequence = advance_sequence(b.base_sequence, first) if b.base_sequence >= 0 else -1
    c.base_offset = -1
    c.log_append_time = -1
    c.node_id = b.node_id
    c.stage = STAGE_RETRY
    return child


cdef void move_slots(PyObject*** target, int32_t* target_capacity, PyObject** source, int32_t source_capacity,
                     int32_t first, int32_t count) noexcept:
    """Move references of the records [first, first + count) to a piece."""
    cdef int32_t i
    if source == NULL or source_capacity <= first:
        return
    target[0] = <PyObject**>calloc(count, sizeof(void*))
    if target[0] == NULL:
        return
    target_capacity[0] = count
    for i in range(count):
        if first + i < source_capacity:
            target[0][i] = source[first + i]
            source[first + i] = NULL


cdef int take_place(kp_loop* loop, Batch parent, list children) except -1:
    """Put the pieces where the parent is, and decide the parent as split. Called with the loop's lock."""
    cdef kp_accumulator* a = loop.a
    cdef kp_batch* b = &parent.b
    cdef kp_batch* c
    cdef kp_batch* before
    cdef Batch child
    cdef int32_t first, i
    cdef int64_t now_us = kp_monotonic_us()
    kp_mutex_lock(&b.lock)
    for first, _ in children:
        if (first > 0 and b.callbacks_capacity > first and b.callbacks[first] != NULL
                and b.callbacks[first] == b.callbacks[first - 1]):
            # The reference of these records goes to the piece before.
            Py_INCREF(<object>b.callbacks[first])
    for first, child in children:
        c = &child.b
        move_slots(&c.callbacks, &c.callbacks_capacity, b.callbacks, b.callbacks_capacity, first, c.count)
        move_slots(&c.headers, &c.headers_capacity, b.headers, b.headers_capacity, first, c.count)
        c.late = <kp_late_callback*>malloc((b.n_late if b.n_late else 1) * sizeof(kp_late_callback))
        if c.late != NULL:
            c.late_capacity = b.n_late if b.n_late else 1
            for i in range(b.n_late):
                if first <= b.late[i].index < first + c.count:
                    c.late[c.n_late] = b.late[i]
                    c.late[c.n_late].index -= first
                    c.n_late += 1
    b.n_late = 0
    # In the same hold: a callback that is added from here on must find the pieces.
    publish_outcome(b, OUTCOME_SPLIT)
    kp_mutex_unlock(&b.lock)
    # In the parent's place: flush() and expiry go by this list's order.
    kp_mutex_lock(&a.lock)
    before = b
    for _, child in children:
        c = &child.b
        c.older = before
        c.newer = before.newer
        if before.newer != NULL:
            before.newer.older = c
        else:
            a.newest = c
        before.newer = c
        before = c
        a.incomplete += 1
    kp_mutex_unlock(&a.lock)
    for _, child in reversed(children):
        child.b.retry_at_us = now_us
        retry_insert(b.partition, &child.b)
    b.partition.splitting -= 1
    # From here on futures go to the pieces. What is left of the parent has no callbacks.
    free_callbacks(b)
    decide_batch(a, b, OUTCOME_SPLIT)
    evaluate(loop, b.partition, now_us)
    return 0


cdef void free_callbacks(kp_batch* b) noexcept nogil:
    release_callbacks(b, b.callbacks)
    b.callbacks = NULL
    b.callbacks_capacity = 0
