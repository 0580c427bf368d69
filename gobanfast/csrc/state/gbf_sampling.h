/* Consistent probability sampling: 56-bit thresholds, their text, and what a parent's decision does. DESIGN.md, "Sampling".
 *
 * After OpenTelemetry's "TraceState: Probability Sampling": a trace is kept when R >= T. R is 56 random bits, `rv` of the
 * tracestate or the low bits of the trace id; T = 2^56 - p x 2^56. Nothing here allocates, or fails on data from the wire. */
#ifndef GBF_SAMPLING_H
#define GBF_SAMPLING_H

#include "base/gbf_base.h"

#define GBF_SAMPLING_DIGITS 14u                           /* of a threshold in full */
#define GBF_SAMPLING_MEMBER 256u                          /* bytes that a value of tracestate may have */
#define GBF_SAMPLING_NEVER (UINT64_C(1) << 56)            /* the threshold that no R reaches: p = 0. It has no text. */
#define GBF_SAMPLING_UNKNOWN UINT64_C(0xFFFFFFFFFFFFFFFF) /* no threshold is known: `th` is absent */

/* R of a trace id without `rv`: its low 56 bits, the id being 16 bytes in network order. */
GBF_INLINE uint64_t gbf_sampling_random(const uint8_t *trace_id)
{
    return __builtin_bswap64(gbf_load64(trace_id + 8)) & (GBF_SAMPLING_NEVER - 1);
}

GBF_INLINE uint32_t gbf_sampling_keeps(uint64_t random, uint64_t threshold)
{
    return random >= threshold;
}

/* The threshold nearest to a probability, ties to an even p x 2^56. At and above 1 all are kept; NaN, 0 and less keep none. */
GBF_INLINE uint64_t gbf_sampling_threshold(double probability)
{
    if (!(probability > 0))
        return GBF_SAMPLING_NEVER;
    if (probability >= 1)
        return 0;
    double scaled = probability * (double)GBF_SAMPLING_NEVER; /* exact: only the exponent changes */
    uint64_t kept = (uint64_t)scaled;
    double rest = scaled - (double)kept;
    kept += rest > 0.5 || (rest == 0.5 && kept & 1);
    return GBF_SAMPLING_NEVER - kept;
}

/* A threshold below NEVER with no more than `precision` hex digits behind its leading f's, rounded half up. */
GBF_INLINE uint64_t gbf_sampling_round(uint64_t threshold, uint32_t precision)
{
    uint32_t digits = precision;
    for (uint64_t rest = threshold; digits < GBF_SAMPLING_DIGITS && rest >> 52 == 0xf; digits++)
        rest = rest << 4 & (GBF_SAMPLING_NEVER - 1);
    if (digits >= GBF_SAMPLING_DIGITS)
        return threshold;
    uint32_t shift = 4 * (GBF_SAMPLING_DIGITS - digits);
    return (threshold + (UINT64_C(1) << (shift - 1))) >> shift << shift; /* a digit below f ends the f's: no overflow */
}

/* Writes a threshold below NEVER in hex without trailing zeros; returns the digits, 1 to 14. */
GBF_INLINE uint32_t gbf_sampling_write(uint64_t threshold, char *out)
{
    uint32_t n = 0;
    do {
        out[n++] = "0123456789abcdef"[threshold >> 52 & 15];
        threshold = threshold << 4 & (GBF_SAMPLING_NEVER - 1);
    } while (threshold != 0);
    return n;
}

/* 1 with the threshold of a `th` text: 1 to 14 lower-case hex digits, the trailing zeros left out. */
GBF_INLINE uint32_t gbf_sampling_read(const char *text, size_t n, uint64_t *threshold)
{
    uint64_t value = 0;
    if (n == 0 || n > GBF_SAMPLING_DIGITS)
        return 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t digit = (uint32_t)(uint8_t)text[i] - '0', letter = (uint32_t)(uint8_t)text[i] - 'a';
        if (digit > 9 && letter > 5)
            return 0;
        value = value << 4 | (digit <= 9 ? digit : letter + 10);
    }
    *threshold = value << 4 * (GBF_SAMPLING_DIGITS - n);
    return 1;
}

/* 1 with R of an `rv` text: exactly 14 lower-case hex digits. */
GBF_INLINE uint32_t gbf_sampling_read_random(const char *text, size_t n, uint64_t *random)
{
    return n == GBF_SAMPLING_DIGITS && gbf_sampling_read(text, n, random);
}

