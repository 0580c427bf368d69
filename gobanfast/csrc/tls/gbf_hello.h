/* A TLS ClientHello, read where it lies: spans into the caller's bytes, nothing allocated, nothing copied.
 *
 * Three steps, because a hello may come in pieces. gbf_hello_frame() walks the records and says whether the whole
 * handshake message is there. If it is split over records, gbf_hello_gather() joins it in memory of the caller.
 * gbf_hello_read() reads the message. A QUIC CRYPTO stream or a TLS library's message callback has no records:
 * gbf_hello_bare() then takes the place of the first step. Sources: RFC 8446, 6066, 7301, 8701, 9849; DESIGN.md, "ClientHello". */
#ifndef GBF_HELLO_H
#define GBF_HELLO_H

#include "base/gbf_base.h"

enum {
    GBF_HELLO_BODY_LIMIT = 65536,   /* bytes of a handshake message without its header */
    GBF_HELLO_RECORD_LIMIT = 16384, /* RFC 8446 section 5.1, plaintext */
    GBF_HELLO_NAME_LIMIT = 255,
    GBF_HELLO_NUMBERS = 32, /* extensions whose numbers are kept at hand; browsers send up to 20 */
};

typedef enum {
    GBF_HELLO_OK,
    GBF_HELLO_INCOMPLETE, /* `place` more bytes are needed, at the least */
    GBF_HELLO_MALFORMED,  /* `place` is the offset of what is wrong */
    GBF_HELLO_NOT_TLS,    /* the first bytes are something else */
} gbf_hello_status;

typedef enum {
    GBF_HELLO_FINE,
    GBF_HELLO_NOT_HANDSHAKE,
    GBF_HELLO_SSLV2,
    GBF_HELLO_PLAIN_TEXT,
    GBF_HELLO_PROXY_HEADER,
    GBF_HELLO_RECORD_VERSION,
    GBF_HELLO_RECORD_EMPTY,
    GBF_HELLO_RECORD_LONG,
    GBF_HELLO_RECORD_TYPE,
    GBF_HELLO_NOT_CLIENT_HELLO,
    GBF_HELLO_LONG,
    GBF_HELLO_SHORT,
    GBF_HELLO_SESSION_ID,
    GBF_HELLO_OVERRUN,
    GBF_HELLO_CIPHERS,
    GBF_HELLO_COMPRESSION,
    GBF_HELLO_TRAILING,
    GBF_HELLO_DUPLICATE,
    GBF_HELLO_LIST,
    GBF_HELLO_TWO_NAMES,
    GBF_HELLO_ECH,
    GBF_HELLO_PROBLEM_COUNT,
} gbf_hello_problem;

/* One sentence part per problem, for people. */
extern const char *const gbf_hello_problem_text[GBF_HELLO_PROBLEM_COUNT];

typedef struct {
    gbf_hello_status status;
    gbf_hello_problem problem;
    uint32_t place;         /* INCOMPLETE: bytes still needed; MALFORMED, NOT_TLS: offset */
    uint32_t first;         /* offset of the first record of the hello (a change_cipher_spec may stand before it) */
    uint32_t end;           /* offset one past the last byte of the hello */
    uint32_t message_bytes; /* handshake header and body */
    uint32_t records;       /* records it is spread over; 0 for a bare message */
} gbf_hello_frame;

/* Bytes of the handshake message; `at` counts from its header. at == 0: the field is absent. */
typedef struct {
    uint32_t at, nbytes;
} gbf_span;

enum {                          /* gbf_hello.flags */
       GBF_HELLO_ECH_OUTER = 1, /* real or GREASE: from outside they look the same */
       GBF_HELLO_ECH_INNER = 2,
       GBF_HELLO_TICKET = 4,
       GBF_HELLO_PSK = 8,
       GBF_HELLO_EARLY_DATA = 16,
       GBF_HELLO_COOKIE = 32, /* only a server's HelloRetryRequest hands one out */
       GBF_HELLO_SNI = 64,    /* the extension is there, whatever is in it */
};

typedef struct {
    const uint8_t *message;
    uint32_t message_bytes;
    uint32_t flags;
    uint16_t legacy_version;
    uint16_t version; /* highest in supported_versions, GREASE left out; without that extension the legacy one */
    uint32_t extension_count;
    gbf_span session_id, ciphers, extensions, name, alpn, versions, groups, points, signatures;
    uint16_t numbers[GBF_HELLO_NUMBERS]; /* of the extensions, in order; complete if extension_count fits */
} gbf_hello;

enum { /* gbf_hello_name_flags() */
       GBF_NAME_EMPTY = 1,
       GBF_NAME_NUL = 2,
       GBF_NAME_NON_ASCII = 4,
       GBF_NAME_CHARACTER = 8, /* ASCII, but not a letter, digit, '-', '_' or '.' */
       GBF_NAME_LONG = 16,
       GBF_NAME_ADDRESS = 32, /* looks like an IP literal */
       GBF_NAME_UPPER = 64,
       GBF_NAME_DOT = 128, /* ends in a dot */
};

GBF_INLINE uint16_t gbf_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* RFC 8701: 0x0a0a, 0x1a1a ... 0xfafa. Both bytes equal, not the nibbles alone. */
GBF_INLINE int gbf_is_grease(uint16_t value)
{
    return (((value >> 8 ^ value) & 0xFF) | ((value & 0x0F) ^ 0x0A)) == 0;
}

/* Walks the records at the start of `data`, a client's first bytes on a connection, or its second flight after a
 * HelloRetryRequest. Reads at most 400 KB however long `data` is. Never reads past data + nbytes. */
gbf_hello_frame gbf_hello_records(const uint8_t *data, size_t nbytes);

/* The same for a handshake message that no records surround. */
gbf_hello_frame gbf_hello_bare(const uint8_t *data, size_t nbytes);

/* Joins the pieces of a hello with frame->records > 1 into `out`, frame->message_bytes long. */
void gbf_hello_gather(const uint8_t *data, const gbf_hello_frame *frame, uint8_t *out);

/* Offset in `data` of byte `at` of the message. */
uint32_t gbf_hello_offset(const uint8_t *data, const gbf_hello_frame *frame, uint32_t at);

/* Fills `hello` from a whole message of frame->message_bytes; spans stay valid as long as `message` does. When it
 * is malformed, sets frame->status, problem, and place (an offset in the message, see gbf_hello_offset) and returns 0. */
int gbf_hello_read(const uint8_t *message, gbf_hello_frame *frame, gbf_hello *hello);

/* True if any list of the hello carries a GREASE value. */
int gbf_hello_grease(const gbf_hello *hello);

/* True if `name` is not empty and every byte is printable ASCII: it can be shown and compared as text. */
int gbf_hello_name_clean(const uint8_t *name, uint32_t nbytes);

/* What is odd about a host_name: GBF_NAME_* bits, 0 for an ordinary lower-case one. */
uint32_t gbf_hello_name_flags(const uint8_t *name, uint32_t nbytes);

#endif
