/* Building sets of origin and host patterns. Cold; a builder belongs to one thread. */
#ifndef GBF_ORIGIN_BUILD_H
#define GBF_ORIGIN_BUILD_H

#include "http/gbf_origin.h"

typedef enum {
    GBF_ORIGIN_ANY = 0, /* `*`: every origin that is well formed */
    GBF_ORIGIN_EXACT = 1,
    GBF_ORIGIN_ONE = 2,  /* `*.` */
    GBF_ORIGIN_MANY = 3, /* `**.` */
} gbf_origin_kind;

typedef struct {
    gbf_origin origin;
    gbf_origin_kind kind;
    uint32_t port; /* GBF_PORT_ANY, or that of the origin */
} gbf_origin_pattern;

/* 1 and the pattern in *p, or 0 when text[0..n) is none: an origin (with `hosts` a host without a default port), with "*." or "**."
 * before its name, ":*" in place of its port; or `*`, of origins only. */
int gbf_origin_pattern_read(gbf_origin_pattern *p, const uint8_t *text, uint32_t n, int hosts);

typedef struct gbf_origin_builder gbf_origin_builder;

/* NULL when memory ran out. `key`: see gbf_name_head. */
gbf_origin_builder *gbf_origin_builder_new(const uint64_t key[GBF_NAME_KEYS], int hosts);
void gbf_origin_builder_free(gbf_origin_builder *builder);

/* Adds a pattern to a group. GBF_BAD_INPUT: it is no pattern, or the set has too many schemes. */
gbf_status gbf_origin_builder_add(gbf_origin_builder *builder, const uint8_t *text, uint32_t n, uint32_t group);

/* A sealed malloc'ed block of kind "ORIG"; `more` (nbytes may be 0) is stored as it is under tag "MORE". GBF_BAD_INPUT: the ports
 * and groups of patterns that overlap make too many combinations. The builder is spent afterwards. */
gbf_status gbf_origin_builder_finish(gbf_origin_builder *builder, const void *more, uint64_t nbytes, void **block,
                                     gbf_fault *fault);

#endif
