# The fully connected layer: forward products of rows of x with rows of the weights (native/dot.h), and small or thin products for its gradients (native/thin.h).

cdef extern from "native/kernels.h" nogil:
    void dot_rows_f32(ix m, ix n, ix count, const float *A, ix lda, const float *B, ix ldb, float *C, ix ldc, int accumulate)
    void dot_rows_f64(ix m, ix n, ix count, const double *A, ix lda, const double *B, ix ldb, double *C, ix ldc, int accumulate)
    void thin_f32(ix rows, ix kc, const float *A, ix a_row, ix a_step, const float *B, ix ldb, float *C, ix ldc, ix columns, int accumulate, int stream)
    void thin_f64(ix rows, ix kc, const double *A, ix a_row, ix a_step, const double *B, ix ldb, double *C, ix ldc, ix columns, int accumulate, int stream)
    ix thin_rows_f32()
    ix thin_rows_f64()
    ix thin_columns_f32()
    ix thin_columns_f64()

cdef enum:
    DOT_SAMPLES = 96    # rows of x that one task takes: DOT_SAMPLES * DOT_KC * 4 bytes stay in the second-level cache while weights stream past
    DOT_OUTPUTS = 24    # rows of the weights that one task takes, where several samples share them
    DOT_FEW = 12        # for fewer samples than this the weights are read once, row by row, DOT_STREAM rows a task
    DOT_STREAM = 4
    DOT_KC = 1024       # features summed in registers at a time: part of the order of the sum
    DOT_LD = DOT_KC + 16  # from row to row of a copy, so that its rows do not meet in the sets of a cache
    DOT_ALIAS = 4096    # bytes: rows so far apart, or a multiple of it, meet in the sets of a first-level cache, ten of them at a time, and prefetching fails.
    DOT_REUSE = 64      # So that many samples repay a copy of the weights.


cdef struct Dense:
    ix samples, inputs, outputs, block
    const char *x
    ix x_row, x_column
    int x_swap, x_direct
    const char *weight
    ix w_row, w_column
    int w_swap, w_direct
    const void *bias


cdef const real *dense_rows(real *buffer, const char *data, ix first, ix rows, ix k, ix count, ix row, ix column, int swap, int direct, ix *ld) noexcept nogil:
    """Features [k, k + count) of some rows: where they lie if they lie together, else copied."""
    cdef ix i
    data += first * row + k * column
    if direct:
        ld[0] = row // <ix> sizeof(real)
        return <const real *> data
    ld[0] = DOT_LD
    for i in range(rows):
        if real is float:
            copy_row_f32(buffer + i * DOT_LD, data + i * row, count, column, swap)
        else:
            copy_row_f64(buffer + i * DOT_LD, data + i * row, count, column, swap)
    return buffer


cdef void dense_task(real *y, const Dense *d, ix n, ix o, real *scratch) noexcept nogil:
    cdef ix samples = smaller(DOT_SAMPLES, d.samples - n), outputs = smaller(d.block, d.outputs - o), k = 0, count, lda, ldb, i, j
    cdef real *c = y + n * d.outputs + o
    cdef const real *a
    cdef const real *b
    if d.inputs == 0:
        for i in range(samples):
            memset(c + i * d.outputs, 0, outputs * sizeof(real))
    while k < d.inputs:
        count = smaller(DOT_KC, d.inputs - k)
        a = dense_rows(scratch, d.x, n, samples, k, count, d.x_row, d.x_column, d.x_swap, d.x_direct, &lda)
        b = dense_rows(scratch + DOT_SAMPLES * DOT_LD, d.weight, o, outputs, k, count, d.w_row, d.w_column, d.w_swap, d.w_direct, &ldb)
        if real is float:
            dot_rows_f32(samples, outputs, count, a, lda, b, ldb, c, d.outputs, k > 0)
        else:
            dot_rows_f64(samples, outputs, count, a, lda, b, ldb, c, d.outputs, k > 0)
        k += count
    if d.bias != NULL:
        for i in range(samples):
            for j in range(outputs):
                c[i * d.outputs + j] += (<const real *> d.bias)[o + j]


