/* Steps of training: the loss falls, threads do not matter, failures are named. */
#include "data_files.h"
#include "graph_kit.h"

#include <math.h>

#include "base/mem.h"
#include "data/npy.h"
#include "measure/measure.h"
#include "ops/ops.h"
#include "quant/fake.h"
#include "quant/qat.h"
#include "train/trainer_parts.h"

enum { SAMPLES = 64, SIDE = 8, SAMPLE = SIDE * SIDE, CLASSES = 4 };

/* A network, and images whose class is where a bright spot is. */
typedef struct trial {
    graph  *g, *prepared;
    float   x[SAMPLES * SAMPLE];
    int64_t labels[SAMPLES];
    batch_input input;
    batch   all;
} trial;

static void draw(trial *t, rng *r)
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

static void build(trial *t, bool softmax, bool batch_norm)
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

static void prepare(trial *t, int bits, const char *qconfig)
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

static trial *begin(bool softmax, bool batch_norm, int bits)
{
    trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    build(t, softmax, batch_norm);
    if (bits)
        prepare(t, bits, NULL);
    return t;
}

/* Prepared by a preset, for 8 bits. */
static trial *begin_preset(const char *name)
{
    trial *t = begin(false, false, 0);
    prepare(t, 8, name);
    return t;
}

static void end(trial *t)
{
    graph_free(t->g);
    graph_free(t->prepared);
    free(t);
}

static trainer_options usual(void)
{
    return (trainer_options){
        .optimizer = { .rate = 0.02f, .momentum = 0.9f, .scale_rate = 1, .total = 100,
                       .schedule = SCHEDULE_CONSTANT },
        .loss = { .cross_entropy = 1 },
        .batch = SAMPLES,
        .n_threads = 1,
    };
}

static step_result steps(trainer *t, const trial *on, int n, double *first)
{
    step_result s = { 0 };
    for (int i = 0; i < n; i++) {
        assert_ok(trainer_step(t, &on->all, NULL, NULL, &s, err));
        if (i == 0 && first)
            *first = s.loss;
    }
    return s;
}

static void loss_falls(void **state)
{
    (void)state;
    for (int way = 0; way < 5; way++) {
        const bool is_float = way >= 3;
        trial *t = begin(way == 1, way >= 3, is_float ? 0 : way == 2 ? 4 : 8);
        trainer_options opt = usual();
        trainer *tr;
        double first;
        opt.batch_stats = way == 4;
        opt.dampen = way == 2 ? 0.01f : 0;
        assert_ok(trainer_create(is_float ? t->g : t->prepared, NULL, &opt, &tr, err));
        const step_result last = steps(tr, t, 30, &first);
        assert_true(last.loss < first / 2);
        assert_true(last.correct > SAMPLES / 2);
        trainer_free(tr);
        end(t);
    }
}

/* The parameters after a few steps of two sizes, by n threads. */
static float *trained(const trial *t, int n_threads, rung_scales scales, size_t *total)
{
    trainer_options opt = usual();
    trainer *tr;
    step_result s;
    opt.n_threads = n_threads;
    opt.chunk = 8;
    opt.scales = scales;
    opt.loss.distill = 1;
    assert_ok(trainer_create(t->prepared, t->g, &opt, &tr, err));
    assert_int_equal(trainer_chunk(tr), 8);
    steps(tr, t, 3, NULL);
    batch part = t->all;
    part.n = 27; /* the last chunk is not full */
    part.inputs[0].t.dims[0] = 27;
    assert_ok(trainer_step(tr, &part, NULL, NULL, &s, err));
    part.inputs[0].t.dims[0] = SAMPLES;
    const params *p = trainer_params(tr);
    float *copy = malloc(p->total * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, p->data, p->total * sizeof *copy);
    *total = p->total;
    trainer_free(tr);
    return copy;
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    static const rung_scales ways[] = { RUNG_SCALES_LEARNED, RUNG_SCALES_OBSERVED };
    for (int way = 0; way < 2; way++) {
        trial *t = begin(false, false, 4);
        size_t total, other;
        float *one = trained(t, 1, ways[way], &total);
        for (int n = 2; n <= 4; n++) {
            float *more = trained(t, n, ways[way], &other);
            assert_int_equal(total, other);
            assert_memory_equal(one, more, total * sizeof *one);
            free(more);
        }
        free(one);
        end(t);
    }
}

