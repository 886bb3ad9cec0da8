"""Produce requests and responses (API key 0, versions 3 to 13), without the GIL.

A request is a list of memory pieces for one gathering write: what lies between the batches is written into one frame
buffer, the batches stay where they are. Versions: 9 is flexible (compact lengths, tagged fields), 10 brings leader
hints (KIP-951), 12 is for transactions (KIP-890), 13 names topics by id (KIP-516).
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from kprod._core.cursor cimport (
    cursor_count, cursor_i16, cursor_i32, cursor_i64, cursor_skip_tags, cursor_string, cursor_take, cursor_uvarint,
    kp_cursor,
)
from kprod._core.endian cimport store_be16, store_be32
from kprod._core.platform cimport kp_iov, kp_iov_set, kp_prefetch
from kprod._core.structs cimport kp_batch, kp_request, kp_topic
from kprod._core.varint cimport write_uvarint

cdef enum:
    # The most that header, per-topic and per-partition fields take beside names.
    REQUEST_BOUND = 64
    TOPIC_BOUND = 40
    PARTITION_BOUND = 16
    # A batch of up to so many bytes is copied behind what stands before it: that is cheaper than a piece of its own.
    COPIED_MAX = 1024
    # What is read ahead: so many batches further on, so many bytes.
    AHEAD = 4
    AHEAD_BYTES = 256


cdef inline uint8_t* write_nullable_string(uint8_t* p, const char* s, int32_t length, int flexible) noexcept nogil:
    if flexible:
        p = write_uvarint(p, <uint32_t>(length + 1))
    else:
        store_be16(p, <int16_t>length)
        p += 2
    if length > 0:
        memcpy(p, s, length)
        p += length
    return p


cdef inline uint8_t* write_count(uint8_t* p, int32_t n, int flexible) noexcept nogil:
    if flexible:
        return write_uvarint(p, <uint32_t>(n + 1))
    store_be32(p, n)
    return p + 4


cdef void group_by_topic(kp_batch** batches, int32_t n) noexcept nogil:
    """Bring batches of one topic together; stable, and linear when they are together already."""
    cdef int32_t i, j
    cdef kp_batch* b
    for i in range(1, n):
        b = batches[i]
        j = i
        while j > 0 and batches[j - 1].partition.topic.number > b.partition.topic.number:
            batches[j] = batches[j - 1]
            j -= 1
        batches[j] = b


cdef kp_request* build_produce_request(const kp_produce_settings* settings, int16_t version, int16_t acks,
                                       kp_batch** batches, int32_t n) noexcept nogil:
    """One request of sealed batches, at most one per partition. Takes the array's content, not the array.

    Bytes 8 to 12 of the frame, the correlation id, are left for the connection. NULL: no memory.
    """
    cdef int flexible = version >= 9
    cdef kp_request* request
    cdef int64_t bound = REQUEST_BOUND + settings.client_id_length + settings.transactional_id_length
    cdef int64_t size
    cdef int32_t i, j, topics = 0, pieces = 0
    cdef kp_topic* topic
    cdef kp_iov* iov
    cdef uint8_t* p
    cdef uint8_t* piece
    group_by_topic(batches, n)
    for i in range(n):
        if i == 0 or batches[i].partition.topic != batches[i - 1].partition.topic:
            topics += 1
            bound += TOPIC_BOUND + batches[i].partition.topic.name_length
        bound += PARTITION_BOUND
        if batches[i].length <= COPIED_MAX:
            bound += batches[i].length
    request = <kp_request*>calloc(1, sizeof(kp_request))
    if request == NULL:
        return NULL
    request.frame = <uint8_t*>malloc(bound)
    request.batches = <kp_batch**>malloc(n * sizeof(void*))
    request.iov = malloc((2 * n + 1) * sizeof(kp_iov))
    if request.frame == NULL or request.batches == NULL or request.iov == NULL:
        free_request(request)
        return NULL
    memcpy(request.batches, batches, n * sizeof(void*))
    request.n_batches = n
    request.is_produce = 1
    request.version = version
    request.acks = acks
    request.expects_response = acks != 0
    iov = <kp_iov*>request.iov
    p = request.frame
    piece = p
    size = 0
    store_be16(p + 4, 0)
    store_be16(p + 6, version)
    p = write_nullable_string(p + 12, settings.client_id, settings.client_id_length, 0)
    if flexible:
        p[0] = 0                # tagged fields of the header
        p += 1
    p = write_nullable_string(p, settings.transactional_id, settings.transactional_id_length, flexible)
    store_be16(p, acks)
    store_be32(p + 2, settings.timeout_ms)
    p = write_count(p + 6, topics, flexible)
    i = 0
    while i < n:
        topic = batches[i].partition.topic
        j = i
        while j < n and batches[j].partition.topic == topic:
            j += 1
        if version >= 13:
            memcpy(p, topic.id, 16)
            p += 16
        else:
            p = write_nullable_string(p, topic.name, topic.name_length, flexible)
        p = write_count(p, j - i, flexible)
        while i < j:
            store_be32(p, batches[i].partition.index)
            p += 4
            if flexible:
                p = write_uvarint(p, <uint32_t>(batches[i].length + 1))
            else:
                store_be32(p, <int32_t>batches[i].length)
                p += 4
            if batches[i].length <= COPIED_MAX:
                if i + AHEAD < n:
                    kp_prefetch(batches[i + AHEAD].data, AHEAD_BYTES)
                memcpy(p, batches[i].data, batches[i].length)
                p += batches[i].length
            else:
                kp_iov_set(&iov[pieces], piece, p - piece)
                kp_iov_set(&iov[pieces + 1], batches[i].data, batches[i].length)
                pieces += 2
                size += (p - piece) + batches[i].length
                piece = p
            if flexible:
                p[0] = 0        # tagged fields of the partition
                p += 1
            i += 1
        if flexible:
            p[0] = 0            # tagged fields of the topic
            p += 1
    if flexible:
        p[0] = 0                # tagged fields of the request
        p += 1
    if p != piece:
        kp_iov_set(&iov[pieces], piece, p - piece)
        pieces += 1
        size += p - piece
    request.frame_length = p - request.frame
    request.n_iov = pieces
    request.size = size
    store_be32(request.frame, <int32_t>(size - 4))
    return request


cdef void free_request(kp_request* request) noexcept nogil:
    if request == NULL:
        return
    free(request.frame)
    free(request.batches)
    free(request.iov)
    free(request)


# ------------------------------------------------------------------------------------------------ responses

cdef int open_produce_response(kp_cursor* c, int16_t version, int32_t* n_topics) noexcept nogil:
    """After the correlation id: the rest of the header and the number of topics. 0: malformed."""
    if version >= 9:
        cursor_skip_tags(c)
    n_topics[0] = cursor_count(c, version >= 9)
    return not c.bad


cdef int next_topic(kp_cursor* c, int16_t version, kp_partition_response* out, int32_t* n_partitions) noexcept nogil:
    if version >= 13:
        out.topic_id = cursor_take(c, 16)
        out.topic_name = NULL
        out.topic_name_length = -1
    else:
        out.topic_id = NULL
        out.topic_name = cursor_string(c, version >= 9, &out.topic_name_length)
        if out.topic_name == NULL:
            c.bad = 1
    n_partitions[0] = cursor_count(c, version >= 9)
    return not c.bad


cdef int next_partition(kp_cursor* c, int16_t version, kp_partition_response* out) noexcept nogil:
    cdef int flexible = version >= 9
    cdef int32_t i, length
    cdef uint32_t tags, tag
    cdef int64_t size
    cdef kp_cursor field
    cdef const uint8_t* data
    out.index = cursor_i32(c)
    out.error = cursor_i16(c)
    out.base_offset = cursor_i64(c)
    out.log_append_time = cursor_i64(c)
    if version >= 5:
        cursor_i64(c)           # log start offset
    out.n_record_errors = 0
    out.record_errors = NULL
    out.error_message = NULL
    out.error_message_length = -1
    out.leader_id = -1
    out.leader_epoch = -1
    if version >= 8:
        out.n_record_errors = cursor_count(c, flexible)
        out.record_errors = c.p
        i = 0
        while i < out.n_record_errors and not c.bad:
            cursor_i32(c)
            cursor_string(c, flexible, &length)
            if flexible:
                cursor_skip_tags(c)
            i += 1
        out.error_message = cursor_string(c, flexible, &out.error_message_length)
    if flexible:
        tags = cursor_uvarint(c)
        while tags > 0 and not c.bad:
            tag = cursor_uvarint(c)
            size = cursor_uvarint(c)
            data = cursor_take(c, size)
            if tag == 0 and version >= 10 and data != NULL:
                field.p = data
                field.end = data + size
                field.bad = 0
                out.leader_id = cursor_i32(&field)
                out.leader_epoch = cursor_i32(&field)
                if field.bad:
                    c.bad = 1
            tags -= 1
    return not c.bad


cdef int close_topic(kp_cursor* c, int16_t version) noexcept nogil:
    if version >= 9:
        cursor_skip_tags(c)
    return not c.bad


cdef int close_produce_response(kp_cursor* c, int16_t version, int32_t* throttle_ms, const uint8_t** endpoints,
                                int64_t* endpoints_length) noexcept nogil:
    """The end of the body. `endpoints`: the bytes of the tagged field node_endpoints (KIP-951), or NULL."""
    cdef uint32_t tags, tag
    cdef int64_t size
    cdef const uint8_t* data
    throttle_ms[0] = cursor_i32(c)
    endpoints[0] = NULL
    endpoints_length[0] = 0
    if version >= 9:
        tags = cursor_uvarint(c)
        while tags > 0 and not c.bad:
            tag = cursor_uvarint(c)
            size = cursor_uvarint(c)
            data = cursor_take(c, size)
            if tag == 0 and version >= 10 and data != NULL:
                endpoints[0] = data
                endpoints_length[0] = size
            tags -= 1
    return not c.bad


cdef int next_record_error(kp_cursor* c, int16_t version, int32_t* index, const uint8_t** message,
                           int32_t* length) noexcept nogil:
    index[0] = cursor_i32(c)
    message[0] = cursor_string(c, version >= 9, length)
    if version >= 9:
        cursor_skip_tags(c)
    return not c.bad


def parse_response(bytes frame, int version):
    """Parse a produce response (from its correlation id on) as the network loop does. For tests and fuzzing.

    Returns:
        (correlation id, [(topic name or id, partition, error, base offset, log append time, [(index, message)],
        message, leader id, leader epoch)], throttle time in ms, node endpoints bytes or None)

    Raises:
        ValueError: the frame is malformed.
    """
    cdef kp_cursor c
    cdef kp_cursor errors
    cdef kp_partition_response r
    cdef int32_t n_topics = 0, n_partitions = 0, throttle = 0, index = 0, length = 0
    cdef const uint8_t* endpoints = NULL
    cdef const uint8_t* message = NULL
    cdef int64_t endpoints_length = 0
    c.p = <const uint8_t*><const char*>frame
    c.end = c.p + len(frame)
    c.bad = 0
    rows = []
    correlation_id = cursor_i32(&c)
    if not open_produce_response(&c, version, &n_topics):
        raise ValueError("malformed produce response header")
    for _ in range(n_topics):
        if not next_topic(&c, version, &r, &n_partitions):
            raise ValueError("malformed topic in a produce response")
        topic = r.topic_name[:r.topic_name_length] if r.topic_name != NULL else r.topic_id[:16]
        for _ in range(n_partitions):
            if not next_partition(&c, version, &r):
                raise ValueError("malformed partition in a produce response")
            errors.p = r.record_errors
            errors.end = c.end
            errors.bad = 0
            named = []
            for _ in range(r.n_record_errors):
                next_record_error(&errors, version, &index, &message, &length)
                named.append((index, bytes(message[:length]) if message != NULL else None))
            text = bytes(r.error_message[:r.error_message_length]) if r.error_message != NULL else None
            rows.append((bytes(topic), r.index, r.error, r.base_offset, r.log_append_time, named, text,
                         r.leader_id, r.leader_epoch))
        if not close_topic(&c, version):
            raise ValueError("malformed topic in a produce response")
    if not close_produce_response(&c, version, &throttle, &endpoints, &endpoints_length):
        raise ValueError("malformed end of a produce response")
    return correlation_id, rows, throttle, bytes(endpoints[:endpoints_length]) if endpoints != NULL else None
