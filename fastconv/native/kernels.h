/* Everything compiled in C, once for float and once for double. */
#ifndef FC_KERNELS_H
#define FC_KERNELS_H
#include "arena.h"
#include "geometry.h"

#define NAME(x) FC_PASTE(x, SUFFIX)

#define REAL float
#define REAL_BYTES 4
#define SUFFIX _f32
#include "families.h"
#undef REAL
#undef REAL_BYTES
#undef SUFFIX

#define REAL double
#define REAL_BYTES 8
#define SUFFIX _f64
#include "families.h"
#undef REAL
#undef REAL_BYTES
#undef SUFFIX
#endif
