#include "nn/vec_train_local.h"

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
