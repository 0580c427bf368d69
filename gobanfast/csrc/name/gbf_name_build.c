#include "name/gbf_name_build.h"

#include <stdlib.h>

/* Patterns from which on texts lie in cells: smaller tables stay in the cache, and are smaller packed. */
enum { CELLS_FROM = 30000 };

typedef struct {
    uint64_t mixed;
    uint32_t text, value; /* text: offset in the arena */
    uint8_t nbytes, kind;
} entry;

typedef struct {
    const uint8_t *text;            /* of the anchor, once the arena stands still */
    uint32_t anchor, anchor_nbytes; /* offset in the arena; 0 bytes: no anchor */
    uint32_t number, first_item, count;
} way;

struct gbf_name_builder {
    gbf_name_head head;
    entry *entries;
    uint8_t *arena;
    uint32_t *glob_values;
    way *ways;
    gbf_glob_item *items;
    gbf_name_many *many;
    gbf_name_bucket *buckets;
    uint64_t entry_count, entry_room, arena_used, arena_room, glob_count, glob_room, way_count, way_room, item_count,
        item_room;
    uint64_t many_count, many_room, bucket_count, bucket_room, text_nbytes, keys;
    gbf_automata automata;
};

/* Room for `more` items after `used`; doubles. */
static int reserve(void **array, uint64_t *room, uint64_t used, uint64_t more, uint64_t item_bytes)
{
    if (used + more <= *room)
        return 1;
    uint64_t wanted = 2 * (used + more) + 64;
    void *bigger = realloc(*array, wanted * item_bytes);
    if (bigger == NULL)
        return 0;
    *array = bigger;
    *room = wanted;
    return 1;
}
#define RESERVE(array, room, used, more) reserve((void **)&(array), &(room), (used), (more), sizeof *(array))

gbf_name_builder *gbf_name_builder_new(const uint64_t key[GBF_NAME_KEYS], int keep_text)
{
    gbf_name_builder *b = calloc(1, sizeof *b);
    if (b != NULL) {
        memcpy(b->head.key, key, sizeof b->head.key);
        b->head.has_text = keep_text != 0;
    }
    return b;
}

void gbf_name_builder_free(gbf_name_builder *b)
{
    if (b == NULL)
        return;
    free(b->entries);
    free(b->arena);
    free(b->glob_values);
    free(b->ways);
    free(b->items);
    free(b->many);
    free(b->buckets);
    gbf_automata_free(&b->automata);
    free(b);
}

static int keep(gbf_name_builder *b, const gbf_name *name, uint32_t *offset)
{
    if (b->arena_used + name->nbytes > UINT32_MAX ||
        !RESERVE(b->arena, b->arena_room, b->arena_used, name->nbytes + 64))
        return 0;
    *offset = (uint32_t)b->arena_used;
    memcpy(b->arena + b->arena_used, name->text, name->nbytes);
    b->arena_used += name->nbytes;
    return 1;
}

/* An entry whose key text is in the arena already. */
static gbf_status enter(gbf_name_builder *b, const gbf_name *key, uint32_t text, uint32_t kind, uint32_t value)
{
    uint64_t chain = 0, depth = 0;
    for (uint32_t end = key->nbytes, start = end; start != 0; end = start - 1, depth++) {
        start = gbf_label_start(key->dots, end);
        chain = gbf_name_chain(b->head.key, chain, key->text + start, end - start);
    }
    if (!RESERVE(b->entries, b->entry_room, b->entry_count, 1))
        return GBF_NO_MEMORY;
    b->head.depths |= UINT64_C(1) << (depth < 63 ? depth : 63);
    b->entries[b->entry_count++] = (entry){gbf_name_mix(chain), text, value, (uint8_t)key->nbytes, (uint8_t)kind};
    return GBF_OK;
}

gbf_status gbf_name_builder_add(gbf_name_builder *b, const gbf_name *key, uint32_t kind, uint32_t value)
{
    uint32_t text;
    return keep(b, key, &text) ? enter(b, key, text, kind, value) : GBF_NO_MEMORY;
}

gbf_status gbf_name_builder_glob(gbf_name_builder *b, uint32_t value)
{
    if (!RESERVE(b->glob_values, b->glob_room, b->glob_count, 1))
        return GBF_NO_MEMORY;
    b->glob_values[b->glob_count++] = value;
    return GBF_OK;
}

