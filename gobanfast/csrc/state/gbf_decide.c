#include "state/gbf_decide.h"

#include <math.h>

static void track(const gbf_state *state, const gbf_decide_request *q, gbf_decide_answer *a)
{
    if (state->tracker == NULL || q->address == NULL || gbf_exempt_covers(state->exempt, *q->address, q->asn))
        return;
    gbf_tracker_answer found;
    uint32_t bits;
    gbf_addr client = gbf_addr_client(*q->address, state->ipv6_bits, &bits);
    uint64_t fingerprint = q->fingerprint == NULL ? 0 : q->fingerprint[1] | 1;
    (q->peek ? gbf_tracker_peek : gbf_tracker_note)(state->tracker, client, fingerprint, q->now_ms, &found);
    for (uint32_t trip = 0; trip < GBF_TRIPS; trip++) {
        if (!(found.tripped >> trip & 1))
            continue;
        if (state->trip_action[trip] == GBF_ALLOW)
            continue;
        if (a->trip == GBF_TRIPS || state->trip_action[trip] > state->trip_action[a->trip])
            a->trip = (uint8_t)trip;
    }
    a->trip_ban = a->trip != GBF_TRIPS && state->trip_action[a->trip] == GBF_BAN;
}

GBF_INLINE gbf_score_input input_of(const gbf_decide_request *q)
{
    gbf_score_input in = {.name = q->name, .host = q->host, .asn = q->asn, .added = q->added};
    in.present = (q->has_name ? GBF_SCORE_SNI : 0u) | (q->address != NULL ? GBF_SCORE_ASN : 0u);
    if (q->address != NULL)
        in.client = gbf_score_client(*q->address);
    if (q->fingerprint != NULL) {
        in.fingerprint = q->fingerprint[1];
        in.present |= GBF_SCORE_HEADER;
        if (q->shape != NULL) {
            in.shape = q->shape[1];
            in.present |= GBF_SCORE_SHAPE;
        }
    }
    return in;
}

static int score(const gbf_state *state, const gbf_decide_request *q, gbf_decide_answer *a)
{
    if (state->score == NULL)
        return 0;
    gbf_score_answer found;
    gbf_score_input in = input_of(q);
    (q->peek ? gbf_score_peek : gbf_score_rate)(state->score, &in, &found);
    a->score = (float)found.score;
    a->threshold = (float)found.threshold;
    a->coverage = (float)found.coverage;
    return found.flagged && state->score_enforced;
}

static void say(gbf_decide_answer *a, gbf_cause cause, uint8_t action)
{
    a->cause = (uint8_t)cause;
    a->action = action;
}

void gbf_decide_apply(const gbf_state *state, const gbf_decide_request *q, gbf_decide_answer *a)
{
    a->score = a->threshold = NAN;
    a->coverage = 0;
    a->trip = GBF_TRIPS;
    a->trip_ban = 0;
    if (q->decided && q->rule_action == GBF_ALLOW) {
        say(a, GBF_CAUSE_RULE, GBF_ALLOW);
        return;
    }
    const gbf_ban_who who = {q->address, q->fingerprint, q->uid, q->asn};
    if (gbf_bans_find(state->bans, &who, GBF_BAN_EPOCH + q->now_ms, &a->ban)) {
        say(a, a->ban.key.kind == GBF_BAN_EVERYONE ? GBF_CAUSE_OUTAGE : GBF_CAUSE_BAN, GBF_BAN);
        return;
    }
    track(state, q, a);
    if (q->decided)
        say(a, GBF_CAUSE_RULE, q->rule_action);
    else if (a->trip != GBF_TRIPS)
        say(a, GBF_CAUSE_TRACKER, state->trip_action[a->trip]);
    else if (q->unparsable)
        say(a, GBF_CAUSE_UNPARSABLE, q->policy);
    else if (score(state, q, a))
        say(a, GBF_CAUSE_SCORE, GBF_CHALLENGE);
    else
        say(a, GBF_CAUSE_NONE, GBF_ALLOW);
}

int gbf_decide_vouch(const gbf_state *state, const gbf_decide_request *q)
{
    if (state->score == NULL)
        return 0;
    gbf_score_input in = input_of(q);
    return gbf_score_vouch(state->score, &in);
}
