"""Appending one record, the part that runs for each of them (header-only, inlined into send()).

What an append needs once per batch is Accumulator.append_further().
"""
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport INT32_MAX, INT32_MIN, int32_t, int64_t, uint32_t

from kprod._core.accumulator cimport (
    Accumulator, Topic, choose_sticky, kp_accumulator, locked_close_open, locked_grow, locked_object_slots,
    met_at_sticky,
)
from kprod._core.platform cimport (
    kp_clock_us, kp_latch_met, kp_latch_unlock, kp_load64_relaxed, kp_load_ptr, kp_prefetch_line,
)
from kprod._core.record_batch cimport kp_record, write_record
from kprod._core.structs cimport kp_batch, kp_partition, kp_record_info
from kprod._core.varint cimport varint_size

# What one try at an append came to.
cdef enum:
    APPENDED = 0
    APPENDED_AND_CLOSED = 1    # the batch is full now and wants nothing more
    NO_OPEN_BATCH = 2


cdef inline int locked_append(kp_accumulator* a, kp_partition* p, kp_record* r, int64_t now_us, PyObject* on_delivery,
                              PyObject* headers, PyObject** owner, int32_t* index) noexcept:
    """Write a record into the partition's open batch; takes references to what it keeps. See APPENDED.

    Runs with the GIL (it counts references) but makes and releases no object. Unless the record is APPENDED the batch
    that was open, if any, is closed.
    """
    cdef kp_batch* b = p.open
    cdef PyObject* batch
    cdef int64_t delta, body, total, limit, age
    cdef int32_t count
    cdef kp_record_info* info
    if b == NULL:
        return NO_OPEN_BATCH
    limit = p.topic.batch_size
    count = b.count
    delta = r.timestamp - b.base_timestamp
    body = r.fixed_size + varint_size(delta) + varint_size(count)
    total = varint_size(body) + body
    if (delta > INT32_MAX or delta < INT32_MIN or (count > 0 and b.length + total > limit)
            or ((b.length + total > b.capacity or count == b.info_capacity) and not locked_grow(a, b, total, limit))
            or (on_delivery != NULL and b.callbacks_capacity < b.info_capacity
                and not locked_object_slots(a, b, &b.callbacks, &b.callbacks_capacity))
            or (headers != NULL and b.headers_capacity < b.info_capacity
                and not locked_object_slots(a, b, &b.headers, &b.headers_capacity))):
        locked_close_open(p)
        return NO_OPEN_BATCH
    write_record(b.data + b.length, r, body, delta, count)
    b.length += total
    info = &b.info[count]
    info.key_size = <int32_t>r.key_size
    info.value_size = <int32_t>r.value_size
    info.header_size = r.header_size
    info.timestamp_delta = <int32_t>delta
    age = now_us - b.created_us
    info.append_delta = <uint32_t>(age if age > 0 else 0)
    if on_delivery != NULL:
        if count == 0 or b.callbacks[count - 1] != on_delivery:
            Py_INCREF(<object>on_delivery)
        b.callbacks[count] = on_delivery
    if headers != NULL:
        Py_INCREF(<object>headers)
        b.headers[count] = headers
    if total > b.largest:
        b.largest = <int32_t>total
    if r.timestamp > b.max_timestamp:
        b.max_timestamp = r.timestamp
    if owner != NULL:
        # From a variable, or Cython counts one more, and less again.
        batch = b.owner
        Py_INCREF(<object>batch)
        owner[0] = batch
        index[0] = count
    else:
        b.unattended |= on_delivery == NULL
    b.count = count + 1
    if b.length + total > limit:
        # Another record like this one would not fit.
        locked_close_open(p)
        return APPENDED_AND_CLOSED
    return APPENDED


cdef inline int append(Accumulator accumulator, Topic topic, int32_t partition, kp_record* r, PyObject* on_delivery,
                       PyObject* headers, double max_block_s, PyObject** owner, int32_t* index) except -1:
    """Put one record into its partition's open batch.

    `partition` is -1 for the sticky choice, a negative timestamp stands for the present, NULL for no callback and no
    headers to keep. `owner`, unless it is NULL, gets a new reference to the Batch that the record is in, and `index`
    its place there. Waits up to `max_block_s` seconds when buffer.memory is used up.
    """
    cdef kp_accumulator* a = &accumulator.a
    cdef int auto_timestamp = r.timestamp < 0
    cdef int32_t chosen = partition if partition >= 0 else choose_sticky(&topic.t)
    cdef kp_partition* p = (<kp_partition**>kp_load_ptr(<void**>&topic.t.partitions))[chosen]
    cdef kp_batch* before
    cdef int64_t now_us
    cdef int result, met
    kp_prefetch_line(p)
    now_us = kp_clock_us(&a.clock)
    if auto_timestamp:
        r.timestamp = now_us // 1000 + kp_load64_relaxed(&a.wall_offset_ms)
    met = kp_latch_met(&p.lock)
    before = p.open
    result = locked_append(a, p, r, now_us, on_delivery, headers, owner, index)
    kp_latch_unlock(&p.lock)
    if met and partition < 0:
        met_at_sticky(&topic.t, 1)
    if result == APPENDED:
        return 0
    return accumulator.append_further(topic, partition, r, on_delivery, headers, max_block_s, owner, index, now_us,
                                      auto_timestamp, chosen, before, result)
