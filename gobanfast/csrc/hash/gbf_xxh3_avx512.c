#if defined(__x86_64__)
#include "base/gbf_target.h"
#include "hash/gbf_xxh3_lanes.h"

GBF_TARGET_BEGIN("avx512f")

enum { STRIPES = (GBF_XXH3_SECRET_BYTES - 64) / 8, BLOCK = 64 * STRIPES };

/* All eight lanes. `words` as in gbf_xxh3_avx2.c. */
typedef struct {
    __m512i products, words;
} state;

GBF_INLINE state accumulate(state s, const uint8_t *data, __m512i secret)
{
    __m512i word = _mm512_loadu_si512(data);
    __m512i masked = _mm512_xor_si512(word, secret);
    __m512i upper = _mm512_shuffle_epi32(masked, _MM_PERM_DDBB);
    s.products = _mm512_add_epi64(s.products, _mm512_mul_epu32(masked, upper));
    s.words = _mm512_add_epi64(s.words, word);
    return s;
}

GBF_INLINE __m512i whole(state s)
{
    return _mm512_add_epi64(s.products, _mm512_shuffle_epi32(s.words, _MM_PERM_BADC));
}

GBF_INLINE state scramble(state s, __m512i secret)
{
    __m512i prime = _mm512_set1_epi64((long long)GBF_XXH3_PRIME32_1);
    __m512i x = whole(s);
    x = _mm512_xor_si512(_mm512_xor_si512(x, _mm512_srli_epi64(x, 47)), secret);
    __m512i upper = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), prime);
    s.products = _mm512_add_epi64(_mm512_mul_epu32(x, prime), _mm512_slli_epi64(upper, 32));
    s.words = _mm512_setzero_si512();
    return s;
}

static __attribute__((noinline)) void lanes_wide(uint64_t lanes[8], const uint8_t *data, uint64_t nbytes,
                                                 const uint8_t *secret)
{
    gbf_xxh3_cut cut = gbf_xxh3_cut_up(nbytes, GBF_XXH3_SECRET_BYTES);
    const uint8_t *p = data;
    state s = {_mm512_loadu_si512(gbf_xxh3_start), _mm512_setzero_si512()};
    if (cut.blocks > 0) {
        __m512i kept[STRIPES + 1];
#pragma GCC unroll 17
        for (int i = 0; i <= STRIPES; i++)
            kept[i] = _mm512_loadu_si512(secret + 8 * i);
        for (uint64_t block = 0; block < cut.blocks; block++, p += BLOCK) {
#pragma GCC unroll 16
            for (int i = 0; i < STRIPES; i++)
                s = accumulate(s, p + 64 * i, kept[i]);
            s = scramble(s, kept[STRIPES]);
        }
    }
#pragma GCC unroll 4
    for (uint64_t i = 0; i < cut.rest; i++, p += 64)
        s = accumulate(s, p, _mm512_loadu_si512(secret + 8 * i));
    s = accumulate(s, data + nbytes - 64, _mm512_loadu_si512(secret + GBF_XXH3_SECRET_BYTES - 71));
    _mm512_storeu_si512(lanes, whole(s));
}

/* Wide registers pay when there are enough of them to keep the secret of all 16 stripes of a block: every read of it
 * from memory straddles two cache lines. So this kernel takes inputs of a block or more with a secret of the usual size,
 * and leaves the others to AVX2, which was as fast or faster there. Figures: DESIGN.md, "XXH3". */
static void lanes_avx512(uint64_t lanes[8], const uint8_t *data, uint64_t nbytes, const uint8_t *secret,
                         uint64_t secret_bytes)
{
    if (nbytes < BLOCK || secret_bytes != GBF_XXH3_SECRET_BYTES)
        gbf_xxh3_lanes_avx2(lanes, data, nbytes, secret, secret_bytes);
    else
        lanes_wide(lanes, data, nbytes, secret);
}

GBF_TARGET_END

const gbf_xxh3_kernel gbf_xxh3_avx512 = {"avx512", GBF_CPU_AVX512, lanes_avx512};

#endif
