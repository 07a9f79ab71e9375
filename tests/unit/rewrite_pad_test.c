/* rewrite_fold_pad: random paddings compute the same before and after; what is not exact stays. */
#include "graph_kit.h"

#include <math.h>
#include <string.h>

#include "graph/rewrite.h"
#include "ops/ops.h"

/* The same sums in the same order up to added zeros; tiny differences only. */
#define TOLERANCE 1e-5

enum { ROUNDS = 40 };

static int64_t pick(rng *r, int64_t low, int64_t high)
{
    return low + (int64_t)rng_below(r, (uint64_t)(high - low + 1));
}

/* Pad of x [n,c,h,w] by these spatial pads (top, left, bottom, right) with a fill value. */
static int add_pad(graph *g, int x, const int64_t p[4], float fill)
{
    const int pads = kit_ints(g, "pads", 8, DIMS(0, 0, p[0], p[1], 0, 0, p[2], p[3]));
    const int filling = kit_constant(g, "fill", RUNG_F32, 0, NULL, &fill);
    return kit_node(g, "Pad", "pad", 3, IDS(x, pads, filling));
}

/* The graph's only pads, expected to be those. */
static void expect_pads(const graph *g, const char *op_type, const int64_t expected[4])
{
    const int64_t *pads = NULL;
    assert_int_equal(node_ints(kit_only(g, op_type), "pads", &pads), 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pads[i], expected[i]);
}

static void into_conv(void **state)
{
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        rng r;
        rng_seed(&r, seed);
        graph *g = kit_graph(op_find);
        const int64_t p[] = { pick(&r, 0, 3), pick(&r, 0, 3), pick(&r, 0, 3), pick(&r, 0, 3) };
        const int64_t own = pick(&r, 0, 1);
        const int x = add_pad(g, kit_input(g, "x", 4, DIMS(1, 2, 5, 4)), p, 0);
        kit_output(g, kit_node(g, "Conv", "c", 2,
                               IDS(x, kit_random(g, &r, "w", 4, DIMS(3, 2, 3, 2)))));
        kit_set_ints(g, "strides", 2, DIMS(pick(&r, 1, 2), pick(&r, 1, 2)));
        kit_set_ints(g, "pads", 4, DIMS(own, 0, own, 0));
        graph *after = kit_rewritten(g, rewrite_fold_pad, seed, TOLERANCE);
        assert_int_equal(after->n_nodes, 1);
        expect_pads(after, "Conv", DIMS(p[0] + own, p[1], p[2] + own, p[3]));
        graph_free(after);
        graph_free(g);
    }
}

static void automatic_padding_becomes_explicit(void **state)
{
    static const char *const modes[] = { "SAME_UPPER", "SAME_LOWER", "VALID" };
    for (uint64_t seed = 0; seed < 3 * ROUNDS; seed++) {
        rng r;
        rng_seed(&r, seed);
        graph *g = kit_graph(op_find);
        const int64_t p[] = { pick(&r, 0, 2), pick(&r, 0, 2), pick(&r, 0, 2), pick(&r, 1, 2) };
        const int x = add_pad(g, kit_input(g, "x", 4, DIMS(1, 1, 6, 5)), p, 0);
        kit_output(g, kit_node(g, "Conv", "c", 2,
                               IDS(x, kit_random(g, &r, "w", 4,
                                                 DIMS(2, 1, pick(&r, 1, 3), pick(&r, 1, 4))))));
        kit_set_ints(g, "strides", 2, DIMS(pick(&r, 1, 3), pick(&r, 1, 3)));
        assert_ok(graph_set_string(g, kit_last(g), "auto_pad", modes[seed % 3], err));
        graph *after = kit_rewritten(g, rewrite_fold_pad, seed, TOLERANCE);
        assert_int_equal(after->n_nodes, 1);
        assert_null(node_attr(&after->nodes[0], "auto_pad"));
        graph_free(after);
        graph_free(g);
    }
}

