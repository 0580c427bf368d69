/* Writing half of gbf_labels.h. Everything here that changes a table does so under the lock of its bans. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "state/gbf_labels.h"

#include <stdlib.h>
#include <sys/mman.h>

#define HAND 8     /* entries that any write looks at, to free those that are over */
#define PAUSE 1000 /* milliseconds between looks through a full table */

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

/* Between these readers wait. */
static void begin(gbf_labels *l)
{
    store32(&l->version, load32(&l->version) + 1);
    atomic_thread_fence(memory_order_release);
}

static void end(gbf_labels *l)
{
    atomic_store_explicit(&l->version, load32(&l->version) + 1, memory_order_release);
}

static uint32_t slots_of(const gbf_labels *l)
{
    return GBF_LABELS_FIRST << load32(&l->level);
}

static gbf_labels_entry *entry_at(const gbf_labels *l, uint32_t at)
{
    return &l->entries[load32(&gbf_labels_slots(l, load32(&l->level))[at]) & l->entry_mask];
}

static uint32_t place(uint64_t hash, uint32_t slots)
{
    return (uint32_t)(hash >> 32) & (slots - 1);
}

static int has_key(const gbf_labels_entry *entry, const gbf_ban_key *key)
{
    return (uint8_t)(load64(&entry->until) >> 8) == key->kind && load64(&entry->word[0]) == key->word[0] &&
           load64(&entry->word[1]) == key->word[1] && load64(&entry->word[2]) == key->word[2];
}

static gbf_ban label_of(const gbf_labels_entry *entry)
{
    uint64_t until = load64(&entry->until);
    uint32_t why = load32(&entry->why);
    return (gbf_ban){
        {{load64(&entry->word[0]), load64(&entry->word[1]), load64(&entry->word[2])}, (uint8_t)(until >> 8)},
        until >> 16,
        load64(&entry->since) >> 16,
        1,
        (uint16_t)(why >> 16),
        (uint16_t)why,
        (uint8_t)(until & 127)};
}

/* Place in the index of the entry with this key and word, or slots_of(l); how many words the key carries, in *words. */
static uint32_t find(const gbf_labels *l, const gbf_ban_key *key, uint64_t hash, uint16_t word, uint64_t now,
                     uint32_t *words)
{
    uint32_t slots = slots_of(l), tag = gbf_labels_tag(l, hash), found = slots, slot;
    const _Atomic uint32_t *index = gbf_labels_slots(l, load32(&l->level));
    *words = 0;
    for (uint32_t at = place(hash, slots); (slot = load32(&index[at])) != 0; at = (at + 1) & (slots - 1)) {
        const gbf_labels_entry *entry = &l->entries[slot & l->entry_mask];
        if ((slot & ~l->entry_mask) != tag || !has_key(entry, key))
            continue;
        *words += load64(&entry->until) >> 16 > now;
        if ((uint16_t)load32(&entry->why) == word)
            found = at;
    }
    return found;
}

static void mark(gbf_labels *l, uint32_t kind, int present)
{
    _Atomic uint64_t *word = &l->lengths4;
    uint64_t bit = UINT64_C(1) << (kind >= GBF_BAN_IP4 ? kind - GBF_BAN_IP4 : 0), any = 0;
    if (kind < GBF_BAN_IP4) {
        word = &l->lengths6[kind / 64];
        bit = UINT64_C(1) << kind % 64;
    }
    atomic_store_explicit(word, present ? load64(word) | bit : load64(word) & ~bit, memory_order_release);
    for (int i = 0; i < 3; i++)
        any |= load64(&l->lengths6[i]);
    uint64_t others = load64(&l->lengths4) & ~GBF_BANS_V6;
    atomic_store_explicit(&l->lengths4, others | (any ? GBF_BANS_V6 : 0), memory_order_release);
}

static void fill_slot(_Atomic uint32_t *index, uint32_t slots, uint64_t hash, uint32_t slot)
{
    uint32_t at = place(hash, slots);
    while (load32(&index[at]) != 0)
        at = (at + 1) & (slots - 1);
    store32(&index[at], slot);
}

/* Makes the index of the next level, which no reader sees before it is whole. */
static void grow(gbf_labels *l)
{
    uint32_t level = load32(&l->level), slots = GBF_LABELS_FIRST << (level + 1);
    _Atomic uint32_t *index = gbf_labels_slots(l, level + 1), *old = gbf_labels_slots(l, level);
    for (uint32_t at = 0; at < slots / 2; at++) {
        uint32_t slot = load32(&old[at]);
        if (slot != 0)
            fill_slot(index, slots, l->entries[slot & l->entry_mask].hash, slot);
    }
    begin(l);
    store32(&l->level, level + 1);
    end(l);
}

