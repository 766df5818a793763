/* Direct sums for few channels: tiles that read staged strips as they lie, without packing patches first.
 *
 * Packing costs a load and a store for each value of the patch matrix, which only many filters (or channels) repay. Here a vector is VL neighbouring
 * outputs of a row; tap t of it is a plain load from the strip (native/pack.h), at the vector's start + reach[t].
 *
 *   lines   one filter, LINES rows of outputs by nv vectors; a loaded row of the strip serves every output row that has a tap on it
 *   spread  `rows` filters by nv vectors of outputs
 *   brush   filters as lanes, `count` neighbouring outputs of a row: values of the strip are broadcast, and no lane is lost at the ends of rows. Two vectors of
 *           filters share what is broadcast: with one there is a load for every multiplication
 *   inner   gradient of the weights: `rows` rows of dy by `columns` of the patch matrix, a vector of partial sums each, whose lanes are added up at the end.
 *           Meanwhile the rows of dy to come are fetched, a few lines with every vector: there are many of them, and far apart
 *   stroke  the same with filters as lanes: dy is turned round (`turn`), values of the strip are broadcast, and no lane is lost at the ends of rows
 *
 * Vectors may hang over the end of a row: strips have room behind them, and drivers store only what belongs to the result. The order of every sum is that of the
 * taps, whatever tile an element falls into.
 */
#ifndef FC_DIRECT_COMMON
#define FC_DIRECT_COMMON
#define LINES 4
/* Taps along the height that lie on rows behind one another: strip offset of the first, their number, and where their weights are listed. */
typedef struct { ix at, taps, first; } fc_lines;

/* What will be read next: at each of `places`, `rows` stretches of `span` bytes, `row` bytes apart. It is fetched in shares, one for each of `calls` calls. */
typedef struct { const char **place; ix places, rows, row, span, calls, call; } fc_ahead;
#define FC_AHEAD_STEP 128 /* bytes fetched with a vector, at most: two lines */

/* Where the share of the next call begins; it takes *step bytes with each of `vectors` vectors. What is then left of a stretch is left to the processor. */
static inline const char *fc_ahead_share(fc_ahead *a, ix vectors, ix *step)
{
    ix stretches = a->places * a->rows, call = a->call++, stretch, part = 0, shares = stretches ? a->calls / stretches : 0;
    *step = 0;
    if (stretches == 0 || call >= a->calls) return (const char *)a;
    stretch = shares ? call / shares : call * stretches / a->calls;
    if (stretch >= stretches) return (const char *)a;
    if (shares > 1) part = call % shares;
    else shares = 1;
    *step = FC_MIN((a->span / (shares * vectors) + 63) / 64 * 64, FC_AHEAD_STEP);
    return a->place[stretch / a->rows] + stretch % a->rows * a->row + part * vectors * *step;
}
#endif

/* LINES * LINES_NV accumulators + LINES_NV loads + 1 broadcast; likewise below. */
#undef LINES_NV
#undef BRUSH
#undef BRUSH_PAIR
#undef INNER_COLUMNS
#undef STROKE_COLUMNS
#undef LINES_STEP
#undef LINES_CASE
#if VBYTES == 64 || defined(__aarch64__)
#define LINES_NV 4
#define BRUSH 16
#define BRUSH_PAIR 14
#define INNER_COLUMNS(rows) ((rows) == 1 ? 12 : 24 / (rows))
#define STROKE_COLUMNS(nv) 12
#elif VBYTES == 32
#define LINES_NV 3
#define BRUSH 12
#define BRUSH_PAIR 6
#define INNER_COLUMNS(rows) ((rows) == 1 ? 12 : 12 / (rows))
#define STROKE_COLUMNS(nv) (12 / (nv))
#else
#define LINES_NV 2
#define BRUSH 8
#define BRUSH_PAIR 4
#define INNER_COLUMNS(rows) ((rows) == 1 ? 10 : 8 / (rows))
#define STROKE_COLUMNS(nv) (10 / (nv))
#endif

