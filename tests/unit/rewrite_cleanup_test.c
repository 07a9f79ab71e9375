/* Constants, no-ops, dead nodes, MatMul + Add. */
#include "graph_kit.h"

#include <string.h>

#include "base/mem.h"
#include "graph/rewrite.h"
#include "ops/ops.h"

/* --- no-ops ----------------------------------------------------------------------------------- */

/* A node of each no-op on x [2,3,4]; returns its output. */
static int add_noop(graph *g, int kind, int x)
{
    const bool no = false;
    int y;
    switch (kind) {
    case 0:
        return kit_node(g, "Identity", "n", 1, IDS(x));
    case 1:
        return kit_node(g, "Dropout", "n", 1, IDS(x));
    case 2:
        return kit_node(g, "Dropout", "n", 3,
                        IDS(x, -1, kit_constant(g, "no", RUNG_BOOL, 0, NULL, &no)));
    case 3:
        y = kit_node(g, "Cast", "n", 1, IDS(x));
        kit_set_int(g, "to", RUNG_F32);
        return y;
    case 4:
        return kit_node(g, "Reshape", "n", 2, IDS(x, kit_ints(g, "s", 3, DIMS(0, -1, 4))));
    case 5:
        y = kit_node(g, "Transpose", "n", 1, IDS(x));
        kit_set_ints(g, "perm", 3, DIMS(0, 1, 2));
        return y;
    case 6:
        return kit_node(g, "Pad", "n", 2, IDS(x, kit_ints(g, "p", 6, DIMS(0, 0, 0, 0, 0, 0))));
    case 7:
        return kit_node(g, "Slice", "n", 4,
                        IDS(x, kit_ints(g, "from", 1, DIMS(0)), kit_ints(g, "to", 1, DIMS(99)),
                            kit_ints(g, "axes", 1, DIMS(-2))));
    case 8:
        y = kit_node(g, "Concat", "n", 1, IDS(x));
        kit_set_int(g, "axis", 0);
        return y;
    default:
        return kit_node(g, "Expand", "n", 2, IDS(x, kit_ints(g, "s", 2, DIMS(3, 1))));
    }
}
enum { N_NOOPS = 10 };

static void noops_go(void **state)
{
    for (int kind = 0; kind < N_NOOPS; kind++) {
        graph *g = kit_graph(op_find);
        const int x = kit_input(g, "x", 3, DIMS(2, 3, 4));
        kit_output(g, kit_node(g, "Relu", "relu", 1, IDS(add_noop(g, kind, x))));
        graph *after = kit_rewritten(g, rewrite_remove_identities, 1, 0);
        if (after->n_nodes != 1)
            fail_msg("kind %d stays", kind);
        graph_free(after);
        graph_free(g);
    }
}

static void what_does_something_stays(void **state)
{
    for (int kind = 0; kind < 5; kind++) {
        graph *g = kit_graph(op_find);
        const int x = kit_input(g, "x", 3, DIMS(2, 3, 3));
        const int from = kit_ints(g, "from", 1, DIMS(-1)), to = kit_ints(g, "to", 1, DIMS(-9));
        const int axes = kit_ints(g, "axes", 1, DIMS(1)), back = kit_ints(g, "back", 1, DIMS(-1));
        int y = -1;
        if (kind == 0) /* reverses, and keeps the dims */
            y = kit_node(g, "Slice", "n", 5, IDS(x, from, to, axes, back));
        else if (kind == 1) {
            y = kit_node(g, "Transpose", "n", 1, IDS(x));
            kit_set_ints(g, "perm", 3, DIMS(0, 2, 1));
        } else if (kind == 2)
            y = kit_node(g, "Reshape", "n", 2, IDS(x, kit_ints(g, "s", 3, DIMS(3, 2, 3))));
        else if (kind == 3)
            y = kit_node(g, "Pad", "n", 2, IDS(x, kit_ints(g, "p", 6, DIMS(0, 0, 1, 0, 0, -1))));
        else
            y = kit_node(g, "Slice", "n", 4, IDS(x, kit_ints(g, "one", 1, DIMS(1)),
                                                 kit_ints(g, "end", 1, DIMS(9)), axes));
        kit_output(g, kit_node(g, "Relu", "relu", 1, IDS(y)));
        graph *after = kit_rewritten(g, rewrite_remove_identities, 1, 0);
        assert_int_equal(after->n_nodes, 2);
        graph_free(after);
        graph_free(g);
    }
}

