/* Readers and writers of trace headers. Long because three formats share one context. See gbf_trace.h. */
#include "http/gbf_trace.h"

enum { KEY = 1, KEY_START = 2, VALUE = 4, TOKEN = 8, OCTET = 16 };

#define DIGITS(f)                                                                                                      \
    ['0'] = (f), ['1'] = (f), ['2'] = (f), ['3'] = (f), ['4'] = (f), ['5'] = (f), ['6'] = (f), ['7'] = (f),            \
    ['8'] = (f), ['9'] = (f)
#define CASE(c, f) [c] = (f), [(c) - 32] = (f) & ~(KEY | KEY_START)
#define LETTERS(f)                                                                                                     \
    CASE('a', f), CASE('b', f), CASE('c', f), CASE('d', f), CASE('e', f), CASE('f', f), CASE('g', f), CASE('h', f),    \
        CASE('i', f), CASE('j', f), CASE('k', f), CASE('l', f), CASE('m', f), CASE('n', f), CASE('o', f),              \
        CASE('p', f), CASE('q', f), CASE('r', f), CASE('s', f), CASE('t', f), CASE('u', f), CASE('v', f),              \
        CASE('w', f), CASE('x', f), CASE('y', f), CASE('z', f)

/* What a byte may be part of. VALUE: of tracestate, blank apart; OCTET: of a value in baggage. */
static const uint8_t part_of[256] = {
    DIGITS(KEY | KEY_START | VALUE | TOKEN | OCTET),
    LETTERS(KEY | KEY_START | VALUE | TOKEN | OCTET),
    ['!'] = VALUE | TOKEN | OCTET,
    ['"'] = VALUE,
    ['#'] = VALUE | TOKEN | OCTET,
    ['$'] = VALUE | TOKEN | OCTET,
    ['%'] = VALUE | TOKEN | OCTET,
    ['&'] = VALUE | TOKEN | OCTET,
    ['\''] = VALUE | TOKEN | OCTET,
    ['('] = VALUE | OCTET,
    [')'] = VALUE | OCTET,
    ['*'] = KEY | VALUE | TOKEN | OCTET,
    ['+'] = VALUE | TOKEN | OCTET,
    ['-'] = KEY | VALUE | TOKEN | OCTET,
    ['.'] = VALUE | TOKEN | OCTET,
    ['/'] = KEY | VALUE | OCTET,
    [':'] = VALUE | OCTET,
    [';'] = VALUE,
    ['<'] = VALUE | OCTET,
    ['='] = OCTET,
    ['>'] = VALUE | OCTET,
    ['?'] = VALUE | OCTET,
    ['@'] = KEY | VALUE | OCTET,
    ['['] = VALUE | OCTET,
    ['\\'] = VALUE,
    [']'] = VALUE | OCTET,
    ['^'] = VALUE | TOKEN | OCTET,
    ['_'] = KEY | VALUE | TOKEN | OCTET,
    ['`'] = VALUE | TOKEN | OCTET,
    ['{'] = VALUE | OCTET,
    ['|'] = VALUE | TOKEN | OCTET,
    ['}'] = VALUE | OCTET,
    ['~'] = VALUE | TOKEN | OCTET,
};

GBF_INLINE int blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static gbf_header_text trimmed(const uint8_t *at, const uint8_t *end)
{
    while (at < end && blank(*at))
        at++;
    while (at < end && blank(end[-1]))
        end--;
    return (gbf_header_text){at, (uint32_t)(end - at)};
}

typedef int8_t digits16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t pairs8 __attribute__((vector_size(16)));
typedef uint8_t bytes8 __attribute__((vector_size(8), aligned(1), may_alias));

