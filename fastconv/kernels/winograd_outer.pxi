# Gradient of the weights by Winograd: dweight = G^T [ sum over tiles of (A dy A^T) * (B^T x B) ] G.
#
# Both operands are transformed with channels as lanes (native/winograd.h, wino_lanes), and n * n small products are summed over tiles: in chains, as many as the problem
# says, whose sums are added in order, so nothing depends on the number of threads. Describing a problem and its phases is shared with winograd.pxi.

cdef extern from "native/kernels.h" nogil:
    const ix WINO_WIDE, WINO_PITCH
    void wino_lanes_f32(float *out, ix plane, float *work, const fc_source *s, const char *data, ix first, ix lanes, ix channels, const ix *h0, const ix *w0,
                        const fc_tiles *g, ix p, ix last, double *sums, int gradient)
    void wino_lanes_f64(double *out, ix plane, double *work, const fc_source *s, const char *data, ix first, ix lanes, ix channels, const ix *h0, const ix *w0,
                        const fc_tiles *g, ix p, ix last, double *sums, int gradient)
    void wino_weights_f32(float *dweight, ix lane_stride, ix lanes, const float *dU, ix plane, ix phases, ix phase_step, ix taps, const ix *tap_index,
                          float *G, ix n, ix r)
    void wino_weights_f64(double *dweight, ix lane_stride, ix lanes, const double *dU, ix plane, ix phases, ix phase_step, ix taps, const ix *tap_index,
                          double *G, ix n, ix r)

cdef enum:
    WINO_INPUT_BYTES = 6 * 1024 * 1024  # both operands of the gradient of the weights: stay in a last-level cache
    OUTER_TASK = 32                   # rows of the products of the gradient of the weights that one task takes
    CHAINS = 8                        # partial sums of the gradient of the weights, at most; a thread computes one from the input to its products
    CHAIN_BYTES = 16 * 1024 * 1024    # all of them
    CHAIN_TILES = 96                  # so many for every pair of chains, or they cost more than they bring: what is added up at the end is read from memory


cdef struct Operand:
    # One side of the products: filters (channels of dy) or (phase, channel) of x turned into lanes, [point][vector of channels][tile][lane].
    # Every part begins with a new vector: as a column each phase is a part, as a row all phases are one.
    ix channels, vectors    # of a part
    ix parts
    ix plane                # distance of points


cdef struct WinogradOuter:
    fc_tiles tiles, dy_tiles  # the same tiles, over x and over dy
    Phases phases
    ix samples, groups, rows, channels, taps, points
    fc_source source, dy
    # derived
    Operand a, b              # rows and columns of the products
    bint turned               # rows are (channel, phase) of x and columns filters, instead of filters and (phase, channel)
    ix block, columns, task_rows, row_blocks, u_plane
    ix chains, sums           # partial sums, and the elements of one
    ix own                    # elements of a thread's scratch, behind which its operands may lie
    ix count                  # tiles of a block, at most `block`: blocks are of nearly the same size
    double *bias              # the sums of dy, [chain][filter of all groups], or NULL


cdef ix deal_rows(WinogradOuter *w, ix rows) noexcept nogil:
    """`rows` of the products to a task, whose sums lie together: [task][point][row][column]. Returns the elements of a point."""
    w.task_rows, w.row_blocks = rows, ceil_div(w.a.channels, rows)
    w.u_plane = unaliased(rows * w.columns)
    return w.row_blocks * w.u_plane


