/* Both ends of quantization-aware training: prepare and convert give the model of quantize. */
#include "data_files.h"
#include "graph_kit.h"
#include "samples_kit.h"

#include <math.h>

#include "base/file.h"
#include "base/mem.h"
#include "graph/pass.h"
#include "measure/measure.h"
#include "onnx/onnx.h"
#include "ops/ops.h"
#include "quant/fake.h"
#include "quant/qat.h"

enum { SAMPLES = 24, CHANNELS = 4, SIDE = 6, SAMPLE = CHANNELS * SIDE * SIDE };

typedef struct trial {
    graph             *g;
    rng                r;
    rung_quant_options opt;
    diagnostics       *diag;
    float              x[SAMPLES * SAMPLE];
} trial;

static int random_conv(trial *t, const char *name, int x, bool has_bias)
{
    char w_name[20], b_name[20];
    snprintf(w_name, sizeof w_name, "%s_w", name);
    snprintf(b_name, sizeof b_name, "%s_b", name);
    const int w = kit_random(t->g, &t->r, w_name, 4, DIMS(CHANNELS, CHANNELS, 1, 1));
    const int b = kit_random(t->g, &t->r, b_name, 1, DIMS(CHANNELS));
    return kit_node(t->g, "Conv", name, has_bias ? 3 : 2, IDS(x, w, b));
}

/* Biases and none, Relu and Clip, a constant operand, movers, an output with a pair, a Gemm. */
static void build_network(trial *t)
{
    graph *g = t->g;
    const int x = kit_input(g, "x", 4, DIMS(-1, CHANNELS, SIDE, SIDE));
    const int r = kit_node(g, "Relu", "r", 1, IDS(random_conv(t, "c1", x, true)));
    const int shift = kit_random(g, &t->r, "shift", 3, DIMS(CHANNELS, 1, 1));
    const int sum = kit_node(g, "Add", "add", 2, IDS(random_conv(t, "c2", r, false), shift));
    const int six = kit_constant(g, "six", RUNG_F32, 0, NULL, &(float){ 6 });
    const int zero = kit_constant(g, "none", RUNG_F32, 0, NULL, &(float){ 0 });
    const int c = kit_node(g, "Clip", "clip", 3, IDS(random_conv(t, "c3", sum, true), zero, six));
    const int m = kit_node(g, "MaxPool", "pool", 1, IDS(c));
    kit_set_ints(g, "kernel_shape", 2, DIMS(2, 2));
    kit_set_ints(g, "strides", 2, DIMS(2, 2));
    const int s = kit_node(g, "Sigmoid", "s", 1, IDS(random_conv(t, "c4", m, true)));
    kit_output(g, s);
    const int flat = kit_node(g, "Flatten", "flat", 1, IDS(s));
    const int w = kit_random(g, &t->r, "wg", 2, DIMS(CHANNELS * 9, 3));
    const int b = kit_random(g, &t->r, "bg", 1, DIMS(3));
    kit_output(g, kit_node(g, "Gemm", "gemm", 3, IDS(flat, w, b)));
}

static trial *begin(void)
{
    trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->g = kit_graph(op_find);
    t->diag = diagnostics_new();
    t->opt = (rung_quant_options)RUNG_QUANT_OPTIONS;
    t->opt.quiet = true;
    t->opt.n_threads = 1;
    t->opt.methods = RUNG_METHOD_NONE;
    rng_seed(&t->r, 1);
    build_network(t);
    for (size_t i = 0; i < SAMPLES * SAMPLE; i++)
        t->x[i] = rng_normal(&t->r);
    return t;
}

static void end(trial *t)
{
    graph_free(t->g);
    diagnostics_free(t->diag);
    free(t);
}

static dataset *open_data(const trial *t)
{
    const rung_tensor all = { RUNG_F32, 4, { SAMPLES, CHANNELS, SIDE, SIDE }, (void *)t->x };
    return samples_open(&all);
}

static graph *make(const trial *t, bool prepare)
{
    dataset *d = open_data(t);
    graph *out;
    if (prepare)
        assert_ok(qat_prepare(t->g, d, &t->opt, &out, t->diag, err));
    else
        assert_ok(quantize_static(t->g, d, &t->opt, &out, t->diag, err));
    dataset_free(d);
    return out;
}

