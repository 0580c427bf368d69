/* A table of prefixes with uint32 values: a trie for longest-prefix match, and the sorted list of the prefixes
 * themselves for everything else (exact get, which prefix matched, iteration). One block, kind chosen by the caller.
 *
 * Sections: META one gbf_prefix_meta; DIR4 WRD4 DIR6 WRD6 the tries; VALS distinct values when some value does not
 * fit a 31-bit leaf (else empty: the leaf is the value); LSTD LSTT the prefix list. */
#ifndef GBF_PREFIX_H
#define GBF_PREFIX_H

#include "address/gbf_trie.h"
#include "base/gbf_block.h"

typedef struct {
    gbf_addr address; /* host bits zero */
    uint32_t bits;    /* 0..128; IPv4: 96 + n */
    uint32_t value;   /* not GBF_NONE */
} gbf_prefix_item;

typedef struct {
    uint64_t count4, count6; /* prefixes of each family */
} gbf_prefix_meta;

/* Prefix list: sorted by (address, bits), GBF_LIST_STRIDE to a group. A group's first address is absolute, the rest is
 * coded in tokens, see gbf_prefix_list.c. */
#define GBF_LIST_STRIDE 128u

typedef struct {
    gbf_addr base;
    uint64_t token; /* offset of the group's first token, bytes */
} gbf_list_group;

typedef struct {
    gbf_lpm lpm;
    const gbf_lpm_kernel *kernel;
    const uint32_t *values; /* NULL: leaves are the values */
    uint64_t value_count;
    const gbf_list_group *groups;
    const uint8_t *tokens;
    uint64_t group_count, token_bytes, count;
} gbf_prefix;

GBF_INLINE uint32_t gbf_prefix_value(const gbf_prefix *t, uint32_t leaf)
{
    if (leaf >= GBF_NO_LEAF)
        return GBF_NONE;
    return t->values == NULL ? leaf : t->values[leaf];
}

/* Value of the longest prefix that covers `address`, or GBF_NONE. */
GBF_INLINE uint32_t gbf_prefix_find(const gbf_prefix *t, gbf_addr address)
{
    return gbf_prefix_value(t, t->kernel->find(&t->lpm, address));
}

/* Turns `n` leaves into values in place and returns how many are not GBF_NONE. */
size_t gbf_prefix_values(const gbf_prefix *t, uint32_t *leaves, size_t n);

/* Item `address`/`bits` itself: 1 and *value if it is stored. */
int gbf_prefix_get(const gbf_prefix *t, gbf_addr address, uint32_t bits, uint32_t *value);

/* The longest stored prefix that covers `address`: 1 and *item. O(log n) a step, at most one step for each prefix
 * length in which the address parts from its neighbours. */
int gbf_prefix_covering(const gbf_prefix *t, gbf_addr address, gbf_prefix_item *item);

/* Walks the list in order. Start with a zeroed cursor; 0 at the end (or where damaged tokens stop making sense). */
typedef struct {
    gbf_prefix_item item;
    uint64_t index, token;
} gbf_prefix_cursor;
int gbf_prefix_next(const gbf_prefix *t, gbf_prefix_cursor *cursor);

/* What every builder begins with. Checks `items` (GBF_BAD_INPUT: fault->offset is the index of one with host bits set, bits
 * over 128 or value GBF_NONE), sorts them in place by (address, bits); of equal prefixes the last one stays. O(n) with
 * already sorted input, a radix sort otherwise. */
gbf_status gbf_prefix_sort(gbf_prefix_item *items, uint64_t *count, gbf_fault *fault);

/* The disjoint ranges that sorted items of both families cut one of them (4 or 6) into: ascending, whole family covered,
 * neighbours differ; `leaf` is the value of the longest prefix, GBF_NONE where nothing covers. IPv4 starts are
 * left-aligned. The caller frees *ranges. */
gbf_status gbf_prefix_cut(const gbf_prefix_item *items, uint64_t count, int family, gbf_range **ranges,
                          uint64_t *range_count);

/* Sorts `items` in place (of equal prefixes the last one stays), builds a sealed block with `extra` sections behind the
 * table's own. On GBF_OK the caller frees *block. GBF_BAD_INPUT and cost as for gbf_prefix_sort. */
gbf_status gbf_prefix_build(gbf_prefix_item *items, uint64_t count, uint32_t kind, const gbf_part *extra,
                            uint32_t extra_count, void **block, gbf_fault *fault);

/* Binds `table` to a block (which must outlive it). With `verify`, checks the content hash; trie geometry is always
 * checked, so no lookup can leave the block. */
gbf_status gbf_prefix_open(gbf_prefix *table, const void *block, uint64_t nbytes, uint32_t kind, int verify,
                           const gbf_lpm_kernel *kernel, gbf_fault *fault);

/* Decodes the whole prefix list and compares it with the trie: order, counts, and the value of every prefix's own
 * first address. O(n). */
gbf_status gbf_prefix_verify(const gbf_prefix *t, gbf_fault *fault);

/* gbf_prefix_cut() for the prefixes of a finished table. */
gbf_status gbf_prefix_ranges(const gbf_prefix *t, int family, gbf_range **ranges, uint64_t *count);

/* Used by the builder. Encodes sorted unique items; `find` looks a value up in the finished trie. */
typedef struct {
    gbf_list_group *groups;
    uint8_t *tokens;
    uint64_t group_count, token_bytes;
} gbf_list_build;
gbf_status gbf_list_encode(gbf_list_build *out, const gbf_prefix_item *items, uint64_t count, const gbf_prefix *trie);

#endif
