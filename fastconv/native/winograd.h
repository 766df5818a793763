/* Winograd convolution with tiles of 6 x 6 transformed points: y = A^T [ (G w G^T) * (B^T d B) ] A, for kernels of r = 2 to 5 taps an axis.
 *
 * A tile yields m = 7 - r outputs an axis from 6 inputs, so one input transform serves every r. A convolution of stride s is one of stride 1 over s * s times the
 * channels, one for each phase of the input, with ceil(taps / s) taps an axis; its gradient has s * s times the output channels, one for each phase of dx. A dilated
 * convolution is one of dilation 1 in every phase of its outputs, as if they were samples. Interpolation points 0, +-5/8, +-3/2 and infinity: their squares
 * are dyadic, so the constants are exact, and the amplification of rounding errors is a fraction of that of the customary 0, +-1, +-2 (CPU notes, section 3).
 * Lanes are tiles, numbered flat over (sample, tile row, tile column): no rule about channel counts or map widths.
 * Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015; S. Winograd, "Arithmetic Complexity of Computations", 1980.
 */
#ifndef FC_WINOGRAD_H
#define FC_WINOGRAD_H
#define WINO_A 0.625
#define WINO_B 1.5
#define WINO_A2 0.390625
#define WINO_B2 2.25
#define WINO_A2B2 0.87890625
#define WINO_SUM 2.640625 /* a^2 + b^2 */

typedef struct {
    ix th, tw;         /* tiles along a map's column and row */
    ix ph, pw;         /* maps of a sample: phases of the outputs, one for each row and column of the dilation */
    ix m;              /* outputs of a tile along each axis: 2 to 5 */
    ix oh, ow;         /* extent of the grid of outputs that the tiles cover */
    fc_axis h, w;      /* the source: output o, tap t of a phase lie at source index (o + t) * step + the phase's first */
    /* where outputs go: grid row o is destination row o*sh + the phase's first, if that lies in [0, dh) */
    ix dh, dw, sh, sw;
    ix yn, yc, yh;     /* destination strides in elements; columns lie together */
} fc_tiles;

typedef struct { ix n, h, w, ty, tx, len; } fc_tile_run; /* tiles of one row, in phase (h, w) of the outputs of sample n */

static inline fc_tile_run fc_tile_row(const fc_tiles *g, ix p, ix last)
{
    ix row = p / g->tw, tx = p % g->tw, map = row / g->th, phase = map % (g->ph * g->pw);
    fc_tile_run r = {map / (g->ph * g->pw), phase / g->pw, phase % g->pw, row % g->th, tx, g->tw - tx < last - p ? g->tw - tx : last - p};
    return r;
}
#endif

/* B^T d: six inputs to six points. */
INLINE void NAME(wino_input_points)(const V *d, V *t)
{
    const REAL a = WINO_A, b = WINO_B, a2 = WINO_A2, b2 = WINO_B2, s = WINO_SUM, p = WINO_A2B2;
    V e1 = d[4] - b2 * d[2], o1 = a * (d[3] - b2 * d[1]);
    V e2 = d[4] - a2 * d[2], o2 = b * (d[3] - a2 * d[1]);
    t[0] = d[4] - s * d[2] + p * d[0];
    t[1] = e1 + o1;
    t[2] = e1 - o1;
    t[3] = e2 + o2;
    t[4] = e2 - o2;
    t[5] = d[5] - s * d[3] + p * d[1];
}

/* A^T m: six points to `n` outputs; the point at infinity joins the last. */
INLINE void NAME(wino_outputs)(const V *m, V *y, const ix n)
{
    const REAL a = WINO_A, b = WINO_B, a2 = WINO_A2, b2 = WINO_B2;
    V s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = a * d1 + b * d2;
    if (n > 2) y[2] = a2 * s1 + b2 * s2;
    if (n > 3) y[3] = (a * a2) * d1 + (b * b2) * d2;
    if (n > 4) y[4] = (a2 * a2) * s1 + (b2 * b2) * s2;
    y[n - 1] += m[5];
}

