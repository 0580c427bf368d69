/* Builder of gbf_origin.h. Long because patterns, classes and the block are checked where they are made. */
#include "http/gbf_origin_build.h"

#include <stdlib.h>

#include "hash/gbf_xxh3.h"

/* What patterns that overlap may multiply to; beyond it a set is no longer a table. */
enum { ROWS_MOST = 1 << 24, GROUPS_MOST = 1 << 26 };

typedef struct {
    uint64_t mixed;
    const uint8_t *text; /* of the host, once the arena stands still */
    uint32_t at;         /* offset in the arena */
    uint32_t port, group;
    uint8_t nbytes, scheme, kind, depth;
} pattern;

/* The patterns of one entry, and its rows once they are made. */
typedef struct {
    uint64_t first, count; /* in patterns */
    uint64_t slot, first_row;
    uint32_t row_count;
} node;

struct gbf_origin_builder {
    gbf_origin_head head;
    pattern *patterns;
    uint8_t *arena, *far;
    gbf_origin_entry *slots;
    node *nodes;
    uint32_t *node_of; /* by slot */
    gbf_origin_row *rows;
    uint32_t *sets, *groups, *scratch, *interned; /* interned: classes by hash of their groups, 0: empty */
    uint64_t pattern_count, pattern_room, arena_used, arena_room, far_used, far_room, slot_count, node_count, row_count,
        row_room, class_count, class_room, group_count, group_room, scratch_used, scratch_room, interned_room;
    gbf_origin_scheme schemes[GBF_SCHEMES_MAX];
    uint32_t scheme_count;
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

int gbf_origin_pattern_read(gbf_origin_pattern *p, const uint8_t *text, uint32_t n, int hosts)
{
    uint32_t scheme = 0, default_port = GBF_PORT_NONE;
    *p = (gbf_origin_pattern){.kind = GBF_ORIGIN_EXACT};
    if (!hosts) {
        if (n == 1 && text[0] == '*') {
            p->kind = GBF_ORIGIN_ANY;
            return 1;
        }
        scheme = gbf_origin_scheme_read(text, n, &default_port);
        if (scheme == 0)
            return 0;
        text += scheme + 3;
        n -= scheme + 3;
    }
    int any = n > 2 && text[n - 2] == ':' && text[n - 1] == '*';
    n -= any ? 2 : 0;
    if (n > 2 && text[0] == '*' && text[1] == '.') {
        p->kind = GBF_ORIGIN_ONE;
        text += 2;
        n -= 2;
    } else if (n > 3 && text[0] == '*' && text[1] == '*' && text[2] == '.') {
        p->kind = GBF_ORIGIN_MANY;
        text += 3;
        n -= 3;
    }
    if (!gbf_origin_authority(&p->origin, text, n, !hosts, gbf_name_fold_scalar))
        return 0;
    p->origin.scheme_nbytes = scheme;
    p->port = any ? GBF_PORT_ANY : p->origin.port;
    if (p->kind != GBF_ORIGIN_EXACT && p->origin.address)
        return 0;
    if (p->origin.port == GBF_PORT_NONE)
        return 1;
    return !any && p->origin.port != default_port && !(hosts && (p->origin.port == 80 || p->origin.port == 443));
}

gbf_origin_builder *gbf_origin_builder_new(const uint64_t key[GBF_NAME_KEYS], int hosts)
{
    gbf_origin_builder *b = calloc(1, sizeof *b);
    if (b != NULL) {
        memcpy(b->head.key, key, sizeof b->head.key);
        b->head.hosts = hosts != 0;
        b->head.unmatched = GBF_ORIGIN_UNMATCHED;
    }
    return b;
}

void gbf_origin_builder_free(gbf_origin_builder *b)
{
    if (b == NULL)
        return;
    free(b->patterns);
    free(b->arena);
    free(b->far);
    free(b->slots);
    free(b->nodes);
    free(b->node_of);
    free(b->rows);
    free(b->sets);
    free(b->groups);
    free(b->scratch);
    free(b->interned);
    free(b);
}

/* Number of a scheme, which is added when it is new; GBF_SCHEMES_MAX: there is no room. */
static uint32_t scheme_number(gbf_origin_builder *b, const uint8_t *text, uint32_t nbytes)
{
    for (uint32_t i = 0; i < b->scheme_count; i++)
        if (b->schemes[i].nbytes == nbytes && memcmp(b->schemes[i].text, text, nbytes) == 0)
            return i;
    if (b->scheme_count == GBF_SCHEMES_MAX)
        return GBF_SCHEMES_MAX;
    b->schemes[b->scheme_count].nbytes = (uint8_t)nbytes;
    memcpy(b->schemes[b->scheme_count].text, text, nbytes);
    return b->scheme_count++;
}

gbf_status gbf_origin_builder_add(gbf_origin_builder *b, const uint8_t *text, uint32_t n, uint32_t group)
{
    gbf_origin_pattern p;
    if (!gbf_origin_pattern_read(&p, text, n, b->head.hosts != 0))
        return GBF_BAD_INPUT;
    const gbf_name *name = &p.origin.name;
    if (b->arena_used + name->nbytes > UINT32_MAX || !RESERVE(b->patterns, b->pattern_room, b->pattern_count, 1) ||
        !RESERVE(b->arena, b->arena_room, b->arena_used, name->nbytes + 64))
        return GBF_NO_MEMORY;
    pattern *made = &b->patterns[b->pattern_count];
    *made = (pattern){.at = (uint32_t)b->arena_used, .port = p.port, .group = group, .kind = (uint8_t)p.kind};
    if (p.kind != GBF_ORIGIN_ANY) {
        uint32_t scheme = b->head.hosts ? 0 : scheme_number(b, text, p.origin.scheme_nbytes);
        if (scheme == GBF_SCHEMES_MAX)
            return GBF_BAD_INPUT;
        made->scheme = (uint8_t)(scheme | p.origin.absolute);
        made->nbytes = (uint8_t)name->nbytes;
        uint64_t chain = made->scheme + UINT64_C(1);
        for (uint32_t end = name->nbytes, start = end; start != 0; end = start - 1, made->depth++) {
            start = gbf_label_start(name->dots, end);
            chain = gbf_name_chain(b->head.key, chain, name->text + start, end - start);
        }
        made->mixed = gbf_name_mix(chain);
        memcpy(b->arena + b->arena_used, name->text, name->nbytes);
        b->arena_used += name->nbytes;
    }
    b->pattern_count++;
    return GBF_OK;
}

/* Order of entries, which is the order of slots: by hash, then by what they are. */
static int by_entry(const pattern *a, const pattern *b)
{
    if (a->mixed != b->mixed)
        return a->mixed < b->mixed ? -1 : 1;
    if (a->scheme != b->scheme)
        return a->scheme < b->scheme ? -1 : 1;
    if (a->nbytes != b->nbytes)
        return a->nbytes < b->nbytes ? -1 : 1;
    return memcmp(a->text, b->text, a->nbytes);
}

/* `*` last; then entries; in one, ports ascending, GBF_PORT_ANY last. */
static int in_order(const void *x, const void *y)
{
    const pattern *a = x, *b = y;
    if ((a->kind == GBF_ORIGIN_ANY) != (b->kind == GBF_ORIGIN_ANY))
        return a->kind == GBF_ORIGIN_ANY ? 1 : -1;
    int order = by_entry(a, b);
    if (order != 0)
        return order;
    if (a->port != b->port)
        return a->port < b->port ? -1 : 1;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    return a->group < b->group ? -1 : a->group > b->group;
}

static int ascending(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

/* ---- classes: every distinct set of groups once */

static uint64_t hash_groups(const uint32_t *groups, uint64_t count)
{
    return gbf_xxh3_64(groups, count * sizeof *groups, 0);
}

static int grow_interned(gbf_origin_builder *b)
{
    uint64_t room = b->interned_room == 0 ? 1024 : 2 * b->interned_room;
    uint32_t *table = calloc(room, sizeof *table);
    if (table == NULL)
        return 0;
    for (uint64_t class = 1; class < b->class_count; class ++) {
        uint64_t at = hash_groups(b->groups + b->sets[class], b->sets[class + 1] - b->sets[class]) & (room - 1);
        while (table[at] != 0)
            at = (at + 1) & (room - 1);
        table[at] = (uint32_t)class;
    }
    free(b->interned);
    b->interned = table;
    b->interned_room = room;
    return 1;
}

/* Class of the groups in scratch, in any order; GBF_NONE: no memory; GBF_NONE - 1: too many. */
static uint32_t class_of(gbf_origin_builder *b)
{
    uint32_t *groups = b->scratch;
    uint64_t count = 0;
    qsort(groups, b->scratch_used, sizeof *groups, ascending);
    for (uint64_t i = 0; i < b->scratch_used; i++)
        if (i == 0 || groups[i] != groups[i - 1])
            groups[count++] = groups[i];
    if (2 * b->class_count >= b->interned_room && !grow_interned(b))
        return GBF_NONE;
    uint64_t at = hash_groups(groups, count) & (b->interned_room - 1);
    for (; b->interned[at] != 0; at = (at + 1) & (b->interned_room - 1)) {
        uint32_t class = b->interned[at], first = b->sets[class];
        if (b->sets[class + 1] - first == count && memcmp(b->groups + first, groups, count * sizeof *groups) == 0)
            return class;
    }
    if (b->group_count + count > GROUPS_MOST)
        return GBF_NONE - 1;
    if (!RESERVE(b->sets, b->class_room, b->class_count, 2) ||
        !RESERVE(b->groups, b->group_room, b->group_count, count))
        return GBF_NONE;
    memcpy(b->groups + b->group_count, groups, count * sizeof *groups);
    b->group_count += count;
    b->interned[at] = (uint32_t)b->class_count;
    b->sets[++b->class_count] = (uint32_t)b->group_count;
    return (uint32_t)b->class_count - 1;
}

static int add_class(gbf_origin_builder *b, uint32_t class)
{
    uint32_t count = b->sets[class + 1] - b->sets[class];
    if (!RESERVE(b->scratch, b->scratch_room, b->scratch_used, count))
        return 0;
    memcpy(b->scratch + b->scratch_used, b->groups + b->sets[class], count * sizeof *b->scratch);
    b->scratch_used += count;
    return 1;
}

static int add_kinds(gbf_origin_builder *b, const pattern *patterns, uint64_t count, uint32_t kinds)
{
    if (!RESERVE(b->scratch, b->scratch_room, b->scratch_used, count))
        return 0;
    for (uint64_t i = 0; i < count; i++)
        if (kinds >> patterns[i].kind & 1)
            b->scratch[b->scratch_used++] = patterns[i].group;
    return 1;
}

/* ---- entries */

/* Nodes in the order of slots, and a slot for each. */
static int place(gbf_origin_builder *b)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < b->pattern_count && b->patterns[i].kind != GBF_ORIGIN_ANY; i++)
        count += i == 0 || by_entry(&b->patterns[i - 1], &b->patterns[i]) != 0;
    b->head.home = 2 * count + 1;
    b->slot_count = 3 * count + 2; /* the worst order of keys still fits */
    b->nodes = malloc((count + 1) * sizeof *b->nodes);
    b->slots = calloc(b->slot_count, sizeof *b->slots);
    b->node_of = calloc(b->slot_count, sizeof *b->node_of);
    if (b->nodes == NULL || b->slots == NULL || b->node_of == NULL)
        return 0;
    uint64_t next = 0;
    for (uint64_t i = 0; i < b->pattern_count && b->patterns[i].kind != GBF_ORIGIN_ANY; i++) {
        const pattern *p = &b->patterns[i];
        if (i > 0 && by_entry(p - 1, p) == 0) {
            b->nodes[b->node_count - 1].count++;
            continue;
        }
        uint64_t home = gbf_scale(p->mixed, b->head.home), slot = home > next ? home : next;
        gbf_origin_entry *entry = &b->slots[slot];
        *entry = (gbf_origin_entry){.tag = (uint32_t)p->mixed, .nbytes = p->nbytes, .scheme = p->scheme};
        if (p->nbytes <= GBF_ENTRY_TEXT) {
            memcpy(entry->text, p->text, p->nbytes);
        } else {
            uint32_t at = (uint32_t)b->far_used;
            if (!RESERVE(b->far, b->far_room, b->far_used, p->nbytes))
                return 0;
            memcpy(b->far + at, p->text, p->nbytes);
            memcpy(entry->text, &at, sizeof at);
            b->far_used += p->nbytes;
        }
        b->node_of[slot] = (uint32_t)b->node_count;
        b->nodes[b->node_count++] = (node){i, 1, slot, 0, 0};
        next = slot + 1;
    }
    b->slot_count = (next > b->head.home ? next : b->head.home) + 1;
    return 1;
}

