/* The frame of the convolutions with VPDPBUSD: where the rows of a chunk lie, what is copied for
 * them, and the walk over chunks, groups and blocks of columns. Included by the file of an
 * instruction set, which defines the functions declared here and runs the blocks. */
#ifndef RUNG_KERNELS_X86_GEMM_VNNI_ROWS_H
#define RUNG_KERNELS_X86_GEMM_VNNI_ROWS_H

#include <limits.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/x86/block_out.h"
#include "kernels/x86/gemm_vnni.h"
#include "kernels/x86/rows.h"

/* Where the rows of a chunk begin: `width` of them `step` bytes apart, then a gap, and so on. */
typedef struct row_cursor {
    const uint8_t *at; /* the next row */
    int x, width;      /* its place in the line */
    ptrdiff_t step, gap;
} row_cursor;

INLINE void cursor_step(row_cursor *c, int n)
{
    c->at += n * c->step;
    c->x += n;
    if (c->x == c->width) {
        c->x = 0;
        c->at += c->gap;
    }
}

INLINE void cursor_take(row_cursor *c, int n, const uint8_t *base[8])
{
    if (c->x + n <= c->width) {
        UNROLL
        for (int r = 0; r < n; r++)
            base[r] = c->at + r * c->step;
        cursor_step(c, n);
        return;
    }
    UNROLL
    for (int r = 0; r < n; r++) {
        base[r] = c->at;
        cursor_step(c, 1);
    }
}

/* What the dot products of a block read. */
typedef struct block_in {
    const int8_t *w;
    const ptrdiff_t *offset; /* [taps] */
    int taps, quads;
    bool shared; /* lines of three pixels, whose rows are one pixel apart: tile_shared */
} block_in;

/* Of the instruction set: rows of its tiles, copies, and n rows of a block of 16 * vectors
 * columns. */
static size_t tile_rows(const gemm_plan *p);
INLINE void copy_bytes(uint8_t *to, const uint8_t *from, size_t n);
static void run_block(int vectors, const block_in *in, const row_cursor *rows, size_t n,
                      const block_out *b);

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* WHOLE: all taps of n rows side by side. */
static void copy_rows(const row_source *r, const gemm_plan *p, size_t first, size_t n,
                      size_t x_offset, uint8_t *row)
{
    const conv_shape *s = r->s;
    row_pixel px = row_pixel_at(r, first);
    for (size_t i = 0; i < n; i++, row += p->row_bytes, row_pixel_next(r, &px)) {
        uint8_t *at = row;
        memset(row + p->row_bytes - 4, 0, 4);
        for (int ky = 0; ky < s->kernel_h; ky++)
            for (int kx = 0; kx < s->kernel_w; kx++, at += p->in_c)
                copy_bytes(at, row_pixel_tap(r, &px, ky, kx) + x_offset, p->in_c);
    }
}

/* The lines of an image that output lines [oy, oy + n) read, with the padding around them. */
static void fill_strip(const conv_shape *s, const gemm_plan *p, const uint8_t *image, int x_zero,
                       int oy, int n, uint8_t *strip)
{
    const size_t in_c = s->in_c, line_bytes = (size_t)p->strip_w * in_c;
    const int lines = (n - 1) * s->stride_h + (s->kernel_h - 1) * s->dilation_h + 1;
    const int left = s->pad_left < p->strip_w ? s->pad_left : p->strip_w;
    const int inside = s->in_w < p->strip_w - left ? s->in_w : p->strip_w - left;
    const size_t right = (size_t)(p->strip_w - left - inside);
    int64_t iy = (int64_t)oy * s->stride_h - s->pad_top;
    for (int i = 0; i < lines; i++, iy++, strip += line_bytes) {
        if (iy < 0 || iy >= s->in_h) {
            memset(strip, x_zero, line_bytes);
            continue;
        }
        memset(strip, x_zero, left * in_c);
        memcpy(strip + left * in_c, image + (size_t)iy * s->in_w * in_c, inside * in_c);
        memset(strip + line_bytes - right * in_c, x_zero, right * in_c);
    }
    memset(strip, 0, 4); /* lines rounded up to 4 bytes read it, against zero weights */
}

/* One call: what all chunks share. */
typedef struct gemm_call {
    const conv_shape *s;
    gemm_plan p;
    const char *packed;
    const uint8_t *x;
    int x_zero;
    const requant *q; /* NULL: y is int32 sums */
    uint8_t *y;
    size_t y_size; /* bytes of an output value */
    size_t b0, b1; /* blocks of columns */
    bool bounded;
    ptrdiff_t *offset;
    uint8_t *copies;
    row_source source; /* WHOLE */
    bool flat;         /* row lies behind row, image behind image */
} gemm_call;

/* Rows [first, first + n) of group g. */
static void run_group(const gemm_call *c, const row_cursor *rows, size_t first, size_t n, int g)
{
    const gemm_plan *p = &c->p;
    const int32_t *bias = (const int32_t *)(const void *)(c->packed + g * p->group_bytes);
    const int8_t *w = (const int8_t *)(bias + (size_t)p->vectors * 16);
    const size_t vector_bytes = (size_t)p->taps * p->quads * 64;
    const bool shared =
        p->kind == LINES && c->s->kernel_w == 3 && c->s->stride_w == 1 && p->in_c % 4 == 0;
    for (int block = (int)c->b0; block < (int)c->b1; block++) {
        const int v0 = gemm_block_start(p, block), v1 = gemm_block_start(p, block + 1);
        const size_t column = (size_t)g * p->out_c + 16 * (size_t)v0;
        block_out b = {.bias = bias + 16 * (size_t)v0,
                       .y = c->y + (first * c->s->out_c + column) * c->y_size,
                       .y_stride = c->s->out_c * c->y_size,
                       .last = v1 == p->vectors ? p->out_c - 16 * (p->vectors - 1) : 16,
                       .sums = !c->q,
                       .bounded = c->bounded};
        if (c->q)
            block_out_requant(&b, c->q, column);
        const block_in in = {w + v0 * vector_bytes, c->offset, p->taps, p->quads, shared};
        run_block(v1 - v0, &in, rows, n, &b);
    }
}

