/* Sums and moments over all axes but one, the affine map of batch normalisation, local response normalisation.
 *
 * Arrays are seen as (N, C, inner). Sums are cut into units that depend on the shape alone; a unit yields one partial result
 * for each of its channels or columns and these are joined in order (kernels/norm.pxi), so that bits do not depend on who
 * computed which unit. Two ways, by the length of the inner axis:
 *   planes   (inner >= FC_INNER_MIN) a unit is about FC_UNIT elements of one channel; lanes run along the inner axis.
 *   columns  a column is a channel and an inner position; a unit is FC_UNIT_ROWS samples of FC_STRIP columns; lanes run along them.
 */
#ifndef FC_NORM_COMMON
#define FC_NORM_COMMON
#define FC_INNER_MIN 16   /* one vector of floats: below it most lanes along the inner axis would be idle */
#define FC_UNIT 8192      /* 32 or 64 KB: an eighth of it is read twice by the moments, the second time from the cache */
#define FC_UNIT_ROWS 256  /* of a strip: 256 or 512 KB, read twice by the moments; joining the parts of fewer rows takes as long as summing them */

/* What a unit yields, and how many numbers that is.
 * FC_SUM: sum of x. FC_PRODUCTS: sum of y, sum of y (x - shift). FC_MOMENTS: number, mean, sum of squared deviations from it.
 * FC_GRADIENTS: the moments of x, sum of y, sum of y (x - mean), the mean being the unit's own. */
enum { FC_SUM = 1, FC_PRODUCTS = 2, FC_MOMENTS = 3, FC_GRADIENTS = 5 };

typedef struct {
    ptrdiff_t N, C, inner;
    int by_planes;
    ptrdiff_t samples;       /* of a unit */
    ptrdiff_t piece, pieces; /* inner positions or columns of a unit; units side by side */
    ptrdiff_t units;         /* in all, of one channel (planes) or of all columns */
    ptrdiff_t results;       /* channels or columns */
    ptrdiff_t parts;         /* partial results of each */
} fc_sums;

static inline void fc_sums_cut(fc_sums *s, ptrdiff_t N, ptrdiff_t C, ptrdiff_t inner)
{
    s->N = N; s->C = C; s->inner = inner;
    s->by_planes = inner >= FC_INNER_MIN;
    if (!s->by_planes) {
        s->samples = FC_UNIT_ROWS;
        s->piece = FC_STRIP;
        s->pieces = (C * inner + FC_STRIP - 1) / FC_STRIP;
        s->parts = (N + FC_UNIT_ROWS - 1) / FC_UNIT_ROWS;
        s->results = C * inner;
        s->units = s->pieces * s->parts;
    } else {
        s->samples = inner > FC_BLOCK ? 1 : FC_UNIT / inner;
        s->piece = inner >= FC_UNIT ? FC_UNIT : inner;
        s->pieces = (inner + s->piece - 1) / s->piece;
        s->parts = (N + s->samples - 1) / s->samples * s->pieces;
        s->results = C;
        s->units = s->parts;
    }
}

/* The rows of a unit of channel c by planes, all but the last of the same length: the blocks of one piece of a plane, or planes that are no longer than a block.
 * So many of them as make a block are added before their lanes join a total. */
typedef struct { ptrdiff_t from, step, count, length, last, together; } fc_rows;
static inline fc_rows fc_unit_rows(const fc_sums *s, ptrdiff_t c, ptrdiff_t unit)
{
    const ptrdiff_t sample = unit / s->pieces * s->samples, at = unit % s->pieces * s->piece;
    fc_rows r = {.from = (sample * s->C + c) * s->inner + at};
    if (s->samples == 1) {
        const ptrdiff_t all = FC_MIN(s->piece, s->inner - at);
        r.count = (all + FC_BLOCK - 1) / FC_BLOCK;
        r.step = r.length = FC_BLOCK;
        r.last = all - (r.count - 1) * FC_BLOCK;
        r.together = 1;
    } else {
        r.count = FC_MIN(s->samples, s->N - sample);
        r.step = s->C * s->inner;
        r.length = r.last = s->inner;
        r.together = FC_BLOCK / s->inner;
    }
    return r;
}

/* Local response normalisation; see lrn_strip */
typedef struct { ptrdiff_t C, inner, size; double alpha, beta, k; } fc_lrn;

