#include "gbf_cpu.h"

uint32_t gbf_cpu_features(void)
{
    uint32_t found = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    int v2 = __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1");
    int avx2 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vbmi2");
    found |= v2 ? GBF_CPU_V2 : 0;
    found |= avx2 ? GBF_CPU_AVX2 : 0;
    found |= avx512 ? GBF_CPU_AVX512 : 0;
#elif defined(__aarch64__)
    found |= GBF_CPU_NEON;
#endif
    return found;
}

int gbf_kernel_pick(const char *const *names, const uint32_t *needs, int count, const char *forced)
{
    uint32_t have = gbf_cpu_features();
    for (int i = 0; i < count; i++) {
        if (forced != NULL && strcmp(forced, names[i]) != 0)
            continue;
        if ((needs[i] & ~have) == 0)
            return i;
    }
    return -1;
}
