/* Products C[m][n] (+)= A[m][k] B[k][n] whose operands are read where they lie: few rows, or a B that a cache holds, do not repay packing.
 *
 * Lanes run along the rows of B and C; A is read one element at a time, at any strides. The order of every element's sum is that of the packed tile (gemm.h):
 * k = 0, 1, ... kc-1 from zero, then + C. So which of the two computes a product leaves no trace in its bits. The tile is that of dot.h.
 */
INLINE void NAME(thin_body)(const ix rows, const int whole, ix kc, const REAL *A, ix a_row, ix a_step, const REAL *B, ix ldb, REAL *C, ix ldc, ix columns,
                            int accumulate, int stream)
{
    V c[DOT_M][DOT_N], b[DOT_N];
    ix n[DOT_N];
    UNROLL for (ix j = 0; j < DOT_N; j++) n[j] = FC_MAX(FC_MIN(columns - j * VL, VL), 0);
    UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < DOT_N; j++) c[i][j] = (V){0};
    for (ix k = 0; k < kc; k++) {
        /* rows of B may lie pages apart, where nothing else fetches early */
        UNROLL for (ix j = 0; j < DOT_N; j++) __builtin_prefetch(B + 8 * ldb + j * VL);
        UNROLL for (ix j = 0; j < DOT_N; j++) b[j] = whole ? LOAD(B + j * VL) : LOADN(B + j * VL, n[j]);
        UNROLL for (ix i = 0; i < rows; i++)
        {
            V a = SPLAT(A[i * a_row]);
            UNROLL for (ix j = 0; j < DOT_N; j++) c[i][j] = FMA(a, b[j], c[i][j]);
        }
        A += a_step;
        B += ldb;
    }
    UNROLL for (ix i = 0; i < rows; i++)
    {
        UNROLL for (ix j = 0; j < DOT_N; j++)
        {
            REAL *p = C + i * ldc + j * VL;
            V r = c[i][j];
            if (whole && stream) {
                STREAM(p, r);
                continue;
            }
            if (accumulate) r += whole ? LOAD(p) : LOADN(p, n[j]);
            if (whole) STORE(p, r);
            else STOREN(p, r, n[j]);
        }
    }
}

#define THIN(rows)                                                                                                                                     \
    static __attribute__((noinline)) void NAME(thin_##rows)(ix kc, const REAL *A, ix a_row, ix a_step, const REAL *B, ix ldb, REAL *C, ix ldc, ix columns, \
                                                            int accumulate, int stream)                                                                 \
    {                                                                                                                                                  \
        const ix m = FC_MIN(rows, DOT_M);                                                                                                              \
        if (columns >= DOT_N * VL) NAME(thin_body)(m, 1, kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream);                           \
        else NAME(thin_body)(m, 0, kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream);                                                 \
    }
THIN(1) THIN(2) THIN(3) THIN(4)
#if DOT_M > 4
THIN(5) THIN(6)
#endif
#undef THIN

/* One tile of up to DOT_M rows and DOT_N vectors. stream: past the caches; the lines of C are then aligned, and nothing is accumulated. */
static void NAME(thin)(ix rows, ix kc, const REAL *A, ix a_row, ix a_step, const REAL *B, ix ldb, REAL *C, ix ldc, ix columns, int accumulate, int stream)
{
    switch (rows) {
    case 1: NAME(thin_1)(kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream); break;
    case 2: NAME(thin_2)(kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream); break;
    case 3: NAME(thin_3)(kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream); break;
#if DOT_M > 4
    case 4: NAME(thin_4)(kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream); break;
    case 5: NAME(thin_5)(kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream); break;
    default: NAME(thin_6)(kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream);
#else
    default: NAME(thin_4)(kc, A, a_row, a_step, B, ldb, C, ldc, columns, accumulate, stream);
#endif
    }
}

static inline ix NAME(thin_rows)(void) { return DOT_M; }
static inline ix NAME(thin_columns)(void) { return DOT_N * VL; }
