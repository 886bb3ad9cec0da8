# Connections: building and writing requests, reading frames, ending a connection.

cdef kp_broker* find_broker(kp_loop* loop, int32_t node_id) noexcept nogil:
    cdef kp_broker* broker = loop.brokers
    while broker != NULL and broker.node_id != node_id:
        broker = broker.next
    return broker


cdef kp_broker* make_broker(kp_loop* loop, int32_t node_id) noexcept nogil:
    cdef kp_broker* broker = find_broker(loop, node_id)
    if broker != NULL:
        return broker
    broker = <kp_broker*>calloc(1, sizeof(kp_broker))
    if broker == NULL:
        return NULL
    broker.node_id = node_id
    broker.loop = loop
    broker.fd = -1
    broker.poll_slot = -1
    broker.usable = 1
    broker.next = loop.brokers
    # Application threads read the list without the lock: it only grows at its head.
    kp_store_ptr(<void**>&loop.brokers, broker)
    loop.n_brokers += 1
    return broker


# ---------------------------------------------------------------------------------------- writing

cdef void enqueue_request(kp_broker* broker, kp_request* request, int64_t now_us, int64_t timeout_us) noexcept nogil:
    request.next = NULL
    request.correlation_id = broker.next_correlation_id
    broker.next_correlation_id = (broker.next_correlation_id + 1) & 0x7fffffff
    store_be32(request.frame + 8, request.correlation_id)
    request.queued_us = now_us
    request.deadline_us = now_us + timeout_us
    if broker.out_tail != NULL:
        broker.out_tail.next = request
    else:
        broker.out_head = request
    broker.out_tail = request
    if request.expects_response:
        broker.pending += 1
    broker.last_used_us = now_us


cdef void release_request_batches(kp_loop* loop, kp_request* request) noexcept nogil:
    """The network is done with the batches' memory."""
    cdef kp_free_buffer* left = NULL
    cdef int32_t i
    cdef kp_batch* b
    pool_open(loop.a.pool)
    for i in range(request.n_batches):
        b = request.batches[i]
        b.requests -= 1
        if b.requests == 0 and kp_load32(&b.outcome) != OUTCOME_PENDING:
            locked_free_batch_data(loop.a, b, &left)
    pool_settle(loop.a.pool, left)
    for i in range(request.n_batches):
        unpin_batch(loop.a, request.batches[i])
    request.n_batches = 0


cdef void finish_unacknowledged(kp_loop* loop, kp_broker* broker, kp_request* request, int64_t now_us) noexcept nogil:
    """acks=0: written to the socket is all there is to know."""
    cdef int32_t i
    cdef kp_batch* b
    broker.in_flight -= 1
    for i in range(request.n_batches):
        b = request.batches[i]
        b.partition.in_flight -= 1
        if b.stage == STAGE_IN_FLIGHT:
            flight_remove(b.partition, b)
            b.stage = STAGE_DONE
            batch_acked(loop, b, -1, -1)
        evaluate(loop, b.partition, now_us)
    release_request_batches(loop, request)
    free_request(request)


cdef void started_writing(kp_request* request) noexcept nogil:
    cdef int32_t i
    cdef kp_batch* b
    for i in range(request.n_batches):
        b = request.batches[i]
        b.was_uncertain = b.uncertain
        b.uncertain = 1


cdef int has_output(kp_broker* broker) noexcept nogil:
    """Whether something waits for the socket to take it."""
    return broker.out_head != NULL or (broker.tls != NULL and kp_tls_unsent(<kp_tls*>broker.tls))


