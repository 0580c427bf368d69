#include "tls/gbf_ja.h"

#include "hash/gbf_md5.h"

enum { SERVER_NAME = 0, ALPN = 16 };
enum { RANKED = 64, SLACK = 32 }; /* values that are sorted by counting smaller ones; see rank() */

static const char digits[16] = {'0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'};

#define HEX1(high, low) {#high[0], #low[0]}
#define HEX16(h)                                                                                                       \
    HEX1(h, 0), HEX1(h, 1), HEX1(h, 2), HEX1(h, 3), HEX1(h, 4), HEX1(h, 5), HEX1(h, 6), HEX1(h, 7), HEX1(h, 8),        \
        HEX1(h, 9), HEX1(h, a), HEX1(h, b), HEX1(h, c), HEX1(h, d), HEX1(h, e), HEX1(h, f)
static const char hex_of[256][2] = {
    HEX16(0), HEX16(1), HEX16(2), HEX16(3), HEX16(4), HEX16(5), HEX16(6), HEX16(7),
    HEX16(8), HEX16(9), HEX16(a), HEX16(b), HEX16(c), HEX16(d), HEX16(e), HEX16(f),
};

uint32_t gbf_ja_room(const gbf_hello *hello)
{
    uint32_t values = (hello->ciphers.nbytes + hello->groups.nbytes + hello->signatures.nbytes) / 2 +
                      hello->extension_count + hello->points.nbytes;
    /* At most five digits and a separator for each, two more bytes to sort it in; and what does not grow. */
    return (values * 8 + 2 * (GBF_SHA256_PADDING + GBF_SHA256_BLOCK) + 64 + SLACK + 7) & ~UINT32_C(7);
}

/* ---- sorting ---- */

static void sink(uint16_t *heap, uint32_t root, uint32_t count)
{
    for (uint32_t child; (child = 2 * root + 1) < count; root = child) {
        child += child + 1 < count && heap[child] < heap[child + 1];
        if (heap[root] >= heap[child])
            return;
        uint16_t lower = heap[root];
        heap[root] = heap[child];
        heap[child] = lower;
    }
}

typedef int16_t eight __attribute__((vector_size(16)));

/* A browser offers some fifteen values: the place of each is the number of smaller ones, counted sixteen at a time and
 * without a branch. Returns 0 if two are equal and so claim one place. Reads up to SLACK bytes past the last value;
 * what is there is counted for nothing. */
static int places(const uint16_t *values, uint32_t count, int16_t place[RANKED])
{
    const eight sign = (eight){0} + INT16_MIN; /* SSE2 compares signed numbers only */
    uint64_t sum = 0;
    for (uint32_t at = 0; at < count; at += 16) {
        eight low, high, below_low = {0}, below_high = {0};
        memcpy(&low, values + at, 16);
        memcpy(&high, values + at + 8, 16);
        low ^= sign;
        high ^= sign;
        for (uint32_t i = 0; i < count; i++) {
            eight other = (eight){0} + (int16_t)(values[i] ^ 0x8000);
            below_low -= low > other; /* true is -1 */
            below_high -= high > other;
        }
        memcpy(place + at, &below_low, 16);
        memcpy(place + at + 8, &below_high, 16);
    }
    for (uint32_t i = 0; i < count; i++)
        sum += (uint64_t)place[i];
    return sum == (uint64_t)count * (count - 1) / 2;
}

/* Ascending. A hello made of nothing else may hold 32,000 values: the heap keeps that within its bound. */
static void heap_sort(uint16_t *values, uint32_t count)
{
    for (uint32_t root = count / 2; root-- > 0;)
        sink(values, root, count);
    for (uint32_t last = count; last-- > 1;) {
        uint16_t top = values[0];
        values[0] = values[last];
        values[last] = top;
        sink(values, 0, last);
    }
}

/* ---- collecting, GREASE left out ---- */

static uint32_t collect(const gbf_hello *hello, gbf_span list, uint16_t *out)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < list.nbytes; i += 2) {
        uint16_t value = gbf_be16(hello->message + list.at + i);
        out[count] = value;
        count += !gbf_is_grease(value);
    }
    return count;
}

static uint32_t collect_extensions(const gbf_hello *hello, uint16_t *out)
{
    uint32_t count = 0, end = hello->extensions.at + hello->extensions.nbytes;
    if (hello->extension_count <= GBF_HELLO_NUMBERS) {
        for (uint32_t i = 0; i < hello->extension_count; i++) {
            out[count] = hello->numbers[i];
            count += !gbf_is_grease(hello->numbers[i]);
        }
        return count;
    }
    for (uint32_t at = hello->extensions.at; at < end;) {
        uint32_t head = __builtin_bswap32(gbf_load32(hello->message + at));
        out[count] = (uint16_t)(head >> 16);
        count += !gbf_is_grease((uint16_t)(head >> 16));
        at += 4 + (head & 0xFFFF);
    }
    return count;
}

