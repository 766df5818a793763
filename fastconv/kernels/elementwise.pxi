# Drivers of the elementwise functions, softmax and maxout: threads and blocking around native/elementwise.h and native/softmax.h.
#
# A task is a range of elements, rows or strips that no other task shares; which thread runs it leaves no trace in the result.

cdef extern from "native/kernels.h" nogil:
    void activation_f32(const fc_view *x, float *y, ix start, ix count, int kind, float parameter, int stream)
    void activation_f64(const fc_view *x, double *y, ix start, ix count, int kind, double parameter, int stream)
    void activation_backward_f32(const fc_view *dy, const fc_view *y, float *dx, ix start, ix count, int kind, float parameter, int stream)
    void activation_backward_f64(const fc_view *dy, const fc_view *y, double *dx, ix start, ix count, int kind, double parameter, int stream)
    void dropout_f32(const fc_view *x, const uint8_t *mask, float *y, ix start, ix count, float scale, int stream)
    void dropout_f64(const fc_view *x, const uint8_t *mask, double *y, ix start, ix count, double scale, int stream)
    void softmax_row_f32(const fc_view *x, float *y, ix start, ix count, int logarithm)
    void softmax_row_f64(const fc_view *x, double *y, ix start, ix count, int logarithm)
    void softmax_row_backward_f32(const fc_view *dy, const fc_view *y, float *dx, ix start, ix count, int logarithm)
    void softmax_row_backward_f64(const fc_view *dy, const fc_view *y, double *dx, ix start, ix count, int logarithm)
    void softmax_strip_f32(const fc_view *x, float *y, ix start, ix classes, ix inner, ix width, int logarithm)
    void softmax_strip_f64(const fc_view *x, double *y, ix start, ix classes, ix inner, ix width, int logarithm)
    void softmax_strip_backward_f32(const fc_view *dy, const fc_view *y, float *dx, ix start, ix classes, ix inner, ix width, int logarithm)
    void softmax_strip_backward_f64(const fc_view *dy, const fc_view *y, double *dx, ix start, ix classes, ix inner, ix width, int logarithm)
    void maxout_f32(const fc_view *x, float *y, int64_t *indices, ix first, ix count, ix pieces, ix inner)
    void maxout_f64(const fc_view *x, double *y, int64_t *indices, ix first, ix count, ix pieces, ix inner)
    int maxout_backward_f32(const fc_view *dy, const fc_view *indices, float *dx, ix first, ix count, ix pieces, ix inner, int64_t *wrong)
    int maxout_backward_f64(const fc_view *dy, const fc_view *indices, double *dx, ix first, ix count, ix pieces, ix inner, int64_t *wrong)
    void fc_stream_end()
    enum:
        FC_STRIP

cdef enum:
    TASK = 8192                # elements of a task: 2 us of the cheapest function, so that handing it out costs nothing
    SERIAL_ELEMENTS = 32768    # below this a call is over (3 to 30 us) before a second thread has started to help
    STRIP_ELEMENTS = 65536     # elements of a strip over all classes: what three passes over it keep in L2
    STREAM_BYTES = 16 << 20    # results of this size fill half of a common last-level cache: next to their input they would not stay there anyway, and
                               # writing past it is 1.3 to 5 times as fast

cdef dict ACTIVATION_KINDS = {"relu": 1, "leaky_relu": 2, "sigmoid": 3, "tanh": 4, "elu": 5}


cdef inline int threads_for(ix elements, int threads) noexcept nogil:
    return threads if elements >= SERIAL_ELEMENTS else 1


cdef inline int streams(size_t bytes) noexcept nogil:
    """Whether a result is written past the caches."""
    return bytes >= STREAM_BYTES


cdef inline ix task_length(ix task, ix size) noexcept nogil:
    return TASK if size - task * TASK > TASK else size - task * TASK


cdef inline ix strip_width(ix classes, ix inner) noexcept nogil:
    """Positions of a strip: whole vectors, at most FC_STRIP of them, fewer if the classes are many; strips are about equal."""
    cdef ix width = STRIP_ELEMENTS // (classes if classes > 0 else 1) // 16 * 16
    width = 16 if width < 16 else FC_STRIP if width > FC_STRIP else width
    if inner <= width:
        return inner
    return ceil_div(ceil_div(inner, ceil_div(inner, width)), 16) * 16


cdef int input_view(fc_view *v, cnp.ndarray a, int type, ix size, str name) except -1:
    """A view of an argument. Its type and size were validated, but another thread may have changed them since."""
    if cnp.PyArray_TYPE(a) != type or cnp.PyArray_SIZE(a) != size:
        raise ValueError(f"{name} was changed during the call")
    return make_view(v, a)


