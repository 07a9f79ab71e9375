/* Where pairs go, on graphs of a few nodes. */
#include "graph_kit.h"

#include <string.h>

#include "ops/ops.h"
#include "quant/quant.h"

/* One graph and what was placed in it. */
typedef struct placed {
    graph             *g;
    rng                r;
    rung_quant_options opt;
    placement         *places;
    bool              *quantized;
    diagnostics       *diag;
    arena             *mem;
} placed;

static placed begin(void)
{
    placed p = { .g = kit_graph(op_find), .mem = arena_new(), .diag = diagnostics_new(),
                 .opt = RUNG_QUANT_OPTIONS };
    rng_seed(&p.r, 1);
    return p;
}

static void place(placed *p, int output)
{
    kit_output(p->g, output);
    assert_ok(split_roles(p->g, err));
    assert_ok(graph_verify(p->g, err));
    value_info *info = arena_zero(p->mem, p->g->n_values, sizeof *info);
    p->places = arena_zero(p->mem, p->g->n_values, sizeof *p->places);
    p->quantized = arena_zero(p->mem, p->g->n_nodes, sizeof *p->quantized);
    assert_ok(graph_infer(p->g, NULL, p->mem, info, err));
    assert_ok(place_pairs(p->g, info, &p->opt, NULL, p->places, p->quantized, p->diag, err));
}

static void end(placed *p)
{
    diagnostics_free(p->diag);
    arena_free(p->mem);
    graph_free(p->g);
}

static place_kind kind(const placed *p, int v)
{
    return p->places[v].kind;
}

/* A 1x1 convolution of 4 channels, named. */
static int conv(placed *p, const char *name, int x)
{
    const int w = kit_random(p->g, &p->r, "w", 4, DIMS(4, 4, 1, 1));
    const int b = kit_random(p->g, &p->r, "b", 1, DIMS(4));
    return kit_node(p->g, "Conv", name, 3, IDS(x, w, b));
}

static int image(placed *p)
{
    return kit_input(p->g, "x", 4, DIMS(-1, 4, 6, 6));
}

static void conv_and_its_relu(void **state)
{
    (void)state;
    placed p = begin();
    const int x = image(&p), c = conv(&p, "conv", x);
    const node *n = kit_last(p.g);
    const int w = n->inputs[1], b = n->inputs[2];
    const int r = kit_node(p.g, "Relu", "relu", 1, IDS(c));
    place(&p, r);
    assert_int_equal(kind(&p, x), PLACE_ACTIVATION);
    assert_int_equal(kind(&p, c), PLACE_NONE); /* absorbed */
    assert_int_equal(kind(&p, r), PLACE_ACTIVATION); /* a graph output too */
    assert_int_equal(kind(&p, w), PLACE_WEIGHT);
    assert_int_equal(p.places[w].axis, 0);
    assert_int_equal(kind(&p, b), PLACE_BIAS);
    assert_int_equal(p.places[b].input, x);
    assert_int_equal(p.places[b].weight, w);
    assert_true(p.quantized[0] && p.quantized[1]);
    end(&p);
}

/* A Relu whose input others use too is an operator of its own; Clip with computed bounds stays. */
static void relu_that_is_not_absorbed(void **state)
{
    (void)state;
    placed p = begin();
    const int x = image(&p), c = conv(&p, "conv", x), r = kit_node(p.g, "Relu", "r", 1, IDS(c));
    const int sum = kit_node(p.g, "Add", "add", 2, IDS(c, r));
    const int lo = kit_input(p.g, "lo", 0, NULL);
    place(&p, kit_node(p.g, "Clip", "clip", 2, IDS(sum, lo)));
    assert_int_equal(kind(&p, c), PLACE_ACTIVATION);
    assert_int_equal(kind(&p, r), PLACE_ACTIVATION);
    assert_int_equal(p.places[r].shares, r);
    assert_int_equal(kind(&p, sum), PLACE_ACTIVATION);
    assert_int_equal(kind(&p, p.g->outputs[0]), PLACE_NONE);
    assert_false(p.quantized[3]);
    end(&p);
}

static void residual_add(void **state)
{
    (void)state;
    placed p = begin();
    const int x = image(&p), c = conv(&p, "c", x);
    const int sum = kit_node(p.g, "Add", "add", 2, IDS(x, c));
    const int r = kit_node(p.g, "Relu", "r", 1, IDS(sum));
    place(&p, conv(&p, "d", r));
    assert_int_equal(kind(&p, c), PLACE_ACTIVATION);
    assert_int_equal(kind(&p, sum), PLACE_NONE);
    assert_int_equal(kind(&p, r), PLACE_ACTIVATION);
    end(&p);
}

/* What only moves values shares the parameters of what it moves, in both directions; Concat's
 * private inputs those of its output. */
