/* One filter on one plane: depthwise convolutions and their gradients, from the source where it lies.
 *
 * Lanes are neighbouring outputs of a row. What a tap reads outside the source is masked off where the processor can (AVX-512); elsewhere planes are staged
 * with zeros around them (kernels/depthwise.pxi), and loads are whole. The order of every sum is that of the taps, whatever lane an element falls into.
 *
 *   roll     dense rows of taps, outputs one step apart: a row of the source is loaded once and added to the `taps` rows of outputs that see it
 *   skip     the same for outputs two steps apart along both axes (a stride): every second row of the source goes to every second row of taps
 *   comb     any other: outputs two steps apart, taps two outputs apart (the adjoint of a stride), dilation, tall filters
 *   slopes   gradient of the weights: a vector of partial sums for each tap
 *
 * Planes too small to fill vectors with rows are turned round, VL at once, so that lanes are planes (a sheaf): each pixel is a whole vector, in a grid with
 * zeros around it, and neither strides nor ends of rows cost anything.
 */
#ifndef FC_DEPTHWISE_COMMON
#define FC_DEPTHWISE_COMMON
/* Output u*phases + phase[t] reads source u*step + offset[t] through tap t, where low <= source < high. */
typedef struct {
    ix taps, step, phases, out, low, high;
    ix *offset, *phase;
} fc_comb;

#define SPAN_NV 4
/* Vectors of outputs that are computed together. */
typedef struct {
    ix nv;
    ix start[SPAN_NV]; /* first output (of phase 0) */
    ix count[SPAN_NV]; /* outputs that are stored, of all phases */
    uint16_t *mask;    /* [tap][nv][step]: lanes that exist */
} fc_span;

typedef struct {
    fc_comb h, w;      /* taps of w are sorted by phase */
    ix second;         /* the first tap of w of phase 1 */
    ix pitch, y_pitch; /* from row to row */
    ix from, to;       /* rows of outputs */
    fc_span *spans;
    ix span_count;
    int rolls;
} fc_planes;

#define ROLL_TAPS 7
#define SLOPES_TAPS 7

static inline int fc_planes_steps(const fc_planes *p, ix step)
{
    if (p->h.step != step || p->h.phases > 1 || p->w.step != step || p->w.phases > 1 || p->h.taps > ROLL_TAPS) return 0;
    for (ix t = 1; t < p->h.taps; t++)
        if (p->h.offset[t] != p->h.offset[0] + t) return 0;
    return 1;
}
static inline int fc_planes_roll(const fc_planes *p) { return fc_planes_steps(p, 1); }
static inline int fc_planes_skip(const fc_planes *p) { return fc_planes_steps(p, 2); }
#endif

/* taps * nv accumulators + nv loads + 1 broadcast; taps * columns partial sums + columns loads + 1 */
#undef ROLL_NV
#undef SLOPES_ROWS
#undef LOADM
#if VBYTES == 64 || defined(__aarch64__)
#define ROLL_NV(taps) ((taps) > 5 ? 3 : 4)
#define SLOPES_ROWS(columns) ((columns) > 6 ? 3 : (columns) > 5 ? 4 : (columns) > 4 ? 5 : ROLL_TAPS)
#else
#define ROLL_NV(taps) ((taps) > 6 ? 1 : (taps) > 3 ? 2 : (taps) > 2 ? 3 : 4)
#define SLOPES_ROWS(columns) ((columns) > 6 ? 1 : (columns) > 4 ? 2 : (columns) > 3 ? 2 : (columns) > 2 ? 3 : 5)
#endif
#if VBYTES == 64 && REAL_BYTES == 4
#define LOADM(p, m) ((V)_mm512_maskz_loadu_ps((__mmask16)(m), (p)))
#elif VBYTES == 64
#define LOADM(p, m) ((V)_mm512_maskz_loadu_pd((__mmask8)(m), (p)))
#else
#define LOADM(p, m) LOAD(p)
#endif

/* `count` values, `step` bytes apart */
static void NAME(pack_filter)(REAL *dst, const char *src, ix count, ix step, int swap)
{
    if (swap || (uintptr_t)src % sizeof(REAL) || step % (ix)sizeof(REAL)) NAME(copy_row)(dst, src, count, step, swap);
    else
        for (ix i = 0; i < count; i++, src += step) dst[i] = *(const REAL *)src;
}

/* Lanes l of a vector for which low <= at + l < high. */
INLINE uint16_t NAME(lanes_inside)(ix at, ix low, ix high)
{
    ix from = FC_MIN(FC_MAX(low - at, 0), VL), to = FC_MIN(FC_MAX(high - at, from), VL);
    return (uint16_t)((1u << to) - (1u << from));
}

