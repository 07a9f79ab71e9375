#include "base/cpu.h"
#include "nn/vec_functions.h"
#include "nn/vec_train_local.h"

/* --- slopes ----------------------------------------------------------------------------------- */
#define SLOPE(name, formula)                                                                       \
    static void name(const float *from, const float *dy, size_t n, float a, float b, float *dx)    \
    {                                                                                              \
        SAME_OR_APART                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            const float v = from[i], g = dy[i];                                                    \
            dx[i] = formula;                                                                       \
        }                                                                                          \
    }

/* x Phi(x): Phi + x phi. */
static inline float gelu_slope(float x)
{
    const float phi = 0.39894228f * exp_one(-0.5f * x * x); /* 1 / sqrt(2 pi) */
    return 0.5f * (1.0f + erf_one(x * 0.70710678f)) + x * phi;
}

/* x (1 + tanh u) / 2, u = c (x + 0.044715 x^3), c = sqrt(2 / pi). */
static inline float gelu_tanh_slope(float x)
{
    const float c = 0.79788456f, z = x * x, t = tanh_one(c * (x + 0.044715f * x * z));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * c * (1.0f + 3.0f * 0.044715f * z);
}

SLOPE(slope_relu, v > 0.0f ? g : 0.0f)
SLOPE(slope_clip, v <= a || v >= b ? 0.0f : g)
SLOPE(slope_leaky, v > 0.0f ? g : a * g)
SLOPE(slope_hard_sigmoid, v > 0.0f && v < 1.0f ? a * g : 0.0f)
SLOPE(slope_hard_swish, v <= -3.0f ? 0.0f : v < 3.0f ? g * (v * (1.0f / 3.0f) + 0.5f) : g)
SLOPE(slope_elu, v > 0.0f ? g : g * a * exp_one(v))
SLOPE(slope_exp, g *v)
SLOPE(slope_sigmoid, g *v * (1.0f - v))
SLOPE(slope_tanh, g * (1.0f - v * v))
SLOPE(slope_sqrt, g * 0.5f / v)
SLOPE(slope_square, 2.0f * g * v)
SLOPE(slope_abs, v > 0.0f ? g : v < 0.0f ? -g : 0.0f)
SLOPE(slope_erf, g * 1.12837917f * exp_one(-v * v))
SLOPE(slope_gelu, g *gelu_slope(v))
SLOPE(slope_gelu_tanh, g *gelu_tanh_slope(v))

/* --- sums and scaled rows --------------------------------------------------------------------- */
static void add(const float *x, size_t n, float a, float *y)
{
    SAME_OR_APART
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static float lanes_sum(vec v)
{
    float lanes[LANES], sum = 0.0f;
    store(lanes, v);
    for (int k = 0; k < LANES; k++)
        sum += lanes[k];
    return sum;
}

static float dot(const float *u, const float *v, size_t n)
{
    vec even = spread(0.0f), odd = spread(0.0f);
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        even += load(u + i) * load(v + i);
        odd += load(u + i + LANES) * load(v + i + LANES);
    }
    float sum = lanes_sum(even + odd);
    for (; i < n; i++)
        sum += u[i] * v[i];
    return sum;
}

ALWAYS_INLINE void affine_lanes(const float *u, const float *v, size_t rows, size_t stride,
                                size_t n, vec a, vec b, vec m, vec d, float *y)
{
    for (size_t r = 0; r < rows; r++, v += stride, y += stride) {
        vec sum = b * (fetch(v, n) - m) + d;
        if (u)
            sum += a * fetch(u + r * stride, n);
        put(y, sum, n);
    }
}

static void affine(const float *u, const float *v, size_t rows, size_t stride, size_t c,
                   const float *a, const float *b, const float *m, const float *d, float *y)
{
    for (size_t i = 0; i < c; i += LANES) {
        const size_t n = c - i < LANES ? c - i : LANES;
        const vec va = u ? fetch(a + i, n) : spread(0.0f), vb = fetch(b + i, n);
        const vec vm = fetch(m + i, n), vd = fetch(d + i, n);
        if (u)
            affine_lanes(u + i, v + i, rows, stride, n, va, vb, vm, vd, y + i);
        else
            affine_lanes(NULL, v + i, rows, stride, n, va, vb, vm, vd, y + i);
    }
}

