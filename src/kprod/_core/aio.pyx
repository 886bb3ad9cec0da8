"""Outcomes for event loops: futures that asyncio understands, and the queue that brings their outcomes to a loop.

The delivery thread never touches a loop's futures. It queues what is decided on the loop's channel; the first entry
wakes the loop with one ``call_soon_threadsafe()``, and what comes until the loop gets to it, be it a thousand batches,
comes with the same wake-up. A loop that is busy, blocked or closed holds up nobody: queueing takes no lock of the loop.
"""
import collections.abc
import threading
import weakref
from asyncio import CancelledError, InvalidStateError, get_running_loop
from contextvars import copy_context

cimport cython
from cpython.exc cimport PyErr_WarnEx
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, Py_XINCREF
from libc.stdint cimport int32_t, uintptr_t
from libc.string cimport memset

from kprod._core.accumulator cimport Accumulator
from kprod._core.future cimport CALLBACK_DONE, Batch, DeliveryFuture, RecordMetadata
from kprod._core.platform cimport (
    kp_load32, kp_mutex, kp_mutex_destroy, kp_mutex_init, kp_mutex_lock, kp_mutex_unlock,
)
from kprod._core.producer cimport (
    ARGUMENTS, ON_DELIVERY, TOPIC, ProducerCore, append_record, sort_arguments,
)
from kprod._core.structs cimport OUTCOME_ACKED, OUTCOME_PENDING, OUTCOME_SPLIT

cdef extern from *:
    """
    static int (*kp_outcome_step)(PyObject*, PyObject**);
    static int (*kp_sending_step)(PyObject*, PyObject*, PyObject**);

    static PySendResult kp_outcome_am_send(PyObject* self, PyObject* sent, PyObject** result) {
        (void)sent;
        return (PySendResult)kp_outcome_step(self, result);
    }

    static PySendResult kp_sending_am_send(PyObject* self, PyObject* sent, PyObject** result) {
        return (PySendResult)kp_sending_step(self, sent, result);
    }

    /* `await` of what is its own iterator then takes the result without a StopIteration around it. */
    static void kp_set_am_send(PyObject* outcome_type, int (*outcome_step)(PyObject*, PyObject**),
                               PyObject* sending_type, int (*sending_step)(PyObject*, PyObject*, PyObject**)) {
        kp_outcome_step = outcome_step;
        kp_sending_step = sending_step;
        ((PyTypeObject*)outcome_type)->tp_as_async->am_send = kp_outcome_am_send;
        ((PyTypeObject*)sending_type)->tp_as_async->am_send = kp_sending_am_send;
    }

    static vectorcallfunc kp_send_as_written;

    static PyObject* kp_send_coroutine(PyObject* function, PyObject** arguments, size_t n, PyObject* names) {
        return kp_send_as_written(function, arguments, n, names);
    }

    static void kp_set_send(PyObject* function, PyObject* (*vectorcall)(PyObject*, PyObject**, size_t, PyObject*)) {
        vectorcallfunc* slot = (vectorcallfunc*)((char*)function + Py_TYPE(function)->tp_vectorcall_offset);
        kp_send_as_written = *slot;
        *slot = (vectorcallfunc)vectorcall;
    }
    """
    object kp_send_coroutine(PyObject* function, PyObject** arguments, size_t n, PyObject* names)
    void kp_set_send(object function, object (*vectorcall)(PyObject*, PyObject**, size_t, PyObject*))
    void kp_set_am_send(object outcome_type, int (*outcome_step)(PyObject*, PyObject**) except -1,
                        object sending_type, int (*sending_step)(PyObject*, PyObject*, PyObject**) except -1)

cdef extern from "Python.h":
    PyObject* Py_None
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    int PyErr_ExceptionMatches(object kind)
    void PyErr_Clear()
    int PyIter_Send(PyObject* iterator, PyObject* sent, PyObject** result) except -1

# PySendResult
cdef enum:
    PYGEN_RETURN = 0
    PYGEN_NEXT = 1


channels = weakref.WeakKeyDictionary()
channels_lock = threading.Lock()
present = threading.local()