/* T and R in the value of the tracestate's member `ot`, `key:value` with `;` between; UNKNOWN what is absent or malformed.
 * Of a key twice the first counts. */
GBF_INLINE void gbf_sampling_member(const uint8_t *text, size_t n, uint64_t *threshold, uint64_t *random)
{
    const char *at = (const char *)text, *end = at + n;
    uint32_t th = 0, rv = 0;
    *threshold = *random = GBF_SAMPLING_UNKNOWN;
    while (at < end) {
        const char *stop = (const char *)memchr(at, ';', (size_t)(end - at));
        stop = stop == NULL ? end : stop;
        if (stop - at >= 3 && memcmp(at, "th:", 3) == 0 && !th++)
            gbf_sampling_read(at + 3, (size_t)(stop - at) - 3, threshold);
        else if (stop - at >= 3 && memcmp(at, "rv:", 3) == 0 && !rv++)
            gbf_sampling_read_random(at + 3, (size_t)(stop - at) - 3, random);
        at = stop + (stop < end);
    }
}

/* The value of the member `ot` with another `th`, in front, and what else it says behind; UNKNOWN and NEVER erase it. What
 * does not fit into GBF_SAMPLING_MEMBER bytes goes from the right. Returns the bytes of `out`; 0: nothing is left to say. */
GBF_INLINE uint32_t gbf_sampling_member_write(const uint8_t *text, size_t n, uint64_t threshold, uint8_t *out)
{
    const char *at = (const char *)text, *end = at + n;
    uint32_t used = 0;
    if (threshold < GBF_SAMPLING_NEVER) {
        memcpy(out, "th:", 3);
        used = 3 + gbf_sampling_write(threshold, (char *)out + 3);
    }
    while (at < end) {
        const char *stop = (const char *)memchr(at, ';', (size_t)(end - at));
        stop = stop == NULL ? end : stop;
        size_t part = (size_t)(stop - at);
        if (part != 0 && !(part >= 3 && memcmp(at, "th:", 3) == 0) && used + 1 + part <= GBF_SAMPLING_MEMBER) {
            if (used > 0)
                out[used++] = ';';
            memcpy(out + used, at, part);
            used += (uint32_t)part;
        }
        at = stop + (stop < end);
    }
    while (used > 0 && out[used - 1] == ' ') /* no value of tracestate ends so */
        used--;
    return used;
}

GBF_INLINE double gbf_sampling_probability(uint64_t threshold)
{
    return (double)(GBF_SAMPLING_NEVER - threshold) / (double)GBF_SAMPLING_NEVER;
}

/* How many traces one that was kept stands for; 0 for NEVER, of which none is. */
GBF_INLINE double gbf_sampling_count(uint64_t threshold)
{
    return threshold < GBF_SAMPLING_NEVER ? 1 / gbf_sampling_probability(threshold) : 0;
}

/* What arrived with a request. */
typedef struct {
    uint64_t random;    /* R */
    uint64_t threshold; /* `th` of the parent, or UNKNOWN */
    uint32_t parent;    /* 1: there is one; 0: the trace begins here */
    uint32_t sampled;   /* the parent's flag */
} gbf_sampling_in;

/* What goes on: the flag, and `th`. */
typedef struct {
    uint64_t threshold; /* UNKNOWN: no `th`; of what is dropped, and where the probability is not known */
    uint32_t sampled;
    uint32_t root; /* 1: the class's own threshold decided */
} gbf_sampling_out;

/* A rate rule follows the parent, its `th` if it has one, else its flag; the class's threshold is for roots. */
GBF_INLINE gbf_sampling_out gbf_sampling_rate(const gbf_sampling_in *in, uint64_t threshold)
{
    gbf_sampling_out out = {in->parent ? in->threshold : threshold, 0, !in->parent};
    out.sampled = out.threshold == GBF_SAMPLING_UNKNOWN ? in->sampled : gbf_sampling_keeps(in->random, out.threshold);
    if (!out.sampled)
        out.threshold = GBF_SAMPLING_UNKNOWN;
    return out;
}

/* `always` and `never` beat the parent, whose `th` is erased: what it says is no longer so. A root that is always kept
 * stands for itself, th:0. */
GBF_INLINE gbf_sampling_out gbf_sampling_always(const gbf_sampling_in *in)
{
    return (gbf_sampling_out){in->parent ? GBF_SAMPLING_UNKNOWN : 0, 1, 0};
}

GBF_INLINE gbf_sampling_out gbf_sampling_never(void)
{
    return (gbf_sampling_out){GBF_SAMPLING_UNKNOWN, 0, 0};
}

#endif
