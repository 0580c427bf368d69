# The only `cdef extern` declarations of C kernels in the project; long because all of them are here.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "gbf_base.h" nogil:
    const uint32_t GBF_NONE
    ctypedef enum gbf_status:
        GBF_OK
        GBF_NO_MEMORY
        GBF_BAD_FORMAT
        GBF_BAD_INPUT
    ctypedef struct gbf_fault:
        const char *what
        uint64_t offset


cdef extern from "gbf_block.h" nogil:
    uint32_t GBF_TAG(char a, char b, char c, char d)
    ctypedef struct gbf_part:
        uint32_t tag
        uint32_t item_bytes
        const void *data
        uint64_t nbytes
    ctypedef struct gbf_section:
        uint32_t tag
        uint32_t item_bytes
        uint64_t offset
        uint64_t nbytes
    gbf_status gbf_block_build(const gbf_part *parts, uint32_t count, uint32_t kind, void **block)
    gbf_status gbf_block_open(const void *data, uint64_t nbytes, uint32_t kind, int check_hash, gbf_fault *fault)
    void *gbf_block_allocate(uint64_t nbytes)
    uint64_t gbf_block_nbytes(const void *block)
    const void *gbf_block_section(const void *block, uint32_t tag, uint32_t item_bytes, uint64_t *count)


cdef extern from "gbf_cpu.h" nogil:
    int gbf_cpu_cap(const char *level, uint32_t *features)


cdef extern from "gbf_addr.h" nogil:
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


cdef extern from "gbf_bans.h" nogil:
    const uint32_t GBF_BAN_IP4
    const uint32_t GBF_BAN_ASN
    const uint32_t GBF_BAN_FINGERPRINT
    const uint32_t GBF_BAN_FINGERPRINT_AT4
    const uint32_t GBF_BAN_FINGERPRINT_AT6
    const uint64_t GBF_BAN_EPOCH
    const uint32_t GBF_BAN_EVERYONE
    const uint64_t GBF_BAN_FOREVER
    const int GBF_BANS_COPY
    ctypedef struct gbf_ban_key:
        uint64_t word[3]
        uint32_t kind
    ctypedef struct gbf_ban:
        gbf_ban_key key
        uint64_t expires
        uint64_t created
        uint32_t count
        uint16_t reason
        uint16_t rule
        uint8_t by
    ctypedef struct gbf_bans_policy:
        double factor
        double jitter
        uint64_t cap_ms
        uint64_t memory_ms
        uint64_t seed
        uint32_t evict
    ctypedef struct gbf_bans_counts:
        uint64_t added
        uint64_t extended
        uint64_t lifted
        uint64_t ended
        uint64_t refused
        uint64_t evicted
        uint32_t active
        uint32_t remembered
    ctypedef struct gbf_bans:
        uint32_t capacity
    ctypedef enum gbf_ban_outcome:
        GBF_BAN_REFUSED
        GBF_BAN_ADDED
        GBF_BAN_EXTENDED
        GBF_BAN_KEPT
    gbf_bans *gbf_bans_new(uint32_t capacity, const gbf_bans_policy *policy, const uint64_t *random)
    void gbf_bans_free(gbf_bans *t)
    gbf_ban_outcome gbf_bans_ban(gbf_bans *t, const gbf_ban_key *key, uint64_t duration_ms, const gbf_ban *why,
                                 int escalate, uint64_t now, gbf_ban *out)
    gbf_ban_outcome gbf_bans_put(gbf_bans *t, const gbf_ban *ban, uint64_t now)
    int gbf_bans_lift(gbf_bans *t, const gbf_ban_key *key, uint64_t now, gbf_ban *out)
    int gbf_bans_extend(gbf_bans *t, const gbf_ban_key *key, uint64_t expires, uint64_t now, gbf_ban *out)
    uint32_t gbf_bans_purge(gbf_bans *t, uint64_t now, uint32_t limit, int *more)
    int gbf_bans_copy(gbf_bans *t, uint32_t *cursor, gbf_ban *out, uint32_t *count, uint64_t now)
    int gbf_bans_texts(gbf_bans *t, uint32_t *cursor, uint8_t *used)
    void gbf_bans_configure(gbf_bans *t, const gbf_bans_policy *policy)
    void gbf_bans_close(gbf_bans *t, int closed)
    int gbf_bans_closed(const gbf_bans *t)
    gbf_bans_counts gbf_bans_count(gbf_bans *t)
    uint64_t gbf_bans_nbytes(gbf_bans *t)
    gbf_ban_key gbf_ban_prefix(gbf_addr address, uint32_t bits)
    gbf_ban_key gbf_ban_client(gbf_addr address, uint32_t bits6)
    gbf_ban_key gbf_ban_asn(uint32_t asn)
    gbf_ban_key gbf_ban_fingerprint(const uint64_t *fingerprint)
    gbf_ban_key gbf_ban_fingerprint_at(const uint64_t *fingerprint, gbf_addr address, uint32_t bits6)
    int gbf_bans_find(const gbf_bans *t, const gbf_addr *address, uint32_t asn, const uint64_t *fingerprint,
                      uint64_t now, gbf_ban *best)
    int gbf_bans_get(const gbf_bans *t, const gbf_ban_key *key, uint64_t now, gbf_ban *out)


