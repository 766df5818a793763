# Winograd drivers around native/winograd.h: forward, and gradient of the input (a correlation with the filter turned round). That of the weights: winograd_outer.pxi.
#
# The map is cut into tiles, numbered flat over the batch. A block of tiles is transformed for all channels, taken through n * n small matrix products (n = 6 or 8 points
# an axis) and transformed back, by one thread from beginning to end; if the channels are too many for its caches, or the tiles too few for all threads, by all threads together.
# Sums run over all channels in order, so nothing depends on blocking.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_tiles:
        ix count, ph, pw, n, m, oh, ow
        fc_axis h, w
        ix h_end, w_end
        ix dh, dw, sh, sw, yn, yc, yh
    ctypedef struct fc_filter:
        const char *data
        ix channels, channel_stride, phases, r
        const ix *tap_offset
        const ix *h0
        const ix *w0
        int swap
    ctypedef struct fc_place:
        pass
    const ix FC_NO_TAP, WINO_SPAN, FC_LINE
    enum:
        WINO_RUNS
    void fc_cut_tiles(fc_tiles *g, ix maps, ix short_h, ix short_w)
    void fc_tiles_at_point(const fc_tiles *g, ix point, ix p, ix last, ix *low, ix *high)
    ix fc_find_places(fc_place *r, const fc_tiles *g, ix first_h, ix first_w, ix p, ix last)
    void wino_filter_f32(float *U, ix step, ix plane, const float *taps, ix channels, ix n, ix r)
    void wino_filter_f64(double *U, ix step, ix plane, const double *taps, ix channels, ix n, ix r)
    void wino_input_f32(float *out, ix step, ix plane, ix group, float *T, float *row, const fc_source *s, const char *channel, ix channels, const fc_tiles *g,
                        ix h0, ix w0, ix p, ix last)
    void wino_input_f64(double *out, ix step, ix plane, ix group, double *T, double *row, const fc_source *s, const char *channel, ix channels, const fc_tiles *g,
                        ix h0, ix w0, ix p, ix last)
    void wino_turn_f32(float *M, ix ld, const float *rows, ix tiles)
    void wino_output_f32(float *y, ix channels, const float *M, ix ld, ix plane, float *strip, const float *bias, int activation, const fc_source *s,
                         const char *source, const fc_filter *f, ix step, const fc_tiles *g, const fc_place *places, ix count, ix p, ix tiles, int stream)
    void wino_turn_f64(double *M, ix ld, const double *rows, ix tiles)
    void wino_output_f64(double *y, ix channels, const double *M, ix ld, ix plane, double *strip, const double *bias, int activation, const fc_source *s,
                         const char *source, const fc_filter *f, ix step, const fc_tiles *g, const fc_place *places, ix count, ix p, ix tiles, int stream)

cdef enum:
    WINO_OUTPUTS = 6                  # outputs of a tile along an axis, at most
    WINO_TILES = 96                   # tiles of a block that all threads take to the end together
    WINO_OWN_TILES = 48               # of one that a thread takes alone, unless ...
    WINO_NEAR_BYTES = 3 * 512 * 1024  # ... the inputs and the products of 96 stay in or near its caches, or ...
    WINO_FILTER_BYTES = 16 * 1024 * 1024  # ... the filters come from memory for every block of them, which is worth sharing then
    WINO_OWN_BYTES = 4 * 1024 * 1024  # its transformed input, at most
    WINO_ROW_BYTES = 3 * 1024 * 1024  # the same of a block of whole rows of tiles
    WINO_ROW_SAVES = 10               # multiplications in the time that it saves for an output
    WINO_ROWS = 32                    # filters that one task takes
    WINO_CHANNELS = 16                # channels that one task of the input transform takes
    WINO_PACK = 32                    # channels of packed weights transformed at a time


cdef struct Phases:
    # A stride cuts one side of the sum into phases: those of the source (forward, weights) or those of the destination (gradient of the input).
    ix count, r
    ix *taps          # [count][r*r] byte offset of each tap in a filter plane, or FC_NO_TAP
    ix *index         # [count][r*r] the same as a position in the plane, or -1
    ix *h             # [count] first source index (or destination row) of each phase
    ix *w


