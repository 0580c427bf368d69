/* The lookups of gbf_set_kernel, written once and compiled once for each instruction set: gbf_set_<isa>.c sets the
 * target and GBF_KERNEL_* and includes this file. The address parser and the end of each search differ by target. */
#include "address/gbf_set.h"

#if defined(GBF_KERNEL_V2)
#include "address/gbf_addr_fast.h"
#endif

/* Bounds that one comparison takes. */
#if defined(GBF_KERNEL_AVX512)
#define WINDOW16 32u
#define WINDOW64 8u
#elif defined(GBF_KERNEL_V2)
#define WINDOW16 16u
#define WINDOW64 0u
#else
#define WINDOW16 0u
#define WINDOW64 0u
#endif

#if defined(GBF_KERNEL_V2)

/* How many of the `n` (at most WINDOW16) bounds are at or below `key`. */
GBF_INLINE uint32_t compare16(const uint16_t *bounds, uint32_t n, uint32_t key)
{
#if defined(GBF_KERNEL_AVX512)
    __mmask32 live = _bzhi_u32(UINT32_MAX, n);
    __m512i window = _mm512_maskz_loadu_epi16(live, bounds);
    return (uint32_t)__builtin_popcount(_mm512_mask_cmple_epu16_mask(live, window, _mm512_set1_epi16((int16_t)key)));
#else
    const __m128i keys = _mm_set1_epi16((int16_t)key); /* loads up to GBF_SET_PAD bounds too many */
    __m128i first = _mm_loadu_si128((const __m128i *)bounds), second = _mm_loadu_si128((const __m128i *)(bounds + 8));
    first = _mm_cmpeq_epi16(_mm_min_epu16(first, keys), first);
    second = _mm_cmpeq_epi16(_mm_min_epu16(second, keys), second);
    uint32_t below = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(first, second));
    return (uint32_t)__builtin_popcount(below & ((1u << n) - 1));
#endif
}

#endif

/* How many of `n` ascending bounds are at or below `key`. In a long bucket the window is first put where the key would be
 * if the bounds were spread evenly: one line to fetch, where halving waits for one after the other. Only when the key is
 * not in it are the bounds on its side halved. */
GBF_INLINE uint32_t rank16(const uint16_t *bounds, uint32_t n, uint32_t key)
{
    const uint16_t *at = bounds;
#if defined(GBF_KERNEL_V2)
    if (n > WINDOW16) {
        uint32_t guess = (uint32_t)((uint64_t)key * n >> 16), first = guess > WINDOW16 / 2 ? guess - WINDOW16 / 2 : 0;
        first = first < n - WINDOW16 ? first : n - WINDOW16;
        uint32_t rank = compare16(bounds + first, WINDOW16, key);
        if (rank == 0) {
            n = first;
        } else if (rank == WINDOW16) {
            at += first + WINDOW16;
            n -= first + WINDOW16;
        } else {
            return first + rank;
        }
    }
#endif
    while (n > WINDOW16) {
        uint32_t half = (n + 1) / 2;
        at += at[half - 1] <= key ? half : 0;
        n -= half;
    }
    uint32_t rank = (uint32_t)(at - bounds);
#if defined(GBF_KERNEL_V2)
    rank += compare16(at, n, key);
#endif
    return rank;
}

GBF_INLINE uint64_t rank64(const uint64_t *bounds, uint64_t n, uint64_t key)
{
    const uint64_t *at = bounds;
    while (n > WINDOW64) {
        uint64_t half = (n + 1) / 2;
        at += at[half - 1] <= key ? half : 0;
        n -= half;
    }
    uint64_t rank = (uint64_t)(at - bounds);
#if defined(GBF_KERNEL_AVX512)
    __mmask8 live = (__mmask8)_bzhi_u32(UINT32_MAX, (uint32_t)n);
    __m512i window = _mm512_maskz_loadu_epi64(live, at);
    rank += (uint32_t)__builtin_popcount(_mm512_mask_cmple_epu64_mask(live, window, _mm512_set1_epi64((int64_t)key)));
#endif
    return rank;
}

GBF_INLINE int covers4(const gbf_set *s, uint32_t address)
{
    uint32_t first = s->index4[address >> 16], end = s->index4[(address >> 16) + 1];
    return (int)((first + rank16(s->bounds4 + first, end - first, address & 0xFFFF)) & 1);
}

/* Bounds at or below `address` among the first `n`, both halves compared. */
static uint64_t rank128(const gbf_set *s, uint64_t n, gbf_addr address)
{
    uint64_t at = 0;
    while (n > 0) {
        uint64_t half = (n + 1) / 2, high = s->high6[at + half - 1];
        int below = high < address.high || (high == address.high && s->low6[at + half - 1] <= address.low);
        at += below ? half : 0;
        n -= half;
    }
    return at;
}

static int covers6(const gbf_set *s, gbf_addr address)
{
    uint64_t groups = (s->count6 + GBF_SET_STRIDE - 1) / GBF_SET_STRIDE, group = rank64(s->top6, groups, address.high);
    if (group == 0)
        return 0;
    uint64_t first = (group - 1) * GBF_SET_STRIDE, left = s->count6 - first;
    uint64_t rank = first + rank64(s->high6 + first, left < GBF_SET_STRIDE ? left : GBF_SET_STRIDE, address.high);
    /* `rank` went by the upper half alone. The lower one matters when a bound in the address's own /64 lies above it. */
    if (s->low6 != NULL && s->high6[rank - 1] == address.high && s->low6[rank - 1] > address.low)
        rank = rank128(s, rank - 1, address);
    return (int)(rank & 1);
}

