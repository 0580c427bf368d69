#include "tls/gbf_hello.h"

enum { RECORD_HEADER = 5, MESSAGE_HEADER = 4, CHANGE_CIPHER_SPEC = 20, HANDSHAKE = 22, CLIENT_HELLO = 1 };
enum { CCS_RECORD = 6 }; /* the one dummy change_cipher_spec of RFC 8446 appendix D.4 */

/* Every byte of a hello in a record of its own, and one more header: more input than this is never looked at. */
enum { STREAM_LIMIT = (GBF_HELLO_BODY_LIMIT + MESSAGE_HEADER + 1) * (RECORD_HEADER + 1) + CCS_RECORD };

enum {
    SERVER_NAME = 0,
    SUPPORTED_GROUPS = 10,
    POINT_FORMATS = 11,
    SIGNATURE_ALGORITHMS = 13,
    ALPN = 16,
    SESSION_TICKET = 35,
    PRE_SHARED_KEY = 41,
    EARLY_DATA = 42,
    SUPPORTED_VERSIONS = 43,
    COOKIE = 44,
    INDEXED = 64, /* extensions below this number are found by number, and refused when doubled */
    ENCRYPTED_CLIENT_HELLO = 0xFE0D,
};

const char *const gbf_hello_problem_text[GBF_HELLO_PROBLEM_COUNT] = {
    [GBF_HELLO_FINE] = "",
    [GBF_HELLO_NOT_HANDSHAKE] = "not a tls handshake record",
    [GBF_HELLO_SSLV2] = "an sslv2-compatible hello",
    [GBF_HELLO_PLAIN_TEXT] = "plain text, such as http, on a tls port",
    [GBF_HELLO_PROXY_HEADER] = "a proxy protocol header stands in front",
    [GBF_HELLO_RECORD_VERSION] = "record version is not tls",
    [GBF_HELLO_RECORD_EMPTY] = "record of zero bytes",
    [GBF_HELLO_RECORD_LONG] = "record longer than 16384 bytes",
    [GBF_HELLO_RECORD_TYPE] = "another kind of record inside the hello",
    [GBF_HELLO_NOT_CLIENT_HELLO] = "handshake message is not a client hello",
    [GBF_HELLO_LONG] = "client hello longer than 65536 bytes",
    [GBF_HELLO_SHORT] = "client hello too short for its fixed fields",
    [GBF_HELLO_SESSION_ID] = "session id longer than 32 bytes",
    [GBF_HELLO_OVERRUN] = "a length runs past the end of the client hello",
    [GBF_HELLO_CIPHERS] = "cipher suites are empty or an odd number of bytes",
    [GBF_HELLO_COMPRESSION] = "no compression method",
    [GBF_HELLO_TRAILING] = "bytes after the extensions",
    [GBF_HELLO_DUPLICATE] = "an extension comes twice",
    [GBF_HELLO_LIST] = "a list in an extension contradicts its own length",
    [GBF_HELLO_TWO_NAMES] = "two host names",
    [GBF_HELLO_ECH] = "encrypted_client_hello is neither outer nor inner",
};

static gbf_hello_frame stop(gbf_hello_frame frame, gbf_hello_status status, gbf_hello_problem problem, uint32_t place)
{
    frame.status = status;
    frame.problem = problem;
    frame.place = place;
    return frame;
}

static gbf_hello_frame not_tls(gbf_hello_frame frame, const uint8_t *data, uint32_t nbytes)
{
    gbf_hello_problem problem = GBF_HELLO_NOT_HANDSHAKE;
    if (nbytes >= 3 && (data[0] & 0x80) && data[2] == CLIENT_HELLO)
        problem = GBF_HELLO_SSLV2;
    else if ((nbytes >= 6 && memcmp(data, "PROXY ", 6) == 0) ||
             (nbytes >= 12 && memcmp(data, "\r\n\r\n\0\r\nQUIT\n", 12) == 0))
        problem = GBF_HELLO_PROXY_HEADER;
    else if (data[0] >= ' ' && data[0] <= '~')
        problem = GBF_HELLO_PLAIN_TEXT;
    return stop(frame, GBF_HELLO_NOT_TLS, problem, 0);
}

