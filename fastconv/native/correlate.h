/* One panel of rows of a correlation by one block of pixels: tiles, and where their results go.
 *
 * A tile whose pixels lie together in the result writes them there. Others, and whole panels that are activated or go past the caches in lines that vectors would
 * share, are held in a buffer first. Knows nothing of threads and blocking.
 */
#ifndef FC_CORRELATE_H
#define FC_CORRELATE_H
enum { FC_AMONG = 64 };
typedef struct {
    ix rows, count, kc;        /* rows of the panel, products of a sum, of one of its pieces */
    ix a_row, a_step;          /* strides of A, in elements */
    ix fetch, fetch_step;      /* where A of the next panel begins, and how far apart its lines are */
    ix b_vector;               /* room for a vector of a whole sum */
    ix source_step;            /* from row to row of a source that is read in place, if they are evenly spaced, else 0 */
    ix every;                  /* and how far apart its pixels lie */
    const ix *next;            /* where the lines begin, in every row of it, that are likely to be read after this block, */
    ix next_lines, ahead;      /* how many, and how far the first one is */
    ix panel, panels;          /* number of this panel among those that pass over the block */
    int fresh;                 /* B is yet to be packed from a source that is read in place */
    const ix *row;             /* where every row of the patch matrix begins there */
    ix y_channel, yw;          /* strides of the result */
    int accumulate, stream, activation;
    /* The result has other positions between those of this sum, which are to hold the bias alone: where its first one lies in a plane of so many elements. */
    int among;                 /* (no more than FC_AMONG apart) */
    ix start, plane;
    const fc_grid *grid;
} fc_panel;
typedef struct {
    ix nv, to;                 /* vectors; where they lie in the result, if they lie together */
    int together, whole;       /* whole: they lie together in the source */
} fc_tile;
#endif

/* Stretches of pixels of vectors [first, last) of a block that lie together in the result: calls body with lane, at and n. */
#define EACH_STRETCH(b, first, last, yw, ...)                                                                                                       \
    do {                                                                                                                                            \
        const fc_segment *s_ = (b)->out + (b)->out_first[first], *const end_ = (b)->out + (b)->out_first[last];                                      \
        ix v_ = first;                                                                                                                              \
        while (s_ < end_) {                                                                                                                         \
            while (s_ >= (b)->out + (b)->out_first[v_ + 1]) v_++;                                                                                   \
            const ix lane = v_ * VL + s_->lane, at = s_->at;                                                                                        \
            ix n = s_->len;                                                                                                                         \
            for (s_++; s_ < end_ && s_->at == at + n * (yw); s_++) n += s_->len; /* lanes are consecutive as it is */                               \
            __VA_ARGS__                                                                                                                             \
        }                                                                                                                                           \
    } while (0)

/* What the result holds -> rows of the buffer. */
static void NAME(pick_up)(REAL *buffer, ix ld, const REAL *y, const fc_panel *p, const fc_block *b, ix first, ix last)
{
    EACH_STRETCH(b, first, last, p->yw, {
        for (ix i = 0; i < p->rows; i++) {
            REAL *to = buffer + i * ld + lane - first * VL;
            const REAL *from = y + i * p->y_channel + at;
            if (p->yw != 1) for (ix l = 0; l < n; l++) to[l] = from[l * p->yw];
            else for (ix l = 0; l < n; l += VL) STOREN(to + l, LOADN(from + l, FC_MIN(VL, n - l)), FC_MIN(VL, n - l));
        }
    });
}

/* And back. */
static void NAME(put_down)(REAL *y, const REAL *buffer, ix ld, const fc_panel *p, const fc_block *b, ix first, ix last)
{
    EACH_STRETCH(b, first, last, p->yw, {
        for (ix i = 0; i < p->rows; i++) {
            const REAL *from = buffer + i * ld + lane - first * VL;
            REAL *to = y + i * p->y_channel + at;
            if (p->yw != 1) {
                for (ix l = 0; l < n; l++) to[l * p->yw] = from[l];
                continue;
            }
            if (p->stream) {
                NAME(stream_out)(to, from, n);
                continue;
            }
            ix l = 0;
            for (; l + VL <= n; l += VL) STORE(to + l, LOAD(from + l));
            if (l < n) STOREN(to + l, LOADN(from + l, n - l), n - l);
        }
    });
}

