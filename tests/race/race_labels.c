/* Threads that label, unlabel, purge, copy and look up in one table, beside one that bans, under TSan.
 *
 * Laws: a label that nobody takes off is found by every look-up, while the index grows and entries move in it; no key is ever found
 * with a word that nobody gave it; a copy of a label is never made of two. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "state/gbf_labels.h"

#define STEADY 200
#define CHURN 4000
#define ROUNDS 200000

static gbf_bans *bans;
static gbf_labels *labels;

static gbf_ban_key key_of(uint32_t i)
{
    return i % 3 == 0 ? gbf_ban_session(i, 1, 2) : gbf_ban_prefix(gbf_addr_from4(UINT32_C(0x0A000000) + i), 128);
}

/* Everything in a label follows from its key, so that a mix of two shows. */
static gbf_ban label_of(uint32_t i, uint64_t now, uint64_t expires)
{
    return (gbf_ban){key_of(i), expires, now, 1, (uint16_t)i, (uint16_t)(1 + i % 4), (uint8_t)(i % 100)};
}

static void fail(const char *what, uint32_t i)
{
    fprintf(stderr, "%s: %u\n", what, i);
    abort();
}

static uint32_t draw(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(*state >> 33);
}

static void *write_some(void *seed)
{
    uint64_t state = (uintptr_t)seed;
    gbf_ban out;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t i = STEADY + draw(&state) % (1 + round % CHURN), at = 0;
        uint64_t now = GBF_BAN_EPOCH + round;
        gbf_ban_key key = key_of(i);
        gbf_ban label = label_of(i, now, now + 1 + draw(&state) % 3000);
        switch (draw(&state) % 6) {
        case 0:
            gbf_labels_lift(labels, &key, label.rule, label.by, now, &out);
            break;
        case 1:
            gbf_labels_purge(labels, &at, now, 16);
            break;
        case 2:
            gbf_bans_ban(bans, &key, 1000, &label, 0, now, &out);
            break;
        default:
            gbf_labels_put(labels, &label, label.by, now, &out);
        }
    }
    return NULL;
}

static void *read_some(void *seed)
{
    const gbf_label_words words = {{1, 2, 3, 4}, 4};
    uint64_t state = (uintptr_t)seed, own;
    for (uint32_t round = 0; round < 2 * ROUNDS; round++) {
        uint32_t i = draw(&state) % STEADY, k = STEADY + draw(&state) % CHURN;
        gbf_ban_key key = key_of(i);
        gbf_addr address = gbf_addr_from4(UINT32_C(0x0A000000) + i);
        const gbf_ban_who who = {&address, NULL, NULL, 0};
        if (gbf_labels_of(labels, &key, &words, GBF_BAN_EPOCH + round) != UINT64_C(1) << i % 4)
            fail("a label was not found", i);
        if (i % 3 != 0 && gbf_labels_find(labels, &who, &words, GBF_BAN_EPOCH + round, &own) != UINT64_C(1) << i % 4)
            fail("a label of a request was not found", i);
        key = key_of(k);
        if (gbf_labels_of(labels, &key, &words, 0) & ~(UINT64_C(1) << k % 4))
            fail("a word that nobody gave", k);
    }
    return NULL;
}

static void *copy_some(void *ignored)
{
    static gbf_ban found[GBF_BANS_COPY];
    (void)ignored;
    for (uint32_t round = 0; round < ROUNDS / 500; round++) {
        uint32_t cursor = 0, count, steady = 0;
        int more;
        do {
            more = gbf_labels_copy(labels, &cursor, found, &count, GBF_BAN_EPOCH);
            for (uint32_t i = 0; i < count; i++) {
                gbf_ban_key key = key_of(found[i].reason);
                if (memcmp(key.word, found[i].key.word, sizeof key.word) != 0 ||
                    found[i].rule != 1 + found[i].reason % 4)
                    fail("a label made of two", found[i].reason);
                steady += found[i].expires == GBF_BAN_FOREVER;
            }
        } while (more);
        if (steady != STEADY)
            fail("labels for good that were copied", steady);
    }
    return NULL;
}

int main(void)
{
    const gbf_bans_policy policy = {1, 0, 0, 0, 7, 1};
    const uint64_t random[10] = {0x9E3779B97F4A7C15, 3, 0xBF58476D1CE4E5B9, 5, 0x94D049BB133111EB, 7, 11, 13, 17, 19};
    void *(*const jobs[])(void *) = {write_some, write_some, read_some, read_some, copy_some};
    pthread_t threads[5];
    gbf_ban out;
    bans = gbf_bans_new(1000, &policy, random);
    labels = bans == NULL ? NULL : gbf_labels_new(bans, STEADY + CHURN / 2);
    if (labels == NULL)
        return 1;
    gbf_bans_follow(bans);
    for (uint32_t i = 0; i < STEADY; i++) {
        gbf_ban label = label_of(i, GBF_BAN_EPOCH, GBF_BAN_FOREVER);
        gbf_labels_put(labels, &label, 0, GBF_BAN_EPOCH, &out);
    }
    for (uintptr_t i = 0; i < 5; i++)
        pthread_create(&threads[i], NULL, jobs[i], (void *)(i + 1));
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    gbf_labels_counts counts = gbf_labels_count(labels);
    printf("added %lu, extended %lu, lifted %lu, ended %lu, refused %lu, stored %u\n", counts.added, counts.extended,
           counts.lifted, counts.ended, counts.refused, counts.active);
    gbf_labels_free(labels);
    gbf_bans_free(bans);
    return 0;
}
