/* The address parsers of the vector kernels. They accept what gbf_addr_parse accepts and give the same address: the
 * common shapes here, without a branch per character, and everything else (dotted tails, zone ids) by calling it.
 *
 * Include only under a target that has SSSE3, SSE4.1 and popcnt (GBF_KERNEL_V2); GBF_KERNEL_AVX512
 * (with VBMI and VBMI2) has a parser of its own for IPv6. */
#ifndef GBF_ADDR_FAST_H
#define GBF_ADDR_FAST_H

#include <immintrin.h>

#include "address/gbf_addr.h"

/* text[0..n) in a register, zero above; 7 <= n <= 15. Reads nothing outside the text. */
GBF_INLINE __m128i load_short(const char *text, size_t n)
{
#if defined(GBF_KERNEL_AVX512)
    return _mm_maskz_loadu_epi8((__mmask16)((1u << n) - 1), text);
#else
    if (GBF_LIKELY(n >= 8)) {
        uint64_t last = gbf_load64(text + n - 8); /* overlaps the first eight bytes by 16 - n */
        uint64_t high = n == 8 ? 0 : last >> (8 * (16 - n));
        return _mm_set_epi64x((int64_t)high, (int64_t)gbf_load64(text));
    }
    return _mm_cvtsi64_si128((int64_t)((uint64_t)gbf_load32(text) | (uint64_t)gbf_load32(text + 3) << 24));
#endif
}

/* Dotted quad. Each octet is moved, right-aligned, to a 4-byte lane [0, hundreds, tens, ones]; all checks and the
 * conversion then run on the four lanes at once. */
