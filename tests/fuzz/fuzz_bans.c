/* A table of bans and a list that is searched from end to end agree, whatever is called in whatever order.
 *
 * So do the change feed and a list of what happened. Two readers follow it, one after each call and one at the end.
 *
 * Input: capacity, policy and secret, then calls. Keys are few, so that they meet; the secret is the input's, so that
 * chains and overflow buckets are reached, which a random secret would take very long to do. */
#include "fuzz.h"
#include "state/gbf_bans.h"

#define KEYS 256

typedef struct {
    int known; /* 1: banned or remembered */
    gbf_ban ban;
} slot;

typedef struct {
    gbf_ban_key keys[KEYS];
    uint32_t first[KEYS]; /* of the equal keys that key_at makes */
    slot slots[KEYS];
    gbf_bans_policy policy;
    uint32_t capacity;
    uint64_t cursor;     /* of the reader that follows every call */
    slot followed[KEYS]; /* what the other one has made of the feed */
    uint64_t slow_cursor;
} model;

static gbf_ban_key key_at(uint32_t i)
{
    uint64_t fingerprint[2] = {i / 8, 7};
    gbf_addr six = {UINT64_C(0x20010DB800000000) | (uint64_t)(i / 8) << 8, i / 64};
    switch (i % 8) {
    case 0:
        return gbf_ban_prefix(gbf_addr_from4(UINT32_C(0x0A000000) + i), 128);
    case 1:
        return gbf_ban_prefix(gbf_addr_masked(gbf_addr_from4(i << 8), 96 + i % 33), 96 + i % 33);
    case 2:
        return gbf_ban_prefix(gbf_addr_masked(six, i % 129), i % 129);
    case 3:
        return gbf_ban_client(six, 64);
    case 4:
        return gbf_ban_asn(i);
    case 5:
        return gbf_ban_fingerprint(fingerprint);
    case 6:
        return gbf_ban_fingerprint_at(fingerprint, gbf_addr_from4(i / 64), 64);
    default:
        return gbf_ban_fingerprint_at(fingerprint, six, 64 - 8 * (i / 8 % 3));
    }
}

static int same_key(const gbf_ban_key *a, const gbf_ban_key *b)
{
    return a->kind == b->kind && memcmp(a->word, b->word, sizeof a->word) == 0;
}

static int holds(const slot *s, uint64_t now)
{
    return s->known && s->ban.expires > now;
}

static int same(const gbf_ban *a, const gbf_ban *b)
{
    return same_key(&a->key, &b->key) && a->expires == b->expires && a->created == b->created && a->count == b->count &&
           a->reason == b->reason && a->rule == b->rule && a->by == b->by;
}

static void check(int fine)
{
    if (!fine)
        abort();
}

/* Forgets what is over; what the table forgot or evicted to make room must be of the right kind. */
static void age(model *m, uint64_t now)
{
    for (uint32_t i = 0; i < KEYS; i++) {
        slot *s = &m->slots[i];
        if (s->known && s->ban.expires <= now && s->ban.expires + m->policy.memory_ms <= now)
            s->known = 0;
    }
}

static uint32_t count(const model *m, uint64_t now)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < KEYS; i++)
        found += (uint32_t)holds(&m->slots[i], now);
    return found;
}

/* A new ban of key i found a full table: makes the model follow what the policy allows, and nothing else. Returns the number
 * of the ban that was evicted, or -1. */
static int make_room(model *m, gbf_bans *t, uint32_t i, uint64_t expires, uint64_t now, gbf_ban_outcome outcome)
{
    uint64_t soonest = UINT64_MAX;
    gbf_ban ignored;
    int gone = -1;
    for (uint32_t k = 0; k < KEYS; k++) {
        if (k == i || !holds(&m->slots[k], now))
            continue;
        if (m->slots[k].ban.expires < soonest)
            soonest = m->slots[k].ban.expires;
        if (!gbf_bans_get(t, &m->keys[k], now, &ignored)) {
            check(gone < 0);
            gone = (int)k;
        }
    }
    if (gone >= 0) {
        check(m->policy.evict && count(m, now) == m->capacity && m->slots[gone].ban.expires == soonest &&
              soonest < expires && outcome == GBF_BAN_ADDED);
        m->slots[gone].known = 0;
    } else if (outcome == GBF_BAN_REFUSED) {
        check(count(m, now) == m->capacity && !(m->policy.evict && soonest < expires));
    }
    return gone;
}

