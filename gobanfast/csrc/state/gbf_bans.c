/* Writing half of gbf_bans.h. Everything here that changes a table does so under its lock. Long because index, heap and
 * pool change together and share their invariants. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "state/gbf_bans.h"

#include <stdlib.h>
#include <sys/mman.h>

#define LOAD 6   /* entries a bucket, on average; a bucket that waits for its split has up to twice as many */
#define SETTLE 8 /* bans that any write ends in passing */
#define FREE_KIND 255
#define FEED_NAMES 16384 /* changes whose texts are kept when texts run out */
#define TIME_MAX GBF_BAN_FOREVER

typedef enum { ACTIVE, ENDED } heap_of; /* two heaps in one array, from either end */

static uint64_t load64(const _Atomic uint64_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

static uint32_t load32(const _Atomic uint32_t *p)
{
    return atomic_load_explicit(p, memory_order_relaxed);
}

static void store64(_Atomic uint64_t *p, uint64_t value)
{
    atomic_store_explicit(p, value, memory_order_relaxed);
}

static void store32(_Atomic uint32_t *p, uint32_t value)
{
    atomic_store_explicit(p, value, memory_order_relaxed);
}

/* ---- entries ---- */

static gbf_ban_key key_of(const gbf_bans_entry *entry)
{
    return (gbf_ban_key){{load64(&entry->word[0]), load64(&entry->word[1]), load64(&entry->word[2])},
                         (uint8_t)(load64(&entry->until) >> 8)};
}

static uint64_t expires_of(const gbf_bans_entry *entry)
{
    return load64(&entry->until) >> 16;
}

static uint32_t count_of(const gbf_bans_entry *entry)
{
    return (uint32_t)(load64(&entry->since) & 0xFFFF);
}

static int has_ended(const gbf_bans_entry *entry)
{
    return (load64(&entry->until) & GBF_BANS_ENDED) != 0;
}

static gbf_ban ban_of(const gbf_bans_entry *entry)
{
    uint64_t until = load64(&entry->until), since = load64(&entry->since);
    uint32_t why = load32(&entry->why);
    return (gbf_ban){key_of(entry),         until >> 16,   since >> 16,           (uint32_t)(since & 0xFFFF),
                     (uint16_t)(why >> 16), (uint16_t)why, (uint8_t)(until & 127)};
}

static uint64_t later(uint64_t time, uint64_t ms)
{
    return ms >= TIME_MAX || time + ms >= TIME_MAX ? TIME_MAX : time + ms;
}

/* Number of the entry with this key, in force or ended; 0: there is none. */
static uint32_t find(const gbf_bans *t, const gbf_ban_key *key, uint64_t hash)
{
    uint32_t tag = gbf_bans_tag(t, hash);
    const gbf_bans_bucket *bucket = &t->buckets[gbf_bans_place(t, load64(&t->size), hash)];
    gbf_ban ignored;
    for (;;) {
        for (uint32_t left = gbf_bans_scan(bucket, tag, t->entry_mask); left; left &= left - 1) {
            uint32_t number = load32(&bucket->slot[__builtin_ctz(left)]) & t->entry_mask;
            if (gbf_bans_match(&t->entries[number], key, 0, &ignored) != 0)
                return number;
        }
        uint32_t next = load32(&bucket->next);
        if (next == 0)
            return 0;
        bucket = &t->overflow[next];
    }
}

void gbf_bans_tell(gbf_bans *t, int what, int event, const gbf_ban *ban, uint8_t maker, uint64_t now)
{
    if (!gbf_feed_records(&t->feed))
        return;
    const uint64_t word[GBF_FEED_WORDS] = {
        ban->key.word[0],
        ban->key.word[1],
        ban->key.word[2],
        ban->expires << 16 | (uint64_t)ban->key.kind << 8 | ban->by,
        ban->created << 16 | ban->count,
        (uint64_t)ban->reason << 48 | (uint64_t)ban->rule << 32 | (uint64_t)maker << 16 | (uint64_t)what << 8 |
            (uint64_t)event,
        now,
    };
    gbf_feed_add(&t->feed, word);
}

/* Tells the feed of a ban, if anybody reads it. */
static void tell(gbf_bans *t, int event, const gbf_ban *ban, uint8_t maker, uint64_t now)
{
    gbf_bans_tell(t, GBF_FEED_BAN, event, ban, maker, now);
}

static gbf_ban_change change_of(const gbf_feed_change *change)
{
    const uint64_t *word = change->word, until = word[3], since = word[4], why = word[5];
    gbf_ban ban = {{{word[0], word[1], word[2]}, (uint8_t)(until >> 8)},
                   until >> 16,
                   since >> 16,
                   (uint32_t)(since & 0xFFFF),
                   (uint16_t)(why >> 48),
                   (uint16_t)(why >> 32),
                   (uint8_t)(until & 127)};
    return (gbf_ban_change){change->sequence, ban, word[6], (uint8_t)why, (uint8_t)(why >> 8), (uint8_t)(why >> 16)};
}

/* ---- chains; between begin and end readers of the chain wait ---- */

static gbf_bans_bucket *begin(gbf_bans *t, uint64_t hash)
{
    gbf_bans_bucket *home = &t->buckets[gbf_bans_place(t, load64(&t->size), hash)];
    store32(&home->version, load32(&home->version) + 1);
    atomic_thread_fence(memory_order_release);
    return home;
}

static void end(gbf_bans_bucket *home)
{
    atomic_store_explicit(&home->version, load32(&home->version) + 1, memory_order_release);
}

/* A cleared overflow bucket. A chain of n entries has (n - 1) / 14 of them, so one for every 14 that the table can hold
 * is enough whatever the hashes are. */
static uint32_t take_overflow(gbf_bans *t)
{
    uint32_t number = t->free_overflow;
    if (number != 0)
        t->free_overflow = load32(&t->overflow[number].next);
    else
        number = ++t->overflow_high;
    store32(&t->overflow[number].next, 0);
    return number;
}

static void chain_add(gbf_bans *t, gbf_bans_bucket *bucket, uint32_t slot)
{
    for (;;) {
        for (uint32_t i = 0; i < GBF_BANS_SLOTS; i++) {
            if (load32(&bucket->slot[i]) == 0) {
                store32(&bucket->slot[i], slot);
                return;
            }
        }
        uint32_t next = load32(&bucket->next);
        if (next == 0) {
            next = take_overflow(t);
            store32(&bucket->next, next);
        }
        bucket = &t->overflow[next];
    }
}

/* Slots of a chain are filled from the front, so that only its last bucket can become empty. */
static void chain_drop(gbf_bans *t, gbf_bans_bucket *bucket, uint32_t number)
{
    gbf_bans_bucket *found = NULL, *before = NULL;
    uint32_t at = 0;
    for (;; before = bucket, bucket = &t->overflow[load32(&bucket->next)]) {
        for (uint32_t i = 0; i < GBF_BANS_SLOTS && found == NULL; i++) {
            if ((load32(&bucket->slot[i]) & t->entry_mask) == number) {
                found = bucket;
                at = i;
            }
        }
        if (load32(&bucket->next) == 0)
            break;
    }
    uint32_t last = GBF_BANS_SLOTS;
    while (load32(&bucket->slot[last - 1]) == 0)
        last--;
    store32(&found->slot[at], load32(&bucket->slot[last - 1]));
    store32(&bucket->slot[last - 1], 0);
    if (last == 1 && before != NULL) {
        uint32_t empty = load32(&before->next);
        store32(&before->next, 0);
        store32(&bucket->next, t->free_overflow);
        t->free_overflow = empty;
    }
}

/* Up to `room` slots of a chain whose entries have bit `level` of their hash set. */
static uint32_t gather(const gbf_bans *t, const gbf_bans_bucket *bucket, uint64_t level, uint32_t *slots, uint32_t room)
{
    uint32_t count = 0;
    for (;; bucket = &t->overflow[load32(&bucket->next)]) {
        for (uint32_t i = 0; i < GBF_BANS_SLOTS && count < room; i++) {
            uint32_t slot = load32(&bucket->slot[i]);
            if (slot == 0)
                continue;
            gbf_ban_key key = key_of(&t->entries[slot & t->entry_mask]);
            if (gbf_bans_hash(t, &key) >> level & 1)
                slots[count++] = slot;
        }
        if (load32(&bucket->next) == 0)
            return count;
    }
}

/* Splits the next bucket in two. Readers find the old size with the old chain, or the new size with both. */
static void grow(gbf_bans *t)
{
    uint64_t size = load64(&t->size), level = size >> 32, split = (uint32_t)size;
    gbf_bans_bucket *from = &t->buckets[split], *to = &t->buckets[split + (t->base << level)];
    uint64_t grown = split + 1 == t->base << level ? (level + 1) << 32 : size + 1;
    uint32_t slots[GBF_BANS_SLOTS], count;
    store32(&from->version, load32(&from->version) + 1);
    atomic_thread_fence(memory_order_release);
    while ((count = gather(t, from, level, slots, GBF_BANS_SLOTS)) > 0) {
        for (uint32_t i = 0; i < count; i++)
            chain_drop(t, from, slots[i] & t->entry_mask);
        for (uint32_t i = 0; i < count; i++)
            chain_add(t, to, slots[i]);
    }
    atomic_store_explicit(&t->size, grown, memory_order_release);
    end(from);
}

/* ---- heaps of entries by expiry, four children a parent ---- */

static uint32_t *at(const gbf_bans *t, heap_of heap, uint32_t i)
{
    return heap == ACTIVE ? &t->heap[i] : &t->heap[t->capacity - 1 - i];
}

static uint32_t heap_count(const gbf_bans *t, heap_of heap)
{
    return heap == ACTIVE ? t->active : t->used - t->active;
}

static void put_at(gbf_bans *t, heap_of heap, uint32_t i, uint32_t number)
{
    *at(t, heap, i) = number;
    t->entries[number].place = i;
}

/* Puts `number` where it belongs, beginning at the free place i of a heap of `count`. */
static void sift(gbf_bans *t, heap_of heap, uint32_t i, uint32_t number, uint32_t count)
{
    uint64_t expires = expires_of(&t->entries[number]);
    while (i > 0) {
        uint32_t parent = *at(t, heap, (i - 1) / 4);
        if (expires_of(&t->entries[parent]) <= expires)
            break;
        put_at(t, heap, i, parent);
        i = (i - 1) / 4;
    }
    for (;;) {
        uint32_t soonest = number, place = i;
        uint64_t least = expires;
        for (uint32_t child = 4 * i + 1; child <= 4 * i + 4 && child < count; child++) {
            uint64_t other = expires_of(&t->entries[*at(t, heap, child)]);
            if (other < least) {
                least = other;
                soonest = *at(t, heap, child);
                place = child;
            }
        }
        if (place == i)
            break;
        put_at(t, heap, i, soonest);
        i = place;
    }
    put_at(t, heap, i, number);
}

/* Before the counts that heap_count reads are changed. */
static void heap_remove(gbf_bans *t, heap_of heap, uint32_t number)
{
    uint32_t last = heap_count(t, heap) - 1, i = t->entries[number].place;
    if (i != last)
        sift(t, heap, i, *at(t, heap, last), last);
}

/* ---- which kinds are in force ---- */

static void mark(gbf_bans *t, uint32_t kind, int present)
{
    _Atomic uint64_t *word = &t->lengths4;
    uint64_t bit = UINT64_C(1) << (kind >= GBF_BAN_IP4 ? kind - GBF_BAN_IP4 : 0), any = 0;
    if (kind < GBF_BAN_IP4) {
        word = &t->lengths6[kind / 64];
        bit = UINT64_C(1) << kind % 64;
    }
    if (present)
        atomic_store_explicit(word, load64(word) | bit, memory_order_release);
    else
        atomic_store_explicit(word, load64(word) & ~bit, memory_order_release);
    for (int i = 0; i < 3; i++)
        any |= load64(&t->lengths6[i]);
    uint64_t others = load64(&t->lengths4) & ~GBF_BANS_V6;
    atomic_store_explicit(&t->lengths4, others | (any ? GBF_BANS_V6 : 0), memory_order_release);
}

/* ---- lives of entries ---- */

static void enter_active(gbf_bans *t, uint32_t number, uint32_t kind)
{
    if (t->kinds[kind]++ == 0)
        mark(t, kind, 1);
    t->active++;
    sift(t, ACTIVE, t->active - 1, number, t->active);
}

/* Leaves the heap of bans in force; the entry belongs to no heap then, and `used` still counts it. */
static void leave_active(gbf_bans *t, uint32_t number, uint32_t kind)
{
    heap_remove(t, ACTIVE, number);
    t->active--;
    if (--t->kinds[kind] == 0)
        mark(t, kind, 0);
}

/* Takes an entry that is in no heap out of its chain. */
static void discard(gbf_bans *t, uint32_t number)
{
    gbf_bans_entry *entry = &t->entries[number];
    gbf_ban_key key = key_of(entry);
    gbf_bans_bucket *home = begin(t, gbf_bans_hash(t, &key));
    chain_drop(t, home, number);
    end(home);
    store64(&entry->until, (uint64_t)FREE_KIND << 8);
    entry->place = t->free_entry;
    t->free_entry = number;
    t->used--;
}

static void forget(gbf_bans *t, uint32_t number)
{
    heap_remove(t, ENDED, number);
    discard(t, number);
}

static void lift(gbf_bans *t, uint32_t number)
{
    leave_active(t, number, key_of(&t->entries[number]).kind);
    discard(t, number);
}

/* A ban is over: its entry goes, or stays in memory. */
static void finish(gbf_bans *t, uint32_t number, uint64_t now)
{
    gbf_bans_entry *entry = &t->entries[number];
    t->counts.ended++;
    if (later(expires_of(entry), t->policy.memory_ms) <= now) {
        lift(t, number);
        return;
    }
    uint64_t until = load64(&entry->until);
    leave_active(t, number, (uint8_t)(until >> 8));
    store64(&entry->until, until | GBF_BANS_ENDED);
    sift(t, ENDED, t->used - t->active - 1, number, t->used - t->active);
}

static uint32_t settle(gbf_bans *t, uint64_t now, uint32_t limit)
{
    uint32_t ended = 0;
    for (; limit > 0 && t->active > 0 && expires_of(&t->entries[*at(t, ACTIVE, 0)]) <= now; limit--, ended++)
        finish(t, *at(t, ACTIVE, 0), now);
    for (; limit > 0 && t->used > t->active; limit--) {
        uint32_t number = *at(t, ENDED, 0);
        if (later(expires_of(&t->entries[number]), t->policy.memory_ms) > now)
            break;
        forget(t, number);
    }
    return ended;
}

/* An entry to fill, or 0: full, and the policy refuses a ban until `expires`. */
static uint32_t allocate(gbf_bans *t, uint64_t expires, uint8_t maker, uint64_t now)
{
    if (t->used == t->capacity) {
        if (t->used > t->active) {
            forget(t, *at(t, ENDED, 0)); /* a memory gives way to a ban */
        } else {
            uint32_t soonest = *at(t, ACTIVE, 0);
            if (!t->policy.evict || expires_of(&t->entries[soonest]) >= expires)
                return 0;
            gbf_ban evicted = ban_of(&t->entries[soonest]);
            lift(t, soonest);
            t->counts.evicted++;
            tell(t, GBF_EVENT_EVICT, &evicted, maker, now);
        }
    }
    uint32_t number = t->free_entry;
    if (number != 0)
        t->free_entry = t->entries[number].place;
    else
        number = ++t->high;
    t->used++;
    return number;
}

static void fill(gbf_bans_entry *entry, const gbf_ban *ban)
{
    uint32_t count = ban->count < 0xFFFF ? ban->count : 0xFFFF;
    store64(&entry->until, ban->expires << 16 | (uint64_t)ban->key.kind << 8 | (ban->by & 127));
    store64(&entry->since, (ban->created & TIME_MAX) << 16 | count);
    store32(&entry->why, (uint32_t)ban->reason << 16 | ban->rule);
}

/* Stores a ban whose key has no entry. */
static gbf_ban_outcome insert(gbf_bans *t, const gbf_ban *ban, uint64_t hash, uint8_t maker, uint64_t now)
{
    uint32_t number = allocate(t, ban->expires, maker, now);
    if (number == 0) {
        t->counts.refused++;
        return GBF_BAN_REFUSED;
    }
    gbf_bans_entry *entry = &t->entries[number];
    gbf_bans_bucket *home = begin(t, hash);
    for (int i = 0; i < 3; i++)
        store64(&entry->word[i], ban->key.word[i]);
    fill(entry, ban);
    chain_add(t, home, gbf_bans_tag(t, hash) | number);
    end(home);
    enter_active(t, number, ban->key.kind);
    t->counts.added++;
    if (gbf_feed_records(&t->feed)) {
        gbf_ban added = ban_of(entry);
        tell(t, GBF_EVENT_ADD, &added, maker, now);
    }
    uint64_t size = load64(&t->size);
    if (t->used > LOAD * ((t->base << (size >> 32)) + (uint32_t)size))
        grow(t);
    return GBF_BAN_ADDED;
}

/* Changes an entry in place. `was_active`: it is in the heap of bans in force already. */
static void renew(gbf_bans *t, uint32_t number, const gbf_ban *ban, uint64_t hash, int was_active)
{
    if (!was_active)
        heap_remove(t, ENDED, number);
    gbf_bans_bucket *home = begin(t, hash);
    fill(&t->entries[number], ban);
    end(home);
    if (was_active)
        sift(t, ACTIVE, t->entries[number].place, number, t->active);
    else
        enter_active(t, number, ban->key.kind);
}

/* The entry of a key after whatever is over at `now` has ended; 0: none. */
static uint32_t current(gbf_bans *t, const gbf_ban_key *key, uint64_t hash, uint64_t now)
{
    settle(t, now, SETTLE);
    uint32_t number = find(t, key, hash);
    if (number == 0)
        return 0;
    if (!has_ended(&t->entries[number])) {
        if (expires_of(&t->entries[number]) > now)
            return number;
        finish(t, number, now);
        number = find(t, key, hash);
    }
    if (number != 0 && later(expires_of(&t->entries[number]), t->policy.memory_ms) <= now) {
        forget(t, number);
        return 0;
    }
    return number;
}

/* ---- the calls ---- */

static uint64_t mix(uint64_t x, uint64_t word) /* the finish of splitmix64 (Steele, Lea, Flood 2014) */
{
    x = (x ^ word) + UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

/* How long the count-th ban in a row lasts. The same key, count and seed draw the same: a replay repeats it in any order. */
static uint64_t escalated(const gbf_bans_policy *policy, const gbf_ban_key *key, uint64_t duration_ms, uint32_t count)
{
    double ms = (double)duration_ms, cap = (double)policy->cap_ms;
    if (duration_ms >= TIME_MAX || count < 2)
        return duration_ms;
    if (cap < ms)
        cap = ms;
    for (uint32_t i = 1; i < count && ms < cap && policy->factor > 1; i++)
        ms *= policy->factor;
    if (ms > cap)
        ms = cap;
    uint64_t draw = mix(mix(policy->seed, key->kind), count);
    for (int i = 0; i < 3; i++)
        draw = mix(draw, key->word[i]);
    ms += ms * policy->jitter * ((double)(draw >> 11) * 0x1p-53);
    return ms >= (double)TIME_MAX ? TIME_MAX : (uint64_t)ms;
}

static gbf_ban_outcome merge(gbf_bans *t, uint32_t number, const gbf_ban *ban, uint64_t hash, uint8_t maker,
                             uint64_t now)
{
    gbf_ban merged = *ban;
    gbf_bans_entry *entry = &t->entries[number];
    int active = !has_ended(entry);
    gbf_ban_outcome outcome = active ? GBF_BAN_EXTENDED : GBF_BAN_ADDED;
    if (active && expires_of(entry) >= ban->expires) {
        if (count_of(entry) >= ban->count)
            return GBF_BAN_KEPT;
        merged = ban_of(entry);
        outcome = GBF_BAN_KEPT;
    }
    merged.count = count_of(entry) > ban->count ? count_of(entry) : ban->count;
    renew(t, number, &merged, hash, active);
    if (outcome == GBF_BAN_KEPT)
        return outcome; /* only the count is another: it holds as long as before */
    if (outcome == GBF_BAN_ADDED)
        t->counts.added++;
    else
        t->counts.extended++;
    merged = ban_of(entry);
    tell(t, outcome == GBF_BAN_ADDED ? GBF_EVENT_ADD : GBF_EVENT_EXTEND, &merged, maker, now);
    return outcome;
}

gbf_ban_outcome gbf_bans_ban(gbf_bans *t, const gbf_ban_key *key, uint64_t duration_ms, const gbf_ban *why,
                             int escalate, uint64_t now, gbf_ban *out)
{
    gbf_ban ban = *why;
    gbf_ban_outcome outcome;
    uint64_t hash = gbf_bans_hash(t, key);
    ban.key = *key;
    ban.created = now;
    ban.count = 1;
    gbf_lock_take(&t->lock);
    uint32_t number = current(t, key, hash, now);
    if (number != 0 && has_ended(&t->entries[number]))
        ban.count = count_of(&t->entries[number]) + 1;
    if (number != 0 && !has_ended(&t->entries[number])) { /* still the same ban */
        ban.count = count_of(&t->entries[number]);
        ban.created = load64(&t->entries[number].since) >> 16;
    }
    ban.expires = later(now, escalate ? escalated(&t->policy, key, duration_ms, ban.count) : duration_ms);
    outcome = number == 0 ? insert(t, &ban, hash, why->by, now) : merge(t, number, &ban, hash, why->by, now);
    if (outcome != GBF_BAN_REFUSED)
        *out = ban_of(&t->entries[number != 0 ? number : find(t, key, hash)]);
    gbf_lock_open(&t->lock);
    return outcome;
}

gbf_ban_outcome gbf_bans_put(gbf_bans *t, const gbf_ban *ban, uint8_t maker, uint64_t now)
{
    gbf_ban_outcome outcome = GBF_BAN_KEPT;
    uint64_t hash = gbf_bans_hash(t, &ban->key);
    gbf_lock_take(&t->lock);
    uint32_t number = current(t, &ban->key, hash, now);
    if (ban->expires > now)
        outcome = number == 0 ? insert(t, ban, hash, maker, now) : merge(t, number, ban, hash, maker, now);
    gbf_lock_open(&t->lock);
    return outcome;
}

int gbf_bans_lift(gbf_bans *t, const gbf_ban_key *key, uint8_t maker, uint64_t now, gbf_ban *out)
{
    uint64_t hash = gbf_bans_hash(t, key);
    int banned = 0;
    gbf_lock_take(&t->lock);
    uint32_t number = current(t, key, hash, now);
    if (number != 0) {
        banned = !has_ended(&t->entries[number]);
        *out = ban_of(&t->entries[number]);
        if (banned) {
            lift(t, number);
            t->counts.lifted++;
            tell(t, GBF_EVENT_LIFT, out, maker, now);
        } else {
            forget(t, number);
        }
    }
    gbf_lock_open(&t->lock);
    return banned;
}

int gbf_bans_extend(gbf_bans *t, const gbf_ban_key *key, uint64_t expires, uint8_t maker, uint64_t now, gbf_ban *out)
{
    uint64_t hash = gbf_bans_hash(t, key);
    gbf_lock_take(&t->lock);
    uint32_t number = current(t, key, hash, now);
    int banned = number != 0 && !has_ended(&t->entries[number]);
    if (banned) {
        *out = ban_of(&t->entries[number]);
        if (expires > out->expires) {
            out->expires = expires;
            renew(t, number, out, hash, 1);
            t->counts.extended++;
            tell(t, GBF_EVENT_EXTEND, out, maker, now);
        }
    }
    gbf_lock_open(&t->lock);
    return banned;
}

uint32_t gbf_bans_purge(gbf_bans *t, uint64_t now, uint32_t limit, int *more)
{
    gbf_lock_take(&t->lock);
    uint32_t ended = settle(t, now, limit);
    *more = (t->active > 0 && expires_of(&t->entries[*at(t, ACTIVE, 0)]) <= now) ||
            (t->used > t->active && later(expires_of(&t->entries[*at(t, ENDED, 0)]), t->policy.memory_ms) <= now);
    gbf_lock_open(&t->lock);
    return ended;
}

int gbf_bans_copy(gbf_bans *t, uint32_t *cursor, gbf_ban *out, uint32_t *count, uint64_t now)
{
    gbf_lock_take(&t->lock);
    uint32_t last = t->high - *cursor > GBF_BANS_COPY ? *cursor + GBF_BANS_COPY : t->high, copied = 0;
    while (*cursor < last) {
        const gbf_bans_entry *entry = &t->entries[++*cursor];
        uint64_t until = load64(&entry->until);
        if ((uint8_t)(until >> 8) != FREE_KIND && !(until & GBF_BANS_ENDED) && until >> 16 > now)
            out[copied++] = ban_of(entry);
    }
    int more = last < t->high;
    gbf_lock_open(&t->lock);
    *count = copied;
    return more;
}

int gbf_bans_texts(gbf_bans *t, uint32_t *cursor, uint8_t *used)
{
    gbf_lock_take(&t->lock);
    uint32_t last = t->high - *cursor > GBF_BANS_COPY ? *cursor + GBF_BANS_COPY : t->high;
    while (*cursor < last) {
        const gbf_bans_entry *entry = &t->entries[++*cursor];
        uint32_t why = load32(&entry->why);
        if ((uint8_t)(load64(&entry->until) >> 8) != FREE_KIND)
            used[why >> 16] = used[why & 0xFFFF] = 1;
    }
    int more = last < t->high;
    if (!more && gbf_feed_records(&t->feed)) {
        gbf_feed_trim(&t->feed, FEED_NAMES);
        for (uint64_t i = load64(&t->feed.start); i < load64(&t->feed.head); i++) {
            uint64_t names = load64(&t->feed.slots[(i + 1) & (GBF_FEED_SLOTS - 1)].word[5]);
            used[names >> 48] = used[names >> 32 & 0xFFFF] = 1;
        }
    }
    gbf_lock_open(&t->lock);
    return more;
}

uint64_t gbf_bans_follow(gbf_bans *t)
{
    gbf_lock_take(&t->lock);
    gbf_feed_open(&t->feed);
    gbf_lock_open(&t->lock);
    return gbf_feed_head(&t->feed);
}

void gbf_bans_restart(gbf_bans *t)
{
    gbf_lock_take(&t->lock);
    gbf_feed_restart(&t->feed);
    gbf_lock_open(&t->lock);
}

int32_t gbf_bans_changes(const gbf_bans *t, uint64_t *cursor, gbf_ban_change *out, uint32_t limit)
{
    gbf_feed_change changes[64];
    uint64_t at = *cursor;
    uint32_t count = 0;
    for (;;) {
        uint32_t room = limit - count < 64 ? limit - count : 64;
        int32_t found = gbf_feed_read(&t->feed, &at, changes, room);
        for (int32_t i = 0; i < found; i++)
            out[count++] = change_of(&changes[i]);
        *cursor = at;
        if (found < 64 || count == limit)
            return found < 0 ? -1 : (int32_t)count;
    }
}

void gbf_bans_configure(gbf_bans *t, const gbf_bans_policy *policy)
{
    gbf_lock_take(&t->lock);
    t->policy = *policy;
    gbf_lock_open(&t->lock);
}

void gbf_bans_close(gbf_bans *t, int closed)
{
    gbf_lock_take(&t->lock); /* mark() writes the same word */
    uint64_t others = load64(&t->lengths4) & ~GBF_BANS_CLOSED;
    atomic_store_explicit(&t->lengths4, others | (closed ? GBF_BANS_CLOSED : 0), memory_order_release);
    gbf_lock_open(&t->lock);
}

gbf_bans_counts gbf_bans_count(gbf_bans *t)
{
    gbf_lock_take(&t->lock);
    gbf_bans_counts counts = t->counts;
    counts.active = t->active;
    counts.remembered = t->used - t->active;
    gbf_lock_open(&t->lock);
    return counts;
}

uint64_t gbf_bans_nbytes(gbf_bans *t)
{
    gbf_lock_take(&t->lock);
    uint64_t size = load64(&t->size), buckets = (t->base << (size >> 32)) + (uint32_t)size + t->overflow_high;
    uint64_t nbytes = sizeof *t + buckets * sizeof(gbf_bans_bucket) + t->high * (sizeof(gbf_bans_entry) + 4);
    nbytes += t->feed.touched * sizeof(gbf_feed_slot);
    gbf_lock_open(&t->lock);
    return nbytes;
}

/* Cuts `bytes` off the mapping, on a page of their own. With no mapping yet, only counts. */
static void *cut(gbf_bans *t, uint64_t bytes)
{
    void *part = t->mapping == NULL ? NULL : (uint8_t *)t->mapping + t->mapped;
    t->mapped += (bytes + 4095) & ~UINT64_C(4095);
    return part;
}

static void lay_out(gbf_bans *t, uint64_t buckets)
{
    t->mapped = 0;
    t->buckets = cut(t, buckets * sizeof(gbf_bans_bucket));
    t->overflow = cut(t, (t->capacity / GBF_BANS_SLOTS + 1) * sizeof(gbf_bans_bucket));
    t->entries = cut(t, ((uint64_t)t->capacity + 1) * sizeof(gbf_bans_entry));
    t->heap = cut(t, t->capacity * sizeof(uint32_t));
    t->feed.slots = cut(t, GBF_FEED_BYTES);
}

gbf_bans *gbf_bans_new(uint32_t capacity, const gbf_bans_policy *policy, const uint64_t random[10])
{
    gbf_bans *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    uint32_t bits = 32 - (uint32_t)__builtin_clz(capacity);
    uint64_t buckets = capacity / LOAD + 1, level = 0;
    while (buckets >> level >= 16)
        level++;
    t->base = (buckets + (UINT64_C(1) << level) - 1) >> level; /* so that a full table ends a round of splits */
    buckets = t->base << level;
    t->capacity = capacity;
    t->tag_shift = bits;
    t->entry_mask = (UINT32_C(1) << bits) - 1;
    for (int i = 0; i < 5; i++)
        t->keys[i] = (gbf_u128)random[2 * i] << 64 | random[2 * i + 1];
    t->policy = *policy;
    /* A mapping and not calloc, which may hand out memory that was used, and clear it: pages nobody touched take none. */
    lay_out(t, buckets);
    t->mapping = mmap(NULL, t->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (t->mapping == MAP_FAILED) {
        free(t);
        return NULL;
    }
    lay_out(t, buckets);
    return t;
}

void gbf_bans_free(gbf_bans *t)
{
    if (t == NULL)
        return;
    munmap(t->mapping, t->mapped);
    free(t);
}
