"""Extraction and injection of trace contexts: header pairs, mappings and environs, in one walk of the carrier."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.native.http cimport (
    GBF_B3_BYTES, GBF_TRACE_B3, GBF_TRACE_B3_FLAGS, GBF_TRACE_B3_PARENT, GBF_TRACE_B3_SAMPLED, GBF_TRACE_B3_SPAN,
    GBF_TRACE_B3_TRACE, GBF_TRACE_BAGGAGE, GBF_TRACE_DEBUG, GBF_TRACE_DEFER, GBF_TRACE_FIELDS, GBF_TRACE_NO_FIELD,
    GBF_TRACE_PARENT, GBF_TRACE_SAMPLED, GBF_TRACE_SPEAKS_B3, GBF_TRACE_SPEAKS_B3_MULTI, GBF_TRACE_SPEAKS_BAGGAGE,
    GBF_TRACE_SPEAKS_W3C, GBF_TRACE_STATE, GBF_TRACEPARENT_BYTES, gbf_b3_write, gbf_trace, gbf_trace_add,
    gbf_trace_field, gbf_trace_field_of, gbf_trace_has_ids, gbf_trace_headers, gbf_trace_hex16, gbf_trace_hex8,
    gbf_trace_start, gbf_traceparent_write,
)
from gobanfast._core.trace_context cimport (
    TraceContext, current_context, draw_span_id, draw_trace_id, received_context,
)

from sys import intern


cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_1BYTE_DATA(object text)

PROPAGATORS = ("tracecontext", "baggage", "b3", "b3multi")
"""What can be spoken. "b3" reads both forms and writes the single header, "b3multi" writes the others."""

EXTRACTED = PROPAGATORS[:3]
"""What `extract` reads when nothing else is asked for."""

INJECTED = PROPAGATORS[:2]
"""What `inject` writes when nothing else is asked for."""

FIELDS = tuple([intern(name) for name in (
    "", "traceparent", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
    "tracestate", "baggage",
)])
"""Names by the numbers of `gbf_trace_field`."""

cdef tuple NAMES = FIELDS
cdef tuple NAMES_BYTES = tuple([name.encode() for name in FIELDS])
cdef tuple NAMES_CGI = tuple([intern("HTTP_" + name.upper().replace("-", "_")) for name in FIELDS])
cdef tuple SPEAKS = PROPAGATORS, EXTRACTS = EXTRACTED


cdef uint32_t spoken(object propagators) except 0:
    """GBF_TRACE_SPEAKS_* of names."""
    cdef uint32_t speaks = 0
    if propagators is EXTRACTS:
        return GBF_TRACE_SPEAKS_W3C | GBF_TRACE_SPEAKS_BAGGAGE | GBF_TRACE_SPEAKS_B3
    if isinstance(propagators, str):
        raise TypeError(f"propagators is one text, {propagators!r}; write ({propagators!r},)")
    for name in propagators:
        if name not in SPEAKS:
            raise ValueError(f"propagator {name!r} is not one of {', '.join(SPEAKS)}")
        speaks |= <uint32_t>1 << <uint32_t>SPEAKS.index(name)
    if speaks == 0:
        raise ValueError(f"propagators is empty; name some of {', '.join(SPEAKS)}")
    return speaks


cdef uint32_t fields_of(uint32_t speaks) noexcept:
    """What the headers of these are, a bit a field."""
    cdef uint32_t fields = 0
    if speaks & GBF_TRACE_SPEAKS_W3C:
        fields |= 1 << GBF_TRACE_PARENT | 1 << GBF_TRACE_STATE
    if speaks & GBF_TRACE_SPEAKS_BAGGAGE:
        fields |= 1 << GBF_TRACE_BAGGAGE
    if speaks & (GBF_TRACE_SPEAKS_B3 | GBF_TRACE_SPEAKS_B3_MULTI):
        fields |= (1 << GBF_TRACE_B3 | 1 << GBF_TRACE_B3_TRACE | 1 << GBF_TRACE_B3_SPAN | 1 << GBF_TRACE_B3_PARENT
                   | 1 << GBF_TRACE_B3_SAMPLED | 1 << GBF_TRACE_B3_FLAGS)
    return fields


def spoken_by(propagators):
    """The same as a number."""
    return spoken(propagators)


def names_of(propagators):
    """Names of the headers that these read."""
    cdef uint32_t fields = fields_of(spoken(propagators))
    return tuple([name for i, name in enumerate(FIELDS) if fields >> <uint32_t>i & 1])


cdef gbf_trace_field field_of(object name, bint cgi) noexcept:
    """The field of a header's name, a str or bytes; none for anything else."""
    cdef const char *start
    cdef size_t nbytes
    if isinstance(name, str):
        if not gbf_ascii(<str>name, &start, &nbytes):
            return GBF_TRACE_NO_FIELD
        return gbf_trace_field_of(<const uint8_t *>start, nbytes, cgi)
    if isinstance(name, bytes):
        return gbf_trace_field_of(<const uint8_t *>PyBytes_AS_STRING(name), <uint64_t>PyBytes_GET_SIZE(name), cgi)
    return GBF_TRACE_NO_FIELD


