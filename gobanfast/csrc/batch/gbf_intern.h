/* Interning: equal texts get one number, in the order they first came, so that a thing is worked out once a distinct value.
 *
 * Open addressing by keyed XXH3; texts are kept whole, because a number stands for its text. The owner clears a table that has grown
 * too large: numbers begin anew.
 * Source: DESIGN.md, "Log lines". */
#ifndef GBF_INTERN_H
#define GBF_INTERN_H

#include "base/gbf_base.h"

typedef struct {
    uint64_t *hashes, *ends; /* by number: hash, and where its text ends in `bytes` */
    uint32_t *slots;         /* number + 1; 0 is free */
    uint8_t *bytes;
    uint64_t bytes_room, seed;
    uint32_t count, room, slot_bits;
} gbf_intern;

/* Whatever comes back, gbf_intern_free() frees it. */
gbf_status gbf_intern_start(gbf_intern *t, uint64_t seed);
void gbf_intern_clear(gbf_intern *t);
void gbf_intern_free(gbf_intern *t);

/* Number of each of `n` texts, base + at[i], nbytes[i], into `out`. fresh[k]: item where number (count before) + k came first. `fresh`
 * holds n. GBF_NO_MEMORY: the table has what came before the one that failed. */
gbf_status gbf_intern_texts(gbf_intern *t, const uint8_t *base, const uint32_t *at, const uint32_t *nbytes, uint32_t n,
                            uint32_t *out, uint32_t *fresh);

/* The same for n records of `width` bytes, one after the other. */
gbf_status gbf_intern_records(gbf_intern *t, const uint8_t *records, uint32_t width, uint32_t n, uint32_t *out,
                              uint32_t *fresh);

/* Text of a number below count. */
GBF_INLINE const uint8_t *gbf_intern_get(const gbf_intern *t, uint32_t number, uint64_t *nbytes)
{
    uint64_t start = number == 0 ? 0 : t->ends[number - 1];
    *nbytes = t->ends[number] - start;
    return t->bytes + start;
}

#endif
