/* Bans in a fixed budget: what is banned, until when, why. Read without a lock, written under one.
 *
 * A table is an index of 64-byte buckets over a pool of 48-byte entries. A request is asked about with one call, which
 * probes only the kinds of key that are in force: a miss costs one cache line for each. The index grows a bucket at
 * a time (linear hashing), so no insertion ever moves the table. DESIGN.md, "Bans".
 *
 * Readers: a bucket's `version` is odd while its chain changes, and every word a reader may see torn from its neighbours is
 * atomic; a reader that met a change asks again. Writers take `lock`. Memory is reserved once and never given back before
 * gbf_bans_free, so a reader can at worst read a stale word, never a stale page. */
#ifndef GBF_BANS_H
#define GBF_BANS_H

#include <sched.h>
#include <stdatomic.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "address/gbf_addr.h"
#include "base/gbf_lock.h"
#include "state/gbf_feed.h"

/* TSan checks what the language promises, and vector loads have no atomic form: it gets the portable scan. */
#if defined(__has_feature)
#define GBF_BANS_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define GBF_BANS_TSAN 1
#else
#define GBF_BANS_TSAN 0
#endif
#if defined(__SSE2__) && !GBF_BANS_TSAN
#define GBF_BANS_SSE2 1
#else
#define GBF_BANS_SSE2 0
#endif

/* Kinds of key, one byte: 0..128 an IPv6 prefix of that length, GBF_BAN_IP4 + 0..32 an IPv4 prefix. */
#define GBF_BAN_IP4 129
#define GBF_BAN_ASN 162
#define GBF_BAN_FINGERPRINT 163
#define GBF_BAN_FINGERPRINT_AT4 164 /* at an IPv4 client */
#define GBF_BAN_FINGERPRINT_AT6 165 /* at an IPv6 /64; 166: /56; 167: /48 */
#define GBF_BAN_UID 168
#define GBF_BAN_SESSION 169 /* of labels only */
#define GBF_BAN_KINDS 170
#define GBF_BAN_EVERYONE 170 /* of no entry: what gbf_bans_find answers while the table is closed */

typedef struct {
    uint64_t word[3]; /* prefix: high, low, 0. AS: number, 0, 0. Fingerprint: high, low, then the client or 0. User:
                       * see gbf_ban_uid. Session: hash, then the id of the key it was made with */
    uint32_t kind;
} gbf_ban_key;

/* Milliseconds of a table: the engine's clock plus GBF_BAN_EPOCH, below 2^48. What began before the clock did is there too. */
#define GBF_BAN_EPOCH (UINT64_C(1) << 46)
#define GBF_BAN_FOREVER ((UINT64_C(1) << 48) - 1)

typedef struct {
    gbf_ban_key key;
    uint64_t expires; /* first millisecond in which it no longer holds; GBF_BAN_FOREVER */
    uint64_t created;
    uint32_t count;        /* times in a row, at most 65535 */
    uint16_t reason, rule; /* numbers of texts that the caller keeps; 0: none */
    uint8_t by;            /* gbf_maker, who made it */
} gbf_ban;

#define GBF_BANS_SLOTS 14

typedef struct {
    _Atomic uint32_t version;              /* odd: the chain that starts here is being changed */
    _Atomic uint32_t next;                 /* overflow bucket; 0: the chain ends */
    _Atomic uint32_t slot[GBF_BANS_SLOTS]; /* tag above, entry below; 0: empty */
} gbf_bans_bucket;

typedef struct {
    _Atomic uint64_t word[3];
    _Atomic uint64_t until; /* expires << 16 | kind << 8 | ended << 7 | by */
    _Atomic uint64_t since; /* created << 16 | count */
    _Atomic uint32_t why;   /* reason << 16 | rule */
    uint32_t place;         /* in its heap; next free entry. Writers only */
} gbf_bans_entry;

#define GBF_BANS_ENDED 128

typedef struct {
    double factor;      /* each further ban of a key lasts this many times longer, 1: no longer */
    double jitter;      /* and up to this share more, drawn by key, count and seed */
    uint64_t cap_ms;    /* but not longer than this (jitter comes on top), or than what was asked */
    uint64_t memory_ms; /* an ended ban counts for that long */
    uint64_t seed;
    uint32_t evict; /* full: 1 the ban that ends soonest gives way, 0 the new one is refused */
} gbf_bans_policy;

