#include "address/gbf_prefix.h"

#include "base/gbf_cpu.h"

#include <stdlib.h>

enum {
    META = GBF_TAG('M', 'E', 'T', 'A'),
    VALS = GBF_TAG('V', 'A', 'L', 'S'),
    LSTD = GBF_TAG('L', 'S', 'T', 'D'),
    LSTT = GBF_TAG('L', 'S', 'T', 'T'),
    OWN_SECTIONS = 4 + GBF_LPM_PARTS,
    MAX_EXTRA = GBF_BLOCK_MAX_SECTIONS - OWN_SECTIONS,
};

gbf_status gbf_prefix_ranges(const gbf_prefix *t, int family, gbf_range **ranges, uint64_t *count)
{
    gbf_prefix_item *items = malloc((t->count + 1) * sizeof *items);
    gbf_prefix_cursor cursor = {0};
    uint64_t n = 0;
    if (items == NULL)
        return GBF_NO_MEMORY;
    while (gbf_prefix_next(t, &cursor))
        items[n++] = cursor.item;
    gbf_status status = gbf_prefix_cut(items, n, family, ranges, count);
    free(items);
    return status;
}

/* ---- values ------------------------------------------------------------------------------------------------- */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* When some value does not fit a leaf: the distinct values, sorted; NULL and 0 otherwise. */
static gbf_status wide_values(const gbf_prefix_item *items, uint64_t count, uint32_t **values, uint64_t *value_count)
{
    uint32_t wide = 0;
    *values = NULL;
    *value_count = 0;
    for (uint64_t i = 0; i < count; i++)
        wide |= items[i].value >= GBF_NO_LEAF;
    if (!wide)
        return GBF_OK;
    uint32_t *v = malloc(count * sizeof *v);
    if (v == NULL)
        return GBF_NO_MEMORY;
    for (uint64_t i = 0; i < count; i++)
        v[i] = items[i].value;
    qsort(v, count, sizeof *v, compare_u32);
    uint64_t n = 0;
    for (uint64_t i = 0; i < count; i++)
        if (n == 0 || v[n - 1] != v[i])
            v[n++] = v[i];
    *values = v;
    *value_count = n;
    return GBF_OK;
}

static void values_to_leaves(gbf_range *ranges, uint64_t count, const uint32_t *values, uint64_t value_count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (ranges[i].leaf == GBF_NONE) {
            ranges[i].leaf = GBF_NO_LEAF;
        } else if (values != NULL) {
            const uint32_t *found = bsearch(&ranges[i].leaf, values, value_count, sizeof *values, compare_u32);
            ranges[i].leaf = (uint32_t)(found - values);
        }
    }
}

size_t gbf_prefix_values(const gbf_prefix *t, uint32_t *leaves, size_t n)
{
    size_t none = 0;
    if (t->values == NULL) {
        for (size_t i = 0; i < n;
             i++) { /* a loop for vectors: GBF_NO_LEAF and GBF_NONE are what is not above 0 after + 1 */
            uint32_t absent = (int32_t)(leaves[i] + 1) <= 0;
            leaves[i] |= 0u - absent;
            none += absent;
        }
        return n - none;
    }
    for (size_t i = 0; i < n; i++) {
        leaves[i] = gbf_prefix_value(t, leaves[i]);
        none += leaves[i] == GBF_NONE;
    }
    return n - none;
}

/* ---- block -------------------------------------------------------------------------------------------------- */

static gbf_status build_tries(gbf_lpm_build *out, const gbf_prefix_item *items, uint64_t count, const uint32_t *values,
                              uint64_t value_count)
{
    gbf_range *ranges4 = NULL, *ranges6 = NULL;
    uint64_t n4, n6;
    gbf_status status;
    if ((status = gbf_prefix_cut(items, count, 4, &ranges4, &n4)) == GBF_OK &&
        (status = gbf_prefix_cut(items, count, 6, &ranges6, &n6)) == GBF_OK) {
        values_to_leaves(ranges4, n4, values, value_count);
        values_to_leaves(ranges6, n6, values, value_count);
        status = gbf_lpm_from_ranges(out, ranges4, n4, ranges6, n6);
    }
    free(ranges4);
    free(ranges6);
    return status;
}

