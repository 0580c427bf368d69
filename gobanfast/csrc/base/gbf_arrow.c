#include "base/gbf_arrow.h"

gbf_string_form gbf_arrow_form_of(const char *format)
{
    if (strcmp(format, "u") == 0)
        return GBF_ARROW_OFFSET32;
    if (strcmp(format, "U") == 0)
        return GBF_ARROW_OFFSET64;
    return strcmp(format, "vu") == 0 ? GBF_ARROW_VIEW : GBF_ARROW_NONE;
}

gbf_arrow gbf_arrow_column(gbf_string_form form, const struct ArrowArray *array)
{
    gbf_arrow column = {.form = form, .count = (uint64_t)array->length, .first = (uint64_t)array->offset};
    column.valid = array->buffers[0];
    column.index = array->buffers[1];
    column.bytes = form == GBF_ARROW_VIEW ? NULL : array->buffers[2];
    column.buffers = array->buffers;
    return column;
}

/* Drops the NUL padding of a fixed-width item. */
static uint64_t unpadded(const uint8_t *text, uint64_t width)
{
    while (width > 0 && text[width - 1] == 0)
        width--;
    return width;
}

/* UCS-4 to bytes; NULL when an item is not ASCII or longer than any name. */
static const uint8_t *narrow(const uint8_t *item, uint64_t width, uint64_t *nbytes, uint8_t *scratch)
{
    while (width > 0 && gbf_load32(item + 4 * (width - 1)) == 0)
        width--;
    *nbytes = width;
    if (width > 255)
        return NULL;
    uint32_t all = 0;
    for (uint64_t i = 0; i < width; i++) {
        uint32_t c = gbf_load32(item + 4 * i);
        all |= c;
        scratch[i] = (uint8_t)c;
    }
    return all < 128 ? scratch : NULL;
}

static const uint8_t *one(const gbf_arrow *c, uint64_t i, uint64_t *nbytes, uint8_t *scratch)
{
    uint64_t at = c->first + i;
    if (c->valid != NULL && !(c->valid[at >> 3] >> (at & 7) & 1))
        return NULL;
    switch (c->form) {
    case GBF_ARROW_BYTES:
        *nbytes = unpadded(c->bytes + at * c->width, c->width);
        return c->bytes + at * c->width;
    case GBF_ARROW_UCS4:
        return narrow(c->bytes + 4 * at * c->width, c->width, nbytes, scratch);
    case GBF_ARROW_OFFSET32: {
        uint32_t start = gbf_load32(c->index + 4 * at);
        *nbytes = gbf_load32(c->index + 4 * at + 4) - start;
        return c->bytes + start;
    }
    case GBF_ARROW_OFFSET64: {
        uint64_t start = gbf_load64(c->index + 8 * at);
        *nbytes = gbf_load64(c->index + 8 * at + 8) - start;
        return c->bytes + start;
    }
    case GBF_ARROW_VIEW: {
        const uint8_t *view = c->index + 16 * at;
        *nbytes = gbf_load32(view);
        return *nbytes <= 12 ? view + 4 : (const uint8_t *)c->buffers[2 + gbf_load32(view + 8)] + gbf_load32(view + 12);
    }
    default:
        return NULL;
    }
}

void gbf_arrow_get(const gbf_arrow *column, uint64_t first, uint64_t count, const uint8_t **texts, uint64_t *nbytes,
                   uint8_t *scratch)
{
    for (uint64_t i = 0; i < count; i++) {
        nbytes[i] = 0;
        texts[i] = one(column, first + i, &nbytes[i], scratch + 256 * i);
    }
}