/* Cut the outputs from .. to of a row into spans. Without masks the last vector starts early instead of hanging over (`whole`: as sums over outputs must not). */
static void NAME(cut_spans)(fc_planes *p, ix from, ix to, uint16_t *mask, int whole)
{
    const fc_comb *w = &p->w;
    ix first = from / w->phases, outputs = fc_ceil_div(to, w->phases) - first, vectors = fc_ceil_div(outputs, VL);
    ix most = whole ? 1 : p->rolls ? ROLL_NV(p->h.taps) : SPAN_NV / w->phases;
    p->span_count = fc_ceil_div(vectors, most);
    for (ix b = 0; b < p->span_count; b++) {
        fc_span *span = &p->spans[b];
        ix v = b * vectors / p->span_count;
        span->nv = (b + 1) * vectors / p->span_count - v;
        span->mask = mask;
        for (ix j = 0; j < span->nv; j++) {
            ix at = first + (v + j) * VL;
            if (VBYTES != 64 && !whole && outputs >= VL) at = FC_MIN(at, first + outputs - VL);
            span->start[j] = at;
            span->count[j] = FC_MIN(to - at * w->phases, w->phases * VL);
        }
        for (ix t = 0; t < w->taps; t++)
            for (ix j = 0; j < span->nv; j++) {
                ix at = span->start[j] * w->step + w->offset[t];
                /* Lanes behind the last output count as outside, so that nothing there can be NaN. */
                ix high = FC_MIN(w->high, (first + outputs) * w->step + w->offset[t]);
                for (ix i = 0; i < w->step; i++) *mask++ = NAME(lanes_inside)(at + i * VL, w->low, high);
            }
    }
}

/* The first `count` lanes; rows that have `room` behind them may be overwritten there, since they are written in order. */
INLINE void NAME(put_row)(REAL *y, V v, ix count, ix room)
{
    if (count == VL || (VBYTES != 64 && room >= VL)) STORE(y, v);
    else STOREN(y, v, count);
}

/* pair: the vectors are those of two planes, else nv vectors of one */
INLINE void NAME(roll_body)(const ix taps, const ix nv, const int pair, const fc_planes *p, const fc_span *span, const REAL *const *source,
                            const REAL *const *weight, const REAL *bias, REAL *const *result)
{
    V c[ROLL_TAPS][SPAN_NV];
    const REAL *x[SPAN_NV], *w[SPAN_NV];
    REAL *y[SPAN_NV];
    ix room[SPAN_NV];
    UNROLL for (ix i = 0; i < taps; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] = (V){0};
    UNROLL for (ix j = 0; j < nv; j++)
    {
        ix start = span->start[pair ? 0 : j];
        w[j] = weight[pair ? j : 0];
        x[j] = source[pair ? j : 0] + start + (p->from + p->h.offset[0]) * p->pitch;
        y[j] = result[pair ? j : 0] + start + p->from * p->y_pitch;
        room[j] = p->y_pitch > VL ? 0 : p->y_pitch * (p->to - p->from);
    }
    const ix across = p->w.taps, *offset = p->w.offset;
    ix last = p->to - 1 + p->h.offset[0] + taps;
    for (ix h = p->from + p->h.offset[0]; h < last; h++) {
        if (h >= p->h.low && h < p->h.high) {
            const uint16_t *mask = span->mask;
            for (ix s = 0; s < across; s++, mask += pair ? 1 : nv) {
                V v[SPAN_NV];
                UNROLL for (ix j = 0; j < nv; j++) v[j] = LOADM(x[j] + offset[s], mask[pair ? 0 : j]);
                UNROLL for (ix i = 0; i < taps; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] += w[pair ? j : 0][i * across + s] * v[j];
            }
        }
        if (h >= p->from + p->h.offset[0] + taps - 1)
            UNROLL for (ix j = 0; j < nv; j++)
            {
                NAME(put_row)(y[j], c[taps - 1][j] + bias[pair ? j : 0], span->count[pair ? 0 : j], room[j]);
                y[j] += p->y_pitch;
                room[j] -= p->y_pitch;
            }
        UNROLL for (ix j = 0; j < nv; j++)
        {
            UNROLL for (ix i = taps - 1; i > 0; i--) c[i][j] = c[i - 1][j];
            c[0][j] = (V){0};
            x[j] += p->pitch;
        }
    }
}

typedef void (*NAME(planes_function))(const fc_planes *p, const fc_span *span, const REAL *const *source, const REAL *const *weight, const REAL *bias,
                                      REAL *const *result);

