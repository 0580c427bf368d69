/* The lookups of gbf_lpm_kernel, written once and compiled once for each instruction set: gbf_lpm_<isa>.c sets the
 * target and GBF_KERNEL_* and includes this file. Only the address parser and the inner batch loops differ by target. */
#include "address/gbf_trie.h"

#include <stdlib.h>

#if defined(GBF_KERNEL_V2)
#include "address/gbf_addr_fast.h"
#endif

#define BLOCK 256 /* addresses in flight: 256 direct entries and node lines fit the first-level cache */
#define WIDE 512  /* of 16 bytes each; also what the walk of IPv6 keeps dense */
#define AHEAD 4   /* blocks between the addresses that are read and those that are asked for */

static int parse(const char *text, size_t n, gbf_addr *address)
{
#if defined(GBF_KERNEL_V2)
    return parse_fast(text, n, address);
#else
    return gbf_addr_parse(text, n, address);
#endif
}

static uint32_t find(const gbf_lpm *t, gbf_addr address)
{
    return gbf_addr_is4(address) ? gbf_trie_find4(&t->v4, (uint32_t)address.low) : gbf_trie_find6(&t->v6, address);
}

static uint32_t find_text(const gbf_lpm *t, const char *text, size_t n, gbf_addr *address)
{
#if defined(GBF_KERNEL_V2)
    uint32_t v4;
    if (parse4_fast(text, n, &v4)) {
        *address = gbf_addr_from4(v4);
        return gbf_trie_find4(&t->v4, v4);
    }
    if (!parse6_fast(text, n, address) && !gbf_addr_parse(text, n, address))
        return GBF_NONE;
#else
    if (!gbf_addr_parse(text, n, address))
        return GBF_NONE;
#endif
    return find(t, *address);
}

#if defined(GBF_KERNEL_AVX512)

/* One node step for 16 lanes: entries of the nodes at word `index`, slots 0..63. */
GBF_INLINE __m512i step16(const uint32_t *words, __m512i index, __m512i slot)
{
    const __m512i two = _mm512_set1_epi64(2), one = _mm512_set1_epi64(1);
    __m256i index_low = _mm512_castsi512_si256(index), index_high = _mm512_extracti64x4_epi64(index, 1);
    __m512i map_low = _mm512_i32gather_epi64(index_low, words, 4),
            map_high = _mm512_i32gather_epi64(index_high, words, 4);
    __m512i slot_low = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(slot));
    __m512i slot_high = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(slot, 1));
    map_low = _mm512_and_si512(map_low, _mm512_sub_epi64(_mm512_sllv_epi64(two, slot_low), one));
    map_high = _mm512_and_si512(map_high, _mm512_sub_epi64(_mm512_sllv_epi64(two, slot_high), one));
    __m256i rank_low = _mm512_cvtepi64_epi32(_mm512_popcnt_epi64(map_low));
    __m256i rank_high = _mm512_cvtepi64_epi32(_mm512_popcnt_epi64(map_high));
    __m512i rank = _mm512_inserti64x4(_mm512_castsi256_si512(rank_low), rank_high, 1);
    return _mm512_i32gather_epi32(_mm512_add_epi32(_mm512_add_epi32(index, rank), _mm512_set1_epi32(1)), words, 4);
}

/* Asks for the lines of `n` nodes. */
GBF_INLINE void prefetch_nodes(const uint32_t *words, const uint32_t *index, size_t n)
{
    for (size_t k = 0; k < n; k++)
        GBF_PREFETCH(words + index[k]);
}

/* Leaves of up to BLOCK IPv4 addresses: all direct entries first (their node lines prefetched), then the nodes. The block
 * to come is at `ahead`. */
