/* HTTP headers: one pass over (name, value) pairs, the fingerprint gh2 of the client and the shape gs1 of the request.
 *
 * The caller walks whatever holds the pairs and adds them one by one; a plan says which names have a slot. All forms of
 * one request (HTTP/1 text, HTTP/2 and HTTP/3 fields with pseudo headers, ASGI, WSGI) come out alike. Texts are
 * borrowed: they must stay where they are as long as the result is read. What cannot be read is a problem number, never
 * an error, and nothing past the limits is looked at. See DESIGN.md, "Headers" and "Fingerprint gh2, shape gs1". */
#ifndef GBF_HEADERS_H
#define GBF_HEADERS_H

#include "hash/gbf_xxh3.h"

enum {
    GBF_HEADERS_MOST = 256,      /* headers; past it, or past the bytes, they are malformed */
    GBF_HEADERS_BYTES = 1 << 16, /* names and values together */
    GBF_HEADER_NAME_BYTES = 64,  /* the longest name that can have a slot */
    GBF_HEADER_SLOTS = 64,
    GBF_HEADER_NO_SLOT = 0xFF,
    GBF_HEADER_FIELDS = 32,
    GBF_HEADERS_ROOM = 2048,  /* canonical bytes that need no memory from the heap */
    GBF_HEADERS_SECRET = 192, /* bytes of the secret that a key becomes */
    GBF_SHAPE_HEAD = 4,       /* canonical bytes before the names: version and flags */
    GBF_HEADERS_SLACK = 64,   /* readable and writable bytes behind what is copied 16 at a time */
};

/* Slots that every plan has; pseudo headers are the first five, in the order of GBF_HEADER_METHOD on. */
enum {
    GBF_HEADER_AUTHORITY,
    GBF_HEADER_METHOD,
    GBF_HEADER_PATH,
    GBF_HEADER_SCHEME,
    GBF_HEADER_PROTOCOL,
    GBF_HEADER_HOST, /* :authority too, once finished */
    GBF_HEADER_COOKIE,
    GBF_HEADER_USER_AGENT,
    GBF_HEADER_ACCEPT,
    GBF_HEADER_ORIGIN,
    GBF_HEADER_REQUEST_METHOD,  /* access-control-request-method */
    GBF_HEADER_REQUEST_HEADERS, /* access-control-request-headers */
    GBF_HEADER_FETCH_SITE,
    GBF_HEADER_ACCEPT_ENCODING,
    GBF_HEADER_ACCEPT_LANGUAGE,
    GBF_HEADER_FREE_SLOT, /* the first that fields and rules get */
};

typedef enum {
    GBF_HEADERS_FINE,
    GBF_HEADERS_TOO_MANY,
    GBF_HEADERS_TOO_LONG,
    GBF_HEADERS_BAD_NAME,   /* empty, or a byte that no token has (RFC 9110 section 5.6.2) */
    GBF_HEADERS_BAD_VALUE,  /* a control byte other than HTAB (RFC 9110 section 5.5) */
    GBF_HEADERS_BAD_PSEUDO, /* a pseudo header twice, after others, or in HTTP/1 (RFC 9113 section 8.3) */
    GBF_HEADERS_BAD_CASE,   /* upper case in a name of HTTP/2 or 3 (RFC 9113 section 8.2.1) */
    GBF_HEADERS_BAD_HOST,   /* Host twice, or unlike :authority (RFC 9112 section 3.2, RFC 9113 section 8.3.1) */
} gbf_headers_problem;

enum { /* flags: what the source knows, and what was seen */
       GBF_HEADERS_ORDER = 1,
       GBF_HEADERS_CASE = 2,
       GBF_HEADERS_PSEUDO = 4,
       GBF_HEADERS_HTTP1 = 8,    /* the caller says so */
       GBF_HEADERS_HTTP2 = 16,   /* or 3 */
       GBF_HEADERS_REGULAR = 32, /* a header that is not a pseudo one was there */
       GBF_HEADERS_UNKNOWN = 64, /* nobody knows the headers, which is another thing than that there are none */
       GBF_HEADERS_BAD_METHOD = 128,
       GBF_HEADERS_BAD_PATH = 256,
       GBF_HEADERS_SHAPED = 512, /* the caller wants the shape */
};

enum {                          /* of a known name */
       GBF_HEADER_LEFT_OUT = 1, /* not among the names of the shape, and no field of fingerprints */
       GBF_HEADER_IS_PSEUDO = 2,
};

