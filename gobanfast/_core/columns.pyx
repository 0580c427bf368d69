"""Columns of requests against compiled rules: names to classes, classes to decisions. Long: one loop a column type."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from gobanfast._core.address cimport gbf_ascii, leaves_many
from gobanfast._core.decision cimport Decision, Request, SignalDecision, decide_leaf, start_request
from gobanfast._core.name_text cimport run_strings
from gobanfast._core.compiled_rules cimport ANYBODY, OWNED, CompiledRules
from gobanfast._core.connection_table cimport ConnectionTable
from gobanfast._core.native.base cimport (
    GBF_ADMIT, GBF_NONE, GBF_OK, GBF_CAUSE_NONE, GBF_CAUSE_RULE, GBF_CAUSE_UNPARSABLE, GBF_RECORD, GBF_RESOURCE,
    GBF_SHARE, GBF_SHARED_NONE, GBF_SHARED_REFUSED, GBF_SHARED_WITHHELD, GBF_UNPARSABLE_JA4, ArrowArray,
    ArrowArrayStream, ArrowSchema,
)
from gobanfast._core.native.name cimport gbf_name_table
from gobanfast._core.native.rules cimport (
    GBF_ASKS_JA4, GBF_ASKS_NAME, GBF_COLUMNS_MAX, GBF_ROW_ABSENT, GBF_ROW_KNOWN, GBF_ROW_MALFORMED, gbf_bits_and,
    gbf_classes, gbf_classes_free, gbf_classes_start, gbf_column, gbf_columns_decide, gbf_columns_first,
    gbf_columns_names, gbf_columns_fingerprints, gbf_rows, gbf_rules, gbf_rules_leaf, gbf_connection,
    gbf_connection_name_row,
)

cdef struct names_context:
    const gbf_connection *signals
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


cdef int plain_row(ConnectionTable signals, const uint64_t *row, uint64_t *vector) except -1:
    """Makes one vector of the two halves of a row of names."""
    cdef uint32_t words = signals._signals.words
    memcpy(vector, row, 8 * words)
    gbf_bits_and(vector, row + words, words)
    return 0


cdef tuple slow_name_column(ConnectionTable signals, object names, Py_ssize_t rows):
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
        memcpy(row, gbf_connection_name_row(&signals._signals, kind), 2 * 8 * words)
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
    cdef ConnectionTable signals = signals_of(compiled)
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
        plain_row(signals, gbf_connection_name_row(&signals._signals, kind), room + kind * words)
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


cdef struct values_context:
    PyObject *known
    uint32_t *out


cdef Py_ssize_t run_values(void *context, const uint8_t **texts, const uint64_t *nbytes, uint64_t count,
                           uint64_t first) noexcept nogil:
    cdef values_context *c = <values_context *>context
    with gil:
        try:
            number_values(<dict>c.known, texts, nbytes, count, c.out + first)
        except MemoryError:
            return -1
    return <Py_ssize_t>count


cdef int number_values(dict known, const uint8_t **texts, const uint64_t *nbytes, uint64_t count,
                       uint32_t *out) except -1:
    cdef uint64_t i
    for i in range(count):
        value = None if texts[i] == NULL else PyBytes_FromStringAndSize(<const char *>texts[i], <Py_ssize_t>nbytes[i])
        out[i] = known.setdefault(value, len(known))
    return 0


def text_column(texts, Py_ssize_t rows):
    """(numbers, values): bytes of uint32 a row, and the distinct values, of which the first is None.

    Args:
        texts: `rows` of str, bytes or None: Arrow strings, or any iterable.
    Raises:
        ValueError: another number of texts.
    Cost: about 50 ns a text.
    """
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef uint32_t *numbers = <uint32_t *>PyBytes_AS_STRING(out)
    cdef dict known = {None: 0}
    cdef values_context context
    cdef list listed
    cdef Py_ssize_t i
    if hasattr(texts, "__arrow_c_array__") or hasattr(texts, "__arrow_c_stream__"):
        context.known, context.out = <PyObject *>known, numbers
        try:
            run_strings(run_values, &context, texts, numbers, rows, None)
            return out, list(known)
        except TypeError:  # not strings: bytes, or a dictionary of strings
            known = {None: 0}
            texts = texts.to_pylist() if hasattr(texts, "to_pylist") else texts
    listed = texts.tolist() if hasattr(texts, "tolist") else list(texts)
    if len(listed) != rows:
        raise ValueError(f"{len(listed)} items for {rows} rows")
    for i in range(rows):
        numbers[i] = known.setdefault(listed[i], len(known))
    return out, list(known)


def fingerprint_column(fingerprints, Py_ssize_t rows):
    """(numbers, values): bytes of uint32 a row, and 16 bytes a number; numbers 0 and 1 are no row's.

    Args:
        fingerprints: `rows` x 16 bytes.
    Raises:
        ValueError: another number of bytes.
    Cost: 5 to 20 ns a row. Detaches from the interpreter.
    """
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef uint32_t *numbers = <uint32_t *>PyBytes_AS_STRING(out)
    cdef uint64_t none[2]
    cdef gbf_classes classes
    cdef Py_buffer source
    cdef bint whole
    memset(none, 0, sizeof(none))
    PyObject_GetBuffer(fingerprints, &source, PyBUF_SIMPLE)
    try:
        if source.len != 16 * rows:
            raise ValueError(f"{source.len} bytes of hashes, 16 each, for {rows} rows")
        try:
            whole = gbf_classes_start(&classes, 2, none, none) == GBF_OK
            if whole:
                with nogil:
                    whole = gbf_columns_fingerprints(&classes, <const uint8_t *>source.buf, <uint64_t>rows, numbers)
            if not whole:
                raise MemoryError()
            return out, (<const char *>classes.vectors)[:16 * <Py_ssize_t>classes.count]
        finally:
            gbf_classes_free(&classes)
    finally:
        PyBuffer_Release(&source)


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


def address_leaves(CompiledRules compiled not None, addresses, Py_ssize_t rows):
    """Bytes of one uint32 a row: the leaf of each address, 0xFFFFFFFF where it is not one.

    Args:
        addresses: uint32 buffer (IPv4, host order), n x 16 bytes (network order), list of str, NumPy array of dtype S
            or U, or anything with the Arrow C data interface that holds strings, uint32 or 16-byte values.
    Raises:
        ValueError: another number of addresses; TypeError: they are none of these.
    Cost: 3 to 30 ns an address. Detaches from the interpreter for columns.
    """
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef uint32_t *leaves = <uint32_t *>PyBytes_AS_STRING(out)
    cdef texts_context context
    arrow = hasattr(addresses, "__arrow_c_array__") or hasattr(addresses, "__arrow_c_stream__")
    if not arrow and getattr(getattr(addresses, "dtype", None), "kind", "O") not in "SU":
        leaves_many(&compiled._rules.lpm, compiled._rules.kernel, addresses,
                    PyMemoryView_FromMemory(<char *>leaves, 4 * rows, PyBUF_WRITE).cast("I"))
        return out
    context.rules, context.out = &compiled._rules, leaves
    try:
        run_strings(run_texts, &context, addresses, leaves, rows, None)
    except TypeError:  # not strings
        arrow_numbers(compiled, addresses, leaves, rows)
    return out


def decide_rows(CompiledRules compiled not None, bytes leaves not None, bytes base not None, list columns not None):
    """(actions, rules, asns, causes) of rows, as bytes of uint8, uint32, uint32, uint8 a row.

    Args:
        leaves: uint32 a row, from `address_leaves`.
        base: one vector, ANDed into every row.
        columns: (classes, vectors) pairs, at most GBF_COLUMNS_MAX.
    Raises:
        ValueError: sizes that do not fit each other. Classes are not checked: they come from this module.
    """
    cdef Py_ssize_t i, rows = len(leaves) // 4
    cdef uint32_t words = compiled._rules.words
    cdef gbf_column given[GBF_COLUMNS_MAX]
    cdef uint32_t count = <uint32_t>len(columns)
    cdef bytes actions = PyBytes_FromStringAndSize(NULL, rows)
    cdef bytes rules = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef bytes asns = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef bytes causes = PyBytes_FromStringAndSize(NULL, rows)
    cdef bytes winners = PyBytes_FromStringAndSize(NULL, 4 * <Py_ssize_t>compiled._rules.class_count)
    cdef bytes classes, vectors
    cdef gbf_rows out
    cdef const uint64_t *others
    cdef const uint32_t *numbers
    cdef uint32_t *won
    cdef uint8_t *cause = <uint8_t *>PyBytes_AS_STRING(causes)
    if len(leaves) % 4 or len(base) != 8 * words or count > GBF_COLUMNS_MAX:
        raise ValueError("columns do not fit the rules")
    for i in range(count):
        classes, vectors = columns[i]
        if len(classes) != 4 * rows or len(vectors) % (8 * words):
            raise ValueError("columns do not fit the rules")
        given[i].classes = <const uint32_t *><const char *>classes
        given[i].vectors = <const uint64_t *><const char *>vectors
    out.actions = <uint8_t *>PyBytes_AS_STRING(actions)
    out.rules, out.asns = <uint32_t *>PyBytes_AS_STRING(rules), <uint32_t *>PyBytes_AS_STRING(asns)
    others, numbers = <const uint64_t *><const char *>base, <const uint32_t *><const char *>leaves
    won = <uint32_t *>PyBytes_AS_STRING(winners)
    with nogil:
        gbf_columns_decide(&compiled._rules, others, <uint8_t>compiled.unparsable, numbers, <uint64_t>rows, given,
                           count, won, &out)
        fill_causes(out.rules, numbers, rows, given, count, cause)
    return actions, rules, asns, causes


cdef int fill_causes(const uint32_t *rules, const uint32_t *leaves, Py_ssize_t rows, const gbf_column *given,
                     uint32_t count, uint8_t *out) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint32_t c
    cdef const uint32_t *classes
    cdef uint8_t *by_rule = [GBF_CAUSE_NONE, GBF_CAUSE_RULE]  # no branches: which rows rules decide is hard to guess
    cdef uint8_t *by_address = [0, GBF_CAUSE_UNPARSABLE]
    for i in range(rows):
        out[i] = by_rule[rules[i] != GBF_NONE] | by_address[(rules[i] == GBF_NONE) & (leaves[i] == GBF_NONE)]
    for c in range(count):
        classes = given[c].classes
        for i in range(rows):
            if classes[i] == GBF_ROW_MALFORMED and out[i] == GBF_CAUSE_NONE:
                out[i] = GBF_CAUSE_UNPARSABLE
    return 0


def share_rows(CompiledRules compiled not None, bytes leaves not None, bytes base not None, list columns not None,
               bytes pages not None):
    """(shares, rules) of rows, as bytes of uint8 (gbf_shared) and uint32 a row, for rules about sharing.

    Args:
        pages: a byte a row: 1 where there is an Origin. The others are as for `decide_rows`. No row is a preflight.
    Raises:
        ValueError: sizes that do not fit each other.
    """
    cdef Py_ssize_t i, rows = len(leaves) // 4
    cdef uint32_t words = compiled._rules.words, bit
    cdef uint32_t *ends = compiled._rules.ends
    cdef gbf_column given[GBF_COLUMNS_MAX]
    cdef uint32_t count = <uint32_t>len(columns)
    cdef bytes shares = PyBytes_FromStringAndSize(NULL, rows), rules = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef bytes owners = PyBytes_FromStringAndSize(NULL, 4 * rows), mask = bytes(bytearray(8 * words))
    cdef uint64_t *owning = <uint64_t *>PyBytes_AS_STRING(mask)
    cdef uint32_t *won = <uint32_t *>PyBytes_AS_STRING(rules)
    cdef uint32_t *owned = <uint32_t *>PyBytes_AS_STRING(owners)
    cdef uint8_t *shared = <uint8_t *>PyBytes_AS_STRING(shares)
    cdef bytes classes, vectors
    cdef const uint8_t *page = <const uint8_t *><const char *>pages
    cdef const uint8_t *actions = compiled._share_actions
    cdef const uint64_t *others = <const uint64_t *><const char *>base
    cdef const uint32_t *numbers = <const uint32_t *><const char *>leaves
    cdef int action
    if len(leaves) % 4 or len(base) != 8 * words or count > GBF_COLUMNS_MAX or len(pages) != rows:
        raise ValueError("columns do not fit the rules")
    for i in range(count):
        classes, vectors = columns[i]
        if len(classes) != 4 * rows or len(vectors) % (8 * words):
            raise ValueError("columns do not fit the rules")
        given[i].classes = <const uint32_t *><const char *>classes
        given[i].vectors = <const uint64_t *><const char *>vectors
    for bit in range(ends[GBF_RECORD], ends[GBF_RESOURCE]):
        if compiled._resource_flags[bit - ends[GBF_RECORD]] & OWNED:
            owning[bit >> 6] |= <uint64_t>1 << (bit & 63)
    with nogil:
        gbf_columns_first(&compiled._rules, compiled._rules.enforced, ends[GBF_ADMIT], ends[GBF_SHARE], others,
                          numbers, <uint64_t>rows, given, count, won)
        gbf_columns_first(&compiled._rules, owning, ends[GBF_RECORD], ends[GBF_RESOURCE], others, numbers,
                          <uint64_t>rows, given, count, owned)
        for i in range(rows):
            if won[i] == GBF_NONE:
                shared[i] = GBF_SHARED_WITHHELD if page[i] and owned[i] != GBF_NONE else GBF_SHARED_NONE
                continue
            action = actions[won[i] - ends[GBF_ADMIT]]
            if page[i] or action & ANYBODY or action == GBF_SHARED_REFUSED:
                shared[i] = <uint8_t>(action & ~ANYBODY)
            else:
                shared[i], won[i] = GBF_SHARED_NONE, GBF_NONE
    return shares, rules


def rules_decision(CompiledRules compiled not None, str address, *, str sni=None, str ja4=None, headers=None,
                   str method=None, str path=None, str mount="", str scheme=None):
    """The Decision that rules alone give one request: for rows of columns that are decided one by one."""
    cdef Request request
    cdef const char *text
    cdef size_t nbytes
    cdef uint32_t leaf = GBF_NONE
    start_request(&request)
    request.sni, request.tls, request.headers = <PyObject *>sni, <PyObject *>ja4, <PyObject *>headers
    request.method, request.path, request.mount = <PyObject *>method, <PyObject *>path, <PyObject *>mount
    request.scheme = <PyObject *>scheme
    if compiled.requests is not None:
        request.wanted = compiled.requests.asks
    if address is not None and gbf_ascii(address, &text, &nbytes):
        leaf = gbf_rules_leaf(&compiled._rules, text, nbytes)
    return decide_leaf(compiled, leaf, address, &request)


def replay_rows(CompiledRules compiled not None, decisions, Py_ssize_t rows):
    """(actions, rules, asns, causes, scores, shares, share rules) of as many decisions, as bytes of uint8, uint32,
    uint32, uint8, float32, uint8, uint32.

    Raises:
        RuntimeError: other rules than `compiled` made one of them.
    """
    cdef bytes actions = PyBytes_FromStringAndSize(NULL, rows)
    cdef bytes rules = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef bytes asns = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef bytes causes = PyBytes_FromStringAndSize(NULL, rows)
    cdef bytes scores = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef bytes shares = PyBytes_FromStringAndSize(NULL, rows), share_rules = PyBytes_FromStringAndSize(NULL, 4 * rows)
    cdef uint8_t *shared = <uint8_t *>PyBytes_AS_STRING(shares)
    cdef uint32_t *share_rule = <uint32_t *>PyBytes_AS_STRING(share_rules)
    cdef uint8_t *action = <uint8_t *>PyBytes_AS_STRING(actions)
    cdef uint32_t *rule = <uint32_t *>PyBytes_AS_STRING(rules)
    cdef uint32_t *asn = <uint32_t *>PyBytes_AS_STRING(asns)
    cdef uint8_t *cause = <uint8_t *>PyBytes_AS_STRING(causes)
    cdef float *score = <float *>PyBytes_AS_STRING(scores)
    cdef Decision d
    cdef Py_ssize_t i = 0
    for d in decisions:
        if d is None:
            raise TypeError(f"decision {i}: expected Decision, got NoneType")
        if d._compiled is not compiled or i == rows:
            raise RuntimeError(f"the rules were replaced during the replay, before row {i}")
        action[i], cause[i], score[i] = d._action, d._cause, d._score
        rule[i] = d._rule if d._cause == GBF_CAUSE_RULE else GBF_NONE
        asn[i] = compiled._rules.leaves[d._leaf].asn if d._leaf != GBF_NONE else 0
        shared[i], share_rule[i] = GBF_SHARED_NONE, GBF_NONE
        if type(d) is SignalDecision:
            shared[i] = <uint8_t>(<SignalDecision>d).shared()
            if shared[i] != GBF_SHARED_NONE:
                share_rule[i] = (<SignalDecision>d).share_rule_index()
        i += 1
    if i != rows:
        raise ValueError(f"{i} decisions for {rows} rows")
    return actions, rules, asns, causes, scores, shares, share_rules


cdef ConnectionTable signals_of(CompiledRules compiled):
    """The signals of rules that ask for some. ValueError where none does."""
    if compiled.signals is None:
        raise ValueError("no rule asks for a server name or a ClientHello")
    return compiled.signals


def asks_names(CompiledRules compiled not None):
    """Whether some rule requires the server name."""
    return compiled.signals is not None and compiled.signals._signals.asks & GBF_ASKS_NAME != 0


def asks_ja4(CompiledRules compiled not None):
    """Whether some rule requires the JA4."""
    return compiled.signals is not None and compiled.signals._signals.asks & GBF_ASKS_JA4 != 0


def ja4_states(CompiledRules compiled not None):
    """The vectors that no hello, and one that cannot be read, satisfy."""
    cdef ConnectionTable signals = signals_of(compiled)
    cdef uint32_t words = signals._signals.words
    return tuple([(<const char *>(signals._signals.hello_rows + kind * words))[:8 * words]
                  for kind in range(GBF_ROW_MALFORMED + 1)])


def ja4_vector(CompiledRules compiled not None, str ja4 not None):
    """The vector that a JA4 without a hello satisfies; None for what has not its shape."""
    cdef ConnectionTable signals = signals_of(compiled)
    cdef uint32_t words = signals._signals.words
    cdef bytes out = b"\xff" * (8 * words), scratch = PyBytes_FromStringAndSize(NULL, 8 * words)
    if signals.and_ja4(<uint64_t *><char *>out, <uint64_t *><char *>scratch, ja4) == GBF_UNPARSABLE_JA4:
        return None
    return out


def absent_vector(CompiledRules compiled not None, bint names, bint ja4):
    """The vector that the absence of name and hello satisfies; without what there is a column of: `names`, `ja4`."""
    cdef ConnectionTable signals = compiled.signals
    cdef uint32_t words = compiled._rules.words
    cdef bytes out
    if signals is None or (names and ja4):
        return b"\xff" * (8 * words)
    if not ja4:
        return (<const char *>(signals._signals.hello_rows if names else signals._signals.absent))[:8 * words]
    out = PyBytes_FromStringAndSize(NULL, 8 * words)
    plain_row(signals, gbf_connection_name_row(&signals._signals, GBF_ROW_ABSENT), <uint64_t *><char *>out)
    return out
