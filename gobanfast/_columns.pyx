"""Columns of requests against compiled rules: names to classes, rows of classes to decisions."""

from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from gobanfast._address cimport leaves_many
from gobanfast._name cimport run_strings
from gobanfast._rules cimport CompiledRules
from gobanfast._signals cimport SignalTable
from gobanfast.native cimport (
    GBF_ASKS_NAME, GBF_COLUMNS_MAX, GBF_NONE, GBF_OK, GBF_ROW_KNOWN, GBF_ROW_MALFORMED, ArrowArray, ArrowArrayStream,
    ArrowSchema, gbf_bits_and, gbf_classes,
    gbf_classes_free, gbf_classes_start, gbf_column, gbf_columns_decide, gbf_columns_names, gbf_name_table, gbf_rows,
    gbf_rules, gbf_signals, gbf_signals_name_row,
)


cdef struct names_context:
    const gbf_signals *signals
    const gbf_name_table *names
    gbf_classes *classes
    uint64_t *scratch
    uint32_t *out


cdef Py_ssize_t run_names(void *context, const uint8_t **texts, const uint64_t *nbytes, uint64_t count,
                          uint64_t first) noexcept nogil:
    cdef names_context *c = <names_context *>context
    if not gbf_columns_names(c.signals, c.names, c.classes, texts, nbytes, count, c.scratch, c.out + first):
        return -1
    return <Py_ssize_t>count


cdef int plain_row(SignalTable signals, const uint64_t *row, uint64_t *vector) except -1:
    """Makes one vector of the two halves of a row of names."""
    cdef uint32_t words = signals._signals.words
    memcpy(vector, row, 8 * words)
    gbf_bits_and(vector, row + words, words)
    return 0


cdef tuple slow_name_column(SignalTable signals, object names, Py_ssize_t rows):
    cdef uint32_t words = signals._signals.words, kind
    cdef bytes scratch = PyBytes_FromStringAndSize(NULL, 2 * 8 * words)
    cdef uint64_t *row = <uint64_t *>PyBytes_AS_STRING(scratch)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef uint32_t *numbers = <uint32_t *>PyBytes_AS_STRING(out)
    cdef Py_ssize_t i
    cdef dict known = {}
    cdef list texts = list(names.to_pylist() if hasattr(names, "to_pylist") else names)
    cdef list vectors = []
    if len(texts) != rows:
        raise ValueError(f"{len(texts)} names for {rows} rows")
    for kind in range(GBF_ROW_MALFORMED + 1):
        memcpy(row, gbf_signals_name_row(&signals._signals, kind), 2 * 8 * words)
        gbf_bits_and(row, row + words, words)
        vectors.append((<const char *>row)[:8 * words])
    for i in range(rows):
        found = known.get(texts[i])
        if found is None:
            kind = signals.name_row(row, None if texts[i] is None else str(texts[i]), None)
            if kind == GBF_ROW_KNOWN:
                gbf_bits_and(row, row + words, words)
                vectors.append((<const char *>row)[:8 * words])
                kind = <uint32_t>len(vectors) - 1
            found = known[texts[i]] = kind
        numbers[i] = found
    return out, b"".join(vectors)


def name_column(CompiledRules compiled not None, names, Py_ssize_t rows):
    """(classes, vectors) of a column of server names: bytes of uint32 a row, and uint64 words a class.

    Args:
        names: `rows` strings, as for `NameTable.lookup_many`; None or null is absent.
    Raises:
        ValueError: another number of names.
    Cost: 40 to 100 ns a name. Detaches from the interpreter for columns. With `re:` patterns each distinct name is
        asked once, and the column becomes a list: 200 ns a name and more.
    """
    cdef SignalTable signals = compiled.signals
    cdef uint32_t words = signals._signals.words
    cdef gbf_classes classes
    cdef names_context context
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef uint32_t kind
    cdef uint64_t *room
    if signals._names._regexes is not None:
        return slow_name_column(signals, names, rows)
    room = <uint64_t *>malloc(8 * 4 * <size_t>words)  # absent, malformed, and scratch for a row
    if room == NULL:
        raise MemoryError()
    for kind in range(GBF_ROW_MALFORMED + 1):
        plain_row(signals, gbf_signals_name_row(&signals._signals, kind), room + kind * words)
    try:
        if gbf_classes_start(&classes, words, room, room + words) != GBF_OK:
            raise MemoryError()
        context.signals, context.names, context.classes = &signals._signals, &signals._names._table, &classes
        context.scratch, context.out = room + 2 * words, <uint32_t *>PyBytes_AS_STRING(out)
        run_strings(run_names, &context, names, context.out, rows, None)
        return out, (<const char *>classes.vectors)[:8 * <Py_ssize_t>words * classes.count]
    finally:
        gbf_classes_free(&classes)
        free(room)


