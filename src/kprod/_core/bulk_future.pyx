"""What becomes of the records of one send_many() or send_columns().

The future has one Segment per run of records in a batch, so it costs nothing per record but 4 bytes for their order
where keys spread them over partitions. Everything else is worked out when somebody asks, from the batches.

It knows of no callback of its own until somebody adds one. That one is then put on a batch that is not decided, as a
late callback (see `future`), and handed on to the next such batch until none is left.
"""
from array import array
from collections.abc import Sequence
from functools import partial

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc

from kprod._core.future cimport (
    CALLBACK_BOTH, CALLBACK_DONE, CALLBACK_ERROR, CALLBACK_SUCCESS, Batch, DeliveryFuture, RecordMetadata,
)
from kprod._core.platform cimport kp_cas_ptr, kp_load32, kp_load_ptr, kp_monotonic_us
from kprod._core.structs cimport (
    ERROR_WAIT_TIMED_OUT, OUTCOME_ACKED, OUTCOME_FAILED, OUTCOME_PENDING, OUTCOME_SPLIT,
)


@cython.final
cdef class Segment:
    """Consecutive records of a batch."""

    cdef int32_t outcome(self) noexcept:
        return kp_load32(&self.batch.b.outcome)


cdef DeliveryFuture record_future(Segment segment, int64_t at):
    """The future of the record at place `at` of a segment."""
    cdef DeliveryFuture future = DeliveryFuture.__new__(DeliveryFuture)
    future.batch = segment.batch
    future.index = segment.first + <int32_t>at
    return future


cdef RecordMetadata record_metadata(Segment segment, int64_t at):
    cdef RecordMetadata metadata = RecordMetadata.__new__(RecordMetadata)
    metadata.batch = segment.batch
    metadata.index = segment.first + <int32_t>at
    return metadata


cdef int add_pieces(Segment segment, list into) except -1:
    """Add the segment to `into`, or those of the batches that its batch was split into."""
    cdef Segment piece
    cdef Batch child
    cdef int64_t first, begin, end
    if segment.outcome() != OUTCOME_SPLIT:
        into.append(segment)
        return 0
    for first, child in segment.batch.children:
        begin = max(first, <int64_t>segment.first)
        end = min(first + child.b.count, segment.first + segment.count)
        if begin < end:
            piece = Segment.__new__(Segment)
            piece.batch = child
            piece.position = segment.position + begin - segment.first
            piece.first = <int32_t>(begin - first)
            piece.count = end - begin
            add_pieces(piece, into)
    return 0


