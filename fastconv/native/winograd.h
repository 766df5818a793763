/* Winograd convolution with tiles of 6 x 6 transformed points: y = A^T [ (G w G^T) * (B^T d B) ] A, for kernels of r = 3, 4 or 5 taps an axis.
 *
 * A tile yields m = 7 - r outputs an axis from 6 inputs, so one input transform serves every r. Interpolation points 0, +-5/8, +-3/2 and infinity: their squares
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
    ix th, tw;       /* tiles along a map's column and row */
    ix mh, mw;       /* outputs of a tile along each axis: 2, 3 or 4 */
    ix oh, ow;       /* extent of the output map */
    ix yn, yh;       /* strides of the output in elements; columns lie together */
    fc_axis h, w;    /* the source axes: step 1, offset[0] the source index of the first tap of output 0 */
} fc_tiles;

typedef struct { ix n, ty, tx, len; } fc_tile_run; /* tiles of one row */

static inline fc_tile_run fc_tile_row(const fc_tiles *g, ix p, ix last)
{
    ix row = p / g->tw, tx = p % g->tw;
    fc_tile_run r = {row / g->th, row % g->th, tx, g->tw - tx < last - p ? g->tw - tx : last - p};
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
    y[n - 1] += m[5];
}

/* A e: the adjoint of the above, `n` output gradients to six points. */
INLINE void NAME(wino_output_points)(const V *y, V *t, const ix n)
{
    const REAL a = WINO_A, b = WINO_B, a2 = WINO_A2, b2 = WINO_B2;
    V e1 = y[0], e2 = y[0], o1 = a * y[1], o2 = b * y[1];
    if (n > 2) { e1 += a2 * y[2]; e2 += b2 * y[2]; }
    if (n > 3) { o1 += (a * a2) * y[3]; o2 += (b * b2) * y[3]; }
    t[0] = y[0];
    t[1] = e1 + o1;
    t[2] = e1 - o1;
    t[3] = e2 + o2;
    t[4] = e2 - o2;
    t[5] = y[n - 1];
}

/* Weights are transformed MR filters at a time, the width of a packed panel. */
#undef W
#define W NAME(panel_vec)
typedef REAL W __attribute__((vector_size(MR_BYTES), aligned(REAL_BYTES), may_alias));

/* G g: r taps to six points. */
INLINE void NAME(wino_filter_points)(const W *g, W *u, const ix r)
{
    const REAL a = WINO_A, b = WINO_B, a2 = WINO_A2, b2 = WINO_B2;
    const REAL na = (REAL)(1 / (2 * WINO_A2 * (WINO_A2 - WINO_B2))), nb = (REAL)(1 / (2 * WINO_B2 * (WINO_B2 - WINO_A2)));
    W ea = g[0] + a2 * g[2], eb = g[0] + b2 * g[2], oa = a * g[1], ob = b * g[1];
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
    g[2] = a2 * sa + b2 * sb;
    if (r > 3) g[3] = (a * a2) * da + (b * b2) * db;
    if (r > 4) g[4] = (a2 * a2) * sa + (b2 * b2) * sb;
    g[r - 1] += u[5];
}

INLINE void NAME(wino_filter_body)(REAL *U, ix plane, const REAL *taps, ix channels, const ix rh, const ix rw)
{
    for (ix c = 0; c < channels; c++, taps += rh * rw * MR, U += MR) {
        W g[5] = {{0}}, u[5][6], v[6];
        UNROLL for (ix i = 0; i < rh; i++)
        {
            UNROLL for (ix j = 0; j < rw; j++) g[j] = *(const W *)(taps + (i * rw + j) * MR);
            NAME(wino_filter_points)(g, u[i], rw);
        }
        UNROLL for (ix j = 0; j < 6; j++)
        {
            UNROLL for (ix i = 0; i < rh; i++) g[i] = u[i][j];
            NAME(wino_filter_points)(g, v, rh);
            UNROLL for (ix i = 0; i < 6; i++) *(W *)(U + (i * 6 + j) * plane) = v[i];
        }
    }
}

/* Packed panel taps[channel][rh*rw][MR] -> U[point][channel][MR], points `plane` elements apart. */
static void NAME(wino_filter)(REAL *U, ix plane, const REAL *taps, ix channels, ix rh, ix rw)
{
    if (rh == 3 && rw == 3) NAME(wino_filter_body)(U, plane, taps, channels, 3, 3);
    else if (rh == 4 && rw == 4) NAME(wino_filter_body)(U, plane, taps, channels, 4, 4);
    else if (rh == 5 && rw == 5) NAME(wino_filter_body)(U, plane, taps, channels, 5, 5);
    else NAME(wino_filter_body)(U, plane, taps, channels, rh, rw);
}

