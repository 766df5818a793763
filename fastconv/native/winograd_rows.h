/* Rows of a map as rows of tiles, m columns apart: taken apart, so that lanes are tiles, and joined again. `m` is a constant wherever these are used. */

/* Masks of two-vector shuffles. SPLIT(e, l, q): from a running pick and the q-th vector behind it, lane l takes its element e where that lies in the q-th
 * vector. JOIN(m, q, j): lane l of the q-th result is output (q*VL + l) % m of tile (q*VL + l) / m; it is taken when the j-th output's turn comes. */
#ifndef FC_SPLIT_LANE
#define FC_SPLIT_LANE(e, l, q) ((e) / VL == (q) ? VL + (e) % VL : (q) == 1 && (e) < VL ? (e) : (l))
#define FC_JOIN_LANE(l, m, q, j) (((q) * VL + (l)) % (m) == (j) ? VL + ((q) * VL + (l)) / (m) : (j) == 1 && ((q) * VL + (l)) % (m) == 0 ? ((q) * VL + (l)) / (m) : (l))
#endif

/* Lanes low <= l < high of a vector of columns: the others are zeros, and are not touched in memory. */
#if VBYTES == 64 && REAL_BYTES == 4
typedef __mmask16 NAME(span);
INLINE NAME(span) NAME(span_between)(ix low, ix high)
{
    const uint32_t below = (1u << FC_MIN(FC_MAX(low, 0), VL)) - 1, upto = (1u << FC_MIN(FC_MAX(high, 0), VL)) - 1;
    return (__mmask16)(upto & ~below);
}
INLINE V NAME(columns)(const REAL *row, NAME(span) s) { return (V)_mm512_maskz_loadu_ps(s, row); }
#else
typedef struct { int low, high; } NAME(span);
INLINE NAME(span) NAME(span_between)(ix low, ix high)
{
    NAME(span) s = {(int)FC_MIN(FC_MAX(low, 0), VL), (int)FC_MIN(FC_MAX(high, 0), VL)};
    return s;
}
INLINE V NAME(columns)(const REAL *row, NAME(span) s) { return s.low == 0 && s.high == VL ? LOAD(row) : NAME(load_between)(row, s.low, s.high); }
#endif

/* Lane l of the result: element l*m + i of m vectors, i < m. */
INLINE V NAME(pick_every)(const V *v, const ix i, const ix m)
{
    V picked = v[0];
    UNROLL for (ix q = 1; q < m; q++)
    {
        M mask;
        UNROLL for (int l = 0; l < (int)VL; l++) mask[l] = (INT)FC_SPLIT_LANE(l * m + i, l, q);
        picked = NAME(shuffle)(picked, v[q], mask);
    }
    return picked;
}

/* Lane l of the result: element 3*l + i of three vectors, i < 3. */
INLINE V NAME(pick_third)(const V *v, const ix i)
{
    M first, second;
    UNROLL for (int l = 0; l < (int)VL; l++)
    {
        first[l] = (INT)(3 * l + i < 2 * VL ? 3 * l + i : l);
        second[l] = (INT)(3 * l + i < 2 * VL ? l : 3 * l + i - VL);
    }
    return NAME(shuffle)(NAME(shuffle)(v[0], v[1], first), v[2], second);
}

/* The next tile's d: every lane has its neighbour's value, the last one lane i of `beyond`. */
INLINE V NAME(pick_next)(V d, V beyond, const ix i)
{
    M mask;
    UNROLL for (int l = 0; l < (int)VL; l++) mask[l] = (INT)(l + 1 < VL ? l + 1 : VL + i);
    return NAME(shuffle)(d, beyond, mask);
}

/* Vectors of columns that VL tiles read: their own m a tile, and the last one's neighbours'. */
#define WINO_COLUMNS(m, n) ((m) + ((n) - (m) + VL - 1) / VL)

/* The inputs i = 0..n-1 of VL tiles: d[i] = row[lane*m + i]. `span` tells what of each vector of columns lies in the source. */
INLINE void NAME(split_spans)(const REAL *row, const NAME(span) *span, V *d, const ix m, const ix n)
{
    V v[WINO_MAX];
    UNROLL for (ix q = 0; q < WINO_COLUMNS(m, n); q++) v[q] = NAME(columns)(row + q * VL, span[q]);
    if (m == 4) {
        V even0 = NAME(every_other)(v[0], v[1], 0), even1 = NAME(every_other)(v[2], v[3], 0);
        V odd0 = NAME(every_other)(v[0], v[1], 1), odd1 = NAME(every_other)(v[2], v[3], 1);
        d[0] = NAME(every_other)(even0, even1, 0);
        d[1] = NAME(every_other)(odd0, odd1, 0);
        d[2] = NAME(every_other)(even0, even1, 1);
        d[3] = NAME(every_other)(odd0, odd1, 1);
    } else if (m == 6) {
        V even[3], odd[3];
        UNROLL for (ix q = 0; q < 3; q++)
        {
            even[q] = NAME(every_other)(v[2 * q], v[2 * q + 1], 0);
            odd[q] = NAME(every_other)(v[2 * q], v[2 * q + 1], 1);
        }
        UNROLL for (ix i = 0; i < 3; i++)
        {
            d[2 * i] = NAME(pick_third)(even, i);
            d[2 * i + 1] = NAME(pick_third)(odd, i);
        }
    } else if (m == 2) {
        d[0] = NAME(every_other)(v[0], v[1], 0);
        d[1] = NAME(every_other)(v[0], v[1], 1);
    } else
        UNROLL for (ix i = 0; i < m; i++) d[i] = NAME(pick_every)(v, i, m);
    UNROLL for (ix i = m; i < n; i++) d[i] = NAME(pick_next)(d[i - m], v[m + (i - m) / VL], (i - m) % VL);
}