def channel_for(loop):
    """The channel of an event loop; made at the first call."""
    cdef LoopChannel channel = getattr(present, "channel", None)
    if channel is not None and channel.loop_ref() is loop:
        return channel
    with channels_lock:
        channel = channels.get(loop)
        if channel is None:
            channel = channels[loop] = LoopChannel(loop)
    present.channel = channel
    return channel


cdef class LoopChannel:
    """Brings what other threads decided to one event loop. Get it with channel_for()."""

    cdef kp_mutex lock
    cdef object loop_ref
    cdef list ready
    cdef bint scheduled
    cdef readonly long wakes      # how often the loop was woken
    cdef object __weakref__

    def __cinit__(self, loop):
        kp_mutex_init(&self.lock)
        self.loop_ref = weakref.ref(loop)
        self.ready = []

    def __dealloc__(self):
        kp_mutex_destroy(&self.lock)

    @property
    def loop(self):
        """The event loop; None: it is gone."""
        return self.loop_ref()

    cdef int push(self, Entry entry) except -1:
        """Let the loop settle `entry` soon. Any thread; never waits for the loop."""
        cdef bint wake
        kp_mutex_lock(&self.lock)
        self.ready.append(entry)
        wake = not self.scheduled
        self.scheduled = True
        self.wakes += wake
        kp_mutex_unlock(&self.lock)
        if wake:
            loop = self.loop_ref()
            try:
                if loop is None:
                    raise RuntimeError("the loop is gone")
                loop.call_soon_threadsafe(self.drain)
            except RuntimeError:
                # Closed with deliveries pending: nobody is left who waits for them there.
                for dropped in self.take():
                    (<Entry>dropped).drop()
        return 0

    cdef list take(self):
        cdef list entries = []
        kp_mutex_lock(&self.lock)
        self.scheduled = False
        self.ready, entries = entries, self.ready
        kp_mutex_unlock(&self.lock)
        return entries

    def drain(self):
        """Settle what was queued so far; runs in the loop."""
        for entry in self.take():
            try:
                (<Entry>entry).settle()
            except Exception as error:
                loop = self.loop_ref()
                if loop is not None:
                    loop.call_exception_handler(
                        {"message": "kprod could not settle a delivery", "exception": error})


cdef class Entry:
    """Something to do in a loop when a record is decided."""

    cdef LoopChannel channel

    cdef int settle(self) except -1:
        return 0

    cdef void drop(self):
        pass


@cython.final
cdef class Waiter(Entry):
    """An await: wakes the asyncio future that a task waits on."""

    cdef object waiter

    def __call__(self, future):
        self.channel.push(self)

    cdef int settle(self) except -1:
        waiter = self.waiter
        self.waiter = None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        return 0

    cdef void drop(self):
        self.waiter = None


@cython.final
cdef class DoneCallback(Entry):
    """A callback that add_done_callback() was given."""

    cdef object callback
    cdef object context
    cdef AsyncDeliveryFuture owner

    def __call__(self, future):
        self.channel.push(self)

    cdef int settle(self) except -1:
        callback = self.callback
        owner = self.owner
        context = self.context
        self.drop()
        if callback is not None:
            loop = self.channel.loop_ref()
            if loop is not None:
                loop.call_soon(callback, owner, context=context)
        return 0

    cdef void drop(self):
        # The owner has this in its list: they would keep each other alive.
        self.callback = self.context = self.owner = None


@cython.final
cdef class Settlement(Entry):
    """A delivery callback that settles an ``asyncio.Future`` in its own loop.

    Arguments:
        future: the asyncio future.
        channel: the channel of its loop.
        convert: ``f(error, metadata)`` makes the result, or raises the exception, in the loop.
    """

    cdef object future
    cdef object convert
    cdef object error
    cdef object metadata

    def __cinit__(self, future, LoopChannel channel not None, convert):
        self.future = future
        self.channel = channel
        self.convert = convert

    def __call__(self, error, metadata):
        self.error = error
        self.metadata = metadata
        self.channel.push(self)

    cdef int settle(self) except -1:
        future = self.future
        self.future = None
        if future is None or future.done():
            return 0
        try:
            result = self.convert(self.error, self.metadata)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        return 0

    cdef void drop(self):
        self.future = None