/* ---- JA3 ---- */

static uint8_t *decimal(uint8_t *to, uint32_t value)
{
    uint8_t reversed[10];
    int count = 0;
    do
        reversed[count++] = (uint8_t)('0' + value % 10);
    while ((value /= 10) != 0);
    while (count != 0)
        *to++ = reversed[--count];
    return to;
}

static uint8_t *dashed(uint8_t *to, const uint16_t *values, uint32_t count)
{
    *to++ = ',';
    for (uint32_t i = 0; i < count; i++) {
        if (i != 0)
            *to++ = '-';
        to = decimal(to, values[i]);
    }
    return to;
}

/* The values wait behind the text, in the part of the room that gbf_ja_room() counts for them. */
static uint16_t *values_of(const gbf_hello *hello, uint8_t *room)
{
    uint32_t most = hello->ciphers.nbytes / 2;
    most = hello->extension_count > most ? hello->extension_count : most;
    most = hello->groups.nbytes / 2 > most ? hello->groups.nbytes / 2 : most;
    most = hello->signatures.nbytes / 2 > most ? hello->signatures.nbytes / 2 : most;
    return (uint16_t *)(void *)(room + gbf_ja_room(hello) - ((2 * most + SLACK + 7) & ~UINT32_C(7)));
}

uint32_t gbf_ja3_text(const gbf_hello *hello, uint8_t *room)
{
    uint16_t *values = values_of(hello, room);
    uint8_t *to = decimal(room, hello->legacy_version);
    to = dashed(to, values, collect(hello, hello->ciphers, values));
    to = dashed(to, values, collect_extensions(hello, values));
    to = dashed(to, values, collect(hello, hello->groups, values));
    *to++ = ',';
    for (uint32_t i = 0; i < hello->points.nbytes; i++) {
        if (i != 0)
            *to++ = '-';
        to = decimal(to, hello->message[hello->points.at + i]);
    }
    return (uint32_t)(to - room);
}

void gbf_ja3(const gbf_hello *hello, uint8_t *room, uint8_t out[GBF_JA3_BYTES])
{
    uint8_t digest[16];
    gbf_md5(room, gbf_ja3_text(hello, room), digest);
    for (int i = 0; i < 16; i++) {
        out[2 * i] = (uint8_t)digits[digest[i] >> 4];
        out[2 * i + 1] = (uint8_t)digits[digest[i] & 15];
    }
}

/* ---- JA4 ---- */

static int alphanumeric(uint8_t c)
{
    uint8_t lower = c | 0x20;
    return (c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'z');
}

/* First and last character of the first protocol; of its hex form when one of them is not alphanumeric. */
static void alpn_letters(const gbf_hello *hello, uint8_t *to)
{
    to[0] = to[1] = '0';
    if (hello->alpn.nbytes == 0 || hello->message[hello->alpn.at] == 0)
        return;
    const uint8_t *name = hello->message + hello->alpn.at + 1;
    uint8_t first = name[0], last = name[name[-1] - 1];
    int plain = alphanumeric(first) && alphanumeric(last);
    to[0] = plain ? first : (uint8_t)digits[first >> 4];
    to[1] = plain ? last : (uint8_t)digits[last & 15];
}

static void version_letters(uint16_t version, uint8_t *to)
{
    static const char known[6][2] = {{'s', '3'}, {'1', '0'}, {'1', '1'}, {'1', '2'}, {'1', '3'}, {'0', '0'}};
    uint32_t minor = version - 0x0300u;
    memcpy(to, known[minor <= 4 ? minor : 5], 2);
    if (version == 0x0002)
        memcpy(to, "s2", 2);
}

static void two_digits(uint32_t count, uint8_t *to)
{
    count = count < 99 ? count : 99;
    to[0] = (uint8_t)('0' + count / 10);
    to[1] = (uint8_t)('0' + count % 10);
}

enum { JA4_A = 10 };

static void part_a(const gbf_hello *hello, char transport, uint32_t ciphers, uint32_t extensions, uint8_t *to)
{
    to[0] = (uint8_t)transport;
    version_letters(hello->version, to + 1);
    to[3] = hello->flags & GBF_HELLO_SNI ? 'd' : 'i';
    two_digits(ciphers, to + 4);
    two_digits(extensions, to + 6);
    alpn_letters(hello, to + 8);
}

GBF_INLINE void hex_value(uint8_t *to, uint16_t value)
{
    memcpy(to, hex_of[value >> 8], 2);
    memcpy(to + 2, hex_of[value & 0xFF], 2);
    to[4] = ',';
}

/* "1301,1302": `count` values in hex; the comma behind the last one is written but not counted. */
static uint8_t *hex_list(uint8_t *to, const uint16_t *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        hex_value(to + 5 * i, values[i]);
    return count != 0 ? to + 5 * count - 1 : to;
}

