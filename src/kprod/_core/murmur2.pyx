"""The key hash of the Java producer: 32-bit MurmurHash2, seed 0x9747b28c."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t


cdef uint32_t hash_object(object data) except? 0:
    cdef Py_buffer view
    cdef uint32_t h
    if PyBytes_CheckExact(data):
        return murmur2_hash(<const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    h = murmur2_hash(<const uint8_t*>view.buf, view.len)
    PyBuffer_Release(&view)
    return h


def murmur2(data, /):
    """The hash of *data* as an unsigned 32-bit integer.

    Same value as ``org.apache.kafka.common.utils.Utils.murmur2`` taken as
    unsigned, and as kafka-python's ``murmur2``.

    Args:
        data: contiguous bytes-like object.

    Raises:
        TypeError: *data* is not bytes-like.
    """
    return hash_object(data)


def partition_for_key(key, num_partitions, /):
    """The partition on which the Java producer puts *key*.

    ``(murmur2(key) & 0x7fffffff) % num_partitions``: the sign bit is cleared,
    not negated. The empty key is hashed like any other.

    Args:
        key: the serialized key, bytes-like. None has no hash: records without a
            key are placed by the sticky partitioner.
        num_partitions: how many partitions the topic has, 1 or more.

    Raises:
        TypeError: *key* is not bytes-like.
        ValueError: *num_partitions* is not in 1..2147483647.
    """
    if not 0 < num_partitions <= 0x7fffffff:
        raise ValueError(f"num_partitions is {num_partitions!r}: must be in 1..2147483647")
    return <int32_t>((hash_object(key) & 0x7fffffffu) % <uint32_t>num_partitions)
