# The gradient of the weights by Winograd's algorithm along the height alone, around native/winograd1d_weight.h: for few channels, which would not fill the lanes
# that a transform along both axes has for them.
#
# A band is some rows of tiles of one sample's outputs; its strips of x (kernels/direct.pxi) are transformed down their columns into rows of points, and so are its
# rows of dy, some filters at a time. At every point a row of dy is then multiplied by rows of x, one for each column: a (channel, tap of the depth), a phase of
# the stride along the height, and a tap along the width, which is only a distance. Bands are dealt to a fixed number of partial sums, as in kernels/direct.pxi.

cdef extern from "native/kernels.h" nogil:
    void line_gradient_f32(float *dst, ix plane, const float *const *rows, ix width, ix n, ix m)
    void line_gradient_f64(double *dst, ix plane, const double *const *rows, ix width, ix n, ix m)
    void line_input_f32(float *dst, ix plane, const float *const *rows, ix width, ix size, ix n)
    void line_input_f64(double *dst, ix plane, const double *const *rows, ix width, ix size, ix n)
    void line_taps_f32(float *dweight, const float *sums, ix plane, ix columns, const ix *to, ix n, ix m)
    void line_taps_f64(double *dweight, const double *sums, ix plane, ix columns, const ix *to, ix n, ix m)

cdef enum:
    LINE_FILTERS = 8               # whose rows of dy are transformed together
    LINE_VECTORS = 64              # of a row of points that are added up in registers, about: adding up their lanes costs what six of them do
    LINE_BYTES = 512 * 1024        # of points of x in a block, at most: they and those of dy stay in a second-level cache
    LINE_SUMS = 16 * 1024 * 1024   # bytes of all partial sums, at most


cdef struct LineOuter:
    Outer *o
    ix n, m, r                     # points and outputs of a tile, taps of a phase
    ix phases                      # of the stride along the height
    fc_axis axis[3]                # of x: as in `o`, but along the height phases are the taps, and strips are as long as tiles reach
    # derived
    Bands bands                    # rows: m for every row of tiles
    ix bundle                      # bands of a block
    int flat                       # rows of points of dy follow one another at the distance of those of x
    ix width, row, plane           # of a strip: a piece of a row, a row, the rows of a phase
    ix depths, sources             # planes of a strip by depth; rows of points of x for a row of tiles
    ix columns
    ix filters                     # transformed together
    ix lines, vectors              # rows of tiles and vectors in a full block
    ix source_span, x_plane        # elements from source to source, from point to point
    ix dy_span, dy_plane           # likewise from filter to filter
    ix ldc, u_plane, parts, sums   # of the sums: from filter to filter, from point to point, how many partial ones, elements of one
    ix *reach                      # [columns] where a column's first row of points begins
    ix *to                         # [columns][r] where its taps go in dweight, or -1
    ix *valid                      # [pieces of the width] values that outputs read of a full piece beyond its width


cdef ix even_lines(ix lines, ix most) noexcept nogil:
    """Rows of tiles of a band, at most `most` of all `lines`: bands are of about equal size."""
    return ceil_div(lines, ceil_div(lines, most if most else 1))


