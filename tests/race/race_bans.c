/* Threads that ban, lift, extend, purge, copy and look up in one table, under TSan.
 *
 * Laws: a ban that nobody lifts is found by every look-up, while the index grows and chains change around it; a copy of a
 * ban is never made of two; a key that nobody bans is never found. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "state/gbf_bans.h"

#define STEADY 300   /* keys banned for good from the start */
#define CHURN 5000   /* keys that come and go */
#define ROUNDS 60000 /* calls of each thread */

static gbf_bans *table;

static gbf_ban_key key_of(uint32_t i)
{
    return i % 5 == 0 ? gbf_ban_asn(i) : gbf_ban_prefix(gbf_addr_from4(UINT32_C(0x0A000000) + i), 128);
}

/* Everything in a ban follows from its key, so that a mix of two shows. */
static gbf_ban why_of(uint32_t i)
{
    return (gbf_ban){key_of(i), 0, 0, 1, (uint16_t)i, (uint16_t)(i * 3), (uint8_t)(i % 100)};
}

static void check(const gbf_ban *ban)
{
    if (ban->rule != (uint16_t)(ban->reason * 3) || ban->by != ban->reason % 100 ||
        (ban->expires != GBF_BAN_FOREVER && ban->expires <= ban->created)) {
        fprintf(stderr, "a ban made of two: reason %u, rule %u, by %u\n", ban->reason, ban->rule, ban->by);
        abort();
    }
}

static uint32_t draw(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(*state >> 33);
}

static void *write_some(void *seed)
{
    uint64_t state = (uintptr_t)seed;
    gbf_ban ban;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t i = STEADY + draw(&state) % CHURN;
        uint64_t now = GBF_BAN_EPOCH + round;
        gbf_ban_key key = key_of(i);
        gbf_ban why = why_of(i);
        int more;
        switch (draw(&state) % 8) {
        case 0:
            gbf_bans_lift(table, &key, now, &ban);
            break;
        case 1:
            gbf_bans_extend(table, &key, now + 4000, now, &ban);
            break;
        case 2:
            gbf_bans_purge(table, now, 16, &more);
            break;
        default:
            if (gbf_bans_ban(table, &key, 1 + draw(&state) % 3000, &why, 1, now, &ban) != GBF_BAN_REFUSED)
                check(&ban);
        }
    }
    return NULL;
}

static void *read_some(void *seed)
{
    uint64_t state = (uintptr_t)seed;
    gbf_ban ban;
    for (uint32_t round = 0; round < 2 * ROUNDS; round++) {
        uint32_t i = 1 + draw(&state) % (STEADY - 1); /* AS 0 is none */
        gbf_addr address = gbf_addr_from4(UINT32_C(0x0A000000) + i);
        if (!gbf_bans_find(table, &address, i % 5 == 0 ? i : 0, NULL, GBF_BAN_EPOCH + round, &ban)) {
            fprintf(stderr, "ban %u was not found\n", i);
            abort();
        }
        check(&ban);
        gbf_ban_key key = key_of(STEADY + draw(&state) % CHURN);
        if (gbf_bans_get(table, &key, GBF_BAN_EPOCH + round, &ban)) {
            check(&ban);
            if (memcmp(&ban.key.word, &key.word, sizeof key.word) != 0)
                abort();
        }
        key = gbf_ban_asn(1000000 + draw(&state));
        if (gbf_bans_get(table, &key, GBF_BAN_EPOCH, &ban))
            abort();
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
            more = gbf_bans_copy(table, &cursor, found, &count, GBF_BAN_EPOCH);
            for (uint32_t i = 0; i < count; i++) {
                check(&found[i]);
                steady += found[i].expires == GBF_BAN_FOREVER;
            }
        } while (more);
        if (steady != STEADY) {
            fprintf(stderr, "%u bans for good were copied, not %u\n", steady, STEADY);
            abort();
        }
    }
    return NULL;
}

int main(void)
{
    const gbf_bans_policy policy = {2, 0.1, 100000, 500, 7, 1};
    const uint64_t random[10] = {0x9E3779B97F4A7C15, 3, 0xBF58476D1CE4E5B9, 5, 0x94D049BB133111EB, 7, 11, 13, 17, 19};
    void *(*const jobs[])(void *) = {write_some, write_some, read_some, read_some, copy_some};
    pthread_t threads[5];
    gbf_ban ban;
    table = gbf_bans_new(STEADY + CHURN / 8, &policy, random); /* too small, so that bans are evicted */
    if (table == NULL)
        return 1;
    for (uint32_t i = 0; i < STEADY; i++) {
        gbf_ban why = why_of(i);
        gbf_bans_ban(table, &why.key, GBF_BAN_FOREVER, &why, 0, GBF_BAN_EPOCH, &ban);
    }
    for (uintptr_t i = 0; i < 5; i++)
        pthread_create(&threads[i], NULL, jobs[i], (void *)(i + 1));
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    gbf_bans_counts counts = gbf_bans_count(table);
    printf("added %lu, extended %lu, lifted %lu, ended %lu, evicted %lu, in force %u\n", counts.added, counts.extended,
           counts.lifted, counts.ended, counts.evicted, counts.active);
    gbf_bans_free(table);
    return 0;
}
