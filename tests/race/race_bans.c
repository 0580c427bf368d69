/* Threads that ban, lift, extend, purge, copy, look up and follow the change feed of one table, under TSan.
 *
 * Laws: a ban that nobody lifts is found by every look-up, while the index grows and chains change around it; a copy of a
 * ban is never made of two; a key that nobody bans is never found; whoever follows the feed, and reads all when it says so,
 * ends with the bans of the table. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "state/gbf_bans.h"

#define STEADY 300    /* keys banned for good from the start */
#define CHURN 5000    /* keys that come and go */
#define ROUNDS 120000 /* calls of each thread, enough to fill the ring of the feed twice */

static gbf_bans *table;
static _Atomic int writing = 2;

/* What a reader of the feed makes of it: bans by number of their key. */
typedef struct {
    gbf_ban ban[STEADY + CHURN]; /* kind 0 and key 0: none */
    uint64_t cursor;
    uint64_t lag; /* changes that it lets come before it reads */
    uint32_t limit, changes, rereads;
} follower;
static follower followers[3] = {{.limit = 1}, {.limit = 500}, {.limit = 500, .lag = GBF_FEED_SLOTS - 50}};

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
            gbf_bans_lift(table, &key, (uint8_t)(i % 100), now, &ban);
            break;
        case 1:
            gbf_bans_extend(table, &key, now + 4000, (uint8_t)(i % 100), now, &ban);
            break;
        case 2:
            gbf_bans_purge(table, now, 16, &more);
            break;
        default:
            if (gbf_bans_ban(table, &key, 1 + draw(&state) % 3000, &why, 1, now, &ban) != GBF_BAN_REFUSED)
                check(&ban);
        }
    }
    writing--;
    return NULL;
}

static void *read_some(void *seed)
{
    uint64_t state = (uintptr_t)seed;
    gbf_ban ban;
    for (uint32_t round = 0; round < 2 * ROUNDS; round++) {
        uint32_t i = 1 + draw(&state) % (STEADY - 1); /* AS 0 is none */
        gbf_addr address = gbf_addr_from4(UINT32_C(0x0A000000) + i);
        const gbf_ban_who who = {&address, NULL, NULL, i % 5 == 0 ? i : 0};
        if (!gbf_bans_find(table, &who, GBF_BAN_EPOCH + round, &ban)) {
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

/* Reads the whole table, as whoever begins or has missed something. */
static void read_all(follower *f)
{
    gbf_ban found[GBF_BANS_COPY];
    uint32_t at = 0, count;
    int more;
    memset(f->ban, 0, sizeof f->ban);
    f->rereads++;
    do {
        more = gbf_bans_copy(table, &at, found, &count, GBF_BAN_EPOCH);
        for (uint32_t i = 0; i < count; i++)
            f->ban[found[i].reason] = found[i];
    } while (more);
}

static void take_changes(follower *f)
{
    gbf_ban_change changes[500];
    for (;;) {
        uint64_t before = f->cursor;
        int32_t count = gbf_bans_changes(table, &f->cursor, changes, f->limit);
        if (count < 0)
            read_all(f);
        for (int32_t i = 0; i < count; i++) {
            const gbf_ban_change *change = &changes[i];
            gbf_ban_key key = key_of(change->ban.reason);
            check(&change->ban);
            if (change->sequence != before + (uint32_t)i + 1 || change->kind != GBF_FEED_BAN ||
                memcmp(key.word, change->ban.key.word, sizeof key.word) != 0 ||
                (change->event != GBF_EVENT_EVICT && change->maker != change->ban.by)) {
                fprintf(stderr, "change %lu is made of two\n", change->sequence);
                abort();
            }
            if (change->event == GBF_EVENT_ADD || change->event == GBF_EVENT_EXTEND)
                f->ban[change->ban.reason] = change->ban;
            else
                memset(&f->ban[change->ban.reason], 0, sizeof f->ban[0]);
        }
        f->changes += count > 0 ? (uint32_t)count : 0;
        if (count == 0)
            return;
    }
}

static void *follow_some(void *which)
{
    follower *f = &followers[(uintptr_t)which % 3];
    f->cursor = gbf_bans_follow(table);
    read_all(f);
    while (writing > 0) {
        if (gbf_bans_head(table) - f->cursor >= f->lag)
            take_changes(f);
        else
            sched_yield();
    }
    return NULL;
}

static void compare(follower *f)
{
    static gbf_ban found[GBF_BANS_COPY];
    const uint64_t now = GBF_BAN_EPOCH + ROUNDS; /* no writer was later, so what ends after it is there */
    uint32_t at = 0, count, copied = 0, followed = 0;
    int more;
    take_changes(f);
    do {
        more = gbf_bans_copy(table, &at, found, &count, now);
        copied += count;
        for (uint32_t i = 0; i < count; i++) {
            const gbf_ban *ban = &f->ban[found[i].reason];
            if (ban->expires != found[i].expires || ban->created != found[i].created || ban->by != found[i].by) {
                fprintf(stderr, "ban %u was followed until %lu, not %lu\n", found[i].reason, ban->expires,
                        found[i].expires);
                abort();
            }
        }
    } while (more);
    for (uint32_t i = 0; i < STEADY + CHURN; i++)
        followed += f->ban[i].expires > now;
    printf("followed %u changes, read all %u times, %u bans\n", f->changes, f->rereads, followed);
    if (followed != copied)
        abort();
}

int main(void)
{
    const gbf_bans_policy policy = {2, 0.1, 100000, 500, 7, 1};
    const uint64_t random[10] = {0x9E3779B97F4A7C15, 3, 0xBF58476D1CE4E5B9, 5, 0x94D049BB133111EB, 7, 11, 13, 17, 19};
    void *(*const jobs[])(void *) = {write_some, write_some,  read_some,   read_some,
                                     copy_some,  follow_some, follow_some, follow_some};
    pthread_t threads[8];
    gbf_ban ban;
    table = gbf_bans_new(STEADY + CHURN / 8, &policy, random); /* too small, so that bans are evicted */
    if (table == NULL)
        return 1;
    for (uint32_t i = 0; i < STEADY; i++) {
        gbf_ban why = why_of(i);
        gbf_bans_ban(table, &why.key, GBF_BAN_FOREVER, &why, 0, GBF_BAN_EPOCH, &ban);
    }
    gbf_bans_follow(table);
    for (uintptr_t i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, jobs[i], (void *)(i + 1));
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        compare(&followers[i]);
    gbf_bans_counts counts = gbf_bans_count(table);
    printf("added %lu, extended %lu, lifted %lu, ended %lu, evicted %lu, in force %u\n", counts.added, counts.extended,
           counts.lifted, counts.ended, counts.evicted, counts.active);
    gbf_bans_free(table);
    return 0;
}
