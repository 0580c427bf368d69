/* XXH3, the published algorithm of Yann Collet (specification: xxHash repository, doc/xxhash_spec.md), written anew. */
#ifndef GBF_XXH3_H
#define GBF_XXH3_H

#include "gbf_base.h"

typedef struct {
    uint64_t low, high;
} gbf_hash128;

/* XXH3 128-bit hash of `nbytes` bytes, default secret. */
gbf_hash128 gbf_xxh3_128(const void *data, uint64_t nbytes, uint64_t seed);

#endif
