#include "name/gbf_name.h"

#include "base/gbf_cpu.h"

#define D(c) [c] = c - '0' + 27
#define L(c) [c] = c - 'a' + 1, [c - 32] = c - 'a' + 1
const uint8_t gbf_symbol[256] = {
    L('a'), L('b'), L('c'), L('d'), L('e'), L('f'), L('g'), L('h'), L('i'), L('j'), L('k'),     L('l'),     L('m'),
    L('n'), L('o'), L('p'), L('q'), L('r'), L('s'), L('t'), L('u'), L('v'), L('w'), L('x'),     L('y'),     L('z'),
    D('0'), D('1'), D('2'), D('3'), D('4'), D('5'), D('6'), D('7'), D('8'), D('9'), ['-'] = 37, ['_'] = 38, ['.'] = 39,
};

static const gbf_name_kernel kernels[] = {
#if defined(__x86_64__)
    {"avx512", GBF_CPU_AVX512, gbf_name_fold_avx512},
    {"v2", GBF_CPU_V2, gbf_name_fold_v2},
#endif
    {"scalar", 0, gbf_name_fold_scalar},
};

const gbf_name_kernel *gbf_name_kernel_pick(uint32_t features)
{
    const gbf_name_kernel *kernel = kernels;
    while ((kernel->needs & ~features) != 0)
        kernel++;
    return kernel;
}

/* The "ends in a number" test of the WHATWG URL standard: all digits, or 0x and hexadecimal digits. No top-level domain
 * is all digits (RFC 3696, section 2), so what this refuses is an address, whole or shortened (127.1). */
int gbf_name_is_number(const gbf_name *name, uint32_t start)
{
    const uint8_t *at = name->text + start, *end = name->text + name->nbytes;
    int hexadecimal = end - at >= 2 && at[0] == '0' && at[1] == 'x';
    for (at += hexadecimal ? 2 : 0; at < end; at++)
        if ((uint8_t)(*at - '0') > 9 && !(hexadecimal && (uint8_t)(*at - 'a') < 6))
            return 0;
    return 1;
}

int gbf_name_labels_fit(const gbf_name *name)
{
    for (uint32_t end = name->nbytes;;) {
        uint32_t start = gbf_label_start(name->dots, end);
        if (start == end || end - start > GBF_LABEL_MAX)
            return 0;
        if (start == 0)
            return 1;
        end = start - 1;
        if (end == 0)
            return 0;
    }
}

uint32_t gbf_name_literal(gbf_name *key, const uint8_t *text, uint64_t nbytes, gbf_fold fold)
{
    uint32_t kind = GBF_NAME_EXACT;
    uint64_t skip = 0;
    if (nbytes > 0 && text[0] == '.') {
        kind = GBF_NAME_TREE;
        skip = 1;
    } else if (nbytes > 2 && text[0] == '*' && text[1] == '.') {
        kind = GBF_NAME_ONE;
        skip = 2;
    } else if (nbytes > 3 && text[0] == '*' && text[1] == '*' && text[2] == '.') {
        kind = GBF_NAME_MANY;
        skip = 3;
    }
    return gbf_name_read(key, text + skip, nbytes - skip, fold) ? kind : 0;
}

/* Where matches go: into a list, or, when there are `rows`, their rows ORed into `bits`. */
typedef struct {
    uint32_t *values;
    uint64_t capacity, count; /* count may pass capacity; only the first `capacity` are written */
    const uint64_t *rows;
    uint64_t row_count;
    uint64_t *bits;
    uint32_t words;
} results;

static void put(results *to, uint32_t value)
{
    if (to->rows != NULL) {
        const uint64_t *row = to->rows + (uint64_t)value * to->words;
        for (uint32_t w = 0; value < to->row_count && w < to->words; w++)
            to->bits[w] |= row[w];
        return;
    }
    if (to->count < to->capacity)
        to->values[to->count] = value;
    to->count++;
}