/* The nearest parent of a node that is a node itself, or NULL; *labels: how many labels are between their hosts. */
static const node *parent_of(const gbf_origin_builder *b, const pattern *p, uint32_t *labels)
{
    gbf_origins built = {.head = b->head, .slots = b->slots, .text = b->far}; /* as far as it is */
    uint64_t mixed[GBF_LABELS_MAX], chain = p->scheme + UINT64_C(1);
    uint32_t starts[GBF_LABELS_MAX], depth = 0;
    gbf_name name;
    memset(&name, 0, sizeof name);
    memcpy(name.text, p->text, p->nbytes);
    for (uint32_t i = 0; i < p->nbytes; i++)
        if (p->text[i] == '.' && p->depth > 1)
            name.dots[i >> 6] |= UINT64_C(1) << (i & 63);
    for (uint32_t end = p->nbytes, start = end; start != 0; end = start - 1) {
        start = gbf_label_start(name.dots, end);
        chain = gbf_name_chain(b->head.key, chain, name.text + start, end - start);
        mixed[depth] = gbf_name_mix(chain);
        starts[depth++] = start;
    }
    for (*labels = 1; *labels < depth; (*labels)++) {
        uint32_t at = depth - 1 - *labels;
        const gbf_origin_entry *entry =
            gbf_origin_probe(&built, name.text + starts[at], p->nbytes - starts[at], p->scheme, mixed[at]);
        if (entry != NULL)
            return &b->nodes[b->node_of[entry - b->slots]];
    }
    return NULL;
}

