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
    bool direct; /* pointwise, stride 1, no padding: row r is x + r * in_c */
} row_source;

static inline row_source row_source_of(const conv_shape *s, const uint8_t *x, const uint8_t *pad,
                                       ptrdiff_t *offset, int stride)
{
    row_source r = {.s = s, .x = x, .pad = pad, .offset = offset, .stride = stride};
    r.taps = s->kernel_h * s->kernel_w;
    r.direct = stride == 1 && s->stride_h == 1 && s->stride_w == 1 && s->pad_top == 0 &&
               s->pad_left == 0 && s->out_h == s->in_h && s->out_w == s->in_w;
    for (int ky = 0, t = 0; ky < s->kernel_h; ky++)
        for (int kx = 0; kx < s->kernel_w; kx++, t++)
            offset[t] = ((ptrdiff_t)ky * s->dilation_h * s->in_w + (ptrdiff_t)kx * s->dilation_w) *
                        s->in_c;
    return r;
}

/* An output pixel and the input position of its first tap. */
typedef struct row_pixel {
    const uint8_t *image;
    int oy, ox, iy, ix;
    bool inside; /* every tap is in the image */
} row_pixel;

static inline void row_pixel_place(const row_source *r, row_pixel *p)
{
    const conv_shape *s = r->s;
    p->iy = p->oy * s->stride_h - s->pad_top;
    p->ix = p->ox * s->stride_w - s->pad_left;
    p->inside = p->iy >= 0 && p->ix >= 0 && p->iy + (s->kernel_h - 1) * s->dilation_h < s->in_h &&
                p->ix + (s->kernel_w - 1) * s->dilation_w < s->in_w;
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
    if (++p->ox == s->out_w) {
        p->ox = 0;
        if (++p->oy == s->out_h) {
            p->oy = 0;
            p->image += (size_t)s->in_h * s->in_w * s->in_c;
        }
    }
    row_pixel_place(r, p);
}

/* The first tap's address; meaningful as an address only where p->inside. */
static inline const uint8_t *row_pixel_first(const row_source *r, const row_pixel *p)
{
    return p->image + ((ptrdiff_t)p->iy * r->s->in_w + p->ix) * r->s->in_c;
}

static inline const uint8_t *row_pixel_tap(const row_source *r, const row_pixel *p, int ky, int kx)
{
    const conv_shape *s = r->s;
    const int iy = p->iy + ky * s->dilation_h, ix = p->ix + kx * s->dilation_w;
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
        if (p.inside) {
            const uint8_t *base = row_pixel_first(r, &p);
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

#endif
