/* Builder of AS tables: rows of prefixes with their origin AS, and names of ASes. Filled from CSV text by
 * gbf_asn_scan or item by item, then handed to gbf_prefix_build. One thread at a time. */
#ifndef GBF_ASN_BUILD_H
#define GBF_ASN_BUILD_H

#include "address/gbf_asn.h"
#include "address/gbf_prefix.h"

#define GBF_ASN_MAX_COLUMNS 256  /* columns of a row that are looked at; the rest of the line may hold more */
#define GBF_ASN_MAX_PROBLEMS 100 /* bad rows described; later ones are only counted */
#define GBF_ASN_MAX_NAME 1024    /* bytes of a name */

typedef enum {
    GBF_ASN_FEW_COLUMNS,
    GBF_ASN_OPEN_QUOTE,  /* a quoted field does not end on its line */
    GBF_ASN_AFTER_QUOTE, /* text between a closing quote and the delimiter */
    GBF_ASN_BAD_PREFIX,
    GBF_ASN_BAD_ADDRESS,
    GBF_ASN_BAD_RANGE, /* last address before the first, or of the other family */
    GBF_ASN_BAD_NUMBER,
    GBF_ASN_BAD_NAME, /* not UTF-8, control characters, too long */
} gbf_asn_wrong;

typedef struct {
    uint64_t line;   /* from 1 */
    uint64_t start;  /* byte in the text where the line starts */
    uint64_t offset; /* byte in the text where the field starts */
    uint32_t nbytes; /* of the field */
    gbf_asn_wrong wrong;
} gbf_asn_problem;

typedef struct {
    const char *text; /* borrowed */
    uint32_t nbytes;
    uint32_t asn; /* 0 = free slot */
    int escaped;  /* "" stands for one quote */
} gbf_asn_named;

typedef struct {
    gbf_prefix_item *items;
    uint64_t count, capacity;
    gbf_asn_named *named; /* open addressing by AS number; a power of two */
    uint64_t named_count, named_capacity;
    gbf_asn_problem problems[GBF_ASN_MAX_PROBLEMS];
    uint64_t problem_count; /* may exceed the array */
    uint64_t row_count;     /* rows read, good or not */
    uint64_t no_asn;        /* rows of AS 0 or an empty AS, skipped */
} gbf_asn_rows;

/* Which column holds what; -1 = not in this file. Either prefix, or first and last, or none of them (a file of
 * names). An unquoted name that is the last column runs to the end of its line, delimiters included. */
typedef struct {
    char delimiter;
    int prefix, first, last, asn, name;
    int name_is_last;
    uint32_t name_least; /* shorter unquoted names are flags or country codes, not names */
} gbf_asn_layout;

/* Scans whole lines of CSV text from byte `start`, which begins line `line`. Bad rows become problems and add nothing.
 * Blank lines and lines that start with # are skipped. Keeps pointers into `text`. GBF_OK or GBF_NO_MEMORY. */
gbf_status gbf_asn_scan(gbf_asn_rows *rows, const gbf_asn_layout *layout, const char *text, uint64_t nbytes,
                        uint64_t start, uint64_t line);

gbf_status gbf_asn_add(gbf_asn_rows *rows, gbf_addr address, uint32_t bits, uint32_t asn);

/* Splits first..last (same family, first <= last) into the fewest prefixes and adds them. */
gbf_status gbf_asn_add_range(gbf_asn_rows *rows, gbf_addr first, gbf_addr last, uint32_t asn);

/* Names `asn` (not 0); a later name replaces an earlier one. `text` must live until gbf_asn_pack. */
gbf_status gbf_asn_put_name(gbf_asn_rows *rows, uint32_t asn, const char *text, uint32_t nbytes, int escaped);

/* The three name sections, as one allocation at `numbers` that the caller frees. */
typedef struct {
    uint32_t *numbers, *offsets;
    char *text;
    uint64_t count, text_bytes;
} gbf_asn_packed;

gbf_status gbf_asn_pack(const gbf_asn_rows *rows, gbf_asn_packed *packed, gbf_fault *fault);

void gbf_asn_rows_free(gbf_asn_rows *rows);

#endif
