/* Trackers: entries, tails, and eviction. See gbf_tracker.h and DESIGN.md, "Trackers". Long because the three
 * counts live in one entry, and one pass over it keeps them all. */
#include <stdlib.h>

#include "state/gbf_tracker.h"

#define WHOLE 255u /* standing of a client at a limit */
#define HOT 128u   /* an entry with so much is not given away */
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

/* The upper half chooses the set; the lower one is the tag, and its halves choose the cells. */
GBF_INLINE uint64_t client_hash(const gbf_tracker *t, gbf_addr client)
{
    uint64_t mixed = fold(client.high ^ t->key[0], client.low ^ t->key[1]);
    uint64_t hash = fold(mixed ^ t->key[2], t->key[3]);
    return (uint32_t)hash != 0 ? hash : hash | 1;
}

GBF_INLINE uint64_t set_index(const gbf_tracker *t, uint64_t hash)
{
    return (hash >> 32) * t->set_count >> 32;
}

GBF_INLINE entry_head *entry_at(const gbf_tracker *t, uint64_t set, uint32_t way)
{
    return (entry_head *)(void *)(t->entries + (set * GBF_TRACKER_WAYS + way) * t->entry_bytes);
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

/* The standing that a count gives: one at least, and all at the limit. */
GBF_INLINE uint32_t standing_of(uint32_t count, uint32_t scale)
{
    uint64_t standing = ((uint64_t)count * scale + 0xFFFF) >> 16;
    return standing < WHOLE ? (uint32_t)standing : WHOLE;
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
        out->tripped |= out->distinct >= t->limits.distinct_limit ? GBF_TRIPPED(GBF_TRIP_DISTINCT) : 0;
        standing = standing_of(out->distinct, t->distinct_scale);
    }
    if (t->limits.rate_limit != 0) {
        rate_ring *ring = (rate_ring *)(void *)((uint8_t *)head + t->rate_at);
        count_rate(t, ring, now);
        out->requests = ring->sum;
        out->requests_most = out->requests + carried;
        out->tripped |= out->requests >= t->limits.rate_limit ? GBF_TRIPPED(GBF_TRIP_RATE) : 0;
        standing = larger(standing, standing_of(out->requests, t->rate_scale));
    }
    if (t->limits.surge_min != 0) {
        surge_ring *ring = (surge_ring *)(void *)((uint8_t *)head + t->surge_at);
        count_surge(t, ring, now);
        int whole = now - head->since_ms >= (uint64_t)t->surge_bucket_ms * GBF_TRACKER_SURGE_BUCKETS;
        out->surge_now = ring->now;
        out->surge_base = whole ? ring->base : 0;
        if (whole && ring->now >= t->limits.surge_min &&
            (uint64_t)ring->now * 1000 > (uint64_t)t->limits.surge_percent * ring->base)
            out->tripped |= GBF_TRIPPED(GBF_TRIP_SURGE);
        standing = larger(standing, standing_of(ring->now, t->surge_scale));
    }
    head->touched_ms = now;
    if (fresh && head->estimate > 1) /* an estimate makes no entry hot */
        standing += smaller(standing_of(head->estimate - 1, t->most_scale), HOT / 2);
    return smaller(standing, WHOLE);
}

/* ---- the tail of a set ---- */

static void turn_tail(const gbf_tracker *t, gbf_tracker_tail *tail, uint64_t now)
{
    uint64_t epoch = now / t->horizon_ms;
    if (epoch <= tail->epoch) /* an earlier time: the tail keeps what it has */
        return;
    if (epoch == tail->epoch + 1)
        memcpy(tail->before, tail->now, sizeof tail->now);
    else
        memset(tail->before, 0, sizeof tail->before);
    memset(tail->now, 0, sizeof tail->now);
    tail->epoch = epoch;
}

GBF_INLINE uint32_t cell_of(uint32_t tag, int which)
{
    return (tag >> (16 * which) & 0xFFFF) * GBF_TRACKER_CELLS >> 16;
}

static void add_to_cell(uint16_t *cell, uint32_t amount)
{
    *cell = (uint16_t)smaller(*cell + amount, GBF_TRACKER_MAX_COUNT);
}

static void add_to_tail(gbf_tracker_tail *tail, uint32_t tag, uint32_t amount)
{
    uint32_t first = cell_of(tag, 0), second = cell_of(tag, 1);
    add_to_cell(&tail->now[first], amount);
    if (second != first)
        add_to_cell(&tail->now[second], amount);
}

