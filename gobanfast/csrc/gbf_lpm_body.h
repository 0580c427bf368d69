/* The lookups of gbf_lpm_kernel, written once and compiled once for each instruction set: gbf_lpm_<isa>.c sets the
 * target and GBF_KERNEL_* and includes this file. Only the address parser and the inner batch loops differ by target. */
#include "gbf_trie.h"

#include <stdlib.h>

#if defined(GBF_KERNEL_V2)
#include "gbf_addr_fast.h"
#endif

#define BLOCK 256 /* addresses in flight: 256 direct entries and node lines fit the first-level cache */
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

/* Addresses of a block that are still on their way: bits still to be read, node, and place in the block. */
typedef struct {
    uint64_t key[BLOCK + 8];
    uint32_t node[BLOCK + 8], place[BLOCK + 8];
    size_t count;
} open6;

/* Puts leaves of the 8 lanes where they belong and the children, with their keys, back among the open ones. */
GBF_INLINE void settle8(const gbf_trie *t, open6 *open, size_t *still, __mmask8 live, __m256i entry, __m512i key,
                        __m256i place, uint32_t *leaves)
{
    __mmask8 child = _mm256_mask_cmplt_epi32_mask(live, entry, _mm256_setzero_si256());
    __m256i node = _mm256_and_si256(entry, _mm256_set1_epi32(0x7FFFFFFF));
    _mm256_mask_i32scatter_epi32((int *)leaves, live & (__mmask8)~child, place, entry, 4);
    _mm512_mask_compressstoreu_epi64(open->key + *still, child, key);
    _mm256_mask_compressstoreu_epi32(open->node + *still, child, node);
    _mm256_mask_compressstoreu_epi32(open->place + *still, child, place);
    size_t children = (size_t)__builtin_popcount(child);
    prefetch_nodes(t->words, open->node + *still, children);
    *still += children;
}

/* Leaves of up to BLOCK IPv6 addresses, level by level over those still open, 8 to a register: while one node line is
 * being fetched, the others are worked on. */
static void block6(const gbf_trie *t, const gbf_addr *addresses, size_t n, uint32_t *leaves)
{
    open6 open;
    const __m512i evens = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), two = _mm512_set1_epi64(2),
                  one = _mm512_set1_epi64(1);
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    size_t still = 0;
    for (size_t i = 0; i < n; i += 8) {
        __mmask8 live = n - i >= 8 ? 0xFF : (__mmask8)((1u << (n - i)) - 1);
        __mmask16 halves = n - i >= 8 ? 0xFFFF : (__mmask16)((1u << (2 * (n - i))) - 1);
        __m512i first = _mm512_maskz_loadu_epi64((__mmask8)halves, addresses + i);
        __m512i second = _mm512_maskz_loadu_epi64((__mmask8)(halves >> 8), addresses + i + 4);
        __m512i high = _mm512_permutex2var_epi64(first, evens, second);
        __m512i slot = _mm512_srl_epi64(high, _mm_cvtsi32_si128((int)(64 - t->direct_bits)));
        __m256i entry = _mm512_i64gather_epi32(slot, t->direct, 4);
        __m512i key = _mm512_sll_epi64(high, _mm_cvtsi32_si128((int)t->direct_bits));
        settle8(t, &open, &still, live, entry, key, _mm256_add_epi32(iota, _mm256_set1_epi32((int)i)), leaves);
    }
    uint32_t left = (64 - t->direct_bits) / 6;
    for (open.count = still; open.count > 0; open.count = still) {
        if (left-- == 0) {
            for (size_t k = 0; k < open.count; k++)
                open.key[k] = addresses[open.place[k]].low;
            left = 10;
        }
        still = 0;
        for (size_t k = 0; k < open.count; k += 8) {
            __mmask8 live = open.count - k >= 8 ? 0xFF : (__mmask8)((1u << (open.count - k)) - 1);
            __m512i key = _mm512_maskz_loadu_epi64(live, open.key + k);
            __m256i node = _mm256_maskz_loadu_epi32(live, open.node + k),
                    place = _mm256_maskz_loadu_epi32(live, open.place + k);
            __m512i map = _mm512_i32gather_epi64(node, t->words, 4);
            __m512i mask = _mm512_sub_epi64(_mm512_sllv_epi64(two, _mm512_srli_epi64(key, 58)), one);
            __m256i rank = _mm512_cvtepi64_epi32(_mm512_popcnt_epi64(_mm512_and_si512(map, mask)));
            __m256i at = _mm256_add_epi32(_mm256_add_epi32(node, rank), _mm256_set1_epi32(1));
            __m256i entry = _mm256_i32gather_epi32((const int *)t->words, at, 4);
            settle8(t, &open, &still, live, entry, _mm512_slli_epi64(key, 6), place, leaves);
        }
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

/* Leaves of up to BLOCK IPv6 addresses, level by level over the addresses still on their way: while one node line is
 * being fetched, the others are worked on. `keys` holds the left-aligned bits still to be read. */
static void block6(const gbf_trie *t, const gbf_addr *addresses, size_t n, uint32_t *leaves)
{
    uint64_t keys[BLOCK];
    uint16_t open[BLOCK];
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

#endif

static void find4_many(const gbf_lpm *t, const uint32_t *addresses, size_t n, uint32_t *leaves)
{
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t size = n - i < BLOCK ? n - i : BLOCK;
        const uint32_t *ahead = addresses + (n - i >= (AHEAD + 1) * BLOCK ? i + AHEAD * BLOCK : i);
        block4(&t->v4, addresses + i, size, ahead, leaves + i);
    }
}

/* A block of addresses sorted by family, walked, and put back in place. */
typedef struct {
    uint32_t v4[BLOCK], leaf4[BLOCK], leaf6[BLOCK];
    gbf_addr v6[BLOCK];
    uint16_t at4[BLOCK], at6[BLOCK];
    size_t count4, count6;
} sorter;

GBF_INLINE void sorter_add(sorter *s, gbf_addr address, size_t at)
{
    size_t is4 = (size_t)gbf_addr_is4(address);
    s->v4[s->count4] = (uint32_t)address.low;
    s->at4[s->count4] = (uint16_t)at;
    s->v6[s->count6] = address;
    s->at6[s->count6] = (uint16_t)at;
    s->count4 += is4;
    s->count6 += 1 - is4;
}

static void sorter_finish(sorter *s, const gbf_lpm *t, uint32_t *leaves)
{
    find4_many(t, s->v4, s->count4, s->leaf4);
    block6(&t->v6, s->v6, s->count6, s->leaf6);
    for (size_t k = 0; k < s->count4; k++)
        leaves[s->at4[k]] = s->leaf4[k];
    for (size_t k = 0; k < s->count6; k++)
        leaves[s->at6[k]] = s->leaf6[k];
    s->count4 = s->count6 = 0;
}

static void find16_many(const gbf_lpm *t, const uint8_t *packed, size_t n, uint32_t *leaves)
{
    sorter s;
    s.count4 = s.count6 = 0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t size = n - i < BLOCK ? n - i : BLOCK;
        for (size_t k = 0; k < size; k++)
            sorter_add(&s, gbf_addr_load(packed + 16 * (i + k)), k);
        sorter_finish(&s, t, leaves + i);
    }
}

