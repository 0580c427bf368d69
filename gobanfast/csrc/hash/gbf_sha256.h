/* SHA-256 (FIPS 180-4) of short texts, one or two at a time. Two together cost little more than one on a CPU with
 * SHA instructions, whose rounds wait for each other: JA4 needs exactly two. */
#ifndef GBF_SHA256_H
#define GBF_SHA256_H

#include "base/gbf_base.h"

enum { GBF_SHA256_BLOCK = 64, GBF_SHA256_PADDING = 72 };

typedef struct {
    const char *name;
    uint32_t needs; /* GBF_CPU_* */
    void (*one)(uint32_t state[8], const uint8_t *blocks, uint32_t count);
    void (*two)(uint32_t a[8], const uint8_t *blocks_a, uint32_t b[8], const uint8_t *blocks_b, uint32_t count);
} gbf_sha256_kernel;

extern const gbf_sha256_kernel gbf_sha256_scalar;
#if defined(__x86_64__)
extern const gbf_sha256_kernel gbf_sha256_sha;
#endif
extern const uint32_t gbf_sha256_start[8];
extern const uint32_t gbf_sha256_rounds[64];

/* The best kernel that these GBF_CPU_* features can run. */
const gbf_sha256_kernel *gbf_sha256_pick(uint32_t features);

/* Ends `text` of `nbytes` the way the hash wants it, in place: up to GBF_SHA256_PADDING bytes are written behind it.
 * Number of blocks it then has. */
uint32_t gbf_sha256_pad(uint8_t *text, uint32_t nbytes);

#endif
