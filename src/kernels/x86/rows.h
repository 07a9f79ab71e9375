/* Where the rows of an indirect GEMM come from: for each output pixel one pointer per tap, taps
 * outside the image pointing at a row of x_zero bytes. Plain C, shared by the x86 kernels. */
#ifndef RUNG_KERNELS_X86_ROWS_H
#define RUNG_KERNELS_X86_ROWS_H

#include "kernels/kernels.h"

typedef struct row_source {
    const conv_shape *s;
    const uint8_t *x;
    const uint8_t *pad; /* in_c bytes of x_zero */
    ptrdiff_t *offset;  /* [taps]: from the first tap's pixel */
    int taps, stride;   /* pointers of a row, pointers from row to row: the rest reads pad */
    bool direct;        /* pointwise, stride 1, no padding: row r is x + r * in_c */
    /* Output columns and rows whose taps are all in the image: [first, end). */
    int inside_x, inside_x_end, inside_y, inside_y_end;
} row_source;

static inline void rows_inside(int in, int kernel, int dilation, int stride, int pad, int *first,
                               int *end)
{
    const int room = in + pad - ((kernel - 1) * dilation + 1); /* of the last such first tap */
    *first = (pad + stride - 1) / stride;
    *end = room < 0 ? 0 : room / stride + 1;
}

static inline row_source row_source_of(const conv_shape *s, const uint8_t *x, const uint8_t *pad,
                                       ptrdiff_t *offset, int stride)
{
    row_source r = {.s = s, .x = x, .pad = pad, .offset = offset, .stride = stride};
    r.taps = s->kernel_h * s->kernel_w;
    r.direct = stride == 1 && r.taps == 1 && s->stride_h == 1 && s->stride_w == 1 &&
               s->pad_top == 0 && s->pad_left == 0 && s->out_h == s->in_h && s->out_w == s->in_w;
    rows_inside(s->in_h, s->kernel_h, s->dilation_h, s->stride_h, s->pad_top, &r.inside_y,
                &r.inside_y_end);
    rows_inside(s->in_w, s->kernel_w, s->dilation_w, s->stride_w, s->pad_left, &r.inside_x,
                &r.inside_x_end);
    for (int ky = 0, t = 0; ky < s->kernel_h; ky++)
        for (int kx = 0; kx < s->kernel_w; kx++, t++)
            offset[t] =
                ((ptrdiff_t)ky * s->dilation_h * s->in_w + (ptrdiff_t)kx * s->dilation_w) * s->in_c;
    return r;
}

/* An output pixel. */
typedef struct row_pixel {
    const uint8_t *image;
    int oy, ox;
    ptrdiff_t first; /* the first tap's place in the image; may lie outside */
    bool inside_y;
} row_pixel;

static inline void row_pixel_place(const row_source *r, row_pixel *p)
{
    const conv_shape *s = r->s;
    const ptrdiff_t iy = (ptrdiff_t)p->oy * s->stride_h - s->pad_top;
    const ptrdiff_t ix = (ptrdiff_t)p->ox * s->stride_w - s->pad_left;
    p->first = (iy * s->in_w + ix) * s->in_c;
    p->inside_y = p->oy >= r->inside_y && p->oy < r->inside_y_end;
}

static inline row_pixel row_pixel_at(const row_source *r, size_t row)
{
    const conv_shape *s = r->s;
    row_pixel p = {.ox = (int)(row % s->out_w), .oy = (int)(row / s->out_w % s->out_h)};
    p.image = r->x + row / s->out_w / s->out_h * ((size_t)s->in_h * s->in_w * s->in_c);
    row_pixel_place(r, &p);
    return p;
}

static inline void row_pixel_next(const row_source *r, row_pixel *p)
{
    const conv_shape *s = r->s;
    p->first += (ptrdiff_t)s->stride_w * s->in_c;
    if (++p->ox < s->out_w)
        return;
    p->ox = 0;
    if (++p->oy == s->out_h) {
        p->oy = 0;
        p->image += (size_t)s->in_h * s->in_w * s->in_c;
    }
    row_pixel_place(r, p);
}

/* Whether every tap is in the image; then the taps are image + first + offset[t]. */
static inline bool row_pixel_inside(const row_source *r, const row_pixel *p)
{
    return p->inside_y && p->ox >= r->inside_x && p->ox < r->inside_x_end;
}

static inline const uint8_t *row_pixel_tap(const row_source *r, const row_pixel *p, int ky, int kx)
{
    const conv_shape *s = r->s;
    const int iy = p->oy * s->stride_h - s->pad_top + ky * s->dilation_h;
    const int ix = p->ox * s->stride_w - s->pad_left + kx * s->dilation_w;
    if (iy < 0 || iy >= s->in_h || ix < 0 || ix >= s->in_w)
        return r->pad;
    return p->image + ((size_t)iy * s->in_w + ix) * s->in_c;
}

/* to[i * stride + t] for rows first .. first + n - 1. */
static inline void rows_point(const row_source *r, size_t first, size_t n, const uint8_t **to)
{
    if (r->direct) {
        for (size_t i = 0; i < n; i++)
            to[i] = r->x + (first + i) * r->s->in_c;
        return;
    }
    row_pixel p = row_pixel_at(r, first);
    for (size_t i = 0; i < n; i++, to += r->stride, row_pixel_next(r, &p)) {
        if (row_pixel_inside(r, &p)) {
            const uint8_t *base = p.image + p.first;
            for (int t = 0; t < r->taps; t++)
                to[t] = base + r->offset[t];
        } else {
            for (int ky = 0, t = 0; ky < r->s->kernel_h; ky++)
                for (int kx = 0; kx < r->s->kernel_w; kx++, t++)
                    to[t] = row_pixel_tap(r, &p, ky, kx);
        }
        for (int t = r->taps; t < r->stride; t++)
            to[t] = r->pad;
    }
}

/* The largest of the shares of n items in units, in items. */
static inline size_t rows_largest_share(size_t n, size_t unit, int n_threads)
{
    const size_t units = (n + unit - 1) / unit;
    return (units + (size_t)n_threads - 1) / (size_t)n_threads * unit;
}

/* This thread's rows [*row, *last) and blocks of columns [*b0, *b1): all of the one and a share of
 * the other, whichever leaves the threads' work more even; rows when both do. */
static inline void rows_split(size_t n_rows, size_t unit, size_t n_blocks, int thread,
                              int n_threads, size_t *row, size_t *last, size_t *b0, size_t *b1)
{
    const size_t by_rows = rows_largest_share(n_rows, unit, n_threads) * n_blocks;
    const size_t by_columns = n_rows * rows_largest_share(n_blocks, 1, n_threads);
    *row = *b0 = 0;
    *last = n_rows;
    *b1 = n_blocks;
    if (by_columns < by_rows)
        kernel_share(n_blocks, 1, thread, n_threads, b0, b1);
    else
        kernel_share(n_rows, unit, thread, n_threads, row, last);
}

#endif
