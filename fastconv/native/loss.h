/* Fused losses: the loss of every sample and the gradient of the (scaled) sum, in one pass over the scores.
 *
 * Labels arrive as a private int64 copy whose range has been checked (fc_label_total); ignored ones are -1. `scale` is what
 * the reduction multiplies gradients by. Losses are left unscaled, one for each sample or element.
 */
#ifndef FC_LOSS_COMMON
#define FC_LOSS_COMMON
/* Replaces ignored labels by -1 and returns the sum of weight[label] (or the count) over the others; *wrong is set to the
 * position of the first label that is no class, or left alone. */
static double fc_label_total(int64_t *labels, ptrdiff_t count, ptrdiff_t classes, int has_ignore, int64_t ignore,
                             const double *weight, ptrdiff_t *wrong)
{
    fc_total total = {0, 0};
    for (ptrdiff_t i = 0; i < count; i++) {
        int64_t k = labels[i];
        if (has_ignore && k == ignore) {
            labels[i] = -1;
        } else if (k < 0 || k >= classes) {
            *wrong = i;
            return 0;
        } else {
            fc_total_add(&total, weight ? weight[k] : 1.0);
        }
    }
    return fc_total_value(&total);
}

/* What the cross-entropy functions need. q, the wanted distribution, is (1 - smoothing) * (one at the label, or target's
 * probabilities) + smoothing / classes. */
typedef struct {
    ptrdiff_t classes, inner;
    const int64_t *label;   /* NULL where target holds probabilities */
    const fc_view *target;
    const void *weight;     /* REAL, of each class, or NULL */
    double weight_sum;      /* over the classes */
    double smoothing, scale;
} fc_entropy;
#endif

/* One element of a view */
INLINE REAL NAME(element)(const fc_view *v, ix at)
{
    REAL buffer[1];
    return *NAME(fetch)(v, at, 1, buffer);
}

/* The sum of contiguous values */
static double NAME(sum_values)(const REAL *x, ix count)
{
    fc_total total = {0, 0};
    FOR_BLOCKS(at, n, count) fc_total_add(&total, NAME(block_sum)(x + at, n));
    return fc_total_value(&total);
}

/* weight * q for the lanes from class c on. Constants of the label itself are added by the caller. */
INLINE V NAME(wanted)(const fc_entropy *o, V target, V weight)
{
    REAL keep = o->label ? 0 : (REAL)(1.0 - o->smoothing), even = (REAL)(o->smoothing / o->classes);
    return weight * (target * keep + even);
}

INLINE REAL NAME(label_weight)(const fc_entropy *o, int64_t label)
{
    return (REAL)((o->weight ? (double)((const REAL *)o->weight)[label] : 1.0) * (1.0 - o->smoothing));
}

