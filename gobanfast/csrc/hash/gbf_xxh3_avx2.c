#if defined(__x86_64__)
#include "base/gbf_target.h"
#include "hash/gbf_xxh3_lanes.h"

GBF_TARGET_BEGIN("avx2")

/* Four of the eight lanes. Words of the input go to the neighbouring lane; they are summed in place (`words`) and
 * swapped once, when the products are needed whole: one shuffle less per stripe, and two short chains of additions. */
typedef struct {
    __m256i products, words;
} half;

GBF_INLINE __m256i load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

GBF_INLINE half accumulate(half h, const uint8_t *data, const uint8_t *secret)
{
    __m256i word = load(data);
    __m256i masked = _mm256_xor_si256(word, load(secret));
    __m256i upper = _mm256_shuffle_epi32(masked, _MM_SHUFFLE(3, 3, 1, 1));
    h.products = _mm256_add_epi64(h.products, _mm256_mul_epu32(masked, upper));
    h.words = _mm256_add_epi64(h.words, word);
    return h;
}

GBF_INLINE __m256i whole(half h)
{
    return _mm256_add_epi64(h.products, _mm256_shuffle_epi32(h.words, _MM_SHUFFLE(1, 0, 3, 2)));
}

GBF_INLINE half scramble(half h, const uint8_t *secret)
{
    __m256i prime = _mm256_set1_epi64x((long long)GBF_XXH3_PRIME32_1);
    __m256i x = whole(h);
    x = _mm256_xor_si256(_mm256_xor_si256(x, _mm256_srli_epi64(x, 47)), load(secret));
    __m256i upper = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), prime);
    h.products = _mm256_add_epi64(_mm256_mul_epu32(x, prime), _mm256_slli_epi64(upper, 32));
    h.words = _mm256_setzero_si256();
    return h;
}

void gbf_xxh3_lanes_avx2(uint64_t lanes[8], const uint8_t *data, uint64_t nbytes, const uint8_t *secret,
                         uint64_t secret_bytes)
{
    gbf_xxh3_cut cut = gbf_xxh3_cut_up(nbytes, secret_bytes);
    const uint8_t *last_secret = secret + secret_bytes - 64;
    const uint8_t *p = data;
    half a = {load(gbf_xxh3_start), _mm256_setzero_si256()};
    half b = {load(gbf_xxh3_start + 4), _mm256_setzero_si256()};
    for (uint64_t block = 0; block < cut.blocks; block++) {
#pragma GCC unroll 4
        for (uint64_t i = 0; i < cut.stripes; i++, p += 64) {
            a = accumulate(a, p, secret + 8 * i);
            b = accumulate(b, p + 32, secret + 8 * i + 32);
        }
        a = scramble(a, last_secret);
        b = scramble(b, last_secret + 32);
    }
#pragma GCC unroll 4
    for (uint64_t i = 0; i < cut.rest; i++, p += 64) {
        a = accumulate(a, p, secret + 8 * i);
        b = accumulate(b, p + 32, secret + 8 * i + 32);
    }
    a = accumulate(a, data + nbytes - 64, last_secret - 7);
    b = accumulate(b, data + nbytes - 32, last_secret + 25);
    _mm256_storeu_si256((__m256i *)lanes, whole(a));
    _mm256_storeu_si256((__m256i *)(lanes + 4), whole(b));
}

GBF_TARGET_END

const gbf_xxh3_kernel gbf_xxh3_avx2 = {"avx2", GBF_CPU_AVX2, gbf_xxh3_lanes_avx2};

#endif
