"""The compression codecs of record batch v2, in one table.

Every codec is somebody else's library, imported when it is first used:

gzip    zlib of the standard library
snappy  cramjam
lz4     liblz4, which the package lz4 brings, called without Python; else
        cramjam (levels from 3 up: the package lz4, if it is there)
zstd    the package zstandard, else compression.zstd of the standard library
        (Python 3.14, PEP 784), else cramjam

cramjam has wheels for every platform and Python that kprod has wheels for,
the packages lz4 and zstandard have not: where there are several, the first
that can be imported is taken, ``Codec.implementation`` tells which. For lz4,
functions of liblz4 come first where the package's module exports them (not on
Windows): a library that gives the GIL away for the tenth of a millisecond that
a batch takes has to get it back from whoever took it meanwhile. cramjam comes
next because it writes to memory of ours: the package makes a bytes object of
64 KiB for every batch. On free-threaded Python the packages lz4 and zstandard
come last, since importing a module that does not declare to run without the
GIL switches the GIL on for the process; liblz4's functions are found without
importing it.

What is written is what the Java producer writes, since Java is what reads it:

gzip    one member, no file name, modification time 0
snappy  the framing of xerial's snappy-java: a header, then blocks of at most
        32 KiB of input, each a 4-byte length and a raw snappy block
lz4     an LZ4 frame with independent blocks of 64 KiB (Java refuses dependent
        ones), no content size, no checksums but the header's
        (cramjam from level 3 up: blocks have checksums)
zstd    one frame, with content size (consumers can allocate once)
"""

import os
import sys
import threading
import zlib

from cpython.buffer cimport PyBUF_READ, PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.limits cimport INT_MAX
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from kprod._core.endian cimport load_be32, store_be32

cimport cython

cdef extern from "kp_endian.h" nogil:
    uint32_t load_le32 "kp_load_le32"(const uint8_t* p)

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define KP_FREE_THREADED 1
    #else
    #define KP_FREE_THREADED 0
    #endif
    """
    int FREE_THREADED "KP_FREE_THREADED"

cdef extern from "kp_lz4.h" nogil:
    int kp_lz4_find(const char* path)
    int kp_lz4_fast(const char* source, char* target, int size, int capacity, int acceleration)
    int kp_lz4_slow(const char* source, char* target, int size, int capacity, int level)

# The codec ids are bits 0-2 of a batch's attributes (KIP-98, zstd: KIP-110).
cdef enum:
    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4

# The libraries that do the work; a codec's choice is one of these, UNDECIDED until it is first used.
cdef enum:
    UNDECIDED = 0
    ZLIB = 1
    CRAMJAM = 2
    LZ4_PACKAGE = 3
    ZSTANDARD = 4
    COMPRESSION_ZSTD = 5
    LIBLZ4 = 6

cdef tuple LIBRARIES = (None, "zlib", "cramjam", "lz4", "zstandard", "compression.zstd", "liblz4")
# By codec id, the best first.
cdef tuple CHOICES = (
    (),
    (ZLIB,),
    (CRAMJAM,),
    (LIBLZ4, CRAMJAM, LZ4_PACKAGE),
    (COMPRESSION_ZSTD, CRAMJAM, ZSTANDARD) if FREE_THREADED else (ZSTANDARD, COMPRESSION_ZSTD, CRAMJAM),
)
cdef int chosen[5]
chosen[:] = [UNDECIDED, ZLIB, UNDECIDED, UNDECIDED, UNDECIDED]
# What does lz4's levels from 3 up where cramjam does the others: it holds the GIL there.
cdef int chosen_slow_lz4 = UNDECIDED

cdef object cramjam = None
cdef object lz4_frame = None
cdef object zstandard = None
cdef object stdlib_zstd = None


@cython.final
cdef class Codec:
    """One row of the table: a compression codec and its levels.

    Attributes:
        id: the number in a batch's attributes.
        name: as in the option ``compression.type``.
        implementation: the library that does the work: "zlib", "cramjam", "liblz4", "lz4", "zstandard" or
            "compression.zstd"; None for ``none``. Asking imports it.
        min_level: lowest compression level, None for a codec without levels.
        max_level: highest compression level, None for a codec without levels.
        default_level: the level that is used when none is asked for, None for a codec without levels.
        level_rule: which levels are accepted, in words; None for a codec without levels.
    """

    cdef readonly int id
    cdef readonly str name
    cdef readonly object min_level
    cdef readonly object max_level
    cdef readonly object default_level
    cdef readonly str level_rule

    def __init__(self, id, name, levels, default_level, level_rule):
        self.id = id
        self.name = name
        self.min_level, self.max_level = levels
        self.default_level = default_level
        self.level_rule = level_rule

    @property
    def implementation(self):
        load(self.id)
        return LIBRARIES[chosen[self.id]]

    def __repr__(self):
        return f"<Codec {self.id} {self.name}>"


CODECS = (
    Codec(NONE, "none", (None, None), None, None),
    # Levels: Java's compression.gzip.level (KIP-390); zlib takes -1 as 6.
    Codec(GZIP, "gzip", (-1, 9), -1, "-1 (zlib's default) or 1..9"),
    Codec(SNAPPY, "snappy", (None, None), None, None),
    # Levels: up to 17 because Java's compression.lz4.level goes there; liblz4 stops at 12.
    # Default: Java's is called 9 and means the fast compressor, liblz4's name for that is 0.
    Codec(LZ4, "lz4", (0, 17), 0, "0..2 (fast), 3..12 (high compression) or 13..17 (same as 12)"),
    # Levels and default: Java's compression.zstd.level.
    Codec(ZSTD, "zstd", (-131072, 22), 3, "-131072..22"),
)
cdef dict BY_NAME = {codec.name: codec for codec in CODECS}


# ---- which library does the work --------------------------------------------

cdef int import_library(int library) except -1:
    global cramjam, lz4_frame, zstandard, stdlib_zstd
    if library == CRAMJAM:
        import cramjam as module
        cramjam = module
    elif library == LZ4_PACKAGE:
        import lz4.frame as module
        lz4_frame = module
    elif library == LIBLZ4:
        find_liblz4()
    elif library == ZSTANDARD:
        import zstandard as module
        zstandard = module
    elif library == COMPRESSION_ZSTD:
        import compression.zstd as module
        stdlib_zstd = module
    return 0


cdef int load(int codec) except -1:
    """Decides for the codec's library unless that is done."""
    if codec != NONE and chosen[codec] == UNDECIDED:
        chosen[codec] = import_best(codec)
    return 0


