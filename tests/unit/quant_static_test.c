/* Whole small graphs, from calibration data to Q/DQ pairs: what comes out, and every guard. */
#include "data_files.h"
#include "graph_kit.h"
#include "samples_kit.h"

#include <float.h>
#include <limits.h>
#include <math.h>

#include "base/mem.h"
#include "graph/pass.h"
#include "measure/measure.h"
#include "ops/ops.h"
#include "quant/quant.h"

enum { SAMPLES = 20, CHANNELS = 4, SIDE = 6, SAMPLE = CHANNELS * SIDE * SIDE };

/* One network, its calibration data, and what became of it. */
typedef struct trial {
    graph             *g, *q;
    rng                r;
    rung_quant_options opt;
    diagnostics       *diag;
    float              x[SAMPLES * SAMPLE];
} trial;

static trial *begin(void)
{
    trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->g = kit_graph(op_find);
    t->diag = diagnostics_new();
    t->opt = (rung_quant_options)RUNG_QUANT_OPTIONS;
    t->opt.quiet = true;
    t->opt.methods = RUNG_METHOD_NONE; /* what is tested here is what they build on */
    t->opt.n_threads = 1;
    rng_seed(&t->r, 1);
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        t->x[i] = rng_normal(&t->r);
    return t;
}

static dataset *open_data(const trial *t)
{
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, SIDE, SIDE }, (void *)t->x };
    return samples_open(&all);
}

static rung_status quantize(trial *t, rung_error *err)
{
    dataset *d = open_data(t);
    const rung_status st = quantize_static(t->g, d, &t->opt, &t->q, t->diag, err);
    dataset_free(d);
    return st;
}

static void end(trial *t)
{
    graph_free(t->g);
    graph_free(t->q);
    diagnostics_free(t->diag);
    free(t);
}

static bool remarked(const trial *t, const char *code, const char *where)
{
    for (size_t i = 0; i < t->diag->n; i++)
        if (!strcmp(t->diag->list[i].code, code) && strstr(t->diag->list[i].where, where))
            return true;
    return false;
}

/* SQNR of the quantized graph, on the calibration data. */
static double sqnr(const trial *t)
{
    const rung_eval_options opt = { .size = sizeof opt, .n_threads = 1, .quiet = true };
    rung_eval_result r;
    dataset *d = open_data(t);
    assert_ok(measure_eval(t->q, t->g, d, &opt, &r, NULL, err));
    dataset_free(d);
    return r.sqnr_db;
}

static int image(trial *t)
{
    return kit_input(t->g, "x", 4, DIMS(-1, CHANNELS, SIDE, SIDE));
}

static float *weights(trial *t, float *w, float scale)
{
    for (int i = 0; i < CHANNELS * CHANNELS; i++)
        w[i] = scale * rng_normal(&t->r);
    return w;
}

/* A 1x1 convolution named `name` with these weights; b may be NULL. */
static int conv(trial *t, const char *name, int x, const float *w, const float *b)
{
    const int w_id = kit_constant(t->g, "w", RUNG_F32, 4, DIMS(CHANNELS, CHANNELS, 1, 1), w);
    const int b_id = b ? kit_constant(t->g, "b", RUNG_F32, 1, DIMS(CHANNELS), b) : -1;
    return kit_node(t->g, "Conv", name, b ? 3 : 2, IDS(x, w_id, b_id));
}

static int random_conv(trial *t, const char *name, int x)
{
    float w[CHANNELS * CHANNELS], b[CHANNELS];
    for (int i = 0; i < CHANNELS; i++)
        b[i] = rng_normal(&t->r);
    return conv(t, name, x, weights(t, w, 1), b);
}

