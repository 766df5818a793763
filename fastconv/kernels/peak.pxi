# Ceilings to measure kernels against (native/peak.h), for the benchmark.

from time import perf_counter

cdef extern from "native/kernels.h" nogil:
    float multiply_adds_f32(ix repeats)
    double multiply_adds_f64(ix repeats)
    ix multiply_adds_flops_f32()
    ix multiply_adds_flops_f64()
    void tile_repeated_f32(ix repeats, ix kc, const float *A, const float *B, float *C)
    void tile_repeated_f64(ix repeats, ix kc, const double *A, const double *B, double *C)


cdef object seconds_of_multiply_adds(real *tag, ix repeats, int threads):
    cdef int t
    cdef real kept = 0
    start = perf_counter()
    with nogil:
        for t in prange(threads, num_threads=threads, schedule="static"):
            kept += multiply_adds_f32(repeats) if real is float else multiply_adds_f64(repeats)
    seconds = perf_counter() - start
    return seconds if kept != 0 else 0


def fma_peak(int itemsize, ix repeats, int threads):
    """GFLOP/s of multiply-adds that touch nothing but registers, on `threads` threads at once."""
    if itemsize == 4:
        return 1e-9 * threads * repeats * multiply_adds_flops_f32() / seconds_of_multiply_adds(<float *> NULL, repeats, threads)
    return 1e-9 * threads * repeats * multiply_adds_flops_f64() / seconds_of_multiply_adds(<double *> NULL, repeats, threads)


cdef object seconds_of_tiles(real *tag, ix repeats, ix kc):
    cdef ix rows = tile_mr(tag), lanes = tile_nv(tag) * vector_lanes(tag), i
    cdef real *A = <real *> take_scratch((padded(kc * rows) + kc * lanes + rows * lanes) * sizeof(real))
    cdef real *B = A + padded(kc * rows)
    cdef real *C = B + kc * lanes
    for i in range(padded(kc * rows) + kc * lanes):
        A[i] = 1
    start = perf_counter()
    with nogil:
        if real is float:
            tile_repeated_f32(repeats, kc, A, B, C)
        else:
            tile_repeated_f64(repeats, kc, A, B, C)
    seconds = perf_counter() - start
    right = C[0] == kc
    fc_scratch_give(A)
    return seconds if right else 0


def tile_gflops(int itemsize, ix kc, ix repeats):
    """GFLOP/s of the register tile at depth kc on packed panels that stay in the first-level cache, on one thread."""
    if kc < 1 or kc > 1 << 16:
        raise ValueError(f"tile_gflops: kc is {kc} (need 1 to 65536)")
    if itemsize == 4:
        return 2e-9 * repeats * kc * MR_f32 * NV_f32 * lanes_f32() / seconds_of_tiles(<float *> NULL, repeats, kc)
    return 2e-9 * repeats * kc * MR_f64 * NV_f64 * lanes_f64() / seconds_of_tiles(<double *> NULL, repeats, kc)