cdef struct Winograd:
    fc_tiles tiles
    Phases source_phases, row_phases   # one of them has count 1
    ix samples, groups, rows, channels, r, points   # of a tile
    ix short_w         # tiles across a map that are short
    fc_source source
    const char *weight
    ix w_group, w_row, w_channel
    int w_swap
    const void *bias
    int activation, stream   # the result is written past the caches
    # derived; virtual rows and channels are (row, phase) and (channel, phase)
    ix virtual_rows, virtual_channels, panels, block, u_plane, v_plane, m_plane, own_plane, task_size, own_size, own_tiles, row_tiles
    bint private     # every thread transforms the tiles that it multiplies


cdef inline ix smaller(ix a, ix b) noexcept nogil:
    return a if a < b else b


cdef inline ix larger(ix a, ix b) noexcept nogil:
    return a if a > b else b


cdef inline ix unaliased(ix elements) noexcept nogil:
    """Round up to an odd number of cache lines, so that equal positions of neighbouring planes fall into different cache sets."""
    return (elements + 31) // 32 * 32 + 16


cdef inline ix points_scratch(const fc_tiles *g) noexcept nogil:
    """Elements of up to WINO_TILES tiles transformed along columns."""
    return g.n * WINO_SPAN


cdef inline ix transform_scratch(const fc_tiles *g, ix tiles, ix vl) noexcept nogil:
    """The same and behind it the staged rows of a run of tiles."""
    return points_scratch(g) + g.n * ((tiles + vl) * WINO_OUTPUTS + 8)


cdef inline ix whole_rows(const Winograd *w, ix vl, ix itemsize) noexcept nogil:
    """Tiles of a block that a thread takes alone if its outputs are to lie together: whole rows of them. 0: where vectors that they do not fill would cost more than that saves."""
    cdef ix row = ceil_div(w.tiles.ow, w.tiles.m), tiles = row, found = 0, lanes, empty, least = 0
    while tiles <= WINO_TILES:
        lanes = ceil_div(tiles, vl) * vl
        empty = lanes - tiles
        if (2 * tiles >= WINO_OWN_TILES and w.points * w.virtual_channels * lanes * itemsize <= WINO_ROW_BYTES
                and empty * w.points * w.virtual_channels <= tiles * w.tiles.m * w.tiles.m * WINO_ROW_SAVES
                and (found == 0 or empty * found <= least * tiles)):
            found, least = tiles, empty
        tiles += row
    return found


cdef void plan_winograd(real *tag, Winograd *w, size_t *shared, size_t *per_thread) noexcept nogil:
    """Sizes from the problem of one sample alone."""
    cdef ix vl = vector_lanes(tag), mr = tile_mr(tag), task, row
    w.virtual_rows, w.virtual_channels = w.rows * w.row_phases.count, w.channels * w.source_phases.count
    w.panels = w.row_phases.count * ceil_div(w.rows, mr)
    w.block = WINO_TILES
    w.u_plane = unaliased(w.panels * w.virtual_channels * mr)
    w.v_plane = unaliased(w.virtual_channels * w.block)
    w.m_plane = unaliased(WINO_ROWS * w.block)
    w.own_tiles = WINO_TILES
    if (w.points * (w.virtual_channels + WINO_ROWS) * WINO_TILES * <ix> sizeof(real) > WINO_NEAR_BYTES
            and w.points * w.u_plane * <ix> sizeof(real) <= WINO_FILTER_BYTES):
        w.own_tiles = WINO_OWN_TILES
    w.row_tiles = whole_rows(w, vl, sizeof(real))
    w.own_plane = unaliased(w.virtual_channels * larger(w.own_tiles, ceil_div(w.row_tiles, vl) * vl))
    w.private = w.points * w.own_plane * <ix> sizeof(real) <= WINO_OWN_BYTES
    shared[0] = <size_t> (w.points * (w.u_plane + w.v_plane)) * sizeof(real)
    # a task of the input transform holds rows of points and staged rows; one of the output transform the products and two strips
    row = (w.block + vl) * w.tiles.m + 16
    task = transform_scratch(&w.tiles, w.block, vl)
    if w.points * w.m_plane + 2 * w.tiles.m * row > task:
        task = w.points * w.m_plane + 2 * w.tiles.m * row
    if WINO_PACK * w.r * w.r * mr > task:
        task = WINO_PACK * w.r * w.r * mr
    w.task_size = padded(task + 16)
    # behind it a vector of transformed filters and their products with a few tiles, or a block of transformed tiles
    w.own_size = w.task_size + padded(w.points * unaliased(w.virtual_channels * vl) + mr * vl)
    per_thread[0] = <size_t> (w.own_size + (w.points * w.own_plane if w.private else 0)) * sizeof(real)


