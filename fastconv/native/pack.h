/* Packing: the only code that knows padding, stride, dilation, byte order and destination strides. One channel at a time.
 *
 * stage      source rows of a block -> strip
 * gather     strip (or source) -> packed panel B[vector][k][VL]
 * transpose  packed panel -> pixels as the reduction index, for the gradient of the weights; gather_turned does both at once
 * weights    any strides -> packed panel A[panel][k][MR]
 */

#if VBYTES == 64
/* Lanes of a mask from one place, of another from another; zeros elsewhere. */
#if REAL_BYTES == 4
INLINE V NAME(merge_more)(V v, const REAL *p, uint32_t mask, const REAL *q, uint32_t more)
{
    return (V)_mm512_mask_loadu_ps(_mm512_mask_loadu_ps((__m512)v, (__mmask16)mask, p), (__mmask16)more, q);
}
INLINE V NAME(merge_first)(const REAL *p, uint32_t mask, const REAL *q, uint32_t more)
{
    return (V)_mm512_mask_loadu_ps(_mm512_maskz_loadu_ps((__mmask16)mask, p), (__mmask16)more, q);
}
#else
INLINE V NAME(merge_more)(V v, const REAL *p, uint32_t mask, const REAL *q, uint32_t more)
{
    return (V)_mm512_mask_loadu_pd(_mm512_mask_loadu_pd((__m512d)v, (__mmask8)mask, p), (__mmask8)more, q);
}
INLINE V NAME(merge_first)(const REAL *p, uint32_t mask, const REAL *q, uint32_t more)
{
    return (V)_mm512_mask_loadu_pd(_mm512_maskz_loadu_pd((__mmask8)mask, p), (__mmask8)more, q);
}
#endif
#endif

/* Every `step`-th element, without touching memory past the last one. */
INLINE void NAME(copy_every)(REAL *dst, const char *src, ix count, ix step, ix stride, int swap)
{
    if (count > 0 && stride == (ix)sizeof(REAL) && !swap && (uintptr_t)src % sizeof(REAL) == 0) {
        /* Whole vectors; the last one reaches back into what is already done, so that it ends with the last element. */
        const REAL *p = (const REAL *)src;
        ix i = 0;
        if (step == 1 && count >= VL) {
            for (; i + VL <= count; i += VL) STORE(dst + i, LOAD(p + i));
            if (i < count) STORE(dst + count - VL, LOAD(p + count - VL));
            return;
        }
#if VBYTES == 64
        if (step == 1) {
            STOREN(dst, LOADN(p, count), count);
            return;
        }
#endif
        if (step == 2 && count > VL) {
            for (; i + VL < count; i += VL) STORE(dst + i, NAME(every_other)(LOAD(p + 2 * i), LOAD(p + 2 * i + VL), 0));
            p += 2 * (count - VL) - 1;
            STORE(dst + count - VL, NAME(every_other)(LOAD(p), LOAD(p + VL), 1));
            return;
        }
#if VBYTES == 64
        if (step == 2) {
            ix n = 2 * count - 1, low = FC_MIN(n, VL);
            STOREN(dst, NAME(every_other)(LOADN(p, low), LOADN(p + VL, n - low), 0), count);
            return;
        }
#endif
        if (step == 4 && count > VL) {
            for (; i + VL < count; i += VL) {
                const REAL *q = p + 4 * i;
                STORE(dst + i, NAME(every_other)(NAME(every_other)(LOAD(q), LOAD(q + VL), 0), NAME(every_other)(LOAD(q + 2 * VL), LOAD(q + 3 * VL), 0), 0));
            }
            p += 4 * (count - VL) - 3;
            STORE(dst + count - VL,
                  NAME(every_other)(NAME(every_other)(LOAD(p), LOAD(p + VL), 1), NAME(every_other)(LOAD(p + 2 * VL), LOAD(p + 3 * VL), 1), 1));
            return;
        }
    }
    NAME(copy_row)(dst, src, count, step * stride, swap);
}

/* Elements [from, to) of a row that starts at index `start`, outside the source, `axis->step` apart. */
static void NAME(stage_outside)(REAL *dst, const char *row, const fc_axis *axis, ix start, ix from, ix to, ix stride, int swap)
{
    for (ix i = from; i < to; i++) {
        ix s = fc_source_index(axis, start + i * axis->step);
        if (s < 0) dst[i] = 0;
        else NAME(copy_row)(dst + i, row + s * stride, 1, stride, swap);
    }
}