static void block4(const gbf_trie *t, const uint32_t *addresses, size_t n, const uint32_t *ahead, uint32_t *leaves)
{
    const __m512i low31 = _mm512_set1_epi32(0x7FFFFFFF);
    const __m128i direct_shift = _mm_cvtsi32_si128((int)(32 - t->direct_bits));
    const __m128i key_shift = _mm_cvtsi32_si128((int)t->direct_bits);
    for (size_t i = 0; i < n; i += 16) {
        uint32_t index[16];
        __mmask16 live = n - i >= 16 ? 0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        __m512i address = _mm512_maskz_loadu_epi32(live, addresses + i);
        GBF_PREFETCH(ahead + i);
        __m512i entry = _mm512_i32gather_epi32(_mm512_srl_epi32(address, direct_shift), t->direct, 4);
        _mm512_mask_storeu_epi32(leaves + i, live, entry);
        _mm512_storeu_si512(index, _mm512_maskz_and_epi32(_mm512_movepi32_mask(entry), entry, low31));
        prefetch_nodes(t->words, index, 16);
    }
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 live = n - i >= 16 ? 0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        __m512i key = _mm512_sll_epi32(_mm512_maskz_loadu_epi32(live, addresses + i), key_shift);
        __m512i entry = _mm512_maskz_loadu_epi32(live, leaves + i);
        __mmask16 child;
        while ((child = _mm512_movepi32_mask(entry)) != 0) {
            __m512i next = step16(t->words, _mm512_maskz_and_epi32(child, entry, low31), _mm512_srli_epi32(key, 26));
            entry = _mm512_mask_mov_epi32(entry, child, next);
            key = _mm512_slli_epi32(key, 6);
        }
        _mm512_mask_storeu_epi32(leaves + i, live, entry);
    }
}

#else

/* Asks for the node line of a child entry. A leaf asks for the idle node: a branch here would be mispredicted every other
 * time, and the address of a leaf would evict something useful. */
GBF_INLINE void prefetch_node(const uint32_t *words, uint32_t entry)
{
    uint32_t child = (uint32_t)((int32_t)entry >> 31);
    GBF_PREFETCH(words + (entry & child & ~GBF_CHILD));
}

static void block4(const gbf_trie *t, const uint32_t *addresses, size_t n, const uint32_t *ahead, uint32_t *leaves)
{
    uint32_t down = 32 - t->direct_bits;
    for (size_t i = 0; i < n; i++) {
        uint32_t entry = t->direct[addresses[i] >> down];
        if (i % 16 == 0)
            GBF_PREFETCH(ahead + i);
        leaves[i] = entry;
        prefetch_node(t->words, entry);
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t entry = leaves[i], key = addresses[i] << t->direct_bits;
        uint32_t child = (uint32_t)((int32_t)entry >> 31);
        uint32_t next = gbf_trie_step(t->words, entry & child & ~GBF_CHILD, key >> 26);
        entry = (next & child) | (entry & ~child);
        while (GBF_UNLIKELY(entry & GBF_CHILD)) {
            key <<= 6;
            entry = gbf_trie_step(t->words, entry & ~GBF_CHILD, key >> 26);
        }
        leaves[i] = entry;
    }
}

#endif

static void find4_many(const gbf_lpm *t, const uint32_t *addresses, size_t n, uint32_t *leaves)
{
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t size = n - i < BLOCK ? n - i : BLOCK;
        const uint32_t *ahead = addresses + (n - i >= (AHEAD + 1) * BLOCK ? i + AHEAD * BLOCK : i);
        block4(&t->v4, addresses + i, size, ahead, leaves + i);
    }
}

#if defined(GBF_KERNEL_AVX512)

/* Addresses of a block on their way, dense: the bits still to be read, and lanes of (node or leaf | place in the block << 32). */
typedef struct {
    uint64_t key[WIDE + 8], lane[WIDE + 8], done[WIDE + 8];
    size_t open, finished;
} walk6;

/* Puts the leaves of 8 lanes among the finished and the children, with their keys, among the first `*still` open ones. */
GBF_INLINE void settle8(const gbf_trie *t, walk6 *w, size_t *still, __mmask8 live, __m512i lane, __m512i key)
{
    uint32_t node[8];
    __mmask8 child = _mm512_mask_test_epi64_mask(live, lane, _mm512_set1_epi64(GBF_CHILD));
    __mmask8 leaf = live & (__mmask8)~child;
    lane = _mm512_mask_andnot_epi64(lane, child, _mm512_set1_epi64(GBF_CHILD), lane);
    _mm512_storeu_si512(w->key + *still, _mm512_maskz_compress_epi64(child, key));
    _mm512_storeu_si512(w->lane + *still, _mm512_maskz_compress_epi64(child, lane));
    _mm512_storeu_si512(w->done + w->finished, _mm512_maskz_compress_epi64(leaf, lane));
    _mm256_storeu_si256((__m256i *)node, _mm512_maskz_cvtepi64_epi32(child, lane));
    prefetch_nodes(t->words, node, 8);
    *still += (size_t)__builtin_popcount(child);
    w->finished += (size_t)__builtin_popcount(leaf);
}

/* Walks the open IPv6 addresses level by level, 8 to a register: while one node line is being fetched, the others are worked
 * on. `rows` as for block16. */
