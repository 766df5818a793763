# The outer-product driver: the gradient of the weights, on the register tile of native/gemm.h.
#
#     dW[m, (c, t)] = sum over pixels (n, o) of dy[n, m, o] * source[n, c, o*step + offset[t]]
#
# Pixels are the index of the sum. The tile broadcasts one operand, A, from rows of pixels as images hold them: mostly read in place. The other, B, is turned
# round: [pixel][VL rows]. With several taps and channels enough to fill vectors, strips of x are turned as they are staged, and every tap reads them at its own
# offset; else each row of the patch matrix, (channel, tap), is turned for itself; where patches are single pixels, x and dy may also change places, so that the one
# of fewer channels is turned. Blocks of pixels are turned by all threads together, then multiplied by all threads together: nothing is turned twice.
#
# A block of pixels is one piece of every element's sum, and pieces are added up in order, those of every `parts`-th block together. Both follow from the problem
# and from how many pixels there are, so bits do not depend on threads, nor on what is read in place and what is turned.

cdef enum:
    OUTER_LANES = 512             # pixels (float32) summed in registers before dW is touched
    OUTER_BYTES = 4 * 1024 * 1024 # of a block: what stays in a third-level cache
    OUTER_LEAST = 128             # pixels (float32) that a block has for all that
    OUTER_CHUNK = 512 * 1024      # bytes of B that stay in a second-level cache while rows of A pass
    EARLY_TILES = 64              # panels times vectors of a block from which on it takes longer than finding out what to fetch meanwhile
    OUTER_TILES = 32              # tiles of dW in a block, below which several blocks are multiplied together
    TURN_GROUPS = 4               # vectors of rows that are turned in one task
    TURNED = 8                    # turning a vector of x, in multiplications of vectors: once for all taps,
    TURNED_PATCHES = 16           # and where it is gathered for every tap


# One operand: a source and how blocks of its pixels are read.
cdef struct Side:
    fc_source *source
    fc_axis *axis
    ix channels, rows          # in a group: of the source, of its patch matrix
    int staged
    ix every                   # how far pixels may lie apart that are read in place
    ix strides[4]
    ix taps
    ix *sizes
    ix *tap_offset
    ix *row_offset             # of every row of the patch matrix, where it is read in place


cdef struct Outer:
    fc_axis axis[3]
    fc_axis unit[3]            # dy read as it is: one tap
    fc_grid grid
    fc_source source, dy
    ix groups, rows, channels, taps
    ix sizes[3]
    ix *tap_offset
    # derived
    Side x_side, dy_side
    Side *a
    Side *b
    int by_taps                # strips of x are turned, else rows of patches
    int in_place               # A is
    Bands bands                # by_taps
    ix bundle                  # of neighbouring bands in a block
    ix lanes                   # pixels in a full block
    ix columns, b_groups, b_vectors, a_groups
    ix ldc                     # of dW while it is summed
    ix a_span, b_span          # elements of VL copied rows of A, of VL turned rows of B
    ix a_row                   # from row to row of A
    ix batch                   # groups that are turned together
    ix blocks, parts
    ix depth                   # blocks of every part that are turned together: threads wait for one another after them
    ix chunk, stretches        # vectors of B in a task, most stretches of a block
    char *A                    # copied, [block][group of the batch]
    char *B                    # turned, likewise
    fc_stretch *stretch        # [block][stretches]
    ix *stretch_count
    ix *a_lines                # where lines of a panel of A begin, [block][lanes]
    ix *b_lines                # the same of a row of what is turned after this phase, where it is read in place
    ix *line_count             # [block][2]
    const char **idle          # for every pixel of a block: what does no harm if it is fetched
    ix dy_sizes[3]
    ix zero                    # the one tap of dy
    double *bias               # the sums of dy, [part][filter of all groups], or NULL


cdef struct OuterScratch:
    size_t sums, block, tables, bias, per_thread


# Blocks that are turned, then multiplied together.
cdef struct Phase:
    ix id, blocks              # the first, and how many
    ix group, groups           # likewise
    ix turns                   # tasks of turning, for a group of a block
    ix chunks, splits          # tasks of multiplying: pieces of B's vectors, of A's panels
    ix sums                    # elements from one part's sums to the next