@cython.final
@cython.no_gc            # refers to its record, and to those who wait until they are served
@cython.freelist(1024)
cdef class AsyncDeliveryFuture:
    """What becomes of one record that ``AsyncKafkaProducer.send()`` accepted. Await it for the RecordMetadata.

    It is a future as asyncio understands it (``asyncio.isfuture()``): ``await``, ``asyncio.gather()``,
    ``asyncio.wait()`` and ``asyncio.wait_for()`` take it. It can be awaited any number of times, by several tasks,
    and in other loops than the one that sent the record.

    A record that was accepted cannot be called back. Cancelling a task that awaits this future ends that one await
    only, and so does ``wait_for()`` since Python 3.12. ``cancel()`` (also by ``gather()``) ends the future for all who
    wait on it; the record is sent all the same.
    """

    cdef Batch batch
    cdef int32_t index
    cdef bint is_cancelled
    cdef list entries
    cdef object cancel_message
    cdef object __weakref__

    _asyncio_future_blocking = False

    def __init__(self):
        raise TypeError("AsyncDeliveryFuture objects are made by AsyncKafkaProducer.send()")

    @property
    def delivery(self):
        """The record's DeliveryFuture, for other threads."""
        return self.record()

    cdef DeliveryFuture record(self):
        cdef DeliveryFuture record = DeliveryFuture.__new__(DeliveryFuture)
        record.batch = self.batch
        record.index = self.index
        return record

    cdef inline int32_t outcome(self):
        cdef int32_t outcome = kp_load32(&self.batch.b.outcome)
        return outcome if outcome != OUTCOME_SPLIT else self.record().outcome()

    cdef inline int take(self, PyObject** result) except -1:
        """The result of a future that is done, as a new reference."""
        cdef RecordMetadata metadata
        if self.is_cancelled:
            raise self.cancelled_error()
        if kp_load32(&self.batch.b.outcome) == OUTCOME_ACKED:
            metadata = RecordMetadata.__new__(RecordMetadata)
            metadata.batch = self.batch
            metadata.index = self.index
        else:
            metadata = self.record().get()
        Py_INCREF(metadata)
        result[0] = <PyObject*>metadata
        return PYGEN_RETURN

    def get_loop(self):
        """The event loop that runs now: the future belongs to none."""
        return get_running_loop()

    def done(self):
        """Whether the outcome is known, or the future was cancelled."""
        return self.is_cancelled or self.outcome() != OUTCOME_PENDING

    def cancelled(self):
        """Whether cancel() ended the future."""
        return self.is_cancelled

    def result(self):
        """The RecordMetadata.

        Raises:
            KafkaError: the record failed.
            asyncio.CancelledError: cancel() was called.
            asyncio.InvalidStateError: the record is not decided yet.
        """
        if self.is_cancelled:
            raise self.cancelled_error()
        if self.outcome() == OUTCOME_PENDING:
            raise InvalidStateError("the record is not decided yet")
        return self.record().get()

    def exception(self):
        """The KafkaError of a failed record; None: it was acknowledged. Raises as result() otherwise."""
        if self.is_cancelled:
            raise self.cancelled_error()
        if self.outcome() == OUTCOME_PENDING:
            raise InvalidStateError("the record is not decided yet")
        return self.record().exception

    cdef object cancelled_error(self):
        return CancelledError() if self.cancel_message is None else CancelledError(self.cancel_message)

    cdef int register(self, Entry entry) except -1:
        if self.entries is None:
            self.entries = []
        self.entries.append(entry)
        self.record().add(CALLBACK_DONE, entry)
        return 0

    def add_done_callback(self, callback, *, context=None):
        """Call ``callback(future)`` in the present loop, soon after the record is decided or the future cancelled.

        Arguments:
            callback: the function.
            context: the contextvars.Context to run it in; None: a copy of the present one.
        """
        cdef DoneCallback entry
        if context is None:
            context = copy_context()
        loop = get_running_loop()
        if self.is_cancelled or self.outcome() != OUTCOME_PENDING:
            loop.call_soon(callback, self, context=context)
            return
        entry = DoneCallback.__new__(DoneCallback)
        entry.channel = channel_for(loop)
        entry.callback = callback
        entry.context = context
        entry.owner = self
        self.register(entry)

    def remove_done_callback(self, callback):
        """Take a callback back. Returns how often it was registered."""
        cdef int removed = 0
        for entry in self.entries or ():
            if isinstance(entry, DoneCallback) and (<DoneCallback>entry).callback == callback:
                (<DoneCallback>entry).drop()
                removed += 1
        return removed

    def cancel(self, msg=None):
        """End the future for those who wait on it; the record is sent all the same. False: it was done."""
        if self.is_cancelled or self.outcome() != OUTCOME_PENDING:
            return False
        self.is_cancelled = True
        self.cancel_message = msg
        entries = self.entries or ()
        self.entries = None
        for entry in entries:
            # A waiter wakes up and finds the future cancelled.
            (<Entry>entry).channel.push(entry)
        return True

    def __await__(self):
        # Mostly the outcome is known by the time that it is asked for: then no generator is made.
        if not self.is_cancelled and self.outcome() != OUTCOME_PENDING:
            return self
        return _wait_in_loop(self)

    def __iter__(self):
        # For `yield from` in the `__await__()` of others.
        return self.__await__()

    def __next__(self):
        raise StopIteration(self.result())

    def __repr__(self):
        if self.is_cancelled:
            return f"<AsyncDeliveryFuture cancelled, {self.record()!r}>"
        return f"<AsyncDeliveryFuture {self.record()!r}>"