GBF_INLINE void walk_on6(const gbf_trie *t, walk6 *w, const uint8_t *rows, int network_order)
{
    const __m512i two = _mm512_set1_epi64(2), one = _mm512_set1_epi64(1), node_bits = _mm512_set1_epi64(0xFFFFFFFF);
    uint32_t left = (64 - t->direct_bits) / 6;
    while (w->open > 0) {
        if (left-- == 0) {
            for (size_t k = 0; k < w->open; k++) {
                uint64_t low = gbf_load64(rows + 16 * (w->lane[k] >> 32) + 8);
                w->key[k] = network_order ? __builtin_bswap64(low) : low;
            }
            left = 10;
        }
        size_t still = 0;
        for (size_t k = 0; k < w->open; k += 8) {
            __mmask8 live = w->open - k >= 8 ? 0xFF : (__mmask8)((1u << (w->open - k)) - 1);
            __m512i key = _mm512_loadu_si512(w->key + k), lane = _mm512_maskz_loadu_epi64(live, w->lane + k);
            __m512i node = _mm512_and_si512(lane, node_bits);
            __m512i map = _mm512_i64gather_epi64(node, t->words, 4);
            __m512i mask = _mm512_sub_epi64(_mm512_sllv_epi64(two, _mm512_srli_epi64(key, 58)), one);
            __m512i rank = _mm512_popcnt_epi64(_mm512_and_si512(map, mask));
            __m512i at = _mm512_add_epi64(_mm512_add_epi64(node, rank), one);
            __m512i entry = _mm512_cvtepu32_epi64(_mm512_i64gather_epi32(at, t->words, 4));
            lane = _mm512_or_si512(entry, _mm512_andnot_si512(node_bits, lane));
            settle8(t, w, &still, live, lane, _mm512_slli_epi64(key, 6));
        }
        w->open = still;
    }
}

/* Leaves of up to WIDE addresses of either family: rows of 16 bytes, upper half first, the halves in network order or in the
 * machine's. The block to come is at `ahead`. */
GBF_INLINE void block16(const gbf_lpm *t, const uint8_t *rows, int network_order, size_t n, const uint8_t *ahead,
                        uint32_t *leaves)
{
    walk6 w;
    uint32_t v4[WIDE + 8], at4[WIDE + 8], leaf4[WIDE];
    const __m512i evens = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14),
                  odds = _mm512_add_epi64(evens, _mm512_set1_epi64(1));
    const __m512i swap = _mm512_broadcast_i32x4(_mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8));
    const __m128i direct_shift = _mm_cvtsi32_si128((int)(64 - t->v6.direct_bits));
    const __m128i key_shift = _mm_cvtsi32_si128((int)t->v6.direct_bits);
    __m512i place = _mm512_slli_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), 32);
    size_t count4 = 0, still = 0;
    w.finished = 0;
    for (size_t i = 0; i < n; i += 8, place = _mm512_add_epi64(place, _mm512_set1_epi64(INT64_C(8) << 32))) {
        __mmask8 live = n - i >= 8 ? 0xFF : (__mmask8)((1u << (n - i)) - 1);
        __mmask16 halves = n - i >= 8 ? 0xFFFF : (__mmask16)((1u << (2 * (n - i))) - 1);
        GBF_PREFETCH(ahead + 16 * i);
        GBF_PREFETCH(ahead + 16 * i + 64);
        __m512i first = _mm512_maskz_loadu_epi64((__mmask8)halves, rows + 16 * i);
        __m512i second = _mm512_maskz_loadu_epi64((__mmask8)(halves >> 8), rows + 16 * i + 64);
        if (network_order) {
            first = _mm512_shuffle_epi8(first, swap);
            second = _mm512_shuffle_epi8(second, swap);
        }
        __m512i high = _mm512_permutex2var_epi64(first, evens, second);
        __m512i low = _mm512_permutex2var_epi64(first, odds, second);
        __mmask8 is4 = _mm512_mask_cmpeq_epi64_mask(live, _mm512_srli_epi64(low, 32), _mm512_set1_epi64(0xFFFF)) &
                       _mm512_testn_epi64_mask(high, high);
        _mm256_storeu_si256((__m256i *)(v4 + count4), _mm256_maskz_compress_epi32(is4, _mm512_cvtepi64_epi32(low)));
        _mm256_storeu_si256((__m256i *)(at4 + count4),
                            _mm256_maskz_compress_epi32(is4, _mm512_cvtepi64_epi32(_mm512_srli_epi64(place, 32))));
        count4 += (size_t)__builtin_popcount(is4);
        __m512i entry =
            _mm512_cvtepu32_epi64(_mm512_i64gather_epi32(_mm512_srl_epi64(high, direct_shift), t->v6.direct, 4));
        settle8(&t->v6, &w, &still, live & (__mmask8)~is4, _mm512_or_si512(entry, place),
                _mm512_sll_epi64(high, key_shift));
    }
    w.open = still;
    walk_on6(&t->v6, &w, rows, network_order);
    for (size_t k = 0; k < w.finished; k++)
        leaves[w.done[k] >> 32] = (uint32_t)w.done[k];
    if (count4 > 0) {
        find4_many(t, v4, count4, leaf4);
        for (size_t k = 0; k < count4; k++)
            leaves[at4[k]] = leaf4[k];
    }
}