/* Partial moments: number, mean, sum of squared deviations; joined after Chan, Golub, LeVeque 1979 */
typedef struct { double count, mean, square; } fc_moments;
static inline void fc_moments_add(fc_moments *m, const double *part)
{
    double count = part[0], all = m->count + count, delta = part[1] - m->mean;
    if (m->count == 0) { m->count = count; m->mean = part[1]; m->square = part[2]; return; }
    if (count == 0) return;
    m->square += part[2] + delta * delta * (m->count * count / all);
    m->mean += delta * (count / all);
    m->count = all;
}

/* The `kind` numbers of a channel from those of its units, in order. Parts lie as (channel, part) by planes, as (part, channel, inner) by columns. */
static inline void fc_join_parts(double *out, const double *parts, const fc_sums *s, int kind, ptrdiff_t channel)
{
    const ptrdiff_t runs = s->by_planes ? 1 : s->parts, run = s->by_planes ? s->parts : s->inner;
    const ptrdiff_t apart = s->by_planes ? 0 : s->C * s->inner * kind;
    fc_total first = {0, 0}, second = {0, 0};
    parts += channel * run * kind;
    out += channel * kind;
    if (runs * run == 1) {
        memcpy(out, parts, (size_t)kind * sizeof *out);
        return;
    }
    if (kind <= FC_PRODUCTS) {
        for (ptrdiff_t r = 0; r < runs; r++)
            for (ptrdiff_t i = 0; i < run; i++) {
                const double *p = parts + r * apart + i * kind;
                fc_total_add(&first, p[0]);
                if (kind == FC_PRODUCTS) fc_total_add(&second, p[1]);
            }
        out[0] = fc_total_value(&first);
        if (kind == FC_PRODUCTS) out[1] = fc_total_value(&second);
        return;
    }
    fc_moments moments = {0, 0, 0};
    for (ptrdiff_t r = 0; r < runs; r++)
        for (ptrdiff_t i = 0; i < run; i++) fc_moments_add(&moments, parts + r * apart + i * kind);
    out[0] = moments.count;
    out[1] = moments.mean;
    out[2] = moments.square;
    if (kind != FC_GRADIENTS) return;
    for (ptrdiff_t r = 0; r < runs; r++)
        for (ptrdiff_t i = 0; i < run; i++) { /* products about each unit's mean become products about the mean of all */
            const double *p = parts + r * apart + i * kind;
            fc_total_add(&first, p[3]);
            fc_total_add(&second, p[4] + (p[1] - moments.mean) * p[3]);
        }
    out[3] = fc_total_value(&first);
    out[4] = fc_total_value(&second);
}
#endif

/* Whether an array lies together as a whole */
#undef PLAIN
#define PLAIN(v) ((v)->direct && (v)->ndim == 1)

/* Partial sums by lanes join a total and start again: several each, so that additions need not wait for one another */
INLINE void NAME(join_pair)(fc_total *total, V *lanes)
{
    fc_total_add(total, NAME(add_lanes)(lanes[0] + lanes[1]));
    lanes[0] = lanes[1] = SPLAT(0);
}
INLINE void NAME(join_four)(fc_total *total, V *lanes)
{
    fc_total_add(total, NAME(add_lanes)((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])));
    lanes[0] = lanes[1] = lanes[2] = lanes[3] = SPLAT(0);
}
INLINE void NAME(join_pairs)(const int products, fc_total *totals, V *rest, V *square, V *sum, V *product)
{
    if (!products || VL < 4) {
        NAME(join_pair)(&totals[0], rest);
        NAME(join_pair)(&totals[1], square);
        if (!products) return;
        NAME(join_pair)(&totals[2], sum);
        NAME(join_pair)(&totals[3], product);
        return;
    }
    const V all = NAME(add_lanes_of_4)(rest[0] + rest[1], square[0] + square[1], sum[0] + sum[1], product[0] + product[1]);
    UNROLL for (int i = 0; i < 4; i++) fc_total_add(&totals[i], all[i & (VL - 1)]);
    UNROLL for (int i = 0; i < 2; i++) rest[i] = square[i] = sum[i] = product[i] = SPLAT(0);
}

