/* Origins and hosts: the grammar of both texts, and compiled sets of patterns that turn one into a class.
 *
 * One open-addressed hash of (scheme, right end of a host), a cache line for each entry. An entry has the whole answer for
 * every host that ends with it, because what the patterns of its parents say is worked in when the set is built: the
 * longest end that is an entry decides. Grammar, format byte by byte and sources: DESIGN.md, "Origins and hosts". */
#ifndef GBF_ORIGIN_H
#define GBF_ORIGIN_H

#include "base/gbf_base.h"
#include "base/gbf_block.h"
#include "name/gbf_name.h"

enum {
    GBF_ORIGIN_MALFORMED = 0, /* class of a text that is no origin, or no host */
    GBF_ORIGIN_UNMATCHED = 1, /* class of one that no pattern matches */
    GBF_SCHEME_MAX = 63,      /* bytes in a scheme */
    GBF_SCHEMES_MAX = 127,    /* schemes that the patterns of one set have */
    GBF_ORIGIN_ABSOLUTE =
        128,              /* beside the number of a scheme: the host ends with a dot, which makes it another host */
    GBF_PORT_NONE = 0,    /* no port; of a host also the default one */
    GBF_PORT_ANY = 65536, /* of patterns: any port or none */
    GBF_ENTRY_TEXT = 40,  /* bytes of a host that fit into an entry */
};

/* An origin or a host, parsed. An address is a name without dots: its text is the canonical one, IPv6 in brackets. */
typedef struct {
    gbf_name name;
    uint32_t scheme_nbytes; /* the scheme is the start of the text; 0: the origin is `null`, or this is a host */
    uint32_t port;          /* GBF_PORT_NONE or 1..65535 */
    uint32_t absolute;      /* GBF_ORIGIN_ABSOLUTE or 0 */
    uint32_t address;       /* 1: an address */
} gbf_origin;

/* The classes of hosts that end with an entry, when they have this port, or (GBF_PORT_ANY) one that has no row. */
typedef struct {
    uint32_t port;
    uint32_t exact, one, many; /* of the host itself, of hosts one label below it, of hosts further below */
} gbf_origin_row;

typedef struct {
    uint32_t tag;       /* low half of the hash */
    uint8_t nbytes;     /* of the host; 0: empty slot */
    uint8_t scheme;     /* its number, and GBF_ORIGIN_ABSOLUTE */
    uint16_t row_count; /* 1: `row` is the row; more: they lie in ROWS from row.port on, by port */
    gbf_origin_row row;
    uint8_t text[GBF_ENTRY_TEXT]; /* the host; of a longer one, where in TEXT it starts (4 bytes) */
} gbf_origin_entry;
_Static_assert(sizeof(gbf_origin_entry) == 64, "an entry is a cache line");

typedef struct {
    uint8_t nbytes;
    uint8_t text[GBF_SCHEME_MAX];
} gbf_origin_scheme;

typedef struct {
    uint64_t key[GBF_NAME_KEYS]; /* as in gbf_name_head */
    uint64_t home;               /* slots a key may hash to; a few more follow for overflow, the last one empty */
    uint64_t whole, below; /* bit min(labels, 63): entries of that many labels can decide about themselves, below */
    uint32_t unmatched;    /* class of what no entry decides: GBF_ORIGIN_UNMATCHED, or that of `*` */
    uint32_t hosts;        /* 1: patterns are of hosts */
} gbf_origin_head;

#define GBF_KIND_ORIGIN GBF_TAG('O', 'R', 'I', 'G')

typedef struct {
    gbf_origin_head head;
    const gbf_origin_entry *slots;
    const gbf_origin_row *rows;
    const uint8_t *text;
    const gbf_origin_scheme *schemes;
    const uint32_t *sets;   /* by class: where its groups start; one more than there are classes */
    const uint32_t *groups; /* ascending in each set */
    uint64_t slot_count, row_count, text_nbytes, scheme_count, class_count, group_count;
    gbf_fold fold;
} gbf_origins;

/* Fills in `origins` from a block. With `verify` also the content hash is checked; geometry and every index a lookup
 * follows are always checked, so no block can make a lookup read outside itself. The block must outlive `origins`. */
gbf_status gbf_origins_open(gbf_origins *origins, const void *block, uint64_t nbytes, int verify,
                            const gbf_name_kernel *kernel, gbf_fault *fault);

