# What the network loop does with a partition: is it ready, which batch goes next, what becomes of a batch.
#
# Order (invariant 2) rests on three rules. Batches leave the deque in the order in which they were opened and get
# their sequence numbers as they leave. A batch that has to be sent again waits in the retry list, which is kept in
# that same order, and nothing overtakes it: only the first of the retry list may go, and with idempotence only when
# no batch before it is in flight. After a batch with a sequence was given up, its partition starts over with a new
# producer epoch and sequence 0 (KIP-360), but not before every batch behind it is known to be written or not.

# ---------------------------------------------------------------------------------------- ready lists

cdef void ready_push(kp_broker* broker, kp_partition* p) noexcept nogil:
    p.in_ready = 1
    p.ready_next = NULL
    p.ready_prev = broker.ready_tail
    if broker.ready_tail != NULL:
        broker.ready_tail.ready_next = p
    else:
        broker.ready_head = p
    broker.ready_tail = p
    broker.n_ready += 1


cdef void ready_remove(kp_broker* broker, kp_partition* p) noexcept nogil:
    if p.ready_prev != NULL:
        p.ready_prev.ready_next = p.ready_next
    else:
        broker.ready_head = p.ready_next
    if p.ready_next != NULL:
        p.ready_next.ready_prev = p.ready_prev
    else:
        broker.ready_tail = p.ready_prev
    p.ready_next = p.ready_prev = NULL
    p.in_ready = 0
    broker.n_ready -= 1
    if broker.n_ready == 0:
        broker.ready_since_us = 0


# ---------------------------------------------------------------------------------------- in flight and retry lists

cdef void flight_push(kp_partition* p, kp_batch* b) noexcept nogil:
    """Into the list of what is in flight, in order of age: a batch that is sent again may be older than others."""
    cdef kp_batch* before = NULL
    cdef kp_batch* at = p.flight_head
    b.stage = STAGE_IN_FLIGHT
    if p.flight_tail != NULL and p.flight_tail.id <= b.id:
        before = p.flight_tail
        at = NULL
    while at != NULL and at.id <= b.id:
        before = at
        at = at.next
    b.next = at
    if before != NULL:
        before.next = b
    else:
        p.flight_head = b
    if at == NULL:
        p.flight_tail = b


cdef void flight_remove(kp_partition* p, kp_batch* b) noexcept nogil:
    cdef kp_batch* before = NULL
    cdef kp_batch* at = p.flight_head
    while at != b:
        before = at
        at = at.next
    if before != NULL:
        before.next = b.next
    else:
        p.flight_head = b.next
    if p.flight_tail == b:
        p.flight_tail = before
    b.next = NULL


cdef void retry_insert(kp_partition* p, kp_batch* b) noexcept nogil:
    """Into the retry list, in order of age.

    The pieces of a split have their parent's age. Only the first of them is ever under way, so one that comes back
    belongs in front of the others.
    """
    cdef kp_batch* before = NULL
    cdef kp_batch* at = p.retry_head
    while at != NULL and at.id < b.id:
        before = at
        at = at.next
    b.next = at
    b.stage = STAGE_RETRY
    if before != NULL:
        before.next = b
    else:
        p.retry_head = b


cdef void retry_remove(kp_partition* p, kp_batch* b) noexcept nogil:
    cdef kp_batch* before = NULL
    cdef kp_batch* at = p.retry_head
    while at != b:
        before = at
        at = at.next
    if before != NULL:
        before.next = b.next
    else:
        p.retry_head = b.next
    b.next = NULL


cdef void locked_queue_remove(kp_partition* p, kp_batch* b) noexcept nogil:
    """Take a batch out of the deque, wherever it stands. Called with the partition's lock."""
    cdef kp_batch* before = NULL
    cdef kp_batch* at = p.head
    while at != b:
        before = at
        at = at.next
    if before != NULL:
        before.next = b.next
    else:
        kp_store_ptr_relaxed(<void**>&p.head, b.next)
    if p.tail == b:
        p.tail = before
    if p.open == b:
        p.open = NULL
        kp_store64_relaxed(&p.last_capacity, b.capacity)
        kp_store32_relaxed(&p.last_count, b.count)
        b.raw_length = b.length
    b.next = NULL
    b.in_queue = 0
    kp_store32(&p.queued, p.queued - 1)


