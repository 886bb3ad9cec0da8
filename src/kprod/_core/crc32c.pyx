"""CRC-32C (Castagnoli), the checksum of record batches.

The fastest implementation that the processor has is chosen at import. The
environment variable ``KPROD_CRC32C`` forces a tier: ``sw`` (portable) or ``hw``
(the import fails where there is no hardware tier).
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t

cdef extern from "kp_crc32c.h" nogil:
    ctypedef uint32_t (*kp_crc32c_fn)(uint32_t crc, const uint8_t* p, size_t n) noexcept
    ctypedef struct kp_crc32c_tier:
        const char* name
        kp_crc32c_fn update
    kp_crc32c_tier* kp_crc32c_tiers
    int kp_crc32c_tier_count
    kp_crc32c_fn kp_crc32c
    void kp_crc32c_init()

# Below this a thread switch costs more than the CRC.
cdef enum:
    RELEASE_GIL_ABOVE = 65536


cdef uint32_t crc32c_update(uint32_t crc, const uint8_t* p, size_t n) noexcept nogil:
    return kp_crc32c(crc, p, n)


cdef kp_crc32c_fn find_tier(str name) except NULL:
    cdef int i
    for i in range(kp_crc32c_tier_count):
        if kp_crc32c_tiers[i].name.decode("ascii") == name:
            return kp_crc32c_tiers[i].update
    raise ValueError(f"implementation is {name!r}: this processor has {', '.join(implementations())}")


cdef uint32_t checksum(kp_crc32c_fn update, object data, uint32_t value) except? 0:
    cdef Py_buffer view
    cdef uint32_t crc
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    if view.len > RELEASE_GIL_ABOVE:
        with nogil:
            crc = update(value, <const uint8_t*>view.buf, <size_t>view.len)
    else:
        crc = update(value, <const uint8_t*>view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return crc


def crc32c(data, value=0, *, implementation=None):
    """The CRC-32C of *data*.

    Args:
        data: contiguous bytes-like object.
        value: the CRC of the bytes that come before *data*, 0..4294967295.
        implementation: one of :func:`implementations`, instead of the chosen one.

    Raises:
        TypeError: *data* is not bytes-like.
        OverflowError: *value* does not fit 32 bits.
        ValueError: this processor has no such *implementation*.
    """
    return checksum(kp_crc32c if implementation is None else find_tier(implementation), data, value)


def implementation():
    """The name of the chosen implementation.

    ``sw``, ``sse4.2``, ``sse4.2+pclmul`` or ``armv8-crc``.
    """
    cdef int i
    for i in range(kp_crc32c_tier_count):
        if kp_crc32c_tiers[i].update == kp_crc32c:
            return kp_crc32c_tiers[i].name.decode("ascii")


def implementations():
    """The names of all implementations that this processor can run, slowest first."""
    cdef int i
    return tuple([kp_crc32c_tiers[i].name.decode("ascii") for i in range(kp_crc32c_tier_count)])


cdef int choose(str tier) except -1:
    global kp_crc32c
    if tier == "sw":
        kp_crc32c = kp_crc32c_tiers[0].update
    elif tier == "hw":
        if kp_crc32c_tier_count == 1:
            raise ImportError("KPROD_CRC32C=hw: this processor has no CRC-32C instruction that kprod knows; "
                              "unset it")
    elif tier:
        raise ImportError(f"KPROD_CRC32C={tier}: must be 'sw', 'hw' or unset")
    return 0


kp_crc32c_init()
choose(os.environ.get("KPROD_CRC32C", ""))
