"""The part of KafkaProducer that runs for every record: serialise, choose a partition, append.

``send()`` and ``send_nowait()`` are plain C methods (METH_FASTCALL) rather than Cython ones: with this much work per
call, putting seven arguments with their defaults into place would be a tenth of it. They are added to the class at
the end of this module, and take borrowed references as they come; NULL stands for None and for what was not given.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.unicode cimport PyUnicode_Check, PyUnicode_CheckExact
from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.string cimport memset

from kprod._core.accumulator cimport Accumulator, Topic, choose_round_robin
from kprod._core.append cimport append
from kprod._core.future cimport Batch, DeliveryFuture
from kprod._core.headers cimport encode_headers, free_headers, kp_headers
from kprod._core.murmur2 cimport murmur2_partition
from kprod._core.platform cimport kp_load32, kp_load32_relaxed, kp_load_ptr, kp_monotonic_us, kp_store_ptr
from kprod._core.record_batch cimport RECORD_OVERHEAD_BOUND, kp_record, kp_record_fixed_size
from kprod._core.structs cimport BATCH_OVERHEAD

cdef extern from *:
    """
    /* What PyCallable_Check() looks at, without a call. */
    #define kp_is_callable(o) (Py_TYPE(o)->tp_call != NULL)
    """
    int is_callable "kp_is_callable"(PyObject* o) nogil

cdef extern from "Python.h":
    # Of what is only borrowed, without counting references.
    int is_exact_bytes "PyBytes_CheckExact"(PyObject* o) nogil
    const uint8_t* bytes_data "(const uint8_t *)PyBytes_AS_STRING"(PyObject* o) nogil
    Py_ssize_t bytes_size "PyBytes_GET_SIZE"(PyObject* o) nogil
    PyObject* tuple_item "PyTuple_GET_ITEM"(PyObject* o, Py_ssize_t i) nogil
    Py_ssize_t tuple_size "PyTuple_GET_SIZE"(PyObject* o) nogil
    PyObject* Py_None

    int METH_FASTCALL
    int METH_KEYWORDS
    ctypedef struct PyTypeObject:
        PyObject* tp_dict
    ctypedef void* PyCFunction
    ctypedef struct PyMethodDef:
        const char* ml_name
        PyCFunction ml_meth
        int ml_flags
        const char* ml_doc
    object PyDescr_NewMethod(PyTypeObject* type, PyMethodDef* method)
    void PyType_Modified(PyTypeObject* type)

cdef enum:
    STICKY = -1

cdef tuple ARGUMENT_NAMES = ("topic", "value", "key", "headers", "partition", "timestamp_ms", "on_delivery")
# Borrowed from there.
cdef PyObject* on_delivery_name = tuple_item(<PyObject*>ARGUMENT_NAMES, ON_DELIVERY)


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
    """``send()``, ``send_nowait()`` and what they need. KafkaProducer derives from it and sets it up with _bind()."""

    def __cinit__(self):
        memset(self.recent, 0, sizeof(self.recent))

    def _bind(self, engine, Accumulator accumulator not None, *, key_unary, value_unary, key_full, value_full, choose,
              on_delivery, double max_block_s, Py_ssize_t max_request_size, bint round_robin, bint ignore_keys,
              interceptors=None):
        """Connect the class to its engine; called once, by the constructor."""
        self._engine = engine
        self._topics = {}
        self._key_unary = key_unary
        self._value_unary = value_unary
        self._key_full = key_full
        self._value_full = value_full
        self._serializes_key = key_unary is not None or key_full is not None
        self._serializes_value = value_unary is not None or value_full is not None
        self._choose = choose
        self._on_delivery = on_delivery
        self._max_block_s = max_block_s
        self._max_request_size = max_request_size
        self._round_robin = round_robin
        self._ignore_keys = ignore_keys
        self._interceptors = interceptors
        # Last: send() works from here on. Without interceptors it does not even ask whether there are any.
        self.appends_to = accumulator
        if interceptors is None:
            self.accumulator = accumulator

    cdef Topic find_topic(self, object topic):
        """The slow path: a topic that was not sent to before. Waits for its metadata up to max.block.ms."""
        found = self._engine.topic_for_send(topic, self._max_block_s)
        self._topics[topic] = found
        return found

    cdef PyObject* look_up_topic(self, object topic, double* max_block_s) except NULL:
        """A topic that was not used just before, borrowed; takes what it waits off `max_block_s`."""
        cdef int64_t started
        cdef object found = self._topics.get(topic) if PyUnicode_CheckExact(topic) else None
        if found is None:
            started = kp_monotonic_us()
            found = self.find_topic(topic)
            max_block_s[0] -= (kp_monotonic_us() - started) / 1e6
        # Under the name that it was first sent to: callers have most likely got the same object.
        kp_store_ptr(<void**>&self.recent[recent_slot(<PyObject*>(<Topic>found).name)], <PyObject*>found)
        return <PyObject*>found

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

    cdef object serialize_key(self, Topic topic, object key, PyObject* headers):
        if self._key_unary is not None:
            return self._key_unary(key)
        return self._key_full(topic.name, None if headers == NULL else <object>headers, key)

    cdef object serialize_value(self, Topic topic, object value, PyObject* headers):
        if self._value_unary is not None:
            return self._value_unary(value)
        return self._value_full(topic.name, None if headers == NULL else <object>headers, value)


# ------------------------------------------------------------------------------------------------ arguments

cdef int bind_keywords(str function, int n_arguments, PyObject** values, Py_ssize_t n_positional, PyObject* names,
                       PyObject** given) except -1:
    cdef Py_ssize_t i
    cdef int at
    cdef PyObject* name
    for i in range(tuple_size(names)):
        name = tuple_item(names, i)
        # Names in code are interned: they are the same object, or a name that does not occur in any code.
        at = 0
        while at < n_arguments and tuple_item(<PyObject*>ARGUMENT_NAMES, at) != name:
            at += 1
        if at == n_arguments:
            if <object>name not in ARGUMENT_NAMES[:n_arguments]:
                raise TypeError(f"{function}() got an unexpected keyword argument {<object>name!r}: it takes "
                                f"{', '.join(ARGUMENT_NAMES[:n_arguments])}")
            at = ARGUMENT_NAMES.index(<object>name)
        if at < n_positional or given[at] != NULL:
            raise TypeError(f"{function}() got multiple values for argument {<object>name!r}")
        given[at] = values[n_positional + i]
    for i in range(VALUE, n_arguments):
        if given[i] == Py_None:
            given[i] = NULL
    return 0


cdef inline int bind_arguments(str function, int n_arguments, PyObject** values, Py_ssize_t n_positional,
                               PyObject* names, PyObject** given) except -1:
    """Sort the arguments of a call into `given`, ARGUMENTS long: borrowed references, NULL for None."""
    cdef Py_ssize_t i
    if n_positional > n_arguments:
        raise TypeError(
            f"{function}() takes from 1 to {n_arguments} positional arguments but {n_positional} were given")
    given[VALUE] = given[KEY] = given[HEADERS] = given[PARTITION] = given[TIMESTAMP_MS] = given[ON_DELIVERY] = NULL
    given[TOPIC] = values[0] if n_positional > 0 else NULL
    for i in range(VALUE, n_positional):
        if values[i] != Py_None:
            given[i] = values[i]
    if names != NULL:
        if (n_positional <= ON_DELIVERY < n_arguments and tuple_size(names) == 1
                and tuple_item(names, 0) == on_delivery_name):
            # The keyword that is mostly given, and mostly alone.
            if values[n_positional] != Py_None:
                given[ON_DELIVERY] = values[n_positional]
        else:
            bind_keywords(function, n_arguments, values, n_positional, names, given)
    if given[TOPIC] == NULL:
        raise TypeError(f"{function}() missing 1 required positional argument: 'topic'")
    return 0


cdef int sort_arguments(str function, int n_arguments, PyObject** values, Py_ssize_t n_positional, PyObject* names,
                        PyObject** given) except -1:
    """bind_arguments() for other modules."""
    return bind_arguments(function, n_arguments, values, n_positional, names, given)


# ------------------------------------------------------------------------------------------------ one record

cdef inline int recent_slot(PyObject* name) noexcept nogil:
    return (<uintptr_t>name >> 4 ^ <uintptr_t>name >> 9) % RECENT_TOPICS


cdef int64_t timestamp_of(object timestamp_ms) except -1:
    if isinstance(timestamp_ms, bool) or not hasattr(timestamp_ms, "__index__"):
        raise TypeError(f"timestamp_ms must be int (ms since 1970) or None, got "
                        f"{type(timestamp_ms).__name__}: {timestamp_ms!r}")
    if not 0 <= timestamp_ms <= 0x7fffffffffffffff:
        raise ValueError(f"timestamp_ms must be in [0, 2^63 - 1] (ms since 1970), got {timestamp_ms}")
    return timestamp_ms


cdef int append_record(ProducerCore self, Accumulator accumulator, PyObject** given, PyObject** owner,
                       int32_t* index) except -1:
    """Serialise one record, choose its partition, append it. `owner` and `index` are those of append()."""
    # Borrowed, as in the rest of this function: on free-threaded Python counting the references of an object that all
    # threads use is what they wait for. Topics live as long as the engine.
    cdef PyObject* topic
    cdef PyObject* key = given[KEY]
    cdef PyObject* value = given[VALUE]
    cdef PyObject* on_delivery = given[ON_DELIVERY]
    cdef object key_made = None         # what the serializers returned
    cdef object value_made = None
    cdef kp_record r
    cdef kp_headers h
    cdef Py_buffer key_view
    cdef Py_buffer value_view
    cdef int held = 0                   # bit 0: key_view, bit 1: value_view, bit 2: h
    cdef int32_t chosen
    cdef double max_block_s = self._max_block_s
    if accumulator is None:
        return append_intercepted(self, given, owner, index)
    if kp_load32_relaxed(&accumulator.a.gate):
        accumulator.check_gate()
    topic = <PyObject*>kp_load_ptr(<void**>&self.recent[recent_slot(given[TOPIC])])
    if topic == NULL or <PyObject*>(<Topic>topic).name != given[TOPIC]:
        topic = self.look_up_topic(<object>given[TOPIC], &max_block_s)
    if key != NULL and self._serializes_key:
        key_made = self.serialize_key(<Topic>topic, <object>key, given[HEADERS])
        key = <PyObject*>key_made if key_made is not None else NULL
    if value != NULL and self._serializes_value:
        value_made = self.serialize_value(<Topic>topic, <object>value, given[HEADERS])
        value = <PyObject*>value_made if value_made is not None else NULL
    if on_delivery == NULL:
        if self._on_delivery is not None:
            on_delivery = <PyObject*>self._on_delivery
    elif not is_callable(on_delivery):
        raise TypeError(
            f"on_delivery must be callable as f(error, metadata), got {type(<object>on_delivery).__name__}")
    r.timestamp = -1 if given[TIMESTAMP_MS] == NULL else timestamp_of(<object>given[TIMESTAMP_MS])
    r.key = r.value = r.headers = NULL
    r.key_size = r.value_size = -1
    r.headers_size = 0
    r.header_size = -1
    try:
        if key != NULL:
            if is_exact_bytes(key):
                r.key = bytes_data(key)
                r.key_size = bytes_size(key)
            else:
                take_buffer(<object>key, &key_view, "key")
                held |= 1
                r.key = <const uint8_t*>key_view.buf
                r.key_size = key_view.len
        if value != NULL:
            if is_exact_bytes(value):
                r.value = bytes_data(value)
                r.value_size = bytes_size(value)
            else:
                take_buffer(<object>value, &value_view, "value")
                held |= 2
                r.value = <const uint8_t*>value_view.buf
                r.value_size = value_view.len
        if given[HEADERS] != NULL:
            encode_headers(<object>given[HEADERS], &h)
            held |= 4
            r.headers = h.data
            r.headers_size = h.size
            r.header_size = h.header_size
        if given[PARTITION] != NULL:
            chosen = self.check_partition(<Topic>topic, <object>given[PARTITION])
        elif self._choose is not None:
            chosen = self.choose_custom(
                <Topic>topic, None if given[KEY] == NULL else <object>given[KEY],
                None if given[VALUE] == NULL else <object>given[VALUE],
                None if key == NULL else <object>key, None if value == NULL else <object>value)
        elif self._round_robin:
            chosen = choose_round_robin(&(<Topic>topic).t)
        elif r.key_size >= 0 and not self._ignore_keys:
            # Not relaxed: the array that is read after this must have as many.
            chosen = murmur2_partition(r.key, r.key_size, kp_load32(&(<Topic>topic).t.n_partitions))
        else:
            chosen = STICKY
        r.fixed_size = kp_record_fixed_size(&r)
        if r.fixed_size + RECORD_OVERHEAD_BOUND + BATCH_OVERHEAD > self._max_request_size:
            raise self._engine.too_large(
                (<Topic>topic).name, r.fixed_size + RECORD_OVERHEAD_BOUND + BATCH_OVERHEAD, self._max_request_size)
        append(accumulator, <Topic>topic, chosen, &r, on_delivery,
               given[HEADERS] if accumulator.a.keep_headers else NULL, max_block_s, owner, index)
    finally:
        if held:
            if held & 1:
                PyBuffer_Release(&key_view)
            if held & 2:
                PyBuffer_Release(&value_view)
            if held & 4:
                free_headers(&h)
    return 0


cdef int append_intercepted(ProducerCore self, PyObject** given, PyObject** owner, int32_t* index) except -1:
    """append_record() of what interceptors make of a record; they hear of its end as well."""
    cdef PyObject* changed[ARGUMENTS]
    cdef int i
    cdef tuple fields
    if self._interceptors is None:
        raise RuntimeError("KafkaProducer.__init__() has not been called")
    on_delivery = self._on_delivery if given[ON_DELIVERY] == NULL else <object>given[ON_DELIVERY]
    callback = self._interceptors.callback(on_delivery, owner != NULL)
    record = self._interceptors.on_send(*[None if given[i] == NULL else <object>given[i] for i in range(ON_DELIVERY)])
    fields = tuple(record)
    for i in range(ON_DELIVERY):
        changed[i] = tuple_item(<PyObject*>fields, i)
        if i > TOPIC and changed[i] == Py_None:
            changed[i] = NULL
    changed[ON_DELIVERY] = <PyObject*>callback
    try:
        append_record(self, self.appends_to, changed, owner, index)
    except BaseException as error:
        self._interceptors.on_refused(record, error)
        raise
    return 0


# ------------------------------------------------------------------------------------------------ the methods

cdef object send_fastcall(object self, PyObject** values, Py_ssize_t n_positional, PyObject* names):
    cdef PyObject* given[ARGUMENTS]
    cdef PyObject* accumulator = <PyObject*>(<ProducerCore>self).accumulator
    cdef PyObject* owner = NULL
    cdef int32_t index = 0
    cdef DeliveryFuture future
    bind_arguments("send", ARGUMENTS, values, n_positional, names, given)
    # First, so that a record that was accepted has one.
    future = DeliveryFuture.__new__(DeliveryFuture)
    append_record(<ProducerCore>self, <Accumulator>accumulator, given, &owner, &index)
    future.batch = <Batch>owner
    future.index = index
    Py_DECREF(<object>owner)
    return future


cdef object send_nowait_fastcall(object self, PyObject** values, Py_ssize_t n_positional, PyObject* names):
    cdef PyObject* given[ARGUMENTS]
    cdef PyObject* accumulator = <PyObject*>(<ProducerCore>self).accumulator
    bind_arguments("send_nowait", ON_DELIVERY, values, n_positional, names, given)
    append_record(<ProducerCore>self, <Accumulator>accumulator, given, NULL, NULL)
    return None


# Their first lines are where inspect.signature() finds the signatures.
cdef bytes SEND_DOC = b"""send($self, /, topic, value=None, key=None, headers=None, partition=None, timestamp_ms=None, \
on_delivery=None)
--