/* Slow halves of the parser: addresses; a scheme other than http and https, 0 if there is none before "://". */
int gbf_origin_address4(gbf_origin *o, const uint8_t *text, uint32_t n);
int gbf_origin_address6(gbf_origin *o, const uint8_t *text, uint32_t n, int canonical);
uint32_t gbf_origin_scheme_read(const uint8_t *text, uint32_t n, uint32_t *default_port);

/* Bytes of text[0..n) before a port, which goes to *port: ":" and 1..65535 without leading zeros. n if there is none. */
GBF_INLINE uint32_t gbf_origin_port(const uint8_t *text, uint32_t n, uint32_t *port)
{
    uint32_t at = n, value = 0;
    *port = GBF_PORT_NONE;
    while (at > 0 && n - at < 5 && (uint8_t)(text[at - 1] - '0') <= 9)
        at--;
    if (at == n || at == 0 || text[at - 1] != ':' || text[at] == '0')
        return n;
    for (uint32_t i = at; i < n; i++)
        value = value * 10 + (uint32_t)(text[i] - '0');
    if (value > 65535)
        return n;
    *port = value;
    return at - 1;
}

/* 1 when no label starts or ends with a hyphen. */
GBF_INLINE int gbf_origin_labels(const gbf_name *name)
{
    uint32_t bad = (uint32_t)(name->text[0] == '-') | (uint32_t)(name->text[name->nbytes - 1] == '-');
    for (uint32_t word = 0; word <= (name->nbytes - 1) >> 6; word++)
        for (uint64_t dots = name->dots[word]; dots != 0; dots &= dots - 1) {
            uint32_t at = word * 64 + (uint32_t)__builtin_ctzll(dots);
            bad |= (uint32_t)(name->text[at - 1] == '-') | (uint32_t)(name->text[at + 1] == '-');
        }
    return !bad;
}

/* 1 and host and port in *o, or 0: a name (letters, digits, "_", hyphens inside labels), an IPv4 address, or an IPv6 address in
 * brackets; then a port or nothing. `canonical`: lower case and the canonical text of addresses is all that passes. */
GBF_INLINE int gbf_origin_authority(gbf_origin *o, const uint8_t *text, uint32_t n, int canonical, gbf_fold fold)
{
    if (GBF_UNLIKELY(n == 0))
        return 0;
    o->absolute = 0;
    o->address = 0;
    o->port = GBF_PORT_NONE;
    if ((uint8_t)(text[n - 1] - '0') <= 9)
        n = gbf_origin_port(text, n, &o->port);
    if (GBF_UNLIKELY(n == 0))
        return 0;
    if (GBF_UNLIKELY(text[0] == '['))
        return gbf_origin_address6(o, text, n, canonical);
    if (GBF_UNLIKELY(!gbf_name_read(&o->name, text, n, fold)))
        return gbf_origin_address4(o, text, n);
    if (GBF_UNLIKELY(text[n - 1] == '.'))
        o->absolute = GBF_ORIGIN_ABSOLUTE;
    if (canonical && memcmp(o->name.text, text, o->name.nbytes) != 0)
        return 0;
    return gbf_origin_labels(&o->name);
}

/* 1 and the origin in *o, or 0 when text[0..n) is no serialized origin of Fetch: scheme, "://", host and port in lower case and
 * canonical, without a default port; or `null`. Never reads outside the text; time is bounded whatever n is. */
GBF_INLINE int gbf_origin_read(gbf_origin *o, const uint8_t *text, uint32_t n, gbf_fold fold)
{
    uint32_t scheme, default_port;
    if (GBF_LIKELY(n > 8 && gbf_load64(text) == gbf_load64("https://"))) {
        scheme = 5;
        default_port = 443;
    } else if (n > 7 && memcmp(text, "http://", 7) == 0) {
        scheme = 4;
        default_port = 80;
    } else if (n == 4 && memcmp(text, "null", 4) == 0) {
        o->scheme_nbytes = 0;
        return 1;
    } else if ((scheme = gbf_origin_scheme_read(text, n, &default_port)) == 0) {
        return 0;
    }
    o->scheme_nbytes = scheme;
    return gbf_origin_authority(o, text + scheme + 3, n - scheme - 3, 1, fold) &&
           (o->port == GBF_PORT_NONE || o->port != default_port);
}

GBF_INLINE const uint8_t *gbf_origin_entry_text(const gbf_origins *origins, const gbf_origin_entry *entry)
{
    return GBF_LIKELY(entry->nbytes <= GBF_ENTRY_TEXT) ? entry->text : origins->text + gbf_load32(entry->text);
}

