/* The prefix list: 1.7 bytes a prefix on a full routing table, instead of 24.
 *
 * Token of a prefix, first byte b:
 *     0..124   length as before, delta b
 *     125      length as before, delta follows (LEB128)
 *     126      value follows (LEB128), then the prefix's own token
 *     127..255 length b - 127, delta follows (LEB128)
 * `delta` counts steps of the prefix's own size from the address before it, rounded down to that size. A value is written
 * only when the trie gives another one at the prefix's first address, that is, when a longer prefix hides it there. */
#include "address/gbf_prefix.h"

#include <stdlib.h>

enum { SHORT_DELTAS = 125, LONG_DELTA = 125, VALUE = 126, LENGTH = 127, MAX_TOKEN = 1 + 5 + 1 + 19 };

static uint8_t *put_number(uint8_t *p, gbf_u128 number)
{
    for (; number >= 128; number >>= 7)
        *p++ = (uint8_t)number | 128;
    *p++ = (uint8_t)number;
    return p;
}

/* 0 when the number runs past `end` or past 128 bits. */
static const uint8_t *get_number(const uint8_t *p, const uint8_t *end, gbf_u128 *number)
{
    *number = 0;
    for (uint32_t shift = 0; p < end && shift < 128; shift += 7) {
        uint8_t byte = *p++;
        *number |= (gbf_u128)(byte & 127) << shift;
        if (byte < 128)
            return p;
    }
    return NULL;
}

static gbf_u128 scale_down(gbf_u128 number, uint32_t bits)
{
    return bits == 0 ? 0 : number >> (128 - bits);
}

static gbf_u128 scale_up(gbf_u128 number, uint32_t bits)
{
    return bits == 0 ? 0 : number << (128 - bits);
}

gbf_status gbf_list_encode(gbf_list_build *out, const gbf_prefix_item *items, uint64_t count, const gbf_prefix *trie)
{
    uint64_t room = count * 4 + MAX_TOKEN;
    *out = (gbf_list_build){.group_count = (count + GBF_LIST_STRIDE - 1) / GBF_LIST_STRIDE};
    out->groups = malloc((out->group_count + 1) * sizeof *out->groups);
    out->tokens = malloc(room);
    if (out->groups == NULL || out->tokens == NULL)
        goto no_memory;
    gbf_u128 before = 0;
    uint32_t bits = 0;
    for (uint64_t i = 0; i < count; i++) {
        const gbf_prefix_item *item = &items[i];
        gbf_u128 address = gbf_addr_number(item->address);
        if (i % GBF_LIST_STRIDE == 0) {
            out->groups[i / GBF_LIST_STRIDE] = (gbf_list_group){item->address, out->token_bytes};
            before = address;
            bits = 0;
        }
        if (room - out->token_bytes < MAX_TOKEN) {
            room += room / 2;
            uint8_t *grown = realloc(out->tokens, room);
            if (grown == NULL)
                goto no_memory;
            out->tokens = grown;
        }
        uint8_t *p = out->tokens + out->token_bytes;
        if (gbf_prefix_find(trie, item->address) != item->value) {
            *p++ = VALUE;
            p = put_number(p, item->value);
        }
        gbf_u128 delta = scale_down(address, item->bits) - scale_down(before, item->bits);
        if (item->bits != bits || i % GBF_LIST_STRIDE == 0) {
            *p++ = (uint8_t)(LENGTH + item->bits);
            p = put_number(p, delta);
        } else if (delta < SHORT_DELTAS) {
            *p++ = (uint8_t)delta;
        } else {
            *p++ = LONG_DELTA;
            p = put_number(p, delta);
        }
        out->token_bytes = (uint64_t)(p - out->tokens);
        before = address;
        bits = item->bits;
    }
    return GBF_OK;
no_memory:
    free(out->groups);
    free(out->tokens);
    *out = (gbf_list_build){0};
    return GBF_NO_MEMORY;
}