/* A e: the adjoint of the above, `n` output gradients to six points. */
INLINE void NAME(wino_output_points)(const V *y, V *t, const ix n)
{
    const REAL a = WINO_A, b = WINO_B, a2 = WINO_A2, b2 = WINO_B2;
    V e1 = y[0], e2 = y[0], o1 = a * y[1], o2 = b * y[1];
    if (n > 2) { e1 += a2 * y[2]; e2 += b2 * y[2]; }
    if (n > 3) { o1 += (a * a2) * y[3]; o2 += (b * b2) * y[3]; }
    if (n > 4) { e1 += (a2 * a2) * y[4]; e2 += (b2 * b2) * y[4]; }
    t[0] = y[0];
    t[1] = e1 + o1;
    t[2] = e1 - o1;
    t[3] = e2 + o2;
    t[4] = e2 - o2;
    t[5] = y[n - 1];
}

/* G g: r taps to six points. Weights are transformed MR filters at a time, the width of a packed panel. */
INLINE void NAME(wino_filter_points)(const W *g, W *u, const ix r)
{
    const REAL a = WINO_A, b = WINO_B, a2 = WINO_A2, b2 = WINO_B2;
    const REAL na = (REAL)(1 / (2 * WINO_A2 * (WINO_A2 - WINO_B2))), nb = (REAL)(1 / (2 * WINO_B2 * (WINO_B2 - WINO_A2)));
    W ea = g[0], eb = g[0], oa = a * g[1], ob = b * g[1];
    if (r > 2) { ea += a2 * g[2]; eb += b2 * g[2]; }
    if (r > 3) { oa += (a * a2) * g[3]; ob += (b * b2) * g[3]; }
    if (r > 4) { ea += (a2 * a2) * g[4]; eb += (b2 * b2) * g[4]; }
    u[0] = (REAL)(1 / WINO_A2B2) * g[0];
    u[1] = na * (ea + oa);
    u[2] = na * (ea - oa);
    u[3] = nb * (eb + ob);
    u[4] = nb * (eb - ob);
    u[5] = g[r - 1];
}

/* G^T u: the adjoint, six points to r taps (gradient of the weights). */
INLINE void NAME(wino_filter_taps)(const V *u, V *g, const ix r)
{
    const REAL a = WINO_A, b = WINO_B, a2 = WINO_A2, b2 = WINO_B2;
    const REAL na = (REAL)(1 / (2 * WINO_A2 * (WINO_A2 - WINO_B2))), nb = (REAL)(1 / (2 * WINO_B2 * (WINO_B2 - WINO_A2)));
    V sa = na * (u[1] + u[2]), da = na * (u[1] - u[2]), sb = nb * (u[3] + u[4]), db = nb * (u[3] - u[4]);
    g[0] = (REAL)(1 / WINO_A2B2) * u[0] + sa + sb;
    g[1] = a * da + b * db;
    if (r > 2) g[2] = a2 * sa + b2 * sb;
    if (r > 3) g[3] = (a * a2) * da + (b * b2) * db;
    if (r > 4) g[4] = (a2 * a2) * sa + (b2 * b2) * sb;
    g[r - 1] += u[5];
}

INLINE void NAME(wino_filter_body)(REAL *U, ix step, ix plane, const REAL *taps, ix channels, const ix r)
{
    for (ix c = 0; c < channels; c++, taps += r * r * MR, U += step) {
        W g[5] = {{0}}, u[5][6], v[6];
        UNROLL for (ix i = 0; i < r; i++)
        {
            UNROLL for (ix j = 0; j < r; j++) g[j] = *(const W *)(taps + (i * r + j) * MR);
            NAME(wino_filter_points)(g, u[i], r);
        }
        UNROLL for (ix j = 0; j < 6; j++)
        {
            UNROLL for (ix i = 0; i < r; i++) g[i] = u[i][j];
            NAME(wino_filter_points)(g, v, r);
            UNROLL for (ix i = 0; i < 6; i++) *(W *)(U + (i * 6 + j) * plane) = v[i];
        }
    }
}

