"""The future of all records of one send_many() or send_columns()."""
from libc.stdint cimport int32_t, int64_t

from kprod._core.future cimport Batch, DeliveryFuture


cdef class Segment:
    cdef Batch batch
    cdef int64_t position      # of its first record among all of the call, in the order in which they were appended
    cdef int32_t first         # that record's index in the batch
    cdef int64_t count

    cdef int32_t outcome(self) noexcept


cdef class BulkDeliveryFuture:
    cdef list segments         # Segments by position; replaced as a whole when batches were split
    cdef int64_t length
    cdef int64_t n_appended    # records in segments; more are left only after an error
    cdef int32_t* order        # record index by position, NULL: the same
    cdef void* places          # int32_t*: position by record index, made when it is needed
    cdef object refused        # the error on account of which the rest was not appended
    cdef int64_t decided       # records before this position are known to be decided
    cdef str topic

    cdef int64_t index_at(self, int64_t position) noexcept
    cdef int64_t position_of(self, int64_t index) except -1
    cdef list resolved(self)
    cdef DeliveryFuture undecided(self)
    cdef Py_ssize_t place_of(self, list segments, int64_t position)
    cdef Segment segment_of(self, int64_t position)
    cdef object first_error(self)
    cdef int64_t count(self, int32_t outcome) except -1
    cdef int32_t outcome(self) except -1
    cdef int watch(self, int32_t kind, object callback) except -1


cdef DeliveryFuture record_future(Segment segment, int64_t at)