def _wait_in_loop(AsyncDeliveryFuture self not None):
    """What an ``await`` iterates over when there may be something to wait for."""
    cdef Waiter entry
    if not self.is_cancelled and self.outcome() == OUTCOME_PENDING:
        loop = get_running_loop()
        entry = Waiter.__new__(Waiter)
        entry.channel = channel_for(loop)
        entry.waiter = loop.create_future()
        waiter = entry.waiter
        self.register(entry)
        yield from waiter
    if self.is_cancelled:
        raise self.cancelled_error()
    return self.record().get()


cdef int take_outcome(PyObject* future, PyObject** result) except -1:
    return (<AsyncDeliveryFuture>future).take(result)


# ------------------------------------------------------------------------------------------------ send()

cdef class AsyncProducerCore:
    """``send()`` of AsyncKafkaProducer, which derives from it."""

    cdef ProducerCore core        # whose append needs nothing around it; None: see try_send
    cdef object try_send
    cdef object would_wait
    cdef public int _waiting

    def _attach(self, producer, would_wait):
        """Connect the class to a producer whose ``send()`` never waits; None: there is none, or it has interceptors.

        Arguments:
            producer: a KafkaProducer. Where its class has a ``send()`` of its own, be it one that a tracing tool has
                put there, that is called.
            would_wait: the class of the exceptions that it raises where it would have to wait.
        """
        self.would_wait = would_wait
        self.try_send = None if producer is None else producer.send
        self.core = producer if producer is not None and type(producer).send is ProducerCore.send else None

    async def send(self, topic, value=None, key=None, headers=None, partition=None, timestamp_ms=None):
        """Send one record. Awaiting this waits only for room in ``buffer_memory``, or a new topic's metadata.

        Cancelled while it waits, it has sent nothing. A serializer may be called again after a wait.

        Arguments:
            topic: its name.
            value: what ``value_serializer`` takes; without one bytes, a bytes-like object, or None (a tombstone).
            key: the same for ``key_serializer``. Decides the partition unless ``partition`` is given.
            headers: a list of (str, bytes or None) pairs or a mapping.
            partition: a number; None lets the partitioner choose.
            timestamp_ms: ms since 1970; None takes the present.

        Returns:
            AsyncDeliveryFuture: what becomes of the record; await it for the RecordMetadata, or leave it.

        Raises:
            TypeError, ValueError, MessageSizeTooLargeError: as ``KafkaProducer.send()``.
            KafkaTimeoutError: no metadata for the topic (BufferExhaustedError: no memory) within ``max_block_ms``.
            IllegalStateError: not started; outside of a transaction.
            ProducerClosedError, KafkaError: the producer takes no records any more.
        """
        # Calls come to send_vectorcall() first, which goes on with this where there may be something to wait for.
        if self.try_send is None:
            # Not started, or there are interceptors.
            record = await self._send_intercepted(topic, value, key, headers, partition, timestamp_ms)
        elif self._waiting:
            # Others were here before: whoever waits for memory gets it first.
            record = await self._send_waiting(None, (topic, value, key, headers, partition, timestamp_ms))
        else:
            try:
                record = self.try_send(topic, value, key, headers, partition, timestamp_ms)
            except self.would_wait as error:
                first = error
                record = None
            if record is None:
                record = await self._send_waiting(first, (topic, value, key, headers, partition, timestamp_ms))
        return future_of(record)