@cython.final
cdef class BulkDeliveryFuture:
    """What becomes of the records that one ``send_many()`` or ``send_columns()`` accepted.

    It is done when every record is decided. It is a sequence: ``len()`` is the number of records, and ``future[i]`` is
    the DeliveryFuture of record ``i``, made when it is asked for. Has the names of DeliveryFuture, and can be awaited
    under asyncio.
    """

    def __init__(self):
        raise TypeError("BulkDeliveryFuture objects are made by KafkaProducer.send_many() and send_columns()")

    def __dealloc__(self):
        free(self.order)
        free(self.places)

    # -- from records to batches

    cdef int64_t index_at(self, int64_t position) noexcept:
        return position if self.order == NULL else self.order[position]

    cdef int64_t position_of(self, int64_t index) except -1:
        cdef int32_t* places
        cdef int64_t position
        if self.order == NULL:
            return index
        places = <int32_t*>kp_load_ptr(&self.places)
        if places == NULL:
            places = <int32_t*>malloc(self.length * sizeof(int32_t))
            if places == NULL:
                raise MemoryError
            for position in range(self.length):
                places[self.order[position]] = <int32_t>position
            if not kp_cas_ptr(&self.places, NULL, places):
                free(places)
                places = <int32_t*>kp_load_ptr(&self.places)
        return places[index]

    cdef list resolved(self):
        """The segments, with those of split batches replaced by their pieces."""
        cdef list segments
        cdef list made
        cdef Segment segment, whole
        # Where there is no GIL to do it, this keeps the list until there is a reference to it.
        with cython.critical_section(self):
            segments = self.segments
        for segment in segments:
            if segment.outcome() == OUTCOME_SPLIT:
                made = []
                for whole in segments:
                    add_pieces(whole, made)
                # Another thread makes the same list.
                with cython.critical_section(self):
                    self.segments = made
                return made
        return segments

    cdef Py_ssize_t place_of(self, list segments, int64_t position):
        """The place in `segments`, which are not empty, of the one that has `position`, or else of the last one."""
        cdef Py_ssize_t low = 0, high = len(segments) - 1, middle
        while low < high:
            middle = (low + high + 1) // 2
            if (<Segment>segments[middle]).position <= position:
                low = middle
            else:
                high = middle - 1
        return low

    cdef Segment segment_of(self, int64_t position):
        cdef list segments = self.resolved()
        return <Segment>segments[self.place_of(segments, position)]

    cdef DeliveryFuture undecided(self):
        """The future of the last record of the first segment that is not decided; None: all are."""
        cdef list segments
        cdef Segment segment
        cdef Py_ssize_t i = 0
        cdef int32_t outcome
        with cython.critical_section(self):
            segments = self.segments
        # What is decided stays so: with many batches each is looked at a few times, not at every call.
        if self.decided and segments:
            i = self.place_of(segments, self.decided)
        while i < len(segments):
            segment = <Segment>segments[i]
            outcome = segment.outcome()
            if outcome == OUTCOME_PENDING:
                self.decided = segment.position
                return record_future(segment, segment.count - 1)
            if outcome == OUTCOME_SPLIT:
                self.resolved()
                return self.undecided()
            i += 1
        self.decided = self.n_appended
        return None

    cdef int32_t outcome(self) except -1:
        """OUTCOME_PENDING while any record is undecided, then OUTCOME_FAILED if any failed, else OUTCOME_ACKED."""
        cdef Segment segment
        cdef int32_t found = OUTCOME_ACKED if self.refused is None else OUTCOME_FAILED
        cdef int32_t one
        for segment in self.resolved():
            one = segment.outcome()
            if one == OUTCOME_SPLIT:
                return self.outcome()
            if one == OUTCOME_PENDING:
                return OUTCOME_PENDING
            if one == OUTCOME_FAILED:
                found = OUTCOME_FAILED
        return found

    def failures(self):
        """The records that have failed up to now: an iterator of (index, exception), by index.

        Exceptions are made as the iterator goes on; each says in ``persisted`` whether its record may have been
        written all the same.
        """
        cdef Segment segment
        cdef int64_t at, position
        failed = []
        for segment in self.resolved():
            if segment.outcome() == OUTCOME_FAILED:
                for at in range(segment.count):
                    failed.append((self.index_at(segment.position + at), segment, at))
        if self.order != NULL:
            failed.sort(key=_first)
        refused = [self.index_at(position) for position in range(self.n_appended, self.length)]
        if self.order != NULL:
            refused.sort()
        return _failures(failed, refused, self.refused)

    cdef object first_error(self):
        """The exception of the failed record with the smallest index, None: there is none."""
        for _, error in self.failures():
            return error
        return None

    # -- as DeliveryFuture

    def get(self, timeout=None):
        """Wait until every record is decided.

        Arguments:
            timeout: seconds; None waits as long as it takes, which delivery.timeout.ms bounds.

        Returns:
            DeliveryReports: where the records are, by index.

        Raises:
            KafkaTimeoutError: the time is over; the undecided records are still on their way.
            KafkaError: the error of the first record, by index, that failed. ``failures()`` has all of them.
        """
        cdef int64_t deadline = -1
        cdef DeliveryFuture one
        if timeout is not None:
            deadline = kp_monotonic_us() + <int64_t>(min(max(<double>timeout, 0), 1e9) * 1e6)
        while True:
            one = self.undecided()
            if one is None:
                break
            if not one.wait(None if deadline < 0 else max(deadline - kp_monotonic_us(), 0) / 1e6):
                error = one.batch.make_error_code(ERROR_WAIT_TIMED_OUT)
                error.args = (f"{self.length - self.acked_count - self.failed_count} of {self.length} records are "
                              f"not decided yet; of the first of them: {error.args[0]}",)
                raise error
        if self.outcome() == OUTCOME_FAILED:
            raise self.first_error()
        return new_reports(self)

    def result(self, timeout=None):
        """The same as ``get()``."""
        return self.get(timeout)

    def done(self):
        """Whether every record is decided."""
        return self.undecided() is None

    @property
    def is_done(self):
        """Whether every record is decided."""
        return self.undecided() is None

    def succeeded(self):
        """Whether every record was acknowledged."""
        return self.outcome() == OUTCOME_ACKED

    def failed(self):
        """Whether every record is decided and at least one failed."""
        return self.outcome() == OUTCOME_FAILED

    @property
    def value(self):
        """The DeliveryReports when every record was acknowledged, else None."""
        return new_reports(self) if self.outcome() == OUTCOME_ACKED else None

    @property
    def exception(self):
        """The exception of the first record, by index, that failed; None while one is undecided, or if none did."""
        return self.first_error() if self.outcome() == OUTCOME_FAILED else None

    def retriable(self):
        """Whether any record failed and every one that did failed with an error that sending it again may overcome."""
        if self.outcome() != OUTCOME_FAILED:
            return False
        return all(bool(error.retriable) for _, error in self.failures())

    def cancel(self):
        """False: records that were accepted cannot be called back. See KafkaProducer.purge()."""
        return False

    def cancelled(self):
        """False, always."""
        return False

    # -- as a sequence

    @property
    def appended(self):
        """Records that are on their way or decided: all, unless the call ended with an error on the way."""
        return self.n_appended

    @property
    def acked_count(self):
        """Records that were acknowledged up to now."""
        return self.count(OUTCOME_ACKED)

    @property
    def failed_count(self):
        """Records that have failed up to now."""
        return self.count(OUTCOME_FAILED) + self.length - self.n_appended

    cdef int64_t count(self, int32_t outcome) except -1:
        cdef Segment segment
        cdef int64_t total = 0
        for segment in self.resolved():
            if segment.outcome() == outcome:
                total += segment.count
        return total

    def offsets(self):
        """The records' offsets in their partitions, by index.

        Returns:
            array.array: of type "q"; -1 where an offset is not known: see RecordMetadata.offset, and undecided records.
        """
        cdef Segment segment
        cdef int64_t at
        cdef Py_buffer view
        made = array("q", b"\xff" * (8 * self.length))
        PyObject_GetBuffer(made, &view, PyBUF_WRITABLE)
        for segment in self.resolved():
            if segment.outcome() == OUTCOME_ACKED and segment.batch.b.base_offset >= 0:
                for at in range(segment.count):
                    (<int64_t*>view.buf)[self.index_at(segment.position + at)] = (
                        segment.batch.b.base_offset + segment.first + at)
        PyBuffer_Release(&view)
        return made

    def partitions(self):
        """The partitions that the records went to, by index.

        Returns:
            array.array: of type "i"; -1 for those that were not appended.
        """
        cdef Segment segment
        cdef int64_t at
        cdef Py_buffer view
        made = array("i", b"\xff" * (4 * self.length))
        PyObject_GetBuffer(made, &view, PyBUF_WRITABLE)
        for segment in self.resolved():
            for at in range(segment.count):
                (<int32_t*>view.buf)[self.index_at(segment.position + at)] = segment.batch.b.partition.index
        PyBuffer_Release(&view)
        return made

    def __len__(self):
        return self.length

    def __bool__(self):
        return True

    def __getitem__(self, index):
        """The DeliveryFuture of a record.

        Raises:
            IndexError: there is no such record.
            KafkaError: it was not appended; the error is the one that ended the call.
        """
        cdef int64_t position = self.position_of(checked_index(index, self.length))
        cdef Segment segment
        if position >= self.n_appended:
            raise self.refused
        segment = self.segment_of(position)
        return record_future(segment, position - segment.position)

    def __iter__(self):
        return map(self.__getitem__, range(self.length))

    # -- callbacks

    cdef int watch(self, int32_t kind, object callback) except -1:
        cdef DeliveryFuture one
        if not callable(callback):
            raise TypeError(f"a callback must be callable, got {type(callback).__name__}: {callback!r}")
        one = self.undecided()
        if one is None:
            run_callback(self, kind, callback)
        else:
            one.add(CALLBACK_DONE, partial(_watch_on, self, kind, callback))
        return 0

    def add_callback(self, callback, *args, **kwargs):
        """Call ``callback(*args, reports, **kwargs)`` once when every record is acknowledged; at once if they are.

        Callbacks run on the delivery thread. One that raises is logged. Returns the future itself.
        """
        self.watch(CALLBACK_SUCCESS, partial(callback, *args, **kwargs) if args or kwargs else callback)
        return self

    def add_errback(self, callback, *args, **kwargs):
        """Call ``callback(*args, exception, **kwargs)`` once when every record is decided and any failed.

        The exception is that of the first of them by index. See add_callback().
        """
        self.watch(CALLBACK_ERROR, partial(callback, *args, **kwargs) if args or kwargs else callback)
        return self

    def add_both(self, callback, *args, **kwargs):
        """Call ``callback(*args, reports_or_exception, **kwargs)`` either way. See add_callback()."""
        self.watch(CALLBACK_BOTH, partial(callback, *args, **kwargs) if args or kwargs else callback)
        return self

    def add_done_callback(self, callback):
        """Call ``callback(future)`` when every record is decided (the form of concurrent.futures)."""
        self.watch(CALLBACK_DONE, callback)

    def __await__(self):
        import asyncio
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        if self.undecided() is None:
            _settle(waiter, self)
        else:
            self.watch(CALLBACK_DONE, partial(_settle_from_thread, loop, waiter))
        return waiter.__await__()

    def __repr__(self):
        cdef int64_t acked = self.acked_count
        cdef int64_t failed = self.failed_count
        return (f"<BulkDeliveryFuture {self.topic} {self.length} records: {acked} acknowledged, {failed} failed, "
                f"{self.length - acked - failed} pending>")


