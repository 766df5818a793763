/* Winograd convolution with tiles of n x n transformed points, n = 6 or 8: y = A^T [ (G w G^T) * (B^T d B) ] A, for kernels of r = 2 to 7 taps an axis.
 *
 * A tile yields m = n + 1 - r outputs an axis from n inputs, so one input transform serves every r. A convolution of stride s is one of stride 1 over s * s times the
 * channels, one for each phase of the input, with ceil(taps / s) taps an axis; its gradient has s * s times the output channels, one for each phase of dx. A dilated
 * convolution is one of dilation 1 in every phase of its outputs, as if they were samples. The points, and how many roundings they cost: winograd_points.h.
 * Lanes are tiles, numbered flat over (sample, tile row, tile column): no rule about channel counts or map widths.
 * Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015; S. Winograd, "Arithmetic Complexity of Computations", 1980.
 */
#ifndef FC_WINOGRAD_H
#define FC_WINOGRAD_H

typedef struct {
    ix th, tw;         /* tiles along a map's column and row */
    ix ph, pw;         /* maps of a sample: phases of the outputs, one for each row and column of the dilation */
    ix n, m;           /* points of a tile along each axis: 6 or 8; outputs: 2 to 6 */
    ix oh, ow;         /* extent of the grid of outputs that the tiles cover */
    fc_axis h, w;      /* the source: output o, tap t of a phase lie at source index (o + t) * step + the phase's first */
    /* where outputs go: grid row o is destination row o*sh + the phase's first, if that lies in [0, dh) */
    ix dh, dw, sh, sw;
    ix yn, yc, yh;     /* destination strides in elements; columns lie together */
} fc_tiles;

/* `body` with the constants that a tile has, points and outputs along an axis, as its last arguments. */
#define WINO_EVERY_TILE(points, outputs, body, ...)          \
    switch ((points) * 8 + (outputs)) {                      \
    case 6 * 8 + 2: body(__VA_ARGS__, 6, 2); break;          \
    case 6 * 8 + 3: body(__VA_ARGS__, 6, 3); break;          \
    case 6 * 8 + 4: body(__VA_ARGS__, 6, 4); break;          \
    case 6 * 8 + 5: body(__VA_ARGS__, 6, 5); break;          \
    case 8 * 8 + 2: body(__VA_ARGS__, 8, 2); break;          \
    case 8 * 8 + 3: body(__VA_ARGS__, 8, 3); break;          \
    case 8 * 8 + 4: body(__VA_ARGS__, 8, 4); break;          \
    case 8 * 8 + 5: body(__VA_ARGS__, 8, 5); break;          \
    case 8 * 8 + 6: body(__VA_ARGS__, 8, 6); break;          \
    }

typedef struct { ix n, h, w, ty, tx, len; } fc_tile_run; /* tiles of one row, in phase (h, w) of the outputs of sample n */

static inline fc_tile_run fc_tile_row(const fc_tiles *g, ix p, ix last)
{
    ix row = p / g->tw, tx = p % g->tw, map = row / g->th, phase = map % (g->ph * g->pw);
    fc_tile_run r = {map / (g->ph * g->pw), phase / g->pw, phase % g->pw, row % g->th, tx, g->tw - tx < last - p ? g->tw - tx : last - p};
    return r;
}
#endif

INLINE void NAME(wino_filter_body)(REAL *U, ix step, ix plane, const REAL *taps, ix channels, const ix n, const ix m)
{
    const ix r = n + 1 - m;
    for (ix c = 0; c < channels; c++, taps += r * r * MR, U += step) {
        W g[WINO_TAPS], u[WINO_TAPS][WINO_MAX], v[WINO_MAX];
        UNROLL for (ix i = 0; i < r; i++)
        {
            UNROLL for (ix j = 0; j < r; j++) g[j] = *(const W *)(taps + (i * r + j) * MR);
            NAME(wino_filter_points)(g, u[i], r, n);
        }
        UNROLL for (ix j = 0; j < n; j++)
        {
            UNROLL for (ix i = 0; i < r; i++) g[i] = u[i][j];
            NAME(wino_filter_points)(g, v, r, n);
            UNROLL for (ix i = 0; i < n; i++) *(W *)(U + (i * n + j) * plane) = v[i];
        }
    }
}

