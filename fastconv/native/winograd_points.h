/* The transforms of Winograd's algorithm along one axis, by vectors: `n` points, 6 or 8, of which n - 2 come in pairs +-x, beside 0 and infinity.
 *
 * Pairs share their even and odd halves. With q = x^2, a point's polynomial is t (t + x) times the product of (t^2 - q) over the other pairs; the tables hold these
 * products, highest power first, with the leading 1. All are dyadic, so only the weights' norms are rounded. The points are those of least amplification of rounding
 * errors: for six +-5/8 and +-3/2, a fraction of that of the customary +-1 and +-2; for eight +-1/2, +-1 and +-2, four times as much (fastconv/testing/winograd.py
 * bounds both). `n`, `m` and `r` are constants wherever these are used, and the tables vanish into the code.
 */
#ifndef FC_WINOGRAD_POINTS_H
#define FC_WINOGRAD_POINTS_H
#define WINO_MAX 8     /* points along an axis */
#define WINO_OUTPUTS 6 /* outputs of a tile along an axis, at most */
#define WINO_TAPS 7    /* taps, at most */
#define WINO_PAIRS 3

typedef struct {
    double x[WINO_PAIRS];                  /* the points +-x */
    double others[WINO_PAIRS][WINO_PAIRS]; /* product over the other pairs */
    double all[WINO_PAIRS + 1];            /* product over all pairs */
    double norm[WINO_PAIRS];               /* 1 / (2 q * product of (q - q') over the other pairs) */
    double zero;                           /* 1 / the product of all -q */
} fc_wino_points;

static const fc_wino_points FC_WINO_6 = {
    {0.625, 1.5}, {{1, -2.25}, {1, -0.390625}}, {1, -2.640625, 0.87890625}, {1 / (2 * 0.390625 * (0.390625 - 2.25)), 1 / (2 * 2.25 * (2.25 - 0.390625))}, 1 / 0.87890625};
static const fc_wino_points FC_WINO_8 = {
    {0.5, 1, 2}, {{1, -5, 4}, {1, -4.25, 1}, {1, -1.25, 0.25}}, {1, -5.25, 5.25, -1}, {1 / 1.40625, 1 / -4.5, 1 / 90.0}, -1};
#define WINO_TABLE(n) ((n) == 8 ? &FC_WINO_8 : &FC_WINO_6)

INLINE double fc_power(double x, const ix i)
{
    return i == 0 ? 1 : i == 1 ? x : i == 2 ? x * x : i == 3 ? x * x * x : i == 4 ? x * x * x * x : i == 5 ? x * x * x * x * x : x * x * x * x * x * x;
}
#endif

/* c[0] d[0] + c[1] d[-2] + ...: `count` terms, the first coefficient is 1. */
INLINE V NAME(wino_series)(const V *d, const double *c, const ix count)
{
    V sum = d[0];
    UNROLL for (ix k = 1; k < count; k++) sum += (REAL)c[k] * d[-2 * k];
    return sum;
}

/* B^T d: n inputs to n points. */
INLINE void NAME(wino_input_points)(const V *d, V *t, const ix n)
{
    const fc_wino_points *p = WINO_TABLE(n);
    const ix pairs = n / 2 - 1;
    t[0] = p->all[pairs] < 0 ? -d[0] : (REAL)p->all[pairs] * d[0];
    UNROLL for (ix k = 0; k < pairs; k++) t[0] += (REAL)p->all[pairs - 1 - k] * d[2 + 2 * k];
    UNROLL for (ix k = 0; k < pairs; k++)
    {
        V even = NAME(wino_series)(d + n - 2, p->others[k], pairs), odd = (REAL)p->x[k] * NAME(wino_series)(d + n - 3, p->others[k], pairs);
        t[1 + 2 * k] = even + odd;
        t[2 + 2 * k] = even - odd;
    }
    t[n - 1] = NAME(wino_series)(d + n - 1, p->all, pairs + 1);
}

