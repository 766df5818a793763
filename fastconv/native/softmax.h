/* Softmax, its logarithm, their gradients, maxout. Arrays are seen as (outer, classes, inner).
 *
 * Where inner is 1 a class axis lies together and lanes run along it (the "row" functions); else lanes run along the inner
 * positions, each of which keeps its own sum ("strip": `width` positions from `first` on, all classes). The choice depends
 * on the shape alone. Sums: within a lane over at most FC_BLOCK / VL terms, or FC_GROUP terms, before they join a total.
 */
#ifndef FC_SOFTMAX_COMMON
#define FC_SOFTMAX_COMMON
#define FC_STRIP 256 /* positions of a strip: 1 or 2 KB a class, so that several arrays of a strip stay in L1 */
#define FC_GROUP 32  /* terms added in sequence before a partial sum joins its total */
#endif

/* The largest element; NaN takes no part (the sum of exponentials will carry it) */
static REAL NAME(row_max)(const fc_view *x, ix start, ix count)
{
    REAL buffer[FC_BLOCK];
    const V low = SPLAT(-INFINITY);
    V m = low, other_m = low; /* two, since each maximum waits for the last */
    FOR_BLOCKS(at, n, count) {
        const REAL *p = NAME(fetch)(x, start + at, n, buffer);
        const ix whole = n / (2 * VL) * (2 * VL);
        for (ix i = 0; i < whole; i += 2 * VL) {
            m = GREATER(LOAD(p + i), m);
            other_m = GREATER(LOAD(p + i + VL), other_m);
        }
        FOR_LANES(i, n - whole) m = GREATER(TAKE_OR(p + whole + i, low), m);
    }
    m = GREATER(other_m, m);
    UNROLL for (INT half = (INT)VL / 2; half; half /= 2) {
        V other = NAME(shuffle)(m, m, (NAME(lane_numbers)() + half) & ((INT)VL - 1));
        m = GREATER(other, m);
    }
    return m[0];
}

/* The sum of exp(x - shift), each stored in e unless that is NULL */
static REAL NAME(row_exp)(const fc_view *x, ix start, ix count, REAL shift, REAL *e)
{
    REAL buffer[FC_BLOCK];
    const V low = SPLAT(-INFINITY);
    fc_total total = {0, 0};
    FOR_BLOCKS(at, n, count) {
        const REAL *p = NAME(fetch)(x, start + at, n, buffer);
        V sum = SPLAT(0);
        FOR_LANES(i, n)
        {
            V v = NAME(vexp)(TAKE_OR(p + i, low) - shift);
            sum += v;
            if (e) PUT(e + at + i, v);
        }
        fc_total_add(&total, NAME(add_lanes)(sum));
    }
    return (REAL)fc_total_value(&total);
}

INLINE REAL NAME(row_log)(REAL x) { return NAME(vlog)(SPLAT(x))[0]; }

static void NAME(softmax_row)(const fc_view *x, REAL *y, ix start, ix count, int logarithm)
{
    REAL buffer[FC_BLOCK];
    REAL shift = NAME(row_max)(x, start, count);
    REAL sum = NAME(row_exp)(x, start, count, shift, logarithm ? NULL : y + start);
    y += start;
    if (!logarithm) {
        const REAL inverse = 1 / sum; /* the sum is at least 1; divisions would take as long as the exponentials */
        FOR_LANES(i, count) PUT(y + i, TAKE(y + i) * inverse);
        return;
    }
    const REAL log_sum = NAME(row_log)(sum);
    FOR_BLOCKS(at, n, count) {
        const REAL *p = NAME(fetch)(x, start + at, n, buffer);
        FOR_LANES(i, n) PUT(y + at + i, TAKE(p + i) - shift - log_sum);
    }
}

