/* Any bytes may be trace headers: readers stay in bounds and in their limits, what is read is written and read again as
 * the same, and a broken part takes along no more than it must.
 *
 * Input: lines, each a byte of its field and two bytes of its length before it. */
#include "fuzz.h"
#include "http/gbf_trace.h"
#include "state/gbf_sampling.h"

enum { LINES = 160 };

static void state_again(const gbf_tracestate *s)
{
    uint8_t out[GBF_TRACESTATE_BYTES], ours[GBF_TRACESTATE_BYTES];
    uint32_t n = gbf_tracestate_write(s, NULL, 0, NULL, 0, out), nbytes;
    must(s->count <= GBF_TRACESTATE_MEMBERS && n <= GBF_TRACESTATE_BYTES && !(s->dropped && s->count));
    gbf_tracestate again;
    gbf_tracestate_start(&again);
    uint8_t *copy = exact(out, n);
    gbf_tracestate_add(&again, copy, n);
    must(!again.dropped && again.count == s->count);
    for (uint32_t i = 0; i < s->count; i++) {
        const gbf_trace_member *m = &s->members[i];
        must(gbf_tracestate_is_key(m->at, m->key_bytes));
        must(gbf_tracestate_is_value(m->at + m->key_bytes + 1, m->value_bytes));
        must(gbf_tracestate_get(s, m->at, m->key_bytes, &nbytes) == m->at + m->key_bytes + 1 &&
             nbytes == m->value_bytes);
    }
    uint8_t *key = exact((const uint8_t *)"gbf", 3), *value = exact((const uint8_t *)"h:1", 3);
    n = gbf_tracestate_write(s, key, 3, value, 3, ours);
    must(n <= GBF_TRACESTATE_BYTES && n >= 7 && memcmp(ours, "gbf=h:1", 7) == 0);
    gbf_tracestate_start(&again);
    gbf_tracestate_add(&again, ours, n);
    must(!again.dropped && again.twice == 0 && again.count >= s->count && again.count <= s->count + 1);
    free(key);
    free(value);
    free(copy);
}

static void baggage_again(const gbf_trace_headers *h)
{
    uint32_t count = h->baggage_lines < GBF_TRACE_LINES ? h->baggage_lines : GBF_TRACE_LINES;
    uint8_t *out = malloc(GBF_BAGGAGE_BYTES), *twice = malloc(GBF_BAGGAGE_BYTES);
    must(out != NULL && twice != NULL);
    uint32_t n = gbf_baggage_gather(h->baggage, count, out);
    must(n <= GBF_BAGGAGE_BYTES);
    gbf_header_text line = {out, n};
    must(gbf_baggage_gather(&line, 1, twice) == n && memcmp(out, twice, n) == 0);
    const uint8_t *at = out;
    gbf_baggage_member member;
    uint32_t members = 0;
    while (gbf_baggage_next(&at, out + n, &member)) {
        members++;
        must(gbf_baggage_is_key(member.key.at, member.key.nbytes));
        uint8_t *plain = malloc(member.value.nbytes + 1), *code = malloc(3 * (size_t)member.value.nbytes + 1);
        must(plain != NULL && code != NULL);
        uint32_t bytes = gbf_percent_decode(member.value.at, member.value.nbytes, plain),
                 coded = gbf_percent_encode(plain, bytes, code);
        uint8_t *back = malloc(coded + 1);
        must(back != NULL && gbf_percent_decode(code, coded, back) == bytes && memcmp(back, plain, bytes) == 0);
        free(plain);
        free(code);
        free(back);
    }
    must(members <= GBF_BAGGAGE_MEMBERS);
    free(out);
    free(twice);
}

static void context_again(const gbf_trace *t)
{
    gbf_trace again;
    uint8_t out[GBF_B3_BYTES];
    if (gbf_trace_has_ids(t)) {
        must(gbf_load64(t->span_id) != 0);
        gbf_traceparent_write(t, t->span_id, out);
        must(gbf_traceparent_read(out, GBF_TRACEPARENT_BYTES, &again));
        must(memcmp(again.trace_id, t->trace_id, 16) == 0 && memcmp(again.span_id, t->span_id, 8) == 0);
        must(again.flags == (t->flags & GBF_TRACE_WIRE));
    }
    uint32_t n = gbf_b3_write(t, t->span_id, out);
    must(n <= GBF_B3_BYTES && gbf_b3_read(out, n, &again));
    must(memcmp(again.trace_id, t->trace_id, 16) == 0);
    must(again.flags == (t->flags & ~GBF_TRACE_RANDOM));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static gbf_trace_headers h;
    uint8_t *copies[LINES];
    uint32_t count = 0;
    size_t at = 1;
    if (nbytes == 0)
        return 0;
    gbf_trace_start(&h);
    while (at + 3 <= nbytes && count < LINES) {
        gbf_trace_field field = (gbf_trace_field)(1 + data[at] % (GBF_TRACE_FIELDS - 1));
        size_t length = (size_t)(data[at + 1] | (data[at + 2] & 0x80 ? data[at + 2] << 8 : 0));
        at += 3;
        length = length < nbytes - at ? length : nbytes - at;
        uint8_t *line = copies[count++] = exact(data + at, length);
        gbf_trace_field_of(line, length, data[at - 3] & 64);
        gbf_trace_add(&h, field, line, length);
        at += length;
        uint64_t threshold, random;
        gbf_sampling_member(line, length, &threshold, &random);
        must(threshold < GBF_SAMPLING_NEVER || threshold == GBF_SAMPLING_UNKNOWN);
        must(random < GBF_SAMPLING_NEVER || random == GBF_SAMPLING_UNKNOWN);
        uint8_t written[GBF_SAMPLING_MEMBER];
        uint64_t wanted = threshold ^ (length & 0xFF), again, other;
        uint32_t bytes = gbf_sampling_member_write(line, length, wanted, written);
        must(bytes <= sizeof written);
        gbf_sampling_member(written, bytes, &again, &other);
        must(again == (wanted < GBF_SAMPLING_NEVER ? wanted : GBF_SAMPLING_UNKNOWN));
    }
    gbf_trace trace, alone;
    gbf_tracestate state;
    gbf_trace_source source = gbf_trace_read(&h, data[0], &trace, &state);
    must(source == GBF_TRACE_FROM_PARENT || (state.count == 0 && !state.dropped));
    if (source != GBF_TRACE_NOTHING)
        context_again(&trace);
    state_again(&state);
    baggage_again(&h);
    h.state_lines = h.baggage_lines = 0; /* what they say changes no context */
    must(gbf_trace_read(&h, data[0], &alone, &state) == source && memcmp(&alone, &trace, sizeof trace) == 0);
    for (uint32_t i = 0; i < count; i++)
        free(copies[i]);
    return 0;
}
