/* The portable kernel: always compiled, runs everywhere, and the reference for the others. */
#include "address/gbf_set_body.h"

const gbf_set_kernel gbf_set_scalar = {
    "scalar", 0, covers_text, covers4_many, covers16_many, covers_text_many, verify,
};
