/* Winograd convolution with tiles of 6 x 6 transformed points: y = A^T [ (G w G^T) * (B^T d B) ] A, for kernels of r = 2 to 5 taps an axis.
 *
 * A tile yields m = 7 - r outputs an axis from 6 inputs, so one input transform serves every r. A convolution of stride s is one of stride 1 over s * s times the
 * channels, one for each phase of the input, with ceil(taps / s) taps an axis; its gradient has s * s times the output channels, one for each phase of dx. Interpolation points 0, +-5/8, +-3/2 and infinity: their squares
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
    ix m;              /* outputs of a tile along each axis: 2 to 5 */
    ix oh, ow;         /* extent of the grid of outputs that the tiles cover */
    fc_axis h, w;      /* the source: output o, tap t of a phase lie at source index (o + t) * step + the phase's first */
    /* where outputs go: grid row o is destination row o*sh + the phase's first, if that lies in [0, dh) */
    ix dh, dw, sh, sw;
    ix yn, yh;         /* destination strides in elements; columns lie together */
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

/* Weights are transformed MR filters at a time, the width of a packed panel. */
#undef W
#define W NAME(panel_vec)
typedef REAL W __attribute__((vector_size(MR_BYTES), aligned(REAL_BYTES), may_alias));

/* G g: r taps to six points. */
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

