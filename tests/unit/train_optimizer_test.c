/* Optimizers, step by step against PyTorch's; schedules, clipping, averages, refusals. */
#include "graph_kit.h"

#include <math.h>
#include <string.h>

#include "ops/ops.h"
#include "train/optimizer.h"

enum { N = 4, STEPS = 4 };

/* torch 2.15, float32: p = [1, -2, 0.5, 3], in step k (from 1) its gradient is k * p + 0.1;
 *   sgd      torch.optim.SGD([p], lr=0.1)
 *   momentum torch.optim.SGD([p], lr=0.1, momentum=0.9)
 *   nesterov torch.optim.SGD([p], lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
 *   adamw    torch.optim.AdamW([p], lr=0.02, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
 *   clipped  as momentum, torch.nn.utils.clip_grad_norm_([p], 1) before each step
 * p.tolist() after each step. */
typedef struct expected {
    optimizer_options opt;
    float             p[STEPS][N];
} expected;

static const expected all[] = {
    { { .rate = 0.1f },
      { { 0.889999986f, -1.80999994f, 0.439999998f, 2.69000006f },
        { 0.701999962f, -1.45799994f, 0.342000008f, 2.14199996f },
        { 0.481399983f, -1.03059995f, 0.229399994f, 1.48940003f },
        { 0.278839976f, -0.628359973f, 0.127639994f, 0.883639991f } } },
    { { .rate = 0.1f, .momentum = 0.9f },
      { { 0.889999986f, -1.80999994f, 0.439999998f, 2.69000006f },
        { 0.602999985f, -1.28699994f, 0.287999988f, 1.86300004f },
        { 0.153799966f, -0.440199971f, 0.0548000075f, 0.549800038f },
        { -0.322000027f, 0.487999916f, -0.186999977f, -0.861999989f } } },
    { { .rate = 0.05f, .momentum = 0.9f, .nesterov = true, .weight_decay = 0.01f },
      { { 0.894550025f, -1.81760001f, 0.442524999f, 2.70265007f },
        { 0.669280708f, -1.40226936f, 0.324022353f, 2.05031395f },
        { 0.35106954f, -0.79689467f, 0.159742177f, 1.1163789f },
        { 0.0165935885f, -0.14341785f, -0.0100749396f, 0.123267949f } } },
    { { .kind = OPTIMIZER_ADAMW, .rate = 0.02f, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-8f,
        .weight_decay = 0.1f },
      { { 0.978000045f, -1.97600007f, 0.479000002f, 2.97399998f },
        { 0.956600487f, -1.95277369f, 0.458486229f, 2.94869614f },
        { 0.935357809f, -1.92972004f, 0.438096464f, 2.9235754f },
        { 0.91410023f, -1.9066453f, 0.41767776f, 2.89845324f } } },
    { { .rate = 0.1f, .momentum = 0.9f, .clip_norm = 1 },
      { { 0.971397221f, -1.95059514f, 0.484398484f, 2.91939211f },
        { 0.91811806f, -1.85489118f, 0.455949843f, 2.76679087f },
        { 0.843041599f, -1.7168262f, 0.416396946f, 2.54962015f },
        { 0.748606622f, -1.54020524f, 0.367137969f, 2.2744813f } } },
};

/* One parameter of each kind in `list`, one after the other. */
static params block(param *list, float *data, const param_kind *kinds, int n)
{
    static const char *const names[] = { "a", "b", "c", "d" };
    for (int i = 0; i < n; i++)
        list[i] = (param){ i, names[i], kinds[i], (size_t)i * N, N };
    return (params){ .list = list, .n = (size_t)n, .total = (size_t)n * N, .data = data };
}

static const float start[N] = { 1, -2, 0.5f, 3 };

