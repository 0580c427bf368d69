/* Building name tables. Cold; a builder belongs to one thread. */
#ifndef GBF_NAME_BUILD_H
#define GBF_NAME_BUILD_H

#include "name/gbf_name_dfa.h"

typedef struct gbf_name_builder gbf_name_builder;

/* NULL when memory ran out. `key`: see gbf_name_head; 0 < key[0] < 2^59, the others below 2^61. Without `keep_text` keys are
 * told apart by 56 bits of hash and their place instead of their text. */
gbf_name_builder *gbf_name_builder_new(const uint64_t key[GBF_NAME_KEYS], int keep_text);
void gbf_name_builder_free(gbf_name_builder *builder);

/* Adds a pattern; of equal ones the first given counts. `kind` is one of GBF_NAME_EXACT, _ONE, _MANY, _TREE; value is not GBF_NONE. */
gbf_status gbf_name_builder_add(gbf_name_builder *builder, const gbf_name *key, uint32_t kind, uint32_t value);

/* Opens a glob; its number is how many came before. gbf_name_builder_way gives the ways it may match (one or two): what is left
 * of `anchor` (NULL: there is none), `count` items from right to left. */
gbf_status gbf_name_builder_glob(gbf_name_builder *builder, uint32_t value);
gbf_status gbf_name_builder_way(gbf_name_builder *builder, const gbf_name *anchor, const gbf_glob_item *items,
                                uint32_t count);

/* A sealed malloc'ed block of kind "NAME". `more` (nbytes may be 0) is stored as it is under tag "MORE". GBF_BAD_INPUT: see
 * gbf_automata_add. The builder is spent afterwards. */
gbf_status gbf_name_builder_finish(gbf_name_builder *builder, const void *more, uint64_t nbytes, void **block,
                                   gbf_fault *fault);

#endif
