/* XXH3, 64 and 128 bits: the published algorithm of Yann Collet, written anew from its specification (xxHash
 * repository, doc/xxhash_spec.md, "XXH3 algorithm overview"). Arithmetic and sources: DESIGN.md, "XXH3".
 *
 * Inputs of 0..240 bytes are hashed inline, without a call. Longer inputs go through a kernel, which turns them into
 * eight 64-bit lanes. Nothing allocates, nothing can fail, any number of threads may hash at once. */
#ifndef GBF_XXH3_H
#define GBF_XXH3_H

#include "base/gbf_base.h"

#define GBF_XXH3_SHORT_BYTES 240u      /* the longest input that needs no kernel */
#define GBF_XXH3_SECRET_BYTES 192u     /* the default secret and the one derived from a seed */
#define GBF_XXH3_SECRET_MIN_BYTES 136u /* the shortest custom secret */

typedef struct {
    uint64_t low, high;
} gbf_hash128;

/* One implementation of the loop over a long input. `lanes` writes the eight lanes of `nbytes` (> 240) bytes. */
typedef struct {
    const char *name;
    uint32_t needs; /* GBF_CPU_* */
    void (*lanes)(uint64_t lanes[8], const uint8_t *data, uint64_t nbytes, const uint8_t *secret,
                  uint64_t secret_bytes);
} gbf_xxh3_kernel;

/* The best kernel that needs nothing beyond `features` (GBF_CPU_*). */
const gbf_xxh3_kernel *gbf_xxh3_pick(uint32_t features);

/* A seed, a secret or both, made ready once for many hashes. Copyable; borrows a custom secret. */
typedef struct {
    const gbf_xxh3_kernel *kernel;
    const uint8_t *short_secret; /* for 0..240 bytes, together with `seed` */
    const uint8_t *long_secret;  /* for longer inputs; NULL: `derived` */
    uint64_t long_secret_bytes;
    uint64_t seed;
    uint8_t derived[GBF_XXH3_SECRET_BYTES];
} gbf_xxh3_key;

/* Fills in `key`. `secret` may be NULL (the default one) or `secret_bytes` >= 136 bytes that outlive the key. Seed 0
 * with a secret is the secret alone. A seed with a secret follows the specification: the seed alone keys inputs up to
 * 240 bytes, the secret alone keys longer ones; for privacy, give a secret and no seed.
 * GBF_BAD_INPUT when the secret is too short. */
gbf_status gbf_xxh3_key_set(gbf_xxh3_key *key, const gbf_xxh3_kernel *kernel, uint64_t seed, const uint8_t *secret,
                            uint64_t secret_bytes);

/* Long inputs, > 240 bytes: with a key; with a seed and the best kernel. */
uint64_t gbf_xxh3_64_long(const gbf_xxh3_key *key, const void *data, uint64_t nbytes);
gbf_hash128 gbf_xxh3_128_long(const gbf_xxh3_key *key, const void *data, uint64_t nbytes);
uint64_t gbf_xxh3_64_seeded(const void *data, uint64_t nbytes, uint64_t seed);
gbf_hash128 gbf_xxh3_128_seeded(const void *data, uint64_t nbytes, uint64_t seed);

/* Per translation unit and const, so that with the default secret its words fold into immediates. */
/* clang-format off */
static const uint8_t gbf_xxh3_secret[GBF_XXH3_SECRET_BYTES] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};
/* clang-format on */

#define GBF_XXH3_PRIME32_1 UINT64_C(0x9E3779B1)
#define GBF_XXH3_PRIME32_2 UINT64_C(0x85EBCA77)
#define GBF_XXH3_PRIME32_3 UINT64_C(0xC2B2AE3D)
#define GBF_XXH3_PRIME64_1 UINT64_C(0x9E3779B185EBCA87)
#define GBF_XXH3_PRIME64_2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define GBF_XXH3_PRIME64_3 UINT64_C(0x165667B19E3779F9)
#define GBF_XXH3_PRIME64_4 UINT64_C(0x85EBCA77C2B2AE63)
#define GBF_XXH3_PRIME64_5 UINT64_C(0x27D4EB2F165667C5)
#define GBF_XXH3_PRIME_MX1 UINT64_C(0x165667919E3779F9)
#define GBF_XXH3_PRIME_MX2 UINT64_C(0x9FB21C651E98DF25)