# -- activations and dropout --------------------------------------------------------------------------------------

cdef void activation_task(real *y, const fc_view *x, ix start, ix count, int kind, double parameter, int stream) noexcept nogil:
    if real is float:
        activation_f32(x, y, start, count, kind, <float> parameter, stream)
    else:
        activation_f64(x, y, start, count, kind, parameter, stream)


cdef object run_activation(real *y, fc_view *x, int kind, double parameter, int threads):
    cdef ix task, size = x.size
    cdef int stream = streams(size * sizeof(real))
    with nogil:
        if threads_for(size, threads) == 1:  # without the cost of a parallel region
            activation_task(y, x, 0, size, kind, parameter, stream)
        else:
            for task in prange(ceil_div(size, TASK), num_threads=threads, schedule="static"):
                activation_task(y, x, task * TASK, task_length(task, size), kind, parameter, stream)


def activation(cnp.ndarray x, cnp.ndarray y, str name, double parameter, int threads):
    """y = f(x), elementwise."""
    cdef fc_view view
    cdef int kind = ACTIVATION_KINDS[name]
    check_result(y)
    input_view(&view, x, cnp.PyArray_TYPE(y), cnp.PyArray_SIZE(y), "x")
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_activation(<float *> cnp.PyArray_DATA(y), &view, kind, parameter, threads)
    else:
        run_activation(<double *> cnp.PyArray_DATA(y), &view, kind, parameter, threads)


cdef void activation_backward_task(real *dx, const fc_view *dy, const fc_view *y, ix start, ix count, int kind, double parameter, int stream) noexcept nogil:
    if real is float:
        activation_backward_f32(dy, y, dx, start, count, kind, <float> parameter, stream)
    else:
        activation_backward_f64(dy, y, dx, start, count, kind, parameter, stream)


cdef object run_activation_backward(real *dx, fc_view *dy, fc_view *y, int kind, double parameter, int threads):
    cdef ix task, size = dy.size
    cdef int stream = streams(size * sizeof(real))
    with nogil:
        if threads_for(size, threads) == 1:
            activation_backward_task(dx, dy, y, 0, size, kind, parameter, stream)
        else:
            for task in prange(ceil_div(size, TASK), num_threads=threads, schedule="static"):
                activation_backward_task(dx, dy, y, task * TASK, task_length(task, size), kind, parameter, stream)


def activation_backward(cnp.ndarray dy, cnp.ndarray y, cnp.ndarray dx, str name, double parameter, int threads):
    """dx = dy * f'(x), the derivative written in y."""
    cdef fc_view dy_view, y_view
    cdef int kind = ACTIVATION_KINDS[name]
    check_result(dx)
    input_view(&dy_view, dy, cnp.PyArray_TYPE(dx), cnp.PyArray_SIZE(dx), "dy")
    input_view(&y_view, y, cnp.PyArray_TYPE(dx), cnp.PyArray_SIZE(dx), "y")
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        run_activation_backward(<float *> cnp.PyArray_DATA(dx), &dy_view, &y_view, kind, parameter, threads)
    else:
        run_activation_backward(<double *> cnp.PyArray_DATA(dx), &dy_view, &y_view, kind, parameter, threads)


cdef void dropout_task(real *y, const fc_view *x, const uint8_t *mask, ix start, ix count, double scale, int stream) noexcept nogil:
    if real is float:
        dropout_f32(x, mask, y, start, count, <float> scale, stream)
    else:
        dropout_f64(x, mask, y, start, count, scale, stream)


cdef object run_dropout(real *y, fc_view *x, const uint8_t *mask, double scale, int threads):
    cdef ix task, size = x.size
    cdef int stream = streams(size * sizeof(real))
    with nogil:
        if threads_for(size, threads) == 1:
            dropout_task(y, x, mask, 0, size, scale, stream)
        else:
            for task in prange(ceil_div(size, TASK), num_threads=threads, schedule="static"):
                dropout_task(y, x, mask, task * TASK, task_length(task, size), scale, stream)


def dropout(cnp.ndarray x, cnp.ndarray mask, cnp.ndarray y, double scale, int threads):
    """y = x * scale where the mask is set, 0 elsewhere. The mask is contiguous."""
    cdef fc_view view
    check_result(y)
    input_view(&view, x, cnp.PyArray_TYPE(y), cnp.PyArray_SIZE(y), "x")
    if cnp.PyArray_TYPE(mask) != cnp.NPY_BOOL or cnp.PyArray_SIZE(mask) != view.size or not cnp.PyArray_IS_C_CONTIGUOUS(mask):
        raise ValueError("mask was changed during the call")
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_dropout(<float *> cnp.PyArray_DATA(y), &view, <const uint8_t *> cnp.PyArray_DATA(mask), scale, threads)
    else:
        run_dropout(<double *> cnp.PyArray_DATA(y), &view, <const uint8_t *> cnp.PyArray_DATA(mask), scale, threads)


