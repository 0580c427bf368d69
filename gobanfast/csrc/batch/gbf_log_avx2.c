#if defined(__x86_64__)
#include "base/gbf_target.h"
#include "batch/gbf_log.h"

GBF_TARGET_BEGIN("avx2,bmi,bmi2,popcnt")

static uint32_t marked(__m256i bytes)
{
    __m256i control = _mm256_cmpeq_epi8(_mm256_max_epu8(bytes, _mm256_set1_epi8(0x20)), _mm256_set1_epi8(0x20));
    __m256i space = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x20));
    __m256i quote = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('"'));
    __m256i escape = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\\'));
    return (uint32_t)_mm256_movemask_epi8(
        _mm256_or_si256(_mm256_andnot_si256(space, control), _mm256_or_si256(quote, escape)));
}

/* Positions of the bits, four at a time without a branch: what is too many is overwritten by the next ones. */
GBF_INLINE uint32_t flattened(uint64_t bits, uint32_t base, uint32_t *out)
{
    uint32_t count = (uint32_t)__builtin_popcountll(bits);
    for (uint32_t done = 0; done < count; done += 4)
        for (uint32_t i = 0; i < 4; i++) {
            out[done + i] = base + (uint32_t)_tzcnt_u64(bits);
            bits &= bits - 1;
        }
    return count;
}

uint32_t gbf_log_index_avx2(const uint8_t *text, uint32_t nbytes, uint32_t *out)
{
    uint32_t count = 0, at = 0;
    for (; at + 64 <= nbytes; at += 64) {
        uint64_t low = marked(_mm256_loadu_si256((const __m256i *)(text + at)));
        uint64_t high = marked(_mm256_loadu_si256((const __m256i *)(text + at + 32)));
        count += flattened(low | high << 32, at, out + count);
    }
    for (; at < nbytes; at++) {
        out[count] = at;
        count += text[at] < 0x20 || text[at] == '"' || text[at] == '\\';
    }
    return count;
}

GBF_TARGET_END
#endif