/* dx = y (dy - sum of dy y), or dy - exp(y) sum of dy where y is a logarithm */
static void NAME(softmax_row_backward)(const fc_view *dyv, const fc_view *yv, REAL *dx, ix start, ix count,
                                       int logarithm)
{
    REAL dy_buffer[FC_BLOCK], y_buffer[FC_BLOCK];
    fc_total total = {0, 0};
    FOR_BLOCKS(at, n, count) {
        const REAL *dy = NAME(fetch)(dyv, start + at, n, dy_buffer);
        const REAL *y = logarithm ? NULL : NAME(fetch)(yv, start + at, n, y_buffer);
        fc_total_add(&total, logarithm ? NAME(block_sum)(dy, n) : NAME(block_dot)(dy, y, n));
    }
    REAL sum = (REAL)fc_total_value(&total);
    dx += start;
    FOR_BLOCKS(at, n, count) {
        const REAL *dy = NAME(fetch)(dyv, start + at, n, dy_buffer);
        const REAL *y = NAME(fetch)(yv, start + at, n, y_buffer);
        /* the next row is asked for meanwhile: its sum waits for all of it */
        if (logarithm) FOR_LANES(i, n) PUT(dx + at + i, TAKE(dy + i) - NAME(vexp)(TAKE(y + i)) * sum);
        else
            EACH_LANES_OUT(i, n, dx + at, 0, __builtin_prefetch(dy + i + count); __builtin_prefetch(y + i + count);
                           PUT_OUT(dx + at + i, TAKE(y + i) * (TAKE(dy + i) - sum)););
    }
}

/* Strips. start is the first element of class 0, classes lie `inner` elements apart. */

static void NAME(strip_max)(const fc_view *x, ix start, ix classes, ix inner, ix width, REAL *largest)
{
    REAL buffer[FC_STRIP];
    for (ix i = 0; i < width; i++) largest[i] = -INFINITY;
    for (ix c = 0; c < classes; c++) {
        const REAL *p = NAME(fetch)(x, start + c * inner, width, buffer);
        FOR_LANES(i, width)
        {
            PUT(largest + i, GREATER(TAKE(p + i), TAKE(largest + i)));
        }
    }
}

/* total += part, part = 0 */
static void NAME(strip_flush)(REAL *total, REAL *part, ix width)
{
    FOR_LANES(i, width) { PUT(total + i, TAKE(total + i) + TAKE(part + i)); PUT(part + i, SPLAT(0)); }
}

static void NAME(strip_exp)(const fc_view *x, ix start, ix classes, ix inner, ix width, const REAL *shift, REAL *sum,
                            REAL *e)
{
    REAL buffer[FC_STRIP], part[FC_STRIP];
    memset(part, 0, sizeof part);
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (ix c = 0; c < classes; c++) {
        const REAL *p = NAME(fetch)(x, start + c * inner, width, buffer);
        FOR_LANES(i, width)
        {
            V v = NAME(vexp)(TAKE(p + i) - TAKE(shift + i));
            PUT(part + i, TAKE(part + i) + v);
            if (e) PUT(e + c * inner + i, v);
        }
        if (c % FC_GROUP == FC_GROUP - 1) NAME(strip_flush)(sum, part, width);
    }
    NAME(strip_flush)(sum, part, width);
}

static void NAME(softmax_strip)(const fc_view *x, REAL *y, ix start, ix classes, ix inner, ix width, int logarithm)
{
    REAL buffer[FC_STRIP], shift[FC_STRIP], sum[FC_STRIP];
    NAME(strip_max)(x, start, classes, inner, width, shift);
    NAME(strip_exp)(x, start, classes, inner, width, shift, sum, logarithm ? NULL : y + start);
    FOR_LANES(i, width) PUT(sum + i, logarithm ? NAME(vlog)(TAKE(sum + i)) : SPLAT(1) / TAKE_OR(sum + i, SPLAT(1)));
    for (ix c = 0; c < classes; c++) {
        REAL *out = y + start + c * inner;
        if (!logarithm) {
            FOR_LANES(i, width) PUT(out + i, TAKE(out + i) * TAKE(sum + i));
            continue;
        }
        const REAL *p = NAME(fetch)(x, start + c * inner, width, buffer);
        FOR_LANES(i, width) PUT(out + i, TAKE(p + i) - TAKE(shift + i) - TAKE(sum + i));
    }
}