typedef struct {
    uint64_t added, extended, lifted, ended, refused, evicted; /* since the table was made */
    uint32_t active, remembered;                               /* now: bans, and ended ones that still count */
} gbf_bans_counts;

typedef struct {
    /* What a reader touches. */
    _Atomic uint64_t
        lengths4; /* bit n: some IPv4 /n is banned; above them one bit for each other kind, see GBF_BANS_ASN */
    _Atomic uint64_t lengths6[3]; /* bit n: some IPv6 /n is */
    _Atomic uint64_t size;        /* level << 32 | next bucket to split */
    gbf_bans_bucket *buckets, *overflow;
    gbf_bans_entry *entries; /* [0] is never used */
    uint64_t base;           /* buckets at level 0 */
    uint32_t entry_mask, tag_shift;
    gbf_u128 keys[5]; /* secret of the hash */
    /* What writers touch, under the lock. */
    gbf_lock lock;
    uint32_t capacity, used, active, high; /* entries: all, taken, in force, ever taken */
    uint32_t free_entry, free_overflow, overflow_high;
    uint32_t *heap; /* entries in force from the front, ended ones from the back; soonest first */
    uint32_t kinds[GBF_BAN_KINDS];
    gbf_bans_policy policy;
    gbf_bans_counts counts;
    gbf_feed feed; /* what changed; written under the lock */
    void *mapping;
    uint64_t mapped; /* bytes */
} gbf_bans;

#define GBF_BANS_ASN (UINT64_C(1) << 33)
#define GBF_BANS_FINGERPRINT (UINT64_C(1) << 34)
#define GBF_BANS_FINGERPRINT_AT4 (UINT64_C(1) << 35)
#define GBF_BANS_FINGERPRINT_AT6 (UINT64_C(1) << 36) /* to 38, as the kinds */
#define GBF_BANS_UID (UINT64_C(1) << 39)
#define GBF_BANS_SESSION (UINT64_C(1) << 40)
#define GBF_BANS_V6 (UINT64_C(1) << 41)     /* some lengths6 is not 0 */
#define GBF_BANS_CLOSED (UINT64_C(1) << 42) /* gbf_bans_close: everyone is kept out */

/* NULL when there is no memory. `random`: ten words nobody can guess. `capacity`: 1 to 2^24 - 1 bans. */
gbf_bans *gbf_bans_new(uint32_t capacity, const gbf_bans_policy *policy, const uint64_t random[10]);
void gbf_bans_free(gbf_bans *t);

typedef enum {
    GBF_BAN_REFUSED = 0, /* full */
    GBF_BAN_ADDED,
    GBF_BAN_EXTENDED, /* was in force, and now is for longer */
    GBF_BAN_KEPT,     /* was in force, and at least as long already */
} gbf_ban_outcome;

/* What happened to a ban, of the change feed. That it is over is no change, because each says when that will be. */
typedef struct {
    uint64_t sequence;
    gbf_ban ban;   /* as it stands now; lifted and evicted ones, as they were */
    uint64_t at;   /* when it happened */
    uint8_t event; /* gbf_event */
    uint8_t kind;  /* gbf_feed_kind */
    uint8_t maker; /* gbf_maker, who changed it; of an eviction, the maker of the ban that took the place */
} gbf_ban_change;

/* Bans `key` for `duration_ms` (GBF_BAN_FOREVER: for good), longer by the policy if `escalate` and the key has been banned
 * before. Fills `out` unless refused. Never shortens a ban. The maker of the change is `why->by`. */
gbf_ban_outcome gbf_bans_ban(gbf_bans *t, const gbf_ban_key *key, uint64_t duration_ms, const gbf_ban *why,
                             int escalate, uint64_t now, gbf_ban *out);
/* Takes over a ban made elsewhere: of two about one key the later to end wins, and the higher count. One that has ended is
 * GBF_BAN_KEPT and not stored. */
gbf_ban_outcome gbf_bans_put(gbf_bans *t, const gbf_ban *ban, uint8_t maker, uint64_t now);
/* 1 when `key` was banned, with the ban as it was; all memory of it goes, too. */
int gbf_bans_lift(gbf_bans *t, const gbf_ban_key *key, uint8_t maker, uint64_t now, gbf_ban *out);
/* 1 when `key` is banned; it is until `expires` at least, then. */
int gbf_bans_extend(gbf_bans *t, const gbf_ban_key *key, uint64_t expires, uint8_t maker, uint64_t now, gbf_ban *out);
/* Ends at most `limit` bans and memories that are over, and returns the number of those bans; *more: there are others. */
uint32_t gbf_bans_purge(gbf_bans *t, uint64_t now, uint32_t limit, int *more);
/* Copies bans in force at `now` out of the next GBF_BANS_COPY entries after *cursor (begin with 0), and moves it; 0: that
 * was all. What is banned from the first call to the last is copied once. */
