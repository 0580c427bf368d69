#include "batch/gbf_log.h"

#include "base/gbf_cpu.h"
#include "hash/gbf_xxh3.h"

uint32_t gbf_log_index_scalar(const uint8_t *text, uint32_t nbytes, uint32_t *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < nbytes; i++) {
        out[count] = i;
        count += text[i] < 0x20 || text[i] == '"' || text[i] == '\\';
    }
    return count;
}

gbf_log_index gbf_log_index_pick(uint32_t features)
{
#if defined(__x86_64__)
    if (features & GBF_CPU_AVX2)
        return gbf_log_index_avx2;
#endif
    (void)features;
    return gbf_log_index_scalar;
}

uint32_t gbf_log_count(const uint8_t *text, const uint32_t *marks, uint32_t count)
{
    uint32_t lines = 0;
    for (uint32_t i = 0; i < count; i++)
        lines += text[marks[i]] == '\n';
    return lines;
}

/* A line, and the marks in it: from mark `first` on, before mark `last`. */
typedef struct {
    const uint8_t *text;
    const uint32_t *marks;
    uint32_t start, end, first, last, row;
} line;

GBF_INLINE void put(const gbf_log_rows *rows, const line *l, uint32_t column, uint32_t from, uint32_t to)
{
    rows->at[(uint64_t)column * rows->room + l->row] = from;
    rows->nbytes[(uint64_t)column * rows->room + l->row] = to - from;
}

/* Mark of the quote that closes a text which opens at mark `open`, or l->last. */
GBF_INLINE uint32_t closing(const line *l, uint32_t open)
{
    uint32_t at = open + 1;
    while (at < l->last && l->text[l->marks[at]] != '"') {
        int escape = l->text[l->marks[at]] == '\\';
        at++;
        if (escape && at < l->last && l->marks[at] == l->marks[at - 1] + 1)
            at++; /* what it escapes */
    }
    return at;
}

/* A blank of Latin-1, as the slow reader has them, or a control character. */
GBF_INLINE int blank(uint8_t c)
{
    return c <= 0x20 || c == 0x85 || c == 0xa0;
}

/* 1 when there are exactly two words between `from` and `to`, each with one space in front, and one more at the end. */
static int two_words(const uint8_t *text, uint32_t from, uint32_t to)
{
    uint32_t words = 0;
    if (to - from < 5 || text[from] != ' ' || text[to - 1] != ' ')
        return 0;
    for (uint32_t i = from + 1; i < to; i++) {
        if (!blank(text[i]))
            continue;
        if (text[i] != ' ' || text[i - 1] == ' ')
            return 0;
        words++;
    }
    return words == 2;
}

/* End of method and path in "GET /a?b HTTP/1.1", which is at `from`..`to`: the rest says nothing. 0: it has another form. */
static uint32_t cut_request(const uint8_t *text, uint32_t from, uint32_t to)
{
    uint32_t i = from;
    if (to - from < 14 || text[to - 1] < '0' || text[to - 1] > '9')
        return 0;
    uint32_t version = to - (text[to - 2] == '.' ? 9 : 7); /* the space before HTTP/1.1 or HTTP/2 */
    if (memcmp(text + version, " HTTP/", 6) != 0)
        return 0;
    if (text[to - 2] == '.' ? text[to - 3] < '0' || text[to - 3] > '9' : text[to - 2] != '/')
        return 0;
    while (i < version && text[i] > ' ' && text[i] < 0x7f)
        i++;
    if (i == from || text[i] != ' ' || i + 1 >= version || text[i + 1] != '/')
        return 0;
    uint32_t path = i + 1, end = 0;
    for (i = path; i < version; i++) {
        if (text[i] <= ' ' || text[i] == '\\')
            return 0;
        if (text[i] == '?' && end == 0)
            end = i;
    }
    return end == 0 ? version : end;
}

/* The address of a combined line: field `skip` of those that blanks separate. 0: the slow reader finds it. */
static int field_of(const line *l, uint32_t skip, uint32_t *from, uint32_t *to)
{
    uint32_t i = l->start;
    for (;;) {
        uint32_t at = i;
        while (i < l->end && l->text[i] != ' ') {
            if (l->text[i] == ',' || l->text[i] == '\t')
                return 0;
            i++;
        }
        if (i == at)
            return 0;
        if (skip-- == 0) {
            *from = at;
            *to = i;
            return 1;
        }
        while (i < l->end && l->text[i] == ' ')
            i++;
        if (i == l->end || l->text[i] == '\t')
            return 0;
    }
}

