"""RecordTable: record rules and the section `trace:` as a decision reads them, and the trace context of one request."""

cimport cython
from libc.stdint cimport uint32_t
from libc.string cimport memcpy, memset

from gobanfast._core.made cimport only_whole
from gobanfast._core.native.base cimport GBF_OUTCOMES, GBF_RECORDED_NONE, GBF_TRACE_NOTHING, gbf_trace_source
from gobanfast._core.native.http cimport (
    GBF_TRACE_RANDOM, GBF_TRACE_SPEAKS_B3, GBF_TRACE_SPEAKS_W3C, gbf_trace, gbf_trace_has_ids, gbf_trace_headers,
    gbf_tracestate, gbf_tracestate_start,
)
from gobanfast._core.native.state cimport GBF_SAMPLING_NEVER, gbf_record, gbf_record_flags, gbf_record_read
from gobanfast._core.trace_context cimport (
    TraceContext, context_of, draw_span_id, draw_trace_id, gathered, state_text, with_threshold,
)

from gobanfast._core import enums
from gobanfast._core.trace_carriers import PROPAGATORS, names_of, spoken_by


@cython.final
cdef class RecordTable:
    """Which traces are kept, and how contexts come in and go out. Frozen.

    Args:
        kinds: of each record rule its index in RECORDED.
        rows: for each of OUTCOMES `words` words: the bits of the rules that may decide on a request of that outcome.
        classes: of each record rule the name of its rate class, None without one.
        thresholds: by class, 0 to 2**56.
        fixed: classes whose threshold no controller changes.
        propagators: of PROPAGATORS, in the order in which they are read; the first that says anything counts.
        stranger: of STRANGERS.
        edge, internal: what contains a peer's address, and a host; None: nothing does.
    """

    @staticmethod
    def _make(*, bytes kinds not None, bytes rows not None, uint32_t words, tuple classes not None,
              dict thresholds not None, fixed=(), tuple propagators not None,
              str stranger not None="restart", edge=None, internal=None, bint traceresponse=False,
              bint server_timing=False):
        cdef RecordTable made
        cdef uint32_t first = 0, then = 0, speaks
        if len(rows) != 8 * <Py_ssize_t>words * GBF_OUTCOMES or len(kinds) != len(classes):
            raise ValueError("record rules do not fit each other")
        if any([not 1 <= kind < len(enums.RECORDED) for kind in kinds]):
            raise ValueError("a record rule has no action")
        if any([not 0 <= threshold <= GBF_SAMPLING_NEVER for threshold in thresholds.values()]):
            raise ValueError("a threshold is out of range")
        for name in propagators:
            if name == "tracecontext" or name.startswith("b3"):
                # both headers of B3 are read, whichever is named
                speaks = <uint32_t>(GBF_TRACE_SPEAKS_W3C if name == "tracecontext" else GBF_TRACE_SPEAKS_B3)
                if first == 0:
                    first = speaks
                elif first != speaks:
                    then = speaks
            elif name != "baggage":
                raise ValueError(f"propagator {name!r} is not one of {', '.join(PROPAGATORS)}")
        made = RecordTable.__new__(RecordTable)
        made._kinds, made._rows, made.words, made.classes = kinds, rows, words, classes
        made.thresholds, made.fixed = thresholds, frozenset(fixed)
        made.propagators, made.first, made.then = propagators, first, then
        made.baggage, made.writes = "baggage" in propagators, spoken_by(propagators)
        made.stranger, made.edge, made.internal = <uint32_t>enums.STRANGERS.index(stranger), edge, internal
        made.traceresponse, made.server_timing = traceresponse, server_timing
        return made

    @property
    def headers(self):
        """Names of the request headers that the propagators read."""
        return names_of(self.propagators)


cdef str read_record(RecordTable table, gbf_record *record, const gbf_trace_headers *headers):
    cdef gbf_tracestate members
    gbf_tracestate_start(&members)
    gbf_record_read(record, headers, table.first, table.then, &members)
    return state_text(&members) if members.count != 0 else None


cdef bytes read_baggage(RecordTable table, const gbf_trace_headers *headers):
    if headers.baggage_lines == 0 or not table.baggage:
        return None
    return gathered(headers.baggage, headers.baggage_lines) or None


cdef TraceContext came_with(const gbf_record *record, str state, bytes baggage):
    return context_of(&record.trace, <gbf_trace_source>record.source, state or "", baggage or b"")


cdef int draw_id(gbf_record *record) noexcept:
    try:
        draw_trace_id(record.trace.trace_id)
        record.trace.flags |= GBF_TRACE_RANDOM
    except OSError:
        memset(record.trace.trace_id, 0, sizeof(record.trace.trace_id))
    return 0


cdef TraceContext goes_on(RecordTable table, gbf_record *record, str state, bytes baggage):
    cdef gbf_trace trace
    cdef TraceContext made
    try:
        if not record.owns:
            if not gbf_trace_has_ids(&record.trace):
                draw_trace_id(record.trace.trace_id)
                record.trace.flags |= GBF_TRACE_RANDOM
            memcpy(record.trace.parent_id, record.trace.span_id, sizeof(record.trace.parent_id))
            draw_span_id(record.trace.span_id)
            record.owns = True
    except OSError:
        return None
    trace = record.trace
    trace.flags = gbf_record_flags(record)
    made = context_of(&trace, GBF_TRACE_NOTHING, state or "", baggage or b"")
    made._speaks, made._internal = table.writes, table.internal
    return made if record.kind == GBF_RECORDED_NONE else with_threshold(made, record.after)


only_whole(RecordTable)
