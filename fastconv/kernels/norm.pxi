# Drivers of native/norm.h: sums over all axes but one, batch normalisation, local response normalisation.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_sums:
        ix N, C, inner
        int by_planes
        ix samples, piece, pieces, units, results, parts
    ctypedef struct fc_total:
        double sum, rest
    ctypedef struct affine_f32:
        const float *mean
        const float *scale
        const float *shift
        const float *factor
    ctypedef struct affine_f64:
        const double *mean
        const double *scale
        const double *shift
        const double *factor
    ctypedef struct fc_lrn:
        ix C, inner, size
        double alpha, beta, k
    uint32_t fc_load_bits32(const char *p, int swap)
    uint64_t fc_load_bits64(const char *p, int swap)
    void fc_sums_cut(fc_sums *s, ix N, ix C, ix inner)
    void fc_total_add(fc_total *t, double v)
    double fc_total_value(const fc_total *t)
    void fc_join_parts(double *out, const double *parts, const fc_sums *s, int kind, ix channel)
    void sum_planes_f32(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, float shift, ix c, ix unit, double *out)
    void sum_planes_f64(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, double shift, ix c, ix unit, double *out)
    void sum_columns_f32(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, const float *shift, ix unit, double *out)
    void sum_columns_f64(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, const double *shift, ix unit, double *out)
    void affine_planes_f32(const fc_view *x, const fc_view *g, const affine_f32 *a, ix C, ix channel, ix start, ix length, ix rows, float *y, int stream)
    void affine_planes_f64(const fc_view *x, const fc_view *g, const affine_f64 *a, ix C, ix channel, ix start, ix length, ix rows, double *y, int stream)
    void affine_columns_f32(const fc_view *x, const fc_view *g, const affine_f32 *a, ix column, ix start, ix count, float *y, int stream)
    void affine_columns_f64(const fc_view *x, const fc_view *g, const affine_f64 *a, ix column, ix start, ix count, double *y, int stream)
    void channel_scales_f64(double *out, const double *weight, const double *variance, double eps, ix C)
    void lrn_strip_f32(const fc_view *x, const fc_lrn *o, ix start, ix width, float *y, float *scratch)
    void lrn_strip_f64(const fc_view *x, const fc_lrn *o, ix start, ix width, double *y, double *scratch)
    void lrn_strip_backward_f32(const fc_view *dy, const fc_view *x, const fc_lrn *o, ix start, ix width, float *dx, float *scratch)
    void lrn_strip_backward_f64(const fc_view *dy, const fc_view *x, const fc_lrn *o, ix start, ix width, double *dx, double *scratch)
    enum:
        FC_SUM
        FC_PRODUCTS
        FC_MOMENTS
        FC_GRADIENTS
        FC_INNER_MIN


# -- sums over all axes but one -----------------------------------------------------------------------------------

cdef void sums_task(const real *shift, double *parts, const fc_view *x, const fc_view *y, const fc_sums *s, int kind, ix task) noexcept nogil:
    cdef ix channel = task // s.units, unit = task % s.units
    if s.by_planes:
        if real is float:
            sum_planes_f32(kind, s, x, y, shift[channel] if shift != NULL else 0, channel, unit, parts + task * kind)
        else:
            sum_planes_f64(kind, s, x, y, shift[channel] if shift != NULL else 0, channel, unit, parts + task * kind)
    else:
        if real is float:
            sum_columns_f32(kind, s, x, y, shift, task, parts)
        else:
            sum_columns_f64(kind, s, x, y, shift, task, parts)


cdef int run_sums(const real *shift, double *out, const fc_view *x, const fc_view *y, ix N, ix C, ix inner, int kind, int threads) except -1:
    """The `kind` numbers (native/norm.h) of every channel of x (N, C, inner), into out (C, kind). shift: of every channel, or of every column."""
    cdef fc_sums s
    cdef ix task, tasks
    cdef double *parts
    fc_sums_cut(&s, N, C, inner)
    tasks = s.units * C if s.by_planes else s.units
    threads = threads_for(x.size, threads)
    parts = <double *> take_scratch(s.parts * s.results * kind * sizeof(double))
    with nogil:
        if threads == 1:
            for task in range(tasks):
                sums_task(shift, parts, x, y, &s, kind, task)
        else:
            for task in prange(tasks, num_threads=threads, schedule="static"):
                sums_task(shift, parts, x, y, &s, kind, task)
        for task in range(C):
            fc_join_parts(out, parts, &s, kind, task)
        fc_scratch_give(parts)
    return 0


