/* XDP program: drops packets by source address, by hash of hosts and longest-prefix match of prefixes, with expiry.
 *
 * One C file without a header of anyone's: `make bpf` compiles it for BPF (clang -target bpfel), and the object is shipped.
 * No BTF, no CO-RE: it reads packets alone, whose layout is on the wire. Maps are declared in section "maps" and made by
 * frontends/kernel/xdp.py, which says how large they are.
 *
 * Order: what cannot be read whole passes; allow entries; bans of hosts; bans of prefixes; and of a banned source, what must
 * never be dropped (DHCP, neighbour discovery, ports that are kept for administrators). ARP and all that is not IP passes by
 * its EtherType. Of a tunnel the outer address counts. IPv6 extension headers are not read: the address is before them.
 *
 * A wider ban in the maps never outlasts a narrower one (frontends/kernel/plan.py): an entry that has expired hides none.
 * With CAP_BPF and without CAP_PERFMON the verifier permits no pointer arithmetic but constants: so the program in xdp.frags
 * asks helpers of Linux 5.18 for the length of a frame and for what is behind a header of variable length, and there is a
 * copy of the code for each number of VLAN tags. The other program is for older kernels, and needs CAP_PERFMON, too.
 * Source: DESIGN.md, "Drops in the Linux kernel". */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

enum { XDP_DROP = 1, XDP_PASS = 2 };
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LPM_TRIE = 11, NO_PREALLOC = 1 };
enum { MODE_COUNT = 0, MODE_DROP = 1, FLAG_SYN_ONLY = 1, ALLOW_ALL = 1, ALLOW_PORTS = 2 };
enum { TCP = 6, UDP = 17, ICMP6 = 58, FRAGMENT6 = 44, KEEP_PORTS = 8, REASONS = 8 };

/* What became of a packet; frontends/kernel/maps.py names them in this order. REASON is the first of the reasons of bans. */
enum verdict {
    PASSED,
    DROPPED,
    COUNTED,
    ALLOWED,
    KEPT,
    DISARMED,
    ODD,
    EXEMPT,
    ESTABLISHED,
    REASON,
    VERDICTS = REASON + REASONS
};

struct map {
    u32 type, key_bytes, value_bytes, entries, flags;
};
struct config {
    u64 armed_until; /* ns of the boot clock; all bits: for good */
    u32 mode, flags;
    u16 ports[KEEP_PORTS]; /* host order, 0: none */
};
struct ban {
    u64 expires; /* ns of the boot clock; all bits: for good */
    u32 reason, generation;
    u64 hits;
};
struct count {
    u64 packets, bytes;
};
struct key4 {
    u32 bits, address;
};
struct key6 {
    u32 bits;
    u32 address[4];
};

struct ethernet {
    u8 to[6], from[6];
    u16 type;
};
struct vlan {
    u16 tag, type;
};
struct ip4 {
    u8 version_words, tos;
    u16 length, id, fragment;
    u8 ttl, protocol;
    u16 checksum;
    u32 from, to;
};
struct ip6 {
    u32 version_flow;
    u16 payload;
    u8 next, hops;
    u32 from[4], to[4];
};
struct ports {
    u16 from, to;
};
struct xdp_md {
    u32 data, data_end, data_meta, interface, queue, egress;
};

static void *(*const lookup)(const void *map, const void *key) = (void *)1;
static u64 (*const boot_ns)(void) = (void *)125;
static u64 (*const frame_bytes)(struct xdp_md *frame) = (void *)188;
static long (*const load_bytes)(struct xdp_md *frame, u32 offset, void *to, u32 bytes) = (void *)189;

SECTION("maps") struct map config = {MAP_ARRAY, sizeof(u32), sizeof(struct config), 1, 0};
SECTION("maps") struct map counts = {MAP_PERCPU_ARRAY, sizeof(u32), sizeof(struct count), VERDICTS, 0};
SECTION("maps") struct map allow4 = {MAP_LPM_TRIE, sizeof(struct key4), sizeof(u32), 0, NO_PREALLOC};
SECTION("maps") struct map allow6 = {MAP_LPM_TRIE, sizeof(struct key6), sizeof(u32), 0, NO_PREALLOC};
SECTION("maps") struct map host4 = {MAP_HASH, 4, sizeof(struct ban), 0, NO_PREALLOC};
SECTION("maps") struct map host6 = {MAP_HASH, 16, sizeof(struct ban), 0, NO_PREALLOC};
SECTION("maps") struct map client6 = {MAP_HASH, 8, sizeof(struct ban), 0, NO_PREALLOC}; /* a /64 */
SECTION("maps") struct map net4 = {MAP_LPM_TRIE, sizeof(struct key4), sizeof(struct ban), 0, NO_PREALLOC};
SECTION("maps") struct map net6 = {MAP_LPM_TRIE, sizeof(struct key6), sizeof(struct ban), 0, NO_PREALLOC};

