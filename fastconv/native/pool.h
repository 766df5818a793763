/* Pooling: rows of outputs. Windows come as tables (first tap inside the plane, number of taps inside), so that
 * padding, dilation, ceil mode and adaptive windows are all the same to this file.
 *
 * Two ways to compute a row, chosen from the geometry alone:
 *   lanes    the input rows of the windows are folded into one row, lanes along W; that row is split by residue modulo the
 *            stride, whereupon every tap of VL outputs is one plain load (irregular windows: each output reads its taps of
 *            the folded row). For windows of at most FC_POOL_TAPS rows and columns.
 *   windows  each window by itself, its rows FC_BLOCK elements at a time. For anything else, and for sums of windows that are one
 *            run of elements, as in global pooling.
 * What a padded row adds is the identity of the fold (0, or -inf at no position) and takes no part.
 */
#ifndef FC_POOL_COMMON
#define FC_POOL_COMMON
#define FC_POOL_TAPS 64     /* bounds the runs of additions of the lane way */
#define FC_POOL_REACH 128   /* from the first tap along W to the last */
#define FC_POOL_STEP 4      /* wider strides leave gaps, which folding whole rows would waste work on */
#define FC_POOL_BY_LANES 8  /* taps from which a sum by lanes is worth its horizontal end */
#define FC_POOL_OUTPUTS 128 /* outputs of a row at once: all buffers together take at most 50 KB of stack */
#define FC_POOL_SPAN (FC_POOL_OUTPUTS * FC_POOL_STEP + FC_POOL_REACH) /* input columns under those outputs */
#define FC_POOL_LONG_ROW 128 /* elements: planes of 224 pixels are read three times as fast, those of 56 a tenth slower */
#define FC_POOL_MARGIN (FC_POOL_REACH + 32) /* zeros on either side of a row of dy, see spread_regular */
#define FC_POOL_ROW (FC_POOL_SPAN + 192) /* and whole vectors past the end: FC_POOL_STEP * 16 wanted, as many read in vain */

enum { FC_POOL_SUM, FC_POOL_MAX, FC_POOL_MAX_AT };

/* Short rows of windows that lie side by side along W, none of them in padding: rows of outputs behind one another are computed as one long row. And with
 * one divisor for all, so are sums. */
enum { FC_POOL_SIDE_BY_SIDE = 1, FC_POOL_ALIKE = 2 };

typedef struct {
    ptrdiff_t size[3], out[3], dilation[3];
    const int64_t *begin[3], *valid[3]; /* tables for D, H, W */
    const double *divisor[3];           /* an average divides by the product of the three entries; 16 more can be read */
    int by_lanes;
    int whole;                          /* one window a row, as wide as the plane, without gaps: it is one run of elements */
    int global;                         /* one window, which is the plane */
    int seamless;                       /* FC_POOL_SIDE_BY_SIDE or FC_POOL_ALIKE */
    int regular;                        /* tap t of output q is at q * step - low + t * dilation along W, inside or not */
    ptrdiff_t step, low, taps;          /* then these hold */
    /* by fc_pool_place_taps, if by lanes and regular: where tap t of output 0 is once its row is split by residue modulo step */
    ptrdiff_t tap_at[FC_POOL_TAPS], tap_residue[FC_POOL_TAPS], tap_shift[FC_POOL_TAPS];
    const int64_t *start[3], *holder[3]; /* backward: input index i lies in the windows of outputs holder[start[i] .. start[i + 1]) */
} fc_pool;

/* The input rows under one row of outputs; which row, counted over planes, o and p, is for fc_pool_at and fc_pool_next */
typedef struct {
    ptrdiff_t o, p;
    ptrdiff_t rows_d, rows_h;   /* input rows of the window along D and H */
    ptrdiff_t step_d, step_h;   /* from one to the next, in elements */
    ptrdiff_t plane, first;     /* the plane's first element; the first row, from there */
} fc_pool_rows;