/* The loss and the hits of the converted model, now. */
static double converted_loss(const trial *t, const trainer *tr, size_t *correct)
{
    graph *q;
    engine *e;
    *correct = 0;
    assert_ok(trainer_graph(tr, trainer_weights(tr), true, &q, err));
    assert_ok(engine_for_batch(q, &t->all, 1, NULL, &e, err));
    assert_ok(engine_feed(e, q, &t->all, err));
    assert_ok(engine_run(e, err));
    const float *y = engine_output(e, 0)->data;
    double loss = 0;
    for (int i = 0; i < SAMPLES; i++) {
        double sum = 0;
        int best = 0;
        for (int c = 0; c < CLASSES; c++) {
            sum += exp((double)y[i * CLASSES + c]);
            best = y[i * CLASSES + c] > y[i * CLASSES + best] ? c : best;
        }
        loss += (log(sum) - y[i * CLASSES + t->labels[i]]) / SAMPLES;
        *correct += best == t->labels[i];
    }
    engine_free(e);
    graph_free(q);
    return loss;
}

/* What the trainer computes is what the converted model gives at each step. */
static void loss_is_the_converted_models(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        trial *t = way == 0 ? begin(false, false, 4) : begin_preset(way == 1 ? "x86" : "qnnpack");
        const trainer_options opt = usual();
        trainer *tr;
        step_result s;
        size_t correct;
        assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
        assert_int_equal(trainer_scales(tr), way ? RUNG_SCALES_OBSERVED : RUNG_SCALES_LEARNED);
        for (int i = 0; i < 5; i++) {
            const double loss = converted_loss(t, tr, &correct);
            assert_ok(trainer_step(tr, &t->all, NULL, NULL, &s, err));
            assert_int_equal(s.correct, correct);
            assert_true(fabs(s.loss - loss) < 1e-9 * fabs(loss) + 1e-12);
        }
        trainer_free(tr);
        end(t);
    }
}

/* --- observed scales -------------------------------------------------------------------------- */

static const float *numbers_of(const trainer *t, const char *name)
{
    const int v = kit_find(t->g, name);
    assert_true(v >= 0 && t->p->at[v] >= 0);
    return t->p->data + t->p->list[t->p->at[v]].first;
}

static int param_of(const trainer *t, const char *name)
{
    return t->p->at[kit_find(t->g, name)];
}

/* The scale's name of the pair that quantizes this value. */
static const char *scale_of(const trainer *t, const char *name)
{
    const int v = kit_find(t->g, name);
    for (size_t i = 0; i < t->g->n_nodes; i++)
        if (!strcmp(t->g->nodes[i].op_type, "QuantizeLinear") && t->g->nodes[i].inputs[0] == v)
            return t->g->values[t->g->nodes[i].inputs[1]].name;
    fail_msg("nothing quantizes %s", name);
    return NULL;
}

static void ends_of(const float *x, size_t n, size_t inner, size_t channels, size_t c, float out[2])
{
    out[0] = INFINITY;
    out[1] = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (i / inner % channels == c) {
            out[0] = fminf(out[0], x[i]);
            out[1] = fmaxf(out[1], x[i]);
        }
}

/* The input's range by hand, and a weight's channels, from where they begin: x86 takes 7 bits of
 * [0, 255] for activations, 255 steps about 0 for weights. */
static void observed_ranges_follow_the_formulas(void **state)
{
    (void)state;
    enum { STEPS = 6, CHANNELS = 8 };
    trial *t = begin_preset("x86");
    const trainer_options opt = usual();
    trainer *tr;
    float w[CHANNELS][2], ends[2], x[2];
    assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
    const char *input = scale_of(tr, "x"), *weight = scale_of(tr, "c1_w");
    const float first = *numbers_of(tr, input), zero = *numbers_of(tr, "x_scale_zero");
    double lo = -(double)first * zero, hi = (double)first * (127 - (double)zero);
    ends_of(t->x, SAMPLES * SAMPLE, 1, 1, 0, x);
    for (size_t c = 0; c < CHANNELS; c++)
        ends_of(numbers_of(tr, "c1_w"), CHANNELS * 9, 9, CHANNELS, c, w[c]);
    for (int i = 0; i < STEPS; i++) {
        steps(tr, t, 1, NULL);
        lo += 0.01 * (x[0] - lo);
        hi += 0.01 * (x[1] - hi);
        const double scale = (hi - lo) / 127;
        assert_true(fabs(*numbers_of(tr, input) - scale) < 1e-5 * scale);
        assert_true(*numbers_of(tr, "x_scale_zero") == nearbyint(-lo / scale));
        for (size_t c = 0; c < CHANNELS; c++) {
            ends_of(numbers_of(tr, "c1_w"), CHANNELS * 9, 9, CHANNELS, c, ends);
            w[c][0] += 0.01f * (ends[0] - w[c][0]);
            w[c][1] += 0.01f * (ends[1] - w[c][1]);
            const float want = fmaxf(-w[c][0], w[c][1]) / 127.5f;
            assert_true(fabsf(numbers_of(tr, weight)[c] - want) < 1e-5f * want);
        }
    }
    trainer_free(tr);
    end(t);
}