/* 16 lower-case digits to 8 bytes. Returns 0; for anything else bits that are set, and then the bytes are junk. */
GBF_INLINE uint64_t unhex8(const uint8_t *text, uint8_t *out)
{
    digits16 v = *(const digits16 *)text; /* signed: a byte from 0x80 on is less than any digit */
    digits16 letter = (v >= 'a') & (v <= 'f'), good = ((v >= '0') & (v <= '9')) | letter;
    digits16 nibbles = (v & 15) + (letter & 9);
    pairs8 n = (pairs8)nibbles;
    *(bytes8 *)out = __builtin_convertvector((n << 4 | n >> 8) & 0xFF, bytes8);
    good = ~good;
    return gbf_load64(&good) | gbf_load64((const uint8_t *)&good + 8);
}

GBF_INLINE uint64_t unhex16(const uint8_t *text, uint8_t *out)
{
    return unhex8(text, out) | unhex8(text + 16, out + 8);
}

/* A digit's value, or 256: more than any number of two digits. */
GBF_INLINE uint32_t digit_of(uint8_t c)
{
    return c >= '0' && c <= '9' ? (uint32_t)c - '0' : c >= 'a' && c <= 'f' ? (uint32_t)c - 'a' + 10 : 256;
}

GBF_INLINE int has_span(const gbf_trace *t)
{
    return gbf_load64(t->span_id) != 0;
}

static int none(gbf_trace *trace)
{
    memset(trace, 0, sizeof *trace);
    return 0;
}

int gbf_traceparent_read(const uint8_t *text, uint64_t nbytes, gbf_trace *trace)
{
    memset(trace, 0, sizeof *trace);
    if (nbytes > GBF_TRACEPARENT_MOST)
        return 0;
    while (nbytes > 0 && blank(*text))
        text++, nbytes--;
    if (nbytes < GBF_TRACEPARENT_BYTES)
        return 0;
    uint32_t version = digit_of(text[0]) << 4 | digit_of(text[1]), flags = digit_of(text[53]) << 4 | digit_of(text[54]);
    int good = (unhex16(text + 3, trace->trace_id) | unhex8(text + 36, trace->span_id)) == 0;
    good &= (version < 0xFF) & (flags <= 0xFF) & (text[2] == '-') & (text[35] == '-') & (text[52] == '-');
    good &= gbf_trace_has_ids(trace) & has_span(trace);
    int later = nbytes > GBF_TRACEPARENT_BYTES && version != 0 && text[GBF_TRACEPARENT_BYTES] == '-';
    for (uint64_t i = GBF_TRACEPARENT_BYTES; i < nbytes; i++)
        good &= later ? text[i] >= ' ' || text[i] == '\t' : blank(text[i]);
    trace->flags = flags & GBF_TRACE_WIRE;
    return good ? 1 : none(trace);
}

/* One character of sampling state into flags; 0 for none. */
static int b3_state(uint8_t c, uint8_t *flags)
{
    *flags = c == '1' ? GBF_TRACE_SAMPLED : c == 'd' ? GBF_TRACE_SAMPLED | GBF_TRACE_DEBUG : 0;
    return c == '0' || *flags != 0;
}

/* The same of X-B3-Sampled: also the words of tracers from before the specification, which lets readers take them. Debug is
 * another field's. */
