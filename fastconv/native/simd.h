/* Vector types and the few operations that GCC/Clang vector extensions do not spell.
 *
 * Included once per element type: REAL is float or double, NAME(x) appends _f32 or _f64. After it:
 *   V           VL lanes of REAL, naturally aligned, for registers and packed scratch
 *   M           the integer vector that comparisons of V yield (all ones = true)
 *   LOAD/STORE  unaligned, any address that is aligned for REAL
 *   READ        LOAD, from arrays as they lie in memory, where results are written in step with it
 *   LOADN       the first n lanes (0 <= n <= VL), zeros elsewhere; touches no memory past them
 *   STOREN      the first n lanes
 *   SELECT      mask ? a : b by lane
 *   LESSER      a < b ? a : b by lane, and GREATER a > b ? a : b: one instruction where SELECT takes two. Where one of them is NaN, they are b.
 *   FMA         a * b + c, rounded once where the processor can. The compiler contracts the written-out form too, but decides for every copy of a
 *               loop anew; sums that must have the same bits in several copies (tiles of other heights, tails) are written with FMA
 * The width is fixed by the ISA level that the file is compiled for.
 */
#ifndef FC_SIMD_COMMON
#define FC_SIMD_COMMON
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef ptrdiff_t ix;

#if defined(__AVX512F__)
#define VBYTES 64
#elif defined(__AVX__)
#define VBYTES 32
#else
#define VBYTES 16
#endif

/* Fetch a line that is about to be written. GCC knows it as an instruction of its own only where the processor is named. */
#if defined(__AVX2__)
#define FETCH_TO_WRITE(p) __asm__ volatile("prefetchw %0" : : "m"(*(const char *)(p)))
#else
#define FETCH_TO_WRITE(p) __builtin_prefetch((p), 1)
#endif

#define INLINE static inline __attribute__((always_inline))
#define WHOLE_LINES __attribute__((aligned(64))) /* of a buffer on the stack that is stored to and soon read again */
#define UNROLL _Pragma("GCC unroll 64")
#define ROLLED _Pragma("GCC unroll 1") /* of a loop whose body fills the registers: unrolled it would spill them */
#define FC_PASTE_(a, b) a##b
#define FC_PASTE(a, b) FC_PASTE_(a, b)
#define FC_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FC_MAX(a, b) ((a) > (b) ? (a) : (b))

/* The register tile, MR rows by NV vectors, so that MR*NV accumulators + NV loads + 1 broadcast fit:
 * 24+3+1 of 32 registers with AVX-512 or NEON, 12+3+1 of 16 with AVX2, 8+2+1 of 16 (and a product) with SSE2.
 * MR divides VL, which the transposed packing relies on. */
#if VBYTES == 64
#define MR_f32 8
#define MR_f64 8
#define NV_f32 3
#define NV_f64 3
#elif VBYTES == 32
#define MR_f32 4
#define MR_f64 4
#define NV_f32 3
#define NV_f64 3
#elif defined(__aarch64__)
#define MR_f32 4
#define MR_f64 2
#define NV_f32 6
#define NV_f64 6
#else
#define MR_f32 4
#define MR_f64 2
#define NV_f32 2
#define NV_f64 4
#endif
#endif

#undef VL
#undef V
#undef UV
#undef M
#undef LOAD
#undef STORE
#undef READ
#undef LOADN
#undef STOREN
#undef SELECT
#undef LESSER
#undef GREATER
#undef FMA
#undef STREAM
#undef MR
#undef NV
#undef MR_BYTES
#undef SPLAT
#undef INT

#define VL ((ix)(VBYTES / sizeof(REAL)))
#define V NAME(vec)
#define UV NAME(uvec)
#define M NAME(ivec)
#define INT NAME(int_like)
#define MR FC_PASTE(MR, SUFFIX)
#define NV FC_PASTE(NV, SUFFIX)
#define MR_BYTES (MR * REAL_BYTES)

#if REAL_BYTES == 4
typedef int32_t INT;
#else
typedef int64_t INT;
#endif
typedef REAL V __attribute__((vector_size(VBYTES)));
typedef REAL UV __attribute__((vector_size(VBYTES), aligned(REAL_BYTES), may_alias));
typedef INT M __attribute__((vector_size(VBYTES)));

