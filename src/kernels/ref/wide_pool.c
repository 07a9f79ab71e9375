/* Pools and linear Resize of 16-bit activations in plain C, channels-last, a block of channels at
 * once: compilers vectorise the inner loops. */
#include "kernels/arith.h"
#include "kernels/ref/wide.h"
#include "kernels/ref/window.h"

enum { BLOCK = 64 }; /* channels at once */

static int block_of(int channels, int c0)
{
    return channels - c0 < BLOCK ? channels - c0 : BLOCK;
}

/* Where the image of an output row begins. */
static size_t image_at(const pool_shape *s, size_t row)
{
    return row / s->out_w / s->out_h * ((size_t)s->in_h * s->in_w * s->channels);
}

static void raise(const uint16_t *x, int n, uint16_t *best)
{
    for (int c = 0; c < n; c++)
        best[c] = x[c] > best[c] ? x[c] : best[c];
}

void max_pool_u16(const pool_shape *s, const uint16_t *x, int lo, int hi, uint16_t *y, int thread,
                  int n_threads)
{
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const window w = window_taps(s, row);
        const uint16_t *image = x + image_at(s, row);
        for (int c0 = 0; c0 < s->channels; c0 += BLOCK) {
            const int n = block_of(s->channels, c0);
            uint16_t best[BLOCK], *to = y + row * s->channels + c0;
            for (int c = 0; c < n; c++)
                best[c] = (uint16_t)lo;
            for (int ky = w.y0; ky < w.y1; ky++)
                for (int kx = w.x0; kx < w.x1; kx++)
                    raise(image + window_at(s, &w, ky, kx) + c0, n, best);
            for (int c = 0; c < n; c++)
                to[c] = best[c] > hi ? (uint16_t)hi : best[c];
        }
    }
}

/* sum += the dequantized values of n channels. */
static void add_real(const void *x, size_t at, const rescale_q *q, int n, float *sum)
{
    const uint16_t *wide = (const uint16_t *)x + at;
    const uint8_t *narrow = (const uint8_t *)x + at;
    if (q->x_wide)
        for (int c = 0; c < n; c++)
            sum[c] += dequantize_one(wide[c], q->x_scale, q->x_zero);
    else
        for (int c = 0; c < n; c++)
            sum[c] += dequantize_one(narrow[c], q->x_scale, q->x_zero);
}

void avg_pool_wide(const pool_shape *s, const void *x, const rescale_q *q, void *y, int thread,
                   int n_threads)
{
    size_t row, last;
    kernel_share((size_t)s->batch * s->out_h * s->out_w, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const window w = window_taps(s, row);
        const int inside = (w.y1 - w.y0) * (w.x1 - w.x0);
        const int count = s->count_pad ? s->kernel_h * s->kernel_w : inside ? inside : 1;
        for (int c0 = 0; c0 < s->channels; c0 += BLOCK) {
            const int n = block_of(s->channels, c0);
            const size_t from = image_at(s, row) + c0, to = row * s->channels + c0;
            float sum[BLOCK] = {0};
            for (int ky = w.y0; ky < w.y1; ky++)
                for (int kx = w.x0; kx < w.x1; kx++)
                    add_real(x, from + window_at(s, &w, ky, kx), q, n, sum);
            for (int c = 0; c < n; c++)
                code_put(y, to + c, q->y_wide,
                         average_code(sum[c], count, q->y_scale, q->y_zero, q->lo, q->hi));
        }
    }
}

/* The sums of 2^16 codes of 16 bits fit uint32: so many pixels at once. */
enum { PIXELS = 1 << 16 };

static void add_codes(const void *x, size_t at, bool wide, int n, uint32_t *sum)
{
    const uint16_t *w = (const uint16_t *)x + at;
    const uint8_t *b = (const uint8_t *)x + at;
    if (wide)
        for (int c = 0; c < n; c++)
            sum[c] += w[c];
    else
        for (int c = 0; c < n; c++)
            sum[c] += b[c];
}

/* Exact sums of n channels over an image. */
static void sum_image(const void *x, size_t at, size_t pixels, size_t channels, bool wide, int n,
                      int64_t *sum)
{
    for (size_t p = 0; p < pixels;) {
        uint32_t part[BLOCK] = {0};
        const size_t end = p + PIXELS < pixels ? p + PIXELS : pixels;
        for (; p < end; p++)
            add_codes(x, at + p * channels, wide, n, part);
        for (int c = 0; c < n; c++)
            sum[c] += part[c];
    }
}

void global_avg_pool_wide(const pool_shape *s, const void *x, const rescale_q *q, void *y,
                          int thread, int n_threads)
{
    const size_t channels = s->channels, pixels = (size_t)s->in_h * s->in_w;
    const size_t blocks = (channels + BLOCK - 1) / BLOCK;
    const float ratio = global_average_ratio(q->x_scale, q->y_scale, (int)pixels);
    size_t i, last;
    kernel_share((size_t)s->batch * blocks, 1, thread, n_threads, &i, &last);
    for (; i < last; i++) {
        const size_t image = i / blocks, c0 = i % blocks * BLOCK;
        const int n = block_of(s->channels, (int)c0);
        int64_t sum[BLOCK] = {0};
        sum_image(x, image * pixels * channels + c0, pixels, channels, q->x_wide, n, sum);
        for (int c = 0; c < n; c++) {
            const int64_t acc = sum[c] - (int64_t)pixels * q->x_zero, low = acc & 255;
            const float v = wide_f32((int32_t)((acc - low) / 256), (int32_t)low) * ratio;
            code_put(y, image * channels + c0 + c, q->y_wide,
                     round_to_code(v, q->y_zero, q->lo, q->hi));
        }
    }
}

/* The order of resize_linear_u8. */
static int interpolate(const void *x, const size_t at[4], const resize_tap *r, const resize_tap *c,
                       const rescale_q *q)
{
    float t[4];
    for (int i = 0; i < 4; i++)
        t[i] = dequantize_one(code_at(x, at[i], q->x_wide), q->x_scale, q->x_zero);
    float v = c->w0 * r->w0 * t[0];
    v += c->w1 * r->w0 * t[1];
    v += c->w0 * r->w1 * t[2];
    v += c->w1 * r->w1 * t[3];
    return quantize_code(v, q->y_scale, q->y_zero, q->lo, q->hi);
}

void resize_linear_wide(const void *x, int batch, int in_h, int in_w, int channels,
                        const resize_tap *rows, int out_h, const resize_tap *cols, int out_w,
                        const rescale_q *q, void *y, int thread, int n_threads)
{
    const size_t pixel = channels, line = in_w * pixel;
    size_t row, last;
    kernel_share((size_t)batch * out_h, 1, thread, n_threads, &row, &last);
    for (; row < last; row++) {
        const resize_tap *r = &rows[row % out_h];
        const size_t image = row / out_h * in_h * line;
        for (size_t i = 0; i < out_w * pixel; i++) {
            const resize_tap *c = &cols[i / pixel];
            const size_t top = image + r->i0 * line, bottom = image + r->i1 * line;
            const size_t a = c->i0 * pixel + i % pixel, b = c->i1 * pixel + i % pixel;
            const size_t at[4] = {top + a, top + b, bottom + a, bottom + b};
            code_put(y, row * out_w * pixel + i, q->y_wide, interpolate(x, at, r, c, q));
        }
    }
}
