/* What the element kernels share: loops over lanes with partial ends, lane numbers, de-interleaving, square roots.
 *
 * Every loop treats its last, partial vector by the same code as the others, so that an element's bits do not depend on its
 * distance from the end. Inputs are fetched FC_BLOCK elements at a time.
 */
#ifndef FC_LANES_COMMON
#define FC_LANES_COMMON
#include <math.h>

/* Elements fetched at once where a view cannot be used as it lies: 4 or 8 KB of stack a buffer, two or three of which stay in L1. */
#define FC_BLOCK 1024

/* for every vector of n elements: i is its first element, left how many remain */
#define FOR_LANES(i, n) for (ix i = 0, left; (left = (n) - i) > 0; i += VL)
#define TAKE(p) (left >= VL ? READ(p) : LOADN(p, left))
#define TAKE_OR(p, fill) (left >= VL ? READ(p) : SELECT(NAME(lane_numbers)() < (INT)left, LOADN(p, left), fill))
#define PUT(p, v) do { if (left >= VL) STORE(p, v); else STOREN(p, v, left); } while (0)

/* The same with the body written twice, for whole vectors without asking how many remain. Only for bodies without a multiplication that feeds an addition,
 * which a compiler might contract in one copy and not in the other. */
#define EACH_LANES(i, n, ...)                                                                                                                          \
    do {                                                                                                                                               \
        ix i = 0;                                                                                                                                      \
        for (; i + VL <= (n); i += VL) { const ix left = VL; __VA_ARGS__ }                                                                             \
        if (i < (n)) { const ix left = (n) - i; __VA_ARGS__ }                                                                                          \
    } while (0)

/* The same for results: `out` is where element 0 goes, the body writes by PUT_OUT, `stream` says whether past the caches. Unless they are few, vectors begin where
 * one does in memory: one that lies in two lines takes as long as two. What is streamed is written as it is made, in step with what is read: by way of a buffer,
 * which alternates between much reading and much writing, a large result takes up to 1.4 times as long. */
#define EACH_LANES_OUT(i, n, out, stream, ...)                                                                                                         \
    do {                                                                                                                                               \
        ix i = 0, head_ = (stream) || (n) >= 4 * VL ? FC_MIN(NAME(before_vector)(out), (ix)(n)) : 0;                                                   \
        if (head_) { const ix left = head_; const int past = 0; __VA_ARGS__ i = head_; }                                                               \
        if (stream)                                                                                                                                    \
            for (; i + VL <= (n); i += VL) { const ix left = VL; const int past = 1; __VA_ARGS__ }                                                     \
        else                                                                                                                                           \
            for (; i + VL <= (n); i += VL) { const ix left = VL; const int past = 0; __VA_ARGS__ }                                                     \
        if (i < (n)) { const ix left = (n) - i; const int past = 0; __VA_ARGS__ }                                                                      \
    } while (0)
#define PUT_OUT(p, v) do { if (past) STREAM(p, v); else PUT(p, v); } while (0)

/* for every block of `count` elements: at is its first element, n its length */
#define FOR_BLOCKS(at, n, count) for (ix at = 0, n; (n = FC_MIN((ix)FC_BLOCK, (count) - at)) > 0; at += FC_BLOCK)

/* int64 arrays are read by the functions for double, which move bits (the definition follows with that type's templates) */
static const double *view_fetch_f64(const fc_view *v, ptrdiff_t start, ptrdiff_t count, double *buffer);
static inline const int64_t *fc_fetch_int64(const fc_view *v, ptrdiff_t start, ptrdiff_t count, int64_t *buffer)
{
    return (const int64_t *)view_fetch_f64(v, start, count, (double *)buffer);
}

/* A long sum of few parts: two-sum keeps what rounding loses. Infinite and NaN totals have no remainder. */
typedef struct { double sum, rest; } fc_total;
static inline void fc_total_add(fc_total *t, double v)
{
    double sum = t->sum + v, back = sum - t->sum;
    t->rest += (t->sum - (sum - back)) + (v - back);
    t->sum = sum;
}
static inline double fc_total_value(const fc_total *t)
{
    return isfinite(t->sum) ? t->sum + t->rest : t->sum;
}

/* After the last stream_out of a task */
static inline void fc_stream_end(void)
{
#if defined(__SSE2__)
    _mm_sfence();
#endif
}
#endif

/* view_fetch, without the call for arrays that lie together as a whole */
INLINE const REAL *NAME(fetch)(const fc_view *v, ix start, ix count, REAL *buffer)
{
    if (v->direct && v->ndim == 1) return (const REAL *)v->data + start;
    return NAME(view_fetch)(v, start, count, buffer);
}