GBF_INLINE int parse4_fast(const char *text, size_t n, uint32_t *out)
{
    if (n - 7 > 8)
        return 0;
    __m128i chars = load_short(text, n);
    uint32_t stops = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(chars, _mm_set1_epi8('.'))) | 1u << n;
    if (__builtin_popcount(stops) != 4)
        return 0;
    uint32_t s2 = stops & (stops - 1), s3 = s2 & (s2 - 1), s4 = s3 & (s3 - 1);
    uint32_t ends = (uint32_t)__builtin_ctz(stops) | (uint32_t)__builtin_ctz(s2) << 8 |
                    (uint32_t)__builtin_ctz(s3) << 16 | (uint32_t)__builtin_ctz(s4) << 24;
    uint32_t starts = (ends << 8) + 0x01010100u; /* the first starts at 0, the others after a dot */

    const __m128i spread = _mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m128i back = _mm_set1_epi32((int)0xFFFEFDFCu); /* -4, -3, -2, -1 */
    __m128i from = _mm_add_epi8(_mm_shuffle_epi8(_mm_cvtsi32_si128((int)ends), spread), back);
    __m128i start = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)starts), spread);
    __m128i outside = _mm_cmpgt_epi8(start, from); /* this lane byte lies before its octet */
    uint32_t absent = (uint32_t)_mm_movemask_epi8(outside);
    __m128i digits = _mm_shuffle_epi8(_mm_sub_epi8(chars, _mm_set1_epi8('0')), _mm_or_si128(from, outside));

    uint32_t nonzero = (uint32_t)_mm_movemask_epi8(_mm_cmpgt_epi8(digits, _mm_setzero_si128()));
    uint32_t present = ~absent & 0xFFFF, leading = present & ~(present << 1);
    __m128i pairs = _mm_maddubs_epi16(digits, _mm_set1_epi32(0x010A6400)); /* 100 h, 10 t + o */
    __m128i octets = _mm_madd_epi16(pairs, _mm_set1_epi16(1));
    const __m128i nine = _mm_set1_epi8(9);
    __m128i all_digits = _mm_cmpeq_epi8(_mm_max_epu8(digits, nine), nine);
    __m128i sound = _mm_andnot_si128(_mm_cmpgt_epi32(octets, _mm_set1_epi32(255)), all_digits);
    uint32_t wrong = (absent & 0x9999) ^ 0x1111;          /* an octet of no digit, or of four */
    wrong |= leading & 0x6666 & ~nonzero;                 /* a leading zero */
    wrong |= (uint32_t)_mm_movemask_epi8(sound) ^ 0xFFFF; /* not digits, or above 255 */
    __m128i bytes =
        _mm_shuffle_epi8(octets, _mm_setr_epi8(12, 8, 4, 0, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
    *out = (uint32_t)_mm_cvtsi128_si32(bytes);
    return wrong == 0;
}

#define GBF_ADDR6_CHARS 39 /* eight groups of four and seven colons */

#if defined(GBF_KERNEL_AVX512)

/* IPv6 of hex groups only; 0 also for "::" alone and for the rarer shapes that gbf_addr_parse knows. As for dotted quads: the
 * colons and the end give the ends of the groups (vpcompressb), each group is moved, right-aligned, to four bytes,
 * and the groups behind "::", which is a group of no digits here, are moved to the end (vpexpandb). */
GBF_INLINE int parse6_fast(const char *text, size_t n, gbf_addr *out)
{
    if (n - 3 > GBF_ADDR6_CHARS - 3)
        return 0;
    uint64_t present = (UINT64_C(1) << n) - 1;
    __m512i chars = _mm512_maskz_loadu_epi8(present, text);
    uint64_t colons = _mm512_cmpeq_epi8_mask(chars, _mm512_set1_epi8(':'));
    __m512i digit = _mm512_sub_epi8(chars, _mm512_set1_epi8('0'));
    __m512i letter = _mm512_sub_epi8(_mm512_or_si512(chars, _mm512_set1_epi8(0x20)), _mm512_set1_epi8('a'));
    uint64_t digits = _mm512_cmplt_epu8_mask(digit, _mm512_set1_epi8(10));
    uint64_t letters = _mm512_cmplt_epu8_mask(letter, _mm512_set1_epi8(6));
    __m512i nibbles = _mm512_mask_add_epi8(digit, letters, letter, _mm512_set1_epi8(10));

    uint64_t gaps = colons & colons >> 1;                        /* bit i: "::" at i */
    uint64_t leading = gaps & 1, trailing = gaps >> (n - 2) & 1; /* there one of its colons ends no group */
    uint64_t stops = (colons & ~leading) | (trailing ^ 1) << n;
    int groups = __builtin_popcountll(stops);
    uint32_t live = (uint32_t)((UINT64_C(1) << groups) - 1);
    __m512i places = _mm512_set_epi8(63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43,
                                     42, 41, 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22,
                                     21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m128i ends = _mm512_castsi512_si128(_mm512_maskz_compress_epi8(stops, places));
    __m128i starts =
        _mm_add_epi8(_mm_bslli_si128(ends, 1), _mm_setr_epi8(0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1));
    starts = _mm_add_epi8(starts, _mm_cvtsi64_si128((int64_t)leading));
    __m128i lengths = _mm_sub_epi8(ends, starts);
    uint32_t empty = live & _mm_cmpeq_epi8_mask(lengths, _mm_setzero_si128());
    uint32_t wrong = live & _mm_cmpgt_epi8_mask(lengths, _mm_set1_epi8(4));

    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6,
                                            6, 6, 6, 7, 7, 7, 7);
    const __m256i back = _mm256_set1_epi32((int)0xFFFEFDFCu); /* -4, -3, -2, -1 */
    __m256i from = _mm256_add_epi8(_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(ends), spread), back);
    __m256i start = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(starts), spread);
    __mmask32 inside = _mm256_cmpge_epi8_mask(from, start);
    __m256i moved =
        _mm512_castsi512_si256(_mm512_maskz_permutexvar_epi8(inside, _mm512_castsi256_si512(from), nibbles));
    __m128i bytes = _mm256_cvtepi16_epi8(_mm256_maddubs_epi16(moved, _mm256_set1_epi16(0x0110))); /* 16 high + low */

    uint32_t front = 2 * (uint32_t)__builtin_ctz(empty | 0x80) + 2, behind = front + 2 * (8 - (uint32_t)groups);
    bytes = _mm_maskz_expand_epi8((__mmask16)(((1u << front) - 1) | 0xFFFFu << (behind & 31)), bytes);
    *out = (gbf_addr){__builtin_bswap64((uint64_t)_mm_cvtsi128_si64(bytes)),
                      __builtin_bswap64((uint64_t)_mm_extract_epi64(bytes, 1))};
    uint32_t gap_count = (uint32_t)__builtin_popcountll(gaps);
    wrong |= (uint32_t)((colons | digits | letters) != present);
    wrong |= (uint32_t)(groups > 8) | (uint32_t)(gap_count > 1) |
             (uint32_t)((uint32_t)__builtin_popcount(empty) != gap_count);
    return (wrong | (uint32_t)(gap_count == 0 && groups != 8)) == 0;
}