cdef int run_channel_sum(real *out, const fc_view *x, ix N, ix C, ix inner, int threads) except -1:
    cdef double *sums = <double *> take_scratch(C * sizeof(double))
    cdef ix c
    try:
        run_sums(<const real *> NULL, sums, x, NULL, N, C, inner, FC_SUM, threads)
        for c in range(C):
            out[c] = <real> sums[c]
    finally:
        fc_scratch_give(sums)
    return 0


def channel_sum(cnp.ndarray x, cnp.ndarray out, int axis, int threads):
    """out (C,) = the sums of x over all axes but one."""
    cdef fc_view view
    cdef ix N, C, inner
    check_result(out)
    around(x, axis, &N, &C, &inner)
    input_view(&view, x, cnp.PyArray_TYPE(out), N * C * inner, "x")
    if cnp.PyArray_SIZE(out) != C:
        raise ValueError("out has the wrong size")
    if cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT:
        run_channel_sum(<float *> cnp.PyArray_DATA(out), &view, N, C, inner, threads)
    else:
        run_channel_sum(<double *> cnp.PyArray_DATA(out), &view, N, C, inner, threads)


# -- batch normalisation: statistics, constants of one value a channel in double, and one affine map ----------------

cdef struct Channels:
    ix N, C, inner
    double eps
    double *sums                           # C * FC_GRADIENTS
    double *mean
    double *variance
    double *weight
    double *bias
    double *scale
    double *shift
    double *factor
    char *constants                        # mean, scale, shift, factor as the kernels read them, `stride` values each
    ix stride


cdef int take_channels(Channels *c, ix N, ix C, ix inner, double eps, ix itemsize) except -1:
    c.N, c.C, c.inner, c.eps = N, C, inner, eps
    c.stride = padded(C if inner >= FC_INNER_MIN else C * inner)
    c.sums = <double *> take_scratch((FC_GRADIENTS + 7) * C * sizeof(double) + 64 + 4 * c.stride * itemsize)
    c.mean = c.sums + FC_GRADIENTS * C
    c.variance, c.weight, c.bias, c.scale, c.shift, c.factor = c.mean + C, c.mean + 2 * C, c.mean + 3 * C, c.mean + 4 * C, c.mean + 5 * C, c.mean + 6 * C
    c.constants = <char *> (c.mean + 7 * C)
    c.constants += (64 - <size_t> c.constants % 64) % 64
    return 0


cdef int read_channels(double *out, cnp.ndarray a, Channels *c, int type, double default, str name) except -1:
    """One value a channel, of any strides and byte order, as double; `default` for None. The room for the constants is still free."""
    cdef fc_view view
    cdef ix i
    cdef const float *single
    cdef const double *double_
    if a is None:
        for i in range(c.C):
            out[i] = default
        return 0
    input_view(&view, a, type, c.C, name)
    if type == cnp.NPY_FLOAT:
        single = view_fetch_f32(&view, 0, c.C, <float *> c.constants)
        for i in range(c.C):
            out[i] = single[i]
    else:
        double_ = view_fetch_f64(&view, 0, c.C, <double *> c.constants)
        for i in range(c.C):
            out[i] = double_[i]
    return 0


cdef int update_channels(cnp.ndarray running, const double *batch, double bessel, double momentum, Channels *c, int type, str name) except -1:
    """running = (1 - momentum) * running + momentum * bessel * batch, in place, whatever its strides and byte order."""
    cdef ix i
    cdef int swap = cnp.PyArray_ISBYTESWAPPED(running)
    cdef char *at = <char *> cnp.PyArray_DATA(running)
    cdef uint32_t bits32
    cdef uint64_t bits64
    cdef float single
    cdef double double_
    read_channels(c.scale, running, c, type, 0, name)
    if cnp.PyArray_NDIM(running) != 1 or not cnp.PyArray_ISWRITEABLE(running):
        raise ValueError(f"{name} was changed during the call")
    for i in range(c.C):
        double_ = (1 - momentum) * c.scale[i] + momentum * bessel * batch[i]
        if type == cnp.NPY_FLOAT:
            single = <float> double_
            bits32 = fc_load_bits32(<const char *> &single, swap)
            memcpy(at, &bits32, sizeof(bits32))
        else:
            bits64 = fc_load_bits64(<const char *> &double_, swap)
            memcpy(at, &bits64, sizeof(bits64))
        at += cnp.PyArray_STRIDE(running, 0)
    return 0