gbf_status gbf_name_builder_way(gbf_name_builder *b, const gbf_name *anchor, const gbf_glob_item *items, uint32_t count)
{
    way w = {NULL, 0, anchor == NULL ? 0 : anchor->nbytes, (uint32_t)b->glob_count - 1, (uint32_t)b->item_count, count};
    if (!RESERVE(b->ways, b->way_room, b->way_count, 1) || !RESERVE(b->items, b->item_room, b->item_count, count))
        return GBF_NO_MEMORY;
    if (anchor != NULL && !keep(b, anchor, &w.anchor))
        return GBF_NO_MEMORY;
    memcpy(b->items + b->item_count, items, count * sizeof *items);
    b->item_count += count;
    b->ways[b->way_count++] = w;
    return GBF_OK;
}

static int by_anchor(const void *a, const void *b)
{
    const way *x = a, *y = b;
    if (x->anchor_nbytes != y->anchor_nbytes)
        return x->anchor_nbytes < y->anchor_nbytes ? -1 : 1;
    int order = x->anchor_nbytes == 0 ? 0 : memcmp(x->text, y->text, x->anchor_nbytes);
    return order != 0 ? order : x->first_item < y->first_item ? -1 : 1;
}

static int same_anchor(const way *x, const way *y)
{
    return x->anchor_nbytes == y->anchor_nbytes &&
           (x->anchor_nbytes == 0 || memcmp(x->text, y->text, x->anchor_nbytes) == 0);
}

/* Automata for every group of globs with the same literal right end, and a key that leads to each; those without come first. */
static gbf_status build_globs(gbf_name_builder *b, gbf_fault *fault)
{
    gbf_glob *globs = malloc((b->way_count + 1) * sizeof *globs);
    if (globs == NULL)
        return gbf_refuse(fault, GBF_NO_MEMORY, "out of memory", 0);
    for (uint64_t i = 0; i < b->way_count; i++)
        b->ways[i].text = b->arena + b->ways[i].anchor;
    qsort(b->ways, b->way_count, sizeof *b->ways, by_anchor);
    gbf_status status = GBF_OK;
    for (uint64_t first = 0, last; status == GBF_OK && first < b->way_count; first = last) {
        gbf_name anchor;
        const way *w = b->ways;
        uint32_t automaton = (uint32_t)b->automata.automaton_count;
        for (last = first; last < b->way_count && same_anchor(&w[first], &w[last]); last++)
            globs[last - first] = (gbf_glob){b->items + w[last].first_item, w[last].count, w[last].number};
        if (w[first].anchor_nbytes > 0)
            gbf_name_read(&anchor, w[first].text, w[first].anchor_nbytes, gbf_name_fold_scalar);
        status = gbf_automata_add(&b->automata, globs, last - first, fault);
        if (status == GBF_OK && w[first].anchor_nbytes == 0)
            b->head.roots = (uint32_t)b->automata.automaton_count;
        else if (status == GBF_OK)
            status = enter(b, &anchor, w[first].anchor, GBF_NAME_GLOB, automaton);
    }
    free(globs);
    return status;
}

/* A key on its way to a slot: all that was said about one text. */
typedef struct {
    uint64_t mixed;
    uint32_t text, value;
    uint8_t nbytes, kinds;
} slot;

typedef struct {
    slot *slots;
    uint64_t count, room;
} slot_list;

/* Adds what `e` says to the key it shares with list->slots[from..], or a new key. */
static int merge(gbf_name_builder *b, slot_list *list, uint64_t from, const entry *e)
{
    for (uint64_t i = from; i < list->count; i++) {
        slot *s = &list->slots[i];
        if (s->mixed != e->mixed || s->nbytes != e->nbytes ||
            memcmp(b->arena + s->text, b->arena + e->text, e->nbytes) != 0)
            continue;
        if (s->kinds & e->kind)
            return 1; /* the first of equal patterns counts */
        if (!(s->kinds & GBF_NAME_MULTI)) {
            if (!RESERVE(b->many, b->many_room, b->many_count, 1))
                return 0;
            b->many[b->many_count] = (gbf_name_many){{s->value}, {s->kinds}};
            s->value = (uint32_t)b->many_count++;
        }
        gbf_name_many *many = &b->many[s->value];
        uint32_t at = 0;
        while (many->kind[at] != 0)
            at++;
        for (; e->kind == GBF_NAME_EXACT && at > 0; at--) { /* exact beats every other kind of the same key */
            many->value[at] = many->value[at - 1];
            many->kind[at] = many->kind[at - 1];
        }
        many->value[at] = e->value;
        many->kind[at] = e->kind;
        s->kinds |= e->kind | GBF_NAME_MULTI;
        b->keys += e->kind != GBF_NAME_GLOB;
        return 1;
    }
    if (!RESERVE(list->slots, list->room, list->count, 1))
        return 0;
    list->slots[list->count++] = (slot){e->mixed, e->text, e->value, e->nbytes, e->kind};
    b->keys += e->kind != GBF_NAME_GLOB;
    return 1;
}