cdef int take(gbf_trace_headers *headers, gbf_trace_field field, object value, list held) except -1:
    """Takes a value in: str, bytes, or several of them in a list; what is none of these is passed over. `held` keeps
    texts alive, which are read when the carrier has been walked and may have changed."""
    cdef const char *start = NULL
    cdef size_t nbytes = 0
    if isinstance(value, str):
        if not gbf_ascii(<str>value, &start, &nbytes):
            value = (<str>value).encode("utf-8", "replace")  # no grammar here has bytes from 0x80 on
    if isinstance(value, str):
        gbf_trace_add(headers, field, <const uint8_t *>start, nbytes)
    elif isinstance(value, bytes):
        gbf_trace_add(headers, field, <const uint8_t *>PyBytes_AS_STRING(value), <uint64_t>PyBytes_GET_SIZE(value))
    elif isinstance(value, (list, tuple)):
        for line in value:
            if isinstance(line, (str, bytes)):
                take(headers, field, line, held)
        return 0
    held.append(value)
    return 0


cdef bint is_environ(object carrier) except -1:
    return "wsgi.version" in carrier


cdef bint is_written(object carrier) except -1:
    """Whether it takes names and values as a mapping does; several headers' classes are no MutableMapping."""
    return hasattr(carrier, "items") and hasattr(carrier, "__setitem__") and hasattr(carrier, "__delitem__")


cdef object not_a_carrier(object carrier):
    return TypeError(f"carrier is {type(carrier).__name__}, not a list or tuple of (name, value), nor has it items() "
                     "as a mapping; give a getter or setter for others")


cdef object pair(object item):
    if isinstance(item, (tuple, list)) and len(item) >= 2:
        return item
    raise TypeError(f"carrier has {item!r:.80}, not (name, value)")


def extract(carrier, propagators=EXTRACTED, *, getter=None):
    """The trace context that a carrier brings, or None. traceparent counts before b3, b3 before x-b3-*.

    Args:
        carrier: list or tuple of (name, value), str or bytes; a mapping, or what else has `items()`; a WSGI environ;
            anything with a getter. None, which client libraries have for a message without headers, brings none.
        propagators: what to read, of `PROPAGATORS`.
        getter: `getter(carrier, name)` is an iterable of the values of a header, whose name is in lower case.
    Raises:
        TypeError, ValueError: misuse. What is malformed in the carrier is as if absent.
    """
    cdef gbf_trace_headers headers
    cdef gbf_trace_field field
    cdef uint32_t speaks = spoken(propagators), fields, number
    cdef list held = []
    cdef bint cgi
    if carrier is None and getter is None:
        return None
    gbf_trace_start(&headers)
    if getter is not None:
        fields = fields_of(speaks)
        for number in range(1, GBF_TRACE_FIELDS):
            if not fields >> number & 1:
                continue  # a getter may walk all headers for each name
            take(&headers, <gbf_trace_field>number, list(getter(carrier, NAMES[number])), held)
    elif isinstance(carrier, (list, tuple)):
        for item in carrier:
            field = field_of(pair(item)[0], False)
            if field != GBF_TRACE_NO_FIELD:
                take(&headers, field, item[1], held)
    elif isinstance(carrier, dict) or hasattr(carrier, "items"):
        cgi = is_environ(carrier)
        for name, value in carrier.items():
            field = field_of(name, cgi)
            if field != GBF_TRACE_NO_FIELD:
                take(&headers, field, value, held)
    else:
        raise not_a_carrier(carrier)
    return received_context(&headers, speaks)


# Where `inject` puts fields, and in which forms. The objects are borrowed of it.
cdef struct Writer:
    PyObject *carrier
    PyObject *setter        # NULL: the carrier is a list or a mapping
    bint mapping, cgi, name_bytes, value_bytes


cdef inline bint is_one_of(object name, uint32_t fields, bint cgi) noexcept:
    return fields >> <uint32_t>field_of(name, cgi) & 1


cdef int prepare(Writer *writer, uint32_t fields) except -1:
    """Takes the forms from what is there, and drops what is replaced: a copy of received headers has old ones."""
    cdef bint stale = False
    carrier = <object>writer.carrier
    if writer.mapping:
        writer.cgi = is_environ(carrier)
        names = carrier if isinstance(carrier, dict) else [item[0] for item in carrier.items()]
        for name in names:
            writer.name_bytes = writer.value_bytes = isinstance(name, bytes)
            stale |= is_one_of(name, fields, writer.cgi)
        if stale:
            for name in [name for name in names if is_one_of(name, fields, writer.cgi)]:
                if name in carrier:  # one without case has it no more, under whatever case
                    del carrier[name]
        return 0
    for item in carrier:
        writer.name_bytes, writer.value_bytes = isinstance(pair(item)[0], bytes), isinstance(item[1], bytes)
        stale |= is_one_of(item[0], fields, False)
    if stale:
        carrier[:] = [item for item in carrier if not is_one_of(item[0], fields, False)]
    return 0


