/* Register tiles: a function for every height and width, so that edges do not multiply by padding, and tables of them.
 *
 * EACH_TILE(F): F(r, n) for every tile of r rows by n vectors, in the order of the tables.
 */
#undef TILE_WIDTHS
#undef EACH_WIDTH
#undef EACH_TILE
#undef TILE_OF
#define TILE_OF(table, rows, nv) NAME(table)[((rows) - 1) * TILE_WIDTHS + (nv) - 1]
#if VBYTES >= 32
#define TILE_WIDTHS 3
#define EACH_WIDTH(F, r) F(r, 1) F(r, 2) F(r, 3)
#else
#define TILE_WIDTHS 6
#define EACH_WIDTH(F, r) F(r, 1) F(r, 2) F(r, 3) F(r, 4) F(r, 5) F(r, 6)
#endif
#if VBYTES == 64
#define EACH_TILE(F)                                                                                                                                \
    EACH_WIDTH(F, 1) EACH_WIDTH(F, 2) EACH_WIDTH(F, 3) EACH_WIDTH(F, 4) EACH_WIDTH(F, 5) EACH_WIDTH(F, 6) EACH_WIDTH(F, 7) EACH_WIDTH(F, 8)
#elif VBYTES == 32 || REAL_BYTES == 4
#define EACH_TILE(F) EACH_WIDTH(F, 1) EACH_WIDTH(F, 2) EACH_WIDTH(F, 3) EACH_WIDTH(F, 4)
#else
#define EACH_TILE(F) EACH_WIDTH(F, 1) EACH_WIDTH(F, 2)
#endif

/* The register tile: C[rows][nv*VL] (+)= A[kc][rows] * B[kc][nv*VL], from packed panels.
 *
 * A: element (i, k) at A[k*a_step + i]. B: nv streams of vectors, stream j at B + j*b_stream, vector k at + k*VL. C: row i at C + i*ldc, unaligned.
 * bias, if given, is added last (one value a row). The order of every element's sum is k = 0, 1, ... kc-1, then + C, then + bias, whatever the tile
 * an element falls into, so bits do not depend on blocking. Knows nothing of padding, edges or threads.
 */
INLINE void NAME(tile_body)(const ix rows, const ix nv, ix kc, const REAL *restrict A, ix a_step, const REAL *restrict B, ix b_stream, REAL *restrict C,
                            ix ldc, int accumulate, const REAL *bias, ix ahead)
{
    V c[MR][NV];
    if (accumulate) UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) FETCH_TO_WRITE(C + i * ldc + j * VL);
    UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] = (V){0};
    for (ix k = 0; k < kc; k++) {
        V b[NV];
        /* A streams from L2 or beyond while B stays: fetching the next panel's line now is worth up to 1.4x (CPU notes, 5.2). */
        __builtin_prefetch(A + ahead);
        UNROLL for (ix j = 0; j < nv; j++) b[j] = *(const V *)(B + j * b_stream);
        UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] += A[i] * b[j];
        A += a_step;
        B += VL;
    }
    UNROLL for (ix i = 0; i < rows; i++)
    {
        UNROLL for (ix j = 0; j < nv; j++)
        {
            V r = c[i][j];
            if (accumulate) r += LOAD(C + i * ldc + j * VL);
            if (bias) r += bias[i];
            STORE(C + i * ldc + j * VL, r);
        }
    }
}

typedef void (*NAME(tile_function))(ix kc, const REAL *A, ix a_step, const REAL *B, ix b_stream, REAL *C, ix ldc, int accumulate, const REAL *bias, ix ahead);

#define TILE(r, n)                                                                                                                                  \
    static __attribute__((noinline)) void NAME(tile_##r##x##n)(ix kc, const REAL *A, ix a_step, const REAL *B, ix b_stream, REAL *C, ix ldc,        \
                                                               int accumulate, const REAL *bias, ix ahead)                                          \
    {                                                                                                                                               \
        NAME(tile_body)(FC_MIN(r, MR), FC_MIN(n, NV), kc, A, a_step, B, b_stream, C, ldc, accumulate, bias, ahead);                                 \
    }
EACH_TILE(TILE)
#undef TILE
#define TILE(r, n) NAME(tile_##r##x##n),
static const NAME(tile_function) NAME(tiles)[] = {EACH_TILE(TILE)};
#undef TILE

INLINE void NAME(tile)(ix rows, ix nv, ix kc, const REAL *A, ix a_step, const REAL *B, ix b_stream, REAL *C, ix ldc, int accumulate, const REAL *bias,
                       ix ahead)
{
    TILE_OF(tiles, rows, nv)(kc, A, a_step, B, b_stream, C, ldc, accumulate, bias, ahead);
}

