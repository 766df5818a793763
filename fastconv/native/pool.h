/* Pooling: one row of outputs a call. Windows come as tables (first tap inside the plane, number of taps inside), so that
 * padding, dilation, ceil mode and adaptive windows are all the same to this file.
 *
 * Two ways to compute a row, chosen from the geometry alone:
 *   lanes    the input rows of the windows are folded into one row, lanes along W; that row is split by residue modulo the
 *            stride, whereupon every tap of VL outputs is one plain load (irregular windows: each output reads its taps of
 *            the folded row). For windows of at most FC_POOL_TAPS rows and columns.
 *   windows  each window by itself, its rows FC_BLOCK elements at a time. For anything else.
 * What a padded row adds is the identity of the fold (0, or -inf at no position) and takes no part.
 */
#ifndef FC_POOL_COMMON
#define FC_POOL_COMMON
#define FC_POOL_TAPS 64     /* bounds the runs of additions of the lane way */
#define FC_POOL_REACH 128   /* from the first tap along W to the last */
#define FC_POOL_STEP 4      /* wider strides leave gaps, which folding whole rows would waste work on */
#define FC_POOL_OUTPUTS 128 /* outputs of a row at once: all buffers together take at most 50 KB of stack */
#define FC_POOL_SPAN (FC_POOL_OUTPUTS * FC_POOL_STEP + FC_POOL_REACH) /* input columns under those outputs */
#define FC_POOL_ROW (FC_POOL_SPAN + 192) /* and whole vectors past the end: FC_POOL_STEP * 16 wanted, as many read in vain */

enum { FC_POOL_SUM, FC_POOL_MAX, FC_POOL_MAX_AT };

typedef struct {
    ptrdiff_t size[3], out[3], dilation[3];
    const int64_t *begin[3], *valid[3]; /* tables for D, H, W */
    const double *divisor[3];           /* an average divides by the product of the three entries; 16 more can be read */
    int by_lanes;
    int regular;                        /* tap t of output q is at q * step - low + t * dilation along W, inside or not */
    ptrdiff_t step, low, taps;          /* then these hold */
    const int64_t *start[3], *holder[3]; /* backward: input index i lies in the windows of outputs holder[start[i] .. start[i + 1]) */
} fc_pool;

/* The window rows of output row `row`, which counts over planes, o and p */
typedef struct {
    ptrdiff_t o, p;
    ptrdiff_t rows_h, rows;     /* input rows of the window: along H, and in all */
    ptrdiff_t step_d, step_h;   /* from one to the next, in elements */
    ptrdiff_t plane, first;     /* the plane's first element; the first row, from there */
} fc_pool_rows;

static inline fc_pool_rows fc_pool_locate(const fc_pool *g, ptrdiff_t row)
{
    fc_pool_rows r;
    r.p = row % g->out[1];
    r.o = row / g->out[1] % g->out[0];
    r.rows_h = g->valid[1][r.p];
    r.rows = g->valid[0][r.o] * r.rows_h;
    r.step_h = g->dilation[1] * g->size[2];
    r.step_d = g->dilation[0] * g->size[1] * g->size[2];
    r.plane = row / g->out[1] / g->out[0] * g->size[0] * g->size[1] * g->size[2];
    r.first = (g->begin[0][r.o] * g->size[1] + g->begin[1][r.p]) * g->size[2];
    return r;
}

/* The k-th input row of a window, from its first */
static inline ptrdiff_t fc_pool_offset(const fc_pool_rows *r, ptrdiff_t k)
{
    return k / r->rows_h * r->step_d + k % r->rows_h * r->step_h;
}
#endif

#undef NOWHERE
#define NOWHERE ((INT)((UINT)-1 >> 1)) /* no position: after all others */

/* Is v to replace best? The first of equals and the first NaN win. */
INLINE M NAME(beats_lanes)(V v, V best)
{
    return ~(v <= best) & (best == best);
}