/* The inputs j = 0..n-1 of VL tiles that start m elements apart: d[j] = row[lane*m + j]. */
INLINE void NAME(split_tiles)(const REAL *row, V *d, const ix m, const ix n)
{
    if (m == 4) {
        UNROLL for (ix h = 0; h < n; h += 4)
        {
            const REAL *p = row + h;
            V a = LOAD(p), b = LOAD(p + VL), c = LOAD(p + 2 * VL), e = LOAD(p + 3 * VL);
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
            V a = LOAD(row + h), b = LOAD(row + h + VL);
            d[h] = NAME(every_other)(a, b, 0);
            if (h + 1 < n) d[h + 1] = NAME(every_other)(a, b, 1);
        }
    } else {
        for (ix j = 0; j < n; j++)
            for (ix l = 0; l < VL; l++) d[j][l] = row[l * m + j];
    }
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
    } else {
        for (ix l = 0; l < VL; l++)
            for (ix j = 0; j < m; j++) row[l * m + j] = y[j][l];
    }
}

/* Tiles [p, last) of one channel -> `points` numbers a tile and axis: first along rows into T (6 or mh rows of 6 points, `ts` apart), then along columns into
 * out + (point)*plane + (vector)*group. `inputs` is what a tile reads along an axis: 6 of x, or m of dy (gradient of the weights). */
INLINE void NAME(wino_input_body)(REAL *restrict out, ix plane, ix group, REAL *restrict T, REAL *restrict row, const fc_source *s, const char *channel,
                                  const fc_tiles *g, ix p, ix last, const ix mh, const ix mw, const int gradient)
{
    const ix ih = gradient ? mh : 6, iw = gradient ? mw : 6, first = p, ts = (last - first + VL - 1) / VL * VL + VL;
    V d[6], t[6];
    while (p < last) {
        fc_tile_run r = fc_tile_row(g, p, last);
        const char *sample = channel + r.n * s->n;
        for (ix i = 0; i < ih; i++) {
            ix h = fc_source_index(&g->h, r.ty * mh + i + g->h.offset[0]);
            REAL *to = T + i * 6 * ts + (p - first);
            if (h < 0) {
                for (ix j = 0; j < 6; j++) memset(to + j * ts, 0, (size_t)r.len * sizeof(REAL));
                continue;
            }
            NAME(stage_row)(row, sample + h * s->h, &g->w, r.tx * mw + g->w.offset[0], (r.len - 1) * mw + iw, s->w, s->swap);
            for (ix q = 0; q < r.len; q += VL) { /* what spills over the end of a run is overwritten by the next run */
                NAME(split_tiles)(row + q * mw, d, mw, iw);
                if (gradient) NAME(wino_output_points)(d, t, mw);
                else NAME(wino_input_points)(d, t);
                UNROLL for (ix j = 0; j < 6; j++) STORE(to + j * ts + q, t[j]);
            }
        }
        p += r.len;
    }
    for (ix q = 0; q < last - first; q += VL, out += group)
        UNROLL for (ix j = 0; j < 6; j++)
        {
            UNROLL for (ix i = 0; i < ih; i++) d[i] = LOAD(T + (i * 6 + j) * ts + q);
            if (gradient) NAME(wino_output_points)(d, t, mh);
            else NAME(wino_input_points)(d, t);
            UNROLL for (ix i = 0; i < 6; i++) *(V *)(out + (i * 6 + j) * plane) = t[i];
        }
}

static void NAME(wino_input)(REAL *out, ix plane, ix group, REAL *T, REAL *row, const fc_source *s, const char *channel, const fc_tiles *g, ix p, ix last)
{
    if (g->mh == 4 && g->mw == 4) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, p, last, 4, 4, 0);
    else if (g->mh == 2 && g->mw == 2) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, p, last, 2, 2, 0);
    else NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, p, last, g->mh, g->mw, 0);
}

/* dy, as the gradient of the weights needs it. */
static void NAME(wino_gradient)(REAL *out, ix plane, ix group, REAL *T, REAL *row, const fc_source *s, const char *channel, const fc_tiles *g, ix p, ix last)
{
    if (g->mh == 4 && g->mw == 4) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, p, last, 4, 4, 1);
    else if (g->mh == 2 && g->mw == 2) NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, p, last, 2, 2, 1);
    else NAME(wino_input_body)(out, plane, group, T, row, s, channel, g, p, last, g->mh, g->mw, 1);
}

/* One filter as it lies in memory, for the sums that are done directly. */
typedef struct {
    const char *data;
    ix channels, channel_stride, rh, rw;
    const ix *tap_offset; /* [rh*rw] */
    int swap;
} NAME(filter);

