/* Columns of strings in foreign layouts: Arrow, and NumPy fixed width. Read in place; only UCS-4 is copied.
 * Source: Apache Arrow columnar format and C data interface (arrow.apache.org/docs/format). */
#ifndef GBF_ARROW_H
#define GBF_ARROW_H

#include "base/gbf_base.h"

struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

typedef enum {
    GBF_ARROW_NONE,
    GBF_ARROW_BYTES,
    GBF_ARROW_UCS4,
    GBF_ARROW_OFFSET32,
    GBF_ARROW_OFFSET64,
    GBF_ARROW_VIEW
} gbf_string_form;

typedef struct {
    gbf_string_form form;
    uint64_t count, first;      /* items; index of the first one in the buffers (Arrow) */
    uint64_t width;             /* bytes, or code points, per item (fixed width) */
    const uint8_t *valid;       /* bit per item, NULL: all valid (Arrow) */
    const uint8_t *index;       /* offsets or views (Arrow) */
    const uint8_t *bytes;       /* text */
    const void *const *buffers; /* of a view column: 2.. hold text */
} gbf_arrow;

/* Form of an Arrow format string: "u", "U", "vu"; else GBF_ARROW_NONE. */
gbf_string_form gbf_arrow_form_of(const char *format);
gbf_arrow gbf_arrow_column(gbf_string_form form, const struct ArrowArray *array);

/* Points texts[i], nbytes[i] at items first..first+count-1; NULL for a null item (0 bytes) or one no name can be. `scratch` holds count x 256
 * bytes, for UCS-4. */
void gbf_arrow_get(const gbf_arrow *column, uint64_t first, uint64_t count, const uint8_t **texts, uint64_t *nbytes,
                   uint8_t *scratch);

#endif
