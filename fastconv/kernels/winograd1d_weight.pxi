# The gradient of the weights by Winograd's algorithm along one axis, around native/winograd1d_weight.h: for few channels, which would not fill the lanes that a
# transform along both axes has for them, and for kernels that have taps along one axis only.
#
# Down, along the height: a band is some rows of tiles of one sample's outputs; its strips of x (kernels/direct.pxi) are transformed down their columns into rows of
# points, and so are its rows of dy, some filters at a time. At every point a row of dy is then multiplied by rows of x, one for each column: a (channel, tap of the
# depth), a phase of the stride along the height, and a tap along the width, which is only a distance.
# Across, along the width: rows of x and of dy are taken apart into tiles, which become the lanes of rows of points. A column is then a (channel, tap of the depth,
# tap of the height), whose rows are transformed for each of them, and a phase of the stride along the width.
# A line is what makes a row of points: a row of tiles, or across a row of outputs. Bands are dealt to partial sums as in kernels/direct.pxi.

cdef extern from "native/kernels.h" nogil:
    void line_gradient_f32(float *dst, ix plane, const float *const *rows, ix width, ix n, ix m)
    void line_gradient_f64(double *dst, ix plane, const double *const *rows, ix width, ix n, ix m)
    void line_input_f32(float *dst, ix plane, const float *const *rows, ix width, ix size, ix n)
    void line_input_f64(double *dst, ix plane, const double *const *rows, ix width, ix size, ix n)
    void line_gradient_across_f32(float *dst, ix plane, const float *row, ix width, ix tiles, ix n, ix m)
    void line_input_across_f32(float *dst, ix plane, const float *row, ix width, ix tiles, ix n, ix m)
    void line_taps_f32(float *dweight, const float *sums, ix plane, ix columns, const ix *to, ix n, ix m)
    void line_gradient_across_f64(double *dst, ix plane, const double *row, ix width, ix tiles, ix n, ix m)
    void line_input_across_f64(double *dst, ix plane, const double *row, ix width, ix tiles, ix n, ix m)
    void line_taps_f64(double *dweight, const double *sums, ix plane, ix columns, const ix *to, ix n, ix m)

cdef enum:
    LINE_FILTERS = 8               # whose rows of dy are transformed together,
    LINE_MOST = 32                 # or so many where points of x are more than
    LINE_NEAR = 512 * 1024         # bytes, which do not stay in a second-level cache with those of dy: they are read once for all these filters
    LINE_VECTORS = 64              # of a row of points that are added up in registers, about: adding up their lanes costs what six of them do
    LINE_BYTES = 2 * 1024 * 1024        # of points of x in a block, at most: those of one point stay in a second-level cache, the others near it
    LINE_SUMS = 16 * 1024 * 1024   # bytes of all partial sums, at most


cdef struct LineOuter:
    Outer *o
    ix along                       # the axis of the tiles: 1 or 2
    ix n, m, r                     # points and outputs of a tile, taps of a phase
    ix phases                      # of the stride along that axis
    fc_axis axis[3]                # of x: as in `o`, but along that axis phases are the taps, and strips are as long as tiles reach
    # derived
    ix height                      # rows of outputs of a line
    Bands bands
    ix bundle                      # bands of a block
    int flat                       # rows of points of dy follow one another at the distance of those of x
    ix width, strip_row, plane     # of a strip: a piece of a row, a row, the rows of a piece of the height
    ix strip_rows, strip_width     # of outputs that a strip is staged for
    ix row                         # distance of rows of points of x
    ix depths, heights, sources    # planes of a strip by depth; rows of x for a line, of one of them; rows of points of x for a line
    ix columns
    ix filters                     # transformed together
    ix copied                      # elements of rows of dy that are not read in place
    ix lines, vectors              # in a full block
    ix source_span, x_plane        # elements from source to source, from point to point
    ix dy_span, dy_plane           # likewise from filter to filter
    ix ldc, u_plane, parts, sums   # of the sums: from filter to filter, from point to point, how many partial ones, elements of one
    double *bias                   # the sums of dy, [part][filter of all groups], or NULL
    ix *reach                      # [columns] where a column's first row of points begins
    ix *to                         # [columns][r] where its taps go in dweight, or -1
    ix *valid                      # [pieces of a strip's row] values that outputs read of a piece beyond its width


