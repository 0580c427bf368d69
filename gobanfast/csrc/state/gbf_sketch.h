/* Count-min sketch with conservative update, whose counts age. Cormode and Muthukrishnan, 2005; Estan and Varghese, 2002. Error bounds: DESIGN.md, "Score".
 *
 * Never counts too little (aging aside). Zero bytes are an empty sketch. Threads: cells are relaxed atomics, so readers and
 * writers may meet and an update may be lost then; one thread alone is exact and repeatable. */
#ifndef GBF_SKETCH_H
#define GBF_SKETCH_H

#include <stdatomic.h>

#include "base/gbf_base.h"

#define GBF_SKETCH_ROWS 4u
#define GBF_SKETCH_COLUMNS 8192u
#define GBF_SKETCH_TOTAL 65535u /* when so many were seen, every count is halved */

typedef struct {
    _Atomic uint16_t cell[GBF_SKETCH_ROWS][GBF_SKETCH_COLUMNS];
    _Atomic uint32_t total;    /* seen, and aged like the counts */
    _Atomic uint32_t distinct; /* of them different; never too many */
    _Atomic double per_log;    /* 1 / log2(total + distinct + 1), as the owner last worked it out */
} gbf_sketch;

/* Cell of a key in a row: 13 bits of its hash each. */
#define GBF_SKETCH_CELL(c, row, hash) (&(c)->cell[row][(hash) >> (16 * (row)) & (GBF_SKETCH_COLUMNS - 1)])

/* How often the key with this (keyed, 64-bit) hash was seen, at least. */
GBF_INLINE uint32_t gbf_sketch_get(const gbf_sketch *c, uint64_t hash)
{
    uint32_t least = UINT32_MAX;
    for (uint32_t row = 0; row < GBF_SKETCH_ROWS; row++) {
        uint32_t count = atomic_load_explicit(GBF_SKETCH_CELL(c, row, hash), memory_order_relaxed);
        least = count < least ? count : least;
    }
    return least;
}

/* Halves everything. 64 KB in one pass: some microseconds, once in 32,768 additions. */
__attribute__((noinline, unused)) static void gbf_sketch_age(gbf_sketch *c)
{
    uint32_t left = 0;
    for (uint32_t row = 0; row < GBF_SKETCH_ROWS; row++) {
        uint32_t used = 0;
        for (uint32_t i = 0; i < GBF_SKETCH_COLUMNS; i++) {
            uint16_t count = atomic_load_explicit(&c->cell[row][i], memory_order_relaxed);
            if (count == 0) /* most are */
                continue;
            atomic_store_explicit(&c->cell[row][i], count / 2, memory_order_relaxed);
            used += count > 1;
        }
        left = used > left ? used : left;
    }
    atomic_store_explicit(&c->total, atomic_load_explicit(&c->total, memory_order_relaxed) / 2, memory_order_relaxed);
    atomic_store_explicit(&c->distinct, left, memory_order_relaxed);
}

/* Counts one more of the key, of which `seen` were counted before; returns the new total. */
GBF_INLINE uint32_t gbf_sketch_add(gbf_sketch *c, uint64_t hash, uint32_t seen)
{
    for (uint32_t row = 0; row < GBF_SKETCH_ROWS; row++) {
        _Atomic uint16_t *cell = GBF_SKETCH_CELL(c, row, hash);
        if (atomic_load_explicit(cell, memory_order_relaxed) == seen)
            atomic_store_explicit(cell, (uint16_t)(seen + 1), memory_order_relaxed);
    }
    if (seen == 0)
        atomic_store_explicit(&c->distinct, atomic_load_explicit(&c->distinct, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    uint32_t total = atomic_load_explicit(&c->total, memory_order_relaxed) + 1;
    atomic_store_explicit(&c->total, total, memory_order_relaxed);
    if (GBF_UNLIKELY(total >= GBF_SKETCH_TOTAL))
        gbf_sketch_age(c);
    return total;
}

#endif