static void expect_same_bytes(const graph *a, const graph *b)
{
    unsigned char *file[2];
    size_t size[2];
    assert_ok(onnx_write(a, &file[0], &size[0], err));
    assert_ok(onnx_write(b, &file[1], &size[1], err));
    assert_int_equal(size[0], size[1]);
    assert_memory_equal(file[0], file[1], size[0]);
    mem_free(file[0]);
    mem_free(file[1]);
}

static void expect_static(const trial *t)
{
    graph *prepared = make(t, true), *q = make(t, false), *converted;
    assert_true(qat_is_prepared(prepared));
    assert_false(qat_is_prepared(q));
    assert_ok(graph_verify(prepared, err));
    assert_ok(qat_convert(prepared, NULL, &converted, err));
    expect_same_bytes(q, converted);
    graph_free(prepared);
    graph_free(q);
    graph_free(converted);
}

static void converts_to_static(void **state)
{
    (void)state;
    for (int way = 0; way < 8; way++) {
        trial *t = begin();
        t->opt.weight_bits = way == 1 || way == 5 ? 4 : way == 2 ? 3 : 0;
        t->opt.act_bits = way == 2 ? 4 : way == 3 || way == 5 ? 6 : 0;
        t->opt.act_type = way == 3 || way == 4 ? RUNG_I8 : RUNG_U8;
        t->opt.per_tensor = way == 4;
        t->opt.act_symmetric = way == 4;
        t->opt.methods = way == 5 ? RUNG_METHOD_ADAROUND : way == 6 ? RUNG_METHOD_AUTO
                                                                    : RUNG_METHOD_NONE;
        t->opt.qconfig = way == 7 ? "ort" : NULL;
        expect_static(t);
        end(t);
    }
}

/* NaN in a weight, a bias and a constant. */
static void converts_what_is_not_finite(void **state)
{
    (void)state;
    trial *t = begin();
    static const char *const names[] = { "c1_w", "c3_b" };
    for (int i = 0; i < COUNT(names); i++)
        ((float *)t->g->values[kit_find(t->g, names[i])].constant->data)[1] = NAN;
    ((float *)t->g->values[kit_find(t->g, "wg")].constant->data)[5] = INFINITY;
    expect_static(t);
    end(t);
}

static double sqnr(const trial *t, const graph *g, const graph *reference)
{
    const rung_eval_options opt = { .size = sizeof opt, .n_threads = 1, .quiet = true };
    rung_eval_result result;
    dataset *d = open_data(t);
    assert_ok(measure_eval(g, reference, d, &opt, &result, NULL, err));
    dataset_free(d);
    return result.sqnr_db;
}

/* In float arithmetic it computes what the converted one does, but for codes that lie at a rounding
 * point: of the error against the float model at least three quarters are gone. */
static void prepared_graph_runs(void **state)
{
    (void)state;
    trial *t = begin();
    t->opt.act_bits = 6;
    t->opt.weight_bits = 4;
    graph *prepared = make(t, true), *q = make(t, false);
    assert_true(sqnr(t, q, prepared) > sqnr(t, q, t->g) + 6);
    graph_free(prepared);
    graph_free(q);
    end(t);
}

/* Written and read, ids are others; the function is the same. */
static void survives_a_file(void **state)
{
    (void)state;
    trial *t = begin();
    t->opt.act_bits = 5;
    graph *prepared = make(t, true), *read, *a, *b;
    assert_ok(onnx_write_file(prepared, "prepared.onnx", false, err));
    assert_ok(onnx_read_file("prepared.onnx", &read, err));
    assert_true(qat_is_prepared(read));
    assert_ok(qat_convert(prepared, NULL, &a, err));
    assert_ok(qat_convert(read, NULL, &b, err));
    assert_int_equal(a->n_nodes, b->n_nodes);
    kit_same_function(a, b, 7, 0);
    assert_null(graph_metadata(b, "rung.prepared"));
    assert_non_null(graph_metadata(b, "rung.quantized"));
    graph_free(a);
    graph_free(b);
    graph_free(read);
    graph_free(prepared);
    end(t);
}

