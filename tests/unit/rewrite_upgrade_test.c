/* rewrite_upgrade: each operator's old form becomes the form of opset 13. */
#include "graph_kit.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "graph/rewrite.h"
#include "ops/ops.h"

/* An empty graph of an old opset. */
static graph *old_graph(int64_t version)
{
    graph *g = kit_graph(op_find);
    assert_ok(graph_set_opset(g, "", version, err));
    g->ir_version = 3;
    return g;
}

static void set_float(graph *g, const char *name, float v)
{
    assert_ok(graph_set_float(g, kit_last(g), name, v, err));
}

static void upgraded(graph *g)
{
    assert_ok(rewrite_upgrade(g, err));
    assert_ok(graph_verify(g, err));
    assert_int_equal(graph_opset(g, ""), 13);
    assert_true(g->ir_version >= 7);
}

/* Input i of the only node of that operator is the int64 constant [n] with these numbers. */
static void expect_ints(const graph *g, const char *op_type, int i, int n, const int64_t *v)
{
    const node *x = kit_only(g, op_type);
    assert_true(i < x->n_inputs && x->inputs[i] >= 0);
    const tensor *t = g->values[x->inputs[i]].constant;
    assert_non_null(t);
    assert_int_equal(t->type, RUNG_I64);
    assert_int_equal(t->rank, 1);
    assert_int_equal(t->dims[0], n);
    for (int k = 0; k < n; k++)
        assert_int_equal(tensor_get_int(t, (size_t)k), v[k]);
}

static void expect_scalar(const graph *g, const char *op_type, int i, dtype type, double v)
{
    const node *x = kit_only(g, op_type);
    assert_true(i < x->n_inputs && x->inputs[i] >= 0);
    const tensor *t = g->values[x->inputs[i]].constant;
    assert_non_null(t);
    assert_int_equal(t->type, type);
    assert_int_equal(t->rank, 0);
    assert_true(tensor_get(t, 0) == v);
}

static void expect_dims(const graph *g, int rank, const int64_t *dims)
{
    arena *mem = arena_new();
    const tensor *t = kit_run(g, 1, mem)[0];
    assert_int_equal(t->rank, rank);
    for (int d = 0; d < rank; d++)
        assert_int_equal(t->dims[d], dims[d]);
    arena_free(mem);
}

/* --- attributes that became inputs ------------------------------------------------------------ */

static void slice(void **state)
{
    graph *g = old_graph(9);
    kit_output(g, kit_node(g, "Slice", "s", 1, IDS(kit_input(g, "x", 2, DIMS(5, 6)))));
    kit_set_ints(g, "starts", 1, DIMS(1));
    kit_set_ints(g, "ends", 1, DIMS(-2));
    kit_set_ints(g, "axes", 1, DIMS(1));
    upgraded(g);
    expect_ints(g, "Slice", 1, 1, DIMS(1));
    expect_ints(g, "Slice", 2, 1, DIMS(-2));
    expect_ints(g, "Slice", 3, 1, DIMS(1));
    assert_int_equal(kit_only(g, "Slice")->n_attrs, 0);
    expect_dims(g, 2, DIMS(5, 3));
    graph_free(g);
}

static void pad(void **state)
{
    for (int fill = 0; fill < 2; fill++) {
        graph *g = old_graph(10);
        kit_output(g, kit_node(g, "Pad", "p", 1, IDS(kit_input(g, "x", 1, DIMS(5)))));
        kit_set_ints(g, "pads", 2, DIMS(1, 2));
        set_float(g, "value", (float)fill * 2.5f);
        upgraded(g);
        expect_ints(g, "Pad", 1, 2, DIMS(1, 2));
        if (fill)
            expect_scalar(g, "Pad", 2, RUNG_F32, 2.5);
        else
            assert_int_equal(kit_only(g, "Pad")->n_inputs, 2);
        assert_int_equal(kit_only(g, "Pad")->n_attrs, 0);
        expect_dims(g, 1, DIMS(8));
        graph_free(g);
    }
}

static void axes(void **state)
{
    static const struct {
        const char *op_type;
        int         rank;
        int64_t     dims[4];
    } cases[] = { { "Squeeze", 2, { 3, 4 } }, { "Unsqueeze", 4, { 3, 1, 1, 4 } },
                  { "ReduceSum", 3, { 3, 1, 4 } } };
    for (int i = 0; i < COUNT(cases); i++) {
        graph *g = old_graph(12);
        const int x = kit_input(g, "x", i == 1 ? 2 : 3, i == 1 ? DIMS(3, 4) : DIMS(3, 1, 4));
        kit_output(g, kit_node(g, cases[i].op_type, "n", 1, IDS(x)));
        kit_set_ints(g, "axes", i == 1 ? 2 : 1, DIMS(1, 2));
        upgraded(g);
        expect_ints(g, cases[i].op_type, 1, i == 1 ? 2 : 1, DIMS(1, 2));
        expect_dims(g, cases[i].rank, cases[i].dims);
        graph_free(g);
    }
}

