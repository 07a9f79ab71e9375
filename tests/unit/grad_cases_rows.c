#include <string.h>

#include "grad_cases.h"

/* --- normalizations --------------------------------------------------------------------------- */
static void run_batch_norm(int rank, const int64_t *dims, float epsilon)
{
    grad_case c;
    case_begin(&c, "BatchNormalization", 15, 1);
    case_input(&c, rank, dims);
    case_input(&c, DIMS(3));
    case_input(&c, DIMS(3));
    case_input(&c, DIMS(3));
    case_between(&c, 0.5, 2, DIMS(3));
    case_float_attr(&c, "epsilon", epsilon);
    case_check(&c);
}

/* scales: entries of scale and bias. */
static void run_group_norm(const char *op, int64_t version, int64_t groups, int64_t scales,
                           int rank, const int64_t *dims)
{
    grad_case c;
    case_begin(&c, op, version, 1);
    case_input(&c, rank, dims);
    case_input(&c, DIMS(scales));
    case_input(&c, DIMS(scales));
    if (groups)
        case_int_attr(&c, "num_groups", groups);
    case_float_attr(&c, "epsilon", 0.01f);
    case_check(&c);
}

/* n_out: 1, or 3 with the statistics; scale and bias have these dims, bias not for rank < 0. */
static void run_layer_norm(const char *op, int64_t axis, int n_out, int scale_rank,
                           const int64_t *scale, int bias_rank, const int64_t *bias)
{
    grad_case c;
    case_begin(&c, op, 23, n_out);
    case_input(&c, DIMS(2, 3, 4, 5));
    case_input(&c, scale_rank, scale);
    if (bias_rank >= 0)
        case_input(&c, bias_rank, bias);
    case_int_attr(&c, "axis", axis);
    case_float_attr(&c, "epsilon", 0.01f);
    if (n_out > 1)
        case_coarse(&c);
    case_check(&c);
}

static void run_softmax(const char *op, int64_t axis)
{
    grad_case c;
    case_begin(&c, op, 13, 1);
    case_input(&c, DIMS(2, 3, 7));
    case_int_attr(&c, "axis", axis);
    case_check(&c);
}

static void run_lrn(int64_t size)
{
    grad_case c;
    case_begin(&c, "LRN", 13, 1);
    case_input(&c, DIMS(2, 5, 2, 3));
    case_int_attr(&c, "size", size);
    case_float_attr(&c, "alpha", 0.5f);
    case_float_attr(&c, "beta", 0.6f);
    case_float_attr(&c, "bias", 1.5f);
    case_check(&c);
}

static void run_lp_norm(int64_t axis, int64_t p)
{
    grad_case c;
    case_begin(&c, "LpNormalization", 13, 1);
    case_input(&c, DIMS(2, 4, 3));
    case_int_attr(&c, "axis", axis);
    case_int_attr(&c, "p", p);
    case_check(&c);
}

void test_normalizations(void **state)
{
    run_batch_norm(DIMS(2, 3, 4, 5), 1e-5f);
    run_batch_norm(DIMS(4, 3), 0.1f);
    run_batch_norm(DIMS(2, 3, 7), 1e-3f);
    run_group_norm("InstanceNormalization", 13, 0, 3, DIMS(2, 3, 4, 5));
    run_group_norm("InstanceNormalization", 13, 0, 2, DIMS(3, 2, 7));
    run_group_norm("GroupNormalization", 18, 2, 2, DIMS(2, 6, 2, 3));
    run_group_norm("GroupNormalization", 21, 2, 6, DIMS(2, 6, 2, 3));
    run_layer_norm("LayerNormalization", -1, 1, DIMS(5), DIMS(5));
    run_layer_norm("LayerNormalization", 2, 1, DIMS(4, 5), -1, NULL);
    run_layer_norm("LayerNormalization", 1, 1, DIMS(1, 4, 1), DIMS(5));
    run_layer_norm("LayerNormalization", -1, 3, DIMS(5), DIMS(3, 1, 5));
    run_layer_norm("RMSNormalization", -1, 1, DIMS(5), -1, NULL);
    run_layer_norm("RMSNormalization", 2, 1, DIMS(4, 5), -1, NULL);
    for (int64_t axis = -1; axis < 2; axis++) {
        run_softmax("Softmax", axis);
        run_softmax("LogSoftmax", axis);
        run_lp_norm(axis, 1);
        run_lp_norm(axis, 2);
    }
    run_lrn(1);
    run_lrn(3);
    run_lrn(4);
    run_lrn(9);
}

/* --- reductions ------------------------------------------------------------------------------- */
static void run_reduction(const char *op, double lo, int n_axes, const int64_t *axes, bool keep)
{
    grad_case c;
    case_begin(&c, op, 18, 1);
    case_between(&c, lo, 2, DIMS(2, 3, 4, 3));
    if (n_axes)
        case_ints(&c, DIMS(n_axes), axes);
    case_int_attr(&c, "keepdims", keep);
    case_check(&c);
}

void test_reductions(void **state)
{
    static const char *const ops[] = {
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
        "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
    };
    grad_case c;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        const double lo = strcmp(ops[i], "ReduceLogSum") == 0 ? 0.3 : -2;
        run_reduction(ops[i], lo, 1, (const int64_t[]){-1}, false);
        run_reduction(ops[i], lo, 2, (const int64_t[]){2, 3}, true);
        run_reduction(ops[i], lo, 2, (const int64_t[]){0, 2}, false);
        if (strcmp(ops[i], "ReduceProd") != 0) /* of 72 factors: nothing but powers of ten */
            run_reduction(ops[i], lo, 0, NULL, false);
    }
    case_begin(&c, "ReduceMean", 13, 1); /* the axes as attribute */
    case_input(&c, DIMS(2, 3, 4));
    case_ints_attr(&c, "axes", DIMS(1));
    case_check(&c);
    case_begin(&c, "ReduceProd", 13, 1); /* one zero, two zeros */
    case_values(&c, DIMS(3, 3), (const float[]){1, 2, 3, 0, 2, 3, 0, 0, 3});
    case_ints_attr(&c, "axes", 1, (const int64_t[]){1});
    case_check(&c);
    for (int k = 0; k < 4; k++) {
        case_begin(&c, "CumSum", 14, 1);
        case_input(&c, DIMS(2, 5, 3));
        case_ints(&c, 0, NULL, (const int64_t[]){k < 2 ? 1 : -1});
        case_int_attr(&c, "reverse", k & 1);
        case_int_attr(&c, "exclusive", k > 1);
        case_check(&c);
    }
}
