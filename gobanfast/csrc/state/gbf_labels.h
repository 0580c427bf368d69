/* Labels in a fixed budget: expiring words that keys carry. Read without a lock, written under that of the bans.
 *
 * An open-addressed index (linear probing, at most half full) over a pool of 64-byte entries, one for each word of a key, so the
 * words of one key stand together in the index. A request is asked about with one call, which probes only the kinds of key that
 * carry any: a miss costs one cache line of the index for each. DESIGN.md, "Labels".
 *
 * The table stands beside the ban table and takes its lock, its hash keys, its change feed and its texts; entries are its own, so
 * no flood of labels evicts a ban. Readers: `version` is odd while the index or an entry changes; who met a change asks again. */
#ifndef GBF_LABELS_H
#define GBF_LABELS_H

#include "state/gbf_bans.h"

#define GBF_LABELS_KEY 64   /* words of one key; more are refused */
#define GBF_LABELS_WORDS 64 /* words that rules name */

typedef struct {
    _Atomic uint64_t word[3];
    _Atomic uint64_t until; /* expires << 16 | kind << 8 | by; 0: free */
    _Atomic uint64_t since; /* created << 16 */
    _Atomic uint32_t why;   /* reason << 16 | word */
    uint32_t next;          /* free entry. Writers only */
    uint64_t hash;          /* of the key. Writers only */
    uint64_t spare;
} gbf_labels_entry;

typedef struct {
    uint64_t added, extended, lifted, ended, refused; /* since the table was made */
    uint32_t active;                                  /* now, with what is over and not yet purged */
} gbf_labels_counts;

typedef struct {
    /* What a reader touches. */
    _Atomic uint64_t lengths4, lengths6[3]; /* kinds of key that carry labels, as in gbf_bans */
    _Atomic uint32_t version;               /* odd: something is being changed */
    _Atomic uint32_t level;                 /* of the index in force: it has GBF_LABELS_FIRST << level slots */
    _Atomic uint32_t *index;                /* all levels, one behind the other */
    gbf_labels_entry *entries;              /* [0] is never used */
    uint32_t entry_mask, tag_shift;
    gbf_bans *bans;
    /* What writers touch, under the lock of the bans. */
    uint32_t capacity, used, high, free_entry, hand;
    uint32_t kinds[GBF_BAN_KINDS];
    uint64_t sweep_at; /* a full table is not looked through again before */
    gbf_labels_counts counts;
    void *mapping;
    uint64_t mapped; /* bytes */
} gbf_labels;

#define GBF_LABELS_FIRST 256u

/* Words that somebody asks for, by the numbers of their texts; word i is bit i of an answer. */
typedef struct {
    uint16_t number[GBF_LABELS_WORDS];
    uint32_t count;
} gbf_label_words;

/* NULL when there is no memory. `capacity`: 1 to 2^22 - 1 labels. The ban table must live longer. */
gbf_labels *gbf_labels_new(gbf_bans *bans, uint32_t capacity);
void gbf_labels_free(gbf_labels *l);

/* A label is a gbf_ban whose `rule` is the number of its word. */

/* Puts a label; of two of the same word the later end stays, with its reason, maker and time. Fills `out` unless refused: full, or
 * the key has GBF_LABELS_KEY words. One that has ended is GBF_BAN_KEPT and not stored; then *out is as given. */
gbf_ban_outcome gbf_labels_put(gbf_labels *l, const gbf_ban *label, uint8_t maker, uint64_t now, gbf_ban *out);
/* 1 when `key` carried the word, with the label as it was. */
int gbf_labels_lift(gbf_labels *l, const gbf_ban_key *key, uint16_t word, uint8_t maker, uint64_t now, gbf_ban *out);
/* 1 and *out when `key` carries the word. */
int gbf_labels_get(gbf_labels *l, const gbf_ban_key *key, uint16_t word, uint64_t now, gbf_ban *out);
/* Copies labels in force, as gbf_bans_copy does. */
int gbf_labels_copy(gbf_labels *l, uint32_t *cursor, gbf_ban *out, uint32_t *count, uint64_t now);
/* Marks texts that entries name, as gbf_bans_texts does; before it, because that one gives up changes. */
int gbf_labels_texts(gbf_labels *l, uint32_t *cursor, uint8_t *used);
/* Frees the labels that are over among the next `limit` entries after *cursor; 0 when those were the last. */
int gbf_labels_purge(gbf_labels *l, uint32_t *cursor, uint64_t now, uint32_t limit);
gbf_labels_counts gbf_labels_count(gbf_labels *l);
uint64_t gbf_labels_nbytes(gbf_labels *l);

/* ---- reading ---- */

