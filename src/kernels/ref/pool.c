/* Pools in plain C, channels-last. */
#include "kernels/arith.h"
#include "kernels/ref/ref.h"
#include "kernels/ref/window.h"

void max_pool_u8_ref(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y, int thread,
                     int n_threads)
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
                    if (window_tap(s, &w, ky, kx)[c] > best)
                        best = window_tap(s, &w, ky, kx)[c];
            y[row * s->channels + c] = (uint8_t)(best > hi ? hi : best);
        }
    }
}

void avg_pool_u8_ref(const pool_shape *s, const uint8_t *x, const pool_q *q, uint8_t *y, int thread,
                     int n_threads)
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
                    sum += dequantize_one(window_tap(s, &w, ky, kx)[c], q->x_scale, q->x_zero);
            y[row * s->channels + c] = average_one(sum, count, q->y_scale, q->y_zero, q->lo, q->hi);
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