#define GBF_BANS_COPY 512
int gbf_bans_copy(gbf_bans *t, uint32_t *cursor, gbf_ban *out, uint32_t *count, uint64_t now);
/* Marks in `used` (65536 bytes) the texts that the next GBF_BANS_COPY entries name; the same way. The last call marks
 * those of the feed, too, which then ends at its last 16,384 changes. What labels name, gbf_labels_texts marks. */
int gbf_bans_texts(gbf_bans *t, uint32_t *cursor, uint8_t *used);
void gbf_bans_configure(gbf_bans *t, const gbf_bans_policy *policy);
/* While closed, gbf_bans_find keeps out whoever has no ban of his own, too, whatever is known of the request. A flag beside
 * the entries, so a full table takes it. */
void gbf_bans_close(gbf_bans *t, int closed);
GBF_INLINE int gbf_bans_closed(const gbf_bans *t)
{
    return (atomic_load_explicit(&t->lengths4, memory_order_relaxed) & GBF_BANS_CLOSED) != 0;
}
gbf_bans_counts gbf_bans_count(gbf_bans *t);
/* The change feed: gbf_bans_follow starts it and returns the cursor of who has read everything; gbf_bans_changes is
 * gbf_feed_read. gbf_bans_restart: see gbf_feed_restart. */
uint64_t gbf_bans_follow(gbf_bans *t);
/* Adds a change of kind `what` (gbf_feed_kind), under the lock: for what is guarded by it, too. */
void gbf_bans_tell(gbf_bans *t, int what, int event, const gbf_ban *ban, uint8_t maker, uint64_t now);
void gbf_bans_restart(gbf_bans *t);
int32_t gbf_bans_changes(const gbf_bans *t, uint64_t *cursor, gbf_ban_change *out, uint32_t limit);
GBF_INLINE uint64_t gbf_bans_head(const gbf_bans *t)
{
    return gbf_feed_head(&t->feed);
}
GBF_INLINE int gbf_bans_holds(const gbf_bans *t, uint64_t cursor)
{
    return gbf_feed_holds(&t->feed, cursor);
}
/* Bytes in use; what is reserved beyond has never been touched. */
uint64_t gbf_bans_nbytes(gbf_bans *t);

GBF_INLINE gbf_ban_key gbf_ban_prefix(gbf_addr address, uint32_t bits) /* host bits clear; IPv4 has 96 + n bits */
{
    uint32_t kind = gbf_addr_is4(address) && bits >= 96 ? GBF_BAN_IP4 - 96 + bits : bits;
    return (gbf_ban_key){{address.high, address.low, 0}, kind};
}

/* What gbf_addr_client says; `bits6` is 64, 56 or 48. */
GBF_INLINE gbf_ban_key gbf_ban_client(gbf_addr address, uint32_t bits6)
{
    uint32_t bits;
    gbf_addr client = gbf_addr_client(address, bits6, &bits);
    return gbf_ban_prefix(client, bits);
}

GBF_INLINE gbf_ban_key gbf_ban_asn(uint32_t asn)
{
    return (gbf_ban_key){{asn, 0, 0}, GBF_BAN_ASN};
}

GBF_INLINE gbf_ban_key gbf_ban_fingerprint(const uint64_t fingerprint[2])
{
    return (gbf_ban_key){{fingerprint[0], fingerprint[1], 0}, GBF_BAN_FINGERPRINT};
}

GBF_INLINE gbf_ban_key gbf_ban_fingerprint_at(const uint64_t fingerprint[2], gbf_addr address, uint32_t bits6)
{
    uint32_t bits;
    gbf_addr client = gbf_addr_client(address, bits6, &bits);
    if (bits == 128)
        return (gbf_ban_key){{fingerprint[0], fingerprint[1], client.low}, GBF_BAN_FINGERPRINT_AT4};
    return (gbf_ban_key){{fingerprint[0], fingerprint[1], client.high}, GBF_BAN_FINGERPRINT_AT6 + (64 - bits6) / 8};
}

