/* Trackers: entries, tails, and who is forgotten. See gbf_tracker.h and DESIGN.md, "Trackers". */
#include <stdlib.h>

#include "gbf_tracker.h"

#define WHOLE 65536u     /* standing of a client at a limit */
#define HOT (WHOLE / 2u) /* an entry with so much is not given away */
#define SLOT_TIME_BITS 24
#define SLOT_TIME_MASK ((UINT64_C(1) << SLOT_TIME_BITS) - 1)

/* The beginning of an entry. Behind it, each where its count is on: gbf_tracker_rate, gbf_tracker_surge, and a slot of
 * 8 bytes for every distinct fingerprint up to the limit: 40 bits of its hash and 24 of the time it was last seen, the
 * last seen first. */
typedef struct {
    gbf_addr client;
    uint64_t touched_ms;
    uint64_t since_ms;  /* when the entry began */
    uint32_t carried;   /* at most so much was counted in the horizon before `since_ms` */
    uint32_t estimate;  /* and probably so much, one at least: gives the standing to stay */
    uint32_t distincts; /* slots in use */
} entry_head;

typedef struct {
    uint64_t start_ms; /* of the bucket `head` */
    uint32_t sum;      /* of all counts */
    uint16_t head;
    uint16_t count[GBF_TRACKER_RATE_BUCKETS];
} rate_ring;

typedef struct {
    uint64_t start_ms;
    uint32_t now, base; /* sums of the last GBF_TRACKER_SURGE_NOW buckets and of those before */
    uint16_t head;
    uint16_t count[GBF_TRACKER_SURGE_BUCKETS];
} surge_ring;

#define MAX_ENTRY_BYTES                                                                                                \
    ((sizeof(entry_head) + sizeof(rate_ring) + sizeof(surge_ring) + 8 * GBF_TRACKER_MAX_DISTINCT) / 64 * 64 + 64)

