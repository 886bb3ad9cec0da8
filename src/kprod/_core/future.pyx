"""Batches as Python objects, and what refers to one record of a batch: futures and delivery reports.

A future is its batch and an index; offset, timestamp, sizes and exceptions are worked out when somebody asks. The
outcome of a batch is written by the network thread without the GIL, so ``done()`` is true before any Python code ran,
and a thread in ``get()`` is woken by the network thread itself.
"""
from collections import namedtuple
from functools import partial

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from kprod._core.platform cimport (
    kp_add32, kp_cond, kp_cond_broadcast, kp_cond_init, kp_cond_wait_us, kp_load32, kp_load32_relaxed,
    kp_monotonic_us, kp_mutex, kp_mutex_destroy, kp_mutex_init, kp_mutex_lock, kp_mutex_unlock, kp_store32,
)
from kprod._core.structs cimport (
    ERROR_SIBLING_RECORD, ERROR_WAIT_TIMED_OUT, OUTCOME_ACKED, OUTCOME_FAILED, OUTCOME_PENDING, OUTCOME_SPLIT,
    kp_batch, kp_late_callback, release_callbacks, release_info,
)

cdef extern from "Python.h":
    int is_bound_method "PyMethod_Check"(PyObject* o)
    PyObject* method_function "PyMethod_GET_FUNCTION"(PyObject* method)
    PyObject* method_self "PyMethod_GET_SELF"(PyObject* method)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    PyObject* PyObject_Vectorcall(PyObject* callable, PyObject** arguments, size_t n, PyObject* names)

cdef enum:
    STRIPES = 32
    # Blocking waits return to Python this often, so that Ctrl-C works.
    WAIT_SLICE_US = 100000
    # So often a thread waits for the answer at the socket before it leaves that to the network thread.
    NETWORK_LOOKS = 5

# Threads in DeliveryFuture.get() wait on one of these, chosen by their batch.
cdef kp_mutex stripe_lock[STRIPES]
cdef kp_cond stripe_cond[STRIPES]
cdef int stripe
for stripe in range(STRIPES):
    kp_mutex_init(&stripe_lock[stripe])
    kp_cond_init(&stripe_cond[stripe])

PERSISTED = ("no", "possibly", "yes")

cdef network_wait wait_on_network = NULL


cdef void set_network_wait(network_wait function):
    global wait_on_network
    wait_on_network = function


cdef void wait_for_outcome(kp_batch* b, int64_t until_us, int* looks) noexcept nogil:
    """Wait until a batch may have an outcome: up to `looks` times at the socket, else to be woken.

    All of it in one go: between two steps with the GIL a thread that spins would take it for milliseconds.
    """
    cdef int i = stripe_of(b)
    cdef int64_t left
    while True:
        left = until_us - kp_monotonic_us()
        if left <= 0 or kp_load32(&b.outcome) != OUTCOME_PENDING:
            return
        if looks[0] == 0 or wait_on_network == NULL:
            break
        looks[0] = looks[0] - 1 if wait_on_network(b, left) else 0
    kp_add32(&b.waiters, 1)
    kp_mutex_lock(&stripe_lock[i])
    if kp_load32(&b.outcome) == OUTCOME_PENDING:
        kp_cond_wait_us(&stripe_cond[i], &stripe_lock[i], left)
    kp_mutex_unlock(&stripe_lock[i])
    kp_add32(&b.waiters, -1)


# The module kprod.greenlets: how to wait where gevent runs.
cdef object greenlets = None


def set_greenlets(module):
    """Hand over what says whether gevent's hub runs in a thread, and waits in it: kprod.greenlets."""
    global greenlets
    greenlets = module


cdef object running_hub():
    return None if greenlets is None else greenlets.running_hub()


cdef object waiting_functions():
    return greenlets

PlainRecordMetadata = namedtuple(
    "PlainRecordMetadata",
    "topic partition topic_partition offset timestamp checksum serialized_key_size serialized_value_size "
    "serialized_header_size",
    module=__name__,           # pickle looks it up there
)
PlainRecordMetadata.__doc__ = "What a pickled RecordMetadata becomes."


