# C declarations of csrc/http/: header scan, value classes, origins, trace context.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.base cimport gbf_fault, gbf_status, gbf_trace_source
from gobanfast._core.native.hash cimport gbf_hash128, gbf_xxh3_kernel
from gobanfast._core.native.name cimport gbf_name, gbf_name_kernel


cdef extern from "http/gbf_headers.h" nogil:
    enum:
        GBF_HEADERS_MOST
        GBF_HEADERS_SECRET
        GBF_FINGERPRINT_BYTES
        GBF_HEADER_SLOTS
        GBF_HEADER_NO_SLOT
        GBF_HEADER_FIELDS
        GBF_HEADER_AUTHORITY
        GBF_HEADER_METHOD
        GBF_HEADER_PATH
        GBF_HEADER_SCHEME
        GBF_HEADER_PROTOCOL
        GBF_HEADER_HOST
        GBF_HEADER_COOKIE
        GBF_HEADER_USER_AGENT
        GBF_HEADER_ACCEPT
        GBF_HEADER_ORIGIN
        GBF_HEADER_REQUEST_METHOD
        GBF_HEADER_REQUEST_HEADERS
        GBF_HEADER_FETCH_SITE
        GBF_HEADERS_ORDER
        GBF_HEADERS_CASE
        GBF_HEADERS_PSEUDO
        GBF_HEADERS_HTTP1
        GBF_HEADERS_HTTP2
        GBF_HEADERS_UNKNOWN
        GBF_HEADERS_BAD_METHOD
        GBF_HEADERS_BAD_PATH
        GBF_HEADERS_SHAPED
    ctypedef enum gbf_headers_problem:
        GBF_HEADERS_FINE
        GBF_HEADERS_TOO_MANY
        GBF_HEADERS_BAD_VALUE
    ctypedef enum gbf_ua_family:
        GBF_UA_OTHER
    ctypedef struct gbf_header_text:
        const uint8_t *at
        uint32_t nbytes
    ctypedef struct gbf_header_plan:
        uint32_t slot_count
    ctypedef struct gbf_header_tally:
        uint64_t seen
        uint32_t flags
        uint32_t nbytes
        uint32_t slot
    ctypedef struct gbf_headers:
        gbf_header_tally tally
        uint64_t repeated
        uint64_t known
        gbf_hash128 fingerprint
        gbf_hash128 shape
        gbf_headers_problem problem
        gbf_header_text *slots
        uint32_t default_port
        gbf_header_text mount
    gbf_status gbf_header_plan_build(gbf_header_plan *plan, const gbf_header_text *asked, uint32_t asked_count,
                                     const gbf_header_text *fields, uint32_t field_count, const uint8_t *secret,
                                     const gbf_xxh3_kernel *kernel, uint8_t *slots, gbf_fault *fault)
    void gbf_header_plan_free(gbf_header_plan *plan)
    uint32_t gbf_header_slot(const gbf_header_plan *plan, const uint8_t *name, uint32_t nbytes)
    uint32_t gbf_header_slot_folded(const gbf_header_plan *plan, const uint8_t *name, uint64_t nbytes)
    void gbf_headers_start(gbf_headers *h, uint32_t flags)
    gbf_status gbf_headers_add(const gbf_header_plan *plan, gbf_headers *h, gbf_header_tally *t, const uint8_t *name,
                               uint64_t name_bytes, const uint8_t *value, uint64_t value_bytes)
    gbf_status gbf_headers_add_cgi(const gbf_header_plan *plan, gbf_headers *h, gbf_header_tally *t,
                                   const uint8_t *name, uint64_t name_bytes, const uint8_t *value,
                                   uint64_t value_bytes)
    gbf_status gbf_headers_finish(const gbf_header_plan *plan, gbf_headers *h)
    gbf_status gbf_headers_fingerprint(const gbf_header_plan *plan, gbf_headers *h)
    void gbf_headers_set(gbf_headers *h, uint32_t slot, const uint8_t *text, uint32_t nbytes)
    void gbf_headers_free(gbf_headers *h)
    void gbf_headers_text(gbf_hash128 hash, const char *kind, char *text)
    void gbf_headers_settle(gbf_headers *h)
    enum:
        GBF_WRITE_UNKNOWN
        GBF_WRITE_NO
        GBF_WRITE_CROSS
        GBF_WRITE_UNREAD
    int gbf_header_cross_write(const gbf_headers *h)
    int gbf_header_own_page(const gbf_headers *h)
    int gbf_header_is_method(gbf_header_text text)
    uint32_t gbf_header_default_port(const uint8_t *scheme, uint64_t nbytes)
    gbf_header_text gbf_header_path(gbf_header_text text)
    gbf_ua_family gbf_header_ua(gbf_header_text text)