/* The next row of a node: its own patterns for the port, those for any port, and what the parent says below itself. */
static gbf_status add_row(gbf_origin_builder *b, const node *n, uint32_t port, const node *parent, uint32_t labels,
                          gbf_fault *fault)
{
    const pattern *own = b->patterns + n->first, *end = own + n->count, *any = end;
    while (any > own && any[-1].port == GBF_PORT_ANY)
        any--;
    uint64_t low = 0, high = (uint64_t)(any - own);
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (own[middle].port < port)
            low = middle + 1;
        else
            high = middle;
    }
    const pattern *here = own + low, *past = here;
    while (past < any && past->port == port)
        past++;
    gbf_origin_row above = {port, b->head.unmatched, b->head.unmatched, b->head.unmatched};
    if (parent != NULL) {
        const gbf_origin_row *row = gbf_origin_row_at(b->rows + parent->first_row, parent->row_count, port);
        above = row != NULL ? *row : above;
    }
    const uint32_t kinds[3] = {1 << GBF_ORIGIN_EXACT, 1 << GBF_ORIGIN_ONE | 1 << GBF_ORIGIN_MANY, 1 << GBF_ORIGIN_MANY};
    const uint32_t covers[3] = {labels == 1 ? above.one : above.many, above.many, above.many};
    uint32_t classes[3];
    for (int i = 0; i < 3; i++) {
        b->scratch_used = 0;
        if (!add_class(b, covers[i]) || !add_kinds(b, here, (uint64_t)(past - here), kinds[i]) ||
            !add_kinds(b, any, (uint64_t)(end - any), kinds[i]))
            return GBF_NO_MEMORY;
        classes[i] = class_of(b);
        if (classes[i] == GBF_NONE)
            return GBF_NO_MEMORY;
        if (classes[i] == GBF_NONE - 1)
            return gbf_refuse(fault, GBF_BAD_INPUT, "patterns of too many groups overlap", own->group);
    }
    if (b->row_count == ROWS_MOST)
        return gbf_refuse(fault, GBF_BAD_INPUT, "patterns with too many ports overlap", own->group);
    if (!RESERVE(b->rows, b->row_room, b->row_count, 1))
        return GBF_NO_MEMORY;
    b->rows[b->row_count++] = (gbf_origin_row){port, classes[0], classes[1], classes[2]};
    uint64_t bit = UINT64_C(1) << (own->depth < 63 ? own->depth : 63);
    if (classes[0] != b->head.unmatched)
        b->head.whole |= bit;
    if (classes[1] != b->head.unmatched || classes[2] != b->head.unmatched)
        b->head.below |= bit;
    return GBF_OK;
}

