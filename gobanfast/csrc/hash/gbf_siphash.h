/* SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the output of 128 bits
 * as in their reference implementation): a keyed hash that stays unpredictable for whoever sees hashes of texts he chose,
 * which XXH3 does not promise. Never allocates or fails; any number of threads. */
#ifndef GBF_SIPHASH_H
#define GBF_SIPHASH_H

#include "base/gbf_base.h"
#include "hash/gbf_xxh3.h" /* gbf_hash128 */

#define GBF_SIPHASH_KEY_BYTES 16u

typedef struct {
    uint64_t v[4];
} gbf_siphash_state;

GBF_INLINE void gbf_siphash_rounds(gbf_siphash_state *s, int rounds)
{
    uint64_t a = s->v[0], b = s->v[1], c = s->v[2], d = s->v[3];
    while (rounds-- > 0) {
        a += b;
        c += d;
        b = gbf_xxh3_rotate64(b, 13) ^ a;
        d = gbf_xxh3_rotate64(d, 16) ^ c;
        a = gbf_xxh3_rotate64(a, 32);
        c += b;
        a += d;
        b = gbf_xxh3_rotate64(b, 17) ^ c;
        d = gbf_xxh3_rotate64(d, 21) ^ a;
        c = gbf_xxh3_rotate64(c, 32);
    }
    *s = (gbf_siphash_state){{a, b, c, d}};
}

GBF_INLINE void gbf_siphash_word(gbf_siphash_state *s, uint64_t word)
{
    s->v[3] ^= word;
    gbf_siphash_rounds(s, 2);
    s->v[0] ^= word;
}

/* Hash of data[0..nbytes) under a secret key; `low` holds the first eight bytes of the reference's output. */
GBF_INLINE gbf_hash128 gbf_siphash128(const uint8_t key[GBF_SIPHASH_KEY_BYTES], const void *data, uint64_t nbytes)
{
    uint64_t k0 = gbf_load64(key), k1 = gbf_load64(key + 8), last = nbytes << 56;
    gbf_siphash_state s = {{k0 ^ UINT64_C(0x736F6D6570736575), k1 ^ UINT64_C(0x646F72616E646F6D) ^ 0xEE,
                            k0 ^ UINT64_C(0x6C7967656E657261), k1 ^ UINT64_C(0x7465646279746573)}};
    const uint8_t *at = data;
    for (uint64_t words = nbytes / 8; words > 0; words--, at += 8)
        gbf_siphash_word(&s, gbf_load64(at));
    for (uint64_t i = 0; i < nbytes % 8; i++)
        last |= (uint64_t)at[i] << (8 * i);
    gbf_siphash_word(&s, last);
    gbf_hash128 hash;
    s.v[2] ^= 0xEE;
    gbf_siphash_rounds(&s, 4);
    hash.low = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
    s.v[1] ^= 0xDD;
    gbf_siphash_rounds(&s, 4);
    hash.high = s.v[0] ^ s.v[1] ^ s.v[2] ^ s.v[3];
    return hash;
}

#endif