Send one record. Returns at once; the record leaves with its batch.

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
    Exception: what a serializer or partitioner raises reaches the caller as it is.
"""

cdef bytes SEND_NOWAIT_DOC = b"""send_nowait($self, /, topic, value=None, key=None, headers=None, partition=None, \
timestamp_ms=None)
--

Send one record whose outcome nobody asks for: the same as send(), without a future.

What send() raises is raised here as well, and records are delivered, retried and kept in order alike. A record that
fails later is counted in metrics() and given to the producer's ``on_delivery`` option; without that, failures are
logged as errors by ``kprod.delivery``: one line for a batch, and at most one a second with the number of those left
out.

Arguments:
    topic, value, key, headers, partition, timestamp_ms: those of send().
"""

cdef PyMethodDef METHODS[2]


cdef int add_method(int at, const char* name, PyCFunction function, const char* doc) except -1:
    METHODS[at].ml_name = name
    METHODS[at].ml_meth = function
    METHODS[at].ml_flags = METH_FASTCALL | METH_KEYWORDS
    METHODS[at].ml_doc = doc
    (<dict>(<PyTypeObject*>ProducerCore).tp_dict)[name.decode()] = PyDescr_NewMethod(
        <PyTypeObject*>ProducerCore, &METHODS[at])
    PyType_Modified(<PyTypeObject*>ProducerCore)
    return 0


add_method(0, "send", <PyCFunction>send_fastcall, SEND_DOC)
add_method(1, "send_nowait", <PyCFunction>send_nowait_fastcall, SEND_NOWAIT_DOC)
