/* Slow half of gbf_headers.h. Long because scan, fingerprint and shape read one struct. */
#include "http/gbf_headers.h"

#include <stdlib.h>

/* Families of names that are left out whole. */
static const char *const FAMILIES[] = {
    "x-",
    "cf-",
    "cloudfront-",
    "fastly-",
    "fly-",
    "akamai-",
    "if-",
    "proxy-",
    "access-control-request-",
    "sec-ch-",
    "sec-websocket-",
};

int gbf_header_in_family(const uint8_t *name, uint32_t nbytes)
{
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++) {
        size_t n = strlen(FAMILIES[i]);
        if (nbytes >= n && memcmp(name, FAMILIES[i], n) == 0)
            return 1;
    }
    return 0;
}

gbf_status gbf_headers_grow(gbf_headers *h, uint32_t nbytes)
{
    uint32_t room = 2 * GBF_HEADERS_BYTES + GBF_HEADERS_MOST + 4 * GBF_HEADER_FIELDS + GBF_HEADERS_SLACK + 64;
    if (h->canonical != h->room)
        return GBF_OK; /* as large as it will ever need to be */
    uint8_t *grown = malloc(room);
    if (grown == NULL)
        return GBF_NO_MEMORY;
    memcpy(grown, h->room, nbytes);
    h->canonical = grown;
    h->canonical_room = room;
    return GBF_OK;
}

void gbf_headers_release(gbf_headers *h)
{
    if (h->canonical != h->room)
        free(h->canonical);
    free(h->joined);
    h->canonical = h->room;
    h->joined = NULL;
}

void gbf_headers_add_again(const gbf_header_plan *plan, gbf_headers *h, uint32_t slot, gbf_header_text value)
{
    h->repeated |= UINT64_C(1) << slot;
    if (!(plan->joined >> slot & 1))
        return;
    if (h->repeat_count < GBF_HEADERS_MOST)
        h->repeats[h->repeat_count++] = (gbf_header_repeat){value, slot};
    else
        h->problem = GBF_HEADERS_TOO_MANY;
}

gbf_status gbf_headers_add_other(const gbf_header_plan *plan, gbf_headers *h, const uint8_t *name, uint32_t nbytes,
                                 gbf_header_text value)
{
    gbf_header_tally *t = &h->tally;
    uint32_t start = 0, i = nbytes > 0 && name[0] == ':';
    uint8_t seen = nbytes == i;
    for (; i < nbytes; i++) {
        uint8_t class = gbf_header_token(name[i]);
        seen |= class == 0 ? 1 : class == 2 ? 2 : 0;
    }
    if (seen & 1) {
        h->problem = GBF_HEADERS_BAD_NAME;
        return GBF_OK;
    }
    if (seen & 2) {
        if ((t->flags & GBF_HEADERS_ORDER) && (t->flags & GBF_HEADERS_HTTP2)) {
            h->problem = GBF_HEADERS_BAD_CASE;
            return GBF_OK;
        }
        t->flags |= t->flags & GBF_HEADERS_ORDER ? GBF_HEADERS_CASE : 0; /* CGI has names in capitals, always */
    }
    if (name[0] == ':' && !(seen & 2)) {
        h->problem = GBF_HEADERS_BAD_PSEUDO; /* a known one would have been found */
        return GBF_OK;
    }
    if (GBF_UNLIKELY(t->canonical_bytes + nbytes + GBF_HEADERS_SLACK > h->canonical_room) &&
        gbf_headers_grow(h, t->canonical_bytes) != GBF_OK)
        return GBF_NO_MEMORY;
    start = t->canonical_bytes;
    uint8_t *folded = h->canonical + start;
    for (i = 0; i < nbytes; i++)
        folded[i] = gbf_header_token(name[i]) == 2 ? name[i] | 0x20 : name[i];
    const gbf_header_name *known = seen & 2 ? gbf_header_find(plan, folded, nbytes) : NULL;
    if (known != NULL)
        return gbf_headers_add_known(plan, h, t, known, value);
    if (name[0] == ':') {
        h->problem = GBF_HEADERS_BAD_PSEUDO;
        return GBF_OK;
    }
    t->flags |= GBF_HEADERS_REGULAR;
    if ((t->flags & GBF_HEADERS_SHAPED) && !gbf_header_in_family(folded, nbytes)) {
        uint32_t id = (uint32_t)gbf_xxh3_64(folded, nbytes, 0);
        memcpy(folded, &id, 4);
        t->canonical_bytes = start + 4;
    }
    return GBF_OK;
}