cdef AsyncDeliveryFuture future_of(DeliveryFuture record):
    cdef AsyncDeliveryFuture future = AsyncDeliveryFuture.__new__(AsyncDeliveryFuture)
    future.batch = record.batch
    future.index = record.index
    return future


ctypedef int (*append_function)(ProducerCore, Accumulator, PyObject**, PyObject**, int32_t*) noexcept


cdef enum:
    NOT_BEGUN
    RUNNING
    WAITING
    ENDED


@cython.final
@cython.freelist(64)
cdef class Sending:
    """The coroutine of one ``AsyncKafkaProducer.send()``.

    Mostly there is nothing to wait for: then it ends with its first step, and needs no frame. Otherwise it goes on as a
    coroutine of ``AsyncKafkaProducer``.
    """

    cdef AsyncProducerCore producer
    cdef object waiting           # the coroutine that goes on
    cdef int stage
    # [a] With a reference each, NULL for None; those are not shown to the garbage collector: what is in a record does
    # not refer to this.
    cdef PyObject* given[ARGUMENTS]

    __name__ = "send"
    __qualname__ = "AsyncKafkaProducer.send"

    def __init__(self):
        raise TypeError("Sending objects are made by AsyncKafkaProducer.send()")

    def __cinit__(self):
        memset(self.given, 0, sizeof(self.given))

    def __dealloc__(self):
        if self.stage != ENDED:
            if self.stage == NOT_BEGUN and self.given[TOPIC] != NULL:
                PyErr_WarnEx(RuntimeWarning, b"coroutine 'AsyncKafkaProducer.send' was never awaited", 1)
            self.release_given()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.step_result(None)

    def send(self, value):
        """Go on, as any coroutine does."""
        return self.step_result(value)

    def throw(self, kind, value=None, traceback=None):
        """Raise an exception where it waits, as any coroutine does."""
        if self.stage == WAITING:
            return self.throw_waiting((kind,) if value is None and traceback is None else (kind, value, traceback))
        self.check_usable()
        self.end()
        error = kind
        if not isinstance(kind, BaseException):
            error = value if isinstance(value, BaseException) else kind() if value is None else kind(value)
        raise error if traceback is None else error.with_traceback(traceback)

    def close(self):
        """End it, as any coroutine does. What was not sent yet is not sent."""
        if self.stage == RUNNING:
            self.check_usable()
        waiting = self.waiting
        self.end()
        if waiting is not None:
            waiting.close()

    @property
    def cr_await(self):
        """The coroutine that goes on where it has to wait, else None."""
        return self.waiting

    @property
    def cr_running(self):
        """Whether it runs now."""
        return self.stage == RUNNING

    @property
    def cr_frame(self):
        """None: it has no frame; ``cr_await`` has."""
        return None

    @property
    def cr_code(self):
        """None: it is not Python code."""
        return None

    def __repr__(self):
        return f"<coroutine object {self.__qualname__} at {<uintptr_t><PyObject*>self:#x}>"

    cdef int check_usable(self) except -1:
        if self.stage == RUNNING:
            raise ValueError("coroutine already executing")
        if self.stage == ENDED:
            raise RuntimeError("cannot reuse already awaited coroutine")
        return 0

    cdef inline void end(self) noexcept:
        """Be over, and let go of the record."""
        self.stage = ENDED
        self.waiting = None
        self.release_given()

    cdef inline void release_given(self) noexcept:
        cdef int i
        cdef PyObject* given
        for i in range(ON_DELIVERY):
            given = self.given[i]
            self.given[i] = NULL
            Py_XDECREF(given)

    cdef int step(self, PyObject* sent, PyObject** result) except -1:
        """Go on until it ends or has to wait; a PySendResult."""
        cdef int outcome
        self.check_usable()
        if self.stage == NOT_BEGUN:
            if sent != Py_None:
                raise TypeError("can't send non-None value to a just-started coroutine")
            self.stage = RUNNING
            if self.begin(result):
                self.end()
                return PYGEN_RETURN
        self.stage = RUNNING
        try:
            outcome = PyIter_Send(<PyObject*>self.waiting, sent, result)
        except BaseException:
            self.end()
            raise
        if outcome == PYGEN_RETURN:
            self.end()
        else:
            self.stage = WAITING
        return outcome

    cdef inline int begin(self, PyObject** result) except -1:
        """Try to send. 0: it may have to wait, and goes on as `waiting`."""
        cdef PyObject* owner = NULL
        cdef AsyncDeliveryFuture future
        cdef AsyncProducerCore producer = self.producer
        # Who waits for memory already gets it first.
        if producer.core is not None and not producer._waiting:
            future = AsyncDeliveryFuture.__new__(AsyncDeliveryFuture)
            # Whether it raised is looked at by hand: a `try` costs more, for each record.
            if (<append_function>append_record)(producer.core, producer.core.accumulator, self.given, &owner,
                                                &future.index) == 0:
                future.batch = <Batch>owner
                Py_DECREF(future.batch)
                Py_INCREF(future)
                result[0] = <PyObject*>future
                return 1
            if not PyErr_ExceptionMatches(producer.would_wait):
                self.end()
                return -1
            PyErr_Clear()
        self.waiting = self.coroutine()
        return 0

    cdef object coroutine(self):
        """The coroutine of `send`, as it is written."""
        cdef PyObject* arguments[ARGUMENTS]
        cdef int i
        arguments[0] = <PyObject*>self.producer
        for i in range(ON_DELIVERY):
            arguments[i + 1] = self.given[i] if self.given[i] != NULL else Py_None
        return kp_send_coroutine(<PyObject*>AsyncProducerCore.send, arguments, ARGUMENTS, NULL)

    cdef object step_result(self, object sent):
        """What ``send()`` of a coroutine returns or raises."""
        cdef PyObject* result = NULL
        cdef int outcome = self.step(<PyObject*>sent, &result)
        found = <object>result
        Py_DECREF(found)
        if outcome == PYGEN_RETURN:
            raise StopIteration(found)
        return found

    cdef object throw_waiting(self, tuple exception):
        self.stage = RUNNING
        try:
            waits_for = self.waiting.throw(*exception)
        except StopIteration as stopped:
            self.end()
            future = stopped.value
        except BaseException:
            self.end()
            raise
        else:
            self.stage = WAITING
            return waits_for
        raise StopIteration(future)