#define LOAD(p) ((V)(*(const UV *)(p)))
#define STORE(p, v) (*(UV *)(p) = (v))
#define READ(p) NAME(read)(p)
#define SPLAT(s) ((V){0} + (REAL)(s))
#define LOADN(p, n) NAME(load_first)((p), (n))
#define STOREN(p, v, n) NAME(store_first)((p), (v), (n))
#define SELECT(m, a, b) ((V)(((M)(a) & (m)) | ((M)(b) & ~(m))))
#define LESSER(a, b) NAME(lesser)((a), (b))
#define GREATER(a, b) NAME(greater)((a), (b))
#define FMA(a, b, c) NAME(multiply_add)((a), (b), (c))
#define STREAM(p, v) NAME(stream)((p), (v))

/* By halves where vectors are as long as lines. Arrays of any library tend to begin at the same place of a page, a little behind its start. Where a vector that lies
 * across two lines is read just before that place of another page was written, a processor takes the one for the other and waits: sums of two arrays of a
 * megabyte take 1.4 times as long. Halves do not wait. */
#if VBYTES == 64 && REAL_BYTES == 4
INLINE V NAME(read)(const REAL *p) { return (V)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(p)), _mm256_loadu_ps(p + 8), 1); }
#elif VBYTES == 64
INLINE V NAME(read)(const REAL *p) { return (V)_mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd(p)), _mm256_loadu_pd(p + 4), 1); }
#else
INLINE V NAME(read)(const REAL *p) { return LOAD(p); }
#endif

