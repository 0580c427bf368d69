/* AVX-512: masked loads in the parsers; the last 32 IPv4 bounds or 8 IPv6 bounds of a search in one compare. */
#if defined(__x86_64__)
#include "base/gbf_target.h"
GBF_TARGET_BEGIN("popcnt,ssse3,sse4.1,avx2,bmi,bmi2,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2")
#define GBF_KERNEL_V2
#define GBF_KERNEL_AVX512
#include "address/gbf_set_body.h"
#include "base/gbf_cpu.h"

const gbf_set_kernel gbf_set_avx512 = {
    "avx512", GBF_CPU_AVX512, covers_text, covers4_many, covers16_many, covers_text_many, verify,
};
GBF_TARGET_END
#endif