/* One output by its definition; zeros of the padding take no part. */
static __attribute__((noinline)) REAL NAME(direct_output)(const fc_source *s, const char *source, const NAME(filter) *f, const fc_tiles *g, ix n, ix oh, ix ow)
{
    REAL total = 0, x, w;
    for (ix c = 0; c < f->channels; c++) {
        REAL sum = 0;
        for (ix i = 0; i < f->rh; i++) {
            ix h = fc_source_index(&g->h, oh + i + g->h.offset[0]);
            if (h < 0) continue;
            for (ix j = 0; j < f->rw; j++) {
                ix q = fc_source_index(&g->w, ow + j + g->w.offset[0]);
                if (q < 0) continue;
                NAME(copy_row)(&x, source + n * s->n + c * s->c + h * s->h + q * s->w, 1, 0, s->swap);
                NAME(copy_row)(&w, f->data + c * f->channel_stride + f->tap_offset[i * f->rw + j], 1, 0, f->swap);
                sum += x * w;
            }
        }
        total += sum;
        if (total != total) break; /* nothing makes a NaN finite again */
    }
    return total;
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
                                   const char *source, const NAME(filter) *f, const fc_tiles *g, const ix p0, const ix last, const ix mh, const ix mw)
{
    const ix ss = ((last - p0 + VL - 1) / VL * VL) * mw;
    V check = {0};
    for (ix q = 0; q < last - p0; q += VL) {
        V m[6], t[4][6], o[4];
        UNROLL for (ix j = 0; j < 6; j++)
        {
            V col[4];
            UNROLL for (ix i = 0; i < 6; i++) m[i] = *(const V *)(Mm + (i * 6 + j) * plane + q);
            NAME(wino_outputs)(m, col, mh);
            UNROLL for (ix i = 0; i < mh; i++) t[i][j] = col[i];
        }
        UNROLL for (ix i = 0; i < mh; i++)
        {
            NAME(wino_outputs)(t[i], o, mw);
            UNROLL for (ix j = 0; j < mw; j++)
            {
                o[j] += bias;
                check += o[j] * 0;
            }
            NAME(join_tiles)(strip + i * ss + q * mw, o, mw);
        }
    }
    const int suspicious = NAME(any_nan)(check);
    for (ix p = p0; p < last;) {
        fc_tile_run r = fc_tile_row(g, p, last);
        ix count = FC_MIN(r.len * mw, g->ow - r.tx * mw);
        for (ix i = 0; i < mh && r.ty * mh + i < g->oh; i++) {
            REAL *from = strip + i * ss + (p - p0) * mw, *to = y + r.n * g->yn + (r.ty * mh + i) * g->yh + r.tx * mw;
            if (suspicious)
                for (ix j = 0; j < count; j++)
                    if (!(from[j] - from[j] == 0)) from[j] = NAME(direct_output)(s, source, f, g, r.n, r.ty * mh + i, r.tx * mw + j) + bias;
            memcpy(to, from, (size_t)count * sizeof(REAL));
            if (activation) NAME(activate)(to, count, activation);
        }
        p += r.len;
    }
}

static void NAME(wino_output)(REAL *y, const REAL *Mm, ix plane, REAL *strip, REAL bias, int activation, const fc_source *s, const char *source,
                              const NAME(filter) *f, const fc_tiles *g, ix p, ix last)
{
    if (g->mh == 4 && g->mw == 4) NAME(wino_output_body)(y, Mm, plane, strip, bias, activation, s, source, f, g, p, last, 4, 4);
    else if (g->mh == 2 && g->mw == 2) NAME(wino_output_body)(y, Mm, plane, strip, bias, activation, s, source, f, g, p, last, 2, 2);
    else NAME(wino_output_body)(y, Mm, plane, strip, bias, activation, s, source, f, g, p, last, g->mh, g->mw);
}

/* dU[point][channels of a vector] of one filter -> its taps, dweight[channel][rh*rw]. */
static void NAME(wino_weights)(REAL *dweight, const REAL *dU, ix plane, ix channels, ix rh, ix rw)
{
    for (ix c = 0; c < channels; c += VL) {
        V u[6], t[5][6], g[5];
        for (ix j = 0; j < 6; j++) {
            for (ix i = 0; i < 6; i++) u[i] = *(const V *)(dU + (i * 6 + j) * plane + c);
            NAME(wino_filter_taps)(u, g, rh);
            for (ix i = 0; i < rh; i++) t[i][j] = g[i];
        }
        ix n = FC_MIN(VL, channels - c);
        for (ix i = 0; i < rh; i++) {
            NAME(wino_filter_taps)(t[i], g, rw);
            for (ix j = 0; j < rw; j++)
                for (ix l = 0; l < n; l++) dweight[(c + l) * rh * rw + i * rw + j] = g[j][l];
        }
    }
}