cdef void winograd_filters(real *U, ix step, ix plane, Winograd *w, ix g, ix panel, real *packed) noexcept nogil:
    """One panel of MR filters of one phase -> U[point][virtual channel][MR], points `plane` apart, channels `step`; packed and transformed a few channels at a time.
    Panels are numbered (phase of the rows, rows)."""
    cdef ix mr = tile_mr(U), per_phase = w.panels // w.row_phases.count, first = panel % per_phase * mr, taps = w.r * w.r, phase, c, n
    cdef ix rows = w.rows - first if w.rows - first < mr else mr
    cdef const char *data = w.weight + g * w.w_group + first * w.w_row
    cdef const ix *table
    for phase in range(w.source_phases.count):
        table = (w.row_phases.taps + panel // per_phase * taps) if w.row_phases.taps != NULL else w.source_phases.taps + phase * taps
        c = 0
        while c < w.channels:  # virtual channels are numbered (phase, channel)
            n = w.channels - c if w.channels - c < WINO_PACK else WINO_PACK
            if real is float:
                pack_weights_f32(packed, data + c * w.w_channel, rows, w.w_row, n, w.w_channel, table, taps, w.w_swap)
                wino_filter_f32(U + (phase * w.channels + c) * step, step, plane, packed, n, w.tiles.n, w.r)
            else:
                pack_weights_f64(packed, data + c * w.w_channel, rows, w.w_row, n, w.w_channel, table, taps, w.w_swap)
                wino_filter_f64(U + (phase * w.channels + c) * step, step, plane, packed, n, w.tiles.n, w.r)
            c += n


cdef void winograd_input(real *V, Winograd *w, ix g, ix first, ix p, ix last, ix c, ix last_c, real *scratch) noexcept nogil:
    """Tiles [p, last) of virtual channels [c, last_c): V[point][vector of tiles][virtual channel]. `first` is the superblock's first tile."""
    cdef ix vl = vector_lanes(V), group = w.virtual_channels * vl, phase, count
    cdef real *row = scratch + points_scratch(&w.tiles)
    cdef const char *plane
    V += (p - first) * w.virtual_channels
    while c < last_c:  # the channels of a phase together
        phase = c // w.channels
        count = smaller((phase + 1) * w.channels, last_c) - c
        plane = w.source.data + (g * w.channels + c % w.channels) * w.source.c
        if real is float:
            wino_input_f32(V + c * vl, vl, w.v_plane, group, scratch, row, &w.source, plane, count, &w.tiles, w.source_phases.h[phase], w.source_phases.w[phase], p, last)
        else:
            wino_input_f64(V + c * vl, vl, w.v_plane, group, scratch, row, &w.source, plane, count, &w.tiles, w.source_phases.h[phase], w.source_phases.w[phase], p, last)
        c += count


cdef void winograd_outputs(real *y, Winograd *w, ix g, ix p, ix last, ix panel, ix last_panel, real *scratch) noexcept nogil:
    """Products of tiles [p, last) in `scratch`, [point][filter][tile] -> outputs of the filters of panels [panel, last_panel)."""
    cdef ix mr = tile_mr(y), per_phase = w.panels // w.row_phases.count, u, phase = -1, first, rows, k, count = 0
    cdef real *strip = scratch + w.points * w.m_plane
    cdef real *M
    cdef const real *bias = NULL
    cdef const char *source = w.source.data + g * w.channels * w.source.c
    cdef fc_place places[WINO_RUNS]
    cdef fc_filter f
    f.channels, f.channel_stride, f.swap, f.r = w.channels, w.w_channel, w.w_swap, w.r
    f.phases, f.h0, f.w0 = w.source_phases.count, w.source_phases.h, w.source_phases.w
    for u in range(panel, last_panel):
        if u // per_phase != phase:
            phase = u // per_phase
            count = fc_find_places(places, &w.tiles, w.row_phases.h[phase], w.row_phases.w[phase], p, last)
        f.tap_offset = w.row_phases.taps + phase * w.r * w.r if w.row_phases.taps != NULL else w.source_phases.taps
        first = u % per_phase * mr
        rows, k = smaller(w.rows - first, mr), g * w.rows + first
        f.data = w.weight + g * w.w_group + first * w.w_row
        M = scratch + (u - panel) * mr * w.block
        if w.bias != NULL:
            bias = <const real *> w.bias + k
        if real is float:
            wino_output_f32(y + k * w.tiles.yc, rows, M, w.block, w.m_plane, strip, bias, w.activation, &w.source, source, &f, w.w_row, &w.tiles, places, count, p,
                            last - p, w.stream)
        else:
            wino_output_f64(y + k * w.tiles.yc, rows, M, w.block, w.m_plane, strip, bias, w.activation, &w.source, source, &f, w.w_row, &w.tiles, places, count, p,
                            last - p, w.stream)


cdef inline void winograd_zeros(real *rows, ix ld, ix count, ix low, ix high, ix end) noexcept nogil:
    """What is not multiplied of [0, end) of some rows: [0, low) and [high, end)."""
    cdef ix i
    for i in range(count):
        memset(rows + i * ld, 0, low * sizeof(real))
        memset(rows + i * ld + high, 0, (end - high) * sizeof(real))


cdef void winograd_products(real *y, Winograd *w, ix g, const real *U, ix plane, ix ahead, const real *V, ix first, ix p, ix last, ix panel, ix last_panel,
                            real *scratch) noexcept nogil:
    """Tiles [p, last) of panels [panel, last_panel): a product for every point, of the tiles that need it, then the output transform.
    U is that of the first panel; `ahead` leads to what is multiplied next."""
    cdef ix vl = vector_lanes(y), mr = tile_mr(y), vectors = ceil_div(last - p, vl), stream = w.virtual_channels * vl, per_phase = w.panels // w.row_phases.count
    cdef ix point, u, j, nv, rows, low, high
    cdef real *Mp
    cdef const real *B
    cdef const real *A
    V += (p - first) * w.virtual_channels
    for point in range(w.points):
        fc_tiles_at_point(&w.tiles, point, p, last, &low, &high)
        low, high = low // vl, ceil_div(high, vl)  # vectors
        B = V + point * w.v_plane
        for u in range(panel, last_panel):
            rows = smaller(w.rows - u % per_phase * mr, mr)
            A = U + point * plane + (u - panel) * w.virtual_channels * mr
            Mp = scratch + point * w.m_plane + (u - panel) * mr * w.block
            if high - low < vectors:
                winograd_zeros(Mp, w.block, rows, low * vl, high * vl, vectors * vl)
            j = low
            while j < high:
                if real is float:
                    nv = tile_width_f32(high - j)
                    tile_f32(rows, nv, w.virtual_channels, A, mr, B + j * stream, stream, Mp + j * vl, w.block, 0, NULL, ahead)
                else:
                    nv = tile_width_f64(high - j)
                    tile_f64(rows, nv, w.virtual_channels, A, mr, B + j * stream, stream, Mp + j * vl, w.block, 0, NULL, ahead)
                j += nv
    winograd_outputs(y, w, g, p, last, panel, last_panel, scratch)


cdef void winograd_panel(real *y, Winograd *w, ix g, const real *V, ix tiles, ix panel, real *scratch) noexcept nogil:
    """All tiles of one panel, whose filters are transformed on the spot."""
    cdef ix plane = unaliased(w.virtual_channels * tile_mr(y))
    cdef real *U = scratch + w.task_size
    winograd_filters(U, tile_mr(y), plane, w, g, panel, scratch)
    winograd_products(y, w, g, U, plane, plane, V, 0, 0, tiles, panel, panel + 1, scratch)


cdef void winograd_few(real *y, Winograd *w, ix g, const real *V, ix tiles, ix vector, real *scratch) noexcept nogil:
    """All tiles, which are no more than a register tile has rows, of one vector of filters of a phase: filters are the lanes, so that none stays empty.
    The sums are the same, term by term."""
    cdef ix mr = tile_mr(y), vl = vector_lanes(y), plane = unaliased(w.virtual_channels * vl), per_phase = w.panels // w.row_phases.count
    cdef ix vectors = ceil_div(w.rows, vl), panel = vector // vectors * per_phase + vector % vectors * (vl // mr), point, u, low, high
    cdef ix last_panel = smaller(panel + vl // mr, (vector // vectors + 1) * per_phase)
    cdef real *U = scratch + w.task_size
    cdef real *products = U + w.points * plane
    if last_panel - panel < vl // mr:
        memset(U, 0, w.points * plane * sizeof(real))
    for u in range(panel, last_panel):
        winograd_filters(U + (u - panel) * mr, vl, plane, w, g, u, scratch)
    for point in range(w.points):
        fc_tiles_at_point(&w.tiles, point, 0, tiles, &low, &high)
        winograd_zeros(products, 0, 1, low * vl, high * vl, tiles * vl)
        low = smaller(low, tiles - 1)
        high = larger(high, low + 1)  # one at least: a register tile has a row
        if real is float:
            tile_f32(high - low, 1, w.virtual_channels, V + point * w.v_plane + low, vl, U + point * plane, 0, products + low * vl, vl, 0, NULL, 0)
            wino_turn_f32(scratch + point * w.m_plane, w.block, products, tiles)
        else:
            tile_f64(high - low, 1, w.virtual_channels, V + point * w.v_plane + low, vl, U + point * plane, 0, products + low * vl, vl, 0, NULL, 0)
            wino_turn_f64(scratch + point * w.m_plane, w.block, products, tiles)
    winograd_outputs(y, w, g, 0, tiles, panel, last_panel, scratch)


cdef void winograd_block(real *y, Winograd *w, ix g, const real *U, ix p, ix last, real *scratch) noexcept nogil:
    """Tiles [p, last) from the input to the output, by one thread."""
    cdef ix panel = 0, panels = WINO_ROWS // tile_mr(y), next_panel
    cdef real *V = scratch + w.own_size
    winograd_input(V, w, g, p, p, last, 0, w.virtual_channels, scratch)
    while panel < w.panels:
        next_panel = smaller(panel + panels, w.panels)
        winograd_products(y, w, g, U + panel * w.virtual_channels * tile_mr(y), w.u_plane, w.virtual_channels * tile_mr(y), V, p, p, last, panel, next_panel, scratch)
        panel = next_panel


cdef int winograd(real *y, Winograd *w, int threads) except -1 nogil:
    cdef size_t shared, per_thread
    cdef ix mr = tile_mr(y), vl = vector_lanes(y), tiles = w.tiles.count, g, first, count, task, blocks, block, parts
    cdef bint once, alone, by_rows
    cdef char *memory
    cdef char *own
    cdef real *U
    cdef real *V
    if tiles == 0:
        return 0
    plan_winograd(y, w, &shared, &per_thread)
    # pieces of a row are better written in the caches
    w.stream = w.short_w == 0 and streams(w.samples * w.tiles.yn * sizeof(real)) and w.tiles.sw == 1 and w.tiles.dw * sizeof(real) >= FC_LINE
    memory = <char *> take_scratch(shared + threads * per_thread)
    own = memory + shared
    U = <real *> memory
    V = U + w.points * w.u_plane
    once = tiles <= w.block  # every filter meets one block of tiles: its transform need not leave the thread's own cache
    alone = w.private and not once
    # rows that lie together are written past the caches in whole lines, but for the first and the last of a block
    by_rows = alone and w.stream and w.row_tiles > 0 and tiles >= 8 * threads * w.row_tiles
    if by_rows:
        w.own_tiles = w.row_tiles
    if alone:
        w.block, w.v_plane = ceil_div(w.own_tiles, vl) * vl, w.own_plane
        w.m_plane = unaliased(WINO_ROWS * w.block)
    blocks = ceil_div(tiles, w.block)
    if alone and blocks < 8 * threads:
        blocks = ceil_div(blocks, threads) * threads  # equal shares
    block = w.row_tiles if by_rows else ceil_div(ceil_div(tiles, blocks), vl) * vl
    blocks = ceil_div(tiles, block)
    for g in range(w.groups):
        if not once:
            for task in prange(w.panels, num_threads=threads, schedule="static"):
                winograd_filters(U + task * w.virtual_channels * mr, mr, w.u_plane, w, g, task, <real *> (own + threadid() * per_thread))
        if alone:
            for task in prange(blocks, num_threads=threads, schedule="dynamic"):
                winograd_block(y, w, g, U, task * block, smaller((task + 1) * block, tiles), <real *> (own + threadid() * per_thread))
            continue
        first = 0
        while first < tiles:
            count = smaller(tiles - first, block)
            parts = ceil_div(w.virtual_channels, WINO_CHANNELS)
            for task in prange(parts, num_threads=threads, schedule="dynamic"):
                winograd_input(V, w, g, first, first, first + count, task * WINO_CHANNELS, smaller((task + 1) * WINO_CHANNELS, w.virtual_channels),
                               <real *> (own + threadid() * per_thread))
            if tiles <= mr:
                for task in prange(w.row_phases.count * ceil_div(w.rows, vl), num_threads=threads, schedule="dynamic"):
                    winograd_few(y, w, g, V, count, task, <real *> (own + threadid() * per_thread))
            elif once:
                for task in prange(w.panels, num_threads=threads, schedule="dynamic"):
                    winograd_panel(y, w, g, V, count, task, <real *> (own + threadid() * per_thread))
            else:
                parts = ceil_div(w.panels, WINO_ROWS // mr)
                for task in prange(parts, num_threads=threads, schedule="dynamic"):
                    winograd_products(y, w, g, U + task * WINO_ROWS * w.virtual_channels, w.u_plane, w.virtual_channels * mr, V, first,
                                      first, first + count, task * (WINO_ROWS // mr), smaller((task + 1) * (WINO_ROWS // mr), w.panels),
                                      <real *> (own + threadid() * per_thread))
            first += count
    fc_scratch_give(memory)
    return 0


cdef void no_phases(Phases *f, Tables t) noexcept:
    f.count, f.r, f.taps, f.index, f.h, f.w = 1, 1, NULL, NULL, t.take(1), t.take(1)
    f.h[0] = f.w[0] = 0


cdef void make_phases(Phases *f, Tables t, Shape p, const Weights *w, bint turned) noexcept:
    """Phase (a, b) has the taps a + stride*i, b + stride*j of the filter, in ascending order or (turned) in descending."""
    cdef ix a, b, i, j, n = 0, th, tw, sh = p.stride[1], sw = p.stride[2]
    f.count, f.r = sh * sw, ceil_div(p.kernel[1], sh)
    f.taps, f.index = t.take(f.count * f.r * f.r), t.take(f.count * f.r * f.r)
    f.h, f.w = t.take(f.count), t.take(f.count)
    for a in range(sh):
        for b in range(sw):
            f.h[a * sw + b], f.w[a * sw + b] = a - p.low[1], b - p.low[2]
            for i in range(f.r):
                for j in range(f.r):
                    th, tw = a + sh * (f.r - 1 - i if turned else i), b + sw * (f.r - 1 - j if turned else j)
                    f.index[n] = th * p.kernel[2] + tw if th < p.kernel[1] and tw < p.kernel[2] else -1
                    f.taps[n] = th * w.tap[1] + tw * w.tap[2] if f.index[n] >= 0 else FC_NO_TAP
                    n += 1


cdef void describe_winograd(Winograd *w, Tables t, Shape p, fc_source *source, Weights *weight, const void *bias, bint transposed, ix tile, ix short_h,
                            ix short_w) noexcept:
    """Forward, or (transposed) the gradient of the input: correlations of dy, one for each phase of dx, with the taps of the phase turned round."""
    cdef fc_tiles *g = &w.tiles
    cdef Phases *f = &w.row_phases if transposed else &w.source_phases
    w.source, w.samples, w.groups, w.bias = source[0], p.N, p.groups, bias
    w.weight, w.w_swap = weight.data, weight.swap
    make_phases(f, t, p, weight, transposed)
    no_phases(&w.source_phases if transposed else &w.row_phases, t)
    w.r = f.r
    w.points = tile * tile
    g.n, g.m = tile, tile + 1 - f.r
    g.ph, g.pw = p.dilation[1], p.dilation[2]
    if transposed:
        w.rows, w.channels, w.w_row, w.w_channel, w.activation = p.C // p.groups, p.K // p.groups, weight.c, weight.k, 0
        w.w_group = w.channels * weight.k
        make_axis(&g.h, t, p.out[1], 0, g.ph, 1, 0)
        make_axis(&g.w, t, p.out[2], 0, g.pw, 1, 0)
        g.dh, g.dw, g.sh, g.sw = p.size[1], p.size[2], p.stride[1], p.stride[2]
        # Position i of dx belongs to phase (i + low) mod stride and to grid row (i + low) // stride, counted from that of position 0.
        g.oh = (g.dh - 1 + p.low[1]) // g.sh - p.low[1] // g.sh + 1
        g.ow = (g.dw - 1 + p.low[2]) // g.sw - p.low[2] // g.sw + 1
        w.source_phases.h[0], w.source_phases.w[0] = p.low[1] // g.sh - (f.r - 1) * g.ph, p.low[2] // g.sw - (f.r - 1) * g.pw
        shift_phases(f, p.low[1] // g.sh * g.sh, p.low[2] // g.sw * g.sw)
        g.yn = p.C * g.dh * g.dw
    else:
        w.rows, w.channels, w.w_row, w.w_channel, w.activation = p.K // p.groups, p.C // p.groups, weight.k, weight.c, p.activation
        w.w_group = w.rows * weight.k
        make_axis(&g.h, t, p.size[1], 0, p.stride[1] * g.ph, 1, p.mode)
        make_axis(&g.w, t, p.size[2], 0, p.stride[2] * g.pw, 1, p.mode)
        g.oh, g.ow, g.dh, g.dw, g.sh, g.sw = p.out[1], p.out[2], p.out[1], p.out[2], 1, 1
        g.yn = p.K * g.dh * g.dw
    g.yh = g.dw
    g.yc = g.dh * g.dw
    if g.ph * g.pw > 1:  # stride 1: every phase of the dilation is a map of its own
        g.oh, g.ow, g.sh, g.sw = ceil_div(g.dh, g.ph), ceil_div(g.dw, g.pw), g.ph, g.pw
    w.short_w = short_w
    fc_cut_tiles(g, p.N * g.ph * g.pw, short_h, short_w)


cdef void shift_phases(Phases *f, ix h, ix w) noexcept nogil:
    cdef ix i
    for i in range(f.count):
        f.h[i] += h
        f.w[i] += w


cdef object run_winograd(real *y, Shape p, fc_source *source, Weights *weight, const void *bias, bint transposed, int threads, ix tile, ix short_h, ix short_w):
    cdef Winograd w
    cdef Tables t = Tables(p)
    describe_winograd(&w, t, p, source, weight, bias, transposed, tile, short_h, short_w)
    with nogil:
        winograd(y, &w, threads)


def winograd_forward(cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray y, Shape shape, int threads, ix tile, ix short_h, ix short_w):
    """`conv_forward` for 2-d kernels; strided or dilated, not both. `tile`: points along an axis of it; 6 serve 2 to 5 taps an axis in every phase of the
    stride, 8 serve 3 to 7. short_h, short_w: how many of the tiles down a map and across it are short, no more than hang over its end."""
    cdef fc_source source
    cdef Weights w
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(y)
    make_source(&source, x, shape, shape.C, shape.size, "x")
    make_weights(&w, weight, shape)
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_winograd(<float *> cnp.PyArray_DATA(y), shape, &source, &w, b, False, threads, tile, short_h, short_w)
    else:
        run_winograd(<double *> cnp.PyArray_DATA(y), shape, &source, &w, b, False, threads, tile, short_h, short_w)


def winograd_backward_input(cnp.ndarray dy, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray dx, Shape shape, int threads, ix tile, ix short_h, ix short_w):
    """`conv_backward_input` for the same problems, zero padding."""
    cdef fc_source source
    cdef Weights w
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(dx)
    make_source(&source, dy, shape, shape.K, shape.out, "dy")
    make_weights(&w, weight, shape)
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        run_winograd(<float *> cnp.PyArray_DATA(dx), shape, &source, &w, b, True, threads, tile, short_h, short_w)
    else:
        run_winograd(<double *> cnp.PyArray_DATA(dx), shape, &source, &w, b, True, threads, tile, short_h, short_w)
