# The correlation driver: blocking, threads, scratch and edges around the register tile of native/gemm.h.
#
#     y[n, m, o] = sum over channels c and taps t of A[m, (c, t)] * source[n, c, o*step + offset[t]]
#
# over a parsed geometry (native/geometry.h): forward convolution, the gradient of its input, matrix products. The order of every element's sum depends on the
# problem of one sample alone, never on threads or on N.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_axis:
        ix size, out, step, taps
        ix *offset
        int mode
        ix pieces, extra
        ix *piece_offset
        ix *tap_piece
        ix *tap_delta
    ctypedef struct fc_source:
        const char *data
        ix n, c, d, h, w
        int swap
    ctypedef struct fc_grid:
        ix samples, od, oh, ow
        ix yn, yd, yh, yw
        ix vl
        int by_row
        ix lanes, width, pieces_per_row, blocks, max_runs, max_rows, max_width
    ctypedef struct fc_segment:
        int lane, len
        ix at
    ctypedef struct fc_stretch:
        ix a, b, len
    ctypedef struct fc_run:
        ix n, od, oh, rows, q, width
    ctypedef struct fc_block:
        ix lanes, vectors, runs
        fc_run *run
        fc_segment *in_ "in"
        ix *in_first
        fc_segment *out
        ix *out_first
    void fc_axis_stage(fc_axis *a, ix n)
    int fc_axis_inside(const fc_axis *a)
    ix fc_source_index(const fc_axis *a, ix i)
    void fc_grid_cut(fc_grid *g, ix lanes)
    size_t fc_block_bytes(const fc_grid *g)
    void fc_block_place(fc_block *b, const fc_grid *g, char *memory)
    void fc_block_make(fc_block *b, const fc_grid *g, ix id, int staged, ix run_size, ix row_size, ix sn, ix sd, ix sh)

    ix lanes_f32()
    ix lanes_f64()
    ix tile_width_f32(ix left)
    ix tile_width_f64(ix left)
    void tile_f32(ix rows, ix nv, ix kc, const float *A, ix a_step, const float *B, ix b_stream, float *C, ix ldc, int accumulate, const float *bias, ix ahead)
    void tile_f64(ix rows, ix nv, ix kc, const double *A, ix a_step, const double *B, ix b_stream, double *C, ix ldc, int accumulate, const double *bias, ix ahead)
    void stage_f32(float *strip, const fc_source *s, const char *channel, const fc_axis *axis, const fc_block *b, ix max_rows, ix max_width)
    void stage_f64(double *strip, const fc_source *s, const char *channel, const fc_axis *axis, const fc_block *b, ix max_rows, ix max_width)
    void gather_f32(float *B, ix stream, const float *strip, const ix *tap_offset, ix taps, const fc_block *b, ix ahead)
    void gather_f64(double *B, ix stream, const double *strip, const ix *tap_offset, ix taps, const fc_block *b, ix ahead)
    void gather_turned_f32(float *dst, ix out_stream, const float *source, const ix *row_offset, ix rows, const fc_block *b, ix ahead)
    void gather_turned_f64(double *dst, ix out_stream, const double *source, const ix *row_offset, ix rows, const fc_block *b, ix ahead)
    void transpose_f32(float *dst, ix out_stream, const float *src, ix in_stream, ix rows, ix vectors)
    void transpose_f64(double *dst, ix out_stream, const double *src, ix in_stream, ix rows, ix vectors)
    void turn_f32(float *dst, const float *rows, ix row_stride, ix rows_count, ix vectors)
    void turn_f64(double *dst, const double *rows, ix row_stride, ix rows_count, ix vectors)
    void stage_dy_f32(float *dst, const char *src, ix rows, ix stride, ix width, ix step, int swap, ix pitch, ix size)
    void stage_dy_f64(double *dst, const char *src, ix rows, ix stride, ix width, ix step, int swap, ix pitch, ix size)
    void stretch_f32(ix rows, ix nv, const fc_stretch *stretch, ix count, const float *A, ix a_row, const float *B, const ix *at, float *C, ix ldc, int accumulate)
    void stretch_f64(ix rows, ix nv, const fc_stretch *stretch, ix count, const double *A, ix a_row, const double *B, const ix *at, double *C, ix ldc, int accumulate)
    void pack_weights_f32(float *A, const char *data, ix rows, ix row_stride, ix channels, ix channel_stride, const ix *tap_offset, ix taps, int swap)
    void pack_weights_f64(double *A, const char *data, ix rows, ix row_stride, ix channels, ix channel_stride, const ix *tap_offset, ix taps, int swap)
    void scatter_f32(float *y, ix channel, ix yw, const float *tile, ix ld, ix rows, const fc_block *b, ix vector, ix nv, int accumulate, const float *bias)
    void scatter_f64(double *y, ix channel, ix yw, const double *tile, ix ld, ix rows, const fc_block *b, ix vector, ix nv, int accumulate, const double *bias)
    int lies_together_f32(const fc_block *b, ix vector, ix nv, ix yw, ix *at)
    int lies_together_f64(const fc_block *b, ix vector, ix nv, ix yw, ix *at)
    void activate_f32(float *y, ix count, int activation)
    void activate_f64(double *y, ix count, int activation)

