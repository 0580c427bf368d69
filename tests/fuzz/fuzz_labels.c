/* A table of labels and a list that is searched from end to end agree, whatever is called in whatever order; bans beside it stay.
 *
 * Input: capacity and secret, then calls. Keys are few, so that they meet; the secret is the input's, so that runs in the index are
 * reached, which a random secret would take very long to do. */
#include "fuzz.h"
#include "state/gbf_labels.h"

#define KEYS 64
#define WORDS 70 /* more than one key may carry */

typedef struct {
    int known; /* 1: stored, maybe over */
    gbf_ban label;
} slot;

static slot model[KEYS][WORDS];

static gbf_ban_key key_at(uint32_t i)
{
    const uint8_t name[3] = {(uint8_t)('a' + i % 26), (uint8_t)i, 'z'};
    switch (i % 5) {
    case 0:
        return gbf_ban_prefix(gbf_addr_from4(UINT32_C(0x0A000000) + i), 128);
    case 1:
        return gbf_ban_prefix((gbf_addr){(uint64_t)i << 32, 0}, 32 + i % 32);
    case 2:
        return gbf_ban_asn(i);
    case 3:
        return gbf_ban_uid(name, 3, 3);
    default:
        return gbf_ban_session(i / 8, 7, i % 8);
    }
}

static int holds(const slot *s, uint64_t now)
{
    return s->known && s->label.expires > now;
}

static uint32_t stored(uint64_t now, uint32_t key)
{
    uint32_t found = 0;
    for (uint32_t k = 0; k < KEYS; k++) {
        for (uint32_t w = 0; w < WORDS && (key == KEYS || k == key); w++)
            found += (uint32_t)holds(&model[k][w], now);
    }
    return found;
}

static int same(const gbf_ban *a, const gbf_ban *b)
{
    return a->key.kind == b->key.kind && memcmp(a->key.word, b->key.word, sizeof a->key.word) == 0 &&
           a->expires == b->expires && a->created == b->created && a->reason == b->reason && a->rule == b->rule &&
           a->by == b->by;
}

/* Every key carries what the model says, asked in the way of a request, and no kind that carries some is passed over. */
static void compare(gbf_labels *l, uint64_t now)
{
    static gbf_ban found[GBF_BANS_COPY];
    uint32_t at = 0, count, copied = 0;
    int more;
    for (uint32_t k = 0; k < KEYS; k++) {
        gbf_ban_key key = key_at(k);
        for (uint32_t w = 0; w < WORDS; w += 60) {
            gbf_label_words words = {{0}, 0};
            uint64_t expected = 0, own;
            for (; words.count < 60 && w + words.count < WORDS; words.count++) {
                words.number[words.count] = (uint16_t)(w + words.count + 1);
                expected |= (uint64_t)holds(&model[k][w + words.count], now) << words.count;
            }
            must(gbf_labels_of(l, &key, &words, now) == expected);
            gbf_addr address = {key.word[0], key.word[1]};
            gbf_ban_who who = {key.kind < GBF_BAN_ASN ? &address : NULL, NULL, key.kind == GBF_BAN_UID ? &key : NULL,
                               key.kind == GBF_BAN_ASN ? (uint32_t)key.word[0] : 0};
            if (key.kind != GBF_BAN_SESSION)
                must((gbf_labels_find(l, &who, &words, now, &own) & expected) == expected);
            else
                must(expected == 0 || gbf_labels_present(l) & GBF_BANS_SESSION);
        }
    }
    do {
        more = gbf_labels_copy(l, &at, found, &count, now);
        copied += count;
        for (uint32_t i = 0; i < count; i++)
            must(found[i].rule >= 1 && found[i].rule <= WORDS);
    } while (more);
    must(copied == stored(now, KEYS));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    input in = {data, data + nbytes};
    const gbf_bans_policy policy = {1, 0, 0, 0, 0, 1};
    uint64_t random[10], now = GBF_BAN_EPOCH;
    gbf_ban out, change_of;
    memset(model, 0, sizeof model);
    for (int i = 0; i < 10; i++)
        random[i] = (uint64_t)take(&in, 1) << (take(&in, 1) % 64);
    uint32_t capacity = 1 + take(&in, 2) % 700;
    gbf_bans *bans = gbf_bans_new(2, &policy, random);
    gbf_labels *l = gbf_labels_new(bans, capacity);
    must(bans != NULL && l != NULL);
    gbf_ban why = {.key = gbf_ban_asn(1), .by = 1};
    must(gbf_bans_ban(bans, &why.key, GBF_BAN_FOREVER, &why, 0, now, &out) == GBF_BAN_ADDED);
    uint64_t cursor = gbf_bans_follow(bans), swept = 0;
    while (in.at < in.end) {
        uint32_t call = take(&in, 1), first = take(&in, 2), times = call & 128 ? take(&in, 1) : 1;
        uint64_t length = 1 + take(&in, 2) % 8192;
        for (uint32_t i = first; i < first + times && call % 4 != 3; i++) {
            uint32_t k = i / 7 % KEYS, w = i * 5 % WORDS, at = 0;
            gbf_ban_key key = key_at(k);
            slot *s = &model[k][w];
            int held = holds(s, now), event = 0;
            if (call % 4 == 0) {
                event = held ? GBF_EVENT_LIFT : 0;
                change_of = s->label;
                must(gbf_labels_lift(l, &key, (uint16_t)(w + 1), 3, now, &out) == held);
                must(!held || same(&out, &s->label));
                s->known = 0;
            } else {
                gbf_ban label = {key, now + length + i % 7, now, 1, (uint16_t)i, (uint16_t)(w + 1), (uint8_t)(i % 5)};
                gbf_ban_outcome outcome = gbf_labels_put(l, &label, 3, now, &out);
                change_of = label;
                if (held && s->label.expires >= label.expires) {
                    must(outcome == GBF_BAN_KEPT && same(&out, &s->label));
                } else if (outcome ==
                           GBF_BAN_REFUSED) { /* a full table, looked through in the last second; or a full key */
                    must(!held);
                    if (stored(now, k) < GBF_LABELS_KEY) {
                        must(gbf_labels_count(l).active == capacity);
                        must(now < swept + 1000 || stored(now, KEYS) == capacity);
                        if (now >= swept + 1000)
                            swept = now;
                    }
                } else {
                    must(outcome == (held ? GBF_BAN_EXTENDED : GBF_BAN_ADDED) && same(&out, &label));
                    event = held ? GBF_EVENT_EXTEND : GBF_EVENT_ADD;
                    *s = (slot){1, label};
                }
                if (gbf_labels_count(l).active == capacity)
                    swept = now > swept + 1000 ? now : swept; /* it may have looked for room */
            }
            gbf_ban_change change;
            must(gbf_bans_changes(bans, &cursor, &change, 1) == (event != 0));
            must(event == 0 || (change.event == event && change.kind == GBF_FEED_LABEL && change.maker == 3 &&
                                same(&change.ban, &change_of)));
            (void)at;
        }
        if (call % 4 == 3) {
            now += length / 2;
            uint32_t at = 0;
            while (call & 64 && gbf_labels_purge(l, &at, now, 1 + first))
                ;
            if (call & 64)
                must(gbf_labels_count(l).active == stored(now, KEYS));
        }
        if (call & 32)
            compare(l, now);
    }
    compare(l, now);
    gbf_ban_who who = {NULL, NULL, NULL, 1};
    must(gbf_bans_find(bans, &who, now, &out)); /* whatever came, the ban is there */
    gbf_labels_free(l);
    gbf_bans_free(bans);
    return 0;
}
