#include "rules/gbf_columns.h"

#include <stdlib.h>

enum { FIRST_BITS = 6, AHEAD = 16 /* leaves asked for before they are read */ };

gbf_status gbf_classes_start(gbf_classes *c, uint32_t words, const uint64_t *absent, const uint64_t *malformed)
{
    *c = (gbf_classes){.words = words, .room = 16, .slot_bits = FIRST_BITS, .count = 2};
    c->vectors = malloc(8ul * words * c->room);
    c->slots = calloc(1ul << FIRST_BITS, sizeof *c->slots);
    if (c->vectors == NULL || c->slots == NULL)
        return GBF_NO_MEMORY;
    memcpy(c->vectors, absent, 8ul * words);
    memcpy(c->vectors + words, malformed, 8ul * words);
    return GBF_OK;
}

void gbf_classes_free(gbf_classes *c)
{
    free(c->vectors);
    free(c->slots);
    *c = (gbf_classes){0};
}

static uint64_t slot_of(const gbf_classes *c, const uint64_t *vector)
{
    uint64_t h = 0;
    for (uint32_t w = 0; w < c->words; w++)
        h = (h ^ vector[w]) * UINT64_C(0x9E3779B97F4A7C15), h ^= h >> 29;
    return h * UINT64_C(0x9E3779B97F4A7C15) >> (64 - c->slot_bits);
}

static void put(gbf_classes *c, uint32_t class)
{
    uint64_t mask = (UINT64_C(1) << c->slot_bits) - 1;
    uint64_t at = slot_of(c, c->vectors + (uint64_t)class * c->words);
    while (c->slots[at] != 0)
        at = (at + 1) & mask;
    c->slots[at] = class + 1;
}

static int grow(gbf_classes *c)
{
    uint64_t *vectors = realloc(c->vectors, 16ul * c->words * c->room);
    if (vectors == NULL)
        return 0;
    c->vectors = vectors;
    uint32_t *slots = calloc(UINT64_C(2) << c->slot_bits, sizeof *slots);
    if (slots == NULL)
        return 0;
    free(c->slots);
    c->slots = slots;
    c->room *= 2;
    c->slot_bits++;
    for (uint32_t i = 2; i < c->count; i++)
        put(c, i);
    return 1;
}

uint32_t gbf_classes_of(gbf_classes *c, const uint64_t *vector)
{
    uint64_t mask = (UINT64_C(1) << c->slot_bits) - 1;
    for (uint64_t at = slot_of(c, vector); c->slots[at] != 0; at = (at + 1) & mask) {
        uint32_t class = c->slots[at] - 1;
        if (memcmp(c->vectors + (uint64_t)class * c->words, vector, 8ul * c->words) == 0)
            return class;
    }
    if (c->count == c->room && !grow(c))
        return GBF_NONE;
    memcpy(c->vectors + (uint64_t)c->count * c->words, vector, 8ul * c->words);
    put(c, c->count);
    return c->count++;
}

int gbf_columns_names(const gbf_connection *signals, const gbf_name_table *names, gbf_classes *classes,
                      const uint8_t *const *texts, const uint64_t *nbytes, uint64_t count, uint64_t *scratch,
                      uint32_t *out)
{
    const uint32_t width = 2 * signals->words;
    const uint64_t *known = gbf_connection_name_row(signals, GBF_ROW_KNOWN);
    for (uint64_t i = 0; i < count; i++) {
        gbf_name name;
        if (texts[i] == NULL || !gbf_name_read(&name, texts[i], nbytes[i], names->fold)) {
            out[i] = texts[i] == NULL && nbytes[i] == 0 ? GBF_ROW_ABSENT : GBF_ROW_MALFORMED;
            continue;
        }
        memcpy(scratch, known, 8ul * width);
        gbf_name_union(names, &name, signals->name_rows, signals->name_row_count, width, scratch);
        gbf_bits_and(scratch, scratch + signals->words, signals->words);
        if ((out[i] = gbf_classes_of(classes, scratch)) == GBF_NONE)
            return 0;
    }
    return 1;
}

int gbf_columns_fingerprints(gbf_classes *classes, const uint8_t *fingerprints, uint64_t count, uint32_t *out)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t halves[2];
        memcpy(halves, fingerprints + 16 * i, sizeof halves);
        if ((out[i] = gbf_classes_of(classes, halves)) == GBF_NONE)
            return 0;
    }
    return 1;
}

