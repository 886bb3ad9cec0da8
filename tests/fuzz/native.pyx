"""Fuzz targets for the parsers of the core, and the mutator that feeds them; all in C, hundreds of thousands a second.

Not shipped: tests.fuzz.harness builds this against the installed core, whose own functions it calls. Every input is in
a heap block of exactly its size, so that AddressSanitizer sees a read of one byte too many. A target returns NULL, or
what is wrong in words; it also reads whatever a parser hands out.
"""
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memmove

from kprod._core.compression import decompress

from kprod._core.crc32c cimport crc32c_update
from kprod._core.cursor cimport (
    cursor_count, cursor_i8, cursor_i16, cursor_i32, cursor_i64, cursor_skip_tags, cursor_string, cursor_take,
    cursor_uvarint, kp_cursor,
)
from kprod._core.murmur2 cimport murmur2_hash
from kprod._core.produce cimport (
    close_produce_response, close_topic, kp_partition_response, next_partition, next_record_error, next_topic,
    open_produce_response,
)
from kprod._core.record_batch cimport split_records
from kprod._core.varint cimport (
    read_uvarint, read_uvarint_bits, read_varint, read_varlong, uvarint_size, varint_size, write_uvarint, write_varint,
)

cdef enum:
    LARGEST = 4096             # bytes of an input

# Read by nobody: keeps the compiler from leaving out the reads of touch().
cdef volatile uint64_t sink = 0


cdef inline uint64_t next_random(uint64_t* state) noexcept nogil:
    """xorshift64*."""
    state[0] ^= state[0] >> 12
    state[0] ^= state[0] << 25
    state[0] ^= state[0] >> 27
    return state[0] * <uint64_t>0x2545F4914F6CDD1D


cdef inline uint64_t below(uint64_t* state, uint64_t n) noexcept nogil:
    return (next_random(state) >> 33) % n


cdef void touch(const uint8_t* p, int64_t n) noexcept nogil:
    """Read every byte of what a parser handed out."""
    global sink
    cdef uint64_t total = 0
    cdef int64_t i
    for i in range(n):
        total += p[i]
    sink = sink + total


# ------------------------------------------------------------------------------------------------ mutation

cdef void store_number(uint8_t* p, int64_t room, uint64_t* state) noexcept nogil:
    """A number that tends to be at the edge of something, big-endian, in 1, 2, 4 or 8 bytes."""
    cdef int64_t width = <int64_t>1 << below(state, 4)
    cdef uint64_t value
    cdef uint64_t kind = below(state, 6)
    cdef int64_t i
    if kind == 0:
        value = 0
    elif kind == 1:
        value = <uint64_t>0 - 1
    elif kind == 2:
        value = <uint64_t>1 << (8 * width - 1)
    elif kind == 3:
        value = (<uint64_t>1 << (8 * width - 1)) - 1
    elif kind == 4:
        value = <uint64_t>1 << below(state, 8 * width)
    else:
        value = below(state, 64)
    if width > room:
        width = room
    for i in range(width):
        p[i] = <uint8_t>(value >> (8 * (width - 1 - i)))


cdef int64_t mutate(uint8_t* p, int64_t n, const uint8_t* other, int64_t other_n, uint64_t* state) noexcept nogil:
    """Change an input of `n` bytes in place, which has room for LARGEST; returns its new size."""
    cdef uint64_t changes = 1 + below(state, 6)
    cdef uint64_t kind
    cdef int64_t at, size, start
    while changes > 0:
        changes -= 1
        kind = below(state, 9)
        if n == 0:
            kind = 6
        at = below(state, n) if n else 0
        if kind == 0:
            p[at] ^= <uint8_t>(1 << below(state, 8))
        elif kind == 1:
            p[at] = <uint8_t>next_random(state)
        elif kind == 2:
            store_number(p + at, n - at, state)
        elif kind == 3:
            # Varints: a longer one, or one that does not end.
            size = 1 + below(state, 10)
            while size > 0 and at < n:
                p[at] |= 0x80
                at += 1
                size -= 1
        elif kind == 4:
            n = at
        elif kind == 5:
            size = 1 + below(state, 16)
            if size > n - at:
                size = n - at
            memmove(p + at, p + at + size, n - at - size)
            n -= size
        elif kind == 6:
            size = 1 + below(state, 16)
            if n + size <= LARGEST:
                memmove(p + at + size, p + at, n - at)
                n += size
                for start in range(at, at + size):
                    p[start] = <uint8_t>next_random(state)
        elif kind == 7:
            # A piece of another input, over what is there.
            if other_n:
                start = below(state, other_n)
                size = 1 + below(state, other_n - start)
                if at + size > LARGEST:
                    size = LARGEST - at
                memcpy(p + at, other + start, size)
                if at + size > n:
                    n = at + size
        else:
            # A piece of itself, again.
            size = 1 + below(state, n - at)
            if n + size <= LARGEST:
                memmove(p + at + size, p + at, n - at)
                n += size
    return n