cdef extern from "gbf_trie.h" nogil:
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


cdef extern from "gbf_prefix.h" nogil:
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


cdef extern from "gbf_rules.h" nogil:
    const uint32_t GBF_CLASS_ABSENT
    const uint32_t GBF_CLASS_MALFORMED
    ctypedef struct gbf_record:
        uint32_t asn
        uint32_t klass "class"
    ctypedef struct gbf_rules:
        gbf_lpm lpm
        const gbf_lpm_kernel *kernel
        const gbf_record *records
        const uint64_t *enforced
        const uint64_t *shadow
        const uint64_t *logged
        const uint8_t *actions
        uint64_t record_count
        uint64_t class_count
        uint64_t rule_count
        uint32_t words
    ctypedef struct gbf_rules_source:
        const gbf_range *ranges4
        const gbf_range *ranges6
        const gbf_record *records
        const uint64_t *vectors
        const uint64_t *enforced
        const uint64_t *shadow
        const uint64_t *logged
        const uint8_t *actions
        uint64_t range_count4
        uint64_t range_count6
        uint64_t record_count
        uint64_t class_count
        uint64_t rule_count
    const uint64_t *gbf_rules_vector(const gbf_rules *r, uint32_t klass)
    uint32_t gbf_rules_next(const gbf_rules *r, const uint64_t *vector, const uint64_t *mask, uint32_t first)
    gbf_status gbf_rules_build(const gbf_rules_source *source, void **block, gbf_fault *fault)
    gbf_status gbf_rules_open(gbf_rules *rules, const void *block, uint64_t nbytes, int verify,
                              const gbf_lpm_kernel *kernel, gbf_fault *fault)


cdef extern from "gbf_asn.h" nogil:
    uint32_t GBF_ASN_KIND
    uint32_t GBF_ASN_NUMBERS
    uint32_t GBF_ASN_OFFSETS
    uint32_t GBF_ASN_TEXT
    ctypedef struct gbf_asn_names:
        const uint32_t *numbers
        uint32_t count
    gbf_status gbf_asn_names_open(gbf_asn_names *names, const void *block, gbf_fault *fault)
    const char *gbf_asn_name(const gbf_asn_names *names, uint32_t asn, uint32_t *nbytes)


cdef extern from "gbf_asn_build.h" nogil:
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


cdef extern from "gbf_xxh3.h" nogil:
    # Wider than any C type Cython knows; it converts by sizeof, so the declared base does not matter.
    ctypedef unsigned long long gbf_uint128 "unsigned __int128"
    ctypedef struct gbf_hash128:
        uint64_t low
        uint64_t high
    ctypedef struct gbf_xxh3_kernel:
        const char *name
    ctypedef struct gbf_xxh3_key:
        pass
    const gbf_xxh3_kernel *gbf_xxh3_pick(uint32_t features)
    gbf_status gbf_xxh3_key_set(gbf_xxh3_key *key, const gbf_xxh3_kernel *kernel, uint64_t seed,
                                const uint8_t *secret,
                                uint64_t secret_bytes)
    uint64_t gbf_xxh3_64(const void *data, uint64_t nbytes, uint64_t seed)
    gbf_hash128 gbf_xxh3_128(const void *data, uint64_t nbytes, uint64_t seed)
    uint64_t gbf_xxh3_64_keyed(const gbf_xxh3_key *key, const void *data, uint64_t nbytes)
    gbf_hash128 gbf_xxh3_128_keyed(const gbf_xxh3_key *key, const void *data, uint64_t nbytes)


