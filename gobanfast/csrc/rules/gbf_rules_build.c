#include "rules/gbf_rules.h"

enum {
    KIND = GBF_TAG('R', 'U', 'L', 'E'),
    RECS = GBF_TAG('R', 'E', 'C', 'S'),
    VECT = GBF_TAG('V', 'E', 'C', 'T'),
    ENFO = GBF_TAG('E', 'N', 'F', 'O'),
    SHAD = GBF_TAG('S', 'H', 'A', 'D'),
    LOGD = GBF_TAG('L', 'O', 'G', 'D'),
    ACTN = GBF_TAG('A', 'C', 'T', 'N'),
    EFFX = GBF_TAG('E', 'F', 'F', 'X'), /* left out where all rules are of the first effect */
    OWN_SECTIONS = 6,
};

static uint64_t words_for(uint64_t rules)
{
    return rules / 64 + 1; /* at least one, so that no section is empty */
}

static gbf_status check_ranges(const gbf_range *ranges, uint64_t count, uint64_t leaf_count, gbf_fault *fault)
{
    if (count == 0 || gbf_addr_number(ranges[0].start) != 0)
        return gbf_refuse(fault, GBF_BAD_INPUT, "ranges do not start at 0", 0);
    for (uint64_t i = 0; i < count; i++) {
        if (i > 0 && gbf_addr_number(ranges[i].start) <= gbf_addr_number(ranges[i - 1].start))
            return gbf_refuse(fault, GBF_BAD_INPUT, "ranges do not ascend", i);
        if (ranges[i].leaf >= leaf_count)
            return gbf_refuse(fault, GBF_BAD_INPUT, "range names a leaf that does not exist", i);
    }
    return GBF_OK;
}

static gbf_status check_leaves(const gbf_leaf *leaves, uint64_t count, uint64_t class_count, gbf_status bad,
                               gbf_fault *fault)
{
    for (uint64_t i = 0; i < count; i++)
        if (leaves[i].class >= class_count)
            return gbf_refuse(fault, bad, "leaf names a class that does not exist", i);
    return GBF_OK;
}

/* What decides is counted in an array by action. Other effects have actions of their own, and none here. */
static gbf_status check_actions(const uint8_t *actions, uint64_t count, uint32_t admit, const uint64_t *enforced,
                                gbf_status bad, gbf_fault *fault)
{
    for (uint64_t i = admit; i < count; i++)
        if (actions[i] != 0)
            return gbf_refuse(fault, bad, "rule has an action that it cannot have", i);
    for (uint64_t i = 0; i < admit; i++)
        if (actions[i] > GBF_ACTION_LOG ||
            ((actions[i] == GBF_ACTION_LOG || actions[i] == GBF_LIMIT) && enforced[i >> 6] >> (i & 63) & 1))
            return gbf_refuse(fault, bad, "rule has an action that it cannot have", i);
    return GBF_OK;
}

static gbf_status check_ends(const uint32_t *ends, uint64_t count, gbf_status bad, gbf_fault *fault)
{
    for (uint32_t i = 1; i < GBF_EFFECTS; i++)
        if (ends[i] < ends[i - 1])
            return gbf_refuse(fault, bad, "effects do not ascend", i);
    if (ends[GBF_EFFECTS - 1] != count)
        return gbf_refuse(fault, bad, "effects do not cover the rules", GBF_EFFECTS);
    return GBF_OK;
}