/* Takes the entry at this place of the index out; those behind it move up (Knuth, TAOCP 6.4, algorithm R). */
static void drop(gbf_labels *l, uint32_t at)
{
    uint32_t slots = slots_of(l), number = load32(&gbf_labels_slots(l, load32(&l->level))[at]) & l->entry_mask;
    _Atomic uint32_t *index = gbf_labels_slots(l, load32(&l->level));
    gbf_labels_entry *entry = &l->entries[number];
    uint32_t kind = (uint8_t)(load64(&entry->until) >> 8), slot;
    begin(l);
    store64(&entry->until, 0);
    for (uint32_t hole = at, next = at;;) {
        next = (next + 1) & (slots - 1);
        if ((slot = load32(&index[next])) == 0) {
            store32(&index[hole], 0);
            break;
        }
        uint32_t home = place(l->entries[slot & l->entry_mask].hash, slots);
        if (((next - home) & (slots - 1)) >= ((next - hole) & (slots - 1))) {
            store32(&index[hole], slot);
            hole = next;
        }
    }
    end(l);
    entry->next = l->free_entry;
    l->free_entry = number;
    l->used--;
    if (--l->kinds[kind] == 0)
        mark(l, kind, 0);
}

/* Frees an entry that is over. */
static void settle_one(gbf_labels *l, uint32_t number, uint64_t now)
{
    const gbf_labels_entry *entry = &l->entries[number];
    uint64_t until = load64(&entry->until);
    if (until == 0 || until >> 16 > now)
        return;
    uint32_t slots = slots_of(l), at = place(entry->hash, slots);
    const _Atomic uint32_t *index = gbf_labels_slots(l, load32(&l->level));
    while ((load32(&index[at]) & l->entry_mask) != number)
        at = (at + 1) & (slots - 1);
    drop(l, at);
    l->counts.ended++;
}

static void settle(gbf_labels *l, uint64_t now)
{
    for (uint32_t i = 0; i < HAND && l->high > 0; i++) {
        l->hand = l->hand < l->high ? l->hand + 1 : 1;
        settle_one(l, l->hand, now);
    }
}

/* An entry to fill, or 0: full. */
static uint32_t allocate(gbf_labels *l, uint64_t now)
{
    if (l->used == l->capacity && now >= l->sweep_at) {
        l->sweep_at = now + PAUSE;
        for (uint32_t number = 1; number <= l->high; number++)
            settle_one(l, number, now);
    }
    if (l->used == l->capacity)
        return 0;
    uint32_t number = l->free_entry;
    if (number != 0)
        l->free_entry = l->entries[number].next;
    else
        number = ++l->high;
    l->used++;
    return number;
}

static void fill(gbf_labels_entry *entry, const gbf_ban *label)
{
    store64(&entry->until, label->expires << 16 | (uint64_t)label->key.kind << 8 | (label->by & 127));
    store64(&entry->since, (label->created & GBF_BAN_FOREVER) << 16);
    store32(&entry->why, (uint32_t)label->reason << 16 | label->rule);
}

static gbf_ban_outcome insert(gbf_labels *l, const gbf_ban *label, uint64_t hash, uint64_t now)
{
    uint32_t number = allocate(l, now);
    if (number == 0)
        return GBF_BAN_REFUSED;
    gbf_labels_entry *entry = &l->entries[number];
    entry->hash = hash;
    if (2 * l->used > slots_of(l))
        grow(l);
    begin(l);
    for (int i = 0; i < 3; i++)
        store64(&entry->word[i], label->key.word[i]);
    fill(entry, label);
    fill_slot(gbf_labels_slots(l, load32(&l->level)), slots_of(l), hash, gbf_labels_tag(l, hash) | number);
    end(l);
    if (l->kinds[label->key.kind]++ == 0)
        mark(l, label->key.kind, 1);
    return GBF_BAN_ADDED;
}

gbf_ban_outcome gbf_labels_put(gbf_labels *l, const gbf_ban *label, uint8_t maker, uint64_t now, gbf_ban *out)
{
    uint64_t hash = gbf_labels_hash(l, &label->key);
    gbf_ban_outcome outcome = GBF_BAN_KEPT;
    uint32_t words;
    *out = *label;
    if (label->expires <= now)
        return outcome;
    gbf_lock_take(&l->bans->lock);
    settle(l, now);
    uint32_t at = find(l, &label->key, hash, label->rule, now, &words);
    gbf_labels_entry *entry = NULL;
    if (at != slots_of(l))
        entry = entry_at(l, at);
    if (entry == NULL) {
        outcome = words < GBF_LABELS_KEY ? insert(l, label, hash, now) : GBF_BAN_REFUSED;
    } else if (load64(&entry->until) >> 16 < label->expires) {
        outcome = load64(&entry->until) >> 16 > now ? GBF_BAN_EXTENDED : GBF_BAN_ADDED;
        begin(l);
        fill(entry, label);
        end(l);
    } else {
        *out = label_of(entry);
    }
    l->counts.added += outcome == GBF_BAN_ADDED;
    l->counts.extended += outcome == GBF_BAN_EXTENDED;
    l->counts.refused += outcome == GBF_BAN_REFUSED;
    if (outcome == GBF_BAN_ADDED || outcome == GBF_BAN_EXTENDED)
        gbf_bans_tell(l->bans, GBF_FEED_LABEL, outcome == GBF_BAN_ADDED ? GBF_EVENT_ADD : GBF_EVENT_EXTEND, out, maker,
                      now);
    gbf_lock_open(&l->bans->lock);
    return outcome;
}

