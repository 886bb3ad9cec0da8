"""The compression codecs of record batch v2, in one table.

Every codec is somebody else's library: zlib of the standard library, and the
packages lz4, zstandard and cramjam (snappy), each imported when it is first
used. All of them release the GIL while they work.

What is written is what the Java producer writes, since Java is what reads it:

gzip    one member, no file name, modification time 0
snappy  the framing of xerial's snappy-java: a header, then blocks of at most
        32 KiB of input, each a 4-byte length and a raw snappy block
lz4     an LZ4 frame with independent blocks of 64 KiB (Java refuses dependent
        ones), no content size, no checksums but the header's
zstd    one frame, with content size (consumers can allocate once)
"""

import threading
import zlib

from cpython.buffer cimport PyBUF_READ, PyBUF_SIMPLE, PyBUF_WRITE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy

from kprod._core.endian cimport load_be32, store_be32

cimport cython

# The codec ids are bits 0-2 of a batch's attributes (KIP-98, zstd: KIP-110).
cdef enum:
    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4

# "\x82SNAPPY\0", version 1, compatible with version 1
cdef bytes XERIAL_HEADER = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
cdef enum:
    XERIAL_HEADER_SIZE = 16
    XERIAL_MAGIC_SIZE = 8
    XERIAL_BLOCK = 32768  # snappy-java's default
    LZ4_BLOCK_64KIB = 4   # Java: BLOCKSIZE_64KB


@cython.final
cdef class Codec:
    """One row of the table: a compression codec and its levels.

    Attributes:
        id: the number in a batch's attributes.
        name: as in the option ``compression.type``.
        package: the package on PyPI that does the work, None where none is needed.
        min_level: lowest compression level, None for a codec without levels.
        max_level: highest compression level, None for a codec without levels.
        default_level: the level that is used when none is asked for, None for a codec without levels.
        level_rule: which levels are accepted, in words; None for a codec without levels.
    """

    cdef readonly int id
    cdef readonly str name
    cdef readonly str package
    cdef readonly object min_level
    cdef readonly object max_level
    cdef readonly object default_level
    cdef readonly str level_rule

    def __init__(self, id, name, package, levels, default_level, level_rule):
        self.id = id
        self.name = name
        self.package = package
        self.min_level, self.max_level = levels
        self.default_level = default_level
        self.level_rule = level_rule

    def __repr__(self):
        return f"<Codec {self.id} {self.name}>"


CODECS = (
    Codec(NONE, "none", None, (None, None), None, None),
    # Levels: Java's compression.gzip.level (KIP-390); zlib takes -1 as 6.
    Codec(GZIP, "gzip", None, (-1, 9), -1, "-1 (zlib's default) or 1..9"),
    Codec(SNAPPY, "snappy", "cramjam", (None, None), None, None),
    # Levels: up to 17 because Java's compression.lz4.level goes there; liblz4 stops at 12.
    # Default: Java's is called 9 and means the fast compressor, liblz4's name for that is 0.
    Codec(LZ4, "lz4", "lz4", (0, 17), 0, "0..2 (fast), 3..12 (high compression) or 13..17 (same as 12)"),
    # Levels and default: Java's compression.zstd.level.
    Codec(ZSTD, "zstd", "zstandard", (-131072, 22), 3, "-131072..22"),
)
cdef dict BY_NAME = {codec.name: codec for codec in CODECS}

cdef object lz4_frame = None
cdef object zstandard = None
cdef object snappy = None
# A ZstdCompressor must not be used by two threads at once: each thread keeps its own, by level.
cdef object thread_state = threading.local()


cdef int load(int codec) except -1:
    """Imports the codec's package unless that is done."""
    global lz4_frame, zstandard, snappy
    try:
        if codec == LZ4 and lz4_frame is None:
            import lz4.frame
            lz4_frame = lz4.frame
        elif codec == ZSTD and zstandard is None:
            import zstandard as module
            zstandard = module
        elif codec == SNAPPY and snappy is None:
            import cramjam
            snappy = cramjam.snappy
    except ImportError as error:
        row = CODECS[codec]
        raise ImportError(f"compression type {row.name!r} needs the package {row.package!r}: "
                          f"pip install {row.package} ({error})") from error
    return 0


def get_codec(name_or_id, /):
    """The :class:`Codec` with this name or id.

    Args:
        name_or_id: a name of the option ``compression.type`` (exact, lower case),
            an id (0..4), or None, which means ``none``.

    Raises:
        ValueError: there is no such codec.
        ImportError: the package that the codec needs is not there.
    """
    if name_or_id is None:
        return CODECS[NONE]
    if isinstance(name_or_id, int) and not isinstance(name_or_id, bool) and 0 <= name_or_id < len(CODECS):
        codec = CODECS[name_or_id]
    else:
        codec = BY_NAME.get(name_or_id) if isinstance(name_or_id, str) else None
    if codec is None:
        raise ValueError(f"compression type is {name_or_id!r}: must be one of {', '.join(BY_NAME)}")
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

