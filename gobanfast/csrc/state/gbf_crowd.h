/* Clients of each network that were let in lately, in memory of a fixed size: whom a ban of the network would hit. DESIGN.md,
 * "Ladder".
 *
 * A network, a /24 of IPv4 or a /48 of IPv6, has a bit a client for this half hour and for the one before, so what is
 * counted was seen within the last 30 to 60 minutes: 256 bits, exact in IPv4, of the hash of the /64 in IPv6. A network
 * whose four cells are all taken by others is not counted, and the table says when that was last so: who asks then has to
 * take every network for crowded.
 *
 * Threads: words are relaxed atomics; a note may be lost where two threads turn one cell to a new half hour. */
#ifndef GBF_CROWD_H
#define GBF_CROWD_H

#include <stdatomic.h>

#include "address/gbf_addr.h"

#define GBF_CROWD_CELLS 65536u
#define GBF_CROWD_WAYS 4u
#define GBF_CROWD_WORDS 4u
#define GBF_CROWD_MS UINT32_C(1800000)
#define GBF_CROWD_UNKNOWN UINT32_MAX

typedef struct {
    _Atomic uint64_t tag; /* 48 bits of the network, 16 of the half hour; 0: empty */
    _Atomic uint64_t now[GBF_CROWD_WORDS], before[GBF_CROWD_WORDS];
} gbf_crowd_cell;

typedef struct {
    gbf_crowd_cell cell[GBF_CROWD_CELLS];
    uint64_t key;
    _Atomic uint64_t lost; /* half hour, from 1 on, in which a network was not counted last; 0: none ever was */
} gbf_crowd;

/* The 48 bits that name the network of a client: of IPv4 its /24 behind 0xffff, where no IPv6 client lies. */
GBF_INLINE uint64_t gbf_crowd_network(gbf_addr client)
{
    return gbf_addr_is4(client) ? UINT64_C(0xFFFF) << 32 | (uint32_t)client.low >> 8 : client.high >> 16;
}

GBF_INLINE uint64_t gbf_crowd_hash(const gbf_crowd *c, uint64_t value)
{
    gbf_u128 product = (gbf_u128)(value ^ c->key) * (c->key | 1);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

GBF_INLINE uint32_t gbf_crowd_bit(const gbf_crowd *c, gbf_addr client)
{
    return (uint32_t)(gbf_addr_is4(client) ? client.low : gbf_crowd_hash(c, client.high)) & 255;
}

/* Notes that a client was let in. */
GBF_INLINE void gbf_crowd_note(gbf_crowd *c, gbf_addr client, uint64_t now_ms)
{
    uint64_t epoch = now_ms / GBF_CROWD_MS + 1, network = gbf_crowd_network(client);
    uint64_t wanted = network << 16 | (epoch & 0xFFFF);
    uint32_t bit = gbf_crowd_bit(c, client);
    gbf_crowd_cell *at = &c->cell[gbf_crowd_hash(c, network) >> 32 & (GBF_CROWD_CELLS - GBF_CROWD_WAYS)], *found = NULL;
    for (uint32_t way = 0; way < GBF_CROWD_WAYS; way++) {
        uint64_t tag = atomic_load_explicit(&at[way].tag, memory_order_relaxed), age = (epoch - tag) & 0xFFFF;
        if (tag >> 16 == network && tag != 0) {
            found = &at[way];
            break;
        }
        if (found == NULL && (tag == 0 || age > 1))
            found = &at[way];
    }
    if (found == NULL) {
        atomic_store_explicit(&c->lost, epoch, memory_order_relaxed);
        return;
    }
    uint64_t tag = atomic_load_explicit(&found->tag, memory_order_relaxed);
    if (GBF_UNLIKELY(tag != wanted)) {
        int turns = tag >> 16 == network && ((epoch - tag) & 0xFFFF) == 1;
        for (uint32_t word = 0; word < GBF_CROWD_WORDS; word++) {
            uint64_t last = turns ? atomic_load_explicit(&found->now[word], memory_order_relaxed) : 0;
            atomic_store_explicit(&found->before[word], last, memory_order_relaxed);
            atomic_store_explicit(&found->now[word], 0, memory_order_relaxed);
        }
        atomic_store_explicit(&found->tag, wanted, memory_order_relaxed);
    }
    uint64_t mask = UINT64_C(1) << (bit & 63);
    if (!(atomic_load_explicit(&found->now[bit >> 6], memory_order_relaxed) & mask))
        atomic_fetch_or_explicit(&found->now[bit >> 6], mask, memory_order_relaxed);
}

/* How many clients were let in, without `others`, of the networks whose first `bits` (0 to 48) are those of `network`, as
 * gbf_crowd_network has it; GBF_CROWD_UNKNOWN: some were not counted. One pass over the table. */
GBF_INLINE uint32_t gbf_crowd_count(const gbf_crowd *c, uint64_t network, uint32_t bits, const gbf_addr *others,
                                    uint32_t count, uint64_t now_ms)
{
    uint64_t epoch = now_ms / GBF_CROWD_MS + 1, mask = bits == 0 ? 0 : ~UINT64_C(0) << (48 - bits);
    uint64_t lost = atomic_load_explicit(&c->lost, memory_order_relaxed);
    uint32_t sum = 0;
    if (lost != 0 && lost + 1 >= epoch)
        return GBF_CROWD_UNKNOWN;
    for (uint32_t i = 0; i < GBF_CROWD_CELLS; i++) {
        uint64_t tag = atomic_load_explicit(&c->cell[i].tag, memory_order_relaxed), age = (epoch - tag) & 0xFFFF;
        if (tag == 0 || age > 1 || ((tag >> 16 ^ network) & mask) != 0)
            continue;
        uint64_t seen[GBF_CROWD_WORDS];
        for (uint32_t word = 0; word < GBF_CROWD_WORDS; word++) {
            seen[word] = atomic_load_explicit(&c->cell[i].now[word], memory_order_relaxed);
            if (age == 0)
                seen[word] |= atomic_load_explicit(&c->cell[i].before[word], memory_order_relaxed);
        }
        for (uint32_t j = 0; j < count; j++) {
            uint32_t bit = gbf_crowd_bit(c, others[j]);
            if (gbf_crowd_network(others[j]) == tag >> 16)
                seen[bit >> 6] &= ~(UINT64_C(1) << (bit & 63));
        }
        for (uint32_t word = 0; word < GBF_CROWD_WORDS; word++)
            sum += (uint32_t)__builtin_popcountll(seen[word]);
    }
    return sum;
}

#endif