/* The position in a plane, counted from that of output 0, of the output after the one at `at`; past the last one: the end of the plane. */
static ix NAME(position_after)(const fc_panel *p, ix at)
{
    const fc_grid *g = p->grid;
    ix d = at / g->yd, h = at % g->yd / g->yh, w = at % g->yd % g->yh / g->yw + 1;
    if (w == g->ow) w = 0, h++;
    if (h == g->oh) h = 0, d++;
    return d == g->od ? p->plane - p->start : d * g->yd + h * g->yh + w * g->yw;
}

/* `count` elements of the same value, to a place of the result or to where its lines gather. */
INLINE void NAME(put_rest)(NAME(gathered) *line, REAL *to, V rest, ix count, int stream)
{
    for (ix n; count > 0; count -= n, to += n) {
        n = FC_MIN(count, (ix)FC_BLOCK);
        REAL *o = stream ? NAME(gathered_room)(line, n) : to;
        for (ix l = 0; l < n; l += VL) STOREN(o + l, rest, FC_MIN(VL, n - l));
        line->held += n;
    }
}

/* Rows of the buffer -> outputs of a whole block and the positions up to the next output: what lies between outputs is written in the same pass. */
static void NAME(put_among)(REAL *y, const REAL *buffer, ix ld, const fc_panel *p, const fc_block *b, const REAL *bias)
{
    const fc_segment *const end = b->out + b->out_first[b->vectors];
    const ix yw = p->yw, yn = p->grid->yn, sample0 = b->out->at / yn * yn, beyond = NAME(position_after)(p, (end[-1].at % yn) + (end[-1].len - 1) * yw);
    NAME(gathered) line;
    for (ix i = 0; i < p->rows; i++, y += p->y_channel, buffer += ld) {
        const V rest = SPLAT(bias ? bias[i] : 0);
        const REAL *from = buffer;
        ix sample = sample0;
        line.held = 0;
        line.to = NULL;
        for (const fc_segment *s = b->out; s < end; from += s->len, s++) {
            REAL *to = y + s->at;
            while (s->at >= sample + yn) sample += yn;
            if (s->at == sample || s == b->out) { /* another plane */
                if (p->stream && line.held) NAME(gathered_write)(&line, 1);
                line.held = 0;
                line.to = s->at == sample ? to - p->start : to;
                if (s->at == sample) NAME(put_rest)(&line, line.to, rest, p->start, p->stream);
            }
            const ix next = s + 1 == end ? sample + beyond : s[1].at < sample + yn ? s[1].at : sample + p->plane - p->start;
            const ix left = next - s->at, n = FC_MIN(left, s->len * yw); /* a segment lies in one vector */
            REAL *o = p->stream ? NAME(gathered_room)(&line, n) : to;
            const V v = LOADN(from, s->len);
            if (yw == 1) STOREN(o, v, n);
            else if (yw == 2) {
                STOREN(o, NAME(zip)(v, rest, 0), FC_MIN(n, VL));
                if (n > VL) STOREN(o + VL, NAME(zip)(v, rest, 1), n - VL);
            } else {
                for (ix l = 0; l < n; l += VL) STOREN(o + l, rest, FC_MIN(VL, n - l));
                for (ix l = 0; l * yw < n; l++) o[l * yw] = from[l];
            }
            line.held += n;
            NAME(put_rest)(&line, to + n, rest, left - n, p->stream);
        }
        if (p->stream) NAME(gathered_write)(&line, 1);
    }
}

/* Cut a block into tiles, and see how each lies in the source and in the result; once for all panels. */
static void NAME(tiles_of)(fc_tile *tile, const fc_block *b, ix yw)
{
    for (ix j = 0; j < b->vectors; j += tile->nv, tile++) {
        tile->nv = NAME(tile_width)(b->vectors - j);
        tile->together = NAME(lies_together)(b, j, tile->nv, yw, &tile->to);
        tile->whole = 1;
        for (ix v = j; v < j + tile->nv; v++) {
            const fc_segment *s = b->in + b->in_first[v];
            tile->whole &= s->len == VL && s->at == b->in[b->in_first[j]].at + (v - j) * VL;
        }
    }
}