/* SAME_UPPER needs the dims of x, which are not known here. */
static void automatic_padding_of_unknown_dims_stays(void **state)
{
    rng r;
    rng_seed(&r, 1);
    graph *g = kit_graph(op_find);
    const int input = kit_input(g, "x", 4, DIMS(1, 1, DIM_UNKNOWN, DIM_UNKNOWN));
    const int x = add_pad(g, input, DIMS(1, 1, 1, 1), 0);
    kit_output(g, kit_node(g, "Conv", "c", 2, IDS(x, kit_random(g, &r, "w", 4, DIMS(2, 1, 2, 2)))));
    assert_ok(graph_set_string(g, kit_last(g), "auto_pad", "SAME_UPPER", err));
    graph *after = kit_rewritten(g, rewrite_fold_pad, 1, TOLERANCE);
    assert_int_equal(after->n_nodes, 2);
    graph_free(after);
    graph_free(g);
}

/* Two users of a Pad, one of which can pad itself: the Pad stays for the other. */
static void each_user_is_asked(void **state)
{
    rng r;
    rng_seed(&r, 2);
    graph *g = kit_graph(op_find);
    const int x = add_pad(g, kit_input(g, "x", 4, DIMS(1, 2, 3, 3)), DIMS(1, 0, 0, 1), 0);
    kit_output(g, kit_node(g, "Relu", "other", 1, IDS(x)));
    kit_output(g, kit_node(g, "Conv", "c", 2, IDS(x, kit_random(g, &r, "w", 4, DIMS(2, 2, 2, 2)))));
    graph *after = kit_rewritten(g, rewrite_fold_pad, 2, TOLERANCE);
    assert_int_equal(after->n_nodes, 3);
    assert_int_equal(kit_only(after, "Conv")->inputs[0], kit_find(g, "x"));
    graph_free(after);
    graph_free(g);
}

/* --- pools ------------------------------------------------------------------------------------ */

typedef struct pool_case {
    const char *op_type;
    bool        relu;
    float       fill;
    int64_t     pads[4], own, kernel, count_include, ceil_mode;
    bool        folds;
} pool_case;

static const pool_case pools[] = {
    { "AveragePool", false, 0, { 1, 0, 1, 1 }, 0, 2, 0, 0, true },
    { "AveragePool", false, 0, { 1, 0, 1, 1 }, 1, 3, 1, 0, true },
    { "AveragePool", false, 0, { 1, 0, 1, 1 }, 1, 3, 0, 0, false }, /* own pads do not count */
    { "AveragePool", false, 0, { 2, 0, 1, 1 }, 0, 2, 0, 0, false }, /* as wide as the kernel */
    { "AveragePool", false, 0, { 1, 0, 1, 1 }, 0, 2, 0, 1, false },
    { "AveragePool", false, 1, { 1, 0, 1, 1 }, 0, 2, 0, 0, false },
    { "MaxPool", false, -INFINITY, { 1, 2, 0, 1 }, 0, 3, 0, 0, true },
    { "MaxPool", false, -INFINITY, { 1, 1, 0, 1 }, 1, 3, 0, 0, true },
    { "MaxPool", false, -INFINITY, { 1, 3, 0, 1 }, 0, 3, 0, 0, false },
    { "MaxPool", true, 0, { 1, 1, 1, 1 }, 0, 2, 0, 0, true },
    { "MaxPool", false, 0, { 1, 1, 1, 1 }, 0, 2, 0, 0, false }, /* 0 wins over negative ones */
    { "MaxPool", true, 1, { 1, 1, 1, 1 }, 0, 2, 0, 0, false },
    { "MaxPool", true, 0, { 1, 1, 1, 1 }, 0, 2, 0, 1, false },
};

static graph *pool_graph(const pool_case *c, int64_t stride)
{
    graph *g = kit_graph(op_find);
    int x = kit_input(g, "x", 4, DIMS(1, 2, 6, 5));
    if (c->relu)
        x = kit_node(g, "Relu", "relu", 1, IDS(x));
    kit_output(g, kit_node(g, c->op_type, "pool", 1, IDS(add_pad(g, x, c->pads, c->fill))));
    kit_set_ints(g, "kernel_shape", 2, DIMS(c->kernel, c->kernel));
    kit_set_ints(g, "strides", 2, DIMS(stride, stride));
    kit_set_ints(g, "pads", 4, DIMS(c->own, c->own, c->own, c->own));
    kit_set_int(g, "ceil_mode", c->ceil_mode);
    if (c->count_include)
        kit_set_int(g, "count_include_pad", 1);
    return g;
}

