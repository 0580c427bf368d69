/* Windows of scores. See gbf_window.h. */
#include <math.h>

#include "state/gbf_window.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* results are compared bit for bit; gcc contracts nothing with -std=c11 */
#endif

#define COUNTS (GBF_WINDOW_ONE + 1)

static uint64_t ring_bytes(const gbf_window_rules *rules)
{
    return (rules->window * (rules->naive ? sizeof(double) : sizeof(uint16_t)) + 63) / 64 * 64;
}

uint64_t gbf_window_bytes(const gbf_window_rules *rules)
{
    return rules->naive ? 5 * ring_bytes(rules) : ring_bytes(rules) + COUNTS * sizeof(uint16_t) + COUNTS / 8;
}

void gbf_window_set(gbf_window *w, const gbf_window_rules *rules, void *memory)
{
    uint8_t *behind = (uint8_t *)memory + ring_bytes(rules);
    memset(w, 0, sizeof *w);
    w->ring = memory;
    if (rules->naive) {
        w->sorted = (double *)(void *)behind;
        w->scratch = (double *)(void *)(behind + ring_bytes(rules));
    } else {
        w->counts = (uint16_t *)(void *)behind;
        w->used = (uint64_t *)(void *)(behind + COUNTS * sizeof(uint16_t));
    }
}

/* ---- naive: numpy's arithmetic ---- */

/* Pairwise summation with eight partial sums, as numpy adds up contiguous doubles. */
static double sum_pairwise(const double *x, uint32_t n)
{
    if (n < 8) {
        double sum = 0;
        for (uint32_t i = 0; i < n; i++)
            sum += x[i];
        return sum;
    }
    if (n <= 128) {
        double part[8];
        uint32_t i;
        memcpy(part, x, sizeof part);
        for (i = 8; i + 8 <= n; i += 8)
            for (uint32_t j = 0; j < 8; j++)
                part[j] += x[i + j];
        double sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
        for (; i < n; i++)
            sum += x[i];
        return sum;
    }
    uint32_t half = n / 2 / 8 * 8;
    return sum_pairwise(x, half) + sum_pairwise(x + half, n - half);
}

/* Population standard deviation of the scores in order of arrival. */
static double deviation(const gbf_window *w, uint32_t window)
{
    const double *ring = w->ring;
    double *scratch = w->scratch;
    uint32_t n = w->count, oldest = n < window ? 0 : w->next;
    memcpy(scratch, ring + oldest, (n - oldest) * sizeof *ring);
    memcpy(scratch + (n - oldest), ring, oldest * sizeof *ring);
    double mean = sum_pairwise(scratch, n) / n;
    for (uint32_t i = 0; i < n; i++) {
        double difference = scratch[i] - mean;
        scratch[i] = difference * difference;
    }
    return sqrt(sum_pairwise(scratch, n) / n);
}

/* Linear interpolation between order statistics, rounded as numpy.percentile rounds it. */
static double percentile_of(const double *sorted, uint32_t n, double percentile)
{
    double place = (double)(n - 1) * (percentile / 100);
    double below = (double)(uint32_t)place, t = place - below;
    uint32_t low = (uint32_t)below, high = low + 1 < n ? low + 1 : n - 1;
    double a = sorted[low], b = sorted[high], step = b - a;
    return t >= 0.5 ? b - step * (1 - t) : a + step * t;
}