/* conv, Relu, conv, residual Add, Concat, pool, Gemm: all kinds of pairs. */
static void build_network(trial *t)
{
    graph *g = t->g;
    const int x = image(t), r = kit_node(g, "Relu", "r", 1, IDS(random_conv(t, "c1", x)));
    const int sum = kit_node(g, "Add", "add", 2, IDS(random_conv(t, "c2", r), r));
    const int cat = kit_node(g, "Concat", "cat", 2, IDS(sum, random_conv(t, "c3", r)));
    kit_set_int(g, "axis", 1);
    const int s = kit_node(g, "Sigmoid", "s", 1, IDS(cat));
    const int pool = kit_node(g, "GlobalAveragePool", "pool", 1, IDS(s));
    const int flat = kit_node(g, "Flatten", "flat", 1, IDS(pool));
    const int w = kit_random(g, &t->r, "wg", 2, DIMS(2 * CHANNELS, 3));
    kit_output(g, kit_node(g, "Gemm", "gemm", 2, IDS(flat, w)));
}

static void a_network(void **state)
{
    (void)state;
    for (int way = 0; way < 6; way++) {
        trial *t = begin();
        build_network(t);
        t->opt.range = (rung_range)way;
        t->opt.act_type = way % 2 ? RUNG_I8 : RUNG_U8;
        t->opt.per_tensor = way == 4;
        t->opt.act_symmetric = way == 3;
        t->opt.n_threads = 1 + way % 2;
        assert_ok(quantize(t, err));
        assert_ok(graph_verify(t->q, err));
        assert_int_equal(t->diag->n, 0);
        assert_int_equal(kit_count(t->q, "Conv"), 3);
        /* x, r, c2, add, cat's second, cat, s, pool, flat, gemm */
        assert_int_equal(kit_count(t->q, "QuantizeLinear"), 10);
        assert_string_equal(t->q->values[t->q->outputs[0]].name, "gemm_out");
        assert_non_null(strstr(graph_metadata(t->q, "rung.quantized"), "static"));
        for (size_t v = 0; v < t->q->n_values; v++) /* no float weight is left */
            if (t->q->values[v].constant && t->q->values[v].constant->type == RUNG_F32)
                assert_true(tensor_count(t->q->values[v].constant) <= 2 * CHANNELS);
        if (sqnr(t) < 20)
            fail_msg("range %d: %.1f dB", way, sqnr(t));
        end(t);
    }
}

/* The same samples in batches of other sizes, also with a rest, give the same model. */
static void batches_do_not_matter(void **state)
{
    (void)state;
    float scales[3];
    static const int sizes[] = { 1, 7, 20 };
    for (int i = 0; i < 3; i++) {
        trial *t = begin();
        const int x = image(t);
        kit_output(t->g, kit_node(t->g, "Sigmoid", "s", 1, IDS(x)));
        t->opt.batch = sizes[i];
        assert_ok(quantize(t, err));
        scales[i] = (float)tensor_get(t->q->values[kit_find(t->q, "x_scale")].constant, 0);
        end(t);
    }
    assert_true(scales[0] == scales[1] && scales[1] == scales[2]);
}

static void samples_are_chosen_by_seed(void **state)
{
    (void)state;
    float scales[3];
    for (int i = 0; i < 3; i++) {
        trial *t = begin();
        kit_output(t->g, kit_node(t->g, "Sigmoid", "s", 1, IDS(image(t))));
        t->opt.samples = 2;
        t->opt.seed = i < 2 ? 1 : 2;
        t->opt.range = RUNG_RANGE_MINMAX;
        assert_ok(quantize(t, err));
        scales[i] = (float)tensor_get(t->q->values[kit_find(t->q, "x_scale")].constant, 0);
        end(t);
    }
    assert_true(scales[0] == scales[1] && scales[1] != scales[2]);
}