cdef void plan_winograd_outer(real *tag, WinogradOuter *w, int threads, size_t *shared, size_t *per_thread) noexcept nogil:
    """Sizes from the problem of one sample alone."""
    cdef ix vl = vector_lanes(tag), filters = ceil_div(w.rows, vl), channels = ceil_div(w.channels, vl), count = w.phases.count, worth, sums
    cdef size_t operands
    # Columns are padded to whole vectors, rows are not, and a tile one vector wide is bound by its broadcasts.
    w.turned = w.channels * count * filters < w.rows * channels * count or (channels * count == 1 and filters > 1)
    w.a.parts, w.a.channels, w.a.vectors = 1, w.rows, filters
    w.b.parts, w.b.channels, w.b.vectors = count, w.channels, channels
    if w.turned:
        w.a.channels, w.a.vectors = count * w.channels, ceil_div(count * w.channels, vl)
        w.b.parts, w.b.channels, w.b.vectors = 1, w.rows, filters
    w.columns = w.b.parts * w.b.vectors * vl
    worth = w.a.vectors * vl + w.columns
    w.block = WINO_INPUT_BYTES // (w.points * worth * sizeof(real)) // WINO_TILES * WINO_TILES
    w.block = WINO_TILES if w.block < WINO_TILES else 4 * WINO_TILES if w.block > 4 * WINO_TILES else w.block
    w.a.plane = unaliased(w.a.vectors * vl * w.block)
    w.b.plane = unaliased(w.columns * w.block)
    sums = deal_rows(w, w.a.channels if w.turned else OUTER_TASK)
    while not w.turned and w.task_rows > tile_mr(tag):  # how many rows a task takes is decided by the threads
        sums = larger(sums, deal_rows(w, w.task_rows // 2))
    w.sums = w.points * sums
    w.chains = CHAINS
    while w.chains > 1 and w.chains * w.sums * <ix> sizeof(real) > CHAIN_BYTES:
        w.chains //= 2
    shared[0] = <size_t> (w.chains * w.sums) * sizeof(real) + bias_bytes(w.chains, w.groups * w.rows)
    # turned rows of a vector of channels, or the taps of a vector of weights
    w.own = padded(vl * larger(w.tiles.n * WINO_PITCH + WINO_WIDE + vl, ceil_div(w.taps, vl) * vl))
    per_thread[0] = <size_t> w.own * sizeof(real)
    # operands: of every thread that computes a chain, or common to all
    operands = <size_t> padded(w.points * (w.a.plane + w.b.plane)) * sizeof(real)
    if 1 < threads <= w.chains:
        per_thread[0] += operands
    else:
        shared[0] += operands


cdef void winograd_operand(real *out, Operand *o, WinogradOuter *w, bint gradient, ix g, ix vector, ix p, ix last, ix chain, real *scratch) noexcept nogil:
    """One vector of channels of dy, or of (phase, channel) of x, for tiles [p, last): out[point][tile][lane = channel]. Lanes past the last channel become zeros.
    Values of dy are added to the chain's sums for the bias."""
    cdef ix vl = vector_lanes(out), part = vector // o.vectors, first = vector % o.vectors * vl, lanes = smaller(vl, o.channels - first), zero = 0
    cdef const char *data
    cdef double *sums = NULL
    out += vector * w.block * vl
    first += part * o.channels
    if gradient:
        if w.bias != NULL:
            sums = w.bias + (chain * w.groups + g) * w.rows + first
        data = w.dy.data + g * w.rows * w.dy.c
        if real is float:
            wino_lanes_f32(out, o.plane, scratch, &w.dy, data, first, lanes, w.rows, &zero, &zero, &w.dy_tiles, p, last, sums, 1)
        else:
            wino_lanes_f64(out, o.plane, scratch, &w.dy, data, first, lanes, w.rows, &zero, &zero, &w.dy_tiles, p, last, sums, 1)
    else:
        data = w.source.data + g * w.channels * w.source.c
        if real is float:
            wino_lanes_f32(out, o.plane, scratch, &w.source, data, first, lanes, w.channels, w.phases.h, w.phases.w, &w.tiles, p, last, NULL, 0)
        else:
            wino_lanes_f64(out, o.plane, scratch, &w.source, data, first, lanes, w.channels, w.phases.h, w.phases.w, &w.tiles, p, last, NULL, 0)


cdef void winograd_sum(real *dU, const real *A, const real *B, WinogradOuter *w, ix point, ix p, ix tiles, ix first, ix last, int accumulate) noexcept nogil:
    """Rows [first, last) of one point: dU[row][column] (+)= sum of A * B over those of `tiles` tiles from the p-th on that need it."""
    cdef ix vl = vector_lanes(dU), span = w.block * vl, row = first, rows, j, nv, vectors = w.columns // vl
    cdef ix low, high
    cdef const real *a
    fc_tiles_at_point(&w.tiles, point, p, p + tiles, &low, &high)
    A += point * w.a.plane + low * vl
    B += point * w.b.plane + low * vl
    tiles = high - low
    while row < last:
        rows = smaller(tile_mr(dU), last - row)
        a = A + row // vl * span + row % vl
        j = 0
        while j < vectors:
            if real is float:
                nv = tile_width_f32(vectors - j)
                tile_f32(rows, nv, tiles, a, vl, B + j * span, span, dU + j * vl, w.columns, accumulate, NULL, span)
            else:
                nv = tile_width_f64(vectors - j)
                tile_f64(rows, nv, tiles, a, vl, B + j * span, span, dU + j * vl, w.columns, accumulate, NULL, span)
            j += nv
        dU += rows * w.columns
        row += rows


cdef void winograd_taps(real *dweight, const real *dU, WinogradOuter *w, ix g, ix row, ix vector, real *scratch) noexcept nogil:
    """One row of the sums (a filter, or turned a channel) and one vector of columns -> taps. dU: the row's first sum."""
    cdef ix vl = vector_lanes(dweight), filter = g * w.rows + row, channel = vector * vl, stride = w.taps, lanes = w.channels - channel, phase = w.b.vectors * vl
    if w.turned:
        filter, channel, stride, lanes, phase = g * w.rows + vector * vl, row, w.channels * w.taps, w.rows - vector * vl, w.channels * w.columns
    dweight += (filter * w.channels + channel) * w.taps
    if real is float:
        wino_weights_f32(dweight, stride, smaller(lanes, vl), dU + vector * vl, w.u_plane, w.phases.count, phase, w.taps, w.phases.index, scratch, w.tiles.n, w.phases.r)
    else:
        wino_weights_f64(dweight, stride, smaller(lanes, vl), dU + vector * vl, w.u_plane, w.phases.count, phase, w.taps, w.phases.index, scratch, w.tiles.n, w.phases.r)


cdef void winograd_rows(real *dweight, real *dU, const real *A, const real *B, WinogradOuter *w, ix g, ix p, ix tiles, ix task, int accumulate, real *scratch) noexcept nogil:
    """A task's last products, and while its sums are in the caches their taps."""
    cdef ix first = task * w.task_rows, last = smaller(first + w.task_rows, w.a.channels), point
    for point in range(w.points):
        winograd_sum(dU + point * w.u_plane, A, B, w, point, p, tiles, first, last, accumulate)
    winograd_row_taps(dweight, dU, w, g, task, scratch)


cdef void winograd_row_taps(real *dweight, const real *dU, WinogradOuter *w, ix g, ix task, real *scratch) noexcept nogil:
    """The taps of all rows of a task. dU: its sums."""
    cdef ix first = task * w.task_rows, row, vector
    for row in range(first, smaller(first + w.task_rows, w.a.channels)):
        for vector in range(w.b.vectors):
            winograd_taps(dweight, dU + (row - first) * w.columns, w, g, row, vector, scratch)


cdef void winograd_block_sums(real *dU, const real *A, const real *B, WinogradOuter *w, ix p, ix tiles, ix task, int accumulate) noexcept nogil:
    """Rows of one point; tasks are numbered (point, task of rows)."""
    cdef ix rows = task % w.row_blocks, point = task // w.row_blocks
    winograd_sum(dU + rows * w.points * w.u_plane + point * w.u_plane, A, B, w, point, p, tiles, rows * w.task_rows,
                 smaller((rows + 1) * w.task_rows, w.a.channels), accumulate)


cdef void winograd_chain(real *dU, WinogradOuter *w, ix g, ix chain, ix first, ix last, real *scratch) noexcept nogil:
    """The sums over tiles [first, last) of a chain, by one thread."""
    cdef ix vl = vector_lanes(dU), p = first, count, task
    cdef real *A = scratch + w.own
    cdef real *B = A + w.points * w.a.plane
    while p < last:
        count = smaller(last - p, w.count)
        for task in range(w.a.vectors):
            winograd_operand(A, &w.a, w, not w.turned, g, task, p, p + count, chain, scratch)
        for task in range(w.columns // vl):
            winograd_operand(B, &w.b, w, w.turned, g, task, p, p + count, chain, scratch)
        for task in range(w.points * w.row_blocks):
            winograd_block_sums(dU, A, B, w, p, count, task, p > first)
        p += count


cdef void winograd_join(real *dU, WinogradOuter *w, ix chains, ix first, ix last) noexcept nogil:
    """Elements [first, last) of the first of the chains' sums become those of all, added in order."""
    cdef ix chain, i
    for chain in range(1, chains):
        for i in range(first, last):
            dU[i] += dU[chain * w.sums + i]


cdef int winograd_outer(real *dweight, real *dbias, WinogradOuter *w, int threads) except -1 nogil:
    """The tiles are cut into chains, as many as the problem says, each of which has a sum of its own. A thread takes a chain from the input to the products with
    nothing shared, if there is one for each; else all threads share the work of one chain after the other. The sums are the same."""
    cdef size_t shared, per_thread
    cdef ix vl = vector_lanes(dweight), tiles = w.tiles.count, g, first, last, count, task, rows, own, chain, chains, length
    cdef char *memory
    cdef char *scratch
    cdef real *A
    cdef real *B
    cdef real *dU
    if tiles == 0:
        memset(dweight, 0, w.groups * w.rows * w.channels * w.taps * sizeof(real))
        no_bias(dbias, w.groups * w.rows)
        return 0
    plan_winograd_outer(dweight, w, threads, &shared, &per_thread)
    memory = <char *> take_scratch(shared + threads * per_thread)
    scratch = memory + shared
    dU = <real *> memory
    w.bias = begin_bias(dbias, dU + w.chains * w.sums, w.chains, w.groups * w.rows)
    A = <real *> scratch + w.own
    if not 1 < threads <= w.chains:
        A = dU + w.chains * w.sums + bias_bytes(w.chains, w.groups * w.rows) // sizeof(real)
    B = A + w.points * w.a.plane
    chains = w.chains
    while chains > 1 and tiles < chains * chains * CHAIN_TILES:
        chains //= 2
    length = ceil_div(ceil_div(tiles, chains), vl) * vl
    chains = ceil_div(tiles, length)
    w.count = ceil_div(ceil_div(length, ceil_div(length, w.block)), vl) * vl
    if not w.turned:
        rows = OUTER_TASK
        while rows > tile_mr(dweight) and ceil_div(w.a.channels, rows) < 2 * threads:
            rows //= 2
        deal_rows(w, rows)
    own = w.points * w.u_plane
    for g in range(w.groups):
        if 1 < threads <= chains:
            for chain in prange(chains, num_threads=threads, schedule="dynamic"):
                winograd_chain(dU + chain * w.sums, w, g, chain, chain * length, smaller((chain + 1) * length, tiles), <real *> (scratch + threadid() * per_thread))
        else:
            for chain in range(chains):
                first, last = chain * length, smaller((chain + 1) * length, tiles)
                while first < last:
                    count = smaller(last - first, w.count)
                    for task in prange(w.a.vectors + w.columns // vl, num_threads=threads, schedule="dynamic"):
                        if task < w.a.vectors:
                            winograd_operand(A, &w.a, w, not w.turned, g, task, first, first + count, chain, <real *> (scratch + threadid() * per_thread))
                        else:
                            winograd_operand(B, &w.b, w, w.turned, g, task - w.a.vectors, first, first + count, chain,
                                             <real *> (scratch + threadid() * per_thread))
                    if w.turned or chains > 1 or first + count < tiles:
                        for task in prange(w.points * w.row_blocks, num_threads=threads, schedule="dynamic"):
                            winograd_block_sums(dU + chain * w.sums, A, B, w, first, count, task, first > chain * length)
                    elif first == 0 and w.row_blocks > threads:  # all tiles in one block: the sums need not leave the thread's caches
                        for task in prange(w.row_blocks, num_threads=threads, schedule="dynamic"):
                            winograd_rows(dweight, dU + threadid() * own, A, B, w, g, first, count, task, 0, <real *> (scratch + threadid() * per_thread))
                    else:
                        for task in prange(w.row_blocks, num_threads=threads, schedule="dynamic"):
                            winograd_rows(dweight, dU + task * own, A, B, w, g, first, count, task, first > 0, <real *> (scratch + threadid() * per_thread))
                    first += count
        if w.turned:
            if chains > 1:
                for task in prange(w.points, num_threads=threads, schedule="static"):
                    winograd_join(dU, w, chains, task * w.u_plane, (task + 1) * w.u_plane)
            for task in prange(w.channels * w.b.vectors, num_threads=threads, schedule="static"):
                winograd_taps(dweight, dU + task // w.b.vectors * w.columns, w, g, task // w.b.vectors, task % w.b.vectors,
                              <real *> (scratch + threadid() * per_thread))
        elif chains > 1:
            for task in prange(w.row_blocks, num_threads=threads, schedule="static"):
                winograd_join(dU, w, chains, task * own, (task + 1) * own)
                winograd_row_taps(dweight, dU + task * own, w, g, task, <real *> (scratch + threadid() * per_thread))
    join_bias(dbias, w.bias, chains, w.groups * w.rows)
    fc_scratch_give(memory)
    return 0


cdef inline ix end_read(Shape p, int axis) noexcept:
    """Behind the last row or column that a window reads, which may lie in the padding. Tiles hang over those behind it: a NaN there, times the zeros of dy,
    would spread."""
    return (p.out[axis] - 1) * p.stride[axis] + (p.kernel[axis] - 1) * p.dilation[axis] - p.low[axis] + 1


cdef void describe_winograd_outer(WinogradOuter *w, Tables t, Shape p, fc_source *dy, fc_source *x, ix tile, ix short_h, ix short_w) noexcept:
    cdef fc_tiles *g = &w.tiles
    cdef Weights unused
    memset(&unused, 0, sizeof(unused))
    make_phases(&w.phases, t, p, &unused, False)
    w.source, w.dy, w.samples, w.groups, w.taps = x[0], dy[0], p.N, p.groups, p.taps
    w.rows, w.channels = p.K // p.groups, p.C // p.groups
    g.ph, g.pw = p.dilation[1], p.dilation[2]
    w.points = tile * tile
    g.n, g.m, g.oh, g.ow = tile, tile + 1 - w.phases.r, ceil_div(p.out[1], g.ph), ceil_div(p.out[2], g.pw)
    fc_cut_tiles(g, p.N * g.ph * g.pw, short_h, short_w)
    w.dy_tiles = w.tiles
    g.h_end, g.w_end, w.dy_tiles.h_end, w.dy_tiles.w_end = end_read(p, 1), end_read(p, 2), p.out[1], p.out[2]
    make_axis(&g.h, t, p.size[1], 0, p.stride[1] * g.ph, 1, p.mode)
    make_axis(&g.w, t, p.size[2], 0, p.stride[2] * g.pw, 1, p.mode)
    make_axis(&w.dy_tiles.h, t, p.out[1], 0, g.ph, 1, 0)
    make_axis(&w.dy_tiles.w, t, p.out[2], 0, g.pw, 1, 0)


cdef object run_winograd_outer(real *dweight, real *dbias, Shape p, fc_source *dy, fc_source *x, int threads, ix tile, ix short_h, ix short_w):
    cdef WinogradOuter w
    cdef Tables t = Tables(p)
    describe_winograd_outer(&w, t, p, dy, x, tile, short_h, short_w)
    with nogil:
        winograd_outer(dweight, dbias, &w, threads)


def winograd_backward_weight(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dweight, cnp.ndarray dbias, Shape shape, int threads, ix tile, ix short_h,
                             ix short_w):
    """`conv_backward_weight` for 2-d kernels; strided or dilated, not both. `tile`: points along an axis of it; 6 serve 2 to 5 taps an axis in every phase of the
    stride, 8 serve 3 to 7. short_h, short_w: how many of the tiles down a map and across it are short, no more than hang over its end."""
    cdef fc_source source_y, source_x
    check_result(dweight)
    check_bias(dbias, dweight, shape)
    make_source(&source_y, dy, shape, shape.K, shape.out, "dy")
    make_source(&source_x, x, shape, shape.C, shape.size, "x")
    if cnp.PyArray_TYPE(dweight) == cnp.NPY_FLOAT:
        run_winograd_outer(<float *> cnp.PyArray_DATA(dweight), <float *> data_or_null(dbias), shape, &source_y, &source_x, threads, tile, short_h, short_w)
    else:
        run_winograd_outer(<double *> cnp.PyArray_DATA(dweight), <double *> data_or_null(dbias), shape, &source_y, &source_x, threads, tile, short_h, short_w)


cdef size_t winograd_bytes(real *tag, str direction, Shape p, int threads, ix tile) except? 0:
    cdef Winograd w
    cdef WinogradOuter o
    cdef Tables t = Tables(p)
    cdef fc_source source
    cdef Weights weight
    cdef size_t shared, per_thread
    memset(&source, 0, sizeof(source))
    memset(&weight, 0, sizeof(weight))
    if direction == "backward_weight":
        describe_winograd_outer(&o, t, p, &source, &source, tile, 0, 0)
        plan_winograd_outer(tag, &o, threads, &shared, &per_thread)
    else:
        describe_winograd(&w, t, p, &source, &weight, NULL, direction == "backward_input", tile, 0, 0)
        plan_winograd(tag, &w, &shared, &per_thread)
    return shared + threads * per_thread


def winograd_scratch(str direction, int itemsize, Shape shape, int threads, ix tile):
    """Bytes of scratch of "forward", "backward_input" or "backward_weight" by Winograd."""
    if itemsize == 4:
        return winograd_bytes(<float *> NULL, direction, shape, threads, tile)
    return winograd_bytes(<double *> NULL, direction, shape, threads, tile)
