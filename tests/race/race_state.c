/* Threads that note and peek, rate and read statistics: under TSan no access races, and no request is lost. Locks that
 * nobody will open, as a forked child may find them, are opened and what they guarded is cleared. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "state/gbf_score.h"
#include "state/gbf_tracker.h"

#define THREADS 4
#define ROUNDS 16000u

static gbf_tracker tracker;
static gbf_score *score;

static int mended(void)
{
    gbf_tracker_stats before, after;
    gbf_tracker_read_stats(&tracker, &before);
    for (uint64_t i = 0; i < tracker.set_count / 2; i++)
        gbf_lock_take(&tracker.sets[i].lock);
    gbf_lock_take(&score->scopes[7].lock);
    gbf_tracker_mend(&tracker);
    gbf_score_mend(score);
    gbf_tracker_read_stats(&tracker, &after);
    return after.clients > 0 && after.clients < before.clients && score->scopes[7].window.count == 0 &&
           score->scopes[8].window.count > 0 && gbf_lock_try(&score->scopes[7].lock);
}

static void *work(void *argument)
{
    uint64_t x = *(const uint64_t *)argument;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        gbf_tracker_answer noted;
        gbf_score_answer rated;
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        gbf_addr client = gbf_addr_from4((uint32_t)(x % 200));
        gbf_tracker_note(&tracker, client, x >> 60, 1000 + i, &noted);
        gbf_tracker_note(&tracker, gbf_addr_from4(999), 0, 1000, &noted); /* the one that is counted */
        gbf_score_input request = {.name = x % 50,
                                   .fingerprint = x % 999,
                                   .shape = x % 77,
                                   .host = x % 64,
                                   .client = x % 300,
                                   .asn = (uint32_t)(x % 9),
                                   .present = GBF_SCORE_SNI | GBF_SCORE_HEADER | GBF_SCORE_SHAPE | GBF_SCORE_ASN};
        gbf_score_rate(score, &request, &rated);
        if (i % 8 == 0) {
            gbf_score_vouch(score, &request);
            gbf_tracker_peek(&tracker, client, 1, 1000 + i, &noted);
            gbf_score_peek(score, &request, &rated);
        }
        if (i % 1024 == 0) {
            gbf_tracker_stats stats;
            gbf_tracker_read_stats(&tracker, &stats);
            gbf_tracker_forget(&tracker, gbf_addr_from4(5));
        }
    }
    return NULL;
}

int main(void)
{
    static const uint8_t key[32] = "thirty-two bytes, random enough."; /* no terminator */
    gbf_tracker_limits limits = {2048, 50, 60000, 65000, 3600000, 300, 100, 600000};
    gbf_score_rules rules = {
        {0.4, 0.35, 0.25}, {300, 95, 0.05, 0, 0, 100, 0.6, 0.8, 0.001}, 1, 0.25, NULL, 0,
    };
    gbf_fault fault;
    if (gbf_tracker_open(&tracker, &limits, key, &fault) != GBF_OK || (score = gbf_score_new(&rules, key)) == NULL)
        return 1;
    pthread_t threads[THREADS];
    uint64_t seeds[THREADS];
    for (int i = 0; i < THREADS; i++) {
        seeds[i] = (uint64_t)i * 7919 + 1;
        if (pthread_create(&threads[i], NULL, work, &seeds[i]) != 0)
            return 1;
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    gbf_tracker_answer answer;
    gbf_tracker_peek(&tracker, gbf_addr_from4(999), 0, 1000, &answer);
    uint32_t expected = THREADS * ROUNDS < GBF_TRACKER_MAX_COUNT ? THREADS * ROUNDS + 1 : GBF_TRACKER_MAX_COUNT;
    int whole = mended();
    printf("race_state: %u of %u requests counted\n", answer.requests, expected);
    gbf_tracker_close(&tracker);
    gbf_score_free(score);
    return answer.requests != expected || !whole;
}
