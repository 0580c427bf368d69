#include "http/gbf_origin.h"

#include "address/gbf_addr.h"

static int set_address(gbf_origin *o, const char *text, size_t nbytes)
{
    memcpy(o->name.text, text, nbytes);
    memset(o->name.dots, 0, sizeof o->name.dots);
    o->name.nbytes = (uint32_t)nbytes;
    o->address = 1;
    return 1;
}

int gbf_origin_address4(gbf_origin *o, const uint8_t *text, uint32_t n)
{
    gbf_addr address;
    if (n > 15 || memchr(text, ':', n) != NULL || !gbf_addr_parse((const char *)text, n, &address))
        return 0;
    return set_address(o, (const char *)text, n);
}

/* As the URL standard writes it: hexadecimal throughout, where gbf_addr_format writes a mapped address with dots. */
static size_t format6(gbf_addr address, char *text)
{
    static const char digits[] = "0123456789abcdef";
    if (!gbf_addr_is4(address))
        return gbf_addr_format(address, text);
    size_t n = 7;
    memcpy(text, "::ffff:", n);
    for (int half = 16; half >= 0; half -= 16) {
        uint32_t group = (uint32_t)(address.low >> half) & 0xFFFF;
        for (int shift = group > 0xFFF ? 12 : group > 0xFF ? 8 : group > 0xF ? 4 : 0; shift >= 0; shift -= 4)
            text[n++] = digits[group >> shift & 15];
        if (half != 0)
            text[n++] = ':';
    }
    return n;
}

int gbf_origin_address6(gbf_origin *o, const uint8_t *text, uint32_t n, int canonical)
{
    char known[GBF_ADDR_TEXT_BYTES + 2] = "[";
    gbf_addr address;
    if (n < 4 || n > sizeof known || text[n - 1] != ']' || memchr(text, ':', n) == NULL ||
        memchr(text, '%', n) != NULL || !gbf_addr_parse((const char *)text + 1, n - 2, &address))
        return 0;
    size_t nbytes = format6(address, known + 1) + 1;
    known[nbytes++] = ']';
    if (canonical && (nbytes != n || memcmp(known, text, n) != 0))
        return 0;
    return set_address(o, known, nbytes);
}

uint32_t gbf_origin_scheme_read(const uint8_t *text, uint32_t n, uint32_t *default_port)
{
    uint32_t at = 0, most = n < GBF_SCHEME_MAX ? n : GBF_SCHEME_MAX;
    while (at < most) {
        uint8_t c = text[at];
        int letter = (uint8_t)(c - 'a') < 26, more = (uint8_t)(c - '0') <= 9 || c == '+' || c == '-' || c == '.';
        if (!letter && (at == 0 || !more))
            break;
        at++;
    }
    if (at == 0 || n - at < 3 || memcmp(text + at, "://", 3) != 0)
        return 0;
    static const struct {
        char name[8];
        uint32_t nbytes, port;
    } special[] = {{"http", 4, 80}, {"https", 5, 443}, {"ws", 2, 80}, {"wss", 3, 443}, {"ftp", 3, 21}};
    *default_port = GBF_PORT_NONE;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (at == special[i].nbytes && memcmp(text, special[i].name, at) == 0)
            *default_port = special[i].port;
    return at;
}

/* Runs of slots end inside the table, and soon: a longer one is not the work of a keyed hash. */
enum { RUN_MAX = 256 };

static int row_holds(const gbf_origins *t, const gbf_origin_row *row)
{
    return row->port <= GBF_PORT_ANY && row->exact - 1u < t->class_count - 1 && row->one - 1u < t->class_count - 1 &&
           row->many - 1u < t->class_count - 1;
}

static int entry_holds(const gbf_origins *t, const gbf_origin_entry *e)
{
    if (e->nbytes > GBF_NAME_MAX || (e->scheme & 127u) >= (t->head.hosts ? 1 : t->scheme_count))
        return 0;
    if (e->nbytes > GBF_ENTRY_TEXT && gbf_load32(e->text) + (uint64_t)e->nbytes > t->text_nbytes)
        return 0;
    if (e->row_count == 1)
        return row_holds(t, &e->row);
    return e->row_count != 0 && e->row.port + (uint64_t)e->row_count <= t->row_count;
}

