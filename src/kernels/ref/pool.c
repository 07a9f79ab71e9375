/* Pools in plain C, channels-last. */
#include "kernels/arith.h"
#include "kernels/ref/ref.h"

/* The taps k of a window whose input at + k * dilation lies in [0, in): [*first, *last). */
static void taps_inside(int at, int dilation, int kernel, int in, int *first, int *last)
{
    *first = at < 0 ? (-at + dilation - 1) / dilation : 0;
    *last = at >= in ? 0 : (in - 1 - at) / dilation + 1;
    if (*last > kernel)
        *last = kernel;
    if (*first > *last)
        *first = *last;
}

/* What an output pixel sees: its image, the position of its first tap, the taps inside. */
typedef struct window {
    const uint8_t *image;
    int iy, ix, y0, y1, x0, x1;
} window;

static window window_of(const pool_shape *s, const uint8_t *x, size_t row)
{
    const int ox = (int)(row % s->out_w), oy = (int)(row / s->out_w % s->out_h);
    window w = {.iy = oy * s->stride_h - s->pad_top, .ix = ox * s->stride_w - s->pad_left};
    w.image = x + row / s->out_w / s->out_h * ((size_t)s->in_h * s->in_w * s->channels);
    taps_inside(w.iy, s->dilation_h, s->kernel_h, s->in_h, &w.y0, &w.y1);
    taps_inside(w.ix, s->dilation_w, s->kernel_w, s->in_w, &w.x0, &w.x1);
    return w;
}

static const uint8_t *tap(const pool_shape *s, const window *w, int ky, int kx)
{
    const int iy = w->iy + ky * s->dilation_h, ix = w->ix + kx * s->dilation_w;
    return w->image + ((size_t)iy * s->in_w + ix) * s->channels;
}

void max_pool_u8_ref(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                     int thread, int n_threads)
{
    const int lo = q ? q->lo : 0, hi = q ? q->hi : 255;
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const window w = window_of(s, x, row);
        for (int c = 0; c < s->channels; c++) {
            int best = lo;
            for (int ky = w.y0; ky < w.y1; ky++)
                for (int kx = w.x0; kx < w.x1; kx++)
                    if (tap(s, &w, ky, kx)[c] > best)
                        best = tap(s, &w, ky, kx)[c];
            y[row * s->channels + c] = (uint8_t)(best > hi ? hi : best);
        }
    }
}

void avg_pool_u8_ref(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                     int thread, int n_threads)
{
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const window w = window_of(s, x, row);
        const int inside = (w.y1 - w.y0) * (w.x1 - w.x0);
        const int count = s->count_pad ? s->kernel_h * s->kernel_w : inside ? inside : 1;
        for (int c = 0; c < s->channels; c++) {
            float sum = 0;
            for (int ky = w.y0; ky < w.y1; ky++)
                for (int kx = w.x0; kx < w.x1; kx++)
                    sum += dequantize_one(tap(s, &w, ky, kx)[c], q->x_scale, q->x_zero);
            y[row * s->channels + c] =
                average_one(sum, count, q->y_scale, q->y_zero, q->lo, q->hi);
        }
    }
}

void global_avg_pool_u8_ref(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y,
                            int thread, int n_threads)
{
    const size_t channels = s->channels, pixels = (size_t)s->in_h * s->in_w;
    const float ratio = global_average_ratio(q->x_scale, q->y_scale, (int)pixels);
    size_t i, last;
    kernel_share((size_t)s->batch * channels, 1, thread, n_threads, &i, &last);
    for (; i < last; i++) {
        const uint8_t *first = x + i / channels * pixels * channels + i % channels;
        int32_t sum = 0;
        for (size_t p = 0; p < pixels; p++)
            sum += first[p * channels] - q->x_zero;
        y[i] = requant_u8(sum, ratio, q->y_zero, q->lo, q->hi);
    }
}
