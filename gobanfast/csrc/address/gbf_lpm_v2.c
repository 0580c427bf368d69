/* x86-64-v2: popcnt, and SSSE3/SSE4.1 for the address parsers. */
#if defined(__x86_64__)
#include "base/gbf_target.h"
GBF_TARGET_BEGIN("popcnt,ssse3,sse4.1")
#define GBF_KERNEL_V2
#include "address/gbf_lpm_body.h"
#include "base/gbf_cpu.h"

const gbf_lpm_kernel gbf_lpm_v2 = {"v2",       GBF_CPU_V2,  find_text,      find,  parse,
                                   find4_many, find16_many, find_text_many, verify};
GBF_TARGET_END
#endif