/* Without axes all are meant, then as now. */
static void no_axes(void **state)
{
    graph *g = old_graph(11);
    kit_output(g, kit_node(g, "ReduceSum", "n", 1, IDS(kit_input(g, "x", 2, DIMS(3, 4)))));
    upgraded(g);
    assert_int_equal(kit_only(g, "ReduceSum")->n_inputs, 1);
    expect_dims(g, 2, DIMS(1, 1));
    graph_free(g);
}

static void split_and_topk(void **state)
{
    graph *g = old_graph(9);
    const int x = kit_input(g, "x", 1, DIMS(5));
    const int a = kit_node(g, "Split", "s", 1, IDS(x));
    kit_set_ints(g, "split", 1, DIMS(5));
    kit_output(g, a);
    kit_output(g, kit_node(g, "TopK", "t", 1, IDS(x)));
    kit_set_int(g, "k", 3);
    upgraded(g);
    expect_ints(g, "Split", 1, 1, DIMS(5));
    expect_ints(g, "TopK", 1, 1, DIMS(3));
    assert_null(node_attr(kit_only(g, "TopK"), "k"));
    graph_free(g);
}

static void clip(void **state)
{
    graph *g = old_graph(10);
    const int x = kit_input(g, "x", 1, DIMS(5));
    kit_output(g, kit_node(g, "Clip", "c", 1, IDS(kit_node(g, "Relu", "r", 1, IDS(x)))));
    set_float(g, "max", 6);
    upgraded(g);
    assert_int_equal(kit_only(g, "Clip")->inputs[1], -1);
    expect_scalar(g, "Clip", 2, RUNG_F32, 6);
    expect_dims(g, 1, DIMS(5));
    graph_free(g);
    g = old_graph(10); /* bounds have the type of the input */
    const int h = kit_input(g, "x", 1, DIMS(5));
    g->values[h].type = RUNG_F16;
    kit_output(g, kit_node(g, "Clip", "c", 1, IDS(kit_node(g, "Relu", "r", 1, IDS(h)))));
    set_float(g, "min", -1.5f);
    upgraded(g);
    expect_scalar(g, "Clip", 1, RUNG_F16, -1.5);
    graph_free(g);
}

static void dropout(void **state)
{
    graph *g = old_graph(7);
    const int x = kit_input(g, "x", 1, DIMS(5)), y = kit_node(g, "Dropout", "d", 1, IDS(x));
    set_float(g, "ratio", 0.25f);
    kit_output(g, y);
    upgraded(g);
    expect_scalar(g, "Dropout", 1, RUNG_F32, 0.25);
    graph_free(g);
    g = old_graph(7); /* the mask was a float then, and is a bool now */
    const int mask = graph_add_value(g, "mask", RUNG_F32, 1, DIMS(5));
    const int out = graph_add_value(g, "out", RUNG_F32, 1, DIMS(5));
    assert_int_equal(graph_add_node(g, "Dropout", "", "d", IDS(kit_input(g, "x", 1, DIMS(5))), 1,
                                    IDS(out, mask), 2), 0);
    kit_output(g, mask);
    assert_fails(rewrite_upgrade(g, err), RUNG_EUNSUPPORTED, "Dropout 'd': its mask is used");
    graph_free(g);
}

/* --- Resize ----------------------------------------------------------------------------------- */

/* y[i] = x[floor(i * 2 / 5)] for 2 -> 5 elements, as Upsample and Resize of opset 10 do. */
static void expect_asymmetric_nearest(const graph *g)
{
    arena *mem = arena_new();
    const tensor *y = kit_run(g, 3, mem)[0];
    rng r;
    rng_seed(&r, 3);
    float x[2];
    x[0] = rng_normal(&r);
    x[1] = rng_normal(&r);
    assert_int_equal(y->dims[2], 5);
    for (int i = 0; i < 5; i++)
        assert_true(((const float *)y->data)[i] == x[i * 2 / 5]);
    arena_free(mem);
}