# ---------------------------------------------------------------------------------------- is it ready?

cdef int may_retry(kp_loop* loop, kp_partition* p) noexcept nogil:
    """Whether the first batch of the retry list may be sent as far as order is concerned."""
    if p.splitting:
        return 0
    if loop.idempotent:
        if p.retry_head.producer_id < 0 and loop.producer_id < 0:
            # Its sequence was taken from it, and there is none to have: as it is, no broker would know a repetition.
            return 0
        return p.flight_head == NULL or p.flight_head.id > p.retry_head.id
    return loop.max_in_flight > 1 or p.in_flight == 0


cdef inline int starts_over(kp_loop* loop, kp_partition* p) noexcept nogil:
    """Whether the partition's next batch begins a new sequence.

    A plain idempotent producer bumps the epoch of single partitions, a transactional one gets it from its coordinator.
    """
    return p.producer_id != loop.producer_id or (loop.transactional and p.producer_epoch != loop.producer_epoch)


cdef inline int is_added(kp_loop* loop, kp_partition* p) noexcept nogil:
    """Whether the partition is part of the transaction; with KIP-890 the broker sees to it."""
    return loop.transaction_v2 or p.added_in == loop.transaction_number


cdef int may_send_new(kp_loop* loop, kp_partition* p) noexcept nogil:
    """Whether a batch that was never sent may leave the deque."""
    if p.retry_head != NULL or p.unresolved or p.splitting:
        return 0
    if loop.idempotent:
        if loop.producer_id < 0:
            return 0
        # A new producer id starts a new sequence: everything under the old one must be decided first.
        if starts_over(loop, p) and p.in_flight > 0:
            return 0
        # A broker that does not know the producer takes any sequence number as the first. So nothing follows the
        # first batch before it is written, or what follows could be written in its place.
        if p.flight_head != NULL and p.flight_head.base_sequence == 0:
            return 0
        # A broker recognises a repetition of the last batches only. The oldest that is in doubt must stay among
        # them, also when those behind it are acknowledged and leave room in flight for others.
        if p.flight_head != NULL and p.sequenced - p.flight_head.ordinal >= REMEMBERED_BATCHES - 1:
            return 0
    if loop.transactional and not is_added(loop, p):
        return 0
    if loop.max_in_flight == 1 and p.in_flight > 0:
        return 0
    return p.in_flight < loop.max_in_flight


cdef int lingers(kp_loop* loop, kp_batch* b, int64_t now_us) noexcept nogil:
    """Whether an open batch may still wait for more records."""
    return (now_us < b.created_us + b.partition.topic.linger_us - loop.early_us and not loop.draining
            and not kp_load32(&loop.a.flushing) and not kp_load32_relaxed(&loop.a.pool.n_waiters))


cdef void evaluate(kp_loop* loop, kp_partition* p, int64_t now_us) noexcept nogil:
    """Look at a partition: put it on its leader's ready list, or set its timer, or leave it to the next event."""
    cdef kp_batch* b
    cdef int ready = 0
    cdef int64_t at_us = -1
    if p.in_ready:
        return
    if p.unresolved and p.in_flight == 0 and not p.splitting and not loop.transactional:
        resolve(loop, p)
    if p.retry_head != NULL:
        if may_retry(loop, p):
            if p.retry_head.retry_at_us <= now_us:
                ready = 1
            else:
                at_us = p.retry_head.retry_at_us
    elif kp_load_ptr(<void**>&p.head) != NULL:
        kp_latch_lock(&p.lock)
        b = p.head
        if b != NULL:
            if b.stage == STAGE_OPEN:
                if lingers(loop, b, now_us):
                    at_us = b.created_us + p.topic.linger_us
                elif p.topic.codec:
                    locked_close_open(p)
                    queue_compression(loop.a, b)
                else:
                    ready = 1
            elif b.stage == STAGE_CLOSED:
                ready = 1
        kp_latch_unlock(&p.lock)
        if ready and loop.transactional and not is_added(loop, p) and p.add_asked != loop.transaction_number:
            p.add_asked = loop.transaction_number
            post_values(loop, EVENT_ADD_PARTITION, -1, p.topic.number, p.index, 0)
        if ready and not may_send_new(loop, p):
            # The response it waits for, or the producer id, brings us back here.
            ready = 0
    if not ready:
        if at_us >= 0:
            set_timer(loop, p, at_us)
        else:
            clear_timer(loop, p)
        return
    clear_timer(loop, p)
    if p.broker == NULL:
        want_refresh(loop, ERROR_LEADER_UNKNOWN)
        return
    if p.broker.n_ready == 0:
        p.broker.ready_since_us = now_us
    ready_push(p.broker, p)


