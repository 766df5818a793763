/* Winograd's algorithm along one axis, the sum over channels and all other taps done directly between its transforms: y = A^T [ sum of (G w) * (B^T d) ].
 *
 * The sums of all points of a tile stay in registers, those of a few filters at once, and leave them as outputs. So nothing like the products of the algorithm in
 * two dimensions is written, an input is transformed once for all filters, and multiplications fall by points / (outputs * taps): to a half for three taps. It pays
 * where channels are few, and serves kernels that are no squares: signals, volumes, rows and columns.
 *
 * Tiles lie down a map or across it. Lanes are columns, or tiles; rows of transformed inputs T[unit][point][row][lane] follow one another, `pitch` apart, and lanes run
 * over their ends. A unit is a channel, with its planes of depth and phases of the stride; where the taps of the other axis lie in it, `reach` tells.
 *
 *   wino1_down, wino1_across   rows of a strip (native/pack.h) -> T
 *   wino1_filters              taps -> U[step][point][filter]
 *   wino1_sum                  a few filters by a vector of lanes
 *   wino1_brush                filters as lanes by a few lanes of T: no lane is lost at the ends of rows
 *   wino1_put, wino1_mend      outputs -> their rows; those that are not finite computed again
 */
#ifndef FC_WINOGRAD1D_H
#define FC_WINOGRAD1D_H
typedef struct {
    ix n, m;           /* points and outputs of a tile */
    int across;        /* tiles lie side by side along a row; else below one another */
    ix pitch, lanes;   /* from row to row of T; lanes of a row that count */
    ix rows, width;    /* outputs of the band */
    ix channel, yh, yw; /* destination strides in elements */
} fc_wino1;

#endif

/* Registers: n * WINO1_FILTERS sums, a vector of inputs, and where operands in memory cannot be broadcast a scalar. Where they are few, eight points are summed up in
 * two turns. */
#undef WINO1_FILTERS
#undef WINO1_TURNS
#if VBYTES == 64 || defined(__aarch64__)
#define WINO1_FILTERS(n) ((n) == 8 ? 3 : 4)
#define WINO1_TURNS(n) 1
#else
#define WINO1_FILTERS(n) ((n) == 8 ? 3 : 2)
#define WINO1_TURNS(n) ((n) == 8 ? 2 : 1)
#endif

/* ---- inputs */

INLINE void NAME(wino1_down_body)(REAL *restrict T, ix plane, ix pitch, const REAL *strip, ix row, ix tiles, ix width, const ix n, const ix m)
{
    V d[WINO_MAX], t[WINO_MAX];
    for (ix k = 0; k < tiles; k++, T += pitch, strip += m * row)
        for (ix q = 0; q < width; q += VL) { /* what spills over the end of a row is overwritten by the next one */
            UNROLL for (ix i = 0; i < n; i++) d[i] = LOAD(strip + i * row + q);
            NAME(wino_input_points)(d, t, n);
            UNROLL for (ix i = 0; i < n; i++) STORE(T + i * plane + q, t[i]);
        }
}

/* Rows of a strip, `row` apart -> points of `tiles` tiles below one another, each `width` columns: T[point][tile][column]. */
static void NAME(wino1_down)(REAL *T, ix plane, ix pitch, const REAL *strip, ix row, ix tiles, ix width, ix n, ix m)
{
    WINO_EVERY_TILE(n, m, NAME(wino1_down_body), T, plane, pitch, strip, row, tiles, width);
}

INLINE void NAME(wino1_across_body)(REAL *restrict T, ix plane, ix pitch, const REAL *strip, ix row, ix rows, ix tiles, const ix n, const ix m)
{
    V d[WINO_MAX], t[WINO_MAX];
    for (ix k = 0; k < rows; k++, T += pitch, strip += row)
        for (ix q = 0; q < tiles; q += VL) {
            NAME(split_tiles)(strip, q * m, 0, 0, d, m, n, 1);
            NAME(wino_input_points)(d, t, n);
            UNROLL for (ix i = 0; i < n; i++) STORE(T + i * plane + q, t[i]);
        }
}