/* x [?,?] reshaped to its dims in reverse, [?,?]: that two dims are unknown makes nothing equal. */
static void unknown_dims_are_not_equal(void **state)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(DIM_UNKNOWN, DIM_UNKNOWN));
    const int order = kit_ints(g, "order", 2, DIMS(1, 0));
    const int dims = kit_node(g, "Shape", "shape", 1, IDS(x));
    const int back = kit_node(g, "Gather", "gather", 2, IDS(dims, order));
    const int y = kit_node(g, "Reshape", "reshape", 2, IDS(x, back));
    g->values[y].rank = 2;
    g->values[y].dims[0] = g->values[y].dims[1] = DIM_UNKNOWN;
    kit_output(g, kit_node(g, "Relu", "relu", 1, IDS(y)));
    graph *after = kit_rewritten(g, rewrite_remove_identities, 3, 0);
    kit_only(after, "Reshape");
    graph_free(after);
    graph_free(g);
}

/* Graph outputs keep their names: the maker before the no-op makes them. */
static void noop_at_an_output(void **state)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 1, DIMS(3));
    const int early = kit_node(g, "Relu", "relu", 1, IDS(x));
    const int other = kit_node(g, "Neg", "neg", 1, IDS(early));
    const int a = kit_node(g, "Identity", "a", 1, IDS(early));
    kit_output(g, kit_node(g, "Identity", "b", 1, IDS(a)));
    kit_output(g, other);
    kit_output(g, kit_node(g, "Identity", "c", 1, IDS(early))); /* cannot have both names */
    kit_output(g, kit_node(g, "Identity", "d", 1, IDS(x)));     /* an input has its own */
    graph *after = kit_rewritten(g, rewrite_remove_identities, 2, 0);
    assert_int_equal(kit_count(after, "Identity"), 2);
    assert_int_equal(after->nodes[after->values[kit_find(g, "b_out")].producer].inputs[0], x);
    assert_int_equal(kit_only(after, "Neg")->inputs[0], kit_find(g, "b_out"));
    graph_free(after);
    graph_free(g);
}

static void captured_values_keep_their_names(void **state)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 1, DIMS(3));
    int captured = kit_node(g, "Identity", "a", 1, IDS(x));
    kit_output(g, kit_node(g, "If", "branch", 1, IDS(x)));
    kit_last(g)->captures = &captured;
    kit_last(g)->n_captures = 1;
    assert_ok(rewrite_remove_identities(g, err));
    assert_ok(graph_verify(g, err));
    kit_only(g, "Identity");
    assert_ok(rewrite_remove_dead(g, err));
    kit_only(g, "Identity");
    graph_free(g);
}

/* --- dead nodes ------------------------------------------------------------------------------- */

static void dead_nodes_and_constants_go(void **state)
{
    rng r;
    rng_seed(&r, 1);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 1, DIMS(3)), w = kit_random(g, &r, "w", 1, DIMS(3));
    const int k = kit_random(g, &r, "k", 1, DIMS(3));
    g->values[w].has_info = g->values[w].listed_input = true;
    kit_node(g, "Relu", "end", 1, IDS(kit_node(g, "Add", "dead", 2, IDS(x, w))));
    kit_output(g, kit_node(g, "Add", "live", 2, IDS(x, k)));
    graph *after = kit_rewritten(g, rewrite_remove_dead, 1, 0);
    assert_int_equal(after->n_nodes, 1);
    assert_null(after->values[w].constant);
    assert_false(after->values[w].has_info || after->values[w].listed_input);
    assert_non_null(after->values[k].constant);
    graph_free(after);
    graph_free(g);
}

/* --- constants -------------------------------------------------------------------------------- */

static void constants_fold(void **state)
{
    rng r;
    rng_seed(&r, 2);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 1, DIMS(DIM_UNKNOWN));
    const int a = kit_random(g, &r, "a", 2, DIMS(300, 50)), b = kit_random(g, &r, "b", 1, DIMS(50));
    const int sum = kit_node(g, "Add", "sum", 2, IDS(a, b)); /* more than inference evaluates */
    const int flat = kit_node(g, "Reshape", "flat", 2, IDS(sum, kit_ints(g, "s", 1, DIMS(-1))));
    const int small = kit_node(g, "Mul", "small", 2, IDS(b, b));
    const int part = kit_node(g, "Slice", "part", 3, IDS(flat, kit_ints(g, "from", 1, DIMS(7)),
                                                         kit_ints(g, "to", 1, DIMS(9))));
    const int y = kit_node(g, "Add", "y", 2, IDS(x, part));
    const int mean = kit_node(g, "ReduceMean", "m", 1, IDS(small));
    kit_output(g, kit_node(g, "Add", "z", 2, IDS(mean, y)));
    graph *after = kit_rewritten(g, rewrite_fold_constants, 2, 0);
    assert_int_equal(after->n_nodes, 2);
    assert_int_equal(after->values[sum].constant->dims[0], 300);
    graph_free(after);
    graph_free(g);
}