#define ROLL(t, n, pair)                                                                                                                            \
    static __attribute__((noinline)) void NAME(roll_##t##x##n##x##pair)(const fc_planes *p, const fc_span *span, const REAL *const *source,         \
                                                                        const REAL *const *weight, const REAL *bias, REAL *const *result)           \
    {                                                                                                                                               \
        if (pair || n <= ROLL_NV(t)) NAME(roll_body)(t, n, pair, p, span, source, weight, bias, result);                                          \
    }
#define ROLL_ROW(t) ROLL(t, 1, 0) ROLL(t, 2, 0) ROLL(t, 3, 0) ROLL(t, 4, 0) ROLL(t, 2, 1)
#define ROLL_NAMES(t) {NAME(roll_##t##x1x0), NAME(roll_##t##x2x0), NAME(roll_##t##x3x0), NAME(roll_##t##x4x0), NAME(roll_##t##x2x1)}
ROLL_ROW(1) ROLL_ROW(2) ROLL_ROW(3) ROLL_ROW(4) ROLL_ROW(5) ROLL_ROW(6) ROLL_ROW(7)
static const NAME(planes_function) NAME(rolls)[][5] = {ROLL_NAMES(1), ROLL_NAMES(2), ROLL_NAMES(3), ROLL_NAMES(4),
                                                       ROLL_NAMES(5), ROLL_NAMES(6), ROLL_NAMES(7)};
#undef ROLL
#undef ROLL_ROW
#undef ROLL_NAMES

INLINE void NAME(skip_body)(const ix taps, const ix nv, const fc_planes *p, const fc_span *span, const REAL *const *source, const REAL *const *weight,
                            const REAL *bias, REAL *const *result)
{
    /* A pair of rows of the source adds to the outputs of `kept` rows; with the first of them the oldest of these is done, or with the second. */
    const ix across = p->w.taps, *offset = p->w.offset, kept = (taps + 1) / 2;
    V c[(ROLL_TAPS + 1) / 2][SPAN_NV];
    ix start[SPAN_NV], h = p->from * 2 + p->h.offset[0], room = p->y_pitch > VL ? 0 : p->y_pitch * (p->to - p->from);
    const ix high = FC_MIN(p->h.high, (p->to - 1) * 2 + p->h.offset[0] + taps);
    const REAL *x = source[0] + h * p->pitch;
    REAL *y = result[0] + p->from * p->y_pitch;
    UNROLL for (ix j = 0; j < nv; j++) start[j] = span->start[j] * 2;
    UNROLL for (ix i = 0; i < kept; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] = (V){0};
    for (ix o = p->from; o < p->to + kept - 1; o++) {
        UNROLL for (ix odd = 0; odd < 2; odd++, h++, x += p->pitch)
        {
            if (h < p->h.low || h >= high) continue;
            const uint16_t *mask = span->mask;
            for (ix s = 0; s < across; s++, mask += nv * 2) {
                const REAL *at = x + offset[s], *w = weight[0] + odd * across + s;
                if (s + 1 < across && offset[s + 1] == offset[s] + 1) { /* the next tap reads what lies between */
                    UNROLL for (ix j = 0; j < nv; j++)
                    {
                        V a = LOADM(at + start[j], mask[j * 2]), b = LOADM(at + start[j] + VL, mask[j * 2 + 1]);
                        V even = NAME(every_other)(a, b, 0), between = NAME(every_other)(a, b, 1);
                        UNROLL for (ix i = 0; 2 * i + odd < taps; i++)
                        {
                            c[i][j] += w[2 * i * across] * even;
                            c[i][j] += w[2 * i * across + 1] * between;
                        }
                    }
                    s++, mask += nv * 2;
                    continue;
                }
                UNROLL for (ix j = 0; j < nv; j++)
                {
                    V even = NAME(every_other)(LOADM(at + start[j], mask[j * 2]), LOADM(at + start[j] + VL, mask[j * 2 + 1]), 0);
                    UNROLL for (ix i = 0; 2 * i + odd < taps; i++) c[i][j] += w[2 * i * across] * even;
                }
            }
        }
        if (o >= p->from + kept - 1) {
            UNROLL for (ix j = 0; j < nv; j++) NAME(put_row)(y + span->start[j], c[kept - 1][j] + bias[0], span->count[j], room);
            y += p->y_pitch;
            room -= p->y_pitch;
        }
        UNROLL for (ix j = 0; j < nv; j++)
        {
            UNROLL for (ix i = kept - 1; i > 0; i--) c[i][j] = c[i - 1][j];
            c[0][j] = (V){0};
        }
    }
}

#define SKIP(t, n)                                                                                                                                  \
    static __attribute__((noinline)) void NAME(skip_##t##x##n)(const fc_planes *p, const fc_span *span, const REAL *const *source,                  \
                                                               const REAL *const *weight, const REAL *bias, REAL *const *result)                    \
    {                                                                                                                                               \
        NAME(skip_body)(t, n, p, span, source, weight, bias, result);                                                                               \
    }