static void find_text_many(const gbf_lpm *t, const char *const *texts, const uint32_t *lengths, size_t n,
                           uint32_t *leaves)
{
    sorter s;
    s.count4 = s.count6 = 0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t size = n - i < BLOCK ? n - i : BLOCK;
        for (size_t k = 0; k < size; k++) {
            gbf_addr address;
            if (parse(texts[i + k], lengths[i + k], &address))
                sorter_add(&s, address, k);
            else
                leaves[i + k] = GBF_NONE;
        }
        sorter_finish(&s, t, leaves + i);
    }
}

/* Appends the nodes that up to 16 entries name to `children` (which has room) and counts them; returns whether a leaf among them
 * is out of range. */
GBF_INLINE uint32_t collect(const uint32_t *entries, uint32_t n, uint32_t leaf_limit, uint32_t *children,
                            uint64_t *count)
{
#if defined(GBF_KERNEL_AVX512)
    __mmask16 live = (__mmask16)((1u << n) - 1);
    __m512i entry = _mm512_maskz_loadu_epi32(live, entries);
    __mmask16 child = _mm512_movepi32_mask(entry);
    __mmask16 high = _mm512_mask_cmpge_epu32_mask(live, entry, _mm512_set1_epi32((int)leaf_limit));
    __mmask16 leaf = _mm512_cmpneq_epi32_mask(entry, _mm512_set1_epi32((int)GBF_NO_LEAF));
    _mm512_storeu_si512(children + *count, _mm512_maskz_compress_epi32(
                                               child, _mm512_andnot_si512(_mm512_set1_epi32((int)GBF_CHILD), entry)));
    *count += (uint64_t)__builtin_popcount(child);
    return (uint32_t)(high & leaf & ~child);
#else
    uint32_t bad = 0;
    for (uint32_t i = 0; i < n; i++) {
        bad |= (uint32_t)(entries[i] >= leaf_limit && entries[i] < GBF_NO_LEAF);
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

/* Nodes lie in the order in which entries name them, so the i-th child entry must name the i-th node, and the end of one node
 * and the size of the next say where that is. */
static gbf_status verify_nodes(const gbf_trie *t, uint32_t leaf_limit, uint32_t *children, uint64_t room,
                               gbf_fault *fault)
{
    uint64_t count = 0, end = 3, slots = UINT64_C(1) << t->direct_bits;
    for (uint64_t i = 0; i < slots; i += 16)
        if (collect(t->direct + i, 16, leaf_limit, children, &count) != 0 || count > room)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "direct entry is out of range", i);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = children[i];
        if (at < end || at - end >= 16 || at + 2 >= t->word_count)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "entry names no node", at);
        uint64_t bitmap = gbf_load64(t->words + at), entries = (uint64_t)__builtin_popcountll(bitmap);
        uint32_t wrong =
            (bitmap & 1) == 0 || at != gbf_trie_place(end, 2 + entries) || entries + 2 > t->word_count - at;
        wrong |= nonzero(t->words + end, (uint32_t)(at - end)); /* padding */
        end = at + 2 + entries;
        for (uint64_t k = at + 2; wrong == 0 && k < end; k += 16)
            wrong = collect(t->words + k, end - k < 16 ? (uint32_t)(end - k) : 16, leaf_limit, children, &count);
        if (wrong != 0 || count > room)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "node is damaged", at);
    }
    if (end != t->word_count)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "words that no node uses", end);
    return GBF_OK;
}

static gbf_status verify(const gbf_trie *t, uint32_t leaf_limit, gbf_fault *fault)
{
    if (t->word_count < 3 || memcmp(t->words, gbf_trie_idle_node, sizeof gbf_trie_idle_node) != 0)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "idle node is damaged", 0);
    uint64_t room = t->word_count / 3; /* a node has three words or more */
    uint32_t *children =
        malloc((room + 64 + 16) * sizeof *children); /* one node's worth beyond, found out afterwards */
    if (children == NULL)
        return GBF_NO_MEMORY;
    gbf_status status = verify_nodes(t, leaf_limit, children, room, fault);
    free(children);
    return status;
}
