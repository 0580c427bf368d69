/* Compiles what stands between BEGIN and END for more instructions than the baseline has. Only functions behind a
 * feature check may be called from outside. Headers included in between must hold static functions only. */
#ifndef GBF_TARGET_H
#define GBF_TARGET_H

/* System headers first, so that none of their functions is compiled for the wider target. */
#include "base/gbf_base.h"
#include <immintrin.h>

#define GBF_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define GBF_TARGET_BEGIN(isa) GBF_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define GBF_TARGET_END GBF_PRAGMA(clang attribute pop)
#else
#define GBF_TARGET_BEGIN(isa) GBF_PRAGMA(GCC push_options) GBF_PRAGMA(GCC target(isa))
#define GBF_TARGET_END GBF_PRAGMA(GCC pop_options)
#endif

#endif