cdef inline void look_after_answer(kp_loop* loop, kp_partition* p, int64_t now_us) noexcept nogil:
    """evaluate(), unless all there is is a batch that goes on lingering."""
    if p.timer_slot == -1 or p.timer_at_us <= now_us or p.retry_head != NULL or p.unresolved or p.splitting:
        evaluate(loop, p, now_us)


cdef kp_batch* take_batch(kp_loop* loop, kp_partition* p, int64_t now_us, int64_t room, int* too_large) noexcept nogil:
    """The batch that goes next, taken off its list and with its sequence number; NULL: none may go now.

    One of more than `room` bytes stays where it is, and `too_large` becomes 1.
    """
    cdef kp_batch* b = NULL
    if p.retry_head != NULL:
        if p.retry_head.length > room:
            too_large[0] = 1
            return NULL
        if not may_retry(loop, p) or p.retry_head.retry_at_us > now_us:
            return NULL
        b = p.retry_head
        retry_remove(p, b)
    else:
        if not may_send_new(loop, p):
            return NULL
        kp_latch_lock(&p.lock)
        b = p.head
        if b != NULL and b.stage != STAGE_OPEN and b.stage != STAGE_CLOSED:
            # Another thread compresses it: how long it will be is not known yet.
            b = NULL
        elif b != NULL and b.length > room:
            too_large[0] = 1
            b = NULL
        elif b != NULL and b.stage == STAGE_OPEN:
            locked_close_open(p)
            if b.stage == STAGE_COMPRESSING:
                queue_compression(loop.a, b)
                b = NULL
        if b != NULL:
            locked_queue_remove(p, b)
        kp_latch_unlock(&p.lock)
        if b == NULL:
            return NULL
        b.drained_us = now_us
        loop.transaction_used = 1
        loop.totals.batches_sent += 1
        loop.totals.records_sent += b.count
        loop.totals.batch_bytes += b.length
        loop.totals.raw_bytes += b.raw_length
        loop.totals.queue_time_us += now_us - b.created_us
        note_peak(loop, &loop.totals.queue_time, now_us - b.created_us, now_us)
        note_peak(loop, &loop.totals.batch_size, b.length, now_us)
        note_peak(loop, &loop.totals.record_size, b.largest, now_us)
        if p.topic.linger_us > 0 and b.raw_length * 2 >= p.topic.batch_size:
            loop.expects_us = now_us + p.topic.linger_us
        kp_count64(&p.topic.batches_sent, 1)
        kp_count64(&p.topic.records_sent, b.count)
        kp_count64(&p.topic.bytes_sent, b.length)
        kp_count64(&p.topic.raw_bytes_sent, b.raw_length)
    if loop.idempotent and b.producer_id < 0:
        if starts_over(loop, p):
            p.next_sequence = loop.first_sequence if p.producer_id < 0 else 0
            p.producer_id = loop.producer_id
            p.producer_epoch = loop.producer_epoch
        b.producer_id = p.producer_id
        b.producer_epoch = p.producer_epoch
        b.base_sequence = p.next_sequence
        p.next_sequence = advance_sequence(p.next_sequence, b.count)
        p.sequenced += 1
        b.ordinal = p.sequenced
        b.sealed = 0
    if not b.sealed:
        seal_batch(b, loop.transactional)
    return b


