/* Record decision of one request: the trace context that came with it, and whether its trace is kept. DESIGN.md, "Sampling".
 *
 * It is read once, beside the header scan, and decided by the action of the record rule that matches. Nothing here
 * allocates, or fails on data from the wire; ids are drawn by the caller. */
#ifndef GBF_RECORD_H
#define GBF_RECORD_H

#include "base/gbf_enums.h"
#include "http/gbf_trace.h"
#include "state/gbf_sampling.h"

typedef struct {
    gbf_trace trace;  /* as it came; without ids none did, and none are drawn yet */
    uint64_t random;  /* `rv` of the parent; UNKNOWN: R is of the trace id */
    uint64_t before;  /* `th` of the parent, or UNKNOWN */
    uint64_t decided; /* the threshold that decided; UNKNOWN: the parent's flag did, or no rule */
    uint64_t after;   /* `th` that goes on, or UNKNOWN */
    uint32_t rule;    /* the bit of the record rule, or GBF_NONE */
    uint8_t source;   /* gbf_trace_source */
    uint8_t parent;   /* 1: somebody has decided before, `was_sampled` */
    uint8_t was_sampled;
    uint8_t kind;    /* gbf_recorded */
    uint8_t sampled; /* whether the trace is kept */
    uint8_t root;    /* whether the class's own threshold decided */
    uint8_t outcome; /* gbf_outcome by which the rule was found */
    uint8_t owns;    /* 1: the span id in `trace` is our own, and `parent_id` what came */
} gbf_record;

GBF_INLINE void gbf_record_start(gbf_record *r)
{
    memset(r, 0, sizeof *r);
    r->random = r->before = r->decided = r->after = GBF_SAMPLING_UNKNOWN;
    r->rule = GBF_NONE;
}

/* Takes in what came, by those of `first`, else those of `then` (GBF_TRACE_SPEAKS_*). `state` gets the tracestate. */
GBF_INLINE void gbf_record_read(gbf_record *r, const gbf_trace_headers *h, uint32_t first, uint32_t then,
                                gbf_tracestate *state)
{
    uint32_t nbytes;
    r->source = (uint8_t)gbf_trace_read(h, first, &r->trace, state);
    if (r->source == GBF_TRACE_NOTHING && then != 0)
        r->source = (uint8_t)gbf_trace_read(h, then, &r->trace, state);
    if (r->source == GBF_TRACE_NOTHING)
        return;
    r->parent = !(r->trace.flags & GBF_TRACE_DEFER);
    r->was_sampled = r->trace.flags & GBF_TRACE_SAMPLED;
    const uint8_t *ot = gbf_tracestate_get(state, (const uint8_t *)"ot", 2, &nbytes);
    if (ot != NULL)
        gbf_sampling_member(ot, nbytes, &r->before, &r->random);
    r->after = r->before;
}

/* 1 when the decision needs a trace id that nobody has sent. */
GBF_INLINE int gbf_record_needs_id(const gbf_record *r, uint32_t kind)
{
    return kind == GBF_RECORDED_RATE && !r->parent && r->random == GBF_SAMPLING_UNKNOWN &&
           !gbf_trace_has_ids(&r->trace);
}

/* Decides, again if need be. `threshold` is that of the rate class; without ids nothing is kept by a rate. */
GBF_INLINE void gbf_record_decide(gbf_record *r, uint32_t rule, uint32_t kind, uint64_t threshold)
{
    gbf_sampling_in in = {.random =
                              r->random != GBF_SAMPLING_UNKNOWN ? r->random : gbf_sampling_random(r->trace.trace_id),
                          .threshold = r->before,
                          .parent = r->parent,
                          .sampled = r->was_sampled};
    gbf_sampling_out out = {r->before, 0, 0}; /* no rule: the context goes on as it came */
    r->decided = GBF_SAMPLING_UNKNOWN;
    if (kind == GBF_RECORDED_ALWAYS) {
        out = gbf_sampling_always(&in);
        r->decided = 0;
    } else if (kind == GBF_RECORDED_NEVER) {
        out = gbf_sampling_never();
        r->decided = GBF_SAMPLING_NEVER;
    } else if (kind == GBF_RECORDED_RATE) {
        r->decided = r->parent ? r->before : threshold;
        out = gbf_record_needs_id(r, kind) ? gbf_sampling_never() : gbf_sampling_rate(&in, threshold);
    }
    r->rule = rule;
    r->kind = (uint8_t)kind;
    r->sampled = (uint8_t)out.sampled;
    r->root = (uint8_t)out.root;
    r->after = out.threshold;
}

/* Flags of the context that goes on. Without a rule those that came. */
GBF_INLINE uint8_t gbf_record_flags(const gbf_record *r)
{
    uint8_t flags = r->trace.flags;
    if (r->kind == GBF_RECORDED_NONE)
        return r->source == GBF_TRACE_NOTHING ? flags & GBF_TRACE_RANDOM : flags;
    flags &= (uint8_t)~(GBF_TRACE_DEFER | GBF_TRACE_SAMPLED);
    return r->sampled ? flags | GBF_TRACE_SAMPLED : flags & (uint8_t)~GBF_TRACE_DEBUG;
}

#endif