cdef int64_t checked_index(object index, int64_t length) except -1:
    cdef object at = index.__index__()
    if at < 0:
        at += length
    if not 0 <= at < length:
        raise IndexError(f"record {index} of {length}")
    return at


def _first(entry):
    return entry[0]


def _failures(failed, refused, error):
    """Two sorted lists as one iterator of (index, exception)."""
    cdef Segment segment
    cdef Py_ssize_t next_refused = 0
    for index, segment, at in failed:
        while next_refused < len(refused) and refused[next_refused] < index:
            yield refused[next_refused], error
            next_refused += 1
        yield index, segment.batch.make_error(segment.first + <int32_t>at)
    for index in refused[next_refused:]:
        yield index, error


def _watch_on(BulkDeliveryFuture future, kind, callback, _):
    """A batch is decided: wait for the next one, or run the callback."""
    future.watch(kind, callback)


cdef int run_callback(BulkDeliveryFuture future, int32_t kind, object callback) except -1:
    try:
        if kind == CALLBACK_DONE:
            callback(future)
        elif future.outcome() == OUTCOME_ACKED:
            if kind != CALLBACK_ERROR:
                callback(new_reports(future))
        elif kind != CALLBACK_SUCCESS:
            callback(future.first_error())
    except BaseException as raised:
        import logging      # by now the engine has it; `import kprod` does without

        # SystemExit and KeyboardInterrupt have no meaning on the delivery thread either: delivery goes on.
        logging.getLogger("kprod.delivery").error(
            "delivery callback %r failed for %d records of %s", callback, future.length, future.topic,
            exc_info=(type(raised), raised, raised.__traceback__))
    return 0


