# C declarations of csrc/batch/: log lines and interning.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.base cimport gbf_status


cdef extern from "batch/gbf_log.h" nogil:
    enum:
        GBF_LOG_COLUMNS
        GBF_LOG_STRUCTURES
        GBF_LOG_SLOTS
        GBF_LOG_SLOW
        GBF_LOG_ADDRESS
        GBF_LOG_FULL
        GBF_LOG_FULL_RAW
        GBF_LOG_COMMON
        GBF_LOG_COMMON_RAW
    ctypedef enum gbf_log_layout:
        GBF_LOG_COMBINED
        GBF_LOG_CSV
        GBF_LOG_JSON
    ctypedef struct gbf_log_structure:
        uint64_t hash
        uint32_t *slots
        uint32_t count
    ctypedef struct gbf_log_form:
        gbf_log_layout layout
        int address_only
        uint32_t skip
        uint8_t delimiter
        uint32_t *slots
        uint32_t count
        gbf_log_structure *structures
        uint32_t structure_count
    ctypedef struct gbf_log_rows:
        uint8_t *kinds
        uint32_t *starts
        uint32_t *lengths
        uint32_t *at
        uint32_t *nbytes
        uint64_t *hashes
        uint32_t room
    ctypedef struct gbf_log_value:
        uint32_t at
        uint32_t nbytes
        uint8_t type
    ctypedef uint32_t (*gbf_log_index)(const uint8_t *text, uint32_t nbytes, uint32_t *out)
    gbf_log_index gbf_log_index_pick(uint32_t features)
    uint32_t gbf_log_count(const uint8_t *text, const uint32_t *marks, uint32_t count)
    uint32_t gbf_log_read(const gbf_log_form *form, const uint8_t *text, uint32_t nbytes, const uint32_t *marks,
                          uint32_t count, const gbf_log_rows *rows)
    int gbf_log_json(const uint8_t *text, uint32_t start, uint32_t nbytes, const uint32_t *marks,
                     uint32_t mark_count, gbf_log_value *values, uint32_t *value_count, uint64_t *hash)


cdef extern from "batch/gbf_intern.h" nogil:
    ctypedef struct gbf_intern:
        uint32_t count
    gbf_status gbf_intern_start(gbf_intern *t, uint64_t seed)
    void gbf_intern_clear(gbf_intern *t)
    void gbf_intern_free(gbf_intern *t)
    gbf_status gbf_intern_texts(gbf_intern *t, const uint8_t *base, const uint32_t *at, const uint32_t *nbytes,
                                uint32_t n, uint32_t *out, uint32_t *fresh)
    gbf_status gbf_intern_records(gbf_intern *t, const uint8_t *records, uint32_t width, uint32_t n, uint32_t *out,
                                  uint32_t *fresh)
    const uint8_t *gbf_intern_get(const gbf_intern *t, uint32_t number, uint64_t *nbytes)
