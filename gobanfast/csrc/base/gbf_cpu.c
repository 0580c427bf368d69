#include "base/gbf_cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Leaf 7, EBX bit 29. __builtin_cpu_supports("sha") came with GCC 14 only. The instructions use the SSE registers,
 * which every x86-64 operating system saves. */
static int has_sha(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ebx >> 29 & 1);
}
#endif

uint32_t gbf_cpu_features(void)
{
    uint32_t found = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    int v2 = __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1");
    int avx2 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vbmi") &&
                 __builtin_cpu_supports("avx512vbmi2");
    found |= v2 ? GBF_CPU_V2 : 0;
    found |= avx2 ? GBF_CPU_AVX2 : 0;
    found |= avx512 ? GBF_CPU_AVX512 : 0;
    found |= v2 && has_sha() ? GBF_CPU_SHA : 0;
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
            *features = levels[i].has | (levels[i].has & GBF_CPU_V2 ? have & GBF_CPU_SHA : 0);
            return 1;
        }
    return 0;
}