int gbf_labels_lift(gbf_labels *l, const gbf_ban_key *key, uint16_t word, uint8_t maker, uint64_t now, gbf_ban *out)
{
    uint64_t hash = gbf_labels_hash(l, key);
    uint32_t words;
    int carried = 0;
    gbf_lock_take(&l->bans->lock);
    uint32_t at = find(l, key, hash, word, now, &words);
    if (at != slots_of(l)) {
        *out = label_of(entry_at(l, at));
        carried = out->expires > now;
        drop(l, at);
        l->counts.lifted += (uint64_t)carried;
        l->counts.ended += (uint64_t)!carried;
        if (carried)
            gbf_bans_tell(l->bans, GBF_FEED_LABEL, GBF_EVENT_LIFT, out, maker, now);
    }
    settle(l, now);
    gbf_lock_open(&l->bans->lock);
    return carried;
}

int gbf_labels_get(gbf_labels *l, const gbf_ban_key *key, uint16_t word, uint64_t now, gbf_ban *out)
{
    uint32_t words;
    gbf_lock_take(&l->bans->lock);
    uint32_t at = find(l, key, gbf_labels_hash(l, key), word, now, &words);
    int found = at != slots_of(l);
    if (found) {
        *out = label_of(entry_at(l, at));
        found = out->expires > now;
    }
    gbf_lock_open(&l->bans->lock);
    return found;
}

int gbf_labels_copy(gbf_labels *l, uint32_t *cursor, gbf_ban *out, uint32_t *count, uint64_t now)
{
    gbf_lock_take(&l->bans->lock);
    uint32_t last = l->high - *cursor > GBF_BANS_COPY ? *cursor + GBF_BANS_COPY : l->high, copied = 0;
    while (*cursor < last) {
        const gbf_labels_entry *entry = &l->entries[++*cursor];
        if (load64(&entry->until) >> 16 > now)
            out[copied++] = label_of(entry);
    }
    int more = last < l->high;
    gbf_lock_open(&l->bans->lock);
    *count = copied;
    return more;
}

int gbf_labels_texts(gbf_labels *l, uint32_t *cursor, uint8_t *used)
{
    gbf_lock_take(&l->bans->lock);
    uint32_t last = l->high - *cursor > GBF_BANS_COPY ? *cursor + GBF_BANS_COPY : l->high;
    while (*cursor < last) {
        const gbf_labels_entry *entry = &l->entries[++*cursor];
        uint32_t why = load32(&entry->why);
        if (load64(&entry->until) != 0)
            used[why >> 16] = used[why & 0xFFFF] = 1;
    }
    int more = last < l->high;
    gbf_lock_open(&l->bans->lock);
    return more;
}

int gbf_labels_purge(gbf_labels *l, uint32_t *cursor, uint64_t now, uint32_t limit)
{
    gbf_lock_take(&l->bans->lock);
    for (; limit > 0 && *cursor < l->high; limit--)
        settle_one(l, ++*cursor, now);
    int more = *cursor < l->high;
    gbf_lock_open(&l->bans->lock);
    return more;
}

gbf_labels_counts gbf_labels_count(gbf_labels *l)
{
    gbf_lock_take(&l->bans->lock);
    gbf_labels_counts counts = l->counts;
    counts.active = l->used;
    gbf_lock_open(&l->bans->lock);
    return counts;
}

uint64_t gbf_labels_nbytes(gbf_labels *l)
{
    gbf_lock_take(&l->bans->lock);
    uint64_t nbytes =
        sizeof *l + l->high * sizeof(gbf_labels_entry) + (2 * (uint64_t)slots_of(l) - GBF_LABELS_FIRST) * 4;
    gbf_lock_open(&l->bans->lock);
    return nbytes;
}

gbf_labels *gbf_labels_new(gbf_bans *bans, uint32_t capacity)
{
    gbf_labels *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    uint32_t bits = 32 - (uint32_t)__builtin_clz(capacity), level = 0;
    while (GBF_LABELS_FIRST << level < 2 * capacity)
        level++;
    uint64_t entries = ((uint64_t)capacity + 1) * sizeof(gbf_labels_entry);
    l->bans = bans;
    l->capacity = capacity;
    l->tag_shift = bits;
    l->entry_mask = (UINT32_C(1) << bits) - 1;
    l->mapped = entries + ((uint64_t)GBF_LABELS_FIRST << (level + 1)) * 4;
    l->mapping = mmap(NULL, l->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (l->mapping == MAP_FAILED) {
        free(l);
        return NULL;
    }
    l->entries = l->mapping; /* pages are aligned, entries have the size of a line */
    l->index = (_Atomic uint32_t *)(void *)((uint8_t *)l->mapping + entries);
    return l;
}

void gbf_labels_free(gbf_labels *l)
{
    if (l == NULL)
        return;
    munmap(l->mapping, l->mapped);
    free(l);
}
