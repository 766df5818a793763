# Convolution by implicit GEMM: entry points, and the way from Python objects to the structures of the drivers (correlate.pxi, outer.pxi).

cdef dict MODES = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3}
cdef dict ACTIVATIONS = {None: 0, "relu": 1, "leaky_relu": 2, "sigmoid": 3, "tanh": 4}


cdef class Shape:
    """The sizes of a convolution as C integers. Made once per problem and kept with it."""
    cdef ix N, C, K, groups, taps
    cdef ix size[3]
    cdef ix kernel[3]
    cdef ix out[3]
    cdef ix stride[3]
    cdef ix dilation[3]
    cdef ix low[3]
    cdef int mode, activation, ndim, batched

    def __init__(self, problem):
        cdef int i
        self.N, self.C, self.K, self.groups = problem.N, problem.C, problem.K, problem.groups
        self.taps = 1
        for i in range(3):
            self.size[i], self.kernel[i], self.out[i] = problem.size[i], problem.kernel[i], problem.out[i]
            self.stride[i], self.dilation[i], self.low[i] = problem.stride[i], problem.dilation[i], problem.pad_low[i]
            self.taps *= self.kernel[i]
        self.mode, self.activation = MODES[problem.padding_mode], ACTIVATIONS[problem.activation]
        self.ndim, self.batched = problem.ndim, problem.batched


cdef class Tables:
    """Index tables of one correlation: for each axis 4 tables, and four over all taps and the phases of a stride (Winograd rounds taps up to whole phases)."""
    cdef ix *memory
    cdef ix *free

    def __cinit__(self, Shape s):
        cdef ix i, axes = 0, taps = 1
        for i in range(3):
            axes += s.kernel[i]
            taps *= s.kernel[i] + smaller(s.stride[i], s.kernel[i] + 64)  # a stride far beyond the kernel needs no more
        self.memory = <ix *> take_scratch((4 * axes + 4 * taps) * sizeof(ix))
        self.free = self.memory

    def __dealloc__(self):
        fc_scratch_give(self.memory)

    cdef ix *take(self, ix count) noexcept:
        cdef ix *p = self.free
        self.free += count
        return p


cdef int make_source(fc_source *s, cnp.ndarray a, Shape p, ix channels, const ix *size, str name) except -1:
    """Strides of x or dy, (N, channels, *size) in the user's rank; the shape is compared again, since another thread may have changed it."""
    cdef int i, at = 0, right = cnp.PyArray_NDIM(a) == p.ndim + 1 + p.batched
    s.data = <const char *> cnp.PyArray_DATA(a)
    s.swap = cnp.PyArray_ISBYTESWAPPED(a)
    s.n = s.d = s.h = s.ahead = 0
    if right and p.batched:
        right = cnp.PyArray_DIM(a, 0) == p.N
        s.n = cnp.PyArray_STRIDE(a, 0)
        at = 1
    if right:
        right = cnp.PyArray_DIM(a, at) == channels
        s.c = cnp.PyArray_STRIDE(a, at)
        for i in range(p.ndim):
            right = right and cnp.PyArray_DIM(a, at + 1 + i) == size[3 - p.ndim + i]
        if p.ndim == 3:
            s.d = cnp.PyArray_STRIDE(a, at + 1)
        if p.ndim >= 2:
            s.h = cnp.PyArray_STRIDE(a, at + p.ndim - 1)
        s.w = cnp.PyArray_STRIDE(a, at + p.ndim)
    if not right:
        raise ValueError(f"{name} changed its shape during the call")
    return 0


cdef struct Weights:
    const char *data
    ix k, c
    ix tap[3]
    int swap