static void resizes(void **state)
{
    const float scales[] = { 1, 1, 2.5f };
    for (int kind = 0; kind < 3; kind++) {
        graph *g = old_graph(kind == 0 ? 7 : kind == 1 ? 9 : 10);
        const int x = kit_input(g, "x", 3, DIMS(1, 1, 2));
        const int s = kit_constant(g, "s", RUNG_F32, 1, DIMS(3), scales);
        const attr a = { .name = "scales", .kind = ATTR_FLOATS, .floats = { scales, 3 } };
        kit_output(g, kit_node(g, kind == 2 ? "Resize" : "Upsample", "u", kind ? 2 : 1, IDS(x, s)));
        if (kind == 0)
            assert_ok(graph_set_attr(g, kit_last(g), &a, err));
        upgraded(g);
        const node *n = kit_only(g, "Resize");
        assert_ptr_equal(n->op, op_find("Resize", ""));
        assert_int_equal(n->n_inputs, 3);
        assert_int_equal(n->inputs[1], -1);
        assert_null(node_attr(n, "scales"));
        expect_asymmetric_nearest(g);
        graph_free(g);
    }
}

/* Upsample without scales, and a coordinate mode that opset 13 has no more. */
static void resizes_refused(void **state)
{
    graph *g = old_graph(7);
    kit_output(g, kit_node(g, "Upsample", "u", 1, IDS(kit_input(g, "x", 3, DIMS(1, 1, 2)))));
    assert_fails(rewrite_upgrade(g, err), RUNG_EUNSUPPORTED, "Upsample 'u': it lacks its scales");
    graph_free(g);
    g = old_graph(11);
    kit_output(g, kit_node(g, "Resize", "r", 1, IDS(kit_input(g, "x", 3, DIMS(1, 1, 2)))));
    assert_ok(graph_set_string(g, kit_last(g), "coordinate_transformation_mode",
                               "tf_half_pixel_for_nn", err));
    assert_fails(rewrite_upgrade(g, err), RUNG_EUNSUPPORTED, "tf_half_pixel_for_nn");
    graph_free(g);
}

static void batchnorm_and_scatter(void **state)
{
    graph *g = old_graph(8);
    const int x = kit_input(g, "x", 2, DIMS(2, 2));
    rng r;
    rng_seed(&r, 1);
    const int v = kit_positive(g, &r, "v", 2);
    kit_output(g, kit_node(g, "BatchNormalization", "bn", 5, IDS(x, v, v, v, v)));
    kit_set_int(g, "spatial", 1);
    kit_output(g, kit_node(g, "Scatter", "s", 3, IDS(x, x, x)));
    graph *c;
    assert_ok(graph_clone(g, &c, err));
    upgraded(g);
    assert_null(node_attr(kit_only(g, "BatchNormalization"), "spatial"));
    kit_only(g, "ScatterElements");
    graph_free(g);
    assert_ok(graph_set_int(c, &c->nodes[0], "spatial", 0, err));
    assert_fails(rewrite_upgrade(c, err), RUNG_EUNSUPPORTED, "'bn'");
    graph_free(c);
}

/* --- Softmax ---------------------------------------------------------------------------------- */

/* y is softmax of x [outer, inner] over inner, whatever their dims. */
static void expect_softmax(const tensor *y, const float *x, size_t inner)
{
    const float *p = y->data;
    for (size_t o = 0; o < tensor_count(y) / inner; o++) {
        double sum = 0;
        for (size_t i = 0; i < inner; i++)
            sum += exp(x[o * inner + i]);
        for (size_t i = 0; i < inner; i++)
            assert_true(fabs(p[o * inner + i] - exp(x[o * inner + i]) / sum) < 1e-6);
    }
}

typedef struct softmax_case {
    int     rank;
    int64_t dims[4], axis; /* axis 9: the attribute is absent */
    size_t  inner;
    int     n_nodes;
} softmax_case;

static const softmax_case softmaxes[] = {
    { 2, { 3, 4 }, 9, 4, 1 },
    { 2, { 3, 4 }, -1, 4, 1 },
    { 3, { 2, 3, 4 }, 2, 4, 1 },
    { 3, { 2, 3, 4 }, 9, 12, 3 },
    { 3, { 2, 3, 4 }, -2, 12, 3 },
    { 3, { 2, 3, 4 }, 0, 24, 3 },
    { 4, { 2, 3, 1, 1 }, 1, 3, 1 },
    { 3, { DIM_UNKNOWN, 3, 4 }, 1, 12, 3 },
    { 3, { DIM_UNKNOWN, DIM_UNKNOWN, 4 }, 1, 8, 4 }, /* with a Shape; unknown dims are run as 2 */
};

