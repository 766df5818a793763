# Winograd's algorithm along one axis (native/winograd1d.h): the sum of correlate.pxi, described by the same structure, with the taps along one axis transformed.
#
# A task is a band: some rows of one sample's outputs, for one group. A channel's rows are staged (native/pack.h) and at once transformed; then filters, a few at a
# time, pass over blocks of lanes, whose outputs are held back in a first-level cache until they are finished and written in rows.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_wino1:
        ix n, m
        int across
        ix pitch, lanes, rows, width, channel, yh, yw
    ix wino1_filters_at_once_f32(ix n)
    ix wino1_filters_at_once_f64(ix n)
    void wino1_down_f32(float *T, ix plane, ix pitch, const float *strip, ix row, ix tiles, ix width, ix n, ix m)
    void wino1_down_f64(double *T, ix plane, ix pitch, const double *strip, ix row, ix tiles, ix width, ix n, ix m)
    void wino1_across_f32(float *T, ix plane, ix pitch, const float *strip, ix row, ix rows, ix tiles, ix n, ix m)
    void wino1_across_f64(double *T, ix plane, ix pitch, const double *strip, ix row, ix rows, ix tiles, ix n, ix m)
    void wino1_filters_f32(float **U, const ix *step, const float *taps, ix rows, ix count, ix n, ix m)
    void wino1_filters_f64(double **U, const ix *step, const double *taps, ix rows, ix count, ix n, ix m)
    int wino1_sum_f32(const fc_wino1 *g, ix f, ix steps, const float *U, const float *T, const ix *reach, ix plane, ix vectors, const float *bias, float *held, ix ld,
                      float *sums, int goes_on, int last)
    int wino1_sum_f64(const fc_wino1 *g, ix f, ix steps, const double *U, const double *T, const ix *reach, ix plane, ix vectors, const double *bias, double *held, ix ld,
                      double *sums, int goes_on, int last)
    int wino1_brush_f32(const fc_wino1 *g, ix steps, const float *U, const float *T, const ix *reach, ix plane, ix lanes, const float *bias, float *out, ix ldm)
    int wino1_brush_f64(const fc_wino1 *g, ix steps, const double *U, const double *T, const ix *reach, ix plane, ix lanes, const double *bias, double *out, ix ldm)
    void wino1_fetch_f32(float *y, ix filters, ix a, ix b, const fc_wino1 *g)
    void wino1_put_f32(float *y, float *held, ix ld, ix filters, ix a, ix b, const fc_wino1 *g, int activation, int stream, float *row)
    void wino1_fetch_f64(double *y, ix filters, ix a, ix b, const fc_wino1 *g)
    void wino1_put_f64(double *y, double *held, ix ld, ix filters, ix a, ix b, const fc_wino1 *g, int activation, int stream, double *row)
    void wino1_mend_f32(float *y, ix a, ix b, const fc_wino1 *g, const fc_run *run, const fc_source *s, const char *source, const fc_axis *axis, ix channels,
                        const char *w, ix w_channel, const ix *tap, int w_swap, float bias, int activation)
    void wino1_mend_f64(double *y, ix a, ix b, const fc_wino1 *g, const fc_run *run, const fc_source *s, const char *source, const fc_axis *axis, ix channels,
                        const char *w, ix w_channel, const ix *tap, int w_swap, double bias, int activation)

