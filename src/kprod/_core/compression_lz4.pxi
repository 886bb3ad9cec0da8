"""lz4: the blocks of liblz4 and of cramjam are framed here; the package lz4 writes the frame that Java reads.

The frame (lz4_Frame_format.md, 1.6): magic number, FLG, BD, header checksum, then blocks, each a
little-endian length (its highest bit: the block is not compressed) and the data, then a length of 0.
"""

cdef enum:
    LZ4_BLOCK_64KIB = 4   # Java: BLOCKSIZE_64KB
    LZ4_BLOCK = 65536
    LZ4_HEADER_SIZE = 7
    LZ4_MOST_WITH_GIL = 65536  # bytes that are compressed, in a tenth of a millisecond, without giving the GIL away
    LZ4_LAST_LEVEL = 12   # liblz4: LZ4HC_CLEVEL_MAX
    LZ4_FIRST_SLOW_LEVEL = 3  # liblz4: LZ4HC_CLEVEL_MIN is 2, frames take it from 3 on
    LZ4_NOT_COMPRESSED = 0x80000000
    FLG_VERSION = 0xC0
    FLG_BLOCK_CHECKSUM = 0x10
    FLG_CONTENT_SIZE = 0x08
    FLG_CONTENT_CHECKSUM = 0x04
    FLG_DICTIONARY_ID = 0x01

# Version 1, independent blocks, no checksums, no content size; 64 KiB; the checksum of these two bytes.
cdef bytes LZ4_HEADER = b"\x04\x22\x4d\x18\x60\x40\x82"


cdef bytes compress_lz4(int level, object buffer):
    cdef Py_buffer view
    if chosen[LZ4] == LZ4_PACKAGE or (
            chosen[LZ4] == CRAMJAM and level >= LZ4_FIRST_SLOW_LEVEL and slow_lz4() == LZ4_PACKAGE):
        return lz4_frame.compress(buffer, compression_level=level, block_size=LZ4_BLOCK_64KIB,
                                  block_linked=False, content_checksum=False, store_size=False)
    if level >= LZ4_FIRST_SLOW_LEVEL and chosen[LZ4] == CRAMJAM:
        # cramjam's blocks have no levels, its frames of independent blocks have. It keeps the GIL here, and up to
        # 2.11 (the last one for Python 3.10) its blocks have 8 KiB.
        stream = cramjam.lz4.Compressor(level, False, False)
        stream.compress(bytes(buffer) if type(buffer) is not bytes else buffer)
        return bytes(stream.finish())
    PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
    try:
        return compress_lz4_blocks(level, <uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef int find_liblz4() except -1:
    """Looks for the extension module of the package lz4, and in it, without importing it, for liblz4's functions."""
    import importlib.machinery
    import importlib.util

    spec = importlib.util.find_spec("lz4")
    if spec is None:
        raise ImportError("no module named 'lz4'")
    for folder in spec.submodule_search_locations or ():
        path = os.path.join(folder, "block", "_block" + importlib.machinery.EXTENSION_SUFFIXES[0])
        if os.path.exists(path) and kp_lz4_find(os.fsencode(path)):
            return 0
    raise ImportError("the package lz4 does not let others call liblz4's functions")


cdef int slow_lz4() except -1:
    global chosen_slow_lz4
    if chosen_slow_lz4 == UNDECIDED:
        chosen_slow_lz4 = CRAMJAM
        if not FREE_THREADED:
            try:
                import_library(LZ4_PACKAGE)
                chosen_slow_lz4 = LZ4_PACKAGE
            except ImportError:
                pass
    return chosen_slow_lz4


cdef inline Py_ssize_t lz4_bound(Py_ssize_t n) noexcept nogil:
    # Blocks are written where they belong; one of n bytes takes at most n + n/255 + 16 (LZ4_COMPRESSBOUND).
    cdef Py_ssize_t blocks = (n + LZ4_BLOCK - 1) // LZ4_BLOCK
    return LZ4_HEADER_SIZE + blocks * (4 + 16) + n + n // 255 + 4


cdef bytes compress_lz4_blocks(int level, const uint8_t* source, Py_ssize_t n):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, lz4_bound(n))
    return out[:write_lz4_frame(level, source, n, <uint8_t*>PyBytes_AS_STRING(out))]


cdef inline Py_ssize_t lz4_block(int level, const uint8_t* source, int n, uint8_t* target, int room) noexcept nogil:
    if level < LZ4_FIRST_SLOW_LEVEL:
        return kp_lz4_fast(<const char*>source, <char*>target, n, room, 1)
    return kp_lz4_slow(<const char*>source, <char*>target, n, room, min(level, <int>LZ4_LAST_LEVEL))