GBF_INLINE uint64_t gbf_labels_hash(const gbf_labels *l, const gbf_ban_key *key)
{
    uint64_t hash = gbf_bans_hash(l->bans, key); /* and a finish (splitmix64), because probing is sensitive to runs */
    hash = (hash ^ hash >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    return hash ^ hash >> 32;
}

GBF_INLINE uint32_t gbf_labels_tag(const gbf_labels *l, uint64_t hash)
{
    uint32_t tag = (uint32_t)hash >> l->tag_shift;
    return (tag ? tag : 1) << l->tag_shift;
}

/* Slots of a level: those of all before come first. */
GBF_INLINE _Atomic uint32_t *gbf_labels_slots(const gbf_labels *l, uint32_t level)
{
    return l->index + (((uint64_t)GBF_LABELS_FIRST << level) - GBF_LABELS_FIRST);
}

GBF_INLINE uint64_t gbf_labels_match(const gbf_labels_entry *entry, const gbf_ban_key *key,
                                     const gbf_label_words *words, uint64_t now)
{
    uint64_t until = atomic_load_explicit(&entry->until, memory_order_relaxed);
    if (atomic_load_explicit(&entry->word[0], memory_order_relaxed) != key->word[0] ||
        atomic_load_explicit(&entry->word[1], memory_order_relaxed) != key->word[1] ||
        atomic_load_explicit(&entry->word[2], memory_order_relaxed) != key->word[2] ||
        (uint8_t)(until >> 8) != key->kind || until >> 16 <= now)
        return 0;
    uint16_t number = (uint16_t)atomic_load_explicit(&entry->why, memory_order_relaxed);
    for (uint32_t i = 0; i < words->count; i++) {
        if (words->number[i] == number)
            return UINT64_C(1) << i;
    }
    return 0;
}

/* Bits of the words that `key` carries at `now`; `hash` is the key's. Any thread, no lock. */
static inline uint64_t gbf_labels_probe(const gbf_labels *l, const gbf_ban_key *key, uint64_t hash,
                                        const gbf_label_words *words, uint64_t now)
{
    uint32_t tag = gbf_labels_tag(l, hash);
    for (uint32_t looks = 0;; looks++) {
        uint32_t version = atomic_load_explicit(&l->version, memory_order_acquire);
        if (GBF_LIKELY(!(version & 1))) {
            uint64_t found = 0;
            uint32_t level = atomic_load_explicit(&l->level, memory_order_relaxed), slot;
            uint32_t mask = (GBF_LABELS_FIRST << level) - 1, at = (uint32_t)(hash >> 32) & mask, left = mask;
            const _Atomic uint32_t *slots = gbf_labels_slots(l, level);
            while ((slot = atomic_load_explicit(&slots[at], memory_order_relaxed)) != 0 && left-- > 0) {
                if ((slot & ~l->entry_mask) == tag)
                    found |= gbf_labels_match(&l->entries[slot & l->entry_mask], key, words, now);
                at = (at + 1) & mask;
            }
            atomic_thread_fence(memory_order_acquire);
            if (GBF_LIKELY(atomic_load_explicit(&l->version, memory_order_relaxed) == version))
                return found;
        }
        if (looks < GBF_LOCK_SPINS)
            gbf_pause();
        else
            sched_yield(); /* the writer lost its CPU between two stores */
    }
}

/* Bits of the words that exactly this key carries at `now`; at 0, what is over and not purged counts as well. */
GBF_INLINE uint64_t gbf_labels_of(const gbf_labels *l, const gbf_ban_key *key, const gbf_label_words *words,
                                  uint64_t now)
{
    return gbf_labels_probe(l, key, gbf_labels_hash(l, key), words, now);
}

typedef struct {
    const gbf_labels *table;
    const gbf_label_words *words;
    uint64_t now, found, own;
} gbf_labels_ask;

GBF_INLINE void gbf_labels_take(void *to, gbf_ban_key key)
{
    gbf_labels_ask *ask = to;
    uint64_t words = gbf_labels_of(ask->table, &key, ask->words, ask->now);
    ask->found |= words;
    if (key.kind != GBF_BAN_ASN && key.kind != GBF_BAN_FINGERPRINT)
        ask->own |= words;
}

GBF_INLINE uint64_t gbf_labels_present(const gbf_labels *l)
{
    return atomic_load_explicit(&l->lengths4, memory_order_acquire);
}

/* Bits of the words that a request carries at `now` on any key but its session; at 0, as above. Into *own go those on keys that are
 * the client's or the user's own: an AS has others, and a fingerprint can be copied. Any thread, no lock.
 * Cost: nothing labelled, one load; else a line of the index for each labelled kind of key, and one for each label found. */
GBF_INLINE uint64_t gbf_labels_find(const gbf_labels *l, const gbf_ban_who *who, const gbf_label_words *words,
                                    uint64_t now, uint64_t *own)
{
    uint64_t present = gbf_labels_present(l);
    gbf_labels_ask ask = {l, words, now, 0, 0};
    if ((present & ~GBF_BANS_SESSION) != 0)
        gbf_ban_keys_each(present, l->lengths6, who, gbf_labels_take, &ask);
    *own = ask.own;
    return ask.found;
}

#endif
