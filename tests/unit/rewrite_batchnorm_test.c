/* rewrite_fold_batchnorm: random networks compute the same before and after. */
#include "graph_kit.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "graph/rewrite.h"
#include "ops/ops.h"

/* Sums of at most 100 products of order 1, rounded differently: 100 * 100 * FLT_EPSILON is 1.2e-3;
 * a wrong channel or factor is off by order 1. */
#define TOLERANCE 1.2e-3

enum { ROUNDS = 60 };

static int64_t pick(rng *r, int64_t low, int64_t high)
{
    return low + (int64_t)rng_below(r, (uint64_t)(high - low + 1));
}

static int add_batchnorm(graph *g, rng *r, int x, const char *name, int64_t channels)
{
    const int scale = kit_random(g, r, "scale", 1, &channels);
    const int shift = kit_random(g, r, "shift", 1, &channels);
    const int mean = kit_random(g, r, "mean", 1, &channels);
    const int var = kit_positive(g, r, "var", channels);
    const int y = kit_node(g, "BatchNormalization", name, 5, IDS(x, scale, shift, mean, var));
    assert_ok(graph_set_float(g, kit_last(g), "epsilon", 1e-3f, err));
    return y;
}

/* A Conv of x with random group, kernel, pads and stride; out channels: *channels. */
static int add_conv(graph *g, rng *r, int x, int64_t in_channels, int64_t group, int64_t pad,
                    int64_t *channels)
{
    const int64_t k = pick(r, 1, 3), per_group = pick(r, 1, 3);
    *channels = group * per_group;
    int in[3] = { x, kit_random(g, r, "w", 4, DIMS(*channels, in_channels / group, k, 2)), -1 };
    const bool has_bias = rng_below(r, 2);
    if (has_bias)
        in[2] = kit_random(g, r, "b", 1, channels);
    const int y = kit_node(g, "Conv", "conv", has_bias ? 3 : 2, in);
    kit_set_int(g, "group", group);
    kit_set_ints(g, "pads", 4, DIMS(pad, 0, pad, pad));
    kit_set_ints(g, "strides", 2, DIMS(pick(r, 1, 2), 1));
    return y;
}

static void behind_conv(void **state)
{
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        rng r;
        rng_seed(&r, seed);
        graph *g = kit_graph(op_find);
        const int64_t group = pick(&r, 1, 3), in = group * pick(&r, 1, 2);
        int64_t out;
        const int x = kit_input(g, "x", 4, DIMS(2, in, 5, 6));
        const int c = add_conv(g, &r, x, in, group, pick(&r, 0, 1), &out);
        kit_output(g, add_batchnorm(g, &r, add_batchnorm(g, &r, c, "bn1", out), "bn2", out));
        graph *after = kit_rewritten(g, rewrite_fold_batchnorm, seed, TOLERANCE);
        assert_int_equal(after->n_nodes, 1);
        assert_int_equal(node_int(kit_only(after, "Conv"), "group", 1), group);
        graph_free(after);
        graph_free(g);
    }
}

static void behind_conv_transpose(void **state)
{
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        rng r;
        rng_seed(&r, seed);
        graph *g = kit_graph(op_find);
        const int64_t group = pick(&r, 1, 3), in = group * pick(&r, 1, 3);
        const int64_t per_group = pick(&r, 1, 3), out = group * per_group;
        const int x = kit_input(g, "x", 4, DIMS(1, in, 4, 3));
        const int w = kit_random(g, &r, "w", 4, DIMS(in, per_group, 2, 3));
        const int c = kit_node(g, "ConvTranspose", "conv", 2, IDS(x, w));
        kit_set_int(g, "group", group);
        kit_set_ints(g, "strides", 2, DIMS(2, 1));
        kit_output(g, add_batchnorm(g, &r, c, "bn", out));
        graph *after = kit_rewritten(g, rewrite_fold_batchnorm, seed, TOLERANCE);
        assert_int_equal(after->n_nodes, 1);
        graph_free(after);
        graph_free(g);
    }
}

/* C of the shapes that are a row: none, a scalar, [1], [n], [1,n]. */
static int add_c(graph *g, rng *r, int kind, int64_t n)
{
    switch (kind) {
    case 1:
        return kit_random(g, r, "c", 0, NULL);
    case 2:
        return kit_random(g, r, "c", 1, DIMS(1));
    case 3:
        return kit_random(g, r, "c", 1, DIMS(n));
    default:
        return kit_random(g, r, "c", 2, DIMS(1, n));
    }
}

