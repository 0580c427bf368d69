/* Rate classes: a sampling threshold, and a log-bucketed histogram of latencies over a sliding minute. DESIGN.md, "Sampling".
 *
 * A class has six windows of ten seconds. A note is one relaxed addition to a cell of the current one; whoever ticks once
 * a second clears the oldest window before it becomes the current one, so a note never clears, waits or looks at a clock.
 * 321 cells, 16 an octave (as HdrHistogram divides them): a percentile read from them is off by at most 1/32.
 *
 * Threads: any number may call everything but new, free and forget; the cells, thresholds and the turn are atomic. */
#ifndef GBF_LATENCY_H
#define GBF_LATENCY_H

#include <stdatomic.h>

#include "base/gbf_base.h"
#include "state/gbf_sampling.h"

#define GBF_RATES_MAX 1000u
#define GBF_LATENCY_WINDOWS 6u
#define GBF_LATENCY_WINDOW_NS UINT64_C(10000000000)
#define GBF_LATENCY_LOW 16u /* 2^16 ns, 66 us: what is faster counts as that */
#define GBF_LATENCY_HIGH                                                                                               \
    36u /* 2^36 ns, 69 s: what takes as long or longer is in the last cell, and reads as infinite */
#define GBF_LATENCY_PARTS 4u /* 2^4 cells an octave */
#define GBF_LATENCY_CELLS (((GBF_LATENCY_HIGH - GBF_LATENCY_LOW) << GBF_LATENCY_PARTS) + 1)

typedef struct {
    _Alignas(64) _Atomic uint32_t cell[GBF_LATENCY_CELLS];
    _Atomic uint32_t errors;
    _Atomic uint32_t roots; /* of which the class's own threshold decided */
} gbf_latency_window;       /* 1,344 bytes */

typedef struct {
    _Atomic uint64_t *thresholds;
    gbf_latency_window *windows; /* six a class, in `memory` */
    void *memory;
    _Atomic uint32_t current; /* window that notes go to */
    uint32_t capacity;        /* classes */
    _Atomic uint64_t turn;    /* number of that window since the clock's zero */
    uint64_t started;         /* ns */
} gbf_rates;

/* Counts of one class, of any number of workers. */
typedef struct {
    uint32_t cell[GBF_LATENCY_CELLS];
    uint32_t errors, roots;
} gbf_latency_counts;

/* The cell of a latency. */
GBF_INLINE uint32_t gbf_latency_cell(uint64_t ns)
{
    if (GBF_UNLIKELY(ns >> GBF_LATENCY_LOW == 0))
        return 0;
    if (GBF_UNLIKELY(ns >> GBF_LATENCY_HIGH != 0))
        return GBF_LATENCY_CELLS - 1;
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(ns);
    return ((octave - GBF_LATENCY_LOW) << GBF_LATENCY_PARTS) +
           (uint32_t)(ns >> (octave - GBF_LATENCY_PARTS) & ((1u << GBF_LATENCY_PARTS) - 1));
}

/* Notes one response of a class below the capacity: time to its start, whether it was an error, whether the class's own
 * threshold decided. */
GBF_INLINE void gbf_latency_note(gbf_rates *c, uint32_t class_number, uint64_t ns, uint32_t error, uint32_t root)
{
    uint32_t current = atomic_load_explicit(&c->current, memory_order_acquire);
    gbf_latency_window *w = &c->windows[class_number * GBF_LATENCY_WINDOWS + current];
    atomic_fetch_add_explicit(&w->cell[gbf_latency_cell(ns)], 1, memory_order_relaxed);
    if (root)
        atomic_fetch_add_explicit(&w->roots, 1, memory_order_relaxed);
    if (GBF_UNLIKELY(error))
        atomic_fetch_add_explicit(&w->errors, 1, memory_order_relaxed);
}

GBF_INLINE uint64_t gbf_rates_threshold(const gbf_rates *c, uint32_t class_number)
{
    return atomic_load_explicit(&c->thresholds[class_number], memory_order_relaxed);
}

GBF_INLINE void gbf_rates_set(gbf_rates *c, uint32_t class_number, uint64_t threshold)
{
    atomic_store_explicit(&c->thresholds[class_number], threshold, memory_order_relaxed);
}

/* Classes that keep nothing and have no counts; NULL without memory. Pages that nobody notes in stay unused. */
gbf_rates *gbf_rates_new(uint32_t capacity, uint64_t now_ns);
void gbf_rates_free(gbf_rates *c);
uint64_t gbf_rates_nbytes(const gbf_rates *c);

/* Moves on to the window of `now_ns`; a clock that went back changes nothing. */
void gbf_latency_tick(gbf_rates *c, uint64_t now_ns);

/* Nanoseconds that the windows cover, up to `now_ns`: 50 to 60 s, less after the start. */
uint64_t gbf_latency_span(const gbf_rates *c, uint64_t now_ns);

/* Clears the counts of a class. */
void gbf_latency_forget(gbf_rates *c, uint32_t class_number);

/* Adds the counts of a class to `sum`; returns how many responses those are. */
uint64_t gbf_latency_add(const gbf_rates *c, uint32_t class_number, gbf_latency_counts *sum);

/* Adds counts, `other` being anything that has the size: it may come from another process, and lie anywhere. */
void gbf_latency_merge(gbf_latency_counts *sum, const void *other);

uint64_t gbf_latency_count(const gbf_latency_counts *sum);

/* The latency that `percent` of the counted stay at or below (nearest rank): the middle of its cell, in ns; INFINITY in
 * the last cell, NaN of nothing. */
double gbf_latency_percentile(const gbf_latency_counts *sum, uint32_t percent);

#endif