cdef void spread_constants(real *constants, Channels *c) noexcept nogil:
    """The constants as the kernels read them: repeated for each position of a short inner axis. What rounding the mean leaves goes into the shift."""
    cdef ix channel, i, repeat = 1 if c.inner >= FC_INNER_MIN else c.inner, at = 0
    cdef real mean, scale, shift, factor
    for channel in range(c.C):
        mean, scale, factor = <real> c.mean[channel], <real> c.scale[channel], <real> c.factor[channel]
        shift = <real> (c.shift[channel] + (<double> mean - c.mean[channel]) * c.scale[channel])
        for i in range(repeat):
            constants[at], constants[c.stride + at], constants[2 * c.stride + at], constants[3 * c.stride + at] = mean, scale, shift, factor
            at += 1


cdef void affine_task(real *y, const fc_view *x, const fc_view *g, const real *constants, const Channels *c, ix task, ix rows, int stream) noexcept nogil:
    """So many planes, or a piece of one, or a piece of the columns of one sample."""
    cdef int planes = c.inner >= FC_INNER_MIN
    cdef ix run = c.inner if planes else c.C * c.inner, pieces = ceil_div(run, TASK)
    cdef ix row = task // pieces * rows, at = task % pieces * TASK, count = task_length(task % pieces, run)
    cdef affine_f32 single
    cdef affine_f64 double_
    rows = smaller(rows, c.N * c.C - row)
    if real is float:
        single.mean, single.scale, single.shift, single.factor = constants, constants + c.stride, constants + 2 * c.stride, constants + 3 * c.stride
        if planes:
            affine_planes_f32(x, g, &single, c.C, row % c.C, row * run + at, count, rows, y, stream)
        else:
            affine_columns_f32(x, g, &single, at, row * run + at, count, y, stream)
    else:
        double_.mean, double_.scale, double_.shift, double_.factor = constants, constants + c.stride, constants + 2 * c.stride, constants + 3 * c.stride
        if planes:
            affine_planes_f64(x, g, &double_, c.C, row % c.C, row * run + at, count, rows, y, stream)
        else:
            affine_columns_f64(x, g, &double_, at, row * run + at, count, y, stream)


cdef void run_affine(real *y, const fc_view *x, const fc_view *g, Channels *c, int threads) noexcept nogil:
    """y = (x - mean) * scale + shift + g * factor; x or g may be NULL and then takes no part."""
    cdef int planes = c.inner >= FC_INNER_MIN
    cdef ix rows = c.N * c.C if planes else c.N, run = c.inner if planes else c.C * c.inner
    cdef ix together = TASK // run if planes and run < TASK else 1
    cdef ix task, tasks = ceil_div(rows, together) * ceil_div(run, TASK)
    cdef real *constants = <real *> c.constants
    cdef int stream = streams(rows * run * sizeof(real))
    spread_constants(constants, c)
    if threads_for(rows * run, threads) == 1:
        for task in range(tasks):
            affine_task(y, x, g, constants, c, task, together, stream)
    else:
        for task in prange(tasks, num_threads=threads, schedule="static"):
            affine_task(y, x, g, constants, c, task, together, stream)


cdef int run_batch_norm(real *y, const fc_view *x, Channels *c, cnp.ndarray running_mean, cnp.ndarray running_var, bint training, double momentum,
                        int type, int threads) except -1:
    cdef ix i
    cdef double count
    if training:
        run_sums(<const real *> NULL, c.sums, x, NULL, c.N, c.C, c.inner, FC_MOMENTS, threads)
        count = c.N * c.inner
        for i in range(c.C):
            c.mean[i], c.variance[i] = c.sums[i * FC_MOMENTS + 1], c.sums[i * FC_MOMENTS + 2] / count
        if running_mean is not None:
            update_channels(running_mean, c.mean, 1, momentum, c, type, "running_mean")
        if running_var is not None:
            update_channels(running_var, c.variance, count / (count - 1), momentum, c, type, "running_var")
    with nogil:
        channel_scales_f64(c.scale, c.weight, c.variance, c.eps, c.C)
        memcpy(c.shift, c.bias, c.C * sizeof(double))
        memset(c.factor, 0, c.C * sizeof(double))
        run_affine(y, x, NULL, c, threads)
    return 0


