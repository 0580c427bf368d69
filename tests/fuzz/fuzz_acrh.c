/* Request headers of a preflight: nothing is read past a line's end, a line cut at a comma into two is the same, and what one set
 * allows, a set of the same names and any other allows, too. */
#include "fuzz.h"
#include "http/gbf_acrh.h"

static int walked(const gbf_acrh *allowed, const uint8_t *text, size_t nbytes, size_t cut)
{
    gbf_acrh_walk walk = {0};
    uint8_t *first = exact(text, cut), *second = cut < nbytes ? exact(text + cut + 1, nbytes - cut - 1) : NULL;
    int found = gbf_acrh_line(allowed, &walk, first, cut) &&
                (second == NULL || gbf_acrh_line(allowed, &walk, second, nbytes - cut - 1));
    free(first);
    free(second);
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const char names[] = "aauthorizationx-barx-fooz";
    static const uint32_t ends[] = {1, 14, 19, 24, 25};
    gbf_acrh allowed = {(const uint8_t *)names, ends, 5, 13, 0};
    int whole = walked(&allowed, data, nbytes, nbytes);
    for (size_t i = 0; i < nbytes && i < 300; i++)
        if (data[i] == ',')
            must(walked(&allowed, data, nbytes, i) == whole);
    allowed.any = 1;
    must(!whole || walked(&allowed, data, nbytes, nbytes));
    allowed.count = 0;
    walked(&allowed, data, nbytes, nbytes);
    return 0;
}