typedef struct {
    const uint8_t *at;
    uint32_t nbytes;
} gbf_header_text;

/* A name as two words: together with the length they are the name up to 16 bytes. */
typedef struct {
    uint64_t first, last;
} gbf_header_words;

typedef struct {
    gbf_header_words words;
    uint32_t at;     /* of the whole name in the plan's text, which has GBF_HEADERS_SLACK bytes behind it */
    uint16_t nbytes; /* 0: an empty place */
    uint8_t slot, flags;
    uint32_t presence; /* its presence bit, or 0 */
    uint32_t id;       /* what stands for it in a shape: the low half of its XXH3-64 */
} gbf_header_name;

/* Which names have a slot, which make the fingerprint, and the key. Frozen once built; any number of threads. */
typedef struct {
    gbf_header_name *names; /* open addressing, `mask` + 1 places, at most a quarter full */
    uint8_t *text;
    uint64_t joined; /* slots whose repeated values are wanted as one */
    uint32_t mask, slot_count, field_count, fields_tag;
    uint8_t fields[GBF_HEADER_FIELDS];
    uint8_t secret[GBF_HEADERS_SECRET];
    const gbf_xxh3_kernel *kernel;
    int keyed;
} gbf_header_plan;

typedef struct {
    gbf_header_text text;
    uint32_t slot;
} gbf_header_repeat;

/* What grows with every header; a loop over headers keeps it in registers. */
typedef struct {
    uint64_t seen; /* a bit a slot */
    uint32_t flags, presence, nbytes, canonical_bytes;
    uint32_t slot; /* of the header taken in last, or GBF_HEADER_NO_SLOT */
} gbf_header_tally;

/* What one request says. Start with gbf_headers_start(); give back with gbf_headers_free(). */
typedef struct {
    gbf_header_tally tally;
    uint64_t repeated;  /* a bit a slot */
    uint64_t known;     /* slots that are known, to be absent if nothing else, when the rest is not */
    uint8_t *canonical; /* `room`, or heap memory */
    uint8_t *joined;    /* heap memory of joined values, or NULL */
    gbf_hash128 fingerprint, shape;
    gbf_headers_problem problem;
    uint32_t canonical_room, repeat_count;
    uint32_t default_port; /* of the scheme, from outside; 0: not known */
    gbf_header_text mount; /* prefix of the path, from outside; no bytes: none */
    gbf_header_text slots[GBF_HEADER_SLOTS];
    gbf_header_repeat repeats[GBF_HEADERS_MOST];
    uint8_t room[GBF_HEADERS_ROOM];
} gbf_headers;

/* Builds a plan; on GBF_OK the caller frees it. `asked` are names that get a slot, `fields` names whose values are in
 * the fingerprint, both lower-case tokens of at most GBF_HEADER_NAME_BYTES; `secret` is GBF_HEADERS_SECRET bytes or
 * NULL. Slots of asked names go to `slots`. GBF_BAD_INPUT with the index of a name (fields after asked) that does not
 * fit, or a field that is left out of fingerprints or listed twice. */
gbf_status gbf_header_plan_build(gbf_header_plan *plan, const gbf_header_text *asked, uint32_t asked_count,
                                 const gbf_header_text *fields, uint32_t field_count, const uint8_t *secret,
                                 const gbf_xxh3_kernel *kernel, uint8_t *slots, gbf_fault *fault);
void gbf_header_plan_free(gbf_header_plan *plan);

/* Slot of a lower-case name, or GBF_HEADER_NO_SLOT. */
uint32_t gbf_header_slot(const gbf_header_plan *plan, const uint8_t *name, uint32_t nbytes);

/* The same for a name in any case and of any length. */
uint32_t gbf_header_slot_folded(const gbf_header_plan *plan, const uint8_t *name, uint64_t nbytes);

