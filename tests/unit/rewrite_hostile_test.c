/* Rewrites of graphs that are valid by form and wild by content: attributes, operands, constants
 * and dims changed at random. Whatever a rewrite accepts is valid afterwards; sanitizers watch. */
#include "graph_kit.h"

#include <string.h>

#include "base/mem.h"
#include "graph/rewrite.h"
#include "ops/ops.h"

enum { ROUNDS = 4000 };

static const int64_t wild[] = { 0,  1,  -1,        2,         -2,        3,        4, 7, 255,
                                64, -9, INT64_MIN, INT64_MAX, INT32_MAX, INT32_MIN };

static int64_t wild_int(rng *r)
{
    return wild[rng_below(r, sizeof wild / sizeof *wild)];
}

/* Every operator that a rewrite looks at, in the forms of before and after opset 13. */
static graph *network(rng *r, int64_t version)
{
    graph *g = kit_graph(op_find);
    assert_ok(graph_set_opset(g, "", version, err));
    const int64_t n = 2;
    const int v = kit_positive(g, r, "v", n), one = kit_ints(g, "one", 1, DIMS(1));
    const int pads = kit_ints(g, "p", 8, DIMS(0, 0, 1, 1, 0, 0, 1, 1));
    const int w = kit_random(g, r, "w", 4, DIMS(2, 2, 2, 2));
    const int fc = kit_random(g, r, "fc", 2, DIMS(20, 2)), row = kit_random(g, r, "row", 1, &n);
    const float scales[] = { 1, 1, 2, 2 };
    const attr up = { .name = "scales", .kind = ATTR_FLOATS, .floats = { scales, 4 } };
    int x = kit_input(g, "x", 4, DIMS(1, 2, 4, 4));
    x = kit_node(g, "BatchNormalization", "bn", 5, IDS(x, v, v, v, v));
    x = kit_node(g, "Conv", "conv", 2, IDS(kit_node(g, "Pad", "pad", 2, IDS(x, pads)), w));
    kit_set_int(g, "group", 1);
    kit_set_ints(g, "pads", 4, DIMS(0, 1, 0, 1));
    kit_set_ints(g, "strides", 2, DIMS(1, 1));
    x = kit_node(g, "BatchNormalization", "bn2", 5, IDS(x, v, v, v, v));
    x = kit_node(g, "Relu", "relu", 1, IDS(x));
    x = kit_node(g, "MaxPool", "pool", 1, IDS(kit_node(g, "Pad", "pad2", 2, IDS(x, pads))));
    kit_set_ints(g, "kernel_shape", 2, DIMS(2, 2));
    x = kit_node(g, "ConvTranspose", "convt", 2, IDS(x, w));
    kit_set_int(g, "group", 1);
    x = kit_node(g, "BatchNormalization", "bn3", 5, IDS(x, v, v, v, v));
    x = kit_node(g, "Identity", "id", 1, IDS(x));
    x = kit_node(g, "Slice", "slice", version < 10 ? 1 : 3, IDS(x, one, kit_ints(g, "2", 1, &n)));
    kit_set_ints(g, "starts", 1, DIMS(1));
    kit_set_ints(g, "ends", 1, DIMS(2));
    kit_set_ints(g, "axes", 1, DIMS(0));
    x = kit_node(g, "Softmax", "soft", 1, IDS(kit_node(g, "Clip", "clip", 1, IDS(x))));
    kit_set_int(g, "axis", 1);
    x = kit_node(g, "Reshape", "flat", 2, IDS(x, kit_ints(g, "shape", 2, DIMS(-1, 20))));
    x = kit_node(g, "MatMul", "m", 2, IDS(x, fc));
    kit_output(g, kit_node(g, "Add", "add", 2, IDS(x, row)));
    x = kit_node(g, "Neg", "neg", 1, IDS(w));
    kit_output(g, kit_node(g, "ReduceSum", "sum", version < 13 ? 1 : 2, IDS(x, one)));
    kit_output(g, kit_node(g, "Upsample", "up", 1, IDS(w)));
    assert_ok(graph_set_attr(g, kit_last(g), &up, err));
    x = kit_node(g, "Expand", "ex", 2, IDS(w, one));
    kit_output(g, kit_node(g, "Transpose", "tr", 1, IDS(x)));
    kit_set_ints(g, "perm", 4, DIMS(0, 1, 2, 3));
    return g;
}