cdef struct texts_context:
    const gbf_rules *rules
    uint32_t *out


cdef Py_ssize_t run_texts(void *context, const uint8_t **texts, const uint64_t *nbytes, uint64_t count,
                          uint64_t first) noexcept nogil:
    cdef texts_context *c = <texts_context *>context
    cdef uint32_t lengths[512]
    cdef uint64_t i
    for i in range(count):
        lengths[i] = 0
        if texts[i] != NULL and nbytes[i] < 256:  # no address is longer
            lengths[i] = <uint32_t>nbytes[i]
    c.rules.kernel.find_text_many(&c.rules.lpm, <const char *const *>texts, lengths, count, c.out + first)
    return <Py_ssize_t>count


cdef int run_numbers(CompiledRules compiled, const ArrowArray *array, uint32_t width, uint32_t *out) except -1:
    """Records of an Arrow array of uint32 (`width` 4) or of 16-byte values; nulls are not addresses."""
    cdef const gbf_rules *rules = &compiled._rules
    cdef const uint8_t *valid = <const uint8_t *>array.buffers[0]
    cdef const uint8_t *values = <const uint8_t *>array.buffers[1] + array.offset * width
    cdef int64_t i, at
    with nogil:
        if width == 4:
            rules.kernel.find4_many(&rules.lpm, <const uint32_t *>values, <size_t>array.length, out)
        else:
            rules.kernel.find16_many(&rules.lpm, values, <size_t>array.length, out)
        if valid != NULL:
            for i in range(array.length):
                at = array.offset + i
                if not valid[at >> 3] >> (at & 7) & 1:
                    out[i] = GBF_NONE
    return 0


cdef uint32_t number_width(const ArrowSchema *schema) except 0:
    cdef bytes form = schema.format
    if form == b"I":
        return 4
    if form == b"w:16":
        return 16
    raise TypeError(f"Arrow type {form.decode()!r} holds no addresses; cast it to string, uint32 or fixed binary 16")


cdef int arrow_numbers(CompiledRules compiled, object addresses, uint32_t *out, Py_ssize_t rows) except -1:
    cdef ArrowSchema schema
    cdef ArrowArray array
    cdef ArrowArrayStream *stream
    cdef ArrowArray *whole
    cdef uint32_t width
    cdef int64_t done = 0
    if hasattr(addresses, "__arrow_c_array__"):
        schema_capsule, array_capsule = addresses.__arrow_c_array__()
        width = number_width(<ArrowSchema *>PyCapsule_GetPointer(schema_capsule, "arrow_schema"))
        whole = <ArrowArray *>PyCapsule_GetPointer(array_capsule, "arrow_array")
        if whole.length != rows:
            raise ValueError(f"{whole.length} addresses for {rows} rows")
        return run_numbers(compiled, whole, width, out)
    capsule = addresses.__arrow_c_stream__()
    stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.get_schema(stream, &schema) != 0:
        raise ValueError("the Arrow stream has no schema")
    try:
        width = number_width(&schema)
    finally:
        schema.release(&schema)
    while True:
        if stream.get_next(stream, &array) != 0:
            raise ValueError(f"the Arrow stream broke after {done} addresses")
        if array.release == NULL:
            break
        try:
            if done + array.length > rows:
                raise ValueError(f"more than {rows} addresses")
            run_numbers(compiled, &array, width, out + done)
            done += array.length
        finally:
            array.release(&array)
    if done != rows:
        raise ValueError(f"{done} addresses for {rows} rows")
    return 0