/* Rows of a node, one for each port that its patterns or its parent's rows have. */
static gbf_status add_rows(gbf_origin_builder *b, node *n, gbf_fault *fault)
{
    uint32_t labels = 0;
    const pattern *own = b->patterns + n->first;
    const node *parent = parent_of(b, own, &labels);
    uint64_t i = 0, j = 0, above = parent == NULL ? 0 : parent->row_count;
    n->first_row = b->row_count;
    while (i < n->count || j < above) {
        uint32_t mine = i < n->count ? own[i].port : GBF_NONE;
        uint32_t theirs = j < above ? b->rows[parent->first_row + j].port : GBF_NONE;
        uint32_t port = mine < theirs ? mine : theirs;
        gbf_status status = add_row(b, n, port, parent, labels, fault);
        if (status != GBF_OK)
            return status;
        while (i < n->count && own[i].port == port)
            i++;
        j += theirs == port;
    }
    if (b->row_count - n->first_row > UINT16_MAX)
        return gbf_refuse(fault, GBF_BAD_INPUT, "patterns with too many ports overlap", own->group);
    n->row_count = (uint32_t)(b->row_count - n->first_row);
    return GBF_OK;
}

/* Rows of all nodes, parents first. */
static gbf_status add_all_rows(gbf_origin_builder *b, gbf_fault *fault)
{
    uint64_t left = b->node_count;
    for (uint32_t depth = 1; left > 0; depth++)
        for (uint64_t i = 0; i < b->node_count; i++) {
            if (b->patterns[b->nodes[i].first].depth != depth)
                continue;
            gbf_status status = add_rows(b, &b->nodes[i], fault);
            if (status != GBF_OK)
                return status;
            left--;
        }
    return GBF_OK;
}