/* The part [low, high) of `count` elements, `step` apart from `start` on, that lies inside a row. */
INLINE void NAME(row_inside)(const fc_axis *axis, ix start, ix count, ix *low, ix *high)
{
    ix l = start >= 0 ? 0 : fc_ceil_div(-start, axis->step), h = start >= axis->size ? 0 : fc_ceil_div(axis->size - start, axis->step);
    *low = FC_MIN(l, count);
    *high = FC_MAX(FC_MIN(h, count), *low);
}

/* `count` elements of one source row; positions outside become what the padding mode says. row == NULL: zeros. */
INLINE void NAME(stage_part)(REAL *dst, const char *row, const fc_axis *axis, ix start, ix count, ix low, ix high, ix stride, int swap)
{
    if (!row) low = high = count;
    if (!row || axis->mode == FC_ZEROS) {
        for (ix i = 0; i < low; i++) dst[i] = 0;
        for (ix i = high; i < count; i++) dst[i] = 0;
    } else {
        NAME(stage_outside)(dst, row, axis, start, 0, low, stride, swap);
        NAME(stage_outside)(dst, row, axis, start, high, count, stride, swap);
    }
    if (high > low) NAME(copy_every)(dst + low, row + (start + low * axis->step) * stride, high - low, axis->step, stride, swap);
}

static void NAME(stage_row)(REAL *dst, const char *row, const fc_axis *axis, ix start, ix count, ix stride, int swap)
{
    ix low, high;
    NAME(row_inside)(axis, start, count, &low, &high);
    NAME(stage_part)(dst, row, axis, start, count, low, high, stride, swap);
}

#if MASKED_LOADS
/* Short rows, `every` (1, 2 or 4) elements apart, by a few masked loads; masked-off lanes are not touched in memory. A column of vectors after the other, whose
 * lanes are the same in every row. The last one reaches back into what is already done, so that it ends with the last element. */
INLINE void NAME(stage_short)(REAL *dst, ix pitch, const char *plane, ix stride_h, const fc_axis *ah, ix index, ix rows, const ix every, ix start, ix count,
                              ix low, ix high)
{
    for (ix at = 0; at < count; at += VL) {
        NAME(lanes_of) lanes[4];
        const ix l = FC_MIN(at, FC_MAX(count - VL, 0)), first = start + l * every;
        UNROLL for (ix e = 0; e < every; e++) lanes[e] = NAME(between)((low - l) * every - e * VL, (high - 1 - l) * every + 1 - e * VL);
        for (ix j = 0; j < rows; j++) {
            const ix h = fc_source_index(ah, index + j * ah->step);
            V v[4] = {{0}};
            if (plane && h >= 0 && high > low) {
                const REAL *row = (const REAL *)(plane + h * stride_h) + first;
                UNROLL for (ix e = 0; e < every; e++) v[e] = NAME(load_lanes)(row + e * VL, lanes[e]);
                UNROLL for (ix half = every; half > 1; half /= 2) UNROLL for (ix e = 0; e < half / 2; e++) v[e] = NAME(every_other)(v[2 * e], v[2 * e + 1], 0);
            }
            if (count >= VL) STORE(dst + j * pitch + l, v[0]);
            else STOREN(dst + j * pitch, v[0], count);
        }
    }
}
#endif

/* One piece along the width of rows index, index + step, ... of axis `ah`, `pitch` apart in the strip. plane == NULL: zeros. */
static void NAME(stage_rows)(REAL *dst, ix pitch, const char *plane, ix stride_h, ix stride, int swap, const fc_axis *ah, ix index, ix rows, const fc_axis *aw,
                             ix start, ix count)
{
    ix low, high;
    NAME(row_inside)(aw, start, count, &low, &high);
#if MASKED_LOADS
    if (count <= 5 * VL && aw->mode == FC_ZEROS && stride == (ix)sizeof(REAL) && !swap && ((uintptr_t)plane | (uintptr_t)stride_h) % sizeof(REAL) == 0) {
        switch (aw->step) {
        case 1: NAME(stage_short)(dst, pitch, plane, stride_h, ah, index, rows, 1, start, count, low, high); return;
        case 2: NAME(stage_short)(dst, pitch, plane, stride_h, ah, index, rows, 2, start, count, low, high); return;
        case 4: NAME(stage_short)(dst, pitch, plane, stride_h, ah, index, rows, 4, start, count, low, high); return;
        }
    }
#endif
    for (ix j = 0; j < rows; j++, dst += pitch) {
        ix h = fc_source_index(ah, index + j * ah->step);
        NAME(stage_part)(dst, plane && h >= 0 ? plane + h * stride_h : NULL, aw, start, count, low, high, stride, swap);
    }
}