static uint32_t number_of(const model *m, const gbf_ban_key *key)
{
    uint32_t k = 0;
    while (k < KEYS && !same_key(&m->keys[k], key))
        k++;
    check(k < KEYS);
    return k;
}

/* One call has made these changes and no others: at most an eviction, and `event` (GBF_EVENT_NONE: none) of `ban`. */
static void expect(model *m, gbf_bans *t, int event, const gbf_ban *ban, uint8_t maker, uint64_t now,
                   const gbf_ban *evicted)
{
    gbf_ban_change changes[4];
    uint64_t cursor = m->cursor;
    int32_t count = gbf_bans_changes(t, &m->cursor, changes, 4), at = 0;
    check(count == (evicted != NULL) + (event != 0) && m->cursor == cursor + (uint32_t)count);
    if (evicted != NULL) {
        check(changes[0].event == GBF_EVENT_EVICT && same(&changes[0].ban, evicted));
        at = 1;
    }
    if (event != 0)
        check(changes[at].event == event && same(&changes[at].ban, ban));
    for (int32_t i = 0; i < count; i++)
        check(changes[i].maker == maker && changes[i].at == now && changes[i].kind == GBF_FEED_BAN &&
              changes[i].sequence == cursor + (uint32_t)i + 1);
}

/* The other reader catches up, by 3 changes at a time, and has what the table has. */
static void catch_up(model *m, gbf_bans *t, uint64_t now)
{
    gbf_ban_change changes[3];
    int32_t count;
    while ((count = gbf_bans_changes(t, &m->slow_cursor, changes, 3)) != 0) {
        if (count < 0) /* only what came before it began, or more than the ring holds */
            for (uint32_t k = 0; k < KEYS; k++)
                m->followed[k] = m->slots[m->first[k]];
        for (int32_t i = 0; i < count; i++) {
            int gone = changes[i].event == GBF_EVENT_LIFT || changes[i].event == GBF_EVENT_EVICT;
            m->followed[number_of(m, &changes[i].ban.key)] = (slot){!gone, changes[i].ban};
        }
    }
    for (uint32_t k = 0; k < KEYS; k++)
        if (m->first[k] == k)
            check(holds(&m->followed[k], now) == holds(&m->slots[k], now) &&
                  (!holds(&m->slots[k], now) || m->followed[k].ban.expires == m->slots[k].ban.expires));
}

static void compare(const model *m, gbf_bans *t, uint64_t now)
{
    gbf_ban found[GBF_BANS_COPY], ban;
    uint32_t cursor = 0, copied, seen = 0;
    int more;
    do {
        more = gbf_bans_copy(t, &cursor, found, &copied, now);
        for (uint32_t i = 0; i < copied; i++) {
            uint32_t k = 0;
            while (k < KEYS && !same_key(&m->keys[k], &found[i].key))
                k++;
            check(k < KEYS && holds(&m->slots[k], now) && same(&m->slots[k].ban, &found[i]));
        }
        seen += copied;
    } while (more);
    check(seen == count(m, now));
    for (uint32_t k = 0; k < KEYS; k++)
        check(gbf_bans_get(t, &m->keys[k], now, &ban) == holds(&m->slots[m->first[k]], now));
}

