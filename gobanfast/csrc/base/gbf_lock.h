/* A lock of four bytes for live state: held for tens of nanoseconds, by whoever writes.
 *
 * Zero bytes are an open lock, so memory from calloc needs no setup. Not recursive, no owner, no queue. The one who
 * holds it never calls Python, never allocates and never waits, hence a thread that finds it taken is served within a
 * few loads unless the holder lost its CPU: after GBF_LOCK_SPINS looks it yields its own at every further one.
 *
 * Fork: a child inherits the lock as it stood, and the thread that would open it is gone. Whoever forks must not hold it
 * from a hook of os.register_at_fork: other Python threads would spin on it with the GIL, which the hooks need to go on.
 * So either a Python lock, whose waiters let go of the GIL, is taken around every use, and by the hook (bans); or the child
 * finds the lock taken, opens it and clears what it guarded, if that may be lost. C code that forks behind Python's back
 * must exec. */
#ifndef GBF_LOCK_H
#define GBF_LOCK_H

#include <sched.h>
#include <stdatomic.h>

#include "base/gbf_base.h"

#define GBF_LOCK_SPINS 64

typedef struct {
    _Atomic uint32_t taken;
} gbf_lock;

GBF_INLINE void gbf_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory"); /* `yield` is a no-op on cores without SMT */
#endif
}

/* 1 when the lock was open and now is ours. */
GBF_INLINE int gbf_lock_try(gbf_lock *lock)
{
    return atomic_load_explicit(&lock->taken, memory_order_relaxed) == 0 &&
           atomic_exchange_explicit(&lock->taken, 1, memory_order_acquire) == 0;
}

GBF_INLINE void gbf_lock_take(gbf_lock *lock)
{
    for (uint32_t looks = 0; !gbf_lock_try(lock); looks++) {
        if (looks < GBF_LOCK_SPINS)
            gbf_pause();
        else
            sched_yield();
    }
}

GBF_INLINE void gbf_lock_open(gbf_lock *lock)
{
    atomic_store_explicit(&lock->taken, 0, memory_order_release);
}

#endif