static void behind_gemm(void **state)
{
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        rng r;
        rng_seed(&r, seed);
        graph *g = kit_graph(op_find);
        const int64_t k = pick(&r, 1, 6), n = pick(&r, 1, 5), trans = pick(&r, 0, 1);
        const int kind = (int)(seed % 5);
        const int x = kit_input(g, "x", 2, DIMS(3, k));
        const int w = kit_random(g, &r, "w", 2, trans ? DIMS(n, k) : DIMS(k, n));
        const int y = kit_node(g, "Gemm", "fc", kind ? 3 : 2,
                               IDS(x, w, kind ? add_c(g, &r, kind, n) : -1));
        kit_set_int(g, "transB", trans);
        assert_ok(graph_set_float(g, kit_last(g), "alpha", 0.5f, err));
        assert_ok(graph_set_float(g, kit_last(g), "beta", -2, err));
        kit_output(g, add_batchnorm(g, &r, y, "bn", n));
        graph *after = kit_rewritten(g, rewrite_fold_batchnorm, seed, TOLERANCE);
        assert_int_equal(after->n_nodes, 1);
        graph_free(after);
        graph_free(g);
    }
}

static void gemm_with_a_column_stays(void **state)
{
    rng r;
    rng_seed(&r, 1);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(3, 2)), w = kit_random(g, &r, "w", 2, DIMS(2, 3));
    const int c = kit_random(g, &r, "c", 2, DIMS(3, 1));
    kit_output(g, add_batchnorm(g, &r, kit_node(g, "Gemm", "fc", 3, IDS(x, w, c)), "bn", 3));
    graph *after = kit_rewritten(g, rewrite_fold_batchnorm, 1, TOLERANCE);
    kit_only(after, "Gemm");
    kit_only(after, "Mul");
    kit_only(after, "Add");
    assert_int_equal(after->n_nodes, 3);
    graph_free(after);
    graph_free(g);
}

/* x -> bn -> Conv: folds forward without padding, otherwise becomes Mul and Add. */
static void before_conv(void **state)
{
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        rng r;
        rng_seed(&r, seed);
        graph *g = kit_graph(op_find);
        const int64_t group = pick(&r, 1, 3), in = group * pick(&r, 1, 2), pad = seed % 2;
        int64_t out;
        const int x = kit_input(g, "x", 4, DIMS(1, in, 5, 5));
        kit_output(g, add_conv(g, &r, add_batchnorm(g, &r, x, "bn", in), in, group, pad, &out));
        graph *after = kit_rewritten(g, rewrite_fold_batchnorm, seed, TOLERANCE);
        assert_int_equal(after->n_nodes, pad ? 3 : 1);
        assert_int_equal(kit_count(after, "BatchNormalization"), 0);
        graph_free(after);
        graph_free(g);
    }
}

static void before_padded_conv_with_zero_shift(void **state)
{
    rng r;
    rng_seed(&r, 3);
    graph *g = kit_graph(op_find);
    const float zeros[] = { 0, 0 };
    int64_t out;
    const int x = kit_input(g, "x", 4, DIMS(1, 2, 4, 4));
    const int zero = kit_constant(g, "zero", RUNG_F32, 1, DIMS(2), zeros);
    const int scale = kit_random(g, &r, "scale", 1, DIMS(2));
    const int var = kit_positive(g, &r, "var", 2);
    const int y = kit_node(g, "BatchNormalization", "bn", 5, IDS(x, scale, zero, zero, var));
    kit_output(g, add_conv(g, &r, y, 2, 1, 1, &out));
    graph *after = kit_rewritten(g, rewrite_fold_batchnorm, 3, TOLERANCE);
    assert_int_equal(after->n_nodes, 1);
    graph_free(after);
    graph_free(g);
}

/* The Conv's output is used elsewhere, or is a graph output: it must not change. */
static void shared_conv_is_not_folded(void **state)
{
    for (int as_output = 0; as_output < 2; as_output++) {
        rng r;
        rng_seed(&r, 4);
        graph *g = kit_graph(op_find);
        int64_t out;
        const int x = kit_input(g, "x", 4, DIMS(1, 2, 4, 4));
        const int c = add_conv(g, &r, x, 2, 1, 0, &out);
        kit_output(g, as_output ? c : kit_node(g, "Relu", "other", 1, IDS(c)));
        kit_output(g, add_batchnorm(g, &r, c, "bn", out));
        graph *after = kit_rewritten(g, rewrite_fold_batchnorm, 4, TOLERANCE);
        kit_only(after, "Mul");
        assert_int_equal(kit_only(after, "Conv")->inputs[1], kit_only(g, "Conv")->inputs[1]);
        graph_free(after);
        graph_free(g);
    }
}

