#include "address/gbf_trie.h"

#include <stdlib.h>

/* A node to be written: the range that holds its first address, that address, the bits of it that are behind us, and the
 * entry that will point to it. */
typedef struct {
    gbf_addr base;
    uint64_t parent; /* direct slot, or IN_WORDS | word index */
    uint32_t range, used;
} pending;

#define IN_WORDS (UINT64_C(1) << 63)

typedef struct {
    pending *items;
    uint64_t count, capacity;
} stack;

/* A trie being written. */
typedef struct {
    uint32_t *direct, *words;
    uint64_t word_count, word_capacity;
    uint32_t direct_bits;
} growing;

static int push(stack *q, pending item)
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

static int reserve(growing *t, uint64_t words)
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
static int write_node(growing *t, stack *q, const span *s, const pending *item)
{
    uint32_t used = item->used;
    uint32_t stride = used + 6 <= 128 ? 6 : 128 - used, shift = 128 - used - stride;
    uint64_t entries = 0, bitmap = 0, slots = UINT64_C(1) << stride;
    run runs[64];
    uint64_t slot_of[64];
    uint32_t range = item->range;
    gbf_u128 base = gbf_addr_number(item->base);
    for (uint64_t slot = 0; slot < slots; slot = runs[entries++].slot_end) {
        runs[entries] = next_run(s, base, shift, slots, slot, &range);
        slot_of[entries] = slot;
        bitmap |= UINT64_C(1) << (slot << (6 - stride));
    }
    uint64_t at = gbf_trie_place(t->word_count, 2 + entries);
    if (!reserve(t, at - t->word_count + 2 + entries))
        return 0;
    memset(t->words + t->word_count, 0, (at - t->word_count) * sizeof *t->words);
    memcpy(t->words + at, &bitmap, sizeof bitmap);
    if (item->parent & IN_WORDS)
        t->words[item->parent & ~IN_WORDS] = GBF_CHILD | (uint32_t)at;
    else
        t->direct[item->parent] = GBF_CHILD | (uint32_t)at;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry = at + 2 + i;
        t->words[entry] = runs[i].leaf;
        gbf_addr first = gbf_addr_of(base + ((gbf_u128)slot_of[i] << shift));
        if (runs[i].child && !push(q, (pending){first, IN_WORDS | entry, runs[i].range, used + stride}))
            return 0;
    }
    t->word_count = at + 2 + entries;
    return t->word_count < GBF_CHILD;
}

static int write_direct(growing *t, stack *q, const span *s, uint32_t shift)
{
    uint32_t range = 0;
    for (uint64_t slot = 0, slots = UINT64_C(1) << t->direct_bits; slot < slots;) {
        run r = next_run(s, 0, shift, slots, slot, &range);
        if (r.child && !push(q, (pending){gbf_addr_of((gbf_u128)slot << shift), slot, r.range, t->direct_bits}))
            return 0;
        for (; slot < r.slot_end; slot++)
            t->direct[slot] = r.leaf;
    }
    return 1;
}

static gbf_status build(growing *out, const gbf_range *ranges, uint64_t count, uint32_t direct_bits)
{
    stack q = {NULL, 0, 0};
    span s = {ranges, count};
    *out = (growing){.direct_bits = direct_bits, .word_count = 3, .word_capacity = 1024};
    out->direct = malloc(sizeof(uint32_t) << direct_bits);
    out->words = malloc(out->word_capacity * sizeof *out->words);
    int fine = out->direct != NULL && out->words != NULL;
    if (fine) {
        memcpy(out->words, gbf_trie_idle_node, sizeof gbf_trie_idle_node);
        fine = write_direct(out, &q, &s, 128 - direct_bits);
    }
    /* Depth first, the last child first: verify relies on it, and what hangs below a node lies behind it, mostly in the
     * same line or the next. */
    while (fine && q.count > 0) {
        pending item = q.items[--q.count];
        fine = write_node(out, &q, &s, &item);
    }
    free(q.items);
    return fine ? GBF_OK : GBF_NO_MEMORY;
}

