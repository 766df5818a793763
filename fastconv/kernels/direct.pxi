# Direct sums for few channels (native/direct.h): depthwise and other small groups, first and last layers. The two sums of correlate.pxi and outer.pxi, described by the same
# structures; what differs is that tiles read staged strips as they lie, so that nothing is packed but the weights.
#
# A task is a band: some rows of one sample's outputs, for one group. Strips of all channels of the group are staged, then every filter passes over them.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_lines:
        ix at, taps, first
    ctypedef struct fc_ahead:
        const char **place
        ix places, rows, row, span, calls, call
    ix lines_vectors_f32()
    ix lines_vectors_f64()
    void lines_f32(ix nv, const float *strip, const ix *start, ix pitch, const fc_lines *lines, ix count, const ix *weights, const ix *across, ix taps,
                   const float *A, ix a_step, float bias, float *C, ix ldc, const ix *to)
    void lines_f64(ix nv, const double *strip, const ix *start, ix pitch, const fc_lines *lines, ix count, const ix *weights, const ix *across, ix taps,
                   const double *A, ix a_step, double bias, double *C, ix ldc, const ix *to)
    void spread_f32(ix rows, ix nv, ix kc, const float *A, ix a_step, const float *strip, const ix *start, const ix *reach, const float *bias, float *C, ix ldc,
                    const ix *to)
    void spread_f64(ix rows, ix nv, ix kc, const double *A, ix a_step, const double *strip, const ix *start, const ix *reach, const double *bias, double *C, ix ldc,
                    const ix *to)
    void brush_f32(ix width, ix nv, ix kc, const float *A, const float *strip, const ix *reach, const float *bias, float *out, ix out_vector)
    void brush_f64(ix width, ix nv, ix kc, const double *A, const double *strip, const ix *reach, const double *bias, double *out, ix out_vector)
    void pack_brush_f32(float *A, const float *panels, ix panel, ix rows, ix kc)
    void pack_brush_f64(double *A, const double *panels, ix panel, ix rows, ix kc)
    void sheaf_out_f32(float *y, ix size, ix lanes, const float *pixel, ix pixels)
    void sheaf_out_f64(double *y, ix size, ix lanes, const double *pixel, ix pixels)
    void put_tile_f32(float *y, ix ldy, ix yw, const float *tile, ix ld, ix rows, ix count)
    void put_tile_f64(double *y, ix ldy, ix yw, const double *tile, ix ld, ix rows, ix count)
    ix inner_calls_f32(ix rows, ix columns)
    void inner_f32(ix rows, ix columns, ix n, const float *dy, ix dy_row, const float *strip, const ix *start, const ix *reach, float *sums, ix ld, fc_ahead *ahead)
    ix inner_calls_f64(ix rows, ix columns)
    void inner_f64(ix rows, ix columns, ix n, const double *dy, ix dy_row, const double *strip, const ix *start, const ix *reach, double *sums, ix ld, fc_ahead *ahead)
    void stroke_f32(ix groups, ix columns, ix lines, ix width, const float *dy, ix group, const float *strip, ix pitch, const ix *reach, float *sums)
    void stroke_f64(ix groups, ix columns, ix lines, ix width, const double *dy, ix group, const double *strip, ix pitch, const ix *reach, double *sums)
    void part_filters_f32(float *dst, const float *sums, ix rows, ix columns)
    void part_filters_f64(double *dst, const double *sums, ix rows, ix columns)

cdef enum:
    LINES = 4                  # rows of outputs in a tile of one filter
    DIRECT_BYTES = 32 * 1024   # strips of a band: a first-level cache
    DIRECT_WIDTH = 1024        # longest piece of a row
    DIRECT_ROWS = 8            # a band has at least so many rows: each band stages the taps' overhang again
    INNER_ROWS = 32            # rows of dy staged at once: one or more whole vectors
    PART_WORK = 50000          # multiplications of vectors, at least, for every partial sum of the gradient of the weights beside the first
    TURN_DY = 30               # multiplications of vectors that a vector of dy costs which is turned round, with the wait for it
    BRUSH_PIXELS = 128         # outputs of VL filters held at once, or a row
    BRUSH_TURN = 12            # multiplications of vectors that turning an output of VL filters round costs
    FLAT_PIXELS = 512          # outputs of a panel held at once, with what lies between rows


cdef struct Direct:
    Bands bands
    int by_lines
    int by_filters     # filters as lanes, else pixels
    int flat           # vectors of pixels run over the ends of rows
    ix flat_rows, flat_pitch   # of outputs held at once; from filter to filter
    ix brushes         # vectors of filters in a group
    ix brush_rows      # of outputs held at once
    ix brush           # where the weights of filters as lanes lie, behind the panels
    ix line_count, a_line
    fc_lines *lines
    ix *weights                # position of each line's taps among (channel, tap)
    ix *across                 # strip offset of each tap along the width


