#include "address/gbf_asn_build.h"

#include <stdlib.h>

gbf_status gbf_asn_add(gbf_asn_rows *rows, gbf_addr address, uint32_t bits, uint32_t asn)
{
    if (GBF_UNLIKELY(rows->count == rows->capacity)) {
        uint64_t capacity = rows->capacity ? 2 * rows->capacity : 1024;
        gbf_prefix_item *items = realloc(rows->items, capacity * sizeof *items);
        if (items == NULL)
            return GBF_NO_MEMORY;
        rows->items = items;
        rows->capacity = capacity;
    }
    rows->items[rows->count++] = (gbf_prefix_item){address, bits, asn};
    return GBF_OK;
}

/* Bits of the largest prefix that can start at `at`. */
static uint32_t aligned_bits(gbf_u128 at)
{
    if ((uint64_t)at != 0)
        return 128 - (uint32_t)__builtin_ctzll((uint64_t)at);
    return at != 0 ? 64 - (uint32_t)__builtin_ctzll((uint64_t)(at >> 64)) : 0;
}

gbf_status gbf_asn_add_range(gbf_asn_rows *rows, gbf_addr first, gbf_addr last, uint32_t asn)
{
    gbf_u128 at = gbf_addr_number(first), end = gbf_addr_number(last);
    for (;;) {
        uint32_t bits = aligned_bits(at);
        while ((at | gbf_addr_hostmask(bits)) > end)
            bits++;
        /* An IPv6 range may run over ::ffff:0:0/96, which is IPv4 and not part of it. */
        if (gbf_addr_is4(first) || !gbf_addr_is4(gbf_addr_of(at))) {
            gbf_status status = gbf_asn_add(rows, gbf_addr_of(at), bits, asn);
            if (status != GBF_OK)
                return status;
        }
        at |= gbf_addr_hostmask(bits);
        if (at++ == end)
            return GBF_OK;
    }
}

static gbf_asn_named *slot_of(gbf_asn_named *named, uint64_t capacity, uint32_t asn)
{
    uint64_t i = (asn * UINT64_C(0x9E3779B97F4A7C15)) >> 32 & (capacity - 1);
    while (named[i].asn != 0 && named[i].asn != asn)
        i = (i + 1) & (capacity - 1);
    return &named[i];
}

static gbf_status grow_names(gbf_asn_rows *rows)
{
    uint64_t capacity = rows->named_capacity ? 2 * rows->named_capacity : 1024;
    gbf_asn_named *named = calloc(capacity, sizeof *named);
    if (named == NULL)
        return GBF_NO_MEMORY;
    for (uint64_t i = 0; i < rows->named_capacity; i++)
        if (rows->named[i].asn != 0)
            *slot_of(named, capacity, rows->named[i].asn) = rows->named[i];
    free(rows->named);
    rows->named = named;
    rows->named_capacity = capacity;
    return GBF_OK;
}

gbf_status gbf_asn_put_name(gbf_asn_rows *rows, uint32_t asn, const char *text, uint32_t nbytes, int escaped)
{
    if (2 * rows->named_count >= rows->named_capacity && grow_names(rows) != GBF_OK)
        return GBF_NO_MEMORY;
    gbf_asn_named *named = slot_of(rows->named, rows->named_capacity, asn);
    rows->named_count += named->asn == 0;
    *named = (gbf_asn_named){text, nbytes, asn, escaped};
    return GBF_OK;
}

static int by_number(const void *a, const void *b)
{
    uint32_t left = ((const gbf_asn_named *)a)->asn, right = ((const gbf_asn_named *)b)->asn;
    return (left > right) - (left < right);
}

/* Copies a name, turning "" into one quote where it is escaped. Returns the bytes written. */
static uint32_t copy_name(char *to, const gbf_asn_named *named)
{
    if (!named->escaped) {
        memcpy(to, named->text, named->nbytes);
        return named->nbytes;
    }
    uint32_t n = 0;
    for (uint32_t i = 0; i < named->nbytes; i++) {
        to[n++] = named->text[i];
        i += named->text[i] == '"';
    }
    return n;
}

gbf_status gbf_asn_pack(const gbf_asn_rows *rows, gbf_asn_packed *packed, gbf_fault *fault)
{
    uint64_t count = 0, text_bytes = 0;
    gbf_asn_named *sorted = malloc((rows->named_count + 1) * sizeof *sorted);
    if (sorted == NULL)
        return GBF_NO_MEMORY;
    for (uint64_t i = 0; i < rows->named_capacity; i++) {
        if (rows->named[i].asn != 0) {
            sorted[count++] = rows->named[i];
            text_bytes += rows->named[i].nbytes;
        }
    }
    if (text_bytes > UINT32_MAX) {
        free(sorted);
        return gbf_refuse(fault, GBF_BAD_INPUT, "names need more than 4 GiB", text_bytes);
    }
    qsort(sorted, count, sizeof *sorted, by_number);
    packed->numbers = malloc((2 * count + 1) * sizeof(uint32_t) + text_bytes);
    if (packed->numbers == NULL) {
        free(sorted);
        return GBF_NO_MEMORY;
    }
    packed->offsets = packed->numbers + count;
    packed->text = (char *)(packed->offsets + count + 1);
    packed->count = count;
    uint32_t at = 0;
    for (uint64_t i = 0; i < count; i++) {
        packed->numbers[i] = sorted[i].asn;
        packed->offsets[i] = at;
        at += copy_name(packed->text + at, &sorted[i]);
    }
    packed->offsets[count] = at;
    packed->text_bytes = at;
    free(sorted);
    return GBF_OK;
}

void gbf_asn_rows_free(gbf_asn_rows *rows)
{
    free(rows->items);
    free(rows->named);
}