/* Both halves of the 128-bit product of two words, one of them keyed. */
GBF_INLINE uint64_t fold(uint64_t a, uint64_t b)
{
    gbf_u128 product = (gbf_u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

GBF_INLINE uint64_t client_hash(const gbf_tracker *t, gbf_addr client)
{
    uint64_t mixed = fold(client.high ^ t->key[0], client.low ^ t->key[1]);
    uint64_t hash = fold(mixed ^ t->key[2], t->key[3]);
    return hash != 0 ? hash : 1;
}

GBF_INLINE gbf_tracker_set *set_of(const gbf_tracker *t, uint64_t hash)
{
    return t->sets + ((hash >> 32) * t->set_count >> 32);
}

GBF_INLINE uint8_t *entry_at(const gbf_tracker *t, const gbf_tracker_set *set, uint32_t way)
{
    return t->entries + ((uint64_t)(set - t->sets) * GBF_TRACKER_WAYS + way) * t->entry_bytes;
}

GBF_INLINE uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

GBF_INLINE uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* ---- windows ---- */

/* The number of distinct fingerprints seen in the window that ends at `now`, `fingerprint` among them. */
static uint32_t count_distinct(const gbf_tracker *t, entry_head *head, uint64_t fingerprint, uint64_t now)
{
    uint64_t *slots = (uint64_t *)(void *)((uint8_t *)head + t->slots_at);
    uint64_t window = t->limits.distinct_window_ms;
    uint32_t n = now - head->touched_ms >= window ? 0 : head->distincts;
    while (n > 0 && ((now - slots[n - 1]) & SLOT_TIME_MASK) >= window)
        n--;
    if (fingerprint != 0) {
        uint64_t wanted = fold(fingerprint ^ t->key[1], t->key[3]) & ~SLOT_TIME_MASK;
        uint32_t i = 0;
        while (i < n && (slots[i] & ~SLOT_TIME_MASK) != wanted)
            i++;
        if (i == n)
            n += n < t->limits.distinct_limit; /* when all are in use, the one seen longest ago makes room */
        if (i == t->limits.distinct_limit)
            i--;
        memmove(slots + 1, slots, i * sizeof *slots);
        slots[0] = wanted | (now & SLOT_TIME_MASK);
    }
    head->distincts = n;
    return n;
}

/* Buckets are aligned to the clock, so the ring says the same whenever it is asked. */
static void count_rate(const gbf_tracker *t, rate_ring *ring, uint64_t now)
{
    uint64_t bucket = t->rate_bucket_ms;
    if (GBF_UNLIKELY(now - ring->start_ms >= bucket)) {
        uint64_t steps = (now - ring->start_ms) / bucket;
        ring->start_ms += steps * bucket;
        if (steps >= GBF_TRACKER_RATE_BUCKETS) {
            memset(ring->count, 0, sizeof ring->count);
            ring->sum = 0;
        } else {
            while (steps-- > 0) {
                ring->head = (uint16_t)((ring->head + 1u) % GBF_TRACKER_RATE_BUCKETS);
                ring->sum -= ring->count[ring->head];
                ring->count[ring->head] = 0;
            }
        }
    }
    if (ring->count[ring->head] < GBF_TRACKER_MAX_COUNT) {
        ring->count[ring->head]++;
        ring->sum++;
    }
}

static void count_surge(const gbf_tracker *t, surge_ring *ring, uint64_t now)
{
    uint64_t bucket = t->surge_bucket_ms;
    if (GBF_UNLIKELY(now - ring->start_ms >= bucket)) {
        uint64_t steps = (now - ring->start_ms) / bucket;
        ring->start_ms += steps * bucket;
        if (steps >= GBF_TRACKER_SURGE_BUCKETS) {
            memset(ring->count, 0, sizeof ring->count);
            ring->now = ring->base = 0;
        } else {
            while (steps-- > 0) {
                uint32_t next = (ring->head + 1u) % GBF_TRACKER_SURGE_BUCKETS;
                uint32_t aged = (next + GBF_TRACKER_SURGE_BUCKETS - GBF_TRACKER_SURGE_NOW) % GBF_TRACKER_SURGE_BUCKETS;
                ring->now -= ring->count[aged];
                ring->base += ring->count[aged];
                ring->base -= ring->count[next];
                ring->count[next] = 0;
                ring->head = (uint16_t)next;
            }
        }
    }
    if (ring->count[ring->head] < GBF_TRACKER_MAX_COUNT) {
        ring->count[ring->head]++;
        ring->now++;
    }
}

/* Counts a request in an entry and says where the client stands; returns its standing. */
static uint32_t count_request(const gbf_tracker *t, entry_head *head, uint64_t fingerprint, uint64_t now,
                              gbf_tracker_answer *out)
{
    uint32_t standing = 0;
    if (now < head->touched_ms)
        now = head->touched_ms;
    uint32_t fresh = now - head->since_ms < t->horizon_ms;
    uint32_t carried = fresh ? head->carried : 0;
    out->tracked = 1;
    if (t->limits.distinct_limit != 0) {
        out->distinct = count_distinct(t, head, fingerprint, now);
        out->distinct_most = out->distinct + carried;
        out->tripped |= out->distinct >= t->limits.distinct_limit ? GBF_TRIP_DISTINCT : 0;
        standing = out->distinct * t->distinct_scale;
    }
    if (t->limits.rate_limit != 0) {
        rate_ring *ring = (rate_ring *)(void *)((uint8_t *)head + t->rate_at);
        count_rate(t, ring, now);
        out->requests = ring->sum;
        out->requests_most = out->requests + carried;
        out->tripped |= out->requests >= t->limits.rate_limit ? GBF_TRIP_RATE : 0;
        standing = larger(standing, smaller(out->requests, t->limits.rate_limit) * t->rate_scale);
    }
    if (t->limits.surge_min != 0) {
        surge_ring *ring = (surge_ring *)(void *)((uint8_t *)head + t->surge_at);
        count_surge(t, ring, now);
        int whole = now - head->since_ms >= (uint64_t)t->surge_bucket_ms * GBF_TRACKER_SURGE_BUCKETS;
        out->surge_now = ring->now;
        out->surge_base = whole ? ring->base : 0;
        if (whole && ring->now >= t->limits.surge_min &&
            (uint64_t)ring->now * 1000 > (uint64_t)t->limits.surge_percent * ring->base)
            out->tripped |= GBF_TRIP_SURGE;
        standing = larger(standing, smaller(ring->now, t->limits.surge_min) * t->surge_scale);
    }
    head->touched_ms = now;
    if (fresh && head->estimate > 1) /* an estimate makes no entry hot */
        standing += smaller((head->estimate - 1) * t->most_scale, HOT / 2);
    return standing;
}

/* ---- the tail of a set ---- */

static void turn_tail(const gbf_tracker *t, gbf_tracker_set *set, uint64_t now)
{
    uint64_t epoch = now / t->horizon_ms;
    if (epoch <= set->epoch) /* an earlier time: the tail keeps what it has */
        return;
    if (epoch == set->epoch + 1)
        memcpy(set->before, set->tail, sizeof set->tail);
    else
        memset(set->before, 0, sizeof set->before);
    memset(set->tail, 0, sizeof set->tail);
    set->epoch = epoch;
}

GBF_INLINE uint32_t cell_of(uint64_t hash, int which)
{
    return (uint32_t)((hash >> (16 * which) & 0xFFFF) * GBF_TRACKER_CELLS >> 16);
}

static void add_to_cell(uint16_t *cell, uint32_t amount)
{
    uint32_t sum = *cell + amount;
    *cell = (uint16_t)(sum < GBF_TRACKER_MAX_COUNT ? sum : GBF_TRACKER_MAX_COUNT);
}

static void add_to_tail(gbf_tracker_set *set, uint64_t hash, uint32_t amount)
{
    uint32_t first = cell_of(hash, 0), second = cell_of(hash, 1);
    add_to_cell(&set->tail[first], amount);
    if (second != first)
        add_to_cell(&set->tail[second], amount);
}

/* What the tail holds of a client, at most; GBF_TRACKER_MAX_COUNT when its cells are full and nobody knows. */
static uint32_t tail_most(const gbf_tracker *t, const gbf_tracker_set *set, uint64_t hash, uint64_t now)
{
    uint64_t epoch = now / t->horizon_ms;
    uint32_t most = GBF_TRACKER_MAX_COUNT;
    for (int which = 0; which < 2; which++) {
        uint32_t cell = cell_of(hash, which), tail = set->tail[cell], before = set->before[cell];
        if (epoch > set->epoch) {
            before = epoch == set->epoch + 1 ? tail : 0;
            tail = 0;
        }
        if (tail < GBF_TRACKER_MAX_COUNT && before < GBF_TRACKER_MAX_COUNT)
            most = smaller(most, tail + before);
    }
    return most;
}

/* What others may well have put into two cells of a client: half above the average, and three. */
static uint32_t tail_noise(const gbf_tracker_set *set)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < GBF_TRACKER_CELLS; i++)
        sum += (uint32_t)set->tail[i] + set->before[i];
    return sum / GBF_TRACKER_CELLS * 3 / 2 + 3;
}

