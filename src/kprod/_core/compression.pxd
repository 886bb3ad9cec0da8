"""Compression of record batches for other extension modules."""
from libc.stdint cimport uint8_t

# `buffer` compressed as the records section of a batch with codec id `codec`.
cpdef bytes compress(int codec, int level, object buffer)

# The most bytes that compress_into() makes of `n`; 0: it does not do this codec and level, compress() does.
cdef Py_ssize_t compressed_bound(int codec, int level, Py_ssize_t n) except -1

# The same as compress(), written to `target`, which has that many bytes; returns how many were written.
cdef Py_ssize_t compress_into(int codec, int level, const uint8_t* source, Py_ssize_t n, uint8_t* target) except -1