static int b3_sampled(gbf_header_text text, uint8_t *flags)
{
    static const struct {
        uint8_t nbytes, flags;
        char word[6];
    } words[] = {{1, GBF_TRACE_SAMPLED, "1"},    {1, 0, "0"},     {4, GBF_TRACE_SAMPLED, "true"},
                 {4, GBF_TRACE_SAMPLED, "True"}, {5, 0, "false"}, {5, 0, "False"},
                 {1, GBF_TRACE_SAMPLED, "d"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (text.nbytes == words[i].nbytes && memcmp(text.at, words[i].word, text.nbytes) == 0) {
            *flags = words[i].flags;
            return 1;
        }
    return 0;
}

/* A trace id of 16 or 32 digits, which is not zero. */
static int b3_trace_id(gbf_header_text text, gbf_trace *trace)
{
    uint64_t bad = text.nbytes == 32   ? unhex16(text.at, trace->trace_id)
                   : text.nbytes == 16 ? unhex8(text.at, trace->trace_id + 8)
                                       : 1;
    return bad == 0 && gbf_trace_has_ids(trace);
}

int gbf_b3_read(const uint8_t *text, uint64_t nbytes, gbf_trace *trace)
{
    memset(trace, 0, sizeof *trace);
    if (nbytes > GBF_TRACEPARENT_MOST)
        return 0;
    gbf_header_text rest = trimmed(text, text + nbytes);
    if (rest.nbytes == 1)
        return b3_state(rest.at[0], &trace->flags) ? 1 : none(trace);
    uint32_t ids = rest.nbytes > 32 && rest.at[32] == '-' ? 32 : 16, at = ids + 17;
    if (rest.nbytes < at || rest.at[ids] != '-' || !b3_trace_id((gbf_header_text){rest.at, ids}, trace) ||
        unhex8(rest.at + ids + 1, trace->span_id) != 0 || !has_span(trace))
        return none(trace);
    trace->flags = GBF_TRACE_DEFER;
    if (rest.nbytes >= at + 2 && rest.at[at] == '-' && (rest.nbytes == at + 2 || rest.at[at + 2] == '-')) {
        if (!b3_state(rest.at[at + 1], &trace->flags))
            return none(trace);
        at += 2;
    }
    if (rest.nbytes == at + 17 && rest.at[at] == '-' && unhex8(rest.at + at + 1, trace->parent_id) == 0)
        at += 17;
    return rest.nbytes == at ? 1 : none(trace);
}

int gbf_b3_read_multi(const gbf_header_text *one, gbf_trace *trace)
{
    gbf_header_text field[GBF_TRACE_STATE];
    memset(trace, 0, sizeof *trace);
    for (int i = GBF_TRACE_B3_TRACE; i <= GBF_TRACE_B3_FLAGS; i++) {
        if (one[i].nbytes > GBF_TRACEPARENT_MOST)
            return 0;
        field[i] = one[i].at == NULL ? one[i] : trimmed(one[i].at, one[i].at + one[i].nbytes);
    }
    const gbf_header_text *sampled = &field[GBF_TRACE_B3_SAMPLED], *flags = &field[GBF_TRACE_B3_FLAGS],
                          *span = &field[GBF_TRACE_B3_SPAN], *parent = &field[GBF_TRACE_B3_PARENT];
    trace->flags = GBF_TRACE_DEFER;
    if (sampled->at != NULL && !b3_sampled(*sampled, &trace->flags))
        return none(trace);
    if (flags->nbytes == 1 && flags->at[0] == '1')
        trace->flags = GBF_TRACE_SAMPLED | GBF_TRACE_DEBUG;
    if (field[GBF_TRACE_B3_TRACE].at == NULL && span->at == NULL && parent->at == NULL)
        return trace->flags != GBF_TRACE_DEFER ? 1 : none(trace);
    if (field[GBF_TRACE_B3_TRACE].at == NULL || !b3_trace_id(field[GBF_TRACE_B3_TRACE], trace) || span->at == NULL ||
        span->nbytes != 16 || unhex8(span->at, trace->span_id) != 0 || !has_span(trace))
        return none(trace);
    if (parent->at != NULL && (parent->nbytes != 16 || unhex8(parent->at, trace->parent_id) != 0))
        return none(trace);
    return 1;
}

uint32_t gbf_b3_write(const gbf_trace *t, const uint8_t *span_id, uint8_t *out)
{
    uint32_t n = 0;
    if (gbf_trace_has_ids(t)) {
        gbf_trace_hex16(t->trace_id, out);
        out[32] = '-';
        gbf_trace_hex8(span_id, out + 33);
        n = 49;
        if (t->flags & GBF_TRACE_DEFER)
            return n;
        out[n++] = '-';
    }
    out[n++] = t->flags & GBF_TRACE_DEBUG ? 'd' : t->flags & GBF_TRACE_SAMPLED ? '1' : '0';
    if (n > 1 && gbf_load64(t->span_id) != 0) {
        out[n++] = '-';
        gbf_trace_hex8(t->span_id, out + n);
        n += 16;
    }
    return n;
}

int gbf_tracestate_is_key(const uint8_t *text, uint64_t nbytes)
{
    if (nbytes == 0 || nbytes > GBF_TRACESTATE_TEXT || !(part_of[text[0]] & KEY_START))
        return 0;
    for (uint64_t i = 1; i < nbytes; i++)
        if (!(part_of[text[i]] & KEY))
            return 0;
    return 1;
}

int gbf_tracestate_is_value(const uint8_t *text, uint64_t nbytes)
{
    if (nbytes == 0 || nbytes > GBF_TRACESTATE_TEXT || text[nbytes - 1] == ' ')
        return 0;
    for (uint64_t i = 0; i < nbytes; i++)
        if (!(part_of[text[i]] & VALUE) && text[i] != ' ')
            return 0;
    return 1;
}

GBF_INLINE uint32_t hashed(uint32_t hash, uint8_t c)
{
    return (hash ^ c) * UINT32_C(0x01000193);
}

GBF_INLINE uint64_t key_bit(uint32_t hash)
{
    return UINT64_C(1) << (hash >> 26);
}

GBF_INLINE int member_index(const gbf_tracestate *s, const uint8_t *key, uint32_t key_bytes, uint32_t hash)
{
    if (s->keys & key_bit(hash))
        for (uint32_t i = 0; i < s->count; i++)
            if (s->members[i].hash == hash && s->members[i].key_bytes == key_bytes &&
                memcmp(s->members[i].at, key, key_bytes) == 0)
                return (int)i;
    return -1;
}

static int index_of(const gbf_tracestate *s, const uint8_t *key, uint32_t key_bytes)
{
    uint32_t hash = 0;
    for (uint32_t i = 0; i < key_bytes; i++)
        hash = hashed(hash, key[i]);
    return member_index(s, key, key_bytes, hash);
}

/* The first byte from `at` on that no value of tracestate has: 0x00 to 0x1F, comma, `=`, 0x7F and up. */
static const uint8_t *past_value(const uint8_t *at, const uint8_t *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), low = ones * 0x7F, high = ones << 7;
    for (; end - at >= 8; at += 8) {
        uint64_t v = gbf_load64(at), seven = v & low;
        uint64_t good = (seven + ones * (0x80 - 0x20)) & ~(seven + ones) & ((seven ^ ones * ',') + low) &
                        ((seven ^ ones * '=') + low) & ~v & high;
        if (good != high)
            return at + (__builtin_ctzll(~good & high) >> 3);
    }
    while (at < end && (part_of[*at] & VALUE || *at == ' '))
        at++;
    return at;
}

static void drop(gbf_tracestate *s)
{
    s->count = 0;
    s->keys = 0;
    s->dropped = 1;
}

void gbf_tracestate_add(gbf_tracestate *s, const uint8_t *text, uint64_t nbytes)
{
    const uint8_t *at = text, *end = text + nbytes;
    if (s->dropped)
        return;
    if (nbytes > GBF_TRACESTATE_BYTES - s->nbytes) {
        drop(s);
        return;
    }
    s->nbytes += (uint32_t)nbytes;
    for (;;) {
        while (at < end && (blank(*at) || *at == ','))
            at++;
        if (at == end)
            return;
        const uint8_t *key = at;
        uint32_t hash = 0;
        if (part_of[*at] & KEY_START)
            for (; at < end && part_of[*at] & KEY; at++)
                hash = hashed(hash, *at);
        uint64_t key_bytes = (uint64_t)(at - key);
        const uint8_t *value = at + 1;
        if (at == end || *at != '=' || key_bytes == 0 || key_bytes > GBF_TRACESTATE_TEXT) {
            drop(s);
            return;
        }
        const uint8_t *last = at = past_value(value, end);
        while (last > value && last[-1] == ' ')
            last--;
        uint64_t value_bytes = (uint64_t)(last - value);
        while (at < end && blank(*at))
            at++;
        if ((at < end && *at != ',') || value_bytes == 0 || value_bytes > GBF_TRACESTATE_TEXT ||
            s->count + s->twice == GBF_TRACESTATE_MEMBERS) {
            drop(s);
            return;
        }
        if (member_index(s, key, (uint32_t)key_bytes, hash) >= 0) {
            s->twice++;
            continue;
        }
        s->keys |= key_bit(hash);
        s->members[s->count++] = (gbf_trace_member){key, (uint16_t)key_bytes, (uint16_t)value_bytes, hash};
    }
}

static uint32_t put(uint8_t *out, uint32_t n, const uint8_t *text, uint32_t nbytes)
{
    memcpy(out + n, text, nbytes);
    return n + nbytes;
}

uint32_t gbf_tracestate_write(const gbf_tracestate *s, const uint8_t *key, uint32_t key_bytes, const uint8_t *value,
                              uint32_t value_bytes, uint8_t *out)
{
    uint32_t n = 0, room = GBF_TRACESTATE_MEMBERS;
    int ours = key == NULL ? -1 : index_of(s, key, key_bytes);
    if (key != NULL && value_bytes != 0) {
        n = put(out, n, key, key_bytes);
        out[n++] = '=';
        n = put(out, n, value, value_bytes);
        room--;
    }
    for (uint32_t i = 0; i < s->count && room > 0; i++) {
        const gbf_trace_member *m = &s->members[i];
        if ((int)i == ours)
            continue;
        if (n > 0)
            out[n++] = ',';
        n = put(out, n, m->at, (uint32_t)m->key_bytes + 1 + m->value_bytes);
        room--;
    }
    return n;
}

const uint8_t *gbf_tracestate_get(const gbf_tracestate *s, const uint8_t *key, uint32_t key_bytes, uint32_t *nbytes)
{
    int i = index_of(s, key, key_bytes);
    *nbytes = i < 0 ? 0 : s->members[i].value_bytes;
    return i < 0 ? NULL : s->members[i].at + key_bytes + 1;
}

/* Skips blanks. */
GBF_INLINE const uint8_t *past_blanks(const uint8_t *at, const uint8_t *end)
{
    while (at < end && blank(*at))
        at++;
    return at;
}

GBF_INLINE gbf_header_text run_of(const uint8_t **at, const uint8_t *end, uint8_t part)
{
    const uint8_t *start = *at;
    while (*at < end && part_of[**at] & part)
        ++*at;
    return (gbf_header_text){start, (uint32_t)(*at - start)};
}

/* A key, and a value when there is `=`, with the blanks behind. 0 without a key. */
static int key_and_value(const uint8_t **at, const uint8_t *end, gbf_header_text *key, gbf_header_text *value)
{
    *at = past_blanks(*at, end);
    *key = run_of(at, end, TOKEN);
    *value = (gbf_header_text){NULL, 0};
    *at = past_blanks(*at, end);
    if (*at < end && **at == '=') {
        *at = past_blanks(*at + 1, end);
        *value = run_of(at, end, OCTET);
        *at = past_blanks(*at, end);
    }
    return key->nbytes > 0;
}

int gbf_baggage_next(const uint8_t **at, const uint8_t *end, gbf_baggage_member *member)
{
    while (*at < end) {
        const uint8_t *c = *at, *stop = memchr(c, ',', (size_t)(end - c));
        stop = stop == NULL ? end : stop;
        *at = stop + (stop < end);
        if (!key_and_value(&c, stop, &member->key, &member->value) || member->value.at == NULL)
            continue;
        gbf_header_text key, value;
        member->properties = (gbf_header_text){c, (uint32_t)(stop - c)};
        int good = 1;
        while (good && c < stop && *c == ';') {
            c++;
            good = key_and_value(&c, stop, &key, &value);
        }
        if (!good || c < stop)
            continue;
        while (blank(stop[-1]))
            stop--;
        member->whole = (gbf_header_text){member->key.at, (uint32_t)(stop - member->key.at)};
        return 1;
    }
    return 0;
}

int gbf_baggage_property(gbf_header_text *rest, gbf_header_text *key, gbf_header_text *value)
{
    const uint8_t *at = rest->at, *end = rest->at + rest->nbytes;
    if (at == end || *at != ';')
        return 0;
    at++;
    int good = key_and_value(&at, end, key, value);
    *rest = (gbf_header_text){at, (uint32_t)(end - at)};
    return good;
}

uint32_t gbf_baggage_gather(const gbf_header_text *lines, uint32_t count, uint8_t *out)
{
    uint32_t n = 0, members = 0, looked = 0; /* looked: bytes, and a comma between lines */
    for (uint32_t i = 0; i < count && looked <= GBF_BAGGAGE_BYTES; i++) {
        const uint8_t *at = lines[i].at, *end = at + lines[i].nbytes;
        uint32_t room = GBF_BAGGAGE_BYTES - looked;
        looked += (lines[i].nbytes < room ? lines[i].nbytes : room) + 1;
        if (lines[i].nbytes > room) /* what is cut goes as a whole */
            for (looked++, end = at + room; end > at && *end != ','; end--)
                ;
        gbf_baggage_member member;
        while (members < GBF_BAGGAGE_MEMBERS && gbf_baggage_next(&at, end, &member)) {
            if (members++ > 0)
                out[n++] = ',';
            n = put(out, n, member.whole.at, member.whole.nbytes);
        }
    }
    return n;
}

static uint32_t hex_of(uint8_t c)
{
    return digit_of(c >= 'A' && c <= 'F' ? c | 32 : c);
}

uint32_t gbf_percent_decode(const uint8_t *text, uint32_t nbytes, uint8_t *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < nbytes; i++) {
        out[n++] = text[i];
        if (text[i] == '%' && nbytes - i > 2 && (hex_of(text[i + 1]) | hex_of(text[i + 2])) < 16) {
            out[n - 1] = (uint8_t)(hex_of(text[i + 1]) << 4 | hex_of(text[i + 2]));
            i += 2;
        }
    }
    return n;
}