/* Classes lie together: one sample a call. */
static void NAME(entropy_row)(const fc_view *x, const fc_entropy *o, ix sample, REAL *loss, REAL *d)
{
    REAL buffer[FC_BLOCK], target_buffer[FC_BLOCK];
    const REAL *weight = o->weight;
    const ix C = o->classes, start = sample * C;
    const int64_t label = o->label ? o->label[sample] : 0;
    const V one = SPLAT(1);
    d += start;
    if (label < 0) {
        memset(d, 0, (size_t)C * sizeof *d);
        loss[sample] = 0;
        return;
    }
    const int dense = !o->label || o->smoothing != 0;
    REAL shift = NAME(row_max)(x, start, C);
    REAL sum = NAME(row_exp)(x, start, C, shift, d);
    REAL log_sum = NAME(row_log)(sum);
    double total = o->weight_sum * o->smoothing / C, lost = 0; /* total: of weight * q */
    REAL own = o->label ? NAME(label_weight)(o, label) : 0;
    if (o->label) {
        total += own;
        if (own != 0) lost = (double)own * ((double)log_sum - ((double)NAME(element)(x, start + label) - (double)shift));
    } else {
        fc_total t = {0, 0};
        FOR_BLOCKS(at, n, C) {
            const REAL *q = NAME(fetch)(o->target, start + at, n, target_buffer);
            V part = SPLAT(0);
            FOR_LANES(i, n)
            {
                V v = NAME(wanted)(o, TAKE(q + i), weight ? TAKE(weight + at + i) : one);
                part += SELECT(NAME(lane_numbers)() < (INT)FC_MIN(left, VL), v, SPLAT(0));
            }
            fc_total_add(&t, NAME(add_lanes)(part));
        }
        total = fc_total_value(&t);
    }
    const REAL coefficient = (REAL)(total * o->scale / (double)sum), scale = (REAL)o->scale;
    if (!dense) {
        FOR_LANES(i, C) PUT(d + i, TAKE(d + i) * coefficient);
    } else {
        fc_total t = {0, 0};
        FOR_BLOCKS(at, n, C) {
            const REAL *p = NAME(fetch)(x, start + at, n, buffer);
            const REAL *q = o->label ? NULL : NAME(fetch)(o->target, start + at, n, target_buffer);
            REAL *out = d + at;
            V part = SPLAT(0);
            FOR_LANES(i, n)
            {
                V wq = NAME(wanted)(o, q ? TAKE(q + i) : one, weight ? TAKE(weight + at + i) : one);
                V lost_here = wq * (log_sum - (TAKE(p + i) - shift));
                M counts = (NAME(lane_numbers)() < (INT)FC_MIN(left, VL)) & (wq != 0);
                part += SELECT(counts, lost_here, SPLAT(0)); /* a class that is not wanted costs nothing, even inf */
                PUT(out + i, TAKE(out + i) * coefficient - wq * scale);
            }
            fc_total_add(&t, NAME(add_lanes)(part));
        }
        lost += fc_total_value(&t);
    }
    if (o->label) d[label] -= own * scale;
    loss[sample] = (REAL)lost;
}

/* Lanes run along `width` inner positions from `column` on, of one sample of the batch. */
static void NAME(entropy_strip)(const fc_view *x, const fc_entropy *o, ix sample, ix column, ix width, REAL *loss,
                                REAL *d)
{
    REAL buffer[FC_STRIP], target_buffer[FC_STRIP], shift[FC_STRIP], sum[FC_STRIP], log_sum[FC_STRIP];
    REAL total[FC_STRIP], part[FC_STRIP], lost[FC_STRIP], own[FC_STRIP], kept[FC_STRIP];
    const REAL *weights = o->weight;
    const ix C = o->classes, inner = o->inner, start = sample * C * inner + column;
    const int64_t *label = o->label ? o->label + sample * inner + column : NULL;
    const int dense = !o->label || o->smoothing != 0;
    const V zero = SPLAT(0);
    d += start;
    loss += sample * inner + column;
    NAME(strip_max)(x, start, C, inner, width, shift);
    NAME(strip_exp)(x, start, C, inner, width, shift, sum, d);
    FOR_LANES(i, width) PUT(log_sum + i, NAME(vlog)(TAKE(sum + i)));
    memset(lost, 0, sizeof lost);
    memset(part, 0, sizeof part);
    memset(total, 0, sizeof total);
    for (ix i = 0; i < width; i++) {
        kept[i] = !label || label[i] >= 0;
        own[i] = label && label[i] >= 0 ? NAME(label_weight)(o, label[i]) : 0;
        if (!label) continue;
        total[i] = (REAL)(o->weight_sum * o->smoothing / C + own[i]);
        if (own[i] != 0)
            lost[i] = own[i] * (log_sum[i] - (NAME(element)(x, start + label[i] * inner + i) - shift[i]));
    }
    if (!label) {
        for (ix c = 0; c < C; c++) {
            const REAL *q = NAME(fetch)(o->target, start + c * inner, width, target_buffer);
            V weight = SPLAT(weights ? weights[c] : 1);
            FOR_LANES(i, width) PUT(part + i, TAKE(part + i) + NAME(wanted)(o, TAKE(q + i), weight));
            if (c % FC_GROUP == FC_GROUP - 1) NAME(strip_flush)(total, part, width);
        }
        NAME(strip_flush)(total, part, width);
    }
    const REAL scale = (REAL)o->scale;
    FOR_LANES(i, width) PUT(total + i, TAKE(total + i) * scale / TAKE(sum + i)); /* from here on: of the exponentials */
    for (ix c = 0; c < C; c++) {
        REAL *out = d + c * inner;
        if (!dense) {
            FOR_LANES(i, width) PUT(out + i, SELECT(TAKE(kept + i) != 0, TAKE(out + i) * TAKE(total + i), zero));
            continue;
        }
        const REAL *p = NAME(fetch)(x, start + c * inner, width, buffer);
        const REAL *q = label ? NULL : NAME(fetch)(o->target, start + c * inner, width, target_buffer);
        V weight = SPLAT(weights ? weights[c] : 1);
        FOR_LANES(i, width)
        {
            M take = TAKE(kept + i) != 0;
            V wq = NAME(wanted)(o, q ? TAKE(q + i) : zero, weight);
            V here = wq * (TAKE(log_sum + i) - (TAKE(p + i) - TAKE(shift + i)));
            PUT(part + i, TAKE(part + i) + SELECT(take & (wq != 0), here, zero));
            PUT(out + i, SELECT(take, TAKE(out + i) * TAKE(total + i) - wq * scale, zero));
        }
        if (c % FC_GROUP == FC_GROUP - 1) NAME(strip_flush)(lost, part, width);
    }
    if (dense) NAME(strip_flush)(lost, part, width);
    for (ix i = 0; i < width; i++) {
        if (label && label[i] >= 0) d[label[i] * inner + i] -= own[i] * scale;
        loss[i] = lost[i];
    }
}

