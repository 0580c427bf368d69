/* Makes a header that opens around fuzzed sections, so that mutation gets past magic, size and hash. */
#ifndef MEND_H
#define MEND_H

#include <stdlib.h>

#include "gbf_block.h"
#include "gbf_xxh3.h"

static inline void mend(uint8_t *block, uint64_t nbytes, uint32_t kind)
{
    const uint8_t magic[8] = {0x89, 'G', 'B', 'F', '\r', '\n', 0x1a, '\n'};
    const uint32_t words[3] = {UINT32_C(0x0A0B0C0D), GBF_BLOCK_VERSION, kind};
    memcpy(block, magic, sizeof magic);
    memcpy(block + 24, words, sizeof words);
    memcpy(block + 40, &nbytes, sizeof nbytes);
    memset(block + 48, 0, 16);
    gbf_hash128 hash = gbf_xxh3_128(block + 24, nbytes - 24, 0);
    memcpy(block + 8, &hash.low, 8);
    memcpy(block + 16, &hash.high, 8);
}

/* An exact copy, so that the sanitizer sees the first byte past the end. */
static inline uint8_t *exact(const uint8_t *data, size_t nbytes)
{
    uint8_t *copy = malloc(nbytes);
    if (copy == NULL)
        abort();
    return memcpy(copy, data, nbytes);
}

#endif
