#include <string.h>

#include "grad_cases.h"

/* --- functions of one element ----------------------------------------------------------------- */
/* Kinks lie where random float32 numbers do not: at 0, -3, 3 ... */
static const struct {
    const char *op;
    double      lo, hi;
    const char *a, *b; /* attributes */
    float       a_value, b_value;
} functions[] = {
    {"Abs", -2, 2, 0, 0, 0, 0},
    {"Acos", -0.9, 0.9, 0, 0, 0, 0},
    {"Acosh", 1.2, 4, 0, 0, 0, 0},
    {"Asin", -0.9, 0.9, 0, 0, 0, 0},
    {"Asinh", -3, 3, 0, 0, 0, 0},
    {"Atan", -3, 3, 0, 0, 0, 0},
    {"Atanh", -0.9, 0.9, 0, 0, 0, 0},
    {"Ceil", -3, 3, 0, 0, 0, 0},
    {"Celu", -2, 2, "alpha", 0, 0.5f, 0},
    {"Cos", -4, 4, 0, 0, 0, 0},
    {"Cosh", -2, 2, 0, 0, 0, 0},
    {"Elu", -3, 3, 0, 0, 0, 0},
    {"Elu", -3, 3, "alpha", 0, 0.5f, 0},
    {"Erf", -2, 2, 0, 0, 0, 0},
    {"Exp", -3, 2, 0, 0, 0, 0},
    {"Floor", -3, 3, 0, 0, 0, 0},
    {"Gelu", -4, 4, 0, 0, 0, 0},
    {"HardSigmoid", -4, 4, 0, 0, 0, 0},
    {"HardSigmoid", -2, 2, "alpha", "beta", 0.5f, 0.25f},
    {"HardSwish", -5, 5, 0, 0, 0, 0},
    {"Identity", -2, 2, 0, 0, 0, 0},
    {"LeakyRelu", -2, 2, 0, 0, 0, 0},
    {"LeakyRelu", -2, 2, "alpha", 0, -0.5f, 0},
    {"Log", 0.2, 3, 0, 0, 0, 0},
    {"Mish", -5, 5, 0, 0, 0, 0},
    {"Neg", -2, 2, 0, 0, 0, 0},
    {"Reciprocal", 0.3, 2, 0, 0, 0, 0},
    {"Relu", -2, 2, 0, 0, 0, 0},
    {"Round", -3, 3, 0, 0, 0, 0},
    {"Selu", -2, 2, 0, 0, 0, 0},
    {"Selu", -2, 2, "alpha", "gamma", 1.5f, 0.5f},
    {"Sigmoid", -6, 6, 0, 0, 0, 0},
    {"Sign", -2, 2, 0, 0, 0, 0},
    {"Sin", -4, 4, 0, 0, 0, 0},
    {"Sinh", -2, 2, 0, 0, 0, 0},
    {"Softplus", -20, 20, 0, 0, 0, 0},
    {"Softsign", -3, 3, 0, 0, 0, 0},
    {"Sqrt", 0.2, 4, 0, 0, 0, 0},
    {"Swish", -4, 4, 0, 0, 0, 0},
    {"Swish", -4, 4, "alpha", 0, 0.5f, 0},
    {"Tan", -1.2, 1.2, 0, 0, 0, 0},
    {"Tanh", -3, 3, 0, 0, 0, 0},
    {"ThresholdedRelu", -2, 2, 0, 0, 0, 0},
    {"ThresholdedRelu", -2, 2, "alpha", 0, 0.5f, 0},
};

void test_elementwise(void **state)
{
    grad_case c;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        case_begin(&c, functions[i].op, 24, 1);
        case_between(&c, functions[i].lo, functions[i].hi, DIMS(3, 1, 37));
        if (functions[i].a)
            case_float_attr(&c, functions[i].a, functions[i].a_value);
        if (functions[i].b)
            case_float_attr(&c, functions[i].b, functions[i].b_value);
        case_check(&c);
    }
    case_begin(&c, "Gelu", 20, 1);
    case_between(&c, -4, 4, DIMS(2, 50));
    case_string_attr(&c, "approximate", "tanh");
    case_check(&c);
    case_begin(&c, "Cast", 13, 1);
    case_between(&c, -4, 4, DIMS(2, 5));
    case_int_attr(&c, "to", RUNG_F32);
    case_coarse(&c);
    case_check(&c);
    case_begin(&c, "CastLike", 15, 1);
    case_between(&c, -4, 4, DIMS(2, 5));
    case_parameters(&c, DIMS(1), (const float[]){0});
    case_check(&c);
    case_begin(&c, "Dropout", 13, 1);
    case_between(&c, -4, 4, DIMS(2, 5));
    case_check(&c);
}

