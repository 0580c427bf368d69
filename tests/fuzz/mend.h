/* Blocks that are damaged on purpose: bytes near the ends of their sections, and a header that opens around what was
 * edited, so that mutation gets past magic, size and hash. */
#ifndef MEND_H
#define MEND_H

#include "base/gbf_block.h"
#include "fuzz.h"
#include "hash/gbf_xxh3.h"

static inline void mend(uint8_t *block, uint64_t nbytes, uint32_t kind)
{
    const uint8_t magic[8] = {0x89, 'G', 'B', 'F', '\r', '\n', 0x1a, '\n'};
    const uint32_t words[3] = {UINT32_C(0x0A0B0C0D), GBF_BLOCK_VERSION, kind};
    memcpy(block, magic, sizeof magic);
    memcpy(block + 24, words, sizeof words);
    memcpy(block + 40, &nbytes, sizeof nbytes);
    memset(block + 48, 0, 16);
    gbf_hash128 hash = gbf_xxh3_128(block + 24, nbytes - 24, 0);
    memcpy(block + 8, &hash.low, 8);
    memcpy(block + 16, &hash.high, 8);
}

/* An offset in the header, or in one of the sections of a sound block, near either end of it. */
static inline uint64_t any_offset(input *in, const uint8_t *block)
{
    uint32_t count = gbf_load32(block + 36), choice = take(in, 1), near = take(in, 2), which = choice >> 1;
    gbf_section section = {0, 0, 0, 64 + count * sizeof section};
    if (which % (count + 3) < count)
        memcpy(&section, block + 64 + which % (count + 3) * sizeof section, sizeof section);
    if (section.nbytes == 0)
        return near % 64;
    near %= (uint32_t)section.nbytes;
    return section.offset + (choice & 1 ? near : section.nbytes - 1 - near);
}

/* One edit: a byte, or a whole word, which is what indices are: with all bits, the marks of a trie, or any. */
static inline void edit(input *in, uint8_t *block, uint64_t nbytes, uint64_t offset)
{
    static const uint32_t marks[] = {0, 1, 0x7FFFFFFF, 0x7FFFFFFE, 0x80000000, 0x80000003, 0xFFFFFFFF};
    uint32_t choice = take(in, 1), word = choice % 8 < 7 ? marks[choice % 8] : take(in, 4);
    offset &= ~UINT64_C(3);
    if (choice < 128 || offset + 4 > nbytes)
        block[offset] = (uint8_t)take(in, 1);
    else
        memcpy(block + offset, &word, sizeof word);
}

/* A copy of a sound block of this kind after some edits, a cut or neither, and with its header mended or not. Frees
 * `sound`. */
static inline uint8_t *damaged(input *in, uint8_t *sound, uint64_t *nbytes, uint32_t kind)
{
    uint32_t choice = take(in, 1);
    *nbytes = gbf_block_nbytes(sound);
    uint8_t *edited = exact(sound, *nbytes);
    for (uint32_t edits = take(in, 1) % 8; edits > 0; edits--) {
        uint64_t offset = any_offset(in, sound);
        if (choice & 4)
            edit(in, edited, *nbytes, offset);
        else
            edited[offset] = (uint8_t)take(in, 1);
    }
    free(sound);
    uint8_t *block = edited;
    if (choice & 1) {
        *nbytes = 64 + take(in, 4) % (*nbytes - 63);
        block = exact(edited, *nbytes);
        free(edited);
    }
    if (choice & 2)
        mend(block, *nbytes, kind);
    return block;
}

#endif
