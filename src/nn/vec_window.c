#include "nn/vec_local.h"

/* n = LANES: a whole vector, known when compiled; otherwise a part of one. */
static inline vec fetch(const float *p, size_t n)
{
    return n == LANES ? load(p) : load_part(p, n);
}

static inline void put(float *p, vec v, size_t n)
{
    if (n == LANES)
        store(p, v);
    else
        store_part(p, v, n);
}

/* --- depthwise convolution -------------------------------------------------------------------- */
/* Taps [from, to) of a window that begins at `start`: those whose input exists. */
static void meet(int start, int kernel, int dilation, int in, int *from, int *to)
{
    *from = start < 0 ? (-start + dilation - 1) / dilation : 0;
    *to = start >= in ? 0 : (in - start + dilation - 1) / dilation;
    if (*to > kernel)
        *to = kernel;
}

/* Neighbouring output pixels that all meet the taps [kw0, kw1) in the rows [kh0, kh1); x, y and
 * add: the first channel of the first pixel (x: where tap 0 is, perhaps outside the input). */
typedef struct tile {
    const vec_window *s;
    const float      *x, *add;
    float            *y;
    ptrdiff_t         x_row, x_tap, x_pixel; /* steps in x: a kernel row, a tap, an output pixel */
    int               kh0, kh1, kw0, kw1;
} tile;

static inline __attribute__((always_inline)) void tile_lanes(const tile *t, const int pixels,
                                                             size_t c, size_t n)
{
    const vec_window *s = t->s;
    const size_t channels = (size_t)s->channels;
    vec acc[8];
    acc[0] = fetch(s->bias + c, n);
    for (int i = 1; i < pixels; i++)
        acc[i] = acc[0];
    for (int kh = t->kh0; kh < t->kh1; kh++) {
        const float *w = s->w + (size_t)(kh * s->kernel_w) * channels + c;
        const float *x = t->x + kh * t->x_row + (ptrdiff_t)c;
        for (int kw = t->kw0; kw < t->kw1; kw++) {
            const vec wv = fetch(w + (size_t)kw * channels, n);
            for (int i = 0; i < pixels; i++)
                acc[i] += fetch(x + kw * t->x_tap + i * t->x_pixel, n) * wv;
        }
    }
    for (int i = 0; i < pixels; i++) {
        const size_t at = (size_t)i * channels + c;
        if (t->add)
            acc[i] += fetch(t->add + at, n);
        put(t->y + at, vec_clamp(acc[i], spread(s->lo), spread(s->hi)), n);
    }
}

static inline __attribute__((always_inline)) void tile_run(const tile *t, const int pixels)
{
    const size_t channels = (size_t)t->s->channels;
    size_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        tile_lanes(t, pixels, c, LANES);
    if (c < channels)
        tile_lanes(t, pixels, c, channels - c);
}

static void depthwise_row(const vec_window *s, const float *x, const float *add, float *y, int oh)
{
    const ptrdiff_t channels = s->channels, x_line = s->in_w * channels;
    const int top = oh * s->stride_h - s->pad_top;
    tile t = {.s = s, .x_row = s->dilation_h * x_line, .x_tap = s->dilation_w * channels,
              .x_pixel = s->stride_w * channels};
    meet(top, s->kernel_h, s->dilation_h, s->in_h, &t.kh0, &t.kh1);
    for (int ow = 0; ow < s->out_w;) {
        const int left = ow * s->stride_w - s->pad_left;
        int ahead = 1;
        meet(left, s->kernel_w, s->dilation_w, s->in_w, &t.kw0, &t.kw1);
        if (t.kw0 == 0 && t.kw1 == s->kernel_w) { /* so do the next ones up to the right border */
            const int reach = s->in_w - 1 - (s->kernel_w - 1) * s->dilation_w;
            ahead = (reach - left) / s->stride_w + 1;
            ahead = ahead < s->out_w - ow ? ahead : s->out_w - ow;
        }
        t.x = x + top * x_line + left * channels;
        t.y = y + ow * channels;
        t.add = add ? add + ow * channels : NULL;
        if (ahead >= 8) {
            tile_run(&t, 8);
            ow += 8;
        } else if (ahead >= 4) {
            tile_run(&t, 4);
            ow += 4;
        } else if (ahead >= 2) {
            tile_run(&t, 2);
            ow += 2;
        } else {
            tile_run(&t, 1);
            ow += 1;
        }
    }
}