cdef int make_weights(Weights *w, cnp.ndarray a, Shape p) except -1:
    cdef int i, right = cnp.PyArray_NDIM(a) == p.ndim + 2
    right = right and cnp.PyArray_DIM(a, 0) == p.K and cnp.PyArray_DIM(a, 1) * p.groups == p.C
    w.data = <const char *> cnp.PyArray_DATA(a)
    w.swap = cnp.PyArray_ISBYTESWAPPED(a)
    for i in range(3):
        w.tap[i] = 0
    for i in range(p.ndim):
        right = right and cnp.PyArray_DIM(a, 2 + i) == p.kernel[3 - p.ndim + i]
        if right:
            w.tap[3 - p.ndim + i] = cnp.PyArray_STRIDE(a, 2 + i)
    if not right:
        raise ValueError("weight changed its shape during the call")
    w.k, w.c = cnp.PyArray_STRIDE(a, 0), cnp.PyArray_STRIDE(a, 1)
    return 0


cdef void make_axis(fc_axis *a, Tables t, ix size, ix out, ix step, ix taps, int mode) noexcept:
    a.size, a.out, a.step, a.taps, a.mode = size, out, step, taps, mode
    a.offset, a.piece_offset, a.tap_piece, a.tap_delta = t.take(taps), t.take(taps), t.take(taps), t.take(taps)


cdef void forward_axes(fc_axis *axis, Tables t, Shape p) noexcept:
    """x as the forward convolution reads it."""
    cdef ix i, j
    for i in range(3):
        make_axis(&axis[i], t, p.size[i], p.out[i], p.stride[i], p.kernel[i], p.mode)
        for j in range(p.kernel[i]):
            axis[i].offset[j] = j * p.dilation[i] - p.low[i]


cdef void set_grid(fc_grid *g, ix samples, const ix *out, ix n, ix d, ix h, ix w) noexcept nogil:
    g.samples, g.od, g.oh, g.ow = samples, out[0], out[1], out[2]
    g.yn, g.yd, g.yh, g.yw = n, d, h, w


cdef void describe_forward(Correlation *c, Tables t, Shape p, fc_source *x, Weights *w, const void *bias) noexcept:
    cdef ix plane = p.out[0] * p.out[1] * p.out[2], i, j, k, n = 0
    c.source = x[0]
    c.groups, c.rows, c.channels = p.groups, p.K // p.groups, p.C // p.groups
    c.weight, c.w_swap = w.data, w.swap
    c.w_group, c.w_row, c.w_channel = c.rows * w.k, w.k, w.c
    c.w_tap, c.tap_offset = t.take(p.taps), t.take(p.taps)
    for i in range(p.kernel[0]):
        for j in range(p.kernel[1]):
            for k in range(p.kernel[2]):
                c.w_tap[n] = i * w.tap[0] + j * w.tap[1] + k * w.tap[2]
                n += 1
    forward_axes(c.axis, t, p)
    c.bias, c.y_channel, c.activation, c.among = bias, plane, p.activation, 0
    set_grid(&c.grid, p.N, p.out, p.K * plane, p.out[1] * p.out[2], p.out[2], 1)


cdef enum:
    # How a correlation is computed. Tiles of Winograd's algorithm along axis 1 or 2: BY_TILES + axis
    BY_PANELS = 0   # correlate.pxi
    BY_STRIPS = 1   # direct.pxi
    BY_TILES = 1    # winograd1d.pxi


cdef int correlate_by(int how, real *y, Correlation *c, int threads) except -1 nogil:
    if how == BY_PANELS:
        return correlate(y, c, threads)
    if how == BY_STRIPS:
        return direct_correlate(y, c, threads)
    return wino1_correlate(y, c, how - BY_TILES, threads)


cdef object run_forward(real *y, Shape p, fc_source *x, Weights *w, const void *bias, int how, int threads):
    cdef Correlation c
    cdef Tables t = Tables(p)
    describe_forward(&c, t, p, x, w, bias)
    with nogil:
        correlate_by(how, y, &c, threads)


def conv_forward(cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray y, Shape shape, int threads, bint direct=False):
    """y = correlation of x with weight + bias, activated. `bias` is contiguous and native or None; y is a fresh result. direct: by kernels/direct.pxi."""
    cdef fc_source source
    cdef Weights w
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(y)
    make_source(&source, x, shape, shape.C, shape.size, "x")
    make_weights(&w, weight, shape)
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_forward(<float *> cnp.PyArray_DATA(y), shape, &source, &w, b, direct, threads)
    else:
        run_forward(<double *> cnp.PyArray_DATA(y), shape, &source, &w, b, direct, threads)


