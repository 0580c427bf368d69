/* Connection table: server name and ClientHello signals, each value mapped to a bit vector of rules.
 *
 * For every signal there are rows of bits, bit i for rule i. The first rows stand for "absent", "malformed" and "there,
 * and nothing that a rule names"; each further row is the set of rules that one name, fingerprint or protocol
 * satisfies, together with those that do not ask. What satisfies several takes the OR of their rows; a request is
 * decided by the AND over all signals. Patterns of names are in a gbf_name_table of their own, whose values are rows.
 * Block kind "SIGN". Source: DESIGN.md, "Signals besides the address". */
#ifndef GBF_CONNECTION_H
#define GBF_CONNECTION_H

#include "base/gbf_block.h"
#include "tls/gbf_hello.h"

enum {
    GBF_ROW_ABSENT = 0,
    GBF_ROW_MALFORMED = 1,
    GBF_ROW_KNOWN = 2,                                              /* a well-formed value that no rule names */
    GBF_TLS_VERSIONS = 5,                                           /* before 1.0, 1.0, 1.1, 1.2, 1.3 and later */
    GBF_TLS_ECHS = 3,                                               /* none, outer, inner */
    GBF_ROW_TOLD = GBF_ROW_KNOWN + GBF_TLS_VERSIONS * GBF_TLS_ECHS, /* no hello, and a JA4 that a proxy tells */
    GBF_HELLO_ROWS,
};

enum { /* what some rule requires */
       GBF_ASKS_NAME = 1,
       GBF_ASKS_HELLO = 2, /* anything of it but the name */
       GBF_ASKS_JA4 = 4,
       GBF_ASKS_ALPN = 8,
       GBF_QUIET_NAME = 16, /* no rule about admission requires it, so that nothing depends on its being readable */
       GBF_QUIET_HELLO = 32,
       GBF_QUIET_JA4 = 64,
};

/* A text that rules name: where it is in `text`, and its row. Terms ascend by (length, bytes). */
typedef struct {
    uint32_t at, nbytes, row;
} gbf_term;

/* Row 0 is "none of them". A JA4 matches terms that it begins with, a protocol the term that it equals. */
typedef struct {
    const gbf_term *terms;
    const uint64_t *rows;
    uint64_t term_count, row_count;
} gbf_terms;

typedef struct {
    gbf_terms ja4, alpn;
    const uint8_t *text;        /* of both */
    const uint64_t *absent;     /* one row: no signal besides the address is known */
    const uint64_t *name_rows;  /* rows of 2 x words, because a rule's conditions sni and sni_file are ANDed */
    const uint64_t *hello_rows; /* GBF_HELLO_ROWS rows */
    uint64_t name_row_count, text_nbytes;
    uint32_t words, asks;
} gbf_connection;

GBF_INLINE void gbf_bits_and(uint64_t *to, const uint64_t *from, uint32_t words)
{
    for (uint32_t w = 0; w < words; w++)
        to[w] &= from[w];
}

GBF_INLINE void gbf_bits_or(uint64_t *to, const uint64_t *from, uint32_t words)
{
    for (uint32_t w = 0; w < words; w++)
        to[w] |= from[w];
}

/* ANDs a row of names, both halves of it, into `vector`. */
GBF_INLINE void gbf_connection_and_name(const gbf_connection *s, const uint64_t *row, uint64_t *vector)
{
    for (uint32_t w = 0; w < s->words; w++)
        vector[w] &= row[w] & row[s->words + w];
}

GBF_INLINE const uint64_t *gbf_connection_name_row(const gbf_connection *s, uint32_t row)
{
    return s->name_rows + (uint64_t)row * 2 * s->words;
}

/* ANDs what version and ECH of a well-formed hello satisfy into `vector`. */
GBF_INLINE void gbf_connection_and_hello(const gbf_connection *s, const gbf_hello *hello, uint64_t *vector)
{
    uint32_t version = hello->version < 0x0301 ? 0 : hello->version > 0x0304 ? 4 : hello->version - 0x0300u;
    uint32_t ech = hello->flags & GBF_HELLO_ECH_OUTER ? 1 : hello->flags & GBF_HELLO_ECH_INNER ? 2 : 0;
    uint32_t row = GBF_ROW_KNOWN + version * GBF_TLS_ECHS + ech;
    gbf_bits_and(vector, s->hello_rows + (uint64_t)row * s->words, s->words);
}

/* AND into `vector`: the rules that this JA4 satisfies; the rules that one of the offered protocols satisfies.
 * `scratch` is s->words long. */
void gbf_connection_and_ja4(const gbf_connection *s, const uint8_t ja4[36], uint64_t *vector, uint64_t *scratch);
void gbf_connection_and_alpn(const gbf_connection *s, const gbf_hello *hello, uint64_t *vector, uint64_t *scratch);

/* What signals compile to; count 0 for what no rule asks. `words` is that of the rules the signals belong to. */
typedef struct {
    const uint64_t *absent, *name_rows, *hello_rows, *ja4_rows, *alpn_rows;
    const gbf_term *ja4_terms, *alpn_terms;
    const uint8_t *text;
    const uint8_t *names_digest; /* 16 bytes that stand for the patterns, so that the block's hash covers them */
    uint64_t name_row_count, ja4_row_count, alpn_row_count, ja4_term_count, alpn_term_count, text_nbytes;
    uint32_t words, asks;
} gbf_connection_source;

/* Builds a sealed block; on GBF_OK the caller frees *block. */
gbf_status gbf_connection_build(const gbf_connection_source *source, void **block);

/* Binds `signals` to a block, which must outlive it. Every index is checked; with `verify` the content hash too. */
gbf_status gbf_connection_open(gbf_connection *signals, const void *block, uint64_t nbytes, int verify,
                               gbf_fault *fault);

#endif