cdef void plan_bands(Bands *b, fc_axis *axis, fc_grid *grid, ix channels, ix round_rows, ix vl, ix itemsize, ix *tap_offset, ix *sizes) noexcept nogil:
    """Cut the outputs of a sample into bands and tabulate where taps lie in the strips of one."""
    cdef ix row, rows
    b.pieces = ceil_div(grid.ow, DIRECT_WIDTH)
    b.width = grid.ow if b.pieces == 1 else ceil_div(ceil_div(grid.ow, b.pieces), vl) * vl
    b.pieces = ceil_div(grid.ow, b.width)
    fc_axis_stage(&axis[0], 1)
    fc_axis_stage(&axis[1], grid.oh)
    fc_axis_stage(&axis[2], b.width)
    row = channels * axis[0].pieces * (1 + axis[0].extra) * axis[1].pieces * axis[2].pieces * (b.width + axis[2].extra) * itemsize
    rows = DIRECT_BYTES // (row if row else 1) - axis[1].extra
    rows = DIRECT_ROWS if rows < DIRECT_ROWS else rows
    b.bands = ceil_div(grid.oh, rows)
    b.rows = ceil_div(ceil_div(grid.oh, b.bands), round_rows) * round_rows
    b.bands = ceil_div(grid.oh, b.rows)
    grid.max_runs, grid.max_rows, grid.max_width = 1, b.rows, b.width
    tabulate_strip(axis, grid, tap_offset, sizes)
    b.strip = sizes[2]
    b.reach_size = channels * axis[0].taps * axis[1].taps * axis[2].taps


cdef void stage_band(real *strips, const fc_source *source, ix channel, ix channels, const fc_axis *axis, const fc_grid *grid, Bands *b, fc_run *run) noexcept nogil:
    cdef fc_block block
    cdef ix c
    block.runs, block.run = 1, run
    for c in range(channels):
        if real is float:
            stage_f32(strips + c * b.strip, source, source.data + (channel + c) * source.c, axis, &block, grid.max_rows, grid.max_width)
        else:
            stage_f64(strips + c * b.strip, source, source.data + (channel + c) * source.c, axis, &block, grid.max_rows, grid.max_width)


cdef void make_lines(Direct *d, Correlation *c) noexcept nogil:
    """Sort the taps along the height into runs that lie on strip rows behind one another."""
    cdef fc_axis *ad = &c.axis[0]
    cdef fc_axis *ah = &c.axis[1]
    cdef fc_axis *aw = &c.axis[2]
    cdef ix channel, i, t, s, piece, delta, found, n = 0, used = 0, width = c.grid.max_width + aw.extra, row = c.sizes[1]
    cdef ix plane = (c.grid.max_rows + ah.extra) * row
    cdef int joins
    d.line_count = 0
    if c.taps == 0:  # a phase without taps: every output is its bias
        return
    for s in range(aw.taps):
        d.across[s] = aw.tap_piece[s] * width + aw.tap_delta[s]
    for channel in range(c.channels):
        for i in range(ad.taps):
            for piece in range(ah.pieces):
                joins = 0
                for delta in range(ah.extra + 1):
                    found = -1
                    for t in range(ah.taps):
                        if ah.tap_piece[t] == piece and ah.tap_delta[t] == delta:
                            found = t
                    if found >= 0:
                        if not joins:
                            d.lines[n].at = channel * d.bands.strip + delta * row + plane * (
                                (ad.tap_piece[i] * (1 + ad.extra) + ad.tap_delta[i]) * ah.pieces + piece)
                            d.lines[n].taps, d.lines[n].first = 0, used
                            n += 1
                        d.lines[n - 1].taps += 1
                        d.weights[used] = ((channel * ad.taps + i) * ah.taps + found) * aw.taps
                        used += 1
                    joins = found >= 0
    d.line_count = n