static inline void fc_pool_look(fc_pool_rows *r, const fc_pool *g)
{
    r->rows_d = g->valid[0][r->o];
    r->rows_h = g->valid[1][r->p];
    r->first = (g->begin[0][r->o] * g->size[1] + g->begin[1][r->p]) * g->size[2];
}

static inline void fc_pool_at(fc_pool_rows *r, const fc_pool *g, ptrdiff_t row)
{
    r->p = row % g->out[1];
    r->o = row / g->out[1] % g->out[0];
    r->step_h = g->dilation[1] * g->size[2];
    r->step_d = g->dilation[0] * g->size[1] * g->size[2];
    r->plane = row / g->out[1] / g->out[0] * g->size[0] * g->size[1] * g->size[2];
    fc_pool_look(r, g);
}

/* Divisions cost more than a short row: go on by counting */
static inline void fc_pool_next(fc_pool_rows *r, const fc_pool *g)
{
    if (++r->p == g->out[1]) {
        r->p = 0;
        if (++r->o == g->out[0]) {
            r->o = 0;
            r->plane += g->size[0] * g->size[1] * g->size[2];
        }
    }
    fc_pool_look(r, g);
}

/* Whether index a of an axis lies in the windows of the same outputs as index b */
static inline int fc_same_holders(const int64_t *start, const int64_t *holder, ptrdiff_t a, ptrdiff_t b)
{
    const ptrdiff_t count = start[a + 1] - start[a];
    if (count != start[b + 1] - start[b]) return 0;
    for (ptrdiff_t i = 0; i < count; i++)
        if (holder[start[a] + i] != holder[start[b] + i]) return 0;
    return 1;
}

/* The length of one phase of a folded row that is split by residue modulo step */
#define FC_POOL_PHASE(step) (FC_POOL_ROW / (step) / 16 * 16)
static inline void fc_pool_place_taps(fc_pool *g)
{
    for (ptrdiff_t t = 0; t < g->taps; t++) {
        g->tap_residue[t] = t * g->dilation[2] % g->step;
        g->tap_shift[t] = t * g->dilation[2] / g->step;
        g->tap_at[t] = g->tap_residue[t] * FC_POOL_PHASE(g->step) + g->tap_shift[t];
    }
}

