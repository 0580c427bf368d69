#include "http/gbf_headers.h"

#include <stdlib.h>

enum { OUT = GBF_HEADER_LEFT_OUT, PSEUDO = GBF_HEADER_IS_PSEUDO | GBF_HEADER_LEFT_OUT, NO_SLOT = GBF_HEADER_NO_SLOT };

typedef struct {
    const char *name;
    uint8_t slot, flags;
    int presence; /* number of its presence bit, -1 for none; never renumbered: they are in every gs1 */
} builtin;

/* What the scan knows by itself. Names that are left out of the shape, and why: DESIGN.md, "Fingerprint gh2, shape gs1". */
static const builtin BUILTINS[] = {
    {":authority", GBF_HEADER_AUTHORITY, PSEUDO, -1},
    {":method", GBF_HEADER_METHOD, PSEUDO, -1},
    {":path", GBF_HEADER_PATH, PSEUDO, -1},
    {":scheme", GBF_HEADER_SCHEME, PSEUDO, -1},
    {":protocol", GBF_HEADER_PROTOCOL, PSEUDO, -1},
    {"host", GBF_HEADER_HOST, OUT, -1},
    {"cookie", GBF_HEADER_COOKIE, OUT, 16},
    {"user-agent", GBF_HEADER_USER_AGENT, 0, 0},
    {"accept", GBF_HEADER_ACCEPT, 0, 1},
    {"accept-language", GBF_HEADER_ACCEPT_LANGUAGE, 0, 2},
    {"accept-encoding", GBF_HEADER_ACCEPT_ENCODING, 0, 3},
    {"accept-charset", NO_SLOT, 0, 4},
    {"sec-ch-ua", NO_SLOT, 0, 5},
    {"sec-ch-ua-mobile", NO_SLOT, 0, 6},
    {"sec-ch-ua-platform", NO_SLOT, 0, 7},
    {"sec-fetch-dest", NO_SLOT, 0, 8},
    {"sec-fetch-mode", NO_SLOT, 0, 9},
    {"sec-fetch-site", GBF_HEADER_FETCH_SITE, 0, 10},
    {"sec-gpc", NO_SLOT, 0, 11},
    {"dnt", NO_SLOT, 0, 12},
    {"save-data", NO_SLOT, 0, 13},
    {"upgrade-insecure-requests", NO_SLOT, 0, 14},
    {"from", NO_SLOT, 0, 15},
    /* one connection's or one hop's */
    {"connection", NO_SLOT, OUT, -1},
    {"keep-alive", NO_SLOT, OUT, -1},
    {"te", NO_SLOT, OUT, -1},
    {"trailer", NO_SLOT, OUT, -1},
    {"transfer-encoding", NO_SLOT, OUT, -1},
    {"upgrade", NO_SLOT, OUT, 23},
    {"http2-settings", NO_SLOT, OUT, -1},
    {"expect", NO_SLOT, OUT, -1},
    {"priority", NO_SLOT, OUT, -1},
    {"early-data", NO_SLOT, OUT, -1},
    {"alt-used", NO_SLOT, OUT, -1},
    {"max-forwards", NO_SLOT, OUT, -1},
    /* one request's */
    {"content-length", NO_SLOT, OUT, -1},
    {"content-type", NO_SLOT, OUT, 21},
    {"content-encoding", NO_SLOT, OUT, -1},
    {"authorization", NO_SLOT, OUT, 22},
    {"cookie2", NO_SLOT, OUT, -1},
    {"referer", NO_SLOT, OUT, 17},
    {"origin", GBF_HEADER_ORIGIN, OUT, 18},
    {"access-control-request-method", GBF_HEADER_REQUEST_METHOD, OUT, -1},
    {"access-control-request-headers", GBF_HEADER_REQUEST_HEADERS, OUT, -1},
    {"range", NO_SLOT, OUT, 19},
    {"cache-control", NO_SLOT, OUT, -1},
    {"pragma", NO_SLOT, OUT, -1},
    {"date", NO_SLOT, OUT, -1},
    {"sec-fetch-user", NO_SLOT, OUT, 20},
    {"sec-purpose", NO_SLOT, OUT, -1},
    {"purpose", NO_SLOT, OUT, -1},
    {"last-event-id", NO_SLOT, OUT, -1},
    {"idempotency-key", NO_SLOT, OUT, -1},
    {"request-id", NO_SLOT, OUT, -1},
    {"correlation-id", NO_SLOT, OUT, -1},
    {"service-worker", NO_SLOT, OUT, -1},
    {"service-worker-navigation-preload", NO_SLOT, OUT, -1},
    {"device-memory", NO_SLOT, OUT, -1},
    {"dpr", NO_SLOT, OUT, -1},
    {"viewport-width", NO_SLOT, OUT, -1},
    {"width", NO_SLOT, OUT, -1},
    {"downlink", NO_SLOT, OUT, -1},
    {"ect", NO_SLOT, OUT, -1},
    {"rtt", NO_SLOT, OUT, -1},
    /* a proxy's, a CDN's, a tracer's */
    {"forwarded", NO_SLOT, OUT, -1},
    {"via", NO_SLOT, OUT, -1},
    {"true-client-ip", NO_SLOT, OUT, -1},
    {"client-ip", NO_SLOT, OUT, -1},
    {"cdn-loop", NO_SLOT, OUT, -1},
    {"traceparent", NO_SLOT, OUT, -1},
    {"tracestate", NO_SLOT, OUT, -1},
    {"baggage", NO_SLOT, OUT, -1},
    {"uber-trace-id", NO_SLOT, OUT, -1},
    {"b3", NO_SLOT, OUT, -1},
    {"sentry-trace", NO_SLOT, OUT, -1},
};
enum { BUILTIN_COUNT = sizeof BUILTINS / sizeof *BUILTINS };