cdef enum:
    WINO1_BAND_BYTES = 192 * 1024   # transformed rows of a band: a part of a second-level cache,
    WINO1_WIDE_BYTES = 448 * 1024   # a larger part where that fills vectors better
    WINO1_ROW_BYTES = 512 * 1024    # of a single row of tiles, or it is cut into pieces
    WINO1_NEAR_BYTES = 16 * 1024    # of the lanes that all filters pass over, and
    WINO1_PIECE_BYTES = 20 * 1024   # of the inputs of a line of lanes: if they are more, and
    WINO1_LINE = 64                 # bytes
    WINO1_PIECE_BATCHES = 3         # so many batches of filters read them, sums are taken in pieces
    WINO1_HELD_BYTES = 16 * 1024    # outputs that are held back: together a first-level cache
    WINO1_PIXELS = 256              # or so many by a vector of filters
    WINO1_WIDTH = 1024              # longest piece of a row
    WINO1_TURN = 12                 # multiplications of vectors that turning an output of VL filters round costs
    WINO1_BRUSH_BYTES = 24 * 1024   # weights of a vector of filters that stay in a first-level cache from a few lanes to the next; of others, products take half as long again
    WINO1_PACK = 512                # taps of a panel that are packed at a time, about
    WINO1_STREAM = 128              # outputs of a row that are worth writing past the caches, at least


cdef struct Wino1:
    fc_wino1 g
    ix axis                    # along which tiles lie: 1 or 2
    ix r
    Bands bands                # `strip` and the tables aside
    ix planes                  # of a staged channel's depth
    ix row, strip_plane, strip # staged elements: from row to row, of a plane, of a channel
    ix per_channel, plane, unit   # units of a channel; elements from point to point, from unit to unit
    ix steps, per_step         # terms of the sums; of a channel
    ix tile_rows, tiles        # of a full band
    ix at_once, batches        # filters that share a load, or VL if they are the lanes; how often that many
    int brush                  # filters are the lanes
    int flat                   # lanes run over the ends of rows
    ix block                   # lanes that all filters pass over, one after the other
    ix brush_rows              # rows of tiles whose outputs of a vector of filters are held back
    ix held                    # elements of what is
    ix piece                   # steps of the sums that they take at once
    ix sums                    # elements in which the sums of a piece wait for the next one
    ix *reach                  # [steps]
    ix *taps                   # [per_step][r]
    int stream, fetch          # outputs go past the caches, or their lines are fetched early


cdef ix wino1_vectors(ix rows, ix pitch, ix lanes, ix vl) noexcept nogil:
    """Vectors of lanes in so many rows: each by itself, or one run over the ends of rows."""
    return smaller(rows * ceil_div(lanes, vl), ceil_div((rows - 1) * pitch + lanes, vl)) if rows > 0 else 0


cdef ix wino1_rows(ix rows, ix most, ix total, ix pitch, ix lanes, ix vl) noexcept nogil:
    """Rows of a band, of `total`: those of bands of at most `rows` each, or of at most `most` if that saves a sixteenth of the vectors or more."""
    cdef ix bands = ceil_div(total, larger(rows, 1)), found = ceil_div(total, bands), fewest = 0, count, vectors
    for count in range(bands, ceil_div(total, larger(most, 1)) - 1, -1):
        rows = ceil_div(total, count)
        vectors = total // rows * wino1_vectors(rows, pitch, lanes, vl) + wino1_vectors(total % rows, pitch, lanes, vl)
        if count == bands or 16 * vectors <= 15 * fewest:
            found, fewest = rows, vectors
    return found


