"""Columns from the Arrow C data interface, by its Python protocol: no Arrow library is needed for it.

Whatever has ``__arrow_c_array__()`` or ``__arrow_c_stream__()`` is taken: arrays, chunked arrays, series, and tables of
pyarrow, polars, pandas, DuckDB and others. See https://arrow.apache.org/docs/format/CDataInterface.html,
``CStreamInterface.html`` and ``CDataInterface/PyCapsuleInterface.html``.

The memory stays the producer's. Each array is moved out of its capsule, or comes from the stream, and belongs to an
ArrowArrayHolder, which calls its release callback exactly once, also after an error.
"""
cimport cython
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from libc.stdint cimport (
    INT64_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from libc.string cimport memcpy, memset, strerror

from kprod._core.column cimport (
    CHUNK_FIXED, CHUNK_NULL, CHUNK_OFFSETS32, CHUNK_OFFSETS64, CHUNK_VIEWS, Column, Integers, kp_chunk,
)

from kprod._core.column import check_length

# The ABI of the C data interface; the names are the specification's.
cdef struct ArrowSchema:
    const char* format
    const char* name
    const char* metadata
    int64_t flags
    int64_t n_children
    ArrowSchema** children
    ArrowSchema* dictionary
    void (*release)(ArrowSchema*) noexcept
    void* private_data

cdef struct ArrowArray:
    int64_t length
    int64_t null_count
    int64_t offset
    int64_t n_buffers
    int64_t n_children
    const void** buffers
    ArrowArray** children
    ArrowArray* dictionary
    void (*release)(ArrowArray*) noexcept
    void* private_data

cdef struct ArrowArrayStream:
    int (*get_schema)(ArrowArrayStream*, ArrowSchema*) noexcept nogil
    int (*get_next)(ArrowArrayStream*, ArrowArray*) noexcept nogil
    const char* (*get_last_error)(ArrowArrayStream*) noexcept
    void (*release)(ArrowArrayStream*) noexcept
    void* private_data


@cython.final
cdef class ArrowSchemaHolder:
    cdef ArrowSchema schema

    def __dealloc__(self):
        if self.schema.release != NULL:
            self.schema.release(&self.schema)


@cython.final
cdef class ArrowArrayHolder:
    cdef ArrowArray array

    def __dealloc__(self):
        if self.array.release != NULL:
            self.array.release(&self.array)


@cython.final
cdef class ArrowChunks:
    """What a source gave: a schema and the arrays that have it."""
    cdef ArrowSchemaHolder schema
    cdef list arrays


cdef bint is_arrow(object source):
    # Not of a class: pyarrow.Array itself has the methods, too.
    return not isinstance(source, type) and (
        hasattr(source, "__arrow_c_array__") or hasattr(source, "__arrow_c_stream__"))


cdef ArrowChunks take_array(str name, object source):
    cdef ArrowChunks chunks = ArrowChunks.__new__(ArrowChunks)
    cdef ArrowArrayHolder holder = ArrowArrayHolder.__new__(ArrowArrayHolder)
    cdef ArrowSchema* schema
    cdef ArrowArray* array
    given = source.__arrow_c_array__()
    if (type(given) is not tuple or len(<tuple>given) != 2
            or not PyCapsule_IsValid(given[0], "arrow_schema") or not PyCapsule_IsValid(given[1], "arrow_array")):
        raise TypeError(f"{name}: __arrow_c_array__() of {type(source).__name__} must return two capsules, "
                        f"'arrow_schema' and 'arrow_array', got {given!r}")
    schema = <ArrowSchema*>PyCapsule_GetPointer(given[0], "arrow_schema")
    array = <ArrowArray*>PyCapsule_GetPointer(given[1], "arrow_array")
    if schema.release == NULL or array.release == NULL:
        raise ValueError(f"{name}: __arrow_c_array__() of {type(source).__name__} gave an array that was released")
    chunks.schema = ArrowSchemaHolder.__new__(ArrowSchemaHolder)
    # To move is to copy and to mark the source as released: its capsule then releases nothing.
    chunks.schema.schema = schema[0]
    schema.release = NULL
    holder.array = array[0]
    array.release = NULL
    chunks.arrays = [holder]
    return chunks


cdef ArrowChunks take_stream(str name, object source):
    cdef ArrowChunks chunks = ArrowChunks.__new__(ArrowChunks)
    cdef ArrowArrayHolder holder
    cdef ArrowArrayStream* stream
    cdef int failed
    capsule = source.__arrow_c_stream__()
    if not PyCapsule_IsValid(capsule, "arrow_array_stream"):
        raise TypeError(f"{name}: __arrow_c_stream__() of {type(source).__name__} must return a capsule "
                        f"'arrow_array_stream', got {capsule!r}")
    stream = <ArrowArrayStream*>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release == NULL:
        raise ValueError(f"{name}: __arrow_c_stream__() of {type(source).__name__} gave a stream that was released")
    chunks.schema = ArrowSchemaHolder.__new__(ArrowSchemaHolder)
    chunks.arrays = []
    with nogil:
        failed = stream.get_schema(stream, &chunks.schema.schema)
    if failed:
        chunks.schema.schema.release = NULL
        raise_stream_error(name, source, stream, failed)
    while True:
        holder = ArrowArrayHolder.__new__(ArrowArrayHolder)
        with nogil:
            # Not with the GIL: what makes the data may need it in another thread.
            failed = stream.get_next(stream, &holder.array)
        if failed:
            holder.array.release = NULL
            raise_stream_error(name, source, stream, failed)
        if holder.array.release == NULL:
            return chunks
        chunks.arrays.append(holder)


cdef int raise_stream_error(str name, object source, ArrowArrayStream* stream, int failed) except -1:
    cdef const char* words = stream.get_last_error(stream)
    text = words.decode("utf-8", "replace") if words != NULL else strerror(failed).decode("utf-8", "replace")
    raise ValueError(f"{name}: the Arrow stream of {type(source).__name__} failed: {text}")


cdef ArrowChunks take_chunks(str name, object source):
    if hasattr(source, "__arrow_c_array__"):
        return take_array(name, source)
    return take_stream(name, source)


# ------------------------------------------------------------------------------------------------ one column

cdef str describe(const ArrowSchema* schema):
    cdef str format = schema.format.decode("ascii", "replace")
    return f"dictionary-encoded, with indices {format!r}" if schema.dictionary != NULL else repr(format)


cdef int check_shape(str name, const ArrowSchema* schema, const ArrowArray* array, int64_t n_buffers) except -1:
    """Hold an array against its format: a producer's mistake must not become a read out of bounds."""
    if (array.length < 0 or array.offset < 0 or array.length > INT64_MAX // 16 - array.offset
            or array.n_buffers < n_buffers or (n_buffers and array.buffers == NULL)):
        raise ValueError(f"{name}: an Arrow array of format {describe(schema)} has length {array.length}, "
                         f"offset {array.offset} and {array.n_buffers} buffers; at least {n_buffers} are expected")
    return 0


cdef int check_buffer(str name, const ArrowSchema* schema, const ArrowArray* array, int index) except -1:
    if array.buffers[index] == NULL and array.length > 0:
        raise ValueError(f"{name}: buffer {index} of an Arrow array of format {describe(schema)} is missing")
    return 0


cdef const uint8_t* validity_of(const ArrowArray* array) noexcept:
    if array.null_count == 0:
        return NULL
    return <const uint8_t*>array.buffers[0]


cdef int add_chunk(Column column, const ArrowSchema* schema, const ArrowArray* array, int64_t skip,
                   int64_t length) except -1:
    """Add values `skip` to `skip + length` of an array."""
    cdef kp_chunk chunk
    cdef const char* format = schema.format
    cdef str name = column.name
    memset(&chunk, 0, sizeof(chunk))
    if schema.dictionary != NULL or array.dictionary != NULL:
        raise_format(name, schema)
    chunk.data_size = INT64_MAX
    if format[0] == b"n" and format[1] == 0:
        check_shape(name, schema, array, 0)
        chunk.kind = CHUNK_NULL
    elif format[0] in (b"z", b"u") and format[1] == 0 or format[0] in (b"Z", b"U") and format[1] == 0:
        check_shape(name, schema, array, 3)
        check_buffer(name, schema, array, 1)
        chunk.kind = CHUNK_OFFSETS32 if format[0] in (b"z", b"u") else CHUNK_OFFSETS64
        chunk.validity = validity_of(array)
        chunk.offsets = <const uint8_t*>array.buffers[1]
        chunk.data = <const uint8_t*>array.buffers[2]
        if chunk.data == NULL:
            chunk.data_size = 0
    elif format[0] == b"v" and format[1] in (b"z", b"u") and format[2] == 0:
        # Validity, views, any number of data buffers, and their sizes.
        check_shape(name, schema, array, 3)
        check_buffer(name, schema, array, 1)
        chunk.kind = CHUNK_VIEWS
        chunk.validity = validity_of(array)
        chunk.offsets = <const uint8_t*>array.buffers[1]
        chunk.n_buffers = array.n_buffers - 3
        chunk.buffers = <const uint8_t**>(array.buffers + 2)
        chunk.buffer_sizes = <const uint8_t*>array.buffers[array.n_buffers - 1]
        if chunk.buffer_sizes == NULL:
            chunk.n_buffers = 0
    elif format[0] == b"w" and format[1] == b":":
        check_shape(name, schema, array, 2)
        chunk.kind = CHUNK_FIXED
        chunk.validity = validity_of(array)
        chunk.data = <const uint8_t*>array.buffers[1]
        try:
            chunk.width = int(format[2:])
        except ValueError:
            raise_format(name, schema)
        if chunk.width < 0 or chunk.width > 0x7fffffff:
            raise_format(name, schema)
        if chunk.width:
            check_buffer(name, schema, array, 1)
    else:
        raise_format(name, schema)
    if skip + length > array.length:
        raise ValueError(f"{name}: an Arrow array has {array.length} values where {skip + length} are expected")
    chunk.offset = array.offset + skip
    column.add(&chunk, length)
    return 0


cdef int raise_format(str name, const ArrowSchema* schema) except -1:
    raise TypeError(
        f"{name} must be an Arrow array of binary, string (also large ones and views) or fixed-size binary values, "
        f"got format {describe(schema)}: cast it, or encode the values")


cdef ArrowArray* child_of(str name, const ArrowSchema* schema, const ArrowArray* array, int64_t index) except NULL:
    check_shape(name, schema, array, 1)
    if array.n_children != schema.n_children or array.children == NULL:
        raise ValueError(f"{name}: an Arrow struct has {array.n_children} children where its schema has "
                         f"{schema.n_children}")
    if has_nulls(array):
        raise ValueError(f"{name}: an Arrow struct has nulls at its top level, where a record cannot be null")
    return array.children[index]


cdef bint has_nulls(const ArrowArray* array) noexcept:
    cdef const uint8_t* validity = validity_of(array)
    cdef int64_t i
    if validity == NULL:
        return False
    for i in range(array.offset, array.offset + array.length):
        if not (validity[i >> 3] >> (i & 7)) & 1:
            return True
    return False


cdef bint is_struct(const ArrowSchema* schema) noexcept:
    return schema.format[0] == b"+" and schema.format[1] == b"s" and schema.format[2] == 0


cdef Column column_of_chunks(str name, ArrowChunks chunks, int64_t child):
    """A column of all arrays; of their child with that index unless it is -1."""
    cdef Column column = Column.__new__(Column)
    cdef ArrowArrayHolder holder
    cdef ArrowSchema* schema = &chunks.schema.schema
    column.name = name
    column.owners = [chunks]
    if not chunks.arrays:
        check_format(name, schema if child < 0 else schema.children[child])
    for holder in chunks.arrays:
        if child < 0:
            add_chunk(column, schema, &holder.array, 0, holder.array.length)
        else:
            add_chunk(column, schema.children[child], child_of(name, schema, &holder.array, child),
                      holder.array.offset, holder.array.length)
    return column


cdef int check_format(str name, const ArrowSchema* schema) except -1:
    """The wrong type is an error also where there are no values."""
    cdef const char* f = schema.format
    if schema.dictionary != NULL or not (f[0] in (b"n", b"z", b"u", b"Z", b"U", b"v", b"w")):
        raise_format(name, schema)
    return 0


cdef Column column_of_arrow(str name, object source):
    """A column of an Arrow array, chunked array or series; of a table, if it has one column.

    Raises:
        TypeError: its values are of a type that is not bytes.
        ValueError: the array contradicts its format, or the stream failed.
    """
    cdef ArrowChunks chunks = take_chunks(name, source)
    cdef ArrowSchema* schema = &chunks.schema.schema
    if not is_struct(schema):
        return column_of_chunks(name, chunks, -1)
    if schema.n_children != 1:
        raise TypeError(f"{name} must be one column, got {type(source).__name__} with {schema.n_children} columns: "
                        "take one of them, or use send_table()")
    return column_of_chunks(name, chunks, 0)


# ------------------------------------------------------------------------------------------------ integers

cdef int64_t scale_of(const ArrowSchema* schema, bint timestamps) except -1:
    """Units per ms of a timestamp, as they are in `format`; 1: ms, or no unit. Negative: ms per unit."""
    cdef const char* f = schema.format
    if not timestamps or f[0] != b"t":
        return 1
    if f[2] == b"s":
        return -1000
    if f[2] == b"m":
        return 1
    return 1000 if f[2] == b"u" else 1000000


cdef int integer_width(const ArrowSchema* schema, bint timestamps) noexcept:
    """Bytes of an integer or timestamp; negative: it is unsigned; 0: it is neither."""
    cdef const char* f = schema.format
    if schema.dictionary != NULL:
        return 0
    if timestamps and f[0] == b"t" and f[1] == b"s" and f[2] in (b"s", b"m", b"u", b"n") and f[3] == b":":
        return 8
    if f[0] == 0 or f[1] != 0:
        return 0
    if f[0] == b"c":
        return 1
    if f[0] == b"s":
        return 2
    if f[0] == b"i":
        return 4
    if f[0] == b"l":
        return 8
    if f[0] == b"C":
        return -1
    if f[0] == b"S":
        return -2
    if f[0] == b"I":
        return -4
    if f[0] == b"L":
        return -8
    return 0


cdef inline int64_t load_integer(const uint8_t* p, int width) noexcept nogil:
    """-1 also for those that do not fit."""
    cdef int16_t two
    cdef int32_t four
    cdef int64_t eight
    if width == 8 or width == -8:
        memcpy(&eight, p, 8)
        return eight
    if width == 4 or width == -4:
        memcpy(&four, p, 4)
        return <int64_t>four if width > 0 else <int64_t><uint32_t>four
    if width == 2 or width == -2:
        memcpy(&two, p, 2)
        return <int64_t>two if width > 0 else <int64_t><uint16_t>two
    return <int64_t>(<const int8_t*>p)[0] if width > 0 else <int64_t>p[0]


cdef int64_t add_integers(Integers into, const ArrowSchema* schema, const ArrowArray* array, int64_t skip,
                          int64_t length, int64_t at) except -1:
    cdef bint timestamps = into.name == "timestamps"
    cdef int width = integer_width(schema, timestamps)
    cdef int step = width if width > 0 else -width
    cdef int64_t scale = scale_of(schema, timestamps)
    cdef const uint8_t* data
    cdef const uint8_t* validity
    cdef int64_t i, j, item
    check_shape(into.name, schema, array, 2)
    check_buffer(into.name, schema, array, 1)
    if skip + length > array.length:
        raise ValueError(f"{into.name}: an Arrow array has {array.length} values where {skip + length} are expected")
    data = <const uint8_t*>array.buffers[1]
    validity = validity_of(array)
    for i in range(length):
        j = array.offset + skip + i
        if validity != NULL and not (validity[j >> 3] >> (j & 7)) & 1:
            into.items[at + i] = -1
            continue
        item = load_integer(data + j * step, width)
        if item < 0 or (scale < 0 and item > INT64_MAX // -scale):
            got = <object>(<uint64_t>item) if width < 0 else <object>item
            raise ValueError(f"{into.name}[{at + i}] must be in [0, 2^63 - 1]{' ms since 1970' if timestamps else ''}, "
                             f"got {got}"
                             f"{f' of Arrow type {describe(schema)}' if timestamps else ''}")
        into.items[at + i] = item * -scale if scale < 0 else item // scale
    return at + length


cdef Integers integers_of_chunks(str name, ArrowChunks chunks, int64_t child, int64_t length):
    cdef Integers made = Integers.__new__(Integers)
    cdef ArrowArrayHolder holder
    cdef ArrowSchema* schema = &chunks.schema.schema
    cdef ArrowSchema* own = schema if child < 0 else schema.children[child]
    cdef int64_t found = 0
    made.name = name
    made.value = -1
    if integer_width(own, name == "timestamps") == 0:
        raise TypeError(f"{name} must be an Arrow array of integers{' or timestamps' if name == 'timestamps' else ''}, "
                        f"got format {describe(own)}")
    for holder in chunks.arrays:
        if holder.array.length < 0 or holder.array.length > INT64_MAX - found:
            check_shape(name, schema, &holder.array, INT64_MAX)
        found += holder.array.length
    check_length(name, found, length)
    made.reserve(length)
    found = 0
    for holder in chunks.arrays:
        if child < 0:
            found = add_integers(made, own, &holder.array, 0, holder.array.length, found)
        else:
            found = add_integers(made, own, child_of(name, schema, &holder.array, child), holder.array.offset,
                                 holder.array.length, found)
    return made


cdef Integers integers_of_arrow(str name, object source, int64_t length):
    """Partitions or timestamps of an Arrow array.

    Raises:
        TypeError: it has no integers, or no timestamps where those are allowed.
        ValueError: it has not `length` items, or a negative one.
    """
    return integers_of_chunks(name, take_chunks(name, source), -1, length)


# ------------------------------------------------------------------------------------------------ tables

@cython.final
cdef class ArrowTable:
    """The columns of an Arrow table, record batch, data frame or relation, by name."""
    cdef ArrowChunks chunks
    cdef readonly list names

    def __init__(self, source):
        """Take it over.

        Raises:
            TypeError: it is no Arrow table.
        """
        cdef int64_t i
        cdef const char* name
        if not is_arrow(source):
            raise TypeError(
                f"table must have __arrow_c_stream__() or __arrow_c_array__(), as those of pyarrow, polars, pandas "
                f"and DuckDB have, got {type(source).__name__}")
        self.chunks = take_chunks("table", source)
        if not is_struct(&self.chunks.schema.schema):
            raise TypeError(f"table must have columns, got {type(source).__name__} with Arrow format "
                            f"{describe(&self.chunks.schema.schema)}: use send_columns()")
        self.names = []
        for i in range(self.chunks.schema.schema.n_children):
            name = self.chunks.schema.schema.children[i].name
            self.names.append(name.decode("utf-8", "replace") if name != NULL else "")

    cdef int64_t index(self, str argument, object name) except -1:
        if not isinstance(name, str):
            raise TypeError(f"{argument} must be the name of a column, got {type(name).__name__}: {name!r}")
        if self.names.count(name) != 1:
            problem = "is there several times" if name in self.names else "does not exist"
            raise ValueError(f"{argument}={name!r}: that column of the table {problem}; it has "
                             f"{', '.join(map(repr, self.names)) or 'none'}")
        return self.names.index(name)

    def column(self, str argument, name):
        """A column of bytes, for an argument of send_table().

        Raises:
            TypeError: `name` is no str, or the values are of a type that is not bytes.
            ValueError: there is no such column.
        """
        return column_of_chunks(argument, self.chunks, self.index(argument, name))

    def integers(self, str argument, name, int64_t length):
        """A column of integers or timestamps; see column()."""
        return integers_of_chunks(argument, self.chunks, self.index(argument, name), length)