/* Fills bucket `index` with the first waiting keys; text still points into the arena. */
static int fill(gbf_name_builder *b, uint64_t index, slot_list *waiting)
{
    if (!RESERVE(b->buckets, b->bucket_room, index, 1))
        return 0;
    gbf_name_bucket *bucket = &b->buckets[index];
    uint64_t take = waiting->count < GBF_BUCKET_SLOTS ? waiting->count : GBF_BUCKET_SLOTS;
    memset(bucket, 0, sizeof *bucket);
    for (uint64_t i = 0; i < take; i++) {
        const slot *s = &waiting->slots[i];
        bucket->tag[i] = (uint16_t)(s->mixed >> 32);
        bucket->kinds[i] = s->kinds;
        bucket->value[i] = s->value;
        bucket->check[i] = b->head.has_text ? s->nbytes : (uint8_t)(s->mixed >> 48);
        bucket->text[i] = b->head.has_text ? s->text : (uint32_t)s->mixed;
        b->text_nbytes += s->nbytes;
    }
    waiting->count -= take;
    bucket->over = waiting->count > 0;
    memmove(waiting->slots, waiting->slots + take, waiting->count * sizeof *waiting->slots);
    b->bucket_count = index + 1;
    return 1;
}

/* Sorts entries by home bucket (counting sort, stable), merges equal keys and lays them out; what does not fit goes to the next
 * bucket, and past the last home bucket into as many more as it takes. */
static int build_buckets(gbf_name_builder *b)
{
    uint64_t home = b->head.home;
    uint32_t *begin = calloc(home + 2, sizeof *begin), *order = malloc((b->entry_count + 1) * sizeof *order);
    slot_list waiting = {0};
    int good = begin != NULL && order != NULL && RESERVE(waiting.slots, waiting.room, 0, 1);
    if (good) {
        for (uint64_t i = 0; i < b->entry_count; i++)
            begin[gbf_scale(b->entries[i].mixed, home) + 2]++;
        for (uint64_t i = 0; i < home; i++)
            begin[i + 2] += begin[i + 1];
        for (uint64_t i = 0; i < b->entry_count; i++)
            order[begin[gbf_scale(b->entries[i].mixed, home) + 1]++] = (uint32_t)i;
    }
    for (uint64_t i = 0; good && (i < home || waiting.count > 0); i++) {
        uint64_t from = waiting.count;
        for (uint64_t j = i < home ? begin[i] : 0; good && i < home && j < begin[i + 1]; j++) {
            if (j + 12 < b->entry_count)
                GBF_PREFETCH(&b->entries[order[j + 12]]);
            good = merge(b, &waiting, from, &b->entries[order[j]]);
        }
        good = good && fill(b, i, &waiting);
    }
    free(begin);
    free(order);
    free(waiting.slots);
    return good;
}

static void write_bloom(const gbf_name_builder *b, uint64_t *bloom, uint64_t words)
{
    for (uint64_t i = 0; i < b->entry_count; i++)
        bloom[gbf_scale(b->entries[i].mixed, words)] |= gbf_bloom_bits(b->entries[i].mixed);
}

/* Bit i: the text of slot i fits the bucket's cell, shortest texts first, so that as many as can be are there. */
static uint32_t in_cell(const gbf_name_bucket *bucket)
{
    uint32_t inside = 0, used = 0;
    for (;;) {
        uint32_t best = GBF_BUCKET_SLOTS;
        for (uint32_t i = 0; i < GBF_BUCKET_SLOTS; i++)
            if (bucket->kinds[i] != 0 && !(inside >> i & 1) &&
                (best == GBF_BUCKET_SLOTS || bucket->check[i] < bucket->check[best]))
                best = i;
        if (best == GBF_BUCKET_SLOTS || used + bucket->check[best] > GBF_TEXT_CELL)
            return inside;
        inside |= 1u << best;
        used += bucket->check[best];
    }
}

/* Bytes of TEXT. In cells: 64 bytes for each bucket, then what did not fit. */
static uint64_t text_bytes(const gbf_name_builder *b)
{
    if (b->head.has_text != GBF_TEXT_CELLS)
        return b->head.has_text == 0 ? 0 : b->text_nbytes;
    uint64_t nbytes = b->bucket_count * GBF_TEXT_CELL;
    for (uint64_t i = 0; i < b->bucket_count; i++) {
        uint32_t inside = in_cell(&b->buckets[i]);
        for (uint32_t j = 0; j < GBF_BUCKET_SLOTS; j++)
            nbytes += b->buckets[i].kinds[j] != 0 && !(inside >> j & 1) ? b->buckets[i].check[j] : 0;
    }
    return nbytes;
}