/* Deviations of one vector, which are 0 past the end, their squares, y and its products */
INLINE void NAME(deviations_add)(const int products, V d, V g, V *rest, V *square, V *sum, V *product)
{
    *rest += d;
    *square = FMA(d, d, *square);
    if (!products) return;
    *sum += g;
    *product = FMA(g, d, *product);
}

#undef FOR_ROWS
#define FOR_ROWS(r, from, n) \
    for (ix row = 0, from = (r).from, n; row < (r).count && ((n = row + 1 < (r).count ? (r).length : (r).last), 1); row++, from += (r).step)

/* One unit of channel c: out gets kind numbers. plain: the arrays lie together as a whole, so that no call takes the accumulators out of their registers. */
#undef ROW_OF
#define ROW_OF(v, buffer) (plain ? (const REAL *)(v)->data + from : NAME(fetch)((v), from, n, (buffer)))
INLINE void NAME(sum_unit)(const int kind, const int plain, const fc_sums *s, const fc_view *xv, const fc_view *yv, REAL shift, ix c, ix unit, double *out)
{
    REAL x_buffer[FC_BLOCK], y_buffer[FC_BLOCK];
    const fc_rows rows = fc_unit_rows(s, c, unit);
    const double count = (double)((rows.count - 1) * rows.length + rows.last);
    fc_total totals[4] = {{0, 0}};
    ix since = 0;
    V first[4] = {{0}}, second[2] = {{0}};
    if (kind == FC_PRODUCTS) {
        const V middle = SPLAT(shift);
        FOR_ROWS(rows, from, n) {
            const REAL *x = ROW_OF(xv, x_buffer), *y = ROW_OF(yv, y_buffer);
            FOR_LANES(i, n)
            {
                V g = TAKE(y + i); /* 0 past the end, as is then the product */
                first[0] += g;
                second[0] = FMA(g, TAKE_OR(x + i, middle) - middle, second[0]);
            }
            if (++since < rows.together) continue;
            since = 0;
            NAME(join_pair)(&totals[0], first);
            NAME(join_pair)(&totals[1], second);
        }
        NAME(join_pair)(&totals[0], first);
        NAME(join_pair)(&totals[1], second);
        out[0] = fc_total_value(&totals[0]);
        out[1] = fc_total_value(&totals[1]);
        return;
    }
    /* The moments are taken about the mean of the first eighth of the unit (of one row, if it has less than 16), so that little is read twice and little is waited
     * for. If that is d standard deviations away from the mean of all, rounding errors of the square grow by 1 + d^2. d^2 < 15 whatever the values, as the square
     * itself contains what so many of them deviate. */
    const ix some = kind == FC_SUM ? rows.count : FC_MAX(rows.count / 8, 1);
    ix taken = 0;
    FOR_ROWS(rows, from, n) {
        const REAL *x = ROW_OF(xv, x_buffer);
        const ix whole = n / VL * VL;
        ix i = 0;
        for (; i + 4 * VL <= whole; i += 4 * VL)
            UNROLL for (int j = 0; j < 4; j++) first[j] += LOAD(x + i + j * VL);
        UNROLL for (int j = 0; j < 3; j++)
            if (i < whole) { first[j] += LOAD(x + i); i += VL; }
        if (whole < n) first[3] += LOADN(x + whole, n - whole);
        taken += n;
        if (row + 1 == some) break;
        if (++since < rows.together) continue;
        since = 0;
        NAME(join_four)(&totals[0], first);
    }
    NAME(join_four)(&totals[0], first);
    out[0] = fc_total_value(&totals[0]);
    if (kind == FC_SUM) return;
    const REAL mean = (REAL)out[0] / (REAL)taken;
    const V middle = SPLAT(mean);
    const int products = kind == FC_GRADIENTS;
    V rest[2] = {{0}}, square[2] = {{0}}, sum[2] = {{0}}, product[2] = {{0}};
    totals[0] = (fc_total){0, 0};
    since = 0;
    FOR_ROWS(rows, from, n) {
        const REAL *x = ROW_OF(xv, x_buffer), *y = products ? ROW_OF(yv, y_buffer) : x;
        const ix whole = n / VL * VL, left = n - whole;
        ix i = 0;
        for (; i + 2 * VL <= whole; i += 2 * VL)
            UNROLL for (int j = 0; j < 2; j++)
                NAME(deviations_add)(products, LOAD(x + i + j * VL) - middle, LOAD(y + i + j * VL), &rest[j], &square[j], &sum[j], &product[j]);
        if (i < whole) NAME(deviations_add)(products, LOAD(x + i) - middle, LOAD(y + i), &rest[0], &square[0], &sum[0], &product[0]);
        if (left)
            NAME(deviations_add)(products, TAKE_OR(x + whole, middle) - middle, LOADN(y + whole, left), &rest[1], &square[1], &sum[1], &product[1]);
        if (++since < rows.together) continue;
        since = 0;
        NAME(join_pairs)(products, totals, rest, square, sum, product);
    }
    NAME(join_pairs)(products, totals, rest, square, sum, product);
    const double off = fc_total_value(&totals[0]);
    out[0] = count;
    out[1] = (double)mean + off / count;
    out[2] = fc_total_value(&totals[1]) - off * off / count;
    if (!products) return;
    out[3] = fc_total_value(&totals[2]);
    out[4] = fc_total_value(&totals[3]) - off / count * out[3];
}