/* The least number of bytes that could still complete the hello: `missing` of the message, of which `left` fit in
 * the record at hand, and a record header of which `header` bytes are missing before any of it. */
static uint32_t least(uint32_t missing, uint32_t left, uint32_t header)
{
    uint32_t beyond = missing > left ? missing - left : 0;
    uint32_t headers = (beyond + GBF_HELLO_RECORD_LIMIT - 1) / GBF_HELLO_RECORD_LIMIT;
    if (header != 0)
        return missing + header + (headers - 1) * RECORD_HEADER;
    return missing + headers * RECORD_HEADER;
}

gbf_hello_frame gbf_hello_records(const uint8_t *data, size_t input_bytes)
{
    gbf_hello_frame frame = {.status = GBF_HELLO_OK, .message_bytes = MESSAGE_HEADER};
    uint32_t nbytes = input_bytes < STREAM_LIMIT ? (uint32_t)input_bytes : STREAM_LIMIT;
    uint32_t at = 0, have = 0;
    uint8_t header[MESSAGE_HEADER];

    if (GBF_LIKELY(nbytes >= RECORD_HEADER + MESSAGE_HEADER && data[0] == HANDSHAKE && data[1] == 3 &&
                   data[RECORD_HEADER] == CLIENT_HELLO)) { /* nearly always the whole message in one record */
        uint32_t length = gbf_be16(data + 3), body = (uint32_t)data[6] << 16 | gbf_be16(data + 7);
        if (GBF_LIKELY(length <= GBF_HELLO_RECORD_LIMIT && MESSAGE_HEADER + body <= length &&
                       RECORD_HEADER + MESSAGE_HEADER + body <= nbytes)) {
            frame.records = 1;
            frame.message_bytes = MESSAGE_HEADER + body;
            frame.end = RECORD_HEADER + frame.message_bytes;
            return frame;
        }
    }
    if (nbytes != 0 && data[0] == CHANGE_CIPHER_SPEC) {
        static const uint8_t expected[CCS_RECORD] = {CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1};
        uint32_t seen = nbytes < CCS_RECORD ? nbytes : CCS_RECORD;
        if (memcmp(data, expected, seen) != 0)
            return not_tls(frame, data, nbytes);
        if (seen < CCS_RECORD)
            return stop(frame, GBF_HELLO_INCOMPLETE, GBF_HELLO_FINE,
                        CCS_RECORD - seen + RECORD_HEADER + MESSAGE_HEADER);
        at = CCS_RECORD;
    }
    frame.first = at;
    for (;;) {
        uint32_t rest = nbytes - at;
        if (rest >= 1 && data[at] != HANDSHAKE)
            return frame.records == 0 && at == 0 ? not_tls(frame, data, nbytes)
                                                 : stop(frame, GBF_HELLO_MALFORMED, GBF_HELLO_RECORD_TYPE, at);
        if (rest >= 2 && data[at + 1] != 3)
            return stop(frame, frame.records == 0 ? GBF_HELLO_NOT_TLS : GBF_HELLO_MALFORMED, GBF_HELLO_RECORD_VERSION,
                        at + 1);
        if (rest < RECORD_HEADER)
            return stop(frame, GBF_HELLO_INCOMPLETE, GBF_HELLO_FINE,
                        least(frame.message_bytes - have, 0, RECORD_HEADER - rest));
        uint32_t length = gbf_be16(data + at + 3);
        if (length == 0)
            return stop(frame, GBF_HELLO_MALFORMED, GBF_HELLO_RECORD_EMPTY, at + 3);
        if (length > GBF_HELLO_RECORD_LIMIT)
            return stop(frame, GBF_HELLO_MALFORMED, GBF_HELLO_RECORD_LONG, at + 3);
        frame.records++;
        at += RECORD_HEADER;
        uint32_t available = length < nbytes - at ? length : nbytes - at;
        uint32_t before = have;
        while (have < MESSAGE_HEADER && have - before < available) {
            header[have] = data[at + have - before];
            have++;
            if (have == 1 && header[0] != CLIENT_HELLO)
                return stop(frame, GBF_HELLO_MALFORMED, GBF_HELLO_NOT_CLIENT_HELLO, at);
            if (have < MESSAGE_HEADER)
                continue;
            uint32_t body = (uint32_t)header[1] << 16 | gbf_be16(header + 2);
            if (body > GBF_HELLO_BODY_LIMIT)
                return stop(frame, GBF_HELLO_MALFORMED, GBF_HELLO_LONG, gbf_hello_offset(data, &frame, 1));
            frame.message_bytes = MESSAGE_HEADER + body;
        }
        have = before + available;
        if (have >= frame.message_bytes && have >= MESSAGE_HEADER) {
            frame.end = at + frame.message_bytes - before;
            return frame;
        }
        if (available < length)
            return stop(frame, GBF_HELLO_INCOMPLETE, GBF_HELLO_FINE,
                        least(frame.message_bytes - have, length - available, 0));
        at += length;
    }
}

