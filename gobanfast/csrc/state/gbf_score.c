/* Scores. See gbf_score.h and DESIGN.md, "Score". */
#include <math.h>
#include <stdlib.h>

#include "state/gbf_score.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* a replay on another machine gives the same bits */
#endif

/* Logarithm to base 2 of n >= 1, exact at powers of two and to 1e-9 elsewhere: 2 artanh((m - 1) / (m + 1)) / ln 2 of
 * the mantissa m, as a series. Only +, -, * and /, so it is the same everywhere, which libm's is not. */
GBF_INLINE double log2_of(uint32_t n)
{
    double m = n;
    uint64_t bits;
    memcpy(&bits, &m, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & (~UINT64_C(0) >> 12)) | UINT64_C(1023) << 52;
    memcpy(&m, &bits, sizeof bits);
    double above = m > 1.4142135623730951; /* 1 or 0: then half of m is nearer to one */
    m *= 1 - above / 2;
    double z = (m - 1) / (m + 1), z2 = z * z;
    double series = 1 + z2 * (1.0 / 3 + z2 * (1.0 / 5 + z2 * (1.0 / 7 + z2 * (1.0 / 9 + z2 * (1.0 / 11)))));
    return exponent + above + z * series * 2.8853900817779268;
}

/* Both halves of a product; of clients, whose addresses nobody can choose freely, one is enough. */
GBF_INLINE uint64_t mixed(uint64_t x, uint64_t key)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)x * (key | 1);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

GBF_INLINE uint64_t keyed(uint64_t x, uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)(x ^ a) * (b | 1);
    x = (uint64_t)product ^ (uint64_t)(product >> 64);
    product = (wide)(x ^ b) * (a | 1);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* -log2 p over log2 N, where p = (seen + 1) / N is Laplace's estimate for one of `distinct` known values and one new,
 * and N = total + distinct + 1: one for what was never seen, towards zero for what always is. */
GBF_INLINE double surprise(const gbf_sketch *counts, uint32_t seen)
{
    double part = 1 - log2_of(seen + 1) * atomic_load_explicit(&counts->per_log, memory_order_relaxed);
    return part > 0 ? part : 0;
}

/* Counts a value; log2 N moves so slowly that it is worked out anew for one request in 64, at first for each. */
GBF_INLINE void count(gbf_sketch *counts, uint64_t hash, uint32_t seen)
{
    uint32_t total = gbf_sketch_add(counts, hash, seen);
    if (total % 64 == 0 || total < 256) {
        uint32_t distinct = atomic_load_explicit(&counts->distinct, memory_order_relaxed);
        atomic_store_explicit(&counts->per_log, 1 / log2_of(total + distinct + 1), memory_order_relaxed);
    }
}

double gbf_score_risk(const gbf_score *s, uint32_t asn)
{
    uint32_t low = 0, high = s->risk_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (s->risks[middle].first <= asn)
            low = middle + 1;
        else
            high = middle;
    }
    return low != 0 && asn <= s->risks[low - 1].last ? s->risks[low - 1].risk : s->unknown_asn;
}

typedef struct {
    uint64_t name, fingerprint, shape; /* keyed hashes */
    uint32_t name_seen, fingerprint_seen, shape_seen;
} sighting;

/* Fills in all but the threshold; the score without what is added, which is what may be learned. */
static double weigh(const gbf_score *s, const gbf_score_input *in, sighting *seen, gbf_score_answer *out)
{
    double sum = 0;
    memset(seen, 0, sizeof *seen);
    out->part[0] = out->part[1] = out->part[2] = NAN;
    out->coverage = 0;
    if (in->present & GBF_SCORE_SNI) {
        seen->name = keyed(in->name, s->key[0], s->key[1]);
        seen->name_seen = gbf_sketch_get(&s->names, seen->name);
        out->part[0] = surprise(&s->names, seen->name_seen);
        sum += s->weight[0] * out->part[0];
        out->coverage += s->weight[0];
    }
    if (in->present & GBF_SCORE_HEADER) {
        seen->fingerprint = keyed(in->fingerprint, s->key[2], s->key[3]);
        seen->fingerprint_seen = gbf_sketch_get(&s->fingerprints, seen->fingerprint);
        out->part[1] = surprise(&s->fingerprints, seen->fingerprint_seen);
        if (in->present & GBF_SCORE_SHAPE) {
            seen->shape = keyed(in->shape, s->key[1], s->key[3]);
            seen->shape_seen = gbf_sketch_get(&s->shapes, seen->shape);
            double shape = surprise(&s->shapes, seen->shape_seen);
            out->part[1] = shape > out->part[1] ? shape : out->part[1];
        }
        sum += s->weight[1] * out->part[1];
        out->coverage += s->weight[1];
    }
    if (in->present & GBF_SCORE_ASN) {
        out->part[2] = gbf_score_risk(s, in->asn);
        sum += s->weight[2] * out->part[2];
        out->coverage += s->weight[2];
    }
    double score = out->coverage == 1 ? sum : out->coverage > 0 ? sum / out->coverage : 0;
    score = gbf_window_score(&s->rules, score < 1 ? score : 1);
    out->score = score;
    if (GBF_UNLIKELY(in->added > 0))
        out->score = score + in->added < 1 ? score + in->added : 1;
    return score;
}

GBF_INLINE gbf_score_scope *scope_of(const gbf_score *s, const gbf_score_input *in)
{
    if (s->scope_count == 1)
        return s->scopes;
    return s->scopes + (keyed(in->host, s->key[1], s->key[2]) >> 32) * s->scope_count / (UINT64_C(1) << 32);
}

