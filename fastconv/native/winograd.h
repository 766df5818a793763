/* Winograd convolution with tiles of n x n transformed points, n = 6 or 8: y = A^T [ (G w G^T) * (B^T d B) ] A, for kernels of r = 2 to 7 taps an axis.
 *
 * A tile yields m = n + 1 - r outputs an axis from n inputs, so one input transform serves every r. A convolution of stride s is one of stride 1 over s * s times the
 * channels, one for each phase of the input, with ceil(taps / s) taps an axis; its gradient has s * s times the output channels, one for each phase of dx. A dilated
 * convolution is one of dilation 1 in every phase of its outputs, as if they were samples. The points, and how many roundings they cost: winograd_points.h.
 * Lanes are tiles, numbered flat over (sample, tile row, tile column): no rule about channel counts or map widths.
 * Where m does not divide a map's extent, some tiles of the axis are short: the next tile begins with what would be their last output. The point at infinity takes part in
 * that output alone, so a short tile is a whole one without its products at that point: 13 = 4 + 3 + 3 + 3 outputs of 21 points, not of 24.
 * Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015; S. Winograd, "Arithmetic Complexity of Computations", 1980.
 */
#ifndef FC_WINOGRAD_H
#define FC_WINOGRAD_H

/* Tiles of which all are whole or all are short, down and across. They have numbers of their own. */
typedef struct {
    ix first, end;     /* their numbers */
    ix th, tw;         /* tiles along a map's column and row */
    ix mh, mw;         /* outputs along them: m, or m - 1 of short ones */
    ix h, w;           /* where the first one's outputs begin in the grid */
} fc_tile_class;

/* Classes in such an order that the tiles that need a point lie together: whole down and short across, whole both ways, short down and whole across, short both ways. */
#define WINO_CLASSES 4

