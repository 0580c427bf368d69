/* Internal interface of the XXH3 kernels: striping of long inputs, and the kernels themselves. */
#ifndef GBF_XXH3_LANES_H
#define GBF_XXH3_LANES_H

#include "base/gbf_cpu.h"
#include "hash/gbf_xxh3.h"

/* What the eight lanes start from. */
static const uint64_t gbf_xxh3_start[8] = {
    GBF_XXH3_PRIME32_3, GBF_XXH3_PRIME64_1, GBF_XXH3_PRIME64_2, GBF_XXH3_PRIME64_3,
    GBF_XXH3_PRIME64_4, GBF_XXH3_PRIME32_2, GBF_XXH3_PRIME64_5, GBF_XXH3_PRIME32_1,
};

/* A long input is `blocks` full blocks of `stripes` stripes of 64 bytes, each block followed by a scramble; then
 * `rest` stripes; then the last 64 bytes, which overlap what came before. At least one byte follows the blocks. */
typedef struct {
    uint64_t stripes, blocks, rest;
} gbf_xxh3_cut;

GBF_INLINE gbf_xxh3_cut gbf_xxh3_cut_up(uint64_t nbytes, uint64_t secret_bytes)
{
    gbf_xxh3_cut cut;
    uint64_t before_last = (nbytes - 1) / 64;
    cut.stripes = (secret_bytes - 64) / 8;
    /* The usual 16 stripes need no division, which is slower than hashing two stripes. */
    cut.blocks = cut.stripes == 16 ? before_last / 16 : before_last / cut.stripes;
    cut.rest = before_last - cut.blocks * cut.stripes;
    return cut;
}

extern const gbf_xxh3_kernel gbf_xxh3_avx512, gbf_xxh3_avx2, gbf_xxh3_neon, gbf_xxh3_scalar;

/* The AVX-512 kernel leaves to this one what it is not faster at. */
void gbf_xxh3_lanes_avx2(uint64_t lanes[8], const uint8_t *data, uint64_t nbytes, const uint8_t *secret,
                         uint64_t secret_bytes);

#endif