cdef int32_t find_record_error(kp_batch* b, int32_t index) noexcept nogil:
    """Where the broker's words on a record are in `record_errors`, which are in order; -1: nowhere."""
    cdef int32_t low = 0
    cdef int32_t high = b.n_record_errors
    cdef int32_t middle
    while low < high:
        middle = (low + high) // 2
        if b.record_errors[middle].index < index:
            low = middle + 1
        else:
            high = middle
    return low if low < b.n_record_errors and b.record_errors[low].index == index else -1


cdef inline int stripe_of(kp_batch* b) noexcept nogil:
    return <int>((<uintptr_t>b >> 7) % STRIPES)


cdef void publish_outcome(kp_batch* b, int32_t outcome) noexcept nogil:
    """Make the outcome of a batch visible and wake who waits for it. Every other result field is written before."""
    cdef int i
    kp_store32(&b.outcome, outcome)
    # A waiter raises `waiters` and then reads `outcome`; both are sequentially consistent, so either it sees the
    # outcome or we see the waiter.
    if kp_load32(&b.waiters) > 0:
        i = stripe_of(b)
        # With the lock once in hand, who saw no outcome is waiting by now. Woken after it is free, threads do not
        # run into it and go to sleep again.
        kp_mutex_lock(&stripe_lock[i])
        kp_mutex_unlock(&stripe_lock[i])
        kp_cond_broadcast(&stripe_cond[i])


