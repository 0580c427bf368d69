/* Whatever order of calls comes, a tracker's bounds hold: it never knows of more than there was, never rules out what
 * was, peeks what it would note, and stays inside its memory.
 *
 * Input: limits, then calls of (what, client, fingerprint, milliseconds passed). The model keeps every event. */
#include "fuzz.h"
#include "state/gbf_tracker.h"

#define EVENTS 2048
#define CLIENTS 24

typedef struct {
    uint64_t when;
    uint32_t client, fingerprint;
} event;

static uint32_t distinct(const event *events, uint32_t n, uint32_t client, uint64_t now, uint64_t window)
{
    uint64_t seen = 0;
    for (uint32_t i = 0; i < n; i++)
        if (events[i].client == client && events[i].fingerprint != 0 && now - events[i].when < window)
            seen |= UINT64_C(1) << events[i].fingerprint;
    return (uint32_t)__builtin_popcountll(seen);
}

static uint32_t requests(const event *events, uint32_t n, uint32_t client, uint64_t now, uint64_t bucket)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        count += events[i].client == client && now / bucket - events[i].when / bucket < GBF_TRACKER_RATE_BUCKETS;
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static event events[EVENTS];
    static const uint8_t key[32] = "thirty-two bytes, random enough."; /* no terminator */
    input in = {data, data + nbytes};
    uint32_t on = take(&in, 1), n = 0;
    gbf_tracker_limits limits = {
        1 + take(&in, 1) % 16,
        on & 1 ? 2 + take(&in, 1) % 12 : 0,
        1 + take(&in, 2),
        on & 2 ? 2 + take(&in, 1) % 60 : 0,
        16 + take(&in, 2),
        101 + take(&in, 1),
        on & 4 ? 2 + take(&in, 1) : 0,
        40 + take(&in, 2),
    };
    gbf_tracker t;
    gbf_fault fault;
    if (gbf_tracker_open(&t, &limits, key, &fault) != GBF_OK)
        return 0;
    uint64_t now = 1 + (uint64_t)take(&in, 4) * 1000;
    while (in.at < in.end && n < EVENTS) {
        uint32_t what = take(&in, 1), client = what % CLIENTS, fingerprint = take(&in, 1) % 20;
        gbf_addr address = client % 2 ? gbf_addr_from4(client) : (gbf_addr){client, 0};
        gbf_tracker_answer peeked, answer;
        uint32_t passed = take(&in, 1);
        now += passed < 128 ? passed : (uint64_t)(passed - 127) * limits.distinct_window_ms / 16;
        gbf_tracker_peek(&t, address, fingerprint, now, &peeked);
        gbf_tracker_note(&t, address, fingerprint, now, &answer);
        events[n++] = (event){now, client, fingerprint};
        peeked.tracked = answer.tracked;
        must(memcmp(&peeked, &answer, sizeof answer) == 0);
        if (limits.distinct_limit != 0) {
            uint32_t truth = distinct(events, n, client, now, limits.distinct_window_ms);
            truth = truth < limits.distinct_limit ? truth : limits.distinct_limit;
            must(answer.distinct <= truth && truth <= answer.distinct_most);
            must(answer.tripped != 0 || truth < limits.distinct_limit);
        }
        if (limits.rate_limit != 0) {
            uint32_t truth = requests(events, n, client, now, limits.rate_window_ms / GBF_TRACKER_RATE_BUCKETS);
            must(answer.requests <= truth && truth <= answer.requests_most);
            must(answer.tripped != 0 || truth < limits.rate_limit);
        }
    }
    gbf_tracker_stats stats;
    gbf_tracker_read_stats(&t, &stats);
    must(stats.clients <= t.set_count * GBF_TRACKER_WAYS && stats.evicted + stats.clients <= stats.admitted);
    gbf_tracker_close(&t);
    return 0;
}