#else

/* Leaves of up to WIDE IPv6 addresses, level by level over the addresses still on their way: while one node line is
 * being fetched, the others are worked on. `keys` holds the left-aligned bits still to be read. */
static void block6(const gbf_trie *t, const gbf_addr *addresses, size_t n, uint32_t *leaves)
{
    uint64_t keys[WIDE];
    uint16_t open[WIDE];
    size_t opened = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t entry = t->direct[addresses[i].high >> (64 - t->direct_bits)];
        keys[i] = addresses[i].high << t->direct_bits;
        leaves[i] = entry;
        open[opened] = (uint16_t)i;
        opened += entry >> 31;
        prefetch_node(t->words, entry);
    }
    uint32_t left = (64 - t->direct_bits) / 6;
    while (opened > 0) {
        if (left-- == 0) {
            for (size_t k = 0; k < opened; k++)
                keys[open[k]] = addresses[open[k]].low;
            left = 10;
        }
        size_t still = 0;
        for (size_t k = 0; k < opened; k++) {
            size_t i = open[k];
            uint32_t entry = gbf_trie_step(t->words, leaves[i] & ~GBF_CHILD, (uint32_t)(keys[i] >> 58));
            keys[i] <<= 6;
            leaves[i] = entry;
            open[still] = (uint16_t)i;
            still += entry >> 31;
            prefetch_node(t->words, entry);
        }
        opened = still;
    }
}

/* As above, one address at a time: sorted by family, walked, and put back in place. */
static void block16(const gbf_lpm *t, const uint8_t *rows, int network_order, size_t n, const uint8_t *ahead,
                    uint32_t *leaves)
{
    uint32_t v4[WIDE], leaf4[WIDE], leaf6[WIDE];
    gbf_addr v6[WIDE];
    uint16_t at4[WIDE], at6[WIDE];
    size_t count4 = 0, count6 = 0;
    for (size_t i = 0; i < n; i++) {
        gbf_addr address;
        if (network_order)
            address = gbf_addr_load(rows + 16 * i);
        else
            memcpy(&address, rows + 16 * i, sizeof address);
        if (i % 4 == 0)
            GBF_PREFETCH(ahead + 16 * i);
        size_t is4 = (size_t)gbf_addr_is4(address);
        v4[count4] = (uint32_t)address.low;
        at4[count4] = (uint16_t)i;
        v6[count6] = address;
        at6[count6] = (uint16_t)i;
        count4 += is4;
        count6 += 1 - is4;
    }
    find4_many(t, v4, count4, leaf4);
    block6(&t->v6, v6, count6, leaf6);
    for (size_t k = 0; k < count4; k++)
        leaves[at4[k]] = leaf4[k];
    for (size_t k = 0; k < count6; k++)
        leaves[at6[k]] = leaf6[k];
}

#endif

static void find16_many(const gbf_lpm *t, const uint8_t *packed, size_t n, uint32_t *leaves)
{
    for (size_t i = 0; i < n; i += WIDE) {
        size_t size = n - i < WIDE ? n - i : WIDE;
        const uint8_t *ahead = packed + 16 * (n - i >= 2 * WIDE ? i + WIDE : i);
        block16(t, packed + 16 * i, 1, size, ahead, leaves + i);
    }
}

static void find_text_many(const gbf_lpm *t, const char *const *texts, const uint32_t *lengths, size_t n,
                           uint32_t *leaves)
{
    gbf_addr rows[WIDE];
    uint16_t bad[WIDE];
    for (size_t i = 0; i < n; i += WIDE) {
        size_t size = n - i < WIDE ? n - i : WIDE, bad_count = 0;
        for (size_t k = 0; k < size; k++) {
            if (GBF_UNLIKELY(!parse(texts[i + k], lengths[i + k], &rows[k]))) {
                rows[k] = gbf_addr_from4(0);
                bad[bad_count++] = (uint16_t)k;
            }
        }
        block16(t, (const uint8_t *)rows, 0, size, (const uint8_t *)rows, leaves + i);
        for (size_t k = 0; k < bad_count; k++)
            leaves[i + bad[k]] = GBF_NONE;
    }
}