cdef object run_dense(real *y, Dense *d, int threads):
    d.block = DOT_STREAM if d.samples < DOT_FEW else DOT_OUTPUTS
    if d.samples >= DOT_REUSE and d.w_row % DOT_ALIAS == 0:
        d.w_direct = 0
    cdef ix blocks = ceil_div(d.outputs, d.block), task
    cdef size_t scratch = 0 if d.x_direct and d.w_direct else (DOT_SAMPLES + DOT_OUTPUTS) * DOT_LD * sizeof(real)
    cdef char *memory
    if 2.0 * d.samples * d.outputs * d.inputs < SERIAL_FLOPS:
        threads = 1
    memory = <char *> take_scratch(threads * scratch) if scratch else NULL
    with nogil:
        if threads == 1:
            for task in range(ceil_div(d.samples, DOT_SAMPLES) * blocks):
                dense_task(y, d, task // blocks * DOT_SAMPLES, task % blocks * d.block, <real *> memory)
        else:
            for task in prange(ceil_div(d.samples, DOT_SAMPLES) * blocks, num_threads=threads, schedule="dynamic"):
                dense_task(y, d, task // blocks * DOT_SAMPLES, task % blocks * d.block, <real *> (memory + threadid() * scratch))
        fc_scratch_give(memory)


cdef int is_direct(cnp.ndarray a, ix itemsize) noexcept:
    """Whether the rows of a matrix can be read as they are."""
    return (not cnp.PyArray_ISBYTESWAPPED(a) and cnp.PyArray_STRIDE(a, 1) == itemsize and cnp.PyArray_STRIDE(a, 0) % itemsize == 0
            and <size_t> cnp.PyArray_DATA(a) % itemsize == 0)


def linear(cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray y, int threads):
    """y (samples, outputs) = x (samples, inputs) @ weight (outputs, inputs)^T + bias; bias contiguous and native, or None."""
    cdef Dense d
    cdef ix itemsize = cnp.PyArray_ITEMSIZE(y)
    check_result(y)
    d.samples, d.outputs, d.inputs = cnp.PyArray_DIM(y, 0), cnp.PyArray_DIM(y, 1), cnp.PyArray_DIM(x, 1)
    if (cnp.PyArray_NDIM(x) != 2 or cnp.PyArray_NDIM(weight) != 2 or cnp.PyArray_DIM(x, 0) != d.samples or cnp.PyArray_DIM(weight, 0) != d.outputs
            or cnp.PyArray_DIM(weight, 1) != d.inputs):
        raise ValueError("linear: an operand changed its shape during the call")
    d.x, d.x_row, d.x_column = <const char *> cnp.PyArray_DATA(x), cnp.PyArray_STRIDE(x, 0), cnp.PyArray_STRIDE(x, 1)
    d.weight, d.w_row, d.w_column = <const char *> cnp.PyArray_DATA(weight), cnp.PyArray_STRIDE(weight, 0), cnp.PyArray_STRIDE(weight, 1)
    d.x_swap, d.w_swap = cnp.PyArray_ISBYTESWAPPED(x), cnp.PyArray_ISBYTESWAPPED(weight)
    d.x_direct, d.w_direct = is_direct(x, itemsize), is_direct(weight, itemsize)
    d.bias = cnp.PyArray_DATA(bias) if bias is not None else NULL
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_dense(<float *> cnp.PyArray_DATA(y), &d, threads)
    else:
        run_dense(<double *> cnp.PyArray_DATA(y), &d, threads)


# -- products that do not repay packing -----------------------------------------------------------------------------

cdef enum:
    THIN_ROWS = 12              # so few rows of the result read b once or twice anyway
    THIN_BYTES = 256 * 1024     # a b of this size stays in the second-level cache


cdef struct Thin:
    ix rows, columns, inner, kc
    ix a_row, a_step, ldb       # in elements


cdef void thin_tile(real *c, const real *a, const real *b, const Thin *t, ix i, ix j, int stream) noexcept nogil:
    """One tile over the whole reduction, block by block."""
    cdef ix k = 0, count, rows = smaller(thin_rows_f32() if real is float else thin_rows_f64(), t.rows - i)
    c += i * t.columns + j
    while k < t.inner:
        count = smaller(t.kc, t.inner - k)
        if real is float:
            thin_f32(rows, count, a + i * t.a_row + k * t.a_step, t.a_row, t.a_step, b + k * t.ldb + j, t.ldb, c, t.columns, t.columns - j, k > 0, stream)
        else:
            thin_f64(rows, count, a + i * t.a_row + k * t.a_step, t.a_row, t.a_step, b + k * t.ldb + j, t.ldb, c, t.columns, t.columns - j, k > 0, stream)
        k += count


cdef void thin_task(real *c, const real *a, const real *b, const Thin *t, ix task, int by_rows, int stream) noexcept nogil:
    """The tiles of a few rows, while b stays in a cache, or of a few columns of b, which then is read once."""
    cdef ix height = thin_rows_f32() if real is float else thin_rows_f64(), width = thin_columns_f32() if real is float else thin_columns_f64(), at
    if by_rows:
        for at in range(ceil_div(t.columns, width)):
            thin_tile(c, a, b, t, task * height, at * width, stream)
    else:
        for at in range(ceil_div(t.rows, height)):
            thin_tile(c, a, b, t, at * height, task * width, stream)


cdef object run_thin(real *c, const real *a, const real *b, const Thin *t, int by_rows, int threads):
    cdef ix task, tasks
    cdef int stream = (streams(t.rows * t.columns * sizeof(real)) and t.inner <= t.kc and <size_t> c % VBYTES == 0
                       and t.columns * <ix> sizeof(real) % VBYTES == 0)
    if by_rows:
        tasks = ceil_div(t.rows, thin_rows_f32() if real is float else thin_rows_f64())
    else:
        tasks = ceil_div(t.columns, thin_columns_f32() if real is float else thin_columns_f64())
    if 2.0 * t.rows * t.columns * t.inner < SERIAL_FLOPS and t.rows * t.columns < SERIAL_ELEMENTS:
        threads = 1
    with nogil:
        if threads == 1:
            for task in range(tasks):
                thin_task(c, a, b, t, task, by_rows, stream)
        else:
            for task in prange(tasks, num_threads=threads, schedule="static"):
                thin_task(c, a, b, t, task, by_rows, stream)
        if stream:
            fc_stream_end()


def product(cnp.ndarray a, cnp.ndarray b, cnp.ndarray c, int threads):
    """c = a @ b as `matmul` computes it, to the last bit, but small and thin products are not packed first."""
    cdef Thin t
    cdef ix itemsize = cnp.PyArray_ITEMSIZE(c)
    t.rows, t.columns, t.inner = cnp.PyArray_DIM(c, 0), cnp.PyArray_DIM(c, 1), cnp.PyArray_DIM(a, 1)
    t.kc = reduction_block(t.inner, 1)
    cdef int by_rows = t.inner * t.columns * itemsize <= THIN_BYTES
    if (t.inner == 0 or (t.rows > THIN_ROWS and not by_rows) or not is_direct(b, itemsize) or cnp.PyArray_ISBYTESWAPPED(a)
            or cnp.PyArray_STRIDE(a, 0) % itemsize or cnp.PyArray_STRIDE(a, 1) % itemsize or <size_t> cnp.PyArray_DATA(a) % itemsize):
        matmul(a, b, None, c, threads)
        return
    check_result(c)
    if cnp.PyArray_DIM(a, 0) != t.rows or cnp.PyArray_DIM(b, 0) != t.inner or cnp.PyArray_DIM(b, 1) != t.columns:
        raise ValueError("an operand changed its shape during the call")
    t.a_row, t.a_step, t.ldb = cnp.PyArray_STRIDE(a, 0) // itemsize, cnp.PyArray_STRIDE(a, 1) // itemsize, cnp.PyArray_STRIDE(b, 0) // itemsize
    if cnp.PyArray_TYPE(c) == cnp.NPY_FLOAT:
        run_thin(<float *> cnp.PyArray_DATA(c), <const float *> cnp.PyArray_DATA(a), <const float *> cnp.PyArray_DATA(b), &t, by_rows, threads)
    else:
        run_thin(<double *> cnp.PyArray_DATA(c), <const double *> cnp.PyArray_DATA(a), <const double *> cnp.PyArray_DATA(b), &t, by_rows, threads)