cdef object run_backward_input(real *dx, Shape p, fc_source *dy, Weights *w, const void *bias, ix samples, const ix *size, const ix *low, int how,
                               int threads):
    """dx (N, C, *size) = adjoint of the forward convolution with padding `low`, zeros outside.

    Input positions i with the same residue (i + low) mod stride see the same taps t: those with t*dilation of that residue. Each such phase is a
    correlation of dy with stride 1, written `stride` apart.
    """
    cdef Correlation c
    cdef Tables t
    cdef ix phase[3]
    cdef ix first[3]
    cdef ix visited[3]
    cdef ix count[3]
    cdef ix index, i, j, k, n, a, taps, start, plane = size[0] * size[1] * size[2]
    c.source = dy[0]
    c.groups, c.rows, c.channels = p.groups, p.C // p.groups, p.K // p.groups
    c.weight, c.w_swap = w.data, w.swap
    c.w_group, c.w_row, c.w_channel = c.channels * w.k, w.c, w.k
    c.bias, c.y_channel, c.activation, c.plane = bias, plane, 0, plane
    # A single tap: one phase alone has it, and writes the positions of the others too.
    c.among = how == BY_PANELS and p.taps == 1 and p.stride[0] * p.stride[1] * p.stride[2] > 1 and p.stride[2] <= FC_AMONG
    for a in range(3):
        c.among = c.among and (p.stride[a] - low[a] % p.stride[a]) % p.stride[a] < size[a]
    for a in range(3):
        visited[a] = smaller(p.stride[a], size[a])  # phases that have a position at all
    for index in range(visited[0] * visited[1] * visited[2]):
        first[0], first[1], first[2] = index // (visited[1] * visited[2]), index // visited[2] % visited[1], index % visited[2]
        t = Tables(p)
        c.w_tap, c.tap_offset = t.take(p.taps), t.take(p.taps)
        for a in range(3):
            phase[a] = (first[a] + low[a]) % p.stride[a]
            count[a] = ceil_div(size[a] - first[a], p.stride[a]) if size[a] > first[a] else 0
            start = (first[a] + low[a] - phase[a]) // p.stride[a]
            taps = 0
            make_axis(&c.axis[a], t, p.out[a], count[a], 1, p.kernel[a], 0)
            for i in range(p.kernel[a]):
                if i * p.dilation[a] % p.stride[a] == phase[a]:
                    c.axis[a].offset[taps] = start - i * p.dilation[a] // p.stride[a]
                    c.axis[a].piece_offset[taps] = i  # kept here until the weights' offsets are tabulated below
                    taps += 1
            c.axis[a].taps = taps
        if count[0] * count[1] * count[2] == 0 or (c.among and c.axis[0].taps * c.axis[1].taps * c.axis[2].taps == 0):
            continue
        n = 0
        for i in range(c.axis[0].taps):
            for j in range(c.axis[1].taps):
                for k in range(c.axis[2].taps):
                    c.w_tap[n] = (c.axis[0].piece_offset[i] * w.tap[0] + c.axis[1].piece_offset[j] * w.tap[1]
                                  + c.axis[2].piece_offset[k] * w.tap[2])
                    n += 1
        set_grid(&c.grid, samples, count, p.C * plane, size[1] * size[2] * p.stride[0], size[2] * p.stride[1], p.stride[2])
        start = c.start = (first[0] * size[1] + first[1]) * size[2] + first[2]
        with nogil:
            correlate_by(how, dx + start, &c, threads)


cdef void fold_plane(real *dx, const real *padded_dx, Shape p, const ix *extent) noexcept nogil:
    """Add every position of a padded plane to the position it stood for. Positions outside (zeros) do not arise: the mode is not zeros."""
    cdef fc_axis axis[3]
    cdef ix d, h, w, i, j
    cdef real *row
    for i in range(3):
        axis[i].size, axis[i].mode = p.size[i], p.mode
    memset(dx, 0, p.size[0] * p.size[1] * p.size[2] * sizeof(real))
    for d in range(extent[0]):
        i = fc_source_index(&axis[0], d - p.low[0])
        for h in range(extent[1]):
            j = fc_source_index(&axis[1], h - p.low[1])
            row = dx + (i * p.size[1] + j) * p.size[2]
            for w in range(extent[2]):
                row[fc_source_index(&axis[2], w - p.low[2])] += padded_dx[(d * extent[1] + h) * extent[2] + w]