/* One row of the strip, which output rows lo .. hi have a tap on. */
#define LINES_STEP(lo, hi)                                                                                                                          \
    {                                                                                                                                               \
        const REAL *a[LINES];                                                                                                                       \
        UNROLL for (ix m = lo; m <= hi; m++) a[m] = A + weight[h - m] * a_step;                                                                     \
        for (ix s = 0; s < taps; s++) {                                                                                                             \
            V v[LINES_NV];                                                                                                                          \
            UNROLL for (ix j = 0; j < nv; j++) v[j] = LOAD(x[j] + at + across[s]);                                                                  \
            UNROLL for (ix m = lo; m <= hi; m++) UNROLL for (ix j = 0; j < nv; j++) c[m][j] += a[m][s * a_step] * v[j];                             \
        }                                                                                                                                           \
    }                                                                                                                                               \
    break;
#define LINES_CASE(lo, hi) case lo * LINES + hi: LINES_STEP(lo, hi)

/* C[m*ldc + to[j]] = bias + sum over lines l, their taps t and taps s across of A[weight[l.first + t] + s] * strip[start[j] + l.at + (m + t)*pitch + across[s]] */
INLINE void NAME(lines_body)(const ix nv, const REAL *restrict strip, const ix *start, ix pitch, const fc_lines *lines, ix count, const ix *weights,
                             const ix *restrict across, ix taps, const REAL *restrict A, ix a_step, REAL bias, REAL *restrict C, ix ldc, const ix *to)
{
    V c[LINES][LINES_NV];
    const REAL *x[LINES_NV];
    UNROLL for (ix m = 0; m < LINES; m++) UNROLL for (ix j = 0; j < nv; j++) c[m][j] = (V){0};
    UNROLL for (ix j = 0; j < nv; j++) x[j] = strip + start[j];
    for (ix l = 0; l < count; l++) {
        const ix *weight = weights + lines[l].first;
        ix at = lines[l].at, tall = lines[l].taps;
        for (ix h = 0; h < tall + LINES - 1; h++, at += pitch) {
            ix lo = FC_MAX(h - tall + 1, 0), hi = FC_MIN(h, LINES - 1);
            switch (lo * LINES + hi) {
                LINES_CASE(0, 0) LINES_CASE(0, 1) LINES_CASE(0, 2) LINES_CASE(0, 3) LINES_CASE(1, 1)
                LINES_CASE(1, 2) LINES_CASE(1, 3) LINES_CASE(2, 2) LINES_CASE(2, 3) LINES_CASE(3, 3)
            }
        }
    }
    UNROLL for (ix m = 0; m < LINES; m++) UNROLL for (ix j = 0; j < nv; j++) STORE(C + m * ldc + to[j], c[m][j] + bias);
}

#define LINES_FUNCTION(n)                                                                                                                           \
    static __attribute__((noinline)) void NAME(lines_##n)(const REAL *strip, const ix *start, ix pitch, const fc_lines *lines, ix count,            \
                                                          const ix *weights, const ix *across, ix taps, const REAL *A, ix a_step, REAL bias,        \
                                                          REAL *C, ix ldc, const ix *to)                                                            \
    {                                                                                                                                               \
        NAME(lines_body)(FC_MIN(n, LINES_NV), strip, start, pitch, lines, count, weights, across, taps, A, a_step, bias, C, ldc, to);               \
    }
LINES_FUNCTION(1) LINES_FUNCTION(2) LINES_FUNCTION(3) LINES_FUNCTION(4)
#undef LINES_FUNCTION

static inline void NAME(lines)(ix nv, const REAL *strip, const ix *start, ix pitch, const fc_lines *lines, ix count, const ix *weights, const ix *across,
                               ix taps, const REAL *A, ix a_step, REAL bias, REAL *C, ix ldc, const ix *to)
{
    switch (nv) {
    case 1: NAME(lines_1)(strip, start, pitch, lines, count, weights, across, taps, A, a_step, bias, C, ldc, to); break;
    case 2: NAME(lines_2)(strip, start, pitch, lines, count, weights, across, taps, A, a_step, bias, C, ldc, to); break;
    case 3: NAME(lines_3)(strip, start, pitch, lines, count, weights, across, taps, A, a_step, bias, C, ldc, to); break;
    default: NAME(lines_4)(strip, start, pitch, lines, count, weights, across, taps, A, a_step, bias, C, ldc, to);
    }
}