/* Glob numbers (their values, when rows are wanted) accepted by automaton `index` and those chained to it. */
static void put_globs(const gbf_name_table *table, uint32_t index, const uint8_t *text, uint32_t end, results *to)
{
    const gbf_automaton *automaton = &table->automata[index];
    do {
        uint32_t lists[GBF_LANES], count = gbf_automata_run(table, automaton, text, end, lists);
        for (uint32_t i = 0; i < count; i++) {
            for (uint32_t list = lists[i], last = list == 0; !last; list++) {
                uint32_t glob = table->accepts[list] & ~GBF_LAST_GLOB;
                put(to, to->rows != NULL ? table->glob_values[glob] : glob);
                last = (table->accepts[list] & GBF_LAST_GLOB) != 0;
            }
        }
        automaton += count;
    } while (automaton[-1].more);
}

/* Glob numbers values[first..count) become their values, in order of number, each once. */
static void settle_globs(const gbf_name_table *table, results *to, uint64_t first)
{
    uint64_t kept = first;
    for (uint64_t i = first; i < to->count; i++) {
        uint32_t glob = to->values[i];
        uint64_t at = kept;
        while (at > first && to->values[at - 1] > glob)
            at--;
        if (at > first && to->values[at - 1] == glob)
            continue;
        memmove(&to->values[at + 1], &to->values[at], (kept - at) * sizeof *to->values);
        to->values[at] = glob;
        kept++;
    }
    for (uint64_t i = first; i < kept; i++)
        to->values[i] = table->glob_values[to->values[i]];
    to->count = kept;
}

/* Puts every match, literal ones first; returns how many those are. */
static uint64_t put_matches(const gbf_name_table *table, const gbf_name *name, results *to)
{
    gbf_name_spot spots[GBF_LABELS_MAX];
    gbf_name_many alone = {{0}, {0}};
    uint32_t starts[GBF_LABELS_MAX], automata[GBF_LABELS_MAX], globs = 0, slot = 0;
    uint32_t count = gbf_name_spots(table, name, spots);
    while (count-- > 0) {
        const gbf_name_bucket *bucket = gbf_name_probe(table, name, &spots[count], &slot);
        if (bucket == NULL)
            continue;
        const gbf_name_many *many = &alone;
        alone.kind[0] = bucket->kinds[slot];
        alone.value[0] = bucket->value[slot];
        if (bucket->kinds[slot] & GBF_NAME_MULTI)
            many = &table->many[bucket->value[slot]];
        uint32_t wanted = gbf_name_kinds_at(name, spots[count].start);
        for (uint32_t i = 0; i < 5; i++) {
            if ((many->kind[i] & wanted) == GBF_NAME_GLOB) {
                starts[globs] = spots[count].start;
                automata[globs++] = many->value[i];
            } else if ((many->kind[i] & wanted) != 0) {
                put(to, many->value[i]);
            }
        }
    }
    uint64_t literal = to->count;
    while (globs-- > 0)
        put_globs(table, automata[globs], name->text, starts[globs] - 1, to);
    if (table->head.roots > 0)
        put_globs(table, 0, name->text, name->nbytes, to);
    return literal;
}

uint64_t gbf_name_lookup_all(const gbf_name_table *table, const gbf_name *name, uint32_t *values, uint64_t capacity)
{
    results to = {.values = values, .capacity = capacity};
    uint64_t literal = put_matches(table, name, &to);
    if (to.count <= capacity)
        settle_globs(table, &to, literal);
    return to.count;
}

void gbf_name_union(const gbf_name_table *table, const gbf_name *name, const uint64_t *rows, uint64_t row_count,
                    uint32_t words, uint64_t *bits)
{
    results to = {.rows = rows, .row_count = row_count, .bits = bits, .words = words};
    put_matches(table, name, &to);
}

enum { BATCH = 8 };

uint64_t gbf_name_lookup_batch(const gbf_name_table *table, const uint8_t *const *texts, const uint64_t *nbytes,
                               uint64_t count, uint32_t *out)
{
    gbf_name names[BATCH];
    gbf_name_spot spots[BATCH][GBF_LABELS_MAX];
    uint32_t spot_count[BATCH];
    uint64_t matched = 0;
    for (uint64_t at = 0; at < count; at += BATCH) {
        uint32_t take = count - at < BATCH ? (uint32_t)(count - at) : BATCH;
        for (uint32_t i = 0; i < take; i++) {
            int good = texts[at + i] != NULL && gbf_name_read(&names[i], texts[at + i], nbytes[at + i], table->fold);
            spot_count[i] = good ? gbf_name_spots(table, &names[i], spots[i]) : GBF_NONE;
        }
        for (uint32_t i = 0; i < take; i++) {
            out[at + i] =
                spot_count[i] == GBF_NONE ? GBF_NONE : gbf_name_resolve(table, &names[i], spots[i], spot_count[i]);
            matched += out[at + i] != GBF_NONE;
        }
    }
    return matched;
}