int gbf_prefix_next(const gbf_prefix *t, gbf_prefix_cursor *cursor)
{
    if (cursor->index >= t->count)
        return 0;
    if (cursor->index % GBF_LIST_STRIDE == 0) {
        const gbf_list_group *group = &t->groups[cursor->index / GBF_LIST_STRIDE];
        cursor->item.address = group->base;
        cursor->item.bits = 0;
        cursor->token = group->token;
    }
    if (cursor->token >= t->token_bytes)
        return 0;
    const uint8_t *p = t->tokens + cursor->token, *end = t->tokens + t->token_bytes;
    gbf_u128 value = 0, delta;
    int hidden = *p == VALUE;
    if (hidden) {
        p = get_number(p + 1, end, &value);
        if (p == NULL || p == end || *p == VALUE || value >= GBF_NONE)
            return 0;
    }
    uint8_t first = *p++;
    uint32_t bits = first >= LENGTH ? (uint32_t)first - LENGTH : cursor->item.bits;
    if (first < SHORT_DELTAS)
        delta = first;
    else if ((p = get_number(p, end, &delta)) == NULL)
        return 0;
    cursor->item.address = gbf_addr_of(scale_up(scale_down(gbf_addr_number(cursor->item.address), bits) + delta, bits));
    cursor->item.bits = bits;
    cursor->item.value = hidden ? (uint32_t)value : gbf_prefix_find(t, cursor->item.address);
    cursor->token = (uint64_t)(p - t->tokens);
    cursor->index++;
    return 1;
}

static int after(gbf_prefix_item a, gbf_u128 address, uint32_t bits)
{
    gbf_u128 number = gbf_addr_number(a.address);
    return number != address ? number > address : a.bits > bits;
}

/* The last item not after (address, bits) in list order. */
static int predecessor(const gbf_prefix *t, gbf_u128 address, uint32_t bits, gbf_prefix_item *item)
{
    uint64_t low = 0, high = t->group_count; /* groups [0, low) start at or before `address` */
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (gbf_addr_number(t->groups[middle].base) <= address)
            low = middle + 1;
        else
            high = middle;
    }
    /* Several groups may start with one address (all its prefix lengths): step back while the first is after us. */
    for (; low > 0; low--) {
        gbf_prefix_cursor cursor = {.index = (low - 1) * GBF_LIST_STRIDE};
        uint64_t end = low * GBF_LIST_STRIDE;
        int found = 0;
        while (cursor.index < end && gbf_prefix_next(t, &cursor) && !after(cursor.item, address, bits)) {
            *item = cursor.item;
            found = 1;
        }
        if (found)
            return 1;
    }
    return 0;
}

int gbf_prefix_get(const gbf_prefix *t, gbf_addr address, uint32_t bits, uint32_t *value)
{
    gbf_prefix_item item;
    if (!predecessor(t, gbf_addr_number(address), bits, &item))
        return 0;
    *value = item.value;
    return item.bits == bits && gbf_addr_number(item.address) == gbf_addr_number(address);
}

static uint32_t common_bits(gbf_u128 a, gbf_u128 b)
{
    gbf_u128 x = a ^ b;
    if (x >> 64)
        return (uint32_t)__builtin_clzll((uint64_t)(x >> 64));
    return (uint64_t)x ? 64 + (uint32_t)__builtin_clzll((uint64_t)x) : 128;
}

int gbf_prefix_covering(const gbf_prefix *t, gbf_addr address, gbf_prefix_item *item)
{
    gbf_u128 number = gbf_addr_number(address);
    uint32_t family_bits = gbf_addr_is4(address) ? 96 : 0, bits = 128;
    /* Any prefix that covers the address also covers its predecessor p (it sorts before p and p before the address), so
     * it is no longer than the bits p and the address share. */
    while (predecessor(t, number & ~gbf_addr_hostmask(bits), bits, item)) {
        uint32_t common = common_bits(gbf_addr_number(item->address), number);
        if (common >= item->bits)
            return item->bits >= family_bits;
        if (common >= bits) /* cannot happen in a sound list; a damaged one must not spin */
            return 0;
        bits = common;
    }
    return 0;
}

gbf_status gbf_prefix_verify(const gbf_prefix *t, gbf_fault *fault)
{
    gbf_prefix_cursor cursor = {0};
    gbf_prefix_item last = {0};
    for (uint64_t i = 0; i < t->count; i++) {
        uint64_t at = cursor.token;
        if (!gbf_prefix_next(t, &cursor))
            return gbf_refuse(fault, GBF_BAD_FORMAT, "prefix list token is damaged", at);
        gbf_prefix_item item = cursor.item;
        if (item.bits > 128 || (gbf_addr_number(item.address) & gbf_addr_hostmask(item.bits)) != 0 ||
            item.value == GBF_NONE)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "prefix list holds a prefix that is none", at);
        if (i > 0 && !after(item, gbf_addr_number(last.address), last.bits))
            return gbf_refuse(fault, GBF_BAD_FORMAT, "prefix list is out of order", at);
        last = item;
    }
    return cursor.token == t->token_bytes
               ? GBF_OK
               : gbf_refuse(fault, GBF_BAD_FORMAT, "prefix list has bytes left over", cursor.token);
}