cdef void prepare_side(Side *s, fc_grid *grid, ix itemsize) noexcept nogil:
    prepare_axes(s.axis, grid, s.source, itemsize, s.every, &s.staged, s.strides, s.tap_offset, s.sizes)


cdef void cut_blocks(Outer *o, ix lanes, ix itemsize) noexcept nogil:
    """Lay out blocks of at most `lanes` pixels and the strips of x."""
    cdef ix vl = o.grid.vl, i
    cdef fc_source *dy = &o.dy
    if not o.by_taps:
        fc_grid_cut(&o.grid, lanes)
        prepare_side(o.a, &o.grid, itemsize)
        prepare_side(o.b, &o.grid, itemsize)
        o.blocks, o.lanes, o.b_span = o.grid.blocks, o.grid.lanes, o.grid.lanes * vl
        o.in_place = not o.a.staged
        o.a_row = o.a.source.c // itemsize if o.in_place else vl
    else:
        o.bands.pieces = ceil_div(o.grid.ow, lanes)
        o.bands.width = o.grid.ow if o.bands.pieces == 1 else ceil_div(ceil_div(o.grid.ow, o.bands.pieces), vl) * vl
        o.bands.pieces = ceil_div(o.grid.ow, o.bands.width)
        o.bands.rows = smaller(o.grid.oh, 1 if lanes < o.bands.width else lanes // o.bands.width)
        o.bands.bands = ceil_div(o.grid.oh, o.bands.rows)
        o.bands.rows = ceil_div(o.grid.oh, o.bands.bands)
        o.bundle = 1 if lanes < o.bands.rows * o.bands.width else lanes // (o.bands.rows * o.bands.width)
        o.grid.max_runs, o.grid.max_rows, o.grid.max_width = o.bundle, o.bands.rows, o.bands.width
        tabulate_strip(o.axis, &o.grid, o.tap_offset, o.sizes)
        o.x_side.staged = 1
        o.dy_side.sizes[2] = 0
        o.blocks = ceil_div(o.grid.samples * o.grid.od * o.bands.bands * o.bands.pieces, o.bundle)
        o.lanes, o.b_span = ceil_div(o.bundle * o.bands.rows * o.bands.width, vl) * vl, o.sizes[2] * vl
        o.in_place = (not dy.swap and <size_t> dy.data % itemsize == 0 and (dy.w == itemsize or o.grid.ow == 1)
                      and dy.n % itemsize == 0 and dy.c % itemsize == 0 and dy.d % itemsize == 0 and dy.h % itemsize == 0)
        o.a_row = dy.c // itemsize if o.in_place else o.lanes
    o.stretches = o.lanes
    o.a_span = 0 if o.in_place else o.lanes * vl


cdef void plan_outer(real *tag, Outer *o, OuterScratch *s) noexcept nogil:
    """Block sizes, the number of partial sums and scratch, from the problem of one sample alone: for the largest blocks that pixels are cut into."""
    cdef ix vl = vector_lanes(tag), together, lanes, size, plane = o.grid.od * o.grid.oh * o.grid.ow
    cdef ix scale = sizeof(real) // 4
    o.taps = o.axis[0].taps * o.axis[1].taps * o.axis[2].taps
    o.columns = o.channels * o.taps
    o.grid.vl = vl
    o.x_side.source, o.x_side.axis, o.x_side.channels, o.x_side.rows = &o.source, o.axis, o.channels, o.columns
    o.x_side.taps, o.x_side.tap_offset, o.x_side.sizes = o.taps, o.tap_offset, o.sizes
    o.dy_side.source, o.dy_side.axis, o.dy_side.channels, o.dy_side.rows = &o.dy, o.unit, o.rows, o.rows
    o.dy_side.taps, o.dy_side.tap_offset, o.dy_side.sizes = 1, &o.zero, o.dy_sizes
    o.x_side.row_offset = o.dy_side.row_offset = NULL
    # Vectors of channels may have idle lanes, but patches are gathered for every tap.
    together = ceil_div(o.channels, vl) * o.taps
    o.by_taps = o.taps > 1 and together * (o.rows + TURNED) < ceil_div(o.columns, vl) * (o.rows + TURNED_PATCHES)
    o.a, o.b = &o.dy_side, &o.x_side
    if o.taps == 1 and (o.columns - o.rows) * 4 * plane > o.rows * o.columns:  # what turning saves against turning dW once
        o.a, o.b = &o.x_side, &o.dy_side
    o.a.every, o.b.every = 1, EVERY if o.taps == 1 else 1
    o.a_groups, o.b_groups = ceil_div(o.a.rows, vl), ceil_div(o.channels if o.by_taps else o.b.rows, vl)
    o.b_vectors = together if o.by_taps else o.b_groups
    o.ldc = o.b_vectors * vl
    size = (o.a_groups + o.b_groups) * vl * sizeof(real)
    lanes = smaller(OUTER_LANES // scale, OUTER_BYTES // size // vl * vl)
    lanes = larger(lanes, OUTER_LEAST // scale)
    cut_blocks(o, lanes, sizeof(real))
    while o.by_taps and o.bundle > 1 and o.b_groups * o.b_span * sizeof(real) > 2 * OUTER_BYTES:  # taps reach far around few outputs
        lanes //= 2
        cut_blocks(o, lanes, sizeof(real))
    size = (o.a_groups * o.a_span + o.b_groups * o.b_span) * sizeof(real)
    o.batch = smaller(o.groups, larger(1, OUTER_BYTES // size))
    o.parts = 1
    while o.parts < 8 and o.parts * o.batch * ceil_div(o.a.rows, tile_mr(tag)) * ceil_div(o.b_vectors, tile_nv(tag)) < OUTER_TILES:
        o.parts *= 2
    o.chunk = OUTER_CHUNK * o.b_vectors // (o.b_groups * o.b_span * <ix> sizeof(real)) // tile_nv(tag) * tile_nv(tag)
    o.chunk = smaller(larger(o.chunk, tile_nv(tag)), o.b_vectors)
    s.sums = <size_t> padded(o.groups * o.a.rows * o.ldc + (vl * vl if o.by_taps else 0)) * sizeof(real)  # turned in squares, which may reach past the end
    o.depth = larger(1, OUTER_BYTES // (o.parts * o.batch * size))
    s.block = o.parts * o.depth * o.batch * size
    s.tables = (padded(o.columns + o.rows) + padded(o.lanes + o.parts * o.depth * (3 + 2 * o.lanes))) * sizeof(ix)
    s.tables += padded(o.parts * o.depth * o.stretches) * sizeof(fc_stretch)
    s.bias = bias_bytes(o.parts, o.groups * o.rows)
    s.per_thread = (padded(larger(o.sizes[2], o.dy_sizes[2]))
                    + (vl * larger(o.sizes[2], o.lanes) if o.by_taps else TURN_GROUPS * o.lanes * vl)) * sizeof(real)
    s.per_thread += o.bundle * sizeof(fc_run) if o.by_taps else fc_block_bytes(&o.grid)
    s.per_thread = (s.per_thread + 127) // 64 * 64


cdef void even_blocks(Outer *o, ix itemsize) noexcept nogil:
    """Cut blocks anew so that they are about equally large: a short last one costs as much as others to add to dW."""
    cdef ix bands = o.grid.samples * o.grid.od * o.bands.bands * o.bands.pieces
    if o.by_taps:
        o.bundle = ceil_div(bands, o.blocks)
        o.blocks = ceil_div(bands, o.bundle)
    elif not o.grid.by_row:
        cut_blocks(o, ceil_div(o.grid.samples * o.grid.od * o.grid.oh * o.grid.ow, o.blocks), itemsize)


cdef ix bundle_runs(Outer *o, ix id, fc_run *run) noexcept nogil:
    """The bands of a block; returns how many."""
    cdef ix bands = o.grid.samples * o.grid.od * o.bands.bands * o.bands.pieces, count = smaller(o.bundle, bands - id * o.bundle), i
    for i in range(count):
        band_at(&o.bands, &o.grid, id * o.bundle + i, &run[i])
    return count


cdef void make_block(fc_block *block, Outer *o, Side *s, ix id, char *memory) noexcept nogil:
    fc_block_place(block, &o.grid, memory)
    fc_block_make(block, &o.grid, id, s.staged, s.sizes[0], s.sizes[1], s.strides[0], s.strides[1], s.strides[2], s.strides[3])


cdef void tabulate_stretches(Outer *o, ix block_slot, ix id, char *memory, ix itemsize) noexcept nogil:
    """Where the pixels of block `id` lie in A and in B."""
    cdef fc_stretch *s = o.stretch + block_slot * o.stretches
    cdef fc_block block
    cdef fc_run run
    cdef ix i, r, v, n = 0, pixel = 0, vl = o.grid.vl, bands = o.grid.samples * o.grid.od * o.bands.bands * o.bands.pieces
    if o.by_taps:
        for i in range(smaller(o.bundle, bands - id * o.bundle)):
            band_at(&o.bands, &o.grid, id * o.bundle + i, &run)
            for r in range(run.rows):
                s[n].a, s[n].b, s[n].len = pixel, i * o.sizes[0] + r * o.sizes[1], run.width
                if o.in_place:
                    s[n].a = (run.n * o.dy.n + run.od * o.dy.d + (run.oh + r) * o.dy.h + run.q * o.dy.w) // itemsize
                pixel += run.width
                n += 1
        o.stretch_count[block_slot] = n
        return
    make_block(&block, o, o.a, id, memory)
    for v in range(block.vectors):
        if not o.in_place:
            s[n].a, s[n].b, s[n].len = v * vl * vl, v * vl, smaller(vl, block.lanes - v * vl)
            n += 1
            continue
        for i in range(block.in_first[v], block.in_first[v + 1]):
            if n and s[n - 1].a + s[n - 1].len == block.in_[i].at:
                s[n - 1].len += block.in_[i].len
            else:
                s[n].a, s[n].b, s[n].len = block.in_[i].at, v * vl + block.in_[i].lane, block.in_[i].len
                n += 1
    o.stretch_count[block_slot] = n


cdef void tabulate_early(Outer *o, ix block_slot, ix next_id, char *memory, ix rows, ix itemsize) noexcept nogil:
    """Lines that are fetched while a block is multiplied: of A, for the `rows` rows of a panel, and of block `next_id` of what will be turned then. None where
    there is little to multiply."""
    cdef const fc_stretch *s = o.stretch + block_slot * o.stretches
    cdef ix *lines = o.a_lines + block_slot * o.lanes
    cdef fc_block block
    cdef ix n = 0, i, r, at
    o.line_count[2 * block_slot] = o.line_count[2 * block_slot + 1] = 0
    if ceil_div(o.a.rows, rows) * o.b_vectors < EARLY_TILES:
        return
    for r in range(rows):
        for i in range(o.stretch_count[block_slot]):
            at = s[i].a
            while at < s[i].a + s[i].len and n < o.lanes:
                lines[n] = at + r * o.a_row
                at += 64 // itemsize
                n += 1
    o.line_count[2 * block_slot] = n
    if o.b.row_offset != NULL and o.b.taps == 1 and next_id < o.blocks:
        make_block(&block, o, o.b, next_id, memory)
        o.line_count[2 * block_slot + 1] = fc_block_lines(o.b_lines + block_slot * o.lanes, o.lanes, &block, o.b.strides[3], 64 // itemsize)


cdef void turn_patches(real *turned, ix span, real *patches, real *strip, Side *s, ix channel, const fc_grid *grid, const fc_block *block, ix first, ix last,
                       ix ahead) noexcept nogil:
    """Rows [first, last) of the patch matrix of one block, turned round: [vector of rows][pixel][row], vectors `span` apart."""
    cdef ix vl = vector_lanes(turned), stream = ceil_div(last - first, vl) * vl * vl
    cdef const char *plane = s.source.data + channel * s.source.c
    if s.row_offset != NULL:
        if real is float:
            gather_turned_f32(turned, span, <const float *> plane, s.strides[3], s.row_offset + first, last - first, block, ahead)
        else:
            gather_turned_f64(turned, span, <const double *> plane, s.strides[3], s.row_offset + first, last - first, block, ahead)
        return
    pack_patches(patches, stream, strip, s.source, channel, s.axis, grid, block, s.tap_offset, s.taps, first, last)
    if real is float:
        transpose_f32(turned, span, patches, stream, last - first, block.vectors)
    else:
        transpose_f64(turned, span, patches, stream, last - first, block.vectors)


cdef void turn_strips(real *turned, Outer *o, char *memory, ix id, ix channel, ix channels) noexcept nogil:
    """Strips of at most VL channels of a block, turned round."""
    cdef ix vl = vector_lanes(turned), c
    cdef real *strips = <real *> memory
    cdef fc_block block
    block.run = <fc_run *> (strips + vl * o.sizes[2])
    block.runs = bundle_runs(o, id, block.run)
    for c in range(channels):
        if real is float:
            stage_f32(strips + c * o.sizes[2], &o.source, o.source.data + (channel + c) * o.source.c, o.axis, &block, o.grid.max_rows, o.grid.max_width)
        else:
            stage_f64(strips + c * o.sizes[2], &o.source, o.source.data + (channel + c) * o.source.c, o.axis, &block, o.grid.max_rows, o.grid.max_width)
    if real is float:
        turn_f32(turned, strips, o.sizes[2], channels, o.sizes[2] // vl)
    else:
        turn_f64(turned, strips, o.sizes[2], channels, o.sizes[2] // vl)


cdef void copy_bands(real *rows, Outer *o, char *memory, ix id, ix channel, ix channels) noexcept nogil:
    """Channels of dy of a block, row after row of its bands."""
    cdef ix c, i, n, at = 0
    cdef fc_run *run = <fc_run *> memory
    cdef const char *data
    n = bundle_runs(o, id, run)
    for i in range(n):
        for c in range(channels):
            data = o.dy.data + run[i].n * o.dy.n + (channel + c) * o.dy.c + run[i].od * o.dy.d + run[i].oh * o.dy.h + run[i].q * o.dy.w
            if real is float:
                stage_dy_f32(rows + c * o.lanes + at, data, run[i].rows, o.dy.h, run[i].width, o.dy.w, o.dy.swap, run[i].width, run[i].rows * run[i].width)
            else:
                stage_dy_f64(rows + c * o.lanes + at, data, run[i].rows, o.dy.h, run[i].width, o.dy.w, o.dy.swap, run[i].width, run[i].rows * run[i].width)
        at += run[i].rows * run[i].width


cdef void turn_task(real *tag, Outer *o, Phase *f, char *memory, ix task) noexcept nogil:
    """Turn TURN_GROUPS vectors of rows of B, or copy as many of A, of one block for one group."""
    cdef ix vl = vector_lanes(tag), b_tasks = ceil_div(o.b_groups, TURN_GROUPS), first, last, v
    cdef ix at = task // (f.groups * f.turns), slot = task // f.turns % f.groups, id = f.id + at, group = f.group + slot
    cdef real *A = <real *> o.A + (at * o.batch + slot) * o.a_groups * o.a_span
    cdef real *B = <real *> o.B + (at * o.batch + slot) * o.b_groups * o.b_span
    cdef real *strip = <real *> memory
    cdef real *patches = strip + padded(larger(o.sizes[2], o.dy_sizes[2]))
    cdef fc_block block
    cdef int a = task % f.turns >= b_tasks
    first = TURN_GROUPS * (task % f.turns - b_tasks if a else task % f.turns)
    last = smaller(first + TURN_GROUPS, o.a_groups if a else o.b_groups)
    if o.by_taps:
        for v in range(first, last):
            if a:
                copy_bands(A + v * o.a_span, o, memory, id, group * o.rows + v * vl, smaller(vl, o.rows - v * vl))
            else:
                turn_strips(B + v * o.b_span, o, memory, id, group * o.channels + v * vl, smaller(vl, o.channels - v * vl))
        return
    make_block(&block, o, o.a if a else o.b, id, <char *> (patches + TURN_GROUPS * o.lanes * vl))
    if not a:
        turn_patches(B + first * o.b_span, o.b_span, patches, strip, o.b, group * o.b.channels, &o.grid, &block, first * vl, smaller(last * vl, o.b.rows),
                     o.lanes if o.b.taps == 1 else 0)
        return
    for v in range(first, last):
        pack_patches(A + v * o.a_span, vl * vl, strip, o.a.source, group * o.a.channels, o.a.axis, &o.grid, &block, o.a.tap_offset, o.a.taps, v * vl,
                     smaller(v * vl + vl, o.a.rows))


cdef void multiply_block(real *sums, Outer *o, ix at, ix slot, ix group, ix first, ix last, ix panel, ix last_panel, int accumulate) noexcept nogil:
    """Vectors [first, last) of B by some panels of rows of A, of the at-th block of a phase."""
    cdef ix mr = tile_mr(sums), vl = vector_lanes(sums), j, i, v, nv, rows, row
    cdef ix offset[8]
    cdef const fc_stretch *stretch = o.stretch + at * o.stretches
    cdef const real *base = <const real *> o.A + (at * o.batch + slot) * o.a_groups * o.a_span
    cdef const real *A
    cdef const real *B = <const real *> o.B + (at * o.batch + slot) * o.b_groups * o.b_span
    # What comes next is fetched in shares: A of the next panel by the tiles of this one, what will be turned by all tiles of the block.
    cdef const char *own[OUTER_LANES]
    cdef const char **early = o.idle
    cdef const ix *a_lines = o.a_lines + at * o.lanes
    cdef const ix *b_lines = o.b_lines + at * o.lanes
    cdef ix a_count = o.line_count[2 * at], b_count = o.line_count[2 * at + 1], tiles = ceil_div(last - first, tile_nv(sums)), tile, n
    cdef ix all_tiles = ceil_div(o.b_vectors, tile_nv(sums)), calls = all_tiles * ceil_div(o.a.rows, mr), call
    cdef const real *row_of_b = <const real *> (o.b.source.data + group * o.b.channels * o.b.source.c)
    if a_count or b_count:
        early = own
        memcpy(own, o.idle, o.lanes * sizeof(char *))
    if o.in_place:
        base = <const real *> (o.a.source.data + group * o.a.channels * o.a.source.c)
    cdef double *bias = NULL if o.bias == NULL else o.bias + (at % o.parts * o.groups + group) * o.rows
    if bias != NULL and o.b == &o.dy_side:
        for j in range(first, last if panel == 0 else first):
            if real is float:
                add_turned_f32(bias + j * vl, smaller(vl, o.rows - j * vl), stretch, o.stretch_count[at], B + j * o.b_span)
            else:
                add_turned_f64(bias + j * vl, smaller(vl, o.rows - j * vl), stretch, o.stretch_count[at], B + j * o.b_span)
    while panel < last_panel:
        row = panel * mr
        rows = smaller(mr, o.a.rows - row)
        A = base + row * o.a_row if o.in_place else base + row // vl * o.a_span + row % vl * o.a_row
        j, tile = first, 0
        while j < last:
            nv = tile_width_f32(last - j) if real is float else tile_width_f64(last - j)
            n = 0
            if panel + 1 < last_panel:
                for i in range(tile * a_count // tiles, (tile + 1) * a_count // tiles):
                    early[n] = <const char *> (A + mr * o.a_row + a_lines[i])
                    n += 1
            if b_count:
                call = panel * all_tiles + first // tile_nv(sums) + tile
                for v in range(call * o.b.rows // calls, (call + 1) * o.b.rows // calls):
                    for i in range(smaller(b_count, o.lanes - n)):
                        early[n] = <const char *> (row_of_b + o.b.row_offset[v] + b_lines[i])
                        n += 1
            tile += 1
            for i in range(nv):
                v = j + i
                offset[i] = v // o.taps * o.b_span + o.tap_offset[v % o.taps] * vl if o.by_taps else v * o.b_span
            if real is float:
                stretch_f32(rows, nv, stretch, o.stretch_count[at], A, o.a_row, B, offset, sums + row * o.ldc + j * vl, o.ldc, accumulate, early)
            else:
                stretch_f64(rows, nv, stretch, o.stretch_count[at], A, o.a_row, B, offset, sums + row * o.ldc + j * vl, o.ldc, accumulate, early)
            j += nv
        if bias != NULL and o.a == &o.dy_side and first == 0:  # of which a cache has now
            if real is float:
                add_stretches_f32(bias + row, rows, stretch, o.stretch_count[at], A, o.a_row)
            else:
                add_stretches_f64(bias + row, rows, stretch, o.stretch_count[at], A, o.a_row)
        panel += 1


cdef void multiply_task(real *sums, Outer *o, Phase *f, ix task) noexcept nogil:
    """Some vectors of B by some panels of rows of A, of all blocks of one part."""
    cdef ix panels = ceil_div(o.a.rows, tile_mr(sums)), at = task // (f.groups * f.chunks * f.splits), slot = task // (f.chunks * f.splits) % f.groups
    cdef ix group = f.group + slot, first = task // f.splits % f.chunks * o.chunk, last = smaller(o.b_vectors, first + o.chunk)
    sums += at * f.sums + group * o.a.rows * o.ldc
    while at < f.blocks:
        multiply_block(sums, o, at, slot, group, first, last, task % f.splits * panels // f.splits, (task % f.splits + 1) * panels // f.splits,
                       f.id + at >= o.parts)
        at += o.parts


cdef void finish_rows(real *dweight, real *sums, Outer *o, ix size, ix task) noexcept nogil:
    """VL rows of a group of dweight: the sums of their parts, `size` apart, in order, in the order of dweight."""
    cdef ix vl = vector_lanes(dweight), row_groups = ceil_div(o.rows, vl), group = task // row_groups, first = task % row_groups * vl
    cdef ix last = smaller(o.rows, first + vl), part, i, c, t, row, top = first, rows = last - first, left = 0, count = o.ldc
    cdef real block[16 * 16 + 16]
    cdef real *turned = <real *> ((<size_t> block + 63) // 64 * 64)
    cdef real *s
    cdef const real *p
    cdef real *d
    sums += group * o.a.rows * o.ldc
    if o.b == &o.dy_side:  # dW lies the wrong way round
        top, rows, left, count = 0, o.a.rows, first, last - first
    if o.parts > 1:
        for row in range(top, top + rows):
            s = sums + row * o.ldc + left
            for part in range(1, o.parts):
                p = s + part * size
                for i in range(count):
                    s[i] += p[i]
    dweight += (group * o.rows + first) * o.columns
    if o.b == &o.dy_side:
        c = 0
        while c < o.columns:
            if real is float:
                turn_f32(turned, sums + c * o.ldc + first, o.ldc, smaller(vl, o.columns - c), 1)
            else:
                turn_f64(turned, sums + c * o.ldc + first, o.ldc, smaller(vl, o.columns - c), 1)
            for row in range(last - first):
                memcpy(dweight + row * o.columns + c, turned + row * vl, smaller(vl, o.columns - c) * sizeof(real))
            c += vl
        return
    for row in range(first, last):
        s, d = sums + row * o.ldc, dweight + (row - first) * o.columns
        if not o.by_taps:
            memcpy(d, s, o.columns * sizeof(real))
            continue
        c = 0
        while c < o.channels:  # [tap][channel], a vector of channels at a time
            count = smaller(vl, o.channels - c)
            if 4 * o.taps <= vl:  # too few to turn
                for i in range(count):
                    for t in range(o.taps):
                        d[i * o.taps + t] = s[t * vl + i]
            elif real is float:
                sheaf_out_f32(d, o.taps, count, s, o.taps)
            else:
                sheaf_out_f64(d, o.taps, count, s, o.taps)
            d += count * o.taps
            s += o.taps * vl
            c += vl


cdef void run_phase(real *sums, Outer *o, Phase *f, char *memory, size_t per_thread, int threads) noexcept nogil:
    cdef ix task, turns = f.blocks * f.groups * f.turns, tasks = smaller(o.parts, f.blocks) * f.groups * f.chunks
    # Rows are dealt so that every thread has something to do: a task fetches its vectors of B anew.
    f.splits = smaller(ceil_div(o.a.rows, tile_mr(sums)), ceil_div(4 * threads if threads > 1 else 1, tasks))
    tasks *= f.splits
    for task in range(f.blocks):
        tabulate_stretches(o, task, f.id + task, memory, sizeof(real))
        tabulate_early(o, task, f.id + task + o.parts * o.depth, memory, tile_mr(sums), sizeof(real))
    if threads == 1:
        for task in range(turns):
            turn_task(sums, o, f, memory, task)
        for task in range(tasks):
            multiply_task(sums, o, f, task)
    else:
        for task in prange(turns, num_threads=threads, schedule="dynamic"):
            turn_task(sums, o, f, memory + threadid() * per_thread, task)
        for task in prange(tasks, num_threads=threads, schedule="dynamic"):
            multiply_task(sums, o, f, task)


cdef int outer(real *dweight, real *dbias, Outer *o, int threads) except -1 nogil:
    cdef OuterScratch s
    cdef Phase f
    cdef ix pixels = o.grid.samples * o.grid.od * o.grid.oh * o.grid.ow, task, tasks
    cdef char *memory
    cdef char *tables
    cdef char *rest
    cdef real *sums
    cdef int direct
    if pixels == 0:
        memset(dweight, 0, o.groups * o.rows * o.channels * o.axis[0].taps * o.axis[1].taps * o.axis[2].taps * sizeof(real))
        no_bias(dbias, o.groups * o.rows)
        return 0
    plan_outer(dweight, o, &s)
    o.source.ahead = channels_ahead(&o.source, o.grid.samples, o.groups * o.channels)
    even_blocks(o, sizeof(real))
    if 2.0 * pixels * o.groups * o.rows * o.columns < SERIAL_FLOPS:
        threads = 1
    o.parts = smaller(o.parts, o.blocks)
    # Threads wait for one another after every phase; one alone has what it turned in its own cache, if that is little.
    o.depth = smaller(o.depth, ceil_div(o.blocks, o.parts)) if threads > 1 else 1
    direct = o.parts == 1 and not o.by_taps and o.b == &o.x_side and o.columns == o.ldc
    memory = <char *> take_scratch(s.block + s.tables + s.bias + s.sums * (0 if direct else o.parts) + threads * s.per_thread + 64)
    o.A = memory
    o.B = o.A + o.parts * o.depth * o.batch * o.a_groups * o.a_span * sizeof(real)
    tables = memory + s.block
    o.stretch = <fc_stretch *> tables
    o.stretch_count = <ix *> (tables + padded(o.parts * o.depth * o.stretches) * sizeof(fc_stretch))
    o.line_count = o.stretch_count + o.parts * o.depth
    o.a_lines = o.line_count + 2 * o.parts * o.depth
    o.b_lines = o.a_lines + o.parts * o.depth * o.lanes
    o.idle = <const char **> (o.b_lines + o.parts * o.depth * o.lanes)
    for task in range(o.lanes):
        o.idle[task] = tables
    if not o.b.staged:
        o.b.row_offset = o.stretch_count + padded(o.lanes + o.parts * o.depth * (3 + 2 * o.lanes))
        tabulate_rows(o.b.row_offset, o.b.channels, o.b.taps, o.b.source.c // <ix> sizeof(real), o.b.tap_offset)
    rest = tables + s.tables
    o.bias = begin_bias(dbias, rest, o.parts, o.groups * o.rows)
    rest += s.bias
    sums = dweight if direct else <real *> (rest + threads * s.per_thread)
    f.sums = s.sums // sizeof(real)
    f.turns = ceil_div(o.b_groups, TURN_GROUPS) + (0 if o.in_place else ceil_div(o.a_groups, TURN_GROUPS))
    f.chunks = ceil_div(o.b_vectors, o.chunk)
    f.group = 0
    while f.group < o.groups:
        f.groups = smaller(o.batch, o.groups - f.group)
        f.id = 0
        while f.id < o.blocks:
            f.blocks = smaller(o.parts * o.depth, o.blocks - f.id)
            run_phase(sums, o, &f, rest, s.per_thread, threads)
            f.id += f.blocks
        f.group += f.groups
    tasks = 0 if direct else o.groups * ceil_div(o.rows, vector_lanes(dweight))
    if threads == 1:
        for task in range(tasks):
            finish_rows(dweight, sums, o, f.sums, task)
    else:
        for task in prange(tasks, num_threads=threads, schedule="static"):
            finish_rows(dweight, sums, o, f.sums, task)
    join_bias(dbias, o.bias, o.parts, o.groups * o.rows)
    fc_scratch_give(memory)
    return 0
