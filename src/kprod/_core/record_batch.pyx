"""Record batch v2 (KIP-98): the header, and a builder of single batches.

The layout of the 61 bytes in front of the records (all big-endian)::

     0  8  base offset                 0: the broker assigns it
     8  4  batch length                bytes after this field
    12  4  partition leader epoch      -1: the broker sets it; not covered by the CRC
    16  1  magic                       2
    17  4  CRC-32C                     of everything from the attributes on
    21  2  attributes                  bits 0-2 codec, bit 3 timestamp type, bit 4 transactional
    23  4  last offset delta           count - 1
    27  8  base timestamp              of the first record
    35  8  max timestamp
    43  8  producer id                 -1: not idempotent
    51  2  producer epoch
    53  4  base sequence
    57  4  record count
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from kprod._core.compression cimport compress
from kprod._core.crc32c cimport crc32c_update
from kprod._core.endian cimport store_be16, store_be32, store_be64
from kprod._core.headers cimport encode_headers, free_headers, kp_headers
from kprod._core.structs cimport BATCH_OVERHEAD, kp_batch
from kprod._core.varint cimport read_varint, read_varlong, varint_size, write_varint


cdef void seal_batch(kp_batch* b, int transactional) noexcept nogil:
    """Write the header of a closed batch into its first 61 bytes, the CRC last."""
    cdef uint8_t* p = b.data
    store_be64(p, 0)
    store_be32(p + 8, <int32_t>(b.length - 12))
    store_be32(p + 12, -1)
    p[16] = 2
    store_be16(p + 21, <int16_t>(b.codec | (0x10 if transactional else 0)))
    store_be32(p + 23, b.count - 1)
    store_be64(p + 27, b.base_timestamp)
    store_be64(p + 35, b.max_timestamp)
    store_be64(p + 43, b.producer_id)
    store_be16(p + 51, b.producer_epoch)
    store_be32(p + 53, b.base_sequence)
    store_be32(p + 57, b.count)
    store_be32(p + 17, <int32_t>crc32c_update(0, p + 21, <size_t>(b.length - 21)))
    b.sealed = 1


cdef list split_records(const uint8_t* data, int64_t length, int32_t count):
    """Cut the records of a batch in two halves, by bytes, with at least one record in each.

    Offset deltas start at 0 in both, since they must equal a record's place in its batch.

    Returns:
        list: [(records bytes, record count), (records bytes, record count)]

    Raises:
        ValueError: these are not `count` well-formed records.
    """
    cdef const uint8_t* p = data
    cdef const uint8_t* end = data + length
    cdef const uint8_t* record
    cdef const uint8_t* rest
    cdef int32_t size = 0, delta = 0, i, first
    cdef int64_t timestamp_delta = 0, body
    cdef uint8_t* out
    cdef uint8_t* at
    cdef list pieces = []
    if count < 2:
        raise ValueError("a batch of one record cannot be split")
    # Offset deltas only get smaller, so a half is never longer than what it was cut from.
    out = <uint8_t*>malloc(length)
    if out == NULL:
        raise MemoryError
    at = out
    first = 0
    try:
        for i in range(count):
            record = read_varint(p, end, &size)
            if record == NULL or size < 1 or end - record < size:
                raise ValueError(f"record {i} of a batch is malformed")
            rest = read_varlong(record + 1, record + size, &timestamp_delta)
            rest = read_varint(rest, record + size, &delta)
            if rest == NULL:
                raise ValueError(f"record {i} of a batch is malformed")
            body = 1 + varint_size(timestamp_delta) + varint_size(i - first) + (record + size - rest)
            at = write_varint(at, body)
            at[0] = record[0]
            at = write_varint(at + 1, timestamp_delta)
            at = write_varint(at, i - first)
            memcpy(at, rest, record + size - rest)
            at += record + size - rest
            p = record + size
            if not pieces and (i == count - 2 or (p - data) * 2 >= length):
                pieces.append((PyBytes_FromStringAndSize(<const char*>out, at - out), i + 1))
                at = out
                first = i + 1
        pieces.append((PyBytes_FromStringAndSize(<const char*>out, at - out), count - first))
    finally:
        free(out)
    return pieces


cdef class RecordBatchBuilder:
    """Encodes one record batch by the code that the producer uses. For tests, tools and measurements.

    Arguments:
        codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
        level: the codec's level.
        producer_id, producer_epoch, base_sequence: -1 for a batch that is not idempotent.
        transactional: sets attribute bit 4.
    """
    cdef kp_batch b
    cdef int transactional
    cdef int level

    def __cinit__(self, int codec=0, int level=-1, int64_t producer_id=-1, int producer_epoch=-1,
                  int base_sequence=-1, bint transactional=False):
        memset(&self.b, 0, sizeof(kp_batch))
        self.b.codec = codec
        self.b.producer_id = producer_id
        self.b.producer_epoch = producer_epoch
        self.b.base_sequence = base_sequence
        self.transactional = transactional
        self.level = level
        self.b.capacity = 4096
        self.b.length = BATCH_OVERHEAD
        self.b.data = <uint8_t*>malloc(self.b.capacity)
        if self.b.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.b.data)

    def append(self, bytes key, bytes value, headers=None, int64_t timestamp=0):
        """Append one record. `timestamp` is in ms since 1970; returns the record's size in bytes."""
        cdef kp_record r
        cdef kp_headers h
        cdef int64_t delta, body, total
        cdef uint8_t* grown
        r.key = r.value = NULL
        r.key_size = r.value_size = -1
        if key is not None:
            r.key = <const uint8_t*><const char*>key
            r.key_size = len(key)
        if value is not None:
            r.value = <const uint8_t*><const char*>value
            r.value_size = len(value)
        encode_headers(headers, &h)
        try:
            r.headers = h.data
            r.headers_size = h.size
            r.timestamp = timestamp
            if self.b.count == 0:
                self.b.base_timestamp = self.b.max_timestamp = timestamp
            delta = timestamp - self.b.base_timestamp
            body = kp_record_fixed_size(&r) + varint_size(delta) + varint_size(self.b.count)
            total = varint_size(body) + body
            if self.b.length + total > self.b.capacity:
                grown = <uint8_t*>realloc(self.b.data, (self.b.length + total) * 2)
                if grown == NULL:
                    raise MemoryError
                self.b.data = grown
                self.b.capacity = (self.b.length + total) * 2
            write_record(self.b.data + self.b.length, &r, body, delta, self.b.count)
            self.b.length += total
            self.b.count += 1
            if timestamp > self.b.max_timestamp:
                self.b.max_timestamp = timestamp
            return total
        finally:
            free_headers(&h)

    def build(self):
        """The whole batch as bytes; the builder is left as it is."""
        cdef bytes records, out
        cdef kp_batch b = self.b
        if b.count == 0:
            raise ValueError("a record batch holds at least one record")
        records = PyBytes_FromStringAndSize(<const char*>b.data + BATCH_OVERHEAD, b.length - BATCH_OVERHEAD)
        if b.codec:
            compressed = compress(b.codec, self.level, records)
            if len(compressed) < len(records):
                records = compressed
            else:
                b.codec = 0
        out = b"\0" * BATCH_OVERHEAD + records
        b.data = <uint8_t*><char*>out
        b.length = len(out)
        seal_batch(&b, self.transactional)
        return out
