# The textbook form: the matrix of patches written out, its adjoint, and the plain matrix products that go with it.

cdef extern from "native/kernels.h" nogil:
    void stage_row_f32(float *dst, const char *row, const fc_axis *axis, ix start, ix count, ix stride, int swap)
    void stage_row_f64(double *dst, const char *row, const fc_axis *axis, ix start, ix count, ix stride, int swap)


cdef void columns_of_plane(real *cols, const fc_axis *axis, const fc_source *s, const char *plane) noexcept nogil:
    """All taps x output positions of one channel of one sample."""
    cdef ix td, th, tw, od, oh, d, h, ow = axis[2].out
    cdef const char *row
    for td in range(axis[0].taps):
        for th in range(axis[1].taps):
            for tw in range(axis[2].taps):
                for od in range(axis[0].out):
                    d = fc_source_index(&axis[0], od * axis[0].step + axis[0].offset[td])
                    for oh in range(axis[1].out):
                        h = fc_source_index(&axis[1], oh * axis[1].step + axis[1].offset[th])
                        row = NULL
                        if d >= 0 and h >= 0:
                            row = plane + d * s.d + h * s.h
                        if real is float:
                            stage_row_f32(cols, row, &axis[2], axis[2].offset[tw], ow, s.w, s.swap)
                        else:
                            stage_row_f64(cols, row, &axis[2], axis[2].offset[tw], ow, s.w, s.swap)
                        cols += ow