static void against_torch(void **state)
{
    (void)state;
    for (int way = 0; way < COUNT(all); way++) {
        float data[N], grad[N];
        param list[1];
        const param_kind kind = PARAM_WEIGHT;
        memcpy(data, start, sizeof data);
        const params p = block(list, data, &kind, 1);
        optimizer_options opt = all[way].opt;
        opt.schedule = SCHEDULE_CONSTANT;
        optimizer *o;
        assert_ok(optimizer_create(&p, &opt, &o, err));
        for (int k = 0; k < STEPS; k++) {
            double norm, squares = 0;
            for (int i = 0; i < N; i++) {
                grad[i] = (float)(k + 1) * data[i] + 0.1f;
                squares += (double)grad[i] * grad[i];
            }
            assert_ok(optimizer_step(o, data, grad, &norm, err));
            assert_true(fabs(norm - sqrt(squares)) < 1e-6 * norm);
            /* A step is four float32 operations at most, on numbers up to 3. */
            for (int i = 0; i < N; i++)
                assert_true(fabsf(data[i] - all[way].p[k][i]) < (float)(k + 1) * 4 * 3 * 6e-8f);
        }
        assert_int_equal(o->step, STEPS);
        optimizer_free(o);
    }
}

/* Decay of weights only, a rate of their own for scales, states stay. */
static void kinds_differ(void **state)
{
    (void)state;
    float data[4 * N], grad[4 * N] = { 0 };
    param list[4];
    const param_kind kinds[] = { PARAM_WEIGHT, PARAM_BIAS, PARAM_ACT_SCALE, PARAM_STATE };
    const params p = block(list, data, kinds, 4);
    const optimizer_options opt = { .rate = 0.5f, .weight_decay = 0.5f, .scale_rate = 0.25f,
                                    .schedule = SCHEDULE_CONSTANT };
    optimizer *o;
    for (int i = 0; i < 4 * N; i++)
        data[i] = 1;
    grad[2 * N] = grad[3 * N] = 1;
    assert_ok(optimizer_create(&p, &opt, &o, err));
    assert_ok(optimizer_step(o, data, grad, NULL, err));
    assert_true(data[0] == 0.75f);
    assert_true(data[N] == 1);
    assert_true(data[2 * N] == 0.875f);
    assert_true(data[3 * N] == 1);
    optimizer_free(o);
}

static float rate_at(optimizer *o, size_t step)
{
    o->step = step;
    return optimizer_rate(o);
}

static void schedules(void **state)
{
    (void)state;
    float data[N];
    param list[1];
    const param_kind kind = PARAM_WEIGHT;
    memcpy(data, start, sizeof data);
    const params p = block(list, data, &kind, 1);
    optimizer_options opt = { .rate = 1, .warmup = 3, .total = 13 };
    optimizer *o;
    assert_ok(optimizer_create(&p, &opt, &o, err));
    assert_true(rate_at(o, 0) == 0.25f && rate_at(o, 2) == 0.75f && rate_at(o, 3) == 1);
    assert_true(fabsf(rate_at(o, 8) - 0.5f) < 1e-6f);
    assert_true(rate_at(o, 13) < 1e-6f && rate_at(o, 99) < 1e-6f);
    o->opt = (optimizer_options){ .rate = 1, .schedule = SCHEDULE_STEP, .step_every = 10,
                                  .step_factor = 0.5f };
    assert_true(rate_at(o, 9) == 1 && rate_at(o, 10) == 0.5f && rate_at(o, 25) == 0.25f);
    o->opt.schedule = SCHEDULE_CONSTANT;
    assert_true(rate_at(o, 25) == 1);
    optimizer_free(o);
}

/* ema[k] = d ema[k - 1] + (1 - d) p[k], d = min(0.9, (1 + k) / (10 + k)); by hand. */
static void averages(void **state)
{
    (void)state;
    float data[N], grad[N] = { 0 };
    param list[1];
    const param_kind kind = PARAM_WEIGHT;
    double want[N];
    memcpy(data, start, sizeof data);
    const params p = block(list, data, &kind, 1);
    const optimizer_options opt = { .rate = 0.1f, .schedule = SCHEDULE_CONSTANT, .ema = 0.2f };
    optimizer *o;
    assert_ok(optimizer_create(&p, &opt, &o, err));
    for (int i = 0; i < N; i++)
        want[i] = start[i];
    for (int k = 1; k <= 5; k++) {
        grad[1] = (float)k;
        assert_ok(optimizer_step(o, data, grad, NULL, err));
        const double keep = fmin(opt.ema, (1.0 + k) / (10.0 + k));
        for (int i = 0; i < N; i++) {
            want[i] = keep * want[i] + (1 - keep) * data[i];
            assert_true(fabs(want[i] - o->average[i]) < 1e-5);
        }
    }
    float **parts[3];
    assert_int_equal(optimizer_state(o, parts), 1);
    assert_ptr_equal(*parts[0], o->average);
    optimizer_free(o);
}

