/* Every kernel's parser says of every text what the reference parser says, reads nothing past its end, and what was
 * parsed prints to a text that parses to the same address. */
#include <stdio.h>

#include "address/gbf_trie.h"
#include "base/gbf_cpu.h"
#include "mend.h"

static void expect(int fine, const char *what)
{
    if (!fine) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    gbf_addr expected = {0, 0}, found = {0, 0};
    char *text = (char *)exact(data, nbytes);
    int is_address = gbf_addr_parse(text, nbytes, &expected);
    for (uint32_t level = 0, have = gbf_cpu_features(); level < 8; level++) {
        const gbf_lpm_kernel *kernel = gbf_lpm_pick(have & ((1u << level) - 1));
        int answer = kernel->parse(text, nbytes, &found);
        expect(answer == is_address, "a kernel and the reference disagree on what is an address");
        expect(!is_address || gbf_addr_number(found) == gbf_addr_number(expected), "a kernel parsed another address");
    }
    uint32_t bits;
    gbf_prefix_problem problem = gbf_addr_parse_prefix(text, nbytes, &found, &bits);
    expect(problem != GBF_PREFIX_FINE || (bits <= 128 && (gbf_addr_number(found) & gbf_addr_hostmask(bits)) == 0),
           "a fine prefix has host bits");
    if (is_address) {
        char printed[GBF_ADDR_TEXT_BYTES];
        size_t length = gbf_addr_format(expected, printed);
        expect(length <= sizeof printed && gbf_addr_parse(printed, length, &found), "printed text does not parse");
        expect(gbf_addr_number(found) == gbf_addr_number(expected), "printed text is another address");
    }
    free(text);
    return 0;
}