static uint8_t request_kind(const line *l, const gbf_log_rows *rows, uint32_t open, uint32_t close, int full)
{
    uint32_t from = l->marks[open] + 1, to = l->marks[close];
    uint32_t end = close == open + 1 ? cut_request(l->text, from, to) : 0;
    put(rows, l, 1, from, end == 0 ? to : end);
    if (full)
        return end == 0 ? GBF_LOG_FULL_RAW : GBF_LOG_FULL;
    return end == 0 ? GBF_LOG_COMMON_RAW : GBF_LOG_COMMON;
}

static uint8_t combined(const gbf_log_form *form, const line *l, const gbf_log_rows *rows)
{
    uint32_t from, to, open[3], close[3], quotes;
    const uint8_t *text = l->text;
    if (!field_of(l, form->skip, &from, &to))
        return GBF_LOG_SLOW;
    put(rows, l, 0, from, to);
    if (form->address_only)
        return GBF_LOG_ADDRESS;
    uint32_t at = l->first;
    for (quotes = 0; quotes < 3; quotes++) {
        while (at < l->last && text[l->marks[at]] != '"') {
            if (text[l->marks[at]] == '\\')
                return GBF_LOG_SLOW;
            at++;
        }
        if (at == l->last)
            break;
        open[quotes] = at;
        close[quotes] = closing(l, at);
        if (close[quotes] == l->last)
            return GBF_LOG_SLOW;
        at = close[quotes] + 1;
    }
    if (quotes == 0)
        return GBF_LOG_ADDRESS; /* a list of addresses, or none of our requests */
    uint32_t first = l->marks[open[0]], after = l->marks[close[0]] + 1;
    if (first < l->start + 3 || text[first - 1] != ' ')
        return GBF_LOG_SLOW;
    if (quotes == 1) { /* common, or uvicorn's: the client, " - ", the request */
        int bracket = text[first - 2] == ']', dash = text[first - 2] == '-' && text[first - 3] == ' ';
        int other = text[after - 2] == ' ' && text[after - 3] == ']'; /* where the slow reader would begin */
        if (!(bracket || (dash && !other)) || (after < l->end && text[after] != ' '))
            return GBF_LOG_SLOW;
        return request_kind(l, rows, open[0], close[0], 0);
    }
    if (quotes < 3 || text[first - 2] != ']' || !two_words(text, after, l->marks[open[1]]) ||
        l->marks[open[2]] != l->marks[close[1]] + 2 || text[l->marks[close[1]] + 1] != ' ')
        return GBF_LOG_SLOW;
    put(rows, l, 2, l->marks[open[1]] + 1, l->marks[close[1]]);
    put(rows, l, 3, l->marks[open[2]] + 1, l->marks[close[2]]);
    return request_kind(l, rows, open[0], close[0], 1);
}

static uint8_t csv(const gbf_log_form *form, const line *l, const gbf_log_rows *rows)
{
    uint32_t i = l->start, cell = 0, found = 0;
    uint32_t mark = l->first;
    for (;; cell++) {
        uint32_t from = i, to;
        if (i < l->end && l->text[i] == '"') {
            while (mark < l->last && l->marks[mark] < i)
                mark++;
            mark++;
            while (mark < l->last && l->text[l->marks[mark]] != '"')
                mark++;
            if (mark >= l->last)
                return GBF_LOG_SLOW;
            from++;
            to = l->marks[mark];
            i = to + 1;
            if (i < l->end && l->text[i] != form->delimiter) /* a quote of its own */
                return GBF_LOG_SLOW;
        } else {
            while (i < l->end && l->text[i] != form->delimiter) {
                if (l->text[i] == '"' || l->text[i] == '\r')
                    return GBF_LOG_SLOW;
                i++;
            }
            to = i;
        }
        for (uint32_t c = 0; c < form->count; c++)
            if (form->slots[c] == cell) {
                put(rows, l, c, from, to);
                found++;
            }
        if (i >= l->end)
            return found == form->count ? GBF_LOG_ADDRESS : GBF_LOG_SLOW;
        i++;
    }
}

/* ---- JSON */

