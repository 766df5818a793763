# Depthwise convolution (native/depthwise.h): every plane of the result is one plane of the source under one filter, so nothing is summed over channels and there
# is nothing to pack but the few weights. What counts is that short rows cost little.
#
# A task is a chunk of neighbouring planes, or for large ones a band of rows (and a piece of long rows) of a single plane. Small planes are taken in sheaves,
# with planes as lanes.

cdef extern from "native/kernels.h" nogil:
    ctypedef struct fc_comb:
        ix taps, step, phases, out, low, high
        ix *offset
        ix *phase
    ctypedef struct fc_span:
        ix nv
    ctypedef struct fc_planes:
        fc_comb h, w
        ix second, pitch, y_pitch
        ix first "from", to
        fc_span *spans
        ix span_count
        int rolls
    int fc_planes_roll(const fc_planes *p)
    void cut_spans_f32(fc_planes *p, ix start, ix to, unsigned short *mask, int whole)
    void cut_spans_f64(fc_planes *p, ix start, ix to, unsigned short *mask, int whole)
    void planes_f32(const fc_planes *p, ix count, const float *const *source, const float *const *weight, const float *bias, float *const *result)
    void planes_f64(const fc_planes *p, ix count, const double *const *source, const double *const *weight, const double *bias, double *const *result)
    void planes_slopes_f32(const fc_planes *p, const float *source, const float *dy, float *sums)
    void planes_slopes_f64(const fc_planes *p, const double *source, const double *dy, double *sums)
    void sheaf_in_f32(float *grid, const ix *position, const float *const *plane, ix pixels)
    void sheaf_in_f64(double *grid, const ix *position, const double *const *plane, ix pixels)
    void sheaf_f32(const fc_planes *p, const float *x, const float *w, const float *bias, float *y)
    void sheaf_f64(const fc_planes *p, const double *x, const double *w, const double *bias, double *y)
    void sheaf_slopes_f32(const fc_planes *p, const float *x, const float *dy, const ix *reach, float *sums)
    void sheaf_slopes_f64(const fc_planes *p, const double *x, const double *dy, const ix *reach, double *sums)
    void pack_filter_f32(float *dst, const char *src, ix count, ix step, int swap)
    void pack_filter_f64(double *dst, const char *src, ix count, ix step, int swap)
    void fold_planes_f32(float *dst, const float *sums, ix count)
    void fold_planes_f64(double *dst, const double *sums, ix count)
    void stage_rows_f32(float *dst, ix pitch, const char *plane, ix stride_h, ix stride, int swap, const fc_axis *ah, ix index, ix rows, const fc_axis *aw, ix start,
                        ix count)
    void stage_rows_f64(double *dst, ix pitch, const char *plane, ix stride_h, ix stride, int swap, const fc_axis *ah, ix index, ix rows, const fc_axis *aw,
                        ix start, ix count)

cdef enum:
    PLANE_OUTPUTS = 16384      # of a task: inputs and outputs stay in a second-level cache
    PLANE_ROWS = 32            # least rows of a band: each band reads the taps' overhang again
    PLANE_WIDTH = 1024         # longest piece of a row
    SLOPE_BYTES = 16 * 1024    # partial sums of a task: half of a first-level cache
    SHEAF_PIXELS = 1024        # of a grid, each a vector
    # Costs in multiplications of vectors, chosen on planes of 4 to 28 pixels with 3 to 7 taps, with strides 1 and 2
    TURN = 10
    COMB = 4
    ROW = 12
    PLANE = 60


cdef struct Depthwise:
    fc_planes planes
    fc_axis axis[2]        # the source's rows and columns, read one by one
    fc_source source
    ix samples, channels   # planes of the result in a sample
    ix shared              # that read the same plane of the source
    int staged
    ix rows, width, bands, pieces, chunk
    ix pitch, window       # of a staged band: a row, all rows
    size_t spans, masks
    ix *order              # of the taps along height and width
    int sheaves
    ix top, left, grid_rows, grid_columns   # of the grid: a plane of the source and all that taps reach around it
    ix seen_rows, seen_columns              # of the source that are copied there, from (0, 0), or all of the grid if other things than zeros lie outside
    ix *position                            # in the grid, of each pixel
    ix *reach                               # pixels from the first tap of an output to each tap


cdef ix lowest(const fc_comb *c) noexcept nogil:
    cdef ix t, low = c.offset[0]
    for t in range(1, c.taps):
        low = smaller(low, c.offset[t])
    return low


cdef ix reach_of(const fc_comb *c) noexcept nogil:
    """The furthest tap, seen from the lowest."""
    cdef ix t, high = c.offset[0]
    for t in range(1, c.taps):
        high = -smaller(-high, -c.offset[t])
    return high - lowest(c)


