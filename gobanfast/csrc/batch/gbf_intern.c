#include "batch/gbf_intern.h"

#include <stdlib.h>

#include "hash/gbf_xxh3.h"

enum { FIRST_BITS = 10, FIRST_BYTES = 1 << 16 };

gbf_status gbf_intern_start(gbf_intern *t, uint64_t seed)
{
    memset(t, 0, sizeof *t);
    t->seed = seed;
    t->slot_bits = FIRST_BITS;
    t->room = 1u << (FIRST_BITS - 1);
    t->bytes_room = FIRST_BYTES;
    t->slots = calloc((size_t)1 << FIRST_BITS, sizeof *t->slots);
    t->hashes = malloc(t->room * sizeof *t->hashes);
    t->ends = malloc(t->room * sizeof *t->ends);
    t->bytes = malloc(t->bytes_room);
    return t->slots && t->hashes && t->ends && t->bytes ? GBF_OK : GBF_NO_MEMORY;
}

void gbf_intern_clear(gbf_intern *t)
{
    t->count = 0;
    memset(t->slots, 0, ((size_t)1 << t->slot_bits) * sizeof *t->slots);
}

void gbf_intern_free(gbf_intern *t)
{
    free(t->hashes);
    free(t->ends);
    free(t->slots);
    free(t->bytes);
    memset(t, 0, sizeof *t);
}

static int grown(void **array, size_t nbytes)
{
    void *larger = realloc(*array, nbytes);
    if (larger == NULL)
        return 0;
    *array = larger;
    return 1;
}

/* Room for twice as many numbers, with slots half full at most. */
static gbf_status widen(gbf_intern *t)
{
    if (t->slot_bits >= 31)
        return GBF_NO_MEMORY;
    uint32_t room = t->room * 2, bits = t->slot_bits + 1, mask = (1u << bits) - 1;
    uint32_t *slots = calloc((size_t)1 << bits, sizeof *slots);
    if (slots == NULL || !grown((void **)&t->hashes, room * sizeof *t->hashes) ||
        !grown((void **)&t->ends, room * sizeof *t->ends)) {
        free(slots);
        return GBF_NO_MEMORY;
    }
    for (uint32_t number = 0; number < t->count; number++) {
        uint32_t at = (uint32_t)t->hashes[number] & mask;
        while (slots[at] != 0)
            at = (at + 1) & mask;
        slots[at] = number + 1;
    }
    free(t->slots);
    t->slots = slots;
    t->slot_bits = bits;
    t->room = room;
    return GBF_OK;
}

GBF_INLINE gbf_status number_of(gbf_intern *t, const uint8_t *text, uint64_t nbytes, uint32_t *out, int *is_new)
{
    uint64_t hash = gbf_xxh3_64(text, nbytes, t->seed), have;
    uint32_t mask = (1u << t->slot_bits) - 1, at = (uint32_t)hash & mask;
    for (; t->slots[at] != 0; at = (at + 1) & mask) {
        uint32_t number = t->slots[at] - 1;
        if (t->hashes[number] != hash)
            continue;
        const uint8_t *other = gbf_intern_get(t, number, &have);
        if (have == nbytes && (nbytes == 0 || memcmp(other, text, nbytes) == 0)) {
            *out = number;
            *is_new = 0;
            return GBF_OK;
        }
    }
    if (t->count == t->room) {
        if (widen(t) != GBF_OK)
            return GBF_NO_MEMORY;
        mask = (1u << t->slot_bits) - 1;
        for (at = (uint32_t)hash & mask; t->slots[at] != 0;)
            at = (at + 1) & mask;
    }
    uint64_t used = t->count == 0 ? 0 : t->ends[t->count - 1];
    if (nbytes > t->bytes_room - used) {
        uint64_t room = t->bytes_room * 2 > used + nbytes ? t->bytes_room * 2 : used + nbytes;
        if (!grown((void **)&t->bytes, room))
            return GBF_NO_MEMORY;
        t->bytes_room = room;
    }
    if (nbytes != 0)
        memcpy(t->bytes + used, text, nbytes);
    t->hashes[t->count] = hash;
    t->ends[t->count] = used + nbytes;
    t->slots[at] = t->count + 1;
    *out = t->count++;
    *is_new = 1;
    return GBF_OK;
}

gbf_status gbf_intern_texts(gbf_intern *t, const uint8_t *base, const uint32_t *at, const uint32_t *nbytes, uint32_t n,
                            uint32_t *out, uint32_t *fresh)
{
    uint32_t met = 0;
    int is_new;
    for (uint32_t i = 0; i < n; i++) {
        if (number_of(t, base + at[i], nbytes[i], &out[i], &is_new) != GBF_OK)
            return GBF_NO_MEMORY;
        if (is_new)
            fresh[met++] = i;
    }
    return GBF_OK;
}

gbf_status gbf_intern_records(gbf_intern *t, const uint8_t *records, uint32_t width, uint32_t n, uint32_t *out,
                              uint32_t *fresh)
{
    uint32_t met = 0;
    int is_new;
    for (uint32_t i = 0; i < n; i++) {
        if (number_of(t, records + (uint64_t)i * width, width, &out[i], &is_new) != GBF_OK)
            return GBF_NO_MEMORY;
        if (is_new)
            fresh[met++] = i;
    }
    return GBF_OK;
}
