/* The gradients of the operators of convolutional networks, kinks, refusals; and, after all cases
 * of this program, that no operator of the table was forgotten. */
#include <string.h>

#include "grad_cases.h"
#include "ops/ops.h"

/* --- convolutions ----------------------------------------------------------------------------- */
typedef struct conv_row {
    const char *op;
    int64_t     x[5], w[5]; /* rank: 4, or 3 or 5 */
    int         rank;
    int64_t     group;
    int64_t     strides[3], dilations[3], pads[6];
    const char *auto_pad;
    int64_t     output_padding[3];
    bool        bias;
} conv_row;

#define ONES {1, 1, 1}
static const conv_row convs[] = {
    {"Conv", {2, 3, 5, 6}, {4, 3, 3, 3}, 4, 1, ONES, ONES, {1, 1, 1, 1}, NULL, {0}, true},
    {"Conv", {1, 4, 7, 5}, {6, 2, 3, 2}, 4, 2, {2, 1}, ONES, {0, 1, 2, 0}, NULL, {0}, true},
    {"Conv", {2, 3, 6, 7}, {3, 1, 3, 3}, 4, 3, {2, 2}, ONES, {1, 1, 1, 1}, NULL, {0}, false},
    {"Conv", {1, 2, 9, 8}, {6, 1, 3, 3}, 4, 2, ONES, {2, 3}, {2, 0, 1, 3}, NULL, {0}, true},
    {"Conv", {1, 3, 5, 5}, {2, 3, 1, 1}, 4, 1, {2, 2}, ONES, {0}, NULL, {0}, false},
    {"Conv", {1, 2, 7, 6}, {2, 2, 4, 3}, 4, 1, {2, 3}, ONES, {0}, "SAME_UPPER", {0}, true},
    {"Conv", {1, 2, 7, 6}, {2, 2, 4, 2}, 4, 1, {3, 2}, ONES, {0}, "SAME_LOWER", {0}, false},
    {"Conv", {1, 2, 5, 5}, {2, 2, 2, 3}, 4, 1, ONES, ONES, {0}, "VALID", {0}, false},
    {"Conv", {1, 1, 2, 2}, {1, 1, 3, 3}, 4, 1, {4, 4}, ONES, {4, 4, 4, 4}, NULL, {0}, true},
    {"Conv", {2, 2, 9}, {4, 1, 3}, 3, 2, {2}, {2}, {1, 2}, NULL, {0}, true},
    {"Conv", {1, 2, 3, 4, 3}, {2, 2, 2, 3, 2}, 5, 1, {1, 2, 1}, ONES, {1, 0, 1, 0, 1, 0}, NULL,
     {0}, true},
    {"ConvTranspose", {2, 3, 4, 3}, {3, 2, 3, 3}, 4, 1, {2, 2}, ONES, {1, 1, 1, 1}, NULL, {1, 0},
     true},
    {"ConvTranspose", {1, 4, 3, 4}, {4, 1, 2, 3}, 4, 2, ONES, {2, 1}, {0, 1, 1, 0}, NULL, {0},
     false},
    {"ConvTranspose", {1, 2, 3, 3}, {2, 3, 2, 2}, 4, 1, {3, 2}, ONES, {0}, "SAME_UPPER", {0}, true},
    {"ConvTranspose", {2, 3, 5}, {3, 1, 4}, 3, 3, {2}, ONES, {1, 0}, NULL, {0}, true},
};

static void run_conv(const conv_row *v)
{
    const int n = v->rank - 2;
    const int64_t outs = strcmp(v->op, "Conv") == 0 ? v->w[0] : v->w[1] * v->group;
    grad_case c;
    case_begin(&c, v->op, 13, 1);
    case_exact(&c, v->rank, v->x);
    case_exact(&c, v->rank, v->w);
    if (v->bias)
        case_exact(&c, 1, &outs);
    case_int_attr(&c, "group", v->group);
    case_ints_attr(&c, "strides", n, v->strides);
    case_ints_attr(&c, "dilations", n, v->dilations);
    if (v->auto_pad)
        case_string_attr(&c, "auto_pad", v->auto_pad);
    else
        case_ints_attr(&c, "pads", 2 * n, v->pads);
    if (v->output_padding[0])
        case_ints_attr(&c, "output_padding", n, v->output_padding);
    case_check(&c);
}

