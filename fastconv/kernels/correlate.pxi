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
        ix ahead
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
    void fc_block_make(fc_block *b, const fc_grid *g, ix id, int staged, ix run_size, ix row_size, ix sn, ix sd, ix sh, ix sw)
    ix fc_block_lines(ix *at, ix most, const fc_block *b, ix every, ix line)

    ix lanes_f32()
    ix lanes_f64()
    ix tile_width_f32(ix left)
    ix tile_width_f64(ix left)
    void tile_f32(ix rows, ix nv, ix kc, const float *A, ix a_step, const float *B, ix b_stream, float *C, ix ldc, int accumulate, const float *bias, ix ahead)
    void tile_f64(ix rows, ix nv, ix kc, const double *A, ix a_step, const double *B, ix b_stream, double *C, ix ldc, int accumulate, const double *bias, ix ahead)
    void stage_f32(float *strip, const fc_source *s, const char *channel, const fc_axis *axis, const fc_block *b, ix max_rows, ix max_width)
    void stage_f64(double *strip, const fc_source *s, const char *channel, const fc_axis *axis, const fc_block *b, ix max_rows, ix max_width)
    void gather_f32(float *B, ix stream, ix step, const float *strip, const ix *tap_offset, ix taps, const fc_block *b, ix first, ix last, ix ahead)
    void gather_f64(double *B, ix stream, ix step, const double *strip, const ix *tap_offset, ix taps, const fc_block *b, ix first, ix last, ix ahead)
    void gather_turned_f32(float *dst, ix out_stream, const float *source, ix every, const ix *row_offset, ix rows, const fc_block *b, ix ahead)
    void gather_turned_f64(double *dst, ix out_stream, const double *source, ix every, const ix *row_offset, ix rows, const fc_block *b, ix ahead)
    void transpose_f32(float *dst, ix out_stream, const float *src, ix in_stream, ix rows, ix vectors)
    void transpose_f64(double *dst, ix out_stream, const double *src, ix in_stream, ix rows, ix vectors)
    void turn_f32(float *dst, const float *rows, ix row_stride, ix rows_count, ix vectors)
    void turn_f64(double *dst, const double *rows, ix row_stride, ix rows_count, ix vectors)
    void stage_dy_f32(float *dst, const char *src, ix rows, ix stride, ix width, ix step, int swap, ix pitch, ix size)
    void stage_dy_f64(double *dst, const char *src, ix rows, ix stride, ix width, ix step, int swap, ix pitch, ix size)
    void stretch_f32(ix rows, ix nv, const fc_stretch *stretch, ix count, const float *A, ix a_row, const float *B, const ix *at, float *C, ix ldc, int accumulate,
                     const char **early)
    void stretch_f64(ix rows, ix nv, const fc_stretch *stretch, ix count, const double *A, ix a_row, const double *B, const ix *at, double *C, ix ldc, int accumulate,
                     const char **early)
    void pack_weights_f32(float *A, const char *data, ix rows, ix row_stride, ix channels, ix channel_stride, const ix *tap_offset, ix taps, int swap)
    void pack_weights_f64(double *A, const char *data, ix rows, ix row_stride, ix channels, ix channel_stride, const ix *tap_offset, ix taps, int swap)
    enum:
        FC_AMONG
    ctypedef struct fc_panel:
        ix rows, count, kc
        ix a_row, a_step
        ix fetch, fetch_step
        ix b_vector
        ix source_step
        ix every
        const ix *next
        ix next_lines, ahead
        ix panel, panels
        int fresh
        const ix *row
        ix y_channel, yw
        int accumulate, stream, activation
        int among
        ix start, plane
        const fc_grid *grid
    ctypedef struct fc_tile:
        ix nv, to
        int together, whole
    void tiles_of_f32(fc_tile *tile, const fc_block *b, ix yw)
    void tiles_of_f64(fc_tile *tile, const fc_block *b, ix yw)
    void pack_tiles_f32(float *B, ix b_vector, ix at, const float *strip, const ix *tap_offset, ix taps, const fc_block *b, const fc_tile *tile)
    void pack_tiles_f64(double *B, ix b_vector, ix at, const double *strip, const ix *tap_offset, ix taps, const fc_block *b, const fc_tile *tile)
    void panel_f32(const fc_panel *p, const fc_block *b, const fc_tile *tile, float *y, const float *A, float *B, const float *source, const float *bias, float *buffer)
    void panel_f64(const fc_panel *p, const fc_block *b, const fc_tile *tile, double *y, const double *A, double *B, const double *source, const double *bias,
                   double *buffer)
    void activate_f32(float *y, ix count, int activation)
    void activate_f64(double *y, ix count, int activation)