/* Packed panel taps[channel][r*r][MR] -> U[point][channel][MR], points `plane` elements apart, channels `step`. */
static void NAME(wino_filter)(REAL *U, ix step, ix plane, const REAL *taps, ix channels, ix r)
{
    if (r == 3) NAME(wino_filter_body)(U, step, plane, taps, channels, 3);
    else if (r == 2) NAME(wino_filter_body)(U, step, plane, taps, channels, 2);
    else if (r == 4) NAME(wino_filter_body)(U, step, plane, taps, channels, 4);
    else NAME(wino_filter_body)(U, step, plane, taps, channels, 5);
}

/* Masks of two-vector shuffles. SPLIT(m, q): from a running pick and the q-th vector behind it, lane l takes element l*m - q*VL where that lies in the q-th
 * vector. JOIN(m, q, j): lane l of the q-th result is output (q*VL + l) % m of tile (q*VL + l) / m; it is taken when the j-th output's turn comes. */
#define FC_SPLIT_LANE(l, m, q) ((l) * (m) / VL == (q) ? VL + (l) * (m) % VL : (q) == 1 && (l) * (m) < VL ? (l) * (m) : (l))
#define FC_JOIN_LANE(l, m, q, j) (((q) * VL + (l)) % (m) == (j) ? VL + ((q) * VL + (l)) / (m) : (j) == 1 && ((q) * VL + (l)) % (m) == 0 ? ((q) * VL + (l)) / (m) : (l))

/* Where the columns of a row come from: row[j] for low <= j < high, zeros elsewhere, which is not touched in memory. */
INLINE V NAME(columns)(const REAL *row, ix j, ix low, ix high, const int whole)
{
    return whole ? LOAD(row + j) : NAME(load_between)(row + j, low - j, high - j);
}

/* Lane l of the result: row[j + l*m]. */
INLINE V NAME(pick_every)(const REAL *row, ix j, ix low, ix high, const ix m, const int whole)
{
    V v = NAME(columns)(row, j, low, high, whole);
    UNROLL for (ix q = 1; q < m; q++)
    {
        M mask;
        UNROLL for (int l = 0; l < (int)VL; l++) mask[l] = (INT)FC_SPLIT_LANE(l, m, q);
        v = NAME(shuffle)(v, NAME(columns)(row, j + q * VL, low, high, whole), mask);
    }
    return v;
}

/* The inputs i = 0..n-1 of VL tiles that start m columns apart: d[i] = row[j + lane*m + i]. */
INLINE void NAME(split_tiles)(const REAL *row, ix j, ix low, ix high, V *d, const ix m, const ix n, const int whole)
{
    if (m == 4) {
        UNROLL for (ix h = 0; h < n; h += 4)
        {
            V a = NAME(columns)(row, j + h, low, high, whole), b = NAME(columns)(row, j + h + VL, low, high, whole);
            V c = NAME(columns)(row, j + h + 2 * VL, low, high, whole), e = NAME(columns)(row, j + h + 3 * VL, low, high, whole);
            V even0 = NAME(every_other)(a, b, 0), even1 = NAME(every_other)(c, e, 0);
            V odd0 = NAME(every_other)(a, b, 1), odd1 = NAME(every_other)(c, e, 1);
            d[h] = NAME(every_other)(even0, even1, 0);
            d[h + 1] = NAME(every_other)(odd0, odd1, 0);
            if (h + 2 < n) d[h + 2] = NAME(every_other)(even0, even1, 1);
            if (h + 3 < n) d[h + 3] = NAME(every_other)(odd0, odd1, 1);
        }
    } else if (m == 2) {
        UNROLL for (ix h = 0; h < n; h += 2)
        {
            V a = NAME(columns)(row, j + h, low, high, whole), b = NAME(columns)(row, j + h + VL, low, high, whole);
            d[h] = NAME(every_other)(a, b, 0);
            if (h + 1 < n) d[h + 1] = NAME(every_other)(a, b, 1);
        }
    } else
        UNROLL for (ix i = 0; i < n; i++) d[i] = NAME(pick_every)(row, j + i, low, high, m, whole);
}