/* Who is logged in, by the `nbytes` of a name. Up to GBF_BAN_UID_BYTES are the key itself, which can be shown again, with
 * their number in its last byte; of a longer name, the caller gives the 16 bytes of a hash and the number is 255. */
#define GBF_BAN_UID_BYTES 23u
#define GBF_BAN_UID_HASHED 255u
GBF_INLINE gbf_ban_key gbf_ban_uid(const uint8_t *name, uint32_t nbytes, uint8_t number)
{
    gbf_ban_key key = {{0, 0, 0}, GBF_BAN_UID};
    uint8_t bytes[24] = {0};
    memcpy(bytes, name, nbytes);
    bytes[23] = number;
    memcpy(key.word, bytes, sizeof bytes);
    return key;
}

GBF_INLINE gbf_ban_key gbf_ban_session(uint64_t high, uint64_t low, uint32_t key_id)
{
    return (gbf_ban_key){{high, low, key_id}, GBF_BAN_SESSION};
}

/* ---- reading ---- */

/* Multilinear, 64-bit words by 128-bit keys, the upper half (Dietzfelbinger 1996; Lemire and Kaser 2014): strongly universal,
 * so two keys share any given bits of it as often as chance has it, whoever chose them. */
GBF_INLINE uint64_t gbf_ban_key_hash(const gbf_u128 k[5], const gbf_ban_key *key)
{
    gbf_u128 sum = k[4] + k[0] * key->word[0] + k[1] * key->word[1] + k[3] * key->kind;
    if (key->kind >= GBF_BAN_FINGERPRINT_AT4)
        sum += k[2] * key->word[2];
    return (uint64_t)(sum >> 64);
}

GBF_INLINE uint64_t gbf_bans_hash(const gbf_bans *t, const gbf_ban_key *key)
{
    return gbf_ban_key_hash(t->keys, key);
}

GBF_INLINE uint64_t gbf_bans_place(const gbf_bans *t, uint64_t size, uint64_t hash)
{
    uint64_t first = ((hash >> 32) * t->base) >> 32, below = (UINT64_C(1) << (size >> 32)) - 1;
    uint64_t place = first + t->base * (hash & below);
    return place < (uint32_t)size ? first + t->base * (hash & (2 * below + 1)) : place;
}

/* Bits that tell keys of one bucket apart, where a slot has them; never 0. */
GBF_INLINE uint32_t gbf_bans_tag(const gbf_bans *t, uint64_t hash)
{
    uint32_t tag = (uint32_t)hash >> t->tag_shift;
    return (tag ? tag : 1) << t->tag_shift;
}

/* Bit i: slot i has this tag. */
GBF_INLINE uint32_t gbf_bans_scan(const gbf_bans_bucket *bucket, uint32_t tag, uint32_t entry_mask)
{
#if GBF_BANS_SSE2
    const __m128i *line = (const __m128i *)(const void *)bucket;
    __m128i keep = _mm_set1_epi32((int)~entry_mask), want = _mm_set1_epi32((int)tag);
    __m128i a = _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(line), keep), want);
    __m128i b = _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(line + 1), keep), want);
    __m128i c = _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(line + 2), keep), want);
    __m128i d = _mm_cmpeq_epi32(_mm_and_si128(_mm_load_si128(line + 3), keep), want);
    __m128i all = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
    return (uint32_t)_mm_movemask_epi8(all) >> 2; /* without version and next */
#else
    uint32_t found = 0;
    for (uint32_t i = 0; i < GBF_BANS_SLOTS; i++) {
        uint32_t slot = atomic_load_explicit(&bucket->slot[i], memory_order_relaxed);
        found |= (uint32_t)((slot & ~entry_mask) == tag) << i;
    }
    return found;
#endif
}

/* 1 and a copy when the entry has this key and is in force at `now`; 0: another key; -1: this key, but not in force. */
GBF_INLINE int gbf_bans_match(const gbf_bans_entry *entry, const gbf_ban_key *key, uint64_t now, gbf_ban *out)
{
    uint64_t until = atomic_load_explicit(&entry->until, memory_order_relaxed);
    if (atomic_load_explicit(&entry->word[0], memory_order_relaxed) != key->word[0] ||
        atomic_load_explicit(&entry->word[1], memory_order_relaxed) != key->word[1] ||
        atomic_load_explicit(&entry->word[2], memory_order_relaxed) != key->word[2] ||
        (uint8_t)(until >> 8) != key->kind)
        return 0;
    if (until >> 16 <= now || until & GBF_BANS_ENDED)
        return -1;
    uint64_t since = atomic_load_explicit(&entry->since, memory_order_relaxed);
    uint32_t why = atomic_load_explicit(&entry->why, memory_order_relaxed);
    *out =
        (gbf_ban){*key,          until >> 16,           since >> 16, (uint32_t)(since & 0xFFFF), (uint16_t)(why >> 16),
                  (uint16_t)why, (uint8_t)(until & 127)};
    return 1;
}