cdef extern from "gbf_headers.h" nogil:
    enum:
        GBF_HEADERS_MOST
        GBF_HEADERS_SECRET
        GBF_PRINT_BYTES
        GBF_HEADER_SLOTS
        GBF_HEADER_NO_SLOT
        GBF_HEADER_FIELDS
        GBF_HEADER_AUTHORITY
        GBF_HEADER_METHOD
        GBF_HEADER_PATH
        GBF_HEADER_SCHEME
        GBF_HEADER_PROTOCOL
        GBF_HEADER_HOST
        GBF_HEADER_COOKIE
        GBF_HEADER_USER_AGENT
        GBF_HEADER_ACCEPT
        GBF_HEADERS_ORDER
        GBF_HEADERS_CASE
        GBF_HEADERS_PSEUDO
        GBF_HEADERS_HTTP1
        GBF_HEADERS_HTTP2
        GBF_HEADERS_UNKNOWN
        GBF_HEADERS_BAD_METHOD
        GBF_HEADERS_BAD_PATH
        GBF_HEADERS_SHAPED
    ctypedef enum gbf_headers_problem:
        GBF_HEADERS_FINE
        GBF_HEADERS_TOO_MANY
        GBF_HEADERS_BAD_VALUE
    ctypedef enum gbf_ua_family:
        GBF_UA_OTHER
    ctypedef struct gbf_header_text:
        const uint8_t *at
        uint32_t nbytes
    ctypedef struct gbf_header_plan:
        uint32_t slot_count
    ctypedef struct gbf_header_tally:
        uint64_t seen
        uint32_t flags
    ctypedef struct gbf_headers:
        gbf_header_tally tally
        uint64_t repeated
        uint64_t known
        gbf_hash128 fingerprint
        gbf_hash128 shape
        gbf_headers_problem problem
        gbf_header_text *slots
        gbf_header_text mount
    gbf_status gbf_header_plan_build(gbf_header_plan *plan, const gbf_header_text *asked, uint32_t asked_count,
                                     const gbf_header_text *fields, uint32_t field_count, const uint8_t *secret,
                                     const gbf_xxh3_kernel *kernel, uint8_t *slots, gbf_fault *fault)
    void gbf_header_plan_free(gbf_header_plan *plan)
    uint32_t gbf_header_slot(const gbf_header_plan *plan, const uint8_t *name, uint32_t nbytes)
    void gbf_headers_start(gbf_headers *h, uint32_t flags)
    gbf_status gbf_headers_add(const gbf_header_plan *plan, gbf_headers *h, gbf_header_tally *t, const uint8_t *name,
                               uint64_t name_bytes, const uint8_t *value, uint64_t value_bytes)
    gbf_status gbf_headers_add_cgi(const gbf_header_plan *plan, gbf_headers *h, gbf_header_tally *t,
                                   const uint8_t *name, uint64_t name_bytes, const uint8_t *value,
                                   uint64_t value_bytes)
    gbf_status gbf_headers_finish(const gbf_header_plan *plan, gbf_headers *h)
    gbf_status gbf_headers_print(const gbf_header_plan *plan, gbf_headers *h)
    void gbf_headers_set(gbf_headers *h, uint32_t slot, const uint8_t *text, uint32_t nbytes)
    void gbf_headers_free(gbf_headers *h)
    void gbf_headers_text(gbf_hash128 hash, const char *kind, char *text)
    void gbf_headers_settle(gbf_headers *h)
    gbf_header_text gbf_header_path(gbf_header_text text)
    gbf_ua_family gbf_header_ua(gbf_header_text text)


cdef extern from "gbf_values.h" nogil:
    enum:
        GBF_VALUES_SECRET
    ctypedef struct gbf_values:
        uint32_t words
    gbf_status gbf_values_make(gbf_values *c, uint32_t words, uint64_t nbytes, const uint8_t *secret,
                               const gbf_xxh3_kernel *kernel)
    void gbf_values_free(gbf_values *c)
    uint64_t gbf_values_nbytes(const gbf_values *c)
    gbf_hash128 gbf_values_hash(const gbf_values *c, uint32_t slot, const uint8_t *value, uint32_t nbytes)
    gbf_hash128 gbf_values_under(const gbf_values *c, gbf_hash128 hash, const uint8_t *mount, uint32_t nbytes)
    int gbf_values_and(gbf_values *c, gbf_hash128 hash, uint64_t *vector, uint64_t *scratch)
    void gbf_values_put(gbf_values *c, gbf_hash128 hash, const uint64_t *vector)
    uint64_t gbf_values_missed(const gbf_values *c)