cdef void write_out(kp_loop* loop, kp_broker* broker, int64_t now_us) noexcept nogil:
    """Write queued requests until the socket takes no more."""
    cdef kp_request* request
    cdef kp_iov* iov
    cdef int64_t sent
    cdef int n
    if broker.tls != NULL and broker.state == CONNECTION_UP:
        sent = kp_tls_flush(<kp_tls*>broker.tls)
        if sent == KP_SOCK_AGAIN:
            return
        if sent < 0:
            close_connection(loop, broker, ERROR_DISCONNECTED, <int32_t>-sent, now_us)
            return
    while broker.out_head != NULL and broker.state == CONNECTION_UP:
        request = broker.out_head
        iov = <kp_iov*>request.iov
        n = request.n_iov - request.iov_done
        if n > KP_IOV_MAX:
            n = KP_IOV_MAX
        if request.sent_us == 0:
            request.sent_us = now_us
            started_writing(request)
        if broker.tls != NULL:
            sent = kp_tls_send(<kp_tls*>broker.tls, iov + request.iov_done, n)
        else:
            sent = kp_sock_send(broker.fd, iov + request.iov_done, n)
        if sent == KP_SOCK_AGAIN:
            return
        if sent < 0:
            close_connection(loop, broker, ERROR_DISCONNECTED, <int32_t>-sent, now_us)
            return
        broker.totals.bytes_out += sent
        broker.totals.network_calls += 1
        while request.iov_done < request.n_iov and sent >= <int64_t>kp_iov_len(&iov[request.iov_done]):
            sent -= kp_iov_len(&iov[request.iov_done])
            request.iov_done += 1
        if request.iov_done < request.n_iov:
            kp_iov_advance(&iov[request.iov_done], sent)
            continue
        broker.out_head = request.next
        if broker.out_head == NULL:
            broker.out_tail = NULL
        request.next = NULL
        broker.totals.requests_sent += 1
        broker.totals.request_bytes += request.size
        note_peak(loop, &broker.totals.request_size, request.size, now_us)
        if request.expects_response:
            if broker.wait_tail != NULL:
                broker.wait_tail.next = request
            else:
                broker.wait_head = request
            broker.wait_tail = request
        elif request.is_produce:
            finish_unacknowledged(loop, broker, request, now_us)
        else:
            free_request(request)


cdef int is_zero_id(kp_topic* topic) noexcept nogil:
    cdef int i
    for i in range(16):
        if topic.id[i]:
            return 0
    return 1


cdef int32_t collect(kp_loop* loop, kp_broker* broker, int64_t now_us, int16_t* acks, int16_t* version) noexcept nogil:
    """Take one batch each from as many ready partitions as fit one request, in turn."""
    cdef int32_t looked_at = 0
    cdef int32_t rounds = broker.n_ready
    cdef int32_t n = 0
    cdef int64_t size = 0
    cdef int too_large
    cdef kp_partition* p
    cdef kp_batch* b
    while looked_at < rounds and n < COLLECT_MAX and broker.ready_head != NULL:
        looked_at += 1
        p = broker.ready_head
        if n > 0 and (p.topic.acks != acks[0] or size >= loop.max_request_size):
            if size >= loop.max_request_size:
                break
            ready_remove(broker, p)
            ready_push(broker, p)
            continue
        too_large = 0
        prefetch_records(p.ready_next)
        b = take_batch(loop, p, now_us, loop.max_request_size - size if n > 0 else INT64_MAX, &too_large)
        if too_large:
            break
        ready_remove(broker, p)
        if b == NULL:
            evaluate(loop, p, now_us)
            continue
        if n == 0:
            acks[0] = p.topic.acks
        if version[0] >= 13 and is_zero_id(p.topic):
            version[0] = 12
        flight_push(p, b)
        p.in_flight += 1
        kp_store32_relaxed(&b.attempts, b.attempts + 1)
        b.requests += 1
        kp_add32(&b.pins, 1)
        kp_store32_relaxed(&b.node_id, broker.node_id)
        size += b.length
        loop.collected[n] = b
        n += 1
    return n


