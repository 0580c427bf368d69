/* Exemptions of trackers: disjoint ranges of addresses and of AS numbers, each sorted. Lists are short, so a binary
 * search over a few lines of cache answers; the empty list costs one branch. */
#ifndef GBF_EXEMPT_H
#define GBF_EXEMPT_H

#include "address/gbf_addr.h"

typedef struct {
    gbf_addr first, last; /* inclusive */
} gbf_addr_range;

typedef struct {
    uint32_t first, last; /* inclusive */
} gbf_asn_range;

typedef struct {
    const gbf_addr_range *addresses; /* borrowed, ascending, disjoint */
    const gbf_asn_range *asns;       /* the same */
    uint32_t address_count, asn_count;
} gbf_exempt;

/* Number of ranges that begin at or below `asn`. */
GBF_INLINE uint32_t gbf_asn_ranges_below(const gbf_asn_range *ranges, uint32_t count, uint32_t asn)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ranges[middle].first <= asn)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* 1 when the address or its origin AS (0: unknown, never exempt) is on a list. */
static inline int gbf_exempt_covers(const gbf_exempt *e, gbf_addr address, uint32_t asn)
{
    if (e->asn_count != 0 && asn != 0) {
        uint32_t below = gbf_asn_ranges_below(e->asns, e->asn_count, asn);
        if (below != 0 && asn <= e->asns[below - 1].last)
            return 1;
    }
    uint32_t low = 0, high = e->address_count;
    gbf_u128 number = gbf_addr_number(address);
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (gbf_addr_number(e->addresses[middle].first) <= number)
            low = middle + 1;
        else
            high = middle;
    }
    return low != 0 && number <= gbf_addr_number(e->addresses[low - 1].last);
}

#endif