/* Every activation's scale has a range after a step, no other parameter has one; a Relu's begins
 * at 0. */
static void ranges_within_are_seen(void **state)
{
    (void)state;
    trial *t = begin_preset("x86");
    trainer_options opt = usual();
    trainer *tr;
    opt.chunk = 16;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
    steps(tr, t, 1, NULL);
    size_t n = 0;
    for (size_t i = 0; i < tr->p->n; i++) {
        const float *seen = tr->seen + 2 * i;
        const bool is_seen = tr->p->list[i].kind == PARAM_ACT_SCALE;
        assert_true(is_seen == (isfinite(seen[0]) && isfinite(seen[1])));
        assert_true(!is_seen || -seen[0] <= seen[1]);
        n += is_seen;
    }
    assert_true(n >= 4);
    const float *relu = tr->seen + 2 * param_of(tr, scale_of(tr, "r1_out"));
    assert_true(relu[0] == 0 && relu[1] > 1);
    trainer_free(tr);
    end(t);
}

static void frozen_scales_stay(void **state)
{
    (void)state;
    trial *t = begin_preset("fbgemm");
    const trainer_options opt = usual();
    trainer *tr;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
    steps(tr, t, 3, NULL);
    assert_ok(trainer_freeze_scales(tr, err));
    const params *p = trainer_params(tr);
    float *before = malloc(p->total * sizeof *before);
    assert_non_null(before);
    memcpy(before, p->data, p->total * sizeof *before);
    steps(tr, t, 3, NULL);
    for (size_t i = 0; i < p->n; i++) {
        const param *a = &p->list[i];
        const bool stays = a->kind != PARAM_WEIGHT && a->kind != PARAM_BIAS;
        assert_int_equal(!memcmp(before + a->first, p->data + a->first, a->count * sizeof(float)),
                         stays);
    }
    free(before);
    trainer_free(tr);
    end(t);
}

/* A trainer that takes over parameters, optimizer and state does what the first one does. */
static void hand_over(trainer *from, trainer *to)
{
    float **a[3], **b[3];
    const size_t n_bytes = trainer_params(to)->total * sizeof(float);
    const size_t n = optimizer_state(trainer_optimizer(from), a);
    size_t n_states = 0;
    assert_int_equal(optimizer_state(trainer_optimizer(to), b), n);
    for (size_t i = 0; i < n; i++)
        memcpy(*b[i], *a[i], n_bytes);
    trainer_optimizer(to)->step = trainer_optimizer(from)->step;
    memcpy(trainer_params(to)->data, trainer_params(from)->data, n_bytes);
    for (int i = 0; i < TRAINER_STATES; i++) {
        void *x, *y;
        size_t size, other;
        trainer_state(from, i, &x, &size);
        trainer_state(to, i, &y, &other);
        assert_true(size == other);
        if (size)
            memcpy(y, x, size);
        n_states += size > 0;
    }
    assert_true(n_states > 0);
}

static void expect_same(const trainer *a, const trainer *b)
{
    const size_t n_bytes = a->p->total * sizeof(float);
    assert_memory_equal(a->p->data, b->p->data, n_bytes);
    assert_memory_equal(trainer_weights(a), trainer_weights(b), n_bytes);
}

static void observed_scales_go_on(void **state)
{
    (void)state;
    trial *t = begin_preset("x86");
    trainer_options opt = usual();
    trainer *one, *resumed;
    opt.optimizer.ema = 0.9f;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &one, err));
    opt.n_threads = 2;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &resumed, err));
    steps(one, t, 4, NULL);
    hand_over(one, resumed);
    steps(one, t, 4, NULL);
    steps(resumed, t, 4, NULL);
    expect_same(one, resumed);
    /* The average has the scales of now, and whole zero points. */
    const float *average = trainer_weights(one);
    for (size_t i = 0; i < one->p->n; i++) {
        const param *a = &one->p->list[i];
        if (a->kind != PARAM_WEIGHT && a->kind != PARAM_BIAS)
            assert_memory_equal(average + a->first, one->p->data + a->first,
                                a->count * sizeof(float));
    }
    trainer_free(one);
    trainer_free(resumed);
    end(t);
}