cdef extern from "gbf_hello.h" nogil:
    ctypedef enum gbf_hello_status:
        GBF_HELLO_OK
        GBF_HELLO_INCOMPLETE
    ctypedef struct gbf_hello_frame:
        gbf_hello_status status
        uint32_t problem
        uint32_t place
        uint32_t first
        uint32_t end
        uint32_t message_bytes
        uint32_t records
    ctypedef struct gbf_span:
        uint32_t at
        uint32_t nbytes
    ctypedef struct gbf_hello:
        const uint8_t *message
        uint32_t flags
        uint16_t legacy_version
        uint16_t version
        gbf_span session_id
        gbf_span ciphers
        gbf_span extensions
        gbf_span name
        gbf_span alpn
        gbf_span versions
        gbf_span groups
        gbf_span points
        gbf_span signatures
    enum:
        GBF_HELLO_ECH_OUTER
        GBF_HELLO_ECH_INNER
        GBF_HELLO_TICKET
        GBF_HELLO_PSK
        GBF_HELLO_EARLY_DATA
        GBF_HELLO_COOKIE
    const char *const *gbf_hello_problem_text
    uint16_t gbf_be16(const uint8_t *p)
    gbf_hello_frame gbf_hello_records(const uint8_t *data, size_t nbytes)
    gbf_hello_frame gbf_hello_bare(const uint8_t *data, size_t nbytes)
    void gbf_hello_gather(const uint8_t *data, const gbf_hello_frame *frame, uint8_t *out)
    uint32_t gbf_hello_offset(const uint8_t *data, const gbf_hello_frame *frame, uint32_t at)
    int gbf_hello_read(const uint8_t *message, gbf_hello_frame *frame, gbf_hello *hello)
    int gbf_hello_grease(const gbf_hello *hello)
    int gbf_hello_name_clean(const uint8_t *name, uint32_t nbytes)
    uint32_t gbf_hello_name_flags(const uint8_t *name, uint32_t nbytes)


cdef extern from "gbf_sha256.h" nogil:
    ctypedef struct gbf_sha256_kernel:
        const char *name
    const gbf_sha256_kernel *gbf_sha256_pick(uint32_t features)


cdef extern from "gbf_ja.h" nogil:
    int GBF_JA3_BYTES
    int GBF_JA4_BYTES
    uint32_t gbf_ja_room(const gbf_hello *hello)
    uint32_t gbf_ja3_text(const gbf_hello *hello, uint8_t *room)
    uint32_t gbf_ja4_raw(const gbf_hello *hello, char transport, uint8_t *room)
    void gbf_ja3(const gbf_hello *hello, uint8_t *room, uint8_t *out)
    void gbf_ja4(const gbf_hello *hello, char transport, const gbf_sha256_kernel *kernel, uint8_t *room, uint8_t *out)
    int gbf_ja4_shaped(const char *text, size_t nbytes)


cdef extern from "gbf_name.h" nogil:
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


cdef extern from "gbf_name_build.h" nogil:
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


cdef extern from "gbf_strings.h" nogil:
    ctypedef struct ArrowSchema "struct ArrowSchema":
        const char *format
        void (*release)(ArrowSchema *) noexcept
    ctypedef struct ArrowArray "struct ArrowArray":
        int64_t length
        int64_t offset
        const void **buffers
        void (*release)(ArrowArray *) noexcept
    ctypedef struct ArrowArrayStream "struct ArrowArrayStream":
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept
        const char *(*get_last_error)(ArrowArrayStream *) noexcept
    ctypedef enum gbf_string_form:
        GBF_STRINGS_NONE
        GBF_STRINGS_BYTES
        GBF_STRINGS_UCS4
    ctypedef struct gbf_strings:
        gbf_string_form form
        uint64_t count
        uint64_t width
        const uint8_t *bytes
    gbf_string_form gbf_strings_arrow_form(const char *format)
    gbf_strings gbf_strings_from_arrow(gbf_string_form form, const ArrowArray *array)
    void gbf_strings_get(const gbf_strings *column, uint64_t first, uint64_t count, const uint8_t **texts,
                         uint64_t *nbytes, uint8_t *scratch)


