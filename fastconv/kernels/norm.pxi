# Drivers of native/norm.h: sums over all axes but one, batch normalisation, local response normalisation.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_sums:
        ix N, C, inner
        int by_planes
        ix samples, piece, pieces, units, results, parts
    ctypedef struct fc_total:
        double sum, rest
    ctypedef struct fc_moments:
        double count, mean, square
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
    void fc_sums_cut(fc_sums *s, ix N, ix C, ix inner)
    void fc_total_add(fc_total *t, double v)
    double fc_total_value(const fc_total *t)
    void fc_moments_add(fc_moments *m, const double *part)
    void sum_planes_f32(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, float shift, ix c, ix unit, double *out)
    void sum_planes_f64(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, double shift, ix c, ix unit, double *out)
    void sum_columns_f32(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, const float *shift, ix unit, double *out)
    void sum_columns_f64(int kind, const fc_sums *s, const fc_view *x, const fc_view *y, const double *shift, ix unit, double *out)
    void affine_plane_f32(const fc_view *x, const fc_view *g, const affine_f32 *a, ix channel, ix start, ix count, float *y)
    void affine_plane_f64(const fc_view *x, const fc_view *g, const affine_f64 *a, ix channel, ix start, ix count, double *y)
    void affine_columns_f32(const fc_view *x, const fc_view *g, const affine_f32 *a, ix column, ix start, ix count, float *y)
    void affine_columns_f64(const fc_view *x, const fc_view *g, const affine_f64 *a, ix column, ix start, ix count, double *y)
    void lrn_strip_f32(const fc_view *x, const fc_lrn *o, ix start, ix width, float *y, float *scratch)
    void lrn_strip_f64(const fc_view *x, const fc_lrn *o, ix start, ix width, double *y, double *scratch)
    void lrn_strip_backward_f32(const fc_view *dy, const fc_view *x, const fc_lrn *o, ix start, ix width, float *dx, float *scratch)
    void lrn_strip_backward_f64(const fc_view *dy, const fc_view *x, const fc_lrn *o, ix start, ix width, double *dx, double *scratch)
    enum:
        FC_SUM
        FC_PRODUCTS
        FC_MOMENTS
        FC_INNER_MIN


