/* The live half of a decision: what the rules said is held against bans, trackers and score, in one fixed order.
 *
 *   1. an `allow` rule decides          not tracked, not scored
 *   2. a ban on any key of the request  not tracked, not scored; while the table is closed everyone is banned
 *   3. a rule                           tracked
 *   4. a tracker
 *   5. a signal that cannot be read     policy `unparsable`
 *   6. the score, at or above its threshold: a challenge
 *   7. otherwise the request may come in
 *
 * Source: DESIGN.md, "What decides". */
#ifndef GBF_DECIDE_H
#define GBF_DECIDE_H

#include "state/gbf_bans.h"
#include "state/gbf_exempt.h"
#include "state/gbf_score.h"
#include "state/gbf_tracker.h"

/* The live state of an engine. NULL: that part is off. All of it outlives the calls. */
typedef struct {
    gbf_bans *bans;
    gbf_tracker *tracker;
    const gbf_exempt *exempt; /* whom trackers leave alone */
    gbf_score *score;
    uint32_t ipv6_bits;             /* what counts as one IPv6 client */
    uint8_t trip_action[GBF_TRIPS]; /* gbf_action when that trips */
    uint8_t print_bans;             /* 1: some rule bans fingerprints */
    uint8_t score_enforced;         /* 0: scored, and never challenged */
} gbf_state;

/* One request, and what the rules said of it. */
typedef struct {
    const gbf_addr *address;     /* NULL: not known, or not an address */
    const uint64_t *fingerprint; /* two words; NULL: not known */
    const uint64_t *shape;       /* two words, beside a fingerprint; NULL: not known; the score reads it */
    const gbf_ban_key *uid;      /* NULL: nobody is known to be logged in */
    uint64_t name;               /* hash of the server name, if has_name */
    uint64_t host;               /* hash of the host whose scores it belongs to */
    uint64_t now_ms;             /* engine time */
    double added;                /* what `log` rules that match add to the score */
    uint32_t asn;                /* 0: not known */
    uint8_t has_name;
    uint8_t decided;     /* 1: a rule decided, with rule_action */
    uint8_t rule_action; /* gbf_action */
    uint8_t unparsable;  /* 1: a signal that rules require cannot be read */
    uint8_t policy;      /* gbf_action then */
    uint8_t peek;        /* 1: change nothing */
} gbf_decide_request;

typedef struct {
    gbf_ban ban;                      /* cause GBF_CAUSE_BAN: the one that holds */
    float score, threshold, coverage; /* NaN: not scored, no threshold yet */
    uint8_t action, cause;
    uint8_t trip;     /* index of the limit that tripped, of those with the hardest action; GBF_TRIPS: none */
    uint8_t trip_ban; /* 1: the client is to be banned for it, whatever decided this request */
} gbf_decide_answer;

/* 1 when no part of it would change any answer. */
GBF_INLINE int gbf_decide_idle(const gbf_state *state)
{
    return state->tracker == NULL && state->score == NULL &&
           atomic_load_explicit(&state->bans->lengths4, memory_order_relaxed) == 0;
}

/* 1 when some part of it asks for the fingerprint. */
GBF_INLINE int gbf_decide_uses_fingerprint(const gbf_state *state)
{
    const uint64_t kinds = GBF_BANS_FINGERPRINT | 15 * GBF_BANS_FINGERPRINT_AT4;
    return state->tracker != NULL || state->score != NULL || state->print_bans ||
           (atomic_load_explicit(&state->bans->lengths4, memory_order_relaxed) & kinds) != 0;
}

void gbf_decide_apply(const gbf_state *state, const gbf_decide_request *request, gbf_decide_answer *answer);

/* Says that the client of a request which the score challenged has passed; reads of it what the score does. 1 when the
 * score learned from it. */
int gbf_decide_vouch(const gbf_state *state, const gbf_decide_request *request);

#endif