cdef extern from "http/gbf_values.h" nogil:
    enum:
        GBF_VALUES_SECRET
    ctypedef struct gbf_values:
        uint32_t words
    gbf_status gbf_values_make(gbf_values *c, uint32_t words, uint64_t nbytes, const uint8_t *secret,
                               const gbf_xxh3_kernel *kernel)
    void gbf_values_free(gbf_values *c)
    uint64_t gbf_values_nbytes(const gbf_values *c)
    gbf_hash128 gbf_values_hash(const gbf_values *c, uint32_t slot, const uint8_t *value, uint32_t nbytes)
    gbf_hash128 gbf_values_under(const gbf_values *c, gbf_hash128 hash, const uint8_t *mount, uint32_t nbytes)
    int gbf_values_and(gbf_values *c, gbf_hash128 hash, uint64_t *vector, uint64_t *scratch)
    void gbf_values_put(gbf_values *c, gbf_hash128 hash, const uint64_t *vector)
    uint64_t gbf_values_missed(const gbf_values *c)


cdef extern from "http/gbf_origin.h" nogil:
    enum:
        GBF_ORIGIN_MALFORMED
        GBF_ORIGIN_UNMATCHED
        GBF_PORT_NONE
        GBF_PORT_ANY
    ctypedef struct gbf_origin:
        gbf_name name
        uint32_t scheme_nbytes
        uint32_t port
        uint32_t absolute
        uint32_t address
    ctypedef struct gbf_origin_head:
        uint32_t unmatched
        uint32_t hosts
    ctypedef struct gbf_origins:
        gbf_origin_head head
        const uint32_t *sets
        const uint32_t *groups
        uint64_t class_count
        uint64_t group_count
    gbf_status gbf_origins_open(gbf_origins *origins, const void *block, uint64_t nbytes, int verify,
                                const gbf_name_kernel *kernel, gbf_fault *fault)
    uint32_t gbf_origins_find(const gbf_origins *origins, const uint8_t *text, uint32_t n)
    uint32_t gbf_hosts_find(const gbf_origins *hosts, const uint8_t *text, uint32_t n, uint32_t default_port)


cdef extern from "http/gbf_origin_build.h" nogil:
    ctypedef enum gbf_origin_kind:
        GBF_ORIGIN_ANY
        GBF_ORIGIN_EXACT
        GBF_ORIGIN_ONE
        GBF_ORIGIN_MANY
    ctypedef struct gbf_origin_pattern:
        gbf_origin origin
        gbf_origin_kind kind
        uint32_t port
    ctypedef struct gbf_origin_builder:
        pass
    int gbf_origin_pattern_read(gbf_origin_pattern *p, const uint8_t *text, uint32_t n, int hosts)
    gbf_origin_builder *gbf_origin_builder_new(const uint64_t *key, int hosts)
    void gbf_origin_builder_free(gbf_origin_builder *builder)
    gbf_status gbf_origin_builder_add(gbf_origin_builder *builder, const uint8_t *text, uint32_t n, uint32_t group)
    gbf_status gbf_origin_builder_finish(gbf_origin_builder *builder, const void *more, uint64_t nbytes, void **block,
                                         gbf_fault *fault)


cdef extern from "http/gbf_acrh.h" nogil:
    ctypedef struct gbf_acrh:
        const uint8_t *text
        const uint32_t *ends
        uint32_t count
        uint32_t longest
        uint32_t any
    ctypedef struct gbf_acrh_walk:
        uint32_t empty
    int gbf_acrh_line(const gbf_acrh *allowed, gbf_acrh_walk *walk, const uint8_t *text, uint64_t n)


