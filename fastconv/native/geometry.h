/* Where the elements of a convolution lie: axes, output pixels, and the strips that packing stages. Independent of the element type.
 *
 * A correlation reads source index o*step + offset[t] for output o and tap t, along each of three axes. Output pixels are handled in blocks.
 * A block is a list of runs (rectangles of output rows in one sample) whose pixels are numbered consecutively; VL pixels make a vector.
 * For one channel, packing first copies the rows that a run needs into a strip (padding, stride, byte order resolved there and only there),
 * after which every tap of every vector is a plain load at a fixed offset.
 */
#ifndef FC_GEOMETRY_H
#define FC_GEOMETRY_H
#include <stddef.h>
#include <stdint.h>

typedef ptrdiff_t ix;

#define FC_NO_TAP PTRDIFF_MIN /* in a table of tap offsets: this tap is a zero */

enum { FC_ZEROS = 0, FC_REFLECT = 1, FC_REPLICATE = 2, FC_CIRCULAR = 3 };

typedef struct {
    ix size;          /* extent of the source */
    ix out;           /* number of output positions */
    ix step;          /* source step from one output to the next */
    ix taps;
    ix *offset;       /* [taps] source offset of each tap */
    int mode;         /* what lies outside */
    /* Staging: output positions q .. q+n need, for each piece, the n + extra source elements from q*step + piece_offset on, `step` apart.
     * Tap t then reads piece tap_piece[t], tap_delta[t] elements further. */
    ix pieces, extra;
    ix *piece_offset, *tap_piece, *tap_delta; /* [taps] each */
} fc_axis;

/* The source index that position i stands for, or -1 for a padding zero. */
static inline ix fc_source_index(const fc_axis *a, ix i)
{
    if (i >= 0 && i < a->size) return i;
    switch (a->mode) {
    case FC_REPLICATE: return i < 0 ? 0 : a->size - 1;
    case FC_CIRCULAR: i %= a->size; return i < 0 ? i + a->size : i;
    case FC_REFLECT: {
        if (a->size == 1) return 0;
        ix period = 2 * (a->size - 1);
        i %= period;
        if (i < 0) i += period;
        return i < a->size ? i : period - i;
    }
    }
    return -1;
}

/* Choose how to stage: one piece for each residue of the offsets modulo step (neighbouring taps share elements), or one piece for each tap
 * (taps lie far apart). `n` is the number of outputs staged together. */
static inline void fc_axis_stage(fc_axis *a, ix n)
{
    ix low = a->taps ? a->offset[0] : 0, extra = 0, pieces = 0;
    for (ix t = 1; t < a->taps; t++)
        if (a->offset[t] < low) low = a->offset[t];
    for (ix t = 0; t < a->taps; t++) {
        ix residue = (a->offset[t] - low) % a->step, piece = 0;
        while (piece < pieces && a->piece_offset[piece] != low + residue) piece++;
        if (piece == pieces) a->piece_offset[pieces++] = low + residue;
        a->tap_piece[t] = piece;
        a->tap_delta[t] = (a->offset[t] - low) / a->step;
        if (a->tap_delta[t] > extra) extra = a->tap_delta[t];
    }
    if (pieces * (n + extra) > a->taps * n) {
        pieces = a->taps;
        extra = 0;
        for (ix t = 0; t < a->taps; t++) {
            a->piece_offset[t] = a->offset[t];
            a->tap_piece[t] = t;
            a->tap_delta[t] = 0;
        }
    }
    a->pieces = pieces;
    a->extra = extra;
}

/* True if no tap of any output falls outside the source. */
static inline int fc_axis_inside(const fc_axis *a)
{
    for (ix t = 0; t < a->taps; t++)
        if (a->offset[t] < 0 || (a->out - 1) * a->step + a->offset[t] >= a->size) return 0;
    return 1;
}

typedef struct {
    const char *data;
    ix n, c, d, h, w; /* strides in bytes */
    int swap;         /* bytes in the other order */
    ix ahead;         /* from a row that is staged to one that is likely to be staged later, and is fetched early; 0: none is */
} fc_source;

/* How output pixels are dealt to blocks. Rows longer than a block are cut into pieces of `width`; shorter ones are numbered flat over (n, od, oh, ow). */
typedef struct {
    ix samples, od, oh, ow;     /* the output grid */
    ix yn, yd, yh, yw;          /* strides of the destination in elements */
    ix vl;
    int by_row;
    ix lanes;                   /* pixels in a full block */
    ix width, pieces_per_row;   /* by_row */
    ix blocks;
    ix max_runs, max_rows, max_width;
} fc_grid;

typedef struct { ix n, od, oh, rows, q, width; } fc_run;
typedef struct { int lane, len; ix at; } fc_segment;
typedef struct { ix a, b, len; } fc_stretch; /* neighbouring pixels of a sum over pixels: where they lie in its two operands */

typedef struct {
    ix lanes, vectors, runs;
    fc_run *run;                    /* [max_runs] */
    fc_segment *in, *out;           /* [lanes] each: pieces of vectors that lie together in the strip (or source), in the destination */
    ix *in_first, *out_first;       /* [vectors + 1] first segment of each vector */
} fc_block;

static inline ix fc_ceil_div(ix a, ix b) { return (a + b - 1) / b; }

