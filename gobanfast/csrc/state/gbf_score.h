/* The score of a request: how surprising its name, its fingerprint and its shape are, how risky its origin AS; and the
 * threshold above which it is challenged. The formula, the guards and their bounds: DESIGN.md, "Score".
 *
 * Answers depend on the key and on the requests before, never on a clock: the same requests replayed give the same
 * answers. Threads: any number may call; one lock per window, counts are relaxed atomics. Fork: gbf_score_mend. */
#ifndef GBF_SCORE_H
#define GBF_SCORE_H

#include "address/gbf_addr.h"
#include "base/gbf_lock.h"
#include "state/gbf_learned.h"
#include "state/gbf_sketch.h"
#include "state/gbf_window.h"

#define GBF_SCORE_SCOPES 64u /* windows, when hosts have their own; more hosts than that share */

enum {
    GBF_SCORE_SNI = 1,
    GBF_SCORE_HEADER = 2,
    GBF_SCORE_ASN = 4,
    GBF_SCORE_SHAPE = 8, /* beside GBF_SCORE_HEADER */
};

typedef struct {
    uint32_t first, last; /* inclusive AS numbers */
    double risk;
} gbf_asn_risk;

typedef struct {
    double weight[3]; /* of name, headers, AS; their sum is 1 */
    gbf_window_rules window;
    uint32_t per_host; /* 1: a window for each host, 0: one for all */
    double unknown_asn;
    const gbf_asn_risk *risks; /* ascending, disjoint; copied */
    uint32_t risk_count;
} gbf_score_rules;

typedef struct {
    uint64_t name;        /* any hash of the server name; matters where `present` has GBF_SCORE_SNI */
    uint64_t fingerprint; /* the same for GBF_SCORE_HEADER */
    uint64_t shape;       /* the same for GBF_SCORE_SHAPE */
    uint64_t host;        /* a hash of the host whose window it is; per_host only */
    uint64_t client;      /* whose request it is, see gbf_score_client; all that are not known are one */
    uint32_t asn;         /* origin AS, 0: none known; GBF_SCORE_ASN */
    uint32_t present;     /* GBF_SCORE_* */
    double added;         /* what rules add to the score, 0 or more; it is held against the threshold and not learned */
} gbf_score_input;

typedef struct {
    double score;     /* 0..1, with what was added; 0 when nothing is present or added */
    double threshold; /* NaN while the window is cold */
    double coverage;  /* sum of the weights present, 0..1 */
    double part[3];   /* name, headers, AS; NaN where absent */
    uint32_t flagged; /* 1: score >= threshold */
} gbf_score_answer;

typedef struct {
    gbf_lock lock;
    gbf_window window;
} gbf_score_scope;

typedef struct {
    gbf_sketch names, fingerprints, shapes;
    gbf_learned learned;
    double weight[3], unknown_asn;
    gbf_window_rules rules;
    uint64_t key[4];
    gbf_score_scope *scopes;
    uint32_t scope_count, risk_count;
    gbf_asn_risk *risks;
    uint64_t nbytes;
} gbf_score;

/* A score with all its memory, or NULL. `key` is 32 random bytes, or fixed ones for replay. The rules were checked. */
gbf_score *gbf_score_new(const gbf_score_rules *rules, const uint8_t key[32]);
void gbf_score_free(gbf_score *s);

/* Whom the request of an address is learned from: an IPv4 client itself, of IPv6 the /48, which is what one customer gets
 * at most (RFC 6177), so that nobody has 65,536 clients for the asking. */
GBF_INLINE uint64_t gbf_score_client(gbf_addr address)
{
    uint32_t address4 = 0;
    if (gbf_addr_is4(address))
        return address.low;
    return gbf_addr_embedded4(address, &address4) ? gbf_addr_from4(address4).low
                                                  : address.high >> 16 | UINT64_C(1) << 63;
}

/* Scores one request, and learns from it unless it is flagged, or more than a fair share was learned from its client. */
void gbf_score_rate(gbf_score *s, const gbf_score_input *in, gbf_score_answer *out);

/* Learns from a request that rate flagged as from one that it did not, because it was vouched for since. 1 when it did;
 * 0 when rate had learned it, or there is nothing to learn. */
int gbf_score_vouch(gbf_score *s, const gbf_score_input *in);

/* What rate would answer; changes nothing. */
void gbf_score_peek(gbf_score *s, const gbf_score_input *in, gbf_score_answer *out);

/* The risk of an AS: its entry, or the prior of all others. */
double gbf_score_risk(const gbf_score *s, uint32_t asn);

/* In a child after a fork: a window whose lock another thread held at that moment may be half changed, and that thread is
 * gone. Such a window begins anew, cold, and its lock is opened. */
void gbf_score_mend(gbf_score *s);

#endif