typedef struct {
    fc_tile_class classes[WINO_CLASSES];
    ix count;          /* tiles of all samples */
    ix ph, pw;         /* maps of a sample: phases of the outputs, one for each row and column of the dilation */
    ix n, m;           /* points of a tile along each axis: 6 or 8; outputs: 2 to 6 */
    ix oh, ow;         /* extent of the grid of outputs that the tiles cover */
    fc_axis h, w;      /* the source: output o, tap t of a phase lie at source index (o + t) * step + the phase's first */
    ix h_end, w_end;   /* source indices that `wino_lanes` takes for zeros, from here on */
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

/* Cut the grid of outputs of so many maps into tiles: `short_h` of those down a column and `short_w` of those across a row are short, the last ones. */
static inline void fc_cut_tiles(fc_tiles *g, ix maps, ix short_h, ix short_w)
{
    const ix down = (g->oh + g->m - 1) / g->m - short_h, across = (g->ow + g->m - 1) / g->m - short_w;
    g->count = 0;
    for (int i = 0; i < WINO_CLASSES; i++) {
        fc_tile_class *k = g->classes + i;
        const int is_short_h = i >= 2, is_short_w = i == 0 || i == 3;
        k->th = is_short_h ? short_h : down;
        k->tw = is_short_w ? short_w : across;
        k->mh = g->m - is_short_h;
        k->mw = g->m - is_short_w;
        k->h = is_short_h ? down * g->m : 0;
        k->w = is_short_w ? across * g->m : 0;
        k->first = g->count;
        k->end = g->count += maps * k->th * k->tw;
    }
}

/* Of the tiles [p, last), counted from p, those that a point needs: at infinity whole ones do. */
static inline void fc_tiles_at_point(const fc_tiles *g, ix point, ix p, ix last, ix *low, ix *high)
{
    const ix i = point / g->n, j = point % g->n, begin = j == g->n - 1 ? g->classes[1].first : 0;
    const ix end = i == g->n - 1 ? g->classes[1].end : j == g->n - 1 ? g->classes[2].end : g->count;
    *low = FC_MIN(FC_MAX(begin, p), last) - p;
    *high = FC_MAX(FC_MIN(end, last) - p, *low);
}

/* Tiles of one row, in phase (h, w) of the outputs of sample n: the ty-th row of their class, from the tx-th on; and where in the grid the first one's outputs begin. */
typedef struct { ix n, h, w, ty, tx, len, row, column; const fc_tile_class *of; } fc_tile_run;

static inline fc_tile_run fc_tile_row(const fc_tiles *g, ix p, ix last)
{
    const fc_tile_class *k = g->classes;
    while (p >= k->end) k++;
    last = FC_MIN(last, k->end) - k->first;
    p -= k->first;
    ix row = p / k->tw, tx = p % k->tw, map = row / k->th, phase = map % (g->ph * g->pw), ty = row % k->th;
    fc_tile_run r = {map / (g->ph * g->pw), phase / g->pw, phase % g->pw, ty, tx, FC_MIN(k->tw - tx, last - p), k->h + ty * k->mh, k->w + tx * k->mw, k};
    return r;
}

#define WINO_RUNS 97 /* one more than the tiles, and so runs, that are transformed at a time */
#define WINO_SPAN 1584 /* columns that these read at most, every run's in whole vectors, and a vector behind: an odd number of cache lines */
#define FC_NO_ROW PTRDIFF_MIN
/* A run as all channels share it: columns [low, high) of `columns` lie in the source, whose first one and rows begin there, and in the block's rows `place`; of the rows
 * `kept` are the last ones of the run before. */
typedef struct { ix low, high, columns, start, place, kept, offset[WINO_MAX]; } fc_tile_rows;

/* The runs of tiles [p, last), and where in the block's rows each tile begins. Returns the elements of such a row. `size`: bytes of an element if rows of the source are
 * read in place, whose offsets then are those of their first column; else 0. lanes: of a vector. */
static ix fc_find_tile_rows(fc_tile_rows *r, ix *count, ix *begins, const fc_source *s, const fc_tiles *g, ix h0, ix w0, ix p, ix last, ix size, ix lanes)
{
    fc_tile_run above = {-1};
    ix width = 0, tiles = 0;
    for (*count = 0; p < last; r++, ++*count) {
        const fc_tile_run run = fc_tile_row(g, p, last);
        const int below = run.of == above.of && run.n == above.n && run.h == above.h && run.w == above.w && run.ty == above.ty + 1 && run.tx == above.tx &&
                          run.len <= above.len;
        r->kept = below ? g->n - run.of->mh : 0;
        r->place = width;
        r->start = run.column * g->w.step + w0 + run.w;
        r->low = 0;
        r->high = r->columns = (run.len - 1) * run.of->mw + g->n;
        if (size) {
            r->low = FC_MIN(FC_MAX(-r->start, 0), r->columns);
            r->high = FC_MAX(FC_MIN(g->w.size - r->start, r->columns), r->low);
        }
        for (ix i = 0; i < g->n; i++) {
            ix h = fc_source_index(&g->h, (run.row + i) * g->h.step + h0 + run.h);
            r->offset[i] = h < 0 ? FC_NO_ROW : run.n * s->n + h * s->h + r->start * size;
        }
        for (ix i = 0; i < run.len; i++) begins[tiles++] = width + i * run.of->mw;
        width += (r->columns + lanes - 1) / lanes * lanes;
        p += run.len;
        above = run;
    }
    for (; tiles % lanes; tiles++) begins[tiles] = 0;
    return (width + WINO_MAX + 31) / 32 * 32 + 16;
}

/* Where the outputs of a run go: rows [first, last) and columns [low, high) of its tiles have a place in the destination, the first of them at `to` of a channel. */
typedef struct { fc_tile_run run; ix at, first, last, low, high, to; } fc_place;

/* Those of the runs of tiles [p, last) that have any. */
static ix fc_find_places(fc_place *r, const fc_tiles *g, ix first_h, ix first_w, ix p, ix last)
{
    const ix begin = p;
    fc_place *const all = r;
    for (; p < last; p += r->run.len, r += r->first < r->last && r->low < r->high) {
        r->run = fc_tile_row(g, p, last);
        r->at = p - begin;
        const ix o = r->run.row, c = r->run.column, h = first_h + r->run.h, w = first_w + r->run.w;
        r->first = r->low = 0;
        r->last = FC_MIN(r->run.of->mh, g->oh - o);
        r->high = FC_MIN(r->run.len * r->run.of->mw, g->ow - c);
        while (r->first < r->last && h + (o + r->first) * g->sh < 0) r->first++;
        while (r->first < r->last && h + (o + r->last - 1) * g->sh >= g->dh) r->last--;
        while (r->low < r->high && w + (c + r->low) * g->sw < 0) r->low++;
        while (r->low < r->high && w + (c + r->high - 1) * g->sw >= g->dw) r->high--;
        r->to = r->run.n * g->yn + (h + (o + r->first) * g->sh) * g->yh + w + (c + r->low) * g->sw;
    }
    return r - all;
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

/* The points along the columns of a run of tiles, lanes: n source rows (NULL: one of zeros) to n rows of points, `pitch` apart. `next` leads to the next channel. */
INLINE void NAME(wino_columns)(REAL *to, ix pitch, const REAL *const *row, ix low, ix high, ix columns, ix next, const ix n)
{
    for (ix q = 0; q < columns; q += VL) {
        V d[WINO_MAX], t[WINO_MAX];
        const NAME(span) span = NAME(span_between)(low - q, high - q);
        UNROLL for (ix i = 0; i < n; i++)
        {
            d[i] = (V){0};
            if (!row[i]) continue;
            /* each is read once, and the processor does not foresee the leap; from memory it takes longer than a channel */
            __builtin_prefetch((const char *)(row[i] + q) + next);
            __builtin_prefetch((const char *)(row[i] + q) + 4 * next, 0, 2);
            d[i] = NAME(columns)(row[i] + q, span);
        }
        NAME(wino_input_points)(d, t, n);
        UNROLL for (ix i = 0; i < n; i++) STORE(to + i * pitch + q, t[i]);
    }
}

/* Tiles [first, last) of channels -> n * n numbers a tile: first along columns, where lanes are columns of the source, into T (n rows of all that the tiles read); then
 * along rows, where lanes are tiles, wherever they lie, into out + (channel)*step + (point)*plane + (vector)*group. h0, w0: the phase's first source indices. Rows that lie
 * together are read in place, others are staged in `rows`. */
INLINE void NAME(wino_input_body)(REAL *restrict out, ix step, ix plane, ix group, REAL *restrict T, REAL *restrict rows, const fc_source *s, const char *channel,
                                  ix channels, const fc_tiles *g, ix h0, ix w0, const ix first, const ix last, const ix n)
{
    const ix tiles = last - first, staged = (tiles + VL) * g->m + 8;
    const int direct = s->w == (ix)sizeof(REAL) && !s->swap && g->w.step == 1 && g->w.mode == FC_ZEROS && (uintptr_t)channel % sizeof(REAL) == 0 &&
                       s->h % (ix)sizeof(REAL) == 0 && s->n % (ix)sizeof(REAL) == 0 && s->c % (ix)sizeof(REAL) == 0;
    fc_tile_rows runs[WINO_RUNS];
    ix count, begins[WINO_RUNS + VL];
    const ix pitch = fc_find_tile_rows(runs, &count, begins, s, g, h0, w0, first, last, direct ? (ix)sizeof(REAL) : 0, VL);
    REAL *stage[WINO_MAX];
    for (ix i = 0; i < n; i++) stage[i] = rows + i * staged;
    for (ix c = 0; c < channels; c++, channel += s->c, out += step) {
        for (const fc_tile_rows *r = runs; r < runs + count; r++) {
            const REAL *row[WINO_MAX];
            for (ix i = 0; i < n; i++) row[i] = r->offset[i] == FC_NO_ROW ? NULL : (const REAL *)(channel + r->offset[i]);
            if (!direct) {
                REAL *old[WINO_MAX];
                memcpy(old, stage, sizeof(old));
                for (ix i = 0; i < n; i++) {
                    stage[i] = old[(i + n - r->kept) % n];
                    if (row[i] && i >= r->kept) NAME(stage_row)(stage[i], (const char *)row[i], &g->w, r->start, r->columns, s->w, s->swap);
                    if (row[i]) row[i] = stage[i];
                }
            }
            NAME(wino_columns)(T + r->place, pitch, row, r->low, r->high, r->columns, direct ? s->c : 0, n);
        }
        REAL *to = out;
        for (ix q = 0; q < tiles; q += VL, to += group)
            for (ix i = 0; i < n; i++) {
                V d[WINO_MAX], t[WINO_MAX];
                NAME(gather_tiles)(T + i * pitch, begins + q, d, n);
                NAME(wino_input_points)(d, t, n);
                UNROLL for (ix j = 0; j < n; j++) *(V *)(to + (i * n + j) * plane) = t[j];
            }
    }
}

static void NAME(wino_input)(REAL *out, ix step, ix plane, ix group, REAL *T, REAL *row, const fc_source *s, const char *channel, ix channels, const fc_tiles *g,
                             ix h0, ix w0, ix p, ix last)
{
    if (g->n == 6) NAME(wino_input_body)(out, step, plane, group, T, row, s, channel, channels, g, h0, w0, p, last, 6);
    else NAME(wino_input_body)(out, step, plane, group, T, row, s, channel, channels, g, h0, w0, p, last, 8);
}

/* ---- gradient of the weights: channels are the lanes -------------------------------------------------------------------------------------------------- */

#ifndef WINO_WIDE
#define WINO_WIDE 64             /* columns of a row that are turned together: six rows of them stay in a first-level cache, eight nearly */
#define WINO_AHEAD 4             /* tiles */
#define WINO_PITCH (WINO_WIDE + 1) /* from one turned row to the next, in vectors: equal columns of neighbours fall into different cache sets */

/* A vector of (phase, channel): those of one phase lie behind one another. */
typedef struct {
    const char *data;      /* of the first channel */
    ix lanes, h0, w0;      /* the phase's first source indices */
    ix start, low, high;   /* of a piece of a run: its first column, and which columns lie in the source */
} fc_lanes;
#endif

/* One source row for `columns` columns, channels as lanes: R[column][lane]. block: VL vectors whose lanes past the last channel are zeros; line: VL staged rows. */
static void NAME(wino_turn_row)(REAL *R, REAL *block, REAL *line, const fc_source *s, const fc_tiles *g, const fc_lanes *parts, ix count, const fc_tile_run *r, ix row,
                                ix columns, ix ahead, int direct)
{
    ix h[VL], lane = 0;
    for (ix k = 0; k < count; lane += parts[k].lanes, k++) {
        const ix down = row * g->h.step + parts[k].h0 + r->h, across = FC_MAX(fc_ceil_div(g->w_end - parts[k].start, g->w.step), 0);
        h[k] = down < g->h_end ? fc_source_index(&g->h, down) : -1;
        if (direct || h[k] < 0) continue;
        for (ix l = 0; l < parts[k].lanes; l++) {
            REAL *to = line + (lane + l) * WINO_WIDE;
            NAME(stage_row)(to, parts[k].data + l * s->c + r->n * s->n + h[k] * s->h, &g->w, parts[k].start, FC_MIN(across, columns), s->w, s->swap);
            for (ix q = across; q < columns; q++) to[q] = 0;
        }
    }
    for (ix q = 0; q < columns; q += VL) {
        REAL *to = block;
        lane = 0;
        for (ix k = 0; k < count; lane += parts[k].lanes, k++) {
            const fc_lanes *p = parts + k;
            const NAME(span) span = NAME(span_between)(p->low - q, p->high - q);
            const char *from = p->data + r->n * s->n + h[k] * s->h + (p->start + q) * (ix)sizeof(REAL);
            if (h[k] < 0)
                for (ix l = 0; l < p->lanes; l++, to += VL) *(V *)to = (V){0};
            else if (direct)
                for (ix l = 0; l < p->lanes; l++, to += VL, from += s->c) {
                    __builtin_prefetch(from + ahead);
                    *(V *)to = NAME(columns)((const REAL *)from, span);
                }
            else
                for (ix l = 0; l < p->lanes; l++, to += VL) *(V *)to = LOAD(line + (lane + l) * WINO_WIDE + q);
        }
        NAME(transpose_block)(R + q * VL, block);
    }
}

/* Tiles [p, last) of a vector of channels: out[point][tile][lane], points `plane` apart; of x, or of dy (gradient), whose values are then added to `sums`, unless that is
 * NULL. Rows are turned first, so that tiles lie where their columns do and need not be taken apart. Of what a short tile does not yield the gradient is zero to it.
 * work: n * WINO_PITCH vectors of turned rows, WINO_WIDE of staged ones, VL more. */
INLINE void NAME(wino_lanes_body)(REAL *out, ix plane, REAL *work, const fc_source *s, fc_lanes *parts, ix count, const fc_tiles *g, ix p, ix last, double *sums,
                                  const int gradient, const ix n, const ix m)
{
    const ix inputs = gradient ? m : n, most = (WINO_WIDE - inputs) / m + 1;
    const int direct = s->w == (ix)sizeof(REAL) && !s->swap && g->w.step == 1 && g->w.mode == FC_ZEROS && (uintptr_t)parts->data % sizeof(REAL) == 0 &&
                       s->h % (ix)sizeof(REAL) == 0 && s->n % (ix)sizeof(REAL) == 0 && s->c % (ix)sizeof(REAL) == 0;
    REAL *line = work + n * WINO_PITCH * VL, *block = line + WINO_WIDE * VL, *row[WINO_MAX];
    fc_tile_run above = {-1};
    for (ix i = 0; i < n; i++) row[i] = work + i * WINO_PITCH * VL;
    memset(block, 0, VL * VL * sizeof(REAL));
    while (p < last) {
        fc_tile_run r = fc_tile_row(g, p, last);
        const ix pieces = (r.len + most - 1) / most;
        r.len = (r.len + pieces - 1) / pieces;
        const ix down = r.of->mh, across = r.of->mw, columns = (r.len - 1) * across + inputs;
        /* of the next piece, or of the tiles below */
        const ix ahead = pieces > 1 ? r.len * across * (ix)sizeof(REAL) : down * g->h.step * s->h;
        for (ix k = 0; k < count; k++) {
            parts[k].start = r.column * g->w.step + parts[k].w0 + r.w;
            parts[k].low = FC_MIN(FC_MAX(-parts[k].start, 0), columns);
            parts[k].high = FC_MAX(FC_MIN(FC_MIN(g->w.size, g->w_end) - parts[k].start, columns), parts[k].low);
        }
        ix i = 0;
        if (!gradient && r.of == above.of && r.n == above.n && r.h == above.h && r.w == above.w && r.ty == above.ty + 1 && r.tx == above.tx && r.len <= above.len) {
            REAL *old[WINO_MAX]; /* the last rows of the tiles above are the first of these */
            memcpy(old, row, sizeof(old));
            for (ix k = 0; k < n; k++) row[k] = old[(k + down) % n];
            i = n - down;
        }
        const ix given = gradient ? down : inputs, given_across = gradient ? across : inputs;
        if (given < inputs) memset(row[given], 0, columns * VL * sizeof(REAL));
        for (; i < given; i++) NAME(wino_turn_row)(row[i], block, line, s, g, parts, count, &r, r.row + i, columns, ahead, direct);
        V total[2] = {{0}};
        for (ix tile = 0; tile < r.len; tile++, out += VL) {
            V half[WINO_MAX * WINO_MAX], d[WINO_MAX], t[WINO_MAX];
            for (ix k = 0; k < inputs; k++) {
                UNROLL for (ix j = 0; j < inputs; j++) d[j] = *(const V *)(row[k] + (tile * across + j) * VL);
                if (given_across < inputs) d[inputs - 1] = (V){0};
                if (gradient) {
                    UNROLL for (ix j = 0; j < inputs; j++) total[j % 2] += d[j];
                    NAME(wino_output_points)(d, t, m, n);
                } else
                    NAME(wino_input_points)(d, t, n);
                UNROLL for (ix j = 0; j < n; j++) half[k * n + j] = t[j];
            }
            for (ix j = 0; j < n; j++) {
                UNROLL for (ix k = 0; k < inputs; k++) d[k] = half[k * n + j];
                if (gradient) NAME(wino_output_points)(d, t, m, n);
                else NAME(wino_input_points)(d, t, n);
                UNROLL for (ix k = 0; k < n; k++)
                {
                    FETCH_TO_WRITE(out + (k * n + j) * plane + WINO_AHEAD * VL); /* of n * n places at once the processor foresees none */
                    *(V *)(out + (k * n + j) * plane) = t[k];
                }
            }
        }
        if (gradient && sums)
            for (ix lane = 0; lane < parts->lanes; lane++) sums[lane] += total[0][lane] + total[1][lane];
        above = r;
        p += r.len;
    }
}

/* Channels [first, first + lanes) of all (phase, channel), `channels` to a phase, of which h0 and w0 are the first source indices. */
static void NAME(wino_lanes)(REAL *out, ix plane, REAL *work, const fc_source *s, const char *data, ix first, ix lanes, ix channels, const ix *h0, const ix *w0,
                             const fc_tiles *g, ix p, ix last, double *sums, int gradient)
{
    fc_lanes parts[VL];
    ix count = 0;
    while (lanes > 0) {
        fc_lanes *part = parts + count++;
        const ix phase = first / channels;
        part->lanes = FC_MIN((phase + 1) * channels - first, lanes);
        part->data = data + first % channels * s->c;
        part->h0 = h0[phase];
        part->w0 = w0[phase];
        first += part->lanes;
        lanes -= part->lanes;
    }
    if (gradient) {
        WINO_EVERY_TILE(g->n, g->m, NAME(wino_lanes_body), out, plane, work, s, parts, count, g, p, last, sums, 1);
    } else
        WINO_EVERY_TILE(g->n, g->m, NAME(wino_lanes_body), out, plane, work, s, parts, count, g, p, last, NULL, 0);
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
static __attribute__((noinline)) REAL NAME(direct_output)(const fc_source *s, const char *source, const fc_filter *f, const fc_tiles *g, const fc_tile_run *run, ix oh,
                                                          ix ow)
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

#ifndef FC_WINO_ROWS
#define FC_WINO_ROWS
/* Elements from one row of a block's outputs to the next: those of whole vectors of tiles, and a line that the last row may take over from the one behind it. */
#define WINO_STRIP(tiles) (((tiles) + VL - 1) / VL * VL * m + FC_LINE / REAL_BYTES)
#endif

/* A run's first row of outputs, in the strip of tiles that are as long across. */
INLINE REAL *NAME(wino_row_of)(const fc_place *r, REAL *strip, REAL *strip_of_short, ix ss, const ix m)
{
    const ix outputs = r->run.of->mw;
    return (outputs == m ? strip : strip_of_short) + r->first * ss + r->at * outputs + r->low;
}

/* A run's rows of outputs -> y, where its columns lie `g->sw` apart. */
INLINE void NAME(wino_put_rows)(REAL *to, const REAL *from, ix ss, const fc_place *r, const fc_tiles *g)
{
    const ix len = r->high - r->low;
    for (ix i = r->first; i < r->last; i++, from += ss, to += g->yh * g->sh) {
        ix j = 0;
        if (g->sw > 1)
            for (; j < len; j++) to[j * g->sw] = from[j];
        for (; j + VL <= len; j += VL) {
            FETCH_TO_WRITE(to + j + g->yc); /* the next channel's row: each is written once */
            STORE(to + j, LOAD(from + j));
        }
        if (j == len) continue;
        FETCH_TO_WRITE(to + len - 1 + g->yc);
        STOREN(to + j, LOAD(from + j), len - j);
    }
}

/* The same past the caches, all runs of a block, whose tiles are whole across. A line that is written in pieces is read from memory first, which takes as long as writing
 * several: rows that lie together are written as one stretch. A row takes over the beginning of the one behind it, that its last line be whole; which is why the last row
 * comes first: what lies behind a row in the strip, and is overwritten, has been written to y by then. */
INLINE void NAME(wino_stream_rows)(REAL *y, REAL *strip, ix ss, const fc_place *places, ix count, const fc_tiles *g, const ix m)
{
    const ix line = FC_LINE / REAL_BYTES, pitch = g->yh * g->sh;
    const REAL *next = NULL, *next_from = NULL; /* the row written before this one, in y and in the strip; NULL if it is too short to share lines */
    for (const fc_place *r = places + count - 1; r >= places; r--) {
        const ix len = r->high - r->low;
        const REAL *last = NULL; /* where the last row of the run above ends, if that is long enough */
        if (r > places && r[-1].high - r[-1].low >= line) last = y + r[-1].to + (r[-1].last - 1 - r[-1].first) * pitch + r[-1].high - r[-1].low;
        for (ix i = r->last - 1; i >= r->first; i--) {
            REAL *to = y + r->to + (i - r->first) * pitch, *from = strip + i * ss + r->at * m + r->low;
            const int shares = len >= line, above = shares && (i > r->first ? to - pitch + len : last) == to, behind = shares && next == to + len;
            const ix head = FC_MIN((ix)((FC_LINE - (uintptr_t)to % FC_LINE) % FC_LINE / REAL_BYTES), len), end = behind ? len : len - line + 1;
            if (behind) UNROLL for (ix j = 0; j < line; j += VL) STORE(from + len + j, LOAD(next_from + j));
            ix j;
            /* of the next channel: each stretch's lines that others share, and the page */
            if (!above) FETCH_TO_WRITE(to + g->yc);
            if (!behind) FETCH_TO_WRITE(to + len - 1 + g->yc);
            if (!above) for (j = 0; j < head; j += VL) STOREN(to + j, LOAD(from + j), FC_MIN(VL, head - j));
            for (j = head; j < end; j += line) UNROLL for (ix k = 0; k < line; k += VL) STREAM(to + j + k, LOAD(from + j + k));
            for (; j < len; j += VL) STOREN(to + j, LOAD(from + j), FC_MIN(VL, len - j));
            next = shares ? to : NULL;
            next_from = from;
        }
    }
}

/* `tiles` from the p-th on of output channels: M[channel][point][vector] -> y, plus bias, activated. Channels are `ld` apart in M, `step` bytes in the filter. `places` are
 * those of the tiles' runs; with `stream` they are written past the caches. strip: rows of outputs of whole tiles, and behind them of tiles that are short across.
 *
 * A non-finite input, or one whose transform overflows, makes every output of its tile non-finite, also those whose own sum does not contain it. Such outputs are
 * recognised here (their sum is not finite either) and computed again by their definition, so that non-finite values stay where they belong. */
INLINE void NAME(wino_output_body)(REAL *y, ix channels, const REAL *restrict Mm, ix ld, ix plane, REAL *restrict strip, const REAL *bias, int activation,
                                   const fc_source *s, const char *source, fc_filter f, ix step, const fc_tiles *g, const fc_place *places, ix count, ix p,
                                   ix tiles, int stream, const ix n, const ix m)
{
    const ix ss = WINO_STRIP(tiles), down = n * plane, first_whole = g->classes[1].first - p, last_whole = FC_MIN(g->classes[2].end - p, tiles);
    REAL *const strip_of_short = strip + m * ss;
    for (ix c = 0; c < channels; c++, y += g->yc, Mm += ld, f.data += step) {
        const REAL added = bias ? bias[c] : 0;
        V check = {0};
        for (ix q = 0; q < tiles; q += VL) {
            V half[WINO_OUTPUTS * WINO_MAX]; /* transformed along columns: [output][point] */
            const REAL *column = Mm + q;
            ROLLED for (ix j = 0; j < n; j++, column += plane) {
                V points[WINO_MAX], o[WINO_OUTPUTS];
                const REAL *point = column;
                UNROLL for (ix i = 0; i < n; i++, point += down) points[i] = *(const V *)point;
                NAME(wino_outputs)(points, o, m, n);
                UNROLL for (ix i = 0; i < m; i++) half[i * n + j] = o[i];
            }
            const int any_whole = q < last_whole && q + VL > first_whole, any_short = q < first_whole || FC_MIN(q + VL, tiles) > last_whole;
            ROLLED for (ix i = 0; i < m; i++) {
                V o[WINO_OUTPUTS];
                NAME(wino_outputs)(half + i * n, o, m, n);
                UNROLL for (ix j = 0; j < m; j++) o[j] += added;
                V sum = o[0];
                UNROLL for (ix j = 1; j < m; j++) sum += o[j];
                check += sum;
                if (any_whole) NAME(join_tiles)(strip + i * ss + q * m, o, m);
                if (any_short) NAME(join_tiles)(strip_of_short + i * ss + q * (m - 1), o, m - 1);
            }
        }
        const int suspicious = NAME(any_nan)(check - check);
        if (suspicious || activation)
            for (const fc_place *r = places; r < places + count; r++) {
                const ix len = r->high - r->low;
                REAL *row = NAME(wino_row_of)(r, strip, strip_of_short, ss, m);
                for (ix i = r->first; i < r->last; i++, row += ss) {
                    if (suspicious)
                        for (ix j = 0; j < len; j++)
                            if (!(row[j] - row[j] == 0)) row[j] = NAME(direct_output)(s, source, &f, g, &r->run, r->run.row + i, r->run.column + r->low + j) + added;
                    if (activation) NAME(activate)(row, len, activation);
                }
            }
        if (stream) NAME(wino_stream_rows)(y, strip, ss, places, count, g, m);
        else
            for (const fc_place *r = places; r < places + count; r++) NAME(wino_put_rows)(y + r->to, NAME(wino_row_of)(r, strip, strip_of_short, ss, m), ss, r, g);
    }
    if (stream) fc_stream_end();
}

static void NAME(wino_output)(REAL *y, ix channels, const REAL *Mm, ix ld, ix plane, REAL *strip, const REAL *bias, int activation, const fc_source *s,
                              const char *source, const fc_filter *f, ix step, const fc_tiles *g, const fc_place *places, ix count, ix p, ix tiles, int stream)
{
    WINO_EVERY_TILE(g->n, g->m, NAME(wino_output_body), y, channels, Mm, ld, plane, strip, bias, activation, s, source, *f, step, g, places, count, p, tiles, stream);
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