cdef object run_backward_padded(real *dx, Shape p, fc_source *dy, Weights *w, int how, int threads):
    """As above for the other padding modes: the gradient of one padded sample at a time, folded back onto the sample."""
    cdef ix extent[3]
    cdef ix zero[3]
    cdef ix i, n, plane = p.size[0] * p.size[1] * p.size[2], padded_plane = 1
    cdef fc_source sample = dy[0]
    cdef real *buffer
    for i in range(3):
        zero[i] = 0
        extent[i] = (p.out[i] - 1) * p.stride[i] + (p.kernel[i] - 1) * p.dilation[i] + 1
        padded_plane *= extent[i]
    buffer = <real *> take_scratch(p.C * padded_plane * sizeof(real))
    try:
        for n in range(p.N):
            sample.data = dy.data + n * dy.n
            run_backward_input(buffer, p, &sample, w, NULL, 1, extent, zero, how, threads)
            with nogil:
                if threads_for(p.C * padded_plane, threads) == 1:
                    for i in range(p.C):
                        fold_plane(dx + (n * p.C + i) * plane, buffer + i * padded_plane, p, extent)
                else:
                    for i in prange(p.C, num_threads=threads, schedule="static"):
                        fold_plane(dx + (n * p.C + i) * plane, buffer + i * padded_plane, p, extent)
    finally:
        fc_scratch_give(buffer)


cdef object backward_input_by(int how, real *dx, Shape p, fc_source *dy, Weights *w, const void *bias, int threads):
    if p.mode:
        return run_backward_padded(dx, p, dy, w, how, threads)
    return run_backward_input(dx, p, dy, w, bias, p.N, p.size, p.low, how, threads)


def conv_backward_input(cnp.ndarray dy, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray dx, Shape shape, int threads, bint direct=False):
    """dx = adjoint of the forward convolution, applied to dy, + bias (C values, contiguous and native, or None)."""
    cdef fc_source source
    cdef Weights w
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(dx)
    make_source(&source, dy, shape, shape.K, shape.out, "dy")
    make_weights(&w, weight, shape)
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        backward_input_by(direct, <float *> cnp.PyArray_DATA(dx), shape, &source, &w, b, threads)
    else:
        backward_input_by(direct, <double *> cnp.PyArray_DATA(dx), shape, &source, &w, b, threads)


cdef void describe_outer(Outer *o, Tables t, Shape p, fc_source *dy, fc_source *x, ix *one) noexcept:
    """Fill in a weight gradient; `one` holds the twelve table entries of dy's single tap."""
    cdef int i
    o.source, o.dy = x[0], dy[0]
    o.groups, o.rows, o.channels = p.groups, p.K // p.groups, p.C // p.groups
    o.tap_offset = t.take(p.taps)
    forward_axes(o.axis, t, p)
    for i in range(3):
        o.unit[i].size, o.unit[i].out, o.unit[i].step, o.unit[i].taps, o.unit[i].mode = p.out[i], p.out[i], 1, 1, 0
        o.unit[i].offset, o.unit[i].piece_offset = &one[i], &one[3 + i]
        o.unit[i].tap_piece, o.unit[i].tap_delta = &one[6 + i], &one[9 + i]
        one[i] = 0
    set_grid(&o.grid, p.N, p.out, 0, 0, 0, 0)


cdef object run_backward_weight(real *dweight, real *dbias, Shape p, fc_source *dy, fc_source *x, int direct, int threads):
    cdef Outer o
    cdef Tables t = Tables(p)
    cdef ix one[4 * 3]
    describe_outer(&o, t, p, dy, x, one)
    with nogil:
        if direct:
            direct_outer(dweight, dbias, &o, threads)
        else:
            outer(dweight, dbias, &o, threads)


