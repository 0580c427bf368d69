/* Per-thread pool of the operating system's random bytes (getrandom), 4 KiB at a time.
 *
 * No lock and no shared position: a thread takes from its own pool. A child of fork has a copy of one thread's pool, so
 * whoever forks calls gbf_random_forked() in the child, and every pool filled before is thrown away. A byte is given out
 * once. There is no other source: when the system has none, the caller gets the error. See DESIGN.md, "Trace ids". */
#ifndef GBF_RANDOM_H
#define GBF_RANDOM_H

#include "base/gbf_base.h"

enum { GBF_RANDOM_POOL = 4096 };

/* Fills `out` with `nbytes`, at most GBF_RANDOM_POOL; 0, or the errno of getrandom, and then `out` is as it was. */
int gbf_random_take(uint8_t *out, uint32_t nbytes);

/* 8 bytes, or 16 whose last 7 are random and not all zero, hence no id of zeros either. 0, or an errno. */
int gbf_random_span_id(uint8_t *out);
int gbf_random_trace_id(uint8_t *out);

void gbf_random_forked(void);

#endif