/* Packed panel taps[channel][r*r][MR] -> U[point][channel][MR], points `plane` elements apart, channels `step`. */
static void NAME(wino_filter)(REAL *U, ix step, ix plane, const REAL *taps, ix channels, ix n, ix r)
{
    WINO_EVERY_TILE(n, n + 1 - r, NAME(wino_filter_body), U, step, plane, taps, channels);
}

/* The points along one source row for the tiles of a run, stored at every place that needs them: place k lies `back` elements before place k - 1. */
INLINE void NAME(wino_row)(REAL *to, ix back, ix places, ix ts, const REAL *row, ix low, ix high, ix len, ix next, const int gradient, const ix n,
                            const ix m)
{
    const ix inputs = gradient ? m : n, reach = m * VL + FC_MAX(m - 1, inputs - m);
    V d[WINO_MAX], t[WINO_MAX];
    for (ix q = 0; q < len; q += VL) { /* what spills over the end of a run is overwritten by the next run */
        /* the next channel's row: each is read once, and the processor does not foresee the leap */
        UNROLL for (ix j = 0; j < m; j++) __builtin_prefetch((const char *)(row + q * m + j * VL) + next);
        if (q * m >= low && q * m + reach <= high) NAME(split_tiles)(row, q * m, low, high, d, m, inputs, 1);
        else NAME(split_tiles)(row, q * m, low, high, d, m, inputs, 0);
        if (gradient) NAME(wino_output_points)(d, t, m, n);
        else NAME(wino_input_points)(d, t, n);
        REAL *at = to + q;
        for (ix k = 0; k < places; k++, at -= back) UNROLL for (ix j = 0; j < n; j++) STORE(at + j * ts, t[j]);
    }
}

/* Tiles [p, last) of one channel -> n * n numbers a tile: first along rows into T (n or m rows of n points, `ts` apart), then along columns into
 * out + (point)*plane + (vector)*group. A tile reads n inputs of x along an axis, or m of dy (gradient of the weights). h0, w0: the phase's first source indices.
 * Rows that lie together are read in place, others are staged in `rows`. The last n - m rows of a tile are the first of the tile below (if n - m > m, of more than one):
 * they are transformed once and stored for all. */
INLINE void NAME(wino_input_body)(REAL *restrict out, ix plane, ix group, REAL *restrict T, REAL *restrict rows, const fc_source *s, const char *channel,
                                  const fc_tiles *g, ix h0, ix w0, ix p, ix last, const int gradient, const ix n, const ix m)
{
    const ix inputs = gradient ? m : n, first = p, tiles = last - first, margin = g->tw < tiles ? g->tw : 0;
    const ix ts = tiles + 2 * VL + margin, pitch = (tiles + VL) * m + 8;
    const int direct = s->w == (ix)sizeof(REAL) && !s->swap && g->w.step == 1 && g->w.mode == FC_ZEROS && (uintptr_t)channel % sizeof(REAL) == 0 &&
                       s->h % (ix)sizeof(REAL) == 0 && s->n % (ix)sizeof(REAL) == 0;
    const ix next = direct ? s->c : 0;
    ix above = 0; /* runs above this one that wait for its rows */
    V d[WINO_MAX], t[WINO_MAX];
    T += margin;
    while (p < last) {
        fc_tile_run r = fc_tile_row(g, p, last);
        const char *sample = channel + r.n * s->n;
        const ix start = r.tx * m * g->w.step + w0 + r.w, count = (r.len - 1) * m + inputs;
        /* the run below has this one's last rows if it belongs to the same sample and covers the same columns */
        const int shared = !gradient && r.ty + 1 < g->th && last - (p + r.len) >= r.tx + r.len;
        const ix needed = shared ? m : inputs;
        const REAL *row[WINO_MAX];
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
            const ix places = gradient ? 1 : FC_MIN((n - 1 - i) / m, above) + 1;
            REAL *to = T + i * n * ts + (p - first);
            if (row[i]) {
                NAME(wino_row)(to, g->tw - m * n * ts, places, ts, row[i], low, high, r.len, next, gradient, n, m);
                continue;
            }
            for (ix k = 0; k < places; k++, to -= g->tw - m * n * ts)
                for (ix j = 0; j < n; j++) memset(to + j * ts, 0, (size_t)r.len * sizeof(REAL));
        }
        above = shared ? above + 1 : 0;
        p += r.len;
    }
    for (ix q = 0; q < tiles; q += VL, out += group)
        UNROLL for (ix j = 0; j < n; j++)
        {
            UNROLL for (ix i = 0; i < inputs; i++) d[i] = LOAD(T + (i * n + j) * ts + q);
            if (gradient) NAME(wino_output_points)(d, t, m, n);
            else NAME(wino_input_points)(d, t, n);
            UNROLL for (ix i = 0; i < n; i++) *(V *)(out + (i * n + j) * plane) = t[i];
        }
}