cdef extern from "gbf_columns.h" nogil:
    enum: GBF_COLUMNS_MAX
    ctypedef struct gbf_classes:
        uint64_t *vectors
        uint32_t count
    gbf_status gbf_classes_start(gbf_classes *c, uint32_t words, const uint64_t *absent, const uint64_t *malformed)
    void gbf_classes_free(gbf_classes *c)
    int gbf_columns_names(const gbf_signals *signals, const gbf_name_table *names, gbf_classes *classes,
                          const uint8_t **texts, const uint64_t *nbytes, uint64_t count, uint64_t *scratch,
                          uint32_t *out)
    int gbf_columns_prints(gbf_classes *classes, const uint8_t *prints, uint64_t count, uint32_t *out)
    ctypedef struct gbf_column:
        const uint32_t *classes
        const uint64_t *vectors
    ctypedef struct gbf_rows:
        uint8_t *actions
        uint32_t *rules
        uint32_t *asns
    void gbf_columns_decide(const gbf_rules *r, const uint64_t *base, uint8_t unparsable, const uint32_t *records,
                            uint64_t n, const gbf_column *columns, uint32_t column_count, uint32_t *winners,
                            const gbf_rows *out)


cdef extern from "gbf_set.h" nogil:
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


cdef extern from "gbf_signals.h" nogil:
    enum:
        GBF_ROW_ABSENT
        GBF_ROW_MALFORMED
        GBF_ROW_KNOWN
        GBF_ROW_TOLD
        GBF_ASKS_NAME
        GBF_ASKS_HELLO
        GBF_ASKS_JA4
        GBF_ASKS_ALPN
        GBF_HELLO_ROWS
    ctypedef struct gbf_term:
        pass
    ctypedef struct gbf_signals:
        const uint64_t *absent
        const uint64_t *name_rows
        const uint64_t *hello_rows
        uint64_t name_row_count
        uint32_t words
        uint32_t asks
    ctypedef struct gbf_signals_source:
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
    const uint64_t *gbf_signals_name_row(const gbf_signals *s, uint32_t row)
    void gbf_signals_and_name(const gbf_signals *s, const uint64_t *row, uint64_t *vector)
    void gbf_signals_and_hello(const gbf_signals *s, const gbf_hello *hello, uint64_t *vector)
    void gbf_signals_and_ja4(const gbf_signals *s, const uint8_t *ja4, uint64_t *vector, uint64_t *scratch)
    void gbf_signals_and_alpn(const gbf_signals *s, const gbf_hello *hello, uint64_t *vector, uint64_t *scratch)
    gbf_status gbf_signals_build(const gbf_signals_source *source, void **block)
    gbf_status gbf_signals_open(gbf_signals *signals, const void *block, uint64_t nbytes, int verify, gbf_fault *fault)


cdef extern from "gbf_exempt.h" nogil:
    ctypedef struct gbf_addr_range:
        gbf_addr first
        gbf_addr last
    ctypedef struct gbf_asn_range:
        uint32_t first
        uint32_t last
    ctypedef struct gbf_exempt:
        const gbf_addr_range *addresses
        const gbf_asn_range *asns
        uint32_t address_count
        uint32_t asn_count
    int gbf_exempt_covers(const gbf_exempt *e, gbf_addr address, uint32_t asn)


cdef extern from "gbf_tracker.h" nogil:
    const uint32_t GBF_TRACKER_WAYS
    enum:
        GBF_TRIP_DISTINCT
        GBF_TRIP_RATE
        GBF_TRIP_SURGE
        GBF_TRIP_UNSURE
    ctypedef struct gbf_tracker_limits:
        uint32_t capacity
        uint32_t distinct_limit
        uint32_t distinct_window_ms
        uint32_t rate_limit
        uint32_t rate_window_ms
        uint32_t surge_percent
        uint32_t surge_min
        uint32_t surge_baseline_ms
    ctypedef struct gbf_tracker_answer:
        uint32_t tripped
        uint32_t tracked
        uint32_t distinct
        uint32_t distinct_most
        uint32_t requests
        uint32_t requests_most
        uint32_t surge_now
        uint32_t surge_base
    ctypedef struct gbf_tracker_stats:
        uint64_t clients
        uint64_t admitted
        uint64_t evicted
        uint64_t refused
        uint64_t unsure
    ctypedef struct gbf_tracker_set:
        pass
    ctypedef struct gbf_tracker:
        uint64_t set_count
        uint64_t nbytes
        gbf_tracker_set *sets
    gbf_status gbf_tracker_open(gbf_tracker *t, const gbf_tracker_limits *limits, const uint8_t *key, gbf_fault *fault)
    void gbf_tracker_close(gbf_tracker *t)
    void gbf_tracker_note(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms,
                          gbf_tracker_answer *out)
    void gbf_tracker_peek(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms,
                          gbf_tracker_answer *out)
    int gbf_tracker_forget(gbf_tracker *t, gbf_addr client)
    void gbf_tracker_read_stats(gbf_tracker *t, gbf_tracker_stats *out)
    void gbf_tracker_mend(gbf_tracker *t)