uint32_t gbf_header_slot_folded(const gbf_header_plan *plan, const uint8_t *name, uint64_t nbytes)
{
    uint8_t folded[GBF_HEADER_NAME_BYTES];
    if (nbytes > sizeof folded)
        return GBF_HEADER_NO_SLOT;
    for (uint64_t i = 0; i < nbytes; i++)
        folded[i] = gbf_header_token(name[i]) == 2 ? name[i] | 0x20 : name[i];
    const gbf_header_name *known = gbf_header_find(plan, folded, (uint32_t)nbytes);
    return known == NULL ? GBF_HEADER_NO_SLOT : known->slot;
}

gbf_status gbf_headers_add_cgi(const gbf_header_plan *plan, gbf_headers *h, gbf_header_tally *t, const uint8_t *name,
                               uint64_t name_bytes, const uint8_t *value, uint64_t value_bytes)
{
    uint8_t folded[GBF_HEADER_NAME_BYTES];
    if (name_bytes <= sizeof folded) {
        for (uint64_t i = 0; i < name_bytes; i++)
            folded[i] = gbf_header_token(name[i]) == 2 ? name[i] | 0x20 : name[i] == '_' ? '-' : name[i];
        return gbf_headers_add(plan, h, t, folded, name_bytes, value, value_bytes);
    }
    return gbf_headers_add(plan, h, t, name, name_bytes, value, value_bytes);
}

/* The values of `slot` as one, behind `at`; their length. */
static uint32_t join(const gbf_headers *h, uint32_t slot, uint8_t *at)
{
    const char *between = slot == GBF_HEADER_COOKIE ? "; " : ", "; /* RFC 9113 section 8.2.3, RFC 9110 section 5.3 */
    uint32_t nbytes = h->slots[slot].nbytes;
    if (nbytes > 0)
        memcpy(at, h->slots[slot].at, nbytes);
    for (uint32_t i = 0; i < h->repeat_count; i++) {
        if (h->repeats[i].slot != slot)
            continue;
        memcpy(at + nbytes, between, 2);
        nbytes += 2;
        if (h->repeats[i].text.nbytes > 0)
            memcpy(at + nbytes, h->repeats[i].text.at, h->repeats[i].text.nbytes);
        nbytes += h->repeats[i].text.nbytes;
    }
    return nbytes;
}

static int same_host(gbf_header_text a, gbf_header_text b)
{
    if (a.nbytes != b.nbytes)
        return 0;
    for (uint32_t i = 0; i < a.nbytes; i++) {
        uint8_t x = a.at[i], y = b.at[i];
        if ((gbf_header_token(x) == 2 ? x | 0x20 : x) != (gbf_header_token(y) == 2 ? y | 0x20 : y))
            return 0;
    }
    return 1;
}

