/* Whatever steps come, and whatever bytes a table holds: an answer is one that a count can have, a limit lets no more in
 * than it says within a window, and nothing outside the table is touched.
 *
 * Input: limit, window, burst; whether the table begins as bytes of the input; then steps of (what, key, cost, time). */
#include "fuzz.h"
#include "state/gbf_limit.h"

#define CAPACITY 16u
#define KEYS 6u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    gbf_limits t;
    gbf_limit limit;
    gbf_fault fault;
    gbf_limit_answer a;
    uint32_t most = take(&in, 4), window = take(&in, 4), burst = take(&in, 2), foreign = take(&in, 1) & 1,
             large = take(&in, 1) & 1;
    uint64_t now = 1 + (uint64_t)take(&in, 4), size = gbf_limits_nbytes(CAPACITY), begun[KEYS] = {0}, used[KEYS] = {0};
    most = large ? most : most % 20;
    if (gbf_limit_set(&limit, 1, most, window, burst, &fault) != GBF_OK) {
        must(most == 0 || most > GBF_LIMIT_MAX_COUNT || window == 0 || window > GBF_LIMIT_MAX_MS || burst > most);
        return 0;
    }
    uint8_t *memory = aligned_alloc(64, size);
    must(memory != NULL);
    memset(memory, 0, size);
    if (foreign)
        memcpy(memory, data, nbytes < size ? nbytes : size);
    gbf_limits_open(&t, memory, CAPACITY, 7);
    while (in.at < in.end) {
        uint32_t what = take(&in, 1) % 5, key = take(&in, 1) % KEYS, cost = 1 + take(&in, 1) % 4;
        now += take(&in, 2);
        gbf_limit_do(&t, &limit, (gbf_limit_key){key, 9}, (gbf_limit_step)what, cost, now, &a);
        must(a.left <= limit.limit && a.wait_ms <= window + 1001 && a.reset_ms <= window + 1001);
        must(a.admitted <= 1 && a.tracked <= 1 && (a.admitted == 0) == (a.wait_ms != 0));
        if (foreign || limit.interval != 0 || what != GBF_LIMIT_TAKE)
            begun[key] = used[key] = UINT64_C(1) << 60; /* the model knows plain requests alone */
        if (used[key] >> 60 || !a.tracked)
            continue;
        if (begun[key] == 0 || now >= begun[key] + window)
            begun[key] = now, used[key] = 0;
        cost = cost > limit.limit ? limit.limit : cost;
        must(a.admitted == (used[key] + cost <= limit.limit));
        used[key] += a.admitted ? cost : 0;
        if (used[key] == 0)
            begun[key] = 0;
        must(a.left == limit.limit - used[key]);
    }
    free(memory);
    return 0;
}
