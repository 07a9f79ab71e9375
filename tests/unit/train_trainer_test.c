/* Steps of training: the loss falls, threads do not matter, failures are named. */
#include "data_files.h"

#include <math.h>

#include "base/mem.h"
#include "measure/measure.h"
#include "trainer_kit.h"

static void loss_falls(void **state)
{
    (void)state;
    for (int way = 0; way < 5; way++) {
        const bool is_float = way >= 3;
        spots *t = spots_begin(way == 1, way >= 3, is_float ? 0 : way == 2 ? 4 : 8);
        trainer_options opt = spots_usual();
        trainer *tr;
        double first;
        opt.batch_stats = way == 4;
        opt.dampen = way == 2 ? 0.01f : 0;
        assert_ok(trainer_create(is_float ? t->g : t->prepared, NULL, &opt, &tr, err));
        const step_result last = spots_train(tr, t, 30, &first);
        assert_true(last.loss < first / 2);
        assert_true(last.correct > SAMPLES / 2);
        trainer_free(tr);
        spots_end(t);
    }
}

/* The parameters after a few steps of two sizes, by n threads. */
static float *trained(const spots *t, int n_threads, rung_scales scales, size_t *total)
{
    trainer_options opt = spots_usual();
    trainer *tr;
    step_result s;
    opt.n_threads = n_threads;
    opt.chunk = 8;
    opt.scales = scales;
    opt.loss.distill = 1;
    assert_ok(trainer_create(t->prepared, t->g, &opt, &tr, err));
    assert_int_equal(trainer_chunk(tr), 8);
    spots_train(tr, t, 3, NULL);
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
        spots *t = spots_begin(false, false, 4);
        size_t total, other;
        float *one = trained(t, 1, ways[way], &total);
        for (int n = 2; n <= 4; n++) {
            float *more = trained(t, n, ways[way], &other);
            assert_int_equal(total, other);
            assert_memory_equal(one, more, total * sizeof *one);
            free(more);
        }
        free(one);
        spots_end(t);
    }
}

/* The loss and the hits of the converted model, now. */
static double converted_loss(const spots *t, const trainer *tr, size_t *correct)
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
        spots *t = way == 0 ? spots_begin(false, false, 4)
                            : spots_preset(way == 1 ? "x86" : "qnnpack");
        const trainer_options opt = spots_usual();
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
        spots_end(t);
    }
}

/* Without labels, towards the float network: outputs, and a tensor inside. */
static void follows_a_teacher(void **state)
{
    (void)state;
    const char *names[] = { "r1_out" };
    spots *t = spots_begin(true, false, 3);
    trainer_options opt = spots_usual();
    trainer *tr;
    double first;
    opt.loss = (loss_options){ .distill = 1, .temperature = 2, .features = 1 };
    opt.features = names;
    opt.n_features = 1;
    opt.optimizer.rate = 0.005f;
    t->all.labels = NULL;
    assert_ok(trainer_create(t->prepared, t->g, &opt, &tr, err));
    const step_result last = spots_train(tr, t, 40, &first);
    assert_true(last.loss < 0.7 * first);
    trainer_free(tr);
    names[0] = "nothing";
    assert_fails(trainer_create(t->prepared, t->g, &opt, &tr, err), RUNG_EARGUMENT,
                 "feature 'nothing'");
    assert_fails(trainer_create(t->prepared, NULL, &opt, &tr, err), RUNG_EARGUMENT, "a teacher");
    spots_end(t);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    spots *t = spots_begin(false, false, 8);
    trainer_options opt = spots_usual();
    trainer *tr;
    step_result s;
    opt.batch_stats = true;
    assert_fails(trainer_create(t->prepared, NULL, &opt, &tr, err), RUNG_EARGUMENT, "folded");
    opt.batch_stats = false;
    opt.batch = 8;
    assert_ok(trainer_create(t->prepared, NULL, &opt, &tr, err));
    assert_fails(trainer_step(tr, &t->all, NULL, NULL, &s, err), RUNG_EARGUMENT, "1 to 8");
    trainer_free(tr);
    spots_end(t);
}

/* Each allocation of a trainer of a prepared model fails in turn, then of a step. */
static void without_memory(void **state)
{
    (void)state;
    enum { MOST = 20000 };
    spots *t = spots_begin(false, false, 8);
    trainer_options opt = spots_usual();
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
    spots_end(t);
}

/* A number that is not finite: nothing moves; the step and the node are named. */
static void not_finite(void **state)
{
    (void)state;
    spots *t = spots_begin(false, false, 0);
    trainer_options opt = spots_usual();
    trainer *tr;
    step_result s;
    assert_ok(trainer_create(t->g, NULL, &opt, &tr, err));
    spots_train(tr, t, 2, NULL);
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
    spots_end(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(loss_is_the_converted_models),
        cmocka_unit_test(follows_a_teacher),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(loss_falls),
    };
    return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