cpdef bytes compress(int codec, int level, object buffer):
    """*buffer* compressed as the records section of a batch.

    Args:
        codec: id of the codec.
        level: a level that :func:`check_level` gave.
        buffer: contiguous bytes-like object.

    Raises:
        ValueError: there is no such codec.
        ImportError: the package that the codec needs is not there.
    """
    if not 0 <= codec <= ZSTD:
        raise ValueError(f"codec id is {codec}: must be in 0..4")
    load(codec)
    if codec == LZ4:
        return lz4_frame.compress(buffer, compression_level=level, block_size=LZ4_BLOCK_64KIB,
                                  block_linked=False, content_checksum=False, store_size=False)
    if codec == ZSTD:
        return zstd_compressor(level).compress(buffer)
    if codec == SNAPPY:
        return compress_snappy(buffer)
    if codec == GZIP:
        stream = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # 16: gzip, not zlib
        return stream.compress(buffer) + stream.flush()
    return bytes(buffer)


cdef object zstd_compressor(int level):
    cdef dict by_level
    try:
        by_level = thread_state.zstd
    except AttributeError:
        by_level = thread_state.zstd = {}
    compressor = by_level.get(level)
    if compressor is None:
        compressor = by_level[level] = zstandard.ZstdCompressor(level=level)
    return compressor


cdef bytes compress_snappy(object buffer):
    cdef Py_buffer view
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        return compress_xerial(<uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef bytes compress_xerial(uint8_t* source, Py_ssize_t left):
    # Blocks are written where they belong; a raw block of n bytes takes at most 32 + n + n/6.
    cdef Py_ssize_t blocks = (left + XERIAL_BLOCK - 1) // XERIAL_BLOCK
    cdef Py_ssize_t bound = XERIAL_HEADER_SIZE + blocks * (4 + 32) + left + left // 6
    cdef bytes out = PyBytes_FromStringAndSize(NULL, bound)
    cdef uint8_t* start = <uint8_t*>PyBytes_AS_STRING(out)
    cdef uint8_t* p = start + XERIAL_HEADER_SIZE
    cdef Py_ssize_t n
    cdef int32_t written
    memcpy(start, PyBytes_AS_STRING(XERIAL_HEADER), XERIAL_HEADER_SIZE)
    while left > 0:
        n = min(left, <Py_ssize_t>XERIAL_BLOCK)
        written = snappy.compress_raw_into(
            PyMemoryView_FromMemory(<char*>source, n, PyBUF_READ),
            PyMemoryView_FromMemory(<char*>p + 4, bound - (p + 4 - start), PyBUF_WRITE))
        store_be32(p, written)
        p += 4 + written
        source += n
        left -= n
    return out[:p - start]


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
        ImportError: the package that the codec needs is not there.
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


def _decompress_lz4(view, max_size):
    return decompress_members("lz4", view, max_size, lz4_frame.LZ4FrameDecompressor, (RuntimeError, EOFError))


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


def _decompress_zstd(view, max_size):
    # The size in the frame header is a claim: it is checked before it is used.
    try:
        size = zstandard.get_frame_parameters(view).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            return decompress_zstd_unsized(view, max_size)
        if size > max_size:
            raise too_large("zstd", max_size)
        return zstandard.ZstdDecompressor().decompress(view, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise corrupt("zstd", error) from error


cdef bytes decompress_zstd_unsized(object view, object max_size):
    """A frame without content size (streaming producers): the room is guessed, then grown."""
    room = 65536 + 8 * len(view)
    while True:
        room = min(room, max_size + 1)
        try:
            return zstandard.ZstdDecompressor().decompress(view, max_output_size=room, allow_extra_data=False)
        except zstandard.ZstdError:
            if room > max_size:
                break
        room *= 4
    # Too large, cut off or corrupt: the streaming interface tells the first from the others.
    with zstandard.ZstdDecompressor().stream_reader(view) as reader:
        if len(reader.read(max_size + 1)) > max_size:
            raise too_large("zstd", max_size)
    raise corrupt("zstd", "cut off")


def _decompress_snappy(view, max_size):
    if view[:XERIAL_MAGIC_SIZE] != XERIAL_HEADER[:XERIAL_MAGIC_SIZE]:
        return snappy_block(view, max_size, max_size)  # librdkafka writes one bare block
    cdef list parts = []
    cdef bytes length
    cdef Py_ssize_t n, room = max_size
    if len(view) < XERIAL_HEADER_SIZE:
        raise corrupt("snappy", "cut off")
    view = view[XERIAL_HEADER_SIZE:]
    while view:
        length = bytes(view[:4])
        n = load_be32(<uint8_t*>PyBytes_AS_STRING(length)) if len(length) == 4 else -1
        if not 0 <= n <= len(view) - 4:
            raise corrupt("snappy", "cut off")
        part = snappy_block(view[4:4 + n], room, max_size)
        room -= len(part)
        parts.append(part)
        view = view[4 + n:]
    return b"".join(parts)


cdef bytes snappy_block(object view, Py_ssize_t room, object max_size):
    try:
        size = snappy.decompress_raw_len(view)
        # The size at the front of a block is a claim: it is checked before it is used.
        block = None if size > room else bytes(snappy.decompress_raw(view))
    except Exception as error:
        raise corrupt("snappy", error) from error
    if block is None:
        raise too_large("snappy", max_size)
    return block


cdef tuple DECOMPRESS = (
    _decompress_none, _decompress_gzip, _decompress_snappy, _decompress_lz4, _decompress_zstd)
