# Responses: from a frame to the outcome of batches.

cdef enum:
    # Bytes kept of a broker's message; a frame may hold much more.
    MESSAGE_MAX = 4096
    # Within this time a broker that answers has also handled what a connection that ended left it.
    LEFTOVER_US = 1000000

cdef kp_batch* find_batch(kp_request* request, kp_partition_response* r, int32_t* hint) noexcept nogil:
    """The batch that a partition's response is for. Brokers answer in the order of the request, so `hint` is right."""
    cdef int32_t i, at
    cdef kp_batch* b
    for i in range(request.n_batches):
        at = (hint[0] + i) % request.n_batches
        b = request.batches[at]
        if b.partition.index != r.index:
            continue
        if r.topic_id != NULL:
            if memcmp(b.partition.topic.id, r.topic_id, 16) != 0:
                continue
        elif (b.partition.topic.name_length != r.topic_name_length
                or memcmp(b.partition.topic.name, r.topic_name, r.topic_name_length) != 0):
            continue
        hint[0] = at + 1
        return b
    return NULL


cdef int is_definite(int32_t error) noexcept nogil:
    """Whether an error says that the batch was not written by this attempt."""
    return error != CODE_UNKNOWN and error != CODE_REQUEST_TIMED_OUT and error != CODE_NOT_ENOUGH_REPLICAS_AFTER_APPEND


cdef int leaves_nothing(kp_partition* p, int64_t sent_us, int64_t now_us) noexcept nogil:
    """Whether an attempt that was answered now came after everything that ended connections have left the broker.

    A broker handles a request that it has read, or finds in a socket, also when the client has closed the connection
    since; in between, later attempts on a new connection may overtake it. So the first answer only says that the
    broker works again, and one to an attempt that was sent LEFTOVER_US later is believed.
    """
    if not p.lost:
        return 1
    if p.heard_us == 0:
        p.heard_us = now_us
    if sent_us < p.heard_us + LEFTOVER_US:
        return 0
    p.lost = 0
    return 1


cdef int speaks_for_all_attempts(kp_loop* loop, kp_partition* p, int32_t error, int64_t sent_us,
                                 int64_t now_us) noexcept nogil:
    """Whether an error also says that no earlier attempt was, or will be, written.

    Those about the sequence come from where a broker looks for duplicates, and what is too large now was too large
    before. Other refusals (NOT_ENOUGH_REPLICAS, NOT_LEADER_OR_FOLLOWER, INVALID_RECORD ...) come before a broker looks
    for duplicates, and say nothing of earlier attempts. Nor does INVALID_PRODUCER_EPOCH: under a newer epoch a broker
    keeps no batches of the last one, so it would not recognise a repetition.
    """
    if error == CODE_MESSAGE_TOO_LARGE or error == CODE_RECORD_LIST_TOO_LARGE:
        return 1
    return (loop.idempotent and (error == CODE_OUT_OF_ORDER_SEQUENCE or error == CODE_UNKNOWN_PRODUCER_ID)
            and leaves_nothing(p, sent_us, now_us))


cdef void keep_messages(kp_batch* b, kp_partition_response* r, kp_cursor* frame, int16_t version) noexcept nogil:
    """Copy the broker's words: an error message, and the records it names (KIP-467)."""
    cdef kp_cursor errors
    cdef const uint8_t* message
    cdef int32_t i, index, length
    free(b.error_message)
    b.error_message = copy_text(r.error_message, r.error_message_length)
    for i in range(b.n_record_errors):
        free(b.record_errors[i].message)
    free(b.record_errors)
    b.record_errors = NULL
    b.n_record_errors = 0
    if r.n_record_errors <= 0 or r.n_record_errors > b.count:
        # None, or more than there are records.
        return
    b.record_errors = <kp_record_error*>calloc(r.n_record_errors, sizeof(kp_record_error))
    if b.record_errors == NULL:
        return
    errors.p = r.record_errors
    errors.end = frame.end
    errors.bad = 0
    for i in range(r.n_record_errors):
        if not next_record_error(&errors, version, &index, &message, &length):
            break
        if not 0 <= index < b.count:
            continue
        b.record_errors[b.n_record_errors].index = index
        b.record_errors[b.n_record_errors].message = copy_text(message, length)
        b.n_record_errors += 1
    # Looked up once for each record: by halving, or a batch of many small records would take minutes.
    qsort(b.record_errors, b.n_record_errors, sizeof(kp_record_error), by_index)


cdef int by_index(const void* left, const void* right) noexcept nogil:
    cdef int32_t a = (<const kp_record_error*>left).index
    cdef int32_t b = (<const kp_record_error*>right).index
    return (a > b) - (a < b)


cdef char* copy_text(const uint8_t* text, int32_t length) noexcept nogil:
    cdef char* copy
    if text == NULL or length < 0:
        return NULL
    if length > MESSAGE_MAX:
        length = MESSAGE_MAX
    copy = <char*>malloc(length + 1)
    if copy != NULL:
        memcpy(copy, text, length)
        copy[length] = 0
    return copy


