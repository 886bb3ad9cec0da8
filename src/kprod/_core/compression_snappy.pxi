"""snappy: cramjam's raw blocks in the framing of xerial's snappy-java, which is Kafka's."""

# "\x82SNAPPY\0", version 1, compatible with version 1
cdef bytes XERIAL_HEADER = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"
cdef enum:
    XERIAL_HEADER_SIZE = 16
    XERIAL_MAGIC_SIZE = 8
    XERIAL_BLOCK = 32768  # snappy-java's default


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
        written = cramjam.snappy.compress_raw_into(
            PyMemoryView_FromMemory(<char*>source, n, PyBUF_READ), room_at(p + 4, bound - (p + 4 - start)))
        store_be32(p, written)
        p += 4 + written
        source += n
        left -= n
    return out[:p - start]


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
        size = cramjam.snappy.decompress_raw_len(view)
        # The size at the front of a block is a claim: it is checked before it is used.
        block = None if size > room else bytes(cramjam.snappy.decompress_raw(view))
    except Exception as error:
        raise corrupt("snappy", error) from error
    if block is None:
        raise too_large("snappy", max_size)
    return block
