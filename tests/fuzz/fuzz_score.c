/* Whatever is rated, a guarded window is what recounting its scores says, a threshold stays inside its bounds, and a peek
 * says what the rating after it says.
 *
 * Input: rules, then requests of (what is present, name, fingerprint, AS). */
#include <math.h>

#include "fuzz.h"
#include "state/gbf_score.h"

static void recount(const gbf_window *w, const gbf_window_rules *rules)
{
    const uint16_t *ring = w->ring;
    uint32_t below = 0, at = 0;
    uint64_t sum = 0, squares = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        below += ring[i] < w->at;
        at += ring[i] == w->at;
        sum += ring[i];
        squares += (uint64_t)ring[i] * ring[i];
    }
    must(sum == w->sum && squares == w->squares && w->count <= rules->window);
    must(w->count == 0 || (below == w->below && at == w->counts[w->at] && below <= w->low && w->low < below + at));
}

static void recount_learned(const gbf_learned *learned)
{
    uint32_t total = 0, used = 0;
    for (uint32_t i = 0; i < GBF_LEARNED_CELLS; i++) {
        total += learned->cell[i];
        used += learned->cell[i] != 0;
    }
    must(total == learned->total && used == learned->used && total < GBF_LEARNED_TOTAL + 64);
}

static int same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const uint8_t key[32] = "thirty-two bytes, random enough."; /* no terminator */
    static const gbf_asn_risk risks[] = {{1, 3, 0.9}, {7, 7, 0}, {9, UINT32_MAX, 1}};
    input in = {data, data + nbytes};
    uint32_t choice = take(&in, 1);
    gbf_score_rules rules = {
        {0.4, 0.35, 0.25},
        {1 + take(&in, 1), take(&in, 1) % 101, 0.05, choice & 1, choice >> 1 & 1, 1 + take(&in, 1) % 40, 0.2, 0.9,
         0.01},
        choice >> 2 & 1,
        0.25,
        risks,
        3,
    };
    gbf_score *s = gbf_score_new(&rules, key);
    if (s == NULL)
        return 0;
    while (in.at < in.end) {
        gbf_score_input request = {.name = take(&in, 1), .fingerprint = take(&in, 1), .host = take(&in, 1) % 4};
        request.shape = take(&in, 1) % 16;
        request.client = request.fingerprint % 5;
        request.asn = take(&in, 1) % 12;
        request.present = take(&in, 1) % 16;
        request.added = choice >> 3 & 1 ? take(&in, 1) % 16 / 8.0 : 0;
        gbf_score_answer peeked, answer;
        gbf_score_peek(s, &request, &peeked);
        gbf_score_rate(s, &request, &answer);
        must(same(peeked.threshold, answer.threshold) && peeked.score == answer.score);
        must(peeked.flagged == answer.flagged && answer.score >= 0 && answer.score <= 1 && answer.coverage <= 1);
        must(rules.window.naive || isnan(answer.threshold) || (answer.threshold >= 0.2 && answer.threshold <= 0.9));
        must(!isnan(answer.threshold) || !answer.flagged);
        if (answer.flagged && request.asn % 2)
            must(gbf_score_vouch(s, &request) ==
                 (!rules.window.naive && !rules.window.learn_all && answer.coverage > 0));
    }
    for (uint32_t i = 0; i < s->scope_count && !rules.window.naive; i++)
        recount(&s->scopes[i].window, &rules.window);
    recount_learned(&s->learned);
    gbf_score_free(s);
    return 0;
}
