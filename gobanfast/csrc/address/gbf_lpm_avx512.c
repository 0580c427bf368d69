/* AVX-512: masked loads in the parsers; 16 IPv4 addresses to a register in batches. */
#if defined(__x86_64__)
#include "base/gbf_target.h"
GBF_TARGET_BEGIN(
    "popcnt,ssse3,sse4.1,avx2,bmi,bmi2,lzcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,avx512vbmi,avx512vbmi2")
#define GBF_KERNEL_V2
#define GBF_KERNEL_AVX512
#include "address/gbf_lpm_body.h"
#include "base/gbf_cpu.h"

const gbf_lpm_kernel gbf_lpm_avx512 = {"avx512",   GBF_CPU_AVX512, find_text,      find,  parse,
                                       find4_many, find16_many,    find_text_many, verify};
GBF_TARGET_END
#endif