/* Fold up to four rows into temp (or into nothing, if they are the first). where: the winner's row, as its offset */
INLINE void NAME(fold)(const int kind, REAL *temp, INT *where, const REAL *const *row, const INT *offset, int rows, ix n,
                       int first)
{
    FOR_LANES(i, n)
    {
        V a = TAKE(row[0] + i);
        if (kind == FC_POOL_SUM) {
            for (int r = 1; r < rows; r++) a += TAKE(row[r] + i);
            PUT(temp + i, first ? a : TAKE(temp + i) + a);
            continue;
        }
        M at = (M){0} + offset[0];
        if (!first) {
            V v = a;
            a = TAKE(temp + i);
            M better = NAME(beats_lanes)(v, a);
            a = SELECT(better, v, a);
            if (kind == FC_POOL_MAX_AT) at = (at & better) | ((M)TAKE((const REAL *)where + i) & ~better);
        }
        for (int r = 1; r < rows; r++) {
            V v = TAKE(row[r] + i);
            M better = NAME(beats_lanes)(v, a);
            a = SELECT(better, v, a);
            if (kind == FC_POOL_MAX_AT) at = (at & ~better) | (offset[r] & better);
        }
        PUT(temp + i, a);
        if (kind == FC_POOL_MAX_AT) PUT((REAL *)where + i, (V)at);
    }
}

/* Columns [from, from + n) of all rows of a window, folded into temp[0 .. n) */
INLINE void NAME(fold_rows)(const int kind, const fc_view *x, const fc_pool_rows *r, ix from, ix n, REAL *temp, INT *where)
{
    REAL buffer[4][FC_POOL_SPAN];
    const REAL *row[4];
    INT offset[4];
    for (ix done = 0; done < r->rows;) {
        int k = 0;
        for (; k < 4 && done + k < r->rows; k++) {
            ix at = fc_pool_offset(r, done + k);
            offset[k] = (INT)at;
            row[k] = NAME(view_fetch)(x, r->plane + r->first + at + from, n, buffer[k]);
        }
        NAME(fold)(kind, temp, where, row, offset, k, n, done == 0);
        done += k;
    }
}

/* Split n elements by residue modulo step: element j * step + f goes to out[f * FC_POOL_ROW / step (whole vectors) + j]. Works on bits. */
#undef PHASE
#define PHASE(step) (FC_POOL_ROW / (step) / 16 * 16)
INLINE void NAME(split)(REAL *out, const REAL *in, ix n, ix step)
{
    const ix phase = PHASE(step), count = (n + step - 1) / step;
    if (step == 2) {
        for (ix j = 0; j < count; j += VL) {
            V a = LOAD(in + 2 * j), b = LOAD(in + 2 * j + VL);
            STORE(out + j, NAME(every_other)(a, b, 0));
            STORE(out + phase + j, NAME(every_other)(a, b, 1));
        }
        return;
    }
    for (ix f = 0; f < step; f++)
        for (ix j = 0; j < count; j++) memcpy(out + f * phase + j, in + j * step + f, sizeof(REAL));
}

/* The folded row under `count` outputs from q0 on, with its padding, split: tap t of output q0 + j is at
 * phases[(t * dilation) % step * PHASE(step) + (t * dilation) / step + j]. */
INLINE void NAME(prepare)(const int kind, const fc_view *x, const fc_pool *g, const fc_pool_rows *r, ix q0, ix count,
                          REAL *phases, INT *where_phases)
{
    REAL unsplit[FC_POOL_ROW];
    INT where_unsplit[FC_POOL_ROW];
    const ix left = q0 * g->step - g->low, span = (count - 1) * g->step + (g->taps - 1) * g->dilation[2] + 1;
    const ix padded = span + VL * g->step;
    ix from = FC_MAX(left, 0), to = FC_MIN(left + span, g->size[2]);
    if (from >= to) from = to = left; /* padding only */
    REAL *temp = g->step == 1 ? phases : unsplit;
    INT *where = g->step == 1 ? where_phases : where_unsplit;
    const REAL none = kind == FC_POOL_SUM ? 0 : (REAL)-INFINITY;
    if (from < to) NAME(fold_rows)(kind, x, r, from, to - from, temp + (from - left), where + (from - left));
    for (ix i = 0; i < from - left; i++) temp[i] = none;
    for (ix i = to - left; i < padded; i++) temp[i] = none;
    if (kind == FC_POOL_MAX_AT) {
        for (ix i = 0; i < from - left; i++) where[i] = NOWHERE;
        for (ix i = to - left; i < padded; i++) where[i] = NOWHERE;
    }
    if (g->step == 1) return;
    NAME(split)(phases, temp, padded, g->step);
    if (kind == FC_POOL_MAX_AT) NAME(split)((REAL *)where_phases, (const REAL *)where, padded, g->step);
}