static int covers(const gbf_set *s, gbf_addr address)
{
    return gbf_addr_is4(address) ? covers4(s, (uint32_t)address.low) : covers6(s, address);
}

static int covers_text(const gbf_set *s, const char *text, size_t n)
{
    gbf_addr address;
#if defined(GBF_KERNEL_V2)
    uint32_t v4;
    if (GBF_LIKELY(parse4_fast(text, n, &v4)))
        return covers4(s, v4);
    if (!parse6_fast(text, n, &address) && !gbf_addr_parse(text, n, &address))
        return 0;
#else
    if (!gbf_addr_parse(text, n, &address))
        return 0;
#endif
    return covers(s, address);
}

static size_t covers4_many(const gbf_set *s, const uint32_t *addresses, size_t n, uint8_t *inside)
{
    enum { AHEAD = 16 };
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            uint32_t next = addresses[i + AHEAD], first = s->index4[next >> 16],
                     size = s->index4[(next >> 16) + 1] - first;
            GBF_PREFETCH(s->bounds4 + first + ((uint64_t)(next & 0xFFFF) * size >> 16));
        }
        inside[i] = (uint8_t)covers4(s, addresses[i]);
        found += inside[i];
    }
    return found;
}

static size_t covers16_many(const gbf_set *s, const uint8_t *packed, size_t n, uint8_t *inside)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        inside[i] = (uint8_t)covers(s, gbf_addr_load(packed + 16 * i));
        found += inside[i];
    }
    return found;
}

static size_t covers_text_many(const gbf_set *s, const char *const *texts, const uint32_t *lengths, size_t n,
                               uint8_t *inside)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        inside[i] = (uint8_t)covers_text(s, texts[i], lengths[i]);
        found += inside[i];
    }
    return found;
}

/* ---- verify -------------------------------------------------------------------------------------------------- */

GBF_INLINE uint32_t popcount128(gbf_u128 number)
{
    return (uint32_t)__builtin_popcountll((uint64_t)(number >> 64)) + (uint32_t)__builtin_popcountll((uint64_t)number);
}

/* Fewest prefixes that make up [first, end). Up to the address in between with the most low zeros they grow, one for
 * each set bit of the distance; from there on they shrink likewise. */
GBF_INLINE uint64_t prefixes_in(uint64_t first, uint64_t end)
{
    uint64_t middle = end >> (63 - __builtin_clzll(first ^ end)) << (63 - __builtin_clzll(first ^ end));
    return (uint64_t)__builtin_popcountll(middle - first) + (uint64_t)__builtin_popcountll(end - middle);
}

/* The same for 128 bits; end = 0 stands for 2^128. */
static uint64_t prefixes_in128(gbf_u128 first, gbf_u128 end)
{
    if (end == 0)
        return first == 0 ? 1 : popcount128(-first);
    gbf_u128 differ = first ^ end;
    uint64_t upper = (uint64_t)(differ >> 64), lower = (uint64_t)differ;
    int top = upper != 0 ? 127 - __builtin_clzll(upper) : 63 - __builtin_clzll(lower);
    gbf_u128 middle = end >> top << top;
    return popcount128(middle - first) + popcount128(end - middle);
}

static gbf_status verify4(gbf_set *s, gbf_fault *fault)
{
    const uint32_t *index = s->index4;
    uint64_t first = 0;
    if (index[0] != 0 || index[GBF_SET_BUCKETS] != s->count4)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "index does not span the IPv4 bounds", 0);
    for (uint64_t b = 0; b < GBF_SET_BUCKETS; b++)
        if (index[b] > index[b + 1])
            return gbf_refuse(fault, GBF_BAD_FORMAT, "index of the IPv4 bounds descends", b);
    uint64_t prefixes = 0;
    for (uint64_t b = 0; b < GBF_SET_BUCKETS; b++) {
        uint64_t before = 0; /* one more than the bound before in this bucket */
        for (uint32_t i = index[b]; i < index[b + 1]; i++) {
            if (s->bounds4[i] < before)
                return gbf_refuse(fault, GBF_BAD_FORMAT, "IPv4 bounds do not ascend", i);
            before = s->bounds4[i] + UINT64_C(1);
            uint64_t bound = b << 16 | s->bounds4[i];
            prefixes += i % 2 == 1 ? prefixes_in(first, bound) : 0;
            first = bound;
        }
    }
    s->prefix4s = prefixes + (s->count4 % 2 == 1 ? prefixes_in(first, UINT64_C(1) << 32) : 0);
    return GBF_OK;
}

static gbf_status verify6(gbf_set *s, gbf_fault *fault)
{
    gbf_u128 last = 0;
    s->prefix6s = 0;
    for (uint64_t i = 0; i < s->count6; i++) {
        gbf_u128 bound = gbf_addr_number((gbf_addr){s->high6[i], s->low6 == NULL ? 0 : s->low6[i]});
        if (i % GBF_SET_STRIDE == 0 && s->top6[i / GBF_SET_STRIDE] != s->high6[i])
            return gbf_refuse(fault, GBF_BAD_FORMAT, "index of the IPv6 bounds differs from them", i / GBF_SET_STRIDE);
        if (i > 0 && bound <= last)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "IPv6 bounds do not ascend", i);
        if (i % 2 == 1)
            s->prefix6s += prefixes_in128(last, bound);
        last = bound;
    }
    if (s->count6 % 2 == 1)
        s->prefix6s += prefixes_in128(last, 0);
    return GBF_OK;
}

static gbf_status verify(gbf_set *s, gbf_fault *fault)
{
    gbf_status status = verify4(s, fault);
    return status == GBF_OK ? verify6(s, fault) : status;
}