static void NAME(softmax_strip_backward)(const fc_view *dyv, const fc_view *yv, REAL *dx, ix start, ix classes,
                                         ix inner, ix width, int logarithm)
{
    REAL dy_buffer[FC_STRIP], y_buffer[FC_STRIP], sum[FC_STRIP], part[FC_STRIP];
    memset(part, 0, sizeof part);
    memset(sum, 0, sizeof sum);
    for (ix c = 0; c < classes; c++) {
        const REAL *dy = NAME(fetch)(dyv, start + c * inner, width, dy_buffer);
        const REAL *y = logarithm ? NULL : NAME(fetch)(yv, start + c * inner, width, y_buffer);
        FOR_LANES(i, width)
        {
            V g = TAKE(dy + i);
            PUT(part + i, TAKE(part + i) + (logarithm ? g : g * TAKE(y + i)));
        }
        if (c % FC_GROUP == FC_GROUP - 1) NAME(strip_flush)(sum, part, width);
    }
    NAME(strip_flush)(sum, part, width);
    for (ix c = 0; c < classes; c++) {
        const REAL *dy = NAME(fetch)(dyv, start + c * inner, width, dy_buffer);
        const REAL *y = NAME(fetch)(yv, start + c * inner, width, y_buffer);
        REAL *out = dx + start + c * inner;
        FOR_LANES(i, width)
        {
            V g = TAKE(dy + i), v = TAKE(y + i), s = TAKE(sum + i);
            PUT(out + i, logarithm ? g - NAME(vexp)(v) * s : v * (g - s));
        }
    }
}

/* y[k] = the largest of x[k * pieces + i], indices[k] = that i: the first of equals, the first NaN. For the positions
 * [first, first + count) of y, seen as (outer * groups, inner). */
INLINE int NAME(beats)(REAL v, REAL best)
{
    return !(v <= best) && best == best;
}

static void NAME(maxout)(const fc_view *x, REAL *y, int64_t *indices, ix first, ix count, ix pieces, ix inner)
{
    REAL buffer[FC_BLOCK];
    INT piece[FC_STRIP];
    if (inner == 1 && pieces <= FC_BLOCK) { /* the pieces of one y lie together: fetch many groups at once */
        ix groups = FC_BLOCK / pieces;
        for (ix end = first + count; first < end; first += groups) {
            groups = FC_MIN(groups, end - first);
            const REAL *p = NAME(fetch)(x, first * pieces, groups * pieces, buffer);
            for (ix g = 0; g < groups; g++, p += pieces) {
                ix best = 0;
                for (ix k = 1; k < pieces; k++) best = NAME(beats)(p[k], p[best]) ? k : best;
                y[first + g] = p[best];
                indices[first + g] = best;
            }
        }
        return;
    }
    while (count > 0) {
        ix group = first / inner, column = first % inner;
        ix width = FC_MIN(FC_MIN(inner - column, count), (ix)FC_STRIP);
        REAL *best = y + first;
        for (ix k = 0; k < pieces; k++) {
            const REAL *p = NAME(fetch)(x, (group * pieces + k) * inner + column, width, buffer);
            for (ix i = 0; i < width; i++) {
                int better = k == 0 || NAME(beats)(p[i], best[i]);
                best[i] = better ? p[i] : best[i];
                piece[i] = better ? (INT)k : piece[i];
            }
        }
        for (ix i = 0; i < width; i++) indices[first + i] = piece[i];
        first += width;
        count -= width;
    }
}

/* The same positions: dx is dy at the piece that won, 0 at the others. An index that is no piece is left out and told in
 * *wrong; it is read once, since another thread may be changing it. Returns whether there was one. */
static int NAME(maxout_backward)(const fc_view *dyv, const fc_view *indices, REAL *dx, ix first, ix count, ix pieces,
                                 ix inner, int64_t *wrong)
{
    REAL buffer[FC_STRIP];
    int64_t index_buffer[FC_STRIP];
    int bad = 0;
    while (count > 0) {
        ix group = first / inner, column = first % inner;
        ix width = FC_MIN(FC_MIN(inner - column, count), (ix)FC_STRIP);
        const REAL *dy = NAME(fetch)(dyv, first, width, buffer);
        const int64_t *index = fc_fetch_int64(indices, first, width, index_buffer);
        REAL *out = dx + group * pieces * inner + column;
        for (ix k = 0; k < pieces; k++) memset(out + k * inner, 0, (size_t)width * sizeof(REAL));
        for (ix i = 0; i < width; i++) {
            int64_t k = *(const volatile int64_t *)(index + i);
            if (k >= 0 && k < pieces) out[k * inner + i] = dy[i];
            else { *wrong = k; bad = 1; }
        }
        first += width;
        count -= width;
    }
    return bad;
}