/* The tile of correlations, whose operands are read where they lie: A at any strides; B from a packed panel, or, `fresh`, from rows of an image, which are packed on
 * the way for the panels of A that follow: loads and stores find room beside the multiplications of the first, where a pass of their own costs a tenth of all time.
 *
 * A: element (i, k) at A[i*a_row + k*a_step]. B: nv vectors for every k, one behind the other. Fresh: they lie so at source + k*source_step.
 * C: row i at C + i*ldc, unaligned; `before`, if given, is added to the sum: what C, or another place with rows before_row apart, held. bias is added last.
 * stream: C is written past the caches; its lines are whole ones then. The order of every element's sum is that of the packed tile above.
 */
typedef struct {
    const REAL *A;
    ix a_row, a_step;
    const char *fetch; /* fetched early, a line for every k, fetch_step bytes apart: A of the next panel */
    ix fetch_step;
    REAL *B;
    const REAL *source;
    ix source_step, ahead; /* fresh: what lies so many elements further is fetched early */
    const REAL *next;      /* else: a line for every k, next_step elements apart */
    ix next_step;
    const REAL *before;
    ix before_row;
    REAL *C;
    ix ldc;
    const REAL *bias;
    int stream;
} NAME(sweep_of);

INLINE void NAME(sweep_body)(const ix rows, const ix nv, const int fresh, ix kc, const NAME(sweep_of) *t)
{
    V c[MR][NV];
    const REAL *a[(MR + 2) / 3]; /* a pointer for three rows: one for each would be more than there are registers */
    const ix a_row = t->a_row, a_step = t->a_step, fetch_step = t->fetch_step, step = fresh ? t->source_step : t->next_step, ahead = t->ahead;
    const char *fetch = t->fetch;
    const REAL *x = fresh ? t->source : t->next;
    REAL *B = t->B;
    UNROLL for (ix i = 0; i < rows; i += 3) a[i / 3] = t->A + i * a_row;
    if (!t->stream && !fresh) UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) FETCH_TO_WRITE(t->C + i * t->ldc + j * VL);
    UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] = (V){0};
    for (; kc > 0; kc--) {
        V b[NV];
        __builtin_prefetch(fetch);
        fetch += fetch_step;
        if (fresh) {
            UNROLL for (ix j = 0; j < nv; j++) b[j] = LOAD(x + j * VL);
            UNROLL for (ix j = 0; j < nv; j++) __builtin_prefetch(x + ahead + j * VL, 0, 2);
            UNROLL for (ix j = 0; j < nv; j++) *(V *)(B + j * VL) = b[j];
        } else {
            __builtin_prefetch(x, 0, 2);
            UNROLL for (ix j = 0; j < nv; j++) b[j] = *(const V *)(B + j * VL);
        }
        x += step;
        UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] += a[i / 3][i % 3 * a_row] * b[j];
        UNROLL for (ix i = 0; i < rows; i += 3) a[i / 3] += a_step;
        B += nv * VL;
    }
    const REAL *before = t->before, *bias = t->bias;
    REAL *C = t->C;
    const ix before_row = t->before_row, ldc = t->ldc;
    if (before) UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] += LOAD(before + i * before_row + j * VL);
    if (bias) UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] += bias[i];
    if (t->stream) UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) STREAM(C + i * ldc + j * VL, c[i][j]);
    else UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) STORE(C + i * ldc + j * VL, c[i][j]);
}

typedef void (*NAME(sweep_function))(ix kc, const NAME(sweep_of) *t);