cdef void sort_taps(fc_comb *c, ix *order) noexcept nogil:
    """By phase, then offset."""
    cdef ix i, j
    for i in range(c.taps):
        order[i] = i
    for i in range(1, c.taps):
        j = i
        while j > 0 and (c.phase[j - 1] > c.phase[j] or (c.phase[j - 1] == c.phase[j] and c.offset[j - 1] > c.offset[j])):
            c.phase[j - 1], c.phase[j] = c.phase[j], c.phase[j - 1]
            c.offset[j - 1], c.offset[j] = c.offset[j], c.offset[j - 1]
            order[j - 1], order[j] = order[j], order[j - 1]
            j -= 1


cdef void describe_planes(Depthwise *d, Shape p, fc_source *source, ix *tables, int adjoint) noexcept nogil:
    """The forward sum (also that of the weights' gradient), or its adjoint. tables: 3 * (kernel height + width)."""
    cdef ix a, t, at = 0, extent
    cdef fc_comb *comb
    d.source, d.samples = source[0], p.N
    d.channels = p.C if adjoint else p.K
    d.shared = 1 if adjoint else p.K // p.groups
    d.order = tables + 2 * (p.kernel[1] + p.kernel[2])
    for a in range(1, 3):
        comb = &d.planes.h if a == 1 else &d.planes.w
        comb.taps, comb.offset, comb.phase = p.kernel[a], tables + 2 * at, tables + 2 * at + p.kernel[a]
        extent = p.out[a] if adjoint else p.size[a]
        comb.out, comb.low, comb.high = p.size[a] if adjoint else p.out[a], 0, extent
        comb.step, comb.phases = 1 if adjoint else p.stride[a], p.stride[a] if adjoint else 1
        if comb.out == 1:  # one output knows no step
            comb.step = 1
        d.axis[a - 1].size, d.axis[a - 1].step, d.axis[a - 1].mode = extent, 1, 0 if adjoint else p.mode
        for t in range(p.kernel[a]):
            comb.phase[t], comb.offset[t] = 0, t * p.dilation[a] - p.low[a]
            if adjoint:
                comb.phase[t] = (comb.offset[t] % p.stride[a] + p.stride[a]) % p.stride[a]
                comb.offset[t] = (comb.phase[t] - comb.offset[t]) // p.stride[a]
        sort_taps(comb, d.order + at)
        at += p.kernel[a]
        if d.axis[a - 1].mode:  # what lies outside exists
            comb.low, comb.high = lowest(comb), (comb.out - 1) * comb.step + lowest(comb) + reach_of(comb) + 1
    d.planes.second = 0
    while d.planes.second < d.planes.w.taps and d.planes.w.phase[d.planes.second] == 0:
        d.planes.second += 1
    d.planes.rolls = fc_planes_roll(&d.planes)


cdef int read_in_place(const fc_source *s, ix itemsize) noexcept nogil:
    """True if rows can be loaded as they lie, with lanes masked off that are outside."""
    return (VBYTES == 64 and not s.swap and s.w == itemsize and s.h % itemsize == 0 and s.c % itemsize == 0 and s.n % itemsize == 0
            and <size_t> s.data % itemsize == 0)


cdef void plan_planes(Depthwise *d, ix vl, ix itemsize) noexcept nogil:
    cdef fc_comb *h = &d.planes.h
    cdef fc_comb *w = &d.planes.w
    cdef ix outputs
    d.pieces = ceil_div(w.out, PLANE_WIDTH)
    d.width = w.out if d.pieces == 1 else PLANE_WIDTH
    d.rows = PLANE_OUTPUTS // d.width
    d.rows = PLANE_ROWS if d.rows < PLANE_ROWS else d.rows
    d.bands = ceil_div(h.out, d.rows)
    d.rows = ceil_div(ceil_div(h.out, d.bands), h.phases) * h.phases
    d.bands = ceil_div(h.out, d.rows)
    outputs = d.rows * d.width
    d.chunk = 1 if d.bands * d.pieces > 1 or 2 * outputs > PLANE_OUTPUTS else PLANE_OUTPUTS // outputs // 2 * 2
    d.staged = not (read_in_place(&d.source, itemsize) and d.axis[0].mode == 0)
    d.pitch = padded(ceil_div(d.width, w.phases) * w.step + reach_of(w) + 2 * vl)
    d.window = d.pitch * ((ceil_div(d.rows, h.phases) + 1) * h.step + reach_of(h) + 1)
    outputs = ceil_div(ceil_div(d.width, w.phases), vl)
    d.spans = (<size_t> outputs * sizeof(fc_span) + 63) // 64 * 64
    d.masks = (<size_t> outputs * w.taps * w.step * sizeof(short) + 63) // 64 * 64