typedef struct {
    const uint8_t *text;
    uint32_t at, end;
    const uint32_t *marks;
    uint32_t mark, mark_count;
} cursor;

/* Reads a text whose quote is at the cursor; 0: it is no JSON, or not for certain. */
static int json_text(cursor *c, uint32_t *from, uint32_t *to, int *escapes)
{
    *escapes = 0;
    while (c->mark < c->mark_count && c->marks[c->mark] < c->at)
        c->mark++;
    if (c->mark == c->mark_count || c->marks[c->mark] != c->at)
        return 0;
    *from = c->at + 1;
    for (c->mark++; c->mark < c->mark_count && c->marks[c->mark] < c->end; c->mark++) {
        uint32_t at = c->marks[c->mark];
        if (c->text[at] == '"') {
            *to = at;
            c->at = at + 1;
            c->mark++;
            return 1;
        }
        if (c->text[at] != '\\' || at + 1 >= c->end)
            return 0;
        *escapes = 1;
        uint8_t escaped = c->text[at + 1];
        if (escaped == 'u') {
            if (at + 6 > c->end)
                return 0;
            for (uint32_t i = at + 2; i < at + 6; i++) {
                uint8_t d = (uint8_t)(c->text[i] | 0x20);
                if (!((c->text[i] >= '0' && c->text[i] <= '9') || (d >= 'a' && d <= 'f')))
                    return 0;
            }
        } else if (escaped == '"' || escaped == '\\') {
            c->mark++; /* a mark of its own */
        } else if (escaped == 0 || strchr("/bfnrt", escaped) == NULL) {
            return 0;
        }
    }
    return 0;
}

static void blanks(cursor *c)
{
    while (c->at < c->end && c->text[c->at] == ' ')
        c->at++;
}

GBF_INLINE int digit(const cursor *c)
{
    return c->at < c->end && c->text[c->at] >= '0' && c->text[c->at] <= '9';
}

static int digits(cursor *c)
{
    if (!digit(c))
        return 0;
    while (digit(c))
        c->at++;
    return 1;
}

static int json_number(cursor *c)
{
    uint32_t start = c->at;
    if (c->text[c->at] == '-')
        c->at++;
    if (c->at < c->end && c->text[c->at] == '0')
        c->at++;
    else if (!digits(c))
        return 0;
    if (c->at < c->end && c->text[c->at] == '.') {
        c->at++;
        if (!digits(c))
            return 0;
    }
    if (c->at < c->end && (c->text[c->at] | 0x20) == 'e') {
        c->at++;
        if (c->at < c->end && (c->text[c->at] == '+' || c->text[c->at] == '-'))
            c->at++;
        if (!digits(c))
            return 0;
    }
    return c->at - start < 64; /* longer ones are none for everybody */
}

static int json_word(cursor *c, const char *word, uint32_t nbytes)
{
    if (c->end - c->at < nbytes || memcmp(c->text + c->at, word, nbytes) != 0)
        return 0;
    c->at += nbytes;
    return 1;
}

GBF_INLINE uint64_t mixed(uint64_t hash, uint64_t value)
{
    return gbf_xxh3_fold(hash ^ value, GBF_XXH3_PRIME64_1) + GBF_XXH3_PRIME64_2;
}