gbf_status gbf_rules_build(const gbf_rules_source *s, void **block, gbf_fault *fault)
{
    gbf_status status;
    if (s->leaf_count == 0 || s->leaf_count >= GBF_NO_LEAF || s->class_count < 2)
        return gbf_refuse(fault, GBF_BAD_INPUT, "too few classes, or no leaves", 0);
    if ((status = check_ranges(s->ranges4, s->range_count4, s->leaf_count, fault)) != GBF_OK ||
        (status = check_ranges(s->ranges6, s->range_count6, s->leaf_count, fault)) != GBF_OK ||
        (status = check_leaves(s->leaves, s->leaf_count, s->class_count, GBF_BAD_INPUT, fault)) != GBF_OK ||
        (status = check_ends(s->ends, s->rule_count, GBF_BAD_INPUT, fault)) != GBF_OK ||
        (status = check_actions(s->actions, s->rule_count, s->ends[GBF_ADMIT], s->enforced, GBF_BAD_INPUT, fault)) !=
            GBF_OK)
        return status;
    gbf_lpm_build tries = {0};
    uint64_t mask_bytes = 8 * words_for(s->rule_count);
    if ((status = gbf_lpm_from_ranges(&tries, s->ranges4, s->range_count4, s->ranges6, s->range_count6)) == GBF_OK) {
        uint32_t own = OWN_SECTIONS + (s->ends[GBF_ADMIT] != s->rule_count);
        gbf_part parts[OWN_SECTIONS + 1 + GBF_LPM_PARTS] = {
            {RECS, sizeof *s->leaves, s->leaves, s->leaf_count * sizeof *s->leaves},
            {VECT, 8, s->vectors, s->class_count * mask_bytes},
            {ENFO, 8, s->enforced, mask_bytes},
            {SHAD, 8, s->shadow, mask_bytes},
            {LOGD, 8, s->logged, mask_bytes},
            {ACTN, 1, s->actions, s->rule_count},
            {EFFX, 4, s->ends, GBF_EFFECTS * sizeof *s->ends},
        };
        gbf_lpm_parts(&tries, parts + own);
        status = gbf_block_build(parts, own + GBF_LPM_PARTS, KIND, block);
    }
    gbf_lpm_free(&tries);
    return status;
}

gbf_status gbf_rules_open(gbf_rules *rules, const void *block, uint64_t nbytes, int verify,
                          const gbf_lpm_kernel *kernel, gbf_fault *fault)
{
    gbf_status status = gbf_block_open(block, nbytes, KIND, verify, fault);
    if (status != GBF_OK)
        return status;
    gbf_rules r = {.kernel = kernel};
    uint64_t vector_words, enforced_words, shadow_words, logged_words;
    r.leaves = gbf_block_section(block, RECS, sizeof *r.leaves, &r.leaf_count);
    r.vectors = gbf_block_section(block, VECT, 8, &vector_words);
    r.enforced = gbf_block_section(block, ENFO, 8, &enforced_words);
    r.shadow = gbf_block_section(block, SHAD, 8, &shadow_words);
    r.logged = gbf_block_section(block, LOGD, 8, &logged_words);
    r.actions = gbf_block_section(block, ACTN, 1, &r.rule_count);
    uint64_t end_count, words = words_for(r.rule_count);
    const uint32_t *ends = gbf_block_section(block, EFFX, 4, &end_count);
    if (r.leaves == NULL || r.vectors == NULL || r.actions == NULL || enforced_words != words ||
        shadow_words != words || logged_words != words || vector_words % words != 0 || vector_words / words < 2 ||
        words > UINT32_MAX / 64 || (ends != NULL && end_count != GBF_EFFECTS))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "rule sections do not fit each other", 64);
    r.words = (uint32_t)words;
    r.class_count = vector_words / words;
    if (r.leaf_count == 0 || r.leaf_count >= GBF_NO_LEAF)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "leaf count is out of range", 64);
    for (uint64_t w = 0; w < words; w++) { /* a mask bit past the last rule would index past `actions` */
        uint64_t beyond = w + 1 < words ? 0 : ~UINT64_C(0) << (r.rule_count & 63);
        if ((r.enforced[w] | r.shadow[w] | r.logged[w]) & beyond)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "mask names a rule that does not exist", w);
    }
    for (uint32_t i = 0; i < GBF_EFFECTS; i++)
        r.ends[i] = ends == NULL ? (uint32_t)r.rule_count : ends[i];
    if ((status = check_ends(r.ends, r.rule_count, GBF_BAD_FORMAT, fault)) != GBF_OK ||
        (status = check_actions(r.actions, r.rule_count, r.ends[GBF_ADMIT], r.enforced, GBF_BAD_FORMAT, fault)) !=
            GBF_OK ||
        (status = check_leaves(r.leaves, r.leaf_count, r.class_count, GBF_BAD_FORMAT, fault)) != GBF_OK ||
        (status = gbf_lpm_bind(&r.lpm, block, (uint32_t)r.leaf_count, 0, kernel, fault)) != GBF_OK)
        return status;
    *rules = r;
    return GBF_OK;
}