static void constant_nodes_become_constants(void **state)
{
    const float f[] = { 1, 2, 3 };
    const attr attrs[] = { { .name = "value_float", .kind = ATTR_FLOAT, .f = 1.5f },
                           { .name = "value_floats", .kind = ATTR_FLOATS, .floats = { f, 3 } } };
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 1, DIMS(3)), w = kit_constant(g, "w", RUNG_F32, 1, DIMS(3), f);
    const attr t = { .name = "value", .kind = ATTR_TENSOR, .t = g->values[w].constant };
    int sum = x;
    for (int i = 0; i < 3; i++) {
        const int c = kit_node(g, "Constant", "c", 0, NULL);
        assert_ok(graph_set_attr(g, kit_last(g), i < 2 ? &attrs[i] : &t, err));
        sum = kit_node(g, "Add", "add", 2, IDS(sum, c));
    }
    kit_output(g, sum);
    graph *after = kit_rewritten(g, rewrite_fold_constants, 3, 0);
    assert_int_equal(after->n_nodes, 3);
    assert_int_equal(kit_count(after, "Add"), 3);
    graph_free(after);
    graph_free(g);
}

/* Weights that are quantized, what is not the same at each run, graph outputs, and fills that would
 * pass the bound. */
static void some_constants_stay(void **state)
{
    rng r;
    rng_seed(&r, 4);
    graph *g = kit_graph(op_find);
    const int w = kit_random(g, &r, "w", 1, DIMS(3)), s = kit_random(g, &r, "s", 0, NULL);
    kit_node(g, "QuantizeLinear", "q", 2, IDS(w, s));
    kit_node(g, "RandomNormalLike", "r", 1, IDS(w));
    kit_output(g, kit_node(g, "Relu", "out", 1, IDS(w)));
    const int fill = kit_node(g, "ConstantOfShape", "fill", 1,
                              IDS(kit_ints(g, "dims", 2, DIMS(1 << 20, 17))));
    kit_node(g, "ConstantOfShape", "folds", 1, IDS(kit_ints(g, "few", 1, DIMS(5000))));
    assert_ok(rewrite_fold_constants(g, err));
    assert_ok(graph_verify(g, err));
    assert_int_equal(g->n_nodes, 4);
    assert_null(g->values[fill].constant);
    graph_free(g);
}

static void the_sum_of_constants_is_bounded(void **state)
{
    graph *g = kit_graph(op_find);
    const int dims = kit_ints(g, "dims", 1, DIMS(16 << 20)); /* 64 MiB each */
    for (int i = 0; i < 5; i++)
        kit_node(g, "ConstantOfShape", "fill", 1, IDS(dims));
    assert_ok(rewrite_fold_constants(g, err));
    assert_int_equal(g->n_nodes, 1);
    graph_free(g);
}

/* --- MatMul + Add ----------------------------------------------------------------------------- */

typedef struct matmul_case {
    int     rank, row_rank;
    int64_t row[3];
    bool    folds;
} matmul_case;

static void matmul_and_add(void **state)
{
    static const matmul_case cases[] = {
        { 2, 1, { 4 }, true },     { 2, 2, { 1, 4 }, true },     { 2, 1, { 1 }, false },
        { 2, 2, { 3, 4 }, false }, { 2, 3, { 1, 1, 4 }, false }, { 3, 1, { 4 }, false },
    };
    for (int i = 0; i < 2 * COUNT(cases); i++) {
        const matmul_case *c = &cases[i / 2];
        rng r;
        rng_seed(&r, (uint64_t)i);
        graph *g = kit_graph(op_find);
        const int x = kit_input(g, "x", c->rank, c->rank == 2 ? DIMS(3, 5) : DIMS(2, 3, 5));
        const int w = kit_random(g, &r, "w", 2, DIMS(5, 4));
        const int row = kit_random(g, &r, "row", c->row_rank, c->row);
        const int y = kit_node(g, "MatMul", "m", 2, IDS(x, w));
        kit_output(g, kit_node(g, "Add", "a", 2, i % 2 ? IDS(row, y) : IDS(y, row)));
        graph *after = kit_rewritten(g, rewrite_fuse_matmul_add, (uint64_t)i, 1e-5);
        if (kit_count(after, "Gemm") != c->folds || after->n_nodes != (c->folds ? 1 : 2))
            fail_msg("case %d", i);
        if (c->folds)
            assert_int_equal(after->values[after->nodes[0].inputs[2]].constant->rank, 1);
        graph_free(after);
        graph_free(g);
    }
}