/* A^T t: n points to m outputs; the point at infinity joins the last. */
INLINE void NAME(wino_outputs)(const V *t, V *y, const ix m, const ix n)
{
    const fc_wino_points *p = WINO_TABLE(n);
    const ix pairs = n / 2 - 1;
    V sum[WINO_PAIRS], difference[WINO_PAIRS];
    UNROLL for (ix k = 0; k < pairs; k++)
    {
        sum[k] = t[1 + 2 * k] + t[2 + 2 * k];
        difference[k] = t[1 + 2 * k] - t[2 + 2 * k];
    }
    UNROLL for (ix i = 0; i < m; i++)
    {
        const V *of = i % 2 ? difference : sum;
        y[i] = (REAL)fc_power(p->x[0], i) * of[0];
        UNROLL for (ix k = 1; k < pairs; k++) y[i] += (REAL)fc_power(p->x[k], i) * of[k];
    }
    y[0] += t[0];
    y[m - 1] += t[n - 1];
}

/* A e: the adjoint of the above, m output gradients to n points. */
INLINE void NAME(wino_output_points)(const V *y, V *t, const ix m, const ix n)
{
    const fc_wino_points *p = WINO_TABLE(n);
    UNROLL for (ix k = 0; k < n / 2 - 1; k++)
    {
        V even = y[0], odd = (REAL)p->x[k] * y[1];
        UNROLL for (ix i = 2; i < m; i += 2) even += (REAL)fc_power(p->x[k], i) * y[i];
        UNROLL for (ix i = 3; i < m; i += 2) odd += (REAL)fc_power(p->x[k], i) * y[i];
        t[1 + 2 * k] = even + odd;
        t[2 + 2 * k] = even - odd;
    }
    t[0] = y[0];
    t[n - 1] = y[m - 1];
}

/* G g: r taps to n points. Weights are transformed MR filters at a time, the width of a packed panel. */
INLINE void NAME(wino_filter_points)(const W *g, W *u, const ix r, const ix n)
{
    const fc_wino_points *p = WINO_TABLE(n);
    UNROLL for (ix k = 0; k < n / 2 - 1; k++)
    {
        W even = g[0], odd = (REAL)p->x[k] * g[1];
        UNROLL for (ix i = 2; i < r; i += 2) even += (REAL)fc_power(p->x[k], i) * g[i];
        UNROLL for (ix i = 3; i < r; i += 2) odd += (REAL)fc_power(p->x[k], i) * g[i];
        u[1 + 2 * k] = (REAL)p->norm[k] * (even + odd);
        u[2 + 2 * k] = (REAL)p->norm[k] * (even - odd);
    }
    u[0] = (REAL)p->zero * g[0];
    u[n - 1] = g[r - 1];
}

/* G^T u: the adjoint, n points to r taps (gradient of the weights). */
INLINE void NAME(wino_filter_taps)(const V *u, V *g, const ix r, const ix n)
{
    const fc_wino_points *p = WINO_TABLE(n);
    const ix pairs = n / 2 - 1;
    V sum[WINO_PAIRS], difference[WINO_PAIRS];
    UNROLL for (ix k = 0; k < pairs; k++)
    {
        sum[k] = (REAL)p->norm[k] * (u[1 + 2 * k] + u[2 + 2 * k]);
        difference[k] = (REAL)p->norm[k] * (u[1 + 2 * k] - u[2 + 2 * k]);
    }
    UNROLL for (ix i = 0; i < r; i++)
    {
        const V *of = i % 2 ? difference : sum;
        g[i] = (REAL)fc_power(p->x[0], i) * of[0];
        UNROLL for (ix k = 1; k < pairs; k++) g[i] += (REAL)fc_power(p->x[k], i) * of[k];
    }
    g[0] += (REAL)p->zero * u[0];
    g[r - 1] += u[n - 1];
}