static void test_convolutions(void **state)
{
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++)
        run_conv(&convs[i]);
}

/* --- products --------------------------------------------------------------------------------- */
static void run_gemm(bool ta, bool tb, int c_rank, const int64_t *c_dims, float beta)
{
    grad_case c;
    case_begin(&c, "Gemm", 13, 1);
    case_exact(&c, 2, ta ? (int64_t[]){5, 3} : (int64_t[]){3, 5});
    case_exact(&c, 2, tb ? (int64_t[]){4, 5} : (int64_t[]){5, 4});
    if (c_rank >= 0)
        case_exact(&c, c_rank, c_dims);
    case_int_attr(&c, "transA", ta);
    case_int_attr(&c, "transB", tb);
    case_float_attr(&c, "alpha", 0.5f);
    case_float_attr(&c, "beta", beta);
    case_check(&c);
}

static void test_gemm(void **state)
{
    for (int k = 0; k < 4; k++) {
        run_gemm(k & 1, k & 2, -1, NULL, 1);
        run_gemm(k & 1, k & 2, DIMS(4), 1);
        run_gemm(k & 1, k & 2, DIMS(3, 1), 2);
        run_gemm(k & 1, k & 2, DIMS(3, 4), -0.5f);
        run_gemm(k & 1, k & 2, 0, NULL, 2);
    }
}

static void run_matmul(int a_rank, const int64_t *a, int b_rank, const int64_t *b)
{
    grad_case c;
    case_begin(&c, "MatMul", 13, 1);
    case_exact(&c, a_rank, a);
    case_exact(&c, b_rank, b);
    case_check(&c);
}

static void test_matmul(void **state)
{
    run_matmul(DIMS(3, 17), DIMS(17, 4));
    run_matmul(DIMS(2, 3, 4, 5), DIMS(2, 3, 5, 2));
    run_matmul(DIMS(2, 3, 4, 5), DIMS(5, 2));
    run_matmul(DIMS(3, 1, 4, 5), DIMS(2, 5, 3));
    run_matmul(DIMS(5), DIMS(2, 5, 3));
    run_matmul(DIMS(2, 4, 5), DIMS(5));
    run_matmul(DIMS(7), DIMS(7));
}

/* --- pools ------------------------------------------------------------------------------------ */
typedef struct pool_row {
    const char *op;
    int64_t     x[4], kernel[2], strides[2], dilations[2], pads[4];
    bool        ceil, count_pad;
    const char *auto_pad;
} pool_row;

static const pool_row pools[] = {
    {"MaxPool", {2, 3, 6, 5}, {2, 2}, {2, 2}, {1, 1}, {0}, false, false, NULL},
    {"MaxPool", {1, 2, 7, 8}, {3, 3}, {2, 1}, {1, 1}, {1, 1, 1, 1}, false, false, NULL},
    {"MaxPool", {1, 2, 7, 8}, {3, 2}, {2, 3}, {2, 1}, {0, 1, 1, 0}, true, false, NULL},
    {"MaxPool", {1, 2, 5, 4}, {3, 2}, {2, 3}, {1, 1}, {0}, false, false, "SAME_UPPER"},
    {"AveragePool", {2, 2, 6, 5}, {2, 3}, {2, 2}, {1, 1}, {0}, false, false, NULL},
    {"AveragePool", {1, 2, 7, 8}, {3, 3}, {2, 1}, {1, 1}, {1, 0, 1, 2}, false, true, NULL},
    {"AveragePool", {1, 2, 7, 8}, {3, 3}, {2, 1}, {1, 1}, {1, 0, 1, 2}, false, false, NULL},
    {"AveragePool", {1, 2, 6, 8}, {3, 3}, {2, 3}, {1, 1}, {1, 1, 1, 1}, true, true, NULL},
    {"AveragePool", {1, 2, 5, 4}, {3, 2}, {2, 3}, {1, 1}, {0}, false, true, "SAME_LOWER"},
    {"LpPool", {1, 2, 6, 5}, {2, 3}, {2, 1}, {1, 1}, {0, 1, 0, 1}, false, false, NULL},
};