/* C[i*ldc + to[j]] = bias[i] + sum over k of A[k*a_step + i] * strip[start[j] + reach[k]] */
INLINE void NAME(spread_body)(const ix rows, const ix nv, ix kc, const REAL *restrict A, ix a_step, const REAL *restrict strip, const ix *start,
                              const ix *restrict reach, const REAL *bias, REAL *restrict C, ix ldc, const ix *to)
{
    V c[MR][NV];
    const REAL *x[NV];
    UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] = (V){0};
    UNROLL for (ix j = 0; j < nv; j++) x[j] = strip + start[j];
    for (ix k = 0; k < kc; k++, A += a_step) {
        V b[NV];
        ix r = reach[k];
        UNROLL for (ix j = 0; j < nv; j++) b[j] = LOAD(x[j] + r);
        UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] += A[i] * b[j];
    }
    UNROLL for (ix i = 0; i < rows; i++)
    {
        REAL b = bias ? bias[i] : 0;
        UNROLL for (ix j = 0; j < nv; j++) STORE(C + i * ldc + to[j], bias ? c[i][j] + b : c[i][j]);
    }
}

typedef void (*NAME(spread_function))(ix kc, const REAL *A, ix a_step, const REAL *strip, const ix *start, const ix *reach, const REAL *bias, REAL *C,
                                      ix ldc, const ix *to);

#define SPREAD(r, n)                                                                                                                                \
    static __attribute__((noinline)) void NAME(spread_##r##x##n)(ix kc, const REAL *A, ix a_step, const REAL *strip, const ix *start,               \
                                                                 const ix *reach, const REAL *bias, REAL *C, ix ldc, const ix *to)                  \
    {                                                                                                                                               \
        NAME(spread_body)(FC_MIN(r, MR), FC_MIN(n, NV), kc, A, a_step, strip, start, reach, bias, C, ldc, to);                                      \
    }
EACH_TILE(SPREAD)
#undef SPREAD
#define SPREAD(r, n) NAME(spread_##r##x##n),
static const NAME(spread_function) NAME(spreads)[] = {EACH_TILE(SPREAD)};
#undef SPREAD

INLINE void NAME(spread)(ix rows, ix nv, ix kc, const REAL *A, ix a_step, const REAL *strip, const ix *start, const ix *reach, const REAL *bias, REAL *C,
                         ix ldc, const ix *to)
{
    TILE_OF(spreads, rows, nv)(kc, A, a_step, strip, start, reach, bias, C, ldc, to);
}

/* out[v][i][VL] = bias[v] + sum over k of A[v][k][VL] * strip[reach[k] + i], for `count` outputs i of nv vectors of filters: bias, A and out of one after another */
INLINE void NAME(brush_body)(const ix count, const ix nv, ix kc, const REAL *restrict A, const REAL *restrict strip, const ix *restrict reach, const REAL *bias,
                             REAL *restrict out, ix out_vector)
{
    V c[2][BRUSH];
    const REAL *restrict second = A + kc * VL;
    UNROLL for (ix v = 0; v < nv; v++) UNROLL for (ix i = 0; i < count; i++) c[v][i] = (V){0};
    for (ix k = 0; k < kc; k++, A += VL, second += VL) {
        V a[2];
        const REAL *x = strip + reach[k];
        UNROLL for (ix v = 0; v < nv; v++) a[v] = *(const V *)(v ? second : A);
        UNROLL for (ix i = 0; i < count; i++) UNROLL for (ix v = 0; v < nv; v++) c[v][i] += x[i] * a[v];
    }
    UNROLL for (ix v = 0; v < nv; v++) UNROLL for (ix i = 0; i < count; i++) *(V *)(out + v * out_vector + i * VL) = c[v][i] + LOAD(bias + v * VL);
}