/* The entry for the end of the host that starts at `start`, or NULL. Texts are compared: no hash grants anything. */
GBF_INLINE const gbf_origin_entry *gbf_origin_probe(const gbf_origins *origins, const uint8_t *host, uint32_t nbytes,
                                                    uint32_t scheme, uint64_t mixed)
{
    const gbf_origin_entry *entry = &origins->slots[gbf_scale(mixed, origins->head.home)];
    for (; entry->nbytes != 0; entry++)
        if (entry->tag == (uint32_t)mixed && entry->nbytes == nbytes && entry->scheme == scheme &&
            memcmp(gbf_origin_entry_text(origins, entry), host, nbytes) == 0)
            return entry;
    return NULL;
}

/* The row for a port, or NULL when every row is for another one. */
GBF_INLINE const gbf_origin_row *gbf_origin_row_at(const gbf_origin_row *rows, uint32_t count, uint32_t port)
{
    const gbf_origin_row *last = rows + count - 1;
    while (count > 1) {
        uint32_t half = count / 2;
        rows += rows[half].port <= port ? half : 0;
        count -= half;
    }
    return rows->port == port ? rows : last->port == GBF_PORT_ANY ? last : NULL;
}

/* Class of a host under a scheme's number (and GBF_ORIGIN_ABSOLUTE). Reads one slot run for each label that `below` or `whole`
 * has, all of them asked for before the first is waited for. */
GBF_INLINE uint32_t gbf_origin_resolve(const gbf_origins *origins, const gbf_name *name, uint32_t scheme, uint32_t port)
{
    gbf_name_spot spots[GBF_LABELS_MAX];
    uint32_t count = 0, end = name->nbytes;
    uint64_t chain = scheme + 1;
    for (uint32_t depth = 1;; depth++) {
        uint32_t start = gbf_label_start(name->dots, end);
        chain = gbf_name_chain(origins->head.key, chain, name->text + start, end - start);
        if ((start == 0 ? origins->head.whole : origins->head.below) >> (depth < 63 ? depth : 63) & 1) {
            uint64_t mixed = gbf_name_mix(chain);
            GBF_PREFETCH(&origins->slots[gbf_scale(mixed, origins->head.home)]);
            spots[count++] = (gbf_name_spot){mixed, start};
        }
        if (start == 0)
            break;
        end = start - 1;
    }
    while (count-- > 0) {
        uint32_t start = spots[count].start;
        const gbf_origin_entry *entry =
            gbf_origin_probe(origins, name->text + start, name->nbytes - start, scheme, spots[count].mixed);
        if (entry == NULL)
            continue;
        const gbf_origin_row *row = GBF_LIKELY(entry->row_count == 1)
                                        ? gbf_origin_row_at(&entry->row, 1, port)
                                        : gbf_origin_row_at(origins->rows + entry->row.port, entry->row_count, port);
        if (row == NULL)
            break;
        return start == 0 ? row->exact : gbf_label_start(name->dots, start - 1) == 0 ? row->one : row->many;
    }
    return origins->head.unmatched;
}

/* Class of the origin text[0..n): GBF_ORIGIN_MALFORMED; GBF_ORIGIN_UNMATCHED; or the number of the set of all groups that have a
 * pattern which matches it. Never allocates or fails; bounded time; any number of threads. */
GBF_INLINE uint32_t gbf_origins_find(const gbf_origins *origins, const uint8_t *text, uint32_t n)
{
    gbf_origin o;
    if (!gbf_origin_read(&o, text, n, origins->fold))
        return GBF_ORIGIN_MALFORMED;
    for (uint32_t i = 0; i < origins->scheme_count; i++)
        if (origins->schemes[i].nbytes == o.scheme_nbytes &&
            memcmp(origins->schemes[i].text, text, o.scheme_nbytes) == 0)
            return gbf_origin_resolve(origins, &o.name, i | o.absolute, o.port);
    return origins->head.unmatched;
}

/* The same for a host: Host or :authority. `default_port` is that of the request's scheme; a host with it is one without a
 * port. 0: the scheme is not known, then 80 and 443 both are. */
GBF_INLINE uint32_t gbf_hosts_find(const gbf_origins *hosts, const uint8_t *text, uint32_t n, uint32_t default_port)
{
    gbf_origin o;
    if (!gbf_origin_authority(&o, text, n, 0, hosts->fold))
        return GBF_ORIGIN_MALFORMED;
    if (o.port == default_port || (default_port == 0 && (o.port == 80 || o.port == 443)))
        o.port = GBF_PORT_NONE;
    return gbf_origin_resolve(hosts, &o.name, o.absolute, o.port);
}

#endif