#if VBYTES == 64 && REAL_BYTES == 4
INLINE V NAME(lesser)(V a, V b) { return (V)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE V NAME(greater)(V a, V b) { return (V)_mm512_max_ps((__m512)a, (__m512)b); }
#elif VBYTES == 64
INLINE V NAME(lesser)(V a, V b) { return (V)_mm512_min_pd((__m512d)a, (__m512d)b); }
INLINE V NAME(greater)(V a, V b) { return (V)_mm512_max_pd((__m512d)a, (__m512d)b); }
#elif VBYTES == 32 && REAL_BYTES == 4
INLINE V NAME(lesser)(V a, V b) { return (V)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE V NAME(greater)(V a, V b) { return (V)_mm256_max_ps((__m256)a, (__m256)b); }
#elif VBYTES == 32
INLINE V NAME(lesser)(V a, V b) { return (V)_mm256_min_pd((__m256d)a, (__m256d)b); }
INLINE V NAME(greater)(V a, V b) { return (V)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif defined(__SSE2__) && REAL_BYTES == 4
INLINE V NAME(lesser)(V a, V b) { return (V)_mm_min_ps((__m128)a, (__m128)b); }
INLINE V NAME(greater)(V a, V b) { return (V)_mm_max_ps((__m128)a, (__m128)b); }
#elif defined(__SSE2__)
INLINE V NAME(lesser)(V a, V b) { return (V)_mm_min_pd((__m128d)a, (__m128d)b); }
INLINE V NAME(greater)(V a, V b) { return (V)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
INLINE V NAME(lesser)(V a, V b) { return SELECT(a < b, a, b); }
INLINE V NAME(greater)(V a, V b) { return SELECT(a > b, a, b); }
#endif

#if VBYTES == 64 && REAL_BYTES == 4
INLINE V NAME(load_first)(const REAL *p, ix n) { return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void NAME(store_first)(REAL *p, V v, ix n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v); }
#elif VBYTES == 64
INLINE V NAME(load_first)(const REAL *p, ix n) { return (V)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p); }
INLINE void NAME(store_first)(REAL *p, V v, ix n) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v); }
#elif defined(__AVX2__)
INLINE __m256i NAME(first_mask)(ix n)
{
#if REAL_BYTES == 4
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#else
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
#endif
}
#if REAL_BYTES == 4
INLINE V NAME(load_first)(const REAL *p, ix n) { return (V)_mm256_maskload_ps(p, NAME(first_mask)(n)); }
INLINE void NAME(store_first)(REAL *p, V v, ix n) { _mm256_maskstore_ps(p, NAME(first_mask)(n), (__m256)v); }
#else
INLINE V NAME(load_first)(const REAL *p, ix n) { return (V)_mm256_maskload_pd(p, NAME(first_mask)(n)); }
INLINE void NAME(store_first)(REAL *p, V v, ix n) { _mm256_maskstore_pd(p, NAME(first_mask)(n), (__m256d)v); }
#endif
#else
INLINE V NAME(load_first)(const REAL *p, ix n)
{
    V v = {0};
    for (ix i = 0; i < n; i++) v[i] = p[i];
    return v;
}
INLINE void NAME(store_first)(REAL *p, V v, ix n)
{
    for (ix i = 0; i < n; i++) p[i] = v[i];
}
#endif

/* Lanes low <= l < high (bounds may lie beyond the vector on either side), zeros elsewhere; touches no memory outside them. Where the processor masks loads, which
 * lanes can be found out once (`between`) for many loads (`load_lanes`). */
#undef MASKED_LOADS
#if VBYTES == 64 && REAL_BYTES == 4
#define MASKED_LOADS 1
typedef __mmask16 NAME(lanes_of);
INLINE NAME(lanes_of) NAME(between)(ix low, ix high)
{
    uint32_t below = low <= 0 ? 0 : low >= 16 ? 0xFFFF : (1u << low) - 1, upto = high <= 0 ? 0 : high >= 16 ? 0xFFFF : (1u << high) - 1;
    return (__mmask16)(upto & ~below);
}
INLINE V NAME(load_lanes)(const REAL *p, NAME(lanes_of) lanes) { return (V)_mm512_maskz_loadu_ps(lanes, p); }
#elif VBYTES == 32 && REAL_BYTES == 4 && defined(__AVX2__)
#define MASKED_LOADS 1
typedef __m256i NAME(lanes_of);
INLINE NAME(lanes_of) NAME(between)(ix low, ix high)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)low), lane), _mm256_cmpgt_epi32(lane, _mm256_set1_epi32((int)high - 1)));
    return _mm256_andnot_si256(outside, _mm256_set1_epi32(-1));
}
INLINE V NAME(load_lanes)(const REAL *p, NAME(lanes_of) lanes) { return (V)_mm256_maskload_ps(p, lanes); }
#else
#define MASKED_LOADS 0
#endif
INLINE V NAME(load_between)(const REAL *p, ix low, ix high)
{
#if MASKED_LOADS
    return NAME(load_lanes)(p, NAME(between)(low, high));
#else
    V v = {0};
    for (ix i = 0; i < VL; i++)
        if (i >= low && i < high) v[i] = p[i];
    return v;
#endif
}

/* A whole vector past the caches, to an address of its own alignment */
INLINE void NAME(stream)(REAL *p, V v)
{
#if VBYTES == 64
    _mm512_stream_si512((void *)p, (__m512i)v);
#elif VBYTES == 32
    _mm256_stream_si256((void *)p, (__m256i)v);
#elif defined(__SSE2__)
    _mm_stream_si128((void *)p, (__m128i)v);
#else
    STORE(p, v);
#endif
}

#if VBYTES == 64 && REAL_BYTES == 4
INLINE V NAME(multiply_add)(V a, V b, V c) { return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
#elif VBYTES == 64
INLINE V NAME(multiply_add)(V a, V b, V c) { return (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c); }
#elif VBYTES == 32 && defined(__FMA__) && REAL_BYTES == 4
INLINE V NAME(multiply_add)(V a, V b, V c) { return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#elif VBYTES == 32 && defined(__FMA__)
INLINE V NAME(multiply_add)(V a, V b, V c) { return (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c); }
#elif defined(__aarch64__) && REAL_BYTES == 4
INLINE V NAME(multiply_add)(V a, V b, V c) { return (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#elif defined(__aarch64__)
INLINE V NAME(multiply_add)(V a, V b, V c) { return (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
#else
INLINE V NAME(multiply_add)(V a, V b, V c) { return a * b + c; }
#endif