def batch_norm(cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray running_mean, cnp.ndarray running_var, cnp.ndarray y,
               bint training, double momentum, double eps, int threads):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias for x (N, C, ...).

    Training takes mean and variance from x and updates the running arrays (of x's dtype, any strides, or None) in place.
    """
    cdef fc_view view
    cdef Channels c
    cdef ix N, C, inner
    cdef int type = cnp.PyArray_TYPE(y)
    check_result(y)
    around(y, 1, &N, &C, &inner)
    if cnp.PyArray_SIZE(y) == 0:
        return
    input_view(&view, x, type, N * C * inner, "x")
    take_channels(&c, N, C, inner, eps, cnp.PyArray_ITEMSIZE(y))
    try:
        read_channels(c.weight, weight, &c, type, 1, "weight")
        read_channels(c.bias, bias, &c, type, 0, "bias")
        if not training:
            read_channels(c.mean, running_mean, &c, type, 0, "running_mean")
            read_channels(c.variance, running_var, &c, type, 0, "running_var")
        if type == cnp.NPY_FLOAT:
            run_batch_norm(<float *> cnp.PyArray_DATA(y), &view, &c, running_mean, running_var, training, momentum, type, threads)
        else:
            run_batch_norm(<double *> cnp.PyArray_DATA(y), &view, &c, running_mean, running_var, training, momentum, type, threads)
    finally:
        fc_scratch_give(c.sums)


cdef int run_batch_norm_backward(real *dx, real *dweight, real *dbias, const fc_view *dy, const fc_view *x, Channels *c, bint training, int threads) except -1:
    cdef ix i, channel, repeat = 1 if c.inner >= FC_INNER_MIN else c.inner
    cdef double count = c.N * c.inner, inverse, sum, product
    cdef real *near = <real *> c.constants
    if training:
        run_sums(<const real *> NULL, c.sums, x, dy, c.N, c.C, c.inner, FC_GRADIENTS, threads)
    else:
        for channel in range(c.C):
            for i in range(repeat):
                near[channel * repeat + i] = <real> c.mean[channel]
        run_sums(near, c.sums, x, dy, c.N, c.C, c.inner, FC_PRODUCTS, threads)
    with nogil:
        for i in range(c.C):
            if training:
                c.mean[i], c.variance[i] = c.sums[i * FC_GRADIENTS + 1], c.sums[i * FC_GRADIENTS + 2] / count
                sum, product = c.sums[i * FC_GRADIENTS + 3], c.sums[i * FC_GRADIENTS + 4]
            else:
                sum, product = c.sums[i * FC_PRODUCTS], c.sums[i * FC_PRODUCTS + 1]
                product += (<double> <real> c.mean[i] - c.mean[i]) * sum
            inverse = 1 / sqrt(c.variance[i] + c.eps)
            product *= inverse  # sum of dy * z, z = (x - mean) * inverse
            dbias[i], dweight[i] = <real> sum, <real> product
            # dx = factor * (dy - dbias / count - z * dweight / count), without the means if not training
            c.factor[i] = c.weight[i] * inverse
            c.scale[i] = -c.factor[i] * inverse * product / count if training else 0
            c.shift[i] = -c.factor[i] * sum / count if training else 0
            if not training:
                c.mean[i] = 0
        run_affine(dx, x if training else NULL, dy, c, threads)
    return 0


def batch_norm_backward(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray weight, cnp.ndarray running_mean, cnp.ndarray running_var, cnp.ndarray dx, cnp.ndarray dweight,
                        cnp.ndarray dbias, bint training, double eps, int threads):
    """The gradients of batch_norm for x (N, C, ...), which is not empty: dx, dweight (C,), dbias (C,)."""
    cdef fc_view x_view, dy_view
    cdef Channels c
    cdef ix N, C, inner
    cdef int type = cnp.PyArray_TYPE(dx)
    around(dx, 1, &N, &C, &inner)
    for result in (dx, dweight, dbias):
        check_result(result)
    if cnp.PyArray_SIZE(dweight) != C or cnp.PyArray_SIZE(dbias) != C or cnp.PyArray_SIZE(dx) != N * C * inner:
        raise ValueError("the results have the wrong size")
    input_view(&x_view, x, type, N * C * inner, "x")
    input_view(&dy_view, dy, type, N * C * inner, "dy")
    take_channels(&c, N, C, inner, eps, cnp.PyArray_ITEMSIZE(dx))
    try:
        read_channels(c.weight, weight, &c, type, 1, "weight")
        if not training:
            read_channels(c.mean, running_mean, &c, type, 0, "running_mean")
            read_channels(c.variance, running_var, &c, type, 0, "running_var")
        if type == cnp.NPY_FLOAT:
            run_batch_norm_backward(<float *> cnp.PyArray_DATA(dx), <float *> cnp.PyArray_DATA(dweight), <float *> cnp.PyArray_DATA(dbias),
                                    &dy_view, &x_view, &c, training, threads)
        else:
            run_batch_norm_backward(<double *> cnp.PyArray_DATA(dx), <double *> cnp.PyArray_DATA(dweight), <double *> cnp.PyArray_DATA(dbias),
                                    &dy_view, &x_view, &c, training, threads)
    finally:
        fc_scratch_give(c.sums)


# -- local response normalisation -----------------------------------------------------------------------------------

cdef void lrn_task(real *y, const fc_view *dy, const fc_view *x, const fc_lrn *o, ix task, ix width, real *scratch) noexcept nogil:
    """One strip of `width` positions of one sample."""
    cdef ix strips = ceil_div(o.inner, width), at = task % strips * width, count = smaller(width, o.inner - at)
    at += task // strips * o.C * o.inner
    if real is float:
        if dy == NULL:
            lrn_strip_f32(x, o, at, count, y, scratch)
        else:
            lrn_strip_backward_f32(dy, x, o, at, count, y, scratch)
    else:
        if dy == NULL:
            lrn_strip_f64(x, o, at, count, y, scratch)
        else:
            lrn_strip_backward_f64(dy, x, o, at, count, y, scratch)


cdef object run_lrn(real *y, fc_view *dy, fc_view *x, fc_lrn *o, ix N, int threads):
    cdef ix width = strip_width(o.C, o.inner), tasks = N * ceil_div(o.inner, width), task
    cdef ix room = padded(o.C * width * (1 if dy == NULL else 2))
    cdef real *scratch
    threads = threads_for(x.size, threads)
    scratch = <real *> take_scratch(threads * room * sizeof(real))
    with nogil:
        if threads == 1:
            for task in range(tasks):
                lrn_task(y, dy, x, o, task, width, scratch)
        else:
            for task in prange(tasks, num_threads=threads, schedule="static"):
                lrn_task(y, dy, x, o, task, width, scratch + threadid() * room)
        fc_scratch_give(scratch)


def local_response_norm(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray y, ix size, double alpha, double beta, double k, int threads):
    """y = x / (k + alpha / size * sum of x^2 over `size` channels)^beta; with dy not None, y is the gradient dx."""
    cdef fc_view x_view, dy_view
    cdef fc_lrn o
    cdef ix N, C, inner
    cdef int type = cnp.PyArray_TYPE(y)
    around(y, 1, &N, &C, &inner)
    if cnp.PyArray_SIZE(y) == 0:
        return
    o.C, o.inner, o.size, o.alpha, o.beta, o.k = C, inner, size, alpha, beta, k
    check_result(y)
    input_view(&x_view, x, type, N * C * inner, "x")
    if dy is not None:
        input_view(&dy_view, dy, type, N * C * inner, "dy")
    if type == cnp.NPY_FLOAT:
        run_lrn(<float *> cnp.PyArray_DATA(y), &dy_view if dy is not None else NULL, &x_view, &o, N, threads)
    else:
        run_lrn(<double *> cnp.PyArray_DATA(y), &dy_view if dy is not None else NULL, &x_view, &o, N, threads)