/* The other way: outputs of VL tiles, m a tile, one behind the other. */
INLINE void NAME(join_tiles)(REAL *row, const V *y, const ix m)
{
    if (m == 4) {
        V a0 = NAME(zip)(y[0], y[2], 0), a1 = NAME(zip)(y[0], y[2], 1), b0 = NAME(zip)(y[1], y[3], 0), b1 = NAME(zip)(y[1], y[3], 1);
        STORE(row, NAME(zip)(a0, b0, 0));
        STORE(row + VL, NAME(zip)(a0, b0, 1));
        STORE(row + 2 * VL, NAME(zip)(a1, b1, 0));
        STORE(row + 3 * VL, NAME(zip)(a1, b1, 1));
    } else if (m == 2) {
        STORE(row, NAME(zip)(y[0], y[1], 0));
        STORE(row + VL, NAME(zip)(y[0], y[1], 1));
    } else
        UNROLL for (ix q = 0; q < m; q++)
        {
            V v = y[0];
            UNROLL for (ix j = 1; j < m; j++)
            {
                M mask;
                UNROLL for (int l = 0; l < (int)VL; l++) mask[l] = (INT)FC_JOIN_LANE(l, m, q, j);
                v = NAME(shuffle)(v, y[j], mask);
            }
            STORE(row + q * VL, v);
        }
}

/* The points along one source row for the tiles of a run, stored at every place that needs them: place k lies `back` elements before place k - 1. */
INLINE void NAME(wino_row)(REAL *to, ix back, ix places, ix ts, const REAL *row, ix low, ix high, ix len, ix next, const ix m, const int gradient)
{
    const ix inputs = gradient ? m : 6, reach = m * VL + (gradient ? m - 1 : 5);
    V d[6], t[6];
    for (ix q = 0; q < len; q += VL) { /* what spills over the end of a run is overwritten by the next run */
        /* the next channel's row: each is read once, and the processor does not foresee the leap */
        UNROLL for (ix j = 0; j < m; j++) __builtin_prefetch((const char *)(row + q * m + j * VL) + next);
        if (q * m >= low && q * m + reach <= high) NAME(split_tiles)(row, q * m, low, high, d, m, inputs, 1);
        else NAME(split_tiles)(row, q * m, low, high, d, m, inputs, 0);
        if (gradient) NAME(wino_output_points)(d, t, m);
        else NAME(wino_input_points)(d, t);
        REAL *at = to + q;
        for (ix k = 0; k < places; k++, at -= back) UNROLL for (ix j = 0; j < 6; j++) STORE(at + j * ts, t[j]);
    }
}

/* Tiles [p, last) of one channel -> 36 numbers a tile: first along rows into T (6 or m rows of 6 points, `ts` apart), then along columns into
 * out + (point)*plane + (vector)*group. A tile reads 6 inputs of x along an axis, or m of dy (gradient of the weights). h0, w0: the phase's first source indices.
 * Rows that lie together are read in place, others are staged in `rows`. The last 6 - m rows of a tile are the first of the tile below: they are transformed
 * once and stored for both. */
