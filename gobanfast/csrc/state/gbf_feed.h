/* Change feed: a ring of sequence-numbered slots with one writer at a time and any number of lock-free readers.
 *
 * The owner of the ring adds a change while it holds the lock under which it made that change, so the order of the feed
 * is the order of the changes. A reader keeps one number, the sequence of the last change it has read, and takes no lock:
 * a slot is a seqlock, whose version is the sequence of the change in it. A reader that is more than GBF_FEED_SLOTS
 * changes behind is told so; it then reads what the feed is about as a whole and goes on from the cursor it was given
 * before. DESIGN.md, "Change feed".
 *
 * A feed that nobody has read yet records nothing: adding costs one load, and no page of the ring is touched.
 * Fork: gbf_feed_restart in the child, so that every cursor of the parent is told to read all. */
#ifndef GBF_FEED_H
#define GBF_FEED_H

#include <stdatomic.h>

#include "base/gbf_base.h"

#define GBF_FEED_SLOTS 65536 /* a power of two */
#define GBF_FEED_WORDS 7
#define GBF_FEED_BYTES (GBF_FEED_SLOTS * 64) /* the budget: 4 MiB */

typedef struct {
    _Atomic uint64_t sequence; /* of the change in it; 0: none, or one that is being written */
    _Atomic uint64_t word[GBF_FEED_WORDS];
} gbf_feed_slot;

typedef struct {
    uint64_t sequence;
    uint64_t word[GBF_FEED_WORDS]; /* as the owner packs them */
} gbf_feed_change;

typedef struct {
    gbf_feed_slot *slots;   /* GBF_FEED_BYTES of zeros, the owner's */
    _Atomic uint64_t head;  /* sequence of the last change; 0: nobody has read yet */
    _Atomic uint64_t start; /* cursors below it have missed something */
    uint32_t touched;       /* slots ever written. Writers only */
} gbf_feed;

/* Starts recording, unless it does already. Under the owner's lock. */
GBF_INLINE void gbf_feed_open(gbf_feed *f)
{
    if (atomic_load_explicit(&f->head, memory_order_relaxed) == 0) {
        atomic_store_explicit(&f->start, 1, memory_order_relaxed);
        atomic_store_explicit(&f->head, 1, memory_order_release);
    }
}

/* Tells every cursor of before to read all. Under the owner's lock. */
GBF_INLINE void gbf_feed_restart(gbf_feed *f)
{
    uint64_t head = atomic_load_explicit(&f->head, memory_order_relaxed);
    if (head != 0) {
        atomic_store_explicit(&f->start, head + 1, memory_order_relaxed);
        atomic_store_explicit(&f->head, head + 1, memory_order_release);
    }
}

/* Gives up all changes but the last `keep`, so that what only older ones name can be reused. Under the owner's lock. */
GBF_INLINE void gbf_feed_trim(gbf_feed *f, uint64_t keep)
{
    uint64_t head = atomic_load_explicit(&f->head, memory_order_relaxed);
    if (head > keep && head - keep > atomic_load_explicit(&f->start, memory_order_relaxed))
        atomic_store_explicit(&f->start, head - keep, memory_order_release);
}

GBF_INLINE int gbf_feed_records(const gbf_feed *f)
{
    return atomic_load_explicit(&f->head, memory_order_relaxed) != 0;
}

/* Adds a change, if somebody reads. Under the owner's lock. Cost: one cache line. */
GBF_INLINE void gbf_feed_add(gbf_feed *f, const uint64_t word[GBF_FEED_WORDS])
{
    uint64_t sequence = atomic_load_explicit(&f->head, memory_order_relaxed) + 1;
    gbf_feed_slot *slot = &f->slots[sequence & (GBF_FEED_SLOTS - 1)];
    f->touched += atomic_load_explicit(&slot->sequence, memory_order_relaxed) == 0;
    atomic_store_explicit(&slot->sequence, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (int i = 0; i < GBF_FEED_WORDS; i++)
        atomic_store_explicit(&slot->word[i], word[i], memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, sequence, memory_order_release);
    atomic_store_explicit(&f->head, sequence, memory_order_release);
}

/* Sequence of the last change, which is the cursor of a reader that has read everything. Any thread, no lock. */
GBF_INLINE uint64_t gbf_feed_head(const gbf_feed *f)
{
    return atomic_load_explicit(&f->head, memory_order_acquire);
}

/* 1 while the change after `cursor`, and with it every later one, is in the ring; then nothing that a change names, and
 * that was read before this call, has been reused. Any thread, no lock. */
GBF_INLINE int gbf_feed_holds(const gbf_feed *f, uint64_t cursor)
{
    atomic_thread_fence(memory_order_acquire);
    uint64_t head = gbf_feed_head(f);
    return cursor >= atomic_load_explicit(&f->start, memory_order_acquire) && cursor <= head &&
           head - cursor < GBF_FEED_SLOTS; /* not <=: the slot of the next change may be in the making */
}

/* Copies at most `limit` changes after *cursor to `out`, in order, and moves *cursor behind them; returns how many, or -1
 * when changes after *cursor are gone: then *cursor is the last change, and whoever reads the whole from now on and goes on
 * from there has missed nothing. Any thread, no lock, never waits. */
static inline int32_t gbf_feed_read(const gbf_feed *f, uint64_t *cursor, gbf_feed_change *out, uint32_t limit)
{
    uint64_t head = gbf_feed_head(f), at = *cursor;
    uint32_t count = 0;
    if (at < atomic_load_explicit(&f->start, memory_order_acquire) || at > head || head == 0)
        goto missed;
    for (; at < head && count < limit; count++) {
        const gbf_feed_slot *slot = &f->slots[++at & (GBF_FEED_SLOTS - 1)];
        if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != at)
            goto missed;
        for (int i = 0; i < GBF_FEED_WORDS; i++)
            out[count].word[i] = atomic_load_explicit(&slot->word[i], memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != at)
            goto missed;
        out[count].sequence = at;
    }
    *cursor = at;
    return (int32_t)count;
missed:
    *cursor = gbf_feed_head(f);
    return -1;
}

#endif