static void softmax(void **state)
{
    for (int i = 0; i < COUNT(softmaxes); i++) {
        const softmax_case *c = &softmaxes[i];
        graph *g = old_graph(11);
        kit_output(g, kit_node(g, "Softmax", "s", 1, IDS(kit_input(g, "x", c->rank, c->dims))));
        if (c->axis != 9)
            kit_set_int(g, "axis", c->axis);
        upgraded(g);
        assert_int_equal(g->n_nodes, c->n_nodes);
        arena *mem = arena_new();
        const tensor *y = kit_run(g, 5, mem)[0];
        rng r;
        rng_seed(&r, 5);
        float x[24];
        for (size_t k = 0; k < tensor_count(y); k++)
            x[k] = rng_normal(&r);
        assert_int_equal(y->rank, c->rank);
        expect_softmax(y, x, c->inner);
        arena_free(mem);
        graph_free(g);
    }
}

static void softmax_refused(void **state)
{
    graph *g = old_graph(11);
    kit_output(g, kit_node(g, "Softmax", "s", 1, IDS(kit_input(g, "x", -1, NULL))));
    assert_fails(rewrite_upgrade(g, err), RUNG_EUNSUPPORTED, "Softmax 's': the rank");
    graph_free(g);
    g = old_graph(11);
    kit_output(g, kit_node(g, "LogSoftmax", "s", 1, IDS(kit_input(g, "x", 2, DIMS(2, 3)))));
    kit_set_int(g, "axis", 2);
    assert_int_not_equal(rewrite_upgrade(g, NULL), RUNG_OK);
    graph_free(g);
}

/* --- whole graphs ----------------------------------------------------------------------------- */

static void what_is_refused(void **state)
{
    graph *g = old_graph(6);
    assert_fails(rewrite_upgrade(g, err), RUNG_EUNSUPPORTED, "opset is 6: 7 and later");
    graph_free(g);
    g = old_graph(12);
    kit_output(g, kit_node(g, "If", "branch", 1, IDS(kit_input(g, "x", 0, NULL))));
    assert_fails(rewrite_upgrade(g, err), RUNG_EUNSUPPORTED, "If 'branch'");
    graph_free(g);
    g = old_graph(12); /* a subgraph of an operator that nobody knows */
    kit_output(g, kit_node(g, "Mine", "m", 1, IDS(kit_input(g, "x", 0, NULL))));
    const attr body = { .name = "body", .kind = ATTR_GRAPH, .s = { (const unsigned char *)"", 0 } };
    assert_ok(graph_set_attr(g, kit_last(g), &body, err));
    assert_fails(rewrite_upgrade(g, err), RUNG_EUNSUPPORTED, "Mine 'm'");
    graph_free(g);
}

static void later_opsets_are_left_alone(void **state)
{
    graph *g = kit_graph(op_find);
    assert_ok(graph_set_opset(g, "", 17, err));
    kit_output(g, kit_node(g, "Softmax", "s", 1, IDS(kit_input(g, "x", 3, DIMS(2, 3, 4)))));
    assert_ok(rewrite_upgrade(g, err));
    assert_int_equal(graph_opset(g, ""), 17);
    assert_int_equal(g->n_nodes, 1);
    assert_int_equal(g->nodes[0].n_attrs, 0);
    graph_free(g);
}

static void every_allocation_may_fail(void **state)
{
    graph *g = old_graph(9);
    int x = kit_input(g, "x", 3, DIMS(2, 3, 4));
    x = kit_node(g, "Clip", "c", 1, IDS(x));
    set_float(g, "min", 0);
    x = kit_node(g, "Softmax", "s", 1, IDS(x));
    x = kit_node(g, "Slice", "l", 1, IDS(x));
    kit_set_ints(g, "starts", 1, DIMS(1));
    kit_set_ints(g, "ends", 1, DIMS(2));
    kit_output(g, x);
    rung_status st = RUNG_EMEMORY;
    int n = 0;
    for (; st != RUNG_OK && n < 1000; n++) {
        graph *c;
        rung_error why;
        assert_ok(graph_clone(g, &c, err));
        mem_fail_after(n);
        st = rewrite_upgrade(c, &why);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        graph_free(c);
    }
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 5);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slice),
        cmocka_unit_test(pad),
        cmocka_unit_test(axes),
        cmocka_unit_test(no_axes),
        cmocka_unit_test(split_and_topk),
        cmocka_unit_test(clip),
        cmocka_unit_test(dropout),
        cmocka_unit_test(resizes),
        cmocka_unit_test(resizes_refused),
        cmocka_unit_test(batchnorm_and_scatter),
        cmocka_unit_test(softmax),
        cmocka_unit_test(softmax_refused),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(later_opsets_are_left_alone),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