/* loss = -weight[label] * log_prob[label]; d arrives zeroed. Samples [first, first + count) of (N, inner). */
static void NAME(nll)(const fc_view *x, const fc_entropy *o, ix first, ix count, REAL *loss, REAL *d)
{
    for (ix i = first; i < first + count; i++) {
        int64_t label = o->label[i];
        loss[i] = 0;
        if (label < 0) continue;
        REAL own = NAME(label_weight)(o, label);
        ix at = (i / o->inner * o->classes + label) * o->inner + i % o->inner;
        if (own == 0) continue;
        loss[i] = -own * NAME(element)(x, at);
        d[at] = (REAL)(-own * o->scale);
    }
}

/* Elementwise losses: elements [start, start + count), at most FC_BLOCK of them. Returns their sum; stores them too where losses is not NULL. */

/* w ((1 - t) softplus(x) + p t softplus(-x)), no term of which can cancel another; d = w ((1 - t) s(x) - p t s(-x)) */
static double NAME(sigmoid_entropy)(const fc_view *xv, const fc_view *tv, const fc_view *wv, const fc_view *pv, ix start,
                                    ix count, REAL scale, REAL *losses, REAL *d)
{
    REAL x_buffer[FC_BLOCK], t_buffer[FC_BLOCK], w_buffer[FC_BLOCK], p_buffer[FC_BLOCK], loss_buffer[FC_BLOCK];
    REAL *loss = losses ? losses + start : loss_buffer;
    const REAL *x = NAME(fetch)(xv, start, count, x_buffer);
    const REAL *t = NAME(fetch)(tv, start, count, t_buffer);
    const REAL *w = wv ? NAME(fetch)(wv, start, count, w_buffer) : NULL;
    const REAL *p = pv ? NAME(fetch)(pv, start, count, p_buffer) : NULL;
    const V one = SPLAT(1), zero = SPLAT(0);
    d += start;
    FOR_LANES(i, count)
    {
        V v = TAKE(x + i), target = TAKE(t + i);
        V weight = w ? TAKE(w + i) : one, positive = p ? target * TAKE(p + i) : target;
        V e = NAME(vexp)((V)((M)v | VM_SIGN)), rest = NAME(vlog1p_unit)(e);
        M below = v < 0;
        V below_value = SELECT(below, -v, zero), above_value = SELECT(below, zero, v);
        V s = SELECT(below, e, one) / (e + (REAL)1), s_minus = SELECT(below, one, e) / (e + (REAL)1);
        V other = one - target;
        PUT(loss + i, weight * (other * (rest + above_value) + positive * (rest + below_value)));
        PUT(d + i, weight * scale * (other * s - positive * s_minus));
    }
    return NAME(sum_values)(loss, count);
}