cdef void join_parts(double *out, const double *parts, const fc_sums *s, int kind, ix channel) noexcept nogil:
    """The `kind` numbers of a channel from those of its units, in order."""
    cdef fc_total total
    cdef fc_moments moments
    cdef ix i, part, count = s.parts if s.by_planes else s.parts * s.inner, number
    cdef const double *p
    moments.count = moments.mean = moments.square = 0
    for number in range(1 if kind == FC_MOMENTS else kind):
        total.sum = total.rest = 0
        for i in range(count):
            # planes: (channel, part); columns: (part, channel, inner)
            part = channel * count + i if s.by_planes else (i // s.inner * s.C + channel) * s.inner + i % s.inner
            p = parts + part * kind
            if kind == FC_MOMENTS:
                fc_moments_add(&moments, p)
            else:
                fc_total_add(&total, p[number])
        out[channel * kind + number] = fc_total_value(&total)
    if kind == FC_MOMENTS:
        out[channel * kind] = moments.count
        out[channel * kind + 1] = moments.mean
        out[channel * kind + 2] = moments.square


cdef object run_sums(real *shift, double *out, fc_view *x, fc_view *y, fc_sums *s, int kind, int threads):
    cdef ix task, tasks = s.units * s.C if s.by_planes else s.units
    cdef double *parts
    threads = threads_for(x.size, threads)
    parts = <double *> take_scratch(s.parts * s.results * kind * sizeof(double))
    with nogil:
        for task in prange(tasks, num_threads=threads, schedule="static"):
            if s.by_planes:
                if real is float:
                    sum_planes_f32(kind, s, x, y, shift[task // s.units] if shift != NULL else 0, task // s.units, task % s.units, parts + task * kind)
                else:
                    sum_planes_f64(kind, s, x, y, shift[task // s.units] if shift != NULL else 0, task // s.units, task % s.units, parts + task * kind)
            else:
                if real is float:
                    sum_columns_f32(kind, s, x, y, shift, task, parts)
                else:
                    sum_columns_f64(kind, s, x, y, shift, task, parts)
        for task in range(s.C):
            join_parts(out, parts, s, kind, task)
        fc_scratch_give(parts)


def channel_sums(cnp.ndarray x, cnp.ndarray y, cnp.ndarray shift, cnp.ndarray out, ix N, ix C, ix inner, int threads):
    """Sums of x (N, C, inner) over N and inner, into out (C, 1 to 3), float64. By the columns of out:

    1: sum of x.  2: sum of y, sum of y * (x - shift[c]).  3: number, mean, sum of squared deviations from it.
    `shift` is contiguous, of x's dtype, one value a channel, or one a column where inner < INNER_MIN.
    """
    cdef fc_view x_view, y_view
    cdef fc_sums s
    cdef int kind = cnp.PyArray_DIM(out, 1), type = cnp.PyArray_TYPE(x)
    cdef void *shifts = NULL
    check_result(out)
    fc_sums_cut(&s, N, C, inner)
    input_view(&x_view, x, type, N * C * inner, "x")
    if kind == FC_PRODUCTS:
        input_view(&y_view, y, type, N * C * inner, "y")
        check_result(shift)
        if cnp.PyArray_TYPE(shift) != type or cnp.PyArray_SIZE(shift) != s.results:
            raise ValueError("shift does not match x")
        shifts = cnp.PyArray_DATA(shift)
    if type == cnp.NPY_FLOAT:
        run_sums(<float *> shifts, <double *> cnp.PyArray_DATA(out), &x_view, &y_view, &s, kind, threads)
    else:
        run_sums(<double *> shifts, <double *> cnp.PyArray_DATA(out), &x_view, &y_view, &s, kind, threads)


INNER_MIN = FC_INNER_MIN


cdef object run_affine(real *y, fc_view *x, fc_view *g, const real *constants, ix stride, ix N, ix C, ix inner, int threads):
    """constants: mean, scale, shift, factor, `stride` apart."""
    cdef int planes = inner >= FC_INNER_MIN
    cdef ix run = inner if planes else C * inner, pieces = ceil_div(run, TASK), task, at, count
    cdef affine_f32 single
    cdef affine_f64 double_
    threads = threads_for(N * C * inner, threads)
    if real is float:
        single.mean, single.scale, single.shift, single.factor = constants, constants + stride, constants + 2 * stride, constants + 3 * stride
    else:
        double_.mean, double_.scale, double_.shift, double_.factor = constants, constants + stride, constants + 2 * stride, constants + 3 * stride
    with nogil:
        for task in prange((N * C if planes else N) * pieces, num_threads=threads, schedule="static"):
            at = task % pieces * TASK
            count = task_length(task % pieces, run)
            if planes:
                if real is float:
                    affine_plane_f32(x, g, &single, task // pieces % C, task // pieces * run + at, count, y)
                else:
                    affine_plane_f64(x, g, &double_, task // pieces % C, task // pieces * run + at, count, y)
            else:
                if real is float:
                    affine_columns_f32(x, g, &single, at, task // pieces * run + at, count, y)
                else:
                    affine_columns_f64(x, g, &double_, at, task // pieces * run + at, count, y)


def channel_affine(cnp.ndarray x, cnp.ndarray g, cnp.ndarray constants, cnp.ndarray y, ix N, ix C, ix inner, int threads):
    """y = (x - mean) * scale + shift + g * factor for arrays (N, C, inner); x or g may be None and then takes no part.

    constants: (mean, scale, shift, factor) in rows, one value a channel, or one a column where inner < INNER_MIN.
    """
    cdef fc_view x_view, g_view
    cdef ix stride = C if inner >= FC_INNER_MIN else C * inner
    cdef int type = cnp.PyArray_TYPE(y)
    check_result(y)
    check_result(constants)
    if cnp.PyArray_TYPE(constants) != type or cnp.PyArray_SIZE(constants) != 4 * stride or cnp.PyArray_SIZE(y) != N * C * inner:
        raise ValueError("constants do not match y")
    if x is not None:
        input_view(&x_view, x, type, N * C * inner, "x")
    if g is not None:
        input_view(&g_view, g, type, N * C * inner, "dy")
    if type == cnp.NPY_FLOAT:
        run_affine(<float *> cnp.PyArray_DATA(y), &x_view if x is not None else NULL, &g_view if g is not None else NULL,
                   <float *> cnp.PyArray_DATA(constants), stride, N, C, inner, threads)
    else:
        run_affine(<double *> cnp.PyArray_DATA(y), &x_view if x is not None else NULL, &g_view if g is not None else NULL,
                   <double *> cnp.PyArray_DATA(constants), stride, N, C, inner, threads)


cdef object run_lrn(real *y, fc_view *dy, fc_view *x, fc_lrn *o, ix N, int threads):
    cdef ix width = strip_width(o.C, o.inner), strips = ceil_div(o.inner, width), task, at, count
    cdef ix room = padded(o.C * width * (1 if dy == NULL else 2))
    cdef real *scratch
    threads = threads_for(x.size, threads)
    scratch = <real *> take_scratch(threads * room * sizeof(real))
    with nogil:
        for task in prange(N * strips, num_threads=threads, schedule="static"):
            at = task % strips * width
            count = width if width < o.inner - at else o.inner - at
            at = at + task // strips * o.C * o.inner
            if real is float:
                if dy == NULL:
                    lrn_strip_f32(x, o, at, count, y, scratch + threadid() * room)
                else:
                    lrn_strip_backward_f32(dy, x, o, at, count, y, scratch + threadid() * room)
            else:
                if dy == NULL:
                    lrn_strip_f64(x, o, at, count, y, scratch + threadid() * room)
                else:
                    lrn_strip_backward_f64(dy, x, o, at, count, y, scratch + threadid() * room)
        fc_scratch_give(scratch)


def local_response_norm(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray y, ix N, ix C, ix inner, ix size, double alpha, double beta, double k, int threads):
    """y = x / (k + alpha / size * sum of x^2 over `size` channels)^beta; with dy not None, y is the gradient dx."""
    cdef fc_view x_view, dy_view
    cdef fc_lrn o
    cdef int type = cnp.PyArray_TYPE(y)
    o.C, o.inner, o.size, o.alpha, o.beta, o.k = C, inner, size, alpha, beta, k
    check_result(y)
    input_view(&x_view, x, type, N * C * inner, "x")
    if dy is not None:
        input_view(&dy_view, dy, type, N * C * inner, "dy")
    if type == cnp.NPY_FLOAT:
        run_lrn(<float *> cnp.PyArray_DATA(y), &dy_view if dy is not None else NULL, &x_view, &o, N, threads)
    else:
        run_lrn(<double *> cnp.PyArray_DATA(y), &dy_view if dy is not None else NULL, &x_view, &o, N, threads)
