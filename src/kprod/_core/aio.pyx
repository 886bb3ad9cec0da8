"""Outcomes for event loops: futures that asyncio understands, and the queue that brings their outcomes to a loop.

The delivery thread never touches a loop's futures. It queues what is decided on the loop's channel; the first entry
wakes the loop with one ``call_soon_threadsafe()``, and what comes until the loop gets to it, be it a thousand batches,
comes with the same wake-up. A loop that is busy, blocked or closed holds up nobody: queueing takes no lock of the loop.
"""
import threading
import weakref
from asyncio import CancelledError, InvalidStateError, get_running_loop
from contextvars import copy_context

cimport cython

from kprod._core.future cimport CALLBACK_DONE, DeliveryFuture
from kprod._core.platform cimport kp_mutex, kp_mutex_destroy, kp_mutex_init, kp_mutex_lock, kp_mutex_unlock
from kprod._core.structs cimport OUTCOME_PENDING

cdef extern from *:
    """
    static PyObject* (*kp_result_of)(PyObject*);

    static PySendResult kp_am_send(PyObject* self, PyObject* sent, PyObject** result) {
        (void)sent;
        *result = kp_result_of(self);
        return *result == NULL ? PYGEN_ERROR : PYGEN_RETURN;
    }

    /* `await` of what is its own iterator then takes the result without a StopIteration around it. */
    static void kp_set_am_send(PyObject* type, PyObject* (*result_of)(PyObject*)) {
        kp_result_of = result_of;
        ((PyTypeObject*)type)->tp_as_async->am_send = kp_am_send;
    }
    """
    void kp_set_am_send(object type, object (*result_of)(object))


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
    only. ``cancel()`` (also by ``wait_for()`` and ``gather()``) ends the future for all who wait on it; the record is
    sent all the same.
    """

    cdef DeliveryFuture record
    cdef list entries
    cdef bint is_cancelled
    cdef object cancel_message
    cdef object __weakref__

    _asyncio_future_blocking = False

    def __init__(self):
        raise TypeError("AsyncDeliveryFuture objects are made by AsyncKafkaProducer.send()")

    @property
    def delivery(self):
        """The record's DeliveryFuture, for other threads."""
        return self.record

    def get_loop(self):
        """The event loop that runs now: the future belongs to none."""
        return get_running_loop()

    def done(self):
        """Whether the outcome is known, or the future was cancelled."""
        return self.is_cancelled or self.record.outcome() != OUTCOME_PENDING

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
        if self.record.outcome() == OUTCOME_PENDING:
            raise InvalidStateError("the record is not decided yet")
        return self.record.get()

    def exception(self):
        """The KafkaError of a failed record; None: it was acknowledged. Raises as result() otherwise."""
        if self.is_cancelled:
            raise self.cancelled_error()
        if self.record.outcome() == OUTCOME_PENDING:
            raise InvalidStateError("the record is not decided yet")
        return self.record.exception

    cdef object cancelled_error(self):
        return CancelledError() if self.cancel_message is None else CancelledError(self.cancel_message)

    cdef int register(self, Entry entry) except -1:
        if self.entries is None:
            self.entries = []
        self.entries.append(entry)
        self.record.add(CALLBACK_DONE, entry)
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
        if self.is_cancelled or self.record.outcome() != OUTCOME_PENDING:
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
        if self.is_cancelled or self.record.outcome() != OUTCOME_PENDING:
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
        if not self.is_cancelled and self.record.outcome() != OUTCOME_PENDING:
            return self
        return _wait_in_loop(self)

    def __next__(self):
        raise StopIteration(self.result())

    def __repr__(self):
        if self.is_cancelled:
            return f"<AsyncDeliveryFuture cancelled, {self.record!r}>"
        return f"<AsyncDeliveryFuture {self.record!r}>"


def _wait_in_loop(AsyncDeliveryFuture self not None):
    """What an ``await`` iterates over when there may be something to wait for."""
    cdef Waiter entry
    if not self.is_cancelled and self.record.outcome() == OUTCOME_PENDING:
        loop = get_running_loop()
        entry = Waiter.__new__(Waiter)
        entry.channel = channel_for(loop)
        entry.waiter = loop.create_future()
        waiter = entry.waiter
        self.register(entry)
        yield from waiter
    if self.is_cancelled:
        raise self.cancelled_error()
    return self.record.get()


cdef object result_of_decided(object future):
    return (<AsyncDeliveryFuture>future).result()


kp_set_am_send(AsyncDeliveryFuture, result_of_decided)


cdef class AsyncProducerCore:
    """``send()`` of AsyncKafkaProducer, which derives from it."""

    cdef object try_send
    cdef object would_wait
    cdef public int _waiting

    def _attach(self, try_send, would_wait):
        """Connect the class to a producer whose ``send()`` never waits; None: there is none, or it has interceptors.

        Arguments:
            try_send: the bound ``send()``.
            would_wait: the class of the exceptions that it raises where it would have to wait.
        """
        self.would_wait = would_wait
        self.try_send = try_send

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
        cdef AsyncDeliveryFuture future
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
        future = AsyncDeliveryFuture.__new__(AsyncDeliveryFuture)
        future.record = record
        return future
