/* Trace context: W3C traceparent (level 2), tracestate and baggage, B3 single and multi.
 *
 * Texts are borrowed, nothing is allocated, nothing fails: what cannot be read is a 0, and what it takes along is what the
 * specification says (a broken traceparent its tracestate, a broken tracestate nothing). Past the limits nothing is looked
 * at. Ids are bytes in network order, as their digits are written. See DESIGN.md, "Trace context". */
#ifndef GBF_TRACE_H
#define GBF_TRACE_H

#include "http/gbf_headers.h"

enum {
    GBF_TRACE_SAMPLED = 1, /* as on the wire */
    GBF_TRACE_RANDOM = 2,
    GBF_TRACE_WIRE = 3,
    GBF_TRACE_DEFER = 16, /* B3 without a sampling state: whoever reads it decides */
    GBF_TRACE_DEBUG = 32, /* B3: accept, and tell those behind */

    GBF_TRACEPARENT_BYTES = 55,
    GBF_TRACEPARENT_MOST = 8192, /* a longer value, of whatever version, is none */
    GBF_TRACESTATE_MEMBERS = 32,
    GBF_TRACESTATE_TEXT = 256,  /* of a key, of a value */
    GBF_TRACESTATE_MOST = 8192, /* lines received, with a comma between; longer ones are dropped whole */
    GBF_TRACESTATE_BYTES = GBF_TRACESTATE_MEMBERS * (2 * GBF_TRACESTATE_TEXT + 2), /* lines together; `=` and `,` */
    GBF_BAGGAGE_MEMBERS = 180,
    GBF_BAGGAGE_BYTES = 8192, /* lines together, with a comma between: what everybody must take */
    GBF_B3_BYTES = 68,        /* 32-16-1-16 */
    GBF_TRACE_LINES = 64,     /* of one header; empty ones are legal */
};

/* No ids are zeros: a B3 decision that came alone. */
typedef struct {
    uint8_t trace_id[16], span_id[8];
    uint8_t parent_id[8]; /* of the span before, which only B3 tells; zeros: unknown */
    uint8_t flags;
} gbf_trace;

/* Header fields that are read. */
typedef enum {
    GBF_TRACE_NO_FIELD,
    GBF_TRACE_PARENT, /* those up to the last B3 have one value */
    GBF_TRACE_B3,
    GBF_TRACE_B3_TRACE,
    GBF_TRACE_B3_SPAN,
    GBF_TRACE_B3_PARENT,
    GBF_TRACE_B3_SAMPLED,
    GBF_TRACE_B3_FLAGS,
    GBF_TRACE_STATE, /* these have lines */
    GBF_TRACE_BAGGAGE,
    GBF_TRACE_FIELDS,
} gbf_trace_field;

enum { /* what is spoken */
       GBF_TRACE_SPEAKS_W3C = 1,
       GBF_TRACE_SPEAKS_BAGGAGE = 2,
       GBF_TRACE_SPEAKS_B3 = 4,
       GBF_TRACE_SPEAKS_B3_MULTI = 8,
};

/* The fields of one request. Start with gbf_trace_start(). */
typedef struct {
    gbf_header_text one[GBF_TRACE_STATE]; /* by field; `at` NULL: absent */
    uint32_t parents;                     /* lines of traceparent: a second one makes it malformed */
    uint32_t state_lines, baggage_lines;
    gbf_header_text state[GBF_TRACE_LINES], baggage[GBF_TRACE_LINES];
} gbf_trace_headers;

/* A key, `=` and a value, in one piece. */
typedef struct {
    const uint8_t *at;
    uint16_t key_bytes, value_bytes;
    uint32_t hash; /* of the key */
} gbf_trace_member;

/* A tracestate as it came. Start with gbf_tracestate_start(). */
typedef struct {
    uint64_t keys; /* a bit for each hash of a key, by its 6 bits on top */
    uint32_t count, nbytes;
    uint32_t twice;   /* members whose key was there already */
    uint32_t dropped; /* 1: the whole list is; then count is 0 */
    gbf_trace_member members[GBF_TRACESTATE_MEMBERS];
} gbf_tracestate;

/* One member of baggage: all of it without blanks around, key and value as on the wire, and all from the first `;` on. */
typedef struct {
    gbf_header_text whole, key, value, properties;
} gbf_baggage_member;

/* The field of a header's name in any case, or of an environ's key ("HTTP_TRACEPARENT") when `cgi`. */
gbf_trace_field gbf_trace_field_of(const uint8_t *name, uint64_t nbytes, int cgi);

GBF_INLINE void gbf_trace_start(gbf_trace_headers *h)
{
    memset(h, 0, offsetof(gbf_trace_headers, state));
}

/* Takes a line in. Of a B3 field the first one counts; of tracestate and baggage all do, in order. */
void gbf_trace_add(gbf_trace_headers *h, gbf_trace_field field, const uint8_t *text, uint64_t nbytes);

/* Context and tracestate of the fields, traceparent before b3 before x-b3-*, by those of `speaks`. Returns the source;
 * GBF_TRACE_NOTHING: all zeros. */
