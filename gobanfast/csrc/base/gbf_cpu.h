/* CPU feature detection and kernel selection. A kernel list is a const array, best first, the
 * portable one last. The pick is a pointer kept in each table: no mutable global, nothing to race. */
#ifndef GBF_CPU_H
#define GBF_CPU_H

#include "base/gbf_base.h"

enum {
    GBF_CPU_V2 = 1,     /* x86-64: popcnt, ssse3, sse4.1 */
    GBF_CPU_AVX2 = 2,   /* x86-64: + avx2, bmi1, bmi2, lzcnt */
    GBF_CPU_AVX512 = 4, /* x86-64: + avx512 f, bw, dq, vl, vpopcntdq, vbmi, vbmi2 */
    GBF_CPU_NEON = 8,   /* aarch64: always */
    GBF_CPU_SHA = 16,   /* x86-64: sha extensions; part of level v2 and above where the CPU has them */
};

/* The features above that both the CPU and the operating system support. */
uint32_t gbf_cpu_features(void);

/* The features of this machine up to `level`: "scalar", "v2", "avx2", "avx512" or "neon", each with all below it. 0 when
 * the level is unknown or this machine does not reach it; 1 and *features otherwise. */
int gbf_cpu_cap(const char *level, uint32_t *features);

#endif
