"""Columns made from Python sequences and plain buffers. Those from Arrow are made by `arrow`."""
cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport INT64_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #define kp_tuple_items(t) (((PyTupleObject *)(t))->ob_item)
    """
    PyObject** tuple_items "kp_tuple_items"(PyObject* t)


@cython.final
cdef class Column:
    """A column of bytes or nulls: chunks of memory that `owners` keeps alive."""

    def __dealloc__(self):
        free(self.chunks)
        free(self.starts)

    cdef int add(self, const kp_chunk* chunk, int64_t length) except -1:
        cdef void* grown
        cdef int32_t capacity
        if length == 0:
            return 0
        if self.n_chunks == self.capacity:
            capacity = self.capacity * 2 if self.capacity else 1
            grown = realloc(self.chunks, capacity * sizeof(kp_chunk))
            if grown == NULL:
                raise MemoryError
            self.chunks = <kp_chunk*>grown
            grown = realloc(self.starts, (capacity + 1) * sizeof(int64_t))
            if grown == NULL:
                raise MemoryError
            self.starts = <int64_t*>grown
            self.capacity = capacity
        self.chunks[self.n_chunks] = chunk[0]
        # Values are asked for by their index in the column.
        self.chunks[self.n_chunks].offset -= self.length
        self.starts[self.n_chunks] = self.length
        self.length += length
        self.n_chunks += 1
        self.starts[self.n_chunks] = self.length
        return 0

    cdef kp_chunk* at(self, int64_t index) noexcept nogil:
        """The chunk that has the value `index`, which the column must have."""
        cdef int32_t low = 0, high = self.n_chunks - 1, middle
        while low < high:
            middle = (low + high + 1) // 2
            if self.starts[middle] <= index:
                low = middle
            else:
                high = middle - 1
        return &self.chunks[low]

    def to_list(self):
        """The values as bytes objects and None.

        Raises:
            ValueError: an offset leads out of the data.
        """
        cdef int64_t i, size
        cdef const uint8_t* data
        values = []
        for i in range(self.length):
            data = chunk_get(self.at(i), i, &size)
            if size == SIZE_BAD:
                raise_bad_offset(self.name, i)
            values.append(None if size == SIZE_NULL else bytes((<const char*>data)[:size]))
        return values


def raise_bad_offset(name, index):
    """Raise the error for a value that cannot be read."""
    raise ValueError(f"{name}[{index}] has offsets that decrease or lead out of the data buffer")


cdef Column column_of_nulls(str name, int64_t length):
    cdef Column column = Column.__new__(Column)
    cdef kp_chunk chunk
    memset(&chunk, 0, sizeof(chunk))
    column.name = name
    chunk.kind = CHUNK_NULL
    column.add(&chunk, length)
    return column


cdef Column column_of_one(str name, bytes value, int64_t length):
    """`value` for all records."""
    cdef Column column = Column.__new__(Column)
    cdef kp_chunk chunk
    memset(&chunk, 0, sizeof(chunk))
    column.name = name
    column.owners = [value]
    chunk.kind = CHUNK_SAME
    chunk.data = <const uint8_t*><const char*>value
    chunk.width = len(value)
    column.add(&chunk, length)
    return column


cdef bytes to_bytes(str name, Py_ssize_t index, object item):
    """A copy of a bytes-like object: it may change, or go, once the GIL is released."""
    cdef str option = "key_serializer" if name == "keys" else "value_serializer"
    if isinstance(item, str):
        raise TypeError(
            f"{name}[{index}] must be bytes or None, got str: encode it, or set {option} (for instance "
            f"{option}=lambda v: v.encode('utf-8'))")
    try:
        return bytes(memoryview(item).cast("B"))
    except (TypeError, BufferError):
        raise TypeError(
            f"{name}[{index}] must be bytes, a contiguous bytes-like object or None after serialization, got "
            f"{type(item).__name__}: set {option} to something that turns it into bytes") from None


cdef Column column_of_objects(str name, object items):
    """A column of a sequence of bytes-like objects and None."""
    cdef Column column = Column.__new__(Column)
    cdef kp_chunk chunk
    # Always a tuple: nobody can change one while it is read.
    cdef tuple held = items if type(items) is tuple else tuple(items)
    cdef Py_ssize_t n = PyTuple_GET_SIZE(held)
    cdef Py_ssize_t i
    cdef PyObject* item
    for i in range(n):
        item = PyTuple_GET_ITEM(held, i)
        if item != NONE and not PyBytes_CheckExact(<object>item):
            held = tuple([
                value if value is None or type(value) is bytes else to_bytes(name, at, value)
                for at, value in enumerate(held)])
            break
    memset(&chunk, 0, sizeof(chunk))
    column.name = name
    column.owners = [held]
    chunk.kind = CHUNK_OBJECTS
    chunk.objects = tuple_items(<PyObject*>held)
    column.add(&chunk, n)
    return column


@cython.final
cdef class Buffer:
    """A buffer that is held as long as this object lives."""
    cdef Py_buffer view
    cdef int held

    def __cinit__(self, source, int flags):
        PyObject_GetBuffer(source, &self.view, flags)
        self.held = 1

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef Buffer bytes_buffer(str name, object source):
    try:
        return Buffer(source, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        raise TypeError(f"{name} must be a contiguous bytes-like object, got {type(source).__name__}") from None


cdef Column column_of_buffers(str name, object data, object offsets):
    """A column whose value i is data[offsets[i]:offsets[i + 1]]."""
    cdef Column column = Column.__new__(Column)
    cdef kp_chunk chunk
    cdef Buffer values = bytes_buffer(f"{name}[0], the data,", data)
    cdef Buffer positions = integer_buffer(f"{name}[1], the offsets,", offsets)
    cdef char code = integer_code(positions)
    if code not in (b"i", b"q"):
        raise TypeError(f"{name}[1], the offsets, must be integers of 32 or 64 bits, signed; "
                        f"the format of the buffer is {positions.view.format!r}")
    if positions.view.len // positions.view.itemsize < 1:
        raise ValueError(f"{name}[1], the offsets, must have one more item than there are values, and has none")
    memset(&chunk, 0, sizeof(chunk))
    column.name = name
    column.owners = [values, positions]
    chunk.kind = CHUNK_OFFSETS32 if code == b"i" else CHUNK_OFFSETS64
    chunk.data = <const uint8_t*>values.view.buf
    chunk.data_size = values.view.len
    chunk.offsets = <const uint8_t*>positions.view.buf
    column.add(&chunk, positions.view.len // positions.view.itemsize - 1)
    return column


# ------------------------------------------------------------------------------------------------ integers

cdef Buffer integer_buffer(str name, object source):
    cdef Buffer held
    try:
        held = Buffer(source, PyBUF_FORMAT | PyBUF_ND)
    except (TypeError, BufferError):
        raise TypeError(f"{name} must be a contiguous buffer of integers, got {type(source).__name__}") from None
    if held.view.ndim != 1 or integer_code(held) == 0:
        what = held.view.format.decode("ascii", "replace") if held.view.format != NULL else "B"
        raise TypeError(f"{name} must be a buffer of integers with one dimension, got {type(source).__name__} "
                        f"with format {what!r} and {held.view.ndim} dimensions")
    return held


cdef char integer_code(Buffer held) noexcept:
    """The kind of integers in a buffer: b, h, i, q signed, B, H, I, Q unsigned with 8 to 64 bits. 0: it has others."""
    cdef const char* f = held.view.format
    cdef bint signed
    if f == NULL:
        return b"B"
    if f[0] in (b"@", b"="):
        f += 1
    elif f[0] == b"<":
        f += 1
        if not little_endian():
            return 0
    if f[0] == 0 or f[1] != 0:
        return 0
    if f[0] in (b"b", b"h", b"i", b"l", b"q", b"n"):
        signed = True
    elif f[0] in (b"B", b"H", b"I", b"L", b"Q", b"N"):
        signed = False
    else:
        return 0
    if held.view.itemsize == 1:
        return b"b" if signed else b"B"
    if held.view.itemsize == 2:
        return b"h" if signed else b"H"
    if held.view.itemsize == 4:
        return b"i" if signed else b"I"
    if held.view.itemsize == 8:
        return b"q" if signed else b"Q"
    return 0


cdef inline bint little_endian() noexcept nogil:
    cdef int32_t one = 1
    return (<uint8_t*>&one)[0] == 1


@cython.final
cdef class Integers:
    """Partitions or timestamps of records: one value for all, or an item for each; -1 is None."""

    def __dealloc__(self):
        free(self.items)

    cdef int reserve(self, int64_t length) except -1:
        self.items = <int64_t*>malloc((length if length else 1) * sizeof(int64_t))
        if self.items == NULL:
            raise MemoryError
        self.length = length
        return 0

    cdef int put(self, int64_t index, object item) except -1:
        if item is None:
            self.items[index] = -1
            return 0
        self.items[index] = checked_integer(self.name, f"{self.name}[{index}]", item)
        return 0

    def to_list(self, length):
        """The items as ints and None."""
        cdef int64_t i
        if self.items == NULL:
            return [None if self.value < 0 else self.value] * length
        return [None if self.items[i] < 0 else self.items[i] for i in range(length)]


cdef int64_t checked_integer(str name, str where, object item) except -1:
    cdef str unit = " (ms since 1970)" if name == "timestamps" else ""
    if isinstance(item, bool) or not hasattr(item, "__index__"):
        raise TypeError(f"{where} must be int{unit} or None, got {type(item).__name__}: {item!r}")
    item = item.__index__()
    if not 0 <= item <= INT64_MAX:
        raise ValueError(f"{where} must be in [0, 2^63 - 1]{unit}, got {item}")
    return item


cdef inline int16_t load_i16(const uint8_t* p) noexcept nogil:
    cdef int16_t value
    memcpy(&value, p, 2)
    return value


cdef int fill_from_buffer(Integers into, Buffer held) except -1:
    cdef int64_t i, item = 0
    cdef char code = integer_code(held)
    cdef const uint8_t* p = <const uint8_t*>held.view.buf
    for i in range(into.length):
        if code == b"q":
            item = load_i64(p + i * 8)
        elif code == b"i":
            item = load_i32(p + i * 4)
        elif code == b"I":
            item = <uint32_t>load_i32(p + i * 4)
        elif code == b"Q":
            item = load_i64(p + i * 8)    # one beyond 2^63 - 1 is negative
        elif code == b"h":
            item = load_i16(p + i * 2)
        elif code == b"H":
            item = <uint16_t>load_i16(p + i * 2)
        elif code == b"b":
            item = (<const int8_t*>p)[i]
        else:
            item = p[i]
        if item < 0:
            checked_integer(into.name, f"{into.name}[{i}]", <uint64_t>item if code == b"Q" else item)
        into.items[i] = item
    return 0


cdef Integers integers_of(str name, object source, int64_t length):
    """Integers of None, an int, a buffer of integers, or a sequence of ints and None."""
    cdef Integers made = Integers.__new__(Integers)
    cdef Buffer held
    cdef int64_t i = 0
    cdef int64_t found
    made.name = name
    made.value = -1
    made.length = length
    if source is None:
        return made
    if isinstance(source, bool) or hasattr(source, "__index__") and not hasattr(source, "__len__"):
        made.value = checked_integer(name, name, source)
        return made
    if isinstance(source, (str, bytes, bytearray)):
        raise TypeError(f"{name} must be an int, a sequence of ints, or None, got {type(source).__name__}")
    if PyObject_CheckBuffer(source):
        held = integer_buffer(name, source)
        found = held.view.len // held.view.itemsize
        check_length(name, found, length)
        made.reserve(length)
        fill_from_buffer(made, held)
        return made
    try:
        items = tuple(source)
    except TypeError:
        raise TypeError(
            f"{name} must be an int, a sequence of ints, or None, got {type(source).__name__}") from None
    check_length(name, len(items), length)
    made.reserve(length)
    for item in items:
        made.put(i, item)
        i += 1
    return made


def check_length(name, found, expected):
    """Refuse an argument that has not one item for each value.

    Raises:
        ValueError: it has not.
    """
    if found != expected:
        raise ValueError(f"{name} must have one item for each of the {expected} values, and has {found}")