cdef object run_im2col(real *cols, Shape p, fc_source *x, int threads):
    cdef fc_axis axis[3]
    cdef Tables t = Tables(p)
    cdef ix plane, length = p.taps * p.out[0] * p.out[1] * p.out[2]
    forward_axes(axis, t, p)
    threads = threads_for(p.N * p.C * length, threads)
    with nogil:
        if threads == 1:
            for plane in range(p.N * p.C):
                columns_of_plane(cols + plane * length, axis, x, x.data + plane // p.C * x.n + plane % p.C * x.c)
        else:
            for plane in prange(p.N * p.C, num_threads=threads, schedule="static"):
                columns_of_plane(cols + plane * length, axis, x, x.data + plane // p.C * x.n + plane % p.C * x.c)


def im2col(cnp.ndarray x, cnp.ndarray cols, Shape shape, int threads):
    """cols (N, C*taps, L) = the patches of x as columns."""
    cdef fc_source source
    check_result(cols)
    make_source(&source, x, shape, shape.C, shape.size, "x")
    if cnp.PyArray_TYPE(cols) == cnp.NPY_FLOAT:
        run_im2col(<float *> cnp.PyArray_DATA(cols), shape, &source, threads)
    else:
        run_im2col(<double *> cnp.PyArray_DATA(cols), shape, &source, threads)


cdef void plane_of_columns(real *x, const fc_axis *axis, const fc_view *cols, ix start, real *buffer) noexcept nogil:
    """One channel of one sample: every tap's column added where it came from, taps in ascending order."""
    cdef ix td, th, tw, od, oh, d, h, i, first, last, ow = axis[2].out, step = axis[2].step
    cdef int together = cols.direct and cols.ndim == 1
    cdef const real *row
    cdef real *to
    memset(x, 0, axis[0].size * axis[1].size * axis[2].size * sizeof(real))
    for td in range(axis[0].taps):
        for th in range(axis[1].taps):
            for tw in range(axis[2].taps):
                # outputs [first, last) found this tap inside the row; the others in padding, which stands for nothing or for another place
                first = smaller(ow, ceil_div(larger(0, -axis[2].offset[tw]), step))
                last = larger(first, smaller(ow, ceil_div(larger(0, axis[2].size - axis[2].offset[tw]), step)))
                for od in range(axis[0].out):
                    d = fc_source_index(&axis[0], od * axis[0].step + axis[0].offset[td])
                    for oh in range(axis[1].out):
                        h = fc_source_index(&axis[1], oh * axis[1].step + axis[1].offset[th])
                        if d >= 0 and h >= 0:
                            # rows may be short: the divisions of a view would take longer than adding one
                            row = <const real *> cols.data + start if together else view_fetch(cols, start, ow, buffer)
                            to = x + (d * axis[1].size + h) * axis[2].size
                            if axis[2].mode:
                                for i in range(first):
                                    to[fc_source_index(&axis[2], i * step + axis[2].offset[tw])] += row[i]
                            for i in range(first, last):
                                to[i * step + axis[2].offset[tw]] += row[i]
                            if axis[2].mode:
                                for i in range(last, ow):
                                    to[fc_source_index(&axis[2], i * step + axis[2].offset[tw])] += row[i]
                        start += ow


cdef enum:
    FOLD_ELEMENTS = 4096  # of a plane's columns up to which their places are listed,
    FOLD_ROW = 16         # and of a row: finding the place of one takes longer than adding few


cdef ix list_places(const fc_axis *axis, int *source, int *place) noexcept nogil:
    """Which elements of a plane's columns are added to which of the plane, in the order of `plane_of_columns`; returns how many."""
    cdef ix td, th, tw, od, oh, ow, d, h, w, i = 0, count = 0
    for td in range(axis[0].taps):
        for th in range(axis[1].taps):
            for tw in range(axis[2].taps):
                for od in range(axis[0].out):
                    d = fc_source_index(&axis[0], od * axis[0].step + axis[0].offset[td])
                    for oh in range(axis[1].out):
                        h = fc_source_index(&axis[1], oh * axis[1].step + axis[1].offset[th])
                        for ow in range(axis[2].out):
                            w = fc_source_index(&axis[2], ow * axis[2].step + axis[2].offset[tw])
                            if d >= 0 and h >= 0 and w >= 0:
                                source[count], place[count] = <int> i, <int> ((d * axis[1].size + h) * axis[2].size + w)
                                count += 1
                            i += 1
    return count


cdef void plane_by_places(real *x, ix size, const real *cols, const int *source, const int *place, ix count) noexcept nogil:
    cdef ix i
    memset(x, 0, size * sizeof(real))
    for i in range(count):
        x[place[i]] += cols[source[i]]


cdef object run_col2im(real *x, Shape p, fc_view *cols, int threads):
    cdef fc_axis axis[3]
    cdef Tables t = Tables(p)
    cdef ix plane, size = p.size[0] * p.size[1] * p.size[2], length = p.taps * p.out[0] * p.out[1] * p.out[2]
    cdef ix row = padded(p.out[2]), count = 0
    cdef int listed = cols.direct and cols.ndim == 1 and p.out[2] < FOLD_ROW and length <= FOLD_ELEMENTS and size < 1 << 30
    cdef char *memory
    cdef real *buffer
    cdef int *source
    cdef const real *first = <const real *> cols.data
    forward_axes(axis, t, p)
    threads = threads_for(p.N * p.C * length, threads)
    memory = <char *> take_scratch(threads * row * sizeof(real) + (2 * length * sizeof(int) if listed else 0))
    buffer = <real *> memory
    source = <int *> (memory + threads * row * sizeof(real))
    with nogil:
        if listed:
            count = list_places(axis, source, source + length)
        if listed and threads == 1:
            for plane in range(p.N * p.C):
                plane_by_places(x + plane * size, size, first + plane * length, source, source + length, count)
        elif listed:
            for plane in prange(p.N * p.C, num_threads=threads, schedule="static"):
                plane_by_places(x + plane * size, size, first + plane * length, source, source + length, count)
        elif threads == 1:
            for plane in range(p.N * p.C):
                plane_of_columns(x + plane * size, axis, cols, plane * length, buffer)
        else:
            for plane in prange(p.N * p.C, num_threads=threads, schedule="static"):
                plane_of_columns(x + plane * size, axis, cols, plane * length, buffer + threadid() * row)
        fc_scratch_give(memory)


def col2im(cnp.ndarray cols, cnp.ndarray x, Shape shape, int threads):
    """x (N, C, *size) = sum of the columns' elements at the positions that they were taken from."""
    cdef fc_view view
    check_result(x)
    make_view(&view, cols)
    if cols.size != shape.N * shape.C * shape.taps * shape.out[0] * shape.out[1] * shape.out[2]:
        raise ValueError("cols changed its shape during the call")
    if cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT:
        run_col2im(<float *> cnp.PyArray_DATA(x), shape, &view, threads)
    else:
        run_col2im(<double *> cnp.PyArray_DATA(x), shape, &view, threads)


cdef object run_matmul(real *c, ix rows, ix inner, ix columns, cnp.ndarray a, cnp.ndarray b, const real *bias, int threads):
    """A correlation with one tap: A's rows are the weights, B's rows the channels, B's columns the pixels."""
    cdef Correlation job
    cdef ix one[3]
    cdef ix table[4 * 3 + 2]
    cdef ix i
    memset(table, 0, sizeof(table))
    for i in range(3):
        one[i] = 1
        job.axis[i].size, job.axis[i].out, job.axis[i].step, job.axis[i].taps, job.axis[i].mode = 1, 1, 1, 1, 0
        job.axis[i].offset, job.axis[i].piece_offset = &table[i], &table[3 + i]
        job.axis[i].tap_piece, job.axis[i].tap_delta = &table[6 + i], &table[9 + i]
    one[2] = job.axis[2].size = job.axis[2].out = columns
    job.w_tap, job.tap_offset = &table[12], &table[13]
    job.groups, job.rows, job.channels = 1, rows, inner
    job.weight, job.w_swap = <const char *> cnp.PyArray_DATA(a), cnp.PyArray_ISBYTESWAPPED(a)
    job.w_group, job.w_row, job.w_channel = 0, cnp.PyArray_STRIDE(a, 0), cnp.PyArray_STRIDE(a, 1)
    job.source.data, job.source.swap = <const char *> cnp.PyArray_DATA(b), cnp.PyArray_ISBYTESWAPPED(b)
    job.source.n = job.source.d = job.source.h = job.source.ahead = 0
    job.source.c, job.source.w = cnp.PyArray_STRIDE(b, 0), cnp.PyArray_STRIDE(b, 1)
    job.bias, job.y_channel, job.activation, job.among = NULL, columns, 0, 0
    set_grid(&job.grid, 1, one, 0, 0, 0, 1)
    with nogil:
        correlate(c, &job, threads)
        if bias != NULL:
            if threads_for(rows * columns, threads) == 1:
                for i in range(rows):
                    add_vector(c + i * columns, bias, columns)
            else:
                for i in prange(rows, num_threads=threads, schedule="static"):
                    add_vector(c + i * columns, bias, columns)


cdef void add_vector(real *y, const real *x, ix count) noexcept nogil:
    cdef ix i
    for i in range(count):
        y[i] += x[i]


def matmul(cnp.ndarray a, cnp.ndarray b, cnp.ndarray bias, cnp.ndarray c, int threads):
    """c (rows, columns) = a (rows, inner) @ b (inner, columns) + bias (columns) for matrices of any strides; bias contiguous and native, or None.

    Every element is summed over `inner` in an order that depends on `inner` alone.
    """
    cdef ix rows = cnp.PyArray_DIM(c, 0), columns = cnp.PyArray_DIM(c, 1), inner = cnp.PyArray_DIM(a, 1)
    check_result(c)
    if cnp.PyArray_DIM(a, 0) != rows or cnp.PyArray_DIM(b, 0) != inner or cnp.PyArray_DIM(b, 1) != columns or cnp.PyArray_NDIM(a) != 2 or cnp.PyArray_NDIM(b) != 2:
        raise ValueError("an operand changed its shape during the call")
    if cnp.PyArray_TYPE(c) == cnp.NPY_FLOAT:
        run_matmul(<float *> cnp.PyArray_DATA(c), rows, inner, columns, a, b, <float *> cnp.PyArray_DATA(bias) if bias is not None else <float *> NULL, threads)
    else:
        run_matmul(<double *> cnp.PyArray_DATA(c), rows, inner, columns, a, b, <double *> cnp.PyArray_DATA(bias) if bias is not None else <double *> NULL, threads)


cdef void finish_row(real *y, real bias, ix count, int activation) noexcept nogil:
    cdef ix i
    for i in range(count):
        y[i] += bias
    if activation:
        if real is float:
            activate_f32(y, count, activation)
        else:
            activate_f64(y, count, activation)


cdef object run_finish(real *y, const real *bias, ix rows, ix count, Shape p, int threads):
    cdef ix i
    with nogil:
        if threads_for(rows * count, threads) == 1:
            for i in range(rows):
                finish_row(y + i * count, bias[i % p.K] if bias != NULL else <real> 0, count, p.activation)
        else:
            for i in prange(rows, num_threads=threads, schedule="static"):
                finish_row(y + i * count, bias[i % p.K] if bias != NULL else <real> 0, count, p.activation)


def finish(cnp.ndarray y, cnp.ndarray bias, Shape shape, int threads):
    """Add a bias to every channel of y (N, K, L) and activate, in place."""
    check_result(y)
    if bias is None and not shape.activation:
        return
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_finish(<float *> cnp.PyArray_DATA(y), <float *> cnp.PyArray_DATA(bias) if bias is not None else <float *> NULL,
                   shape.N * shape.K, cnp.PyArray_DIM(y, 2), shape, threads)
    else:
        run_finish(<double *> cnp.PyArray_DATA(y), <double *> cnp.PyArray_DATA(bias) if bias is not None else <double *> NULL,
                   shape.N * shape.K, cnp.PyArray_DIM(y, 2), shape, threads)