/* 1 and *out when `key` is banned at `now`; 0 and *out untouched otherwise. `hash` is the key's. Any thread, no lock. */
static inline int gbf_bans_probe(const gbf_bans *t, const gbf_ban_key *key, uint64_t hash, uint64_t now, gbf_ban *out)
{
    uint32_t tag = gbf_bans_tag(t, hash);
    for (uint32_t looks = 0;; looks++) {
        uint64_t size = atomic_load_explicit(&t->size, memory_order_acquire);
        const gbf_bans_bucket *home = &t->buckets[gbf_bans_place(t, size, hash)], *bucket = home;
        uint32_t version = atomic_load_explicit(&home->version, memory_order_acquire), same = version;
        gbf_ban copy;
        int found = 0;
        while (GBF_LIKELY(!(version & 1))) {
            for (uint32_t left = gbf_bans_scan(bucket, tag, t->entry_mask); left && !found; left &= left - 1) {
                uint32_t slot = atomic_load_explicit(&bucket->slot[__builtin_ctz(left)], memory_order_relaxed);
                found = gbf_bans_match(&t->entries[slot & t->entry_mask], key, now, &copy);
            }
            uint32_t next = atomic_load_explicit(&bucket->next, memory_order_relaxed);
            atomic_thread_fence(memory_order_acquire);
            same = atomic_load_explicit(&home->version, memory_order_relaxed);
            if (found || next == 0 || same != version)
                break;
            bucket = &t->overflow[next];
        }
        if (GBF_LIKELY(!(version & 1) && same == version &&
                       atomic_load_explicit(&t->size, memory_order_relaxed) == size)) {
            if (found > 0)
                *out = copy;
            return found > 0;
        }
        if (looks < GBF_LOCK_SPINS)
            gbf_pause();
        else
            sched_yield(); /* the writer lost its CPU between two stores */
    }
}

/* What is known of a request that bans and labels are kept by; NULL and 0 stand for what is not. */
typedef struct {
    const gbf_addr *address;
    const uint64_t *fingerprint;
    const gbf_ban_key *uid;
    uint32_t asn;
} gbf_ban_who;

/* Calls `take(to, key)` for every key of a request whose kind is `present` (bits as in gbf_bans.lengths4 and lengths6), the most
 * specific first, but for sessions. An IPv4 address inside an IPv6 one (gbf_addr_embedded4) has keys, too. */
typedef void (*gbf_ban_taker)(void *to, gbf_ban_key key);
GBF_INLINE void gbf_ban_keys_each(uint64_t present, const _Atomic uint64_t lengths6[3], const gbf_ban_who *who,
                                  gbf_ban_taker take, void *to)
{
    gbf_addr address4 = {0, 0};
    uint32_t embedded;
    int is4 = 0;
    if (who->address != NULL) {
        is4 = gbf_addr_is4(*who->address);
        if (is4)
            address4 = *who->address;
        else if (gbf_addr_embedded4(*who->address, &embedded)) {
            is4 = 1;
            address4 = gbf_addr_from4(embedded);
        }
        uint64_t at = who->fingerprint == NULL ? 0 : present / GBF_BANS_FINGERPRINT_AT4 & (is4 ? 1 : 14);
        for (; at != 0; at &= at - 1) { /* bit 0: IPv4 clients; 1, 2, 3: /64, /56, /48 */
            uint32_t bits6 = 72 - 8 * (uint32_t)__builtin_ctzll(at);
            take(to, gbf_ban_fingerprint_at(who->fingerprint, *who->address, at & 1 ? 64 : bits6));
        }
        if (present & GBF_BANS_V6 && !gbf_addr_is4(*who->address)) {
            for (int word = 2; word >= 0; word--) {
                uint64_t lengths = atomic_load_explicit(&lengths6[word], memory_order_relaxed);
                while (lengths != 0) {
                    uint32_t bit = 63 - (uint32_t)__builtin_clzll(lengths), bits = 64 * (uint32_t)word + bit;
                    lengths ^= UINT64_C(1) << bit;
                    take(to, gbf_ban_prefix(gbf_addr_masked(*who->address, bits), bits));
                }
            }
        }
        uint64_t lengths = is4 ? present & (GBF_BANS_ASN - 1) : 0;
        while (lengths != 0) {
            uint32_t bits = 63 - (uint32_t)__builtin_clzll(lengths);
            lengths ^= UINT64_C(1) << bits;
            uint64_t low = address4.low & ~((UINT64_C(1) << (32 - bits)) - 1);
            take(to, (gbf_ban_key){{0, low, 0}, GBF_BAN_IP4 + bits});
        }
    }
    if (who->uid != NULL && present & GBF_BANS_UID)
        take(to, *who->uid);
    if (who->fingerprint != NULL && present & GBF_BANS_FINGERPRINT)
        take(to, gbf_ban_fingerprint(who->fingerprint));
    if (who->asn != 0 && present & GBF_BANS_ASN)
        take(to, gbf_ban_asn(who->asn));
}

