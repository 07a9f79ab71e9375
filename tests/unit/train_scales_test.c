/* Scales that follow ranges, and weights that freeze: against the formulas, over breaks, for any
 * number of threads. */
#include "data_files.h"

#include <math.h>

#include "base/mem.h"
#include "quant/fake.h"
#include "quant/qat.h"
#include "trainer_kit.h"

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
    spots *t = spots_preset("x86");
    const trainer_options opt = spots_usual();
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
        spots_train(tr, t, 1, NULL);
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
    spots_end(t);
}

/* Every activation's scale has a range after a step, no other parameter has one; a Relu's begins
 * at 0. */
static void ranges_within_are_seen(void **state)
{
    (void)state;
    spots *t = spots_preset("x86");
    trainer_options opt = spots_usual();
    trainer *tr;
    opt.chunk = 16;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
    spots_train(tr, t, 1, NULL);
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
    spots_end(t);
}

static void frozen_scales_stay(void **state)
{
    (void)state;
    spots *t = spots_preset("fbgemm");
    const trainer_options opt = spots_usual();
    trainer *tr;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
    spots_train(tr, t, 3, NULL);
    assert_ok(trainer_freeze_scales(tr, err));
    const params *p = trainer_params(tr);
    float *before = malloc(p->total * sizeof *before);
    assert_non_null(before);
    memcpy(before, p->data, p->total * sizeof *before);
    spots_train(tr, t, 3, NULL);
    for (size_t i = 0; i < p->n; i++) {
        const param *a = &p->list[i];
        const bool stays = a->kind != PARAM_WEIGHT && a->kind != PARAM_BIAS;
        assert_int_equal(!memcmp(before + a->first, p->data + a->first, a->count * sizeof(float)),
                         stays);
    }
    free(before);
    trainer_free(tr);
    spots_end(t);
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
    spots *t = spots_preset("x86");
    trainer_options opt = spots_usual();
    trainer *one, *resumed;
    opt.optimizer.ema = 0.9f;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &one, err));
    opt.n_threads = 2;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &resumed, err));
    spots_train(one, t, 4, NULL);
    hand_over(one, resumed);
    spots_train(one, t, 4, NULL);
    spots_train(resumed, t, 4, NULL);
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
    spots_end(t);
}

/* Each observed scale has a zero point of its own; the integer model says nothing of training. */
static void prepared_models_say_how(void **state)
{
    (void)state;
    spots *t = spots_preset("x86");
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
    spots_end(t);
}

/* --- weights that swing ----------------------------------------------------------------------- */

/* Against the averages by hand: codes 3 4 3 4 3 turn three times, from the third on. */
static void turns_are_counted(void **state)
{
    (void)state;
    static const float codes[] = { 4, 3, 4, 3 };
    static const float often[] = { 0, 0.01f, 0.0199f, 0.029701f };
    static const float mean[] = { 3.01f, 3.0099f, 3.019801f, 3.01960299f };
    swing s = { .code = 3, .mean = 3 };
    for (int i = 0; i < 4; i++) {
        assert_int_equal(swing_see(&s, codes[i], 0.025f), i == 3);
        assert_true(fabsf(s.often - often[i]) < 1e-6f);
        assert_true(fabsf(s.mean - mean[i]) < 1e-6f);
    }
    assert_true(s.code == 3 && swing_see(&s, 9, 0.025f) && s.code == 3);
    swing one_way = { .code = -5, .mean = -5 };
    for (int i = -4; i < 100; i++)
        assert_false(swing_see(&one_way, (float)i, 0));
    assert_true(one_way.often == 0 && one_way.direction == 1);
}

static trainer *freezing(const spots *t, rung_scales scales, int n_threads)
{
    trainer_options opt = spots_usual();
    trainer *tr;
    opt.n_threads = n_threads;
    opt.chunk = 8;
    opt.scales = scales;
    opt.freeze_oscillating = 0.005f;
    opt.optimizer.rate = 0.2f;
    opt.optimizer.ema = 0.5f;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
    return tr;
}

