/* Rows of a map as rows of tiles, m columns apart: taken apart, so that lanes are tiles, and joined again. `m` is a constant wherever these are used. */

/* Masks of two-vector shuffles. SPLIT(m, q): from a running pick and the q-th vector behind it, lane l takes element l*m - q*VL where that lies in the q-th
 * vector. JOIN(m, q, j): lane l of the q-th result is output (q*VL + l) % m of tile (q*VL + l) / m; it is taken when the j-th output's turn comes. */
#ifndef FC_SPLIT_LANE
#define FC_SPLIT_LANE(l, m, q) ((l) * (m) / VL == (q) ? VL + (l) * (m) % VL : (q) == 1 && (l) * (m) < VL ? (l) * (m) : (l))
#define FC_JOIN_LANE(l, m, q, j) (((q) * VL + (l)) % (m) == (j) ? VL + ((q) * VL + (l)) / (m) : (j) == 1 && ((q) * VL + (l)) % (m) == 0 ? ((q) * VL + (l)) / (m) : (l))
#endif

/* Where the columns of a row come from: row[j] for low <= j < high, zeros elsewhere, which is not touched in memory. */
INLINE V NAME(columns)(const REAL *row, ix j, ix low, ix high, const int whole)
{
    return whole ? LOAD(row + j) : NAME(load_between)(row + j, low - j, high - j);
}

/* Lane l of the result: row[j + l*m]. */
INLINE V NAME(pick_every)(const REAL *row, ix j, ix low, ix high, const ix m, const int whole)
{
    V v = NAME(columns)(row, j, low, high, whole);
    UNROLL for (ix q = 1; q < m; q++)
    {
        M mask;
        UNROLL for (int l = 0; l < (int)VL; l++) mask[l] = (INT)FC_SPLIT_LANE(l, m, q);
        v = NAME(shuffle)(v, NAME(columns)(row, j + q * VL, low, high, whole), mask);
    }
    return v;
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

/* The next tile's d: every lane has its neighbour's value, the last one row[j]. */
INLINE V NAME(pick_next)(V d, const REAL *row, ix j, ix low, ix high, const int whole)
{
    M mask;
    UNROLL for (int l = 0; l < (int)VL; l++) mask[l] = (INT)(l + 1);
    return NAME(shuffle)(d, SPLAT(whole || (j >= low && j < high) ? row[j] : 0), mask);
}

/* The inputs i = 0..n-1 of VL tiles: d[i] = row[j + lane*m + i]. With `whole`, m*VL + FC_MAX(m - 1, n - m) columns from j on are read. */
INLINE void NAME(split_tiles)(const REAL *row, ix j, ix low, ix high, V *d, const ix m, const ix n, const int whole)
{
    if (m == 4) {
        V a = NAME(columns)(row, j, low, high, whole), b = NAME(columns)(row, j + VL, low, high, whole);
        V c = NAME(columns)(row, j + 2 * VL, low, high, whole), e = NAME(columns)(row, j + 3 * VL, low, high, whole);
        V even0 = NAME(every_other)(a, b, 0), even1 = NAME(every_other)(c, e, 0);
        V odd0 = NAME(every_other)(a, b, 1), odd1 = NAME(every_other)(c, e, 1);
        d[0] = NAME(every_other)(even0, even1, 0);
        d[1] = NAME(every_other)(odd0, odd1, 0);
        d[2] = NAME(every_other)(even0, even1, 1);
        d[3] = NAME(every_other)(odd0, odd1, 1);
    } else if (m == 6) {
        V even[3], odd[3];
        UNROLL for (ix q = 0; q < 3; q++)
        {
            V a = NAME(columns)(row, j + 2 * q * VL, low, high, whole), b = NAME(columns)(row, j + (2 * q + 1) * VL, low, high, whole);
            even[q] = NAME(every_other)(a, b, 0);
            odd[q] = NAME(every_other)(a, b, 1);
        }
        UNROLL for (ix i = 0; i < 3; i++)
        {
            d[2 * i] = NAME(pick_third)(even, i);
            d[2 * i + 1] = NAME(pick_third)(odd, i);
        }
    } else if (m == 2) {
        V a = NAME(columns)(row, j, low, high, whole), b = NAME(columns)(row, j + VL, low, high, whole);
        d[0] = NAME(every_other)(a, b, 0);
        d[1] = NAME(every_other)(a, b, 1);
    } else
        UNROLL for (ix i = 0; i < m; i++) d[i] = NAME(pick_every)(row, j + i, low, high, m, whole);
    UNROLL for (ix i = m; i < n; i++) d[i] = NAME(pick_next)(d[i - m], row, j + m * VL + i - m, low, high, whole);
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