static void NAME(sum_planes)(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, REAL shift, ix c, ix unit, double *out)
{
    const int plain = PLAIN(x) && (!y || PLAIN(y));
    switch (2 * kind + plain) {
    case 2 * FC_SUM: NAME(sum_unit)(FC_SUM, 0, s, x, y, shift, c, unit, out); break;
    case 2 * FC_SUM + 1: NAME(sum_unit)(FC_SUM, 1, s, x, y, shift, c, unit, out); break;
    case 2 * FC_PRODUCTS: NAME(sum_unit)(FC_PRODUCTS, 0, s, x, y, shift, c, unit, out); break;
    case 2 * FC_PRODUCTS + 1: NAME(sum_unit)(FC_PRODUCTS, 1, s, x, y, shift, c, unit, out); break;
    case 2 * FC_MOMENTS: NAME(sum_unit)(FC_MOMENTS, 0, s, x, y, shift, c, unit, out); break;
    case 2 * FC_MOMENTS + 1: NAME(sum_unit)(FC_MOMENTS, 1, s, x, y, shift, c, unit, out); break;
    case 2 * FC_GRADIENTS: NAME(sum_unit)(FC_GRADIENTS, 0, s, x, y, shift, c, unit, out); break;
    default: NAME(sum_unit)(FC_GRADIENTS, 1, s, x, y, shift, c, unit, out);
    }
}

/* The sums of one strip of columns over the rows of a unit: totals are joined every FC_GROUP rows */
typedef struct { REAL total[FC_STRIP], part[FC_STRIP]; } NAME(column_sums);

/* Add four rows (of which FC_GROUP is a multiple), or one: sums are taken up and put back once */
INLINE void NAME(column_add)(const int rows, const REAL *const *x, REAL *part, ix width)
{
    FOR_LANES(i, width)
    {
        V sum = LOAD(part + i);
        UNROLL for (int r = 0; r < rows; r++) sum += TAKE(x[r] + i);
        STORE(part + i, sum);
    }
}

