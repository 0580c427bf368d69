/* A block that opens may be read: every section lies inside it. The first input byte chooses between the bytes as they
 * come and a block whose magic, size and hash are mended, so that mutation gets past the header. */
#include "mend.h"

enum { COUNT = 36, DIRECTORY = 64 };
#define KIND GBF_TAG('P', 'F', 'X', ' ')

/* Reads every byte of every section; the sum keeps the reads from being optimised away. */
static uint64_t read_all(const uint8_t *block)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < gbf_load32(block + COUNT); i++) {
        gbf_section section;
        uint64_t count;
        memcpy(&section, block + DIRECTORY + i * sizeof section, sizeof section);
        const uint8_t *items = gbf_block_section(block, section.tag, section.item_bytes, &count);
        for (uint64_t at = 0; at < count * section.item_bytes; at++)
            sum += items[at];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    if (nbytes < 2)
        return 0;
    uint64_t block_bytes = nbytes - 1;
    uint8_t *block = exact(data + 1, block_bytes);
    if ((data[0] & 1) != 0 && block_bytes >= DIRECTORY)
        mend(block, block_bytes, KIND);
    volatile uint64_t sum = 0;
    for (int check_hash = 0; check_hash < 2; check_hash++) {
        gbf_fault fault;
        if (gbf_block_open(block, block_bytes, KIND, check_hash, &fault) == GBF_OK)
            sum = sum + read_all(block);
    }
    free(block);
    return 0;
}