void VEC(vec_depthwise)(const vec_window *s, const float *x, const float *add, float *y,
                        size_t first, size_t last)
{
    const size_t image = (size_t)s->in_h * s->in_w * s->channels;
    const size_t line = (size_t)s->out_w * s->channels;
    for (size_t row = first; row < last; row++) {
        const size_t b = row / (size_t)s->out_h;
        depthwise_row(s, x + b * image, add ? add + row * line : NULL, y + row * line,
                      (int)(row % (size_t)s->out_h));
    }
}

/* --- pools ------------------------------------------------------------------------------------ */
static inline __attribute__((always_inline)) void
window_lanes(const float *x, size_t h, size_t row, size_t w, size_t column, size_t n, bool max,
             float divisor, float *y)
{
    vec all = max ? fetch(x, n) : spread(0.0f);
    for (size_t i = 0; i < h; i++) {
        vec acc = fetch(x + i * row, n); /* a sum a row: long sums keep their digits */
        for (size_t j = 1; j < w; j++) {
            const vec v = fetch(x + i * row + j * column, n);
            acc = max ? vec_max(acc, v) : acc + v;
        }
        all = max ? vec_max(all, acc) : all + acc;
    }
    put(y, max ? all : all / spread(divisor), n);
}

static inline __attribute__((always_inline)) void
window_run(const float *x, size_t h, size_t row, size_t w, size_t column, size_t channels, bool max,
           float divisor, float *y)
{
    size_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        window_lanes(x + c, h, row, w, column, LANES, max, divisor, y + c);
    if (c < channels)
        window_lanes(x + c, h, row, w, column, channels - c, max, divisor, y + c);
}

void VEC(vec_window_mean)(const float *x, size_t h, size_t row, size_t w, size_t column,
                          size_t channels, float divisor, float *y)
{
    window_run(x, h, row, w, column, channels, false, divisor, y);
}

void VEC(vec_window_max)(const float *x, size_t h, size_t row, size_t w, size_t column,
                         size_t channels, float *y)
{
    window_run(x, h, row, w, column, channels, true, 1.0f, y);
}

/* --- vector times matrix, interpolation ------------------------------------------------------- */
/* One block of columns, two steps of k at a time: enough sums to hide latency. */
static inline void gemv_one(const float *x, const float *w, const float *bias, size_t k,
                            vec even[4])
{
    vec odd[4];
    for (int i = 0; i < 4; i++) {
        even[i] = load(bias + i * LANES);
        odd[i] = spread(0.0f);
    }
    size_t p = 0;
    for (; p + 2 <= k; p += 2, w += 2 * GEMV_BLOCK) {
        const vec a = spread(x[p]), b = spread(x[p + 1]);
        for (int i = 0; i < 4; i++) {
            even[i] += a * load(w + i * LANES);
            odd[i] += b * load(w + GEMV_BLOCK + i * LANES);
        }
    }
    for (int i = 0; i < 4; i++) {
        even[i] += odd[i];
        if (p < k)
            even[i] += spread(x[p]) * load(w + i * LANES);
    }
}

void VEC(vec_gemv)(const float *x, const float *w, const float *bias, const float *add, size_t k,
                   size_t n, size_t first, size_t last, float lo, float hi, float *y)
{
    for (size_t c = first; c < last; c += GEMV_BLOCK) {
        vec acc[4];
        gemv_one(x, w + c * k, bias + c, k, acc);
        for (size_t i = 0; i < 4 && c + i * LANES < n; i++) {
            const size_t at = c + i * LANES, rest = n - at, part = rest < LANES ? rest : LANES;
            if (add)
                acc[i] += fetch(add + at, part);
            put(y + at, vec_clamp(acc[i], spread(lo), spread(hi)), part);
        }
    }
}

void VEC(vec_blend)(const float *const p[4], const float wt[4], size_t channels, float *y)
{
    const vec w0 = spread(wt[0]), w1 = spread(wt[1]), w2 = spread(wt[2]), w3 = spread(wt[3]);
    size_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        store(y + c, load(p[0] + c) * w0 + load(p[1] + c) * w1 +
                         (load(p[2] + c) * w2 + load(p[3] + c) * w3));
    for (; c < channels; c++)
        y[c] = p[0][c] * wt[0] + p[1][c] * wt[1] + (p[2][c] * wt[2] + p[3][c] * wt[3]);
}