gbf_status gbf_headers_finish(const gbf_header_plan *plan, gbf_headers *h)
{
    const uint64_t host = UINT64_C(1) << GBF_HEADER_HOST;
    if (h->problem != GBF_HEADERS_FINE)
        return GBF_OK;
    if (GBF_UNLIKELY(h->repeated & host))
        h->problem = GBF_HEADERS_BAD_HOST;
    if (h->tally.seen & UINT64_C(1) << GBF_HEADER_AUTHORITY) {
        if ((h->tally.seen & host) && !same_host(h->slots[GBF_HEADER_HOST], h->slots[GBF_HEADER_AUTHORITY]))
            h->problem = GBF_HEADERS_BAD_HOST;
        h->slots[GBF_HEADER_HOST] = h->slots[GBF_HEADER_AUTHORITY];
        h->tally.seen |= host;
    }
    uint64_t left = h->repeated & plan->joined;
    if (GBF_LIKELY(left == 0) || h->problem != GBF_HEADERS_FINE)
        return GBF_OK;
    h->joined = malloc(GBF_HEADERS_BYTES + 2 * GBF_HEADERS_MOST); /* values together are no longer than the limit */
    if (h->joined == NULL)
        return GBF_NO_MEMORY;
    for (uint8_t *at = h->joined; left != 0; left &= left - 1) {
        uint32_t slot = (uint32_t)__builtin_ctzll(left), nbytes = join(h, slot, at);
        h->slots[slot] = (gbf_header_text){at, nbytes};
        at += nbytes;
    }
    return GBF_OK;
}

/* ---- fingerprint and shape */

typedef uint8_t bytes8 __attribute__((vector_size(8)));

/* Whether a trimmed value has a tab, or two blanks in a row, after copying it to `to`. */
static inline int copy(uint8_t *to, const uint8_t *from, uint32_t nbytes)
{
    if (nbytes > 16) {
        gbf_bytes16 runs = {0}, x, next;
        for (uint32_t i = 0; i < nbytes - 1; i += 16) {
            uint32_t at = i + 17 <= nbytes ? i : nbytes - 17;
            memcpy(&x, from + at, 16);
            memcpy(&next, from + at + 1, 16);
            runs |= ((gbf_bytes16)(x == ' ') & (gbf_bytes16)(next == ' ')) | (gbf_bytes16)(x == '\t');
            memcpy(to + at, &x, 16);
        }
        to[nbytes - 1] = from[nbytes - 1];
        uint64_t halves[2];
        memcpy(halves, &runs, 16);
        return (halves[0] | halves[1]) != 0;
    }
    if (nbytes > 8) {
        bytes8 runs = {0}, x, next;
        for (uint32_t at = 0; at <= nbytes - 9; at = at == nbytes - 9 ? nbytes : nbytes - 9) {
            memcpy(&x, from + at, 8);
            memcpy(&next, from + at + 1, 8);
            runs |= ((bytes8)(x == ' ') & (bytes8)(next == ' ')) | (bytes8)(x == '\t');
            memcpy(to + at, &x, 8);
        }
        to[nbytes - 1] = from[nbytes - 1];
        return gbf_load64((const uint8_t *)&runs) != 0;
    }
    int runs = 0;
    for (uint32_t i = 0; i < nbytes; i++) {
        to[i] = from[i];
        runs |= from[i] == '\t' || (from[i] == ' ' && from[i + 1 < nbytes ? i + 1 : i] == ' ');
    }
    return runs;
}

/* Slow half of put. */
__attribute__((noinline)) static uint8_t *put_runs(uint8_t *to, gbf_header_text text)
{
    uint8_t *start = to;
    for (uint32_t i = 0; i < text.nbytes; i++) {
        uint8_t byte = text.at[i] == '\t' ? ' ' : text.at[i];
        if (byte != ' ' || to == start || to[-1] != ' ')
            *to++ = byte;
    }
    return to;
}

/* Copies a value, a run of blanks inside as one space; the end of it. */
static inline uint8_t *put(uint8_t *to, gbf_header_text text)
{
    return GBF_LIKELY(!copy(to, text.at, text.nbytes)) ? to + text.nbytes : put_runs(to, text);
}

