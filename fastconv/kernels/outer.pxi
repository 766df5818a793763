# The outer-product driver: the gradient of the weights, on the same register tile.
#
#     dW[m, (c, t)] = sum over pixels (n, o) of dy[n, m, o] * source[n, c, o*step + offset[t]]
#
# Pixels are the index of the sum, so patches and dy are packed turned round. Blocks of pixels and partial sums are fixed, so bits do not depend on threads.

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


cdef void turn_patches(real *turned, ix span, real *patches, real *strip, const fc_source *source, ix channel, const fc_axis *axis, const fc_grid *grid,
                       const fc_block *block, const ix *rows, const ix *tap_offset, ix taps, ix first, ix last, ix ahead) noexcept nogil:
    """Rows [first, last) of the patch matrix of one block with pixels as the index of the sum: [vector of rows][pixel][row], vectors `span` apart."""
    cdef ix vl = vector_lanes(turned), stream = ceil_div(last - first, vl) * vl * vl
    cdef const char *plane = source.data + channel * source.c
    if rows != NULL:
        if real is float:
            gather_turned_f32(turned, span, <const float *> plane, rows + first, last - first, block, ahead)
        else:
            gather_turned_f64(turned, span, <const double *> plane, rows + first, last - first, block, ahead)
        return
    pack_patches(patches, stream, strip, source, channel, axis, grid, block, NULL, tap_offset, taps, first, last, 0)
    if real is float:
        transpose_f32(turned, span, patches, stream, last - first, block.vectors)
    else:
        transpose_f64(turned, span, patches, stream, last - first, block.vectors)


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
        turn_patches(A, span, patches, strip, &o.dy, g * o.rows, o.unit, &o.grid, &dy_block, o.dy_offset, &o.zero, 1, first_row, first_row + rows, lanes)
        turn_patches(B, span, patches, strip, &o.source, g * o.channels, o.axis, &o.grid, &block, o.row_offset, o.tap_offset, o.taps, first, first + columns,
                     lanes if o.taps == 1 else 0)
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
    if sums == dweight:
        return
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
    cdef char *first
    plan_outer(dweight, o, &sums, &tables, &per_thread)
    if 2.0 * pixels * o.groups * o.rows * o.columns < SERIAL_FLOPS:
        threads = 1
    if o.parts > o.grid.blocks:
        o.parts = o.grid.blocks if o.grid.blocks > 0 else 1
    memory = <char *> take_scratch(sums * o.parts + tables + threads * per_thread + 64)
    o.row_offset = NULL if o.staged else <ix *> (memory + sums * o.parts)
    o.dy_offset = NULL if o.dy_staged else <ix *> (memory + sums * o.parts) + o.columns
    if not o.staged:
        tabulate_rows(o.row_offset, o.channels, o.taps, o.source.c // <ix> sizeof(real), o.tap_offset)
    if not o.dy_staged:
        tabulate_rows(o.dy_offset, o.rows, 1, o.dy.c // <ix> sizeof(real), &o.zero)
    blocks = o.row_blocks * o.column_blocks
    first = <char *> dweight if o.parts == 1 and o.columns == o.padded_columns else memory
    tasks = o.parts * o.groups * blocks
    if threads == 1:
        for task in range(tasks):
            outer_task(<real *> (first + sums * (task // (o.groups * blocks))), o, memory + sums * o.parts + tables,
                       task // (o.groups * blocks), task // blocks % o.groups, task // o.column_blocks % o.row_blocks, task % o.column_blocks)
        for row in range(o.groups * o.rows):
            add_parts(dweight, <real *> first, o, row)
    else:
        for task in prange(tasks, num_threads=threads, schedule="dynamic"):
            outer_task(<real *> (first + sums * (task // (o.groups * blocks))), o, memory + sums * o.parts + tables + threadid() * per_thread,
                       task // (o.groups * blocks), task // blocks % o.groups, task // o.column_blocks % o.row_blocks, task % o.column_blocks)
        for row in prange(o.groups * o.rows, num_threads=threads, schedule="static"):
            add_parts(dweight, <real *> first, o, row)
    fc_scratch_give(memory)
    return 0
