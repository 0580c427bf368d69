/* One contiguous little-endian buffer per table: what is built is what is saved is what is mapped.
 *
 *   offset  bytes
 *        0      8  magic "\x89GBF\r\n\x1a\n" (survives no text-mode copy)
 *        8     16  XXH3-128 of bytes [24, nbytes), low half first
 *       24      4  byte-order mark 0x0A0B0C0D
 *       28      4  format version
 *       32      4  kind (four characters: "PFX ", "PSET", "ASN ", "NAME", "ORIG", "SIGN", "RULE")
 *       36      4  number of sections, at most 64
 *       40      8  nbytes: whole block, a multiple of 64
 *       48     16  zero
 *       64   24*n  section directory: tag u32, item bytes u32, offset u64, nbytes u64
 *
 * Sections start on 64-byte boundaries, ascend, do not overlap, and hold whole items. Source: DESIGN.md,
 * "A table is a buffer is a file". */
#ifndef GBF_BLOCK_H
#define GBF_BLOCK_H

#include "base/gbf_base.h"

#define GBF_BLOCK_VERSION 1u
#define GBF_BLOCK_MAX_SECTIONS 64u
#define GBF_TAG(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

typedef struct {
    uint32_t tag;
    uint32_t item_bytes;
    uint64_t offset;
    uint64_t nbytes;
} gbf_section;

/* What a builder wants in its block; `data` is copied. */
typedef struct {
    uint32_t tag, item_bytes;
    const void *data;
    uint64_t nbytes;
} gbf_part;

/* Memory for a block of `nbytes` bytes, 64-byte aligned; NULL when there is none. The caller frees it. */
void *gbf_block_allocate(uint64_t nbytes);

/* Builds a sealed block of `count` parts (1..64). On GBF_OK the caller frees *block. */
gbf_status gbf_block_build(const gbf_part *parts, uint32_t count, uint32_t kind, void **block);

/* Checks header and section geometry of `nbytes` bytes at `data` (8-byte aligned). With `check_hash`, also the
 * content hash (about 0.1 ms per MB). Nothing read from the block is trusted before it is checked here. */
gbf_status gbf_block_open(const void *data, uint64_t nbytes, uint32_t kind, int check_hash, gbf_fault *fault);

/* Section `tag` of an opened block and its item count, or NULL (and 0) when it is missing or holds
 * items of another size. */
const void *gbf_block_section(const void *block, uint32_t tag, uint32_t item_bytes, uint64_t *count);

GBF_INLINE uint64_t gbf_block_nbytes(const void *block)
{
    return gbf_load64((const uint8_t *)block + 40);
}

#endif