/* A list that starts anywhere ends inside, and holds glob numbers only. */
static int accepts_hold(const gbf_name_table *t)
{
    for (uint64_t i = 0; i < t->accept_count; i++)
        if ((t->accepts[i] & ~GBF_LAST_GLOB) >= t->glob_count)
            return 0;
    return t->accept_count == 0 || (t->accepts[t->accept_count - 1] & GBF_LAST_GLOB) != 0;
}

/* States and accept lists that an automaton can reach all lie inside the block. */
static int automaton_holds(const gbf_name_table *t, const gbf_automaton *a)
{
    uint32_t cells = (uint32_t)a->states * a->width, last = a->far ? a->states - 1u : cells - a->width;
    if (a->far > 1 || a->start >= a->states || a->more > 1 || a->cells > t->cell_count ||
        cells > t->cell_count - a->cells || a->lists > t->list_count || a->states > t->list_count - a->lists)
        return 0;
    for (uint32_t i = 0; i < GBF_SYMBOLS; i++)
        if (a->class_of[i] >= a->width)
            return 0;
    for (uint32_t i = 0; i < cells; i++)
        if (t->cells[a->cells + i] > last)
            return 0;
    for (uint32_t state = 0; state < a->states; state++)
        if (t->lists[a->lists + state] >= t->accept_count)
            return 0;
    return 1;
}

static int value_holds(const gbf_name_table *t, uint32_t kind, uint32_t value)
{
    if (kind == GBF_NAME_GLOB)
        return value < t->automaton_count;
    return (kind == GBF_NAME_EXACT || kind == GBF_NAME_ONE || kind == GBF_NAME_MANY || kind == GBF_NAME_TREE) &&
           value != GBF_NONE;
}

static int slot_holds(const gbf_name_table *t, const gbf_name_bucket *b, uint32_t i)
{
    uint32_t kinds = b->kinds[i], value = b->value[i];
    if (kinds == 0)
        return 1;
    if (t->head.has_text && b->text[i] + (uint64_t)b->check[i] > t->text_nbytes)
        return 0;
    return kinds & GBF_NAME_MULTI ? value < t->many_count : value_holds(t, kinds, value);
}

/* Nearly every bucket has one literal kind in each slot, or none: that is seen without looking at one slot after the other. */
static int bucket_holds(const gbf_name_table *t, const gbf_name_bucket *b, uint64_t limit)
{
    const uint64_t each = UINT64_C(0x0101010101); /* kinds fill five bytes */
    uint64_t kinds = gbf_load64(b->kinds) & each * 0xFF, outside = 0;
    uint64_t odd = (kinds & each * 0xF0) | (kinds & kinds >> 1 & each * 7) | (kinds & kinds >> 2 & each * 3) |
                   (kinds & kinds >> 3 & each);
    for (uint32_t i = 0; i < GBF_BUCKET_SLOTS; i++) {
        outside |= (limit - b->text[i] - b->check[i]) >> 63;
        odd |= b->value[i] == GBF_NONE;
    }
    if (GBF_LIKELY((odd | outside) == 0))
        return 1;
    for (uint32_t i = 0; i < GBF_BUCKET_SLOTS; i++)
        if (!slot_holds(t, b, i))
            return 0;
    return 1;
}

/* Overflow runs end inside the table, and soon: a run longer than this is not the work of a keyed hash. */
enum { RUN_MAX = 64 };

