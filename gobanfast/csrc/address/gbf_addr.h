/* Addresses: text <-> 128 bits, IPv4 and IPv6 in one space.
 *
 * IPv4 a.b.c.d is ::ffff:a.b.c.d, everywhere and always, so one client has one key whatever socket it came
 * through. An IPv4 prefix of n bits is a prefix of 96 + n bits. Text rules (RFC 4291 section 2.2, strict):
 *   - IPv4: four decimal octets of 1..3 digits, no leading zero, nothing else (no "1.2.3", no octal, no spaces);
 *   - IPv6: groups of 1..4 hex digits, at most one "::" that stands for at least one group, optional dotted tail;
 *   - a zone id ("%eth0", not empty, no "%" or "/" in it) after an IPv6 address is dropped: it names an interface of this host,
 *     not a part of the address. Prefixes refuse it.
 * Text out follows RFC 5952; a mapped address prints as dotted IPv4. */
#ifndef GBF_ADDR_H
#define GBF_ADDR_H

#include "base/gbf_base.h"

typedef struct {
    uint64_t high, low; /* host-order halves, first octet in the top byte of `high` */
} gbf_addr;

__extension__ typedef unsigned __int128 gbf_u128;

#define GBF_ADDR_TEXT_BYTES 45 /* longest text of an address, no terminator */
#define GBF_MAPPED UINT64_C(0xFFFF00000000)

GBF_INLINE gbf_addr gbf_addr_from4(uint32_t address)
{
    return (gbf_addr){0, GBF_MAPPED | address};
}

GBF_INLINE int gbf_addr_is4(gbf_addr a)
{
    return a.high == 0 && a.low >> 32 == 0xFFFF;
}

GBF_INLINE gbf_addr gbf_addr_load(const uint8_t packed[16]) /* network order */
{
    return (gbf_addr){__builtin_bswap64(gbf_load64(packed)), __builtin_bswap64(gbf_load64(packed + 8))};
}

GBF_INLINE void gbf_addr_store(gbf_addr a, uint8_t packed[16])
{
    uint64_t high = __builtin_bswap64(a.high), low = __builtin_bswap64(a.low);
    memcpy(packed, &high, 8);
    memcpy(packed + 8, &low, 8);
}

GBF_INLINE gbf_u128 gbf_addr_number(gbf_addr a)
{
    return (gbf_u128)a.high << 64 | a.low;
}

GBF_INLINE gbf_addr gbf_addr_of(gbf_u128 number)
{
    return (gbf_addr){(uint64_t)(number >> 64), (uint64_t)number};
}

/* Host bits below a prefix of `bits` bits (0..128). */
GBF_INLINE gbf_u128 gbf_addr_hostmask(uint32_t bits)
{
    return bits == 0 ? ~(gbf_u128)0 : bits >= 128 ? 0 : ((gbf_u128)1 << (128 - bits)) - 1;
}

GBF_INLINE gbf_addr gbf_addr_masked(gbf_addr a, uint32_t bits)
{
    return gbf_addr_of(gbf_addr_number(a) & ~gbf_addr_hostmask(bits));
}

/* 1 and the IPv4 address that an IPv6 address carries: NAT64 64:ff9b::/96 (RFC 6052) and any /96 of 64:ff9b:1::/48 (RFC 8215,
 * local use), 6to4 2002::/16 (RFC 3056), Teredo 2001::/32 (RFC 4380, the client's address, stored inverted). 0 for any other
 * address. A translator may also embed behind 48, 56 or 64 bits of 64:ff9b:1::/48; the last three octets are zero then, or
 * octet 8 is not (which RFC 6052 forbids), and nothing is read. */
GBF_INLINE int gbf_addr_embedded4(gbf_addr a, uint32_t *address4)
{
    if (a.high == UINT64_C(0x0064FF9B00000000) && a.low >> 32 == 0)
        *address4 = (uint32_t)a.low;
    else if (a.high >> 16 == UINT64_C(0x0064FF9B0001) && a.low >> 56 == 0 && (a.low & 0xFFFFFF) != 0)
        *address4 = (uint32_t)a.low;
    else if (a.high >> 48 == 0x2002)
        *address4 = (uint32_t)(a.high >> 16);
    else if (a.high >> 32 == 0x20010000)
        *address4 = ~(uint32_t)a.low;
    else
        return 0;
    return 1;
}

/* The client behind an address, as a prefix (*bits is 128 or `bits6`): an IPv4 address itself, also one that is carried in
 * an IPv6 address, because the /64 of NAT64 holds the whole IPv4 Internet and that of Teredo all clients of a server; else
 * the IPv6 prefix of `bits6` bits (1..64), which is what one subscriber has. */
GBF_INLINE gbf_addr gbf_addr_client(gbf_addr a, uint32_t bits6, uint32_t *bits)
{
    uint32_t address4;
    *bits = 128;
    if (gbf_addr_is4(a))
        return a;
    if (gbf_addr_embedded4(a, &address4))
        return gbf_addr_from4(address4);
    *bits = bits6;
    return (gbf_addr){a.high & ~UINT64_C(0) << (64 - bits6), 0};
}

/* 1 and *out when the `n` bytes at `text` are an address; 0 otherwise. Reads nothing past text[n - 1]. This is the
 * reference parser: portable, one byte at a time. Kernels have faster ones that agree with it. */
int gbf_addr_parse(const char *text, size_t n, gbf_addr *out);

/* Why a prefix text was refused; GBF_PREFIX_FINE is zero. */
typedef enum {
    GBF_PREFIX_FINE = 0,
    GBF_PREFIX_BAD_ADDRESS, /* the part before "/" is not an address (zone ids included) */
    GBF_PREFIX_BAD_LENGTH,  /* the part after "/" is not a number of bits that this family has */
    GBF_PREFIX_HOST_BITS,   /* a well-formed prefix with host bits set; *address and *bits are the text's */
} gbf_prefix_problem;

/* "address/bits", or an address alone as a prefix of all its bits. On GBF_PREFIX_FINE *bits is 96 + n for IPv4. */
gbf_prefix_problem gbf_addr_parse_prefix(const char *text, size_t n, gbf_addr *address, uint32_t *bits);

/* Writes the RFC 5952 text (no terminator) and returns its length in bytes, at most GBF_ADDR_TEXT_BYTES. */
size_t gbf_addr_format(gbf_addr address, char *text);

#endif