/* Rows of the patch matrix, behind the first `at` ones, from a strip, for all tiles of a block. */
static void NAME(pack_tiles)(REAL *B, ix b_vector, ix at, const REAL *strip, const ix *tap_offset, ix taps, const fc_block *b, const fc_tile *tile)
{
    for (ix j = 0; j < b->vectors; j += tile->nv, tile++)
        NAME(gather)(B + j * b_vector + at * tile->nv * VL, VL, tile->nv * VL, strip, tap_offset, taps, b, j, j + tile->nv, 0);
}

/* y: row 0 of the panel. A: its weights. B: packed, or room for it if p->fresh. buffer: room for MR rows of a block. */
static void NAME(panel)(const fc_panel *p, const fc_block *b, const fc_tile *tile, REAL *y, const REAL *A, REAL *B, const REAL *source, const REAL *bias,
                        REAL *buffer)
{
    const int lines = VBYTES == 64 && ((uintptr_t)y | (uintptr_t)(p->y_channel * REAL_BYTES)) % VBYTES == 0; /* vectors may be lines */
    const int held = p->activation || (p->stream && !lines) || p->among;
    const ix ld = held ? b->vectors * VL : NV * VL;
    /* What is read next is fetched while the later panels multiply, a line of every row during a tile, so that memory has the time of all of them; if they are too
     * few, while the first is packed. */
    const ix tiles = fc_ceil_div(b->vectors, NV), later = (p->panels - 1) * tiles, columns = p->next_lines;
    const int spread = columns && p->panel && later >= columns;
    ix column = spread ? (p->panel - 1) * tiles * columns / later : 0, due = spread ? (p->panel - 1) * tiles * columns % later : 0;
    NAME(sweep_of) t = {A, p->a_row, p->a_step, (const char *)(A + p->fetch), p->fetch_step * REAL_BYTES, B, source, p->source_step,
                        later < columns ? p->ahead : 0, A, 0, NULL, 0, buffer, ld, bias, 0};
    if (held && p->accumulate) NAME(pick_up)(buffer, ld, y, p, b, 0, b->vectors);
    for (ix j = 0, nv; j < b->vectors; j += nv, tile++) {
        int fresh = p->fresh;
        nv = tile->nv;
        t.B = B + j * p->b_vector;
        if (fresh && p->rows == MR && tile->whole && p->source_step && p->every == 1) t.source = source + p->row[0] + b->in[b->in_first[j]].at;
        else if (fresh) {
            (p->every == 1 ? NAME(gather) : NAME(gather_second))(t.B, VL, nv * VL, source, p->row, p->count, b, j, j + nv, t.ahead);
            fresh = 0;
        } else if (spread) { /* in which of `later` tiles each of the columns is due */
            due += columns;
            t.next = due >= later ? source + p->row[0] + p->next[column] : A;
            t.next_step = due >= later ? p->source_step : 0;
            if (due >= later) due -= later, column++;
        }
        const int direct = !held && tile->together && !(p->stream && tile->to * REAL_BYTES % VBYTES);
        if (direct) t.C = y + tile->to, t.ldc = p->y_channel, t.stream = p->stream;
        else {
            t.C = buffer + (held ? j * VL : 0), t.ldc = ld, t.stream = 0;
            if (p->accumulate && !held) NAME(pick_up)(buffer, ld, y, p, b, j, j + nv);
        }
        if (p->accumulate) t.before = t.C, t.before_row = t.ldc;
        NAME(sweep)(p->rows, nv, fresh, p->count, p->kc, &t);
        if (!direct && !held) NAME(put_down)(y, buffer, ld, p, b, j, j + nv);
    }
    if (!held) return;
    if (p->activation)
        for (ix i = 0; i < p->rows; i++) NAME(activate)(buffer + i * ld, b->lanes, p->activation);
    if (p->among) NAME(put_among)(y, buffer, ld, p, b, bias);
    else NAME(put_down)(y, buffer, ld, p, b, 0, b->vectors);
}