/* The same from column j of a row of which columns [low, high) lie in the source; with `whole` all that are needed do. */
INLINE void NAME(split_tiles)(const REAL *row, ix j, ix low, ix high, V *d, const ix m, const ix n, const int whole)
{
    NAME(span) span[WINO_MAX];
    UNROLL for (ix q = 0; q < WINO_COLUMNS(m, n); q++)
    {
        const ix first = j + q * VL, last = j + m * VL + n - m; /* columns of this vector, and behind the last needed one */
        span[q] = whole ? NAME(span_between)(0, last - first) : NAME(span_between)(low - first, FC_MIN(high, last) - first);
    }
    NAME(split_spans)(row + j, span, d, m, n);
}

/* One step of turning `size` lanes of as many vectors: blocks of `step` lanes and `step` vectors change places. */
INLINE void NAME(turn_step)(V *v, const ix size, const ix step)
{
    M low, high;
    UNROLL for (int l = 0; l < (int)VL; l++)
    {
        low[l] = (INT)(l & step ? VL + l - step : l);
        high[l] = (INT)(l & step ? VL + l : l + step);
    }
    UNROLL for (ix k = 0; k < size; k++)
    {
        if (k & step) continue;
        const V a = v[k], b = v[k + step];
        v[k] = NAME(shuffle)(a, b, low);
        v[k + step] = NAME(shuffle)(a, b, high);
    }
}

/* The inputs j = 0..n-1 of VL tiles that begin anywhere: d[j] = row[begins[lane] + j]. Eight elements of each are read. */
INLINE void NAME(gather_tiles)(const REAL *row, const ix *begins, V *d, const ix n)
{
    const ix size = FC_MIN(VL, WINO_MAX);
    UNROLL for (ix j = 0; j < n; j += size)
    {
        V *v = d + j;
        UNROLL for (ix k = 0; k < size; k++)
        {
#if VBYTES == 64 && REAL_BYTES == 4 /* the other half of the tiles is in the other half of the vectors */
            const __m256 below = _mm256_loadu_ps(row + begins[k]), above = _mm256_loadu_ps(row + begins[k + WINO_MAX]);
            v[k] = (V)_mm512_insertf32x8(_mm512_castps256_ps512(below), above, 1);
#else
            v[k] = LOAD(row + begins[k] + j);
#endif
        }
        NAME(turn_step)(v, size, 1);
        if (size > 2) NAME(turn_step)(v, size, 2);
        if (size > 4) NAME(turn_step)(v, size, 4);
    }
}

/* The other way: outputs of VL tiles, m a tile, one behind the other. */
INLINE void NAME(join_tiles)(REAL *row, const V *y, const ix m)
{
    if (m == 4) {
        V a0 = NAME(zip)(y[0], y[2], 0), a1 = NAME(zip)(y[0], y[2], 1), b0 = NAME(zip)(y[1], y[3], 0), b1 = NAME(zip)(y[1], y[3], 1);
        STORE(row, NAME(zip)(a0, b0, 0));
        STORE(row + VL, NAME(zip)(a0, b0, 1));
        STORE(row + 2 * VL, NAME(zip)(a1, b1, 0));
        STORE(row + 3 * VL, NAME(zip)(a1, b1, 1));
    } else if (m == 2) {
        STORE(row, NAME(zip)(y[0], y[1], 0));
        STORE(row + VL, NAME(zip)(y[0], y[1], 1));
    } else if (m == 6) {
        /* pairs of outputs first: element e of a half is half e % 2 of pair e / 2, and pair k is the (k % 3)-th of tile k / 3 */
        UNROLL for (ix half = 0; half < 2; half++)
        {
            V a = NAME(zip)(y[0], y[1], half), b = NAME(zip)(y[2], y[3], half), c = NAME(zip)(y[4], y[5], half);
            UNROLL for (ix q = 0; q < 3; q++)
            {
                M first, second;
                UNROLL for (int l = 0; l < (int)VL; l++)
                {
                    const int pair = (int)(q * VL + l) / 2, from = 2 * (pair / 3) + l % 2;
                    first[l] = (INT)(pair % 3 == 0 ? from : pair % 3 == 1 ? VL + from : l);
                    second[l] = (INT)(pair % 3 == 2 ? VL + from : l);
                }
                STORE(row + (half * 3 + q) * VL, NAME(shuffle)(NAME(shuffle)(a, b, first), c, second));
            }
        }
    } else
        UNROLL for (ix q = 0; q < m; q++)
        {
            V v = y[0];
            UNROLL for (ix j = 1; j < m; j++)
            {
                M mask;
                UNROLL for (int l = 0; l < (int)VL; l++) mask[l] = (INT)FC_JOIN_LANE(l, m, q, j);
                v = NAME(shuffle)(v, y[j], mask);
            }
            STORE(row + q * VL, v);
        }
}
