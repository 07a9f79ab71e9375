/* High-bias absorption: the function stays, the step shrinks, padding and bounds forbid it, and
 * what hurts is undone. */
#include "data_files.h"
#include "graph_kit.h"
#include "samples_kit.h"

#include <math.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "graph/rewrite.h"
#include "measure/measure.h"
#include "ops/ops.h"
#include "quant/method.h"

enum { SAMPLES = 40, CHANNELS = 4, SIDE = 6, SAMPLE = CHANNELS * SIDE * SIDE, MIDDLE = 6, OUT = 4 };

/* Within [-1, 1]; odd: the last of the samples that are kept apart is far below. */
static dataset *open_data(bool odd)
{
    static float x[SAMPLES * SAMPLE];
    const rung_quant_options opt = RUNG_QUANT_OPTIONS;
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, SIDE, SIDE }, x };
    size_t order[SAMPLES];
    rng r;
    rng_seed(&r, 5);
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        x[i] = (float)(2 * rng_uniform(&r) - 1);
    assert_ok(sample_order(SAMPLES, SAMPLES, opt.seed, order, err));
    for (size_t i = 0; odd && i < SAMPLE; i++)
        x[order[SAMPLES - 1] * SAMPLE + i] = -11;
    return samples_open(&all);
}

/* What stands between the layers, and what the second one is. */
typedef struct form {
    float   bias;  /* of the first layer: what its outputs lie around, by at most 1 */
    float   bound; /* of a Clip; 0: a Relu */
    int64_t kernel, group, pad;
    bool    gemm;
} form;

static const form pointwise = { 11, 0, 1, 1, 0, false };

static int bend(graph *g, int x, float bound)
{
    const float zero = 0;
    if (bound == 0)
        return kit_node(g, "Relu", "bend", 1, IDS(x));
    const int lo = kit_constant(g, "lo", RUNG_F32, 0, NULL, &zero);
    const int hi = kit_constant(g, "hi", RUNG_F32, 0, NULL, &bound);
    return kit_node(g, "Clip", "bend", 3, IDS(x, lo, hi));
}

/* The second layer's bias takes the first one's back: outputs are around 0. */
static graph *network(const form *f)
{
    graph *g = kit_graph(op_find);
    float w[MIDDLE * CHANNELS], b[MIDDLE], w2[OUT * MIDDLE * 9], b2[OUT];
    const int64_t per = f->gemm ? MIDDLE : MIDDLE / f->group * f->kernel * f->kernel;
    rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < MIDDLE * CHANNELS; i++)
        w[i] = (float)(rng_uniform(&r) - 0.5) / 2;
    for (int i = 0; i < MIDDLE; i++)
        b[i] = f->bias;
    for (int64_t o = 0; o < OUT; o++) {
        b2[o] = 0;
        for (int64_t i = 0; i < per; i++)
            b2[o] -= f->bias * (w2[o * per + i] = rng_normal(&r) / (float)per);
    }
    const int bi = kit_constant(g, "b", RUNG_F32, 1, DIMS(MIDDLE), b);
    const int bi2 = kit_constant(g, "b2", RUNG_F32, 1, DIMS(OUT), b2);
    int x = kit_input(g, "x", 4, DIMS(-1, CHANNELS, SIDE, SIDE));
    if (f->gemm) {
        x = kit_node(g, "Flatten", "", 1, IDS(kit_node(g, "GlobalAveragePool", "", 1, IDS(x))));
        const int wi = kit_constant(g, "w", RUNG_F32, 2, DIMS(CHANNELS, MIDDLE), w);
        x = bend(g, kit_node(g, "Gemm", "", 3, IDS(x, wi, bi)), f->bound);
        const int wi2 = kit_constant(g, "w2", RUNG_F32, 2, DIMS(OUT, MIDDLE), w2);
        x = kit_node(g, "Gemm", "", 3, IDS(x, wi2, bi2));
        kit_set_int(g, "transB", 1);
    } else {
        const int wi = kit_constant(g, "w", RUNG_F32, 4, DIMS(MIDDLE, CHANNELS, 1, 1), w);
        x = bend(g, kit_node(g, "Conv", "", 3, IDS(x, wi, bi)), f->bound);
        const int wi2 = kit_constant(g, "w2", RUNG_F32, 4,
                                     DIMS(OUT, MIDDLE / f->group, f->kernel, f->kernel), w2);
        x = kit_node(g, "Conv", "", 3, IDS(x, wi2, bi2));
        kit_set_int(g, "group", f->group);
        kit_set_ints(g, "pads", 4, DIMS(f->pad, f->pad, f->pad, f->pad));
    }
    kit_output(g, x);
    assert_ok(graph_sort(g, err));
    return g;
}

/* --- the rewrite ------------------------------------------------------------------------------ */

