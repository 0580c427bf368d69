/* Learning budget per client: a table of counters that age. One client, however much of the traffic it sends,
 * teaches a score little more than the average client does. The rule and its bounds: DESIGN.md, "Score".
 *
 * Clients whose keyed hashes meet share a cell, and what may be learned from it: too little is learned from them, which
 * harms nobody. Zero bytes are an empty table. Threads: relaxed atomics, as gbf_sketch.h. */
#ifndef GBF_LEARNED_H
#define GBF_LEARNED_H

#include <stdatomic.h>

#include "base/gbf_base.h"

#define GBF_LEARNED_BITS 14u
#define GBF_LEARNED_CELLS (1u << GBF_LEARNED_BITS)
#define GBF_LEARNED_TOTAL 65400u /* when so many were learned, every counter is halved; a counter holds 64 more */
#define GBF_LEARNED_LEAST 16u    /* what may be learned from a cell, whatever the average is */
#define GBF_LEARNED_TIMES 2u     /* and of the average of the cells in use */
#define GBF_LEARNED_MOST 128u    /* above that, a cell may reach 1/128 of everything, */
#define GBF_LEARNED_SPARE 8u     /* while 1/8 of everything was not spent so */

typedef struct {
    _Atomic uint16_t cell[GBF_LEARNED_CELLS];
    _Atomic uint32_t total; /* learned: the sum of the cells */
    _Atomic uint32_t used;  /* cells that are not zero */
    _Atomic uint32_t spent; /* learned above what is fair */
    _Atomic uint32_t fair;  /* what may be learned from a cell, as last worked out */
    _Atomic uint32_t turn;  /* the total at which that is next */
} gbf_learned;

GBF_INLINE uint32_t gbf_learned_read(const _Atomic uint32_t *x)
{
    return atomic_load_explicit(x, memory_order_relaxed);
}

GBF_INLINE void gbf_learned_write(_Atomic uint32_t *x, uint32_t value)
{
    atomic_store_explicit(x, value, memory_order_relaxed);
}

/* The counter of the client with this (keyed, 64-bit) hash. */
GBF_INLINE _Atomic uint16_t *gbf_learned_cell(gbf_learned *l, uint64_t hash)
{
    return &l->cell[hash >> (64 - GBF_LEARNED_BITS)];
}

/* Slow half of gbf_learned_may: above what is fair, and charged for it. */
__attribute__((noinline, unused)) static int gbf_learned_spend(gbf_learned *l, uint32_t count)
{
    uint32_t total = gbf_learned_read(&l->total), spent = gbf_learned_read(&l->spent);
    if (count < GBF_LEARNED_LEAST)
        return 1;
    if (count >= total / GBF_LEARNED_MOST || spent >= total / GBF_LEARNED_SPARE)
        return 0;
    gbf_learned_write(&l->spent, spent + 1);
    return 1;
}

/* 1 when one more may be learned from a client of which `count` were. */
GBF_INLINE int gbf_learned_may(gbf_learned *l, uint32_t count)
{
    return GBF_LIKELY(count < gbf_learned_read(&l->fair)) || gbf_learned_spend(l, count);
}

/* Works out anew what is fair; when enough were learned, halves everything first: 32 KB in one pass. */
__attribute__((noinline, unused)) static void gbf_learned_turn(gbf_learned *l)
{
    uint32_t total = gbf_learned_read(&l->total), used = gbf_learned_read(&l->used);
    if (total >= GBF_LEARNED_TOTAL) {
        total = used = 0;
        for (uint32_t i = 0; i < GBF_LEARNED_CELLS; i++) {
            uint16_t count = atomic_load_explicit(&l->cell[i], memory_order_relaxed);
            if (count == 0)
                continue;
            atomic_store_explicit(&l->cell[i], count / 2, memory_order_relaxed);
            total += count / 2;
            used += count > 1;
        }
        gbf_learned_write(&l->total, total);
        gbf_learned_write(&l->used, used);
        gbf_learned_write(&l->spent, gbf_learned_read(&l->spent) / 2);
    }
    uint32_t fair = used == 0 ? 0 : GBF_LEARNED_TIMES * total / used;
    gbf_learned_write(&l->fair, fair < GBF_LEARNED_LEAST ? GBF_LEARNED_LEAST : fair);
    gbf_learned_write(&l->turn, total + (total < 256 ? 1 : 64));
}

/* Counts one more that was learned from the client of `cell`, of which `count` were. The average moves so slowly that what
 * is fair is worked out for one in 64, at first for each. */
GBF_INLINE void gbf_learned_add(gbf_learned *l, _Atomic uint16_t *cell, uint32_t count)
{
    uint32_t total = gbf_learned_read(&l->total) + 1;
    atomic_store_explicit(cell, (uint16_t)(count + 1), memory_order_relaxed);
    gbf_learned_write(&l->total, total);
    if (GBF_UNLIKELY(count == 0))
        gbf_learned_write(&l->used, gbf_learned_read(&l->used) + 1);
    if (GBF_UNLIKELY(total >= gbf_learned_read(&l->turn)))
        gbf_learned_turn(l);
}

#endif
