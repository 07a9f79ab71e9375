/* What only comes behind the last layers stays float where pairs cost accuracy, and only there. */
#include "data_files.h"
#include "graph_kit.h"
#include "samples_kit.h"

#include "base/mem.h"
#include "graph/rewrite.h"
#include "ops/ops.h"
#include "quant/method.h"

enum { SAMPLES = 40, CHANNELS = 4, SIDE = 24, SAMPLE = CHANNELS * SIDE * SIDE };

static dataset *open_data(void)
{
    static float x[SAMPLES * SAMPLE];
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, SIDE, SIDE }, x };
    rng r;
    rng_seed(&r, 5);
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        x[i] = rng_normal(&r);
    return samples_open(&all);
}

static int conv(graph *g, rng *r, int x, int64_t in, int64_t out)
{
    const int w = kit_random(g, r, "w", 4, DIMS(out, in, 1, 1));
    return kit_node(g, "Conv", "", 2, IDS(x, w));
}

enum { NARROW = 12, WIDE = 2 }; /* Convs before it: how much of the work the tail is */

/* Convs with a Sigmoid between them, and at the end one of x + shift: for -8 scores so small that
 * steps of 1/256 lose them. */
static graph *scores(float shift, int n_convs)
{
    graph *g = kit_graph(op_find);
    rng r;
    rng_seed(&r, 2);
    int x = kit_input(g, "x", 4, DIMS(-1, CHANNELS, SIDE, SIDE));
    for (int i = 0; i < n_convs; i++)
        x = kit_node(g, "Relu", "", 1, IDS(conv(g, &r, x, CHANNELS, CHANNELS)));
    x = conv(g, &r, kit_node(g, "Sigmoid", "middle", 1, IDS(x)), CHANNELS, 2);
    const int by = kit_constant(g, "shift", RUNG_F32, 0, NULL, &shift);
    x = kit_node(g, "Add", "shifted", 2, IDS(x, by));
    kit_output(g, kit_node(g, "Sigmoid", "last", 1, IDS(x)));
    assert_ok(graph_sort(g, err));
    return g;
}

/* Whether the operator reads and makes floats that no pair stands at the end of. */
static bool is_float(const graph *q, const char *name)
{
    for (size_t i = 0; i < q->n_nodes; i++) {
        const node *n = &q->nodes[i];
        if (strcmp(n->name, name))
            continue;
        for (size_t k = 0; k < q->n_nodes; k++)
            for (int j = 0; j < q->nodes[k].n_inputs; j++)
                if (q->nodes[k].inputs[j] == n->outputs[0] &&
                    strcmp(q->nodes[k].op_type, "QuantizeLinear") == 0)
                    return false;
        return true;
    }
    fail_msg("there is no node %s", name);
    return false;
}

static const char *said_of_tail(const diagnostics *diag)
{
    const char *found = NULL;
    for (size_t i = 0; i < diag->n; i++)
        if (strcmp(diag->list[i].where, "tail") == 0)
            found = diag->list[i].code;
    return found;
}

static graph *quantized(float shift, int n_convs, int weight_bits, unsigned methods,
                        diagnostics *diag)
{
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    graph *g = scores(shift, n_convs), *q = NULL;
    dataset *d = open_data();
    opt.methods = methods;
    opt.weight_bits = weight_bits;
    opt.quiet = true;
    opt.n_threads = 1;
    assert_ok(quantize_static(g, d, &opt, &q, diag, err));
    assert_ok(graph_verify(q, err));
    dataset_free(d);
    graph_free(g);
    return q;
}

static void small_scores_stay_float(void **state)
{
    diagnostics *diag = diagnostics_new();
    (void)state;
    graph *q = quantized(-8, NARROW, 8, RUNG_METHOD_TAIL, diag);
    assert_true(is_float(q, "last"));
    assert_true(is_float(q, "shifted"));
    assert_false(is_float(q, "middle"));
    assert_string_equal(said_of_tail(diag), "method");
    graph_free(q);
    diagnostics_free(diag);
    q = quantized(-8, NARROW, 8, RUNG_METHOD_AUTO, NULL);
    assert_true(is_float(q, "last"));
    graph_free(q);
    q = quantized(-8, NARROW, 8, RUNG_METHOD_BIAS, NULL);
    assert_false(is_float(q, "last"));
    graph_free(q);
}

/* A twentieth of all values is the most. */
static void large_tails_are_quantized(void **state)
{
    diagnostics *diag = diagnostics_new();
    (void)state;
    graph *q = quantized(-8, WIDE, 8, RUNG_METHOD_TAIL, diag);
    assert_false(is_float(q, "last"));
    assert_null(said_of_tail(diag));
    graph_free(q);
    diagnostics_free(diag);
}

/* Beside weights of two bits the steps of a Sigmoid are nothing. */
static void what_gains_nothing_is_put_back(void **state)
{
    diagnostics *diag = diagnostics_new();
    (void)state;
    graph *q = quantized(0, NARROW, 2, RUNG_METHOD_TAIL, diag), *plain;
    assert_string_equal(said_of_tail(diag), "method-undone");
    plain = quantized(0, NARROW, 2, RUNG_METHOD_BIAS, NULL);
    assert_false(is_float(q, "last"));
    assert_int_equal(q->n_nodes, plain->n_nodes);
    graph_free(q);
    graph_free(plain);
    diagnostics_free(diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_scores_stay_float),
        cmocka_unit_test(large_tails_are_quantized),
        cmocka_unit_test(what_gains_nothing_is_put_back),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