/* Other numbers are taken for scales, weights and biases; scales of no use are refused. */
static void takes_values(void **state)
{
    (void)state;
    trial *t = begin();
    graph *prepared = make(t, true), *q;
    const float **data = calloc(prepared->n_values, sizeof *data);
    const int w = kit_find(prepared, "c1_w"), b = kit_find(prepared, "c1_b");
    arena *mem = arena_new();
    uses u;
    fake_quantizer f;
    fake_nodes n;
    assert_ok(graph_uses(prepared, mem, &u, err));
    assert_true(fake_read(prepared, &u, u.list[u.first[w]], &f, &n));
    assert_int_equal(f.lo, -127);
    assert_int_equal(f.hi, 127);
    float scales[CHANNELS] = { 1, 1, 1, 1 }, bias[CHANNELS] = { 0, 0, 0, 0 };
    float weight[CHANNELS * CHANNELS] = { 3, -4.5f, 1000 };
    data[w] = weight;
    data[b] = bias;
    data[n.scale] = scales;
    assert_ok(qat_convert(prepared, data, &q, err));
    const int8_t *codes = q->values[kit_find(q, "c1_w_q")].constant->data;
    assert_int_equal(codes[0], 3);
    assert_int_equal(codes[1], -4);
    assert_int_equal(codes[2], 127);
    assert_int_equal(((const int32_t *)q->values[kit_find(q, "c1_b_q")].constant->data)[0], 0);
    graph_free(q);
    bias[2] = 1;
    scales[2] = 1e-12f;
    assert_fails(qat_convert(prepared, data, &q, err), RUNG_EMODEL, "weight 'c1_w_q'");
    scales[2] = -1;
    assert_fails(qat_convert(prepared, data, &q, err), RUNG_EMODEL, "channel 2 is -1");
    graph_free(prepared);
    assert_fails(qat_convert(t->g, NULL, &q, err), RUNG_EARGUMENT, "not prepared");
    arena_free(mem);
    free(data);
    end(t);
}

/* PyTorch's get_default_qat_qconfig('fbgemm'): weights in [-128, 127] at steps of the largest over
 * 127.5, activations of 7 bits in uint8; 'qnnpack': one scale a weight, 8 bits. */
static void presets_of_training(void **state)
{
    (void)state;
    static const char *const names[] = { "fbgemm", "x86", "qnnpack" };
    for (int way = 0; way < COUNT(names); way++) {
        trial *t = begin();
        t->opt.qconfig = names[way];
        graph *g = make(t, true);
        const int w = kit_find(g, "c1_w");
        const float *x = g->values[w].constant->data;
        arena *mem = arena_new();
        uses u;
        fake_quantizer f;
        fake_nodes n;
        assert_ok(graph_uses(g, mem, &u, err));
        assert_true(fake_read(g, &u, u.list[u.first[w]], &f, &n));
        assert_int_equal(n.clip, -1);
        assert_int_equal(f.lo, -128);
        assert_int_equal(tensor_count(f.scale), way == 2 ? 1 : CHANNELS);
        float most = 0;
        for (int i = 0; i < (way == 2 ? CHANNELS : 1) * CHANNELS; i++)
            most = fmaxf(most, fabsf(x[i]));
        assert_true(fabsf(((const float *)f.scale->data)[0] / (most / 127.5f) - 1) < 1e-6f);
        assert_true(fake_read(g, &u, u.list[u.first[kit_find(g, "x")]], &f, &n));
        const float width = *(const float *)f.scale->data * (way == 2 ? 255 : 127);
        assert_true(width > 4 && width < 9); /* of a normal distribution's 3,456 numbers */
        arena_free(mem);
        graph_free(g);
        end(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(converts_to_static),      cmocka_unit_test(converts_what_is_not_finite),
        cmocka_unit_test(prepared_graph_runs),     cmocka_unit_test(survives_a_file),
        cmocka_unit_test(takes_values),            cmocka_unit_test(presets_of_training),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