static void act(model *m, gbf_bans *t, uint32_t call, uint32_t i, uint64_t length, uint64_t now)
{
    slot *s = &m->slots[i];
    gbf_ban ban = {m->keys[i], 0, 0, 1, (uint16_t)call, (uint16_t)i, (uint8_t)(call & 3)}, out;
    gbf_ban_outcome outcome;
    int held = holds(s, now), full = count(m, now) == m->capacity, gone = -1, longer;
    uint8_t maker = (uint8_t)(call % 5);
    switch (call % 6) {
    case 0:
    case 1:
    case 2:
        outcome = gbf_bans_ban(t, &m->keys[i], length, &ban, call % 6 == 1, now, &out);
        if (held)
            check(outcome == (out.expires > s->ban.expires ? GBF_BAN_EXTENDED : GBF_BAN_KEPT) &&
                  out.expires >= s->ban.expires && out.count == s->ban.count && out.created == s->ban.created);
        else if (full)
            gone = make_room(m, t, i, now + length, now, outcome);
        else
            check(outcome == GBF_BAN_ADDED);
        if (outcome != GBF_BAN_REFUSED) {
            check(held || out.count == 1 || (s->known && out.count == s->ban.count + 1));
            check(out.expires >= now + length && gbf_bans_get(t, &m->keys[i], now, &ban) && same(&ban, &out));
            *s = (slot){1, out};
        }
        expect(m, t,
               outcome == GBF_BAN_ADDED      ? GBF_EVENT_ADD
               : outcome == GBF_BAN_EXTENDED ? GBF_EVENT_EXTEND
                                             : 0,
               &out, (uint8_t)(call & 3), now, gone < 0 ? NULL : &m->slots[gone].ban);
        break;
    case 3:
        ban.expires = now + length - 100;
        ban.created = now / 2;
        ban.count = 1 + call % 5;
        outcome = gbf_bans_put(t, &ban, maker, now);
        if (ban.expires <= now) {
            check(outcome == GBF_BAN_KEPT);
            expect(m, t, 0, NULL, maker, now, NULL);
            break;
        }
        if (!held && full)
            gone = make_room(m, t, i, ban.expires, now, outcome);
        if (outcome != GBF_BAN_REFUSED) {
            check(gbf_bans_get(t, &m->keys[i], now, &out));
            check(out.expires == (held && s->ban.expires > ban.expires ? s->ban.expires : ban.expires));
            check(out.count >= ban.count && (!held || out.count >= s->ban.count));
            *s = (slot){1, out};
        }
        expect(m, t,
               outcome == GBF_BAN_ADDED      ? GBF_EVENT_ADD
               : outcome == GBF_BAN_EXTENDED ? GBF_EVENT_EXTEND
                                             : 0,
               &out, maker, now, gone < 0 ? NULL : &m->slots[gone].ban);
        break;
    case 4:
        check(gbf_bans_lift(t, &m->keys[i], maker, now, &out) == held);
        check(!held || same(&out, &s->ban));
        expect(m, t, held ? GBF_EVENT_LIFT : 0, &s->ban, maker, now, NULL);
        s->known = 0;
        break;
    default:
        check(gbf_bans_extend(t, &m->keys[i], now + length, maker, now, &out) == held);
        longer = held && now + length > s->ban.expires;
        if (held) {
            if (longer)
                s->ban.expires = now + length;
            check(same(&out, &s->ban));
        }
        expect(m, t, longer ? GBF_EVENT_EXTEND : 0, &s->ban, maker, now, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    static model m; /* 80 KB, cleared below */
    uint64_t random[10], now = GBF_BAN_EPOCH;
    int more;
    memset(&m, 0, sizeof m);
    for (int i = 0; i < 10; i++)
        random[i] = (uint64_t)take(&in, 1) << (take(&in, 1) % 64);
    m.capacity = 1 + take(&in, 1) * 2;
    m.policy = (gbf_bans_policy){1 + take(&in, 1) % 4, 0, 4000, take(&in, 1) * 16, 1, take(&in, 1) & 1};
    gbf_bans *t = gbf_bans_new(m.capacity, &m.policy, random);
    check(t != NULL);
    for (uint32_t i = 0; i < KEYS; i++) {
        m.keys[i] = key_at(i);
        while (!same_key(&m.keys[m.first[i]], &m.keys[i]))
            m.first[i]++;
    }
    m.cursor = gbf_bans_follow(t);
    while (in.at < in.end) {
        uint32_t call = take(&in, 1), first = take(&in, 1), times = call & 128 ? take(&in, 1) : 1;
        uint64_t length = 1 + take(&in, 2) % 8192;
        if (call % 7 == 6) {
            now += length / 4;
            age(&m, now);
            if (call & 64)
                gbf_bans_purge(t, now, 1 + first, &more);
            if (call & 32)
                compare(&m, t, now);
            if (call & 16)
                catch_up(&m, t, now);
        } else {
            for (uint32_t i = first; i < first + times; i++)
                act(&m, t, call / 7, m.first[i % KEYS], length + i % 7, now);
        }
    }
    compare(&m, t, now);
    catch_up(&m, t, now);
    gbf_bans_free(t);
    return 0;
}