gbf_hello_frame gbf_hello_bare(const uint8_t *data, size_t nbytes)
{
    gbf_hello_frame frame = {.status = GBF_HELLO_OK, .message_bytes = MESSAGE_HEADER};
    if (nbytes >= 1 && data[0] != CLIENT_HELLO)
        return stop(frame, GBF_HELLO_MALFORMED, GBF_HELLO_NOT_CLIENT_HELLO, 0);
    if (nbytes >= MESSAGE_HEADER) {
        uint32_t body = (uint32_t)data[1] << 16 | gbf_be16(data + 2);
        if (body > GBF_HELLO_BODY_LIMIT)
            return stop(frame, GBF_HELLO_MALFORMED, GBF_HELLO_LONG, 1);
        frame.message_bytes += body;
    }
    if (nbytes < frame.message_bytes)
        return stop(frame, GBF_HELLO_INCOMPLETE, GBF_HELLO_FINE, frame.message_bytes - (uint32_t)nbytes);
    frame.end = frame.message_bytes;
    return frame;
}

void gbf_hello_gather(const uint8_t *data, const gbf_hello_frame *frame, uint8_t *out)
{
    uint32_t done = 0;
    for (uint32_t at = frame->first; done < frame->message_bytes;) {
        uint32_t length = gbf_be16(data + at + 3), wanted = frame->message_bytes - done;
        memcpy(out + done, data + at + RECORD_HEADER, length < wanted ? length : wanted);
        done += length;
        at += RECORD_HEADER + length;
    }
}

uint32_t gbf_hello_offset(const uint8_t *data, const gbf_hello_frame *frame, uint32_t at)
{
    uint32_t place = frame->first;
    for (uint32_t record = 0; record < frame->records; record++) {
        uint32_t length = gbf_be16(data + place + 3);
        place += RECORD_HEADER;
        if (at < length || record + 1 == frame->records)
            break;
        at -= length;
        place += length;
    }
    return place + at;
}

static int refuse(gbf_hello_frame *frame, gbf_hello_problem problem, uint32_t place)
{
    *frame = stop(*frame, GBF_HELLO_MALFORMED, problem, place);
    return 0;
}

/* The list inside the extension whose body starts at `at`: a length of `prefix` bytes, then `unit`-byte values that
 * fill the body to its end. */
static int whole_list(const uint8_t *message, uint32_t at, uint32_t prefix, uint32_t unit, gbf_span *list)
{
    uint32_t body = gbf_be16(message + at - 2);
    if (body < prefix)
        return 0;
    list->at = at + prefix;
    list->nbytes = prefix == 2 ? gbf_be16(message + at) : message[at];
    return list->nbytes == body - prefix && list->nbytes % unit == 0;
}

