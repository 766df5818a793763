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
#define FC_UNIT 8192      /* 32 or 64 KB: read twice by the moments, the second time from the cache */
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
        s->samples = inner >= FC_UNIT ? 1 : FC_UNIT / inner;
        s->piece = inner >= FC_UNIT ? FC_UNIT : inner;
        s->pieces = (inner + s->piece - 1) / s->piece;
        s->parts = (N + s->samples - 1) / s->samples * s->pieces;
        s->results = C;
        s->units = s->parts;
    }
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

/* Sums by lanes over many short runs: they join their totals every FC_BLOCK elements. */
typedef struct { fc_total total; NAME(quad) lanes; } NAME(running);
INLINE void NAME(running_end)(NAME(running) *r)
{
    const NAME(quad) none = {{0}, {0}, {0}, {0}};
    fc_total_add(&r->total, NAME(add_lanes)(NAME(quad_lanes)(&r->lanes)));
    r->lanes = none;
}
INLINE double NAME(running_value)(NAME(running) *r)
{
    NAME(running_end)(r);
    return fc_total_value(&r->total);
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

/* for every block of the runs of a unit: `from` is its first element, n its length */
#undef FOR_UNIT
#define FOR_UNIT(s, c, unit, from, n) \
    for (ix sample = (unit) / (s)->pieces * (s)->samples, last = FC_MIN(sample + (s)->samples, (s)->N); sample < last; sample++) \
        for (ix at = (unit) % (s)->pieces * (s)->piece, end = FC_MIN(at + (s)->piece, (s)->inner), n, from; \
             (n = FC_MIN((ix)FC_BLOCK, end - at)) > 0 && ((from = (sample * (s)->C + (c)) * (s)->inner + at), 1); at += n)

/* One unit of channel c: out gets kind numbers. */
INLINE void NAME(sum_unit)(const int kind, const fc_sums *s, const fc_view *xv, const fc_view *yv, REAL shift, ix c, ix unit, double *out)
{
    REAL x_buffer[FC_BLOCK], y_buffer[FC_BLOCK];
    NAME(running) first = {{0, 0}, {{0}, {0}, {0}, {0}}}, second = first;
    ix count = 0, since = 0;
    if (kind == FC_PRODUCTS) {
        FOR_UNIT(s, c, unit, from, n) {
            const REAL *x = NAME(fetch)(xv, from, n, x_buffer), *y = NAME(fetch)(yv, from, n, y_buffer);
            FOR_LANES(i, n)
            {
                V g = TAKE(y + i); /* 0 past the end, as is then the product */
                V d = TAKE_OR(x + i, SPLAT(shift)) - shift;
                first.lanes.a += g;
                second.lanes.a = FMA(g, d, second.lanes.a);
            }
            if ((since += n) < FC_BLOCK) continue;
            since = 0;
            NAME(running_end)(&first);
            NAME(running_end)(&second);
        }
        out[0] = NAME(running_value)(&first);
        out[1] = NAME(running_value)(&second);
        return;
    }
    FOR_UNIT(s, c, unit, from, n) {
        NAME(quad_add)(&first.lanes, NAME(fetch)(xv, from, n, x_buffer), n);
        count += n;
        if ((since += n) < FC_BLOCK) continue;
        since = 0;
        NAME(running_end)(&first);
    }
    out[0] = NAME(running_value)(&first);
    if (kind == FC_SUM) return;
    /* deviations from the rounded mean; their own sum corrects for its rounding */
    const REAL mean = (REAL)(out[0] / (double)count);
    const V middle = SPLAT(mean);
    NAME(running) rest = {{0, 0}, {{0}, {0}, {0}, {0}}}, sum = rest, product = rest;
    since = 0;
    FOR_UNIT(s, c, unit, from, n) {
        const REAL *x = NAME(fetch)(xv, from, n, x_buffer), *y = kind == FC_GRADIENTS ? NAME(fetch)(yv, from, n, y_buffer) : x;
        const ix whole = n / (2 * VL) * (2 * VL);
        for (ix i = 0; i < whole; i += 2 * VL) { /* two partial sums of each, so that additions need not wait for one another */
            NAME(deviations_add)(kind == FC_GRADIENTS, LOAD(x + i) - middle, LOAD(y + i), &rest.lanes.a, &second.lanes.a, &sum.lanes.a, &product.lanes.a);
            NAME(deviations_add)(kind == FC_GRADIENTS, LOAD(x + i + VL) - middle, LOAD(y + i + VL), &rest.lanes.b, &second.lanes.b, &sum.lanes.b,
                                 &product.lanes.b);
        }
        FOR_LANES(i, n - whole)
            NAME(deviations_add)(kind == FC_GRADIENTS, TAKE_OR(x + whole + i, middle) - middle, TAKE(y + whole + i), &rest.lanes.a, &second.lanes.a,
                                 &sum.lanes.a, &product.lanes.a);
        if ((since += n) < FC_BLOCK) continue;
        since = 0;
        NAME(running_end)(&rest);
        NAME(running_end)(&second);
        if (kind != FC_GRADIENTS) continue;
        NAME(running_end)(&sum);
        NAME(running_end)(&product);
    }
    const double off = NAME(running_value)(&rest);
    out[0] = (double)count;
    out[1] = (double)mean + off / (double)count;
    out[2] = NAME(running_value)(&second) - off * off / (double)count;
    if (kind != FC_GRADIENTS) return;
    out[3] = NAME(running_value)(&sum);
    out[4] = NAME(running_value)(&product) - off / (double)count * out[3];
}

static void NAME(sum_planes)(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, REAL shift, ix c, ix unit, double *out)
{
    switch (kind) {
    case FC_SUM: NAME(sum_unit)(FC_SUM, s, x, y, shift, c, unit, out); break;
    case FC_PRODUCTS: NAME(sum_unit)(FC_PRODUCTS, s, x, y, shift, c, unit, out); break;
    case FC_MOMENTS: NAME(sum_unit)(FC_MOMENTS, s, x, y, shift, c, unit, out); break;
    default: NAME(sum_unit)(FC_GRADIENTS, s, x, y, shift, c, unit, out);
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
    REAL x_buffer[FC_BLOCK], g_buffer[FC_BLOCK], made[FC_BLOCK];
    FOR_BLOCKS(at, n, count) {
        const REAL *x = has_x ? NAME(fetch)(xv, from + at, n, x_buffer) : NULL;
        const REAL *g = has_g ? NAME(fetch)(gv, from + at, n, g_buffer) : NULL;
        REAL *out = stream ? made : y + from + at;
        const ix c = channel + at;
        if (step) {
            FOR_LANES(i, n)
                PUT(out + i, NAME(affine_lanes)(has_x, has_g, has_x ? TAKE(x + i) : SPLAT(0), has_g ? TAKE(g + i) : SPLAT(0), TAKE(a->mean + c + i),
                                                TAKE(a->scale + c + i), TAKE(a->shift + c + i), TAKE(a->factor + c + i)));
        } else {
            const V mean = SPLAT(a->mean[channel]), scale = SPLAT(a->scale[channel]), shift = SPLAT(a->shift[channel]), factor = SPLAT(a->factor[channel]);
            EACH_LANES(i, n, PUT(out + i, NAME(affine_lanes)(has_x, has_g, has_x ? TAKE(x + i) : SPLAT(0), has_g ? TAKE(g + i) : SPLAT(0), mean, scale,
                                                             shift, factor)););
        }
        if (stream) NAME(stream_out)(y + from + at, made, n);
    }
    if (stream) fc_stream_end();
}

static void NAME(affine_plane)(const fc_view *x, const fc_view *g, const NAME(affine) *a, ix channel, ix from, ix count, REAL *y, int stream)
{
    if (x && g) NAME(affine_run)(0, 1, 1, x, g, a, channel, from, count, y, stream);
    else if (x) NAME(affine_run)(0, 1, 0, x, g, a, channel, from, count, y, stream);
    else NAME(affine_run)(0, 0, 1, x, g, a, channel, from, count, y, stream);
}

static void NAME(affine_columns)(const fc_view *x, const fc_view *g, const NAME(affine) *a, ix column, ix from, ix count, REAL *y, int stream)
{
    if (x && g) NAME(affine_run)(1, 1, 1, x, g, a, column, from, count, y, stream);
    else if (x) NAME(affine_run)(1, 1, 0, x, g, a, column, from, count, y, stream);
    else NAME(affine_run)(1, 0, 1, x, g, a, column, from, count, y, stream);
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