uint32_t gbf_percent_encode(const uint8_t *text, uint32_t nbytes, uint8_t *out)
{
    static const uint8_t digits[16] = "0123456789ABCDEF";
    uint32_t n = 0;
    for (uint32_t i = 0; i < nbytes; i++) {
        uint8_t c = text[i];
        if (part_of[c] & OCTET && c != '%' && c != '=') { /* `=` may stand; some readers split at each */
            out[n++] = c;
        } else {
            out[n++] = '%';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
    }
    return n;
}

int gbf_baggage_is_key(const uint8_t *text, uint64_t nbytes)
{
    for (uint64_t i = 0; i < nbytes; i++)
        if (!(part_of[text[i]] & TOKEN))
            return 0;
    return nbytes > 0;
}

gbf_trace_field gbf_trace_field_of(const uint8_t *name, uint64_t nbytes, int cgi)
{
    static const struct {
        uint8_t nbytes;
        char name[17];
    } fields[GBF_TRACE_FIELDS] = {
        [GBF_TRACE_PARENT] = {11, "traceparent"},
        [GBF_TRACE_STATE] = {10, "tracestate"},
        [GBF_TRACE_BAGGAGE] = {7, "baggage"},
        [GBF_TRACE_B3] = {2, "b3"},
        [GBF_TRACE_B3_TRACE] = {12, "x-b3-traceid"},
        [GBF_TRACE_B3_SPAN] = {11, "x-b3-spanid"},
        [GBF_TRACE_B3_SAMPLED] = {12, "x-b3-sampled"},
        [GBF_TRACE_B3_FLAGS] = {10, "x-b3-flags"},
        [GBF_TRACE_B3_PARENT] = {17, "x-b3-parentspanid"},
    };
    uint8_t folded[17];
    if (cgi) {
        if (nbytes < 5 || memcmp(name, "HTTP_", 5) != 0)
            return GBF_TRACE_NO_FIELD;
        name += 5;
        nbytes -= 5;
    }
    if (nbytes > sizeof folded || !(UINT32_C(0x21C84) >> nbytes & 1)) /* lengths 2, 7, 10, 11, 12, 17 */
        return GBF_TRACE_NO_FIELD;
    for (uint64_t i = 0; i < nbytes; i++)
        folded[i] = (uint8_t)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 32 : cgi && name[i] == '_' ? '-' : name[i]);
    for (int field = GBF_TRACE_PARENT; field < GBF_TRACE_FIELDS; field++)
        if (fields[field].nbytes == nbytes && memcmp(fields[field].name, folded, nbytes) == 0)
            return (gbf_trace_field)field;
    return GBF_TRACE_NO_FIELD;
}

