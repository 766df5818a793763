/* The gradient of a bias is the sum of dy. It is added up where rows of dy pass through the gradient of the weights anyway: to read them for it alone would take as long
 * as a good part of these gradients. Some hundred values are added up in vectors, their sums in double. */

/* sum += the values of `count` rows of n */
static void NAME(add_rows)(double *sum, const REAL *const *rows, ix count, ix n)
{
    NAME(quad) q = {{0}};
    for (ix r = 0; r < count; r++) NAME(quad_add)(&q, rows[r], n);
    *sum += NAME(add_lanes)(NAME(quad_lanes)(&q));
}

/* sums[i] += the values of row i of A over stretches of pixels. Which lane adds up a pixel follows from its number, not from where stretches end: they are others where A
 * is copied than where it is read in place. */
static void NAME(add_stretches)(double *sums, ix rows, const fc_stretch *stretch, ix count, const REAL *A, ix a_row)
{
    for (ix i = 0; i < rows; i++) {
        V even = {0}, odd = {0}; /* vectors of pixels in turn */
        for (ix s = 0, pixel = 0; s < count; s++) {
            const REAL *a = A + i * a_row + stretch[s].a;
            for (ix left = stretch[s].len, n; left; left -= n, a += n, pixel += n) {
                const ix lane = pixel % VL;
                if (pixel % (2 * VL) == 0 && left >= 2 * VL) {
                    n = 2 * VL;
                    even += LOAD(a);
                    odd += LOAD(a + VL);
                    continue;
                }
                n = FC_MIN(VL - lane, left);
                const V v = n == VL ? LOAD(a) : NAME(load_between)(a - lane, lane, lane + n);
                if (pixel / VL % 2) odd += v;
                else even += v;
            }
        }
        sums[i] += NAME(add_lanes)(even + odd);
    }
}

/* sums[lane] += the values of that lane in B over stretches of pixels */
static void NAME(add_turned)(double *sums, ix lanes, const fc_stretch *stretch, ix count, const REAL *B)
{
    V even = {0}, odd = {0};
    for (ix s = 0; s < count; s++) {
        ix p = stretch[s].b;
        const ix end = p + stretch[s].len;
        if (p < end && p % 2) odd += LOAD(B + p++ * VL);
        for (; p + 1 < end; p += 2) {
            even += LOAD(B + p * VL);
            odd += LOAD(B + (p + 1) * VL);
        }
        if (p < end) even += LOAD(B + p * VL);
    }
    const V total = even + odd;
    for (ix lane = 0; lane < lanes; lane++) sums[lane] += total[lane];
}
