#define _DEFAULT_SOURCE /* madvise */
#include "base/gbf_block.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "hash/gbf_xxh3.h"

static const uint8_t magic[8] = {0x89, 'G', 'B', 'F', '\r', '\n', 0x1a, '\n'};

enum {
    HASH = 8,
    HASHED_FROM = 24,
    ORDER = 24,
    VERSION = 28,
    KIND = 32,
    COUNT = 36,
    NBYTES = 40,
    ZERO = 48,
    DIRECTORY = 64
};
#define ORDER_MARK UINT32_C(0x0A0B0C0D)

static uint64_t round64(uint64_t n)
{
    return (n + 63) & ~UINT64_C(63);
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

/* Large blocks ask for huge pages: a lookup in a table of a few megabytes touches two or three random pages, and each
 * 4 KB page that the TLB does not hold costs a page walk. */
void *gbf_block_allocate(uint64_t nbytes)
{
    const uint64_t huge = UINT64_C(1) << 21;
    if (nbytes < huge)
        return aligned_alloc(64, round64(nbytes));
    uint64_t rounded = (nbytes + huge - 1) & ~(huge - 1);
    void *memory = aligned_alloc(huge, rounded);
#if defined(MADV_HUGEPAGE)
    if (memory != NULL)
        (void)madvise(memory, rounded, MADV_HUGEPAGE); /* a wish: without huge pages the block works as well */
#endif
    return memory;
}

gbf_status gbf_block_build(const gbf_part *parts, uint32_t count, uint32_t kind, void **block)
{
    uint64_t nbytes = round64(DIRECTORY + (uint64_t)count * sizeof(gbf_section));
    for (uint32_t i = 0; i < count; i++)
        nbytes += round64(parts[i].nbytes);
    uint8_t *b = gbf_block_allocate(nbytes);
    if (b == NULL)
        return GBF_NO_MEMORY;
    uint64_t at = round64(DIRECTORY + (uint64_t)count * sizeof(gbf_section));
    memset(b, 0, at);
    memcpy(b, magic, sizeof magic);
    put32(b + ORDER, ORDER_MARK);
    put32(b + VERSION, GBF_BLOCK_VERSION);
    put32(b + KIND, kind);
    put32(b + COUNT, count);
    put64(b + NBYTES, nbytes);
    for (uint32_t i = 0; i < count; i++) {
        gbf_section section = {parts[i].tag, parts[i].item_bytes, at, parts[i].nbytes};
        memcpy(b + DIRECTORY + i * sizeof section, &section, sizeof section);
        if (parts[i].nbytes > 0)
            memcpy(b + at, parts[i].data, parts[i].nbytes);
        memset(b + at + parts[i].nbytes, 0, round64(parts[i].nbytes) - parts[i].nbytes);
        at += round64(parts[i].nbytes);
    }
    gbf_hash128 h = gbf_xxh3_128(b + HASHED_FROM, nbytes - HASHED_FROM, 0);
    put64(b + HASH, h.low);
    put64(b + HASH + 8, h.high);
    *block = b;
    return GBF_OK;
}

static gbf_status check_sections(const uint8_t *b, uint64_t nbytes, gbf_fault *fault)
{
    uint32_t count = gbf_load32(b + COUNT);
    if (count == 0 || count > GBF_BLOCK_MAX_SECTIONS)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "section count out of range", COUNT);
    uint64_t end = DIRECTORY + (uint64_t)count * sizeof(gbf_section);
    if (end > nbytes)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "section directory is cut off", DIRECTORY);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = DIRECTORY + (uint64_t)i * sizeof(gbf_section);
        gbf_section s;
        memcpy(&s, b + at, sizeof s);
        if (s.item_bytes == 0 || s.nbytes % s.item_bytes != 0)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "section does not hold whole items", at);
        if (s.offset % 64 != 0 || s.offset < end || s.offset > nbytes || s.nbytes > nbytes - s.offset)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "section lies outside the block or overlaps", at + 8);
        end = s.offset + s.nbytes;
    }
    return GBF_OK;
}

gbf_status gbf_block_open(const void *data, uint64_t nbytes, uint32_t kind, int check_hash, gbf_fault *fault)
{
    const uint8_t *b = data;
    if (nbytes < DIRECTORY)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "file is shorter than a header", nbytes);
    if (memcmp(b, magic, sizeof magic) != 0)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "not a gobanfast file", 0);
    if (gbf_load32(b + ORDER) == __builtin_bswap32(ORDER_MARK))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "written on a big-endian machine", ORDER);
    if (gbf_load32(b + ORDER) != ORDER_MARK)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "byte-order mark is damaged", ORDER);
    if (gbf_load32(b + VERSION) > GBF_BLOCK_VERSION)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "written by a newer gobanfast", VERSION);
    if (gbf_load32(b + VERSION) != GBF_BLOCK_VERSION)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "format version is unknown", VERSION);
    if (gbf_load32(b + KIND) != kind)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "holds another kind of table", KIND);
    if (gbf_load64(b + NBYTES) != nbytes)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "size in the header is not the size of the file", NBYTES);
    if (gbf_load64(b + ZERO) != 0 || gbf_load64(b + ZERO + 8) != 0)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "reserved bytes are not zero", ZERO);
    gbf_status status = check_sections(b, nbytes, fault);
    if (status != GBF_OK || !check_hash)
        return status;
    gbf_hash128 h = gbf_xxh3_128(b + HASHED_FROM, nbytes - HASHED_FROM, 0);
    if (gbf_load64(b + HASH) != h.low || gbf_load64(b + HASH + 8) != h.high)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "content hash does not match", HASH);
    return GBF_OK;
}

const void *gbf_block_section(const void *block, uint32_t tag, uint32_t item_bytes, uint64_t *count)
{
    const uint8_t *b = block;
    uint32_t sections = gbf_load32(b + COUNT);
    *count = 0;
    for (uint32_t i = 0; i < sections; i++) {
        gbf_section s;
        memcpy(&s, b + DIRECTORY + (uint64_t)i * sizeof s, sizeof s);
        if (s.tag == tag && s.item_bytes == item_bytes) {
            *count = s.nbytes / item_bytes;
            return b + s.offset;
        }
    }
    return NULL;
}