static double NAME(squared_error)(const fc_view *xv, const fc_view *tv, ix start, ix count, REAL scale, REAL *losses, REAL *d)
{
    REAL x_buffer[FC_BLOCK], t_buffer[FC_BLOCK], loss_buffer[FC_BLOCK];
    REAL *loss = losses ? losses + start : loss_buffer;
    const REAL *x = NAME(fetch)(xv, start, count, x_buffer);
    const REAL *t = NAME(fetch)(tv, start, count, t_buffer);
    d += start;
    FOR_LANES(i, count)
    {
        V difference = TAKE(x + i) - TAKE(t + i);
        PUT(loss + i, difference * difference);
        PUT(d + i, (difference + difference) * scale);
    }
    return NAME(sum_values)(loss, count);
}

/* Hinge: the sum over the other classes of max(0, s - own + margin); d is 1 for each that is over, minus their number for the
 * label. Classes lie together: one sample a call. */
static void NAME(hinge_row)(const fc_view *x, const int64_t *labels, ix classes, ix sample, REAL margin, REAL scale,
                            REAL *loss, REAL *d)
{
    REAL buffer[FC_BLOCK];
    const ix start = sample * classes;
    const int64_t label = labels[sample];
    const REAL own = NAME(element)(x, start + label);
    const V zero = SPLAT(0), step = SPLAT(scale);
    fc_total lost = {0, 0};
    ix over = 0;
    d += start;
    FOR_BLOCKS(at, n, classes) {
        const REAL *p = NAME(fetch)(x, start + at, n, buffer);
        V sum = zero;
        FOR_LANES(i, n)
        {
            V excess = TAKE(p + i) - own + margin;
            M lane = NAME(lane_numbers)();
            M apart = (lane < (INT)FC_MIN(left, VL)) & (lane != (INT)(label - at - i));
            excess = SELECT(apart, excess, zero);
            sum += SELECT(excess <= 0, zero, excess); /* lets NaN through */
            M positive = excess > 0;
            PUT(d + at + i, SELECT(positive, step, zero));
            UNROLL for (int l = 0; l < VL; l++) over -= positive[l];
        }
        fc_total_add(&lost, NAME(add_lanes)(sum));
    }
    d[label] = -(REAL)over * scale;
    loss[sample] = (REAL)fc_total_value(&lost);
}

/* The same with lanes along `width` inner positions from `column` on, of one sample of the batch. */
static void NAME(hinge_strip)(const fc_view *x, const int64_t *labels, ix classes, ix inner, ix sample, ix column, ix width,
                              REAL margin, REAL scale, REAL *loss, REAL *d)
{
    REAL buffer[FC_STRIP], own[FC_STRIP], lost[FC_STRIP], part[FC_STRIP], over[FC_STRIP];
    const ix start = sample * classes * inner + column;
    const V zero = SPLAT(0), one = SPLAT(1);
    labels += sample * inner + column;
    d += start;
    for (ix i = 0; i < width; i++) {
        own[i] = NAME(element)(x, start + labels[i] * inner + i);
        lost[i] = part[i] = over[i] = 0;
    }
    for (ix c = 0; c < classes; c++) {
        const REAL *p = NAME(fetch)(x, start + c * inner, width, buffer);
        REAL *out = d + c * inner, mine[FC_STRIP];
        for (ix i = 0; i < width; i++) mine[i] = labels[i] == c;
        FOR_LANES(i, width)
        {
            V excess = SELECT(TAKE(mine + i) != 0, zero, TAKE(p + i) - TAKE(own + i) + margin);
            V counted = SELECT(excess > 0, one, zero);
            PUT(part + i, TAKE(part + i) + SELECT(excess <= 0, zero, excess));
            PUT(over + i, TAKE(over + i) + counted);
            PUT(out + i, counted * scale);
        }
        if (c % FC_GROUP == FC_GROUP - 1) NAME(strip_flush)(lost, part, width);
    }
    NAME(strip_flush)(lost, part, width);
    for (ix i = 0; i < width; i++) {
        d[labels[i] * inner + i] = -over[i] * scale;
        loss[sample * inner + column + i] = lost[i];
    }
}
