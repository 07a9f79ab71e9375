/* Derivatives of the functions of one element (ops/unary.h). */
#include <math.h>
#include <string.h>

#include "ops/grad.h"
#include "ops/unary.h"

/* dx = dy * f', v being x or y; a and b as the function has them. */
typedef void (*slope_fn)(const float *restrict v, const float *restrict dy, double a, double b,
                         size_t n, float *restrict dx);

#define SLOPE(name, formula)                                                                       \
    static void name(const float *restrict from, const float *restrict dy, double a, double b,     \
                     size_t n, float *restrict dx)                                                 \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            const double v = from[i];                                                              \
            dx[i] = (float)(dy[i] * (formula));                                                    \
        }                                                                                          \
    }

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

/* x Phi(x): Phi + x phi. */
static double gelu_slope(double x)
{
    const double phi = 0.3989422804014327 * exp(-0.5 * x * x); /* 1 / sqrt(2 pi) */
    return 0.5 * (1 + erf(x * M_SQRT1_2)) + x * phi;
}

/* x (1 + tanh u) / 2, u = c (x + 0.044715 x^3), c = sqrt(2 / pi). */
static double gelu_tanh_slope(double x)
{
    const double c = 0.7978845608028654, t = tanh(c * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
}

/* x tanh(p), p = log(1 + e^x), p' = logistic(x). */
static double mish_slope(double x)
{
    const double t = tanh(x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)));
    return t + x * (1 - t * t) * logistic(x);
}

/* x s, s = logistic(a x). */
static double swish_slope(double x, double a)
{
    const double s = logistic(a * x);
    return s + a * x * s * (1 - s);
}

static double sign(double x)
{
    return (x > 0) - (x < 0);
}

static double square(double x)
{
    return x * x;
}

static void s_neg(const float *restrict v, const float *restrict dy, double a, double b, size_t n,
                  float *restrict dx)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = -dy[i];
}

/* Relu is everywhere: without the way through double. v is y. */
static void s_relu(const float *restrict v, const float *restrict dy, double a, double b, size_t n,
                   float *restrict dx)
{
    for (size_t i = 0; i < n; i++) {
        const float g = dy[i]; /* read in either case: no branch is left */
        dx[i] = v[i] > 0 ? g : 0;
    }
}

/* Of x. */
SLOPE(s_abs, sign(v))
SLOPE(s_acos, -1 / sqrt(1 - v * v))
SLOPE(s_acosh, 1 / sqrt(v * v - 1))
SLOPE(s_asin, 1 / sqrt(1 - v * v))
SLOPE(s_asinh, 1 / sqrt(1 + v * v))
SLOPE(s_atan, 1 / (1 + v * v))
SLOPE(s_atanh, 1 / (1 - v * v))
SLOPE(s_celu, v > 0 ? 1 : exp(v / a))
SLOPE(s_cos, -sin(v))
SLOPE(s_cosh, sinh(v))
SLOPE(s_elu, v > 0 ? 1 : a * exp(v))
SLOPE(s_erf, M_2_SQRTPI * exp(-v * v))
SLOPE(s_gelu, gelu_slope(v))
SLOPE(s_gelu_tanh, gelu_tanh_slope(v))
SLOPE(s_hard_swish, v <= -3 ? 0 : v < 3 ? v / 3 + 0.5 : 1)
SLOPE(s_leaky_relu, v > 0 ? 1 : a)
SLOPE(s_log, 1 / v)
SLOPE(s_mish, mish_slope(v))
SLOPE(s_selu, v > 0 ? b : b * a * exp(v))
SLOPE(s_sin, cos(v))
SLOPE(s_sinh, cosh(v))
SLOPE(s_softplus, logistic(v))
SLOPE(s_softsign, 1 / square(1 + fabs(v)))
SLOPE(s_swish, swish_slope(v, a))
SLOPE(s_thresholded_relu, v > a ? 1 : 0)
/* Of y. */
SLOPE(s_exp, v)
SLOPE(s_hard_sigmoid, v > 0 && v < 1 ? a : 0)
SLOPE(s_reciprocal, -v * v)
SLOPE(s_sigmoid, v * (1 - v))
SLOPE(s_sqrt, 0.5 / v)
SLOPE(s_tan, 1 + v * v)
SLOPE(s_tanh, 1 - v * v)
#undef SLOPE

/* What v is, as the table's `reads` say. */
enum source { OF_X, OF_Y, OF_NEITHER };

static const struct {
    const char *op;
    slope_fn    slope;
    enum source source;
} slopes[] = {
    {"Abs", s_abs, OF_X},
    {"Acos", s_acos, OF_X},
    {"Acosh", s_acosh, OF_X},
    {"Asin", s_asin, OF_X},
    {"Asinh", s_asinh, OF_X},
    {"Atan", s_atan, OF_X},
    {"Atanh", s_atanh, OF_X},
    {"Celu", s_celu, OF_X},
    {"Cos", s_cos, OF_X},
    {"Cosh", s_cosh, OF_X},
    {"Elu", s_elu, OF_X},
    {"Erf", s_erf, OF_X},
    {"Exp", s_exp, OF_Y},
    {"Gelu", s_gelu, OF_X},
    {"HardSigmoid", s_hard_sigmoid, OF_Y},
    {"HardSwish", s_hard_swish, OF_X},
    {"LeakyRelu", s_leaky_relu, OF_X},
    {"Log", s_log, OF_X},
    {"Mish", s_mish, OF_X},
    {"Neg", s_neg, OF_NEITHER},
    {"Reciprocal", s_reciprocal, OF_Y},
    {"Relu", s_relu, OF_Y},
    {"Selu", s_selu, OF_X},
    {"Sigmoid", s_sigmoid, OF_Y},
    {"Sin", s_sin, OF_X},
    {"Sinh", s_sinh, OF_X},
    {"Softplus", s_softplus, OF_X},
    {"Softsign", s_softsign, OF_X},
    {"Sqrt", s_sqrt, OF_Y},
    {"Swish", s_swish, OF_X},
    {"Tan", s_tan, OF_Y},
    {"Tanh", s_tanh, OF_Y},
    {"ThresholdedRelu", s_thresholded_relu, OF_X},
};

rung_status unary_grad(const grad_args *a, rung_error *err)
{
    unary u;
    bool any;
    size_t i = 0;
    const rung_status st = grad_begin(a, &any, err);
    if (st || !any || !a->din[0].data || !unary_of(a->n, &u))
        return st;
    while (strcmp(slopes[i].op, a->n->op_type) != 0)
        i++; /* the entries that name unary_grad are all in the list */
    const float *dy = a->dout[0].data;
    const float *v = slopes[i].source == OF_X   ? a->in[0].data
                     : slopes[i].source == OF_Y ? a->out[0].data
                                                : NULL;
    slope_fn slope = slopes[i].slope;
    if (slope == s_gelu && strcmp(node_string(a->n, "approximate", "none"), "tanh") == 0)
        slope = s_gelu_tanh;
    slope(v, dy, u.a, u.b, tensor_count(&a->dout[0]), a->din[0].data);
    return RUNG_OK;
}
