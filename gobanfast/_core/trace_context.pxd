# Trace contexts and their ids, as other extensions make and read them.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.base cimport gbf_trace_source
from gobanfast._core.native.http cimport gbf_header_text, gbf_trace, gbf_trace_headers, gbf_tracestate


cdef class TraceContext:
    cdef gbf_trace _trace
    cdef gbf_trace_source _source
    cdef bint _dropped
    cdef str _state          # the list as one line
    cdef uint32_t _speaks    # GBF_TRACE_SPEAKS_*: what `inject` writes when nothing else is asked for; 0: the usual
    cdef object _internal    # what contains the hosts that get baggage; None: nothing
    cdef bytes _baggage      # well-formed members as one line, percent-coded
    cdef str _trace_id       # the texts are made when asked for; None before
    cdef str _span_id
    cdef str _traceparent
    cdef tuple _members
    cdef str trace_text(self)
    cdef str span_text(self)

# The context that arrived in the fields of a request, or None. `speaks` are GBF_TRACE_SPEAKS_*.
cdef TraceContext received_context(const gbf_trace_headers *headers, uint32_t speaks)

# A span of our own: under `parent`, or of a new trace for None. `flags` are GBF_TRACE_*; a parent's random flag stays.
cdef TraceContext own_context(TraceContext parent, uint8_t flags)

# A context of these ids, tracestate and baggage, which are as the class has them.
cdef TraceContext context_of(const gbf_trace *trace, gbf_trace_source source, str state, bytes baggage)

# The list as one line, and the well-formed members of baggage.
cdef str state_text(const gbf_tracestate *state)
cdef bytes gathered(const gbf_header_text *lines, uint32_t count)

# The same with another `th` in the `ot` member of tracestate; GBF_SAMPLING_UNKNOWN erases it.
cdef TraceContext with_threshold(TraceContext context, uint64_t threshold)

# The context in force, or None.
cdef TraceContext current_context()

# Ids from the pool of this thread. OSError when the system has no random bytes.
cdef int draw_span_id(uint8_t *out) except -1
cdef int draw_trace_id(uint8_t *out) except -1
