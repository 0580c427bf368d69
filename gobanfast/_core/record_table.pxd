from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.http cimport gbf_trace_headers
from gobanfast._core.native.state cimport gbf_record
from gobanfast._core.trace_context cimport TraceContext


cdef class RecordTable:
    cdef bytes _kinds                # gbf_recorded of each record rule
    cdef bytes _rows                 # for each outcome, and then those of shadow rules: the bits that may decide
    cdef readonly uint32_t words     # of a row
    cdef readonly tuple classes      # of each record rule; None: it has no rate
    cdef readonly dict thresholds    # of each class before anything is known of its traffic
    cdef readonly frozenset fixed    # classes whose threshold the rules alone say
    cdef readonly tuple propagators
    cdef uint32_t first, then        # GBF_TRACE_SPEAKS_*: what is read first, and what where that says nothing
    cdef bint baggage
    cdef uint32_t writes             # what goes out
    cdef readonly uint32_t stranger  # gbf_stranger
    cdef readonly object edge        # PrefixSet of peers whose contexts are their own; None: none
    cdef readonly object internal    # hosts that get baggage, an OriginSet of hosts; None: none
    cdef readonly bint traceresponse, server_timing

    cdef inline const uint64_t *row(self, int outcome) noexcept:
        return <const uint64_t *><const char *>self._rows + <uint32_t>outcome * self.words


# Reads what came with a request: the tracestate, and the baggage, as a TraceContext has them; None: nothing came.
# Makes no object that is collected.
cdef str read_record(RecordTable table, gbf_record *record, const gbf_trace_headers *headers)
cdef bytes read_baggage(RecordTable table, const gbf_trace_headers *headers)

# The context as it came.
cdef TraceContext came_with(const gbf_record *record, str state, bytes baggage)

# Our own under it, or of a new trace; ids that are drawn for it are in the record from then on. None: the system has no
# random bytes.
cdef TraceContext goes_on(RecordTable table, gbf_record *record, str state, bytes baggage)

# Draws the trace id that a decision needs; without random bytes there is none.
cdef int draw_id(gbf_record *record) noexcept