collections.abc.Coroutine.register(Sending)


cdef int step_of_sending(PyObject* sending, PyObject* sent, PyObject** result) except -1:
    return (<Sending>sending).step(sent, result)


kp_set_am_send(AsyncDeliveryFuture, take_outcome, Sending, step_of_sending)


cdef object send_vectorcall(PyObject* function, PyObject** arguments, size_t n, PyObject* names):
    """What a call of ``send()`` does."""
    cdef Py_ssize_t n_positional = n & ~PY_VECTORCALL_ARGUMENTS_OFFSET
    cdef PyObject* given[ARGUMENTS]
    cdef Sending sending
    cdef int i
    if n_positional == 0 or not isinstance(<object>arguments[0], AsyncProducerCore):
        raise TypeError("send() is a method of AsyncKafkaProducer: it must be called on one")
    sort_arguments("send", ON_DELIVERY, arguments + 1, n_positional - 1, names, given)
    sending = Sending.__new__(Sending)
    sending.producer = <AsyncProducerCore>arguments[0]
    for i in range(ON_DELIVERY):
        sending.given[i] = given[i]
        Py_XINCREF(given[i])
    return sending


# Only calls change: for `inspect`, and so for frameworks, it stays an async function.
kp_set_send(AsyncProducerCore.send, send_vectorcall)