static void change_attr(graph *g, rng *r, node *n)
{
    static const char *const names[] = { "axis", "group", "pads", "kernel_shape", "strides", "axes",
                                         "perm", "ceil_mode", "transB", "to", "spatial", "starts" };
    const char *name = names[rng_below(r, sizeof names / sizeof *names)];
    int64_t v[8];
    for (int i = 0; i < 8; i++)
        v[i] = wild_int(r);
    if (rng_below(r, 2))
        assert_ok(graph_set_int(g, n, name, v[0], err));
    else
        assert_ok(graph_set_ints(g, n, name, v, rng_below(r, 9), err));
}

/* A constant of the same id with other dims, type or numbers. */
static void change_constant(graph *g, rng *r)
{
    value *v = &g->values[rng_below(r, g->n_values)];
    int64_t dims[RUNG_MAX_RANK];
    if (!v->constant)
        return;
    const int rank = (int)rng_below(r, 6);
    for (int d = 0; d < rank; d++)
        dims[d] = (int64_t)rng_below(r, 5);
    tensor *t = tensor_new(g->mem, rng_below(r, 2) ? RUNG_I64 : RUNG_F32, rank, dims);
    assert_non_null(t);
    for (size_t i = 0; i < tensor_count(t); i++) {
        if (t->type == RUNG_I64)
            ((int64_t *)t->data)[i] = wild_int(r);
        else
            ((float *)t->data)[i] = (float)wild_int(r);
    }
    v->constant = t;
    v->type = t->type;
    v->rank = rank;
    memcpy(v->dims, t->dims, sizeof v->dims);
}

static void change(graph *g, rng *r)
{
    node *n = &g->nodes[rng_below(r, g->n_nodes)];
    const int v = (int)rng_below(r, g->n_values);
    if (!n->n_inputs)
        return;
    switch (rng_below(r, 7)) {
    case 0:
        n->inputs[rng_below(r, (uint64_t)n->n_inputs)] = v;
        return;
    case 1:
        n->inputs[rng_below(r, (uint64_t)n->n_inputs)] = -1;
        return;
    case 2:
        n->n_inputs = (int)rng_below(r, (uint64_t)n->n_inputs) + (n->n_inputs == 1);
        return;
    case 3:
        g->values[v].rank = g->values[v].constant ? g->values[v].rank : (int)rng_below(r, 10) - 1;
        return;
    case 4:
        g->values[v].dims[rng_below(r, 4)] = wild_int(r);
        return;
    case 5:
        change_constant(g, r);
        return;
    default:
        change_attr(g, r, n);
    }
}

static void accepted_graphs_stay_valid(void **state)
{
    static const kit_rewrite rewrites[] = {
        rewrite_upgrade,         rewrite_fold_constants, rewrite_remove_identities,
        rewrite_fuse_matmul_add, rewrite_fold_batchnorm, rewrite_fold_pad,
        rewrite_remove_dead,     rewrite_prepare,
    };
    int n_valid = 0, n_done = 0;
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        rng r;
        rung_error why;
        rng_seed(&r, seed);
        graph *g = network(&r, seed % 2 ? 8 : 13);
        for (uint64_t i = rng_below(&r, 4); i > 0; i--)
            change(g, &r);
        if (graph_verify(g, NULL) == RUNG_OK) {
            n_valid++;
            const kit_rewrite rewrite = rewrites[rng_below(&r, COUNT(rewrites))];
            if (rewrite(g, NULL) == RUNG_OK) {
                n_done++;
                if (graph_verify(g, &why) != RUNG_OK)
                    fail_msg("seed %d: %s", (int)seed, why.message);
            }
        }
        graph_free(g);
    }
    /* Most survive, and the changes are wild enough to be refused often. */
    if (n_valid < ROUNDS / 2 || n_done < ROUNDS / 10 || n_done > n_valid * 9 / 10)
        fail_msg("%d valid, %d rewritten", n_valid, n_done);
}

/* Unchanged, the network passes: the changes are what is refused. */
static void unchanged_it_is_accepted(void **state)
{
    for (int64_t version = 8; version <= 13; version += 5) {
        rng r;
        rng_seed(&r, 1);
        graph *g = network(&r, version);
        assert_ok(graph_verify(g, err));
        assert_ok(rewrite_prepare(g, err));
        assert_ok(graph_verify(g, err));
        assert_int_equal(kit_count(g, "BatchNormalization") + kit_count(g, "Pad"), 0);
        graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unchanged_it_is_accepted),
        cmocka_unit_test(accepted_graphs_stay_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
