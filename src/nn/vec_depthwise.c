#include "nn/vec_train_local.h"

#define BLOCK 4 /* vectors of channels that are summed beside each other */

/* --- sums over taps --------------------------------------------------------------------------- */
/* `n_vec` vectors of channels (known when compiled); the last holds `part` of them. */
ALWAYS_INLINE void sum_taps(const float *const *lines, const float *const *weights, size_t n,
                            const vec_tap *t, const vec_tap *end, size_t channels, size_t c,
                            int n_vec, size_t part, const float *bias, float *y)
{
    vec acc[BLOCK];
    for (int j = 0; j < n_vec; j++)
        acc[j] = bias ? fetch(bias + c + (size_t)j * LANES, part) : spread(0.0f);
    for (size_t v = 0; v < n; v++) {
        const float *line = lines[v] + c, *weight = weights[v] + c;
        for (const vec_tap *k = t; k < end; k++) {
            const float *x = line + (size_t)k->pixel * channels;
            const float *w = weight + (size_t)k->weight * channels;
            for (int j = 0; j < n_vec; j++)
                acc[j] += fetch(x + (size_t)j * LANES, part) * fetch(w + (size_t)j * LANES, part);
        }
    }
    for (int j = 0; j < n_vec; j++)
        put(y + c + (size_t)j * LANES, acc[j], part);
}

void VEC(train_depthwise)(const float *const *lines, const float *const *weights, size_t n,
                          const vec_taps *taps, size_t pixels, size_t channels, const float *bias,
                          float *y)
{
    for (size_t i = 0; i < pixels; i++, y += channels) {
        const vec_tap *t = taps->taps + taps->first[i], *end = taps->taps + taps->first[i + 1];
        size_t c = 0;
        for (; c + BLOCK * LANES <= channels; c += BLOCK * LANES)
            sum_taps(lines, weights, n, t, end, channels, c, BLOCK, LANES, bias, y);
        for (; c + 2 * LANES <= channels; c += 2 * LANES)
            sum_taps(lines, weights, n, t, end, channels, c, 2, LANES, bias, y);
        for (; c + LANES <= channels; c += LANES)
            sum_taps(lines, weights, n, t, end, channels, c, 1, LANES, bias, y);
        if (c < channels)
            sum_taps(lines, weights, n, t, end, channels, c, 1, channels - c, bias, y);
    }
}

/* --- sums over pixels ------------------------------------------------------------------------- */
ALWAYS_INLINE void sum_pixels(const float *x, size_t x_step, const float *dy, size_t dy_step,
                              size_t n, int n_vec, size_t part, float *dw)
{
    vec acc[BLOCK];
    for (int j = 0; j < n_vec; j++)
        acc[j] = spread(0.0f);
    for (size_t i = 0; i < n; i++, x += x_step, dy += dy_step) {
        for (int j = 0; j < n_vec; j++)
            acc[j] += fetch(x + (size_t)j * LANES, part) * fetch(dy + (size_t)j * LANES, part);
    }
    for (int j = 0; j < n_vec; j++) {
        float *to = dw + (size_t)j * LANES;
        put(to, fetch(to, part) + acc[j], part);
    }
}

void VEC(train_depthwise_weight)(const float *x, size_t x_step, const float *dy, size_t dy_step,
                                 size_t n, size_t channels, float *dw)
{
    size_t c = 0;
    for (; c + BLOCK * LANES <= channels; c += BLOCK * LANES)
        sum_pixels(x + c, x_step, dy + c, dy_step, n, BLOCK, LANES, dw + c);
    for (; c + 2 * LANES <= channels; c += 2 * LANES)
        sum_pixels(x + c, x_step, dy + c, dy_step, n, 2, LANES, dw + c);
    for (; c + LANES <= channels; c += LANES)
        sum_pixels(x + c, x_step, dy + c, dy_step, n, 1, LANES, dw + c);
    if (c < channels)
        sum_pixels(x + c, x_step, dy + c, dy_step, n, 1, channels - c, dw + c);
}

/* --- windows of pools ------------------------------------------------------------------------- */
#if defined(__AVX512F__)
typedef __mmask16 above_mask;
static inline above_mask above(vec a, vec b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}

static inline vec choose(above_mask m, vec a, vec b)
{
    return _mm512_mask_blend_ps(m, b, a);
}
#else
typedef int above_mask __attribute__((vector_size(LANES * 4)));
static inline above_mask above(vec a, vec b)
{
    return a > b;
}

static inline vec choose(above_mask m, vec a, vec b)
{
    return (vec)((m & (above_mask)a) | (~m & (above_mask)b));
}
#endif

/* Where the greatest element stands is a number of the window's elements, exact as a float. */
ALWAYS_INLINE void max_lanes(const float *x, size_t h, size_t row, size_t w, size_t column,
                             size_t n, const float *dy, float *dx)
{
    vec best = fetch(x, n), where = spread(0.0f), at = spread(0.0f);
    for (size_t i = 0; i < h; i++) {
        for (size_t j = 0; j < w; j++, at += spread(1.0f)) {
            const vec v = fetch(x + i * row + j * column, n);
            const above_mask m = above(v, best);
            best = choose(m, v, best);
            where = choose(m, at, where);
        }
    }
    const vec g = fetch(dy, n);
    at = spread(0.0f);
    for (size_t i = 0; i < h; i++) {
        for (size_t j = 0; j < w; j++, at += spread(1.0f)) {
            float *to = dx + i * row + j * column;
            const above_mask elsewhere = above(at, where), before = above(where, at);
            const vec part = choose(before, spread(0.0f), choose(elsewhere, spread(0.0f), g));
            put(to, fetch(to, n) + part, n);
        }
    }
}

void VEC(train_window_max)(const float *x, size_t h, size_t row, size_t w, size_t column,
                           size_t channels, const float *dy, float *dx)
{
    size_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        max_lanes(x + c, h, row, w, column, LANES, dy + c, dx + c);
    if (c < channels)
        max_lanes(x + c, h, row, w, column, channels - c, dy + c, dx + c);
}

ALWAYS_INLINE void mean_lanes(size_t h, size_t row, size_t w, size_t column, size_t n, vec g,
                              float *dx)
{
    for (size_t i = 0; i < h; i++) {
        for (size_t j = 0; j < w; j++) {
            float *to = dx + i * row + j * column;
            put(to, fetch(to, n) + g, n);
        }
    }
}

void VEC(train_window_mean)(size_t h, size_t row, size_t w, size_t column, size_t channels,
                            float share, const float *dy, float *dx)
{
    size_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        mean_lanes(h, row, w, column, LANES, load(dy + c) * spread(share), dx + c);
    if (c < channels)
        mean_lanes(h, row, w, column, channels - c,
                   load_part(dy + c, channels - c) * spread(share), dx + c);
}