# ------------------------------------------------------------------------------------------------ targets

cdef const char* fuzz_varint(const uint8_t* p, int64_t n) noexcept nogil:
    cdef const uint8_t* end = p + n
    cdef const uint8_t* after
    cdef int32_t narrow = 0
    cdef int64_t wide = 0
    cdef uint32_t plain = 0
    cdef uint64_t plain_wide = 0
    cdef uint8_t room[10]
    after = read_varint(p, end, &narrow)
    if after != NULL:
        if after <= p or after > end or after - p > 5:
            return "a varint of an impossible length"
        if write_varint(room, narrow) - room > after - p:
            return "a varint shorter than its value"
        if varint_size(narrow) != write_varint(room, narrow) - room:
            return "the size of a varint"
    after = read_varlong(p, end, &wide)
    if after != NULL:
        if after <= p or after > end or after - p > 10:
            return "a varlong of an impossible length"
        if write_varint(room, wide) - room > after - p:
            return "a varlong shorter than its value"
        if read_varlong(room, room + varint_size(wide), &wide) != room + varint_size(wide):
            return "a varlong that was written cannot be read"
    after = read_uvarint(p, end, &plain)
    if after != NULL:
        if after <= p or after > end or after - p > 5:
            return "an unsigned varint of an impossible length"
        if write_uvarint(room, plain) - room != uvarint_size(plain) or uvarint_size(plain) > after - p:
            return "the size of an unsigned varint"
    after = read_uvarint_bits(p, end, &plain_wide, 64)
    if after != NULL and (after <= p or after > end or after - p > 10):
        return "an unsigned varlong of an impossible length"
    if read_varint(NULL, end, &narrow) != NULL:
        return "something was read at NULL"
    return NULL


cdef const char* fuzz_cursor(const uint8_t* p, int64_t n) noexcept nogil:
    """The first half says what to read from the second."""
    cdef int64_t half = n // 2
    cdef int64_t i, count
    cdef int32_t length = 0
    cdef int flexible
    cdef kp_cursor c
    cdef const uint8_t* data
    c.p = p + half
    c.end = p + n
    c.bad = 0
    for i in range(half):
        flexible = p[i] >> 7
        if p[i] % 9 == 0:
            cursor_i8(&c)
        elif p[i] % 9 == 1:
            cursor_i16(&c)
        elif p[i] % 9 == 2:
            cursor_i32(&c)
        elif p[i] % 9 == 3:
            cursor_i64(&c)
        elif p[i] % 9 == 4:
            cursor_uvarint(&c)
        elif p[i] % 9 == 5:
            count = cursor_count(&c, flexible)
            if count < -1 or count > c.end - c.p:
                return "a count that does not fit"
        elif p[i] % 9 == 6:
            data = cursor_string(&c, flexible, &length)
            if data != NULL:
                if length < 0:
                    return "a string of negative length"
                touch(data, length)
        elif p[i] % 9 == 7:
            cursor_skip_tags(&c)
        else:
            count = <int64_t>p[i] - 8
            data = cursor_take(&c, count)
            if data != NULL:
                touch(data, count)
        if c.p < p + half or c.p > c.end:
            return "the cursor left its frame"
    return NULL