/* RFC 6066 section 3. An empty body or list (the server's form) leaves no name; other name types are stepped over. */
static gbf_hello_problem read_name(const uint8_t *message, uint32_t at, gbf_hello *hello)
{
    gbf_span list;
    if (gbf_be16(message + at - 2) == 0)
        return GBF_HELLO_FINE;
    if (!whole_list(message, at, 2, 1, &list))
        return GBF_HELLO_LIST;
    uint32_t end = list.at + list.nbytes;
    for (at = list.at; at < end;) {
        if (end - at < 3 || end - at - 3 < gbf_be16(message + at + 1))
            return GBF_HELLO_LIST;
        uint32_t nbytes = gbf_be16(message + at + 1);
        if (message[at] == 0) {
            if (hello->name.at != 0)
                return GBF_HELLO_TWO_NAMES;
            hello->name = (gbf_span){at + 3, nbytes};
        }
        at += 3 + nbytes;
    }
    return GBF_HELLO_FINE;
}

static int read_alpn(const uint8_t *message, uint32_t at, gbf_span *list)
{
    if (!whole_list(message, at, 2, 1, list))
        return 0;
    uint32_t end = list->at + list->nbytes;
    at = list->at;
    while (at < end)
        at += 1 + message[at];
    return at == end;
}

/* Lists whose place was noted in the walk over the extensions. */
static int read_lists(const uint8_t *message, uint64_t seen, const uint32_t *found, gbf_hello_frame *frame,
                      gbf_hello *hello)
{
#define SEEN(number) (seen >> (number) & 1)
    if (SEEN(SERVER_NAME)) {
        gbf_hello_problem problem = read_name(message, found[SERVER_NAME], hello);
        if (problem != GBF_HELLO_FINE)
            return refuse(frame, problem, found[SERVER_NAME]);
        hello->flags |= GBF_HELLO_SNI;
    }
    if (SEEN(ALPN) && !read_alpn(message, found[ALPN], &hello->alpn))
        return refuse(frame, GBF_HELLO_LIST, found[ALPN]);
    if (SEEN(SUPPORTED_GROUPS) && !whole_list(message, found[SUPPORTED_GROUPS], 2, 2, &hello->groups))
        return refuse(frame, GBF_HELLO_LIST, found[SUPPORTED_GROUPS]);
    if (SEEN(POINT_FORMATS) && !whole_list(message, found[POINT_FORMATS], 1, 1, &hello->points))
        return refuse(frame, GBF_HELLO_LIST, found[POINT_FORMATS]);
    if (SEEN(SIGNATURE_ALGORITHMS) && !whole_list(message, found[SIGNATURE_ALGORITHMS], 2, 2, &hello->signatures))
        return refuse(frame, GBF_HELLO_LIST, found[SIGNATURE_ALGORITHMS]);
    if (SEEN(SUPPORTED_VERSIONS)) {
        if (!whole_list(message, found[SUPPORTED_VERSIONS], 1, 2, &hello->versions))
            return refuse(frame, GBF_HELLO_LIST, found[SUPPORTED_VERSIONS]);
        int32_t best = -1; /* a list may name version 0 alone, which is not the same as naming none */
        for (uint32_t i = 0; i < hello->versions.nbytes; i += 2) {
            uint16_t version = gbf_be16(message + hello->versions.at + i);
            if (version > best && !gbf_is_grease(version))
                best = version;
        }
        hello->version = best >= 0 ? (uint16_t)best : hello->legacy_version;
    }
    hello->flags |= SEEN(SESSION_TICKET) ? GBF_HELLO_TICKET : 0;
    hello->flags |= SEEN(PRE_SHARED_KEY) ? GBF_HELLO_PSK : 0;
    hello->flags |= SEEN(EARLY_DATA) ? GBF_HELLO_EARLY_DATA : 0;
    hello->flags |= SEEN(COOKIE) ? GBF_HELLO_COOKIE : 0;
    return 1;
#undef SEEN
}

