#include "address/gbf_addr.h"

/* Dotted quad in [p, end); 1 and *out when it is one. */
static int parse4(const char *p, const char *end, uint32_t *out)
{
    uint32_t address = 0;
    for (int octet = 0; octet < 4; octet++) {
        if (octet > 0 && (p == end || *p++ != '.'))
            return 0;
        const char *first = p;
        uint32_t value = 0;
        while (p < end && p - first < 3 && (uint8_t)(*p - '0') <= 9)
            value = value * 10 + (uint32_t)(*p++ - '0');
        if (p == first || value > 255 || (*first == '0' && p - first > 1))
            return 0;
        address = address << 8 | value;
    }
    *out = address;
    return p == end;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* IPv6 in [p, end), no zone; 1 and *out when it is one. */
static int parse6(const char *p, const char *end, gbf_addr *out)
{
    uint16_t group[8];
    int count = 0, gap = -1; /* gap: number of groups before "::" */

    if (end - p >= 2 && p[0] == ':' && p[1] == ':') {
        gap = 0;
        p += 2;
    }
    while (p < end) {
        const char *first = p;
        uint32_t value = 0;
        int digit;
        while (p < end && p - first < 4 && (digit = hex_value(*p)) >= 0) {
            value = value << 4 | (uint32_t)digit;
            p++;
        }
        if (p < end && *p == '.') {
            uint32_t tail;
            if (count > 6 || !parse4(first, end, &tail))
                return 0;
            group[count++] = (uint16_t)(tail >> 16);
            group[count++] = (uint16_t)tail;
            p = end;
            break;
        }
        if (p == first || count == 8)
            return 0;
        group[count++] = (uint16_t)value;
        if (p == end)
            break;
        if (*p++ != ':' || p == end)
            return 0;
        if (*p == ':') {
            if (gap >= 0)
                return 0;
            gap = count;
            p++;
        }
    }
    if (gap < 0 ? count != 8 : count > 7)
        return 0;
    gbf_u128 number = 0;
    for (int i = 0; i < count; i++) {
        if (i == gap)
            number <<= 16 * (8 - count);
        number = number << 16 | group[i];
    }
    if (gap == count && count > 0)
        number <<= 16 * (8 - count);
    *out = gbf_addr_of(number);
    return 1;
}

static int parse_unzoned(const char *text, const char *end, gbf_addr *out)
{
    uint32_t v4;
    if (parse4(text, end, &v4)) {
        *out = gbf_addr_from4(v4);
        return 1;
    }
    return parse6(text, end, out);
}

int gbf_addr_parse(const char *text, size_t n, gbf_addr *out)
{
    const char *zone = n > 0 ? memchr(text, '%', n) : NULL;
    if (zone == NULL)
        return parse_unzoned(text, text + n, out);
    size_t zone_bytes = (size_t)(text + n - zone) - 1;
    if (zone_bytes == 0 || memchr(zone + 1, '%', zone_bytes) != NULL || memchr(zone + 1, '/', zone_bytes) != NULL)
        return 0;
    return parse6(text, zone, out);
}

gbf_prefix_problem gbf_addr_parse_prefix(const char *text, size_t n, gbf_addr *address, uint32_t *bits)
{
    const char *end = text + n;
    const char *slash = n > 0 ? memchr(text, '/', n) : NULL;
    if (!parse_unzoned(text, slash != NULL ? slash : end, address))
        return GBF_PREFIX_BAD_ADDRESS;
    /* "::ffff:0:0/96" is IPv4 too, but its length is written in IPv6 bits. */
    const char *colon = memchr(text, ':', n);
    uint32_t offset = colon == NULL ? 96 : 0;
    if (slash == NULL) {
        *bits = 128;
        return GBF_PREFIX_FINE;
    }
    const char *p = slash + 1;
    uint32_t length = 0;
    if (p == end || end - p > 3 || (*p == '0' && end - p > 1))
        return GBF_PREFIX_BAD_LENGTH;
    for (; p < end; p++) {
        if ((uint8_t)(*p - '0') > 9)
            return GBF_PREFIX_BAD_LENGTH;
        length = length * 10 + (uint32_t)(*p - '0');
    }
    if (length > 128 - offset)
        return GBF_PREFIX_BAD_LENGTH;
    *bits = offset + length;
    if (gbf_addr_number(*address) & gbf_addr_hostmask(*bits))
        return GBF_PREFIX_HOST_BITS;
    return GBF_PREFIX_FINE;
}

static char *write_decimal(char *p, uint32_t value)
{
    if (value >= 100)
        *p++ = (char)('0' + value / 100);
    if (value >= 10)
        *p++ = (char)('0' + value / 10 % 10);
    *p++ = (char)('0' + value % 10);
    return p;
}

static char *write_group(char *p, uint32_t value)
{
    int shift = 12;
    while (shift > 0 && value >> shift == 0)
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        *p++ = "0123456789abcdef"[value >> shift & 15];
    return p;
}

size_t gbf_addr_format(gbf_addr address, char *text)
{
    char *p = text;
    if (gbf_addr_is4(address)) {
        for (int shift = 24; shift >= 0; shift -= 8) {
            if (shift < 24)
                *p++ = '.';
            p = write_decimal(p, (uint32_t)(address.low >> shift) & 255);
        }
        return (size_t)(p - text);
    }
    uint32_t group[8];
    for (int i = 0; i < 4; i++) {
        group[i] = (uint32_t)(address.high >> (48 - 16 * i)) & 0xFFFF;
        group[4 + i] = (uint32_t)(address.low >> (48 - 16 * i)) & 0xFFFF;
    }
    int gap = -1, gap_groups = 1; /* longest run of two or more zero groups, first one on a tie */
    for (int i = 0; i < 8; i++) {
        int run = 0;
        while (i + run < 8 && group[i + run] == 0)
            run++;
        if (run > gap_groups) {
            gap = i;
            gap_groups = run;
        }
        i += run;
    }
    for (int i = 0; i < 8; i++) {
        if (i == gap) {
            *p++ = ':';
            *p++ = ':';
            i += gap_groups - 1;
            continue;
        }
        if (i > 0 && i != gap + gap_groups)
            *p++ = ':';
        p = write_group(p, group[i]);
    }
    return (size_t)(p - text);
}