/* ---- admission ---- */

/* What must not be forgotten of an entry: no count of its own is larger. What it carried is in the tail still. */
static uint32_t entry_most(const gbf_tracker *t, const entry_head *head)
{
    uint32_t most = t->limits.distinct_limit != 0 ? head->distincts : 0;
    if (t->limits.rate_limit != 0)
        most = larger(most, ((const rate_ring *)(const void *)((const uint8_t *)head + t->rate_at))->sum);
    if (t->limits.surge_min != 0)
        most = larger(most, ((const surge_ring *)(const void *)((const uint8_t *)head + t->surge_at))->now);
    return most;
}

static int idle(const gbf_tracker *t, gbf_tracker_way way, uint64_t now)
{
    int32_t age = (int32_t)((uint32_t)now - way.touched_ms); /* negative: `now` is from before */
    return age >= 0 && (uint32_t)age >= t->horizon_ms;
}

/* The way to give away: empty, else the lowest standing (idle is zero), among those the one touched longest ago. */
static uint32_t weakest(const gbf_tracker *t, const gbf_tracker_set *set, uint64_t now, uint32_t *standing)
{
    uint32_t chosen = 0, chosen_age = 0;
    *standing = UINT32_MAX;
    for (uint32_t way = 0; way < GBF_TRACKER_WAYS; way++) {
        if (set->tag[way] == 0) {
            *standing = 0;
            return way;
        }
        uint32_t its = idle(t, set->way[way], now) ? 0 : set->way[way].standing;
        uint32_t age = (uint32_t)now - set->way[way].touched_ms;
        age = age > UINT32_MAX / 2 ? 0 : age;
        if (its < *standing || (its == *standing && age > chosen_age)) {
            *standing = its;
            chosen = way;
            chosen_age = age;
        }
    }
    return chosen;
}

