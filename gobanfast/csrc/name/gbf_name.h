/* Names: one normalisation for every name that comes off the wire, and the table that matches them.
 *
 * A table answers "which pattern covers this name" from three structures in one block: a hash of right-anchored
 * literal suffixes (exact, one label below, any number below, name and below), behind a Bloom filter; and small
 * reversed automata for what stands left of such a suffix when it is not literal. Theory, byte arithmetic,
 * semantics and sources: DESIGN.md, "Names: what a pattern means" and those after it. */
#ifndef GBF_NAME_H
#define GBF_NAME_H

#include "base/gbf_base.h"
#include "base/gbf_block.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum {
    GBF_NAME_MAX = 253,   /* bytes in a name, RFC 1035 text form without the trailing dot */
    GBF_LABEL_MAX = 63,   /* bytes in a label */
    GBF_LABELS_MAX = 127, /* labels in a name */
    GBF_NAME_KEYS = 10,   /* words of secret key */
    GBF_BUCKET_SLOTS = 5,
    GBF_TEXT_CELL = 64, /* bytes of text that lie where the bucket's number says */
    GBF_LANES = 4,      /* automata run side by side */
    GBF_SYMBOLS = 40,   /* 0 is "not a name character", then a-z 0-9 - _ . */
};

/* A normalised name: lower case, no trailing dot. Bytes past nbytes are zero or rubbish but always readable. */
typedef struct {
    uint8_t text[GBF_NAME_MAX + 3 + 64];
    uint64_t dots[4]; /* bit i: text[i] is '.' */
    uint32_t nbytes;
} gbf_name;

/* Copies text (nbytes 1..254) to name->text in lower case and marks its dots; returns 0 if a byte is not one of
 * a-z A-Z 0-9 - _ . (NUL and everything past ASCII included). The only part of this file that has kernels. */
typedef int (*gbf_fold)(gbf_name *name, const uint8_t *text, uint64_t nbytes);
typedef struct {
    const char *name;
    uint32_t needs;
    gbf_fold fold;
} gbf_name_kernel;

int gbf_name_fold_scalar(gbf_name *name, const uint8_t *text, uint64_t nbytes);
int gbf_name_fold_v2(gbf_name *name, const uint8_t *text, uint64_t nbytes);
int gbf_name_fold_avx512(gbf_name *name, const uint8_t *text, uint64_t nbytes);

/* The best kernel that needs no more than `features` (GBF_CPU_...). */
const gbf_name_kernel *gbf_name_kernel_pick(uint32_t features);

/* Slow half of gbf_name_read: is the last label (from `start`) a number, so that the name is an IPv4 literal? */
int gbf_name_is_number(const gbf_name *name, uint32_t start);
int gbf_name_labels_fit(const gbf_name *name);

/* Index of the byte after the last dot before `end` (end <= 256), or 0. */
GBF_INLINE uint32_t gbf_label_start(const uint64_t dots[4], uint32_t end)
{
    uint32_t word = (end - 1) >> 6, shift = 63 - ((end - 1) & 63);
    uint64_t bits = (dots[word] << shift) >> shift;
    while (bits == 0) {
        if (word == 0)
            return 0;
        bits = dots[--word];
    }
    return word * 64 + 64 - (uint32_t)__builtin_clzll(bits);
}

/* 1 and a normalised name, or 0 when `text` is no name: empty, longer than 253 bytes, a label empty or longer than
 * 63 bytes, a byte outside a-z A-Z 0-9 - _ ., or an IP literal (last label a number, as WHATWG URL decides it).
 * One trailing dot is dropped. Never reads outside text[0..nbytes). */
GBF_INLINE int gbf_name_read(gbf_name *name, const void *text, uint64_t nbytes, gbf_fold fold)
{
    if (GBF_UNLIKELY(nbytes - 1 > GBF_NAME_MAX)) /* 0, or more than 253 and a dot */
        return 0;
    if (GBF_UNLIKELY(!fold(name, text, nbytes)))
        return 0;
    uint32_t last = (uint32_t)nbytes - 1;
    if (GBF_UNLIKELY(name->text[last] == '.')) {
        name->dots[last >> 6] &= ~(UINT64_C(1) << (last & 63));
        nbytes = last--;
    }
    name->nbytes = (uint32_t)nbytes;
    if (GBF_UNLIKELY(nbytes == 0 || nbytes > GBF_NAME_MAX || (name->dots[0] & 1) != 0 || name->text[last] == '.'))
        return 0;
    if (GBF_UNLIKELY((name->dots[0] & (name->dots[0] >> 1)) != 0))
        return 0;
    if (GBF_UNLIKELY(nbytes > GBF_LABEL_MAX) && !gbf_name_labels_fit(name))
        return 0;
    uint32_t start = gbf_label_start(name->dots, (uint32_t)nbytes);
    return GBF_LIKELY((uint8_t)(name->text[start] - '0') > 9) || !gbf_name_is_number(name, start);
}

