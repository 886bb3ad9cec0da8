# Events: what the network loop tells the control thread. They are taken by NetworkLoop.wait_events().

cdef kp_event* new_event(int32_t kind, int32_t node_id) noexcept nogil:
    cdef kp_event* event = <kp_event*>calloc(1, sizeof(kp_event))
    if event != NULL:
        event.kind = kind
        event.node_id = node_id
    return event


cdef void post_event(kp_loop* loop, kp_event* event) noexcept nogil:
    if event == NULL:
        return
    kp_mutex_lock(&loop.event_lock)
    if loop.event_tail == NULL:
        loop.event_head = event
    else:
        loop.event_tail.next = event
    loop.event_tail = event
    kp_cond_signal(&loop.event_cond)
    kp_mutex_unlock(&loop.event_lock)


cdef void post_values(kp_loop* loop, int32_t kind, int32_t node_id, int32_t value1, int32_t value2,
                      int32_t value3) noexcept nogil:
    cdef kp_event* event = new_event(kind, node_id)
    if event != NULL:
        event.value1 = value1
        event.value2 = value2
        event.value3 = value3
        post_event(loop, event)


cdef void post_data(kp_loop* loop, int32_t kind, int32_t node_id, int64_t generation, int64_t token, int32_t value1,
                    const uint8_t* data, int64_t length) noexcept nogil:
    cdef kp_event* event = new_event(kind, node_id)
    if event == NULL:
        return
    event.generation = generation
    event.token = token
    event.value1 = value1
    event.data = <uint8_t*>malloc(length if length > 0 else 1)
    if event.data == NULL:
        free(event)
        return
    memcpy(event.data, data, length)
    event.length = length
    post_event(loop, event)


cdef void want_refresh(kp_loop* loop, int32_t error) noexcept nogil:
    # One at a time: the control thread lowers the mark when it has new metadata.
    if not loop.refresh_wanted:
        loop.refresh_wanted = 1
        post_values(loop, EVENT_REFRESH, -1, error, 0, 0)


cdef void want_producer_id(kp_loop* loop, int32_t error) noexcept nogil:
    if not loop.producer_id_wanted:
        loop.producer_id_wanted = 1
        post_values(loop, EVENT_PRODUCER_ID, -1, error, 0, 0)