/* Candidate keys of one request, hashed; bucket lines are being prefetched. */
#define GBF_BANS_BATCH 8
typedef struct {
    const gbf_bans *table;
    uint64_t now;
    gbf_ban *best;
    gbf_ban_key key[GBF_BANS_BATCH];
    uint64_t hash[GBF_BANS_BATCH];
    uint32_t count;
    int found;
} gbf_bans_batch;

/* Asks for all keys of the batch; the ban that lasts longest goes to *best, the first of equals. */
static inline void gbf_bans_ask(gbf_bans_batch *batch)
{
    gbf_ban one;
    for (uint32_t i = 0; i < batch->count; i++) {
        if (gbf_bans_probe(batch->table, &batch->key[i], batch->hash[i], batch->now, &one) &&
            (!batch->found || one.expires > batch->best->expires)) {
            *batch->best = one;
            batch->found = 1;
        }
    }
    batch->count = 0;
}

GBF_INLINE void gbf_bans_take(void *to, gbf_ban_key key)
{
    gbf_bans_batch *batch = to;
    const gbf_bans *t = batch->table;
    if (GBF_UNLIKELY(batch->count == GBF_BANS_BATCH))
        gbf_bans_ask(batch);
    uint64_t hash = gbf_bans_hash(t, &key);
    GBF_PREFETCH(&t->buckets[gbf_bans_place(t, atomic_load_explicit(&t->size, memory_order_relaxed), hash)]);
    batch->key[batch->count] = key;
    batch->hash[batch->count++] = hash;
}

static inline int gbf_bans_find_any(const gbf_bans *t, uint64_t present, const gbf_ban_who *who, uint64_t now,
                                    gbf_ban *best)
{
    gbf_bans_batch batch;
    batch.table = t;
    batch.now = now;
    batch.best = best;
    batch.count = 0;
    batch.found = 0;
    gbf_ban_keys_each(present, t->lengths6, who, gbf_bans_take, &batch);
    gbf_bans_ask(&batch);
    if (GBF_UNLIKELY(!batch.found && present & GBF_BANS_CLOSED)) {
        *best = (gbf_ban){.key.kind = GBF_BAN_EVERYONE, .expires = GBF_BAN_FOREVER};
        return 1;
    }
    return batch.found;
}

/* 1 and the ban that keeps this request out at `now`, 0 and *best untouched when there is none. Of several it is the one
 * that lasts longest, so that *best says when all are over; of equals the most specific. NULL and 0 stand for what is
 * not known. At `now` 0 what is over and not purged holds as well: who finds nothing then need not read the clock. While
 * the table is closed and no ban of the request is found, the answer is 1 and a ban of kind GBF_BAN_EVERYONE. Any thread, no
 * lock. Cost: nothing in force, one load; else a cache line for each kind of key and length of prefix in force. */
GBF_INLINE int gbf_bans_find(const gbf_bans *t, const gbf_ban_who *who, uint64_t now, gbf_ban *best)
{
    uint64_t present = atomic_load_explicit(&t->lengths4, memory_order_acquire);
    if (present == 0)
        return 0;
    return gbf_bans_find_any(t, present, who, now, best);
}

/* 1 and *out when exactly this key is banned. */
GBF_INLINE int gbf_bans_get(const gbf_bans *t, const gbf_ban_key *key, uint64_t now, gbf_ban *out)
{
    return gbf_bans_probe(t, key, gbf_bans_hash(t, key), now, out);
}

#endif