cdef int put(Writer *writer, gbf_trace_field field, const uint8_t *text, uint32_t nbytes) except -1:
    cdef object value
    if writer.setter != NULL:
        value = (<const char *>text)[:nbytes].decode("ascii")
        (<object>writer.setter)(<object>writer.carrier, NAMES[<int>field], value)
        return 0
    name = (NAMES_CGI if writer.cgi else NAMES_BYTES if writer.name_bytes else NAMES)[<int>field]
    if writer.value_bytes:
        value = PyBytes_FromStringAndSize(<const char *>text, nbytes)
    else:
        value = PyUnicode_New(nbytes, 127)
        memcpy(PyUnicode_1BYTE_DATA(value), text, nbytes)
    if writer.mapping:
        (<object>writer.carrier)[name] = value
    else:
        (<list>writer.carrier).append((name, value))
    return 0


cdef int put_multi(Writer *writer, const gbf_trace *trace, const uint8_t *span_id) except -1:
    cdef uint8_t text[32]
    gbf_trace_hex16(trace.trace_id, text)
    put(writer, GBF_TRACE_B3_TRACE, text, 32)
    gbf_trace_hex8(span_id, text)
    put(writer, GBF_TRACE_B3_SPAN, text, 16)
    gbf_trace_hex8(trace.span_id, text)
    if text[:16] != b"0000000000000000":
        put(writer, GBF_TRACE_B3_PARENT, text, 16)
    if trace.flags & GBF_TRACE_DEBUG:
        put(writer, GBF_TRACE_B3_FLAGS, <const uint8_t *>b"1", 1)
    elif not trace.flags & GBF_TRACE_DEFER:
        put(writer, GBF_TRACE_B3_SAMPLED, <const uint8_t *>(b"1" if trace.flags & GBF_TRACE_SAMPLED else b"0"), 1)
    return 0


def inject(carrier, TraceContext context=None, *, propagators=None, bint baggage=False, str host=None, setter=None):
    """The carrier with the headers that pass a trace context on; each call makes a new parent span id.

    A list or mapping is changed in place, a tuple comes back as another one. Names and values are bytes where those are
    that it has. Headers of the same propagators that it has already are replaced. Without a context nothing is done.

    Args:
        context: None takes `current()`.
        propagators: what to write, of `PROPAGATORS`. None: those of the rules (`trace:`) that the context came by, else
            `INJECTED`.
        baggage: send it along, too. Only to hosts of one's own: it tells what one knows about a user.
        host: to whom, a name: baggage goes to those that the rules list as `trace: {internal: ...}`.
        setter: `setter(carrier, name, value)` puts a header, in lower case, into a carrier of another type.
    Raises:
        TypeError, ValueError: misuse. OSError: the system gives no random bytes.
    """
    cdef uint32_t speaks
    cdef uint8_t span_id[8]
    cdef uint8_t text[GBF_B3_BYTES]
    cdef gbf_trace trace
    cdef Writer writer
    if context is None:
        context = current_context()
        if context is None:
            if propagators is not None:
                spoken(propagators)  # mistakes are told whatever is current
            return carrier
    if propagators is not None:
        speaks = spoken(propagators)
    else:
        speaks = context._speaks or GBF_TRACE_SPEAKS_W3C | GBF_TRACE_SPEAKS_BAGGAGE
    if host is not None and context._internal is not None and host in context._internal:
        baggage = True
    target = list(carrier) if isinstance(carrier, tuple) and setter is None else carrier
    memset(&writer, 0, sizeof(writer))
    writer.carrier, writer.setter = <PyObject *>target, NULL if setter is None else <PyObject *>setter
    if setter is None:
        writer.mapping = not isinstance(target, list)
        if writer.mapping and not isinstance(target, dict) and not is_written(target):
            raise not_a_carrier(carrier)
        prepare(&writer, fields_of(speaks))
    trace = context._trace
    if gbf_trace_has_ids(&trace) or not trace.flags & GBF_TRACE_DEFER:
        if not gbf_trace_has_ids(&trace):
            draw_trace_id(trace.trace_id)
        draw_span_id(span_id)
        if speaks & GBF_TRACE_SPEAKS_W3C:
            gbf_traceparent_write(&trace, span_id, text)
            put(&writer, GBF_TRACE_PARENT, text, GBF_TRACEPARENT_BYTES)
            if context._state:
                state = context._state.encode("ascii")
                put(&writer, GBF_TRACE_STATE, <const uint8_t *>PyBytes_AS_STRING(state),
                    <uint32_t>PyBytes_GET_SIZE(state))
        if speaks & GBF_TRACE_SPEAKS_B3:
            put(&writer, GBF_TRACE_B3, text, gbf_b3_write(&trace, span_id, text))
        if speaks & GBF_TRACE_SPEAKS_B3_MULTI:
            put_multi(&writer, &trace, span_id)
    if baggage and speaks & GBF_TRACE_SPEAKS_BAGGAGE and context._baggage:
        put(&writer, GBF_TRACE_BAGGAGE, <const uint8_t *>PyBytes_AS_STRING(context._baggage),
            <uint32_t>PyBytes_GET_SIZE(context._baggage))
    return tuple(target) if isinstance(carrier, tuple) and setter is None else target