static void NAME(wino_input)(REAL *out, ix plane, ix group, REAL *T, REAL *row, const fc_source *s, const char *channel, const fc_tiles *g, ix h0, ix w0, ix p,
                              ix last)
{
    WINO_EVERY_TILE(g->n, g->m, NAME(wino_input_body), out, plane, group, T, row, s, channel, g, h0, w0, p, last, 0);
}

/* dy, as the gradient of the weights needs it. */
static void NAME(wino_gradient)(REAL *out, ix plane, ix group, REAL *T, REAL *row, const fc_source *s, const char *channel, const fc_tiles *g, ix h0, ix w0, ix p,
                              ix last)
{
    WINO_EVERY_TILE(g->n, g->m, NAME(wino_input_body), out, plane, group, T, row, s, channel, g, h0, w0, p, last, 1);
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
                                   const char *source, const fc_filter *f, const fc_tiles *g, ix first_h, ix first_w, const ix p0, const ix last, const ix n, const ix m)
{
    const ix ss = ((last - p0 + VL - 1) / VL * VL) * m;
    V check = {0};
    for (ix q = 0; q < last - p0; q += VL) {
        V points[WINO_MAX], t[WINO_OUTPUTS][WINO_MAX], o[WINO_OUTPUTS];
        UNROLL for (ix j = 0; j < n; j++)
        {
            V col[WINO_OUTPUTS];
            UNROLL for (ix i = 0; i < n; i++) points[i] = *(const V *)(Mm + (i * n + j) * plane + q);
            NAME(wino_outputs)(points, col, m, n);
            UNROLL for (ix i = 0; i < m; i++) t[i][j] = col[i];
        }
        UNROLL for (ix i = 0; i < m; i++)
        {
            NAME(wino_outputs)(t[i], o, m, n);
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
    WINO_EVERY_TILE(g->n, g->m, NAME(wino_output_body), y, Mm, plane, strip, bias, activation, s, source, f, g, first_h, first_w, p, last);
}

/* Transformed sums of one vector of lanes -> taps: lane l's are the `taps` numbers at dweight + l*lane_stride. Points lie `plane` apart, phases `phase_step`;
 * the r*r taps of a phase belong at tap_index[phase][] (or nowhere). G: FC_MAX(taps, VL) vectors, rounded up to VL of them, aligned. */
INLINE void NAME(wino_weights_body)(REAL *dweight, ix lane_stride, ix lanes, const REAL *dU, ix plane, ix phases, ix phase_step, ix taps, const ix *tap_index,
                                    REAL *restrict G, const ix n, const ix m)
{
    const ix r = n + 1 - m;
    for (ix phase = 0; phase < phases; phase++, dU += phase_step, tap_index += r * r) {
        V u[WINO_MAX], t[WINO_TAPS][WINO_MAX], g[WINO_TAPS];
        UNROLL for (ix j = 0; j < n; j++)
        {
            UNROLL for (ix i = 0; i < n; i++) u[i] = *(const V *)(dU + (i * n + j) * plane);
            NAME(wino_filter_taps)(u, g, r, n);
            UNROLL for (ix i = 0; i < r; i++) t[i][j] = g[i];
        }
        UNROLL for (ix i = 0; i < r; i++)
        {
            NAME(wino_filter_taps)(t[i], g, r, n);
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
                               REAL *G, ix n, ix r)
{
    WINO_EVERY_TILE(n, n + 1 - r, NAME(wino_weights_body), dweight, lane_stride, lanes, dU, plane, phases, phase_step, taps, tap_index, G);
}
