# Pooling drivers: threads around the rows and planes of native/pool.h.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_pool:
        ix size[3]
        ix out[3]
        ix dilation[3]
        const int64_t *begin[3]
        const int64_t *valid[3]
        const double *divisor[3]
        int by_lanes, whole, global_ "global", seamless, regular
        ix step, low, taps
        const int64_t *start[3]
        const int64_t *holder[3]
    void fc_pool_place_taps(fc_pool *g)
    int fc_pool_seamless(const fc_pool *g)
    void max_pool_rows_f32(const fc_view *x, const fc_pool *g, ix first, ix count, float *y, int64_t *indices)
    void max_pool_rows_f64(const fc_view *x, const fc_pool *g, ix first, ix count, double *y, int64_t *indices)
    void avg_pool_rows_f32(const fc_view *x, const fc_pool *g, ix first, ix count, float *y)
    void avg_pool_rows_f64(const fc_view *x, const fc_pool *g, ix first, ix count, double *y)
    int max_pool_plane_backward_f32(const fc_view *dy, const fc_view *indices, float *dx, ix plane, ix size, ix outputs, float *scratch, int clear, int64_t *wrong)
    int max_pool_plane_backward_f64(const fc_view *dy, const fc_view *indices, double *dx, ix plane, ix size, ix outputs, double *scratch, int clear, int64_t *wrong)
    void avg_pool_rows_backward_f32(const fc_view *dy, const fc_pool *g, ix first, ix count, float *dx, float *sums, int stream)
    void avg_pool_rows_backward_f64(const fc_view *dy, const fc_pool *g, ix first, ix count, double *dx, double *sums, int stream)
    enum:
        FC_POOL_TAPS
        FC_POOL_REACH
        FC_POOL_STEP
        FC_POOL_SPAN
        FC_POOL_MARGIN


cdef enum:
    SPARSE = 16                # elements of a plane for each that a maximum came from
    STREAM_PLANE = 256 * 1024  # bytes of a plane up to which it is made in the second-level cache, if results are written past the caches


cdef const void *table(list kept, cnp.ndarray a) except NULL:
    """The data of a contiguous table that is kept alive."""
    if not cnp.PyArray_ISCARRAY_RO(a):
        raise ValueError("a table must be contiguous, aligned and native")
    kept.append(a)
    return cnp.PyArray_DATA(a)


cdef class PoolShape:
    """A PoolProblem as the C structure that the kernels read. Owns the tables: (begin, valid, divisor) for each axis, and for the gradient
    of an average (start, holder), see fc_pool."""
    cdef fc_pool pool
    cdef ix planes
    cdef list kept

    def __init__(self, problem, windows, holders):
        cdef ix a, reach
        cdef fc_pool *g = &self.pool
        self.kept = []
        self.planes = problem.N * problem.C
        for a in range(3):
            g.size[a], g.out[a], g.dilation[a] = problem.size[a], problem.out[a], problem.dilation[a]
            g.begin[a] = <const int64_t *> table(self.kept, windows[a][0])
            g.valid[a] = <const int64_t *> table(self.kept, windows[a][1])
            g.divisor[a] = <const double *> table(self.kept, windows[a][2])
            g.start[a] = g.holder[a] = NULL
            if holders:
                g.start[a] = <const int64_t *> table(self.kept, holders[a][0])
                g.holder[a] = <const int64_t *> table(self.kept, holders[a][1])
        g.regular, g.step, g.low, g.taps = not problem.adaptive, problem.stride[2], problem.pad_low[2], problem.kernel[2]
        if problem.adaptive and g.size[2] % g.out[2] == 0:  # windows side by side
            g.regular, g.step, g.taps = 1, g.size[2] // g.out[2], g.size[2] // g.out[2]
        reach = (g.taps - 1) * g.dilation[2]
        if g.step > FC_POOL_STEP or reach > FC_POOL_REACH:
            g.regular = 0
        g.by_lanes = (problem.kernel[0] * problem.kernel[1] <= FC_POOL_TAPS and g.taps <= FC_POOL_TAPS
                      and g.size[0] * g.size[1] * g.size[2] < 2 ** 31  # positions fit the lanes of float
                      and (g.regular or g.size[2] <= FC_POOL_SPAN))
        g.global_ = 1
        for a in range(3):
            g.global_ = g.global_ and g.out[a] == 1 and g.valid[a][0] == g.size[a]
        g.whole = g.out[2] == 1 and g.valid[2][0] == g.size[2] and g.dilation[2] == g.dilation[1] == 1
        if g.regular and g.by_lanes:
            fc_pool_place_taps(g)
        g.seamless = fc_pool_seamless(g)


