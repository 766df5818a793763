/* The gradient of the weights by Winograd's algorithm along one axis: rows of tiles to rows of points, and sums to taps.
 *
 *     dW = G^T [ sum over tiles of (A dy) * (B^T x) ]
 *
 * along the height, or the width; all other taps are read directly. Down the height lanes are neighbouring columns, so nothing is shuffled, and taps along the
 * width lie in the same rows of points, each at its own distance. A tile is `m` rows of dy and `n` rows of x; what is made of it is n rows of points, `plane`
 * apart, of which those of dy and those of x are multiplied by `inner` (direct.h) one pair of planes after another.
 */

/* Lanes of a row from column q on; zeros beyond `width`, and where there is no row. */
INLINE V NAME(row_columns)(const REAL *row, ix q, ix width)
{
    return !row || q >= width ? (V){0} : width - q >= VL ? LOAD(row + q) : LOADN(row + q, width - q);
}

/* m rows of dy -> n rows of points, in whole vectors. */
INLINE void NAME(line_gradient_body)(REAL *dst, ix plane, const REAL *const *rows, ix width, const ix n, const ix m)
{
    for (ix q = 0; q < width; q += VL, dst += VL) {
        V y[WINO_MAX], t[WINO_MAX];
        UNROLL for (ix i = 0; i < m; i++) y[i] = NAME(row_columns)(rows[i], q, width);
        NAME(wino_output_points)(y, t, m, n);
        UNROLL for (ix j = 0; j < n; j++) STORE(dst + j * plane, t[j]);
    }
}

static void NAME(line_gradient)(REAL *dst, ix plane, const REAL *const *rows, ix width, ix n, ix m)
{
    WINO_EVERY_TILE(n, m, NAME(line_gradient_body), dst, plane, rows, width);
}

/* n rows of x -> n rows of points, in whole vectors; zeros from `width` up to `size`. */
INLINE void NAME(line_input_body)(REAL *dst, ix plane, const REAL *const *rows, ix width, ix size, const ix n)
{
    for (ix q = 0; q < size; q += VL, dst += VL) {
        V d[WINO_MAX], t[WINO_MAX];
        UNROLL for (ix i = 0; i < n; i++) d[i] = NAME(row_columns)(rows[i], q, width);
        NAME(wino_input_points)(d, t, n);
        UNROLL for (ix j = 0; j < n; j++) STORE(dst + j * plane, t[j]);
    }
}

static void NAME(line_input)(REAL *dst, ix plane, const REAL *const *rows, ix width, ix size, ix n)
{
    if (n == 6) NAME(line_input_body)(dst, plane, rows, width, size, 6);
    else NAME(line_input_body)(dst, plane, rows, width, size, 8);
}

/* The sums of one filter, one for every point and column, points `plane` apart -> its taps: that of column j and tap i is dweight[to[j*r + i]], unless that is
 * negative (the kernel has no such tap). Rows of sums have room for whole vectors. */
INLINE void NAME(line_taps_body)(REAL *dweight, const REAL *sums, ix plane, ix columns, const ix *to, const ix n, const ix m)
{
    const ix r = n + 1 - m;
    for (ix j = 0; j < columns; j += VL) {
        V u[WINO_MAX], g[WINO_TAPS];
        UNROLL for (ix p = 0; p < n; p++) u[p] = LOAD(sums + p * plane + j);
        NAME(wino_filter_taps)(u, g, r, n);
        UNROLL for (ix i = 0; i < r; i++)
        {
            REAL tap[VL] WHOLE_LINES;
            *(V *)tap = g[i];
            for (ix l = 0; l < FC_MIN(columns - j, VL); l++)
                if (to[(j + l) * r + i] >= 0) dweight[to[(j + l) * r + i]] = tap[l];
        }
    }
}

static void NAME(line_taps)(REAL *dweight, const REAL *sums, ix plane, ix columns, const ix *to, ix n, ix m)
{
    WINO_EVERY_TILE(n, m, NAME(line_taps_body), dweight, sums, plane, columns, to);
}

/* The same for tiles along the width: lanes are neighbouring tiles, m columns apart. One row of dy, `tiles` of them. */
INLINE void NAME(line_gradient_across_body)(REAL *dst, ix plane, const REAL *row, ix width, ix tiles, const ix n, const ix m)
{
    for (ix q = 0; q < tiles; q += VL, dst += VL) {
        V y[WINO_MAX], t[WINO_MAX];
        if (q * m + m * VL + m - 1 <= width) NAME(split_tiles)(row, q * m, 0, width, y, m, m, 1);
        else NAME(split_tiles)(row, q * m, 0, width, y, m, m, 0);
        NAME(wino_output_points)(y, t, m, n);
        UNROLL for (ix j = 0; j < n; j++) STORE(dst + j * plane, t[j]);
    }
}

static void NAME(line_gradient_across)(REAL *dst, ix plane, const REAL *row, ix width, ix tiles, ix n, ix m)
{
    WINO_EVERY_TILE(n, m, NAME(line_gradient_across_body), dst, plane, row, width, tiles);
}

/* One row of x, zeros from `width` on. */
INLINE void NAME(line_input_across_body)(REAL *dst, ix plane, const REAL *row, ix width, ix tiles, const ix n, const ix m)
{
    for (ix q = 0; q < tiles; q += VL, dst += VL) {
        V d[WINO_MAX], t[WINO_MAX];
        if (q * m + m * VL + FC_MAX(m - 1, n - m) <= width) NAME(split_tiles)(row, q * m, 0, width, d, m, n, 1);
        else NAME(split_tiles)(row, q * m, 0, width, d, m, n, 0);
        NAME(wino_input_points)(d, t, n);
        UNROLL for (ix j = 0; j < n; j++) STORE(dst + j * plane, t[j]);
    }
}

static void NAME(line_input_across)(REAL *dst, ix plane, const REAL *row, ix width, ix tiles, ix n, ix m)
{
    WINO_EVERY_TILE(n, m, NAME(line_input_across_body), dst, plane, row, width, tiles);
}