/* Store the indices of the lanes that remain: `at` + column inside the plane, or -1 */
typedef int64_t NAME(wide) __attribute__((vector_size(VBYTES / REAL_BYTES * 8)));
INLINE void NAME(put_indices)(int64_t *out, M at, M column, int64_t base, ix left)
{
    NAME(wide) missing = __builtin_convertvector(at == NOWHERE, NAME(wide));
    NAME(wide) index = __builtin_convertvector(at, NAME(wide)) + __builtin_convertvector(column, NAME(wide)) + base;
    index |= missing;
    memcpy(out, &index, (size_t)FC_MIN(left, VL) * sizeof *out);
}

typedef double NAME(doubles) __attribute__((vector_size(VBYTES / REAL_BYTES * 8)));
INLINE V NAME(from_doubles)(const double *p)
{
    NAME(doubles) v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, V);
}

/* `count` outputs of a row from q0 on, by lanes, windows regular */
INLINE void NAME(pool_lanes)(const int kind, const fc_view *x, const fc_pool *g, const fc_pool_rows *r, ix q0, ix count, REAL *y,
                             int64_t *indices)
{
    REAL phases[FC_POOL_ROW];
    INT where[FC_POOL_ROW];
    const ix phase = PHASE(g->step), taps = g->taps;
    const REAL divide = (REAL)(kind == FC_POOL_SUM ? g->divisor[0][r->o] * g->divisor[1][r->p] : 1);
    ix tap_at[FC_POOL_TAPS];
    for (ix t = 0; t < taps; t++) tap_at[t] = t * g->dilation[2] % g->step * phase + t * g->dilation[2] / g->step;
    NAME(prepare)(kind, x, g, r, q0, count, phases, where);
    FOR_LANES(j, count)
    {
        V a = LOAD(phases + j);
        if (kind == FC_POOL_SUM) {
            for (ix t = 1; t < taps; t++) a += LOAD(phases + tap_at[t] + j);
            PUT(y + j, a / (NAME(from_doubles)(g->divisor[2] + q0 + j) * divide));
        } else if (kind == FC_POOL_MAX) {
            for (ix t = 1; t < taps; t++) {
                V v = LOAD(phases + tap_at[t] + j);
                a = SELECT(NAME(beats_lanes)(v, a), v, a);
            }
            PUT(y + j, a);
        } else {
            M at = (M)LOAD((const REAL *)where + j), column = {0};
            for (ix t = 1; t < taps; t++) {
                V v = LOAD(phases + tap_at[t] + j);
                M row = (M)LOAD((const REAL *)where + tap_at[t] + j);
                /* equals, or both NaN: the earlier row wins, then the earlier column */
                M same = (v == a) | ((v != v) & (a != a));
                M better = NAME(beats_lanes)(v, a) | (same & (row < at));
                a = SELECT(better, v, a);
                at = (at & ~better) | (row & better);
                column = (column & ~better) | (((INT)(t * g->dilation[2])) & better);
            }
            PUT(y + j, a);
            NAME(put_indices)(indices + j, at, column + NAME(lane_numbers)() * (INT)g->step,
                              r->first + (q0 + j) * g->step - g->low, left);
        }
    }
}

