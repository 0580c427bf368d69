#include "gbf_trie.h"

#include <stdlib.h>

/* A node to be written: the range that holds its first address, that address, and the entry that will point to it. */
typedef struct {
    gbf_addr base;
    uint64_t parent; /* direct slot, or IN_WORDS | word index */
    uint32_t range;
} pending;

#define IN_WORDS (UINT64_C(1) << 63)

typedef struct {
    pending *items;
    uint64_t first, count, capacity;
} queue;

static int push(queue *q, pending item)
{
    if (q->count == q->capacity) {
        uint64_t capacity = q->capacity ? q->capacity * 2 : 4096;
        pending *grown = realloc(q->items, capacity * sizeof *grown);
        if (grown == NULL)
            return 0;
        q->items = grown;
        q->capacity = capacity;
    }
    q->items[q->count++] = item;
    return 1;
}

typedef struct {
    const gbf_range *ranges;
    uint64_t count;
} span;

typedef struct {
    uint64_t slot_end; /* first slot after this run */
    uint32_t leaf;
    uint32_t range; /* for a child: the range that holds its first address */
    int child;
} run;

/* The run that starts at `slot`, where *range holds the slot's first address; moves *range to the next run. */
static run next_run(const span *s, gbf_u128 base, uint32_t shift, uint64_t slots, uint64_t slot, uint32_t *range)
{
    run r = {slots, s->ranges[*range].leaf, *range, 0};
    if (*range + 1 >= s->count)
        return r;
    gbf_u128 next = gbf_addr_number(s->ranges[*range + 1].start);
    gbf_u128 slot_of_next = (next - base) >> shift;
    if (slot_of_next >= slots)
        return r;
    uint64_t k = (uint64_t)slot_of_next;
    if (k > slot) { /* whole slots of one leaf */
        r.slot_end = k;
        if (base + ((gbf_u128)k << shift) == next)
            ++*range;
        return r;
    }
    r.child = 1; /* the next range starts inside this very slot */
    r.slot_end = slot + 1;
    gbf_u128 slot_end = base + ((gbf_u128)r.slot_end << shift);
    while (*range + 1 < s->count && gbf_addr_number(s->ranges[*range + 1].start) <= slot_end) {
        if (slot_end == 0) /* the family's last slot: nothing follows */
            break;
        ++*range;
    }
    return r;
}

static int reserve(gbf_trie_build *t, uint64_t words)
{
    if (t->word_count + words <= t->word_capacity)
        return 1;
    uint64_t capacity = t->word_capacity * 2 + words;
    uint32_t *grown = realloc(t->words, capacity * sizeof *grown);
    if (grown == NULL)
        return 0;
    t->words = grown;
    t->word_capacity = capacity;
    return 1;
}

/* Writes the node for the stride that follows bit `used`. The last IPv6 stride has 4 bits of address left (16 + 18 * 6 =
 * 124); they index the node from the top, as a 6-bit slot whose low 2 bits are zero. */
static int write_node(gbf_trie_build *t, queue *q, const span *s, const pending *item, uint32_t used)
{
    if (!reserve(t, 2 + 64))
        return 0;
    uint32_t stride = used + 6 <= 128 ? 6 : 128 - used, shift = 128 - used - stride;
    uint64_t at = t->word_count, entries = 0, bitmap = 0, slots = UINT64_C(1) << stride;
    if (item->parent & IN_WORDS)
        t->words[item->parent & ~IN_WORDS] = GBF_CHILD | (uint32_t)at;
    else
        t->direct[item->parent] = GBF_CHILD | (uint32_t)at;
    uint32_t range = item->range;
    gbf_u128 base = gbf_addr_number(item->base);
    for (uint64_t slot = 0; slot < slots;) {
        uint64_t entry = at + 2 + entries++;
        run r = next_run(s, base, shift, slots, slot, &range);
        bitmap |= UINT64_C(1) << (slot << (6 - stride));
        t->words[entry] = r.leaf;
        if (r.child && !push(q, (pending){gbf_addr_of(base + ((gbf_u128)slot << shift)), IN_WORDS | entry, r.range}))
            return 0;
        slot = r.slot_end;
    }
    memcpy(t->words + at, &bitmap, sizeof bitmap);
    t->word_count = at + 2 + entries;
    return t->word_count < GBF_CHILD;
}

static int write_direct(gbf_trie_build *t, queue *q, const span *s, uint32_t shift)
{
    uint32_t range = 0;
    for (uint64_t slot = 0, slots = UINT64_C(1) << t->direct_bits; slot < slots;) {
        run r = next_run(s, 0, shift, slots, slot, &range);
        if (r.child && !push(q, (pending){gbf_addr_of((gbf_u128)slot << shift), slot, r.range}))
            return 0;
        for (; slot < r.slot_end; slot++)
            t->direct[slot] = r.leaf;
    }
    return 1;
}

gbf_status gbf_trie_from_ranges(gbf_trie_build *out, const gbf_range *ranges, uint64_t count, uint32_t direct_bits)
{
    queue q = {NULL, 0, 0, 0};
    span s = {ranges, count};
    *out = (gbf_trie_build){.direct_bits = direct_bits, .word_count = 3, .word_capacity = 1024};
    out->direct = malloc(sizeof(uint32_t) << direct_bits);
    out->words = malloc(out->word_capacity * sizeof *out->words);
    int fine = out->direct != NULL && out->words != NULL;
    if (fine) {
        memcpy(out->words, gbf_trie_idle_node, sizeof gbf_trie_idle_node);
        fine = write_direct(out, &q, &s, 128 - direct_bits);
    }
    /* Breadth first, so children lie in the order of their parents: verify relies on it, and a level shares pages. */
    uint64_t level_end = q.count;
    for (uint32_t used = direct_bits; fine && q.first < q.count; used += 6) {
        while (fine && q.first < level_end) {
            pending item = q.items[q.first++];
            fine = write_node(out, &q, &s, &item, used);
        }
        level_end = q.count;
    }
    free(q.items);
    if (fine)
        return GBF_OK;
    free(out->direct);
    free(out->words);
    out->direct = out->words = NULL;
    return GBF_NO_MEMORY;
}
