#include "data_files.h"

#include "data/npy.h"
#include "ops/ops.h"
#include "quant/qat.h"
#include "trainer_kit.h"

static void draw(spots *t, rng *r)
{
    for (int i = 0; i < SAMPLES; i++) {
        const int label = i % CLASSES, top = label / 2 * 4, left = label % 2 * 4;
        t->labels[i] = label;
        for (int k = 0; k < SAMPLE; k++)
            t->x[i * SAMPLE + k] = 0.5f * rng_normal(r);
        for (int k = 0; k < 4; k++)
            t->x[i * SAMPLE + (top + 1 + k / 2) * SIDE + left + 1 + k % 2] += 2;
    }
    t->input = (batch_input){ "x", { RUNG_F32, 4, { SAMPLES, 1, SIDE, SIDE }, t->x } };
    t->all = (batch){ .n = SAMPLES, .n_inputs = 1, .inputs = &t->input, .labels = t->labels };
}

static int conv(graph *g, rng *r, const char *name, int x, int64_t in, int64_t out, int64_t group)
{
    char w[20], b[20];
    snprintf(w, sizeof w, "%s_w", name);
    snprintf(b, sizeof b, "%s_b", name);
    const int id_w = kit_random(g, r, w, 4, DIMS(out, in / group, 3, 3));
    const int id_b = kit_random(g, r, b, 1, DIMS(out));
    float *data = g->values[id_w].constant->data;
    for (int64_t i = 0; i < out * in / group * 9; i++)
        data[i] *= 0.3f;
    const int y = kit_node(g, "Conv", name, 3, IDS(x, id_w, id_b));
    kit_set_ints(g, "pads", 4, DIMS(1, 1, 1, 1));
    kit_set_ints(g, "kernel_shape", 2, DIMS(3, 3));
    kit_set_int(g, "group", group);
    return y;
}

static void build(spots *t, bool softmax, bool batch_norm)
{
    rng r;
    rng_seed(&r, 1);
    graph *g = t->g = kit_graph(op_find);
    int x = kit_input(g, "x", 4, DIMS(-1, 1, SIDE, SIDE));
    x = conv(g, &r, "c1", x, 1, 8, 1);
    if (batch_norm) {
        const int s = kit_positive(g, &r, "s", 8), b = kit_random(g, &r, "b", 1, DIMS(8));
        const int m = kit_random(g, &r, "m", 1, DIMS(8)), v = kit_positive(g, &r, "v", 8);
        x = kit_node(g, "BatchNormalization", "norm", 5, IDS(x, s, b, m, v));
    }
    x = kit_node(g, "Relu", "r1", 1, IDS(x));
    x = kit_node(g, "MaxPool", "pool", 1, IDS(x));
    kit_set_ints(g, "kernel_shape", 2, DIMS(2, 2));
    kit_set_ints(g, "strides", 2, DIMS(2, 2));
    const int y = conv(g, &r, "c2", x, 8, 8, 8);
    x = kit_node(g, "Relu", "r2", 1, IDS(kit_node(g, "Add", "add", 2, IDS(x, y))));
    x = kit_node(g, "Flatten", "flat", 1, IDS(x));
    const int w = kit_random(g, &r, "fc_w", 2, DIMS(8 * 16, CLASSES));
    x = kit_node(g, "Gemm", "fc", 3, IDS(x, w, kit_random(g, &r, "fc_b", 1, DIMS(CLASSES))));
    if (softmax) {
        x = kit_node(g, "Softmax", "soft", 1, IDS(x));
        kit_set_int(g, "axis", 1);
    }
    kit_output(g, x);
    draw(t, &r);
}

static void prepare(spots *t, int bits, const char *qconfig)
{
    const rung_tensor x = t->input.t;
    const dataset_options data_opt = { .n_workers = 1 };
    rung_quant_options opt = RUNG_QUANT_OPTIONS;
    dataset *d;
    opt.quiet = true;
    opt.n_threads = 1;
    opt.methods = RUNG_METHOD_NONE;
    opt.weight_bits = opt.act_bits = bits;
    opt.qconfig = qconfig;
    assert_ok(npy_write_file("x.npy", &x, err));
    assert_ok(dataset_open("npy:x.npy", &data_opt, &d, err));
    assert_ok(qat_prepare(t->g, d, &opt, &t->prepared, NULL, err));
    dataset_free(d);
}

spots *spots_begin(bool softmax, bool batch_norm, int bits)
{
    spots *t = calloc(1, sizeof *t);
    assert_non_null(t);
    build(t, softmax, batch_norm);
    if (bits)
        prepare(t, bits, NULL);
    return t;
}

spots *spots_preset(const char *name)
{
    spots *t = spots_begin(false, false, 0);
    prepare(t, 8, name);
    return t;
}

void spots_end(spots *t)
{
    graph_free(t->g);
    graph_free(t->prepared);
    free(t);
}

trainer_options spots_usual(void)
{
    return (trainer_options){
        .optimizer = { .rate = 0.02f, .momentum = 0.9f, .scale_rate = 1, .total = 100,
                       .schedule = SCHEDULE_CONSTANT },
        .loss = { .cross_entropy = 1 },
        .batch = SAMPLES,
        .n_threads = 1,
    };
}

step_result spots_train(trainer *t, const spots *on, int n, double *first)
{
    step_result s = { 0 };
    for (int i = 0; i < n; i++) {
        assert_ok(trainer_step(t, &on->all, NULL, NULL, &s, err));
        if (i == 0 && first)
            *first = s.loss;
    }
    return s;
}
