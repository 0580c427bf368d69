#include "address/gbf_trie.h"
#include "base/gbf_cpu.h"

extern const gbf_lpm_kernel gbf_lpm_avx512, gbf_lpm_v2, gbf_lpm_scalar;

const gbf_lpm_kernel *const gbf_lpm_kernels[] = {
#if defined(__x86_64__)
    &gbf_lpm_avx512,
    &gbf_lpm_v2,
#endif
    &gbf_lpm_scalar,
};

const gbf_lpm_kernel *gbf_lpm_pick(uint32_t features)
{
    int i = 0;
    while (gbf_lpm_kernels[i]->needs & ~features) /* "scalar" needs nothing */
        i++;
    return gbf_lpm_kernels[i];
}