cdef extern from "http/gbf_trace.h" nogil:
    enum:
        GBF_TRACE_SAMPLED
        GBF_TRACE_RANDOM
        GBF_TRACE_WIRE
        GBF_TRACE_DEFER
        GBF_TRACE_DEBUG
        GBF_TRACEPARENT_BYTES
        GBF_TRACESTATE_BYTES
        GBF_BAGGAGE_MEMBERS
        GBF_BAGGAGE_BYTES
        GBF_B3_BYTES
        GBF_TRACE_LINES
        GBF_TRACE_SPEAKS_W3C
        GBF_TRACE_SPEAKS_BAGGAGE
        GBF_TRACE_SPEAKS_B3
        GBF_TRACE_SPEAKS_B3_MULTI
    ctypedef struct gbf_trace:
        uint8_t trace_id[16]
        uint8_t span_id[8]
        uint8_t parent_id[8]
        uint8_t flags
    ctypedef enum gbf_trace_field:
        GBF_TRACE_NO_FIELD
        GBF_TRACE_PARENT
        GBF_TRACE_B3
        GBF_TRACE_B3_TRACE
        GBF_TRACE_B3_SPAN
        GBF_TRACE_B3_PARENT
        GBF_TRACE_B3_SAMPLED
        GBF_TRACE_B3_FLAGS
        GBF_TRACE_STATE
        GBF_TRACE_BAGGAGE
        GBF_TRACE_FIELDS
    ctypedef struct gbf_trace_headers:
        uint32_t state_lines
        uint32_t baggage_lines
        gbf_header_text *baggage
    ctypedef struct gbf_tracestate:
        uint32_t count
        uint32_t nbytes
        uint32_t twice
        uint32_t dropped
        uint64_t keys
    ctypedef struct gbf_baggage_member:
        gbf_header_text key
        gbf_header_text value
        gbf_header_text properties
    gbf_trace_field gbf_trace_field_of(const uint8_t *name, uint64_t nbytes, int cgi)
    void gbf_trace_start(gbf_trace_headers *h)
    void gbf_trace_add(gbf_trace_headers *h, gbf_trace_field field, const uint8_t *text, uint64_t nbytes)
    gbf_trace_source gbf_trace_read(const gbf_trace_headers *h, uint32_t speaks, gbf_trace *trace,
                                    gbf_tracestate *state)
    void gbf_tracestate_start(gbf_tracestate *s)
    void gbf_tracestate_add(gbf_tracestate *s, const uint8_t *text, uint64_t nbytes)
    int gbf_tracestate_is_key(const uint8_t *text, uint64_t nbytes)
    int gbf_tracestate_is_value(const uint8_t *text, uint64_t nbytes)
    uint32_t gbf_tracestate_write(const gbf_tracestate *s, const uint8_t *key, uint32_t key_bytes,
                                  const uint8_t *value, uint32_t value_bytes, uint8_t *out)
    const uint8_t *gbf_tracestate_get(const gbf_tracestate *s, const uint8_t *key, uint32_t key_bytes,
                                      uint32_t *nbytes)
    int gbf_baggage_next(const uint8_t **at, const uint8_t *end, gbf_baggage_member *member)
    int gbf_baggage_property(gbf_header_text *rest, gbf_header_text *key, gbf_header_text *value)
    uint32_t gbf_baggage_gather(const gbf_header_text *lines, uint32_t count, uint8_t *out)
    uint32_t gbf_percent_decode(const uint8_t *text, uint32_t nbytes, uint8_t *out)
    uint32_t gbf_percent_encode(const uint8_t *text, uint32_t nbytes, uint8_t *out)
    int gbf_baggage_is_key(const uint8_t *text, uint64_t nbytes)
    void gbf_trace_hex8(const uint8_t *bytes, uint8_t *out)
    void gbf_trace_hex16(const uint8_t *bytes, uint8_t *out)
    void gbf_traceparent_write(const gbf_trace *t, const uint8_t *span_id, uint8_t *out)
    uint32_t gbf_b3_write(const gbf_trace *t, const uint8_t *span_id, uint8_t *out)
    int gbf_trace_has_ids(const gbf_trace *t)


cdef extern from "http/gbf_sse.h" nogil:
    uint64_t gbf_sse_field(uint8_t *out, const char *name, uint64_t name_nbytes, const uint8_t *text, uint64_t n)
    int gbf_sse_one_line(const uint8_t *text, uint64_t n, int nul)

cdef extern from "http/gbf_session.h" nogil:
    enum:
        GBF_SESSION_VALUES
        GBF_SESSION_BYTES
    ctypedef struct gbf_session_value:
        const uint8_t *at
        uint32_t nbytes
        uint32_t plus
    ctypedef struct gbf_session_values:
        gbf_session_value *value
        uint32_t count
        uint32_t malformed
    void gbf_session_add(gbf_session_values *v, const uint8_t *at, uint64_t nbytes, uint32_t plus)
    void gbf_session_cookie(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, const uint8_t *name,
                            uint32_t name_bytes)
    void gbf_session_header(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, int repeated, int scheme)
    void gbf_session_query(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, const uint8_t *name,
                           uint32_t name_bytes)
    gbf_hash128 gbf_session_hash(const uint8_t *key, const gbf_session_value *value)