/* Says where the extensions from `at` on go wrong. The walk in gbf_hello_read() is for good ones and notes only that. */
static int refuse_extension(const uint8_t *message, gbf_hello_frame *frame, uint32_t at)
{
    uint32_t end = frame->message_bytes, ech = 0;
    for (uint64_t seen = 0;;) {
        if (end - at < 4 || end - at - 4 < gbf_be16(message + at + 2))
            return refuse(frame, GBF_HELLO_OVERRUN, at);
        uint32_t number = gbf_be16(message + at), body = gbf_be16(message + at + 2);
        if (number < INDEXED) {
            if (seen >> number & 1)
                return refuse(frame, GBF_HELLO_DUPLICATE, at);
            seen |= UINT64_C(1) << number;
        } else if (number == ENCRYPTED_CLIENT_HELLO) {
            if (ech != 0)
                return refuse(frame, GBF_HELLO_DUPLICATE, at);
            ech = 1;
            if (body == 0 || message[at + 4] > 1)
                return refuse(frame, GBF_HELLO_ECH, at);
        }
        at += 4 + body;
    }
}

int gbf_hello_read(const uint8_t *message, gbf_hello_frame *frame, gbf_hello *hello)
{
    uint32_t end = frame->message_bytes, at = MESSAGE_HEADER + 2 + 32;
    const gbf_span absent = {0, 0};

    /* Field by field: for the whole struct compilers choose a string instruction that costs as much as all that follows. */
    hello->message = message;
    hello->message_bytes = end;
    hello->flags = hello->extension_count = 0;
    hello->extensions = hello->name = hello->alpn = hello->versions = absent;
    hello->groups = hello->points = hello->signatures = absent;
    if (end < at + 1)
        return refuse(frame, GBF_HELLO_SHORT, MESSAGE_HEADER);
    hello->version = hello->legacy_version = gbf_be16(message + MESSAGE_HEADER);
    if (message[at] > 32)
        return refuse(frame, GBF_HELLO_SESSION_ID, at);
    if (end - at - 1 < message[at] + 2u) /* and the two bytes that count cipher suites */
        return refuse(frame, GBF_HELLO_OVERRUN, at);
    hello->session_id = (gbf_span){at + 1, message[at]};
    at += 1 + message[at];
    uint32_t nbytes = gbf_be16(message + at);
    if (nbytes == 0 || nbytes % 2 != 0)
        return refuse(frame, GBF_HELLO_CIPHERS, at);
    hello->ciphers = (gbf_span){at + 2, nbytes};
    if (end - at - 2 < nbytes + 1) /* and the byte that counts compression methods */
        return refuse(frame, GBF_HELLO_OVERRUN, at);
    at += 2 + nbytes;
    if (message[at] == 0)
        return refuse(frame, GBF_HELLO_COMPRESSION, at);
    if (end - at - 1 < message[at])
        return refuse(frame, GBF_HELLO_OVERRUN, at);
    at += 1 + message[at];
    if (at == end) /* a hello without extensions: before TLS 1.2, legal */
        return 1;
    if (end - at < 2 || end - at - 2 < gbf_be16(message + at))
        return refuse(frame, GBF_HELLO_OVERRUN, at);
    if (end - at - 2 > gbf_be16(message + at))
        return refuse(frame, GBF_HELLO_TRAILING, at + 2 + gbf_be16(message + at));
    at += 2;
    hello->extensions = (gbf_span){at, end - at};

    uint64_t seen = 0;
    uint32_t found[INDEXED], count = 0, others = 0, ech = 0, echs = 0;
    size_t p = at;
    for (; p + 4 <= end; count++) {
        uint32_t number = gbf_be16(message + p);
        /* Each step waits for the length before it. Most lengths fit one byte: guessing so lets the CPU run ahead. */
        size_t body = message[p + 3];
        if (GBF_UNLIKELY(message[p + 2] != 0)) {
            body |= (size_t)message[p + 2] << 8;
            __asm__("" : "+r"(body)); /* keeps it a branch: a conditional move would wait */
        }
        hello->numbers[count % GBF_HELLO_NUMBERS] = (uint16_t)number;
        if (number < INDEXED) {
            seen |= UINT64_C(1) << number;
            found[number] = (uint32_t)p + 4;
        } else {
            others++;
            if (GBF_UNLIKELY(number == ENCRYPTED_CLIENT_HELLO)) {
                ech = (uint32_t)p + 4;
                echs++;
            }
        }
        p += 4 + body;
    }
    hello->extension_count = count;
    if (GBF_UNLIKELY(p != end || (uint32_t)__builtin_popcountll(seen) + others != count || echs > 1))
        return refuse_extension(message, frame, at);
    if (ech != 0) {
        if (gbf_be16(message + ech - 2) == 0 || message[ech] > 1)
            return refuse_extension(message, frame, at);
        hello->flags |= message[ech] == 0 ? GBF_HELLO_ECH_OUTER : GBF_HELLO_ECH_INNER;
    }
    return read_lists(message, seen, found, frame, hello);
}

