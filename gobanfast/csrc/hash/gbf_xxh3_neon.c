#if defined(__aarch64__)
#include "hash/gbf_xxh3_lanes.h"

#include <arm_neon.h>

/* All eight lanes, four registers of two. `words` as in gbf_xxh3_avx2.c. */
typedef struct {
    uint64x2_t products[4], words[4];
} state;

GBF_INLINE uint64x2_t load(const void *p)
{
    return vreinterpretq_u64_u8(vld1q_u8(p));
}

GBF_INLINE void accumulate(state *s, const uint8_t *data, const uint8_t *secret)
{
    for (int i = 0; i < 4; i += 2) {
        uint64x2_t a = load(data + 16 * i), b = load(data + 16 * i + 16);
        uint32x4_t ma = vreinterpretq_u32_u64(veorq_u64(a, load(secret + 16 * i)));
        uint32x4_t mb = vreinterpretq_u32_u64(veorq_u64(b, load(secret + 16 * i + 16)));
        /* Low and high halves of four words gathered, so that both multiply-adds take whole registers. */
        uint32x4_t low = vuzp1q_u32(ma, mb), high = vuzp2q_u32(ma, mb);
        s->products[i] = vmlal_u32(s->products[i], vget_low_u32(low), vget_low_u32(high));
        s->products[i + 1] = vmlal_high_u32(s->products[i + 1], low, high);
        s->words[i] = vaddq_u64(s->words[i], a);
        s->words[i + 1] = vaddq_u64(s->words[i + 1], b);
    }
}

GBF_INLINE uint64x2_t whole(const state *s, int i)
{
    return vaddq_u64(s->products[i], vextq_u64(s->words[i], s->words[i], 1));
}

GBF_INLINE void scramble(state *s, const uint8_t *secret)
{
    uint32x2_t prime = vdup_n_u32((uint32_t)GBF_XXH3_PRIME32_1);
    for (int i = 0; i < 4; i++) {
        uint64x2_t x = whole(s, i);
        x = veorq_u64(veorq_u64(x, vshrq_n_u64(x, 47)), load(secret + 16 * i));
        uint64x2_t upper = vshlq_n_u64(vmull_u32(vshrn_n_u64(x, 32), prime), 32);
        s->products[i] = vmlal_u32(upper, vmovn_u64(x), prime);
        s->words[i] = vdupq_n_u64(0);
    }
}

static void lanes_neon(uint64_t lanes[8], const uint8_t *data, uint64_t nbytes, const uint8_t *secret,
                       uint64_t secret_bytes)
{
    gbf_xxh3_cut cut = gbf_xxh3_cut_up(nbytes, secret_bytes);
    const uint8_t *last_secret = secret + secret_bytes - 64;
    const uint8_t *p = data;
    state s;
    for (int i = 0; i < 4; i++) {
        s.products[i] = load(gbf_xxh3_start + 2 * i);
        s.words[i] = vdupq_n_u64(0);
    }
    for (uint64_t block = 0; block < cut.blocks; block++) {
        for (uint64_t i = 0; i < cut.stripes; i++, p += 64)
            accumulate(&s, p, secret + 8 * i);
        scramble(&s, last_secret);
    }
    for (uint64_t i = 0; i < cut.rest; i++, p += 64)
        accumulate(&s, p, secret + 8 * i);
    accumulate(&s, data + nbytes - 64, last_secret - 7);
    for (int i = 0; i < 4; i++)
        vst1q_u64(lanes + 2 * i, whole(&s, i));
}

const gbf_xxh3_kernel gbf_xxh3_neon = {"neon", GBF_CPU_NEON, lanes_neon};

#endif
