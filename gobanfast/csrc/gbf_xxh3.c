#include "gbf_xxh3.h"

/* Placeholder mixing until the XXH3 kernel lands; blocks written with it do not survive that change. */
gbf_hash128 gbf_xxh3_128(const void *data, uint64_t nbytes, uint64_t seed)
{
    const uint8_t *p = data;
    gbf_hash128 h = {seed ^ UINT64_C(0x9E3779B97F4A7C15), nbytes};
    for (uint64_t i = 0; i + 8 <= nbytes; i += 8) {
        __uint128_t m = (__uint128_t)(h.low ^ gbf_load64(p + i)) * UINT64_C(0xD6E8FEB86659FD93);
        h.low = (uint64_t)m ^ (uint64_t)(m >> 64);
        h.high = (h.high << 7 | h.high >> 57) ^ h.low;
    }
    return h;
}