/* Appends the nodes that up to 16 entries name to `children` (which has room) and counts them; returns whether a leaf among them
 * is out of range. */
GBF_INLINE uint32_t collect(const uint32_t *entries, uint32_t n, uint32_t leaf_limit, uint32_t none, uint32_t *children,
                            uint64_t *count)
{
#if defined(GBF_KERNEL_AVX512)
    __mmask16 live = (__mmask16)((1u << n) - 1);
    __m512i entry = _mm512_maskz_loadu_epi32(live, entries);
    __mmask16 child = _mm512_movepi32_mask(entry);
    __mmask16 high = _mm512_mask_cmpge_epu32_mask(live, entry, _mm512_set1_epi32((int)leaf_limit));
    __mmask16 leaf = _mm512_cmpneq_epi32_mask(entry, _mm512_set1_epi32((int)none));
    _mm512_storeu_si512(children + *count, _mm512_maskz_compress_epi32(
                                               child, _mm512_andnot_si512(_mm512_set1_epi32((int)GBF_CHILD), entry)));
    *count += (uint64_t)__builtin_popcount(child);
    return (uint32_t)(high & leaf & ~child);
#else
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++) {
        bad |= (uint32_t)(entries[i] >= leaf_limit && entries[i] < GBF_CHILD && entries[i] != none);
        children[*count] = entries[i] & ~GBF_CHILD;
        *count += entries[i] >> 31;
    }
    return bad;
#endif
}

/* Whether one of fewer than 16 words is not zero. */
GBF_INLINE uint32_t nonzero(const uint32_t *words, uint32_t n)
{
#if defined(GBF_KERNEL_AVX512)
    __m512i some = _mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1), words);
    return _mm512_test_epi32_mask(some, some);
#else
    uint32_t any = 0;
    while (n > 0)
        any |= words[--n];
    return any;
#endif
}

/* Nodes lie in the order in which a stack gives back the entries that name them, the last child of a node right behind it. So
 * one walk over the words finds each node where the one before it ended, or on the next line, and the entry on top of
 * the stack must name it. */
static gbf_status verify_nodes(const gbf_trie *t, uint32_t leaf_limit, uint32_t none, uint32_t *children, uint64_t room,
                               gbf_fault *fault)
{
    uint64_t count = 0, end = 3, slots = UINT64_C(1) << t->direct_bits;
    for (uint64_t i = 0; i < slots; i += 16)
        if (collect(t->direct + i, 16, leaf_limit, none, children, &count) != 0 || count > room)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "direct entry is out of range", i);
    while (count > 0) {
        uint64_t at = end;
        if (at < t->word_count && t->words[at] == 0)
            at = (end + 15) & ~UINT64_C(15);
        if (at + 2 >= t->word_count || children[--count] != at)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "entry names no node", end);
        uint64_t bitmap = gbf_load64(t->words + at), entries = (uint64_t)__builtin_popcountll(bitmap);
        uint32_t wrong =
            (bitmap & 1) == 0 || at != gbf_trie_place(end, 2 + entries) || entries + 2 > t->word_count - at;
        wrong |= nonzero(t->words + end, (uint32_t)(at - end)); /* padding */
        end = at + 2 + entries;
        for (uint64_t k = at + 2; wrong == 0 && k < end; k += 16)
            wrong = collect(t->words + k, end - k < 16 ? (uint32_t)(end - k) : 16, leaf_limit, none, children, &count);
        if (wrong != 0 || count > room)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "node is damaged", at);
    }
    if (end != t->word_count)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "words that no node uses", end);
    return GBF_OK;
}

static gbf_status verify(const gbf_trie *t, uint32_t leaf_limit, uint32_t none, gbf_fault *fault)
{
    if (t->word_count < 3 || memcmp(t->words, gbf_trie_idle_node, sizeof gbf_trie_idle_node) != 0)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "idle node is damaged", 0);
    uint64_t room = t->word_count / 3; /* a node has three words or more */
    uint32_t *children =
        malloc((room + 64 + 16) * sizeof *children); /* one node's worth beyond, found out afterwards */
    if (children == NULL)
        return GBF_NO_MEMORY;
    gbf_status status = verify_nodes(t, leaf_limit, none, children, room, fault);
    free(children);
    return status;
}