/* A model of fixed batch 8 with 20 samples: the rest is filled up, not with zeros. */
static void a_fixed_batch(void **state)
{
    (void)state;
    trial *t = begin();
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        t->x[i] = 5 + fabsf(t->x[i]);
    const int x = kit_input(t->g, "x", 4, DIMS(8, CHANNELS, SIDE, SIDE));
    const int flat = kit_node(t->g, "Reshape", "flat", 2,
                              IDS(x, kit_ints(t->g, "s", 2, DIMS(8, SAMPLE))));
    const int y = kit_node(t->g, "Sub", "y", 2,
                           IDS(flat, kit_constant(t->g, "c", RUNG_F32, 0, NULL, &(float){ 2 })));
    kit_output(t->g, y);
    t->opt.range = RUNG_RANGE_MINMAX;
    assert_ok(quantize(t, err));
    const tensor *zero = t->q->values[kit_only(t->q, "Sub")->outputs[0]].constant;
    assert_null(zero);
    assert_int_equal(kit_count(t->q, "QuantizeLinear"), 3);
    assert_true(sqnr(t) > 30);
    end(t);
}

static void a_quantized_model_is_refused(void **state)
{
    (void)state;
    trial *t = begin();
    build_network(t);
    assert_ok(quantize(t, err));
    graph_free(t->g);
    t->g = t->q;
    t->q = NULL;
    assert_fails(quantize(t, err), RUNG_EARGUMENT, "quantized already");
    end(t);
    t = begin();
    kit_output(t->g, kit_node(t->g, "Log", "log", 1, IDS(image(t))));
    assert_fails(quantize(t, err), RUNG_EARGUMENT, "nothing is left");
    end(t);
}

/* --- guards ----------------------------------------------------------------------------------- */

/* A bias far too large for the scale of its channel: that is raised, the result stays right. */
static void bias_overflow(void **state)
{
    (void)state;
    trial *t = begin();
    float w[CHANNELS * CHANNELS], b[CHANNELS] = { 1, 1, 1e6f, 1 };
    weights(t, w, 1);
    for (int i = 0; i < CHANNELS; i++)
        w[2 * CHANNELS + i] *= 1e-6f;
    kit_output(t->g, conv(t, "big", image(t), w, b));
    assert_ok(quantize(t, err));
    assert_true(remarked(t, "bias-overflow", "big"));
    assert_int_equal(t->diag->n, 1);
    const tensor *codes = t->q->values[kit_find(t->q, "b_q")].constant;
    assert_true(tensor_get_int(codes, 2) > INT_MAX / 2); /* the smallest scale that fits */
    assert_true(sqnr(t) > 40);
    end(t);
}

/* 255 * 127 * 70,000 is more than int32 holds. */
static void accumulator_overflow(void **state)
{
    (void)state;
    enum { K = 70000 };
    trial *t = begin();
    float *w = calloc((size_t)K * SAMPLE, sizeof *w);
    for (size_t i = 0; i < (size_t)K * SAMPLE; i++)
        w[i] = i % 2 ? 1 : -1;
    const int x = kit_node(t->g, "Flatten", "f", 1, IDS(image(t)));
    const int up = kit_constant(t->g, "up", RUNG_F32, 2, DIMS(SAMPLE, K), w);
    const int down = kit_constant(t->g, "down", RUNG_F32, 2, DIMS(K, 1), w);
    const int many = kit_node(t->g, "MatMul", "many", 2, IDS(x, up));
    kit_output(t->g, kit_node(t->g, "MatMul", "sum", 2, IDS(many, down)));
    assert_ok(quantize(t, err));
    assert_true(remarked(t, "accumulator-overflow", "sum"));
    const tensor *codes = t->q->values[kit_find(t->q, "down_q")].constant;
    int64_t sum = 0;
    for (size_t i = 0; i < K; i++)
        sum += llabs(tensor_get_int(codes, i));
    assert_true(255 * sum <= INT32_MAX && 256 * sum > INT32_MAX / 2);
    free(w);
    end(t);
}

