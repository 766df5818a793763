/* Elementwise kernels: activations and their derivatives, dropout. A call works on elements [start, start + count).
 *
 * Knows nothing of threads or shapes. An element's result depends on that element alone.
 */
#ifndef FC_ELEMENTWISE_COMMON
#define FC_ELEMENTWISE_COMMON
enum { FC_LINEAR = 0, FC_RELU = 1, FC_LEAKY_RELU = 2, FC_SIGMOID = 3, FC_TANH = 4, FC_ELU = 5 };
#define FC_FUSED_LEAK 0.01 /* the slope of the leaky ReLU that is fused into a convolution */
#endif

/* y = f(x); x and y may be the same memory. A comparison with NaN is false, which lets NaN through everywhere. stream: past the caches, of kinds that say they can. */
#define FC_STREAMS(kind) ((kind) == FC_RELU || (kind) == FC_LEAKY_RELU)
static void NAME(activate_into)(REAL *y, const REAL *x, ix count, int kind, REAL parameter, int stream)
{
    const V zero = SPLAT(0);
    switch (kind) {
    case FC_RELU:
        EACH_LANES_OUT(i, count, y, stream, V v = TAKE(x + i); PUT_OUT(y + i, SELECT(v <= 0, zero, v)););
        break;
    case FC_LEAKY_RELU:
        EACH_LANES_OUT(i, count, y, stream, V v = TAKE(x + i); PUT_OUT(y + i, SELECT(v <= 0, v * parameter, v)););
        break;
    case FC_ELU:
        FOR_LANES(i, count)
        {
            V v = TAKE(x + i);
            PUT(y + i, SELECT(v <= 0, NAME(vexpm1_nonpositive)(v) * parameter, v));
        }
        break;
    case FC_SIGMOID:
        FOR_LANES(i, count) PUT(y + i, NAME(vsigmoid)(TAKE(x + i)));
        break;
    case FC_TANH:
        FOR_LANES(i, count) PUT(y + i, NAME(vtanh)(TAKE(x + i)));
        break;
    default:
        break;
    }
}

/* In place, as fused into a convolution: the same bits as the function on its own. */
static void NAME(activate)(REAL *y, ix count, int kind)
{
    NAME(activate_into)(y, y, count, kind, (REAL)FC_FUSED_LEAK, 0);
}

/* Blocks of what takes longer to compute than to write are made in a buffer if they are to be streamed. */
static void NAME(activation)(const fc_view *x, REAL *y, ix start, ix count, int kind, REAL parameter, int stream)
{
    REAL buffer[FC_BLOCK], made[FC_BLOCK];
    const int buffered = stream && !FC_STREAMS(kind);
    FOR_BLOCKS(at, n, count) {
        REAL *out = y + start + at;
        NAME(activate_into)(buffered ? made : out, NAME(fetch)(x, start + at, n, buffer), n, kind, parameter, stream && !buffered);
        if (buffered) NAME(stream_out)(out, made, n);
    }
    if (stream) fc_stream_end();
}

/* dx = dy f'(x), with f' written in y = f(x) */
static void NAME(activation_backward)(const fc_view *dyv, const fc_view *yv, REAL *dx, ix start, ix count, int kind,
                                      REAL parameter, int stream)
{
    REAL dy_buffer[FC_BLOCK], y_buffer[FC_BLOCK];
    const V zero = SPLAT(0);
    FOR_BLOCKS(at, n, count) {
        const REAL *dy = NAME(fetch)(dyv, start + at, n, dy_buffer);
        const REAL *y = NAME(fetch)(yv, start + at, n, y_buffer);
        REAL *out = dx + start + at;
        switch (kind) {
        case FC_RELU:
            EACH_LANES_OUT(i, n, out, stream, V g = TAKE(dy + i); PUT_OUT(out + i, SELECT(TAKE(y + i) <= 0, zero, g)););
            break;
        case FC_LEAKY_RELU:
            EACH_LANES_OUT(i, n, out, stream, V g = TAKE(dy + i); PUT_OUT(out + i, SELECT(TAKE(y + i) <= 0, g * parameter, g)););
            break;
        case FC_ELU:
            EACH_LANES_OUT(i, n, out, stream, V g = TAKE(dy + i); V v = TAKE(y + i); PUT_OUT(out + i, SELECT(v <= 0, (v + parameter) * g, g)););
            break;
        case FC_SIGMOID:
            EACH_LANES_OUT(i, n, out, stream, V v = TAKE(y + i); PUT_OUT(out + i, TAKE(dy + i) * (v * ((REAL)1 - v))););
            break;
        case FC_TANH: /* (1 - y)(1 + y), not 1 - y^2, which cancels where there is no fused multiply-add */
            EACH_LANES_OUT(i, n, out, stream, V v = TAKE(y + i); PUT_OUT(out + i, TAKE(dy + i) * (((REAL)1 - v) * ((REAL)1 + v))););
            break;
        default:
            break;
        }
    }
    if (stream) fc_stream_end();
}

typedef int8_t NAME(octets) __attribute__((vector_size(VBYTES / REAL_BYTES)));

/* y = x * scale where the mask is set, 0 elsewhere (whatever x is) */
static void NAME(dropout)(const fc_view *xv, const uint8_t *mask, REAL *y, ix start, ix count, REAL scale, int stream)
{
    REAL buffer[FC_BLOCK];
    FOR_BLOCKS(at, n, count) {
        const REAL *x = NAME(fetch)(xv, start + at, n, buffer);
        const uint8_t *set = mask + start + at;
        REAL *out = y + start + at;
        EACH_LANES_OUT(i, n, out, stream, NAME(octets) m = {0}; memcpy(&m, set + i, (size_t)FC_MIN(left, VL));
                       PUT_OUT(out + i, SELECT(__builtin_convertvector(m, M) != 0, TAKE(x + i) * scale, SPLAT(0))););
    }
    if (stream) fc_stream_end();
}