cdef const char* fuzz_produce(const uint8_t* p, int64_t n) noexcept nogil:
    """As io_responses reads it; the first byte is the version."""
    cdef kp_cursor c
    cdef kp_cursor errors
    cdef kp_partition_response r
    cdef int32_t n_topics = 0, n_partitions = 0, throttle = 0, index = 0, length = 0
    cdef int32_t i, j, k
    cdef int64_t rows = 0
    cdef const uint8_t* endpoints = NULL
    cdef const uint8_t* message = NULL
    cdef int64_t endpoints_length = 0
    cdef int16_t version
    if n < 1:
        return NULL
    version = 3 + p[0] % 11
    c.p = p + 1
    c.end = p + n
    c.bad = 0
    cursor_i32(&c)
    if not open_produce_response(&c, version, &n_topics):
        return NULL
    for i in range(n_topics):
        if not next_topic(&c, version, &r, &n_partitions):
            return NULL
        if r.topic_id != NULL:
            touch(r.topic_id, 16)
        if r.topic_name != NULL:
            touch(r.topic_name, r.topic_name_length)
        for j in range(n_partitions):
            if not next_partition(&c, version, &r):
                return NULL
            rows += 1
            if r.error_message != NULL:
                if r.error_message_length < 0:
                    return "a message of negative length"
                touch(r.error_message, r.error_message_length)
            errors.p = r.record_errors
            errors.end = c.end
            errors.bad = 0
            for k in range(r.n_record_errors):
                if not next_record_error(&errors, version, &index, &message, &length):
                    return "record errors that were there are not"
                if message != NULL:
                    touch(message, length)
        if not close_topic(&c, version):
            return NULL
    if rows > n:
        return "more partitions than bytes"
    if close_produce_response(&c, version, &throttle, &endpoints, &endpoints_length) and endpoints != NULL:
        touch(endpoints, endpoints_length)
    if c.p < p or c.p > c.end:
        return "the cursor left its frame"
    return NULL


cdef uint32_t slow_crc32c(uint32_t crc, const uint8_t* p, int64_t n) noexcept nogil:
    """A bit at a time."""
    cdef int64_t i
    cdef int bit
    crc = ~crc
    for i in range(n):
        crc ^= p[i]
        for bit in range(8):
            crc = (crc >> 1) ^ (<uint32_t>0x82F63B78 & (<uint32_t>0 - (crc & 1)))
    return ~crc


cdef uint32_t slow_murmur2(const uint8_t* p, int64_t n) noexcept nogil:
    """Java's Utils.murmur2, word by word from its description."""
    cdef uint32_t m = 0x5bd1e995
    cdef uint32_t h = <uint32_t>0x9747b28c ^ <uint32_t>n
    cdef uint32_t k
    cdef int64_t i
    cdef int64_t words = n // 4
    for i in range(words):
        k = (p[4 * i] | (<uint32_t>p[4 * i + 1] << 8) | (<uint32_t>p[4 * i + 2] << 16)
             | (<uint32_t>p[4 * i + 3] << 24))
        k *= m
        k ^= k >> 24
        k *= m
        h *= m
        h ^= k
    p += 4 * words
    if n % 4 == 3:
        h ^= <uint32_t>p[2] << 16
    if n % 4 >= 2:
        h ^= <uint32_t>p[1] << 8
    if n % 4 >= 1:
        h ^= p[0]
        h *= m
    h ^= h >> 13
    h *= m
    h ^= h >> 15
    return h


cdef const char* fuzz_hashes(const uint8_t* p, int64_t n) noexcept nogil:
    """At every alignment: the first byte says where the data begins."""
    cdef int64_t start = p[0] % 16 if n else 0
    cdef int64_t cut
    if start > n:
        start = n
    p += start
    n -= start
    if murmur2_hash(p, n) != slow_murmur2(p, n):
        return "murmur2 differs"
    if n <= 256 and crc32c_update(0, p, n) != slow_crc32c(0, p, n):
        return "CRC-32C differs"
    cut = p[0] % (n + 1) if n else 0
    if crc32c_update(crc32c_update(0, p, cut), p + cut, n - cut) != crc32c_update(0, p, n):
        return "CRC-32C of two pieces differs from that of both"
    return NULL


cdef const char* fuzz_split(const uint8_t* p, int64_t n) except? <const char*>1:
    """The first byte is the number of records."""
    cdef list pieces
    if n < 1:
        return NULL
    try:
        pieces = split_records(p + 1, n - 1, p[0])
    except ValueError:
        return NULL
    if len(pieces) != 2 or pieces[0][1] < 1 or pieces[1][1] < 1 or pieces[0][1] + pieces[1][1] != p[0]:
        return "records were lost"
    if len(pieces[0][0]) + len(pieces[1][0]) > n - 1:
        return "the pieces are longer than the whole"
    return NULL