cdef void pump(kp_loop* loop, kp_broker* broker, int64_t now_us) noexcept nogil:
    """Send what is ready for this broker."""
    cdef int16_t acks = -1
    cdef int16_t version
    cdef int32_t n, i
    cdef kp_request* request
    cdef kp_partition* p
    while (broker.can_produce and broker.state == CONNECTION_UP and broker.ready_head != NULL
           and broker.in_flight < loop.max_in_flight and now_us >= broker.throttled_until_us
           and (loop.producer_id >= 0 or not loop.idempotent or has_retries(broker))):
        version = broker.produce_version
        if loop.transactional and not loop.transaction_v2 and version > 11:
            # From version 12 on the broker takes the request as one of KIP-890's transactions.
            version = 11
        n = collect(loop, broker, now_us, &acks, &version)
        if n == 0:
            break
        broker.ready_since_us = now_us if broker.n_ready else 0
        request = build_produce_request(&loop.settings, version, acks, loop.collected, n)
        if request == NULL:
            for i in range(n):
                p = loop.collected[i].partition
                loop.collected[i].requests -= 1
                p.in_flight -= 1
                flight_remove(p, loop.collected[i])
                attempt_failed(loop, loop.collected[i], ERROR_DISCONNECTED, now_us, 0)
                unpin_batch(loop.a, loop.collected[i])
                evaluate(loop, p, now_us)
            return
        broker.in_flight += 1
        enqueue_request(broker, request, now_us, loop.request_timeout_us)
        for i in range(n):
            evaluate(loop, loop.collected[i].partition, now_us)
        write_out(loop, broker, now_us)


cdef int has_retries(kp_broker* broker) noexcept nogil:
    """Whether something that has its sequence already is ready: it may go without a current producer id."""
    return broker.ready_head != NULL and broker.ready_head.retry_head != NULL


# ---------------------------------------------------------------------------------------- reading

cdef int make_room(kp_broker* broker) noexcept nogil:
    """Free space behind what was received. 0: no memory."""
    cdef int64_t size
    cdef uint8_t* grown
    if broker.in_start == broker.in_end:
        broker.in_start = broker.in_end = 0
    elif broker.in_start > 0 and broker.in_capacity - broker.in_end < READ_MIN:
        memmove(broker.in_buffer, broker.in_buffer + broker.in_start, broker.in_end - broker.in_start)
        broker.in_end -= broker.in_start
        broker.in_start = 0
    if broker.in_capacity - broker.in_end >= READ_MIN:
        return 1
    # Grows with what has really arrived, never by what a frame claims.
    size = broker.in_capacity * 2 if broker.in_capacity else READ_FIRST
    grown = <uint8_t*>realloc(broker.in_buffer, size)
    if grown == NULL:
        return 0
    broker.in_buffer = grown
    broker.in_capacity = size
    return 1


cdef void read_in(kp_loop* loop, kp_broker* broker, int64_t now_us) noexcept nogil:
    cdef int64_t n, room
    cdef int32_t size
    cdef int64_t generation = broker.generation
    if not make_room(broker):
        close_connection(loop, broker, ERROR_BAD_RESPONSE, 0, now_us)
        return
    room = broker.in_capacity - broker.in_end
    if broker.tls != NULL:
        n = kp_tls_recv(<kp_tls*>broker.tls, broker.in_buffer + broker.in_end, room)
    else:
        n = kp_sock_recv(broker.fd, broker.in_buffer + broker.in_end, room)
    if n == KP_SOCK_AGAIN:
        return
    if n <= 0:
        close_connection(loop, broker, ERROR_DISCONNECTED, <int32_t>-n, now_us)
        return
    broker.totals.bytes_in += n
    broker.totals.network_calls += 1
    broker.in_end += n
    while broker.in_end - broker.in_start >= 4:
        size = load_be32(broker.in_buffer + broker.in_start)
        if size < 4 or size > loop.max_frame:
            close_connection(loop, broker, ERROR_FRAME_SIZE, 0, now_us)
            return
        if broker.wait_head == NULL or (
                broker.in_end - broker.in_start >= 8
                and load_be32(broker.in_buffer + broker.in_start + 4) != broker.wait_head.correlation_id):
            # Nothing is kept of an answer that nobody waits for.
            close_connection(loop, broker, ERROR_NOT_ASKED, 0, now_us)
            return
        if broker.in_end - broker.in_start - 4 < size:
            break
        handle_frame(loop, broker, broker.in_buffer + broker.in_start + 4, size, now_us)
        if broker.generation != generation:
            return              # the frame ended the connection
        broker.in_start += 4 + <int64_t>size
    if broker.in_start == broker.in_end and broker.in_capacity > READ_KEEP:
        free(broker.in_buffer)
        broker.in_buffer = NULL
        broker.in_capacity = broker.in_start = broker.in_end = 0