static int has_grease(const gbf_hello *hello, gbf_span list)
{
    for (uint32_t i = 0; i < list.nbytes; i += 2)
        if (gbf_is_grease(gbf_be16(hello->message + list.at + i)))
            return 1;
    return 0;
}

int gbf_hello_grease(const gbf_hello *hello)
{
    uint32_t end = hello->extensions.at + hello->extensions.nbytes;
    for (uint32_t at = hello->extensions.at; at < end; at += 4 + gbf_be16(hello->message + at + 2))
        if (gbf_is_grease(gbf_be16(hello->message + at)))
            return 1;
    return has_grease(hello, hello->ciphers) || has_grease(hello, hello->groups) ||
           has_grease(hello, hello->signatures) || has_grease(hello, hello->versions);
}

int gbf_hello_name_clean(const uint8_t *name, uint32_t nbytes)
{
    if (nbytes < 8) {
        for (uint32_t i = 0; i < nbytes; i++)
            if (name[i] <= ' ' || name[i] > '~')
                return 0;
        return nbytes != 0;
    }
    /* Eight bytes at a time, the last eight overlapping. Below 0x21: the subtraction borrows into bit 7. Above 0x7e:
     * bit 7 is set already, or adding one sets it. Both may hit a byte beside the bad one; none goes unseen. */
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t bad = 0;
    for (uint32_t i = 0;; i = i + 16 <= nbytes ? i + 8 : nbytes - 8) {
        uint64_t word = gbf_load64(name + i);
        bad |= word | (word - ones * 0x21) | (word + ones);
        if (i + 8 == nbytes)
            break;
    }
    return (bad & ones * 0x80) == 0;
}

/* Digits and dots; or colons, at least two, among hex digits. */
static int looks_like_address(const uint8_t *name, uint32_t nbytes)
{
    uint32_t colons = 0, dots = 0, others = 0, letters = 0;
    for (uint32_t i = 0; i < nbytes; i++) {
        uint8_t c = name[i], lower = c | 0x20;
        colons += c == ':';
        dots += c == '.';
        letters += lower >= 'a' && lower <= 'f';
        others +=
            !((c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'f') || c == ':' || c == '.' || c == '[' || c == ']');
    }
    return others == 0 && (colons >= 2 || (colons == 0 && letters == 0 && dots != nbytes && dots != 0));
}

uint32_t gbf_hello_name_flags(const uint8_t *name, uint32_t nbytes)
{
    uint32_t flags = nbytes == 0 ? GBF_NAME_EMPTY : 0;
    for (uint32_t i = 0; i < nbytes; i++) {
        uint8_t c = name[i], lower = c | 0x20;
        if (c == 0)
            flags |= GBF_NAME_NUL;
        else if (c > 127)
            flags |= GBF_NAME_NON_ASCII;
        else if (lower >= 'a' && lower <= 'z')
            flags |= c == lower ? 0 : GBF_NAME_UPPER;
        else if (!((c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.'))
            flags |= GBF_NAME_CHARACTER;
    }
    flags |= nbytes > GBF_HELLO_NAME_LIMIT ? GBF_NAME_LONG : 0;
    flags |= nbytes != 0 && name[nbytes - 1] == '.' ? GBF_NAME_DOT : 0;
    flags |= looks_like_address(name, nbytes) ? GBF_NAME_ADDRESS : 0;
    return flags;
}