static void begin(const gbf_tracker *t, entry_head *head, gbf_addr client, uint64_t now, uint32_t carried,
                  uint32_t estimate)
{
    memset(head, 0, t->slots_at); /* slots in use are counted, so the others may hold anything */
    head->client = client;
    head->touched_ms = head->since_ms = now;
    head->carried = carried;
    head->estimate = estimate;
    if (t->limits.rate_limit != 0)
        ((rate_ring *)(void *)((uint8_t *)head + t->rate_at))->start_ms = now - now % t->rate_bucket_ms;
    if (t->limits.surge_min != 0)
        ((surge_ring *)(void *)((uint8_t *)head + t->surge_at))->start_ms = now - now % t->surge_bucket_ms;
}

/* Way for a client without an entry, begun; GBF_NONE when every entry of the set has more reason to stay. */
static uint32_t admit(gbf_tracker *t, gbf_tracker_set *set, uint64_t hash, gbf_addr client, uint64_t now)
{
    uint32_t standing, way = weakest(t, set, now, &standing);
    entry_head *head = (entry_head *)(void *)entry_at(t, set, way);
    turn_tail(t, set, now);
    uint32_t carried = tail_most(t, set, hash, now), estimate = 1;
    if (standing > 0) {
        uint32_t noise = tail_noise(set);
        estimate += carried > noise ? carried - noise : 0;
        if (standing >= HOT || standing > estimate * t->most_scale) {
            add_to_tail(set, hash, 1);
            return GBF_NONE;
        }
        add_to_tail(set, set->tag[way], entry_most(t, head));
        atomic_fetch_add_explicit(&t->evicted, 1, memory_order_relaxed);
    }
    begin(t, head, client, now, carried, estimate);
    set->tag[way] = hash;
    atomic_fetch_add_explicit(&t->admitted, 1, memory_order_relaxed);
    return way;
}

GBF_INLINE uint32_t way_of(const gbf_tracker *t, const gbf_tracker_set *set, uint64_t hash, gbf_addr client)
{
    for (uint32_t way = 0; way < GBF_TRACKER_WAYS; way++) {
        if (set->tag[way] == hash) {
            const entry_head *head = (const entry_head *)(const void *)entry_at(t, set, way);
            if (head->client.high == client.high && head->client.low == client.low)
                return way;
        }
    }
    return GBF_NONE;
}

/* The answer for a client without an entry, whose requests only the tail counts: `most` of them. */
static void answer_untracked(const gbf_tracker *t, uint32_t most, uint64_t fingerprint, gbf_tracker_answer *out)
{
    out->distinct = t->limits.distinct_limit != 0 && fingerprint != 0;
    out->distinct_most = t->limits.distinct_limit != 0 ? most - (fingerprint == 0) : 0;
    out->requests = t->limits.rate_limit != 0;
    out->requests_most = t->limits.rate_limit != 0 ? most : 0;
    out->surge_now = t->limits.surge_min != 0;
}

GBF_INLINE void mark_unsure(const gbf_tracker *t, gbf_tracker_answer *out)
{
    if (out->tripped == 0 && ((t->limits.distinct_limit != 0 && out->distinct_most >= t->limits.distinct_limit) ||
                              (t->limits.rate_limit != 0 && out->requests_most >= t->limits.rate_limit)))
        out->tripped = GBF_TRIP_UNSURE;
}