/* One unit by columns: out[(part * columns + column) * kind ...]. shift: of each column. */
INLINE void NAME(sum_columns_of)(const int kind, const fc_sums *s, const fc_view *xv, const fc_view *yv, const REAL *shift, ix unit, double *out)
{
    REAL x_buffer[4][FC_STRIP], y_buffer[FC_STRIP], mean[FC_STRIP];
    NAME(column_sums) first, second, sum, product;
    NAME(column_sums) *const all[] = {&first, &second, &sum, &product};
    const ix columns = s->results, column = unit % s->pieces * s->piece, width = FC_MIN(s->piece, columns - column);
    const ix n0 = unit / s->pieces * s->samples, rows = FC_MIN(s->samples, s->N - n0);
    const size_t used = (size_t)(width + VL - 1) / VL * VL * sizeof(REAL); /* whole vectors of the arrays above */
    UNROLL for (int i = 0; i < (kind == FC_SUM ? 1 : kind == FC_GRADIENTS ? 4 : 2); i++)
    {
        memset(all[i]->total, 0, used);
        memset(all[i]->part, 0, used);
    }
    out += (unit / s->pieces * columns + column) * kind;
    for (ix n = 0, taken; n < rows; n += taken) {
        const REAL *x[4];
        taken = kind != FC_PRODUCTS && rows - n >= 4 ? 4 : 1;
        for (ix r = 0; r < taken; r++) x[r] = NAME(fetch)(xv, (n0 + n + r) * columns + column, width, x_buffer[r]);
        if (taken == 4) {
            NAME(column_add)(4, x, first.part, width);
        } else if (kind != FC_PRODUCTS) {
            NAME(column_add)(1, x, first.part, width);
        } else {
            const REAL *y = NAME(fetch)(yv, (n0 + n) * columns + column, width, y_buffer);
            FOR_LANES(i, width)
            {
                V g = TAKE(y + i);
                STORE(first.part + i, LOAD(first.part + i) + g);
                STORE(second.part + i, FMA(g, TAKE(x[0] + i) - TAKE(shift + column + i), LOAD(second.part + i)));
            }
        }
        if ((n + taken) % FC_GROUP && n + taken < rows) continue;
        NAME(strip_flush)(first.total, first.part, width);
        if (kind == FC_PRODUCTS) NAME(strip_flush)(second.total, second.part, width);
    }
    if (kind <= FC_PRODUCTS) {
        for (ix i = 0; i < width; i++) {
            out[i * kind] = first.total[i];
            if (kind == FC_PRODUCTS) out[i * kind + 1] = second.total[i];
        }
        return;
    }
    FOR_LANES(i, width) { PUT(mean + i, TAKE(first.total + i) / (REAL)rows); PUT(first.total + i, SPLAT(0)); }
    for (ix n = 0; n < rows; n++) {
        const ix from = (n0 + n) * columns + column;
        const REAL *x = NAME(fetch)(xv, from, width, x_buffer[0]);
        const REAL *y = kind == FC_GRADIENTS ? NAME(fetch)(yv, from, width, y_buffer) : x;
        FOR_LANES(i, width)
        {
            V d = TAKE(x + i) - TAKE(mean + i);
            STORE(first.part + i, LOAD(first.part + i) + d);
            STORE(second.part + i, FMA(d, d, LOAD(second.part + i)));
            if (kind != FC_GRADIENTS) continue;
            V g = TAKE(y + i);
            STORE(sum.part + i, LOAD(sum.part + i) + g);
            STORE(product.part + i, FMA(g, d, LOAD(product.part + i)));
        }
        if (n % FC_GROUP == FC_GROUP - 1 || n == rows - 1)
            UNROLL for (int i = 0; i < (kind == FC_GRADIENTS ? 4 : 2); i++) NAME(strip_flush)(all[i]->total, all[i]->part, width);
    }
    for (ix i = 0; i < width; i++, out += kind) {
        const double off = first.total[i];
        out[0] = (double)rows;
        out[1] = (double)mean[i] + off / (double)rows;
        out[2] = (double)second.total[i] - off * off / (double)rows;
        if (kind != FC_GRADIENTS) continue;
        out[3] = sum.total[i];
        out[4] = (double)product.total[i] - off / (double)rows * out[3];
    }
}

static void NAME(sum_columns)(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, const REAL *shift, ix unit, double *out)
{
    switch (kind) {
    case FC_SUM: NAME(sum_columns_of)(FC_SUM, s, x, y, shift, unit, out); break;
    case FC_PRODUCTS: NAME(sum_columns_of)(FC_PRODUCTS, s, x, y, shift, unit, out); break;
    case FC_MOMENTS: NAME(sum_columns_of)(FC_MOMENTS, s, x, y, shift, unit, out); break;
    default: NAME(sum_columns_of)(FC_GRADIENTS, s, x, y, shift, unit, out);
    }
}

/* y = (x - mean) scale + shift, and + factor g, where there is x, or g, for the elements [from, from + n) of a plane (step 0: one constant each) or of
 * consecutive columns (step 1). */
typedef struct { const REAL *mean, *scale, *shift, *factor; } NAME(affine);
INLINE V NAME(affine_lanes)(const int has_x, const int has_g, V x, V g, V mean, V scale, V shift, V factor)
{
    if (has_x) shift = FMA(x - mean, scale, shift);
    return has_g ? FMA(g, factor, shift) : shift;
}