/* The same for tiles side by side: T[point][row][tile]. Up to VL tiles more are read. */
static void NAME(wino1_across)(REAL *T, ix plane, ix pitch, const REAL *strip, ix row, ix rows, ix tiles, ix n, ix m)
{
    WINO_EVERY_TILE(n, m, NAME(wino1_across_body), T, plane, pitch, strip, row, rows, tiles);
}

/* ---- weights */

INLINE void NAME(wino1_filters_body)(REAL *const *U, const ix *step, const REAL *taps, ix rows, ix count, const ix n, const ix m)
{
    const ix r = n + 1 - m;
    for (ix k = 0; k < count; k++, taps += r * MR) {
        W g[WINO_TAPS], u[WINO_MAX];
        UNROLL for (ix i = 0; i < r; i++) g[i] = *(const W *)(taps + i * MR);
        NAME(wino_filter_points)(g, u, r, n);
        for (ix i = 0; i < rows; i++) UNROLL for (ix p = 0; p < n; p++) U[i][(k * n + p) * step[i]] = u[p][i];
    }
}

/* A packed panel taps[count][r][MR] -> points, those of filter i to U[i], step[i] apart. */
static void NAME(wino1_filters)(REAL *const *U, const ix *step, const REAL *taps, ix rows, ix count, ix n, ix m)
{
    WINO_EVERY_TILE(n, m, NAME(wino1_filters_body), U, step, taps, rows, count);
}

/* ---- products */

/* Keep a vector that several products share in a register: the compiler would load it again for each and broadcast the scalars first, with twice the loads. */
#undef WINO1_HOLD
#if VBYTES >= 32
#define WINO1_HOLD(v) __asm__("" : "+v"(v))
#else
#define WINO1_HOLD(v)
#endif

/* out[i*ldf + o*ldm ...] = bias[i] + output o of the tile whose points are the sums over k of U[k][point][i] * T[reach[k] + point*plane ...].
 * Long sums are taken in pieces: one that begins goes on from sums[point][i] if there are any (`goes_on`), and one that does not end leaves its sums there (`last` not
 * set). Returns a vector that is zero, or NaN where an output is not finite. */
INLINE V NAME(wino1_sum_body)(ix steps, const REAL *restrict U, const REAL *restrict T, const ix *restrict reach, ix plane, const REAL *bias, REAL *restrict out,
                              ix ldf, ix ldm, REAL *sums, int goes_on, int last, const ix f, const ix n, const ix m)
{
    const ix turns = WINO1_TURNS(n);
    V c[WINO_MAX][4], all = {0};
    UNROLL for (ix p = 0; p < n; p++) UNROLL for (ix i = 0; i < f; i++) c[p][i] = (V){0};
    if (goes_on) UNROLL for (ix p = 0; p < n; p++) UNROLL for (ix i = 0; i < f; i++) c[p][i] = *(const V *)(sums + (p * f + i) * VL);
    UNROLL for (ix turn = 0; turn < turns; turn++)
    {
        const REAL *u = U;
        for (ix k = 0; k < steps; k++, u += n * f) {
            const REAL *x = T + reach[k];
            UNROLL for (ix p = turn * n / turns; p < (turn + 1) * n / turns; p++)
            {
                V b = LOAD(x + p * plane);
                WINO1_HOLD(b);
                UNROLL for (ix i = 0; i < f; i++) c[p][i] += u[p * f + i] * b;
            }
        }
    }
    if (!last) {
        UNROLL for (ix p = 0; p < n; p++) UNROLL for (ix i = 0; i < f; i++) *(V *)(sums + (p * f + i) * VL) = c[p][i];
        return all;
    }
    UNROLL for (ix i = 0; i < f; i++)
    {
        V t[WINO_MAX], o[WINO_OUTPUTS];
        UNROLL for (ix p = 0; p < n; p++) t[p] = c[p][i];
        NAME(wino_outputs)(t, o, m, n);
        UNROLL for (ix j = 0; j < m; j++)
        {
            o[j] += bias[i];
            all += o[j];
            *(V *)(out + i * ldf + j * ldm) = o[j];
        }
    }
    return all * 0;
}

