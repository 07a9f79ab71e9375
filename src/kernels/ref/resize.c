/* Resize in plain C, channels-last. */
#include <string.h>

#include "kernels/arith.h"
#include "kernels/kernels.h"

void resize_nearest_u8(const uint8_t *x, int batch, int in_h, int in_w, int channels,
                       const int32_t *rows, int out_h, const int32_t *cols, int out_w, uint8_t *y,
                       int thread, int n_threads)
{
    const size_t pixel = channels;
    size_t row, last;
    kernel_share((size_t)batch * out_h, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const uint8_t *from = x + (row / out_h * in_h + rows[row % out_h]) * in_w * pixel;
        uint8_t *to = y + row * out_w * pixel;
        if (channels == 1)
            for (int ox = 0; ox < out_w; ox++)
                to[ox] = from[cols[ox]];
        else
            for (int ox = 0; ox < out_w; ox++)
                memcpy(to + ox * pixel, from + cols[ox] * pixel, pixel);
    }
}

/* The weighted mean of four dequantized values, in float32, in this order. */
static uint8_t interpolate(const uint8_t *top, const uint8_t *bottom, size_t a, size_t b,
                           const resize_tap *r, const resize_tap *c, const pool_q *q)
{
    float v = c->w0 * r->w0 * dequantize_one(top[a], q->x_scale, q->x_zero);
    v += c->w1 * r->w0 * dequantize_one(top[b], q->x_scale, q->x_zero);
    v += c->w0 * r->w1 * dequantize_one(bottom[a], q->x_scale, q->x_zero);
    v += c->w1 * r->w1 * dequantize_one(bottom[b], q->x_scale, q->x_zero);
    return quantize_one(v, q->y_scale, q->y_zero, q->lo, q->hi);
}

void resize_linear_u8(const uint8_t *x, int batch, int in_h, int in_w, int channels,
                      const resize_tap *rows, int out_h, const resize_tap *cols, int out_w,
                      const pool_q *q, uint8_t *y, int thread, int n_threads)
{
    const size_t pixel = channels;
    size_t row, last;
    kernel_share((size_t)batch * out_h, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const resize_tap *r = &rows[row % out_h];
        const uint8_t *image = x + row / out_h * in_h * in_w * pixel;
        const uint8_t *top = image + (size_t)r->i0 * in_w * pixel;
        const uint8_t *bottom = image + (size_t)r->i1 * in_w * pixel;
        uint8_t *to = y + row * out_w * pixel;
        for (int ox = 0; ox < out_w; ox++, to += pixel) {
            const size_t a = cols[ox].i0 * pixel, b = cols[ox].i1 * pixel;
            for (size_t i = 0; i < pixel; i++)
                to[i] = interpolate(top, bottom, a + i, b + i, r, &cols[ox], q);
        }
    }
}
