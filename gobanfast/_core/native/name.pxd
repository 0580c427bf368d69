# C declarations of csrc/name/: names and name tables.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.base cimport gbf_fault, gbf_status


cdef extern from "name/gbf_name.h" nogil:
    enum:
        GBF_NAME_MAX
        GBF_NAME_EXACT
        GBF_NAME_ONE
        GBF_NAME_MANY
        GBF_NAME_GLOB
        GBF_NAME_MULTI
        GBF_BUCKET_SLOTS
    ctypedef int (*gbf_fold)(gbf_name *name, const uint8_t *text, uint64_t nbytes) noexcept
    ctypedef struct gbf_name:
        uint8_t *text
        uint32_t nbytes
    ctypedef struct gbf_name_kernel:
        const char *name
        gbf_fold fold
    ctypedef struct gbf_name_bucket:
        uint8_t *kinds
        uint8_t *check
        uint32_t *value
        uint32_t *text
    ctypedef struct gbf_name_many:
        uint32_t *value
        uint8_t *kind
    ctypedef struct gbf_name_head:
        uint64_t patterns
        uint32_t has_text
    ctypedef struct gbf_name_table:
        gbf_name_head head
        const gbf_name_bucket *buckets
        const gbf_name_many *many
        const uint8_t *text
        const uint32_t *glob_values
        uint64_t bucket_count
        uint64_t glob_count
        gbf_fold fold
    const gbf_name_kernel *gbf_name_kernel_pick(uint32_t features)
    int gbf_name_fold_scalar(gbf_name *name, const uint8_t *text, uint64_t nbytes) noexcept
    int gbf_name_read(gbf_name *name, const void *text, uint64_t nbytes, gbf_fold fold)
    uint32_t gbf_name_literal(gbf_name *key, const uint8_t *text, uint64_t nbytes, gbf_fold fold)
    gbf_status gbf_name_open(gbf_name_table *table, const void *block, uint64_t nbytes, int verify,
                             const gbf_name_kernel *kernel, gbf_fault *fault)
    uint32_t gbf_name_lookup(const gbf_name_table *table, const gbf_name *name)
    uint64_t gbf_name_lookup_all(const gbf_name_table *table, const gbf_name *name, uint32_t *values, uint64_t capacity)
    void gbf_name_union(const gbf_name_table *table, const gbf_name *name, const uint64_t *rows, uint64_t row_count,
                        uint32_t words, uint64_t *bits)
    uint64_t gbf_name_lookup_batch(const gbf_name_table *table, const uint8_t **texts, const uint64_t *nbytes,
                                   uint64_t count, uint32_t *out)


cdef extern from "name/gbf_name_build.h" nogil:
    ctypedef struct gbf_name_builder:
        pass
    ctypedef struct gbf_glob_item:
        pass
    gbf_name_builder *gbf_name_builder_new(const uint64_t *key, int keep_text)
    void gbf_name_builder_free(gbf_name_builder *builder)
    gbf_status gbf_name_builder_add(gbf_name_builder *builder, const gbf_name *key, uint32_t kind, uint32_t value)
    gbf_status gbf_name_builder_glob(gbf_name_builder *builder, uint32_t value)
    gbf_status gbf_name_builder_way(gbf_name_builder *builder, const gbf_name *anchor, const gbf_glob_item *items,
                                    uint32_t count)
    gbf_status gbf_name_builder_finish(gbf_name_builder *builder, const void *more, uint64_t nbytes, void **block,
                                       gbf_fault *fault)