SECTION("license") const char terms[] = "Apache-2.0";
#ifdef GBF_SOURCE
SECTION("source") const char built_of[] = GBF_SOURCE; /* BLAKE2b of this file: tests compare */
#endif

#define SWAP16(x) __builtin_bswap16(x)
#define SWAP32(x) __builtin_bswap32(x)

/* A packet as far as it was read. At `l4`, from the start of the frame, its header of TCP, UDP or ICMPv6 begins where `first`
 * says so: not in later fragments, nor behind IPv6 extension headers. */
struct packet {
    struct xdp_md *frame;
    u32 l4, bytes;
    u8 protocol, first, later_part;
};

INLINE int tell(u32 verdict, u32 bytes, int answer)
{
    struct count *count = lookup(&counts, &verdict);
    if (count != 0) {
        count->packets++;
        count->bytes += bytes;
    }
    return answer;
}

/* 0 once the first bytes of the header at `l4` are in `to`. */
INLINE long peek(const struct packet *packet, void *to, u32 bytes, int parts)
{
    if (!packet->first)
        return -1;
    if (parts)
        return load_bytes(packet->frame, packet->l4, to, bytes);
    u8 *at = (u8 *)(unsigned long)packet->frame->data + (packet->l4 & 127U);
    if (at + bytes > (u8 *)(unsigned long)packet->frame->data_end)
        return -1;
    __builtin_memcpy(to, at, bytes);
    return 0;
}

/* Whether a packet of a banned source must pass all the same: DHCP, neighbour discovery. */
INLINE int is_exempt(const struct packet *packet, int six, int parts)
{
    struct ports ports;
    u8 type;
    if (packet->protocol == UDP) {
        if (peek(packet, &ports, sizeof ports, parts) != 0)
            return 0;
        u16 from = SWAP16(ports.from), to = SWAP16(ports.to);
        return six ? (from == 546 || from == 547) && (to == 546 || to == 547)
                   : (from == 67 || from == 68) && (to == 67 || to == 68);
    }
    if (six && packet->protocol == ICMP6 && peek(packet, &type, 1, parts) == 0)
        return type >= 133 && type <= 137;
    return 0;
}

/* Whether it is for a kept port, or may be: parts of packets, and what cannot be read, are. */
INLINE int is_kept(const struct packet *packet, const struct config *settings, int parts)
{
    struct ports ports;
    if (packet->later_part)
        return 1;
    if (packet->protocol != TCP && packet->protocol != UDP)
        return 0;
    if (peek(packet, &ports, sizeof ports, parts) != 0)
        return 1;
    u16 to = SWAP16(ports.to);
#pragma unroll
    for (int i = 0; i < KEEP_PORTS; i++)
        if (settings->ports[i] == to && to != 0)
            return 1;
    return 0;
}

/* Whether it opens a TCP connection: SYN without ACK. */
INLINE int opens(const struct packet *packet, int parts)
{
    u8 header[14];
    return packet->protocol == TCP && peek(packet, header, sizeof header, parts) == 0 && (header[13] & 0x12) == 0x02;
}

INLINE int judge(const struct packet *packet, struct ban *ban, const u32 *allowed, u64 now, int six, int parts,
                 struct config *settings)
{
    u32 bytes = packet->bytes;
    if (is_exempt(packet, six, parts))
        return tell(EXEMPT, bytes, XDP_PASS);
    if (allowed != 0 && is_kept(packet, settings, parts))
        return tell(KEPT, bytes, XDP_PASS);
    if ((settings->flags & FLAG_SYN_ONLY) && !opens(packet, parts))
        return tell(ESTABLISHED, bytes, XDP_PASS);
    if (settings->armed_until <= now)
        return tell(DISARMED, bytes, XDP_PASS);
    __sync_fetch_and_add(&ban->hits, 1);
    tell(REASON + (ban->reason & (REASONS - 1)), bytes, 0);
    if (settings->mode != MODE_DROP)
        return tell(COUNTED, bytes, XDP_PASS);
    return tell(DROPPED, bytes, XDP_DROP);
}