#undef LANES_FROM
#if VBYTES / REAL_BYTES == 16
#define LANES_FROM(start, step) {start, start + step, start + 2 * step, start + 3 * step, start + 4 * step, \
    start + 5 * step, start + 6 * step, start + 7 * step, start + 8 * step, start + 9 * step, start + 10 * step, \
    start + 11 * step, start + 12 * step, start + 13 * step, start + 14 * step, start + 15 * step}
#elif VBYTES / REAL_BYTES == 8
#define LANES_FROM(start, step) {start, start + step, start + 2 * step, start + 3 * step, start + 4 * step, \
    start + 5 * step, start + 6 * step, start + 7 * step}
#elif VBYTES / REAL_BYTES == 4
#define LANES_FROM(start, step) {start, start + step, start + 2 * step, start + 3 * step}
#else
#define LANES_FROM(start, step) {start, start + step}
#endif

INLINE M NAME(lane_numbers)(void) { return (M)LANES_FROM(0, 1); }

/* a and b lie behind one another; their elements 0, 2, 4, ... and 1, 3, 5, ... */
#if defined(__clang__)
INLINE V NAME(every_other)(V a, V b, int first)
{
    V r;
    for (int i = 0; i < VL / 2; i++) { r[i] = a[2 * i + first]; r[VL / 2 + i] = b[2 * i + first]; }
    return r;
}
INLINE V NAME(second_of_each)(V a, V b)
{
    V r;
    for (int i = 0; i < VL / 2; i++) { r[i] = a[2 * i]; r[VL / 2 + i] = b[2 * i + 1]; }
    return r;
}
INLINE V NAME(zip)(V a, V b, int high)
{
    V r;
    for (int i = 0; i < VL; i++) { int j = i / 2 + (high ? VL / 2 : 0); r[i] = i % 2 ? b[j] : a[j]; }
    return r;
}
#else
INLINE V NAME(every_other)(V a, V b, const int first)
{
    if (first) return __builtin_shuffle(a, b, (M)LANES_FROM(1, 2));
    return __builtin_shuffle(a, b, (M)LANES_FROM(0, 2));
}
/* The same of b moved down by a lane: elements 0, 2, ... of a and 1, 3, ... of what begins with a's last element */
INLINE V NAME(second_of_each)(V a, V b)
{
    const M n = NAME(lane_numbers)() * 2;
    return __builtin_shuffle(a, b, n + ((n >= (INT)VL) & 1));
}
/* a0 b0 a1 b1 ...: its lower or upper half */
INLINE V NAME(zip)(V a, V b, const int high)
{
    const M n = NAME(lane_numbers)();
    return __builtin_shuffle(a, b, (n >> 1) + (n & 1) * (INT)VL + (high ? (INT)(VL / 2) : 0));
}
#endif

/* Lanes of a (index below VL) and b. */
#if defined(__clang__)
INLINE V NAME(shuffle)(V a, V b, M mask)
{
    V r;
    for (int i = 0; i < VL; i++) r[i] = mask[i] < VL ? a[mask[i]] : b[mask[i] - VL];
    return r;
}
#else
#define shuffle_f32(a, b, mask) __builtin_shuffle(a, b, mask)
#define shuffle_f64(a, b, mask) __builtin_shuffle(a, b, mask)
#endif

INLINE V NAME(vsqrt)(V x)
{
#if VBYTES == 64 && REAL_BYTES == 4
    return (V)_mm512_sqrt_ps((__m512)x);
#elif VBYTES == 64
    return (V)_mm512_sqrt_pd((__m512d)x);
#elif VBYTES == 32 && REAL_BYTES == 4
    return (V)_mm256_sqrt_ps((__m256)x);
#elif VBYTES == 32
    return (V)_mm256_sqrt_pd((__m256d)x);
#else
    for (int i = 0; i < VL; i++) x[i] = (REAL)sqrt((double)x[i]); /* exact for float too: 53 >= 2 * 24 + 2 bits */
    return x;
#endif
}

/* The sum of all lanes, halves first: a fixed tree, the same as that of add_lanes_of_4 */
INLINE REAL NAME(add_lanes)(V v)
{
    UNROLL for (INT half = (INT)VL / 2; half; half /= 2) v += NAME(shuffle)(v, v, (NAME(lane_numbers)() + half) & ((INT)VL - 1));
    return v[0];
}