/* Texts of the keys in the order of their slots, so that neighbours share lines; slots then point there. */
static void write_texts(gbf_name_builder *b, uint8_t *text)
{
    int cells = b->head.has_text == GBF_TEXT_CELLS;
    uint64_t end = cells ? b->bucket_count * GBF_TEXT_CELL : 0;
    for (uint64_t i = 0; i < b->bucket_count; i++) {
        gbf_name_bucket *bucket = &b->buckets[i];
        if (i + 4 < b->bucket_count)
            for (uint32_t j = 0; j < GBF_BUCKET_SLOTS; j++)
                GBF_PREFETCH(b->arena + bucket[4].text[j]);
        uint64_t cell = i * GBF_TEXT_CELL;
        uint32_t inside = cells ? in_cell(bucket) : 0;
        for (uint32_t j = 0; j < GBF_BUCKET_SLOTS; j++) {
            if (bucket->kinds[j] == 0)
                continue;
            uint64_t *at = inside >> j & 1 ? &cell : &end;
            memcpy(text + *at, b->arena + bucket->text[j], bucket->check[j]);
            bucket->text[j] = (uint32_t)*at;
            *at += bucket->check[j];
        }
    }
}

gbf_status gbf_name_builder_finish(gbf_name_builder *b, const void *more, uint64_t nbytes, void **block,
                                   gbf_fault *fault)
{
    gbf_status status = build_globs(b, fault);
    if (status != GBF_OK)
        return status;
    /* 3.5 of 5 slots in use on average; without text at least 256 buckets, whose number then makes up 64 bits of hash */
    b->head.home = 1 + b->entry_count * 2 / 7;
    if (!b->head.has_text && b->head.home < 256)
        b->head.home = 256;
    int good = build_buckets(b);
    uint64_t bloom_words = 1 + b->entry_count * 10 / 64;
    if (b->head.has_text && b->entry_count >= CELLS_FROM)
        b->head.has_text = GBF_TEXT_CELLS;
    uint64_t text_nbytes = text_bytes(b);
    uint64_t *bloom = calloc(bloom_words, sizeof *bloom);
    uint8_t *text = calloc(text_nbytes + 1, 1);
    status = GBF_NO_MEMORY;
    if (good && bloom != NULL && text != NULL) {
        const gbf_automata *a = &b->automata;
        b->head.patterns = b->keys;
        write_bloom(b, bloom, bloom_words);
        if (b->head.has_text)
            write_texts(b, text);
        const gbf_part parts[] = {
            {GBF_TAG('H', 'E', 'A', 'D'), sizeof b->head, &b->head, sizeof b->head},
            {GBF_TAG('B', 'U', 'C', 'K'), sizeof *b->buckets, b->buckets, b->bucket_count * sizeof *b->buckets},
            {GBF_TAG('B', 'L', 'O', 'M'), sizeof *bloom, bloom, bloom_words * sizeof *bloom},
            {GBF_TAG('T', 'E', 'X', 'T'), 1, text, text_nbytes},
            {GBF_TAG('M', 'A', 'N', 'Y'), sizeof *b->many, b->many, b->many_count * sizeof *b->many},
            {GBF_TAG('A', 'U', 'T', 'O'), sizeof *a->automata, a->automata, a->automaton_count * sizeof *a->automata},
            {GBF_TAG('C', 'E', 'L', 'L'), sizeof *a->cells, a->cells, a->cell_count * sizeof *a->cells},
            {GBF_TAG('L', 'I', 'S', 'T'), sizeof *a->lists, a->lists, a->list_count * sizeof *a->lists},
            {GBF_TAG('A', 'C', 'P', 'T'), sizeof *a->accepts, a->accepts, a->accept_count * sizeof *a->accepts},
            {GBF_TAG('G', 'V', 'A', 'L'), sizeof *b->glob_values, b->glob_values,
             b->glob_count * sizeof *b->glob_values},
            {GBF_TAG('M', 'O', 'R', 'E'), 1, more, nbytes},
        };
        status = gbf_block_build(parts, sizeof parts / sizeof *parts, GBF_KIND_NAME, block);
    }
    free(bloom);
    free(text);
    return status == GBF_OK ? GBF_OK : gbf_refuse(fault, status, "out of memory", 0);
}