/* An IPv4 packet behind `before` bytes of a frame of `bytes`. */
INLINE int read4(struct xdp_md *frame, const u32 before, u32 bytes, int parts, struct config *settings)
{
    struct ip4 *ip = (struct ip4 *)((u8 *)(unsigned long)frame->data + before);
    if ((u8 *)(ip + 1) > (u8 *)(unsigned long)frame->data_end)
        return tell(ODD, bytes, XDP_PASS);
    u32 header = (ip->version_words & 15U) * 4, length = SWAP16(ip->length);
    if (ip->version_words >> 4 != 4 || header < sizeof *ip || length < header || before + length > bytes)
        return tell(ODD, bytes, XDP_PASS);
    struct key4 key = {32, ip->from};
    u32 host = SWAP32(ip->from);
    if (host == 0 || host >> 16 == 0xA9FE) /* unspecified, 169.254.0.0/16 */
        return tell(EXEMPT, bytes, XDP_PASS);
    u16 fragment = SWAP16(ip->fragment) & 0x1FFF;
    struct packet packet = {frame, before + header, bytes, ip->protocol, fragment == 0, fragment != 0};
    u32 *allowed = lookup(&allow4, &key);
    if (allowed != 0 && *allowed == ALLOW_ALL)
        return tell(ALLOWED, bytes, XDP_PASS);
    u64 now = 0;
    struct ban *ban = lookup(&host4, &key.address);
    if (ban == 0 || ban->expires <= (now = boot_ns())) {
        ban = lookup(&net4, &key);
        if (ban == 0 || ban->expires <= (now = boot_ns()))
            return tell(PASSED, bytes, XDP_PASS);
    }
    return judge(&packet, ban, allowed, now, 0, parts, settings);
}

INLINE int read6(struct xdp_md *frame, const u32 before, u32 bytes, int parts, struct config *settings)
{
    struct ip6 *ip = (struct ip6 *)((u8 *)(unsigned long)frame->data + before);
    if ((u8 *)(ip + 1) > (u8 *)(unsigned long)frame->data_end)
        return tell(ODD, bytes, XDP_PASS);
    u32 length = sizeof *ip + SWAP16(ip->payload);
    if ((SWAP32(ip->version_flow) >> 28) != 6 || before + length > bytes)
        return tell(ODD, bytes, XDP_PASS);
    struct key6 key = {128, {ip->from[0], ip->from[1], ip->from[2], ip->from[3]}};
    if ((key.address[0] | key.address[1] | key.address[2] | key.address[3]) == 0 ||
        SWAP32(key.address[0]) >> 22 == 0x3FA) /* ::, fe80::/10 */
        return tell(EXEMPT, bytes, XDP_PASS);
    u8 next = ip->next;
    struct packet packet = {
        frame, before + sizeof *ip, bytes, next, next == TCP || next == UDP || next == ICMP6, next == FRAGMENT6};
    u32 *allowed = lookup(&allow6, &key);
    if (allowed != 0 && *allowed == ALLOW_ALL)
        return tell(ALLOWED, bytes, XDP_PASS);
    u64 now = 0;
    struct ban *ban = lookup(&client6, key.address);
    if (ban == 0 || ban->expires <= (now = boot_ns())) {
        ban = lookup(&host6, key.address);
        if (ban == 0 || ban->expires <= (now = boot_ns())) {
            ban = lookup(&net6, &key);
            if (ban == 0 || ban->expires <= (now = boot_ns()))
                return tell(PASSED, bytes, XDP_PASS);
        }
    }
    return judge(&packet, ban, allowed, now, 1, parts, settings);
}

INLINE int read(struct xdp_md *frame, u16 type, const u32 before, u32 bytes, int parts, struct config *settings)
{
    if (type == SWAP16(0x0800))
        return read4(frame, before, bytes, parts, settings);
    if (type == SWAP16(0x86DD))
        return read6(frame, before, bytes, parts, settings);
    return tell(EXEMPT, bytes, XDP_PASS);
}

INLINE int decide(struct xdp_md *frame, int parts)
{
    u8 *data = (u8 *)(unsigned long)frame->data, *end = (u8 *)(unsigned long)frame->data_end;
    u32 zero = 0, bytes = parts ? (u32)frame_bytes(frame) : (u32)(end - data);
    struct config *settings = lookup(&config, &zero);
    struct ethernet *ethernet = (struct ethernet *)data;
    struct vlan *outer = (struct vlan *)(data + sizeof *ethernet), *inner = outer + 1;
    if (settings == 0)
        return XDP_PASS;
    if ((u8 *)(ethernet + 1) > end)
        return tell(ODD, bytes, XDP_PASS);
    u16 type = ethernet->type;
    if (type != SWAP16(0x8100) && type != SWAP16(0x88A8))
        return read(frame, type, sizeof *ethernet, bytes, parts, settings);
    if ((u8 *)(outer + 1) > end)
        return tell(ODD, bytes, XDP_PASS);
    type = outer->type;
    if (type != SWAP16(0x8100) && type != SWAP16(0x88A8))
        return read(frame, type, sizeof *ethernet + sizeof *outer, bytes, parts, settings);
    if ((u8 *)(inner + 1) > end)
        return tell(ODD, bytes, XDP_PASS);
    return read(frame, inner->type, sizeof *ethernet + sizeof *outer + sizeof *inner, bytes, parts, settings);
}

SECTION("xdp.frags") int gbf_parts(struct xdp_md *frame)
{
    return decide(frame, 1); /* also of drivers that hand on large packets in several buffers; Linux 5.18 */
}

SECTION("xdp") int gbf_linear(struct xdp_md *frame)
{
    return decide(frame, 0);
}