cdef int import_best(int codec) except -1:
    cdef int library
    cdef list reasons = []
    for library in CHOICES[codec]:
        try:
            import_library(library)
        except ImportError as error:
            reasons.append(f"{LIBRARIES[library]}: {error}")
        else:
            return library
    # cramjam comes with kprod: without it the installation is incomplete or broken.
    raise ImportError(f"compression type {CODECS[codec].name!r} needs the package 'cramjam': "
                      f"pip install cramjam ({'; '.join(reasons)})")


def implementations(name_or_id, /):
    """Names of the libraries that can do a codec's work in this installation, the best first.

    Args:
        name_or_id: the codec, as in :func:`get_codec`.

    Raises:
        ValueError: there is no such codec.
    """
    cdef int library
    cdef list found = []
    for library in CHOICES[find(name_or_id).id]:
        try:
            import_library(library)
        except ImportError:
            continue
        found.append(LIBRARIES[library])
    return tuple(found)


def choose_implementation(name_or_id, implementation, /):
    """Let a library do a codec's work from now on, in the whole process; for tests and measurements.

    Args:
        name_or_id: the codec, as in :func:`get_codec`.
        implementation: name of the library, or None for the best one.

    Raises:
        ValueError: there is no such codec, or the library is none of its.
        ImportError: the library is not there.
    """
    global chosen_slow_lz4
    cdef int id = find(name_or_id).id
    if id == LZ4:
        chosen_slow_lz4 = UNDECIDED if implementation is None else CRAMJAM
    if implementation is None and CHOICES[id]:
        implementation = LIBRARIES[import_best(id)]
    names = [LIBRARIES[library] for library in CHOICES[id]] or [None]
    if implementation not in names:
        raise ValueError(f"implementation of {CODECS[id].name} is {implementation!r}: "
                         f"must be {' or '.join(map(repr, names))} or None")
    import_library(LIBRARIES.index(implementation))
    chosen[id] = LIBRARIES.index(implementation)


cdef object find(object name_or_id):
    if name_or_id is None:
        return CODECS[NONE]
    if isinstance(name_or_id, int) and not isinstance(name_or_id, bool) and 0 <= name_or_id < len(CODECS):
        return CODECS[name_or_id]
    codec = BY_NAME.get(name_or_id) if isinstance(name_or_id, str) else None
    if codec is None:
        raise ValueError(f"compression type is {name_or_id!r}: must be one of {', '.join(BY_NAME)}")
    return codec


# ---- the table, for those who use it ----------------------------------------

def get_codec(name_or_id, /):
    """The :class:`Codec` with this name or id.

    Args:
        name_or_id: a name of the option ``compression.type`` (exact, lower case),
            an id (0..4), or None, which means ``none``.

    Raises:
        ValueError: there is no such codec.
        ImportError: none of the libraries that can do the codec's work is there.
    """
    codec = find(name_or_id)
    load(codec.id)
    return codec