/* The strip of one channel for every run of the block. `channel` points at the channel of sample 0. */
static void NAME(stage)(REAL *strip, const fc_source *s, const char *channel, const fc_axis *axis, const fc_block *b, ix max_rows, ix max_width)
{
    const fc_axis *ad = axis, *ah = axis + 1, *aw = axis + 2;
    ix width = max_width + aw->extra, row_size = aw->pieces * width, plane = (max_rows + ah->extra) * row_size;
    for (ix r = 0; r < b->runs; r++) {
        const fc_run *run = &b->run[r];
        const char *sample = channel + run->n * s->n;
        for (ix dp = 0; dp < ad->pieces; dp++)
            for (ix i = 0; i <= ad->extra; i++) {
                ix d = fc_source_index(ad, (run->od + i) * ad->step + ad->piece_offset[dp]);
                for (ix hp = 0; hp < ah->pieces; hp++) {
                    REAL *rows = strip + ((dp * (1 + ad->extra) + i) * ah->pieces + hp) * plane;
                    for (ix j = 0; s->ahead && s->w == (ix)sizeof(REAL) && j < run->rows; j++) {
                        const char *row = sample + s->ahead + ((run->oh + j) * ah->step + ah->piece_offset[hp]) * s->h;
                        for (ix at = 0; at < run->width * aw->step * s->w; at += 64) __builtin_prefetch(row + at, 0, 2);
                    }
                    for (ix wp = 0; wp < aw->pieces; wp++)
                        NAME(stage_rows)(rows + wp * width, row_size, d < 0 ? NULL : sample + d * s->d, s->h, s->w, s->swap, ah,
                                         run->oh * ah->step + ah->piece_offset[hp], run->rows + ah->extra, aw, run->q * aw->step + aw->piece_offset[wp],
                                         run->width + aw->extra);
                }
            }
        strip += ad->pieces * (1 + ad->extra) * ah->pieces * plane;
    }
}

/* VL elements, `every` (1 or 2) apart, without touching memory past the last one. */
INLINE V NAME(load_every)(const REAL *p, const ix every)
{
    return every == 1 ? LOAD(p) : NAME(second_of_each)(LOAD(p), LOAD(p + VL - 1));
}

/* Rows of the patch matrix, each at its own offset from the strip (or source), of vectors [first, last) of a block, the k-th of vector first + j at
 * B + j*stream + k*step. Pixels lie `every` elements apart in the source. `ahead`: elements from here to what this thread is likely to gather next, 0 if it should
 * not be fetched early. */
