/* Sixteen bytes at a time. Bytes are classed by the two-nibble table look-up of Langdale and Lemire (simdjson paper,
 * VLDB Journal 2019): a byte is a name character when the table of its low half and that of its high half share a bit. */
#if defined(__x86_64__)
#include "base/gbf_target.h"
#include "name/gbf_name.h"

GBF_TARGET_BEGIN("popcnt,ssse3,sse4.1")

/* text[0..nbytes), nbytes 1..15, in the low bytes of a vector; reads nothing else. */
static __m128i load_short(const uint8_t *text, uint64_t nbytes)
{
    uint64_t low = 0, high = 0;
    if (nbytes >= 8) {
        low = gbf_load64(text);
        high = nbytes == 8 ? 0 : gbf_load64(text + nbytes - 8) >> (8 * (16 - nbytes));
    } else if (nbytes >= 4) {
        low = gbf_load32(text) | (uint64_t)gbf_load32(text + nbytes - 4) << (8 * (nbytes - 4));
    } else {
        low = (uint64_t)text[0] | (uint64_t)text[nbytes / 2] << (8 * (nbytes / 2)) |
              (uint64_t)text[nbytes - 1] << (8 * (nbytes - 1));
    }
    return _mm_set_epi64x((long long)high, (long long)low);
}

/* Stores 16 lower-case bytes; *dots gets their dots, and the bits of bytes that are no name characters come back. */
static uint32_t fold16(uint8_t *out, __m128i bytes, uint32_t *dots)
{
    const __m128i by_low = _mm_setr_epi8(10 | 16, 14 | 16, 14 | 16, 14 | 16, 14 | 16, 14 | 16, 14 | 16, 14 | 16,
                                         14 | 16, 14 | 16, 12 | 16, 4, 4, 5, 5, 12);
    const __m128i by_high = _mm_setr_epi8(0, 0, 1, 2, 4, 8, 4, 16, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i half = _mm_set1_epi8(15);
    __m128i low = _mm_shuffle_epi8(by_low, _mm_and_si128(bytes, half));
    __m128i high = _mm_shuffle_epi8(by_high, _mm_and_si128(_mm_srli_epi16(bytes, 4), half));
    __m128i bad = _mm_cmpeq_epi8(_mm_and_si128(low, high), _mm_setzero_si128());
    __m128i upper =
        _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8('A' - 1)), _mm_cmplt_epi8(bytes, _mm_set1_epi8('Z' + 1)));
    _mm_storeu_si128((__m128i *)out, _mm_add_epi8(bytes, _mm_and_si128(upper, _mm_set1_epi8(32))));
    *dots = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('.')));
    return (uint32_t)_mm_movemask_epi8(bad);
}

int gbf_name_fold_v2(gbf_name *name, const uint8_t *text, uint64_t nbytes)
{
    uint64_t all[4] = {0, 0, 0, 0};
    uint32_t bad = 0, dots;
    uint64_t at = 0;
    for (; at + 16 <= nbytes; at += 16) {
        bad |= fold16(name->text + at, _mm_loadu_si128((const __m128i *)(text + at)), &dots);
        all[at >> 6] |= (uint64_t)dots << (at & 63);
    }
    if (at < nbytes) {
        bad |= fold16(name->text + at, load_short(text + at, nbytes - at), &dots) & ((1u << (nbytes - at)) - 1);
        all[at >> 6] |= (uint64_t)dots << (at & 63);
    }
    memcpy(name->dots, all, sizeof all);
    return bad == 0;
}

GBF_TARGET_END
#endif
