"""Arrow C data interface: columns handed out without a copy, and dictionary columns taken in.

Source: Apache Arrow C data interface, C stream interface, PyCapsule interface (arrow.apache.org/docs/format).
"""

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EINVAL
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from gobanfast._core.native.base cimport (
    GBF_ARROW_NONE, ArrowArray, ArrowArrayStream, ArrowSchema, gbf_arrow, gbf_arrow_column, gbf_arrow_form_of,
    gbf_arrow_get, gbf_string_form,
)

cdef enum:
    NULLABLE = 2  # ARROW_FLAG_NULLABLE
    PIECE = 256


cdef void release_schema(ArrowSchema *schema) noexcept with gil:
    cdef int64_t i
    for i in range(schema.n_children):
        if schema.children[i] != NULL:
            if schema.children[i].release != NULL:
                schema.children[i].release(schema.children[i])
            free(schema.children[i])
    free(schema.children)
    if schema.dictionary != NULL:
        if schema.dictionary.release != NULL:
            schema.dictionary.release(schema.dictionary)
        free(schema.dictionary)
    if schema.private_data != NULL:
        Py_DECREF(<object>schema.private_data)
    schema.release = NULL


cdef void release_array(ArrowArray *array) noexcept with gil:
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i] != NULL:
            if array.children[i].release != NULL:
                array.children[i].release(array.children[i])
            free(array.children[i])
    free(array.children)
    free(array.buffers)
    if array.dictionary != NULL:
        if array.dictionary.release != NULL:
            array.dictionary.release(array.dictionary)
        free(array.dictionary)
    if array.private_data != NULL:
        Py_DECREF(<object>array.private_data)
    array.release = NULL


cdef int fill_schema(ArrowSchema *schema, tuple column) except -1:
    """(name, format, length, buffers, children, dictionary) as a schema."""
    cdef bytes name, form
    cdef tuple children
    cdef int64_t i
    name, form, children = column[0].encode(), column[1].encode(), column[4]
    memset(schema, 0, sizeof(ArrowSchema))
    held = (name, form)
    schema.format, schema.name, schema.flags = PyBytes_AS_STRING(form), PyBytes_AS_STRING(name), NULLABLE
    Py_INCREF(held)
    schema.private_data, schema.release = <void *><PyObject *>held, release_schema
    if children:
        schema.children = <ArrowSchema **>calloc(len(children), sizeof(ArrowSchema *))
        if schema.children == NULL:
            raise MemoryError()
        schema.n_children = len(children)
        for i in range(schema.n_children):
            schema.children[i] = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
            if schema.children[i] == NULL:
                raise MemoryError()
            fill_schema(schema.children[i], children[i])
    if column[5] is not None:
        schema.dictionary = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
        if schema.dictionary == NULL:
            raise MemoryError()
        fill_schema(schema.dictionary, column[5])
    return 0


cdef int fill_array(ArrowArray *array, tuple column) except -1:
    cdef tuple buffers = column[3], children = column[4]
    cdef Py_buffer source
    cdef int64_t i
    memset(array, 0, sizeof(ArrowArray))
    array.length, array.null_count = column[2], 0 if buffers[0] is None else -1
    Py_INCREF(buffers)
    array.private_data, array.release = <void *><PyObject *>buffers, release_array
    array.buffers = <const void **>calloc(len(buffers), sizeof(void *))
    if array.buffers == NULL:
        raise MemoryError()
    array.n_buffers = len(buffers)
    for i in range(array.n_buffers):
        if buffers[i] is not None:
            PyObject_GetBuffer(buffers[i], &source, PyBUF_SIMPLE)
            array.buffers[i] = source.buf
            PyBuffer_Release(&source)  # `buffers` keeps what it points into
    if children:
        array.children = <ArrowArray **>calloc(len(children), sizeof(ArrowArray *))
        if array.children == NULL:
            raise MemoryError()
        array.n_children = len(children)
        for i in range(array.n_children):
            array.children[i] = <ArrowArray *>calloc(1, sizeof(ArrowArray))
            if array.children[i] == NULL:
                raise MemoryError()
            fill_array(array.children[i], children[i])
    if column[5] is not None:
        array.dictionary = <ArrowArray *>calloc(1, sizeof(ArrowArray))
        if array.dictionary == NULL:
            raise MemoryError()
        fill_array(array.dictionary, column[5])
    return 0