/* 0: no byte of a token (RFC 9110 section 5.6.2); 1: one; 2: an upper-case letter. */
GBF_INLINE uint8_t gbf_header_token(uint8_t byte)
{
    if ((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9'))
        return 1;
    if (byte >= 'A' && byte <= 'Z')
        return 2;
    return byte != 0 && memchr("!#$%&'*+-.^_`|~", byte, 15) != NULL;
}

/* Whether a lower-case name is of a family that is left out of fingerprints whole. */
int gbf_header_in_family(const uint8_t *name, uint32_t nbytes);

/* A name that the plan does not know as it stands: folds it, checks it. GBF_NO_MEMORY or GBF_OK. Reads h->tally. */
gbf_status gbf_headers_add_other(const gbf_header_plan *plan, gbf_headers *h, const uint8_t *name, uint32_t nbytes,
                                 gbf_header_text value);
void gbf_headers_add_again(const gbf_header_plan *plan, gbf_headers *h, uint32_t slot, gbf_header_text value);

/* Moves the canonical bytes, of which there are `nbytes`, to heap memory that has room for all. */
gbf_status gbf_headers_grow(gbf_headers *h, uint32_t nbytes);

/* After the last header: Host and :authority become one, repeated values are joined. */
gbf_status gbf_headers_finish(const gbf_header_plan *plan, gbf_headers *h);

/* gh2 of finished headers without a problem, into h->fingerprint; with GBF_HEADERS_SHAPED gs1 into h->shape, too. */
gbf_status gbf_headers_fingerprint(const gbf_header_plan *plan, gbf_headers *h);

void gbf_headers_release(gbf_headers *h);

GBF_INLINE void gbf_headers_start(gbf_headers *h, uint32_t flags)
{
    h->tally = (gbf_header_tally){0, flags, 0, 0, GBF_SHAPE_HEAD, GBF_HEADER_NO_SLOT};
    h->repeated = h->known = 0;
    h->canonical = h->room;
    h->joined = NULL;
    h->fingerprint = h->shape = (gbf_hash128){0, 0};
    h->problem = GBF_HEADERS_FINE;
    h->repeat_count = 0;
    h->canonical_room = GBF_HEADERS_ROOM;
    h->default_port = 0;
    h->mount = (gbf_header_text){NULL, 0};
}

GBF_INLINE void gbf_headers_free(gbf_headers *h)
{
    if (GBF_UNLIKELY(h->canonical != h->room || h->joined != NULL))
        gbf_headers_release(h);
}

GBF_INLINE gbf_header_words gbf_header_read(const uint8_t *name, uint32_t nbytes)
{
    if (nbytes >= 8)
        return (gbf_header_words){gbf_load64(name), gbf_load64(name + nbytes - 8)};
    if (nbytes >= 4)
        return (gbf_header_words){gbf_load32(name) | (uint64_t)gbf_load32(name + nbytes - 4) << 32, 0};
    if (GBF_UNLIKELY(nbytes == 0))
        return (gbf_header_words){0, 1}; /* no name, and no empty place, has these */
    return (gbf_header_words){gbf_xxh3_pack3(name, nbytes), 0};
}

GBF_INLINE uint32_t gbf_header_place(gbf_header_words words, uint32_t nbytes)
{
    uint64_t h = (words.first ^ nbytes) * GBF_XXH3_PRIME64_1 ^ words.last * GBF_XXH3_PRIME64_2;
    return (uint32_t)(h >> 40);
}

GBF_INLINE const gbf_header_name *gbf_header_find(const gbf_header_plan *plan, const uint8_t *name, uint32_t nbytes)
{
    gbf_header_words words = gbf_header_read(name, nbytes);
    for (uint32_t place = gbf_header_place(words, nbytes) & plan->mask;; place = (place + 1) & plan->mask) {
        const gbf_header_name *known = &plan->names[place];
        if (known->nbytes == nbytes && known->words.first == words.first && known->words.last == words.last &&
            (nbytes <= 16 || memcmp(plan->text + known->at + 8, name + 8, nbytes - 16) == 0))
            return known;
        if (known->nbytes == 0)
            return NULL;
    }
}

typedef uint8_t gbf_bytes16 __attribute__((vector_size(16)));

/* Whether some byte of eight is a control byte: a carry out of a byte below 0x20, or 0x7F. HTAB counts, too. */
GBF_INLINE int gbf_header_suspect8(uint64_t x)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t deleted = x ^ ones * 0x7F;
    return (((x - ones * 0x20) & ~x) | ((deleted - ones) & ~deleted)) >> 7 & ones ? 1 : 0;
}

GBF_INLINE int gbf_header_suspect(const uint8_t *p, uint32_t nbytes)
{
    if (nbytes >= 16) {
        gbf_bytes16 bad = {0}, x;
        for (uint32_t at = 0; at + 16 < nbytes; at += 16) {
            memcpy(&x, p + at, 16);
            bad |= (gbf_bytes16)(x < 0x20) | (gbf_bytes16)(x == 0x7F);
        }
        memcpy(&x, p + nbytes - 16, 16);
        bad |= (gbf_bytes16)(x < 0x20) | (gbf_bytes16)(x == 0x7F);
        uint64_t halves[2];
        memcpy(halves, &bad, 16);
        return (halves[0] | halves[1]) != 0;
    }
    if (nbytes >= 8)
        return gbf_header_suspect8(gbf_load64(p)) | gbf_header_suspect8(gbf_load64(p + nbytes - 8));
    if (nbytes >= 4)
        return gbf_header_suspect8(gbf_load32(p) | (uint64_t)gbf_load32(p + nbytes - 4) << 32);
    return nbytes == 0 ? 0 : gbf_header_suspect8((gbf_xxh3_pack3(p, nbytes) & 0xFFFF00FFu) | 0x2020202000002000u);
}

/* Whether some byte is a control byte other than HTAB. */
GBF_INLINE int gbf_header_controls(const uint8_t *p, uint32_t nbytes)
{
    if (GBF_LIKELY(!gbf_header_suspect(p, nbytes)))
        return 0;
    for (uint32_t i = 0; i < nbytes; i++)
        if ((p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7F)
            return 1;
    return 0;
}

/* Blanks and tabs around a value are no part of it (RFC 9110 section 5.5). */
GBF_INLINE gbf_header_text gbf_header_trim(const uint8_t *at, uint32_t nbytes)
{
    while (nbytes > 0 && (at[nbytes - 1] == ' ' || at[nbytes - 1] == '\t'))
        nbytes--;
    while (nbytes > 0 && (at[0] == ' ' || at[0] == '\t'))
        at++, nbytes--;
    return (gbf_header_text){at, nbytes};
}

GBF_INLINE gbf_status gbf_headers_add_known(const gbf_header_plan *plan, gbf_headers *h, gbf_header_tally *t,
                                            const gbf_header_name *known, gbf_header_text value)
{
    memcpy(h->canonical + t->canonical_bytes, &known->id, 4); /* GBF_HEADERS_ROOM has room for all */
    t->canonical_bytes += known->flags & GBF_HEADER_LEFT_OUT ? 0 : 4;
    t->presence |= known->presence;
    t->slot = known->slot;
    if (GBF_UNLIKELY(known->flags & GBF_HEADER_IS_PSEUDO)) {
        if ((t->flags & (GBF_HEADERS_REGULAR | GBF_HEADERS_HTTP1)) || (t->seen >> known->slot & 1))
            h->problem = GBF_HEADERS_BAD_PSEUDO;
        t->flags |= GBF_HEADERS_PSEUDO;
    } else {
        t->flags |= GBF_HEADERS_REGULAR;
    }
    if (known->slot != GBF_HEADER_NO_SLOT) {
        uint64_t bit = UINT64_C(1) << known->slot;
        if (GBF_UNLIKELY(t->seen & bit)) {
            gbf_headers_add_again(plan, h, known->slot, value);
            return GBF_OK;
        }
        t->seen |= bit;
        h->slots[known->slot] = value;
    }
    return GBF_OK;
}

/* Takes one header in; `t` is the caller's copy of h->tally. Once h->problem is set, stop. GBF_NO_MEMORY or GBF_OK. */
GBF_INLINE gbf_status gbf_headers_add(const gbf_header_plan *plan, gbf_headers *h, gbf_header_tally *t,
                                      const uint8_t *name, uint64_t name_bytes, const uint8_t *value,
                                      uint64_t value_bytes)
{
    t->slot = GBF_HEADER_NO_SLOT;
    if (GBF_UNLIKELY(name_bytes > GBF_HEADERS_BYTES || value_bytes > GBF_HEADERS_BYTES - name_bytes ||
                     (t->nbytes += (uint32_t)(name_bytes + value_bytes)) > GBF_HEADERS_BYTES)) {
        h->problem = GBF_HEADERS_TOO_LONG;
        return GBF_OK;
    }
    if (GBF_UNLIKELY(gbf_header_controls(value, (uint32_t)value_bytes))) {
        h->problem = GBF_HEADERS_BAD_VALUE;
        return GBF_OK;
    }
    gbf_header_text text = gbf_header_trim(value, (uint32_t)value_bytes);
    const gbf_header_name *known = gbf_header_find(plan, name, (uint32_t)name_bytes);
    if (GBF_LIKELY(known != NULL))
        return gbf_headers_add_known(plan, h, t, known, text);
    h->tally = *t;
    gbf_status status = gbf_headers_add_other(plan, h, name, (uint32_t)name_bytes, text);
    *t = h->tally;
    return status;
}

/* One header of a CGI environment: HTTP_USER_AGENT. Names with a byte that CGI does not write are malformed. */
gbf_status gbf_headers_add_cgi(const gbf_header_plan *plan, gbf_headers *h, gbf_header_tally *t, const uint8_t *name,
                               uint64_t name_bytes, const uint8_t *value, uint64_t value_bytes);

enum { GBF_FINGERPRINT_BYTES = 36 };

/* 8 hex digits of `x`, the first digit first, as the bytes of a word. */
GBF_INLINE uint64_t gbf_header_hex(uint32_t x)
{
    uint64_t digits = __builtin_bswap32(x);
    digits = (digits | digits << 16) & UINT64_C(0x0000FFFF0000FFFF);
    digits = (digits | digits << 8) & UINT64_C(0x00FF00FF00FF00FF);
    digits = (digits >> 4 | digits << 8) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    uint64_t letters = (digits + UINT64_C(0x0606060606060606)) >> 4 & UINT64_C(0x0101010101010101);
    return digits + UINT64_C(0x3030303030303030) + letters * ('a' - '0' - 10);
}

/* A kind ("gh2:" for a fingerprint, "gs1:" for a shape) and the 32 hex digits of a hash. */
GBF_INLINE void gbf_headers_text(gbf_hash128 hash, const char kind[4], char text[GBF_FINGERPRINT_BYTES])
{
    const uint32_t parts[4] = {(uint32_t)(hash.high >> 32), (uint32_t)hash.high, (uint32_t)(hash.low >> 32),
                               (uint32_t)hash.low};
    memcpy(text, kind, 4);
    for (int i = 0; i < 4; i++) {
        uint64_t digits = gbf_header_hex(parts[i]);
        memcpy(text + 4 + 8 * i, &digits, 8);
    }
}

/* Sets a slot from outside the headers (method, path); it wins over a pseudo header. */
GBF_INLINE void gbf_headers_set(gbf_headers *h, uint32_t slot, const uint8_t *text, uint32_t nbytes)
{
    h->tally.seen |= UINT64_C(1) << slot;
    h->slots[slot] = (gbf_header_text){text, nbytes};
}

/* After finish and what is set: method and path are checked, and the path loses its query; what is none is flagged. */
void gbf_headers_settle(gbf_headers *h);

/* The path in a request target: without query, and of the absolute form without scheme and authority. nbytes 0 when
 * there is none: empty, not from "/" on (or "*"), a control byte, longer than GBF_HEADERS_BYTES. */
gbf_header_text gbf_header_path(gbf_header_text text);

/* Whether the text can be a method: a token of at most 32 bytes. */
int gbf_header_is_method(gbf_header_text text);

/* 443 of "https" and "wss", 80 of "http" and "ws", 0 of anything else. */
uint32_t gbf_header_default_port(const uint8_t *scheme, uint64_t nbytes);

enum { GBF_WRITE_UNKNOWN = -1, GBF_WRITE_NO, GBF_WRITE_CROSS, GBF_WRITE_UNREAD };

/* Whether a request that may change something comes from another origin, as far as headers of a browser tell: by
 * Sec-Fetch-Site, or for want of it by Origin beside Host. UNREAD: the headers cannot be read, and the method is no safe
 * one. The method, Host and what `known` says must be settled. */
int gbf_header_cross_write(const gbf_headers *h);

/* Whether Origin has the host and port of the request: a page of this very service. */
int gbf_header_own_page(const gbf_headers *h);

typedef enum {
    GBF_UA_BOT,
    GBF_UA_EDGE,
    GBF_UA_OPERA,
    GBF_UA_FIREFOX,
    GBF_UA_CHROME,
    GBF_UA_SAFARI,
    GBF_UA_CURL,
    GBF_UA_WGET,
    GBF_UA_PYTHON,
    GBF_UA_GO,
    GBF_UA_JAVA,
    GBF_UA_OTHER,
} gbf_ua_family;

/* The family that a user agent claims, by the product tokens before its slashes. */
gbf_ua_family gbf_header_ua(gbf_header_text text);

#endif
