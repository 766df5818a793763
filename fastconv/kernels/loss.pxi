# Drivers of the fused losses in native/loss.h.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_entropy:
        ix classes, inner
        const int64_t *label
        const fc_view *target
        const void *weight
        double weight_sum, smoothing, scale
    double fc_label_total(int64_t *labels, ix count, ix classes, int has_ignore, int64_t ignore, const double *weight, ix *wrong)
    double sum_values_f32(const float *x, ix count)
    double sum_values_f64(const double *x, ix count)
    void entropy_row_f32(const fc_view *x, const fc_entropy *o, ix sample, float *losses, float *d)
    void entropy_row_f64(const fc_view *x, const fc_entropy *o, ix sample, double *losses, double *d)
    void entropy_strip_f32(const fc_view *x, const fc_entropy *o, ix sample, ix column, ix width, float *losses, float *d)
    void entropy_strip_f64(const fc_view *x, const fc_entropy *o, ix sample, ix column, ix width, double *losses, double *d)
    void nll_f32(const fc_view *x, const fc_entropy *o, ix first, ix count, float *losses, float *d)
    void nll_f64(const fc_view *x, const fc_entropy *o, ix first, ix count, double *losses, double *d)
    void hinge_row_f32(const fc_view *x, const int64_t *labels, ix classes, ix sample, float margin, float scale, float *losses, float *d)
    void hinge_row_f64(const fc_view *x, const int64_t *labels, ix classes, ix sample, double margin, double scale, double *losses, double *d)
    void hinge_strip_f32(const fc_view *x, const int64_t *labels, ix classes, ix inner, ix sample, ix column, ix width, float margin, float scale, float *losses, float *d)
    void hinge_strip_f64(const fc_view *x, const int64_t *labels, ix classes, ix inner, ix sample, ix column, ix width, double margin, double scale, double *losses, double *d)
    double sigmoid_entropy_f32(const fc_view *x, const fc_view *t, const fc_view *w, const fc_view *p, ix start, ix count, float scale, float *losses, float *d)
    double sigmoid_entropy_f64(const fc_view *x, const fc_view *t, const fc_view *w, const fc_view *p, ix start, ix count, double scale, double *losses, double *d)
    double squared_error_f32(const fc_view *x, const fc_view *t, ix start, ix count, float scale, float *losses, float *d)
    double squared_error_f64(const fc_view *x, const fc_view *t, ix start, ix count, double scale, double *losses, double *d)
    enum:
        FC_BLOCK

cdef enum:
    SOFTMAX, NLL, HINGE             # kinds of loss with classes
    SIGMOID_ENTROPY, SQUARED_ERROR  # and without


# -- losses with classes: (N, classes, inner) ---------------------------------------------------------------------

def label_total(cnp.ndarray labels, ix classes, ignore, cnp.ndarray weight):
    """Check int64 labels, a private copy, and mark the ignored ones -1, in place.

    Returns (sum of weight[label], None), or (anything, the first label that is no class). weight: float64 or None.
    """
    cdef ix wrong = -1
    cdef double total
    cdef const double *weights = NULL
    check_result(labels)
    if weight is not None:
        weights = <const double *> cnp.PyArray_DATA(weight)
    total = fc_label_total(<int64_t *> cnp.PyArray_DATA(labels), cnp.PyArray_SIZE(labels), classes, ignore is not None,
                           0 if ignore is None else ignore, weights, &wrong)
    return total, None if wrong < 0 else (<const int64_t *> cnp.PyArray_DATA(labels))[wrong]