GBF_INLINE uint64_t gbf_xxh3_rotate64(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

/* Both halves of the 128-bit product, folded by xor. */
GBF_INLINE uint64_t gbf_xxh3_fold(uint64_t a, uint64_t b)
{
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

GBF_INLINE uint64_t gbf_xxh3_avalanche(uint64_t x)
{
    x = (x ^ x >> 37) * GBF_XXH3_PRIME_MX1;
    return x ^ x >> 32;
}

/* The stronger finish, shared with XXH64. */
GBF_INLINE uint64_t gbf_xxh3_avalanche64(uint64_t x)
{
    x = (x ^ x >> 33) * GBF_XXH3_PRIME64_2;
    x = (x ^ x >> 29) * GBF_XXH3_PRIME64_3;
    return x ^ x >> 32;
}

/* Two neighbouring words of the secret, folded by xor. */
GBF_INLINE uint64_t gbf_xxh3_secret_pair(const uint8_t *secret)
{
    return gbf_load64(secret) ^ gbf_load64(secret + 8);
}

/* 1..3 bytes, all of them and the length in one word. */
GBF_INLINE uint32_t gbf_xxh3_pack3(const uint8_t *p, uint64_t n)
{
    return (uint32_t)p[n - 1] | (uint32_t)n << 8 | (uint32_t)p[0] << 16 | (uint32_t)p[n >> 1] << 24;
}

GBF_INLINE uint64_t gbf_xxh3_spread_seed(uint64_t seed)
{
    return seed ^ (uint64_t)__builtin_bswap32((uint32_t)seed) << 32;
}

GBF_INLINE uint64_t gbf_xxh3_mix16(const uint8_t *p, const uint8_t *secret, uint64_t seed)
{
    return gbf_xxh3_fold(gbf_load64(p) ^ (gbf_load64(secret) + seed),
                         gbf_load64(p + 8) ^ (gbf_load64(secret + 8) - seed));
}

/* ---- 64 bits, 0..240 bytes ---- */

static inline uint64_t gbf_xxh3_64_upto16(const uint8_t *p, uint64_t n, const uint8_t *secret, uint64_t seed)
{
    if (n > 8) {
        uint64_t low = gbf_load64(p) ^ (gbf_xxh3_secret_pair(secret + 24) + seed);
        uint64_t high = gbf_load64(p + n - 8) ^ (gbf_xxh3_secret_pair(secret + 40) - seed);
        return gbf_xxh3_avalanche(n + __builtin_bswap64(low) + high + gbf_xxh3_fold(low, high));
    }
    if (n >= 4) {
        uint64_t both = (uint64_t)gbf_load32(p) << 32 | gbf_load32(p + n - 4);
        uint64_t x = both ^ (gbf_xxh3_secret_pair(secret + 8) - gbf_xxh3_spread_seed(seed));
        x = (x ^ gbf_xxh3_rotate64(x, 49) ^ gbf_xxh3_rotate64(x, 24)) * GBF_XXH3_PRIME_MX2;
        x = (x ^ ((x >> 35) + n)) * GBF_XXH3_PRIME_MX2;
        return x ^ x >> 28;
    }
    if (n > 0) {
        uint64_t mask = gbf_load32(secret) ^ gbf_load32(secret + 4);
        return gbf_xxh3_avalanche64((mask + seed) ^ gbf_xxh3_pack3(p, n));
    }
    return gbf_xxh3_avalanche64(seed ^ gbf_xxh3_secret_pair(secret + 56));
}

/* 17..128 bytes: chunks of 16 from both ends inwards until they meet. Sums commute, so the order is free here. */
static inline uint64_t gbf_xxh3_64_upto128(const uint8_t *p, uint64_t n, const uint8_t *secret, uint64_t seed)
{
    const uint8_t *end = p + n;
    uint64_t sum = n * GBF_XXH3_PRIME64_1;
    if (n > 32) {
        if (n > 64) {
            if (n > 96)
                sum += gbf_xxh3_mix16(p + 48, secret + 96, seed) + gbf_xxh3_mix16(end - 64, secret + 112, seed);
            sum += gbf_xxh3_mix16(p + 32, secret + 64, seed) + gbf_xxh3_mix16(end - 48, secret + 80, seed);
        }
        sum += gbf_xxh3_mix16(p + 16, secret + 32, seed) + gbf_xxh3_mix16(end - 32, secret + 48, seed);
    }
    sum += gbf_xxh3_mix16(p, secret, seed) + gbf_xxh3_mix16(end - 16, secret + 16, seed);
    return gbf_xxh3_avalanche(sum);
}

static inline uint64_t gbf_xxh3_64_upto240(const uint8_t *p, uint64_t n, const uint8_t *secret, uint64_t seed)
{
    uint64_t sum = n * GBF_XXH3_PRIME64_1;
    for (uint64_t at = 0; at < 128; at += 16)
        sum += gbf_xxh3_mix16(p + at, secret + at, seed);
    sum = gbf_xxh3_avalanche(sum);
    for (uint64_t at = 128; at + 16 <= n; at += 16)
        sum += gbf_xxh3_mix16(p + at, secret + at - 128 + 3, seed);
    sum += gbf_xxh3_mix16(p + n - 16, secret + GBF_XXH3_SECRET_MIN_BYTES - 17, seed);
    return gbf_xxh3_avalanche(sum);
}

static inline uint64_t gbf_xxh3_64_short(const uint8_t *p, uint64_t n, const uint8_t *secret, uint64_t seed)
{
    if (n <= 16)
        return gbf_xxh3_64_upto16(p, n, secret, seed);
    if (n <= 128)
        return gbf_xxh3_64_upto128(p, n, secret, seed);
    return gbf_xxh3_64_upto240(p, n, secret, seed);
}

/* ---- 128 bits, 0..240 bytes ---- */

static inline gbf_hash128 gbf_xxh3_128_upto16(const uint8_t *p, uint64_t n, const uint8_t *secret, uint64_t seed)
{
    if (n > 8) {
        uint64_t first = gbf_load64(p), last = gbf_load64(p + n - 8);
        uint64_t a = (gbf_xxh3_secret_pair(secret + 32) - seed) ^ first ^ last;
        uint64_t b = (gbf_xxh3_secret_pair(secret + 48) + seed) ^ last;
        __uint128_t product = (__uint128_t)a * GBF_XXH3_PRIME64_1;
        uint64_t low = (uint64_t)product + ((n - 1) << 54);
        uint64_t high = (uint64_t)(product >> 64) + b + (uint64_t)(uint32_t)b * (GBF_XXH3_PRIME32_2 - 1);
        product = (__uint128_t)(low ^ __builtin_bswap64(high)) * GBF_XXH3_PRIME64_2;
        high = (uint64_t)(product >> 64) + high * GBF_XXH3_PRIME64_2;
        return (gbf_hash128){gbf_xxh3_avalanche((uint64_t)product), gbf_xxh3_avalanche(high)};
    }
    if (n >= 4) {
        uint64_t both = gbf_load32(p) | (uint64_t)gbf_load32(p + n - 4) << 32;
        uint64_t x = both ^ (gbf_xxh3_secret_pair(secret + 16) + gbf_xxh3_spread_seed(seed));
        __uint128_t product = (__uint128_t)x * (GBF_XXH3_PRIME64_1 + (n << 2));
        uint64_t low = (uint64_t)product;
        uint64_t high = (uint64_t)(product >> 64) + (low << 1);
        low ^= high >> 3;
        low = (low ^ low >> 35) * GBF_XXH3_PRIME_MX2;
        return (gbf_hash128){low ^ low >> 28, gbf_xxh3_avalanche(high)};
    }
    if (n > 0) {
        uint32_t packed = gbf_xxh3_pack3(p, n), swapped = __builtin_bswap32(packed);
        uint64_t low = (uint64_t)(gbf_load32(secret) ^ gbf_load32(secret + 4)) + seed;
        uint64_t high = (uint64_t)(gbf_load32(secret + 8) ^ gbf_load32(secret + 12)) - seed;
        uint32_t rotated = swapped << 13 | swapped >> 19;
        return (gbf_hash128){gbf_xxh3_avalanche64(low ^ packed), gbf_xxh3_avalanche64(high ^ rotated)};
    }
    return (gbf_hash128){gbf_xxh3_avalanche64(seed ^ gbf_xxh3_secret_pair(secret + 64)),
                         gbf_xxh3_avalanche64(seed ^ gbf_xxh3_secret_pair(secret + 80))};
}

/* Two chunks of 16 bytes into both sums: each is multiplied into one and added to the other. */
GBF_INLINE gbf_hash128 gbf_xxh3_mix32(gbf_hash128 sum, const uint8_t *a, const uint8_t *b, const uint8_t *secret,
                                      uint64_t seed)
{
    sum.low = (sum.low + gbf_xxh3_mix16(a, secret, seed)) ^ (gbf_load64(b) + gbf_load64(b + 8));
    sum.high = (sum.high + gbf_xxh3_mix16(b, secret + 16, seed)) ^ (gbf_load64(a) + gbf_load64(a + 8));
    return sum;
}

GBF_INLINE gbf_hash128 gbf_xxh3_finish240(gbf_hash128 sum, uint64_t n, uint64_t seed)
{
    uint64_t high = sum.low * GBF_XXH3_PRIME64_1 + sum.high * GBF_XXH3_PRIME64_4 + (n - seed) * GBF_XXH3_PRIME64_2;
    return (gbf_hash128){gbf_xxh3_avalanche(sum.low + sum.high), 0 - gbf_xxh3_avalanche(high)};
}

static inline gbf_hash128 gbf_xxh3_128_upto128(const uint8_t *p, uint64_t n, const uint8_t *secret, uint64_t seed)
{
    const uint8_t *end = p + n;
    gbf_hash128 sum = {n * GBF_XXH3_PRIME64_1, 0};
    if (n > 32) {
        if (n > 64) {
            if (n > 96)
                sum = gbf_xxh3_mix32(sum, p + 48, end - 64, secret + 96, seed);
            sum = gbf_xxh3_mix32(sum, p + 32, end - 48, secret + 64, seed);
        }
        sum = gbf_xxh3_mix32(sum, p + 16, end - 32, secret + 32, seed);
    }
    sum = gbf_xxh3_mix32(sum, p, end - 16, secret, seed);
    return gbf_xxh3_finish240(sum, n, seed);
}

static inline gbf_hash128 gbf_xxh3_128_upto240(const uint8_t *p, uint64_t n, const uint8_t *secret, uint64_t seed)
{
    gbf_hash128 sum = {n * GBF_XXH3_PRIME64_1, 0};
    for (uint64_t at = 0; at < 128; at += 32)
        sum = gbf_xxh3_mix32(sum, p + at, p + at + 16, secret + at, seed);
    sum.low = gbf_xxh3_avalanche(sum.low);
    sum.high = gbf_xxh3_avalanche(sum.high);
    for (uint64_t at = 128; at + 32 <= n; at += 32)
        sum = gbf_xxh3_mix32(sum, p + at, p + at + 16, secret + at - 128 + 3, seed);
    sum = gbf_xxh3_mix32(sum, p + n - 16, p + n - 32, secret + GBF_XXH3_SECRET_MIN_BYTES - 33, 0 - seed);
    return gbf_xxh3_finish240(sum, n, seed);
}

static inline gbf_hash128 gbf_xxh3_128_short(const uint8_t *p, uint64_t n, const uint8_t *secret, uint64_t seed)
{
    if (n <= 16)
        return gbf_xxh3_128_upto16(p, n, secret, seed);
    if (n <= 128)
        return gbf_xxh3_128_upto128(p, n, secret, seed);
    return gbf_xxh3_128_upto240(p, n, secret, seed);
}

/* ---- any length ---- */

/* Hash of `nbytes` bytes with a seed (0: none), the default secret and the best kernel. */
static inline uint64_t gbf_xxh3_64(const void *data, uint64_t nbytes, uint64_t seed)
{
    if (GBF_LIKELY(nbytes <= GBF_XXH3_SHORT_BYTES))
        return gbf_xxh3_64_short(data, nbytes, gbf_xxh3_secret, seed);
    return gbf_xxh3_64_seeded(data, nbytes, seed);
}

static inline gbf_hash128 gbf_xxh3_128(const void *data, uint64_t nbytes, uint64_t seed)
{
    if (GBF_LIKELY(nbytes <= GBF_XXH3_SHORT_BYTES))
        return gbf_xxh3_128_short(data, nbytes, gbf_xxh3_secret, seed);
    return gbf_xxh3_128_seeded(data, nbytes, seed);
}

/* Hash of `nbytes` bytes with a key. */
static inline uint64_t gbf_xxh3_64_keyed(const gbf_xxh3_key *key, const void *data, uint64_t nbytes)
{
    if (GBF_LIKELY(nbytes <= GBF_XXH3_SHORT_BYTES))
        return gbf_xxh3_64_short(data, nbytes, key->short_secret, key->seed);
    return gbf_xxh3_64_long(key, data, nbytes);
}

static inline gbf_hash128 gbf_xxh3_128_keyed(const gbf_xxh3_key *key, const void *data, uint64_t nbytes)
{
    if (GBF_LIKELY(nbytes <= GBF_XXH3_SHORT_BYTES))
        return gbf_xxh3_128_short(data, nbytes, key->short_secret, key->seed);
    return gbf_xxh3_128_long(key, data, nbytes);
}

#endif
