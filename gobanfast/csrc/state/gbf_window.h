/* The threshold of the last scores: a percentile of a window plus some standard deviations. DESIGN.md, "Score".
 *
 * Naive: the formula as it stands over doubles, the newest score included, in the very arithmetic of numpy.percentile
 * (linear) and numpy.std (population). Guarded: over scores in 4095ths, so that sums are whole numbers and exact; clamped
 * to [floor, ceiling], cold until min_samples, and moving at most max_step a sample. A guarded update
 * touches a few cache lines, however long the window.
 *
 * Not safe for threads by itself; gbf_score holds a lock around each window. */
#ifndef GBF_WINDOW_H
#define GBF_WINDOW_H

#include "base/gbf_base.h"

#define GBF_WINDOW_MAX 10000u
#define GBF_WINDOW_ONE 4095u /* a score of 1, in a guarded window */

typedef struct {
    uint32_t window;    /* scores, 1..GBF_WINDOW_MAX */
    double percentile;  /* 0..100 */
    double deviations;  /* added to it */
    uint32_t naive;     /* 1: none of the rest */
    uint32_t learn_all; /* 1: flagged scores too */
    uint32_t min_samples;
    double floor, ceiling, max_step;
} gbf_window_rules;

typedef struct {
    uint32_t count, next; /* scores held; where the next one goes in the ring */
    double threshold;     /* guarded: for the next score, once warm */
    void *ring;           /* in order of arrival: uint16_t guarded, double naive */

    /* guarded */
    uint64_t sum, squares;
    uint16_t *counts; /* how many there are of each score */
    uint64_t *used;   /* a bit for every count that is not zero */
    uint32_t at;      /* the order statistic below the percentile, */
    uint32_t below;   /* how many scores are below it, */
    uint32_t low;     /* which one it is, from 0, */
    double fraction;  /* and how far the percentile is from it to the next */
    double unit;      /* 1 / (count * GBF_WINDOW_ONE) */

    /* naive */
    double *sorted;  /* ascending */
    double *scratch; /* room for three windows */
} gbf_window;

typedef struct {
    double threshold; /* NaN while cold */
    uint32_t flagged;
} gbf_window_answer;

/* Bytes of one window's arrays together. */
uint64_t gbf_window_bytes(const gbf_window_rules *rules);

/* Sets a window over zeroed `memory` of gbf_window_bytes(rules). */
void gbf_window_set(gbf_window *w, const gbf_window_rules *rules, void *memory);

GBF_INLINE int gbf_window_cold(const gbf_window *w, const gbf_window_rules *rules)
{
    return !rules->naive && w->count < rules->min_samples;
}

/* The score that a window takes in: guarded, a whole number of 4095ths. */
GBF_INLINE double gbf_window_score(const gbf_window_rules *rules, double score)
{
    return rules->naive ? score : (double)(uint32_t)(score * GBF_WINDOW_ONE + 0.5) / GBF_WINDOW_ONE;
}

/* Says whether `held` reaches the threshold, and learns `score`, which comes from gbf_window_score: first in a naive
 * window, afterwards and only if `held` does not in a guarded one. They differ by what rules add to a score. */
void gbf_window_rate(gbf_window *w, const gbf_window_rules *rules, double score, double held, gbf_window_answer *out);

/* Learns a score whatever the threshold is. Guarded windows only. */
void gbf_window_learn(gbf_window *w, const gbf_window_rules *rules, double score);

/* What rate would say; changes nothing. */
void gbf_window_peek(gbf_window *w, const gbf_window_rules *rules, double score, double held, gbf_window_answer *out);

#endif
