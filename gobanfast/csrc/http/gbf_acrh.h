/* Access-Control-Request-Headers against a sorted set of names: one merge walk that stops at the first miss.
 *
 * Browsers send names in lower case, sorted, each once (Fetch, "CORS-unsafe request-header names"), so what is asked is a
 * subsequence of the set and one walk over both decides. Everything a sender could make long has a cap: an element the longest
 * allowed name, blanks around one, empty elements, and with `any` the names themselves. Rules: DESIGN.md, "Request headers of
 * a preflight". */
#ifndef GBF_ACRH_H
#define GBF_ACRH_H

#include "base/gbf_base.h"

enum {
    GBF_ACRH_BLANKS = 2,   /* spaces and tabs around an element */
    GBF_ACRH_EMPTY = 16,   /* empty elements in all lines */
    GBF_ACRH_NBYTES = 128, /* of a name that only `any` allows */
    GBF_ACRH_NAMES = 128,  /* names asked, with `any` */
};

/* The names one behind the other, ascending; name i ends at ends[i]. */
typedef struct {
    const uint8_t *text;
    const uint32_t *ends;
    uint32_t count, longest;
    uint32_t any; /* 1: every other name, too, but authorization */
} gbf_acrh;

/* How far a request was read; zero before its first line. `last` borrows the lines. */
typedef struct {
    const uint8_t *last; /* the name before, with `any` */
    uint32_t last_nbytes, at, empty, names;
} gbf_acrh_walk;

/* 1 when everything in the line text[0..n) is allowed and goes on where the lines before it ended. Reads at most the bytes
 * of allowed names and what the caps leave, never allocates or fails. */
int gbf_acrh_line(const gbf_acrh *allowed, gbf_acrh_walk *walk, const uint8_t *text, uint64_t n);

#endif