/* The code of each weight, by parameter. */
static void codes_now(const trainer *tr, const float *data, float *codes)
{
    uses u;
    fake_quantizer f;
    fake_nodes n;
    arena *mem = arena_new();
    assert_non_null(mem);
    assert_ok(graph_uses(tr->g, mem, &u, err));
    for (size_t i = 0; i < tr->g->n_nodes; i++) {
        if (!fake_read(tr->g, &u, (int)i, &f, &n) || tr->p->at[n.in] < 0)
            continue;
        const param *w = &tr->p->list[tr->p->at[n.in]];
        tensor x = *tr->g->values[n.in].constant;
        uint8_t *q = arena_alloc(mem, w->count);
        assert_non_null(q);
        x.data = (void *)(uintptr_t)(data + w->first);
        fake_codes(&f, &x, data + tr->p->list[tr->p->at[n.scale]].first, q);
        for (size_t k = 0; k < w->count; k++)
            codes[w->first + k] = (int8_t)q[k];
    }
    arena_free(mem);
}

/* What is frozen stays on its code, in the average as well; what is not has turned no oftener than
 * it may. Returns how many were frozen before. */
static size_t check_frozen(const trainer *tr, const swing *before)
{
    void *data;
    size_t size, n = 0;
    float *codes = calloc(2 * tr->p->total, sizeof *codes), *average = codes + tr->p->total;
    assert_non_null(codes);
    codes_now(tr, tr->p->data, codes);
    codes_now(tr, trainer_weights(tr), average);
    trainer_state(tr, 1, &data, &size);
    assert_int_equal(size, tr->p->total * sizeof(swing));
    for (size_t i = 0; i < tr->p->total; i++) {
        const swing *now = (const swing *)data + i;
        assert_true(!before[i].frozen || (now->frozen && now->code == before[i].code));
        assert_true(now->frozen || now->often <= 0.005f);
        assert_true(!now->frozen || (codes[i] == now->code && average[i] == now->code));
        n += before[i].frozen != 0;
    }
    free(codes);
    return n;
}

/* Threads and a break do not matter. */
static void frozen_weights_stay(void **state)
{
    (void)state;
    static const rung_scales ways[] = { RUNG_SCALES_LEARNED, RUNG_SCALES_OBSERVED };
    for (int way = 0; way < 2; way++) {
        spots *t = spots_begin(false, false, 3);
        trainer *one = freezing(t, ways[way], 1), *more = freezing(t, ways[way], 3);
        trainer *resumed = freezing(t, ways[way], 2);
        void *data;
        size_t size;
        spots_train(one, t, 20, NULL);
        hand_over(one, resumed);
        trainer_state(one, 1, &data, &size);
        swing *before = malloc(size);
        assert_non_null(before);
        memcpy(before, data, size);
        spots_train(one, t, 20, NULL);
        spots_train(more, t, 40, NULL);
        spots_train(resumed, t, 20, NULL);
        expect_same(one, more);
        expect_same(one, resumed);
        assert_true(check_frozen(one, before) > 0);
        free(before);
        trainer_free(one);
        trainer_free(more);
        trainer_free(resumed);
        spots_end(t);
    }
}

/* Every allocation fails in turn: an error each time, nothing leaks. */
static void without_memory(void **state)
{
    (void)state;
    spots *t = spots_preset("x86");
    long n = 0;
    for (rung_status st = RUNG_EMEMORY; st != RUNG_OK; n++) {
        rung_error why = { "" };
        observers *o;
        params *p;
        mem_fail_after(n);
        st = observers_create(t->prepared, &o, &p, &why);
        mem_fail_after(-1);
        assert_true(st == RUNG_OK || st == RUNG_EMEMORY);
        assert_true(n < 100000);
        params_free(p);
        observers_free(o);
    }
    assert_true(n > 3);
    spots_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(observed_ranges_follow_the_formulas),
        cmocka_unit_test(ranges_within_are_seen),
        cmocka_unit_test(frozen_scales_stay),
        cmocka_unit_test(observed_scales_go_on),
        cmocka_unit_test(prepared_models_say_how),
        cmocka_unit_test(turns_are_counted),
        cmocka_unit_test(frozen_weights_stay),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