static void tiny_scales(void **state)
{
    (void)state;
    trial *t = begin();
    float w[CHANNELS * CHANNELS];
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        t->x[i] *= 1e-38f;
    kit_output(t->g, conv(t, "small", image(t), weights(t, w, 1e-3f), NULL));
    assert_ok(quantize(t, err));
    assert_true(remarked(t, "tiny-scale", "x"));     /* the range of the input */
    assert_true(remarked(t, "tiny-scale", "small")); /* input scale x weight scale */
    for (size_t v = 0; v < t->q->n_values; v++) {
        const tensor *c = t->q->values[v].constant;
        for (size_t i = 0; c && c->type == RUNG_F32 && i < tensor_count(c); i++)
            assert_true(tensor_get(c, i) >= FLT_MIN);
    }
    end(t);
}

/* A dead branch (always 0) and a constant one. */
static void constant_tensors(void **state)
{
    (void)state;
    trial *t = begin();
    const float w[CHANNELS * CHANNELS] = { 0 };
    const float dead[] = { -1, -1, -1, -1 }, flat[] = { 3, 3, 3, 3 };
    const int x = image(t), c = conv(t, "c", x, w, dead);
    const int r = kit_node(t->g, "Relu", "r", 1, IDS(c)), k = conv(t, "k", x, w, flat);
    kit_output(t->g, kit_node(t->g, "Add", "add", 2, IDS(r, k)));
    assert_ok(quantize(t, err));
    assert_true(remarked(t, "constant-tensor", "r_out"));
    assert_true(remarked(t, "constant-tensor", "k_out"));
    assert_true(sqnr(t) > 40);
    end(t);
}

static void weights_that_are_not_finite(void **state)
{
    (void)state;
    trial *t = begin();
    float w[CHANNELS * CHANNELS], b[CHANNELS] = { 1, 2, INFINITY, 4 };
    weights(t, w, 1);
    w[5] = NAN;
    const int y = conv(t, "c", image(t), w, b);
    kit_output(t->g, y);
    assert_ok(quantize(t, err));
    assert_true(remarked(t, "not-finite-weights", "w"));
    assert_true(remarked(t, "not-finite-weights", "b"));
    assert_true(remarked(t, "not-finite-activations", "c_out"));
    const tensor *codes = t->q->values[kit_find(t->q, "w_q")].constant;
    assert_int_equal(tensor_get_int(codes, 5), 0);
    end(t);

    t = begin();
    for (int i = 0; i < CHANNELS * CHANNELS; i++)
        w[i] = NAN;
    kit_output(t->g, conv(t, "c", image(t), w, NULL));
    assert_fails(quantize(t, err), RUNG_EMODEL, "weight 'w': 16 of its 16 values");
    end(t);

    t = begin(); /* one in every output channel */
    weights(t, w, 1);
    for (int i = 0; i < CHANNELS; i++)
        w[i * CHANNELS] = NAN;
    kit_output(t->g, random_conv(t, "d", conv(t, "c", image(t), w, NULL)));
    assert_fails(quantize(t, err), RUNG_EMODEL, "weight 'w': 4 of its 16 values");
    end(t);
}

/* The layer with NaN weights stays float, and so does what follows it: only behind them is a tensor
 * observed. */
static void float_weights_that_are_not_finite(void **state)
{
    (void)state;
    trial *t = begin();
    float w[CHANNELS * CHANNELS];
    for (int i = 0; i < CHANNELS * CHANNELS; i++)
        w[i] = NAN;
    const char *const names[] = { "c", "s" };
    const int c = conv(t, "c", image(t), w, NULL);
    kit_output(t->g, random_conv(t, "d", kit_node(t->g, "Sigmoid", "s", 1, IDS(c))));
    t->opt.exclude = names;
    t->opt.n_exclude = 2;
    assert_fails(quantize(t, err), RUNG_EMODEL, "constant 'w': 16 of its 16 values");
    end(t);
}

static void activations_that_are_not_finite(void **state)
{
    (void)state;
    trial *t = begin();
    build_network(t);
    t->x[3] = NAN;
    t->x[500] = INFINITY;
    assert_ok(quantize(t, err));
    assert_true(remarked(t, "not-finite-activations", "x"));
    const double scale = tensor_get(t->q->values[kit_find(t->q, "x_scale")].constant, 0);
    assert_true(isfinite(scale) && scale < 0.1);
    end(t);

    t = begin();
    build_network(t);
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        t->x[i] = NAN;
    assert_fails(quantize(t, err), RUNG_EMODEL, "look at the data");
    end(t);
}

