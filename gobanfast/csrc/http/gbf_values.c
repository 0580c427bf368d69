#include "http/gbf_values.h"

#include <stdlib.h>

enum { SEQUENCE, MARKS, ENTRIES, HAND_SHIFT = 8, ALL_MARKS = (1 << GBF_VALUES_WAYS) - 1 };

static inline uint64_t get(_Atomic uint64_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

static inline void set(_Atomic uint64_t *cell, uint64_t value)
{
    atomic_store_explicit(cell, value, memory_order_relaxed);
}

gbf_status gbf_values_make(gbf_values *c, uint32_t words, uint64_t nbytes, const uint8_t *secret,
                           const gbf_xxh3_kernel *kernel)
{
    uint64_t set_cells = ENTRIES + (uint64_t)GBF_VALUES_WAYS * (2 + words), set_count = GBF_VALUES_LEAST_SETS;
    while (2 * set_count * set_cells * 8 <= nbytes)
        set_count *= 2;
    c->cells = calloc(set_count * set_cells, sizeof *c->cells); /* all bits zero is an atomic zero on every target */
    c->set_count = set_count;
    c->set_cells = set_cells;
    c->words = words;
    c->kernel = kernel;
    atomic_init(&c->missed, 0);
    memcpy(c->secret, secret, sizeof c->secret);
    return c->cells == NULL ? GBF_NO_MEMORY : GBF_OK;
}

void gbf_values_free(gbf_values *c)
{
    free(c->cells);
    c->cells = NULL;
}

static inline _Atomic uint64_t *set_of(gbf_values *c, gbf_hash128 hash)
{
    return c->cells + (hash.low & (c->set_count - 1)) * c->set_cells;
}

int gbf_values_and(gbf_values *c, gbf_hash128 hash, uint64_t *vector, uint64_t *scratch)
{
    _Atomic uint64_t *cells = set_of(c, hash), *entry = cells + ENTRIES;
    uint64_t before = atomic_load_explicit(&cells[SEQUENCE], memory_order_acquire);
    for (uint32_t way = 0; way < GBF_VALUES_WAYS; way++, entry += 2 + c->words) {
        if (get(&entry[0]) != hash.low || get(&entry[1]) != hash.high)
            continue;
        for (uint32_t w = 0; w < c->words; w++)
            scratch[w] = get(&entry[2 + w]);
        atomic_thread_fence(memory_order_acquire);
        if ((before & 1) || get(&cells[SEQUENCE]) != before)
            break; /* a writer came by: what was read may be half of one vector, half of another */
        for (uint32_t w = 0; w < c->words; w++)
            vector[w] &= scratch[w];
        if (!(get(&cells[MARKS]) >> way & 1))
            atomic_fetch_or_explicit(&cells[MARKS], UINT64_C(1) << way, memory_order_relaxed);
        return 1;
    }
    atomic_fetch_add_explicit(&c->missed, 1, memory_order_relaxed);
    return 0;
}

gbf_hash128 gbf_values_under(const gbf_values *c, gbf_hash128 hash, const uint8_t *mount, uint32_t nbytes)
{
    gbf_hash128 other = gbf_values_hash(c, UINT32_MAX - 1, mount, nbytes);
    return (gbf_hash128){hash.low + other.low * GBF_XXH3_PRIME64_1, /* equal texts must not cancel out */
                         (hash.high + other.high * GBF_XXH3_PRIME64_1) | 1};
}

/* The way to fill: an empty one, else from the hand on the first that nobody used since the hand passed. When all were
 * used, all marks go and the one at the hand does too. */
static uint32_t victim(gbf_values *c, _Atomic uint64_t *cells)
{
    uint64_t marks = get(&cells[MARKS]);
    uint32_t hand = (uint32_t)(marks >> HAND_SHIFT) % GBF_VALUES_WAYS, way = hand;
    for (uint32_t i = 0; i < GBF_VALUES_WAYS; i++)
        if (get(&cells[ENTRIES + i * (2 + c->words) + 1]) == 0)
            return i;
    if ((marks & ALL_MARKS) == ALL_MARKS)
        atomic_fetch_and_explicit(&cells[MARKS], ~(uint64_t)ALL_MARKS, memory_order_relaxed);
    else
        while (marks >> way & 1)
            way = (way + 1) % GBF_VALUES_WAYS;
    uint64_t next = (way + 1) % GBF_VALUES_WAYS; /* only the writer moves the hand */
    atomic_fetch_xor_explicit(&cells[MARKS], (hand ^ next) << HAND_SHIFT, memory_order_relaxed);
    return way;
}

void gbf_values_put(gbf_values *c, gbf_hash128 hash, const uint64_t *vector)
{
    _Atomic uint64_t *cells = set_of(c, hash);
    uint64_t sequence = get(&cells[SEQUENCE]);
    if ((sequence & 1) || !atomic_compare_exchange_strong_explicit(&cells[SEQUENCE], &sequence, sequence + 1,
                                                                   memory_order_acquire, memory_order_relaxed))
        return;
    atomic_thread_fence(memory_order_release);
    uint32_t way = victim(c, cells);
    _Atomic uint64_t *entry = cells + ENTRIES + (uint64_t)way * (2 + c->words);
    set(&entry[0], hash.low);
    set(&entry[1], hash.high);
    for (uint32_t w = 0; w < c->words; w++)
        set(&entry[2 + w], vector[w]);
    atomic_fetch_and_explicit(&cells[MARKS], ~(UINT64_C(1) << way), memory_order_relaxed);
    atomic_store_explicit(&cells[SEQUENCE], sequence + 2, memory_order_release);
}