typedef void (*NAME(brush_function))(ix kc, const REAL *A, const REAL *strip, const ix *reach, const REAL *bias, REAL *out, ix out_vector);

#define BRUSH_OF(n, nv)                                                                                                                             \
    static __attribute__((noinline)) void NAME(brush_##n##x##nv)(ix kc, const REAL *A, const REAL *strip, const ix *reach, const REAL *bias,        \
                                                                 REAL *out, ix out_vector)                                                          \
    {                                                                                                                                               \
        NAME(brush_body)(FC_MIN(n, nv == 1 ? BRUSH : BRUSH_PAIR), nv, kc, A, strip, reach, bias, out, out_vector);                                  \
    }
#define BRUSHES(nv)                                                                                                                                 \
    BRUSH_OF(1, nv) BRUSH_OF(2, nv) BRUSH_OF(3, nv) BRUSH_OF(4, nv) BRUSH_OF(5, nv) BRUSH_OF(6, nv) BRUSH_OF(7, nv) BRUSH_OF(8, nv)                 \
    BRUSH_OF(9, nv) BRUSH_OF(10, nv) BRUSH_OF(11, nv) BRUSH_OF(12, nv) BRUSH_OF(13, nv) BRUSH_OF(14, nv) BRUSH_OF(15, nv) BRUSH_OF(16, nv)