#define SWEEP(r, n)                                                                                                                                 \
    static __attribute__((noinline)) void NAME(sweep_##r##x##n)(ix kc, const NAME(sweep_of) *t) { NAME(sweep_body)(FC_MIN(r, MR), FC_MIN(n, NV), 0, kc, t); }
#define FRESH(r, n)                                                                                                                                 \
    static __attribute__((noinline)) void NAME(fresh_##n)(ix kc, const NAME(sweep_of) *t) { NAME(sweep_body)(MR, FC_MIN(n, NV), 1, kc, t); }
EACH_TILE(SWEEP)
EACH_WIDTH(FRESH, MR)
#undef SWEEP
#undef FRESH
#define SWEEP(r, n) NAME(sweep_##r##x##n),
#define FRESH(r, n) NAME(fresh_##n),
static const NAME(sweep_function) NAME(sweeps)[] = {EACH_TILE(SWEEP)}, NAME(freshes)[] = {EACH_WIDTH(FRESH, MR)};
#undef SWEEP
#undef FRESH

/* A whole sum of `count` products in pieces of kc, which are added up in order. fresh: only for MR rows. */
static void NAME(sweep)(ix rows, ix nv, int fresh, ix count, ix kc, const NAME(sweep_of) *whole)
{
    const NAME(sweep_function) piece = fresh ? NAME(freshes)[nv - 1] : TILE_OF(sweeps, rows, nv);
    if (count <= kc) {
        piece(count, whole);
        return;
    }
    REAL sum[MR * NV * VL] __attribute__((aligned(64)));
    NAME(sweep_of) t = *whole;
    t.C = sum, t.ldc = NV * VL, t.bias = NULL, t.stream = 0;
    for (; count > kc; count -= kc) {
        piece(kc, &t);
        t.A += kc * t.a_step;
        t.fetch += kc * t.fetch_step;
        t.B += kc * nv * VL;
        t.source += kc * t.source_step;
        t.next += kc * t.next_step;
        t.before = sum, t.before_row = NV * VL;
    }
    t.C = whole->C, t.ldc = whole->ldc, t.bias = whole->bias, t.stream = whole->stream;
    piece(count, &t);
}

/* The same over pixels as the index of the sum: C[rows][nv*VL] (+)= sum over stretches s, pixels p < s.len of A[rows][s.a + p] * B[s.b + p][nv*VL].
 *
 * A: row i at A + i*a_row, as images lie. B: vector j of pixel q at B + at[j] + q*VL; streams may overlap, as those of neighbouring taps do.
 * The order of every element's sum is that of the pixels, then + C. early: for every pixel, a line that is fetched meanwhile.
 */
INLINE void NAME(stretch_body)(const ix rows, const ix nv, const fc_stretch *stretch, ix count, const REAL *restrict A, ix a_row, const REAL *restrict B,
                               const ix *restrict at, REAL *restrict C, ix ldc, int accumulate, const char *const *early)
{
    V c[MR][NV];
    if (accumulate) UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) FETCH_TO_WRITE(C + i * ldc + j * VL);
    UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] = (V){0};
    for (ix s = 0; s < count; s++) {
        const REAL *x[NV], *a[(MR + 2) / 3]; /* a pointer for three rows: one for each would be more than there are registers */
        UNROLL for (ix j = 0; j < nv; j++) x[j] = B + at[j] + stretch[s].b * VL;
        UNROLL for (ix i = 0; i < rows; i += 3) a[i / 3] = A + stretch[s].a + i * a_row;
        for (ix p = 0, end = stretch[s].len * VL; p < end; p += VL) {
            V b[NV];
            __builtin_prefetch(*early++, 0, 2);
            UNROLL for (ix j = 0; j < nv; j++) b[j] = *(const V *)(x[j] + p);
            UNROLL for (ix i = 0; i < rows; i++) UNROLL for (ix j = 0; j < nv; j++) c[i][j] += a[i / 3][i % 3 * a_row] * b[j];
            UNROLL for (ix i = 0; i < rows; i += 3) a[i / 3]++;
        }
    }
    UNROLL for (ix i = 0; i < rows; i++)
    {
        UNROLL for (ix j = 0; j < nv; j++)
        {
            V r = c[i][j];
            if (accumulate) r += LOAD(C + i * ldc + j * VL);
            STORE(C + i * ldc + j * VL, r);
        }
    }
}

typedef void (*NAME(stretch_function))(const fc_stretch *stretch, ix count, const REAL *A, ix a_row, const REAL *B, const ix *at, REAL *C, ix ldc,
                                       int accumulate, const char *const *early);

#define STRETCH(r, n)                                                                                                                               \
    static __attribute__((noinline)) void NAME(stretch_##r##x##n)(const fc_stretch *stretch, ix count, const REAL *A, ix a_row, const REAL *B,      \
                                                                  const ix *at, REAL *C, ix ldc, int accumulate, const char *const *early)          \
    {                                                                                                                                               \
        NAME(stretch_body)(FC_MIN(r, MR), FC_MIN(n, NV), stretch, count, A, a_row, B, at, C, ldc, accumulate, early);                               \
    }
EACH_TILE(STRETCH)
#undef STRETCH
#define STRETCH(r, n) NAME(stretch_##r##x##n),
static const NAME(stretch_function) NAME(stretches)[] = {EACH_TILE(STRETCH)};
#undef STRETCH

INLINE void NAME(stretch)(ix rows, ix nv, const fc_stretch *stretch, ix count, const REAL *A, ix a_row, const REAL *B, const ix *at, REAL *C, ix ldc,
                          int accumulate, const char *const *early)
{
    TILE_OF(stretches, rows, nv)(stretch, count, A, a_row, B, at, C, ldc, accumulate, early);
}

/* Width of the next tile when `left` vectors remain: full tiles, but never a last one of a single vector after a full one (4 = 2 + 2 at NV = 3), since a
 * narrow tile is bound by its broadcasts. */
INLINE ix NAME(tile_width)(ix left)
{
    if (left <= NV) return left;
    return left == NV + 1 ? (NV + 1) / 2 : NV;
}

/* The shape of the tile, for drivers. */
static inline ix NAME(tile_rows)(void) { return MR; }
static inline ix NAME(tile_vectors)(void) { return NV; }
static inline ix NAME(lanes)(void) { return VL; }