void gbf_tracker_note(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms, gbf_tracker_answer *out)
{
    uint64_t hash = client_hash(t, client);
    gbf_tracker_set *set = set_of(t, hash);
    memset(out, 0, sizeof *out);
    gbf_lock_take(&set->lock);
    uint32_t way = way_of(t, set, hash, client);
    if (GBF_UNLIKELY(way == GBF_NONE))
        way = admit(t, set, hash, client, now_ms);
    if (GBF_LIKELY(way != GBF_NONE)) {
        entry_head *head = (entry_head *)(void *)entry_at(t, set, way);
        set->way[way].standing = count_request(t, head, fingerprint, now_ms, out);
        set->way[way].touched_ms = (uint32_t)head->touched_ms;
    } else {
        answer_untracked(t, tail_most(t, set, hash, now_ms), fingerprint, out);
        atomic_fetch_add_explicit(&t->refused, 1, memory_order_relaxed);
    }
    gbf_lock_open(&set->lock);
    mark_unsure(t, out);
    if (GBF_UNLIKELY(out->tripped == GBF_TRIP_UNSURE))
        atomic_fetch_add_explicit(&t->unsure, 1, memory_order_relaxed);
}

void gbf_tracker_peek(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms, gbf_tracker_answer *out)
{
    uint64_t kept[MAX_ENTRY_BYTES / 8];
    uint64_t hash = client_hash(t, client);
    gbf_tracker_set *set = set_of(t, hash);
    memset(out, 0, sizeof *out);
    gbf_lock_take(&set->lock);
    uint32_t way = way_of(t, set, hash, client);
    if (way != GBF_NONE) {
        uint8_t *entry = entry_at(t, set, way);
        memcpy(kept, entry, t->entry_bytes);
        count_request(t, (entry_head *)(void *)entry, fingerprint, now_ms, out);
        memcpy(entry, kept, t->entry_bytes);
    } else {
        answer_untracked(t, tail_most(t, set, hash, now_ms) + 1, fingerprint, out);
    }
    gbf_lock_open(&set->lock);
    mark_unsure(t, out);
}

int gbf_tracker_forget(gbf_tracker *t, gbf_addr client)
{
    uint64_t hash = client_hash(t, client);
    gbf_tracker_set *set = set_of(t, hash);
    gbf_lock_take(&set->lock);
    uint32_t way = way_of(t, set, hash, client);
    if (way != GBF_NONE)
        set->tag[way] = 0;
    gbf_lock_open(&set->lock);
    return way != GBF_NONE;
}

/* ---- a tracker's life ---- */

static uint32_t rounded(uint32_t bytes, uint32_t to)
{
    return (bytes + to - 1) / to * to;
}

static const char *problem_of(const gbf_tracker_limits *l)
{
    if (l->distinct_limit == 0 && l->rate_limit == 0 && l->surge_min == 0)
        return "nothing is tracked";
    if (l->capacity == 0)
        return "capacity is zero";
    if (l->distinct_limit != 0 && (l->distinct_limit < 2 || l->distinct_limit > GBF_TRACKER_MAX_DISTINCT))
        return "limit of distinct fingerprints is out of range";
    if (l->distinct_limit != 0 && (l->distinct_window_ms == 0 || l->distinct_window_ms > GBF_TRACKER_MAX_DISTINCT_MS))
        return "window of distinct fingerprints is out of range";
    if (l->rate_limit != 0 && (l->rate_limit < 2 || l->rate_limit > GBF_TRACKER_MAX_COUNT))
        return "request rate limit is out of range";
    if (l->rate_limit != 0 && (l->rate_window_ms < GBF_TRACKER_RATE_BUCKETS || l->rate_window_ms > GBF_TRACKER_MAX_MS))
        return "request rate window is out of range";
    if (l->surge_min != 0 && (l->surge_min < 2 || l->surge_min > GBF_TRACKER_MAX_COUNT || l->surge_percent == 0))
        return "surge limit is out of range";
    if (l->surge_min != 0 && (l->surge_baseline_ms < 40 || l->surge_baseline_ms > GBF_TRACKER_MAX_MS))
        return "surge baseline is out of range";
    return NULL;
}

static uint32_t scale(uint32_t limit)
{
    return limit == 0 ? 0 : WHOLE / limit;
}

