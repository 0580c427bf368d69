# C declarations of csrc/base/: Status, block, CPU features, columns of strings, shared memory, random bytes.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "base/gbf_enums.h" nogil:
    const uint32_t GBF_NONE
    const uint8_t GBF_ALLOW
    const uint8_t GBF_CHALLENGE
    const uint8_t GBF_BAN
    const uint8_t GBF_CAUSE_NONE
    const uint8_t GBF_CAUSE_RULE
    const uint8_t GBF_CAUSE_BAN
    const uint8_t GBF_CAUSE_TRACKER
    const uint8_t GBF_CAUSE_UNPARSABLE
    const uint8_t GBF_CAUSE_SCORE
    const uint8_t GBF_CAUSE_OUTAGE
    enum:
        GBF_LIMIT
        GBF_ACTIONS
        GBF_CAUSES
        GBF_ADMIT
        GBF_SHARE
        GBF_RECORD
        GBF_RESOURCE
        GBF_EFFECTS
        GBF_SHARED_NONE
        GBF_SHARED_GRANTED
        GBF_SHARED_WITHHELD
        GBF_SHARED_REFUSED
        GBF_SHAREDS
        GBF_RECORDED_NONE
        GBF_RECORDED_ALWAYS
        GBF_RECORDED_NEVER
        GBF_RECORDED_RATE
        GBF_RECORDEDS
        GBF_OUTCOME_ADMITTED
        GBF_OUTCOME_PASSED
        GBF_OUTCOME_WITHHELD
        GBF_OUTCOME_CHALLENGED
        GBF_OUTCOME_LIMITED
        GBF_OUTCOME_REFUSED
        GBF_OUTCOME_BANNED
        GBF_OUTCOMES
        GBF_STRANGER_RESTART
        GBF_STRANGER_LINK
        GBF_STRANGER_CONTINUE
        GBF_TRIP_UNSURE
        GBF_TRIPS
        GBF_UNPARSABLE_NONE
        GBF_UNPARSABLE_ADDRESS
        GBF_UNPARSABLE_SESSION
        GBF_UNPARSABLE_HELLO
        GBF_UNPARSABLE_SNI
        GBF_UNPARSABLE_HEADERS
        GBF_UNPARSABLE_METHOD
        GBF_UNPARSABLE_PATH
        GBF_UNPARSABLE_JA4
    ctypedef enum gbf_trace_source:
        GBF_TRACE_NOTHING
        GBF_TRACE_FROM_PARENT
        GBF_TRACE_FROM_B3
        GBF_TRACE_FROM_B3_MULTI
    const uint8_t GBF_BY_RULE
    const uint8_t GBF_BY_TRACKER
    const uint8_t GBF_FEED_BAN
    const uint8_t GBF_FEED_LABEL


cdef extern from "base/gbf_base.h" nogil:
    ctypedef enum gbf_status:
        GBF_OK
        GBF_NO_MEMORY
        GBF_BAD_FORMAT
        GBF_BAD_INPUT
    ctypedef struct gbf_fault:
        const char *what
        uint64_t offset


cdef extern from "base/gbf_block.h" nogil:
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


cdef extern from "base/gbf_cpu.h" nogil:
    int gbf_cpu_cap(const char *level, uint32_t *features)


cdef extern from "base/gbf_arrow.h" nogil:
    ctypedef struct ArrowSchema "struct ArrowSchema":
        const char *format
        const char *name
        int64_t flags
        int64_t n_children
        ArrowSchema **children
        ArrowSchema *dictionary
        void (*release)(ArrowSchema *) noexcept
        void *private_data
    ctypedef struct ArrowArray "struct ArrowArray":
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept
        void *private_data
    ctypedef struct ArrowArrayStream "struct ArrowArrayStream":
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *) noexcept
        int (*get_next)(ArrowArrayStream *, ArrowArray *) noexcept
        const char *(*get_last_error)(ArrowArrayStream *) noexcept
        void (*release)(ArrowArrayStream *) noexcept
        void *private_data
    ctypedef enum gbf_string_form:
        GBF_ARROW_NONE
        GBF_ARROW_BYTES
        GBF_ARROW_UCS4
    ctypedef struct gbf_arrow:
        gbf_string_form form
        uint64_t count
        uint64_t width
        const uint8_t *bytes
    gbf_string_form gbf_arrow_form_of(const char *format)
    gbf_arrow gbf_arrow_column(gbf_string_form form, const ArrowArray *array)
    void gbf_arrow_get(const gbf_arrow *column, uint64_t first, uint64_t count, const uint8_t **texts,
                       uint64_t *nbytes, uint8_t *scratch)


cdef extern from "base/gbf_shared.h" nogil:
    enum:
        GBF_SHARED_HEADER
        GBF_SHARED_CONTENT
    const uint64_t GBF_SHARED_NOTHING
    ctypedef struct gbf_shared_slot:
        pass
    void gbf_shared_start(uint8_t *out, uint32_t slots, uint32_t slot_bytes, const uint8_t *content)
    uint64_t gbf_shared_nbytes(uint32_t slots, uint32_t slot_bytes)
    gbf_shared_slot *gbf_shared_at(void *memory, uint32_t slot, uint32_t slot_bytes)
    uint64_t gbf_shared_owner(const gbf_shared_slot *s)
    int gbf_shared_claim(gbf_shared_slot *s, uint64_t before, uint64_t owner)
    int gbf_shared_write(gbf_shared_slot *s, uint64_t owner, const void *payload, uint64_t nbytes)
    uint64_t gbf_shared_read(const gbf_shared_slot *s, uint64_t owner, void *out, uint64_t room)
    void gbf_shared_leave(gbf_shared_slot *s, uint64_t owner)


cdef extern from "base/gbf_random.h" nogil:
    int gbf_random_span_id(uint8_t *out)
    int gbf_random_trace_id(uint8_t *out)
    void gbf_random_forked()
