#include "state/gbf_limit.h"

#include "address/gbf_addr.h" /* gbf_u128 */

#define TIME_MASK ((UINT64_C(1) << GBF_LIMIT_TIME_BITS) - 1)
#define COUNT_MASK ((UINT64_C(1) << GBF_LIMIT_SHARE_BITS) - 1)
#define USED_MASK UINT64_C(7)
#define JUMP_MS 1000u
#define HALF 4u /* a way with so much used up is not given away */

/* Both halves of the 128-bit product of two words, one of them keyed. */
GBF_INLINE uint64_t fold(uint64_t a, uint64_t b)
{
    gbf_u128 product = (gbf_u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

GBF_INLINE uint64_t mix(uint64_t x) /* splitmix64 */
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

GBF_INLINE uint64_t hash_of(const gbf_limits *t, const gbf_limit *limit, gbf_limit_key key)
{
    uint64_t mixed = fold(key.first ^ limit->salt ^ t->key[0], key.second ^ t->key[1]);
    return fold(mixed ^ t->key[2], t->key[3]);
}

/* Milliseconds that a word is worth something for, 0: it is not. */
GBF_INLINE uint32_t remaining(uint64_t word, uint64_t now_ms)
{
    uint64_t left = ((word >> GBF_LIMIT_SHARE_BITS) - now_ms) & TIME_MASK;
    return word == 0 || left > GBF_LIMIT_MAX_MS ? 0 : (uint32_t)left;
}

/* ---- the count of one word ---- */

typedef struct {
    uint64_t word;
    uint32_t used; /* of the limit, in eighths, at most 7 */
} counted;

static uint32_t eighths(uint64_t part, uint64_t whole)
{
    uint64_t found = part / (whole / 8 + (whole < 8)); /* coarse: it only chooses what to forget */
    if (whole < 8)
        found = part * 8 / whole;
    return found > 7 ? 7 : (uint32_t)found;
}

static counted count_window(const gbf_limit *l, uint64_t word, gbf_limit_step step, uint32_t cost, uint64_t now_ms,
                            gbf_limit_answer *out)
{
    uint32_t left_ms = remaining(word, now_ms);
    uint64_t used = left_ms == 0 ? 0 : word & COUNT_MASK;
    if (left_ms > l->window_ms + JUMP_MS) /* the clock went back; by less a worker was slow between clock and count */
        left_ms = l->window_ms;
    out->admitted = used + cost <= l->limit;
    out->wait_ms = out->admitted ? 0 : left_ms;
    if (step == GBF_LIMIT_GIVE)
        used = used > cost ? used - cost : 0;
    else if (step == GBF_LIMIT_CLEAR)
        used = 0;
    else if (step == GBF_LIMIT_COUNT || (step == GBF_LIMIT_TAKE && out->admitted))
        used = used + cost < l->limit ? used + cost : l->limit;
    if (used != 0 && left_ms == 0)
        left_ms = l->window_ms;
    out->left = used < l->limit ? l->limit - (uint32_t)used : 0;
    out->reset_ms = used == 0 ? 0 : left_ms;
    counted made = {0, eighths(used, l->limit)};
    if (used != 0)
        made.word = ((now_ms + left_ms) & TIME_MASK) << GBF_LIMIT_SHARE_BITS | used;
    return made;
}

/* Milliseconds, rounded up, of 2^-30 of them. */
GBF_INLINE uint32_t whole_ms(uint64_t parts)
{
    return (uint32_t)((parts + COUNT_MASK) >> GBF_LIMIT_SHARE_BITS);
}

static counted count_bucket(const gbf_limit *l, uint64_t word, gbf_limit_step step, uint32_t cost, uint64_t now_ms,
                            gbf_limit_answer *out)
{
    uint64_t now = (now_ms & TIME_MASK) << GBF_LIMIT_SHARE_BITS, room = l->limit * l->interval;
    uint64_t ahead = word - now, more = cost * l->interval; /* ahead: modulo 2^64, as the time is modulo 2^34 */
    if (word == 0 || ahead > (uint64_t)GBF_LIMIT_MAX_MS << GBF_LIMIT_SHARE_BITS)
        ahead = 0;
    if (ahead > room + ((uint64_t)JUMP_MS << GBF_LIMIT_SHARE_BITS)) /* the clock went back */
        ahead = room;
    out->admitted = ahead + more <= room;
    out->wait_ms = out->admitted ? 0 : whole_ms(ahead + more - room);
    if (step == GBF_LIMIT_GIVE)
        ahead = ahead > more ? ahead - more : 0;
    else if (step == GBF_LIMIT_CLEAR)
        ahead = 0;
    else if (step == GBF_LIMIT_COUNT || (step == GBF_LIMIT_TAKE && out->admitted))
        ahead = ahead + more < room ? ahead + more : ahead > room ? ahead : room;
    out->left = ahead < room ? (uint32_t)((room - ahead) / l->interval) : 0;
    out->reset_ms = whole_ms(ahead);
    counted made = {0, eighths(ahead, room)};
    if (ahead != 0)
        made.word = now + ahead == 0 ? 1 : now + ahead;
    return made;
}

GBF_INLINE counted count(const gbf_limit *l, uint64_t word, gbf_limit_step step, uint32_t cost, uint64_t now_ms,
                         gbf_limit_answer *out)
{
    return l->interval != 0 ? count_bucket(l, word, step, cost, now_ms, out)
                            : count_window(l, word, step, cost, now_ms, out);
}

/* ---- ways ---- */

GBF_INLINE uint64_t tag_at(const gbf_limit_line *line, uint32_t way)
{
    return atomic_load_explicit(&line->tag[way], memory_order_acquire);
}

GBF_INLINE uint64_t word_at(const gbf_limit_line *line, uint32_t way)
{
    return atomic_load_explicit(&line->word[way], memory_order_relaxed);
}

GBF_INLINE int swap(_Atomic uint64_t *at, uint64_t *before, uint64_t after)
{
    return atomic_compare_exchange_strong_explicit(at, before, after, memory_order_acq_rel, memory_order_acquire);
}

/* The first way that is the key's. */
GBF_INLINE uint32_t way_of(const gbf_limit_line *line, uint64_t tag)
{
    for (uint32_t way = 0; way < GBF_LIMIT_WAYS; way++)
        if ((tag_at(line, way) & ~USED_MASK) == tag)
            return way;
    return GBF_NONE;
}

/* The way to give away: the first that is worth nothing, else the one that is used up least, and of those the one that
 * ends first; GBF_NONE when all are used up by half. */
static uint32_t weakest(const gbf_limit_line *line, uint64_t now_ms, int *live)
{
    uint32_t chosen = GBF_NONE, least = HALF, ends = 0;
    *live = 0;
    for (uint32_t way = 0; way < GBF_LIMIT_WAYS; way++) {
        uint32_t used = (uint32_t)(tag_at(line, way) & USED_MASK), left = remaining(word_at(line, way), now_ms);
        if (left == 0) {
            *live = 0;
            return way;
        }
        if (used < least || (used == least && chosen != GBF_NONE && left < ends)) {
            chosen = way;
            least = used;
            ends = left;
            *live = 1;
        }
    }
    return chosen;
}

/* A way for a key that has none; GBF_NONE: there is no room. */
static uint32_t claim(gbf_limits *t, gbf_limit_line *line, uint64_t tag, uint64_t now_ms)
{
    for (uint32_t tries = 0; tries < 4 * GBF_LIMIT_WAYS; tries++) {
        int live;
        uint32_t way = weakest(line, now_ms, &live), found;
        if (way == GBF_NONE)
            return GBF_NONE;
        uint64_t before = tag_at(line, way), word = word_at(line, way);
        if (!live && remaining(word, now_ms) != 0)
            continue; /* somebody took it meanwhile */
        if (word != 0 && !swap(&line->word[way], &word, 0))
            continue;
        if (!swap(&line->tag[way], &before, tag)) {
            if ((before & ~USED_MASK) == tag)
                return way; /* another worker was faster, for the same key */
            continue;
        }
        if (live)
            atomic_fetch_add_explicit(&t->header->evicted, 1, memory_order_relaxed);
        found = way_of(line, tag);
        if (found != way) { /* another worker took another one for this key: all use the lower */
            uint64_t mine = tag;
            swap(&line->tag[way], &mine, 0);
        }
        if (found != GBF_NONE)
            return found;
    }
    return GBF_NONE;
}

void gbf_limit_do(gbf_limits *t, const gbf_limit *limit, gbf_limit_key key, gbf_limit_step step, uint32_t cost,
                  uint64_t now_ms, gbf_limit_answer *out)
{
    uint64_t hash = hash_of(t, limit, key), tag = hash & ~USED_MASK;
    gbf_limit_line *line = &t->lines[(hash >> 32) * t->count >> 32];
    if (GBF_UNLIKELY(tag == 0))
        tag = USED_MASK + 1;
    if (cost > limit->limit)
        cost = limit->limit;
    for (uint32_t tries = 0; tries < 1024; tries++) {
        uint32_t way = way_of(line, tag);
        if (GBF_UNLIKELY(way == GBF_NONE)) {
            out->tracked = 0;
            count(limit, 0, step, cost, now_ms, out);
            if (step != GBF_LIMIT_TAKE && step != GBF_LIMIT_COUNT)
                return;
            way = claim(t, line, tag, now_ms);
            if (way == GBF_NONE)
                break;
        }
        out->tracked = 1;
        uint64_t before = word_at(line, way);
        counted made = count(limit, before, step, cost, now_ms, out);
        if (step == GBF_LIMIT_LOOK || made.word == before)
            return;
        if (GBF_UNLIKELY(!swap(&line->word[way], &before, made.word)))
            continue;
        uint64_t now = tag_at(line, way);
        if (GBF_UNLIKELY((now & ~USED_MASK) != tag))
            continue; /* the way was given away meanwhile, and what was counted is of no use to its new key */
        if (GBF_UNLIKELY((now & USED_MASK) != made.used))
            swap(&line->tag[way], &now, tag | made.used);
        return;
    }
    out->tracked = 0;
    out->admitted = 1;
    out->wait_ms = 0;
    atomic_fetch_add_explicit(&t->header->untracked, 1, memory_order_relaxed);
}

/* ---- a table's life ---- */

void gbf_limits_open(gbf_limits *t, void *memory, uint32_t capacity, uint64_t seed)
{
    uint64_t found = 0;
    t->header = memory;
    t->lines = (gbf_limit_line *)(void *)((uint8_t *)memory + GBF_LIMIT_HEADER);
    t->count = ((uint64_t)capacity + GBF_LIMIT_WAYS - 1) / GBF_LIMIT_WAYS;
    if (!swap(&t->header->seed, &found, seed))
        seed = found;
    for (uint32_t i = 0; i < 4; i++)
        t->key[i] = mix(seed + i);
    t->key[3] |= 1;
}

gbf_status gbf_limit_set(gbf_limit *out, uint64_t name, uint32_t limit, uint32_t window_ms, uint32_t burst,
                         gbf_fault *fault)
{
    if (limit == 0 || limit > GBF_LIMIT_MAX_COUNT)
        return gbf_refuse(fault, GBF_BAD_INPUT, "limit is out of range", limit);
    if (window_ms == 0 || window_ms > GBF_LIMIT_MAX_MS)
        return gbf_refuse(fault, GBF_BAD_INPUT, "window is out of range", window_ms);
    if (burst > limit)
        return gbf_refuse(fault, GBF_BAD_INPUT, "burst is more than the limit", burst);
    out->limit = burst != 0 ? burst : limit;
    out->window_ms = window_ms;
    out->interval = burst != 0 ? (((uint64_t)window_ms << GBF_LIMIT_SHARE_BITS) + limit - 1) / limit : 0;
    /* Words of another window or way of counting mean something else; another limit means the same. */
    out->salt = mix(name ^ mix(window_ms ^ (burst != 0 ? (uint64_t)limit << 32 : 0)));
    return GBF_OK;
}