/* A length of four bytes (UINT32_MAX: absent) and the value of a slot. */
static uint8_t *put_slot(uint8_t *at, const gbf_headers *h, uint32_t slot)
{
    uint32_t nbytes = UINT32_MAX;
    uint8_t *end = at + 4;
    if (h->tally.seen >> slot & 1) {
        end = put(at + 4, h->slots[slot]);
        nbytes = (uint32_t)(end - at) - 4;
    }
    memcpy(at, &nbytes, 4);
    return end;
}

/* The next coding of an Accept-Encoding from `*at` on, without parameters and blanks; nbytes 0: an empty one. */
static gbf_header_text coding(gbf_header_text text, uint32_t *at)
{
    uint32_t start = *at, end, i = start;
    while (i < text.nbytes && text.at[i] != ',')
        i++;
    for (end = start; end < i && text.at[end] != ';'; end++)
        ;
    *at = i + 1;
    return gbf_header_trim(text.at + start, end - start);
}

static inline int is(gbf_header_text text, const char *word)
{
    uint32_t n = (uint32_t)strlen(word);
    return text.nbytes == n && memcmp(text.at, word, n) == 0;
}

/* Whether an Accept-Encoding is one that browsers send, of which one browser sends several: "gzip, deflate" and what
 * newer codings it adds over TLS, or identity, for media and ranges. */
static int browser_coding(gbf_header_text text)
{
    if (is(text, "gzip, deflate, br, zstd") || is(text, "gzip, deflate, br") || is(text, "gzip, deflate"))
        return 1;
    uint32_t at = 0;
    gbf_header_text first = coding(text, &at);
    if (is(first, "identity")) {
        while (at < text.nbytes)
            if (!is(coding(text, &at), "*"))
                return 0;
        return 1;
    }
    if (!is(first, "gzip") || at >= text.nbytes || !is(coding(text, &at), "deflate"))
        return 0;
    while (at < text.nbytes) {
        gbf_header_text more = coding(text, &at);
        if (!is(more, "br") && !is(more, "zstd") && !is(more, "dcb") && !is(more, "dcz"))
            return 0;
    }
    return 1;
}

static gbf_hash128 hashed(const gbf_header_plan *plan, const uint8_t *start, const uint8_t *end)
{
    if (!plan->keyed)
        return gbf_xxh3_128(start, (uint64_t)(end - start), 0);
    gbf_xxh3_key key = {plan->kernel, plan->secret, plan->secret, sizeof plan->secret, 0, {0}};
    return gbf_xxh3_128_keyed(&key, start, (uint64_t)(end - start));
}

static void print_shape(const gbf_header_plan *plan, gbf_headers *h)
{
    const uint32_t flags = h->tally.flags;
    uint8_t *start = h->canonical,
            *at = start + (flags & GBF_HEADERS_ORDER ? h->tally.canonical_bytes : GBF_SHAPE_HEAD);
    memcpy(start, "gs1", 3);
    start[3] = (uint8_t)((flags & GBF_HEADERS_ORDER) | (flags & (GBF_HEADERS_HTTP1 | GBF_HEADERS_HTTP2)) >> 2);
    memcpy(at, &h->tally.presence, 4);
    at = put_slot(at + 4, h, GBF_HEADER_ACCEPT);
    at = put_slot(at, h, GBF_HEADER_ACCEPT_ENCODING);
    h->shape = hashed(plan, start, at);
}