static gbf_status check_indices(const gbf_name_table *t, const uint8_t *block, gbf_fault *fault)
{
    uint32_t run = 0;
    uint64_t limit = t->head.has_text ? t->text_nbytes : UINT64_MAX >> 1;
    if (!accepts_hold(t))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "glob lists are damaged",
                          (uint64_t)((const uint8_t *)t->accepts - block));
    for (uint64_t i = 0; i < t->bucket_count; i++) {
        const gbf_name_bucket *b = &t->buckets[i];
        GBF_PREFETCH(
            b + 24); /* the CPU does not see far enough across pages by itself: 4 ms become 2 for a million names */
        run = b->over ? run + 1 : 0;
        if (run > RUN_MAX || (b->over && i + 1 == t->bucket_count) || !bucket_holds(t, b, limit))
            return gbf_refuse(fault, GBF_BAD_FORMAT, "name bucket is damaged", (uint64_t)((const uint8_t *)b - block));
    }
    for (uint64_t i = 0; i < t->many_count; i++)
        for (uint32_t j = 0; j < 5; j++)
            if (t->many[i].kind[j] != 0 && !value_holds(t, t->many[i].kind[j], t->many[i].value[j]))
                return gbf_refuse(fault, GBF_BAD_FORMAT, "name values are damaged",
                                  (uint64_t)((const uint8_t *)&t->many[i] - block));
    for (uint64_t i = 0; i < t->automaton_count; i++) {
        const gbf_automaton *a = &t->automata[i];
        int last = i + 1 == t->automaton_count || i + 1 == t->head.roots;
        if ((a->more && last) || !automaton_holds(t, a))
            return gbf_refuse(fault, GBF_BAD_FORMAT, "name automaton is damaged",
                              (uint64_t)((const uint8_t *)a - block));
    }
    for (uint32_t i = 0; i + 1 < t->head.roots; i++)
        if (!t->automata[i].more)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "name automaton is damaged",
                              (uint64_t)((const uint8_t *)&t->automata[i] - block));
    return GBF_OK;
}

gbf_status gbf_name_open(gbf_name_table *table, const void *block, uint64_t nbytes, int verify,
                         const gbf_name_kernel *kernel, gbf_fault *fault)
{
    gbf_status status = gbf_block_open(block, nbytes, GBF_KIND_NAME, verify, fault);
    if (status != GBF_OK)
        return status;
    gbf_name_table t;
    uint64_t heads;
    const gbf_name_head *head = gbf_block_section(block, GBF_TAG('H', 'E', 'A', 'D'), sizeof *head, &heads);
    t.buckets = gbf_block_section(block, GBF_TAG('B', 'U', 'C', 'K'), sizeof *t.buckets, &t.bucket_count);
    t.bloom = gbf_block_section(block, GBF_TAG('B', 'L', 'O', 'M'), sizeof *t.bloom, &t.bloom_words);
    t.text = gbf_block_section(block, GBF_TAG('T', 'E', 'X', 'T'), 1, &t.text_nbytes);
    t.many = gbf_block_section(block, GBF_TAG('M', 'A', 'N', 'Y'), sizeof *t.many, &t.many_count);
    t.automata = gbf_block_section(block, GBF_TAG('A', 'U', 'T', 'O'), sizeof *t.automata, &t.automaton_count);
    t.cells = gbf_block_section(block, GBF_TAG('C', 'E', 'L', 'L'), sizeof *t.cells, &t.cell_count);
    t.lists = gbf_block_section(block, GBF_TAG('L', 'I', 'S', 'T'), sizeof *t.lists, &t.list_count);
    t.accepts = gbf_block_section(block, GBF_TAG('A', 'C', 'P', 'T'), sizeof *t.accepts, &t.accept_count);
    t.glob_values = gbf_block_section(block, GBF_TAG('G', 'V', 'A', 'L'), sizeof *t.glob_values, &t.glob_count);
    if (heads != 1 || t.bucket_count == 0 || t.bloom_words == 0)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "name sections are missing", 64);
    t.head = *head;
    t.fold = kernel->fold;
    if (t.text == NULL)
        t.text = block; /* nothing is read there, but it is asked for early */
    t.text_stride = head->has_text == GBF_TEXT_CELLS ? GBF_TEXT_CELL : 0;
    if (t.head.home == 0 || t.head.home > t.bucket_count || t.head.has_text > GBF_TEXT_CELLS ||
        t.text_stride * t.bucket_count > t.text_nbytes || t.head.roots > t.automaton_count ||
        t.head.patterns > GBF_BUCKET_SLOTS * (t.bucket_count + t.many_count))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "name header is damaged",
                          (uint64_t)((const uint8_t *)head - (const uint8_t *)block));
    status = check_indices(&t, block, fault);
    if (status == GBF_OK)
        *table = t;
    return status;
}
