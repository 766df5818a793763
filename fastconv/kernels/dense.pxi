# The fully connected layer's forward product, rows of x with rows of the weights (native/dot.h).

cdef extern from "native/kernels.h" nogil:
    void dot_rows_f32(ix m, ix n, ix count, const float *A, ix lda, const float *B, ix ldb, float *C, ix ldc, int accumulate)
    void dot_rows_f64(ix m, ix n, ix count, const double *A, ix lda, const double *B, ix ldb, double *C, ix ldc, int accumulate)

cdef enum:
    DOT_SAMPLES = 96    # rows of x that one task takes: DOT_SAMPLES * DOT_KC * 4 bytes stay in the second-level cache while weights stream past
    DOT_OUTPUTS = 24    # rows of the weights that one task takes, where several samples share them
    DOT_FEW = 12        # for fewer samples than this the weights are read once, row by row, DOT_STREAM rows a task
    DOT_STREAM = 4
    DOT_KC = 1024       # features summed in registers at a time: part of the order of the sum


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
    ld[0] = DOT_KC
    for i in range(rows):
        if real is float:
            copy_row_f32(buffer + i * DOT_KC, data + i * row, count, column, swap)
        else:
            copy_row_f64(buffer + i * DOT_KC, data + i * row, count, column, swap)
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
        b = dense_rows(scratch + DOT_SAMPLES * DOT_KC, d.weight, o, outputs, k, count, d.w_row, d.w_column, d.w_swap, d.w_direct, &ldb)
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
    cdef ix blocks = ceil_div(d.outputs, d.block), task
    cdef size_t scratch = 0 if d.x_direct and d.w_direct else (DOT_SAMPLES + DOT_OUTPUTS) * DOT_KC * sizeof(real)
    cdef char *memory
    if 2.0 * d.samples * d.outputs * d.inputs < SERIAL_FLOPS:
        threads = 1
    memory = <char *> take_scratch(threads * scratch)
    with nogil:
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