/* How many tensors are narrower for it. On the samples that it saw float outputs stay the same. */
static size_t absorbed(const form *f)
{
    const rung_quant_options opt = { .seed = 1, .n_threads = 1 };
    graph *g = network(f), *to = NULL;
    dataset *d = open_data(false);
    double noise = 0;
    samples s;
    size_t n;
    assert_ok(rewrite_prepare(g, err));
    assert_ok(split_roles(g, err));
    assert_ok(graph_clone(g, &to, err));
    assert_ok(samples_load(g, d, &opt, &s, err));
    assert_ok(samples_answer(&s, g, err));
    assert_ok(absorb_biases(to, &s, &n, err));
    assert_ok(graph_verify(to, err));
    assert_ok(samples_noise(&s, to, 0, s.n_fit, &noise, err));
    noise /= (double)(samples_before(&s, s.n_fit) * s.answers[0].n);
    assert_true(sqrt(noise) < 1e-5);
    samples_free(&s);
    dataset_free(d);
    graph_free(to);
    graph_free(g);
    return n;
}

static void the_function_stays(void **state)
{
    static const form forms[] = { { 11, 0, 1, 1, 0, false }, { 11, 0, 3, 1, 0, false },
                                  { 11, 0, 2, 2, 0, false }, { 11, 0, 1, 1, 0, true },
                                  { 11, 20, 1, 1, 0, false } };
    (void)state;
    for (int i = 0; i < COUNT(forms); i++)
        assert_int_equal(absorbed(&forms[i]), 1);
}

static void padding_forbids_it(void **state)
{
    const form padded = { 11, 0, 3, 1, 1, false };
    (void)state;
    assert_int_equal(absorbed(&padded), 0);
}

/* All channels reach the bound of the Clip. */
static void bounds_forbid_it(void **state)
{
    const form bounded = { 11, 11.2f, 1, 1, 0, false };
    (void)state;
    assert_int_equal(absorbed(&bounded), 0);
}

/* --- whole quantizations ---------------------------------------------------------------------- */

static const char *said_of(const diagnostics *diag, const char *words)
{
    for (size_t i = 0; i < diag->n; i++)
        if (strcmp(diag->list[i].where, "absorb") == 0 && strstr(diag->list[i].message, words))
            return diag->list[i].code;
    return NULL;
}

/* *step: of what the Relu makes; *db: on the samples kept apart. */
static void quantize_by(const form *f, unsigned methods, bool odd, float *step, double *db,
                        diagnostics *diag)
{
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    graph *g = network(f), *q = NULL;
    dataset *d = open_data(odd);
    samples s;
    opt.methods = methods;
    opt.quiet = true;
    opt.n_threads = 1;
    *step = 0;
    assert_ok(quantize_static(g, d, &opt, &q, diag, err));
    assert_ok(graph_verify(q, err));
    assert_ok(samples_load(g, d, &opt, &s, err));
    assert_ok(samples_sqnr(&s, g, q, db, err));
    for (size_t i = 0; i < q->n_nodes; i++)
        for (size_t k = 0; strcmp(q->nodes[i].name, "bend") == 0 && k < q->n_nodes; k++)
            if (strcmp(q->nodes[k].op_type, "QuantizeLinear") == 0 &&
                q->nodes[k].inputs[0] == q->nodes[i].outputs[0])
                *step = (float)tensor_get(node_constant(q, &q->nodes[k], 1), 0);
    assert_true(*step > 0);
    samples_free(&s);
    dataset_free(d);
    graph_free(q);
    graph_free(g);
}

static void steps_shrink_and_errors_fall(void **state)
{
    float plain_step, step;
    double plain, db;
    diagnostics *diag = diagnostics_new();
    (void)state;
    quantize_by(&pointwise, RUNG_METHOD_NONE, false, &plain_step, &plain, NULL);
    quantize_by(&pointwise, RUNG_METHOD_ABSORB, false, &step, &db, diag);
    assert_string_equal(said_of(diag, "absorbed at 1"), "method");
    assert_true(step < plain_step / 6);
    assert_true(db > plain + 6);
    diagnostics_free(diag);
    quantize_by(&pointwise, RUNG_METHOD_AUTO, false, &step, &db, NULL);
    assert_true(step < plain_step / 3); /* with a stretched range */
    quantize_by(&pointwise, RUNG_METHOD_EQUALIZE, false, &step, &db, NULL);
    assert_true(step > plain_step / 2);
}

/* A sample kept apart goes to 0 where those before it never were. */
static void what_hurts_is_undone(void **state)
{
    float plain_step, step;
    double plain, db;
    diagnostics *diag = diagnostics_new();
    (void)state;
    quantize_by(&pointwise, RUNG_METHOD_NONE, true, &plain_step, &plain, NULL);
    quantize_by(&pointwise, RUNG_METHOD_ABSORB, true, &step, &db, diag);
    assert_string_equal(said_of(diag, "absorbed at 1"), "method-undone");
    assert_float_equal(step, plain_step, 0);
    assert_float_equal(db, plain, 0);
    diagnostics_free(diag);
}

static void nothing_to_absorb_is_said(void **state)
{
    const form low = { 0, 0, 1, 1, 0, false };
    float step;
    double db;
    diagnostics *diag = diagnostics_new();
    (void)state;
    quantize_by(&low, RUNG_METHOD_ABSORB, false, &step, &db, diag);
    assert_string_equal(said_of(diag, "nothing to absorb"), "method");
    diagnostics_free(diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_function_stays),
        cmocka_unit_test(padding_forbids_it),
        cmocka_unit_test(bounds_forbid_it),
        cmocka_unit_test(steps_shrink_and_errors_fall),
        cmocka_unit_test(what_hurts_is_undone),
        cmocka_unit_test(nothing_to_absorb_is_said),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