cdef const real *plane_of(real *buffer, const Depthwise *d, fc_planes *band, ix n, ix channel, ix first, ix to) noexcept nogil:
    """Where element (0, 0) of a plane of the source lies, or would lie: the rows and columns that a band needs may be staged in `buffer`."""
    cdef const char *data = d.source.data + n * d.source.n + channel * d.source.c
    cdef fc_comb *h = &band.h
    cdef fc_comb *w = &band.w
    cdef ix top, bottom, left, right
    if not d.staged:
        band.pitch = d.source.h // <ix> sizeof(real)
        return <const real *> data
    top = band.first // h.phases * h.step + lowest(h)
    bottom = (band.to - 1) // h.phases * h.step + lowest(h) + reach_of(h) + 1
    top, bottom = -smaller(-top, -h.low), smaller(bottom, h.high)
    left = first // w.phases * w.step + lowest(w)
    right = (to - 1) // w.phases * w.step + lowest(w) + reach_of(w) + 1
    band.pitch = d.pitch
    if bottom > top:
        if real is float:
            stage_rows_f32(buffer, d.pitch, data, d.source.h, d.source.w, d.source.swap, &d.axis[0], top, bottom - top, &d.axis[1], left, right - left)
        else:
            stage_rows_f64(buffer, d.pitch, data, d.source.h, d.source.w, d.source.swap, &d.axis[0], top, bottom - top, &d.axis[1], left, right - left)
    return buffer - top * d.pitch - left


# ---- sheaves

cdef int plan_sheaf(Depthwise *d, ix vl) noexcept nogil:
    """Describe the grid; true if planes as lanes cost less than rows of pixels as lanes."""
    cdef fc_comb *h = &d.planes.h
    cdef fc_comb *w = &d.planes.w
    cdef ix taps = h.taps * w.taps, outputs = h.out * w.out, bottom, right, rows
    cdef double turned, by_rows
    d.top, d.left = smaller(0, lowest(h)), smaller(0, lowest(w))
    bottom = (h.out - 1) // h.phases * h.step + lowest(h) + reach_of(h) + 1
    right = (w.out - 1) // w.phases * w.step + lowest(w) + reach_of(w) + 1
    d.seen_rows, d.seen_columns = d.axis[0].size, d.axis[1].size
    if d.axis[0].mode:
        d.top, d.left = lowest(h), lowest(w)
        d.seen_rows, d.seen_columns = bottom - d.top, right - d.left
        d.grid_rows, d.grid_columns = d.seen_rows, d.seen_columns
    else:
        d.grid_rows = -smaller(-d.seen_rows, -bottom) - d.top
        d.grid_columns = -smaller(-d.seen_columns, -right) - d.left
    if d.grid_rows * d.grid_columns > SHEAF_PIXELS:
        return 0
    # In multiplications of vectors for a plane. Turning a pixel round costs TURN of them; a row of pixels has ROW besides its own, and combs take COMB times theirs.
    turned = (outputs * taps / (h.phases * w.phases) + TURN * (d.seen_rows * d.seen_columns + outputs)) / vl
    turned = turned * (ceil_div(d.channels, vl) * vl) / d.channels
    rows = ceil_div(ceil_div(w.out, w.phases), vl) * h.out
    by_rows = rows * (ROW + <double> taps * (1 if d.planes.rolls else COMB) / h.phases) + PLANE
    return turned < by_rows


cdef void tabulate_sheaf(Depthwise *d) noexcept nogil:
    cdef ix i, j, top = 0 if d.axis[0].mode else -d.top, left = 0 if d.axis[0].mode else -d.left
    for i in range(d.seen_rows):
        for j in range(d.seen_columns):
            d.position[i * d.seen_columns + j] = (top + i) * d.grid_columns + left + j
    for i in range(d.planes.h.taps):
        for j in range(d.planes.w.taps):
            d.reach[i * d.planes.w.taps + j] = d.planes.h.offset[i] * d.grid_columns + d.planes.w.offset[j]