void gbf_trace_add(gbf_trace_headers *h, gbf_trace_field field, const uint8_t *text, uint64_t nbytes)
{
    gbf_header_text line = {text, nbytes > UINT32_MAX ? UINT32_MAX : (uint32_t)nbytes}; /* past every limit anyway */
    if (field == GBF_TRACE_STATE || field == GBF_TRACE_BAGGAGE) {
        uint32_t *count = field == GBF_TRACE_STATE ? &h->state_lines : &h->baggage_lines;
        if (*count < GBF_TRACE_LINES)
            (field == GBF_TRACE_STATE ? h->state : h->baggage)[*count] = line;
        *count += *count <= GBF_TRACE_LINES; /* one more says that there were more */
        return;
    }
    h->parents += field == GBF_TRACE_PARENT;
    if (h->one[field].at == NULL)
        h->one[field] = line;
}

gbf_trace_source gbf_trace_read(const gbf_trace_headers *h, uint32_t speaks, gbf_trace *trace, gbf_tracestate *state)
{
    const gbf_header_text *parent = &h->one[GBF_TRACE_PARENT], *b3 = &h->one[GBF_TRACE_B3];
    gbf_tracestate_start(state);
    if (speaks & GBF_TRACE_SPEAKS_W3C && h->parents == 1 && gbf_traceparent_read(parent->at, parent->nbytes, trace)) {
        uint64_t together = 0;
        for (uint32_t i = 0; i < h->state_lines && i < GBF_TRACE_LINES; i++)
            together += h->state[i].nbytes + (i > 0);
        if (h->state_lines > GBF_TRACE_LINES || together > GBF_TRACESTATE_MOST)
            drop(state);
        for (uint32_t i = 0; i < h->state_lines && !state->dropped; i++)
            gbf_tracestate_add(state, h->state[i].at, h->state[i].nbytes);
        return GBF_TRACE_FROM_PARENT;
    }
    if (speaks & (GBF_TRACE_SPEAKS_B3 | GBF_TRACE_SPEAKS_B3_MULTI)) {
        if (b3->at != NULL && gbf_b3_read(b3->at, b3->nbytes, trace))
            return GBF_TRACE_FROM_B3;
        if (gbf_b3_read_multi(h->one, trace))
            return GBF_TRACE_FROM_B3_MULTI;
    }
    memset(trace, 0, sizeof *trace);
    return GBF_TRACE_NOTHING;
}
