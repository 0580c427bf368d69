#include "address/gbf_set.h"
#include "base/gbf_cpu.h"

#include <stdlib.h>

enum {
    IDX4 = GBF_TAG('I', 'D', 'X', '4'),
    BND4 = GBF_TAG('B', 'N', 'D', '4'),
    TOP6 = GBF_TAG('T', 'O', 'P', '6'),
    HIG6 = GBF_TAG('H', 'I', 'G', '6'),
    LOW6 = GBF_TAG('L', 'O', 'W', '6'),
};

extern const gbf_set_kernel gbf_set_avx512, gbf_set_v2, gbf_set_scalar;

const gbf_set_kernel *gbf_set_pick(uint32_t features)
{
    static const gbf_set_kernel *const kernels[] = {
#if defined(__x86_64__)
        &gbf_set_avx512,
        &gbf_set_v2,
#endif
        &gbf_set_scalar,
    };
    int i = 0;
    while (kernels[i]->needs & ~features) /* "scalar" needs nothing */
        i++;
    return kernels[i];
}

/* Bounds of one family: range starts, without the first when the family begins outside. */
typedef struct {
    gbf_range *ranges; /* owned */
    const gbf_range *bounds;
    uint64_t count;
} family_bounds;

static gbf_status bounds_of(const gbf_prefix_item *items, uint64_t count, int family, family_bounds *out)
{
    gbf_status status = gbf_prefix_cut(items, count, family, &out->ranges, &out->count);
    if (status == GBF_OK) {
        uint64_t outside = out->ranges[0].leaf == GBF_NONE;
        out->bounds = out->ranges + outside;
        out->count -= outside;
    }
    return status;
}

/* Arrays of the block; one allocation each. */
typedef struct {
    uint32_t *index4;
    uint16_t *bounds4;
    uint64_t *top6, *high6, *low6;
} arrays;

static void fill4(const arrays *a, const family_bounds *v4)
{
    uint64_t i = 0;
    for (uint64_t b = 0; b < GBF_SET_BUCKETS; b++) {
        a->index4[b] = (uint32_t)i;
        for (; i < v4->count && v4->bounds[i].start.high >> 48 == b; i++)
            a->bounds4[i] = (uint16_t)(v4->bounds[i].start.high >> 32);
    }
    a->index4[GBF_SET_BUCKETS] = (uint32_t)i;
    memset(a->bounds4 + i, 0xFF, GBF_SET_PAD * sizeof *a->bounds4);
}

/* Returns how many lower halves are worth keeping: all or none. */
static uint64_t fill6(const arrays *a, const family_bounds *v6)
{
    uint64_t low = 0;
    for (uint64_t i = 0; i < v6->count; i++) {
        a->high6[i] = v6->bounds[i].start.high;
        a->low6[i] = v6->bounds[i].start.low;
        low |= a->low6[i];
        if (i % GBF_SET_STRIDE == 0)
            a->top6[i / GBF_SET_STRIDE] = a->high6[i];
    }
    return low != 0 ? v6->count : 0;
}

static gbf_status write_block(const family_bounds *v4, const family_bounds *v6, void **block)
{
    uint64_t groups = (v6->count + GBF_SET_STRIDE - 1) / GBF_SET_STRIDE, bounds4 = v4->count + GBF_SET_PAD;
    arrays a = {
        malloc((GBF_SET_BUCKETS + 1) * sizeof *a.index4),
        malloc(bounds4 * sizeof *a.bounds4),
        malloc((groups + 1) * sizeof *a.top6),
        malloc((v6->count + 1) * sizeof *a.high6),
        malloc((v6->count + 1) * sizeof *a.low6),
    };
    gbf_status status = GBF_NO_MEMORY;
    if (a.index4 != NULL && a.bounds4 != NULL && a.top6 != NULL && a.high6 != NULL && a.low6 != NULL) {
        fill4(&a, v4);
        uint64_t lows = fill6(&a, v6);
        const gbf_part parts[] = {
            {IDX4, 4, a.index4, 4 * (GBF_SET_BUCKETS + 1)},
            {BND4, 2, a.bounds4, 2 * bounds4},
            {TOP6, 8, a.top6, 8 * groups},
            {HIG6, 8, a.high6, 8 * v6->count},
            {LOW6, 8, a.low6, 8 * lows},
        };
        status = gbf_block_build(parts, sizeof parts / sizeof *parts, GBF_SET_KIND, block);
    }
    free(a.index4);
    free(a.bounds4);
    free(a.top6);
    free(a.high6);
    free(a.low6);
    return status;
}