cdef void class_loss_task(real *d, real *losses, int kind, const fc_view *x, const fc_entropy *o, double margin, ix N, ix task, ix step) noexcept nogil:
    """Positions [task * step, (task + 1) * step) of "nll"; else so many samples, or where classes do not lie together one strip of `step` positions."""
    cdef ix i, strips = ceil_div(o.inner, step)
    if kind == NLL:
        if real is float:
            nll_f32(x, o, task * step, smaller(step, N * o.inner - task * step), losses, d)
        else:
            nll_f64(x, o, task * step, smaller(step, N * o.inner - task * step), losses, d)
    elif o.inner == 1:
        for i in range(task * step, smaller(N, (task + 1) * step)):
            if real is float:
                if kind == SOFTMAX:
                    entropy_row_f32(x, o, i, losses, d)
                else:
                    hinge_row_f32(x, o.label, o.classes, i, <float> margin, <float> o.scale, losses, d)
            else:
                if kind == SOFTMAX:
                    entropy_row_f64(x, o, i, losses, d)
                else:
                    hinge_row_f64(x, o.label, o.classes, i, margin, o.scale, losses, d)
    else:
        i = task % strips * step
        if real is float:
            if kind == SOFTMAX:
                entropy_strip_f32(x, o, task // strips, i, smaller(step, o.inner - i), losses, d)
            else:
                hinge_strip_f32(x, o.label, o.classes, o.inner, task // strips, i, smaller(step, o.inner - i), <float> margin, <float> o.scale, losses, d)
        else:
            if kind == SOFTMAX:
                entropy_strip_f64(x, o, task // strips, i, smaller(step, o.inner - i), losses, d)
            else:
                hinge_strip_f64(x, o.label, o.classes, o.inner, task // strips, i, smaller(step, o.inner - i), margin, o.scale, losses, d)


cdef double run_class_loss(real *d, real *losses, int kind, fc_view *x, fc_entropy *o, double margin, ix N, int threads):
    cdef ix task, tasks, step
    if kind == NLL:
        step, tasks = TASK, ceil_div(N * o.inner, TASK)
    elif o.inner == 1:
        step = TASK // o.classes + 1
        tasks = ceil_div(N, step)
    else:
        step = strip_width(o.classes, o.inner)
        tasks = N * ceil_div(o.inner, step)
    with nogil:
        if threads_for(N * o.classes * o.inner, threads) == 1:
            for task in range(tasks):
                class_loss_task(d, losses, kind, x, o, margin, N, task, step)
        else:
            for task in prange(tasks, num_threads=threads, schedule="static"):
                class_loss_task(d, losses, kind, x, o, margin, N, task, step)
    if real is float:
        return sum_values_f32(losses, N * o.inner)
    else:
        return sum_values_f64(losses, N * o.inner)


cdef dict CLASS_LOSSES = {"softmax_cross_entropy": SOFTMAX, "nll": NLL, "hinge": HINGE}


def class_loss(str name, cnp.ndarray x, cnp.ndarray labels, cnp.ndarray target, cnp.ndarray weight, cnp.ndarray losses, cnp.ndarray d,
               ix N, ix classes, ix inner, double smoothing, double margin, double scale, int threads):
    """The losses (N, inner) of scores x (N, classes, inner), and d = scale times the gradient of their sum. Returns that sum.

    labels: int64 (N, inner), checked by label_total, or None, and then target holds probabilities like x. weight: of the classes, of x's
    dtype, contiguous, or None. For "nll" d arrives zeroed. classes > 0.
    """
    cdef fc_view view, target_view
    cdef fc_entropy o
    cdef int kind = CLASS_LOSSES[name], type = cnp.PyArray_TYPE(d)
    check_result(d)
    check_result(losses)
    input_view(&view, x, type, N * classes * inner, "x")
    o.classes, o.inner, o.smoothing, o.scale = classes, inner, smoothing, scale
    o.label, o.target, o.weight, o.weight_sum = NULL, NULL, NULL, <double> classes
    if labels is not None:
        if cnp.PyArray_SIZE(labels) != N * inner:
            raise ValueError("labels do not match x")
        o.label = <const int64_t *> cnp.PyArray_DATA(labels)
    else:
        input_view(&target_view, target, type, N * classes * inner, "target")
        o.target = &target_view
    if weight is not None:
        if cnp.PyArray_TYPE(weight) != type or cnp.PyArray_SIZE(weight) != classes or not cnp.PyArray_ISCARRAY_RO(weight):
            raise ValueError("weight does not match x")
        o.weight = cnp.PyArray_DATA(weight)
    if type == cnp.NPY_FLOAT:
        if o.weight != NULL:
            o.weight_sum = sum_values_f32(<const float *> o.weight, classes)
        return run_class_loss(<float *> cnp.PyArray_DATA(d), <float *> cnp.PyArray_DATA(losses), kind, &view, &o, margin, N, threads)
    if o.weight != NULL:
        o.weight_sum = sum_values_f64(<const double *> o.weight, classes)
    return run_class_loss(<double *> cnp.PyArray_DATA(d), <double *> cnp.PyArray_DATA(losses), kind, &view, &o, margin, N, threads)


# -- elementwise losses -------------------------------------------------------------------------------------------

cdef double element_loss_task(real *d, real *losses, int kind, const fc_view *x, const fc_view *t, const fc_view *w, const fc_view *p, double scale,
                              ix start, ix count) noexcept nogil:
    if real is float:
        if kind == SQUARED_ERROR:
            return squared_error_f32(x, t, start, count, <float> scale, losses, d)
        return sigmoid_entropy_f32(x, t, w, p, start, count, <float> scale, losses, d)
    else:
        if kind == SQUARED_ERROR:
            return squared_error_f64(x, t, start, count, scale, losses, d)
        return sigmoid_entropy_f64(x, t, w, p, start, count, scale, losses, d)


cdef double run_element_loss(real *d, real *losses, int kind, fc_view *x, fc_view *t, fc_view *w, fc_view *p, double scale, int threads) except? -1:
    cdef ix task, size = x.size, blocks = ceil_div(size, FC_BLOCK)
    cdef fc_total total
    cdef double *parts
    total.sum = total.rest = 0
    if threads_for(size, threads) == 1:
        with nogil:
            for task in range(blocks):
                fc_total_add(&total, element_loss_task(d, losses, kind, x, t, w, p, scale, task * FC_BLOCK, smaller(FC_BLOCK, size - task * FC_BLOCK)))
        return fc_total_value(&total)
    parts = <double *> take_scratch(blocks * sizeof(double))
    with nogil:
        for task in prange(blocks, num_threads=threads, schedule="static"):
            parts[task] = element_loss_task(d, losses, kind, x, t, w, p, scale, task * FC_BLOCK, smaller(FC_BLOCK, size - task * FC_BLOCK))
        for task in range(blocks):
            fc_total_add(&total, parts[task])
        fc_scratch_give(parts)
    return fc_total_value(&total)


cdef dict ELEMENT_LOSSES = {"sigmoid_cross_entropy": SIGMOID_ENTROPY, "squared_error": SQUARED_ERROR}


def element_loss(str name, cnp.ndarray x, cnp.ndarray target, cnp.ndarray weight, cnp.ndarray pos_weight, cnp.ndarray losses, cnp.ndarray d,
                 double scale, int threads):
    """The losses of all elements (kept if losses is not None), and d = scale times the gradient of their sum. Returns that sum.

    weight and pos_weight, or None: of x's shape (strides of 0 will do).
    """
    cdef fc_view view, target_view, weight_view, pos_view
    cdef fc_view *w = NULL
    cdef fc_view *p = NULL
    cdef void *kept = NULL
    cdef int kind = ELEMENT_LOSSES[name], type = cnp.PyArray_TYPE(d)
    cdef ix size = cnp.PyArray_SIZE(d)
    check_result(d)
    input_view(&view, x, type, size, "x")
    input_view(&target_view, target, type, size, "target")
    if weight is not None:
        input_view(&weight_view, weight, type, size, "weight")
        w = &weight_view
    if pos_weight is not None:
        input_view(&pos_view, pos_weight, type, size, "pos_weight")
        p = &pos_view
    if losses is not None:
        check_result(losses)
        kept = cnp.PyArray_DATA(losses)
    if type == cnp.NPY_FLOAT:
        return run_element_loss(<float *> cnp.PyArray_DATA(d), <float *> kept, kind, &view, &target_view, w, p, scale, threads)
    return run_element_loss(<double *> cnp.PyArray_DATA(d), <double *> kept, kind, &view, &target_view, w, p, scale, threads)