#define SKIP_ROW(t) SKIP(t, 1) SKIP(t, 2) SKIP(t, 3) SKIP(t, 4)
#define SKIP_NAMES(t) {NAME(skip_##t##x1), NAME(skip_##t##x2), NAME(skip_##t##x3), NAME(skip_##t##x4)}
SKIP_ROW(1) SKIP_ROW(2) SKIP_ROW(3) SKIP_ROW(4) SKIP_ROW(5) SKIP_ROW(6) SKIP_ROW(7)
static const NAME(planes_function) NAME(skips)[][4] = {SKIP_NAMES(1), SKIP_NAMES(2), SKIP_NAMES(3), SKIP_NAMES(4), SKIP_NAMES(5), SKIP_NAMES(6), SKIP_NAMES(7)};
#undef SKIP
#undef SKIP_ROW
#undef SKIP_NAMES

INLINE void NAME(comb_body)(const ix nv, const ix step, const ix phases, const fc_planes *p, const fc_span *span, const REAL *const *source,
                            const REAL *const *weight, const REAL *bias, REAL *const *result)
{
    const ix across = p->w.taps, *offset = p->w.offset;
    const ix first[3] = {0, phases > 1 ? p->second : across, across};
    ix start[SPAN_NV];
    UNROLL for (ix j = 0; j < nv; j++) start[j] = span->start[j] * step;
    for (ix o = p->from; o < p->to; o++) {
        V c[2][SPAN_NV];
        UNROLL for (ix i = 0; i < phases; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] = (V){0};
        ix unit = p->h.phases > 1 ? o >> 1 : o, phase = o - unit * p->h.phases;
        for (ix r = 0; r < p->h.taps; r++) {
            ix h = unit * p->h.step + p->h.offset[r];
            if (p->h.phase[r] != phase || h < p->h.low || h >= p->h.high) continue;
            const REAL *row = source[0] + h * p->pitch, *w = weight[0] + r * across;
            const uint16_t *mask = span->mask;
            if (step == 2) {
                for (ix s = 0; s < across; s++, mask += nv * step) {
                    const REAL *x = row + offset[s];
                    int two = s + 1 < across && offset[s + 1] == offset[s] + 1; /* the next tap reads what lies between */
                    UNROLL for (ix j = 0; j < nv; j++)
                    {
                        V a = LOADM(x + start[j], mask[j * step]), b = LOADM(x + start[j] + VL, mask[j * step + 1]);
                        c[0][j] += w[s] * NAME(every_other)(a, b, 0);
                        if (two) c[0][j] += w[s + 1] * NAME(every_other)(a, b, 1);
                    }
                    if (two) s++, mask += nv * step;
                }
                continue;
            }
            UNROLL for (ix i = 0; i < phases; i++) for (ix s = first[i]; s < first[i + 1]; s++, mask += nv)
            {
                const REAL *x = row + offset[s];
                UNROLL for (ix j = 0; j < nv; j++) c[i][j] += w[s] * LOADM(x + start[j], mask[j]);
            }
        }
        REAL *y = result[0] + o * p->y_pitch;
        ix room = p->y_pitch > VL ? 0 : p->y_pitch * (p->to - o);
        UNROLL for (ix j = 0; j < nv; j++)
        {
            ix count = span->count[j];
            REAL *at = y + span->start[j] * phases;
            if (phases == 1) NAME(put_row)(at, c[0][j] + bias[0], count, room);
            else {
                V even = c[0][j] + bias[0], odd = c[1][j] + bias[0];
                NAME(put_row)(at, NAME(zip)(even, odd, 0), FC_MIN(count, VL), room);
                if (count > VL) NAME(put_row)(at + VL, NAME(zip)(even, odd, 1), count - VL, 0);
            }
        }
    }
}

#define COMB(n, step, phases)                                                                                                                       \
    static __attribute__((noinline)) void NAME(comb_##n##x##step##x##phases)(const fc_planes *p, const fc_span *span, const REAL *const *source,    \
                                                                             const REAL *const *weight, const REAL *bias, REAL *const *result)      \
    {                                                                                                                                               \
        NAME(comb_body)(n, step, phases, p, span, source, weight, bias, result);                                                                    \
    }