cdef void plan_wino1(real *tag, Correlation *c, Wino1 *w, size_t *shared, size_t *tables, size_t *per_thread) noexcept nogil:
    """Sizes from the problem of one sample alone. Fills the derived fields of `c` and `w` but the tables."""
    cdef ix vl = vector_lanes(tag), size = sizeof(real), units, pieces, bytes, aligned, flat, lanes, brushes, near
    cdef fc_axis *ad = &c.axis[0]
    cdef fc_axis *ah = &c.axis[1]
    cdef fc_axis *aw = &c.axis[2]
    cdef fc_axis *along = &c.axis[w.axis]
    cdef Bands *b = &w.bands
    cdef ix oh = c.grid.oh, ow = c.grid.ow
    c.taps = ad.taps * ah.taps * aw.taps
    c.reduction = c.channels * c.taps
    w.g.across = w.axis == 2
    fc_axis_stage(along, <ix> 1 << 40)  # taps of a residue together, however few the outputs
    along.extra = larger(along.extra, 1)
    w.r = along.extra + 1
    w.g.n = 6 if w.r <= 5 else 8
    w.g.m = w.g.n + 1 - w.r
    fc_axis_stage(ad, 1)
    w.planes = ad.pieces * (1 + ad.extra)
    fc_axis_stage(&c.axis[3 - w.axis], ow if w.axis == 1 else oh)
    units = c.channels * w.planes * ah.pieces * aw.pieces
    if w.g.across:
        bytes = larger(units, 1) * w.g.n * size * (1 + ah.extra)  # of a tile
        w.tiles = ceil_div(ow, w.g.m)
        pieces = ceil_div(w.tiles, larger(vl, smaller(WINO1_WIDTH, WINO1_ROW_BYTES // bytes) // vl * vl))
        if pieces > 1:
            w.tiles = ceil_div(ceil_div(w.tiles, pieces), vl) * vl
        b.width = w.tiles * w.g.m if pieces > 1 else ow
        bytes = bytes // (1 + ah.extra) * w.tiles
        b.rows = larger(WINO1_BAND_BYTES // bytes - ah.extra, smaller(oh, 2 * (1 + ah.extra)))
        b.rows = wino1_rows(b.rows, WINO1_WIDE_BYTES // bytes - ah.extra, oh, w.tiles, w.tiles, vl)
        w.tile_rows = b.rows
    else:
        bytes = larger(units, 1) * w.g.n * size
        pieces = larger(ceil_div(ow, WINO1_WIDTH), ceil_div(bytes * ow, WINO1_ROW_BYTES))
        b.width = ow if pieces == 1 else ceil_div(ceil_div(ow, pieces), vl) * vl
        w.tiles = b.width
        bytes *= b.width + aw.extra
        w.tile_rows = wino1_rows(WINO1_BAND_BYTES // bytes, WINO1_WIDE_BYTES // bytes, ceil_div(oh, w.g.m), b.width + aw.extra, b.width, vl)
        b.rows = w.tile_rows * w.g.m
    b.pieces = ceil_div(ow, b.width)
    b.bands = ceil_div(oh, b.rows)
    c.grid.max_runs, c.grid.max_rows, c.grid.max_width = 1, b.rows, w.tiles * w.g.m if w.g.across else b.width
    fc_axis_stage(&c.axis[3 - w.axis], b.width if w.axis == 1 else b.rows)
    w.row = aw.pieces * (c.grid.max_width + aw.extra)
    w.strip_plane = (c.grid.max_rows + ah.extra) * w.row
    w.strip = padded(w.planes * ah.pieces * w.strip_plane + (w.g.m + 1) * vl + 16)  # a vector of tiles may be read past the last one
    w.g.pitch = w.tiles if w.g.across else b.width + aw.extra
    w.per_channel = w.planes * ah.pieces * aw.pieces
    w.plane = unaliased((w.tile_rows + (ah.extra if w.g.across else 0)) * w.g.pitch + 2 * vl)
    w.unit = w.g.n * w.plane
    w.per_step = ad.taps * (ah.taps * aw.pieces if w.g.across else ah.pieces * aw.taps)
    w.steps = c.channels * w.per_step
    w.g.channel, w.g.yh, w.g.yw = c.y_channel, c.grid.yh, c.grid.yw
    # Lanes multiplied: vectors of columns or tiles, which may run over the ends of rows, for every filter; or all filters, rounded up to vectors, for every lane.
    lanes = w.tiles
    aligned, flat = w.tile_rows * ceil_div(lanes, vl), ceil_div((w.tile_rows - 1) * w.g.pitch + lanes, vl)
    w.flat = flat < aligned
    brushes = ceil_div(c.rows, vl)
    w.brush = not w.g.across and w.steps > 0 and c.grid.yw == 1 and c.grid.yh == ow and b.pieces == 1 and (
        brushes * w.tile_rows * lanes * ((1 if w.steps * w.g.n * vl * size <= WINO1_BRUSH_BYTES else 1.5) + <double> (w.g.m * WINO1_TURN) / (w.steps * w.g.n))
        < c.rows * (flat if w.flat else aligned))
    units = c.channels * w.per_channel
    w.at_once = wino1_filters_at_once_f32(w.g.n) if real is float else wino1_filters_at_once_f64(w.g.n)
    if w.brush:
        w.at_once = vl
    w.batches = ceil_div(c.rows, w.at_once)
    w.brush_rows = smaller(w.tile_rows, larger(1, WINO1_PIXELS // (w.g.m * lanes)))
    bytes = w.at_once * w.g.m * size
    w.block = smaller(WINO1_NEAR_BYTES // (larger(units, 1) * w.g.n * size), WINO1_HELD_BYTES // bytes) // vl * vl
    near = larger(vl, WINO1_LINE // size)  # lanes of a line, all of which comes when one does
    w.block = larger(near, smaller(w.block, ceil_div((w.tile_rows - 1) * w.g.pitch + lanes if w.flat else lanes, vl) * vl))
    # Where the inputs of a line of lanes exceed a first-level cache, all filters pass over a piece of the sum before the next.
    w.piece = larger(1, w.steps)
    if not w.brush:
        w.piece = ceil_div(w.piece, larger(1, units * w.g.n * near * size // WINO1_PIECE_BYTES) if w.batches >= WINO1_PIECE_BATCHES else 1)
    w.sums = 0 if w.piece >= w.steps else padded(w.batches * w.at_once * w.g.n * w.block)
    shared[0] = <size_t> padded(c.groups * (w.batches * vl if w.brush else c.rows) * w.steps * w.g.n) * size
    tables[0] = <size_t> padded(w.steps + w.per_step * w.r) * sizeof(ix)
    w.held = padded((w.brush_rows * w.g.m * lanes + vl) * vl if w.brush else w.at_once * w.g.m * w.block + vl)
    bytes = w.held + padded((w.tiles + vl) * w.g.m)
    bytes += padded(w.strip) + padded(units * w.unit) + w.sums
    bytes = larger(bytes, padded((1 + WINO1_PACK // larger(1, w.per_step * w.r)) * w.per_step * w.r * tile_mr(tag)))
    per_thread[0] = (<size_t> bytes * size + 127) // 64 * 64


cdef void tabulate_wino1(Correlation *c, Wino1 *w) noexcept nogil:
    """Where the lanes of each step of the sums begin, and which taps it has: steps are numbered (channel, depth, the other two axes in order)."""
    cdef fc_axis *ad = &c.axis[0]
    cdef fc_axis *ah = &c.axis[1]
    cdef fc_axis *aw = &c.axis[2]
    cdef fc_axis *along = &c.axis[w.axis]
    cdef ix i, j, k, t, n = 0, at, piece, channel
    for i in range(ad.taps):
        for j in range(ah.taps if w.g.across else ah.pieces):
            for k in range(aw.pieces if w.g.across else aw.taps):
                piece = k if w.g.across else j
                at = (ad.tap_piece[i] * (1 + ad.extra) + ad.tap_delta[i]) * ah.pieces
                at = (at + (ah.tap_piece[j] if w.g.across else j)) * aw.pieces + (k if w.g.across else aw.tap_piece[k])
                w.reach[n] = at * w.unit + (ah.tap_delta[j] * w.g.pitch if w.g.across else aw.tap_delta[k])
                for t in range(w.r):
                    w.taps[n * w.r + t] = FC_NO_TAP
                for t in range(along.taps):
                    if along.tap_piece[t] == piece:
                        w.taps[n * w.r + along.tap_delta[t]] = c.w_tap[(i * ah.taps + (j if w.g.across else t)) * aw.taps + (t if w.g.across else k)]
                n += 1
    for channel in range(1, c.channels):
        for i in range(n):
            w.reach[channel * n + i] = w.reach[i] + channel * w.per_channel * w.unit


cdef void wino1_panel(real *U, Correlation *c, Wino1 *w, ix unit, real *packed) noexcept nogil:
    """Transform MR filters of a group; units are numbered (group, panel)."""
    cdef ix mr = tile_mr(U), g = unit // c.panels, first = unit % c.panels * mr, rows = smaller(mr, c.rows - first), i, row, batch, begin, channel = 0, count
    cdef const char *data = c.weight + g * c.w_group + first * c.w_row
    cdef real *to[8]
    cdef ix step[8]
    U += g * (w.batches * w.at_once if w.brush else c.rows) * w.steps * w.g.n
    for i in range(rows):
        row = first + i
        if w.brush:
            batch, begin, step[i] = row // w.at_once, row // w.at_once * w.at_once, w.at_once
        else:
            batch = ((row + 1) * w.batches - 1) // c.rows
            begin = batch * c.rows // w.batches
            step[i] = (batch + 1) * c.rows // w.batches - begin
        to[i] = U + begin * w.steps * w.g.n + row - begin
    while channel < c.channels and w.per_step > 0:
        count = smaller(c.channels - channel, 1 + WINO1_PACK // (w.per_step * w.r))
        if real is float:
            pack_weights_f32(packed, data + channel * c.w_channel, rows, c.w_row, count, c.w_channel, w.taps, w.per_step * w.r, c.w_swap)
            wino1_filters_f32(to, step, packed, rows, count * w.per_step, w.g.n, w.g.m)
        else:
            pack_weights_f64(packed, data + channel * c.w_channel, rows, c.w_row, count, c.w_channel, w.taps, w.per_step * w.r, c.w_swap)
            wino1_filters_f64(to, step, packed, rows, count * w.per_step, w.g.n, w.g.m)
        for i in range(rows):
            to[i] += count * w.per_step * w.g.n * step[i]
        channel += count


cdef void wino1_transform(real *T, Correlation *c, Wino1 *w, ix g, fc_run *run, real *strip) noexcept nogil:
    """All channels of a group, for one band."""
    cdef fc_axis *ah = &c.axis[1]
    cdef fc_axis *aw = &c.axis[2]
    cdef fc_run whole = run[0]
    cdef fc_block block
    cdef ix channel, p, k, rows = run.rows + ah.extra, tiles = ceil_div(run.width, w.g.m)
    cdef const char *plane
    cdef real *source
    if w.g.across:
        whole.width = tiles * w.g.m
    else:
        tiles = ceil_div(run.rows, w.g.m)
        whole.rows = tiles * w.g.m
    block.runs, block.run = 1, &whole
    for channel in range(c.channels):
        plane = c.source.data + (g * c.channels + channel) * c.source.c
        if real is float:
            stage_f32(strip, &c.source, plane, c.axis, &block, c.grid.max_rows, c.grid.max_width)
        else:
            stage_f64(strip, &c.source, plane, c.axis, &block, c.grid.max_rows, c.grid.max_width)
        for p in range(w.planes * ah.pieces):
            for k in range(aw.pieces):
                source = strip + p * w.strip_plane + k * (c.grid.max_width + aw.extra)
                if real is float:
                    if w.g.across:
                        wino1_across_f32(T, w.plane, w.g.pitch, source, w.row, rows, tiles, w.g.n, w.g.m)
                    else:
                        wino1_down_f32(T, w.plane, w.g.pitch, source, w.row, tiles, run.width + aw.extra, w.g.n, w.g.m)
                else:
                    if w.g.across:
                        wino1_across_f64(T, w.plane, w.g.pitch, source, w.row, rows, tiles, w.g.n, w.g.m)
                    else:
                        wino1_down_f64(T, w.plane, w.g.pitch, source, w.row, tiles, run.width + aw.extra, w.g.n, w.g.m)
                T += w.unit


cdef void wino1_mend(real *y, Correlation *c, Wino1 *w, fc_wino1 *band, fc_run *run, ix g, ix first, ix filters, ix a, ix b, const real *bias) noexcept nogil:
    """Outputs of lanes [a, b) that are not finite, of filters from `first` on, at y."""
    cdef ix i
    for i in range(filters):
        if real is float:
            wino1_mend_f32(y + i * c.y_channel, a, b, band, run, &c.source, c.source.data + g * c.channels * c.source.c, c.axis, c.channels,
                           c.weight + g * c.w_group + (first + i) * c.w_row, c.w_channel, c.w_tap, c.w_swap, bias[i], c.activation)
        else:
            wino1_mend_f64(y + i * c.y_channel, a, b, band, run, &c.source, c.source.data + g * c.channels * c.source.c, c.axis, c.channels,
                           c.weight + g * c.w_group + (first + i) * c.w_row, c.w_channel, c.w_tap, c.w_swap, bias[i], c.activation)


cdef void wino1_block(real *y, Correlation *c, Wino1 *w, fc_wino1 *band, fc_run *run, const real *U, const real *T, ix g, ix batch, ix a, ix b, ix step, ix count,
                      real *held, real *row, real *sums) noexcept nogil:
    """Lanes [a, b) of a band by one batch of filters: terms [step, step + count) of the sums. y: the band's first output of the group's first filter."""
    cdef ix vl = vector_lanes(y), first = batch * c.rows // w.batches, filters = (batch + 1) * c.rows // w.batches - first, i
    cdef int finite, last = step + count == w.steps
    cdef real bias[4]
    for i in range(filters):
        bias[i] = (<const real *> c.bias)[g * c.rows + first + i] if c.bias != NULL else 0
    y += first * c.y_channel
    U += first * w.steps * w.g.n + step * w.g.n * filters
    sums += first * w.g.n * w.block
    if real is float:
        if last and w.fetch:
            wino1_fetch_f32(y, filters, a, b, band)
        finite = wino1_sum_f32(band, filters, count, U, T + a, w.reach + step, w.plane, ceil_div(b - a, vl), bias, held, w.block, sums, step > 0, last)
        if last:
            wino1_put_f32(y, held, w.block, filters, a, b, band, c.activation if finite else 0, w.stream and finite, row)
    else:
        if last and w.fetch:
            wino1_fetch_f64(y, filters, a, b, band)
        finite = wino1_sum_f64(band, filters, count, U, T + a, w.reach + step, w.plane, ceil_div(b - a, vl), bias, held, w.block, sums, step > 0, last)
        if last:
            wino1_put_f64(y, held, w.block, filters, a, b, band, c.activation if finite else 0, w.stream and finite, row)
    if last and not finite:
        wino1_mend(y, c, w, band, run, g, first, filters, a, b, bias)


cdef void wino1_bristles(real *y, Correlation *c, Wino1 *w, fc_wino1 *band, fc_run *run, const real *U, const real *T, ix g, ix batch, ix line, ix count,
                         real *held) noexcept nogil:
    """Rows of tiles [line, line + count) of a band by a vector of filters, whose outputs are turned round."""
    cdef ix vl = vector_lanes(y), first = batch * vl, filters = smaller(vl, c.rows - first), i, row = w.g.m * run.width * vl
    cdef ix pixels = (smaller((line + count) * w.g.m, run.rows) - line * w.g.m) * run.width
    cdef int finite = 1
    cdef real bias[16]
    for i in range(vl):
        bias[i] = (<const real *> c.bias)[g * c.rows + first + i] if c.bias != NULL and i < filters else 0
    U += first * w.steps * w.g.n
    for i in range(count):
        if real is float:
            finite &= wino1_brush_f32(band, w.steps, U, T + (line + i) * w.g.pitch, w.reach, w.plane, run.width, bias, held + i * row, run.width * vl)
        else:
            finite &= wino1_brush_f64(band, w.steps, U, T + (line + i) * w.g.pitch, w.reach, w.plane, run.width, bias, held + i * row, run.width * vl)
    y += first * c.y_channel
    if real is float:
        if finite and c.activation:
            activate_f32(held, pixels * vl, c.activation)
        sheaf_out_f32(y + line * w.g.m * c.grid.yh, c.y_channel, filters, held, pixels)
    else:
        if finite and c.activation:
            activate_f64(held, pixels * vl, c.activation)
        sheaf_out_f64(y + line * w.g.m * c.grid.yh, c.y_channel, filters, held, pixels)
    if not finite:
        wino1_mend(y, c, w, band, run, g, first, filters, line * w.g.pitch, (line + count) * w.g.pitch, bias)


cdef void wino1_task(real *y, Correlation *c, Wino1 *w, const real *U, real *memory, ix id, ix part, ix parts) noexcept nogil:
    """One band, for one group, by one of `parts` shares of its filters."""
    cdef ix g = id % c.groups, lines, line = 0, a, b, last, batch, step
    cdef ix first_batch = part * w.batches // parts, last_batch = (part + 1) * w.batches // parts
    cdef real *T = memory
    cdef real *held = T + padded(c.channels * w.per_channel * w.unit)
    cdef real *row = held + w.held
    cdef real *sums = row + padded((w.tiles + vector_lanes(y)) * w.g.m)
    cdef real *strip = sums + w.sums
    cdef fc_run run
    cdef fc_wino1 band = w.g
    band_at(&w.bands, &c.grid, id // c.groups, &run)
    wino1_transform(T, c, w, g, &run, strip)
    band.rows, band.width = run.rows, run.width
    band.lanes = ceil_div(run.width, w.g.m) if w.g.across else run.width
    lines = run.rows if w.g.across else ceil_div(run.rows, w.g.m)
    y += run.n * c.grid.yn + g * c.rows * c.y_channel + run.od * c.grid.yd + run.oh * c.grid.yh + run.q * c.grid.yw
    U += g * (w.batches * w.at_once if w.brush else c.rows) * w.steps * w.g.n
    if w.brush:
        for batch in range(first_batch, last_batch):
            line = 0
            while line < lines:
                wino1_bristles(y, c, w, &band, &run, U, T, g, batch, line, smaller(w.brush_rows, lines - line), held)
                line += w.brush_rows
        return
    for line in range(1 if w.flat else lines):
        a = line * w.g.pitch
        last = (lines - 1) * w.g.pitch + band.lanes if w.flat else a + band.lanes
        while a < last:
            b = smaller(a + w.block, last)
            step = 0
            while True:  # once for a sum of nothing, too
                for batch in range(first_batch, last_batch):
                    wino1_block(y, c, w, &band, &run, U, T, g, batch, a, b, step, smaller(w.piece, w.steps - step), held, row, sums)
                step += w.piece
                if step >= w.steps:
                    break
            a = b
    if w.stream:
        fc_stream_end()


cdef int wino1_correlate(real *y, Correlation *c, ix axis, int threads) except -1 nogil:
    """The sum that `correlate` computes, with tiles along an axis (1 or 2) whose taps lie in steps of one output."""
    cdef Wino1 w
    cdef size_t shared, tables, per_thread
    cdef ix pixels = c.grid.samples * c.grid.od * c.grid.oh * c.grid.ow, task, tasks, parts = 1
    cdef char *memory
    cdef char *own
    if pixels == 0 or c.groups * c.rows == 0:
        return 0
    w.axis = axis
    plan_wino1(y, c, &w, &shared, &tables, &per_thread)
    c.panels = ceil_div(c.rows, tile_mr(y))
    w.stream = c.grid.yw == 1 and w.bands.width >= WINO1_STREAM and streams(pixels * c.groups * c.rows * sizeof(real))
    w.fetch = c.grid.yw == 1 and not w.stream
    if 2.0 * pixels * c.groups * c.rows * c.reduction < SERIAL_FLOPS:
        threads = 1
    memory = <char *> take_scratch(shared + tables + threads * per_thread + 64)
    w.reach = <ix *> (memory + shared)
    w.taps = w.reach + w.steps
    own = memory + shared + tables
    tabulate_wino1(c, &w)
    if w.brush:
        memset(memory, 0, shared)  # lanes without a filter
    for task in range(c.groups * c.panels):
        wino1_panel(<real *> memory, c, &w, task, <real *> own)
    tasks = c.grid.samples * c.grid.od * w.bands.bands * w.bands.pieces * c.groups
    if threads == 1:
        for task in range(tasks):
            wino1_task(y, c, &w, <real *> memory, <real *> own, task, 0, 1)
    else:
        if tasks < 2 * threads:  # every share transforms the band again
            parts = smaller(ceil_div(2 * threads, tasks), w.batches)
        for task in prange(tasks * parts, num_threads=threads, schedule="dynamic", chunksize=1 + tasks // (16 * threads)):
            wino1_task(y, c, &w, <real *> memory, <real *> (own + threadid() * per_thread), task // parts, task % parts, parts)
    fc_scratch_give(memory)
    return 0


cdef size_t wino1_bytes(real *tag, str direction, Shape p, int threads, ix axis) except? 0:
    """Scratch; the same for every N."""
    cdef Tables t = Tables(p)
    cdef fc_source source
    cdef Weights weights
    cdef Correlation c
    cdef Wino1 w
    cdef size_t shared, tables, per_thread
    memset(&source, 0, sizeof(source))
    memset(&weights, 0, sizeof(weights))
    describe_forward(&c, t, p, &source, &weights, NULL)
    if direction == "backward_input":
        largest_phase(&c, p)
        if p.stride[0] * p.stride[1] * p.stride[2] == 1:  # one phase, whose rows lie behind one another
            c.grid.yh = c.grid.ow
    w.axis = axis
    plan_wino1(tag, &c, &w, &shared, &tables, &per_thread)
    return shared + tables + threads * per_thread + (padded_bytes(p, sizeof(real)) if direction == "backward_input" else 0)


def winograd1d_scratch(str direction, int itemsize, Shape shape, int threads, ix axis):
    """Bytes of scratch of "forward" or "backward_input" by Winograd's algorithm along `axis`."""
    if itemsize == 4:
        return wino1_bytes(<float *> NULL, direction, shape, threads, axis)
    return wino1_bytes(<double *> NULL, direction, shape, threads, axis)


def winograd1d_forward(cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray y, Shape shape, int threads, ix axis):
    """`conv_forward` with tiles along `axis` (1 or 2 of three): 2 to 7 taps of a phase of its stride, not dilated."""
    cdef fc_source source
    cdef Weights w
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(y)
    make_source(&source, x, shape, shape.C, shape.size, "x")
    make_weights(&w, weight, shape)
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
        run_forward(<float *> cnp.PyArray_DATA(y), shape, &source, &w, b, BY_TILES + axis, threads)
    else:
        run_forward(<double *> cnp.PyArray_DATA(y), shape, &source, &w, b, BY_TILES + axis, threads)


def winograd1d_backward_input(cnp.ndarray dy, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray dx, Shape shape, int threads, ix axis):
    """`conv_backward_input` for the same problems."""
    cdef fc_source source
    cdef Weights w
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(dx)
    make_source(&source, dy, shape, shape.K, shape.out, "dy")
    make_weights(&w, weight, shape)
    if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
        backward_input_by(BY_TILES + axis, <float *> cnp.PyArray_DATA(dx), shape, &source, &w, b, threads)
    else:
        backward_input_by(BY_TILES + axis, <double *> cnp.PyArray_DATA(dx), shape, &source, &w, b, threads)