gbf_status gbf_set_build(gbf_prefix_item *items, uint64_t count, void **block, gbf_fault *fault)
{
    family_bounds v4 = {0}, v6 = {0};
    gbf_status status;
    for (uint64_t i = 0; i < count; i++)
        items[i].value = 0; /* all alike, so that whatever touches merges */
    if ((status = gbf_prefix_sort(items, &count, fault)) == GBF_OK &&
        (status = bounds_of(items, count, 4, &v4)) == GBF_OK && (status = bounds_of(items, count, 6, &v6)) == GBF_OK)
        status = v4.count <= UINT32_MAX ? write_block(&v4, &v6, block) : GBF_NO_MEMORY;
    free(v4.ranges);
    free(v6.ranges);
    return status;
}

gbf_status gbf_set_open(gbf_set *set, const void *block, uint64_t nbytes, int check_hash, const gbf_set_kernel *kernel,
                        gbf_fault *fault)
{
    gbf_status status = gbf_block_open(block, nbytes, GBF_SET_KIND, check_hash, fault);
    if (status != GBF_OK)
        return status;
    uint64_t buckets, bounds4, groups, lows;
    gbf_set s = {0};
    s.index4 = gbf_block_section(block, IDX4, 4, &buckets);
    s.bounds4 = gbf_block_section(block, BND4, 2, &bounds4);
    s.top6 = gbf_block_section(block, TOP6, 8, &groups);
    s.high6 = gbf_block_section(block, HIG6, 8, &s.count6);
    s.low6 = gbf_block_section(block, LOW6, 8, &lows);
    if (s.index4 == NULL || s.bounds4 == NULL || s.top6 == NULL || s.high6 == NULL || s.low6 == NULL)
        return gbf_refuse(fault, GBF_BAD_FORMAT, "a section of the prefix set is missing", 64);
    if (buckets != GBF_SET_BUCKETS + 1 || bounds4 < GBF_SET_PAD ||
        groups != s.count6 / GBF_SET_STRIDE + (s.count6 % GBF_SET_STRIDE != 0) || (lows != 0 && lows != s.count6))
        return gbf_refuse(fault, GBF_BAD_FORMAT, "sections of the prefix set have impossible sizes", 64);
    s.count4 = bounds4 - GBF_SET_PAD;
    if (lows == 0)
        s.low6 = NULL;
    if ((status = kernel->verify(&s, fault)) != GBF_OK)
        return status;
    *set = s;
    return GBF_OK;
}

/* ---- iteration ----------------------------------------------------------------------------------------------- */

/* Bound number cursor->bound as an address, and on to the next; `end` when there is no further one. */
static gbf_addr take_bound(const gbf_set *s, gbf_set_cursor *c, gbf_addr end)
{
    uint64_t i = c->bound++;
    if (i >= (c->in_v6 ? s->count6 : s->count4))
        return end;
    if (c->in_v6)
        return (gbf_addr){s->high6[i], s->low6 == NULL ? 0 : s->low6[i]};
    while (s->index4[c->bucket + 1] <= i)
        c->bucket++;
    return gbf_addr_from4(c->bucket << 16 | s->bounds4[i]);
}

static uint32_t low_zeros(gbf_u128 number) /* not 0 */
{
    return (uint64_t)number != 0 ? (uint32_t)__builtin_ctzll((uint64_t)number)
                                 : 64 + (uint32_t)__builtin_ctzll((uint64_t)(number >> 64));
}

int gbf_set_next(const gbf_set *s, gbf_set_cursor *c)
{
    while (!c->in_range) {
        if (c->bound >= (c->in_v6 ? s->count6 : s->count4)) {
            if (c->in_v6)
                return 0;
            c->in_v6 = 1;
            c->bound = 0;
            continue;
        }
        c->first = take_bound(s, c, (gbf_addr){0, 0});
        gbf_addr end =
            take_bound(s, c, c->in_v6 ? (gbf_addr){0, 0} : gbf_addr_of((gbf_u128)GBF_MAPPED + (UINT64_C(1) << 32)));
        c->last = gbf_addr_of(gbf_addr_number(end) - 1); /* 0 stands for 2^128 */
        c->in_range = 1;
    }
    /* The widest prefix that starts here and does not reach past the end. A mapped address has bit 32 set, so an IPv4
     * prefix has at most 32 host bits. */
    gbf_u128 first = gbf_addr_number(c->first), last = gbf_addr_number(c->last);
    uint32_t host = first == 0 ? 128 : low_zeros(first);
    while ((gbf_addr_hostmask(128 - host) | first) > last)
        host--;
    c->address = c->first;
    c->bits = 128 - host;
    gbf_u128 next = (first | gbf_addr_hostmask(c->bits)) + 1;
    c->in_range = next - 1 != last;
    c->first = gbf_addr_of(next);
    return 1;
}
