/* Session values of any header or query: each lies in the text, is not empty, comes once and is not too long; a value that is decoded
 * is no longer than it was, and has no escape left. */
#include "fuzz.h"
#include "http/gbf_session.h"

static void check(const gbf_session_values *v, const uint8_t *text, size_t nbytes)
{
    uint8_t decoded[GBF_SESSION_BYTES], again[GBF_SESSION_BYTES];
    must(v->count <= GBF_SESSION_VALUES);
    for (uint32_t i = 0; i < v->count; i++) {
        const gbf_session_value *one = &v->value[i];
        must(one->nbytes > 0 && one->nbytes <= GBF_SESSION_BYTES && one->at >= text &&
             one->at + one->nbytes <= text + nbytes);
        for (uint32_t k = 0; k < i; k++)
            must(v->value[k].nbytes != one->nbytes || memcmp(v->value[k].at, one->at, one->nbytes) != 0);
        uint32_t n = gbf_session_decode(one, decoded);
        const gbf_session_value once = {decoded, n, 0};
        must(n <= one->nbytes && gbf_session_decode(&once, again) == n && memcmp(again, decoded, n) == 0);
        gbf_hash128 a = gbf_session_hash(decoded, one), b = gbf_siphash128(decoded, decoded, n);
        must(n < GBF_SIPHASH_KEY_BYTES || (a.low == b.low && a.high == b.high));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const uint8_t name[] = "sid";
    uint8_t *text = exact(data, nbytes);
    gbf_session_values cookies, query;
    cookies.count = cookies.malformed = query.count = query.malformed = 0;
    gbf_session_cookie(&cookies, text, nbytes, name, 3);
    check(&cookies, text, nbytes);
    gbf_session_query(&query, text, nbytes, name, 3);
    check(&query, text, nbytes);
    for (int i = 0; i < 4; i++) {
        gbf_session_values header;
        header.count = header.malformed = 0;
        gbf_session_header(&header, text, nbytes, i & 1, i >> 1);
        check(&header, text, nbytes);
    }
    free(text);
    return 0;
}
