#include "ops/unary.h"

#include <math.h>
#include <string.h>

#include "ops/args.h"
#include "ops/element.h"
#include "ops/entries.h"
#include "ops/grad.h"
#include "ops/lower.h"

#define F(name, formula)                                                                           \
    static double name(double x, double a, double b)                                               \
    {                                                                                              \
        return formula;                                                                            \
    }
static double softplus(double x)
{
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

/* max and min that keep NaN, as the operators do. */
static double at_least(double x, double lo)
{
    return x < lo ? lo : x;
}

static double at_most(double x, double hi)
{
    return x > hi ? hi : x;
}

F(f_abs, fabs(x))
F(f_acos, acos(x))
F(f_acosh, acosh(x))
F(f_asin, asin(x))
F(f_asinh, asinh(x))
F(f_atan, atan(x))
F(f_atanh, atanh(x))
F(f_ceil, ceil(x))
F(f_celu, at_least(x, 0) + at_most(a * expm1(x / a), 0))
F(f_cos, cos(x))
F(f_cosh, cosh(x))
F(f_elu, x < 0 ? a * expm1(x) : x)
F(f_erf, erf(x))
F(f_exp, exp(x))
F(f_floor, floor(x))
F(f_gelu, 0.5 * x * (1 + erf(x * M_SQRT1_2)))
F(f_gelu_tanh, 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))))
F(f_hard_sigmoid, at_most(at_least(a * x + b, 0), 1))
F(f_hard_swish, x * at_most(at_least(x / 6 + 0.5, 0), 1))
F(f_leaky_relu, x < 0 ? a * x : x)
F(f_log, log(x))
F(f_mish, x * tanh(softplus(x)))
F(f_neg, -x)
F(f_reciprocal, 1 / x)
F(f_relu, at_least(x, 0))
F(f_round, nearbyint(x))
F(f_selu, x > 0 ? b * x : b * a * expm1(x))
F(f_sigmoid, 1 / (1 + exp(-x)))
F(f_sign, isnan(x) ? x : (x > 0) - (x < 0))
F(f_sin, sin(x))
F(f_sinh, sinh(x))
F(f_softplus, softplus(x))
F(f_softsign, x / (1 + fabs(x)))
F(f_sqrt, sqrt(x))
F(f_swish, x / (1 + exp(-a * x)))
F(f_tan, tan(x))
F(f_tanh, tanh(x))
F(f_thresholded_relu, x > a ? x : 0)
#undef F

/* Operator, function, its attributes a and b with their defaults. */
static const struct {
    const char *op;
    double (*f)(double x, double a, double b);
    const char *a_name;
    float       a;
    const char *b_name;
    float       b;
} functions[] = {
    {"Abs", f_abs, 0, 0, 0, 0},
    {"Acos", f_acos, 0, 0, 0, 0},
    {"Acosh", f_acosh, 0, 0, 0, 0},
    {"Asin", f_asin, 0, 0, 0, 0},
    {"Asinh", f_asinh, 0, 0, 0, 0},
    {"Atan", f_atan, 0, 0, 0, 0},
    {"Atanh", f_atanh, 0, 0, 0, 0},
    {"Ceil", f_ceil, 0, 0, 0, 0},
    {"Celu", f_celu, "alpha", 1, 0, 0},
    {"Cos", f_cos, 0, 0, 0, 0},
    {"Cosh", f_cosh, 0, 0, 0, 0},
    {"Elu", f_elu, "alpha", 1, 0, 0},
    {"Erf", f_erf, 0, 0, 0, 0},
    {"Exp", f_exp, 0, 0, 0, 0},
    {"Floor", f_floor, 0, 0, 0, 0},
    {"Gelu", f_gelu, 0, 0, 0, 0},
    {"HardSigmoid", f_hard_sigmoid, "alpha", 0.2f, "beta", 0.5f},
    {"HardSwish", f_hard_swish, 0, 0, 0, 0},
    {"LeakyRelu", f_leaky_relu, "alpha", 0.01f, 0, 0},
    {"Log", f_log, 0, 0, 0, 0},
    {"Mish", f_mish, 0, 0, 0, 0},
    {"Neg", f_neg, 0, 0, 0, 0},
    {"Reciprocal", f_reciprocal, 0, 0, 0, 0},
    {"Relu", f_relu, 0, 0, 0, 0},
    {"Round", f_round, 0, 0, 0, 0},
    {"Selu", f_selu, "alpha", 1.67326319217681884765625f, "gamma", 1.05070102214813232421875f},
    {"Sigmoid", f_sigmoid, 0, 0, 0, 0},
    {"Sign", f_sign, 0, 0, 0, 0},
    {"Sin", f_sin, 0, 0, 0, 0},
    {"Sinh", f_sinh, 0, 0, 0, 0},
    {"Softplus", f_softplus, 0, 0, 0, 0},
    {"Softsign", f_softsign, 0, 0, 0, 0},
    {"Sqrt", f_sqrt, 0, 0, 0, 0},
    {"Swish", f_swish, "alpha", 1, 0, 0},
    {"Tan", f_tan, 0, 0, 0, 0},
    {"Tanh", f_tanh, 0, 0, 0, 0},
    {"ThresholdedRelu", f_thresholded_relu, "alpha", 1, 0, 0},
};

