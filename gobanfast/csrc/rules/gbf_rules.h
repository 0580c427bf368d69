/* Compiled rules: bit vector of the rules that a request satisfies, and the first of them that decides. Block kind "RULE".
 *
 * Every matcher turns its signal into a class; every class owns a bit vector of the rules it satisfies, bit i for rule i
 * in decision order, effect after effect. A decision is the AND of the vectors and the first set bit of each effect's
 * range. This is the address: its
 * trie gives a leaf (origin AS, class). Class 0 is "no address", class 1 is "not an address". Other signals:
 * gbf_connection.h. See DESIGN.md, "Rules". */
#ifndef GBF_RULES_H
#define GBF_RULES_H

#include "address/gbf_trie.h"

#define GBF_CLASS_ABSENT 0u
#define GBF_CLASS_MALFORMED 1u

typedef struct {
    uint32_t asn;   /* 0: no AS known */
    uint32_t class; /* index of a vector */
} gbf_leaf;

/* The rules a class satisfies, the parts of it that may win, would win, or are only noted, as masks of `words` words. */
typedef struct {
    gbf_lpm lpm;
    const gbf_lpm_kernel *kernel;
    const gbf_leaf *leaves;
    const uint64_t *vectors;                    /* class_count x words */
    const uint64_t *enforced, *shadow, *logged; /* words each */
    const uint8_t *actions;                     /* gbf_action, one a rule of GBF_ADMIT; none is GBF_LIMIT */
    uint64_t leaf_count, class_count, rule_count;
    uint32_t words;
    uint32_t ends[GBF_EFFECTS]; /* where the bits of each effect end; the next begins there */
} gbf_rules;

GBF_INLINE const uint64_t *gbf_rules_vector(const gbf_rules *r, uint32_t class)
{
    return r->vectors + (uint64_t)class * r->words;
}

/* First rule at or after `from` that both `vector` and `mask` hold, or GBF_NONE. */
GBF_INLINE uint32_t gbf_rules_next(const gbf_rules *r, const uint64_t *vector, const uint64_t *mask, uint32_t from)
{
    uint64_t keep = ~UINT64_C(0) << (from & 63);
    for (uint32_t w = from >> 6; w < r->words; w++, keep = ~UINT64_C(0)) {
        uint64_t bits = vector[w] & mask[w] & keep;
        if (bits)
            return w * 64 + (uint32_t)__builtin_ctzll(bits);
    }
    return GBF_NONE;
}

/* The same before `end`: of one effect from the end of the effect before it. */
GBF_INLINE uint32_t gbf_rules_first(const gbf_rules *r, const uint64_t *vector, const uint64_t *mask, uint32_t from,
                                    uint32_t end)
{
    uint32_t rule = gbf_rules_next(r, vector, mask, from);
    return rule < end ? rule : GBF_NONE;
}

/* Record of an address text, or GBF_NONE when it is not an address. */
GBF_INLINE uint32_t gbf_rules_leaf(const gbf_rules *r, const char *text, size_t n)
{
    gbf_addr address;
    return r->kernel->find_text(&r->lpm, text, n, &address);
}

/* What rules compile to. Ranges cover each family whole and ascend from 0; a range's leaf is a leaf index. */
typedef struct {
    const gbf_range *ranges4, *ranges6;
    const gbf_leaf *leaves;
    const uint64_t *vectors, *enforced, *shadow, *logged;
    const uint8_t *actions;
    const uint32_t *ends; /* GBF_EFFECTS */
    uint64_t range_count4, range_count6, leaf_count, class_count, rule_count;
} gbf_rules_source;

/* Builds a sealed block; on GBF_OK the caller frees *block. GBF_BAD_INPUT when an index points outside its array. */
gbf_status gbf_rules_build(const gbf_rules_source *source, void **block, gbf_fault *fault);

/* Binds `rules` to a block, which must outlive it. Every index is checked; with `verify` the content hash too. */
gbf_status gbf_rules_open(gbf_rules *rules, const void *block, uint64_t nbytes, int verify,
                          const gbf_lpm_kernel *kernel, gbf_fault *fault);

#endif
