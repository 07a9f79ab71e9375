/* rewrite_raise_opset: operators of opset 13 in their form of opset 21. */
#include "graph_kit.h"

#include <string.h>

#include "graph/rewrite.h"
#include "ops/ops.h"

static rung_status raise(graph *g, rung_error *err)
{
    return rewrite_raise_opset(g, 21, err);
}

static void reductions(void **state)
{
    static const char *const ops[] = { "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2",
                                       "ReduceProd", "ReduceSumSquare" };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        for (int listed = 0; listed < 2; listed++) {
            graph *g = kit_graph(op_find);
            kit_output(g, kit_node(g, ops[i], "r", 1, IDS(kit_input(g, "x", 3, DIMS(2, 3, 4)))));
            if (listed)
                kit_set_ints(g, "axes", 2, DIMS(0, -1));
            graph *up = kit_rewritten(g, raise, 1, 0);
            assert_int_equal(graph_opset(up, ""), 21);
            assert_int_equal(up->ir_version, 10);
            assert_null(node_attr(kit_only(up, ops[i]), "axes"));
            assert_int_equal(kit_only(up, ops[i])->n_inputs, 1 + listed);
            graph_free(up);
            graph_free(g);
        }
}

static void split(void **state)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(4, 6));
    const int out[] = { graph_add_value(g, "a", RUNG_F32, -1, NULL),
                        graph_add_value(g, "b", RUNG_F32, -1, NULL) };
    assert_true(graph_add_node(g, "Split", "", "s", &x, 1, out, 2) >= 0);
    kit_set_int(g, "axis", 1);
    kit_output(g, out[0]);
    kit_output(g, out[1]);
    graph *up = kit_rewritten(g, raise, 1, 0);
    assert_int_equal(node_int(kit_only(up, "Split"), "num_outputs", 0), 2);
    graph_free(up);
    graph_free(g);
}

static void others_stay(void **state)
{
    graph *g = kit_graph(op_find);
    const int x = kit_input(g, "x", 2, DIMS(4, 6));
    const int y = kit_node(g, "Softmax", "s", 1, IDS(kit_node(g, "Relu", "r", 1, IDS(x))));
    kit_output(g, y);
    graph *up = kit_rewritten(g, raise, 1, 0);
    assert_int_equal(up->n_nodes, 2);
    assert_ok(rewrite_raise_opset(up, 21, err)); /* it is there already */
    graph_free(up);
    graph_free(g);
}

static void refused(const char *op, int64_t version, const char *words)
{
    graph *g = kit_graph(op_find);
    assert_ok(graph_set_opset(g, "", version, err));
    const int x = kit_input(g, "x", 4, DIMS(1, 4, 2, 2));
    kit_output(g, kit_node(g, op, "named", 3, IDS(x, x, x)));
    assert_fails(rewrite_raise_opset(g, 21, err), RUNG_EUNSUPPORTED, words);
    graph_free(g);
}

static void what_cannot_be_brought_over(void **state)
{
    refused("GroupNormalization", 18, "GroupNormalization 'named'");
    refused("DFT", 17, "DFT 'named'");
    refused("Loop", 13, "Loop 'named'");
    refused("Relu", 12, "there is no way");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reductions),
        cmocka_unit_test(split),
        cmocka_unit_test(others_stay),
        cmocka_unit_test(what_cannot_be_brought_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