/* Lay out blocks of about `lanes` pixels. */
static inline void fc_grid_cut(fc_grid *g, ix lanes)
{
    ix rows = g->samples * g->od * g->oh;
    lanes = fc_ceil_div(lanes, g->vl) * g->vl;
    g->by_row = g->ow > lanes;
    if (g->by_row) {
        g->pieces_per_row = fc_ceil_div(g->ow, lanes);
        g->width = fc_ceil_div(fc_ceil_div(g->ow, g->pieces_per_row), g->vl) * g->vl;
        g->pieces_per_row = fc_ceil_div(g->ow, g->width);
        g->lanes = g->width;
        g->blocks = rows * g->pieces_per_row;
        g->max_runs = g->max_rows = 1;
        g->max_width = g->width;
    } else {
        g->lanes = lanes;
        g->width = g->ow;
        g->pieces_per_row = 1;
        g->blocks = fc_ceil_div(rows * g->ow, lanes);
        ix plane = g->oh * g->ow;
        g->max_runs = plane ? (lanes + plane - 2) / plane + 1 : 1;
        g->max_rows = (lanes + g->ow - 2) / (g->ow ? g->ow : 1) + 1;
        if (g->max_rows > g->oh) g->max_rows = g->oh;
        g->max_width = g->ow;
    }
}

/* The bytes of the arrays of one block, and handing them out. */
static inline size_t fc_block_bytes(const fc_grid *g)
{
    return sizeof(fc_run) * g->max_runs + 2 * sizeof(fc_segment) * g->lanes + 2 * sizeof(ix) * (g->lanes / g->vl + 1);
}

static inline void fc_block_place(fc_block *b, const fc_grid *g, char *memory)
{
    b->run = (fc_run *)memory;
    b->in = (fc_segment *)(b->run + g->max_runs);
    b->out = b->in + g->lanes;
    b->in_first = (ix *)(b->out + g->lanes);
    b->out_first = b->in_first + g->lanes / g->vl + 1;
}

static inline void fc_add_segment(fc_segment *list, ix *count, ix first, int lane, int len, ix at, ix every, int joins)
{
    if (joins && *count > first) {
        fc_segment *last = &list[*count - 1];
        if (last->lane + last->len == lane && last->at + last->len * every == at) {
            last->len += len;
            return;
        }
    }
    list[(*count)++] = (fc_segment){lane, len, at};
}

/* Describe block `id`. `staged`: segments of `in` are offsets into the strip, in which a run takes `run_size` elements and a row `row_size`;
 * else offsets into the source itself, whose element strides are sn, sd, sh and sw. */
static inline void fc_block_make(fc_block *b, const fc_grid *g, ix id, int staged, ix run_size, ix row_size, ix sn, ix sd, ix sh, ix sw)
{
    ix row, q, lanes;
    if (g->by_row) {
        row = id / g->pieces_per_row;
        q = id % g->pieces_per_row * g->width;
        lanes = g->ow - q < g->width ? g->ow - q : g->width;
    } else {
        ix first = id * g->lanes, total = g->samples * g->od * g->oh * g->ow;
        lanes = total - first < g->lanes ? total - first : g->lanes;
        row = first / g->ow;
        q = first % g->ow;
    }
    b->lanes = lanes;
    b->vectors = fc_ceil_div(lanes, g->vl);
    b->runs = 0;
    ix oh = row % g->oh, od = row / g->oh % g->od, n = row / g->oh / g->od;
    ix ins = 0, outs = 0, vector = 0, in_first = 0, out_first = 0;
    const ix every = staged ? 1 : sw;
    int lane = 0;
    b->in_first[0] = b->out_first[0] = 0;
    fc_run *run = NULL;
    while (lanes > 0) {
        ix len = g->by_row ? lanes : g->ow - q;
        if (len > lanes) len = lanes;
        if (!run || run->n != n || run->od != od) {
            run = &b->run[b->runs++];
            *run = (fc_run){n, od, oh, 0, g->by_row ? q : 0, g->by_row ? len : g->ow};
        }
        run->rows++;
        ix in = staged ? (b->runs - 1) * run_size + (oh - run->oh) * row_size + (q - run->q) : n * sn + od * sd + oh * sh + q * sw;
        ix out = n * g->yn + od * g->yd + oh * g->yh + q * g->yw;
        lanes -= len;
        while (len > 0) {
            int part = (int)(len < g->vl - lane ? len : g->vl - lane);
            fc_add_segment(b->in, &ins, in_first, lane, part, in, every, 1);
            fc_add_segment(b->out, &outs, out_first, lane, part, out, 1, g->yw == 1);
            in += part * every;
            out += part * g->yw;
            len -= part;
            lane += part;
            if (lane == g->vl) {
                lane = 0;
                vector++;
                b->in_first[vector] = in_first = ins;
                b->out_first[vector] = out_first = outs;
            }
        }
        q = 0;
        if (++oh == g->oh) {
            oh = 0;
            if (++od == g->od) {
                od = 0;
                n++;
            }
        }
    }
    if (lane) {
        b->in_first[vector + 1] = ins;
        b->out_first[vector + 1] = outs;
    }
}

/* Where the lines of `line` elements begin that a block reads of a source in place, `every`-th element by element; returns how many, at most `most`. */
static inline ix fc_block_lines(ix *at, ix most, const fc_block *b, ix every, ix line)
{
    const fc_segment *s = b->in, *end = b->in + b->in_first[b->vectors];
    ix n = 0, next = 0;
    for (; s < end; s++) {
        if (n == 0 || next <= s->at || next > s->at + line) next = s->at; /* else the last line holds what this segment begins with */
        for (; next <= s->at + (s->len - 1) * every && n < most; next += line) at[n++] = next;
    }
    return n;
}
#endif