gbf_status gbf_prefix_build(gbf_prefix_item *items, uint64_t count, uint32_t kind, const gbf_part *extra,
                            uint32_t extra_count, void **block, gbf_fault *fault)
{
    if (extra_count > MAX_EXTRA)
        return gbf_refuse(fault, GBF_BAD_INPUT, "too many extra sections", extra_count);
    gbf_status status = gbf_prefix_sort(items, &count, fault);
    if (status != GBF_OK)
        return status;
    gbf_lpm_build tries = {0};
    gbf_list_build list = {0};
    uint32_t *values = NULL;
    uint64_t value_count = 0;
    if ((status = wide_values(items, count, &values, &value_count)) != GBF_OK ||
        (status = build_tries(&tries, items, count, values, value_count)) != GBF_OK)
        goto done;
    gbf_prefix trie = {.lpm = tries.lpm, .kernel = gbf_lpm_pick(gbf_cpu_features()), .values = values};
    if ((status = gbf_list_encode(&list, items, count, &trie)) != GBF_OK)
        goto done;
    gbf_prefix_meta meta = {0, 0};
    for (uint64_t i = 0; i < count; i++)
        meta.count4 += (uint64_t)gbf_addr_is4(items[i].address);
    meta.count6 = count - meta.count4;
    gbf_part parts[GBF_BLOCK_MAX_SECTIONS] = {
        {META, sizeof meta, &meta, sizeof meta},
        {VALS, 4, values, 4 * value_count},
        {LSTD, sizeof *list.groups, list.groups, list.group_count * sizeof *list.groups},
        {LSTT, 1, list.tokens, list.token_bytes},
    };
    gbf_lpm_parts(&tries, parts + 4);
    if (extra_count > 0)
        memcpy(parts + OWN_SECTIONS, extra, extra_count * sizeof *extra);
    status = gbf_block_build(parts, OWN_SECTIONS + extra_count, kind, block);
done:
    gbf_lpm_free(&tries);
    free(values);
    free(list.groups);
    free(list.tokens);
    return status;
}

gbf_status gbf_prefix_open(gbf_prefix *table, const void *block, uint64_t nbytes, uint32_t kind, int verify,
                           const gbf_lpm_kernel *kernel, gbf_fault *fault)
{
    gbf_status status = gbf_block_open(block, nbytes, kind, verify, fault);
    if (status != GBF_OK)
        return status;
    gbf_prefix t = {.kernel = kernel};
    uint64_t meta_count;
    const gbf_prefix_meta *meta = gbf_block_section(block, META, sizeof *meta, &meta_count);
    t.values = gbf_block_section(block, VALS, 4, &t.value_count);
    t.groups = gbf_block_section(block, LSTD, sizeof *t.groups, &t.group_count);
    t.tokens = gbf_block_section(block, LSTT, 1, &t.token_bytes);
    if (meta_count != 1 || t.values == NULL || t.groups == NULL || t.tokens == NULL)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "a section of the prefix table is missing", 64);
    if (t.value_count == 0)
        t.values = NULL;
    t.count = meta->count4 + meta->count6;
    if (meta->count4 > t.count || t.group_count != t.count / GBF_LIST_STRIDE + (t.count % GBF_LIST_STRIDE != 0))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "prefix count does not fit the prefix list", 64);
    uint32_t leaf_limit = t.values != NULL && t.value_count < GBF_NO_LEAF ? (uint32_t)t.value_count : GBF_NO_LEAF;
    if ((status = gbf_lpm_bind(&t.lpm, block, leaf_limit, GBF_NO_LEAF, kernel, fault)) != GBF_OK)
        return status;
    *table = t;
    return GBF_OK;
}
