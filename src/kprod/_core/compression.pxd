"""Compression of record batches for other extension modules."""

# `buffer` compressed as the records section of a batch with codec id `codec`.
cpdef bytes compress(int codec, int level, object buffer)