static void into_pools(void **state)
{
    for (int i = 0; i < COUNT(pools); i++) {
        for (int64_t stride = 1; stride <= 3; stride++) {
            graph *g = pool_graph(&pools[i], stride);
            graph *after = kit_rewritten(g, rewrite_fold_pad, (uint64_t)i, TOLERANCE);
            if (kit_count(after, "Pad") != !pools[i].folds)
                fail_msg("case %d with stride %d", i, (int)stride);
            graph_free(after);
            graph_free(g);
        }
    }
}

static void clip_at_zero_is_as_good_as_relu(void **state)
{
    const float bounds[] = { 0, -1 };
    for (int i = 0; i < 2; i++) {
        graph *g = kit_graph(op_find);
        const int low = kit_constant(g, "low", RUNG_F32, 0, NULL, &bounds[i]);
        const int x = kit_node(g, "Clip", "clip", 2,
                               IDS(kit_input(g, "x", 4, DIMS(1, 1, 4, 4)), low));
        kit_output(g, kit_node(g, "MaxPool", "pool", 1,
                               IDS(add_pad(g, x, DIMS(1, 1, 1, 1), 0))));
        kit_set_ints(g, "kernel_shape", 2, DIMS(2, 2));
        graph *after = kit_rewritten(g, rewrite_fold_pad, 1, 0);
        assert_int_equal(kit_count(after, "Pad"), i);
        graph_free(after);
        graph_free(g);
    }
}

/* --- Pads that a Conv cannot do --------------------------------------------------------------- */

static void expect_stays(graph *g, int x, rng *r)
{
    const int w = kit_random(g, r, "w", 4, DIMS(1, 3, 1, 1));
    kit_output(g, kit_node(g, "Conv", "c", 2, IDS(x, w)));
    graph *after = kit_rewritten(g, rewrite_fold_pad, 9, TOLERANCE);
    kit_only(after, "Pad");
    graph_free(after);
    graph_free(g);
}

static void other_pads_stay(void **state)
{
    rng r;
    rng_seed(&r, 3);
    graph *g = kit_graph(op_find); /* another fill */
    expect_stays(g, add_pad(g, kit_input(g, "x", 4, DIMS(1, 3, 3, 3)), DIMS(1, 1, 1, 1), 1), &r);
    g = kit_graph(op_find); /* another mode */
    int x = add_pad(g, kit_input(g, "x", 4, DIMS(1, 3, 3, 3)), DIMS(1, 1, 1, 1), 0);
    assert_ok(graph_set_string(g, kit_last(g), "mode", "reflect", err));
    expect_stays(g, x, &r);
    g = kit_graph(op_find); /* cropping */
    expect_stays(g, add_pad(g, kit_input(g, "x", 4, DIMS(1, 3, 3, 3)), DIMS(-1, 1, 1, 1), 0), &r);
    g = kit_graph(op_find); /* channels */
    x = kit_input(g, "x", 4, DIMS(1, 2, 3, 3));
    x = kit_node(g, "Pad", "p", 2, IDS(x, kit_ints(g, "p", 8, DIMS(0, 1, 1, 1, 0, 0, 1, 1))));
    expect_stays(g, x, &r);
}

static void axes_are_read(void **state)
{
    rng r;
    rng_seed(&r, 4);
    graph *g = kit_graph(op_find);
    assert_ok(graph_set_opset(g, "", 18, err));
    const int pads = kit_ints(g, "pads", 4, DIMS(1, 2, 3, 4));
    const int axes = kit_ints(g, "axes", 2, DIMS(-1, 2));
    const int x = kit_node(g, "Pad", "p", 4,
                           IDS(kit_input(g, "x", 4, DIMS(1, 1, 4, 3)), pads, -1, axes));
    kit_output(g, kit_node(g, "Conv", "c", 2, IDS(x, kit_random(g, &r, "w", 4, DIMS(1, 1, 2, 2)))));
    graph *after = kit_rewritten(g, rewrite_fold_pad, 4, TOLERANCE);
    expect_pads(after, "Conv", DIMS(2, 1, 4, 3));
    graph_free(after);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(into_conv),
        cmocka_unit_test(automatic_padding_becomes_explicit),
        cmocka_unit_test(automatic_padding_of_unknown_dims_stays),
        cmocka_unit_test(each_user_is_asked),
        cmocka_unit_test(into_pools),
        cmocka_unit_test(clip_at_zero_is_as_good_as_relu),
        cmocka_unit_test(other_pads_stay),
        cmocka_unit_test(axes_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