cdef Py_ssize_t write_lz4_frame(int level, const uint8_t* source, Py_ssize_t left, uint8_t* start) except -1:
    """Returns the length of the frame; `start` has room for lz4_bound(left) bytes."""
    cdef Py_ssize_t bound = lz4_bound(left)
    cdef uint8_t* p = start + LZ4_HEADER_SIZE
    cdef Py_ssize_t n, written, room
    cdef bint direct = chosen[LZ4] == LIBLZ4
    cdef bint keep_gil = left <= LZ4_MOST_WITH_GIL and level < LZ4_FIRST_SLOW_LEVEL
    memcpy(start, PyBytes_AS_STRING(LZ4_HEADER), LZ4_HEADER_SIZE)
    while left > 0:
        n = min(left, <Py_ssize_t>LZ4_BLOCK)
        room = bound - (p + 4 - start)
        if direct and keep_gil:
            written = lz4_block(level, source, <int>n, p + 4, <int>min(room, INT_MAX))
        elif direct:
            with nogil:
                written = lz4_block(level, source, <int>n, p + 4, <int>min(room, INT_MAX))
        else:
            # Arguments: input, output, mode, acceleration, compression, store_size.
            written = cramjam.lz4.compress_block_into(
                PyMemoryView_FromMemory(<char*>source, n, PyBUF_READ), room_at(p + 4, room), None, None, None, False)
        if 0 < written < n:
            store_le32(p, <uint32_t>written)
        else:
            memcpy(p + 4, source, n)
            written = n
            store_le32(p, <uint32_t>n | <uint32_t>LZ4_NOT_COMPRESSED)
        p += 4 + written
        source += n
        left -= n
    store_le32(p, 0)
    return p + 4 - start


cdef int decompresses_lz4() except -1:
    if chosen[LZ4] != LIBLZ4:
        return chosen[LZ4]
    if cramjam is None and lz4_frame is None:
        try:
            import_library(CRAMJAM)
        except ImportError:
            import_library(LZ4_PACKAGE)
    return CRAMJAM if cramjam is not None else LZ4_PACKAGE


def _decompress_lz4(view, max_size):
    cdef list parts = []
    cdef Py_ssize_t end, most, size, room = max_size + 1
    while True:
        end, most = lz4_frame_extent(view)
        if decompresses_lz4() == LZ4_PACKAGE:
            # It allocates all that it may return at once, hence not more than can be; the byte more lets it
            # see the frame's end.
            part = decompress_members(
                "lz4", view[:end], min(most + 1, room) - 1, lz4_frame.LZ4FrameDecompressor, (RuntimeError, EOFError))
            parts.append(part)
            room -= len(part)
        else:
            out = bytearray(min(most, room))
            try:
                size = cramjam.lz4.decompress_into(view[:end], out)
            except cramjam.DecompressionError as error:
                # Rust's name for an output that is full.
                if most > room and "whole buffer" in str(error):
                    raise too_large("lz4", max_size) from None
                raise corrupt("lz4", error) from error
            parts.append(out[:size])
            room -= size
        view = view[end:]
        if room <= 0 or not view:
            break
    return b"".join(parts)


cdef tuple lz4_frame_extent(object view):
    """Where the frame at the start of *view* ends, and the most bytes that can come of it.

    cramjam before 2.14 reads one frame, and says nothing of what follows it.
    """
    cdef Py_buffer buffer
    cdef uint8_t flags
    cdef uint32_t length
    cdef Py_ssize_t most = 0, largest, size, p = LZ4_HEADER_SIZE
    cdef const uint8_t* data
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    try:
        data = <const uint8_t*>buffer.buf
        if buffer.len < LZ4_HEADER_SIZE:
            raise corrupt("lz4", "cut off")
        flags = data[4]
        if load_le32(data) != <uint32_t>0x184D2204 or flags & FLG_VERSION != 0x40 or data[5] >> 4 < LZ4_BLOCK_64KIB:
            raise corrupt("lz4", "not an LZ4 frame")
        largest = <Py_ssize_t>1 << (8 + 2 * (data[5] >> 4 & 7))
        p += (8 if flags & FLG_CONTENT_SIZE else 0) + (4 if flags & FLG_DICTIONARY_ID else 0)
        while True:
            if buffer.len - p < 4:
                raise corrupt("lz4", "cut off")
            length = load_le32(data + p)
            p += 4
            if length == 0:
                break
            size = length & ~<uint32_t>LZ4_NOT_COMPRESSED
            p += size + (4 if flags & FLG_BLOCK_CHECKSUM else 0)
            # A byte of a length stands for at most 255 bytes of output (lz4_Block_format.md).
            most += min(largest, size if length & LZ4_NOT_COMPRESSED else 255 * size)
            if p > buffer.len:
                raise corrupt("lz4", "cut off")
        p += 4 if flags & FLG_CONTENT_CHECKSUM else 0
        if p > buffer.len:
            raise corrupt("lz4", "cut off")
        return p, most
    finally:
        PyBuffer_Release(&buffer)