cdef ix even_lines(ix lines, ix most) noexcept nogil:
    """Those of a band, at most `most` of all: bands are of about equal size."""
    return ceil_div(lines, ceil_div(lines, most))


cdef void stage_phases(LineOuter *l) noexcept nogil:
    """Along the axis of the tiles a strip has a piece for every phase of the stride."""
    cdef fc_axis *axis = &l.axis[l.along]
    cdef ix i
    l.phases = axis.taps = axis.pieces = smaller(axis.step, axis.taps)
    axis.extra = 0
    for i in range(l.phases):
        axis.piece_offset[i] = axis.offset[i]


cdef inline ix lanes_of(LineOuter *l, ix width) noexcept nogil:
    """Lanes of a line of so many outputs."""
    return width if l.along == 1 else ceil_div(width, l.m)


cdef void plan_line_outer(real *tag, LineOuter *l, size_t *shared, size_t *tables, size_t *per_thread) noexcept nogil:
    """Sizes from the problem of one sample alone."""
    cdef Outer *o = l.o
    cdef ix vl = vector_lanes(tag), bytes_of_lane, lanes, across, lines, most, i
    for i in range(3):
        l.axis[i] = o.axis[i]
    stage_phases(l)
    fc_axis_stage(&l.axis[0], 1)
    l.depths = l.axis[0].pieces * (1 + l.axis[0].extra)
    l.heights = l.phases if l.along == 1 else l.axis[1].taps * l.phases
    l.sources = o.channels * (l.depths * l.phases if l.along == 1 else l.axis[0].taps * l.heights)
    bytes_of_lane = l.sources * l.n * <ix> sizeof(real)
    l.height = l.m if l.along == 1 else 1
    lines = ceil_div(o.grid.oh, l.height)
    # Long rows are cut into pieces, across where they would be more than a cache holds
    most = DIRECT_WIDTH if l.along == 1 else larger(vl, smaller(LINE_VECTORS * vl, LINE_BYTES // bytes_of_lane // vl * vl))
    lanes = lanes_of(l, o.grid.ow)
    l.bands.pieces = ceil_div(lanes, most)
    if l.bands.pieces > 1:
        lanes = ceil_div(ceil_div(lanes, l.bands.pieces), vl) * vl
    l.bands.width = smaller(o.grid.ow, lanes if l.along == 1 else lanes * l.m)
    l.bands.pieces = ceil_div(o.grid.ow, l.bands.width)
    across = ceil_div(lanes, vl)
    if l.along == 1:
        fc_axis_stage(&l.axis[2], l.bands.width)
        l.strip_width = l.bands.width
    else:
        l.strip_width = lanes * l.m + l.r - 1
    l.width = l.strip_width + l.axis[2].extra
    l.strip_row = l.axis[2].pieces * l.width
    l.row = l.strip_row if l.along == 1 else lanes
    # How many lines fill vectors enough, without more points of x than a cache holds
    most = larger(1, smaller(LINE_VECTORS // across if l.along == 1 else LINE_VECTORS * vl // lanes, LINE_BYTES // (bytes_of_lane * l.row)))
    l.bands.rows = even_lines(lines, most)
    l.bands.bands = ceil_div(lines, l.bands.rows)
    l.bundle = larger(1, most // l.bands.rows) if l.bands.bands == 1 and l.bands.pieces == 1 else 1
    l.lines = l.bundle * l.bands.rows
    l.flat = l.bands.pieces == 1 and (l.along == 2 or ceil_div(l.lines * l.row, vl) < l.lines * across)
    l.vectors = (ceil_div(l.lines * l.row, vl) if l.flat else l.lines * across) + 1
    l.bands.rows *= l.height
    if l.along == 1:
        l.strip_rows = l.bands.rows + l.r - 1
    else:
        l.strip_rows = l.bands.rows
        fc_axis_stage(&l.axis[1], l.strip_rows)
    l.plane = (l.strip_rows + l.axis[1].extra) * l.strip_row
    l.bands.strip = padded(l.depths * l.axis[1].pieces * l.plane + 16)
    l.columns = o.channels * l.axis[0].taps * l.heights * (l.axis[2].taps if l.along == 1 else 1)
    l.filters = LINE_FILTERS if bytes_of_lane * l.row * l.lines <= LINE_NEAR else LINE_MOST
    l.filters = smaller(o.rows, ceil_div(ceil_div(o.rows, ceil_div(o.rows, l.filters)), 4) * 4)
    l.source_span = padded(l.lines * l.row + 2 * vl)  # a vector hangs over, and what it hangs over into belongs to no other channel
    l.x_plane = unaliased(l.sources * l.source_span)
    l.dy_span = (l.vectors + 1) * vl
    l.dy_plane = unaliased(l.filters * l.dy_span)
    l.ldc = padded(l.columns)
    l.u_plane = o.rows * l.ldc
    l.sums = o.groups * l.n * l.u_plane
    l.parts = 1
    while l.parts < 8 and l.parts * o.groups < 16 and 2 * l.parts * l.sums * <ix> sizeof(real) <= LINE_SUMS:
        l.parts *= 2
    shared[0] = <size_t> (l.parts * l.sums) * sizeof(real) + bias_bytes(l.parts, o.groups * o.rows)
    tables[0] = <size_t> padded(l.columns * (1 + l.r) + l.axis[2].pieces) * sizeof(ix)
    l.copied = padded(l.m * l.width)
    per_thread[0] = (<size_t> (l.bands.strip + l.copied + l.n * (l.x_plane + l.dy_plane)) * sizeof(real)
                     + l.vectors * sizeof(ix) + l.bundle * (sizeof(fc_run) + sizeof(char *)) + 127) // 64 * 64


cdef void tabulate_lines(LineOuter *l) noexcept nogil:
    """Where columns begin and where their taps go."""
    cdef Outer *o = l.o
    cdef fc_axis *depth = &l.axis[0]
    cdef fc_axis *width = &l.axis[2]
    cdef ix c, d, h, s, phase, i, tap, j = 0, kernel = o.axis[1].taps, stride = o.axis[l.along].step, across = o.axis[2].taps
    if l.along == 2:  # the sources themselves
        for c in range(o.channels * depth.taps):
            for h in range(kernel):
                for phase in range(l.phases):
                    l.reach[j] = j * l.source_span
                    for i in range(l.r):
                        tap = phase + i * stride
                        l.to[j * l.r + i] = (c * kernel + h) * across + tap if tap < across else -1
                    j += 1
        for phase in range(l.phases):
            l.valid[phase] = ceil_div(across - phase, stride) - 1
        return
    for i in range(width.pieces):
        l.valid[i] = 0
    for s in range(across):
        l.valid[width.tap_piece[s]] = larger(l.valid[width.tap_piece[s]], width.tap_delta[s])
    for c in range(o.channels):
        for d in range(depth.taps):
            for phase in range(l.phases):
                for s in range(across):
                    l.reach[j] = (((c * l.depths + depth_plane(l, d)) * l.phases + phase) * l.source_span
                                  + width.tap_piece[s] * l.width + width.tap_delta[s])
                    for i in range(l.r):
                        tap = phase + i * stride
                        l.to[j * l.r + i] = ((c * depth.taps + d) * kernel + tap) * across + s if tap < kernel else -1
                    j += 1


cdef inline ix depth_plane(LineOuter *l, ix tap) noexcept nogil:
    """The planes of a strip where a tap along the depth is found."""
    return l.axis[0].tap_piece[tap] * (1 + l.axis[0].extra) + l.axis[0].tap_delta[tap]


cdef void sources_down(real *points, LineOuter *l, const real *strip, const fc_run *run, ix line) noexcept nogil:
    """One channel of a band as rows of points, from the line-th of the block on."""
    cdef ix source, t, i, piece, taps
    cdef const real *from_row[8]
    cdef real *to
    for source in range(l.depths * l.phases):
        # Rows and columns that no output reads are left out, whatever x holds there: they would meet others' in the points, or zeros of dy in the products.
        taps = ceil_div(l.o.axis[1].taps - source % l.phases, l.o.axis[1].step)
        for t in range(ceil_div(run.rows, l.m)):
            to = points + source * l.source_span + (line + t) * l.row
            for piece in range(l.axis[2].pieces):
                for i in range(l.n):
                    from_row[i] = NULL
                    if t * l.m + i < run.rows + taps - 1:
                        from_row[i] = strip + source * l.plane + (t * l.m + i) * l.strip_row + piece * l.width
                if real is float:
                    line_input_f32(to + piece * l.width, l.x_plane, from_row, run.width + l.valid[piece], l.width, l.n)
                else:
                    line_input_f64(to + piece * l.width, l.x_plane, from_row, run.width + l.valid[piece], l.width, l.n)


cdef void sources_across(real *points, LineOuter *l, const real *strip, const fc_run *run, ix line) noexcept nogil:
    """The same for tiles along the width."""
    cdef fc_axis *height = &l.axis[1]
    cdef ix d, h, t, phase, source = 0, tiles = ceil_div(run.width, l.m)
    cdef const real *row
    cdef real *to
    for d in range(l.axis[0].taps):
        for h in range(height.taps):
            for phase in range(l.phases):
                for t in range(run.rows):
                    row = strip + (depth_plane(l, d) * height.pieces + height.tap_piece[h]) * l.plane + (t + height.tap_delta[h]) * l.strip_row + phase * l.width
                    to = points + source * l.source_span + (line + t) * l.row
                    if real is float:
                        line_input_across_f32(to, l.x_plane, row, run.width + l.valid[phase], tiles, l.n, l.m)
                    else:
                        line_input_across_f64(to, l.x_plane, row, run.width + l.valid[phase], tiles, l.n, l.m)
                source += 1


cdef const real *dy_row(real *copied, const char *data, fc_source *dy, ix width, bint in_place) noexcept nogil:
    """A row of dy as it lies, or its copy."""
    if in_place:
        return <const real *> data
    if real is float:
        copy_row_f32(copied, data, width, dy.w, dy.swap)
    else:
        copy_row_f64(copied, data, width, dy.w, dy.swap)
    return copied


cdef void line_filter(real *points, real *copied, LineOuter *l, const fc_run *run, ix channel, ix line, ix pitch, bint in_place, double *bias) noexcept nogil:
    """One channel of dy of a band as rows of points, `pitch` apart; its values are added to *bias."""
    cdef fc_source *dy = &l.o.dy
    cdef const char *data = dy_rows(l.o, run, channel)
    cdef const real *from_row[8]
    cdef ix t, i, tiles = ceil_div(run.width, l.m)
    for t in range(ceil_div(run.rows, l.height)):
        for i in range(l.height):
            from_row[i] = NULL
            if t * l.height + i < run.rows:
                from_row[i] = dy_row(copied + i * l.width, data + (t * l.height + i) * dy.h, dy, run.width, in_place)
        add_rows(bias, from_row, smaller(l.height, run.rows - t * l.height), run.width)
        if l.along == 1:
            if real is float:
                line_gradient_f32(points + (line + t) * pitch, l.dy_plane, from_row, run.width, l.n, l.m)
            else:
                line_gradient_f64(points + (line + t) * pitch, l.dy_plane, from_row, run.width, l.n, l.m)
        elif real is float:
            line_gradient_across_f32(points + (line + t) * pitch, l.dy_plane, from_row[0], run.width, tiles, l.n, l.m)
        else:
            line_gradient_across_f64(points + (line + t) * pitch, l.dy_plane, from_row[0], run.width, tiles, l.n, l.m)


cdef ix line_runs(LineOuter *l, ix id, ix last, fc_run *run) noexcept nogil:
    """The bands of a block that begins with band `id`; returns how many."""
    cdef ix count = smaller(l.bundle, last - id), i
    for i in range(count):
        band_at(&l.bands, &l.o.grid, id + i, &run[i])
    return count


cdef void line_task(real *sums, LineOuter *l, char *memory, ix part, ix g) noexcept nogil:
    """One part of the bands, for one group."""
    cdef Outer *o = l.o
    cdef ix vl = vector_lanes(sums), bands = o.grid.samples * o.grid.od * l.bands.bands * l.bands.pieces
    cdef ix id = part * bands // l.parts, last = (part + 1) * bands // l.parts, runs, i, t, c, k, v, n, first, rows, width, line, pitch, across, point
    cdef real *strip = <real *> memory
    cdef real *copied = strip + l.bands.strip
    cdef real *X = copied + l.copied
    cdef real *E = X + l.n * l.x_plane
    cdef real *end
    cdef ix *start = <ix *> (E + l.n * l.dy_plane)
    cdef fc_run *run = <fc_run *> (start + l.vectors)
    cdef const char **place = <const char **> (run + l.bundle)
    cdef fc_source *dy = &o.dy
    cdef bint in_place = (not dy.swap and <size_t> dy.data % sizeof(real) == 0 and (dy.w == sizeof(real) or o.grid.ow == 1)
                          and dy.n % <ix> sizeof(real) == 0 and dy.c % <ix> sizeof(real) == 0 and dy.d % <ix> sizeof(real) == 0 and dy.h % <ix> sizeof(real) == 0)
    cdef fc_block block
    cdef fc_ahead ahead
    cdef double *bias = NULL
    sums += g * l.n * l.u_plane
    memset(sums, 0, l.n * l.u_plane * sizeof(real))
    while id < last:
        runs = line_runs(l, id, last, run)
        across = ceil_div(lanes_of(l, run.width), vl)
        pitch = l.row if l.flat else across * vl
        line = 0
        for i in range(runs):
            # strips are as long as tiles reach, and no row or column beyond what outputs read is looked at
            rows, width = run[i].rows, run[i].width
            for c in range(o.channels):
                if l.along == 1:
                    run[i].rows = ceil_div(rows, l.m) * l.m + l.r - 1
                else:
                    run[i].width = width + l.r - 1
                block.runs, block.run = 1, &run[i]
                if real is float:
                    stage_f32(strip, &o.source, o.source.data + (g * o.channels + c) * o.source.c, l.axis, &block, l.strip_rows, l.strip_width)
                else:
                    stage_f64(strip, &o.source, o.source.data + (g * o.channels + c) * o.source.c, l.axis, &block, l.strip_rows, l.strip_width)
                run[i].rows, run[i].width = rows, width
                if l.along == 1:
                    sources_down(X + c * (l.sources // o.channels) * l.source_span, l, strip, &run[i], line)
                else:
                    sources_across(X + c * (l.sources // o.channels) * l.source_span, l, strip, &run[i], line)
            line += ceil_div(rows, l.height)
        for point in range(l.n):  # what vectors hang over into is multiplied by zeros: no NaN may lie there
            for i in range(l.sources):
                memset(X + point * l.x_plane + i * l.source_span + line * l.row, 0, 2 * vl * sizeof(real))
        n = ceil_div((line - 1) * pitch + lanes_of(l, run.width), vl)
        for v in range(n):
            start[v] = v * vl if l.flat else v // across * l.row + v % across * vl
        first = 0
        while first < o.rows:
            k = smaller(o.rows - first, l.filters)
            for c in range(k):
                t = 0
                if l.bias != NULL:
                    bias = l.bias + (part * o.groups + g) * o.rows + first + c
                for i in range(runs):
                    line_filter(E + c * l.dy_span, copied, l, &run[i], g * o.rows + first + c, t, pitch, in_place, bias)
                    t += ceil_div(run[i].rows, l.height)
                for point in range(l.n):  # the last vector may reach farther than the last row
                    end = E + point * l.dy_plane + c * l.dy_span + (line - 1) * pitch + across * vl
                    memset(end, 0, vl * sizeof(real))
            ahead.call = ahead.places = 0
            if first + k < o.rows:
                look_ahead(&ahead, place, o, run, runs, g * o.rows + first + k, smaller(o.rows - first - k, l.filters))
            elif id + runs < last:
                runs = line_runs(l, id + runs, last, run)
                look_ahead(&ahead, place, o, run, runs, g * o.rows, l.filters)
            if real is float:
                ahead.calls = l.n * inner_calls_f32(k, l.columns)
            else:
                ahead.calls = l.n * inner_calls_f64(k, l.columns)
            for point in range(l.n):
                if real is float:
                    inner_f32(k, l.columns, n, E + point * l.dy_plane, l.dy_span, X + point * l.x_plane, start, l.reach,
                              sums + point * l.u_plane + first * l.ldc, l.ldc, &ahead)
                else:
                    inner_f64(k, l.columns, n, E + point * l.dy_plane, l.dy_span, X + point * l.x_plane, start, l.reach,
                              sums + point * l.u_plane + first * l.ldc, l.ldc, &ahead)
            first += k
        id += l.bundle


cdef void line_finish(real *dweight, real *sums, LineOuter *l, ix filter) noexcept nogil:
    """Add up the partial sums of one filter and turn them into its taps."""
    cdef ix g = filter // l.o.rows, part, point, i, at = g * l.n * l.u_plane + filter % l.o.rows * l.ldc
    cdef real *s
    for part in range(1, l.parts):
        for point in range(l.n):
            s = sums + at + point * l.u_plane
            for i in range(l.columns):
                s[i] += s[part * l.sums + i]
    dweight += filter * l.o.columns
    if real is float:
        line_taps_f32(dweight, sums + at, l.u_plane, l.columns, l.to, l.n, l.m)
    else:
        line_taps_f64(dweight, sums + at, l.u_plane, l.columns, l.to, l.n, l.m)


cdef int line_outer(real *dweight, real *dbias, LineOuter *l, int threads) except -1 nogil:
    """The sum that `outer` computes, and that of dy."""
    cdef Outer *o = l.o
    cdef size_t shared, tables, per_thread
    cdef ix task, tasks, bands
    cdef char *memory
    o.columns = o.channels * o.axis[0].taps * o.axis[1].taps * o.axis[2].taps
    plan_line_outer(dweight, l, &shared, &tables, &per_thread)
    if 2.0 * o.grid.samples * o.grid.od * o.grid.oh * o.grid.ow * o.groups * o.rows * o.columns < SERIAL_FLOPS:
        threads = 1
    memory = <char *> take_scratch(shared + tables + threads * per_thread + 64)
    l.bias = begin_bias(dbias, memory + l.parts * l.sums * sizeof(real), l.parts, o.groups * o.rows)
    bands = o.grid.samples * o.grid.od * l.bands.bands * l.bands.pieces
    l.parts = fewer_parts(l.parts, bands // l.bundle, <double> bands * l.n * o.groups * o.rows * l.columns * (l.vectors - 1) / l.bundle)
    if bands:  # blocks of about equal size
        tasks = ceil_div(bands, l.parts)
        l.bundle = ceil_div(tasks, ceil_div(tasks, l.bundle))
    l.reach = <ix *> (memory + shared)
    l.to = l.reach + l.columns
    l.valid = l.to + l.columns * l.r
    tabulate_lines(l)
    tasks = l.parts * o.groups
    if threads == 1:
        for task in range(tasks):
            line_task(<real *> memory + task // o.groups * l.sums, l, memory + shared + tables, task // o.groups, task % o.groups)
    else:
        for task in prange(tasks, num_threads=threads, schedule="dynamic"):
            line_task(<real *> memory + task // o.groups * l.sums, l, memory + shared + tables + threadid() * per_thread, task // o.groups, task % o.groups)
    if threads == 1:
        for task in range(o.groups * o.rows):
            line_finish(dweight, <real *> memory, l, task)
    else:
        for task in prange(o.groups * o.rows, num_threads=threads, schedule="static"):
            line_finish(dweight, <real *> memory, l, task)
    join_bias(dbias, l.bias, l.parts, o.groups * o.rows)
    fc_scratch_give(memory)
    return 0


cdef void describe_line_outer(LineOuter *l, Outer *o, Tables t, Shape p, fc_source *dy, fc_source *x, ix *one, ix along, ix tile) noexcept:
    describe_outer(o, t, p, dy, x, one)
    l.o, l.along = o, along
    l.r = ceil_div(p.kernel[along], p.stride[along])
    l.n, l.m = tile, tile + 1 - l.r


cdef object run_line_outer(real *dweight, real *dbias, Shape p, fc_source *dy, fc_source *x, int threads, ix along, ix tile):
    cdef Outer o
    cdef LineOuter l
    cdef Tables t = Tables(p)
    cdef ix one[4 * 3]
    describe_line_outer(&l, &o, t, p, dy, x, one, along, tile)
    with nogil:
        line_outer(dweight, dbias, &l, threads)


def winograd1d_backward_weight(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dweight, cnp.ndarray dbias, Shape shape, int threads, ix along, ix tile):
    """`conv_backward_weight` for kernels of two to seven taps along axis 1 or 2, which is `along`, in every phase of the stride, not dilated there. `tile`: points; 6
    serve 2 to 5 taps, 8 serve 3 to 7."""
    cdef fc_source source_y, source_x
    check_result(dweight)
    check_bias(dbias, dweight, shape)
    make_source(&source_y, dy, shape, shape.K, shape.out, "dy")
    make_source(&source_x, x, shape, shape.C, shape.size, "x")
    if cnp.PyArray_TYPE(dweight) == cnp.NPY_FLOAT:
        run_line_outer(<float *> cnp.PyArray_DATA(dweight), <float *> data_or_null(dbias), shape, &source_y, &source_x, threads, along, tile)
    else:
        run_line_outer(<double *> cnp.PyArray_DATA(dweight), <double *> data_or_null(dbias), shape, &source_y, &source_x, threads, along, tile)


cdef size_t line_bytes(real *tag, Shape p, int threads, ix along, ix tile) except? 0:
    cdef Outer o
    cdef LineOuter l
    cdef Tables t = Tables(p)
    cdef fc_source source
    cdef ix one[4 * 3]
    cdef size_t shared, tables, per_thread
    memset(&source, 0, sizeof(source))
    describe_line_outer(&l, &o, t, p, &source, &source, one, along, tile)
    plan_line_outer(tag, &l, &shared, &tables, &per_thread)
    return shared + tables + threads * per_thread


def winograd1d_weight_scratch(int itemsize, Shape shape, int threads, ix along, ix tile):
    """Bytes of scratch of `winograd1d_backward_weight`; the same for every N."""
    if itemsize == 4:
        return line_bytes(<float *> NULL, shape, threads, along, tile)
    return line_bytes(<double *> NULL, shape, threads, along, tile)