/* What a key stands for. One slot may carry several; then `value` indexes gbf_name_many. */
enum {
    GBF_NAME_EXACT = 1, /* name        the name itself */
    GBF_NAME_ONE = 2,   /* *.name      one label below it */
    GBF_NAME_MANY = 4,  /* **.name     one or more labels below it */
    GBF_NAME_TREE = 8,  /* .name       itself and everything below it */
    GBF_NAME_GLOB = 16, /* what is left of it decides an automaton */
    GBF_NAME_MULTI = 128,
};

typedef struct {
    uint16_t tag[GBF_BUCKET_SLOTS];
    uint8_t kinds[GBF_BUCKET_SLOTS]; /* 0: empty slot */
    uint8_t over;                    /* 1: a key that belongs here lies in the next bucket or further */
    uint8_t check[GBF_BUCKET_SLOTS]; /* key length in bytes; without text, 8 more bits of hash */
    uint8_t zero[3];
    uint32_t value[GBF_BUCKET_SLOTS];
    uint32_t text[GBF_BUCKET_SLOTS]; /* offset of the key in TEXT; without text, 32 more bits of hash */
} gbf_name_bucket;
_Static_assert(sizeof(gbf_name_bucket) == 64, "a bucket is a cache line");

/* Values of a key that has several kinds, in the order they were given; kind 0 ends the list. */
typedef struct {
    uint32_t value[5];
    uint8_t kind[8];
} gbf_name_many;

/* One minimised automaton that reads right to left. State s has a row of `width` cells from cells + s * width, one for each
 * class of symbols: where the row of the state reached begins, or in a `far` automaton, whose rows need more than 16 bits for
 * that, the number of that state. The accept list of s (0: none) is in LIST at lists + s. State 0 is dead. */
typedef struct {
    uint32_t cells, lists; /* first cell, first list */
    uint16_t states, start;
    uint16_t width;
    uint16_t more; /* 1: the next automaton belongs to the same key */
    uint8_t class_of[GBF_SYMBOLS];
    uint8_t far;
    uint8_t zero[7];
} gbf_automaton;
_Static_assert(sizeof(gbf_automaton) == 64, "automata are stored as they are");

typedef struct {
    uint64_t key[GBF_NAME_KEYS]; /* key[0] < 2^59 chains labels, the others < 2^61 weigh the words of a label */
    uint64_t home;               /* buckets a key may hash to; a few more follow for overflow */
    uint64_t depths;             /* bit min(labels, 63): some key has that many labels */
    uint64_t patterns;           /* hashed patterns, globs and regexes not counted */
    uint32_t has_text;           /* 0, GBF_TEXT_PACKED or GBF_TEXT_CELLS */
    uint32_t roots;              /* automata 0..roots-1 read every name */
} gbf_name_head;

enum {
    GBF_TEXT_PACKED = 1, /* texts lie one behind the other */
    GBF_TEXT_CELLS = 2,  /* those of bucket i in TEXT[64 i, 64 i + 64), and the ones that do not fit behind all cells */
};

#define GBF_LAST_GLOB UINT32_C(0x80000000)
#define GBF_KIND_NAME GBF_TAG('N', 'A', 'M', 'E')

typedef struct {
    gbf_name_head head;
    const gbf_name_bucket *buckets;
    const uint64_t *bloom;
    const uint8_t *text;
    const gbf_name_many *many;
    const gbf_automaton *automata;
    const uint16_t *cells;
    const uint32_t *lists;       /* by state: where in `accepts` */
    const uint32_t *accepts;     /* lists of glob numbers, ascending, the last one of each marked GBF_LAST_GLOB */
    const uint32_t *glob_values; /* by glob number, which is the order globs were given in */
    uint64_t bucket_count, bloom_words, text_nbytes, many_count, automaton_count, cell_count, list_count, accept_count,
        glob_count;
    uint64_t text_stride; /* bytes from the texts of a bucket to those of the next, 0: no telling */
    gbf_fold fold;
} gbf_name_table;