@cython.final
@cython.no_gc            # refers to the Topic and callbacks only; callbacks are dropped at delivery, so no cycle lasts
@cython.freelist(512)
cdef class Batch:
    """A record batch, from its first record to its delivery. Made by the accumulator."""

    def __cinit__(self):
        # The object's memory is cleared, whether it is new or comes from the free list.
        kp_mutex_init(&self.b.lock)

    def __dealloc__(self):
        self.release()

    cdef void clear(self):
        """Make it as good as new. Nobody else may refer to it."""
        self.release()
        self.topic = None
        self.topic_name = None
        self.reporter = None
        self.children = None
        memset(&self.b, 0, sizeof(kp_batch))
        kp_mutex_init(&self.b.lock)

    cdef void release(self):
        """Let go of everything that `b` owns."""
        cdef int32_t i
        self.drop_callbacks()
        kp_mutex_destroy(&self.b.lock)
        release_info(&self.b)
        free(self.b.late)
        free(self.b.error_message)
        for i in range(self.b.n_record_errors):
            free(self.b.record_errors[i].message)
        free(self.b.record_errors)

    cdef void drop_callbacks(self):
        """Release what the batch holds of the application's objects. Needs the GIL."""
        cdef int32_t i
        cdef PyObject** objects
        objects = self.b.callbacks
        self.b.callbacks = NULL
        if objects != NULL:
            for i in range(min(self.b.count, self.b.callbacks_capacity)):
                if i == 0 or objects[i] != objects[i - 1]:
                    Py_XDECREF(objects[i])
            release_callbacks(&self.b, objects)
        for i in range(self.b.n_late):
            Py_XDECREF(self.b.late[i].callback)
        self.b.n_late = 0
        objects = self.b.headers
        self.b.headers = NULL
        if objects != NULL:
            for i in range(min(self.b.count, self.b.headers_capacity)):
                Py_XDECREF(objects[i])
            free(objects)

    cdef object make_error(self, int32_t index):
        """The exception of one record of a failed batch."""
        cdef int32_t i
        cdef int32_t code = self.b.error
        message = self.b.error_message.decode("utf-8", "replace") if self.b.error_message != NULL else None
        if self.b.n_record_errors > 0 and index >= 0:
            # KIP-467: only the records that are named were refused for themselves.
            i = find_record_error(&self.b, index)
            if i < 0:
                code = ERROR_SIBLING_RECORD
            elif self.b.record_errors[i].message != NULL:
                message = self.b.record_errors[i].message.decode("utf-8", "replace")
        return self.reporter.delivery_error(
            code, message, self.topic_name, self.b.partition.index, self.b.node_id, PERSISTED[self.b.persisted],
            self.b.attempts, (self.b.completed_us - self.b.created_us) / 1000.0, self.b.last_error, self.b.count)

    cdef object make_error_code(self, int32_t code):
        return self.reporter.delivery_error(
            code, None, self.topic_name, self.b.partition.index, kp_load32_relaxed(&self.b.node_id),
            "possibly" if kp_load32_relaxed(&self.b.attempts) else "no", kp_load32_relaxed(&self.b.attempts),
            (kp_monotonic_us() - self.b.created_us) / 1000.0, kp_load32_relaxed(&self.b.last_error),
            kp_load32_relaxed(&self.b.count))

    cdef int deliver(self) except -1:
        """Run the callbacks of every record, in order. Runs on the delivery thread; never raises for a callback."""
        cdef int32_t n_late, at
        cdef kp_late_callback* late
        if self.b.unattended and self.b.outcome == OUTCOME_FAILED:
            self.reporter.unattended_failure(self.b.error, self.make_error(-1), self.b.count)
        if self.b.callbacks != NULL:
            self.run_callbacks()
        # Late callbacks may be added while these run: take them in turns until none is left.
        while True:
            kp_mutex_lock(&self.b.lock)
            late = self.b.late
            n_late = self.b.n_late
            self.b.late = NULL
            self.b.n_late = 0
            self.b.late_capacity = 0
            if n_late == 0:
                self.b.delivered = 1
            kp_mutex_unlock(&self.b.lock)
            if n_late == 0:
                free(late)
                break
            order = sorted(range(n_late), key=[late[i].index for i in range(n_late)].__getitem__)
            for at in order:
                callback = <object>late[at].callback
                run_late_callback(self, late[at].index, late[at].kind, callback)
                Py_DECREF(callback)
            free(late)
        return 0

    cdef int run_callbacks(self) except -1:
        cdef int acked = self.b.outcome == OUTCOME_ACKED
        cdef int32_t i
        cdef PyObject** callbacks = self.b.callbacks
        cdef PyObject* result
        cdef PyObject* arguments[4]         # the first place is for the callee, the second for a method's receiver
        cdef RecordMetadata metadata = None
        cdef object error = None
        if not acked and self.b.n_record_errors == 0:
            error = self.make_error(-1)
        for i in range(min(self.b.count, self.b.callbacks_capacity)):
            if callbacks[i] == NULL:
                continue
            if metadata is not None and kp_only_reference(<PyObject*>metadata):
                # The last callback has not kept it: nobody can tell it from a new one.
                metadata.index = i
            else:
                metadata = new_metadata(self, i)
            if not acked and self.b.n_record_errors > 0:
                error = self.make_error(i)
            arguments[2] = <PyObject*>error
            arguments[3] = <PyObject*>metadata
            if is_bound_method(callbacks[i]):
                # What the method object would do itself, in a call of its own.
                arguments[1] = method_self(callbacks[i])
                result = PyObject_Vectorcall(method_function(callbacks[i]), arguments + 1,
                                             3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
            else:
                result = PyObject_Vectorcall(callbacks[i], arguments + 2, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
            if result != NULL:
                Py_DECREF(<object>result)
            else:
                report_pending(<object>callbacks[i], metadata)
        return 0


cdef int raise_pending() except -1:
    # With -1 Cython takes it that an exception is set, as it is: the caller can catch it.
    return -1


cdef void report_pending(object callback, RecordMetadata metadata) noexcept:
    """A callback that was called from C returned NULL."""
    try:
        raise_pending()
    except BaseException as raised:
        report_callback_failure(callback, raised, metadata)


cdef report_callback_failure(object callback, object raised, RecordMetadata metadata):
    import logging      # by now the engine has it; `import kprod` does without

    # SystemExit and KeyboardInterrupt have no meaning on this thread either: delivery goes on.
    logging.getLogger("kprod.delivery").error(
        "delivery callback %r failed for %s-%d", callback, metadata.batch.topic_name,
        metadata.batch.b.partition.index, exc_info=(type(raised), raised, raised.__traceback__))


cdef int run_late_callback(Batch batch, int32_t index, int32_t kind, object callback) except -1:
    cdef int acked = batch.b.outcome == OUTCOME_ACKED
    cdef RecordMetadata metadata = new_metadata(batch, index)
    try:
        if kind == CALLBACK_DONE:
            callback(new_future(batch, index))
        elif acked:
            if kind != CALLBACK_ERROR:
                callback(metadata)
        elif kind != CALLBACK_SUCCESS:
            callback(batch.make_error(index))
    except BaseException as raised:
        report_callback_failure(callback, raised, metadata)
    return 0


cdef inline RecordMetadata new_metadata(Batch batch, int32_t index):
    cdef RecordMetadata metadata = RecordMetadata.__new__(RecordMetadata)
    metadata.batch = batch
    metadata.index = index
    return metadata


cdef inline DeliveryFuture new_future(Batch batch, int32_t index):
    cdef DeliveryFuture future = DeliveryFuture.__new__(DeliveryFuture)
    future.batch = batch
    future.index = index
    return future


@cython.final
@cython.no_gc            # refers to its Batch only
@cython.freelist(1024)
cdef class DeliveryFuture:
    """What becomes of one record that ``send()`` accepted.

    It ends in exactly one of: acknowledged (``get()`` returns a RecordMetadata) or failed (``get()`` raises the
    error). Has kafka-python's names (``get``, ``is_done``, ``succeeded``, ``add_callback`` ...), those of
    concurrent.futures (``result``, ``done``, ``add_done_callback``), and can be awaited under asyncio.
    """

    def __init__(self):
        raise TypeError("DeliveryFuture objects are made by KafkaProducer.send()")

    cdef Batch whereabouts(self, int32_t* index):
        """The batch that the record is in, and its `index` there: after a split it lives in a child batch, for good.

        The future itself stays as it was made, so that any number of threads can look at it without a lock.
        """
        cdef Batch batch = self.batch
        cdef int32_t at = self.index
        while kp_load32(&batch.b.outcome) == OUTCOME_SPLIT:
            for first, child in reversed(batch.children):
                if first <= at:
                    at -= <int32_t>first
                    batch = child
                    break
        index[0] = at
        return batch

    cdef int32_t outcome(self):
        cdef int32_t outcome = kp_load32(&self.batch.b.outcome)
        cdef int32_t index
        cdef Batch batch
        while outcome == OUTCOME_SPLIT:
            batch = self.whereabouts(&index)
            outcome = kp_load32(&batch.b.outcome)
        return outcome

    cdef int wait(self, object timeout) except -1:
        """1: decided; 0: the time is over."""
        cdef Batch batch
        cdef int64_t deadline, until_us
        cdef int32_t index
        cdef int looks = NETWORK_LOOKS
        if self.outcome() != OUTCOME_PENDING:
            return 1
        if timeout is None:
            deadline = -1
        else:
            if timeout <= 0:
                return 0
            deadline = kp_monotonic_us() + <int64_t>(min(<double>timeout, 1e9) * 1e6)
        hub = running_hub()
        if hub is not None:
            ready, wait_in_hub = greenlets.waiter(hub)
            self.add(CALLBACK_DONE, ready)
            wait_in_hub(timeout)
            return self.outcome() != OUTCOME_PENDING
        while True:
            batch = self.whereabouts(&index)
            until_us = kp_monotonic_us()
            if 0 <= deadline <= until_us:
                return 0
            until_us += WAIT_SLICE_US
            if 0 <= deadline < until_us:
                until_us = deadline
            with nogil:
                wait_for_outcome(&batch.b, until_us, &looks)
            if self.outcome() != OUTCOME_PENDING:
                return 1
            PyErr_CheckSignals()

    def get(self, timeout=None):
        """Wait for the outcome.

        Arguments:
            timeout: seconds; None waits until the record is decided, which delivery.timeout.ms bounds.

        Returns:
            RecordMetadata: where the record is.

        Raises:
            KafkaTimeoutError: the time is over; the record is still on its way.
            KafkaError: the record failed; ``persisted`` of the exception says whether it may have been written.
        """
        cdef Batch batch
        cdef int32_t index
        if not self.wait(timeout):
            raise self.whereabouts(&index).make_error_code(ERROR_WAIT_TIMED_OUT)
        batch = self.whereabouts(&index)
        if batch.b.outcome == OUTCOME_ACKED:
            return new_metadata(batch, index)
        raise batch.make_error(index)

    def result(self, timeout=None):
        """The same as ``get()``."""
        return self.get(timeout)

    def done(self):
        """Whether the outcome is known."""
        return self.outcome() != OUTCOME_PENDING

    @property
    def is_done(self):
        """Whether the outcome is known."""
        return self.outcome() != OUTCOME_PENDING

    def succeeded(self):
        """Whether the record was acknowledged."""
        return self.outcome() == OUTCOME_ACKED

    def failed(self):
        """Whether the record failed."""
        return self.outcome() == OUTCOME_FAILED

    @property
    def value(self):
        """The RecordMetadata of an acknowledged record, else None."""
        cdef int32_t index
        cdef Batch batch = self.whereabouts(&index)
        return new_metadata(batch, index) if kp_load32(&batch.b.outcome) == OUTCOME_ACKED else None

    @property
    def exception(self):
        """The exception of a failed record (a new one each time), else None."""
        cdef int32_t index
        cdef Batch batch = self.whereabouts(&index)
        return batch.make_error(index) if kp_load32(&batch.b.outcome) == OUTCOME_FAILED else None

    def retriable(self):
        """Whether the record failed with an error that sending it again may overcome."""
        error = self.exception
        return error is not None and bool(error.retriable)

    def cancel(self):
        """False: a record that was accepted cannot be called back. See KafkaProducer.purge()."""
        return False

    def cancelled(self):
        """False, always."""
        return False

    cdef int add(self, int32_t kind, object callback) except -1:
        cdef Batch batch
        cdef int32_t index
        cdef kp_batch* b
        cdef kp_late_callback* grown
        cdef int32_t capacity
        cdef int run_now
        if not callable(callback):
            raise TypeError(f"a callback must be callable, got {type(callback).__name__}: {callback!r}")
        while True:
            batch = self.whereabouts(&index)
            b = &batch.b
            Py_INCREF(callback)
            run_now = 0
            kp_mutex_lock(&b.lock)
            if b.outcome == OUTCOME_SPLIT:
                kp_mutex_unlock(&b.lock)
                Py_DECREF(callback)
                continue
            if b.outcome != OUTCOME_PENDING and (not b.queued or b.delivered):
                run_now = 1
            else:
                if b.n_late == b.late_capacity:
                    capacity = b.late_capacity * 2 if b.late_capacity else 16
                    grown = <kp_late_callback*>realloc(b.late, capacity * sizeof(kp_late_callback))
                    if grown == NULL:
                        run_now = -1
                    else:
                        b.late = grown
                        b.late_capacity = capacity
                if run_now == 0:
                    b.late[b.n_late].index = index
                    b.late[b.n_late].kind = kind
                    b.late[b.n_late].callback = <PyObject*>callback
                    b.n_late += 1
            kp_mutex_unlock(&b.lock)
            break
        if run_now:
            Py_DECREF(callback)
        if run_now < 0:
            raise MemoryError
        if run_now:
            run_late_callback(batch, index, kind, callback)
        return 0

    def add_callback(self, callback, *args, **kwargs):
        """Call ``callback(*args, metadata, **kwargs)`` when the record is acknowledged; at once if it is already.

        Callbacks run on the delivery thread, in send order within a partition. One that raises is logged.
        Returns the future itself.
        """
        self.add(CALLBACK_SUCCESS, partial(callback, *args, **kwargs) if args or kwargs else callback)
        return self

    def add_errback(self, callback, *args, **kwargs):
        """Call ``callback(*args, exception, **kwargs)`` when the record fails. See add_callback()."""
        self.add(CALLBACK_ERROR, partial(callback, *args, **kwargs) if args or kwargs else callback)
        return self

    def add_both(self, callback, *args, **kwargs):
        """Call ``callback(*args, metadata_or_exception, **kwargs)`` either way. See add_callback()."""
        self.add(CALLBACK_BOTH, partial(callback, *args, **kwargs) if args or kwargs else callback)
        return self

    def add_done_callback(self, callback):
        """Call ``callback(future)`` when the outcome is known (the form of concurrent.futures)."""
        self.add(CALLBACK_DONE, callback)

    def __await__(self):
        import asyncio
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        if self.outcome() != OUTCOME_PENDING:
            settle(waiter, self)
        else:
            self.add(CALLBACK_DONE, partial(settle_from_thread, loop, waiter))
        return waiter.__await__()

    def __repr__(self):
        cdef int32_t index
        cdef Batch batch = self.whereabouts(&index)
        cdef int32_t outcome = kp_load32(&batch.b.outcome)
        where = f"{batch.topic_name}-{batch.b.partition.index}"
        if outcome == OUTCOME_ACKED:
            return f"<DeliveryFuture {where} offset={new_metadata(batch, index).offset}>"
        if outcome == OUTCOME_FAILED:
            return f"<DeliveryFuture {where} failed: {batch.make_error(index)}>"
        return f"<DeliveryFuture {where} pending>"


def settle(waiter, DeliveryFuture future):
    """Give an asyncio future the outcome of a delivery future."""
    if waiter.done():
        return
    if future.outcome() == OUTCOME_ACKED:
        waiter.set_result(future.value)
    else:
        waiter.set_exception(future.exception)


def settle_from_thread(loop, waiter, future):
    """Settle `waiter` on its own loop; a loop that is closed by now has nobody who waits."""
    try:
        loop.call_soon_threadsafe(settle, waiter, future)
    except RuntimeError:
        pass


@cython.final
@cython.no_gc            # refers to its Batch only
@cython.freelist(256)
cdef class RecordMetadata:
    """The delivery report of one record.

    Can be used like kafka-python's named tuple of nine fields (index, unpack, compare); ``latency_ms``, ``attempts``,
    ``persisted`` and ``headers`` come on top. In the callback of a failed record the offset is -1.
    """

    def __init__(self):
        raise TypeError("RecordMetadata objects come from delivery futures and callbacks")

    @property
    def topic(self):
        """Name of the topic."""
        return self.batch.topic_name

    @property
    def partition(self):
        """Number of the partition."""
        return self.batch.b.partition.index

    @property
    def topic_partition(self):
        """TopicPartition(topic, partition)."""
        return self.batch.reporter.topic_partition(self.batch.topic_name, self.batch.b.partition.index)

    @property
    def offset(self):
        """Offset in the partition; -1 when it is not known (acks=0, a failed record, or a batch that the broker had
        already when it was sent again and no longer remembers the offset of)."""
        if self.batch.b.outcome != OUTCOME_ACKED or self.batch.b.base_offset < 0:
            return -1
        return self.batch.b.base_offset + self.index

    @property
    def timestamp(self):
        """ms since 1970: the broker's when the topic uses LogAppendTime, else the record's own."""
        if self.batch.b.log_append_time >= 0:
            return self.batch.b.log_append_time
        return self.batch.b.base_timestamp + self.batch.b.info[self.index].timestamp_delta

    @property
    def timestamp_type(self):
        """0: CreateTime, 1: LogAppendTime."""
        return 1 if self.batch.b.log_append_time >= 0 else 0

    @property
    def checksum(self):
        """None: record batches v2 have no checksum per record."""
        return None

    @property
    def serialized_key_size(self):
        """Bytes of the key, -1: null."""
        return self.batch.b.info[self.index].key_size

    @property
    def serialized_value_size(self):
        """Bytes of the value, -1: null."""
        return self.batch.b.info[self.index].value_size

    @property
    def serialized_header_size(self):
        """Bytes of all header keys and values, -1: no headers."""
        return self.batch.b.info[self.index].header_size

    @property
    def latency_ms(self):
        """ms from ``send()`` to the acknowledgement or failure."""
        return (self.batch.b.completed_us - self.batch.b.created_us
                - self.batch.b.info[self.index].append_delta) / 1000.0

    @property
    def attempts(self):
        """How often the record's batch was sent."""
        return self.batch.b.attempts

    @property
    def persisted(self):
        """'yes', 'possibly' or 'no': whether the broker wrote the record."""
        return PERSISTED[self.batch.b.persisted]

    @property
    def headers(self):
        """The headers as given to ``send()``, with the option delivery_report_headers, inside a callback; else None."""
        if (self.batch.b.headers == NULL or self.index >= self.batch.b.headers_capacity
                or self.batch.b.headers[self.index] == NULL):
            return None
        return <object>self.batch.b.headers[self.index]

    cdef tuple fields(self):
        return (self.topic, self.partition, self.topic_partition, self.offset, self.timestamp, None,
                self.serialized_key_size, self.serialized_value_size, self.serialized_header_size)

    def __len__(self):
        return 9

    def __getitem__(self, index):
        return self.fields()[index]

    def __iter__(self):
        return iter(self.fields())

    def __eq__(self, other):
        if isinstance(other, RecordMetadata):
            return self.fields() == (<RecordMetadata>other).fields()
        if isinstance(other, tuple):
            return self.fields() == other
        return NotImplemented

    def __hash__(self):
        return hash(self.fields())

    def __reduce__(self):
        return PlainRecordMetadata, self.fields()

    def __repr__(self):
        return (f"RecordMetadata(topic={self.topic!r}, partition={self.partition}, offset={self.offset}, "
                f"timestamp={self.timestamp}, serialized_key_size={self.serialized_key_size}, "
                f"serialized_value_size={self.serialized_value_size}, "
                f"serialized_header_size={self.serialized_header_size})")