INLINE void NAME(gather_body)(REAL *restrict B, ix stream, ix step, const REAL *restrict strip, const ix every, const ix *restrict tap_offset, ix taps,
                              const fc_block *b, ix first, ix last, ix ahead)
{
    for (ix j = first; j < last; j++, B += stream) {
        const fc_segment *seg = b->in + b->in_first[j], *end = b->in + b->in_first[j + 1];
        if (seg->len == VL) {
            const REAL *p = strip + seg->at;
            for (ix t = 0; t < taps; t++) {
                /* The same place of a later block: it has the time of a whole block of products to arrive. */
                if (ahead) UNROLL for (ix e = 0; e < every; e++) __builtin_prefetch(p + tap_offset[t] + ahead + e * VL, 0, 2);
                *(V *)(B + t * step) = NAME(load_every)(p + tap_offset[t], every);
            }
            continue;
        }
#if VBYTES == 64
        if (end - seg <= 4) { /* a few masked loads, merged in a register; masked-off lanes are not touched in memory */
            const ix n = end - seg;
            const REAL *p[4];
            uint32_t mask[4]; /* of `every` vectors */
            for (ix i = 0; i < 4; i++) {
                const fc_segment *u = seg + FC_MIN(i, n - 1);
                p[i] = strip + (u->at - u->lane * every);
                mask[i] = i < n ? ((1u << u->len * every) - 1) << u->lane * every & (every == 1 ? ~0u : 0x55555555u) : 0;
            }
            for (ix t = 0; t < taps; t++) {
                const ix o = tap_offset[t];
                V v[2];
                UNROLL for (ix e = 0; e < every; e++)
                {
                    v[e] = NAME(merge_first)(p[0] + o + e * VL, mask[0] >> e * VL, p[1] + o + e * VL, mask[1] >> e * VL);
                    if (n > 2) v[e] = NAME(merge_more)(v[e], p[2] + o + e * VL, mask[2] >> e * VL, p[3] + o + e * VL, mask[3] >> e * VL);
                }
                *(V *)(B + t * step) = every == 1 ? v[0] : NAME(every_other)(v[0], v[1], 0);
            }
            continue;
        }
#endif
        ix used = end[-1].lane + end[-1].len;
        for (ix t = 0; t < taps; t++) {
            REAL *o = B + t * step;
            const REAL *p = strip + tap_offset[t];
            for (const fc_segment *u = seg; u < end; u++)
                for (ix l = 0; l < u->len; l++) o[u->lane + l] = p[u->at + l * every];
            for (ix l = used; l < VL; l++) o[l] = 0;
        }
    }
}

static void NAME(gather)(REAL *B, ix stream, ix step, const REAL *strip, const ix *tap_offset, ix taps, const fc_block *b, ix first, ix last, ix ahead)
{
    NAME(gather_body)(B, stream, step, strip, 1, tap_offset, taps, b, first, last, ahead);
}

static void NAME(gather_second)(REAL *B, ix stream, ix step, const REAL *strip, const ix *tap_offset, ix taps, const fc_block *b, ix first, ix last, ix ahead)
{
    NAME(gather_body)(B, stream, step, strip, 2, tap_offset, taps, b, first, last, ahead);
}

