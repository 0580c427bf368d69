/* Many requests at once: a column of values becomes a column of class numbers, rows of classes become decisions.
 *
 * A class is an index of a vector of rules. In every column class 0 is "absent" and class 1 "malformed"; the others are the
 * distinct vectors met, each kept once, so memory grows with what rules tell apart and not with the rows.
 * Source: DESIGN.md, "Columns". */
#ifndef GBF_COLUMNS_H
#define GBF_COLUMNS_H

#include "name/gbf_name.h"
#include "rules/gbf_connection.h"
#include "rules/gbf_rules.h"

typedef struct {
    uint64_t *vectors; /* count x words */
    uint32_t *slots;   /* open addressing by vector: class + 1; 0 is free */
    uint32_t count, room, slot_bits, words;
} gbf_classes;

/* Classes 0 and 1 with these vectors. Whatever comes back, gbf_classes_free() frees it. */
gbf_status gbf_classes_start(gbf_classes *c, uint32_t words, const uint64_t *absent, const uint64_t *malformed);
void gbf_classes_free(gbf_classes *c);

/* Class with this vector, a new one if there is none yet; GBF_NONE when there is no memory for it. */
uint32_t gbf_classes_of(gbf_classes *c, const uint64_t *vector);

/* Class of each of `count` names into `out`. texts[i] NULL: absent when nbytes[i] is 0, else malformed. 0 when there is no
 * memory for another class. `scratch` holds 2 x words. */
int gbf_columns_names(const gbf_connection *signals, const gbf_name_table *names, gbf_classes *classes,
                      const uint8_t *const *texts, const uint64_t *nbytes, uint64_t count, uint64_t *scratch,
                      uint32_t *out);

/* Number of each of `count` values of 16 bytes, at any alignment, into `out`: classes of two words, of which 0 and 1 are no
 * value's. 0 when there is no memory for another. */
int gbf_columns_fingerprints(gbf_classes *classes, const uint8_t *fingerprints, uint64_t count, uint32_t *out);

#define GBF_COLUMNS_MAX 128

/* One signal of every row; at most GBF_COLUMNS_MAX of them. */
typedef struct {
    const uint32_t *classes;
    const uint64_t *vectors;
} gbf_column;

/* Where the answers go, an item a row: action (gbf_action), rule or GBF_NONE, AS or 0. */
typedef struct {
    uint8_t *actions;
    uint32_t *rules, *asns;
} gbf_rows;

/* Decides n rows. leaves[i]: leaf of the address, or GBF_NONE when it is not one. `base` is ANDed into every row: what
 * the absence of every other signal satisfies. `unparsable` is the action where a signal is malformed and no rule decides.
 * `winners` holds class_count items, for rows without columns. */
void gbf_columns_decide(const gbf_rules *r, const uint64_t *base, uint8_t unparsable, const uint32_t *leaves,
                        uint64_t n, const gbf_column *columns, uint32_t column_count, uint32_t *winners,
                        const gbf_rows *out);

/* First rule from `from` on and before `end` that `mask` (words) and a row hold, or GBF_NONE, an item a row: for effects
 * besides GBF_ADMIT. The other arguments are those of gbf_columns_decide(). */
void gbf_columns_first(const gbf_rules *r, const uint64_t *mask, uint32_t from, uint32_t end, const uint64_t *base,
                       const uint32_t *leaves, uint64_t n, const gbf_column *columns, uint32_t column_count,
                       uint32_t *out);

#endif