gbf_status gbf_tracker_open(gbf_tracker *t, const gbf_tracker_limits *limits, const uint8_t key[32], gbf_fault *fault)
{
    const char *problem = problem_of(limits);
    if (problem != NULL)
        return gbf_refuse(fault, GBF_BAD_INPUT, problem, 0);
    memset(t, 0, sizeof *t);
    t->limits = *limits;
    for (int i = 0; i < 4; i++)
        t->key[i] = gbf_load64(key + 8 * i);
    t->key[3] |= 1;
    t->set_count = (limits->capacity - 1) / GBF_TRACKER_WAYS + 1;
    uint32_t at = rounded(sizeof(entry_head), 8);
    t->rate_at = at;
    at += limits->rate_limit != 0 ? (uint32_t)sizeof(rate_ring) : 0;
    t->surge_at = at;
    at += limits->surge_min != 0 ? (uint32_t)sizeof(surge_ring) : 0;
    t->slots_at = at;
    t->entry_bytes = rounded(at + 8 * limits->distinct_limit, 64);
    t->rate_bucket_ms = limits->rate_limit != 0 ? limits->rate_window_ms / GBF_TRACKER_RATE_BUCKETS : 1;
    t->surge_bucket_ms = limits->surge_min != 0 ? limits->surge_baseline_ms / 40 : 1;
    t->horizon_ms = limits->distinct_limit != 0 ? limits->distinct_window_ms : 1;
    if (limits->rate_limit != 0)
        t->horizon_ms = larger(t->horizon_ms, limits->rate_window_ms);
    if (limits->surge_min != 0)
        t->horizon_ms = larger(t->horizon_ms, t->surge_bucket_ms * GBF_TRACKER_SURGE_NOW);
    t->distinct_scale = scale(limits->distinct_limit);
    t->rate_scale = scale(limits->rate_limit);
    t->surge_scale = scale(limits->surge_min);
    t->most_scale = larger(t->distinct_scale, larger(t->rate_scale, t->surge_scale));

    uint64_t set_bytes = t->set_count * sizeof(gbf_tracker_set);
    uint64_t entries_bytes = t->set_count * GBF_TRACKER_WAYS * t->entry_bytes;
    t->nbytes = sizeof *t + set_bytes + entries_bytes;
    t->sets = aligned_alloc(64, set_bytes);
    t->entries = aligned_alloc(64, entries_bytes);
    if (t->sets == NULL || t->entries == NULL) {
        gbf_tracker_close(t);
        return gbf_refuse(fault, GBF_NO_MEMORY, "no memory for the trackers", t->nbytes);
    }
    memset(t->sets, 0, set_bytes);
    memset(t->entries, 0, entries_bytes);
    return GBF_OK;
}

void gbf_tracker_close(gbf_tracker *t)
{
    free(t->sets);
    free(t->entries);
    t->sets = NULL;
    t->entries = NULL;
}

void gbf_tracker_read_stats(gbf_tracker *t, gbf_tracker_stats *out)
{
    memset(out, 0, sizeof *out);
    for (uint64_t i = 0; i < t->set_count; i++) {
        gbf_lock_take(&t->sets[i].lock);
        for (uint32_t way = 0; way < GBF_TRACKER_WAYS; way++)
            out->clients += t->sets[i].tag[way] != 0;
        gbf_lock_open(&t->sets[i].lock);
    }
    out->admitted = atomic_load_explicit(&t->admitted, memory_order_relaxed);
    out->evicted = atomic_load_explicit(&t->evicted, memory_order_relaxed);
    out->refused = atomic_load_explicit(&t->refused, memory_order_relaxed);
    out->unsure = atomic_load_explicit(&t->unsure, memory_order_relaxed);
}

void gbf_tracker_take_all(gbf_tracker *t)
{
    for (uint64_t i = 0; i < t->set_count; i++)
        gbf_lock_take(&t->sets[i].lock);
}

void gbf_tracker_open_all(gbf_tracker *t)
{
    for (uint64_t i = 0; i < t->set_count; i++)
        gbf_lock_open(&t->sets[i].lock);
}