static uint32_t place_among(const double *sorted, uint32_t n, double score)
{
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (sorted[middle] < score)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void push_naive(gbf_window *w, uint32_t window, double score)
{
    double *ring = w->ring, *sorted = w->sorted;
    if (w->count == window) {
        uint32_t gone = place_among(sorted, w->count, ring[w->next]);
        memmove(sorted + gone, sorted + gone + 1, (w->count - gone - 1) * sizeof *sorted);
        w->count--;
    }
    uint32_t at = place_among(sorted, w->count, score);
    memmove(sorted + at + 1, sorted + at, (w->count - at) * sizeof *sorted);
    sorted[at] = score;
    ring[w->next] = score;
    w->next = w->next + 1 == window ? 0 : w->next + 1;
    w->count++;
}

static void rate_naive(gbf_window *w, const gbf_window_rules *rules, double score, double held, gbf_window_answer *out)
{
    push_naive(w, rules->window, score);
    out->threshold =
        percentile_of(w->sorted, w->count, rules->percentile) + rules->deviations * deviation(w, rules->window);
    out->flagged = held >= out->threshold;
}

/* ---- guarded ---- */

/* The nearest score above or below `score` that the window holds; there is one. */
static uint32_t next_above(const gbf_window *w, uint32_t score)
{
    uint32_t word = score / 64;
    uint64_t bits = w->used[word] & ~UINT64_C(1) << score % 64;
    while (bits == 0)
        bits = w->used[++word];
    return word * 64 + (uint32_t)__builtin_ctzll(bits);
}

static uint32_t next_below(const gbf_window *w, uint32_t score)
{
    uint32_t word = score / 64;
    uint64_t bits = w->used[word] & ((UINT64_C(1) << score % 64) - 1);
    while (bits == 0)
        bits = w->used[--word];
    return word * 64 + 63 - (uint32_t)__builtin_clzll(bits);
}

static void push_guarded(gbf_window *w, const gbf_window_rules *rules, uint32_t score)
{
    uint16_t *ring = w->ring;
    uint32_t old = ring[w->next];
    if (w->count == rules->window) {
        w->below -= old < w->at;
        if (--w->counts[old] == 0)
            w->used[old / 64] &= ~(UINT64_C(1) << old % 64);
    } else {
        w->count++;
        double place = (w->count - 1) * rules->percentile / 100;
        w->low = (uint32_t)place;
        w->fraction = place - w->low;
        w->unit = 1.0 / ((double)w->count * GBF_WINDOW_ONE);
    }
    w->sum += (uint64_t)score - old; /* what the ring never held is zero */
    w->squares += (uint64_t)score * score - (uint64_t)old * old;
    ring[w->next] = (uint16_t)score;
    w->next = w->next + 1 == rules->window ? 0 : w->next + 1;

    w->below += score < w->at;
    w->used[score / 64] |= UINT64_C(1) << score % 64;
    w->counts[score]++;
    while (w->below > w->low) {
        w->at = next_below(w, w->at);
        w->below -= w->counts[w->at];
    }
    while (w->below + w->counts[w->at] <= w->low) {
        w->below += w->counts[w->at];
        w->at = next_above(w, w->at);
    }
}

static double formula(const gbf_window *w, const gbf_window_rules *rules)
{
    uint32_t low = w->at, high = low;
    if (w->below + w->counts[low] == w->low + 1 && w->low + 1 < w->count)
        high = next_above(w, low);
    double percentile = low + (high - low) * w->fraction;
    double deviation = sqrt((double)(w->count * w->squares - w->sum * w->sum)); /* times count */
    return (percentile * w->count + rules->deviations * deviation) * w->unit;
}

GBF_INLINE double clamped(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

void gbf_window_learn(gbf_window *w, const gbf_window_rules *rules, double score)
{
    push_guarded(w, rules, (uint32_t)(score * GBF_WINDOW_ONE + 0.5));
    if (w->count < rules->min_samples)
        return;
    double wanted = clamped(formula(w, rules), rules->floor, rules->ceiling);
    if (w->count == rules->min_samples && w->threshold == 0) /* warm from now on */
        w->threshold = wanted;
    else
        w->threshold += clamped(wanted - w->threshold, -rules->max_step, rules->max_step);
}

void gbf_window_rate(gbf_window *w, const gbf_window_rules *rules, double score, double held, gbf_window_answer *out)
{
    if (rules->naive) {
        rate_naive(w, rules, score, held, out);
        return;
    }
    int cold = gbf_window_cold(w, rules);
    out->threshold = cold ? NAN : w->threshold;
    out->flagged = !cold && held >= w->threshold;
    if (!out->flagged || rules->learn_all)
        gbf_window_learn(w, rules, score);
}

void gbf_window_peek(gbf_window *w, const gbf_window_rules *rules, double score, double held, gbf_window_answer *out)
{
    if (rules->naive) {
        gbf_window before = *w;
        uint64_t nbytes = 2 * ring_bytes(rules); /* ring and sorted are neighbours */
        uint8_t *kept = (uint8_t *)w->scratch + ring_bytes(rules);
        memcpy(kept, w->ring, nbytes);
        rate_naive(w, rules, score, held, out);
        memcpy(w->ring, kept, nbytes);
        *w = before;
        return;
    }
    int cold = gbf_window_cold(w, rules);
    out->threshold = cold ? NAN : w->threshold;
    out->flagged = !cold && held >= w->threshold;
}