#define BRUSH_NAMES(nv)                                                                                                                             \
    {NAME(brush_1x##nv), NAME(brush_2x##nv), NAME(brush_3x##nv), NAME(brush_4x##nv), NAME(brush_5x##nv), NAME(brush_6x##nv),                        \
     NAME(brush_7x##nv), NAME(brush_8x##nv), NAME(brush_9x##nv), NAME(brush_10x##nv), NAME(brush_11x##nv), NAME(brush_12x##nv),                     \
     NAME(brush_13x##nv), NAME(brush_14x##nv), NAME(brush_15x##nv), NAME(brush_16x##nv)}
BRUSHES(1) BRUSHES(2)
static const NAME(brush_function) NAME(brushes)[][16] = {BRUSH_NAMES(1), BRUSH_NAMES(2)};
#undef BRUSH_OF
#undef BRUSHES
#undef BRUSH_NAMES

/* A row of `width` outputs of nv <= 2 vectors of filters, in pieces of nearly equal size. */
static void NAME(brush)(ix width, ix nv, ix kc, const REAL *A, const REAL *strip, const ix *reach, const REAL *bias, REAL *out, ix out_vector)
{
    ix tiles = fc_ceil_div(width, nv == 1 ? BRUSH : BRUSH_PAIR);
    for (ix t = 0; t < tiles; t++) {
        ix q = t * width / tiles, count = (t + 1) * width / tiles - q;
        NAME(brushes)[nv - 1][count - 1](kc, A, strip + q, reach, bias, out + q * VL, out_vector);
    }
}

/* Panels of MR filters, one behind another `panel` apart -> A[k][VL]; filters past `rows` are zeros. */
static void NAME(pack_brush)(REAL *A, const REAL *panels, ix panel, ix rows, ix kc)
{
    for (ix k = 0; k < kc; k++)
        for (ix i = 0; i < VL; i += MR)
            for (ix m = 0; m < MR; m++) A[k * VL + i + m] = i + m < rows ? panels[i / MR * panel + k * MR + m] : 0;
}

/* Rows of a tile -> `count` <= VL outputs that lie `yw` apart in each of `rows` rows. What lies between the first and the last is read and written back. */
static void NAME(put_tile)(REAL *y, ix ldy, ix yw, const REAL *tile, ix ld, ix rows, ix count)
{
    for (ix i = 0; i < rows; i++, y += ldy, tile += ld) {
        if (yw == 1) FOR_LANES(l, count) PUT(y + l, LOAD(tile + l));
        else if (yw == 2 && count == VL) {
            const M odd = (NAME(lane_numbers)() & 1) != 0;
            V v = LOAD(tile);
            STORE(y, SELECT(odd, LOAD(y), NAME(zip)(v, v, 0)));
            STORE(y + VL - 1, SELECT(odd, NAME(zip)(v, v, 1), LOAD(y + VL - 1)));
        } else
            for (ix l = 0; l < count; l++) y[l * yw] = tile[l];
    }
}

/* ---- gradient of the weights */

/* Rows of `width` values, one behind another `stride` bytes apart -> rows of `pitch`, zeros between and up to `size`. */
static void NAME(stage_dy)(REAL *dst, const char *src, ix rows, ix stride, ix width, ix step, int swap, ix pitch, ix size)
{
    for (ix r = 0; r < rows; r++, src += stride) {
        REAL *d = dst + r * pitch, *end = r + 1 < rows ? d + pitch : dst + size;
        NAME(copy_row)(d, src, width, step, swap);
        for (d += width; d < end; d++) *d = 0;
    }
}

/* Add the first `count` <= 4 lanes to memory. A masked load would have to wait for the masked store beside it. */
typedef REAL NAME(first_four) __attribute__((vector_size(4 * REAL_BYTES), aligned(REAL_BYTES), may_alias));
INLINE void NAME(add_first)(REAL *to, V sum, const ix count)
{
    if (count == 4 && VL >= 4) {
        NAME(first_four) first;
        memcpy(&first, &sum, FC_MIN(sizeof first, sizeof sum));
        *(NAME(first_four) *)to += first;
    } else
        UNROLL for (ix i = 0; i < count; i++) to[i] += sum[i];
}

/* sums[i*ld + j] += sum over the lanes of n vectors v of dy[i*dy_row + v*VL ...] * strip[start[v] + reach[j] ...] */
INLINE void NAME(inner_body)(const ix rows, const ix columns, ix n, const REAL *restrict dy, ix dy_row, const REAL *restrict strip, const ix *restrict start,
                             const ix *restrict reach, REAL *restrict sums, ix ld, const char *ahead, ix step)
{
    V c[4][12];
    const REAL *x[12];
    UNROLL for (ix j = 0; j < columns; j++) x[j] = strip + reach[j];
    UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < columns; j++) c[i][j] = (V){0};
    for (ix v = 0; v < n; v++, dy += VL, ahead += step) {
        ix s = start[v];
        V b[12];
        __builtin_prefetch(ahead, 0, 2);
        __builtin_prefetch(ahead + 64, 0, 2);
        UNROLL for (ix j = 0; j < columns; j++) b[j] = LOAD(x[j] + s);
        UNROLL for (ix i = 0; i < rows; i++)
        {
            V d = *(const V *)(dy + i * dy_row);
            UNROLL for (ix j = 0; j < columns; j++) c[i][j] += d * b[j];
        }
    }
    UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < columns; j += 4)
    {
        const V none = {0};
        const ix left = columns - j;
        REAL *to = sums + i * ld + j;
        V sum = NAME(add_lanes_of_4)(c[i][j], left > 1 ? c[i][j + 1] : none, left > 2 ? c[i][j + 2] : none, left > 3 ? c[i][j + 3] : none);
        if (VL > 2) NAME(add_first)(to, sum, FC_MIN(left, 4));
        else { /* two lanes hold two of the four sums */
            NAME(add_first)(to, sum, FC_MIN(left, 2));
            sum = NAME(add_lanes_of_4)(left > 2 ? c[i][j + 2] : none, left > 3 ? c[i][j + 3] : none, none, none);
            if (left > 2) NAME(add_first)(to + 2, sum, FC_MIN(left - 2, 2));
        }
    }
}

typedef void (*NAME(inner_function))(ix n, const REAL *dy, ix dy_row, const REAL *strip, const ix *start, const ix *reach, REAL *sums, ix ld, const char *ahead,
                                     ix step);

#define INNER(r, m)                                                                                                                                 \
    static __attribute__((noinline)) void NAME(inner_##r##x##m)(ix n, const REAL *dy, ix dy_row, const REAL *strip, const ix *start,                \
                                                                const ix *reach, REAL *sums, ix ld, const char *ahead, ix step)                     \
    {                                                                                                                                               \
        NAME(inner_body)(r, FC_MIN(m, INNER_COLUMNS(r)), n, dy, dy_row, strip, start, reach, sums, ld, ahead, step);                                \
    }
#define INNER_ROW(r) INNER(r, 1) INNER(r, 2) INNER(r, 3) INNER(r, 4) INNER(r, 5) INNER(r, 6) INNER(r, 7) INNER(r, 8) INNER(r, 9) INNER(r, 10) INNER(r, 11) INNER(r, 12)
#define INNER_NAMES(r)                                                                                                                              \
    {NAME(inner_##r##x1), NAME(inner_##r##x2), NAME(inner_##r##x3), NAME(inner_##r##x4), NAME(inner_##r##x5), NAME(inner_##r##x6),                  \
     NAME(inner_##r##x7), NAME(inner_##r##x8), NAME(inner_##r##x9), NAME(inner_##r##x10), NAME(inner_##r##x11), NAME(inner_##r##x12)}
INNER_ROW(1) INNER_ROW(2) INNER_ROW(3) INNER_ROW(4)
static const NAME(inner_function) NAME(inners)[][12] = {INNER_NAMES(1), INNER_NAMES(2), INNER_NAMES(3), INNER_NAMES(4)};
#undef INNER
#undef INNER_ROW
#undef INNER_NAMES

/* How often `inner` calls upon `ahead`. */
static ix NAME(inner_calls)(ix rows, ix columns)
{
    ix row_tiles = fc_ceil_div(rows, 4), calls = 0;
    for (ix a = 0; a < row_tiles; a++) calls += fc_ceil_div(columns, INNER_COLUMNS((a + 1) * rows / row_tiles - a * rows / row_tiles));
    return calls;
}

/* All rows by all columns, in tiles of nearly equal size. */
static void NAME(inner)(ix rows, ix columns, ix n, const REAL *dy, ix dy_row, const REAL *strip, const ix *start, const ix *reach, REAL *sums, ix ld,
                        fc_ahead *ahead)
{
    ix row_tiles = fc_ceil_div(rows, 4), step;
    for (ix a = 0; a < row_tiles; a++) {
        ix i = a * rows / row_tiles, m = (a + 1) * rows / row_tiles - i, tiles = fc_ceil_div(columns, INNER_COLUMNS(m));
        for (ix b = 0; b < tiles; b++) {
            ix j = b * columns / tiles, width = (b + 1) * columns / tiles - j;
            const char *share = fc_ahead_share(ahead, n, &step);
            NAME(inners)[m - 1][width - 1](n, dy + i * dy_row, dy_row, strip, start, reach + j, sums + i * ld + j, ld, share, step);
        }
    }
}

/* Rows of dy, VL filters at a time -> [group of VL filters][pixel][VL filters]; filters past `rows` are zeros. */
static void NAME(turn)(REAL *dst, const REAL *dy, ix dy_row, ix rows, ix vectors)
{
    REAL block[VBYTES / REAL_BYTES * (VBYTES / REAL_BYTES)] __attribute__((aligned(64)));
    for (ix first = 0; first < rows; first += VL)
        for (ix v = 0; v < vectors; v++, dst += VL * VL) {
            for (ix r = 0; r < VL; r++) *(V *)(block + r * VL) = first + r < rows ? *(const V *)(dy + (first + r) * dy_row + v * VL) : (V){0};
            NAME(transpose_block)(dst, block);
        }
}

/* sums[(v*ld + j)*VL ...] += sum over `lines` rows of `width` pixels p of dy[v*group + p*VL ...] * strip[line*pitch + p + reach[j]], pixels of dy one behind another */
INLINE void NAME(stroke_body)(const ix columns, const ix nv, ix lines, ix width, const REAL *restrict dy, ix group, const REAL *restrict strip, ix pitch,
                              const ix *restrict reach, REAL *restrict sums, ix ld)
{
    V c[12][2];
    const REAL *x[12];
    UNROLL for (ix j = 0; j < columns; j++)
    {
        x[j] = strip + reach[j];
        UNROLL for (ix v = 0; v < nv; v++) c[j][v] = (V){0};
    }
    for (ix line = 0; line < lines; line++) {
        for (ix p = 0; p < width; p++, dy += VL) {
            V d[2];
            UNROLL for (ix v = 0; v < nv; v++) d[v] = *(const V *)(dy + v * group);
            UNROLL for (ix j = 0; j < columns; j++) UNROLL for (ix v = 0; v < nv; v++) c[j][v] += x[j][p] * d[v];
        }
        UNROLL for (ix j = 0; j < columns; j++) x[j] += pitch;
    }
    UNROLL for (ix j = 0; j < columns; j++) UNROLL for (ix v = 0; v < nv; v++) *(V *)(sums + (v * ld + j) * VL) += c[j][v];
}

typedef void (*NAME(stroke_function))(ix lines, ix width, const REAL *dy, ix group, const REAL *strip, ix pitch, const ix *reach, REAL *sums, ix ld);

#define STROKE(m, n)                                                                                                                                  \
    static __attribute__((noinline)) void NAME(stroke_##m##x##n)(ix lines, ix width, const REAL *dy, ix group, const REAL *strip, ix pitch,           \
                                                                 const ix *reach, REAL *sums, ix ld)                                                  \
    {                                                                                                                                                 \
        NAME(stroke_body)(FC_MIN(m, STROKE_COLUMNS(n)), n, lines, width, dy, group, strip, pitch, reach, sums, ld);                                   \
    }
#define STROKE_PAIR(m) STROKE(m, 1) STROKE(m, 2)
#define STROKE_NAMES(m) {NAME(stroke_##m##x1), NAME(stroke_##m##x2)}
STROKE_PAIR(1) STROKE_PAIR(2) STROKE_PAIR(3) STROKE_PAIR(4) STROKE_PAIR(5) STROKE_PAIR(6)
STROKE_PAIR(7) STROKE_PAIR(8) STROKE_PAIR(9) STROKE_PAIR(10) STROKE_PAIR(11) STROKE_PAIR(12)
static const NAME(stroke_function) NAME(strokes)[][2] = {
    STROKE_NAMES(1), STROKE_NAMES(2), STROKE_NAMES(3), STROKE_NAMES(4), STROKE_NAMES(5), STROKE_NAMES(6),
    STROKE_NAMES(7), STROKE_NAMES(8), STROKE_NAMES(9), STROKE_NAMES(10), STROKE_NAMES(11), STROKE_NAMES(12),
};
#undef STROKE
#undef STROKE_PAIR
#undef STROKE_NAMES

/* All groups of VL filters (at most two at once) by all columns. sums: [group][column][VL] */
static void NAME(stroke)(ix groups, ix columns, ix lines, ix width, const REAL *dy, ix group, const REAL *strip, ix pitch, const ix *reach, REAL *sums)
{
    for (ix g = 0; g < groups; g += 2) {
        ix n = FC_MIN(groups - g, 2), tiles = fc_ceil_div(columns, STROKE_COLUMNS(n));
        for (ix b = 0; b < tiles; b++) {
            ix j = b * columns / tiles, m = (b + 1) * columns / tiles - j;
            NAME(strokes)[m - 1][n - 1](lines, width, dy + g * group, group, strip, pitch, reach + j, sums + (g * columns + j) * VL, columns);
        }
    }
}

/* dst[row][column] = sums[row / VL][column][row % VL] */
static void NAME(part_filters)(REAL *dst, const REAL *sums, ix rows, ix columns)
{
    for (ix i = 0; i < rows; i++)
        for (ix j = 0; j < columns; j++) dst[i * columns + j] = sums[(i / VL * columns + j) * VL + i % VL];
}

static inline ix NAME(lines_vectors)(void) { return LINES_NV; }
