/* Common helpers of the fuzz targets: numbers out of the input, laws, exact copies. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

typedef struct {
    const uint8_t *at, *end;
} input;

/* A number of up to 4 bytes; what is past the end is 0. */
static inline uint32_t take(input *in, uint32_t bytes)
{
    uint32_t value = 0;
    for (uint32_t i = 0; i < bytes && in->at < in->end; i++)
        value |= (uint32_t)*in->at++ << (8 * i);
    return value;
}

static inline void must(int law)
{
    if (!law)
        abort();
}

/* A copy that ends where its memory ends, so that the sanitizer sees the first byte past the end. */
static inline uint8_t *exact(const uint8_t *data, size_t nbytes)
{
    uint8_t *copy = malloc(nbytes);
    must(copy != NULL);
    if (nbytes != 0)
        memcpy(copy, data, nbytes);
    return copy;
}

#endif