/* A row of irregular windows by lanes: rows folded by lanes, then each output by itself */
INLINE void NAME(pool_irregular)(const int kind, const fc_view *x, const fc_pool *g, const fc_pool_rows *r, REAL *y,
                                 int64_t *indices)
{
    REAL temp[FC_POOL_SPAN];
    INT where[FC_POOL_SPAN];
    NAME(fold_rows)(kind, x, r, 0, g->size[2], temp, where);
    const REAL divide = (REAL)(kind == FC_POOL_SUM ? g->divisor[0][r->o] * g->divisor[1][r->p] : 1);
    for (ix q = 0; q < g->out[2]; q++) {
        const ix begin = g->begin[2][q], valid = g->valid[2][q];
        REAL a = temp[begin];
        ix best = begin;
        for (ix t = 1; t < valid; t++) {
            const ix w = begin + t;
            REAL v = temp[w];
            if (kind == FC_POOL_SUM) { a += v; continue; }
            int better = NAME(beats)(v, a);
            if (kind == FC_POOL_MAX_AT) better |= (v == a || (v != v && a != a)) && where[w] < where[best];
            if (better) { a = v; best = w; }
        }
        y[q] = kind == FC_POOL_SUM ? a / ((REAL)g->divisor[2][q] * divide) : a;
        if (kind == FC_POOL_MAX_AT) indices[q] = r->first + where[best] + best;
    }
}

/* Sum of `taps` elements `step` apart from p on, in a fixed order: by lanes where they lie together */
INLINE REAL NAME(sum_taps)(const REAL *p, ix taps, ix step)
{
    REAL sum = 0;
    if (step == 1) return NAME(block_sum)(p, taps);
    for (ix t = 0; t < taps; t++) sum += p[t * step];
    return sum;
}

/* One window by itself */
INLINE void NAME(pool_window)(const int kind, const fc_view *x, const fc_pool *g, const fc_pool_rows *r, ix q, REAL *y,
                              int64_t *index)
{
    REAL buffer[FC_BLOCK];
    fc_total total = {0, 0};
    REAL best = (REAL)-INFINITY;
    int64_t best_at = -1;
    const ix valid = g->valid[2][q], step = g->dilation[2];
    const ix piece = FC_MAX((FC_BLOCK - 1) / step, 0) + 1; /* taps whose span fits the buffer */
    for (ix k = 0; k < r->rows; k++) {
        ix at = r->first + fc_pool_offset(r, k) + g->begin[2][q];
        for (ix t = 0; t < valid; t += piece) {
            const ix n = FC_MIN(piece, valid - t);
            const REAL *p = NAME(view_fetch)(x, r->plane + at + t * step, (n - 1) * step + 1, buffer);
            if (kind == FC_POOL_SUM) {
                fc_total_add(&total, NAME(sum_taps)(p, n, step));
                continue;
            }
            for (ix i = 0; i < n; i++) {
                if (best_at < 0 || NAME(beats)(p[i * step], best)) {
                    best = p[i * step];
                    best_at = at + (t + i) * step;
                }
            }
        }
    }
    if (kind == FC_POOL_SUM)
        *y = (REAL)(fc_total_value(&total) / (g->divisor[0][r->o] * g->divisor[1][r->p] * g->divisor[2][q]));
    else
        *y = best;
    if (kind == FC_POOL_MAX_AT) *index = best_at;
}

INLINE void NAME(pool_row)(const int kind, const fc_view *x, const fc_pool *g, ix row, REAL *y, int64_t *indices)
{
    const fc_pool_rows r = fc_pool_locate(g, row);
    const ix Q = g->out[2];
    y += row * Q;
    if (kind == FC_POOL_MAX_AT) indices += row * Q;
    if (r.rows == 0) {
        for (ix q = 0; q < Q; q++) y[q] = kind == FC_POOL_SUM ? 0 : (REAL)-INFINITY;
        if (kind == FC_POOL_MAX_AT) for (ix q = 0; q < Q; q++) indices[q] = -1;
    } else if (!g->by_lanes) {
        for (ix q = 0; q < Q; q++) NAME(pool_window)(kind, x, g, &r, q, y + q, indices + q);
    } else if (!g->regular) {
        NAME(pool_irregular)(kind, x, g, &r, y, indices);
    } else {
        for (ix q = 0; q < Q; q += FC_POOL_OUTPUTS)
            NAME(pool_lanes)(kind, x, g, &r, q, FC_MIN((ix)FC_POOL_OUTPUTS, Q - q), y + q, indices + q);
    }
}