gbf_status gbf_headers_fingerprint(const gbf_header_plan *plan, gbf_headers *h)
{
    const uint64_t language = UINT64_C(1) << GBF_HEADER_ACCEPT_LANGUAGE;
    const uint64_t encoding = UINT64_C(1) << GBF_HEADER_ACCEPT_ENCODING;
    uint64_t seen = h->tally.seen;
    uint32_t need = 64 + GBF_HEADERS_SLACK, names = h->tally.flags & GBF_HEADERS_SHAPED ? h->tally.canonical_bytes : 0;
    for (uint32_t i = 0; i < plan->field_count; i++)
        need += 4 + (seen >> plan->fields[i] & 1 ? h->slots[plan->fields[i]].nbytes : 0);
    if (names != 0)
        need += names + (seen >> GBF_HEADER_ACCEPT & 1 ? h->slots[GBF_HEADER_ACCEPT].nbytes : 0) +
                (seen & encoding ? h->slots[GBF_HEADER_ACCEPT_ENCODING].nbytes : 0);
    if (GBF_UNLIKELY(need > h->canonical_room) && gbf_headers_grow(h, names) != GBF_OK)
        return GBF_NO_MEMORY;
    if (names != 0)
        print_shape(plan, h);
    const int browser = (seen & language) != 0; /* every request of every browser has one */
    uint8_t *start = h->canonical, *at = start + 8;
    memcpy(start, "gh2", 3);
    start[3] = browser ? 0 : (uint8_t)(1 | (seen >> GBF_HEADER_ACCEPT & 1) << 1);
    memcpy(start + 4, &plan->fields_tag, 4);
    for (uint32_t i = 0; i < plan->field_count; i++) {
        if (plan->fields[i] == GBF_HEADER_ACCEPT_ENCODING && browser && (seen & encoding) &&
            browser_coding(h->slots[GBF_HEADER_ACCEPT_ENCODING])) {
            memcpy(at, "\xFE\xFF\xFF\xFF", 4); /* no value is as long */
            at += 4;
        } else {
            at = put_slot(at, h, plan->fields[i]);
        }
    }
    h->fingerprint = hashed(plan, start, at);
    return GBF_OK;
}

/* ---- method, path, user agent */

void gbf_headers_settle(gbf_headers *h)
{
    const uint64_t method = UINT64_C(1) << GBF_HEADER_METHOD, path = UINT64_C(1) << GBF_HEADER_PATH;
    if ((h->tally.seen & method) && !gbf_header_is_method(h->slots[GBF_HEADER_METHOD])) {
        h->tally.flags |= GBF_HEADERS_BAD_METHOD;
        h->tally.seen &= ~method;
    }
    if (h->tally.seen & path) {
        h->slots[GBF_HEADER_PATH] = gbf_header_path(h->slots[GBF_HEADER_PATH]);
        if (h->slots[GBF_HEADER_PATH].nbytes == 0) {
            h->tally.flags |= GBF_HEADERS_BAD_PATH;
            h->tally.seen &= ~path;
        }
    }
}

/* What follows scheme and authority of a target in absolute form (RFC 9112 section 3.2.2), "/" for nothing; nbytes 0
 * for what is no such target. */
static gbf_header_text absolute_path(gbf_header_text text)
{
    const gbf_header_text none = {text.at, 0}, root = {(const uint8_t *)"/", 1};
    uint32_t i = 0;
    while (i < text.nbytes && gbf_header_token(text.at[i]) != 0)
        i++;
    uint8_t first = text.at[0] | 0x20;
    if (first < 'a' || first > 'z' || i + 3 > text.nbytes || memcmp(text.at + i, "://", 3) != 0)
        return none;
    for (i += 3; i < text.nbytes && text.at[i] != '?' && text.at[i] != '#'; i++) {
        if (text.at[i] == '\\')
            return none; /* some end the authority here, others do not */
        if (text.at[i] == '/')
            return (gbf_header_text){text.at + i, text.nbytes - i};
    }
    return root;
}

gbf_header_text gbf_header_path(gbf_header_text text)
{
    const gbf_header_text none = {text.at, 0};
    uint32_t nbytes = 0;
    if (text.nbytes == 0 || text.nbytes > GBF_HEADERS_BYTES)
        return none;
    for (uint32_t i = 0; i < text.nbytes; i++)
        if (text.at[i] < 0x20 || text.at[i] == 0x7F)
            return none;
    if (GBF_UNLIKELY(text.at[0] != '/') && (text.nbytes > 1 || text.at[0] != '*')) {
        text = absolute_path(text);
        if (text.nbytes == 0)
            return none;
    }
    while (nbytes < text.nbytes && text.at[nbytes] != '?')
        nbytes++;
    return (gbf_header_text){text.at, nbytes};
}

