/* libFuzzer: any text through the CSV scanner in every layout, then through the builder. First byte chooses. */
#include "address/gbf_asn_build.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const gbf_asn_layout layouts[] = {
        {',', 0, -1, -1, 1, 2, 1, 3},  {',', -1, 0, 1, 2, 4, 1, 0},  {'\t', -1, 0, 1, 2, 3, 0, 0},
        {',', -1, -1, -1, 0, 1, 1, 0}, {',', 3, -1, -1, 1, 0, 0, 0},
    };
    gbf_fault fault;
    gbf_asn_packed packed;
    void *block = NULL;
    if (nbytes == 0)
        return 0;
    gbf_asn_rows *rows = calloc(1, sizeof *rows);
    if (rows == NULL)
        return 0;
    gbf_asn_scan(rows, &layouts[data[0] % 5], (const char *)data, nbytes, 1, 1);
    if (gbf_asn_pack(rows, &packed, &fault) == GBF_OK)
        free(packed.numbers);
    if (rows->count > 0 && gbf_prefix_build(rows->items, rows->count, GBF_ASN_KIND, NULL, 0, &block, &fault) != GBF_OK)
        abort(); /* the scanner let a prefix through that is none */
    free(block);
    gbf_asn_rows_free(rows);
    free(rows);
    return 0;
}