def conv_backward_weight(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dweight, cnp.ndarray dbias, Shape shape, int threads, bint direct=False):
    """dweight = sum over samples and output positions of dy times the patch of x below it; dbias, unless it is None, that of dy itself."""
    cdef fc_source source_y, source_x
    check_result(dweight)
    check_bias(dbias, dweight, shape)
    make_source(&source_y, dy, shape, shape.K, shape.out, "dy")
    make_source(&source_x, x, shape, shape.C, shape.size, "x")
    if cnp.PyArray_TYPE(dweight) == cnp.NPY_FLOAT:
        run_backward_weight(<float *> cnp.PyArray_DATA(dweight), <float *> data_or_null(dbias), shape, &source_y, &source_x, direct, threads)
    else:
        run_backward_weight(<double *> cnp.PyArray_DATA(dweight), <double *> data_or_null(dbias), shape, &source_y, &source_x, direct, threads)


# ---- what a call would take

cdef void largest_phase(Correlation *c, Shape p) noexcept:
    """Turn a described forward correlation into the phase of the gradient of the input with the most taps, read through strips: what takes most scratch."""
    cdef ix i
    cdef ix out[3]
    c.rows, c.channels = p.C // p.groups, p.K // p.groups
    c.w_row, c.w_channel = c.w_channel, c.w_row
    c.w_swap = p.taps > 1  # as if: in this order taps do not lie evenly, and are packed
    for i in range(3):
        c.axis[i].taps = ceil_div(p.kernel[i], p.stride[i]) if p.dilation[i] % p.stride[i] else p.kernel[i]
        c.axis[i].size, c.axis[i].step, c.axis[i].mode = p.out[i], 1, 0
        c.axis[i].out = out[i] = ceil_div(p.size[i], p.stride[i])
    set_grid(&c.grid, p.N, out, 0, 0, 0, 1)


cdef size_t padded_bytes(Shape p, ix itemsize) noexcept:
    """The padded sample that the gradient of the input takes for modes other than zeros."""
    cdef ix i, extent = 1
    for i in range(3):
        extent *= p.size[i] + 2 * p.low[i]
    return p.C * extent * itemsize if p.mode else 0


cdef size_t scratch_bytes(real *tag, str direction, Shape p, int threads) except? 0:
    """Scratch of the implicit algorithm for contiguous arrays; the same for every N."""
    cdef Tables t = Tables(p)
    cdef fc_source source
    cdef Weights w
    cdef Correlation c
    cdef CorrelationPlan cp
    cdef Outer o
    cdef OuterScratch outer_scratch
    cdef ix one[4 * 3]
    cdef size_t sums
    memset(&source, 0, sizeof(source))
    memset(&w, 0, sizeof(w))
    source.w = sizeof(real)
    source.h = source.w * p.size[2]
    source.d = source.h * p.size[1]
    source.c = source.d * p.size[0]
    source.n = source.c * p.C
    w.tap[2] = sizeof(real)
    w.tap[1] = w.tap[2] * p.kernel[2]
    w.tap[0] = w.tap[1] * p.kernel[1]
    w.c = sizeof(real) * p.taps
    w.k = w.c * (p.C // p.groups)
    if direction == "backward_weight":
        describe_outer(&o, t, p, &source, &source, one)
        plan_outer(tag, &o, &outer_scratch)
        return outer_scratch.block + outer_scratch.tables + outer_scratch.bias + outer_scratch.sums * o.parts + threads * outer_scratch.per_thread
    describe_forward(&c, t, p, &source, &w, NULL)
    if direction == "backward_input":
        largest_phase(&c, p)
    plan_correlation(tag, &c, &cp)
    sums = cp.packed + cp.rows + threads * cp.per_thread
    if direction == "backward_input":
        sums += padded_bytes(p, sizeof(real))
    return sums


def conv_scratch(str direction, int itemsize, Shape shape, int threads):
    """Bytes of scratch of "forward", "backward_input" or "backward_weight" by implicit GEMM."""
    if itemsize == 4:
        return scratch_bytes(<float *> NULL, direction, shape, threads)
    return scratch_bytes(<double *> NULL, direction, shape, threads)