def _settle(waiter, BulkDeliveryFuture future):
    """Give an asyncio future the outcome of all records."""
    if waiter.done():
        return
    if future.outcome() == OUTCOME_ACKED:
        waiter.set_result(new_reports(future))
    else:
        waiter.set_exception(future.first_error())


def _settle_from_thread(loop, waiter, future):
    """Settle `waiter` on its own loop; a loop that is closed by now has nobody who waits."""
    try:
        loop.call_soon_threadsafe(_settle, waiter, future)
    except RuntimeError:
        pass


cdef DeliveryReports new_reports(BulkDeliveryFuture future):
    cdef DeliveryReports reports = DeliveryReports.__new__(DeliveryReports)
    reports.future = future
    return reports


@cython.final
cdef class DeliveryReports:
    """The delivery reports of all records of a call: a sequence of RecordMetadata, each made when it is asked for."""
    cdef BulkDeliveryFuture future

    def __init__(self):
        raise TypeError("DeliveryReports objects come from bulk delivery futures and their callbacks")

    def offsets(self):
        """The records' offsets; see BulkDeliveryFuture.offsets()."""
        return self.future.offsets()

    def partitions(self):
        """The records' partitions; see BulkDeliveryFuture.partitions()."""
        return self.future.partitions()

    def __len__(self):
        return self.future.length

    def __getitem__(self, index):
        """The RecordMetadata of a record; for a slice a list of them.

        Raises:
            IndexError: there is no such record.
        """
        cdef int64_t position
        cdef Segment segment
        if isinstance(index, slice):
            return [self[i] for i in range(self.future.length)[index]]
        position = self.future.position_of(checked_index(index, self.future.length))
        segment = self.future.segment_of(position)
        return record_metadata(segment, position - segment.position)

    def __iter__(self):
        return map(self.__getitem__, range(self.future.length))

    def __repr__(self):
        return f"<DeliveryReports of {self.future.length} records of {self.future.topic}>"


Sequence.register(DeliveryReports)