/* Tables of few ranges start with fewer direct bits: 16 KB instead of 1 MB for IPv4, 4 KB instead of 256 KB for IPv6. */
#define FEW_RANGES4 100000u
#define FEW_RANGES6 10000u

gbf_status gbf_lpm_from_ranges(gbf_lpm_build *out, const gbf_range *ranges4, uint64_t count4, const gbf_range *ranges6,
                               uint64_t count6)
{
    growing v4, v6 = {0};
    gbf_status status = build(&v4, ranges4, count4, count4 <= FEW_RANGES4 ? 12 : 18);
    if (status == GBF_OK)
        status = build(&v6, ranges6, count6, count6 <= FEW_RANGES6 ? 10 : 16);
    *out = (gbf_lpm_build){
        v4.direct,
        v4.words,
        v6.direct,
        v6.words,
        {{v4.direct, v4.words, v4.word_count, v4.direct_bits}, {v6.direct, v6.words, v6.word_count, v6.direct_bits}}};
    return status;
}

void gbf_lpm_free(gbf_lpm_build *build)
{
    free(build->direct4);
    free(build->words4);
    free(build->direct6);
    free(build->words6);
}

enum {
    DIR4 = GBF_TAG('D', 'I', 'R', '4'),
    WRD4 = GBF_TAG('W', 'R', 'D', '4'),
    DIR6 = GBF_TAG('D', 'I', 'R', '6'),
    WRD6 = GBF_TAG('W', 'R', 'D', '6'),
};

void gbf_lpm_parts(const gbf_lpm_build *build, gbf_part parts[GBF_LPM_PARTS])
{
    const gbf_trie *v4 = &build->lpm.v4, *v6 = &build->lpm.v6;
    parts[0] = (gbf_part){DIR4, 4, v4->direct, UINT64_C(4) << v4->direct_bits};
    parts[1] = (gbf_part){WRD4, 4, v4->words, 4 * v4->word_count};
    parts[2] = (gbf_part){DIR6, 4, v6->direct, UINT64_C(4) << v6->direct_bits};
    parts[3] = (gbf_part){WRD6, 4, v6->words, 4 * v6->word_count};
}

/* `max_bits` 18 or 16: six-bit strides below it must end at bit 64 of an IPv6 address, and past bit 32 of an IPv4 one. */
static gbf_status bind_trie(gbf_trie *t, const void *block, uint32_t direct_tag, uint32_t words_tag, uint32_t max_bits,
                            gbf_fault *fault)
{
    uint64_t direct_count;
    t->direct = gbf_block_section(block, direct_tag, 4, &direct_count);
    t->words = gbf_block_section(block, words_tag, 4, &t->word_count);
    if (t->direct == NULL || t->words == NULL)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "a trie section is missing", 64);
    t->direct_bits = direct_count > 0 ? (uint32_t)__builtin_ctzll(direct_count) : 0;
    if (direct_count != UINT64_C(1) << t->direct_bits || t->direct_bits > max_bits || t->direct_bits < max_bits - 12 ||
        (max_bits - t->direct_bits) % 6 != 0 || t->word_count >= GBF_CHILD)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "trie sections have impossible sizes", 64);
    return GBF_OK;
}

gbf_status gbf_lpm_bind(gbf_lpm *lpm, const void *block, uint32_t leaf_limit, uint32_t none,
                        const gbf_lpm_kernel *kernel, gbf_fault *fault)
{
    gbf_status status;
    if ((status = bind_trie(&lpm->v4, block, DIR4, WRD4, 18, fault)) != GBF_OK ||
        (status = bind_trie(&lpm->v6, block, DIR6, WRD6, 16, fault)) != GBF_OK ||
        (status = kernel->verify(&lpm->v4, leaf_limit, none, fault)) != GBF_OK ||
        (status = kernel->verify(&lpm->v6, leaf_limit, none, fault)) != GBF_OK)
        return status;
    return GBF_OK;
}
