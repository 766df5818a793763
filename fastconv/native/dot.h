/* Products of rows with rows, C[i][j] (+)= sum over k of A[i][k] * B[j][k], both contiguous along k: the fully connected layer as its arrays lie.
 *
 * Lanes are k, so nothing is packed or transposed, and a single sample is bound by reading the weights once. Every element is summed in the same way whatever tile
 * it falls into: VL partial sums, k modulo VL, added by a fixed tree.
 *
 * The tile: DOT_M rows of A by DOT_N rows of B, so that the accumulators and DOT_N + 1 operands fit: 24 + 5 of 32 registers, 12 + 4 of 16, 8 + 3 of 16 without FMA.
 */
#undef DOT_M
#undef DOT_N
#if VBYTES == 64 || defined(__aarch64__)
#define DOT_M 6
#define DOT_N 4
#elif VBYTES == 32
#define DOT_M 4
#define DOT_N 3
#else
#define DOT_M 4
#define DOT_N 2
#endif

/* The sums of the lanes of four vectors, in lanes 0 to 3: halves are added and interleaved, twice over, then what belongs together is folded. The tree of one
 * vector's sum does not depend on the others. */
INLINE V NAME(add_lanes_of_4)(V a, V b, V c, V d)
{
#if VBYTES / REAL_BYTES == 2
    return (V){a[0] + a[1], b[0] + b[1]};
#else
    V ac = NAME(zip)(a, c, 0) + NAME(zip)(a, c, 1), bd = NAME(zip)(b, d, 0) + NAME(zip)(b, d, 1);
    V v = NAME(zip)(ac, bd, 0) + NAME(zip)(ac, bd, 1);
    UNROLL for (INT step = (INT)VL / 2; step >= 4; step /= 2) v += NAME(shuffle)(v, v, (NAME(lane_numbers)() + step) & ((INT)VL - 1));
    return v;
#endif
}

INLINE void NAME(dot_body)(const ix m, const ix n, ix count, const REAL *A, ix lda, const REAL *B, ix ldb, REAL *C, ix ldc, int accumulate)
{
    V c[DOT_M][DOT_N], b[DOT_N];
    UNROLL for (ix i = 0; i < m; i++) UNROLL for (ix j = 0; j < n; j++) c[i][j] = (V){0};
    ix k = 0;
    for (; k + VL <= count; k += VL) {
        UNROLL for (ix j = 0; j < n; j++)
        {
            b[j] = LOAD(B + j * ldb + k);
        }
        UNROLL for (ix i = 0; i < m; i++)
        {
            V a = LOAD(A + i * lda + k);
            UNROLL for (ix j = 0; j < n; j++) c[i][j] = FMA(a, b[j], c[i][j]);
        }
    }
    if (k < count) {
        UNROLL for (ix j = 0; j < n; j++) b[j] = LOADN(B + j * ldb + k, count - k);
        UNROLL for (ix i = 0; i < m; i++)
        {
            V a = LOADN(A + i * lda + k, count - k);
            UNROLL for (ix j = 0; j < n; j++) c[i][j] = FMA(a, b[j], c[i][j]);
        }
    }
    UNROLL for (ix i = 0; i < m; i++)
    {
        const V none = {0};
        V sum = NAME(add_lanes_of_4)(c[i][0], n > 1 ? c[i][1 % DOT_N] : none, n > 2 ? c[i][2 % DOT_N] : none, n > 3 ? c[i][3 % DOT_N] : none);
        if (accumulate) sum += LOADN(C + i * ldc, n);
        STOREN(C + i * ldc, sum, n);
    }
}

#define DOT_ROWS(rows)                                                                                                                              \
    static __attribute__((noinline)) void NAME(dot_##rows)(ix n, ix count, const REAL *A, ix lda, const REAL *B, ix ldb, REAL *C, ix ldc, int accumulate) \
    {                                                                                                                                               \
        const ix m = FC_MIN(rows, DOT_M);                                                                                                           \
        switch (n) {                                                                                                                                \
        case 1: NAME(dot_body)(m, 1, count, A, lda, B, ldb, C, ldc, accumulate); break;                                                              \
        case 2: NAME(dot_body)(m, 2, count, A, lda, B, ldb, C, ldc, accumulate); break;                                                              \
        case 3: NAME(dot_body)(m, FC_MIN(3, DOT_N), count, A, lda, B, ldb, C, ldc, accumulate); break;                                               \
        default: NAME(dot_body)(m, DOT_N, count, A, lda, B, ldb, C, ldc, accumulate);                                                                \
        }                                                                                                                                           \
    }
DOT_ROWS(1) DOT_ROWS(2) DOT_ROWS(3) DOT_ROWS(4)
#if DOT_M > 4
DOT_ROWS(5) DOT_ROWS(6)
#endif
#undef DOT_ROWS

/* All rows of A with all rows of B, tile by tile. */
static void NAME(dot_rows)(ix m, ix n, ix count, const REAL *A, ix lda, const REAL *B, ix ldb, REAL *C, ix ldc, int accumulate)
{
    for (ix i = 0; i < m; i += DOT_M)
        for (ix j = 0; j < n; j += DOT_N) {
            ix rows = FC_MIN(DOT_M, m - i), columns = FC_MIN(DOT_N, n - j);
            const REAL *a = A + i * lda, *b = B + j * ldb;
            REAL *c = C + i * ldc + j;
            switch (rows) {
            case 1: NAME(dot_1)(columns, count, a, lda, b, ldb, c, ldc, accumulate); break;
            case 2: NAME(dot_2)(columns, count, a, lda, b, ldb, c, ldc, accumulate); break;
            case 3: NAME(dot_3)(columns, count, a, lda, b, ldb, c, ldc, accumulate); break;
            case 4: NAME(dot_4)(columns, count, a, lda, b, ldb, c, ldc, accumulate); break;
#if DOT_M > 4
            case 5: NAME(dot_5)(columns, count, a, lda, b, ldb, c, ldc, accumulate); break;
            default: NAME(dot_6)(columns, count, a, lda, b, ldb, c, ldc, accumulate);
#endif
            }
        }
}
