"""Normaliser of names and literal patterns, and the loop of batch lookups."""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.native.base cimport (
    GBF_NONE, GBF_ARROW_BYTES, GBF_ARROW_NONE, GBF_ARROW_UCS4, ArrowArray, ArrowArrayStream, ArrowSchema,
    gbf_string_form, gbf_arrow, gbf_arrow_form_of, gbf_arrow_column, gbf_arrow_get,
)
from gobanfast._core.native.name cimport (
    GBF_NAME_EXACT, GBF_NAME_MANY, GBF_NAME_ONE, gbf_name, gbf_name_fold_scalar, gbf_name_literal,
    gbf_name_lookup_batch, gbf_name_read, gbf_name_table,
)

cdef enum:
    CHUNK = 512  # names looked up at a time


cdef bint read_name(str text, gbf_name *name) noexcept:
    cdef const char *start
    cdef size_t n
    return gbf_ascii(text, &start, &n) and gbf_name_read(name, start, n, gbf_name_fold_scalar)


cdef uint32_t read_literal(str text, gbf_name *key) noexcept:
    cdef const char *start
    cdef size_t n
    if not gbf_ascii(text, &start, &n):
        return 0
    return gbf_name_literal(key, <const uint8_t *>start, n, gbf_name_fold_scalar)


cdef str text_of(const gbf_name *name):
    return (<const char *>name.text)[:name.nbytes].decode("ascii")


cdef tuple kind_of(uint32_t kind):
    if kind == GBF_NAME_EXACT:
        return "exact", ""
    if kind == GBF_NAME_ONE:
        return "one", "*."
    return ("many", "**.") if kind == GBF_NAME_MANY else ("tree", ".")


def normalize_name(str text not None, /):
    """The name in lower case without a trailing dot; None when it is malformed: empty, longer than 253 bytes, a label
    empty or longer than 63 bytes, a character outside a-z A-Z 0-9 - _ ., an IP literal.

    Source: csrc/DESIGN.md, "Names: what a name is".
    """
    cdef gbf_name name
    return text_of(&name) if read_name(text, &name) else None


def literal_pattern(str text not None, /):
    """(kind, canonical text) of a pattern without globs: exact, one, many or tree; None when `text` is none such."""
    cdef gbf_name key
    cdef uint32_t kind = read_literal(text, &key)
    if kind == 0:
        return None
    name, lead = kind_of(kind)
    return name, lead + text_of(&key)


cdef Py_ssize_t ask_regexes(object regexes, const uint8_t **texts, const uint64_t *nbytes, Py_ssize_t count,
                            uint32_t *out) except -1:
    cdef gbf_name name
    cdef Py_ssize_t i, matched = 0
    for i in range(count):
        if out[i] == GBF_NONE and texts[i] != NULL and gbf_name_read(&name, texts[i], nbytes[i], gbf_name_fold_scalar):
            out[i] = regexes.first(text_of(&name))
            matched += out[i] != GBF_NONE
    return matched


cdef Py_ssize_t lookup_list(name_run run, void *context, tuple names, uint32_t *out, object regexes) except -1:
    cdef const uint8_t *texts[CHUNK]
    cdef uint64_t nbytes[CHUNK]
    cdef const char *start
    cdef size_t n
    cdef Py_ssize_t i, first, size, matched = 0, count = len(names)
    cdef str name
    for first in range(0, count, CHUNK):
        size = min(<Py_ssize_t>CHUNK, count - first)
        for i in range(size):
            name = names[first + i]
            texts[i], nbytes[i] = NULL, name is not None
            if name is not None and gbf_ascii(name, &start, &n):
                texts[i] = <const uint8_t *>start
                nbytes[i] = n
        matched += ran(run(context, texts, nbytes, <uint64_t>size, <uint64_t>first))
        if regexes is not None:
            matched += ask_regexes(regexes, texts, nbytes, size, out + first)
    return matched


cdef Py_ssize_t ran(Py_ssize_t answer) except -1:
    if answer < 0:
        raise MemoryError()
    return answer


cdef Py_ssize_t lookup_column(name_run run, void *context, const gbf_arrow *column, uint64_t row, uint32_t *out,
                              object regexes) except -1:
    cdef const uint8_t *texts[CHUNK]
    cdef uint64_t nbytes[CHUNK]
    cdef uint8_t scratch[256 * CHUNK]
    cdef uint64_t first = 0, size
    cdef Py_ssize_t matched = 0, answer
    while first < column.count:
        size = min(<uint64_t>CHUNK, column.count - first)
        with nogil:
            gbf_arrow_get(column, first, size, texts, nbytes, scratch)
            answer = run(context, texts, nbytes, size, row + first)
        matched += ran(answer)
        if regexes is not None:
            matched += ask_regexes(regexes, texts, nbytes, <Py_ssize_t>size, out + row + first)
        first += size
    return matched


