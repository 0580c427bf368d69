/* The portable kernel: always compiled, runs everywhere, and the reference for the others. */
#include "address/gbf_lpm_body.h"

const gbf_lpm_kernel gbf_lpm_scalar = {"scalar",   0,           find_text,      find,  parse,
                                       find4_many, find16_many, find_text_many, verify};
