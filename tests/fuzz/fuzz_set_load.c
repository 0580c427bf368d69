/* A prefix set that opens, with a hash or without one, answers every call without leaving its block, and every kernel
 * gives the same answer.
 *
 * Input: a few prefixes to build a sound block from, then edits (section, offset, byte) to it, then a cut. Random bytes
 * alone would never get past the geometry checks, and random offsets would all fall into the index. */
#include "address/gbf_set.h"
#include "base/gbf_cpu.h"
#include "mend.h"

static gbf_addr any_address(input *in)
{
    uint32_t choice = take(in, 1);
    if (choice & 1)
        return gbf_addr_from4(choice & 2 ? take(in, 4) : UINT32_C(0x0A0B0000) | take(in, 1));
    return (gbf_addr){(uint64_t)take(in, 2) << 48 | take(in, 1), choice & 2 ? take(in, 2) : 0};
}

static void *build(input *in)
{
    gbf_prefix_item items[256];
    uint32_t count = take(in, 1);
    for (uint32_t i = 0; i < count; i++) {
        gbf_addr address = any_address(in);
        uint32_t floor = gbf_addr_is4(address) ? 96 : 0, bits = 128 - take(in, 1) % (129 - floor);
        items[i] = (gbf_prefix_item){gbf_addr_masked(address, bits), bits, 0};
    }
    void *block = NULL;
    gbf_fault fault;
    return gbf_set_build(items, count, &block, &fault) == GBF_OK ? block : NULL;
}

static void ask(const uint8_t *block, uint64_t nbytes, int check_hash, input in)
{
    const gbf_set_kernel *best = gbf_set_pick(gbf_cpu_features()), *scalar = gbf_set_pick(0);
    const gbf_set_kernel *v2 = gbf_set_pick(gbf_cpu_features() & GBF_CPU_V2);
    gbf_set set;
    gbf_fault fault;
    if (gbf_set_open(&set, block, nbytes, check_hash, best, &fault) != GBF_OK)
        return;
    uint8_t packed[32 * 16], inside[3][32];
    uint32_t four[32];
    for (int i = 0; i < 32; i++) {
        gbf_addr address = any_address(&in);
        char text[64];
        size_t n = gbf_addr_format(address, text);
        gbf_addr_store(address, packed + 16 * i);
        four[i] = (uint32_t)address.low;
        if (best->covers_text(&set, text, n) != scalar->covers_text(&set, text, n))
            abort();
    }
    size_t found = scalar->covers16_many(&set, packed, 32, inside[0]);
    if (best->covers16_many(&set, packed, 32, inside[1]) != found || memcmp(inside[0], inside[1], 32) != 0)
        abort();
    if (v2->covers16_many(&set, packed, 32, inside[2]) != found || memcmp(inside[0], inside[2], 32) != 0)
        abort();
    if (best->covers4_many(&set, four, 32, inside[0]) != scalar->covers4_many(&set, four, 32, inside[1]))
        abort();
    gbf_set_cursor cursor;
    memset(&cursor, 0, sizeof cursor);
    uint64_t left = set.prefix4s + set.prefix6s;
    while (gbf_set_next(&set, &cursor))
        if (left-- == 0)
            abort();
    if (left != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    uint32_t check_hash = take(&in, 1) & 1;
    uint8_t *sound = build(&in);
    if (sound == NULL)
        return 0;
    uint64_t block_bytes;
    uint8_t *block = damaged(&in, sound, &block_bytes, GBF_SET_KIND);
    ask(block, block_bytes, check_hash, in);
    free(block);
    return 0;
}
