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

int gbf_cpu_cap(const char *level, uint32_t *features)
{
    static const struct {
        const char *name;
        uint32_t has;
    } levels[] = {
        {"scalar", 0},
        {"v2", GBF_CPU_V2},
        {"avx2", GBF_CPU_V2 | GBF_CPU_AVX2},
        {"avx512", GBF_CPU_V2 | GBF_CPU_AVX2 | GBF_CPU_AVX512},
        {"neon", GBF_CPU_NEON},
    };
    uint32_t have = gbf_cpu_features();
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (strcmp(level, levels[i].name) == 0 && (levels[i].has & ~have) == 0) {
            *features = levels[i].has;
            return 1;
        }
    return 0;
}
