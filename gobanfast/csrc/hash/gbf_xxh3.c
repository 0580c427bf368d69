#include "hash/gbf_xxh3.h"

#include "hash/gbf_xxh3_lanes.h"

/* ---- the portable kernel ---- */

GBF_INLINE void accumulate(uint64_t *restrict lanes, const uint8_t *restrict data, const uint8_t *restrict secret)
{
    for (int i = 0; i < 8; i++) {
        uint64_t word = gbf_load64(data + 8 * i);
        uint64_t masked = word ^ gbf_load64(secret + 8 * i);
        lanes[i ^ 1] += word;
        lanes[i] += (masked & 0xFFFFFFFF) * (masked >> 32);
    }
}

static void lanes_scalar(uint64_t lanes[8], const uint8_t *data, uint64_t nbytes, const uint8_t *secret,
                         uint64_t secret_bytes)
{
    gbf_xxh3_cut cut = gbf_xxh3_cut_up(nbytes, secret_bytes);
    const uint8_t *last_secret = secret + secret_bytes - 64;
    const uint8_t *p = data;
    memcpy(lanes, gbf_xxh3_start, sizeof gbf_xxh3_start);
    for (uint64_t block = 0; block < cut.blocks; block++) {
        for (uint64_t i = 0; i < cut.stripes; i++, p += 64)
            accumulate(lanes, p, secret + 8 * i);
        for (int i = 0; i < 8; i++)
            lanes[i] = (lanes[i] ^ lanes[i] >> 47 ^ gbf_load64(last_secret + 8 * i)) * GBF_XXH3_PRIME32_1;
    }
    for (uint64_t i = 0; i < cut.rest; i++, p += 64)
        accumulate(lanes, p, secret + 8 * i);
    accumulate(lanes, data + nbytes - 64, last_secret - 7);
}

const gbf_xxh3_kernel gbf_xxh3_scalar = {"scalar", 0, lanes_scalar};

/* ---- the choice ---- */

static const gbf_xxh3_kernel *const kernels[] = {
#if defined(__x86_64__)
    &gbf_xxh3_avx512,
    &gbf_xxh3_avx2,
#elif defined(__aarch64__)
    &gbf_xxh3_neon,
#endif
    &gbf_xxh3_scalar,
};

const gbf_xxh3_kernel *gbf_xxh3_pick(uint32_t features)
{
    int i = 0;
    while (kernels[i]->needs & ~features) /* "scalar" needs nothing */
        i++;
    return kernels[i];
}

/* gbf_xxh3_pick(all this machine has) for calls that have no table to keep the choice in. The compiler's runtime fills its feature words
 * in a constructor, before any code of ours runs, and never writes them again: here they cost a load and a test each,
 * and there is no global of ours to race on. VBMI2 stands for all that GBF_CPU_AVX512 asks for. */
GBF_INLINE const gbf_xxh3_kernel *best(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512f"))
        return &gbf_xxh3_avx512;
    return __builtin_cpu_supports("avx2") ? &gbf_xxh3_avx2 : &gbf_xxh3_scalar;
#elif defined(__aarch64__)
    return &gbf_xxh3_neon;
#else
    return &gbf_xxh3_scalar;
#endif
}

/* ---- keys ---- */

static void derive_secret(uint8_t out[GBF_XXH3_SECRET_BYTES], uint64_t seed)
{
    for (unsigned i = 0; i < GBF_XXH3_SECRET_BYTES; i += 16) {
        uint64_t pair[2] = {gbf_load64(gbf_xxh3_secret + i) + seed, gbf_load64(gbf_xxh3_secret + i + 8) - seed};
        memcpy(out + i, pair, sizeof pair);
    }
}

gbf_status gbf_xxh3_key_set(gbf_xxh3_key *key, const gbf_xxh3_kernel *kernel, uint64_t seed, const uint8_t *secret,
                            uint64_t secret_bytes)
{
    if (secret != NULL && secret_bytes < GBF_XXH3_SECRET_MIN_BYTES)
        return GBF_BAD_INPUT;
    key->kernel = kernel;
    key->short_secret = secret == NULL || seed != 0 ? gbf_xxh3_secret : secret;
    key->long_secret = secret;
    key->long_secret_bytes = secret == NULL ? GBF_XXH3_SECRET_BYTES : secret_bytes;
    key->seed = seed;
    derive_secret(key->derived, seed);
    return GBF_OK;
}

/* ---- long inputs ---- */

GBF_INLINE uint64_t merge(const uint64_t lanes[8], const uint8_t *secret, uint64_t sum)
{
    for (int i = 0; i < 8; i += 2)
        sum += gbf_xxh3_fold(lanes[i] ^ gbf_load64(secret + 8 * i), lanes[i + 1] ^ gbf_load64(secret + 8 * i + 8));
    return gbf_xxh3_avalanche(sum);
}

GBF_INLINE uint64_t hash64(const gbf_xxh3_kernel *kernel, const uint8_t *data, uint64_t nbytes, const uint8_t *secret,
                           uint64_t secret_bytes)
{
    _Alignas(64) uint64_t lanes[8];
    kernel->lanes(lanes, data, nbytes, secret, secret_bytes);
    return merge(lanes, secret + 11, nbytes * GBF_XXH3_PRIME64_1);
}

GBF_INLINE gbf_hash128 hash128(const gbf_xxh3_kernel *kernel, const uint8_t *data, uint64_t nbytes,
                               const uint8_t *secret, uint64_t secret_bytes)
{
    _Alignas(64) uint64_t lanes[8];
    kernel->lanes(lanes, data, nbytes, secret, secret_bytes);
    return (gbf_hash128){merge(lanes, secret + 11, nbytes * GBF_XXH3_PRIME64_1),
                         merge(lanes, secret + secret_bytes - 75, ~(nbytes * GBF_XXH3_PRIME64_2))};
}

uint64_t gbf_xxh3_64_long(const gbf_xxh3_key *key, const void *data, uint64_t nbytes)
{
    const uint8_t *secret = key->long_secret != NULL ? key->long_secret : key->derived;
    return hash64(key->kernel, data, nbytes, secret, key->long_secret_bytes);
}

gbf_hash128 gbf_xxh3_128_long(const gbf_xxh3_key *key, const void *data, uint64_t nbytes)
{
    const uint8_t *secret = key->long_secret != NULL ? key->long_secret : key->derived;
    return hash128(key->kernel, data, nbytes, secret, key->long_secret_bytes);
}

uint64_t gbf_xxh3_64_seeded(const void *data, uint64_t nbytes, uint64_t seed)
{
    uint8_t derived[GBF_XXH3_SECRET_BYTES];
    if (seed == 0)
        return hash64(best(), data, nbytes, gbf_xxh3_secret, sizeof gbf_xxh3_secret);
    derive_secret(derived, seed);
    return hash64(best(), data, nbytes, derived, sizeof derived);
}

gbf_hash128 gbf_xxh3_128_seeded(const void *data, uint64_t nbytes, uint64_t seed)
{
    uint8_t derived[GBF_XXH3_SECRET_BYTES];
    if (seed == 0)
        return hash128(best(), data, nbytes, gbf_xxh3_secret, sizeof gbf_xxh3_secret);
    derive_secret(derived, seed);
    return hash128(best(), data, nbytes, derived, sizeof derived);
}
