# Turns of the loop that another thread does: one that sends a record and waits for it.
#
# Between a thread that waits for one record at a time and the broker stand two hand-overs, to the loop's thread and
# back, each as long as the system takes to wake a thread: together they can take longer than the broker does. All that
# the loop does is done under its lock, so while its thread sleeps in poll() another one can do it instead. This is only
# for who waits anyway: it is tried by a send() after a record that was waited for, and in DeliveryFuture.get().

cdef enum:
    SHARED_TURNS_US = 1000000  # for so long after such a turn ...
    SHARED_SLEEP_US = 500000   # ... the loop sleeps at most this: less than until what such a turn finds to do later
    SHARED_WAIT_MS = 2         # a thread in get() waits at the socket for so long at a time
    LEFT_TO_READER_US = 500    # how long the network thread waits for a thread that was to read
    ALONE_US = 1000000         # after one that came late the network thread reads by itself for so long


cdef int locked_shared_turn(kp_loop* loop) noexcept nogil:
    """Take the loop's turn while its thread sleeps. 0: it has to wake up nevertheless."""
    cdef kp_broker* broker = loop.brokers
    cdef int64_t next_us
    if loop.stopping:
        return 0
    loop.totals.shared_turns += 1
    next_us = take_turn(loop)
    loop.shared_until_us = kp_monotonic_us() + SHARED_TURNS_US
    if next_us < kp_load64(&loop.a.sleeps_until_us):
        return 0
    while broker != NULL:
        if broker.state == CONNECTION_UP and has_output(broker):
            return 0            # somebody has to wait until the socket takes the rest
        broker = broker.next
    return 1


cdef int send_by_caller(void* shared) noexcept nogil:
    """Send what was just appended. 0: the loop has to be woken for it."""
    cdef kp_loop* loop = <kp_loop*>shared
    cdef int done
    if kp_load64(&loop.a.sleeps_until_us) == 0 or not kp_mutex_trylock(&loop.lock):
        return 0
    done = locked_shared_turn(loop)
    kp_mutex_unlock(&loop.lock)
    return done


cdef int is_left_to_reader(kp_loop* loop, kp_broker* broker, int64_t now_us) noexcept nogil:
    """Whether what a socket has is read by the thread that waits for it, which was woken as well; for a moment."""
    if broker != loop.shared_broker or not kp_load32(&loop.shared_reader):
        return 0
    if loop.left_since_us == 0:
        loop.left_since_us = now_us
    elif now_us - loop.left_since_us >= LEFT_TO_READER_US:
        # It does not get a CPU: another thread that it gave the GIL to has it, and is likely to have it the next time.
        loop.left_since_us = 0
        kp_store64(&loop.alone_until_us, now_us + ALONE_US)
        return 0
    return 1


cdef int is_leaving(kp_loop* loop, int64_t now_us) noexcept nogil:
    """Whether the loop goes on leaving that; if not, it looks at the socket again."""
    if loop.left_since_us == 0:
        return 0
    if not kp_load32(&loop.shared_reader):
        loop.left_since_us = 0
        return 0
    return now_us - loop.left_since_us < LEFT_TO_READER_US


cdef int wait_on_network(kp_batch* b, int64_t most_us) noexcept nogil:
    """Wait for the answer to the request that a batch is in, for a moment, and handle it.

    The caller has a reference to the Batch, which keeps the loop (through its reporter). Returns 0, with nothing done,
    where another thread waits like this already, or there is no request, or the network thread is better left alone.
    """
    cdef kp_broker* broker = <kp_broker*>kp_load_ptr(<void**>&b.partition.broker)
    cdef kp_loop* loop
    cdef kp_pollfd watched
    cdef intptr_t fd = -1
    cdef int64_t generation
    cdef int done = 1
    if broker == NULL or most_us < 1000:
        return 0
    loop = <kp_loop*>broker.loop
    if kp_load32(&loop.a.gate) == GATE_FORKED:
        return 0                # the socket is the parent's
    kp_store32_relaxed(&loop.a.waited, 1)
    if kp_monotonic_us() < kp_load64(&loop.alone_until_us) or kp_exchange32(&loop.shared_reader, 1):
        return 0
    kp_mutex_lock(&loop.lock)
    if broker.state == CONNECTION_UP and broker.wait_head != NULL and kp_load32_relaxed(&b.stage) == STAGE_IN_FLIGHT:
        fd = broker.fd
        loop.shared_broker = broker
        loop.left_since_us = 0
    generation = broker.generation
    kp_mutex_unlock(&loop.lock)
    if fd != -1:
        # If the connection is closed meanwhile, and the number is another's by then, this wakes up early or late.
        kp_pollfd_set(&watched, fd, 0)
        if (kp_poll(&watched, 1, <int>min(most_us // 1000, <int64_t>SHARED_WAIT_MS)) > 0
                and kp_mutex_trylock(&loop.lock)):
            if broker.generation == generation and broker.state == CONNECTION_UP:
                loop.left_since_us = 0
                read_all(loop, broker, kp_monotonic_us())
                done = locked_shared_turn(loop)
            kp_mutex_unlock(&loop.lock)
            if not done:
                wake_loop(loop.a, 0)
    kp_store32(&loop.shared_reader, 0)
    return fd != -1


set_network_wait(wait_on_network)