/* What the tail holds of a client, at most; GBF_TRACKER_MAX_COUNT when its cells are full and nobody knows. */
static uint32_t tail_most(const gbf_tracker *t, const gbf_tracker_tail *tail, uint32_t tag, uint64_t time)
{
    uint64_t epoch = time / t->horizon_ms;
    uint32_t most = GBF_TRACKER_MAX_COUNT;
    for (int which = 0; which < 2; which++) {
        uint32_t cell = cell_of(tag, which), now = tail->now[cell], before = tail->before[cell];
        if (epoch > tail->epoch) {
            before = epoch == tail->epoch + 1 ? now : 0;
            now = 0;
        }
        if (now < GBF_TRACKER_MAX_COUNT && before < GBF_TRACKER_MAX_COUNT)
            most = smaller(most, now + before);
    }
    return most;
}

/* What others may well have put into two cells of a client: half above the average, and three. */
static uint32_t tail_noise(const gbf_tracker_tail *tail)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < GBF_TRACKER_CELLS; i++)
        sum += (uint32_t)tail->now[i] + tail->before[i];
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

/* How long ago its set's line says an entry was seen. Ticks come round after 64 to 128 horizons, so one in 64 of the
 * entries that were idle for longer passes for a live one, for one horizon; and a clock that went back makes live ones
 * look idle, which is_idle then denies. */
GBF_INLINE uint32_t ticks_since(const gbf_tracker *t, const gbf_tracker_set *set, uint32_t way, uint64_t now)
{
    return (uint16_t)((uint16_t)(now >> t->tick_shift) - set->touched[way]);
}

static int is_idle(const gbf_tracker *t, const entry_head *head, uint64_t now)
{
    return now > head->touched_ms && now - head->touched_ms >= t->horizon_ms;
}

/* The way to give away: empty, else the lowest standing (idle is zero), among those the one touched longest ago. The
 * set's line says who is idle, or with `exactly` the entries do. */