cdef void plan_line_outer(real *tag, LineOuter *l, size_t *shared, size_t *tables, size_t *per_thread) noexcept nogil:
    """Sizes from the problem of one sample alone."""
    cdef Outer *o = l.o
    cdef ix vl = vector_lanes(tag), across, lines, most, i
    cdef fc_axis *height = &l.axis[1]
    lines = ceil_div(o.grid.oh, l.m)
    l.bands.pieces = ceil_div(o.grid.ow, DIRECT_WIDTH)
    l.bands.width = o.grid.ow if l.bands.pieces == 1 else ceil_div(ceil_div(o.grid.ow, l.bands.pieces), vl) * vl
    l.bands.pieces = ceil_div(o.grid.ow, l.bands.width)
    for i in range(0, 3, 2):
        l.axis[i] = o.axis[i]
        fc_axis_stage(&l.axis[i], 1 if i == 0 else l.bands.width)
    height[0] = o.axis[1]
    l.phases = height.taps = height.pieces = smaller(height.step, height.taps)
    height.extra = 0
    for i in range(l.phases):
        height.piece_offset[i] = o.axis[1].offset[i]
    l.depths = l.axis[0].pieces * (1 + l.axis[0].extra)
    l.sources = o.channels * l.depths * l.phases
    l.width = l.bands.width + l.axis[2].extra
    l.row = l.axis[2].pieces * l.width
    # How many rows of tiles fill vectors enough, without more points of x than a cache holds
    across = ceil_div(l.bands.width, vl)
    most = smaller(LINE_VECTORS // across, LINE_BYTES // (l.sources * l.n * l.row * <ix> sizeof(real)))
    l.bands.rows = even_lines(lines, larger(1, most))
    l.bands.bands = ceil_div(lines, l.bands.rows)
    l.bundle = larger(1, most // l.bands.rows) if l.bands.bands == 1 and l.bands.pieces == 1 else 1
    l.lines = l.bundle * l.bands.rows
    l.flat = l.bands.pieces == 1 and ceil_div(l.lines * l.row, vl) < l.lines * across
    l.vectors = (ceil_div(l.lines * l.row, vl) if l.flat else l.lines * across) + 1
    l.bands.rows *= l.m
    l.plane = (l.bands.rows + l.r - 1) * l.row
    l.bands.strip = padded(l.depths * l.phases * l.plane + 16)
    l.columns = l.sources // l.depths * l.axis[0].taps * l.axis[2].taps
    l.filters = smaller(o.rows, LINE_FILTERS)
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
    shared[0] = <size_t> (l.parts * l.sums) * sizeof(real)
    tables[0] = <size_t> padded(l.columns * (1 + l.r) + l.axis[2].pieces) * sizeof(ix)
    per_thread[0] = (<size_t> (l.bands.strip + padded(l.m * l.width) + l.n * (l.x_plane + l.dy_plane)) * sizeof(real)
                     + l.vectors * sizeof(ix) + l.bundle * (sizeof(fc_run) + sizeof(char *)) + 127) // 64 * 64


cdef void tabulate_lines(LineOuter *l) noexcept nogil:
    """Where columns begin and where their taps go."""
    cdef Outer *o = l.o
    cdef fc_axis *depth = &l.axis[0]
    cdef fc_axis *width = &l.axis[2]
    cdef ix c, d, s, phase, i, j = 0, kernel = o.axis[1].taps
    for i in range(width.pieces):
        l.valid[i] = 0
    for s in range(width.taps):
        l.valid[width.tap_piece[s]] = larger(l.valid[width.tap_piece[s]], width.tap_delta[s])
    for c in range(o.channels):
        for d in range(depth.taps):
            for phase in range(l.phases):
                for s in range(width.taps):
                    l.reach[j] = (((c * l.depths + depth.tap_piece[d] * (1 + depth.extra) + depth.tap_delta[d]) * l.phases + phase) * l.source_span
                                  + width.tap_piece[s] * l.width + width.tap_delta[s])
                    for i in range(l.r):
                        l.to[j * l.r + i] = -1
                        if phase + i * o.axis[1].step < kernel:
                            l.to[j * l.r + i] = ((c * depth.taps + d) * kernel + phase + i * o.axis[1].step) * width.taps + s
                    j += 1


cdef void line_sources(real *points, LineOuter *l, const real *strip, const fc_run *run, ix rows, ix line) noexcept nogil:
    """One channel of a band as rows of points, from the line-th row of tiles of the block on; `rows`: of outputs."""
    cdef Outer *o = l.o
    cdef ix depth, phase, t, i, piece, taps
    cdef const real *from_row[8]
    cdef real *to
    for depth in range(l.depths):
        for phase in range(l.phases):
            # Rows and columns that no output reads are left out, whatever x holds there: they would meet others' in the points, or zeros of dy in the products.
            taps = ceil_div(o.axis[1].taps - phase, o.axis[1].step)
            for t in range(ceil_div(rows, l.m)):
                to = points + (depth * l.phases + phase) * l.source_span + (line + t) * l.row
                for piece in range(l.axis[2].pieces):
                    for i in range(l.n):
                        from_row[i] = NULL
                        if t * l.m + i < rows + taps - 1:
                            from_row[i] = strip + (depth * l.phases + phase) * l.plane + (t * l.m + i) * l.row + piece * l.width
                    if real is float:
                        line_input_f32(to + piece * l.width, l.x_plane, from_row, run.width + l.valid[piece], l.width, l.n)
                    else:
                        line_input_f64(to + piece * l.width, l.x_plane, from_row, run.width + l.valid[piece], l.width, l.n)


cdef void line_filter(real *points, real *copied, LineOuter *l, const fc_run *run, ix channel, ix line, ix pitch, bint in_place) noexcept nogil:
    """One channel of dy of a band as rows of points, `pitch` apart."""
    cdef Outer *o = l.o
    cdef const char *data = dy_rows(o, run, channel)
    cdef const real *from_row[8]
    cdef ix t, i
    for t in range(ceil_div(run.rows, l.m)):
        for i in range(l.m):
            from_row[i] = NULL
            if t * l.m + i < run.rows:
                if in_place:
                    from_row[i] = <const real *> (data + (t * l.m + i) * o.dy.h)
                else:
                    from_row[i] = copied + i * l.width
                    if real is float:
                        copy_row_f32(copied + i * l.width, data + (t * l.m + i) * o.dy.h, run.width, o.dy.w, o.dy.swap)
                    else:
                        copy_row_f64(copied + i * l.width, data + (t * l.m + i) * o.dy.h, run.width, o.dy.w, o.dy.swap)
        if real is float:
            line_gradient_f32(points + (line + t) * pitch, l.dy_plane, from_row, run.width, l.n, l.m)
        else:
            line_gradient_f64(points + (line + t) * pitch, l.dy_plane, from_row, run.width, l.n, l.m)


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
    cdef ix id = part * bands // l.parts, last = (part + 1) * bands // l.parts, runs, i, t, c, k, v, n, first, rows, line, pitch, across, point
    cdef real *strip = <real *> memory
    cdef real *copied = strip + l.bands.strip
    cdef real *X = copied + padded(l.m * l.width)
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
    sums += g * l.n * l.u_plane
    memset(sums, 0, l.n * l.u_plane * sizeof(real))
    while id < last:
        runs = line_runs(l, id, last, run)
        across = ceil_div(run.width, vl)
        pitch = l.row if l.flat else across * vl
        line = 0
        for i in range(runs):
            rows = run[i].rows
            for c in range(o.channels):
                # strips are as long as tiles reach, but no row is read twice that no output reads
                run[i].rows = ceil_div(rows, l.m) * l.m + l.r - 1
                block.runs, block.run = 1, &run[i]
                if real is float:
                    stage_f32(strip, &o.source, o.source.data + (g * o.channels + c) * o.source.c, l.axis, &block, l.bands.rows + l.r - 1, l.bands.width)
                else:
                    stage_f64(strip, &o.source, o.source.data + (g * o.channels + c) * o.source.c, l.axis, &block, l.bands.rows + l.r - 1, l.bands.width)
                run[i].rows = rows
                line_sources(X + c * l.depths * l.phases * l.source_span, l, strip, &run[i], rows, line)
            line += ceil_div(rows, l.m)
        for point in range(l.n):  # what vectors hang over into is multiplied by zeros: no NaN may lie there
            for i in range(l.sources):
                memset(X + point * l.x_plane + i * l.source_span + line * l.row, 0, 2 * vl * sizeof(real))
        n = ceil_div((line - 1) * pitch + run.width, vl)
        for v in range(n):
            start[v] = v * vl if l.flat else v // across * l.row + v % across * vl
        first = 0
        while first < o.rows:
            k = smaller(o.rows - first, l.filters)
            for c in range(k):
                t = 0
                for i in range(runs):
                    line_filter(E + c * l.dy_span, copied, l, &run[i], g * o.rows + first + c, t, pitch, in_place)
                    t += ceil_div(run[i].rows, l.m)
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


cdef int line_outer(real *dweight, LineOuter *l, int threads) except -1 nogil:
    """The sum that `outer` computes."""
    cdef Outer *o = l.o
    cdef size_t shared, tables, per_thread
    cdef ix task, tasks, bands
    cdef char *memory
    o.columns = o.channels * o.axis[0].taps * o.axis[1].taps * o.axis[2].taps
    plan_line_outer(dweight, l, &shared, &tables, &per_thread)
    if 2.0 * o.grid.samples * o.grid.od * o.grid.oh * o.grid.ow * o.groups * o.rows * o.columns < SERIAL_FLOPS:
        threads = 1
    memory = <char *> take_scratch(shared + tables + threads * per_thread + 64)
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
    fc_scratch_give(memory)
    return 0


cdef void describe_line_outer(LineOuter *l, Outer *o, Tables t, Shape p, fc_source *dy, fc_source *x, ix *one, ix tile) noexcept:
    describe_outer(o, t, p, dy, x, one)
    l.o = o
    l.r = ceil_div(p.kernel[1], p.stride[1])
    l.n, l.m = tile, tile + 1 - l.r


cdef object run_line_outer(real *dweight, Shape p, fc_source *dy, fc_source *x, int threads, ix tile):
    cdef Outer o
    cdef LineOuter l
    cdef Tables t = Tables(p)
    cdef ix one[4 * 3]
    describe_line_outer(&l, &o, t, p, dy, x, one, tile)
    with nogil:
        line_outer(dweight, &l, threads)


def winograd1d_backward_weight(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dweight, Shape shape, int threads, ix tile):
    """`conv_backward_weight` for kernels of two to seven taps along the height in every phase of the stride, which is not dilated there. `tile`: points; 6 serve 2
    to 5 taps, 8 serve 3 to 7."""
    cdef fc_source source_y, source_x
    check_result(dweight)
    make_source(&source_y, dy, shape, shape.K, shape.out, "dy")
    make_source(&source_x, x, shape, shape.C, shape.size, "x")
    if cnp.PyArray_TYPE(dweight) == cnp.NPY_FLOAT:
        run_line_outer(<float *> cnp.PyArray_DATA(dweight), shape, &source_y, &source_x, threads, tile)
    else:
        run_line_outer(<double *> cnp.PyArray_DATA(dweight), shape, &source_y, &source_x, threads, tile)


cdef size_t line_bytes(real *tag, Shape p, int threads, ix tile) except? 0:
    cdef Outer o
    cdef LineOuter l
    cdef Tables t = Tables(p)
    cdef fc_source source
    cdef ix one[4 * 3]
    cdef size_t shared, tables, per_thread
    memset(&source, 0, sizeof(source))
    describe_line_outer(&l, &o, t, p, &source, &source, one, tile)
    plan_line_outer(tag, &l, &shared, &tables, &per_thread)
    return shared + tables + threads * per_thread


def winograd1d_weight_scratch(int itemsize, Shape shape, int threads, ix tile):
    """Bytes of scratch of `winograd1d_backward_weight`; the same for every N."""
    if itemsize == 4:
        return line_bytes(<float *> NULL, shape, threads, tile)
    return line_bytes(<double *> NULL, shape, threads, tile)
