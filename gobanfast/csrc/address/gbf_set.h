/* Prefix set: membership test of addresses. Overlapping and adjacent prefixes merge.
 *
 * A family is the sorted list of its bounds: the addresses where membership changes, beginning outside. So an address
 * is inside when the number of bounds at or below it is odd; there is nothing else to store.
 *
 * Sections: IDX4 65,537 u32, BND4 u16, TOP6 u64, HIG6 u64, LOW6 u64. See DESIGN.md, "Prefix set". */
#ifndef GBF_SET_H
#define GBF_SET_H

#include "address/gbf_prefix.h"
#include "base/gbf_block.h"

#define GBF_SET_KIND GBF_TAG('P', 'S', 'E', 'T')
#define GBF_SET_BUCKETS 65536u /* of 65,536 IPv4 addresses each */
#define GBF_SET_PAD 16u        /* items behind the last IPv4 bound, for kernels that load that many at once */
#define GBF_SET_STRIDE 64u     /* IPv6 bounds to one entry of `top6` */

typedef struct {
    const uint32_t *index4;      /* bounds4[index4[b]..index4[b + 1]) are the bounds with upper half b */
    const uint16_t *bounds4;     /* lower halves, ascending in each bucket */
    const uint64_t *top6;        /* high6[0], high6[64], ... */
    const uint64_t *high6;       /* upper halves of the IPv6 bounds, ascending */
    const uint64_t *low6;        /* lower halves; NULL: all are zero (no prefix is longer than /64) */
    uint64_t count4, count6;     /* bounds */
    uint64_t prefix4s, prefix6s; /* disjoint prefixes that make up the set */
} gbf_set;

/* One implementation of the lookups, for one instruction set. All are safe for any number of threads. */
typedef struct {
    const char *name;
    uint32_t needs; /* gbf_cpu features */
    /* 1 when text[0..n) is an address inside the set, else 0. */
    int (*covers_text)(const gbf_set *s, const char *text, size_t n);
    /* inside[i] = 1 or 0 for n IPv4 addresses (host order), n 16-byte addresses (network order, IPv4 mapped), or n texts
     * of lengths[i] bytes (0 for one that is not an address). They return how many are inside. */
    size_t (*covers4_many)(const gbf_set *s, const uint32_t *addresses, size_t n, uint8_t *inside);
    size_t (*covers16_many)(const gbf_set *s, const uint8_t *packed, size_t n, uint8_t *inside);
    size_t (*covers_text_many)(const gbf_set *s, const char *const *texts, const uint32_t *lengths, size_t n,
                               uint8_t *inside);
    /* Checks every index and the order of all bounds of an untrusted set, and counts its prefixes. Fault offsets count
     * items of the section at fault. */
    gbf_status (*verify)(gbf_set *s, gbf_fault *fault);
} gbf_set_kernel;

/* Best kernel that needs no more than `features`. */
const gbf_set_kernel *gbf_set_pick(uint32_t features);

/* Sorts `items` in place (their values do not matter but must not be GBF_NONE) and builds a sealed block. On GBF_OK the
 * caller frees *block. GBF_BAD_INPUT: fault->offset is the index of an item with host bits set or bits over 128. */
gbf_status gbf_set_build(gbf_prefix_item *items, uint64_t count, void **block, gbf_fault *fault);

/* Binds `set` to a block (which must outlive it). With `check_hash`, also checks the content hash; everything a lookup
 * relies on is checked always. O(bounds). */
gbf_status gbf_set_open(gbf_set *set, const void *block, uint64_t nbytes, int check_hash, const gbf_set_kernel *kernel,
                        gbf_fault *fault);

/* Walks the fewest disjoint prefixes that make up the set: IPv4, then IPv6, each ascending. Start with a zeroed cursor;
 * 0 at the end. */
typedef struct {
    gbf_addr address; /* the prefix */
    uint32_t bits;
    int in_range, in_v6; /* what follows is the walk's own */
    uint32_t bucket;
    uint64_t bound;
    gbf_addr first, last;
} gbf_set_cursor;
int gbf_set_next(const gbf_set *s, gbf_set_cursor *cursor);

#endif