# Bytes of packed pixels that a thread streams through while a panel of weights stays: a fraction of a 512 KiB or larger second-level cache. Where pixels are packed
# without staging, whole sums are, up to WHOLE_BYTES for the narrowest block, so that the result is written once.
cdef enum:
    PANEL_BYTES = 160 * 1024
    WHOLE_BYTES = 384 * 1024
    KC_WHOLE = 384         # longest reduction kept in one piece
    KC = 256               # else about this long
    LANES_MAX = 768        # pixels in a block, when the reduction is short
    LANES_FRESH = 240      # where they are packed on the way
    SPLIT_ROWS = 128       # fewest rows for which a task packs its pixels,
    SPLIT_STAGED = 512     # and stages them, if shares are equal without
    LEAST_OF_LINE = 32     # bytes of a panel's rows that lie together, if it is not packed
    EVERY = 2              # pixels may lie so far apart in a source that is read in place, where a sum takes each at most once
    FAR_BYTES = 4 << 20    # a source of this size is not found in a second-level cache
    STREAM_RUN = 128       # elements that lie together in a result that is written past the caches
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
    int among          # nothing else writes the positions between the outputs: they hold the bias
    ix start, plane    # then: where output 0 lies in a plane, and its size
    # derived by prepare()
    ix every           # how far pixels may lie apart that are read in place
    int staged
    ix strides[4]      # of the source in elements, per output step (read in place)
    ix sizes[3]        # of a run, a row and the whole strip (staged)
    int in_place       # the weights are
    ix a_row, a_step   # their strides in elements, packed or in place
    ix reduction, kc, panels
    ix whole           # length of the part of a sum for which a block is packed: pieces of kc
    int stream         # the result is written past the caches
    ix *tap_offset
    ix *row_offset     # of every row of the patch matrix, for a source read in place
    ix later           # blocks to the one that a thread is likely to take after this one; 0: none is fetched early


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


cdef inline ix channels_ahead(const fc_source *s, ix samples, ix channels) noexcept nogil:
    """Bytes from the rows of a channel, while they are staged, to those that are staged two channels later, and fetched early. 0: all is near anyway."""
    return 2 * s.c if samples * channels * (s.c if s.c > 0 else -s.c) >= FAR_BYTES else 0


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


cdef int reads_in_place(fc_axis *axis, fc_source *source, ix itemsize, ix every) noexcept nogil:
    """Whether vectors of a source can be loaded where they lie: nothing is padded, strided along the width (by more than `every`), swapped or misaligned."""
    cdef int i, inside = (not source.swap and <size_t> source.data % itemsize == 0 and axis[2].step <= every
                          and (source.w == itemsize or axis[2].size == 1))
    for i in range(3):
        inside = inside and fc_axis_inside(&axis[i])
    return inside and not (source.n % itemsize or source.c % itemsize or source.d % itemsize or source.h % itemsize)


