/* Common base of the kernels: attributes, byte order, prefetch, status codes.
 *
 * Kernels never include Python.h, never print, never abort. Builders allocate with malloc and hand
 * the memory to the caller; lookups allocate nothing and cannot fail. */
#ifndef GBF_BASE_H
#define GBF_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/gbf_enums.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "gobanfast blocks are little-endian and this compiler targets a big-endian machine"
#endif

#define GBF_INLINE static inline __attribute__((always_inline))
#define GBF_LIKELY(x) __builtin_expect(!!(x), 1)
#define GBF_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define GBF_PREFETCH(p) __builtin_prefetch((p), 0, 3)

typedef enum {
    GBF_OK = 0,
    GBF_NO_MEMORY,  /* malloc said no */
    GBF_BAD_FORMAT, /* a block that cannot be trusted; see gbf_fault */
    GBF_BAD_INPUT,  /* an argument a builder cannot use; see gbf_fault */
} gbf_status;

/* Where and why a block or an input was refused. `what` is a constant string. */
typedef struct {
    const char *what;
    uint64_t offset; /* bytes from the start of the block, or index of the input item */
} gbf_fault;

GBF_INLINE gbf_status gbf_refuse(gbf_fault *fault, gbf_status status, const char *what, uint64_t offset)
{
    fault->what = what;
    fault->offset = offset;
    return status;
}

GBF_INLINE uint32_t gbf_load32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

GBF_INLINE uint64_t gbf_load64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif
