/* Sixty-four bytes at a time; masked loads never touch a byte past the name. Classes as in gbf_name_v2.c. */
#if defined(__x86_64__)
#include "base/gbf_target.h"
#include "name/gbf_name.h"

GBF_TARGET_BEGIN("avx512f,avx512bw,avx512vl")

int gbf_name_fold_avx512(gbf_name *name, const uint8_t *text, uint64_t nbytes)
{
    const __m512i by_low =
        _mm512_broadcast_i32x4(_mm_setr_epi8(10 | 16, 14 | 16, 14 | 16, 14 | 16, 14 | 16, 14 | 16, 14 | 16, 14 | 16,
                                             14 | 16, 14 | 16, 12 | 16, 4, 4, 5, 5, 12));
    const __m512i by_high = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 1, 2, 4, 8, 4, 16, 0, 0, 0, 0, 0, 0, 0, 0));
    const __m512i half = _mm512_set1_epi8(15);
    uint64_t bad = 0;
    name->dots[1] = name->dots[2] = name->dots[3] = 0;
    for (uint64_t at = 0; at < nbytes; at += 64) {
        uint64_t rest = nbytes - at;
        __mmask64 mask = rest >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << rest) - 1;
        __m512i bytes = _mm512_maskz_loadu_epi8(mask, text + at);
        __m512i low = _mm512_shuffle_epi8(by_low, _mm512_and_si512(bytes, half));
        __m512i high = _mm512_shuffle_epi8(by_high, _mm512_and_si512(_mm512_srli_epi16(bytes, 4), half));
        bad |= _mm512_mask_testn_epi8_mask(mask, low, high);
        __mmask64 upper = _mm512_cmplt_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8('A')), _mm512_set1_epi8(26));
        _mm512_storeu_si512(name->text + at, _mm512_mask_add_epi8(bytes, upper, bytes, _mm512_set1_epi8(32)));
        name->dots[at >> 6] = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('.'));
    }
    return bad == 0;
}

GBF_TARGET_END
#endif