INLINE void NAME(wino_input_body)(REAL *restrict out, ix plane, ix group, REAL *restrict T, REAL *restrict rows, const fc_source *s, const char *channel,
                                  const fc_tiles *g, ix h0, ix w0, ix p, ix last, const ix m, const int gradient)
{
    const ix inputs = gradient ? m : 6, first = p, tiles = last - first, margin = g->tw < tiles ? g->tw : 0;
    const ix ts = tiles + 2 * VL + margin, pitch = (tiles + VL) * m + 8;
    const int direct = s->w == (ix)sizeof(REAL) && !s->swap && g->w.step == 1 && g->w.mode == FC_ZEROS && (uintptr_t)channel % sizeof(REAL) == 0 &&
                       s->h % (ix)sizeof(REAL) == 0 && s->n % (ix)sizeof(REAL) == 0;
    const ix next = direct ? s->c : 0;
    ix above = 0; /* runs above this one that wait for its rows */
    V d[6], t[6];
    T += margin;
    while (p < last) {
        fc_tile_run r = fc_tile_row(g, p, last);
        const char *sample = channel + r.n * s->n;
        const ix start = r.tx * m * g->w.step + w0 + r.w, count = (r.len - 1) * m + inputs;
        /* the run below has this one's last rows if it belongs to the same sample and covers the same columns */
        const int shared = !gradient && r.ty + 1 < g->th && last - (p + r.len) >= r.tx + r.len;
        const ix needed = shared ? m : inputs;
        const REAL *row[6];
        ix low = 0, high = count;
        if (direct) {
            low = FC_MIN(FC_MAX(-start, 0), count);
            high = FC_MAX(FC_MIN(g->w.size - start, count), low);
        }
        for (ix i = 0; i < needed; i++) {
            ix h = fc_source_index(&g->h, (r.ty * m + i) * g->h.step + h0 + r.h);
            row[i] = NULL;
            if (h < 0) continue;
            if (direct) row[i] = (const REAL *)(sample + h * s->h) + start;
            else {
                row[i] = rows + i * pitch;
                NAME(stage_row)(rows + i * pitch, sample + h * s->h, &g->w, start, count, s->w, s->swap);
            }
        }
        for (ix i = 0; i < needed; i++) {
            const ix places = gradient ? 1 : FC_MIN((5 - i) / m, above) + 1;
            REAL *to = T + i * 6 * ts + (p - first);
            if (row[i]) {
                NAME(wino_row)(to, g->tw - m * 6 * ts, places, ts, row[i], low, high, r.len, next, m, gradient);
                continue;
            }
            for (ix k = 0; k < places; k++, to -= g->tw - m * 6 * ts)
                for (ix j = 0; j < 6; j++) memset(to + j * ts, 0, (size_t)r.len * sizeof(REAL));
        }
        above = shared ? above + 1 : 0;
        p += r.len;
    }
    for (ix q = 0; q < tiles; q += VL, out += group)
        UNROLL for (ix j = 0; j < 6; j++)
        {
            UNROLL for (ix i = 0; i < inputs; i++) d[i] = LOAD(T + (i * 6 + j) * ts + q);
            if (gradient) NAME(wino_output_points)(d, t, m);
            else NAME(wino_input_points)(d, t);
            UNROLL for (ix i = 0; i < 6; i++) *(V *)(out + (i * 6 + j) * plane) = t[i];
        }
}

static void NAME(wino_input)(REAL *out, ix plane, ix group, REAL *T, REAL *row, const fc_source *s, const char *channel, const fc_tiles *g, ix h0, ix w0, ix p,
                              ix last)
{
    if (g->m == 4) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, h0, w0, p, last, 4, 0);
    else if (g->m == 2) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, h0, w0, p, last, 2, 0);
    else if (g->m == 3) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, h0, w0, p, last, 3, 0);
    else NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, h0, w0, p, last, 5, 0);
}

/* dy, as the gradient of the weights needs it. */
static void NAME(wino_gradient)(REAL *out, ix plane, ix group, REAL *T, REAL *row, const fc_source *s, const char *channel, const fc_tiles *g, ix h0, ix w0, ix p,
                              ix last)
{
    if (g->m == 4) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, h0, w0, p, last, 4, 1);
    else if (g->m == 2) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, h0, w0, p, last, 2, 1);
    else if (g->m == 3) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, h0, w0, p, last, 3, 1);
    else NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, h0, w0, p, last, 5, 1);
}

/* One filter as it lies in memory, for the sums that are done directly: taps [phase][r*r], -1 where a phase has none. */
#ifndef FC_FILTER
#define FC_FILTER
typedef struct {
    const char *data;
    ix channels, channel_stride, phases, r;
    const ix *tap_offset;
    const ix *h0, *w0; /* [phases] first source indices */
    int swap;
} fc_filter;
#endif

/* One output by its definition; zeros of the padding take no part. */
static __attribute__((noinline)) REAL NAME(direct_output)(const fc_source *s, const char *source, const fc_filter *f, const fc_tiles *g, const fc_tile_run *run, ix oh, ix ow)
{
    REAL total = 0, x, w;
    for (ix c = 0; c < f->channels; c++) {
        REAL sum = 0;
        for (ix phase = 0; phase < f->phases; phase++)
            for (ix i = 0; i < f->r; i++) {
                ix h = fc_source_index(&g->h, (oh + i) * g->h.step + f->h0[phase] + run->h);
                if (h < 0) continue;
                for (ix j = 0; j < f->r; j++) {
                    ix q = fc_source_index(&g->w, (ow + j) * g->w.step + f->w0[phase] + run->w), tap = f->tap_offset[(phase * f->r + i) * f->r + j];
                    if (q < 0 || tap == FC_NO_TAP) continue;
                    NAME(copy_row)(&x, source + run->n * s->n + c * s->c + h * s->h + q * s->w, 1, 0, s->swap);
                    NAME(copy_row)(&w, f->data + c * f->channel_stride + tap, 1, 0, f->swap);
                    sum += x * w;
                }
            }
        total += sum;
        if (total != total) break; /* nothing makes a NaN finite again */
    }
    return total;
}

