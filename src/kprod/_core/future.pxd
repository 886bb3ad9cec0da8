"""Batches as Python objects, and what refers to one record of a batch: futures and delivery reports."""
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t

from kprod._core.structs cimport kp_batch, kp_record_info

cdef enum:
    CALLBACK_SUCCESS = 1       # f(metadata)
    CALLBACK_ERROR = 2         # f(exception)
    CALLBACK_BOTH = 3          # f(metadata or exception)
    CALLBACK_DONE = 4          # f(future)


cdef extern from *:
    """
    #ifndef Py_GIL_DISABLED
    #define kp_only_reference(o) (Py_REFCNT(o) == 1)
    #elif PY_VERSION_HEX >= 0x030E0000
    #define kp_only_reference(o) PyUnstable_Object_IsUniquelyReferenced(o)
    #else
    #define kp_only_reference(o) 0
    #endif
    """
    int kp_only_reference(PyObject* o)


cdef class Batch:
    cdef kp_batch b
    cdef object topic          # the Topic, which keeps kp_batch.partition alive
    cdef str topic_name
    cdef object reporter       # makes exceptions and logs for us, see kprod.engine
    cdef list children         # [(index of its first record here, Batch)] after a split

    cdef object make_error(self, int32_t index)
    cdef object make_error_code(self, int32_t code)
    cdef void drop_callbacks(self)
    cdef void release(self)
    cdef void clear(self)
    cdef int deliver(self) except -1
    cdef int run_callbacks(self) except -1


cdef class DeliveryFuture:
    cdef Batch batch
    cdef int32_t index

    cdef Batch whereabouts(self, int32_t* index)
    cdef int32_t outcome(self)
    cdef int wait(self, object timeout) except -1
    cdef int add(self, int32_t kind, object callback) except -1


cdef class RecordMetadata:
    cdef Batch batch
    cdef int32_t index

    cdef tuple fields(self)


ctypedef int (*network_wait)(kp_batch* b, int64_t most_us) noexcept nogil

# How a thread in DeliveryFuture.get() waits for the network by itself, 0: it cannot; set by the module io.
cdef void set_network_wait(network_wait function)
cdef object running_hub()
cdef object waiting_functions()
cdef void publish_outcome(kp_batch* b, int32_t outcome) noexcept nogil
