/* First step of every builder of prefixes: check and sort them, cut the families into ranges. */
#include "address/gbf_prefix.h"

#include <stdlib.h>

/* ---- sorting ------------------------------------------------------------------------------------------------ */

static int in_order(const gbf_prefix_item *a, const gbf_prefix_item *b)
{
    if (a->address.high != b->address.high)
        return a->address.high < b->address.high;
    if (a->address.low != b->address.low)
        return a->address.low < b->address.low;
    return a->bits <= b->bits;
}

static uint8_t digit(const gbf_prefix_item *item, int index)
{
    if (index == 0)
        return (uint8_t)item->bits;
    return (uint8_t)(index <= 8 ? item->address.low >> (8 * (index - 1)) : item->address.high >> (8 * (index - 9)));
}

/* Stable least-significant-digit radix sort by (address, bits); `spare` has room for `count` items. Digits in which all items agree
 * cost nothing: IPv4 tables need five passes. */
static void radix_sort(gbf_prefix_item *items, gbf_prefix_item *spare, uint64_t count)
{
    enum { DIGITS = 17 };
    static const uint64_t zero[DIGITS][256];
    uint64_t histogram[DIGITS][256];
    memcpy(histogram, zero, sizeof histogram);
    for (uint64_t i = 0; i < count; i++)
        for (int d = 0; d < DIGITS; d++)
            histogram[d][digit(&items[i], d)]++;
    gbf_prefix_item *from = items, *to = spare;
    for (int d = 0; d < DIGITS; d++) {
        if (count == 0 || histogram[d][digit(&from[0], d)] == count)
            continue;
        uint64_t at[256], sum = 0;
        for (int v = 0; v < 256; v++) {
            at[v] = sum;
            sum += histogram[d][v];
        }
        for (uint64_t i = 0; i < count; i++)
            to[at[digit(&from[i], d)]++] = from[i];
        gbf_prefix_item *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

/* IPv4 items fit one word: address 32, bits 6, index 26. Four passes over 8-byte keys instead of five over 24-byte items. */
#define KEY_INDEX_BITS 26

static gbf_status sort4(gbf_prefix_item *sorted, const gbf_prefix_item *items, uint64_t count)
{
    enum { DIGIT = 10, BUCKETS = 1 << DIGIT, PASSES = 4 };
    if (count == 0)
        return GBF_OK;
    uint64_t *keys = malloc(2 * count * sizeof *keys), *to = keys + count, *from = keys;
    if (keys == NULL)
        return GBF_NO_MEMORY;
    uint64_t histogram[PASSES][BUCKETS] = {{0}};
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key = (items[i].address.low << 6 & UINT64_C(0x3FFFFFFFC0)) | (items[i].bits - 96);
        for (int pass = 0; pass < PASSES; pass++)
            histogram[pass][key >> (DIGIT * pass) & (BUCKETS - 1)]++;
        from[i] = key << KEY_INDEX_BITS | i;
    }
    for (int pass = 0; pass < PASSES; pass++) {
        uint64_t sum = 0;
        int shift = KEY_INDEX_BITS + DIGIT * pass;
        for (int v = 0; v < BUCKETS; v++) {
            uint64_t n = histogram[pass][v];
            histogram[pass][v] = sum;
            sum += n;
        }
        for (uint64_t i = 0; i < count; i++)
            to[histogram[pass][from[i] >> shift & (BUCKETS - 1)]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t ahead = i + 16 < count ? from[i + 16] : from[i];
        GBF_PREFETCH(&items[ahead & ((UINT64_C(1) << KEY_INDEX_BITS) - 1)]);
        sorted[i] = items[from[i] & ((UINT64_C(1) << KEY_INDEX_BITS) - 1)];
    }
    free(keys);
    return GBF_OK;
}

/* Unsorted items into `sorted` (room for `n`), IPv4 in its place among IPv6. Families are sorted apart: their digits differ. */
static gbf_status sort_families(gbf_prefix_item *items, gbf_prefix_item *sorted, uint64_t n)
{
    const gbf_u128 mapped = (gbf_u128)GBF_MAPPED;
    uint64_t n4 = 0, below = 0, n6;
    for (uint64_t i = 0; i < n; i++)
        n4 += (uint64_t)gbf_addr_is4(items[i].address);
    n6 = n - n4;
    for (uint64_t i = 0, at4 = 0, at6 = n4; i < n; i++)
        sorted[gbf_addr_is4(items[i].address) ? at4++ : at6++] = items[i];
    memcpy(items, sorted, n * sizeof *items);
    gbf_prefix_item *v6 = items + n4;
    radix_sort(v6, sorted, n6);
    while (below < n6 && gbf_addr_number(v6[below].address) < mapped)
        below++;
    memcpy(sorted, v6, below * sizeof *items);
    memcpy(sorted + below + n4, v6 + below, (n6 - below) * sizeof *items);
    if (n4 < UINT64_C(1) << KEY_INDEX_BITS)
        return sort4(sorted + below, items, n4);
    radix_sort(items, sorted + below, n4);
    memcpy(sorted + below, items, n4 * sizeof *items);
    return GBF_OK;
}

/* Refuses items that are no prefixes; *ascending tells whether they are sorted already and all different. */
static gbf_status check_items(const gbf_prefix_item *items, uint64_t count, int *ascending, gbf_fault *fault)
{
    *ascending = 1;
    for (uint64_t i = 0; i < count; i++) {
        *ascending &= i == 0 || !in_order(&items[i], &items[i - 1]);
        const gbf_prefix_item *item = &items[i];
        if (item->bits > 128)
            return gbf_refuse(fault, GBF_BAD_INPUT, "prefix length is over 128", i);
        if (gbf_addr_number(item->address) & gbf_addr_hostmask(item->bits))
            return gbf_refuse(fault, GBF_BAD_INPUT, "prefix has host bits set", i);
        if (item->value == GBF_NONE)
            return gbf_refuse(fault, GBF_BAD_INPUT, "value 4294967295 is reserved", i);
    }
    return GBF_OK;
}

gbf_status gbf_prefix_sort(gbf_prefix_item *items, uint64_t *count, gbf_fault *fault)
{
    int ascending;
    gbf_status status = check_items(items, *count, &ascending, fault);
    if (status != GBF_OK || ascending)
        return status;
    uint64_t n = *count, kept = 0;
    gbf_prefix_item *sorted = malloc(n * sizeof *sorted);
    status = sorted != NULL ? sort_families(items, sorted, n) : GBF_NO_MEMORY;
    for (uint64_t i = 0; status == GBF_OK && i < n; i++) {
        if (i + 1 < n && in_order(&sorted[i + 1], &sorted[i])) /* equal: a later one takes its place */
            continue;
        items[kept++] = sorted[i];
    }
    free(sorted);
    if (status == GBF_OK)
        *count = kept;
    return status;
}

/* ---- ranges ------------------------------------------------------------------------------------------------- */

typedef struct {
    gbf_range *ranges;
    uint64_t count;
} range_list;

/* From `start` on the leaf is `leaf`, until told otherwise. */
static void emit(range_list *list, gbf_u128 start, uint32_t leaf)
{
    uint64_t n = list->count;
    if (n > 0 && gbf_addr_number(list->ranges[n - 1].start) == start)
        n--;
    if (n == 0 || list->ranges[n - 1].leaf != leaf)
        list->ranges[n++] = (gbf_range){gbf_addr_of(start), leaf};
    list->count = n;
}

/* Cuts the family into ranges with a stack of the prefixes that are open at the sweep's position. `ranges` has room for 2 *
 * count + 1. */
static uint64_t sweep(const gbf_prefix_item *items, uint64_t count, int family, gbf_range *ranges)
{
    struct {
        gbf_u128 last;
        uint32_t leaf;
    } open[130];
    uint32_t depth = 0, shift = family == 4 ? 96 : 0;
    range_list list = {ranges, 0};
    emit(&list, 0, GBF_NONE);
    for (uint64_t i = 0; i <= count; i++) {
        gbf_u128 start = i < count ? gbf_addr_number(items[i].address) << shift : 0;
        while (depth > 0 && (i == count || open[depth - 1].last < start)) {
            gbf_u128 last = open[--depth].last;
            if (last != ~(gbf_u128)0)
                emit(&list, last + 1, depth > 0 ? open[depth - 1].leaf : GBF_NONE);
        }
        if (i == count)
            break;
        emit(&list, start, items[i].value);
        open[depth].last = start | gbf_addr_hostmask(items[i].bits - shift);
        open[depth++].leaf = items[i].value;
    }
    return list.count;
}

/* Sorted items of one family: IPv4 is one run inside the IPv6 order, so IPv6 comes in two parts. */
typedef struct {
    uint64_t begin4, end4;
} families;

static families split(const gbf_prefix_item *items, uint64_t count)
{
    families f = {0, 0};
    while (f.begin4 < count && !gbf_addr_is4(items[f.begin4].address))
        f.begin4++;
    f.end4 = f.begin4;
    while (f.end4 < count && gbf_addr_is4(items[f.end4].address))
        f.end4++;
    return f;
}

gbf_status gbf_prefix_cut(const gbf_prefix_item *items, uint64_t count, int family, gbf_range **ranges,
                          uint64_t *range_count)
{
    families f = split(items, count);
    uint64_t n4 = f.end4 - f.begin4, n = family == 4 ? n4 : count - n4;
    gbf_prefix_item *joined = NULL;
    const gbf_prefix_item *from = items + f.begin4;
    if (family == 6) {
        from = items;
        if (n4 > 0) {
            from = joined = malloc((n ? n : 1) * sizeof *joined);
            if (joined == NULL)
                return GBF_NO_MEMORY;
            memcpy(joined, items, f.begin4 * sizeof *items);
            memcpy(joined + f.begin4, items + f.end4, (count - f.end4) * sizeof *items);
        }
    }
    *ranges = malloc((2 * n + 1) * sizeof **ranges);
    if (*ranges != NULL)
        *range_count = sweep(from, n, family, *ranges);
    free(joined);
    return *ranges != NULL ? GBF_OK : GBF_NO_MEMORY;
}