cdef void max_pool_task(real *y, int64_t *indices, const fc_view *x, const fc_pool *g, ix first, ix count) noexcept nogil:
    if real is float:
        max_pool_rows_f32(x, g, first, count, y, indices)
    else:
        max_pool_rows_f64(x, g, first, count, y, indices)


cdef object run_max_pool(real *y, int64_t *indices, fc_view *x, PoolShape shape, int threads):
    cdef const fc_pool *g = &shape.pool
    cdef ix rows = shape.planes * g.out[0] * g.out[1], task, step = TASK // (x.size // rows + 1) + 1
    with nogil:
        if threads_for(x.size, threads) == 1:
            max_pool_task(y, indices, x, g, 0, rows)
        else:
            for task in prange(ceil_div(rows, step), num_threads=threads, schedule="static"):
                max_pool_task(y, indices, x, g, task * step, smaller(step, rows - task * step))


def max_pool(cnp.ndarray x, cnp.ndarray y, cnp.ndarray indices, PoolShape shape, int threads):
    """y = the maximum of every window; indices, unless None, are flat positions in the plane. Not for empty batches."""
    cdef fc_view view
    cdef const fc_pool *g = &shape.pool
    cdef int64_t *index = NULL
    check_result(y)
    if indices is not None:
        check_result(indices)
        index = <int64_t *> cnp.PyArray_DATA(indices)
    input_view(&view, x, cnp.PyArray_TYPE(y), shape.planes * g.size[0] * g.size[1] * g.size[2], "x")
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_max_pool(<float *> cnp.PyArray_DATA(y), index, &view, shape, threads)
    else:
        run_max_pool(<double *> cnp.PyArray_DATA(y), index, &view, shape, threads)


cdef void avg_pool_task(real *y, const fc_view *x, const fc_pool *g, ix first, ix count) noexcept nogil:
    if real is float:
        avg_pool_rows_f32(x, g, first, count, y)
    else:
        avg_pool_rows_f64(x, g, first, count, y)


cdef object run_avg_pool(real *y, fc_view *x, PoolShape shape, int threads):
    cdef const fc_pool *g = &shape.pool
    cdef ix rows = shape.planes * g.out[0] * g.out[1], task, step = TASK // (x.size // rows + 1) + 1
    with nogil:
        if threads_for(x.size, threads) == 1:
            avg_pool_task(y, x, g, 0, rows)
        else:
            for task in prange(ceil_div(rows, step), num_threads=threads, schedule="static"):
                avg_pool_task(y, x, g, task * step, smaller(step, rows - task * step))


def avg_pool(cnp.ndarray x, cnp.ndarray y, PoolShape shape, int threads):
    """y = the sum of every window over its divisor. Not for empty batches."""
    cdef fc_view view
    cdef const fc_pool *g = &shape.pool
    check_result(y)
    input_view(&view, x, cnp.PyArray_TYPE(y), shape.planes * g.size[0] * g.size[1] * g.size[2], "x")
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_avg_pool(<float *> cnp.PyArray_DATA(y), &view, shape, threads)
    else:
        run_avg_pool(<double *> cnp.PyArray_DATA(y), &view, shape, threads)


cdef int max_pool_backward_task(real *dx, const fc_view *dy, const fc_view *indices, ix plane, ix size, ix outputs, real *scratch, int clear, int64_t *wrong) noexcept nogil:
    if real is float:
        return max_pool_plane_backward_f32(dy, indices, dx, plane, size, outputs, scratch, clear, wrong)
    else:
        return max_pool_plane_backward_f64(dy, indices, dx, plane, size, outputs, scratch, clear, wrong)