int gbf_header_is_method(gbf_header_text text)
{
    if (text.nbytes == 0 || text.nbytes > 32)
        return 0;
    for (uint32_t i = 0; i < text.nbytes; i++)
        if (gbf_header_token(text.at[i]) == 0)
            return 0;
    return 1;
}

/* Ends of product tokens; the first family in the list of gbf_ua_family that some token is of counts. */
static const struct {
    const char *end;
    gbf_ua_family family;
    int whole; /* the token begins there, too */
} PRODUCTS[] = {
    {"bot", GBF_UA_BOT, 0},
    {"crawler", GBF_UA_BOT, 0},
    {"spider", GBF_UA_BOT, 0},
    {"slurp", GBF_UA_BOT, 0},
    {"externalhit", GBF_UA_BOT, 0},
    {"externalagent", GBF_UA_BOT, 0},
    {"scrapy", GBF_UA_BOT, 0},
    {"headlesschrome", GBF_UA_BOT, 0},
    {"edg", GBF_UA_EDGE, 1},
    {"edge", GBF_UA_EDGE, 1},
    {"edga", GBF_UA_EDGE, 1},
    {"edgios", GBF_UA_EDGE, 1},
    {"opr", GBF_UA_OPERA, 1},
    {"opera", GBF_UA_OPERA, 1},
    {"firefox", GBF_UA_FIREFOX, 1},
    {"fxios", GBF_UA_FIREFOX, 1},
    {"chrome", GBF_UA_CHROME, 1},
    {"chromium", GBF_UA_CHROME, 1},
    {"crios", GBF_UA_CHROME, 1},
    {"safari", GBF_UA_SAFARI, 1},
    {"curl", GBF_UA_CURL, 1},
    {"libcurl", GBF_UA_CURL, 1},
    {"wget", GBF_UA_WGET, 1},
    {"python", GBF_UA_PYTHON, 1},
    {"python-requests", GBF_UA_PYTHON, 1},
    {"python-urllib", GBF_UA_PYTHON, 1},
    {"python-httpx", GBF_UA_PYTHON, 1},
    {"aiohttp", GBF_UA_PYTHON, 1},
    {"urllib3", GBF_UA_PYTHON, 1},
    {"go-http-client", GBF_UA_GO, 1},
    {"java", GBF_UA_JAVA, 1},
    {"okhttp", GBF_UA_JAVA, 1},
    {"apache-httpclient", GBF_UA_JAVA, 1},
    {"java-http-client", GBF_UA_JAVA, 1},
};

static gbf_ua_family product(const uint8_t *token, uint32_t nbytes)
{
    gbf_ua_family best = GBF_UA_OTHER;
    for (size_t i = 0; i < sizeof PRODUCTS / sizeof *PRODUCTS; i++) {
        uint32_t n = (uint32_t)strlen(PRODUCTS[i].end), j = 0;
        if (n > nbytes || (PRODUCTS[i].whole && n != nbytes))
            continue;
        const uint8_t *end = token + nbytes - n;
        while (j < n && (gbf_header_token(end[j]) == 2 ? end[j] | 0x20 : end[j]) == (uint8_t)PRODUCTS[i].end[j])
            j++;
        if (j == n && PRODUCTS[i].family < best)
            best = PRODUCTS[i].family;
    }
    return best;
}

gbf_ua_family gbf_header_ua(gbf_header_text text)
{
    gbf_ua_family best = GBF_UA_OTHER;
    uint32_t start = 0, slashes = 0, nbytes = text.nbytes < 512 ? text.nbytes : 512; /* products come first */
    for (uint32_t i = 0; i <= nbytes; i++) {
        uint8_t byte = i < nbytes ? text.at[i] : ' ';
        if (byte == '/' || (i == nbytes && slashes == 0)) {
            gbf_ua_family found = product(text.at + start, i - start);
            best = found < best ? found : best;
        }
        slashes += byte == '/';
        if (byte == '/' || gbf_header_token(byte) == 0)
            start = i + 1;
    }
    return best;
}

