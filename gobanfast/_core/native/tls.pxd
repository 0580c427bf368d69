# C declarations of csrc/tls/: ClientHello and JA4.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from gobanfast._core.native.hash cimport gbf_sha256_kernel


cdef extern from "tls/gbf_hello.h" nogil:
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


cdef extern from "tls/gbf_ja.h" nogil:
    int GBF_JA3_BYTES
    int GBF_JA4_BYTES
    uint32_t gbf_ja_room(const gbf_hello *hello)
    uint32_t gbf_ja3_text(const gbf_hello *hello, uint8_t *room)
    uint32_t gbf_ja4_raw(const gbf_hello *hello, char transport, uint8_t *room)
    void gbf_ja3(const gbf_hello *hello, uint8_t *room, uint8_t *out)
    void gbf_ja4(const gbf_hello *hello, char transport, const gbf_sha256_kernel *kernel, uint8_t *room, uint8_t *out)
    int gbf_ja4_shaped(const char *text, size_t nbytes)
