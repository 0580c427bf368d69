# C declarations of csrc/rules/: compiled rules, connection table, columns.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.address cimport gbf_lpm, gbf_lpm_kernel, gbf_range
from gobanfast._core.native.base cimport gbf_fault, gbf_status
from gobanfast._core.native.name cimport gbf_name_table
from gobanfast._core.native.tls cimport gbf_hello


cdef extern from "rules/gbf_rules.h" nogil:
    const uint32_t GBF_CLASS_ABSENT
    const uint32_t GBF_CLASS_MALFORMED
    ctypedef struct gbf_leaf:
        uint32_t asn
        uint32_t klass "class"
    ctypedef struct gbf_rules:
        gbf_lpm lpm
        const gbf_lpm_kernel *kernel
        const gbf_leaf *leaves
        const uint64_t *enforced
        const uint64_t *shadow
        const uint64_t *logged
        const uint8_t *actions
        uint64_t leaf_count
        uint64_t class_count
        uint64_t rule_count
        uint32_t words
        uint32_t *ends
    ctypedef struct gbf_rules_source:
        const gbf_range *ranges4
        const gbf_range *ranges6
        const gbf_leaf *leaves
        const uint64_t *vectors
        const uint64_t *enforced
        const uint64_t *shadow
        const uint64_t *logged
        const uint8_t *actions
        const uint32_t *ends
        uint64_t range_count4
        uint64_t range_count6
        uint64_t leaf_count
        uint64_t class_count
        uint64_t rule_count
    const uint64_t *gbf_rules_vector(const gbf_rules *r, uint32_t klass)
    uint32_t gbf_rules_next(const gbf_rules *r, const uint64_t *vector, const uint64_t *mask, uint32_t first)
    uint32_t gbf_rules_leaf(const gbf_rules *r, const char *text, size_t n)
    uint32_t gbf_rules_first(const gbf_rules *r, const uint64_t *vector, const uint64_t *mask, uint32_t first,
                             uint32_t end)
    gbf_status gbf_rules_build(const gbf_rules_source *source, void **block, gbf_fault *fault)
    gbf_status gbf_rules_open(gbf_rules *rules, const void *block, uint64_t nbytes, int verify,
                              const gbf_lpm_kernel *kernel, gbf_fault *fault)


cdef extern from "rules/gbf_columns.h" nogil:
    enum: GBF_COLUMNS_MAX
    ctypedef struct gbf_classes:
        uint64_t *vectors
        uint32_t count
    gbf_status gbf_classes_start(gbf_classes *c, uint32_t words, const uint64_t *absent, const uint64_t *malformed)
    void gbf_classes_free(gbf_classes *c)
    int gbf_columns_names(const gbf_connection *signals, const gbf_name_table *names, gbf_classes *classes,
                          const uint8_t **texts, const uint64_t *nbytes, uint64_t count, uint64_t *scratch,
                          uint32_t *out)
    int gbf_columns_fingerprints(gbf_classes *classes, const uint8_t *fingerprints, uint64_t count, uint32_t *out)
    ctypedef struct gbf_column:
        const uint32_t *classes
        const uint64_t *vectors
    ctypedef struct gbf_rows:
        uint8_t *actions
        uint32_t *rules
        uint32_t *asns
    void gbf_columns_decide(const gbf_rules *r, const uint64_t *base, uint8_t unparsable, const uint32_t *leaves,
                            uint64_t n, const gbf_column *columns, uint32_t column_count, uint32_t *winners,
                            const gbf_rows *out)
    void gbf_columns_first(const gbf_rules *r, const uint64_t *mask, uint32_t start, uint32_t end, const uint64_t *base,
                           const uint32_t *leaves, uint64_t n, const gbf_column *columns, uint32_t column_count,
                           uint32_t *out)


cdef extern from "rules/gbf_connection.h" nogil:
    enum:
        GBF_ROW_ABSENT
        GBF_ROW_MALFORMED
        GBF_ROW_KNOWN
        GBF_ROW_TOLD
        GBF_ASKS_NAME
        GBF_ASKS_HELLO
        GBF_ASKS_JA4
        GBF_ASKS_ALPN
        GBF_QUIET_NAME
        GBF_QUIET_HELLO
        GBF_QUIET_JA4
        GBF_HELLO_ROWS
    ctypedef struct gbf_term:
        pass
    ctypedef struct gbf_connection:
        const uint64_t *absent
        const uint64_t *name_rows
        const uint64_t *hello_rows
        uint64_t name_row_count
        uint32_t words
        uint32_t asks
    ctypedef struct gbf_connection_source:
        const uint64_t *absent
        const uint64_t *name_rows
        const uint64_t *hello_rows
        const uint64_t *ja4_rows
        const uint64_t *alpn_rows
        const gbf_term *ja4_terms
        const gbf_term *alpn_terms
        const uint8_t *text
        const uint8_t *names_digest
        uint64_t name_row_count
        uint64_t ja4_row_count
        uint64_t alpn_row_count
        uint64_t ja4_term_count
        uint64_t alpn_term_count
        uint64_t text_nbytes
        uint32_t words
        uint32_t asks
    void gbf_bits_and(uint64_t *to, const uint64_t *other, uint32_t words)
    void gbf_bits_or(uint64_t *to, const uint64_t *other, uint32_t words)
    const uint64_t *gbf_connection_name_row(const gbf_connection *s, uint32_t row)
    void gbf_connection_and_name(const gbf_connection *s, const uint64_t *row, uint64_t *vector)
    void gbf_connection_and_hello(const gbf_connection *s, const gbf_hello *hello, uint64_t *vector)
    void gbf_connection_and_ja4(const gbf_connection *s, const uint8_t *ja4, uint64_t *vector, uint64_t *scratch)
    void gbf_connection_and_alpn(const gbf_connection *s, const gbf_hello *hello, uint64_t *vector, uint64_t *scratch)
    gbf_status gbf_connection_build(const gbf_connection_source *source, void **block)
    gbf_status gbf_connection_open(gbf_connection *signals, const void *block, uint64_t nbytes, int verify,
                                   gbf_fault *fault)