COMB(1, 1, 1) COMB(2, 1, 1) COMB(3, 1, 1) COMB(4, 1, 1)
COMB(1, 2, 1) COMB(2, 2, 1) COMB(3, 2, 1) COMB(4, 2, 1)
COMB(1, 1, 2) COMB(2, 1, 2)
#define COMB_NAMES(step, phases) {NAME(comb_1x##step##x##phases), NAME(comb_2x##step##x##phases), NAME(comb_3x##step##x##phases), NAME(comb_4x##step##x##phases)}
static const NAME(planes_function) NAME(combs)[][4] = {COMB_NAMES(1, 1), COMB_NAMES(2, 1), {NAME(comb_1x1x2), NAME(comb_2x1x2), 0, 0}};
#undef COMB
#undef COMB_NAMES

/* The rows of outputs from .. to of one plane, or of two if rows are of a single vector (`count` = 2). */
static void NAME(planes)(const fc_planes *p, ix count, const REAL *const *source, const REAL *const *weight, const REAL *bias, REAL *const *result)
{
    const int skips = fc_planes_skip(p);
    for (ix b = 0; b < p->span_count; b++) {
        const fc_span *span = &p->spans[b];
        if (count == 2) NAME(rolls)[p->h.taps - 1][4](p, span, source, weight, bias, result);
        else if (p->rolls) NAME(rolls)[p->h.taps - 1][span->nv - 1](p, span, source, weight, bias, result);
        else if (skips) NAME(skips)[p->h.taps - 1][span->nv - 1](p, span, source, weight, bias, result);
        else NAME(combs)[p->w.phases == 2 ? 2 : p->w.step - 1][span->nv - 1](p, span, source, weight, bias, result);
    }
}

/* sums[(r*p->w.taps + s)*VL ...] += sum over rows and one vector of dy * source, for taps r of `rows` and s of `columns`, one apart. dy has zeros where nothing is. */
INLINE void NAME(slopes_body)(const ix rows, const ix columns, const ix step, const fc_planes *p, const fc_span *span, ix r0, ix s0, const REAL *source,
                              const REAL *dy, REAL *restrict sums)
{
    V c[ROLL_TAPS][SLOPES_TAPS];
    const ix across = p->w.taps, *offset = p->w.offset + s0, *down = p->h.offset + r0;
    const uint16_t *mask = span->mask + s0 * step, lanes = (uint16_t)((1u << span->count[0]) - 1);
    (void)mask, (void)lanes; /* unused where nothing is masked */
    sums += (r0 * across + s0) * VL;
    source += span->start[0] * step;
    dy += span->start[0];
    UNROLL for (ix r = 0; r < rows; r++) UNROLL for (ix s = 0; s < columns; s++) c[r][s] = *(const V *)(sums + (r * across + s) * VL);
    ix low = FC_MAX(p->h.low, p->from * p->h.step + down[0]), high = FC_MIN(p->h.high, (p->to - 1) * p->h.step + down[rows - 1] + 1);
    const ix shift = p->h.step - 1;
    for (ix h = low; h < high; h++) {
        const REAL *x = source + h * p->pitch;
        V v[SLOPES_TAPS];
        UNROLL for (ix s = 0; s < columns; s++)
        {
            v[s] = LOADM(x + offset[s], mask[s * step]);
            if (step == 2) {
                V next = LOADM(x + offset[s] + VL, mask[s * step + 1]);
                if (s + 1 < columns) { /* the next tap reads what lies between */
                    v[s + 1] = NAME(every_other)(v[s], next, 1);
                    v[s] = NAME(every_other)(v[s], next, 0);
                    s++;
                } else v[s] = NAME(every_other)(v[s], next, 0);
            }
        }
        UNROLL for (ix r = 0; r < rows; r++)
        {
            ix o = (h - down[r]) >> shift;
            if (o >= p->from && o < p->to && o << shift == h - down[r]) {
                V d = LOADM(dy + o * p->y_pitch, lanes);
                UNROLL for (ix s = 0; s < columns; s++) c[r][s] += d * v[s];
            }
        }
    }
    UNROLL for (ix r = 0; r < rows; r++) UNROLL for (ix s = 0; s < columns; s++) *(V *)(sums + (r * across + s) * VL) = c[r][s];
}

typedef void (*NAME(slopes_function))(const fc_planes *p, const fc_span *span, ix r0, ix s0, const REAL *source, const REAL *dy, REAL *sums);

#define SLOPES(m, n, step)                                                                                                                          \
    static __attribute__((noinline)) void NAME(slopes_##m##x##n##x##step)(const fc_planes *p, const fc_span *span, ix r0, ix s0,                    \
                                                                          const REAL *source, const REAL *dy, REAL *sums)                           \
    {                                                                                                                                               \
        if (m <= SLOPES_ROWS(n)) NAME(slopes_body)(m, n, step, p, span, r0, s0, source, dy, sums);                                                   \
    }
#define SLOPES_ROW(m, step)                                                                                                                         \
    SLOPES(m, 1, step) SLOPES(m, 2, step) SLOPES(m, 3, step) SLOPES(m, 4, step) SLOPES(m, 5, step) SLOPES(m, 6, step) SLOPES(m, 7, step)