/* Add n contiguous values to four partial sums by lanes: four, so that additions need not wait for one another */
typedef struct { V a, b, c, d; } NAME(quad);
INLINE void NAME(quad_add)(NAME(quad) *q, const REAL *p, ix n)
{
    const ix whole = n / (4 * VL) * (4 * VL);
    for (ix i = 0; i < whole; i += 4 * VL) {
        q->a += LOAD(p + i);
        q->b += LOAD(p + i + VL);
        q->c += LOAD(p + i + 2 * VL);
        q->d += LOAD(p + i + 3 * VL);
    }
    const ix rest = n - whole; /* short runs, such as planes of 7x7, are all rest */
    p += whole;
    if (rest <= 0) return;
    if (rest <= VL) { q->a += LOADN(p, rest); return; }
    q->a += LOAD(p);
    if (rest <= 2 * VL) { q->b += LOADN(p + VL, rest - VL); return; }
    q->b += LOAD(p + VL);
    if (rest <= 3 * VL) { q->c += LOADN(p + 2 * VL, rest - 2 * VL); return; }
    q->c += LOAD(p + 2 * VL);
    q->d += LOADN(p + 3 * VL, rest - 3 * VL);
}
INLINE V NAME(quad_lanes)(const NAME(quad) *q) { return (q->a + q->b) + (q->c + q->d); }

/* The lanes whose sum is that of n contiguous values, n <= FC_BLOCK */
INLINE V NAME(block_lanes)(const REAL *p, ix n)
{
    NAME(quad) q = {{0}, {0}, {0}, {0}};
    NAME(quad_add)(&q, p, n);
    return NAME(quad_lanes)(&q);
}

/* Sum of the products of n contiguous pairs, n <= FC_BLOCK */
INLINE REAL NAME(block_dot)(const REAL *p, const REAL *q, ix n)
{
    V a = SPLAT(0), b = a, c = a, d = a;
    const ix whole = n / (4 * VL) * (4 * VL);
    for (ix i = 0; i < whole; i += 4 * VL) {
        a = FMA(READ(p + i), READ(q + i), a);
        b = FMA(READ(p + i + VL), READ(q + i + VL), b);
        c = FMA(READ(p + i + 2 * VL), READ(q + i + 2 * VL), c);
        d = FMA(READ(p + i + 3 * VL), READ(q + i + 3 * VL), d);
    }
    FOR_LANES(i, n - whole) a = FMA(TAKE(p + whole + i), TAKE(q + whole + i), a);
    return NAME(add_lanes)((a + b) + (c + d));
}

/* Sum of n contiguous values, n <= FC_BLOCK */
INLINE REAL NAME(block_sum)(const REAL *p, ix n) { return NAME(add_lanes)(NAME(block_lanes)(p, n)); }

/* Copy past the caches: for results that are larger than they are, whose old lines would otherwise be read from memory only to be overwritten. What is written
 * becomes visible to other threads with the fence at the end. */
INLINE ix NAME(before_vector)(const REAL *p) { return (ix)((VBYTES - (uintptr_t)p % VBYTES) % VBYTES / REAL_BYTES); } /* elements to the next whole one */
INLINE void NAME(stream_out)(REAL *dst, const REAL *src, ix n)
{
    const ix head = FC_MIN(NAME(before_vector)(dst), n);
    ix i = head;
    if (head) STOREN(dst, LOADN(src, head), head);
    for (; i + VL <= n; i += VL) STREAM(dst + i, LOAD(src + i));
    if (i < n) STOREN(dst + i, LOADN(src + i, n - i), n - i);
}

/* A result that is made in short rows and goes past the caches: rows gather here until whole lines of it can be written. A line written in two pieces would
 * be read from memory first, or written twice. */
#define FC_LINE 64
#define FC_GATHERED 4096 /* elements: 16 or 32 KB of stack */
typedef struct { REAL *to; ix held; REAL made[FC_GATHERED] WHOLE_LINES; } NAME(gathered);
INLINE void NAME(gathered_write)(NAME(gathered) *g, int all)
{
    const ix beyond = all ? 0 : (ix)((uintptr_t)(g->to + g->held) % FC_LINE / REAL_BYTES), n = g->held - beyond;
    if (n <= 0) return;
    NAME(stream_out)(g->to, g->made, n);
    memmove(g->made, g->made + n, (size_t)beyond * sizeof(REAL));
    g->to += n;
    g->held = beyond;
}
/* Room for n more elements, n < FC_GATHERED / 2, which the caller fills and counts */
INLINE REAL *NAME(gathered_room)(NAME(gathered) *g, ix n)
{
    if (g->held + n > FC_GATHERED) NAME(gathered_write)(g, 0);
    return g->made + g->held;
}
