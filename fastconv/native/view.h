/* Reading arrays where they lie: any strides, alignment and byte order, a block at a time.
 *
 * A view is made once per call (kernels/view.pxi). Nothing here copies more than the block asked for.
 */
#ifndef FC_VIEW_H
#define FC_VIEW_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FC_MAX_DIMS 64

typedef struct {
    const char *data;
    ptrdiff_t size;      /* number of elements */
    int ndim;            /* after merging axes that lie behind one another */
    int swap;            /* bytes are in the other order */
    int direct;          /* rows along the last axis can be used as they are: native, aligned, unit stride */
    ptrdiff_t shape[FC_MAX_DIMS];
    ptrdiff_t stride[FC_MAX_DIMS]; /* in bytes */
} fc_view;

/* Merge axes of a view in place and find out whether its rows are usable as they are. */
static inline void fc_view_normalise(fc_view *v, ptrdiff_t itemsize)
{
    int out = 0;
    v->size = 1;
    for (int i = 0; i < v->ndim; i++) {
        v->size *= v->shape[i];
        if (v->shape[i] == 1) continue;
        if (out && v->stride[out - 1] == v->shape[i] * v->stride[i]) {
            v->shape[out - 1] *= v->shape[i];
            v->stride[out - 1] = v->stride[i];
        } else {
            v->shape[out] = v->shape[i];
            v->stride[out] = v->stride[i];
            out++;
        }
    }
    if (out == 0) {
        v->shape[0] = 1;
        v->stride[0] = itemsize;
        out = 1;
    }
    v->ndim = out;
    v->direct = !v->swap && v->stride[out - 1] == itemsize && (uintptr_t)v->data % (uintptr_t)itemsize == 0;
    for (int i = 0; i < out; i++)
        if (v->stride[i] % itemsize) v->direct = 0;
}

static inline uint32_t fc_load_bits32(const char *p, int swap)
{
    uint32_t u;
    memcpy(&u, p, 4);
    return swap ? __builtin_bswap32(u) : u;
}

static inline uint64_t fc_load_bits64(const char *p, int swap)
{
    uint64_t u;
    memcpy(&u, p, 8);
    return swap ? __builtin_bswap64(u) : u;
}
#endif

#ifdef REAL
/* Copy `count` elements that lie `stride` bytes apart into contiguous native memory. */
INLINE void NAME(copy_row)(REAL *dst, const char *src, ptrdiff_t count, ptrdiff_t stride, int swap)
{
    if (!swap && stride == (ptrdiff_t)sizeof(REAL)) {
        memcpy(dst, src, (size_t)count * sizeof(REAL));
        return;
    }
    for (ptrdiff_t i = 0; i < count; i++, src += stride) {
#if REAL_BYTES == 4
        uint32_t u = fc_load_bits32(src, swap);
#else
        uint64_t u = fc_load_bits64(src, swap);
#endif
        memcpy(dst + i, &u, sizeof(REAL));
    }
}

/* Elements [start, start + count) in C order: a pointer into the array where they lie together, else a copy in `buffer`. */
static const REAL *NAME(view_fetch)(const fc_view *v, ptrdiff_t start, ptrdiff_t count, REAL *buffer)
{
    int last = v->ndim - 1;
    ptrdiff_t row = v->shape[last], index[FC_MAX_DIMS], rest;
    if (count <= 0) return buffer;
    ptrdiff_t column = start % row;
    rest = start / row;
    const char *p = v->data;
    for (int i = last - 1; i >= 0; i--) {
        index[i] = rest % v->shape[i];
        rest /= v->shape[i];
        p += index[i] * v->stride[i];
    }
    if (v->direct && column + count <= row) return (const REAL *)(p + column * v->stride[last]);
    REAL *dst = buffer;
    while (1) {
        ptrdiff_t n = row - column < count ? row - column : count;
        NAME(copy_row)(dst, p + column * v->stride[last], n, v->stride[last], v->swap);
        dst += n;
        count -= n;
        if (!count) return buffer;
        column = 0;
        for (int i = last - 1; i >= 0; i--) { /* the next row, like an odometer */
            p += v->stride[i];
            if (++index[i] < v->shape[i]) break;
            p -= index[i] * v->stride[i];
            index[i] = 0;
        }
    }
}
#endif