INLINE void NAME(affine_run)(const int step, const int has_x, const int has_g, const fc_view *xv, const fc_view *gv, const NAME(affine) *a, ix channel,
                             ix from, ix count, REAL *y, int stream)
{
    REAL x_buffer[FC_BLOCK], g_buffer[FC_BLOCK];
    const V mean = SPLAT(a->mean[channel]), scale = SPLAT(a->scale[channel]), shift = SPLAT(a->shift[channel]), factor = SPLAT(a->factor[channel]);
    FOR_BLOCKS(at, n, count) {
        const REAL *x = has_x ? NAME(fetch)(xv, from + at, n, x_buffer) : NULL;
        const REAL *g = has_g ? NAME(fetch)(gv, from + at, n, g_buffer) : NULL;
        REAL *out = y + from + at;
        const ix c = channel + at;
        if (step)
            EACH_LANES_OUT(i, n, out, stream, PUT_OUT(out + i, NAME(affine_lanes)(has_x, has_g, has_x ? TAKE(x + i) : mean, has_g ? TAKE(g + i) : mean,
                                                                                 TAKE(a->mean + c + i), TAKE(a->scale + c + i), TAKE(a->shift + c + i),
                                                                                 TAKE(a->factor + c + i))););
        else
            EACH_LANES_OUT(i, n, out, stream, PUT_OUT(out + i, NAME(affine_lanes)(has_x, has_g, has_x ? TAKE(x + i) : mean, has_g ? TAKE(g + i) : mean,
                                                                                 mean, scale, shift, factor)););
    }
}

/* Rows of `length` >= FC_INNER_MIN elements, the first at element `from` and of `channel`: planes of one channel after the other, or a piece of one plane */
INLINE void NAME(affine_rows)(const int has_x, const int has_g, const fc_view *x, const fc_view *g, const NAME(affine) *a, ix C, ix channel, ix from, ix length,
                              ix rows, REAL *y, int stream)
{
    if (!stream && (!has_x || PLAIN(x)) && (!has_g || PLAIN(g))) { /* whole vectors: what is written beyond a row is written again with the next one */
        for (; rows > 1; rows--, from += length) {
            const REAL *xs = has_x ? (const REAL *)x->data + from : NULL, *gs = has_g ? (const REAL *)g->data + from : NULL;
            const V mean = SPLAT(a->mean[channel]), scale = SPLAT(a->scale[channel]), shift = SPLAT(a->shift[channel]), factor = SPLAT(a->factor[channel]);
            for (ix i = 0; i < length; i += VL)
                STORE(y + from + i, NAME(affine_lanes)(has_x, has_g, has_x ? READ(xs + i) : mean, has_g ? READ(gs + i) : mean, mean, scale, shift, factor));
            if (++channel == C) channel = 0;
        }
    }
    for (; rows; rows--, from += length) {
        NAME(affine_run)(0, has_x, has_g, x, g, a, channel, from, length, y, stream);
        if (++channel == C) channel = 0;
    }
    if (stream) fc_stream_end();
}

static void NAME(affine_planes)(const fc_view *x, const fc_view *g, const NAME(affine) *a, ix C, ix channel, ix from, ix length, ix rows, REAL *y, int stream)
{
    if (x && g) NAME(affine_rows)(1, 1, x, g, a, C, channel, from, length, rows, y, stream);
    else if (x) NAME(affine_rows)(1, 0, x, g, a, C, channel, from, length, rows, y, stream);
    else NAME(affine_rows)(0, 1, x, g, a, C, channel, from, length, rows, y, stream);
}

static void NAME(affine_columns)(const fc_view *x, const fc_view *g, const NAME(affine) *a, ix column, ix from, ix count, REAL *y, int stream)
{
    if (x && g) NAME(affine_run)(1, 1, 1, x, g, a, column, from, count, y, stream);
    else if (x) NAME(affine_run)(1, 1, 0, x, g, a, column, from, count, y, stream);
    else NAME(affine_run)(1, 0, 1, x, g, a, column, from, count, y, stream);
    if (stream) fc_stream_end();
}

#if REAL_BYTES == 8
/* out = weight / sqrt(variance + eps), for every channel */
static void NAME(channel_scales)(double *out, const double *weight, const double *variance, double eps, ix C)
{
    EACH_LANES(c, C, PUT(out + c, TAKE(weight + c) / NAME(vsqrt)(TAKE_OR(variance + c, SPLAT(1)) + eps)););
}
#endif