INLINE void NAME(wino_filter_body)(REAL *U, ix plane, const REAL *taps, ix channels, const ix r)
{
    for (ix c = 0; c < channels; c++, taps += r * r * MR, U += MR) {
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

/* Packed panel taps[channel][r*r][MR] -> U[point][channel][MR], points `plane` elements apart. */
static void NAME(wino_filter)(REAL *U, ix plane, const REAL *taps, ix channels, ix r)
{
    if (r == 3) NAME(wino_filter_body)(U, plane, taps, channels, 3);
    else if (r == 2) NAME(wino_filter_body)(U, plane, taps, channels, 2);
    else if (r == 4) NAME(wino_filter_body)(U, plane, taps, channels, 4);
    else NAME(wino_filter_body)(U, plane, taps, channels, 5);
}

/* Masks of two-vector shuffles. SPLIT(m, q): from a running pick and the q-th vector behind it, lane l takes element l*m - q*VL where that lies in the q-th
 * vector. JOIN(m, q, j): lane l of the q-th result is output (q*VL + l) % m of tile (q*VL + l) / m; it is taken when the j-th output's turn comes. */
#define FC_SPLIT_LANE(l, m, q) ((l) * (m) / VL == (q) ? VL + (l) * (m) % VL : (q) == 1 && (l) * (m) < VL ? (l) * (m) : (l))
#define FC_JOIN_LANE(l, m, q, j) (((q) * VL + (l)) % (m) == (j) ? VL + ((q) * VL + (l)) / (m) : (j) == 1 && ((q) * VL + (l)) % (m) == 0 ? ((q) * VL + (l)) / (m) : (l))

/* Lane l of the result: row[l*m]. */
INLINE V NAME(pick_every)(const REAL *row, const ix m)
{
    V v = LOAD(row);
    UNROLL for (ix q = 1; q < m; q++)
    {
        M mask;
        UNROLL for (int l = 0; l < (int)VL; l++) mask[l] = (INT)FC_SPLIT_LANE(l, m, q);
        v = NAME(shuffle)(v, LOAD(row + q * VL), mask);
    }
    return v;
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
    } else
        UNROLL for (ix j = 0; j < n; j++) d[j] = NAME(pick_every)(row + j, m);
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

/* Tiles [p, last) of one channel -> `points` numbers a tile and axis: first along rows into T (6 or m rows of 6 points, `ts` apart), then along columns into
 * out + (point)*plane + (vector)*group. A tile reads 6 inputs of x along an axis, or m of dy (gradient of the weights). h0, w0: the phase's first source indices. */
INLINE void NAME(wino_input_body)(REAL *restrict out, ix plane, ix group, REAL *restrict T, REAL *restrict row, const fc_source *s, const char *channel,
                                  const fc_tiles *g, ix h0, ix w0, ix p, ix last, const ix m, const int gradient)
{
    const ix inputs = gradient ? m : 6, first = p, ts = (last - first + VL - 1) / VL * VL + VL;
    V d[6], t[6];
    while (p < last) {
        fc_tile_run r = fc_tile_row(g, p, last);
        const char *sample = channel + r.n * s->n;
        for (ix i = 0; i < inputs; i++) {
            ix h = fc_source_index(&g->h, (r.ty * m + i) * g->h.step + h0);
            REAL *to = T + i * 6 * ts + (p - first);
            if (h < 0) {
                for (ix j = 0; j < 6; j++) memset(to + j * ts, 0, (size_t)r.len * sizeof(REAL));
                continue;
            }
            NAME(stage_row)(row, sample + h * s->h, &g->w, r.tx * m * g->w.step + w0, (r.len - 1) * m + inputs, s->w, s->swap);
            for (ix q = 0; q < r.len; q += VL) { /* what spills over the end of a run is overwritten by the next run */
                NAME(split_tiles)(row + q * m, d, m, inputs);
                if (gradient) NAME(wino_output_points)(d, t, m);
                else NAME(wino_input_points)(d, t);
                UNROLL for (ix j = 0; j < 6; j++) STORE(to + j * ts + q, t[j]);
            }
        }
        p += r.len;
    }
    for (ix q = 0; q < last - first; q += VL, out += group)
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
static __attribute__((noinline)) REAL NAME(direct_output)(const fc_source *s, const char *source, const fc_filter *f, const fc_tiles *g, ix n, ix oh, ix ow)
{
    REAL total = 0, x, w;
    for (ix c = 0; c < f->channels; c++) {
        REAL sum = 0;
        for (ix phase = 0; phase < f->phases; phase++)
            for (ix i = 0; i < f->r; i++) {
                ix h = fc_source_index(&g->h, (oh + i) * g->h.step + f->h0[phase]);
                if (h < 0) continue;
                for (ix j = 0; j < f->r; j++) {
                    ix q = fc_source_index(&g->w, (ow + j) * g->w.step + f->w0[phase]), tap = f->tap_offset[(phase * f->r + i) * f->r + j];
                    if (q < 0 || tap == FC_NO_TAP) continue;
                    NAME(copy_row)(&x, source + n * s->n + c * s->c + h * s->h + q * s->w, 1, 0, s->swap);
                    NAME(copy_row)(&w, f->data + c * f->channel_stride + tap, 1, 0, f->swap);
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
        while (low < high && first_w + (c0 + low) * g->sw < 0) low++;
        while (low < high && first_w + (c0 + high - 1) * g->sw >= g->dw) high--;
        for (ix i = 0; i < m; i++) {
            ix o = r.ty * m + i, row = first_h + o * g->sh;
            if (o >= g->oh || row < 0 || row >= g->dh) continue;
            REAL *from = strip + i * ss + (p - p0) * m, *to = y + r.n * g->yn + row * g->yh + first_w + c0 * g->sw;
            if (suspicious)
                for (ix j = low; j < high; j++)
                    if (!(from[j] - from[j] == 0)) from[j] = NAME(direct_output)(s, source, f, g, r.n, o, c0 + j) + bias;
            if (g->sw == 1) {
                memcpy(to + low, from + low, (size_t)(high - low) * sizeof(REAL));
                if (activation) NAME(activate)(to + low, high - low, activation);
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

/* dU[point][virtual channel] of one filter -> dweight[channel][taps]: virtual channel = (channel, phase), whose r*r taps belong at tap_index[phase][] (or nowhere). */
static void NAME(wino_weights)(REAL *dweight, const REAL *dU, ix plane, ix channels, ix phases, ix taps, const ix *tap_index, ix r)
{
    for (ix c = 0; c < channels * phases; c += VL) {
        V u[6], t[5][6], g[5];
        for (ix j = 0; j < 6; j++) {
            for (ix i = 0; i < 6; i++) u[i] = *(const V *)(dU + (i * 6 + j) * plane + c);
            NAME(wino_filter_taps)(u, g, r);
            for (ix i = 0; i < r; i++) t[i][j] = g[i];
        }
        ix n = FC_MIN(VL, channels * phases - c);
        for (ix i = 0; i < r; i++) {
            NAME(wino_filter_taps)(t[i], g, r);
            for (ix j = 0; j < r; j++)
                for (ix l = 0; l < n; l++) {
                    ix at = tap_index[((c + l) % phases * r + i) * r + j];
                    if (at >= 0) dweight[(c + l) / phases * taps + at] = g[j][l];
                }
        }
    }
}