cdef inline int32_t advance_sequence(int32_t sequence, int32_t count) noexcept nogil:
    """Sequence numbers wrap from 2^31 - 1 to 0."""
    cdef int64_t following = <int64_t>sequence + count
    return <int32_t>(following & 0x7fffffff)


# ---------------------------------------------------------------------------------------- what becomes of a batch

cdef int64_t backoff_us(kp_loop* loop, int32_t attempts) noexcept nogil:
    """retry.backoff.ms, doubled with each attempt up to retry.backoff.max.ms, 20 % jitter (KIP-580)."""
    cdef int64_t wait = loop.retry_backoff_us
    cdef int32_t i = 1
    while i < attempts and wait < loop.retry_backoff_max_us:
        wait *= 2
        i += 1
    if wait > loop.retry_backoff_max_us:
        wait = loop.retry_backoff_max_us
    return wait * 8 // 10 + <int64_t>(next_random(&loop.random) % <uint64_t>(wait * 4 // 10 + 1))


cdef void batch_acked(kp_loop* loop, kp_batch* b, int64_t base_offset, int64_t log_append_time) noexcept nogil:
    loop.totals.records_acked += b.count
    kp_count64(&b.partition.topic.records_acked, b.count)
    b.base_offset = base_offset
    b.log_append_time = log_append_time
    b.error = 0
    b.persisted = PERSISTED_YES
    decide_batch(loop.a, b, OUTCOME_ACKED)


cdef void batch_failed(kp_loop* loop, kp_batch* b, int32_t error) noexcept nogil:
    """A batch that is on no list any more fails for good."""
    loop.totals.records_failed += b.count
    kp_count64(&b.partition.topic.records_failed, b.count)
    b.error = error
    b.persisted = PERSISTED_POSSIBLY if b.uncertain else PERSISTED_NO
    if b.producer_id >= 0:
        # Its sequence numbers may never be written: what follows would be out of order.
        b.partition.unresolved = 1
    if loop.gapless and error != ERROR_CLOSED and kp_load32(&loop.a.gate) < GATE_CLOSED:
        # Nothing may be written behind a record that is lost.
        shut_gate(loop.a, GATE_FATAL)
        post_values(loop, EVENT_FATAL, b.node_id, ERROR_GAP, error, 0)
    if loop.transactional and error != ERROR_TRANSACTION_ABORTED and error != ERROR_CLOSED:
        if loop.transaction_failed == 0:
            loop.transaction_failed = error
        post_values(loop, EVENT_BATCH_FAILED, b.node_id, error, b.last_error, 0)
    decide_batch(loop.a, b, OUTCOME_FAILED)


cdef void batch_again(kp_loop* loop, kp_batch* b, int32_t error, int64_t now_us, int at_once) noexcept nogil:
    """Send a batch again, after a back-off."""
    kp_store32_relaxed(&b.last_error, error)
    loop.totals.records_retried += b.count
    kp_count64(&b.partition.topic.records_retried, b.count)
    b.retry_at_us = now_us if at_once else now_us + backoff_us(loop, b.attempts)
    retry_insert(b.partition, b)


cdef int is_first_undecided(kp_partition* p, kp_batch* b) noexcept nogil:
    return ((p.retry_head == NULL or p.retry_head.id >= b.id)
            and (p.flight_head == NULL or p.flight_head.id >= b.id))