/* s^-beta for s > 0. 3/4 (the usual one), 1/2 and 1 by roots and a division, others by the system's pow in double. */
INLINE V NAME(inverse_power)(V s, double beta)
{
    const V one = SPLAT(1);
    if (beta == 0.75) { V r = NAME(vsqrt)(s); return one / (r * NAME(vsqrt)(r)); }
    if (beta == 0.5) return one / NAME(vsqrt)(s);
    if (beta == 1) return one / s;
    for (int i = 0; i < VL; i++) s[i] = (REAL)pow((double)s[i], -beta);
    return s;
}

/* Local response normalisation of one strip: all C channels of `width` positions, the first at `start`.
 * s[c] = k + alpha / size * sum of x^2 over the channels [c - size / 2, c - size / 2 + size); y = x s^-beta. */

/* squares: C * width, filled with x^2 */
INLINE void NAME(lrn_squares)(const fc_view *x, const fc_lrn *o, ix start, ix width, REAL *squares)
{
    REAL buffer[FC_STRIP];
    for (ix c = 0; c < o->C; c++) {
        const REAL *p = NAME(fetch)(x, start + c * o->inner, width, buffer);
        FOR_LANES(i, width) { V v = TAKE(p + i); PUT(squares + c * width + i, v * v); }
    }
}

/* The sum of rows [first, last) of a strip's array, cut at its ends, at lane i */
INLINE V NAME(sum_rows)(const REAL *rows, ix C, ix width, ix first, ix last, ix i, ix left)
{
    V sum = SPLAT(0);
    for (ix c = FC_MAX(first, 0); c < FC_MIN(last, C); c++) sum += TAKE(rows + c * width + i);
    return sum;
}

static void NAME(lrn_strip)(const fc_view *x, const fc_lrn *o, ix start, ix width, REAL *y, REAL *scratch)
{
    REAL buffer[FC_STRIP];
    const REAL alpha = (REAL)(o->alpha / o->size), k = (REAL)o->k;
    NAME(lrn_squares)(x, o, start, width, scratch);
    for (ix c = 0; c < o->C; c++) {
        const ix first = c - o->size / 2;
        const REAL *p = NAME(fetch)(x, start + c * o->inner, width, buffer);
        REAL *out = y + start + c * o->inner;
        FOR_LANES(i, width)
        {
            V s = NAME(sum_rows)(scratch, o->C, width, first, first + o->size, i, left) * alpha + k;
            PUT(out + i, TAKE(p + i) * NAME(inverse_power)(s, o->beta));
        }
    }
}

/* dx[c] = dy[c] s[c]^-beta - 2 alpha beta / size x[c] (sum over the c' that have c in their window of dy x s^(-beta - 1)) */
static void NAME(lrn_strip_backward)(const fc_view *dyv, const fc_view *x, const fc_lrn *o, ix start, ix width, REAL *dx,
                                     REAL *scratch)
{
    REAL buffer[FC_STRIP], dy_buffer[FC_STRIP];
    const REAL alpha = (REAL)(o->alpha / o->size), k = (REAL)o->k, factor = (REAL)(2 * o->alpha * o->beta / o->size);
    REAL *squares = scratch, *terms = scratch + o->C * width;
    NAME(lrn_squares)(x, o, start, width, squares);
    for (ix c = 0; c < o->C; c++) {
        const ix first = c - o->size / 2;
        const REAL *p = NAME(fetch)(x, start + c * o->inner, width, buffer);
        const REAL *dy = NAME(fetch)(dyv, start + c * o->inner, width, dy_buffer);
        REAL *out = dx + start + c * o->inner;
        FOR_LANES(i, width)
        {
            V s = NAME(sum_rows)(squares, o->C, width, first, first + o->size, i, left) * alpha + k;
            V g = TAKE(dy + i) * NAME(inverse_power)(s, o->beta);
            PUT(out + i, g);
            PUT(terms + c * width + i, g * TAKE(p + i) / s);
        }
    }
    for (ix c = 0; c < o->C; c++) {
        const ix last = c + o->size / 2 + 1;
        const REAL *p = NAME(fetch)(x, start + c * o->inner, width, buffer);
        REAL *out = dx + start + c * o->inner;
        FOR_LANES(i, width)
        {
            V sum = NAME(sum_rows)(terms, o->C, width, last - o->size, last, i, left);
            PUT(out + i, TAKE(out + i) - TAKE(p + i) * factor * sum);
        }
    }
}