bool unary_of(const node *n, unary *out)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(functions[i].op, n->op_type) != 0)
            continue;
        *out = (unary){.f = functions[i].f};
        if (functions[i].a_name)
            out->a = node_float(n, functions[i].a_name, functions[i].a);
        if (functions[i].b_name)
            out->b = node_float(n, functions[i].b_name, functions[i].b);
        if (out->f == f_gelu && strcmp(node_string(n, "approximate", "none"), "tanh") == 0)
            out->f = f_gelu_tanh;
        return true;
    }
    return false;
}

static rung_status infer_types(const infer_args *a, unsigned types, rung_error *err)
{
    rung_status st;
    if ((st = op_counts(a, 1, 1, 1, err)) || (st = op_type(a, 0, types, err)))
        return st;
    return op_like(a, 0, 0, a->in[0]->type, err);
}

static rung_status float_infer(const infer_args *a, rung_error *err)
{
    const char *form = node_string(a->n, "approximate", "none");
    if (strcmp(form, "none") != 0 && strcmp(form, "tanh") != 0)
        return fail(err, RUNG_EMODEL, "approximate is '%.40s', not none or tanh", form);
    return infer_types(a, TYPES_FLOAT, err);
}

static rung_status number_infer(const infer_args *a, rung_error *err)
{
    return infer_types(a, TYPES_NUMBER, err);
}

#define CHUNK 256

static rung_status unary_eval(const eval_args *a, rung_error *err)
{
    unary u;
    double v[CHUNK];
    const size_t count = tensor_count(&a->out[0]);
    if (!unary_of(a->n, &u))
        return fail(err, RUNG_EUNSUPPORTED, "%s is no function of one element", a->n->op_type);
    for (size_t first = 0; first < count; first += CHUNK) {
        const size_t n = count - first < CHUNK ? count - first : CHUNK;
        load_doubles(&a->in[0], first, n, v);
        for (size_t i = 0; i < n; i++)
            v[i] = unary_apply(&u, v[i]);
        store_doubles(&a->out[0], first, n, v);
    }
    return RUNG_OK;
}

/* Abs, Neg, Sign, Relu of integers: exact for 64 bits too. */
static int64_t int_unary(const char *op, dtype type, int64_t x)
{
    if (strcmp(op, "Neg") == 0)
        return (int64_t)(0 - (uint64_t)x);
    if (strcmp(op, "Sign") == 0)
        return type == RUNG_U64 ? x != 0 : (x > 0) - (x < 0);
    if (type == RUNG_U64 || x >= 0)
        return x;
    return strcmp(op, "Relu") == 0 ? 0 : (int64_t)(0 - (uint64_t)x);
}

static rung_status number_eval(const eval_args *a, rung_error *err)
{
    const tensor *x = &a->in[0];
    const size_t count = tensor_count(&a->out[0]);
    if (dtype_is_float(x->type))
        return unary_eval(a, err);
    for (size_t i = 0; i < count; i++) {
        const int64_t v = int_unary(a->n->op_type, x->type, tensor_get_int(x, i));
        store_ints(&a->out[0], i, 1, &v);
    }
    return RUNG_OK;
}

/* Follows its input's layout; quantized, it is a table between two pairs. */
#define COMPUTED .quant = {QUANT_COMPUTE, .activations = 1}, .layout = LAYOUT_FOLLOWS
#define RANGED(lo, hi)                                                                             \
    .quant = {QUANT_FIXED_OUTPUT, .activations = 1, .fixed_lo = lo, .fixed_hi = hi},               \
    .layout = LAYOUT_FOLLOWS
/* What the slope is computed from. */
#define GRAD_OF_X .grad = unary_grad, .reads = {.in = 1}
#define GRAD_OF_Y .grad = unary_grad, .reads = {.out = 1}
#define FLOAT_OP(op)                                                                               \
    .name = op, .domain = "", .infer = float_infer, .eval = unary_eval, .lower = lower_table
#define NUMBER_OP(op)                                                                              \
    .name = op, .domain = "", .infer = number_infer, .eval = number_eval, .lower = lower_table

