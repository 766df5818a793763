/* The gradient of a bias is the sum of dy. It is added up where rows of dy pass through the gradient of the weights anyway: to read them for it alone would take as long
 * as a good part of these gradients. Some hundred values are added up in vectors, their sums in double. */

/* sum += the values of `count` rows of n */
static void NAME(add_rows)(double *sum, const REAL *const *rows, ix count, ix n)
{
    NAME(quad) q = {{0}};
    for (ix r = 0; r < count; r++) NAME(quad_add)(&q, rows[r], n);
    *sum += NAME(add_lanes)(NAME(quad_lanes)(&q));
}