/* One VL x VL block. */
INLINE void NAME(transpose_block)(REAL *restrict dst, const REAL *restrict src)
{
#if VBYTES == 64 && REAL_BYTES == 4
    __m512 a[16], b[16];
    UNROLL for (int i = 0; i < 16; i++) a[i] = _mm512_load_ps(src + 16 * i);
    UNROLL for (int i = 0; i < 8; i++)
    {
        b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        a[4 * i + 0] = _mm512_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
        a[4 * i + 1] = _mm512_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
        a[4 * i + 2] = _mm512_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
        a[4 * i + 3] = _mm512_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        b[i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88);
        b[4 + i] = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
        b[8 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
        b[12 + i] = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        _mm512_store_ps(dst + 16 * i, _mm512_shuffle_f32x4(b[i], b[8 + i], 0x88));
        _mm512_store_ps(dst + 16 * (8 + i), _mm512_shuffle_f32x4(b[i], b[8 + i], 0xdd));
        _mm512_store_ps(dst + 16 * (4 + i), _mm512_shuffle_f32x4(b[4 + i], b[12 + i], 0x88));
        _mm512_store_ps(dst + 16 * (12 + i), _mm512_shuffle_f32x4(b[4 + i], b[12 + i], 0xdd));
    }
#elif VBYTES == 32 && REAL_BYTES == 4
    __m256 a[8], b[8];
    UNROLL for (int i = 0; i < 8; i++) a[i] = _mm256_load_ps(src + 8 * i);
    UNROLL for (int i = 0; i < 4; i++)
    {
        b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 2; i++)
    {
        a[4 * i + 0] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
        a[4 * i + 1] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
        a[4 * i + 2] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
        a[4 * i + 3] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        _mm256_store_ps(dst + 8 * i, _mm256_permute2f128_ps(a[i], a[4 + i], 0x20));
        _mm256_store_ps(dst + 8 * (4 + i), _mm256_permute2f128_ps(a[i], a[4 + i], 0x31));
    }
#else
    for (ix i = 0; i < VL; i++)
        for (ix j = 0; j < VL; j++) dst[i * VL + j] = src[j * VL + i];
#endif
}

/* Panel [vector][rows][VL pixels] -> [row group of VL][pixel][VL rows]; rows past `rows` become zeros. `in_stream` and `out_stream` are the distances
 * between vectors of the one and row groups of the other. */
static void NAME(transpose)(REAL *restrict dst, ix out_stream, const REAL *restrict src, ix in_stream, ix rows, ix vectors)
{
    for (ix g = 0; g * VL < rows; g++) {
        ix n = FC_MIN(VL, rows - g * VL);
        for (ix j = 0; j < vectors; j++) {
            const REAL *s = src + j * in_stream + g * VL * VL;
            REAL *d = dst + g * out_stream + j * VL * VL;
            if (n == VL) NAME(transpose_block)(d, s);
            else
                for (ix p = 0; p < VL; p++)
                    for (ix r = 0; r < VL; r++) d[p * VL + r] = r < n ? s[r * VL + p] : 0;
        }
    }
}

/* gather and transpose in one: rows of the patch matrix, each at its own offset from a source that is read in place, turned into [row group of VL][pixel][VL rows].
 * every, ahead: as for gather. */
INLINE void NAME(gather_turned_body)(REAL *restrict dst, ix out_stream, const REAL *restrict source, const ix every, const ix *restrict row_offset, ix rows,
                                     const fc_block *b, ix ahead)
{
    REAL panel[VL * VL] __attribute__((aligned(64)));
    for (ix g = 0; g < rows; g += VL, dst += out_stream) {
        const ix n = FC_MIN(VL, rows - g);
        for (ix l = n * VL; l < VL * VL; l++) panel[l] = 0;
        for (ix j = 0; j < b->vectors; j++) {
            const fc_segment *seg = b->in + b->in_first[j], *end = b->in + b->in_first[j + 1];
            for (ix r = 0; r < n; r++) {
                const REAL *p = source + row_offset[g + r];
                V v = {0};
                if (seg->len == VL) {
                    UNROLL for (ix e = 0; e < every; e++) __builtin_prefetch(p + seg->at + ahead + e * VL, 0, 2);
                    v = NAME(load_every)(p + seg->at, every);
                } else
                    for (const fc_segment *u = seg; u < end; u++) {
                        const REAL *q = p + u->at - u->lane * every;
                        const ix low = u->lane * every, high = (u->lane + u->len - 1) * every + 1;
                        const V part = NAME(load_between)(q, low, high);
                        v += every == 1 ? part : NAME(every_other)(part, NAME(load_between)(q + VL, low - VL, high - VL), 0);
                    }
                *(V *)(panel + r * VL) = v;
            }
            NAME(transpose_block)(dst + j * VL * VL, panel);
        }
    }
}

static void NAME(gather_turned)(REAL *dst, ix out_stream, const REAL *source, ix every, const ix *row_offset, ix rows, const fc_block *b, ix ahead)
{
    if (every == 1) NAME(gather_turned_body)(dst, out_stream, source, 1, row_offset, rows, b, ahead);
    else NAME(gather_turned_body)(dst, out_stream, source, 2, row_offset, rows, b, ahead);
}

/* The largest plane of taps that is shuffled as a whole. */
#undef FC_PLANE
#define FC_PLANE 32

/* The rows of a packed panel at one k. */
#undef W
#define W NAME(panel_vec)
typedef REAL W __attribute__((vector_size(MR_BYTES), aligned(REAL_BYTES), may_alias));

/* A perfect shuffle of MR vectors: a[i] lane k becomes lane k*MR + i of their concatenation. */
INLINE void NAME(interleave)(V *a)
{
    V b[MR];
    UNROLL for (ix half = 1; half < MR; half *= 2)
    {
        UNROLL for (ix i = 0; i < MR / 2; i++)
        {
            b[2 * i] = NAME(zip)(a[i], a[i + MR / 2], 0);
            b[2 * i + 1] = NAME(zip)(a[i], a[i + MR / 2], 1);
        }
        UNROLL for (ix i = 0; i < MR; i++) a[i] = b[i];
    }
}

/* MR rows of `count` neighbouring elements each -> A[count][MR], VL elements of every row at a time. */
static void NAME(interleave_rows)(REAL *restrict A, const REAL *rows, ix row_stride, ix count)
{
    ix k = 0;
    V a[MR];
    for (; k + VL <= count; k += VL) {
        UNROLL for (ix i = 0; i < MR; i++) a[i] = LOAD(rows + i * row_stride + k);
        NAME(interleave)(a);
        UNROLL for (ix i = 0; i < MR; i++) STORE(A + k * MR + i * VL, a[i]);
    }
#if VBYTES == 64
    if (k < count) {
        ix left = count - k;
        UNROLL for (ix i = 0; i < MR; i++) a[i] = LOADN(rows + i * row_stride + k, left);
        NAME(interleave)(a);
        left *= MR;
        UNROLL for (ix i = 0; i < MR; i++, left -= VL)
            if (left > 0) STOREN(A + k * MR + i * VL, a[i], FC_MIN(left, VL));
    }
#else
    for (; k < count; k++)
        UNROLL for (ix i = 0; i < MR; i++) A[k * MR + i] = rows[i * row_stride + k];
#endif
}

/* Panel of MR rows, A[k][MR] with k = (channel, tap): element at data + row*row_stride + channel*channel_stride + tap_offset[tap], zero for FC_NO_TAP. */
static void NAME(pack_weights)(REAL *restrict A, const char *data, ix rows, ix row_stride, ix channels, ix channel_stride, const ix *tap_offset, ix taps,
                               int swap)
{
    const ix size = (ix)sizeof(REAL);
    int plain = !swap && rows == MR && row_stride % size == 0 && (uintptr_t)data % sizeof(REAL) == 0 && channel_stride % size == 0, together = plain;
    ix span = 0; /* taps lie in the first `span` elements of a plane, or 0 if they do not */
    for (ix t = 0; t < taps; t++) {
        plain &= tap_offset[t] == FC_NO_TAP || tap_offset[t] % size == 0;
        together &= tap_offset[t] == t * size;
        if (tap_offset[t] != FC_NO_TAP) span = tap_offset[t] < 0 ? PTRDIFF_MAX : FC_MAX(span, tap_offset[t] / size + 1);
    }
    if (together && (channels == 1 || channel_stride == taps * size)) {
        NAME(interleave_rows)(A, (const REAL *)data, row_stride / size, channels * taps);
        return;
    }
    if (plain && row_stride != size && taps > 1 && span <= FC_MIN(4 * taps, FC_PLANE)) { /* in another order, or channels apart: shuffled a plane at a time */
        REAL plane[FC_PLANE * MR] __attribute__((aligned(64)));
        for (ix c = 0; c < channels; c++) {
            NAME(interleave_rows)(plane, (const REAL *)(data + c * channel_stride), row_stride / size, span);
            for (ix t = 0; t < taps; t++, A += MR)
                *(W *)A = tap_offset[t] == FC_NO_TAP ? (W){0} : *(const W *)(plane + tap_offset[t] / size * MR);
        }
        return;
    }
    for (ix c = 0; c < channels; c++)
        for (ix t = 0; t < taps; t++, A += MR) {
            if (tap_offset[t] == FC_NO_TAP) {
                for (ix i = 0; i < MR; i++) A[i] = 0;
                continue;
            }
            const char *p = data + c * channel_stride + tap_offset[t];
            if (plain && row_stride == size) {
                UNROLL for (ix i = 0; i < MR; i++) A[i] = ((const REAL *)p)[i];
            } else if (plain) {
                UNROLL for (ix i = 0; i < MR; i++) A[i] = *(const REAL *)(p + i * row_stride);
            } else {
                for (ix i = 0; i < rows; i++) NAME(copy_row)(A + i, p + i * row_stride, 1, 0, swap);
                for (ix i = rows; i < MR; i++) A[i] = 0;
            }
        }
}

/* True if the nv vectors from `vector` on are full and lie one behind the other in the destination; *at is where. */
INLINE int NAME(lies_together)(const fc_block *b, ix vector, ix nv, ix yw, ix *at)
{
    if (yw != 1) return 0;
    *at = b->out[b->out_first[vector]].at;
    for (ix j = 0; j < nv; j++) {
        const fc_segment *s = b->out + b->out_first[vector + j];
        if (s->len != VL || s->at != *at + j * VL) return 0;
    }
    return 1;
}