static uint32_t weakest(const gbf_tracker *t, uint64_t index, uint64_t now, int exactly, uint32_t *standing)
{
    const gbf_tracker_set *set = &t->sets[index];
    uint32_t idle_ticks = (t->horizon_ms >> t->tick_shift) + 2, chosen = 0, chosen_age = 0;
    *standing = UINT32_MAX;
    for (uint32_t way = 0; way < GBF_TRACKER_WAYS; way++) {
        if (set->tag[way] == 0) {
            *standing = 0;
            return way;
        }
        uint32_t age = ticks_since(t, set, way, now);
        int idle = exactly ? is_idle(t, entry_at(t, index, way), now) : age >= idle_ticks;
        uint32_t its = idle ? 0 : set->standing[way];
        if (its < *standing || (its == *standing && age > chosen_age)) {
            *standing = its;
            chosen = way;
            chosen_age = age;
        }
    }
    if (*standing == 0 && !is_idle(t, entry_at(t, index, chosen), now)) /* the clock went back */
        return exactly ? chosen : weakest(t, index, now, 1, standing);
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
static uint32_t admit(gbf_tracker *t, uint64_t index, uint32_t tag, gbf_addr client, uint64_t now)
{
    gbf_tracker_set *set = &t->sets[index];
    gbf_tracker_tail *tail = &t->tails[index];
    uint32_t standing, way = weakest(t, index, now, 0, &standing);
    entry_head *head = entry_at(t, index, way);
    turn_tail(t, tail, now);
    uint32_t carried = tail_most(t, tail, tag, now), estimate = 1;
    if (standing > 0) {
        uint32_t noise = tail_noise(tail);
        estimate += carried > noise ? carried - noise : 0;
        if (standing >= HOT || standing > standing_of(estimate, t->most_scale)) {
            add_to_tail(tail, tag, 1);
            return GBF_NONE;
        }
        add_to_tail(tail, set->tag[way], entry_most(t, head));
        atomic_fetch_add_explicit(&t->evicted, 1, memory_order_relaxed);
    }
    begin(t, head, client, now, carried, estimate);
    set->tag[way] = tag;
    atomic_fetch_add_explicit(&t->admitted, 1, memory_order_relaxed);
    return way;
}

GBF_INLINE uint32_t way_of(const gbf_tracker *t, uint64_t index, uint32_t tag, gbf_addr client)
{
    for (uint32_t way = 0; way < GBF_TRACKER_WAYS; way++) {
        if (t->sets[index].tag[way] == tag) {
            const entry_head *head = entry_at(t, index, way);
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
        out->tripped = GBF_TRIPPED(GBF_TRIP_UNSURE);
}

void gbf_tracker_note(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms, gbf_tracker_answer *out)
{
    uint64_t hash = client_hash(t, client), index = set_index(t, hash);
    uint32_t tag = (uint32_t)hash;
    gbf_tracker_set *set = &t->sets[index];
    memset(out, 0, sizeof *out);
    gbf_lock_take(&set->lock);
    uint32_t way = way_of(t, index, tag, client);
    if (GBF_UNLIKELY(way == GBF_NONE))
        way = admit(t, index, tag, client, now_ms);
    if (GBF_LIKELY(way != GBF_NONE)) {
        entry_head *head = entry_at(t, index, way);
        set->standing[way] = (uint8_t)count_request(t, head, fingerprint, now_ms, out);
        set->touched[way] = (uint16_t)(head->touched_ms >> t->tick_shift);
    } else {
        answer_untracked(t, tail_most(t, &t->tails[index], tag, now_ms), fingerprint, out);
        atomic_fetch_add_explicit(&t->refused, 1, memory_order_relaxed);
    }
    gbf_lock_open(&set->lock);
    mark_unsure(t, out);
    if (GBF_UNLIKELY(out->tripped == GBF_TRIPPED(GBF_TRIP_UNSURE)))
        atomic_fetch_add_explicit(&t->unsure, 1, memory_order_relaxed);
}

void gbf_tracker_peek(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms, gbf_tracker_answer *out)
{
    uint64_t kept[MAX_ENTRY_BYTES / 8];
    uint64_t hash = client_hash(t, client), index = set_index(t, hash);
    uint32_t tag = (uint32_t)hash;
    gbf_lock *lock = &t->sets[index].lock;
    memset(out, 0, sizeof *out);
    gbf_lock_take(lock);
    uint32_t way = way_of(t, index, tag, client);
    if (way != GBF_NONE) {
        entry_head *head = entry_at(t, index, way);
        memcpy(kept, head, t->entry_bytes);
        count_request(t, head, fingerprint, now_ms, out);
        memcpy(head, kept, t->entry_bytes);
    } else {
        answer_untracked(t, tail_most(t, &t->tails[index], tag, now_ms) + 1, fingerprint, out);
    }
    gbf_lock_open(lock);
    mark_unsure(t, out);
}

int gbf_tracker_forget(gbf_tracker *t, gbf_addr client)
{
    uint64_t hash = client_hash(t, client), index = set_index(t, hash);
    gbf_tracker_set *set = &t->sets[index];
    gbf_lock_take(&set->lock);
    uint32_t way = way_of(t, index, (uint32_t)hash, client);
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
    return limit == 0 ? 0 : (WHOLE << 16) / limit;
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
    while ((t->horizon_ms >> t->tick_shift) >= 1024)
        t->tick_shift++;
    t->distinct_scale = scale(limits->distinct_limit);
    t->rate_scale = scale(limits->rate_limit);
    t->surge_scale = scale(limits->surge_min);
    t->most_scale = larger(t->distinct_scale, larger(t->rate_scale, t->surge_scale));

    uint64_t set_bytes = t->set_count * sizeof(gbf_tracker_set);
    uint64_t tail_bytes = t->set_count * sizeof(gbf_tracker_tail);
    uint64_t entries_bytes = t->set_count * GBF_TRACKER_WAYS * t->entry_bytes;
    t->nbytes = sizeof *t + set_bytes + tail_bytes + entries_bytes;
    /* Zeros that nobody has written yet: pages come with the clients that need them. */
    _Static_assert(sizeof *t->sets % 64 == 0 && sizeof *t->tails % 64 == 0, "each part begins at a cache line");
    t->memory = calloc(1, set_bytes + tail_bytes + entries_bytes + 63);
    if (t->memory == NULL)
        return gbf_refuse(fault, GBF_NO_MEMORY, "no memory for the trackers", t->nbytes);
    uint8_t *line = (uint8_t *)t->memory + (64 - (uintptr_t)t->memory % 64) % 64;
    t->sets = (gbf_tracker_set *)(void *)line;
    t->tails = (gbf_tracker_tail *)(void *)(line + set_bytes);
    t->entries = line + set_bytes + tail_bytes;
    return GBF_OK;
}

void gbf_tracker_close(gbf_tracker *t)
{
    free(t->memory);
    t->memory = NULL;
    t->sets = NULL;
    t->tails = NULL;
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

void gbf_tracker_mend(gbf_tracker *t)
{
    for (uint64_t i = 0; i < t->set_count; i++) {
        if (atomic_load_explicit(&t->sets[i].lock.taken, memory_order_relaxed)) {
            memset(t->sets[i].tag, 0, sizeof t->sets[i].tag);
            memset(&t->tails[i], 0, sizeof t->tails[i]);
            gbf_lock_open(&t->sets[i].lock);
        }
    }
}