/* A tensor without elements: the nodes at it stay float, the others are quantized. */
static void unseen_tensors(void **state)
{
    (void)state;
    trial *t = begin();
    const int x = image(t), c = random_conv(t, "c", x);
    const int none = kit_node(t->g, "Slice", "none", 4,
                              IDS(c, kit_ints(t->g, "from", 1, DIMS(2)),
                                  kit_ints(t->g, "to", 1, DIMS(2)),
                                  kit_ints(t->g, "axes", 1, DIMS(1))));
    const int s = kit_node(t->g, "Sigmoid", "s", 1, IDS(none));
    const int cat = kit_node(t->g, "Concat", "cat", 2, IDS(s, random_conv(t, "d", c)));
    kit_set_int(t->g, "axis", 1);
    kit_output(t->g, random_conv(t, "e", cat));
    assert_ok(quantize(t, err));
    assert_true(remarked(t, "unseen-tensor", "none_out"));
    assert_int_equal(kit_only(t->q, "Sigmoid")->inputs[0], none);
    assert_int_equal(t->q->values[none].producer, kit_only(t->q, "Slice") - t->q->nodes);
    assert_ok(graph_verify(t->q, err));
    assert_true(sqnr(t) > 20);
    end(t);
}

/* Every allocation fails once: an error, no leak, and then it works. */
static void memory_may_be_out(void **state)
{
    (void)state;
    bool done = false;
    for (long n = 0; !done && n < 4000; n += 1 + n / 40) {
        trial *t = begin();
        build_network(t);
        t->opt.samples = 2;
        dataset *d = open_data(t);
        rung_error err = { "" };
        mem_fail_after(n);
        const rung_status st = quantize_static(t->g, d, &t->opt, &t->q, t->diag, &err);
        mem_fail_after(-1);
        done = st == RUNG_OK;
        if (!done && (st != RUNG_EMEMORY || t->q || !err.message[0]))
            fail_msg("allocation %ld: status %d, '%s'", n, (int)st, err.message);
        dataset_free(d);
        end(t);
    }
    assert_true(done);
}

/* ONNX means 0 by a zero point that is left out. ONNX Runtime fuses a bias without one; the weight
 * of a Gemm it leaves in float32. */
static void biases_have_no_zero_points(void **state)
{
    (void)state;
    trial *t = begin();
    kit_output(t->g, random_conv(t, "conv", image(t)));
    assert_ok(quantize(t, err));
    int n_biases = 0;
    for (size_t i = 0; i < t->q->n_nodes; i++) {
        const node *n = &t->q->nodes[i];
        const tensor *codes = node_constant(t->q, n, 0);
        const bool bias = codes && codes->type == RUNG_I32;
        if (!node_is(n, "DequantizeLinear"))
            continue;
        assert_int_equal(n->n_inputs, bias ? 2 : 3);
        n_biases += bias;
    }
    assert_int_equal(n_biases, 1);
    end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network),
        cmocka_unit_test(biases_have_no_zero_points),
        cmocka_unit_test(batches_do_not_matter),
        cmocka_unit_test(samples_are_chosen_by_seed),
        cmocka_unit_test(a_fixed_batch),
        cmocka_unit_test(a_quantized_model_is_refused),
        cmocka_unit_test(bias_overflow),
        cmocka_unit_test(accumulator_overflow),
        cmocka_unit_test(tiny_scales),
        cmocka_unit_test(constant_tensors),
        cmocka_unit_test(weights_that_are_not_finite),
        cmocka_unit_test(float_weights_that_are_not_finite),
        cmocka_unit_test(activations_that_are_not_finite),
        cmocka_unit_test(unseen_tensors),
        cmocka_unit_test(memory_may_be_out),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
