/* Names of ASes that open answer for every number without leaving their block.
 *
 * Input: numbers and lengths of names to build a sound block from, then edits to it, then the numbers to ask. */
#include "address/gbf_asn.h"
#include "mend.h"

enum { NAMES = 16 };

static void *build(input *in)
{
    static const char text[NAMES * 8] = "Example";
    uint32_t numbers[NAMES], offsets[NAMES + 1] = {0}, count = take(in, 1) % (NAMES + 1);
    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = (i == 0 ? 0 : numbers[i - 1]) + 1 + take(in, 1);
        offsets[i + 1] = offsets[i] + take(in, 1) % 8;
    }
    const gbf_part parts[] = {{GBF_ASN_NUMBERS, 4, numbers, 4 * count},
                              {GBF_ASN_OFFSETS, 4, offsets, 4 * (count + 1)},
                              {GBF_ASN_TEXT, 1, text, offsets[count]}};
    void *block = NULL;
    must(gbf_block_build(parts, 3, GBF_ASN_KIND, &block) == GBF_OK);
    return block;
}

static uint64_t name_of(const gbf_asn_names *names, uint32_t asn)
{
    uint32_t nbytes = 0;
    const char *text = gbf_asn_name(names, asn, &nbytes);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < nbytes; i++)
        sum += (uint8_t)text[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    uint64_t block_bytes;
    uint8_t *sound = build(&in), *block = damaged(&in, sound, &block_bytes, GBF_ASN_KIND);
    gbf_asn_names names;
    gbf_fault fault;
    volatile uint64_t sum = 0;
    if (gbf_block_open(block, block_bytes, GBF_ASN_KIND, 0, &fault) == GBF_OK &&
        gbf_asn_names_open(&names, block, &fault) == GBF_OK) {
        for (uint32_t i = 0; i < names.count; i++)
            sum = sum + name_of(&names, names.numbers[i]);
        for (int i = 0; i < 8; i++)
            sum = sum + name_of(&names, take(&in, 4));
    }
    free(block);
    return 0;
}
