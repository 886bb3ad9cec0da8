"""The part of KafkaProducer that runs for every record: serialise, choose a partition, append."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact
from libc.stdint cimport int32_t, int64_t, uint8_t

from kprod._core.accumulator cimport Accumulator, Topic, choose_round_robin
from kprod._core.future cimport DeliveryFuture
from kprod._core.headers cimport encode_headers, free_headers, kp_headers
from kprod._core.murmur2 cimport murmur2_partition
from kprod._core.platform cimport kp_load32, kp_load32_relaxed, kp_monotonic_us
from kprod._core.record_batch cimport RECORD_OVERHEAD_BOUND, kp_record, kp_record_fixed_size
from kprod._core.structs cimport BATCH_OVERHEAD

cdef enum:
    STICKY = -1


cdef int raise_not_bytes(object data, str which) except -1:
    if PyUnicode_Check(data):
        raise TypeError(
            f"{which} must be bytes or None, got str: encode it, or set {which}_serializer (for instance "
            f"{which}_serializer=lambda v: v.encode('utf-8'))")
    raise TypeError(
        f"{which} must be bytes, a contiguous bytes-like object or None after serialization, got "
        f"{type(data).__name__}: set {which}_serializer to something that turns it into bytes")


cdef int take_buffer(object data, Py_buffer* view, str which) except -1:
    if PyUnicode_Check(data):
        raise_not_bytes(data, which)
    try:
        PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        raise_not_bytes(data, which)
    return 0


cdef class ProducerCore:
    """``send()`` and what it needs. KafkaProducer derives from it and sets it up with _bind()."""

    def _bind(self, engine, Accumulator accumulator not None, *, key_unary, value_unary, key_full, value_full, choose,
              on_delivery, double max_block_s, Py_ssize_t max_request_size, bint round_robin, bint ignore_keys):
        """Connect the class to its engine; called once, by the constructor."""
        self._engine = engine
        self._topics = {}
        self._key_unary = key_unary
        self._value_unary = value_unary
        self._key_full = key_full
        self._value_full = value_full
        self._choose = choose
        self._on_delivery = on_delivery
        self._max_block_s = max_block_s
        self._max_request_size = max_request_size
        self._round_robin = round_robin
        self._ignore_keys = ignore_keys
        # Last: send() works from here on.
        self.accumulator = accumulator

    cdef Topic find_topic(self, object topic):
        """The slow path: a topic that was not sent to before. Waits for its metadata up to max.block.ms."""
        found = self._engine.topic_for_send(topic, self._max_block_s)
        self._topics[topic] = found
        return found

    def _forget_topic(self, topic):
        """Let the next send() to a topic look it up anew."""
        if self._topics is not None:
            self._topics.pop(topic, None)

    cdef int check_partition(self, Topic topic, object partition) except -2:
        cdef int64_t index
        cdef int32_t count = kp_load32(&topic.t.n_partitions)
        if not PyLong_CheckExact(partition):
            if isinstance(partition, bool) or not hasattr(partition, "__index__"):
                raise TypeError(f"partition must be int or None, got {type(partition).__name__}: {partition!r}")
            partition = partition.__index__()
        if partition < 0:
            raise ValueError(f"partition must be >= 0, got {partition}")
        if partition >= count:
            # The topic may have grown: the next send() will know.
            self._engine.request_refresh()
            raise ValueError(
                f"partition {partition} of topic {topic.name!r} does not exist: the topic has {count} partitions "
                f"(0 to {count - 1})")
        index = partition
        return <int>index

    cdef int choose_custom(self, Topic topic, object key, object value, object key_data, object value_data) except -2:
        chosen = self._choose(topic.name, key, value, key_data, value_data, self._engine.cluster)
        if chosen is None:
            return STICKY
        return self.check_partition(topic, chosen)

    def send(self, topic, value=None, key=None, headers=None, partition=None, timestamp_ms=None, on_delivery=None):
        """Send one record. Returns at once; the record leaves with its batch.

        Arguments:
            topic: str.
            value: what value_serializer takes; without one bytes, a bytes-like object, or None (a tombstone).
            key: the same for key_serializer. Decides the partition unless ``partition`` is given. b"" is a key.
            headers: a list of (str, bytes | None) pairs or a mapping.
            partition: int; None lets the partitioner choose.
            timestamp_ms: int, ms since 1970; None takes the present.
            on_delivery: ``f(error, metadata)``, called on the delivery thread; error is None or a KafkaError.

        Returns:
            DeliveryFuture: what becomes of the record.

        Raises:
            TypeError: an argument has the wrong type, or a serializer returned something else than bytes.
            ValueError: an argument is out of range: partition, timestamp, topic name.
            MessageSizeTooLargeError: the record is larger than max.request.size.
            KafkaTimeoutError: no metadata for the topic (BufferExhaustedError: no buffer memory) within max.block.ms.
            ProducerClosedError, ForkedProcessError, KafkaError: the producer takes no records any more.

            What a serializer or partitioner raises reaches the caller as it is.
        """
        cdef Topic t
        cdef PyObject* found
        cdef DeliveryFuture future
        cdef kp_record r
        cdef kp_headers h
        cdef Py_buffer key_view
        cdef Py_buffer value_view
        cdef int held = 0          # bit 0: key_view, bit 1: value_view, bit 2: h
        cdef int32_t chosen
        cdef object key_data = key
        cdef object value_data = value
        cdef double max_block_s
        cdef int64_t started
        if self.accumulator is None:
            raise RuntimeError("KafkaProducer.__init__() has not been called")
        if kp_load32_relaxed(&self.accumulator.a.gate):
            self.accumulator.check_gate()
        max_block_s = self._max_block_s
        found = PyDict_GetItem(self._topics, topic) if PyUnicode_CheckExact(topic) else NULL
        if found != NULL:
            t = <Topic>found
        else:
            started = kp_monotonic_us()
            t = self.find_topic(topic)
            max_block_s -= (kp_monotonic_us() - started) / 1e6
        if key is not None:
            if self._key_unary is not None:
                key_data = self._key_unary(key)
            elif self._key_full is not None:
                key_data = self._key_full(t.name, headers, key)
        if value is not None:
            if self._value_unary is not None:
                value_data = self._value_unary(value)
            elif self._value_full is not None:
                value_data = self._value_full(t.name, headers, value)
        if on_delivery is None:
            on_delivery = self._on_delivery
        elif not callable(on_delivery):
            raise TypeError(f"on_delivery must be callable as f(error, metadata), got {type(on_delivery).__name__}")
        if timestamp_ms is None:
            r.timestamp = -1
        else:
            if isinstance(timestamp_ms, bool) or not hasattr(timestamp_ms, "__index__"):
                raise TypeError(f"timestamp_ms must be int (ms since 1970) or None, got "
                                f"{type(timestamp_ms).__name__}: {timestamp_ms!r}")
            if not 0 <= timestamp_ms <= 0x7fffffffffffffff:
                raise ValueError(f"timestamp_ms must be in [0, 2^63 - 1] (ms since 1970), got {timestamp_ms}")
            r.timestamp = timestamp_ms
        r.key = r.value = r.headers = NULL
        r.key_size = r.value_size = -1
        r.headers_size = 0
        r.header_size = -1
        try:
            if key_data is None:
                pass
            elif PyBytes_CheckExact(key_data):
                r.key = <const uint8_t*>PyBytes_AS_STRING(key_data)
                r.key_size = PyBytes_GET_SIZE(key_data)
            else:
                take_buffer(key_data, &key_view, "key")
                held |= 1
                r.key = <const uint8_t*>key_view.buf
                r.key_size = key_view.len
            if value_data is None:
                pass
            elif PyBytes_CheckExact(value_data):
                r.value = <const uint8_t*>PyBytes_AS_STRING(value_data)
                r.value_size = PyBytes_GET_SIZE(value_data)
            else:
                take_buffer(value_data, &value_view, "value")
                held |= 2
                r.value = <const uint8_t*>value_view.buf
                r.value_size = value_view.len
            if headers is not None:
                encode_headers(headers, &h)
                held |= 4
                r.headers = h.data
                r.headers_size = h.size
                r.header_size = h.header_size
            if partition is not None:
                chosen = self.check_partition(t, partition)
            elif self._choose is not None:
                chosen = self.choose_custom(t, key, value, key_data, value_data)
            elif r.key_size >= 0 and not self._ignore_keys and not self._round_robin:
                chosen = murmur2_partition(r.key, r.key_size, kp_load32_relaxed(&t.t.n_partitions))
            elif self._round_robin:
                chosen = choose_round_robin(&t.t)
            else:
                chosen = STICKY
            r.fixed_size = kp_record_fixed_size(&r)
            if r.fixed_size + RECORD_OVERHEAD_BOUND + BATCH_OVERHEAD > self._max_request_size:
                raise self._engine.too_large(
                    t.name, r.fixed_size + RECORD_OVERHEAD_BOUND + BATCH_OVERHEAD, self._max_request_size)
            future = DeliveryFuture.__new__(DeliveryFuture)
            self.accumulator.append(t, chosen, &r, future, on_delivery, headers, max_block_s)
            return future
        finally:
            if held:
                if held & 1:
                    PyBuffer_Release(&key_view)
                if held & 2:
                    PyBuffer_Release(&value_view)
                if held & 4:
                    free_headers(&h)