static void NAME(avg_pool_row)(const fc_view *x, const fc_pool *g, ix row, REAL *y)
{
    NAME(pool_row)(FC_POOL_SUM, x, g, row, y, NULL);
}

static void NAME(max_pool_row)(const fc_view *x, const fc_pool *g, ix row, REAL *y, int64_t *indices)
{
    if (indices) NAME(pool_row)(FC_POOL_MAX_AT, x, g, row, y, indices);
    else NAME(pool_row)(FC_POOL_MAX, x, g, row, y, NULL);
}

/* dx of one plane: every dy is added at its index, in the order of the outputs. -1 is ignored; any other index outside is left out
 * and told in *wrong. An index is read once, since another thread may be changing it. Returns whether one was wrong. */
static int NAME(max_pool_plane_backward)(const fc_view *dyv, const fc_view *indices, REAL *dx, ix plane, ix size, ix outputs,
                                         int64_t *wrong)
{
    REAL buffer[FC_BLOCK];
    int64_t index_buffer[FC_BLOCK];
    int bad = 0;
    dx += plane * size;
    memset(dx, 0, (size_t)size * sizeof *dx);
    FOR_BLOCKS(at, n, outputs) {
        const REAL *dy = NAME(view_fetch)(dyv, plane * outputs + at, n, buffer);
        const int64_t *index = fc_fetch_int64(indices, plane * outputs + at, n, index_buffer);
        for (ix i = 0; i < n; i++) {
            int64_t k = *(const volatile int64_t *)(index + i);
            if ((uint64_t)k < (uint64_t)size) dx[k] += dy[i];
            else if (k != -1) { *wrong = k; bad = 1; }
        }
    }
    return bad;
}

/* One row of dx of an average. The rows of dy that reach it are divided and added up by lanes into sums, and each dx adds up its outputs
 * there, always in the order of the outputs. sums: room for Q elements. */
static void NAME(avg_pool_row_backward)(const fc_view *dyv, const fc_pool *g, ix row, REAL *dx, REAL *sums)
{
    REAL buffer[FC_BLOCK];
    const ix H = g->size[1], W = g->size[2], Q = g->out[2];
    const ix h = row % H, d = row / H % g->size[0], plane = row / H / g->size[0];
    dx += row * W;
    memset(sums, 0, (size_t)Q * sizeof *sums);
    for (ix i = g->start[0][d]; i < g->start[0][d + 1]; i++) {
        for (ix j = g->start[1][h]; j < g->start[1][h + 1]; j++) {
            const ix o = g->holder[0][i], p = g->holder[1][j];
            const REAL divide = (REAL)(g->divisor[0][o] * g->divisor[1][p]);
            FOR_BLOCKS(at, n, Q) {
                const REAL *dy = NAME(view_fetch)(dyv, ((plane * g->out[0] + o) * g->out[1] + p) * Q + at, n, buffer);
                FOR_LANES(q, n)
                {
                    V here = TAKE(dy + q) / (NAME(from_doubles)(g->divisor[2] + at + q) * divide);
                    PUT(sums + at + q, TAKE(sums + at + q) + here);
                }
            }
        }
    }
    const int64_t *start = g->start[2], *holder = g->holder[2];
    for (ix w = 0; w < W; w++) {
        REAL sum = 0;
        for (int64_t i = start[w]; i < start[w + 1]; i++) sum += sums[holder[i]];
        dx[w] = sum;
    }
}