static void shared_parameters(void **state)
{
    (void)state;
    placed p = begin();
    const int x = image(&p), moved = kit_node(p.g, "Transpose", "t", 1, IDS(x));
    kit_set_ints(p.g, "perm", 4, DIMS(0, 1, 3, 2));
    const int a = conv(&p, "a", moved), b = conv(&p, "b", moved);
    const int both = kit_node(p.g, "Concat", "cat", 3, IDS(a, b, moved));
    kit_set_int(p.g, "axis", 1);
    const int pool = kit_node(p.g, "MaxPool", "pool", 1, IDS(both));
    kit_set_ints(p.g, "kernel_shape", 2, DIMS(2, 2));
    place(&p, pool);
    assert_int_equal(kind(&p, x), PLACE_ACTIVATION);
    assert_int_equal(kind(&p, moved), PLACE_SHARED);
    assert_int_equal(p.places[moved].shares, x);
    assert_true(p.places[moved].derived);
    assert_int_equal(p.places[a].shares, both);
    assert_int_equal(p.places[b].shares, both);
    assert_int_equal(kind(&p, both), PLACE_ACTIVATION);
    assert_false(p.places[both].derived); /* `moved` keeps its own parameters */
    assert_int_equal(p.places[pool].shares, both);
    assert_int_equal(kind(&p, pool), PLACE_SHARED);
    end(&p);
}

static void fixed_and_float(void **state)
{
    (void)state;
    placed p = begin();
    const int x = image(&p), c = conv(&p, "c", x);
    const int s = kit_node(p.g, "Sigmoid", "s", 1, IDS(c));
    const int f = kit_node(p.g, "Log", "log", 1, IDS(s));
    place(&p, kit_node(p.g, "Relu", "r", 1, IDS(f)));
    assert_int_equal(kind(&p, s), PLACE_FIXED);
    assert_true(p.places[s].lo == 0 && p.places[s].hi == 1);
    assert_int_equal(kind(&p, f), PLACE_NONE);
    assert_int_equal(kind(&p, p.g->outputs[0]), PLACE_NONE); /* no reason to quantize it */
    end(&p);
}

/* Names and types; a Relu behind an excluded Conv stays float with it. */
static void exclusions(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        placed p = begin();
        static const char *const by_name[] = { "no*" }, *const by_type[] = { "Conv" },
                                 *const only[] = { "Gemm", "MaxPool" };
        const int x = image(&p), c = conv(&p, "nothing", x);
        const int r = kit_node(p.g, "Relu", "r", 1, IDS(c));
        const int pool = kit_node(p.g, "MaxPool", "pool", 1, IDS(r));
        kit_set_ints(p.g, "kernel_shape", 2, DIMS(2, 2));
        const int flat = kit_node(p.g, "Flatten", "f", 1, IDS(pool));
        const int w = kit_random(p.g, &p.r, "w", 2, DIMS(100, 7));
        const int y = kit_node(p.g, "Gemm", "g", 2, IDS(flat, w));
        p.opt.exclude = way == 0 ? by_name : by_type;
        p.opt.n_exclude = way < 2;
        p.opt.ops = only;
        p.opt.n_ops = way == 2 ? 2 : 0;
        place(&p, y);
        assert_int_equal(kind(&p, x), PLACE_NONE);
        assert_int_equal(kind(&p, c), PLACE_NONE);
        assert_int_equal(kind(&p, r), way == 2 ? PLACE_NONE : PLACE_ACTIVATION);
        assert_int_equal(kind(&p, flat), way == 2 ? PLACE_ACTIVATION : PLACE_SHARED);
        assert_int_equal(p.places[w].axis, 1); /* transB = 0 */
        assert_int_equal(kind(&p, y), PLACE_ACTIVATION);
        assert_false(p.quantized[0] || p.quantized[1]);
        end(&p);
    }
}

static void tied_constants(void **state)
{
    (void)state;
    placed p = begin();
    const int x = kit_input(p.g, "x", 2, DIMS(-1, 5));
    const int w = kit_random(p.g, &p.r, "w", 2, DIMS(5, 5));
    const int b = kit_random(p.g, &p.r, "b", 1, DIMS(5));
    const int one = kit_node(p.g, "Gemm", "one", 3, IDS(x, w, b));
    const int two = kit_node(p.g, "Gemm", "two", 3, IDS(one, w, b));
    const int three = kit_node(p.g, "Gemm", "three", 3, IDS(two, w, b));
    kit_set_int(p.g, "transB", 1);
    place(&p, kit_node(p.g, "Add", "add", 2, IDS(three, w)));
    const node *n = p.g->nodes;
    assert_int_equal(n[0].inputs[1], n[1].inputs[1]); /* one role: one int8 tensor */
    assert_int_not_equal(n[2].inputs[1], w);          /* the other axis */
    assert_int_not_equal(n[3].inputs[1], w);          /* an activation */
    assert_int_equal(p.places[n[2].inputs[1]].axis, 0);
    assert_int_equal(kind(&p, n[3].inputs[1]), PLACE_CONSTANT);
    for (int i = 0; i < 3; i++) { /* each bias has its node's scale */
        assert_int_equal(kind(&p, n[i].inputs[2]), PLACE_BIAS);
        assert_int_equal(p.places[n[i].inputs[2]].input, n[i].inputs[0]);
    }
    end(&p);
}