/* Fills in `table` from a block. With `verify` also the content hash is checked; geometry and every index a lookup
 * follows are always checked, so no block can make a lookup read outside itself. The block must outlive the table. */
gbf_status gbf_name_open(gbf_name_table *table, const void *block, uint64_t nbytes, int verify,
                         const gbf_name_kernel *kernel, gbf_fault *fault);

#define GBF_MERSENNE61 ((UINT64_C(1) << 61) - 1)

GBF_INLINE uint64_t gbf_fold61(unsigned __int128 x)
{
    return ((uint64_t)x & GBF_MERSENNE61) + (uint64_t)(x >> 61);
}

/* Hash of the suffix that starts with this label, from the hash of what is right of it (0: nothing). Multilinear over
 * 7-byte words inside a label, polynomial over labels, both modulo 2^61-1; the result stays below 2^62. */
GBF_INLINE uint64_t gbf_name_chain(const uint64_t key[GBF_NAME_KEYS], uint64_t right, const uint8_t *label,
                                   uint32_t nbytes)
{
    const uint64_t *weight = key + 1;
    unsigned __int128 sum = 0;
    for (; nbytes > 7; nbytes -= 7, label += 7)
        sum += (unsigned __int128)(gbf_load64(label) & ((UINT64_C(1) << 56) - 1)) * *weight++;
    sum += (unsigned __int128)(gbf_load64(label) & ((UINT64_C(1) << 8 * nbytes) - 1)) * *weight;
    return gbf_fold61((unsigned __int128)(right + gbf_fold61(sum)) * key[0]);
}

/* Spreads a chain value over 64 bits (a bijection, so it keeps the collision bound). */
GBF_INLINE uint64_t gbf_name_mix(uint64_t h)
{
    h *= UINT64_C(0x9E3779B97F4A7C15);
    h ^= h >> 32;
    return h * UINT64_C(0xD6E8FEB86659FD93);
}

GBF_INLINE uint64_t gbf_scale(uint64_t hash, uint64_t count) /* 0..count-1, monotonic in hash */
{
    return (uint64_t)((unsigned __int128)hash * count >> 64);
}

GBF_INLINE uint64_t gbf_bloom_bits(uint64_t mixed)
{
    return UINT64_C(1) << (mixed & 63) | UINT64_C(1) << (mixed >> 6 & 63) | UINT64_C(1) << (mixed >> 12 & 63);
}

/* A suffix of a name that may be a key: its hash and where in the name it starts. */
typedef struct {
    uint64_t mixed;
    uint32_t start;
} gbf_name_spot;

/* Suffixes of `name` that pass depth mask and Bloom filter, shortest first; their buckets and texts are on the way to the cache. */
GBF_INLINE uint32_t gbf_name_spots(const gbf_name_table *table, const gbf_name *name,
                                   gbf_name_spot spots[GBF_LABELS_MAX])
{
    uint32_t count = 0, end = name->nbytes;
    uint64_t chain = 0, depths = table->head.depths;
    for (uint32_t depth = 1;; depth++) {
        uint32_t start = gbf_label_start(name->dots, end);
        chain = gbf_name_chain(table->head.key, chain, name->text + start, end - start);
        depths =
            depth < 64 ? depths >> 1 : depths; /* bit 0 is this depth's; from 63 labels on, one bit stands for all */
        if (depths & 1) {
            uint64_t mixed = gbf_name_mix(chain), bits = gbf_bloom_bits(mixed);
            if ((table->bloom[gbf_scale(mixed, table->bloom_words)] & bits) == bits) {
                uint64_t home = gbf_scale(mixed, table->head.home);
                GBF_PREFETCH(&table->buckets[home]);
                GBF_PREFETCH(table->text + home * table->text_stride);
                spots[count++] = (gbf_name_spot){mixed, start};
            }
        }
        if (start == 0 || depths == (depths & (depth < 63)))
            return count;
        end = start - 1;
    }
}

/* Bit i: slot i of the bucket has this tag. */
GBF_INLINE uint32_t gbf_bucket_tags(const gbf_name_bucket *bucket, uint16_t tag)
{
#if defined(__SSE2__)
    __m128i equal = _mm_cmpeq_epi16(_mm_loadu_si128((const __m128i *)bucket), _mm_set1_epi16((short)tag));
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(equal, equal)) & ((1u << GBF_BUCKET_SLOTS) - 1);
#else
    uint32_t found = 0;
    for (uint32_t i = 0; i < GBF_BUCKET_SLOTS; i++)
        found |= (uint32_t)(bucket->tag[i] == tag) << i;
    return found;