static gbf_header_name *insert(gbf_header_plan *plan, uint32_t *text_bytes, const uint8_t *name, uint32_t nbytes,
                               uint8_t flags)
{
    gbf_header_name *known = (gbf_header_name *)(uintptr_t)gbf_header_find(plan, name, nbytes);
    if (known != NULL)
        return known;
    gbf_header_words words = gbf_header_read(name, nbytes);
    uint32_t place = gbf_header_place(words, nbytes) & plan->mask;
    while (plan->names[place].nbytes != 0)
        place = (place + 1) & plan->mask;
    known = &plan->names[place];
    *known = (gbf_header_name){
        words, *text_bytes, (uint16_t)nbytes, NO_SLOT, flags, 0, (uint32_t)gbf_xxh3_64(name, nbytes, 0)};
    memcpy(plan->text + *text_bytes, name, nbytes);
    *text_bytes += nbytes;
    return known;
}

static int fits(gbf_header_text name)
{
    if (name.nbytes == 0 || name.nbytes > GBF_HEADER_NAME_BYTES)
        return 0;
    for (uint32_t i = 0; i < name.nbytes; i++)
        if (gbf_header_token(name.at[i]) != 1)
            return 0;
    return 1;
}

gbf_status gbf_header_plan_build(gbf_header_plan *plan, const gbf_header_text *asked, uint32_t asked_count,
                                 const gbf_header_text *fields, uint32_t field_count, const uint8_t *secret,
                                 const gbf_xxh3_kernel *kernel, uint8_t *slots, gbf_fault *fault)
{
    uint32_t text_bytes = 0, places = 256;
    *plan = (gbf_header_plan){.kernel = kernel, .slot_count = GBF_HEADER_FREE_SLOT, .field_count = field_count};
    if (asked_count > GBF_HEADER_SLOTS || field_count > GBF_HEADER_FIELDS)
        return gbf_refuse(fault, GBF_BAD_INPUT, "too many names", asked_count + field_count);
    while (places < 4 * (BUILTIN_COUNT + asked_count + field_count))
        places *= 2;
    plan->mask = places - 1;
    plan->names = calloc(places, sizeof *plan->names);
    plan->text = calloc(BUILTIN_COUNT + asked_count + field_count + 1, GBF_HEADER_NAME_BYTES);
    if (plan->names == NULL || plan->text == NULL) {
        gbf_header_plan_free(plan);
        return GBF_NO_MEMORY;
    }
    for (const builtin *known = BUILTINS; known < BUILTINS + BUILTIN_COUNT; known++) {
        const uint8_t *name = (const uint8_t *)known->name;
        gbf_header_name *made = insert(plan, &text_bytes, name, (uint32_t)strlen(known->name), known->flags);
        made->slot = known->slot;
        made->presence = known->presence < 0 ? 0 : 1u << known->presence;
    }
    plan->joined = UINT64_C(1) << GBF_HEADER_ACCEPT | UINT64_C(1) << GBF_HEADER_ACCEPT_ENCODING |
                   UINT64_C(1) << GBF_HEADER_ORIGIN | UINT64_C(1) << GBF_HEADER_REQUEST_METHOD |
                   UINT64_C(1) << GBF_HEADER_REQUEST_HEADERS | UINT64_C(1) << GBF_HEADER_FETCH_SITE;
    uint8_t tagged[GBF_HEADER_FIELDS * (GBF_HEADER_NAME_BYTES + 1)];
    uint32_t tagged_bytes = 0;
    for (uint32_t i = 0; i < asked_count + field_count; i++) {
        gbf_header_text name = i < asked_count ? asked[i] : fields[i - asked_count];
        gbf_header_name *made = NULL;
        if (fits(name))
            made =
                insert(plan, &text_bytes, name.at, name.nbytes, gbf_header_in_family(name.at, name.nbytes) ? OUT : 0);
        if (made != NULL && made->slot == NO_SLOT && plan->slot_count < GBF_HEADER_SLOTS)
            made->slot = (uint8_t)plan->slot_count++;
        const char *wrong = made == NULL ? "is not a lower-case token of at most 64 bytes" : NULL;
        if (made != NULL && made->slot == NO_SLOT)
            wrong = "is one too many; 49 names besides host, cookie, user-agent, origin and accept-* have room";
        else if (made != NULL && i >= asked_count && (made->flags & OUT))
            wrong = "differs from request to request or is added on the way, so it is never in a fingerprint";
        else if (made != NULL && i >= asked_count && memchr(plan->fields, made->slot, i - asked_count) != NULL)
            wrong = "is listed twice";
        if (wrong != NULL) {
            gbf_header_plan_free(plan);
            return gbf_refuse(fault, GBF_BAD_INPUT, wrong, i);
        }
        plan->joined |= UINT64_C(1) << made->slot;
        if (i < asked_count) {
            slots[i] = made->slot;
            continue;
        }
        plan->fields[i - asked_count] = made->slot;
        memcpy(tagged + tagged_bytes, name.at, name.nbytes);
        tagged_bytes += name.nbytes;
        tagged[tagged_bytes++] = '\n';
    }
    plan->fields_tag = (uint32_t)gbf_xxh3_64(tagged, tagged_bytes, 0);
    plan->keyed = secret != NULL;
    if (plan->keyed)
        memcpy(plan->secret, secret, sizeof plan->secret);
    return GBF_OK;
}

void gbf_header_plan_free(gbf_header_plan *plan)
{
    free(plan->names);
    free(plan->text);
    plan->names = NULL;
    plan->text = NULL;
}

uint32_t gbf_header_slot(const gbf_header_plan *plan, const uint8_t *name, uint32_t nbytes)
{
    const gbf_header_name *known = gbf_header_find(plan, name, nbytes);
    return known == NULL ? GBF_HEADER_NO_SLOT : known->slot;
}