cdef void attempt_failed(kp_loop* loop, kp_batch* b, int32_t error, int64_t now_us, int at_once) noexcept nogil:
    """An attempt to write a batch ended with `error`; it is in flight no more. Retry it, split it, or fail it."""
    cdef kp_partition* p = b.partition
    cdef uint32_t entry = <uint32_t>(error + 1)
    cdef int flags = loop.error_flags[entry] if entry < 256 else FLAG_RETRIABLE | FLAG_REFRESH
    cdef int too_large = (error == CODE_MESSAGE_TOO_LARGE or error == CODE_RECORD_LIST_TOO_LARGE) and b.count > 1
    if loop.transaction_lost and (too_large or flags & FLAG_RETRIABLE or error == CODE_OUT_OF_ORDER_SEQUENCE):
        # Whether it is written or not, nobody will read it: the end of the transaction does not wait for that.
        if flags & FLAG_REFRESH:
            want_refresh(loop, error)
        kp_store32_relaxed(&b.last_error, error)
        batch_failed(loop, b, ERROR_TRANSACTION_ABORTED)
        return
    if too_large:
        loop.totals.batches_split += 1
        kp_store32_relaxed(&b.last_error, error)
        b.stage = STAGE_SPLIT
        p.splitting += 1
        post_split(loop, b)
        return
    if loop.idempotent and b.producer_id >= 0:
        if loop.transactional:
            if error == CODE_OUT_OF_ORDER_SEQUENCE and not p.unresolved and not is_first_undecided(p, b):
                batch_again(loop, b, error, now_us, 0)
                return
            # Otherwise the transaction has lost a batch: it fails, and the transaction must be aborted.
        elif error == CODE_OUT_OF_ORDER_SEQUENCE or error == CODE_UNKNOWN_PRODUCER_ID:
            # This attempt was not written, and the broker expects something else. A batch behind one that is
            # retried or was given up only has to wait for its turn; if it is the first, the broker lost what came
            # before it.
            if error == CODE_UNKNOWN_PRODUCER_ID or is_first_undecided(p, b):
                p.unresolved = 1
            batch_again(loop, b, error, now_us, 0)
            if b.uncertain and is_first_undecided(p, b) and b.retry_at_us < p.heard_us + LEFTOVER_US:
                # The next answer is to be one that can be believed.
                b.retry_at_us = p.heard_us + LEFTOVER_US
            return
        if error == CODE_INVALID_PRODUCER_EPOCH and not loop.transactional:
            p.unresolved = 1
            loop.producer_id = -1
            want_producer_id(loop, error)
            if b.uncertain:
                # An earlier attempt may be in the log, and no broker would recognise it under another producer id.
                kp_store32_relaxed(&b.last_error, error)
                batch_failed(loop, b, error)
            else:
                batch_again(loop, b, error, now_us, 0)
            return
    if flags & FLAG_REFRESH:
        want_refresh(loop, error)
    if flags & FLAG_RETRIABLE:
        if b.attempts > loop.retries:
            kp_store32_relaxed(&b.last_error, error)
            batch_failed(loop, b, error if loop.retries == 0 else ERROR_TOO_MANY_RETRIES)
        else:
            batch_again(loop, b, error, now_us, at_once)
        return
    kp_store32_relaxed(&b.last_error, error)
    if flags & FLAG_FATAL and loop.idempotent:
        batch_failed(loop, b, error)
        shut_gate(loop.a, GATE_FATAL)
        post_values(loop, EVENT_FATAL, b.node_id, error, 0, 0)
        return
    batch_failed(loop, b, error)


cdef void post_split(kp_loop* loop, kp_batch* b) noexcept nogil:
    cdef kp_event* event = new_event(EVENT_SPLIT, b.node_id)
    if event == NULL:
        b.partition.splitting -= 1
        batch_failed(loop, b, CODE_MESSAGE_TOO_LARGE)
        return
    event.batch = b
    post_event(loop, event)


cdef void resolve(kp_loop* loop, kp_partition* p) noexcept nogil:
    """Start over with sequence 0 under a new epoch (KIP-360), once nothing is in flight and nothing is uncertain.

    The first batch of the retry list may still be of unknown fate: then it is sent again under its old sequence
    first, and the broker's answer tells. If it was not written, neither was any behind it, since the broker accepts
    no gaps.
    """
    cdef kp_batch* b = p.retry_head
    if b != NULL and b.producer_id >= 0 and b.uncertain:
        return
    if loop.producer_id < 0:
        return
    if p.producer_id == loop.producer_id:
        if p.producer_epoch == INT16_MAX:
            # Epochs are used up: a new producer id is the next start.
            loop.producer_id = -1
            want_producer_id(loop, 0)
            return
        p.producer_epoch += 1
    else:
        p.producer_id = loop.producer_id
        p.producer_epoch = loop.producer_epoch
    p.next_sequence = 0
    p.unresolved = 0
    while b != NULL:
        b.producer_id = -1
        b.uncertain = 0
        b.sealed = 0
        b = b.next


