/* A prefix table that opens, with a hash or without one, answers every call without leaving its block.
 *
 * Input: a few prefixes to build a sound block from, then edits (offset, byte) to it, then a cut. Random bytes alone would
 * never get past the geometry checks. */
#include "address/gbf_prefix.h"
#include "base/gbf_cpu.h"
#include "mend.h"

#define KIND GBF_TAG('P', 'F', 'X', ' ')

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
    uint8_t *sound = build_prefixes(&in);
    if (sound == NULL)
        return 0;
    uint64_t block_bytes;
    uint8_t *block = damaged(&in, sound, &block_bytes, KIND);
    const gbf_lpm_kernel *kernel = gbf_lpm_pick(choice & 8 ? 0 : gbf_cpu_features());
    volatile uint64_t sum = 0;
    for (int verify = 0; verify < 2; verify++)
        sum = sum + ask_prefix(block, block_bytes, verify, kernel, in);
    free(block);
    return 0;
}
