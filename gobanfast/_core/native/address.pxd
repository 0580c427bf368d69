# C declarations of csrc/address/: addresses, prefixes, AS tables.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.base cimport gbf_fault, gbf_part, gbf_status


cdef extern from "address/gbf_addr.h" nogil:
    ctypedef struct gbf_addr:
        uint64_t high
        uint64_t low
    ctypedef enum gbf_prefix_problem:
        GBF_PREFIX_FINE
        GBF_PREFIX_BAD_ADDRESS
        GBF_PREFIX_BAD_LENGTH
        GBF_PREFIX_HOST_BITS
    gbf_addr gbf_addr_from4(uint32_t address)
    int gbf_addr_is4(gbf_addr address)
    gbf_addr gbf_addr_load(const uint8_t *packed)
    void gbf_addr_store(gbf_addr address, uint8_t *packed)
    int gbf_addr_parse(const char *text, size_t n, gbf_addr *out)
    gbf_prefix_problem gbf_addr_parse_prefix(const char *text, size_t n, gbf_addr *address, uint32_t *bits)
    gbf_addr gbf_addr_masked(gbf_addr address, uint32_t bits)
    gbf_addr gbf_addr_client(gbf_addr address, uint32_t bits6, uint32_t *bits)
    size_t gbf_addr_format(gbf_addr address, char *text)


cdef extern from "address/gbf_trie.h" nogil:
    ctypedef struct gbf_range:
        gbf_addr start
        uint32_t leaf
    ctypedef struct gbf_trie:
        uint32_t direct_bits
        uint64_t word_count
    ctypedef struct gbf_lpm:
        gbf_trie v4
        gbf_trie v6
    ctypedef struct gbf_lpm_kernel:
        const char *name
        uint32_t (*find_text)(const gbf_lpm *t, const char *text, size_t n, gbf_addr *address) noexcept nogil
        int (*parse)(const char *text, size_t n, gbf_addr *address) noexcept nogil
        void (*find4_many)(const gbf_lpm *t, const uint32_t *addresses, size_t n, uint32_t *leaves) noexcept nogil
        void (*find16_many)(const gbf_lpm *t, const uint8_t *packed, size_t n, uint32_t *leaves) noexcept nogil
        void (*find_text_many)(const gbf_lpm *t, const char *const *texts, const uint32_t *lengths, size_t n,
                               uint32_t *leaves) noexcept nogil
    const gbf_lpm_kernel *gbf_lpm_pick(uint32_t features)


cdef extern from "address/gbf_prefix.h" nogil:
    ctypedef struct gbf_prefix_item:
        gbf_addr address
        uint32_t bits
        uint32_t value
    ctypedef struct gbf_prefix:
        gbf_lpm lpm
        const gbf_lpm_kernel *kernel
        uint64_t count
    ctypedef struct gbf_prefix_cursor:
        gbf_prefix_item item
    uint32_t gbf_prefix_value(const gbf_prefix *t, uint32_t leaf)
    size_t gbf_prefix_values(const gbf_prefix *t, uint32_t *leaves, size_t n)
    int gbf_prefix_get(const gbf_prefix *t, gbf_addr address, uint32_t bits, uint32_t *value)
    int gbf_prefix_covering(const gbf_prefix *t, gbf_addr address, gbf_prefix_item *item)
    int gbf_prefix_next(const gbf_prefix *t, gbf_prefix_cursor *cursor)
    gbf_status gbf_prefix_build(gbf_prefix_item *items, uint64_t count, uint32_t kind, const gbf_part *extra,
                                uint32_t extra_count, void **block, gbf_fault *fault)
    gbf_status gbf_prefix_open(gbf_prefix *table, const void *block, uint64_t nbytes, uint32_t kind, int verify,
                               const gbf_lpm_kernel *kernel, gbf_fault *fault)
    gbf_status gbf_prefix_verify(const gbf_prefix *t, gbf_fault *fault)
    gbf_status gbf_prefix_ranges(const gbf_prefix *t, int family, gbf_range **ranges, uint64_t *count)


cdef extern from "address/gbf_asn.h" nogil:
    uint32_t GBF_ASN_KIND
    uint32_t GBF_ASN_NUMBERS
    uint32_t GBF_ASN_OFFSETS
    uint32_t GBF_ASN_TEXT
    ctypedef struct gbf_asn_names:
        const uint32_t *numbers
        uint32_t count
    gbf_status gbf_asn_names_open(gbf_asn_names *names, const void *block, gbf_fault *fault)
    const char *gbf_asn_name(const gbf_asn_names *names, uint32_t asn, uint32_t *nbytes)


cdef extern from "address/gbf_asn_build.h" nogil:
    int GBF_ASN_MAX_COLUMNS
    int GBF_ASN_MAX_PROBLEMS
    ctypedef struct gbf_asn_problem:
        uint64_t line
        uint64_t start
        uint64_t offset
        uint32_t nbytes
        int wrong
    ctypedef struct gbf_asn_rows:
        gbf_prefix_item *items
        uint64_t count
        gbf_asn_problem *problems
        uint64_t problem_count
        uint64_t row_count
        uint64_t no_asn
    ctypedef struct gbf_asn_layout:
        char delimiter
        int prefix
        int first
        int last
        int asn
        int name
        bint name_is_last
        uint32_t name_least
    ctypedef struct gbf_asn_packed:
        uint32_t *numbers
        uint32_t *offsets
        char *text
        uint64_t count
        uint64_t text_bytes
    gbf_status gbf_asn_scan(gbf_asn_rows *rows, const gbf_asn_layout *layout, const char *text, uint64_t nbytes,
                            uint64_t start, uint64_t line)
    gbf_status gbf_asn_add(gbf_asn_rows *rows, gbf_addr address, uint32_t bits, uint32_t asn)
    gbf_status gbf_asn_put_name(gbf_asn_rows *rows, uint32_t asn, const char *text, uint32_t nbytes, int escaped)
    gbf_status gbf_asn_pack(const gbf_asn_rows *rows, gbf_asn_packed *packed, gbf_fault *fault)
    void gbf_asn_rows_free(gbf_asn_rows *rows)


cdef extern from "address/gbf_set.h" nogil:
    ctypedef struct gbf_set:
        uint64_t prefix4s
        uint64_t prefix6s
    ctypedef struct gbf_set_kernel:
        const char *name
        int (*covers_text)(const gbf_set *s, const char *text, size_t n) noexcept nogil
        size_t (*covers4_many)(const gbf_set *s, const uint32_t *addresses, size_t n, uint8_t *inside) noexcept nogil
        size_t (*covers16_many)(const gbf_set *s, const uint8_t *packed, size_t n, uint8_t *inside) noexcept nogil
        size_t (*covers_text_many)(const gbf_set *s, const char *const *texts, const uint32_t *lengths, size_t n,
                                   uint8_t *inside) noexcept nogil
    ctypedef struct gbf_set_cursor:
        gbf_addr address
        uint32_t bits
    const gbf_set_kernel *gbf_set_pick(uint32_t features)
    gbf_status gbf_set_build(gbf_prefix_item *items, uint64_t count, void **block, gbf_fault *fault)
    gbf_status gbf_set_open(gbf_set *set, const void *block, uint64_t nbytes, int check_hash,
                            const gbf_set_kernel *kernel, gbf_fault *fault)
    int gbf_set_next(const gbf_set *s, gbf_set_cursor *cursor)