cdef void prepare_axes(fc_axis *axis, fc_grid *grid, fc_source *source, ix itemsize, ix every, int *staged, ix *strides, ix *tap_offset,
                       ix *sizes) noexcept nogil:
    """Decide between staging strips and reading the source in place, and tabulate where each tap lies.

    strides: element strides (sn, sd, sh, sw) of the source; sizes: (run, row, strip) sizes in elements. Needs the grid to be cut.
    """
    cdef ix a, b, c, t = 0
    staged[0] = not reads_in_place(axis, source, itemsize, every)
    strides[3] = 1
    if not staged[0]:
        strides[0] = source.n // itemsize
        strides[1] = source.d // itemsize * axis[0].step
        strides[2] = source.h // itemsize * axis[1].step
        strides[3] = axis[2].step
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
                       const ix *tap_offset, ix taps, ix first, ix last) noexcept nogil:
    """Rows [first, last) of the patch matrix, row = (channel, tap), of one block of pixels through strips: vector k of stream j at B + j*stream + k*VL."""
    cdef ix k = first, t, count, vl = vector_lanes(B)
    cdef const char *plane
    while k < last:
        t = k % taps
        count = smaller(taps - t, last - k)
        plane = source.data + (channel + k // taps) * source.c
        if real is float:
            stage_f32(strip, source, plane, axis, block, grid.max_rows, grid.max_width)
            gather_f32(B + (k - first) * vl, stream, vl, strip, tap_offset + t, count, block, 0, block.vectors, 0)
        else:
            stage_f64(strip, source, plane, axis, block, grid.max_rows, grid.max_width)
            gather_f64(B + (k - first) * vl, stream, vl, strip, tap_offset + t, count, block, 0, block.vectors, 0)
        k += count


cdef void stage_tiles(real *B, ix b_vector, real *strip, const Correlation *c, ix channel, const fc_block *block, const fc_tile *tile, ix first, ix last) noexcept nogil:
    """Rows [first, last) of the patch matrix of one block through strips, packed as tiles read them."""
    cdef ix k = first, t, count
    cdef const char *plane
    while k < last:
        t = k % c.taps
        count = smaller(c.taps - t, last - k)
        plane = c.source.data + (channel + k // c.taps) * c.source.c
        if real is float:
            stage_f32(strip, &c.source, plane, c.axis, block, c.grid.max_rows, c.grid.max_width)
            pack_tiles_f32(B, b_vector, k - first, strip, c.tap_offset + t, count, block, tile)
        else:
            stage_f64(strip, &c.source, plane, c.axis, block, c.grid.max_rows, c.grid.max_width)
            pack_tiles_f64(B, b_vector, k - first, strip, c.tap_offset + t, count, block, tile)
        k += count


cdef void correlate_task(real *y, Correlation *c, const real *packed, char *memory, ix id, ix first_unit, ix last_unit) noexcept nogil:
    """One block of pixels, for the weight panels [first_unit, last_unit) counted over all groups."""
    cdef ix mr = tile_mr(y), vl = vector_lanes(y)
    cdef fc_block block, later
    cdef fc_panel p
    cdef real *B = <real *> memory
    cdef real *strip = B + c.grid.lanes * c.whole
    cdef real *buffer = strip + c.sizes[2]
    cdef ix g, panel, first, last_panel, k0, row, unit = first_unit
    cdef const real *bias
    cdef const real *A
    cdef const real *source
    cdef fc_tile *tile = <fc_tile *> (buffer + mr * larger(c.grid.lanes, tile_nv(y) * vl))
    cdef ix *lines = <ix *> (tile + c.grid.lanes // vl)
    fc_block_place(&block, &c.grid, <char *> (lines + c.grid.lanes))
    fc_block_place(&later, &c.grid, <char *> (lines + c.grid.lanes) + (fc_block_bytes(&c.grid) + 7) // 8 * 8)
    fc_block_make(&block, &c.grid, id, c.staged, c.sizes[0], c.sizes[1], c.strides[0], c.strides[1], c.strides[2], c.strides[3])
    p.next, p.next_lines, p.ahead = lines, 0, 0
    if c.later and id + c.later < c.grid.blocks:
        fc_block_make(&later, &c.grid, id + c.later, 0, 0, 0, c.strides[0], c.strides[1], c.strides[2], c.strides[3])
        p.next_lines = fc_block_lines(lines, c.grid.lanes, &later, c.strides[3], 64 // <ix> sizeof(real))
        p.ahead = later.in_.at - block.in_.at
    p.kc, p.a_row, p.a_step = c.kc, c.a_row, c.a_step
    p.fetch_step = c.a_step if c.a_step != 1 else mr
    if real is float:
        tiles_of_f32(tile, &block, c.grid.yw)
    else:
        tiles_of_f64(tile, &block, c.grid.yw)
    p.b_vector, p.every = c.whole * vl, c.strides[3]
    p.source_step = c.source.c // <ix> sizeof(real) if c.taps == 1 else 0
    p.y_channel, p.yw, p.stream = c.y_channel, c.grid.yw, c.stream
    p.start, p.plane, p.grid = c.start, c.plane, &c.grid
    while unit < last_unit:
        g = unit // c.panels
        first, last_panel = unit - g * c.panels, c.panels if (g + 1) * c.panels <= last_unit else last_unit - g * c.panels
        source = <const real *> (c.source.data + g * c.channels * c.source.c)
        k0 = 0
        while k0 < c.reduction or k0 == 0:
            p.count = smaller(c.whole, c.reduction - k0)
            p.row = c.row_offset + k0
            p.accumulate = k0 > 0
            p.activation = c.activation if k0 + p.count == c.reduction else 0
            p.among = c.among and k0 + p.count == c.reduction
            p.fresh = not c.staged
            if c.staged:
                stage_tiles(B, p.b_vector, strip, c, g * c.channels, &block, tile, k0, k0 + p.count)
            p.fresh, p.panels = not c.staged, last_panel - first
            for panel in range(first, last_panel):
                row, p.panel = panel * mr, panel - first
                p.rows = smaller(mr, c.rows - row)
                if c.in_place:
                    A = <const real *> (c.weight + g * c.w_group) + row * c.a_row
                    p.fetch = mr * c.a_row
                else:
                    A = packed + (g * c.panels + panel) * mr * c.reduction
                    p.fetch = mr * c.reduction
                A += k0 * c.a_step
                bias = <const real *> c.bias + g * c.rows + row if c.bias != NULL and k0 + p.count == c.reduction else NULL
                if real is float:
                    panel_f32(&p, &block, tile, y + (g * c.rows + row) * c.y_channel, A, B, source, bias, buffer)
                else:
                    panel_f64(&p, &block, tile, y + (g * c.rows + row) * c.y_channel, A, B, source, bias, buffer)
                p.fresh = 0
            k0 += c.whole if c.whole else 1
        unit = (g + 1) * c.panels if (g + 1) * c.panels < last_unit else last_unit
    if c.stream:
        fc_stream_end()


cdef struct CorrelationPlan:
    size_t packed, rows, per_thread
    ix lanes, taps


cdef void place_weights(Correlation *c, ix mr, ix itemsize) noexcept nogil:
    """Decide between packing the weights and reading them where they lie."""
    cdef ix t, step = c.w_channel if c.taps == 1 else c.w_tap[1] - c.w_tap[0] if c.taps > 1 else itemsize
    c.in_place = not c.w_swap and <size_t> c.weight % itemsize == 0 and c.w_row % itemsize == 0 and step % itemsize == 0 and c.w_group % itemsize == 0
    for t in range(c.taps):
        c.in_place = c.in_place and c.w_tap[t] == t * step
    c.in_place = c.in_place and (c.channels == 1 or c.w_channel == c.taps * step)
    # Where the sum does not run along memory, every product reads a line of its own, and narrow panels too little of it.
    c.in_place = c.in_place and (step == itemsize or mr * itemsize >= LEAST_OF_LINE)
    c.a_row = c.w_row // itemsize if c.in_place else 1
    c.a_step = step // itemsize if c.in_place else mr


cdef void plan_correlation(real *tag, Correlation *c, CorrelationPlan *p) noexcept nogil:
    """Block sizes and scratch of a correlation, from the problem of one sample alone. Fills the derived fields of `c`."""
    cdef ix vl = vector_lanes(tag), most
    c.taps = c.axis[0].taps * c.axis[1].taps * c.axis[2].taps
    c.reduction = c.channels * c.taps
    c.panels = ceil_div(c.rows, tile_mr(tag))
    c.kc = c.whole = reduction_block(c.reduction, c.taps)
    place_weights(c, tile_mr(tag), sizeof(real))
    c.grid.vl = vl
    c.every = EVERY if c.taps == 1 else 1
    c.staged = not reads_in_place(c.axis, &c.source, sizeof(real), c.every)
    if c.kc and (not c.staged or c.taps == 1):
        most = larger(1, WHOLE_BYTES // (vl * tile_nv(tag) * c.kc * <ix> sizeof(real)))  # pieces
        c.whole = ceil_div(ceil_div(c.reduction, c.kc), ceil_div(ceil_div(c.reduction, c.kc), most)) * c.kc
    p.lanes = block_lanes(c.whole, vl, tile_nv(tag), sizeof(real))
    if not c.staged:
        p.lanes = smaller(p.lanes, larger(1, LANES_FRESH // (vl * tile_nv(tag))) * vl * tile_nv(tag))
    fc_grid_cut(&c.grid, p.lanes)
    prepare_axes(c.axis, &c.grid, &c.source, sizeof(real), c.every, &c.staged, c.strides, c.tap_offset, c.sizes)
    p.packed = <size_t> padded(0 if c.in_place else c.groups * c.panels * c.reduction * tile_mr(tag) + 1024) * sizeof(real)
    p.rows = <size_t> padded(0 if c.staged else c.reduction) * sizeof(ix)
    p.per_thread = <size_t> padded(c.grid.lanes * c.whole + c.sizes[2] + tile_mr(tag) * larger(c.grid.lanes, tile_nv(tag) * vl)) * sizeof(real)
    p.per_thread = (p.per_thread + c.grid.lanes // vl * sizeof(fc_tile) + c.grid.lanes * sizeof(ix) + 2 * fc_block_bytes(&c.grid) + 135) // 64 * 64


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
    cdef ix mr = tile_mr(y), units, splits, blocks, task, lanes, plane
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
                prepare_axes(c.axis, &c.grid, &c.source, sizeof(real), c.every, &c.staged, c.strides, c.tap_offset, c.sizes)
    blocks = c.grid.blocks
    splits = 1
    if blocks < 8 * threads and threads > 1:
        # Few blocks are seldom equal shares: their rows are dealt too, in pieces that repay packing the same pixels again.
        splits = smaller(ceil_div(8 * threads, blocks), c.groups * c.rows // (SPLIT_STAGED if c.staged and blocks % threads == 0 else SPLIT_ROWS))
        splits = larger(splits, ceil_div(threads if blocks < threads else 1, blocks))
        if c.groups > 1:
            splits = larger(splits, ceil_div(4 * threads, blocks))
        splits = smaller(splits, units)
    if c.among:
        c.stream = streams(c.grid.samples * c.groups * c.rows * c.plane * sizeof(real)) and c.reduction <= c.whole
    else:
        c.stream = streams(pixels * c.groups * c.rows * sizeof(real)) and c.grid.yw == 1
        c.stream = c.stream and c.grid.ow * (c.grid.oh if c.grid.yh == c.grid.ow else 1) >= STREAM_RUN
    c.source.ahead = channels_ahead(&c.source, c.grid.samples, c.groups * c.channels)
    if c.staged and c.taps == 1:  # what a block stages is read once, in short pieces that nothing else would fetch early
        lanes = threads * c.grid.lanes
        plane = c.grid.oh * c.grid.ow
        c.source.ahead = lanes // c.grid.ow * c.axis[1].step * c.source.h if lanes < plane else ceil_div(lanes, plane) * c.source.n
    memory = <char *> take_scratch(p.packed + p.rows + threads * p.per_thread + 64)
    packed = <real *> memory
    c.row_offset = NULL
    c.later = 0
    if not c.staged:
        c.row_offset = <ix *> (memory + p.packed)
        tabulate_rows(c.row_offset, c.channels, c.taps, c.source.c // <ix> sizeof(real), c.tap_offset)
        # Fetching early pays where every element is read once; neighbouring taps would ask for the same lines again.
        c.later = ceil_div(threads, splits) if c.taps == 1 else 0
    if threads == 1:
        for task in range(0 if c.in_place else units):
            pack_panel(packed, c, task)
        for task in range(blocks):
            correlate_task(y, c, packed, memory + p.packed + p.rows, task, 0, units)
    else:
        for task in prange(0 if c.in_place else units, num_threads=threads, schedule="static"):
            pack_panel(packed, c, task)
        for task in prange(blocks * splits, num_threads=threads, schedule="dynamic"):
            correlate_task(y, c, packed, memory + p.packed + p.rows + threadid() * p.per_thread, task // splits,
                           task % splits * units // splits, (task % splits + 1) * units // splits)
    fc_scratch_give(memory)
    return 0
