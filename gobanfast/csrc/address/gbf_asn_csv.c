#include "address/gbf_asn_build.h"

/* One field of a row: the text between delimiters, or between quotes. */
typedef struct {
    const char *text;
    uint32_t nbytes;
    int quoted, escaped;
} field;

static int is_space(char c)
{
    return c == ' ' || c == '\t';
}

static field trimmed(const char *text, const char *end)
{
    while (text < end && is_space(*text))
        text++;
    while (text < end && is_space(end[-1]))
        end--;
    return (field){text, (uint32_t)(end - text), 0, 0};
}

/* The quoted field that opens at `text`; *next becomes the delimiter after it, or `end`. Returns -1, or what is
 * wrong with *out. */
static int quoted_field(const char *text, const char *end, char delimiter, field *out, const char **next)
{
    const char *p = text + 1;
    int escaped = 0;
    for (;;) {
        p = memchr(p, '"', (size_t)(end - p));
        if (p == NULL) {
            *out = (field){text, (uint32_t)(end - text), 1, 0};
            return GBF_ASN_OPEN_QUOTE;
        }
        if (p + 1 == end || p[1] != '"')
            break;
        escaped = 1;
        p += 2;
    }
    *out = (field){text + 1, (uint32_t)(p - text - 1), 1, escaped};
    const char *after = p + 1;
    while (after < end && *after != delimiter && is_space(*after))
        after++;
    *next = after;
    if (after == end || *after == delimiter)
        return -1;
    *out = (field){after, (uint32_t)(end - after), 1, 0};
    return GBF_ASN_AFTER_QUOTE;
}

/* Splits line..end into at most `needed` fields. Returns their number, or -1 - the number of a field whose quotes are
 * `*wrong`. */
static int split(const char *line, const char *end, const gbf_asn_layout *layout, int needed, field *fields, int *wrong)
{
    const char *p = line;
    for (int n = 0; n < needed; n++) {
        const char *next = end;
        while (p < end && *p != layout->delimiter && is_space(*p))
            p++;
        if (p < end && *p == '"') {
            *wrong = quoted_field(p, end, layout->delimiter, &fields[n], &next);
            if (*wrong >= 0)
                return -1 - n;
        } else {
            if (n != layout->name || !layout->name_is_last) {
                next = memchr(p, layout->delimiter, (size_t)(end - p));
                next = next == NULL ? end : next;
            }
            fields[n] = trimmed(p, next);
        }
        if (next == end)
            return n + 1;
        p = next + 1;
    }
    return needed;
}

/* "13335" or "AS13335"; empty is AS 0. GBF_NONE is no AS number: RFC 7300 keeps 4294967295 out of use. */
static int parse_number(const field *f, uint32_t *asn)
{
    const char *p = f->text, *end = p + f->nbytes;
    uint64_t value = 0;
    if (end - p > 2 && (p[0] | 0x20) == 'a' && (p[1] | 0x20) == 's')
        p += 2;
    if (end - p > 10 || (end - p > 1 && *p == '0'))
        return 0;
    for (; p < end; p++) {
        if ((uint8_t)(*p - '0') > 9)
            return 0;
        value = 10 * value + (uint8_t)(*p - '0');
    }
    *asn = (uint32_t)value;
    return value < GBF_NONE;
}