/* Holds a score against the threshold and learns nothing. */
static void hold(const gbf_score *s, gbf_score_scope *scope, double score, gbf_score_answer *out)
{
    gbf_window_answer window = {NAN, 0};
    if (out->coverage > 0 || out->score > 0) {
        gbf_lock_take(&scope->lock);
        gbf_window_peek(&scope->window, &s->rules, score, out->score, &window);
        gbf_lock_open(&scope->lock);
    }
    out->threshold = window.threshold;
    out->flagged = window.flagged;
}

GBF_INLINE void count_all(gbf_score *s, const gbf_score_input *in, const sighting *seen)
{
    if (in->present & GBF_SCORE_SNI)
        count(&s->names, seen->name, seen->name_seen);
    if (in->present & GBF_SCORE_HEADER)
        count(&s->fingerprints, seen->fingerprint, seen->fingerprint_seen);
    if ((in->present & (GBF_SCORE_HEADER | GBF_SCORE_SHAPE)) == (GBF_SCORE_HEADER | GBF_SCORE_SHAPE))
        count(&s->shapes, seen->shape, seen->shape_seen);
}

void gbf_score_rate(gbf_score *s, const gbf_score_input *in, gbf_score_answer *out)
{
    sighting seen;
    gbf_window_answer window;
    gbf_score_scope *scope = scope_of(s, in);
    double score = weigh(s, in, &seen, out);
    _Atomic uint16_t *cell = gbf_learned_cell(&s->learned, mixed(in->client ^ s->key[1], s->key[3]));
    uint32_t learned = atomic_load_explicit(cell, memory_order_relaxed);
    /* nothing to learn, or not from this client */
    if (GBF_UNLIKELY(out->coverage <= 0 || (!gbf_learned_may(&s->learned, learned) && !s->rules.naive))) {
        hold(s, scope, score, out);
        return;
    }
    gbf_lock_take(&scope->lock);
    gbf_window_rate(&scope->window, &s->rules, score, out->score, &window);
    gbf_lock_open(&scope->lock);
    out->threshold = window.threshold;
    out->flagged = window.flagged;
    if (!window.flagged || s->rules.naive || s->rules.learn_all) {
        count_all(s, in, &seen);
        gbf_learned_add(&s->learned, cell, learned);
    }
}

int gbf_score_vouch(gbf_score *s, const gbf_score_input *in)
{
    sighting seen;
    gbf_score_answer out;
    gbf_score_scope *scope = scope_of(s, in);
    if (s->rules.naive || s->rules.learn_all)
        return 0;
    double score = weigh(s, in, &seen, &out);
    if (out.coverage <= 0)
        return 0;
    gbf_lock_take(&scope->lock);
    gbf_window_learn(&scope->window, &s->rules, score);
    gbf_lock_open(&scope->lock);
    count_all(s, in, &seen);
    return 1;
}

void gbf_score_peek(gbf_score *s, const gbf_score_input *in, gbf_score_answer *out)
{
    sighting seen;
    hold(s, scope_of(s, in), weigh(s, in, &seen, out), out);
}

gbf_score *gbf_score_new(const gbf_score_rules *rules, const uint8_t key[32])
{
    uint32_t scope_count = rules->per_host ? GBF_SCORE_SCOPES : 1;
    uint64_t head = (sizeof(gbf_score) + 63) / 64 * 64;
    uint64_t scopes = (scope_count * sizeof(gbf_score_scope) + 63) / 64 * 64;
    uint64_t risks = (rules->risk_count * sizeof(gbf_asn_risk) + 63) / 64 * 64;
    uint64_t window = gbf_window_bytes(&rules->window);
    uint64_t nbytes = head + scopes + risks + scope_count * window;
    uint8_t *memory = aligned_alloc(64, nbytes);
    if (memory == NULL)
        return NULL;
    memset(memory, 0, nbytes);
    gbf_score *s = (gbf_score *)(void *)memory;
    memcpy(s->weight, rules->weight, sizeof s->weight);
    s->unknown_asn = rules->unknown_asn;
    s->rules = rules->window;
    for (int i = 0; i < 4; i++)
        s->key[i] = gbf_load64(key + 8 * i);
    s->scopes = (gbf_score_scope *)(void *)(memory + head);
    s->scope_count = scope_count;
    s->risks = (gbf_asn_risk *)(void *)(memory + head + scopes);
    s->risk_count = rules->risk_count;
    if (rules->risk_count != 0)
        memcpy(s->risks, rules->risks, rules->risk_count * sizeof *rules->risks);
    for (uint32_t i = 0; i < scope_count; i++)
        gbf_window_set(&s->scopes[i].window, &s->rules, memory + head + scopes + risks + i * window);
    s->nbytes = nbytes;
    return s;
}

void gbf_score_free(gbf_score *s)
{
    free(s);
}

void gbf_score_mend(gbf_score *s)
{
    for (uint32_t i = 0; i < s->scope_count; i++) {
        gbf_score_scope *scope = &s->scopes[i];
        if (atomic_load_explicit(&scope->lock.taken, memory_order_relaxed)) {
            memset(scope->window.ring, 0, gbf_window_bytes(&s->rules));
            gbf_window_set(&scope->window, &s->rules, scope->window.ring);
            gbf_lock_open(&scope->lock);
        }
    }
}
