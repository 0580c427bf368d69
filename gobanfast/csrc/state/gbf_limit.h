/* Limits: counts per key in one table of fixed size, which the workers of a host may share. DESIGN.md, "Limits".
 *
 * A key's count is one word of 64 bits, changed by compare-and-swap: its upper 34 bits are the millisecond at which it is
 * worth nothing again, so that a word says by itself whether it may be given away. Two ways to count:
 *
 *   window   the lower 30 bits count; the window begins with the key's first request, and lets `limit` in until it ends
 *   bucket   GCRA: the word is the theoretical arrival time, in 2^-30 ms; it may lie `burst` intervals ahead of now
 *
 * Words lie in sets of eight ways, chosen by a keyed hash of limit and key; beside each word the 61 bits of that hash it is
 * for, and 3 of how much of its limit is used up. A set that is full of live words gives away the one that is used up
 * least, and never one that is used up by half; a key that gets none is let in and counted as untracked.
 *
 * No locks and no pointers: the memory may be mapped anywhere, and a worker that is killed stops nobody. A word is cleared
 * before its way is given away: whoever counts with a word in mind that is cleared meanwhile finds that out. Two workers
 * that take different ways for one new key at the same instant agree on the lower one; what the other counted before it
 * looked again, one request, is lost. Times are milliseconds of one clock, modulo 2^34; when it goes back, a word ends one
 * window later at most. A word that nobody asks about for 198 days may look alive for a day. */
#ifndef GBF_LIMIT_H
#define GBF_LIMIT_H

#include <stdatomic.h>

#include "base/gbf_base.h"

#define GBF_LIMIT_WAYS 8u
#define GBF_LIMIT_TIME_BITS 34
#define GBF_LIMIT_SHARE_BITS 30 /* of a word below its time */
#define GBF_LIMIT_MAX_COUNT UINT32_C(1000000000)
#define GBF_LIMIT_MAX_MS UINT32_C(86400000) /* the longest window: a day */
#define GBF_LIMIT_HEADER 64u                /* of the memory, before the sets */

/* How one limit counts; made by gbf_limit_set. */
typedef struct {
    uint64_t salt;      /* keeps its keys apart from those of others */
    uint64_t interval;  /* bucket: between two requests, in 2^-30 ms; 0: a window */
    uint32_t limit;     /* requests a window, or that a full bucket lets in at once */
    uint32_t window_ms; /* bucket: until an empty one is full */
} gbf_limit;

typedef struct {
    uint64_t first, second;
} gbf_limit_key;

typedef struct {
    uint32_t admitted;
    uint32_t tracked;  /* 0: there was no room for the key, and nothing was counted */
    uint32_t left;     /* how many more would be let in now */
    uint32_t wait_ms;  /* until `cost` would be let in; 0 when admitted */
    uint32_t reset_ms; /* until all of the limit is there again */
} gbf_limit_answer;

typedef enum {
    GBF_LIMIT_LOOK,  /* what a request would get */
    GBF_LIMIT_TAKE,  /* a request: counted when it is let in */
    GBF_LIMIT_COUNT, /* what has happened: counted up to the limit, let in or not */
    GBF_LIMIT_GIVE,  /* takes back what was counted */
    GBF_LIMIT_CLEAR  /* takes back everything */
} gbf_limit_step;

typedef struct {
    _Atomic uint64_t tag[GBF_LIMIT_WAYS]; /* 61 bits of the hash, 3 of how much is used up; 0: empty */
    _Atomic uint64_t word[GBF_LIMIT_WAYS];
} gbf_limit_line;

typedef struct {
    _Atomic uint64_t seed; /* of the keyed hash; 0: not drawn yet */
    _Atomic uint64_t evicted, untracked;
    uint64_t zero[5];
} gbf_limit_header;

typedef struct {
    gbf_limit_header *header;
    gbf_limit_line *lines;
    uint64_t count; /* of the lines */
    uint64_t key[4];
} gbf_limits;

/* Bytes of a table for that many keys. */
GBF_INLINE uint64_t gbf_limits_nbytes(uint32_t capacity)
{
    return GBF_LIMIT_HEADER + ((uint64_t)capacity + GBF_LIMIT_WAYS - 1) / GBF_LIMIT_WAYS * sizeof(gbf_limit_line);
}

/* A view of `memory`, which has gbf_limits_nbytes(capacity) bytes, aligned to 64, zero or in use by others. The first one
 * leaves `seed` in it, which is random and not 0. */
void gbf_limits_open(gbf_limits *t, void *memory, uint32_t capacity, uint64_t seed);

/* GBF_BAD_INPUT for what is out of range: limit 1 to GBF_LIMIT_MAX_COUNT in 1 to GBF_LIMIT_MAX_MS; burst 0 (a window) to
 * limit. `name` is any hash of the limit's name. */
gbf_status gbf_limit_set(gbf_limit *out, uint64_t name, uint32_t limit, uint32_t window_ms, uint32_t burst,
                         gbf_fault *fault);

/* Does `step` for `cost` requests of a key (1..limit; more are as many) and says where it stands afterwards. */
void gbf_limit_do(gbf_limits *t, const gbf_limit *limit, gbf_limit_key key, gbf_limit_step step, uint32_t cost,
                  uint64_t now_ms, gbf_limit_answer *out);

#endif
