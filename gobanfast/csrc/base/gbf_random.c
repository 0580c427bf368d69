#define _GNU_SOURCE /* syscall: the wrapper of getrandom is younger than the oldest C library that wheels are for */
#include "base/gbf_random.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_getrandom
#if defined(__x86_64__)
#define SYS_getrandom 318
#elif defined(__aarch64__)
#define SYS_getrandom 278
#endif
#endif

static _Atomic uint32_t forks; /* of this process and those before it */

static _Thread_local struct {
    uint32_t left, forks;
    uint8_t bytes[GBF_RANDOM_POOL];
} pool;

static int fill(void)
{
    uint32_t had = 0;
    while (had < GBF_RANDOM_POOL) {
        long got = syscall(SYS_getrandom, pool.bytes + had, (size_t)(GBF_RANDOM_POOL - had), 0U);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            pool.left = 0;
            return got < 0 ? errno : EIO;
        }
        had += (uint32_t)got;
    }
    pool.left = GBF_RANDOM_POOL;
    return 0;
}

int gbf_random_take(uint8_t *out, uint32_t nbytes)
{
    uint32_t now = atomic_load_explicit(&forks, memory_order_relaxed);
    if (pool.forks != now || pool.left < nbytes) {
        pool.left = 0;
        int error = fill();
        if (error != 0)
            return error;
        pool.forks = now;
    }
    pool.left -= nbytes;
    uint8_t *taken = pool.bytes + pool.left;
    memcpy(out, taken, nbytes);
    memset(taken, 0, nbytes); /* a core dump tells no id that is not in use */
    return 0;
}

int gbf_random_span_id(uint8_t *out)
{
    int error;
    do
        error = gbf_random_take(out, 8);
    while (error == 0 && gbf_load64(out) == 0);
    return error;
}

int gbf_random_trace_id(uint8_t *out)
{
    int error;
    do
        error = gbf_random_take(out, 16);
    while (error == 0 && gbf_load64(out + 8) >> 8 == 0); /* bytes 9 to 15, of a little-endian word */
    return error;
}

void gbf_random_forked(void)
{
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
}
