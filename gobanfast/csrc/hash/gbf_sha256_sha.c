/* SHA-256 with the SHA extensions of x86-64. One instruction makes two rounds from the halves (a,b,e,f) and (c,d,g,h)
 * of the state, so the state lives in those halves here. Source: Intel SDM volume 2, SHA256RNDS2 and SHA256MSG1/2. */
#include "hash/gbf_sha256.h"

#if defined(__x86_64__)

#include "base/gbf_cpu.h"

#include <immintrin.h>

#define SHA __attribute__((target("sha,ssse3,sse4.1")))
#define SHA_INLINE SHA GBF_INLINE

typedef struct {
    __m128i abef, cdgh, abef_before, cdgh_before;
    __m128i w[4]; /* the last sixteen words of the schedule */
} lane;

SHA_INLINE void enter(lane *l, const uint32_t state[8])
{
    __m128i dcba = _mm_loadu_si128((const __m128i *)state), hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1), efgh = _mm_shuffle_epi32(hgfe, 0x1B);
    l->abef = _mm_alignr_epi8(cdab, efgh, 8);
    l->cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
}

SHA_INLINE void leave(const lane *l, uint32_t state[8])
{
    __m128i feba = _mm_shuffle_epi32(l->abef, 0x1B), dchg = _mm_shuffle_epi32(l->cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

SHA_INLINE void load(lane *l, const uint8_t *block)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    for (int i = 0; i < 4; i++)
        l->w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * i)), big_endian);
    l->abef_before = l->abef;
    l->cdgh_before = l->cdgh;
}

/* Rounds 4g .. 4g+3; replaces the four words used by those sixteen rounds on, while any are still wanted. */
SHA_INLINE void four_rounds(lane *l, int g)
{
    __m128i *w = l->w, now = w[g % 4];
    __m128i wk = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(gbf_sha256_rounds + 4 * g)));
    l->cdgh = _mm_sha256rnds2_epu32(l->cdgh, l->abef, wk);
    l->abef = _mm_sha256rnds2_epu32(l->abef, l->cdgh, _mm_shuffle_epi32(wk, 0x0E));
    if (g < 12) {
        __m128i last = w[(g + 3) % 4];
        __m128i sum =
            _mm_add_epi32(_mm_sha256msg1_epu32(now, w[(g + 1) % 4]), _mm_alignr_epi8(last, w[(g + 2) % 4], 4));
        w[g % 4] = _mm_sha256msg2_epu32(sum, last);
    }
}

SHA_INLINE void add(lane *l)
{
    l->abef = _mm_add_epi32(l->abef, l->abef_before);
    l->cdgh = _mm_add_epi32(l->cdgh, l->cdgh_before);
}

SHA static void sha_one(uint32_t state[8], const uint8_t *blocks, uint32_t count)
{
    lane l;
    enter(&l, state);
    for (; count != 0; count--, blocks += GBF_SHA256_BLOCK) {
        load(&l, blocks);
#pragma GCC unroll 16
        for (int g = 0; g < 16; g++)
            four_rounds(&l, g);
        add(&l);
    }
    leave(&l, state);
}

SHA static void sha_two(uint32_t a[8], const uint8_t *blocks_a, uint32_t b[8], const uint8_t *blocks_b, uint32_t count)
{
    lane la, lb;
    enter(&la, a);
    enter(&lb, b);
    for (; count != 0; count--, blocks_a += GBF_SHA256_BLOCK, blocks_b += GBF_SHA256_BLOCK) {
        load(&la, blocks_a);
        load(&lb, blocks_b);
#pragma GCC unroll 16
        for (int g = 0; g < 16; g++) {
            four_rounds(&la, g);
            four_rounds(&lb, g);
        }
        add(&la);
        add(&lb);
    }
    leave(&la, a);
    leave(&lb, b);
}

const gbf_sha256_kernel gbf_sha256_sha = {"sha", GBF_CPU_V2 | GBF_CPU_SHA, sha_one, sha_two};

#endif