def check_level(name_or_id, level, /):
    """The level to use: *level* if the codec has it, the codec's default for None.

    Args:
        name_or_id: the codec, as in :func:`get_codec`.
        level: the level that was asked for, or None.

    Returns:
        The level; 0 for a codec without levels.

    Raises:
        TypeError: *level* is not an integer.
        ValueError: the codec has no such level, or there is no such codec.
    """
    codec = get_codec(name_or_id)
    if level is None:
        return 0 if codec.default_level is None else codec.default_level
    if not isinstance(level, int) or isinstance(level, bool):
        raise TypeError(f"compression level of {codec.name} is {level!r}: must be an integer")
    if codec.level_rule is None:
        raise ValueError(f"compression level of {codec.name} is {level}: "
                         f"{codec.name} has no levels, leave it out")
    if not codec.min_level <= level <= codec.max_level or (codec.id == GZIP and level == 0):
        raise ValueError(f"compression level of {codec.name} is {level}: must be {codec.level_rule}")
    return level


# ---- compress ---------------------------------------------------------------

@cython.final
cdef class Room:
    """Memory of ours that a library writes into, which must be done with it before that is given back.

    A memoryview would do, but for cramjam on free-threaded Python: it takes any other object that lends its memory.
    """

    cdef uint8_t* start
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.start, self.size, 0, flags)


cdef Room room_at(uint8_t* start, Py_ssize_t size):
    cdef Room room = Room.__new__(Room)
    room.start = start
    room.size = size
    return room


cpdef bytes compress(int codec, int level, object buffer):
    """*buffer* compressed as the records section of a batch.

    Args:
        codec: id of the codec.
        level: a level that :func:`check_level` gave.
        buffer: contiguous bytes-like object.

    Raises:
        ValueError: there is no such codec.
        ImportError: none of the libraries that can do the codec's work is there.
    """
    if not 0 <= codec <= ZSTD:
        raise ValueError(f"codec id is {codec}: must be in 0..4")
    load(codec)
    if codec == LZ4:
        return compress_lz4(level, buffer)
    if codec == ZSTD:
        return compress_zstd(level, buffer)
    if codec == SNAPPY:
        return compress_snappy(buffer)
    if codec == GZIP:
        stream = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # 16: gzip, not zlib
        return stream.compress(buffer) + stream.flush()
    return bytes(buffer)


cdef Py_ssize_t compressed_bound(int codec, int level, Py_ssize_t n) except -1:
    if codec != LZ4:
        return 0
    load(codec)
    if chosen[LZ4] == LIBLZ4 or (chosen[LZ4] == CRAMJAM and level < LZ4_FIRST_SLOW_LEVEL):
        return lz4_bound(n)
    return 0


cdef Py_ssize_t compress_into(int codec, int level, const uint8_t* source, Py_ssize_t n, uint8_t* target) except -1:
    return write_lz4_frame(level, source, n, target)


# ---- decompress -------------------------------------------------------------

def decompress(codec, data, max_size, /):
    """The records section of a compressed batch, decompressed.

    Never allocates much more than *max_size*, whatever *data* claims.

    Args:
        codec: id of the codec.
        data: contiguous bytes-like object.
        max_size: most bytes to return.

    Raises:
        ValueError: *data* is corrupt or cut off, or is larger than *max_size*
            bytes when decompressed, or there is no such codec.
        ImportError: none of the libraries that can do the codec's work is there.
    """
    if max_size < 0:
        raise ValueError(f"max_size is {max_size}: must not be negative")
    row = get_codec(codec)
    view = memoryview(data).cast("B")
    result = DECOMPRESS[row.id](view, max_size)
    if len(result) > max_size:
        raise too_large(row.name, max_size)
    return result


cdef object too_large(str name, object max_size):
    return ValueError(f"{name} data is larger than {max_size} bytes when decompressed")


cdef object corrupt(str name, object reason):
    return ValueError(f"corrupt {name} data: {reason}")


def _decompress_none(view, max_size):
    return view[:max_size + 1].tobytes()


def _decompress_gzip(view, max_size):
    return decompress_members(
        "gzip", view, max_size, lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), zlib.error)


cdef bytes decompress_members(str name, object view, object max_size, object new_stream, object errors):
    """The content of one member (or frame) after the other, up to one byte more than max_size."""
    cdef list parts = []
    cdef Py_ssize_t room = max_size + 1
    while True:
        stream = new_stream()
        try:
            part = stream.decompress(view, room)
        except errors as error:
            raise corrupt(name, error) from error
        parts.append(part)
        room -= len(part)
        if room <= 0:
            break
        if not stream.eof:
            raise corrupt(name, "cut off")
        view = stream.unused_data
        if not view:
            break
    return b"".join(parts)


cdef void store_le32(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = value & 0xFF
    p[1] = value >> 8 & 0xFF
    p[2] = value >> 16 & 0xFF
    p[3] = value >> 24


# ---- the codecs that need more words ----------------------------------------

include "compression_snappy.pxi"
include "compression_lz4.pxi"
include "compression_zstd.pxi"

cdef tuple DECOMPRESS = (
    _decompress_none, _decompress_gzip, _decompress_snappy, _decompress_lz4, _decompress_zstd)