#endif
}

/* The bucket that holds this suffix as a key, and its slot; NULL if there is none. */
GBF_INLINE const gbf_name_bucket *gbf_name_probe(const gbf_name_table *table, const gbf_name *name,
                                                 const gbf_name_spot *spot, uint32_t *slot)
{
    const gbf_name_bucket *bucket = &table->buckets[gbf_scale(spot->mixed, table->head.home)];
    uint32_t nbytes = name->nbytes - spot->start;
    for (;; bucket++) {
        uint32_t found = gbf_bucket_tags(bucket, (uint16_t)(spot->mixed >> 32));
        for (; found != 0; found &= found - 1) {
            uint32_t i = (uint32_t)__builtin_ctz(found);
            if (bucket->kinds[i] == 0)
                continue;
            *slot = i;
            if (!table->head.has_text) {
                if (bucket->check[i] == (uint8_t)(spot->mixed >> 48) && bucket->text[i] == (uint32_t)spot->mixed)
                    return bucket;
            } else if (bucket->check[i] == nbytes &&
                       memcmp(table->text + bucket->text[i], name->text + spot->start, nbytes) == 0) {
                return bucket;
            }
        }
        if (GBF_LIKELY(!bucket->over))
            return NULL;
    }
}

/* Kinds that a key starting at byte `start` of the name can match with. */
GBF_INLINE uint32_t gbf_name_kinds_at(const gbf_name *name, uint32_t start)
{
    if (start == 0)
        return GBF_NAME_EXACT | GBF_NAME_TREE;
    uint32_t below = GBF_NAME_MANY | GBF_NAME_TREE | GBF_NAME_GLOB;
    return gbf_label_start(name->dots, start - 1) == 0 ? below | GBF_NAME_ONE : below;
}

/* Symbol of each byte: 0 for bytes that no name holds. */
extern const uint8_t gbf_symbol[256];

/* Accept list of an automaton (0: none) after reading text[0..end) right to left. */
GBF_INLINE uint32_t gbf_automaton_run(const gbf_name_table *table, const gbf_automaton *automaton, const uint8_t *text,
                                      uint32_t end)
{
    const uint16_t *cells = table->cells + automaton->cells;
    uint32_t state = automaton->start, width = automaton->width;
    if (GBF_UNLIKELY(automaton->far)) {
        while (end > 0 && state != 0)
            state = cells[state * width + automaton->class_of[gbf_symbol[text[--end]]]];
    } else {
        uint32_t row = state * width; /* a step waits for the one before it: no multiplication in between */
        while (end > 0 && row != 0)
            row = cells[row + automaton->class_of[gbf_symbol[text[--end]]]];
        state = row / width;
    }
    return table->lists[automaton->lists + state];
}

/* The same for an automaton and those chained to it, up to GBF_LANES of them side by side: one step waits for the step before,
 * and none for another automaton's. Returns how many were run. */
GBF_INLINE uint32_t gbf_automata_run(const gbf_name_table *table, const gbf_automaton *automaton, const uint8_t *text,
                                     uint32_t end, uint32_t lists[GBF_LANES])
{
    const uint16_t *cells[GBF_LANES];
    const uint8_t *classes[GBF_LANES];
    uint32_t row[GBF_LANES], count = 0;
    do {
        cells[count] = table->cells + automaton[count].cells;
        classes[count] = automaton[count].class_of;
        row[count] = (uint32_t)automaton[count].start * automaton[count].width;
        count++;
    } while (count < GBF_LANES && automaton[count - 1].more && !automaton[count].far);
    if (count == 1 || automaton->far) {
        lists[0] = gbf_automaton_run(table, automaton, text, end);
        return 1;
    }
    for (uint32_t i = count; i < GBF_LANES; i++) { /* idle lanes stay in the dead row of the first automaton */
        cells[i] = cells[0];
        classes[i] = classes[0];
        row[i] = 0;
    }
    while (end > 0 && (row[0] | row[1] | row[2] | row[3]) != 0) {
        uint8_t symbol = gbf_symbol[text[--end]];
        for (uint32_t i = 0; i < GBF_LANES; i++)
            row[i] = cells[i][row[i] + classes[i][symbol]];
    }
    for (uint32_t i = 0; i < count; i++)
        lists[i] = table->lists[automaton[i].lists + row[i] / automaton[i].width];
    return count;
}

