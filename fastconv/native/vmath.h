/* Elementary functions on vectors: exp, expm1, tanh, logistic, log, log1p. Included once per element type, after simd.h.
 *
 * Contract: every lane is computed by the same operations in the same order whatever its neighbours hold, so a value's bits
 * do not depend on its place in an array. No tables, no branches, no calls, no floating-point flags or modes relied upon
 * beyond round-to-nearest; subnormal results are produced, not flushed. NaN goes to NaN.
 *
 * Method: exp by Cody and Waite's two-part reduction x = n ln2 + r (Software Manual for the Elementary Functions, 1980),
 * then a minimax polynomial on |r| <= ln2/2; log by x = 2^e m, m in [sqrt(1/2), sqrt(2)), and the series of
 * log(1+f) = f - f^2/2 + s (f^2/2 + s^2 P(s^2)), s = f/(2+f), a rearrangement of 2 artanh(s) that keeps the large term exact;
 * tanh near zero by Lambert's continued fraction, cut where its error is below the rounding. The polynomial coefficients
 * come from a Remez exchange in 60 digits; the fit errors stand at the coefficients, relative to the result, in units of
 * half an ulp of 1.
 *
 * Largest error seen, in ulp, over 138 million floats of all sizes and 8 million doubles, with or without FMA, against the
 * system's double and long double functions (tests/test_cpu_ops.py repeats it on a smaller scale):
 *              exp        expm1      tanh       sigmoid    log        log1p
 *   float      1.02       0.95       1.17       2.34       0.83       0.90
 *   double     1.01       1.16       1.17       2.31       0.84       0.88
 */

#undef VM_BITS
#undef VM_BIAS
#undef VM_MAGIC
#undef VM_SIGN
#undef UINT
#if REAL_BYTES == 4
#define VM_BITS 23                       /* stored mantissa bits */
#define VM_BIAS 127
#define VM_MAGIC 0x1.8p23f               /* adding it rounds to an integer and leaves that integer in the low bits */
#define VM_SIGN INT32_MIN
#define UINT uint32_t
#else
#define VM_BITS 52
#define VM_BIAS 1023
#define VM_MAGIC 0x1.8p52
#define VM_SIGN INT64_MIN
#define UINT uint64_t
#endif

/* Integers are unsigned here: what becomes of the bits of a NaN does not matter, but it must not overflow. */
typedef UINT NAME(bits) __attribute__((vector_size(VBYTES)));

/* r in [-ln2/2, ln2/2] and the integer n (as bits and as a number) with x = n ln2 + r. |x| must stay below 2^10. */
INLINE V NAME(vreduce)(V x, NAME(bits) *n, V *number)
{
    const V magic = SPLAT(VM_MAGIC);
    V shifted = x * (REAL)0x1.71547652b82fep+0 + magic;
    *n = (NAME(bits))shifted - (NAME(bits))magic;
    V nf = *number = shifted - magic;
#if REAL_BYTES == 4
    /* the high part has 15 bits, n at most 9: the product is exact even without a fused multiply-add */
    return (x - nf * 0x1.62e4p-1f) - nf * 0x1.7f7d1cp-20f;
#else
    /* 41 bits and 11 */
    return (x - nf * 0x1.62e42fefa4p-1) + nf * 0x1.8432a1b0e2634p-43;
#endif
}

/* exp(r) - 1 for |r| <= ln2/2 */
INLINE V NAME(vexpm1_reduced)(V r)
{
#if REAL_BYTES == 4
    /* fit error 0.06 */
    V q = SPLAT(0.0013863668354358589582f);
    q = q * r + 0.0083676093193062822581f;
    q = q * r + 0.041667242343951629445f;
    q = q * r + 0.16666533031323493575f;
#else
    /* fit error 0.05 */
    V q = SPLAT(2.4978106121696962611e-8);
    q = q * r + 2.7625447302547350926e-7;
    q = q * r + 2.7557643308886719332e-6;
    q = q * r + 0.0000248015080786030509;
    q = q * r + 0.00019841269461921713952;
    q = q * r + 0.0013888888927233471583;
    q = q * r + 0.008333333333502592438;
    q = q * r + 0.041666666666602992264;
    q = q * r + 0.16666666666666428862;
#endif
    q = q * r + (REAL)0.5;
    return q * (r * r) + r;
}

/* 2^n for n within the normal exponents */
INLINE V NAME(vpow2)(NAME(bits) n)
{
    return (V)((n + VM_BIAS) << VM_BITS);
}

/* exp(x) for x that is not large (other lanes: any value). Underflow gives the nearest subnormal or zero. */
INLINE V NAME(vexp_not_large)(V x)
{
    x = GREATER(SPLAT(REAL_BYTES == 4 ? -105 : -746), x);  /* below every result is 0 */
    NAME(bits) n;
    V number, p = NAME(vexpm1_reduced)(NAME(vreduce)(x, &n, &number));
#if VBYTES == 64 && REAL_BYTES == 4
    return (V)_mm512_scalef_ps((__m512)(p + (REAL)1), (__m512)number);
#elif VBYTES == 64
    return (V)_mm512_scalef_pd((__m512d)(p + (REAL)1), (__m512d)number);
#else
    /* 2^n in two normal factors; the shift is a logical one of a positive number, which every ISA has for 64 bits too */
    NAME(bits) half = ((n + 4096) >> 1) - 2048;
    V scale = NAME(vpow2)(half);
    return (p * scale + scale) * NAME(vpow2)(n - half);
#endif
}