const op_def op_abs = {NUMBER_OP("Abs"), GRAD_OF_X, COMPUTED};
const op_def op_acos = {FLOAT_OP("Acos"), GRAD_OF_X, .layout = LAYOUT_FOLLOWS};
const op_def op_acosh = {FLOAT_OP("Acosh"), GRAD_OF_X, .layout = LAYOUT_FOLLOWS};
const op_def op_asin = {FLOAT_OP("Asin"), GRAD_OF_X, .layout = LAYOUT_FOLLOWS};
const op_def op_asinh = {FLOAT_OP("Asinh"), GRAD_OF_X, .layout = LAYOUT_FOLLOWS};
const op_def op_atan = {FLOAT_OP("Atan"), GRAD_OF_X, COMPUTED};
const op_def op_atanh = {FLOAT_OP("Atanh"), GRAD_OF_X, .layout = LAYOUT_FOLLOWS};
const op_def op_ceil = {FLOAT_OP("Ceil"), .grad = flat_grad, .layout = LAYOUT_FOLLOWS};
const op_def op_celu = {FLOAT_OP("Celu"), GRAD_OF_X, COMPUTED};
const op_def op_cos = {FLOAT_OP("Cos"), GRAD_OF_X, RANGED(-1, 1)};
const op_def op_cosh = {FLOAT_OP("Cosh"), GRAD_OF_X, .layout = LAYOUT_FOLLOWS};
const op_def op_elu = {FLOAT_OP("Elu"), GRAD_OF_X, COMPUTED};
const op_def op_erf = {FLOAT_OP("Erf"), GRAD_OF_X, RANGED(-1, 1)};
const op_def op_exp = {FLOAT_OP("Exp"), GRAD_OF_Y, COMPUTED};
const op_def op_floor = {FLOAT_OP("Floor"), .grad = flat_grad, .layout = LAYOUT_FOLLOWS};
const op_def op_gelu = {FLOAT_OP("Gelu"), GRAD_OF_X, COMPUTED};
const op_def op_hard_sigmoid = {FLOAT_OP("HardSigmoid"), GRAD_OF_Y, RANGED(0, 1)};
const op_def op_hard_swish = {FLOAT_OP("HardSwish"), GRAD_OF_X, COMPUTED};
const op_def op_leaky_relu = {FLOAT_OP("LeakyRelu"), GRAD_OF_X, COMPUTED};
const op_def op_log = {FLOAT_OP("Log"), GRAD_OF_X, .layout = LAYOUT_FOLLOWS};
const op_def op_mish = {FLOAT_OP("Mish"), GRAD_OF_X, COMPUTED};
const op_def op_neg = {NUMBER_OP("Neg"), .grad = unary_grad, COMPUTED};
const op_def op_reciprocal = {FLOAT_OP("Reciprocal"), GRAD_OF_Y, .layout = LAYOUT_FOLLOWS};
const op_def op_relu = {NUMBER_OP("Relu"), GRAD_OF_Y, .quant = {QUANT_ABSORBED, .activations = 1},
                        .layout = LAYOUT_FOLLOWS};
const op_def op_round = {FLOAT_OP("Round"), .grad = flat_grad, .layout = LAYOUT_FOLLOWS};
const op_def op_selu = {FLOAT_OP("Selu"), GRAD_OF_X, COMPUTED};
const op_def op_sigmoid = {FLOAT_OP("Sigmoid"), GRAD_OF_Y, RANGED(0, 1)};
const op_def op_sign = {NUMBER_OP("Sign"), .grad = flat_grad, .layout = LAYOUT_FOLLOWS};
const op_def op_sin = {FLOAT_OP("Sin"), GRAD_OF_X, RANGED(-1, 1)};
const op_def op_sinh = {FLOAT_OP("Sinh"), GRAD_OF_X, .layout = LAYOUT_FOLLOWS};
const op_def op_softplus = {FLOAT_OP("Softplus"), GRAD_OF_X, COMPUTED};
const op_def op_softsign = {FLOAT_OP("Softsign"), GRAD_OF_X, RANGED(-1, 1)};
const op_def op_sqrt = {FLOAT_OP("Sqrt"), GRAD_OF_Y, COMPUTED};
const op_def op_swish = {FLOAT_OP("Swish"), GRAD_OF_X, COMPUTED};
const op_def op_tan = {FLOAT_OP("Tan"), GRAD_OF_Y, .layout = LAYOUT_FOLLOWS};
const op_def op_tanh = {FLOAT_OP("Tanh"), GRAD_OF_Y, RANGED(-1, 1)};
const op_def op_thresholded_relu = {FLOAT_OP("ThresholdedRelu"), GRAD_OF_X, COMPUTED};
