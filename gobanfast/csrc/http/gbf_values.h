/* Value-class cache: the bit vector of rules that a header value satisfies, evaluated once.
 *
 * Keyed 128-bit hash of (slot, value) -> bit vector. Fixed memory, sets of GBF_VALUES_WAYS entries. Readers write
 * nothing but a mark, once an entry. A writer claims a set by CAS on its sequence number (even -> odd); a writer that
 * loses skips the insert. A reader that meets a writer reports a miss. So nothing waits, on any build of Python, and a
 * flood of new values costs one evaluation each. See DESIGN.md, "Requests". */
#ifndef GBF_VALUES_H
#define GBF_VALUES_H

#include <stdatomic.h>

#include "hash/gbf_xxh3.h"

enum { GBF_VALUES_WAYS = 8, GBF_VALUES_LEAST_SETS = 16, GBF_VALUES_SECRET = 192 };

/* One set: a sequence number, marks (bits 0..7: used since the hand passed; from bit 8: the hand), then for each way
 * the two halves of the hash (both 0: empty) and `words` words. */
typedef struct {
    _Atomic uint64_t *cells;
    uint64_t set_count, set_cells; /* a power of two; 64-bit cells a set */
    uint32_t words;
    _Atomic uint64_t missed; /* lookups that did not find their value */
    uint8_t secret[GBF_VALUES_SECRET];
    const gbf_xxh3_kernel *kernel;
} gbf_values;

/* Makes an empty cache of at most `nbytes` (or of 16 sets, when that is more). GBF_NO_MEMORY or GBF_OK. */
gbf_status gbf_values_make(gbf_values *c, uint32_t words, uint64_t nbytes, const uint8_t *secret,
                           const gbf_xxh3_kernel *kernel);
void gbf_values_free(gbf_values *c);

GBF_INLINE uint64_t gbf_values_nbytes(const gbf_values *c)
{
    return c->set_count * c->set_cells * 8;
}

GBF_INLINE gbf_hash128 gbf_values_hash(const gbf_values *c, uint32_t slot, const uint8_t *value, uint32_t nbytes)
{
    gbf_xxh3_key key = {c->kernel, c->secret, c->secret, sizeof c->secret, 0, {0}};
    gbf_hash128 hash = gbf_xxh3_128_keyed(&key, value, nbytes);
    hash.low ^= (slot + 1) * GBF_XXH3_PRIME64_1; /* another slot, another key */
    hash.high |= 1;                              /* never the mark of an empty entry */
    return hash;
}

/* The hash of a path under a mount, from that of the path. */
gbf_hash128 gbf_values_under(const gbf_values *c, gbf_hash128 hash, const uint8_t *mount, uint32_t nbytes);

/* ANDs the vector of `hash` into `vector` and returns 1, or returns 0 and leaves `vector` alone. `words` words of
 * `scratch` are written. */
int gbf_values_and(gbf_values *c, gbf_hash128 hash, uint64_t *vector, uint64_t *scratch);

/* Remembers a vector, or does not. */
void gbf_values_put(gbf_values *c, gbf_hash128 hash, const uint64_t *vector);

GBF_INLINE uint64_t gbf_values_missed(const gbf_values *c)
{
    return atomic_load_explicit(&((gbf_values *)(uintptr_t)c)->missed, memory_order_relaxed);
}

#endif
