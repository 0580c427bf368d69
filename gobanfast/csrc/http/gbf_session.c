#include "http/gbf_session.h"

/* What servers cut off around a name or a value: str.strip() of Latin-1 is the widest. */
static int is_blank(uint8_t c)
{
    return c <= ' ' || c == 0x85 || c == 0xA0;
}

static int digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

uint32_t gbf_session_decode(const gbf_session_value *value, uint8_t *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < value->nbytes; i++) {
        out[n++] = value->plus && value->at[i] == '+' ? ' ' : value->at[i];
        while (n >= 3 && out[n - 3] == '%' && digit(out[n - 2]) >= 0 && digit(out[n - 1]) >= 0) {
            out[n - 3] = (uint8_t)(digit(out[n - 2]) << 4 | digit(out[n - 1])); /* which may end another escape */
            n -= 2;
        }
    }
    return n;
}

void gbf_session_add(gbf_session_values *v, const uint8_t *at, uint64_t nbytes, uint32_t plus)
{
    if (nbytes == 0)
        return;
    for (uint32_t i = 0; i < v->count; i++) {
        if (v->value[i].nbytes == nbytes && memcmp(v->value[i].at, at, nbytes) == 0)
            return;
    }
    if (nbytes > GBF_SESSION_BYTES || v->count == GBF_SESSION_VALUES)
        v->malformed = 1;
    else
        v->value[v->count++] = (gbf_session_value){at, (uint32_t)nbytes, plus};
}

void gbf_session_cookie(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, const uint8_t *name,
                        uint32_t name_bytes)
{
    const uint8_t *end = text + nbytes;
    if (nbytes > GBF_SESSION_READ) {
        v->malformed = 1;
        return;
    }
    while (text < end && !v->malformed) {
        const uint8_t *semicolon = memchr(text, ';', (size_t)(end - text)), *last = semicolon == NULL ? end : semicolon;
        const uint8_t *first = text, *next = semicolon == NULL ? end : semicolon + 1;
        while (first < last && is_blank(*first))
            first++;
        const uint8_t *equals = memchr(first, '=', (size_t)(last - first));
        text = next;
        if (equals == NULL)
            continue;
        const uint8_t *behind = equals;
        while (behind > first && is_blank(behind[-1]))
            behind--;
        if ((uint64_t)(behind - first) != name_bytes || memcmp(first, name, name_bytes) != 0)
            continue;
        first = equals + 1;
        while (first < last && is_blank(*first))
            first++;
        while (last > first && is_blank(last[-1]))
            last--;
        if (last - first >= 2 && *first == '"' && last[-1] == '"') {
            first++;
            last--;
            if (memchr(first, '\\', (size_t)(last - first)) !=
                NULL) { /* no browser sends it, some servers read octal in it */
                v->malformed = 1;
                return;
            }
        }
        gbf_session_add(v, first, (uint64_t)(last - first), 0);
    }
}

void gbf_session_header(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, int repeated, int scheme)
{
    const uint8_t *end = text + nbytes;
    while (text < end && !v->malformed) {
        const uint8_t *comma = repeated ? memchr(text, ',', (size_t)(end - text)) : NULL;
        const uint8_t *first = text, *last = comma == NULL ? end : comma;
        text = comma == NULL ? end : comma + 1;
        while (first < last && is_blank(*first))
            first++;
        while (last > first && is_blank(last[-1]))
            last--;
        const uint8_t *word = first;
        while (scheme && word < last && !is_blank(*word))
            word++;
        if (word < last && scheme) {
            while (is_blank(*word)) /* ends: the last byte is none */
                word++;
            first = word;
        }
        gbf_session_add(v, first, (uint64_t)(last - first), 0);
    }
}

/* Whether a name as written is the name, its escapes decoded. */
static int is_name(const uint8_t *at, uint64_t nbytes, const uint8_t *name, uint32_t name_bytes)
{
    uint8_t decoded[192];
    if (nbytes == name_bytes)
        return memcmp(at, name, nbytes) == 0;
    if (nbytes < name_bytes || nbytes > 3 * (uint64_t)name_bytes || nbytes > sizeof decoded)
        return 0;
    const gbf_session_value written = {at, (uint32_t)nbytes, 1};
    return gbf_session_decode(&written, decoded) == name_bytes && memcmp(decoded, name, name_bytes) == 0;
}

void gbf_session_query(gbf_session_values *v, const uint8_t *text, uint64_t nbytes, const uint8_t *name,
                       uint32_t name_bytes)
{
    const uint8_t *end = text + nbytes;
    if (nbytes > GBF_SESSION_READ) {
        v->malformed = 1;
        return;
    }
    while (text < end && !v->malformed) {
        const uint8_t *and = memchr(text, '&', (size_t)(end - text)), *last = and== NULL ? end : and;
        const uint8_t *equals = memchr(text, '=', (size_t)(last - text));
        if (equals != NULL && is_name(text, (uint64_t)(equals - text), name, name_bytes))
            gbf_session_add(v, equals + 1, (uint64_t)(last - equals - 1), 1);
        text = and== NULL ? end : and+1;
    }
}
