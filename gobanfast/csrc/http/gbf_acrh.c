#include "http/gbf_acrh.h"

static int is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* Below, equal or above zero, as memcmp, the shorter of two that begin alike first. */
static int compare(const uint8_t *a, uint32_t a_nbytes, const uint8_t *b, uint32_t b_nbytes)
{
    int order = memcmp(a, b, a_nbytes < b_nbytes ? a_nbytes : b_nbytes);
    return order != 0 ? order : a_nbytes < b_nbytes ? -1 : a_nbytes > b_nbytes;
}

/* 1 for a token in lower case (RFC 9110, section 5.6.2). */
static int is_token(const uint8_t *name, uint32_t n)
{
    static const uint64_t token[2] = {UINT64_C(0x03FF6CFA00000000), UINT64_C(0x57FFFFFFC0000000)};
    for (uint32_t i = 0; i < n; i++)
        if (name[i] > 127 || !(token[name[i] >> 6] >> (name[i] & 63) & 1))
            return 0;
    return 1;
}

/* 1 when the set has the name at or behind walk->at, which moves behind it. */
static int is_listed(const gbf_acrh *allowed, gbf_acrh_walk *walk, const uint8_t *name, uint32_t n)
{
    for (; walk->at < allowed->count; walk->at++) {
        uint32_t start = walk->at == 0 ? 0 : allowed->ends[walk->at - 1];
        int order = compare(allowed->text + start, allowed->ends[walk->at] - start, name, n);
        if (order >= 0) {
            walk->at += order == 0;
            return order == 0;
        }
    }
    return 0;
}

static int is_allowed(const gbf_acrh *allowed, gbf_acrh_walk *walk, const uint8_t *name, uint32_t n)
{
    if (!allowed->any)
        return is_listed(allowed, walk, name, n);
    if (walk->names++ == GBF_ACRH_NAMES || (walk->last != NULL && compare(walk->last, walk->last_nbytes, name, n) >= 0))
        return 0;
    walk->last = name;
    walk->last_nbytes = n;
    if (is_listed(allowed, walk, name, n))
        return 1;
    return n <= GBF_ACRH_NBYTES && is_token(name, n) && !(n == 13 && memcmp(name, "authorization", 13) == 0);
}

int gbf_acrh_line(const gbf_acrh *allowed, gbf_acrh_walk *walk, const uint8_t *text, uint64_t n)
{
    uint32_t longest = allowed->any && allowed->longest < GBF_ACRH_NBYTES ? GBF_ACRH_NBYTES : allowed->longest;
    const uint8_t *end = text + n;
    for (;;) {
        uint64_t left = (uint64_t)(end - text), most = (uint64_t)longest + GBF_ACRH_BLANKS + 1;
        const uint8_t *comma = left == 0 ? NULL : memchr(text, ',', left < most ? left : most);
        const uint8_t *past = comma != NULL ? comma : end;
        uint32_t blanks = 0;
        if ((uint64_t)(past - text) >= most)
            return 0;
        for (; text < past && is_blank(*text); text++)
            blanks++;
        const uint8_t *stop = past;
        for (; stop > text && is_blank(stop[-1]); stop--)
            blanks++;
        if (blanks > GBF_ACRH_BLANKS)
            return 0;
        if (stop == text ? walk->empty++ == GBF_ACRH_EMPTY : !is_allowed(allowed, walk, text, (uint32_t)(stop - text)))
            return 0;
        if (comma == NULL)
            return 1;
        text = comma + 1;
    }
}