/* How many rows from `row` on are made at once: of one image, where they are not all alike. */
static size_t chunk_rows(const gemm_call *c, size_t row, size_t last)
{
    const conv_shape *s = c->s;
    const size_t image_rows = (size_t)s->out_h * s->out_w, in_image = row % image_rows;
    size_t n = last - row;
    if (c->p.strip)
        n = min_size(n, (in_image / s->out_w + c->p.chunk_lines) * s->out_w - in_image);
    else
        n = min_size(n, c->p.chunk);
    return c->flat || c->p.kind == WHOLE ? n : min_size(n, image_rows - in_image);
}

/* The bases of n rows; what no address in the image can reach is copied. */
static row_cursor place_rows(const gemm_call *c, size_t row, size_t n)
{
    const conv_shape *s = c->s;
    const gemm_plan *p = &c->p;
    row_cursor r = {.at = c->copies, .width = INT_MAX, .step = (ptrdiff_t)p->row_bytes};
    if (p->kind == WHOLE)
        return r;
    const size_t image_rows = (size_t)s->out_h * s->out_w, in_image = row % image_rows;
    const int oy = (int)(in_image / s->out_w);
    ptrdiff_t line = (ptrdiff_t)s->in_w * s->in_c;
    r.step = (ptrdiff_t)s->stride_w * s->in_c;
    r.at = c->x + row / image_rows * ((size_t)s->in_h * (size_t)line);
    if (p->strip) {
        const int end = (int)((in_image + n - 1) / s->out_w) + 1;
        fill_strip(s, p, r.at, c->x_zero, oy, end - oy, c->copies);
        r.at = c->copies;
        line = (ptrdiff_t)p->strip_w * s->in_c;
    } else {
        r.at += (size_t)oy * s->stride_h * (size_t)line;
    }
    r.x = (int)(in_image % s->out_w);
    r.at += r.x * r.step;
    if (c->flat) {
        r.x = 0;
        return r;
    }
    r.width = s->out_w;
    r.gap = s->stride_h * line - s->out_w * r.step;
    return r;
}

/* The taps' offsets, where a row is no copy of its own. */
static void place_taps(gemm_call *c)
{
    const conv_shape *s = c->s;
    const int per_line = c->p.kind == PIXELS ? s->kernel_w : 1;
    const ptrdiff_t line = (ptrdiff_t)(c->p.strip ? c->p.strip_w : s->in_w) * s->in_c;
    for (int t = 0; t < c->p.taps; t++)
        c->offset[t] = t / per_line * s->dilation_h * line +
                       (ptrdiff_t)(t % per_line) * s->dilation_w * s->in_c;
}

/* Tap offsets, padding of copied rows, copies. */
static size_t gemm_scratch_size(const conv_shape *s, int block_vectors)
{
    const gemm_plan p = gemm_vnni_plan(s, block_vectors);
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    return round64(taps * sizeof(ptrdiff_t)) + (p.kind == WHOLE ? round64(s->in_c) : 0) +
           round64(p.copy_bytes);
}

/* y: bytes, or int32 sums where q is NULL. */
static void gemm_any(int block_vectors, const conv_shape *s, const void *packed, const uint8_t *x,
                     int x_zero, const requant *q, void *y, void *scratch, int thread,
                     int n_threads)
{
    gemm_call c = {.s = s,
                   .p = gemm_vnni_plan(s, block_vectors),
                   .packed = packed,
                   .x = x,
                   .x_zero = x_zero,
                   .q = q,
                   .y = y,
                   .y_size = q ? 1 : sizeof(int32_t)};
    const gemm_plan *p = &c.p;
    const size_t n_rows = (size_t)s->batch * s->out_h * s->out_w;
    const size_t taps = (size_t)s->kernel_h * s->kernel_w;
    size_t row, last;
    rows_split(n_rows, tile_rows(p), p->blocks, thread, n_threads, &row, &last, &c.b0, &c.b1);
    if (row == last || c.b0 == c.b1)
        return;

    c.bounded = q && below_one(q->mult, s->out_c);
    c.offset = scratch;
    uint8_t *pad = (uint8_t *)scratch + round64(taps * sizeof(ptrdiff_t));
    c.source = row_source_of(s, x, pad, c.offset, (int)taps);
    c.flat = c.source.direct && !p->strip;
    c.copies = pad + (p->kind == WHOLE ? round64(s->in_c) : 0);
    if (p->kind == WHOLE)
        memset(pad, x_zero, s->in_c);
    else
        place_taps(&c);
    for (size_t n; row < last; row += n) {
        n = chunk_rows(&c, row, last);
        row_cursor rows = place_rows(&c, row, n);
        for (int g = 0; g < p->groups; g++) {
            if (p->kind == WHOLE)
                copy_rows(&c.source, p, row, n, (size_t)g * p->in_c, c.copies);
            run_group(&c, &rows, row, n, g);
            rows.at += p->kind == WHOLE ? 0 : p->in_c;
        }
    }
}

#endif