cdef void fetch_sheaf(real *to, const ix *position, const fc_source *s, const fc_axis *axis, ix top, ix left, ix rows, ix columns, ix n, ix first, ix lanes,
                      ix shared, real *buffer) noexcept nogil:
    """Turn `lanes` planes round, from plane `first` of the result on (the last one stands in for those that lack)."""
    cdef ix vl = vector_lanes(to), l, channel, pixels = rows * columns
    cdef const real *plane[16]
    cdef const char *data
    cdef int in_place = (not s.swap and s.w == <ix> sizeof(real) and (rows == 1 or s.h == columns * <ix> sizeof(real)) and axis[0].mode == 0
                         and s.c % <ix> sizeof(real) == 0 and s.n % <ix> sizeof(real) == 0 and <size_t> s.data % sizeof(real) == 0)
    for l in range(vl):
        if l >= lanes or (l and shared > 1 and (first + l) % shared):
            plane[l] = plane[l - 1]
            continue
        data = s.data + n * s.n + (first + l if shared == 1 else (first + l) // shared) * s.c
        if in_place:
            plane[l] = <const real *> data
            continue
        plane[l] = buffer + l * pixels
        if real is float:
            stage_rows_f32(buffer + l * pixels, columns, data, s.h, s.w, s.swap, &axis[0], top, rows, &axis[1], left, columns)
        else:
            stage_rows_f64(buffer + l * pixels, columns, data, s.h, s.w, s.swap, &axis[0], top, rows, &axis[1], left, columns)
    if real is float:
        sheaf_in_f32(to, position, plane, pixels)
    else:
        sheaf_in_f64(to, position, plane, pixels)


cdef void fetch_grid(real *grid, const Depthwise *d, ix n, ix first, ix lanes, real *buffer) noexcept nogil:
    fetch_sheaf(grid, d.position, &d.source, d.axis, d.top if d.axis[0].mode else 0, d.left if d.axis[0].mode else 0, d.seen_rows, d.seen_columns, n, first,
                lanes, d.shared, buffer)


cdef void sheaf_task(real *y, const Depthwise *d, const real *packed, const real *bias, int activation, char *memory, ix id) noexcept nogil:
    cdef ix vl = vector_lanes(y), outputs = d.planes.h.out * d.planes.w.out, taps = d.planes.h.taps * d.planes.w.taps, sheaves = ceil_div(d.channels, vl)
    cdef ix at, first, lanes, l, last = smaller((id + 1) * d.chunk, d.samples * sheaves), pixels = d.grid_rows * d.grid_columns
    cdef real *grid = <real *> memory
    cdef real *result = grid + pixels * vl
    cdef real *constant = result + (outputs + vl) * vl
    cdef fc_planes planes = d.planes
    planes.pitch = d.grid_columns
    memset(grid, 0, pixels * vl * sizeof(real))  # what lies around a plane stays zero
    for at in range(id * d.chunk, last):
        first = at % sheaves * vl
        lanes = smaller(vl, d.channels - first)
        fetch_grid(grid, d, at // sheaves, first, lanes, constant + vl)
        for l in range(vl):
            constant[l] = bias[first + l] if bias != NULL and l < lanes else 0
        if real is float:
            sheaf_f32(&planes, grid - (d.top * d.grid_columns + d.left) * vl, packed + first * taps, constant, result)
            if activation:
                activate_f32(result, outputs * vl, activation)
            sheaf_out_f32(y + (at // sheaves * d.channels + first) * outputs, outputs, lanes, result, outputs)
        else:
            sheaf_f64(&planes, grid - (d.top * d.grid_columns + d.left) * vl, packed + first * taps, constant, result)
            if activation:
                activate_f64(result, outputs * vl, activation)
            sheaf_out_f64(y + (at // sheaves * d.channels + first) * outputs, outputs, lanes, result, outputs)


cdef void turn_filters(real *to, const Depthwise *d, const real *packed) noexcept nogil:
    """[filter][tap] -> [VL filters][tap][VL], with room for VL taps behind the last."""
    cdef ix vl = vector_lanes(to), taps = d.planes.h.taps * d.planes.w.taps, sheaf, l
    cdef const real *filters[16]
    for sheaf in range(ceil_div(d.channels, vl)):
        for l in range(vl):
            filters[l] = packed + smaller(sheaf * vl + l, d.channels - 1) * taps
        if real is float:
            sheaf_in_f32(to + sheaf * vl * taps, NULL, filters, taps)
        else:
            sheaf_in_f64(to + sheaf * vl * taps, NULL, filters, taps)


cdef size_t sheaf_bytes(const Depthwise *d, ix vl, ix itemsize, ix others) noexcept nogil:
    """Of a thread: the grid, the outputs, staged planes and `others` vectors."""
    cdef ix outputs = d.planes.h.out * d.planes.w.out, seen = d.seen_rows * d.seen_columns
    return (<size_t> (d.grid_rows * d.grid_columns + outputs + vl + others + 1 + (seen if seen > outputs else outputs) + vl) * vl * itemsize + 127) // 64 * 64


# ---- rows of pixels as lanes

cdef void depthwise_task(real *y, const Depthwise *d, const real *packed, const real *bias, int activation, char *memory, ix id) noexcept nogil:
    cdef ix size = d.planes.h.out * d.planes.w.out, taps = d.planes.h.taps * d.planes.w.taps, vl = vector_lanes(y)
    cdef ix block = id // (d.bands * d.pieces), plane = block * d.chunk, last = smaller(plane + d.chunk, d.samples * d.channels), first, to, i, n, k, row
    cdef fc_planes band = d.planes
    cdef const real *source[2]
    cdef const real *weight[2]
    cdef real *result[2]
    cdef real constant[2]
    cdef real *buffer = <real *> (memory + d.spans + d.masks)
    band.first = id // d.pieces % d.bands * d.rows
    band.to = smaller(band.first + d.rows, band.h.out)
    first = id % d.pieces * d.width
    to = smaller(first + d.width, band.w.out)
    band.spans = <fc_span *> memory
    if real is float:
        cut_spans_f32(&band, first, to, <unsigned short *> (memory + d.spans), 0)
    else:
        cut_spans_f64(&band, first, to, <unsigned short *> (memory + d.spans), 0)
    while plane < last:
        n = 2 if band.rolls and last - plane > 1 and to - first <= vl else 1  # a lone vector of rows leaves room for another
        for i in range(n):
            k = (plane + i) % d.channels
            source[i] = plane_of(buffer + i * d.window, d, &band, (plane + i) // d.channels, k // d.shared, first, to)
            weight[i], result[i] = packed + k * taps, y + (plane + i) * size
            constant[i] = bias[k] if bias != NULL else 0
        if real is float:
            planes_f32(&band, n, source, weight, constant, result)
        else:
            planes_f64(&band, n, source, weight, constant, result)
        if activation:
            for i in range(n):
                if d.pieces == 1:
                    if real is float:
                        activate_f32(result[i] + band.first * band.w.out, (band.to - band.first) * band.w.out, activation)
                    else:
                        activate_f64(result[i] + band.first * band.w.out, (band.to - band.first) * band.w.out, activation)
                else:
                    for row in range(band.first, band.to):
                        if real is float:
                            activate_f32(result[i] + row * band.w.out + first, to - first, activation)
                        else:
                            activate_f64(result[i] + row * band.w.out + first, to - first, activation)
        plane += n


cdef void pack_filters(real *packed, const Depthwise *d, Weights *w) noexcept nogil:
    """weight -> [filter][tap of the height][tap of the width], as the taps are sorted."""
    cdef ix taps = d.planes.h.taps, across = d.planes.w.taps, k, r, s, count, at = 0
    cdef const ix *order = d.order + taps
    cdef const char *data
    for k in range(d.channels):
        for r in range(taps):
            s = 0
            while s < across:  # taps that follow one another, forwards or backwards
                count = 1
                while s + count < across and order[s + count] - order[s + count - 1] == order[s + 1] - order[s]:
                    count += 1
                data = w.data + k * w.k + d.order[r] * w.tap[1] + order[s] * w.tap[2]
                if real is float:
                    pack_filter_f32(packed + at, data, count, (order[s + 1] - order[s]) * w.tap[2] if count > 1 else 0, w.swap)
                else:
                    pack_filter_f64(packed + at, data, count, (order[s + 1] - order[s]) * w.tap[2] if count > 1 else 0, w.swap)
                s += count
                at += count


cdef size_t plan_depthwise(real *tag, Depthwise *d, size_t *packed, size_t *tables) noexcept nogil:
    """Block sizes; returns the scratch of a thread."""
    cdef ix vl = vector_lanes(tag), taps = d.planes.h.taps * d.planes.w.taps
    plan_planes(d, vl, sizeof(real))
    d.sheaves = plan_sheaf(d, vl)
    packed[0] = <size_t> padded(d.channels * taps) * sizeof(real)
    tables[0] = 0
    if not d.sheaves:
        return d.spans + d.masks + 2 * <size_t> d.window * sizeof(real)
    packed[0] += <size_t> padded((ceil_div(d.channels, vl) * taps + vl) * vl) * sizeof(real)
    tables[0] = <size_t> padded(d.seen_rows * d.seen_columns + taps) * sizeof(ix)
    d.chunk = ceil_div(d.chunk, vl)
    return sheaf_bytes(d, vl, sizeof(real), 0)


cdef int depthwise_correlate(real *y, Depthwise *d, Weights *w, const void *bias, int activation, int threads) except -1 nogil:
    cdef size_t packed, tables, per_thread, head
    cdef ix outputs = d.planes.h.out * d.planes.w.out, planes = d.samples * d.channels, task, tasks, units
    cdef char *memory
    cdef real *turned
    if outputs * planes == 0:
        return 0
    per_thread = plan_depthwise(y, d, &packed, &tables)
    d.planes.y_pitch = d.planes.w.out
    if 2.0 * planes * outputs * d.planes.h.taps * d.planes.w.taps < SERIAL_FLOPS:
        threads = 1
    units = d.samples * ceil_div(d.channels, vector_lanes(y)) if d.sheaves else planes
    if threads > 1 and d.chunk > ceil_div(units, 4 * threads):
        d.chunk = ceil_div(ceil_div(units, 4 * threads), 2) * 2
    head = packed + tables
    memory = <char *> take_scratch(head + threads * per_thread + 64)
    pack_filters(<real *> memory, d, w)
    tasks = ceil_div(units, d.chunk)
    if d.sheaves:
        turned = <real *> memory + padded(d.channels * d.planes.h.taps * d.planes.w.taps)
        turn_filters(turned, d, <real *> memory)
        d.position = <ix *> (memory + packed)
        d.reach = d.position + d.seen_rows * d.seen_columns
        tabulate_sheaf(d)
        if threads == 1:
            for task in range(tasks):
                sheaf_task(y, d, <const real *> turned, <const real *> bias, activation, memory + head, task)
        else:
            for task in prange(tasks, num_threads=threads, schedule="dynamic"):
                sheaf_task(y, d, <const real *> turned, <const real *> bias, activation, memory + head + threadid() * per_thread, task)
    elif threads == 1:
        for task in range(tasks * d.bands * d.pieces):
            depthwise_task(y, d, <const real *> memory, <const real *> bias, activation, memory + head, task)
    else:
        for task in prange(tasks * d.bands * d.pieces, num_threads=threads, schedule="dynamic"):
            depthwise_task(y, d, <const real *> memory, <const real *> bias, activation, memory + head + threadid() * per_thread, task)
    fc_scratch_give(memory)
    return 0


# ---- gradient of the weights

cdef struct Slopes:
    fc_source dy
    int staged
    ix pitch, window       # of a staged band of dy
    ix filters, parts      # of a task; partial sums
    size_t sums


cdef size_t plan_slopes(real *tag, Depthwise *d, Slopes *s, size_t *tables) noexcept nogil:
    """Block sizes; returns the scratch of a thread."""
    cdef ix vl = vector_lanes(tag), taps = d.planes.h.taps * d.planes.w.taps
    plan_planes(d, vl, sizeof(real))
    s.staged = not read_in_place(&s.dy, sizeof(real))
    s.pitch = padded(ceil_div(d.width, vl) * vl)
    s.window = s.pitch * d.rows
    s.filters = SLOPE_BYTES // (taps * vl * <ix> sizeof(real))
    s.filters = smaller(d.channels, 1 if s.filters < 1 else s.filters)
    # Samples and bands are dealt to a fixed number of partial sums, so that few filters keep several threads busy.
    s.parts = 1
    while s.parts < 8 and s.parts * d.channels < 16:
        s.parts *= 2
    s.sums = <size_t> padded(d.channels * taps) * sizeof(real)
    d.sheaves = plan_sheaf(d, vl)
    tables[0] = 0
    if d.sheaves:
        s.filters = vl
        tables[0] = <size_t> padded(d.seen_rows * d.seen_columns + taps) * sizeof(ix)
        return sheaf_bytes(d, vl, sizeof(real), taps)
    return d.spans + d.masks + (<size_t> padded(s.filters * taps * vl) + d.window + s.window) * sizeof(real)


cdef void slopes_task(real *sums, const Depthwise *d, const Slopes *s, char *memory, ix part, ix k0) noexcept nogil:
    """One part of all samples and bands, for the filters from k0 on."""
    cdef ix vl = vector_lanes(sums), taps = d.planes.h.taps * d.planes.w.taps, filters = smaller(s.filters, d.channels - k0)
    cdef ix bands = d.bands * d.pieces, units = d.samples * bands, unit, n, k, first, to, source = -1
    cdef real *lanes = <real *> (memory + d.spans + d.masks)
    cdef real *buffer = lanes + padded(s.filters * taps * vl)
    cdef real *dy_buffer = buffer + d.window
    cdef const real *x = NULL
    cdef const real *dy
    cdef const char *row
    cdef fc_planes band = d.planes
    band.spans = <fc_span *> memory
    memset(lanes, 0, filters * taps * vl * sizeof(real))
    for unit in range(part * units // s.parts, (part + 1) * units // s.parts):
        n = unit // bands
        band.first = unit // d.pieces % d.bands * d.rows
        band.to = smaller(band.first + d.rows, band.h.out)
        first = unit % d.pieces * d.width
        to = smaller(first + d.width, band.w.out)
        if d.staged:  # vectors may hang over into what is multiplied by zeros: no NaN may lie there
            memset(buffer, 0, d.window * sizeof(real))
        if real is float:
            cut_spans_f32(&band, first, to, <unsigned short *> (memory + d.spans), 1)
        else:
            cut_spans_f64(&band, first, to, <unsigned short *> (memory + d.spans), 1)
        for k in range(filters):
            if k == 0 or (k0 + k) // d.shared != source:
                source = (k0 + k) // d.shared
                x = plane_of(buffer, d, &band, n, source, first, to)
            row = s.dy.data + n * s.dy.n + (k0 + k) * s.dy.c
            if s.staged:
                row += band.first * s.dy.h + first * s.dy.w
                band.y_pitch = s.pitch
                if real is float:
                    stage_dy_f32(dy_buffer, row, band.to - band.first, s.dy.h, to - first, s.dy.w, s.dy.swap, s.pitch, (band.to - band.first) * s.pitch)
                else:
                    stage_dy_f64(dy_buffer, row, band.to - band.first, s.dy.h, to - first, s.dy.w, s.dy.swap, s.pitch, (band.to - band.first) * s.pitch)
                dy = dy_buffer - band.first * s.pitch - first
            else:
                band.y_pitch = s.dy.h // <ix> sizeof(real)
                dy = <const real *> row
            if real is float:
                planes_slopes_f32(&band, x, dy, lanes + k * taps * vl)
            else:
                planes_slopes_f64(&band, x, dy, lanes + k * taps * vl)
    if real is float:
        fold_planes_f32(sums + k0 * taps, lanes, filters * taps)
    else:
        fold_planes_f64(sums + k0 * taps, lanes, filters * taps)


cdef void sheaf_slopes_task(real *sums, const Depthwise *d, const Slopes *s, char *memory, ix part, ix k0) noexcept nogil:
    """The same for VL filters, with planes as lanes."""
    cdef ix vl = vector_lanes(sums), outputs = d.planes.h.out * d.planes.w.out, taps = d.planes.h.taps * d.planes.w.taps, lanes = smaller(vl, d.channels - k0)
    cdef ix pixels = d.grid_rows * d.grid_columns, n, t, l
    cdef real *grid = <real *> memory
    cdef real *dy = grid + pixels * vl
    cdef real *partial = dy + (outputs + vl) * vl
    cdef real *buffer = partial + taps * vl
    cdef fc_planes planes = d.planes
    cdef fc_axis axis[2]
    axis[0], axis[1] = d.axis[0], d.axis[1]
    axis[0].size, axis[1].size, axis[0].mode, axis[1].mode = planes.h.out, planes.w.out, 0, 0
    planes.pitch = d.grid_columns
    memset(grid, 0, pixels * vl * sizeof(real))
    memset(partial, 0, taps * vl * sizeof(real))
    for n in range(part * d.samples // s.parts, (part + 1) * d.samples // s.parts):
        fetch_grid(grid, d, n, k0, lanes, buffer)
        fetch_sheaf(dy, NULL, &s.dy, axis, 0, 0, planes.h.out, planes.w.out, n, k0, lanes, 1, buffer)
        if real is float:
            sheaf_slopes_f32(&planes, grid - (d.top * d.grid_columns + d.left) * vl, dy, d.reach, partial)
        else:
            sheaf_slopes_f64(&planes, grid - (d.top * d.grid_columns + d.left) * vl, dy, d.reach, partial)
    for l in range(lanes):
        for t in range(taps):
            sums[(k0 + l) * taps + t] = partial[t * vl + l]


cdef void slopes_part(real *sums, const Depthwise *d, const Slopes *s, char *memory, ix part, ix first) noexcept nogil:
    if d.sheaves:
        sheaf_slopes_task(sums, d, s, memory, part, first)
    else:
        slopes_task(sums, d, s, memory, part, first)


cdef int depthwise_slopes(real *dweight, Depthwise *d, Slopes *s, int threads) except -1 nogil:
    cdef size_t tables, per_thread = plan_slopes(dweight, d, s, &tables)
    cdef ix taps = d.planes.h.taps * d.planes.w.taps, planes = d.samples * d.channels, size = s.sums // sizeof(real), task, blocks, i
    cdef char *memory
    cdef const real *sums
    if 2.0 * planes * d.planes.h.out * d.planes.w.out * taps < SERIAL_FLOPS:
        threads = 1
    if threads > 1 and not d.sheaves and s.filters > ceil_div(d.channels * s.parts, 4 * threads):
        s.filters = ceil_div(d.channels * s.parts, 4 * threads)
    blocks = ceil_div(d.channels, s.filters)
    memory = <char *> take_scratch(s.sums * s.parts + tables + threads * per_thread + 64)
    sums = <const real *> memory
    if d.sheaves:
        d.position = <ix *> (memory + s.sums * s.parts)
        d.reach = d.position + d.seen_rows * d.seen_columns
        tabulate_sheaf(d)
    if threads == 1:
        for task in range(s.parts * blocks):
            slopes_part(<real *> memory + task // blocks * size, d, s, memory + s.sums * s.parts + tables, task // blocks, task % blocks * s.filters)
    else:
        for task in prange(s.parts * blocks, num_threads=threads, schedule="dynamic"):
            slopes_part(<real *> memory + task // blocks * size, d, s, memory + s.sums * s.parts + tables + threadid() * per_thread, task // blocks,
                            task % blocks * s.filters)
    for task in range(d.channels * taps):
        dweight[task] = sums[task]
        for i in range(1, s.parts):
            dweight[task] += sums[i * size + task]
    fc_scratch_give(memory)
    return 0


# ---- entry points

cdef class PlaneTables:
    """Memory of the tables of `describe_planes`."""
    cdef ix *memory

    def __cinit__(self, Shape p):
        self.memory = <ix *> take_scratch(3 * (p.kernel[1] + p.kernel[2]) * sizeof(ix))

    def __dealloc__(self):
        fc_scratch_give(self.memory)


def depthwise_forward(cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray y, Shape shape, int threads):
    """y of a convolution with one channel in each group. `bias` is contiguous and native or None; y is a fresh result."""
    cdef fc_source source
    cdef Weights w
    cdef Depthwise d
    cdef PlaneTables t = PlaneTables(shape)
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(y)
    make_source(&source, x, shape, shape.C, shape.size, "x")
    make_weights(&w, weight, shape)
    describe_planes(&d, shape, &source, t.memory, 0)
    with nogil:
        if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT:
            depthwise_correlate(<float *> cnp.PyArray_DATA(y), &d, &w, b, shape.activation, threads)
        else:
            depthwise_correlate(<double *> cnp.PyArray_DATA(y), &d, &w, b, shape.activation, threads)


def depthwise_backward_input(cnp.ndarray dy, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray dx, Shape shape, int threads):
    """dx of a convolution with one channel and one filter in each group, + bias."""
    cdef fc_source source
    cdef Weights w
    cdef Depthwise d
    cdef PlaneTables t = PlaneTables(shape)
    cdef const void *b = cnp.PyArray_DATA(bias) if bias is not None else NULL
    check_result(dx)
    make_source(&source, dy, shape, shape.K, shape.out, "dy")
    make_weights(&w, weight, shape)
    describe_planes(&d, shape, &source, t.memory, 1)
    with nogil:
        if cnp.PyArray_TYPE(dx) == cnp.NPY_FLOAT:
            depthwise_correlate(<float *> cnp.PyArray_DATA(dx), &d, &w, b, 0, threads)
        else:
            depthwise_correlate(<double *> cnp.PyArray_DATA(dx), &d, &w, b, 0, threads)


def depthwise_backward_weight(cnp.ndarray dy, cnp.ndarray x, cnp.ndarray dweight, cnp.ndarray dbias, Shape shape, int threads):
    """dweight of a convolution with one channel in each group, and dbias, unless it is None."""
    cdef fc_source source
    cdef Depthwise d
    cdef Slopes s
    cdef PlaneTables t = PlaneTables(shape)
    check_result(dweight)
    make_source(&s.dy, dy, shape, shape.K, shape.out, "dy")
    make_source(&source, x, shape, shape.C, shape.size, "x")
    describe_planes(&d, shape, &source, t.memory, 0)
    with nogil:
        if cnp.PyArray_TYPE(dweight) == cnp.NPY_FLOAT:
            depthwise_slopes(<float *> cnp.PyArray_DATA(dweight), &d, &s, threads)
        else:
            depthwise_slopes(<double *> cnp.PyArray_DATA(dweight), &d, &s, threads)
    if dbias is not None:
        check_bias(dbias, dweight, shape)
        channel_sum(dy, dbias, 1 if shape.batched else 0, threads)


cdef size_t depthwise_bytes(real *tag, str direction, Shape p, int threads) except? 0:
    cdef fc_source source
    cdef Depthwise d
    cdef Slopes s
    cdef PlaneTables t = PlaneTables(p)
    cdef size_t packed, tables, per_thread
    memset(&source, 0, sizeof(source))
    s.dy = source
    describe_planes(&d, p, &source, t.memory, direction == "backward_input")
    if direction == "backward_weight":
        per_thread = plan_slopes(tag, &d, &s, &tables)
        return s.sums * s.parts + tables + threads * per_thread
    per_thread = plan_depthwise(tag, &d, &packed, &tables)
    return packed + tables + threads * per_thread


def depthwise_scratch(str direction, int itemsize, Shape shape, int threads):
    """Bytes of scratch of "forward", "backward_input" or "backward_weight"; the same for every N."""
    if itemsize == 4:
        return depthwise_bytes(<float *> NULL, direction, shape, threads)
    return depthwise_bytes(<double *> NULL, direction, shape, threads)
