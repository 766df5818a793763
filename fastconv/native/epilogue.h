/* Activations fused into convolution: applied to a row of results while it is in the first-level cache. Codes as in kernels/conv.pxi. */
static void NAME(activate)(REAL *y, ix count, int activation)
{
    for (ix i = 0; i < count; i += VL) {
        ix n = FC_MIN(VL, count - i);
        V v = LOADN(y + i, n);
        switch (activation) {
        case 1: v = SELECT(v < 0, (V){0}, v); break;      /* NaN stays */
        case 2: v = SELECT(v < 0, v * (REAL)0.01, v); break;
        }
        STOREN(y + i, v, n);
    }
}