/* The same for VL filters, U[k][point][VL], and `count` lanes of T: out[o*ldm + lane*VL ...]. */
INLINE V NAME(wino1_brush_body)(ix steps, const REAL *restrict U, const REAL *restrict T, const ix *restrict reach, ix plane, const REAL *bias, REAL *restrict out,
                                ix unused, ix ldm, REAL *sums, int goes_on, int last, const ix count, const ix n, const ix m)
{
    const ix turns = WINO1_TURNS(n);
    V c[WINO_MAX][4], all = {0};
    UNROLL for (ix p = 0; p < n; p++) UNROLL for (ix i = 0; i < count; i++) c[p][i] = (V){0};
    UNROLL for (ix turn = 0; turn < turns; turn++)
    {
        const REAL *at = U;
        for (ix k = 0; k < steps; k++, at += n * VL) {
            const REAL *x = T + reach[k];
            UNROLL for (ix p = turn * n / turns; p < (turn + 1) * n / turns; p++)
            {
                V u = *(const V *)(at + p * VL);
                WINO1_HOLD(u);
                UNROLL for (ix i = 0; i < count; i++) c[p][i] += x[p * plane + i] * u;
            }
        }
    }
    UNROLL for (ix i = 0; i < count; i++)
    {
        V t[WINO_MAX], o[WINO_OUTPUTS];
        UNROLL for (ix p = 0; p < n; p++) t[p] = c[p][i];
        NAME(wino_outputs)(t, o, m, n);
        UNROLL for (ix j = 0; j < m; j++)
        {
            o[j] += LOAD(bias);
            all += o[j];
            *(V *)(out + j * ldm + i * VL) = o[j];
        }
    }
    return all * 0;
}

typedef V (*NAME(wino1_function))(ix steps, const REAL *U, const REAL *T, const ix *reach, ix plane, const REAL *bias, REAL *out, ix ldf, ix ldm,
                                   REAL *sums, int goes_on, int last);