/* --- columns ---------------------------------------------------------------------------------- */
/* Four rows at a time, each with its own sum: independent of each other, and a quarter of the
 * terms. `pair`: s += sum of dy, q += sum of dy (x - mean); else q += sum of (x - mean)^2, or
 * (mean = NULL) s += sum of x. */
ALWAYS_INLINE void column_lanes(const float *x, const float *mean, const float *dy, size_t rows,
                                size_t stride, size_t n, float *s, float *q)
{
    vec sums[4], squares[4];
    const vec m = mean ? fetch(mean, n) : spread(0.0f);
    for (int k = 0; k < 4; k++)
        sums[k] = squares[k] = spread(0.0f);
    size_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        for (size_t k = 0; k < 4; k++) {
            const size_t at = (r + k) * stride;
            const vec v = fetch(x + at, n) - m, g = dy ? fetch(dy + at, n) : v;
            sums[k] += g;
            squares[k] += g * v;
        }
    }
    for (; r < rows; r++) {
        const vec v = fetch(x + r * stride, n) - m, g = dy ? fetch(dy + r * stride, n) : v;
        sums[0] += g;
        squares[0] += g * v;
    }
    if (s)
        put(s, fetch(s, n) + ((sums[0] + sums[1]) + (sums[2] + sums[3])), n);
    if (q)
        put(q, fetch(q, n) + ((squares[0] + squares[1]) + (squares[2] + squares[3])), n);
}

static void column_sum(const float *x, size_t rows, size_t stride, size_t c, float *s)
{
    size_t i = 0;
    for (; i + LANES <= c; i += LANES)
        column_lanes(x + i, NULL, NULL, rows, stride, LANES, s + i, NULL);
    if (i < c)
        column_lanes(x + i, NULL, NULL, rows, stride, c - i, s + i, NULL);
}

static void column_spread(const float *x, const float *mean, size_t rows, size_t stride, size_t c,
                          float *q)
{
    size_t i = 0;
    for (; i + LANES <= c; i += LANES)
        column_lanes(x + i, mean + i, NULL, rows, stride, LANES, NULL, q + i);
    if (i < c)
        column_lanes(x + i, mean + i, NULL, rows, stride, c - i, NULL, q + i);
}

static void column_pair(const float *x, const float *mean, const float *dy, size_t rows,
                        size_t stride, size_t c, float *s, float *q)
{
    size_t i = 0;
    for (; i + LANES <= c; i += LANES)
        column_lanes(x + i, mean + i, dy + i, rows, stride, LANES, s + i, q + i);
    if (i < c)
        column_lanes(x + i, mean + i, dy + i, rows, stride, c - i, s + i, q + i);
}

/* --- rows ------------------------------------------------------------------------------------- */
static void softmax(const float *y, const float *dy, size_t rows, size_t n, float *dx)
{
    for (size_t r = 0; r < rows; r++, y += n, dy += n, dx += n) {
        const float sum = dot(y, dy, n);
        SAME_OR_APART
        for (size_t i = 0; i < n; i++)
            dx[i] = y[i] * (dy[i] - sum);
    }
}

const vec_train VEC(vec_train) = {
#if defined(__AVX512F__)
    .name = "avx512",
    .needs = CPU_AVX2 | CPU_AVX512,
#elif defined(__AVX2__)
    .name = "avx2",
    .needs = CPU_AVX2,
#else
    .name = "c",
#endif
    .slope = {slope_relu, slope_clip, slope_leaky, slope_hard_sigmoid, slope_hard_swish, slope_elu,
              slope_exp, slope_sigmoid, slope_tanh, slope_sqrt, slope_square, slope_abs, slope_erf,
              slope_gelu, slope_gelu_tanh},
    .add = add,
    .affine = affine,
    .column_sum = column_sum,
    .column_spread = column_spread,
    .column_pair = column_pair,
    .window_max = VEC(train_window_max),
    .window_mean = VEC(train_window_mean),
    .softmax = softmax,
};
