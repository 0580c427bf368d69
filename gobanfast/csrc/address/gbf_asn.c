#include "address/gbf_asn.h"

gbf_status gbf_asn_names_open(gbf_asn_names *names, const void *block, gbf_fault *fault)
{
    uint64_t numbers, offsets, nbytes;
    names->numbers = gbf_block_section(block, GBF_ASN_NUMBERS, sizeof(uint32_t), &numbers);
    names->offsets = gbf_block_section(block, GBF_ASN_OFFSETS, sizeof(uint32_t), &offsets);
    names->text = gbf_block_section(block, GBF_ASN_TEXT, 1, &nbytes);
    if (names->numbers == NULL || names->offsets == NULL || names->text == NULL)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "name section is missing", 64);
    uint64_t at = (uint64_t)((const uint8_t *)names->offsets - (const uint8_t *)block);
    if (numbers >= UINT32_MAX || offsets != numbers + 1)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "name offsets do not match the AS numbers", at);
    names->count = (uint32_t)numbers;
    if (names->offsets[0] != 0 || names->offsets[numbers] != nbytes)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "name offsets do not cover the name text", at);
    for (uint64_t i = 0; i < numbers; i++) {
        if (names->offsets[i] > names->offsets[i + 1])
            return gbf_refuse(fault, GBF_BAD_FORMAT, "name offsets do not ascend", at + 4 * i);
        if (i > 0 && names->numbers[i - 1] >= names->numbers[i])
            return gbf_refuse(fault, GBF_BAD_FORMAT, "AS numbers do not ascend",
                              (uint64_t)((const uint8_t *)(names->numbers + i) - (const uint8_t *)block));
    }
    return GBF_OK;
}