int gbf_log_json(const uint8_t *text, uint32_t start, uint32_t nbytes, const uint32_t *marks, uint32_t mark_count,
                 gbf_log_value *values, uint32_t *value_count, uint64_t *hash)
{
    cursor c = {text, start, start + nbytes, marks, 0, mark_count};
    uint8_t open[GBF_LOG_DEPTH];
    uint32_t depth = 0, count = 0, from, to;
    uint64_t h = GBF_XXH3_PRIME64_3;
    int escapes;
    blanks(&c);
    if (c.at == c.end || text[c.at] != '{')
        return 0;
    for (;;) {
        /* a value */
        gbf_log_value found = {c.at, 0, 0};
        uint8_t byte = c.at < c.end ? text[c.at] : 0;
        if (byte == '{' || byte == '[') {
            uint8_t close = byte == '{' ? '}' : ']';
            if (depth == GBF_LOG_DEPTH)
                return 0;
            c.at++;
            blanks(&c);
            if (c.at < c.end && text[c.at] == close) {
                c.at++;
                found.type = byte == '{' ? 'o' : 'a';
            } else {
                open[depth++] = close;
                h = mixed(h, byte);
                if (close == ']')
                    continue;
                goto key;
            }
        } else if (byte == '"') {
            if (!json_text(&c, &from, &to, &escapes))
                return 0;
            found.at = from;
            found.nbytes = to - from;
            found.type = from == to ? 'e' : escapes ? 'b' : 's';
        } else if (byte == '-' || (byte >= '0' && byte <= '9')) {
            if (!json_number(&c))
                return 0;
            found.type = 'n';
        } else {
            if (!json_word(&c, "true", 4) && !json_word(&c, "false", 5) && !json_word(&c, "null", 4))
                return 0;
            found.type = byte == 'n' ? '0' : 'l';
        }
        if (count == GBF_LOG_SLOTS)
            return 0;
        h = mixed(h, found.type);
        values[count++] = found;
        /* what comes after it */
        for (;;) {
            blanks(&c);
            if (depth == 0) {
                *value_count = count;
                *hash = h;
                return c.at == c.end;
            }
            byte = c.at < c.end ? text[c.at] : 0;
            c.at++;
            if (byte == ',')
                break;
            if (byte != open[depth - 1])
                return 0;
            depth--;
            h = mixed(h, byte);
        }
        blanks(&c);
        if (open[depth - 1] == ']')
            continue;
    key:
        if (c.at == c.end || text[c.at] != '"' || !json_text(&c, &from, &to, &escapes))
            return 0;
        h = mixed(h, gbf_xxh3_64(text + from, to - from, 0) | 1);
        blanks(&c);
        if (c.at == c.end || text[c.at] != ':')
            return 0;
        c.at++;
        blanks(&c);
    }
}

static uint8_t json(const gbf_log_form *form, const line *l, const gbf_log_rows *rows)
{
    gbf_log_value values[GBF_LOG_SLOTS];
    uint32_t count = 0;
    uint64_t hash = 0;
    rows->hashes[l->row] = 0;
    if (!gbf_log_json(l->text, l->start, l->end - l->start, l->marks + l->first, l->last - l->first, values, &count,
                      &hash))
        return GBF_LOG_SLOW;
    rows->hashes[l->row] = hash;
    for (uint32_t s = 0; s < form->structure_count; s++) {
        const gbf_log_structure *known = &form->structures[s];
        if (known->hash != hash)
            continue;
        for (uint32_t c = 0; c < known->count; c++) {
            if (known->slots[c] >= count)
                return GBF_LOG_SLOW;
            put(rows, l, c, values[known->slots[c]].at, values[known->slots[c]].at + values[known->slots[c]].nbytes);
        }
        return (uint8_t)(GBF_LOG_ADDRESS + s);
    }
    return GBF_LOG_SLOW;
}

/* ---- blocks */

uint32_t gbf_log_read(const gbf_log_form *form, const uint8_t *text, uint32_t nbytes, const uint32_t *marks,
                      uint32_t count, const gbf_log_rows *rows)
{
    line l = {text, marks, 0, 0, 0, 0, 0};
    uint32_t mark = 0, start = 0;
    while (start < nbytes && l.row < rows->room) {
        l.first = mark;
        while (mark < count && text[marks[mark]] != '\n')
            mark++;
        if (mark == count)
            break;
        l.last = mark;
        l.start = start;
        l.end = marks[mark];
        start = marks[mark++] + 1;
        while (l.start < l.end && (text[l.start] == 0 || text[l.start] == '\r'))
            l.start++;
        while (l.start < l.end && (text[l.end - 1] == 0 || text[l.end - 1] == '\r'))
            l.end--;
        if (l.end - l.start >= 3 && memcmp(text + l.start, "\xef\xbb\xbf", 3) == 0)
            l.start += 3;
        while (l.first < l.last && marks[l.first] < l.start)
            l.first++;
        while (l.first < l.last && marks[l.last - 1] >= l.end)
            l.last--;
        rows->starts[l.row] = l.start;
        rows->lengths[l.row] = l.end - l.start;
        uint8_t kind = GBF_LOG_SLOW;
        if (l.start < l.end)
            kind = form->layout == GBF_LOG_COMBINED ? combined(form, &l, rows)
                   : form->layout == GBF_LOG_CSV    ? csv(form, &l, rows)
                                                    : json(form, &l, rows);
        rows->kinds[l.row++] = kind;
    }
    return l.row;
}