static gbf_status check_indices(const gbf_origins *t, const uint8_t *block, gbf_fault *fault)
{
    uint32_t run = 0;
    for (uint64_t i = 0; i < t->slot_count; i++) {
        const gbf_origin_entry *e = &t->slots[i];
        run = e->nbytes != 0 ? run + 1 : 0;
        if (run > RUN_MAX || (e->nbytes != 0 && (i + 1 == t->slot_count || !entry_holds(t, e))))
            return gbf_refuse(fault, GBF_BAD_FORMAT, "origin entry is damaged", (uint64_t)((const uint8_t *)e - block));
    }
    for (uint64_t i = 0; i < t->row_count; i++)
        if (!row_holds(t, &t->rows[i]))
            return gbf_refuse(fault, GBF_BAD_FORMAT, "origin row is damaged",
                              (uint64_t)((const uint8_t *)&t->rows[i] - block));
    for (uint64_t i = 0; i < t->scheme_count; i++)
        if (t->schemes[i].nbytes - 1u >= GBF_SCHEME_MAX)
            return gbf_refuse(fault, GBF_BAD_FORMAT, "origin scheme is damaged",
                              (uint64_t)((const uint8_t *)&t->schemes[i] - block));
    for (uint64_t i = 0; i < t->class_count; i++)
        if (t->sets[i] > t->sets[i + 1] || (i < 2 && t->sets[i + 1] != 0))
            return gbf_refuse(fault, GBF_BAD_FORMAT, "origin groups are damaged",
                              (uint64_t)((const uint8_t *)&t->sets[i] - block));
    return GBF_OK;
}

gbf_status gbf_origins_open(gbf_origins *origins, const void *block, uint64_t nbytes, int verify,
                            const gbf_name_kernel *kernel, gbf_fault *fault)
{
    gbf_status status = gbf_block_open(block, nbytes, GBF_KIND_ORIGIN, verify, fault);
    if (status != GBF_OK)
        return status;
    gbf_origins t;
    uint64_t heads, bounds;
    const gbf_origin_head *head = gbf_block_section(block, GBF_TAG('H', 'E', 'A', 'D'), sizeof *head, &heads);
    t.slots = gbf_block_section(block, GBF_TAG('S', 'L', 'O', 'T'), sizeof *t.slots, &t.slot_count);
    t.rows = gbf_block_section(block, GBF_TAG('R', 'O', 'W', 'S'), sizeof *t.rows, &t.row_count);
    t.text = gbf_block_section(block, GBF_TAG('T', 'E', 'X', 'T'), 1, &t.text_nbytes);
    t.schemes = gbf_block_section(block, GBF_TAG('S', 'C', 'H', 'M'), sizeof *t.schemes, &t.scheme_count);
    t.sets = gbf_block_section(block, GBF_TAG('S', 'E', 'T', 'S'), sizeof *t.sets, &bounds);
    t.groups = gbf_block_section(block, GBF_TAG('G', 'R', 'P', 'S'), sizeof *t.groups, &t.group_count);
    if (heads != 1 || t.slot_count == 0 || bounds < 3)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "origin sections are missing", 64);
    t.head = *head;
    t.class_count = bounds - 1;
    t.fold = kernel->fold;
    if (t.head.home == 0 || t.head.home >= t.slot_count || t.head.hosts > 1 || t.scheme_count > GBF_SCHEMES_MAX ||
        t.head.unmatched - 1u >= t.class_count - 1 || t.sets[0] != 0 || t.sets[t.class_count] != t.group_count)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "origin header is damaged",
                          (uint64_t)((const uint8_t *)head - (const uint8_t *)block));
    status = check_indices(&t, block, fault);
    if (status == GBF_OK)
        *origins = t;
    return status;
}
