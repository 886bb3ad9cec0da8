"""zstd: one frame (RFC 8878), by any of three libraries."""

cdef enum:
    ZSTD_LARGEST_BLOCK = 131072  # RFC 8878, 3.1.1.2.4
    ZSTD_RLE_BLOCK = 1
    ZSTD_RESERVED_BLOCK = 3

cdef object thread_local():
    # gevent's would be one for each greenlet.
    monkey = sys.modules.get("gevent.monkey")
    return threading.local() if monkey is None else monkey.get_original("threading", "local")()


# A compressor must not be used by two threads at once: each thread keeps its own, by library and level.
cdef object thread_state = thread_local()


cdef bytes compress_zstd(int level, object buffer):
    if chosen[ZSTD] == ZSTANDARD:
        return zstd_compressor(ZSTANDARD, level).compress(buffer)
    if chosen[ZSTD] == COMPRESSION_ZSTD:
        # A frame that begins and ends in one call has its content size (ZSTD_compressStream2, ZSTD_e_end).
        compressor = zstd_compressor(COMPRESSION_ZSTD, level)
        return compressor.compress(buffer, compressor.FLUSH_FRAME)
    return bytes(cramjam.zstd.compress(buffer, level))


cdef object zstd_compressor(int library, int level):
    cdef dict by_kind
    try:
        by_kind = thread_state.zstd
    except AttributeError:
        by_kind = thread_state.zstd = {}
    compressor = by_kind.get((library, level))
    if compressor is None:
        module = zstandard if library == ZSTANDARD else stdlib_zstd
        compressor = by_kind[library, level] = module.ZstdCompressor(level=level)
    return compressor


def _decompress_zstd(view, max_size):
    size, end, most = zstd_frame_extent(view)
    # The size in the frame header is a claim: it is checked before it is used.
    if size is not None and size > max_size:
        raise too_large("zstd", max_size)
    if end < len(view):
        raise corrupt("zstd", f"{len(view) - end} bytes follow the frame")
    if chosen[ZSTD] == ZSTANDARD:
        return decompress_zstandard(view, size, max_size + 1)
    if chosen[ZSTD] == COMPRESSION_ZSTD:
        return decompress_stdlib_zstd(view, max_size + 1)
    return decompress_cramjam_zstd(view, size, most, max_size)


cdef object decompress_zstandard(object view, object size, object room):
    try:
        decompressor = zstandard.ZstdDecompressor()
        if size is not None:
            return decompressor.decompress(view)
        with decompressor.stream_reader(view) as reader:
            return reader.read(room)
    except zstandard.ZstdError as error:
        raise corrupt("zstd", error) from error


cdef object decompress_stdlib_zstd(object view, object room):
    decompressor = stdlib_zstd.ZstdDecompressor()
    try:
        out = decompressor.decompress(view, room)
    except stdlib_zstd.ZstdError as error:
        raise corrupt("zstd", error) from error
    if not decompressor.eof and len(out) < room:
        raise corrupt("zstd", "cut off")
    return out


cdef object decompress_cramjam_zstd(object view, object size, object most, object max_size):
    out = bytearray(size if size is not None else min(most, max_size + 1))
    try:
        written = cramjam.zstd.decompress_into(view, out)
    except cramjam.DecompressionError as error:
        # Rust's name for an output that is full.
        if size is None and most > max_size + 1 and "whole buffer" in str(error):
            raise too_large("zstd", max_size) from None
        raise corrupt("zstd", error) from error
    if size is not None and written != size:
        raise corrupt("zstd", f"{written} bytes where {size} were announced")
    return bytes(memoryview(out)[:written])


cdef tuple zstd_frame_extent(object view):
    """Content size in the header of a frame (None without), where it ends, the most bytes that can come of it.

    The three libraries treat frames that are cut off, and what follows a frame, in three ways: here is one.
    """
    cdef Py_buffer buffer
    cdef const uint8_t* data
    cdef int flags, size_bytes, dictionary_bytes, type, i
    cdef uint64_t size = 0
    cdef uint32_t block
    cdef Py_ssize_t p = 5, most = 0
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    try:
        data = <const uint8_t*>buffer.buf
        if buffer.len >= 4 and load_le32(data) != <uint32_t>0xFD2FB528:
            raise corrupt("zstd", "not a frame")
        if buffer.len < p:
            raise corrupt("zstd", "cut off")
        flags = data[4]  # 76: size of content size, 5: single segment, 3: reserved, 2: checksum, 10: dictionary
        size_bytes = (flags >> 5 & 1, 2, 4, 8)[flags >> 6]
        dictionary_bytes = (0, 1, 2, 4)[flags & 3]
        p += (0 if flags & 0x20 else 1) + dictionary_bytes
        if p + size_bytes > buffer.len:
            raise corrupt("zstd", "cut off")
        for i in range(size_bytes):
            size |= <uint64_t>data[p + i] << (8 * i)
        if size_bytes == 2:
            size += 256
        p += size_bytes
        block = 0
        while not block & 1:  # the last one says so
            if p + 3 > buffer.len:
                raise corrupt("zstd", "cut off")
            block = data[p] | <uint32_t>data[p + 1] << 8 | <uint32_t>data[p + 2] << 16
            type = block >> 1 & 3
            if type == ZSTD_RESERVED_BLOCK:
                raise corrupt("zstd", "a block of a reserved type")
            p += 3 + (1 if type == ZSTD_RLE_BLOCK else <Py_ssize_t>(block >> 3))
            most += ZSTD_LARGEST_BLOCK
        p += 4 if flags & 4 else 0
        if p > buffer.len:
            raise corrupt("zstd", "cut off")
        return (size if size_bytes else None), p, most
    finally:
        PyBuffer_Release(&buffer)
