/* Trackers: sliding windows per client, in memory that is fixed at creation. Layout, bounds and the reasons for
 * both: DESIGN.md, "Trackers".
 *
 * One entry per client counts over windows: distinct fingerprints in a sliding window (exact up to the limit), requests
 * in a window, and requests now against a baseline. Entries lie in sets of eight; a client's set is chosen by a keyed
 * hash, so nobody can aim at one. A set that is full forgets the entry that used up least of its limits, and never one
 * that used up half; what it forgets or cannot admit goes into the set's tail, which never counts too little. So
 *
 *   answer.distinct <= the true number of distinct fingerprints <= answer.distinct_most, as long as below the limit,
 *
 * and the same for requests. Clients are keys: the caller masks addresses to the prefix that counts as one client, and
 * does not ask about exempt ones. Times are milliseconds of one clock; a time before the client's last counts as that.
 *
 * Threads: any number may call note and peek; one lock per set. Fork: see gbf_tracker_mend. */
#ifndef GBF_TRACKER_H
#define GBF_TRACKER_H

#include "address/gbf_addr.h"
#include "base/gbf_lock.h"

#define GBF_TRACKER_WAYS 8u
#define GBF_TRACKER_CELLS 62u         /* of a tail, per epoch; with the epoch they fill four cache lines */
#define GBF_TRACKER_RATE_BUCKETS 16u  /* a window has so many */
#define GBF_TRACKER_SURGE_BUCKETS 44u /* 40 of the baseline, then 4 of now */
#define GBF_TRACKER_SURGE_NOW 4u
#define GBF_TRACKER_MAX_COUNT 65535u /* what a bucket counts to */
#define GBF_TRACKER_MAX_DISTINCT 1025u
#define GBF_TRACKER_MAX_MS UINT32_C(86400000) /* the longest window or baseline: a day */
#define GBF_TRACKER_MAX_DISTINCT_MS UINT32_C(3600000)

/* What to count. A limit is the count that trips, one more than what is let in; zero turns that count off. */
typedef struct {
    uint32_t capacity;           /* clients; rounded up to whole sets */
    uint32_t distinct_limit;     /* 2..GBF_TRACKER_MAX_DISTINCT */
    uint32_t distinct_window_ms; /* up to an hour */
    uint32_t rate_limit;         /* 2..GBF_TRACKER_MAX_COUNT */
    uint32_t rate_window_ms;
    uint32_t surge_percent; /* over this much of the baseline */
    uint32_t surge_min;     /* and at least so many requests, per tenth of the baseline; 0: off */
    uint32_t surge_baseline_ms;
} gbf_tracker_limits;

#define GBF_TRIPPED(trip) (1u << (trip)) /* the bit of a gbf_trip */

typedef struct {
    uint32_t tripped; /* GBF_TRIPPED(trip) for each */
    uint32_t tracked; /* 1: the client has an entry */
    uint32_t distinct, distinct_most;
    uint32_t requests, requests_most;
    uint32_t surge_now;  /* requests in the last tenth of a baseline */
    uint32_t surge_base; /* requests in the baseline before that; 0 until it is known whole */
} gbf_tracker_answer;

typedef struct {
    uint64_t clients;  /* entries in use, idle ones too */
    uint64_t admitted; /* clients that got an entry */
    uint64_t evicted;  /* entries given away that were not idle */
    uint64_t refused;  /* requests of clients that got none */
    uint64_t unsure;   /* answers with GBF_TRIPPED(GBF_TRIP_UNSURE) */
} gbf_tracker_stats;

/* One cache line: all that a lookup needs before the entry, and all that chooses whom to forget. */
typedef struct {
    uint32_t tag[GBF_TRACKER_WAYS];     /* low half of the client's hash; 0: empty */
    uint16_t touched[GBF_TRACKER_WAYS]; /* when it was last seen, in ticks */
    uint8_t standing[GBF_TRACKER_WAYS]; /* how much of a limit it has used up; 255: all */
    gbf_lock lock;                      /* of set, entries and tail */
    uint32_t unused;
} gbf_tracker_set;

typedef struct {
    uint64_t epoch; /* of `now`; `before` holds the one before */
    uint16_t now[GBF_TRACKER_CELLS], before[GBF_TRACKER_CELLS];
} gbf_tracker_tail;

typedef struct {
    gbf_tracker_limits limits;
    uint64_t key[4];
    uint64_t set_count;
    uint64_t nbytes;
    void *memory; /* what the next three lie in */
    gbf_tracker_set *sets;
    gbf_tracker_tail *tails;
    uint8_t *entries; /* of `entry_bytes` each, GBF_TRACKER_WAYS a set */
    uint32_t entry_bytes, rate_at, surge_at, slots_at;
    uint32_t rate_bucket_ms, surge_bucket_ms;
    uint32_t horizon_ms; /* the longest window: what is older says nothing */
    uint32_t tick_shift; /* a tick is 2^tick_shift ms, between 1/1024 and 1/512 of the horizon */
    uint32_t distinct_scale, rate_scale, surge_scale, most_scale; /* 2^16ths of standing per unit */
    _Atomic uint64_t admitted, evicted, refused, unsure;
} gbf_tracker;

/* Allocates everything at once and touches every page. `key` is 32 random bytes, or fixed ones for replay.
 * GBF_BAD_INPUT when a limit is out of range or none is on. Close with gbf_tracker_close. */
gbf_status gbf_tracker_open(gbf_tracker *t, const gbf_tracker_limits *limits, const uint8_t key[32], gbf_fault *fault);
void gbf_tracker_close(gbf_tracker *t);

/* Counts one request of `client`. `fingerprint` is any 64-bit hash of it, 0 when there is none. */
void gbf_tracker_note(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms, gbf_tracker_answer *out);

/* What `note` would answer, `tracked` excepted (it says what is, not what would be); changes nothing. */
void gbf_tracker_peek(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms, gbf_tracker_answer *out);

/* Forgets what a client did, as far as its own entry knows. 1 when it had one. */
int gbf_tracker_forget(gbf_tracker *t, gbf_addr client);

void gbf_tracker_read_stats(gbf_tracker *t, gbf_tracker_stats *out);

/* In a child after a fork: a set whose lock another thread held at that moment may be half changed, and that thread is
 * gone. Such a set is emptied and its lock opened. */
void gbf_tracker_mend(gbf_tracker *t);

#endif