/* alpha and beta vanish in the constants; biases of one number become vectors. */
static void gemm_is_normalised(void **state)
{
    (void)state;
    for (int rank = 0; rank < 3; rank++) {
        placed p = begin();
        const int x = kit_input(p.g, "x", 2, DIMS(-1, 5));
        const int w = kit_random(p.g, &p.r, "w", 2, DIMS(5, 3));
        const int b = kit_random(p.g, &p.r, "b", rank, DIMS(1, rank == 2 ? 3 : 1));
        const int y = kit_node(p.g, "Gemm", "g", 3, IDS(x, w, b));
        const attr alpha = { .name = "alpha", .kind = ATTR_FLOAT, .f = 0.5f };
        const attr beta = { .name = "beta", .kind = ATTR_FLOAT, .f = -2 };
        assert_ok(graph_set_attr(p.g, kit_last(p.g), &alpha, err));
        assert_ok(graph_set_attr(p.g, kit_last(p.g), &beta, err));
        kit_output(p.g, y);
        graph *before;
        assert_ok(graph_clone(p.g, &before, err));
        assert_ok(split_roles(p.g, err));
        kit_same_function(before, p.g, 1, 1e-6);
        const node *n = kit_only(p.g, "Gemm");
        assert_null(node_attr(n, "alpha"));
        assert_null(node_attr(n, "beta"));
        assert_int_equal(p.g->values[n->inputs[2]].constant->rank, 1);
        assert_int_equal(p.g->values[n->inputs[2]].constant->dims[0], 3);
        graph_free(before);
        end(&p);
    }
}

static void weights_that_are_computed(void **state)
{
    (void)state;
    placed p = begin();
    const int x = kit_input(p.g, "x", 2, DIMS(4, 5)), w = kit_input(p.g, "w", 2, DIMS(5, 6));
    const int b = kit_random(p.g, &p.r, "b", 1, DIMS(6));
    const int m = kit_node(p.g, "MatMul", "m", 2, IDS(x, w));
    const int g = kit_node(p.g, "Gemm", "g", 3, IDS(x, w, b));
    place(&p, kit_node(p.g, "Sub", "s", 2, IDS(m, g)));
    assert_int_equal(kind(&p, w), PLACE_ACTIVATION);
    assert_int_equal(kind(&p, m), PLACE_ACTIVATION);
    assert_int_equal(kind(&p, b), PLACE_NONE); /* its scale would not be known */
    assert_false(p.quantized[1]);
    assert_true(p.quantized[0] && p.quantized[2]);
    assert_int_equal(p.diag->n, 1);
    assert_string_equal(p.diag->list[0].code, "stays-float");
    end(&p);
}

static void transposed_convolutions(void **state)
{
    (void)state;
    for (int groups = 1; groups <= 2; groups++) {
        placed p = begin();
        const int x = image(&p);
        const int w = kit_random(p.g, &p.r, "w", 4, DIMS(4, 3, 2, 2));
        const int b = kit_random(p.g, &p.r, "b", 1, DIMS(3 * groups));
        const int y = kit_node(p.g, "ConvTranspose", "t", 3, IDS(x, w, b));
        kit_set_int(p.g, "group", groups);
        place(&p, y);
        assert_int_equal(p.places[w].axis, groups == 1 ? 1 : -1);
        assert_int_equal(kind(&p, b), PLACE_BIAS);
        end(&p);
    }
}

/* Shape arithmetic is left alone, and said nothing about. */
static void integers_stay(void **state)
{
    (void)state;
    placed p = begin();
    const int x = image(&p), shape = kit_node(p.g, "Shape", "shape", 1, IDS(x));
    const int one = kit_ints(p.g, "one", 1, DIMS(1));
    const int same = kit_node(p.g, "Mul", "mul", 2, IDS(shape, one));
    const int c = conv(&p, "c", x);
    place(&p, kit_node(p.g, "Reshape", "r", 2, IDS(c, same)));
    assert_int_equal(kind(&p, shape), PLACE_NONE);
    assert_int_equal(kind(&p, same), PLACE_NONE);
    assert_int_equal(kind(&p, one), PLACE_NONE);
    assert_int_equal(kind(&p, p.g->outputs[0]), PLACE_SHARED);
    assert_int_equal(p.diag->n, 0);
    end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_and_its_relu),
        cmocka_unit_test(relu_that_is_not_absorbed),
        cmocka_unit_test(residual_add),
        cmocka_unit_test(shared_parameters),
        cmocka_unit_test(fixed_and_float),
        cmocka_unit_test(exclusions),
        cmocka_unit_test(tied_constants),
        cmocka_unit_test(gemm_is_normalised),
        cmocka_unit_test(weights_that_are_computed),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(integers_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