static void run_pool(const pool_row *v, int64_t p)
{
    grad_case c;
    case_begin(&c, v->op, 19, 1);
    case_input(&c, 4, v->x);
    case_ints_attr(&c, "kernel_shape", 2, v->kernel);
    case_ints_attr(&c, "strides", 2, v->strides);
    case_ints_attr(&c, "dilations", 2, v->dilations);
    if (v->auto_pad)
        case_string_attr(&c, "auto_pad", v->auto_pad);
    else
        case_ints_attr(&c, "pads", 4, v->pads);
    case_int_attr(&c, "ceil_mode", v->ceil);
    case_int_attr(&c, strcmp(v->op, "LpPool") == 0 ? "p" : "count_include_pad",
                  strcmp(v->op, "LpPool") == 0 ? p : v->count_pad);
    case_check(&c);
}

static void test_pools(void **state)
{
    for (size_t i = 0; i < sizeof pools / sizeof *pools; i++) {
        run_pool(&pools[i], 2);
        if (strcmp(pools[i].op, "LpPool") == 0)
            run_pool(&pools[i], 3);
    }
    grad_case with_indices;
    case_begin(&with_indices, "MaxPool", 13, 2);
    case_input(&with_indices, DIMS(1, 2, 5, 5));
    case_ints_attr(&with_indices, "kernel_shape", DIMS(2, 2));
    case_check(&with_indices);
    static const char *const global[] = {"GlobalAveragePool", "GlobalMaxPool"};
    for (int i = 0; i < 2; i++) {
        grad_case c;
        case_begin(&c, global[i], 13, 1);
        case_input(&c, DIMS(2, 3, 4, 5));
        case_check(&c);
        case_begin(&c, global[i], 13, 1);
        case_input(&c, DIMS(2, 3));
        case_check(&c);
    }
}

/* --- kinks ------------------------------------------------------------------------------------ */
#define V(...) (const float[]){__VA_ARGS__}

static void test_kinks(void **state)
{
    grad_case c;
    case_begin(&c, "Relu", 13, 1);
    case_values(&c, DIMS(3), V(-1, 0, 1));
    case_expect(&c, 0, V(0, 0, 1));
    case_end(&c);
    case_begin(&c, "Clip", 13, 1);
    case_values(&c, DIMS(5), V(-1, 0, 3, 6, 7));
    case_values(&c, 0, NULL, V(0));
    case_values(&c, 0, NULL, V(6));
    case_expect(&c, 0, V(0, 0, 1, 0, 0));
    case_expect(&c, 1, V(2));
    case_expect(&c, 2, V(2));
    case_end(&c);
    case_begin(&c, "LeakyRelu", 13, 1);
    case_float_attr(&c, "alpha", 0.25f);
    case_values(&c, DIMS(3), V(-1, 0, 1));
    case_expect(&c, 0, V(0.25f, 0.25f, 1));
    case_end(&c);
    case_begin(&c, "HardSigmoid", 13, 1);
    case_float_attr(&c, "alpha", 0.25f);
    case_values(&c, DIMS(4), V(-2, -1, 1, 2));
    case_expect(&c, 0, V(0, 0.25f, 0.25f, 0));
    case_end(&c);
    case_begin(&c, "HardSwish", 14, 1);
    case_values(&c, DIMS(3), V(-3, 0, 3));
    case_expect(&c, 0, V(0, 0.5f, 1));
    case_end(&c);
    case_begin(&c, "Abs", 13, 1);
    case_values(&c, DIMS(3), V(-1, 0, 1));
    case_expect(&c, 0, V(-1, 0, 1));
    case_end(&c);
}