static void matmul_used_elsewhere_stays(void **state)
{
    rng r;
    rng_seed(&r, 1);
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(3, 5)), w = kit_random(g, &r, "w", 2, DIMS(5, 4));
    const int y = kit_node(g, "MatMul", "m", 2, IDS(x, w));
    kit_output(g, y);
    kit_output(g, kit_node(g, "Add", "a", 2, IDS(y, kit_random(g, &r, "row", 1, DIMS(4)))));
    graph *after = kit_rewritten(g, rewrite_fuse_matmul_add, 1, 0);
    kit_only(after, "MatMul");
    graph_free(after);
    graph_free(g);
}

/* --- all of them ------------------------------------------------------------------------------ */

/* Pad, Conv, BatchNormalization, Identity, Dropout, Flatten, MatMul, Add: two nodes remain. */
static graph *small_network(void)
{
    rng r;
    rng_seed(&r, 5);
    graph *g = kit_graph(op_find);
    int x = kit_input(g, "x", 4, DIMS(2, 2, 4, 4));
    x = kit_node(g, "Pad", "pad", 2, IDS(x, kit_ints(g, "p", 8, DIMS(0, 0, 1, 1, 0, 0, 1, 1))));
    x = kit_node(g, "Conv", "conv", 2, IDS(x, kit_random(g, &r, "w", 4, DIMS(3, 2, 3, 3))));
    const int64_t n = 3;
    x = kit_node(g, "BatchNormalization", "bn", 5,
                 IDS(x, kit_random(g, &r, "s", 1, &n), kit_random(g, &r, "b", 1, &n),
                     kit_random(g, &r, "m", 1, &n), kit_positive(g, &r, "v", n)));
    x = kit_node(g, "Dropout", "drop", 1, IDS(kit_node(g, "Identity", "id", 1, IDS(x))));
    x = kit_node(g, "Flatten", "flatten", 1, IDS(x));
    const int c = kit_node(g, "Neg", "neg", 1, IDS(kit_random(g, &r, "row", 1, DIMS(5))));
    x = kit_node(g, "MatMul", "fc", 2, IDS(x, kit_random(g, &r, "fc", 2, DIMS(48, 5))));
    kit_output(g, kit_node(g, "Add", "add", 2, IDS(x, c)));
    return g;
}

static void prepare_does_all(void **state)
{
    graph *g = small_network();
    graph *after = kit_rewritten(g, rewrite_prepare, 5, 1e-3);
    assert_int_equal(after->n_nodes, 3);
    kit_only(after, "Conv");
    kit_only(after, "Flatten");
    kit_only(after, "Gemm");
    assert_ok(rewrite_prepare(after, err)); /* finds nothing to do */
    assert_int_equal(after->n_nodes, 3);
    graph_free(after);
    graph_free(g);
}

/* MatMul, Add, BatchNormalization: one Gemm, because the first two are joined first. */
static void batchnorm_behind_matmul_add(void **state)
{
    rng r;
    rng_seed(&r, 6);
    graph *g = kit_graph(op_find);
    int x = kit_input(g, "x", 2, DIMS(2, 4));
    x = kit_node(g, "MatMul", "fc", 2, IDS(x, kit_random(g, &r, "w", 2, DIMS(4, 3))));
    x = kit_node(g, "Add", "add", 2, IDS(x, kit_random(g, &r, "row", 1, DIMS(3))));
    const int v = kit_positive(g, &r, "v", 3);
    kit_output(g, kit_node(g, "BatchNormalization", "bn", 5, IDS(x, v, v, v, v)));
    graph *after = kit_rewritten(g, rewrite_prepare, 6, 1e-4);
    assert_int_equal(after->n_nodes, 1);
    kit_only(after, "Gemm");
    graph_free(after);
    graph_free(g);
}

static void every_allocation_may_fail(void **state)
{
    graph *g = small_network();
    rung_status st = RUNG_EMEMORY;
    int n = 0;
    for (; st != RUNG_OK && n < 3000; n++) {
        graph *after;
        rung_error why;
        assert_ok(graph_clone(g, &after, err));
        mem_fail_after(n);
        st = rewrite_prepare(after, &why);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        graph_free(after);
    }
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 20);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noops_go),
        cmocka_unit_test(what_does_something_stays),
        cmocka_unit_test(unknown_dims_are_not_equal),
        cmocka_unit_test(noop_at_an_output),
        cmocka_unit_test(captured_values_keep_their_names),
        cmocka_unit_test(dead_nodes_and_constants_go),
        cmocka_unit_test(constants_fold),
        cmocka_unit_test(constant_nodes_become_constants),
        cmocka_unit_test(some_constants_stay),
        cmocka_unit_test(the_sum_of_constants_is_bounded),
        cmocka_unit_test(matmul_and_add),
        cmocka_unit_test(matmul_used_elsewhere_stays),
        cmocka_unit_test(prepare_does_all),
        cmocka_unit_test(batchnorm_behind_matmul_add),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