cdef void read_all(kp_loop* loop, kp_broker* broker, int64_t now_us) noexcept nogil:
    read_in(loop, broker, now_us)
    # What TLS has already taken from the socket does not make it readable again.
    while broker.tls != NULL and kp_tls_pending(<kp_tls*>broker.tls):
        read_in(loop, broker, now_us)


# ---------------------------------------------------------------------------------------- the end of a connection

cdef void fail_request(kp_loop* loop, kp_broker* broker, kp_request* request, int32_t error,
                       int64_t now_us) noexcept nogil:
    """A request that will get no (usable) answer."""
    cdef int32_t i
    cdef kp_batch* b
    if request.is_produce:
        broker.in_flight -= 1
        for i in range(request.n_batches):
            b = request.batches[i]
            b.partition.in_flight -= 1
            if b.uncertain:
                b.partition.lost = 1
                b.partition.heard_us = 0
            if b.stage == STAGE_IN_FLIGHT:
                flight_remove(b.partition, b)
                attempt_failed(loop, b, error, now_us, 0)
        for i in range(request.n_batches):
            evaluate(loop, request.batches[i].partition, now_us)
        release_request_batches(loop, request)
    free_request(request)


cdef int is_tls_alert(kp_broker* broker) noexcept nogil:
    """Whether what was received where a frame should begin is a TLS alert (RFC 8446, section 6), not Kafka's."""
    cdef const uint8_t* start = broker.in_buffer + broker.in_start
    return (broker.in_buffer != NULL and broker.in_end - broker.in_start >= 5
            and start[0] == 21 and start[1] == 3 and start[3] == 0 and start[4] == 2)


cdef void close_connection(kp_loop* loop, kp_broker* broker, int32_t reason, int32_t system_error,
                           int64_t now_us) noexcept nogil:
    """End a connection; what was under way on it is retried or failed, and the control thread is told."""
    cdef kp_request* out = broker.out_head
    cdef kp_request* waiting = broker.wait_head
    cdef kp_request* request
    cdef kp_event* event
    cdef const char* note
    if broker.state == CONNECTION_NONE:
        return
    event = new_event(EVENT_CLOSED, broker.node_id)
    if broker.tls != NULL:
        kp_tls_close(<kp_tls*>broker.tls)
        note = (<kp_tls*>broker.tls).error
        if event != NULL:
            # Only a thread with the GIL can give the reference back.
            event.owner = broker.tls_owner
            broker.tls_owner = NULL
            event.length = strlen(note)
            event.data = <uint8_t*>malloc(event.length) if event.length else NULL
            if event.data != NULL:
                memcpy(event.data, note, event.length)
        broker.tls = NULL
        broker.tls_owner = NULL
    elif event != NULL and is_tls_alert(broker):
        event.value3 = 1
    kp_sock_close(broker.fd)
    broker.fd = -1
    broker.state = CONNECTION_NONE
    kp_store32_relaxed(&broker.can_produce, 0)
    broker.pending = 0
    broker.out_head = broker.out_tail = NULL
    broker.wait_head = broker.wait_tail = NULL
    free(broker.in_buffer)
    broker.in_buffer = NULL
    broker.in_capacity = broker.in_start = broker.in_end = 0
    broker.wanted = 0
    kp_store32(&broker.usable, 0)
    loop.totals.connections_lost += 1
    if event != NULL:
        event.generation = broker.generation
        event.value1 = reason
        event.value2 = system_error
        post_event(loop, event)
    broker.generation += 1
    # The older ones first, so that their batches are retried in order.
    while waiting != NULL:
        request = waiting
        waiting = waiting.next
        fail_request(loop, broker, request, reason, now_us)
    while out != NULL:
        request = out
        out = out.next
        fail_request(loop, broker, request, reason, now_us)


cdef int64_t check_deadlines(kp_loop* loop, kp_broker* broker, int64_t now_us) noexcept nogil:
    """Close a connection that owes an answer for longer than request.timeout.ms. Returns when to look again."""
    cdef kp_request* first = broker.wait_head if broker.wait_head != NULL else broker.out_head
    if broker.state == CONNECTION_NONE or first == NULL:
        return INT64_MAX
    if first.deadline_us <= now_us:
        close_connection(loop, broker, ERROR_REQUEST_TIMED_OUT, 0, now_us)
        return INT64_MAX
    return first.deadline_us