cdef void brush_task(real *out, Correlation *c, Direct *d, const real *packed, const real *strips, real *held, ix g, fc_run *run) noexcept nogil:
    """A staged band with filters as lanes. out: its first output of the group's first filter."""
    cdef ix vl = vector_lanes(out), row, r, rows, k = 0, nv, v, lanes, size = (d.brush_rows * run.width + vl) * vl
    cdef real constant[32]
    cdef const real *A
    while k < d.brushes:
        nv = smaller(2, d.brushes - k)
        A = packed + d.brush + (g * d.brushes + k) * c.reduction * vl
        for r in range(nv * vl):
            constant[r] = (<const real *> c.bias)[g * c.rows + k * vl + r] if c.bias != NULL and k * vl + r < c.rows else 0
        row = 0
        while row < run.rows:
            rows = smaller(d.brush_rows, run.rows - row)
            for r in range(rows):
                if real is float:
                    brush_f32(run.width, nv, c.reduction, A, strips + (row + r) * c.sizes[1], d.bands.reach, constant, held + r * run.width * vl, size)
                else:
                    brush_f64(run.width, nv, c.reduction, A, strips + (row + r) * c.sizes[1], d.bands.reach, constant, held + r * run.width * vl, size)
            for v in range(nv):
                lanes = smaller(vl, c.rows - (k + v) * vl)
                if real is float:
                    sheaf_out_f32(out + (k + v) * vl * c.y_channel + row * c.grid.yh, c.y_channel, lanes, held + v * size, rows * run.width)
                else:
                    sheaf_out_f64(out + (k + v) * vl * c.y_channel + row * c.grid.yh, c.y_channel, lanes, held + v * size, rows * run.width)
            row += rows
        k += nv


cdef void flat_task(real *out, Correlation *c, Direct *d, const real *packed, const real *strips, real *held, ix g, fc_run *run) noexcept nogil:
    """A staged band whose vectors run over the ends of rows, so that few lanes are lost to short rows. out: its first output of the group's first filter."""
    cdef ix vl = vector_lanes(out), mr = tile_mr(out), pitch = c.sizes[1], panel, rows, r, left, v, vectors, nv, j
    cdef ix start[8]
    cdef ix to[8]
    cdef const real *A
    cdef const real *bias
    cdef real *first
    for j in range(8):
        to[j] = j * vl
    for panel in range(c.panels):
        rows = smaller(mr, c.rows - panel * mr)
        A = packed + (g * c.panels + panel) * c.reduction * mr
        bias = <const real *> c.bias + g * c.rows + panel * mr if c.bias != NULL else NULL
        r = 0
        while r < run.rows:
            left = smaller(d.flat_rows, run.rows - r)
            vectors = ceil_div((left - 1) * pitch + run.width, vl)
            v = 0
            while v < vectors:
                nv = tile_width_f32(vectors - v) if real is float else tile_width_f64(vectors - v)
                for j in range(nv):
                    start[j] = r * pitch + (v + j) * vl
                if real is float:
                    spread_f32(rows, nv, c.reduction, A, mr, strips, start, d.bands.reach, bias, held + v * vl, d.flat_pitch, to)
                else:
                    spread_f64(rows, nv, c.reduction, A, mr, strips, start, d.bands.reach, bias, held + v * vl, d.flat_pitch, to)
                v += nv
            for j in range(left):
                for v in range(ceil_div(run.width, vl)):
                    first = out + panel * mr * c.y_channel + (r + j) * c.grid.yh + v * vl * c.grid.yw
                    if real is float:
                        put_tile_f32(first, c.y_channel, c.grid.yw, held + j * pitch + v * vl, d.flat_pitch, rows, smaller(vl, run.width - v * vl))
                    else:
                        put_tile_f64(first, c.y_channel, c.grid.yw, held + j * pitch + v * vl, d.flat_pitch, rows, smaller(vl, run.width - v * vl))
            r += left