/* The same, ascending: each value is written where it belongs. `values` may come out in another order. */
static uint8_t *sorted_hex_list(uint8_t *to, uint16_t *values, uint32_t count)
{
    int16_t place[RANKED];
    if (count == 0 || count > RANKED || !places(values, count, place)) {
        heap_sort(values, count);
        return hex_list(to, values, count);
    }
    for (uint32_t i = 0; i < count; i++)
        hex_value(to + 5 * place[i], values[i]);
    return to + 5 * count - 1;
}

static uint8_t *part_c(const gbf_hello *hello, uint16_t *values, uint32_t count, uint8_t *to)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint16_t number = values[i];
        values[kept] = number;
        kept += number != SERVER_NAME && number != ALPN;
    }
    to = sorted_hex_list(to, values, kept);
    uint32_t signatures = collect(hello, hello->signatures, values);
    if (signatures != 0) {
        *to++ = '_';
        to = hex_list(to, values, signatures);
    }
    return to;
}

uint32_t gbf_ja4_raw(const gbf_hello *hello, char transport, uint8_t *room)
{
    uint16_t *values = values_of(hello, room);
    uint32_t ciphers = collect(hello, hello->ciphers, values);
    room[JA4_A] = '_';
    uint8_t *to = sorted_hex_list(room + JA4_A + 1, values, ciphers);
    *to++ = '_';
    uint32_t extensions = collect_extensions(hello, values);
    to = part_c(hello, values, extensions, to);
    part_a(hello, transport, ciphers, extensions, room);
    return (uint32_t)(to - room);
}

static void twelve_digits(const uint32_t state[8], uint8_t *to)
{
    for (int i = 0; i < 6; i++)
        memcpy(to + 2 * i, hex_of[state[i / 4] >> (24 - i % 4 * 8) & 0xFF], 2);
}

void gbf_ja4(const gbf_hello *hello, char transport, const gbf_sha256_kernel *kernel, uint8_t *room,
             uint8_t out[GBF_JA4_BYTES])
{
    uint16_t *values = values_of(hello, room);
    uint32_t ciphers = collect(hello, hello->ciphers, values);
    uint8_t *b = room, *b_end = sorted_hex_list(b, values, ciphers);
    uint32_t b_blocks = gbf_sha256_pad(b, (uint32_t)(b_end - b));
    uint8_t *c = b + b_blocks * GBF_SHA256_BLOCK;
    uint32_t extensions = collect_extensions(hello, values);
    uint8_t *c_end = part_c(hello, values, extensions, c);
    uint32_t c_blocks = gbf_sha256_pad(c, (uint32_t)(c_end - c));

    uint32_t state_b[8], state_c[8], both = b_blocks < c_blocks ? b_blocks : c_blocks;
    memcpy(state_b, gbf_sha256_start, sizeof state_b);
    memcpy(state_c, gbf_sha256_start, sizeof state_c);
    kernel->two(state_b, b, state_c, c, both);
    if (b_blocks > both)
        kernel->one(state_b, b + both * GBF_SHA256_BLOCK, b_blocks - both);
    if (c_blocks > both)
        kernel->one(state_c, c + both * GBF_SHA256_BLOCK, c_blocks - both);

    part_a(hello, transport, ciphers, extensions, out);
    out[JA4_A] = out[JA4_A + 13] = '_';
    memset(out + JA4_A + 1, '0', 12);
    memset(out + JA4_A + 14, '0', 12);
    if (b_end != b)
        twelve_digits(state_b, out + JA4_A + 1);
    if (c_end != c)
        twelve_digits(state_c, out + JA4_A + 14);
}

static int fits(char kind, char c)
{
    int digit = c >= '0' && c <= '9', lower = c >= 'a' && c <= 'z', upper = c >= 'A' && c <= 'Z';
    switch (kind) {
    case 't': /* transport: TCP, QUIC, DTLS */
        return c == 't' || c == 'q' || c == 'd';
    case 'v': /* first of the version: TLS 1.x, SSL, DTLS, unknown */
        return c == '1' || c == 's' || c == 'd' || c == '0';
    case 'n': /* a name, or an address for want of one */
        return c == 'd' || c == 'i';
    case '9':
        return digit;
    case 'a':
        return digit || lower || upper;
    case 'f':
        return digit || (c >= 'a' && c <= 'f');
    default:
        return c == kind;
    }
}

int gbf_ja4_shaped(const char *text, size_t nbytes)
{
    static const char shape[GBF_JA4_BYTES + 1] = "tv9n9999aa_ffffffffffff_ffffffffffff";
    if (nbytes != GBF_JA4_BYTES || (text[1] == '1' && text[2] > '3') || (text[1] == '0' && text[2] != '0'))
        return 0;
    for (int i = 0; i < GBF_JA4_BYTES; i++) {
        if (!fits(shape[i], text[i]))
            return 0;
    }
    return 1;
}
