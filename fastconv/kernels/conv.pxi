# Convolution drivers: blocking, threads, scratch and edges around the register tile of native/gemm.h.
#
# Everything is one of two sums over a parsed geometry (native/geometry.h):
#   correlate     y[n, m, o] = sum over channels c and taps t of A[m, (c, t)] * source[n, c, o*step + offset[t]]     forward, gradient of the input, linear
#   outer         dW[m, (c, t)] = sum over pixels (n, o) of dy[n, m, o] * source[n, c, o*step + offset[t]]            gradient of the weights
# The order of every element's sum depends on the problem alone, never on threads or on N (outer: never on threads).

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
        ix lanes, width, blocks, max_runs, max_rows, max_width
    ctypedef struct fc_segment:
        int lane, len
        ix at
    ctypedef struct fc_block:
        ix lanes, vectors, runs
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
    void transpose_f32(float *dst, ix out_stream, const float *src, ix in_stream, ix rows, ix vectors)
    void transpose_f64(double *dst, ix out_stream, const double *src, ix in_stream, ix rows, ix vectors)
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
    OUTER_LANES = 128      # pixels summed in registers before dW is touched: fixed, since it is part of the order of the sum
    OUTER_ROWS = 512       # rows of dy, columns of patches held at once
    OUTER_PARTS_BYTES = 8 * 1024 * 1024
    SERIAL_FLOPS = 400000  # below this a parallel region costs more than it saves (about 10 us of work)


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
    if blocks < 4 * threads and threads > 1:
        splits = ceil_div(threads if blocks < threads else 1, blocks)
        if c.groups > 1:
            splits = ceil_div(4 * threads, blocks)
        splits = units if splits > units else splits
    memory = <char *> take_scratch(p.packed + p.rows + threads * p.per_thread + 64)
    packed = <real *> memory
    c.row_offset = NULL
    c.ahead = 0
    if not c.staged:
        c.row_offset = <ix *> (memory + p.packed)
        tabulate_rows(c.row_offset, c.channels, c.taps, c.source.c // <ix> sizeof(real), c.tap_offset)
        # Fetching early pays where every element is read once; neighbouring taps would ask for the same lines again.
        c.ahead = threads * c.grid.lanes if c.taps == 1 else 0
    for task in prange(units, num_threads=threads, schedule="static"):
        pack_panel(packed, c, task)
    for task in prange(blocks * splits, num_threads=threads, schedule="dynamic"):
        correlate_task(y, c, packed, memory + p.packed + p.rows + threadid() * p.per_thread, task // splits,
                       task % splits * units // splits, (task % splits + 1) * units // splits)
    fc_scratch_give(memory)
    return 0


# ---- gradient of the weights

cdef struct Outer:
    fc_axis axis[3]
    fc_axis unit[3]        # dy read as it is: one tap
    fc_grid grid
    fc_source source, dy
    ix groups, rows, channels, taps
    # derived
    int staged, dy_staged
    ix strides[3]
    ix sizes[3]
    ix dy_strides[3]
    ix dy_sizes[3]
    ix columns, padded_columns, row_blocks, column_blocks, parts
    ix *tap_offset
    ix *row_offset         # of every row of the patch matrix, for x read in place
    ix *dy_offset          # of every channel of dy, likewise
    ix zero                # the one tap of dy


cdef void plan_outer(real *tag, Outer *o, size_t *sums, size_t *tables, size_t *per_thread) noexcept nogil:
    """Block sizes, the number of partial sums and scratch, from the problem of one sample alone."""
    cdef ix vl = vector_lanes(tag), tasks
    cdef ix rows = o.rows if o.rows < OUTER_ROWS else OUTER_ROWS, columns
    o.taps = o.axis[0].taps * o.axis[1].taps * o.axis[2].taps
    o.columns = o.channels * o.taps
    o.padded_columns = ceil_div(o.columns, vl) * vl
    columns = o.padded_columns if o.padded_columns < OUTER_ROWS else OUTER_ROWS
    o.row_blocks = ceil_div(o.rows, OUTER_ROWS)
    o.column_blocks = ceil_div(o.padded_columns, OUTER_ROWS)
    o.grid.vl = vl
    fc_grid_cut(&o.grid, OUTER_LANES * 4 // sizeof(real))
    prepare_axes(o.axis, &o.grid, &o.source, sizeof(real), &o.staged, o.strides, o.tap_offset, o.sizes)
    prepare_axes(o.unit, &o.grid, &o.dy, sizeof(real), &o.dy_staged, o.dy_strides, &o.zero, o.dy_sizes)
    sums[0] = <size_t> padded(o.groups * o.rows * o.padded_columns) * sizeof(real)
    tables[0] = <size_t> padded(o.columns + o.rows) * sizeof(ix)
    # The pixels are dealt to a fixed number of partial sums, so that small weights keep several threads busy.
    tasks = o.groups * o.row_blocks * o.column_blocks
    o.parts = 1
    while o.parts < 8 and o.parts * tasks < 16 and 2 * o.parts * sums[0] <= OUTER_PARTS_BYTES:
        o.parts *= 2
    rows = ceil_div(rows, vl) * vl
    per_thread[0] = <size_t> padded(o.grid.lanes * (rows + columns + (rows if rows > columns else columns))
                                    + (o.sizes[2] if o.sizes[2] > o.dy_sizes[2] else o.dy_sizes[2])) * sizeof(real)
    per_thread[0] = (per_thread[0] + 2 * (fc_block_bytes(&o.grid) + 64) + 127) // 64 * 64


cdef void outer_task(real *sums, Outer *o, char *memory, ix part, ix g, ix row_block, ix column_block) noexcept nogil:
    """One part of the pixels, for one block of rows (output channels) by columns (channel, tap)."""
    cdef ix mr = tile_mr(sums), vl = vector_lanes(sums)
    cdef ix first_row = row_block * OUTER_ROWS, rows = o.rows - first_row if o.rows - first_row < OUTER_ROWS else OUTER_ROWS
    cdef ix first = column_block * OUTER_ROWS, columns = o.columns - first if o.columns - first < OUTER_ROWS else OUTER_ROWS
    cdef ix row_groups = ceil_div(rows, vl), column_groups = ceil_div(columns, vl), lanes = o.grid.lanes, span = lanes * vl
    cdef real *A = <real *> memory
    cdef real *B = A + row_groups * span
    cdef real *patches = B + column_groups * span
    cdef real *strip = patches + (row_groups if row_groups > column_groups else column_groups) * span
    cdef char *rest = <char *> (strip + (o.sizes[2] if o.sizes[2] > o.dy_sizes[2] else o.dy_sizes[2]))
    cdef real *C = sums + (g * o.rows + first_row) * o.padded_columns + first
    cdef fc_block block, dy_block
    cdef ix id = part * o.grid.blocks // o.parts, last = (part + 1) * o.grid.blocks // o.parts, row, j, nv, r
    cdef int accumulate = 0
    fc_block_place(&block, &o.grid, rest)
    fc_block_place(&dy_block, &o.grid, rest + (fc_block_bytes(&o.grid) + 63) // 64 * 64)
    if id == last:
        for row in range(rows):
            memset(C + row * o.padded_columns, 0, column_groups * vl * sizeof(real))
    while id < last:
        fc_block_make(&block, &o.grid, id, o.staged, o.sizes[0], o.sizes[1], o.strides[0], o.strides[1], o.strides[2])
        fc_block_make(&dy_block, &o.grid, id, o.dy_staged, o.dy_sizes[0], o.dy_sizes[1], o.dy_strides[0], o.dy_strides[1], o.dy_strides[2])
        pack_patches(patches, row_groups * vl * vl, strip, &o.dy, g * o.rows, o.unit, &o.grid, &dy_block, o.dy_offset, &o.zero, 1,
                     first_row, first_row + rows, lanes)
        if real is float:
            transpose_f32(A, span, patches, row_groups * vl * vl, rows, block.vectors)
        else:
            transpose_f64(A, span, patches, row_groups * vl * vl, rows, block.vectors)
        pack_patches(patches, column_groups * vl * vl, strip, &o.source, g * o.channels, o.axis, &o.grid, &block, o.row_offset, o.tap_offset, o.taps,
                     first, first + columns, lanes if o.taps == 1 else 0)
        if real is float:
            transpose_f32(B, span, patches, column_groups * vl * vl, columns, block.vectors)
        else:
            transpose_f64(B, span, patches, column_groups * vl * vl, columns, block.vectors)
        row = 0
        while row < rows:
            r = rows - row if rows - row < mr else mr
            j = 0
            while j < column_groups:
                if real is float:
                    nv = tile_width_f32(column_groups - j)
                    tile_f32(r, nv, block.lanes, A + row // vl * span + row % vl, vl, B + j * span, span, C + row * o.padded_columns + j * vl,
                             o.padded_columns, accumulate, NULL, span)
                else:
                    nv = tile_width_f64(column_groups - j)
                    tile_f64(r, nv, block.lanes, A + row // vl * span + row % vl, vl, B + j * span, span, C + row * o.padded_columns + j * vl,
                             o.padded_columns, accumulate, NULL, span)
                j += nv
            row += mr
        accumulate = 1
        id += 1


cdef void add_parts(real *dweight, const real *sums, Outer *o, ix row) noexcept nogil:
    """Row of dweight = the sum of its partial sums, in order."""
    cdef ix part, i, size = padded(o.groups * o.rows * o.padded_columns)
    cdef const real *s = sums + row * o.padded_columns
    cdef real *d = dweight + row * o.columns
    memcpy(d, s, o.columns * sizeof(real))
    for part in range(1, o.parts):
        s += size
        for i in range(o.columns):
            d[i] += s[i]


cdef int outer(real *dweight, Outer *o, int threads) except -1 nogil:
    cdef size_t sums, tables, per_thread
    cdef ix pixels = o.grid.samples * o.grid.od * o.grid.oh * o.grid.ow, task, tasks, blocks, row
    cdef char *memory
    plan_outer(dweight, o, &sums, &tables, &per_thread)
    if 2.0 * pixels * o.groups * o.rows * o.columns < SERIAL_FLOPS:
        threads = 1
    memory = <char *> take_scratch(sums * o.parts + tables + threads * per_thread + 64)
    o.row_offset = NULL if o.staged else <ix *> (memory + sums * o.parts)
    o.dy_offset = NULL if o.dy_staged else <ix *> (memory + sums * o.parts) + o.columns
    if not o.staged:
        tabulate_rows(o.row_offset, o.channels, o.taps, o.source.c // <ix> sizeof(real), o.tap_offset)
    if not o.dy_staged:
        tabulate_rows(o.dy_offset, o.rows, 1, o.dy.c // <ix> sizeof(real), &o.zero)
    blocks = o.row_blocks * o.column_blocks
    tasks = o.parts * o.groups * blocks
    for task in prange(tasks, num_threads=threads, schedule="dynamic"):
        outer_task(<real *> (memory + sums * (task // (o.groups * blocks))), o, memory + sums * o.parts + tables + threadid() * per_thread,
                   task // (o.groups * blocks), task // blocks % o.groups, task // o.column_blocks % o.row_blocks, task % o.column_blocks)
    for row in prange(o.groups * o.rows, num_threads=threads, schedule="static"):
        add_parts(dweight, <real *> memory, o, row)
    fc_scratch_give(memory)
    return 0


# ---- from Python objects to the structures above

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
            taps *= s.kernel[i] + s.stride[i]
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
    s.n = s.d = s.h = 0
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
    c.bias, c.y_channel, c.activation = bias, plane, p.activation
    set_grid(&c.grid, p.N, p.out, p.K * plane, p.out[1] * p.out[2], p.out[2], 1)


cdef object run_forward(real *y, Shape p, fc_source *x, Weights *w, const void *bias, int threads):
    cdef Correlation c
    cdef Tables t = Tables(p)
    describe_forward(&c, t, p, x, w, bias)
    with nogil:
        correlate(y, &c, threads)


def conv_forward(cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray y, Shape shape, int threads):
    """y = correlation of x with weight + bias, activated. `bias` is contiguous and native or None; y is a fresh result."""
    cdef fc_source source
    cdef Weights w
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(y)
    make_source(&source, x, shape, shape.C, shape.size, "x")
    make_weights(&w, weight, shape)
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_forward(<float *> cnp.PyArray_DATA(y), shape, &source, &w, b, threads)
    else:
        run_forward(<double *> cnp.PyArray_DATA(y), shape, &source, &w, b, threads)


cdef object run_backward_input(real *dx, Shape p, fc_source *dy, Weights *w, const void *bias, ix samples, const ix *size, const ix *low, int threads):
    """dx (N, C, *size) = adjoint of the forward convolution with padding `low`, zeros outside.

    Input positions i with the same residue (i + low) mod stride see the same taps t: those with t*dilation of that residue. Each such phase is a
    correlation of dy with stride 1, written `stride` apart.
    """
    cdef Correlation c
    cdef Tables t
    cdef ix phase[3]
    cdef ix first[3]
    cdef ix count[3]
    cdef ix index, i, j, k, n, a, taps, start, plane = size[0] * size[1] * size[2]
    c.source = dy[0]
    c.groups, c.rows, c.channels = p.groups, p.C // p.groups, p.K // p.groups
    c.weight, c.w_swap = w.data, w.swap
    c.w_group, c.w_row, c.w_channel = c.channels * w.k, w.c, w.k
    c.bias, c.y_channel, c.activation = bias, plane, 0
    for index in range(p.stride[0] * p.stride[1] * p.stride[2]):
        phase[0], phase[1], phase[2] = index // (p.stride[1] * p.stride[2]), index // p.stride[2] % p.stride[1], index % p.stride[2]
        t = Tables(p)
        c.w_tap, c.tap_offset = t.take(p.taps), t.take(p.taps)
        for a in range(3):
            first[a] = (phase[a] - low[a]) % p.stride[a]
            if first[a] < 0:
                first[a] += p.stride[a]
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
        if count[0] * count[1] * count[2] == 0:
            continue
        n = 0
        for i in range(c.axis[0].taps):
            for j in range(c.axis[1].taps):
                for k in range(c.axis[2].taps):
                    c.w_tap[n] = (c.axis[0].piece_offset[i] * w.tap[0] + c.axis[1].piece_offset[j] * w.tap[1]
                                  + c.axis[2].piece_offset[k] * w.tap[2])
                    n += 1
        set_grid(&c.grid, samples, count, p.C * plane, size[1] * size[2] * p.stride[0], size[2] * p.stride[1], p.stride[2])
        start = (first[0] * size[1] + first[1]) * size[2] + first[2]
        with nogil:
            correlate(dx + start, &c, threads)


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


cdef object run_backward_padded(real *dx, Shape p, fc_source *dy, Weights *w, int threads):
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
            run_backward_input(buffer, p, &sample, w, NULL, 1, extent, zero, threads)
            with nogil:
                for i in prange(p.C, num_threads=threads, schedule="static"):
                    fold_plane(dx + (n * p.C + i) * plane, buffer + i * padded_plane, p, extent)
    finally:
        fc_scratch_give(buffer)


def conv_backward_input(cnp.ndarray dy, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray dx, Shape shape, int threads):
    """dx = adjoint of the forward convolution, applied to dy, + bias (C values, contiguous and native, or None)."""
    cdef fc_source source
    cdef Weights w
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(dx)
    make_source(&source, dy, shape, shape.K, shape.out, "dy")
    make_weights(&w, weight, shape)
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        if shape.mode:
            run_backward_padded(<float *> cnp.PyArray_DATA(dx), shape, &source, &w, threads)
        else:
            run_backward_input(<float *> cnp.PyArray_DATA(dx), shape, &source, &w, b, shape.N, shape.size, shape.low, threads)
    else:
        if shape.mode:
            run_backward_padded(<double *> cnp.PyArray_DATA(dx), shape, &source, &w, threads)
        else:
            run_backward_input(<double *> cnp.PyArray_DATA(dx), shape, &source, &w, b, shape.N, shape.size, shape.low, threads)


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


cdef object run_backward_weight(real *dweight, Shape p, fc_source *dy, fc_source *x, int threads):
    cdef Outer o
    cdef Tables t = Tables(p)
    cdef ix one[4 * 3]
    describe_outer(&o, t, p, dy, x, one)
    with nogil:
        outer(dweight, &o, threads)


def conv_backward_weight(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dweight, Shape shape, int threads):
    """dweight = sum over samples and output positions of dy times the patch of x below it."""
    cdef fc_source source_y, source_x
    check_result(dweight)
    make_source(&source_y, dy, shape, shape.K, shape.out, "dy")
    make_source(&source_x, x, shape, shape.C, shape.size, "x")
    if cnp.PyArray_TYPE(dweight) == cnp.NPY_FLOAT:
        run_backward_weight(<float *> cnp.PyArray_DATA(dweight), shape, &source_y, &source_x, threads)
    else:
        run_backward_weight(<double *> cnp.PyArray_DATA(dweight), shape, &source_y, &source_x, threads)


# ---- what a call would take

cdef size_t scratch_bytes(real *tag, str direction, Shape p, int threads) except? 0:
    """Scratch of the implicit algorithm for contiguous arrays; the same for every N."""
    cdef Tables t = Tables(p)
    cdef fc_source source
    cdef Weights w
    cdef Correlation c
    cdef CorrelationPlan cp
    cdef Outer o
    cdef ix one[4 * 3]
    cdef size_t sums, tables, per_thread, extent = 1
    cdef ix i
    memset(&source, 0, sizeof(source))
    memset(&w, 0, sizeof(w))
    source.w = sizeof(real)
    source.h = source.w * p.size[2]
    source.d = source.h * p.size[1]
    source.c = source.d * p.size[0]
    source.n = source.c * p.C
    if direction == "backward_weight":
        describe_outer(&o, t, p, &source, &source, one)
        plan_outer(tag, &o, &sums, &tables, &per_thread)
        return sums * o.parts + tables + threads * per_thread
    describe_forward(&c, t, p, &source, &w, NULL)
    if direction == "backward_input":
        # The phase with the most taps, read through strips: what the largest of the correlations takes.
        c.rows, c.channels = p.C // p.groups, p.K // p.groups
        for i in range(3):
            c.axis[i].taps = ceil_div(p.kernel[i], p.stride[i]) if p.dilation[i] % p.stride[i] else p.kernel[i]
            c.axis[i].size, c.axis[i].step, c.axis[i].mode = p.out[i], 1, 0
            c.axis[i].out = ceil_div(p.size[i], p.stride[i])
            extent *= p.size[i] + 2 * p.low[i]
        set_grid(&c.grid, p.N, [c.axis[0].out, c.axis[1].out, c.axis[2].out], 0, 0, 0, 1)
    plan_correlation(tag, &c, &cp)
    sums = cp.packed + cp.rows + threads * cp.per_thread
    if direction == "backward_input" and p.mode:
        sums += p.C * extent * sizeof(real)
    return sums


def conv_scratch(str direction, int itemsize, Shape shape, int threads):
    """Bytes of scratch of "forward", "backward_input" or "backward_weight" by implicit GEMM."""
    if itemsize == 4:
        return scratch_bytes(<float *> NULL, direction, shape, threads)
    return scratch_bytes(<double *> NULL, direction, shape, threads)