cdef const char* fuzz_decompress(const uint8_t* p, int64_t n) except? <const char*>1:
    """The first byte says the codec and how much may come out."""
    cdef int64_t most
    if n < 1:
        return NULL
    most = 1 << (p[0] // 5 % 14)
    try:
        plain = decompress(p[0] % 5, (<const char*>p)[1:n], most)
    except ValueError:
        return NULL
    if len(plain) > most:
        return "more came out than was allowed"
    return NULL


ctypedef const char* (*native_target)(const uint8_t* p, int64_t n) noexcept nogil

NATIVE = ("varint", "cursor", "produce", "hashes")
PYTHON = ("split", "decompress", "protocol")
TARGETS = NATIVE + PYTHON


cdef native_target find(str name) except NULL:
    if name == "varint":
        return fuzz_varint
    if name == "cursor":
        return fuzz_cursor
    if name == "produce":
        return fuzz_produce
    if name == "hashes":
        return fuzz_hashes
    raise ValueError(f"target is {name!r}: must be one of {', '.join(TARGETS)}")


class Finding(Exception):
    """A target found something: what, and the input."""


cdef int check(str target, const char* problem, const uint8_t* data, int64_t n) except -1:
    if problem != NULL:
        raise Finding(f"{target}: {problem.decode()}: {bytes(data[:n]).hex()}")
    return 0


def run_one(str target, bytes data, protocol=None):
    """Give one input to a target.

    Raises:
        Finding: something is wrong.
    """
    cdef const char* problem = NULL
    # A block of its own size, not Python's with its zero at the end.
    cdef int64_t n = len(data)
    cdef uint8_t* block = <uint8_t*>malloc(n)
    try:
        memcpy(block, <const char*>data, n)
        if target == "split":
            problem = fuzz_split(block, n)
        elif target == "decompress":
            problem = fuzz_decompress(block, n)
        elif target == "protocol":
            protocol(data)
        else:
            problem = find(target)(block, n)
        check(target, problem, block, n)
    finally:
        free(block)


def run(str target, list corpus, int64_t executions, uint64_t seed, last=None, protocol=None):
    """Mutate inputs of a corpus and give them to a target.

    Args:
        target: one of TARGETS.
        corpus: inputs, of at most 4096 bytes each.
        executions: how many.
        seed: same seed, same inputs.
        last: a writable buffer of 4100 bytes that gets the size and the bytes of every input before it is tried;
            mapped to a file it tells what ended the process. None: no.
        protocol: the function for the target "protocol", which raises if something is wrong.

    Raises:
        Finding: something is wrong.
    """
    cdef uint64_t state = seed * 2 + 1
    cdef int64_t done, n = 0, size
    cdef int32_t i, count = len(corpus)
    cdef const char* problem = NULL
    cdef native_target native = NULL
    cdef int kind = 0
    cdef uint8_t room[LARGEST]
    cdef uint8_t* block = NULL
    cdef const uint8_t** data
    cdef int64_t* sizes
    cdef uint8_t[::1] trace = last
    cdef uint8_t* traced = &trace[0] if last is not None else NULL
    if target in NATIVE:
        native = find(target)
    else:
        kind = 1 + PYTHON.index(target)
    data = <const uint8_t**>malloc(count * sizeof(void*))
    sizes = <int64_t*>malloc(count * sizeof(int64_t))
    for i in range(count):
        data[i] = <const uint8_t*><const char*><bytes>corpus[i]
        sizes[i] = min(len(corpus[i]), LARGEST)
    try:
        with nogil:
            for done in range(executions):
                i = <int32_t>below(&state, count)
                n = sizes[i]
                memcpy(room, data[i], n)
                i = <int32_t>below(&state, count)
                n = mutate(room, n, data[i], sizes[i], &state)
                block = <uint8_t*>malloc(n)
                memcpy(block, room, n)
                if traced != NULL:
                    memcpy(traced, &n, 4)
                    memcpy(traced + 4, block, n)
                if kind == 0:
                    problem = native(block, n)
                else:
                    with gil:
                        if kind == 1:
                            problem = fuzz_split(block, n)
                        elif kind == 2:
                            problem = fuzz_decompress(block, n)
                        else:
                            protocol((<const char*>block)[:n])
                if problem != NULL:
                    break
                free(block)
                block = NULL
        check(target, problem, room, n)
    except Finding:
        raise
    except Exception as error:
        raise Finding(f"{target}: {error!r}: {bytes(room[:n]).hex()}") from error
    finally:
        free(block)
        free(data)
        free(sizes)
