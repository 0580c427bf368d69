/* Any bytes may be headers: the scan stays in bounds and in its limits, the same pairs give the same answer twice, and
 * what is read is what was there.
 *
 * Input: a byte of flags, then records: a byte of name length, two bytes of value length, name, value. */
#include "base/gbf_cpu.h"
#include "fuzz.h"
#include "http/gbf_headers.h"

static gbf_header_text text(const char *name)
{
    return (gbf_header_text){(const uint8_t *)name, (uint32_t)strlen(name)};
}

static void scan(const gbf_header_plan *plan, gbf_headers *h, const uint8_t *data, size_t nbytes, uint8_t **copies,
                 size_t *count)
{
    uint8_t form = data[0];
    gbf_headers_start(h, (form & (GBF_HEADERS_ORDER | GBF_HEADERS_HTTP1 | GBF_HEADERS_HTTP2)) |
                             (form & 128 ? GBF_HEADERS_SHAPED : 0));
    gbf_header_tally tally = h->tally;
    size_t at = 1;
    for (*count = 0; at + 3 <= nbytes && *count < 2 * GBF_HEADERS_MOST && h->problem == GBF_HEADERS_FINE; *count += 2) {
        size_t name_bytes = data[at],
               value_bytes = (size_t)(data[at + 1] | (data[at + 2] & 0x80 ? data[at + 2] << 8 : 0));
        at += 3;
        name_bytes = name_bytes < nbytes - at ? name_bytes : nbytes - at;
        uint8_t *name = copies[*count] = exact(data + at, name_bytes);
        at += name_bytes;
        value_bytes = value_bytes < nbytes - at ? value_bytes : nbytes - at;
        uint8_t *value = copies[*count + 1] = exact(data + at, value_bytes);
        at += value_bytes;
        must((form & GBF_HEADERS_ORDER
                  ? gbf_headers_add(plan, h, &tally, name, name_bytes, value, value_bytes)
                  : gbf_headers_add_cgi(plan, h, &tally, name, name_bytes, value, value_bytes)) == GBF_OK);
    }
    h->tally = tally;
    must(gbf_headers_finish(plan, h) == GBF_OK);
    if (h->problem == GBF_HEADERS_FINE)
        must(gbf_headers_fingerprint(plan, h) == GBF_OK);
}

/* Who writes: the answer is one of four, a safe method never writes, whoever is no browser never comes from elsewhere, and
 * what a source does not keep makes the answer unknown, or leaves it. */
static void writes(gbf_headers *h, uint8_t form)
{
    static const char *const methods[] = {"GET", "POST", "HEAD", "OPTIONS", "get", "", "P T", "PROPFIND"};
    gbf_header_text method = text(methods[form & 7]);
    if (h->problem != GBF_HEADERS_FINE)
        h->tally.seen = 0;
    if (form & 8)
        gbf_headers_set(h, GBF_HEADER_METHOD, method.at, method.nbytes);
    gbf_headers_settle(h);
    int found = gbf_header_cross_write(h);
    must(found >= GBF_WRITE_UNKNOWN && found <= GBF_WRITE_UNREAD);
    int bad = (h->tally.flags & GBF_HEADERS_BAD_METHOD) != 0, given = (int)(h->tally.seen >> GBF_HEADER_METHOD & 1);
    must((found == GBF_WRITE_UNKNOWN) == (!given && !bad));
    if (found == GBF_WRITE_UNREAD)
        must(h->problem != GBF_HEADERS_FINE);
    if (given) {
        gbf_header_text sent = h->slots[GBF_HEADER_METHOD];
        if ((sent.nbytes == 3 && memcmp(sent.at, "GET", 3) == 0) ||
            (sent.nbytes == 4 && memcmp(sent.at, "HEAD", 4) == 0))
            must(found == GBF_WRITE_NO);
    }
    if (!(h->tally.seen >> GBF_HEADER_FETCH_SITE & 1) && !(h->tally.seen >> GBF_HEADER_ORIGIN & 1))
        must(found != GBF_WRITE_CROSS);
    h->tally.flags |= GBF_HEADERS_UNKNOWN;
    h->known = 0;
    int partly = gbf_header_cross_write(h);
    must(partly == found || partly == GBF_WRITE_UNKNOWN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const char *const names[] = {"cookie", "referer", "host", "x-a"}, *const fields[] = {"accept-language",
                                                                                                "accept-encoding"};
    gbf_header_text asked[4], wanted[2] = {text(fields[0]), text(fields[1])};
    uint8_t slots[4], secret[GBF_HEADERS_SECRET] = {7};
    gbf_fault fault;
    gbf_header_plan plan;
    gbf_headers first, second;
    uint8_t *copies[2][2 * GBF_HEADERS_MOST + 2];
    size_t count[2];
    if (nbytes == 0)
        return 0;
    for (int i = 0; i < 4; i++)
        asked[i] = text(names[i]);
    must(gbf_header_plan_build(&plan, asked, 4, wanted, 2, data[0] & 64 ? secret : NULL,
                               gbf_xxh3_pick(gbf_cpu_features()), slots, &fault) == GBF_OK);
    scan(&plan, &first, data, nbytes, copies[0], &count[0]);
    scan(&plan, &second, data, nbytes, copies[1], &count[1]);
    must(first.problem == second.problem && first.tally.seen == second.tally.seen);
    must(first.fingerprint.low == second.fingerprint.low && first.fingerprint.high == second.fingerprint.high);
    must(first.shape.low == second.shape.low && first.shape.high == second.shape.high);
    for (uint32_t slot = 0; slot < plan.slot_count && first.problem == GBF_HEADERS_FINE; slot++) {
        gbf_header_text value = first.slots[slot];
        if (!(first.tally.seen >> slot & 1))
            continue;
        must(value.nbytes <= GBF_HEADERS_BYTES + 2 * GBF_HEADERS_MOST);
        must(!gbf_header_controls(value.at, value.nbytes));
        must(gbf_header_ua(value) <= GBF_UA_OTHER);
        must(gbf_header_path(value).nbytes <= value.nbytes);
        gbf_header_is_method(value);
    }
    writes(&first, nbytes > 1 ? data[nbytes - 1] : 0);
    writes(&second, nbytes > 1 ? data[nbytes - 1] : 0);
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < count[i]; j++)
            free(copies[i][j]);
    gbf_headers_free(&first);
    gbf_headers_free(&second);
    gbf_header_plan_free(&plan);
    return 0;
}