# Bytes of packed panel that a thread streams through while a panel of weights stays: a fraction of a 512 KiB or larger second-level cache.
cdef enum:
    PANEL_BYTES = 160 * 1024
    KC_WHOLE = 384         # longest reduction kept in one piece
    KC = 256               # else about this long
    LANES_MAX = 768        # pixels in a block, when the reduction is short
    SPLIT_ROWS = 128       # fewest rows for which a task packs its pixels
    SERIAL_FLOPS = 4000000 # below this (about 40 us of work) waking a thread costs more than it saves


cdef struct Correlation:
    fc_axis axis[3]
    fc_grid grid
    fc_source source
    ix groups, rows, channels, taps
    const char *weight
    ix w_group, w_row, w_channel
    ix *w_tap
    int w_swap
    const void *bias
    ix y_channel
    int activation
    # derived by prepare()
    int staged
    ix strides[3]      # of the source in elements, per output step (read in place)
    ix sizes[3]        # of a run, a row and the whole strip (staged)
    ix reduction, kc, panels
    ix *tap_offset
    ix *row_offset     # of every row of the patch matrix, for a source read in place
    ix ahead           # elements to a later block of the same source


cdef struct Bands:
    ix rows, width             # of outputs in a full band
    ix bands, pieces           # in a plane, in a row
    ix strip                   # elements of one channel's strip
    ix reach_size              # length of the following table
    ix *reach                  # strip offset of each (channel, tap)


cdef inline ix ceil_div(ix a, ix b) noexcept nogil:
    return (a + b - 1) // b


cdef inline ix vector_lanes(real *tag) noexcept nogil:
    return lanes_f32() if real is float else lanes_f64()


cdef inline ix tile_mr(real *tag) noexcept nogil:
    return MR_f32 if real is float else MR_f64


cdef inline ix tile_nv(real *tag) noexcept nogil:
    return NV_f32 if real is float else NV_f64


cdef inline ix padded(ix elements) noexcept nogil:
    """Round to whole cache lines, for either element type."""
    return (elements + 15) // 16 * 16


cdef ix reduction_block(ix reduction, ix taps) noexcept nogil:
    """Length of the pieces that a sum over `reduction` products is cut into: part of the definition of the result's bits."""
    if reduction <= KC_WHOLE:
        return reduction
    cdef ix kc = ceil_div(reduction, ceil_div(reduction, KC))
    if taps <= KC // 2:
        kc = ceil_div(kc, taps) * taps  # whole channels
    return kc


cdef ix block_lanes(ix kc, ix vl, ix nv, ix itemsize) noexcept nogil:
    """Pixels in a full block."""
    cdef ix nr = vl * nv
    cdef ix lanes = PANEL_BYTES // ((kc if kc else 1) * itemsize) // nr * nr
    if lanes > LANES_MAX // nr * nr:
        lanes = LANES_MAX // nr * nr
    return lanes if lanes > nr else nr


cdef void tabulate_strip(fc_axis *axis, fc_grid *grid, ix *tap_offset, ix *sizes) noexcept nogil:
    """Lay out a strip for the largest run of a block, and tabulate where each tap lies in it; sizes as below."""
    cdef ix a, b, c, t = 0
    fc_axis_stage(&axis[0], 1)
    fc_axis_stage(&axis[1], grid.max_rows)
    fc_axis_stage(&axis[2], grid.max_width)
    cdef ix width = grid.max_width + axis[2].extra
    cdef ix row = axis[2].pieces * width
    cdef ix plane = (grid.max_rows + axis[1].extra) * row
    sizes[1] = row
    sizes[0] = axis[0].pieces * (1 + axis[0].extra) * axis[1].pieces * plane
    sizes[2] = padded(sizes[0] * grid.max_runs + 16)  # a vector may be loaded a little past the last element
    for a in range(axis[0].taps):
        for b in range(axis[1].taps):
            for c in range(axis[2].taps):
                tap_offset[t] = (((axis[0].tap_piece[a] * (1 + axis[0].extra) + axis[0].tap_delta[a]) * axis[1].pieces + axis[1].tap_piece[b]) * plane
                                 + axis[1].tap_delta[b] * row + axis[2].tap_piece[c] * width + axis[2].tap_delta[c])
                t += 1