/* Nothing moves, and the parameter is named. */
static void not_finite(void **state)
{
    (void)state;
    float data[2 * N], grad[2 * N] = { 0 };
    param list[2];
    const param_kind kinds[] = { PARAM_WEIGHT, PARAM_BIAS };
    memcpy(data, start, sizeof start);
    memcpy(data + N, start, sizeof start);
    const params p = block(list, data, kinds, 2);
    const optimizer_options opt = { .rate = 1 };
    optimizer *o;
    assert_ok(optimizer_create(&p, &opt, &o, err));
    grad[0] = 1;
    grad[N + 2] = NAN;
    assert_fails(optimizer_step(o, data, grad, NULL, err), RUNG_EMODEL, "gradient of 'b'");
    assert_memory_equal(data, start, sizeof start);
    assert_int_equal(o->step, 0);
    grad[N + 2] = INFINITY;
    assert_fails(optimizer_step(o, data, grad, NULL, err), RUNG_EMODEL, "step 1");
    optimizer_free(o);
}

/* Which constants of a float graph are trained, as what; the round trip through the block. */
static void params_of_a_graph(void **state)
{
    (void)state;
    graph *g = kit_graph(op_find), *changed;
    rng r;
    rng_seed(&r, 3);
    const int x = kit_input(g, "x", 4, DIMS(2, 3, 4, 4));
    const int w = kit_random(g, &r, "w", 4, DIMS(5, 3, 3, 3));
    const int b = kit_random(g, &r, "b", 1, DIMS(5));
    const int y = kit_node(g, "Conv", "c", 3, IDS(x, w, b));
    const int s = kit_positive(g, &r, "s", 5), t = kit_random(g, &r, "t", 1, DIMS(5));
    const int m = kit_random(g, &r, "m", 1, DIMS(5)), v = kit_positive(g, &r, "v", 5);
    const int n = kit_node(g, "BatchNormalization", "n", 5, IDS(y, s, t, m, v));
    const int half = kit_constant(g, "half", RUNG_F32, 0, NULL, &(float){ 0.5f });
    const int k = kit_random(g, &r, "k", 3, DIMS(5, 1, 1));
    const int scaled = kit_node(g, "Mul", "half_of", 2, IDS(n, half));
    kit_output(g, kit_node(g, "Mul", "scaled", 2, IDS(scaled, k)));
    params *p;
    assert_ok(params_create(g, &p, err));
    const int want[] = { [0] = w, b, s, t, m, v, k };
    const param_kind kinds[] = { PARAM_WEIGHT, PARAM_BIAS, PARAM_NORM, PARAM_NORM, PARAM_STATE,
                                 PARAM_STATE, PARAM_NORM };
    assert_int_equal(p->n, COUNT(want));
    for (int i = 0; i < COUNT(want); i++) {
        assert_int_equal(p->list[i].value, want[i]);
        assert_int_equal(p->list[i].kind, kinds[i]);
        assert_int_equal(p->at[want[i]], i);
        assert_memory_equal(p->data + p->list[i].first, g->values[want[i]].constant->data,
                            p->list[i].count * sizeof(float));
    }
    assert_int_equal(p->at[half], -1);
    p->data[p->list[1].first + 2] = 42;
    assert_ok(params_apply(p, p->data, g, &changed, err));
    assert_true(((const float *)changed->values[b].constant->data)[2] == 42);
    assert_true(((const float *)g->values[b].constant->data)[2] != 42);
    graph_free(changed);
    params_free(p);
    graph_free(g);
    g = kit_graph(op_find);
    kit_output(g, kit_node(g, "Relu", "r", 1, IDS(kit_input(g, "x", 1, DIMS(2)))));
    assert_fails(params_create(g, &p, err), RUNG_EARGUMENT, "no float32 weights");
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_torch), cmocka_unit_test(kinds_differ),
        cmocka_unit_test(schedules),     cmocka_unit_test(averages),
        cmocka_unit_test(not_finite),    cmocka_unit_test(params_of_a_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