static inline int fc_pool_seamless(const fc_pool *g)
{
    const ptrdiff_t reach = (g->taps - 1) * g->dilation[2];
    if (!g->regular || !g->by_lanes || g->low || reach >= g->step || g->out[2] * g->step > g->size[2] || 2 * g->out[2] * g->step > FC_POOL_SPAN) return 0;
    int alike = FC_POOL_ALIKE;
    for (int a = 0; a < 3; a++)
        for (ptrdiff_t i = 0; i < g->out[a]; i++) {
            if (g->valid[a][i] == 0) return 0;
            if (g->divisor[a][i] != g->divisor[a][0]) alike = FC_POOL_SIDE_BY_SIDE;
        }
    return alike;
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
INLINE void NAME(fold_some)(const int kind, const int rows, const int first, REAL *temp, INT *where, const REAL *const *row,
                            const INT *offset, ix n)
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

/* The same, a loop for each number of rows: windows of 2 and 3 rows need no other */
INLINE void NAME(fold)(const int kind, int rows, int first, REAL *temp, INT *where, const REAL *const *row, const INT *offset,
                       ix n)
{
    switch (rows + 4 * !first) {
    case 1: NAME(fold_some)(kind, 1, 1, temp, where, row, offset, n); break;
    case 2: NAME(fold_some)(kind, 2, 1, temp, where, row, offset, n); break;
    case 3: NAME(fold_some)(kind, 3, 1, temp, where, row, offset, n); break;
    case 4: NAME(fold_some)(kind, 4, 1, temp, where, row, offset, n); break;
    case 5: NAME(fold_some)(kind, 1, 0, temp, where, row, offset, n); break;
    default: NAME(fold_some)(kind, rows, 0, temp, where, row, offset, n); break;
    }
}

/* Columns [from, from + n) of all rows of a window, folded into temp[0 .. n); `base` is added to the positions in `where` */
INLINE void NAME(fold_rows)(const int kind, const fc_view *x, const fc_pool_rows *r, ix from, ix n, REAL *temp, INT *where, ix base)
{
    REAL buffer[4][FC_POOL_SPAN];
    const REAL *row[4];
    INT offset[4];
    int k = 0, first = 1;
    /* Up to four are added in the same order either way. Long ones one by one, since no processor foresees reads that go to and fro between them. */
    const int together = r->rows_d * r->rows_h <= 4 && n >= FC_POOL_LONG_ROW ? 1 : 4;
    for (ix d = 0; d < r->rows_d; d++) {
        for (ix h = 0; h < r->rows_h; h++) {
            const ix at = d * r->step_d + h * r->step_h;
            offset[k] = (INT)(base + at);
            row[k] = NAME(fetch)(x, r->plane + r->first + at + from, n, buffer[k]);
            if (++k < together) continue;
            NAME(fold)(kind, together, first, temp, where, row, offset, n);
            k = first = 0;
        }
    }
    if (k) NAME(fold)(kind, k, first, temp, where, row, offset, n);
}

/* Split n elements by residue modulo step. Works on bits, for indices too. */
INLINE void NAME(split)(REAL *out, const REAL *in, ix n, ix step)
{
    const ix phase = FC_POOL_PHASE(step), count = (n + step - 1) / step;
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
 * phases[tap_at[t] + j]. */
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
    if (from < to) NAME(fold_rows)(kind, x, r, from, to - from, temp + (from - left), where + (from - left), 0);
    for (ix i = 0; i < from - left; i++) temp[i] = none;
    for (ix i = to - left; i < padded; i += VL) STORE(temp + i, SPLAT(none));
    if (kind == FC_POOL_MAX_AT) {
        for (ix i = 0; i < from - left; i++) where[i] = NOWHERE;
        for (ix i = to - left; i < padded; i += VL) STORE((REAL *)where + i, (V)((M){0} + NOWHERE));
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
    NAME(wide) index = (__builtin_convertvector(at, NAME(wide)) & ~missing) + __builtin_convertvector(column, NAME(wide)) + base;
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

/* `count` outputs of a row from q0 on, by lanes, windows regular: the taps of the folded row. alike: the first divisor is that of all. */
INLINE void NAME(pool_taps)(const int kind, const ix taps, const int alike, const fc_pool *g, const fc_pool_rows *r, const REAL *phases,
                            const INT *where, ix q0, ix count, REAL *y, int64_t *indices)
{
    const ix *tap_at = g->tap_at;
    const REAL divide = (REAL)(kind == FC_POOL_SUM ? g->divisor[0][r->o] * g->divisor[1][r->p] : 1);
    FOR_LANES(j, count)
    {
        V a = LOAD(phases + j);
        if (kind == FC_POOL_SUM) {
            for (ix t = 1; t < taps; t++) a += LOAD(phases + tap_at[t] + j);
            PUT(y + j, a / ((alike ? SPLAT(g->divisor[2][0]) : NAME(from_doubles)(g->divisor[2] + q0 + j)) * divide));
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

INLINE void NAME(pool_lanes)(const int kind, const fc_view *x, const fc_pool *g, const fc_pool_rows *r, ix q0, ix count, REAL *y,
                             int64_t *indices)
{
    REAL phases[FC_POOL_ROW];
    INT where[FC_POOL_ROW];
    NAME(prepare)(kind, x, g, r, q0, count, phases, where);
    switch (g->taps) { /* unrolled for the windows that networks use */
    case 2: NAME(pool_taps)(kind, 2, 0, g, r, phases, where, q0, count, y, indices); break;
    case 3: NAME(pool_taps)(kind, 3, 0, g, r, phases, where, q0, count, y, indices); break;
    default: NAME(pool_taps)(kind, g->taps, 0, g, r, phases, where, q0, count, y, indices);
    }
}

/* Rows of side by side windows, as many at once as the buffers hold: the same bits as row by row */
INLINE void NAME(pool_seamless)(const int kind, const fc_view *x, const fc_pool *g, fc_pool_rows *r, ix rows, REAL *y, int64_t *indices)
{
    REAL folded[FC_POOL_ROW], split[FC_POOL_ROW];
    INT where[FC_POOL_ROW], where_split[FC_POOL_ROW];
    const fc_pool_rows origin = {0};
    const ix Q = g->out[2], width = Q * g->step, most = FC_POOL_SPAN / width;
    const REAL *phases = g->step == 1 ? folded : split;
    const INT *where_phases = g->step == 1 ? where : where_split;
    for (ix n; rows > 0; rows -= n) {
        n = FC_MIN(most, rows);
        for (ix i = 0; i < n; i++) {
            NAME(fold_rows)(kind, x, r, 0, width, folded + i * width, where + i * width, r->first - i * width);
            fc_pool_next(r, g);
        }
        if (g->step > 1) {
            NAME(split)(split, folded, n * width, g->step);
            if (kind == FC_POOL_MAX_AT) NAME(split)((REAL *)where_split, (const REAL *)where, n * width, g->step);
        }
        if (g->taps == 2) NAME(pool_taps)(kind, 2, 1, g, &origin, phases, where_phases, 0, n * Q, y, indices);
        else NAME(pool_taps)(kind, g->taps, 1, g, &origin, phases, where_phases, 0, n * Q, y, indices);
        y += n * Q;
        if (kind == FC_POOL_MAX_AT) indices += n * Q;
    }
}

/* Sum of `taps` elements `step` apart from p on, in a fixed order: by lanes where many lie together */
INLINE REAL NAME(sum_taps)(const REAL *p, ix taps, ix step)
{
    if (step == 1 && taps >= FC_POOL_BY_LANES) return NAME(block_sum)(p, taps);
    REAL sum = 0;
    for (ix t = 0; t < taps; t++) sum += p[t * step];
    return sum;
}

/* A row of irregular windows by lanes: rows folded by lanes, then each output by itself */
INLINE void NAME(pool_irregular)(const int kind, const fc_view *x, const fc_pool *g, const fc_pool_rows *r, REAL *y,
                                 int64_t *indices)
{
    REAL temp[FC_POOL_SPAN];
    INT where[FC_POOL_SPAN];
    NAME(fold_rows)(kind, x, r, 0, g->size[2], temp, where, 0);
    const REAL divide = (REAL)(kind == FC_POOL_SUM ? g->divisor[0][r->o] * g->divisor[1][r->p] : 1);
    for (ix q = 0; q < g->out[2]; q++) {
        const ix begin = g->begin[2][q], valid = g->valid[2][q], step = g->dilation[2];
        if (kind == FC_POOL_SUM) {
            y[q] = NAME(sum_taps)(temp + begin, valid, step) / ((REAL)g->divisor[2][q] * divide);
            continue;
        }
        REAL a = valid ? temp[begin] : (REAL)-INFINITY;
        ix best = begin;
        for (ix t = 1; t < valid; t++) {
            const ix w = begin + t * step;
            REAL v = temp[w];
            int better = NAME(beats)(v, a);
            if (kind == FC_POOL_MAX_AT) better |= (v == a || (v != v && a != a)) && where[w] < where[best];
            if (better) { a = v; best = w; }
        }
        y[q] = a;
        if (kind == FC_POOL_MAX_AT) indices[q] = valid ? r->first + where[best] + best : -1;
    }
}

/* One window by itself */
INLINE void NAME(pool_window)(const int kind, const fc_view *x, const fc_pool *g, const fc_pool_rows *r, ix q, REAL *y,
                              int64_t *index)
{
    REAL buffer[FC_BLOCK];
    fc_total total = {0, 0};
    REAL best = (REAL)-INFINITY;
    int64_t best_at = -1;
    const ix step = g->dilation[2], rows_h = g->whole ? 1 : r->rows_h, valid = g->whole ? r->rows_h * g->size[2] : g->valid[2][q];
    const ix piece = (FC_BLOCK - 1) / step + 1; /* taps whose span fits the buffer */
    for (ix k = 0; k < r->rows_d * rows_h; k++) {
        ix at = r->first + k / rows_h * r->step_d + k % rows_h * r->step_h + g->begin[2][q];
        for (ix t = 0; t < valid; t += piece) {
            const ix n = FC_MIN(piece, valid - t);
            const REAL *p = NAME(fetch)(x, r->plane + at + t * step, (n - 1) * step + 1, buffer);
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

/* The averages of whole planes of up to FC_BLOCK elements, four at a time: the same bits as pool_window one by one */
typedef double NAME(four) __attribute__((vector_size(32)));
static void NAME(average_planes)(const fc_view *x, const fc_pool *g, ix first, ix count, REAL *y)
{
    REAL buffer[4][FC_BLOCK];
    const ix size = g->size[0] * g->size[1] * g->size[2];
    const double divisor = g->divisor[0][0] * g->divisor[1][0] * g->divisor[2][0];
    for (ix i = first; i < first + count; i += 4) {
        V lanes[4] = {{0}, {0}, {0}, {0}};
        const ix planes = FC_MIN(4, first + count - i);
        for (ix k = 0; k < planes; k++) lanes[k] = NAME(block_lanes)(NAME(fetch)(x, (i + k) * size, size, buffer[k]), size);
#if VBYTES / REAL_BYTES == 2
        for (ix k = 0; k < planes; k++) y[i + k] = (REAL)((double)NAME(add_lanes)(lanes[k]) / divisor);
#else
        const V sums = NAME(add_lanes_of_4)(lanes[0], lanes[1], lanes[2], lanes[3]);
        const NAME(four) averages = (NAME(four)){sums[0], sums[1], sums[2], sums[3]} / divisor;
        if (planes == 4) {
            UNROLL for (ix k = 0; k < 4; k++) y[i + k] = (REAL)averages[k];
        } else {
            for (ix k = 0; k < planes; k++) y[i + k] = (REAL)averages[k];
        }
#endif
    }
}

/* Output rows [first, first + count) */
INLINE void NAME(pool_rows)(const int kind, const fc_view *x, const fc_pool *g, ix first, ix count, REAL *y, int64_t *indices)
{
    const ix Q = g->out[2];
    fc_pool_rows r;
    if (kind == FC_POOL_SUM && g->global && g->size[0] * g->size[1] * g->size[2] <= FC_BLOCK) {
        NAME(average_planes)(x, g, first, count, y);
        return;
    }
    fc_pool_at(&r, g, first);
    y += first * Q;
    if (kind == FC_POOL_MAX_AT) indices += first * Q;
    if (g->seamless >= (kind == FC_POOL_SUM ? FC_POOL_ALIKE : FC_POOL_SIDE_BY_SIDE)) {
        NAME(pool_seamless)(kind, x, g, &r, count, y, indices);
        return;
    }
    for (ix i = 0; i < count; i++) {
        if (r.rows_d * r.rows_h == 0) {
            for (ix q = 0; q < Q; q++) y[q] = kind == FC_POOL_SUM ? 0 : (REAL)-INFINITY;
            if (kind == FC_POOL_MAX_AT) for (ix q = 0; q < Q; q++) indices[q] = -1;
        } else if (!g->by_lanes || (kind == FC_POOL_SUM && g->whole)) {
            for (ix q = 0; q < Q; q++) NAME(pool_window)(kind, x, g, &r, q, y + q, indices + q);
        } else if (!g->regular) {
            NAME(pool_irregular)(kind, x, g, &r, y, indices);
        } else {
            for (ix q = 0; q < Q; q += FC_POOL_OUTPUTS)
                NAME(pool_lanes)(kind, x, g, &r, q, FC_MIN((ix)FC_POOL_OUTPUTS, Q - q), y + q, indices + q);
        }
        fc_pool_next(&r, g);
        y += Q;
        if (kind == FC_POOL_MAX_AT) indices += Q;
    }
}

static void NAME(avg_pool_rows)(const fc_view *x, const fc_pool *g, ix first, ix count, REAL *y)
{
    NAME(pool_rows)(FC_POOL_SUM, x, g, first, count, y, NULL);
}

static void NAME(max_pool_rows)(const fc_view *x, const fc_pool *g, ix first, ix count, REAL *y, int64_t *indices)
{
    if (indices) NAME(pool_rows)(FC_POOL_MAX_AT, x, g, first, count, y, indices);
    else NAME(pool_rows)(FC_POOL_MAX, x, g, first, count, y, NULL);
}

/* dx of one plane: every dy is added at its index, in the order of the outputs. -1 is ignored; any other index outside is left out
 * and told in *wrong. An index is read once, since another thread may be changing it. Returns whether one was wrong. */
static int NAME(max_pool_plane_backward)(const fc_view *dyv, const fc_view *indices, REAL *result, ix plane, ix size, ix outputs,
                                         REAL *scratch, int clear, int64_t *wrong)
{
    REAL buffer[FC_BLOCK];
    int64_t index_buffer[FC_BLOCK];
    int bad = 0;
    REAL *dx = scratch ? scratch : result + plane * size; /* a plane that is to be streamed is made in scratch, in the second-level cache */
    if (clear) memset(dx, 0, (size_t)size * sizeof *dx);
    FOR_BLOCKS(at, n, outputs) {
        const REAL *dy = NAME(fetch)(dyv, plane * outputs + at, n, buffer);
        const int64_t *index = fc_fetch_int64(indices, plane * outputs + at, n, index_buffer);
#pragma GCC unroll 4
        for (ix i = 0; i < n; i++) {
            int64_t k = *(const volatile int64_t *)(index + i);
            if (__builtin_expect((uint64_t)k < (uint64_t)size, 1)) dx[k] += dy[i];
            else if (k != -1) { *wrong = k; bad = 1; }
        }
    }
    if (scratch) {
        NAME(stream_out)(result + plane * size, scratch, size);
        fc_stream_end();
    }
    return bad;
}

/* The gradient of an average.
 *
 * For one row of dx, the rows of dy that reach it are divided and added up by lanes into `sums`; then each dx adds up its outputs
 * there. All orders are those of the outputs. sums: Q elements between FC_POOL_MARGIN zeros on either side. */
INLINE void NAME(gather_outputs)(const fc_view *dyv, const fc_pool *g, ix plane, ix d, ix h, REAL *sums)
{
    REAL buffer[FC_BLOCK];
    const ix Q = g->out[2], i0 = g->start[0][d], i1 = g->start[0][d + 1], j0 = g->start[1][h], j1 = g->start[1][h + 1];
    int first = 1, same = 1;
    double divide = 1;
    for (ix i = i0; i < i1; i++)
        for (ix j = j0; j < j1; j++) {
            const double here = g->divisor[0][g->holder[0][i]] * g->divisor[1][g->holder[1][j]];
            if (i == i0 && j == j0) divide = here;
            same &= here == divide;
        }
    if (i0 == i1 || j0 == j1) memset(sums, 0, (size_t)Q * sizeof *sums);
    for (ix i = i0; i < i1; i++)
        for (ix j = j0; j < j1; j++) {
            const ix o = g->holder[0][i], p = g->holder[1][j], last = i == i1 - 1 && j == j1 - 1;
            const V own = SPLAT(same ? 1 : g->divisor[0][o] * g->divisor[1][p]), all = SPLAT(same ? divide : 1);
            FOR_BLOCKS(at, n, Q) {
                const REAL *dy = NAME(fetch)(dyv, ((plane * g->out[0] + o) * g->out[1] + p) * Q + at, n, buffer);
                FOR_LANES(q, n)
                {
                    V sum = TAKE(dy + q);
                    if (!same) sum /= own;
                    if (!first) sum += TAKE(sums + at + q);
                    if (last) sum /= NAME(from_doubles)(g->divisor[2] + at + q) * all;
                    PUT(sums + at + q, sum);
                }
            }
            first = 0;
        }
}

/* dx by lanes where windows are regular: element j * step + f - low of dx is the sum over the taps of residue f of sums[j - tap / step]. */
typedef struct { const REAL *tap[FC_POOL_STEP][FC_POOL_TAPS]; ix taps[FC_POOL_STEP]; } NAME(pool_spread); /* by residue, last tap first */
static void NAME(spread_taps)(NAME(pool_spread) *s, const fc_pool *g, const REAL *sums)
{
    memset(s->taps, 0, sizeof s->taps);
    for (ix t = g->taps - 1; t >= 0; t--) {
        const ix f = g->tap_residue[t];
        s->tap[f][s->taps[f]++] = sums - g->tap_shift[t];
    }
}

INLINE void NAME(spread_steps)(const ix step, const fc_pool *g, const NAME(pool_spread) *s, REAL *dx, int stream)
{
    REAL out[FC_POOL_STEP * FC_BLOCK + 2 * FC_POOL_STEP * 16] WHOLE_LINES;
    const ix W = g->size[2];
    for (ix j0 = g->low / step; j0 * step - g->low < W; j0 += FC_BLOCK) {
        const ix from = FC_MAX(j0 * step - g->low, 0), count = FC_MIN((ix)FC_BLOCK, (W - 1 + g->low) / step + 1 - j0);
        const ix to = FC_MIN((j0 + count) * step - g->low, W);
        for (ix j = 0; j < count; j += VL) {
            V r[FC_POOL_STEP];
            UNROLL for (ix f = 0; f < step; f++) {
                r[f] = SPLAT(0);
                for (ix t = 0; t < s->taps[f]; t++) r[f] += LOAD(s->tap[f][t] + j0 + j);
            }
            if (step == 1) {
                STORE(out + j, r[0]);
            } else if (step == 2) {
                STORE(out + 2 * j, NAME(zip)(r[0], r[1], 0));
                STORE(out + 2 * j + VL, NAME(zip)(r[0], r[1], 1));
            } else if (step == 4) {
                V even[2] = {NAME(zip)(r[0], r[2], 0), NAME(zip)(r[0], r[2], 1)}, odd[2] = {NAME(zip)(r[1], r[3], 0), NAME(zip)(r[1], r[3], 1)};
                for (int half = 0; half < 2; half++) {
                    STORE(out + 4 * j + 2 * half * VL, NAME(zip)(even[half], odd[half], 0));
                    STORE(out + 4 * j + (2 * half + 1) * VL, NAME(zip)(even[half], odd[half], 1));
                }
            } else {
                REAL phase[FC_POOL_STEP][VBYTES / REAL_BYTES];
                for (ix f = 0; f < step; f++) STORE(phase[f], r[f]);
                for (ix l = 0; l < VL; l++)
                    for (ix f = 0; f < step; f++) out[(j + l) * step + f] = phase[f][l];
            }
        }
        if (stream) NAME(stream_out)(dx + from, out + (from - (j0 * step - g->low)), to - from);
        else memcpy(dx + from, out + (from - (j0 * step - g->low)), (size_t)(to - from) * sizeof *dx);
    }
}

static void NAME(spread_regular)(const fc_pool *g, const NAME(pool_spread) *s, REAL *dx, int stream)
{
    switch (g->step) { /* unrolled for the strides that networks use */
    case 1: NAME(spread_steps)(1, g, s, dx, stream); break;
    case 2: NAME(spread_steps)(2, g, s, dx, stream); break;
    case 3: NAME(spread_steps)(3, g, s, dx, stream); break;
    default: NAME(spread_steps)(4, g, s, dx, stream);
    }
}

/* The gradient of global averages: elements [first, first + count) of dx, each plane one value */
static void NAME(fill_planes)(const fc_view *dyv, const fc_pool *g, ix first, ix count, REAL *dx)
{
    const ix size = g->size[0] * g->size[1] * g->size[2];
    const REAL divide = (REAL)g->divisor[2][0] * (REAL)(g->divisor[0][0] * g->divisor[1][0]);
    for (ix at = first, n; at < first + count; at += n) {
        REAL buffer[1];
        const ix plane = at / size;
        const V value = SPLAT(*NAME(fetch)(dyv, plane, 1, buffer) / divide);
        n = FC_MIN((plane + 1) * size, first + count) - at;
        FOR_LANES(i, n) PUT(dx + at + i, value);
    }
}

static void NAME(avg_pool_rows_backward)(const fc_view *dyv, const fc_pool *g, ix first, ix count, REAL *dx, REAL *sums, int stream)
{
    const ix H = g->size[1], W = g->size[2], Q = g->out[2];
    const int64_t *start = g->start[2], *holder = g->holder[2];
    if (g->global) {
        NAME(fill_planes)(dyv, g, first * W, count * W, dx);
        return;
    }
    memset(sums, 0, FC_POOL_MARGIN * sizeof *sums);
    sums += FC_POOL_MARGIN;
    memset(sums + Q, 0, FC_POOL_MARGIN * sizeof *sums);
    dx += first * W;
    const int lanes = g->regular && g->by_lanes, whole = W * REAL_BYTES % FC_LINE == 0 && (uintptr_t)dx % FC_LINE == 0;
    const int gather = stream && lanes && !whole && W < FC_GATHERED / 2;
    NAME(pool_spread) spread;
    NAME(gathered) rows;
    rows.to = dx;
    rows.held = 0;
    if (lanes) NAME(spread_taps)(&spread, g, sums);
    ix h = first % H, d = first / H % g->size[0], plane = first / H / g->size[0];
    for (ix row = first; row < first + count; row++, dx += W, h++) {
        if (h == H) {
            h = 0;
            if (++d == g->size[0]) { d = 0; plane++; }
        }
        if (row == first || h == 0 || !fc_same_holders(g->start[1], g->holder[1], h, h - 1)) {
            NAME(gather_outputs)(dyv, g, plane, d, h, sums);
        } else if (gather && rows.held >= W && rows.held + W <= FC_GATHERED) { /* the row above, again */
            memcpy(rows.made + rows.held, rows.made + rows.held - W, (size_t)W * sizeof *dx);
            rows.held += W;
            continue;
        } else if (!stream || !lanes) {
            memcpy(dx, dx - W, (size_t)W * sizeof *dx);
            continue;
        }
        if (gather) {
            NAME(spread_regular)(g, &spread, NAME(gathered_room)(&rows, W), 0);
            rows.held += W;
            continue;
        }
        if (lanes) {
            NAME(spread_regular)(g, &spread, dx, stream);
            continue;
        }
        for (ix w = 0; w < W; w++) {
            REAL sum = 0;
            for (int64_t i = start[w]; i < start[w + 1]; i++) sum += sums[holder[i]];
            dx[w] = sum;
        }
    }
    if (gather) NAME(gathered_write)(&rows, 1);
    if (stream) fc_stream_end();
}
