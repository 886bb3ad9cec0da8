"""The part of KafkaProducer that runs for every record."""
from cpython.object cimport PyObject
from libc.stdint cimport int32_t

from kprod._core.accumulator cimport Accumulator, Topic

cdef enum:
    RECENT_TOPICS = 16

# The arguments of send(), in order; those of send_nowait() are the first ones.
cdef enum:
    TOPIC
    VALUE
    KEY
    HEADERS
    PARTITION
    TIMESTAMP_MS
    ON_DELIVERY
    ARGUMENTS


cdef class ProducerCore:
    cdef Accumulator accumulator  # None: send() takes the long way, through interceptors; or there is no engine
    cdef Accumulator appends_to  # the same, whether there are interceptors or not
    cdef object _interceptors   # kprod.interceptors.Interceptors, None: there are none
    cdef dict _topics           # Topic by name: only those with metadata
    cdef PyObject* recent[RECENT_TOPICS]  # [a] Topics by the address of their name, borrowed from _topics
    cdef object _engine
    cdef object _key_unary      # f(data), when that is all a serializer looks at
    cdef object _value_unary
    cdef object _key_full       # f(topic, headers, data)
    cdef object _value_full
    cdef bint _serializes_key
    cdef bint _serializes_value
    cdef object _choose         # custom partitioner, None: the core chooses
    cdef object _on_delivery    # the default callback
    cdef double _max_block_s
    cdef Py_ssize_t _max_request_size
    cdef bint _round_robin
    cdef bint _ignore_keys

    cdef Topic find_topic(self, object topic)
    cdef PyObject* look_up_topic(self, object topic, double* max_block_s) except NULL
    cdef int choose_custom(self, Topic topic, object key, object value, object key_data, object value_data) except -2
    cdef int check_partition(self, Topic topic, object partition) except -2
    cdef object serialize_key(self, Topic topic, object key, PyObject* headers)
    cdef object serialize_value(self, Topic topic, object value, PyObject* headers)


cdef int sort_arguments(str function, int n_arguments, PyObject** values, Py_ssize_t n_positional, PyObject* names,
                        PyObject** given) except -1
cdef int append_record(ProducerCore self, Accumulator accumulator, PyObject** given, PyObject** owner,
                       int32_t* index) except -1