/* Lowest glob number accepted by automaton `index` and those chained to it, or `best` if none is lower. */
GBF_INLINE uint32_t gbf_glob_lookup(const gbf_name_table *table, uint32_t index, const uint8_t *text, uint32_t end,
                                    uint32_t best)
{
    const gbf_automaton *automaton = table->automata + index;
    do {
        uint32_t lists[GBF_LANES], count = gbf_automata_run(table, automaton, text, end, lists);
        for (uint32_t i = 0; i < count; i++)
            if (lists[i] != 0 && (table->accepts[lists[i]] & ~GBF_LAST_GLOB) < best)
                best = table->accepts[lists[i]] & ~GBF_LAST_GLOB;
        automaton += count;
    } while (automaton[-1].more);
    return best;
}

/* Second half of gbf_name_lookup: the answer, given the spots. */
GBF_INLINE uint32_t gbf_name_resolve(const gbf_name_table *table, const gbf_name *name, const gbf_name_spot *spots,
                                     uint32_t count)
{
    struct {
        uint32_t automaton, end;
    } pending[GBF_LABELS_MAX];
    uint32_t globs = 0, slot = 0;
    while (count-- > 0) {
        const gbf_name_spot *spot = &spots[count];
        const gbf_name_bucket *bucket = gbf_name_probe(table, name, spot, &slot);
        if (bucket == NULL)
            continue;
        uint32_t kinds = bucket->kinds[slot], value = bucket->value[slot],
                 wanted = gbf_name_kinds_at(name, spot->start);
        if ((kinds & wanted) == 0)
            continue;
        if (GBF_UNLIKELY(kinds & GBF_NAME_MULTI)) {
            const gbf_name_many *many = &table->many[value];
            uint32_t automaton = GBF_NONE;
            value = GBF_NONE;
            for (uint32_t i = 0; value == GBF_NONE && i < 5; i++) {
                if ((many->kind[i] & wanted) == GBF_NAME_GLOB)
                    automaton = many->value[i];
                else if ((many->kind[i] & wanted) != 0)
                    value = many->value[i];
            }
            if (value != GBF_NONE)
                return value;
            if (automaton == GBF_NONE)
                continue; /* a damaged block may promise kinds that the list lacks */
            value = automaton;
        } else if (kinds != GBF_NAME_GLOB) {
            return value;
        }
        pending[globs].automaton = value;
        pending[globs++].end = spot->start - 1;
    }
    uint32_t best = GBF_NONE;
    while (globs-- > 0)
        best = gbf_glob_lookup(table, pending[globs].automaton, name->text, pending[globs].end, best);
    if (table->head.roots > 0)
        best = gbf_glob_lookup(table, 0, name->text, name->nbytes, best);
    return best == GBF_NONE ? GBF_NONE : table->glob_values[best];
}

/* Value of the most specific pattern that matches, or GBF_NONE: the exact name, else the longest suffix (of equal ones the
 * first given), else the first glob. Reads at most one bucket run per label; never allocates or fails; any number of
 * threads. Source: DESIGN.md, "Names: the hash". */
GBF_INLINE uint32_t gbf_name_lookup(const gbf_name_table *table, const gbf_name *name)
{
    gbf_name_spot spots[GBF_LABELS_MAX];
    return gbf_name_resolve(table, name, spots, gbf_name_spots(table, name, spots));
}

/* Values of every pattern that matches, most specific first, globs last in order. Returns how many were written, or a
 * number above `capacity` that would be enough. */
uint64_t gbf_name_lookup_all(const gbf_name_table *table, const gbf_name *name, uint32_t *values, uint64_t capacity);

/* ORs rows[value], `words` words each, of every pattern that matches into `bits`; a value without a row adds nothing.
 * Never allocates or fails; any number of threads. */
void gbf_name_union(const gbf_name_table *table, const gbf_name *name, const uint64_t *rows, uint64_t row_count,
                    uint32_t words, uint64_t *bits);

/* Looks up `count` names into out[] (GBF_NONE: no match, malformed, or texts[i] is NULL) and returns how many matched. Faster
 * than single calls on tables that do not fit the cache: buckets of later names are fetched while earlier ones are read. */
uint64_t gbf_name_lookup_batch(const gbf_name_table *table, const uint8_t *const *texts, const uint64_t *nbytes,
                               uint64_t count, uint32_t *out);

/* Kind of the literal pattern text[0..nbytes) with its key in *key, or 0 if it is none (a glob, a regex, malformed). */
uint32_t gbf_name_literal(gbf_name *key, const uint8_t *text, uint64_t nbytes, gbf_fold fold);

#endif