/* Products with filters as lanes, rows[tile][VL] -> M[filter][tile], filters `ld` apart; at most MR tiles. */
static void NAME(wino_turn)(REAL *Mm, ix ld, const REAL *rows, ix tiles)
{
    V a[MR];
    UNROLL for (ix i = 0; i < MR; i++) a[i] = i < tiles ? LOAD(rows + i * VL) : (V){0};
    NAME(interleave)(a);
    for (ix i = 0; i < VL; i++) *(W *)(Mm + i * ld) = *(const W *)((const REAL *)a + i * MR);
}

INLINE int NAME(any_nan)(V v)
{
    M bad = v != v;
    for (ix i = 0; i < VL; i++)
        if (bad[i]) return 1;
    return 0;
}

/* Tiles [p, last) of one output channel: M[point][vector] -> y, plus bias, activated.
 *
 * A non-finite input, or one whose transform overflows, makes every output of its tile non-finite, also those whose own sum does not contain it. Such outputs are
 * recognised here (0 * y is NaN) and computed again by their definition, so that non-finite values stay where they belong. */
INLINE void NAME(wino_output_body)(REAL *y, const REAL *restrict Mm, ix plane, REAL *restrict strip, REAL bias, int activation, const fc_source *s,
                                   const char *source, const fc_filter *f, const fc_tiles *g, ix first_h, ix first_w, const ix p0, const ix last, const ix m)
{
    const ix ss = ((last - p0 + VL - 1) / VL * VL) * m;
    V check = {0};
    for (ix q = 0; q < last - p0; q += VL) {
        V points[6], t[5][6], o[6];
        UNROLL for (ix j = 0; j < 6; j++)
        {
            V col[5];
            UNROLL for (ix i = 0; i < 6; i++) points[i] = *(const V *)(Mm + (i * 6 + j) * plane + q);
            NAME(wino_outputs)(points, col, m);
            UNROLL for (ix i = 0; i < m; i++) t[i][j] = col[i];
        }
        UNROLL for (ix i = 0; i < m; i++)
        {
            NAME(wino_outputs)(t[i], o, m);
            UNROLL for (ix j = 0; j < m; j++)
            {
                o[j] += bias;
                check += o[j] * 0;
            }
            NAME(join_tiles)(strip + i * ss + q * m, o, m);
        }
    }
    const int suspicious = NAME(any_nan)(check);
    for (ix p = p0; p < last;) {
        fc_tile_run r = fc_tile_row(g, p, last);
        /* columns [low, high) of the run have a place in the destination */
        ix c0 = r.tx * m, low = 0, high = FC_MIN(r.len * m, g->ow - c0);
        const ix w0 = first_w + r.w, h0 = first_h + r.h;
        while (low < high && w0 + (c0 + low) * g->sw < 0) low++;
        while (low < high && w0 + (c0 + high - 1) * g->sw >= g->dw) high--;
        for (ix i = 0; i < m; i++) {
            ix o = r.ty * m + i, row = h0 + o * g->sh;
            if (o >= g->oh || row < 0 || row >= g->dh) continue;
            REAL *from = strip + i * ss + (p - p0) * m, *to = y + r.n * g->yn + row * g->yh + w0 + c0 * g->sw;
            if (suspicious)
                for (ix j = low; j < high; j++)
                    if (!(from[j] - from[j] == 0)) from[j] = NAME(direct_output)(s, source, f, g, &r, o, c0 + j) + bias;
            if (activation && high > low) NAME(activate)(from + low, high - low, activation);
            if (g->sw == 1) {
                for (ix j = low; j < high; j += VL) {
                    FETCH_TO_WRITE(to + j + g->yc); /* the next channel's row: each is written once */
                    if (high - j >= VL) STORE(to + j, LOAD(from + j));
                    else STOREN(to + j, LOAD(from + j), high - j);
                }
            } else
                for (ix j = low; j < high; j++) to[j * g->sw] = from[j];
        }
        p += r.len;
    }
}