/* MaxPool: the first of equals; ReduceMax and Max: shared. */
static void test_ties(void **state)
{
    grad_case c;
    case_begin(&c, "MaxPool", 13, 1);
    case_values(&c, DIMS(1, 1, 2, 4), V(1, 2, 5, 5, 2, 0, 5, 5));
    case_ints_attr(&c, "kernel_shape", DIMS(2, 2));
    case_ints_attr(&c, "strides", DIMS(2, 2));
    case_expect(&c, 0, V(0, 1, 1, 0, 0, 0, 0, 0));
    case_end(&c);
    case_begin(&c, "GlobalMaxPool", 13, 1);
    case_values(&c, DIMS(1, 1, 4), V(1, 7, 7, 2));
    case_expect(&c, 0, V(0, 1, 0, 0));
    case_end(&c);
    case_begin(&c, "ReduceMax", 13, 1);
    case_values(&c, DIMS(4), V(1, 7, 7, 2));
    case_expect(&c, 0, V(0, 0.5f, 0.5f, 0));
    case_end(&c);
    case_begin(&c, "Max", 13, 1);
    case_values(&c, DIMS(3), V(1, 2, 3));
    case_values(&c, DIMS(3), V(1, 0, 4));
    case_expect(&c, 0, V(0.5f, 1, 0));
    case_expect(&c, 1, V(0.5f, 0, 1));
    case_end(&c);
}

/* --- other types ------------------------------------------------------------------------------ */
static void test_refuses_other_types(void **state)
{
    const op_def *op = op_find("Add", "");
    const node n = {.op = op, .op_type = "Add", .name = "", .domain = "", .n_inputs = 2,
                    .n_outputs = 1};
    double x[2] = {1, 2};
    float g[2] = {1, 1}, d[2] = {0};
    const tensor t = {.type = RUNG_F64, .rank = 1, .dims = {2}, .data = x};
    const tensor dout = {.type = RUNG_F32, .rank = 1, .dims = {2}, .data = g};
    const tensor in[2] = {t, t};
    tensor din[2] = {dout, dout};
    din[0].data = d;
    din[1].data = NULL;
    arena *mem = arena_new();
    rung_error err = {""};
    const grad_args a = {.n = &n, .opset = 13, .in = in, .n_in = 2, .out = &t, .n_out = 1,
                         .dout = &dout, .din = din, .mem = mem};
    assert_int_equal(op->grad(&a, &err), RUNG_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "float64"));
    arena_free(mem);
}

/* --- the whole table -------------------------------------------------------------------------- */
/* Results that are no floats or are constants; what the tape does itself (Quantize, Dequantize);
 * rounding to whole numbers of a divisor; orders. */
static const char *const without[] = {
    "And", "ArgMax", "ArgMin", "Constant", "ConstantOfShape", "ConvInteger", "DequantizeLinear",
    "DynamicQuantizeLinear", "Equal", "Greater", "GreaterOrEqual", "Hardmax", "IsInf", "IsNaN",
    "Less", "LessOrEqual", "MatMulInteger", "Mod", "Not", "Or", "QuantizeLinear", "Range", "Shape",
    "Size", "TopK", "Xor",
};

static bool listed(const char *name)
{
    for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
        if (strcmp(without[i], name) == 0)
            return true;
    }
    return false;
}

static void test_nothing_forgotten(void **state)
{
    for (size_t i = 0; op_table[i]; i++) {
        const op_def *op = op_table[i];
        grad_reads needed;
        if (listed(op->name) == (op->grad != NULL))
            fail_msg("%s has %s gradient, and the list says otherwise", op->name,
                     op->grad ? "a" : "no");
        if (op->grad && !case_seen(op, &needed))
            fail_msg("no case checks the gradient of %s", op->name);
    }
    for (size_t i = 0; i < sizeof without / sizeof *without; i++)
        assert_non_null(op_find(without[i], ""));
}

/* What the cases found to be read is what `reads` say: NaN in it made a difference. */
static void test_reads_are_minimal(void **state)
{
    for (size_t i = 0; op_table[i]; i++) {
        const op_def *op = op_table[i];
        grad_reads needed;
        if (!op->grad)
            continue;
        assert_true(case_seen(op, &needed));
        if (op->reads.in == ~0u ? needed.in == 0 : needed.in != op->reads.in)
            fail_msg("%s: reads.in is %x, a difference makes %x", op->name, op->reads.in,
                     needed.in);
        if (needed.out != op->reads.out)
            fail_msg("%s: reads.out is %x, a difference makes %x", op->name, op->reads.out,
                     needed.out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolutions),
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_kinks),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_refuses_other_types),
        cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_broadcast),
        cmocka_unit_test(test_selections),
        cmocka_unit_test(test_normalizations),
        cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_moves),
        cmocka_unit_test(test_gathers),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_nothing_forgotten),
        cmocka_unit_test(test_reads_are_minimal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