/* Rows that are alone move into their entries, the others close up. */
static void settle_rows(gbf_origin_builder *b)
{
    gbf_origin_row *rows = b->rows;
    uint64_t kept = 0, left = b->node_count;
    for (uint32_t depth = 1; left > 0; depth++) /* the order in which they were made */
        for (uint64_t i = 0; i < b->node_count; i++) {
            const node *n = &b->nodes[i];
            if (b->patterns[n->first].depth != depth)
                continue;
            left--;
            gbf_origin_entry *entry = &b->slots[n->slot];
            entry->row_count = (uint16_t)n->row_count;
            if (n->row_count == 1) {
                entry->row = rows[n->first_row];
                continue;
            }
            entry->row.port = (uint32_t)kept;
            memmove(rows + kept, rows + n->first_row, n->row_count * sizeof *rows);
            kept += n->row_count;
        }
    b->row_count = kept;
}

static gbf_status build(gbf_origin_builder *b, gbf_fault *fault)
{
    if (!RESERVE(b->patterns, b->pattern_room, b->pattern_count, 1) || !RESERVE(b->groups, b->group_room, 0, 1) ||
        !RESERVE(b->rows, b->row_room, 0, 1))
        return GBF_NO_MEMORY;
    for (uint64_t i = 0; i < b->pattern_count; i++)
        b->patterns[i].text = b->arena + b->patterns[i].at;
    qsort(b->patterns, b->pattern_count, sizeof *b->patterns, in_order);
    if (!place(b) || !RESERVE(b->sets, b->class_room, 0, 3) || !RESERVE(b->scratch, b->scratch_room, 0, 1))
        return GBF_NO_MEMORY;
    memset(b->sets, 0, 3 * sizeof *b->sets); /* malformed and unmatched: both without groups */
    b->class_count = 1;
    b->scratch_used = 0;
    if (class_of(b) != GBF_ORIGIN_UNMATCHED)
        return GBF_NO_MEMORY;
    uint64_t stars = b->pattern_count;
    while (stars > 0 && b->patterns[stars - 1].kind == GBF_ORIGIN_ANY)
        stars--;
    if (!add_kinds(b, b->patterns + stars, b->pattern_count - stars, 1 << GBF_ORIGIN_ANY))
        return GBF_NO_MEMORY;
    b->head.unmatched = class_of(b);
    if (b->head.unmatched >= GBF_NONE - 1)
        return GBF_NO_MEMORY;
    gbf_status status = add_all_rows(b, fault);
    if (status == GBF_OK)
        settle_rows(b);
    return status;
}