cdef void direct_task(real *y, Correlation *c, Direct *d, const real *packed, char *memory, ix id) noexcept nogil:
    """One band, for one group."""
    cdef ix vl = vector_lanes(y), mr = tile_mr(y), nr = tile_nv(y), ld = 8 * vl
    cdef real *strips = <real *> memory
    cdef real *tile = strips + padded(c.channels * d.bands.strip)
    cdef fc_run run
    cdef ix start[8]
    cdef ix to[8]
    cdef ix in_tile[8]
    cdef ix g = id % c.groups, row, vectors, count, panel, rows, v, nv, j, r, left, k
    cdef real *base
    cdef real *out
    cdef real *target
    cdef ix *where
    cdef ix step
    cdef const real *A
    cdef const real *bias
    cdef int whole
    band_at(&d.bands, &c.grid, id // c.groups, &run)
    stage_band(strips, &c.source, g * c.channels, c.channels, c.axis, &c.grid, &d.bands, &run)
    base = y + run.n * c.grid.yn + g * c.rows * c.y_channel + run.od * c.grid.yd + run.oh * c.grid.yh + run.q * c.grid.yw
    vectors, count = ceil_div(run.width, vl), run.width if run.width < vl else vl
    whole = c.grid.yw == 1 and run.width >= vl
    for j in range(8):
        in_tile[j] = j * vl
    if d.by_filters:
        brush_task(base, c, d, packed, strips, tile, g, &run)
    elif d.flat:
        flat_task(base, c, d, packed, strips, tile, g, &run)
    elif d.by_lines:
        nr = lines_vectors_f32() if real is float else lines_vectors_f64()
        for row in range(c.rows):
            A = packed + (g * c.panels + row // mr) * c.reduction * mr + row % mr
            r = 0
            while r < run.rows:
                left = run.rows - r if run.rows - r < LINES else LINES
                out = base + row * c.y_channel + r * c.grid.yh
                v = 0
                while v < vectors:
                    nv = ceil_div(vectors - v, ceil_div(vectors - v, nr))
                    for j in range(nv):
                        k = (v + j) * vl if (v + j + 1) * vl <= run.width or run.width < vl else run.width - vl
                        start[j], to[j] = r * c.sizes[1] + k, k * c.grid.yw
                    if whole and left == LINES:
                        if real is float:
                            lines_f32(nv, strips, start, c.sizes[1], d.lines, d.line_count, d.weights, d.across, c.axis[2].taps, A, mr,
                                      (<const real *> c.bias)[g * c.rows + row] if c.bias != NULL else 0, out, c.grid.yh, to)
                        else:
                            lines_f64(nv, strips, start, c.sizes[1], d.lines, d.line_count, d.weights, d.across, c.axis[2].taps, A, mr,
                                      (<const real *> c.bias)[g * c.rows + row] if c.bias != NULL else 0, out, c.grid.yh, to)
                    else:
                        if real is float:
                            lines_f32(nv, strips, start, c.sizes[1], d.lines, d.line_count, d.weights, d.across, c.axis[2].taps, A, mr,
                                      (<const real *> c.bias)[g * c.rows + row] if c.bias != NULL else 0, tile, ld, in_tile)
                            for j in range(nv):
                                put_tile_f32(out + to[j], c.grid.yh, c.grid.yw, tile + j * vl, ld, left, count)
                        else:
                            lines_f64(nv, strips, start, c.sizes[1], d.lines, d.line_count, d.weights, d.across, c.axis[2].taps, A, mr,
                                      (<const real *> c.bias)[g * c.rows + row] if c.bias != NULL else 0, tile, ld, in_tile)
                            for j in range(nv):
                                put_tile_f64(out + to[j], c.grid.yh, c.grid.yw, tile + j * vl, ld, left, count)
                    v += nv
                r += LINES
    else:
        for panel in range(c.panels):
            rows = c.rows - panel * mr if c.rows - panel * mr < mr else mr
            A = packed + (g * c.panels + panel) * c.reduction * mr
            bias = <const real *> c.bias + g * c.rows + panel * mr if c.bias != NULL else NULL
            out = base + panel * mr * c.y_channel
            if whole:
                target, step, where = out, c.y_channel, &to[0]
            else:
                target, step, where = tile, ld, &in_tile[0]
            v = 0
            while v < vectors * run.rows:
                nv = tile_width_f32(vectors * run.rows - v) if real is float else tile_width_f64(vectors * run.rows - v)
                for j in range(nv):
                    r, k = (v + j) // vectors, (v + j) % vectors
                    k = k * vl if (k + 1) * vl <= run.width or run.width < vl else run.width - vl
                    start[j], to[j] = r * c.sizes[1] + k, r * c.grid.yh + k * c.grid.yw
                if real is float:
                    spread_f32(rows, nv, c.reduction, A, mr, strips, start, d.bands.reach, bias, target, step,
                               where)
                    if not whole:
                        for j in range(nv):
                            put_tile_f32(out + to[j], c.y_channel, c.grid.yw, tile + j * vl, ld, rows, count)
                else:
                    spread_f64(rows, nv, c.reduction, A, mr, strips, start, d.bands.reach, bias, target, step,
                               where)
                    if not whole:
                        for j in range(nv):
                            put_tile_f64(out + to[j], c.y_channel, c.grid.yw, tile + j * vl, ld, rows, count)
                v += nv
    if c.activation:
        for row in range(c.rows):
            for r in range(run.rows):
                if real is float:
                    activate_f32(base + row * c.y_channel + r * c.grid.yh, run.width, c.activation)
                else:
                    activate_f64(base + row * c.y_channel + r * c.grid.yh, run.width, c.activation)


cdef size_t plan_direct(real *tag, Correlation *c, Direct *d, size_t *packed, size_t *tables) noexcept nogil:
    """Fills the derived fields of `c` and `d` but the tables; returns the scratch of a thread."""
    cdef ix vl = vector_lanes(tag), held, aligned, flat
    c.taps = c.axis[0].taps * c.axis[1].taps * c.axis[2].taps
    c.reduction = c.channels * c.taps
    c.panels = ceil_div(c.rows, tile_mr(tag))
    # Two filters and more share a vector loaded; one alone shares it between rows of outputs.
    d.by_lines = c.rows <= 2 and c.grid.oh > LINES // 2
    plan_bands(&d.bands, c.axis, &c.grid, c.channels, LINES if d.by_lines else 1, vl, sizeof(real), c.tap_offset, c.sizes)
    packed[0] = <size_t> padded(c.groups * c.panels * c.reduction * tile_mr(tag)) * sizeof(real)
    d.brush, d.brushes = packed[0] // sizeof(real), ceil_div(c.rows, vl)
    # Vectors of a band, of which flat ones are held and copied. Filters as lanes lose none at the ends of rows, but outputs lie the wrong way round.
    aligned, flat = d.bands.rows * ceil_div(d.bands.width, vl), ceil_div((d.bands.rows - 1) * c.sizes[1] + d.bands.width, vl)
    d.flat = not d.by_lines and d.bands.pieces == 1 and c.reduction > 0 and 1.15 * flat < aligned
    d.by_filters = (not d.by_lines and c.grid.yw == 1 and c.grid.yh == c.grid.ow and d.bands.pieces == 1 and c.reduction > 0
                    and d.brushes * d.bands.rows * d.bands.width * (1 + <double> BRUSH_TURN / c.reduction) < c.rows * (1.15 * flat if d.flat else aligned))
    if d.by_filters:
        packed[0] += <size_t> padded(c.groups * d.brushes * c.reduction * vl) * sizeof(real)
        d.brush_rows = BRUSH_PIXELS // d.bands.width if d.bands.width < BRUSH_PIXELS else 1
    tables[0] = <size_t> padded(5 * d.bands.reach_size + c.axis[2].taps + 16) * sizeof(ix)
    held = (LINES if d.by_lines else tile_mr(tag)) * 8 * vl
    if d.by_filters:
        held = 2 * (d.brush_rows * d.bands.width + vl) * vl
    elif d.flat:
        d.flat_rows = smaller(d.bands.rows, FLAT_PIXELS // c.sizes[1] if c.sizes[1] < FLAT_PIXELS else 1)
        d.flat_pitch = (ceil_div((d.flat_rows - 1) * c.sizes[1] + d.bands.width, vl) + 1) * vl
        held = tile_mr(tag) * d.flat_pitch
    return (<size_t> (padded(c.channels * d.bands.strip) + held) * sizeof(real) + 127) // 64 * 64


cdef int direct_correlate(real *y, Correlation *c, int threads) except -1 nogil:
    """The sum that `correlate` computes."""
    cdef Direct d
    cdef size_t packed, tables, per_thread
    cdef ix pixels = c.grid.samples * c.grid.od * c.grid.oh * c.grid.ow, task, tasks, task_rows
    cdef char *memory
    cdef const real *panels
    if pixels == 0 or c.groups * c.rows == 0:
        return 0
    per_thread = plan_direct(y, c, &d, &packed, &tables)
    c.source.ahead = channels_ahead(&c.source, c.grid.samples, c.groups * c.channels)
    if 2.0 * pixels * c.groups * c.rows * c.reduction < SERIAL_FLOPS:
        threads = 1
    memory = <char *> take_scratch(packed + tables + threads * per_thread + 64)
    d.bands.reach = <ix *> (memory + packed)
    d.weights = d.bands.reach + d.bands.reach_size
    d.across = d.weights + d.bands.reach_size
    d.lines = <fc_lines *> (d.across + c.axis[2].taps)
    tabulate_rows(d.bands.reach, c.channels, c.taps, d.bands.strip, c.tap_offset)
    make_lines(&d, c)
    for task in range(c.groups * c.panels):
        pack_panel(<real *> memory, c, task)
    if d.by_filters:
        for task in range(c.groups * d.brushes):
            panels = <real *> memory + (task // d.brushes * c.panels + task % d.brushes * (vector_lanes(y) // tile_mr(y))) * c.reduction * tile_mr(y)
            task_rows = c.rows - task % d.brushes * vector_lanes(y)
            if real is float:
                pack_brush_f32(<real *> memory + d.brush + task * c.reduction * vector_lanes(y), panels, c.reduction * tile_mr(y), task_rows, c.reduction)
            else:
                pack_brush_f64(<real *> memory + d.brush + task * c.reduction * vector_lanes(y), panels, c.reduction * tile_mr(y), task_rows, c.reduction)
    tasks = c.grid.samples * c.grid.od * d.bands.bands * d.bands.pieces * c.groups
    if threads == 1:
        for task in range(tasks):
            direct_task(y, c, &d, <real *> memory, memory + packed + tables, task)
    else:
        for task in prange(tasks, num_threads=threads, schedule="dynamic", chunksize=1 + tasks // (16 * threads)):
            direct_task(y, c, &d, <real *> memory, memory + packed + tables + threadid() * per_thread, task)
    fc_scratch_give(memory)
    return 0


# ---- gradient of the weights

cdef struct Inner:
    Bands bands
    int by_filters      # filters as lanes, else pixels
    int flat            # vectors of pixels run over the ends of rows: dy is staged with the pitch of the strip
    ix vectors          # in a full band
    ix columns, chunk, parts
    size_t sums
    double *bias        # the sums of dy, [part][filter of all groups], or NULL


cdef size_t plan_inner(real *tag, Outer *o, Inner *p, size_t *tables) noexcept nogil:
    """Fills the derived fields but the tables; returns the scratch of a thread."""
    cdef ix vl = vector_lanes(tag), aligned, flat
    o.taps = o.axis[0].taps * o.axis[1].taps * o.axis[2].taps
    plan_bands(&p.bands, o.axis, &o.grid, o.channels, 1, vl, sizeof(real), o.tap_offset, o.sizes)
    p.columns = o.channels * o.taps
    aligned, flat = p.bands.rows * ceil_div(p.bands.width, vl), ceil_div(p.bands.rows * o.sizes[1], vl)
    p.flat = flat < aligned and p.bands.pieces == 1
    p.vectors = flat if p.flat else aligned
    # Filters as lanes, in whole vectors, or pixels of a band, whose vectors are loaded across lines. The filters' way dy is turned round and comes late from memory.
    p.by_filters = (4 * ceil_div(o.rows, vl) * vl * p.bands.rows * p.bands.width * (p.columns + TURN_DY)
                    < 5 * o.rows * p.vectors * vl * p.columns)
    if p.by_filters:
        p.vectors = ceil_div(p.bands.rows * p.bands.width, vl)
    p.chunk = o.rows if o.rows < INNER_ROWS else INNER_ROWS
    # The bands are dealt to a fixed number of partial sums, so that few groups keep several threads busy.
    p.parts = 1
    while p.parts < 8 and p.parts * o.groups < 16:
        p.parts *= 2
    p.sums = <size_t> padded(o.groups * o.rows * p.columns) * sizeof(real)
    tables[0] = <size_t> padded(p.columns) * sizeof(ix)
    return (<size_t> padded(o.channels * p.bands.strip + (2 * ceil_div(p.chunk, vl) * vl * p.vectors) * vl
                                 + (ceil_div(o.rows, vl) * vl * p.columns if p.by_filters else 0)) * sizeof(real)
            + p.vectors * sizeof(ix) + 127) // 64 * 64


cdef ix fewer_parts(ix parts, ix pieces, double work) noexcept nogil:
    """How many partial sums of at most `parts` a call keeps, for so many pieces of work: adding them up must not cost more than their use by several threads
    brings. `work`: multiplications of vectors. Threads do not count: they change no bit."""
    while parts > 1 and (parts > larger(pieces, 2) or parts * <double> PART_WORK > work):
        parts //= 2
    return parts


cdef inline const char *dy_rows(Outer *o, const fc_run *run, ix channel) noexcept nogil:
    """Where the rows of dy that belong to a band begin."""
    return o.dy.data + run.n * o.dy.n + channel * o.dy.c + run.od * o.dy.d + run.oh * o.dy.h + run.q * o.dy.w


cdef void look_ahead(fc_ahead *ahead, const char **place, Outer *o, const fc_run *run, ix runs, ix channel, ix rows) noexcept nogil:
    """Have `rows` channels of dy fetched for `runs` bands of equal size."""
    cdef ix i
    ahead.place, ahead.places, ahead.rows, ahead.row = place, runs, rows, o.dy.c
    ahead.span = (run.rows - 1) * o.dy.h + run.width * o.dy.w
    if ahead.span < 0 or ahead.span > 4 * run.rows * run.width * o.dy.w:  # rows do not lie behind one another
        ahead.places = 0
    elif run.rows == o.grid.oh and 0 < o.dy.c <= 2 * ahead.span:  # all rows of a plane, and the next channel's follow
        ahead.span += (rows - 1) * o.dy.c
        ahead.rows = 1
    for i in range(runs):
        place[i] = dy_rows(o, &run[i], channel)


cdef ix last_delta(const fc_axis *axis, ix piece) noexcept nogil:
    """The farthest that a tap reaches into a piece."""
    cdef ix t, last = 0
    for t in range(axis.taps):
        if axis.tap_piece[t] == piece:
            last = larger(last, axis.tap_delta[t])
    return last


cdef void clear_leftovers(real *strips, Outer *o, ix strip, const fc_run *run) noexcept nogil:
    """Zeros for the rows and columns of a staged band that no output reads, since fewer taps fall into some phases of a stride than into others: vectors hang over
    into them, with zeros of dy, and x may hold NaN there."""
    cdef fc_axis *ah = &o.axis[1]
    cdef fc_axis *aw = &o.axis[2]
    cdef ix width = o.grid.max_width + aw.extra, row = o.sizes[1], plane = (o.grid.max_rows + ah.extra) * row
    cdef ix planes = o.axis[0].pieces * (1 + o.axis[0].extra) * ah.pieces, c, i, j, piece, last
    cdef real *rows
    for c in range(o.channels):
        for i in range(planes):
            rows = strips + c * strip + i * plane
            last = last_delta(ah, i % ah.pieces)
            if last < ah.extra:
                memset(rows + (run.rows + last) * row, 0, (ah.extra - last) * row * sizeof(real))
            for piece in range(aw.pieces):
                last = last_delta(aw, piece)
                if last < aw.extra:
                    for j in range(run.rows + ah.extra):
                        memset(rows + j * row + piece * width + run.width + last, 0, (aw.extra - last) * sizeof(real))


cdef void inner_task(real *sums, Outer *o, Inner *p, char *memory, ix part, ix g) noexcept nogil:
    """One part of the bands, for one group."""
    cdef ix vl = vector_lanes(sums), strip_size = padded(o.channels * p.bands.strip), dy_row = p.vectors * vl
    cdef ix lanes_size = ceil_div(o.rows, vl) * vl * p.columns if p.by_filters else 0
    cdef real *lanes = <real *> memory
    cdef real *dy = lanes + lanes_size
    cdef real *turned = dy + p.chunk * dy_row
    cdef real *strips = turned + ceil_div(p.chunk, vl) * vl * dy_row
    cdef ix *start = <ix *> (strips + strip_size)
    cdef ix bands = o.grid.samples * o.grid.od * p.bands.bands * p.bands.pieces, last = (part + 1) * bands // p.parts, id, k, first, m, n, v, across, pitch
    cdef const char *row
    cdef const char *place
    cdef const real *staged
    cdef double *bias = NULL
    cdef fc_run run, next_run
    cdef fc_ahead ahead
    if p.bias != NULL:
        bias = p.bias + (part * o.groups + g) * o.rows
    sums += g * o.rows * p.columns
    memset(sums, 0, o.rows * p.columns * sizeof(real))
    memset(lanes, 0, lanes_size * sizeof(real))
    memset(strips, 0, strip_size * sizeof(real))  # what vectors hang over into is multiplied by zeros: no NaN may lie there
    for id in range(part * bands // p.parts, last):
        band_at(&p.bands, &o.grid, id, &run)
        stage_band(strips, &o.source, g * o.channels, o.channels, o.axis, &o.grid, &p.bands, &run)
        across = ceil_div(run.width, vl)
        if p.by_filters:
            pitch = run.width
        else:
            pitch = o.sizes[1] if p.flat else across * vl
        n = ceil_div((run.rows - 1) * pitch + run.width, vl)
        if not p.by_filters:
            clear_leftovers(strips, o, p.bands.strip, &run)
            for v in range(n):
                start[v] = v * vl if p.flat else v // across * o.sizes[1] + v % across * vl
        first = 0
        while first < o.rows:
            m = smaller(o.rows - first, p.chunk)
            for k in range(m):
                row = dy_rows(o, &run, g * o.rows + first + k)
                if real is float:
                    stage_dy_f32(dy + k * dy_row, row, run.rows, o.dy.h, run.width, o.dy.w, o.dy.swap, pitch, n * vl)
                else:
                    stage_dy_f64(dy + k * dy_row, row, run.rows, o.dy.h, run.width, o.dy.w, o.dy.swap, pitch, n * vl)
                if bias != NULL:  # what is staged between rows is zeros
                    staged = dy + k * dy_row
                    add_rows(bias + first + k, &staged, 1, n * vl)
            if p.by_filters:
                if real is float:
                    turn_f32(turned, dy, dy_row, m, n)
                    stroke_f32(ceil_div(m, vl), p.columns, run.rows, run.width, turned, n * vl * vl, strips, o.sizes[1], p.bands.reach, lanes + first * p.columns)
                else:
                    turn_f64(turned, dy, dy_row, m, n)
                    stroke_f64(ceil_div(m, vl), p.columns, run.rows, run.width, turned, n * vl * vl, strips, o.sizes[1], p.bands.reach, lanes + first * p.columns)
                first += m
                continue
            if first + m < o.rows:
                look_ahead(&ahead, &place, o, &run, 1, g * o.rows + first + m, smaller(o.rows - first - m, p.chunk))
            elif id + 1 < last:
                band_at(&p.bands, &o.grid, id + 1, &next_run)
                look_ahead(&ahead, &place, o, &next_run, 1, g * o.rows, smaller(o.rows, p.chunk))
            else:
                ahead.places = 0
            ahead.call = 0
            if real is float:
                ahead.calls = inner_calls_f32(m, p.columns)
                inner_f32(m, p.columns, n, dy, dy_row, strips, start, p.bands.reach, sums + first * p.columns, p.columns, &ahead)
            else:
                ahead.calls = inner_calls_f64(m, p.columns)
                inner_f64(m, p.columns, n, dy, dy_row, strips, start, p.bands.reach, sums + first * p.columns, p.columns, &ahead)
            first += m
    if p.by_filters:
        if real is float:
            part_filters_f32(sums, lanes, o.rows, p.columns)
        else:
            part_filters_f64(sums, lanes, o.rows, p.columns)


cdef int direct_outer(real *dweight, real *dbias, Outer *o, int threads) except -1 nogil:
    """The sum that `outer` computes, and that of dy."""
    cdef Inner p
    cdef size_t tables, per_thread = plan_inner(dweight, o, &p, &tables)
    cdef ix pixels = o.grid.samples * o.grid.od * o.grid.oh * o.grid.ow, task, i, size = p.sums // sizeof(real)
    cdef char *memory
    cdef const real *sums
    o.source.ahead = channels_ahead(&o.source, o.grid.samples, o.groups * o.channels)
    if 2.0 * pixels * o.groups * o.rows * p.columns < SERIAL_FLOPS:
        threads = 1
    p.parts = fewer_parts(p.parts, o.grid.samples * o.grid.od * p.bands.bands * p.bands.pieces,
                          <double> pixels * o.groups * o.rows * p.columns / vector_lanes(dweight))
    tables += bias_bytes(p.parts, o.groups * o.rows)
    memory = <char *> take_scratch(p.sums * p.parts + tables + threads * per_thread + 64)
    sums = <const real *> memory
    p.bias = begin_bias(dbias, memory + p.sums * p.parts, p.parts, o.groups * o.rows)
    p.bands.reach = <ix *> (memory + p.sums * p.parts + bias_bytes(p.parts, o.groups * o.rows))
    tabulate_rows(p.bands.reach, o.channels, o.taps, p.bands.strip, o.tap_offset)
    if threads == 1:
        for task in range(p.parts * o.groups):
            inner_task(<real *> memory + task // o.groups * size, o, &p, memory + p.sums * p.parts + tables, task // o.groups, task % o.groups)
    else:
        for task in prange(p.parts * o.groups, num_threads=threads, schedule="dynamic"):
            inner_task(<real *> memory + task // o.groups * size, o, &p, memory + p.sums * p.parts + tables + threadid() * per_thread,
                       task // o.groups, task % o.groups)
    for task in range(o.groups * o.rows * p.columns):
        dweight[task] = sums[task]
        for i in range(1, p.parts):
            dweight[task] += sums[i * size + task]
    join_bias(dbias, p.bias, p.parts, o.groups * o.rows)
    fc_scratch_give(memory)
    return 0


cdef size_t direct_bytes(real *tag, str direction, Shape p, int threads) except? 0:
    """Scratch of the direct algorithm; the same for every N."""
    cdef Tables t = Tables(p)
    cdef fc_source source
    cdef Weights w
    cdef Correlation c
    cdef Direct d
    cdef Outer o
    cdef Inner inner
    cdef ix one[4 * 3]
    cdef size_t packed, tables, per_thread
    memset(&source, 0, sizeof(source))
    memset(&w, 0, sizeof(w))
    if direction == "backward_weight":
        describe_outer(&o, t, p, &source, &source, one)
        per_thread = plan_inner(tag, &o, &inner, &tables)
        return inner.sums * inner.parts + bias_bytes(inner.parts, o.groups * o.rows) + tables + threads * per_thread
    describe_forward(&c, t, p, &source, &w, NULL)
    if direction == "backward_input":
        largest_phase(&c, p)
        if p.stride[0] * p.stride[1] * p.stride[2] == 1:  # one phase, whose rows lie behind one another
            c.grid.yh = c.grid.ow
    per_thread = plan_direct(tag, &c, &d, &packed, &tables)
    packed += tables + threads * per_thread
    if direction == "backward_input":
        packed += padded_bytes(p, sizeof(real))
    return packed


def direct_scratch(str direction, int itemsize, Shape shape, int threads):
    """Bytes of scratch of "forward", "backward_input" or "backward_weight" by direct sums."""
    if itemsize == 4:
        return direct_bytes(<float *> NULL, direction, shape, threads)
    return direct_bytes(<double *> NULL, direction, shape, threads)