static void NAME(wino_output)(REAL *y, const REAL *Mm, ix plane, REAL *strip, REAL bias, int activation, const fc_source *s, const char *source,
                              const fc_filter *f, const fc_tiles *g, ix first_h, ix first_w, ix p, ix last)
{
    if (g->m == 4) NAME(wino_output_body)(y, Mm, plane, strip, bias, activation, s, source, f, g, first_h, first_w, p, last, 4);
    else if (g->m == 2) NAME(wino_output_body)(y, Mm, plane, strip, bias, activation, s, source, f, g, first_h, first_w, p, last, 2);
    else if (g->m == 3) NAME(wino_output_body)(y, Mm, plane, strip, bias, activation, s, source, f, g, first_h, first_w, p, last, 3);
    else NAME(wino_output_body)(y, Mm, plane, strip, bias, activation, s, source, f, g, first_h, first_w, p, last, 5);
}

/* Transformed sums of one vector of lanes -> taps: lane l's are the `taps` numbers at dweight + l*lane_stride. Points lie `plane` apart, phases `phase_step`;
 * the r*r taps of a phase belong at tap_index[phase][] (or nowhere). G: FC_MAX(taps, VL) vectors, rounded up to VL of them, aligned. */
INLINE void NAME(wino_weights_body)(REAL *dweight, ix lane_stride, ix lanes, const REAL *dU, ix plane, ix phases, ix phase_step, ix taps, const ix *tap_index,
                                    REAL *restrict G, const ix r)
{
    for (ix phase = 0; phase < phases; phase++, dU += phase_step, tap_index += r * r) {
        V u[6], t[5][6], g[5];
        UNROLL for (ix j = 0; j < 6; j++)
        {
            UNROLL for (ix i = 0; i < 6; i++) u[i] = *(const V *)(dU + (i * 6 + j) * plane);
            NAME(wino_filter_taps)(u, g, r);
            UNROLL for (ix i = 0; i < r; i++) t[i][j] = g[i];
        }
        UNROLL for (ix i = 0; i < r; i++)
        {
            NAME(wino_filter_taps)(t[i], g, r);
            UNROLL for (ix j = 0; j < r; j++)
                if (tap_index[i * r + j] >= 0) *(V *)(G + tap_index[i * r + j] * VL) = g[j];
        }
    }
    for (ix t = 0; t < taps; t += VL) {
        REAL turned[VL * VL] __attribute__((aligned(64)));
        NAME(transpose_block)(turned, G + t * VL);
        if (taps - t >= VL)
            for (ix l = 0; l < lanes; l++) STORE(dweight + l * lane_stride + t, *(const V *)(turned + l * VL));
        else
            for (ix l = 0; l < lanes; l++) STOREN(dweight + l * lane_stride + t, *(const V *)(turned + l * VL), taps - t);
    }
}

static void NAME(wino_weights)(REAL *dweight, ix lane_stride, ix lanes, const REAL *dU, ix plane, ix phases, ix phase_step, ix taps, const ix *tap_index,
                               REAL *G, ix r)
{
    if (r == 3) NAME(wino_weights_body)(dweight, lane_stride, lanes, dU, plane, phases, phase_step, taps, tap_index, G, 3);
    else if (r == 2) NAME(wino_weights_body)(dweight, lane_stride, lanes, dU, plane, phases, phase_step, taps, tap_index, G, 2);
    else if (r == 4) NAME(wino_weights_body)(dweight, lane_stride, lanes, dU, plane, phases, phase_step, taps, tap_index, G, 4);
    else NAME(wino_weights_body)(dweight, lane_stride, lanes, dU, plane, phases, phase_step, taps, tap_index, G, 5);
}