/* Each observed scale has a zero point of its own; the integer model says nothing of training. */
static void prepared_models_say_how(void **state)
{
    (void)state;
    trial *t = begin_preset("x86");
    graph *q;
    assert_int_equal(qat_scales_of(t->prepared), RUNG_SCALES_OBSERVED);
    assert_non_null(graph_metadata(t->prepared, "rung.observers"));
    assert_ok(qat_convert(t->prepared, NULL, &q, err));
    assert_null(graph_metadata(q, "rung.scales"));
    assert_null(graph_metadata(q, "rung.observers"));
    assert_non_null(graph_metadata(q, "rung.quantized"));
    const fake_quantizer f = { .lo = 0, .hi = 255 };
    assert_int_equal(qat_observer_of(t->prepared, "x_scale", &f).bits, 7);
    assert_false(qat_observer_of(t->prepared, "x_scale", &f).symmetric);
    assert_int_equal(qat_observer_of(t->prepared, "nothing", &f).bits, 8);
    graph_free(q);
    end(t);
}

/* Without labels, towards the float network: outputs, and a tensor inside. */
static void follows_a_teacher(void **state)
{
    (void)state;
    const char *names[] = { "r1_out" };
    trial *t = begin(true, false, 3);
    trainer_options opt = usual();
    trainer *tr;
    double first;
    opt.loss = (loss_options){ .distill = 1, .temperature = 2, .features = 1 };
    opt.features = names;
    opt.n_features = 1;
    opt.optimizer.rate = 0.005f;
    t->all.labels = NULL;
    assert_ok(trainer_create(t->prepared, t->g, &opt, &tr, err));
    const step_result last = steps(tr, t, 40, &first);
    assert_true(last.loss < 0.7 * first);
    trainer_free(tr);
    names[0] = "nothing";
    assert_fails(trainer_create(t->prepared, t->g, &opt, &tr, err), RUNG_EARGUMENT,
                 "feature 'nothing'");
    assert_fails(trainer_create(t->prepared, NULL, &opt, &tr, err), RUNG_EARGUMENT, "a teacher");
    end(t);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    trial *t = begin(false, false, 8);
    trainer_options opt = usual();
    trainer *tr;
    step_result s;
    opt.batch_stats = true;
    assert_fails(trainer_create(t->prepared, NULL, &opt, &tr, err), RUNG_EARGUMENT, "folded");
    opt.batch_stats = false;
    opt.batch = 8;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
    assert_fails(trainer_step(tr, &t->all, NULL, NULL, &s, err), RUNG_EARGUMENT, "1 to 8");
    trainer_free(tr);
    end(t);
}

/* Each allocation of a trainer of a prepared model fails in turn, then of a step. */
static void without_memory(void **state)
{
    (void)state;
    enum { MOST = 20000 };
    trial *t = begin(false, false, 8);
    trainer_options opt = usual();
    trainer *tr = NULL;
    step_result s;
    rung_status st = RUNG_EMEMORY;
    opt.n_threads = 2;
    opt.loss.distill = 1;
    long n = 0;
    for (; st == RUNG_EMEMORY && n < MOST; n++) {
        mem_fail_after(n);
        st = trainer_create(t->prepared, t->g, &opt, &tr, NULL);
        mem_fail_after(-1);
        assert_true((tr != NULL) == (st == RUNG_OK));
    }
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 20);
    st = RUNG_EMEMORY;
    for (n = 0; st == RUNG_EMEMORY && n < MOST; n++) {
        mem_fail_after(n);
        st = trainer_step(tr, &t->all, NULL, NULL, &s, NULL);
        mem_fail_after(-1);
    }
    assert_int_equal(st, RUNG_OK);
    assert_true(n > 1);
    trainer_free(tr);
    end(t);
}

/* A number that is not finite: nothing moves; the step and the node are named. */
static void not_finite(void **state)
{
    (void)state;
    trial *t = begin(false, false, 0);
    trainer_options opt = usual();
    trainer *tr;
    step_result s;
    assert_ok(trainer_create(t->g, NULL, &opt, &tr, err));
    steps(tr, t, 2, NULL);
    const params *p = trainer_params(tr);
    float *before = malloc(p->total * sizeof *before);
    assert_non_null(before);
    memcpy(before, p->data, p->total * sizeof *before);
    t->x[5] = NAN;
    assert_fails(trainer_step(tr, &t->all, NULL, NULL, &s, err), RUNG_EMODEL, "step 3");
    assert_fails(trainer_step(tr, &t->all, NULL, NULL, &s, err), RUNG_EMODEL, "Conv 'c1'");
    assert_memory_equal(before, p->data, p->total * sizeof *before);
    free(before);
    trainer_free(tr);
    end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(loss_is_the_converted_models),
        cmocka_unit_test(observed_ranges_follow_the_formulas),
        cmocka_unit_test(ranges_within_are_seen),
        cmocka_unit_test(frozen_scales_stay),
        cmocka_unit_test(observed_scales_go_on),
        cmocka_unit_test(prepared_models_say_how),
        cmocka_unit_test(follows_a_teacher),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(loss_falls),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