# ---------------------------------------------------------------------------------------- giving up

cdef inline int32_t stage_of(kp_batch* b) noexcept nogil:
    """A look at a batch's stage without its partition's lock: which stage of an open or closed one, is not certain.

    Into flight and out of it batches go under the loop's lock only.
    """
    return kp_load32_relaxed(&b.stage)


cdef int give_up(kp_loop* loop, kp_batch* b, int32_t error) noexcept nogil:
    """Fail a batch wherever it is. 0: not now, another thread works on its bytes."""
    cdef kp_partition* p = b.partition
    cdef int stage
    kp_latch_lock(&p.lock)
    stage = b.stage
    if stage == STAGE_COMPRESSING or stage == STAGE_SPLIT or stage == STAGE_DONE:
        kp_latch_unlock(&p.lock)
        return 0
    if b.in_queue:
        locked_queue_remove(p, b)
    b.stage = STAGE_DONE
    kp_latch_unlock(&p.lock)
    if stage == STAGE_IN_FLIGHT:
        # Its memory stays with the request until the response, or the end of the connection.
        flight_remove(p, b)
    elif stage == STAGE_RETRY:
        retry_remove(p, b)
    batch_failed(loop, b, error)
    return 1


cdef kp_batch* oldest_incomplete(kp_loop* loop) noexcept nogil:
    cdef kp_batch* b
    kp_mutex_lock(&loop.a.lock)
    b = loop.a.oldest
    kp_mutex_unlock(&loop.a.lock)
    return b


cdef kp_batch* newer_incomplete(kp_loop* loop, kp_batch* b) noexcept nogil:
    """The one after `b`: to be taken before `b` is decided, which takes it off the list."""
    cdef kp_batch* newer
    kp_mutex_lock(&loop.a.lock)
    newer = b.newer
    kp_mutex_unlock(&loop.a.lock)
    return newer


cdef int64_t expire(kp_loop* loop, int64_t now_us) noexcept nogil:
    """Fail what is older than delivery.timeout.ms. Returns when the next one will be, or INT64_MAX."""
    cdef kp_batch* b
    cdef kp_batch* newer
    cdef kp_partition* p
    b = oldest_incomplete(loop)
    while b != NULL and b.created_us + loop.delivery_timeout_us <= now_us:
        newer = newer_incomplete(loop, b)
        p = b.partition
        if give_up(loop, b, ERROR_EXPIRED):
            evaluate(loop, p, now_us)
        b = newer
    if b == NULL:
        return INT64_MAX
    return b.created_us + loop.delivery_timeout_us


cdef int waits_for(kp_batch* b, const kp_topic* topic, int32_t node_id) noexcept nogil:
    """Whether a batch is one of a topic (NULL: of any) that a leader (-1: any, or none) is still to be sent."""
    if stage_of(b) == STAGE_IN_FLIGHT or (topic != NULL and b.partition.topic != topic):
        return 0
    return node_id < 0 or (b.partition.broker != NULL and b.partition.broker.node_id == node_id)


cdef void fail_waiting(kp_loop* loop, const kp_topic* topic, int32_t node_id, int32_t error) noexcept nogil:
    """Give up every batch that waits_for() the topic and the leader."""
    cdef int64_t now_us = kp_monotonic_us()
    cdef kp_batch* b
    cdef kp_batch* newer
    cdef kp_partition* p
    kp_mutex_lock(&loop.lock)
    b = oldest_incomplete(loop)
    while b != NULL:
        newer = newer_incomplete(loop, b)
        # Once it is given up, another thread may let go of it.
        p = b.partition
        if waits_for(b, topic, node_id) and give_up(loop, b, error):
            if p.in_ready:
                # With nothing left there is no reason to connect any more.
                ready_remove(p.broker, p)
            evaluate(loop, p, now_us)
        b = newer
    kp_mutex_unlock(&loop.lock)
    wake_loop(loop.a, 0)