/* --- broadcast operands ----------------------------------------------------------------------- */
typedef struct shape {
    int     rank;
    int64_t dims[4];
} shape;

static const shape pairs[][2] = {
    {{4, {2, 3, 4, 5}}, {4, {2, 3, 4, 5}}},
    {{4, {2, 3, 4, 5}}, {4, {1, 3, 1, 1}}},
    {{4, {2, 3, 4, 5}}, {1, {5}}},
    {{3, {3, 1, 4}}, {4, {2, 1, 5, 1}}},
    {{0, {0}}, {2, {2, 3}}},
    {{2, {3, 300}}, {2, {3, 1}}},
    {{1, {1}}, {1, {1}}},
    {{2, {2, 1}}, {0, {0}}},
};
enum { N_PAIRS = sizeof pairs / sizeof *pairs };

void test_broadcast(void **state)
{
    /* Bases of Pow and divisors away from 0. */
    static const struct {
        const char *op;
        double      lo[2], hi[2];
    } ops[] = {
        {"Add", {-2, -2}, {2, 2}}, {"Sub", {-2, -2}, {2, 2}}, {"Mul", {-2, -2}, {2, 2}},
        {"Div", {-2, 0.5}, {2, 2}}, {"Pow", {0.5, -2}, {2, 3}}, {"Max", {-2, -2}, {2, 2}},
        {"Min", {-2, -2}, {2, 2}}, {"Sum", {-2, -2}, {2, 2}}, {"Mean", {-2, -2}, {2, 2}},
    };
    grad_case c;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        for (int p = 0; p < N_PAIRS; p++) {
            case_begin(&c, ops[i].op, 13, 1);
            for (int k = 0; k < 2; k++)
                case_between(&c, ops[i].lo[k], ops[i].hi[k], pairs[p][k].rank, pairs[p][k].dims);
            case_check(&c);
        }
    }
    static const char *const variadic[] = {"Max", "Min", "Sum", "Mean"};
    for (int i = 0; i < 4; i++) {
        for (int n = 1; n < 4; n += 2) { /* one operand, and three */
            case_begin(&c, variadic[i], 13, 1);
            case_input(&c, DIMS(2, 3, 4));
            if (n == 3) {
                case_input(&c, DIMS(3, 1));
                case_input(&c, DIMS(2, 1, 4));
            }
            case_check(&c);
        }
    }
    case_begin(&c, "Pow", 13, 1); /* integer exponents of any base */
    case_input(&c, DIMS(2, 4));
    case_ints(&c, DIMS(4), (const int64_t[]){0, 1, 2, 3});
    case_check(&c);
    for (int p = 0; p < 3; p++) {
        case_begin(&c, "PRelu", 13, 1);
        case_input(&c, pairs[p][0].rank, pairs[p][0].dims);
        case_input(&c, pairs[p][1].rank, pairs[p][1].dims);
        case_check(&c);
    }
}

/* --- Clip, Where ------------------------------------------------------------------------------ */
void test_selections(void **state)
{
    const float lo = -0.7f, hi = 0.9f;
    grad_case c;
    for (int bounds = 0; bounds < 4; bounds++) {
        case_begin(&c, "Clip", 13, 1);
        case_input(&c, DIMS(3, 20));
        if (bounds & 1)
            case_values(&c, 0, NULL, &lo);
        else
            case_absent(&c);
        if (bounds & 2)
            case_values(&c, 0, NULL, &hi);
        case_check(&c);
    }
    case_begin(&c, "Clip", 13, 1); /* bounds that cross: the upper one is the result */
    case_input(&c, DIMS(8));
    case_values(&c, 0, NULL, &hi);
    case_values(&c, 0, NULL, &lo);
    case_check(&c);
    const uint8_t choose[6] = {1, 0, 0, 1, 1, 0};
    case_begin(&c, "Where", 13, 1);
    case_bools(&c, DIMS(2, 3), choose);
    case_input(&c, DIMS(2, 3));
    case_input(&c, DIMS(2, 3));
    case_check(&c);
    case_begin(&c, "Where", 13, 1);
    case_bools(&c, DIMS(6, 1), choose);
    case_input(&c, DIMS(2, 1, 4));
    case_input(&c, 0, NULL);
    case_check(&c);
}