# -- softmax ------------------------------------------------------------------------------------------------------

cdef void softmax_task(real *y, const fc_view *x, ix task, ix step, ix outer, ix classes, ix inner, int logarithm) noexcept nogil:
    """Rows [task * step, (task + 1) * step), or one strip of `step` positions."""
    cdef ix i, strips = ceil_div(inner, step)
    if inner == 1:
        for i in range(task * step, smaller(outer, (task + 1) * step)):
            if real is float:
                softmax_row_f32(x, y, i * classes, classes, logarithm)
            else:
                softmax_row_f64(x, y, i * classes, classes, logarithm)
        return
    i = task % strips * step
    if real is float:
        softmax_strip_f32(x, y, task // strips * classes * inner + i, classes, inner, smaller(step, inner - i), logarithm)
    else:
        softmax_strip_f64(x, y, task // strips * classes * inner + i, classes, inner, smaller(step, inner - i), logarithm)


cdef object run_softmax(real *y, fc_view *x, ix outer, ix classes, ix inner, int logarithm, int threads):
    cdef ix task, step = TASK // classes + 1 if inner == 1 else strip_width(classes, inner)
    cdef ix tasks = ceil_div(outer, step) if inner == 1 else outer * ceil_div(inner, step)
    with nogil:
        if threads_for(x.size, threads) == 1:
            for task in range(tasks):
                softmax_task(y, x, task, step, outer, classes, inner, logarithm)
        else:
            for task in prange(tasks, num_threads=threads, schedule="static"):
                softmax_task(y, x, task, step, outer, classes, inner, logarithm)


cdef void around(cnp.ndarray a, int axis, ix *outer, ix *size, ix *inner) noexcept:
    """The shape as (outer, along the axis, inner)."""
    cdef int i
    outer[0] = inner[0] = 1
    for i in range(axis):
        outer[0] *= cnp.PyArray_DIM(a, i)
    size[0] = cnp.PyArray_DIM(a, axis)
    for i in range(axis + 1, cnp.PyArray_NDIM(a)):
        inner[0] *= cnp.PyArray_DIM(a, i)


def softmax(cnp.ndarray x, cnp.ndarray y, int axis, bint logarithm, int threads):
    """y = softmax of x, or its logarithm, along an axis >= 0."""
    cdef fc_view view
    cdef ix outer, classes, inner
    check_result(y)
    around(y, axis, &outer, &classes, &inner)
    if cnp.PyArray_SIZE(y) == 0:
        return
    input_view(&view, x, cnp.PyArray_TYPE(y), outer * classes * inner, "x")
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_softmax(<float *> cnp.PyArray_DATA(y), &view, outer, classes, inner, logarithm, threads)
    else:
        run_softmax(<double *> cnp.PyArray_DATA(y), &view, outer, classes, inner, logarithm, threads)


cdef void softmax_backward_task(real *dx, const fc_view *dy, const fc_view *y, ix task, ix step, ix outer, ix classes, ix inner, int logarithm) noexcept nogil:
    cdef ix i, strips = ceil_div(inner, step)
    if inner == 1:
        for i in range(task * step, smaller(outer, (task + 1) * step)):
            if real is float:
                softmax_row_backward_f32(dy, y, dx, i * classes, classes, logarithm)
            else:
                softmax_row_backward_f64(dy, y, dx, i * classes, classes, logarithm)
        return
    i = task % strips * step
    if real is float:
        softmax_strip_backward_f32(dy, y, dx, task // strips * classes * inner + i, classes, inner, smaller(step, inner - i), logarithm)
    else:
        softmax_strip_backward_f64(dy, y, dx, task // strips * classes * inner + i, classes, inner, smaller(step, inner - i), logarithm)


cdef object run_softmax_backward(real *dx, fc_view *dy, fc_view *y, ix outer, ix classes, ix inner, int logarithm, int threads):
    cdef ix task, step = TASK // classes + 1 if inner == 1 else strip_width(classes, inner)
    cdef ix tasks = ceil_div(outer, step) if inner == 1 else outer * ceil_div(inner, step)
    with nogil:
        if threads_for(dy.size, threads) == 1:
            for task in range(tasks):
                softmax_backward_task(dx, dy, y, task, step, outer, classes, inner, logarithm)
        else:
            for task in prange(tasks, num_threads=threads, schedule="static"):
                softmax_backward_task(dx, dy, y, task, step, outer, classes, inner, logarithm)


def softmax_backward(cnp.ndarray dy, cnp.ndarray y, cnp.ndarray dx, int axis, bint logarithm, int threads):
    """The gradient of softmax from its output y."""
    cdef fc_view dy_view, y_view
    cdef ix outer, classes, inner
    check_result(dx)
    around(dx, axis, &outer, &classes, &inner)
    if cnp.PyArray_SIZE(dx) == 0:
        return
    input_view(&dy_view, dy, cnp.PyArray_TYPE(dx), outer * classes * inner, "dy")
    input_view(&y_view, y, cnp.PyArray_TYPE(dx), outer * classes * inner, "y")
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        run_softmax_backward(<float *> cnp.PyArray_DATA(dx), &dy_view, &y_view, outer, classes, inner, logarithm, threads)
    else:
        run_softmax_backward(<double *> cnp.PyArray_DATA(dx), &dy_view, &y_view, outer, classes, inner, logarithm, threads)


# -- maxout -------------------------------------------------------------------------------------------------------

cdef void maxout_task(real *y, int64_t *indices, const fc_view *x, ix first, ix count, ix pieces, ix inner) noexcept nogil:
    if real is float:
        maxout_f32(x, y, indices, first, count, pieces, inner)
    else:
        maxout_f64(x, y, indices, first, count, pieces, inner)


cdef object run_maxout(real *y, int64_t *indices, fc_view *x, ix size, ix pieces, ix inner, int threads):
    cdef ix task
    with nogil:
        if threads_for(size * pieces, threads) == 1:
            maxout_task(y, indices, x, 0, size, pieces, inner)
        else:
            for task in prange(ceil_div(size, TASK), num_threads=threads, schedule="static"):
                maxout_task(y, indices, x, task * TASK, task_length(task, size), pieces, inner)


def maxout(cnp.ndarray x, cnp.ndarray y, cnp.ndarray indices, ix pieces, ix inner, int threads):
    """y, seen as (groups, inner), is the maximum of x (groups, pieces, inner); indices say which piece."""
    cdef fc_view view
    cdef ix size = cnp.PyArray_SIZE(y)
    check_result(y)
    check_result(indices)
    input_view(&view, x, cnp.PyArray_TYPE(y), size * pieces, "x")
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_maxout(<float *> cnp.PyArray_DATA(y), <int64_t *> cnp.PyArray_DATA(indices), &view, size, pieces, inner, threads)
    else:
        run_maxout(<double *> cnp.PyArray_DATA(y), <int64_t *> cnp.PyArray_DATA(indices), &view, size, pieces, inner, threads)


cdef int maxout_backward_task(real *dx, const fc_view *dy, const fc_view *indices, ix first, ix count, ix pieces, ix inner, int64_t *wrong) noexcept nogil:
    if real is float:
        return maxout_backward_f32(dy, indices, dx, first, count, pieces, inner, wrong)
    else:
        return maxout_backward_f64(dy, indices, dx, first, count, pieces, inner, wrong)


cdef object run_maxout_backward(real *dx, fc_view *dy, fc_view *indices, ix pieces, ix inner, int threads):
    cdef ix task, size = dy.size
    cdef int bad = 0
    cdef int64_t wrong = 0
    with nogil:
        if threads_for(size * pieces, threads) == 1:
            bad = maxout_backward_task(dx, dy, indices, 0, size, pieces, inner, &wrong)
        else:
            for task in prange(ceil_div(size, TASK), num_threads=threads, schedule="static"):
                bad |= maxout_backward_task(dx, dy, indices, task * TASK, task_length(task, size), pieces, inner, &wrong)
    return wrong if bad else None


def maxout_backward(cnp.ndarray dy, cnp.ndarray indices, cnp.ndarray dx, ix pieces, ix inner, int threads):
    """dx is dy at the piece that won, 0 elsewhere. Returns None, or an index that is no piece."""
    cdef fc_view dy_view, index_view
    cdef ix size = cnp.PyArray_SIZE(dx) // pieces
    check_result(dx)
    input_view(&dy_view, dy, cnp.PyArray_TYPE(dx), size, "dy")
    input_view(&index_view, indices, cnp.NPY_INT64, size, "indices")
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        return run_maxout_backward(<float *> cnp.PyArray_DATA(dx), &dy_view, &index_view, pieces, inner, threads)
    return run_maxout_backward(<double *> cnp.PyArray_DATA(dx), &dy_view, &index_view, pieces, inner, threads)
