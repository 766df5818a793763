# The gradient of a bias, summed along with the gradient of the weights (native/bias.h): in double, one partial sum for each that the weights have. Whoever is not
# asked for it passes NULL.

cdef extern from "native/kernels.h" nogil:
    void add_rows_f32(double *sum, const float *const *rows, ix count, ix n)
    void add_rows_f64(double *sum, const double *const *rows, ix count, ix n)
    void add_stretches_f32(double *sums, ix rows, const fc_stretch *stretch, ix count, const float *A, ix a_row)
    void add_stretches_f64(double *sums, ix rows, const fc_stretch *stretch, ix count, const double *A, ix a_row)
    void add_turned_f32(double *sums, ix lanes, const fc_stretch *stretch, ix count, const float *B)
    void add_turned_f64(double *sums, ix lanes, const fc_stretch *stretch, ix count, const double *B)


cdef inline void add_rows(double *sum, const real *const *rows, ix count, ix n) noexcept nogil:
    """sum += the values of `count` rows of n; nothing for NULL."""
    if sum == NULL:
        return
    if real is float:
        add_rows_f32(sum, rows, count, n)
    else:
        add_rows_f64(sum, rows, count, n)


cdef inline size_t bias_bytes(ix parts, ix filters) noexcept nogil:
    """Of the partial sums of all filters."""
    return <size_t> padded(parts * filters) * sizeof(double)


cdef inline double *begin_bias(const real *dbias, void *memory, ix parts, ix filters) noexcept nogil:
    """The partial sums, zeros; NULL if dbias is."""
    if dbias == NULL:
        return NULL
    memset(memory, 0, bias_bytes(parts, filters))
    return <double *> memory


cdef inline void join_bias(real *dbias, const double *sums, ix parts, ix filters) noexcept nogil:
    """Partial sums, [part][filter], added up in order."""
    cdef ix filter, part
    cdef double total
    for filter in range(0 if dbias == NULL else filters):
        total = sums[filter]
        for part in range(1, parts):
            total += sums[part * filters + filter]
        dbias[filter] = <real> total


cdef inline void no_bias(real *dbias, ix filters) noexcept nogil:
    """The sums of nothing."""
    if dbias != NULL:
        memset(dbias, 0, filters * sizeof(real))


cdef inline void *data_or_null(cnp.ndarray array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(array)


cdef object check_bias(cnp.ndarray dbias, cnp.ndarray dweight, Shape shape):
    """An array that a kernel may write the gradient of the bias to, or None."""
    if dbias is None:
        return
    check_result(dbias)
    if cnp.PyArray_SIZE(dbias) != shape.K or cnp.PyArray_TYPE(dbias) != cnp.PyArray_TYPE(dweight):
        raise ValueError("dbias has the wrong size or type")
