#include "base/cpu.h"
#include "nn/vec_functions.h"
#include "nn/vec_local.h"

/* --- elementwise ----------------------------------------------------------------------------- */
#define UNARY(name, expression)                                                                    \
    static void name(const float *x, size_t n, float a, float b, float *y)                         \
    {                                                                                              \
        SAME_OR_APART                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            const float v = x[i];                                                                  \
            y[i] = expression;                                                                     \
        }                                                                                          \
    }

UNARY(unary_clamp, clamp_one(v, a, b))
UNARY(unary_affine_clamp, clamp_one(a * v + b, 0.0f, 1.0f))
UNARY(unary_hard_swish, v * clamp_one(v * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f))
UNARY(unary_leaky, v < 0.0f ? a * v : v)
UNARY(unary_elu, v < 0.0f ? a * expm1_one(v) : v)
UNARY(unary_exp, exp_one(v))
UNARY(unary_sigmoid, sigmoid_one(v))
UNARY(unary_tanh, tanh_one(v))
UNARY(unary_neg, -v)
UNARY(unary_abs, fabsf(v))
UNARY(unary_sqrt, sqrtf(v))
UNARY(unary_square, v * v)
UNARY(unary_erf, erf_one(v))

/* One loop for each kind of operand, so that each is vectorised. */
#define BINARY_LOOP(first, second, expression)                                                     \
    SAME_OR_APART                                                                                  \
    for (size_t i = 0; i < n; i++) {                                                               \
        const float u = first, v = second;                                                         \
        y[i] = expression;                                                                         \
    }
#define BINARY(name, expression)                                                                   \
    static void name(const float *a, int a_step, const float *b, int b_step, size_t n, float *y)   \
    {                                                                                              \
        const float a0 = a[0], b0 = b[0];                                                          \
        if (a_step && b_step) {                                                                    \
            BINARY_LOOP(a[i], b[i], expression)                                                    \
        } else if (a_step) {                                                                       \
            BINARY_LOOP(a[i], b0, expression)                                                      \
        } else if (b_step) {                                                                       \
            BINARY_LOOP(a0, b[i], expression)                                                      \
        } else {                                                                                   \
            BINARY_LOOP(a0, b0, expression)                                                        \
        }                                                                                          \
    }

BINARY(binary_add, u + v)
BINARY(binary_sub, u - v)
BINARY(binary_mul, u * v)
BINARY(binary_div, u / v)
BINARY(binary_min, v < u ? v : u)
BINARY(binary_max, v > u ? v : u)
BINARY(binary_prelu, u < 0.0f ? u * v : u)

/* --- rows ------------------------------------------------------------------------------------ */
static float row_max_one(const float *x, size_t n)
{
    float m = x[0];
    size_t i = 0;
    if (n >= LANES) {
        float lanes[LANES];
        vec v = load(x);
        for (i = LANES; i + LANES <= n; i += LANES)
            v = vec_max(v, load(x + i));
        store(lanes, v);
        for (int k = 0; k < LANES; k++)
            m = lanes[k] > m ? lanes[k] : m;
    }
    for (; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static float row_sum_one(const float *x, size_t n)
{
    float sum = 0;
    size_t i = 0;
    if (n >= LANES) {
        float lanes[LANES];
        vec v = load(x);
        for (i = LANES; i + LANES <= n; i += LANES)
            v += load(x + i);
        store(lanes, v);
        for (int k = 0; k < LANES; k++)
            sum += lanes[k];
    }
    for (; i < n; i++)
        sum += x[i];
    return sum;
}

static void row_max(const float *x, size_t rows, size_t n, float *y)
{
    for (size_t r = 0; r < rows; r++)
        y[r] = row_max_one(x + r * n, n);
}

static void row_sum(const float *x, size_t rows, size_t n, float *y)
{
    for (size_t r = 0; r < rows; r++)
        y[r] = row_sum_one(x + r * n, n);
}

/* Short rows are exponentiated many at a time. */
static void softmax(const float *x, size_t rows, size_t n, float *y)
{
    const size_t together = n < 1024 ? 1024 / n : 1;
    for (size_t first = 0; first < rows; first += together) {
        const size_t count = rows - first < together ? rows - first : together;
        const float *in = x + first * n;
        float *out = y + first * n;
        for (size_t r = 0; r < count; r++) {
            const float m = row_max_one(in + r * n, n);
            for (size_t i = 0; i < n; i++)
                out[r * n + i] = in[r * n + i] - m;
        }
        unary_exp(out, count * n, 0, 0, out);
        for (size_t r = 0; r < count; r++) {
            const float sum = row_sum_one(out + r * n, n);
            for (size_t i = 0; i < n; i++)
                out[r * n + i] /= sum;
        }
    }
}

const vec_ops VEC(vec_ops) = {
#if defined(__AVX512F__)
    .name = "avx512",
    .needs = CPU_AVX2 | CPU_AVX512,
#elif defined(__AVX2__)
    .name = "avx2",
    .needs = CPU_AVX2,
#else
    .name = "c",
#endif
    .unary = {unary_clamp, unary_affine_clamp, unary_hard_swish, unary_leaky, unary_elu, unary_exp,
              unary_sigmoid, unary_tanh, unary_neg, unary_abs, unary_sqrt,
              unary_square, unary_erf},
    .binary = {binary_add, binary_sub, binary_mul, binary_div, binary_min, binary_max,
               binary_prelu},
    .softmax = softmax,
    .row_sum = row_sum,
    .row_max = row_max,
    .window_mean = VEC(vec_window_mean),
    .window_max = VEC(vec_window_max),
    .gemv_block = GEMV_BLOCK,
    .gemv = VEC(vec_gemv),
    .packed_width = 2 * LANES,
    .packed_product = VEC(vec_packed_product),
    .blend = VEC(vec_blend),
};