#define SLOPES_NAMES(m, step)                                                                                                                       \
    {NAME(slopes_##m##x1x##step), NAME(slopes_##m##x2x##step), NAME(slopes_##m##x3x##step), NAME(slopes_##m##x4x##step),                            \
     NAME(slopes_##m##x5x##step), NAME(slopes_##m##x6x##step), NAME(slopes_##m##x7x##step)}
#define SLOPES_STEP(step)                                                                                                                           \
    SLOPES_ROW(1, step) SLOPES_ROW(2, step) SLOPES_ROW(3, step) SLOPES_ROW(4, step) SLOPES_ROW(5, step) SLOPES_ROW(6, step) SLOPES_ROW(7, step)
SLOPES_STEP(1) SLOPES_STEP(2)
#define SLOPES_ALL(step)                                                                                                                            \
    {SLOPES_NAMES(1, step), SLOPES_NAMES(2, step), SLOPES_NAMES(3, step), SLOPES_NAMES(4, step), SLOPES_NAMES(5, step), SLOPES_NAMES(6, step),      \
     SLOPES_NAMES(7, step)}
static const NAME(slopes_function) NAME(slopes)[2][7][7] = {SLOPES_ALL(1), SLOPES_ALL(2)};
#undef SLOPES
#undef SLOPES_ROW
#undef SLOPES_NAMES
#undef SLOPES_STEP
#undef SLOPES_ALL

/* The rows of outputs from .. to of one plane, all taps. sums: [taps][VL] */
static void NAME(planes_slopes)(const fc_planes *p, const REAL *source, const REAL *dy, REAL *sums)
{
    const ix rows = p->h.taps, columns = p->w.taps;
    ix across = fc_ceil_div(columns, SLOPES_TAPS);
    if (p->w.step > 1 && columns > 1 && p->w.offset[1] != p->w.offset[0] + 1) across = columns; /* dilated: no tap reads what lies between */
    for (ix a = 0; a < across; a++) {
        ix s = a * columns / across, n = (a + 1) * columns / across - s, down = fc_ceil_div(rows, SLOPES_ROWS(n));
        for (ix b = 0; b < down; b++) {
            ix r = b * rows / down, m = (b + 1) * rows / down - r;
            for (ix i = 0; i < p->span_count; i++) NAME(slopes)[p->w.step - 1][m - 1][n - 1](p, &p->spans[i], r, s, source, dy, sums);
        }
    }
}

/* dst[i] = the sum of the lanes of vector i: the tree of add_lanes, VL vectors at a time */
static void NAME(fold_planes)(REAL *dst, const REAL *sums, ix count)
{
    REAL block[VBYTES / REAL_BYTES * (VBYTES / REAL_BYTES)] __attribute__((aligned(64)));
    ix i = 0;
    for (; i + VL / 2 <= count; i += VL) {
        REAL last[VBYTES / REAL_BYTES * (VBYTES / REAL_BYTES)] __attribute__((aligned(64)));
        const REAL *from = sums + i * VL;
        ix n = FC_MIN(count - i, VL);
        V t[VBYTES / REAL_BYTES];
        if (n < VL) { /* a block of its own, zeros behind */
            for (ix j = 0; j < VL; j++) *(V *)(last + j * VL) = j < n ? *(const V *)(from + j * VL) : (V){0};
            from = last;
        }
        NAME(transpose_block)(block, from);
        UNROLL for (ix j = 0; j < VL; j++) t[j] = *(const V *)(block + j * VL);
        UNROLL for (ix half = VL / 2; half; half /= 2) UNROLL for (ix j = 0; j < half; j++) t[j] += t[j + half];
        if (n == VL) STORE(dst + i, t[0]);
        else STOREN(dst + i, t[0], n);
    }
    for (; i < count; i++) dst[i] = NAME(add_lanes)(*(const V *)(sums + i * VL));
}

/* ---- sheaves: VL planes with planes as lanes */

#undef SHEAF
#define SHEAF 8 /* accumulators + a weight: each multiplication loads one operand */

/* VL rows of VL -> their columns: a perfect shuffle */
INLINE void NAME(turn_block)(V *a)
{
    V b[VBYTES / REAL_BYTES];
    UNROLL for (ix half = 1; half < VL; half *= 2)
    {
        UNROLL for (ix i = 0; i < VL / 2; i++)
        {
            b[2 * i] = NAME(zip)(a[i], a[i + VL / 2], 0);
            b[2 * i + 1] = NAME(zip)(a[i], a[i + VL / 2], 1);
        }
        UNROLL for (ix i = 0; i < VL; i++) a[i] = b[i];
    }
}

/* Pixel i of VL planes -> grid[position[i]][VL]; position == NULL: one behind another */
static void NAME(sheaf_in)(REAL *grid, const ix *position, const REAL *const *plane, ix pixels)
{
    for (ix p = 0; p < pixels; p += VL) {
        ix n = FC_MIN(VL, pixels - p);
        if (n <= VL / 8) {
            for (ix i = p; i < p + n; i++) {
                REAL *to = grid + (position ? position[i] : i) * VL;
                for (ix l = 0; l < VL; l++) to[l] = plane[l][i];
            }
            continue;
        }
        V a[VBYTES / REAL_BYTES];
        if (n == VL) UNROLL for (ix l = 0; l < VL; l++) a[l] = LOAD(plane[l] + p);
        else UNROLL for (ix l = 0; l < VL; l++) a[l] = LOADN(plane[l] + p, n);
        NAME(turn_block)(a);
        if (!position) UNROLL for (ix i = 0; i < VL; i++) *(V *)(grid + (p + i) * VL) = a[i]; /* a tail has room behind it */
        else if (n == VL) UNROLL for (ix i = 0; i < VL; i++) *(V *)(grid + position[p + i] * VL) = a[i];
        else UNROLL for (ix i = 0; i < VL; i++) if (i < n) *(V *)(grid + position[p + i] * VL) = a[i];
    }
}

/* [pixel][VL] -> the first `lanes` planes, `size` apart; pixels have room behind them */
static void NAME(sheaf_out)(REAL *y, ix size, ix lanes, const REAL *pixel, ix pixels)
{
    for (ix p = 0; p < pixels; p += VL) {
        ix n = FC_MIN(VL, pixels - p);
        if (n <= VL / 8) {
            for (ix i = p; i < p + n; i++)
                for (ix l = 0; l < lanes; l++) y[l * size + i] = pixel[i * VL + l];
            continue;
        }
        V a[VBYTES / REAL_BYTES];
        UNROLL for (ix i = 0; i < VL; i++) a[i] = *(const V *)(pixel + (p + i) * VL);
        NAME(turn_block)(a);
        if (n == VL && lanes == VL) UNROLL for (ix l = 0; l < VL; l++) STORE(y + l * size + p, a[l]);
        else UNROLL for (ix l = 0; l < VL; l++) if (l < lanes) STOREN(y + l * size + p, a[l], n);
    }
}

/* Outputs unit .. unit + count of one phase of every row. p->pitch: from row to row of the grid, in pixels. x: where pixel (0, 0) of the grid lies */
INLINE void NAME(sheaf_body)(const ix count, const ix step, const fc_planes *p, ix phase, ix unit, const REAL *x, const REAL *w, const REAL *bias, REAL *y)
{
    const ix across = p->w.taps, *offset = p->w.offset;
    const ix first = phase ? p->second : 0, last = p->w.phases > 1 && !phase ? p->second : across;
    const V b = *(const V *)bias;
    x += unit * step * VL;
    y += (unit * p->w.phases + phase) * VL;
    for (ix o = 0; o < p->h.out; o++, y += p->w.out * VL) {
        V c[SHEAF];
        UNROLL for (ix i = 0; i < count; i++) c[i] = (V){0};
        ix u = p->h.phases > 1 ? o >> 1 : o, ph = o - u * p->h.phases;
        for (ix r = 0; r < p->h.taps; r++) {
            ix h = u * p->h.step + p->h.offset[r];
            if (p->h.phase[r] != ph || h < p->h.low || h >= p->h.high) continue;
            const REAL *row = x + h * p->pitch * VL, *weight = w + r * across * VL;
            for (ix s = first; s < last; s++) {
                const V a = *(const V *)(weight + s * VL);
                const REAL *at = row + offset[s] * VL;
                UNROLL for (ix i = 0; i < count; i++) c[i] += a * *(const V *)(at + i * step * VL);
            }
        }
        UNROLL for (ix i = 0; i < count; i++) *(V *)(y + i * p->w.phases * VL) = c[i] + b;
    }
}

typedef void (*NAME(sheaf_function))(const fc_planes *p, ix phase, ix unit, const REAL *x, const REAL *w, const REAL *bias, REAL *y);

#define SHEAF_ROWS(n, step)                                                                                                                         \
    static __attribute__((noinline)) void NAME(sheaf_##n##x##step)(const fc_planes *p, ix phase, ix unit, const REAL *x, const REAL *w,             \
                                                                   const REAL *bias, REAL *y)                                                       \
    {                                                                                                                                               \
        NAME(sheaf_body)(n, step, p, phase, unit, x, w, bias, y);                                                                                   \
    }
#define SHEAF_STEP(step)                                                                                                                            \
    SHEAF_ROWS(1, step) SHEAF_ROWS(2, step) SHEAF_ROWS(3, step) SHEAF_ROWS(4, step) SHEAF_ROWS(5, step) SHEAF_ROWS(6, step) SHEAF_ROWS(7, step)     \
    SHEAF_ROWS(8, step)
#define SHEAF_NAMES(step)                                                                                                                           \
    {NAME(sheaf_1x##step), NAME(sheaf_2x##step), NAME(sheaf_3x##step), NAME(sheaf_4x##step), NAME(sheaf_5x##step), NAME(sheaf_6x##step),            \
     NAME(sheaf_7x##step), NAME(sheaf_8x##step)}
SHEAF_STEP(1) SHEAF_STEP(2)
static const NAME(sheaf_function) NAME(sheaves)[2][8] = {SHEAF_NAMES(1), SHEAF_NAMES(2)};
#undef SHEAF_ROWS
#undef SHEAF_STEP
#undef SHEAF_NAMES

/* y[output][VL] from a grid and weights [tap][VL] */
static void NAME(sheaf)(const fc_planes *p, const REAL *x, const REAL *w, const REAL *bias, REAL *y)
{
    for (ix phase = 0; phase < p->w.phases; phase++) {
        ix units = fc_ceil_div(p->w.out - phase, p->w.phases), tiles = fc_ceil_div(units, SHEAF);
        for (ix t = 0; t < tiles; t++) {
            ix unit = t * units / tiles, count = (t + 1) * units / tiles - unit;
            NAME(sheaves)[p->w.step - 1][count - 1](p, phase, unit, x, w, bias, y);
        }
    }
}

/* sums[tap][VL] += sum over outputs of dy[output][VL] * x[output + reach[tap]][VL], for `count` taps. The grid has zeros wherever a tap may reach. */
INLINE void NAME(sheaf_slopes_body)(const ix count, const fc_planes *p, const REAL *restrict x, const REAL *restrict dy, const ix *reach, REAL *restrict sums)
{
    V c[SHEAF + 1];
    const REAL *at[SHEAF + 1];
    const ix step = p->w.step * VL, down = (p->h.step * p->pitch - p->w.out * p->w.step) * VL;
    UNROLL for (ix i = 0; i < count; i++)
    {
        c[i] = *(const V *)(sums + i * VL);
        at[i] = x + reach[i] * VL;
    }
    ix k = 0;
    for (ix o = 0; o < p->h.out; o++, k += down)
        for (ix q = 0; q < p->w.out; q++, k += step, dy += VL) {
            const V d = *(const V *)dy;
            UNROLL for (ix i = 0; i < count; i++) c[i] += d * *(const V *)(at[i] + k);
        }
    UNROLL for (ix i = 0; i < count; i++) *(V *)(sums + i * VL) = c[i];
}

typedef void (*NAME(sheaf_slopes_function))(const fc_planes *p, const REAL *x, const REAL *dy, const ix *reach, REAL *sums);

#define SHEAF_SLOPES(n)                                                                                                                             \
    static __attribute__((noinline)) void NAME(sheaf_slopes_##n)(const fc_planes *p, const REAL *x, const REAL *dy, const ix *reach, REAL *sums)    \
    {                                                                                                                                               \
        NAME(sheaf_slopes_body)(n, p, x, dy, reach, sums);                                                                                          \
    }
SHEAF_SLOPES(1) SHEAF_SLOPES(2) SHEAF_SLOPES(3) SHEAF_SLOPES(4) SHEAF_SLOPES(5) SHEAF_SLOPES(6) SHEAF_SLOPES(7) SHEAF_SLOPES(8) SHEAF_SLOPES(9)
#undef SHEAF_SLOPES
static const NAME(sheaf_slopes_function) NAME(sheaf_slope)[] = {
    NAME(sheaf_slopes_1), NAME(sheaf_slopes_2), NAME(sheaf_slopes_3), NAME(sheaf_slopes_4), NAME(sheaf_slopes_5),
    NAME(sheaf_slopes_6), NAME(sheaf_slopes_7), NAME(sheaf_slopes_8), NAME(sheaf_slopes_9),
};

static void NAME(sheaf_slopes)(const fc_planes *p, const REAL *x, const REAL *dy, const ix *reach, REAL *sums)
{
    ix taps = p->h.taps * p->w.taps, tiles = fc_ceil_div(taps, SHEAF + 1);
    for (ix t = 0; t < tiles; t++) {
        ix first = t * taps / tiles, count = (t + 1) * taps / tiles - first;
        NAME(sheaf_slope)[count - 1](p, x, dy, reach + first, sums + first * VL);
    }
}