/* ---- scheme, and who writes */

uint32_t gbf_header_default_port(const uint8_t *scheme, uint64_t nbytes)
{
    if (nbytes == 5 && memcmp(scheme, "https", 5) == 0)
        return 443;
    if (nbytes == 4 && memcmp(scheme, "http", 4) == 0)
        return 80;
    return nbytes == 3 && memcmp(scheme, "wss", 3) == 0 ? 443 : nbytes == 2 && memcmp(scheme, "ws", 2) == 0 ? 80 : 0;
}

static int is_text(gbf_header_text text, const char *known)
{
    size_t n = strlen(known);
    return text.nbytes == n && memcmp(text.at, known, n) == 0;
}

static int seen(const gbf_headers *h, uint32_t slot)
{
    return (int)(h->tally.seen >> slot & 1) && h->slots[slot].nbytes != 0;
}

static int is_unknown(const gbf_headers *h, uint32_t slot)
{
    return (h->tally.flags & GBF_HEADERS_UNKNOWN) && !((h->known | h->tally.seen) >> slot & 1);
}

static int is_scheme(uint8_t byte, int first)
{
    uint8_t lower = byte | 0x20;
    return (lower >= 'a' && lower <= 'z') ||
           (!first && ((byte >= '0' && byte <= '9') || byte == '+' || byte == '-' || byte == '.'));
}

/* Host and port of a serialized origin; no bytes: `null`, or what is none. */
static gbf_header_text origin_host(gbf_header_text origin)
{
    uint32_t at = 0;
    while (at < origin.nbytes && is_scheme(origin.at[at], at == 0))
        at++;
    if (at == 0 || at + 3 > origin.nbytes || memcmp(origin.at + at, "://", 3) != 0)
        return (gbf_header_text){origin.at, 0};
    return (gbf_header_text){origin.at + at + 3, origin.nbytes - at - 3};
}

int gbf_header_own_page(const gbf_headers *h)
{
    return seen(h, GBF_HEADER_ORIGIN) && seen(h, GBF_HEADER_HOST) &&
           same_host(h->slots[GBF_HEADER_HOST], origin_host(h->slots[GBF_HEADER_ORIGIN]));
}

int gbf_header_cross_write(const gbf_headers *h)
{
    if (seen(h, GBF_HEADER_METHOD)) {
        gbf_header_text method = h->slots[GBF_HEADER_METHOD];
        if (is_text(method, "GET") || is_text(method, "HEAD") || is_text(method, "OPTIONS"))
            return GBF_WRITE_NO;
    } else if (!(h->tally.flags & GBF_HEADERS_BAD_METHOD)) { /* what is no method is no safe one */
        return GBF_WRITE_UNKNOWN;
    }
    if (h->problem != GBF_HEADERS_FINE)
        return GBF_WRITE_UNREAD;
    if (seen(h, GBF_HEADER_FETCH_SITE)) {
        gbf_header_text site = h->slots[GBF_HEADER_FETCH_SITE];
        return is_text(site, "same-origin") || is_text(site, "none") ? GBF_WRITE_NO : GBF_WRITE_CROSS;
    }
    if (is_unknown(h, GBF_HEADER_FETCH_SITE) || is_unknown(h, GBF_HEADER_ORIGIN))
        return GBF_WRITE_UNKNOWN;
    if (!seen(h, GBF_HEADER_ORIGIN))
        return GBF_WRITE_NO; /* no browser */
    if (is_unknown(h, GBF_HEADER_HOST))
        return GBF_WRITE_UNKNOWN;
    return gbf_header_own_page(h) ? GBF_WRITE_NO : GBF_WRITE_CROSS;
}