#else

/* Hex digits of 16 characters as values 0..15; bit i of *colons and *bad for ':' and for anything else. */
GBF_INLINE __m128i hex_block(__m128i chars, uint64_t *colons, uint64_t *bad, int at)
{
    __m128i digit = _mm_sub_epi8(chars, _mm_set1_epi8('0'));
    __m128i letter = _mm_sub_epi8(_mm_or_si128(chars, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
    __m128i is_digit = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
    __m128i is_letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(5)), letter);
    __m128i is_colon = _mm_cmpeq_epi8(chars, _mm_set1_epi8(':'));
    uint64_t colon = (uint64_t)(uint32_t)_mm_movemask_epi8(is_colon);
    uint64_t fine = (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(is_digit, is_letter), is_colon));
    *colons |= colon << at;
    *bad |= (~fine & 0xFFFF) << at;
    return _mm_or_si128(_mm_and_si128(is_digit, digit),
                        _mm_and_si128(is_letter, _mm_add_epi8(letter, _mm_set1_epi8(10))));
}

/* Up to four nibble bytes that end at `end` as a 16-bit group. */
GBF_INLINE uint32_t hex_group(const uint8_t *end, uint32_t length)
{
    uint32_t x = gbf_load32(end - 4) >> (8 * (4 - length)) << (8 * (4 - length)); /* bytes before the group: 0 */
    x = (x << 4 & 0x00F000F0) | (x >> 8 & 0x000F000F);
    return (x << 8 & 0xFF00) | x >> 16;
}

/* IPv6 of hex groups only; 0 also for the rarer shapes that gbf_addr_parse knows. */
GBF_INLINE int parse6_fast(const char *text, size_t n, gbf_addr *out)
{
    if (n - 2 > GBF_ADDR6_CHARS - 2)
        return 0;
    uint8_t nibbles[4 + 48]; /* 4 in front for the load that ends at the first group's end */
    uint64_t colons = 0, bad = 0;
    char copy[48] = {0};
    memcpy(copy, text, n);
    for (int at = 0; at < 48; at += 16) {
        __m128i chars = _mm_loadu_si128((const __m128i *)(copy + at));
        _mm_storeu_si128((__m128i *)(nibbles + 4 + at), hex_block(chars, &colons, &bad, at));
    }
    uint64_t present = (UINT64_C(1) << n) - 1;
    memset(nibbles, 0, 4);
    if (bad & present)
        return 0;
    uint64_t pairs = colons & colons >> 1; /* bit i: "::" at i */
    if (pairs & (pairs - 1))               /* a second "::", or ":::" */
        return 0;
    uint32_t gap = pairs ? (uint32_t)__builtin_ctzll(pairs) : 0xFF;

    uint64_t stops = colons | UINT64_C(1) << n;
    uint32_t first = 0, groups = 0, before = 0; /* before: groups in front of "::" */
    gbf_u128 number = 0;
    while (stops) {
        uint32_t end = (uint32_t)__builtin_ctzll(stops);
        stops &= stops - 1;
        uint32_t length = end - first;
        if (length == 0) { /* only around "::": its first colon at the very start, its second, or the end after it */
            if (end != gap + 1 && !(end == 0 && gap == 0) && !(end == n && gap + 2 == n))
                return 0;
        } else {
            if (length > 4)
                return 0;
            number = number << 16 | hex_group(nibbles + 4 + end, length);
            groups++;
        }
        if (end == gap)
            before = groups;
        first = end + 1;
    }
    if (gap == 0xFF) {
        if (groups != 8)
            return 0;
    } else {
        if (groups > 7)
            return 0;
        uint32_t after = 16 * (groups - before); /* bits behind the gap */
        gbf_u128 tail = after == 0 ? 0 : number & (~(gbf_u128)0 >> (128 - after));
        gbf_u128 head = before == 0 ? 0 : number >> after << (16 * (8 - before));
        number = head | tail;
    }
    *out = gbf_addr_of(number);
    return 1;
}

#endif

GBF_INLINE int parse_fast(const char *text, size_t n, gbf_addr *out)
{
    uint32_t v4;
    if (parse4_fast(text, n, &v4)) {
        *out = gbf_addr_from4(v4);
        return 1;
    }
    return parse6_fast(text, n, out) || gbf_addr_parse(text, n, out);
}

#endif