cdef void free_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release != NULL:
        schema.release(schema)
    free(schema)


cdef void free_array(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)


cdef void free_stream(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


def schema_capsule(tuple column not None):
    """The schema of a column, which is (name, format, length, buffers, children, dictionary): a buffer for each that
    the format has, None for a bitmap of valid items where all are; columns inside; the column of values, or None."""
    cdef ArrowSchema *schema = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
    if schema == NULL:
        raise MemoryError()
    capsule = PyCapsule_New(schema, "arrow_schema", free_schema)
    fill_schema(schema, column)
    return capsule


def array_capsules(tuple column not None):
    """(schema, array) of a column; see `schema_capsule`. Nothing is copied."""
    cdef ArrowArray *array = <ArrowArray *>calloc(1, sizeof(ArrowArray))
    if array == NULL:
        raise MemoryError()
    capsule = PyCapsule_New(array, "arrow_array", free_array)
    fill_array(array, column)
    return schema_capsule(column), capsule


cdef int stream_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept with gil:
    cdef list state = <list>stream.private_data
    memset(out, 0, sizeof(ArrowSchema))
    try:
        fill_schema(out, state[0])
    except BaseException as error:
        state[2] = f"{type(error).__name__}: {error}".encode()
        if out.release != NULL:
            out.release(out)
        return EINVAL
    return 0


cdef int stream_next(ArrowArrayStream *stream, ArrowArray *out) noexcept with gil:
    cdef list state = <list>stream.private_data
    memset(out, 0, sizeof(ArrowArray))
    try:
        column = next(state[1], None)
        if column is not None:
            fill_array(out, column)
    except BaseException as error:
        state[2] = f"{type(error).__name__}: {error}".encode()
        if out.release != NULL:
            out.release(out)
        return EINVAL
    return 0


cdef const char *stream_error(ArrowArrayStream *stream) noexcept with gil:
    cdef list state = <list>stream.private_data
    return PyBytes_AS_STRING(state[2]) if state[2] is not None else NULL


cdef void release_stream(ArrowArrayStream *stream) noexcept with gil:
    if stream.private_data != NULL:
        Py_DECREF(<object>stream.private_data)
    stream.private_data, stream.release = NULL, NULL


def stream_capsule(tuple column not None, columns, /):
    """A stream of the columns, all of the schema of the first argument."""
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>calloc(1, sizeof(ArrowArrayStream))
    cdef list state = [column, iter(columns), None]
    if stream == NULL:
        raise MemoryError()
    capsule = PyCapsule_New(stream, "arrow_array_stream", free_stream)
    Py_INCREF(state)
    stream.private_data, stream.get_schema, stream.get_next = <void *><PyObject *>state, stream_schema, stream_next
    stream.get_last_error, stream.release = stream_error, release_stream
    return capsule


# ---- dictionaries in


cdef int64_t index_of(const char *form, const void *values, int64_t at) noexcept nogil:
    if form[0] == c"c":
        return (<const int8_t *>values)[at]
    if form[0] == c"C":
        return (<const uint8_t *>values)[at]
    if form[0] == c"s":
        return (<const int16_t *>values)[at]
    if form[0] == c"S":
        return (<const uint16_t *>values)[at]
    if form[0] == c"i":
        return (<const int32_t *>values)[at]
    if form[0] == c"I":
        return (<const uint32_t *>values)[at]
    if form[0] == c"l" or form[0] == c"L":
        return (<const int64_t *>values)[at]
    return -1


cdef list texts_of(const ArrowSchema *schema, const ArrowArray *array):
    """The texts of an array of strings."""
    cdef const uint8_t *texts[PIECE]
    cdef uint64_t nbytes[PIECE]
    cdef uint64_t first = 0, size, i
    cdef uint8_t scratch[1]
    cdef gbf_string_form form = gbf_arrow_form_of(schema.format)
    cdef gbf_arrow column
    cdef list found = []
    if form == GBF_ARROW_NONE:
        raise TypeError(f"a dictionary of Arrow type {schema.format.decode()!r} holds no strings; cast it to string")
    column = gbf_arrow_column(form, array)
    while first < column.count:
        size = min(<uint64_t>PIECE, column.count - first)
        gbf_arrow_get(&column, first, size, texts, nbytes, scratch)
        for i in range(size):
            found.append(None if texts[i] == NULL else
                         PyBytes_FromStringAndSize(<const char *>texts[i], <Py_ssize_t>nbytes[i]))
        first += size
    return found


cdef int64_t add_rows(const ArrowSchema *schema, const ArrowArray *array, dict known, uint32_t *out,
                      int64_t room) except -1:
    cdef const uint8_t *valid = <const uint8_t *>array.buffers[0] if array.n_buffers > 0 else NULL
    cdef int64_t i, at, which
    cdef list numbers
    if array.length > room:
        raise ValueError(f"more rows than {room}")
    if schema.dictionary == NULL:  # all null
        memset(out, 0, 4 * <size_t>array.length)
        return array.length
    numbers = [known.setdefault(text, len(known)) for text in texts_of(schema.dictionary, array.dictionary)]
    for i in range(array.length):
        at = array.offset + i
        out[i] = 0
        if valid != NULL and not valid[at >> 3] >> (at & 7) & 1:
            continue
        which = index_of(schema.format, array.buffers[1], at)
        if which < 0 or which >= <int64_t>len(numbers):
            raise ValueError(f"row {i} has index {which} in a dictionary of {len(numbers)} values")
        out[i] = numbers[which]
    return array.length


cdef bint is_coded(const ArrowSchema *schema) noexcept:
    return schema.dictionary != NULL or schema.format[0] == c"n"


def coded(column, Py_ssize_t rows, /):
    """(numbers, values) of a dictionary column of strings, or of one that is all null: bytes of uint32 a row, and the
    distinct values (bytes), of which the first is None. None when the column is of another kind; a stream is not read
    then.

    Raises:
        ValueError: another number of rows, or an index that is not in the dictionary. TypeError: values that are no
            strings.
    Cost: 1 to 3 ns a row, and each value once.
    """
    cdef ArrowSchema *schema
    cdef ArrowSchema told
    cdef ArrowArray array
    cdef ArrowArrayStream *stream
    cdef bytes out
    cdef uint32_t *numbers
    cdef int64_t done = 0
    cdef dict known = {None: 0}
    if hasattr(column, "__arrow_c_schema__"):
        capsule = column.__arrow_c_schema__()
        if not is_coded(<ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")):
            return None
    if hasattr(column, "__arrow_c_array__"):
        first, second = column.__arrow_c_array__()
        schema = <ArrowSchema *>PyCapsule_GetPointer(first, "arrow_schema")
        if not is_coded(schema):
            return None
        out = PyBytes_FromStringAndSize(NULL, 4 * rows)
        done = add_rows(schema, <ArrowArray *>PyCapsule_GetPointer(second, "arrow_array"), known,
                        <uint32_t *>PyBytes_AS_STRING(out), rows)
    elif hasattr(column, "__arrow_c_stream__") and hasattr(column, "__len__"):
        capsule = column.__arrow_c_stream__()
        stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
        if stream.get_schema(stream, &told) != 0:
            raise ValueError("the Arrow stream has no schema")
        try:
            if not is_coded(&told):
                return None
            out = PyBytes_FromStringAndSize(NULL, 4 * rows)
            numbers = <uint32_t *>PyBytes_AS_STRING(out)
            while True:
                if stream.get_next(stream, &array) != 0:
                    raise ValueError(f"the Arrow stream broke after {done} rows")
                if array.release == NULL:
                    break
                try:
                    done += add_rows(&told, &array, known, numbers + done, rows - done)
                finally:
                    array.release(&array)
        finally:
            told.release(&told)
    else:
        return None
    if done != rows:
        raise ValueError(f"{done} items for {rows} rows")
    return out, list(known)