def address_records(CompiledRules compiled not None, addresses, Py_ssize_t rows):
    """Bytes of one uint32 a row: the record of each address, 0xFFFFFFFF where it is not one.

    Args:
        addresses: uint32 buffer (IPv4, host order), n x 16 bytes (network order), list of str, NumPy array of dtype S
            or U, or anything with the Arrow C data interface that holds strings, uint32 or 16-byte values.
    Raises:
        ValueError: another number of addresses; TypeError: they are none of these.
    Cost: 3 to 30 ns an address. Detaches from the interpreter for columns.
    """
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef uint32_t *records = <uint32_t *>PyBytes_AS_STRING(out)
    cdef texts_context context
    arrow = hasattr(addresses, "__arrow_c_array__") or hasattr(addresses, "__arrow_c_stream__")
    if not arrow and getattr(getattr(addresses, "dtype", None), "kind", "O") not in "SU":
        leaves_many(&compiled._rules.lpm, compiled._rules.kernel, addresses,
                    PyMemoryView_FromMemory(<char *>records, 4 * rows, PyBUF_WRITE).cast("I"))
        return out
    context.rules, context.out = &compiled._rules, records
    try:
        run_strings(run_texts, &context, addresses, records, rows, None)
    except TypeError:  # not strings
        arrow_numbers(compiled, addresses, records, rows)
    return out


def decide_rows(CompiledRules compiled not None, bytes records not None, bytes base not None, list columns not None):
    """(actions, rules, asns) of rows, as bytes of uint8, uint32, uint32 a row.

    Args:
        records: uint32 a row, from `address_records`.
        base: one vector, ANDed into every row.
        columns: (classes, vectors) pairs, at most GBF_COLUMNS_MAX.
    Raises:
        ValueError: sizes that do not fit each other. Classes are not checked: they come from this module.
    """
    cdef Py_ssize_t i, rows = len(records) // 4
    cdef uint32_t words = compiled._rules.words
    cdef gbf_column given[GBF_COLUMNS_MAX]
    cdef uint32_t count = <uint32_t>len(columns)
    cdef bytes actions = PyBytes_FromStringAndSize(NULL, rows)
    cdef bytes rules = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef bytes asns = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef bytes winners = PyBytes_FromStringAndSize(NULL, 4 * <Py_ssize_t>compiled._rules.class_count)
    cdef bytes classes, vectors
    cdef gbf_rows out
    cdef const uint64_t *others
    cdef const uint32_t *numbers
    cdef uint32_t *won
    if len(records) % 4 or len(base) != 8 * words or count > GBF_COLUMNS_MAX:
        raise ValueError("columns do not fit the rules")
    for i in range(count):
        classes, vectors = columns[i]
        if len(classes) != 4 * rows or len(vectors) % (8 * words):
            raise ValueError("columns do not fit the rules")
        given[i].classes = <const uint32_t *><const char *>classes
        given[i].vectors = <const uint64_t *><const char *>vectors
    out.actions = <uint8_t *>PyBytes_AS_STRING(actions)
    out.rules, out.asns = <uint32_t *>PyBytes_AS_STRING(rules), <uint32_t *>PyBytes_AS_STRING(asns)
    others, numbers = <const uint64_t *><const char *>base, <const uint32_t *><const char *>records
    won = <uint32_t *>PyBytes_AS_STRING(winners)
    with nogil:
        gbf_columns_decide(&compiled._rules, others, <uint8_t>compiled.unparsable, numbers, <uint64_t>rows, given,
                           count, won, &out)
    return actions, rules, asns


def asks_names(CompiledRules compiled not None):
    """Whether some rule asks for the server name."""
    return compiled.signals is not None and compiled.signals._signals.asks & GBF_ASKS_NAME != 0


def absent_vector(CompiledRules compiled not None, bint names):
    """The vector that the absence of every signal besides the address satisfies; without names in it when there is a
    column of them (`names`)."""
    cdef SignalTable signals = compiled.signals
    cdef uint32_t words = compiled._rules.words
    found = b"\xff" * (8 * words)
    if signals is not None and names:
        found = (<const char *>signals._signals.hello_rows)[:8 * words]
    elif signals is not None:
        found = (<const char *>signals._signals.absent)[:8 * words]
    if compiled.requests is None:
        return found
    both = int.from_bytes(found, "little") & int.from_bytes(compiled.requests.unknown, "little")
    return both.to_bytes(8 * words, "little")