cdef extern from "gbf_window.h" nogil:
    ctypedef struct gbf_window_rules:
        uint32_t window
        double percentile
        double deviations
        uint32_t naive
        uint32_t learn_all
        uint32_t min_samples
        double floor
        double ceiling
        double max_step
    ctypedef struct gbf_window:
        uint32_t count
    ctypedef struct gbf_window_answer:
        double threshold
        uint32_t flagged
    uint64_t gbf_window_bytes(const gbf_window_rules *rules)
    void gbf_window_set(gbf_window *w, const gbf_window_rules *rules, void *memory)
    double gbf_window_score(const gbf_window_rules *rules, double score)
    void gbf_window_rate(gbf_window *w, const gbf_window_rules *rules, double score, double held,
                         gbf_window_answer *out)


cdef extern from "gbf_score.h" nogil:
    enum:
        GBF_SCORE_SNI
        GBF_SCORE_HEADER
        GBF_SCORE_ASN
        GBF_SCORE_SHAPE
    ctypedef struct gbf_asn_risk:
        uint32_t first
        uint32_t last
        double risk
    ctypedef struct gbf_score_rules:
        double weight[3]
        gbf_window_rules window
        uint32_t per_host
        double unknown_asn
        const gbf_asn_risk *risks
        uint32_t risk_count
    ctypedef struct gbf_score_input:
        uint64_t name
        uint64_t fingerprint
        uint64_t shape
        uint64_t host
        uint64_t client
        uint32_t asn
        uint32_t present
        double added
    ctypedef struct gbf_score_answer:
        double score
        double threshold
        double coverage
        double part[3]
        uint32_t flagged
    ctypedef struct gbf_score:
        uint64_t nbytes
    gbf_score *gbf_score_new(const gbf_score_rules *rules, const uint8_t *key)
    void gbf_score_free(gbf_score *s)
    void gbf_score_rate(gbf_score *s, const gbf_score_input *input, gbf_score_answer *out)
    int gbf_score_vouch(gbf_score *s, const gbf_score_input *input)
    void gbf_score_peek(gbf_score *s, const gbf_score_input *input, gbf_score_answer *out)
    double gbf_score_risk(const gbf_score *s, uint32_t asn)
    void gbf_score_mend(gbf_score *s)


cdef extern from "gbf_live.h" nogil:
    const uint8_t GBF_CAUSE_NONE
    const uint8_t GBF_CAUSE_RULE
    const uint8_t GBF_CAUSE_BAN
    const uint8_t GBF_CAUSE_TRACKER
    const uint8_t GBF_CAUSE_UNPARSABLE
    const uint8_t GBF_CAUSE_SCORE
    const uint8_t GBF_CAUSE_OUTAGE
    enum:
        GBF_CAUSES
        GBF_TRIPS
    ctypedef struct gbf_live:
        gbf_bans *bans
        gbf_tracker *tracker
        const gbf_exempt *exempt
        gbf_score *score
        uint32_t ipv6_bits
        uint8_t *trip_action
        uint8_t print_bans
        uint8_t score_enforced
    ctypedef struct gbf_live_request:
        const gbf_addr *address
        const uint64_t *fingerprint
        const uint64_t *shape
        uint64_t name
        uint64_t host
        uint64_t now_ms
        double added
        uint32_t asn
        uint8_t has_name
        uint8_t decided
        uint8_t rule_action
        uint8_t unread
        uint8_t unparsable
        uint8_t peek
    ctypedef struct gbf_live_answer:
        gbf_ban ban
        float score
        float threshold
        float coverage
        uint8_t action
        uint8_t cause
        uint8_t trip
        uint8_t trip_ban
    int gbf_live_idle(const gbf_live *live)
    int gbf_live_prints(const gbf_live *live)
    void gbf_live_decide(const gbf_live *live, const gbf_live_request *request, gbf_live_answer *answer)
    int gbf_live_vouch(const gbf_live *live, const gbf_live_request *request)