cdef void band_at(Bands *b, fc_grid *g, ix id, fc_run *run) noexcept nogil:
    """Band `id`, counted over samples, depth, rows and pieces."""
    cdef ix piece = id % b.pieces, band = id // b.pieces % b.bands
    run.od = id // (b.pieces * b.bands) % g.od
    run.n = id // (b.pieces * b.bands * g.od)
    run.oh, run.q = band * b.rows, piece * b.width
    run.rows = b.rows if g.oh - run.oh > b.rows else g.oh - run.oh
    run.width = b.width if g.ow - run.q > b.width else g.ow - run.q


cdef void prepare_axes(fc_axis *axis, fc_grid *grid, fc_source *source, ix itemsize, int *staged, ix *strides, ix *tap_offset, ix *sizes) noexcept nogil:
    """Decide between staging strips and reading the source in place, and tabulate where each tap lies.

    strides: element strides (sn, sd, sh) of the source; sizes: (run, row, strip) sizes in elements. Needs the grid to be cut.
    """
    cdef ix a, b, c, t = 0, i
    cdef int inside = not source.swap and <size_t> source.data % itemsize == 0 and axis[2].step == 1 and (source.w == itemsize or axis[2].size == 1)
    for i in range(3):
        inside = inside and fc_axis_inside(&axis[i])
    if source.n % itemsize or source.c % itemsize or source.d % itemsize or source.h % itemsize:
        inside = 0
    staged[0] = not inside
    if inside:
        strides[0] = source.n // itemsize
        strides[1] = source.d // itemsize * axis[0].step
        strides[2] = source.h // itemsize * axis[1].step
        sizes[0] = sizes[1] = sizes[2] = 0
        for a in range(axis[0].taps):
            for b in range(axis[1].taps):
                for c in range(axis[2].taps):
                    tap_offset[t] = axis[0].offset[a] * (source.d // itemsize) + axis[1].offset[b] * (source.h // itemsize) + axis[2].offset[c]
                    t += 1
        return
    tabulate_strip(axis, grid, tap_offset, sizes)


cdef void tabulate_rows(ix *offset, ix channels, ix taps, ix channel_stride, const ix *tap_offset) noexcept nogil:
    """Where every row (channel, tap) of the patch matrix begins, for a source that is read in place."""
    cdef ix c, t
    for c in range(channels):
        for t in range(taps):
            offset[c * taps + t] = c * channel_stride + tap_offset[t]


cdef void pack_patches(real *B, ix stream, real *strip, const fc_source *source, ix channel, const fc_axis *axis, const fc_grid *grid, const fc_block *block,
                       const ix *rows, const ix *tap_offset, ix taps, ix first, ix last, ix ahead) noexcept nogil:
    """Rows [first, last) of the patch matrix, row = (channel, tap), of one block of pixels: vector k of stream j at B + j*stream + k*VL.

    rows: the table of tabulate_rows, or NULL if the source is staged through strips.
    """
    cdef ix c, t0, t1, at = 0, vl = vector_lanes(B)
    cdef const char *plane
    if rows != NULL:
        plane = source.data + channel * source.c
        if real is float:
            gather_f32(B, stream, <const float *> plane, rows + first, last - first, block, ahead)
        else:
            gather_f64(B, stream, <const double *> plane, rows + first, last - first, block, ahead)
        return
    c = first // taps if taps else 0
    while first < last:
        t0 = first - c * taps
        t1 = taps if (c + 1) * taps < last else last - c * taps
        plane = source.data + (channel + c) * source.c
        if real is float:
            stage_f32(strip, source, plane, axis, block, grid.max_rows, grid.max_width)
            gather_f32(B + at, stream, strip, tap_offset + t0, t1 - t0, block, 0)
        else:
            stage_f64(strip, source, plane, axis, block, grid.max_rows, grid.max_width)
            gather_f64(B + at, stream, strip, tap_offset + t0, t1 - t0, block, 0)
        at += (t1 - t0) * vl
        first += t1 - t0
        c += 1


cdef void correlate_task(real *y, Correlation *c, const real *packed, char *memory, ix id, ix first_unit, ix last_unit) noexcept nogil:
    """One block of pixels, for the weight panels [first_unit, last_unit) counted over all groups."""
    cdef ix mr = tile_mr(y), nr_v = tile_nv(y), vl = vector_lanes(y)
    cdef ix stream = c.kc * vl, max_vectors = c.grid.lanes // vl
    cdef fc_block block
    cdef real *B = <real *> memory
    cdef real *strip = B + max_vectors * stream
    cdef real *tile = strip + c.sizes[2]
    cdef ix g, panel, last_panel, k0, kc, rows, j, nv, at, unit = first_unit
    cdef const real *bias
    cdef const real *A
    cdef real *yrow
    cdef int accumulate
    fc_block_place(&block, &c.grid, <char *> (tile + mr * nr_v * vl))
    fc_block_make(&block, &c.grid, id, c.staged, c.sizes[0], c.sizes[1], c.strides[0], c.strides[1], c.strides[2])
    while unit < last_unit:
        g = unit // c.panels
        last_panel = c.panels if (g + 1) * c.panels <= last_unit else last_unit - g * c.panels
        k0 = 0
        while k0 < c.reduction or k0 == 0:
            kc = c.reduction - k0 if c.reduction - k0 < c.kc else c.kc
            pack_patches(B, stream, strip, &c.source, g * c.channels, c.axis, &c.grid, &block, c.row_offset, c.tap_offset, c.taps, k0, k0 + kc, c.ahead)
            accumulate = k0 > 0
            for panel in range(unit - g * c.panels, last_panel):
                rows = c.rows - panel * mr if c.rows - panel * mr < mr else mr
                A = packed + ((g * c.panels + panel) * c.reduction + k0) * mr
                yrow = y + (g * c.rows + panel * mr) * c.y_channel
                bias = <const real *> c.bias + g * c.rows + panel * mr if c.bias != NULL and k0 + kc == c.reduction else NULL
                j = 0
                while j < block.vectors:
                    if real is float:
                        nv = tile_width_f32(block.vectors - j)
                        if lies_together_f32(&block, j, nv, c.grid.yw, &at):
                            tile_f32(rows, nv, kc, A, mr, B + j * stream, stream, yrow + at, c.y_channel, accumulate, bias, c.reduction * mr)
                        else:
                            tile_f32(rows, nv, kc, A, mr, B + j * stream, stream, tile, nr_v * vl, 0, NULL, c.reduction * mr)
                            scatter_f32(yrow, c.y_channel, c.grid.yw, tile, nr_v * vl, rows, &block, j, nv, accumulate, bias)
                    else:
                        nv = tile_width_f64(block.vectors - j)
                        if lies_together_f64(&block, j, nv, c.grid.yw, &at):
                            tile_f64(rows, nv, kc, A, mr, B + j * stream, stream, yrow + at, c.y_channel, accumulate, bias, c.reduction * mr)
                        else:
                            tile_f64(rows, nv, kc, A, mr, B + j * stream, stream, tile, nr_v * vl, 0, NULL, c.reduction * mr)
                            scatter_f64(yrow, c.y_channel, c.grid.yw, tile, nr_v * vl, rows, &block, j, nv, accumulate, bias)
                    j += nv
                if c.activation and k0 + kc == c.reduction:
                    for at in range(rows):
                        for j in range(block.out_first[block.vectors]):
                            if real is float:
                                activate_f32(yrow + at * c.y_channel + block.out[j].at, block.out[j].len, c.activation)
                            else:
                                activate_f64(yrow + at * c.y_channel + block.out[j].at, block.out[j].len, c.activation)
            k0 += c.kc if c.kc else 1
        unit = (g + 1) * c.panels if (g + 1) * c.panels < last_unit else last_unit


cdef struct CorrelationPlan:
    size_t packed, rows, per_thread
    ix lanes, taps


cdef void plan_correlation(real *tag, Correlation *c, CorrelationPlan *p) noexcept nogil:
    """Block sizes and scratch of a correlation, from the problem of one sample alone. Fills the derived fields of `c`."""
    cdef ix vl = vector_lanes(tag)
    c.taps = c.axis[0].taps * c.axis[1].taps * c.axis[2].taps
    c.reduction = c.channels * c.taps
    c.panels = ceil_div(c.rows, tile_mr(tag))
    c.kc = reduction_block(c.reduction, c.taps)
    c.grid.vl = vl
    p.lanes = block_lanes(c.kc, vl, tile_nv(tag), sizeof(real))
    fc_grid_cut(&c.grid, p.lanes)
    prepare_axes(c.axis, &c.grid, &c.source, sizeof(real), &c.staged, c.strides, c.tap_offset, c.sizes)
    p.packed = <size_t> padded(c.groups * c.panels * c.reduction * tile_mr(tag) + 1024) * sizeof(real)
    p.rows = <size_t> padded(0 if c.staged else c.reduction) * sizeof(ix)
    p.per_thread = <size_t> padded(c.grid.lanes // vl * c.kc * vl + c.sizes[2] + tile_mr(tag) * tile_nv(tag) * vl) * sizeof(real)
    p.per_thread = (p.per_thread + fc_block_bytes(&c.grid) + 127) // 64 * 64


cdef void pack_panel(real *packed, Correlation *c, ix unit) noexcept nogil:
    cdef ix mr = tile_mr(packed), g = unit // c.panels, panel = unit % c.panels
    cdef ix rows = c.rows - panel * mr if c.rows - panel * mr < mr else mr
    cdef const char *w = c.weight + g * c.w_group + panel * mr * c.w_row
    if real is float:
        pack_weights_f32(packed + unit * c.reduction * mr, w, rows, c.w_row, c.channels, c.w_channel, c.w_tap, c.taps, c.w_swap)
    else:
        pack_weights_f64(packed + unit * c.reduction * mr, w, rows, c.w_row, c.channels, c.w_channel, c.w_tap, c.taps, c.w_swap)


cdef int correlate(real *y, Correlation *c, int threads) except -1 nogil:
    cdef CorrelationPlan p
    cdef ix pixels = c.grid.samples * c.grid.od * c.grid.oh * c.grid.ow
    cdef ix mr = tile_mr(y), units, splits, blocks, task, g, panel, lanes
    cdef char *memory
    cdef real *packed
    if pixels == 0 or c.groups * c.rows == 0:
        return 0
    plan_correlation(y, c, &p)
    units = c.groups * c.panels
    if 2.0 * pixels * c.groups * c.rows * c.reduction < SERIAL_FLOPS:
        threads = 1
    if threads > 1 and not c.grid.by_row:  # equal shares for all threads, in whole vectors
        blocks = ceil_div(ceil_div(pixels, c.grid.lanes), threads) * threads
        if blocks <= 4 * threads:
            lanes = ceil_div(ceil_div(pixels, blocks), c.grid.vl) * c.grid.vl
            if lanes < c.grid.vl * tile_nv(y):
                lanes = c.grid.vl * tile_nv(y)
            if lanes < c.grid.lanes:
                fc_grid_cut(&c.grid, lanes)
                prepare_axes(c.axis, &c.grid, &c.source, sizeof(real), &c.staged, c.strides, c.tap_offset, c.sizes)
    blocks = c.grid.blocks
    splits = 1
    if blocks < 8 * threads and threads > 1:
        # Few blocks are seldom equal shares: their rows are dealt too, in pieces that repay packing the same pixels again.
        splits = smaller(ceil_div(8 * threads, blocks), c.groups * c.rows // SPLIT_ROWS)
        splits = larger(splits, ceil_div(threads if blocks < threads else 1, blocks))
        if c.groups > 1:
            splits = larger(splits, ceil_div(4 * threads, blocks))
        splits = smaller(splits, units)
    memory = <char *> take_scratch(p.packed + p.rows + threads * p.per_thread + 64)
    packed = <real *> memory
    c.row_offset = NULL
    c.ahead = 0
    if not c.staged:
        c.row_offset = <ix *> (memory + p.packed)
        tabulate_rows(c.row_offset, c.channels, c.taps, c.source.c // <ix> sizeof(real), c.tap_offset)
        # Fetching early pays where every element is read once; neighbouring taps would ask for the same lines again.
        c.ahead = threads * c.grid.lanes if c.taps == 1 else 0
    if threads == 1:
        for task in range(units):
            pack_panel(packed, c, task)
        for task in range(blocks):
            correlate_task(y, c, packed, memory + p.packed + p.rows, task, 0, units)
    else:
        for task in prange(units, num_threads=threads, schedule="static"):
            pack_panel(packed, c, task)
        for task in prange(blocks * splits, num_threads=threads, schedule="dynamic"):
            correlate_task(y, c, packed, memory + p.packed + p.rows + threadid() * p.per_thread, task // splits,
                           task % splits * units // splits, (task % splits + 1) * units // splits)
    fc_scratch_give(memory)
    return 0