cdef gbf_string_form arrow_form(const ArrowSchema *schema) except GBF_ARROW_NONE:
    cdef gbf_string_form form = gbf_arrow_form_of(schema.format)
    if form == GBF_ARROW_NONE:
        raise TypeError(f"Arrow type {schema.format.decode()!r} holds no strings; cast it to string")
    return form


cdef int need_rows(Py_ssize_t room, uint64_t rows) except -1:
    if <uint64_t>room != rows:
        raise ValueError(f"out has {room} items for {rows} names")
    return 0


cdef Py_ssize_t lookup_arrow(name_run run, void *context, object names, uint32_t *out, Py_ssize_t room,
                             object regexes) except -1:
    schema_capsule, array_capsule = names.__arrow_c_array__()
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(schema_capsule, "arrow_schema")
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(array_capsule, "arrow_array")
    cdef gbf_arrow column = gbf_arrow_column(arrow_form(schema), array)
    need_rows(room, column.count)
    return lookup_column(run, context, &column, 0, out, regexes)


cdef Py_ssize_t lookup_stream(name_run run, void *context, object names, uint32_t *out, Py_ssize_t room,
                              object regexes) except -1:
    capsule = names.__arrow_c_stream__()
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    cdef ArrowSchema schema
    cdef ArrowArray array
    cdef gbf_arrow column
    cdef gbf_string_form form
    cdef Py_ssize_t matched = 0
    cdef uint64_t rows = 0
    if stream.get_schema(stream, &schema) != 0:
        raise ValueError("the Arrow stream has no schema")
    try:
        form = arrow_form(&schema)
    finally:
        schema.release(&schema)
    while True:
        if stream.get_next(stream, &array) != 0:
            raise ValueError(f"the Arrow stream broke after {rows} names")
        if array.release == NULL:
            need_rows(room, rows)
            return matched
        try:
            column = gbf_arrow_column(form, &array)
            if column.count > <uint64_t>room - rows:
                raise ValueError(f"out has {room} items for more names")
            matched += lookup_column(run, context, &column, rows, out, regexes)
            rows += column.count
        finally:
            array.release(&array)


cdef Py_ssize_t lookup_array(name_run run, void *context, const Py_buffer *source, uint32_t *out, Py_ssize_t room,
                             object regexes) except -1:
    cdef gbf_arrow column
    cdef bytes format = source.format
    memset(&column, 0, sizeof(column))
    column.form = GBF_ARROW_BYTES
    column.width = <uint64_t>source.itemsize
    if format.endswith(b"w"):
        column.form = GBF_ARROW_UCS4
        column.width //= 4
    elif not format.endswith(b"s"):
        raise TypeError(f"a buffer of format {format.decode()!r} holds no strings")
    column.bytes = <const uint8_t *>source.buf
    column.count = <uint64_t>(source.len // source.itemsize) if source.itemsize > 0 else 0
    need_rows(room, column.count)
    return lookup_column(run, context, &column, 0, out, regexes)


cdef Py_ssize_t run_strings(name_run run, void *context, object names, uint32_t *out, Py_ssize_t room,
                            object regexes) except -1:
    cdef Py_buffer source
    if hasattr(names, "__arrow_c_array__"):
        return lookup_arrow(run, context, names, out, room, regexes)
    if hasattr(names, "__arrow_c_stream__"):
        return lookup_stream(run, context, names, out, room, regexes)
    kind = getattr(getattr(names, "dtype", None), "kind", "O")
    if kind in "SU" and PyObject_CheckBuffer(names):
        PyObject_GetBuffer(names, &source, PyBUF_ND | PyBUF_FORMAT)
        try:
            return lookup_array(run, context, &source, out, room, regexes)
        finally:
            PyBuffer_Release(&source)
    texts = tuple(names)
    need_rows(room, len(texts))
    return lookup_list(run, context, texts, out, regexes)


cdef struct lookup_context:
    const gbf_name_table *table
    uint32_t *out


cdef Py_ssize_t run_lookup(void *context, const uint8_t **texts, const uint64_t *nbytes, uint64_t count,
                           uint64_t first) noexcept nogil:
    cdef lookup_context *c = <lookup_context *>context
    return <Py_ssize_t>gbf_name_lookup_batch(c.table, texts, nbytes, count, c.out + first)


cdef Py_ssize_t lookup_strings(const gbf_name_table *table, object names, object out, object regexes) except -1:
    cdef Py_buffer target
    cdef lookup_context context
    PyObject_GetBuffer(out, &target, PyBUF_WRITABLE | PyBUF_ND | PyBUF_FORMAT)
    try:
        if target.itemsize != 4:
            raise ValueError(f"out holds items of {target.itemsize} bytes, not uint32")
        context.table, context.out = table, <uint32_t *>target.buf
        return run_strings(run_lookup, &context, names, context.out, target.len // 4, regexes)
    finally:
        PyBuffer_Release(&target)
