/* Rules that open, with a hash or without one, decide every address without leaving their block: whatever is in it, each
 * address has a leaf, and what wins has an action that can be counted.
 *
 * Input: ranges and masks to build a sound block from, then edits to it, then the addresses to decide. */
#include "base/gbf_cpu.h"
#include "mend.h"
#include "rules/gbf_columns.h"
#include "rules/gbf_rules.h"

enum { KIND = GBF_TAG('R', 'U', 'L', 'E'), RULES = 70, WORDS = 2, CLASSES = 4, RANGES = 6, LEAVES = 3, ROWS = 32 };

static void *build(input *in)
{
    gbf_range ranges[RANGES] = {{{0, 0}, 0}};
    const gbf_leaf leaves[LEAVES] = {{0, 2}, {64500, 3}, {64501, 1}};
    uint64_t vectors[CLASSES * WORDS], masks[3][WORDS] = {{~UINT64_C(7), 0x0F}, {2, 0x10}, {4, 0x20}};
    uint8_t actions[RULES] = {GBF_ALLOW, GBF_CHALLENGE, GBF_ACTION_LOG};
    uint32_t count = 1;
    for (; count < RANGES; count++) { /* left-aligned, as both families have them; some hang far down */
        uint64_t step = take(in, 1) & 1 ? UINT64_C(1) << 63 >> take(in, 1) % 31 : UINT64_C(1) << 32;
        ranges[count] = (gbf_range){{ranges[count - 1].start.high + step, 0}, count % LEAVES};
        if (ranges[count].start.high <= ranges[count - 1].start.high)
            break;
    }
    for (int i = 0; i < CLASSES * WORDS; i++)
        vectors[i] = take(in, 1) * UINT64_C(0x0101010101010101);
    uint32_t ends[GBF_EFFECTS] = {RULES, RULES, RULES, RULES};
    if (take(in, 1) & 1) /* rules of several effects */
        ends[GBF_ADMIT] = 3 + take(in, 1) % (RULES - 3), ends[GBF_SHARE] = RULES - 1;
    if (ends[GBF_SHARE] < ends[GBF_ADMIT])
        ends[GBF_SHARE] = ends[GBF_ADMIT];
    ends[GBF_RECORD] = ends[GBF_SHARE];
    for (uint32_t i = 3; i < ends[GBF_ADMIT]; i++)
        actions[i] = (uint8_t[]){GBF_ALLOW, GBF_CHALLENGE, GBF_BAN}[i % 3];
    const gbf_rules_source source = {ranges,  ranges, leaves, vectors, masks[0], masks[1], masks[2],
                                     actions, ends,   count,  count,   LEAVES,   CLASSES,  RULES};
    void *block = NULL;
    gbf_fault fault;
    return gbf_rules_build(&source, &block, &fault) == GBF_OK ? block : NULL;
}

static gbf_addr any_address(input *in)
{
    uint32_t choice = take(in, 1);
    if (choice & 1)
        return gbf_addr_from4(choice & 2 ? take(in, 4) : take(in, 2) << 20);
    return (gbf_addr){(uint64_t)take(in, 4) << 32 | take(in, 4), take(in, 1)};
}

static uint64_t decide(const gbf_rules *r, uint32_t leaf)
{
    must(leaf < r->leaf_count);
    const uint64_t *vector = gbf_rules_vector(r, r->leaves[leaf].class);
    const uint64_t *masks[] = {r->enforced, r->shadow, r->logged};
    uint64_t sum = 0;
    must(r->ends[GBF_EFFECTS - 1] == r->rule_count);
    for (uint32_t effect = 0, from = 0; effect < GBF_EFFECTS; from = r->ends[effect++]) {
        must(from <= r->ends[effect]);
        uint32_t rule = gbf_rules_first(r, vector, r->enforced, from, r->ends[effect]);
        must(rule == GBF_NONE || (rule >= from && rule < r->ends[effect]));
        must(rule == GBF_NONE || effect == GBF_ADMIT || r->actions[rule] == 0);
    }
    for (int i = 0; i < 3; i++) {
        uint32_t rule = gbf_rules_next(r, vector, masks[i], 0);
        for (; rule != GBF_NONE; rule = gbf_rules_next(r, vector, masks[i], rule + 1)) {
            must(rule < r->rule_count && r->actions[rule] < (i == 0 ? GBF_ACTIONS : GBF_ACTION_LOG + 1));
            sum += r->actions[rule];
        }
    }
    return sum;
}

static uint64_t ask(const gbf_rules *r, input in)
{
    uint32_t four[ROWS], leaves4[ROWS], leaves16[ROWS];
    uint8_t packed[16 * ROWS];
    uint64_t sum = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        gbf_addr address = any_address(&in);
        char text[64];
        sum += decide(r, gbf_rules_leaf(r, text, gbf_addr_format(address, text)));
        four[i] = (uint32_t)address.low;
        gbf_addr_store(address, packed + 16 * i);
    }
    r->kernel->find4_many(&r->lpm, four, ROWS, leaves4);
    r->kernel->find16_many(&r->lpm, packed, ROWS, leaves16);
    for (uint32_t i = 0; i < ROWS; i++)
        sum += decide(r, leaves4[i]) + decide(r, leaves16[i]);
    for (uint64_t i = 0; i < UINT64_C(1) << r->lpm.v4.direct_bits; i++) /* every slot that an edit can have met */
        must(gbf_trie_find4(&r->lpm.v4, (uint32_t)(i << (32 - r->lpm.v4.direct_bits))) < r->leaf_count);
    for (uint64_t i = 0; i < UINT64_C(1) << r->lpm.v6.direct_bits; i++)
        must(gbf_trie_find6(&r->lpm.v6, (gbf_addr){i << (64 - r->lpm.v6.direct_bits), 0}) < r->leaf_count);
    uint64_t *base = malloc(8ul * r->words);
    uint32_t *winners = malloc(4 * r->class_count), rules[ROWS], asns[ROWS];
    uint8_t actions[ROWS];
    must(base != NULL && winners != NULL);
    memset(base, 0xFF, 8ul * r->words);
    const gbf_rows out = {actions, rules, asns};
    leaves16[0] = GBF_NONE; /* a text that is no address */
    gbf_columns_decide(r, base, 1, leaves16, ROWS, NULL, 0, winners, &out);
    for (uint32_t i = 0; i < ROWS; i++)
        must(actions[i] < GBF_ACTIONS && (rules[i] == GBF_NONE || rules[i] < r->rule_count));
    free(base);
    free(winners);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    const gbf_lpm_kernel *kernel = gbf_lpm_pick(take(&in, 1) & 1 ? 0 : gbf_cpu_features());
    uint8_t *sound = build(&in);
    if (sound == NULL)
        return 0;
    uint64_t block_bytes;
    uint8_t *block = damaged(&in, sound, &block_bytes, KIND);
    volatile uint64_t sum = 0;
    for (int verify = 0; verify < 2; verify++) {
        gbf_rules rules;
        gbf_fault fault;
        if (gbf_rules_open(&rules, block, block_bytes, verify, kernel, &fault) == GBF_OK)
            sum = sum + ask(&rules, in);
    }
    free(block);
    return 0;
}