gbf_status gbf_origin_builder_finish(gbf_origin_builder *b, const void *more, uint64_t nbytes, void **block,
                                     gbf_fault *fault)
{
    gbf_status status = build(b, fault);
    if (status == GBF_NO_MEMORY)
        return gbf_refuse(fault, GBF_NO_MEMORY, "out of memory", 0);
    if (status != GBF_OK)
        return status;
    const gbf_part parts[] = {
        {GBF_TAG('H', 'E', 'A', 'D'), sizeof b->head, &b->head, sizeof b->head},
        {GBF_TAG('S', 'L', 'O', 'T'), sizeof *b->slots, b->slots, b->slot_count * sizeof *b->slots},
        {GBF_TAG('R', 'O', 'W', 'S'), sizeof *b->rows, b->rows, b->row_count * sizeof *b->rows},
        {GBF_TAG('T', 'E', 'X', 'T'), 1, b->far, b->far_used},
        {GBF_TAG('S', 'C', 'H', 'M'), sizeof *b->schemes, b->schemes, b->scheme_count * sizeof *b->schemes},
        {GBF_TAG('S', 'E', 'T', 'S'), sizeof *b->sets, b->sets, (b->class_count + 1) * sizeof *b->sets},
        {GBF_TAG('G', 'R', 'P', 'S'), sizeof *b->groups, b->groups, b->group_count * sizeof *b->groups},
        {GBF_TAG('M', 'O', 'R', 'E'), 1, more, nbytes},
    };
    status = gbf_block_build(parts, sizeof parts / sizeof *parts, GBF_KIND_ORIGIN, block);
    return status == GBF_OK ? GBF_OK : gbf_refuse(fault, status, "out of memory", 0);
}