/* Bytes of the UTF-8 character at p, or 0 when it is none (RFC 3629: no surrogates, no overlong forms). */
static int utf8_bytes(const unsigned char *p, const unsigned char *end)
{
    int n = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (n == 0 || end - p < n)
        return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
        (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return n;
}

static int is_name(const field *f)
{
    const unsigned char *p = (const unsigned char *)f->text, *end = p + f->nbytes;
    if (f->nbytes > GBF_ASN_MAX_NAME)
        return 0;
    while (p < end) {
        int n = *p < 0x20 || *p == 0x7F ? 0 : utf8_bytes(p, end);
        if (n == 0)
            return 0;
        p += n;
    }
    return 1;
}

/* Adds what one row says. Returns -1 when it is good, or what is wrong with field *at. */
static int take(gbf_asn_rows *rows, const gbf_asn_layout *layout, const field *fields, int count, int *at,
                gbf_status *status)
{
    gbf_addr first = {0, 0}, last = {0, 0};
    uint32_t bits = 0, asn;
    const field *name = layout->name >= 0 && layout->name < count ? &fields[layout->name] : NULL;
    if (layout->prefix >= 0) {
        const field *f = &fields[ *at = layout->prefix];
        if (gbf_addr_parse_prefix(f->text, f->nbytes, &first, &bits) != GBF_PREFIX_FINE)
            return GBF_ASN_BAD_PREFIX;
    } else if (layout->first >= 0) {
        const field *f = &fields[ *at = layout->first];
        if (!gbf_addr_parse(f->text, f->nbytes, &first))
            return GBF_ASN_BAD_ADDRESS;
        f = &fields[ *at = layout->last];
        if (!gbf_addr_parse(f->text, f->nbytes, &last))
            return GBF_ASN_BAD_ADDRESS;
        if (gbf_addr_is4(first) != gbf_addr_is4(last) || gbf_addr_number(first) > gbf_addr_number(last))
            return GBF_ASN_BAD_RANGE;
    }
    if (!parse_number(&fields[ *at = layout->asn], &asn))
        return GBF_ASN_BAD_NUMBER;
    if (name != NULL && !is_name(name)) {
        *at = layout->name;
        return GBF_ASN_BAD_NAME;
    }
    if (asn == 0) {
        rows->no_asn++;
        return -1;
    }
    if (layout->prefix >= 0)
        *status = gbf_asn_add(rows, first, bits, asn);
    else if (layout->first >= 0)
        *status = gbf_asn_add_range(rows, first, last, asn);
    if (*status == GBF_OK && name != NULL && name->nbytes != 0 && (name->quoted || name->nbytes >= layout->name_least))
        *status = gbf_asn_put_name(rows, asn, name->text, name->nbytes, name->escaped);
    return -1;
}

static int most(int a, int b)
{
    return a > b ? a : b;
}

gbf_status gbf_asn_scan(gbf_asn_rows *rows, const gbf_asn_layout *layout, const char *text, uint64_t nbytes,
                        uint64_t start, uint64_t line)
{
    field fields[GBF_ASN_MAX_COLUMNS];
    int least = 1 + most(most(layout->prefix, layout->last), most(layout->first, layout->asn));
    int needed = most(least, layout->name + 1);
    const char *end_of_text = text + nbytes;
    gbf_status status = GBF_OK;
    for (const char *p = text + start, *next; p < end_of_text && status == GBF_OK; p = next, line++) {
        const char *end = memchr(p, '\n', (size_t)(end_of_text - p));
        next = end == NULL ? end_of_text : end + 1;
        end = end == NULL ? end_of_text : end;
        end -= end > p && end[-1] == '\r';
        const char *content = p;
        while (content < end && is_space(*content))
            content++;
        if (content == end || *content == '#')
            continue;
        rows->row_count++;
        int wrong = GBF_ASN_FEW_COLUMNS, at = 0;
        field whole = trimmed(p, end);
        int count = split(p, end, layout, needed, fields, &wrong);
        const field *bad = &whole;
        if (count < 0) {
            bad = &fields[-1 - count];
        } else if (count >= least) {
            wrong = take(rows, layout, fields, count, &at, &status);
            bad = &fields[at];
        }
        if (wrong < 0)
            continue;
        if (rows->problem_count < GBF_ASN_MAX_PROBLEMS)
            rows->problems[rows->problem_count] = (gbf_asn_problem){
                line, (uint64_t)(p - text), (uint64_t)(bad->text - text), bad->nbytes, (gbf_asn_wrong)wrong};
        rows->problem_count++;
    }
    return status;
}
