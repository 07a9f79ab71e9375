/* What an output pixel of a pool sees. */
#ifndef RUNG_KERNELS_REF_WINDOW_H
#define RUNG_KERNELS_REF_WINDOW_H

#include "kernels/kernels.h"

/* The taps k of a window whose input at + k * dilation lies in [0, in): [*first, *last). */
static inline void taps_inside(int at, int dilation, int kernel, int in, int *first, int *last)
{
    if (dilation == 1) { /* no division in the loops over pixels */
        *first = at < 0 ? -at : 0;
        *last = at >= in ? 0 : in - at;
    } else {
        *first = at < 0 ? (-at + dilation - 1) / dilation : 0;
        *last = at >= in ? 0 : (in - 1 - at) / dilation + 1;
    }
    if (*last > kernel)
        *last = kernel;
    if (*first > *last)
        *first = *last;
}

/* What an output pixel sees: its image (NULL: not asked for), the position of its first tap, the
 * taps inside. */
typedef struct window {
    const uint8_t *image;
    int iy, ix, y0, y1, x0, x1;
} window;

static inline window window_taps(const pool_shape *s, size_t row)
{
    const int ox = (int)(row % s->out_w), oy = (int)(row / s->out_w % s->out_h);
    window w = {.iy = oy * s->stride_h - s->pad_top, .ix = ox * s->stride_w - s->pad_left};
    taps_inside(w.iy, s->dilation_h, s->kernel_h, s->in_h, &w.y0, &w.y1);
    taps_inside(w.ix, s->dilation_w, s->kernel_w, s->in_w, &w.x0, &w.x1);
    return w;
}

static inline window window_of(const pool_shape *s, const uint8_t *x, size_t row)
{
    window w = window_taps(s, row);
    w.image = x + row / s->out_w / s->out_h * ((size_t)s->in_h * s->in_w * s->channels);
    return w;
}

/* From pixel `row`, which is column *ox, to the next one. */
static inline void window_next(const pool_shape *s, const uint8_t *x, size_t row, int *ox,
                               window *w)
{
    if (++*ox < s->out_w) {
        w->ix += s->stride_w;
        taps_inside(w->ix, s->dilation_w, s->kernel_w, s->in_w, &w->x0, &w->x1);
        return;
    }
    *ox = 0;
    *w = window_of(s, x, row + 1);
}

/* The pixel of a tap: its place in the image. */
static inline size_t window_at(const pool_shape *s, const window *w, int ky, int kx)
{
    const int iy = w->iy + ky * s->dilation_h, ix = w->ix + kx * s->dilation_w;
    return ((size_t)iy * s->in_w + ix) * s->channels;
}

static inline const uint8_t *window_tap(const pool_shape *s, const window *w, int ky, int kx)
{
    return w->image + window_at(s, w, ky, kx);
}

#endif