gbf_trace_source gbf_trace_read(const gbf_trace_headers *h, uint32_t speaks, gbf_trace *trace, gbf_tracestate *state);

/* 1 and the context, or 0 and zeros. */
int gbf_traceparent_read(const uint8_t *text, uint64_t nbytes, gbf_trace *trace);
int gbf_b3_read(const uint8_t *text, uint64_t nbytes, gbf_trace *trace);
int gbf_b3_read_multi(const gbf_header_text *one, gbf_trace *trace);

GBF_INLINE void gbf_tracestate_start(gbf_tracestate *s)
{
    memset(s, 0, offsetof(gbf_tracestate, members));
}

/* Takes a further line in; of a key twice the first member counts. */
void gbf_tracestate_add(gbf_tracestate *s, const uint8_t *text, uint64_t nbytes);

/* 1 for what a key, or a value, of tracestate may be. */
int gbf_tracestate_is_key(const uint8_t *text, uint64_t nbytes);
int gbf_tracestate_is_value(const uint8_t *text, uint64_t nbytes);

/* The list as one line, or with an entry of our own (`key` not NULL) at the left: then the old one of that key goes, and
 * what is beyond 32. Without a value the entry just goes. `out` has GBF_TRACESTATE_BYTES; returns how many are used. */
uint32_t gbf_tracestate_write(const gbf_tracestate *s, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
                              uint32_t value_bytes, uint8_t *out);

/* The value of a key, or NULL. */
const uint8_t *gbf_tracestate_get(const gbf_tracestate *s, const uint8_t *key, uint32_t key_bytes, uint32_t *nbytes);

/* The next well-formed member between *at and `end`, others are skipped; 0 when there is none. */
int gbf_baggage_next(const uint8_t **at, const uint8_t *end, gbf_baggage_member *member);

/* The next property in `rest`, from its `;` on; `value->at` is NULL without `=`. Of well-formed members only. */
int gbf_baggage_property(gbf_header_text *rest, gbf_header_text *key, gbf_header_text *value);

/* Well-formed members of all lines within the limits, as they came, in one line; `out` has GBF_BAGGAGE_BYTES. */
uint32_t gbf_baggage_gather(const gbf_header_text *lines, uint32_t count, uint8_t *out);

/* `%20` to a byte, once; a `%` that begins no code stays. `out` has `nbytes`. */
uint32_t gbf_percent_decode(const uint8_t *text, uint32_t nbytes, uint8_t *out);

/* Bytes that a value of baggage cannot have, to codes. `out` has 3 times `nbytes`. */
uint32_t gbf_percent_encode(const uint8_t *text, uint32_t nbytes, uint8_t *out);

/* 1 for what a key of baggage may be (a token, RFC 9110 section 5.6.2). */
int gbf_baggage_is_key(const uint8_t *text, uint64_t nbytes);

/* 4 bytes as 8 digits. */
GBF_INLINE void gbf_trace_hex4(const uint8_t *bytes, uint8_t *out)
{
    uint64_t x = gbf_load32(bytes);
    x = (x | x << 16) & UINT64_C(0x0000FFFF0000FFFF);
    x = (x | x << 8) & UINT64_C(0x00FF00FF00FF00FF);
    x = (x >> 4 & UINT64_C(0x000F000F000F000F)) | (x & UINT64_C(0x000F000F000F000F)) << 8;
    uint64_t letters = (x + UINT64_C(0x0606060606060606)) >> 4 & UINT64_C(0x0101010101010101);
    x += UINT64_C(0x3030303030303030) + letters * 0x27;
    memcpy(out, &x, sizeof x);
}

GBF_INLINE void gbf_trace_hex8(const uint8_t *bytes, uint8_t *out)
{
    gbf_trace_hex4(bytes, out);
    gbf_trace_hex4(bytes + 4, out + 8);
}

GBF_INLINE void gbf_trace_hex16(const uint8_t *bytes, uint8_t *out)
{
    gbf_trace_hex8(bytes, out);
    gbf_trace_hex8(bytes + 8, out + 16);
}

/* The 55 bytes that pass `t` on with `span_id` as the parent. */
GBF_INLINE void gbf_traceparent_write(const gbf_trace *t, const uint8_t *span_id, uint8_t *out)
{
    memcpy(out, "00-", 3);
    gbf_trace_hex16(t->trace_id, out + 3);
    out[35] = '-';
    gbf_trace_hex8(span_id, out + 36);
    out[52] = '-';
    out[53] = '0';
    out[54] = (uint8_t)('0' + (t->flags & GBF_TRACE_WIRE));
}

/* The single B3 header with `span_id`; `out` has GBF_B3_BYTES; returns how many are used. Without ids the state alone. */
uint32_t gbf_b3_write(const gbf_trace *t, const uint8_t *span_id, uint8_t *out);

GBF_INLINE int gbf_trace_has_ids(const gbf_trace *t)
{
    return (gbf_load64(t->trace_id) | gbf_load64(t->trace_id + 8)) != 0;
}

#endif