/* First rule from `from` on and before `end` that `mask` and all vectors hold, or GBF_NONE. */
static inline uint32_t first_of(uint32_t words, const uint64_t *mask, uint32_t from, uint32_t end,
                                const uint64_t *const *vectors, uint32_t count)
{
    uint64_t keep = ~UINT64_C(0) << (from & 63);
    for (uint32_t w = from >> 6; w < words; w++, keep = ~UINT64_C(0)) {
        uint64_t bits = mask[w] & keep;
        for (uint32_t i = 0; i < count; i++)
            bits &= vectors[i][w];
        if (bits) {
            uint32_t rule = w * 64 + (uint32_t)__builtin_ctzll(bits);
            return rule < end ? rule : GBF_NONE;
        }
    }
    return GBF_NONE;
}

static uint32_t first_bit(const gbf_rules *r, const uint64_t *const *vectors, uint32_t count)
{
    return first_of(r->words, r->enforced, 0, r->ends[GBF_ADMIT], vectors, count);
}

static void decide_addresses(const gbf_rules *r, const uint64_t *base, uint8_t unparsable, const uint32_t *leaves,
                             uint64_t n, uint32_t *winners, const gbf_rows *out)
{
    for (uint32_t i = 0; i < (uint32_t)r->class_count; i++) {
        const uint64_t *vectors[] = {gbf_rules_vector(r, i), base};
        winners[i] = first_bit(r, vectors, 2);
    }
    const gbf_leaf malformed_leaf = {0, GBF_CLASS_MALFORMED};
    for (uint64_t i = 0; i < n; i++) {
        if (i + AHEAD < n && leaves[i + AHEAD] != GBF_NONE)
            GBF_PREFETCH(r->leaves + leaves[i + AHEAD]);
        const gbf_leaf *leaf = leaves[i] == GBF_NONE ? &malformed_leaf : r->leaves + leaves[i];
        uint32_t rule = winners[leaf->class];
        out->rules[i] = rule;
        out->asns[i] = leaf->asn;
        out->actions[i] = rule != GBF_NONE ? r->actions[rule] : leaves[i] == GBF_NONE ? unparsable : GBF_ALLOW;
    }
}

void gbf_columns_decide(const gbf_rules *r, const uint64_t *base, uint8_t unparsable, const uint32_t *leaves,
                        uint64_t n, const gbf_column *columns, uint32_t column_count, uint32_t *winners,
                        const gbf_rows *out)
{
    if (column_count == 0) {
        decide_addresses(r, base, unparsable, leaves, n, winners, out);
        return;
    }
    const uint64_t *vectors[GBF_COLUMNS_MAX + 2];
    const gbf_leaf malformed_leaf = {0, GBF_CLASS_MALFORMED};
    vectors[0] = base;
    for (uint64_t i = 0; i < n; i++) {
        if (i + AHEAD < n && leaves[i + AHEAD] != GBF_NONE)
            GBF_PREFETCH(r->leaves + leaves[i + AHEAD]);
        const gbf_leaf *leaf = leaves[i] == GBF_NONE ? &malformed_leaf : r->leaves + leaves[i];
        int malformed = leaves[i] == GBF_NONE;
        vectors[1] = gbf_rules_vector(r, leaf->class);
        for (uint32_t c = 0; c < column_count; c++) {
            uint32_t class = columns[c].classes[i];
            malformed |= class == GBF_ROW_MALFORMED;
            vectors[c + 2] = columns[c].vectors + (uint64_t)class * r->words;
        }
        uint32_t rule = first_bit(r, vectors, column_count + 2);
        out->rules[i] = rule;
        out->asns[i] = leaf->asn;
        out->actions[i] = rule != GBF_NONE ? r->actions[rule] : malformed ? unparsable : GBF_ALLOW;
    }
}

void gbf_columns_first(const gbf_rules *r, const uint64_t *mask, uint32_t from, uint32_t end, const uint64_t *base,
                       const uint32_t *leaves, uint64_t n, const gbf_column *columns, uint32_t column_count,
                       uint32_t *out)
{
    const uint64_t *vectors[GBF_COLUMNS_MAX + 2];
    vectors[0] = base;
    for (uint64_t i = 0; i < n; i++) {
        vectors[1] = gbf_rules_vector(r, leaves[i] == GBF_NONE ? GBF_CLASS_MALFORMED : r->leaves[leaves[i]].class);
        for (uint32_t c = 0; c < column_count; c++)
            vectors[c + 2] = columns[c].vectors + (uint64_t)columns[c].classes[i] * r->words;
        out[i] = first_of(r->words, mask, from, end, vectors, column_count + 2);
    }
}
