/* Windows of latency histograms: rotation, sums, percentiles. See gbf_latency.h. */
#include <math.h>
#include <stdlib.h>

#include "state/gbf_latency.h"

gbf_rates *gbf_rates_new(uint32_t capacity, uint64_t now_ns)
{
    gbf_rates *c = calloc(1, sizeof *c);
    size_t windows = (size_t)capacity * GBF_LATENCY_WINDOWS;
    if (c == NULL)
        return NULL;
    c->thresholds = calloc(capacity, sizeof *c->thresholds);
    c->memory = calloc(windows * sizeof *c->windows + 63, 1); /* calloc: fresh pages of the kernel are not touched */
    if (c->thresholds == NULL || c->memory == NULL) {
        gbf_rates_free(c);
        return NULL;
    }
    c->windows = (gbf_latency_window *)(((uintptr_t)c->memory + 63) / 64 * 64);
    c->capacity = capacity;
    c->started = now_ns;
    atomic_store_explicit(&c->turn, now_ns / GBF_LATENCY_WINDOW_NS, memory_order_relaxed);
    for (uint32_t i = 0; i < capacity; i++)
        gbf_rates_set(c, i, GBF_SAMPLING_NEVER);
    return c;
}

void gbf_rates_free(gbf_rates *c)
{
    if (c == NULL)
        return;
    free(c->thresholds);
    free(c->memory);
    free(c);
}

uint64_t gbf_rates_nbytes(const gbf_rates *c)
{
    return sizeof *c + c->capacity * (sizeof *c->thresholds + GBF_LATENCY_WINDOWS * sizeof *c->windows) + 63;
}

/* Zeroes what is not: pages that were never written stay the kernel's page of zeros. */
static void clear(gbf_latency_window *w)
{
    for (uint32_t i = 0; i < GBF_LATENCY_CELLS; i++)
        if (atomic_load_explicit(&w->cell[i], memory_order_relaxed) != 0)
            atomic_store_explicit(&w->cell[i], 0, memory_order_relaxed);
    if (atomic_load_explicit(&w->errors, memory_order_relaxed) != 0)
        atomic_store_explicit(&w->errors, 0, memory_order_relaxed);
    if (atomic_load_explicit(&w->roots, memory_order_relaxed) != 0)
        atomic_store_explicit(&w->roots, 0, memory_order_relaxed);
}

void gbf_latency_tick(gbf_rates *c, uint64_t now_ns)
{
    uint64_t turn = now_ns / GBF_LATENCY_WINDOW_NS;
    uint64_t before = atomic_load_explicit(&c->turn, memory_order_relaxed);
    /* Of two that tick, the one whose exchange succeeds moves on. */
    if (turn <= before ||
        !atomic_compare_exchange_strong_explicit(&c->turn, &before, turn, memory_order_relaxed, memory_order_relaxed))
        return;
    uint32_t current = atomic_load_explicit(&c->current, memory_order_relaxed);
    for (uint64_t left = turn - before < GBF_LATENCY_WINDOWS ? turn - before : GBF_LATENCY_WINDOWS; left > 0; left--) {
        current = (current + 1) % GBF_LATENCY_WINDOWS;
        for (uint32_t i = 0; i < c->capacity; i++)
            clear(&c->windows[(size_t)i * GBF_LATENCY_WINDOWS + current]);
        atomic_store_explicit(&c->current, current, memory_order_release); /* notes see the window cleared */
    }
}

uint64_t gbf_latency_span(const gbf_rates *c, uint64_t now_ns)
{
    uint64_t turn = atomic_load_explicit(&c->turn, memory_order_relaxed);
    uint64_t first = turn < GBF_LATENCY_WINDOWS - 1 ? 0 : (turn - (GBF_LATENCY_WINDOWS - 1)) * GBF_LATENCY_WINDOW_NS;
    first = first < c->started ? c->started : first;
    return now_ns < first ? 0 : now_ns - first;
}

void gbf_latency_forget(gbf_rates *c, uint32_t class_number)
{
    for (uint32_t i = 0; i < GBF_LATENCY_WINDOWS; i++)
        clear(&c->windows[(size_t)class_number * GBF_LATENCY_WINDOWS + i]);
}

uint64_t gbf_latency_add(const gbf_rates *c, uint32_t class_number, gbf_latency_counts *sum)
{
    uint64_t found = 0;
    for (uint32_t i = 0; i < GBF_LATENCY_WINDOWS; i++) {
        const gbf_latency_window *w = &c->windows[(size_t)class_number * GBF_LATENCY_WINDOWS + i];
        for (uint32_t j = 0; j < GBF_LATENCY_CELLS; j++) {
            uint32_t count = atomic_load_explicit(&w->cell[j], memory_order_relaxed);
            sum->cell[j] += count;
            found += count;
        }
        sum->errors += atomic_load_explicit(&w->errors, memory_order_relaxed);
        sum->roots += atomic_load_explicit(&w->roots, memory_order_relaxed);
    }
    return found;
}

void gbf_latency_merge(gbf_latency_counts *sum, const void *other)
{
    const uint8_t *from = other;
    for (uint32_t i = 0; i < GBF_LATENCY_CELLS; i++)
        sum->cell[i] += gbf_load32(from + 4 * i);
    sum->errors += gbf_load32(from + offsetof(gbf_latency_counts, errors));
    sum->roots += gbf_load32(from + offsetof(gbf_latency_counts, roots));
}

uint64_t gbf_latency_count(const gbf_latency_counts *sum)
{
    uint64_t found = 0;
    for (uint32_t i = 0; i < GBF_LATENCY_CELLS; i++)
        found += sum->cell[i];
    return found;
}

double gbf_latency_percentile(const gbf_latency_counts *sum, uint32_t percent)
{
    uint64_t count = gbf_latency_count(sum), rank = (count * percent + 99) / 100, seen = 0;
    uint32_t at = 0;
    if (count == 0)
        return NAN;
    for (; at < GBF_LATENCY_CELLS - 1; at++) {
        seen += sum->cell[at];
        if (seen >= rank)
            break;
    }
    if (at == GBF_LATENCY_CELLS - 1)
        return INFINITY;
    uint32_t parts = 1u << GBF_LATENCY_PARTS, octave = GBF_LATENCY_LOW + at / parts;
    double width = (double)(UINT64_C(1) << (octave - GBF_LATENCY_PARTS));
    return (parts + at % parts + 0.5) * width;
}
