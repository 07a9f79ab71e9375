#include <math.h>
#include <stdint.h>

#include "base/cpu.h"
#include "nn/vec_local.h"

/* --- e^x -------------------------------------------------------------------------------------
 * 2^n e^r with n = rne(x / ln 2), |r| <= ln(2) / 2: the Taylor polynomial of degree 7 leaves less
 * than 6e-9 of e^r, the rounding of its steps about 1 ulp. Below the smallest normal number the
 * result is 0, above the largest it is infinity. */
static inline float exp_one(float x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float above = x > -87.33f ? x : -87.33f; /* NaN too: no cast of it below */
    const float v = above < 88.72f ? above : 88.72f;
    const float n = (v * 1.44269504f + round) - round;
    const float r = (v - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* n reaches 128: in two factors, each a normal number. */
    const int32_t half = (int32_t)n >> 1, rest = (int32_t)n - half;
    const int32_t a_bits = (half + 127) << 23, b_bits = (rest + 127) << 23;
    float a, b;
    memcpy(&a, &a_bits, sizeof a);
    memcpy(&b, &b_bits, sizeof b);
    const float y = p * a * b;
    return x > 88.72283f ? INFINITY : x < -87.33f ? 0.0f : x != x ? x : y;
}

static inline float sigmoid_one(float x)
{
    return 1.0f / (1.0f + exp_one(-x));
}

/* Odd polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel (Cephes' tanhf). */
static inline float tanh_one(float x)
{
    const float z = x * x, far = 1.0f - 2.0f / (exp_one(2.0f * x) + 1.0f);
    float p = -5.70498872745e-3f;
    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    return z < 0.390625f ? p * z * x + x : far;
}

/* Odd polynomial behind x where e^x - 1 would cancel. */
static inline float expm1_one(float x)
{
    float p = 1.0f / 5040.0f;
    p = p * x + 1.0f / 720.0f;
    p = p * x + 1.0f / 120.0f;
    p = p * x + 1.0f / 24.0f;
    p = p * x + 1.0f / 6.0f;
    p = p * x + 0.5f;
    const float near = p * x * x + x, far = exp_one(x) - 1.0f;
    return x > -0.35f && x < 0.35f ? near : far;
}

/* Up to 1 the series of x^21; beyond, Abramowitz and Stegun's 7.1.26 (its error is 1.5e-7). */
static inline float erf_one(float x)
{
    const float z = x * x, t = 1.0f / (1.0f + 0.3275911f * fabsf(x));
    float p = 1.0f / 76204800.0f;
    p = p * z - 1.0f / 6894720.0f;
    p = p * z + 1.0f / 685440.0f;
    p = p * z - 1.0f / 75600.0f;
    p = p * z + 1.0f / 9360.0f;
    p = p * z - 1.0f / 1320.0f;
    p = p * z + 1.0f / 216.0f;
    p = p * z - 1.0f / 42.0f;
    p = p * z + 0.1f;
    p = p * z - 1.0f / 3.0f;
    p = p * z + 1.0f;
    float q = 1.061405429f;
    q = q * t - 1.453152027f;
    q = q * t + 1.421413741f;
    q = q * t - 0.284496736f;
    q = q * t + 0.254829592f;
    const float far = copysignf(1.0f - q * t * exp_one(-z), x);
    const float y = z < 1.0f ? 1.12837917f * x * p : far;
    return x != x ? x : y;
}

/* Operands are the same array or apart, which no compiler can see: without this it would take the
 * scalar loop where y = x. */
#if defined(__clang__)
#define SAME_OR_APART _Pragma("clang loop vectorize(assume_safety)")
#else
#define SAME_OR_APART _Pragma("GCC ivdep")
#endif

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
