/* x86-64-v2: SSSE3/SSE4.1 for the address parsers and the last 16 bounds of an IPv4 search. */
#if defined(__x86_64__)
#include "base/gbf_target.h"
GBF_TARGET_BEGIN("popcnt,ssse3,sse4.1")
#define GBF_KERNEL_V2
#include "address/gbf_set_body.h"
#include "base/gbf_cpu.h"

const gbf_set_kernel gbf_set_v2 = {
    "v2", GBF_CPU_V2, covers_text, covers4_many, covers16_many, covers_text_many, verify,
};
GBF_TARGET_END
#endif
