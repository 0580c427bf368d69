/* Slots of shared memory, one a worker of the host: owner claimed by CAS, payload under a seqlock. DESIGN.md, "Shared memory".
 *
 *     header, 64 bytes: "GBFW", format version, slots, bytes a slot, content (16 bytes that the user chooses); then the slots:
 *     owner u64 | sequence u64 | writer u64 | bytes u64 | zero, 32 bytes | payload
 *
 * No locks: a killed worker stops nobody. Whoever finds the owner dead takes the slot by compare-and-swap on the owner. A
 * sequence that is odd means that the payload is being written, or that its writer was killed meanwhile; readers skip it.
 * The payload counts only while its writer is the owner, so that nobody reads a dead worker's as the next one's. Words of
 * the payload are relaxed atomics: a reader may meet a writer in a thread of its own process. */
#ifndef GBF_SHARED_H
#define GBF_SHARED_H

#include <stdatomic.h>

#include "base/gbf_base.h"
#include "base/gbf_lock.h" /* gbf_pause */

#define GBF_SHARED_HEADER 64u
#define GBF_SHARED_CONTENT 16u
#define GBF_SHARED_VERSION 1u
#define GBF_SHARED_TRIES 1000u /* readings of a slot that is written meanwhile */
#define GBF_SHARED_NOTHING UINT64_C(0xFFFFFFFFFFFFFFFF)

typedef struct {
    _Atomic uint64_t owner; /* 0: free */
    _Atomic uint64_t sequence;
    _Atomic uint64_t writer; /* owner when the payload was written */
    _Atomic uint64_t nbytes; /* of the payload */
    uint64_t zero[4];
    _Atomic uint64_t words[];
} gbf_shared_slot;

/* Writes the header of an empty file into `out`, 64 bytes; the slots of an empty file are zero. */
GBF_INLINE void gbf_shared_start(uint8_t *out, uint32_t slots, uint32_t slot_bytes, const uint8_t *content)
{
    uint32_t version = GBF_SHARED_VERSION;
    memset(out, 0, GBF_SHARED_HEADER);
    memcpy(out, "GBFW", 4);
    memcpy(out + 4, &version, 4);
    memcpy(out + 8, &slots, 4);
    memcpy(out + 12, &slot_bytes, 4);
    memcpy(out + 16, content, GBF_SHARED_CONTENT);
}

/* Bytes of a whole file; slot_bytes includes the 64 of the slot's own header and is a multiple of 64. */
GBF_INLINE uint64_t gbf_shared_nbytes(uint32_t slots, uint32_t slot_bytes)
{
    return GBF_SHARED_HEADER + (uint64_t)slots * slot_bytes;
}

GBF_INLINE gbf_shared_slot *gbf_shared_at(void *memory, uint32_t slot, uint32_t slot_bytes)
{
    return (gbf_shared_slot *)(void *)((uint8_t *)memory + GBF_SHARED_HEADER + (uint64_t)slot * slot_bytes);
}

GBF_INLINE uint64_t gbf_shared_owner(const gbf_shared_slot *s)
{
    return atomic_load_explicit(&s->owner, memory_order_acquire);
}

/* Takes a slot from an owner that is dead, or from nobody (0); 0 when another one was faster. */
GBF_INLINE int gbf_shared_claim(gbf_shared_slot *s, uint64_t from, uint64_t owner)
{
    return atomic_compare_exchange_strong_explicit(&s->owner, &from, owner, memory_order_acq_rel, memory_order_relaxed);
}

/* Replaces the payload of one's own slot; 0 when the slot is no longer one's own. The slot has room for `nbytes`. One
 * thread at a time. */
GBF_INLINE int gbf_shared_write(gbf_shared_slot *s, uint64_t owner, const void *payload, uint64_t nbytes)
{
    if (gbf_shared_owner(s) != owner)
        return 0;
    uint64_t odd =
        atomic_load_explicit(&s->sequence, memory_order_relaxed) | 1; /* odd already: its writer was killed */
    atomic_store_explicit(&s->sequence, odd, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (uint64_t at = 0; at < nbytes; at += 8) {
        uint64_t word = 0;
        memcpy(&word, (const uint8_t *)payload + at, nbytes - at < 8 ? nbytes - at : 8);
        atomic_store_explicit(&s->words[at / 8], word, memory_order_relaxed);
    }
    atomic_store_explicit(&s->nbytes, nbytes, memory_order_relaxed);
    atomic_store_explicit(&s->writer, owner, memory_order_relaxed);
    atomic_store_explicit(&s->sequence, odd + 1, memory_order_release);
    return 1;
}

/* Copies a whole payload of `owner` to `out`, which has `room` bytes, a multiple of 8; returns its bytes, or NOTHING: the
 * slot is of somebody else, empty, half-written, or says more bytes than there is room for. */
GBF_INLINE uint64_t gbf_shared_read(const gbf_shared_slot *s, uint64_t owner, void *out, uint64_t room)
{
    for (uint32_t tries = 0; tries < GBF_SHARED_TRIES; tries++) {
        uint64_t before = atomic_load_explicit(&s->sequence, memory_order_acquire);
        if (before & 1) {
            gbf_pause();
            continue;
        }
        uint64_t nbytes = atomic_load_explicit(&s->nbytes, memory_order_relaxed);
        if (nbytes > room || atomic_load_explicit(&s->writer, memory_order_relaxed) != owner)
            return GBF_SHARED_NOTHING;
        for (uint64_t at = 0; at < nbytes; at += 8) {
            uint64_t word = atomic_load_explicit(&s->words[at / 8], memory_order_relaxed);
            memcpy((uint8_t *)out + at, &word, 8);
        }
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&s->sequence, memory_order_relaxed) == before)
            return nbytes;
    }
    return GBF_SHARED_NOTHING;
}

/* Leaves one's own slot to whoever comes. */
GBF_INLINE void gbf_shared_leave(gbf_shared_slot *s, uint64_t owner)
{
    atomic_compare_exchange_strong_explicit(&s->owner, &owner, 0, memory_order_acq_rel, memory_order_relaxed);
}

#endif