cdef object run_max_pool_backward(real *dx, fc_view *dy, fc_view *indices, ix planes, ix size, ix outputs, int threads):
    cdef ix plane, room = padded(size)
    cdef int bad = 0, clear = 1
    cdef int64_t wrong = 0
    cdef real *scratch = NULL
    threads = threads_for(planes * size, threads)
    if threads == 1 and outputs * SPARSE < size:
        clear = 0  # few values: one fill of everything is faster than many of planes
    elif streams(planes * size * sizeof(real)) and size * sizeof(real) <= STREAM_PLANE:
        scratch = <real *> take_scratch(threads * room * sizeof(real))
    with nogil:
        if clear == 0:
            memset(dx, 0, planes * size * sizeof(real))
        if threads == 1:
            for plane in range(planes):
                bad |= max_pool_backward_task(dx, dy, indices, plane, size, outputs, scratch, clear, &wrong)
        else:
            for plane in prange(planes, num_threads=threads, schedule="static"):
                bad |= max_pool_backward_task(dx, dy, indices, plane, size, outputs, scratch + threadid() * room if scratch != NULL else NULL, clear, &wrong)
        fc_scratch_give(scratch)
    return wrong if bad else None


def max_pool_backward(cnp.ndarray dy, cnp.ndarray indices, cnp.ndarray dx, ix planes, ix size, ix outputs, int threads):
    """dx (planes, size) = every dy (planes, outputs) added at its index. Returns None, or an index that is outside the plane."""
    cdef fc_view dy_view, index_view
    check_result(dx)
    if cnp.PyArray_SIZE(dx) != planes * size:
        raise ValueError("dx has the wrong size")
    input_view(&dy_view, dy, cnp.PyArray_TYPE(dx), planes * outputs, "dy")
    input_view(&index_view, indices, cnp.NPY_INT64, planes * outputs, "indices")
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        return run_max_pool_backward(<float *> cnp.PyArray_DATA(dx), &dy_view, &index_view, planes, size, outputs, threads)
    return run_max_pool_backward(<double *> cnp.PyArray_DATA(dx), &dy_view, &index_view, planes, size, outputs, threads)


cdef void avg_pool_backward_task(real *dx, const fc_view *dy, const fc_pool *g, ix first, ix count, real *sums, int stream) noexcept nogil:
    if real is float:
        avg_pool_rows_backward_f32(dy, g, first, count, dx, sums, stream)
    else:
        avg_pool_rows_backward_f64(dy, g, first, count, dx, sums, stream)


cdef object run_avg_pool_backward(real *dx, fc_view *dy, PoolShape shape, int threads):
    cdef const fc_pool *g = &shape.pool
    cdef ix rows = shape.planes * g.size[0] * g.size[1], task, step = TASK // g.size[2] + 1, sums = padded(g.out[2] + 2 * FC_POOL_MARGIN)
    cdef int stream = streams(rows * g.size[2] * sizeof(real))
    cdef real *scratch
    threads = threads_for(rows * g.size[2], threads)
    scratch = <real *> take_scratch(threads * sums * sizeof(real))
    with nogil:
        if threads == 1:
            avg_pool_backward_task(dx, dy, g, 0, rows, scratch, stream)
        else:
            for task in prange(ceil_div(rows, step), num_threads=threads, schedule="static"):
                avg_pool_backward_task(dx, dy, g, task * step, smaller(step, rows - task * step), scratch + threadid() * sums, stream)
        fc_scratch_give(scratch)


def avg_pool_backward(cnp.ndarray dy, cnp.ndarray dx, PoolShape shape, int threads):
    """dx = every dy over its divisor, added to all elements of its window. Not for empty batches."""
    cdef fc_view view
    cdef const fc_pool *g = &shape.pool
    check_result(dx)
    if g.start[0] == NULL or cnp.PyArray_SIZE(dx) != shape.planes * g.size[0] * g.size[1] * g.size[2]:
        raise ValueError("the shape is not one for this gradient")
    input_view(&view, dy, cnp.PyArray_TYPE(dx), shape.planes * g.out[0] * g.out[1] * g.out[2], "dy")
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        run_avg_pool_backward(<float *> cnp.PyArray_DATA(dx), &view, shape, threads)
    else:
        run_avg_pool_backward(<double *> cnp.PyArray_DATA(dx), &view, shape, threads)
