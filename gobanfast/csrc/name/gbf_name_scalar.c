#include "name/gbf_name.h"

int gbf_name_fold_scalar(gbf_name *name, const uint8_t *text, uint64_t nbytes)
{
    uint64_t dots[4] = {0, 0, 0, 0};
    int good = 1;
    for (uint64_t i = 0; i < nbytes; i++) {
        uint8_t c = text[i];
        c |= (uint8_t)((uint8_t)(c - 'A') < 26) << 5;
        good &= gbf_symbol[c] != 0;
        dots[i >> 6] |= (uint64_t)(c == '.') << (i & 63);
        name->text[i] = c;
    }
    memcpy(name->dots, dots, sizeof dots);
    return good;
}