cdef void partition_answered(kp_loop* loop, kp_batch* b, kp_partition_response* r, kp_cursor* frame,
                             kp_request* request, int64_t now_us) noexcept nogil:
    cdef kp_partition* p = b.partition
    cdef int at_once = 0
    if r.error < CODE_UNKNOWN:
        # Not Kafka's: those are this client's own codes.
        r.error = CODE_UNKNOWN
    if b.stage != STAGE_IN_FLIGHT:
        # It was given up before this answer came.
        if r.error == 0 and p.flight_head == NULL and p.retry_head == NULL and p.unresolved and p.in_flight == 0:
            # Everything up to it is written after all: there is no gap.
            p.unresolved = 0
        return
    flight_remove(p, b)
    b.stage = STAGE_DONE
    if r.error == 0:
        batch_acked(loop, b, r.base_offset, r.log_append_time)
        return
    if r.error == CODE_DUPLICATE_SEQUENCE:
        # An earlier attempt was written; the broker does not remember at which offset.
        batch_acked(loop, b, -1, -1)
        return
    if is_definite(r.error):
        b.uncertain = b.was_uncertain and not speaks_for_all_attempts(loop, p, r.error, request.queued_us, now_us)
    keep_messages(b, r, frame, request.version)
    if r.leader_id >= 0 and r.leader_epoch > p.leader_epoch:
        # Taken over by set_leaders(), which also ends the back-off.
        post_values(loop, EVENT_LEADER, r.leader_id, p.topic.number, p.index, r.leader_epoch)
    elif p.broker != NULL and p.leader_id != b.node_id:
        at_once = 1             # another leader is known since it was sent
    attempt_failed(loop, b, r.error, now_us, at_once)


cdef int is_offset(int64_t base_offset, int32_t count) noexcept nogil:
    """Whether records can have these offsets; -1: not known."""
    return -1 <= base_offset <= INT64_MAX - count


cdef void produce_answered(kp_loop* loop, kp_broker* broker, kp_request* request, kp_cursor* c,
                           int64_t now_us) noexcept nogil:
    cdef kp_partition_response r
    cdef int32_t n_topics = 0, n_partitions = 0, throttle = 0, hint = 0
    cdef int32_t i, j, answered = 0
    cdef const uint8_t* endpoints = NULL
    cdef int64_t endpoints_length = 0
    cdef int64_t latency
    cdef int ok
    cdef kp_batch* b
    broker.in_flight -= 1
    latency = now_us - request.queued_us
    broker.totals.latency_sum_us += latency
    broker.totals.latency_count += 1
    note_peak(loop, &broker.totals.latency_us, latency, now_us)
    for i in range(request.n_batches):
        prefetch_batches(request.batches, i, request.n_batches)
        request.batches[i].partition.in_flight -= 1
    gather_decided(loop.a)
    ok = open_produce_response(c, request.version, &n_topics)
    i = 0
    while ok and i < n_topics:
        ok = next_topic(c, request.version, &r, &n_partitions)
        j = 0
        while ok and j < n_partitions:
            ok = next_partition(c, request.version, &r)
            # More answers than questions: looking for the batches of millions would stop this thread.
            answered += 1
            ok = ok and answered <= request.n_batches
            if ok:
                b = find_batch(request, &r, &hint)
                if b != NULL and r.error == 0 and not is_offset(r.base_offset, b.count):
                    if b.stage == STAGE_IN_FLIGHT:
                        flight_remove(b.partition, b)
                        attempt_failed(loop, b, ERROR_BAD_OFFSET, now_us, 0)
                    ok = 0
                elif b != NULL:
                    partition_answered(loop, b, &r, c, request, now_us)
            j += 1
        ok = ok and close_topic(c, request.version)
        i += 1
    ok = ok and close_produce_response(c, request.version, &throttle, &endpoints, &endpoints_length)
    # A batch that the response does not name, or that its malformed rest may have named, has no answer.
    for i in range(request.n_batches):
        b = request.batches[i]
        if b.stage == STAGE_IN_FLIGHT:
            flight_remove(b.partition, b)
            attempt_failed(loop, b, ERROR_NOT_ANSWERED if ok else ERROR_BAD_RESPONSE, now_us, 0)
    settle_gathered(loop.a)
    if endpoints != NULL:
        post_data(loop, EVENT_ENDPOINTS, broker.node_id, broker.generation, 0, request.version, endpoints,
                  endpoints_length)
    for i in range(request.n_batches):
        look_after_answer(loop, request.batches[i].partition, now_us)
    release_request_batches(loop, request)
    if throttle > 0:
        loop.totals.throttle_ms += throttle
        note_peak(loop, &loop.totals.throttle, throttle, now_us)
        if request.version >= 6:
            # KIP-219: from version 6 on the broker answers at once and leaves the waiting to the client.
            broker.throttled_until_us = now_us + <int64_t>throttle * 1000
    free_request(request)
    if not ok:
        close_connection(loop, broker, ERROR_BAD_RESPONSE, 0, now_us)


cdef void handle_frame(kp_loop* loop, kp_broker* broker, const uint8_t* frame, int32_t size,
                       int64_t now_us) noexcept nogil:
    cdef kp_cursor c
    cdef kp_request* request = broker.wait_head
    cdef int32_t correlation_id
    c.p = frame
    c.end = frame + size
    c.bad = 0
    correlation_id = cursor_i32(&c)
    if request == NULL or request.correlation_id != correlation_id:
        # Answers come in the order of the requests; anything else cannot be trusted.
        close_connection(loop, broker, ERROR_NOT_ASKED, 0, now_us)
        return
    broker.wait_head = request.next
    if broker.wait_head == NULL:
        broker.wait_tail = NULL
    broker.pending -= 1
    broker.totals.responses_received += 1
    broker.last_used_us = now_us
    if request.is_produce:
        produce_answered(loop, broker, request, &c, now_us)
    else:
        post_data(loop, EVENT_FRAME, broker.node_id, broker.generation, request.token, request.version, frame, size)
        free_request(request)