#define WINO1_OF(kind, f, n, m)                                                                                                                        \
    static __attribute__((noinline)) V NAME(wino1_##kind##_##f##x##n##x##m)(ix steps, const REAL *U, const REAL *T, const ix *reach, ix plane,         \
                                                                            const REAL *bias, REAL *out, ix ldf, ix ldm, REAL *sums, int goes_on, int last) \
    {                                                                                                                                                  \
        return NAME(wino1_##kind##_body)(steps, U, T, reach, plane, bias, out, ldf, ldm, sums, goes_on, last, FC_MIN(f, WINO1_FILTERS(n)), n, m);                           \
    }
#define WINO1_TILE(kind, n, m) WINO1_OF(kind, 1, n, m) WINO1_OF(kind, 2, n, m) WINO1_OF(kind, 3, n, m) WINO1_OF(kind, 4, n, m)
#define WINO1_NAMES(kind, n, m)                                                                                                                        \
    {NAME(wino1_##kind##_1x##n##x##m), NAME(wino1_##kind##_2x##n##x##m), NAME(wino1_##kind##_3x##n##x##m), NAME(wino1_##kind##_4x##n##x##m)}
#define WINO1_KIND(kind, table)                                                                                                                        \
    WINO1_TILE(kind, 6, 2) WINO1_TILE(kind, 6, 3) WINO1_TILE(kind, 6, 4) WINO1_TILE(kind, 6, 5) WINO1_TILE(kind, 8, 2) WINO1_TILE(kind, 8, 3)           \
    static const NAME(wino1_function) NAME(table)[][4] = {WINO1_NAMES(kind, 6, 2), WINO1_NAMES(kind, 6, 3), WINO1_NAMES(kind, 6, 4),         \
                                                                    WINO1_NAMES(kind, 6, 5), WINO1_NAMES(kind, 8, 2), WINO1_NAMES(kind, 8, 3)};
WINO1_KIND(sum, wino1_sums)
WINO1_KIND(brush, wino1_brushes)
#undef WINO1_OF
#undef WINO1_TILE
#undef WINO1_NAMES
#undef WINO1_KIND

static inline ix NAME(wino1_filters_at_once)(ix n) { return WINO1_FILTERS(n); }

/* `vectors` of T -> held[filter][output][lane], `ld` lanes, for f filters. Whether all outputs are finite. sums: of a piece of the sum, one vector after another. */
static int NAME(wino1_sum)(const fc_wino1 *g, ix f, ix steps, const REAL *U, const REAL *T, const ix *reach, ix plane, ix vectors, const REAL *bias, REAL *held,
                           ix ld, REAL *sums, int goes_on, int last)
{
    const NAME(wino1_function) sum = NAME(wino1_sums)[(g->n == 8 ? 4 : 0) + g->m - 2][f - 1];
    V all = {0};
    for (ix v = 0; v < vectors; v++, sums += g->n * f * VL)
        all += sum(steps, U, T + v * VL, reach, plane, bias, held + v * VL, g->m * ld, ld, sums, goes_on, last);
    return !NAME(any_nan)(all);
}

/* The same for a vector of filters and `lanes` columns: out[output][lane][VL], outputs `ldm` apart. */
static int NAME(wino1_brush)(const fc_wino1 *g, ix steps, const REAL *U, const REAL *T, const ix *reach, ix plane, ix lanes, const REAL *bias, REAL *out, ix ldm)
{
    const ix pieces = fc_ceil_div(lanes, WINO1_FILTERS(g->n));
    V all = {0};
    for (ix k = 0; k < pieces; k++) {
        ix at = k * lanes / pieces, count = (k + 1) * lanes / pieces - at;
        all += NAME(wino1_brushes)[(g->n == 8 ? 4 : 0) + g->m - 2][count - 1](steps, U, T + at, reach, plane, bias, out + at * VL, 0, ldm, NULL, 0, 1);
    }
    return !NAME(any_nan)(all);
}

/* ---- outputs */

INLINE void NAME(wino1_row)(REAL *y, ix yw, REAL *from, ix count, int activation, int stream)
{
    if (activation) NAME(activate)(from, count, activation);
    if (yw > 1) {
        for (ix i = 0; i < count; i++) y[i * yw] = from[i];
        return;
    }
    if (stream) NAME(stream_out)(y, from, count);
    else FOR_LANES(i, count) PUT(y + i, LOAD(from + i));
}

INLINE void NAME(wino1_join)(REAL *row, const REAL *held, ix ld, ix tiles, const ix n, const ix m)
{
    V y[WINO_OUTPUTS];
    (void)n;
    for (ix q = 0; q < tiles; q += VL) {
        UNROLL for (ix j = 0; j < m; j++) y[j] = LOAD(held + j * ld + q);
        NAME(join_tiles)(row + q * m, y, m);
    }
}

/* The lines of y that the next will write: they have the time of the sums to arrive. */
static void NAME(wino1_fetch)(REAL *y, ix filters, ix a, ix b, const fc_wino1 *g)
{
    const ix step = FC_LINE / REAL_BYTES, down = g->across ? 1 : g->m, along = g->across ? g->m : 1;
    for (ix i = 0; i < filters; i++, y += g->channel)
        for (ix r = a / g->pitch; r * g->pitch < b; r++) {
            ix c0 = FC_MAX(a - r * g->pitch, 0) * along, c1 = FC_MIN(FC_MIN(b - r * g->pitch, g->lanes) * along, g->width);
            for (ix j = r * down; j < FC_MIN((r + 1) * down, g->rows); j++)
                for (ix q = c0; q < c1; q += step) FETCH_TO_WRITE(y + j * g->yh + q);
        }
}

/* Lanes [a, b) of held[filter][output][lane] -> rows of y, activated. y: the band's first output of the first filter; row: room for a row and a vector of tiles. */
static void NAME(wino1_put)(REAL *y, REAL *held, ix ld, ix filters, ix a, ix b, const fc_wino1 *g, int activation, int stream, REAL *row)
{
    const ix m = g->m;
    for (ix i = 0; i < filters; i++, y += g->channel, held += m * ld)
        for (ix r = a / g->pitch; r * g->pitch < b; r++) {
            ix c0 = FC_MAX(a - r * g->pitch, 0), c1 = FC_MIN(b - r * g->pitch, g->lanes);
            REAL *from = held + r * g->pitch + c0 - a;
            if (c0 >= c1) continue;
            if (!g->across) {
                for (ix j = 0; j < FC_MIN(m, g->rows - r * m); j++)
                    NAME(wino1_row)(y + (r * m + j) * g->yh + c0 * g->yw, g->yw, from + j * ld, c1 - c0, activation, stream);
                continue;
            }
            WINO_EVERY_TILE(g->n, m, NAME(wino1_join), row, from, ld, c1 - c0);
            NAME(wino1_row)(y + r * g->yh + c0 * m * g->yw, g->yw, row, FC_MIN(c1 * m, g->width) - c0 * m, activation, stream);
        }
}

/* One output by its definition, no bias; zeros of the padding take no part. tap: byte offset of each tap in a plane of the filter. */
static __attribute__((noinline)) REAL NAME(wino1_defined)(const fc_source *s, const char *source, const fc_axis *axis, ix channels, const char *w, ix w_channel,
                                                          const ix *tap, int w_swap, ix od, ix oh, ix ow)
{
    REAL total = 0, x, v;
    for (ix c = 0; c < channels; c++) {
        REAL sum = 0;
        ix t = 0;
        for (ix i = 0; i < axis[0].taps; i++)
            for (ix j = 0; j < axis[1].taps; j++)
                for (ix k = 0; k < axis[2].taps; k++, t++) {
                    ix d = fc_source_index(&axis[0], od * axis[0].step + axis[0].offset[i]), h = fc_source_index(&axis[1], oh * axis[1].step + axis[1].offset[j]);
                    ix q = fc_source_index(&axis[2], ow * axis[2].step + axis[2].offset[k]);
                    if (d < 0 || h < 0 || q < 0) continue;
                    NAME(copy_row)(&x, source + c * s->c + d * s->d + h * s->h + q * s->w, 1, 0, s->swap);
                    NAME(copy_row)(&v, w + c * w_channel + tap[t], 1, 0, w_swap);
                    sum += x * v;
                }
        total += sum;
        if (total != total) break; /* nothing makes a NaN finite again */
    }
    return total;
}

/* A non-finite input, or one whose transform overflows, makes every output of its tile non-finite, also those whose own sum does not contain it. Among the outputs of
 * lanes [a, b), of one filter and not yet activated, those that are not finite are computed again by their definition, so that non-finite values stay where they
 * belong. w: the filter; run: the band. */
static void NAME(wino1_mend)(REAL *y, ix a, ix b, const fc_wino1 *g, const fc_run *run, const fc_source *s, const char *source, const fc_axis *axis, ix channels,
                             const char *w, ix w_channel, const ix *tap, int w_swap, REAL bias, int activation)
{
    for (ix r = a / g->pitch; r * g->pitch < b; r++) {
        ix c0 = FC_MAX(a - r * g->pitch, 0), c1 = FC_MIN(b - r * g->pitch, g->lanes);
        ix h0 = g->across ? r : r * g->m, h1 = g->across ? r + 1 : FC_MIN(h0 + g->m, g->rows);
        if (g->across) c0 *= g->m, c1 = FC_MIN(c1 * g->m, g->width);
        for (ix h = h0; h < h1; h++)
            for (ix q = c0; q < c1; q++) {
                REAL *v = y + h * g->yh + q * g->yw;
                if (!(*v - *v == 0))
                    *v = NAME(wino1_defined)(s, source + run->n * s->n, axis, channels, w, w_channel, tap, w_swap, run->od, run->oh + h, run->q + q) + bias;
                if (activation) NAME(activate)(v, 1, activation);
            }
    }
}