/* Two Convs share a weight, one has a BatchNormalization: the other keeps the old weight. */
static void shared_weight_is_copied(void **state)
{
    rng r;
    rng_seed(&r, 5);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 4, DIMS(1, 2, 3, 3));
    const int w = kit_random(g, &r, "w", 4, DIMS(2, 2, 1, 1));
    const int a = kit_node(g, "Conv", "a", 2, IDS(x, w));
    const int b = kit_node(g, "Conv", "b", 2, IDS(x, w));
    kit_output(g, add_batchnorm(g, &r, a, "bn", 2));
    kit_output(g, b);
    graph *after = kit_rewritten(g, rewrite_fold_batchnorm, 5, TOLERANCE);
    assert_int_equal(after->n_nodes, 2);
    assert_memory_equal(after->values[w].constant->data, g->values[w].constant->data, 16);
    graph_free(after);
    graph_free(g);
}

static void leftovers_of_all_ranks(void **state)
{
    for (int rank = 2; rank <= 5; rank++) {
        rng r;
        rng_seed(&r, (uint64_t)rank);
        graph *g = kit_graph(op_find);
        const int x = kit_input(g, "x", rank, DIMS(2, 3, 4, 2, 3));
        kit_output(g, add_batchnorm(g, &r, x, "bn", 3));
        graph *after = kit_rewritten(g, rewrite_fold_batchnorm, 6, 1e-5);
        const tensor *scale = after->values[kit_only(after, "Mul")->inputs[1]].constant;
        assert_int_equal(scale->rank, rank - 1);
        assert_int_equal(after->n_nodes, 2);
        graph_free(after);
        graph_free(g);
    }
}

/* No constant parameters, training form, a variance that gives no number: nothing is touched. */
static void what_cannot_be_folded_stays(void **state)
{
    const float negative[] = { -1, -1, -1 };
    for (int kind = 0; kind < 3; kind++) {
        rng r;
        rng_seed(&r, 7);
        graph *g = kit_graph(op_find), *after;
        const int x = kit_input(g, "x", 3, DIMS(2, 3, 4));
        const int fed = kit_input(g, "fed", 1, DIMS(3));
        kit_output(g, add_batchnorm(g, &r, x, "bn", 3));
        if (kind == 0)
            kit_last(g)->inputs[2] = fed;
        if (kind == 1)
            kit_set_int(g, "training_mode", 1);
        if (kind == 2)
            kit_last(g)->inputs[4] = kit_constant(g, "v", RUNG_F32, 1, DIMS(3), negative);
        assert_ok(graph_clone(g, &after, err));
        assert_ok(rewrite_fold_batchnorm(after, err));
        assert_ok(graph_verify(after, err));
        kit_only(after, "BatchNormalization");
        assert_int_equal(after->n_nodes, 1);
        graph_free(after);
        graph_free(g);
    }
}

static void every_allocation_may_fail(void **state)
{
    rng r;
    rng_seed(&r, 8);
    graph *g = kit_graph(op_find);
    int64_t out;
    const int x = kit_input(g, "x", 4, DIMS(1, 2, 4, 4));
    const int c = add_conv(g, &r, add_batchnorm(g, &r, x, "left", 2), 2, 1, 1, &out);
    kit_output(g, add_batchnorm(g, &r, c, "bn", out));
    rung_status st = RUNG_EMEMORY;
    int n = 0;
    for (; st != RUNG_OK && n < 1000; n++) {
        graph *after;
        rung_error why;
        assert_ok(graph_clone(g, &after, err));
        mem_fail_after(n);
        st = rewrite_fold_batchnorm(after, &why);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        graph_free(after);
    }
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 5);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behind_conv),
        cmocka_unit_test(behind_conv_transpose),
        cmocka_unit_test(behind_gemm),
        cmocka_unit_test(gemm_with_a_column_stays),
        cmocka_unit_test(before_conv),
        cmocka_unit_test(before_padded_conv_with_zero_shift),
        cmocka_unit_test(shared_conv_is_not_folded),
        cmocka_unit_test(shared_weight_is_copied),
        cmocka_unit_test(leftovers_of_all_ranks),
        cmocka_unit_test(what_cannot_be_folded_stays),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