/* exp(x). Overflow gives inf. */
INLINE V NAME(vexp)(V x)
{
    return NAME(vexp_not_large)(LESSER(SPLAT(REAL_BYTES == 4 ? 89 : 710), x));
}

/* exp(x) - 1 for x <= 0 (other lanes: any value) */
INLINE V NAME(vexpm1_nonpositive)(V x)
{
    V y = LESSER(SPLAT(0), GREATER(SPLAT(-40), x));       /* exp(-40) is below half an ulp of 1 in both types */
    NAME(bits) n;
    V number, p = NAME(vexpm1_reduced)(NAME(vreduce)(y, &n, &number));
    V scale = NAME(vpow2)(n);
    p = p * scale + (scale - (REAL)1);
    return SELECT(x == (REAL)0, x, p);                   /* keeps the sign of zero */
}

/* 1 / (1 + exp(-x)), from exp(-|x|) so that the far left keeps its relative accuracy down to the subnormals */
INLINE V NAME(vsigmoid)(V x)
{
    V e = NAME(vexp_not_large)((V)((M)x | VM_SIGN));
    V top = SELECT(x < (REAL)0, e, SPLAT(1));
    return top / (e + (REAL)1);
}

INLINE V NAME(vtanh)(V x)
{
    M sign = (M)x & VM_SIGN;
    V a = (V)((M)x ^ sign);
    V c = LESSER(SPLAT(20), a);                            /* tanh(20) rounds to 1 in both types */
    NAME(bits) n;
    V number, p = NAME(vexpm1_reduced)(NAME(vreduce)(c + c, &n, &number)), scale = NAME(vpow2)(n);
    V z = c * c;
    /* |x| < 5/8: x + x N(z)/D(z), Lambert's fraction of depth 5 (float) and 8 (double): error 0.013 and 0.06 */
#if REAL_BYTES == 4
    V top = (z * -14.0f - 315.0f) * z;
    V bottom = (z * 15.0f + 420.0f) * z + 945.0f;
#else
    V top = (((z * -1.0 - 594.0) * z - 45045.0) * z - 675675.0) * z;
    V bottom = (((z + 630.0) * z + 51975.0) * z + 945945.0) * z + 2027025.0;
#endif
    M small = c < (REAL)0.625;
    top = SELECT(small, c * top, SPLAT(-2));
    bottom = SELECT(small, bottom, p * scale + (scale + (REAL)1)); /* exp(2x) + 1 */
    V y = SELECT(small, c, SPLAT(1)) + top / bottom;
    return (V)((M)y | sign);
}

/* log(1 + f) + k ln2 for f in [sqrt(1/2) - 1, 1/2] */
INLINE V NAME(vlog_reduced)(V f, V k)
{
    V s = f / (f + (REAL)2);
    V z = s * s;
#if REAL_BYTES == 4
    /* fit error 0.05 */
    V p = SPLAT(0.30364313165748801389f);
    p = p * z + 0.39957651383675071331f;
    p = p * z + 0.66666949077494707841f;
    const REAL ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
#else
    /* fit error 0.002 */
    V p = SPLAT(0.13843131246917794015);
    p = p * z + 0.13173582719700742713;
    p = p * z + 0.15391113175977605947;
    p = p * z + 0.18181665827818108734;
    p = p * z + 0.22222224297513342956;
    p = p * z + 0.28571428555815822889;
    p = p * z + 0.40000000000056750117;
    p = p * z + 0.66666666666666596193;
    const REAL ln2_high = 0x1.62e42fefa4p-1, ln2_low = -0x1.8432a1b0e2634p-43;
#endif
    V half_square = f * f * (REAL)0.5;
    V tail = s * (z * p + half_square) + k * ln2_low;
    return k * ln2_high - ((half_square - tail) - f);
}

/* log(x): -inf at 0, NaN below it, inf at inf */
INLINE V NAME(vlog)(V x)
{
#if REAL_BYTES == 4
    const REAL tiny = 0x1p-126f, lift = 0x1p24f, lifted = 24;
    const uint32_t one = 0x3f800000, root_half = 0x3f3504f3, mantissa = 0x7fffff;
#else
    const REAL tiny = 0x1p-1022, lift = 0x1p54, lifted = 54;
    const uint64_t one = 0x3ff0000000000000, root_half = 0x3fe6a09e667f3bcd, mantissa = 0xfffffffffffff;
#endif
    const V magic = SPLAT(VM_MAGIC);
    M subnormal = x < tiny;
    NAME(bits) bits = (NAME(bits))SELECT(subnormal, x * lift, x) + (one - root_half);
    NAME(bits) e = (bits >> VM_BITS) - VM_BIAS;
    V m = (V)((bits & mantissa) + root_half);
    V k = (V)((NAME(bits))magic + e) - magic;
    k = SELECT(subnormal, k - lifted, k);
    V y = NAME(vlog_reduced)(m - (REAL)1, k);
    y = SELECT(x == (REAL)0, SPLAT(-__builtin_inf()), y);
    y = SELECT(x < (REAL)0, SPLAT(__builtin_nan("")), y);
    return SELECT(x < (REAL)__builtin_inf(), y, x + x);  /* inf and NaN pass */
}

/* log(1 + u) for u in [0, 1] */
INLINE V NAME(vlog1p_unit)(V u)
{
    M upper = u > (REAL)0.5;                             /* above 1/2, u - 1 is exact (Sterbenz) */
    V f = SELECT(upper, (u - (REAL)1) * (REAL)0.5, u);
    return NAME(vlog_reduced)(f, SELECT(upper, SPLAT(1), SPLAT(0)));
}
