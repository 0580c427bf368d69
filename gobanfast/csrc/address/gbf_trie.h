/* The stride trie: address -> 31-bit leaf, IPv4 and IPv6 side by side. Shared by PrefixTable, AsnTable and the
 * engine; see DESIGN.md, "Stride trie", for the byte arithmetic and the structures it was measured against.
 *
 * The first `direct_bits` bits of an address index `direct`, every further 6 bits one node. An entry is a leaf, or
 * GBF_CHILD | index (in 4-byte words) of a node in `words`. A node is a 64-bit bitmap, then one entry for every set
 * bit: bit s is set where slot s starts a run of equal entries, so entry(s) is number popcount(bitmap[0..s]) - 1.
 * words[0..2] is a node of one empty run: the branch-free first step reads it when `direct` gave a leaf. */
#ifndef GBF_TRIE_H
#define GBF_TRIE_H

#include "address/gbf_addr.h"
#include "base/gbf_block.h"

#define GBF_CHILD UINT32_C(0x80000000)
#define GBF_NO_LEAF UINT32_C(0x7FFFFFFF) /* the leaf of an address that nothing covers */

typedef struct {
    const uint32_t *direct;
    const uint32_t *words;
    uint64_t word_count;
    uint32_t direct_bits;
} gbf_trie;

static const uint32_t gbf_trie_idle_node[3] = {1, 0, GBF_NO_LEAF};

GBF_INLINE uint32_t gbf_trie_step(const uint32_t *words, uint32_t index, uint32_t slot)
{
    const uint32_t *node = words + index;
    uint64_t bitmap = gbf_load64(node);
    return node[1 + __builtin_popcountll(bitmap & ((UINT64_C(2) << slot) - 1))];
}

/* Where a node of `words` words goes when the words before `end` are taken: a node that fits a cache line does not
 * straddle two (the array starts on a line). */
GBF_INLINE uint64_t gbf_trie_place(uint64_t end, uint64_t words)
{
    uint64_t line_left = 16 - (end & 15);
    return words <= 16 && words > line_left ? end + line_left : end;
}

/* Leaf of an IPv4 address (host order). Two dependent loads for prefixes up to direct_bits + 6, three or four for
 * longer ones. Cannot fail; any number of threads. */
GBF_INLINE uint32_t gbf_trie_find4(const gbf_trie *t, uint32_t address)
{
    uint32_t entry = t->direct[address >> (32 - t->direct_bits)];
    uint32_t key = address << t->direct_bits;
    uint32_t child = (uint32_t)((int32_t)entry >> 31); /* all ones or zero */
    uint32_t next = gbf_trie_step(t->words, entry & child & ~GBF_CHILD, key >> 26);
    entry = (next & child) | (entry & ~child);
    while (GBF_UNLIKELY(entry & GBF_CHILD)) {
        key <<= 6;
        entry = gbf_trie_step(t->words, entry & ~GBF_CHILD, key >> 26);
    }
    return entry;
}

/* Leaf of an IPv6 address. The strides below direct_bits = 16 end exactly at bit 64, so each half is walked alone. */
GBF_INLINE uint32_t gbf_trie_find6(const gbf_trie *t, gbf_addr address)
{
    uint32_t entry = t->direct[address.high >> (64 - t->direct_bits)];
    uint64_t key = address.high << t->direct_bits;
    uint32_t left = (64 - t->direct_bits) / 6;
    while (entry & GBF_CHILD) {
        if (left-- == 0) {
            key = address.low;
            left = 10;
        }
        entry = gbf_trie_step(t->words, entry & ~GBF_CHILD, (uint32_t)(key >> 58));
        key <<= 6;
    }
    return entry;
}

/* One run of addresses: from `start` up to the start of the next range, or to the end of the family. */
typedef struct {
    gbf_addr start; /* left-aligned: IPv4 addresses sit in the top 32 bits of `high` */
    uint32_t leaf;
} gbf_range;

/* The two families of one table. */
typedef struct {
    gbf_trie v4, v6;
} gbf_lpm;

/* One implementation of the lookups, for one instruction set. All are safe for any number of threads. */
typedef struct {
    const char *name;
    uint32_t needs; /* gbf_cpu features */
    /* Leaf of the address in text[0..n), which also goes to *address; GBF_NONE when the text is not an address. */
    uint32_t (*find_text)(const gbf_lpm *t, const char *text, size_t n, gbf_addr *address);
    /* Leaf of an address. */
    uint32_t (*find)(const gbf_lpm *t, gbf_addr address);
    /* Parses like gbf_addr_parse. */
    int (*parse)(const char *text, size_t n, gbf_addr *address);
    /* leaves[i] for n IPv4 addresses in host order. */
    void (*find4_many)(const gbf_lpm *t, const uint32_t *addresses, size_t n, uint32_t *leaves);
    /* leaves[i] for n 16-byte addresses in network order, IPv4 mapped. */
    void (*find16_many)(const gbf_lpm *t, const uint8_t *packed, size_t n, uint32_t *leaves);
    /* leaves[i] for n texts of lengths[i] bytes; GBF_NONE where a text is not an address. */
    void (*find_text_many)(const gbf_lpm *t, const char *const *texts, const uint32_t *lengths, size_t n,
                           uint32_t *leaves);
    /* Checks that every entry of an untrusted trie stays inside it: children must be exactly the nodes, in order,
     * each referred to once; leaves must be below `leaf_limit`, or `none`. Fault offsets count words. */
    gbf_status (*verify)(const gbf_trie *t, uint32_t leaf_limit, uint32_t none, gbf_fault *fault);
} gbf_lpm_kernel;

/* The kernels of this build, best first, "scalar" last. */
extern const gbf_lpm_kernel *const gbf_lpm_kernels[];

/* Best kernel that needs no more than `features`. */
const gbf_lpm_kernel *gbf_lpm_pick(uint32_t features);

/* Tries under construction: `lpm` points into the four arrays. */
typedef struct {
    uint32_t *direct4, *words4, *direct6, *words6;
    gbf_lpm lpm;
} gbf_lpm_build;

/* Builds both tries. Ranges ascend, the first starts at 0, neighbours differ, leaves are below GBF_CHILD; IPv4 starts are
 * left-aligned. O(ranges). Whatever comes back, gbf_lpm_free() frees it. */
gbf_status gbf_lpm_from_ranges(gbf_lpm_build *out, const gbf_range *ranges4, uint64_t count4, const gbf_range *ranges6,
                               uint64_t count6);
void gbf_lpm_free(gbf_lpm_build *build);

/* The sections a block needs for the tries, to be written and bound again. */
#define GBF_LPM_PARTS 4u
void gbf_lpm_parts(const gbf_lpm_build *build, gbf_part parts[GBF_LPM_PARTS]);

/* Binds `lpm` to the trie sections of an opened block after checking every entry; leaves must be below `leaf_limit`, or
 * `none`: GBF_NO_LEAF where an address may have no leaf, any leaf below the limit (as 0) where each must have one. */
gbf_status gbf_lpm_bind(gbf_lpm *lpm, const void *block, uint32_t leaf_limit, uint32_t none,
                        const gbf_lpm_kernel *kernel, gbf_fault *fault);

#endif
