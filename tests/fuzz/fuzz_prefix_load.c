/* A prefix table or a ruleset that opens, with a hash or without one, answers every call without leaving its block.
 *
 * Input: a few prefixes to build a sound block from, then edits (offset, byte) to it, then a cut. Random bytes alone would
 * never get past the geometry checks. */
#include "gbf_cpu.h"
#include "gbf_prefix.h"
#include "gbf_rules.h"
#include "mend.h"

#define KIND GBF_TAG('P', 'F', 'X', ' ')
#define RULES GBF_TAG('R', 'U', 'L', 'E')

static gbf_addr any_address(input *in)
{
    uint32_t choice = take(in, 1);
    if (choice & 1)
        return gbf_addr_from4(take(in, 4));
    return (gbf_addr){(uint64_t)take(in, 4) << 32 | take(in, 2), choice & 2 ? take(in, 4) : 0};
}

static uint64_t ask_prefix(const uint8_t *block, uint64_t nbytes, int verify, const gbf_lpm_kernel *kernel, input in)
{
    gbf_prefix table;
    gbf_fault fault;
    if (gbf_prefix_open(&table, block, nbytes, KIND, verify, kernel, &fault) != GBF_OK)
        return 0;
    uint64_t sum = (uint64_t)gbf_prefix_verify(&table, &fault);
    for (int i = 0; i < 8; i++) {
        gbf_addr address = any_address(&in);
        gbf_prefix_item item;
        uint32_t value = 0;
        sum += gbf_prefix_find(&table, address);
        sum += (uint64_t)gbf_prefix_covering(&table, address, &item);
        sum += (uint64_t)gbf_prefix_get(&table, gbf_addr_masked(address, 112), 112, &value) + value;
    }
    uint8_t packed[64 * 16];
    uint32_t leaves[64];
    for (int i = 0; i < 64; i++)
        gbf_addr_store(any_address(&in), packed + 16 * i);
    kernel->find16_many(&table.lpm, packed, 64, leaves);
    sum += gbf_prefix_values(&table, leaves, 64);
    gbf_prefix_cursor cursor;
    memset(&cursor, 0, sizeof cursor);
    while (gbf_prefix_next(&table, &cursor))
        sum += cursor.item.value;
    gbf_range *ranges = NULL;
    uint64_t count = 0;
    if (gbf_prefix_verify(&table, &fault) == GBF_OK && gbf_prefix_ranges(&table, 6, &ranges, &count) == GBF_OK)
        sum += count;
    free(ranges);
    return sum;
}

static uint64_t ask_rules(const uint8_t *block, uint64_t nbytes, int verify, const gbf_lpm_kernel *kernel, input in)
{
    gbf_rules rules;
    gbf_fault fault;
    if (gbf_rules_open(&rules, block, nbytes, verify, kernel, &fault) != GBF_OK)
        return 0;
    uint64_t sum = 0;
    for (int i = 0; i < 16; i++) {
        char text[64];
        uint32_t record = gbf_rules_record(&rules, text, gbf_addr_format(any_address(&in), text));
        const uint64_t *vector = gbf_rules_vector(&rules, rules.records[record].class);
        uint32_t rule = gbf_rules_next(&rules, vector, rules.enforced, 0);
        sum += rule == GBF_NONE ? 0 : rules.actions[rule];
    }
    return sum;
}

static void *build_rules(input *in)
{
    gbf_range ranges[3] = {{{0, 0}, 0}, {{(uint64_t)(take(in, 4) | 1) << 32, 0}, 1}, {{UINT64_MAX, 0}, 0}};
    const gbf_record records[2] = {{0, 2}, {take(in, 4), 3}};
    const uint64_t vectors[4] = {0, 0, take(in, 1), take(in, 1)}, masks[3] = {1, 2, 4};
    const uint8_t actions[3] = {0, 1, 3};
    gbf_rules_source source = {ranges,  ranges, records, vectors, &masks[0], &masks[1], &masks[2],
                               actions, 3,      2,       2,       4,         3};
    void *block = NULL;
    gbf_fault fault;
    return gbf_rules_build(&source, &block, &fault) == GBF_OK ? block : NULL;
}

static void *build_prefixes(input *in)
{
    gbf_prefix_item items[64];
    uint32_t count = take(in, 1) % 64;
    for (uint32_t i = 0; i < count; i++) {
        gbf_addr address = any_address(in);
        uint32_t floor = gbf_addr_is4(address) ? 96 : 0, bits = floor + take(in, 1) % (129 - floor);
        items[i] = (gbf_prefix_item){gbf_addr_masked(address, bits), bits,
                                     take(in, 1) & 1 ? take(in, 1) : UINT32_C(0x90000000)};
    }
    void *block = NULL;
    gbf_fault fault;
    return gbf_prefix_build(items, count, KIND, NULL, 0, &block, &fault) == GBF_OK ? block : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    uint32_t choice = take(&in, 1);
    int rules = choice & 1;
    uint8_t *sound = rules ? build_rules(&in) : build_prefixes(&in);
    if (sound == NULL)
        return 0;
    uint64_t block_bytes = gbf_block_nbytes(sound);
    for (uint32_t edits = take(&in, 1) % 16; edits > 0; edits--) {
        uint32_t offset = take(&in, 4) % (uint32_t)block_bytes;
        sound[offset] = (uint8_t)take(&in, 1);
    }
    if (choice & 2)
        block_bytes = 64 + take(&in, 4) % (block_bytes - 63);
    uint8_t *block = exact(sound, block_bytes);
    free(sound);
    if (choice & 4)
        mend(block, block_bytes, rules ? RULES : KIND);
    const gbf_lpm_kernel *kernel = gbf_lpm_pick(choice & 8 ? 0 : gbf_cpu_features());
    volatile uint64_t sum = 0;
    for (int verify = 0; verify < 2; verify++)
        sum = sum + (rules ? ask_rules : ask_prefix)(block, block_bytes, verify, kernel, in);
    free(block);
    return 0;
}
